//! What failed is an annotation on the line of the config it belongs to.

use std::fs;
use std::path::Path;

use super::expect_a_clean_step;
use crate::harness::Run;
use crate::runner::model::Command;

const CONFIG: &str = r#"modules:
  - name: here
    type: iac.provider
    config: {provider: local, root: ./.tidegate/resources}
  - name: uploads
    type: infra.storage
    config: {provider: here}
    outputs:
      path: {sensitive: true, sinks: [{type: github_secret, name: UPLOADS, repo: acme/shop}]}
@MORE@
pipelines:
  deploy:
    steps:
      - name: answers
        type: step.deploy_verify
        config:
          timeout: 1s
          retry_interval: 100ms
          max_retries: 1
          targets:
            - {url: "http://127.0.0.1:1/healthz"}
"#;

/// The annotations of an `up` inside Actions.
fn annotations(folder: &Path, more: &str, code: i32) -> Vec<Command> {
    fs::write(folder.join("infra.yaml"), CONFIG.replace("@MORE@", more)).unwrap();
    let finished = Run::new(folder, &["up"])
        .env("GITHUB_ACTIONS", "true")
        .env("RUNNER_ENVIRONMENT", "self-hosted")
        .output()
        .expect_code(code);
    let output = finished.stdout() + &finished.stderr();
    expect_a_clean_step(output.as_bytes(), &[])
        .commands
        .into_iter()
        .filter(|command| ["error", "warning"].contains(&command.name.as_str()))
        .collect()
}

#[track_caller]
fn expect_one(all: &[Command], name: &str, code: &str, line: &str, text: &str) {
    let found: Vec<&Command> = all
        .iter()
        .filter(|command| command.properties["title"] == code)
        .collect();
    let [one] = found[..] else {
        panic!("{} annotations with {code}: {all:#?}", found.len());
    };
    assert_eq!(one.name, name);
    assert_eq!(one.properties["file"], "infra.yaml");
    assert_eq!(one.properties["line"], line);
    assert!(one.data.contains(text), "{}", one.data);
}

#[test]
fn a_closed_gate_and_a_failed_sink_are_annotated() {
    let folder = tempfile::tempdir().unwrap();
    let all = annotations(folder.path(), "", 4);
    expect_one(
        &all,
        "error",
        "verify/gate-closed",
        "21",
        "http://127.0.0.1:1/healthz",
    );
    // Found before the first effect, and not said again when the write fails.
    expect_one(
        &all,
        "warning",
        "sink/not-ready",
        "9",
        "github_secret acme/shop cannot be written",
    );
}

#[test]
fn a_failed_action_is_annotated() {
    let folder = tempfile::tempdir().unwrap();
    let broken = "  - name: broken\n    type: infra.container_service\n    \
                  config: {provider: here, command: [./does-not-exist]}";
    let all = annotations(folder.path(), broken, 6);
    expect_one(
        &all,
        "error",
        "apply/failed",
        "10",
        "create of `broken` failed",
    );
}
