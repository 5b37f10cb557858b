//! What every store keeps besides records, in the form it is kept in. Pure.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::random::encode_hex;

use super::{Keepsake, StoreError, StoreResult, frame};

/// Format of head, lock and keepsake files.
pub(super) const FORMAT: u64 = 1;

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
        frame::close(self).map_err(|reason| {
            StoreError::Storage(format!("cannot write keepsake `{}`: {reason}", self.key))
        })
    }

    /// Reads one and holds it against the key it was found under.
    pub(super) fn decode(bytes: &[u8], key: &str) -> StoreResult<Keepsake> {
        let what = format!("keepsake `{key}`");
        let file: Self = parse_own(bytes, &what)?;
        if file.key != key {
            return Err(StoreError::Corrupt {
                what,
                reason: format!("it is the keepsake `{}`", file.key),
            });
        }
        Ok(file.keepsake)
    }
}

/// Our own small files: checksum first, then the format, then the content.
pub(super) fn parse_own<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    what: &str,
) -> StoreResult<T> {
    let corrupt = |reason: String| StoreError::Corrupt {
        what: what.to_owned(),
        reason,
    };
    let value = frame::open_own(bytes).map_err(corrupt)?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(FORMAT) => {}
        Some(found) if found > FORMAT => {
            return Err(StoreError::Newer {
                what: what.to_owned(),
                found,
                known: FORMAT,
            });
        }
        _ => return Err(corrupt("it has no known format number".to_owned())),
    }
    serde_json::from_value(value).map_err(|error| corrupt(error.to_string()))
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
