//! Removes what was found: dependents first, each noted before it is asked for.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::{Target, said};
use crate::apply::Engine;
use crate::apply::execute::{about, asked};
use crate::apply::hold::prove;
use crate::apply::presence::shared_with;
use crate::apply::survey::{WAS_THERE, owner_of, was_there};
use crate::clock::rfc3339;
use crate::plan::{Action, Plan, Step, Steps};
use crate::provider::{DriverError, ErrorClass, Operation};
use crate::random::hex_of;
use crate::report::{Event, Outcome, Report};
use crate::resource::{ActionKind, Address};
use crate::state::journal::Before;
use crate::state::lease::Renewal;
use crate::state::{Entry, Lease, Record, StoreError};

/// How the removal of one target ended.
#[derive(Clone, Debug)]
pub struct Removal {
    /// The target.
    pub address: Address,
    /// How it ended.
    pub outcome: Outcome,
    /// The error or the reason for skipping; empty on success.
    pub message: String,
}

/// How all removals ended.
#[derive(Clone, Debug, Default)]
pub struct Removed {
    /// One entry per target, in the order of the plan.
    pub removals: Vec<Removal>,
    /// A signal stopped the run.
    pub interrupted: bool,
    /// The lock was taken over by somebody else, or could not be renewed.
    pub lost_lock: bool,
}

impl Removed {
    /// True when every target is gone.
    pub fn is_success(&self) -> bool {
        !self.lost_lock
            && self
                .removals
                .iter()
                .all(|removal| removal.outcome == Outcome::Success)
    }

    /// How many ended this way.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.removals
            .iter()
            .filter(|removal| removal.outcome == outcome)
            .count()
    }

    /// How one target ended.
    pub fn of(&self, address: &Address) -> Option<&Removal> {
        self.removals
            .iter()
            .find(|removal| removal.address == *address)
    }
}

/// The plan that removes these, for the preview and the protected gate.
pub fn plan_of(environment: &str, targets: &[Target]) -> Result<Plan, Report> {
    let actions = targets
        .iter()
        .map(|target| Action {
            address: target.address.clone(),
            kind: target.kind.clone(),
            provider: target.provider.clone(),
            action: ActionKind::Delete,
            changes: Vec::new(),
            reason: if target.orphan {
                "not in the config".to_owned()
            } else {
                String::new()
            },
            depends_on: target.declared_depends_on.clone(),
            recorded_depends_on: target.depends_on.clone(),
            protected: target.protected,
            create_before_destroy: false,
        })
        .collect();
    Plan::assemble(environment, actions)
        .map_err(|cycle| Report::error("state/cycle", cycle.to_string()))
}

/// Removes the targets of `plan`. Right after each removal its record goes, when there is one and a
/// `lease` to remove it under. A failed removal skips what it stands on and nothing else.
pub async fn remove(
    engine: &Engine<'_>,
    lease: Option<&Lease>,
    plan: &Plan,
    targets: &[Target],
) -> Removed {
    let by_address: BTreeMap<&Address, &Target> = targets
        .iter()
        .map(|target| (&target.address, target))
        .collect();
    let mut steps = Steps::of(plan);
    let mut ended: BTreeMap<Address, (Outcome, String)> = BTreeMap::new();
    let mut removed = Removed::default();
    let mut running = FuturesUnordered::new();
    let mut under_way: BTreeSet<Step> = BTreeSet::new();
    loop {
        removed.interrupted |= engine.cancel.is_cancelled();
        if removed.interrupted || removed.lost_lock {
            let why = if removed.lost_lock {
                "the lock was lost"
            } else {
                "the run was stopped"
            };
            for step in steps.abandon(&under_way) {
                ended.insert(step.address, (Outcome::Skipped, why.to_owned()));
            }
        }
        while running.len() < engine.parallelism.max(1) {
            let Some(step) = steps.take_ready() else {
                break;
            };
            let Some(target) = by_address.get(&step.address) else {
                steps.done(&step);
                continue;
            };
            under_way.insert(step.clone());
            running.push(async move { (step, remove_one(engine, lease, target).await) });
        }
        if running.is_empty() {
            break;
        }
        let next = tokio::select! {
            next = running.next() => next,
            () = engine.clock.sleep(Renewal::DEFAULT.interval) => None,
        };
        let Some((step, result)) = next else {
            if let Some(lease) = lease
                && let Err(StoreError::LostLock { .. }) = engine.store.renew(lease).await
            {
                removed.lost_lock = true;
            }
            continue;
        };
        under_way.remove(&step);
        match result {
            Ok(()) => {
                steps.done(&step);
                ended.insert(step.address, (Outcome::Success, String::new()));
            }
            Err((message, lost)) => {
                removed.lost_lock |= lost;
                for skipped in steps.failed(&step) {
                    ended.insert(
                        skipped.address,
                        (
                            Outcome::Skipped,
                            format!("`{}` stands on it and could not be removed", step.address),
                        ),
                    );
                }
                ended.insert(step.address, (Outcome::DeleteFailed, message));
            }
        }
    }
    removed.removals = plan
        .actions
        .iter()
        .filter_map(|action| {
            let (outcome, message) = ended.remove(&action.address)?;
            Some(Removal {
                address: action.address.clone(),
                outcome,
                message,
            })
        })
        .collect();
    removed
}

/// One removal. The error says whether the lock was lost, too.
async fn remove_one(
    engine: &Engine<'_>,
    lease: Option<&Lease>,
    target: &Target,
) -> Result<(), (String, bool)> {
    let started = engine.clock.monotonic();
    engine.reporter.say(Event::ActionStarted {
        address: target.address.clone(),
        action: ActionKind::Delete,
        about: about(&target.kind, target.provider.as_str()),
    });
    let result = effect(engine, lease, target).await;
    engine.reporter.say(Event::ActionFinished {
        address: target.address.clone(),
        action: ActionKind::Delete,
        outcome: match &result {
            Ok(()) => Outcome::Success,
            Err(_) => Outcome::DeleteFailed,
        },
        elapsed: elapsed(engine, started),
        message: match &result {
            Ok(()) => String::new(),
            Err((message, _)) => message.clone(),
        },
        evidence: Vec::new(),
    });
    result
}

/// Whether a failed delete may have deleted.
fn may_have_happened(error: &DriverError) -> bool {
    matches!(error.class, ErrorClass::Transient | ErrorClass::Unknown)
}

fn elapsed(engine: &Engine<'_>, started: Duration) -> Duration {
    engine.clock.monotonic().saturating_sub(started)
}

async fn effect(
    engine: &Engine<'_>,
    lease: Option<&Lease>,
    target: &Target,
) -> Result<(), (String, bool)> {
    let driver = engine
        .driver(&target.address, &target.provider, &target.kind)
        .map_err(|problem| (problem.message, false))?;
    let operation = Operation {
        id: hex_of::<8>(engine.random.as_ref()),
        environment: engine.config.environment.clone(),
    };
    let record = match lease {
        Some(lease) => recorded(engine, target).await.map(|record| (lease, record)),
        None => None,
    };
    let shared = shared_with(engine, &target.kind, &target.prior.provider_id).await;
    let why = shared
        .map_err(|error| (error.to_string(), false))?
        .map(|environment| format!("it is on record in environment `{environment}` too"))
        .or_else(|| {
            let (_, record) = record.as_ref()?;
            was_there(record).then(|| WAS_THERE.to_owned())
        });
    if let Some(why) = why {
        engine.reporter.say(Event::Note {
            text: format!(
                "`{}`, `{}`, stays: {why}.",
                target.address, target.prior.provider_id
            ),
        });
        if let Some((lease, _)) = &record {
            let deleted = engine.store.delete(lease, &target.prior.address).await;
            deleted.map_err(|error| {
                (
                    error.to_string(),
                    matches!(error, StoreError::LostLock { .. }),
                )
            })?;
        }
        return Ok(());
    }
    if let Some((lease, _)) = &record {
        let intent = Entry::Intent {
            operation: operation.id.clone(),
            address: target.prior.address.clone(),
            kind: target.kind.clone(),
            provider: target.provider.as_str().to_owned(),
            action: ActionKind::Delete,
            config_hash: String::new(),
            at: rfc3339(engine.clock.now()),
            before: Before::default(),
        };
        note(engine, lease, intent).await?;
    }
    let outcome = |outcome: Outcome| Entry::Outcome {
        operation: operation.id.clone(),
        outcome: outcome.word().to_owned(),
    };
    // One try whose outcome nobody knows leaves the whole unknown, however clear the next refusal is.
    let is_unclear = Cell::new(false);
    let is_lost = Cell::new(false);
    let delete = async || {
        // Before each try: while this process was stopped, or waited as it was told to, another run may
        // have taken over. A state that cannot answer does not stop a teardown.
        if let Some(lease) = lease
            && let Err(error @ StoreError::LostLock { .. }) = prove(engine, lease).await
        {
            is_lost.set(true);
            return Err(DriverError::new(ErrorClass::Conflict, error.to_string()));
        }
        let deleted = driver.delete(&operation, &target.prior).await;
        is_unclear.set(is_unclear.get() || deleted.as_ref().is_err_and(may_have_happened));
        deleted
    };
    // Deleting what is gone succeeds, so it may be asked for twice.
    let mut deleted = asked(engine, delete).await;
    if is_unclear.get()
        && deleted.is_err()
        && let Err(read) = asked(engine, || driver.read(&target.prior)).await
        && read.class == ErrorClass::NotFound
    {
        deleted = Ok(());
    }
    match deleted {
        Ok(()) => {}
        // Somebody was faster; gone is gone.
        Err(error) if error.class == ErrorClass::NotFound => {}
        Err(error) if is_lost.get() => return Err((error.message, true)),
        Err(error) => {
            if !is_unclear.get()
                && let Some((lease, _)) = &record
            {
                note(engine, lease, outcome(Outcome::DeleteFailed)).await?;
            }
            return Err((said(&error), false));
        }
    }
    let Some((lease, _)) = record else {
        return Ok(());
    };
    engine
        .store
        .delete(lease, &target.prior.address)
        .await
        .map_err(|error| {
            let lost = matches!(error, StoreError::LostLock { .. });
            (
                format!("it is gone, but its record could not be removed: {error}"),
                lost,
            )
        })?;
    note(engine, lease, outcome(Outcome::Success)).await
}

/// The record a removal takes along. One of that name may be about something else; one that cannot be
/// read is left to the wipe.
async fn recorded(engine: &Engine<'_>, target: &Target) -> Option<Record> {
    let record = engine.store.get(&target.prior.address).await.ok()??;
    let is_it = record.resource_type == target.kind.as_str()
        && owner_of(engine, &record) == target.provider
        && (record.provider_id.is_empty() || record.provider_id == target.prior.provider_id);
    is_it.then_some(record)
}

/// Writes down what is about to happen, or what came of it. A state that cannot take it does not stop a
/// teardown, which is there for such states; a lock that is lost does.
async fn note(engine: &Engine<'_>, lease: &Lease, entry: Entry) -> Result<(), (String, bool)> {
    match engine.store.journal_append(lease, &[entry]).await {
        Err(error @ StoreError::LostLock { .. }) => Err((error.to_string(), true)),
        Ok(()) | Err(_) => Ok(()),
    }
}
