//! Which executable a project trusts: the digests in `.wfctl-lock.yaml` beside the config, and in
//! the older `.wfctl.yaml`. Read only; `plugin lock` writes them.
//!
//! A lock names archives for every platform (`platforms.<os>-<arch>.sha256`); what can be checked
//! at launch is the executable, so that is what is looked for here: `plugins.<name>.sha256`, or
//! `binary_sha256` of this platform, which wins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::find::Found;
use crate::disk::Disk;
use crate::package::name::this_platform;
use crate::random::encode_hex;
use crate::report::Report;

const LOCK_BYTES_MAX: u64 = 16 * 1024 * 1024;
const EXECUTABLE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// How far above the config the older file is looked for.
const PARENTS_MAX: usize = 3;

#[derive(Debug, Default, Deserialize)]
struct Lock {
    #[serde(default)]
    plugins: BTreeMap<String, Entry>,
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    platforms: BTreeMap<String, Platform>,
}

#[derive(Debug, Default, Deserialize)]
struct Platform {
    #[serde(default)]
    binary_sha256: Option<String>,
}

/// A digest an executable must have, and the file that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    sha256: String,
    said_by: PathBuf,
}

fn unreadable(path: &Path, why: &dyn std::error::Error) -> Report {
    Report::error(
        "plugin/lock-unreadable",
        format!("`{}` cannot be read", path.display()),
    )
    .caused_by(why)
    .because("no plugin is started while it is not known which one is trusted")
    .fix("restore the file, or make it anew with `tidegate plugin lock`")
}

/// Every digest that is written down for a plugin.
pub fn pins(disk: &dyn Disk, base: &Path, plugin: &Found) -> Result<Vec<Pin>, Report> {
    let mut files = vec![base.join(".wfctl-lock.yaml")];
    // Absolute, or there would be no parents.
    let absolute = disk.canonical(base).unwrap_or_else(|_| base.to_path_buf());
    let older = absolute
        .ancestors()
        .take(PARENTS_MAX + 1)
        .map(|folder| folder.join(".wfctl.yaml"))
        .find(|path| matches!(disk.entry(path), Ok(Some(_))));
    files.extend(older);
    let mut pins = Vec::new();
    for path in files {
        let bytes = match disk.read(&path, LOCK_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let lock: Option<Lock> =
            serde_yaml::from_slice(&bytes).map_err(|error| unreadable(&path, &error))?;
        let entries = lock.unwrap_or_default().plugins;
        let Some(entry) = entries
            .get(&plugin.name)
            .or_else(|| entries.get(&plugin.manifest.name))
        else {
            continue;
        };
        let here = entry
            .platforms
            .get(&this_platform())
            .and_then(|platform| platform.binary_sha256.as_ref())
            .or(entry.sha256.as_ref());
        if let Some(sha256) = here.filter(|sha256| !sha256.is_empty()) {
            pins.push(Pin {
                sha256: sha256.clone(),
                said_by: path,
            });
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
