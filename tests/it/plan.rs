//! Plans through the binary: what is shown, what is saved, and when a saved plan is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Finished, Run};

const CONFIG: &str = "\
modules:
  - name: here
    type: iac.provider
    config: {provider: local, root: ./.tidegate/resources}
  - name: files
    type: infra.storage
    config: {provider: here}
  - name: db
    type: infra.database
    config: {provider: here, engine: \"${ENGINE:-sqlite}\"}
environments:
  dev: {}
  prod: {}
";

/// A service that needs what another resource only has once it is made.
const SERVICE: &str = "  - name: web
    type: infra.container_service
    config:
      provider: here
      command: [sleep, \"600\"]
      env_vars: {FOLDER: \"${files.path}\"}
      env_vars_secret: {KEY: \"${API_TOKEN}\"}
";

struct Project {
    directory: TempDir,
}

impl Project {
    fn new(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("infra.yaml"), config).unwrap();
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn run(&self, line: &str) -> Finished {
        self.run_with(line, &[])
    }

    fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Finished {
        let arguments: Vec<&str> = line.split(' ').collect();
        let mut run = Run::new(self.path(), &arguments);
        for (name, value) in variables {
            run = run.env(name, value);
        }
        run.output()
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }

    fn plan_file(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path().join("plan.json")).unwrap()).unwrap()
    }
}

const PLAN: &str = "infra plan --env dev -o plan.json";
const APPLY: &str = "infra apply --env dev --plan plan.json";

fn with_service() -> String {
    CONFIG.replace("environments:", &format!("{SERVICE}environments:"))
}

#[test]
fn a_first_deployment_with_references_is_saved_and_applied_once() {
    let project = Project::new(&with_service());
    let token = [("API_TOKEN", "tok-correct-horse-battery")];
    project.run_with(PLAN, &token).expect_code(0);
    let path = project.path().join("plan.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("horse"), "31: no secret in the file: {text}");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let file = project.plan_file();
    assert_eq!(file["schema_version"], 2);
    assert_eq!(file["actions"][0]["action"], "create");
    assert_eq!(file["actions"][0]["resource"]["name"], "db");
    assert!(file["input_snapshot"]["API_TOKEN"].is_string());
    assert_eq!(file["generator_metadata"]["plugins"][0]["name"], "local");

    // Stdin is no terminal and `--yes` is not given: the saved plan is its own approval.
    let applied = project.run_with(&format!("{APPLY} --json"), &token);
    let destroyed = || {
        project
            .run_with("infra destroy --env dev --yes", &token)
            .code()
    };
    if applied.code() != 0 {
        destroyed();
    }
    let applied = applied.expect_code(0);
    assert!(!applied.stdout().contains("horse"));
    let again = project.run_with(APPLY, &token);
    assert_eq!(destroyed(), 0);
    // 30: used once.
    let again = again.expect_code(5);
    let said = again.stderr();
    assert!(said.contains("plan/stale"), "{said}");
    assert!(said.contains("use: it was applied at"), "{said}");
    assert!(said.contains("state: changed since"), "{said}");
}

#[test]
fn everything_that_moved_is_named_in_one_message_and_no_value_is() {
    let project = Project::new(&with_service());
    project
        .run_with(PLAN, &[("API_TOKEN", "tok-correct-horse-battery")])
        .expect_code(0);
    project.edit("infra.yaml", "sleep, \"600\"", "sleep, \"500\"");
    fs::write(project.path().join(".wfctl-lock.yaml"), "version: 1\n").unwrap();
    let refused = project
        .run_with(
            &APPLY.replace("dev", "prod"),
            &[
                ("API_TOKEN", "tok-other-horse-battery"),
                ("ENGINE", "sqlite"),
            ],
        )
        .expect_code(5);
    let said = refused.stderr();
    let positions: Vec<usize> = [
        "config: the text",
        "environment: the plan is for `dev`, this run is for `prod`",
        "input `API_TOKEN`: another value",
        "input `ENGINE`: another value (fingerprint (unset) then",
        "lockfile: there was none",
        "state: another one",
    ]
    .iter()
    .map(|reason| {
        said.find(reason)
            .unwrap_or_else(|| panic!("{reason} in {said}"))
    })
    .collect();
    assert!(positions.is_sorted(), "{said}");
    assert!(!said.contains("horse"), "{said}");
    assert!(
        !project.path().join(".tidegate/resources").exists(),
        "no driver was called"
    );
}

#[test]
fn a_plan_is_refused_when_another_run_changed_the_state() {
    let project = Project::new(CONFIG);
    project.run(PLAN).expect_code(0);
    project
        .run("infra apply --env dev --include files --yes")
        .expect_code(0);
    let said = project.run(APPLY).expect_code(5).stderr();
    assert!(said.contains("state: changed since (serial"), "{said}");
    assert!(said.contains("infra plan -o"), "{said}");
}

#[test]
fn a_plan_that_was_edited_is_refused() {
    let project = Project::new(CONFIG);
    project.run(PLAN).expect_code(0);
    project.edit("plan.json", "infra.storage", "infra.storagf");
    let said = project.run(APPLY).expect_code(2).stderr();
    assert!(said.contains("plan/altered"), "{said}");
    for (text, code) in [
        ("{\"schema_version\": 3, \"actions\": []}", "plan/newer"),
        ("{\"id\": \"plan-1\", \"actions\": []}", "plan/unbound"),
        ("no plan", "plan/unreadable"),
    ] {
        fs::write(project.path().join("plan.json"), text).unwrap();
        let said = project.run(APPLY).expect_code(2).stderr();
        assert!(said.contains(code), "{code} in {said}");
    }
    assert!(!project.path().join(".tidegate/resources").exists());
}

#[test]
fn a_plan_expires() {
    let project = Project::new(CONFIG);
    project
        .run(&format!("{PLAN} --valid-for 1s"))
        .expect_code(0);
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let said = project.run(APPLY).expect_code(5).stderr();
    assert!(said.contains("time: it expired at"), "{said}");
}

#[test]
fn include_plans_a_part_and_names_what_it_does_not_know() {
    let project = Project::new(&with_service());
    let token = [("API_TOKEN", "tok-correct-horse-battery")];
    let said = project
        .run_with("infra plan --env dev --include z,files,a", &token)
        .expect_code(2)
        .stderr();
    assert!(said.contains("`a`, `z`"), "{said}");
    let said = project
        .run_with("infra plan --env dev --include web", &token)
        .expect_code(2)
        .stderr();
    assert!(
        said.contains("`web` needs `files`, which does not exist yet"),
        "{said}"
    );
    let planned = project
        .run_with(&format!("{PLAN} --include files --json"), &token)
        .expect_code(0);
    let document: Value = serde_json::from_str(&planned.stdout()).unwrap();
    assert_eq!(document["plan"]["actions"].as_array().unwrap().len(), 1);
    assert_eq!(project.plan_file()["include"][0], "files");
    project.run_with(APPLY, &token).expect_code(0);
    // 21: something that left the config is deleted when it is named, and only then.
    let gone = CONFIG.replace(
        "  - name: files\n    type: infra.storage\n    config: {provider: here}\n",
        "",
    );
    fs::write(project.path().join("infra.yaml"), gone).unwrap();
    let line = "infra plan --env dev --json --include";
    let document: Value =
        serde_json::from_str(&project.run(&format!("{line} db")).expect_code(0).stdout()).unwrap();
    assert_eq!(document["plan"]["summary"]["delete"], 0);
    let document: Value = serde_json::from_str(
        &project
            .run(&format!("{line} files"))
            .expect_code(0)
            .stdout(),
    )
    .unwrap();
    assert_eq!(document["plan"]["actions"][0]["action"], "delete");
}

#[test]
fn a_protected_resource_stops_a_saved_plan_too() {
    let config = CONFIG.replace(
        "    type: infra.database\n",
        "    type: infra.database\n    protected: true\n",
    );
    let project = Project::new(&config);
    project.run("infra apply --env dev --yes").expect_code(0);
    // Removed from the file together with its protection: the record still protects it.
    let start = config.find("  - name: db").unwrap();
    let end = config.find("environments:").unwrap();
    let gone = format!("{}{}", &config[..start], &config[end..]);
    fs::write(project.path().join("infra.yaml"), gone).unwrap();
    let planned = project.run(PLAN).expect_code(0);
    assert!(planned.stdout().contains("[protected]"));
    let said = project.run(APPLY).expect_code(2).stderr();
    assert!(said.contains("`db` (delete)"), "{said}");
    assert!(said.contains("--allow-replace db"), "{said}");
    project
        .run(&format!("{APPLY} --allow-replace db"))
        .expect_code(0);
}

#[test]
fn exit_codes_tell_changes_from_errors() {
    let project = Project::new(CONFIG);
    let line = "infra plan --env dev --detailed-exitcode";
    project.run(line).expect_code(2);
    project.run(&line.replace("dev", "nowhere")).expect_code(1);
    project.run("infra apply --env dev --yes").expect_code(0);
    project.run(line).expect_code(0);
}

#[test]
fn markdown_and_json_are_for_machines_and_comments() {
    let project = Project::new(CONFIG);
    let page = project
        .run("infra plan --env dev --format markdown")
        .expect_code(0)
        .stdout();
    assert!(page.starts_with("### Infrastructure Plan"), "{page}");
    assert!(page.contains("| `files` | `infra.storage` |"), "{page}");
    let json = project
        .run("infra plan --env dev --format json")
        .expect_code(0)
        .stdout();
    let document: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["plan"]["summary"]["create"], 2);
}

#[test]
fn a_plan_that_cannot_be_saved_says_why() {
    let project = Project::new(CONFIG);
    let said = project
        .run("infra plan --env dev -o nowhere/plan.json")
        .expect_code(1)
        .stderr();
    assert!(said.contains("plan/unsaved"), "{said}");
    assert!(said.contains("nowhere/plan.json"), "{said}");
}
