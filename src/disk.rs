//! Files, passed in. Nobody else opens, writes or removes one, so every I/O error names its path
//! and operation, and tests can make any single call fail.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

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
pub trait FileLock: Send + Sync + fmt::Debug {
    /// True while the path that was locked still leads to the locked file: not after it, or the folder
    /// it is in, was taken away or replaced.
    fn is_in_place(&self) -> bool;
}

/// Primitive file operations. [`DiskExt`] builds the safe compounds on top of them.
pub trait Disk: Send + Sync + fmt::Debug {
    /// What stands at `path`; `None` for nothing.
    fn entry(&self, path: &Path) -> DiskResult<Option<EntryKind>>;
    /// Reads a whole file; one larger than `limit_bytes` is an error, never a cut.
    fn read(&self, path: &Path, limit_bytes: u64) -> DiskResult<Vec<u8>>;
    /// The first bytes of a file, at most `bytes` of them.
    fn head(&self, path: &Path, bytes: usize) -> DiskResult<Vec<u8>> {
        let mut all = self.read(path, u64::MAX)?;
        all.truncate(bytes);
        Ok(all)
    }
    /// Reads whole files of one directory, in the given order, as [`Disk::read`] reads one, and hands
    /// each to `take`, which answers whether to go on. For many small ones: an implementation may
    /// have a shorter way than one path after the other.
    fn read_each(
        &self,
        directory: &Path,
        names: &[String],
        limit_bytes: u64,
        take: &mut dyn FnMut(&str, DiskResult<&[u8]>) -> bool,
    ) {
        for name in names {
            let goes_on = match self.read(&directory.join(name), limit_bytes) {
                Ok(bytes) => take(name, Ok(&bytes)),
                Err(error) => take(name, Err(error)),
            };
            if !goes_on {
                return;
            }
        }
    }
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
    /// Lets two directories change places in one step; nobody ever sees only one of them, or
    /// neither. `Unsupported` where the file system cannot.
    fn exchange(&self, a: &Path, b: &Path) -> DiskResult<()> {
        let _ = b;
        Err(failed("exchange", a)(io::ErrorKind::Unsupported.into()))
    }
    /// Gives a file a second name, which must not exist; its bytes are not copied. `Unsupported`
    /// where the file system cannot.
    fn link(&self, from: &Path, to: &Path) -> DiskResult<()> {
        let _ = from;
        Err(failed("link", to)(io::ErrorKind::Unsupported.into()))
    }
    /// Makes a directory's entries durable.
    fn sync_directory(&self, directory: &Path) -> DiskResult<()>;
    /// Removes a file; absent is success.
    fn remove_file(&self, path: &Path) -> DiskResult<()>;
    /// Removes a directory and all in it, without following links; absent is success.
    fn remove_tree(&self, directory: &Path) -> DiskResult<()>;
    /// Removes a directory if it is empty; anything else is left alone.
    fn remove_if_empty(&self, directory: &Path) -> DiskResult<()>;
    /// Takes the advisory lock of a file (created with mode 0600 when absent) without waiting;
    /// `None` when it is held already, by another process or by this one. The lock is on the file
    /// that stands at `path` when this returns: one that was removed meanwhile locks nothing.
    fn try_lock(&self, path: &Path) -> DiskResult<Option<Box<dyn FileLock>>>;
    /// Takes the advisory lock of a folder without waiting; `None` when it is held already. Nothing is
    /// made in the folder. `Unsupported` (or what the system answers) where folders have no locks.
    fn try_lock_folder(&self, folder: &Path) -> DiskResult<Option<Box<dyn FileLock>>> {
        Err(failed("lock", folder)(io::ErrorKind::Unsupported.into()))
    }
    /// The path with links and `..` resolved; it must exist.
    fn canonical(&self, path: &Path) -> DiskResult<PathBuf>;
    /// Who may do what with a file, as the nine bits of its mode; `None` where there is no such thing.
    fn mode(&self, path: &Path) -> DiskResult<Option<u32>> {
        let _ = path;
        Ok(None)
    }
}

/// Numbers the temporary files of this process.
static TEMPORARY_FILES: AtomicU64 = AtomicU64::new(0);

/// The name of a temporary file, `.<name>.<process>.<number>.tmp`: where it becomes `name`, and
/// who writes it. The one place that knows the form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemporaryName {
    /// The file it is to replace.
    pub name: String,
    /// The writing process.
    pub process: u32,
    number: u64,
}

impl TemporaryName {
    /// A new one for `name`. Two writers never share one, be they tasks or processes.
    fn new(name: String) -> Self {
        Self {
            name,
            process: std::process::id(),
            number: TEMPORARY_FILES.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Understands a file name; `None` for one that no temporary file of ours has.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('.')?.strip_suffix(".tmp")?;
        let (rest, number) = rest.rsplit_once('.')?;
        let (name, process) = rest.rsplit_once('.')?;
        let temporary = Self {
            name: name.to_owned(),
            process: process.parse().ok()?,
            number: number.parse().ok()?,
        };
        // `+1` and `01` are numbers too, but not as we write them.
        (temporary.to_string() == text).then_some(temporary)
    }
}

impl fmt::Display for TemporaryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ".{}.{}.{}.tmp", self.name, self.process, self.number)
    }
}

/// What is read of a file at first.
const READ_BYTES: usize = 4096;

/// How often a lock file may be replaced under our hands before it counts as held.
const LOCK_ATTEMPTS_MAX: u32 = 16;

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
        let temporary = directory.join(TemporaryName::new(name).to_string());
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

    /// Writes a file that a person named. A link is followed: what it leads to is replaced in one step.
    /// A device, a pipe and whatever the kernel shows as a file are written to and stay what they are.
    fn write_named(&self, path: &Path, bytes: &[u8], mode: u32) -> DiskResult<()> {
        // A bare name has no folder to make durable.
        let path = &Path::new(".").join(path);
        let is_kernels = ["/dev", "/proc", "/sys"]
            .iter()
            .any(|folder| path.starts_with(folder));
        match self.entry(path)? {
            Some(EntryKind::Other) => match self.canonical(path) {
                Ok(place)
                    if !is_kernels
                        && matches!(self.entry(&place)?, Some(EntryKind::File { .. })) =>
                {
                    self.write_atomic(&place, bytes, mode)
                }
                // What it leads to has no path of its own, or does not exist yet.
                Ok(_) | Err(_) => self.append(path, bytes, mode, false),
            },
            Some(_) if is_kernels => self.append(path, bytes, mode, false),
            _ => self.write_atomic(path, bytes, mode),
        }
    }

    /// Replaces a file of the project in one step. Where it is a link, what it leads to is replaced; the
    /// mode stays as it is. One that is not there yet gets `mode`.
    fn rewrite(&self, path: &Path, bytes: &[u8], mode: u32) -> DiskResult<()> {
        if self.entry(path)?.is_none() {
            return self.write_atomic(path, bytes, mode);
        }
        let place = self.canonical(path)?;
        let mode = self.mode(&place)?.unwrap_or(mode);
        self.write_atomic(&place, bytes, mode)
    }

    /// Keeps the file `from` under the name `to` too, in place of what stands there, in one step and
    /// without writing its bytes again. Only for files that are replaced and never changed in
    /// place. Where the file system has no second names, the bytes are copied.
    fn keep_as(&self, from: &Path, to: &Path, limit_bytes: u64, mode: u32) -> DiskResult<()> {
        let directory = to.parent().unwrap_or_else(|| Path::new("."));
        let name = to
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let temporary = directory.join(TemporaryName::new(name).to_string());
        self.remove_file(&temporary)?;
        if let Err(error) = self.link(from, &temporary) {
            // How file systems say that they have no second names, or no more of them.
            let cannot = matches!(
                error.source.kind(),
                io::ErrorKind::Unsupported
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::TooManyLinks
                    | io::ErrorKind::CrossesDevices
            );
            if !cannot {
                return Err(error);
            }
            return self.write_atomic(to, &self.read(from, limit_bytes)?, mode);
        }
        let renamed = self.rename(&temporary, to);
        // Two names of one file are left as they are by a rename from one to the other.
        let removed = self.remove_file(&temporary);
        renamed.and(removed)?;
        self.sync_directory(directory)
    }

    /// Finds out whether [`DiskExt::write_atomic`] could make its file beside `path`, with an empty one.
    fn try_beside(&self, path: &Path, mode: u32) -> DiskResult<()> {
        let directory = path.parent().unwrap_or_else(|| Path::new("."));
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let temporary = directory.join(TemporaryName::new(name).to_string());
        self.create_new(&temporary, b"", mode)?;
        self.remove_file(&temporary)
    }

    /// Removes what [`DiskExt::write_atomic`] of `path` left behind in processes that were killed
    /// in the middle of it. For callers that know nobody else writes `path` now: those who hold its
    /// folder ([`folder_turn`]), or whose lock covers it.
    fn sweep_temporaries(&self, path: &Path) -> DiskResult<()> {
        let directory = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Ok(());
        };
        for entry in self.list(directory)? {
            let is_left_over = TemporaryName::parse(&entry).is_some_and(|temporary| {
                temporary.name == name && temporary.process != std::process::id()
            });
            if is_left_over {
                self.remove_file(&directory.join(&entry))?;
            }
        }
        Ok(())
    }
}

impl<D: Disk + ?Sized> DiskExt for D {}

/// The longest wait for a folder. Whoever holds one replaces a file in it, which takes milliseconds.
const TURN_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often a folder that is held is looked at again.
const TURN_LOOK: Duration = Duration::from_millis(10);

/// Waits for the turn to read, change and replace files of a folder that other runs change, too, and
/// holds it until dropped. The folder itself is locked, so that nothing is left lying in it. `None` where
/// it cannot be locked: whatever keeps it from that (no such folder, no right to read it) is said by what
/// is done in it, and a file system without locks has nobody to wait for.
pub async fn folder_turn(
    disk: &dyn Disk,
    clock: &dyn Clock,
    folder: &Path,
) -> DiskResult<Option<Box<dyn FileLock>>> {
    let started = clock.monotonic();
    loop {
        match disk.try_lock_folder(folder) {
            Ok(Some(turn)) => return Ok(Some(turn)),
            Err(_) => return Ok(None),
            Ok(None) if clock.monotonic().saturating_sub(started) >= TURN_WAIT_MAX => {
                return Err(failed("change files in", folder)(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "another program has kept it locked for {} seconds",
                        TURN_WAIT_MAX.as_secs()
                    ),
                )));
            }
            Ok(None) => clock.sleep(TURN_LOOK).await,
        }
    }
}

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

#[expect(
    clippy::disallowed_methods,
    reason = "this type is the one owner of the machine's files"
)]
mod system {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::{
        DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
    };

    use super::*;

    #[derive(Debug)]
    struct SystemLock {
        file: fs::File,
        path: PathBuf,
    }

    impl FileLock for SystemLock {
        fn is_in_place(&self) -> bool {
            matches!(
                (self.file.metadata(), fs::metadata(&self.path)),
                (Ok(locked), Ok(standing)) if is_same(&locked, &standing)
            )
        }
    }

    /// Two looks at one file.
    fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
        (one.dev(), one.ino()) == (other.dev(), other.ino())
    }

    /// The lock of what `open` opens at `path`, unless somebody holds it.
    fn locked(
        path: &Path,
        open: &dyn Fn() -> io::Result<fs::File>,
    ) -> DiskResult<Option<Box<dyn FileLock>>> {
        for _ in 0..LOCK_ATTEMPTS_MAX {
            let file = open().map_err(failed("lock", path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => {
                    return Err(failed("lock", path)(error));
                }
            }
            let locked = file.metadata().map_err(failed("lock", path))?;
            match fs::metadata(path) {
                Ok(standing) if is_same(&standing, &locked) => {
                    let path = path.to_path_buf();
                    return Ok(Some(Box::new(SystemLock { file, path })));
                }
                // Removed or replaced between our open and our lock: try the new one.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("lock", path)(error)),
            }
        }
        Ok(None)
    }

    fn too_large(limit_bytes: u64) -> io::Error {
        io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than the limit of {limit_bytes} bytes"),
        )
    }

    /// Reads a file of an open folder into `bytes`, which only ever grows; answers its length.
    fn read_beside(
        folder: &fs::File,
        name: &str,
        limit_bytes: u64,
        bytes: &mut Vec<u8>,
    ) -> io::Result<usize> {
        use rustix::fs::{Mode, OFlags, openat};
        let file = openat(
            folder,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut length = 0;
        loop {
            if length == bytes.len() {
                bytes.resize((length * 2).max(READ_BYTES), 0);
            }
            match rustix::io::read(&file, &mut bytes[length..]) {
                Ok(0) => return Ok(length),
                Ok(more) => length += more,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if length as u64 > limit_bytes {
                return Err(too_large(limit_bytes));
            }
        }
    }

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

        fn head(&self, path: &Path, bytes: usize) -> DiskResult<Vec<u8>> {
            let file = fs::File::open(path).map_err(failed("read", path))?;
            let mut head = Vec::with_capacity(bytes);
            file.take(bytes as u64)
                .read_to_end(&mut head)
                .map_err(failed("read", path))?;
            Ok(head)
        }

        fn read(&self, path: &Path, limit_bytes: u64) -> DiskResult<Vec<u8>> {
            // Opening a pipe waits for its other end, and nothing could interrupt that.
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
                .open(path)
                .map_err(failed("read", path))?;
            let kind = file.metadata().map_err(failed("read", path))?.file_type();
            if kind.is_fifo() || kind.is_socket() {
                return Err(failed("read", path)(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is a pipe, which Tidegate does not read; save it to a file first",
                )));
            }
            // Room for most files, so that one look reads them and a second one sees the end.
            let mut bytes = Vec::with_capacity(READ_BYTES);
            file.take(limit_bytes.saturating_add(1))
                .read_to_end(&mut bytes)
                .map_err(failed("read", path))?;
            if bytes.len() as u64 > limit_bytes {
                return Err(failed("read", path)(too_large(limit_bytes)));
            }
            Ok(bytes)
        }

        fn read_each(
            &self,
            directory: &Path,
            names: &[String],
            limit_bytes: u64,
            take: &mut dyn FnMut(&str, DiskResult<&[u8]>) -> bool,
        ) {
            let folder = fs::File::open(directory);
            // One room for all, and no way from the root for each.
            let mut bytes = Vec::new();
            for name in names {
                let read = match &folder {
                    Ok(folder) => read_beside(folder, name, limit_bytes, &mut bytes),
                    Err(error) => Err(error.kind().into()),
                };
                let read = match read {
                    Ok(length) => Ok(&bytes[..length]),
                    Err(error) => Err(failed("read", &directory.join(name))(error)),
                };
                if !take(name, read) {
                    return;
                }
            }
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
            let written = file
                .write_all(bytes)
                .map_err(failed("write", path))
                .and_then(|()| file.sync_all().map_err(failed("flush", path)));
            if written.is_err() {
                // We made it, so nobody else's file goes; the first error is the one that counts.
                drop(fs::remove_file(path));
            }
            written
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

        fn exchange(&self, a: &Path, b: &Path) -> DiskResult<()> {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).map_err(|error| {
                // `EINVAL` is how a file system says that it cannot.
                failed("exchange", b)(if error == rustix::io::Errno::INVAL {
                    io::ErrorKind::Unsupported.into()
                } else {
                    error.into()
                })
            })
        }

        fn link(&self, from: &Path, to: &Path) -> DiskResult<()> {
            fs::hard_link(from, to).map_err(failed("link", to))
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
                        io::ErrorKind::NotFound
                            | io::ErrorKind::DirectoryNotEmpty
                            | io::ErrorKind::NotADirectory
                    ) =>
                {
                    Err(failed("remove the directory", directory)(error))
                }
                _ => Ok(()),
            }
        }

        fn try_lock(&self, path: &Path) -> DiskResult<Option<Box<dyn FileLock>>> {
            locked(path, &|| {
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o600)
                    .open(path)
            })
        }

        fn try_lock_folder(&self, folder: &Path) -> DiskResult<Option<Box<dyn FileLock>>> {
            let folder = match folder.as_os_str().is_empty() {
                true => Path::new("."),
                false => folder,
            };
            locked(folder, &|| fs::File::open(folder))
        }

        fn canonical(&self, path: &Path) -> DiskResult<PathBuf> {
            fs::canonicalize(path).map_err(failed("find", path))
        }

        fn mode(&self, path: &Path) -> DiskResult<Option<u32>> {
            let data = fs::metadata(path).map_err(failed("look at", path))?;
            Ok(Some(data.mode() & 0o777))
        }
    }
}

#[cfg(test)]
mod tests;
