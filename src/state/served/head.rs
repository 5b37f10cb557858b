//! The one object per environment that every write goes through: head, lock, and what is under way.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::random::{Random, hex_of};
use crate::state::own::{FORMAT, Key, parse_own};
use crate::state::{Head, Holder, Lease, StoreError, StoreResult, frame};

use super::Object;
use super::census::{Census, Tally, kind_of};

/// Head, lock and journal bounds of one environment. Has no `Debug`: a key may be in it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct HeadFile {
    pub(super) format: u64,
    pub(super) environment: String,
    pub(super) lineage: String,
    pub(super) serial: u64,
    pub(super) fence: u64,
    /// Where this environment's objects are. Changes when the whole state is replaced, and is
    /// never used again: a write that comes too late lands where nobody looks.
    pub(super) room: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) held: Option<Held>,
    /// The last write that was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<Pending>,
    /// First number of the journal.
    pub(super) journal_start: u64,
    /// One past its last number.
    pub(super) journal_end: u64,
    /// What must be there beside the pending write; absent in heads of older programs, which count
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) census: Option<Census>,
    /// Rooms that are no state, not yet or not any more, and have to go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rubbish: Vec<String>,
    /// True while everything is being removed.
    #[serde(default)]
    pub(super) is_leaving: bool,
    /// The state key, when it is kept here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    #[serde(default)]
    pub(super) key_check: String,
}

/// Who holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) holder: Holder,
    pub(super) lease_ms: u64,
}

/// A write that was begun: this object gets, or has, this version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) id: String,
    pub(super) version: String,
}

impl HeadFile {
    pub(super) fn new(environment: &str, random: &dyn Random) -> Self {
        Self {
            format: FORMAT,
            environment: environment.to_owned(),
            lineage: hex_of::<16>(random),
            serial: 0,
            fence: 0,
            room: hex_of::<8>(random),
            held: None,
            pending: None,
            journal_start: 0,
            journal_end: 0,
            census: Some(Census::default()),
            rubbish: Vec::new(),
            is_leaving: false,
            key: None,
            key_check: String::new(),
        }
    }

    pub(super) fn encode(&self) -> StoreResult<String> {
        frame::close(self)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()))
            .map_err(|reason| StoreError::Storage(format!("cannot write the head: {reason}")))
    }

    pub(super) fn decode(text: &str, environment: &str) -> StoreResult<Self> {
        let what = format!("the head of environment `{environment}`");
        let head: Self = parse_own(text.as_bytes(), &what)?;
        if head.environment != environment {
            return Err(StoreError::Corrupt {
                what,
                reason: format!("it is the head of `{}`", head.environment),
            });
        }
        Ok(head)
    }

    pub(super) fn public(&self) -> Head {
        Head {
            lineage: self.lineage.clone(),
            serial: self.serial,
            fence: self.fence,
        }
    }

    /// What must be there of a kind, and the write of that kind that is pending; `None` when nothing
    /// is counted.
    pub(super) fn expects(&self, kind: &str) -> Option<(Tally, Option<&Pending>)> {
        let tally = self.census.as_ref()?.tally(kind)?;
        let pending = self.pending.as_ref();
        Some((tally, pending.filter(|one| kind_of(&one.id) == kind)))
    }

    /// What was counted and what is there, when the two differ.
    pub(super) fn missing(&self, kind: &str, objects: &[Object]) -> Option<(Tally, Tally)> {
        let (counted, pending) = self.expects(kind)?;
        let found = Tally::of(
            objects
                .iter()
                .filter(|object| pending.is_none_or(|pending| pending.id != object.id)),
        );
        (found != counted).then_some((counted, found))
    }

    /// The pending write is over, and left `object`.
    pub(super) fn settled(&mut self, object: Option<&Object>) {
        self.pending = None;
        if let (Some(census), Some(object)) = (&mut self.census, object) {
            census.add(object);
        }
    }

    pub(super) fn is_held_by(&self, lease: &Lease) -> bool {
        self.fence == lease.fence
            && self
                .held
                .as_ref()
                .is_some_and(|held| held.holder.run_id == lease.holder.run_id)
    }

    /// The key that is kept here.
    pub(super) fn own_key(&self) -> StoreResult<Option<Key>> {
        let Some(text) = &self.key else {
            return Ok(None);
        };
        let mut key = Key::default();
        let digits = text.as_bytes();
        let mut pairs = digits.chunks_exact(2);
        let is_whole = digits.len() == 2 * key.len()
            && key.iter_mut().zip(&mut pairs).all(|(byte, pair)| {
                std::str::from_utf8(pair)
                    .ok()
                    .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                    .map(|value| *byte = value)
                    .is_some()
            });
        if is_whole {
            Ok(Some(key))
        } else {
            Err(StoreError::Corrupt {
                what: format!("the state key of environment `{}`", self.environment),
                reason: "it is not 64 hexadecimal digits".to_owned(),
            })
        }
    }
}

impl Held {
    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}
