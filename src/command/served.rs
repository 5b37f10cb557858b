//! From an `iac.state` module whose backend is not built in to a store that a plugin serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Desk;
use super::shelf::PluginShelf;
use super::state_key::Key;
use super::stores::Declared;
use crate::config::Config;
use crate::provider::plugin::{self, Places, StateBackend};
use crate::report::{Event, Report, Reporter as _};
use crate::state::{Served, Store};

/// Settings that are ours and no plugin's.
const OUR_KEYS: [&str; 5] = [
    "encrypt",
    "identity_file",
    "key_file",
    "project",
    "ephemeral",
];

/// What the plugin of every release serves.
const BUNDLED_BACKENDS: [&str; 4] = ["azure_blob", "gcs", "s3", "spaces"];

impl Desk {
    /// Where plugins are: the folder that is asked for, then the one beside our own executable.
    fn plugin_folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![plugin::folder(
            self.global.plugin_dir.as_deref(),
            &self.settings.variables,
        )];
        let beside = self.settings.executable.parent();
        folders.extend(beside.map(|folder| folder.join("plugins")));
        folders
    }

    /// Opens a store that a plugin serves.
    pub(super) async fn open_served(
        &self,
        config: &Config,
        declared: &Declared,
        key: Option<Key>,
        encrypts: bool,
    ) -> Result<Arc<dyn Store>, Report> {
        let project = declared.text("project", "state/setting")?;
        // A storage is shared; two configs without names would take each other's resources for
        // their own. A prefix of its own does as well.
        if project.is_none() && declared.text("prefix", "state/setting")?.is_none() {
            return Err(declared.no_project());
        }
        let mut settings = declared.settings.clone();
        settings.retain(|name, _| !OUR_KEYS.contains(&name.as_str()));
        let folders = self.plugin_folders();
        let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        let backend = StateBackend::open(
            &declared.backend,
            &settings,
            Places {
                folders: &folders,
                beside: self.settings.executable.parent(),
            },
            &config.directory,
            self.plugin_tools(),
        )
        .await
        .map_err(|problem| problem.at_maybe(declared.at.clone()))?;
        if !backend.compares() {
            let warning = Report::warning(
                "state/no-compare",
                format!(
                    "the state backend `{}` of plugin `{}` cannot compare before it writes",
                    backend.name(),
                    backend.plugin()
                ),
            )
            .because(
                "every write is guarded by the backend's own lock and read back instead, which is \
                 slower, and as safe as that lock",
            );
            let warning = if BUNDLED_BACKENDS.contains(&backend.name()) {
                warning.fix(
                    "`tidegate-plugin-cloud` serves the same storage with real compare-and-swap",
                )
            } else {
                warning.fix("ask its author for the convention of docs/state.md")
            };
            self.ui.say(Event::Problem(Box::new(warning)));
        }
        let bucket = ["bucket", "container"]
            .iter()
            .find_map(|name| declared.text(name, "state/setting").ok().flatten())
            .filter(|bucket| !bucket.is_empty());
        let place = match bucket {
            Some(bucket) => format!("{} {bucket} (plugin {})", backend.name(), backend.plugin()),
            None => format!("{} (plugin {})", backend.name(), backend.plugin()),
        };
        let shelf = Arc::new(PluginShelf::new(backend, place));
        let mut store = Served::open(
            shelf,
            project.unwrap_or_default(),
            &config.environment,
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )
        .map_err(Report::from)?
        .with_neighbours(self.neighbours());
        if let Some(key) = key {
            store = store.with_key(*key);
            if encrypts {
                store = store.with_encryption(&key);
            }
        }
        Ok(Arc::new(store))
    }
}
