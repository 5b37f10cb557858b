//! `plugin install` and `plugin ci`: the lock, byte for byte, into the plugin folder.

use serde_json::json;

use super::super::{CommandResult, Desk, Problems};
use super::{Project, no_manifest, not_declared, show};
use crate::cli::plugin::{FilesArgs, InstallArgs, LockedArgs, PlaceArgs};
use crate::package::direct::Direct;
use crate::package::lockfile::Lock;
use crate::package::manifest::Manifest;
use crate::package::name::{self, Source};
use crate::package::{self, Change, Workshop};
use crate::report::{Exit, Report, Reporter as _};

/// `plugin ci`
pub(super) async fn ci(desk: &Desk, arguments: &LockedArgs) -> CommandResult {
    let workshop = desk.workshop(&arguments.place.files, arguments.mirror.clone())?;
    let (manifest, lock, _) = agreed(desk, arguments, true)?;
    let plugin_dir = desk.plugin_dir(&arguments.place)?;
    let strangers = show::strangers(desk, &lock, &plugin_dir)?;
    if !strangers.is_empty() {
        return Err(strangers.into());
    }
    from_lock(desk, arguments, &workshop, &manifest, &lock, "plugin ci").await
}

/// `plugin install`
pub(super) async fn install(desk: &Desk, arguments: &InstallArgs) -> CommandResult {
    const COMMAND: &str = "plugin install";
    let locked = &arguments.locked;
    let direct = match (&arguments.url, &arguments.sha256, &arguments.local) {
        (Some(url), Some(sha256), _) => Some(Direct::Url {
            url: url.clone(),
            sha256: sha256.clone(),
        }),
        (_, _, Some(path)) => Some(Direct::Local(path.clone())),
        _ => None,
    };
    if let Some(direct) = direct {
        return install_direct(desk, locked, &direct).await;
    }
    if arguments.check {
        let (manifest, lock, text) = agreed(desk, locked, true)?;
        let project = Project {
            text,
            manifest: Some(manifest),
            lock: Some(lock),
        };
        return show::compare(
            desk,
            &project,
            &locked.place,
            locked.name.as_deref(),
            COMMAND,
        );
    }
    let workshop = desk.workshop(&locked.place.files, locked.mirror.clone())?;
    let (manifest, lock, _) = agreed(desk, locked, false)?;
    let done = from_lock(desk, locked, &workshop, &manifest, &lock, COMMAND).await;
    if locked.place.global {
        tell_where(desk, &locked.place)?;
    }
    done
}

/// Hosts look into the project's folder; this one they have to be told of.
fn tell_where(desk: &Desk, place: &PlaceArgs) -> Result<(), Report> {
    let folder = desk.plugin_dir(place)?;
    desk.ui.note(format!(
        "To use it in a project: {}={}",
        package::PLUGIN_DIR_VARIABLE,
        folder.display()
    ));
    Ok(())
}

/// One plugin that no lock pins.
async fn install_direct(desk: &Desk, arguments: &LockedArgs, from: &Direct) -> CommandResult {
    let place = &arguments.place;
    let workshop = desk.workshop(&place.files, None)?;
    let plugin_dir = desk.plugin_dir(place)?;
    let installed = desk
        .until_cancelled(workshop.install_direct(from, arguments.name.as_deref(), &plugin_dir))
        .await??;
    let exit = desk.emit_plugins(
        "plugin install",
        &place.files,
        Some(&plugin_dir),
        true,
        vec![json!({
            "name": installed.name,
            "folder": installed.folder,
            "version": installed.version,
            "status": "installed",
        })],
        &[],
    );
    desk.ui.note(format!(
        "`{}` {} is in {}; its executable has sha256 {}. No lock pins it.",
        installed.name,
        installed.version,
        plugin_dir.join(&installed.folder).display(),
        installed.binary_sha256
    ));
    if place.global {
        tell_where(desk, place)?;
    }
    Ok(exit)
}

/// Manifest and lock, which must want the same; with `is_strict` the lock must want nothing more.
/// And the manifest's text.
fn agreed(
    desk: &Desk,
    arguments: &LockedArgs,
    is_strict: bool,
) -> Result<(Manifest, Lock, String), Problems> {
    let files = &arguments.place.files;
    let Project {
        manifest,
        lock,
        text,
    } = desk.project(files)?;
    let manifest = manifest.ok_or_else(|| no_manifest(files))?;
    let lock = lock.ok_or_else(|| no_lock(files))?;
    if let Some(only) = &arguments.name
        && manifest.get(only).is_none()
    {
        return Err(not_declared(files, only).into());
    }
    if is_strict {
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
    Ok((manifest, lock, text))
}

async fn from_lock(
    desk: &Desk,
    arguments: &LockedArgs,
    workshop: &Workshop,
    manifest: &Manifest,
    lock: &Lock,
    command: &str,
) -> CommandResult {
    let files = &arguments.place.files;
    let plugin_dir = desk.plugin_dir(&arguments.place)?;
    let started = desk.clock.monotonic();
    let done = desk
        .until_cancelled(workshop.install(manifest, lock, arguments.name.as_deref(), &plugin_dir))
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
