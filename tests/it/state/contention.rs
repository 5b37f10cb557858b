//! Contention: 64 processes that want one lock, on every kind of storage. It is taken about 1,000
//! times over all of them; `TIDEGATE_ACQUISITIONS` sets how often on each (`docs/state.md` names the
//! long runs).

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tidegate::clock::SystemClock;
use tidegate::command::shelf::PluginShelf;
use tidegate::random::SystemRandom;
use tidegate::state::served::Served;
use tidegate::state::{Renewal, Store, StoreError};

use super::cloud::{Account, Kind, Server};
use super::{address, holder, mark, postgres, record, run, system_store};
use crate::local::cluster::Cluster;

const ROLE: &str = "TIDEGATE_TEST_CONTENDER";
const PLACE: &str = "TIDEGATE_TEST_CONTENTION_PLACE";
const FOLDER: &str = "TIDEGATE_TEST_CONTENTION_FOLDER";
const TIMES: &str = "TIDEGATE_TEST_CONTENTION_TIMES";
const PROCESSES: usize = 64;
const SCHEMA: &str = "contention";

/// A number from the environment, for the long runs.
fn number_or(variable: &str, usual: usize) -> usize {
    let wanted = std::env::var(variable).ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Where the contenders meet, in words that a child process understands.
#[derive(Clone, Debug)]
enum Place {
    /// Below the folder of the test.
    Folder,
    /// The server at a port.
    Database(u16),
    /// A server that speaks like this one, at an endpoint.
    Bucket(Kind, String),
}

const KINDS: [(&str, Kind); 3] = [("s3", Kind::S3), ("gcs", Kind::Gcs), ("azure", Kind::Azure)];

impl Place {
    fn words(&self) -> String {
        match self {
            Self::Folder => "folder".to_owned(),
            Self::Database(port) => format!("database {port}"),
            Self::Bucket(kind, endpoint) => {
                let word = KINDS.iter().find(|(_, known)| known == kind);
                format!("{} {endpoint}", word.expect("a kind").0)
            }
        }
    }

    fn parse(words: &str) -> Self {
        let (word, rest) = words.split_once(' ').unwrap_or((words, ""));
        match word {
            "folder" => Self::Folder,
            "database" => Self::Database(rest.parse().expect("a port")),
            word => {
                let kind = KINDS.iter().find(|(known, _)| *known == word);
                Self::Bucket(kind.expect("a kind").1, rest.to_owned())
            }
        }
    }

    /// The store as a process of its own would open it; a bucket's plugin comes along.
    async fn open(&self, folder: &Path, renewal: Renewal) -> Box<dyn Store> {
        match self {
            Self::Folder => Box::new(system_store(folder, "dev").with_renewal(renewal)),
            Self::Database(port) => {
                let server = postgres::server_at("127.0.0.1", *port);
                Box::new(postgres::system_store(server, SCHEMA).with_renewal(renewal))
            }
            Self::Bucket(kind, endpoint) => {
                let account = Account::at(*kind, endpoint, "contention/").expect("the plugin");
                let backend = account.open().await;
                let shelf = Arc::new(PluginShelf::new(backend, "the bucket".to_owned()));
                let clock = Arc::new(SystemClock::new());
                let store = Served::open(shelf, "shop", "dev", clock, Arc::new(SystemRandom));
                Box::new(store.expect("a store").with_renewal(renewal))
            }
        }
    }
}

/// This very test program, told to play a part.
fn player(test: &str, role: &str, place: &Place, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(PLACE, place.words())
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Not a test of its own: what each process does.
#[test]
fn contend() {
    let variable = |name: &str| std::env::var(name).ok();
    if variable(ROLE).as_deref() != Some("contender") {
        return;
    }
    let folder = variable(FOLDER).unwrap();
    let folder = Path::new(&folder);
    let place = Place::parse(&variable(PLACE).unwrap());
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
        let store = place.open(folder, Renewal::DEFAULT).await;
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

/// `usual` acquisitions in all, unless `TIDEGATE_ACQUISITIONS` says otherwise.
fn nobody_overlaps(place: &Place, folder: &Path, usual: usize) {
    let times = number_or("TIDEGATE_ACQUISITIONS", usual).div_ceil(PROCESSES);
    let mut children: Vec<_> = (0..PROCESSES)
        .map(|_| {
            player("state::contention::contend", "contender", place, folder)
                .env(TIMES, times.to_string())
                .spawn()
                .unwrap()
        })
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
        let store = place.open(folder, Renewal::DEFAULT).await;
        let last = store.get(&address("count")).await.unwrap().unwrap();
        assert_eq!(mark(&last), (PROCESSES * times).to_string());
    });
}

#[test]
fn sixty_four_processes_on_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    nobody_overlaps(&Place::Folder, folder.path(), 320);
}

#[test]
fn sixty_four_processes_on_a_database() {
    let Some(cluster) = Cluster::with_connections(100) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    nobody_overlaps(&Place::Database(cluster.port), folder.path(), 320);
}

/// Each with a plugin process of its own, and no two of those know of each other.
fn on_a_bucket(kind: Kind, usual: usize) {
    let Some(server) = Server::start(kind) else {
        return;
    };
    // Where the plugin is missing, that is said once and not by every contender.
    if Account::new(kind, &server.endpoint).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Bucket(kind, server.endpoint.clone());
    nobody_overlaps(&place, folder.path(), usual);
}

#[test]
fn sixty_four_processes_on_s3() {
    on_a_bucket(Kind::S3, 128);
}

#[test]
fn sixty_four_processes_on_gcs() {
    on_a_bucket(Kind::Gcs, 192);
}

#[test]
fn sixty_four_processes_on_azure() {
    on_a_bucket(Kind::Azure, 64);
}

/// Not a test of its own: takes the lock, and writes without pause until it is refused.
#[test]
fn hold_and_write() {
    let variable = |name: &str| std::env::var(name).ok();
    if variable(ROLE).as_deref() != Some("holder") {
        return;
    }
    let folder = variable(FOLDER).unwrap();
    let folder = Path::new(&folder);
    let place = Place::parse(&variable(PLACE).unwrap());
    run(async {
        let store = place.open(folder, SHORT).await;
        let lease = store
            .lock(&holder("stopped"), Duration::from_secs(60))
            .await
            .unwrap();
        std::fs::write(folder.join("locked"), "").unwrap();
        for number in 0_u64.. {
            match store
                .put(&lease, &record("a", &format!("stopped-{number}")))
                .await
            {
                // In a folder a write has a moment in which nobody can overtake it: leave others.
                Ok(_) if matches!(place, Place::Folder) => {
                    tokio::time::sleep(Duration::from_millis(40)).await;
                }
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

/// Stopped at any moment, in the middle of a write too: another run follows once the lease has
/// lapsed, and the stopped one writes nothing when it wakes. `TIDEGATE_PAUSES` says how often.
fn a_stopped_holder_is_fenced(place: &Place, usual: u64) {
    let rounds = number_or("TIDEGATE_PAUSES", usual.try_into().unwrap()) as u64;
    let mut followed = 0;
    let shared = tempfile::tempdir().unwrap();
    for round in 0..rounds {
        let folder = shared.path();
        for left in ["locked", "lost"] {
            drop(std::fs::remove_file(folder.join(left)));
        }
        let mut child = player("state::contention::hold_and_write", "holder", place, folder)
            .spawn()
            .unwrap();
        wait_for("the lock", || folder.join("locked").exists());
        let step = if matches!(place, Place::Folder) {
            9_000
        } else {
            700
        };
        std::thread::sleep(Duration::from_micros(3_000 + (round % 64) * step));
        let id = rustix::process::Pid::from_child(&child);
        let signal = |signal| rustix::process::kill_process(id, signal).unwrap();
        signal(rustix::process::Signal::STOP);
        let mine = format!("mine-{round}");
        run(async {
            let store = place.open(folder, Renewal::DEFAULT).await;
            // Long enough for the lease, and for a server to end a transaction that stands still.
            let wait = Duration::from_secs(if matches!(place, Place::Folder) {
                5
            } else {
                60
            });
            let lease = match store.lock(&holder("follower"), wait).await {
                Ok(lease) => lease,
                // Stopped in the very middle of a write to a folder, which nobody can overtake.
                Err(StoreError::Storage(text)) if text.contains("lock.guard") => {
                    signal(rustix::process::Signal::CONT);
                    signal(rustix::process::Signal::KILL);
                    return;
                }
                Err(error) => panic!("round {round}: {error}"),
            };
            followed += 1;
            let before = lease.taken_over.as_deref().map(|dead| dead.run_id.clone());
            assert_eq!(before.as_deref(), Some("stopped"), "round {round}");
            store.put(&lease, &record("a", &mine)).await.unwrap();
            signal(rustix::process::Signal::CONT);
            wait_for("the refusal", || folder.join("lost").exists());
            let now = store.get(&address("a")).await.unwrap().unwrap();
            assert_eq!(mark(&now), mine);
            store.unlock(&lease).await.unwrap();
            assert!(child.wait().unwrap().success());
        });
        drop(child.wait());
    }
    assert!(followed > 0, "never between two writes");
}

/// Like the harness' own, with time for a machine that does other things.
fn wait_for(what: &str, is_true: impl Fn() -> bool) {
    for _ in 0..6000 {
        if is_true() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited a minute for {what}");
}

#[test]
fn a_holder_stopped_at_any_moment_is_fenced_on_a_database() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    a_stopped_holder_is_fenced(&Place::Database(cluster.port), 8);
}

#[test]
fn a_holder_stopped_at_any_moment_is_fenced_on_a_folder() {
    a_stopped_holder_is_fenced(&Place::Folder, 8);
}

#[test]
fn a_holder_stopped_at_any_moment_is_fenced_on_gcs() {
    let Some(server) = Server::start(Kind::Gcs) else {
        return;
    };
    if Account::new(Kind::Gcs, &server.endpoint).is_some() {
        let place = Place::Bucket(Kind::Gcs, server.endpoint.clone());
        a_stopped_holder_is_fenced(&place, 8);
    }
}
