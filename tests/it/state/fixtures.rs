//! State of every past format version, as it was written then: it is read, and can be written on.

use std::path::{Path, PathBuf};

use tidegate::state::{Entry, Snapshot, Store};

use super::{NO_WAIT, address, holder, run, system_store};
use crate::harness::copy_tree;

/// The key the sealed parts of the fixtures were sealed with.
const KEY: [u8; 32] = [0x77; 32];

fn fixtures(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/state/fixtures")
        .join(version)
}

#[test]
fn version_1_is_read_and_written_on() {
    let folder = tempfile::tempdir().unwrap();
    copy_tree(&fixtures("v1/state"), folder.path());
    let store = system_store(folder.path(), "dev").with_key(KEY);
    run(async {
        let records = store.list().await.unwrap();
        let names: Vec<&str> = records
            .iter()
            .map(|record| record.resource_id.as_str())
            .collect();
        assert_eq!(names, ["Orders/db", "files"]);
        let database = &records[0];
        assert!(database.tidegate.sealed.contains_key("connection_url"));
        let keyring = tidegate::secret::Keyring::new(&KEY);
        let masker = tidegate::secret::Masker::default();
        for record in &records {
            tidegate::state::record::to_recorded(record, "dev", &keyring, &masker).unwrap();
        }
        assert_eq!(store.keepsakes().await.unwrap(), ["secret/TOKEN"]);
        let journal = store.journal_read().await.unwrap();
        assert!(matches!(journal[0], Entry::Begin { .. }), "{journal:?}");
        let head = store.head().await.unwrap().unwrap();
        let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        assert!(lease.fence > head.fence);
        let serial = store.put(&lease, database).await.unwrap();
        assert_eq!(serial, head.serial + 1);
        let again = store.get(&address("Orders/db")).await.unwrap().unwrap();
        assert_eq!(again.created_at, database.created_at);
        assert_eq!(again.tidegate.version, database.tidegate.version + 1);
    });
}

#[test]
fn encrypted_records_of_version_1_are_read() {
    let folder = tempfile::tempdir().unwrap();
    copy_tree(&fixtures("v1/encrypted"), folder.path());
    let store = system_store(folder.path(), "dev").with_key(KEY);
    assert_eq!(run(store.list()).unwrap().len(), 2);
}

#[test]
fn documents_of_version_1_are_read() {
    let bytes = std::fs::read(fixtures("v1/document.json")).unwrap();
    let snapshot = Snapshot::decode(&bytes, "it").unwrap();
    assert_eq!(snapshot.records.len(), 2);
    assert_eq!(snapshot.keepsakes.len(), 1);
    assert!(tidegate::state::is_key_of(&snapshot, &KEY));
    assert!(!tidegate::state::is_key_of(&snapshot, &[0; 32]));
}
