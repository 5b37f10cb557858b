//! `infra teardown`: without state, with damaged state, with a state that knows more.

use super::{MODULES, Project, code_of, entry};

#[test]
fn what_the_config_names_goes_even_when_the_state_is_lost() {
    let project = Project::applied(MODULES);
    std::fs::remove_dir_all(project.path("state")).unwrap();
    let document = project.json("infra teardown -c infra.yaml --approve", 0);
    assert_eq!(document["summary"]["destroyed"], 3, "{document:#}");
    assert_eq!(document["state"]["wiped"], true);
    assert!(!project.path("resources").exists());
    assert!(!project.path("state").exists());
}

#[test]
fn a_damaged_record_does_not_stand_in_the_way_and_is_wiped() {
    let project = Project::applied(MODULES);
    let (path, bytes) = project.records().remove(0);
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    project.run("infra destroy --yes").expect_code(1);
    let document = project.json("infra teardown -c infra.yaml --yes", 0);
    assert!(document["state"]["damage"].is_string());
    assert_eq!(document["state"]["wiped"], true);
    assert!(!project.path("state").exists());
}

#[test]
fn a_dry_run_shows_everything_and_changes_nothing() {
    let project = Project::applied(MODULES);
    project.vanish("files");
    let before = project.records();
    let document = project.json("infra teardown -c infra.yaml --dry-run", 0);
    assert_eq!(
        entry(&document, "resources", "files")["status"],
        "not-found"
    );
    assert_eq!(entry(&document, "resources", "db")["status"], "found");
    let text = project
        .run("infra teardown -c infra.yaml --dry-run")
        .expect_code(0)
        .stderr();
    for expected in [
        "files: not found — skipping",
        "→ DESTROY",
        "→ WIPE (3 objects)",
        "2 to destroy, 1 not found",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert_eq!(project.records(), before);
    assert!(project.path("resources/db").exists());
}

#[test]
fn nothing_goes_without_approval_and_no_variable_gives_it() {
    let project = Project::applied(MODULES);
    let finished = project
        .start("infra teardown -c infra.yaml --env dev --json")
        .env("TIDEGATE_APPROVE", "1")
        .env("WFCTL_CONFIRM_PRUNE", "1")
        .output()
        .expect_code(2);
    let document: serde_json::Value = serde_json::from_str(&finished.stdout()).unwrap();
    assert_eq!(code_of(&document), "approval/needed");
    assert!(
        document["problems"][0]["fix"]
            .to_string()
            .contains("--dry-run"),
        "{document:#}"
    );
    assert!(project.path("resources/files").exists());
}

#[test]
fn environment_and_config_are_never_guessed() {
    let project = Project::applied(MODULES);
    let run = |line: &str| {
        let finished = project.start(line).output().expect_code(2);
        serde_json::from_str::<serde_json::Value>(&finished.stdout()).unwrap()
    };
    let no_environment = run("infra teardown -c infra.yaml --yes --json");
    assert_eq!(code_of(&no_environment), "cli/must-be-named");
    let no_config = run("infra teardown --env dev --yes --json");
    assert_eq!(code_of(&no_config), "cli/must-be-named");
    assert!(project.path("resources/files").exists());
}

#[test]
fn a_config_without_environments_is_torn_down_as_the_default_one() {
    let plain = MODULES.split("environments:").next().unwrap();
    let project = Project::new(plain);
    let run = |line: &str| project.start(line).output().expect_code(0);
    run("up --json");
    run("infra teardown -c infra.yaml --env default --yes --json");
    assert!(!project.path("resources").exists());
}

#[test]
fn protected_resources_stand_until_they_are_named() {
    let config = MODULES.replace(
        "  - name: db\n    type: infra.database\n",
        "  - name: db\n    type: infra.database\n    protected: true\n",
    );
    let project = Project::applied(&config);
    std::fs::remove_dir_all(project.path("state")).unwrap();
    let refused = project.json("infra teardown -c infra.yaml --yes", 2);
    assert_eq!(code_of(&refused), "plan/protected");
    assert!(project.path("resources/files").exists());
    project.json("infra teardown -c infra.yaml --yes --allow-replace db", 0);
    assert!(!project.path("resources").exists());
}

#[test]
fn the_state_is_kept_when_anything_failed() {
    let project = Project::applied(MODULES);
    project.block("db");
    let document = project.json("infra teardown -c infra.yaml --yes", 1);
    assert_eq!(
        entry(&document, "resources", "db")["status"],
        "could-not-check"
    );
    assert_eq!(entry(&document, "resources", "logs")["status"], "destroyed");
    assert_eq!(document["state"]["wiped"], false);
    let left: Vec<String> = project
        .records()
        .iter()
        .map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(
        left,
        ["db.cbor"],
        "what is gone is forgotten, what failed is not"
    );
    std::fs::remove_file(project.path("resources/db")).unwrap();
    project.json("infra teardown -c infra.yaml --yes", 0);
    assert!(!project.path("state").exists());
}

#[test]
fn dependents_go_first() {
    let project = Project::applied(MODULES);
    let finished = project
        .run("infra teardown -c infra.yaml --yes --parallelism 1")
        .expect_code(0);
    let text = finished.stderr();
    let done: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("delete"))
        .filter_map(|line| {
            ["logs", "files"]
                .into_iter()
                .find(|name| line.contains(name))
        })
        .collect();
    let first = |name: &str| done.iter().position(|one| *one == name).unwrap();
    assert!(first("logs") < first("files"), "{text}");
}

#[test]
fn a_failure_spares_what_the_failed_one_stands_on_and_nothing_else() {
    let project = Project::applied(MODULES);
    // Deleting renames the folder to this name first.
    project.write("resources/.old.logs", "in the way");
    let document = project.json("infra teardown -c infra.yaml --yes", 1);
    let status = |name: &str| entry(&document, "resources", name)["status"].clone();
    assert_eq!(status("logs"), "delete-failed", "{document:#}");
    assert_eq!(status("files"), "skipped");
    assert_eq!(status("db"), "destroyed");
    assert_eq!(document["state"]["wiped"], false);
    std::fs::remove_file(project.path("resources/.old.logs")).unwrap();
    project.json("infra teardown -c infra.yaml --yes", 0);
    assert!(!project.path("resources").exists());
}

#[test]
fn a_record_the_config_does_not_lead_to_is_never_wiped() {
    let project = Project::applied(MODULES);
    let fewer = MODULES.replace(
        "  - name: logs\n    type: infra.storage\n    config: {provider: here, depends_on: [files]}\n",
        "",
    );
    project.write("infra.yaml", &fewer);
    let document = project.json("infra teardown -c infra.yaml --yes", 1);
    assert_eq!(document["state"]["left"], serde_json::json!(["logs"]));
    assert_eq!(document["state"]["wiped"], false);
    assert_eq!(project.recorded(), ["logs"]);
    assert!(project.path("resources/logs").exists());
}

#[test]
fn orphans_go_only_on_request_and_only_of_this_environment() {
    let config = MODULES.replace("dev: {}", "dev: {}\n  other: {}");
    let project = Project::applied(&config);
    let foreign = MODULES
        .replace("dev: {}", "dev: {}\n  other: {}")
        .replace("name: files", "name: theirs")
        .replace("depends_on: [files]", "depends_on: [theirs]")
        .replace("name: logs", "name: their-logs")
        .replace("name: db", "name: their-db");
    project.write("other.yaml", &foreign);
    project
        .start("infra apply -c other.yaml --env other --yes")
        .output()
        .expect_code(0);
    let fewer = config.replace(
        "  - name: logs\n    type: infra.storage\n    config: {provider: here, depends_on: [files]}\n",
        "",
    );
    project.write("infra.yaml", &fewer);
    let dry = project.json(
        "infra teardown -c infra.yaml --dry-run --include-orphans",
        0,
    );
    let orphan = entry(&dry, "resources", "logs");
    assert_eq!(orphan["orphan"], true);
    project.json("infra teardown -c infra.yaml --yes --include-orphans", 0);
    let mut left: Vec<String> = std::fs::read_dir(project.path("resources"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["their-db", "their-logs", "theirs"]);
    project
        .start("infra drift -c other.yaml --env other")
        .output()
        .expect_code(0);
}
