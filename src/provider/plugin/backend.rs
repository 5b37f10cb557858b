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
use super::{Tools, convert, environment, gates, start, unless_stopped};
use crate::provider::{DriverError, ErrorClass};
use crate::report::{Exit, Report};
use crate::resource::{Map, Value};

/// Names that are ours alone.
const RESERVED: [&str; 3] = ["memory", "filesystem", "postgres"];
/// What the release's own plugin serves, for hints where it is missing.
const BUNDLED_NAMES: [&str; 4] = ["s3", "spaces", "gcs", "azure_blob"];
/// Slips of the finger within which one name is taken for another.
const NEAR: usize = 2;
/// How Go's JSON reader calls what a writer that was killed has left: a file that ends too soon.
const CUT_SHORT: &str = "unexpected end of JSON input";
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
    /// The request is larger than plugins take; no further try changes that.
    pub is_too_large: bool,
    /// The plugin says that what is stored cannot be read.
    pub is_damaged: bool,
    /// The answer is larger than what is taken at once; it may be asked for in parts.
    pub is_answer_too_large: bool,
    /// In words, fit to be shown.
    pub message: String,
}

/// Where plugins that serve state backends are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// Plugin folders; an earlier one wins.
    pub folders: &'a [&'a Path],
    /// The folder of our own executable, where a release has its own plugin. Asked last.
    pub beside: Option<&'a Path>,
}

/// The one plugin whose manifest says it serves `wanted`.
fn serving(tools: &Tools, places: Places<'_>, wanted: &str) -> Result<Found, Report> {
    let mut seen = Vec::new();
    let mut left_out = Vec::new();
    for folder in places.folders {
        let (found, skipped) = find::list(tools.disk.as_ref(), folder)?;
        left_out.extend(skipped);
        for plugin in &found {
            refuse_reserved(&plugin.name, &plugin.manifest.state_backends)?;
        }
        let (mut serving, others): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|plugin| serves(plugin, wanted));
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
        seen.extend(others);
    }
    if let Some(plugin) = places
        .beside
        .and_then(|folder| find::bundled(tools.disk.as_ref(), folder))
    {
        if serves(&plugin, wanted) {
            return Ok(plugin);
        }
        seen.push(plugin);
    }
    Err(nobody_serves(places, wanted, &seen, &left_out))
}

fn serves(plugin: &Found, wanted: &str) -> bool {
    let mut names = plugin.manifest.state_backends.iter();
    names.any(|name| name == wanted)
}

fn nobody_serves(
    places: Places<'_>,
    wanted: &str,
    seen: &[Found],
    left_out: &[find::Skipped],
) -> Report {
    let said: Vec<String> = seen
        .iter()
        .map(|plugin| match plugin.manifest.state_backends.as_slice() {
            [] => format!("`{}` (no state backend)", plugin.name),
            names => format!("`{}` ({})", plugin.name, names.join(", ")),
        })
        .collect();
    let folders: Vec<String> = places
        .folders
        .iter()
        .map(|folder| format!("`{}`", folder.display()))
        .collect();
    let mut report = Report::error(
        "plugin/no-backend",
        format!("no plugin serves the state backend `{wanted}`"),
    )
    .because(if said.is_empty() {
        format!("there is no plugin in {}", folders.join(" or "))
    } else {
        format!("in {}: {}", folders.join(" and "), said.join(", "))
    })
    .exit(Exit::Usage);
    for skipped in left_out {
        report = report.because(format!("`{}` is left out: {}", skipped.name, skipped.why));
    }
    let known = seen
        .iter()
        .flat_map(|plugin| plugin.manifest.state_backends.iter().map(String::as_str))
        .chain(RESERVED)
        .chain(BUNDLED_NAMES);
    let near = known
        .map(|name| (strsim::damerau_levenshtein(name, wanted), name))
        .filter(|(distance, _)| *distance <= NEAR)
        .min();
    if let Some((_, near)) = near {
        report = report.fix(format!("did you mean `{near}`?"));
    }
    report
        .fix(format!(
            "`s3`, `spaces`, `gcs` and `azure_blob` are served by `{0}`, which comes with every \
             release: leave it beside the `tidegate` executable, or install it as \
             `<folder>/{0}/` with its `plugin.json`",
            find::BUNDLED
        ))
        .fix("name another folder with --plugin-dir or TIDEGATE_PLUGIN_DIR")
        .fix("built in are `filesystem`, `postgres` and `memory`")
}

/// Names that are built in belong to nobody else.
fn refuse_reserved(plugin: &str, names: &[String]) -> Result<(), Report> {
    match names.iter().find(|name| RESERVED.contains(&name.trim())) {
        None => Ok(()),
        Some(name) => Err(Report::error(
            "plugin/backend-reserved",
            format!(
                "plugin `{plugin}` claims the state backend `{}`, which is built in",
                name.trim()
            ),
        )
        .because("a plugin must not come between a config and its state")
        .fix("remove the plugin, or install a release that does not claim it")),
    }
}

impl StateBackend {
    /// Finds in `places`, checks, starts and configures the plugin that serves the backend
    /// `wanted`. `settings` is the module's whole config; `base` is the folder of the config.
    ///
    /// # Errors
    /// Every gate has a code of its own. Whatever was started is gone.
    pub async fn open(
        wanted: &str,
        settings: &Map,
        places: Places<'_>,
        base: &Path,
        tools: Tools,
    ) -> Result<Self, Report> {
        unless_stopped(
            &tools.cancel.clone(),
            Self::opened(wanted, settings, places, base, tools),
        )
        .await
    }

    async fn opened(
        wanted: &str,
        settings: &Map,
        places: Places<'_>,
        base: &Path,
        tools: Tools,
    ) -> Result<Self, Report> {
        let found = serving(&tools, places, wanted)?;
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
        let DriverError { class, message, .. } = self.connection.driver_error(error);
        BackendError {
            // Refused here, or by the plugin's own library, which is the only one to call it that.
            is_too_large: matches!(error, CallError::RequestTooLarge(_))
                || (code == Some(Code::ResourceExhausted) && class == ErrorClass::Invalid),
            is_answer_too_large: matches!(error, CallError::AnswerTooLarge),
            is_conflict: code == Some(Code::Aborted),
            is_damaged: code == Some(Code::DataLoss) || message.contains(CUT_SHORT),
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
        let object = self.connection.tools().deadlines.object;
        let request = iac::GetStateRequest {
            resource_id: id.to_owned(),
        };
        let answer = unary!(
            self.connection,
            IaCStateBackendClient.get_state(request),
            object
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
                is_too_large: false,
                is_damaged: false,
                is_answer_too_large: false,
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
        let object = self.connection.tools().deadlines.object;
        let request = iac::SaveStateRequest {
            state: Some(record),
        };
        unary!(
            self.connection,
            IaCStateBackendClient.save_state(request),
            object
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
        let object = self.connection.tools().deadlines.object;
        let request = iac::DeleteStateRequest {
            resource_id: id.to_owned(),
        };
        unary!(
            self.connection,
            IaCStateBackendClient.delete_state(request),
            object
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
        let object = self.connection.tools().deadlines.object;
        let request = iac::LockRequest {
            resource_id: id.to_owned(),
        };
        unary!(self.connection, IaCStateBackendClient.lock(request), object)
            .await
            .map(drop)
            .map_err(|error| self.failed(&error))
    }

    /// Gives it back.
    ///
    /// # Errors
    /// When it is not held.
    pub async fn unlock(&self, id: &str) -> Result<(), BackendError> {
        let object = self.connection.tools().deadlines.object;
        let request = iac::UnlockRequest {
            resource_id: id.to_owned(),
        };
        unary!(
            self.connection,
            IaCStateBackendClient.unlock(request),
            object
        )
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
    refuse_reserved(&plugin.name, &names)?;
    if names != *declared {
        return Err(mismatch(format!(
            "plugin.json lists `{}`, the plugin says `{}`",
            said(declared),
            said(&names)
        )));
    }
    Ok(())
}
