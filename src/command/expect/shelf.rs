//! A state that was given: it is read, and refuses every write.

use std::time::Duration;

use async_trait::async_trait;

use crate::resource::Address;
use crate::state::{Entry, Head, Holder, Keepsake, Lease, Record, Store, StoreError, StoreResult};

/// Records of a test case.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) environment: String,
    pub(super) records: Vec<Record>,
}

fn refused<T>() -> StoreResult<T> {
    Err(StoreError::Storage(
        "a given state is never written".to_owned(),
    ))
}

#[async_trait]
impl Store for Shelf {
    fn location(&self) -> String {
        "given by the test case".to_owned()
    }

    fn environment(&self) -> &str {
        &self.environment
    }

    async fn head(&self) -> StoreResult<Option<Head>> {
        Ok(None)
    }

    async fn list(&self) -> StoreResult<Vec<Record>> {
        Ok(self.records.clone())
    }

    async fn get(&self, address: &Address) -> StoreResult<Option<Record>> {
        Ok(self
            .records
            .iter()
            .find(|record| record.resource_id == *address)
            .cloned())
    }

    async fn put(&self, _: &Lease, _: &Record) -> StoreResult<u64> {
        refused()
    }

    async fn delete(&self, _: &Lease, _: &Address) -> StoreResult<u64> {
        refused()
    }

    async fn lock(&self, _: &Holder, _: Duration) -> StoreResult<Lease> {
        refused()
    }

    async fn renew(&self, _: &Lease) -> StoreResult<()> {
        refused()
    }

    async fn unlock(&self, _: &Lease) -> StoreResult<()> {
        refused()
    }

    async fn holder(&self) -> StoreResult<Option<(Holder, Duration)>> {
        Ok(None)
    }

    async fn journal_append(&self, _: &Lease, _: &[Entry]) -> StoreResult<()> {
        refused()
    }

    async fn journal_read(&self) -> StoreResult<Vec<Entry>> {
        Ok(Vec::new())
    }

    async fn journal_clear(&self, _: &Lease) -> StoreResult<()> {
        refused()
    }

    async fn keepsake(&self, _: &str) -> StoreResult<Option<Keepsake>> {
        Ok(None)
    }

    async fn put_keepsake(&self, _: &Lease, _: &str, _: &Keepsake) -> StoreResult<()> {
        refused()
    }

    async fn keepsakes(&self) -> StoreResult<Vec<String>> {
        Ok(Vec::new())
    }

    async fn delete_keepsake(&self, _: &Lease, _: &str) -> StoreResult<()> {
        refused()
    }

    async fn key(&self, _: bool) -> StoreResult<Option<zeroize::Zeroizing<[u8; 32]>>> {
        Ok(None)
    }

    async fn remove_empty(&self, _: Lease) -> StoreResult<()> {
        refused()
    }
}
