//! The store as one run reaches it: the real one in memory, behind a line on which each request may
//! fail before or after it was carried out, be slow, or never be answered. Everything that becomes
//! durable is told to the truth.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::clock::Clock as _;
use tidegate::resource::{ActionKind, Address};
use tidegate::state::{
    Entry, Head, Holder, Keepsake, Lease, Memory, Record, Store, StoreError, StoreResult,
};
use zeroize::Zeroizing;

use super::cloud::{never, yield_once};
use super::defects::Defect;
use super::lock;
use super::time::{Actor, VirtualClock};
use super::truth::{CANARY, Shared, Trouble, Truth};

const DEPOSED: &str = "deposed/";

#[derive(Debug)]
pub(super) struct Line {
    pub(super) store: Memory,
    pub(super) truth: Shared,
    pub(super) clock: Arc<VirtualClock>,
    pub(super) actor: Arc<Actor>,
    /// What planted mistakes hold back; it dies with the run.
    held_back: Mutex<(Vec<Entry>, Vec<Record>)>,
    /// The lease the store gave, when a planted mistake shows another one.
    real_lease: Mutex<Option<Lease>>,
}

/// One change of what the store holds.
enum Write<'a> {
    Put(&'a Record),
    Delete(&'a Address),
    Append(&'a [Entry]),
    Clear,
    Keep(&'a str, &'a Keepsake),
    LetGo(&'a str),
}

impl Write<'_> {
    fn words(&self) -> String {
        match self {
            Self::Put(record) => format!("put {}", record.resource_id),
            Self::Delete(address) => format!("forget {address}"),
            Self::Append(entries) => format!("append {}", entries.len()),
            Self::Clear => "clear".to_owned(),
            Self::Keep(key, _) => format!("keep {key}"),
            Self::LetGo(key) => format!("let go of {key}"),
        }
    }

    /// It is durable now.
    fn tell(&self, truth: &mut Truth) {
        let deposed = |key: &str| key.strip_prefix(DEPOSED).map(Address::new);
        match self {
            Self::Put(record) => {
                truth.wrote(record);
                let text = serde_json::to_string(record).unwrap();
                truth.leaks("a record", &text);
            }
            Self::Delete(address) => {
                truth.records.remove(*address);
            }
            Self::Append(entries) => {
                truth.journaled(entries);
                let text = serde_json::to_string(entries).unwrap();
                truth.leaks("the journal", &text);
            }
            Self::Clear => truth.open.clear(),
            Self::Keep(key, _) => truth.deposed.extend(deposed(key)),
            Self::LetGo(key) => {
                if let Some(address) = deposed(key) {
                    truth.deposed.remove(&address);
                }
            }
        }
    }
}

fn broken() -> StoreError {
    StoreError::Storage("simulated: the line is broken".to_owned())
}

impl Line {
    pub(super) fn new(
        store: Memory,
        truth: Shared,
        clock: Arc<VirtualClock>,
        actor: Arc<Actor>,
    ) -> Self {
        Self {
            store,
            truth,
            clock,
            actor,
            held_back: Mutex::default(),
            real_lease: Mutex::default(),
        }
    }

    fn has(&self, defect: Defect) -> bool {
        lock(&self.truth).has(defect)
    }

    async fn step(&self, what: &str) {
        if !self.actor.is_dead() {
            let now = self.clock.monotonic();
            lock(&self.truth).step(&self.actor, now, what);
        }
        if self.actor.is_dead() {
            never::<()>().await;
        }
        if lock(&self.actor.asleep_until).is_some() {
            yield_once().await;
        }
    }

    /// The way there. An error is a request that never arrived.
    async fn there(&self, what: &str) -> StoreResult<Trouble> {
        self.step(what).await;
        let trouble = lock(&self.truth).trouble();
        match trouble {
            Trouble::Before => return Err(broken()),
            Trouble::Delay(long) => {
                self.clock.sleep(long).await;
                // The line may have been down for as long as the run was.
                if self.actor.is_dead() {
                    never::<()>().await;
                }
            }
            Trouble::Never if lock(&self.truth).dice.chance(500) => never::<()>().await,
            Trouble::None | Trouble::After | Trouble::Never => {}
        }
        Ok(trouble)
    }

    /// The way back.
    async fn back<T>(&self, what: &str, trouble: Trouble, answer: T) -> StoreResult<T> {
        match trouble {
            Trouble::After => Err(broken()),
            Trouble::Never => never().await,
            Trouble::None | Trouble::Before | Trouble::Delay(_) => {
                self.step(what).await;
                Ok(answer)
            }
        }
    }

    async fn read<T>(
        &self,
        what: &str,
        read: impl Future<Output = StoreResult<T>>,
    ) -> StoreResult<T> {
        let trouble = self.there(what).await?;
        let answer = read.await?;
        self.back("answer", trouble, answer).await
    }

    fn lease(&self, lease: &Lease) -> Lease {
        lock(&self.real_lease)
            .clone()
            .unwrap_or_else(|| lease.clone())
    }

    async fn carry_out(&self, lease: &Lease, write: &Write<'_>) -> StoreResult<()> {
        match *write {
            Write::Put(record) => self.store.put(lease, record).await.map(drop),
            Write::Delete(address) => self.store.delete(lease, address).await.map(drop),
            Write::Append(entries) => self.store.journal_append(lease, entries).await,
            Write::Clear => self.store.journal_clear(lease).await,
            Write::Keep(key, keepsake) => self.store.put_keepsake(lease, key, keepsake).await,
            Write::LetGo(key) => self.store.delete_keepsake(lease, key).await,
        }
    }

    /// One write: the store decides, the truth is told.
    async fn write(&self, lease: &Lease, write: Write<'_>) -> StoreResult<()> {
        let what = write.words();
        let trouble = self.there(&what).await?;
        let mut real = self.lease(lease);
        let before = self.store.head().await?.map_or(0, |head| head.serial);
        if self.has(Defect::WritesTwice) {
            self.carry_out(&real, &write).await?;
        }
        let mut written = self.carry_out(&real, &write).await;
        if matches!(written, Err(StoreError::LostLock { .. }))
            && self.has(Defect::IgnoresLostLock)
            && let Some((holder, _)) = self.store.holder().await?
            && let Some(head) = self.store.head().await?
        {
            real = Lease {
                fence: head.fence,
                holder,
                taken_over: None,
            };
            written = self.carry_out(&real, &write).await;
        }
        written?;
        let after = self.store.head().await?.map_or(0, |head| head.serial);
        {
            let mut truth = lock(&self.truth);
            truth.accepted(&lease.holder.run_id, lease.fence);
            let moves = u64::from(matches!(write, Write::Put(_)));
            let moved = after.wrapping_sub(before);
            if moved != moves && !(moved == 1 && matches!(write, Write::Delete(_))) {
                truth.violated(format!(
                    "I5: {what} moved the serial from {before} to {after}"
                ));
            }
            write.tell(&mut truth);
            truth.check();
        }
        self.back("written", trouble, ()).await
    }

    async fn put_now(&self, lease: &Lease, record: &Record) -> StoreResult<u64> {
        let mut record = record.clone();
        if record.status == "error" && self.has(Defect::RecordsSecrets) {
            record.error = format!("{} {CANARY}", record.error);
        }
        self.write(lease, Write::Put(&record)).await?;
        Ok(self.store.head().await?.map_or(0, |head| head.serial))
    }

    async fn append_now(&self, lease: &Lease, entries: &[Entry]) -> StoreResult<()> {
        self.write(lease, Write::Append(entries)).await
    }

    /// What planted mistakes held back becomes durable at last.
    async fn flush(&self, lease: &Lease) -> StoreResult<()> {
        let (entries, records) = std::mem::take(&mut *lock(&self.held_back));
        for record in &records {
            self.put_now(lease, record).await?;
        }
        if !entries.is_empty() {
            self.append_now(lease, &entries).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Line {
    fn location(&self) -> String {
        self.store.location()
    }
    fn environment(&self) -> &str {
        self.store.environment()
    }
    async fn head(&self) -> StoreResult<Option<Head>> {
        self.read("head", self.store.head()).await
    }
    async fn list(&self) -> StoreResult<Vec<Record>> {
        let mut records = self.read("list", self.store.list()).await?;
        let unreadable = {
            let mut truth = lock(&self.truth);
            let strikes = !truth.calm && truth.store_fault_rate > 0 && truth.dice.chance(30);
            if strikes && !records.is_empty() {
                truth.count("store: a record is unreadable");
                Some(usize::try_from(truth.dice.below(records.len() as u64)).unwrap())
            } else {
                None
            }
        };
        if let Some(at) = unreadable {
            let record = records.remove(at);
            if !self.has(Defect::SkipsUnreadable) {
                return Err(StoreError::Corrupt {
                    what: format!("record `{}`", record.resource_id),
                    reason: "simulated damage".to_owned(),
                });
            }
        }
        Ok(records)
    }
    async fn get(&self, address: &Address) -> StoreResult<Option<Record>> {
        self.read("get", self.store.get(address)).await
    }
    async fn put(&self, lease: &Lease, record: &Record) -> StoreResult<u64> {
        if self.has(Defect::RecordNotFlushed) || self.has(Defect::OutcomeBeforeRecord) {
            lock(&self.held_back).1.push(record.clone());
            return Ok(0);
        }
        self.flush(lease).await?;
        self.put_now(lease, record).await
    }
    async fn delete(&self, lease: &Lease, address: &Address) -> StoreResult<u64> {
        self.flush(lease).await?;
        self.write(lease, Write::Delete(address)).await?;
        Ok(self.store.head().await?.map_or(0, |head| head.serial))
    }

    async fn lock(&self, holder: &Holder, wait: Duration) -> StoreResult<Lease> {
        let trouble = self.there("lock").await?;
        let lease = if self.has(Defect::LocksAnyway) {
            let held = self.store.holder().await?;
            if let Some((holder, _)) = &held {
                self.store.force_unlock(&holder.run_id).await?;
            }
            let lease = self.store.lock(holder, wait).await?;
            if let Some((other, left)) = held {
                lock(&self.truth).violated(format!(
                    "I8: the lock of {}, good for {left:?} more, was taken",
                    other.run_id
                ));
            }
            lease
        } else {
            self.store.lock(holder, wait).await?
        };
        lock(&self.truth).granted = lease.fence;
        let lease = if self.has(Defect::ReusesFences) {
            *lock(&self.real_lease) = Some(lease.clone());
            Lease { fence: 1, ..lease }
        } else {
            lease
        };
        if lease.taken_over.is_some() {
            lock(&self.truth).count("recovery: a lapsed lock is taken over");
        }
        self.back("locked", trouble, lease).await
    }
    async fn renew(&self, lease: &Lease) -> StoreResult<()> {
        if self.has(Defect::NeverRenews) {
            return Ok(());
        }
        let trouble = self.there("renew").await?;
        match self.store.renew(&self.lease(lease)).await {
            Err(StoreError::LostLock { .. }) if self.has(Defect::IgnoresLostLock) => {}
            answer => answer?,
        }
        self.back("renewed", trouble, ()).await
    }
    async fn unlock(&self, lease: &Lease) -> StoreResult<()> {
        self.flush(lease).await?;
        let trouble = self.there("unlock").await?;
        let before = self.store.holder().await?;
        let answer = if self.has(Defect::UnlocksAnybody) {
            if let Some((holder, _)) = &before {
                self.store.force_unlock(&holder.run_id).await?;
            }
            Ok(())
        } else {
            self.store.unlock(&self.lease(lease)).await
        };
        let after = self.store.holder().await?;
        if let (Some((holder, _)), None) = (before, after)
            && holder.run_id != lease.holder.run_id
        {
            lock(&self.truth).violated(format!(
                "I8: {} gave back the lock of {}",
                lease.holder.run_id, holder.run_id
            ));
        }
        answer?;
        self.back("unlocked", trouble, ()).await
    }
    async fn holder(&self) -> StoreResult<Option<(Holder, Duration)>> {
        self.read("holder", self.store.holder()).await
    }

    async fn journal_append(&self, lease: &Lease, entries: &[Entry]) -> StoreResult<()> {
        if self.has(Defect::JournalNotFlushed) {
            lock(&self.held_back).0.extend_from_slice(entries);
            return Ok(());
        }
        if self.has(Defect::SettlesInVain)
            && entries.iter().any(
                |entry| matches!(entry, Entry::Outcome { outcome, .. } if outcome == "settled"),
            )
        {
            return Ok(());
        }
        if self.has(Defect::IntentAfterCall) {
            let is_intent = |entry: &Entry| matches!(entry, Entry::Intent { .. });
            if entries.iter().all(is_intent) {
                lock(&self.held_back).0.extend_from_slice(entries);
                return Ok(());
            }
        }
        if self.has(Defect::OutcomeBeforeRecord) {
            self.append_now(lease, entries).await?;
            return self.flush(lease).await;
        }
        if !self.has(Defect::RecordNotFlushed) {
            self.flush(lease).await?;
        }
        self.append_now(lease, entries).await?;
        if self.has(Defect::ForgetsBeforeDeleting) {
            for entry in entries {
                if let Entry::Intent {
                    address,
                    action: ActionKind::Delete,
                    ..
                } = entry
                {
                    self.delete(lease, address).await?;
                }
            }
        }
        Ok(())
    }
    async fn journal_read(&self) -> StoreResult<Vec<Entry>> {
        let entries = self.read("journal", self.store.journal_read()).await?;
        if self.has(Defect::NoRecovery) {
            return Ok(Vec::new());
        }
        if self.has(Defect::ClearsJournalFirst)
            && let Some((holder, _)) = self.store.holder().await?
            && let Some(head) = self.store.head().await?
        {
            let lease = Lease {
                fence: head.fence,
                holder,
                taken_over: None,
            };
            self.journal_clear(&lease).await?;
        }
        Ok(entries)
    }
    async fn journal_clear(&self, lease: &Lease) -> StoreResult<()> {
        if self.has(Defect::SettlesInVain) {
            return Ok(());
        }
        self.write(lease, Write::Clear).await
    }

    async fn keepsake(&self, key: &str) -> StoreResult<Option<Keepsake>> {
        self.read("keepsake", self.store.keepsake(key)).await
    }
    async fn put_keepsake(&self, lease: &Lease, key: &str, value: &Keepsake) -> StoreResult<()> {
        self.write(lease, Write::Keep(key, value)).await
    }
    async fn keepsakes(&self) -> StoreResult<Vec<String>> {
        self.read("keepsakes", self.store.keepsakes()).await
    }
    async fn delete_keepsake(&self, lease: &Lease, key: &str) -> StoreResult<()> {
        self.write(lease, Write::LetGo(key)).await
    }
    async fn key(&self, create: bool) -> StoreResult<Option<Zeroizing<[u8; 32]>>> {
        self.store.key(create).await
    }
    async fn remove_empty(&self, lease: Lease) -> StoreResult<()> {
        self.store.remove_empty(lease).await
    }
}
