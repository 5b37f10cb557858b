//! Archives by their digest, kept between runs. A name in it is a promise nobody trusts: bytes are
//! hashed each time they are taken out, and bytes that do not fit are thrown away.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::archive::ARCHIVE_BYTES_MAX;
use super::hex;
use crate::disk::{Disk, DiskExt as _, DiskResult, EntryKind};
use crate::report::{Exit, Report};
use crate::variables::Variables;

/// What a half-fetched archive was answered from, kept beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// The URL that was asked for.
    pub url: String,
    /// Its strong `ETag`, or its `Last-Modified`.
    pub validator: String,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The folder as the environment describes it: the runner's tool cache, else the user's.
    pub fn from_variables(variables: &Variables) -> Result<Self, Report> {
        let folder = if let Some(tools) = variables.non_empty("RUNNER_TOOL_CACHE") {
            Path::new(tools).join("tidegate").join("packages")
        } else if let Some(cache) = variables.non_empty("XDG_CACHE_HOME") {
            Path::new(cache).join("tidegate").join("packages")
        } else if let Some(home) = variables.non_empty("HOME") {
            Path::new(home)
                .join(".cache")
                .join("tidegate")
                .join("packages")
        } else {
            return Err(Report::error(
                "package/no-cache",
                "there is no place for the package cache",
            )
            .because("none of `RUNNER_TOOL_CACHE`, `XDG_CACHE_HOME` and `HOME` is set")
            .fix("set `XDG_CACHE_HOME` to a folder that may be written")
            .exit(Exit::Usage));
        };
        Ok(Self { folder })
    }

    /// A cache in this folder.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Makes the folders.
    pub fn prepare(&self, disk: &dyn Disk) -> DiskResult<()> {
        for part in ["sha256", "partial", "locks"] {
            disk.create_directories(&self.folder.join(part), 0o700)?;
        }
        Ok(())
    }

    /// The archive with this digest, if it is there and still whole. One that is not is removed.
    pub fn take(&self, disk: &dyn Disk, sha256: &str) -> DiskResult<Option<Vec<u8>>> {
        let path = self.entry(sha256);
        match disk.entry(&path)? {
            None => return Ok(None),
            Some(EntryKind::File { bytes }) if bytes <= ARCHIVE_BYTES_MAX => {
                let bytes = disk.read(&path, ARCHIVE_BYTES_MAX)?;
                if digest_of(&bytes) == sha256 {
                    return Ok(Some(bytes));
                }
            }
            Some(_) => {}
        }
        disk.remove_file(&path)?;
        Ok(None)
    }

    /// Keeps bytes that have this digest (the caller has just compared it). Not flushed to the
    /// medium: what a power cut leaves is found out when it is taken.
    pub fn keep(&self, disk: &dyn Disk, sha256: &str) -> DiskResult<()> {
        disk.rename(&self.partial(sha256), &self.entry(sha256))?;
        disk.remove_file(&self.origin(sha256))
    }

    /// Where an archive that is still coming is written.
    pub fn partial(&self, key: &str) -> PathBuf {
        self.folder.join("partial").join(format!("{key}.part"))
    }

    /// The advisory lock of one archive that is being fetched.
    pub fn fetch_lock(&self, key: &str) -> PathBuf {
        self.folder.join("locks").join(format!("{key}.lock"))
    }

    /// The advisory lock of a project's manifest and lock.
    pub fn project_lock(&self, manifest: &Path) -> PathBuf {
        let key = digest_of(manifest.to_string_lossy().as_bytes());
        self.folder
            .join("locks")
            .join(format!("project-{key}.lock"))
    }

    /// How much of an archive is there already, and what it was answered from. Without the latter
    /// it is as if nothing were there.
    pub fn resume(
        &self,
        disk: &dyn Disk,
        key: &str,
        url: &str,
    ) -> DiskResult<(u64, Option<Origin>)> {
        let partial = self.partial(key);
        let Some(EntryKind::File { bytes }) = disk.entry(&partial)? else {
            return Ok((0, None));
        };
        let origin = disk
            .read(&self.origin(key), 16 << 10)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Origin>(&bytes).ok())
            .filter(|origin| origin.url == url && !origin.validator.is_empty());
        match origin {
            Some(origin) if bytes > 0 && bytes < ARCHIVE_BYTES_MAX => Ok((bytes, Some(origin))),
            _ => {
                self.drop_partial(disk, key)?;
                Ok((0, None))
            }
        }
    }

    /// Remembers what a new partial file is answered from.
    pub fn begin(&self, disk: &dyn Disk, key: &str, origin: &Origin) -> DiskResult<()> {
        self.drop_partial(disk, key)?;
        let bytes = serde_json::to_vec(origin).unwrap_or_default();
        disk.write_atomic(&self.origin(key), &bytes, 0o600)
    }

    /// Forgets a partial file.
    pub fn drop_partial(&self, disk: &dyn Disk, key: &str) -> DiskResult<()> {
        disk.remove_file(&self.partial(key))?;
        disk.remove_file(&self.origin(key))
    }

    fn entry(&self, sha256: &str) -> PathBuf {
        self.folder.join("sha256").join(sha256)
    }

    fn origin(&self, key: &str) -> PathBuf {
        self.folder.join("partial").join(format!("{key}.json"))
    }
}

/// SHA-256, lower-case hexadecimal.
pub fn digest_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
