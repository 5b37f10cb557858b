//! State in a storage that a plugin serves: the contract over a shelf of objects with and without
//! compare-and-swap, then the real plugin in front of a real S3 server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tidegate::clock::ManualClock;
use tidegate::process::{Processes as _, SystemProcesses};
use tidegate::random::SystemRandom;
use tidegate::state::lease::Neighbours;
use tidegate::state::served::{Before, Object, Served, Shelf};
use tidegate::state::{Entry, Keepsake, Record, Store, StoreError, StoreResult};

use super::cloud::Moto;
use super::contract::{Bench, store_contract};
use super::{NO_WAIT, address, holder, manual_clock, mark, record, run};
use crate::harness::{self, Run};

/// Objects in this process. Every call gives way once, as one that crosses a wire does.
#[derive(Debug, Default)]
struct Fake {
    compares: bool,
    objects: Mutex<BTreeMap<String, Object>>,
    locked: Mutex<BTreeSet<String>>,
    questions: AtomicU64,
    /// Saves of this id stop here until they are let go.
    held_up: tokio::sync::RwLock<Option<String>>,
    gate: tokio::sync::Notify,
}

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    async fn asked(&self) {
        self.questions.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }

    async fn wait_for_gate(&self, id: &str) {
        let is_held = self.held_up.read().await.as_deref() == Some(id);
        if is_held {
            self.gate.notified().await;
        }
    }

    fn id_of(&self, environment: &str, name: &str) -> String {
        let encode = tidegate::state::name::encode;
        let (room, end) = (
            format!("!room!{}!", encode(environment)),
            format!("!record!{}", encode(name)),
        );
        let objects = open(&self.objects);
        let mut ids = objects
            .keys()
            .filter(|id| id.contains(&room) && id.ends_with(&end));
        ids.next().expect("the record").clone()
    }
}

#[async_trait]
impl Shelf for Fake {
    fn place(&self) -> String {
        "a fake shelf".to_owned()
    }

    fn compares(&self) -> bool {
        self.compares
    }

    async fn get(&self, id: &str) -> StoreResult<Option<Object>> {
        self.asked().await;
        Ok(open(&self.objects).get(id).cloned())
    }

    async fn children(&self, parent: &str) -> StoreResult<Vec<Object>> {
        self.asked().await;
        let objects = open(&self.objects);
        let children = objects
            .values()
            .filter(|object| Object::parent(&object.id) == parent);
        Ok(children.cloned().collect())
    }

    async fn under(&self, ancestor: &str) -> StoreResult<Vec<String>> {
        self.asked().await;
        let start = format!("{ancestor}!");
        let objects = open(&self.objects);
        let below = objects.keys().filter(|id| id.starts_with(&start));
        Ok(below.cloned().collect())
    }

    async fn save_if(&self, object: &Object, before: Before<'_>) -> StoreResult<bool> {
        assert!(self.compares, "a shelf that cannot compare was asked to");
        self.wait_for_gate(&object.id).await;
        self.asked().await;
        let mut objects = open(&self.objects);
        let holds = before.holds(objects.get(&object.id));
        if holds {
            objects.insert(object.id.clone(), object.clone());
        }
        Ok(holds)
    }

    async fn save(&self, object: &Object) -> StoreResult<()> {
        self.asked().await;
        open(&self.objects).insert(object.id.clone(), object.clone());
        Ok(())
    }

    async fn delete(&self, id: &str) -> StoreResult<()> {
        self.asked().await;
        open(&self.objects).remove(id);
        Ok(())
    }

    async fn lock(&self, id: &str) -> StoreResult<()> {
        self.asked().await;
        if open(&self.locked).insert(id.to_owned()) {
            Ok(())
        } else {
            Err(StoreError::Storage("locked".to_owned()))
        }
    }

    async fn unlock(&self, id: &str) -> StoreResult<()> {
        self.asked().await;
        open(&self.locked).remove(id);
        Ok(())
    }
}

struct OnShelf {
    fake: Arc<Fake>,
    clock: ManualClock,
}

impl OnShelf {
    fn new(compares: bool) -> Self {
        let fake = Fake {
            compares,
            ..Fake::default()
        };
        Self {
            fake: Arc::new(fake),
            clock: manual_clock(),
        }
    }

    fn store(&self, environment: &str) -> Served {
        let shelf: Arc<dyn Shelf> = Arc::clone(&self.fake) as _;
        let clock = Arc::new(self.clock.clone());
        Served::open(shelf, "shop", environment, clock, Arc::new(SystemRandom)).expect("a store")
    }
}

impl Bench for OnShelf {
    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    fn open(&self, environment: &str) -> Arc<dyn Store> {
        Arc::new(self.store(environment))
    }

    fn open_elsewhere(&self, environment: &str) -> Arc<dyn Store> {
        self.open(environment)
    }

    fn damage(&self, environment: &str, name: &str) {
        let id = self.fake.id_of(environment, name);
        let mut objects = open(&self.fake.objects);
        let content = objects
            .get_mut(&id)
            .and_then(|object| object.content.as_mut());
        let content = content.expect("a record");
        content.truncate(content.len() / 2);
    }

    fn replace(&self, environment: &str, record: &Record) {
        let text = checksummed(&serde_json::to_value(record).unwrap());
        let id = self.fake.id_of(environment, record.resource_id.as_str());
        let mut objects = open(&self.fake.objects);
        objects.get_mut(&id).expect("a record").content = Some(text);
    }

    fn is_gone(&self) -> bool {
        open(&self.fake.objects).is_empty()
    }

    fn questions(&self) -> u64 {
        self.fake.questions.load(Ordering::Relaxed)
    }
}

/// A JSON document with its checksum, as it is kept.
fn checksummed(value: &serde_json::Value) -> String {
    use sha2::Digest as _;
    let text = serde_json::to_string_pretty(value).unwrap();
    let body = text.strip_suffix("\n}").unwrap();
    let sum = tidegate::random::encode_hex(&sha2::Sha256::digest(body.as_bytes()));
    format!("{body},\n  \"tidegate_checksum\": \"{sum}\"\n}}\n")
}

mod comparing {
    use super::store_contract;
    store_contract!(Some(super::OnShelf::new(true)));
}

mod by_hand {
    use super::store_contract;
    store_contract!(Some(super::OnShelf::new(false)));
}

/// A storage that cannot compare has a lock without lease or owner: who was killed while he held it
/// leaves it there, and only his own run's id frees it.
#[test]
fn a_storage_lock_of_a_killed_run_is_freed_with_its_id() {
    run(async {
        let bench = OnShelf::new(false);
        let (one, two) = (bench.store("dev"), bench.store("dev"));
        let lease = one.lock(&holder("r1"), NO_WAIT).await.unwrap();
        let taken = "tidegate!shop!head!dev";
        open(&bench.fake.locked).insert(taken.to_owned());
        let stuck = two.put(&lease, &record("web", "new")).await.unwrap_err();
        let report = tidegate::report::Report::from(stuck);
        assert_eq!(report.code, "state/guarded");
        assert_eq!(report.exit, tidegate::report::Exit::Locked);
        assert!(two.force_unlock("another").await.is_err());
        assert!(open(&bench.fake.locked).contains(taken));
        assert!(two.force_unlock("r1").await.unwrap().is_some());
        assert!(two.lock(&holder("r2"), NO_WAIT).await.is_ok());
    });
}

/// The next run on his machine knows that he is dead, and waits for nobody to free it.
#[test]
fn a_storage_lock_of_a_run_that_is_known_dead_is_freed_with_its_own() {
    run(async {
        let processes = Arc::new(SystemProcesses::default());
        // Our own number with another start: whoever had it has ended.
        let mark = processes.own_mark().replacen(' ', "0 ", 1);
        assert!(processes.is_certainly_gone(&mark));
        let bench = OnShelf::new(false);
        let dead = tidegate::state::Holder {
            mark,
            ..holder("r1")
        };
        bench.store("dev").lock(&dead, NO_WAIT).await.unwrap();
        open(&bench.fake.locked).insert("tidegate!shop!head!dev".to_owned());
        let stranger = bench.store("dev").lock(&holder("r2"), NO_WAIT).await;
        assert!(matches!(stranger, Err(StoreError::Locked { .. })));
        let next = bench
            .store("dev")
            .with_neighbours(Neighbours::new(processes));
        assert!(next.lock(&holder("r2"), NO_WAIT).await.is_ok());
    });
}

/// The write of a holder that was stopped after it had announced it, and wakes when somebody else
/// holds the lock, changes nothing: not a record that was there, and not one that was not.
#[test]
fn an_announced_write_that_comes_too_late_is_refused() {
    for name in ["there", "new"] {
        run(async {
            let bench = OnShelf::new(true);
            let (one, two) = (bench.store("dev"), bench.store("dev"));
            let lease = one.lock(&holder("r1"), NO_WAIT).await.unwrap();
            one.put(&lease, &record("there", "first")).await.unwrap();
            let id = bench.fake.id_of("dev", "there");
            let id = id.replace("!record!there", &format!("!record!{name}"));
            *bench.fake.held_up.write().await = Some(id.clone());
            let next = record(name, "late");
            let mut late = one.put(&lease, &next);
            for _ in 0..50 {
                tokio::select! {
                    biased;
                    done = &mut late => panic!("it was not held up: {done:?}"),
                    () = tokio::task::yield_now() => {}
                }
            }
            *bench.fake.held_up.write().await = None;
            two.force_unlock("r1").await.unwrap();
            let other = two.lock(&holder("r2"), NO_WAIT).await.unwrap();
            bench.fake.gate.notify_waiters();
            let late = late.await;
            assert!(matches!(late, Err(StoreError::LostLock { .. })), "{late:?}");
            let now = two.get(&address(name)).await.unwrap();
            let expected = (name == "there").then_some("first");
            assert_eq!(now.as_ref().map(mark), expected);
            two.put(&other, &record(name, "second")).await.unwrap();
            // What was announced and never done is not missing either.
            let all = bench.store("dev").list().await.unwrap();
            assert_eq!(all.len(), if name == "new" { 2 } else { 1 });
        });
    }
}

/// A list that is short of an object, and an object that is not the last one of its name, are errors:
/// nothing else tells that a bucket lost it, or that a plugin leaves out what it cannot read.
#[test]
fn what_vanishes_from_a_storage_is_missed() {
    for compares in [true, false] {
        run(async {
            let bench = OnShelf::new(compares);
            let store = bench.store("dev");
            let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
            for name in ["a", "b", "gone"] {
                store.put(&lease, &record(name, "first")).await.unwrap();
            }
            store.delete(&lease, &address("gone")).await.unwrap();
            let kept = Keepsake {
                fingerprint: "f".to_owned(),
                sealed: None,
                written_at: "t".to_owned(),
            };
            for key in ["secret/one", "secret/two"] {
                store.put_keepsake(&lease, key, &kept).await.unwrap();
            }
            let before = open(&bench.fake.objects).clone();
            let copy = store.snapshot().await.unwrap().unwrap();
            store.put(&lease, &record("b", "second")).await.unwrap();
            store.unlock(&lease).await.unwrap();
            let id = bench.fake.id_of("dev", "b");

            let missed = async |told: &str| {
                let fresh = bench.store("dev");
                for answer in [
                    fresh.list().await.map(drop),
                    fresh.snapshot().await.map(drop),
                    bench.store("dev").list().await.map(drop),
                ] {
                    match answer {
                        Err(StoreError::Corrupt { reason, .. }) => {
                            assert!(reason.contains(told), "{reason}");
                        }
                        other => panic!("{other:?}"),
                    }
                }
            };
            let now = open(&bench.fake.objects).remove(&id).unwrap();
            missed("it has 2 records, and 1 of them").await;
            let gone = bench.store("dev").get(&address("b")).await;
            assert!(matches!(gone, Err(StoreError::Corrupt { .. })), "{gone:?}");
            assert!(bench.store("dev").get(&address("a")).await.is_ok());
            open(&bench.fake.objects).insert(id, now);
            assert_eq!(bench.store("dev").list().await.unwrap().len(), 2);

            let keepsake = before.keys().find(|id| id.contains("!keepsake!")).unwrap();
            open(&bench.fake.objects).remove(keepsake);
            for key in ["secret/one", "secret/two"] {
                // One of them is there and one is not; neither is made anew.
                drop(bench.store("dev").keepsake(key).await);
            }
            let fresh = bench.store("dev");
            assert!(fresh.keepsakes().await.is_err());
            let absent = [
                fresh.keepsake("secret/one").await,
                fresh.keepsake("secret/two").await,
            ];
            assert_eq!(absent.iter().filter(|answer| answer.is_err()).count(), 1);
            // A copy puts it right.
            let lease = store.lock(&holder("r2"), NO_WAIT).await.unwrap();
            store.load(&lease, &copy, None).await.unwrap();
            let fresh = bench.store("dev");
            assert_eq!(fresh.snapshot().await.unwrap().unwrap(), copy);
            assert_eq!(fresh.get(&address("gone")).await.unwrap(), None);
        });
    }
}

/// A reader without a lock meets a run that ends, and empties its journal, at every step.
#[test]
fn a_journal_that_is_emptied_meanwhile_is_not_damaged() {
    let entry = |number: u32| Entry::Outcome {
        operation: number.to_string(),
        outcome: "success".to_owned(),
    };
    for polls in 0..20 {
        run(async {
            let bench = OnShelf::new(true);
            let (writer, reader) = (bench.store("dev"), bench.store("dev"));
            let lease = writer.lock(&holder("r1"), NO_WAIT).await.unwrap();
            for number in 0..3 {
                let entries = [entry(number)];
                writer.journal_append(&lease, &entries).await.unwrap();
            }
            let mut read = reader.journal_read();
            let mut answer = None;
            for _ in 0..polls {
                tokio::select! {
                    biased;
                    done = &mut read => { answer = Some(done); break; }
                    () = tokio::task::yield_now() => {}
                }
            }
            writer.journal_clear(&lease).await.unwrap();
            writer.journal_append(&lease, &[entry(9)]).await.unwrap();
            let entries = match answer {
                Some(done) => done,
                None => read.await,
            };
            let count = entries.unwrap().len();
            assert!(matches!(count, 0 | 1 | 3), "{polls}: {count}");
        });
    }
}

/// The head of a program that did not count is read as it is; the next holder of the lock counts.
#[test]
fn a_head_that_counts_nothing_is_counted_by_the_next_holder() {
    run(async {
        let bench = OnShelf::new(true);
        let store = bench.store("dev");
        let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        for name in ["a", "b"] {
            store.put(&lease, &record(name, "first")).await.unwrap();
        }
        store.unlock(&lease).await.unwrap();
        let head = "tidegate!shop!head!dev";
        {
            let mut objects = open(&bench.fake.objects);
            let content = &mut objects.get_mut(head).unwrap().content;
            let mut value: serde_json::Value =
                serde_json::from_str(content.as_deref().unwrap()).unwrap();
            let fields = value.as_object_mut().unwrap();
            fields.remove("tidegate_checksum").unwrap();
            fields.remove("census").expect("a census");
            *content = Some(checksummed(&value));
        }
        assert_eq!(bench.store("dev").list().await.unwrap().len(), 2);
        let next = bench.store("dev");
        let lease = next.lock(&holder("r2"), NO_WAIT).await.unwrap();
        next.put(&lease, &record("c", "first")).await.unwrap();
        assert_eq!(bench.store("dev").list().await.unwrap().len(), 3);
        let id = bench.fake.id_of("dev", "a");
        open(&bench.fake.objects).remove(&id);
        assert!(bench.store("dev").list().await.is_err());
    });
}

/// A run that dies while it replaces the whole state leaves two of them. The next holder of the lock
/// removes the one that is none, and with the environment everything goes.
#[test]
fn a_state_that_was_half_replaced_leaves_nothing_behind() {
    let rooms = |bench: &OnShelf| -> BTreeSet<String> {
        let objects = open(&bench.fake.objects);
        let rooms = objects
            .keys()
            .filter_map(|id| id.split("!room!dev!").nth(1));
        rooms
            .filter_map(|rest| rest.split('!').next().map(str::to_owned))
            .collect()
    };
    let mut seen = BTreeSet::new();
    for polls in 0..120 {
        run(async {
            let bench = OnShelf::new(true);
            let store = bench.store("dev");
            let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
            for name in ["a", "b", "c"] {
                store.put(&lease, &record(name, "first")).await.unwrap();
            }
            let copy = store.snapshot().await.unwrap().unwrap();
            {
                let mut load = store.load(&lease, &copy, None);
                for _ in 0..polls {
                    tokio::select! {
                        biased;
                        done = &mut load => { done.unwrap(); break; }
                        () = tokio::task::yield_now() => {}
                    }
                }
            }
            seen.insert(rooms(&bench).len());
            let next = bench.store("dev");
            next.force_unlock("r1").await.unwrap();
            let lease = next.lock(&holder("r2"), NO_WAIT).await.unwrap();
            assert_eq!(rooms(&bench).len(), 1, "{polls}");
            assert_eq!(
                next.snapshot().await.unwrap().unwrap().records,
                copy.records
            );
            // What an older program left is known to nobody, and goes with the rest.
            let stray = Object {
                id: "tidegate!shop!room!dev!0123456789abcdef!record!a".to_owned(),
                version: "v".to_owned(),
                content: Some("x".to_owned()),
            };
            next.put(&lease, &record("d", "first")).await.unwrap();
            open(&bench.fake.objects).insert(stray.id.clone(), stray);
            next.wipe(lease).await.unwrap();
            assert!(bench.is_gone());
        });
    }
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

/// Whatever cuts it off, the state is the one with its key or the other one with its own.
#[test]
fn a_state_and_its_key_change_in_one_step() {
    let mut seen = BTreeSet::new();
    for polls in 0..60 {
        run(async {
            let bench = OnShelf::new(true);
            let store = bench.store("dev");
            let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
            store.put(&lease, &record("a", "first")).await.unwrap();
            let key = store.key(true).await.unwrap().unwrap();
            let mut next = store.snapshot().await.unwrap().unwrap();
            next.records[0].provider_id = "next".to_owned();
            {
                let mut load = store.load(&lease, &next, Some(&[9; 32]));
                for _ in 0..polls {
                    tokio::select! {
                        biased;
                        done = &mut load => { done.unwrap(); break; }
                        () = tokio::task::yield_now() => {}
                    }
                }
            }
            let after = bench.store("dev");
            let found = after.list().await.unwrap().remove(0).provider_id;
            let its_key = after.key(false).await.unwrap().unwrap();
            let (id, expected) = match found.as_str() {
                "next" => ("next", [9; 32]),
                _ => ("id-first", *key),
            };
            assert_eq!((found.as_str(), *its_key), (id, expected), "{polls}");
            seen.insert(found);
        });
    }
    assert_eq!(seen.len(), 2);
}

/// The head is the last to go: without it, what lies there is not nothing.
#[test]
fn a_head_that_is_gone_is_damage() {
    run(async {
        let bench = OnShelf::new(true);
        let store = bench.store("dev");
        let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        store.put(&lease, &record("a", "first")).await.unwrap();
        store.unlock(&lease).await.unwrap();
        let head = open(&bench.fake.objects).remove("tidegate!shop!head!dev");
        let fresh = bench.store("dev");
        for answer in [
            fresh.head().await.map(drop),
            fresh.list().await.map(drop),
            fresh.get(&address("a")).await.map(drop),
            fresh.snapshot().await.map(drop),
            fresh.lock(&holder("r2"), NO_WAIT).await.map(drop),
            fresh.key(true).await.map(drop),
        ] {
            let Err(StoreError::Corrupt { reason, .. }) = answer else {
                panic!("{answer:?}");
            };
            assert!(reason.contains("`tidegate!shop!head!dev`"), "{reason}");
        }
        assert_eq!(bench.store("prod").head().await.unwrap(), None);
        let head = head.unwrap();
        open(&bench.fake.objects).insert(head.id.clone(), head);
        let lease = fresh.lock(&holder("r2"), NO_WAIT).await.unwrap();
        assert_eq!(fresh.wipe(lease).await.unwrap(), [address("a")]);
        assert_eq!(fresh.head().await.unwrap(), None);
    });
}

/// A head that was torn by a writer that was killed can be neither read nor locked: a whole state takes
/// its place, with its key, and the next removal takes what lies beside it.
#[test]
fn a_torn_head_gives_way_to_a_whole_state() {
    for compares in [true, false] {
        run(async {
            let bench = OnShelf::new(compares);
            let store = bench.store("dev");
            let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
            store.put(&lease, &record("a", "first")).await.unwrap();
            let mut next = store.snapshot().await.unwrap().unwrap();
            next.records[0].provider_id = "next".to_owned();
            let refused = store.load_over_damage(&next, None).await;
            assert!(matches!(refused, Err(StoreError::Conflict { .. })));
            for is_gone in [false, true] {
                {
                    let mut objects = open(&bench.fake.objects);
                    let head = objects.get_mut("tidegate!shop!head!dev").unwrap();
                    head.content = Some(String::new());
                    if is_gone {
                        objects.remove("tidegate!shop!head!dev");
                    }
                }
                // A storage lock that the one who was killed has kept.
                open(&bench.fake.locked).insert("tidegate!shop!head!dev".to_owned());
                let other = bench.store("dev");
                assert!(other.beheaded().await.unwrap().is_some());
                assert!(other.lock(&holder("r2"), NO_WAIT).await.is_err());
                assert_eq!(
                    bench.store("prod").environments().await.unwrap(),
                    match is_gone {
                        true => vec![],
                        false => vec!["dev".to_owned()],
                    }
                );
                other.load_over_damage(&next, Some(&[9; 32])).await.unwrap();
                assert!(other.beheaded().await.unwrap().is_none());
                let found = other.snapshot().await.unwrap().unwrap();
                assert_eq!(found.digest().unwrap(), next.digest().unwrap());
                assert_eq!(*other.key(false).await.unwrap().unwrap(), [9; 32]);
                let late = store.put(&lease, &record("a", "late")).await;
                assert!(matches!(late, Err(StoreError::LostLock { .. })), "{late:?}");
            }
            let last = bench.store("dev");
            let lease = last.lock(&holder("r3"), NO_WAIT).await.unwrap();
            last.wipe(lease).await.unwrap();
            assert!(bench.is_gone());
        });
    }
}

/// Somebody who takes the key out of the bucket finds it nowhere in it afterwards.
#[test]
fn a_key_that_is_given_from_outside_leaves_the_shelf() {
    run(async {
        let bench = OnShelf::new(true);
        let store = bench.store("dev");
        let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        let key = store.key(true).await.unwrap().unwrap();
        let mut sealed = record("a", "first");
        sealed.tidegate.private = "BBBB".to_owned();
        store.put(&lease, &sealed).await.unwrap();
        let is_kept = || {
            let digits = tidegate::random::encode_hex(&*key);
            let objects = open(&bench.fake.objects);
            objects.values().any(|object| {
                let content = object.content.as_deref();
                content.is_some_and(|content| content.contains(&digits))
            })
        };
        assert!(is_kept());
        let outside = bench.store("dev").with_key(*key).with_encryption(&key);
        assert_eq!(*outside.key(true).await.unwrap().unwrap(), *key);
        assert!(!is_kept());
        // From then on it is needed, and no other one is made.
        for create in [false, true] {
            let missed = bench.store("dev").key(create).await;
            assert!(matches!(missed, Err(StoreError::Corrupt { .. })));
        }
        store.put(&lease, &sealed).await.unwrap();
        assert_eq!(outside.list().await.unwrap().len(), 1);
    });
}

/// Who has the key reads the other environments, which are encrypted with it.
#[test]
fn a_neighbour_is_read_with_the_same_key() {
    run(async {
        let bench = OnShelf::new(true);
        let encrypted = |environment: &str| {
            let store = bench.store(environment);
            store.with_key([7; 32]).with_encryption(&[7; 32])
        };
        let dev = encrypted("dev");
        let lease = dev.lock(&holder("r1"), NO_WAIT).await.unwrap();
        dev.put(&lease, &record("a", "first")).await.unwrap();
        let beside = encrypted("staging").beside("dev").unwrap().unwrap();
        assert_eq!(beside.list().await.unwrap().len(), 1);

        let folder = tempfile::tempdir().unwrap();
        let encrypted = |environment: &str| {
            let store = super::system_store(&folder.path().join("state"), environment);
            store.with_key([7; 32]).with_encryption(&[7; 32])
        };
        let dev = encrypted("dev");
        let lease = dev.lock(&holder("r1"), NO_WAIT).await.unwrap();
        dev.put(&lease, &record("a", "first")).await.unwrap();
        let beside = encrypted("staging").beside("dev").unwrap().unwrap();
        assert_eq!(beside.list().await.unwrap().len(), 1);
    });
}

/// A config and the cloud plugin, as a release would lay them out.
struct Shop {
    folder: tempfile::TempDir,
}

impl Shop {
    fn new(moto: &Moto, state: &str) -> Option<Self> {
        let built = harness::binary().with_file_name("tidegate-plugin-cloud");
        if !built.exists() {
            harness::skip_without("tidegate-plugin-cloud");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let plugin = folder.path().join("plugins/tidegate-plugin-cloud");
        fs::create_dir_all(&plugin).unwrap();
        fs::copy(&built, plugin.join("tidegate-plugin-cloud")).unwrap();
        let manifest = Command::new(&built).arg("--manifest").output().unwrap();
        assert!(manifest.status.success(), "{manifest:?}");
        fs::write(plugin.join("plugin.json"), manifest.stdout).unwrap();
        let config = format!(
            "modules:\n  - name: state\n    type: iac.state\n    config: {{bucket: bucket, region: \
             us-east-1, endpoint: \"{}\", {state}}}\n  - name: here\n    type: iac.provider\n    \
             config: {{provider: local, root: ./resources}}\n  - name: uploads\n    type: \
             infra.storage\n    config: {{provider: here}}\n  - name: more\n    type: \
             infra.storage\n    config: {{provider: here}}\n",
            moto.endpoint
        );
        fs::write(folder.path().join("infra.yaml"), config).unwrap();
        Some(Self { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let plugins: PathBuf = self.path().join("plugins");
        Run::new(self.path(), arguments)
            .env("TIDEGATE_PLUGIN_DIR", plugins.to_str().unwrap())
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "canary-of-the-s3-state-0123456789")
    }
}

const S3: &str = "backend: s3, project: shop";

#[test]
fn a_shop_lives_and_dies_with_its_state_in_s3() {
    let Some(moto) = Moto::start() else { return };
    let Some(shop) = Shop::new(&moto, S3) else {
        return;
    };
    let first = shop.run(&["up", "-y"]).output().expect_code(0);
    assert!(first.stderr().contains("2 to create"), "{}", first.stderr());
    let keys = moto.keys();
    assert!(
        keys.contains(&"iac-state/tidegate/shop/head/default.json".to_owned()),
        "{keys:?}"
    );
    assert!(
        keys.iter().any(|key| key.ends_with("/record/uploads.json")),
        "{keys:?}"
    );
    let second = shop.run(&["up", "-y"]).output().expect_code(0);
    assert!(
        second.stderr().contains("No changes"),
        "{}",
        second.stderr()
    );
    let list = shop
        .run(&["state", "list", "--json"])
        .output()
        .expect_code(0);
    assert!(list.stdout().contains("uploads"), "{}", list.stdout());
    shop.run(&["infra", "destroy", "-y"])
        .output()
        .expect_code(0);
    assert_eq!(moto.keys(), Vec::<String>::new());
    for finished in [first, second, list] {
        let all = finished.stdout() + &finished.stderr();
        assert!(!all.contains("canary-of-the-s3-state"), "{all}");
    }
}

#[test]
fn of_two_runs_at_once_one_works_and_nothing_is_lost() {
    let Some(moto) = Moto::start() else { return };
    let Some(shop) = Shop::new(&moto, S3) else {
        return;
    };
    let spawn = || {
        let mut command = shop
            .run(&["up", "-y", "--lock-timeout", "60s"])
            .into_command();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("it starts")
    };
    let mut runs = [spawn(), spawn(), spawn()];
    for run in &mut runs {
        let status = run.wait().expect("it ends");
        // Later ones find nothing to do, or that the state is not what they planned on.
        assert!(matches!(status.code(), Some(0 | 5)), "{status:?}");
    }
    let again = shop.run(&["up", "-y"]).output().expect_code(0);
    assert!(again.stderr().contains("No changes"), "{}", again.stderr());
    shop.run(&["infra", "destroy", "-y"])
        .output()
        .expect_code(0);
    assert_eq!(moto.keys(), Vec::<String>::new());
}

/// A changed byte in what surrounds a record, and an object that is gone, are named by every command,
/// and a backup puts both right.
#[test]
fn damage_in_a_bucket_is_named_and_put_right() {
    let Some(moto) = Moto::start() else { return };
    let Some(shop) = Shop::new(&moto, S3) else {
        return;
    };
    let run = |line: &str, code: i32| {
        let arguments: Vec<&str> = line.split(' ').collect();
        let done = shop.run(&arguments).output().expect_code(code);
        done.stdout() + &done.stderr()
    };
    run("up -y", 0);
    run("state backup -o copy.json", 0);
    let key_of = |end: &str| {
        let keys = moto.keys();
        keys.into_iter().find(|key| key.ends_with(end)).expect(end)
    };
    for field in ["provider", "resource_type", "status"] {
        let key = key_of("/record/uploads.json");
        let whole = moto.get(&key);
        let start = format!("\"{field}\":\"");
        let changed = whole.replacen(&start, &format!("{start}x"), 1);
        assert_ne!(changed, whole, "{field} in {whole}");
        moto.put(&key, &changed);
        for line in [
            "state list",
            "state verify",
            "infra plan",
            "up -y",
            "state rm uploads -y",
        ] {
            let text = run(line, 1);
            assert!(text.contains("state/corrupt"), "{field}: {line}: {text}");
        }
        let text = run("state verify", 1);
        assert!(text.contains("uploads"), "{field}: {text}");
        run("state restore copy.json -y", 0);
        run("state verify", 0);
    }
    moto.delete(&key_of("/record/more.json"));
    for line in [
        "state list",
        "state show more",
        "state verify",
        "infra plan",
        "state wipe -y",
    ] {
        let text = run(line, 1);
        assert!(
            text.contains("it has 2 records, and 1 of them"),
            "{line}: {text}"
        );
    }
    run("state rm more --force -y", 0);
    assert!(!run("state list", 0).contains("more"));
    run("state restore copy.json -y", 0);
    run("infra plan --detailed-exitcode", 0);
    let key = key_of("/record/more.json");
    moto.put(&key, "{");
    assert!(run("state verify", 1).contains(&key));
    run("state wipe -y", 1);
    run("state restore copy.json -y", 0);
    // The head itself, and with it the key: a backup has to bring that along.
    run("state backup --with-key -o both.json", 0);
    let keys = moto.keys();
    let head = keys.iter().find(|key| key.contains("/head/")).unwrap();
    for text in ["", "{}"] {
        moto.put(head, text);
        run("up -y", 1);
        assert!(run("state restore copy.json -y", 1).contains("state/other-key"));
        run("state restore both.json -y", 0);
        run("state verify", 0);
        run("infra plan --detailed-exitcode", 0);
    }
    moto.put(head, "");
    run("state wipe -y", 1);
    run("state wipe --force -y", 0);
    assert_eq!(moto.keys(), Vec::<String>::new());
}

#[test]
fn a_bucket_that_does_not_exist_is_no_empty_state() {
    let Some(moto) = Moto::start() else { return };
    let Some(shop) = Shop::new(&moto, S3) else {
        return;
    };
    let path = shop.path().join("infra.yaml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("bucket: bucket", "bucket: buckte")).unwrap();
    for line in [
        "infra destroy -y",
        "infra plan",
        "state verify",
        "state wipe -y",
        "up -y",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let done = shop.run(&arguments).output().expect_code(1);
        let text = done.stderr();
        assert!(text.contains("bucket does not exist"), "{line}: {text}");
    }
}

#[test]
fn a_backend_nobody_serves_is_an_error_that_says_so() {
    let Some(moto) = Moto::start() else { return };
    let Some(shop) = Shop::new(&moto, "backend: azure, project: shop") else {
        return;
    };
    let finished = shop.run(&["up", "-y"]).output();
    let text = finished.stderr();
    assert_ne!(finished.code(), 0);
    for expected in ["plugin/no-backend", "`azure`", "tidegate-plugin-cloud"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    // A second plugin that claims the same name.
    let plugins = shop.path().join("plugins");
    let twin = plugins.join("twin");
    fs::create_dir_all(&twin).unwrap();
    for (from, to) in [
        ("plugin.json", "plugin.json"),
        ("tidegate-plugin-cloud", "twin"),
    ] {
        fs::copy(
            plugins.join("tidegate-plugin-cloud").join(from),
            twin.join(to),
        )
        .unwrap();
    }
    let config = fs::read_to_string(shop.path().join("infra.yaml")).unwrap();
    fs::write(
        shop.path().join("infra.yaml"),
        config.replace("azure", "s3"),
    )
    .unwrap();
    let text = shop.run(&["up", "-y"]).output().stderr();
    for expected in ["plugin/backend-twice", "`tidegate-plugin-cloud`", "`twin`"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    // And one whose manifest promises what it does not serve.
    let manifest = fs::read_to_string(twin.join("plugin.json")).unwrap();
    fs::remove_dir_all(plugins.join("tidegate-plugin-cloud")).unwrap();
    for (lie, code) in [
        ("\"s4\"", "plugin/backend-mismatch"),
        ("\"filesystem\"", "plugin/backend-reserved"),
    ] {
        fs::write(twin.join("plugin.json"), manifest.replace("\"gcs\"", lie)).unwrap();
        let text = shop.run(&["up", "-y"]).output().stderr();
        assert!(text.contains(code), "{code} in {text}");
    }
}

#[test]
fn the_core_depends_on_no_cloud() {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args([
            "tree",
            "--offline",
            "-p",
            "tidegate",
            "-e",
            "normal,build",
            "--prefix",
            "none",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{output:?}");
    let tree = String::from_utf8(output.stdout).expect("text");
    let names: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(
        names.contains("tidegate") && names.contains("tonic"),
        "{names:?}"
    );
    for name in &names {
        let is_cloud = *name == "object_store"
            || *name == "tidegate-plugin-cloud"
            || ["aws-", "azure_", "google-cloud", "rusoto", "gcloud"]
                .iter()
                .any(|start| name.starts_with(start));
        assert!(!is_cloud, "{name} is below the core");
    }
}
