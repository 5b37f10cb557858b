//! From the name of a provider to the folder of the plugin that serves it.

use std::path::{Path, PathBuf};

use super::lock;
use crate::disk::{Disk, EntryKind};
use crate::package::descriptor::{self, Descriptor};
use crate::report::{Exit, Report};

/// A plugin on disk.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its folder, absolute.
    pub directory: PathBuf,
    /// The folder's name, which is also the executable's.
    pub name: String,
    /// Its checked manifest.
    pub manifest: Descriptor,
}

impl Found {
    /// The executable.
    pub fn executable(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

/// The plugin that comes with every release, and stands beside our own executable.
pub const BUNDLED: &str = "tidegate-plugin-cloud";
/// What it says about itself. Built in: beside an executable there is no folder for a `plugin.json`.
const BUNDLED_MANIFEST: &[u8] = include_bytes!("../../../crates/tidegate-plugin-cloud/plugin.json");

/// The release's own plugin, if it stands in `folder`, that of our executable.
pub fn bundled(disk: &dyn Disk, folder: &Path) -> Option<Found> {
    let directory = disk.canonical(folder).ok()?;
    match disk.entry(&directory.join(BUNDLED)) {
        Ok(Some(EntryKind::File { .. })) => {}
        _ => return None,
    }
    let manifest = Descriptor::parse(BUNDLED_MANIFEST).ok()?;
    Some(Found {
        directory,
        name: BUNDLED.to_owned(),
        manifest,
    })
}

/// One entry of a plugin folder that is no plugin we can use, and why.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// The entry's name.
    pub name: String,
    /// Why, one clause.
    pub why: String,
    /// The provider that a refused `plugin.json` speaks of, as far as that can be told.
    pub provider: Option<String>,
    /// There is a `plugin.json`, and it is refused.
    pub is_refused: bool,
}

impl Skipped {
    /// True for what would be the plugin of this provider, were it right.
    fn is_meant_for(&self, wanted: &str) -> bool {
        self.is_refused
            && match &self.provider {
                Some(name) => name == wanted,
                None => self.name == wanted,
            }
    }
}

/// Every plugin in a folder, in the order of their names. A folder that is not there has none.
pub fn list(disk: &dyn Disk, folder: &Path) -> Result<(Vec<Found>, Vec<Skipped>), Report> {
    let broken = |error: crate::disk::DiskError| {
        Report::error("plugin/folder", "the plugin folder cannot be read")
            .caused_by(&error)
            .exit(Exit::Usage)
    };
    let mut found = Vec::new();
    let mut skipped = Vec::new();
    let folder = match disk.canonical(folder) {
        Ok(folder) => folder,
        Err(error) if error.is_not_found() => return Ok((found, skipped)),
        Err(error) => return Err(broken(error)),
    };
    for name in disk.list(&folder).map_err(broken)? {
        // On its way in or out.
        if name.starts_with('.') {
            continue;
        }
        let directory = folder.join(&name);
        let mut skip = |why: &str| {
            skipped.push(Skipped {
                name: name.clone(),
                why: why.to_owned(),
                provider: None,
                is_refused: false,
            });
        };
        match disk.entry(&directory) {
            Ok(Some(EntryKind::Directory)) => {}
            // A link could lead anywhere, and hosts that exist skip it too.
            Ok(Some(EntryKind::Other)) => {
                skip("it is a link, which is never followed");
                continue;
            }
            _ => continue,
        }
        match read_manifest(disk, &directory) {
            Ok(Some(manifest)) => found.push(Found {
                directory,
                name,
                manifest,
            }),
            Ok(None) => {}
            Err(refused) => skipped.push(Skipped { name, ..refused }),
        }
    }
    Ok((found, skipped))
}

fn read_manifest(disk: &dyn Disk, directory: &Path) -> Result<Option<Descriptor>, Skipped> {
    let path = directory.join("plugin.json");
    let refused = |why: String, bytes: &[u8]| Skipped {
        name: String::new(),
        why,
        provider: provider_in(bytes),
        is_refused: true,
    };
    match disk.entry(&path) {
        Ok(Some(EntryKind::File { .. })) => {}
        Ok(None) => return Ok(None),
        Ok(Some(_)) => return Err(refused("its plugin.json is not a file".to_owned(), &[])),
        Err(error) => return Err(refused(error.to_string(), &[])),
    }
    let bytes = disk
        .read(&path, descriptor::BYTES_MAX)
        .map_err(|error| refused(error.to_string(), &[]))?;
    Descriptor::parse(&bytes)
        .map(Some)
        .map_err(|error| refused(format!("its plugin.json is refused: {error}"), &bytes))
}

/// The provider that a manifest names, whatever else is wrong with it.
fn provider_in(manifest: &[u8]) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).ok()?;
    let name = manifest.pointer("/capabilities/iacProvider/name")?;
    name.as_str().map(str::to_owned)
}

/// The plugin is there and cannot be used as it is.
fn refused(skipped: &Skipped, folder: &Path) -> Report {
    Report::error(
        "plugin/manifest",
        format!("the plugin `{}` is refused", skipped.name),
    )
    .because(skipped.why.clone())
    .because(format!(
        "it is in `{}`",
        folder.join(&skipped.name).display()
    ))
    .fix("install a release of it whose plugin.json is right")
    .fix("if it is your own, `docs/plugins.md` says what its plugin.json holds")
    .exit(Exit::Usage)
}

fn not_locked(plugin: &Found, lock: &Path) -> Report {
    Report::warning(
        "plugin/not-locked",
        format!(
            "the plugin `{}` is started, and no lock pins it",
            plugin.name
        ),
    )
    .because(format!(
        "`{}` says which plugins are trusted, and does not name it",
        lock.display()
    ))
    .fix("pin it: `tidegate plugin add NAME@VERSION --source SOURCE`")
    .fix(format!(
        "if nobody put it there on purpose, remove `{}`",
        plugin.directory.display()
    ))
}

fn several(plugin: &Found, wanted: &str, names: &[String]) -> Report {
    Report::warning(
        "plugin/provider-twice",
        format!(
            "several plugins say that they are the provider `{wanted}`; `{}` is taken",
            plugin.name
        ),
    )
    .because(format!("they are {}", names.join(", ")))
    .fix("remove those that are not meant")
}

/// The plugin whose manifest says it is the provider `wanted`: the one that the project's lock names, else
/// the first. And what is to be said about the choice.
pub fn provider(
    disk: &dyn Disk,
    folder: &Path,
    base: &Path,
    wanted: &str,
) -> Result<(Found, Vec<Report>), Report> {
    let (found, skipped) = list(disk, folder)?;
    let mut seen: Vec<String> = Vec::new();
    let meant = skipped.iter().find(|skipped| skipped.is_meant_for(wanted));
    let mut able: Vec<(Found, Option<PathBuf>)> = Vec::new();
    let mut installed: Vec<String> = Vec::new();
    for plugin in found {
        installed.extend([plugin.name.clone(), plugin.manifest.name.clone()]);
        match &plugin.manifest.provider {
            Some(name) if name == wanted => {
                let passed_over = lock::passed_over(disk, base, &plugin)?;
                able.push((plugin, passed_over));
            }
            Some(name) => seen.push(format!("`{}` (provider {name})", plugin.name)),
            None => seen.push(format!("`{}` (no provider)", plugin.name)),
        }
    }
    // What somebody reviewed comes before what happens to stand first.
    let names: Vec<String> = able
        .iter()
        .map(|(one, _)| format!("`{}`", one.name))
        .collect();
    let best = able
        .iter()
        .position(|(_, passed_over)| passed_over.is_none())
        .unwrap_or(0);
    if best < able.len() {
        let (chosen, passed_over) = able.swap_remove(best);
        // One that stands before it and is refused is not passed over in silence.
        if let Some(meant) = meant.filter(|meant| meant.name < chosen.name) {
            return Err(refused(meant, folder));
        }
        let mut warnings = Vec::new();
        if let Some(lock) = passed_over {
            warnings.push(not_locked(&chosen, &lock));
        } else if names.len() > 1 {
            warnings.push(several(&chosen, wanted, &names));
        }
        return Ok((chosen, warnings));
    }
    if let Some(meant) = meant {
        return Err(refused(meant, folder));
    }
    let mut report = Report::error(
        "plugin/not-found",
        format!("no plugin serves the provider `{wanted}`"),
    )
    .because(if seen.is_empty() {
        format!("there is no plugin in `{}`", folder.display())
    } else {
        format!("in `{}`: {}", folder.display(), seen.join(", "))
    })
    .exit(Exit::Usage);
    for skipped in skipped {
        report = report.because(format!("`{}` is left out: {}", skipped.name, skipped.why));
    }
    let missing = lock::missing(disk, base, &installed)?;
    if !missing.is_empty() {
        report = report
            .because(format!("not installed, but locked: {}", missing.join(", ")))
            .fix("install what the lock pins: `tidegate plugin install`");
    }
    Err(report
        .fix("install the plugin, as `<folder>/<name>/<name>` with its `plugin.json` beside it")
        .fix("name another folder with --plugin-dir or TIDEGATE_PLUGIN_DIR")
        .fix("built in is `local`"))
}
