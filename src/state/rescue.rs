//! A store whose writes survive it being down. What a run has done and cannot record, after a few
//! more tries, goes to a [`Recovery`] file on this machine; the next run that takes the lock brings
//! it to the store before it plans anything.
//!
//! Only what has happened is kept: records, removals, outcomes of the journal, what sinks were given.
//! An intent that cannot be written stops the effect it announces, and needs no keeping.

mod patience;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::recovery::{self, Outcome, Recovery, Replayed};
use super::{
    Each, Entry, Expected, Filter, Head, Holder, Keepsake, Lease, Listing, Page, Record, Snapshot,
    Store, StoreError, StoreResult,
};
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::disk::{Disk, DiskExt as _};
use crate::random::Random;
use crate::report::{Event, Report, Reporter};
use crate::resource::Address;

/// Before each further try at a write that failed.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(750),
    Duration::from_millis(1500),
];
/// After this long, a write that failed is not tried again: the store has waited on its own.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a write is answered with once the store is known to be down.
const DOWN: &str = "the store did not answer a moment ago";
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Keepsakes of this kind say what a destination outside was given.
const SINK: &str = "sink/";

/// What a [`Rescuing`] works with.
pub struct Tools {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Where the loss is said.
    pub reporter: Arc<dyn Reporter>,
    /// The wish to stop: then nothing is tried again.
    pub cancel: Cancel,
}

/// What must be known by the time the store is down.
#[derive(Default)]
struct Known {
    key: Option<Zeroizing<[u8; 32]>>,
    lineage: Option<String>,
    /// Version of each record; 0 for one that only waits to be written.
    versions: HashMap<Address, u64>,
    /// A write was kept: the store is down, and is not waited for again.
    is_down: bool,
    /// A call got no answer for as long as anybody waits, and why it was given up.
    silent: Option<&'static str>,
    /// When the last proof of the lease that succeeded was asked for; `None` while there is none.
    proven: Option<Duration>,
}

/// A store with a recovery file beside it.
pub struct Rescuing {
    inner: Arc<dyn Store>,
    tools: Tools,
    path: PathBuf,
    known: Mutex<Known>,
}

impl std::fmt::Debug for Rescuing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rescuing")
            .field("inner", &self.inner)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Rescuing {
    /// `inner`, with the recovery file at `path`, whose folder is made when it is needed.
    pub fn new(inner: Arc<dyn Store>, path: PathBuf, tools: Tools) -> Self {
        Self {
            inner,
            tools,
            path,
            known: Mutex::default(),
        }
    }

    /// The recovery file, when one waits.
    ///
    /// # Errors
    /// When it cannot be looked for.
    pub fn waiting(&self) -> StoreResult<Option<&Path>> {
        let entry = self.tools.disk.entry(&self.path);
        let entry = entry.map_err(|error| StoreError::Storage(error.to_string()))?;
        Ok(entry.map(|_| self.path.as_path()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recovery(&self, key: &[u8; 32]) -> Recovery {
        Recovery::new(
            Arc::clone(&self.tools.disk),
            Arc::clone(&self.tools.random),
            self.path.clone(),
            self.inner.environment(),
            key,
        )
    }

    fn learn(&self, record: &Record) {
        let version = record.tidegate.version;
        let address = record.resource_id.clone();
        self.known().versions.insert(address, version);
    }

    fn learn_all(&self, records: &[Record]) {
        records.iter().for_each(|record| self.learn(record));
    }

    /// Tries a write until it is done, refused, or has failed for long enough. Answers whether it
    /// was tried more than once, too: then an earlier try may have been done unseen.
    async fn patiently<T, F>(&self, call: impl Fn() -> F) -> (StoreResult<T>, bool)
    where
        F: Future<Output = StoreResult<T>>,
    {
        if self.known().is_down {
            // Whatever else is under way would each wait as long, and the lock lapse meanwhile.
            return (Err(StoreError::Storage(DOWN.to_owned())), false);
        }
        let started = self.tools.clock.monotonic();
        let mut is_again = false;
        for pause in PAUSES {
            let result = self.within(call()).await;
            let passed = self.tools.clock.monotonic().saturating_sub(started);
            let is_over = passed > PATIENCE || self.tools.cancel.is_cancelled();
            match result {
                Err(StoreError::Storage(_)) if !is_over => {}
                result => return (result, is_again),
            }
            is_again = true;
            self.tools.clock.sleep(pause).await;
        }
        (self.within(call()).await, true)
    }

    /// Keeps what the store did not take. Always an error: for the run, the store is down.
    fn keep(&self, lease: &Lease, outcomes: &[Outcome], why: String) -> StoreError {
        let written = {
            let known = self.known();
            match (&known.key, &known.lineage) {
                (Some(key), Some(lineage)) => self.append(lease, key, lineage, outcomes),
                _ => Err(StoreError::Storage(
                    "the key of the state is not known".to_owned(),
                )),
            }
        };
        if let Err(error) = written {
            return StoreError::Storage(format!(
                "{why}; and it could not be kept in `{}` either: {error}",
                self.path.display()
            ));
        }
        let kept = StoreError::Kept {
            path: self.path.display().to_string(),
            command: lease.holder.command.clone(),
            reason: why,
        };
        let is_first = !std::mem::replace(&mut self.known().is_down, true);
        if is_first {
            let problem = Box::new(Report::from(kept.clone()));
            self.tools.reporter.say(Event::Problem(problem));
        }
        kept
    }

    fn append(
        &self,
        lease: &Lease,
        key: &[u8; 32],
        lineage: &str,
        outcomes: &[Outcome],
    ) -> StoreResult<()> {
        let storage = |error: crate::disk::DiskError| StoreError::Storage(error.to_string());
        let disk = self.tools.disk.as_ref();
        if let Some(folder) = self.path.parent() {
            disk.create_directories(folder, FOLDER_MODE)
                .map_err(storage)?;
            let ignore = folder.join(".gitignore");
            if disk.entry(&ignore).map_err(storage)?.is_none() {
                disk.write_atomic(&ignore, b"*\n", FILE_MODE)
                    .map_err(storage)?;
            }
        }
        self.recovery(key).append(lineage, lease, outcomes)
    }

    fn keyless(&self) -> StoreError {
        StoreError::Aside {
            path: self.path.display().to_string(),
            reason: "the key of the state, which opens it, is not there".to_owned(),
        }
    }

    /// Notes the version that a write over `base` has left. A new record begins at the serial.
    fn written(&self, address: &Address, base: u64, result: &StoreResult<u64>) {
        let version = match result {
            Ok(serial) if base == 0 => *serial,
            Ok(_) => base + 1,
            // A replay takes what follows on one outcome of a file for ours.
            Err(StoreError::Kept { .. }) => base,
            Err(_) => return,
        };
        self.known().versions.insert(address.clone(), version);
    }

    /// Is `record` what stands there, as the write after `base`?
    async fn is_written(&self, record: &Record, base: u64) -> bool {
        let standing = self.inner.get(&record.resource_id).await;
        standing.is_ok_and(|standing| {
            standing.is_some_and(|standing| {
                let is_next = base == 0 || standing.tidegate.version == base + 1;
                is_next && recovery::same(&standing, record)
            })
        })
    }

    /// Removes the folder of the file, when nothing of ours is left in it.
    fn tidy(&self) {
        let disk = self.tools.disk.as_ref();
        let Some(folder) = self.path.parent() else {
            return;
        };
        if disk
            .list(folder)
            .is_ok_and(|names| names.iter().all(|name| name == ".gitignore"))
        {
            // Left behind, it does no harm.
            drop(disk.remove_file(&folder.join(".gitignore")));
            drop(disk.remove_if_empty(folder));
        }
    }
}

#[async_trait]
impl Store for Rescuing {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn environment(&self) -> &str {
        self.inner.environment()
    }

    async fn head(&self) -> StoreResult<Option<Head>> {
        self.within(self.inner.head()).await
    }

    async fn list(&self) -> StoreResult<Vec<Record>> {
        let records = self.at_length(self.inner.list()).await?;
        self.learn_all(&records);
        Ok(records)
    }

    async fn get(&self, address: &Address) -> StoreResult<Option<Record>> {
        let record = self.within(self.inner.get(address)).await?;
        record.iter().for_each(|record| self.learn(record));
        Ok(record)
    }

    async fn put(&self, lease: &Lease, record: &Record) -> StoreResult<u64> {
        let address = &record.resource_id;
        let (result, is_again) = self.patiently(|| self.inner.put(lease, record)).await;
        let base = self.known().versions.get(address).copied().unwrap_or(0);
        let result = match result {
            Err(StoreError::Storage(why) | StoreError::Guarded(why)) => {
                let record = Box::new(record.clone());
                Err(self.keep(lease, &[Outcome::Put { base, record }], why))
            }
            result => result,
        };
        if result.is_ok() && is_again {
            // One try or more: only the store knows.
            drop(self.get(address).await);
        } else {
            self.written(address, base, &result);
        }
        result
    }

    async fn delete(&self, lease: &Lease, address: &Address) -> StoreResult<u64> {
        let (result, _) = self.patiently(|| self.inner.delete(lease, address)).await;
        let base = self.known().versions.get(address).copied().unwrap_or(0);
        let result = match result {
            Err(StoreError::Storage(why) | StoreError::Guarded(why)) => {
                let address = address.clone();
                Err(self.keep(lease, &[Outcome::Delete { address, base }], why))
            }
            result => result,
        };
        if matches!(result, Ok(_) | Err(StoreError::Kept { .. })) {
            self.known().versions.remove(address);
        }
        result
    }

    async fn lock(&self, holder: &Holder, wait: Duration) -> StoreResult<Lease> {
        let lease = self.inner.lock(holder, wait).await?;
        self.proven_at(self.tools.clock.monotonic());
        // Without it nothing could be kept, and nothing is lost yet.
        if let Ok(Some(head)) = self.inner.head().await {
            self.known().lineage = Some(head.lineage);
        }
        Ok(lease)
    }

    async fn replay(&self, lease: &Lease) -> StoreResult<Option<(PathBuf, Replayed)>> {
        if self.waiting()?.is_none() {
            return Ok(None);
        }
        let key = self.inner.key(false).await?.ok_or_else(|| self.keyless())?;
        let replayed = self.recovery(&key).replay(&*self.inner, lease).await?;
        self.tidy();
        Ok(Some((self.path.clone(), replayed)))
    }

    async fn renew(&self, lease: &Lease) -> StoreResult<()> {
        let asked = self.tools.clock.monotonic();
        self.within(self.inner.renew(lease)).await?;
        self.proven_at(asked);
        Ok(())
    }

    async fn unlock(&self, lease: &Lease) -> StoreResult<()> {
        let freed = self.within(self.inner.unlock(lease)).await;
        self.known().proven = None;
        freed
    }

    async fn holder(&self) -> StoreResult<Option<(Holder, Duration)>> {
        self.within(self.inner.holder()).await
    }

    async fn journal_append(&self, lease: &Lease, entries: &[Entry]) -> StoreResult<()> {
        let is_past = |entry: &Entry| matches!(entry, Entry::Outcome { .. });
        if entries.is_empty() || !entries.iter().all(is_past) {
            return self.within(self.inner.journal_append(lease, entries)).await;
        }
        // Written twice, an outcome says the same as once.
        let append = || self.inner.journal_append(lease, entries);
        match self.patiently(append).await.0 {
            Err(StoreError::Storage(why) | StoreError::Guarded(why)) => {
                let outcomes: Vec<Outcome> = entries
                    .iter()
                    .map(|entry| Outcome::Journal {
                        entry: entry.clone(),
                    })
                    .collect();
                Err(self.keep(lease, &outcomes, why))
            }
            result => result,
        }
    }

    async fn journal_read(&self) -> StoreResult<Vec<Entry>> {
        self.at_length(self.inner.journal_read()).await
    }

    async fn journal_clear(&self, lease: &Lease) -> StoreResult<()> {
        self.within(self.inner.journal_clear(lease)).await
    }

    async fn keepsake(&self, key: &str) -> StoreResult<Option<Keepsake>> {
        self.within(self.inner.keepsake(key)).await
    }

    async fn put_keepsake(&self, lease: &Lease, key: &str, value: &Keepsake) -> StoreResult<()> {
        if !key.starts_with(SINK) {
            return self
                .within(self.inner.put_keepsake(lease, key, value))
                .await;
        }
        let put = || self.inner.put_keepsake(lease, key, value);
        match self.patiently(put).await.0 {
            Err(StoreError::Storage(why) | StoreError::Guarded(why)) => {
                let (key, keepsake) = (key.to_owned(), value.clone());
                Err(self.keep(lease, &[Outcome::Keep { key, keepsake }], why))
            }
            result => result,
        }
    }

    async fn keepsakes(&self) -> StoreResult<Vec<String>> {
        self.at_length(self.inner.keepsakes()).await
    }

    async fn delete_keepsake(&self, lease: &Lease, key: &str) -> StoreResult<()> {
        if !key.starts_with(SINK) {
            return self.within(self.inner.delete_keepsake(lease, key)).await;
        }
        let delete = || self.inner.delete_keepsake(lease, key);
        match self.patiently(delete).await.0 {
            Err(StoreError::Storage(why) | StoreError::Guarded(why)) => {
                let key = key.to_owned();
                Err(self.keep(lease, &[Outcome::Forget { key }], why))
            }
            result => result,
        }
    }

    async fn key(&self, create: bool) -> StoreResult<Option<Zeroizing<[u8; 32]>>> {
        let key = self.within(self.inner.key(create)).await?;
        if key.is_some() {
            self.known().key.clone_from(&key);
        }
        Ok(key)
    }

    async fn has_remains(&self) -> StoreResult<bool> {
        self.inner.has_remains().await
    }

    async fn remove_empty(&self, lease: Lease) -> StoreResult<()> {
        self.inner.remove_empty(lease).await
    }

    async fn put_if(
        &self,
        lease: &Lease,
        record: &Record,
        expected: &Expected,
    ) -> StoreResult<u64> {
        let address = &record.resource_id;
        let put = || self.inner.put_if(lease, record, expected);
        let (result, is_again) = self.patiently(put).await;
        let base = match expected {
            Expected::Absent => 0,
            Expected::Version(version) => *version,
            Expected::Serial { .. } => self.known().versions.get(address).copied().unwrap_or(0),
        };
        let result = match result {
            // An earlier try may have been done unseen: then what is there is ours.
            Err(StoreError::Conflict { .. }) if is_again && self.is_written(record, base).await => {
                let head = self.inner.head().await?;
                Ok(head.map_or(0, |head| head.serial))
            }
            Err(StoreError::Storage(why) | StoreError::Guarded(why)) => {
                let record = Box::new(record.clone());
                Err(self.keep(lease, &[Outcome::Put { base, record }], why))
            }
            result => result,
        };
        if result.is_ok() && is_again {
            drop(self.get(address).await);
        } else {
            self.written(address, base, &result);
        }
        result
    }

    async fn each(&self) -> StoreResult<Each> {
        self.at_length(self.inner.each()).await
    }

    async fn aside(&self) -> StoreResult<Option<(PathBuf, usize)>> {
        if self.waiting()?.is_none() {
            return Ok(None);
        }
        let key = self.inner.key(false).await?.ok_or_else(|| self.keyless())?;
        let outcomes = self.recovery(&key).outcomes()?;
        Ok(Some((self.path.clone(), outcomes.len())))
    }

    async fn find(&self, filter: &Filter, page: &Page) -> StoreResult<Listing> {
        self.at_length(self.inner.find(filter, page)).await
    }

    async fn environments(&self) -> StoreResult<Vec<String>> {
        self.at_length(self.inner.environments()).await
    }

    fn beside(&self, environment: &str) -> StoreResult<Option<Box<dyn Store>>> {
        self.inner.beside(environment)
    }

    async fn wipe(&self, lease: Lease) -> StoreResult<Vec<Address>> {
        self.inner.wipe(lease).await
    }

    async fn wipe_damaged(&self, lease: Lease) -> StoreResult<()> {
        self.inner.wipe_damaged(lease).await
    }

    async fn beheaded(&self) -> StoreResult<Option<StoreError>> {
        self.within(self.inner.beheaded()).await
    }

    async fn load_over_damage(
        &self,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        self.inner.load_over_damage(snapshot, key).await
    }

    async fn force_unlock(&self, run_id: &str) -> StoreResult<Option<Holder>> {
        self.inner.force_unlock(run_id).await
    }

    async fn snapshot(&self) -> StoreResult<Option<Snapshot>> {
        self.at_length(self.inner.snapshot()).await
    }

    async fn load(
        &self,
        lease: &Lease,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        self.inner.load(lease, snapshot, key).await?;
        let mut known = self.known();
        known.lineage = Some(snapshot.lineage.clone());
        known.versions.clear();
        if let Some(key) = key {
            known.key = Some(Zeroizing::new(*key));
        }
        drop(known);
        self.learn_all(&snapshot.records);
        Ok(())
    }
}

#[cfg(test)]
#[path = "rescue_tests.rs"]
mod tests;
