//! Copies of what is about to be replaced, in one folder beside the config. A copy is for the day on
//! which nothing else is left, so no copy is ever written over another one: configs of one folder,
//! stores of one config and lives of one environment all keep theirs side by side.

use std::path::{Path, PathBuf};

use super::Desk;
use crate::clock::rfc3339;
use crate::config::Config;
use crate::disk::{Disk, DiskError, DiskExt as _};
use crate::state::name;

/// Folder of copies, beside the config.
const BACKUPS: &str = ".tidegate/backups";

/// Where the key of a copy is kept.
pub(super) fn key_beside(copy: &Path) -> PathBuf {
    let mut path = copy.as_os_str().to_owned();
    path.push(".key");
    path.into()
}

impl Desk {
    /// Keeps `bytes` under a name made of the time and `what`, and of a number where that name, or
    /// that of a key beside it, is taken. Answers where.
    pub(super) fn keep_copy(
        &self,
        config: &Config,
        what: &str,
        bytes: &[u8],
    ) -> Result<PathBuf, DiskError> {
        let all = config.directory.join(BACKUPS);
        let at = rfc3339(self.clock.now()).replace(['-', ':'], "");
        let stem = format!("{at}-{what}");
        keep(self.disk.as_ref(), &all, &config.environment, &stem, bytes)
    }
}

fn keep(
    disk: &dyn Disk,
    all: &Path,
    environment: &str,
    stem: &str,
    bytes: &[u8],
) -> Result<PathBuf, DiskError> {
    let folder = all.join(name::encode(environment));
    disk.create_directories(&folder, 0o700)?;
    let ignore = all.join(".gitignore");
    if disk.entry(&ignore)?.is_none() {
        disk.write_atomic(&ignore, b"*\n", 0o600)?;
    }
    let mut number = 1_u64;
    loop {
        let again = match number {
            1 => String::new(),
            number => format!(".{number}"),
        };
        let path = folder.join(format!("{stem}{again}.json"));
        number += 1;
        // A key that lost its copy is somebody's last key, too.
        if disk.entry(&key_beside(&path))?.is_some() {
            continue;
        }
        match disk.create_new(&path, bytes, 0o600) {
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
            Ok(()) => {
                disk.sync_directory(&folder)?;
                return Ok(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SystemDisk;

    #[test]
    fn no_copy_takes_the_place_of_another_or_of_its_key() {
        let lab = tempfile::tempdir().unwrap();
        let kept = |bytes: &[u8]| keep(&SystemDisk, lab.path(), "dev", "at-what", bytes).unwrap();
        let first = kept(b"one");
        SystemDisk
            .write_atomic(&key_beside(&first), b"key", 0o600)
            .unwrap();
        let second = kept(b"two");
        SystemDisk.remove_file(&first).unwrap();
        let third = kept(b"three");
        let read = |path: &Path| SystemDisk.read(path, 100).unwrap();
        assert_eq!(
            (read(&second), read(&third)),
            (b"two".into(), b"three".into())
        );
        assert!(
            third != first && third != second,
            "the key of the first is still there"
        );
        assert_eq!(read(&key_beside(&first)), b"key");
        assert_eq!(read(&lab.path().join(".gitignore")), b"*\n");
    }
}
