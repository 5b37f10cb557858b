//! Any bytes in place of the files of a state folder: its lock, its head, its journal, a record. The
//! store refuses, or goes on without losing anything: what stands there is never taken for absent,
//! and fences only grow.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};
use tidegate::clock::ManualClock;
use tidegate::disk::{Disk, DiskError, DiskResult, EntryKind, FileLock};
use tidegate::random::SeededRandom;
use tidegate::resource::Address;
use tidegate::state::{Filesystem, Holder, Record, Store as _};

/// Files in memory.
#[derive(Debug, Default)]
struct Files {
    files: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
    folders: Mutex<BTreeSet<PathBuf>>,
}

#[derive(Debug)]
struct Locked;

impl FileLock for Locked {
    fn is_in_place(&self) -> bool {
        true
    }
}

fn failed<T>(operation: &'static str, path: &Path, kind: io::ErrorKind) -> DiskResult<T> {
    Err(DiskError {
        operation,
        path: path.to_owned(),
        source: kind.into(),
    })
}

impl Disk for Files {
    fn entry(&self, path: &Path) -> DiskResult<Option<EntryKind>> {
        if let Some(bytes) = self.files.lock().unwrap().get(path) {
            return Ok(Some(EntryKind::File {
                bytes: bytes.len() as u64,
            }));
        }
        let folders = self.folders.lock().unwrap();
        Ok(folders.contains(path).then_some(EntryKind::Directory))
    }
    fn read(&self, path: &Path, limit_bytes: u64) -> DiskResult<Vec<u8>> {
        match self.files.lock().unwrap().get(path) {
            Some(bytes) if bytes.len() as u64 > limit_bytes => {
                failed("read", path, io::ErrorKind::FileTooLarge)
            }
            Some(bytes) => Ok(bytes.clone()),
            None => failed("read", path, io::ErrorKind::NotFound),
        }
    }
    fn list(&self, directory: &Path) -> DiskResult<Vec<String>> {
        if !self.folders.lock().unwrap().contains(directory) {
            return failed("list", directory, io::ErrorKind::NotFound);
        }
        let (files, folders) = (self.files.lock().unwrap(), self.folders.lock().unwrap());
        let mut names: Vec<String> = files
            .keys()
            .chain(folders.iter())
            .filter(|path| path.parent() == Some(directory))
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        Ok(names)
    }
    fn create_directories(&self, directory: &Path, _: u32) -> DiskResult<()> {
        let mut folders = self.folders.lock().unwrap();
        folders.extend(directory.ancestors().map(Path::to_owned));
        Ok(())
    }
    fn create_new(&self, path: &Path, bytes: &[u8], _: u32) -> DiskResult<()> {
        let mut files = self.files.lock().unwrap();
        if files.contains_key(path) {
            return failed("create", path, io::ErrorKind::AlreadyExists);
        }
        files.insert(path.to_owned(), bytes.to_vec());
        Ok(())
    }
    fn append(&self, path: &Path, bytes: &[u8], _: u32, _: bool) -> DiskResult<()> {
        let mut files = self.files.lock().unwrap();
        files
            .entry(path.to_owned())
            .or_default()
            .extend_from_slice(bytes);
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        let mut files = self.files.lock().unwrap();
        match files.remove(from) {
            Some(bytes) => drop(files.insert(to.to_owned(), bytes)),
            None => return failed("rename", from, io::ErrorKind::NotFound),
        }
        Ok(())
    }
    fn sync_directory(&self, _: &Path) -> DiskResult<()> {
        Ok(())
    }
    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.files.lock().unwrap().remove(path);
        Ok(())
    }
    fn remove_tree(&self, directory: &Path) -> DiskResult<()> {
        self.files
            .lock()
            .unwrap()
            .retain(|path, _| !path.starts_with(directory));
        self.folders
            .lock()
            .unwrap()
            .retain(|path| !path.starts_with(directory));
        Ok(())
    }
    fn remove_if_empty(&self, directory: &Path) -> DiskResult<()> {
        let is_empty = self.list(directory).is_ok_and(|names| names.is_empty());
        if is_empty {
            self.folders.lock().unwrap().remove(directory);
        }
        Ok(())
    }
    fn try_lock(&self, path: &Path) -> DiskResult<Option<Box<dyn FileLock>>> {
        self.files
            .lock()
            .unwrap()
            .entry(path.to_owned())
            .or_default();
        Ok(Some(Box::new(Locked)))
    }
    fn canonical(&self, path: &Path) -> DiskResult<PathBuf> {
        Ok(path.to_owned())
    }
}

#[derive(Arbitrary, Debug)]
enum Content {
    /// As they are.
    Raw(Vec<u8>),
    /// A JSON document, closed with the checksum it should have.
    Closed(String),
    /// What a healthy state has there, with some bytes changed.
    Damaged(Vec<(u16, u8)>),
}

#[derive(Arbitrary, Debug)]
struct Input {
    lock: Option<Content>,
    head: Option<Content>,
    journal: Option<Content>,
    record: Option<Content>,
}

fn closed(text: &str) -> Vec<u8> {
    let body = text.trim_end().strip_suffix('}').unwrap_or(text).trim_end();
    let digest = Sha256::digest(body.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{body},\n  \"tidegate_checksum\": \"{hex}\"\n}}\n").into_bytes()
}

fn holder(run_id: &str) -> Holder {
    Holder {
        run_id: run_id.to_owned(),
        who: "somebody@here".to_owned(),
        process_id: 1,
        command: "up".to_owned(),
        run_url: None,
        job: String::new(),
        since: "2024-01-02T03:04:05Z".to_owned(),
        mark: String::new(),
    }
}

fn record(name: &str) -> Record {
    serde_json::from_value(serde_json::json!({
        "resource_id": name, "resource_type": "infra.storage", "provider": "local",
        "provider_ref": "here", "provider_id": name, "config_hash": "00", "status": "active",
        "config": {"size": 0.1}, "outputs": {}, "dependencies": [],
        "created_at": "2024-01-02T03:04:05Z", "updated_at": "2024-01-02T03:04:05Z",
    }))
    .unwrap()
}

fuzz_target!(|input: Input| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let disk = Arc::new(Files::default());
    let root = PathBuf::from("/state");
    let clock = Arc::new(ManualClock::new(time::OffsetDateTime::UNIX_EPOCH));
    let open = || {
        let disk = Arc::clone(&disk) as Arc<dyn Disk>;
        let random = Arc::new(SeededRandom::new(1));
        Filesystem::open(root.clone(), "dev", disk, clock.clone(), random).unwrap()
    };
    runtime.block_on(async {
        // A healthy state, and then what the input makes of it.
        let store = open();
        let lease = store.lock(&holder("first"), Duration::ZERO).await.unwrap();
        store.put(&lease, &record("a")).await.unwrap();
        drop(store);
        let mut is_touched = false;
        let mut fence = lease.fence;
        for (name, content) in [
            ("lock.json", &input.lock),
            ("head.json", &input.head),
            ("journal.jsonl", &input.journal),
            ("records/a.cbor", &input.record),
        ] {
            let Some(content) = content else { continue };
            let path = root.join("dev").join(name);
            let mut files = disk.files.lock().unwrap();
            let before = files.get(&path).cloned().unwrap_or_default();
            let bytes = match content {
                Content::Raw(bytes) => bytes.clone(),
                Content::Closed(text) => closed(text),
                Content::Damaged(changes) => {
                    let mut bytes = before.clone();
                    for (at, byte) in changes {
                        if !bytes.is_empty() {
                            let at = usize::from(*at) % bytes.len();
                            bytes[at] ^= byte;
                        }
                    }
                    if bytes != before && name != "journal.jsonl" {
                        is_touched = true;
                    }
                    bytes
                }
            };
            if let Ok(value) = serde_json::from_slice::<serde_json::Value>(&bytes) {
                fence = fence.max(value["fence"].as_u64().unwrap_or(0));
            }
            files.insert(path, bytes);
        }

        let store = open();
        let records = store.list().await;
        if let Ok(records) = &records {
            assert_eq!(records.len(), 1, "a record that stands there is not absent");
        }
        drop((
            store.head().await,
            store.holder().await,
            store.journal_read().await,
        ));
        drop((store.keepsakes().await, store.snapshot().await));
        let lease = match store
            .lock(&holder("second"), Duration::from_secs(1_000))
            .await
        {
            Ok(lease) => lease,
            Err(_) => return,
        };
        let whole = store.list().await.is_ok() && store.head().await.is_ok();
        assert!(!is_touched || !whole, "damage went unnoticed");
        assert!(lease.fence > fence, "{} after {fence}", lease.fence);
        if store.put(&lease, &record("b")).await.is_ok() {
            assert!(store.get(&Address::new("b")).await.unwrap().is_some());
            if records.is_ok() {
                assert_eq!(store.list().await.unwrap().len(), 2);
            }
        }
        store.unlock(&lease).await.unwrap();
        assert!(store.holder().await.unwrap().is_none());
    });
});
