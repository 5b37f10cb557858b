//! Every file call fails once, with every errno that matters; the process dies before, in and
//! after every file call; the power goes at every file call and unflushed writes are lost or not.
//! Each time: what was acknowledged is there, everything is old or new and whole, the next run
//! gets the lock at once and finishes.

use std::path::Path;
use std::sync::Arc;

use tidegate::disk::Disk;
use tidegate::random::{Random, SeededRandom};
use tidegate::state::{Entry, Filesystem, Keepsake, Store, StoreError, StoreResult};

use super::disks::{Fault, FaultyDisk, MemoryDisk};
use super::{NO_WAIT, address, holder, manual_clock, mark, record, run, store_on};

const ROOT: &str = "work/.tidegate/state";
const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EDQUOT: i32 = 122;

fn open(disk: Arc<dyn Disk>) -> Filesystem {
    store_on(disk, Path::new(ROOT), "dev", &manual_clock()).with_machine("here")
}

/// A folder the user has, everything in it durable.
fn bare() -> MemoryDisk {
    let disk = MemoryDisk::default();
    disk.create_directories(Path::new("work"), 0o700).unwrap();
    disk.after_power_cut(|| true)
}

fn end(run_id: &str) -> Entry {
    Entry::End {
        run_id: run_id.to_owned(),
    }
}

fn keepsake(fingerprint: &str) -> Keepsake {
    Keepsake {
        fingerprint: fingerprint.to_owned(),
        sealed: None,
        written_at: "2024-01-02T03:04:05Z".to_owned(),
    }
}

/// Two records, one journal entry and a keepsake: the state before.
fn baseline() -> MemoryDisk {
    let disk = bare();
    let store = open(Arc::new(disk.clone()));
    run(async {
        let lease = store.lock(&holder("r0"), NO_WAIT).await.unwrap();
        store.put(&lease, &record("a", "old")).await.unwrap();
        store.put(&lease, &record("c", "old")).await.unwrap();
        store.journal_append(&lease, &[end("r0")]).await.unwrap();
        store
            .put_keepsake(&lease, "k", &keepsake("old"))
            .await
            .unwrap();
        store.unlock(&lease).await.unwrap();
    });
    drop(store);
    disk.after_power_cut(|| true)
}

/// What one run does, and how far it got.
const STEPS: u32 = 9;

async fn work(store: &Filesystem, done: &mut u32) -> StoreResult<()> {
    let lease = store.lock(&holder("r1"), NO_WAIT).await?;
    *done = 1;
    store.key(true).await?;
    *done = 2;
    store
        .journal_append(&lease, &[end("r1-a"), end("r1-b")])
        .await?;
    *done = 3;
    store.put(&lease, &record("a", "new")).await?;
    *done = 4;
    store.put(&lease, &record("b", "new")).await?;
    *done = 5;
    store.delete(&lease, &address("c")).await?;
    *done = 6;
    store.put_keepsake(&lease, "k", &keepsake("new")).await?;
    *done = 7;
    store.renew(&lease).await?;
    *done = 8;
    store.unlock(&lease).await?;
    *done = 9;
    Ok(())
}

#[track_caller]
fn sure<T>(result: StoreResult<T>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// The state is old or new at each place, new where `done` says that it was acknowledged, and a
/// new run can go on at once.
fn check_and_continue(disk: &MemoryDisk, done: u32, had: bool, what: &str) {
    let store = open(Arc::new(disk.clone()));
    run(async {
        let listed = sure(store.list().await, what);
        let found = |name: &str| {
            let found = listed
                .iter()
                .find(|record| record.resource_id.as_str() == name);
            found.map(mark)
        };
        let old = had.then_some("old");
        for (name, step, before, after) in [
            ("a", 4, old, Some("new")),
            ("b", 5, None, Some("new")),
            ("c", 6, old, None),
        ] {
            let now = found(name);
            assert!(
                now == after || (done < step && now == before),
                "{what}: {name} is {now:?}"
            );
        }
        let kept = sure(store.keepsake("k").await, what).map(|kept| kept.fingerprint);
        let kept = kept.as_deref();
        assert!(
            kept == Some("new") || (done < 7 && kept == old),
            "{what}: keepsake {kept:?}"
        );

        let journal = sure(store.journal_read().await, what);
        let mut whole = vec![end("r1-a"), end("r1-b")];
        if had {
            whole.insert(0, end("r0"));
        }
        let least = if done >= 3 {
            whole.len()
        } else {
            usize::from(had)
        };
        assert!(
            journal.len() >= least && journal[..] == whole[..journal.len()],
            "{what}: {journal:?}"
        );
        let key = sure(store.key(false).await, what);
        assert!(key.is_some() || done < 2, "{what}: the key is gone");

        let before =
            sure(store.head().await, what).map_or((0, 0), |head| (head.serial, head.fence));
        let lease = sure(store.lock(&holder("r2"), NO_WAIT).await, what);
        assert!(
            lease.fence > before.1,
            "{what}: {} after {}",
            lease.fence,
            before.1
        );
        store.journal_append(&lease, &[end("r2")]).await.unwrap();
        journal_ends_with(&store, &journal).await;
        sure(store.put(&lease, &record("a", "next")).await, what);
        let after = store.head().await.unwrap().unwrap();
        assert_eq!(after.serial, before.0 + 1, "{what}");
        if let Some(key) = key {
            assert_eq!(sure(store.key(true).await, what), Some(key), "{what}");
        } else {
            store.key(true).await.unwrap();
        }
        for name in ["a", "b", "c"] {
            store.delete(&lease, &address(name)).await.unwrap();
        }
        store.remove_empty(lease).await.unwrap();
    });
    assert_eq!(
        disk.paths(),
        bare().paths(),
        "{what}: something is left behind"
    );
}

async fn journal_ends_with(store: &Filesystem, before: &[Entry]) {
    let mut expected = before.to_vec();
    expected.push(end("r2"));
    assert_eq!(store.journal_read().await.unwrap(), expected);
}

/// Runs `work` with the fault at every call in turn, from both starting points.
fn at_every_call(
    fault: Fault,
    mut check: impl FnMut(&FaultyDisk, u32, bool, StoreResult<()>, &str),
) {
    for had in [false, true] {
        let before = if had { baseline() } else { bare() };
        let mut at = 0;
        loop {
            let start = before.after_power_cut(|| true);
            let disk = Arc::new(FaultyDisk::new(start, fault, at + OPENING_CALLS));
            let store = open(disk.clone());
            let mut done = 0;
            let result = run(work(&store, &mut done));
            // The process is gone, and its operating-system locks with it.
            drop(store);
            if !disk.fired() {
                assert!(result.is_ok() && done == STEPS, "{result:?}");
                assert!(at > 60, "only {at} calls: the test does not see the disk");
                break;
            }
            let what = format!("{fault:?} at call {at}, had {had}, done {done}");
            check(&disk, done, had, result, &what);
            at += 1;
        }
    }
}

/// Opening a store looks at two folders and reads the machine's identity.
const OPENING_CALLS: u64 = 3;

#[test]
fn every_call_may_fail_with_every_errno() {
    for (fault, errno) in [
        (Fault::Errno(ENOSPC), ENOSPC),
        (Fault::Errno(EIO), EIO),
        (Fault::Errno(EDQUOT), EDQUOT),
        (Fault::HalfErrno(ENOSPC), ENOSPC),
    ] {
        at_every_call(fault, |disk, done, had, result, what| {
            match result {
                Err(StoreError::Storage(text)) => {
                    assert!(
                        text.contains(&format!("(os error {errno})")),
                        "{what}: {text}"
                    );
                    assert!(text.contains("work"), "{what}: no path in {text}");
                }
                other => panic!("{what}: an error went unsaid: {other:?}"),
            }
            // What is left does not depend on the number.
            if errno == ENOSPC {
                check_and_continue(&disk.disk, done, had, what);
            }
        });
    }
}

#[test]
fn the_process_may_die_at_every_call() {
    // Dying before a call is dying after the one before it.
    for fault in [Fault::DeadHalfway, Fault::DeadAfter] {
        at_every_call(fault, |disk, done, had, result, what| {
            assert!(result.is_err(), "{what}");
            check_and_continue(&disk.disk, done, had, what);
        });
    }
}

#[test]
fn the_power_may_go_at_every_call() {
    let random = SeededRandom::new(7);
    at_every_call(Fault::DeadAfter, |disk, done, had, _result, what| {
        // Nothing that was not flushed has arrived, or some of it.
        for mixture in 0..3_u8 {
            let left = disk.disk.after_power_cut(|| {
                let mut byte = [0];
                random.fill(&mut byte);
                mixture > 0 && byte[0] & 1 == 1
            });
            check_and_continue(&left, done, had, &format!("{what}, mixture {mixture}"));
        }
    });
}

#[test]
fn removal_may_be_cut_off_anywhere_and_done_again() {
    for fault in [Fault::DeadHalfway, Fault::DeadAfter, Fault::Errno(EIO)] {
        let mut at = 0;
        loop {
            let start = bare();
            let ready = open(Arc::new(start.clone()));
            run(async {
                let lease = ready.lock(&holder("r0"), NO_WAIT).await.unwrap();
                ready.key(true).await.unwrap();
                ready.put(&lease, &record("a", "old")).await.unwrap();
                ready.delete(&lease, &address("a")).await.unwrap();
                ready
                    .put_keepsake(&lease, "k", &keepsake("old"))
                    .await
                    .unwrap();
                ready.unlock(&lease).await.unwrap();
            });
            drop(ready);
            let disk = Arc::new(FaultyDisk::new(start, fault, at + OPENING_CALLS));
            let store = open(disk.clone());
            let result = run(async {
                let lease = store.lock(&holder("r1"), NO_WAIT).await?;
                store.remove_empty(lease).await
            });
            drop(store);
            let what = format!("{fault:?} at call {at}");
            assert_eq!(result.is_ok(), !disk.fired(), "{what}: {result:?}");
            let store = open(Arc::new(disk.disk.clone()));
            run(async {
                let lease = sure(store.lock(&holder("r2"), NO_WAIT).await, &what);
                sure(store.remove_empty(lease).await, &what);
            });
            assert_eq!(disk.disk.paths(), bare().paths(), "{what}");
            if !disk.fired() {
                assert!(at > 30, "only {at} calls");
                break;
            }
            at += 1;
        }
    }
}
