//! Which executable a project trusts: the digests in `.wfctl-lock.yaml`, and in the older
//! `.wfctl.yaml`, above the config and above the folder we run in. `package::lockfile` reads both; here they are compared.
//!
//! A lock names archives for every platform (`platforms.<os>-<arch>.sha256`); what can be checked
//! at launch is the executable: `binary_sha256` of this platform, or `plugins.<name>.sha256` of an
//! older tool.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::find::Found;
use crate::disk::Disk;
use crate::package::lockfile::{self, DEFAULT_LOCK, Lock};
use crate::package::name::{folder, this_platform};
use crate::package::parts::Parts;
use crate::random::encode_hex;
use crate::report::Report;

const LOCK_BYTES_MAX: u64 = 16 * 1024 * 1024;
const EXECUTABLE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// What an older tool wrote.
const OLDER: &str = ".wfctl.yaml";
/// How far above a folder the files are looked for.
const PARENTS_MAX: usize = 3;

/// A digest an executable must have, and the file that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    sha256: String,
    /// Of the list of all its files, where the lock knows that.
    files_sha256: Option<String>,
    said_by: PathBuf,
}

fn unreadable(path: &Path, why: impl Iterator<Item = String>) -> Report {
    let report = Report::error(
        "plugin/lock-unreadable",
        format!("`{}` cannot be read", path.display()),
    );
    why.fold(report, Report::because)
        .because("no plugin is started while it is not known which one is trusted")
        .fix("restore the file, or make it anew with `tidegate plugin lock`")
}

/// A file's text, or `None` when there is no file.
fn text_of(disk: &dyn Disk, path: &Path) -> Result<Option<String>, Report> {
    match disk.read(path, LOCK_BYTES_MAX) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|error| unreadable(path, std::iter::once(error.to_string()))),
        // A link that leads nowhere is there all the same.
        Err(error) if error.is_not_found() && matches!(disk.entry(path), Ok(None)) => Ok(None),
        Err(error) => Err(unreadable(path, std::iter::once(error.to_string()))),
    }
}

/// The files of that name a project may mean: the nearest one above the config, and the nearest one above
/// the folder we run in, where plugins are installed and locked. What both say holds.
fn files(disk: &dyn Disk, base: &Path, name: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for start in [base, Path::new(".")] {
        // Absolute, or there would be no parents.
        let absolute = disk
            .canonical(start)
            .unwrap_or_else(|_| start.to_path_buf());
        let nearest = absolute
            .ancestors()
            .take(PARENTS_MAX + 1)
            .map(|folder| folder.join(name))
            .find(|path| matches!(disk.entry(path), Ok(Some(_))));
        files.extend(nearest.filter(|path| !files.contains(path)));
    }
    files
}

/// The project's locks, and where each stands.
fn locks(disk: &dyn Disk, base: &Path) -> Result<Vec<(PathBuf, Lock)>, Report> {
    let mut locks = Vec::new();
    for path in files(disk, base, DEFAULT_LOCK) {
        if let Some(text) = text_of(disk, &path)? {
            let lock = Lock::read(&path, &text).map_err(|problems| {
                unreadable(&path, problems.into_iter().map(|report| report.message))
            })?;
            locks.push((path, lock));
        }
    }
    Ok(locks)
}

/// The lock of the project that says which plugins are trusted and does not name this one; `None` when it
/// names it, and when there is no lock that names any.
pub fn passed_over(
    disk: &dyn Disk,
    base: &Path,
    plugin: &Found,
) -> Result<Option<PathBuf>, Report> {
    let names = [plugin.name.as_str(), plugin.manifest.name.as_str()];
    let mut passed_over = None;
    for (path, lock) in locks(disk, base)? {
        if names.iter().any(|name| lock.get(name).is_some()) {
            return Ok(None);
        }
        if !lock.plugins.is_empty() {
            passed_over.get_or_insert(path);
        }
    }
    Ok(passed_over)
}

/// Plugins that the project's locks pin and `installed` does not have.
pub fn missing(disk: &dyn Disk, base: &Path, installed: &[String]) -> Result<Vec<String>, Report> {
    let mut missing = Vec::new();
    for (_, lock) in locks(disk, base)? {
        missing.extend(
            lock.plugins
                .keys()
                .filter(|name| !installed.iter().any(|one| folder(one) == folder(name)))
                .cloned(),
        );
    }
    missing.sort_unstable();
    missing.dedup();
    Ok(missing)
}

/// Every digest that is written down for a plugin.
pub fn pins(disk: &dyn Disk, base: &Path, plugin: &Found) -> Result<Vec<Pin>, Report> {
    let refused = |path: &Path, problems: Vec<Report>| {
        unreadable(path, problems.into_iter().map(|report| report.message))
    };
    let names = [plugin.name.as_str(), plugin.manifest.name.as_str()];
    let mut pins = Vec::new();
    let mut pin = |sha256: Option<&str>, files_sha256: Option<&str>, said_by: PathBuf| {
        pins.extend(sha256.map(|sha256| Pin {
            sha256: sha256.to_owned(),
            files_sha256: files_sha256.map(str::to_owned),
            said_by,
        }));
    };
    let here = this_platform();
    for path in files(disk, base, DEFAULT_LOCK) {
        if let Some(text) = text_of(disk, &path)? {
            let lock = Lock::read(&path, &text).map_err(|problems| refused(&path, problems))?;
            let found = names
                .iter()
                .find_map(|name| lock.binary_sha256(name, &here));
            let files = names.iter().find_map(|name| lock.files_sha256(name, &here));
            pin(found, files, path);
        }
    }
    for path in files(disk, base, OLDER) {
        if let Some(text) = text_of(disk, &path)? {
            let digests = lockfile::older_digests(&path, &text)
                .map_err(|problems| refused(&path, problems))?;
            let found = names.iter().find_map(|name| digests.get(*name));
            pin(found.map(String::as_str), None, path);
        }
    }
    Ok(pins)
}

/// Refuses an executable that is not the one every pin names.
pub fn check(disk: &dyn Disk, pins: &[Pin], plugin: &str, executable: &Path) -> Result<(), Report> {
    if pins.is_empty() {
        return Ok(());
    }
    let bytes = disk
        .read(executable, EXECUTABLE_BYTES_MAX)
        .map_err(|error| {
            Report::error(
                "plugin/no-executable",
                format!("the executable of plugin `{plugin}` cannot be read"),
            )
            .caused_by(&error)
        })?;
    let digest = encode_hex(&Sha256::digest(&bytes));
    for pin in pins {
        if !pin.sha256.eq_ignore_ascii_case(&digest) {
            return Err(Report::error(
                "plugin/digest-mismatch",
                format!("the executable of plugin `{plugin}` is not the locked one"),
            )
            .because(format!(
                "`{}` says sha256 {}, the file has {digest}",
                pin.said_by.display(),
                pin.sha256
            ))
            .fix("install it again with `tidegate plugin install`")
            .fix("if the change is meant, lock it with `tidegate plugin lock`"));
        }
    }
    Ok(())
}

/// True for a pinned executable that an interpreter runs.
pub fn is_script(disk: &dyn Disk, pins: &[Pin], executable: &Path) -> bool {
    !pins.is_empty()
        && disk
            .head(executable, 2)
            .is_ok_and(|bytes| bytes.starts_with(b"#!"))
}

/// Refuses a plugin of which another file is not the one that was locked: what stands beside an
/// executable may be as good as it.
pub fn check_files(disk: &dyn Disk, pins: &[Pin], plugin: &Found) -> Result<(), Report> {
    let locked: Vec<(&Pin, &String)> = pins
        .iter()
        .filter_map(|pin| Some((pin, pin.files_sha256.as_ref()?)))
        .collect();
    if locked.is_empty() {
        return Ok(());
    }
    // The executable is compared by itself, and its running image too.
    let parts = Parts::look(disk, &plugin.directory, &[])?;
    let Some((pin, _)) = locked.iter().find(|(_, sha256)| !parts.are(sha256)) else {
        return Ok(());
    };
    let why = if parts.changed.is_empty() {
        "the list of its files is not there, or not the locked one".to_owned()
    } else {
        format!("changed: {}", parts.changed.join(", "))
    };
    Err(Report::error(
        "plugin/digest-mismatch",
        format!(
            "the files of plugin `{}` are not the locked ones",
            plugin.name
        ),
    )
    .because(why)
    .because(format!("`{}` says what they are", pin.said_by.display()))
    .fix("install it again with `tidegate plugin install`")
    .fix("if the change is meant, lock it with `tidegate plugin lock`"))
}
