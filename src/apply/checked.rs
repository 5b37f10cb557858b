//! When each recorded resource was last looked at for drift. Kept in one piece beside the records:
//! a look is no change, so it must not make saved plans stale or records newer.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use crate::clock::rfc3339;
use crate::report::Report;
use crate::resource::Address;
use crate::state::{Keepsake, Lease, StoreError, StoreResult};

/// Its key.
pub(super) const KEEPSAKE: &str = "looked-at/times";

fn place(engine: &Engine<'_>) -> String {
    format!("{}/{KEEPSAKE}", engine.config.environment)
}

/// RFC 3339 times by resource, of those that were ever looked at.
pub async fn times(engine: &Engine<'_>) -> Result<BTreeMap<Address, String>, Report> {
    let keepsake = engine
        .store
        .keepsake(KEEPSAKE)
        .await
        .map_err(Report::from)?;
    let Some(sealed) = keepsake.and_then(|keepsake| keepsake.sealed) else {
        return Ok(BTreeMap::new());
    };
    let unreadable = |why: String| {
        Report::error(
            "state/sealed",
            "when drift was last looked for cannot be read",
        )
        .because(why)
        .fix("use the state key this state was written with (TIDEGATE_STATE_KEY, or the store's key file)")
    };
    let text = engine
        .keyring
        .open_bytes(&place(engine), &sealed)
        .map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))
}

/// Remembers that these were looked at now, and forgets those that are recorded no more.
pub async fn remember(
    engine: &Engine<'_>,
    lease: &Lease,
    looked_at: &BTreeSet<Address>,
) -> Result<(), Report> {
    // A note that does not open is worth less than a new one.
    let before = times(engine).await.unwrap_or_default();
    let now = rfc3339(engine.clock.now());
    let mut after = BTreeMap::new();
    for record in engine.store.list().await.map_err(Report::from)? {
        let address = record.resource_id;
        if looked_at.contains(&address) {
            after.insert(address, now.clone());
        } else if let Some(time) = before.get(&address) {
            after.insert(address, time.clone());
        }
    }
    put(engine, lease, &after).await.map_err(Report::from)
}

async fn put(
    engine: &Engine<'_>,
    lease: &Lease,
    times: &BTreeMap<Address, String>,
) -> StoreResult<()> {
    let text = serde_json::to_vec(times)
        .map_err(|error| StoreError::Storage(format!("cannot remember the look: {error}")))?;
    let keepsake = Keepsake {
        fingerprint: String::new(),
        sealed: Some(
            engine
                .keyring
                .seal_bytes(engine.random.as_ref(), &place(engine), &text),
        ),
        written_at: rfc3339(engine.clock.now()),
    };
    engine.store.put_keepsake(lease, KEEPSAKE, &keepsake).await
}
