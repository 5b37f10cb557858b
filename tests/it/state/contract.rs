//! What every store promises, whatever it is made of. A new backend brings a [`Bench`] and runs
//! [`store_contract`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidegate::clock::ManualClock;
use tidegate::disk::SystemDisk;
use tidegate::resource::{ActionKind, Kind};
use tidegate::state::record::FORMAT;
use tidegate::state::{Entry, Keepsake, Record, Renewal, Store, StoreError};

use super::{NO_WAIT, address, holder, manual_clock, mark, record, run, store_on};

/// One fresh storage, and handles on it.
pub(crate) trait Bench {
    /// The clock all handles use.
    fn clock(&self) -> &ManualClock;
    /// A new handle, as another process on this machine would have.
    fn open(&self, environment: &str) -> Arc<dyn Store>;
    /// A new handle, as a process on another machine would have.
    fn open_elsewhere(&self, environment: &str) -> Arc<dyn Store>;
    /// Cuts the stored form of a record in half.
    fn damage(&self, environment: &str, name: &str);
    /// Replaces the stored form of a record.
    fn replace(&self, environment: &str, record: &Record);
    /// True when nothing at all is left of the store.
    fn is_gone(&self) -> bool;
}

/// Every promise, each on a fresh storage.
pub(crate) fn store_contract<B: Bench>(fresh: impl Fn() -> B) {
    run(an_empty_store_answers_nothing(&fresh()));
    run(every_field_survives_reopening(&fresh()));
    run(a_second_write_keeps_the_creation_time(&fresh()));
    run(of_two_writers_one_succeeds(&fresh()));
    run(awkward_names_stay_distinct(&fresh()));
    run(one_damaged_record_fails_the_list_by_name(&fresh()));
    run(deleting_what_is_absent_succeeds(&fresh()));
    run(a_held_lock_refuses_and_names_its_holder(&fresh()));
    run(a_lapsed_lease_is_taken_over_and_fenced(&fresh()));
    run(a_renewed_lease_does_not_lapse(&fresh()));
    run(a_dropped_wait_leaves_nothing(&fresh()));
    run(wiping_one_environment_leaves_its_sibling(&fresh()));
    run(a_newer_record_is_refused_and_kept(&fresh()));
    run(unknown_fields_survive_a_writer_that_forgot_them(&fresh()));
    run(journal_and_keepsakes_are_kept_in_order(&fresh()));
    run(removal_is_refused_while_anything_is_open(&fresh()));
    run(the_key_is_made_once(&fresh()));
    run(serial_and_fence_only_grow(&fresh()));
}

async fn an_empty_store_answers_nothing(bench: &impl Bench) {
    let store = bench.open("dev");
    assert_eq!(store.get(&address("x")).await.unwrap(), None);
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.head().await.unwrap(), None);
    assert_eq!(store.holder().await.unwrap(), None);
    assert_eq!(store.journal_read().await.unwrap(), []);
    assert_eq!(store.keepsakes().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.keepsake("secret/x").await.unwrap(), None);
    assert!(store.key(false).await.unwrap().is_none());
    assert!(bench.is_gone(), "reading wrote something");
}

async fn every_field_survives_reopening(bench: &impl Bench) {
    let mut full: Record = serde_json::from_value(json!({
        "resource_id": "orders-db", "resource_type": "infra.database", "provider": "local",
        "provider_ref": "here", "provider_id": "11111111-2222", "config_hash": "abc",
        "status": "error", "error": "it stopped half-way",
        "config": {"num_nodes": 1, "ratio": 0.1, "big": u64::MAX, "text": "größe \u{2028} <&>"},
        "outputs": {"uri": "secret_ref://KEY", "list": [1, null, {"a": []}]},
        "dependencies": ["core-net", "a"],
        "created_at": "2024-01-02T03:04:05Z", "updated_at": "2024-01-02T03:04:05Z",
        "somebody_else": {"kept": true},
        "tidegate": {
            "applied_config_source": "apply", "protected": true, "provider_status": "running",
            "sealed": {"uri": {"fingerprint": "ff", "sealed": "AAAA"}},
            "private": "BBBB", "from_the_future": [1, 2]
        }
    }))
    .unwrap();
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    store.put(&lease, &full).await.unwrap();
    let got = bench
        .open("dev")
        .get(&address("orders-db"))
        .await
        .unwrap()
        .unwrap();
    // What the store itself sets.
    full.updated_at.clone_from(&got.updated_at);
    full.tidegate.format = FORMAT;
    full.tidegate.environment = "dev".to_owned();
    full.tidegate.version = 1;
    assert_eq!(got, full);
    assert_eq!(bench.open("dev").list().await.unwrap(), [full]);
}

async fn a_second_write_keeps_the_creation_time(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    store.put(&lease, &record("a", "one")).await.unwrap();
    let first = store.get(&address("a")).await.unwrap().unwrap();
    bench.clock().advance(Duration::from_secs(10));
    let mut second = record("a", "two");
    second.created_at = "1999-01-01T00:00:00Z".to_owned();
    store.put(&lease, &second).await.unwrap();
    let second = store.get(&address("a")).await.unwrap().unwrap();
    assert_eq!(mark(&second), "two");
    assert_eq!(second.created_at, first.created_at);
    assert!(
        second.updated_at > first.updated_at,
        "{}",
        second.updated_at
    );
    assert_eq!((first.tidegate.version, second.tidegate.version), (1, 2));
}

async fn of_two_writers_one_succeeds(bench: &impl Bench) {
    let (one, two) = (bench.open("dev"), bench.open_elsewhere("dev"));
    let stale = one.lock(&holder("r1"), NO_WAIT).await.unwrap();
    one.put(&stale, &record("a", "base")).await.unwrap();
    let current = two
        .lock(&holder("r2"), Duration::from_secs(120))
        .await
        .unwrap();
    let results = [
        one.put(&stale, &record("a", "stale")).await,
        two.put(&current, &record("a", "current")).await,
    ];
    assert!(
        matches!(
            results,
            [
                Err(StoreError::LostLock {
                    ours: 1,
                    current: 2,
                    ..
                }),
                Ok(_)
            ]
        ),
        "{results:?}"
    );
    assert_eq!(
        mark(&two.get(&address("a")).await.unwrap().unwrap()),
        "current"
    );
}

async fn awkward_names_stay_distinct(bench: &impl Bench) {
    let long = "n".repeat(200);
    let longer = "n".repeat(4096);
    let names = [
        "a/b",
        "a_b",
        "a:b",
        "a%2fb",
        "A_B",
        "a_B",
        "metadata",
        "head",
        "lock",
        "key",
        "x.lock",
        ".",
        "..",
        "../../etc",
        ".hidden",
        "trailing.",
        "trailing ",
        "größe",
        "gro\u{308}ße",
        "nul\0byte",
        "line\nbreak",
        "con",
        "",
        &long,
        &longer,
    ];
    let store = bench.open("dev/../x");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    for (index, name) in names.iter().enumerate() {
        store
            .put(&lease, &record(name, &index.to_string()))
            .await
            .unwrap();
    }
    let store = bench.open("dev/../x");
    for (index, name) in names.iter().enumerate() {
        let got = store.get(&address(name)).await.unwrap().unwrap();
        assert_eq!(
            (got.resource_id.as_str(), mark(&got)),
            (*name, &*index.to_string())
        );
    }
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    let listed = store.list().await.unwrap();
    let listed: Vec<&str> = listed
        .iter()
        .map(|record| record.resource_id.as_str())
        .collect();
    assert_eq!(listed, sorted);
}

async fn one_damaged_record_fails_the_list_by_name(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    for index in 0..10 {
        store
            .put(&lease, &record(&format!("r-{index}"), "one"))
            .await
            .unwrap();
    }
    bench.damage("dev", "r-7");
    for error in [
        store.list().await.map(drop).unwrap_err(),
        store.get(&address("r-7")).await.map(drop).unwrap_err(),
        // A damaged record is not overwritten either: its version and its creation are unknown.
        store
            .put(&lease, &record("r-7", "two"))
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("r-7"), "{error}");
    }
    assert!(store.get(&address("r-6")).await.unwrap().is_some());
}

async fn deleting_what_is_absent_succeeds(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    let serial = store.put(&lease, &record("a", "one")).await.unwrap();
    assert_eq!(store.delete(&lease, &address("b")).await.unwrap(), serial);
    assert_eq!(
        store.delete(&lease, &address("a")).await.unwrap(),
        serial + 1
    );
    assert_eq!(
        store.delete(&lease, &address("a")).await.unwrap(),
        serial + 1
    );
    assert_eq!(store.list().await.unwrap(), []);
    store.delete_keepsake(&lease, "absent").await.unwrap();
}

async fn a_held_lock_refuses_and_names_its_holder(bench: &impl Bench) {
    let (one, two) = (bench.open("dev"), bench.open("dev"));
    let lease = one.lock(&holder("r1"), NO_WAIT).await.unwrap();
    for wait in [NO_WAIT, Duration::from_secs(20)] {
        let before = tidegate::clock::Clock::monotonic(bench.clock());
        let error = two.lock(&holder("r2"), wait).await.unwrap_err();
        let waited = tidegate::clock::Clock::monotonic(bench.clock()) - before;
        assert_eq!(waited, wait, "it waits as long as it was told, not longer");
        match error {
            StoreError::Locked {
                environment,
                holder: seen,
                expires_in,
            } => {
                assert_eq!((environment.as_str(), &*seen), ("dev", &holder("r1")));
                assert!(expires_in > Duration::ZERO && expires_in < Duration::from_secs(66));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(two.holder().await.unwrap().unwrap().0, holder("r1"));
    // Reads need no lock; the other environment is not locked.
    two.list().await.unwrap();
    bench
        .open("prod")
        .lock(&holder("r3"), NO_WAIT)
        .await
        .unwrap();

    // Somebody else's lock is never removed, not even by a lease with the right number.
    let mut forged = lease.clone();
    forged.holder.run_id = "r2".to_owned();
    drop(two.unlock(&forged).await);
    assert_eq!(two.holder().await.unwrap().unwrap().0, holder("r1"));
    one.unlock(&lease).await.unwrap();
    one.unlock(&lease).await.unwrap();
    assert_eq!(two.holder().await.unwrap(), None);
    let next = two.lock(&holder("r2"), NO_WAIT).await.unwrap();
    assert!(
        next.fence > lease.fence && next.taken_over.is_none(),
        "{next:?}"
    );
}

async fn a_lapsed_lease_is_taken_over_and_fenced(bench: &impl Bench) {
    let (one, two) = (bench.open("dev"), bench.open_elsewhere("dev"));
    let stale = one.lock(&holder("r1"), NO_WAIT).await.unwrap();
    one.put(&stale, &record("a", "one")).await.unwrap();
    // The watcher's wall clock says a day has passed, then that it is yesterday: neither counts.
    let now = tidegate::clock::Clock::now(bench.clock());
    for skew in [time::Duration::DAY, -time::Duration::DAY] {
        bench.clock().set_wall(now + skew);
        assert!(two.lock(&holder("r2"), NO_WAIT).await.is_err());
    }
    let before = tidegate::clock::Clock::monotonic(bench.clock());
    let lease = two
        .lock(&holder("r2"), Duration::from_secs(600))
        .await
        .unwrap();
    let waited = tidegate::clock::Clock::monotonic(bench.clock()) - before;
    let length = Renewal::DEFAULT.lease;
    assert!(
        waited >= length && waited <= length + Duration::from_secs(5),
        "{waited:?}"
    );
    assert_eq!(lease.taken_over.as_deref(), Some(&holder("r1")));

    let entry = Entry::End {
        run_id: "r1".to_owned(),
    };
    let keepsake = Keepsake {
        fingerprint: "f".into(),
        sealed: None,
        written_at: "t".into(),
    };
    for (what, refused) in [
        ("put", one.put(&stale, &record("a", "late")).await.map(drop)),
        ("delete", one.delete(&stale, &address("a")).await.map(drop)),
        ("renew", one.renew(&stale).await),
        ("unlock", one.unlock(&stale).await),
        ("append", one.journal_append(&stale, &[entry]).await),
        ("clear", one.journal_clear(&stale).await),
        ("keepsake", one.put_keepsake(&stale, "k", &keepsake).await),
        ("delete keepsake", one.delete_keepsake(&stale, "k").await),
        ("remove", one.remove_empty(stale.clone()).await),
    ] {
        assert!(
            matches!(refused, Err(StoreError::LostLock { .. })),
            "{what}: {refused:?}"
        );
    }
    assert_eq!(mark(&two.get(&address("a")).await.unwrap().unwrap()), "one");
    assert_eq!(two.journal_read().await.unwrap(), []);
    two.put(&lease, &record("a", "two")).await.unwrap();
}

async fn a_renewed_lease_does_not_lapse(bench: &impl Bench) {
    let (one, two) = (bench.open("dev"), bench.open_elsewhere("dev"));
    let lease = one.lock(&holder("r1"), NO_WAIT).await.unwrap();
    for _ in 0..40 {
        assert!(two.lock(&holder("r2"), NO_WAIT).await.is_err());
        bench.clock().advance(Renewal::DEFAULT.interval);
        one.renew(&lease).await.unwrap();
    }
    one.put(&lease, &record("a", "one")).await.unwrap();
}

async fn a_dropped_wait_leaves_nothing(bench: &impl Bench) {
    let (one, two) = (bench.open("dev"), bench.open("dev"));
    let lease = one.lock(&holder("r1"), NO_WAIT).await.unwrap();
    let r2 = holder("r2");
    let mut waiting = two.lock(&r2, Duration::from_secs(3600));
    tokio::select! {
        biased;
        taken = &mut waiting => panic!("{taken:?}"),
        () = tokio::task::yield_now() => {}
    }
    drop(waiting);
    one.put(&lease, &record("a", "one")).await.unwrap();
    one.unlock(&lease).await.unwrap();
    assert_eq!(two.holder().await.unwrap(), None);
    bench
        .open("dev")
        .lock(&holder("r3"), NO_WAIT)
        .await
        .unwrap();
}

async fn wiping_one_environment_leaves_its_sibling(bench: &impl Bench) {
    let (staging, sibling) = (bench.open("staging"), bench.open("staging2"));
    let lease = staging.lock(&holder("r1"), NO_WAIT).await.unwrap();
    let other = sibling.lock(&holder("r2"), NO_WAIT).await.unwrap();
    staging.put(&lease, &record("a", "one")).await.unwrap();
    sibling.put(&other, &record("a", "two")).await.unwrap();
    staging.delete(&lease, &address("a")).await.unwrap();
    staging.remove_empty(lease).await.unwrap();
    assert_eq!(staging.head().await.unwrap(), None);
    assert_eq!(
        mark(&sibling.get(&address("a")).await.unwrap().unwrap()),
        "two"
    );
    sibling.put(&other, &record("b", "three")).await.unwrap();
    // Again, with nothing left to remove.
    let lease = staging.lock(&holder("r3"), NO_WAIT).await.unwrap();
    staging.remove_empty(lease).await.unwrap();
    for name in ["a", "b"] {
        sibling.delete(&other, &address(name)).await.unwrap();
    }
    sibling.remove_empty(other).await.unwrap();
    assert!(bench.is_gone());
}

async fn a_newer_record_is_refused_and_kept(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    store.put(&lease, &record("a", "one")).await.unwrap();
    let mut newer = store.get(&address("a")).await.unwrap().unwrap();
    newer.tidegate.format = FORMAT + 1;
    bench.replace("dev", &newer);
    for error in [
        store.get(&address("a")).await.map(drop).unwrap_err(),
        store.list().await.map(drop).unwrap_err(),
        store
            .put(&lease, &record("a", "two"))
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        assert!(
            matches!(error, StoreError::Newer { found, known: FORMAT, .. } if found == FORMAT + 1),
            "{error:?}"
        );
    }
}

async fn unknown_fields_survive_a_writer_that_forgot_them(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    let mut first = record("a", "one");
    first.unknown = BTreeMap::from([("theirs".to_owned(), json!([1]))]);
    first.tidegate.unknown = BTreeMap::from([("later".to_owned(), json!({"x": 1}))]);
    store.put(&lease, &first).await.unwrap();
    store.put(&lease, &record("a", "two")).await.unwrap();
    let second = store.get(&address("a")).await.unwrap().unwrap();
    assert_eq!(mark(&second), "two");
    assert_eq!(second.unknown, first.unknown);
    assert_eq!(second.tidegate.unknown, first.tidegate.unknown);
}

fn intent(operation: &str) -> Entry {
    Entry::Intent {
        operation: operation.to_owned(),
        address: address("a"),
        kind: Kind::new("infra.storage"),
        provider: "here".to_owned(),
        action: ActionKind::Create,
        config_hash: "00".to_owned(),
        at: "2024-01-02T03:04:05Z".to_owned(),
    }
}

fn outcome(operation: &str) -> Entry {
    Entry::Outcome {
        operation: operation.to_owned(),
        outcome: "success".to_owned(),
    }
}

async fn journal_and_keepsakes_are_kept_in_order(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    store.journal_append(&lease, &[]).await.unwrap();
    store
        .journal_append(&lease, &[intent("1"), intent("2")])
        .await
        .unwrap();
    store.unlock(&lease).await.unwrap();
    let other = bench.open("dev");
    let lease = other.lock(&holder("r2"), NO_WAIT).await.unwrap();
    other.journal_append(&lease, &[outcome("1")]).await.unwrap();
    other.journal_append(&lease, &[outcome("2")]).await.unwrap();
    let expected = [intent("1"), intent("2"), outcome("1"), outcome("2")];
    assert_eq!(store.journal_read().await.unwrap(), expected);
    other.journal_clear(&lease).await.unwrap();
    other.journal_clear(&lease).await.unwrap();
    assert_eq!(store.journal_read().await.unwrap(), []);
    other.journal_append(&lease, &[intent("3")]).await.unwrap();
    assert_eq!(store.journal_read().await.unwrap(), [intent("3")]);

    let long = format!("sink/{}", "x".repeat(500));
    let keys = [
        "secret/b",
        "secret/a",
        "sink/.env/A",
        "sink/.env/a",
        long.as_str(),
    ];
    for key in keys {
        let value = Keepsake {
            fingerprint: format!("of {key}"),
            sealed: key.starts_with("secret").then(|| "sealed".to_owned()),
            written_at: "2024-01-02T03:04:05Z".to_owned(),
        };
        other.put_keepsake(&lease, key, &value).await.unwrap();
        assert_eq!(store.keepsake(key).await.unwrap(), Some(value));
    }
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    assert_eq!(store.keepsakes().await.unwrap(), sorted);
    other.delete_keepsake(&lease, "secret/a").await.unwrap();
    assert_eq!(store.keepsake("secret/a").await.unwrap(), None);
    assert!(store.keepsake("secret/b").await.unwrap().is_some());
}

async fn removal_is_refused_while_anything_is_open(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    store.put(&lease, &record("a", "one")).await.unwrap();
    assert!(store.remove_empty(lease.clone()).await.is_err());
    store.delete(&lease, &address("a")).await.unwrap();
    store.journal_append(&lease, &[intent("1")]).await.unwrap();
    assert!(store.remove_empty(lease.clone()).await.is_err());
    assert_eq!(store.journal_read().await.unwrap(), [intent("1")]);
    store.journal_append(&lease, &[outcome("1")]).await.unwrap();
    store.key(true).await.unwrap();
    store.remove_empty(lease.clone()).await.unwrap();
    assert!(bench.is_gone());
    // A lease of the removed environment is worth nothing in a new one with the same number.
    let lease_again = store.lock(&holder("r2"), NO_WAIT).await.unwrap();
    assert_eq!(lease_again.fence, lease.fence);
    assert!(store.put(&lease, &record("a", "late")).await.is_err());
}

async fn the_key_is_made_once(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    let key = store.key(true).await.unwrap().unwrap();
    assert_ne!(*key, [0; 32]);
    let again = bench.open("dev");
    assert_eq!(*again.key(false).await.unwrap().unwrap(), *key);
    assert_eq!(*again.key(true).await.unwrap().unwrap(), *key);
    let other = bench.open("prod");
    let other_lease = other.lock(&holder("r2"), NO_WAIT).await.unwrap();
    assert_ne!(*other.key(true).await.unwrap().unwrap(), *key);
    drop((lease, other_lease));
}

async fn serial_and_fence_only_grow(bench: &impl Bench) {
    let store = bench.open("dev");
    let mut last = None;
    for round in 0..3_u64 {
        let lease = store
            .lock(&holder(&format!("r{round}")), NO_WAIT)
            .await
            .unwrap();
        for name in ["a", "b"] {
            let serial = store.put(&lease, &record(name, "x")).await.unwrap();
            let head = bench.open("dev").head().await.unwrap().unwrap();
            assert_eq!((head.serial, head.fence), (serial, lease.fence));
            if let Some((lineage, before)) = last.replace((head.lineage.clone(), serial)) {
                assert_eq!((head.lineage, serial), (lineage, before + 1));
            }
        }
        store.unlock(&lease).await.unwrap();
        assert_eq!(store.head().await.unwrap().unwrap().fence, round + 1);
    }
}

struct Directory {
    // Held for its drop.
    _folder: tempfile::TempDir,
    root: PathBuf,
    clock: ManualClock,
}

impl Directory {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            root: folder.path().join(".tidegate/state"),
            _folder: folder,
            clock: manual_clock(),
        }
    }

    fn file(&self, environment: &str, name: &str) -> PathBuf {
        let encode = tidegate::state::name::encode;
        self.root
            .join(encode(environment))
            .join("records")
            .join(format!("{}.json", encode(name)))
    }
}

impl Bench for Directory {
    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    fn open(&self, environment: &str) -> Arc<dyn Store> {
        let store = store_on(Arc::new(SystemDisk), &self.root, environment, &self.clock);
        Arc::new(store.with_machine("here"))
    }

    fn open_elsewhere(&self, environment: &str) -> Arc<dyn Store> {
        let store = store_on(Arc::new(SystemDisk), &self.root, environment, &self.clock);
        Arc::new(store.with_machine("elsewhere"))
    }

    fn damage(&self, environment: &str, name: &str) {
        let path = self.file(environment, name);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }

    fn replace(&self, environment: &str, record: &Record) {
        use sha2::Digest as _;
        // By hand: our own encoder refuses to write a format that it does not know.
        let text = serde_json::to_string_pretty(record).unwrap();
        let body = text.strip_suffix("\n}").unwrap();
        let sum = tidegate::random::encode_hex(&sha2::Sha256::digest(body.as_bytes()));
        let text = format!("{body},\n  \"tidegate_checksum\": \"{sum}\"\n}}\n");
        std::fs::write(self.file(environment, record.resource_id.as_str()), text).unwrap();
    }

    fn is_gone(&self) -> bool {
        !self.root.parent().expect("a parent").exists()
    }
}

#[test]
fn the_directory_store_keeps_the_contract() {
    store_contract(Directory::new);
}
