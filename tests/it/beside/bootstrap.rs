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
