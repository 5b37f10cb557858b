//! What a dead run left behind: intents without an outcome. Each is settled by asking the provider,
//! never by guessing, before anything new is planned.

use std::collections::BTreeSet;

use super::presence::{Place, Presence, locator};
use super::survey::{by_address, owner_of, sort_outputs};
use super::{Engine, deposed, hold};
use crate::provider::{Driver, ErrorClass, Operation};
use crate::report::Report;
use crate::resource::{ActionKind, Address, Kind, Map, Observed, ProviderId, PublicMap, Spec};
use crate::state::journal::open_intents;
use crate::state::record::{Applied, from_observed};
use crate::state::{Entry, Lease, Record, Records, StoreError};

/// One settled intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The resource.
    pub address: Address,
    /// What was found, a sentence.
    pub finding: String,
}

/// True when a dead run left intents behind (for commands that only look).
pub async fn is_needed(engine: &Engine<'_>) -> Result<bool, Report> {
    let entries = engine.store.journal_read().await.map_err(Report::from)?;
    Ok(!open_intents(&entries).is_empty() || !deposed::all(engine).await?.is_empty())
}

/// Settles every open intent, then empties the journal. Doing it twice is doing it once: each
/// settled intent gets its outcome at once.
pub async fn recover(engine: &Engine<'_>, lease: &Lease) -> Result<Vec<Settled>, Report> {
    let problem = |error| Report::from(error);
    let entries = engine.store.journal_read().await.map_err(problem)?;
    let mut settled = Vec::new();
    for intent in open_intents(&entries) {
        let Entry::Intent {
            operation,
            address,
            kind,
            provider,
            action,
            before,
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
            (*action, &operation_again, before),
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
            finding,
        });
    }
    settled.extend(deposed::settle(engine, lease).await?);
    if !entries.is_empty() {
        engine.store.journal_clear(lease).await.map_err(problem)?;
    }
    Ok(settled)
}

async fn settle(
    engine: &Engine<'_>,
    lease: &Lease,
    address: &Address,
    kind: &Kind,
    provider: &str,
    (action, operation, before): (ActionKind, &Operation, &str),
) -> Result<String, Report> {
    let record = engine.store.get(address).await.map_err(Report::from)?;
    let owner = record.as_ref().map_or_else(
        || ProviderId::new(provider),
        |record| owner_of(engine, record),
    );
    let driver = engine.driver(address, &owner, kind)?;
    let old = deposed::of(engine, address).await?;
    match (action, record) {
        // The new one of a pair: what is on record is the old one still.
        (ActionKind::Create, Some(record))
            if old
                .as_ref()
                .is_some_and(|old| old.provider_id == record.provider_id) =>
        {
            let others = [record.provider_id.as_str(), before];
            match look_up(engine, &owner, driver, address, kind, &others).await? {
                Presence::There(observed) => {
                    let mut record = record;
                    record.provider_id = observed.provider_id;
                    taint(&mut record, "an earlier run was cut off while making it");
                    put(engine, lease, &record).await?;
                    Ok("its new one was made but not recorded; it is recorded now and will be completed".to_owned())
                }
                _ => Ok("no new one is there; the old one stays".to_owned()),
            }
        }
        (ActionKind::Delete, Some(record))
            if old
                .as_ref()
                .is_some_and(|old| old.provider_id != record.provider_id) =>
        {
            Ok("whether its old one is gone is looked at next".to_owned())
        }
        (ActionKind::Create, Some(_)) => Ok("it was made and recorded".to_owned()),
        (ActionKind::Create | ActionKind::Replace | ActionKind::NoOp, None) => {
            match look_up(engine, &owner, driver, address, kind, &[before]).await? {
                Presence::There(observed) => {
                    let resources = by_address(engine);
                    let outputs = match resources.get(address) {
                        Some(resource) => sort_outputs(engine, resource, driver, observed.outputs),
                        None => observed.outputs,
                    };
                    let found = Observed {
                        outputs,
                        ..*observed
                    };
                    // What it was made with is not known for sure: no config is recorded, so the
                    // plan compares everything and the driver completes what is missing.
                    let spec = Spec {
                        address: address.clone(),
                        kind: kind.clone(),
                        config: Map::new(),
                        public_config: PublicMap::new(),
                        dependencies: BTreeSet::new(),
                    };
                    let record = from_observed(
                        &Applied {
                            environment: &engine.config.environment,
                            provider: engine
                                .providers
                                .get(&owner)
                                .map_or("", |owner| owner.name()),
                            provider_ref: owner.as_str(),
                            spec: &spec,
                            observed: &found,
                            source: "apply",
                            protected: resources
                                .get(address)
                                .is_some_and(|resource| resource.protected),
                            error: "an earlier run was cut off while making it",
                            prior: None,
                        },
                        &engine.keyring,
                        engine.random.as_ref(),
                    );
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
                Presence::Unseen | Presence::Blind => {
                    Ok("it is not found by its name, so it counts as not made".to_owned())
                }
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
            match driver.read(&prior).await {
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
    address: &Address,
    kind: &Kind,
    others: &[&str],
) -> Result<Presence, Report> {
    let records = Records::from(engine.store.list().await.map_err(Report::from)?);
    let others: Vec<&str> = others.iter().copied().filter(|id| !id.is_empty()).collect();
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
    match place.look(engine, &others).await {
        Ok(Presence::Blind) => Err(by_id_only(address, kind)),
        Ok(presence) => Ok(presence),
        Err(error) => Err(unsettled(address, "made", &error.message)),
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
    .fix(format!(
        "look there; then `tidegate state settle {address} --id ID` if it was made, or `… --absent` if it was not"
    ))
}

fn unsettled(address: &Address, verb: &str, why: &str) -> Report {
    Report::error(
        "apply/unsettled",
        format!("an earlier run was cut off, and whether `{address}` was {verb} cannot be told"),
    )
    .because(why.to_owned())
    .fix("make the provider reachable and run the same command again: it looks before it acts")
}
