//! The store: one object a record.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{
    ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use tidegate_plugin::{
    Before, Error, Result, StateRecord, StateStore, async_trait, convention, matches,
};

use crate::layout::{Layout, parent};
use crate::record;
use crate::settings::Opened;

/// Requests under way at once while listing.
const PARALLEL: usize = 64;

/// What we last saw of an object: the record's version, and the store's own.
#[derive(Clone)]
struct Seen {
    version: String,
    at: UpdateVersion,
}

/// Records in one bucket.
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    layout: Layout,
    /// Spares a request before a conditional save. Wrong entries cost one, and nothing else.
    seen: Mutex<HashMap<Path, Seen>>,
    /// The bucket has been seen.
    is_proven: AtomicBool,
    /// Locks that this process took.
    locked: Mutex<HashMap<Path, ()>>,
}

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error of the store, in the words of the contract.
fn failed(error: object_store::Error) -> Error {
    use object_store::Error as Cause;
    // With everything below it: the first level often says only that there was an error.
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(below) = cause {
        let said = below.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = below.source();
    }
    match error {
        Cause::NotFound { .. } => Error::not_found(text),
        Cause::AlreadyExists { .. } | Cause::Precondition { .. } => Error::conflict(text),
        Cause::PermissionDenied { .. } => Error::forbidden(text),
        Cause::Unauthenticated { .. } => Error::unauthorized(text),
        Cause::InvalidPath { .. } => Error::invalid(text),
        Cause::NotImplemented { .. } | Cause::NotSupported { .. } => Error::unimplemented(text),
        _ => Error::other(text),
    }
}

impl Objects {
    pub(crate) fn new(opened: Opened) -> Self {
        Self {
            store: opened.store,
            layout: opened.layout,
            seen: Mutex::default(),
            is_proven: AtomicBool::new(false),
            locked: Mutex::default(),
        }
    }

    /// Reads one object; absent is `None`, unreadable is an error that names it.
    async fn read(&self, path: &Path) -> Result<Option<(StateRecord, UpdateVersion)>> {
        let answer = match self.store.get(path).await {
            Ok(answer) => answer,
            Err(object_store::Error::NotFound { .. }) => {
                self.prove_bucket().await?;
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        self.is_proven.store(true, Ordering::Relaxed);
        let at = UpdateVersion {
            e_tag: answer.meta.e_tag.clone(),
            version: answer.meta.version.clone(),
        };
        let content = answer.bytes().await.map_err(failed)?;
        let record = record::decode(&content)
            .map_err(|why| Error::damaged(format!("the object {path} is not a record: {why}")))?;
        if self.layout.record(&record.resource_id)? != *path {
            return Err(Error::damaged(format!(
                "the object {path} holds the record {:?}",
                record.resource_id
            )));
        }
        // A list is filtered by these two: one that is not as it was written would be left out.
        if record.resource_id.starts_with(convention::OURS)
            && (record.resource_type != convention::OBJECT
                || record.provider != parent(&record.resource_id))
        {
            return Err(Error::damaged(format!(
                "the object {path} has the type {:?} and the place {:?}, which are not its own",
                record.resource_type, record.provider
            )));
        }
        if record.resource_type == convention::OBJECT {
            let seen = Seen {
                version: record.provider_id.clone(),
                at: at.clone(),
            };
            open(&self.seen).insert(path.clone(), seen);
        }
        Ok(Some((record, at)))
    }

    /// An object that is not there may be in a bucket that is not there either, which the answer does
    /// not tell. A list does: it is an error for a bucket that does not exist.
    async fn prove_bucket(&self) -> Result<()> {
        if self.is_proven.load(Ordering::Relaxed) {
            return Ok(());
        }
        let folder = self.layout.folder("");
        if let Err(error) = self.store.list(folder.as_ref()).try_next().await {
            let error = failed(error);
            // Of the bucket, not of the record that was asked for.
            return Err(if error.is_not_found() {
                Error::other(error.message())
            } else {
                error
            });
        }
        self.is_proven.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn write(&self, path: &Path, record: &StateRecord, mode: PutMode) -> Result<()> {
        open(&self.seen).remove(path);
        let content = record::encode(record)?;
        let done = self
            .store
            .put_opts(path, PutPayload::from(content), PutOptions::from(mode))
            .await
            .map_err(failed)?;
        if record.resource_type == convention::OBJECT {
            let seen = Seen {
                version: record.provider_id.clone(),
                at: done.into(),
            };
            open(&self.seen).insert(path.clone(), seen);
        }
        Ok(())
    }
}

#[async_trait]
impl StateStore for Objects {
    async fn get(&self, id: &str) -> Result<Option<StateRecord>> {
        let path = self.layout.record(id)?;
        Ok(self.read(&path).await?.map(|(record, _)| record))
    }

    async fn save(&self, record: StateRecord) -> Result<()> {
        let path = self.layout.record(&record.resource_id)?;
        self.write(&path, &record, PutMode::Overwrite).await
    }

    fn compares(&self) -> bool {
        true
    }

    async fn save_if(&self, record: StateRecord, before: Before) -> Result<()> {
        let path = self.layout.record(&record.resource_id)?;
        let Before::Version(wanted) = before else {
            return self.write(&path, &record, PutMode::Create).await;
        };
        let known = open(&self.seen).get(&path).cloned();
        let at = match known {
            Some(seen) if seen.version == wanted => seen.at,
            _ => match self.read(&path).await? {
                Some((there, at)) if there.provider_id == wanted => at,
                _ => {
                    return Err(Error::conflict(format!(
                        "the object {path} is not what the writer expects"
                    )));
                }
            },
        };
        self.write(&path, &record, PutMode::Update(at)).await
    }

    async fn list(&self, filter: &BTreeMap<String, String>) -> Result<Vec<StateRecord>> {
        let start = filter.get(convention::UNDER).map_or("", String::as_str);
        let folder = self.layout.folder(start);
        let is_names = filter
            .get(convention::NAMES)
            .is_some_and(|value| value == convention::ONLY);
        let paths: Vec<Path> = self
            .store
            .list(folder.as_ref())
            .map_ok(|meta| meta.location)
            .try_filter(|path| std::future::ready(self.layout.is_record(path)))
            .try_collect()
            .await
            .map_err(failed)?;
        if is_names {
            let ids = paths.iter().filter_map(|path| self.layout.id(path));
            let mut records: Vec<StateRecord> = ids
                .filter(|id| id.starts_with(start))
                .map(|resource_id| StateRecord {
                    resource_id,
                    ..StateRecord::default()
                })
                .collect();
            records.sort_by(|one, two| one.resource_id.cmp(&two.resource_id));
            return Ok(records);
        }
        let reads = paths
            .into_iter()
            .map(|path| async move { self.read(&path).await });
        let mut records: Vec<StateRecord> = stream::iter(reads)
            .buffer_unordered(PARALLEL)
            // One that is gone by now was deleted meanwhile, and is not part of the list.
            .try_filter_map(|found| std::future::ready(Ok(found.map(|(record, _)| record))))
            .try_filter(|record| std::future::ready(matches(record, filter)))
            .try_collect()
            .await?;
        records.sort_by(|one, two| one.resource_id.cmp(&two.resource_id));
        Ok(records)
    }

    async fn delete(&self, id: &str) -> Result<()> {
        let path = self.layout.record(id)?;
        // Most stores answer a deletion the same way whether there was anything or not.
        self.store.head(&path).await.map_err(failed)?;
        open(&self.seen).remove(&path);
        self.store.delete(&path).await.map_err(failed)
    }

    async fn lock(&self, id: &str) -> Result<()> {
        let path = self.layout.lock(id)?;
        let content = PutPayload::from_static(b"locked\n");
        match self
            .store
            .put_opts(&path, content, PutOptions::from(PutMode::Create))
            .await
        {
            Ok(_) => {
                open(&self.locked).insert(path, ());
                Ok(())
            }
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Err(Error::conflict(format!(
                "{id:?} is locked already ({path})"
            ))),
            Err(error) => Err(failed(error)),
        }
    }

    async fn unlock(&self, id: &str) -> Result<()> {
        let path = self.layout.lock(id)?;
        if open(&self.locked).remove(&path).is_none() {
            return Err(Error::conflict(format!(
                "{id:?} is not locked by this process ({path})"
            )));
        }
        self.store.delete(&path).await.map_err(failed)
    }
}
