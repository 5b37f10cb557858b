//! The journal file: lines appended in groups, each group with one write and one flush. It also
//! counts the changes, so that the head is not written anew for each of them.

use std::path::PathBuf;

use crate::disk::{DiskExt as _, EntryKind};
use crate::state::journal::{self, Journal};

use super::{Entry, FILE_MODE, FORMAT, Filesystem, HEAD, Lease, StoreError, StoreResult, storage};

const JOURNAL: &str = "journal.jsonl";
/// Largest journal in bytes; some hundred thousand actions.
const JOURNAL_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The journal as it was after our last good append.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    bytes: u64,
    /// The serial of the state.
    serial: u64,
}

impl Filesystem {
    pub(super) fn journal_path(&self) -> PathBuf {
        self.path(JOURNAL)
    }

    fn read_journal(&self) -> StoreResult<Journal> {
        let path = self.journal_path();
        let bytes = self.read(&path, JOURNAL_BYTES_MAX)?.unwrap_or_default();
        journal::parse(&bytes).map_err(|reason| StoreError::Corrupt {
            what: format!("the journal (`{}`)", path.display()),
            reason,
        })
    }

    pub(super) fn read_entries(&self) -> StoreResult<Vec<Entry>> {
        Ok(self.read_journal()?.entries)
    }

    /// Under the guard, with the lease checked.
    pub(super) fn append_entries(&self, lease: &Lease, entries: &[Entry]) -> StoreResult<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let text = lines(lease.fence, entries)?;
        let known = self.known_journal()?;
        self.append(known, &text)
    }

    /// Counts one more accepted change; answers the new serial. Written before the change itself: a
    /// crash between the two makes a saved plan look stale, which is harmless; the other order would
    /// hide a change. Under the guard, with the lease checked.
    pub(super) fn advance(&self, lease: &Lease) -> StoreResult<u64> {
        let mut known = self.known_journal()?;
        known.serial += 1;
        let mut text = String::new();
        journal::write_serial(&mut text, lease.fence, known.serial);
        self.append(known, &text)?;
        Ok(known.serial)
    }

    /// The serial as it is now. Under the guard, by the holder of the lease.
    pub(super) fn serial(&self) -> StoreResult<u64> {
        let known = self.known_journal()?;
        self.memory().journal = Some(known);
        Ok(known.serial)
    }

    /// The last serial that the journal notes. What else is wrong with a damaged journal is said by
    /// those who need its entries.
    pub(super) fn noted_serial(&self) -> StoreResult<u64> {
        let bytes = self.read(&self.journal_path(), JOURNAL_BYTES_MAX)?;
        Ok(journal::last_serial(&bytes.unwrap_or_default()))
    }

    /// What is known of the journal, which is taken out of memory: whoever writes puts it back when
    /// nothing failed. On our first call, and after a failure, the journal is looked at, and a torn
    /// end is cut off before it gets neighbours.
    fn known_journal(&self) -> StoreResult<Known> {
        let size = match self.disk.entry(&self.journal_path()).map_err(storage)? {
            Some(EntryKind::File { bytes }) => bytes,
            _ => 0,
        };
        match self.memory().journal.take() {
            Some(known) if known.bytes == size => return Ok(known),
            _ => {}
        }
        let head = self.need_head()?;
        let journal = self.read_journal()?;
        if journal.torn_bytes > 0 {
            self.mend_journal(journal.good_bytes)?;
        }
        Ok(Known {
            bytes: journal.good_bytes as u64,
            serial: head.serial.max(journal.serial),
        })
    }

    fn append(&self, known: Known, text: &str) -> StoreResult<()> {
        self.disk
            .append(&self.journal_path(), text.as_bytes(), FILE_MODE, true)
            .map_err(storage)?;
        if known.bytes == 0 {
            self.disk.sync_directory(&self.directory).map_err(storage)?;
        }
        self.memory().journal = Some(Known {
            bytes: known.bytes + text.len() as u64,
            ..known
        });
        Ok(())
    }

    /// Rewrites a journal with a torn end without it.
    fn mend_journal(&self, good_bytes: usize) -> StoreResult<()> {
        let path = self.journal_path();
        let mut bytes = self.read(&path, JOURNAL_BYTES_MAX)?.unwrap_or_default();
        bytes.truncate(good_bytes);
        self.disk
            .write_atomic(&path, &bytes, FILE_MODE)
            .map_err(storage)
    }

    /// Under the guard, with the lease checked. What the journal counted goes to the head first.
    pub(super) fn clear_entries(&self, lease: &Lease) -> StoreResult<()> {
        let path = self.journal_path();
        if self.disk.entry(&path).map_err(storage)?.is_none() {
            return Ok(());
        }
        let mut head = self.need_head()?;
        let serial = head.serial.max(self.noted_serial()?);
        if serial != head.serial {
            head.format = FORMAT;
            head.serial = serial;
            head.fence = lease.fence;
            self.write_own(&self.path(HEAD), &head)?;
        }
        self.remove_journal()
    }

    pub(super) fn remove_journal(&self) -> StoreResult<()> {
        self.memory().journal = None;
        let path = self.journal_path();
        if self.disk.entry(&path).map_err(storage)?.is_none() {
            return Ok(());
        }
        self.disk
            .remove_file(&path)
            .and_then(|()| self.disk.sync_directory(&self.directory))
            .map_err(storage)
    }

    /// Takes a journal away that does nothing but count, which is what commands outside an apply
    /// leave. Under the guard, with the lease checked; a damaged one is left alone.
    pub(super) fn fold_count(&self, lease: &Lease) -> StoreResult<()> {
        match self.read_journal() {
            Ok(journal) if journal.entries.is_empty() => self.clear_entries(lease),
            Ok(_) | Err(StoreError::Corrupt { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the whole journal by these entries. Under the guard.
    pub(super) fn replace_journal(&self, fence: u64, entries: &[Entry]) -> StoreResult<()> {
        if entries.is_empty() {
            return self.remove_journal();
        }
        self.memory().journal = None;
        self.disk
            .write_atomic(
                &self.journal_path(),
                lines(fence, entries)?.as_bytes(),
                FILE_MODE,
            )
            .map_err(storage)
    }
}

fn lines(fence: u64, entries: &[Entry]) -> StoreResult<String> {
    let mut text = String::new();
    for entry in entries {
        journal::write_line(&mut text, fence, entry)
            .map_err(|error| StoreError::Storage(format!("cannot write the journal: {error}")))?;
    }
    Ok(text)
}
