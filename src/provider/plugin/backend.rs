//! State backends of plugins: from the name in a config to a configured service.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use tidegate_plugin::iac::ia_c_state_backend_client::IaCStateBackendClient;
use tidegate_plugin::{convention, iac};
use tonic::Code;

use super::connection::{CallError, Connection, unary};
use super::find::{self, Found};
use super::launch::Running;
use super::{Tools, convert, environment, gates, start};
use crate::provider::DriverError;
use crate::report::{Exit, Report};
use crate::resource::{Map, Value};

/// Names that are ours alone.
const RESERVED: [&str; 3] = ["memory", "filesystem", "postgres"];
/// The service, as the registry shortens it.
const SERVICE: &str = "IaCStateBackend";

/// A configured state backend of a running plugin. The plugin ends with this value.
pub struct StateBackend {
    name: String,
    connection: Connection,
    compares: bool,
    // Held for its drop.
    _running: Running,
}

impl fmt::Debug for StateBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateBackend")
            .field("name", &self.name)
            .field("plugin", &self.connection.plugin)
            .finish_non_exhaustive()
    }
}

/// Why a call to a state backend brought nothing.
#[derive(Debug)]
pub struct BackendError {
    /// The plugin says that something else is there, or holds the lock.
    pub is_conflict: bool,
    /// The plugin says that there is no such record.
    pub is_absent: bool,
    /// In words, fit to be shown.
    pub message: String,
}

/// The one plugin in `folders` whose manifest says it serves `wanted`; an earlier folder wins.
fn serving(tools: &Tools, folders: &[&Path], wanted: &str) -> Result<Found, Report> {
    let mut seen = Vec::new();
    let mut left_out = Vec::new();
    for folder in folders {
        let (found, skipped) = find::list(tools.disk.as_ref(), folder)?;
        left_out.extend(skipped);
        let (mut serving, others): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|plugin| {
                plugin
                    .manifest
                    .state_backends
                    .iter()
                    .any(|name| name == wanted)
            });
        if let [one, other, ..] = serving.as_slice() {
            return Err(Report::error(
                "plugin/backend-twice",
                format!(
                    "the plugins `{}` and `{}` both serve the state backend `{wanted}`",
                    one.name, other.name
                ),
            )
            .because("which of them has the state cannot be guessed")
            .fix(format!("remove one of them from `{}`", folder.display()))
            .exit(Exit::Usage));
        }
        if let Some(plugin) = serving.pop() {
            return Ok(plugin);
        }
        seen.extend(others.into_iter().map(|plugin| {
            let names = plugin.manifest.state_backends.join(", ");
            if names.is_empty() {
                format!("`{}` (no state backend)", plugin.name)
            } else {
                format!("`{}` ({names})", plugin.name)
            }
        }));
    }
    let places: Vec<String> = folders
        .iter()
        .map(|folder| format!("`{}`", folder.display()))
        .collect();
    let mut report = Report::error(
        "plugin/no-backend",
        format!("no plugin serves the state backend `{wanted}`"),
    )
    .because(if seen.is_empty() {
        format!("there is no plugin in {}", places.join(" or "))
    } else {
        format!("in {}: {}", places.join(" and "), seen.join(", "))
    })
    .exit(Exit::Usage);
    for skipped in left_out {
        report = report.because(format!("`{}` is left out: {}", skipped.name, skipped.why));
    }
    Err(report
        .fix("`s3`, `spaces`, `gcs` and `azure_blob` are served by `tidegate-plugin-cloud`, which comes with every release: install it as `<folder>/tidegate-plugin-cloud/` with its `plugin.json`")
        .fix("name another folder with --plugin-dir or TIDEGATE_PLUGIN_DIR")
        .fix("built in are `filesystem`, `postgres` and `memory`"))
}

impl StateBackend {
    /// Finds, checks, starts and configures the plugin that serves the backend `wanted`. `settings`
    /// is the module's whole config; `base` is the folder of the config.
    ///
    /// # Errors
    /// Every gate has a code of its own. Whatever was started is gone.
    pub async fn open(
        wanted: &str,
        settings: &Map,
        folders: &[&Path],
        base: &Path,
        tools: Tools,
    ) -> Result<Self, Report> {
        let found = serving(&tools, folders, wanted)?;
        let mut settings = settings.clone();
        let declared = settings.remove(environment::CONFIG_KEY);
        settings.insert("backend".to_owned(), Value::String(wanted.to_owned()));
        let config_json = convert::config_json(&settings, &mut Vec::new());
        let (running, connection) = start(&found, base, declared.as_ref(), &tools).await?;
        // When a gate refuses, dropping `running` ends the plugin.
        check_names(&connection, &found).await?;
        let setup = connection.tools().deadlines.initialize;
        let request = iac::ConfigureRequest {
            backend_name: wanted.to_owned(),
            config_json,
        };
        match unary!(connection, IaCStateBackendClient.configure(request), setup).await {
            Ok(iac::ConfigureResponse {}) => {}
            Err(error) if error.code() == Some(Code::Unimplemented) => {
                return Err(Report::error(
                    "plugin/backend-too-old",
                    format!(
                        "plugin `{}` is too old: its state backend cannot be configured",
                        found.name
                    ),
                )
                .fix("install a newer release of the plugin"));
            }
            Err(error) => {
                let said = connection.driver_error(&error);
                return Err(Report::error(
                    "plugin/backend-config",
                    format!("the state backend `{wanted}` refuses its config"),
                )
                .because(said.message)
                .fix("correct the `iac.state` module; docs/state.md lists every setting")
                .exit(Exit::Usage));
            }
        }
        let mut backend = Self {
            name: wanted.to_owned(),
            connection,
            compares: false,
            _running: running,
        };
        backend.compares = backend.probe().await;
        Ok(backend)
    }

    /// Asks for a record that no store has; one that compares says so in its place.
    async fn probe(&self) -> bool {
        match self.get(convention::PROBE).await {
            Ok(Some(answer)) => answer.status == convention::COMPARES,
            // An existing plugin may find the id strange; then it does not know the convention.
            Ok(None) | Err(_) => false,
        }
    }

    /// The name in the config.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The plugin that serves it.
    pub fn plugin(&self) -> &str {
        &self.connection.plugin
    }

    /// Whether a save can be conditional; see [`convention`].
    pub fn compares(&self) -> bool {
        self.compares
    }

    fn failed(&self, error: &CallError) -> BackendError {
        let code = error.code();
        let DriverError { message, .. } = self.connection.driver_error(error);
        BackendError {
            is_conflict: code == Some(Code::Aborted),
            is_absent: code == Some(Code::NotFound)
                || message.contains("not found")
                || message.contains("does not exist"),
            message,
        }
    }

    /// A record.
    ///
    /// # Errors
    /// When the plugin cannot tell.
    pub async fn get(&self, id: &str) -> Result<Option<iac::IaCState>, BackendError> {
        let look = self.connection.tools().deadlines.look;
        let request = iac::GetStateRequest {
            resource_id: id.to_owned(),
        };
        let answer = unary!(
            self.connection,
            IaCStateBackendClient.get_state(request),
            look
        )
        .await
        .map_err(|error| self.failed(&error))?;
        match answer {
            iac::GetStateResponse { exists: false, .. } => Ok(None),
            iac::GetStateResponse {
                state: Some(state), ..
            } => Ok(Some(state)),
            iac::GetStateResponse { state: None, .. } => Err(BackendError {
                is_conflict: false,
                is_absent: false,
                message: format!(
                    "plugin `{}` says that a record is there and does not send it",
                    self.plugin()
                ),
            }),
        }
    }

    /// Stores a record.
    ///
    /// # Errors
    /// When it is not sure that it is stored.
    pub async fn save(&self, record: iac::IaCState) -> Result<(), BackendError> {
        let effect = self.connection.tools().deadlines.effect;
        let request = iac::SaveStateRequest {
            state: Some(record),
        };
        unary!(
            self.connection,
            IaCStateBackendClient.save_state(request),
            effect
        )
        .await
        .map(drop)
        .map_err(|error| self.failed(&error))
    }

    /// Every record that passes `filter`.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub async fn list(
        &self,
        filter: HashMap<String, String>,
    ) -> Result<Vec<iac::IaCState>, BackendError> {
        let look = self.connection.tools().deadlines.look;
        let request = iac::ListStatesRequest {
            filter: filter.into_iter().collect(),
        };
        unary!(
            self.connection,
            IaCStateBackendClient.list_states(request),
            look
        )
        .await
        .map(|answer| answer.states)
        .map_err(|error| self.failed(&error))
    }

    /// Removes a record.
    ///
    /// # Errors
    /// Also when there was none, with many plugins.
    pub async fn delete(&self, id: &str) -> Result<(), BackendError> {
        let effect = self.connection.tools().deadlines.effect;
        let request = iac::DeleteStateRequest {
            resource_id: id.to_owned(),
        };
        unary!(
            self.connection,
            IaCStateBackendClient.delete_state(request),
            effect
        )
        .await
        .map(drop)
        .map_err(|error| self.failed(&error))
    }

    /// Takes the plugin's own lock on an id.
    ///
    /// # Errors
    /// When somebody holds it.
    pub async fn lock(&self, id: &str) -> Result<(), BackendError> {
        let look = self.connection.tools().deadlines.look;
        let request = iac::LockRequest {
            resource_id: id.to_owned(),
        };
        unary!(self.connection, IaCStateBackendClient.lock(request), look)
            .await
            .map(drop)
            .map_err(|error| self.failed(&error))
    }

    /// Gives it back.
    ///
    /// # Errors
    /// When it is not held.
    pub async fn unlock(&self, id: &str) -> Result<(), BackendError> {
        let look = self.connection.tools().deadlines.look;
        let request = iac::UnlockRequest {
            resource_id: id.to_owned(),
        };
        unary!(self.connection, IaCStateBackendClient.unlock(request), look)
            .await
            .map(drop)
            .map_err(|error| self.failed(&error))
    }
}

/// What the running plugin serves must be what its manifest says.
async fn check_names(connection: &Connection, plugin: &Found) -> Result<(), Report> {
    let mismatch = |why: String| {
        Report::error(
            "plugin/backend-mismatch",
            format!(
                "plugin `{}` does not serve the state backends that its plugin.json lists",
                plugin.name
            ),
        )
        .because(why)
        .fix("install a release of the plugin whose plugin.json is right")
    };
    if !gates::services(connection).await?.contains(SERVICE) {
        return Err(mismatch(format!(
            "`{SERVICE}` is not in the contract registry of the plugin"
        )));
    }
    let setup = connection.tools().deadlines.setup;
    let request = iac::ListBackendNamesRequest {};
    let mut names = unary!(
        connection,
        IaCStateBackendClient.list_backend_names(request),
        setup
    )
    .await
    .map_err(|error| connection.load_error("plugin/backend-names", "ListBackendNames", &error))?
    .backend_names;
    names.sort();
    names.dedup();
    let said = |names: &[String]| connection.tools().excerpt(&names.join(", "));
    let declared = &plugin.manifest.state_backends;
    let reserved = names
        .iter()
        .chain(declared)
        .find(|name| RESERVED.contains(&name.trim()));
    if let Some(name) = reserved {
        return Err(Report::error(
            "plugin/backend-reserved",
            format!(
                "plugin `{}` claims the state backend `{}`, which is built in",
                plugin.name,
                name.trim()
            ),
        )
        .because("a plugin must not come between a config and its state")
        .fix("remove the plugin, or install a release that does not claim it"));
    }
    if names != *declared {
        return Err(mismatch(format!(
            "plugin.json lists `{}`, the plugin says `{}`",
            said(declared),
            said(&names)
        )));
    }
    Ok(())
}
