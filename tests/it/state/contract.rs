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
use tidegate::state::{
    Entry, Expected, Filter, Keepsake, Lease, Listing, Memory, Page, Record, Renewal, Salvage,
    Snapshot, Store, StoreError, unless_cancelled,
};

use super::{NO_WAIT, address, holder, manual_clock, mark, record, store_on};

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
    /// False for a store whose stored form nobody can reach.
    fn can_be_damaged(&self) -> bool {
        true
    }
    /// How often the storage behind the handles was asked something.
    fn questions(&self) -> u64 {
        0
    }
    /// True for a server behind a program of its own: a write that was given up may still be done.
    fn is_remote(&self) -> bool {
        false
    }
    /// Time passes, for the handles and for whoever judges leases.
    async fn pass(&self, time: Duration) {
        self.clock().advance(time);
    }
}

/// Every promise of a store, each a test of its own on a fresh storage. Numbers are the rows of the
/// conformance list.
macro_rules! store_contract {
    ($fresh:expr) => {
        store_contract! { @each $fresh;
            row_01_an_empty_store_answers_nothing,
            row_02_every_field_survives_reopening,
            row_03_a_second_write_keeps_the_creation_time,
            row_04_of_two_writers_one_succeeds,
            row_04b_a_lost_race_is_a_conflict_and_never_an_overwrite,
            row_05_awkward_names_stay_distinct,
            row_06_a_dropped_write_is_whole_or_absent,
            row_07_one_damaged_record_fails_the_list_by_name,
            row_08_deleting_what_is_absent_succeeds,
            row_09_a_held_lock_refuses_and_names_its_holder,
            row_10_a_lapsed_lease_is_taken_over_and_fenced,
            row_11_a_cancelled_call_ends_promptly,
            row_12_a_list_of_many_is_not_one_question_each,
            row_13_wiping_one_environment_leaves_its_sibling,
            row_13b_a_full_environment_is_wiped_and_named,
            row_14_filters_are_conjunctions_and_pages_follow,
            row_15_a_newer_record_is_refused_and_kept,
            a_damaged_state_is_salvaged_and_put_right,
            a_dropped_wait_leaves_nothing,
            a_record_of_the_first_format_is_read_and_written_on,
            a_renewed_lease_does_not_lapse,
            a_state_moves_into_another_store_as_it_is,
            journal_and_keepsakes_are_kept_in_order,
            removal_is_refused_while_anything_is_open,
            a_version_never_comes_again,
            serial_and_fence_only_grow,
            the_key_is_made_once,
            the_lock_is_freed_by_its_own_id_only,
            unknown_fields_survive_a_writer_that_forgot_them,
        }
    };
    (@each $fresh:expr; $($promise:ident,)+) => {
        $(
            #[test]
            fn $promise() {
                let Some(bench) = $fresh else {
                    return;
                };
                crate::state::run(crate::state::contract::$promise(&bench));
            }
        )+
    };
}

pub(crate) use store_contract;

pub(super) async fn row_01_an_empty_store_answers_nothing(bench: &impl Bench) {
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

pub(super) async fn row_02_every_field_survives_reopening(bench: &impl Bench) {
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

pub(super) async fn row_03_a_second_write_keeps_the_creation_time(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    store.put(&lease, &record("a", "one")).await.unwrap();
    let first = store.get(&address("a")).await.unwrap().unwrap();
    bench.pass(Duration::from_secs(10)).await;
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

pub(super) async fn row_04_of_two_writers_one_succeeds(bench: &impl Bench) {
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

pub(super) async fn row_05_awkward_names_stay_distinct(bench: &impl Bench) {
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

pub(super) async fn row_07_one_damaged_record_fails_the_list_by_name(bench: &impl Bench) {
    if !bench.can_be_damaged() {
        return;
    }
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

pub(super) async fn row_08_deleting_what_is_absent_succeeds(bench: &impl Bench) {
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

pub(super) async fn row_09_a_held_lock_refuses_and_names_its_holder(bench: &impl Bench) {
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

pub(super) async fn row_10_a_lapsed_lease_is_taken_over_and_fenced(bench: &impl Bench) {
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
    let started = std::time::Instant::now();
    let lease = two
        .lock(&holder("r2"), Duration::from_secs(600))
        .await
        .unwrap();
    let waited = tidegate::clock::Clock::monotonic(bench.clock()) - before;
    let length = Renewal::DEFAULT.lease;
    // Where a server judges, what really passed counts for it too.
    assert!(
        waited + started.elapsed() >= length && waited <= length + Duration::from_secs(5),
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

pub(super) async fn a_renewed_lease_does_not_lapse(bench: &impl Bench) {
    let (one, two) = (bench.open("dev"), bench.open_elsewhere("dev"));
    let lease = one.lock(&holder("r1"), NO_WAIT).await.unwrap();
    for _ in 0..40 {
        assert!(two.lock(&holder("r2"), NO_WAIT).await.is_err());
        bench.pass(Renewal::DEFAULT.interval).await;
        one.renew(&lease).await.unwrap();
    }
    one.put(&lease, &record("a", "one")).await.unwrap();
}

pub(super) async fn a_dropped_wait_leaves_nothing(bench: &impl Bench) {
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

pub(super) async fn row_13_wiping_one_environment_leaves_its_sibling(bench: &impl Bench) {
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

pub(super) async fn row_15_a_newer_record_is_refused_and_kept(bench: &impl Bench) {
    if !bench.can_be_damaged() {
        return;
    }
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

pub(super) async fn a_record_of_the_first_format_is_read_and_written_on(bench: &impl Bench) {
    if !bench.can_be_damaged() {
        return;
    }
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    store.put(&lease, &record("a", "one")).await.unwrap();
    let ours = store.get(&address("a")).await.unwrap().unwrap();
    // The same record as JSON, as it was written then.
    bench.replace("dev", &ours);
    assert_eq!(
        store.get(&address("a")).await.unwrap().as_ref(),
        Some(&ours)
    );
    assert_eq!(store.list().await.unwrap(), [ours]);
    let expected = Expected::Version(1);
    store
        .put_if(&lease, &record("a", "two"), &expected)
        .await
        .unwrap();
    let again = store.get(&address("a")).await.unwrap().unwrap();
    assert_eq!((again.tidegate.version, mark(&again)), (2, "two"));
    store.delete(&lease, &address("a")).await.unwrap();
    assert_eq!(store.list().await.unwrap(), []);
}

pub(super) async fn unknown_fields_survive_a_writer_that_forgot_them(bench: &impl Bench) {
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
        before: tidegate::state::journal::Before::default(),
    }
}

fn outcome(operation: &str) -> Entry {
    Entry::Outcome {
        operation: operation.to_owned(),
        outcome: "success".to_owned(),
    }
}

pub(super) async fn journal_and_keepsakes_are_kept_in_order(bench: &impl Bench) {
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

pub(super) async fn removal_is_refused_while_anything_is_open(bench: &impl Bench) {
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

pub(super) async fn the_key_is_made_once(bench: &impl Bench) {
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

/// A record that was removed and made anew is another one, and its version says so.
pub(super) async fn a_version_never_comes_again(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        for _ in 0..2 {
            let serial = store.put(&lease, &record("a", "x")).await.unwrap();
            let record = store.get(&address("a")).await.unwrap().unwrap();
            assert!(record.tidegate.version <= serial);
            seen.push(record.tidegate.version);
        }
        store.delete(&lease, &address("a")).await.unwrap();
    }
    assert!(seen.is_sorted_by(|one, two| one < two), "{seen:?}");
    let of_old = store
        .put_if(&lease, &record("a", "y"), &Expected::Version(1))
        .await;
    assert!(matches!(of_old, Err(StoreError::Conflict { .. })));
}

pub(super) async fn serial_and_fence_only_grow(bench: &impl Bench) {
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

pub(super) async fn row_04b_a_lost_race_is_a_conflict_and_never_an_overwrite(bench: &impl Bench) {
    let (one, two) = (bench.open("dev"), bench.open("dev"));
    let lease = one.lock(&holder("r1"), NO_WAIT).await.unwrap();
    let conflict = |result: Result<u64, StoreError>| {
        assert!(
            matches!(result, Err(StoreError::Conflict { .. })),
            "{result:?}"
        );
    };
    one.put_if(&lease, &record("a", "base"), &Expected::Absent)
        .await
        .unwrap();
    conflict(
        two.put_if(&lease, &record("a", "x"), &Expected::Absent)
            .await,
    );
    conflict(
        two.put_if(&lease, &record("b", "x"), &Expected::Version(1))
            .await,
    );
    // Both have seen version `round`; exactly one of them may go on from it.
    for round in 1..=20 {
        let expected = Expected::Version(round);
        let (left, right) = (record("a", "left"), record("a", "right"));
        let results = futures_util::future::join(
            one.put_if(&lease, &left, &expected),
            two.put_if(&lease, &right, &expected),
        )
        .await;
        let winner = match results {
            (Ok(_), Err(StoreError::Conflict { .. })) => "left",
            (Err(StoreError::Conflict { .. }), Ok(_)) => "right",
            other => panic!("round {round}: {other:?}"),
        };
        let now = one.get(&address("a")).await.unwrap().unwrap();
        assert_eq!((mark(&now), now.tidegate.version), (winner, round + 1));
    }
    let head = one.head().await.unwrap().unwrap();
    let serial = |lineage: &str, serial| Expected::Serial {
        lineage: lineage.to_owned(),
        serial,
    };
    for wrong in [
        serial(&head.lineage, head.serial - 1),
        serial("another", head.serial),
    ] {
        conflict(two.put_if(&lease, &record("b", "x"), &wrong).await);
    }
    let right = serial(&head.lineage, head.serial);
    two.put_if(&lease, &record("b", "x"), &right).await.unwrap();
    assert_eq!(two.list().await.unwrap().len(), 2);
}

pub(super) async fn row_06_a_dropped_write_is_whole_or_absent(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    store.put(&lease, &record("a", "0")).await.unwrap();
    let mut before = 0;
    for polls in 0..40 {
        // Given up after this many steps; kills of whole processes are in `lock` and `faults`.
        let next = record("a", &(polls + 1).to_string());
        let mut write = store.put(&lease, &next);
        for _ in 0..polls {
            let stopped = tokio::select! {
                biased;
                done = &mut write => Some(done),
                () = tokio::task::yield_now() => None,
            };
            if let Some(done) = stopped {
                done.unwrap();
                write = store.put(&lease, &next);
                break;
            }
        }
        drop(write);
        let now = bench.open("dev").get(&address("a")).await.unwrap().unwrap();
        let mark: u64 = mark(&now).parse().unwrap();
        assert!(
            mark == before || mark == polls + 1 || (bench.is_remote() && mark <= polls),
            "{before}, {polls}: {mark}"
        );
        before = mark;
    }
    store.put(&lease, &record("a", "last")).await.unwrap();
    let now = store.get(&address("a")).await.unwrap().unwrap();
    assert_eq!(self::mark(&now), "last");
}

/// Writes many records, all at once where one after another would take minutes.
async fn fill(bench: &impl Bench, store: &dyn Store, lease: &Lease, count: usize) {
    let names = (0..count).map(|index| format!("r-{index:04}"));
    if !bench.is_remote() {
        for name in names {
            store.put(lease, &record(&name, "x")).await.unwrap();
        }
        return;
    }
    store.put(lease, &record("r-0000", "x")).await.unwrap();
    let mut snapshot = store.snapshot().await.unwrap().unwrap();
    let first = snapshot.records[0].clone();
    snapshot.records = names
        .map(|name| Record {
            resource_id: address(&name),
            ..first.clone()
        })
        .collect();
    store.load(lease, &snapshot, None).await.unwrap();
}

pub(super) async fn row_11_a_cancelled_call_ends_promptly(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    fill(bench, &*store, &lease, 300).await;
    let (canceller, cancel) = tidegate::cancel::pair();
    let all = unless_cancelled(&cancel, store.list()).await.unwrap();
    assert_eq!(all.len(), 300);
    canceller.cancel();
    let other = holder("r2");
    for result in [
        unless_cancelled(&cancel, store.list()).await.map(drop),
        unless_cancelled(&cancel, store.get(&address("r-0001")))
            .await
            .map(drop),
        unless_cancelled(&cancel, store.put(&lease, &record("late", "x")))
            .await
            .map(drop),
        unless_cancelled(&cancel, store.lock(&other, Duration::from_secs(900)))
            .await
            .map(drop),
    ] {
        assert!(matches!(result, Err(StoreError::Cancelled)), "{result:?}");
    }
    // Nothing partial came of it, and the store goes on working.
    assert_eq!(store.get(&address("late")).await.unwrap(), None);
    assert_eq!(store.list().await.unwrap(), all);
}

pub(super) async fn row_12_a_list_of_many_is_not_one_question_each(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    fill(bench, &*store, &lease, 1000).await;
    let before = bench.questions();
    assert_eq!(bench.open("dev").list().await.unwrap().len(), 1000);
    // With latency in front of the server, what counts is how often it is asked.
    let asked = bench.questions() - before;
    assert!(asked <= 20, "{asked} questions for 1000 records");
}

pub(super) async fn a_damaged_state_is_salvaged_and_put_right(bench: &impl Bench) {
    if !bench.can_be_damaged() {
        return;
    }
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    for name in ["a", "b/c", "d"] {
        store.put(&lease, &record(name, "one")).await.unwrap();
    }
    store.key(true).await.unwrap();
    let copy = store.snapshot().await.unwrap().unwrap();
    bench.damage("dev", "b/c");
    bench.damage("dev", "d");
    let fresh = bench.open("dev");
    assert!(matches!(
        fresh.snapshot().await,
        Err(StoreError::Corrupt { .. })
    ));
    // Every one is named, and what is whole is there.
    let salvage = Salvage::of(&*fresh).await.unwrap().unwrap();
    let names = |snapshot: &Snapshot| -> Vec<String> {
        let records = snapshot.records.iter();
        records
            .map(|record| record.resource_id.to_string())
            .collect()
    };
    assert_eq!(names(&salvage.snapshot), ["a"]);
    let mut damaged: Vec<&str> = salvage
        .damage
        .iter()
        .filter_map(|damage| damage.name.as_deref())
        .collect();
    damaged.sort_unstable();
    assert_eq!(damaged, ["b/c", "d"], "{:?}", salvage.damage);
    assert_eq!(salvage.damage.len(), 2, "{:?}", salvage.damage);
    // What can be read becomes the state, or a copy does.
    let read = &salvage.snapshot;
    assert_eq!((&read.lineage, read.serial), (&copy.lineage, copy.serial));
    store.load(&lease, read, None).await.unwrap();
    assert_eq!(
        names(&bench.open("dev").snapshot().await.unwrap().unwrap()),
        ["a"]
    );
    store.load(&lease, &copy, None).await.unwrap();
    assert_eq!(bench.open("dev").snapshot().await.unwrap().unwrap(), copy);
    let whole = Salvage::of(&*bench.open("dev")).await.unwrap().unwrap();
    assert!(whole.damage.is_empty() && whole.snapshot == copy);
    // And a damaged one can be removed as a whole.
    bench.damage("dev", "d");
    store.wipe_damaged(lease).await.unwrap();
    assert_eq!(bench.open("dev").head().await.unwrap(), None);
    assert!(bench.is_gone());
}

pub(super) async fn row_13b_a_full_environment_is_wiped_and_named(bench: &impl Bench) {
    let (staging, sibling) = (bench.open("staging"), bench.open("staging2"));
    let lease = staging.lock(&holder("r1"), NO_WAIT).await.unwrap();
    let other = sibling.lock(&holder("r2"), NO_WAIT).await.unwrap();
    for name in ["b", "a", "c/d"] {
        staging.put(&lease, &record(name, "one")).await.unwrap();
        sibling.put(&other, &record(name, "two")).await.unwrap();
    }
    staging.key(true).await.unwrap();
    staging
        .journal_append(&lease, &[intent("1")])
        .await
        .unwrap();
    let keepsake = Keepsake {
        fingerprint: "f".into(),
        sealed: None,
        written_at: "t".into(),
    };
    staging.put_keepsake(&lease, "k", &keepsake).await.unwrap();
    assert_eq!(
        staging.environments().await.unwrap(),
        ["staging", "staging2"]
    );
    let gone = staging.wipe(lease).await.unwrap();
    assert_eq!(gone, ["a", "b", "c/d"].map(address));
    assert_eq!(staging.head().await.unwrap(), None);
    assert_eq!(sibling.environments().await.unwrap(), ["staging2"]);
    assert_eq!(sibling.list().await.unwrap().len(), 3);
    // Again: nothing is left to remove.
    let lease = staging.lock(&holder("r3"), NO_WAIT).await.unwrap();
    assert_eq!(staging.wipe(lease).await.unwrap(), []);
    assert_eq!(sibling.list().await.unwrap().len(), 3);
}

pub(super) async fn row_14_filters_are_conjunctions_and_pages_follow(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    for (name, kind, provider) in [
        ("a", "infra.dns", "local"),
        ("b", "infra.dns", "aws"),
        ("c", "infra.storage", "aws"),
        ("d", "infra.dns", "aws"),
    ] {
        let mut record = record(name, "x");
        record.resource_type = kind.to_owned();
        record.provider = provider.to_owned();
        store.put(&lease, &record).await.unwrap();
    }
    let names = |listing: &Listing| -> Vec<String> {
        let names = listing
            .records
            .iter()
            .map(|record| record.resource_id.to_string());
        names.collect()
    };
    let filter = Filter::parse([("resource_type", "infra.dns"), ("provider", "aws")]).unwrap();
    let all = store.find(&filter, &Page::default()).await.unwrap();
    assert_eq!(
        (names(&all), all.next),
        (vec!["b".to_owned(), "d".to_owned()], None)
    );
    let mut page = Page {
        after: None,
        limit: Some(1),
    };
    let first = store.find(&filter, &page).await.unwrap();
    assert_eq!(
        (names(&first), &first.next),
        (vec!["b".to_owned()], &Some(address("b")))
    );
    page.after = first.next;
    let second = store.find(&filter, &page).await.unwrap();
    assert_eq!((names(&second), second.next), (vec!["d".to_owned()], None));
    assert!(matches!(
        Filter::parse([("name", "a")]),
        Err(StoreError::Invalid(_))
    ));
}

pub(super) async fn a_state_moves_into_another_store_as_it_is(bench: &impl Bench) {
    let store = bench.open("dev");
    let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
    let key = store.key(true).await.unwrap().unwrap();
    for name in ["a", "b", "b", "c"] {
        store.put(&lease, &record(name, "one")).await.unwrap();
    }
    let mut sealed = record("c", "two");
    sealed.tidegate.private = "BBBB".to_owned();
    store.put(&lease, &sealed).await.unwrap();
    let keepsake = Keepsake {
        fingerprint: "f".into(),
        sealed: Some("AAAA".into()),
        written_at: "t".into(),
    };
    store
        .put_keepsake(&lease, "secret/x", &keepsake)
        .await
        .unwrap();
    store
        .journal_append(&lease, &[intent("1"), outcome("1")])
        .await
        .unwrap();
    let before = store.snapshot().await.unwrap().unwrap();
    assert_eq!(before.sealed_values(), 2);
    assert!(tidegate::state::is_key_of(&before, &key));
    assert!(!tidegate::state::is_key_of(&before, &[0; 32]));

    // Away to a store in memory, changed here meanwhile, and back.
    let shared = tidegate::state::memory::Shared::default();
    let clock: Arc<dyn tidegate::clock::Clock> = Arc::new(bench.clock().clone());
    let random: Arc<dyn tidegate::random::Random> =
        Arc::new(tidegate::random::SeededRandom::new(77));
    let away = Memory::open(shared, "dev", clock, random).unwrap();
    let there = away.lock(&holder("r1"), NO_WAIT).await.unwrap();
    away.load(&there, &before, Some(&*key)).await.unwrap();
    assert_eq!(*away.key(false).await.unwrap().unwrap(), *key);
    let copied = away.snapshot().await.unwrap().unwrap();
    assert_eq!(copied.digest().unwrap(), before.digest().unwrap());
    assert_eq!(
        (&copied.lineage, copied.serial),
        (&before.lineage, before.serial)
    );
    store.put(&lease, &record("a", "two")).await.unwrap();
    store.put(&lease, &record("d", "two")).await.unwrap();
    store.load(&lease, &copied, None).await.unwrap();
    let after = bench.open("dev").snapshot().await.unwrap().unwrap();
    assert_eq!(after, before);
    // The key that opens it is there, and only what is sealed with another one brings that along.
    let wrong = store.load(&lease, &before, Some(&[9; 32])).await;
    assert!(wrong.is_err());
    assert_eq!(*store.key(false).await.unwrap().unwrap(), *key);
    let unsealed = Snapshot {
        key_check: String::new(),
        ..copied.clone()
    };
    store.load(&lease, &unsealed, Some(&[9; 32])).await.unwrap();
    let moved = bench.open("dev");
    assert_eq!(*moved.key(false).await.unwrap().unwrap(), [9; 32]);
    let moved = moved.snapshot().await.unwrap().unwrap();
    assert!(tidegate::state::is_key_of(&moved, &[9; 32]));
    assert_eq!(moved.digest().unwrap(), before.digest().unwrap());
    let mut foreign = before.clone();
    foreign.environment = "prod".to_owned();
    assert!(store.load(&lease, &foreign, None).await.is_err());
}

pub(super) async fn the_lock_is_freed_by_its_own_id_only(bench: &impl Bench) {
    let (one, two) = (bench.open("dev"), bench.open_elsewhere("dev"));
    assert_eq!(two.force_unlock("r1").await.unwrap(), None);
    let lease = one.lock(&holder("r1"), NO_WAIT).await.unwrap();
    match two.force_unlock("r2").await {
        Err(StoreError::Locked { holder: seen, .. }) => assert_eq!(*seen, holder("r1")),
        other => panic!("{other:?}"),
    }
    one.put(&lease, &record("a", "one")).await.unwrap();
    assert_eq!(two.force_unlock("r1").await.unwrap(), Some(holder("r1")));
    assert_eq!(two.holder().await.unwrap(), None);
    let late = one.put(&lease, &record("a", "late")).await;
    assert!(matches!(late, Err(StoreError::LostLock { .. })), "{late:?}");
    let next = two.lock(&holder("r3"), NO_WAIT).await.unwrap();
    assert!(next.fence > lease.fence && next.taken_over.is_none());
    assert!(matches!(
        one.renew(&lease).await,
        Err(StoreError::LostLock { .. })
    ));
    assert_eq!(mark(&two.get(&address("a")).await.unwrap().unwrap()), "one");
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
            .join(format!("{}.cbor", encode(name)))
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

mod filesystem {
    super::store_contract!(Some(super::Directory::new()));
}

/// Everything in this process: bytes nobody else can reach.
struct InMemory {
    shared: tidegate::state::memory::Shared,
    clock: ManualClock,
}

impl InMemory {
    fn new() -> Self {
        Self {
            shared: tidegate::state::memory::Shared::default(),
            clock: manual_clock(),
        }
    }
}

impl Bench for InMemory {
    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    fn open(&self, environment: &str) -> Arc<dyn Store> {
        Arc::new(
            Memory::open(
                self.shared.clone(),
                environment,
                Arc::new(self.clock.clone()),
                Arc::new(tidegate::random::SystemRandom),
            )
            .unwrap(),
        )
    }

    fn open_elsewhere(&self, environment: &str) -> Arc<dyn Store> {
        self.open(environment)
    }

    fn damage(&self, _environment: &str, _name: &str) {
        unreachable!("asked before");
    }

    fn replace(&self, _environment: &str, _record: &Record) {
        unreachable!("asked before");
    }

    fn is_gone(&self) -> bool {
        self.shared.is_empty()
    }

    fn can_be_damaged(&self) -> bool {
        false
    }
}

mod memory {
    super::store_contract!(Some(super::InMemory::new()));
}
