//! `plugin list|info|verify`: looking, never touching.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::super::{CommandResult, Desk};
use super::change::locked_json;
use super::{Project, not_declared, split};
use crate::cli::plugin::{NamedArgs, PlaceArgs, VerifyPluginsArgs};
use crate::face::table;
use crate::package::install::{Installed, folders};
use crate::package::lockfile::{Artifact, Lock, Locked};
use crate::package::manifest::Wanted;
use crate::package::parts::programs_beside;
use crate::package::registry::Entry;
use crate::package::{disk_failed, name};
use crate::report::{Event, Exit, Report, Reporter as _};

/// Most added programs that are named.
const SHOWN_MAX: usize = 10;

/// One plugin as it stands in all three places.
struct Row<'p> {
    name: String,
    wanted: Option<&'p Wanted>,
    locked: Option<&'p Locked>,
    installed: Option<Installed>,
}

impl Row<'_> {
    fn artifact(&self) -> Option<&Artifact> {
        self.locked?.platforms.get(&name::this_platform())
    }

    /// One word for how the three agree.
    fn status(&self) -> &'static str {
        match (&self.wanted, self.artifact(), &self.installed) {
            (None, _, Some(_)) => "extra",
            (None, _, None) => "not-wanted",
            (Some(_), None, _) => "not-locked",
            (Some(wanted), Some(_), _)
                if self
                    .locked
                    .is_some_and(|locked| locked.version != wanted.version) =>
            {
                "stale"
            }
            (Some(_), Some(_), None) => "not-installed",
            (Some(_), Some(artifact), Some(_)) if artifact.binary_sha256.is_none() => "not-pinned",
            (Some(_), Some(artifact), Some(installed)) => {
                if installed.is_locked(artifact) {
                    "ok"
                } else {
                    "changed"
                }
            }
        }
    }

    /// The version of what is installed, by its own word; the lock's when that is the very build.
    fn installed_version(&self) -> Option<String> {
        let installed = self.installed.as_ref()?;
        if let Some(artifact) = self.artifact()
            && installed.is_locked(artifact)
        {
            return self.locked.map(|locked| locked.version.clone());
        }
        match &installed.descriptor {
            Some(Ok(descriptor)) => Some(descriptor.version.clone()),
            _ => Some("?".to_owned()),
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "folder": name::folder(&self.name),
            "status": self.status(),
            "manifest": self.wanted.map(|wanted| json!({
                "version": wanted.version,
                "source": wanted.source.as_ref().map(ToString::to_string),
                "auth_env": wanted.auth_env,
                "identity": wanted.identity,
            })),
            "lock": self.locked.map(locked_json),
            "installed": self.installed.as_ref().map(|installed| json!({
                "version": self.installed_version(),
                "binary_sha256": installed.binary_sha256,
                "manifest_sha256": installed.manifest_sha256,
                "files_sha256": installed.parts.list_sha256,
                "description": match &installed.descriptor {
                    Some(Ok(descriptor)) => Value::from(descriptor.description.clone()),
                    _ => Value::Null,
                },
            })),
        })
    }
}

fn rows<'p>(desk: &Desk, project: &'p Project, plugin_dir: &Path) -> Result<Vec<Row<'p>>, Report> {
    let wanted = project
        .manifest
        .as_ref()
        .map_or(&[][..], |manifest| &manifest.plugins);
    let mut names: BTreeSet<String> = wanted.iter().map(|plugin| plugin.name.clone()).collect();
    let has = |names: &BTreeSet<String>, name: &str| {
        names
            .iter()
            .any(|other| name::folder(other) == name::folder(name))
    };
    for name in project.lock.iter().flat_map(|lock| lock.plugins.keys()) {
        if !has(&names, name) {
            names.insert(name.clone());
        }
    }
    for folder in folders(&*desk.disk, plugin_dir)? {
        if !has(&names, &folder) {
            names.insert(folder);
        }
    }
    names
        .into_iter()
        .map(|name| {
            Ok(Row {
                wanted: project
                    .manifest
                    .as_ref()
                    .and_then(|manifest| manifest.get(&name)),
                locked: project
                    .lock
                    .as_ref()
                    .and_then(|lock| lock.get(&name))
                    .map(|(_, locked)| locked),
                installed: Installed::look(&*desk.disk, plugin_dir, name::folder(&name))?,
                name,
            })
        })
        .collect()
}

/// `plugin list`
pub(super) fn list(desk: &Desk, arguments: &PlaceArgs) -> CommandResult {
    let project = desk.project(&arguments.files)?;
    let plugin_dir = desk.plugin_dir(arguments)?;
    let rows = rows(desk, &project, &plugin_dir)?;
    let exit = desk.emit_plugins(
        "plugin list",
        &arguments.files,
        Some(&plugin_dir),
        false,
        rows.iter().map(Row::json).collect(),
        &[],
    );
    if !desk.global.json {
        if rows.is_empty() {
            desk.ui.note("No plugins.".to_owned());
        }
        let dash = || "-".to_owned();
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|row| {
                vec![
                    row.name.clone(),
                    row.wanted
                        .map_or_else(dash, |wanted| wanted.version.clone()),
                    row.locked
                        .map_or_else(dash, |locked| locked.version.clone()),
                    row.installed_version().unwrap_or_else(dash),
                    row.status().to_owned(),
                ]
            })
            .collect();
        if !cells.is_empty() {
            desk.ui.data(&table::render(
                &["NAME", "MANIFEST", "LOCK", "INSTALLED", "STATUS"],
                &cells,
            ));
        }
    }
    Ok(exit)
}

/// `plugin info`
pub(super) async fn info(desk: &Desk, arguments: &NamedArgs) -> CommandResult {
    let files = &arguments.place.files;
    let (asked, _) = split(&arguments.name)?;
    let project = desk.project(files)?;
    let plugin_dir = desk.plugin_dir(&arguments.place)?;
    let row = rows(desk, &project, &plugin_dir)?
        .into_iter()
        .find(|row| name::folder(&row.name) == name::folder(asked));
    let Some(row) = row else {
        // Nothing of it is here: only now is anybody asked.
        let workshop = desk.workshop(files, None)?;
        return match desk.until_cancelled(workshop.find(asked)).await?? {
            Some(entry) => Ok(available(desk, arguments, &plugin_dir, &entry)),
            None => Err(not_declared(files, asked).into()),
        };
    };
    let exit = desk.emit_plugins(
        "plugin info",
        files,
        Some(&plugin_dir),
        false,
        vec![row.json()],
        &[],
    );
    if !desk.global.json {
        let mut lines = vec![
            vec!["name".to_owned(), row.name.clone()],
            vec!["status".to_owned(), row.status().to_owned()],
        ];
        let mut line = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                lines.push(vec![key.to_owned(), value]);
            }
        };
        line("wanted", row.wanted.map(|wanted| wanted.version.clone()));
        line(
            "source",
            row.wanted
                .and_then(|wanted| wanted.source.as_ref())
                .map(ToString::to_string),
        );
        line("locked", row.locked.map(|locked| locked.version.clone()));
        line("installed", row.installed_version());
        if let Some(Ok(descriptor)) = row
            .installed
            .as_ref()
            .and_then(|installed| installed.descriptor.as_ref())
        {
            line("description", Some(descriptor.description.clone()));
            line("needs engine", descriptor.min_engine_version.clone());
        }
        for (platform, artifact) in row.locked.iter().flat_map(|locked| &locked.platforms) {
            line(platform, Some(format!("sha256 {}", artifact.sha256)));
        }
        desk.ui.data(&table::render(&[], &lines));
    }
    Ok(exit)
}

/// `plugin info` of a plugin that only a registry knows.
fn available(desk: &Desk, arguments: &NamedArgs, plugin_dir: &Path, entry: &Entry) -> Exit {
    let source = entry.source.as_ref().map(ToString::to_string);
    let platforms: Vec<&str> = entry
        .downloads
        .iter()
        .flatten()
        .map(|download| download.platform)
        .collect();
    let exit = desk.emit_plugins(
        "plugin info",
        &arguments.place.files,
        Some(plugin_dir),
        false,
        vec![json!({
            "name": entry.name,
            "folder": name::folder(&entry.name),
            "status": "available",
            "manifest": null,
            "lock": null,
            "installed": null,
            "registry": {
                "name": entry.registry,
                "version": entry.version,
                "description": entry.description,
                "status": entry.status,
                "source": source,
                "private": entry.is_private,
                "platforms": platforms,
            },
        })],
        &[],
    );
    if !desk.global.json {
        let mut lines = vec![
            vec!["name".to_owned(), entry.name.clone()],
            vec!["status".to_owned(), "available".to_owned()],
            vec!["registry".to_owned(), entry.registry.clone()],
            vec!["version".to_owned(), entry.version.clone()],
        ];
        for (key, value) in [
            ("called", entry.status.clone()),
            ("source", source.unwrap_or_default()),
            ("platforms", platforms.join(", ")),
            ("description", entry.description.clone()),
        ] {
            if !value.is_empty() {
                lines.push(vec![key.to_owned(), value]);
            }
        }
        desk.ui.data(&table::render(&[], &lines));
    }
    exit
}

/// `plugin verify`
pub(super) fn verify(desk: &Desk, arguments: &VerifyPluginsArgs) -> CommandResult {
    let project = desk.project(&arguments.place.files)?;
    compare(
        desk,
        &project,
        &arguments.place,
        arguments.name.as_deref(),
        "plugin verify",
    )
}

/// Compares what is installed with what is locked, and says so in the name of `command`.
pub(super) fn compare(
    desk: &Desk,
    project: &Project,
    place: &PlaceArgs,
    only: Option<&str>,
    command: &str,
) -> CommandResult {
    let files = &place.files;
    let plugin_dir = desk.plugin_dir(place)?;
    let mut checked = rows(desk, project, &plugin_dir)?;
    if let Some(only) = only {
        checked.retain(|row| name::folder(&row.name) == name::folder(only));
        if checked.is_empty() {
            return Err(not_declared(files, only).into());
        }
    }
    checked.retain(|row| row.status() != "not-wanted");
    let mut problems: Vec<Report> = checked
        .iter()
        .filter(|row| row.status() != "ok")
        .map(|row| not_verified(row, &plugin_dir))
        .collect();
    // A link in the plugin folder is nothing that is installed, but somebody may run it by name.
    for row in &checked {
        let path = plugin_dir.join(name::folder(&row.name));
        if row.installed.is_none()
            && desk
                .disk
                .entry(&path)
                .map_err(|error| disk_failed(&error))?
                .is_some()
        {
            problems.push(Report::error(
                "package/in-the-way",
                format!("`{}` is not a folder", path.display()),
            ));
        }
    }
    tell_of_programs(desk, &checked, &plugin_dir)?;
    let exit = desk.emit_plugins(
        command,
        files,
        Some(&plugin_dir),
        false,
        checked.iter().map(Row::json).collect(),
        &problems,
    );
    if exit == Exit::Done {
        desk.ui.note(format!(
            "{} checked: everything is what the lock pins, byte for byte.",
            crate::face::count(checked.len(), "plugin")
        ));
        let older: Vec<&str> = checked
            .iter()
            .filter(|row| row.artifact().is_some_and(|it| it.files_sha256.is_none()))
            .map(|row| row.name.as_str())
            .collect();
        if !older.is_empty() {
            desk.ui.note(format!(
                "Of {} the lock pins the executable and plugin.json only; `tidegate plugin lock` pins every file.",
                older.join(", ")
            ));
        }
    }
    Ok(exit)
}

/// Folders of the plugin folder that no plugin of the lock is in: a host may start what is there.
pub(super) fn strangers(
    desk: &Desk,
    lock: &Lock,
    plugin_dir: &Path,
) -> Result<Vec<Report>, Report> {
    let strangers = folders(&*desk.disk, plugin_dir)?
        .into_iter()
        .filter(|folder| lock.get(folder).is_none());
    Ok(strangers
        .map(|folder| {
            let place = plugin_dir.join(&folder);
            Report::error(
                "package/not-verified",
                format!(
                    "`{}` is in the plugin folder, and no lock pins it",
                    place.display()
                ),
            )
            .because("whoever looks for a plugin may find this one first")
            .fix(format!("remove `{}`", place.display()))
            .fix("or pin it: `tidegate plugin add NAME@VERSION --source SOURCE`")
        })
        .collect())
}

/// Says what could be run in these folders and came with no package.
fn tell_of_programs(desk: &Desk, rows: &[Row<'_>], plugin_dir: &Path) -> Result<(), Report> {
    for row in rows.iter().filter(|row| row.installed.is_some()) {
        let place = plugin_dir.join(name::folder(&row.name));
        let programs = programs_beside(&*desk.disk, &place)?;
        if programs.is_empty() {
            continue;
        }
        let shown: Vec<&str> = programs
            .iter()
            .take(SHOWN_MAX)
            .map(String::as_str)
            .collect();
        let more = programs.len() - shown.len();
        desk.ui.say(Event::Problem(Box::new(
            Report::warning(
                "package/added-files",
                format!(
                    "in `{}` there are programs that the package of `{}` did not bring",
                    place.display(),
                    row.name
                ),
            )
            .because(format!(
                "{}{}",
                shown.join(", "),
                if more == 0 {
                    String::new()
                } else {
                    format!(" and {more} more")
                }
            ))
            .because("a plugin keeps its own files there, so no lock can pin them")
            .fix("if the plugin did not put them there, remove them"),
        )));
    }
    Ok(())
}

fn not_verified(row: &Row<'_>, plugin_dir: &Path) -> Report {
    let place = plugin_dir.join(name::folder(&row.name));
    let why = match row.status() {
        "extra" => "it is installed, and the manifest does not want it",
        "not-locked" => "the lock does not pin it for this platform",
        "stale" => "the lock pins another version than the manifest wants",
        "not-installed" => "it is not installed",
        "not-pinned" => "the lock holds no digest of its executable; another tool wrote it",
        _ => "its files are not the locked ones",
    };
    let mut report = Report::error(
        "package/not-verified",
        format!(
            "`{}` in `{}` is not what the lock pins",
            row.name,
            place.display()
        ),
    )
    .because(why);
    if let (Some(artifact), Some(installed)) = (row.artifact(), &row.installed) {
        for (part, locked, found) in [
            (
                "executable",
                &artifact.binary_sha256,
                &installed.binary_sha256,
            ),
            (
                "plugin.json",
                &artifact.manifest_sha256,
                &installed.manifest_sha256,
            ),
        ] {
            if let Some(locked) = locked
                && found.as_ref() != Some(locked)
            {
                report = report
                    .because(format!("{part}, locked: sha256 {locked}"))
                    .because(format!(
                        "{part}, found:  {}",
                        found.as_ref().map_or_else(
                            || "nothing".to_owned(),
                            |found| format!("sha256 {found}")
                        )
                    ));
            }
        }
    }
    if let Some(Artifact {
        files_sha256: Some(locked),
        ..
    }) = row.artifact()
        && let Some(installed) = &row.installed
        && !installed.parts.are(locked)
    {
        let changed = &installed.parts.changed;
        report = report.because(match (&installed.parts.list_sha256, changed.is_empty()) {
            (None, _) => {
                "it has no list of its files, so it was not installed from this lock".to_owned()
            }
            (Some(_), true) => "the list of its files is not the locked one".to_owned(),
            (Some(_), false) => format!("changed: {}", changed.join(", ")),
        });
    }
    match row.status() {
        "extra" => report.fix(format!("remove `{}`", place.display())),
        "not-locked" | "stale" | "not-pinned" => report.fix("lock it: `tidegate plugin lock`"),
        _ => report.fix("install it again: `tidegate plugin install`"),
    }
}
