//! From a config to open doors: state, providers, sinks, secret stores. The only place that knows
//! which concrete ones exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::stores::Declared;
use super::{Desk, Problems};
use crate::apply::execute::CALL_TIMEOUT;
use crate::apply::secrets::SecretStores;
use crate::apply::sinks::Sinks;
use crate::apply::values::Values;
use crate::apply::{Engine, Providers};
use crate::cli::ConfigArgs;
use crate::config::{self, Config, Needs};
use crate::face::Style;
use crate::github;
use crate::report::{Event, Exit, Report, Reporter as _, Severity};
use crate::resource::{Map, resolve_map};
use crate::secret::Keyring;
use crate::secret::source;
use crate::sink::{self, SinkTools};
use crate::state::{Lease, Store};
use crate::verify::foresee;

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
        self.load_for(Needs::EVERYTHING, arguments)
    }

    /// The same, for a command that needs less.
    pub fn load_for(&self, needs: Needs, arguments: &ConfigArgs) -> Result<Config, Problems> {
        self.load_at(needs, &self.find_config(arguments)?)
    }

    /// A second config beside the one that `--config` names.
    pub(super) fn load_other(&self, arguments: &ConfigArgs) -> Result<Config, Problems> {
        let path = config::discover(arguments.file.as_deref(), &|path: &Path| {
            matches!(self.disk.entry(path), Ok(Some(_)))
        })?;
        self.load_at(Needs::EVERYTHING, &path)
    }

    fn load_at(&self, needs: Needs, path: &Path) -> Result<Config, Problems> {
        let loaded = self.with_files(|files| {
            config::load_for(
                needs,
                &crate::provider::local::outputs_of,
                path,
                self.global.env.as_deref(),
                files,
                &self.settings.variables,
                &self.masker,
            )
        })?;
        // What the state and the gates are known to lack, before anybody makes anything for them.
        let lacking: Vec<Report> = loaded
            .config
            .state
            .iter()
            .flat_map(|state| Declared::written(state).faults())
            .map(|fault| fault.report)
            .filter(|report| report.severity == Severity::Error)
            .chain(loaded.config.gates.iter().flat_map(foresee))
            .collect();
        if !lacking.is_empty() {
            return Err(lacking.into());
        }
        let unfamiliar = self.unfamiliar(loaded.unfamiliar);
        for warning in loaded.warnings.into_iter().chain(unfamiliar) {
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
        if named.is_some_and(|path| path.as_os_str() == "-") {
            return Err(Report::error(
                "cli/config-from-stdin",
                "a config is not read from standard input",
            )
            .because("what it imports, and the paths in it, begin at the folder of a file")
            .fix("write it to a file first; a file that is called `-` is `./-`")
            .exit(Exit::Usage)
            .into());
        }
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
        self.warn_of_no_environment(config);
        let mut problems = Vec::new();
        let variables = Arc::new(self.settings.variables.clone());
        let access = Arc::new(
            github::Access::new(
                Arc::clone(&variables),
                self.masker.clone(),
                Arc::clone(&self.clock),
                Arc::clone(&self.random),
            )
            .reporting_to(Arc::new(self.ui.clone())),
        );
        let sinks = self.open_sinks(config, &variables, &access, &mut problems);
        let secret_stores = self.open_secret_stores(config, &variables, &access, &mut problems);
        let providers = self.open_providers(config, &mut problems).await;
        let store = match self.open_store(config, Some(&providers)).await {
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

    /// Opens the state and nothing else: for what is answered from the records alone, without anybody's
    /// credentials.
    pub(super) async fn open_records(&self, config: &Config) -> Result<Opened, Problems> {
        self.warn_of_no_environment(config);
        Ok(Opened {
            store: self.open_store(config, None).await?,
            providers: Providers::new(),
            sinks: Sinks::new(),
            secret_stores: SecretStores::new(),
        })
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
            clock: Arc::clone(&self.clock),
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
            clock: Arc::clone(&self.clock),
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
            if let Some(variable) = declared.unset().first() {
                // Nobody fetches anything when everything goes; what was put there has to go, too.
                if !(config.generate.iter()).any(|item| item.store.as_deref() == Some(name)) {
                    continue;
                }
                let who = format!("the secret store `{name}`");
                let problem = config::unset_variable(variable, &who);
                problems.push(problem.at_maybe(declared.at.clone()));
                continue;
            }
            match source::open(name, declared, &tools) {
                Ok(store) => {
                    stores.insert(name.to_owned(), Arc::from(store));
                }
                Err(problem) => problems.push(problem.at_maybe(declared.at.clone())),
            }
        }
        stores
    }

    /// Refuses an environment that nobody declares and nobody has anything on record of. One that was
    /// taken out of the config is worked on as its base stands.
    pub(super) async fn knows_environment(
        &self,
        config: &Config,
        store: &dyn Store,
    ) -> Result<(), Problems> {
        let Some(unknown) = &config.unknown_environment else {
            return Ok(());
        };
        let is_there = store.head().await.map_err(Report::from)?.is_some()
            || store.has_remains().await.map_err(Report::from)?;
        if !is_there {
            let report = unknown.as_ref().clone();
            return Err(report
                .because(format!("nothing is recorded of it in {}", store.location()))
                .into());
        }
        let environment = &config.environment;
        self.ui.say(Event::Problem(Box::new(
            Report::warning(
                "config/undeclared-environment",
                format!("the environment `{environment}` is not declared (any more)"),
            )
            .because("its state is there, and is taken with providers as the config's base declares them")
            .fix(format!(
                "if providers had settings of their own there, put `{environment}` back until it is destroyed"
            )),
        )));
        Ok(())
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
    ///
    /// Answers the destinations it warned of, so that nobody warns of them twice.
    pub async fn check_sinks(
        &self,
        desk: &Desk,
        config: &Config,
    ) -> Result<BTreeSet<String>, Problems> {
        let mut warned = BTreeSet::new();
        let mut problems = Vec::new();
        for (declaration, names) in sink_names(config) {
            let Some(sink) = self.sinks.get(&declaration.target) else {
                continue;
            };
            let checked = tokio::select! {
                biased;
                checked = sink.check(&names) => checked,
                // Nothing has happened yet: there is nothing to wait for.
                () = desk.cancel.cancelled() => return Ok(warned),
            };
            if let Err(error) = checked {
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
                    warned.insert(sink.destination());
                    desk.ui.say(Event::Problem(Box::new(report)));
                }
            }
        }
        if problems.is_empty() {
            Ok(warned)
        } else {
            Err(problems.into())
        }
    }

    /// Refuses an environment that neither the config nor the state knows.
    pub async fn knows_environment(&self, desk: &Desk, config: &Config) -> Result<(), Problems> {
        desk.knows_environment(config, self.store.as_ref()).await
    }

    /// Takes the lock of the environment.
    pub async fn lock(
        &self,
        desk: &Desk,
        command: &str,
        wait: Duration,
    ) -> Result<Lease, Problems> {
        desk.lock_store(self.store.as_ref(), command, wait).await
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
            call_timeout: CALL_TIMEOUT,
        })
    }

    /// Ends every provider, all at once: each may take its time.
    pub async fn close(&self) {
        let closing = self.providers.values().map(|provider| provider.close());
        futures_util::future::join_all(closing).await;
    }
}
