//! The runner's cancel, replayed: SIGINT to the step's entry process, 7.5 s later SIGTERM, 2.5 s later
//! the end of the whole tree. At random moments of a run, however the step starts us; afterwards no
//! lock is left, nothing was cut off, and the next run finishes.
//!
//! `TIDEGATE_CANCELS=300 cargo test --test it cancel:: -- --nocapture` is the long form, which prints
//! how long it took from the signal that got through to the last of us being gone. No test here
//! depends on that time.

#![expect(
    clippy::print_stdout,
    reason = "the times are worth showing with --nocapture"
)]

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidegate::random::{Random as _, SeededRandom};

use crate::action::ActJob;
use crate::harness::{Run, binary, lab_tool, skip_without, wait_for};
use crate::main_job::processes;

/// The runner's own pauses.
const TO_TERM: Duration = Duration::from_millis(7_500);
const TO_KILL: Duration = Duration::from_millis(2_500);

/// A hang is a failure, not a wait.
const TOO_LONG: Duration = Duration::from_secs(120);

/// A dozen resources to be cancelled in the middle of, and a gate that never opens to end at.
fn config() -> String {
    let mut text = "\
modules:
  - {name: here, type: iac.provider, config: {provider: local, root: ./resources}}
  - {name: state, type: iac.state, config: {backend: filesystem, directory: ./state}}
"
    .to_owned();
    for number in 0..8 {
        let after = match number {
            0 => String::new(),
            _ => format!(", depends_on: [files-{}]", number - 1),
        };
        text.push_str(&format!(
            "  - {{name: files-{number}, type: infra.storage, config: {{provider: here{after}}}}}\n"
        ));
    }
    for number in 0..3 {
        text.push_str(&format!(
            "  - {{name: db-{number}, type: infra.database, config: {{provider: here, engine: sqlite}}, outputs: {{connection_url: {{sensitive: true, sinks: [{{type: dotenv, name: DB_{number}}}]}}}}}}\n"
        ));
    }
    text + "\
secrets:
  generate: [{key: SESSION, type: random_hex, sinks: [{type: dotenv, name: SESSION}]}]
pipelines:
  deploy:
    steps:
      - name: never
        type: step.deploy_verify
        config: {timeout: 10m, retry_interval: 5m, targets: [{url: \"http://127.0.0.1:1/\"}]}
"
}

/// How a step starts us.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// A line of a script: the shell stands in between and keeps SIGINT to itself.
    Plain,
    /// `exec`, as the action does it: we are the entry process.
    Exec,
    /// A wrapper that hands signals on.
    Wrapper,
}

impl Way {
    const ALL: [Self; 3] = [Self::Plain, Self::Exec, Self::Wrapper];

    fn script(self) -> String {
        let us = format!("{} up -c infra.yaml", binary().display());
        match self {
            Self::Plain => format!("{us}\necho \"not reached\"\n"),
            Self::Exec => format!("exec {us}\n"),
            Self::Wrapper => format!("exec timeout --foreground 600 {us}\n"),
        }
    }
}

struct Job {
    folder: TempDir,
    child: Child,
    /// Says when the last process that holds the step's output is gone.
    gone: Receiver<Instant>,
}

impl Job {
    fn start(way: Way) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("infra.yaml"), config()).unwrap();
        fs::write(folder.path().join("step.sh"), way.script()).unwrap();
        let plain = Run::new(folder.path(), &[]).into_command();
        let mut child = Command::new("bash")
            .args(["--noprofile", "--norc", "-e", "-o", "pipefail", "step.sh"])
            .current_dir(folder.path())
            .env_clear()
            .envs(
                plain
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("GITHUB_ACTIONS", "true")
            .env("RUNNER_ENVIRONMENT", "self-hosted")
            .env("GITHUB_STEP_SUMMARY", folder.path().join("summary"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.path().join("errors")).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (tell, gone) = channel();
        let log = folder.path().join("log");
        std::thread::spawn(move || {
            let mut text = Vec::new();
            drop(stdout.read_to_end(&mut text));
            tell.send(Instant::now()).ok();
            drop(fs::write(log, text));
        });
        Self {
            folder,
            child,
            gone,
        }
    }

    fn signal(&self, name: &str) -> Instant {
        let sent = Instant::now();
        // A step that is gone already needs none.
        drop(
            Command::new("kill")
                .args([name, &self.child.id().to_string()])
                .stderr(Stdio::null())
                .status(),
        );
        sent
    }

    /// The runner's three steps. Answers how long we took after the signal that got through, or
    /// nothing when it came to the last step.
    fn cancel(&mut self, way: Way, to_term: Duration) -> Option<Duration> {
        let first = self.signal("-INT");
        match self.gone.recv_timeout(to_term) {
            Ok(end) => return Some(end.saturating_duration_since(first)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("nobody listens to the step"),
        }
        let second = self.signal("-TERM");
        // Of the shell's wait nothing is ours; everything that heard the first signal counts from it.
        let from = match way {
            Way::Plain => second,
            Way::Exec | Way::Wrapper => first,
        };
        match self.gone.recv_timeout(TO_KILL) {
            Ok(end) => Some(end.saturating_duration_since(from)),
            Err(_) => {
                for process in processes(&self.place()) {
                    let id = process.split(' ').next().unwrap_or_default().to_owned();
                    drop(Command::new("kill").args(["-KILL", &id]).status());
                }
                None
            }
        }
    }

    /// Waits until we have begun to listen: whoever stands in between and dies in the few
    /// milliseconds before leaves nothing to hear. (The runner's last step ends us then, and the next run settles it.)
    fn listens(&self) {
        const USR1: u64 = 1 << 9;
        let place = self.place();
        wait_for("somebody who listens, or the end", || {
            let ours = processes(&place)
                .into_iter()
                .find(|process| process.contains(" up -c") && !process.contains("timeout"));
            let Some(ours) = ours else { return false };
            let id = ours.split(' ').next().unwrap_or_default();
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            status
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))
                .and_then(|caught| u64::from_str_radix(caught.trim(), 16).ok())
                .is_some_and(|caught| caught & USR1 != 0)
        });
    }

    fn place(&self) -> String {
        self.folder.path().display().to_string()
    }

    /// No process, no lock, no intent without an outcome; and the next run finishes.
    fn expect_a_safe_stop(mut self, what: &str) {
        self.child.wait().unwrap();
        let place = self.place();
        wait_for("nobody of ours to be left", || processes(&place).is_empty());
        let run = |line: &str| {
            let arguments: Vec<&str> = line.split(' ').collect();
            let finished = Run::new(self.folder.path(), &arguments).output();
            assert_eq!(
                finished.code(),
                0,
                "{what}: {line}\n{}\nof the step: {}",
                finished.stderr(),
                fs::read_to_string(self.folder.path().join("errors")).unwrap_or_default()
            );
            finished.stderr()
        };
        let next = run("infra apply -c infra.yaml --yes --lock-timeout 0s");
        for word in ["Took over", "cut off"] {
            assert!(!next.contains(word), "{what}: {next}");
        }
        let plan = run("infra plan -c infra.yaml --detailed-exitcode");
        drop(plan);
        for name in ["files-7", "db-2"] {
            assert!(
                self.folder.path().join("resources").join(name).exists(),
                "{what}: {name}"
            );
        }
        let sinks = fs::read_to_string(self.folder.path().join(".env")).unwrap();
        assert!(sinks.contains("DB_2=") && sinks.contains("SESSION="));
    }
}

/// How long one whole way to the gate takes here, in milliseconds.
fn whole() -> u32 {
    let mut job = Job::start(Way::Exec);
    let started = Instant::now();
    let place = job.folder.path().join(".env");
    while !fs::read_to_string(&place).is_ok_and(|text| text.contains("DB_2=")) {
        assert!(started.elapsed() < TOO_LONG, "the gate is never reached");
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = started.elapsed();
    job.cancel(Way::Exec, TO_TERM);
    job.expect_a_safe_stop("at the gate");
    u32::try_from(took.as_millis()).unwrap_or(u32::MAX)
}

fn at(times: &[Duration], share: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a short list"
    )]
    let index = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1;
    times[index]
}

#[test]
fn a_cancel_at_a_random_moment_is_a_safe_stop_however_we_were_started() {
    let number = |name: &str, default: u32| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (cancels, seed) = (number("TIDEGATE_CANCELS", 9), number("TIDEGATE_SEED", 1));
    let random = SeededRandom::new(u64::from(seed));
    let draw = |most: u32| {
        let mut bytes = [0_u8; 4];
        random.fill(&mut bytes);
        u32::from_le_bytes(bytes) % most.max(1)
    };
    let whole = whole();
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..cancels {
        let index = round as usize % Way::ALL.len();
        let way = Way::ALL[index];
        let wait = Duration::from_millis(u64::from(draw(whole * 5 / 4)));
        // Between the two signals the shell only waits, so a shorter pause is the same story.
        let pause = match way {
            Way::Plain => Duration::from_millis(u64::from(draw(200))),
            Way::Exec | Way::Wrapper => TO_TERM,
        };
        let mut job = Job::start(way);
        if matches!(way, Way::Plain | Way::Wrapper) {
            job.listens();
        }
        std::thread::sleep(wait);
        let took = job.cancel(way, pause);
        let what = format!("seed {seed} round {round}: {way:?} after {wait:?}");
        let took = took.unwrap_or_else(|| panic!("{what}: had to be killed"));
        times[index].push(took);
        job.expect_a_safe_stop(&what);
    }
    for (way, times) in Way::ALL.iter().zip(&mut times) {
        if times.is_empty() {
            continue;
        }
        times.sort_unstable();
        println!(
            "{way:?}: {} cancels within {whole} ms of a run, safe after p50 {:?}, p99 {:?}, at most {:?}",
            times.len(),
            at(times, 0.5),
            at(times, 0.99),
            at(times, 1.0)
        );
    }
}

/// With the runner's own pauses, where they are longest: a shell that hears SIGINT and waits.
#[test]
fn a_cancel_with_the_runners_own_pauses_is_a_safe_stop() {
    let mut job = Job::start(Way::Plain);
    let gate = job.folder.path().join(".env");
    wait_for("the gate", || {
        fs::read_to_string(&gate).is_ok_and(|text| text.contains("DB_2="))
    });
    let took = job.cancel(Way::Plain, TO_TERM);
    assert!(took.is_some(), "it had to be killed");
    job.expect_a_safe_stop("with the runner's own pauses");
}

const WORKFLOW: &str = "\
name: Cancel
on: push
jobs:
  cancel:
    runs-on: ubuntu-latest
    steps:
      - run: exec \"$TIDEGATE\" up -c \"$PROJECT/infra.yaml\"
";

/// What acts as the runner on a developer's machine has pauses of its own, and may end us at once:
/// the lock is free all the same, and the next run finishes.
#[test]
fn a_cancelled_act_leaves_no_lock_and_the_next_run_finishes() {
    let Some(act) = lab_tool("v/bin/act") else {
        skip_without("act");
        return;
    };
    let job = ActJob::new(act, "quickstart.yml");
    let workflows = job.repository().join(".github/workflows");
    fs::remove_file(workflows.join("quickstart.yml")).unwrap();
    fs::write(workflows.join("cancel.yml"), WORKFLOW).unwrap();
    let project = tempfile::tempdir().unwrap();
    let root = project.path();
    fs::write(root.join("infra.yaml"), config()).unwrap();
    let output = root.join("log");
    let mut child = job
        .command(&[
            ("TIDEGATE", &binary().display().to_string()),
            ("PROJECT", &root.display().to_string()),
            ("RUNNER_ENVIRONMENT", "self-hosted"),
        ])
        .stdout(fs::File::create(&output).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ours = |root: &Path| {
        processes(&root.display().to_string())
            .into_iter()
            .any(|process| process.contains(" up "))
    };
    let started = Instant::now();
    while !fs::read_to_string(root.join(".env")).is_ok_and(|text| text.contains("DB_2=")) {
        let log = fs::read_to_string(&output).unwrap_or_default();
        assert!(started.elapsed() < TOO_LONG, "{log}");
        assert!(child.try_wait().unwrap().is_none(), "{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(ours(root), "the run waits at its gate");
    let status = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
    while child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < TOO_LONG, "act does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    wait_for("nobody of ours to be left", || !ours(root));
    let place = root.join("infra.yaml").display().to_string();
    for line in [
        vec![
            "infra",
            "apply",
            "-c",
            &place,
            "--yes",
            "--lock-timeout",
            "0s",
        ],
        vec!["infra", "plan", "-c", &place, "--detailed-exitcode"],
    ] {
        Run::new(root, &line).output().expect_code(0);
    }
}
