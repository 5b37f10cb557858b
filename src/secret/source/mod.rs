//! Secret stores: where declared secrets are read from and generated ones are written to.
//!
//! Promises: a key is data, never a path; a store that cannot read says so instead of answering
//! "absent"; no error holds a value.

mod environment;
mod file;
mod github;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use self::github::GithubStore;
use super::{Masker, Secret};
use crate::clock::Clock;
use crate::config::{self, Fault};
use crate::disk::SharedDisk;
use crate::github::{Access, NameError, Scope};
use crate::report::{Exit, Report};
use crate::resource::Value;
use crate::variables::Variables;
use environment::EnvironmentStore;
use file::FileStore;

/// Store types this version can open.
const READY: &str = "`env`, `file` and `github` (write only)";

/// One opened store.
#[async_trait]
pub trait SecretStore: Send + Sync + fmt::Debug {
    /// Name and kind, for messages: `store \`ci\` (github acme/shop)`.
    fn place(&self) -> String;
    /// Where the value of `key` would be: a variable, a file.
    fn place_of(&self, _key: &str) -> Option<String> {
        None
    }
    /// The value of `key`; `None` when the store can be read and has no such key. The value is
    /// known to the masker before it is returned.
    async fn get(&self, key: &str) -> Result<Option<Secret>, Report>;
    /// True when the store has a value for `key`; works for write-only stores too.
    async fn exists(&self, key: &str) -> Result<bool, Report>;
    /// Writes a value, whole and durable, replacing what was there.
    async fn set(&self, key: &str, value: &Secret) -> Result<(), Report>;
    /// Removes a value; absent is success.
    async fn remove(&self, key: &str) -> Result<(), Report>;
}

/// What stores are built from.
#[derive(Clone)]
pub struct StoreTools {
    /// Files.
    pub disk: SharedDisk,
    /// Waits for another run that writes to the same store.
    pub clock: Arc<dyn Clock>,
    /// The environment at start.
    pub variables: Arc<Variables>,
    /// Whatever is read is registered here first.
    pub masker: Masker,
    /// GitHub, for all stores and sinks of the process together.
    pub github: Arc<Access>,
    /// Relative paths in the config start here.
    pub config_directory: PathBuf,
}

impl fmt::Debug for StoreTools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreTools")
    }
}

/// Everything that is wrong with what the config says of the store called `name`. Nothing is read.
pub fn faults(name: &str, store: &config::SecretStore) -> Vec<Fault> {
    let mut options = Options {
        name,
        store,
        faults: Vec::new(),
    };
    match store.provider.as_str() {
        "env" => {
            options.only(&["prefix"]);
            options.text("prefix");
        }
        "file" => {
            options.only(&["path"]);
            options.required("path", "add `path: FOLDER`, relative to the config file");
        }
        "github" | "github-actions" => {
            options.only(&["repo", "environment", "token_env"]);
            options.text("token_env");
            let environment = options.text("environment");
            if let Some(repo) = options.required("repo", "add `repo: OWNER/NAME`")
                && let Err(error) = Scope::parse(&repo, environment.as_deref())
            {
                let key = match &error {
                    NameError::Environment(_) => "environment",
                    _ => "repo",
                };
                options.fault(key, Report::from(&error));
            }
        }
        "vault" | "aws" | "aws-secrets-manager" | "keychain" | "gcp" | "azure" => {
            let report = options
                .problem(
                    "secret/store-not-ready",
                    &format!(
                        "is of type `{}`, which this version cannot open yet",
                        store.provider
                    ),
                )
                .because(format!("it can open {READY}"))
                .fix("fetch the value in an earlier step and use an `env` store");
            options.fault("", report);
        }
        other => {
            let report = options
                .problem(
                    "secret/store-unknown",
                    &format!("has the unknown type `{}`", other.escape_debug()),
                )
                .fix(format!("use one of {READY}"));
            options.fault("", report);
        }
    }
    options.faults
}

/// Opens the store called `name`. Looks at the config's own words only: nothing is read yet.
pub fn open(
    name: &str,
    store: &config::SecretStore,
    tools: &StoreTools,
) -> Result<Box<dyn SecretStore>, Report> {
    if let Some(fault) = faults(name, store).into_iter().next() {
        return Err(fault.report.at_maybe(store.at.clone()));
    }
    let text = |key: &str| match store.config.get(key) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    Ok(match store.provider.as_str() {
        "env" => Box::new(EnvironmentStore {
            name: name.to_owned(),
            prefix: text("prefix").unwrap_or_default(),
            variables: Arc::clone(&tools.variables),
            masker: tools.masker.clone(),
        }),
        "file" => {
            let path = text("path").unwrap_or_default();
            Box::new(FileStore {
                name: name.to_owned(),
                directory: tools.config_directory.join(&path),
                shown: path,
                disk: Arc::clone(&tools.disk),
                clock: Arc::clone(&tools.clock),
                masker: tools.masker.clone(),
            })
        }
        // The only other kind without faults.
        _ => Box::new(GithubStore {
            name: name.to_owned(),
            scope: Scope::parse(
                &text("repo").unwrap_or_default(),
                text("environment").as_deref(),
            )
            .map_err(|error| Report::from(&error).at_maybe(store.at.clone()))?,
            token_env: text("token_env"),
            github: Arc::clone(&tools.github),
        }),
    })
}

/// The options of one store, and what was found wrong with them.
struct Options<'a> {
    name: &'a str,
    store: &'a config::SecretStore,
    faults: Vec<Fault>,
}

impl Options<'_> {
    fn problem(&self, code: &'static str, what: &str) -> Report {
        Report::error(code, format!("secret store `{}` {what}", self.name)).exit(Exit::Usage)
    }

    fn fault(&mut self, key: &str, report: Report) {
        self.faults.push(Fault {
            path: key.to_owned(),
            report,
        });
    }

    /// Every option there is.
    fn only(&mut self, known: &[&str]) {
        let store = self.store;
        for key in store.config.keys() {
            if known.contains(&key.as_str()) {
                continue;
            }
            let report = self
                .problem(
                    "secret/store-option",
                    &format!(
                        "of type `{}` has no option `{}`",
                        store.provider,
                        key.escape_debug()
                    ),
                )
                .fix(format!("its options are `{}`", known.join("`, `")));
            self.fault(key, report);
        }
    }

    fn text(&mut self, key: &str) -> Option<String> {
        let report = match self.store.config.get(key) {
            None | Some(Value::Null) => return None,
            Some(Value::String(text)) => return Some(text.clone()),
            Some(Value::Secret(_)) => self
                .problem(
                    "secret/store-option",
                    &format!("takes the option `{key}` from a secret"),
                )
                .fix("write it as plain text: it is shown in messages"),
            Some(_) => self
                .problem(
                    "secret/store-option",
                    &format!("has an option `{key}` that is not text known before the run"),
                )
                .fix("write it as plain text, or fill it from an environment variable"),
        };
        self.fault(key, report);
        None
    }

    /// An option that must be there.
    fn required(&mut self, key: &str, fix: &str) -> Option<String> {
        let before = self.faults.len();
        let text = self.text(key).filter(|text| !text.is_empty());
        if text.is_none() && self.faults.len() == before {
            let report = self
                .problem("secret/store-option", &format!("needs the option `{key}`"))
                .fix(fix);
            self.fault(key, report);
        }
        text
    }
}

fn unsupported(place: &str, what: &str) -> Report {
    Report::error("secret/store-unsupported", format!("{place} {what}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::SystemClock;
    use crate::disk::SystemDisk;
    use crate::random::SystemRandom;

    fn tools(directory: &Path, pairs: &[(&str, &str)]) -> StoreTools {
        let variables: Arc<Variables> = Arc::new(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        );
        let masker = Masker::default();
        StoreTools {
            disk: Arc::new(SystemDisk),
            clock: Arc::new(SystemClock::new()),
            variables: Arc::clone(&variables),
            masker: masker.clone(),
            github: Arc::new(Access::new(
                variables,
                masker,
                Arc::new(SystemClock::new()),
                Arc::new(SystemRandom),
            )),
            config_directory: directory.to_path_buf(),
        }
    }

    fn declared(provider: &str, options: &[(&str, &str)]) -> config::SecretStore {
        config::SecretStore {
            provider: provider.to_owned(),
            config: options
                .iter()
                .map(|(key, value)| ((*key).to_owned(), Value::String((*value).to_owned())))
                .collect(),
            at: None,
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn stores_that_cannot_be_opened_say_which_can() {
        let directory = tempfile::tempdir().unwrap();
        let tools = tools(directory.path(), &[]);
        for (provider, options, code) in [
            ("vault", &[][..], "secret/store-not-ready"),
            ("aws", &[], "secret/store-not-ready"),
            ("keychain", &[], "secret/store-not-ready"),
            ("gcp", &[], "secret/store-not-ready"),
            ("azure", &[], "secret/store-not-ready"),
            ("paper", &[], "secret/store-unknown"),
            ("file", &[], "secret/store-option"),
            (
                "file",
                &[("path", "x"), ("mode", "0644")],
                "secret/store-option",
            ),
            ("env", &[("path", "x")], "secret/store-option"),
            ("github", &[], "secret/store-option"),
            ("github", &[("repo", "acme")], "github/bad-repository"),
        ] {
            let report = open("mine", &declared(provider, options), &tools).unwrap_err();
            assert_eq!(
                (report.code, report.exit),
                (code, Exit::Usage),
                "{provider}"
            );
            assert!(!report.fix.is_empty(), "{provider}");
        }
    }

    #[test]
    fn the_env_store_reads_prefixed_upper_case_names() {
        let directory = tempfile::tempdir().unwrap();
        let tools = tools(
            directory.path(),
            &[("APP_DB_PASSWORD", "hunter22"), ("APP_EMPTY", "")],
        );
        let store = open("e", &declared("env", &[("prefix", "app_")]), &tools).unwrap();
        run(async {
            let value = store.get("db.password").await.unwrap().unwrap();
            assert_eq!(value.expose(), "hunter22");
            assert!(store.exists("DB_PASSWORD").await.unwrap());
            assert!(store.get("empty").await.unwrap().is_none());
            assert!(store.get("other").await.unwrap().is_none());
            let refused = store.set("x", &value).await.unwrap_err();
            assert_eq!(refused.code, "secret/store-unsupported");
        });
    }

    #[test]
    fn the_github_store_never_reads() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(
            "ci",
            &declared("github", &[("repo", "acme/shop"), ("environment", "prod")]),
            &tools(directory.path(), &[]),
        )
        .unwrap();
        let report = run(store.get("A")).unwrap_err();
        assert_eq!(report.code, "secret/store-unsupported");
        assert!(
            report
                .message
                .contains("store `ci` (github acme/shop (environment prod))")
        );
    }
}
