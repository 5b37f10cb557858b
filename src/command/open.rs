//! From a config to open doors: state, providers, sinks, secret stores. The only place that knows
//! which concrete ones exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Desk, Problems};
use crate::actions::{self, context::RunnerEnvironment};
use crate::apply::secrets::SecretStores;
use crate::apply::sinks::Sinks;
use crate::apply::values::Values;
use crate::apply::{Engine, Providers};
use crate::cli::ConfigArgs;
use crate::clock::rfc3339;
use crate::config::{self, Config};
use crate::face::Style;
use crate::github;
use crate::provider::Provider;
use crate::provider::local::{Local, LocalTools};
use crate::random::hex_of;
use crate::report::{Event, Exit, Report, Reporter as _, Severity};
use crate::resource::{Map, Value, resolve_map};
use crate::secret::Keyring;
use crate::secret::source;
use crate::settings;
use crate::sink::{self, SinkTools};
use crate::state::filesystem::Filesystem;
use crate::state::lease::Renewal;
use crate::state::{Holder, Lease, Store, StoreError};

/// Folder of the state when no `iac.state` module says otherwise, beside the config.
pub const DEFAULT_STATE: &str = ".tidegate/state";

/// Beyond the lease, how long a lock of another machine is watched before it counts as dead.
const LAPSE_MARGIN: Duration = Duration::from_secs(5);

/// Everything a command works on, open.
pub struct Opened {
    /// State of the environment.
    pub store: Arc<dyn Store>,
    /// Providers by module name.
    pub providers: Providers,
    /// Sinks by declaration.
    pub sinks: Sinks,
    /// Secret stores by name.
    pub secret_stores: SecretStores,
}

impl Desk {
    /// Finds, reads and resolves the config; says its warnings.
    pub fn load(&self, arguments: &ConfigArgs) -> Result<Config, Problems> {
        let path = self.find_config(arguments)?;
        let loaded = self.with_files(|files| {
            config::load(
                &path,
                self.global.env.as_deref(),
                files,
                &self.settings.variables,
                &self.masker,
            )
        })?;
        for warning in loaded.warnings {
            self.ui.say(Event::Problem(Box::new(warning)));
        }
        Ok(loaded.config)
    }

    /// The config file: named, or the first that exists of the documented places.
    pub fn find_config(&self, arguments: &ConfigArgs) -> Result<PathBuf, Problems> {
        if let (Some(plain), Some(flag)) = (&arguments.file, &self.global.config)
            && plain != flag
        {
            return Err(Report::error(
                "cli/two-configs",
                format!(
                    "two configs are named: `{}` and `--config {}`",
                    plain.display(),
                    flag.display()
                ),
            )
            .fix("name one")
            .exit(Exit::Usage)
            .into());
        }
        let named = arguments.file.as_ref().or(self.global.config.as_ref());
        Ok(config::discover(
            named.map(PathBuf::as_path),
            &|path: &Path| matches!(self.disk.entry(path), Ok(Some(_))),
        )?)
    }

    /// How data on stdout may look.
    pub fn data_style(&self) -> Style {
        Style {
            is_coloured: self
                .settings
                .colour(self.global.color, self.settings.stdout_is_terminal),
            width: self.settings.width,
        }
    }

    /// Opens everything the config names. Touches nothing outside yet.
    pub async fn open(&self, config: &Config) -> Result<Opened, Problems> {
        let mut problems = Vec::new();
        let variables = Arc::new(self.settings.variables.clone());
        let access = Arc::new(github::Access::new(
            Arc::clone(&variables),
            self.masker.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        ));
        let sinks = self.open_sinks(config, &variables, &access, &mut problems);
        let secret_stores = self.open_secret_stores(config, &variables, &access, &mut problems);
        let providers = self.open_providers(config, &mut problems).await;
        let store = match self.open_store(config, &providers) {
            Ok(store) => Some(store),
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        match store {
            Some(store) if problems.is_empty() => Ok(Opened {
                store,
                providers,
                sinks,
                secret_stores,
            }),
            _ => Err(problems.into()),
        }
    }

    fn open_sinks(
        &self,
        config: &Config,
        variables: &Arc<crate::variables::Variables>,
        access: &Arc<github::Access>,
        problems: &mut Vec<Report>,
    ) -> Sinks {
        let tools = SinkTools {
            disk: Arc::clone(&self.disk),
            random: Arc::clone(&self.random),
            variables: Arc::clone(variables),
            github: Arc::clone(access),
            reporter: Arc::new(self.ui.clone()),
            config_directory: config.directory.clone(),
        };
        let mut sinks = Sinks::new();
        for (declaration, _) in sink_names(config) {
            if sinks.contains_key(&declaration.target) {
                continue;
            }
            match sink::open(&declaration.target, &tools) {
                Ok(sink) => {
                    sinks.insert(declaration.target.clone(), sink);
                }
                Err(problem) => problems.push(problem.at_maybe(Some(declaration.at.clone()))),
            }
        }
        sinks
    }

    fn open_secret_stores(
        &self,
        config: &Config,
        variables: &Arc<crate::variables::Variables>,
        access: &Arc<github::Access>,
        problems: &mut Vec<Report>,
    ) -> SecretStores {
        let used: BTreeSet<&str> = config
            .entries
            .iter()
            .map(|entry| entry.store.as_str())
            .chain(
                config
                    .generate
                    .iter()
                    .filter_map(|item| item.store.as_deref()),
            )
            .collect();
        let tools = source::StoreTools {
            disk: Arc::clone(&self.disk),
            variables: Arc::clone(variables),
            masker: self.masker.clone(),
            github: Arc::clone(access),
            config_directory: config.directory.clone(),
        };
        let mut stores = SecretStores::new();
        for name in used {
            let Some(declared) = config.secret_stores.get(name) else {
                problems.push(Report::error(
                    "secret/unknown-store",
                    format!("the secret store `{name}` is not declared"),
                ));
                continue;
            };
            match source::open(name, declared, &tools) {
                Ok(store) => {
                    stores.insert(name.to_owned(), Arc::from(store));
                }
                Err(problem) => problems.push(problem.at_maybe(declared.at.clone())),
            }
        }
        stores
    }

    pub(super) async fn open_providers(
        &self,
        config: &Config,
        problems: &mut Vec<Report>,
    ) -> Providers {
        let mut providers = Providers::new();
        for (id, declared) in &config.providers {
            if declared.provider != "local" {
                problems.push(
                    Report::error(
                        "provider/unknown",
                        format!(
                            "`{id}` asks for the provider `{}`, which this version cannot load",
                            declared.provider
                        ),
                    )
                    .at(declared.at.clone())
                    .fix("built in is `local`; provider plugins are not loaded by this version yet")
                    .exit(Exit::Usage),
                );
                continue;
            }
            let settings = match self.known_map(&declared.config, &format!("provider `{id}`")) {
                Ok(settings) => settings,
                Err(problem) => {
                    problems.push(problem.at(declared.at.clone()));
                    continue;
                }
            };
            let tools = LocalTools {
                disk: Arc::clone(&self.disk),
                clock: Arc::clone(&self.clock),
                random: Arc::clone(&self.random),
                processes: Arc::clone(&self.processes),
                masker: self.masker.clone(),
                executable: self.settings.executable.clone(),
                variables: self.settings.variables.clone(),
                environment: config.environment.clone(),
            };
            match Local::open(&settings, &config.directory, tools) {
                Ok(local) => {
                    providers.insert(id.clone(), Arc::new(local) as Arc<dyn Provider>);
                }
                Err(problem) => problems.push(problem.at_maybe(Some(declared.at.clone()))),
            }
        }
        providers
    }

    /// A provider's or store's own settings: they must be known before anything is made.
    pub(super) fn known_map(&self, map: &Map, what: &str) -> Result<Map, Report> {
        let nothing = Values::new(BTreeMap::new(), self.masker.clone());
        let problem = |why: String| {
            Report::error("config/not-known-yet", format!("{what}: {why}"))
                .fix("use plain values or ${VARIABLES} here; resources do not exist yet when this is needed")
                .exit(Exit::Usage)
        };
        let known = resolve_map(map, &nothing).map_err(|error| problem(error.to_string()))?;
        match known.iter().find(|(_, value)| !value.is_known()) {
            Some((key, _)) => Err(problem(format!("`{key}` is not known before apply"))),
            None => Ok(known),
        }
    }

    fn open_store(&self, config: &Config, providers: &Providers) -> Result<Arc<dyn Store>, Report> {
        let (backend, directory, ephemeral, at) = match &config.state {
            None => ("filesystem", None, false, None),
            Some(declared) => {
                let settings = self.known_map(&declared.config, "iac.state")?;
                let directory = match settings.get("directory") {
                    None => None,
                    Some(Value::String(directory)) => Some(directory.clone()),
                    Some(_) => {
                        return Err(Report::error(
                            "state/directory",
                            "`directory` of `iac.state` must be text",
                        )
                        .at(declared.at.clone())
                        .exit(Exit::Usage));
                    }
                };
                (
                    declared.backend.as_str(),
                    directory,
                    declared.ephemeral,
                    Some(declared.at.clone()),
                )
            }
        };
        if backend != "filesystem" {
            return Err(Report::error(
                "state/unknown-backend",
                format!("the state backend `{backend}` is not available in this version"),
            )
            .at_maybe(at)
            .fix("use `backend: filesystem`")
            .exit(Exit::Usage));
        }
        self.refuse_vanishing_state(config, providers, ephemeral, at.as_ref())?;
        if directory.is_none() {
            self.ui.note(format!(
                "State is kept in {} (the default; an `iac.state` module can say otherwise).",
                config.directory.join(DEFAULT_STATE).display()
            ));
        }
        let root = config
            .directory
            .join(directory.as_deref().unwrap_or(DEFAULT_STATE));
        let mut store = Filesystem::open(
            root,
            &config.environment,
            Arc::clone(&self.disk),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )
        .map_err(Report::from)?;
        if let Some(text) = self.settings.variables.non_empty(settings::STATE_KEY) {
            store = store.with_key(parse_key(text)?);
        }
        Ok(Arc::new(store))
    }

    /// On a GitHub-hosted runner the disk goes with the job: state on it is no memory.
    fn refuse_vanishing_state(
        &self,
        config: &Config,
        providers: &Providers,
        ephemeral: bool,
        at: Option<&crate::report::Span>,
    ) -> Result<(), Report> {
        let hosted = actions::Context::from_variables(&self.settings.variables)
            .is_some_and(|context| context.runner_environment == RunnerEnvironment::GithubHosted);
        let all_local = config.providers.keys().all(|id| {
            providers
                .get(id)
                .is_some_and(|provider| provider.is_local())
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

fn parse_key(text: &str) -> Result<[u8; 32], Report> {
    let bytes: Option<Vec<u8>> = (text.len() == 64)
        .then(|| {
            text.as_bytes()
                .chunks(2)
                .map(|pair| {
                    std::str::from_utf8(pair)
                        .ok()
                        .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                })
                .collect()
        })
        .flatten();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| {
            Report::error(
                "settings/state-key",
                format!("{} is not 64 hexadecimal digits", settings::STATE_KEY),
            )
            .fix("make one with `openssl rand -hex 32` and keep it as a secret")
            .exit(Exit::Usage)
        })
}

/// Every declared sink with the names written there.
fn sink_names(config: &Config) -> Vec<(&config::SinkDeclaration, Vec<&str>)> {
    let mut all: Vec<(&config::SinkDeclaration, Vec<&str>)> = Vec::new();
    let declarations = config
        .resources
        .iter()
        .flat_map(|resource| resource.outputs.values().flat_map(|output| &output.sinks))
        .chain(config.generate.iter().flat_map(|item| &item.sinks));
    for declaration in declarations {
        match all
            .iter_mut()
            .find(|(known, _)| known.target == declaration.target)
        {
            Some((_, names)) => names.push(&declaration.name),
            None => all.push((declaration, vec![&declaration.name])),
        }
    }
    all
}

/// True when any declaration of this destination says `on_failure: fail`.
fn must_not_fail(config: &Config, target: &config::SinkTarget) -> bool {
    config
        .resources
        .iter()
        .flat_map(|resource| resource.outputs.values().flat_map(|output| &output.sinks))
        .chain(config.generate.iter().flat_map(|item| &item.sinks))
        .any(|sink| sink.target == *target && sink.on_failure == config::OnFailure::Fail)
}

impl Opened {
    /// Looks at every destination before the first effect, so that a missing permission is found
    /// while nothing has happened yet. A sink that is allowed to fail only warns.
    pub async fn check_sinks(&self, desk: &Desk, config: &Config) -> Result<(), Problems> {
        let mut problems = Vec::new();
        for (declaration, names) in sink_names(config) {
            let Some(sink) = self.sinks.get(&declaration.target) else {
                continue;
            };
            if let Err(error) = sink.check(&names).await {
                let mut report = Report::error(
                    "sink/not-ready",
                    format!(
                        "{} cannot be written: {}",
                        sink.destination(),
                        error.message
                    ),
                )
                .at(declaration.at.clone())
                .exit(Exit::Usage);
                for fix in error.fix {
                    report = report.fix(fix);
                }
                if must_not_fail(config, &declaration.target) {
                    problems.push(report);
                } else {
                    report.severity = Severity::Warning;
                    desk.ui.say(Event::Problem(Box::new(report)));
                }
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems.into())
        }
    }

    /// Takes the lock of the environment.
    pub async fn lock(
        &self,
        desk: &Desk,
        command: &str,
        wait: Duration,
    ) -> Result<Lease, Problems> {
        let variables = &desk.settings.variables;
        let user = variables
            .non_empty("GITHUB_ACTOR")
            .or_else(|| variables.non_empty("USER"))
            .or_else(|| variables.non_empty("LOGNAME"))
            .unwrap_or("unknown");
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let holder = Holder {
            run_id: hex_of::<8>(desk.random.as_ref()),
            who: format!("{user}@{host}"),
            process_id: std::process::id(),
            command: command.to_owned(),
            run_url: actions::Context::from_variables(variables)
                .and_then(|context| context.run_url()),
            since: rfc3339(desk.clock.now()),
        };
        let lease = match self.store.lock(&holder, Duration::ZERO).await {
            Err(StoreError::Locked { holder: other, .. }) => {
                // A holder on this machine is known to live, or its lock would be free. One on
                // another machine may be dead, which only the lapse of its lease can show; a
                // killed runner must not block the next one for ever.
                let here = other.who.rsplit('@').next() == Some(host.as_str());
                let wait = if wait.is_zero() && !here {
                    Renewal::DEFAULT.lease + LAPSE_MARGIN
                } else {
                    wait
                };
                if !wait.is_zero() {
                    desk.ui.note(format!(
                        "The state is locked by {} (`tidegate {}`, since {}); waiting up to {} s.",
                        other.who,
                        other.command,
                        other.since,
                        wait.as_secs()
                    ));
                }
                tokio::select! {
                    biased;
                    () = desk.cancel.cancelled() => {
                        return Err(Report::error(
                            "state/locked",
                            "stopped while waiting for the lock; nothing was changed",
                        )
                        .exit(Exit::Interrupted)
                        .into());
                    }
                    lease = self.store.lock(&holder, wait) => lease,
                }
            }
            answer => answer,
        }
        .map_err(Report::from)?;
        if let Some(dead) = &lease.taken_over {
            desk.ui.note(format!(
                "Took over the lock that {} left behind (`tidegate {}`, since {}).",
                dead.who, dead.command, dead.since
            ));
        }
        Ok(lease)
    }

    /// Everything a run needs. Without `create`, a state that does not exist yet stays so.
    pub async fn engine<'a>(
        &'a self,
        desk: &'a Desk,
        config: &'a Config,
        parallelism: usize,
        create: bool,
    ) -> Result<Engine<'a>, Problems> {
        let key = self
            .store
            .key(create)
            .await
            .map_err(Report::from)?
            .unwrap_or_else(|| {
                // Nothing is recorded yet, so there is nothing to compare with or to open.
                let mut key = zeroize::Zeroizing::new([0_u8; 32]);
                desk.random.fill(&mut *key);
                key
            });
        Ok(Engine {
            config,
            store: Arc::clone(&self.store),
            providers: &self.providers,
            keyring: Keyring::new(&key),
            masker: desk.masker.clone(),
            clock: Arc::clone(&desk.clock),
            random: Arc::clone(&desk.random),
            reporter: &desk.ui,
            cancel: desk.cancel.clone(),
            parallelism,
        })
    }

    /// Ends every provider.
    pub async fn close(&self) {
        for provider in self.providers.values() {
            provider.close().await;
        }
    }
}
