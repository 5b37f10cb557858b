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

/// Makes the fixture of the newest format from the one before it, for the day a format changes:
/// `TIDEGATE_FIXTURE=tests/it/state/fixtures/v2 cargo test --test it keep_a_fixture -- --ignored`.
#[test]
#[ignore = "writes into the folder that TIDEGATE_FIXTURE names"]
fn keep_a_fixture_of_this_version() {
    let folder = PathBuf::from(std::env::var_os("TIDEGATE_FIXTURE").expect("a folder"));
    for kind in ["state", "encrypted"] {
        let root = folder.join(kind);
        std::fs::create_dir_all(&root).unwrap();
        copy_tree(&fixtures(&format!("v1/{kind}")), &root);
        let store = match kind {
            "state" => system_store(&root, "dev").with_key(KEY),
            _ => system_store(&root, "dev")
                .with_key(KEY)
                .with_encryption(&KEY),
        };
        run(async {
            let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
            for record in store.list().await.unwrap() {
                store.put(&lease, &record).await.unwrap();
            }
            for key in store.keepsakes().await.unwrap() {
                let keepsake = store.keepsake(&key).await.unwrap().unwrap();
                store.put_keepsake(&lease, &key, &keepsake).await.unwrap();
            }
            let entry = Entry::Begin {
                run_id: "r1".to_owned(),
                fence: lease.fence,
                at: "2024-01-02T03:04:05Z".to_owned(),
            };
            store.journal_append(&lease, &[entry]).await.unwrap();
            store.unlock(&lease).await.unwrap();
        });
        std::fs::remove_dir_all(root.join("dev/previous")).unwrap();
        for file in ["dev/lock.guard", ".gitignore"] {
            std::fs::remove_file(root.join(file)).unwrap();
        }
    }
}

#[test]
fn version_1_is_read_and_written_on() {
    a_state_is_read_and_written_on("v1");
}

#[test]
fn version_2_is_read_and_written_on() {
    a_state_is_read_and_written_on("v2");
}

fn a_state_is_read_and_written_on(version: &str) {
    let folder = tempfile::tempdir().unwrap();
    copy_tree(&fixtures(version).join("state"), folder.path());
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
        // What was written is in the newest form now, what was not is as it was.
        let files = std::fs::read_dir(folder.path().join("dev/records")).unwrap();
        let mut files: Vec<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let other = if version == "v1" {
            "files.json"
        } else {
            "files.cbor"
        };
        assert_eq!(files, ["%4frders%2fdb.cbor", other]);
        assert_eq!(store.list().await.unwrap().len(), 2);
    });
}

#[test]
fn encrypted_records_of_every_version_are_read() {
    let read = |version: &str| {
        let folder = tempfile::tempdir().unwrap();
        copy_tree(&fixtures(version).join("encrypted"), folder.path());
        let keyless = system_store(folder.path(), "dev");
        assert!(run(keyless.list()).is_err(), "{version}");
        let store = system_store(folder.path(), "dev").with_key(KEY);
        run(store.list()).unwrap()
    };
    let (first, second) = (read("v1"), read("v2"));
    assert_eq!((first.len(), second.len()), (2, 2));
    for (first, mut second) in first.into_iter().zip(second) {
        second.updated_at.clone_from(&first.updated_at);
        second.tidegate.version = first.tidegate.version;
        assert_eq!(first, second);
    }
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
