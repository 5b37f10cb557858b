//! `kill -9` at random moments: the next run ends in the same place, with no orphan, no double and
//! no stuck lock. Every moment is drawn from a seed that a failure prints.
//!
//! `TIDEGATE_KILLS=10000 cargo test --test it kill:: -- --nocapture` is the long form.

mod calls;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tidegate::random::{Random as _, SeededRandom};

use crate::harness::{Run, copy_tree, quickstart, service_binary};

fn kills() -> u32 {
    std::env::var("TIDEGATE_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(100)
}

/// The quickstart with its services built already, so that a kill hits us and not cargo.
fn project(root: &Path) {
    copy_tree(&quickstart(), root);
    let path = root.join("infra.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let mut out = String::new();
    let mut skipping = false;
    for line in text.lines() {
        if line.trim() == "command:" {
            let indent = &line[..line.len() - line.trim_start().len()];
            out.push_str(&format!(
                "{indent}command: [{}]\n",
                service_binary().display()
            ));
            skipping = true;
            continue;
        }
        if skipping && line.trim_start().starts_with("- ") {
            continue;
        }
        skipping = false;
        out.push_str(line);
        out.push('\n');
    }
    assert_ne!(out, text, "the commands were replaced");
    fs::write(path, out).unwrap();
}

/// Live services of this project, by role: processes whose executable is the service and that stand
/// in the project's folder.
fn services(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let directory = entry.path();
        let Ok(executable) = fs::read_link(directory.join("exe")) else {
            continue;
        };
        let environment = fs::read(directory.join("environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment);
        let stands_in = fs::read_link(directory.join("cwd")).unwrap_or_default();
        if executable != service_binary() || !stands_in.starts_with(root) {
            continue;
        }
        let role = environment
            .split('\0')
            .find_map(|pair| pair.strip_prefix("ROLE="))
            .unwrap_or("?");
        found.push(role.to_owned());
    }
    found.sort();
    found
}

fn run(root: &Path, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["-c", "infra.yaml", "--env", "dev", "--json"]);
    let finished = Run::new(root, &all).output().expect_code(0);
    serde_json::from_str(&finished.stdout()).expect("one JSON document")
}

fn kill_after(root: &Path, arguments: &[&str], wait: Duration) -> bool {
    let mut all = arguments.to_vec();
    all.extend(["-c", "infra.yaml", "--env", "dev"]);
    let mut child = Run::new(root, &all)
        .into_command()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(wait);
    let was_running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    was_running
}

#[test]
fn killed_at_random_moments_the_next_run_ends_in_the_same_place() {
    let seed = std::env::var("TIDEGATE_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let random = SeededRandom::new(seed);
    let draw = |most: u32| {
        let mut bytes = [0_u8; 4];
        random.fill(&mut bytes);
        u32::from_le_bytes(bytes) % most
    };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("quickstart");
    project(&root);
    let before = crate::main_job::files(&root);
    let whole = {
        let started = std::time::Instant::now();
        run(&root, &["up"]);
        u32::try_from(started.elapsed().as_millis())
            .unwrap()
            .max(50)
    };
    let names = |report: &Value| -> Vec<String> {
        report["plan"]["actions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|action| action["resource"].as_str().unwrap().to_owned())
            .collect()
    };
    let wanted = names(&run(&root, &["up"]));
    let mut hits = 0;
    let kills = kills();
    for round in 0..kills {
        let during_destroy = draw(4) == 0;
        if !during_destroy {
            run(&root, &["infra", "destroy", "--yes"]);
            assert_eq!(
                services(&root),
                Vec::<String>::new(),
                "seed {seed} round {round}"
            );
        }
        let wait = Duration::from_millis(u64::from(draw(whole * 5 / 4)));
        let arguments: &[&str] = if during_destroy {
            &["infra", "destroy", "--yes"]
        } else {
            &["up"]
        };
        if kill_after(&root, arguments, wait) {
            hits += 1;
        }
        let report = run(&root, &["up"]);
        let place =
            format!("seed {seed} round {round} after {wait:?} of {arguments:?}: {report:#}");
        assert_eq!(names(&report), wanted, "{place}");
        assert_eq!(services(&root), ["api", "web"], "one of each: {place}");
        let again = run(&root, &["up"]);
        assert_eq!(again["changed"], false, "{place}\n{again:#}");
    }
    assert!(
        hits * 3 > kills,
        "only {hits} of {kills} kills hit a running process"
    );
    run(&root, &["infra", "destroy", "--yes"]);
    assert_eq!(services(&root), Vec::<String>::new());
    assert_eq!(crate::main_job::files(&root), before);
}
