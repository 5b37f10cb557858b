//! `config validate`, `config resolve`, `config schema`.

use std::cell::OnceCell;
use std::io::ErrorKind;

use serde_json::json;

use super::{CommandResult, Desk, problem_json};
use crate::cli::ConfigArgs;
use crate::config::{self, Files, Keys};
use crate::provider::local;
use crate::provider::plugin::{self, find};
use crate::report::{Event, Exit, Reporter as _};

impl Desk {
    /// Lends the config room a way to reach files.
    pub(super) fn with_files<T>(&self, work: impl FnOnce(Files<'_>) -> T) -> T {
        work(Files {
            read: &|path| {
                self.disk
                    .read(path, config::FILE_BYTES_MAX)
                    .map_err(|error| error.source.to_string())
            },
            canonical: &|path| {
                self.disk.canonical(path).map_err(|error| {
                    // A pipe such as `/dev/fd/63` can be opened and has no path of its own.
                    match self.disk.read(path, config::FILE_BYTES_MAX) {
                        Err(better) if better.source.kind() == ErrorKind::InvalidInput => {
                            better.source.to_string()
                        }
                        Ok(_) | Err(_) => error.source.to_string(),
                    }
                })
            },
        })
    }
}

impl Desk {
    /// The settings a provider takes, as far as they are known without starting anything.
    fn keys_of(
        &self,
        provider: &str,
        kind: Option<&str>,
        plugins: &OnceCell<Vec<find::Found>>,
    ) -> Option<Keys> {
        if provider == "local" {
            return local::keys(kind);
        }
        // Whether the folder can be read is a question for whoever needs a plugin.
        let plugins = plugins.get_or_init(|| {
            let flag = self.global.plugin_dir.as_deref();
            let folder = plugin::folder(flag, &self.settings.variables);
            find::list(&*self.disk, &folder).map_or_else(|_| Vec::new(), |(found, _)| found)
        });
        let mut names = plugins
            .iter()
            .filter_map(|plugin| plugin.manifest.provider.as_deref());
        if kind.is_none() && names.all(|name| name != provider) {
            let distance = strsim::damerau_levenshtein(provider, "local");
            return (distance == 1).then(|| Keys {
                unknown: Some(format!(
                    "there is no provider `{}`; did you mean `local`?",
                    provider.escape_debug()
                )),
                ..Keys::default()
            });
        }
        let found = plugins
            .iter()
            .find(|plugin| plugin.manifest.provider.as_deref() == Some(provider))?;
        // What resources take, a plugin says only while it runs.
        let mut keys = found
            .manifest
            .config_keys
            .clone()
            .filter(|_| kind.is_none())?;
        keys.allowed
            .extend([plugin::environment::CONFIG_KEY, plugin::PARALLELISM_KEY].map(str::to_owned));
        Some(keys)
    }
}

/// `config validate`
pub fn validate(desk: &Desk, arguments: &ConfigArgs) -> CommandResult {
    let path = desk.find_config(arguments)?;
    let plugins = OnceCell::new();
    let checked = desk.with_files(|files| {
        config::check(
            &path,
            desk.global.env.as_deref(),
            files,
            &desk.settings.variables,
            &desk.masker,
            &|provider, kind| desk.keys_of(provider, kind, &plugins),
        )
    })?;
    desk.emit(&json!({
            "command": "config validate",
            "config": path,
            "exit_code": 0,
            "failed": false,
            "environments": checked.environments,
            "resources": checked.resources,
            "problems": checked.warnings.iter().map(problem_json).collect::<Vec<_>>(),
    }));
    for warning in checked.warnings {
        desk.ui.say(Event::Problem(Box::new(warning)));
    }
    desk.ui.note(format!(
        "{} is valid; resources: {}{}.",
        path.display(),
        checked.resources,
        if checked.environments.is_empty() {
            String::new()
        } else {
            format!("; checked for {}", checked.environments.join(", "))
        }
    ));
    Ok(Exit::Done)
}

/// `config resolve`
pub fn resolve(desk: &Desk, arguments: &ConfigArgs) -> CommandResult {
    let config = desk.load(arguments)?;
    if desk.global.json {
        desk.ui.json(&config::to_public_json(&config));
    } else {
        desk.ui.data(&config::to_public_yaml(&config));
    }
    Ok(Exit::Done)
}

/// `config schema`
pub fn schema(desk: &Desk) -> CommandResult {
    desk.ui.json(&config::schema());
    Ok(Exit::Done)
}
