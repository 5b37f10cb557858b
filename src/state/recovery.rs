//! What could not be saved: when the store is down at the moment of saving, outcomes go to a file
//! on this machine, sealed with the state key, and the next run brings them to the store.
//!
//! One line an outcome, each sealed for its environment and its place in the file, so that lines
//! cannot be moved, dropped from the middle or mixed with those of another environment unseen. A
//! last line that was cut off was never acknowledged.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, DiskError, DiskExt as _};
use crate::random::Random;
use crate::resource::Address;
use crate::secret::Keyring;

use super::journal::{Entry, open_intents};
use super::{Expected, Keepsake, Lease, Record, Store, StoreError, StoreResult};

const FILE_MODE: u32 = 0o600;
/// Largest recovery file.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One thing that was done, and that the store does not know yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The first line: whose outcomes these are.
    Begin {
        /// Lineage of the state; outcomes of another one are never replayed.
        lineage: String,
        /// The run that wrote them.
        run_id: String,
        /// Its fencing number; 0 in files of old, which did not say.
        #[serde(default)]
        fence: u64,
    },
    /// A record was to be written.
    Put {
        /// Version of the record it replaces; 0 when there was none.
        base: u64,
        /// The record.
        record: Box<Record>,
    },
    /// A record was to be removed.
    Delete {
        /// Whose.
        address: Address,
        /// Version of the removed record.
        base: u64,
    },
    /// A keepsake was to be written.
    Keep {
        /// Its key.
        key: String,
        /// Its value.
        keepsake: Keepsake,
    },
    /// A keepsake was to be removed.
    Forget {
        /// Its key.
        key: String,
    },
    /// A journal entry was to be appended.
    Journal {
        /// The entry.
        entry: super::Entry,
    },
}

/// What became of a recovery file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Outcomes that are in the store now.
    pub saved: usize,
    /// Records that somebody else changed since; theirs stays.
    pub overtaken: Vec<Address>,
}

/// The recovery file of one environment.
pub struct Recovery {
    disk: Arc<dyn Disk>,
    random: Arc<dyn Random>,
    path: PathBuf,
    environment: String,
    keyring: Keyring,
}

impl std::fmt::Debug for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recovery")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn storage(error: DiskError) -> StoreError {
    StoreError::Storage(error.to_string())
}

impl Recovery {
    /// The file at `path`, in a folder that exists. Nothing is written yet.
    pub fn new(
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        path: PathBuf,
        environment: &str,
        key: &[u8; 32],
    ) -> Self {
        Self {
            disk,
            random,
            path,
            environment: environment.to_owned(),
            keyring: Keyring::new(key),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn place(&self, line: usize) -> String {
        format!("{}/recovery/{line}", self.environment)
    }

    fn corrupt(&self, reason: String) -> StoreError {
        StoreError::Aside {
            path: self.path.display().to_string(),
            reason,
        }
    }

    /// Adds outcomes, durably, with one flush. The file starts with `lineage` and the run that holds
    /// `lease`; one of another lineage is not added to.
    ///
    /// # Errors
    /// [`StoreError::Storage`] when this machine's disk does not take them either.
    pub fn append(&self, lineage: &str, lease: &Lease, outcomes: &[Outcome]) -> StoreResult<()> {
        if outcomes.is_empty() {
            return Ok(());
        }
        let (known, good_bytes, total_bytes) = self.read_lines()?;
        if good_bytes < total_bytes {
            // A torn end is cut off before it gets neighbours.
            let mut bytes = self.disk.read(&self.path, BYTES_MAX).map_err(storage)?;
            bytes.truncate(good_bytes);
            self.disk
                .write_atomic(&self.path, &bytes, FILE_MODE)
                .map_err(storage)?;
        }
        let mut all = Vec::new();
        match known.first() {
            None => all.push(Outcome::Begin {
                lineage: lineage.to_owned(),
                run_id: lease.holder.run_id.clone(),
                fence: lease.fence,
            }),
            Some(Outcome::Begin { lineage: found, .. }) if found == lineage => {}
            Some(_) => return Err(self.corrupt("it is that of another state".to_owned())),
        }
        all.extend_from_slice(outcomes);
        let mut text = String::new();
        for (index, outcome) in all.iter().enumerate() {
            let plain = serde_json::to_vec(outcome)
                .map_err(|error| StoreError::Storage(format!("cannot keep an outcome: {error}")))?;
            let place = self.place(known.len() + index);
            text.push_str(&self.keyring.seal_bytes(&*self.random, &place, &plain));
            text.push('\n');
        }
        self.disk
            .append(&self.path, text.as_bytes(), FILE_MODE, true)
            .map_err(storage)?;
        if known.is_empty()
            && let Some(folder) = self.path.parent()
        {
            self.disk.sync_directory(folder).map_err(storage)?;
        }
        Ok(())
    }

    /// The outcomes, the bytes of their lines, and the bytes of the file.
    fn read_lines(&self) -> StoreResult<(Vec<Outcome>, usize, usize)> {
        let bytes = match self.disk.read(&self.path, BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok((Vec::new(), 0, 0)),
            Err(error) => return Err(storage(error)),
        };
        let mut outcomes = Vec::new();
        let mut good_bytes = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(text) = line.strip_suffix(b"\n") else {
                break;
            };
            let number = outcomes.len();
            let outcome = std::str::from_utf8(text)
                .ok()
                .and_then(|text| self.keyring.open_bytes(&self.place(number), text).ok())
                .ok_or_else(|| {
                    self.corrupt(format!(
                        "line {} does not open: it was altered, or sealed with another key",
                        number + 1
                    ))
                })?;
            outcomes.push(
                serde_json::from_slice(&outcome)
                    .map_err(|error| self.corrupt(format!("line {}: {error}", number + 1)))?,
            );
            good_bytes += line.len();
        }
        Ok((outcomes, good_bytes, bytes.len()))
    }

    /// What is in it.
    ///
    /// # Errors
    /// [`StoreError::Aside`] when it does not open.
    pub fn outcomes(&self) -> StoreResult<Vec<Outcome>> {
        self.read_lines().map(|(outcomes, ..)| outcomes)
    }

    /// True when there is something to bring to the store.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn is_waiting(&self) -> StoreResult<bool> {
        Ok(self.disk.entry(&self.path).map_err(storage)?.is_some())
    }

    /// Brings every outcome to the store, in order, and removes the file. Doing it again after a
    /// crash changes nothing. A record that another run has changed since stays as that run left
    /// it, and is named; so does one that another run has removed, or settled without a record.
    ///
    /// # Errors
    /// [`StoreError::Aside`] when it does not open, or the store holds another state than the outcomes are of; the
    /// file stays.
    pub async fn replay(&self, store: &dyn Store, lease: &Lease) -> StoreResult<Replayed> {
        let (outcomes, ..) = self.read_lines()?;
        let mut replay = Replay::new(store, lease).await?;
        for (index, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Outcome::Begin { lineage, fence, .. } => {
                    let found = store.head().await?.map(|head| head.lineage);
                    if found.as_ref() != Some(lineage) {
                        let found = found.unwrap_or_else(|| "no state".to_owned());
                        return Err(self.corrupt(format!(
                            "it is of lineage {lineage}, and what is there is {found}"
                        )));
                    }
                    replay.was_alone = fence + 1 == lease.fence;
                }
                Outcome::Put { base, record } => {
                    replay.put(*base, record, &outcomes[index + 1..]).await?;
                }
                Outcome::Delete { address, base } => replay.delete(address, *base).await?,
                Outcome::Keep { key, keepsake } => {
                    store.put_keepsake(lease, key, keepsake).await?;
                    replay.done.saved += 1;
                }
                Outcome::Forget { key } => {
                    store.delete_keepsake(lease, key).await?;
                    replay.done.saved += 1;
                }
                Outcome::Journal { entry } => {
                    if !store.journal_read().await?.contains(entry) {
                        store
                            .journal_append(lease, std::slice::from_ref(entry))
                            .await?;
                    }
                    replay.done.saved += 1;
                }
            }
        }
        self.disk.remove_file(&self.path).map_err(storage)?;
        Ok(replay.done)
    }
}

/// Outcomes on their way to the store.
struct Replay<'a> {
    store: &'a dyn Store,
    lease: &'a Lease,
    /// Nobody has had the lock between the run whose outcomes these are and us.
    was_alone: bool,
    /// What has an intent whose outcome nobody has written down yet.
    open: HashSet<Address>,
    /// What an earlier outcome of the same file is about: as the store has it, it is ours.
    ours: HashSet<Address>,
    done: Replayed,
}

impl<'a> Replay<'a> {
    async fn new(store: &'a dyn Store, lease: &'a Lease) -> StoreResult<Self> {
        let journal = store.journal_read().await?;
        let open = open_intents(&journal).into_iter();
        let open = open.filter_map(|entry| match entry {
            Entry::Intent { address, .. } => Some(address.clone()),
            _ => None,
        });
        Ok(Self {
            store,
            lease,
            was_alone: false,
            open: open.collect(),
            ours: HashSet::new(),
            done: Replayed::default(),
        })
    }

    /// A record; `later` are the outcomes that follow.
    async fn put(&mut self, base: u64, record: &Record, later: &[Outcome]) -> StoreResult<()> {
        let address = &record.resource_id;
        if self.done.overtaken.contains(address) {
            return Ok(());
        }
        let standing = self.store.get(address).await?;
        let is_there = |record: &Record| {
            let standing = standing.as_ref();
            standing.is_some_and(|standing| same(standing, record))
        };
        // It, or what comes after it, was brought here by a replay that was cut off.
        let is_done = is_there(record)
            || later.iter().any(
                |later| matches!(later, Outcome::Put { record, .. } if record.resource_id == *address && is_there(record)),
            );
        if is_done {
            self.ours.insert(address.clone());
            self.done.saved += 1;
            return Ok(());
        }
        let written = if self.ours.contains(address) {
            self.store.put(self.lease, record).await
        } else if base == 0 && !self.was_alone && !self.open.contains(address) {
            // Whoever came in between has settled it. That there is no record is their word: it was
            // destroyed since, or forgotten.
            self.done.overtaken.push(address.clone());
            return Ok(());
        } else {
            let expected = match base {
                0 => Expected::Absent,
                base => Expected::Version(base),
            };
            self.store.put_if(self.lease, record, &expected).await
        };
        match written {
            Ok(_) => {
                self.ours.insert(address.clone());
                self.done.saved += 1;
            }
            Err(StoreError::Conflict { .. }) => self.done.overtaken.push(address.clone()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn delete(&mut self, address: &Address, base: u64) -> StoreResult<()> {
        if self.done.overtaken.contains(address) {
            return Ok(());
        }
        match self.store.get(address).await? {
            Some(standing) if standing.tidegate.version != base && !self.ours.contains(address) => {
                self.done.overtaken.push(address.clone());
            }
            _ => {
                self.store.delete(self.lease, address).await?;
                self.ours.insert(address.clone());
                self.done.saved += 1;
            }
        }
        Ok(())
    }
}

/// The same but for what a store sets itself.
pub(super) fn same(standing: &Record, record: &Record) -> bool {
    let plain = |record: &Record| {
        let mut plain = record.clone();
        plain.created_at.clear();
        plain.updated_at.clear();
        plain.tidegate.version = 0;
        plain.tidegate.format = 0;
        plain.tidegate.environment.clear();
        plain
    };
    plain(standing) == plain(record)
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "tests look at the file from outside"
)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::clock::SystemClock;
    use crate::disk::SystemDisk;
    use crate::random::SeededRandom;
    use crate::state::memory::Shared;
    use crate::state::{Holder, Memory};

    fn record(name: &str, mark: &str) -> Record {
        serde_json::from_value(json!({
            "resource_id": name, "resource_type": "infra.dns", "provider": "local",
            "provider_id": mark, "status": "active", "created_at": "", "updated_at": "",
        }))
        .unwrap()
    }

    fn put(base: u64, name: &str, mark: &str) -> Outcome {
        Outcome::Put {
            base,
            record: Box::new(record(name, mark)),
        }
    }

    fn recovery(folder: &Path, environment: &str, key: u8) -> Recovery {
        let random = Arc::new(SeededRandom::new(3));
        let path = folder.join("recovery");
        Recovery::new(Arc::new(SystemDisk), random, path, environment, &[key; 32])
    }

    async fn store() -> (Memory, Lease, String) {
        let clock = Arc::new(SystemClock::new());
        let random = Arc::new(SeededRandom::new(1));
        let store = Memory::open(Shared::default(), "dev", clock, random).unwrap();
        let holder = Holder {
            run_id: "r".to_owned(),
            who: "a@b".to_owned(),
            process_id: 1,
            command: "up".to_owned(),
            run_url: None,
            job: String::new(),
            since: String::new(),
            mark: String::new(),
        };
        let lease = store.lock(&holder, Duration::ZERO).await.unwrap();
        let lineage = store.head().await.unwrap().unwrap().lineage;
        (store, lease, lineage)
    }

    #[tokio::test]
    async fn outcomes_reach_the_store_once_and_overwrite_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (store, lease, lineage) = store().await;
        for name in ["changed", "gone", "theirs"] {
            store.put(&lease, &record(name, "old")).await.unwrap();
        }
        let kept = recovery(folder.path(), "dev", 7);
        assert!(!kept.is_waiting().unwrap());
        let version = async |name: &str| {
            let record = store.get(&Address::new(name)).await.unwrap().unwrap();
            record.tidegate.version
        };
        let (changed, theirs) = (version("changed").await, version("theirs").await);
        kept.append(&lineage, &lease, &[put(0, "new", "canary-host")])
            .unwrap();
        kept.append(
            &lineage,
            &lease,
            &[put(changed, "changed", "new"), put(theirs, "theirs", "new")],
        )
        .unwrap();
        let gone = Outcome::Delete {
            address: Address::new("gone"),
            base: version("gone").await,
        };
        kept.append(&lineage, &lease, &[gone]).unwrap();
        assert!(kept.append("another", &lease, &[put(0, "x", "x")]).is_err());
        let bytes = std::fs::read(kept.path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("canary"));
        let lease = again(&store, lease).await;
        // Meanwhile somebody else got through; and an earlier replay was cut off after its first.
        store.put(&lease, &record("theirs", "other")).await.unwrap();
        store
            .put(&lease, &record("new", "canary-host"))
            .await
            .unwrap();
        // A line that was cut off while it was appended.
        let torn = [bytes.as_slice(), b"AAAA"].concat();
        std::fs::write(kept.path(), torn).unwrap();
        let replayed = kept.replay(&store, &lease).await.unwrap();
        assert_eq!(
            replayed,
            Replayed {
                saved: 3,
                overtaken: vec![Address::new("theirs")]
            }
        );
        assert!(!kept.is_waiting().unwrap());
        let ids: Vec<(String, String)> = store
            .list()
            .await
            .unwrap()
            .into_iter()
            .map(|record| (record.resource_id.to_string(), record.provider_id))
            .collect();
        let expected = [
            ("changed", "new"),
            ("new", "canary-host"),
            ("theirs", "other"),
        ]
        .map(|(name, id)| (name.to_owned(), id.to_owned()));
        assert_eq!(ids, expected);
    }

    /// The lock given back and taken anew, as the next run does.
    async fn again(store: &Memory, lease: Lease) -> Lease {
        store.unlock(&lease).await.unwrap();
        store.lock(&lease.holder, Duration::ZERO).await.unwrap()
    }

    fn intent(name: &str) -> Entry {
        Entry::Intent {
            operation: format!("op-{name}"),
            address: Address::new(name),
            kind: crate::resource::Kind::new("infra.dns"),
            provider: "local".to_owned(),
            action: crate::resource::ActionKind::Create,
            config_hash: String::new(),
            at: String::new(),
            before: crate::state::journal::Before::default(),
        }
    }

    /// Another run has settled what this one did, and gone on: what it made anew lives, and what it
    /// destroyed stays gone. What nobody has settled is saved all the same.
    #[tokio::test]
    async fn a_record_of_the_same_name_is_not_the_one_that_was_meant() {
        let folder = tempfile::tempdir().unwrap();
        let (store, lease, lineage) = store().await;
        for name in ["destroyed", "changed"] {
            store.put(&lease, &record(name, "old")).await.unwrap();
        }
        let version = async |name: &str| {
            let record = store.get(&Address::new(name)).await.unwrap().unwrap();
            record.tidegate.version
        };
        let delete = Outcome::Delete {
            address: Address::new("destroyed"),
            base: version("destroyed").await,
        };
        let change = put(version("changed").await, "changed", "update");
        store
            .journal_append(&lease, &[intent("ghost"), intent("unsettled")])
            .await
            .unwrap();
        let kept = recovery(folder.path(), "dev", 7);
        let made = [put(0, "ghost", "gone"), put(0, "unsettled", "there")];
        kept.append(&lineage, &lease, &[delete, change]).unwrap();
        kept.append(&lineage, &lease, &made).unwrap();
        let other = again(&store, lease).await;
        for name in ["destroyed", "changed"] {
            store.delete(&other, &Address::new(name)).await.unwrap();
            store.put(&other, &record(name, "anew")).await.unwrap();
        }
        let settled = Entry::Outcome {
            operation: "op-ghost".to_owned(),
            outcome: "success".to_owned(),
        };
        store.journal_append(&other, &[settled]).await.unwrap();
        let lease = again(&store, other).await;
        let replayed = kept.replay(&store, &lease).await.unwrap();
        assert_eq!(
            (replayed.saved, replayed.overtaken),
            (
                1,
                ["destroyed", "changed", "ghost"].map(Address::new).into()
            )
        );
        let records = store.list().await.unwrap().into_iter();
        let ids: Vec<String> = records.map(|record| record.provider_id).collect();
        assert_eq!(ids, ["anew", "anew", "there"]);
    }

    #[tokio::test]
    async fn what_does_not_belong_here_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (store, lease, lineage) = store().await;
        let kept = recovery(folder.path(), "dev", 7);
        kept.append(&lineage, &lease, &[put(0, "a", "1"), put(0, "b", "2")])
            .unwrap();
        let lease = again(&store, lease).await;
        let text = std::fs::read_to_string(kept.path()).unwrap();
        for other in [
            recovery(folder.path(), "prod", 7),
            recovery(folder.path(), "dev", 8),
        ] {
            assert!(other.replay(&store, &lease).await.is_err());
        }
        // A line is dropped from the middle.
        let lines: Vec<&str> = text.lines().collect();
        std::fs::write(kept.path(), format!("{}\n{}\n", lines[0], lines[2])).unwrap();
        assert!(kept.replay(&store, &lease).await.is_err());
        std::fs::write(kept.path(), &text).unwrap();
        let (elsewhere, its_lease) = {
            let clock = Arc::new(SystemClock::new());
            let random = Arc::new(SeededRandom::new(99));
            let store = Memory::open(Shared::default(), "dev", clock, random).unwrap();
            let lease = store.lock(&lease.holder, Duration::ZERO).await.unwrap();
            (store, lease)
        };
        let error = kept.replay(&elsewhere, &its_lease).await.unwrap_err();
        assert!(matches!(error, StoreError::Aside { .. }), "{error:?}");
        assert!(kept.is_waiting().unwrap());
        assert_eq!(kept.replay(&store, &lease).await.unwrap().saved, 2);
    }
}
