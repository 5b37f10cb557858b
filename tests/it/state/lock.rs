//! The lock between real threads and real processes: exclusion, death, and being stopped.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate::state::{Entry, Filesystem, Renewal, Store, StoreError};

use super::{NO_WAIT, address, holder, mark, record, run, system_store};

const ROLE: &str = "TIDEGATE_TEST_STATE_ROLE";
const FOLDER: &str = "TIDEGATE_TEST_STATE_FOLDER";

const SHORT: Renewal = Renewal {
    interval: Duration::from_millis(100),
    lease: Duration::from_millis(300),
};

fn short_store(root: &Path) -> Filesystem {
    system_store(root, "dev").with_renewal(SHORT)
}

/// This test binary once more, as a process that plays `role`.
struct Player {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Player {
    fn start(role: &str, folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "state::lock::play_a_role",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ROLE, role)
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// The next line that starts with `word`.
    #[track_caller]
    fn hear(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(
                self.output.read_line(&mut line).unwrap(),
                0,
                "it ended without `{word}`"
            );
            // The test runner may have started the line.
            if let Some(start) = line.find(word) {
                return line[start..].trim().to_owned();
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Not a test of its own: what [`Player`] processes do.
#[test]
fn play_a_role() {
    let (Some(role), Some(folder)) = (std::env::var_os(ROLE), std::env::var_os(FOLDER)) else {
        return;
    };
    let folder = Path::new(&folder);
    let say = |text: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").unwrap();
        out.flush().unwrap();
    };
    // False when the test that started us is gone.
    let wait = || std::io::stdin().read_line(&mut String::new()).unwrap() > 0;
    match role.to_str() {
        // Takes the lock, then writes whenever it is told to.
        Some("hold") => {
            let store = short_store(folder);
            let lease = run(store.lock(&holder("player"), Duration::from_secs(20))).unwrap();
            say(format!("locked {}", lease.fence));
            while wait() {
                match run(store.put(&lease, &record("a", "player"))) {
                    Ok(_) => say("wrote".to_owned()),
                    Err(StoreError::LostLock { .. }) => say("lost".to_owned()),
                    Err(error) => say(format!("failed {error}")),
                }
            }
        }
        // Takes and gives back the lock many times, and notes both in a log.
        Some("contend") => {
            let store = system_store(folder, "dev");
            let log = folder.join("log");
            let note = |text: String| {
                let mut file = std::fs::OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(&log)
                    .unwrap();
                file.write_all(text.as_bytes()).unwrap();
            };
            let me = std::process::id();
            for _ in 0..10 {
                let lease =
                    run(store.lock(&holder(&me.to_string()), Duration::from_secs(60))).unwrap();
                note(format!("{} {me} start\n", lease.fence));
                std::thread::sleep(Duration::from_millis(2));
                note(format!("{} {me} stop\n", lease.fence));
                run(store.unlock(&lease)).unwrap();
            }
            say("done".to_owned());
        }
        // Writes as fast as it can, and says what was acknowledged.
        Some("write") => {
            let store = short_store(folder);
            let lease = run(store.lock(&holder("player"), NO_WAIT)).unwrap();
            let first = run(store.journal_read()).unwrap().len();
            say("locked".to_owned());
            for number in first.. {
                let entry = Entry::End {
                    run_id: number.to_string(),
                };
                run(store.journal_append(&lease, &[entry])).unwrap();
                run(store.put(&lease, &record("a", &number.to_string()))).unwrap();
                say(format!("wrote {number}"));
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_writer_killed_at_any_moment_loses_nothing_it_was_promised() {
    let folder = tempfile::tempdir().unwrap();
    let store = system_store(folder.path(), "dev");
    let mut promised = None;
    for round in 0..25_u64 {
        let mut player = Player::start("write", folder.path());
        player.hear("locked");
        for _ in 0..round % 3 {
            let number = player.hear("wrote ")[6..].parse().unwrap();
            promised = promised.max(Some(number));
        }
        std::thread::sleep(Duration::from_micros(round * 700));
        player.signal(rustix::process::Signal::KILL);
        player.child.wait().unwrap();
        let mut said = String::new();
        player.output.read_to_string(&mut said).unwrap();
        // The last line may have been cut off by the kill.
        let last = said
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let last =
            last.filter_map(|line| line.trim().strip_prefix("wrote ")?.parse::<usize>().ok());
        promised = promised.max(last.max());

        let journal = run(store.journal_read()).unwrap();
        let numbers: Vec<Entry> = (0..journal.len())
            .map(|number| Entry::End {
                run_id: number.to_string(),
            })
            .collect();
        assert_eq!(journal, numbers, "round {round}");
        let kept = run(store.get(&address("a"))).unwrap();
        let kept = kept.map(|record| mark(&record).parse::<usize>().unwrap());
        assert!(kept >= promised && journal.len() >= promised.map_or(0, |last| last + 1));
        // A record is never ahead of the journal.
        assert!(
            kept.is_none_or(|kept| kept < journal.len()),
            "{kept:?} of {}",
            journal.len()
        );
        let lease = run(store.lock(&holder("me"), NO_WAIT)).unwrap();
        run(store.unlock(&lease)).unwrap();
    }
    assert!(promised.is_some_and(|last| last >= 20), "{promised:?}");
}

#[test]
fn a_killed_holder_is_followed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = system_store(folder.path(), "dev");
    for round in 0..5 {
        let mut player = Player::start("hold", folder.path());
        let fence: u64 = player.hear("locked ")[7..].parse().unwrap();
        match run(store.lock(&holder("me"), NO_WAIT)) {
            Err(StoreError::Locked { holder: seen, .. }) => {
                assert_eq!(seen.run_id, "player");
                assert_eq!(seen.process_id, player.child.id());
            }
            other => panic!("round {round}: {other:?}"),
        }
        player.signal(rustix::process::Signal::KILL);
        player.child.wait().unwrap();
        assert_eq!(run(store.holder()).unwrap(), None);
        let started = Instant::now();
        let lease = run(store.lock(&holder("me"), NO_WAIT)).unwrap();
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
        assert_eq!(lease.fence, fence + 1);
        assert_eq!(
            lease.taken_over.as_deref().map(|dead| dead.run_id.as_str()),
            Some("player")
        );
        run(store.unlock(&lease)).unwrap();
    }
}

#[test]
fn a_stopped_holder_loses_the_lock_and_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let mut player = Player::start("hold", folder.path());
    let fence: u64 = player.hear("locked ")[7..].parse().unwrap();
    player.input.write_all(b"\n").unwrap();
    player.hear("wrote");
    player.signal(rustix::process::Signal::STOP);

    let store = short_store(folder.path());
    assert!(matches!(
        run(store.lock(&holder("me"), NO_WAIT)),
        Err(StoreError::Locked { .. })
    ));
    let started = Instant::now();
    let lease = run(store.lock(&holder("me"), Duration::from_secs(20))).unwrap();
    assert!(
        started.elapsed() < SHORT.lease + Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(lease.fence, fence + 1);
    run(store.put(&lease, &record("a", "mine"))).unwrap();

    player.signal(rustix::process::Signal::CONT);
    player.input.write_all(b"\n").unwrap();
    player.hear("lost");
    let got = run(store.get(&address("a"))).unwrap().unwrap();
    assert_eq!(mark(&got), "mine");
}

#[test]
fn a_holder_stopped_in_the_middle_of_a_write_is_named_not_overtaken() {
    use tidegate::disk::{Disk as _, SystemDisk};
    let folder = tempfile::tempdir().unwrap();
    let store = short_store(folder.path());
    let lease = run(store.lock(&holder("r1"), NO_WAIT)).unwrap();
    run(store.unlock(&lease)).unwrap();
    let guard = folder.path().join("dev/lock.guard");
    let held = SystemDisk.try_lock(&guard).unwrap();
    let started = Instant::now();
    let error = run(store.lock(&holder("r2"), NO_WAIT)).unwrap_err();
    assert!(started.elapsed() >= Duration::from_secs(10));
    assert!(error.to_string().contains("lock.guard"), "{error}");
    drop(held);
    run(store.lock(&holder("r2"), NO_WAIT)).unwrap();
}

#[test]
fn processes_never_hold_the_lock_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut players: Vec<Player> = (0..6)
        .map(|_| Player::start("contend", folder.path()))
        .collect();
    for player in &mut players {
        player.hear("done");
    }
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 6 * 10 * 2);
    for (index, pair) in lines.chunks(2).enumerate() {
        // Fences count every hold, so a hold that nobody logged would show as a gap.
        let start = pair[0]
            .strip_suffix(" start")
            .unwrap_or_else(|| panic!("overlap: {pair:?}"));
        assert_eq!(Some(start), pair[1].strip_suffix(" stop"), "overlap");
        let fence: usize = start.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(fence, index + 1);
    }
}

#[test]
fn threads_never_hold_the_lock_together() {
    let folder = tempfile::tempdir().unwrap();
    let busy = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (busy, root) = (&busy, folder.path());
            scope.spawn(move || {
                let store = system_store(root, "dev");
                for _ in 0..10 {
                    let me = holder(&format!("thread-{thread}"));
                    let lease = run(store.lock(&me, Duration::from_secs(60))).unwrap();
                    assert!(!busy.swap(true, Ordering::SeqCst), "two holders");
                    run(store.put(&lease, &record("a", &lease.fence.to_string()))).unwrap();
                    busy.store(false, Ordering::SeqCst);
                    run(store.unlock(&lease)).unwrap();
                }
            });
        }
    });
    let store = system_store(folder.path(), "dev");
    let head = run(store.head()).unwrap().unwrap();
    assert_eq!((head.serial, head.fence), (40, 40));
    let last = run(store.get(&address("a"))).unwrap().unwrap();
    assert_eq!((mark(&last), last.tidegate.version), ("40", 40));
}

#[test]
fn a_lock_on_a_file_that_was_removed_is_no_lock() {
    use tidegate::disk::{Disk as _, SystemDisk};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guard");
    let busy = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3_000 {
                    let Some(_lock) = SystemDisk.try_lock(&path).unwrap() else {
                        continue;
                    };
                    assert!(!busy.swap(true, Ordering::SeqCst), "two holders");
                    std::thread::yield_now();
                    busy.store(false, Ordering::SeqCst);
                    // The last holder takes the file with it, while others are about to lock it.
                    SystemDisk.remove_file(&path).unwrap();
                }
            });
        }
    });
}

#[test]
fn tasks_of_one_run_write_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let store = system_store(folder.path(), "dev");
    run(async {
        let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        let writes = (0..20).map(|index| {
            let (store, lease) = (&store, &lease);
            async move {
                store
                    .put(lease, &record(&format!("r-{index}"), "x"))
                    .await
                    .unwrap()
            }
        });
        let mut serials = futures_util::future::join_all(writes).await;
        serials.sort_unstable();
        assert_eq!(serials, (1..=20).collect::<Vec<u64>>());
        assert_eq!(store.list().await.unwrap().len(), 20);
    });
}

#[test]
fn a_removed_environment_can_be_locked_by_whoever_waited() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join(".tidegate/state");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let root = &root;
            scope.spawn(move || {
                let store = system_store(root, "dev");
                for _ in 0..10 {
                    let me = holder(&format!("thread-{thread}"));
                    let lease = run(store.lock(&me, Duration::from_secs(60))).unwrap();
                    run(store.put(&lease, &record("a", "x"))).unwrap();
                    run(store.delete(&lease, &address("a"))).unwrap();
                    run(store.remove_empty(lease)).unwrap();
                }
            });
        }
    });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_read_only_folder_can_be_read_and_says_why_it_cannot_be_written() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("state");
    let store = system_store(&root, "dev");
    let lease = run(store.lock(&holder("r1"), NO_WAIT)).unwrap();
    run(store.put(&lease, &record("a", "one"))).unwrap();
    run(store.unlock(&lease)).unwrap();
    if rustix::process::geteuid().is_root() {
        // Root writes everywhere; the faults at every call stand for this case then.
        return;
    }
    for path in ["dev/records", "dev"] {
        std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(0o500)).unwrap();
    }
    let result = run(store.lock(&holder("r2"), NO_WAIT));
    let read = run(store.get(&address("a")));
    for path in ["dev", "dev/records"] {
        std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    assert!(read.unwrap().is_some());
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("os error 13") && error.contains("dev"),
        "{error}"
    );
}
