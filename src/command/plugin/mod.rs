//! `plugin …`: manifest, lock and plugin folder, each read once, changed in memory, and written
//! whole or not at all.

mod change;
mod install;
pub mod registry;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{CommandResult, Desk, Problems};
use crate::cli::plugin::{FilesArgs, PlaceArgs, PluginCommand};
use crate::disk::{DiskExt as _, FileLock};
use crate::http::Http;
use crate::package::cache::Cache;
use crate::package::descriptor::ENGINE_VERSION;
use crate::package::download::Fetcher;
use crate::package::lockfile::Lock;
use crate::package::manifest::Manifest;
use crate::package::{self, Workshop, disk_failed, name, read_text};
use crate::provider::plugin;
use crate::report::{Exit, Report, Reporter as _};
pub(super) use change::{relock, write_both};

/// Runs one of them.
pub async fn run(desk: &Desk, command: &PluginCommand) -> (&'static str, CommandResult) {
    match command {
        PluginCommand::Add(arguments) => ("plugin add", change::add(desk, arguments).await),
        PluginCommand::Remove(arguments) => {
            ("plugin remove", change::remove(desk, arguments).await)
        }
        PluginCommand::Update(arguments) => {
            ("plugin update", change::update(desk, arguments).await)
        }
        PluginCommand::Lock(arguments) => ("plugin lock", change::lock(desk, arguments).await),
        PluginCommand::Install(arguments) => {
            ("plugin install", install::install(desk, arguments).await)
        }
        PluginCommand::Ci(arguments) => ("plugin ci", install::ci(desk, arguments).await),
        PluginCommand::List(arguments) => ("plugin list", show::list(desk, arguments)),
        PluginCommand::Info(arguments) => ("plugin info", show::info(desk, arguments).await),
        PluginCommand::Verify(arguments) => ("plugin verify", show::verify(desk, arguments)),
    }
}

/// Manifest and lock as they stand.
pub(super) struct Project {
    /// The manifest's text; empty when there is no file.
    pub(super) text: String,
    /// The manifest; `None` when there is no file.
    pub(super) manifest: Option<Manifest>,
    /// The lock; `None` when there is no file.
    pub(super) lock: Option<Lock>,
}

impl Desk {
    /// What packages are worked on with.
    pub(super) fn workshop(
        &self,
        files: &FilesArgs,
        mirror: Option<PathBuf>,
    ) -> Result<Workshop, Problems> {
        let variables = Arc::new(self.settings.variables.clone());
        let engine = files
            .engine_version
            .clone()
            .or_else(|| {
                variables
                    .non_empty(package::ENGINE_VARIABLE)
                    .map(str::to_owned)
            })
            .unwrap_or_else(|| ENGINE_VERSION.to_owned());
        if name::version_numbers(&engine).is_none() {
            return Err(Report::error(
                "package/bad-engine-version",
                "the engine version is not three numbers",
            )
            .fix("write it like 0.86.0")
            .exit(Exit::Usage)
            .into());
        }
        let http = Http::new(&variables).map_err(|problem| {
            Report::error("package/bad-proxy", "the proxy settings cannot be used")
                .because(problem.to_string())
                .exit(Exit::Usage)
        })?;
        let cache = Cache::from_variables(&variables)?;
        cache
            .prepare(&*self.disk)
            .map_err(|error| disk_failed(&error))?;
        let mirror = mirror.or_else(|| {
            variables
                .non_empty(package::MIRROR_VARIABLE)
                .map(PathBuf::from)
        });
        Ok(Workshop {
            fetcher: Fetcher {
                http,
                clock: Arc::clone(&self.clock),
                disk: Arc::clone(&self.disk),
                reporter: Arc::new(self.ui.clone()),
                cache,
            },
            variables,
            masker: self.masker.clone(),
            engine,
            jobs: usize::from(files.jobs),
            mirror,
        })
    }

    /// Reads manifest and lock.
    pub(super) fn project(&self, files: &FilesArgs) -> Result<Project, Problems> {
        let text = read_text(&*self.disk, &files.manifest)?;
        let manifest = match &text {
            Some(text) => Some(Manifest::parse(&files.manifest, text)?),
            None => None,
        };
        let lock = match read_text(&*self.disk, &files.lock_file)? {
            Some(text) => Some(Lock::parse(&files.lock_file, &text)?),
            None => None,
        };
        Ok(Project {
            text: text.unwrap_or_default(),
            manifest,
            lock,
        })
    }

    /// The same, for changing it: nobody else on this machine changes it meanwhile. A lock that
    /// cannot be read is no obstacle for `plugin lock`, which makes a new one.
    pub(super) async fn project_turn(
        &self,
        workshop: &Workshop,
        files: &FilesArgs,
    ) -> Result<Box<dyn FileLock>, Problems> {
        let folder = files
            .manifest
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = self
            .disk
            .canonical(folder.unwrap_or_else(|| Path::new(".")))
            .map_err(|error| disk_failed(&error))?;
        let path = workshop.fetcher.cache.project_lock(&folder);
        Ok(workshop
            .fetcher
            .turn(
                &path,
                "manifest and lock are being changed by another process",
            )
            .await?)
    }

    /// Stops when somebody asks for it. What was written is whole; what was not is not there.
    pub(super) async fn until_cancelled<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, Problems> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Report::error(
                "package/interrupted",
                "stopped by a signal; everything on disk is whole",
            )
            .fix("run it again: downloads go on where they stopped")
            .exit(Exit::Interrupted)
            .into()),
            done = work => Ok(done),
        }
    }

    /// Writes the lock unless it would pin what it pins already.
    pub(super) fn write_lock(
        &self,
        path: &Path,
        before: Option<&Lock>,
        lock: &Lock,
    ) -> Result<bool, Report> {
        if before.is_some_and(|before| before.is_same(lock)) {
            return Ok(false);
        }
        self.disk
            .rewrite(path, lock.to_yaml().as_bytes(), 0o644)
            .map_err(|error| disk_failed(&error))?;
        Ok(true)
    }

    /// The plugin folder: flag, then variable, then default.
    pub(super) fn plugin_dir(&self, place: &PlaceArgs) -> Result<PathBuf, Report> {
        let variables = &self.settings.variables;
        if place.global {
            return package::global_folder(variables);
        }
        // Where it is looked for is where it has to be installed.
        Ok(plugin::folder(place.plugin_dir.as_deref(), variables))
    }

    /// The one document every `plugin` command prints.
    pub(super) fn emit_plugins(
        &self,
        command: &str,
        files: &FilesArgs,
        plugin_dir: Option<&Path>,
        changed: bool,
        plugins: Vec<Value>,
        problems: &[Report],
    ) -> Exit {
        let exit = problems.first().map_or(Exit::Done, |report| report.exit);
        self.emit(&json!({
            "command": command,
            "changed": changed,
            "exit_code": exit as u8,
            "failed": exit != Exit::Done,
            "manifest": files.manifest,
            "lock_file": files.lock_file,
            "plugin_dir": plugin_dir,
            "plugins": plugins,
            "problems": problems.iter().map(super::problem_json).collect::<Vec<_>>(),
        }));
        for report in problems {
            self.ui
                .say(crate::report::Event::Problem(Box::new(report.clone())));
        }
        exit
    }
}

/// `NAME` or `NAME@VERSION`.
fn split(text: &str) -> Result<(&str, Option<&str>), Report> {
    let (name, version) = match text.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    if !name::is_name(name) {
        return Err(Report::error(
            "package/bad-name",
            "this is no plugin name: a lower-case letter, then letters, digits and hyphens",
        )
        .exit(Exit::Usage));
    }
    if let Some(version) = version
        && !name::is_exact_version(version)
    {
        return Err(Report::error(
            "package/bad-version",
            "a version is exact, such as `v1.4.2`: a range would make two runs of one commit differ",
        )
        .exit(Exit::Usage));
    }
    Ok((name, version))
}

fn no_manifest(files: &FilesArgs) -> Report {
    Report::error(
        "package/no-manifest",
        format!("there is no `{}`", files.manifest.display()),
    )
    .fix("start one: `tidegate plugin add NAME@VERSION --source github.com/OWNER/REPO`")
    .exit(Exit::Usage)
}

fn not_declared(files: &FilesArgs, name: &str) -> Report {
    Report::error(
        "package/not-declared",
        format!("`{name}` is not in `{}`", files.manifest.display()),
    )
    .fix(format!(
        "add it: `tidegate plugin add {name}@VERSION --source github.com/OWNER/REPO`"
    ))
    .exit(Exit::Usage)
}
