//! Contention: 64 processes that want one lock. `TIDEGATE_ACQUISITIONS` sets how often it is taken
//! in all (default 1,000; `docs/state.md` names the long run).

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate::state::{Renewal, Store, StoreError};

use super::{address, holder, mark, postgres, record, run, system_store};
use crate::local::cluster::Cluster;

const ROLE: &str = "TIDEGATE_TEST_CONTENDER";
const FOLDER: &str = "TIDEGATE_TEST_CONTENTION_FOLDER";
const PORT: &str = "TIDEGATE_TEST_CONTENTION_PORT";
const TIMES: &str = "TIDEGATE_TEST_CONTENTION_TIMES";
const PROCESSES: usize = 64;
const SCHEMA: &str = "contention";

fn acquisitions() -> usize {
    let wanted = std::env::var("TIDEGATE_ACQUISITIONS").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(1_000)
}

fn contender(role: &str, folder: &Path, port: u16, times: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "state::contention::contend",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ROLE, role)
        .env(FOLDER, folder)
        .env(PORT, port.to_string())
        .env(TIMES, times.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Not a test of its own: what each process does.
#[test]
fn contend() {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(role), Some(folder)) = (variable(ROLE), variable(FOLDER)) else {
        return;
    };
    let folder = Path::new(&folder);
    let times: usize = variable(TIMES).unwrap().parse().unwrap();
    let me = std::process::id();
    let log = folder.join("log");
    let note = |text: String| {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&log)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    run(async {
        let store: Box<dyn Store> = if role == "postgres" {
            let port = variable(PORT).unwrap().parse().unwrap();
            let server = postgres::server_at("127.0.0.1", port);
            Box::new(postgres::system_store(server, SCHEMA))
        } else {
            Box::new(system_store(folder, "dev"))
        };
        let wait = Duration::from_secs(540);
        for round in 0..times {
            let lease = store
                .lock(&holder(&format!("{me}-{round}")), wait)
                .await
                .unwrap();
            note(format!("{} {me} start\n", lease.fence));
            // A lost update would show as a count that is too small.
            let count = match store.get(&address("count")).await.unwrap() {
                Some(record) => mark(&record).parse::<usize>().unwrap(),
                None => 0,
            };
            let next = record("count", &(count + 1).to_string());
            store.put(&lease, &next).await.unwrap();
            note(format!("{} {me} stop\n", lease.fence));
            store.unlock(&lease).await.unwrap();
        }
    });
}

fn nobody_overlaps(role: &str, folder: &Path, port: u16, store: impl Fn() -> Box<dyn Store>) {
    let times = acquisitions().div_ceil(PROCESSES);
    let mut children: Vec<_> = (0..PROCESSES)
        .map(|_| contender(role, folder, port, times).spawn().unwrap())
        .collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let log = std::fs::read_to_string(folder.join("log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), PROCESSES * times * 2);
    for (index, pair) in lines.chunks(2).enumerate() {
        // Fences count every hold, so a hold that nobody logged would show as a gap.
        let start = pair[0]
            .strip_suffix(" start")
            .unwrap_or_else(|| panic!("overlap: {pair:?}"));
        assert_eq!(Some(start), pair[1].strip_suffix(" stop"), "overlap");
        let fence: usize = start.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(fence, index + 1);
    }
    run(async {
        let last = store().get(&address("count")).await.unwrap().unwrap();
        assert_eq!(mark(&last), (PROCESSES * times).to_string());
    });
}

#[test]
fn sixty_four_processes_on_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    nobody_overlaps("filesystem", root, 0, || {
        Box::new(system_store(root, "dev"))
    });
}

#[test]
fn sixty_four_processes_on_a_database() {
    let Some(cluster) = Cluster::with_connections(100) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    nobody_overlaps("postgres", folder.path(), cluster.port, || {
        let server = postgres::server_at("127.0.0.1", cluster.port);
        Box::new(postgres::system_store(server, SCHEMA))
    });
}

const STOPPED: &str = "TIDEGATE_TEST_STOPPED_HOLDER";

/// Not a test of its own: takes the lock, and writes without pause until it is refused.
#[test]
fn hold_and_write() {
    let (Ok(port), Ok(folder)) = (std::env::var(STOPPED), std::env::var(FOLDER)) else {
        return;
    };
    let folder = Path::new(&folder);
    run(async {
        let server = postgres::server_at("127.0.0.1", port.parse().unwrap());
        let store = postgres::system_store(server, SCHEMA).with_renewal(SHORT);
        let lease = store
            .lock(&holder("stopped"), Duration::ZERO)
            .await
            .unwrap();
        std::fs::write(folder.join("locked"), "").unwrap();
        for number in 0_u64.. {
            match store
                .put(&lease, &record("a", &format!("stopped-{number}")))
                .await
            {
                Ok(_) => {}
                Err(StoreError::LostLock { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        std::fs::write(folder.join("lost"), "").unwrap();
    });
}

const SHORT: Renewal = Renewal {
    interval: Duration::from_millis(100),
    lease: Duration::from_millis(300),
};

/// Stopped at any moment, in the middle of a transaction too: another run follows once the lease
/// has lapsed, and the stopped one writes nothing when it wakes.
#[test]
fn a_holder_stopped_at_any_moment_is_followed_and_fenced() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    for round in 0..4_u64 {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "state::contention::hold_and_write",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(STOPPED, cluster.port.to_string())
            .env(FOLDER, folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        crate::harness::wait_for("the lock", || folder.path().join("locked").exists());
        std::thread::sleep(Duration::from_micros(3_000 + round * 700));
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, rustix::process::Signal::STOP).unwrap();
        let mine = format!("mine-{round}");
        run(async {
            let server = postgres::server_at("127.0.0.1", cluster.port);
            let store = postgres::system_store(server, SCHEMA);
            let wait = Duration::from_secs(60);
            let lease = store.lock(&holder("follower"), wait).await.unwrap();
            let before = lease.taken_over.as_deref().map(|dead| dead.run_id.clone());
            assert_eq!(before.as_deref(), Some("stopped"), "round {round}");
            store.put(&lease, &record("a", &mine)).await.unwrap();
            rustix::process::kill_process(id, rustix::process::Signal::CONT).unwrap();
            crate::harness::wait_for("the refusal", || folder.path().join("lost").exists());
            let now = store.get(&address("a")).await.unwrap().unwrap();
            assert_eq!(mark(&now), mine);
            store.unlock(&lease).await.unwrap();
        });
        assert!(child.wait().unwrap().success());
    }
}
