//! Removing: journals that are over, rooms nobody looks into, a whole environment.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::state::{Lease, StoreResult};

use super::change::Change;
use super::head::HeadFile;
use super::{PARALLEL, Served};

/// How long before its lease lapses a removal proves it again.
const SPARE: Duration = Duration::from_secs(30);
impl Served {
    async fn delete_all(&self, ids: Vec<String>) -> StoreResult<()> {
        let deletions = ids.into_iter().map(|id| {
            let shelf = Arc::clone(&self.guarded.shelf);
            async move { shelf.delete(&id).await }
        });
        stream::iter(deletions)
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<()>>()
            .await
            .map(drop)
    }

    /// Removes what the journal held. Its numbers are never used again, so nobody is hurt when that
    /// fails: nobody looks there, and the removal of the environment takes it.
    pub(super) async fn forget_journal(&self, head: &HeadFile, from: u64) {
        let ids = (from..head.journal_start)
            .map(|number| self.journal_id(&head.room, number))
            .collect();
        drop(self.delete_all(ids).await);
    }

    /// Removes the rooms that are no state; answers which ones are empty now.
    pub(super) async fn sweep(&self, head: &mut HeadFile) -> Vec<String> {
        let mut swept = Vec::new();
        for room in std::mem::take(&mut head.rubbish) {
            if self.clear(&self.room_id(&room)).await.is_ok() {
                swept.push(room);
            } else {
                head.rubbish.push(room);
            }
        }
        swept
    }

    /// Removes everything below an id.
    async fn clear(&self, ancestor: &str) -> StoreResult<()> {
        let ids = self.shelf().under(ancestor).await?;
        self.delete_all(ids).await
    }

    /// Removes the environment. Marked first, so that a removal that dies is never taken for a
    /// state; the lock is held until the head itself goes, last.
    pub(super) async fn leave(&self, lease: &Lease) -> StoreResult<()> {
        self.change(lease, Change::Leave).await?;
        let proven = self.clock.monotonic();
        // Every room, also those that runs of older programs died over and nobody knows of.
        self.clear(&self.rooms_id()).await?;
        let passed = self.clock.monotonic().saturating_sub(proven);
        if passed > self.renewal.lease.saturating_sub(SPARE) {
            self.change(lease, Change::Renew).await?;
        }
        let mut turn = self.turn.lock().await;
        *turn = None;
        self.shelf().delete(self.head_id()).await
    }
}
