//! Killed at the Nth system call: first every call that can touch state is counted, then the same
//! command is run again and again and killed on entering one of them. `SIGKILL` is a runner that
//! dies, `SIGTERM` one that is cancelled. What is left is resumed, and must come right.
//!
//! `TIDEGATE_KILL_POINTS=10000 cargo test --test it kill:: -- --nocapture` is the long form.

#![expect(
    clippy::print_stdout,
    reason = "what was hit is worth showing with --nocapture"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::beside::MODULES;
use crate::harness::{Run, lab_tool, skip_without};

/// Every call by which the program changes what outlives it, and `openat`, by which it begins to.
const CALLS: &str = "openat,write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,\
unlink,unlinkat,ftruncate,mkdir,mkdirat,rmdir,link,linkat,symlinkat";

const APPLY: &[&str] = &["infra", "apply", "--yes"];
const DESTROY: &[&str] = &["infra", "destroy", "--yes"];

fn points() -> usize {
    std::env::var("TIDEGATE_KILL_POINTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(40)
}

fn traced(strace: &Path, root: &Path, options: &[&str], arguments: &[&str]) -> Command {
    let mut all = arguments.to_vec();
    all.extend(["-c", "infra.yaml"]);
    let plain = Run::new(root, &all).into_command();
    let mut command = Command::new(strace);
    command
        .args(["-f", "-qq", "-o"])
        .arg(root.with_extension("trace"))
        .args(options)
        .arg("--")
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(root)
        .env_clear()
        .envs(
            plain
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// (call, number) of everything one run does: the number counts within one thread, as strace does.
fn census(strace: &Path, root: &Path, arguments: &[&str]) -> Vec<(String, usize)> {
    let trace = format!("trace={CALLS}");
    let status = traced(strace, root, &["-e", &trace], arguments)
        .status()
        .unwrap();
    assert!(status.success(), "{arguments:?} under strace: {status}");
    let text = fs::read_to_string(root.with_extension("trace")).unwrap();
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((call, _)) = rest.trim_start().split_once('(') else {
            continue;
        };
        if call.chars().all(|letter| letter.is_ascii_alphanumeric()) {
            *counts
                .entry((thread.to_owned(), call.to_owned()))
                .or_default() += 1;
        }
    }
    let mut most: BTreeMap<String, usize> = BTreeMap::new();
    for ((_, call), count) in counts {
        let most = most.entry(call).or_default();
        *most = count.max(*most);
    }
    most.into_iter()
        .flat_map(|(call, most)| (1..=most).map(move |number| (call.clone(), number)))
        .collect()
}

/// Runs it and kills it there; true when it was hit.
fn struck(
    strace: &Path,
    root: &Path,
    (call, number): &(String, usize),
    signal: &str,
    arguments: &[&str],
) -> bool {
    let inject = format!("inject={call}:signal={signal}:when={number}");
    let trace = format!("trace={call}");
    let mut child = traced(strace, root, &["-e", &trace, "-e", &inject], arguments)
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{arguments:?} hangs after {signal} at {call} {number}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    !status.success()
}

fn json(root: &Path, arguments: &[&str], place: &str) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["-c", "infra.yaml", "--json"]);
    let finished = Run::new(root, &all).output();
    assert_eq!(
        finished.code(),
        0,
        "{arguments:?} after {place}\n{}\n{}",
        finished.stdout(),
        finished.stderr()
    );
    serde_json::from_str(&finished.stdout()).expect("one JSON document")
}

/// Everything on the disk. A resource that was worked on twice has an earlier record beside its
/// own, which is as it should be.
fn there(root: &Path) -> BTreeSet<PathBuf> {
    let mut files = crate::main_job::files(root);
    files.retain(|path| !path.starts_with("state/default/previous"));
    files
}

/// An empty project in a folder of its own.
fn project(folder: &Path, name: &str) -> PathBuf {
    let root = folder.join(name);
    fs::create_dir(&root).unwrap();
    fs::write(root.join("infra.yaml"), MODULES).unwrap();
    root
}

/// A call to be killed at: of `apply` or of `destroy`, by which signal.
type Point<'a> = (bool, &'a str, &'a (String, usize));

/// Killed there, resumed, applied, destroyed. True when the call was reached.
fn kill_and_resume(
    strace: &Path,
    root: &Path,
    (applying, signal, point): Point<'_>,
    applied: &BTreeSet<PathBuf>,
    destroyed: &BTreeSet<PathBuf>,
) -> bool {
    let place = format!(
        "SIG{signal} at {} number {} of {}",
        point.0,
        point.1,
        if applying { "apply" } else { "destroy" }
    );
    if !applying {
        json(root, APPLY, "nothing");
    }
    let command = if applying { APPLY } else { DESTROY };
    let hit = struck(strace, root, point, signal, command);
    if applying {
        json(root, APPLY, &place);
        assert_eq!(there(root), *applied, "{place}");
        let again = json(root, APPLY, &place);
        assert_eq!(again["changed"], false, "{place}\n{again:#}");
    }
    json(root, DESTROY, &place);
    assert_eq!(there(root), *destroyed, "{place}");
    hit
}

#[test]
fn killed_at_a_system_call_the_next_run_ends_in_the_same_place() {
    /// Each in a project of its own; most of a point is waiting for processes.
    const WORKERS: usize = 3;

    let Some(strace) = lab_tool("bin/strace") else {
        return skip_without("strace");
    };
    let folder = tempfile::tempdir().unwrap();
    let root = project(folder.path(), "census");
    let to_apply = census(&strace, &root, APPLY);
    let applied = there(&root);
    let to_destroy = census(&strace, &root, DESTROY);
    let destroyed = there(&root);
    let all: Vec<Point<'_>> = ["KILL", "TERM"]
        .into_iter()
        .flat_map(|signal| {
            let applying = to_apply.iter().map(move |point| (true, signal, point));
            applying.chain(to_destroy.iter().map(move |point| (false, signal, point)))
        })
        .collect();
    let wanted = points();
    let started = Instant::now();
    let (next, hits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let root = project(folder.path(), &format!("worker-{worker}"));
            let (strace, all, next, hits) = (&strace, &all, &next, &hits);
            let (applied, destroyed) = (&applied, &destroyed);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= wanted {
                        return;
                    }
                    // Spread over all of them, and round again when there are more points than calls.
                    let point = if wanted >= all.len() {
                        all[number % all.len()]
                    } else {
                        all[number * all.len() / wanted]
                    };
                    let hit = kill_and_resume(strace, &root, point, applied, destroyed);
                    hits.fetch_add(usize::from(hit), Ordering::Relaxed);
                }
            });
        }
    });
    let hits = hits.into_inner();
    println!(
        "{hits} of {wanted} points hit in {:.0?}; {} are known",
        started.elapsed(),
        all.len()
    );
    assert!(hits * 2 > wanted, "only {hits} of {wanted} points were hit");
}
