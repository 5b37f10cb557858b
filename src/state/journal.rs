//! The intent journal: what was about to happen, and what came of it; and the form of its file.
//! Pure.
//!
//! One JSON object a line: `{"n":…,"c":"…","f":…,"e":[…]}`, with the fence as `f` and the entry as
//! `e`. `n` counts the bytes after the comma behind `c` up to the line's end, and `c`, the first
//! eight bytes of their SHA-256, covers them. So a line that was cut off while it was appended (no
//! line end, and shorter than it says) is told apart from one that was damaged later. Lines of
//! format 1 say the same at greater length.
//!
//! A line is written before and after every action, so each byte of it counts.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::random::encode_hex;
use crate::resource::{ActionKind, Address, Kind};

/// What was at the provider under a name before something was made there: it is somebody else's.
///
/// Written as a text for one id, and as a list otherwise, with a null when it could not be seen whether
/// there was more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Value", into = "Value")]
pub struct Before {
    /// Ids.
    pub ids: Vec<String>,
    /// There may have been more: its provider did not say.
    pub is_unsure: bool,
}

impl Before {
    /// True when nothing was there, for all that was asked.
    pub fn is_nothing(&self) -> bool {
        self.ids.is_empty() && !self.is_unsure
    }
}

impl From<Value> for Before {
    fn from(value: Value) -> Self {
        let items = match value {
            Value::Array(items) => items,
            other => vec![other],
        };
        let is_unsure = items.iter().any(Value::is_null);
        let ids = items.into_iter().filter_map(|item| match item {
            Value::String(id) if !id.is_empty() => Some(id),
            _ => None,
        });
        Self {
            ids: ids.collect(),
            is_unsure,
        }
    }
}

impl From<Before> for Value {
    fn from(before: Before) -> Self {
        let mut items: Vec<Self> = before.ids.into_iter().map(Self::String).collect();
        if before.is_unsure {
            items.push(Self::Null);
        }
        match items.as_slice() {
            [Self::String(id)] => Self::String(id.clone()),
            _ => Self::Array(items),
        }
    }
}

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
        /// What was at the provider under that name before.
        #[serde(default, skip_serializing_if = "Before::is_nothing")]
        before: Before,
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

/// True when the run that wrote this operation's intent came to its end, and said that nobody knows
/// what came of it.
pub fn was_told(entries: &[Entry], operation: &str) -> bool {
    let after = entries.iter().skip_while(
        |entry| !matches!(entry, Entry::Intent { operation: one, .. } if one == operation),
    );
    after
        .skip(1)
        .take_while(|entry| !matches!(entry, Entry::Begin { .. }))
        .any(|entry| matches!(entry, Entry::End { .. }))
}

/// A journal as read.
#[derive(Debug, Default, PartialEq)]
pub struct Journal {
    /// Its entries, oldest first.
    pub entries: Vec<Entry>,
    /// The last count of changes that was noted; 0 for none.
    pub serial: u64,
    /// Bytes up to the end of the last whole line.
    pub good_bytes: usize,
    /// Bytes of a torn last line after that; they were never acknowledged.
    pub torn_bytes: usize,
}

/// How a line is put around its body.
struct Form {
    before_length: &'static [u8],
    before_checksum: &'static [u8],
    /// Hexadecimal digits of the checksum.
    digits: usize,
}

const AFTER_CHECKSUM: &[u8] = b"\",";

const NOW: Form = Form {
    before_length: b"{\"n\":",
    before_checksum: b",\"c\":\"",
    digits: 16,
};

/// Format 1.
const OF_OLD: Form = Form {
    before_length: b"{\"length\":",
    before_checksum: b",\"sha256\":\"",
    digits: 64,
};

/// What a line holds in place of an entry when it counts the changes of records: the state's serial
/// right after it. Not an entry, since nothing follows from it but the number.
const SERIAL: &str = "serial";
/// How the entry of such a line starts.
const SERIAL_START: &str = "\"e\":[\"serial\",";

/// Appends one line to `out`.
///
/// # Errors
/// When the entry cannot be put in JSON, which no entry we make can cause.
pub fn write_line(out: &mut String, fence: u64, entry: &Entry) -> Result<(), serde_json::Error> {
    let parts = match entry {
        Entry::Begin { run_id, fence, at } => json!(["begin", run_id, fence, at]),
        Entry::Intent {
            operation,
            address,
            kind,
            provider,
            action,
            config_hash,
            at,
            before,
        } => {
            let mut parts = json!([
                "intent",
                operation,
                address,
                kind,
                provider,
                serde_json::to_value(action)?,
                config_hash,
                at
            ]);
            if let Value::Array(parts) = &mut parts
                && !before.is_nothing()
            {
                parts.push(before.clone().into());
            }
            parts
        }
        Entry::Outcome { operation, outcome } => json!(["outcome", operation, outcome]),
        Entry::End { run_id } => json!(["end", run_id]),
    };
    write_parts(out, fence, &parts);
    Ok(())
}

/// Appends a line that says: from here on this is the serial.
pub(super) fn write_serial(out: &mut String, fence: u64, serial: u64) {
    write_parts(out, fence, &json!([SERIAL, serial]));
}

fn write_parts(out: &mut String, fence: u64, parts: &Value) {
    let body = format!("\"f\":{fence},\"e\":{parts}}}");
    out.push_str(&format!(
        "{{\"n\":{},\"c\":\"{}\",{body}\n",
        body.len(),
        checksum(body.as_bytes(), NOW.digits)
    ));
}

/// What a line says.
enum Said {
    Entry(Entry),
    Serial(u64),
}

/// Reads a journal file. A torn last line is left out; anything else that is not as it was written
/// is an error, given as a reason in words.
pub fn parse(bytes: &[u8]) -> Result<Journal, String> {
    let mut journal = Journal::default();
    let mut last_fence = 0;
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
        if !split(text).is_some_and(|framed| framed.is_whole()) {
            return Err(damaged());
        }
        let (fence, said) = understand(text)
            .map_err(|error| format!("line {number} is whole but not understood: {error}"))?;
        if fence < last_fence {
            return Err(format!(
                "line {number} was written under fence {fence}, after fence {last_fence}"
            ));
        }
        last_fence = fence;
        match said {
            Said::Entry(entry) => journal.entries.push(entry),
            Said::Serial(serial) => journal.serial = serial,
        }
        journal.good_bytes += line.len();
    }
    Ok(journal)
}

/// The greatest serial that a whole line of the journal notes. Other lines are not looked at: how
/// far the state has come is known even when what else the journal says is damaged.
pub(super) fn last_serial(bytes: &[u8]) -> u64 {
    let mut last = 0;
    for line in bytes.split(|byte| *byte == b'\n') {
        // Most lines are told apart by their front, without a checksum over them.
        let Some(framed) = split(line) else { continue };
        let front = &framed.body[..framed.body.len().min(40)];
        let is_count = front
            .windows(SERIAL_START.len())
            .any(|window| window == SERIAL_START.as_bytes());
        if is_count
            && framed.is_whole()
            && let Ok((_, Said::Serial(serial))) = understand(line)
        {
            last = last.max(serial);
        }
    }
    last
}

/// Fence and content of a whole line.
fn understand(line: &[u8]) -> Result<(u64, Said), String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let fence = |member: &str| value[member].as_u64().ok_or("it names no fence");
    if let Some(entry) = value.get("entry") {
        let entry = Entry::deserialize(entry).map_err(|error| error.to_string())?;
        return Ok((fence("fence")?, Said::Entry(entry)));
    }
    let parts = value["e"].as_array();
    let said = parts
        .and_then(|parts| said(parts))
        .ok_or("it says what this version does not know")?;
    Ok((fence("f")?, said))
}

fn said(parts: &[Value]) -> Option<Said> {
    let text = |index: usize| Some(parts.get(index)?.as_str()?.to_owned());
    let number = |index: usize| parts.get(index)?.as_u64();
    let (entry, length) = match parts.first()?.as_str()? {
        SERIAL => return (parts.len() == 2).then_some(Said::Serial(number(1)?)),
        "begin" => (
            Entry::Begin {
                run_id: text(1)?,
                fence: number(2)?,
                at: text(3)?,
            },
            4,
        ),
        "intent" => (
            Entry::Intent {
                operation: text(1)?,
                address: Address::new(text(2)?),
                kind: Kind::new(text(3)?),
                provider: text(4)?,
                action: ActionKind::deserialize(parts.get(5)?).ok()?,
                config_hash: text(6)?,
                at: text(7)?,
                before: parts.get(8).cloned().map(Before::from).unwrap_or_default(),
            },
            if parts.len() == 9 { 9 } else { 8 },
        ),
        "outcome" => (
            Entry::Outcome {
                operation: text(1)?,
                outcome: text(2)?,
            },
            3,
        ),
        "end" => (Entry::End { run_id: text(1)? }, 2),
        _ => return None,
    };
    (parts.len() == length).then_some(Said::Entry(entry))
}

/// A line whose front is complete.
struct Framed<'l> {
    length: usize,
    checksum: &'l [u8],
    body: &'l [u8],
}

impl Framed<'_> {
    /// Is the body there, and as it was?
    fn is_whole(&self) -> bool {
        self.body.len() == self.length
            && checksum(self.body, self.checksum.len()).as_bytes() == self.checksum
    }
}

fn split(line: &[u8]) -> Option<Framed<'_>> {
    [NOW, OF_OLD].iter().find_map(|form| {
        let rest = line.strip_prefix(form.before_length)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (length, rest) = rest.split_at(digits);
        let length = std::str::from_utf8(length).ok()?.parse().ok()?;
        let rest = rest.strip_prefix(form.before_checksum)?;
        let (checksum, rest) = rest.split_at_checked(form.digits)?;
        let body = rest.strip_prefix(AFTER_CHECKSUM)?;
        Some(Framed {
            length,
            checksum,
            body,
        })
    })
}

/// The first digits of the checksum.
fn checksum(body: &[u8], digits: usize) -> String {
    encode_hex(&Sha256::digest(body)[..digits / 2])
}

/// Is this (without a line end) what a crash leaves of a line? It is then shorter than it says,
/// and what a file system made of bytes that never arrived is zeros at its end.
fn is_torn(line: &[u8]) -> bool {
    let zeros = line.iter().rev().take_while(|byte| **byte == 0).count();
    let arrived = &line[..line.len() - zeros];
    match split(arrived) {
        // Complete but for its line end, which was never acknowledged either.
        Some(framed) => framed.body.len() < framed.length || framed.is_whole(),
        None => [NOW, OF_OLD].iter().any(|form| is_front(arrived, form)),
    }
}

/// Is this the beginning of a line whose body has not started yet?
fn is_front(text: &[u8], form: &Form) -> bool {
    let agrees = |expected: &[u8], text: &[u8]| {
        let shared = expected.len().min(text.len());
        expected[..shared] == text[..shared]
    };
    let Some(rest) = text.strip_prefix(form.before_length) else {
        return agrees(form.before_length, text);
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = &rest[digits..];
    let Some(rest) = rest.strip_prefix(form.before_checksum) else {
        return agrees(form.before_checksum, rest);
    };
    match rest.split_at_checked(form.digits) {
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
                before: Before {
                    ids: vec!["theirs".to_owned()],
                    is_unsure: false,
                },
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

    /// As format 1 had it.
    fn text_of_old(entries: &[Entry]) -> Vec<u8> {
        let line = |entry: &Entry| {
            let entry = serde_json::to_string(entry).unwrap();
            let body = format!("\"fence\":3,\"entry\":{entry}}}");
            let sum = checksum(body.as_bytes(), 64);
            format!("{{\"length\":{},\"sha256\":\"{sum}\",{body}\n", body.len())
        };
        entries.iter().map(line).collect::<String>().into_bytes()
    }

    #[test]
    fn lines_of_both_formats_stand_in_one_file() {
        let mut bytes = text_of_old(&sample());
        let mut counted = String::new();
        write_serial(&mut counted, 3, 41);
        bytes.extend(counted.bytes());
        bytes.extend(text(&sample()));
        let journal = parse(&bytes).unwrap();
        assert_eq!(journal.entries, [sample(), sample()].concat());
        assert_eq!((journal.serial, journal.good_bytes), (41, bytes.len()));
        assert_eq!(last_serial(&bytes), 41);
        // The count is known whatever happened to other lines.
        bytes[40] ^= 1;
        assert!(parse(&bytes).is_err());
        assert_eq!(last_serial(&bytes), 41);
    }

    #[test]
    fn a_line_of_a_later_version_is_not_skipped() {
        let mut line = String::new();
        write_parts(&mut line, 3, &json!(["later", 1]));
        let reason = parse(line.as_bytes()).unwrap_err();
        assert!(reason.contains("this version does not know"), "{reason}");
        let mut line = String::new();
        write_parts(&mut line, 3, &json!(["end", "r", "more"]));
        assert!(parse(line.as_bytes()).is_err());
    }

    #[test]
    fn every_cut_gives_the_whole_lines_before_it() {
        let entries = sample();
        for bytes in [text(&entries), text_of_old(&entries)] {
            cut_everywhere(&entries, &bytes);
        }
    }

    fn cut_everywhere(entries: &[Entry], bytes: &[u8]) {
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
        let mut bytes = text(&sample());
        let mut counted = String::new();
        write_serial(&mut counted, 3, 7);
        bytes.extend(counted.bytes());
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
