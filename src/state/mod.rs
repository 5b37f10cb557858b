//! State: what we remember about one environment, who may write it, and the journal that survives
//! us. Backends implement [`Store`]; the engine never knows which one it has.

pub mod filesystem;
pub mod journal;
pub mod lease;
pub mod name;
pub mod record;

mod convert;
mod fault;
mod frame;
mod secret_key;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::resource::Address;

pub use filesystem::Filesystem;
pub use journal::Entry;
pub use lease::Renewal;
pub use record::Record;

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
    /// RFC 3339 start of the hold.
    pub since: String,
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
#[derive(Debug, thiserror::Error)]
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
    /// The storage below failed.
    #[error("{0}")]
    Storage(String),
}

/// Result of a store call.
pub type StoreResult<T> = Result<T, StoreError>;

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
    /// Removes everything of this environment, and the store's own folders when nothing else is
    /// left in them. Refused while any record remains.
    async fn remove_empty(&self, lease: Lease) -> StoreResult<()>;
    /// Removes everything of this environment, records too: for a state whose resources are known
    /// to be gone. A store that can should also remove what cannot be read.
    async fn wipe(&self, lease: Lease) -> StoreResult<()> {
        for record in self.list().await? {
            self.delete(&lease, &record.resource_id).await?;
        }
        for key in self.keepsakes().await? {
            self.delete_keepsake(&lease, &key).await?;
        }
        self.journal_clear(&lease).await?;
        self.remove_empty(lease).await
    }
}
