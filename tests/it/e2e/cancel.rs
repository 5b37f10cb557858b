//! A cancelled job: the runner signals the process it started, which is Tidegate by then.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::expect_a_clean_step;
use crate::action::{Step, interrupt, wait, wait_until};
use crate::harness;
use crate::main_job::{files, json, processes};
use crate::runner::model;

/// How long a cancelled run may take to end. The runner would wait for 7.5 seconds.
const CANCEL_MAX: Duration = Duration::from_secs(2);

const CONFIG: &str = r#"
modules:
  - name: here
    type: iac.provider
    config: {provider: local, root: ./.tidegate/resources}
  - name: uploads
    type: infra.storage
    config: {provider: here}
    outputs:
      path: {sensitive: false}
  - name: catalogue
    type: infra.database
    config: {provider: here, engine: sqlite}
    outputs:
      path: {sensitive: false}
  - name: shop-api
    type: infra.container_service
    config:
      provider: here
      command: ["@SERVICE@"]
      env_vars: {ROLE: api, DATABASE_PATH: "${catalogue.path}", UPLOADS: "${uploads.path}"}
      env_vars_secret: {SESSION_KEY: "${SESSION_KEY}"}
      health_check: {http_path: /healthz}
    outputs:
      live_url: {sensitive: false}
secrets:
  generate:
    - key: SESSION_KEY
      type: random_hex
      length: 32
      sinks: [{type: dotenv, name: SESSION_KEY}]
pipelines:
  deploy:
    steps:
      - name: api-answers
        type: step.deploy_verify
        config:
          timeout: 60s
          retry_interval: 30s
          targets:
            - url: ${shop-api.live_url}/healthz
              expect_body_contains: @EXPECTED@
"#;

fn write_config(workspace: &Path, expected: &str) {
    let config = CONFIG
        .replace(
            "@SERVICE@",
            &harness::service_binary().display().to_string(),
        )
        .replace("@EXPECTED@", expected);
    fs::write(workspace.join("infra.yaml"), config).unwrap();
}

#[test]
fn a_cancel_at_a_closed_gate_gives_the_lock_back() {
    let step = Step::new();
    let workspace = step.workspace();
    write_config(&workspace, "what-it-never-says");
    let before = files(&workspace);
    let binary = harness::binary().display().to_string();
    let page = step.record().join("summary").display().to_string();
    let output = step.record().join("log");
    let job = [
        ("GITHUB_STEP_SUMMARY", page.as_str()),
        ("RUNNER_ENVIRONMENT", "self-hosted"),
    ];
    let log = || fs::read_to_string(&output).unwrap_or_default();

    // The runner reads both into one log.
    let file = fs::File::create(&output).unwrap();
    let mut child = step
        .command(&[("binary", &binary)], &job)
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    wait_until("the gate was tried once and stays closed", || {
        let log = log();
        log.contains("::group::Gate") && log.contains("what-it-never-says")
    });
    let start = Instant::now();
    interrupt(&child);
    assert_eq!(wait(&mut child), Some(130), "{}", log());
    assert!(start.elapsed() < CANCEL_MAX, "{:?}", start.elapsed());

    expect_a_clean_step(log().as_bytes(), &[]);
    assert!(log().contains("Stopped."), "{}", log());
    let summary = fs::read_to_string(&page).unwrap();
    assert!(summary.contains("Stopped"), "{summary}");
    let outputs =
        model::entries(&fs::read_to_string(step.record().join("output")).unwrap()).unwrap();
    let document: Value = json(&outputs.last().unwrap().1);
    assert_eq!(document["exit_code"], 130, "{document:#}");
    assert_eq!(
        outputs[..2]
            .iter()
            .map(|(_, value)| value.as_str())
            .collect::<Vec<_>>(),
        ["true", "true"]
    );

    // Nobody holds the lock: the next run need not wait for it, and finds all made.
    write_config(&workspace, "ok");
    let again = step.run_with(&[("binary", &binary), ("args", "--lock-timeout 0s")], &job);
    let again = again.expect_code(0);
    assert!(again.text.contains("No changes."), "{}", again.text);
    let gone = step.run_with(
        &[
            ("binary", &binary),
            ("command", "infra destroy"),
            ("args", "--yes"),
        ],
        &job,
    );
    gone.expect_code(0);
    assert_eq!(files(&workspace), before);
    assert_eq!(
        processes(&workspace.to_string_lossy()),
        Vec::<String>::new()
    );
}

/// A step of a workflow that starts us in its own way: `script` calls `tidegate_up`.
struct ByHand {
    folder: tempfile::TempDir,
    child: std::process::Child,
}

impl ByHand {
    /// Runs until the gate was tried once and stays closed.
    fn start(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_config(folder.path(), "what-it-never-says");
        let path = folder.path().join("step.sh");
        let script = script.replace(
            "tidegate_up",
            &format!("{} up -c infra.yaml", harness::binary().display()),
        );
        fs::write(&path, format!("{script}\necho \"not reached\"\n")).unwrap();
        let output = folder.path().join("log");
        let plain = harness::Run::new(folder.path(), &[]).into_command();
        let child = std::process::Command::new("bash")
            .args(["--noprofile", "--norc", "-e", "-o", "pipefail"])
            .arg(&path)
            .current_dir(folder.path())
            .env_clear()
            .envs(
                plain
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            )
            .env("PATH", "/usr/bin:/bin")
            .env("GITHUB_ACTIONS", "true")
            .env("RUNNER_ENVIRONMENT", "self-hosted")
            .env("GITHUB_STEP_SUMMARY", folder.path().join("summary"))
            .stdin(Stdio::null())
            .stdout(fs::File::create(&output).unwrap())
            .stderr(fs::File::create(folder.path().join("errors")).unwrap())
            .spawn()
            .unwrap();
        let step = Self { folder, child };
        wait_until("the gate was tried once and stays closed", || {
            step.log().contains("what-it-never-says")
        });
        step
    }

    fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        format!("{}{}", read("log"), read("errors"))
    }

    fn signal(&self, signal: &str) {
        let status = std::process::Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Nobody holds the lock, and what was made is known.
    fn expect_a_safe_stop(mut self, start: Instant) {
        let place = self.folder.path().display().to_string();
        wait(&mut self.child);
        let ours = || {
            processes(&place)
                .into_iter()
                .filter(|process| process.contains("infra.yaml"))
                .collect::<Vec<_>>()
        };
        wait_until("nobody of ours is left", || ours().is_empty());
        assert!(start.elapsed() < CANCEL_MAX * 5, "{:?}", start.elapsed());
        assert!(self.log().contains("Stopped."), "{}", self.log());
        write_config(self.folder.path(), "ok");
        let run = |line: &str| {
            let arguments: Vec<&str> = line.split(' ').collect();
            harness::Run::new(self.folder.path(), &arguments)
                .output()
                .expect_code(0)
        };
        let again = run("up -c infra.yaml --lock-timeout 0s");
        assert!(again.stderr().contains("No changes."), "{}", again.stderr());
        run("infra destroy -c infra.yaml --yes");
    }
}

/// The shell keeps SIGINT to itself and dies of SIGTERM; we stop when it is gone.
#[test]
fn a_cancel_of_a_plain_run_step_is_a_safe_stop() {
    let step = ByHand::start("tidegate_up");
    step.signal("-INT");
    let start = Instant::now();
    step.signal("-TERM");
    step.expect_a_safe_stop(start);
}

#[test]
fn a_cancel_of_an_exec_step_is_a_safe_stop() {
    let step = ByHand::start("exec tidegate_up");
    let start = Instant::now();
    step.signal("-INT");
    step.expect_a_safe_stop(start);
}

/// A wrapper that hands on what it hears.
#[test]
fn a_cancel_through_a_wrapper_is_a_safe_stop() {
    let step = ByHand::start("exec timeout --foreground 600 tidegate_up");
    let start = Instant::now();
    step.signal("-INT");
    step.expect_a_safe_stop(start);
}
