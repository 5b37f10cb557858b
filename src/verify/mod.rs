//! Is the deploy good? Looks at targets until the gate decides.
//!
//! What it promises: a gate is open only when every target passed, each as often in a row as
//! asked; it ends within its timeout plus a moment, whatever the targets do; a cancel ends it at
//! once. Targets are looked at side by side and share nothing but the clock.
//!
//! [`gate`] is the rule and pure; [`probe`] is one look; [`http`] is the look that asks an HTTP
//! address. Deliberately absent: what to ask (that is the config's business) and how to say what
//! was found (the faces').

pub mod gate;
pub mod http;
pub mod probe;
mod target;
mod verdict;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::http::Http;
use crate::random::Random;
use crate::report::{Event, Exit, Report, Reporter};

pub use http::HttpProbe;
pub use probe::{Observation, Probe};
pub use target::{Gate, Target, Text, defaults, foresee, from_flags};
pub use verdict::{Evidence, GateReport, GateVerdict, TargetReport};

use gate::{Decision, Fold, Look, Rules};

/// Looks in flight at the same time, at most: each holds a socket, and a process may open 1,024
/// files on most machines.
pub const LOOKS_IN_FLIGHT_MAX: usize = 128;

/// Characters of a body kept as evidence.
pub const EVIDENCE_CHARACTERS_MAX: usize = 300;

/// Of the time that is left when no whole wait fits in any more, this much is kept for one last
/// look.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// With less than this left, a target that passed a while ago is not looked at again.
const CONFIRM_MIN: Duration = Duration::from_secs(1);

/// What a running gate needs from outside.
pub struct World<'a> {
    /// Time.
    pub clock: &'a dyn Clock,
    /// Jitter.
    pub random: &'a dyn Random,
    /// Where events go.
    pub reporter: &'a dyn Reporter,
    /// Hides live secrets in text from outside. It sees such text *before* it is cut to size: the
    /// half of a secret that a cut leaves over is one no filter would know.
    pub hide: &'a (dyn Fn(&str, Extent) -> String + Send + Sync),
}

/// How much of a text there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Its beginning: what it ends with may be the beginning of a secret.
    Beginning,
}

impl fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

/// A probe for every target, or every problem with the gate. A gate without targets is refused:
/// it would always be open.
pub fn probes(http: &Arc<Http>, gate: &Gate) -> Result<Vec<Box<dyn Probe>>, Vec<Report>> {
    let mut problems = Vec::new();
    if gate.targets.is_empty() {
        problems.push(
            Report::error(
                "verify/no-targets",
                format!(
                    "gate `{}` has no targets, so it would always be open",
                    gate.name
                ),
            )
            .fix("name at least one address under `targets`")
            .exit(Exit::Usage),
        );
    }
    if gate.timeout.is_zero() {
        problems.push(
            Report::error(
                "verify/no-time",
                format!(
                    "gate `{}` has a timeout of zero, so it could never open",
                    gate.name
                ),
            )
            .fix("give it some time, such as `timeout: 5m`")
            .exit(Exit::Usage),
        );
    }
    let mut probes: Vec<Box<dyn Probe>> = Vec::new();
    for target in &gate.targets {
        match HttpProbe::new(Arc::clone(http), target) {
            Ok(probe) => probes.push(Box::new(probe)),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        Ok(probes)
    } else {
        Err(problems)
    }
}

/// Looks until the gate decides. `probes` are [`probes`] of the same gate, in the same order;
/// when `cancel` is ready the gate ends at once as interrupted.
pub async fn run(
    gate: &Gate,
    probes: &[Box<dyn Probe>],
    world: &World<'_>,
    cancel: impl Future<Output = ()>,
) -> GateReport {
    assert_eq!(
        gate.targets.len(),
        probes.len(),
        "one probe for each target"
    );
    let started = world.clock.monotonic();
    let holders: Vec<Holder<'_>> = gate
        .targets
        .iter()
        .zip(probes)
        .map(|(target, probe)| Holder {
            gate,
            probe: &**probe,
            world,
            started,
            progress: Mutex::new(Progress::new(Rules {
                consecutive: target.consecutive,
                max_retries: gate.max_retries,
                retry_interval: gate.retry_interval,
            })),
        })
        .collect();
    let is_interrupted = tokio::select! {
        biased;
        () = hold_all(gate, world, started, &holders) => false,
        () = cancel => true,
    };
    let elapsed = world.clock.monotonic().saturating_sub(started);
    let ends: Vec<End> = holders.iter().map(|holder| holder.progress().end).collect();
    let verdict = if !ends.is_empty() && ends.iter().all(|end| *end == End::Passed) {
        GateVerdict::Passed
    } else if is_interrupted {
        GateVerdict::Interrupted
    } else if ends
        .iter()
        .all(|end| matches!(end, End::Passed | End::GaveUp))
    {
        GateVerdict::Failed
    } else {
        GateVerdict::TimedOut
    };
    GateReport {
        name: gate.name.clone(),
        verdict,
        elapsed,
        targets: holders
            .into_iter()
            .map(|holder| holder.report(elapsed))
            .collect(),
    }
}

/// Holds every target; once all have passed, looks again at those whose pass is older than an
/// interval, for a service may have died while the gate waited for another one.
async fn hold_all(gate: &Gate, world: &World<'_>, started: Duration, holders: &[Holder<'_>]) {
    let slots = Semaphore::new(LOOKS_IN_FLIGHT_MAX);
    loop {
        let mut waiting: FuturesUnordered<_> = holders
            .iter()
            .filter(|holder| holder.progress().end == End::Open)
            .map(|holder| holder.hold(&slots))
            .collect();
        while waiting.next().await.is_some() {}
        let elapsed = world.clock.monotonic().saturating_sub(started);
        let all_passed = holders
            .iter()
            .all(|holder| holder.progress().end == End::Passed);
        if !all_passed || gate.timeout.saturating_sub(elapsed) < CONFIRM_MIN {
            return;
        }
        let oldest = gate.retry_interval.max(CONFIRM_MIN);
        let mut reopened = 0_usize;
        for holder in holders {
            let mut progress = holder.progress();
            if elapsed.saturating_sub(progress.decided) > oldest {
                progress.end = End::Open;
                progress.fold.reopen();
                reopened += 1;
            }
        }
        if reopened == 0 {
            return;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Passed,
    GaveUp,
    OutOfTime,
}

/// What is known about one target so far.
#[derive(Debug)]
struct Progress {
    fold: Fold,
    end: End,
    attempts: u32,
    /// When `end` was decided, since the gate's start.
    decided: Duration,
    last: Option<Evidence>,
    /// True while the newest look is the one in `last`.
    is_failing: bool,
    /// The body that was shown last.
    shown: Option<String>,
}

impl Progress {
    fn new(rules: Rules) -> Self {
        Self {
            fold: Fold::new(rules),
            end: End::Open,
            attempts: 0,
            decided: Duration::ZERO,
            last: None,
            is_failing: false,
            shown: None,
        }
    }
}

/// One target being held.
struct Holder<'a> {
    gate: &'a Gate,
    probe: &'a dyn Probe,
    world: &'a World<'a>,
    started: Duration,
    progress: Mutex<Progress>,
}

impl Holder<'_> {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed(&self) -> Duration {
        self.world.clock.monotonic().saturating_sub(self.started)
    }

    fn remaining(&self) -> Duration {
        self.gate.timeout.saturating_sub(self.elapsed())
    }

    /// Looks at the target until it passes, its retries are used up, or the time is.
    async fn hold(&self, slots: &Semaphore) {
        let mut had_last_look = false;
        loop {
            let Some(decision) = self.look(slots).await else {
                return self.end(End::OutOfTime);
            };
            let wait = match decision {
                Decision::Pass => return self.end(End::Passed),
                Decision::GiveUp if !had_last_look => return self.end(End::GaveUp),
                // Retries that end together with the time: the time is what ended it.
                Decision::GiveUp => self.remaining(),
                Decision::Wait(wait) => wait,
            };
            let remaining = self.remaining();
            if wait < remaining {
                self.world.clock.sleep(wait).await;
            } else if had_last_look {
                // Nothing will be looked at again: out of time, at the time that was promised.
                self.world.clock.sleep(remaining).await;
                return self.end(End::OutOfTime);
            } else {
                had_last_look = true;
                let kept = LAST_LOOK.min(remaining / 2);
                self.world.clock.sleep(remaining - kept).await;
            }
        }
    }

    /// One look, or `None` when there is no time for it.
    async fn look(&self, slots: &Semaphore) -> Option<Decision> {
        let slot = slots.acquire().await.ok()?;
        let began = self.elapsed();
        let remaining = self.gate.timeout.saturating_sub(began);
        if remaining.is_zero() {
            return None;
        }
        let limit = self.progress().fold.look_limit();
        let observation = self.probe.observe(limit.min(remaining)).await;
        drop(slot);
        let took = self.elapsed().saturating_sub(began);
        let mut jitter = [0_u8; 1];
        self.world.random.fill(&mut jitter);
        let mut progress = self.progress();
        let decision = progress.fold.observe(observation.look, jitter[0]);
        progress.attempts = progress.attempts.saturating_add(1);
        let is_squeezed = observation.look == Look::TimedOut && remaining < limit;
        self.take_in(&mut progress, observation, took, is_squeezed);
        Some(decision)
    }

    /// Keeps the evidence of a look and says what is new about it. Looks that see the same thing
    /// again are counted, not repeated.
    fn take_in(
        &self,
        progress: &mut Progress,
        observation: Observation,
        took: Duration,
        is_squeezed: bool,
    ) {
        let attempt = progress.attempts;
        let body = observation
            .body
            .as_deref()
            .map(|body| cut(&(self.world.hide)(body, observation.extent)));
        if self.gate.verbose
            && let Some(body) = &body
            && progress.shown.as_ref() != Some(body)
        {
            progress.shown = Some(body.clone());
            self.world.reporter.say(Event::Relayed {
                source: self.probe.label().to_owned(),
                text: body.clone(),
            });
        }
        if observation.look == Look::Passed {
            // The line says which attempt it was; how often it failed before needs no line.
            progress.is_failing = false;
            let (passes, needed) = progress.fold.passes();
            let seen = if needed > 1 {
                format!(
                    "{} (pass {} of {needed})",
                    observation.message,
                    passes.min(needed)
                )
            } else {
                observation.message
            };
            self.say(attempt, true, seen);
            return;
        }
        if is_squeezed && progress.last.is_some() {
            // "No answer within 0.2 s" says only that our time was up: what was seen before tells
            // more about the target.
            return;
        }
        let evidence = Evidence {
            cause: observation.cause,
            message: (self.world.hide)(&observation.message, Extent::Whole),
            expected: observation.expected,
            seen: (self.world.hide)(&observation.seen, Extent::Whole),
            status: observation.status,
            body,
            attempt,
            repeated: 1,
            took,
        };
        match &mut progress.last {
            Some(last) if progress.is_failing && same(last, &evidence) => {
                let repeated = last.repeated.saturating_add(1);
                *last = Evidence {
                    repeated,
                    ..evidence
                };
            }
            _ => {
                self.say_repeats(progress);
                self.say(attempt, false, evidence.message.clone());
                progress.last = Some(evidence);
            }
        }
        progress.is_failing = true;
    }

    fn say(&self, attempt: u32, passed: bool, seen: String) {
        self.world.reporter.say(Event::ProbeObserved {
            target: self.probe.label().to_owned(),
            attempt,
            passed,
            seen,
            elapsed: self.elapsed(),
        });
    }

    /// Closes a run of looks that all saw the same.
    fn say_repeats(&self, progress: &Progress) {
        match &progress.last {
            Some(last) if progress.is_failing && last.repeated > 1 => {
                self.world.reporter.note(format!(
                    "  · {}  the same {} times in a row",
                    self.probe.label(),
                    last.repeated
                ));
            }
            _ => {}
        }
    }

    fn end(&self, end: End) {
        let elapsed = self.elapsed();
        let mut progress = self.progress();
        if end != End::Passed {
            self.say_repeats(&progress);
        }
        progress.end = end;
        progress.decided = elapsed;
    }

    fn report(self, gate_elapsed: Duration) -> TargetReport {
        let label = self.probe.label().to_owned();
        let url = self.probe.address();
        let progress = self
            .progress
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        TargetReport {
            target: label,
            url,
            passed: progress.end == End::Passed,
            attempts: progress.attempts,
            elapsed: match progress.end {
                End::Open => gate_elapsed,
                End::Passed | End::GaveUp | End::OutOfTime => progress.decided,
            },
            last: progress.last,
        }
    }
}

/// Bodies are left out: an error page with a clock on it would make every look a new one.
fn same(a: &Evidence, b: &Evidence) -> bool {
    a.cause == b.cause && a.message == b.message
}

/// The first characters of a text, with a mark when something was cut off.
fn cut(text: &str) -> String {
    match text.char_indices().nth(EVIDENCE_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
