//! `infra test`.

use std::path::Path;

use super::{MODULES, Project, code_of};

const CASE: &str = "\
config: infra.yaml
cases:
  - name: from nothing
    env: dev
    expect:
      actions: {files: create, logs: create, db: create}
      values: {db: {engine: sqlite}}
";

fn run(project: &Project, code: i32) -> serde_json::Value {
    let finished = project
        .start("infra test cases.yaml --json")
        .output()
        .expect_code(code);
    serde_json::from_str(&finished.stdout()).unwrap()
}

#[test]
fn the_example_passes() {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/expectations/expectations.yaml");
    let directory = tempfile::tempdir().unwrap();
    let finished =
        crate::harness::Run::new(directory.path(), &["infra", "test", file.to_str().unwrap()])
            .output()
            .expect_code(0);
    assert_eq!(finished.stdout().matches("pass  ").count(), 3);
}

#[test]
fn an_expectation_that_is_not_met_fails_and_says_how() {
    let project = Project::new(MODULES);
    project.write("cases.yaml", CASE);
    assert_eq!(run(&project, 0)["failed"], false);
    for (from, to, piece) in [
        (
            "db: create",
            "db: update",
            "expected update, the plan says create",
        ),
        (", db: create", "", "`db`: expected no-op"),
        (
            "db: create}",
            "db: create, moon: create}",
            "no such resource",
        ),
        (
            "engine: sqlite",
            "engine: postgres",
            "expected \"postgres\", found \"sqlite\"",
        ),
        ("    env: dev", "    env: nowhere", "config/"),
    ] {
        let text = CASE.replace(from, to);
        assert_ne!(text, CASE);
        project.write("cases.yaml", &text);
        let document = run(&project, 1);
        let failures = document["cases"][0]["failures"]
            .to_string()
            .replace('\\', "");
        assert!(failures.contains(piece), "{piece}\n{failures}");
    }
    assert!(!project.path("state").exists() && !project.path("resources").exists());
}

#[test]
fn given_records_are_planned_against() {
    let project = Project::new(MODULES);
    project.write(
        "cases.yaml",
        "\
config: infra.yaml
cases:
  - name: an engine that cannot change in place
    env: dev
    given:
      db: {type: infra.database, config: {engine: postgres}}
      old: {type: infra.storage, protected: true}
      files: {type: infra.storage}
    replace_on: {infra.database: [engine]}
    expect:
      actions: {db: replace, old: delete, logs: create}
",
    );
    run(&project, 0);
}

#[test]
fn no_variable_of_this_machine_is_seen() {
    let project = Project::new(&MODULES.replace("engine: sqlite", "engine: \"${ENGINE}\""));
    project.write("cases.yaml", CASE);
    let finished = project
        .start("infra test cases.yaml --json")
        .env("ENGINE", "sqlite")
        .output()
        .expect_code(1);
    assert!(
        finished.stdout().contains("config/"),
        "{}",
        finished.stdout()
    );
    project.write(
        "cases.yaml",
        &CASE.replace(
            "    expect:",
            "    variables: {ENGINE: sqlite}\n    expect:",
        ),
    );
    run(&project, 0);
}

#[test]
fn a_file_that_is_not_understood_is_no_pass() {
    let project = Project::new(MODULES);
    for text in [
        "config: infra.yaml\ncases: []\n",
        &CASE.replace("expect:", "expects:"),
        "- 1\n",
    ] {
        project.write("cases.yaml", text);
        assert_eq!(code_of(&run(&project, 2)), "test/malformed");
    }
}
