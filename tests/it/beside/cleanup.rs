//! `infra cleanup`, `infra prune`, `infra audit-keys`, `infra owners`.

use super::{MODULES, Project, code_of, entry};

const LATER: &str = "--created-before 2999-01-01T00:00:00Z";

/// A folder that was made by an apply and then forgotten by state and config.
fn with_a_stray() -> Project {
    let project = Project::applied(&MODULES.replace("name: db", "name: files-2").replace(
        "type: infra.database\n    config: {provider: here, engine: sqlite}",
        "type: infra.storage\n    config: {provider: here}",
    ));
    std::fs::remove_dir_all(project.path("state")).unwrap();
    project.write(
        "infra.yaml",
        &MODULES.replace(
            "  - name: db\n    type: infra.database\n    config: {provider: here, engine: sqlite}\n",
            "",
        ),
    );
    project
}

#[test]
fn a_cleanup_is_a_preview_until_it_is_told_otherwise() {
    let project = Project::applied(MODULES);
    for line in [
        "infra cleanup --tag env:dev",
        "infra cleanup --tag env:dev --dry-run",
    ] {
        let document = project.json(line, 0);
        assert_eq!(document["dry_run"], true);
        assert_eq!(document["resources"].as_array().unwrap().len(), 3);
    }
    let refused = project.json("infra cleanup --tag env:dev --fix", 2);
    assert_eq!(code_of(&refused), "approval/needed");
    assert!(project.path("resources/files").exists());
    let document = project.json("infra cleanup --tag env:dev --fix --yes", 0);
    assert_eq!(entry(&document, "resources", "files")["status"], "deleted");
    assert!(!project.path("resources").exists());
    assert!(
        project.recorded().is_empty(),
        "records go with the resources"
    );
}

#[test]
fn another_tag_and_a_protected_resource_are_left_alone() {
    let config = MODULES.replace(
        "  - name: db\n    type: infra.database\n",
        "  - name: db\n    type: infra.database\n    protected: true\n",
    );
    let project = Project::applied(&config);
    let nothing = project.json("infra cleanup --tag env:prod --fix --yes", 0);
    assert_eq!(nothing["resources"].as_array().unwrap().len(), 0);
    let refused = project.json("infra cleanup --tag env:dev --fix --yes", 2);
    assert_eq!(code_of(&refused), "plan/protected");
    assert!(project.path("resources/files").exists());
}

#[test]
fn a_prune_needs_both_keys_and_then_an_answer() {
    let project = with_a_stray();
    let line = format!("infra prune --type infra.storage {LATER} --exclude files --env dev --json");
    let run = |line: &str, key: Option<&str>| {
        let mut run = project.start(line);
        if let Some(key) = key {
            run = run.env("WFCTL_CONFIRM_PRUNE", key);
        }
        let finished = run.output().expect_code(2);
        let document: serde_json::Value = serde_json::from_str(&finished.stdout()).unwrap();
        code_of(&document).to_owned()
    };
    assert_eq!(run(&line, None), "prune/two-keys");
    assert_eq!(run(&line, Some("1")), "prune/two-keys");
    let confirmed = format!("{line} --confirm");
    assert_eq!(run(&confirmed, None), "prune/two-keys");
    assert_eq!(run(&confirmed, Some("yes")), "prune/two-keys");
    assert_eq!(run(&confirmed, Some("1")), "approval/needed");
    assert!(project.path("resources/files-2").exists());
}

fn prune(project: &Project, flags: &str, code: i32) -> serde_json::Value {
    let finished = project
        .start(&format!(
            "infra prune --type infra.storage --confirm --yes --env dev --json {flags}"
        ))
        .env("WFCTL_CONFIRM_PRUNE", "1")
        .output()
        .expect_code(code);
    serde_json::from_str(&finished.stdout()).unwrap()
}

#[test]
fn a_prune_deletes_what_is_old_and_not_in_use() {
    let project = with_a_stray();
    project.run("infra import --name files").expect_code(0);
    let young = prune(
        &project,
        "--created-before 2001-01-01T00:00:00Z --exclude files",
        0,
    );
    assert_eq!(young["resources"].as_array().unwrap().len(), 0);
    let document = prune(&project, &format!("{LATER} --exclude files"), 0);
    assert_eq!(
        entry(&document, "resources", "files-2")["status"],
        "deleted"
    );
    let kept = |name: &str| entry(&document, "kept", name)["why"].clone();
    assert_eq!(kept("files"), "excluded");
    assert_eq!(kept("logs"), "declared in the config");
    assert!(project.path("resources/logs").exists());
    assert!(!project.path("resources/files-2").exists());
}

#[test]
fn a_mistyped_exclusion_stops_the_prune() {
    let project = with_a_stray();
    let document = prune(&project, &format!("{LATER} --exclude fils"), 2);
    assert_eq!(code_of(&document), "prune/unknown-exclusion");
    let bad = prune(&project, "--created-before yesterday --exclude files", 2);
    assert_eq!(code_of(&bad), "prune/bad-time");
    assert!(project.path("resources/files-2").exists());
}

#[test]
fn preserved_names_stay() {
    let project = with_a_stray();
    let document = prune(
        &project,
        &format!("{LATER} --exclude files --preserve-names *-2"),
        0,
    );
    assert_eq!(
        entry(&document, "kept", "files-2")["why"],
        "its name is preserved"
    );
    assert!(project.path("resources/files-2").exists());
}

#[test]
fn keys_are_listed_with_their_age() {
    let project = with_a_stray();
    project.run("infra import --name files").expect_code(0);
    let document = project.json("infra audit-keys --type infra.storage", 0);
    let rows = document["resources"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["name"], "files");
    assert_eq!(rows[0]["recorded"], true);
    assert_eq!(rows[1]["recorded"], false);
    assert!(rows[1]["created_at"].as_str().unwrap().ends_with('Z'));
    let unknown = project.json("infra audit-keys --type infra.moon", 2);
    assert_eq!(code_of(&unknown), "provider/unsupported-type");
}

#[test]
fn a_provider_without_owners_says_so() {
    let project = Project::applied(MODULES);
    let document = project.json("infra owners --owner team-a", 2);
    assert_eq!(code_of(&document), "provider/no-owners");
}
