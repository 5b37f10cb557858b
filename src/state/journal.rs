//! The intent journal: what was about to happen, and what came of it. Pure data.

use serde::{Deserialize, Serialize};

use crate::resource::{ActionKind, Address, Kind};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    /// A run starts.
    Begin {
        /// The run.
        run_id: String,
        /// Its fencing number.
        fence: u64,
        /// RFC 3339.
        at: String,
    },
    /// An effect is about to be asked for. Durable before the provider hears of it.
    Intent {
        /// Operation id; the same for retries of the same effect.
        operation: String,
        /// The resource.
        address: Address,
        /// Its kind.
        kind: Kind,
        /// The provider module that owns it.
        provider: String,
        /// What is about to be done. `Replace` is written as a `Delete` intent and a `Create`
        /// intent, so that a crash between the two is seen for what it is.
        action: ActionKind,
        /// The canonical hash of the desired config; empty for deletes.
        config_hash: String,
        /// RFC 3339.
        at: String,
    },
    /// What came of it; its record is durable already.
    Outcome {
        /// Operation id of the intent.
        operation: String,
        /// `success`, `error`, `delete-failed`.
        outcome: String,
    },
    /// The run ended in an orderly way.
    End {
        /// The run.
        run_id: String,
    },
}

/// Intents without an outcome, oldest first: what a dead run may or may not have done.
pub fn open_intents(entries: &[Entry]) -> Vec<&Entry> {
    entries
        .iter()
        .filter(|entry| match entry {
            Entry::Intent { operation, .. } => !entries.iter().any(
                |other| matches!(other, Entry::Outcome { operation: done, .. } if done == operation),
            ),
            Entry::Begin { .. } | Entry::Outcome { .. } | Entry::End { .. } => false,
        })
        .collect()
}
