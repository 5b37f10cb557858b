//! `infra import`, `infra import-all`, and what drift makes of adopted records.

use super::{MODULES, Project, code_of, entry};

/// Applied, then the state is lost.
fn forgotten() -> Project {
    let project = Project::applied(MODULES);
    std::fs::remove_dir_all(project.path("state")).unwrap();
    project
}

#[test]
fn a_live_resource_is_recorded_as_it_is_and_says_so() {
    let project = forgotten();
    let document = project.json("infra import --name files", 0);
    assert_eq!(document["resource"]["source"], "adoption");
    assert_eq!(document["resource"]["replaced"], false);
    assert_eq!(project.recorded(), ["files"]);
    project.run("infra import --name db").expect_code(0);
    let text = project.run("infra import --name logs").expect_code(0);
    assert!(
        text.stderr()
            .contains("Imported `logs` (infra.storage) id=")
            && text.stderr().contains("as it is"),
        "{}",
        text.stderr()
    );
    // Nothing is made twice; the database's config is unknown, so the plan completes it.
    let plan = project.json("infra plan", 0);
    assert_eq!(plan["plan"]["summary"]["create"], 0, "{plan:#}");
    assert_eq!(plan["plan"]["summary"]["update"], 1);
    project.run("infra apply --yes").expect_code(0);
    let drift = project.json("infra drift", 0);
    assert_eq!(entry(&drift, "resources", "db")["source"], "apply");
}

#[test]
fn of_an_adopted_record_only_existence_is_checked() {
    let project = forgotten();
    project.run("infra import --name files").expect_code(0);
    std::fs::rename(project.path("resources"), project.path("moved")).unwrap();
    project.write("infra.yaml", &MODULES.replace("./resources", "./moved"));
    let document = project.json("infra drift", 0);
    let one = entry(&document, "resources", "files");
    assert_eq!(
        (one["class"].as_str(), one["source"].as_str()),
        (Some("in-sync"), Some("adoption"))
    );
    assert!(one["reason"].as_str().unwrap().contains("existence"));
    std::fs::remove_dir_all(project.path("moved/files")).unwrap();
    let gone = project.json("infra drift", 3);
    assert_eq!(entry(&gone, "resources", "files")["class"], "ghost");
}

#[test]
fn an_existing_record_stands_unless_forced_and_is_kept() {
    let project = Project::applied(MODULES);
    let before = project.records();
    let refused = project.json("infra import --name files", 2);
    assert_eq!(code_of(&refused), "import/recorded");
    assert_eq!(project.records(), before);
    let document = project.json("infra import --name files --force", 0);
    assert_eq!(document["resource"]["replaced"], true);
    let backup = document["backup"].as_str().unwrap();
    let kept = std::fs::read(project.path(backup)).unwrap();
    let (_, old) = before
        .iter()
        .find(|(path, _)| path.ends_with("files.cbor"))
        .unwrap();
    // The copy is JSON, for people.
    let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    let old = tidegate::state::Record::decode(old, "the record").unwrap();
    assert_eq!(kept["provider_id"], old.provider_id);
}

#[test]
fn an_id_must_be_that_of_the_resource() {
    let project = forgotten();
    let wrong = project.json("infra import --name files --id /nowhere", 1);
    assert_eq!(code_of(&wrong), "import/not-found");
    let id = project
        .path("resources/files")
        .canonicalize()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let document = project.json(&format!("infra import --name files --id {id}"), 0);
    assert_eq!(document["resource"]["provider_id"], id.as_str());
}

#[test]
fn what_is_not_declared_or_not_there_is_refused() {
    let project = Project::new(MODULES);
    assert_eq!(
        code_of(&project.json("infra import --name other", 2)),
        "import/unknown-name"
    );
    assert_eq!(
        code_of(&project.json("infra import --name files", 1)),
        "import/not-found"
    );
    assert!(project.records().is_empty());
}

#[test]
fn a_whole_type_is_imported_and_the_undeclared_only_on_request() {
    let project = forgotten();
    let fewer = MODULES.replace(
        "  - name: logs\n    type: infra.storage\n    config: {provider: here, depends_on: [files]}\n",
        "",
    );
    assert_ne!(fewer, MODULES);
    project.write("infra.yaml", &fewer);
    let line = "infra import-all --provider here --type infra.storage";
    let dry = project.json(&format!("{line} --dry-run"), 0);
    assert_eq!(dry["resources"][0]["status"], "would-import");
    assert_eq!(dry["resources"][1]["status"], "undeclared");
    assert!(!project.path("state").exists(), "a dry run makes no state");

    let document = project.json(line, 0);
    assert_eq!(document["resources"][0]["status"], "imported");
    assert_eq!(project.recorded(), ["files"]);
    let again = project.json(&format!("{line} --undeclared"), 0);
    assert_eq!(again["resources"][0]["status"], "recorded");
    assert_eq!(again["resources"][1]["resource"], "infra.storage/logs");
    assert_eq!(project.recorded(), ["files", "infra.storage/logs"]);
    // Recorded as protected: no plan may delete it unnamed.
    let refused = project.json("infra apply --yes", 2);
    assert_eq!(code_of(&refused), "plan/protected");
}

#[test]
fn a_type_or_provider_that_is_not_there_is_refused() {
    let project = Project::new(MODULES);
    let line = |provider: &str, kind: &str| {
        format!("infra import-all --dry-run --provider {provider} --type {kind}")
    };
    let unknown = project.json(&line("here", "infra.moon"), 2);
    assert_eq!(code_of(&unknown), "provider/unsupported-type");
    let nobody = project.json(&line("there", "infra.storage"), 2);
    assert_eq!(code_of(&nobody), "provider/not-declared");
}

/// One domain is a zone here and a delegation there: two types, one name.
#[test]
fn two_types_of_one_name_are_two_records() {
    let project = Project::with_plugin(
        "modules:
  - {name: state, type: iac.state, config: {backend: filesystem, directory: ./state}}
  - {name: cloud, type: iac.provider, config: {provider: files, root: ./cloud, region: here1}}
environments: {dev: {}}
",
    );
    for kind in ["infra.vpc", "infra.storage"] {
        let resource = serde_json::json!({
            "id": format!("id-in-{kind}"), "name": "shop.test", "kind": kind,
            "config": {}, "version": 1,
        });
        project.write(
            &format!("cloud/{kind}__shop.test.json"),
            &resource.to_string(),
        );
    }
    for kind in ["infra.vpc", "infra.storage"] {
        let document = project.json(
            &format!("infra import-all --provider cloud --type {kind} --undeclared"),
            0,
        );
        assert_eq!(
            document["resources"][0]["status"], "imported",
            "{document:#}"
        );
    }
    assert_eq!(
        project.recorded(),
        ["infra.storage/shop.test", "infra.vpc/shop.test"]
    );
    for kind in ["infra.vpc", "infra.storage"] {
        let document = project.json(&format!("state show {kind}/shop.test"), 0);
        assert_eq!(document["record"]["provider_id"], format!("id-in-{kind}"));
    }
}
