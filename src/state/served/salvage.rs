//! A damaged state on a shelf: each object is asked for by itself.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::state::own::{KeepsakeFile, parse_own};
use crate::state::{Each, Keepsake, Record, StoreError, StoreResult, name};

use super::census::Tally;
use super::head::HeadFile;
use super::{Object, PARALLEL, SEPARATOR, Served};

/// What an id tells, and what is there.
type Told = (String, StoreResult<Object>);

impl Served {
    pub(super) async fn each_object(&self) -> StoreResult<Each> {
        let mut each = Each::default();
        let Some(head) = self.standing().await? else {
            return Ok(each);
        };
        for kind in ["record", "keepsake"] {
            let found = self.ask_each(&head, kind).await?;
            let readable: Vec<Object> = found
                .iter()
                .filter_map(|(_, object)| object.as_ref().ok().cloned())
                .collect();
            let unreadable = u64::try_from(found.len() - readable.len()).unwrap_or(u64::MAX);
            if let Some((counted, there)) = head.missing(kind, &readable) {
                // Those that cannot be read are there, and named by themselves.
                let there = Tally {
                    count: there.count + unreadable,
                    ..there
                };
                if unreadable == 0 || counted.count != there.count {
                    each.incomplete
                        .get_or_insert(self.incomplete(kind, counted, there));
                }
            }
            for (told, object) in found {
                match kind {
                    "record" => {
                        if let Some(record) = self.record_in(object).transpose() {
                            each.records.push((told, record));
                        }
                    }
                    _ => {
                        if let Some(keepsake) = keepsake_in(&told, object).transpose() {
                            each.keepsakes.push((told, keepsake));
                        }
                    }
                }
            }
        }
        Ok(each)
    }

    /// Every object of a kind, by the name that its id tells.
    async fn ask_each(&self, head: &HeadFile, kind: &str) -> StoreResult<Vec<Told>> {
        let parent = self.parent(&head.room, kind);
        let mut ids = self.shelf().under(&parent).await?;
        ids.retain(|id| Object::parent(id) == parent);
        let questions = ids.into_iter().map(|id| {
            let shelf = Arc::clone(&self.guarded.shelf);
            async move {
                let last = id.rsplit(SEPARATOR).next().unwrap_or_default();
                let told = name::decode(last).unwrap_or_else(|| last.to_owned());
                match shelf.get(&id).await {
                    // Gone since the list was made.
                    Ok(None) => Ok(None),
                    Ok(Some(object)) => Ok(Some((told, Ok(object)))),
                    Err(error @ StoreError::Corrupt { .. }) => Ok(Some((told, Err(error)))),
                    Err(error) => Err(error),
                }
            }
        });
        let found: Vec<Option<Told>> = stream::iter(questions)
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Every environment below `parent`, of which not all heads can be read.
    pub(super) async fn environments_by_name(&self, parent: &str) -> StoreResult<Vec<String>> {
        let mut ids = self.shelf().under(parent).await?;
        ids.retain(|id| Object::parent(id) == parent);
        let names = ids.into_iter().map(|id| async move {
            match self.shelf().get(&id).await {
                Ok(None) => Ok(None),
                Ok(Some(head)) => Ok(environment_of(&id, Some(&head))),
                Err(StoreError::Corrupt { .. }) => Ok(environment_of(&id, None)),
                Err(error) => Err(error),
            }
        });
        let found: Vec<Option<String>> =
            stream::iter(names).buffered(PARALLEL).try_collect().await?;
        let mut names: Vec<String> = found.into_iter().flatten().collect();
        names.sort();
        Ok(names)
    }

    fn record_in(&self, object: StoreResult<Object>) -> StoreResult<Option<Record>> {
        let object = object?;
        match &object.content {
            Some(text) => self.decode_listed(&object, text).map(Some),
            None => Ok(None),
        }
    }
}

/// The environment whose head this is; `None` when it is being removed. Of a head that cannot be read
/// the id tells it: that is for those to complain of who ask for that environment.
pub(super) fn environment_of(id: &str, head: Option<&Object>) -> Option<String> {
    let last = id.rsplit(SEPARATOR).next().unwrap_or_default();
    let text = head.and_then(|head| head.content.as_deref());
    let read = text.map(|text| parse_own::<HeadFile>(text.as_bytes(), &last));
    match read {
        Some(Ok(head)) => (!head.is_leaving).then_some(head.environment),
        _ => Some(name::decode(last).unwrap_or_else(|| last.to_owned())),
    }
}

fn keepsake_in(key: &str, object: StoreResult<Object>) -> StoreResult<Option<Keepsake>> {
    match object?.content {
        Some(text) => KeepsakeFile::decode_text(&text, key).map(Some),
        None => Ok(None),
    }
}
