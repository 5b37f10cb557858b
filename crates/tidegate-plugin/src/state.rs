//! State backends: places where hosts keep their records.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::{Map, Result, convention, iac};

/// One record. Its JSON fields are raw bytes, shared with the connection they came from: a backend
/// that only stores them never parses or copies them.
pub type StateRecord = iac::IaCState;

/// Opens stores by backend name.
#[async_trait]
pub trait StateBackend: Send + Sync + 'static {
    /// The names a config may use (`backend: s3`). Never `memory`, `filesystem` or `postgres`, which
    /// hosts keep for themselves.
    fn names(&self) -> Vec<String>;
    /// Opens the store that `settings` (the whole config of the state module) describe. Bad
    /// settings are [`Error::invalid`](crate::Error::invalid). Called again, the new store replaces
    /// the old one.
    async fn configure(&self, name: &str, settings: Map) -> Result<Box<dyn StateStore>>;
}

/// A place for records. Calls may run concurrently.
#[async_trait]
pub trait StateStore: Send + Sync + 'static {
    /// The record, or `None`.
    async fn get(&self, id: &str) -> Result<Option<StateRecord>>;
    /// Stores the whole record, replacing one of the same id.
    async fn save(&self, record: StateRecord) -> Result<()>;
    /// All records that match every entry of `filter` ([`matches`] tests one).
    async fn list(&self, filter: &BTreeMap<String, String>) -> Result<Vec<StateRecord>>;
    /// Removes the record; one that is missing is [`Error::not_found`](crate::Error::not_found).
    async fn delete(&self, id: &str) -> Result<()>;
    /// Takes the lock; one that is held is [`Error::conflict`](crate::Error::conflict).
    async fn lock(&self, id: &str) -> Result<()>;
    /// Gives the lock back; one that is not held is an error.
    async fn unlock(&self, id: &str) -> Result<()>;

    /// Whether [`StateStore::save_if`] compares and writes in one step. Hosts that know how to ask
    /// then use it instead of the lock.
    fn compares(&self) -> bool {
        false
    }
    /// Stores the whole record if what is there is `before`, or is
    /// [`Error::conflict`](crate::Error::conflict). The version of a record is its `provider_id`,
    /// chosen by its writer.
    async fn save_if(&self, record: StateRecord, before: Before) -> Result<()> {
        drop((record, before));
        Err(crate::Error::unimplemented(
            "this state backend cannot compare before it writes",
        ))
    }
}

/// What a writer believes to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// No record of that id.
    Nothing,
    /// The record of this version.
    Version(String),
}

/// Whether a record passes a filter. The keys `resource_type`, `provider` and `status` count;
/// others are ignored,
/// but for [`convention::UNDER`].
pub fn matches(record: &StateRecord, filter: &BTreeMap<String, String>) -> bool {
    filter.iter().all(|(key, wanted)| match key.as_str() {
        "resource_type" => record.resource_type == *wanted,
        "provider" => record.provider == *wanted,
        "status" => record.status == *wanted,
        convention::UNDER => record.resource_id.starts_with(wanted.as_str()),
        _ => true,
    })
}
