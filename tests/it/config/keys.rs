//! `config validate` knows the settings that providers take, and starts none for it.

use std::fs;

use crate::harness::Run;

const CONFIG: &str = "\
modules:
  - name: here
    type: iac.provider
    config: {provider: local, root: ./r, rooot: ./x, postgres: {hosst: a}}
  - name: files
    type: infra.storage
    config: {provider: here, size: s, region: r, lifecycle: {}}
    environments:
      prod:
        config:
          aclx: public
  - name: db
    type: infra.database
    config: {provider: here, engin: sqlite}
  - name: web
    type: infra.container_service
    config:
      provider: here
      command: [./web]
      image: web:1
      health_check: {path: /, period_seconds: 3, pth: /x}
environments:
  dev: {}
  prod: {}
";

/// What a plan would refuse is found by reading the file, at the value itself.
#[test]
fn values_the_local_provider_does_not_take_are_found_where_they_stand() {
    let config = "\
modules:
  - name: here
    type: iac.provider
    config: {provider: local, root: 5, postgres: {port: x, sslmode: foo}}
  - name: db
    type: infra.database
    config: {provider: here, engine: mysql}
  - name: web
    type: infra.container_service
    config: {provider: here, command: ./web, http_port: abc, health_check: 5}
  - name: typo
    type: infra.datbase
    config: {provider: here}
  - name: there
    type: iac.provider
    config: {provider: locl}
";
    let (code, said) = validate(config, None);
    assert_eq!(code, 2, "{said}");
    for expected in [
        "`root` of `iac.provider` of the provider `local` must be text, not a number",
        "infra.yaml:4:37",
        "must be a number from 0 to 65535",
        "must be one of disable, prefer",
        "must be one of pg, postgres",
        "`command` of `infra.container_service` of the provider `local` must be a list, not text",
        "`health_check` of `infra.container_service` of the provider `local` must be a map",
        "the `local` provider has no `infra.datbase`",
        "infra.yaml:12:11",
        "there is no provider `locl`; did you mean `local`?",
        "infra.yaml:16:24",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let right = "\
modules:
  - {name: here, type: iac.provider, config: {provider: local, root: \"${ROOT:-./r}\", postgres: {port: \"5432\"}}}
  - {name: web, type: infra.container_service, config: {provider: here, command: [./web], http_port: 0}}
";
    let (code, said) = validate(right, None);
    assert_eq!(code, 0, "{said}");
}

fn validate(config: &str, plugin: Option<&str>) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("infra.yaml"), config).unwrap();
    if let Some(schema) = plugin {
        let at = folder.path().join("data/plugins/files");
        fs::create_dir_all(&at).unwrap();
        // No executable: nothing is started.
        let manifest = format!(
            r#"{{"name": "files", "version": "1.0.0", "author": "a", "description": "d",
            "capabilities": {{"iacProvider": {{"name": "files", "computePlanVersion": "v2"{schema}}}}}}}"#
        );
        fs::write(at.join("plugin.json"), manifest).unwrap();
    }
    let run = Run::new(folder.path(), &["config", "validate"]).output();
    (run.code(), run.stderr())
}

#[test]
fn settings_the_local_provider_does_not_have_are_found_before_anything_is_opened() {
    let (code, said) = validate(CONFIG, None);
    assert_eq!(code, 2, "{said}");
    for expected in [
        "no setting `rooot`",
        "infra.yaml:4:42",
        "did you mean `root`?",
        "`postgres` of `iac.provider` of the provider `local` has no setting `hosst`",
        "did you mean `host`?",
        // Of another environment than the first: found where it is written.
        "no setting `aclx`",
        "infra.yaml:11:11",
        "no setting `engin`",
        "did you mean `engine`?",
        "no setting `image`",
        "runs a command, not an image",
        "no setting `pth`",
        "did you mean `path`?",
    ] {
        assert!(said.contains(expected), "{expected}:\n{said}");
    }
    assert_eq!(said.matches("error[").count(), 6, "{said}");

    let right = CONFIG
        .replace(", rooot: ./x, postgres: {hosst: a}", "")
        .replace("          aclx: public", "          size: m")
        .replace("engin:", "engine:")
        .replace("      image: web:1\n", "")
        .replace(", pth: /x", "");
    let (code, said) = validate(&right, None);
    assert_eq!(code, 0, "{said}");
    let (code, said) = validate(&right.replace(", root: ./r", ""), None);
    assert!(
        code == 2 && said.contains("needs the setting `root`"),
        "{said}"
    );
}

#[test]
fn settings_of_a_plugin_are_held_to_the_schema_it_ships() {
    let config = "modules: [{name: c, type: iac.provider, config: {provider: files, regon: here, env: [X]}}, {name: s, type: infra.storage, config: {provider: c, anything: 1}}]\n";
    let schema = r#", "configSchema": {"properties": {"region": {}, "root": {}}, "required": ["root"], "additionalProperties": false}"#;
    let (code, said) = validate(config, Some(schema));
    assert_eq!(code, 2, "{said}");
    for expected in [
        "no setting `regon`",
        "did you mean `region`?",
        "needs the setting `root`",
    ] {
        assert!(said.contains(expected), "{expected}:\n{said}");
    }
    assert_eq!(said.matches("error[").count(), 2, "{said}");
    // One that says nothing, or lets others in, or cannot be read, is not guessed at.
    for schema in [
        "",
        r#", "configSchema": {"properties": {"region": {}}}"#,
        r#", "configSchema": "region root""#,
    ] {
        let (code, said) = validate(config, Some(schema));
        assert_eq!(code, 0, "{schema}: {said}");
    }
    let (code, _) = validate(config, None);
    assert_eq!(code, 0, "not installed yet");
}
