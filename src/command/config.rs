//! `config validate`, `config resolve`, `config schema`.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::json;

use super::stores::Declared;
use super::{CommandResult, Desk, problem_json};
use crate::cli::ConfigArgs;
use crate::config::{self, Fault, Files, Keys, Unfamiliar};
use crate::disk::EntryKind;
use crate::provider::local;
use crate::provider::plugin::{self, find};
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::secret::source;
use crate::verify::foresee;

impl Desk {
    /// Lends the config room a way to reach files.
    pub(super) fn with_files<T>(&self, work: impl FnOnce(Files<'_>) -> T) -> T {
        work(Files {
            read: &|path| {
                self.on_disk(path)?;
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
    /// Refuses what is no file on a disk before a byte of it is read: what the kernel shows as one
    /// (`/proc/self/environ`) holds what nobody wrote to be shown, and to open a device can do anything.
    fn on_disk(&self, path: &Path) -> Result<(), String> {
        // What is not there is said by whoever reads it.
        let Ok(place) = self.disk.canonical(path) else {
            return Ok(());
        };
        let is_made_up = ["/proc", "/sys", "/dev"]
            .iter()
            .any(|folder| place.starts_with(folder))
            && !place.starts_with("/dev/shm");
        match self.disk.entry(&place) {
            Ok(Some(EntryKind::File { .. })) if is_made_up => {
                Err("the kernel makes it up; a config is a file on a disk".to_owned())
            }
            Ok(Some(EntryKind::Other)) => Err(
                "it is a pipe or a device, which Tidegate does not read; save it to a file first"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }

    /// The plugins that are installed. Whether their folder can be read is a question for whoever needs
    /// one.
    fn installed(&self) -> Vec<find::Found> {
        let flag = self.global.plugin_dir.as_deref();
        let folder = plugin::folder(flag, &self.settings.variables);
        find::list(&*self.disk, &folder).map_or_else(|_| Vec::new(), |(found, _)| found)
    }

    /// The warnings about types that no installed plugin has either.
    pub(super) fn unfamiliar(&self, unfamiliar: Vec<Unfamiliar>) -> Vec<Report> {
        if unfamiliar.is_empty() {
            return Vec::new();
        }
        let known: BTreeSet<String> = self
            .installed()
            .into_iter()
            .flat_map(|plugin| plugin.manifest.resource_types)
            .collect();
        unfamiliar
            .into_iter()
            .filter(|one| !known.contains(&one.kind))
            .map(|one| one.report)
            .collect()
    }

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
        let plugins = plugins.get_or_init(|| self.installed());
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

/// What the `local` provider has against a resource.
fn local_faults(resource: &config::Resource) -> Vec<Fault> {
    local::faults(resource.kind.as_str(), &resource.config)
        .into_iter()
        .map(|(path, sentence)| Fault {
            report: Report::error(
                "config/bad-value",
                format!("`{}`: `{path}`: {sentence}", resource.base_name),
            ),
            path,
        })
        .collect()
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
            config::Rules {
                keys: &|provider, kind| desk.keys_of(provider, kind, &plugins),
                resource: &|provider, resource| match provider {
                    "local" => local_faults(resource),
                    _ => Vec::new(),
                },
                state: &|state| Declared::written(state).faults(),
                store: &source::faults,
                outputs: &local::outputs_of,
                gate: &foresee,
            },
        )
    })?;
    let mut warnings = checked.warnings;
    warnings.extend(desk.unfamiliar(checked.unfamiliar));
    desk.emit(&json!({
            "command": "config validate",
            "config": path,
            "exit_code": 0,
            "failed": false,
            "environments": checked.environments,
            "resources": checked.resources,
            "problems": warnings.iter().map(problem_json).collect::<Vec<_>>(),
    }));
    for warning in warnings {
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
    let schema = config::schema();
    desk.emit(&schema);
    if !desk.global.json {
        desk.ui.json(&schema);
    }
    Ok(Exit::Done)
}
