//! Every write: prove the lease and announce it in one step, then do it.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::clock::rfc3339;
use crate::random::encode_hex;
use crate::resource::Address;
use crate::state::frame::to_text;
use crate::state::journal;
use crate::state::own::{KeepsakeFile, key_check};
use crate::state::{
    Expected, Holder, Lease, Record, Snapshot, Store as _, StoreError, StoreResult,
};

use super::census::Census;
use super::head::{HeadFile, Held, Pending};
use super::{Before, Known, Object, PARALLEL, Served, TRIES};

/// What is to be changed under a lease.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    Put {
        record: &'a Record,
        expected: Option<&'a Expected>,
    },
    Delete(&'a Address),
    Append(&'a str),
    Clear,
    Keepsake {
        key: &'a str,
        content: Option<&'a str>,
    },
    Renew,
    Unlock,
    /// Everything is about to be removed.
    Leave,
    /// Something is about to be prepared in another room.
    Prepare(&'a str),
    /// The state that was prepared in another room becomes the state.
    Move {
        room: &'a str,
        snapshot: &'a Snapshot,
        key: Option<&'a [u8; 32]>,
        census: Census,
    },
    /// These rooms are empty now.
    Swept(&'a [String]),
}

/// What a change writes beside the head.
enum Write {
    /// Nothing at all, the head neither.
    No,
    /// The head only.
    Head,
    /// This object, over that one.
    Object(Object, Option<Object>),
}

impl Served {
    /// Makes a change if `lease` is still the current one; answers the serial.
    pub(super) async fn change(&self, lease: &Lease, change: Change<'_>) -> StoreResult<u64> {
        let mut turn = self.turn.lock().await;
        for attempt in 0..TRIES {
            self.pause(attempt).await;
            // Taken, not borrowed: when this call is given up midway, nothing is known any more.
            let remembered = turn.take();
            let is_remembered = remembered.is_some();
            let known = match remembered {
                Some(known) => Some(known),
                None => self.read_head().await?,
            };
            let lost = |current| StoreError::LostLock {
                environment: self.environment.clone(),
                ours: lease.fence,
                current,
            };
            let (mut head, version) = match known {
                Some((head, version)) if head.is_held_by(lease) => (head, version),
                // What we remember may be old: look again before saying so.
                _ if is_remembered => continue,
                Some((head, _)) if head.is_leaving => return Err(lost(0)),
                Some((head, _)) => return Err(lost(head.fence)),
                None => return Err(lost(0)),
            };
            if head.is_leaving && !matches!(change, Change::Leave | Change::Renew) {
                return Err(lost(0));
            }
            if !is_remembered {
                let left = self.settle(&head).await?;
                head.settled(left.as_ref());
            }
            let journal_before = head.journal_start;
            let (object, before) = match self.plan(&mut head, change).await {
                Ok(Write::Object(object, before)) => (Some(object), before),
                Ok(Write::Head) => (None, None),
                Ok(Write::No) => {
                    let serial = head.serial;
                    // Only to say "nothing to do" the lease must still be proven.
                    if is_remembered {
                        let now = self.read_head().await?;
                        if !now.is_some_and(|(now, _)| now.is_held_by(lease)) {
                            continue;
                        }
                    }
                    *turn = Some((head, version));
                    return Ok(serial);
                }
                Err(error) => {
                    // What made it impossible may be what somebody else wrote since.
                    if is_remembered && !matches!(error, StoreError::Storage(_)) {
                        continue;
                    }
                    return Err(error);
                }
            };
            head.pending = object.as_ref().map(|object| Pending {
                id: object.id.clone(),
                version: object.version.clone(),
            });
            if let (Some(census), Some(before)) = (&mut head.census, &before) {
                census.remove(before);
            }
            let known_at = version;
            let Some(version) = self.save_head(&head, Before::Version(&known_at)).await? else {
                continue;
            };
            if let Some(object) = &object {
                let before = Before::seen(before.as_ref());
                if !self.guarded.save_if(object, before).await? {
                    continue;
                }
            }
            head.settled(object.as_ref());
            self.still_whole(&known_at, &version);
            let serial = head.serial;
            if matches!(change, Change::Clear) {
                self.forget_journal(&head, journal_before).await;
            }
            *turn = Some((head, version));
            return Ok(serial);
        }
        Err(self.too_busy())
    }

    async fn plan(&self, head: &mut HeadFile, change: Change<'_>) -> StoreResult<Write> {
        match change {
            Change::Put { record, expected } => {
                let address = &record.resource_id;
                let id = self.record_id(&head.room, address);
                let there = self.shelf().get(&id).await?;
                let existing = match there.as_ref().and_then(|there| there.content.as_deref()) {
                    Some(text) => Some(self.decode(address, text)?),
                    None => None,
                };
                if let Some(expected) = expected {
                    expected.check(address, existing.as_ref(), Some(&head.public()))?;
                }
                let now = rfc3339(self.clock.now());
                let serial = head.serial + 1;
                let next = record.succeed(existing.as_ref(), &self.environment, &now, serial);
                let content = to_text(&self.codec.encode(&next)?);
                head.serial = serial;
                Ok(Write::Object(self.object(id, Some(content)), there))
            }
            Change::Delete(address) => {
                let write = self.mark(self.record_id(&head.room, address)).await?;
                if matches!(write, Write::Object(..)) {
                    head.serial += 1;
                }
                Ok(write)
            }
            Change::Keepsake { key, content } => {
                let id = self.keepsake_id(&head.room, key);
                let Some(content) = content else {
                    return self.mark(id).await;
                };
                let there = self.shelf().get(&id).await?;
                let object = self.object(id, Some(content.to_owned()));
                Ok(Write::Object(object, there))
            }
            Change::Append("") => Ok(Write::No),
            Change::Append(lines) => {
                let id = self.journal_id(&head.room, head.journal_end);
                head.journal_end += 1;
                Ok(Write::Object(self.object(id, Some(lines.to_owned())), None))
            }
            Change::Clear if head.journal_start == head.journal_end => Ok(Write::No),
            Change::Clear => {
                head.journal_start = head.journal_end;
                Ok(Write::Head)
            }
            Change::Renew => Ok(Write::Head),
            Change::Unlock => {
                head.held = None;
                Ok(Write::Head)
            }
            Change::Leave => {
                head.is_leaving = true;
                Ok(Write::Head)
            }
            Change::Prepare(room) => {
                head.rubbish.push(room.to_owned());
                Ok(Write::Head)
            }
            Change::Swept(rooms) => {
                head.rubbish.retain(|room| !rooms.contains(room));
                Ok(Write::Head)
            }
            Change::Move {
                room,
                snapshot,
                key,
                census,
            } => {
                if let Some(key) = key {
                    head.key = self.key.is_none().then(|| encode_hex(key));
                    head.key_check = key_check(key);
                }
                head.rubbish.retain(|other| other != room);
                head.rubbish
                    .push(std::mem::replace(&mut head.room, room.to_owned()));
                head.census = Some(census);
                head.lineage.clone_from(&snapshot.lineage);
                head.serial = snapshot.serial;
                head.journal_start = 0;
                head.journal_end = u64::from(!snapshot.journal.is_empty());
                Ok(Write::Head)
            }
        }
    }

    /// What is there is replaced by a mark that says it is gone. The mark stays until the whole
    /// environment goes: a write that comes too late must find something it does not expect.
    async fn mark(&self, id: String) -> StoreResult<Write> {
        Ok(match self.shelf().get(&id).await? {
            Some(there) if there.content.is_some() => {
                Write::Object(self.object(id, None), Some(there))
            }
            _ => Write::No,
        })
    }

    /// Makes sure that the write announced in `head` is done, or can never be done any more: what
    /// is there gets another version, nothing gets a mark. Answers what it left. The version follows
    /// from the one that was announced, so that all who settle the same write leave the same.
    async fn settle(&self, head: &HeadFile) -> StoreResult<Option<Object>> {
        let Some(pending) = &head.pending else {
            return Ok(None);
        };
        let settled = format!("{}~", pending.version);
        for attempt in 0..TRIES {
            self.pause(attempt).await;
            let there = self.shelf().get(&pending.id).await?;
            if there
                .as_ref()
                .is_some_and(|there| there.version == pending.version || there.version == settled)
            {
                return Ok(there);
            }
            let content = there.as_ref().and_then(|there| there.content.clone());
            let touched = Object {
                id: pending.id.clone(),
                version: settled.clone(),
                content,
            };
            let before = Before::seen(there.as_ref());
            if self.guarded.save_if(&touched, before).await? {
                return Ok(Some(touched));
            }
        }
        Err(self.too_busy())
    }

    /// Takes a lock that is free to take. `None` when somebody else was faster.
    pub(super) async fn take(
        &self,
        holder: &Holder,
        known: Option<Known>,
    ) -> StoreResult<Option<Lease>> {
        let mut turn = self.turn.lock().await;
        *turn = None;
        let (mut head, before) = match known {
            Some((head, version)) => (head, Some(version)),
            None => (HeadFile::new(&self.environment, self.random.as_ref()), None),
        };
        let taken_over = head.held.take().map(|held| Box::new(held.holder));
        if head.is_leaving {
            // Whoever removed it died over it. What is here is a new state.
            let left = head;
            head = HeadFile::new(&self.environment, self.random.as_ref());
            head.fence = left.fence;
            head.rubbish = left.rubbish;
            head.rubbish.push(left.room);
        }
        head.fence += 1;
        head.held = Some(Held {
            holder: holder.clone(),
            lease_ms: u64::try_from(self.renewal.lease.as_millis()).unwrap_or(u64::MAX),
        });
        let before = before.as_deref().map_or(Before::Nothing, Before::Version);
        let Some(version) = self.save_head(&head, before).await? else {
            return Ok(None);
        };
        let left = self.settle(&head).await?;
        head.settled(left.as_ref());
        // Nobody looks there: what cannot be removed now is tried again by the next run.
        self.sweep(&mut head).await;
        if head.census.is_none() {
            // The state of an older program. What cannot be counted now is named by whoever reads it.
            head.census = self.count(&head.room).await.ok();
        }
        let fence = head.fence;
        *turn = Some((head, version));
        Ok(Some(Lease {
            fence,
            holder: holder.clone(),
            taken_over,
        }))
    }

    /// Everything as `snapshot` has it: written where nobody looks, then made the state in one step.
    pub(super) async fn replace_all(
        &self,
        lease: &Lease,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        let room = crate::random::hex_of::<8>(self.random.as_ref());
        let objects = self.furnished(&room, snapshot, lease.fence)?;
        let census = Census::of(&objects);
        // Said first: what a run that dies over it leaves is found and removed.
        self.change(lease, Change::Prepare(&room)).await?;
        let written = self.save_all(objects).await;
        let moved = match written {
            Ok(()) => {
                let change = Change::Move {
                    room: &room,
                    snapshot,
                    key,
                    census,
                };
                self.change(lease, change).await
            }
            Err(error) => Err(error),
        };
        // Whichever of the two is not the state has to go; what stays is removed by the next run. A
        // move that failed may still be under way: another write of the head comes first, after
        // which it is refused.
        let is_certain = moved.is_ok() || self.change(lease, Change::Renew).await.is_ok();
        if is_certain
            && let Ok(Some(mut head)) = self.standing().await
            && head.is_held_by(lease)
        {
            let swept = self.sweep(&mut head).await;
            if !swept.is_empty() {
                drop(self.change(lease, Change::Swept(&swept)).await);
            }
        }
        moved.map(drop)
    }

    /// Everything of `snapshot`, as the objects of a room.
    fn furnished(&self, room: &str, snapshot: &Snapshot, fence: u64) -> StoreResult<Vec<Object>> {
        let mut objects = Vec::new();
        for record in &snapshot.records {
            let content = to_text(&self.codec.encode(record)?);
            objects.push(self.object(self.record_id(room, &record.resource_id), Some(content)));
        }
        for (key, keepsake) in &snapshot.keepsakes {
            let content = to_text(&KeepsakeFile::new(key, keepsake).encode()?);
            objects.push(self.object(self.keepsake_id(room, key), Some(content)));
        }
        if !snapshot.journal.is_empty() {
            let mut lines = String::new();
            for entry in &snapshot.journal {
                journal::write_line(&mut lines, fence, entry)
                    .map_err(|error| StoreError::Storage(error.to_string()))?;
            }
            objects.push(self.object(self.journal_id(room, 0), Some(lines)));
        }
        Ok(objects)
    }

    async fn save_all(&self, objects: Vec<Object>) -> StoreResult<()> {
        let writes = objects.into_iter().map(|object| {
            let shelf = Arc::clone(&self.guarded.shelf);
            async move { shelf.save(&object).await }
        });
        stream::iter(writes)
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<()>>()
            .await
            .map(drop)
    }

    /// The same without a lease, because there is no head that could tell of one. What was there before
    /// stays in rooms that nobody knows of, until the environment goes.
    pub(super) async fn replace_head(
        &self,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        let mut head = HeadFile::new(&self.environment, self.random.as_ref());
        let objects = self.furnished(&head.room, snapshot, head.fence)?;
        head.census = Some(Census::of(&objects));
        head.lineage.clone_from(&snapshot.lineage);
        head.serial = snapshot.serial;
        head.journal_end = u64::from(!snapshot.journal.is_empty());
        let kept = key.filter(|_| self.key.is_none());
        head.key = kept.map(|key| encode_hex(key));
        if let Some(key) = key.or(self.key.as_deref()) {
            head.key_check = key_check(key);
        }
        self.save_all(objects).await?;
        let object = self.object(self.head_id().to_owned(), Some(head.encode()?));
        let mut turn = self.turn.lock().await;
        *turn = None;
        let is_replaced = self
            .guarded
            .save_over(&object, async { Ok(self.beheaded().await?.is_some()) })
            .await?;
        if is_replaced {
            return Ok(());
        }
        Err(StoreError::Conflict {
            what: format!("the head of environment `{}`", self.environment),
            expected: "one that cannot be read".to_owned(),
            found: "one that can".to_owned(),
        })
    }
}
