//! What can go wrong between the plugin and a server, at every single request of a run's life: each
//! call ends in the right result or a named error, and nothing is lost or doubled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidegate::clock::SystemClock;
use tidegate::command::shelf::PluginShelf;
use tidegate::random::SystemRandom;
use tidegate::resource::{ActionKind, Kind as ResourceKind};
use tidegate::state::served::{Served, Shelf};
use tidegate::state::{Entry, Store, StoreError, StoreResult};

use super::cloud::{Account, Kind, Server};
use super::http::Message;
use super::wire::{Fault, Proxy};
use super::{NO_WAIT, address, holder, mark, record, run};

const SLOW_DOWN: &str = "<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>";
const CONFLICT: &str = "<?xml version='1.0'?><Error><Code>Conflict</Code></Error>";
const UNMET: &str = "<?xml version='1.0'?><Error><Code>PreconditionFailed</Code></Error>";
const FORBIDDEN: &str = "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>";

/// Each fault, and whether every call has to succeed in spite of it.
fn faults() -> Vec<(Fault, bool)> {
    vec![
        (Fault::Late(Duration::from_millis(30)), true),
        (Fault::Twice, true),
        (Fault::LoseAnswer, true),
        (Fault::AnswerAfter(412, UNMET), true),
        (Fault::AnswerAfter(503, SLOW_DOWN), true),
        (Fault::Answer(503, SLOW_DOWN), true),
        (Fault::Answer(412, UNMET), true),
        (Fault::Answer(409, CONFLICT), true),
        (Fault::CutBefore, false),
    ]
}

/// Only a write has a precondition that could be unmet.
fn may_meet(fault: &Fault, request: &Message) -> bool {
    match fault {
        Fault::Answer(409 | 412, _) | Fault::AnswerAfter(412, _) => request.method() == "PUT",
        _ => true,
    }
}

fn open(shelf: &Arc<dyn Shelf>, project: &str) -> Served {
    let clock = Arc::new(SystemClock::new());
    let shelf = Arc::clone(shelf);
    Served::open(shelf, project, "dev", clock, Arc::new(SystemRandom)).expect("a store")
}

fn intent() -> Entry {
    Entry::Intent {
        operation: "1".to_owned(),
        address: address("a"),
        kind: ResourceKind::new("infra.storage"),
        provider: "here".to_owned(),
        action: ActionKind::Create,
        config_hash: "00".to_owned(),
        at: "2024-01-02T03:04:05Z".to_owned(),
        before: tidegate::state::journal::Before::default(),
    }
}

/// What was asked for, in order, and how it was answered.
type Answers = Vec<(&'static str, StoreResult<()>)>;

/// The life of a run.
async fn live(store: &Served) -> Answers {
    let mut answers: Answers = Vec::new();
    let lease = match store.lock(&holder("r1"), Duration::from_secs(20)).await {
        Ok(lease) => lease,
        Err(error) => return vec![("lock", Err(error))],
    };
    let outcome = Entry::Outcome {
        operation: "1".to_owned(),
        outcome: "success".to_owned(),
    };
    for (what, name, content) in [("a1", "a", "1"), ("b1", "b", "1"), ("a2", "a", "2")] {
        let put = store.put(&lease, &record(name, content)).await;
        answers.push((what, put.map(drop)));
    }
    let appended = store.journal_append(&lease, &[intent()]).await;
    answers.push(("intent", appended));
    let appended = store.journal_append(&lease, &[outcome]).await;
    answers.push(("outcome", appended));
    let deleted = store.delete(&lease, &address("b")).await;
    answers.push(("delete", deleted.map(drop)));
    answers.push(("renew", store.renew(&lease).await));
    answers.push(("unlock", store.unlock(&lease).await));
    answers
}

/// What a fresh handle finds must be what was answered.
async fn judge(store: &Served, answers: &Answers, context: &str) {
    let is_done = |what: &str| {
        let found = answers.iter().find(|(name, _)| *name == what);
        found.map(|(_, answer)| answer.is_ok())
    };
    for (what, answer) in answers {
        if let Err(error) = answer {
            // A named error, and never one that blames somebody else.
            let is_named =
                matches!(error, StoreError::Storage(text) if text.contains("the bucket"));
            assert!(is_named, "{context}: {what}: {error:?}");
        }
    }
    let now = store.get(&address("a")).await.unwrap();
    let (found, version) = now
        .as_ref()
        .map_or(("", 0), |record| (mark(record), record.tidegate.version));
    match (is_done("a1"), is_done("a2")) {
        // A new record's version is the state's serial, and an announced write that was refused counts.
        (Some(true), Some(true)) => {
            assert!(
                found == "2" && (2..=3).contains(&version),
                "{context}: {now:?}"
            );
        }
        (Some(false), Some(true)) => {
            assert!(
                found == "2" && (1..=3).contains(&version),
                "{context}: {now:?}"
            );
        }
        (Some(true), Some(false)) => {
            assert!(
                (1..=3).contains(&version) && !found.is_empty(),
                "{context}: {now:?}"
            );
        }
        _ => assert!(version <= 3, "{context}: {now:?}"),
    }
    if is_done("delete") == Some(true) {
        assert_eq!(store.get(&address("b")).await.unwrap(), None, "{context}");
    }
    let journal = store.journal_read().await.unwrap();
    let count = |wanted: fn(&Entry) -> bool| journal.iter().filter(|entry| wanted(entry)).count();
    for (what, times) in [
        (
            "intent",
            count(|entry| matches!(entry, Entry::Intent { .. })),
        ),
        (
            "outcome",
            count(|entry| matches!(entry, Entry::Outcome { .. })),
        ),
    ] {
        match is_done(what) {
            Some(true) => assert_eq!(times, 1, "{context}: {what}"),
            _ => assert!(times <= 1, "{context}: {what} is there {times} times"),
        }
    }
    if answers.iter().all(|(_, answer)| answer.is_ok()) {
        let head = store.head().await.unwrap().unwrap();
        // An announced write that was refused has counted; nothing else counts twice.
        assert!(
            (4..=5).contains(&head.serial) && head.fence == 1,
            "{context}: {head:?}"
        );
        assert_eq!(store.holder().await.unwrap(), None, "{context}");
    }
    // And it goes on working.
    drop(store.force_unlock("r1").await);
    let lease = store.lock(&holder("r2"), NO_WAIT).await.unwrap();
    store.put(&lease, &record("a", "3")).await.unwrap();
    assert_eq!(mark(&store.get(&address("a")).await.unwrap().unwrap()), "3");
    store.unlock(&lease).await.unwrap();
}

/// Every fault, once at each `stride`th request of a life, from another one on for each fault.
fn nothing_is_lost_or_doubled(kind: Kind, stride: usize) {
    let Some(server) = Server::start(kind) else {
        return;
    };
    let proxy = Proxy::start(&server.endpoint);
    let Some(account) = Account::new(kind, &proxy.endpoint) else {
        return;
    };
    run(async {
        let place = "the bucket".to_owned();
        let shelf: Arc<dyn Shelf> = Arc::new(PluginShelf::new(account.open().await, place));
        let mut refused = 0;
        for (index, (fault, must_succeed)) in faults().into_iter().enumerate() {
            for target in (index % stride..).step_by(stride) {
                let count = Arc::new(AtomicUsize::new(0));
                let (counted, aimed) = (Arc::clone(&count), fault.clone());
                proxy.judge(move |request| {
                    if may_meet(&aimed, request) && counted.fetch_add(1, Ordering::SeqCst) == target
                    {
                        aimed.clone()
                    } else {
                        Fault::Nothing
                    }
                });
                let context = format!("{kind:?}, {fault:?} at request {target}");
                let project = format!("life-{index}-{target}");
                let answers = live(&open(&shelf, &project)).await;
                let was_hit = count.load(Ordering::SeqCst) > target;
                proxy.judge(|_| Fault::Nothing);
                let failed = answers.iter().filter(|(_, answer)| answer.is_err()).count();
                assert!(failed == 0 || !must_succeed, "{context}: {answers:?}");
                assert!(failed == 0 || was_hit, "{context}: {answers:?}");
                refused += failed;
                judge(&open(&shelf, &project), &answers, &context).await;
                if !was_hit {
                    assert!(target >= 8, "a life has only {target} requests");
                    break;
                }
            }
        }
        assert!(proxy.done.load(Ordering::SeqCst) * stride > 100);
        assert!(refused < 200, "{refused} calls failed");
    });
}

#[test]
fn whatever_happens_to_a_request_to_s3_nothing_is_lost_or_doubled() {
    nothing_is_lost_or_doubled(Kind::S3, 4);
}

#[test]
fn whatever_happens_to_a_request_to_gcs_nothing_is_lost_or_doubled() {
    nothing_is_lost_or_doubled(Kind::Gcs, 1);
}

#[test]
fn whatever_happens_to_a_request_to_azure_nothing_is_lost_or_doubled() {
    nothing_is_lost_or_doubled(Kind::Azure, 4);
}

/// Does `work` on a store in a bucket, with a proxy in between; nothing where the server cannot run.
fn behind_a_proxy(work: impl AsyncFnOnce(&Proxy, &Served)) {
    let Some(server) = Server::start(Kind::Gcs) else {
        return;
    };
    let proxy = Proxy::start(&server.endpoint);
    let Some(account) = Account::new(Kind::Gcs, &proxy.endpoint) else {
        return;
    };
    run(async {
        let place = "the bucket".to_owned();
        let shelf: Arc<dyn Shelf> = Arc::new(PluginShelf::new(account.open().await, place));
        work(&proxy, &open(&shelf, "shop")).await;
    });
}

/// Credentials that stop working in mid-run: a named error at once, and nothing written.
#[test]
fn credentials_that_expire_are_named() {
    behind_a_proxy(async |proxy, store| {
        let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        store.put(&lease, &record("a", "1")).await.unwrap();
        proxy.judge(|_| Fault::Answer(403, FORBIDDEN));
        for answer in [
            store.put(&lease, &record("a", "2")).await.map(drop),
            store.list().await.map(drop),
            store.renew(&lease).await,
        ] {
            match answer {
                Err(StoreError::Storage(text)) => {
                    assert!(
                        text.contains("the bucket") && text.contains("403"),
                        "{text}"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
        proxy.judge(|_| Fault::Nothing);
        assert_eq!(mark(&store.get(&address("a")).await.unwrap().unwrap()), "1");
        store.put(&lease, &record("a", "3")).await.unwrap();
        store.unlock(&lease).await.unwrap();
    });
}

/// A list is bounded by what is under way at once, not by one answer after another.
#[test]
fn a_list_of_many_has_many_requests_under_way_and_not_all() {
    behind_a_proxy(async |proxy, store| {
        let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        store.put(&lease, &record("r", "x")).await.unwrap();
        let mut snapshot = store.snapshot().await.unwrap().unwrap();
        let first = snapshot.records[0].clone();
        snapshot.records = (0..300)
            .map(|index| tidegate::state::Record {
                resource_id: address(&format!("r-{index:03}")),
                ..first.clone()
            })
            .collect();
        store.load(&lease, &snapshot, None).await.unwrap();
        proxy.peak.store(0, Ordering::SeqCst);
        proxy.judge(|_| Fault::Late(Duration::from_millis(20)));
        assert_eq!(store.list().await.unwrap().len(), 300);
        let peak = proxy.peak.load(Ordering::SeqCst);
        assert!((8..=64).contains(&peak), "{peak} at once");
        store.unlock(&lease).await.unwrap();
    });
}

/// What is more than a plugin may answer at once is asked for one by one.
#[test]
fn a_state_larger_than_one_answer_is_read_and_removed() {
    behind_a_proxy(async |_, store| {
        let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        store.put(&lease, &record("r", "x")).await.unwrap();
        let mut snapshot = store.snapshot().await.unwrap().unwrap();
        let mut first = snapshot.records[0].clone();
        let large = "x".repeat(2_000_000);
        first.outputs.insert("large".to_owned(), large.into());
        snapshot.records = (0..30)
            .map(|index| tidegate::state::Record {
                resource_id: address(&format!("r-{index:03}")),
                ..first.clone()
            })
            .collect();
        store.load(&lease, &snapshot, None).await.unwrap();
        assert_eq!(store.list().await.unwrap().len(), 30);
        store.wipe(lease).await.unwrap();
        assert_eq!(store.head().await.unwrap(), None);
    });
}
