//! Old ones that wait for their new one (`lifecycle: create_before_destroy`). The record of a
//! resource is the new one's as soon as that is made; until the old one is gone it is remembered
//! beside the records, so that a run that is killed in between loses neither.

use serde::{Deserialize, Serialize};

use super::execute::{asked, within};
use super::presence::of_others;
use super::survey::owner_of;
use super::{ApplyReport, Engine, hold};
use crate::clock::rfc3339;
use crate::plan::Scope;
use crate::provider::{ErrorClass, Operation};
use crate::random::{Random, hex_of};
use crate::report::{Exit, Outcome, Report};
use crate::resource::{Address, Kind};
use crate::secret::Keyring;
use crate::state::record::to_recorded;
use crate::state::{Keepsake, Lease, Record, Records, Store, StoreError, StoreResult};

const KEEPSAKE: &str = "deposed/";

fn key(address: &Address) -> String {
    format!("{KEEPSAKE}{address}")
}

/// An old one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Old {
    /// As it was on record.
    pub record: Record,
    /// Its new one is on record; until then nobody may delete it.
    pub is_replaced: bool,
    /// The create of its new one. Whatever else is ever recorded under that name is not its new one.
    #[serde(default)]
    operation: String,
    /// Written by a version that marked nothing: a record of its name is its new one.
    #[serde(skip)]
    is_unmarked: bool,
}

/// What is kept: several, or the record of the only one as earlier versions wrote it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kept {
    Several(Vec<Old>),
    One(Box<Record>),
}

/// Remembers an old one before the operation asks for its new one, beside those that wait already.
///
/// # Errors
/// When the state cannot be read or written.
pub async fn remember(
    engine: &Engine<'_>,
    lease: &Lease,
    record: &Record,
    operation: &Operation,
) -> StoreResult<()> {
    let address = &record.resource_id;
    let mut old = of(engine, address).await?;
    old.retain(|old| old.record.provider_id != record.provider_id);
    old.push(Old {
        record: record.clone(),
        is_replaced: false,
        operation: operation.id.clone(),
        is_unmarked: false,
    });
    keep(engine, lease, address, &old).await
}

/// Marks the old one whose new one this operation made: that is on record now.
pub(super) async fn replaced(
    engine: &Engine<'_>,
    lease: &Lease,
    address: &Address,
    operation: &Operation,
) -> StoreResult<()> {
    let mut old = of(engine, address).await?;
    let mut is_changed = false;
    for old in &mut old {
        if old.operation == operation.id && !old.is_replaced {
            old.is_replaced = true;
            is_changed = true;
        }
    }
    if is_changed {
        keep(engine, lease, address, &old).await?;
    }
    Ok(())
}

/// Forgets what waits to be deleted once its new one is there, because its record is removed and it is to
/// stay: without a record nobody could tell that a new one is its own.
///
/// # Errors
/// When the state cannot be read or written.
pub async fn disown(room: &Sealed<'_>, lease: &Lease, record: &Record) -> StoreResult<()> {
    let address = &record.resource_id;
    let mut old = room.of(address).await?;
    let before = old.len();
    old.retain(|old| old.is_replaced || old.record.provider_id != record.provider_id);
    if old.len() < before {
        room.keep(lease, address, &old).await?;
    }
    Ok(())
}

/// Forgets an old one: it is gone, or its new one was never made.
pub(super) async fn forget(
    engine: &Engine<'_>,
    lease: &Lease,
    address: &Address,
    provider_id: &str,
) -> StoreResult<()> {
    let mut old = of(engine, address).await?;
    old.retain(|old| old.record.provider_id != provider_id);
    keep(engine, lease, address, &old).await
}

async fn keep(
    engine: &Engine<'_>,
    lease: &Lease,
    address: &Address,
    old: &[Old],
) -> StoreResult<()> {
    Sealed::of_engine(engine).keep(lease, address, old).await
}

/// The old ones of a resource that are remembered, the oldest first.
pub(super) async fn of(engine: &Engine<'_>, address: &Address) -> StoreResult<Vec<Old>> {
    Sealed::of_engine(engine).of(address).await
}

/// Where old ones are kept, and what opens them.
#[derive(Debug)]
pub struct Sealed<'a> {
    /// The state.
    pub store: &'a dyn Store,
    /// Its key.
    pub keyring: &'a Keyring,
    /// For what is sealed anew.
    pub random: &'a dyn Random,
    /// The time, as records have it.
    pub now: String,
}

impl<'a> Sealed<'a> {
    fn of_engine(engine: &'a Engine<'_>) -> Self {
        Self {
            store: engine.store.as_ref(),
            keyring: &engine.keyring,
            random: engine.random.as_ref(),
            now: rfc3339(engine.clock.now()),
        }
    }

    fn place(&self, address: &Address) -> String {
        format!("{}/deposed/{address}", self.store.environment())
    }

    async fn keep(&self, lease: &Lease, address: &Address, old: &[Old]) -> StoreResult<()> {
        if old.is_empty() {
            return self.store.delete_keepsake(lease, &key(address)).await;
        }
        let text = serde_json::to_vec(old).map_err(|error| {
            StoreError::Storage(format!("cannot remember `{address}`: {error}"))
        })?;
        let keepsake = Keepsake {
            fingerprint: String::new(),
            sealed: Some(
                self.keyring
                    .seal_bytes(self.random, &self.place(address), &text),
            ),
            written_at: self.now.clone(),
        };
        self.store
            .put_keepsake(lease, &key(address), &keepsake)
            .await
    }

    async fn of(&self, address: &Address) -> StoreResult<Vec<Old>> {
        let keepsake = self.store.keepsake(&key(address)).await?;
        let Some(sealed) = keepsake.and_then(|keepsake| keepsake.sealed) else {
            return Ok(Vec::new());
        };
        let unreadable = |why: String| StoreError::Corrupt {
            what: format!("what is remembered of the old `{address}`"),
            reason: format!("{why}; it opens with the state key this state was written with"),
        };
        let text = self
            .keyring
            .open_bytes(&self.place(address), &sealed)
            .map_err(|error| unreadable(error.to_string()))?;
        match serde_json::from_slice(&text) {
            Ok(Kept::Several(old)) => Ok(old),
            Ok(Kept::One(record)) => Ok(vec![Old {
                record: *record,
                is_replaced: false,
                operation: String::new(),
                is_unmarked: true,
            }]),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }
}

/// The resources whose old one is still remembered.
pub(super) async fn all(engine: &Engine<'_>) -> StoreResult<Vec<Address>> {
    let keys = engine.store.keepsakes().await?;
    Ok(keys
        .iter()
        .filter_map(|key| key.strip_prefix(KEEPSAKE))
        .map(Address::new)
        .collect())
}

/// The old ones that another environment's store remembers, as they were on record.
pub(super) async fn all_in(store: &dyn Store, random: &dyn Random) -> StoreResult<Vec<Record>> {
    let keys = store.keepsakes().await?;
    let mut names = keys
        .iter()
        .filter_map(|key| key.strip_prefix(KEEPSAKE))
        .peekable();
    if names.peek().is_none() {
        return Ok(Vec::new());
    }
    let key = store.key(false).await?.ok_or_else(|| StoreError::Corrupt {
        what: "what is remembered of old ones".to_owned(),
        reason: "its state key is not there".to_owned(),
    })?;
    let keyring = Keyring::new(&key);
    let room = Sealed {
        store,
        keyring: &keyring,
        random,
        now: String::new(),
    };
    let mut all = Vec::new();
    for name in names {
        let old = room.of(&Address::new(name)).await?;
        all.extend(old.into_iter().map(|old| old.record));
    }
    Ok(all)
}

/// Every old one that waits for something. What goes by another name now is none.
///
/// # Errors
/// When the state cannot be read.
pub async fn waiting(engine: &Engine<'_>) -> StoreResult<Vec<Old>> {
    let mut waiting = Vec::new();
    let all = all(engine).await?;
    if all.is_empty() {
        return Ok(waiting);
    }
    let records = Records::from(engine.store.list().await?);
    for address in all {
        waiting.extend(told(&records, &address, of(engine, &address).await?));
    }
    Ok(waiting)
}

/// The old ones of a resource in the light of the records: without those that are on record still.
fn told(records: &Records, address: &Address, mut old: Vec<Old>) -> Vec<Old> {
    old.retain(|old| {
        !records.iter().any(|record| {
            record.provider_id == old.record.provider_id
                && record.resource_type == old.record.resource_type
        })
    });
    for old in &mut old {
        old.is_replaced |= old.is_unmarked && records.get(address).is_some();
    }
    old
}

/// Writes down what the records tell of old ones: that one is on record still, under whatever name,
/// because its new one was never made.
pub(super) async fn settle(engine: &Engine<'_>, lease: &Lease) -> StoreResult<()> {
    let all = all(engine).await?;
    if all.is_empty() {
        return Ok(());
    }
    let records = Records::from(engine.store.list().await?);
    for address in all {
        let before = of(engine, &address).await?;
        let after = told(&records, &address, before.clone());
        let is_same = before.len() == after.len()
            && before
                .iter()
                .zip(&after)
                .all(|(before, after)| before.is_replaced == after.is_replaced);
        if !is_same {
            keep(engine, lease, &address, &after).await?;
        }
    }
    Ok(())
}

/// Deletes what earlier runs left waiting, now that everything that stood on it has moved over or is
/// gone: as was approved then. What still stands on an old one keeps it.
///
/// # Errors
/// When the state cannot be read or written; a refusal of a provider is one of the problems.
pub async fn finish(
    engine: &Engine<'_>,
    lease: &Lease,
    scope: &Scope,
    report: &ApplyReport,
) -> Result<Finished, Report> {
    let mut finished = Finished::default();
    if report.interrupted || report.lost_lock || report.store_failed {
        return Ok(finished);
    }
    let waiting = waiting(engine).await.map_err(Report::from)?;
    if waiting.is_empty() {
        return Ok(finished);
    }
    let records = Records::from(engine.store.list().await.map_err(Report::from)?);
    for old in dependents_first(waiting) {
        // What was done before is still to be told; the next run goes on here.
        if engine.cancel.is_cancelled() {
            break;
        }
        let address = &old.record.resource_id;
        // What became of its own action says so already.
        let mut of_this_run = report.actions.iter();
        if of_this_run
            .any(|result| result.address == *address && result.outcome != Outcome::Success)
        {
            continue;
        }
        match let_go(engine, lease, &old, keeper(&records, scope, report, &old)).await? {
            Ok(()) => {
                let id = old.record.provider_id;
                let forgotten = forget(engine, lease, &old.record.resource_id, &id).await;
                forgotten.map_err(Report::from)?;
                finished.gone.push((old.record.resource_id, id));
            }
            Err(problem) => finished.problems.push(problem),
        }
    }
    Ok(finished)
}

/// Those that stand on others of them come before these; in a circle, by name.
fn dependents_first(mut waiting: Vec<Old>) -> Vec<Old> {
    let mut sorted = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let is_free = |old: &Old| {
            let address = &old.record.resource_id;
            !waiting.iter().any(|other| {
                other.record.resource_id != *address && other.record.dependencies.contains(address)
            })
        };
        let next = waiting.iter().position(is_free).unwrap_or_default();
        sorted.push(waiting.remove(next));
    }
    sorted
}

/// Deletes an old one that nothing keeps; the inner error says why it is still there.
async fn let_go(
    engine: &Engine<'_>,
    lease: &Lease,
    old: &Old,
    keeper: Option<String>,
) -> Result<Result<(), Report>, Report> {
    let (address, id) = (&old.record.resource_id, &old.record.provider_id);
    let left = |what: &str, because: String, fix: &str| {
        Report::error(
            "apply/old-left",
            format!("the old `{address}`, `{id}`, which has a new one, {what}"),
        )
        .because(because)
        .fix(fix)
        .exit(Exit::Partial)
    };
    if let Some(why) = keeper {
        return Ok(Err(left(
            "stays for now",
            why,
            "run the same command again: what has moved over lets it go",
        )));
    }
    if !old.is_replaced {
        if is_gone(engine, &old.record).await {
            return Ok(Ok(()));
        }
        return Ok(Err(Report::error(
            "apply/old-left",
            format!("`{id}` is there, and no record is about it"),
        )
        .because(format!(
            "a run was cut off while replacing `{address}`, and its record was removed or renamed before that was settled"
        ))
        .fix(format!(
            "to keep it: `tidegate infra import --name NAME --id {id}`; otherwise delete it at its provider"
        ))
        .exit(Exit::Partial)));
    }
    let kind = Kind::new(old.record.resource_type.clone());
    let others = of_others(engine).await.map_err(Report::from)?;
    if let Some(environment) = others.has_recorded(&kind, id) {
        return Ok(Err(left(
            "stays",
            format!("environment `{environment}` has it on record, too"),
            "take it off the record where it does not belong: `tidegate state rm`",
        )));
    }
    Ok(delete(engine, lease, &old.record).await?.map_err(|why| {
        left(
            "could not be deleted",
            why,
            "remove the cause and run the same command again",
        )
    }))
}

/// True when its provider says for certain that it is not there any more.
async fn is_gone(engine: &Engine<'_>, old: &Record) -> bool {
    let kind = Kind::new(old.resource_type.clone());
    let environment = &engine.config.environment;
    let Ok(driver) = engine.driver(&old.resource_id, &owner_of(engine, old), &kind) else {
        return false;
    };
    match to_recorded(old, environment, &engine.keyring, &engine.masker) {
        Ok(prior) => asked(engine, || driver.read(&prior))
            .await
            .is_err_and(|error| error.class == ErrorClass::NotFound),
        Err(_) => false,
    }
}

/// What became of the old ones that waited.
#[derive(Debug, Default)]
pub struct Finished {
    /// Deleted: the resource, and the id of its old one.
    pub gone: Vec<(Address, String)>,
    /// Why others are still there.
    pub problems: Vec<Report>,
}

/// Why an old one has to stay, if it does.
fn keeper(records: &Records, scope: &Scope, report: &ApplyReport, old: &Old) -> Option<String> {
    let address = &old.record.resource_id;
    if records
        .get(address)
        .is_some_and(|record| record.status == "error")
    {
        return Some("its new one is not complete".to_owned());
    }
    let mut on_it = records
        .iter()
        .filter(|record| record.dependencies.contains(address));
    let stays = on_it.find(|record| {
        let has_failed = report.actions.iter().any(|result| {
            result.address == record.resource_id && result.outcome != Outcome::Success
        });
        has_failed || record.status == "error" || !scope.includes(&record.resource_id)
    })?;
    Some(format!(
        "`{}` stands on it, and has not been moved over",
        stays.resource_id
    ))
}

/// Deletes an old one; the inner error is the provider's.
async fn delete(
    engine: &Engine<'_>,
    lease: &Lease,
    old: &Record,
) -> Result<Result<(), String>, Report> {
    let owner = owner_of(engine, old);
    let kind = Kind::new(old.resource_type.clone());
    let driver = match engine.driver(&old.resource_id, &owner, &kind) {
        Ok(driver) => driver,
        Err(problem) => return Ok(Err(problem.message)),
    };
    let prior = to_recorded(
        old,
        &engine.config.environment,
        &engine.keyring,
        &engine.masker,
    )
    .map_err(Report::from)?;
    let operation = Operation {
        id: format!(
            "{}-{}",
            lease.holder.run_id,
            hex_of::<8>(engine.random.as_ref())
        ),
        environment: engine.config.environment.clone(),
    };
    hold::prove(engine, lease).await.map_err(Report::from)?;
    Ok(
        match within(engine, driver.delete(&operation, &prior)).await {
            Err(error) if error.class != ErrorClass::NotFound => {
                Err(format!("{} ({})", error.message, error.class.word()))
            }
            _ => Ok(()),
        },
    )
}
