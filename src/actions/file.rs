//! Entries for the runner's key/value files (`GITHUB_OUTPUT`, `GITHUB_ENV`).
//!
//! Always the heredoc form, with a fresh 128-bit delimiter that neither name nor value contains,
//! built whole in memory and appended with one write: no value can add an entry of its own, and
//! no crash leaves half of one.

use std::path::Path;

use zeroize::Zeroizing;

use crate::disk::{Disk, DiskError, EntryKind};
use crate::random::{Random, hex_of};
use crate::report::Report;
use crate::variables::forbidden_variable;

/// Largest value a later step can still receive: above this the kernel refuses to start any
/// process with it in its environment.
pub const ENVIRONMENT_VALUE_BYTES_MAX: usize = 128 * 1024 - 1;

/// Largest output value; a job may pass on 1 MiB in all, counted as UTF-16.
pub const OUTPUT_VALUE_BYTES_MAX: usize = 512 * 1024;

/// Mode of a file the runner forgot to make.
const MODE: u32 = 0o600;

/// A larger file is not looked into.
const READ_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why an entry cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The name is not one the runner and a shell both take.
    #[error(
        "`{0}` is not a name the runner takes: use letters, digits, `_` and `-`, not beginning with a digit or `-`"
    )]
    Name(String),
    /// The name would give later steps code to run, or is the runner's own.
    #[error("`{0}` may not be set from here: {1}")]
    Forbidden(String, &'static str),
    /// A NUL cannot live in an environment.
    #[error("the value of `{0}` contains a NUL byte")]
    Nul(String),
    /// The value is larger than what a later step can receive.
    #[error("the value of `{name}` has {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// The entry.
        name: String,
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The file could not be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl EntryError {
    /// The problem as people see it.
    pub fn report(&self) -> Report {
        let report = Report::error("actions/file-entry", self.to_string());
        match self {
            Self::Name(_) | Self::Forbidden(..) => report.fix("choose another name"),
            Self::Nul(_) => report.fix("store binary values Base64-encoded"),
            Self::TooLarge { .. } => report.fix("hand large values over in a file or an artifact"),
            Self::Disk(_) => report.fix("check that the runner's files are writable"),
        }
    }
}

/// True for `[A-Za-z_][A-Za-z0-9_-]*`.
pub fn is_entry_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// One entry. The text holds the value: zeroed when dropped.
///
/// # Errors
/// A bad name, or a NUL in the value.
pub fn entry(
    name: &str,
    value: &str,
    random: &dyn Random,
) -> Result<Zeroizing<String>, EntryError> {
    if !is_entry_name(name) {
        return Err(EntryError::Name(name.to_owned()));
    }
    if value.contains('\0') {
        return Err(EntryError::Nul(name.to_owned()));
    }
    let mut delimiter = hex_of::<16>(random);
    // One chance in 2^128 unless the source of randomness is broken; either way, never written.
    while name.contains(&delimiter) || value.contains(&delimiter) {
        delimiter.push_str(&hex_of::<16>(random));
    }
    let mut text = Zeroizing::new(String::with_capacity(
        name.len() + value.len() + 2 * delimiter.len() + 32,
    ));
    for part in [
        name,
        "<<tidegate_",
        &delimiter,
        "\n",
        value,
        "\ntidegate_",
        &delimiter,
        "\n",
    ] {
        text.push_str(part);
    }
    Ok(text)
}

/// Appends one output of the step.
///
/// # Errors
/// What [`entry`] refuses, a value above [`OUTPUT_VALUE_BYTES_MAX`], or a failed write.
pub fn append_output(
    disk: &dyn Disk,
    path: &Path,
    name: &str,
    value: &str,
    random: &dyn Random,
) -> Result<(), EntryError> {
    append(disk, path, name, value, random, OUTPUT_VALUE_BYTES_MAX)
}

/// Appends one variable for later steps.
///
/// # Errors
/// What [`entry`] refuses, a name in [`forbidden_variable`], a value above
/// [`ENVIRONMENT_VALUE_BYTES_MAX`] together with its name, or a failed write.
pub fn append_variable(
    disk: &dyn Disk,
    path: &Path,
    name: &str,
    value: &str,
    random: &dyn Random,
) -> Result<(), EntryError> {
    if let Some(reason) = forbidden_variable(name) {
        return Err(EntryError::Forbidden(name.to_owned(), reason));
    }
    let limit = ENVIRONMENT_VALUE_BYTES_MAX.saturating_sub(name.len() + 1);
    append(disk, path, name, value, random, limit)
}

fn append(
    disk: &dyn Disk,
    path: &Path,
    name: &str,
    value: &str,
    random: &dyn Random,
    limit: usize,
) -> Result<(), EntryError> {
    if value.len() > limit {
        return Err(EntryError::TooLarge {
            name: name.to_owned(),
            bytes: value.len(),
            limit,
        });
    }
    let text = entry(name, value, random)?;
    append_lines(disk, path, text.as_bytes())?;
    Ok(())
}

/// Appends whole lines in one write. A line that an earlier step left without its end (`printf 'A=1'`)
/// gets one first, or ours would become part of it.
///
/// # Errors
/// The file cannot be written.
pub fn append_lines(disk: &dyn Disk, path: &Path, lines: &[u8]) -> Result<(), DiskError> {
    let is_unfinished = match disk.entry(path) {
        Ok(Some(EntryKind::File { bytes: 1.. })) => disk
            .read(path, READ_BYTES_MAX)
            .is_ok_and(|bytes| bytes.last() != Some(&b'\n')),
        _ => false,
    };
    if !is_unfinished {
        return disk.append(path, lines, MODE, false);
    }
    let mut text = Zeroizing::new(Vec::with_capacity(lines.len() + 1));
    text.push(b'\n');
    text.extend_from_slice(lines);
    disk.append(path, &text, MODE, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    /// Gives the same bytes a few times before it changes its mind.
    #[derive(Debug, Default)]
    struct Stuck(std::sync::atomic::AtomicU8);

    impl Random for Stuck {
        fn fill(&self, bytes: &mut [u8]) {
            let call = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            bytes.fill(call / 2);
        }
    }

    #[test]
    fn names_are_checked_and_nul_is_refused() {
        for name in ["", "1a", "-a", "a b", "a=b", "a<<b", "a\n", "ä", "a.b"] {
            assert!(!is_entry_name(name), "{name:?}");
            assert!(entry(name, "v", &SeededRandom::new(1)).is_err(), "{name:?}");
        }
        for name in ["a", "_", "A-b_9"] {
            assert!(is_entry_name(name), "{name:?}");
        }
        assert!(entry("a", "x\0y", &SeededRandom::new(1)).is_err());
    }

    #[test]
    fn a_value_cannot_hold_its_own_delimiter() {
        let value = "00".repeat(16);
        let text = entry("name", &value, &Stuck::default()).expect("an entry");
        let delimiter = text
            .lines()
            .next()
            .and_then(|line| line.split_once("<<"))
            .expect("heredoc")
            .1;
        assert!(!value.contains(delimiter));
        assert_eq!(text.lines().filter(|line| *line == delimiter).count(), 1);
    }
}
