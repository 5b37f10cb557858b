//! From the `iac.state` module to an open store. The only place that knows which stores there are.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::state_key::{Key, encrypts};
use super::{Desk, Problems};
use crate::actions::{self, context::RunnerEnvironment};
use crate::apply::Providers;
use crate::clock::rfc3339;
use crate::config::{Config, Fault, StateDeclaration, backends::settings_of};
use crate::random::hex_of;
use crate::report::{Event, Exit, Report, Reporter as _, Severity, Span};
use crate::resource::{Address, Map, Value};
use crate::state::lease::{Neighbours, Renewal};
use crate::state::postgres::{DEFAULT_SCHEMA, Server};
use crate::state::{
    Filesystem, Holder, Lease, Memory, Postgres, Rescuing, Store, StoreError, memory, name, rescue,
    unless_cancelled,
};

/// Folder of the state when no `iac.state` module says otherwise, beside the config.
pub const DEFAULT_STATE: &str = ".tidegate/state";
/// Folder of what could not be saved, beside the config.
const RECOVERY: &str = ".tidegate/recovery";

/// Beyond the lease, how long a lock of another machine is watched before it counts as dead.
const LAPSE_MARGIN: Duration = Duration::from_secs(5);

/// What a folder that stands in for the config's own store is told like that.
const COMMON_KEYS: &[&str] = &["encrypt", "identity_file", "key_file"];

/// The module's settings, with the place problems are said at.
pub(super) struct Declared {
    pub(super) backend: String,
    pub(super) settings: Map,
    ephemeral: bool,
    pub(super) at: Option<Span>,
}

impl Declared {
    /// As it is written: without the values of references, which the state cannot have.
    pub(super) fn written(state: &StateDeclaration) -> Self {
        Self {
            backend: state.backend.clone(),
            settings: state.config.clone(),
            ephemeral: state.ephemeral,
            at: Some(state.at.clone()),
        }
    }

    pub(super) fn problem(&self, code: &'static str, message: impl Into<String>) -> Report {
        Report::error(code, message)
            .at_maybe(self.at.clone())
            .exit(Exit::Usage)
    }

    pub(super) fn text(&self, key: &str, code: &'static str) -> Result<Option<&str>, Report> {
        match self.settings.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.problem(
                code,
                format!("`{key}` of `iac.state` must be text, in the open"),
            )),
        }
    }

    /// Everything that is wrong with the settings as they are written, and the settings that mean
    /// nothing to this backend, as warnings. Nothing is opened.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, report: Report| {
            faults.push(Fault {
                path: key.to_owned(),
                report,
            });
        };
        for key in ["key_file", "identity_file"] {
            if let Err(report) = self.text(key, "state/setting") {
                fault(key, report);
            }
        }
        if !matches!(
            self.settings.get("encrypt"),
            None | Some(Value::Null | Value::Bool(_))
        ) {
            fault("encrypt", self.wrong_encrypt());
        }
        match self.backend.as_str() {
            "filesystem" => {
                if let Err(report) = self.text("directory", "state/directory") {
                    fault("directory", report);
                }
            }
            "memory" => {}
            "postgres" => {
                if let Err(report) = self.connection() {
                    fault("dsn", report);
                }
                match self.text("project", "state/setting") {
                    Ok(Some(_)) => {}
                    Ok(None) => fault("project", self.no_project()),
                    Err(report) => fault("project", report),
                }
                for key in ["schema", "sslrootcert"] {
                    if let Err(report) = self.text(key, "state/setting") {
                        fault(key, report);
                    }
                }
            }
            _ => {
                match (
                    self.text("project", "state/setting"),
                    self.text("prefix", "state/setting"),
                ) {
                    (Ok(None), Ok(None)) => fault("project", self.no_project()),
                    (project, prefix) => {
                        for (key, text) in [("project", project), ("prefix", prefix)] {
                            if let Err(report) = text {
                                fault(key, report);
                            }
                        }
                    }
                }
            }
        }
        for key in self.unknown() {
            let warning = self.ignored(key);
            fault(key, warning);
        }
        faults
    }

    /// Settings that mean nothing to the backend, as far as it is known.
    fn unknown(&self) -> impl Iterator<Item = &str> {
        let known = settings_of(&self.backend);
        self.settings
            .keys()
            .map(String::as_str)
            .filter(move |key| known.as_ref().is_some_and(|known| !known.contains(key)))
    }

    fn ignored(&self, key: &str) -> Report {
        Report::warning(
            "state/setting",
            format!(
                "the {} state has no setting `{key}`; it is ignored",
                self.backend
            ),
        )
        .at_maybe(self.at.clone())
    }

    pub(super) fn wrong_encrypt(&self) -> Report {
        self.problem("state/setting", "`encrypt` must be true or false")
    }

    /// What a storage that others use too is refused without.
    pub(super) fn no_project(&self) -> Report {
        let problem = self.problem(
            "state/project",
            format!("`backend: {}` needs a `project`", self.backend),
        );
        let name = "add `project: <name>`, the same for every environment of this config";
        if self.backend == "postgres" {
            return problem
                .because(
                    "a database is shared; two configs without names would take each other's \
                     resources for their own",
                )
                .fix(name);
        }
        problem
            .because(
                "a bucket is shared; two configs without names would take each other's resources \
                 for their own",
            )
            .fix(name)
            .fix("or give this config a `prefix` of its own")
    }

    /// The one setting that says where the database is, and its value.
    fn connection(&self) -> Result<(&'static str, &Value), Report> {
        let given = |key: &'static str| {
            self.settings
                .get(key)
                .filter(|value| !matches!(value, Value::Null))
                .map(|value| (key, value))
        };
        let (key, value) = match (given("dsn"), given("connection_string")) {
            (Some(given), None) | (None, Some(given)) => given,
            (Some(_), Some(_)) => {
                return Err(self
                    .problem(
                        "state/connection",
                        "`iac.state` has both `dsn` and `connection_string`",
                    )
                    .fix("keep one"));
            }
            (None, None) => {
                return Err(self
                    .problem("state/connection", "`backend: postgres` needs a `dsn`")
                    .fix("for example `dsn: ${STATE_DATABASE_URL}`, set from a secret"));
            }
        };
        match value {
            Value::Secret(_) | Value::String(_) => Ok((key, value)),
            _ => Err(self.problem(
                "state/setting",
                format!("`{key}` of `iac.state` must be text"),
            )),
        }
    }
}

/// Two configs in one folder, and neither says where its state is.
fn other_config(path: &std::path::Path, other: &str) -> Report {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Report::error(
        "state/other-config",
        format!(
            "the state beside `{}` is that of `{other}`",
            path.display()
        ),
    )
    .because("what a config does not mention is deleted: one would delete what the other describes")
    .fix(format!(
        "give this config a state of its own: an `iac.state` module with `backend: filesystem` and \
         `directory: ./.tidegate/state-{stem}`"
    ))
    .fix(format!(
        "if it is `{other}` under a new name, say that this state is meant: `directory: ./{DEFAULT_STATE}`"
    ))
    .exit(Exit::Usage)
}

impl Desk {
    /// Opens the state of the config's environment. Touches nothing outside yet.
    pub(super) async fn open_store(
        &self,
        config: &Config,
        providers: Option<&Providers>,
    ) -> Result<Arc<dyn Store>, Report> {
        let declared = self.declared(config)?;
        let key = self.state_key(config, &declared)?;
        let encrypts = encrypts(&declared, key.is_some())?;
        let store = self
            .open_backend(config, providers, &declared, key, encrypts)
            .await?;
        self.with_recovery(config, store)
    }

    /// What the config says about its state.
    pub(super) fn declared(&self, config: &Config) -> Result<Declared, Report> {
        Ok(match &config.state {
            None => Declared {
                backend: "filesystem".to_owned(),
                settings: Map::new(),
                ephemeral: false,
                at: None,
            },
            Some(state) => Declared {
                backend: state.backend.clone(),
                settings: self.known_map(&state.config, "iac.state")?,
                ephemeral: state.ephemeral,
                at: Some(state.at.clone()),
            },
        })
    }

    async fn open_backend(
        &self,
        config: &Config,
        providers: Option<&Providers>,
        declared: &Declared,
        key: Option<Key>,
        encrypts: bool,
    ) -> Result<Arc<dyn Store>, Report> {
        match declared.backend.as_str() {
            "filesystem" => {
                self.warn_of_unknown(declared);
                self.refuse_vanishing_state(
                    config,
                    providers,
                    declared.ephemeral,
                    declared.at.as_ref(),
                )?;
                let (store, other) = self.open_filesystem(config, declared, key, encrypts)?;
                if let Some(other) = other {
                    self.is_shared_with(config, store.as_ref(), &other).await?;
                }
                Ok(store)
            }
            "memory" => {
                self.warn_of_unknown(declared);
                self.open_memory(config, declared, key)
            }
            "postgres" => {
                self.warn_of_unknown(declared);
                self.open_postgres(config, declared, key, encrypts)
            }
            _ => self.open_served(config, declared, key, encrypts).await,
        }
    }

    /// A store that keeps what it cannot save in a file beside the config.
    fn with_recovery(
        &self,
        config: &Config,
        store: Arc<dyn Store>,
    ) -> Result<Arc<dyn Store>, Report> {
        let stem = config.path.file_stem().unwrap_or_default();
        let path = config.directory.join(RECOVERY).join(format!(
            "{}.{}",
            name::encode(&stem.to_string_lossy()),
            name::encode(&config.environment)
        ));
        let tools = rescue::Tools {
            disk: Arc::clone(&self.disk),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            reporter: Arc::new(self.ui.clone()),
            cancel: self.cancel.clone(),
        };
        let store = Rescuing::new(store, path, tools);
        if let Some(waiting) = store.waiting().map_err(Report::from)? {
            self.ui.note(format!(
                "An earlier run could not save all it had done; that waits in {}. The next \
                 command that takes the lock saves it first.",
                waiting.display()
            ));
        }
        Ok(Arc::new(store))
    }

    /// What a run that died or gave up on this machine tells those that come after it.
    pub(super) fn neighbours(&self) -> Neighbours {
        Neighbours::new(Arc::clone(&self.processes))
    }

    /// Refuses the default state that another config of the folder made, unless this one declares half of
    /// what is recorded or more: then they are versions of one.
    async fn is_shared_with(
        &self,
        config: &Config,
        store: &dyn Store,
        other: &str,
    ) -> Result<(), Report> {
        // One that is damaged is for the commands that mend it.
        let Ok(records) = store.list().await else {
            return Ok(());
        };
        let declared: BTreeSet<_> = config.resources.iter().map(|one| &one.address).collect();
        let in_common = records
            .iter()
            .filter(|record| declared.contains(&record.resource_id))
            .count();
        if in_common * 2 >= records.len() {
            self.ui.note(format!(
                "That state was made with `{other}`; this config goes on with it."
            ));
            return Ok(());
        }
        Err(other_config(&config.path, other))
    }

    /// The store, and the config that made its default folder when that was another one.
    fn open_filesystem(
        &self,
        config: &Config,
        declared: &Declared,
        key: Option<Key>,
        encrypts: bool,
    ) -> Result<(Arc<dyn Store>, Option<String>), Report> {
        let directory = declared.text("directory", "state/directory")?;
        // Without the dots that `.` and `./st` would leave in every message.
        let root: PathBuf = config
            .directory
            .join(directory.unwrap_or(DEFAULT_STATE))
            .components()
            .collect();
        if directory.is_none() {
            self.ui.note(format!(
                "State is kept in {} (the default; an `iac.state` module can say otherwise).",
                root.display()
            ));
        }
        let mut store = Filesystem::open(
            root,
            &config.environment,
            Arc::clone(&self.disk),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )
        .map_err(Report::from)?;
        let mut other = None;
        if directory.is_none()
            && let Some(name) = config.path.file_name()
        {
            store = store.of_config(&name.to_string_lossy());
            other = store.claimed_by().map_err(Report::from)?;
        }
        if let Some(key) = key {
            store = store.with_key(*key);
            if encrypts {
                store = store.with_encryption(&key);
            }
        }
        Ok((Arc::new(store), other))
    }

    /// A folder as the store of `config`'s environment. Its key is kept where the config keeps that of
    /// its own store, and its records are encrypted if those are.
    pub(super) fn open_folder(
        &self,
        config: &Config,
        folder: Option<PathBuf>,
    ) -> Result<Arc<dyn Store>, Report> {
        let mut settings = self.declared(config)?.settings;
        settings.retain(|name, _| COMMON_KEYS.contains(&name.as_str()));
        if let Some(folder) = folder {
            // Named on the command line, so it is meant from here, not from the config.
            let here = self
                .disk
                .canonical(std::path::Path::new("."))
                .map_err(|error| {
                    Report::error("state/directory", error.to_string()).exit(Exit::Usage)
                })?;
            let folder = here.join(folder).display().to_string();
            settings.insert("directory".to_owned(), Value::String(folder));
        }
        let declared = Declared {
            backend: "filesystem".to_owned(),
            settings,
            ephemeral: true,
            at: None,
        };
        let key = self.state_key(config, &declared)?;
        let encrypts = encrypts(&declared, key.is_some())?;
        let (store, other) = self.open_filesystem(config, &declared, key, encrypts)?;
        match other {
            Some(other) => Err(other_config(&config.path, &other)),
            None => Ok(store),
        }
    }

    fn open_memory(
        &self,
        config: &Config,
        declared: &Declared,
        key: Option<Key>,
    ) -> Result<Arc<dyn Store>, Report> {
        let mut warning = Report::error(
            "state/forgets",
            "state is kept in memory: nothing of it is left when this command ends",
        )
        .at_maybe(declared.at.clone())
        .fix("use `backend: filesystem` or `backend: postgres` for anything that should last");
        warning.severity = Severity::Warning;
        self.ui.say(Event::Problem(Box::new(warning)));
        let mut store = Memory::open(
            memory::Shared::default(),
            &config.environment,
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )
        .map_err(Report::from)?;
        if let Some(key) = key {
            store = store.with_key(*key);
        }
        Ok(Arc::new(store))
    }

    fn open_postgres(
        &self,
        config: &Config,
        declared: &Declared,
        key: Option<Key>,
        encrypts: bool,
    ) -> Result<Arc<dyn Store>, Report> {
        let text = match declared.connection()? {
            (key, Value::String(text)) => self.masker.admit(key, text.clone()),
            (_, Value::Secret(secret)) => secret.clone(),
            (key, _) => {
                return Err(declared.problem("state/setting", format!("`{key}` must be text")));
            }
        };
        let project = declared
            .text("project", "state/setting")?
            .ok_or_else(|| declared.no_project())?;
        let server = Server::from_connection_string(
            &text,
            declared.text("sslrootcert", "state/setting")?,
            &config.directory,
            self.disk.as_ref(),
            &self.masker,
        )
        .map_err(|error| Report::from(error).at_maybe(declared.at.clone()))?;
        let mut store = Postgres::open(
            server,
            declared
                .text("schema", "state/setting")?
                .unwrap_or(DEFAULT_SCHEMA),
            project,
            &config.environment,
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )
        .map_err(|error| Report::from(error).at_maybe(declared.at.clone()))?
        .with_neighbours(self.neighbours());
        if let Some(key) = key {
            store = store.with_key(*key);
            if encrypts {
                store = store.with_encryption(&key);
            }
        }
        Ok(Arc::new(store))
    }

    /// Takes the lock of the environment.
    pub(super) async fn lock_store(
        &self,
        store: &dyn Store,
        command: &str,
        wait: Duration,
    ) -> Result<Lease, Problems> {
        let variables = &self.settings.variables;
        let user = variables
            .non_empty("GITHUB_ACTOR")
            .or_else(|| variables.non_empty("USER"))
            .or_else(|| variables.non_empty("LOGNAME"))
            .unwrap_or("unknown");
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let context = actions::Context::from_variables(variables);
        let holder = Holder {
            run_id: hex_of::<8>(self.random.as_ref()),
            who: format!("{user}@{host}"),
            process_id: std::process::id(),
            command: command.to_owned(),
            run_url: context.as_ref().and_then(actions::Context::run_url),
            job: context.map_or_else(String::new, |context| context.own_job()),
            since: rfc3339(self.clock.now()),
            mark: self.processes.own_mark(),
        };
        let first = unless_cancelled(&self.cancel, store.lock(&holder, Duration::ZERO)).await;
        let lease = match first {
            Err(StoreError::Locked { holder: other, .. }) => {
                // A holder on this start of this machine is known to live, or its lock would be
                // free. Any other may be dead, whatever its machine is called, which only the lapse
                // of its lease can show; a killed runner must not block the next one for ever.
                let here = self.processes.is_neighbour(&other.mark);
                let wait = if wait.is_zero() && !here {
                    Renewal::DEFAULT.lease + LAPSE_MARGIN
                } else {
                    wait
                };
                if !wait.is_zero() {
                    self.ui.note(format!(
                        "The state is locked by {} (`tidegate {}`, since {}); waiting up to {} s.",
                        other.who,
                        other.command,
                        other.since,
                        wait.as_secs()
                    ));
                }
                tokio::select! {
                    biased;
                    () = self.cancel.cancelled() => {
                        return Err(Report::error(
                            "state/locked",
                            "stopped while waiting for the lock; nothing was changed",
                        )
                        .exit(Exit::Interrupted)
                        .into());
                    }
                    lease = store.lock(&holder, wait) => lease,
                }
            }
            answer => answer,
        }
        .map_err(Report::from)?;
        if let Some(dead) = &lease.taken_over {
            self.ui.note(format!(
                "Took over the lock that {} left behind (`tidegate {}`, since {}).",
                dead.who, dead.command, dead.since
            ));
        }
        if let Err(problem) = self.replay(store, &lease).await {
            // Whoever puts it right needs the lock.
            drop(store.unlock(&lease).await);
            return Err(problem);
        }
        Ok(lease)
    }

    /// Saves what an earlier run had to keep aside.
    async fn replay(&self, store: &dyn Store, lease: &Lease) -> Result<(), Problems> {
        let Some((path, replayed)) = store.replay(lease).await.map_err(Report::from)? else {
            return Ok(());
        };
        self.ui.note(format!(
            "Saved {} that an earlier run had kept in {}.",
            crate::face::count(replayed.saved, "outcome"),
            path.display()
        ));
        if !replayed.overtaken.is_empty() {
            let names: Vec<&str> = replayed.overtaken.iter().map(Address::as_str).collect();
            let warning = Report::warning(
                "state/overtaken",
                format!(
                    "another run has changed or settled these records since: {}",
                    names.join(", ")
                ),
            )
            .because("theirs stay as they are; the plan below shows what is different");
            self.ui.say(Event::Problem(Box::new(warning)));
        }
        Ok(())
    }

    /// Settings nobody reads are said, not refused: a config may be shared with another tool.
    fn warn_of_unknown(&self, declared: &Declared) {
        for key in declared.unknown() {
            self.ui.say(Event::Problem(Box::new(declared.ignored(key))));
        }
    }

    /// On a GitHub-hosted runner the disk goes with the job: state on it is no memory.
    fn refuse_vanishing_state(
        &self,
        config: &Config,
        providers: Option<&Providers>,
        ephemeral: bool,
        at: Option<&crate::report::Span>,
    ) -> Result<(), Report> {
        let hosted = actions::Context::from_variables(&self.settings.variables)
            .is_some_and(|context| context.runner_environment == RunnerEnvironment::GithubHosted);
        // Without providers nothing is about to be made.
        let all_local = providers.is_none_or(|providers| {
            config.providers.keys().all(|id| {
                providers
                    .get(id)
                    .is_some_and(|provider| provider.is_local())
            })
        });
        if !hosted || ephemeral || all_local {
            return Ok(());
        }
        Err(Report::error(
            "state/vanishes",
            "the state would be kept on this runner's disk, which is thrown away when the job ends; the next run would make everything again",
        )
        .at_maybe(at.cloned())
        .fix("keep state where it lasts, or run on a self-hosted runner with a lasting disk")
        .fix("if losing it is meant (a preview that lives only in this job), say `ephemeral: true` in the `iac.state` module")
        .exit(Exit::Usage))
    }
}
