//! State: what we remember about one environment, who may write it, and the journal that survives
//! us. Backends implement [`Store`]; the engine never knows which one it has.

pub mod edit;
pub mod filesystem;
pub mod journal;
pub mod lease;
pub mod memory;
pub mod name;
pub mod postgres;
pub mod query;
pub mod record;
pub mod records;
pub mod recovery;
pub mod rescue;
pub mod salvage;
pub mod served;
pub mod snapshot;
pub mod telltale;
pub mod tfstate;
pub mod upstream;

mod cbor;
mod codec;
mod convert;
mod fault;
mod frame;
mod own;
mod secret_key;
mod terms;
mod typed;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;
use crate::resource::Address;

pub use filesystem::Filesystem;
pub use journal::Entry;
pub use lease::Renewal;
pub use memory::Memory;
pub use postgres::Postgres;
pub use query::{Expected, Filter, Listing, Page};
pub use record::Record;
pub use records::Records;
pub use rescue::Rescuing;
pub use salvage::{Damage, Each, Salvage};
pub use served::Served;
pub use snapshot::Snapshot;

/// Who holds (or wants) the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Unique id of the run.
    pub run_id: String,
    /// `user@host`.
    pub who: String,
    /// Process id on that host.
    pub process_id: u32,
    /// The command, without arguments that could be secret: `up`, `infra destroy`.
    pub command: String,
    /// The workflow run's page, when inside GitHub Actions.
    pub run_url: Option<String>,
    /// The job of that run and the runner it is on; empty elsewhere, and of older programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub job: String,
    /// RFC 3339 start of the hold.
    pub since: String,
    /// The process as others on its machine recognise it
    /// ([`Processes::own_mark`](crate::process::Processes::own_mark)); empty when nobody can.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mark: String,
}

/// The exclusive right to write one environment. Renewed while the run lives; a run that finds its
/// fence overtaken must stop writing at once.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Fencing number: strictly greater than that of every earlier lease.
    pub fence: u64,
    /// Who holds it.
    pub holder: Holder,
    /// Whose lock was taken over, when the one before us died or let its lease lapse. Worth
    /// saying: that run may have left intents in the journal.
    pub taken_over: Option<Box<Holder>>,
}

/// The head of an environment's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Random id given when the environment's state was first made; never changes.
    pub lineage: String,
    /// Grows by one with each accepted change of any record.
    pub serial: u64,
    /// Greatest fencing number ever given out.
    pub fence: u64,
}

/// A generated secret or sink bookkeeping entry, kept beside the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keepsake {
    /// Keyed fingerprint of the value.
    pub fingerprint: String,
    /// The value, sealed for its place; absent for sinks, which only remember the fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// RFC 3339 time of the write.
    pub written_at: String,
}

/// Why a store could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else holds the lock.
    #[error("the state of environment `{environment}` is locked by {}", .holder.who)]
    Locked {
        /// The environment.
        environment: String,
        /// The holder.
        holder: Box<Holder>,
        /// How long until the lease lapses if it is not renewed.
        expires_in: Duration,
    },
    /// Our lease was taken over; nothing was written.
    #[error("this run lost its lock on environment `{environment}` (fence {ours}, now {current})")]
    LostLock {
        /// The environment.
        environment: String,
        /// Our fencing number.
        ours: u64,
        /// The store's fencing number.
        current: u64,
    },
    /// A record, head or journal exists but cannot be read. Never treated as absent.
    #[error("{what} cannot be read: {reason}")]
    Corrupt {
        /// What and where: `record \`orders-db\` (path)`.
        what: String,
        /// Why.
        reason: String,
    },
    /// Written by a newer Tidegate.
    #[error("{what} has format {found}; this version reads up to {known}")]
    Newer {
        /// What and where.
        what: String,
        /// Format number found.
        found: u64,
        /// Greatest format number known.
        known: u64,
    },
    /// Something else is there than the writer believed; nothing was written.
    #[error("{what} was changed by somebody else: expected {expected}, found {found}")]
    Conflict {
        /// What: ``record `orders-db` ``.
        what: String,
        /// What the writer believed to be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Somebody asked us to stop before there was an answer.
    #[error("stopped before the state store had answered")]
    Cancelled,
    /// The storage below failed, and what it did not take is kept on this machine.
    #[error("the state could not be written ({reason}); what was done is kept in `{path}`")]
    Kept {
        /// The recovery file.
        path: String,
        /// The command that brings it to the store.
        command: String,
        /// What the storage said.
        reason: String,
    },
    /// What an earlier run kept on this machine cannot be brought to the store.
    #[error("`{path}` holds what an earlier run could not save, and cannot be used: {reason}")]
    Aside {
        /// The recovery file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The storage takes nothing that large, however often it is asked; nothing was written.
    #[error("{0}")]
    TooLarge(String),
    /// The storage's own lock, which guards single writes, stayed taken.
    #[error("{0}")]
    Guarded(String),
    /// The storage below failed.
    #[error("{0}")]
    Storage(String),
}

/// Result of a store call.
pub type StoreResult<T> = Result<T, StoreError>;

/// Waits for a store call, but not longer than until somebody asks us to stop. Every call of a
/// [`Store`] may be given up at any moment: what it was about to write is then there as a whole or
/// not at all, and the store stays usable.
///
/// # Errors
/// That of the call, or [`StoreError::Cancelled`].
pub async fn unless_cancelled<T>(
    cancel: &Cancel,
    call: impl Future<Output = StoreResult<T>>,
) -> StoreResult<T> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(StoreError::Cancelled),
        answer = call => answer,
    }
}

/// One environment's state. Reads need no lock; every write takes the lease and is refused with
/// [`StoreError::LostLock`] when the fence has moved.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Where this is, for messages: `filesystem ./.tidegate/state (environment dev)`.
    fn location(&self) -> String;
    /// The head; `None` when this environment has never been written.
    async fn head(&self) -> StoreResult<Option<Head>>;
    /// Every record, sorted by address. One unreadable record is an error that names it.
    async fn list(&self) -> StoreResult<Vec<Record>>;
    /// One record.
    async fn get(&self, address: &Address) -> StoreResult<Option<Record>>;
    /// Writes one record, whole and durable; answers the new serial.
    async fn put(&self, lease: &Lease, record: &Record) -> StoreResult<u64>;
    /// Removes one record; absent is success.
    async fn delete(&self, lease: &Lease, address: &Address) -> StoreResult<u64>;

    /// Takes the lock, waiting up to `wait` for a holder to leave or lapse.
    async fn lock(&self, holder: &Holder, wait: Duration) -> StoreResult<Lease>;
    /// Proves the lease is still ours and extends it.
    async fn renew(&self, lease: &Lease) -> StoreResult<()>;
    /// Gives the lock back. Never removes somebody else's.
    async fn unlock(&self, lease: &Lease) -> StoreResult<()>;
    /// Brings what an earlier run had done and could not save to the store, if that waits on this
    /// machine. Called under the lock, before anything is planned.
    async fn replay(
        &self,
        lease: &Lease,
    ) -> StoreResult<Option<(std::path::PathBuf, recovery::Replayed)>> {
        let _ = lease;
        Ok(None)
    }
    /// Who holds the lock now, and how long until it lapses.
    async fn holder(&self) -> StoreResult<Option<(Holder, Duration)>>;

    /// Appends entries durably, in order, with one flush.
    async fn journal_append(&self, lease: &Lease, entries: &[Entry]) -> StoreResult<()>;
    /// Every entry since the journal was last cleared. A torn last entry (a crash while appending)
    /// is dropped; anything else unreadable is an error.
    async fn journal_read(&self) -> StoreResult<Vec<Entry>>;
    /// Empties the journal, once every intent in it has an outcome that is reflected in records.
    async fn journal_clear(&self, lease: &Lease) -> StoreResult<()>;

    /// A keepsake by key (`secret/<name>`, `sink/<destination>/<name>`).
    async fn keepsake(&self, key: &str) -> StoreResult<Option<Keepsake>>;
    /// Writes a keepsake.
    async fn put_keepsake(&self, lease: &Lease, key: &str, value: &Keepsake) -> StoreResult<()>;
    /// Every keepsake key, sorted.
    async fn keepsakes(&self) -> StoreResult<Vec<String>>;
    /// Removes a keepsake; absent is success.
    async fn delete_keepsake(&self, lease: &Lease, key: &str) -> StoreResult<()>;

    /// The 32-byte state key of this store, made on first use (under the lock) when `create`.
    async fn key(&self, create: bool) -> StoreResult<Option<zeroize::Zeroizing<[u8; 32]>>>;
    /// True when something of this environment is there although it has no head: the remains of a
    /// run that was killed while it removed the last of it. [`Store::remove_empty`] clears them.
    async fn has_remains(&self) -> StoreResult<bool> {
        Ok(false)
    }
    /// Removes everything of this environment, and the store's own folders when nothing else is
    /// left in them. Refused while any record remains.
    async fn remove_empty(&self, lease: Lease) -> StoreResult<()>;

    /// The environment this is the state of.
    fn environment(&self) -> &str;

    /// Writes one record if what is there is what the writer believes; a lost race is
    /// [`StoreError::Conflict`], never an overwrite.
    ///
    /// This default is for storage without compare-and-swap: it reads, compares, writes, and reads
    /// back. The lease keeps other runs out; two tasks of one run are not kept apart.
    async fn put_if(
        &self,
        lease: &Lease,
        record: &Record,
        expected: &Expected,
    ) -> StoreResult<u64> {
        let address = &record.resource_id;
        let head = self.head().await?;
        let existing = self.get(address).await?;
        expected.check(address, existing.as_ref(), head.as_ref())?;
        let serial = self.put(lease, record).await?;
        let version = existing.map_or(serial, |existing| {
            existing.tidegate.version.saturating_add(1)
        });
        match self.get(address).await? {
            Some(written) if written.tidegate.version == version => Ok(serial),
            found => Err(StoreError::Conflict {
                what: format!("record `{address}`"),
                expected: format!("version {version}"),
                found: found.map_or_else(
                    || "no record".to_owned(),
                    |found| format!("version {}", found.tidegate.version),
                ),
            }),
        }
    }

    /// Every record and keepsake, each for itself: one that cannot be read hides no other.
    async fn each(&self) -> StoreResult<Each> {
        let records = self.list().await?;
        let mut each = Each::default();
        for record in records {
            each.records
                .push((record.resource_id.to_string(), Ok(record)));
        }
        for key in self.keepsakes().await? {
            if let Some(keepsake) = self.keepsake(&key).await.transpose() {
                each.keepsakes.push((key, keepsake));
            }
        }
        Ok(each)
    }

    /// Looks at what an earlier run had done and could not save, if that waits on this machine:
    /// where it is, and how many outcomes there are.
    async fn aside(&self) -> StoreResult<Option<(std::path::PathBuf, usize)>> {
        Ok(None)
    }

    /// The records that `filter` and `page` ask for.
    async fn find(&self, filter: &Filter, page: &Page) -> StoreResult<Listing> {
        Ok(Listing::of(self.list().await?, filter, page))
    }

    /// Every environment this storage holds for the same project, sorted. A storage that cannot
    /// tell names at most its own.
    async fn environments(&self) -> StoreResult<Vec<String>> {
        let own = self.head().await?.map(|_| self.environment().to_owned());
        Ok(own.into_iter().collect())
    }

    /// The state of another environment of the same project in this storage, to look at only;
    /// `None` where the storage cannot tell.
    ///
    /// # Errors
    /// For names that cannot be an environment.
    fn beside(&self, environment: &str) -> StoreResult<Option<Box<dyn Store>>> {
        let _ = environment;
        Ok(None)
    }

    /// Removes everything of this environment, whatever is in it; answers the addresses of the
    /// removed records. Nothing is removed when one of them cannot be read.
    async fn wipe(&self, lease: Lease) -> StoreResult<Vec<Address>> {
        let addresses: Vec<Address> = self
            .list()
            .await?
            .into_iter()
            .map(|record| record.resource_id)
            .collect();
        for address in &addresses {
            self.delete(&lease, address).await?;
        }
        for key in self.keepsakes().await? {
            self.delete_keepsake(&lease, &key).await?;
        }
        self.journal_clear(&lease).await?;
        self.remove_empty(lease).await?;
        Ok(addresses)
    }

    /// The same for a state whose resources are known to be gone: what cannot be read is removed
    /// too, where the store can do that.
    async fn wipe_damaged(&self, lease: Lease) -> StoreResult<()> {
        if let Some(head) = self.head().await? {
            let nothing = Snapshot::nothing(self.environment(), &head);
            self.load(&lease, &nothing, None).await?;
        }
        self.remove_empty(lease).await
    }

    /// Why this environment can be neither read nor locked: its head is there, or what belongs to it is,
    /// and it cannot be read. `None` when it can, or when there is nothing.
    async fn beheaded(&self) -> StoreResult<Option<StoreError>> {
        Ok(None)
    }

    /// Makes this environment what `snapshot` says although its head cannot be read, in one step, as
    /// [`Store::load`] does for one that can be locked. Whoever holds its lock has lost it then.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the head can be read.
    async fn load_over_damage(
        &self,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        let _ = key;
        Err(StoreError::Invalid(format!(
            "{} cannot take over serial {} in the place of a head that cannot be read",
            self.location(),
            snapshot.serial
        )))
    }

    /// Frees the lock if the run `run_id` holds it, whoever asks; answers that holder, or `None`
    /// when the lock is free. Its lease is worth nothing from then on.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another run holds it.
    async fn force_unlock(&self, run_id: &str) -> StoreResult<Option<Holder>> {
        Err(StoreError::Invalid(format!(
            "{} cannot free the lock of run {run_id}; it lapses by itself",
            self.location()
        )))
    }

    /// Everything of this environment as it was at one moment; `None` when it has no state.
    async fn snapshot(&self) -> StoreResult<Option<Snapshot>> {
        const ATTEMPTS: u32 = 10;
        let Some(mut head) = self.head().await? else {
            return Ok(None);
        };
        for _ in 0..ATTEMPTS {
            let records = self.list().await?;
            let mut keepsakes = std::collections::BTreeMap::new();
            for key in self.keepsakes().await? {
                if let Some(keepsake) = self.keepsake(&key).await? {
                    keepsakes.insert(key, keepsake);
                }
            }
            let journal = self.journal_read().await?;
            let mut snapshot = Snapshot {
                format: snapshot::FORMAT,
                environment: self.environment().to_owned(),
                lineage: head.lineage.clone(),
                serial: head.serial,
                key_check: String::new(),
                records,
                keepsakes,
                journal,
            };
            match self.head().await? {
                Some(after) if after == head => {
                    if snapshot.sealed_values() > 0
                        && let Some(key) = self.key(false).await?
                    {
                        snapshot.key_check = own::key_check(&key);
                    }
                    return Ok(Some(snapshot));
                }
                Some(after) => head = after,
                None => return Ok(None),
            }
        }
        Err(StoreError::Storage(
            "the state changes all the time; try again when the run that writes it has ended"
                .to_owned(),
        ))
    }

    /// Makes this environment exactly what `snapshot` says: records as they are, with their times
    /// and versions, lineage and serial included. With `key`, that is the one its values are sealed
    /// with, and takes the place of the one that is kept here, whose sealed values go. All in one
    /// step: whatever cuts it off, what was is there, or what comes.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the key of this store is another one, given from outside.
    async fn load(
        &self,
        lease: &Lease,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        let _ = key;
        Err(StoreError::Invalid(format!(
            "{} cannot take over serial {} as a whole (fence {})",
            self.location(),
            snapshot.serial,
            lease.fence
        )))
    }
}

/// Tells whether `snapshot` was sealed with `key`.
pub fn is_key_of(snapshot: &Snapshot, key: &[u8; 32]) -> bool {
    snapshot.key_check.is_empty() || snapshot.key_check == own::key_check(key)
}
