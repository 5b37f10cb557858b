//! `plugin install` and `plugin ci`: the lock, byte for byte, into the plugin folder.

use serde_json::json;

use super::super::{CommandResult, Desk};
use super::{Project, no_manifest, not_declared};
use crate::cli::plugin::{FilesArgs, InstallArgs};
use crate::package::Change;
use crate::package::name::{self, Source};
use crate::report::{Exit, Report, Reporter as _};

/// Runs either.
pub(super) async fn run(desk: &Desk, arguments: &InstallArgs, command: &str) -> CommandResult {
    let files = &arguments.place.files;
    let workshop = desk.workshop(files, arguments.mirror.clone())?;
    let Project { manifest, lock, .. } = desk.project(files)?;
    let manifest = manifest.ok_or_else(|| no_manifest(files))?;
    let lock = lock.ok_or_else(|| no_lock(files))?;
    if let Some(only) = &arguments.name
        && manifest.get(only).is_none()
    {
        return Err(not_declared(files, only).into());
    }
    if command == "plugin ci" {
        let extra: Vec<&str> = lock
            .plugins
            .keys()
            .map(String::as_str)
            .filter(|name| !manifest.plugins.iter().any(|plugin| plugin.name == *name))
            .collect();
        if !extra.is_empty() {
            return Err(stale(
                files,
                &format!(
                    "it pins {}, which the manifest does not want",
                    extra.join(", ")
                ),
            )
            .into());
        }
    }
    for plugin in &manifest.plugins {
        let Some((_, locked)) = lock.get(&plugin.name) else {
            continue;
        };
        let source = plugin
            .source
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        // Other tools copy a source as it is written; `https://` in front says nothing new.
        let was = Source::parse(&locked.source)
            .map_or_else(|_| locked.source.clone(), |source| source.to_string());
        if was != source {
            return Err(stale(
                files,
                &format!(
                    "`{}` is locked from `{}`, and the manifest says `{source}`",
                    plugin.name, locked.source
                ),
            )
            .into());
        }
    }
    let plugin_dir = desk.plugin_dir(&arguments.place);
    let started = desk.clock.monotonic();
    let done = desk
        .until_cancelled(workshop.install(&manifest, &lock, arguments.name.as_deref(), &plugin_dir))
        .await??;
    let mut problems = Vec::new();
    let mut plugins = Vec::new();
    let (mut installed, mut unchanged) = (0, 0);
    for (plugin, result) in done {
        let version = lock
            .get(&plugin)
            .map(|(_, locked)| locked.version.clone())
            .unwrap_or_default();
        let status = match &result {
            Ok(Change::Installed) => {
                installed += 1;
                "installed"
            }
            Ok(Change::Unchanged) => {
                unchanged += 1;
                "unchanged"
            }
            Err(_) => "failed",
        };
        plugins.push(json!({
            "name": plugin,
            "folder": name::folder(&plugin),
            "version": version,
            "status": status,
        }));
        if let Err(report) = result {
            problems.push(report);
        }
    }
    let failed = problems.len();
    let exit = desk.emit_plugins(
        command,
        files,
        Some(&plugin_dir),
        installed > 0,
        plugins,
        &problems,
    );
    let elapsed = desk.clock.monotonic().saturating_sub(started);
    desk.ui.note(format!(
        "{}: {installed} installed, {unchanged} unchanged, {failed} failed, in {:.1} s.",
        plugin_dir.display(),
        elapsed.as_secs_f64()
    ));
    Ok(exit)
}

fn no_lock(files: &FilesArgs) -> Report {
    Report::error(
        "package/no-lock",
        format!("there is no `{}`", files.lock_file.display()),
    )
    .because("nothing is installed that is not pinned")
    .fix("make it, and commit it: `tidegate plugin lock`")
    .exit(Exit::Usage)
}

fn stale(files: &FilesArgs, why: &str) -> Report {
    Report::error(
        "package/stale-lock",
        format!(
            "`{}` was not made from this `{}`",
            files.lock_file.display(),
            files.manifest.display()
        ),
    )
    .because(why.to_owned())
    .fix("make it anew, and commit it: `tidegate plugin lock`")
    .exit(Exit::Usage)
}
