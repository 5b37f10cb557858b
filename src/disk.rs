//! Files, passed in. Nobody else opens, writes or removes one, so every I/O error names its path
//! and operation, and tests can make any single call fail.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A failed file operation: what, which path, why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} `{}`: {source}", path.display())]
pub struct DiskError {
    /// The operation as a verb phrase: `read`, `write`, `rename`, …
    pub operation: &'static str,
    /// The path it was about.
    pub path: PathBuf,
    /// The operating system's answer.
    pub source: io::Error,
}

impl DiskError {
    /// True when the file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// True when a create-only write found the file already there.
    pub fn is_already_exists(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }
}

/// Result of a file operation.
pub type DiskResult<T> = Result<T, DiskError>;

/// What stands at a path. Links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file of this many bytes.
    File {
        /// Size in bytes.
        bytes: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link, socket, device or pipe.
    Other,
}

/// An exclusive advisory lock on a file, held until dropped (or until the process dies).
pub trait FileLock: Send + Sync + fmt::Debug {}

/// Primitive file operations. [`DiskExt`] builds the safe compounds on top of them.
pub trait Disk: Send + Sync + fmt::Debug {
    /// What stands at `path`; `None` for nothing.
    fn entry(&self, path: &Path) -> DiskResult<Option<EntryKind>>;
    /// Reads a whole file; one larger than `limit_bytes` is an error, never a cut.
    fn read(&self, path: &Path, limit_bytes: u64) -> DiskResult<Vec<u8>>;
    /// Names in a directory, sorted bytewise. Names that are not UTF-8 are an error.
    fn list(&self, directory: &Path) -> DiskResult<Vec<String>>;
    /// Creates a directory and its missing parents, each with `mode`.
    fn create_directories(&self, directory: &Path, mode: u32) -> DiskResult<()>;
    /// Creates a file that must not exist (no link is followed), writes `bytes`, and makes them
    /// durable.
    fn create_new(&self, path: &Path, bytes: &[u8], mode: u32) -> DiskResult<()>;
    /// Appends `bytes` with one write, creating the file with `mode` when absent; durable when
    /// `sync`.
    fn append(&self, path: &Path, bytes: &[u8], mode: u32, sync: bool) -> DiskResult<()>;
    /// Renames over whatever stands at `to`.
    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()>;
    /// Makes a directory's entries durable.
    fn sync_directory(&self, directory: &Path) -> DiskResult<()>;
    /// Removes a file; absent is success.
    fn remove_file(&self, path: &Path) -> DiskResult<()>;
    /// Removes a directory and all in it, without following links; absent is success.
    fn remove_tree(&self, directory: &Path) -> DiskResult<()>;
    /// Removes a directory if it is empty; anything else is left alone.
    fn remove_if_empty(&self, directory: &Path) -> DiskResult<()>;
    /// Takes the advisory lock of a file (created with mode 0600 when absent) without waiting;
    /// `None` when another process holds it.
    fn try_lock(&self, path: &Path) -> DiskResult<Option<Box<dyn FileLock>>>;
    /// The path with links and `..` resolved; it must exist.
    fn canonical(&self, path: &Path) -> DiskResult<PathBuf>;
}

/// Compounds every implementation shares.
pub trait DiskExt: Disk {
    /// Replaces a file in one step: temporary file beside it, fsync, rename, fsync of the
    /// directory. A reader sees the old bytes or the new ones, whole.
    fn write_atomic(&self, path: &Path, bytes: &[u8], mode: u32) -> DiskResult<()> {
        let directory = path.parent().unwrap_or_else(|| Path::new("."));
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let temporary = directory.join(format!(".{name}.{}.tmp", std::process::id()));
        self.remove_file(&temporary)?;
        let written = self
            .create_new(&temporary, bytes, mode)
            .and_then(|()| self.rename(&temporary, path));
        if let Err(error) = written {
            // The original error matters more than a leftover, which the next write removes.
            drop(self.remove_file(&temporary));
            return Err(error);
        }
        self.sync_directory(directory)
    }
}

impl<D: Disk + ?Sized> DiskExt for D {}

/// Shared handle to a disk.
pub type SharedDisk = Arc<dyn Disk>;

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_path_buf();
    move |source| DiskError {
        operation,
        path,
        source,
    }
}

#[derive(Debug)]
struct SystemLock(#[expect(dead_code, reason = "held for its drop")] std::fs::File);

impl FileLock for SystemLock {}

#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this type is the one owner of the machine's files"
)]
mod system {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

    use super::*;

    impl Disk for SystemDisk {
        fn entry(&self, path: &Path) -> DiskResult<Option<EntryKind>> {
            match fs::symlink_metadata(path) {
                Ok(data) if data.is_file() => Ok(Some(EntryKind::File { bytes: data.len() })),
                Ok(data) if data.is_dir() => Ok(Some(EntryKind::Directory)),
                Ok(_) => Ok(Some(EntryKind::Other)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed("look at", path)(error)),
            }
        }

        fn read(&self, path: &Path, limit_bytes: u64) -> DiskResult<Vec<u8>> {
            let file = fs::File::open(path).map_err(failed("read", path))?;
            let mut bytes = Vec::new();
            file.take(limit_bytes.saturating_add(1))
                .read_to_end(&mut bytes)
                .map_err(failed("read", path))?;
            if bytes.len() as u64 > limit_bytes {
                return Err(failed("read", path)(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("it is larger than the limit of {limit_bytes} bytes"),
                )));
            }
            Ok(bytes)
        }

        fn list(&self, directory: &Path) -> DiskResult<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(directory).map_err(failed("list", directory))? {
                let name = entry.map_err(failed("list", directory))?.file_name();
                names.push(name.into_string().map_err(|name| {
                    failed("list", directory)(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("the name {name:?} in it is not UTF-8"),
                    ))
                })?);
            }
            names.sort_unstable();
            Ok(names)
        }

        fn create_directories(&self, directory: &Path, mode: u32) -> DiskResult<()> {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(directory)
                .map_err(failed("create the directory", directory))
        }

        fn create_new(&self, path: &Path, bytes: &[u8], mode: u32) -> DiskResult<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(path)
                .map_err(failed("create", path))?;
            file.write_all(bytes).map_err(failed("write", path))?;
            file.sync_all().map_err(failed("flush", path))
        }

        fn append(&self, path: &Path, bytes: &[u8], mode: u32, sync: bool) -> DiskResult<()> {
            let mut file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(mode)
                .open(path)
                .map_err(failed("append to", path))?;
            file.write_all(bytes).map_err(failed("append to", path))?;
            if sync {
                file.sync_data().map_err(failed("flush", path))?;
            }
            Ok(())
        }

        fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
            fs::rename(from, to).map_err(failed("replace", to))
        }

        fn sync_directory(&self, directory: &Path) -> DiskResult<()> {
            let directory = if directory.as_os_str().is_empty() {
                Path::new(".")
            } else {
                directory
            };
            fs::File::open(directory)
                .and_then(|handle| handle.sync_all())
                .map_err(failed("flush the directory", directory))
        }

        fn remove_file(&self, path: &Path) -> DiskResult<()> {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(failed("remove", path)(error))
                }
                _ => Ok(()),
            }
        }

        fn remove_tree(&self, directory: &Path) -> DiskResult<()> {
            match fs::remove_dir_all(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(failed("remove the directory", directory)(error))
                }
                _ => Ok(()),
            }
        }

        fn remove_if_empty(&self, directory: &Path) -> DiskResult<()> {
            match fs::remove_dir(directory) {
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                    ) =>
                {
                    Err(failed("remove the directory", directory)(error))
                }
                _ => Ok(()),
            }
        }

        fn try_lock(&self, path: &Path) -> DiskResult<Option<Box<dyn FileLock>>> {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .map_err(failed("lock", path))?;
            match file.try_lock() {
                Ok(()) => Ok(Some(Box::new(SystemLock(file)))),
                Err(fs::TryLockError::WouldBlock) => Ok(None),
                Err(fs::TryLockError::Error(error)) => Err(failed("lock", path)(error)),
            }
        }

        fn canonical(&self, path: &Path) -> DiskResult<PathBuf> {
            fs::canonicalize(path).map_err(failed("find", path))
        }
    }
}
