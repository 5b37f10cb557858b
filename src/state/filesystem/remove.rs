//! Leaving nothing behind: an environment without records takes its folder with it, and the last
//! one takes the store's.

use std::path::Path;

use crate::disk::TemporaryName;
use crate::state::journal::open_intents;

use super::lock::{LOCK, is_alive_name};
use super::{
    Filesystem, GITIGNORE, GITIGNORE_TEXT, HEAD, KEEPSAKES, Lease, PREVIOUS, RECORDS,
    SMALL_BYTES_MAX, StoreError, StoreResult, storage,
};

/// The default folder for state, which we made and therefore clear away.
const OWN_FOLDER: &str = ".tidegate";

impl Filesystem {
    /// Removes the environment's files; with `even_full`, whatever they hold.
    pub(super) async fn remove_environment(
        &self,
        lease: &Lease,
        even_full: bool,
    ) -> StoreResult<()> {
        let guard = self.enter_with(lease).await?;
        if !even_full {
            self.refuse_full()?;
        }
        // The key goes after what it seals, the lock last: wherever this is cut off, the rest can
        // be locked and removed by doing it again.
        for folder in [KEEPSAKES, PREVIOUS, RECORDS] {
            self.disk.remove_tree(&self.path(folder)).map_err(storage)?;
        }
        for file in [
            self.journal_path(),
            self.path(super::key::KEY),
            self.path(HEAD),
        ] {
            self.disk.remove_file(&file).map_err(storage)?;
        }
        self.disk.remove_file(&self.path(LOCK)).map_err(storage)?;
        for name in self.disk.list(&self.directory).map_err(storage)? {
            if is_alive_name(&name) || TemporaryName::parse(&name).is_some() {
                self.disk.remove_file(&self.path(&name)).map_err(storage)?;
            }
        }
        self.memory().alive.remove(&lease.fence);
        self.disk.remove_file(&self.guard_path()).map_err(storage)?;
        drop(guard);
        self.disk
            .remove_if_empty(&self.directory)
            .map_err(storage)?;
        self.remove_root()
    }

    fn refuse_full(&self) -> StoreResult<()> {
        let records = self.names(RECORDS)?.len();
        if records > 0 {
            return Err(StoreError::Storage(format!(
                "cannot remove the state of environment `{}`: {records} records remain in `{}`",
                self.environment,
                self.path(RECORDS).display()
            )));
        }
        let intents = open_intents(&self.read_entries()?).len();
        if intents > 0 {
            return Err(StoreError::Storage(format!(
                "cannot remove the state of environment `{}`: {intents} intents in `{}` have no \
                 known outcome",
                self.environment,
                self.journal_path().display()
            )));
        }
        Ok(())
    }

    fn remove_root(&self) -> StoreResult<()> {
        let names = match self.disk.list(&self.root) {
            Ok(names) => names,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(storage(error)),
        };
        if names.is_empty() {
            return self.remove_folders();
        }
        if names != [GITIGNORE] {
            // Another environment is left, or something that is not ours.
            return Ok(());
        }
        let gitignore = self.root.join(GITIGNORE);
        let text = self.read(&gitignore, SMALL_BYTES_MAX)?.unwrap_or_default();
        // A crash may have left only the beginning of our file.
        if !GITIGNORE_TEXT.starts_with(&text) {
            return Ok(());
        }
        self.disk.remove_file(&gitignore).map_err(storage)?;
        self.remove_folders()
    }

    fn remove_folders(&self) -> StoreResult<()> {
        self.disk.remove_if_empty(&self.root).map_err(storage)?;
        for parent in self.root.ancestors().skip(1) {
            if parent.file_name().is_none_or(|name| name != OWN_FOLDER) {
                break;
            }
            self.disk.remove_if_empty(parent).map_err(storage)?;
        }
        for folder in self.root.ancestors().skip(1) {
            let here = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            match self.disk.sync_directory(here) {
                Err(error) if error.is_not_found() => {}
                other => return other.map_err(storage),
            }
        }
        Ok(())
    }
}
