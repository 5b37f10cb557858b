//! The intent journal: what was about to happen, and what came of it; and the form of its file.
//! Pure.
//!
//! One JSON object a line: `{"length":…,"sha256":"…","fence":…,"entry":{…}}`. The length counts
//! the bytes after the checksum's comma up to the line's end, and the checksum covers them. So a
//! line that was cut off while it was appended (no line end, and shorter than it says) is told
//! apart from one that was damaged later.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::random::encode_hex;
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
    let settled: HashSet<&str> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Outcome { operation, .. } => Some(operation.as_str()),
            Entry::Begin { .. } | Entry::Intent { .. } | Entry::End { .. } => None,
        })
        .collect();
    entries
        .iter()
        .filter(|entry| match entry {
            Entry::Intent { operation, .. } => !settled.contains(operation.as_str()),
            Entry::Begin { .. } | Entry::Outcome { .. } | Entry::End { .. } => false,
        })
        .collect()
}

/// A journal as read.
#[derive(Debug, Default, PartialEq)]
pub struct Journal {
    /// Its entries, oldest first.
    pub entries: Vec<Entry>,
    /// Bytes up to the end of the last whole line.
    pub good_bytes: usize,
    /// Bytes of a torn last line after that; they were never acknowledged.
    pub torn_bytes: usize,
}

const BEFORE_LENGTH: &[u8] = b"{\"length\":";
const BEFORE_CHECKSUM: &[u8] = b",\"sha256\":\"";
const AFTER_CHECKSUM: &[u8] = b"\",";
const CHECKSUM_CHARACTERS: usize = 64;

/// Appends one line to `out`.
///
/// # Errors
/// When the entry cannot be put in JSON, which no entry we make can cause.
pub fn write_line(out: &mut String, fence: u64, entry: &Entry) -> Result<(), serde_json::Error> {
    let entry = serde_json::to_string(entry)?;
    let body = format!("\"fence\":{fence},\"entry\":{entry}}}");
    let checksum = encode_hex(&Sha256::digest(body.as_bytes()));
    out.push_str(&format!(
        "{{\"length\":{},\"sha256\":\"{checksum}\",{body}\n",
        body.len()
    ));
    Ok(())
}

/// Reads a journal file. A torn last line is left out; anything else that is not as it was written
/// is an error, given as a reason in words.
pub fn parse(bytes: &[u8]) -> Result<Journal, String> {
    #[derive(Deserialize)]
    struct Line {
        fence: u64,
        entry: Entry,
    }
    let mut journal = Journal::default();
    let mut fence = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let damaged = || format!("line {number} is damaged");
        let Some(text) = line.strip_suffix(b"\n") else {
            if !is_torn(line) {
                return Err(damaged());
            }
            journal.torn_bytes = line.len();
            break;
        };
        let (length, checksum, body) = split(text).ok_or_else(damaged)?;
        if length != body.len() || !is_right(body, checksum) {
            return Err(damaged());
        }
        let line_value: Line = serde_json::from_slice(text)
            .map_err(|error| format!("line {number} is whole but not understood: {error}"))?;
        if line_value.fence < fence {
            return Err(format!(
                "line {number} was written under fence {}, after fence {fence}",
                line_value.fence
            ));
        }
        fence = line_value.fence;
        journal.entries.push(line_value.entry);
        journal.good_bytes += line.len();
    }
    Ok(journal)
}

/// Length, checksum and body of a line, when its front is complete.
fn split(line: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let rest = line.strip_prefix(BEFORE_LENGTH)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (length, rest) = rest.split_at(digits);
    let length = std::str::from_utf8(length).ok()?.parse().ok()?;
    let rest = rest.strip_prefix(BEFORE_CHECKSUM)?;
    let (checksum, rest) = rest.split_at_checked(CHECKSUM_CHARACTERS)?;
    Some((length, checksum, rest.strip_prefix(AFTER_CHECKSUM)?))
}

fn is_right(body: &[u8], checksum: &[u8]) -> bool {
    encode_hex(&Sha256::digest(body)).as_bytes() == checksum
}

/// Is this (without a line end) what a crash leaves of a line? It is then shorter than it says,
/// and what a file system made of bytes that never arrived is zeros at its end.
fn is_torn(line: &[u8]) -> bool {
    let zeros = line.iter().rev().take_while(|byte| **byte == 0).count();
    let arrived = &line[..line.len() - zeros];
    match split(arrived) {
        Some((length, checksum, body)) => {
            // Complete but for its line end, which was never acknowledged either.
            let complete = body.len() == length && is_right(body, checksum);
            body.len() < length || complete
        }
        None => is_front(arrived),
    }
}

/// Is this the beginning of a line whose body has not started yet?
fn is_front(text: &[u8]) -> bool {
    let agrees = |expected: &[u8], text: &[u8]| {
        let shared = expected.len().min(text.len());
        expected[..shared] == text[..shared]
    };
    let Some(rest) = text.strip_prefix(BEFORE_LENGTH) else {
        return agrees(BEFORE_LENGTH, text);
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = &rest[digits..];
    let Some(rest) = rest.strip_prefix(BEFORE_CHECKSUM) else {
        return agrees(BEFORE_CHECKSUM, rest);
    };
    match rest.split_at_checked(CHECKSUM_CHARACTERS) {
        Some((_, rest)) => agrees(AFTER_CHECKSUM, rest),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Entry> {
        vec![
            Entry::Begin {
                run_id: "run-1".to_owned(),
                fence: 3,
                at: "2024-01-02T03:04:05Z".to_owned(),
            },
            Entry::Intent {
                operation: "op-1".to_owned(),
                address: Address::new("a\nb *J*"),
                kind: Kind::new("infra.storage"),
                provider: "here".to_owned(),
                action: ActionKind::Create,
                config_hash: "00".to_owned(),
                at: "2024-01-02T03:04:06Z".to_owned(),
            },
            Entry::Outcome {
                operation: "op-1".to_owned(),
                outcome: "success".to_owned(),
            },
        ]
    }

    fn text(entries: &[Entry]) -> Vec<u8> {
        let mut text = String::new();
        for entry in entries {
            write_line(&mut text, 3, entry).unwrap();
        }
        text.into_bytes()
    }

    #[test]
    fn every_cut_gives_the_whole_lines_before_it() {
        let entries = sample();
        let bytes = text(&entries);
        for cut in 0..=bytes.len() {
            let whole = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
            let journal = parse(&bytes[..cut]).unwrap_or_else(|error| panic!("{cut}: {error}"));
            assert_eq!(journal.entries, entries[..whole], "cut at {cut}");
            assert_eq!(journal.good_bytes + journal.torn_bytes, cut);
            // The same cut when the file had grown already and the rest never arrived.
            if journal.torn_bytes > 0 {
                let mut zeros = bytes[..cut].to_vec();
                zeros.resize(bytes.len() + 7, 0);
                let journal = parse(&zeros).unwrap_or_else(|error| panic!("{cut}: {error}"));
                assert_eq!(journal.entries, entries[..whole], "zeros from {cut}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let bytes = text(&sample());
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[position] ^= 1 << bit;
                assert!(parse(&flipped).is_err(), "byte {position}, bit {bit}");
            }
        }
    }

    #[test]
    fn lines_of_an_overtaken_holder_are_refused() {
        let mut out = String::new();
        for (fence, entry) in [4, 3].into_iter().zip(&sample()) {
            write_line(&mut out, fence, entry).unwrap();
        }
        let reason = parse(out.as_bytes()).unwrap_err();
        assert!(reason.contains("fence 3, after fence 4"), "{reason}");
    }

    #[test]
    fn intents_without_outcome_are_open() {
        let entries = sample();
        assert!(open_intents(&entries).is_empty());
        assert_eq!(open_intents(&entries[..2]), [&entries[1]]);
    }
}
