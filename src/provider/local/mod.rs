//! The embedded `local` provider: real resources on this very machine, for previews inside a
//! runner and for trying things out.
//!
//! `infra.storage` is a directory, `infra.database` a SQLite file or a PostgreSQL database on a
//! server that the config names, `infra.container_service` a supervised process. Deliberately
//! absent: images, shells, and anything that needs more rights than the user has.

mod check;
mod database;
mod folder;
mod listing;
mod postgres;
mod service;
mod sqlite;
mod storage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use self::check::{Problems, noun, unknown_keys};
use self::database::Database;
use self::folder::Folders;
use self::postgres::Server;
use self::service::Service;
use self::storage::Storage;
use super::ability::{Ability, Found};
use super::{Driver, DriverResult, Provider};
use crate::clock::Clock;
use crate::config::{Keys, Resource, Shape};
use crate::disk::SharedDisk;
use crate::process::Processes;
use crate::random::Random;
use crate::report::{Exit, Report};
use crate::resource::{Address, Kind, Map, Observed, Value};
use crate::secret::Masker;
use crate::variables::Variables;

pub use self::service::{SUPERVISE_COMMAND, supervise};

/// Shared handle to a source of randomness.
pub type SharedRandom = Arc<dyn Random>;

/// What the provider works with.
#[derive(Clone, Debug)]
pub struct LocalTools {
    /// Files.
    pub disk: SharedDisk,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for passwords.
    pub random: SharedRandom,
    /// Processes.
    pub processes: Arc<dyn Processes>,
    /// Where new secrets are registered.
    pub masker: Masker,
    /// Our own executable, absolute: it is the supervisor of services too.
    pub executable: PathBuf,
    /// The environment at start; an allow-listed part is passed on to services.
    pub variables: Variables,
    /// The environment of the config (`dev`, …): part of every resource's identity.
    pub environment: String,
}

/// What the module of the provider takes.
const PROVIDER_KEYS: &[&str] = &["postgres", "provider", "root"];

/// The settings of the provider's own module, or of a resource of a type; `None` for a type it does
/// not have. The same lists that a plan is held to.
pub fn keys(kind: Option<&str>) -> Option<Keys> {
    match kind {
        None => {
            let mut all = check::keys(PROVIDER_KEYS);
            all.required.push("root".to_owned());
            check::shapes(&mut all, &["root"], &Shape::Text);
            check::shapes(&mut all, &["postgres"], &Shape::Map);
            all.within.push(("postgres".to_owned(), postgres::keys()));
            Some(all)
        }
        Some("infra.storage") => Some(check::keys(&[])),
        Some("infra.database") => Some(database::keys()),
        Some("infra.container_service") => Some(service::keys()),
        Some(other) => Some(Keys {
            unknown: Some(format!(
                "the `local` provider has no `{}`; it has `infra.container_service`, \
                 `infra.database` and `infra.storage`",
                other.escape_debug()
            )),
            ..Keys::default()
        }),
    }
}

/// The outputs of a resource that this provider makes; `None` when it is another provider's, or has none
/// of ours for other reasons.
pub fn outputs_of(provider: &str, resource: &Resource) -> Option<&'static [&'static str]> {
    if provider != "local" {
        return None;
    }
    match resource.kind.as_str() {
        "infra.storage" => Some(storage::OUTPUTS),
        "infra.database" => Some(database::outputs(&resource.config)),
        "infra.container_service" => Some(service::OUTPUTS),
        _ => None,
    }
}

/// What is wrong with the settings of a resource of a type, as (dotted path, sentence): the same that a
/// plan is refused for, as far as it needs no provider.
pub fn faults(kind: &str, config: &Map) -> Vec<(String, String)> {
    match kind {
        "infra.container_service" => service::faults(config),
        // What there is to say about the others, their keys say.
        _ => Problems::new(),
    }
}

/// The provider.
#[derive(Debug)]
pub struct Local {
    storage: Storage,
    database: Database,
    service: Service,
}

impl Local {
    /// Opens the provider. `config` is the resolved provider config, `base` the directory that
    /// relative paths start from. Nothing is created and nothing is connected to.
    ///
    /// # Errors
    ///
    /// One report with every unknown key and wrong value.
    #[allow(
        clippy::result_large_err,
        reason = "a report is made once and ends the run"
    )]
    pub fn open(config: &Map, base: &Path, tools: LocalTools) -> Result<Self, Report> {
        let mut problems = Problems::new();
        unknown_keys(config, "`iac.provider`", PROVIDER_KEYS, &mut problems);
        let base = if base.as_os_str().is_empty() {
            Path::new(".")
        } else {
            base
        };
        let base = tools.disk.canonical(base).map_err(|error| {
            Report::error("provider/config", "the config's directory cannot be found")
                .because(error.to_string())
                .exit(Exit::Usage)
        })?;
        let root = match config.get("root") {
            Some(Value::String(root)) if !root.is_empty() => base.join(root),
            None | Some(Value::Null) => {
                problems.push(("root".to_owned(), "it is missing".to_owned()));
                PathBuf::new()
            }
            Some(Value::String(_)) => {
                problems.push(("root".to_owned(), "it is empty".to_owned()));
                PathBuf::new()
            }
            Some(other) => {
                problems.push((
                    "root".to_owned(),
                    format!("it must be text, not {}", noun(other)),
                ));
                PathBuf::new()
            }
        };
        let server = match config.get("postgres") {
            None | Some(Value::Null) => None,
            Some(server) => {
                Server::from_config(server, &base, &*tools.disk, &tools.masker, &mut problems)
            }
        };
        if !problems.is_empty() {
            let report = Report::error(
                "provider/config",
                "the config of the `local` provider is wrong",
            )
            .fix(
                "write `config: {provider: local, root: ./.tidegate/local}`; \
                 `docs/local-provider.md` lists every key",
            )
            .exit(Exit::Usage);
            return Err(problems
                .into_iter()
                .fold(report, |report, (key, sentence)| {
                    report.because(format!("`{key}`: {sentence}"))
                }));
        }
        let folders = Folders::new(
            Arc::clone(&tools.disk),
            root.components().collect(),
            tools.environment.clone(),
            Arc::clone(&tools.clock),
        );
        Ok(Self {
            storage: Storage::new(folders.clone()),
            database: database::open(
                folders.clone(),
                server,
                &tools.environment,
                Arc::clone(&tools.random),
                tools.masker.clone(),
            ),
            service: Service {
                folders,
                base,
                clock: tools.clock,
                random: tools.random,
                processes: tools.processes,
                executable: tools.executable,
                variables: tools.variables,
                masker: tools.masker,
                ports: Mutex::new(BTreeSet::new()),
            },
        })
    }
}

#[async_trait]
impl Provider for Local {
    fn name(&self) -> &str {
        "local"
    }

    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    fn kinds(&self) -> Vec<Kind> {
        ["infra.container_service", "infra.database", "infra.storage"]
            .map(Kind::new)
            .into()
    }

    fn driver(&self, kind: &Kind) -> Option<&dyn Driver> {
        match kind.as_str() {
            "infra.container_service" => Some(&self.service),
            "infra.database" => Some(&self.database),
            "infra.storage" => Some(&self.storage),
            _ => None,
        }
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn close(&self) {}

    fn abilities(&self) -> BTreeSet<Ability> {
        BTreeSet::from([Ability::Enumerate, Ability::Import])
    }

    async fn import(
        &self,
        address: &Address,
        kind: &Kind,
        provider_id: &str,
    ) -> DriverResult<Observed> {
        self.identified(address, kind, provider_id).await
    }

    async fn enumerate(&self, kind: &Kind) -> DriverResult<Vec<Found>> {
        self.found(Some(kind)).await
    }

    async fn enumerate_by_tag(&self, tag: &str) -> DriverResult<Vec<Found>> {
        self.tagged(tag).await
    }
}
