//! State in a storage that a plugin serves: a [`Shelf`] of small objects, and nothing else assumed.
//!
//! Every write goes through the environment's head object. It is first announced there, by a
//! compare-and-swap that also proves the lease, and then done, by a compare-and-swap of its own. Who
//! takes the lock over rewrites what was announced and not done: whatever the one before still has
//! under way finds another version than it expects, and is refused. Readers need no lock.

mod census;
mod change;
mod head;
mod remove;
mod salvage;
mod shelf;
mod store;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::random::{Random, hex_of};
use crate::resource::Address;

use super::codec::Codec;
use super::journal::{self, Entry};
use super::lease::{Neighbours, Renewal, Verdict, Watched};
use super::own::{KeepsakeFile, Key, key_check};
use super::record::corrupt;
use super::{Keepsake, Record, Store, StoreError, StoreResult, frame, name};
use census::{Census, Tally};
use head::{HeadFile, Held};
use shelf::Guarded;

pub use shelf::{Before, Object, SEPARATOR, Shelf};

/// Between two looks at a lock that somebody holds.
const LOCK_POLL: Duration = Duration::from_millis(500);
/// How often a race with another handle is run again before giving up.
const TRIES: u32 = 40;
/// Requests under way at once when many objects are written or removed.
const PARALLEL: usize = 16;
/// How often a write that is just under way is waited for by a reader.
const SETTLE_LOOKS: u32 = 20;
/// How often a list is taken again that a writer was quicker than.
const MOVING_LOOKS: u32 = 4;
/// Between two such looks.
const SETTLE_PAUSE: Duration = Duration::from_millis(25);

/// The head as we last wrote it, and the version it has there.
type Known = (HeadFile, String);

/// The state of one environment on a shelf.
pub struct Served {
    guarded: Guarded,
    root: String,
    environment: String,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    renewal: Renewal,
    neighbours: Neighbours,
    key: Option<Key>,
    codec: Codec,
    /// One write at a time; with it the head whose last write is known to be done.
    turn: tokio::sync::Mutex<Option<Known>>,
    /// Since when the head of a held lock has this version, on our own clock.
    watched: Mutex<Option<(String, Duration)>>,
    /// The version of the head at which everything of a kind was there.
    whole: Mutex<BTreeMap<&'static str, String>>,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served")
            .field("root", &self.root)
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}

impl Served {
    /// The state of `project`'s `environment` on `shelf`.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when `environment` is empty.
    pub fn open(
        shelf: Arc<dyn Shelf>,
        project: &str,
        environment: &str,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> StoreResult<Self> {
        if environment.is_empty() {
            return Err(StoreError::Invalid(
                "the state store needs an environment name".to_owned(),
            ));
        }
        let root = format!("tidegate{SEPARATOR}{}", name::encode(project));
        let guard = format!(
            "{root}{SEPARATOR}head{SEPARATOR}{}",
            name::encode(environment)
        );
        Ok(Self {
            guarded: Guarded {
                shelf,
                clock: Arc::clone(&clock),
                guard,
                holding: Arc::default(),
            },
            root,
            environment: environment.to_owned(),
            codec: Codec::plain(environment, Arc::clone(&random)),
            clock,
            random,
            renewal: Renewal::DEFAULT,
            neighbours: Neighbours::default(),
            key: None,
            turn: tokio::sync::Mutex::new(None),
            watched: Mutex::new(None),
            whole: Mutex::default(),
        })
    }

    fn shelf(&self) -> &dyn Shelf {
        self.guarded.shelf.as_ref()
    }

    fn head_id(&self) -> &str {
        &self.guarded.guard
    }

    /// Below it is everything of this environment but its head.
    fn rooms_id(&self) -> String {
        let environment = name::encode(&self.environment);
        format!("{}{SEPARATOR}room{SEPARATOR}{environment}", self.root)
    }

    fn room_id(&self, room: &str) -> String {
        format!("{}{SEPARATOR}{room}", self.rooms_id())
    }

    fn parent(&self, room: &str, kind: &str) -> String {
        format!("{}{SEPARATOR}{kind}", self.room_id(room))
    }

    fn record_id(&self, room: &str, address: &Address) -> String {
        let parent = self.parent(room, "record");
        format!("{parent}{SEPARATOR}{}", name::encode(address.as_str()))
    }

    fn keepsake_id(&self, room: &str, key: &str) -> String {
        let parent = self.parent(room, "keepsake");
        format!("{parent}{SEPARATOR}{}", name::encode(key))
    }

    fn journal_id(&self, room: &str, number: u64) -> String {
        let parent = self.parent(room, "journal");
        format!("{parent}{SEPARATOR}{number:020}")
    }

    fn object(&self, id: String, content: Option<String>) -> Object {
        Object {
            id,
            version: hex_of::<8>(self.random.as_ref()),
            content,
        }
    }

    /// The head as it is there now, also while it is leaving.
    async fn read_head(&self) -> StoreResult<Option<Known>> {
        let Some(object) = self.shelf().get(self.head_id()).await? else {
            // It is the last to go: what lies here without it has lost it.
            return match self.shelf().under(&self.rooms_id()).await?.len() {
                0 => Ok(None),
                left => Err(self.headless(left)),
            };
        };
        let text = object.content.as_deref().unwrap_or_default();
        let head = HeadFile::decode(text, &self.environment)?;
        Ok(Some((head, object.version)))
    }

    fn headless(&self, left: usize) -> StoreError {
        StoreError::Corrupt {
            what: format!(
                "the head of environment `{}` in {}",
                self.environment,
                self.shelf().place()
            ),
            reason: format!(
                "it is gone, and {left} objects of the environment are there: put an older version \
                 of `{}` back",
                self.head_id()
            ),
        }
    }

    /// The head of a state that is there, and its version.
    async fn standing_at(&self) -> StoreResult<Option<Known>> {
        let known = self.read_head().await?;
        Ok(known.filter(|(head, _)| !head.is_leaving))
    }

    /// The head of a state that is there.
    async fn standing(&self) -> StoreResult<Option<HeadFile>> {
        Ok(self.standing_at().await?.map(|(head, _)| head))
    }

    /// Writes the head over the version `before`; `None` when somebody else was faster.
    async fn save_head(&self, head: &HeadFile, before: Before<'_>) -> StoreResult<Option<String>> {
        let object = self.object(self.head_id().to_owned(), Some(head.encode()?));
        let is_saved = self.guarded.save_if(&object, before).await?;
        Ok(is_saved.then_some(object.version))
    }

    fn decode(&self, address: &Address, text: &str) -> StoreResult<Record> {
        let what = format!("record `{address}` (in {})", self.location());
        let record = self.codec.decode_text(text, &what)?;
        if record.resource_id == *address {
            Ok(record)
        } else {
            Err(StoreError::Corrupt {
                what,
                reason: format!("it is the record of `{}`", record.resource_id),
            })
        }
    }

    /// A record that was found by listing: its own name is in it.
    fn decode_listed(&self, object: &Object, text: &str) -> StoreResult<Record> {
        let last = object.id.rsplit(SEPARATOR).next().unwrap_or_default();
        let shown = name::decode(last).unwrap_or_else(|| last.to_owned());
        let what = format!("record `{shown}` (in {})", self.location());
        let record = self.codec.decode_text(text, &what)?;
        if name::encode(record.resource_id.as_str()) == last {
            Ok(record)
        } else {
            Err(StoreError::Corrupt {
                what,
                reason: format!("it is the record of `{}`", record.resource_id),
            })
        }
    }

    /// Everything of one kind, as one head describes it. A write that is just under way is waited
    /// for, so that what a head counts is also there. What is counted and not there is an error: a
    /// storage may have lost it, and a plugin left out what it could not read.
    async fn objects(&self, kind: &'static str) -> StoreResult<Option<(HeadFile, Vec<Object>)>> {
        let mut looks = 0;
        loop {
            let Some((head, version)) = self.standing_at().await? else {
                return Ok(None);
            };
            let parent = self.parent(&head.room, kind);
            let objects = self.shelf().children(&parent).await?;
            let after = self.standing().await?;
            let is_moved = after.as_ref().is_none_or(|after| {
                // Parts of a journal that is over are removed once no head counts them.
                after.room != head.room
                    || kind == "journal" && after.journal_start != head.journal_start
            });
            let is_done = head.pending.as_ref().is_none_or(|pending| {
                Object::parent(&pending.id) != parent
                    || objects
                        .iter()
                        .any(|object| object.id == pending.id && object.version == pending.version)
            });
            looks += 1;
            if !is_moved && (is_done || looks > SETTLE_LOOKS) {
                let Some((counted, found)) = head.missing(kind, &objects) else {
                    self.is_whole(kind, &version);
                    return Ok(Some((head, objects)));
                };
                // A list that takes its time mixes what was before a write with what was after it.
                let is_written =
                    after.is_none_or(|after| after.expects(kind) != head.expects(kind));
                if !is_written {
                    return Err(self.incomplete(kind, counted, found));
                }
                if looks > MOVING_LOOKS {
                    return Ok(Some((head, objects)));
                }
            }
            if looks > TRIES {
                return Err(self.too_busy());
            }
            self.clock.sleep(SETTLE_PAUSE).await;
        }
    }

    fn incomplete(&self, kind: &str, counted: Tally, found: Tally) -> StoreError {
        let place = self.shelf().place();
        let kind = match kind {
            "record" => "record",
            _ => "kept value",
        };
        let reason = if counted.count == found.count {
            format!(
                "its {} {kind}s are not the ones that were written",
                counted.count
            )
        } else if found.count > counted.count {
            format!(
                "it has {} {kind}s, and {} can be found: what is too many was put into the storage \
                 behind its back",
                counted.count, found.count
            )
        } else {
            format!(
                "it has {} {kind}s, and {} of them can be found: what is missing was removed from \
                 the storage, or the plugin leaves out what it cannot read",
                counted.count, found.count
            )
        };
        StoreError::Corrupt {
            what: format!("the state of environment `{}` in {place}", self.environment),
            reason,
        }
    }

    /// Everything of this kind was there when the head had this version.
    fn is_whole(&self, kind: &'static str, version: &str) {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        whole.insert(kind, version.to_owned());
    }

    /// A write of ours has made `after` of the head of version `before`.
    fn still_whole(&self, before: &str, after: &str) {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        for version in whole.values_mut().filter(|version| *version == before) {
            after.clone_into(version);
        }
    }

    /// An object that is not there, in words of the head that was read before: one that is counted
    /// nevertheless is an error, one that moved meanwhile is found.
    async fn confirm_absent(
        &self,
        kind: &'static str,
        (head, version): &Known,
        id: &str,
    ) -> StoreResult<Option<Object>> {
        let counted = head.expects(kind);
        let is_empty = counted.is_none_or(|(tally, pending)| tally.count == 0 && pending.is_none());
        let is_known = {
            let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
            whole.get(kind) == Some(version)
        };
        if is_empty || is_known {
            return Ok(None);
        }
        let last = id.rsplit(SEPARATOR).next();
        let found = self.objects(kind).await?;
        let objects = found.map(|(_, objects)| objects).unwrap_or_default();
        let mut named = objects
            .into_iter()
            .filter(|object| object.id.rsplit(SEPARATOR).next() == last);
        Ok(named.next())
    }

    /// Counts what is in a room.
    async fn count(&self, room: &str) -> StoreResult<Census> {
        let mut objects = Vec::new();
        for kind in ["record", "keepsake"] {
            objects.extend(self.shelf().children(&self.parent(room, kind)).await?);
        }
        Ok(Census::of(&objects))
    }

    fn too_busy(&self) -> StoreError {
        StoreError::Storage(format!(
            "{} changes all the time; try again when the run that writes it has ended",
            self.location()
        ))
    }

    fn records(&self, objects: &[Object]) -> StoreResult<Vec<Record>> {
        let mut records = Vec::with_capacity(objects.len());
        for object in objects {
            if let Some(text) = &object.content {
                records.push(self.decode_listed(object, text)?);
            }
        }
        records.sort_by(|one: &Record, two: &Record| one.resource_id.cmp(&two.resource_id));
        Ok(records)
    }

    fn keepsakes_in(objects: &[Object]) -> StoreResult<BTreeMap<String, Keepsake>> {
        let mut all = BTreeMap::new();
        for object in objects {
            if let Some(text) = &object.content {
                let last = object.id.rsplit(SEPARATOR).next().unwrap_or_default();
                let what = format!("keepsake `{last}`");
                let bytes = frame::from_text(text).map_err(|reason| corrupt(&what, reason))?;
                let file = KeepsakeFile::read(&bytes, &what)?;
                if name::encode(&file.key) != last {
                    return Err(StoreError::Corrupt {
                        what,
                        reason: format!("it is the keepsake `{}`", file.key),
                    });
                }
                all.insert(file.key, file.keepsake);
            }
        }
        Ok(all)
    }

    fn entries(&self, head: &HeadFile, objects: &[Object]) -> StoreResult<Vec<Entry>> {
        let by_id: BTreeMap<&str, &Object> = objects
            .iter()
            .map(|object| (object.id.as_str(), object))
            .collect();
        let mut entries = Vec::new();
        for number in head.journal_start..head.journal_end {
            let id = self.journal_id(&head.room, number);
            let what = || format!("part {number} of the journal");
            let text = match by_id.get(id.as_str()) {
                Some(object) => object.content.as_deref(),
                // Announced, and its writer died before it was written.
                None if head.pending.as_ref().is_some_and(|last| last.id == id) => None,
                None => {
                    return Err(StoreError::Corrupt {
                        what: what(),
                        reason: "it is missing".to_owned(),
                    });
                }
            };
            if let Some(text) = text {
                let corrupt = |reason| StoreError::Corrupt {
                    what: what(),
                    reason,
                };
                let part = journal::parse(text.as_bytes()).map_err(corrupt)?;
                if part.torn_bytes > 0 {
                    return Err(corrupt("it is cut short".to_owned()));
                }
                entries.extend(part.entries);
            }
        }
        Ok(entries)
    }

    fn left(&self, version: &str, held: &Held) -> Verdict {
        let now = self.clock.monotonic();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match watched.as_ref() {
            Some((seen, since)) if seen == version => *since,
            _ => {
                *watched = Some((version.to_owned(), now));
                now
            }
        };
        Watched {
            unchanged_for: now.saturating_sub(since),
            lease: held.lease(),
            process: self.neighbours.judge(&held.holder),
        }
        .verdict()
    }

    /// The key that was given or the one that is kept in the head, if it is the right one.
    async fn known_key(&self, head: &HeadFile) -> StoreResult<Option<Key>> {
        let key = match &self.key {
            Some(key) => Some(key.clone()),
            None => head.own_key()?,
        };
        let own = key.as_ref().map(|key| key_check(key)).unwrap_or_default();
        let fits = head.key_check.is_empty() || head.key_check == own;
        if !fits && self.sealed_values().await? > 0 {
            let (what, reason) = match key {
                Some(_) => (
                    "the state key that was given",
                    "it is not the key that this state was sealed with",
                ),
                None => (
                    "the state key",
                    "it is kept outside the store, and stored values are sealed with it; set \
                     TIDEGATE_STATE_KEY, or `key_file` in the `iac.state` module",
                ),
            };
            return Err(StoreError::Corrupt {
                what: what.to_owned(),
                reason: reason.to_owned(),
            });
        }
        Ok(key)
    }

    async fn sealed_values(&self) -> StoreResult<usize> {
        let mut count = 0;
        if let Some((_, objects)) = self.objects("record").await? {
            for record in self.records(&objects)? {
                count +=
                    record.tidegate.sealed.len() + usize::from(!record.tidegate.private.is_empty());
            }
        }
        if let Some((_, objects)) = self.objects("keepsake").await? {
            let all = Self::keepsakes_in(&objects)?;
            count += all.values().filter(|one| one.sealed.is_some()).count();
        }
        Ok(count)
    }

    /// Changes the head without a lease, by a pure function of what is there.
    async fn change_head<T>(
        &self,
        mut change: impl FnMut(&mut HeadFile) -> StoreResult<Option<T>>,
    ) -> StoreResult<Option<T>> {
        let mut turn = self.turn.lock().await;
        *turn = None;
        for attempt in 0..TRIES {
            self.pause(attempt).await;
            let Some((mut head, version)) = self.read_head().await? else {
                return Ok(None);
            };
            let Some(answer) = change(&mut head)? else {
                return Ok(None);
            };
            let saved = self.save_head(&head, Before::Version(&version)).await?;
            if saved.is_some() {
                return Ok(Some(answer));
            }
        }
        Err(self.too_busy())
    }

    /// Before another try, for a time nobody else waits.
    async fn pause(&self, attempt: u32) {
        if attempt > 0 {
            let mut byte = [0];
            self.random.fill(&mut byte);
            let steps = (u64::from(byte[0]) % 16 + 1) * u64::from(attempt.min(8));
            self.clock.sleep(Duration::from_millis(steps)).await;
        }
    }
}

super::terms::adjustable!(Served, neighbours);
