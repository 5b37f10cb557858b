//! `infra bootstrap`.

use super::{MODULES, Project, code_of};

fn config() -> String {
    format!(
        "{MODULES}secrets:\n  generate:\n    - {{key: SESSION_KEY, type: random_hex, length: 32}}\n    - {{key: COPY, type: infra_output, source: files.path}}\n"
    )
}

fn status(document: &serde_json::Value, key: &str) -> String {
    document["secrets"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["key"] == key)
        .unwrap()["status"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn secrets_are_made_once_and_the_config_is_not_edited() {
    let project = Project::new(&config());
    let first = project.json("infra bootstrap", 0);
    assert_eq!(status(&first, "SESSION_KEY"), "created");
    assert_eq!(status(&first, "COPY"), "after-apply");
    assert_eq!(first["changed"], true);
    assert!(first["state"]["made"].is_null(), "a folder needs nothing");
    let second = project.json("infra bootstrap", 0);
    assert_eq!(status(&second, "SESSION_KEY"), "exists");
    assert_eq!(second["changed"], false);
    let text = std::fs::read_to_string(project.path("infra.yaml")).unwrap();
    assert_eq!(text, config());
    assert!(!project.path("resources").exists(), "no resource is made");
}

#[test]
fn a_rotation_makes_the_named_secret_anew() {
    let project = Project::new(&config());
    project.json("infra bootstrap", 0);
    let kept = || {
        let mut files = Vec::new();
        super::collect(&project.path("state"), &mut files);
        files.retain(|(path, _)| path.to_string_lossy().contains("/keepsakes/"));
        files
    };
    let before = kept();
    assert_eq!(before.len(), 1, "{before:?}");
    let document = project.json("infra bootstrap --force-rotate SESSION_KEY", 0);
    assert_eq!(status(&document, "SESSION_KEY"), "rotated");
    assert_ne!(kept(), before);
}

#[test]
fn a_rotation_of_something_else_is_refused_before_any_effect() {
    let project = Project::new(&config());
    let unknown = project.json("infra bootstrap --force-rotate SESSION_KEY,OTHER", 2);
    assert_eq!(code_of(&unknown), "bootstrap/unknown-secret");
    let copy = project.json("infra bootstrap --force-rotate COPY", 2);
    assert_eq!(code_of(&copy), "bootstrap/not-generated");
    assert!(!project.path("state").exists());
}

const TWO_STORES: &str = "\
secretStores:
  good: {provider: file, config: {path: vault}}
  bad: {provider: file, config: {path: blocked}}
secrets:
  generate:
    - {key: FIRST, type: random_hex, store: bad}
    - {key: SECOND, type: random_hex, store: good}
";

/// A store that cannot be written hides nothing of what was done, and stops nothing else.
#[test]
fn a_rotation_that_one_store_refuses_is_told_and_finished_by_the_next_run() {
    let project = Project::new(&format!("{MODULES}{TWO_STORES}"));
    project.json("infra bootstrap", 0);
    let held = |path: &str| std::fs::read(project.path(path)).unwrap();
    let before = (held("blocked/FIRST"), held("vault/SECOND"));
    std::fs::remove_dir_all(project.path("blocked")).unwrap();
    project.write("blocked", "in the way");
    let partly = project.json("infra bootstrap --force-rotate FIRST,SECOND", 6);
    let rows = |document: &serde_json::Value| document["secrets"].clone();
    assert_eq!(
        rows(&partly),
        serde_json::json!([
            {"key": "FIRST", "status": "rotated", "store": "failed"},
            {"key": "SECOND", "status": "rotated", "store": "written"},
        ])
    );
    assert_eq!(partly["changed"], true);
    assert_eq!(partly["problems"].as_array().unwrap().len(), 1);
    let second = held("vault/SECOND");
    assert_ne!(second, before.1);
    std::fs::remove_file(project.path("blocked")).unwrap();
    let rest = project.json("infra bootstrap", 0);
    assert_eq!(
        rows(&rest),
        serde_json::json!([
            {"key": "FIRST", "status": "exists", "store": "written"},
            {"key": "SECOND", "status": "exists", "store": "unchanged"},
        ])
    );
    assert_eq!(rest["changed"], true);
    assert_ne!(held("blocked/FIRST"), before.0);
    assert_eq!(held("vault/SECOND"), second, "not rotated twice");
}

/// What is taken out of a store is said before, asked for, and told.
#[test]
fn a_destroy_names_what_it_takes_out_of_secret_stores() {
    let project = Project::new(&format!("{MODULES}{TWO_STORES}"));
    project.json("infra bootstrap", 0);
    let shown = project.run("infra destroy --dry-run").expect_code(0);
    for line in [
        "Removes `FIRST` from secret store bad.",
        "Removes `SECOND` from secret store good.",
    ] {
        assert!(shown.stderr().contains(line), "{line}: {}", shown.stderr());
    }
    let asked = project.run("infra destroy").expect_code(2);
    assert!(
        asked.stderr().contains("approval/needed"),
        "{}",
        asked.stderr()
    );
    assert!(project.path("vault/SECOND").exists());
    // What somebody else put there stays.
    project.write("blocked/FIRST", "theirs");
    let gone = project.json("infra destroy --yes", 0);
    let mut rows: Vec<(&str, &str, &str)> = gone["sinks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap();
            (text("destination"), text("name"), text("status"))
        })
        .collect();
    rows.sort_unstable();
    assert_eq!(
        rows,
        [
            ("secret store bad", "FIRST", "skipped"),
            ("secret store good", "SECOND", "removed"),
        ]
    );
    assert!(!project.path("vault/SECOND").exists());
    assert!(project.path("blocked/FIRST").exists());
}
