//! What other programs read: documents against their published schemas, the report on every way
//! out, and destinations of secrets that the config forgets.

use std::path::Path;

use serde_json::{Value, json};

use super::{MODULES, Project};

/// Two databases, each with a line in one `.env` file.
const TWO: &str = "\
modules:
  - name: here
    type: iac.provider
    config: {provider: local, root: ./resources}
  - name: state
    type: iac.state
    config: {backend: filesystem, directory: ./state}
  - name: old
    type: infra.database
    config: {provider: here, engine: sqlite}
    outputs:
      connection_url: {sensitive: true, sinks: [{type: dotenv, name: OLD_URL, path: @OLD@}]}
  - name: kept
    type: infra.database
    config: {provider: here, engine: sqlite}
    outputs:
      connection_url: {sensitive: true, sinks: [{type: dotenv, name: KEPT_URL, path: .env}]}
environments:
  dev: {}
";

/// The same without `old`.
fn without_old(config: &str) -> String {
    let (before, rest) = config.split_once("  - name: old\n").unwrap();
    let (_, after) = rest.split_once("  - name: kept\n").unwrap();
    format!("{before}  - name: kept\n{after}")
}

#[track_caller]
fn check(name: &str, document: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/schema/{name}.json"));
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let problems: Vec<String> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(problems.is_empty(), "{problems:#?}\n{document:#}");
}

#[test]
fn documents_are_as_their_schemas_say() {
    let project = Project::new(&TWO.replace("@OLD@", ".env"));
    check("plan", &project.json("infra plan", 0));
    check("plan", &project.json("infra plan -o plan.json", 0));
    check("apply", &project.json("infra apply --dry-run", 0));
    let done = project.json("infra apply --yes", 0);
    assert_eq!(done["sinks"][0]["status"], "written");
    check("apply", &done);
    check("drift", &project.json("infra drift", 0));

    // A failure, with what came before it.
    let more = "  - name: files\n    type: infra.storage\n    config: {provider: here}\n";
    let config = TWO
        .replace("@OLD@", ".env")
        .replace("environments:", &format!("{more}environments:"));
    project.write("infra.yaml", &config);
    project.write("resources/files", "in the way");
    check("plan", &project.json("infra plan", 0));
    let failed = project.json("infra apply --yes", 1);
    assert_eq!(failed["actions"][0]["status"], "error", "{failed:#}");
    check("apply", &failed);

    // Stopped before anything was looked at.
    project.write("infra.yaml", "modules: 7\n");
    for (name, line) in [
        ("plan", "infra plan"),
        ("apply", "infra apply"),
        ("drift", "infra drift"),
    ] {
        check(name, &project.json(line, 2));
    }
}

/// A schema that takes anything would prove nothing.
#[test]
#[should_panic(expected = "not valid under any of the schemas")]
fn a_document_without_its_fields_is_not_as_its_schema_says() {
    check("drift", &json!({"command": "infra drift", "failed": false}));
}

#[test]
fn a_run_that_is_refused_leaves_a_report_too() {
    let project = Project::new(MODULES);
    project.run("infra apply --report out.json").expect_code(2);
    let report: Value =
        serde_json::from_slice(&std::fs::read(project.path("out.json")).unwrap()).unwrap();
    let error = &report["errors"][0];
    assert_eq!(error["resource"], "<run>", "{report:#}");
    assert_eq!(error["action"], "prepare");
    assert!(
        error["error"].as_str().unwrap().contains("approval"),
        "{error}"
    );
    assert_eq!(report["actions"], json!([]));
}

#[test]
fn a_resource_that_leaves_takes_its_secrets_out_of_their_sinks() {
    let both = TWO.replace("@OLD@", ".env");
    let project = Project::applied(&both);
    let lines = || std::fs::read_to_string(project.path(".env")).unwrap();
    assert!(lines().contains("OLD_URL=") && lines().contains("KEPT_URL="));
    project.write("infra.yaml", &without_old(&both));
    let document = project.json("infra apply --yes", 0);
    let sink = document["sinks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|sink| sink["name"] == "OLD_URL")
        .unwrap();
    assert_eq!(sink["status"], "removed", "{document:#}");
    assert!(!lines().contains("OLD_URL") && lines().contains("KEPT_URL="));
    let again = project.json("infra apply --yes", 0);
    assert_eq!(again["changed"], false, "{again:#}");
    assert_eq!(again["sinks"].as_array().unwrap().len(), 1);
}

/// Nothing of the config leads there any more: it is said, once, with what to do.
#[test]
fn a_sink_that_nothing_leads_to_any_more_is_named() {
    let both = TWO.replace("@OLD@", "old.env");
    let project = Project::applied(&both);
    project.write("infra.yaml", &without_old(&both));
    let document = project.json("infra apply --yes", 0);
    let sink = &document["sinks"][1];
    assert_eq!(
        (&sink["name"], &sink["status"]),
        (&json!("OLD_URL"), &json!("skipped"))
    );
    let said = sink["error"].as_str().unwrap();
    assert!(said.contains("take `OLD_URL` out of it"), "{said}");
    let again = project.json("infra apply --yes", 0);
    assert_eq!(again["sinks"].as_array().unwrap().len(), 1, "{again:#}");
}

/// Names, types and places that a provider also answers as outputs, which somebody calls secret.
#[test]
fn a_secret_that_is_a_public_word_hides_no_name() {
    let project = Project::new(
        "\
modules:
  - {name: here, type: iac.provider, config: {provider: local, root: ./resources}}
  - {name: state, type: iac.state, config: {backend: filesystem, directory: ./state}}
  - name: orders-files
    type: infra.storage
    config: {provider: here}
    outputs: {name: {sensitive: true}}
  - name: orders-logs
    type: infra.storage
    config: {provider: here, depends_on: [orders-files]}
    outputs: {name: {sensitive: true}}
environments:
  dev: {}
",
    );
    let applied = project.run("infra apply --yes").expect_code(0);
    let said = applied.stderr();
    assert!(said.contains("secret/unmaskable"), "{said}");
    assert!(said.contains("`orders-files.name`"), "{said}");
    assert!(!(applied.stdout() + &said).contains("***"), "{said}");
    for line in [
        "infra status",
        "infra plan",
        "infra drift",
        "infra destroy --dry-run",
        "infra outputs",
        "state list",
    ] {
        let run = project.run(line).expect_code(0);
        // This much of what is hidden is meant: the value of the output.
        let all = (run.stdout() + &run.stderr()).replace("***MASKED***", "");
        assert!(!all.contains("***"), "{line}: {all}");
        let names_it = all.contains("orders-files") || all.contains("No changes");
        assert!(names_it, "{line}: {all}");
    }
    let outputs = project.json("infra outputs", 0);
    for name in ["orders-files", "orders-logs"] {
        assert!(
            outputs.to_string().contains(&format!("\"{name}\":")),
            "{outputs}"
        );
    }
    // What is secret stays out of sight where it is an output.
    let listed = project.run("infra outputs").stdout();
    assert!(
        listed.contains("orders-files.name: ***MASKED***"),
        "{listed}"
    );
    // Names that the config has no more are names still.
    let config = std::fs::read_to_string(project.path("infra.yaml")).unwrap();
    let (head, rest) = config.split_once("  - name: orders-files").unwrap();
    let (_, tail) = rest.split_once("environments:").unwrap();
    project.write("infra.yaml", &format!("{head}environments:{tail}"));
    for line in ["infra status", "infra plan", "infra destroy --dry-run"] {
        let run = project.run(line).expect_code(0);
        let all = run.stdout() + &run.stderr();
        assert!(
            all.contains("orders-files") && !all.contains("***"),
            "{line}: {all}"
        );
    }
}

/// Of a plugin nobody knows before what it will answer.
#[test]
fn an_output_that_a_plugin_does_not_give_is_told_when_it_is_missed() {
    let config = "\
modules:
  - {name: state, type: iac.state, config: {backend: filesystem, directory: ./state}}
  - {name: cloud, type: iac.provider, config: {provider: files, root: ./cloud, region: here1}}
  - {name: site, type: infra.storage, config: {provider: cloud}@OUTPUTS@}
pipelines: {p: {steps: [{name: g, type: step.deploy_verify, config: {timeout: 1s, url: '${site.live_ulr}/x'}}]}}
environments: {dev: {}}
";
    let sinks = ", outputs: {live_ulr: {sensitive: true, sinks: [{type: dotenv, name: U}]}}";
    let project = Project::with_plugin(&config.replace("@OUTPUTS@", sinks));
    let failed = project.run("up --yes").expect_code(4).stderr();
    assert!(failed.contains("verify/unknown-value"), "{failed}");
    let told = "`site` has no output `live_ulr`; it has";
    assert_eq!(failed.matches(told).count(), 2, "{failed}");
    assert!(failed.contains("`live_url`"), "{failed}");
}
