//! The journal file: lines appended in groups, each group with one write and one flush.

use std::path::PathBuf;

use crate::disk::{DiskExt as _, EntryKind};
use crate::state::journal::{self, Journal};

use super::{Entry, FILE_MODE, Filesystem, Lease, StoreError, StoreResult, storage};

const JOURNAL: &str = "journal.jsonl";
/// Largest journal in bytes; some hundred thousand actions.
const JOURNAL_BYTES_MAX: u64 = 256 * 1024 * 1024;

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
        let path = self.journal_path();
        let size = match self.disk.entry(&path).map_err(storage)? {
            Some(EntryKind::File { bytes }) => Some(bytes),
            _ => None,
        };
        let known = self.memory().journal_bytes.take();
        let size = match size {
            Some(size) if known == Some(size) => size,
            // Our first append, or one after a failure: a torn end is cut off before it gets
            // neighbours.
            _ => self.mend_journal()?,
        };
        let mut text = String::new();
        for entry in entries {
            journal::write_line(&mut text, lease.fence, entry).map_err(|error| {
                StoreError::Storage(format!("cannot write the journal: {error}"))
            })?;
        }
        self.disk
            .append(&path, text.as_bytes(), FILE_MODE, true)
            .map_err(storage)?;
        if size == 0 {
            self.disk.sync_directory(&self.directory).map_err(storage)?;
        }
        // Only now: after any failure above, the next append looks first.
        self.memory().journal_bytes = Some(size + text.len() as u64);
        Ok(())
    }

    /// Rewrites a journal with a torn end without it; answers the size of the good part.
    fn mend_journal(&self) -> StoreResult<u64> {
        let journal = self.read_journal()?;
        if journal.torn_bytes > 0 {
            let path = self.journal_path();
            let mut bytes = self.read(&path, JOURNAL_BYTES_MAX)?.unwrap_or_default();
            bytes.truncate(journal.good_bytes);
            self.disk
                .write_atomic(&path, &bytes, FILE_MODE)
                .map_err(storage)?;
        }
        Ok(journal.good_bytes as u64)
    }

    /// Under the guard, with the lease checked.
    pub(super) fn clear_entries(&self) -> StoreResult<()> {
        self.memory().journal_bytes = None;
        let path = self.journal_path();
        if self.disk.entry(&path).map_err(storage)?.is_none() {
            return Ok(());
        }
        self.disk
            .remove_file(&path)
            .and_then(|()| self.disk.sync_directory(&self.directory))
            .map_err(storage)
    }
}
