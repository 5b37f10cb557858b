//! State in memory: for tests and for runs that are meant to forget. Nothing outlives the process,
//! and nothing is shared with another one.
//!
//! Everything is kept as the bytes any other store would write, so nobody holds a part of it, and
//! the same checks are passed on the way out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::clock::{Clock, rfc3339};
use crate::random::{Random, hex_of};
use crate::resource::Address;

use super::codec::Codec;
use super::journal::{Entry, open_intents};
use super::lease::{Process, Renewal, Verdict, Watched};
use super::own::{KeepsakeFile, Key, key_check};
use super::{
    Each, Expected, Head, Holder, Keepsake, Lease, Record, Snapshot, Store, StoreError, StoreResult,
};

const LOCK_POLL: Duration = Duration::from_millis(100);

/// What all handles of one process share.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<BTreeMap<String, World>>>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared([state])")
    }
}

impl Shared {
    fn worlds(&self) -> MutexGuard<'_, BTreeMap<String, World>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when no environment is left.
    pub fn is_empty(&self) -> bool {
        self.worlds().is_empty()
    }
}

/// One environment.
struct World {
    lineage: String,
    serial: u64,
    fence: u64,
    held: Option<Held>,
    key: Option<Key>,
    key_check: String,
    records: BTreeMap<Address, Vec<u8>>,
    keepsakes: BTreeMap<String, Vec<u8>>,
    journal: Vec<Entry>,
}

struct Held {
    holder: Holder,
    lease: Duration,
    renewed_at: Duration,
}

/// The state of one environment, in this process's memory.
pub struct Memory {
    shared: Shared,
    environment: String,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    renewal: Renewal,
    key: Option<Key>,
    codec: Codec,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// The state of `environment` among what `shared` holds. Expiry is told by `clock`, which all
    /// handles on `shared` have in common.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when `environment` is empty.
    pub fn open(
        shared: Shared,
        environment: &str,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> StoreResult<Self> {
        if environment.is_empty() {
            return Err(StoreError::Invalid(
                "the state store needs an environment name".to_owned(),
            ));
        }
        Ok(Self {
            shared,
            environment: environment.to_owned(),
            codec: Codec::plain(environment, Arc::clone(&random)),
            clock,
            random,
            renewal: Renewal::DEFAULT,
            key: None,
        })
    }

    /// Uses this state key instead of one of its own.
    #[must_use]
    pub fn with_key(mut self, key: [u8; 32]) -> Self {
        self.key = Some(Key::new(key));
        self
    }

    fn read<T>(&self, look: impl FnOnce(&World) -> StoreResult<T>, none: T) -> StoreResult<T> {
        match self.shared.worlds().get(&self.environment) {
            Some(world) => look(world),
            None => Ok(none),
        }
    }

    /// Changes the world if `lease` is still the current one.
    fn change<T>(
        &self,
        lease: &Lease,
        change: impl FnOnce(&mut World) -> StoreResult<T>,
    ) -> StoreResult<T> {
        let mut worlds = self.shared.worlds();
        let lost = |current| StoreError::LostLock {
            environment: self.environment.clone(),
            ours: lease.fence,
            current,
        };
        let world = worlds.get_mut(&self.environment).ok_or_else(|| lost(0))?;
        let is_ours = world.fence == lease.fence
            && world
                .held
                .as_ref()
                .is_some_and(|held| held.holder.run_id == lease.holder.run_id);
        if is_ours {
            change(world)
        } else {
            Err(lost(world.fence))
        }
    }

    fn decode(&self, address: &Address, bytes: &[u8]) -> StoreResult<Record> {
        self.codec
            .decode(bytes, &format_args!("record `{address}`"))
    }

    fn left(&self, held: &Held) -> Verdict {
        Watched {
            unchanged_for: self.clock.monotonic().saturating_sub(held.renewed_at),
            lease: held.lease,
            process: Process::Elsewhere,
        }
        .verdict()
    }

    fn put_checked(
        &self,
        lease: &Lease,
        record: &Record,
        expected: Option<&Expected>,
    ) -> StoreResult<u64> {
        let now = rfc3339(self.clock.now());
        let address = &record.resource_id;
        self.change(lease, |world| {
            let existing = match world.records.get(address) {
                Some(bytes) => Some(self.decode(address, bytes)?),
                None => None,
            };
            if let Some(expected) = expected {
                expected.check(address, existing.as_ref(), Some(&world.head()))?;
            }
            let next = record.succeed(existing.as_ref(), &self.environment, &now, world.serial + 1);
            let bytes = self.codec.encode(&next)?;
            world.records.insert(address.clone(), bytes);
            world.serial += 1;
            Ok(world.serial)
        })
    }

    fn sealed_values(&self, world: &World) -> StoreResult<usize> {
        let mut count = 0;
        for (address, bytes) in &world.records {
            let record = self.decode(address, bytes)?;
            count +=
                record.tidegate.sealed.len() + usize::from(!record.tidegate.private.is_empty());
        }
        for (key, bytes) in &world.keepsakes {
            count += usize::from(KeepsakeFile::decode(bytes, key)?.sealed.is_some());
        }
        Ok(count)
    }

    /// The given key or the one we made, if it is the right one.
    fn known_key(&self, world: &World) -> StoreResult<Option<Key>> {
        let key = self.key.as_ref().or(world.key.as_ref());
        let fits =
            key.is_none_or(|key| world.key_check.is_empty() || world.key_check == key_check(key));
        if !fits && self.sealed_values(world)? > 0 {
            return Err(StoreError::Corrupt {
                what: "the state key that was given".to_owned(),
                reason: "it is not the key that this state was sealed with".to_owned(),
            });
        }
        Ok(key.cloned())
    }
}

impl World {
    fn new(random: &dyn Random) -> Self {
        Self {
            lineage: hex_of::<16>(random),
            serial: 0,
            fence: 0,
            held: None,
            key: None,
            key_check: String::new(),
            records: BTreeMap::new(),
            keepsakes: BTreeMap::new(),
            journal: Vec::new(),
        }
    }

    fn head(&self) -> Head {
        Head {
            lineage: self.lineage.clone(),
            serial: self.serial,
            fence: self.fence,
        }
    }
}

#[async_trait]
impl Store for Memory {
    fn location(&self) -> String {
        format!("memory (environment {})", self.environment)
    }

    fn environment(&self) -> &str {
        &self.environment
    }

    async fn environments(&self) -> StoreResult<Vec<String>> {
        Ok(self.shared.worlds().keys().cloned().collect())
    }

    fn beside(&self, environment: &str) -> StoreResult<Option<Box<dyn Store>>> {
        let other = Self::open(
            self.shared.clone(),
            environment,
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )?;
        Ok(Some(Box::new(other)))
    }

    async fn head(&self) -> StoreResult<Option<Head>> {
        self.read(|world| Ok(Some(world.head())), None)
    }

    async fn list(&self) -> StoreResult<Vec<Record>> {
        self.read(
            |world| {
                world
                    .records
                    .iter()
                    .map(|(address, bytes)| self.decode(address, bytes))
                    .collect()
            },
            Vec::new(),
        )
    }

    async fn each(&self) -> StoreResult<Each> {
        let read = |world: &World| {
            let records = world.records.iter();
            let keepsakes = world.keepsakes.iter();
            Ok(Each {
                records: records
                    .map(|(address, bytes)| (address.to_string(), self.decode(address, bytes)))
                    .collect(),
                keepsakes: keepsakes
                    .map(|(key, bytes)| (key.clone(), KeepsakeFile::decode(bytes, key)))
                    .collect(),
                incomplete: None,
            })
        };
        self.read(read, Each::default())
    }

    async fn get(&self, address: &Address) -> StoreResult<Option<Record>> {
        self.read(
            |world| match world.records.get(address) {
                Some(bytes) => self.decode(address, bytes).map(Some),
                None => Ok(None),
            },
            None,
        )
    }

    async fn put(&self, lease: &Lease, record: &Record) -> StoreResult<u64> {
        self.put_checked(lease, record, None)
    }

    async fn put_if(
        &self,
        lease: &Lease,
        record: &Record,
        expected: &Expected,
    ) -> StoreResult<u64> {
        self.put_checked(lease, record, Some(expected))
    }

    async fn delete(&self, lease: &Lease, address: &Address) -> StoreResult<u64> {
        self.change(lease, |world| {
            if world.records.remove(address).is_some() {
                world.serial += 1;
            }
            Ok(world.serial)
        })
    }

    async fn lock(&self, holder: &Holder, wait: Duration) -> StoreResult<Lease> {
        let started = self.clock.monotonic();
        loop {
            let (other, expires_in) = {
                let mut worlds = self.shared.worlds();
                let world = worlds
                    .entry(self.environment.clone())
                    .or_insert_with(|| World::new(&*self.random));
                let verdict = world.held.as_ref().map(|held| self.left(held));
                match (verdict, &world.held) {
                    (Some(Verdict::Wait(expires_in)), Some(held)) => {
                        (Box::new(held.holder.clone()), expires_in)
                    }
                    _ => {
                        let taken_over = world.held.take().map(|held| Box::new(held.holder));
                        world.fence += 1;
                        world.held = Some(Held {
                            holder: holder.clone(),
                            lease: self.renewal.lease,
                            renewed_at: self.clock.monotonic(),
                        });
                        return Ok(Lease {
                            fence: world.fence,
                            holder: holder.clone(),
                            taken_over,
                        });
                    }
                }
            };
            let left = wait.saturating_sub(self.clock.monotonic().saturating_sub(started));
            if left.is_zero() {
                return Err(StoreError::Locked {
                    environment: self.environment.clone(),
                    holder: other,
                    expires_in,
                });
            }
            self.clock.sleep(LOCK_POLL.min(left)).await;
        }
    }

    async fn renew(&self, lease: &Lease) -> StoreResult<()> {
        let now = self.clock.monotonic();
        self.change(lease, |world| {
            if let Some(held) = &mut world.held {
                held.renewed_at = now;
            }
            Ok(())
        })
    }

    async fn unlock(&self, lease: &Lease) -> StoreResult<()> {
        match self.change(lease, |world| {
            world.held = None;
            Ok(())
        }) {
            // Given back already, or everything was removed.
            Err(StoreError::LostLock { ours, current, .. }) if ours == current || current == 0 => {
                Ok(())
            }
            other => other,
        }
    }

    async fn holder(&self) -> StoreResult<Option<(Holder, Duration)>> {
        self.read(
            |world| {
                Ok(world.held.as_ref().and_then(|held| match self.left(held) {
                    Verdict::Take => None,
                    Verdict::Wait(expires_in) => Some((held.holder.clone(), expires_in)),
                }))
            },
            None,
        )
    }

    async fn force_unlock(&self, run_id: &str) -> StoreResult<Option<Holder>> {
        let mut worlds = self.shared.worlds();
        let Some(world) = worlds.get_mut(&self.environment) else {
            return Ok(None);
        };
        match world.held.take() {
            None => Ok(None),
            Some(held) if held.holder.run_id == run_id => Ok(Some(held.holder)),
            Some(held) => {
                let expires_in = match self.left(&held) {
                    Verdict::Take => Duration::ZERO,
                    Verdict::Wait(left) => left,
                };
                let holder = Box::new(held.holder.clone());
                world.held = Some(held);
                Err(StoreError::Locked {
                    environment: self.environment.clone(),
                    holder,
                    expires_in,
                })
            }
        }
    }

    async fn journal_append(&self, lease: &Lease, entries: &[Entry]) -> StoreResult<()> {
        self.change(lease, |world| {
            world.journal.extend_from_slice(entries);
            Ok(())
        })
    }

    async fn journal_read(&self) -> StoreResult<Vec<Entry>> {
        self.read(|world| Ok(world.journal.clone()), Vec::new())
    }

    async fn journal_clear(&self, lease: &Lease) -> StoreResult<()> {
        self.change(lease, |world| {
            world.journal.clear();
            Ok(())
        })
    }

    async fn keepsake(&self, key: &str) -> StoreResult<Option<Keepsake>> {
        self.read(
            |world| match world.keepsakes.get(key) {
                Some(bytes) => KeepsakeFile::decode(bytes, key).map(Some),
                None => Ok(None),
            },
            None,
        )
    }

    async fn put_keepsake(&self, lease: &Lease, key: &str, value: &Keepsake) -> StoreResult<()> {
        let bytes = KeepsakeFile::new(key, value).encode()?;
        self.change(lease, |world| {
            world.keepsakes.insert(key.to_owned(), bytes);
            Ok(())
        })
    }

    async fn keepsakes(&self) -> StoreResult<Vec<String>> {
        self.read(
            |world| Ok(world.keepsakes.keys().cloned().collect()),
            Vec::new(),
        )
    }

    async fn delete_keepsake(&self, lease: &Lease, key: &str) -> StoreResult<()> {
        self.change(lease, |world| {
            world.keepsakes.remove(key);
            Ok(())
        })
    }

    async fn key(&self, create: bool) -> StoreResult<Option<Zeroizing<[u8; 32]>>> {
        let mut worlds = self.shared.worlds();
        if !create {
            return match worlds.get(&self.environment) {
                Some(world) => self.known_key(world),
                None => Ok(self.key.clone()),
            };
        }
        let world = worlds
            .entry(self.environment.clone())
            .or_insert_with(|| World::new(&*self.random));
        let key = match self.known_key(world)? {
            Some(key) => key,
            None => {
                let mut key = Key::default();
                self.random.fill(&mut *key);
                world.key = Some(key.clone());
                key
            }
        };
        world.key_check = key_check(&key);
        Ok(Some(key))
    }

    async fn remove_empty(&self, lease: Lease) -> StoreResult<()> {
        self.change(&lease, |world| {
            let records = world.records.len();
            let intents = open_intents(&world.journal).len();
            if records > 0 || intents > 0 {
                return Err(StoreError::Storage(format!(
                    "cannot remove the state of environment `{}`: {records} records remain, and \
                     {intents} intents have no known outcome",
                    self.environment
                )));
            }
            Ok(())
        })?;
        self.shared.worlds().remove(&self.environment);
        Ok(())
    }

    async fn load(
        &self,
        lease: &Lease,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        snapshot.refuse_stranger(&self.environment, key, self.key.as_ref())?;
        let mut records = BTreeMap::new();
        for record in &snapshot.records {
            records.insert(record.resource_id.clone(), self.codec.encode(record)?);
        }
        let mut keepsakes = BTreeMap::new();
        for (key, keepsake) in &snapshot.keepsakes {
            keepsakes.insert(key.clone(), KeepsakeFile::new(key, keepsake).encode()?);
        }
        self.change(lease, |world| {
            world.records = records;
            world.keepsakes = keepsakes;
            world.journal.clone_from(&snapshot.journal);
            world.lineage.clone_from(&snapshot.lineage);
            world.serial = snapshot.serial;
            if let Some(key) = key {
                world.key = Some(Key::new(*key));
                world.key_check = key_check(key);
            }
            Ok(())
        })
    }
}
