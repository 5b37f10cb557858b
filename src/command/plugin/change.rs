//! `plugin add|remove|update|lock`: what changes manifest and lock.

use std::path::Path;

use serde_json::{Value, json};

use super::super::{CommandResult, Desk, Problems};
use super::{no_manifest, not_declared, split};
use crate::cli::plugin::{AddArgs, FilesArgs, RemoveArgs, UpdateArgs};
use crate::clock::rfc3339;
use crate::disk::DiskExt as _;
use crate::package::edit::{self, NewEntry};
use crate::package::lockfile::{Lock, Locked};
use crate::package::manifest::Manifest;
use crate::package::{Workshop, disk_failed, install, name, read_text};
use crate::report::{Event, Exit, Report, Reporter as _};

/// `plugin add`
pub(super) async fn add(desk: &Desk, arguments: &AddArgs) -> CommandResult {
    let files = &arguments.files;
    let (name, version) = split(&arguments.plugin)?;
    let workshop = desk.workshop(files, None)?;
    let _turn = desk.project_turn(&workshop, files).await?;
    let project = desk.project(files)?;
    let listed = match &arguments.source {
        Some(_) => None,
        None => desk.until_cancelled(workshop.find(name)).await??,
    };
    let version = match (version, &listed) {
        (Some(version), _) => version,
        (None, Some(listed)) => listed.version.as_str(),
        (None, None) => {
            return Err(Report::error("package/bad-version", "a version is missing")
                .fix(format!("name it: `tidegate plugin add {name}@v1.2.3 …`"))
                .exit(Exit::Usage)
                .into());
        }
    };
    if let Some(there) = project
        .manifest
        .as_ref()
        .and_then(|manifest| manifest.get(name))
    {
        return Err(Report::error(
            "package/already-declared",
            format!(
                "`{}` is in `{}` already, as {}",
                there.name,
                files.manifest.display(),
                there.version
            ),
        )
        .at_maybe(there.at.clone())
        .fix(format!(
            "move it: `tidegate plugin update {}@{version}`",
            there.name
        ))
        .exit(Exit::Usage)
        .into());
    }
    let before = match &project.manifest {
        Some(_) => project.text.as_str(),
        None => edit::NEW_MANIFEST,
    };
    let text = edit::add(
        &files.manifest,
        before,
        &NewEntry {
            name: name.to_owned(),
            version: version.to_owned(),
            source: arguments.source.clone().or_else(|| {
                // What an install cannot do without: it asks no registry.
                let listed = listed.as_ref().filter(|listed| listed.is_private)?;
                listed.source.as_ref().map(ToString::to_string)
            }),
            auth_env: arguments.auth_env.clone(),
            identity: None,
        },
    )?;
    let lock = relock(
        desk,
        &workshop,
        files,
        &text,
        project.lock.as_ref(),
        &|_| false,
    )
    .await?;
    write_both(desk, files, &text, project.lock.as_ref(), &lock)?;
    if let Some(listed) = &listed {
        desk.ui.note(format!(
            "`{name}` is the one that registry `{}` lists{}.",
            listed.registry,
            match listed.status.as_str() {
                "" => String::new(),
                status => format!(", as {status}"),
            }
        ));
    }
    finish(desk, "plugin add", files, true, &lock, Some(name))
}

/// `plugin remove`
pub(super) async fn remove(desk: &Desk, arguments: &RemoveArgs) -> CommandResult {
    let files = &arguments.place.files;
    let (name, _) = split(&arguments.name)?;
    let workshop = desk.workshop(files, None)?;
    let _turn = desk.project_turn(&workshop, files).await?;
    let project = desk.project(files)?;
    let manifest = project
        .manifest
        .as_ref()
        .ok_or_else(|| no_manifest(files))?;
    let there = manifest
        .get(name)
        .ok_or_else(|| not_declared(files, name))?;
    let text = edit::remove(&files.manifest, &project.text, &there.name)?;
    let after = Manifest::parse(&files.manifest, &text)?;
    // Manifest first: a lock that pins more than is wanted harms nobody.
    desk.disk
        .rewrite(&files.manifest, text.as_bytes(), 0o644)
        .map_err(|error| disk_failed(&error))?;
    let mut lock = project.lock.clone().unwrap_or_default();
    lock.plugins
        .retain(|other, _| name::folder(other) != name::folder(name));
    lock.manifest_sha256 = Some(after.digest());
    lock.generated_at = rfc3339(desk.clock.now());
    if project.lock.is_some() {
        desk.write_lock(&files.lock_file, project.lock.as_ref(), &lock)?;
    }
    let plugin_dir = desk.plugin_dir(&arguments.place)?;
    let folder = name::folder(name);
    let install::Uninstalled { is_gone, kept } = if arguments.keep_installed {
        install::Uninstalled::default()
    } else {
        install::uninstall(&*desk.disk, &plugin_dir, folder)?
    };
    desk.ui.note(format!(
        "`{}` is out of manifest and lock{}.",
        there.name,
        if is_gone {
            ", and no longer installed"
        } else {
            ""
        }
    ));
    if !kept.is_empty() {
        desk.ui.note(format!(
            "What it kept is left in `{}`: {}. Remove it when nothing needs it any more.",
            plugin_dir.join(folder).display(),
            kept.join(", ")
        ));
    }
    let exit = desk.emit_plugins(
        "plugin remove",
        files,
        Some(&plugin_dir),
        true,
        vec![json!({ "name": there.name, "version": there.version, "uninstalled": is_gone })],
        &[],
    );
    Ok(exit)
}

/// `plugin update`
pub(super) async fn update(desk: &Desk, arguments: &UpdateArgs) -> CommandResult {
    let files = &arguments.files;
    let asked = match &arguments.plugin {
        Some(plugin) => Some(split(plugin)?),
        None => None,
    };
    let workshop = desk.workshop(files, None)?;
    let _turn = desk.project_turn(&workshop, files).await?;
    let project = desk.project(files)?;
    let manifest = project
        .manifest
        .as_ref()
        .ok_or_else(|| no_manifest(files))?;
    let mut text = project.text.clone();
    let mut moved = Vec::new();
    for plugin in &manifest.plugins {
        let target = match asked {
            Some((name, _)) if name::folder(name) != name::folder(&plugin.name) => continue,
            Some((_, Some(version))) => version.to_owned(),
            _ => desk.until_cancelled(workshop.newest(plugin)).await??,
        };
        if target != plugin.version {
            text = edit::set_version(&files.manifest, &text, &plugin.name, &target)?;
        }
        moved.push((plugin.name.clone(), plugin.version.clone(), target));
    }
    if let (Some((name, _)), true) = (asked, moved.is_empty()) {
        return Err(not_declared(files, name).into());
    }
    let is_moved = |name: &str| {
        moved
            .iter()
            .any(|(other, from, to)| other == name && from != to)
    };
    let lock = relock(
        desk,
        &workshop,
        files,
        &text,
        project.lock.as_ref(),
        &is_moved,
    )
    .await?;
    let changed = write_both(desk, files, &text, project.lock.as_ref(), &lock)?;
    for (name, from, to) in &moved {
        desk.ui.note(if from == to {
            format!("`{name}` stays at {to}.")
        } else {
            format!("`{name}`: {from} → {to}.")
        });
    }
    finish(
        desk,
        "plugin update",
        files,
        changed,
        &lock,
        asked.map(|(name, _)| name),
    )
}

/// `plugin lock`
pub(super) async fn lock(desk: &Desk, arguments: &FilesArgs) -> CommandResult {
    let workshop = desk.workshop(arguments, None)?;
    let _turn = desk.project_turn(&workshop, arguments).await?;
    let text =
        read_text(&*desk.disk, &arguments.manifest)?.ok_or_else(|| no_manifest(arguments))?;
    // A lock that cannot be read is what this command is the remedy for.
    let before = read_text(&*desk.disk, &arguments.lock_file)?
        .and_then(|text| Lock::parse(&arguments.lock_file, &text).ok());
    let lock = relock(desk, &workshop, arguments, &text, before.as_ref(), &|_| {
        true
    })
    .await?;
    let changed = desk.write_lock(&arguments.lock_file, before.as_ref(), &lock)?;
    finish(desk, "plugin lock", arguments, changed, &lock, None)
}

/// Makes the lock for a manifest's text, and warns about bytes that changed under a version that
/// did not.
pub(in super::super) async fn relock(
    desk: &Desk,
    workshop: &Workshop,
    files: &FilesArgs,
    text: &str,
    before: Option<&Lock>,
    fresh: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Lock, Problems> {
    let manifest = Manifest::parse(&files.manifest, text)?;
    let now = rfc3339(desk.clock.now());
    let lock = desk
        .until_cancelled(workshop.lock(&manifest, before, fresh, now))
        .await??;
    for (name, locked) in &lock.plugins {
        let Some(was) = before.and_then(|before| before.plugins.get(name)) else {
            continue;
        };
        if was.version != locked.version || was.source != locked.source {
            continue;
        }
        for (platform, artifact) in &locked.platforms {
            if let Some(old) = was.platforms.get(platform)
                && old.sha256 != artifact.sha256
            {
                let report = Report::warning(
                    "package/digest-changed",
                    format!(
                        "`{name}` {} for {platform} has other bytes than before",
                        locked.version
                    ),
                )
                .because(format!("was locked: sha256 {}", old.sha256))
                .because(format!("published now: sha256 {}", artifact.sha256))
                .fix("a release that changes under its version is a warning sign: ask its author before you commit this lock");
                desk.ui.say(Event::Problem(Box::new(report)));
            }
        }
    }
    Ok(lock)
}

/// Lock first: a manifest never asks for what is not locked. A crash between the two leaves a lock
/// that pins more than is wanted.
pub(in super::super) fn write_both(
    desk: &Desk,
    files: &FilesArgs,
    text: &str,
    before: Option<&Lock>,
    lock: &Lock,
) -> Result<bool, Problems> {
    let mut changed = desk.write_lock(&files.lock_file, before, lock)?;
    let there = read_text(&*desk.disk, &files.manifest)?;
    if there.as_deref() != Some(text) {
        desk.disk
            .rewrite(&files.manifest, text.as_bytes(), 0o644)
            .map_err(|error| disk_failed(&error))?;
        changed = true;
    }
    Ok(changed)
}

fn finish(
    desk: &Desk,
    command: &str,
    files: &FilesArgs,
    changed: bool,
    lock: &Lock,
    only: Option<&str>,
) -> CommandResult {
    let shown: Vec<(&String, &Locked)> = lock
        .plugins
        .iter()
        .filter(|(name, _)| only.is_none_or(|only| name::folder(only) == name::folder(name)))
        .collect();
    for (name, locked) in &shown {
        desk.ui.note(format!(
            "`{name}` {} is locked for {}.",
            locked.version,
            platforms(locked)
        ));
    }
    if !changed {
        desk.ui.note(format!(
            "`{}` pins these bytes already.",
            display(&files.lock_file)
        ));
    }
    let plugins = shown
        .into_iter()
        .map(|(name, locked)| json!({ "name": name, "lock": locked_json(locked) }))
        .collect();
    Ok(desk.emit_plugins(command, files, None, changed, plugins, &[]))
}

fn display(path: &Path) -> std::path::Display<'_> {
    path.display()
}

fn platforms(locked: &Locked) -> String {
    let names: Vec<&str> = locked.platforms.keys().map(String::as_str).collect();
    names.join(", ")
}

/// A locked plugin in the stable JSON shape.
pub(super) fn locked_json(locked: &Locked) -> Value {
    let platforms: serde_json::Map<String, Value> = locked
        .platforms
        .iter()
        .map(|(platform, artifact)| {
            let value = json!({
                "url": artifact.url,
                "sha256": artifact.sha256,
                "binary_sha256": artifact.binary_sha256,
                "manifest_sha256": artifact.manifest_sha256,
                "files_sha256": artifact.files_sha256,
            });
            (platform.clone(), value)
        })
        .collect();
    json!({
        "version": locked.version,
        "source": locked.source,
        "platforms": platforms,
    })
}
