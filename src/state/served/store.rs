//! The promises of a [`Store`], kept by [`Served`]: each in terms of what the other parts do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::random::encode_hex;
use crate::resource::Address;
use crate::state::journal::{self, Entry};
use crate::state::lease::{Process, Verdict};
use crate::state::own::{KeepsakeFile, Key, key_check};
use crate::state::{
    Each, Expected, Head, Holder, Keepsake, Lease, Record, Snapshot, Store, StoreError,
    StoreResult, frame, name,
};

use super::change::Change;
use super::head::HeadFile;
use super::salvage::environment_of;
use super::{Before, LOCK_POLL, SEPARATOR, Served, TRIES};

#[async_trait]
impl Store for Served {
    fn location(&self) -> String {
        format!(
            "{} (environment {})",
            self.shelf().place(),
            self.environment
        )
    }

    fn environment(&self) -> &str {
        &self.environment
    }

    async fn environments(&self) -> StoreResult<Vec<String>> {
        let parent = format!("{}{SEPARATOR}head", self.root);
        let heads = match self.shelf().children(&parent).await {
            Ok(heads) => heads.into_iter().map(|head| (head.id.clone(), Some(head))),
            // One of them cannot be read, which is no reason to hide the others.
            Err(StoreError::Corrupt { .. }) => return self.environments_by_name(&parent).await,
            Err(error) => return Err(error),
        };
        let mut names: Vec<String> = heads
            .filter_map(|(id, head)| environment_of(&id, head.as_ref()))
            .collect();
        names.sort();
        Ok(names)
    }

    fn beside(&self, environment: &str) -> StoreResult<Option<Box<dyn Store>>> {
        let project = self.root.rsplit(SEPARATOR).next().and_then(name::decode);
        let Some(project) = project else {
            return Ok(None);
        };
        let other = Self::open(
            Arc::clone(&self.guarded.shelf),
            &project,
            environment,
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )?;
        Ok(Some(Box::new(other.like(self))))
    }

    async fn head(&self) -> StoreResult<Option<Head>> {
        Ok(self.standing().await?.map(|head| head.public()))
    }

    async fn list(&self) -> StoreResult<Vec<Record>> {
        match self.objects("record").await? {
            Some((_, objects)) => self.records(&objects),
            None => Ok(Vec::new()),
        }
    }

    async fn each(&self) -> StoreResult<Each> {
        self.each_object().await
    }

    async fn get(&self, address: &Address) -> StoreResult<Option<Record>> {
        let Some(known) = self.standing_at().await? else {
            return Ok(None);
        };
        let id = self.record_id(&known.0.room, address);
        let object = match self.shelf().get(&id).await? {
            // One that was removed leaves a mark.
            None => self.confirm_absent("record", &known, &id).await?,
            there => there,
        };
        match object.and_then(|object| object.content) {
            Some(text) => self.decode(address, &text).map(Some),
            None => Ok(None),
        }
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
        let started = self.clock.monotonic();
        let mut races = 0;
        let mut is_broken = false;
        loop {
            let (verdict, known) = match self.read_head().await? {
                None => (Verdict::Take, None),
                Some((head, version)) => {
                    let verdict = match &head.held {
                        None => Verdict::Take,
                        Some(held) => self.left(&version, held),
                    };
                    (verdict, Some((head, version)))
                }
            };
            if verdict == Verdict::Take {
                let is_dead = known.as_ref().is_some_and(|(head, _)| {
                    let held = head.held.as_ref();
                    held.is_some_and(|held| self.neighbours.judge(&held.holder) == Process::Dead)
                });
                match self.take(holder, known).await {
                    Ok(Some(lease)) => return Ok(lease),
                    Ok(None) => {}
                    // It is not free for so long because its holder was killed in the middle of a write.
                    Err(StoreError::Guarded(_)) if is_dead && !is_broken => {
                        is_broken = true;
                        self.guarded.break_guard().await;
                    }
                    Err(error) => return Err(error),
                }
                // Somebody was faster; whether they hold it now is seen at once.
                races += 1;
                if races > TRIES {
                    return Err(self.too_busy());
                }
                self.pause(races).await;
                continue;
            }
            let left = wait.saturating_sub(self.clock.monotonic().saturating_sub(started));
            let held = known.and_then(|(head, _)| head.held);
            if let (true, Some(held), Verdict::Wait(expires_in)) = (left.is_zero(), held, verdict) {
                return Err(StoreError::Locked {
                    environment: self.environment.clone(),
                    holder: Box::new(held.holder),
                    expires_in,
                });
            }
            self.clock.sleep(LOCK_POLL.min(left)).await;
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
        let Some((head, version)) = self.read_head().await? else {
            return Ok(None);
        };
        Ok(head.held.and_then(|held| match self.left(&version, &held) {
            Verdict::Take => None,
            Verdict::Wait(expires_in) => Some((held.holder, expires_in)),
        }))
    }

    async fn force_unlock(&self, run_id: &str) -> StoreResult<Option<Holder>> {
        let held = self.read_head().await?.and_then(|(head, _)| head.held);
        // A run that was killed in the middle of a write left the storage's own lock as well.
        if held.is_none_or(|held| held.holder.run_id == run_id) {
            self.guarded.break_guard().await;
        }
        self.change_head(|head| {
            let Some(held) = head.held.take() else {
                return Ok(None);
            };
            if held.holder.run_id == run_id {
                return Ok(Some(held.holder));
            }
            Err(StoreError::Locked {
                environment: self.environment.clone(),
                expires_in: held.lease(),
                holder: Box::new(held.holder),
            })
        })
        .await
    }

    async fn journal_append(&self, lease: &Lease, entries: &[Entry]) -> StoreResult<()> {
        let mut lines = String::new();
        for entry in entries {
            journal::write_line(&mut lines, lease.fence, entry)
                .map_err(|error| StoreError::Storage(error.to_string()))?;
        }
        self.change(lease, Change::Append(&lines)).await.map(drop)
    }

    async fn journal_read(&self) -> StoreResult<Vec<Entry>> {
        match self.objects("journal").await? {
            Some((head, objects)) => self.entries(&head, &objects),
            None => Ok(Vec::new()),
        }
    }

    async fn journal_clear(&self, lease: &Lease) -> StoreResult<()> {
        self.change(lease, Change::Clear).await.map(drop)
    }

    async fn keepsake(&self, key: &str) -> StoreResult<Option<Keepsake>> {
        let Some(known) = self.standing_at().await? else {
            return Ok(None);
        };
        let id = self.keepsake_id(&known.0.room, key);
        let object = match self.shelf().get(&id).await? {
            // A generated secret that is gone must not be made anew.
            None => self.confirm_absent("keepsake", &known, &id).await?,
            there => there,
        };
        match object.and_then(|object| object.content) {
            Some(text) => KeepsakeFile::decode_text(&text, key).map(Some),
            None => Ok(None),
        }
    }

    async fn put_keepsake(&self, lease: &Lease, key: &str, value: &Keepsake) -> StoreResult<()> {
        let content = frame::to_text(&KeepsakeFile::new(key, value).encode()?);
        let change = Change::Keepsake {
            key,
            content: Some(&content),
        };
        self.change(lease, change).await.map(drop)
    }

    async fn keepsakes(&self) -> StoreResult<Vec<String>> {
        match self.objects("keepsake").await? {
            Some((_, objects)) => Ok(Self::keepsakes_in(&objects)?.into_keys().collect()),
            None => Ok(Vec::new()),
        }
    }

    async fn delete_keepsake(&self, lease: &Lease, key: &str) -> StoreResult<()> {
        let content = None;
        self.change(lease, Change::Keepsake { key, content })
            .await
            .map(drop)
    }

    async fn key(&self, create: bool) -> StoreResult<Option<Zeroizing<[u8; 32]>>> {
        let standing = self.standing().await?;
        if !create {
            return match &standing {
                Some(head) => self.known_key(head).await,
                None => Ok(self.key.clone()),
            };
        }
        if standing.is_none() {
            let head = HeadFile::new(&self.environment, self.random.as_ref());
            // Refused means that somebody made it just now.
            self.save_head(&head, Before::Nothing).await?;
        }
        let Some(head) = self.standing().await? else {
            return Err(self.too_busy());
        };
        // One that is given from outside now is not to lie beside what it opens any more.
        let is_beside = self.key.is_some() && head.key.is_some();
        if let Some(key) = self.known_key(&head).await?
            && head.key_check == key_check(&key)
            && !is_beside
        {
            return Ok(Some(key));
        }
        let mut fresh = Key::default();
        self.random.fill(&mut *fresh);
        let given = self.key.clone();
        self.change_head(|head| {
            let key = match (&given, head.own_key()?) {
                (Some(given), _) => {
                    head.key = None;
                    given.clone()
                }
                (None, Some(own)) => own,
                (None, None) => {
                    head.key = Some(encode_hex(&*fresh));
                    fresh.clone()
                }
            };
            head.key_check = key_check(&key);
            Ok(Some(key))
        })
        .await
    }

    async fn remove_empty(&self, lease: Lease) -> StoreResult<()> {
        let records = self.list().await?.len();
        let entries = self.journal_read().await?;
        let intents = journal::open_intents(&entries).len();
        // A lease that is not ours any more is the better reason to refuse.
        self.change(&lease, Change::Renew).await?;
        if records > 0 || intents > 0 {
            return Err(StoreError::Storage(format!(
                "cannot remove the state of environment `{}`: {records} records remain, and \
                 {intents} intents have no known outcome",
                self.environment
            )));
        }
        self.leave(&lease).await
    }

    async fn wipe(&self, lease: Lease) -> StoreResult<Vec<Address>> {
        let records = self.list().await?;
        self.leave(&lease).await?;
        Ok(records
            .into_iter()
            .map(|record| record.resource_id)
            .collect())
    }

    async fn wipe_damaged(&self, lease: Lease) -> StoreResult<()> {
        self.leave(&lease).await
    }

    async fn beheaded(&self) -> StoreResult<Option<StoreError>> {
        match self.read_head().await {
            Err(error @ StoreError::Corrupt { .. }) => Ok(Some(error)),
            other => other.map(|_| None),
        }
    }

    async fn load_over_damage(
        &self,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        snapshot.refuse_stranger(&self.environment, key, self.key.as_ref())?;
        self.replace_head(snapshot, key).await
    }

    async fn load(
        &self,
        lease: &Lease,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        snapshot.refuse_stranger(&self.environment, key, self.key.as_ref())?;
        self.replace_all(lease, snapshot, key).await
    }
}
