//! Commands that look at what is on record need no more than that: not the application's variables,
//! and not an environment that the config still declares.

use std::fs;
use std::path::Path;

use crate::harness::{Finished, Run};

const CONFIG: &str = "\
modules:
  - {name: here, type: iac.provider, config: {provider: local, root: ./made}}
  - {name: there, type: iac.provider, config: {provider: local, root: './${ELSEWHERE}'}}
  - name: a
    type: infra.storage
    config: {provider: here, region: '${OWNER}-${APP_REGION}'}
  - name: b
    type: infra.storage
    config: {provider: @B@}
    outputs: {path: {sensitive: true}}
pipelines:
  p:
    steps:
      - name: g
        type: step.deploy_verify
        config: {timeout: 1s, url: 'http://127.0.0.1:1/${PATH_ASKED}'}
secrets:
  entries: [{name: MAIL_PASSWORD}]
";

fn run(folder: &Path, arguments: &[&str]) -> Finished {
    Run::new(folder, arguments).output()
}

fn made(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("infra.yaml"), config).unwrap();
    Run::new(folder.path(), &["infra", "apply", "--yes"])
        .env("OWNER", "me")
        .env("APP_REGION", "west")
        .env("ELSEWHERE", "elsewhere")
        .env("PATH_ASKED", "x")
        .env("MAIL_PASSWORD", "mail-1234567890")
        .output()
        .expect_code(0);
    folder
}

#[test]
fn what_is_on_record_is_looked_at_and_destroyed_without_the_variables_of_the_application() {
    let folder = made(&CONFIG.replace("@B@", "here"));
    let folder = folder.path();
    for arguments in [
        &["infra", "status"][..],
        &["infra", "outputs"],
        &["state", "list"],
        &["state", "verify"],
        &["state", "show", "a"],
        &["infra", "destroy", "--dry-run"],
        &["infra", "drift"],
    ] {
        let done = run(folder, arguments).expect_code(0);
        assert!(
            !done.stderr().contains("unset-variable"),
            "{}",
            done.stderr()
        );
    }
    // The declared sensitivity holds, whatever else is not known.
    let outputs = run(folder, &["infra", "outputs"]).expect_code(0).stdout();
    assert!(outputs.contains("b.path: ***MASKED***"), "{outputs}");
    // Whoever makes things needs everything.
    for arguments in [
        &["infra", "plan"][..],
        &["up"],
        &["infra", "apply", "--yes"],
        &["config", "resolve"],
    ] {
        let refused = run(folder, arguments).expect_code(2);
        for name in ["OWNER", "APP_REGION", "ELSEWHERE"] {
            assert!(
                refused.stderr().contains(&format!("`{name}` is not set")),
                "{}",
                refused.stderr()
            );
        }
    }
    run(folder, &["infra", "destroy", "--yes"]).expect_code(0);
    assert!(!folder.join("made/a").exists() && !folder.join("made/b").exists());
}

#[test]
fn a_provider_that_is_called_has_to_have_its_variables() {
    let folder = made(&CONFIG.replace("@B@", "there"));
    let folder = folder.path();
    let refused = run(folder, &["infra", "destroy", "--yes"]).expect_code(2);
    let text = refused.stderr();
    assert!(
        text.contains("`ELSEWHERE` is not set; the provider `there`"),
        "{text}"
    );
    assert!(text.contains("infra.yaml:3:"), "{text}");
    assert!(!text.contains("OWNER"), "{text}");
    assert!(folder.join("made/a").exists() && folder.join("elsewhere/b").exists());
    // Nobody calls it here, and nothing gets out that is declared sensitive.
    let outputs = run(folder, &["infra", "outputs"]).expect_code(0).stdout();
    assert!(outputs.contains("b.path: ***MASKED***"), "{outputs}");
    let status = run(folder, &["infra", "status"]).expect_code(7);
    assert!(
        status.stdout().contains("`ELSEWHERE` is not set"),
        "{}",
        status.stdout()
    );
}

#[test]
fn a_gate_needs_its_own_variables_alone() {
    let folder = made(&CONFIG.replace("@B@", "here"));
    let folder = folder.path();
    let refused = run(folder, &["deploy", "verify"]).expect_code(2);
    let text = refused.stderr();
    assert!(text.contains("`PATH_ASKED` is not set"), "{text}");
    assert!(!text.contains("OWNER"), "{text}");
    // What is expected may be an output, too, and is not waited for when there is none of that name.
    for (text, code) in [
        ("${a.nope}", "verify/unknown-value"),
        ("${nope.path}", "config/reference"),
    ] {
        let url = "http://127.0.0.1:1/";
        let words = [
            "deploy",
            "verify",
            "--url",
            url,
            "--expect-body-contains",
            text,
        ];
        let refused = run(folder, &words).expect_code(2);
        assert!(refused.stderr().contains(code), "{}", refused.stderr());
    }
    // With them it is held: nobody listens there.
    Run::new(folder, &["deploy", "verify"])
        .env("PATH_ASKED", "x")
        .output()
        .expect_code(4);
}

const TWO: &str = "\
environments: {dev: {}@PROD@}
modules:
  - {name: here, type: iac.provider, config: {provider: local, root: './made-${WORKFLOW_ENV}'}}
  - {name: a, type: infra.storage, config: {provider: here}}
";

#[test]
fn an_environment_that_left_the_config_is_still_destroyed_by_its_records() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = folder.join("infra.yaml");
    fs::write(&file, TWO.replace("@PROD@", ", prod: {}")).unwrap();
    for environment in ["dev", "prod"] {
        run(folder, &["up", "--env", environment]).expect_code(0);
    }
    fs::write(&file, TWO.replace("@PROD@", "")).unwrap();
    let refused = run(folder, &["up", "--env", "prod"]).expect_code(2);
    assert!(
        refused.stderr().contains("config/unknown-environment"),
        "{}",
        refused.stderr()
    );
    assert!(refused.stderr().contains("destroy"), "{}", refused.stderr());
    let list = run(folder, &["state", "list", "--env", "prod"]).expect_code(0);
    assert!(list.stdout().contains('a'), "{}", list.stdout());
    let gone = run(folder, &["infra", "destroy", "--env", "prod", "--yes"]).expect_code(0);
    assert!(
        gone.stderr().contains("config/undeclared-environment"),
        "{}",
        gone.stderr()
    );
    assert!(!folder.join("made-prod/a").exists() && folder.join("made-dev/a").exists());
    // Of a name that nobody ever used there is nothing to destroy.
    for arguments in [
        &["infra", "destroy", "--yes"][..],
        &["infra", "status"],
        &["state", "list"],
    ] {
        for environment in ["prod", "porduction"] {
            let mut words = arguments.to_vec();
            words.extend(["--env", environment]);
            let refused = run(folder, &words).expect_code(2);
            let text = refused.stderr();
            assert!(text.contains("config/unknown-environment"), "{text}");
            assert!(text.contains("nothing is recorded"), "{text}");
        }
    }
}

#[test]
fn an_environment_that_nobody_named_or_that_was_renamed_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = folder.join("infra.yaml");
    let two = TWO.replace("${WORKFLOW_ENV}", "${WORKFLOW_ENV:-none}");
    fs::write(&file, two.replace("@PROD@", ", prod: {}")).unwrap();
    let named = run(folder, &["up", "--env", "prod"]).expect_code(0);
    assert!(!named.stderr().contains("warning"), "{}", named.stderr());
    for arguments in [
        &["infra", "plan"][..],
        &["infra", "status"],
        &["state", "list"],
        &["infra", "destroy", "--yes"],
    ] {
        let unnamed = run(folder, arguments).expect_code(0);
        let text = unnamed.stderr();
        assert_eq!(text.matches("config/no-environment").count(), 1, "{text}");
        assert!(text.contains("`dev`, `prod`"), "{text}");
    }
    // Who means the config as it stands says so.
    fs::write(&file, two.replace("@PROD@", ", prod: {}, default: {}")).unwrap();
    let meant = run(folder, &["infra", "plan"]).expect_code(0);
    assert!(!meant.stderr().contains("warning"), "{}", meant.stderr());

    fs::write(&file, two.replace("@PROD@", ", production: {}")).unwrap();
    let renamed = run(folder, &["infra", "plan", "--env", "production"]).expect_code(0);
    let text = renamed.stderr();
    assert!(
        text.contains("state/other-environments") && text.contains("`prod`"),
        "{text}"
    );
    // Once it has records of its own, that was meant.
    run(folder, &["up", "--env", "production"]).expect_code(0);
    let later = run(folder, &["up", "--env", "production"]).expect_code(0);
    assert!(!later.stderr().contains("warning"), "{}", later.stderr());
}
