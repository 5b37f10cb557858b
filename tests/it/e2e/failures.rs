//! What failed is an annotation on the line of the config it belongs to.

use std::collections::BTreeMap;
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

const STORAGE: &str = "\
modules:
  - {name: here, type: iac.provider, config: {provider: local, root: ./made}}
  - {name: a, type: infra.storage, config: {provider: here}}
";

fn with_gate(target: &str) -> String {
    format!(
        "{STORAGE}pipelines: {{p: {{steps: [{{name: g, type: step.deploy_verify, config: {{timeout: 1s, {target}}}}}]}}}}\n"
    )
}

#[test]
fn a_gate_that_could_never_open_is_refused_before_anything_is_made() {
    for target in [
        "url: 'http://127.0.0.1:99999/'",
        "url: 'http://[::1/'",
        "url: 'http://127.0.0.1:1/', expect_body_contains: ''",
        "url: 'http://127.0.0.1:1/', method: HEAD, expect_body_contains: x",
        "url: 'http://127.0.0.1:1/', expect_status: 100",
        "url: '${a.url}', headers: {Upgrade: x}",
        "url: '${a.url}', headers: {X: \"a\\u0001\"}",
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("infra.yaml"), with_gate(target)).unwrap();
        for command in [&["config", "validate"][..], &["up"]] {
            let run = Run::new(folder.path(), command).output().expect_code(2);
            assert_eq!(
                run.stderr().matches("error[").count(),
                1,
                "{}",
                run.stderr()
            );
            assert!(
                run.stderr().contains("infra.yaml:4:"),
                "{target}: {}",
                run.stderr()
            );
        }
        assert!(!folder.path().join("made").exists(), "{target}");
    }
}

#[test]
fn a_gate_that_asks_what_the_apply_did_not_bring_stays_closed() {
    let folder = tempfile::tempdir().unwrap();
    let config = with_gate("url: '${a.path}/x'");
    fs::write(folder.path().join("infra.yaml"), config).unwrap();
    let run = Run::new(folder.path(), &["up"]).output().expect_code(4);
    let said = run.stderr();
    assert!(said.contains("verify/bad-url"), "{said}");
    assert!(!said.contains("apply first"), "{said}");
    assert!(said.contains("infra.yaml:4:"), "{said}");
    assert!(folder.path().join("made").exists());
}

#[test]
fn a_step_gets_its_summary_with_what_is_secret_in_it_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let config = STORAGE.replace(
        "config: {provider: here}}",
        "config: {provider: here}, outputs: {path: {sensitive: true}}}",
    );
    fs::write(folder.path().join("infra.yaml"), config).unwrap();
    let output = folder.path().join("output");
    fs::write(&output, "").unwrap();
    let run = Run::new(folder.path(), &["action"])
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_OUTPUT", &output.display().to_string())
        .output()
        .expect_code(0);
    assert!(
        !run.stdout().contains("actions/secret-output"),
        "{}",
        run.stdout()
    );
    let outputs: BTreeMap<String, String> =
        crate::runner::model::entries(&fs::read_to_string(&output).unwrap())
            .unwrap()
            .into_iter()
            .collect();
    assert_eq!(
        (&*outputs["changed"], &*outputs["failed"]),
        ("true", "false")
    );
    // The id of a folder is its path, and that is what was called sensitive.
    let summary: serde_json::Value = serde_json::from_str(&outputs["summary-json"]).unwrap();
    assert_eq!(summary["result"]["resources"][0]["provider_id"], "***");
    assert_eq!(summary["exit_code"], 0);
    let path = folder.path().join("made");
    assert!(!outputs["summary-json"].contains(&path.display().to_string()));
}

#[test]
fn a_closed_gate_shows_its_last_answer_wherever_it_is_held() {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            drop(stream.read(&mut request));
            drop(stream.write_all(
                b"HTTP/1.1 500 Oops\r\nContent-Length: 21\r\nConnection: close\r\n\r\nno connection to db-7",
            ));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let target = format!("retry_interval: 100ms, max_retries: 0, url: 'http://{address}/'");
    fs::write(folder.path().join("infra.yaml"), with_gate(&target)).unwrap();
    for command in [&["up"][..], &["deploy", "verify"]] {
        for actions in ["", "true"] {
            let run = Run::new(folder.path(), command)
                .env("GITHUB_ACTIONS", actions)
                .output()
                .expect_code(4);
            let said = run.stdout() + &run.stderr();
            assert_eq!(said.matches("verify/gate-closed").count(), 1, "{said}");
            assert!(said.contains("answered: no connection to db-7"), "{said}");
        }
    }
}

const MISSPELT: &str = "\
modules:
  - {name: here, type: iac.provider, config: {provider: local, root: ./resources}}
  - name: s
    type: infra.storage
    config: {provider: here}
    outputs: {pathh: {sensitive: true}}
  - name: svc
    type: infra.container_service
    config: {provider: here, command: [sleep, '1'], env_vars: {P: '${s.pth}', ID: '${s.id}'}}
secrets:
  generate: [{key: K, type: infra_output, source: s.urll}]
pipelines:
  p:
    steps:
      - {name: g, type: step.deploy_verify, config: {url: '${svc.live_ulr}/health'}}
";

#[test]
fn an_output_that_local_does_not_have_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("infra.yaml"), MISSPELT).unwrap();
    for line in [
        &["config", "validate"][..],
        &["infra", "plan"],
        &["up", "--yes"],
    ] {
        let said = Run::new(folder.path(), line)
            .output()
            .expect_code(2)
            .stderr();
        assert_eq!(said.matches("config/unknown-output").count(), 4, "{said}");
        for near in ["path", "url", "live_url"] {
            assert!(said.contains(&format!("did you mean `{near}`?")), "{said}");
        }
    }
    assert!(!folder.path().join("resources").exists());
}

/// Each mistake is told once, where it stands, in words that lead to what is right.
#[test]
fn mistakes_of_a_config_lead_to_what_is_right() {
    let head =
        "modules:\n  - {name: here, type: iac.provider, config: {provider: local, root: ./r}}\n";
    let service =
        "  - {name: s, type: infra.container_service, config: {provider: here, command: [x], ";
    let sinks = |one: &str, other: &str| {
        format!(
            "{head}secrets:\n  generate:\n    - {{key: A, type: random_hex, sinks: [{one}]}}\n    - {{key: B, type: random_hex, sinks: [{other}]}}\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let absolute = folder.path().canonicalize().unwrap().join("x.env");
    for (config, said, never) in [
        (
            "modules: [here]\n".to_owned(),
            "`modules[0]` must be a map",
            "`modules` must",
        ),
        (
            format!("{head}{service}port: 80}}}}\n"),
            "did you mean `http_port`?",
            "it takes",
        ),
        (
            format!("{head}{service}env_vars: {{P: '${{{{ secrets.P }}}}'}}}}}}\n"),
            "an expression of GitHub's",
            "no such module",
        ),
        (
            format!("{head}{service}zzz: 80}}}}\n"),
            "working_directory",
            "…",
        ),
        (
            format!(
                "{head}  - {{name: d, type: infra.database, config: {{provider: here}}, outputs: {{path: {{sensitive: flase, sinks: [{{type: github_env, name: P}}]}}}}}}\n"
            ),
            "must be true or false",
            "config/sink-needs-sensitive",
        ),
        (
            sinks(
                "{type: github_secret, name: X, repo: a/b, environment: prod}",
                "{type: github_secret, name: X, repo: a/b, environment: Prod}",
            ),
            "config/duplicate-sink",
            "bug",
        ),
        (
            sinks(
                "{type: dotenv, name: X, path: x.env}",
                &format!("{{type: dotenv, name: X, path: '{}'}}", absolute.display()),
            ),
            "config/duplicate-sink",
            "bug",
        ),
    ] {
        fs::write(folder.path().join("infra.yaml"), &config).unwrap();
        let refused = Run::new(folder.path(), &["config", "validate"]).output();
        let text = refused.expect_code(2).stderr();
        assert!(text.contains(said), "{config}\n{text}");
        assert!(!text.contains(never), "{config}\n{text}");
    }
}

#[test]
fn an_environment_of_a_module_that_is_nearly_one_of_the_files_is_warned_of_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = "environments: {staging: {}, prod: {}}\nmodules:\n  - {name: here, type: iac.provider, config: {provider: local, root: ./r}}\n  - {name: a, type: infra.storage, config: {provider: here}, environments: {stagin: null, preview: null}}\n";
    fs::write(folder.path().join("infra.yaml"), config).unwrap();
    let text = Run::new(folder.path(), &["config", "validate"])
        .output()
        .expect_code(0)
        .stderr();
    assert_eq!(
        text.matches("config/unlisted-environment").count(),
        1,
        "{text}"
    );
    assert!(text.contains("did you mean `staging`?"), "{text}");
}

/// A service takes one secret; the other one nobody takes.
const ROTATED: &str = r#"modules:
  - {name: here, type: iac.provider, config: {provider: local, root: ./made}}
  - name: web
    type: infra.container_service
    config: {provider: here, command: [sh, -c, "test -e broken && exit 3; exec sleep 600"], env_vars_secret: {TAKEN: "${TAKEN}"}}
secrets:
  generate:
    - {key: TAKEN, type: random_hex, sinks: [{type: dotenv, path: .env, name: TAKEN}]}
    - {key: FREE, type: random_hex, sinks: [{type: dotenv, path: .env, name: FREE}]}
"#;

#[test]
fn a_secret_goes_to_nobody_while_what_uses_it_has_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("infra.yaml"), ROTATED).unwrap();
    let run = |arguments: &[&str], code| {
        Run::new(folder.path(), arguments)
            .output()
            .expect_code(code)
    };
    let held = || {
        let text = fs::read_to_string(folder.path().join(".env")).unwrap();
        ["TAKEN", "FREE"].map(|name| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.unwrap().to_owned()
        })
    };
    run(&["up"], 0);
    let before = held();
    run(&["infra", "bootstrap", "--force-rotate", "TAKEN,FREE"], 0);
    fs::write(folder.path().join("broken"), "").unwrap();
    let failed = run(&["up", "--json"], 6);
    let document: serde_json::Value = serde_json::from_str(&failed.stdout()).unwrap();
    let status = |name: &str| {
        let rows = document["sinks"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        (row["status"].clone(), row["error"].clone())
    };
    assert_eq!(status("FREE").0, "written");
    let (word, why) = status("TAKEN");
    assert_eq!(word, "skipped");
    assert!(
        why.as_str().unwrap().contains("`web`, which uses it"),
        "{why}"
    );
    let half = held();
    assert_eq!(half[0], before[0], "nothing runs with the new one");
    assert_ne!(half[1], before[1]);
    // Alone, a change that failed has done nothing.
    run(&["up"], 1);
    fs::remove_file(folder.path().join("broken")).unwrap();
    run(&["up"], 0);
    assert_ne!(held()[0], before[0]);
    run(&["infra", "destroy", "--yes"], 0);
}
