//! Damaged files: cut at every length, every bit flipped, moved, edited, written by others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt as _;
use tidegate::random::SystemRandom;
use tidegate::state::{Filesystem, Keepsake, Record, Store, StoreError};

use super::disks::MemoryDisk;
use super::{NO_WAIT, address, holder, manual_clock, record, run, system_store};

/// One of everything, released and whole.
fn filled(root: &Path) -> Filesystem {
    let store = system_store(root, "dev");
    run(async {
        let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        store.key(true).await.unwrap();
        store.put(&lease, &record("a", "one")).await.unwrap();
        store.put(&lease, &record("a", "two")).await.unwrap();
        let keepsake = Keepsake {
            fingerprint: "ff".to_owned(),
            sealed: Some("AAAA".to_owned()),
            written_at: "2024-01-02T03:04:05Z".to_owned(),
        };
        store
            .put_keepsake(&lease, "secret/x", &keepsake)
            .await
            .unwrap();
        store.unlock(&lease).await.unwrap();
    });
    store
}

/// What reading the damaged file says; `None` when it noticed nothing.
type Reading = fn(&Filesystem) -> Option<StoreError>;

const FILES: [(&str, Reading); 4] = [
    ("records/a.cbor", |store| run(store.list()).err()),
    ("head.json", |store| run(store.head()).err()),
    ("lock.json", |store| run(store.holder()).err()),
    ("keepsakes/secret%2fx.cbor", |store| {
        run(store.keepsake("secret/x")).err()
    }),
];

fn each_damage(path: &Path, mut check: impl FnMut(&str)) {
    let whole = std::fs::read(path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(path, &whole[..length]).unwrap();
        check(&format!(
            "{} cut to {length} of {} bytes",
            path.display(),
            whole.len()
        ));
    }
    // One bit of each byte here; every bit of every byte is flipped in memory, below and beside
    // the code of the frame.
    for position in 0..whole.len() {
        let bit = position % 8;
        let mut flipped = whole.clone();
        flipped[position] ^= 1 << bit;
        std::fs::write(path, &flipped).unwrap();
        check(&format!(
            "{} with bit {bit} of byte {position} flipped",
            path.display()
        ));
    }
    std::fs::write(path, &whole).unwrap();
}

#[test]
fn no_cut_and_no_flipped_bit_goes_unseen() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    for (file, reading) in FILES {
        let path = folder.path().join("dev").join(file);
        assert!(reading(&store).is_none(), "{file} is whole");
        each_damage(&path, |what| match reading(&store) {
            Some(StoreError::Corrupt {
                what: named,
                reason,
            }) => {
                assert!(named.contains(file), "{what}: {named}: {reason}");
            }
            other => panic!("{what}: {other:?}"),
        });
        assert!(reading(&store).is_none(), "{file} is whole again");
    }
}

#[test]
fn no_bit_of_a_record_can_flip_unseen() {
    let whole = record("orders-db", "one").encode().unwrap();
    assert!(Record::decode(&whole, "the record").is_ok());
    for position in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[position] ^= 1 << bit;
            let read = Record::decode(&flipped, "the record");
            assert!(
                matches!(read, Err(StoreError::Corrupt { .. })),
                "bit {bit} of byte {position}: {read:?}"
            );
        }
    }
}

#[test]
fn a_damaged_lock_or_head_stops_a_writer_before_it_writes() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    for file in ["lock.json", "head.json"] {
        let path = folder.path().join("dev").join(file);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = run(store.lock(&holder("r2"), NO_WAIT)).unwrap_err();
        assert!(
            matches!(error, StoreError::Corrupt { .. }),
            "{file}: {error:?}"
        );
        std::fs::write(&path, &whole).unwrap();
    }
    run(store.lock(&holder("r2"), NO_WAIT)).unwrap();
}

#[test]
fn a_damaged_key_never_opens_anything_and_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let path = folder.path().join("dev/key");
    let whole = std::fs::read(&path).unwrap();
    let key = run(store.key(false)).unwrap().unwrap();
    each_damage(&path, |what| {
        for create in [false, true] {
            // Hex digits have two spellings: such a flip leaves the key as it is.
            match run(store.key(create)) {
                Ok(Some(same)) => assert_eq!(*same, *key, "{what}"),
                Ok(None) => panic!("{what}: taken for absent"),
                Err(StoreError::Corrupt { .. }) => {}
                Err(other) => panic!("{what}: {other:?}"),
            }
        }
    });
    std::fs::remove_file(&path).unwrap();
    for create in [false, true] {
        let error = run(store.key(create)).unwrap_err().to_string();
        assert!(
            error.contains("TIDEGATE_STATE_KEY") && error.contains("missing"),
            "{error}"
        );
    }
    assert!(!path.exists(), "a new key was made over sealed values");
    // The right key from elsewhere is accepted, a wrong one is not.
    let with = |key: [u8; 32]| system_store(folder.path(), "dev").with_key(key);
    assert_eq!(*run(with(*key).key(true)).unwrap().unwrap(), *key);
    assert!(matches!(
        run(with([9; 32]).key(false)),
        Err(StoreError::Corrupt { .. })
    ));
    assert!(!path.exists(), "a given key was written down");
    std::fs::write(&path, whole).unwrap();
    assert_eq!(*run(store.key(false)).unwrap().unwrap(), *key);
}

#[test]
fn a_record_in_anothers_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let records = folder.path().join("dev/records");
    let bytes = std::fs::read(records.join("a.cbor")).unwrap();
    std::fs::write(records.join("b.cbor"), &bytes).unwrap();
    let reason = |result: Result<Option<Record>, StoreError>| match result {
        Err(StoreError::Corrupt { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(run(store.get(&address("b")))).contains("record of `a`"));
    assert!(reason(run(store.list()).map(|_| None)).contains("record of `a`"));
    std::fs::remove_file(records.join("b.cbor")).unwrap();

    let other = system_store(folder.path(), "prod");
    std::fs::create_dir_all(folder.path().join("prod/records")).unwrap();
    std::fs::write(folder.path().join("prod/records/a.cbor"), &bytes).unwrap();
    assert!(reason(run(other.get(&address("a")))).contains("environment `dev`"));

    // What nobody can explain is not skipped; hidden files of file managers are.
    std::fs::write(records.join(".DS_Store"), "x").unwrap();
    assert_eq!(run(store.list()).unwrap().len(), 1);
    std::fs::write(records.join("a.cbor.bak"), &bytes).unwrap();
    assert!(run(store.list()).is_err());
}

#[test]
fn upstreams_files_are_read_and_kept_in_their_fields() {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("dev/records");
    std::fs::create_dir_all(&records).unwrap();
    let path = records.join("orders-db.json");
    let text = r#"{
  "resource_id": "orders-db",
  "resource_type": "infra.database",
  "provider": "digitalocean",
  "provider_ref": "do-main",
  "provider_id": "11111111-2222-3333-4444-555555555555",
  "config_hash": "762dfa0519180779e7e6c1c6c7e35776e5e07d0eff11bd98b7eec4cc2d62b8a3",
  "status": "active",
  "config": { "num_nodes": 1, "region": "nyc3", "size_slug": "db-s-1vcpu-1gb" },
  "outputs": null,
  "dependencies": null,
  "theirs": 7,
  "created_at": "2024-01-02T03:04:05Z",
  "updated_at": "2024-01-02T03:04:05Z"
}"#;
    std::fs::write(&path, text).unwrap();
    let store = system_store(folder.path(), "dev");
    let got = run(store.get(&address("orders-db"))).unwrap().unwrap();
    assert_eq!(got.tidegate.format, 0);
    assert_eq!(got.unknown["theirs"], 7);
    assert_eq!(
        tidegate::resource::config_hash(&got.config),
        got.config_hash
    );

    // A cut is never taken for a shorter record.
    for length in 0..text.len() {
        std::fs::write(&path, &text[..length]).unwrap();
        assert!(run(store.list()).is_err(), "cut to {length}");
    }
    std::fs::write(&path, text).unwrap();

    // The first write makes it ours and keeps what it said.
    run(async {
        let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        store
            .put(&lease, &record("orders-db", "two"))
            .await
            .unwrap();
    });
    let ours = run(store.get(&address("orders-db"))).unwrap().unwrap();
    assert_eq!(ours.created_at, "2024-01-02T03:04:05Z");
    assert_eq!(
        (ours.tidegate.version, &ours.unknown["theirs"]),
        (1, &serde_json::json!(7))
    );
    let previous = std::fs::read(folder.path().join("dev/previous/orders-db.json")).unwrap();
    assert_eq!(previous, text.as_bytes());
    // There is one file of it, in our form.
    assert!(!path.exists() && path.with_extension("cbor").exists());
    // As a document it is JSON with upstream's names on top.
    let value: serde_json::Value = serde_json::from_slice(&ours.document().unwrap()).unwrap();
    assert_eq!(value["resource_id"], "orders-db");
}

/// What a crash between the write of the new file and the removal of the old one leaves.
#[test]
fn of_a_record_in_both_formats_the_newer_one_counts() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let records = folder.path().join("dev/records");
    let old = records.join("a.json");
    let of_old = run(store.get(&address("a"))).unwrap().unwrap();
    let stale = || {
        let mut stale = of_old.clone();
        stale.provider_id = "stale".to_owned();
        std::fs::write(&old, stale.document().unwrap()).unwrap();
    };
    stale();
    let all = run(store.list()).unwrap();
    assert_eq!((all.len(), &all[0]), (1, &of_old));
    run(async {
        let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        // One whose file comes between the two in the order of names.
        store.put(&lease, &record("a.d", "x")).await.unwrap();
        assert_eq!(store.list().await.unwrap().len(), 2);
        store.delete(&lease, &address("a.d")).await.unwrap();
        store.put(&lease, &record("a", "three")).await.unwrap();
        assert!(!old.exists());
        stale();
        store.delete(&lease, &address("a")).await.unwrap();
        assert_eq!(store.get(&address("a")).await.unwrap(), None);
        // Alone, one in the old format is as good as any, and goes the same way.
        stale();
        assert_eq!(store.list().await.unwrap().len(), 1);
        store.delete(&lease, &address("a")).await.unwrap();
        assert_eq!(store.list().await.unwrap(), []);
        store.unlock(&lease).await.unwrap();
    });
    let previous = folder.path().join("dev/previous");
    let kept: Vec<_> = std::fs::read_dir(previous).unwrap().collect();
    assert!(kept.len() <= 3, "{kept:?}");
}

#[test]
fn changes_are_counted_though_the_head_is_not_written_for_each() {
    use tidegate::state::Entry;
    let folder = tempfile::tempdir().unwrap();
    let store = system_store(folder.path(), "dev");
    let other = system_store(folder.path(), "dev");
    let head = folder.path().join("dev/head.json");
    let journal = folder.path().join("dev/journal.jsonl");
    let serial = || run(other.head()).unwrap().unwrap().serial;
    let lease = run(store.lock(&holder("r1"), NO_WAIT)).unwrap();
    let before = std::fs::read(&head).unwrap();
    for expected in 1..=3 {
        let put = run(store.put(&lease, &record("a", "one"))).unwrap();
        assert_eq!((put, serial()), (expected, expected));
    }
    run(store.delete(&lease, &address("a"))).unwrap();
    assert_eq!(run(store.delete(&lease, &address("a"))).unwrap(), 4);
    assert_eq!(std::fs::read(&head).unwrap(), before);
    // Damage to the journal does not turn the count back.
    let end = Entry::End {
        run_id: "r1".to_owned(),
    };
    run(store.journal_append(&lease, &[end])).unwrap();
    let whole = std::fs::read(&journal).unwrap();
    let mut damaged = whole.clone();
    damaged[20] ^= 1;
    std::fs::write(&journal, &damaged).unwrap();
    assert_eq!(serial(), 4);
    std::fs::write(&journal, &whole).unwrap();
    // Given back with entries in it, the journal stays; cleared, the head knows.
    run(store.unlock(&lease)).unwrap();
    assert!(journal.exists());
    let lease = run(store.lock(&holder("r2"), NO_WAIT)).unwrap();
    assert_eq!(run(store.put(&lease, &record("b", "one"))).unwrap(), 5);
    run(store.journal_clear(&lease)).unwrap();
    assert_eq!((journal.exists(), serial()), (false, 5));
    // A journal that only counts goes with the lock.
    assert_eq!(run(store.put(&lease, &record("b", "two"))).unwrap(), 6);
    run(store.unlock(&lease)).unwrap();
    assert_eq!((journal.exists(), serial()), (false, 6));
}

#[test]
fn the_journal_cut_anywhere_can_be_read_and_continued() {
    use tidegate::state::Entry;
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let end = |run_id: &str| Entry::End {
        run_id: run_id.to_owned(),
    };
    let path = folder.path().join("dev/journal.jsonl");
    let lease = run(store.lock(&holder("r2"), NO_WAIT)).unwrap();
    run(store.journal_append(&lease, &[end("1"), end("2")])).unwrap();
    run(store.unlock(&lease)).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in 0..=whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let lines = whole[..length]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        let mut expected = vec![end("1"), end("2")];
        expected.truncate(lines);
        assert_eq!(
            run(store.journal_read()).unwrap(),
            expected,
            "cut to {length}"
        );
        let lease = run(store.lock(&holder("r3"), NO_WAIT)).unwrap();
        run(store.journal_append(&lease, &[end("3")])).unwrap();
        run(store.journal_append(&lease, &[end("4")])).unwrap();
        run(store.unlock(&lease)).unwrap();
        expected.extend([end("3"), end("4")]);
        assert_eq!(
            run(store.journal_read()).unwrap(),
            expected,
            "after a cut to {length}"
        );
    }
    // In the middle it is damage, not a torn end.
    let mut damaged = whole;
    damaged[20] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    assert!(matches!(
        run(store.journal_read()),
        Err(StoreError::Corrupt { .. })
    ));
    let lease = run(store.lock(&holder("r4"), NO_WAIT)).unwrap();
    assert!(run(store.journal_append(&lease, &[end("5")])).is_err());
}

#[test]
fn files_are_private_and_kept_out_of_git() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("state");
    let _store = filled(&root);
    assert_eq!(std::fs::read(root.join(".gitignore")).unwrap(), b"*\n");
    let mut waiting: Vec<PathBuf> = vec![root];
    let mut files = 0;
    while let Some(path) = waiting.pop() {
        let data = std::fs::symlink_metadata(&path).unwrap();
        let mode = data.permissions().mode() & 0o777;
        if data.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            waiting.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            files += 1;
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
    assert!(files >= 7, "{files}");
}

/// From the moment a whole state is being taken over, every reader sees that one: never a mixture of
/// it with what the folders held before.
#[test]
fn a_state_that_is_being_taken_over_is_read_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    run(async {
        let before = store.snapshot().await.unwrap().unwrap();
        let mut next = before.clone();
        next.serial += 7;
        next.records = vec![record("b", "three"), record("c", "three")];
        next.keepsakes.clear();
        let incoming = folder.path().join("dev/incoming.json");
        std::fs::write(&incoming, next.encode().unwrap()).unwrap();
        let reader = system_store(folder.path(), "dev");
        let seen = reader.snapshot().await.unwrap().unwrap();
        assert_eq!(seen.digest().unwrap(), next.digest().unwrap());
        assert_eq!((seen.serial, &seen.lineage), (next.serial, &next.lineage));
        assert_eq!(reader.list().await.unwrap(), next.records);
        assert_eq!(reader.get(&address("a")).await.unwrap(), None);
        assert!(reader.get(&address("b")).await.unwrap().is_some());
        assert_eq!(reader.keepsake("secret/x").await.unwrap(), None);
        assert!(reader.keepsakes().await.unwrap().is_empty());
        // Damaged, it is an error and no reason to look past it.
        std::fs::write(&incoming, b"{}").unwrap();
        assert!(matches!(
            reader.list().await,
            Err(StoreError::Corrupt { .. })
        ));
        std::fs::write(&incoming, next.encode().unwrap()).unwrap();
        // The next holder finishes, and then the folders say the same.
        let lease = reader.lock(&holder("r2"), NO_WAIT).await.unwrap();
        assert!(!incoming.exists());
        let after = store.snapshot().await.unwrap().unwrap();
        assert_eq!(after.digest().unwrap(), next.digest().unwrap());
        reader.unlock(&lease).await.unwrap();
    });
}

/// A read that began while a whole state was taken over, and ends after it, saw half of either.
#[test]
fn a_read_that_outlives_a_take_over_begins_anew() {
    let disk = MemoryDisk::default();
    let open = || {
        Filesystem::open(
            PathBuf::from("/state"),
            "dev",
            Arc::new(disk.clone()),
            Arc::new(manual_clock()),
            Arc::new(SystemRandom),
        )
        .unwrap()
    };
    let (writer, reader) = (open(), open());
    run(async {
        let lease = writer.lock(&holder("r1"), NO_WAIT).await.unwrap();
        for name in ["a", "b"] {
            writer.put(&lease, &record(name, "one")).await.unwrap();
        }
        let mut next = writer.snapshot().await.unwrap().unwrap();
        next.serial += 1;
        next.records = vec![record("b", "three"), record("c", "three")];
        // After the names of the files, and before the files themselves.
        disk.after_next_list(move || {
            let loaded = writer.load(&lease, &next, None).now_or_never();
            loaded.expect("nobody is in the way").unwrap();
        });
        let read = reader.list().await.unwrap();
        let names: Vec<&str> = read.iter().map(|one| one.resource_id.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
    });
}

/// Without its head nothing is known of what is there, and it is there all the same.
#[test]
fn records_without_a_head_are_not_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let head = folder.path().join("dev/head.json");
    std::fs::remove_file(&head).unwrap();
    run(async {
        for answer in [
            store.head().await.map(drop),
            store.snapshot().await.map(drop),
            store.has_remains().await.map(drop),
        ] {
            let Err(StoreError::Corrupt { what, reason }) = answer else {
                panic!("{answer:?}");
            };
            assert!(
                what.contains("head.json") && reason.contains("2 records"),
                "{reason}"
            );
        }
        // The next holder makes one, of what is there.
        let lease = store.lock(&holder("r2"), NO_WAIT).await.unwrap();
        let seen = store.snapshot().await.unwrap().unwrap();
        assert_eq!((seen.records.len(), seen.keepsakes.len()), (1, 1));
        assert_eq!(store.wipe(lease).await.unwrap(), [address("a")]);
        assert_eq!(store.head().await.unwrap(), None);
    });
}

/// A head that cannot be read gives way to a whole state, to nothing else, and to nobody while a run
/// lives.
#[test]
fn a_damaged_head_gives_way_to_a_whole_state() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let head = folder.path().join("dev/head.json");
    run(async {
        let mut next = store.snapshot().await.unwrap().unwrap();
        next.serial += 1;
        next.records = vec![record("b", "three")];
        assert!(store.beheaded().await.unwrap().is_none());
        assert!(matches!(
            store.load_over_damage(&next, None).await,
            Err(StoreError::Conflict { .. })
        ));
        let lease = store.lock(&holder("r2"), NO_WAIT).await.unwrap();
        std::fs::write(&head, b"{").unwrap();
        assert!(store.beheaded().await.unwrap().is_some());
        let other = system_store(folder.path(), "dev");
        assert!(matches!(
            other.load_over_damage(&next, None).await,
            Err(StoreError::Locked { .. })
        ));
        store.unlock(&lease).await.unwrap();
        other.load_over_damage(&next, None).await.unwrap();
        let seen = other.snapshot().await.unwrap().unwrap();
        assert_eq!(seen.digest().unwrap(), next.digest().unwrap());
        assert!(other.beheaded().await.unwrap().is_none());
        // Whoever held the lock before may not write into it.
        assert!(other.put(&lease, &record("late", "x")).await.is_err());
        // Its neighbours are named whether or not it can be read.
        std::fs::write(&head, b"{").unwrap();
        let beside = other.beside("prod").unwrap().unwrap();
        assert_eq!(beside.environments().await.unwrap(), ["dev"]);
    });
}
