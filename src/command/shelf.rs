//! A state backend of a plugin as a shelf of objects: the arrow from `state` to `provider` that
//! neither of the two rooms may draw.

use std::collections::HashMap;

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tidegate_plugin::{convention, iac};

use crate::provider::plugin::{BackendError, StateBackend};
use crate::state::served::{Before, Object, SEPARATOR, Shelf};
use crate::state::{StoreError, StoreResult};

/// `status` of an object, and of the mark that one was removed.
const THERE: &str = "active";
const REMOVED: &str = "destroyed";
/// Objects asked for at once.
const PARALLEL: usize = 16;

/// A state backend of a plugin as a shelf of objects. Each object is a record of the contract:
///
/// | field | content |
/// |---|---|
/// | `resource_id` | the id |
/// | `resource_type` | `tidegate.object` |
/// | `provider` | the id without its last segment, which lists are filtered by |
/// | `provider_id` | the version |
/// | `config_hash` | of a conditional save: what must be there |
/// | `status` | `active`, or `destroyed` for a mark |
/// | `outputs_json` | `{"content": "…"}` |
#[derive(Debug)]
pub struct PluginShelf {
    backend: StateBackend,
    place: String,
}

impl PluginShelf {
    /// `place` is what messages call it.
    pub fn new(backend: StateBackend, place: String) -> Self {
        Self { backend, place }
    }

    fn failed(&self, error: BackendError) -> StoreError {
        let said = format!("{}: {}", self.place, error.message);
        if error.is_damaged {
            StoreError::Corrupt {
                what: format!("an object in {}", self.place),
                reason: error.message,
            }
        } else if error.is_too_large {
            StoreError::TooLarge(said)
        } else {
            StoreError::Storage(said)
        }
    }

    /// What is too much for one answer: the ids first, then each object by itself.
    async fn one_by_one(&self, parent: &str) -> StoreResult<Vec<Object>> {
        let mut ids = self.under(parent).await?;
        ids.retain(|id| Object::parent(id) == parent);
        let objects: Vec<Option<Object>> = stream::iter(ids)
            .map(|id| async move { self.get(&id).await })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        // One that is gone by now was deleted meanwhile.
        Ok(objects.into_iter().flatten().collect())
    }

    fn record(object: &Object, before: Option<Before<'_>>) -> iac::IaCState {
        let outputs_json = object.content.as_ref().map_or_else(Vec::new, |content| {
            serde_json::json!({ "content": content })
                .to_string()
                .into_bytes()
        });
        iac::IaCState {
            resource_id: object.id.clone(),
            resource_type: convention::OBJECT.to_owned(),
            provider: Object::parent(&object.id).to_owned(),
            provider_id: object.version.clone(),
            config_hash: match before {
                None => String::new(),
                Some(Before::Nothing) => convention::NOTHING.to_owned(),
                Some(Before::Version(version)) => format!("{}{version}", convention::VERSION),
            },
            status: if object.content.is_some() {
                THERE
            } else {
                REMOVED
            }
            .to_owned(),
            outputs_json: outputs_json.into(),
            ..iac::IaCState::default()
        }
    }

    fn object(&self, record: iac::IaCState) -> StoreResult<Object> {
        let corrupt = |reason: &str| StoreError::Corrupt {
            what: format!("the object `{}` in {}", record.resource_id, self.place),
            reason: reason.to_owned(),
        };
        if record.resource_type != convention::OBJECT {
            return Err(corrupt("it is no object of a Tidegate state"));
        }
        if record.provider_id.is_empty() {
            return Err(corrupt("its version is missing"));
        }
        let content = match record.status.as_str() {
            REMOVED => None,
            THERE => {
                let outputs: serde_json::Value = serde_json::from_slice(&record.outputs_json)
                    .map_err(|_| corrupt("its content is not JSON"))?;
                match outputs.get("content").and_then(|content| content.as_str()) {
                    Some(content) => Some(content.to_owned()),
                    None => return Err(corrupt("its content is missing")),
                }
            }
            _ => return Err(corrupt("its status is not a known one")),
        };
        Ok(Object {
            id: record.resource_id,
            version: record.provider_id,
            content,
        })
    }
}

#[async_trait]
impl Shelf for PluginShelf {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn compares(&self) -> bool {
        self.backend.compares()
    }

    async fn get(&self, id: &str) -> StoreResult<Option<Object>> {
        let found = self.backend.get(id).await.map_err(|mut error| {
            // Not every plugin says which one it is that cannot be read.
            if !error.message.contains(id) {
                error.message = format!("`{id}`: {}", error.message);
            }
            self.failed(error)
        });
        match found? {
            Some(record) if record.resource_id == id => self.object(record).map(Some),
            Some(_) => Err(StoreError::Corrupt {
                what: format!("the object `{id}` in {}", self.place),
                reason: "another one is in its place".to_owned(),
            }),
            None => Ok(None),
        }
    }

    async fn children(&self, parent: &str) -> StoreResult<Vec<Object>> {
        let filter = HashMap::from([
            ("resource_type".to_owned(), convention::OBJECT.to_owned()),
            ("provider".to_owned(), parent.to_owned()),
            (convention::UNDER.to_owned(), format!("{parent}{SEPARATOR}")),
        ]);
        let records = match self.backend.list(filter).await {
            Ok(records) => records,
            Err(error) if error.is_answer_too_large => return self.one_by_one(parent).await,
            Err(error) => return Err(self.failed(error)),
        };
        records
            .into_iter()
            // Not every plugin filters as it should.
            .filter(|record| Object::parent(&record.resource_id) == parent)
            .map(|record| self.object(record))
            .collect()
    }

    async fn under(&self, ancestor: &str) -> StoreResult<Vec<String>> {
        let start = format!("{ancestor}{SEPARATOR}");
        let filter = HashMap::from([
            (convention::UNDER.to_owned(), start.clone()),
            (convention::NAMES.to_owned(), convention::ONLY.to_owned()),
        ]);
        let records = self
            .backend
            .list(filter)
            .await
            .map_err(|error| self.failed(error))?;
        let ids = records.into_iter().map(|record| record.resource_id);
        Ok(ids.filter(|id| id.starts_with(&start)).collect())
    }

    async fn save_if(&self, object: &Object, before: Before<'_>) -> StoreResult<bool> {
        match self.backend.save(Self::record(object, Some(before))).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_conflict => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn save(&self, object: &Object) -> StoreResult<()> {
        self.backend
            .save(Self::record(object, None))
            .await
            .map_err(|error| self.failed(error))
    }

    async fn delete(&self, id: &str) -> StoreResult<()> {
        match self.backend.delete(id).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_absent => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn lock(&self, id: &str) -> StoreResult<()> {
        self.backend
            .lock(id)
            .await
            .map_err(|error| self.failed(error))
    }

    async fn unlock(&self, id: &str) -> StoreResult<()> {
        self.backend
            .unlock(id)
            .await
            .map_err(|error| self.failed(error))
    }
}
