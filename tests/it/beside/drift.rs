//! `infra drift`, `infra refresh`, `infra refresh-outputs`.

use std::time::Duration;

use tidegate::state::Store as _;

use super::{MODULES, Project, code_of, entry};

#[test]
fn what_is_as_applied_is_in_sync() {
    let project = Project::applied(MODULES);
    let before = project.records();
    let document = project.json("infra drift", 0);
    assert_eq!(document["summary"]["in_sync"], 3, "{document:#}");
    assert_eq!(document["failed"], false);
    for name in ["files", "logs", "db"] {
        let one = entry(&document, "resources", name);
        assert_eq!(
            (one["class"].as_str(), one["source"].as_str()),
            (Some("in-sync"), Some("apply"))
        );
    }
    assert_eq!(project.records(), before, "a look writes nothing");
}

#[test]
fn a_resource_that_is_gone_is_a_ghost() {
    let project = Project::applied(MODULES);
    project.vanish("files");
    let document = project.json("infra drift", 3);
    assert_eq!(entry(&document, "resources", "files")["class"], "ghost");
    assert_eq!(entry(&document, "resources", "logs")["class"], "in-sync");
    let text = project.run("infra drift").expect_code(3).stdout();
    assert!(
        text.contains("GHOST            files  infra.storage"),
        "{text}"
    );
    assert!(text.contains("2 in sync, 1 gone"), "{text}");
}

/// The record is read back from disk by a second process: provenance is kept.
#[test]
fn config_drift_is_evaluated_after_the_store_was_reopened() {
    let project = Project::applied(MODULES);
    std::fs::rename(project.path("resources"), project.path("moved")).unwrap();
    project.write("infra.yaml", &MODULES.replace("./resources", "./moved"));
    let document = project.json("infra drift", 3);
    let one = entry(&document, "resources", "files");
    assert_eq!(one["class"], "config", "{document:#}");
    let path = one["fields"]
        .as_array()
        .unwrap()
        .iter()
        .find(|field| field["path"] == "outputs.path")
        .unwrap();
    assert!(path["expected"].as_str().unwrap().contains("/resources/"));
    assert!(path["actual"].as_str().unwrap().contains("/moved/"));
}

#[test]
fn what_cannot_be_checked_is_never_an_all_clear() {
    let project = Project::applied(MODULES);
    project.block("files");
    let document = project.json("infra drift", 7);
    let one = entry(&document, "resources", "files");
    assert_eq!(one["class"], "could-not-check");
    assert!(
        one["reason"].as_str().unwrap().contains("conflict"),
        "{one:#}"
    );
    assert_eq!(document["failed"], true);
    project.vanish("logs");
    let both = project.json("infra drift", 3);
    assert_eq!(both["summary"]["could_not_check"], 1);
    assert_eq!(both["summary"]["ghost"], 1);
}

#[test]
fn a_provider_that_is_not_declared_any_more_cannot_be_checked() {
    let project = Project::applied(MODULES);
    // Of two that are left nobody knows which one it was; one alone would be the same by another name.
    let third =
        "  - name: third\n    type: iac.provider\n    config: {provider: local, root: ./third}\n";
    let two = MODULES
        .replace("here", "there")
        .replace("environments:", &format!("{third}environments:"));
    project.write("infra.yaml", &two);
    let document = project.json("infra drift", 7);
    let reason = entry(&document, "resources", "files")["reason"].clone();
    assert!(reason.as_str().unwrap().contains("`here`"), "{reason}");
}

#[test]
fn a_record_that_cannot_be_read_fails_the_whole_look() {
    let project = Project::applied(MODULES);
    let (path, bytes) = project.records().remove(0);
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(code_of(&project.json("infra drift", 1)), "state/corrupt");
}

#[test]
fn inside_actions_drift_points_at_the_line_of_the_module() {
    let project = Project::applied(MODULES);
    project.vanish("files");
    let finished = project
        .start("infra drift --env dev")
        .env("GITHUB_ACTIONS", "true")
        .output()
        .expect_code(3);
    let text = format!("{}{}", finished.stdout(), finished.stderr());
    assert!(
        text.contains("::warning title=drift/ghost,file=infra.yaml,line=8,"),
        "{text}"
    );
}

#[test]
fn refresh_shows_ghosts_and_changes_nothing() {
    let project = Project::applied(MODULES);
    project.vanish("files");
    let before = project.records();
    let document = project.json("infra refresh", 0);
    assert_eq!(document["dry_run"], true);
    assert_eq!(entry(&document, "resources", "files")["status"], "ghost");
    assert_eq!(project.records(), before);
}

#[test]
fn refresh_prune_forgets_ghosts_after_approval() {
    let project = Project::applied(MODULES);
    project.vanish("files");
    let refused = project.json("infra refresh --prune", 2);
    assert_eq!(code_of(&refused), "approval/needed");
    assert!(project.records().len() == 3);
    let document = project.json("infra refresh --prune --yes", 0);
    assert_eq!(document["pruned"], serde_json::json!(["files"]));
    assert_eq!(document["changed"], true);
    assert_eq!(project.recorded(), ["db", "logs"]);
}

#[test]
fn an_error_that_may_pass_prunes_nothing() {
    let project = Project::applied(MODULES);
    project.vanish("files");
    project.block("db");
    let before = project.records();
    let document = project.json("infra refresh --prune --yes", 7);
    assert_eq!(code_of(&document), "refresh/unchecked");
    assert_eq!(project.records(), before);
}

#[test]
fn one_protected_ghost_stops_the_whole_prune_until_it_is_named() {
    let config = MODULES.replace(
        "  - name: files\n    type: infra.storage\n",
        "  - name: files\n    type: infra.storage\n    protected: true\n",
    );
    assert_ne!(config, MODULES);
    let project = Project::applied(&config);
    project.vanish("files");
    project.vanish("logs");
    let refused = project.json("infra refresh --prune --yes", 2);
    assert_eq!(code_of(&refused), "plan/protected");
    let other = project.json("infra refresh --prune --yes --allow-replace logs", 2);
    assert_eq!(code_of(&other), "plan/protected");
    assert_eq!(project.records().len(), 3, "neither was forgotten");
    let document = project.json("infra refresh --prune --yes --allow-replace files", 0);
    assert_eq!(document["pruned"], serde_json::json!(["files", "logs"]));
}

#[test]
fn live_outputs_are_merged_and_unchanged_records_are_not_written() {
    let project = Project::applied(MODULES);
    let before = project.records();
    let still = project.json("infra refresh-outputs", 0);
    assert_eq!(still["changed"], false);
    assert_eq!(
        project.records(),
        before,
        "nothing changed, nothing written"
    );

    std::fs::rename(project.path("resources"), project.path("moved")).unwrap();
    project.write("infra.yaml", &MODULES.replace("./resources", "./moved"));
    let dry = project.json("infra refresh-outputs --dry-run", 0);
    assert_eq!(entry(&dry, "resources", "files")["status"], "changed");
    assert_eq!(project.records(), before, "a dry run writes nothing");
    let document = project.json("infra refresh-outputs --concurrency 1", 0);
    assert_eq!(document["changed"], true);
    let outputs = project.json("infra outputs -m files", 0);
    let path = outputs["outputs"]["files"]["path"]["value"]
        .as_str()
        .unwrap();
    assert!(path.contains("/moved/"), "{path}");
    project.json("infra plan --detailed-exitcode", 0);
}

#[test]
fn one_failed_read_persists_nothing_and_a_ghost_is_passed_over() {
    let project = Project::applied(MODULES);
    std::fs::rename(project.path("resources"), project.path("moved")).unwrap();
    project.write("infra.yaml", &MODULES.replace("./resources", "./moved"));
    std::fs::remove_dir_all(project.path("moved/db")).unwrap();
    std::fs::write(project.path("moved/db"), "not a folder").unwrap();
    let before = project.records();
    let refused = project.json("infra refresh-outputs", 1);
    assert_eq!(code_of(&refused), "refresh/failed");
    assert_eq!(project.records(), before);

    std::fs::remove_file(project.path("moved/db")).unwrap();
    let document = project.json("infra refresh-outputs", 0);
    assert_eq!(entry(&document, "resources", "db")["status"], "ghost");
    assert_eq!(entry(&document, "resources", "files")["status"], "changed");
}

/// When each was last looked at, and what was not looked at keeps its old time.
#[test]
fn a_look_is_remembered_where_there_was_one_and_makes_no_plan_stale() {
    let project = Project::applied(MODULES);
    let checked = |name: &str| {
        let status = project.run("infra status --json");
        let status: serde_json::Value = serde_json::from_str(&status.stdout()).unwrap();
        entry(&status, "resources", name)["last_drift_check"].clone()
    };
    assert!(checked("files").is_null());
    project.run("infra plan -o plan.json").expect_code(0);
    let records = project.records();
    project.run("infra drift").expect_code(0);
    let first = checked("files");
    assert!(
        first.as_str().is_some_and(|time| time.ends_with('Z')),
        "{first}"
    );
    assert_eq!(checked("db"), first);
    assert_eq!(project.records(), records, "a look changes no record");
    project
        .run("infra apply --plan plan.json --yes")
        .expect_code(0);
    // Times have seconds; the next look is a later one.
    let now = || {
        project.run("infra refresh").expect_code(0);
        checked("db")
    };
    crate::harness::wait_for("a later look", || now() != first);
    // What cannot be looked at keeps the time at which it last was.
    let before = checked("files");
    project.block("files");
    project.run("infra drift").expect_code(7);
    crate::harness::wait_for("a later look", || {
        project.run("infra drift").expect_code(7);
        checked("db") != before
    });
    assert_eq!(checked("files"), before);
    // A write of the record keeps it too.
    std::fs::remove_file(project.path("resources/files")).unwrap();
    project.run("infra apply --yes").expect_code(0);
    assert_eq!(checked("files"), before);
    project.json("state verify", 0);
}

#[test]
fn a_look_while_somebody_holds_the_lock_is_a_look_all_the_same() {
    let project = Project::applied(MODULES);
    let status = |document: &serde_json::Value| {
        entry(document, "resources", "db")["last_drift_check"].clone()
    };
    let store = crate::state::system_store(&project.path("state"), "dev");
    let lease =
        crate::state::run(store.lock(&crate::state::holder("somebody"), Duration::ZERO)).unwrap();
    let looked = project.run("infra drift").expect_code(0);
    assert!(
        looked.stderr().contains("not remembered"),
        "{}",
        looked.stderr()
    );
    crate::state::run(store.unlock(&lease)).unwrap();
    assert!(status(&project.json("infra status", 0)).is_null());
    project.run("infra drift").expect_code(0);
    assert!(status(&project.json("infra status", 0)).is_string());
}
