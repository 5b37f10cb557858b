//! The main job, end to end, through the binary: the quickstart from nothing to a verified deploy
//! and back to nothing, and what happens when somebody holds it wrong.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Run, copy_tree, quickstart, wait_for};

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text)
        .unwrap_or_else(|error| panic!("not one JSON document ({error}):\n{text}"))
}

/// All files below `directory`, relative, sorted.
pub(crate) fn files(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                pending.push(path);
            } else {
                found.insert(path.strip_prefix(directory).unwrap().to_path_buf());
            }
        }
    }
    found
}

/// Processes whose command line or working directory mentions `needle`.
pub(crate) fn processes(needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let directory = entry.path();
        if !entry
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|byte| byte.is_ascii_digit())
        {
            continue;
        }
        let command = fs::read(directory.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let current = fs::read_link(directory.join("cwd")).unwrap_or_default();
        if command.contains(needle) || current.to_string_lossy().contains(needle) {
            found.push(format!("{} {command}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

fn get(url: &str) -> String {
    let rest = url.strip_prefix("http://").expect("a plain http address");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The value of `name` in a dotenv file of plain or quoted values.
pub(crate) fn dotenv(path: &Path, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}=")))
        .unwrap_or_else(|| panic!("{name} is not in {}", path.display()));
    line.trim_matches(['\'', '"']).to_owned()
}

/// Forms a careless program could leave a secret in; written independently of the product's own
/// list, so that a form both forgot is at least not forgotten for the same reason.
pub(crate) fn forms(secret: &str) -> Vec<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut all = vec![
        secret.to_owned(),
        secret.to_uppercase(),
        hex.to_uppercase(),
        hex,
        percent.to_lowercase(),
        percent,
        secret.chars().rev().collect(),
    ];
    for skip in 0..3 {
        let shifted = &secret.as_bytes()[skip..];
        let whole = shifted.len() - shifted.len() % 3;
        all.push(STANDARD_NO_PAD.encode(&shifted[..whole]));
        all.push(URL_SAFE_NO_PAD.encode(&shifted[..whole]));
    }
    all
}

fn leaks(place: &str, bytes: &[u8], secret: &str, found: &mut Vec<String>) {
    for form in forms(secret) {
        if bytes
            .windows(form.len())
            .any(|window| window == form.as_bytes())
        {
            found.push(format!("{place} holds the form {}…", &form[..8]));
        }
    }
}

/// Every place a secret must not be in: streams, files but the allowed ones, command lines of all
/// processes, environments of all processes but the services that were given it.
fn scan(streams: &[(&str, &str)], root: &Path, allowed: &[&str], secret: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in streams {
        leaks(name, text.as_bytes(), secret, &mut found);
    }
    for file in files(root) {
        if allowed.iter().any(|allowed| file == Path::new(allowed)) {
            continue;
        }
        if let Ok(bytes) = fs::read(root.join(&file)) {
            leaks(&file.to_string_lossy(), &bytes, secret, &mut found);
        }
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(bytes) = fs::read(entry.path().join("cmdline")) {
            leaks("a command line", &bytes, secret, &mut found);
        }
    }
    found
}

#[test]
fn the_quickstart_goes_from_nothing_to_a_verified_deploy_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("quickstart");
    copy_tree(&quickstart(), &root);
    let before = files(&root);
    let up = || Run::new(&root, &["up", "-c", "infra.yaml", "--env", "dev", "--json"]).output();

    let first = up().expect_code(0);
    let report = json(&first.stdout());
    assert_eq!(report["changed"], true);
    assert_eq!(report["failed"], false);
    let actions = report["actions"].as_array().unwrap();
    assert!(actions.len() >= 4, "at least four resources: {actions:#?}");
    assert!(actions.iter().all(|action| action["status"] == "success"));
    assert!(!report["sinks"].as_array().unwrap().is_empty());
    assert!(
        report["sinks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|sink| sink["status"] == "written")
    );
    assert_eq!(report["gate"][0]["verdict"], "passed");

    let secret = dotenv(&root.join(".env"), "SESSION_KEY");
    assert_eq!(secret.len(), 64, "32 random bytes as hex");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(root.join(".env")).unwrap().permissions()
        ) & 0o777,
        0o600
    );
    let streams = [("stdout", first.stdout()), ("stderr", first.stderr())];
    let streams: Vec<(&str, &str)> = streams.iter().map(|(n, t)| (*n, t.as_str())).collect();
    assert_eq!(
        scan(&streams, &root, &[".env"], &secret),
        Vec::<String>::new()
    );
    // The scan itself must be able to fail: a planted leak is found.
    fs::write(
        root.join("planted.log"),
        format!("key={}", forms(&secret)[2]),
    )
    .unwrap();
    assert_ne!(scan(&[], &root, &[".env"], &secret), Vec::<String>::new());
    fs::remove_file(root.join("planted.log")).unwrap();

    let second = up().expect_code(0);
    let report = json(&second.stdout());
    assert_eq!(report["changed"], false, "{report:#}");
    assert_eq!(report["actions"].as_array().unwrap().len(), 0);
    assert_eq!(report["gate"][0]["verdict"], "passed");
    let people = Run::new(&root, &["infra", "plan", "--env", "dev"])
        .output()
        .expect_code(0);
    assert!(
        people.stdout().contains("No changes."),
        "{}",
        people.stdout()
    );

    let outputs = Run::new(&root, &["infra", "outputs", "--env", "dev", "--json"])
        .output()
        .expect_code(0);
    let outputs = json(&outputs.stdout());
    let live = outputs["outputs"]
        .as_object()
        .unwrap()
        .values()
        .find_map(|fields| fields["live_url"]["value"].as_str())
        .expect("a service with a live_url");
    assert!(get(live).starts_with("HTTP/1.1 200"), "{live} answers");
    Run::new(&root, &["infra", "status", "--env", "dev"])
        .output()
        .expect_code(0);

    let destroyed = Run::new(
        &root,
        &[
            "infra",
            "destroy",
            "-c",
            "infra.yaml",
            "--env",
            "dev",
            "--yes",
        ],
    )
    .output()
    .expect_code(0);
    assert_eq!(files(&root), before, "{}", destroyed.stderr());
    assert!(!root.join(".tidegate").exists());
    assert_eq!(processes(&root.to_string_lossy()), Vec::<String>::new());
}

/// A config in a fresh folder.
struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    fn new(config: &str) -> Self {
        let project = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        project.write(config);
        project
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, config: &str) {
        fs::write(self.path().join("infra.yaml"), config).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> crate::harness::Finished {
        Run::new(self.path(), arguments).output()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // A failed test must not leave services behind.
        drop(self.run(&["infra", "destroy", "--yes"]));
    }
}

const PROVIDER: &str = "
modules:
  - name: here
    type: iac.provider
    config: {provider: local, root: ./resources}
";

fn config(modules: &str) -> String {
    format!("{PROVIDER}{modules}")
}

const DATABASE: &str = "
  - name: orders
    type: infra.database
    config: {provider: here, engine: sqlite}
";

const STORAGE: &str = "
  - name: uploads
    type: infra.storage
    config: {provider: here, depends_on: [orders]}
";

#[test]
fn up_refuses_to_delete_until_it_is_approved() {
    let project = Project::new(&config(&format!("{DATABASE}{STORAGE}")));
    project.run(&["up"]).expect_code(0);
    project.write(&config(DATABASE));
    let refused = project.run(&["up"]).expect_code(2);
    assert!(
        refused.stderr().contains("delete"),
        "the preview comes first: {}",
        refused.stderr()
    );
    assert!(refused.stderr().contains("uploads"), "{}", refused.stderr());
    assert!(project.path().join("resources/uploads").exists());
    for flag in ["--approve", "--auto-approve", "--yes", "-y"] {
        let dry = project.run(&["up", "--dry-run", flag]).expect_code(0);
        assert!(dry.stdout().contains("1 to destroy"), "{}", dry.stdout());
    }
    project.run(&["up", "-y"]).expect_code(0);
    assert!(!project.path().join("resources/uploads").exists());
    assert!(project.path().join("resources/orders").exists());
}

#[test]
fn no_variable_can_approve_or_reveal() {
    let project = Project::new(&config(&format!("{DATABASE}{STORAGE}")));
    project.run(&["up"]).expect_code(0);
    project.write(&config(DATABASE));
    let mut run = Run::new(project.path(), &["up"]);
    for name in [
        "TIDEGATE_YES",
        "TIDEGATE_APPROVE",
        "YES",
        "CI",
        "TIDEGATE_SHOW_SENSITIVE",
    ] {
        run = run.env(name, "true");
    }
    run.output().expect_code(2);
}

#[test]
fn apply_asks_before_any_change_and_protected_resources_stand() {
    let project = Project::new(&config(
        "
  - name: orders
    type: infra.database
    protected: true
    config: {provider: here, engine: sqlite}
",
    ));
    let asked = project.run(&["infra", "apply"]).expect_code(2);
    assert!(
        asked.stderr().contains("approval/needed"),
        "{}",
        asked.stderr()
    );
    project.run(&["infra", "apply", "--yes"]).expect_code(0);
    let refused = project.run(&["infra", "destroy", "--yes"]).expect_code(2);
    assert!(
        refused.stderr().contains("--allow-replace orders"),
        "{}",
        refused.stderr()
    );
    project
        .run(&["infra", "destroy", "--yes", "--allow-replace", "orders"])
        .expect_code(0);
    assert!(!project.path().join("resources").exists());
}

#[test]
fn a_failed_action_skips_its_dependents_and_the_next_run_goes_on() {
    let service = |command: &str| {
        config(&format!(
            "
  - name: api
    type: infra.container_service
    config: {{provider: here, command: [{command}]}}
  - name: web
    type: infra.storage
    config: {{provider: here, depends_on: [api]}}
{DATABASE}"
        ))
    };
    let project = Project::new(&service("/nonexistent/program"));
    let failed = project.run(&["up", "--json"]).expect_code(6);
    let report = json(&failed.stdout());
    let status = |name: &str| {
        report["actions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|action| action["resource"] == name)
            .map(|action| action["status"].as_str().unwrap().to_owned())
    };
    assert_eq!(status("api").as_deref(), Some("error"));
    assert_eq!(status("web").as_deref(), Some("skipped"));
    assert_eq!(status("orders").as_deref(), Some("success"));
    project.write(&service("sleep, '600'"));
    project.run(&["up"]).expect_code(0);
    project.run(&["infra", "destroy", "--yes"]).expect_code(0);
}

const CLOSED_GATE: &str = "
pipelines:
  deploy:
    steps:
      - name: never
        type: step.deploy_verify
        config:
          targets: [{url: 'http://127.0.0.1:1/'}]
          timeout: 60s
          retry_interval: 1s
          max_retries: 1000
";

#[test]
fn the_second_run_names_the_holder_and_a_signal_ends_the_first_cleanly() {
    let project = Project::new(&format!("{}{CLOSED_GATE}", config(DATABASE)));
    let first = Run::new(project.path(), &["up"])
        .env("USER", "alice")
        .into_command()
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut first = first.unwrap();
    wait_for("the first run to hold the lock", || {
        let status = project.run(&["infra", "status", "--json"]);
        status.code() == 0 && json(&status.stdout())["lock"]["command"] == "up"
    });
    let second = project.run(&["up"]).expect_code(5);
    assert!(second.stderr().contains("alice@"), "{}", second.stderr());
    assert!(
        second.stderr().contains("--lock-timeout"),
        "{}",
        second.stderr()
    );
    let asked = Instant::now();
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&first),
        rustix::process::Signal::INT,
    )
    .unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(130));
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    project.write(&config(DATABASE));
    project.run(&["up"]).expect_code(0);
}

#[test]
fn a_terminal_that_closes_ends_a_run_cleanly_unless_it_was_told_not_to_care() {
    use rustix::process::{Pid, Signal, kill_process};
    let project = Project::new(&format!("{}{CLOSED_GATE}", config(DATABASE)));
    for (script, signals) in [
        ("exec \"$0\" up", &[Signal::HUP][..]),
        ("exec \"$0\" up", &[Signal::QUIT]),
        // As `nohup` starts it.
        (
            "trap '' HUP; exec \"$0\" up",
            &[Signal::HUP, Signal::HUP, Signal::TERM],
        ),
    ] {
        let binary = crate::harness::binary();
        let words = ["-c", script, binary.to_str().unwrap()];
        let mut run = Run::of(Path::new("/bin/sh"), project.path(), &words)
            .into_command()
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let is_held = || {
            let status = project.run(&["infra", "status", "--json"]);
            status.code() == 0 && json(&status.stdout())["lock"]["command"] == "up"
        };
        wait_for("the run to hold the lock", is_held);
        for (position, signal) in signals.iter().enumerate() {
            if position > 0 {
                assert!(is_held(), "it goes on");
            }
            kill_process(Pid::from_child(&run), *signal).unwrap();
        }
        assert_eq!(run.wait().unwrap().code(), Some(130), "{script}");
        assert!(!is_held(), "the lock is given back");
    }
}

#[test]
fn a_closed_gate_is_exit_4_with_evidence() {
    let gate = CLOSED_GATE.replace("timeout: 60s", "timeout: 1s");
    let project = Project::new(&format!("{}{gate}", config(DATABASE)));
    let closed = project.run(&["up", "--json"]).expect_code(4);
    let report = json(&closed.stdout());
    assert_ne!(report["gate"][0]["verdict"], "passed");
    assert!(report["gate"][0]["targets"][0]["last"]["message"].is_string());
    project.run(&["deploy", "verify"]).expect_code(4);
    project
        .run(&[
            "deploy",
            "verify",
            "--url",
            "http://127.0.0.1:1/",
            "--timeout",
            "1s",
        ])
        .expect_code(4);
}

#[test]
fn a_truncated_record_is_an_error_and_never_absent() {
    let project = Project::new(&config(DATABASE));
    project.run(&["up"]).expect_code(0);
    let record = files(project.path())
        .into_iter()
        .find(|path| {
            let text = path.to_string_lossy();
            text.contains(".tidegate/state") && text.contains("records") && text.contains("orders")
        })
        .expect("the record's file");
    let path = project.path().join(record);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let refused = project.run(&["up"]).expect_code(1);
    assert!(refused.stderr().contains("orders"), "{}", refused.stderr());
    assert!(
        refused.stderr().contains("state/corrupt"),
        "{}",
        refused.stderr()
    );
    fs::write(&path, &whole).unwrap();
    let plan = project.run(&["infra", "plan", "--json"]).expect_code(0);
    assert_eq!(json(&plan.stdout())["changed"], false);
}

#[test]
fn state_that_would_vanish_with_a_hosted_runner_is_fine_for_local_previews() {
    let project = Project::new(&config(DATABASE));
    let run = Run::new(project.path(), &["up"])
        .env("GITHUB_ACTIONS", "true")
        .env("RUNNER_ENVIRONMENT", "github-hosted")
        .output();
    run.expect_code(0);
}

#[test]
fn sensitive_outputs_stay_hidden_until_a_flag_asks() {
    let project = Project::new(&config(
        "
  - name: orders
    type: infra.database
    config: {provider: here, engine: sqlite}
    outputs:
      connection_url:
        sensitive: true
        sinks: [{type: dotenv, name: DB_PATH}]
",
    ));
    let up = project.run(&["up"]).expect_code(0);
    let value = dotenv(&project.path().join(".env"), "DB_PATH");
    assert!(!value.is_empty());
    assert_eq!(
        scan(
            &[("stderr", &up.stderr())],
            &project.path().join(".tidegate"),
            &[],
            &value
        ),
        Vec::<String>::new()
    );
    let masked = project.run(&["infra", "outputs"]).expect_code(0);
    assert!(
        masked
            .stdout()
            .contains("orders.connection_url: ***MASKED***"),
        "{}",
        masked.stdout()
    );
    project
        .run(&[
            "infra",
            "outputs",
            "--module",
            "orders",
            "--output",
            "connection_url",
        ])
        .expect_code(1);
    let shown = project
        .run(&[
            "infra",
            "outputs",
            "--module",
            "orders",
            "--output",
            "connection_url",
            "--show-sensitive",
        ])
        .expect_code(0);
    assert_eq!(shown.stdout(), format!("{value}\n"));
    let in_actions = Run::new(project.path(), &["infra", "outputs", "-S"])
        .env("GITHUB_ACTIONS", "true")
        .output()
        .expect_code(0);
    let mask = in_actions
        .stdout()
        .find("::add-mask::")
        .expect("a mask command");
    let shown = in_actions
        .stdout()
        .find("orders.connection_url: ")
        .expect("the listing");
    assert!(mask < shown, "the mask comes first");
    project.run(&["infra", "destroy", "--yes"]).expect_code(0);
    assert!(!project.path().join(".env").exists());
}
