//! One environment as a whole: what `pull` writes, `push` reads, and a migration carries. One
//! versioned, checksummed JSON document; what is sealed in it stays sealed. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::random::encode_hex;

use super::frame;
use super::own::{Key, key_check};
use super::record::Record;
use super::{Entry, Head, Keepsake, StoreError, StoreResult};

/// The newest format of the document this version writes.
pub const FORMAT: u64 = 1;

/// Everything one environment's state consists of, but for its lock and its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Format of the document.
    #[serde(rename = "tidegate_state")]
    pub format: u64,
    /// The environment.
    pub environment: String,
    /// Its lineage.
    pub lineage: String,
    /// Its serial.
    pub serial: u64,
    /// Recognises the key that the sealed parts are sealed with; empty when nothing is.
    #[serde(default)]
    pub key_check: String,
    /// Every record, sorted by address.
    pub records: Vec<Record>,
    /// Every keepsake by key.
    #[serde(default)]
    pub keepsakes: BTreeMap<String, Keepsake>,
    /// The journal.
    #[serde(default)]
    pub journal: Vec<Entry>,
}

impl Snapshot {
    /// No records, no keepsakes and no journal, under that head.
    pub fn nothing(environment: &str, head: &Head) -> Self {
        Self {
            format: FORMAT,
            environment: environment.to_owned(),
            lineage: head.lineage.clone(),
            serial: head.serial,
            key_check: String::new(),
            records: Vec::new(),
            keepsakes: BTreeMap::new(),
            journal: Vec::new(),
        }
    }

    /// True when nothing would be lost with it.
    pub fn holds_nothing(&self) -> bool {
        self.records.is_empty() && self.keepsakes.is_empty() && self.journal.is_empty()
    }

    /// The document.
    ///
    /// # Errors
    /// When a record cannot be put in JSON.
    pub fn encode(&self) -> StoreResult<Vec<u8>> {
        frame::close(self)
            .map_err(|reason| StoreError::Storage(format!("cannot write the state: {reason}")))
    }

    /// Reads a document; `what` names it in errors.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for anything that is not a whole document of ours,
    /// [`StoreError::Newer`] for a format this version does not know.
    pub fn decode(bytes: &[u8], what: &str) -> StoreResult<Self> {
        let corrupt = |reason: String| StoreError::Corrupt {
            what: what.to_owned(),
            reason,
        };
        Self::from_document(frame::open_own(bytes).map_err(corrupt)?, what)
    }

    /// The same from an opened document.
    pub(super) fn from_document(value: serde_json::Value, what: &str) -> StoreResult<Self> {
        let corrupt = |reason: String| StoreError::Corrupt {
            what: what.to_owned(),
            reason,
        };
        match value
            .get("tidegate_state")
            .and_then(serde_json::Value::as_u64)
        {
            Some(FORMAT) => {}
            Some(found) if found > FORMAT => {
                return Err(StoreError::Newer {
                    what: what.to_owned(),
                    found,
                    known: FORMAT,
                });
            }
            _ => return Err(corrupt("it is no state document".to_owned())),
        }
        let mut snapshot: Self =
            serde_json::from_value(value).map_err(|error| corrupt(error.to_string()))?;
        for record in &snapshot.records {
            let environment = &record.tidegate.environment;
            if !environment.is_empty() && *environment != snapshot.environment {
                return Err(corrupt(format!(
                    "its record `{}` belongs to environment `{environment}`",
                    record.resource_id
                )));
            }
            if record.tidegate.format > super::record::FORMAT {
                return Err(StoreError::Newer {
                    what: format!("record `{}` in {what}", record.resource_id),
                    found: record.tidegate.format,
                    known: super::record::FORMAT,
                });
            }
        }
        snapshot
            .records
            .sort_by(|left, right| left.resource_id.cmp(&right.resource_id));
        if let Some(twice) = snapshot
            .records
            .windows(2)
            .find(|pair| pair[0].resource_id == pair[1].resource_id)
        {
            return Err(corrupt(format!(
                "it holds the record `{}` twice",
                twice[0].resource_id
            )));
        }
        Ok(snapshot)
    }

    /// May it become the state of `environment`, with `key` as its key? `given` is the key that the
    /// store has from outside.
    pub(super) fn refuse_stranger(
        &self,
        environment: &str,
        key: Option<&[u8; 32]>,
        given: Option<&Key>,
    ) -> StoreResult<()> {
        if self.environment != environment {
            return Err(StoreError::Invalid(format!(
                "the state of environment `{}` cannot become that of `{environment}`",
                self.environment
            )));
        }
        let Some(key) = key else { return Ok(()) };
        if !super::is_key_of(self, key) {
            return Err(StoreError::Invalid(
                "the state is sealed with another key than the one that comes along".to_owned(),
            ));
        }
        match given {
            Some(given) if **given != *key => Err(StoreError::Conflict {
                what: "the state key".to_owned(),
                expected: format!("the key with check value {}", key_check(key)),
                found: format!(
                    "the key with check value {}, given from outside",
                    key_check(given)
                ),
            }),
            _ => Ok(()),
        }
    }

    /// How many sealed values need the state key.
    pub fn sealed_values(&self) -> usize {
        let in_records: usize = self
            .records
            .iter()
            .map(|record| {
                record.tidegate.sealed.len() + usize::from(!record.tidegate.private.is_empty())
            })
            .sum();
        let in_keepsakes = self
            .keepsakes
            .values()
            .filter(|keepsake| keepsake.sealed.is_some())
            .count();
        in_records + in_keepsakes
    }

    /// A digest of all content: equal for two stores that hold the same state, wherever they are.
    ///
    /// # Errors
    /// When a record cannot be put in JSON.
    pub fn digest(&self) -> StoreResult<String> {
        #[derive(Serialize)]
        struct Content<'a> {
            environment: &'a str,
            records: &'a [Record],
            keepsakes: &'a BTreeMap<String, Keepsake>,
            journal: &'a [Entry],
        }
        let text = serde_json::to_vec(&Content {
            environment: &self.environment,
            records: &self.records,
            keepsakes: &self.keepsakes,
            journal: &self.journal,
        })
        .map_err(|error| StoreError::Storage(format!("cannot digest the state: {error}")))?;
        Ok(encode_hex(&Sha256::digest(text)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Snapshot {
        serde_json::from_value(json!({
            "tidegate_state": 1, "environment": "dev", "lineage": "l", "serial": 3,
            "records": [{
                "resource_id": "a", "resource_type": "infra.dns", "provider": "local",
                "status": "active", "created_at": "", "updated_at": "", "theirs": [1],
                "tidegate": {"format": 1, "environment": "dev", "version": 2},
            }],
            "keepsakes": {"secret/x": {"fingerprint": "f", "sealed": "AAAA", "written_at": "t"}},
            "journal": [{"entry": "end", "run_id": "r"}],
        }))
        .unwrap()
    }

    #[test]
    fn a_document_comes_back_whole_or_not_at_all() {
        let bytes = sample().encode().unwrap();
        let back = Snapshot::decode(&bytes, "it").unwrap();
        assert_eq!(back, sample());
        assert_eq!(back.digest().unwrap(), sample().digest().unwrap());
        assert_eq!(back.sealed_values(), 1);
        for position in 0..bytes.len() {
            assert!(Snapshot::decode(&bytes[..position], "it").is_err());
            let mut flipped = bytes.clone();
            flipped[position] ^= 4;
            assert!(Snapshot::decode(&flipped, "it").is_err(), "{position}");
        }
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let mut foreign = sample();
        foreign.records[0].tidegate.environment = "prod".to_owned();
        let mut twice = sample();
        twice.records.push(twice.records[0].clone());
        let mut newer = sample();
        newer.format = FORMAT + 1;
        for bad in [foreign, twice, newer] {
            assert!(Snapshot::decode(&bad.encode().unwrap(), "it").is_err());
        }
    }

    #[test]
    fn the_digest_covers_content_and_not_the_count_of_writes() {
        let mut other = sample();
        other.serial = 99;
        assert_eq!(other.digest().unwrap(), sample().digest().unwrap());
        other.keepsakes.clear();
        assert_ne!(other.digest().unwrap(), sample().digest().unwrap());
    }
}
