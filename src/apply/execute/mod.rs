//! Runs the steps of a plan: as many at once as the graph, `--parallelism` and each provider allow.
//!
//! Everything comes through [`Engine`]: time, randomness, the store, providers, the wish to stop.
//! One task, no thread, nothing spawned: a run on a virtual clock takes the same decisions.

mod call;
mod create;
mod evidence;
mod ids;
mod journal;
mod pace;
mod record;
mod room;
mod step;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::OnceCell;

pub(super) use self::call::{asked, within};

use self::evidence::Budget;
use self::ids::Ids;
use self::journal::Journal;
use self::pace::Pace;
use self::room::Room;
use super::hold::Hold;
use super::presence::Lists;
use super::survey::{Survey, by_address};
use super::values::Values;
use super::{ActionResult, ApplyReport, Engine};
use crate::config::Resource;
use crate::plan::{Action, Plan, Step, StepKind, Steps};
use crate::provider::ability::{Evidence, Sizing};
use crate::provider::{DriverError, ErrorClass};
use crate::report::{Event, Outcome};
use crate::resource::{ActionKind, Address, Kind, ProviderId, Recorded};
use crate::state::{Lease, Records, StoreError, StoreResult};

pub use self::call::TRIES;
pub use self::evidence::sentence;

/// How long running actions may go on after the first signal. The runner gives 7.5 s between its
/// SIGINT and its SIGTERM (`docs/github-actions.md`).
pub const GRACE: Duration = Duration::from_secs(5);
/// Between two renewals of the lock.
pub const RENEW_EVERY: Duration = Duration::from_secs(15);
/// Longest time one driver call may take, unless somebody says otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// What an action is about, for whoever unfolds its story.
pub(super) fn about(kind: &Kind, provider: &str) -> String {
    format!("{kind} by `{provider}`")
}

/// Why a step did not succeed.
struct Failure {
    outcome: Outcome,
    class: Option<ErrorClass>,
    message: String,
    evidence: Vec<Evidence>,
    lost_lock: bool,
    /// The state could not be written: nothing more may be started.
    store: bool,
    /// Something may have come of it: it is on record as tainted, or its intent stays open.
    left_over: bool,
    /// The effect happened for certain, or half of it: it failed in what came after.
    done: bool,
}

impl Failure {
    fn plain(message: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Error,
            class: None,
            message: message.into(),
            evidence: Vec::new(),
            lost_lock: false,
            store: false,
            left_over: false,
            done: false,
        }
    }

    /// A failure of which something may have come.
    fn with_rest(mut self: Box<Self>) -> Box<Self> {
        self.left_over = true;
        self
    }

    /// The same, of this step. Where the new one came first, it stands and others may use it already:
    /// whatever goes wrong afterwards, what failed is the end of the old one.
    fn of_step(mut self: Box<Self>, action: &Action, step: &Step) -> Box<Self> {
        if action.create_before_destroy && step.kind == StepKind::Delete {
            self.outcome = Outcome::DeleteFailed;
        }
        self
    }

    fn store(error: &StoreError) -> Self {
        Self {
            lost_lock: matches!(error, StoreError::LostLock { .. }),
            store: true,
            ..Self::plain(error.to_string())
        }
    }

    fn driver(error: &DriverError, outcome: Outcome) -> Box<Self> {
        Box::new(Self {
            outcome,
            class: Some(error.class),
            ..Self::plain(error.message.clone())
        })
    }
}

/// How a step ended.
type Ended = Result<(), Box<Failure>>;

/// What is said of an action in which the program itself made a mistake. What came of it is not
/// known: its intent stays open, and the next run asks the provider.
fn broken() -> Box<Failure> {
    Box::new(Failure::plain(
        "a mistake inside Tidegate ended this action (see above); the next run looks at what came of it",
    ))
    .with_rest()
}

/// A finished step.
struct End {
    step: Step,
    result: Ended,
}

struct Executor<'a, 'e> {
    engine: &'a Engine<'e>,
    lease: &'a Lease,
    journal: Journal<'a>,
    hold: Hold<'a>,
    room: Room,
    resources: BTreeMap<&'a Address, &'a Resource>,
    actions: BTreeMap<Address, Action>,
    records: Arc<Records>,
    sizes: BTreeMap<Address, Sizing>,
    priors: RefCell<BTreeMap<Address, Recorded>>,
    /// Old ones that are to go once their new one is there.
    deposed: RefCell<BTreeMap<Address, Recorded>>,
    /// Resources of which earlier runs left old ones waiting; asked for once, by who needs it first.
    waiting: OnceCell<Vec<Address>>,
    /// Of what several may have: those whose delete has begun.
    going: RefCell<BTreeSet<Address>>,
    values: RefCell<Values>,
    lanes: BTreeMap<ProviderId, Pace>,
    evidence: Budget,
    ids: Ids,
    lists: Lists,
}

/// Steps that may run, by provider: one that is busy or throttled holds up nobody else. Those that
/// hold up the longest chains go first.
#[derive(Default)]
struct Queues {
    ready: BTreeMap<ProviderId, BTreeSet<(Reverse<u32>, Step)>>,
    running: BTreeMap<ProviderId, usize>,
}

impl Queues {
    fn add(&mut self, provider: &ProviderId, height: u32, step: Step) {
        self.ready
            .entry(provider.clone())
            .or_default()
            .insert((Reverse(height), step));
    }

    /// The first step, by height and then by name, of any provider with room.
    fn take(&mut self, lanes: &BTreeMap<ProviderId, Pace>) -> Option<Step> {
        let running = &self.running;
        let (provider, _) = self
            .ready
            .iter()
            .filter(|(provider, _)| {
                let running = running.get(*provider).copied().unwrap_or(0);
                lanes
                    .get(*provider)
                    .is_none_or(|lane| lane.has_room(running))
            })
            .filter_map(|(provider, steps)| Some((provider, steps.first()?)))
            .min_by(|(_, one), (_, other)| one.cmp(other))?;
        let provider = provider.clone();
        let (_, step) = self.ready.get_mut(&provider)?.pop_first()?;
        *self.running.entry(provider).or_default() += 1;
        Some(step)
    }

    fn ended(&mut self, provider: &ProviderId) {
        if let Some(running) = self.running.get_mut(provider) {
            *running = running.saturating_sub(1);
        }
    }

    fn forget(&mut self, provider: &ProviderId, height: u32, step: &Step) {
        if let Some(ready) = self.ready.get_mut(provider) {
            ready.remove(&(Reverse(height), step.clone()));
        }
    }
}

/// What is known of the actions while the run goes on.
#[derive(Default)]
struct Book {
    started: BTreeMap<Address, Duration>,
    /// Replacements of which one half is done.
    halves: BTreeSet<Address>,
    results: BTreeMap<Address, ActionResult>,
}

/// Runs every step of the survey's plan. Answers how each action ended and what is known now.
///
/// The lock is renewed all the while. The first wish to stop starts no new step and gives running
/// ones [`GRACE`]; a lost lock stops at once, because nothing may be written any more; a state that
/// cannot be written starts nothing more.
pub async fn execute(engine: &Engine<'_>, lease: &Lease, survey: Survey) -> (ApplyReport, Values) {
    let plan = survey.plan;
    let actions: BTreeMap<Address, Action> = plan
        .actions
        .iter()
        .filter(|action| action.action != ActionKind::NoOp)
        .map(|action| (action.address.clone(), action.clone()))
        .collect();
    let lanes = actions
        .values()
        .map(|action| &action.provider)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|id| {
            let own = engine
                .providers
                .get(id)
                .and_then(|provider| provider.parallelism());
            (id.clone(), Pace::new(own.unwrap_or(engine.parallelism)))
        })
        .collect();
    let executor = Executor {
        engine,
        lease,
        journal: Journal::new(engine.store.as_ref(), lease),
        hold: Hold::new(engine.store.as_ref(), lease, engine.clock.as_ref()),
        room: Room::new(engine.parallelism),
        resources: by_address(engine),
        actions,
        ids: Ids::of_records(&survey.records),
        lists: Lists::default(),
        records: survey.records,
        sizes: survey.sizes,
        priors: RefCell::new(survey.priors),
        deposed: RefCell::default(),
        waiting: OnceCell::new(),
        going: RefCell::default(),
        values: RefCell::new(survey.values),
        lanes,
        evidence: Budget::default(),
    };
    let report = executor.run(&plan).await;
    (report, executor.values.into_inner())
}

impl Executor<'_, '_> {
    async fn run(&self, plan: &Plan) -> ApplyReport {
        let engine = self.engine;
        let mut steps = Steps::of(plan);
        let mut queues = Queues::default();
        let mut running = FuturesUnordered::new();
        let mut in_flight: BTreeSet<Step> = BTreeSet::new();
        let mut book = Book::default();
        let mut report = ApplyReport::default();
        let mut stopping = false;
        // For as long as a lease lasts, the store has not taken a renewal.
        let mut lapsed = false;
        let mut grace: Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(std::future::pending());
        let mut renew: Pin<Box<dyn Future<Output = ()> + '_>> =
            Box::pin(engine.clock.sleep(RENEW_EVERY));
        let cancelled = engine.cancel.cancelled();
        tokio::pin!(cancelled);

        if engine.cancel.is_cancelled() {
            stopping = true;
            report.interrupted = true;
        }
        loop {
            while let Some(step) = steps.take_ready() {
                let provider = &self.actions[&step.address].provider;
                queues.add(provider, steps.height(&step), step);
            }
            for address in self.room.take_answered() {
                queues.ended(&self.actions[&address].provider);
            }
            while !stopping && self.room.is_there(in_flight.len()) {
                let Some(step) = queues.take(&self.lanes) else {
                    break;
                };
                self.begin(&step, &mut book);
                in_flight.insert(step.clone());
                running.push(async move {
                    // A mistake in one action is the end of that action, not of those beside it.
                    let result = AssertUnwindSafe(self.step(&step)).catch_unwind().await;
                    let result = result.unwrap_or_else(|_| Err(broken()));
                    End { step, result }
                });
            }
            self.room.filled();
            if in_flight.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                Some(end) = running.next() => {
                    in_flight.remove(&end.step);
                    if !self.room.ended(&end.step.address) {
                        queues.ended(&self.actions[&end.step.address].provider);
                    }
                    self.finish(end, &mut steps, &mut queues, &mut book, &mut report);
                    if report.lost_lock {
                        break;
                    }
                    stopping |= report.store_failed;
                }
                () = self.room.news() => {}
                () = &mut cancelled, if !report.interrupted => {
                    stopping = true;
                    report.interrupted = true;
                    self.note(format!(
                        "Stopping: no new action starts; {} running may take up to {} s more.",
                        in_flight.len(),
                        GRACE.as_secs()
                    ));
                    grace = Box::pin(engine.clock.sleep(GRACE));
                }
                () = &mut grace => break,
                () = &mut renew => {
                    match self.renew().await {
                        Ok(()) => {}
                        Err(StoreError::LostLock { .. }) => {
                            report.lost_lock = true;
                            break;
                        }
                        Err(error) => {
                            // Not even a store that says nothing may keep a run going for ever.
                            let is_over = self.hold.is_over();
                            self.note(format!(
                                "The lock could not be renewed: {error}. {}",
                                if is_over {
                                    "It has lapsed: no new action starts.".to_owned()
                                } else {
                                    format!("Trying again in {} s.", RENEW_EVERY.as_secs())
                                }
                            ));
                            stopping |= is_over;
                            lapsed |= is_over;
                        }
                    }
                    renew = Box::pin(engine.clock.sleep(RENEW_EVERY));
                }
            }
        }
        drop(running);
        for step in &in_flight {
            let failure = Failure::plain(
                "the run was stopped while this was going on; the next run looks at what came of it",
            );
            let failure = Box::new(failure).of_step(&self.actions[&step.address], step);
            self.conclude(&step.address, *failure, &mut book);
        }
        let is_done = |action: &Action| {
            action.action == ActionKind::NoOp || book.results.contains_key(&action.address)
        };
        report.store_failed |= lapsed && !plan.actions.iter().all(is_done);
        let why = if report.lost_lock {
            "the run lost its lock"
        } else if report.store_failed {
            "the state could not be written"
        } else if report.interrupted {
            "the run was stopped"
        } else {
            "nothing could start it: what it waits for waits for it"
        };
        // Whatever has no ending yet was never started.
        for action in &plan.actions {
            if action.action != ActionKind::NoOp {
                self.skip(&action.address, why, &mut book);
            }
        }
        report.actions = plan
            .actions
            .iter()
            .filter_map(|action| book.results.remove(&action.address))
            .collect();
        report
    }

    /// A store that takes its time over this holds nobody up for long.
    async fn renew(&self) -> StoreResult<()> {
        tokio::select! {
            biased;
            renewed = self.hold.renew() => renewed,
            () = self.engine.clock.sleep(GRACE) => Err(StoreError::Storage(
                format!("no answer within {} s", GRACE.as_secs()),
            )),
        }
    }

    /// Whoever watches a run has no say in it: a watcher that breaks takes nothing along.
    fn say(&self, event: Event) {
        drop(catch_unwind(AssertUnwindSafe(|| {
            self.engine.reporter.say(event);
        })));
    }

    fn note(&self, text: String) {
        self.say(Event::Note { text });
    }

    fn begin(&self, step: &Step, book: &mut Book) {
        if book.started.contains_key(&step.address) {
            // The second half of a replace.
            return;
        }
        let action = &self.actions[&step.address];
        self.say(Event::ActionStarted {
            address: step.address.clone(),
            action: action.action,
            about: about(&action.kind, action.provider.as_str()),
        });
        book.started
            .insert(step.address.clone(), self.engine.clock.monotonic());
    }

    /// Books a finished step.
    fn finish(
        &self,
        end: End,
        steps: &mut Steps,
        queues: &mut Queues,
        book: &mut Book,
        report: &mut ApplyReport,
    ) {
        let address = &end.step.address;
        match end.result {
            Ok(()) => {
                steps.done(&end.step);
                if steps.has_more(address) {
                    book.halves.insert(address.clone());
                } else {
                    let success = Failure {
                        outcome: Outcome::Success,
                        ..Failure::plain("")
                    };
                    self.conclude(address, success, book);
                }
            }
            Err(mut failure) => {
                if end.step.kind == StepKind::Create && book.halves.contains(address) {
                    failure.message.push_str(if failure.left_over {
                        "; the old one is deleted, and the new one is not finished"
                    } else {
                        "; the old one is deleted, and nothing is in its place"
                    });
                }
                report.lost_lock |= failure.lost_lock;
                report.store_failed |= failure.store;
                self.conclude(address, *failure, book);
                for skipped in steps.failed(&end.step) {
                    let height = steps.height(&skipped);
                    queues.forget(&self.actions[&skipped.address].provider, height, &skipped);
                    let why = if skipped.kind == StepKind::Delete {
                        format!("`{address}` stands on it and failed")
                    } else {
                        format!("it needs `{address}`, which failed")
                    };
                    self.skip(&skipped.address, &why, book);
                }
            }
        }
    }

    /// Books what was not done. Of a replace one half may have been: that is no skip.
    fn skip(&self, address: &Address, why: &str, book: &mut Book) {
        let ending = if !book.started.contains_key(address) {
            Failure {
                outcome: Outcome::Skipped,
                ..Failure::plain(why)
            }
        } else if self.actions[address].create_before_destroy {
            Failure {
                outcome: Outcome::DeleteFailed,
                ..Failure::plain(format!(
                    "its new one is made, its old one is still there, because {why}; the next run deletes it"
                ))
            }
        } else {
            Failure::plain(format!(
                "its old one is deleted, its new one was not made, because {why}; the next run makes it"
            ))
        };
        self.conclude(address, ending, book);
    }

    /// Writes down how an action ended; the first ending of an address stands.
    fn conclude(&self, address: &Address, ending: Failure, book: &mut Book) {
        if book.results.contains_key(address) {
            return;
        }
        let action = &self.actions[address];
        let elapsed = book.started.get(address).map_or(Duration::ZERO, |started| {
            self.engine.clock.monotonic().saturating_sub(*started)
        });
        self.say(Event::ActionFinished {
            address: address.clone(),
            action: action.action,
            outcome: ending.outcome,
            elapsed,
            message: ending.message.clone(),
            evidence: ending.evidence.iter().map(sentence).collect(),
        });
        book.results.insert(
            address.clone(),
            ActionResult {
                address: address.clone(),
                kind: action.kind.clone(),
                provider: action.provider.clone(),
                action: action.action,
                outcome: ending.outcome,
                elapsed,
                message: ending.message,
                class: ending.class,
                evidence: ending.evidence,
                made: self.made_of(address, ending.outcome == Outcome::Success || ending.done),
                is_half_done: ending.outcome != Outcome::Success
                    && (ending.done || book.halves.contains(address)),
            },
        );
    }

    /// What exists of the resource now, for the report.
    fn made_of(&self, address: &Address, is_there: bool) -> Option<Recorded> {
        let action = self.actions[address].action;
        if !is_there || action == ActionKind::Delete {
            return None;
        }
        self.priors.borrow().get(address).cloned()
    }
}
