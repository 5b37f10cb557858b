//! A whole state taken over at once: a restore, a push, a migration. Also what is asked of the root
//! folder as a whole, and the lock freed by order.

use serde::Serialize;
use zeroize::Zeroizing;

use crate::disk::EntryKind;
use crate::random::encode_hex;
use crate::state::own::{KeepsakeFile, Key, key_check};
use crate::state::{Snapshot, frame, name};

use super::files::stem;
use super::key::parse_key;
use super::lock::alive_name;
use super::{
    Filesystem, HEAD, HeadFile, Holder, KEEPSAKES, Lease, RECORD_BYTES_MAX, RECORDS, StoreError,
    StoreResult, parse_own, storage,
};

/// The document that is being taken over. As long as it exists, the folders may be in between, and
/// the next holder of the lock finishes.
const INCOMING: &str = "incoming.json";
/// What it is sealed as, with the records.
const INCOMING_NAME: &str = "incoming";
/// The member of it that holds the key which comes along.
const INCOMING_KEY: &str = "state_key";
/// How often the folders are read again under another head before what was read is good enough: heads
/// change for other reasons, too.
pub(super) const LOOKS: u32 = 10;
/// Largest document in bytes.
const INCOMING_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// A state that is being taken over.
pub(super) struct Incoming {
    pub(super) snapshot: Snapshot,
    /// The key it is sealed with, when that is not the one of before.
    pub(super) key: Option<Key>,
}

/// Where an environment is read.
#[derive(PartialEq)]
pub(super) enum Source {
    /// In the document that is being taken over.
    Incoming(Snapshot),
    /// In the folders, under this head.
    Folders(Option<Vec<u8>>),
}

/// The same as it is written.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    snapshot: &'a Snapshot,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_key: Option<&'a str>,
}

impl Filesystem {
    pub(super) async fn load_snapshot(
        &self,
        lease: &Lease,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        snapshot.refuse_stranger(&self.environment, key, self.key.as_ref())?;
        let document = self.document(snapshot, key)?;
        let guard = self.enter_with(lease).await?;
        // All at once: whatever is cut off after this write is finished by the next holder.
        self.write(&self.path(INCOMING), &document)?;
        self.finish_load(lease.fence)?;
        drop(guard);
        Ok(())
    }

    /// A state that is taken over, as it is written.
    fn document(
        &self,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<Zeroizing<Vec<u8>>> {
        let digits = key.map(|key| Zeroizing::new(encode_hex(key)));
        let document = frame::close(&Document {
            snapshot,
            state_key: digits.as_ref().map(|digits| digits.as_str()),
        })
        .map_err(|reason| StoreError::Storage(format!("cannot write the state: {reason}")))?;
        Ok(Zeroizing::new(
            self.codec.encode_document(INCOMING_NAME, document),
        ))
    }

    /// The state that is being taken over, if one is. It is decided, and whole; what is in the folders
    /// is a mixture meanwhile.
    pub(super) fn incoming(&self) -> StoreResult<Option<Incoming>> {
        let path = self.path(INCOMING);
        let Some(bytes) = self.read(&path, INCOMING_BYTES_MAX)? else {
            return Ok(None);
        };
        let what = format!("the incoming state (`{}`)", path.display());
        let corrupt = |reason: String| StoreError::Corrupt {
            what: what.clone(),
            reason,
        };
        let document = self.codec.decode_document(INCOMING_NAME, bytes, &what)?;
        let mut value = frame::open_own(&document).map_err(corrupt)?;
        let digits = value
            .as_object_mut()
            .and_then(|members| members.remove(INCOMING_KEY));
        let key = match digits {
            None => None,
            Some(digits) => Some(
                digits
                    .as_str()
                    .and_then(|digits| parse_key(digits.as_bytes()))
                    .ok_or_else(|| corrupt("its key is not 64 hex digits".to_owned()))?,
            ),
        };
        let snapshot = Snapshot::from_document(value, &what)?;
        Ok(Some(Incoming { snapshot, key }))
    }

    /// Where this environment is to be read at this moment.
    pub(super) fn source(&self) -> StoreResult<Source> {
        // The document before the head: one that is gone by now has written the head.
        Ok(match self.incoming()? {
            Some(incoming) => Source::Incoming(incoming.snapshot),
            None => Source::Folders(self.read(&self.path(HEAD), super::SMALL_BYTES_MAX)?),
        })
    }

    /// What is read from the folders, or the answer of the state that is being taken over. One that was
    /// taken over while the folders were read leaves another head: then they are read again, because
    /// what was read may be half of either.
    pub(super) fn unless_incoming<T>(
        &self,
        answer: impl Fn(Snapshot) -> T,
        read: impl Fn() -> StoreResult<T>,
    ) -> StoreResult<T> {
        let mut looks = 0;
        let mut before = self.source()?;
        loop {
            if let Source::Incoming(snapshot) = before {
                return Ok(answer(snapshot));
            }
            let found = read();
            let after = self.source()?;
            looks += 1;
            if after == before || looks > LOOKS && !matches!(after, Source::Incoming(_)) {
                return found;
            }
            before = after;
        }
    }

    /// Makes `snapshot` the state although the head cannot be read.
    pub(super) async fn load_over_head(
        &self,
        snapshot: &Snapshot,
        key: Option<&[u8; 32]>,
    ) -> StoreResult<()> {
        snapshot.refuse_stranger(&self.environment, key, self.key.as_ref())?;
        let document = self.document(snapshot, key)?;
        let guard = self.enter().await?;
        if self.damaged_head()?.is_none() {
            return Err(StoreError::Conflict {
                what: format!("the state head (`{}`)", self.path(HEAD).display()),
                expected: "one that cannot be read".to_owned(),
                found: "one that can".to_owned(),
            });
        }
        let fence = self.refuse_held()?;
        self.write(&self.path(INCOMING), &document)?;
        // From here on the document is the state; who is cut off now leaves the rest to the next holder.
        self.disk
            .remove_file(&self.path(HEAD))
            .and_then(|()| self.disk.sync_directory(&self.directory))
            .map_err(storage)?;
        self.finish_load(fence)?;
        drop(guard);
        Ok(())
    }

    /// Why the head cannot be read, if it is there.
    pub(super) fn damaged_head(&self) -> StoreResult<Option<StoreError>> {
        match self.read_head() {
            Err(error @ StoreError::Corrupt { .. }) => Ok(Some(error)),
            other => other.map(|_| None),
        }
    }

    /// Under the guard: brings the folders to what the incoming document says. Doing it again
    /// changes nothing.
    pub(super) fn finish_load(&self, fence: u64) -> StoreResult<()> {
        let path = self.path(INCOMING);
        let Some(Incoming { snapshot, key }) = self.incoming()? else {
            return Ok(());
        };
        let mut kept = Vec::new();
        for record in &snapshot.records {
            let place = self.record_place(&record.resource_id);
            kept.push(name::encode(record.resource_id.as_str()));
            if let Some((bytes, path)) = self.read_at(&place, RECORD_BYTES_MAX)? {
                if self.codec.is_written(&bytes, record) {
                    continue;
                }
                self.keep_previous(path)?;
            }
            self.write_at(&place, &self.codec.encode(record)?)?;
        }
        kept.sort_unstable();
        for file in self.names(RECORDS)? {
            match stem(&file) {
                Some(stem) if kept.binary_search_by(|one| one.as_str().cmp(stem)).is_ok() => {}
                Some(stem) => self.retire(&self.place_of(RECORDS, stem))?,
                None => self.remove_stray(RECORDS, &file)?,
            }
        }
        let mut kept = Vec::new();
        for (key, keepsake) in &snapshot.keepsakes {
            let bytes = KeepsakeFile::new(key, keepsake).encode()?;
            self.write_at(&self.place(KEEPSAKES, key), &bytes)?;
            kept.push(name::encode(key));
        }
        kept.sort_unstable();
        for file in self.names(KEEPSAKES)? {
            match stem(&file) {
                Some(stem) if kept.binary_search_by(|one| one.as_str().cmp(stem)).is_ok() => {}
                Some(stem) => self.remove_at(&self.place_of(KEEPSAKES, stem))?,
                None => self.remove_stray(KEEPSAKES, &file)?,
            }
        }
        self.replace_journal(fence, &snapshot.journal)?;
        if let Some(key) = &key {
            self.take_key(key)?;
        }
        // The head last: until then it tells the lineage and serial of before.
        let (check_of_before, config) = match self.read_head()? {
            Some(head) => (Some(head.key_check), head.config),
            None => (None, self.config.clone()),
        };
        let key_check = key.map(|key| key_check(&key)).or(check_of_before);
        self.write_own(
            &self.path(HEAD),
            &HeadFile {
                format: super::FORMAT,
                lineage: snapshot.lineage.clone(),
                serial: snapshot.serial,
                fence,
                key_check: key_check.unwrap_or_default(),
                environment: self.environment.clone(),
                config,
            },
        )?;
        self.disk
            .remove_file(&path)
            .and_then(|()| self.disk.sync_directory(&self.directory))
            .map_err(storage)
    }

    /// Removes a file that is none of ours, and kept with the previous records all the same.
    fn remove_stray(&self, folder: &str, file: &str) -> StoreResult<()> {
        let path = self.path(folder).join(file);
        if folder == RECORDS {
            self.keep_previous(&path)?;
        }
        self.disk
            .remove_file(&path)
            .and_then(|()| self.disk.sync_directory(&self.path(folder)))
            .map_err(storage)
    }

    /// Every environment below the same root.
    pub(super) fn list_environments(&self) -> StoreResult<Vec<String>> {
        let names = match self.disk.list(&self.root) {
            Ok(names) => names,
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Err(storage(error)),
        };
        let mut environments = Vec::new();
        for folder in names {
            let directory = self.root.join(&folder);
            if self.disk.entry(&directory).map_err(storage)? != Some(EntryKind::Directory) {
                continue;
            }
            let path = directory.join(HEAD);
            let what = format!("the state head (`{}`)", path.display());
            let Some(bytes) = self.read(&path, super::SMALL_BYTES_MAX)? else {
                continue;
            };
            let environment = match parse_own::<HeadFile>(&bytes, &what) {
                Ok(head) if !head.environment.is_empty() => Some(head.environment),
                // Older heads do not tell it. Of one that cannot be read, its own environment complains.
                Ok(_) | Err(StoreError::Corrupt { .. }) => name::decode(&folder),
                Err(error) => return Err(error),
            };
            environments.push(
                environment
                    .filter(|environment| name::encode(environment) == folder)
                    .ok_or_else(|| StoreError::Corrupt {
                        what,
                        reason: "its folder does not bear the name of its environment".to_owned(),
                    })?,
            );
        }
        environments.sort_unstable();
        Ok(environments)
    }

    /// Frees the lock if it is that of `run_id`.
    pub(super) async fn free_lock_of(&self, run_id: &str) -> StoreResult<Option<Holder>> {
        if self.disk.entry(&self.directory).map_err(storage)?.is_none() {
            return Ok(None);
        }
        let _guard = self.enter().await?;
        let Some(lock) = self.read_lock()? else {
            return Ok(None);
        };
        let Some(holder) = lock.file.holder.clone() else {
            return Ok(None);
        };
        if holder.run_id != run_id {
            return Err(StoreError::Locked {
                environment: self.environment.clone(),
                expires_in: self.left(&lock),
                holder: Box::new(holder),
            });
        }
        self.write_free_lock(lock.file.fence)?;
        // Its holder may live and keep the lock on this file: to the next one it means nothing.
        self.disk
            .remove_file(&self.path(&alive_name(lock.file.fence)))
            .map_err(storage)?;
        Ok(Some(holder))
    }
}
