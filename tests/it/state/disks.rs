//! Disks for tests: one in memory that knows what a power cut would leave, and one that fails or
//! dies at a chosen call.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tidegate::disk::{Disk, DiskError, DiskResult, EntryKind, FileLock};

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Directory,
    File(u64),
}

type Entries = BTreeMap<PathBuf, Node>;

#[derive(Debug, Default)]
struct Contents {
    /// What programs see.
    seen: Entries,
    /// The entries that would survive a power cut, as of the last flush of their directory.
    durable: Entries,
    /// File contents as programs see them.
    bytes: BTreeMap<u64, Vec<u8>>,
    /// File contents as of their last flush.
    durable_bytes: BTreeMap<u64, Vec<u8>>,
    locked: BTreeSet<u64>,
    next: u64,
    after_list: Hook,
}

/// What somebody else does at that moment, once.
#[derive(Default)]
struct Hook(Option<Box<dyn FnOnce() + Send>>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hook({})", self.0.is_some())
    }
}

/// A disk in memory. File contents become durable when flushed, directory entries when their
/// directory is; [`MemoryDisk::after_power_cut`] shows what may be left otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<Contents>>);

#[derive(Debug)]
struct MemoryLock(MemoryDisk, u64);

impl FileLock for MemoryLock {
    fn is_in_place(&self) -> bool {
        let mut entries = self.0.contents().seen.clone().into_values();
        entries.any(|node| node == Node::File(self.1))
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.contents().locked.remove(&self.1);
    }
}

fn error(operation: &'static str, path: &Path, source: io::Error) -> DiskError {
    DiskError {
        operation,
        path: path.to_path_buf(),
        source,
    }
}

fn kind(operation: &'static str, path: &Path, kind: io::ErrorKind) -> DiskError {
    error(operation, path, kind.into())
}

impl MemoryDisk {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().expect("no test panics while holding this")
    }

    /// A disk as the machine may find it after a power cut: for every entry and every content
    /// that was not flushed, `choose` says whether it had arrived all the same. No lock survives.
    pub(crate) fn after_power_cut(&self, mut choose: impl FnMut() -> bool) -> Self {
        let contents = self.contents();
        let paths: BTreeSet<&PathBuf> = contents
            .seen
            .keys()
            .chain(contents.durable.keys())
            .collect();
        let mut entries = Entries::new();
        for path in paths {
            let (new, old) = (contents.seen.get(path), contents.durable.get(path));
            let node = if new == old || choose() { new } else { old };
            // An entry whose directory is gone is gone with it.
            let reachable = path
                .parent()
                .is_none_or(|parent| parent.as_os_str().is_empty() || entries.contains_key(parent));
            if let Some(node) = node
                && reachable
            {
                entries.insert(path.clone(), node.clone());
            }
        }
        let mut bytes = BTreeMap::new();
        for (file, new) in &contents.bytes {
            let old = contents
                .durable_bytes
                .get(file)
                .cloned()
                .unwrap_or_default();
            bytes.insert(
                *file,
                if *new == old || choose() {
                    new.clone()
                } else {
                    old
                },
            );
        }
        Self(Arc::new(Mutex::new(Contents {
            seen: entries.clone(),
            durable: entries,
            bytes: bytes.clone(),
            durable_bytes: bytes,
            locked: BTreeSet::new(),
            next: contents.next,
            after_list: Hook::default(),
        })))
    }

    /// Between the next list of a directory and its answer, somebody else does this.
    pub(crate) fn after_next_list(&self, meanwhile: impl FnOnce() + Send + 'static) {
        self.contents().after_list = Hook(Some(Box::new(meanwhile)));
    }

    /// Every path that exists.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.contents().seen.keys().cloned().collect()
    }

    /// Leaves a file as a write that was cut off half-way would: nothing of it flushed.
    fn write_half(&self, path: &Path, bytes: &[u8], append: bool) {
        let mut contents = self.contents();
        // Not at a line's end, however many lines of equal length there are.
        let half = &bytes[..bytes.len() * 2 / 3];
        match contents.seen.get(path).cloned() {
            Some(Node::File(file)) if append => {
                contents
                    .bytes
                    .entry(file)
                    .or_default()
                    .extend_from_slice(half);
            }
            Some(_) => {}
            None => {
                let file = contents.next;
                contents.next += 1;
                contents.seen.insert(path.to_path_buf(), Node::File(file));
                contents.bytes.insert(file, half.to_vec());
            }
        }
    }
}

impl Contents {
    fn file(&self, operation: &'static str, path: &Path) -> DiskResult<u64> {
        match self.seen.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Directory) => Err(kind(operation, path, io::ErrorKind::IsADirectory)),
            None => Err(kind(operation, path, io::ErrorKind::NotFound)),
        }
    }

    fn make(&mut self, operation: &'static str, path: &Path) -> DiskResult<u64> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.seen.get(parent) != Some(&Node::Directory) {
            return Err(kind(operation, path, io::ErrorKind::NotFound));
        }
        let file = self.next;
        self.next += 1;
        self.seen.insert(path.to_path_buf(), Node::File(file));
        self.bytes.insert(file, Vec::new());
        Ok(file)
    }

    fn children(&self, directory: &Path) -> Vec<PathBuf> {
        self.seen
            .keys()
            .filter(|path| path.parent() == Some(directory))
            .cloned()
            .collect()
    }
}

impl Disk for MemoryDisk {
    fn entry(&self, path: &Path) -> DiskResult<Option<EntryKind>> {
        let contents = self.contents();
        Ok(contents.seen.get(path).map(|node| match node {
            Node::Directory => EntryKind::Directory,
            Node::File(file) => EntryKind::File {
                bytes: contents.bytes[file].len() as u64,
            },
        }))
    }

    fn read(&self, path: &Path, limit_bytes: u64) -> DiskResult<Vec<u8>> {
        let contents = self.contents();
        let bytes = contents.bytes[&contents.file("read", path)?].clone();
        assert!(bytes.len() as u64 <= limit_bytes);
        Ok(bytes)
    }

    fn list(&self, directory: &Path) -> DiskResult<Vec<String>> {
        let mut contents = self.contents();
        if contents.seen.get(directory) != Some(&Node::Directory) {
            return Err(kind("list", directory, io::ErrorKind::NotFound));
        }
        let names = contents
            .children(directory)
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        let meanwhile = contents.after_list.0.take();
        drop(contents);
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        Ok(names)
    }

    fn create_directories(&self, directory: &Path, _mode: u32) -> DiskResult<()> {
        let mut contents = self.contents();
        for path in directory.ancestors() {
            contents.seen.insert(path.to_path_buf(), Node::Directory);
        }
        Ok(())
    }

    fn create_new(&self, path: &Path, bytes: &[u8], _mode: u32) -> DiskResult<()> {
        let mut contents = self.contents();
        if contents.seen.contains_key(path) {
            return Err(kind("create", path, io::ErrorKind::AlreadyExists));
        }
        let file = contents.make("create", path)?;
        contents.bytes.insert(file, bytes.to_vec());
        contents.durable_bytes.insert(file, bytes.to_vec());
        Ok(())
    }

    fn append(&self, path: &Path, bytes: &[u8], _mode: u32, sync: bool) -> DiskResult<()> {
        let mut contents = self.contents();
        let file = match contents.file("append to", path) {
            Ok(file) => file,
            Err(_) => contents.make("append to", path)?,
        };
        contents
            .bytes
            .entry(file)
            .or_default()
            .extend_from_slice(bytes);
        if sync {
            let bytes = contents.bytes[&file].clone();
            contents.durable_bytes.insert(file, bytes);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        let mut contents = self.contents();
        let file = contents.file("replace", from)?;
        if contents.seen.get(to) == Some(&Node::File(file)) {
            // Two names of one file: nothing happens, as POSIX has it.
            return Ok(());
        }
        contents.seen.remove(from);
        contents.seen.insert(to.to_path_buf(), Node::File(file));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> DiskResult<()> {
        let mut contents = self.contents();
        let file = contents.file("link", from)?;
        if contents.seen.contains_key(to) {
            return Err(kind("link", to, io::ErrorKind::AlreadyExists));
        }
        contents.seen.insert(to.to_path_buf(), Node::File(file));
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> DiskResult<()> {
        let mut contents = self.contents();
        if contents.seen.get(directory) != Some(&Node::Directory) {
            return Err(kind(
                "flush the directory",
                directory,
                io::ErrorKind::NotFound,
            ));
        }
        let children = contents.children(directory);
        contents
            .durable
            .retain(|path, _| path.parent() != Some(directory));
        for path in children {
            let node = contents.seen[&path].clone();
            contents.durable.insert(path, node);
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.contents().seen.remove(path);
        Ok(())
    }

    fn remove_tree(&self, directory: &Path) -> DiskResult<()> {
        self.contents()
            .seen
            .retain(|path, _| !path.starts_with(directory));
        Ok(())
    }

    fn remove_if_empty(&self, directory: &Path) -> DiskResult<()> {
        let mut contents = self.contents();
        if contents.children(directory).is_empty() {
            contents.seen.remove(directory);
        }
        Ok(())
    }

    fn try_lock(&self, path: &Path) -> DiskResult<Option<Box<dyn FileLock>>> {
        let mut contents = self.contents();
        let file = match contents.file("lock", path) {
            Ok(file) => file,
            Err(_) => contents.make("lock", path)?,
        };
        Ok(contents
            .locked
            .insert(file)
            .then(|| Box::new(MemoryLock(self.clone(), file)) as Box<dyn FileLock>))
    }

    fn canonical(&self, path: &Path) -> DiskResult<PathBuf> {
        Ok(path.to_path_buf())
    }
}

/// What goes wrong at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// It fails with this errno and changes nothing; later calls work again.
    Errno(i32),
    /// It fails with this errno after writing half; later calls work again.
    HalfErrno(i32),
    /// The process dies in the middle of it.
    DeadHalfway,
    /// The process dies after it.
    DeadAfter,
}

/// A memory disk whose `at`-th call from now goes wrong.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    pub(crate) disk: MemoryDisk,
    fault: Fault,
    at: u64,
    calls: AtomicU64,
}

impl FaultyDisk {
    pub(crate) fn new(disk: MemoryDisk, fault: Fault, at: u64) -> Self {
        Self {
            disk,
            fault,
            at,
            calls: AtomicU64::new(0),
        }
    }

    /// True once the fault has happened.
    pub(crate) fn fired(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > self.at
    }

    fn call<T>(
        &self,
        operation: &'static str,
        path: &Path,
        half: impl FnOnce(),
        whole: impl FnOnce() -> DiskResult<T>,
    ) -> DiskResult<T> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let dead = || error(operation, path, io::Error::other("the process is dead"));
        match (call.cmp(&self.at), self.fault) {
            (std::cmp::Ordering::Less, _) => whole(),
            (std::cmp::Ordering::Equal, fault) => match fault {
                Fault::Errno(errno) => {
                    Err(error(operation, path, io::Error::from_raw_os_error(errno)))
                }
                Fault::HalfErrno(errno) => {
                    half();
                    Err(error(operation, path, io::Error::from_raw_os_error(errno)))
                }
                Fault::DeadHalfway => {
                    half();
                    Err(dead())
                }
                Fault::DeadAfter => {
                    drop(whole());
                    Err(dead())
                }
            },
            (std::cmp::Ordering::Greater, Fault::Errno(_) | Fault::HalfErrno(_)) => whole(),
            (std::cmp::Ordering::Greater, _) => Err(dead()),
        }
    }
}

impl Disk for FaultyDisk {
    fn entry(&self, path: &Path) -> DiskResult<Option<EntryKind>> {
        self.call("look at", path, || {}, || self.disk.entry(path))
    }

    fn read(&self, path: &Path, limit_bytes: u64) -> DiskResult<Vec<u8>> {
        self.call("read", path, || {}, || self.disk.read(path, limit_bytes))
    }

    fn list(&self, directory: &Path) -> DiskResult<Vec<String>> {
        self.call("list", directory, || {}, || self.disk.list(directory))
    }

    fn create_directories(&self, directory: &Path, mode: u32) -> DiskResult<()> {
        let parent = directory.parent().unwrap_or(directory);
        self.call(
            "create the directory",
            directory,
            || drop(self.disk.create_directories(parent, mode)),
            || self.disk.create_directories(directory, mode),
        )
    }

    fn create_new(&self, path: &Path, bytes: &[u8], mode: u32) -> DiskResult<()> {
        self.call(
            "write",
            path,
            || self.disk.write_half(path, bytes, false),
            || self.disk.create_new(path, bytes, mode),
        )
    }

    fn append(&self, path: &Path, bytes: &[u8], mode: u32, sync: bool) -> DiskResult<()> {
        self.call(
            "append to",
            path,
            || self.disk.write_half(path, bytes, true),
            || self.disk.append(path, bytes, mode, sync),
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.call("replace", to, || {}, || self.disk.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.call("link", to, || {}, || self.disk.link(from, to))
    }

    fn sync_directory(&self, directory: &Path) -> DiskResult<()> {
        self.call(
            "flush the directory",
            directory,
            || {},
            || self.disk.sync_directory(directory),
        )
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.call("remove", path, || {}, || self.disk.remove_file(path))
    }

    fn remove_tree(&self, directory: &Path) -> DiskResult<()> {
        let half = || {
            if let Ok(names) = self.disk.list(directory)
                && let Some(name) = names.first()
            {
                drop(self.disk.remove_file(&directory.join(name)));
            }
        };
        self.call("remove the directory", directory, half, || {
            self.disk.remove_tree(directory)
        })
    }

    fn remove_if_empty(&self, directory: &Path) -> DiskResult<()> {
        self.call(
            "remove the directory",
            directory,
            || {},
            || self.disk.remove_if_empty(directory),
        )
    }

    fn try_lock(&self, path: &Path) -> DiskResult<Option<Box<dyn FileLock>>> {
        self.call("lock", path, || {}, || self.disk.try_lock(path))
    }

    fn canonical(&self, path: &Path) -> DiskResult<PathBuf> {
        self.call("find", path, || {}, || self.disk.canonical(path))
    }
}
