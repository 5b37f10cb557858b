//! `migrate plugins`: pins that older configs carry under `requires.plugins` move into the manifest.

use serde_json::json;

use super::plugin::{relock, write_both};
use super::{CommandResult, Desk};
use crate::cli::plugin::MigratePluginsArgs;
use crate::config::Document;
use crate::disk::DiskExt as _;
use crate::package::edit::{self, NewEntry};
use crate::package::manifest::{Legacy, Manifest, Wanted, legacy};
use crate::package::name::{self, Source};
use crate::package::{disk_failed, read_text};
use crate::report::{Exit, Report, Reporter as _};

/// Keys of an entry that mean something to a package manager, and to nobody else.
const MOVED_KEYS: [&str; 4] = ["version", "source", "auth", "verify"];

/// Runs the command.
pub async fn plugins(desk: &Desk, arguments: &MigratePluginsArgs) -> CommandResult {
    let files = &arguments.files;
    let path = desk.find_config(&arguments.config)?;
    let workshop = desk.workshop(files, None)?;
    let _turn = desk.project_turn(&workshop, files).await?;
    let config = read_text(&*desk.disk, &path)?.ok_or_else(|| {
        Report::error(
            "package/cannot-migrate",
            format!("there is no `{}`", path.display()),
        )
        .exit(Exit::Usage)
    })?;
    let project = desk.project(files)?;
    let mut manifest = match &project.manifest {
        Some(manifest) => manifest.clone(),
        None => Manifest::default(),
    };
    let mut text = match &project.manifest {
        Some(_) => project.text.clone(),
        None => edit::NEW_MANIFEST.to_owned(),
    };
    let entries = legacy(&Document::parse(&path, &config)?);
    let mut moved = Vec::new();
    let mut problems = Vec::new();
    for entry in &entries {
        match carry_over(entry, &manifest) {
            Ok(None) => {}
            Ok(Some(new)) => {
                text = edit::add(&files.manifest, &text, &new)?;
                manifest = Manifest::parse(&files.manifest, &text)?;
                moved.push(new.name);
            }
            Err(report) => problems.push(report),
        }
    }
    if !problems.is_empty() {
        return Err(problems.into());
    }
    let stripped = if arguments.write {
        edit::strip_requires(&path, &config, &MOVED_KEYS)?
    } else {
        config.clone()
    };
    let mut changed = false;
    if !moved.is_empty() {
        let lock = relock(
            desk,
            &workshop,
            files,
            &text,
            project.lock.as_ref(),
            &|_| false,
        )
        .await?;
        changed = write_both(desk, files, &text, project.lock.as_ref(), &lock)?;
    }
    // Last: until here the config still says everything.
    if stripped != config {
        desk.disk
            .rewrite(&path, stripped.as_bytes(), 0o644)
            .map_err(|error| disk_failed(&error))?;
        changed = true;
    }
    if !changed {
        desk.ui.note("Nothing to migrate.".to_owned());
    }
    for name in stripped_of(arguments.write, &entries, &moved) {
        desk.ui.note(format!(
            "`{name}` is in `{}` already; its pin is out of `{}`.",
            files.manifest.display(),
            path.display()
        ));
    }
    for name in &moved {
        desk.ui
            .note(format!("`{name}` moved to `{}`.", files.manifest.display()));
    }
    if !arguments.write && entries.iter().any(has_pin) {
        desk.ui.note(format!(
            "The pins still stand in `{}` too; `--write` takes them out.",
            path.display()
        ));
    }
    let rows = moved.iter().map(|name| json!({ "name": name })).collect();
    Ok(desk.emit_plugins("migrate plugins", files, None, changed, rows, &[]))
}

/// Those whose pins were taken out of the config and not carried over, because the manifest has them.
fn stripped_of<'e>(
    is_written: bool,
    entries: &'e [Legacy],
    moved: &'e [String],
) -> impl Iterator<Item = &'e str> {
    entries
        .iter()
        .filter(move |entry| is_written && has_pin(entry) && !moved.contains(&entry.name))
        .map(|entry| entry.name.as_str())
}

fn has_pin(entry: &Legacy) -> bool {
    entry.version.is_some() || entry.source.is_some() || entry.auth_env.is_some()
}

/// The first thing that the config says of a plugin and the manifest does not: what it is, and what each of
/// them says.
fn disagreement(entry: &Legacy, there: &Wanted) -> Option<(&'static str, String, String)> {
    let shown = |text: &Option<String>| match text {
        None => "nothing".to_owned(),
        Some(text) => format!("`{text}`"),
    };
    let source = |text: &str| {
        Source::parse(text).map_or_else(|_| text.to_owned(), |source| source.to_string())
    };
    let (identity, asked) = match &entry.verify {
        Ok(identity) => (identity.clone(), None),
        Err(keys) => (None, Some(keys)),
    };
    if let Some(keys) = asked {
        return Some(("`verify`", format!("`{keys}`"), shown(&there.identity)));
    }
    [
        (
            "version",
            entry.version.clone(),
            Some(there.version.clone()),
        ),
        (
            "source",
            entry.source.as_deref().map(source),
            there.source.as_ref().map(ToString::to_string),
        ),
        ("`auth.env`", entry.auth_env.clone(), there.auth_env.clone()),
        ("`verify.identity`", identity, there.identity.clone()),
    ]
    .into_iter()
    .find(|(_, config, manifest)| config.is_some() && config != manifest)
    .map(|(what, config, manifest)| (what, shown(&config), shown(&manifest)))
}

/// The manifest's entry for one of the config's; `None` when there is nothing to carry over.
fn carry_over(entry: &Legacy, manifest: &Manifest) -> Result<Option<NewEntry>, Report> {
    let refuse = |why: String| {
        Report::error(
            "package/cannot-migrate",
            format!("`{}` cannot be carried over: {why}", entry.name),
        )
        .at(entry.at.clone())
        .exit(Exit::Usage)
    };
    if let Some(there) = manifest.get(&entry.name) {
        return match disagreement(entry, there) {
            None => Ok(None),
            Some((what, config, manifest)) => Err(refuse(format!(
                "its {what} is {config} in the config, and {manifest} in the manifest"
            ))
            .fix("make them agree, then run this again: what holds is not decided in silence")),
        };
    }
    if !has_pin(entry) {
        return Ok(None);
    }
    let identity = match &entry.verify {
        Ok(identity) => identity.clone(),
        Err(keys) => {
            return Err(refuse(format!(
                "`verify` asks for {keys}, which the manifest cannot say"
            ))
            .fix("decide what shall hold instead, and take it out: it is not dropped silently"));
        }
    };
    if !name::is_name(&entry.name) {
        return Err(refuse("this is no plugin name".to_owned()));
    }
    let version = entry
        .version
        .clone()
        .filter(|version| name::is_exact_version(version))
        .ok_or_else(|| refuse("it has no exact version".to_owned()))?;
    let source = entry
        .source
        .as_deref()
        .map(|source| Source::parse(source).map_err(&refuse))
        .transpose()?;
    Ok(Some(NewEntry {
        name: entry.name.clone(),
        version,
        source: source.map(|source| source.to_string()),
        auth_env: entry.auth_env.clone(),
        identity,
    }))
}
