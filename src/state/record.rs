//! One resource as the store keeps it: upstream's record fields, and ours beside them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::resource::{Address, PublicMap};

use super::cbor::Reader;
use super::frame::{self, Kind, Opened, Refused};
use super::{StoreError, StoreResult, typed};

pub use super::convert::{
    Applied, CUT_OFF, RecordError, from_observed, kept_elsewhere, observe, place, publish,
    to_recorded,
};
pub use super::secret_key::{PLACEHOLDER_PREFIX, secret_key};

/// The newest record format this version writes.
pub const FORMAT: u64 = 1;

/// Largest record in bytes, read or written.
pub const RECORD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A stored record. Field names up to `error` are upstream's (`state.md` section 2); what upstream
/// does not know is kept under `tidegate`, and fields we do not know are kept as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The resource's address.
    pub resource_id: Address,
    /// Its kind.
    pub resource_type: String,
    /// Provider type, such as `local`.
    pub provider: String,
    /// Provider module name.
    #[serde(default, deserialize_with = "null_is_default")]
    pub provider_ref: String,
    /// The provider's own id.
    #[serde(default, deserialize_with = "null_is_default")]
    pub provider_id: String,
    /// Canonical config hash.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config_hash: String,
    /// `active`, or `error` for a resource that exists but whose last action failed (tainted).
    pub status: String,
    /// Applied config, public form.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: PublicMap,
    /// Outputs; sensitive ones as `secret_ref://<KEY>`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub outputs: PublicMap,
    /// Names this resource waited for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub dependencies: Vec<Address>,
    /// RFC 3339, set once.
    pub created_at: String,
    /// RFC 3339, set at every write.
    pub updated_at: String,
    /// The last error, when `status` is `error`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub error: String,
    /// What upstream does not know.
    #[serde(default, deserialize_with = "null_is_default")]
    pub tidegate: Extension,
    /// Fields written by someone else; kept untouched.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// Our part of a record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Extension {
    /// Record format; 0 for records upstream wrote.
    #[serde(default)]
    pub format: u64,
    /// Environment the record belongs to.
    #[serde(default)]
    pub environment: String,
    /// `apply`, `adoption`, or empty for upstream's records.
    #[serde(default)]
    pub applied_config_source: String,
    /// True when replace and delete need an explicit override.
    #[serde(default)]
    pub protected: bool,
    /// It was there before, and was taken over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// Free text from the provider, such as `running`.
    #[serde(default)]
    pub provider_status: String,
    /// Sensitive outputs by output name.
    #[serde(default)]
    pub sealed: BTreeMap<String, SealedOutput>,
    /// The provider's private blob, sealed; empty for none.
    #[serde(default)]
    pub private: String,
    /// Tells a record's writes apart: grows by one with each of them, and starts at the serial of the
    /// state when the record was made, so that none comes again after a removal.
    #[serde(default)]
    pub version: u64,
    /// Fields a newer version wrote.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// A sensitive output: fingerprint for change detection, value sealed for its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedOutput {
    /// Keyed fingerprint.
    pub fingerprint: String,
    /// Sealed value.
    pub sealed: String,
}

/// Upstream's encoder writes `null` for empty maps and lists.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl Record {
    /// The bytes that are stored for this record.
    ///
    /// # Errors
    /// [`StoreError::Storage`] for a record that could not be read back: too large, or nested too
    /// deep. Nothing unreadable is ever written.
    pub fn encode(&self) -> StoreResult<Vec<u8>> {
        self.readable(frame::wrap(Kind::Record, |writer| {
            typed::write(self, writer)
        }))
    }

    /// This record as a JSON document of its own, for people and other tools. [`Record::decode`]
    /// reads it too.
    ///
    /// # Errors
    /// Those of [`Record::encode`].
    pub fn document(&self) -> StoreResult<Vec<u8>> {
        self.readable(frame::close(self).map_err(|reason| self.unwritable(&reason))?)
    }

    /// Takes out the output that needs most room, and says so; false when none is left.
    pub fn drop_largest_output(&mut self) -> bool {
        let size = |name: &str, value: &serde_json::Value| {
            let sealed = self.tidegate.sealed.get(name);
            sealed.map_or_else(|| value.to_string().len(), |sealed| sealed.sealed.len())
        };
        let largest = self
            .outputs
            .iter()
            .max_by_key(|(name, value)| size(name, value))
            .map(|(name, _)| name.clone());
        let Some(name) = largest else {
            return false;
        };
        self.outputs.remove(&name);
        self.tidegate.sealed.remove(&name);
        "error".clone_into(&mut self.status);
        if !self.error.is_empty() {
            self.error.push_str("; ");
        }
        self.error.push_str(&format!(
            "its output `{name}` is too large for the state and is left out"
        ));
        true
    }

    fn unwritable(&self, reason: &str) -> StoreError {
        StoreError::Storage(format!(
            "cannot write record `{}`: {reason}",
            self.resource_id
        ))
    }

    /// `bytes`, if this version reads them.
    fn readable(&self, bytes: Vec<u8>) -> StoreResult<Vec<u8>> {
        if bytes.len() as u64 > RECORD_BYTES_MAX {
            return Err(StoreError::TooLarge(format!(
                "cannot write record `{}`: it has {} bytes, the limit is {RECORD_BYTES_MAX}",
                self.resource_id,
                bytes.len()
            )));
        }
        match Self::decode(&bytes, "the record") {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.unwritable(&error.to_string())),
        }
    }

    /// Reads a stored record: as this version writes them, as JSON of ours, or as JSON that
    /// upstream wrote (no checksum, no `tidegate` member). `what` names it in errors.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for anything that is not a whole record, [`StoreError::Newer`] for
    /// a format this version does not know.
    pub fn decode(bytes: &[u8], what: &str) -> StoreResult<Self> {
        Self::decode_of(bytes, &what)
    }

    /// [`Record::decode`] with a name that is only put in words when it is needed.
    pub(super) fn decode_of(bytes: &[u8], what: &dyn fmt::Display) -> StoreResult<Self> {
        if frame::is_wrapped(bytes) {
            return match frame::open_wrapped(bytes).map_err(|why| refused(why, what))? {
                (Kind::Record, reader) => Self::read(reader, what),
                _ => Err(corrupt(what, "it holds something else than a record")),
            };
        }
        Self::decode_json(bytes, what)
    }

    /// The content of an opened frame.
    pub(super) fn read(mut reader: Reader<'_>, what: &dyn fmt::Display) -> StoreResult<Self> {
        let record = typed::read(&mut reader).map_err(|reason| corrupt(what, reason))?;
        if !reader.is_at_end() {
            return Err(corrupt(what, "something follows the record"));
        }
        if record.tidegate.format > FORMAT {
            return Err(StoreError::Newer {
                what: what.to_string(),
                found: record.tidegate.format,
                known: FORMAT,
            });
        }
        Ok(record)
    }

    fn decode_json(bytes: &[u8], what: &dyn fmt::Display) -> StoreResult<Self> {
        let corrupt = |reason: String| corrupt(what, reason);
        let value = match frame::open(bytes).map_err(corrupt)? {
            Opened::Checked(value) => {
                let found = value
                    .get("tidegate")
                    .and_then(|extension| extension.get("format"))
                    .and_then(serde_json::Value::as_u64)
                    .unwrap_or(0);
                if found > FORMAT {
                    return Err(StoreError::Newer {
                        what: what.to_string(),
                        found,
                        known: FORMAT,
                    });
                }
                value
            }
            Opened::Foreign(value) => value,
        };
        serde_json::from_value(value).map_err(|error| corrupt(format!("it is no record: {error}")))
    }

    /// What the store itself adds when it writes this record over `existing`: the environment, the
    /// times, the version, and every field that this version does not know. `serial` is that of the
    /// state after this write.
    pub(super) fn succeed(
        &self,
        existing: Option<&Self>,
        environment: &str,
        now: &str,
        serial: u64,
    ) -> Self {
        let mut next = self.clone();
        next.updated_at = now.to_owned();
        next.tidegate.format = FORMAT;
        next.tidegate.environment = environment.to_owned();
        // Greater than any that a record of this name has had: who knows a version of one that was
        // removed since must not take the new one for it.
        next.tidegate.version = serial.max(1);
        match existing {
            Some(existing) => {
                next.created_at.clone_from(&existing.created_at);
                next.tidegate.version = existing.tidegate.version.saturating_add(1);
                keep_unknown(&mut next.unknown, &existing.unknown);
                keep_unknown(&mut next.tidegate.unknown, &existing.tidegate.unknown);
            }
            None if next.created_at.is_empty() => now.clone_into(&mut next.created_at),
            None => {}
        }
        next
    }
}

/// Why stored bytes are no record.
pub(super) fn corrupt(what: &dyn fmt::Display, reason: impl Into<String>) -> StoreError {
    StoreError::Corrupt {
        what: what.to_string(),
        reason: reason.into(),
    }
}

/// Why a frame was not opened.
pub(super) fn refused(why: Refused, what: &dyn fmt::Display) -> StoreError {
    match why {
        Refused::Damaged(reason) => corrupt(what, reason),
        Refused::Newer(found) => StoreError::Newer {
            what: what.to_string(),
            found,
            known: frame::VERSION,
        },
    }
}

fn keep_unknown(
    next: &mut BTreeMap<String, serde_json::Value>,
    existing: &BTreeMap<String, serde_json::Value>,
) {
    for (key, value) in existing {
        next.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample(config: serde_json::Value) -> Record {
        serde_json::from_value(json!({
            "resource_id": "a", "resource_type": "infra.storage", "provider": "local",
            "status": "active", "config": config, "created_at": "", "updated_at": "",
        }))
        .unwrap()
    }

    #[test]
    fn numbers_come_back_exactly() {
        // The last three change by one unit when they are read with the usual short cut.
        let config = json!({"numbers": [
            u64::MAX, i64::MIN, 0.1, -0.0, 5e-324, f64::MAX, 1.0,
            0.000_123_456_789_012_345_68, 7.120_190_685_760_811e-43, 1.090_544_144_178_112_7e-21
        ]});
        let record = sample(config);
        for bytes in [record.encode().unwrap(), record.document().unwrap()] {
            assert_eq!(Record::decode(&bytes, "test").unwrap(), record);
        }
    }

    #[test]
    fn what_could_not_be_read_back_is_not_written() {
        let mut deep = json!(1);
        for _ in 0..200 {
            deep = json!([deep]);
        }
        let record = sample(json!({ "deep": deep }));
        for refused in [record.encode(), record.document()] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("record `a`"), "{error}");
        }
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let mut record = sample(json!({}));
        record.tidegate.format = FORMAT + 1;
        let wrapped = frame::wrap(Kind::Record, |writer| typed::write(&record, writer));
        for bytes in [frame::close(&record).unwrap(), wrapped] {
            let error = Record::decode(&bytes, "test").unwrap_err();
            assert!(matches!(error, StoreError::Newer { .. }), "{error:?}");
        }
        for written in [record.encode(), record.document()] {
            assert!(
                written.is_err(),
                "an older version never writes a newer format"
            );
        }
    }
}
