//! `plugin-registry list|add|remove`: where plugins that name no source are looked for. The file is the
//! user's own or the project's; whatever else stands in it is somebody else's and stays.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::super::{CommandResult, Desk, Problems};
use crate::cli::plugin::{RegistryAddArgs, RegistryCommand, RegistryRemoveArgs};
use crate::config;
use crate::disk::DiskExt as _;
use crate::face::table;
use crate::package::registry::{self, Place, Registry};
use crate::package::{disk_failed, edit, read_text};
use crate::report::{Exit, Report, Reporter as _};

/// The key of the list in either file.
const KEY: &str = "registries";
/// The text of a file that is not there yet.
const NEW_FILE: &str = "registries: []\n";

/// Runs one of them.
pub fn run(desk: &Desk, command: &RegistryCommand) -> (&'static str, CommandResult) {
    match command {
        RegistryCommand::List => ("plugin-registry list", list(desk)),
        RegistryCommand::Add(arguments) => ("plugin-registry add", add(desk, arguments)),
        RegistryCommand::Remove(arguments) => ("plugin-registry remove", remove(desk, arguments)),
    }
}

/// One as it is written, in this order of keys.
#[derive(Serialize)]
struct NewRegistry<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repo: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    priority: i64,
}

fn list(desk: &Desk) -> CommandResult {
    let mut read = Vec::new();
    for path in registry::files(&desk.settings.variables) {
        let registries = read_at(desk, &path)?.1;
        if !registries.is_empty() {
            read.push((path, registries));
        }
    }
    let passed_over: Vec<PathBuf> = read.iter().skip(1).map(|(path, _)| path.clone()).collect();
    let (file, registries) = read
        .into_iter()
        .next()
        .map_or((None, Vec::new()), |(path, all)| (Some(path), all));
    emit(
        desk,
        "plugin-registry list",
        file.as_deref(),
        false,
        &registries,
    );
    if desk.global.json {
        return Ok(Exit::Done);
    }
    let Some(file) = file else {
        desk.ui
            .note("No registry is configured: every plugin names its `source`.".to_owned());
        return Ok(Exit::Done);
    };
    let rows: Vec<Vec<String>> = registries
        .iter()
        .map(|registry| {
            let (kind, place) = shown(&registry.place);
            vec![
                registry.name.clone(),
                kind.to_owned(),
                place,
                registry.priority.to_string(),
            ]
        })
        .collect();
    desk.ui.data(&table::render(
        &["NAME", "TYPE", "PLACE", "PRIORITY"],
        &rows,
    ));
    desk.ui.note(format!("They stand in {}.", file.display()));
    for other in passed_over {
        desk.ui.note(format!(
            "Those in {} are passed over: the first file that names any counts alone.",
            other.display()
        ));
    }
    Ok(Exit::Done)
}

fn add(desk: &Desk, arguments: &RegistryAddArgs) -> CommandResult {
    let path = file(desk, arguments.project)?;
    let (text, registries) = read_at(desk, &path)?;
    if registries.iter().any(|one| one.name == arguments.name) {
        return Err(Report::error(
            "package/registry-exists",
            format!(
                "`{}` has a registry `{}` already; nothing was changed",
                path.display(),
                arguments.name
            ),
        )
        .fix("take it out first: `tidegate plugin-registry remove NAME`")
        .exit(Exit::Usage)
        .into());
    }
    let is_static = arguments.kind == "static";
    let item = NewRegistry {
        name: &arguments.name,
        kind: &arguments.kind,
        owner: arguments.owner.as_deref(),
        repo: arguments.repo.as_deref(),
        branch: (!is_static).then_some(arguments.branch.as_str()),
        url: arguments.url.as_deref(),
        token: arguments
            .token_env
            .as_ref()
            .map(|variable| format!("${{{variable}}}")),
        priority: arguments.priority,
    };
    let items = [serde_json::to_value(&item).unwrap_or_default()];
    let yaml = config::list_to_yaml(&[&item]).unwrap_or_default();
    let before = if text.trim().is_empty() {
        NEW_FILE
    } else {
        &text
    };
    let edited = edit::append(&path, before, KEY, &yaml, &items)?;
    let registries = registry::parse(&path, &edited).map_err(unplaced)?;
    write(desk, &path, &edited)?;
    emit(desk, "plugin-registry add", Some(&path), true, &registries);
    desk.ui.note(format!(
        "The registry `{}` stands in {} now.",
        arguments.name,
        path.display()
    ));
    Ok(Exit::Done)
}

fn remove(desk: &Desk, arguments: &RegistryRemoveArgs) -> CommandResult {
    let path = file(desk, arguments.project)?;
    let (text, registries) = read_at(desk, &path)?;
    if !registries.iter().any(|one| one.name == arguments.name) {
        return Err(Report::error(
            "package/no-registry",
            format!("`{}` has no registry `{}`", path.display(), arguments.name),
        )
        .fix("`tidegate plugin-registry list` shows those that count, and where they stand")
        .exit(Exit::Usage)
        .into());
    }
    let edited = edit::item::remove(&path, &text, KEY, &arguments.name)?;
    let registries = registry::parse(&path, &edited).map_err(unplaced)?;
    write(desk, &path, &edited)?;
    emit(
        desk,
        "plugin-registry remove",
        Some(&path),
        true,
        &registries,
    );
    desk.ui.note(format!(
        "The registry `{}` is gone from {}.",
        arguments.name,
        path.display()
    ));
    Ok(Exit::Done)
}

/// The project's file, or the user's own.
fn file(desk: &Desk, is_of_project: bool) -> Result<PathBuf, Report> {
    let files = registry::files(&desk.settings.variables);
    let at = if is_of_project { 0 } else { 1 };
    files.into_iter().nth(at).ok_or_else(|| {
        Report::error(
            "package/no-home",
            "nobody says where the user's own configuration is",
        )
        .because("`HOME` is not set")
        .fix("set it, or write into the project's file with --project")
        .exit(Exit::Usage)
    })
}

/// A file's text, empty when there is none, and the registries in it.
fn read_at(desk: &Desk, path: &Path) -> Result<(String, Vec<Registry>), Problems> {
    let text = read_text(&*desk.disk, path)?.unwrap_or_default();
    let registries = match text.trim().is_empty() {
        true => Vec::new(),
        false => registry::parse(path, &text)?,
    };
    Ok((text, registries))
}

/// Problems of a text that is on no disk, so that no line of it is named.
fn unplaced(problems: Vec<Report>) -> Problems {
    problems
        .into_iter()
        .map(|mut problem| {
            problem.at = None;
            problem.fix("nothing was changed; see docs/packages.md, \"Registries\"")
        })
        .collect::<Vec<Report>>()
        .into()
}

fn write(desk: &Desk, path: &Path, text: &str) -> Result<(), Report> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        desk.disk
            .create_directories(folder, 0o700)
            .map_err(|error| disk_failed(&error))?;
    }
    desk.disk
        .rewrite(path, text.as_bytes(), 0o644)
        .map_err(|error| disk_failed(&error))
}

fn shown(place: &Place) -> (&'static str, String) {
    match place {
        Place::Github {
            owner,
            repository,
            branch,
        } => (
            "github",
            format!("github.com/{owner}/{repository} ({branch})"),
        ),
        Place::Static { url, .. } => ("static", url.clone()),
    }
}

fn emit(desk: &Desk, command: &str, file: Option<&Path>, changed: bool, registries: &[Registry]) {
    let registries: Vec<Value> = registries
        .iter()
        .map(|registry| {
            let (kind, place) = shown(&registry.place);
            let token = match &registry.place {
                Place::Static { token, .. } => token.as_deref(),
                Place::Github { .. } => None,
            };
            json!({
                "name": registry.name,
                "type": kind,
                "place": place,
                "token_env": token,
                "priority": registry.priority,
            })
        })
        .collect();
    desk.emit(&json!({
        "command": command,
        "exit_code": Exit::Done as u8,
        "failed": false,
        "changed": changed,
        "file": file,
        "registries": registries,
    }));
}
