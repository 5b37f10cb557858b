//! The environment lock: a lease with a fence in `lock.json`, and an operating-system lock that
//! tells at once, on the same machine, that a holder is dead.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk::TemporaryName;
use crate::random::hex_of;
use crate::state::lease::{Process, Verdict, Watched};

use super::guard::{GUARD_POLL, GUARD_WAIT, Guard};
use super::{
    FORMAT, Filesystem, HEAD, HeadFile, Holder, KEEPSAKES, Lease, PREVIOUS, RECORDS,
    SMALL_BYTES_MAX, StoreError, StoreResult, parse_own, storage,
};

pub(super) const LOCK: &str = "lock.json";
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Content of `lock.json`. It stays when the lock is given back, so that fences only grow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LockFile {
    pub(super) format: u64,
    pub(super) fence: u64,
    /// `None` when the lock is free.
    pub(super) holder: Option<Holder>,
    /// Boot id of the holder's machine; empty when unknown.
    #[serde(default)]
    machine: String,
    /// Grows with every renewal: this, not a time, is what watchers look at.
    #[serde(default)]
    renewals: u64,
    /// How long the holder's lease lasts after its last renewal.
    #[serde(default)]
    lease_ms: u64,
}

/// `lock.json` as read, with its bytes.
#[derive(Debug)]
pub(super) struct ReadLock {
    pub(super) file: LockFile,
    bytes: Vec<u8>,
}

impl ReadLock {
    pub(super) fn is_of(&self, lease: &Lease) -> bool {
        self.file.fence == lease.fence
            && self
                .file
                .holder
                .as_ref()
                .is_some_and(|holder| holder.run_id == lease.holder.run_id)
    }
}

/// May we have the lock?
enum Answer {
    Free {
        taken_over: Option<Box<Holder>>,
    },
    Held {
        holder: Box<Holder>,
        expires_in: Duration,
    },
}

pub(super) fn alive_name(fence: u64) -> String {
    format!("lock.{fence}.alive")
}

pub(super) fn is_alive_name(name: &str) -> bool {
    name.strip_prefix("lock.")
        .and_then(|rest| rest.strip_suffix(".alive"))
        .is_some_and(|fence| fence.parse::<u64>().is_ok())
}

impl Filesystem {
    pub(super) fn read_lock(&self) -> StoreResult<Option<ReadLock>> {
        let path = self.path(LOCK);
        let Some(bytes) = self.read(&path, SMALL_BYTES_MAX)? else {
            return Ok(None);
        };
        let file = parse_own(&bytes, &format!("the lock (`{}`)", path.display()))?;
        Ok(Some(ReadLock { file, bytes }))
    }

    /// Takes the lock, or says who has it once `wait` is over.
    pub(super) async fn acquire(&self, holder: &Holder, wait: Duration) -> StoreResult<Lease> {
        let started = self.clock.monotonic();
        loop {
            let entered = match self.prepare() {
                Ok(()) => self.try_enter().await,
                Err(error) => Err(error),
            };
            let held = match entered {
                Ok(Some(guard)) => {
                    let lock = self.read_lock()?;
                    match self.judge(lock.as_ref())? {
                        Answer::Free { taken_over } => {
                            let fence = lock.map_or(0, |lock| lock.file.fence);
                            return self.take(&guard, holder, fence, taken_over);
                        }
                        Answer::Held { holder, expires_in } => Some((holder, expires_in)),
                    }
                }
                // Somebody is writing at this moment, or removes the whole environment.
                Ok(None) => None,
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(storage(error)),
            };
            let waited = self.clock.monotonic().saturating_sub(started);
            let (limit, poll) = match &held {
                Some(_) => (wait, LOCK_POLL),
                None => (wait.max(GUARD_WAIT), GUARD_POLL),
            };
            let left = limit.saturating_sub(waited);
            if left.is_zero() {
                return Err(match held {
                    Some((holder, expires_in)) => StoreError::Locked {
                        environment: self.environment.clone(),
                        holder,
                        expires_in,
                    },
                    None => self.guard_stuck(),
                });
            }
            self.clock.sleep(poll.min(left)).await;
        }
    }

    /// Looks at the lock under the guard (which is why it may try the holder's own lock).
    fn judge(&self, lock: Option<&ReadLock>) -> StoreResult<Answer> {
        let Some(lock) = lock else {
            return Ok(Answer::Free { taken_over: None });
        };
        let unchanged_for = self.watch(lock);
        let Some(holder) = lock.file.holder.clone().map(Box::new) else {
            return Ok(Answer::Free { taken_over: None });
        };
        let here = !self.machine.is_empty() && self.machine == lock.file.machine;
        let process = if !here {
            Process::Elsewhere
        } else if self
            .disk
            .try_lock(&self.path(&alive_name(lock.file.fence)))
            .map_err(storage)?
            .is_some()
        {
            // Only the kernel frees this lock before its file is removed: the holder is gone,
            // whatever process has its number now.
            Process::Dead
        } else {
            Process::Alive
        };
        let watched = Watched {
            unchanged_for,
            lease: Duration::from_millis(lock.file.lease_ms),
            process,
        };
        Ok(match watched.verdict() {
            Verdict::Take => Answer::Free {
                taken_over: Some(holder),
            },
            Verdict::Wait(expires_in) => Answer::Held { holder, expires_in },
        })
    }

    /// Under the guard: the fence, when nobody holds the lock.
    pub(super) fn refuse_held(&self) -> StoreResult<u64> {
        let lock = self.read_lock()?;
        match self.judge(lock.as_ref())? {
            Answer::Free { .. } => Ok(lock.map_or(0, |lock| lock.file.fence)),
            Answer::Held { holder, expires_in } => Err(StoreError::Locked {
                environment: self.environment.clone(),
                holder,
                expires_in,
            }),
        }
    }

    /// For how long we have seen the lock just as it is now, on our own monotonic clock.
    fn watch(&self, lock: &ReadLock) -> Duration {
        let now = self.clock.monotonic();
        let mut memory = self.memory();
        match &memory.seen {
            Some((bytes, since)) if *bytes == lock.bytes => now.saturating_sub(*since),
            _ => {
                memory.seen = Some((lock.bytes.clone(), now));
                Duration::ZERO
            }
        }
    }

    /// Moves the fence and becomes the holder. Whatever can fail without having taken the lock
    /// comes first; `lock.json` is the last write.
    fn take(
        &self,
        _guard: &Guard<'_>,
        holder: &Holder,
        fence: u64,
        taken_over: Option<Box<Holder>>,
    ) -> StoreResult<Lease> {
        self.sweep()?;
        let head = self.read_head()?;
        let fence = fence.max(head.as_ref().map_or(0, |head| head.fence)) + 1;
        match head {
            None => {
                let head = HeadFile {
                    format: FORMAT,
                    lineage: hex_of::<16>(&*self.random),
                    serial: 0,
                    fence,
                    key_check: String::new(),
                    environment: self.environment.clone(),
                    config: self.config.clone(),
                };
                self.write_own(&self.path(HEAD), &head)?;
            }
            Some(mut head) => {
                // Another config may have come first since we looked.
                if let Some(other) = self.claimant(&head)? {
                    return Err(StoreError::Invalid(format!(
                        "the state in `{}` is that of `{other}`, not of `{}`",
                        self.directory.display(),
                        self.config
                    )));
                }
                if !self.config.is_empty() && head.config != self.config {
                    head.config.clone_from(&self.config);
                    self.write_own(&self.path(HEAD), &head)?;
                }
            }
        }
        let alive_path = self.path(&alive_name(fence));
        let alive = self
            .disk
            .try_lock(&alive_path)
            .map_err(storage)?
            .ok_or_else(|| {
                StoreError::Storage(format!(
                    "something else holds `{}`, which only the next holder of the lock may",
                    alive_path.display()
                ))
            })?;
        self.write_own(
            &self.path(LOCK),
            &LockFile {
                format: FORMAT,
                fence,
                holder: Some(holder.clone()),
                machine: self.machine.clone(),
                renewals: 0,
                lease_ms: u64::try_from(self.renewal.lease.as_millis()).unwrap_or(u64::MAX),
            },
        )?;
        {
            let mut memory = self.memory();
            memory.alive.insert(fence, alive);
            memory.journal = None;
        }
        // Only now: before, an older holder could still have been writing.
        if let Err(error) = self.finish_load(fence) {
            self.memory().alive.remove(&fence);
            // The first error is the one that counts; a lock left behind is that of nobody alive.
            drop(self.write_free_lock(fence));
            return Err(error);
        }
        Ok(Lease {
            fence,
            holder: holder.clone(),
            taken_over,
        })
    }

    /// Removes what dead writers left: temporary files, and the lock files of old holders.
    fn sweep(&self) -> StoreResult<()> {
        for folder in ["", RECORDS, PREVIOUS, KEEPSAKES] {
            let directory = self.path(folder);
            let names = match self.disk.list(&directory) {
                Ok(names) => names,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(storage(error)),
            };
            for name in names {
                let temporary = TemporaryName::parse(&name).is_some();
                if temporary || (folder.is_empty() && is_alive_name(&name)) {
                    self.disk
                        .remove_file(&directory.join(name))
                        .map_err(storage)?;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn extend(&self, lease: &Lease) -> StoreResult<()> {
        let _guard = self.enter_with(lease).await?;
        if let Some(mut lock) = self.read_lock()? {
            lock.file.renewals += 1;
            self.write_own(&self.path(LOCK), &lock.file)?;
        }
        Ok(())
    }

    /// Gives the lock back. One that was lost meanwhile is not ours to remove, and is reported.
    pub(super) async fn release(&self, lease: &Lease) -> StoreResult<()> {
        let released = match self.enter_with(lease).await {
            Ok(_guard) => {
                let folded = self.fold_count(lease);
                self.set_free(lease).and(folded)
            }
            // Given back already, or everything was removed.
            Err(StoreError::LostLock { ours, current, .. }) if ours == current || current == 0 => {
                Ok(())
            }
            Err(error) => Err(error),
        };
        self.memory().alive.remove(&lease.fence);
        released
    }

    fn set_free(&self, lease: &Lease) -> StoreResult<()> {
        self.write_free_lock(lease.fence)?;
        self.disk
            .remove_file(&self.path(&alive_name(lease.fence)))
            .map_err(storage)
    }

    /// Under the guard: nobody holds the lock any more.
    pub(super) fn write_free_lock(&self, fence: u64) -> StoreResult<()> {
        self.write_own(
            &self.path(LOCK),
            &LockFile {
                format: FORMAT,
                fence,
                holder: None,
                machine: String::new(),
                renewals: 0,
                lease_ms: 0,
            },
        )
    }

    /// How long until a lock lapses if it is not renewed.
    pub(super) fn left(&self, lock: &ReadLock) -> Duration {
        let watched = Watched {
            unchanged_for: self.watch(lock),
            lease: Duration::from_millis(lock.file.lease_ms),
            process: Process::Elsewhere,
        };
        match watched.verdict() {
            Verdict::Take => Duration::ZERO,
            Verdict::Wait(left) => left,
        }
    }

    /// Who holds the lock. A dead holder is nobody. Writes nothing, so it works on a read-only
    /// disk, where a holder that died is still named.
    pub(super) async fn look(&self) -> StoreResult<Option<(Holder, Duration)>> {
        let Some(lock) = self.read_lock()? else {
            return Ok(None);
        };
        let unchanged_for = self.watch(&lock);
        let Some(holder) = lock.file.holder.clone() else {
            return Ok(None);
        };
        if let Ok(Some(_guard)) = self.try_enter().await {
            // Under the guard: the lock as it is now, and nobody is confused by our looking.
            let lock = self.read_lock()?;
            return Ok(match self.judge(lock.as_ref())? {
                Answer::Free { .. } => None,
                Answer::Held { holder, expires_in } => Some((*holder, expires_in)),
            });
        }
        let watched = Watched {
            unchanged_for,
            lease: Duration::from_millis(lock.file.lease_ms),
            process: Process::Elsewhere,
        };
        Ok(match watched.verdict() {
            Verdict::Take => None,
            Verdict::Wait(expires_in) => Some((holder, expires_in)),
        })
    }
}
