//! One call to a driver, with its pace, its time limit and its repeats.

use std::future::Future;
use std::time::Duration;

use super::pace::Pace;
use crate::apply::Engine;
use crate::apply::hold::Hold;
use crate::provider::{DriverError, ErrorClass};
use crate::report::Event;

/// Tries of one effect that fails for no reason of its own, the first included.
pub const TRIES: u32 = 5;
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_LONGEST: Duration = Duration::from_secs(30);
/// The longest wait a provider can ask for.
const ASKED_LONGEST: Duration = Duration::from_secs(5 * 60);

/// What a look at a resource after an unclear answer says.
pub(super) enum Look<T> {
    /// The effect has happened; this came of it.
    Happened(T),
    /// It has not.
    NotYet,
    /// Nobody can tell.
    Unclear(DriverError),
}

/// One effect and its repeats. `look` is asked before a repeat whether the effect happened after
/// all, because an answer that was lost says nothing about it.
pub(super) async fn repeated<T, C, F>(
    engine: &Engine<'_>,
    pace: &Pace,
    hold: &Hold<'_>,
    call: C,
    look: impl AsyncFn(&DriverError) -> Look<T>,
) -> Result<T, DriverError>
where
    C: Fn() -> F,
    F: Future<Output = Result<T, DriverError>>,
{
    let started = engine.clock.monotonic();
    let mut failures = 0;
    let mut complaints = 0;
    let mut asked_before = false;
    loop {
        hold_back(engine, pace).await?;
        hold.is_sure().await.map_err(|error| {
            DriverError::new(
                ErrorClass::Conflict,
                format!("nothing was asked for, because the lock is not sure: {error}"),
            )
        })?;
        let error = match within(engine, call()).await {
            Ok(done) => {
                pace.well();
                return Ok(done);
            }
            Err(error) => error,
        };
        // Our own earlier try may be what is there now; the first try's answer is to be believed.
        let is_ours = error.class == ErrorClass::AlreadyExists && asked_before;
        let is_clear = !matches!(
            error.class,
            ErrorClass::Throttled | ErrorClass::Transient | ErrorClass::Unknown
        );
        if error.partial.is_some() || (is_clear && !is_ours) {
            return Err(error);
        }
        // "Slow down" means that nothing was begun; every other failure may have come too late.
        if error.class != ErrorClass::Throttled {
            asked_before = true;
            match look(&error).await {
                Look::Happened(found) => return Ok(found),
                Look::Unclear(unclear) => return Err(unclear),
                // What was refused without saying why in known words is refused for good.
                Look::NotYet if is_ours || is_said(&error) => return Err(error),
                Look::NotYet => {}
            }
        }
        let waited = engine.clock.monotonic().saturating_sub(started);
        let wait = if error.class == ErrorClass::Throttled {
            complaints += 1;
            let wait = asked_for(error.retry_after).unwrap_or_else(|| backoff(engine, complaints));
            pace.slow_down(engine.clock.monotonic(), wait);
            wait
        } else {
            failures += 1;
            if failures >= TRIES || !pace.take_repeat() {
                return Err(error);
            }
            asked_for(error.retry_after).unwrap_or_else(|| backoff(engine, failures))
        };
        if waited.saturating_add(wait) >= engine.call_timeout {
            return Err(error);
        }
        pause(engine, wait, error.class).await?;
        if error.class != ErrorClass::Throttled {
            // What was made may show only now.
            match look(&error).await {
                Look::Happened(found) => return Ok(found),
                Look::Unclear(unclear) => return Err(unclear),
                Look::NotYet => {}
            }
        }
    }
}

/// A question: what is refused for now is asked again, because nothing comes of asking twice.
pub(in crate::apply) async fn asked<T, C, F>(engine: &Engine<'_>, call: C) -> Result<T, DriverError>
where
    C: Fn() -> F,
    F: Future<Output = Result<T, DriverError>>,
{
    let started = engine.clock.monotonic();
    let mut failures = 0;
    loop {
        let error = match within(engine, call()).await {
            Err(error) if matches!(error.class, ErrorClass::Throttled | ErrorClass::Transient) => {
                error
            }
            answer => return answer,
        };
        failures += 1;
        let wait = asked_for(error.retry_after).unwrap_or_else(|| backoff(engine, failures));
        let waited = engine.clock.monotonic().saturating_sub(started);
        if failures >= TRIES || waited.saturating_add(wait) >= engine.call_timeout {
            return Err(error);
        }
        if wait >= WORTH_A_WORD {
            engine.reporter.say(Event::Note {
                text: format!(
                    "A provider asks to be left alone for {} ({}).",
                    seconds(wait),
                    error.class.word()
                ),
            });
        }
        pause(engine, wait, error.class).await?;
    }
}

/// The wait a provider asks for, within reason: "in no time" is no time to wait for, and would be asked
/// for again and again.
fn asked_for(wait: Option<Duration>) -> Option<Duration> {
    wait.filter(|wait| !wait.is_zero())
        .map(|wait| wait.min(ASKED_LONGEST))
}

/// A wait that people would wonder about.
const WORTH_A_WORD: Duration = Duration::from_secs(10);

/// An error of no known kind, in the provider's own words.
pub(super) fn is_said(error: &DriverError) -> bool {
    error.answered && error.class == ErrorClass::Unknown
}

/// Waits while the provider wants to be left alone.
async fn hold_back(engine: &Engine<'_>, pace: &Pace) -> Result<(), DriverError> {
    loop {
        let wait = pace.wait(engine.clock.monotonic());
        if wait.is_zero() {
            return Ok(());
        }
        pause(engine, wait, ErrorClass::Throttled).await?;
    }
}

/// Sleeps, unless the run is stopped first: then nothing is asked for any more.
async fn pause(engine: &Engine<'_>, wait: Duration, class: ErrorClass) -> Result<(), DriverError> {
    tokio::select! {
        biased;
        () = engine.cancel.cancelled() => Err(DriverError::new(
            class,
            "the run was stopped before this was tried again",
        )),
        () = engine.clock.sleep(wait) => Ok(()),
    }
}

/// One call within the time limit. What comes of a call that was given up is not known.
pub(in crate::apply) async fn within<T>(
    engine: &Engine<'_>,
    call: impl Future<Output = Result<T, DriverError>>,
) -> Result<T, DriverError> {
    tokio::select! {
        biased;
        answer = call => answer,
        () = engine.clock.sleep(engine.call_timeout) => Err(DriverError::new(
            ErrorClass::Unknown,
            format!(
                "no answer within {}; `--action-timeout` allows more",
                seconds(engine.call_timeout)
            ),
        )),
    }
}

fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// Exponential backoff with full jitter.
fn backoff(engine: &Engine<'_>, failures: u32) -> Duration {
    let most = BACKOFF_FIRST
        .saturating_mul(1 << failures.min(10))
        .min(BACKOFF_LONGEST);
    let mut bytes = [0_u8; 4];
    engine.random.fill(&mut bytes);
    most.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}
