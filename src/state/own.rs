//! What every store keeps besides records, in the form it is kept in. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::random::encode_hex;

use super::frame::{self, Kind};
use super::record::{corrupt, refused};
use super::{Keepsake, StoreError, StoreResult};

/// Format of heads and locks, which are JSON so that anybody sees who holds a lock. Since format 2,
/// records and keepsakes beside them are CBOR and the journal counts changes: an older program must
/// not take the lock.
pub(super) const FORMAT: u64 = 2;

/// A keepsake with its key, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeepsakeFile {
    pub(super) format: u64,
    pub(super) key: String,
    #[serde(flatten)]
    pub(super) keepsake: Keepsake,
}

impl KeepsakeFile {
    pub(super) fn new(key: &str, keepsake: &Keepsake) -> Self {
        Self {
            format: FORMAT,
            key: key.to_owned(),
            keepsake: keepsake.clone(),
        }
    }

    /// The bytes that stand for it.
    pub(super) fn encode(&self) -> StoreResult<Vec<u8>> {
        let value = serde_json::to_value(self).map_err(|error| {
            StoreError::Storage(format!("cannot write keepsake `{}`: {error}", self.key))
        })?;
        Ok(frame::wrap(Kind::Keepsake, |writer| writer.value(&value)))
    }

    /// Reads one, whosever it is.
    pub(super) fn read(bytes: &[u8], what: &dyn fmt::Display) -> StoreResult<Self> {
        if !frame::is_wrapped(bytes) {
            return parse_own(bytes, what);
        }
        let (Kind::Keepsake, mut reader) =
            frame::open_wrapped(bytes).map_err(|why| refused(why, what))?
        else {
            return Err(corrupt(what, "it is no keepsake"));
        };
        let value = reader.value().map_err(|reason| corrupt(what, reason))?;
        if !reader.is_at_end() {
            return Err(corrupt(what, "something follows the keepsake"));
        }
        from_versioned(value, what)
    }

    /// Reads one and holds it against the key it was found under.
    pub(super) fn decode(bytes: &[u8], key: &str) -> StoreResult<Keepsake> {
        let what = format!("keepsake `{key}`");
        let file = Self::read(bytes, &what)?;
        if file.key != key {
            return Err(corrupt(&what, format!("it is the keepsake `{}`", file.key)));
        }
        Ok(file.keepsake)
    }

    /// [`KeepsakeFile::decode`] for a storage that keeps text.
    pub(super) fn decode_text(text: &str, key: &str) -> StoreResult<Keepsake> {
        let bytes = frame::from_text(text)
            .map_err(|reason| corrupt(&format_args!("keepsake `{key}`"), reason))?;
        Self::decode(&bytes, key)
    }
}

/// Our own small JSON files: checksum first, then the format, then the content.
pub(super) fn parse_own<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    what: &dyn fmt::Display,
) -> StoreResult<T> {
    let value = frame::open_own(bytes).map_err(|reason| corrupt(what, reason))?;
    from_versioned(value, what)
}

fn from_versioned<T: serde::de::DeserializeOwned>(
    value: serde_json::Value,
    what: &dyn fmt::Display,
) -> StoreResult<T> {
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(1..=FORMAT) => {}
        Some(found) if found > FORMAT => {
            return Err(StoreError::Newer {
                what: what.to_string(),
                found,
                known: FORMAT,
            });
        }
        _ => return Err(corrupt(what, "it has no known format number")),
    }
    serde_json::from_value(value).map_err(|error| corrupt(what, error.to_string()))
}

/// A state key.
pub(super) type Key = Zeroizing<[u8; 32]>;

/// Tells two keys apart and nothing else: the key has 256 random bits, so its hash gives no way
/// to guess it.
pub(super) fn key_check(key: &[u8; 32]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"tidegate/key-check/1");
    hash.update(key);
    encode_hex(&hash.finalize()[..8])
}
