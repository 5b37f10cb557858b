//! State backends: places where hosts keep their records.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::{Map, Result, iac};

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
}

/// Whether a record passes a filter. The keys `resource_type`, `provider` and `status` count;
/// others are ignored.
pub fn matches(record: &StateRecord, filter: &BTreeMap<String, String>) -> bool {
    filter.iter().all(|(key, wanted)| match key.as_str() {
        "resource_type" => record.resource_type == *wanted,
        "provider" => record.provider == *wanted,
        "status" => record.status == *wanted,
        _ => true,
    })
}
