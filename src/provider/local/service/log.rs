//! A service's log file: what the service writes, without the secrets it was given, in two files
//! of bounded size.

use std::path::{Path, PathBuf};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::disk::{Disk, DiskResult, EntryKind};
use crate::provider::local::folder::FILE_MODE;
use crate::random::encode_hex;
use crate::secret::Secret;

/// The log of now.
pub(super) const LOG: &str = "service.log";
/// The log before it.
pub(super) const LOG_BEFORE: &str = "service.log.1";
/// Size at which a log becomes the one before.
pub(super) const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// Secrets shorter than this are not looked for: replacing every `1` would destroy the log.
const SECRET_BYTES_MIN: usize = 4;

const STARS: &[u8] = b"***";

/// Takes secrets out of a stream, however it is cut into chunks.
pub trait LogFilter: Send {
    /// Filters the next chunk. What could be the beginning of a secret is held back.
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>);
    /// The stream has ended: gives out what was held back.
    fn finish(&mut self, out: &mut Vec<u8>);
}

/// Replaces given values, and the encodings a program is likely to write them in, by `***`.
pub struct SecretFilter {
    finder: Option<AhoCorasick>,
    /// All patterns, sorted, to recognise the beginning of one.
    patterns: std::sync::Arc<Vec<Vec<u8>>>,
    longest: usize,
    held: Vec<u8>,
    /// How many of the held bytes were replaced already.
    covered: usize,
}

impl SecretFilter {
    /// A filter for these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut patterns = Vec::new();
        for secret in secrets {
            forms(secret.expose(), &mut patterns);
        }
        patterns.sort_unstable();
        patterns.dedup();
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(&patterns)
            .ok()
            .filter(|_| !patterns.is_empty());
        Self {
            finder,
            longest: patterns.iter().map(Vec::len).max().unwrap_or(0),
            patterns: std::sync::Arc::new(patterns),
            held: Vec::new(),
            covered: 0,
        }
    }

    /// Same secrets, other stream.
    pub fn fresh(&self) -> Self {
        Self {
            finder: self.finder.clone(),
            patterns: std::sync::Arc::clone(&self.patterns),
            longest: self.longest,
            held: Vec::new(),
            covered: 0,
        }
    }

    /// Where the part of `held` begins that could still grow into a pattern.
    fn open_end(&self) -> usize {
        let first = self
            .held
            .len()
            .saturating_sub(self.longest.saturating_sub(1));
        (first..self.held.len())
            .find(|&start| {
                let end = &self.held[start..];
                let at = self
                    .patterns
                    .partition_point(|pattern| pattern.as_slice() < end);
                self.patterns
                    .get(at)
                    .is_some_and(|pattern| pattern.len() > end.len() && pattern.starts_with(end))
                    // An equal pattern sorts first; a longer one may follow it.
                    || self.patterns.get(at + 1).is_some_and(|pattern| {
                        pattern.len() > end.len() && pattern.starts_with(end)
                    })
            })
            .unwrap_or(self.held.len())
    }

    fn release(&mut self, until: usize, out: &mut Vec<u8>) {
        let Some(finder) = &self.finder else {
            out.extend_from_slice(&self.held);
            self.held.clear();
            return;
        };
        // Overlapping hits are merged: of two secrets that share bytes, no end may show.
        let mut ranges: Vec<(usize, usize)> = finder
            .find_overlapping_iter(&self.held)
            .map(|hit| (hit.start(), hit.end()))
            .collect();
        if self.covered > 0 {
            ranges.push((0, self.covered));
        }
        ranges.sort_unstable();
        let mut merged: Vec<(usize, usize)> = Vec::new();
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if start < last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        let mut at = 0;
        let mut covered = 0;
        for (start, end) in merged {
            if start >= until {
                break;
            }
            out.extend_from_slice(&self.held[at..start]);
            if !(start == 0 && self.covered > 0) {
                out.extend_from_slice(STARS);
            }
            at = end.min(until);
            covered = end.saturating_sub(until);
        }
        out.extend_from_slice(&self.held[at..until]);
        self.covered = covered.max(self.covered.saturating_sub(until));
        self.held.drain(..until);
    }
}

impl LogFilter for SecretFilter {
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(chunk);
        let until = self.open_end();
        self.release(until, out);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let until = self.held.len();
        self.release(until, out);
        self.covered = 0;
    }
}

/// The forms of one secret worth looking for.
fn forms(secret: &str, patterns: &mut Vec<Vec<u8>>) {
    let mut values = vec![secret.to_owned()];
    values.extend(secret.lines().map(|line| line.trim().to_owned()));
    // The password inside a connection URL is a secret of its own.
    if let Some((_, rest)) = secret.split_once("://")
        && let Some((credentials, _)) = rest.rsplit_once('@')
        && let Some((_, password)) = credentials.split_once(':')
    {
        values.push(password.to_owned());
        values.push(
            percent_decode_str(password)
                .decode_utf8_lossy()
                .into_owned(),
        );
    }
    for value in values {
        if value.len() < SECRET_BYTES_MIN {
            continue;
        }
        let bytes = value.as_bytes();
        let hex = encode_hex(bytes);
        patterns.push(hex.to_ascii_uppercase().into_bytes());
        patterns.push(hex.into_bytes());
        let percent = utf8_percent_encode(&value, NON_ALPHANUMERIC).to_string();
        patterns.push(lower_escapes(&percent).into_bytes());
        patterns.push(percent.into_bytes());
        if let Ok(json) = serde_json::to_string(&value) {
            patterns.push(json.as_bytes()[1..json.len() - 1].to_vec());
        }
        // Base64 of the value anywhere inside a longer text: three shifts, without the characters
        // at either end that depend on neighbours.
        for shift in 0..3_usize {
            let mut shifted = vec![0_u8; shift];
            shifted.extend_from_slice(bytes);
            let first = [0, 2, 3][shift];
            let last = shifted.len() * 8 / 6;
            for text in [
                STANDARD_NO_PAD.encode(&shifted),
                URL_SAFE_NO_PAD.encode(&shifted),
            ] {
                if last > first + 4 {
                    patterns.push(text.as_bytes()[first..last].to_vec());
                }
            }
        }
        patterns.push(value.into_bytes());
    }
    patterns.retain(|pattern| pattern.len() >= SECRET_BYTES_MIN);
}

/// `%2F` as `%2f`.
fn lower_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lower = 0;
    for letter in text.chars() {
        if letter == '%' {
            lower = 3;
        }
        out.push(if lower > 0 {
            letter.to_ascii_lowercase()
        } else {
            letter
        });
        lower = i32::max(lower - 1, 0);
    }
    out
}

/// Appends to a log of bounded size.
#[derive(Debug)]
pub(super) struct LogFile {
    folder: PathBuf,
    bytes: u64,
}

impl LogFile {
    /// The log in a service's folder, continued.
    pub(super) fn open(disk: &dyn Disk, folder: &Path) -> Self {
        let bytes = match disk.entry(&folder.join(LOG)) {
            Ok(Some(EntryKind::File { bytes })) => bytes,
            _ => 0,
        };
        Self {
            folder: folder.to_path_buf(),
            bytes,
        }
    }

    /// Appends filtered bytes.
    pub(super) fn append(&mut self, disk: &dyn Disk, bytes: &[u8]) -> DiskResult<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let path = self.folder.join(LOG);
        if self.bytes > 0 && self.bytes + bytes.len() as u64 > LOG_BYTES_MAX {
            disk.rename(&path, &self.folder.join(LOG_BEFORE))?;
            self.bytes = 0;
        }
        disk.append(&path, bytes, FILE_MODE, false)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// The last lines of a log after its last `start` line, made harmless: no control characters, each
/// line behind a bar and cut, all of it short.
pub(super) fn tail(log: &[u8], start: &str) -> String {
    const LINES: usize = 12;
    const CHARACTERS: usize = 160;
    let text = String::from_utf8_lossy(log);
    let since = text
        .rfind(start)
        .map_or(&*text, |at| &text[at + start.len()..]);
    let lines: Vec<&str> = since
        .split(['\n', '\r'])
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(LINES)..]
        .iter()
        .map(|line| {
            let line: String = line
                .chars()
                .map(|letter| if letter.is_control() { ' ' } else { letter })
                .take(CHARACTERS)
                .collect();
            format!("\n  | {line}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SystemDisk;
    use crate::secret::Masker;

    fn filtered(secrets: &[&str], text: &[u8], chunk: usize) -> String {
        let masker = Masker::default();
        let secrets: Vec<Secret> = secrets
            .iter()
            .map(|text| masker.admit("test", (*text).to_owned()))
            .collect();
        let mut filter = SecretFilter::new(&secrets);
        let mut out = Vec::new();
        for chunk in text.chunks(chunk) {
            filter.push(chunk, &mut out);
        }
        filter.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn secrets_go_whatever_the_chunks() {
        for (secrets, text, expected) in [
            (&["hunter22"][..], "a hunter22 b hunter2", "a *** b hunter2"),
            (&["abc1", "abc1def"], "abc1def abc1de abc1", "*** ***de ***"),
            (&["aaaab", "abaaaa"], "xaaaabaaaay", "x***y"),
            (&["aaaa"], "aaaaaaa b", "*** b"),
            (&["abcd"], "abcdabcd", "******"),
            (&[], "nothing to hide", "nothing to hide"),
            (&["p%/q"], "p%2F p%25%2Fq p%25%2fq", "p%2F *** ***"),
            (
                &["hunter22"],
                "68756e7465723232 68756E7465723232",
                "*** ***",
            ),
            (&["line one\nline two"], "line two, line one", "***, ***"),
            (&["quo\"te"], r#"{"x":"quo\"te"}"#, r#"{"x":"***"}"#),
            (
                &["postgresql://u:pa%2Fss@h/d"],
                "pa/ss pa%2Fss u",
                "*** *** u",
            ),
            (&["ab"], "ab", "ab"),
        ] {
            for chunk in 1..=text.len() {
                assert_eq!(
                    filtered(secrets, text.as_bytes(), chunk),
                    expected,
                    "chunks of {chunk}"
                );
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_secret_survives_in_base64_at_any_offset(
            before in proptest::collection::vec(proptest::num::u8::ANY, 0..7),
            after in proptest::collection::vec(proptest::num::u8::ANY, 0..7),
            chunk in 1_usize..40,
        ) {
            let secret = "correct-horse-battery";
            let mut whole = before.clone();
            whole.extend_from_slice(secret.as_bytes());
            whole.extend_from_slice(&after);
            let encoded = STANDARD_NO_PAD.encode(&whole);
            let out = filtered(&[secret], encoded.as_bytes(), chunk);
            assert!(out.contains("***"), "{out}");
            // At most the characters shared with a neighbour stay at either end.
            assert!(out.len() <= encoded.len() - 26 + 3, "{out}");
        }

        #[test]
        fn chunking_never_changes_the_result(
            text in "[ab]{0,60}",
            first in "[ab]{4,6}",
            second in "[ab]{4,9}",
            chunk in 1_usize..20,
        ) {
            let whole = filtered(&[&first, &second], text.as_bytes(), text.len().max(1));
            assert_eq!(filtered(&[&first, &second], text.as_bytes(), chunk), whole);
            assert!(!whole.contains(&first) && !whole.contains(&second));
        }
    }

    #[test]
    fn the_log_is_two_bounded_files() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk;
        let mut log = LogFile::open(&disk, folder.path());
        let line = vec![b'x'; 1024 * 1024];
        for _ in 0..25 {
            log.append(&disk, &line).unwrap();
        }
        let size = |name: &str| match disk.entry(&folder.path().join(name)).unwrap() {
            Some(EntryKind::File { bytes }) => bytes,
            _ => 0,
        };
        assert_eq!(size(LOG), 5 * 1024 * 1024);
        assert_eq!(size(LOG_BEFORE), LOG_BYTES_MAX);
        assert_eq!(disk.list(folder.path()).unwrap().len(), 2);
        assert_eq!(LogFile::open(&disk, folder.path()).bytes, size(LOG));
    }

    #[test]
    fn a_tail_is_harmless() {
        let log = b"old\n== start\n::add-mask::x\r##[error]y\n\x1b[31mred\n\n";
        assert_eq!(
            tail(log, "== start\n"),
            "\n  | ::add-mask::x\n  | ##[error]y\n  |  [31mred"
        );
        assert_eq!(tail(&b"x\n".repeat(1000), "none").lines().count(), 13);
    }
}
