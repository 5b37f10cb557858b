//! A store that goes down at a chosen moment, and what is kept of the writes it did not take.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::json;

use super::*;
use crate::cancel;
use crate::clock::ManualClock;
use crate::disk::SystemDisk;
use crate::state::served::{Before, Object, Shelf};
use crate::state::{Renewal, Served};

/// Objects in memory. Of the writes that are still to fail, the first ones can be done all the same.
#[derive(Debug, Default)]
struct Flaky {
    objects: Mutex<BTreeMap<String, Object>>,
    failures: AtomicU32,
    /// Answers that are lost after the write was done, and every look until then.
    lost: AtomicU32,
    /// Nothing is answered any more.
    hangs: AtomicBool,
}

impl Flaky {
    fn fail(&self, times: u32) {
        self.failures.store(times, Ordering::Relaxed);
    }

    async fn ask(&self) -> StoreResult<()> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let left = self.failures.load(Ordering::Relaxed);
        if left == 0 {
            return Ok(());
        }
        self.failures.store(left - 1, Ordering::Relaxed);
        Err(StoreError::Storage("down".to_owned()))
    }
}

#[async_trait]
impl Shelf for Flaky {
    fn place(&self) -> String {
        "here".to_owned()
    }
    fn compares(&self) -> bool {
        true
    }
    async fn get(&self, id: &str) -> StoreResult<Option<Object>> {
        self.ask().await?;
        Ok(self.objects.lock().unwrap().get(id).cloned())
    }
    async fn children(&self, parent: &str) -> StoreResult<Vec<Object>> {
        self.ask().await?;
        let objects = self.objects.lock().unwrap();
        let below = objects
            .values()
            .filter(|one| Object::parent(&one.id) == parent);
        Ok(below.cloned().collect())
    }
    async fn under(&self, ancestor: &str) -> StoreResult<Vec<String>> {
        self.ask().await?;
        let objects = self.objects.lock().unwrap();
        let below = objects.keys().filter(|id| id.starts_with(ancestor));
        Ok(below.cloned().collect())
    }
    async fn save_if(&self, object: &Object, before: Before<'_>) -> StoreResult<bool> {
        self.ask().await?;
        {
            let mut objects = self.objects.lock().unwrap();
            if !before.holds(objects.get(&object.id)) {
                return Ok(false);
            }
            objects.insert(object.id.clone(), object.clone());
        }
        if object.id.contains("!record!") {
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                self.fail(lost);
                return Err(StoreError::Storage("the answer was lost".to_owned()));
            }
        }
        Ok(true)
    }
    async fn save(&self, object: &Object) -> StoreResult<()> {
        self.ask().await?;
        let mut objects = self.objects.lock().unwrap();
        objects.insert(object.id.clone(), object.clone());
        Ok(())
    }
    async fn delete(&self, id: &str) -> StoreResult<()> {
        self.ask().await?;
        self.objects.lock().unwrap().remove(id);
        Ok(())
    }
    async fn lock(&self, _: &str) -> StoreResult<()> {
        Ok(())
    }
    async fn unlock(&self, _: &str) -> StoreResult<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<&'static str>>);

impl Reporter for Heard {
    fn say(&self, event: Event) {
        if let Event::Problem(problem) = event {
            self.0.lock().unwrap().push(problem.code);
        }
    }
}

struct World {
    folder: tempfile::TempDir,
    flaky: Arc<Flaky>,
    heard: Arc<Heard>,
    canceller: cancel::Canceller,
    store: Rescuing,
    lease: Lease,
}

const DOWN_FOR_LONG: u32 = 1_000;

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flaky = Arc::new(Flaky::default());
        let heard = Arc::new(Heard::default());
        let (canceller, cancel) = cancel::pair();
        let store = open(folder.path(), &flaky, &heard, cancel);
        let lease = store.lock(&holder("r1"), Duration::ZERO).await.unwrap();
        store.key(true).await.unwrap();
        Self {
            folder,
            flaky,
            heard,
            canceller,
            store,
            lease,
        }
    }

    /// The next run, with the store up again: it replays, and looks on.
    async fn next_run(&self) -> (Rescuing, Lease, Replayed) {
        self.flaky.fail(0);
        self.store.unlock(&self.lease).await.unwrap();
        let (_canceller, cancel) = cancel::pair();
        let store = open(self.folder.path(), &self.flaky, &self.heard, cancel);
        let lease = store.lock(&holder("r2"), Duration::ZERO).await.unwrap();
        let (_, replayed) = store.replay(&lease).await.unwrap().expect("a file waits");
        assert_eq!(store.waiting().unwrap(), None);
        assert_eq!(*self.heard.0.lock().unwrap(), ["state/kept-aside"]);
        (store, lease, replayed)
    }
}

fn open(folder: &Path, flaky: &Arc<Flaky>, heard: &Arc<Heard>, cancel: Cancel) -> Rescuing {
    let clock = Arc::new(ManualClock::new(time::OffsetDateTime::UNIX_EPOCH));
    let random = Arc::new(crate::random::SystemRandom);
    let shelf = Arc::clone(flaky) as Arc<dyn Shelf>;
    let inner = Served::open(shelf, "shop", "dev", clock.clone(), random.clone()).unwrap();
    let tools = Tools {
        disk: Arc::new(SystemDisk),
        clock,
        random,
        reporter: Arc::clone(heard) as Arc<dyn Reporter>,
        cancel,
    };
    let inner = Arc::new(inner.with_key([7; 32]));
    Rescuing::new(inner, folder.join("recovery/dev"), tools)
}

fn holder(run: &str) -> Holder {
    Holder {
        run_id: run.to_owned(),
        who: "a@b".to_owned(),
        process_id: 1,
        command: "up".to_owned(),
        run_url: None,
        job: String::new(),
        since: String::new(),
        mark: String::new(),
    }
}

fn record(name: &str, id: &str) -> Record {
    serde_json::from_value(json!({
        "resource_id": name, "resource_type": "infra.dns", "provider": "local",
        "provider_id": id, "status": "active", "created_at": "", "updated_at": "",
    }))
    .unwrap()
}

fn keepsake() -> Keepsake {
    Keepsake {
        fingerprint: "f".to_owned(),
        sealed: None,
        written_at: String::new(),
    }
}

fn is_kept<T: std::fmt::Debug>(result: &StoreResult<T>) -> bool {
    matches!(result, Err(StoreError::Kept { .. }))
}

#[tokio::test]
async fn every_kind_of_outcome_is_kept_and_replayed() {
    let world = World::new().await;
    let (store, lease) = (&world.store, &world.lease);
    for name in ["changed", "gone"] {
        store.put(lease, &record(name, "old")).await.unwrap();
    }
    for key in ["sink/env/A", "secret/TOKEN"] {
        store.put_keepsake(lease, key, &keepsake()).await.unwrap();
    }
    store.list().await.unwrap();

    world.flaky.fail(DOWN_FOR_LONG);
    let address = Address::new("gone");
    assert!(is_kept(
        &store
            .put_if(lease, &record("new", "1"), &Expected::Absent)
            .await
    ));
    // From the second on nobody waits for the store again.
    let changed = record("changed", "new");
    assert!(is_kept(
        &store.put_if(lease, &changed, &Expected::Version(1)).await
    ));
    assert!(is_kept(
        &store.put(lease, &record("changed", "newer")).await
    ));
    assert!(is_kept(&store.delete(lease, &address).await));
    assert!(is_kept(&store.delete_keepsake(lease, "sink/env/A").await));
    assert!(is_kept(
        &store.put_keepsake(lease, "sink/env/B", &keepsake()).await
    ));
    let outcome = Entry::Outcome {
        operation: "op".to_owned(),
        outcome: "success".to_owned(),
    };
    assert!(is_kept(
        &store
            .journal_append(lease, std::slice::from_ref(&outcome))
            .await
    ));
    // What has not happened yet is not kept: an intent, and a secret that nobody was given.
    let begin = Entry::Begin {
        run_id: "r".to_owned(),
        fence: 1,
        at: String::new(),
    };
    assert!(!is_kept(&store.journal_append(lease, &[begin]).await));
    assert!(!is_kept(
        &store.delete_keepsake(lease, "secret/TOKEN").await
    ));
    assert!(store.waiting().unwrap().is_some());

    let (store, _, replayed) = world.next_run().await;
    assert_eq!((replayed.saved, replayed.overtaken), (7, vec![]));
    let ids: Vec<(String, String)> = store
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|record| (record.resource_id.to_string(), record.provider_id))
        .collect();
    let expected = [("changed", "newer"), ("new", "1")];
    assert_eq!(ids, expected.map(|(name, id)| (name.into(), id.into())));
    assert_eq!(
        store.keepsakes().await.unwrap(),
        ["secret/TOKEN", "sink/env/B"]
    );
    assert_eq!(store.journal_read().await.unwrap(), [outcome]);
}

/// Of a store that hangs nobody hears that it is down: the lease running out has to do.
#[tokio::test]
async fn a_store_that_hangs_is_waited_for_as_long_as_the_lease_lasts() {
    let world = World::new().await;
    let (store, lease) = (&world.store, &world.lease);
    let clock = &store.tools.clock;
    store.renew(lease).await.unwrap();
    let renewed = clock.monotonic();
    world.flaky.hangs.store(true, Ordering::Relaxed);
    assert!(is_kept(&store.put(lease, &record("a", "1")).await));
    assert_eq!(clock.monotonic() - renewed, Renewal::DEFAULT.lease);
    // It is not asked again: neither for what only looks, nor to give the lock back.
    let begun = clock.monotonic();
    assert!(is_kept(&store.put(lease, &record("b", "2")).await));
    assert!(store.head().await.is_err() && store.list().await.is_err());
    assert!(store.renew(lease).await.is_err() && store.unlock(lease).await.is_err());
    assert_eq!(clock.monotonic(), begun);

    world.flaky.hangs.store(false, Ordering::Relaxed);
    store.known().silent = None;
    let (store, _, replayed) = world.next_run().await;
    assert_eq!((replayed.saved, replayed.overtaken), (2, vec![]));
    assert_eq!(store.list().await.unwrap().len(), 2);
}

/// Once somebody wants to stop, nothing is waited for any longer.
#[tokio::test]
async fn a_stopped_run_gives_up_a_store_that_hangs() {
    let world = World::new().await;
    let (store, lease) = (&world.store, &world.lease);
    world.flaky.hangs.store(true, Ordering::Relaxed);
    world.canceller.cancel();
    // This clock adds up what is slept at the same time: the lease has a test of its own.
    store.known().proven = None;
    let begun = store.tools.clock.monotonic();
    assert!(store.list().await.is_err() && store.journal_read().await.is_err());
    assert!(store.unlock(lease).await.is_err());
    assert_eq!(store.tools.clock.monotonic() - begun, PATIENCE);
}

#[tokio::test]
async fn a_short_break_is_waited_out() {
    let world = World::new().await;
    let (store, lease) = (&world.store, &world.lease);
    world.flaky.fail(1);
    let written = store
        .put_if(lease, &record("a", "1"), &Expected::Absent)
        .await;
    assert_eq!(written.unwrap(), 1);
    assert_eq!(store.waiting().unwrap(), None);
    assert!(world.heard.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_no_conflict_with_itself() {
    let world = World::new().await;
    let (store, lease) = (&world.store, &world.lease);
    // The answer and the look after it are lost; the next try finds its own record.
    world.flaky.lost.store(1, Ordering::Relaxed);
    store
        .put_if(lease, &record("a", "1"), &Expected::Absent)
        .await
        .unwrap();
    let standing = store.get(&Address::new("a")).await.unwrap().unwrap();
    assert_eq!(
        (standing.tidegate.version, &*standing.provider_id),
        (1, "1")
    );
    // Somebody else's record stays a conflict, on the first try and after a break.
    for failures in [0, 1] {
        world.flaky.fail(failures);
        let refused = store
            .put_if(lease, &record("a", "2"), &Expected::Absent)
            .await;
        assert!(
            matches!(refused, Err(StoreError::Conflict { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(store.waiting().unwrap(), None);
}

#[tokio::test]
async fn without_the_key_nothing_is_kept_and_that_is_said() {
    let world = World::new().await;
    world.store.known().key = None;
    world.flaky.fail(DOWN_FOR_LONG);
    let refused = world.store.put(&world.lease, &record("a", "1")).await;
    let Err(StoreError::Storage(why)) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains("down") && why.contains("the key of the state is not known"));
}

/// What waits is opened by who only looks, and what does not open says how to go on.
#[tokio::test]
async fn a_kept_file_that_does_not_open_is_named_with_a_way_out() {
    let world = World::new().await;
    let (store, lease) = (&world.store, &world.lease);
    world.flaky.fail(DOWN_FOR_LONG);
    assert!(is_kept(&store.put(lease, &record("a", "1")).await));
    world.flaky.fail(0);
    let (path, outcomes) = store.aside().await.unwrap().unwrap();
    // Whose they are, and the record.
    assert_eq!(outcomes, 2);
    let disk = SystemDisk;
    let mut bytes = disk.read(&path, 1 << 20).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    disk.write_atomic(&path, &bytes, FILE_MODE).unwrap();
    for error in [
        store.aside().await.unwrap_err(),
        store.replay(lease).await.unwrap_err(),
    ] {
        let report = Report::from(error);
        assert_eq!(report.code, "state/aside");
        let way_out = format!("move `{}` away", path.display());
        assert!(
            report.fix.iter().any(|fix| fix.contains(&way_out)),
            "{report:?}"
        );
    }
}
