//! The guard: an operating-system lock around every check-and-write, so that nobody moves the
//! fence between the two.

use std::time::Duration;

use tokio::sync::MutexGuard;

use crate::disk::{DiskResult, EntryKind, FileLock};

use super::{
    DIRECTORY_MODE, FILE_MODE, Filesystem, GITIGNORE, GITIGNORE_TEXT, Lease, StoreError,
    StoreResult, storage,
};

const GUARD: &str = "lock.guard";
/// Nobody keeps the guard for longer than a few file writes, unless stopped in the middle of one.
pub(super) const GUARD_WAIT: Duration = Duration::from_secs(10);
pub(super) const GUARD_POLL: Duration = Duration::from_millis(5);

/// Proof that no other task or process is between its check and its write.
#[derive(Debug)]
pub(super) struct Guard<'a> {
    // Dropped in this order: other processes first, then our own tasks.
    _file: Box<dyn FileLock>,
    _gate: MutexGuard<'a, ()>,
}

impl Filesystem {
    pub(super) fn guard_path(&self) -> std::path::PathBuf {
        self.path(GUARD)
    }

    /// The guard if it is free. Not found: the environment's folder does not exist.
    pub(super) async fn try_enter(&self) -> DiskResult<Option<Guard<'_>>> {
        let gate = self.gate.lock().await;
        let file = self.disk.try_lock(&self.guard_path())?;
        Ok(file.map(|file| Guard {
            _file: file,
            _gate: gate,
        }))
    }

    /// The guard, after a short wait if need be.
    pub(super) async fn enter(&self) -> StoreResult<Guard<'_>> {
        let started = self.clock.monotonic();
        loop {
            if let Some(guard) = self.try_enter().await.map_err(storage)? {
                return Ok(guard);
            }
            if self.clock.monotonic().saturating_sub(started) >= GUARD_WAIT {
                return Err(self.guard_stuck());
            }
            self.clock.sleep(GUARD_POLL).await;
        }
    }

    pub(super) fn guard_stuck(&self) -> StoreError {
        StoreError::Storage(format!(
            "another process has been in the middle of a write for {} s (it holds `{}`): \
             continue it if it is stopped, or end it",
            GUARD_WAIT.as_secs(),
            self.guard_path().display()
        ))
    }

    /// The guard, and the proof that `lease` is still the current one.
    pub(super) async fn enter_with(&self, lease: &Lease) -> StoreResult<Guard<'_>> {
        let lost = |current| StoreError::LostLock {
            environment: self.environment.clone(),
            ours: lease.fence,
            current,
        };
        if self.disk.entry(&self.directory).map_err(storage)?.is_none() {
            // Everything was removed, the lock with it.
            return Err(lost(0));
        }
        let guard = self.enter().await?;
        match self.read_lock()? {
            Some(lock) if lock.is_of(lease) => Ok(guard),
            Some(lock) => Err(lost(lock.file.fence)),
            None => Err(lost(0)),
        }
    }

    /// Makes the folders of this environment, durably.
    pub(super) fn prepare(&self) -> DiskResult<()> {
        if self.disk.entry(&self.directory)?.is_none() {
            // The deepest folder that exists already: from there down, entries are new.
            let mut new = vec![self.directory.as_path()];
            for folder in self.directory.ancestors().skip(1) {
                new.push(folder);
                if folder.as_os_str().is_empty() || self.disk.entry(folder)?.is_some() {
                    break;
                }
            }
            self.disk
                .create_directories(&self.directory, DIRECTORY_MODE)?;
            for folder in new {
                self.disk.sync_directory(folder)?;
            }
        }
        let gitignore = self.root.join(GITIGNORE);
        match self.disk.entry(&gitignore)? {
            None => {}
            // What a crash leaves of it would hide nothing from git.
            Some(EntryKind::File { bytes: 0 }) => self.disk.remove_file(&gitignore)?,
            Some(_) => return Ok(()),
        }
        match self.disk.create_new(&gitignore, GITIGNORE_TEXT, FILE_MODE) {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }
}
