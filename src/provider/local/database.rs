//! `infra.database`: picks the engine.

use async_trait::async_trait;

use super::check::{self, Problems, nearest, text, unknown_keys};
use super::folder::Folders;
use super::postgres::{Postgres, Server};
use super::sqlite::Sqlite;
use super::storage::{place_changes, verdict};
use crate::config::Keys;
use crate::provider::{
    Driver, DriverError, DriverResult, ErrorClass, Health, Operation, config_changes,
};
use crate::resource::{Diff, FieldChange, Map, Observed, Output, Recorded, Spec, Value};

/// A database engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Sqlite,
    Postgres,
}

/// The settings of a database.
const KEYS: &[&str] = &["engine"];
const ENGINES: &[&str] = &["pg", "postgres", "postgresql", "sqlite", "sqlite3"];

/// The same, for whoever reads a config before anything is opened.
pub(super) fn keys() -> Keys {
    let mut all = check::keys(KEYS);
    check::shapes(&mut all, &["engine"], &check::one_of(ENGINES));
    all
}

fn parse(word: &str) -> Option<Engine> {
    match word {
        "sqlite" | "sqlite3" => Some(Engine::Sqlite),
        "pg" | "postgres" | "postgresql" => Some(Engine::Postgres),
        _ => None,
    }
}

/// Every output a database of this config has; with an engine that is not known yet, of any.
pub(super) fn outputs(config: &Map) -> &'static [&'static str] {
    match wanted(config) {
        Some(Engine::Sqlite) => &["connection_url", "engine", "path"],
        Some(Engine::Postgres) => &[
            "connection_url",
            "database",
            "engine",
            "host",
            "password",
            "port",
            "user",
        ],
        None => &[
            "connection_url",
            "database",
            "engine",
            "host",
            "password",
            "path",
            "port",
            "user",
        ],
    }
}

/// The engine a config asks for; `None` when it is wrong or not known yet.
fn wanted(config: &Map) -> Option<Engine> {
    match config.get("engine") {
        None | Some(Value::Null) => Some(Engine::Sqlite),
        Some(Value::String(word)) => parse(word),
        Some(_) => None,
    }
}

/// The driver.
#[derive(Debug)]
pub(super) struct Database {
    folders: Folders,
    sqlite: Sqlite,
    postgres: Option<Postgres>,
}

impl Database {
    pub(super) fn new(folders: Folders, postgres: Option<Postgres>) -> Self {
        Self {
            sqlite: Sqlite {
                folders: folders.clone(),
            },
            folders,
            postgres,
        }
    }

    /// The engine a recorded resource was made with. One known by name alone is looked for.
    fn recorded(&self, prior: &Recorded) -> DriverResult<Engine> {
        let word = match prior.outputs.get("engine") {
            Some(Output::Public(serde_json::Value::String(word))) => Some(word.as_str()),
            _ => prior.config.get("engine").and_then(|word| word.as_str()),
        };
        if let Some(engine) = word.and_then(parse) {
            return Ok(engine);
        }
        if self.postgres.is_none() || self.folders.locate(prior)?.is_some() {
            return Ok(Engine::Sqlite);
        }
        Ok(Engine::Postgres)
    }

    fn server(&self, address: &crate::resource::Address) -> DriverResult<&Postgres> {
        self.postgres.as_ref().ok_or_else(|| {
            DriverError::new(
                ErrorClass::Invalid,
                format!(
                    "`{address}` is a PostgreSQL database, but the provider names no server; add \
                     `postgres: {{host: …, user: …, password: …}}` to the `local` provider's config"
                ),
            )
        })
    }
}

#[async_trait]
impl Driver for Database {
    async fn create(&self, _operation: &Operation, desired: &Spec) -> DriverResult<Observed> {
        match wanted(&desired.config) {
            Some(Engine::Sqlite) => self.sqlite.create(desired),
            Some(Engine::Postgres) => self.server(&desired.address)?.create(desired).await,
            None => Err(wrong_engine(desired)),
        }
    }

    async fn read(&self, prior: &Recorded) -> DriverResult<Observed> {
        match self.recorded(prior)? {
            Engine::Sqlite => self.sqlite.read(prior),
            Engine::Postgres => self.server(&prior.address)?.read(prior).await,
        }
    }

    async fn update(
        &self,
        _operation: &Operation,
        prior: &Recorded,
        desired: &Spec,
    ) -> DriverResult<Observed> {
        let recorded = self.recorded(prior)?;
        if wanted(&desired.config) != Some(recorded) {
            return Err(wrong_engine(desired));
        }
        match recorded {
            Engine::Sqlite => self.sqlite.update(prior, desired),
            Engine::Postgres => self.server(&prior.address)?.update(prior).await,
        }
    }

    async fn delete(&self, _operation: &Operation, prior: &Recorded) -> DriverResult<()> {
        match self.recorded(prior)? {
            Engine::Sqlite => self.folders.remove(prior),
            Engine::Postgres => self.server(&prior.address)?.delete(prior).await,
        }
    }

    async fn diff(&self, prior: &Recorded, desired: &Spec) -> DriverResult<Diff> {
        let recorded = self.recorded(prior)?;
        let mut changes = config_changes(&prior.config, &desired.public_config);
        let other = wanted(&desired.config).is_some_and(|engine| engine != recorded);
        if other {
            changes.retain(|change| change.path != "engine");
            changes.push(FieldChange {
                path: "engine".to_owned(),
                old: match recorded {
                    Engine::Sqlite => "sqlite".into(),
                    Engine::Postgres => "postgres".into(),
                },
                new: desired
                    .public_config
                    .get("engine")
                    .cloned()
                    .unwrap_or_else(|| "sqlite".into()),
                force_new: true,
            });
            return Ok(verdict(changes));
        }
        match recorded {
            Engine::Sqlite => {
                let located = self.folders.locate(prior)?;
                let wanted = self.folders.path(&prior.address);
                changes.extend(place_changes(prior, located.as_ref(), &wanted));
                if located.is_some() && matches!(self.sqlite.locate(prior)?, Some((_, false))) {
                    changes.push(FieldChange {
                        path: "status".to_owned(),
                        old: "gone".into(),
                        new: "ready".into(),
                        force_new: false,
                    });
                }
            }
            Engine::Postgres => {
                changes.extend(self.server(&prior.address)?.differences(prior).await?);
            }
        }
        Ok(verdict(changes))
    }

    async fn health(&self, prior: &Recorded) -> DriverResult<Health> {
        match self.recorded(prior)? {
            Engine::Sqlite => self.sqlite.health(prior),
            Engine::Postgres => self.server(&prior.address)?.health(prior).await,
        }
    }

    // `connection_url` is here for `sqlite`, where it is a path. For `postgres` it is minted as a
    // secret, and a secret cannot become public again.
    fn is_sensitive(&self, output: &str) -> Option<bool> {
        match output {
            "password" => Some(true),
            "connection_url" | "database" | "engine" | "host" | "path" | "port" | "user" => {
                Some(false)
            }
            _ => None,
        }
    }

    fn check(&self, desired: &Spec) -> Problems {
        let mut problems = Problems::new();
        unknown_keys(&desired.config, "`infra.database`", KEYS, &mut problems);
        if let Some(word) = text(&desired.config, "engine", &mut problems) {
            match parse(word) {
                None => problems.push((
                    "engine".to_owned(),
                    match nearest(word, ENGINES) {
                        Some(name) => format!("there is no engine `{word}`; did you mean `{name}`?"),
                        None => format!(
                            "there is no engine `{word}` on the `local` provider; use `sqlite` or \
                             `postgres`"
                        ),
                    },
                )),
                Some(Engine::Postgres) if self.postgres.is_none() => problems.push((
                    "engine".to_owned(),
                    format!(
                        "`{word}` needs a server: add `postgres: {{host: …, user: …, password: …}}` \
                         to the `local` provider's config"
                    ),
                )),
                Some(Engine::Sqlite | Engine::Postgres) => {}
            }
        }
        problems
    }
}

fn wrong_engine(desired: &Spec) -> DriverError {
    DriverError::new(
        ErrorClass::Invalid,
        format!(
            "`{}`: `engine` must be `sqlite` or `postgres`, and an existing database keeps the one \
             it was made with",
            desired.address
        ),
    )
}

/// The driver for what a provider config says.
pub(super) fn open(
    folders: Folders,
    server: Option<Server>,
    environment: &str,
    random: crate::provider::local::SharedRandom,
    masker: crate::secret::Masker,
) -> Database {
    let postgres = server.map(|server| Postgres::new(server, environment, random, masker));
    Database::new(folders, postgres)
}
