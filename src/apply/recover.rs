//! What a dead run left behind: intents without an outcome. Each is settled by asking the provider,
//! never by guessing, before anything new is planned.

use std::cell::Cell;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::execute::within;
use super::presence::{Place, Presence, locator};
use super::sealing::concealed;
use super::survey::{by_address, owner_of};
use super::{Engine, WAITS, deposed, hold};
use crate::provider::{Driver, ErrorClass, Operation};
use crate::report::{Event, Exit, Report};
use crate::resource::{
    ActionKind, Address, Kind, Map, Observed, ProviderId, PublicMap, Recorded, Spec,
};
use crate::state::journal::{Before, open_intents, was_told};
use crate::state::record::{Applied, CUT_OFF, from_observed};
use crate::state::{Entry, Lease, Record, Records, StoreError};

/// One settled intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The resource.
    pub address: Address,
    /// What was found, a sentence.
    pub finding: String,
    /// It counts as not made for want of a better answer: see [`doubts`].
    pub is_unproven: bool,
}

/// The finding of such an intent.
const UNPROVEN: &str = "it is not found by its name, so it counts as not made";

/// What counted as not made for want of a better answer, for a run that makes nothing: what is there
/// would be there for ever.
pub fn unproven(settled: &[Settled]) -> Vec<Report> {
    settled
        .iter()
        .filter(|settled| settled.is_unproven)
        .map(|settled| perhaps_there(&settled.address))
        .collect()
}

fn perhaps_there(address: &Address) -> Report {
    Report::error(
        "apply/perhaps-there",
        format!("`{address}` may be there, and nothing records it"),
    )
    .because("an earlier run was cut off while making it; it is not found by its name, and its provider may find such resources by their id only")
    .fix("look there, and delete it if it is")
    .exit(Exit::Partial)
}

/// After what was settled was carried out: where something counted as not made because it was not found
/// by its name, and what was made in its place is not found so either, there may be two of it.
pub async fn doubts(engine: &Engine<'_>, settled: &[Settled]) -> Vec<Report> {
    let mut doubts = Vec::new();
    for settled in settled.iter().filter(|settled| settled.is_unproven) {
        let address = &settled.address;
        let record = match engine.store.get(address).await {
            Ok(Some(record)) => record,
            // What was to be made in its place was not, either.
            Ok(None) => {
                doubts.push(perhaps_there(address));
                continue;
            }
            Err(_) => continue,
        };
        let kind = Kind::new(record.resource_type.clone());
        let Ok(driver) = engine.driver(address, &owner_of(engine, &record), &kind) else {
            continue;
        };
        let by_name = Recorded::by_name(address.clone(), kind);
        let found = within(engine, driver.read(&by_name)).await;
        if found.is_ok_and(|found| found.provider_id == record.provider_id) {
            continue;
        }
        doubts.push(
            Report::error(
                "apply/perhaps-twice",
                format!("there may be two of `{address}`"),
            )
            .because(format!(
                "an earlier run was cut off while making it; it was not found by its name and was made again, and its provider does not find by its name even the new one, `{}`",
                record.provider_id
            ))
            .fix("look there, and delete the one with another id")
            .exit(Exit::Partial),
        );
    }
    doubts
}

/// True when a dead run left intents behind (for commands that only look).
pub async fn is_needed(engine: &Engine<'_>) -> Result<bool, Report> {
    let entries = engine.store.journal_read().await.map_err(Report::from)?;
    Ok(!open_intents(&entries).is_empty())
}

/// Settles every open intent, then empties the journal. Doing it twice is doing it once: each
/// settled intent gets its outcome at once.
pub async fn recover(engine: &Engine<'_>, lease: &Lease) -> Result<Vec<Settled>, Report> {
    let problem = |error| Report::from(error);
    let entries = engine.store.journal_read().await.map_err(problem)?;
    let mut settled = Vec::new();
    let patience = Patience::default();
    for intent in open_intents(&entries) {
        let Entry::Intent {
            operation,
            address,
            kind,
            provider,
            action,
            before,
            at,
            ..
        } = intent
        else {
            continue;
        };
        engine.cancel.go_on()?;
        let operation_again = Operation {
            id: operation.clone(),
            environment: engine.config.environment.clone(),
        };
        let finding = settle(
            engine,
            lease,
            address,
            kind,
            provider,
            &Left {
                action: *action,
                operation: &operation_again,
                before,
                at,
                was_told: was_told(&entries, operation),
                patience: &patience,
            },
        )
        .await?;
        engine
            .store
            .journal_append(
                lease,
                &[Entry::Outcome {
                    operation: operation.clone(),
                    outcome: "settled".to_owned(),
                }],
            )
            .await
            .map_err(problem)?;
        settled.push(Settled {
            address: address.clone(),
            is_unproven: finding == UNPROVEN,
            finding,
        });
    }
    deposed::settle(engine, lease).await.map_err(problem)?;
    if !entries.is_empty() {
        engine.store.journal_clear(lease).await.map_err(problem)?;
    }
    Ok(settled)
}

/// An intent that was left open.
struct Left<'l> {
    action: ActionKind,
    operation: &'l Operation,
    before: &'l Before,
    /// When it was written.
    at: &'l str,
    /// The run itself said that nobody knows what came of it.
    was_told: bool,
    patience: &'l Patience,
}

/// The waits that a recovery has left. What is waited for arrives for all at once.
#[derive(Default)]
struct Patience(Cell<usize>);

/// A call that was on its way when the run was cut off has arrived, or never will, after this. When
/// that was is not known: calls may take their time.
const ON_ITS_WAY: Duration = Duration::from_secs(15);

/// Waits that are worth it for what nobody can see arrive.
const FOR_A_CHANGE: usize = 2;

impl Left<'_> {
    /// Clocks of two machines may differ: what comes from the future is young.
    fn is_young(&self, engine: &Engine<'_>) -> bool {
        OffsetDateTime::parse(self.at, &Rfc3339).is_ok_and(|at| {
            engine.clock.now() - at < engine.call_timeout.saturating_add(ON_ITS_WAY)
        })
    }

    /// Waits for what may still be on its way to the provider, up to the wait of this number; false
    /// when nothing can be, any more. What a provider of this machine was doing ended with the run.
    async fn waited(
        &self,
        engine: &Engine<'_>,
        owner: &ProviderId,
        address: &Address,
        most: usize,
    ) -> bool {
        let is_here = engine
            .providers
            .get(owner)
            .is_some_and(|provider| provider.is_local());
        let number = self.patience.0.get();
        let Some(wait) = WAITS.get(number).filter(|_| number < most) else {
            return false;
        };
        if is_here || !self.is_young(engine) || engine.cancel.is_cancelled() {
            return false;
        }
        self.patience.0.set(number + 1);
        let verb = match self.action {
            ActionKind::Delete => "deleting",
            ActionKind::Update => "changing",
            _ => "making",
        };
        engine.reporter.say(Event::Note {
            text: format!(
                "An earlier run was cut off while {verb} `{address}`, and what it asked for may still be on its way: looking in {} s.",
                wait.as_secs()
            ),
        });
        tokio::select! {
            () = engine.clock.sleep(*wait) => {}
            () = engine.cancel.cancelled() => {}
        }
        true
    }
}

/// The record of what a run that was cut off had made. What it was made with is not known for sure: no
/// config is recorded, so the plan compares everything and the driver completes what is missing.
fn found_cut_off(
    engine: &Engine<'_>,
    owner: &ProviderId,
    (address, kind): (&Address, &Kind),
    observed: Observed,
    old: Option<&Record>,
) -> Record {
    let resources = by_address(engine);
    let declared = resources.get(address);
    let outputs = concealed(engine, declared.copied(), observed.outputs);
    let found = Observed {
        outputs,
        ..observed
    };
    let spec = Spec {
        address: address.clone(),
        kind: kind.clone(),
        config: Map::new(),
        public_config: PublicMap::new(),
        dependencies: old
            .map(|old| old.dependencies.iter().cloned().collect())
            .unwrap_or_default(),
    };
    let mut record = from_observed(
        &Applied {
            environment: &engine.config.environment,
            provider: engine.providers.get(owner).map_or("", |owner| owner.name()),
            provider_ref: owner.as_str(),
            spec: &spec,
            observed: &found,
            source: "apply",
            protected: declared.is_some_and(|resource| resource.protected)
                || old.is_some_and(|old| old.tidegate.protected),
            adopted: false,
            error: CUT_OFF,
            prior: None,
        },
        &engine.keyring,
        engine.random.as_ref(),
    );
    if let Some(old) = old {
        record.created_at.clone_from(&old.created_at);
        record.updated_at.clone_from(&old.updated_at);
        record.tidegate.version = old.tidegate.version;
        record.unknown.clone_from(&old.unknown);
        record.tidegate.unknown.clone_from(&old.tidegate.unknown);
    }
    record
}

async fn settle(
    engine: &Engine<'_>,
    lease: &Lease,
    address: &Address,
    kind: &Kind,
    provider: &str,
    left: &Left<'_>,
) -> Result<String, Report> {
    let (action, operation) = (left.action, left.operation);
    let record = engine.store.get(address).await.map_err(Report::from)?;
    let owner = record.as_ref().map_or_else(
        || ProviderId::new(provider),
        |record| owner_of(engine, record),
    );
    let driver = engine.driver(address, &owner, kind)?;
    let old = deposed::of(engine, address).await.map_err(Report::from)?;
    let mark = async || {
        let marked = deposed::replaced(engine, lease, address, operation).await;
        marked.map_err(Report::from)
    };
    match (action, record) {
        // The new one of a pair: what is on record is the old one still.
        (ActionKind::Create, Some(record))
            if old
                .iter()
                .any(|old| old.record.provider_id == record.provider_id) =>
        {
            let mut others = left.before.clone();
            let olds = old.iter().map(|old| old.record.provider_id.clone());
            others.ids.extend(olds);
            match look_up(engine, &owner, driver, (address, kind), left, &others).await? {
                Presence::There(observed) => {
                    // Nothing of the old one's but its history: another's address and password are wrong
                    // under the new one's id.
                    let found =
                        found_cut_off(engine, &owner, (address, kind), *observed, Some(&record));
                    put(engine, lease, &found).await?;
                    mark().await?;
                    Ok("its new one was made but not recorded; it is recorded now and will be completed".to_owned())
                }
                _ => Ok("no new one is there; the old one stays".to_owned()),
            }
        }
        (ActionKind::Delete, Some(record))
            if left.before.ids.iter().any(|id| *id != record.provider_id) =>
        {
            Ok("its old one goes when nothing stands on it any more".to_owned())
        }
        (ActionKind::Create, Some(_)) => {
            mark().await?;
            Ok("it was made and recorded".to_owned())
        }
        (ActionKind::Create | ActionKind::Replace | ActionKind::NoOp, None) => {
            let mut others = left.before.clone();
            let olds = old.iter().map(|old| old.record.provider_id.clone());
            others.ids.extend(olds);
            match look_up(engine, &owner, driver, (address, kind), left, &others).await? {
                Presence::There(observed) => {
                    let record = found_cut_off(engine, &owner, (address, kind), *observed, None);
                    put(engine, lease, &record).await?;
                    Ok(
                        "it was made but not recorded; it is recorded now and will be completed"
                            .to_owned(),
                    )
                }
                Presence::Absent => Ok("it was not made".to_owned()),
                Presence::Other(id) => Ok(format!(
                    "it was not made: what goes by its name, `{id}`, was there before or is another environment's"
                )),
                Presence::Unseen => Ok(UNPROVEN.to_owned()),
                Presence::Blind | Presence::Doubtful(_) => Err(unseen(address)),
            }
        }
        (ActionKind::Delete, Some(mut record)) => {
            let prior = crate::state::record::to_recorded(
                &record,
                &engine.config.environment,
                &engine.keyring,
                &engine.masker,
            )
            .map_err(Report::from)?;
            let mut read = within(engine, driver.read(&prior)).await;
            while read.is_ok() && left.waited(engine, &owner, address, FOR_A_CHANGE).await {
                read = within(engine, driver.read(&prior)).await;
            }
            match read {
                Ok(_) => {
                    taint(&mut record, "an earlier run was cut off while deleting it");
                    put(engine, lease, &record).await?;
                    Ok("it is still there".to_owned())
                }
                Err(error) if error.class == ErrorClass::NotFound => {
                    hold::prove(engine, lease).await.map_err(Report::from)?;
                    // What cannot be read any more may still be half there: deleting what is gone
                    // succeeds, and lets the driver clear what it was killed in.
                    if let Err(error) = driver.delete(operation, &prior).await
                        && error.class != ErrorClass::NotFound
                    {
                        return Err(unsettled(address, "deleted", &error.message));
                    }
                    engine
                        .store
                        .delete(lease, address)
                        .await
                        .map_err(Report::from)?;
                    Ok("it was deleted".to_owned())
                }
                Err(error) => Err(unsettled(address, "deleted", &error.message)),
            }
        }
        (ActionKind::Delete, None) => Ok("it was deleted and forgotten".to_owned()),
        (_, Some(mut record)) => {
            while left.waited(engine, &owner, address, FOR_A_CHANGE).await {}
            taint(&mut record, "an earlier run was cut off while changing it");
            put(engine, lease, &record).await?;
            Ok("its change may be incomplete; it will be applied again".to_owned())
        }
        (ActionKind::Update, None) => Ok("nothing is recorded about it".to_owned()),
    }
}

fn taint(record: &mut Record, why: &str) {
    "error".clone_into(&mut record.status);
    why.clone_into(&mut record.error);
}

/// What settles must not stop every run after it: outputs that the state cannot take are left out.
async fn put(engine: &Engine<'_>, lease: &Lease, record: &Record) -> Result<(), Report> {
    let mut record = std::borrow::Cow::Borrowed(record);
    loop {
        match engine.store.put(lease, &record).await {
            Err(StoreError::TooLarge(_)) if record.to_mut().drop_largest_output() => {}
            put => return put.map(drop).map_err(Report::from),
        }
    }
}

/// What is there of a resource that may have been made.
async fn look_up(
    engine: &Engine<'_>,
    owner: &ProviderId,
    driver: &dyn Driver,
    (address, kind): (&Address, &Kind),
    left: &Left<'_>,
    others: &Before,
) -> Result<Presence, Report> {
    let records = Records::from(engine.store.list().await.map_err(Report::from)?);
    let resources = by_address(engine);
    let config = resources.get(address).map(|resource| &resource.config);
    let place = Place {
        owner,
        driver,
        address,
        kind,
        locator: locator(address, kind, config),
        records: &records,
    };
    loop {
        match place.look(engine, others).await {
            Ok(Presence::Blind) => return Err(by_id_only(address, kind)),
            Ok(Presence::Doubtful(id)) => return Err(doubtful(address, &id)),
            Ok(Presence::Unseen) if left.was_told => return Err(unseen(address)),
            Ok(Presence::Absent | Presence::Unseen)
                if left.waited(engine, owner, address, WAITS.len()).await => {}
            Ok(presence) => return Ok(presence),
            Err(error) => return Err(unsettled(address, "made", &error.message)),
        }
    }
}

/// To go on could make a second one; to stop for ever would be no better.
fn by_id_only(address: &Address, kind: &Kind) -> Report {
    Report::error(
        "apply/unsettled",
        format!("an earlier run was cut off, and whether `{address}` was made cannot be told"),
    )
    .because(format!(
        "its provider finds resources of type `{kind}` by their id only, and cannot list them"
    ))
    .fix(settle_words(address))
}

/// Nobody proved that it is not there.
fn unseen(address: &Address) -> Report {
    Report::error(
        "apply/unsettled",
        format!("whether an earlier run made `{address}` cannot be told"),
    )
    .because("it is not found by its name; its provider may find such resources by their id only")
    .fix(settle_words(address))
}

/// Something is there that nobody looked for before.
fn doubtful(address: &Address, id: &str) -> Report {
    Report::error(
        "apply/unsettled",
        format!("whether an earlier run made `{address}` cannot be told"),
    )
    .because(format!(
        "something of that name, `{id}`, is there; it may have been there before"
    ))
    .fix(settle_words(address))
}

fn settle_words(address: &Address) -> String {
    format!(
        "look there; then `tidegate state settle {address} --id ID` if it was made, or `… --absent` if it was not"
    )
}

fn unsettled(address: &Address, verb: &str, why: &str) -> Report {
    Report::error(
        "apply/unsettled",
        format!("an earlier run was cut off, and whether `{address}` was {verb} cannot be told"),
    )
    .because(why.to_owned())
    .fix("make the provider reachable and run the same command again: it looks before it acts")
}
