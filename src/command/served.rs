//! From an `iac.state` module whose backend is not built in to a store that a plugin serves.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tidegate_plugin::{convention, iac};

use super::Desk;
use super::stores::{Declared, Key};
use crate::config::Config;
use crate::provider::plugin::{self, BackendError, StateBackend};
use crate::report::{Event, Report, Reporter as _};
use crate::state::served::{Before, Object, SEPARATOR, Shelf};
use crate::state::{Served, Store, StoreError, StoreResult};

/// Settings that are ours and no plugin's.
const OUR_KEYS: [&str; 4] = ["encrypt", "key_file", "project", "ephemeral"];
/// `status` of an object, and of the mark that one was removed.
const THERE: &str = "active";
const REMOVED: &str = "destroyed";

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
struct Records {
    backend: StateBackend,
    place: String,
}

impl Records {
    fn failed(&self, error: BackendError) -> StoreError {
        StoreError::Storage(format!("{}: {}", self.place, error.message))
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
impl Shelf for Records {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn compares(&self) -> bool {
        self.backend.compares()
    }

    async fn get(&self, id: &str) -> StoreResult<Option<Object>> {
        let found = self.backend.get(id).await;
        match found.map_err(|error| self.failed(error))? {
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
        let records = self
            .backend
            .list(filter)
            .await
            .map_err(|error| self.failed(error))?;
        records
            .into_iter()
            // Not every plugin filters as it should.
            .filter(|record| Object::parent(&record.resource_id) == parent)
            .map(|record| self.object(record))
            .collect()
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

impl Desk {
    /// Where plugins are: the folder that is asked for, then the one beside our own executable, in
    /// which a release brings its own.
    fn plugin_folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![plugin::folder(
            self.global.plugin_dir.as_deref(),
            &self.settings.variables,
        )];
        let beside = self
            .settings
            .executable
            .parent()
            .map(|folder| folder.join("plugins"));
        folders.extend(beside);
        folders
    }

    /// Opens a store that a plugin serves.
    pub(super) async fn open_served(
        &self,
        config: &Config,
        declared: &Declared,
        key: Option<Key>,
        encrypts: bool,
    ) -> Result<Arc<dyn Store>, Report> {
        let project = declared.text("project", "state/setting")?;
        // A storage is shared; two configs without names would take each other's resources for
        // their own. A prefix of its own does as well.
        if project.is_none() && declared.text("prefix", "state/setting")?.is_none() {
            return Err(declared
                .problem(
                    "state/project",
                    format!("`backend: {}` needs a `project`", declared.backend),
                )
                .because(
                    "a bucket is shared; two configs without names would take each other's \
                     resources for their own",
                )
                .fix("add `project: <name>`, the same for every environment of this config")
                .fix("or give this config a `prefix` of its own"));
        }
        let mut settings = declared.settings.clone();
        settings.retain(|name, _| !OUR_KEYS.contains(&name.as_str()));
        let folders = self.plugin_folders();
        let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        let backend = StateBackend::open(
            &declared.backend,
            &settings,
            &folders,
            &config.directory,
            self.plugin_tools(),
        )
        .await
        .map_err(|problem| problem.at_maybe(declared.at.clone()))?;
        if !backend.compares() {
            let warning = Report::warning(
                "state/no-compare",
                format!(
                    "the state backend `{}` of plugin `{}` cannot compare before it writes",
                    backend.name(),
                    backend.plugin()
                ),
            )
            .because(
                "every write is guarded by the backend's own lock and read back instead, which is \
                 slower, and as safe as that lock",
            )
            .fix("`tidegate-plugin-cloud` serves the same storage with real compare-and-swap");
            self.ui.say(Event::Problem(Box::new(warning)));
        }
        let bucket = ["bucket", "container"]
            .iter()
            .find_map(|name| declared.text(name, "state/setting").ok().flatten());
        let place = match bucket {
            Some(bucket) => format!("{} {bucket} (plugin {})", backend.name(), backend.plugin()),
            None => format!("{} (plugin {})", backend.name(), backend.plugin()),
        };
        let shelf = Arc::new(Records { backend, place });
        let mut store = Served::open(
            shelf,
            project.unwrap_or_default(),
            &config.environment,
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )
        .map_err(Report::from)?;
        if let Some(key) = key {
            store = store.with_key(*key);
            if encrypts {
                store = store.with_encryption(&key);
            }
        }
        Ok(Arc::new(store))
    }
}
