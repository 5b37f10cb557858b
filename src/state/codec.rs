//! Records at rest: plain, or sealed as a whole. Which of the two stored bytes are is seen from the
//! bytes, so a store may hold both, and switching encryption on or off needs no migration.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::random::Random;
use crate::resource::Address;
use crate::secret::Keyring;
use crate::secret::keyring::SealedValueError;

use super::frame::{self, Kind};
use super::record::{Record, corrupt, place, refused};
use super::{StoreError, StoreResult};

/// Newest format of a sealed record in JSON; none is written any more.
const SEALED_FORMAT: u64 = 1;
const SEALED_MEMBER: &str = "tidegate_sealed";
/// How every sealed record in JSON starts; a plain one never does, its first member is
/// `resource_id`.
const SEALED_START: &[u8] = b"{\n  \"tidegate_sealed\"";

/// How one environment's records are written and read.
#[derive(Clone)]
pub(super) struct Codec {
    environment: String,
    keyring: Option<Arc<Keyring>>,
    random: Arc<dyn Random>,
    seals: bool,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec")
            .field("environment", &self.environment)
            .field("seals", &self.seals)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct SealedJson {
    /// Whose record it is; bound to the content.
    resource_id: Address,
    content: String,
}

impl Codec {
    /// Writes plain records and reads plain ones.
    pub(super) fn plain(environment: &str, random: Arc<dyn Random>) -> Self {
        Self {
            environment: environment.to_owned(),
            keyring: None,
            random,
            seals: false,
        }
    }

    /// Reads sealed records too, and writes them if `seals`.
    pub(super) fn with_key(mut self, key: &[u8; 32], seals: bool) -> Self {
        self.keyring = Some(Arc::new(Keyring::new(key)));
        self.seals = seals;
        self
    }

    /// As another environment's records are written and read.
    pub(super) fn like(mut self, other: &Self) -> Self {
        self.keyring.clone_from(&other.keyring);
        self.seals = other.seals;
        self
    }

    fn document_place(&self, name: &str) -> String {
        format!("{}/{name}", self.environment)
    }

    /// A whole document as it is stored: sealed if records are.
    pub(super) fn encode_document(&self, name: &str, plain: Vec<u8>) -> Vec<u8> {
        match self.keyring.as_ref().filter(|_| self.seals) {
            Some(keyring) => keyring
                .seal_bytes(&*self.random, &self.document_place(name), &plain)
                .into_bytes(),
            None => plain,
        }
    }

    /// The document in stored bytes. In the clear it starts with a brace, which a sealed one never does.
    pub(super) fn decode_document(
        &self,
        name: &str,
        bytes: Vec<u8>,
        what: &dyn fmt::Display,
    ) -> StoreResult<Zeroizing<Vec<u8>>> {
        if bytes.starts_with(b"{") {
            return Ok(Zeroizing::new(bytes));
        }
        let text = std::str::from_utf8(&bytes).map_err(|error| corrupt(what, error.to_string()))?;
        self.keyring_for(what)?
            .open_bytes(&self.document_place(name), text)
            .map_err(|error| corrupt(what, error.to_string()))
    }

    /// Are these the bytes of this record, as it would be written now?
    pub(super) fn is_written(&self, bytes: &[u8], record: &Record) -> bool {
        let is_sealed =
            frame::is_wrapped(bytes) && matches!(frame::open_wrapped(bytes), Ok((Kind::Sealed, _)));
        is_sealed == self.seals
            && frame::is_wrapped(bytes)
            && self
                .decode(bytes, &"the record")
                .is_ok_and(|standing| standing == *record)
    }

    fn place(&self, address: &Address) -> String {
        place(&self.environment, address, &["record"])
    }

    /// The bytes to store.
    pub(super) fn encode(&self, record: &Record) -> StoreResult<Vec<u8>> {
        let plain = record.encode()?;
        let Some(keyring) = self.keyring.as_ref().filter(|_| self.seals) else {
            return Ok(plain);
        };
        let address = &record.resource_id;
        let sealed = keyring.seal_raw(&*self.random, &self.place(address), &plain);
        Ok(frame::wrap(Kind::Sealed, |writer| {
            writer.array(2);
            writer.text(address.as_str());
            writer.bytes(&sealed);
        }))
    }

    /// The record in stored bytes.
    pub(super) fn decode(&self, bytes: &[u8], what: &dyn fmt::Display) -> StoreResult<Record> {
        if frame::is_wrapped(bytes) {
            let damaged = |reason| corrupt(what, reason);
            return match frame::open_wrapped(bytes).map_err(|why| refused(why, what))? {
                (Kind::Record, reader) => Record::read(reader, what),
                (Kind::Sealed, mut reader) => {
                    if reader.array().map_err(damaged)? != 2 {
                        return Err(corrupt(what, "it is no sealed record"));
                    }
                    let address = Address::new(reader.text().map_err(damaged)?);
                    let sealed = reader.bytes().map_err(damaged)?;
                    self.open(&address, what, |keyring, place| {
                        keyring.open_raw(place, sealed)
                    })
                }
                (Kind::Keepsake, _) => Err(corrupt(what, "it is a keepsake")),
            };
        }
        if bytes.starts_with(SEALED_START) {
            return self.decode_sealed_json(bytes, what);
        }
        Record::decode_of(bytes, what)
    }

    /// A record from a storage that keeps text.
    pub(super) fn decode_text(&self, text: &str, what: &dyn fmt::Display) -> StoreResult<Record> {
        let bytes = frame::from_text(text).map_err(|reason| corrupt(what, reason))?;
        self.decode(&bytes, what)
    }

    fn open(
        &self,
        address: &Address,
        what: &dyn fmt::Display,
        open: impl FnOnce(&Keyring, &str) -> Result<Zeroizing<Vec<u8>>, SealedValueError>,
    ) -> StoreResult<Record> {
        let plain = open(self.keyring_for(what)?, &self.place(address))
            .map_err(|error| corrupt(what, error.to_string()))?;
        let record = Record::decode_of(&plain, what)?;
        if record.resource_id != *address {
            return Err(corrupt(
                what,
                format!("it is the record of `{}`", record.resource_id),
            ));
        }
        Ok(record)
    }

    /// The key that opens what is sealed.
    fn keyring_for(&self, what: &dyn fmt::Display) -> StoreResult<&Keyring> {
        self.keyring.as_deref().ok_or_else(|| {
            corrupt(
                what,
                "it is encrypted, and no key was given; set TIDEGATE_STATE_KEY, or `key_file` in \
                 the `iac.state` module",
            )
        })
    }

    fn decode_sealed_json(&self, bytes: &[u8], what: &dyn fmt::Display) -> StoreResult<Record> {
        let value = frame::open_own(bytes).map_err(|reason| corrupt(what, reason))?;
        match value.get(SEALED_MEMBER).and_then(serde_json::Value::as_u64) {
            Some(SEALED_FORMAT) => {}
            Some(found) if found > SEALED_FORMAT => {
                return Err(StoreError::Newer {
                    what: what.to_string(),
                    found,
                    known: SEALED_FORMAT,
                });
            }
            _ => return Err(corrupt(what, "it has no known format number")),
        }
        let sealed: SealedJson =
            serde_json::from_value(value).map_err(|error| corrupt(what, error.to_string()))?;
        self.open(&sealed.resource_id, what, |keyring, place| {
            keyring.open_bytes(place, &sealed.content)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::random::SeededRandom;

    fn codec(environment: &str) -> Codec {
        Codec::plain(environment, Arc::new(SeededRandom::new(1)))
    }

    fn sample() -> Record {
        serde_json::from_value(json!({
            "resource_id": "orders-db", "resource_type": "infra.database", "provider": "local",
            "status": "active", "config": {"host": "canary.example.test"},
            "created_at": "", "updated_at": "",
        }))
        .unwrap()
    }

    #[test]
    fn a_sealed_record_opens_with_its_key_in_its_environment_only() {
        let sealing = codec("dev").with_key(&[7; 32], true);
        let bytes = sealing.encode(&sample()).unwrap();
        assert!(matches!(frame::open_wrapped(&bytes), Ok((Kind::Sealed, _))));
        assert!(!String::from_utf8_lossy(&bytes).contains("canary"));
        assert_eq!(sealing.decode(&bytes, &"it").unwrap(), sample());
        // A reader with the key that writes plain records reads it as well.
        let reading = codec("dev").with_key(&[7; 32], false);
        assert_eq!(reading.decode(&bytes, &"it").unwrap(), sample());
        for other in [
            codec("dev"),
            codec("dev").with_key(&[8; 32], true),
            codec("prod").with_key(&[7; 32], true),
        ] {
            let error = other.decode(&bytes, &"it").unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        }
        // Plain records stay readable once encryption is on.
        let plain = codec("dev").encode(&sample()).unwrap();
        assert_eq!(sealing.decode(&plain, &"it").unwrap(), sample());
    }

    #[test]
    fn no_cut_and_no_flipped_bit_of_a_sealed_record_goes_unseen() {
        let sealing = codec("dev").with_key(&[7; 32], true);
        let bytes = sealing.encode(&sample()).unwrap();
        for length in 0..bytes.len() {
            assert!(sealing.decode(&bytes[..length], &"it").is_err(), "{length}");
        }
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1;
            assert!(sealing.decode(&flipped, &"it").is_err(), "{position}");
        }
    }
}
