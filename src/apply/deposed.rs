//! Old ones that wait for their new one (`lifecycle: create_before_destroy`). The record of a
//! resource is the new one's as soon as that is made; until the old one is gone it is remembered
//! beside the records, so that a run that is killed in between loses neither.

use super::recover::Settled;
use super::{Engine, hold};
use crate::clock::rfc3339;
use crate::provider::{ErrorClass, Operation};
use crate::random::hex_of;
use crate::report::Report;
use crate::resource::{Address, Kind};
use crate::state::record::to_recorded;
use crate::state::{Keepsake, Lease, Record, StoreError, StoreResult};

const KEEPSAKE: &str = "deposed/";

fn key(address: &Address) -> String {
    format!("{KEEPSAKE}{address}")
}

fn place(engine: &Engine<'_>, address: &str) -> String {
    format!("{}/deposed/{address}", engine.config.environment)
}

/// Remembers an old one before its new one is asked for.
pub(super) async fn remember(
    engine: &Engine<'_>,
    lease: &Lease,
    record: &Record,
) -> StoreResult<()> {
    let address = &record.resource_id;
    let text = serde_json::to_vec(record)
        .map_err(|error| StoreError::Storage(format!("cannot remember `{address}`: {error}")))?;
    let keepsake = Keepsake {
        fingerprint: String::new(),
        sealed: Some(engine.keyring.seal_bytes(
            engine.random.as_ref(),
            &place(engine, address.as_str()),
            &text,
        )),
        written_at: rfc3339(engine.clock.now()),
    };
    engine
        .store
        .put_keepsake(lease, &key(address), &keepsake)
        .await
}

/// Forgets an old one: it is gone, or its new one was never made.
pub(super) async fn forget(
    engine: &Engine<'_>,
    lease: &Lease,
    address: &Address,
) -> StoreResult<()> {
    engine.store.delete_keepsake(lease, &key(address)).await
}

/// The old one of a resource, when one is remembered.
pub(super) async fn of(engine: &Engine<'_>, address: &Address) -> Result<Option<Record>, Report> {
    let keepsake = engine
        .store
        .keepsake(&key(address))
        .await
        .map_err(Report::from)?;
    let Some(sealed) = keepsake.and_then(|keepsake| keepsake.sealed) else {
        return Ok(None);
    };
    let unreadable = |why: String| {
        Report::error(
            "state/sealed",
            format!("what is remembered of the old `{address}` cannot be read"),
        )
        .because(why)
        .fix("use the state key this state was written with (TIDEGATE_STATE_KEY, or the store's key file)")
    };
    let text = engine
        .keyring
        .open_bytes(&place(engine, address.as_str()), &sealed)
        .map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| unreadable(error.to_string()))
}

/// The resources whose old one is still remembered.
pub(super) async fn all(engine: &Engine<'_>) -> Result<Vec<Address>, Report> {
    let keys = engine.store.keepsakes().await.map_err(Report::from)?;
    Ok(keys
        .iter()
        .filter_map(|key| key.strip_prefix(KEEPSAKE))
        .map(Address::new)
        .collect())
}

/// Finishes what runs that are gone left: an old one whose new one is on record goes, as was
/// approved then; one whose new one was never made stays.
pub(super) async fn settle(engine: &Engine<'_>, lease: &Lease) -> Result<Vec<Settled>, Report> {
    let mut settled = Vec::new();
    for address in all(engine).await? {
        engine.cancel.go_on()?;
        let Some(old) = of(engine, &address).await? else {
            continue;
        };
        let record = engine.store.get(&address).await.map_err(Report::from)?;
        if record.is_some_and(|record| record.provider_id == old.provider_id) {
            forget(engine, lease, &address)
                .await
                .map_err(Report::from)?;
            continue;
        }
        let owner = super::survey::owner_of(engine, &old);
        let driver = engine.driver(&address, &owner, &Kind::new(old.resource_type.clone()))?;
        let prior = to_recorded(
            &old,
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
        match driver.delete(&operation, &prior).await {
            Err(error) if error.class != ErrorClass::NotFound => {
                return Err(Report::error(
                    "apply/unsettled",
                    format!("the old `{address}`, which has a new one, could not be deleted"),
                )
                .because(format!("{} ({})", error.message, error.class.word()))
                .fix("remove the cause and run the same command again"));
            }
            _ => forget(engine, lease, &address)
                .await
                .map_err(Report::from)?,
        }
        settled.push(Settled {
            address,
            finding: "its new one is there; the old one is deleted now".to_owned(),
            is_unproven: false,
        });
    }
    Ok(settled)
}
