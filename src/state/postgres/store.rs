//! The promises of a [`Store`], kept by [`Postgres`]: each in terms of what the other parts do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::types::Type;
use zeroize::Zeroizing;

use crate::resource::Address;
use crate::state::journal::Entry;
use crate::state::lease::Verdict;
use crate::state::own::KeepsakeFile;
use crate::state::{
    Each, Expected, Head, Holder, Keepsake, Lease, Record, Snapshot, Store, StoreError,
    StoreResult, name,
};

use super::change::Change;
use super::connection::Failure;
use super::{ANSWER_WAIT, LOCK_POLL, Postgres, lines};

#[async_trait]
impl Store for Postgres {
    fn location(&self) -> String {
        format!(
            "postgres {} (project {}, environment {})",
            self.server.place(),
            self.project,
            self.environment
        )
    }

    fn environment(&self) -> &str {
        &self.environment
    }

    async fn environments(&self) -> StoreResult<Vec<String>> {
        let rows = self
            .rows_of(
                &format!(
                    "SELECT environment FROM {}.environments WHERE project = $1",
                    self.schema
                ),
                &[(&self.project, Type::TEXT)],
            )
            .await?;
        let mut environments: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        environments.sort_unstable();
        Ok(environments)
    }

    fn beside(&self, environment: &str) -> StoreResult<Option<Box<dyn Store>>> {
        let other = Self::open(
            self.server.clone(),
            &self.schema,
            &self.project,
            environment,
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )?;
        Ok(Some(Box::new(other.like(self))))
    }

    async fn head(&self) -> StoreResult<Option<Head>> {
        Ok(self.standing().await?.map(|standing| standing.head()))
    }

    async fn list(&self) -> StoreResult<Vec<Record>> {
        let mut records = self
            .rows(&self.records_query(), &[])
            .await?
            .iter()
            .map(|row| self.read_row(row))
            .collect::<StoreResult<Vec<Record>>>()?;
        records.sort_by(|left, right| left.resource_id.cmp(&right.resource_id));
        Ok(records)
    }

    async fn each(&self) -> StoreResult<Each> {
        self.each_row().await
    }

    async fn get(&self, address: &Address) -> StoreResult<Option<Record>> {
        let statement = format!(
            "SELECT content FROM {}.records \
             WHERE project = $1 AND environment = $2 AND name = $3",
            self.schema
        );
        let rows = self
            .rows(&statement, &[(&name::encode(address.as_str()), Type::TEXT)])
            .await?;
        rows.first()
            .map(|row| self.read_record(row.get(0), address))
            .transpose()
    }

    async fn put(&self, lease: &Lease, record: &Record) -> StoreResult<u64> {
        let expected = None;
        self.change(lease, Change::Put { record, expected }).await
    }

    async fn put_if(
        &self,
        lease: &Lease,
        record: &Record,
        expected: &Expected,
    ) -> StoreResult<u64> {
        let expected = Some(expected);
        self.change(lease, Change::Put { record, expected }).await
    }

    async fn delete(&self, lease: &Lease, address: &Address) -> StoreResult<u64> {
        self.change(lease, Change::Delete(address)).await
    }

    async fn lock(&self, holder: &Holder, wait: Duration) -> StoreResult<Lease> {
        let text = serde_json::to_string(holder)
            .map_err(|error| StoreError::Storage(format!("cannot write the lock: {error}")))?;
        let started = self.clock.monotonic();
        let mut attempt = 0;
        loop {
            let taken = self.try_lock(holder, &text, attempt > 0);
            match self.server.within(ANSWER_WAIT, taken).await {
                Ok(Ok(lease)) => return Ok(lease),
                Ok(Err((other, expires_in))) => {
                    attempt = 0;
                    let waited = self.clock.monotonic().saturating_sub(started);
                    let left = wait.saturating_sub(waited);
                    if left.is_zero() {
                        return Err(StoreError::Locked {
                            environment: self.environment.clone(),
                            holder: Box::new(other),
                            expires_in,
                        });
                    }
                    self.clock.sleep(LOCK_POLL.min(left)).await;
                }
                Err(Failure::Store(error)) => return Err(error),
                Err(Failure::Lost(why)) => {
                    self.pause(attempt, why).await?;
                    attempt += 1;
                }
            }
        }
    }

    async fn renew(&self, lease: &Lease) -> StoreResult<()> {
        self.change(lease, Change::Renew).await.map(drop)
    }

    async fn unlock(&self, lease: &Lease) -> StoreResult<()> {
        match self.change(lease, Change::Unlock).await {
            // Given back already, or everything was removed.
            Err(StoreError::LostLock { ours, current, .. }) if ours == current || current == 0 => {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    async fn holder(&self) -> StoreResult<Option<(Holder, Duration)>> {
        Ok(self.standing().await?.and_then(|standing| {
            let verdict = self.verdict(&standing);
            match (standing.holder, verdict) {
                (Some(holder), Verdict::Wait(left)) => Some((holder, left)),
                _ => None,
            }
        }))
    }

    async fn force_unlock(&self, run_id: &str) -> StoreResult<Option<Holder>> {
        let mut attempt = 0;
        loop {
            let freed = self.try_free(run_id);
            match self.server.within(ANSWER_WAIT, freed).await {
                Ok(holder) => return Ok(holder),
                Err(Failure::Store(error)) => return Err(error),
                Err(Failure::Lost(why)) => self.pause(attempt, why).await?,
            }
            attempt += 1;
        }
    }

    async fn journal_append(&self, lease: &Lease, entries: &[Entry]) -> StoreResult<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let (batch, lines) = (self.batch(), lines(lease.fence, entries)?);
        self.change(lease, Change::Append { batch, lines })
            .await
            .map(drop)
    }

    async fn journal_read(&self) -> StoreResult<Vec<Entry>> {
        let rows = self.rows(&self.journal_query(), &[]).await?;
        self.read_lines(&rows)
    }

    async fn journal_clear(&self, lease: &Lease) -> StoreResult<()> {
        self.change(lease, Change::Clear).await.map(drop)
    }

    async fn keepsake(&self, key: &str) -> StoreResult<Option<Keepsake>> {
        let statement = format!(
            "SELECT content FROM {}.keepsakes \
             WHERE project = $1 AND environment = $2 AND name = $3",
            self.schema
        );
        let rows = self
            .rows(&statement, &[(&name::encode(key), Type::TEXT)])
            .await?;
        rows.first()
            .map(|row| KeepsakeFile::decode(row.get(0), key))
            .transpose()
    }

    async fn put_keepsake(&self, lease: &Lease, key: &str, value: &Keepsake) -> StoreResult<()> {
        let content = KeepsakeFile::new(key, value).encode()?;
        self.change(lease, Change::PutKeepsake { key, content })
            .await
            .map(drop)
    }

    async fn keepsakes(&self) -> StoreResult<Vec<String>> {
        let statement = format!(
            "SELECT key FROM {}.keepsakes WHERE project = $1 AND environment = $2",
            self.schema
        );
        let mut keys = Vec::new();
        for row in self.rows(&statement, &[]).await? {
            keys.push(
                String::from_utf8(row.get(0)).map_err(|_| StoreError::Corrupt {
                    what: format!("a keepsake (in {})", self.location()),
                    reason: "its key is not UTF-8".to_owned(),
                })?,
            );
        }
        keys.sort_unstable();
        Ok(keys)
    }

    async fn delete_keepsake(&self, lease: &Lease, key: &str) -> StoreResult<()> {
        self.change(lease, Change::DeleteKeepsake(key))
            .await
            .map(drop)
    }

    async fn key(&self, create: bool) -> StoreResult<Option<Zeroizing<[u8; 32]>>> {
        let mut attempt = 0;
        loop {
            let key = self.try_key(create);
            match self.server.within(ANSWER_WAIT, key).await {
                Ok(key) => return Ok(key),
                Err(Failure::Store(error)) => return Err(error),
                Err(Failure::Lost(why)) => self.pause(attempt, why).await?,
            }
            attempt += 1;
        }
    }

    async fn remove_empty(&self, lease: Lease) -> StoreResult<()> {
        self.change(&lease, Change::Remove).await.map(drop)
    }

    async fn load(
        &self,
        lease: &Lease,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        snapshot.refuse_stranger(&self.environment, key, self.key.as_ref())?;
        self.change(lease, Change::Load { snapshot, key })
            .await
            .map(drop)
    }
}
