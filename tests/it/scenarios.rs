//! `docs/scenarios.md`, held: every row names a test that exists. And those scenarios that are told
//! best through the whole program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Finished, Run};

/// Rows without a test. It may become smaller, never larger.
const NOT_COVERED: usize = 0;

fn sources(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// Every test of this repository, by name.
pub(crate) fn every_test() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    for folder in ["src", "tests", "crates", "examples"] {
        sources(&root.join(folder), &mut code);
    }
    // Only what stands right under a test attribute counts.
    let mut tests = BTreeSet::new();
    let mut is_test = false;
    for line in code.lines() {
        let line = line.trim();
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if is_test && let Some((_, rest)) = line.split_once("fn ") {
            tests.insert(rest.split(['(', '<']).next().unwrap().to_owned());
            is_test = false;
        }
    }
    tests
}

#[test]
fn every_row_of_the_table_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = every_test();
    let text = fs::read_to_string(root.join("docs/scenarios.md")).unwrap();
    let mut numbers = Vec::new();
    let mut not_covered = 0;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Some(number) = cells.first().and_then(|cell| cell.parse::<u32>().ok()) else {
            continue;
        };
        numbers.push(number);
        let test = cells.last().unwrap();
        match test.strip_prefix("not covered: ") {
            Some(reason) => {
                assert!(reason.len() > 20, "row {number} says why");
                not_covered += 1;
            }
            None => assert!(
                tests.contains(test.trim_matches('`')),
                "row {number}: there is no test {test}"
            ),
        }
    }
    assert_eq!(numbers, (1..=108).collect::<Vec<_>>());
    assert_eq!(not_covered, NOT_COVERED, "rows without a test");
}

struct Project(TempDir);

impl Project {
    fn new(modules: &str) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        project.write(modules);
        project
    }

    fn write(&self, modules: &str) {
        let head = "\
modules:
  - {name: here, type: iac.provider, config: {provider: local, root: ./here}}
  - {name: there, type: iac.provider, config: {provider: local, root: ./there}}
  - {name: state, type: iac.state, config: {backend: filesystem, directory: ./state}}
";
        fs::write(self.path("infra.yaml"), format!("{head}{modules}")).unwrap();
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.0.path().join(relative)
    }

    fn run(&self, line: &str) -> Finished {
        let arguments: Vec<&str> = line.split(' ').collect();
        Run::new(self.0.path(), &arguments).output()
    }

    /// `resource action` of everything that would change.
    fn planned(&self, line: &str) -> Vec<String> {
        let finished = self.run(&format!("{line} --json")).expect_code(0);
        let document: Value = serde_json::from_str(&finished.stdout()).unwrap();
        document["plan"]["actions"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|action| action["action"] != "no-op")
            .map(|action| {
                format!(
                    "{} {}",
                    action["resource"].as_str().unwrap(),
                    action["action"].as_str().unwrap()
                )
            })
            .collect()
    }
}

#[test]
fn a_renamed_module_has_one_record_in_plan_and_apply() {
    let project = Project::new(
        "  - name: files
    type: infra.storage
    config: {provider: here}
    environments: {prod: {config: {name: prod-files}}}
environments: {dev: {}, prod: {}}
",
    );
    assert_eq!(
        project.planned("infra plan --env prod"),
        ["prod-files create"]
    );
    project.run("infra apply --yes --env prod").expect_code(0);
    assert!(project.path("here/prod-files").exists());
    assert!(project.planned("infra plan --env prod").is_empty());
    assert_eq!(project.planned("infra plan --env dev"), ["files create"]);
}

#[test]
fn a_variable_is_compared_by_its_value() {
    let project = Project::new(
        "  - {name: db, type: infra.database, config: {provider: here, engine: \"${ENGINE}\"}}\n",
    );
    let with = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        Run::new(project.0.path(), &arguments)
            .env("ENGINE", "sqlite")
            .output()
            .expect_code(0)
            .stdout()
    };
    with("infra apply --yes");
    let planned: Value = serde_json::from_str(&with("infra plan --json")).unwrap();
    assert_eq!(planned["plan"]["summary"]["no_op"], 1, "{planned:#}");
    project
        .write("  - {name: db, type: infra.database, config: {provider: here, engine: sqlite}}\n");
    assert!(project.planned("infra plan").is_empty());
}

#[test]
fn a_saved_plan_runs_each_action_at_its_own_provider() {
    let both = "  - {name: a, type: infra.storage, config: {provider: here}}
  - {name: b, type: infra.storage, config: {provider: there}}
";
    let project = Project::new(both);
    project.run("infra plan -o plan.json").expect_code(0);
    project
        .run("infra apply --plan plan.json --yes")
        .expect_code(0);
    assert!(project.path("here/a").exists() && project.path("there/b").exists());
    // Deletes too, also of the last one a provider has.
    project.write("");
    project.run("infra plan -o again.json").expect_code(0);
    project
        .run("infra apply --plan again.json --yes")
        .expect_code(0);
    assert!(!project.path("here/a").exists() && !project.path("there/b").exists());
}

#[test]
fn protection_on_record_outlives_the_config() {
    let project = Project::new(
        "  - {name: db, type: infra.database, protected: true, config: {provider: here, engine: sqlite}}\n",
    );
    project.run("infra apply --yes").expect_code(0);
    project.write("");
    for line in ["infra apply --yes", "infra destroy --yes"] {
        let refused = project.run(line);
        assert_ne!(refused.code(), 0, "{line}");
        assert!(refused.stderr().contains("`db`"), "{}", refused.stderr());
        assert!(project.path("here/db").exists(), "{line}");
    }
}

#[test]
fn a_type_without_a_driver_is_refused_before_anything_is_compared() {
    let project =
        Project::new("  - {name: files, type: infra.storage, config: {provider: here}}\n");
    project.run("infra apply --yes").expect_code(0);
    let record = |project: &Project| project.run("state show files --json").stdout();
    let before = record(&project);
    project.write("  - {name: files, type: infra.moon, config: {provider: here}}\n");
    for line in ["infra plan", "infra apply --yes"] {
        let refused = project.run(line);
        assert_ne!(refused.code(), 0, "{line}");
        assert!(
            refused.stderr().contains("provider/unsupported-type"),
            "{line}: {}",
            refused.stderr()
        );
    }
    assert_eq!(record(&project), before);
    assert!(project.path("here/files").exists());
}

/// Its secret is sealed in its record: no store is needed for it, now or for a sink that comes later.
#[test]
fn a_sensitive_output_needs_no_store_and_reaches_a_sink_that_comes_later() {
    let module = |sinks: &str| {
        format!(
            "  - {{name: db, type: infra.database, config: {{provider: here, engine: sqlite}}, outputs: {{connection_url: {{sensitive: true{sinks}}}}}}}\n"
        )
    };
    let project = Project::new(&module(""));
    project.run("infra apply --yes").expect_code(0);
    let show = |flags: &str| {
        let line = format!("infra outputs --json{flags}");
        let document: Value =
            serde_json::from_str(&project.run(&line).expect_code(0).stdout()).unwrap();
        document.to_string()
    };
    let record = project.run("state show db --json").expect_code(0).stdout();
    assert!(record.contains("secret_ref://"), "{record}");
    assert!(!show("").contains("sqlite:"));
    project.write(&module(", sinks: [{type: dotenv, name: DATABASE_URL}]"));
    assert!(project.planned("infra plan").is_empty());
    project.run("infra apply").expect_code(0);
    let value = crate::main_job::dotenv(&project.path(".env"), "DATABASE_URL");
    assert!(value.starts_with("sqlite:"), "{value}");
    assert!(show(" --show-sensitive").contains(&value));
    assert!(!record.contains(&value));
}

/// Sinks come after the run: one that fails takes nothing back, neither what was made nor what other
/// sinks hold, and an output that is not there costs no call.
#[test]
fn a_sink_that_fails_half_way_takes_nothing_back_and_the_next_run_finishes() {
    let project = Project::new(
        "  - name: db
    type: infra.database
    config: {provider: here, engine: sqlite}
    outputs:
      connection_url: {sensitive: true, sinks: [{type: dotenv, name: FIRST}, {type: dotenv, name: SECOND, path: out/.env}]}
      path: {sensitive: true, sinks: [{type: dotenv, name: THIRD}]}
",
    );
    let sinks = |code: i32| {
        let finished = project.run("infra apply --yes --json").expect_code(code);
        let document: Value = serde_json::from_str(&finished.stdout()).unwrap();
        document["sinks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|sink| {
                let text = |key: &str| sink[key].as_str().unwrap().to_owned();
                format!("{} {}", text("name"), text("status"))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        sinks(6),
        ["FIRST written", "SECOND failed", "THIRD written"]
    );
    assert!(project.path("here/db").exists());
    let first = fs::read_to_string(project.path(".env")).unwrap();
    assert!(first.contains("FIRST=") && first.contains("THIRD="));
    fs::create_dir(project.path("out")).unwrap();
    assert_eq!(
        sinks(0),
        ["FIRST unchanged", "SECOND written", "THIRD unchanged"]
    );
    assert_eq!(fs::read_to_string(project.path(".env")).unwrap(), first);
    assert!(project.planned("infra plan").is_empty());
}
