//! State in a directory: one folder for each environment, one file for each record.
//!
//! ```text
//! <root>/.gitignore              `*`: state is not committed by accident
//! <root>/<environment>/
//!     head.json                  lineage, fence, and the serial up to which the journal counts
//!     lock.json                  who holds the lock; stays after release, for the fence
//!     lock.guard                 OS lock taken around every check-and-write
//!     lock.<fence>.alive         OS lock kept by the holder for as long as it lives
//!     journal.jsonl              intents and outcomes, and the count of changes
//!     key                        the state key, 64 hex digits
//!     records/<name>.cbor        the records
//!     previous/<name>.cbor       each record as it was before its last write
//!     keepsakes/<key>.cbor       generated secrets, sink bookkeeping
//! ```
//!
//! Promises: a reader sees each file as it was or as it is, never in between. A write happens
//! under `lock.guard` and only if `lock.json` still names the writer's fence; a take-over moves
//! the fence under the same guard, so a writer that lost its lock cannot write again, however long
//! it was stopped. Nothing that exists but cannot be read is taken for absent.

mod files;
mod guard;
mod key;
mod list;
mod load;
mod lock;
mod log;
mod remove;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::{Clock, rfc3339};
use crate::disk::{Disk, DiskError, EntryKind, FileLock};
use crate::random::Random;
use crate::resource::Address;

use super::codec::Codec;
use super::journal::Entry;
use super::lease::Renewal;
use super::own::{FORMAT, KeepsakeFile, parse_own};
use super::record::{RECORD_BYTES_MAX, Record, corrupt};
use super::{
    Each, Expected, Head, Holder, Keepsake, Lease, Snapshot, Store, StoreError, StoreResult, name,
};
use files::stem;
use load::{LOOKS, Source};

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Head, lock and keepsake files are small; more than this is not one of them.
const SMALL_BYTES_MAX: u64 = 16 * 1024 * 1024;

const HEAD: &str = "head.json";
const RECORDS: &str = "records";
const PREVIOUS: &str = "previous";
const KEEPSAKES: &str = "keepsakes";
const GITIGNORE: &str = ".gitignore";
const GITIGNORE_TEXT: &[u8] = b"*\n";

/// The machine's (and this start's) identity on Linux: where it is equal, the operating system
/// knows whether a lock's holder still lives.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The state of one environment, in a directory.
pub struct Filesystem {
    root: PathBuf,
    environment: String,
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    renewal: Renewal,
    key: Option<Zeroizing<[u8; 32]>>,
    codec: Codec,
    /// The config that this is the state of by default; empty when it was said which folder is meant.
    config: String,
    /// Empty when unknown: then nobody counts as being on this machine.
    machine: String,
    /// Tasks of this process queue here before they meet other processes at `lock.guard`.
    gate: tokio::sync::Mutex<()>,
    memory: Mutex<Memory>,
}

/// What this process knows beyond the files.
#[derive(Debug, Default)]
struct Memory {
    /// The `lock.<fence>.alive` locks of our leases.
    alive: BTreeMap<u64, Box<dyn FileLock>>,
    /// The lock file as last seen, and when (monotonic) it was first seen like that.
    seen: Option<(Vec<u8>, Duration)>,
    /// The journal after our last good append; `None` when it must be looked at first.
    journal: Option<log::Known>,
}

impl fmt::Debug for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filesystem")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct HeadFile {
    format: u64,
    lineage: String,
    serial: u64,
    fence: u64,
    /// Recognises the state key without telling anything about it; empty until there is one.
    #[serde(default)]
    key_check: String,
    /// The environment: a folder's name does not always tell it. Empty in heads of old.
    #[serde(default)]
    environment: String,
    /// The config whose state this is, where nothing but the folder says so; empty elsewhere, and in
    /// heads of old.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    config: String,
}

impl Filesystem {
    /// The state of `environment` under `root`. Nothing is written before the first
    /// [`Store::lock`].
    ///
    /// # Errors
    /// [`StoreError::Storage`] when `environment` is empty or something that is not a directory
    /// stands in its place.
    pub fn open(
        root: PathBuf,
        environment: &str,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> StoreResult<Self> {
        if environment.is_empty() {
            return Err(StoreError::Storage(
                "the state store needs an environment name".to_owned(),
            ));
        }
        let directory = root.join(name::encode(environment));
        for path in [&root, &directory] {
            if let Some(EntryKind::File { .. }) = disk.entry(path).map_err(storage)? {
                return Err(StoreError::Storage(format!(
                    "cannot keep state in `{}`: a file stands there, not a directory",
                    path.display()
                )));
            }
        }
        let machine = disk
            .read(Path::new(BOOT_ID), 128)
            .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
            .unwrap_or_default();
        Ok(Self {
            root,
            environment: environment.to_owned(),
            directory,
            disk,
            clock,
            codec: Codec::plain(environment, Arc::clone(&random)),
            random,
            renewal: Renewal::DEFAULT,
            key: None,
            config: String::new(),
            machine,
            gate: tokio::sync::Mutex::new(()),
            memory: Mutex::default(),
        })
    }

    /// Pretends to run on another machine, which tests cannot do otherwise.
    #[must_use]
    pub fn with_machine(mut self, machine: &str) -> Self {
        machine.clone_into(&mut self.machine);
        self
    }

    /// Nothing says that this folder is meant but that the config of this name is beside it: a state that
    /// another config has made there is not its own.
    #[must_use]
    pub fn of_config(mut self, name: &str) -> Self {
        name.clone_into(&mut self.config);
        self
    }

    /// The other config whose state this is: what that one describes, ours would delete.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn claimed_by(&self) -> StoreResult<Option<String>> {
        match self.read_head() {
            Ok(Some(head)) => self.claimant(&head),
            // Whoever reads it hears of that.
            Ok(None) | Err(StoreError::Corrupt { .. } | StoreError::Newer { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn claimant(&self, head: &HeadFile) -> StoreResult<Option<String>> {
        let is_ours =
            self.config.is_empty() || head.config.is_empty() || head.config == self.config;
        if is_ours || self.names(RECORDS)?.is_empty() && self.names(KEEPSAKES)?.is_empty() {
            return Ok(None);
        }
        Ok(Some(head.config.clone()))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> String {
        rfc3339(self.clock.now())
    }

    fn read_head(&self) -> StoreResult<Option<HeadFile>> {
        self.read_own(&self.path(HEAD), "the state head")
    }

    /// Without a head nothing is known of what is there, and it is there all the same.
    fn refuse_headless(&self) -> StoreResult<()> {
        let left = self.names(RECORDS)?.len() + self.names(KEEPSAKES)?.len();
        if left == 0 {
            return Ok(());
        }
        Err(StoreError::Corrupt {
            what: format!("the state head (`{}`)", self.path(HEAD).display()),
            reason: format!(
                "it is gone, and {left} records and kept values are there: put it back, or let the next \
                 run that takes the lock (`tidegate up`) make a new one, which no saved plan fits"
            ),
        })
    }

    /// The head, which a held lock guarantees.
    fn need_head(&self) -> StoreResult<HeadFile> {
        self.read_head()?.ok_or_else(|| StoreError::Corrupt {
            what: format!("the state head (`{}`)", self.path(HEAD).display()),
            reason: "it has disappeared while the lock was held".to_owned(),
        })
    }

    fn read_record(&self, address: &Address) -> StoreResult<Option<(Record, PathBuf)>> {
        let place = self.record_place(address);
        let Some((bytes, path)) = self.read_at(&place, RECORD_BYTES_MAX)? else {
            return Ok(None);
        };
        let what = format_args!("record `{address}` (`{}`)", path.display());
        let record = self.check_record(self.codec.decode(&bytes, &what)?, &what, Some(address))?;
        Ok(Some((record, path.to_path_buf())))
    }

    /// A record must be where it says it belongs.
    fn check_record(
        &self,
        record: Record,
        what: &dyn fmt::Display,
        expected: Option<&Address>,
    ) -> StoreResult<Record> {
        let environment = &record.tidegate.environment;
        let reason = if expected.is_some_and(|expected| record.resource_id != *expected) {
            format!("it is the record of `{}`", record.resource_id)
        } else if !environment.is_empty() && *environment != self.environment {
            format!("it belongs to environment `{environment}`")
        } else {
            return Ok(record);
        };
        Err(corrupt(what, reason))
    }
}

super::terms::adjustable!(Filesystem);

#[async_trait]
impl Store for Filesystem {
    fn location(&self) -> String {
        format!(
            "filesystem {} (environment {})",
            self.root.display(),
            self.environment
        )
    }

    async fn head(&self) -> StoreResult<Option<Head>> {
        let incoming = |snapshot: Snapshot| {
            Ok(Some(Head {
                lineage: snapshot.lineage,
                serial: snapshot.serial,
                fence: self.read_lock()?.map_or(0, |lock| lock.file.fence),
            }))
        };
        self.unless_incoming(incoming, || {
            // The journal before the head: who empties it writes the head first, so that whoever looks
            // meanwhile sees the count in the one or in the other.
            let noted = self.noted_serial()?;
            let Some(head) = self.read_head()? else {
                return Ok(self.refuse_headless().map(|()| None));
            };
            let fence = self.read_lock()?.map_or(0, |lock| lock.file.fence);
            Ok(Ok(Some(Head {
                lineage: head.lineage,
                serial: head.serial.max(noted),
                fence: head.fence.max(fence),
            })))
        })?
    }

    async fn list(&self) -> StoreResult<Vec<Record>> {
        let mut looks = 0;
        let mut before = self.source()?;
        // As in `unless_incoming`, with others having a turn meanwhile.
        loop {
            if let Source::Incoming(snapshot) = before {
                return Ok(snapshot.records);
            }
            let records = self.list_records().await;
            let after = self.source()?;
            looks += 1;
            if after == before || looks > LOOKS && !matches!(after, Source::Incoming(_)) {
                return records;
            }
            before = after;
        }
    }

    async fn each(&self) -> StoreResult<Each> {
        self.unless_incoming(Each::of, || {
            Ok(Each {
                records: self.each_record()?,
                keepsakes: self
                    .each_keepsake()?
                    .into_iter()
                    .map(|(key, file)| (key, file.map(|file| file.keepsake)))
                    .collect(),
                incomplete: None,
            })
        })
    }

    async fn get(&self, address: &Address) -> StoreResult<Option<Record>> {
        let incoming = |snapshot: Snapshot| {
            let mut records = snapshot.records.into_iter();
            records.find(|record| record.resource_id == *address)
        };
        self.unless_incoming(incoming, || {
            Ok(self.read_record(address)?.map(|(record, _)| record))
        })
    }

    async fn put(&self, lease: &Lease, record: &Record) -> StoreResult<u64> {
        self.put_checked(lease, record, None).await
    }

    async fn put_if(
        &self,
        lease: &Lease,
        record: &Record,
        expected: &Expected,
    ) -> StoreResult<u64> {
        self.put_checked(lease, record, Some(expected)).await
    }

    fn environment(&self) -> &str {
        &self.environment
    }

    async fn environments(&self) -> StoreResult<Vec<String>> {
        self.list_environments()
    }

    fn beside(&self, environment: &str) -> StoreResult<Option<Box<dyn Store>>> {
        let other = Self::open(
            self.root.clone(),
            environment,
            Arc::clone(&self.disk),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )?;
        Ok(Some(Box::new(other.like(self))))
    }

    async fn force_unlock(&self, run_id: &str) -> StoreResult<Option<Holder>> {
        self.free_lock_of(run_id).await
    }

    async fn beheaded(&self) -> StoreResult<Option<StoreError>> {
        self.damaged_head()
    }

    async fn load_over_damage(
        &self,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        self.load_over_head(snapshot, key).await
    }

    async fn load(
        &self,
        lease: &Lease,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        self.load_snapshot(lease, snapshot, key).await
    }

    async fn delete(&self, lease: &Lease, address: &Address) -> StoreResult<u64> {
        let _guard = self.enter_with(lease).await?;
        let place = self.record_place(address);
        for path in [&place.path, &place.of_old] {
            if self.disk.entry(path).map_err(storage)?.is_some() {
                let serial = self.advance(lease)?;
                self.retire(&place)?;
                return Ok(serial);
            }
        }
        self.serial()
    }

    async fn lock(&self, holder: &Holder, wait: Duration) -> StoreResult<Lease> {
        self.acquire(holder, wait).await
    }

    async fn renew(&self, lease: &Lease) -> StoreResult<()> {
        self.extend(lease).await
    }

    async fn unlock(&self, lease: &Lease) -> StoreResult<()> {
        self.release(lease).await
    }

    async fn holder(&self) -> StoreResult<Option<(Holder, Duration)>> {
        self.look().await
    }

    async fn journal_append(&self, lease: &Lease, entries: &[Entry]) -> StoreResult<()> {
        let _guard = self.enter_with(lease).await?;
        self.append_entries(lease, entries)
    }

    async fn journal_read(&self) -> StoreResult<Vec<Entry>> {
        self.read_entries()
    }

    async fn journal_clear(&self, lease: &Lease) -> StoreResult<()> {
        let _guard = self.enter_with(lease).await?;
        self.clear_entries(lease)
    }

    async fn keepsake(&self, key: &str) -> StoreResult<Option<Keepsake>> {
        let incoming = |mut snapshot: Snapshot| snapshot.keepsakes.remove(key);
        self.unless_incoming(incoming, || self.read_keepsake(key))
    }

    async fn put_keepsake(&self, lease: &Lease, key: &str, value: &Keepsake) -> StoreResult<()> {
        let _guard = self.enter_with(lease).await?;
        let bytes = KeepsakeFile::new(key, value).encode()?;
        self.write_at(&self.place(KEEPSAKES, key), &bytes)
    }

    async fn keepsakes(&self) -> StoreResult<Vec<String>> {
        let incoming = |snapshot: Snapshot| snapshot.keepsakes.into_keys().collect();
        self.unless_incoming(incoming, || {
            let files = self.keepsake_files()?;
            let mut keys: Vec<String> = files.into_iter().map(|file| file.key).collect();
            keys.sort_unstable();
            Ok(keys)
        })
    }

    async fn delete_keepsake(&self, lease: &Lease, key: &str) -> StoreResult<()> {
        let _guard = self.enter_with(lease).await?;
        self.remove_at(&self.place(KEEPSAKES, key))
    }

    async fn key(&self, create: bool) -> StoreResult<Option<Zeroizing<[u8; 32]>>> {
        self.state_key(create).await
    }

    async fn has_remains(&self) -> StoreResult<bool> {
        if self.head().await?.is_some() {
            return Ok(false);
        }
        if self.disk.entry(&self.directory).map_err(storage)?.is_some() {
            return Ok(true);
        }
        match self.disk.list(&self.root) {
            Ok(names) => Ok(names == [GITIGNORE]),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(storage(error)),
        }
    }

    async fn remove_empty(&self, lease: Lease) -> StoreResult<()> {
        self.remove_environment(&lease, false).await
    }

    async fn wipe_damaged(&self, lease: Lease) -> StoreResult<()> {
        self.remove_environment(&lease, true).await
    }
}

impl Filesystem {
    async fn put_checked(
        &self,
        lease: &Lease,
        record: &Record,
        expected: Option<&Expected>,
    ) -> StoreResult<u64> {
        let _guard = self.enter_with(lease).await?;
        let address = &record.resource_id;
        let existing = self.read_record(address)?;
        let found = existing.as_ref().map(|(record, _)| record);
        if let Some(expected) = expected {
            let head = Head {
                lineage: self.need_head()?.lineage,
                serial: self.serial()?,
                fence: lease.fence,
            };
            expected.check(address, found, Some(&head))?;
        }
        let next = record.succeed(found, &self.environment, &self.now(), self.serial()? + 1);
        let bytes = self.codec.encode(&next)?;
        if let Some((_, path)) = &existing {
            self.keep_previous(path)?;
        }
        let serial = self.advance(lease)?;
        self.write_at(&self.record_place(address), &bytes)?;
        Ok(serial)
    }

    fn read_keepsake(&self, key: &str) -> StoreResult<Option<Keepsake>> {
        let place = self.place(KEEPSAKES, key);
        let Some((bytes, path)) = self.read_at(&place, SMALL_BYTES_MAX)? else {
            return Ok(None);
        };
        let what = format_args!("keepsake `{key}` (`{}`)", path.display());
        let file = KeepsakeFile::read(&bytes, &what)?;
        if file.key != key {
            return Err(corrupt(&what, format!("it is the keepsake `{}`", file.key)));
        }
        Ok(Some(file.keepsake))
    }

    /// Every keepsake, each checked against its file name.
    fn keepsake_files(&self) -> StoreResult<Vec<KeepsakeFile>> {
        let files = self.each_keepsake()?;
        files.into_iter().map(|(_, file)| file).collect()
    }

    /// The same, each for itself, by the key that its file's name tells.
    fn each_keepsake(&self) -> StoreResult<Vec<(String, StoreResult<KeepsakeFile>)>> {
        let mut files = Vec::new();
        for file_name in self.names(KEEPSAKES)? {
            if let Some(file) = self.keepsake_file(&file_name).transpose() {
                files.push((files::told(&file_name), file));
            }
        }
        Ok(files)
    }

    /// The keepsake in a file; `None` when it is gone since the folder was listed.
    fn keepsake_file(&self, file_name: &str) -> StoreResult<Option<KeepsakeFile>> {
        let path = self.path(KEEPSAKES).join(file_name);
        let what = format_args!("keepsake file `{}`", path.display());
        let Some(stem) = stem(file_name) else {
            return Err(corrupt(&what, "it is not named like a keepsake"));
        };
        let place = self.place_of(KEEPSAKES, stem);
        let Some((bytes, _)) = self.read_at(&place, SMALL_BYTES_MAX)? else {
            return Ok(None);
        };
        let file = KeepsakeFile::read(&bytes, &what)?;
        if name::encode(&file.key) != stem {
            return Err(corrupt(&what, format!("it is the keepsake `{}`", file.key)));
        }
        Ok(Some(file))
    }
}

fn storage(error: DiskError) -> StoreError {
    StoreError::Storage(error.to_string())
}
