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

#[test]
fn what_needs_nobody_to_be_found_is_found_by_validating() {
    let config = "\
modules:
  - {name: here, type: iac.provider, config: {provider: local, root: ./r}}
  - name: a
    type: infra.container_service
    config: {provider: here}
  - name: b
    type: infra.container_service
    config: {provider: here, command: []}
  - name: c
    type: infra.container_service
    config:
      provider: here
      command: [sleep, {}]
      env_vars:
        A: null
        B: {c: d}
        \"E=F\": g
        \"\": x
        PORT: \"1\"
  - name: state
    type: iac.state
    config:
      backend: filesystem
      directory: 1
      foo: 2
secretStores:
  f: {provider: file}
  g:
    provider: github
    config: {repo: x, zz: 1}
  e:
    provider: env
    config: {foo: 1}
  unused: {provider: file}
secrets: {entries: [{name: A, store: f}, {name: B, store: g}, {name: C, store: e}]}
pipelines: {p: {steps: [{name: s, type: deploy_verify, config: {url: 'http://127.0.0.1:99999/'}}]}}
";
    let (code, said) = validate(config, None);
    assert_eq!(code, 2, "{said}");
    for (what, place) in [
        ("`a`: `command`: it is missing", "infra.yaml:3:11"),
        ("`b`: `command`: it names no program", "infra.yaml:8:30"),
        ("`c`: `command[1]`: it must be text", "infra.yaml:13:24"),
        ("`c`: `env_vars.A`: it must be text", "infra.yaml:15:9"),
        ("`c`: `env_vars.B`: it must be text", "infra.yaml:16:9"),
        ("`c`: `env_vars.E=F`: a variable's name", "infra.yaml:17:9"),
        ("`c`: `env_vars.`: a variable's name", "infra.yaml:18:9"),
        ("`PORT` is set by the provider", "infra.yaml:19:9"),
        ("`directory` of `iac.state` must be text", "infra.yaml:24:7"),
        (
            "secret store `f` needs the option `path`",
            "infra.yaml:27:3",
        ),
        ("`x` is not a repository", "infra.yaml:30:14"),
        ("has no option `zz`", "infra.yaml:30:23"),
        ("has no option `foo`", "infra.yaml:33:14"),
        ("the port", "infra.yaml:36:70"),
    ] {
        let block = said
            .split("\n\n")
            .flat_map(|part| part.split("error["))
            .find(|block| block.contains(what));
        assert!(
            block.is_some_and(|block| block.contains(place)),
            "{what} at {place}:\n{said}"
        );
    }
    assert!(!said.contains("unused"), "nothing is kept there:\n{said}");
}

#[test]
fn a_state_without_what_its_backend_needs_is_found_by_validating() {
    for (settings, expected) in [
        ("backend: postgres, project: p", "needs a `dsn`"),
        (
            "backend: postgres, dsn: 'postgres://h/d'",
            "needs a `project`",
        ),
        (
            "backend: postgres, dsn: 'postgres://h/d', connection_string: x, project: p",
            "has both `dsn` and `connection_string`",
        ),
        ("backend: postgres, dsn: 1, project: p", "must be text"),
        ("backend: s3, bucket: b", "needs a `project`"),
        ("encrypt: 'yes'", "`encrypt` must be true or false"),
        ("key_file: 1", "`key_file` of `iac.state` must be text"),
    ] {
        let config = format!("modules: [{{name: st, type: iac.state, config: {{{settings}}}}}]\n");
        let (code, said) = validate(&config, None);
        assert_eq!(code, 2, "{settings}: {said}");
        assert!(said.contains(expected), "{settings}: {said}");
        assert_eq!(said.matches("error[").count(), 1, "{settings}: {said}");
    }
    for settings in [
        "backend: postgres, dsn: 'postgres://h/d', project: p",
        "backend: s3, bucket: b, prefix: x",
        "backend: memory",
    ] {
        let config = format!("modules: [{{name: st, type: iac.state, config: {{{settings}}}}}]\n");
        let (code, said) = validate(&config, None);
        assert_eq!(
            (code, said.contains("warning")),
            (0, false),
            "{settings}: {said}"
        );
    }
    for (settings, typed, meant) in [
        ("path: ./st", "path", "directory"),
        ("directry: ./st", "directry", "directory"),
        (
            "backend: postgres, dsn: 'postgres://h/d', project: p, shema: x",
            "shema",
            "schema",
        ),
        (
            "backend: s3, bucket: b, prefx: x, project: p",
            "prefx",
            "prefix",
        ),
        (
            "backend: spaces, bucket: b, project: p, endpiont: x",
            "endpiont",
            "endpoint",
        ),
        (
            "backend: gcs, bucket: b, project: p, anonymus: true",
            "anonymus",
            "anonymous",
        ),
        (
            "backend: azure_blob, container: b, project: p, acount: x",
            "acount",
            "account",
        ),
    ] {
        let config = format!("modules: [{{name: st, type: iac.state, config: {{{settings}}}}}]\n");
        let (code, said) = validate(&config, None);
        assert_eq!(code, 2, "{settings}: {said}");
        for part in [
            format!("state has no setting `{typed}`"),
            format!("write `{meant}`"),
            format!("infra.yaml:1:{}", config.find(typed).unwrap() + 1),
        ] {
            assert!(said.contains(&part), "{part}: {said}");
        }
    }
    let (code, said) = validate(
        "modules: [{name: st, type: iac.state, config: {backend: s3, bucket: b, project: p, foo: 2}}]\n",
        None,
    );
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("the s3 state has no setting `foo`; it is ignored"),
        "{said}"
    );
    let (code, said) = validate(
        "modules: [{name: st, type: iac.state, config: {foo: 2}}]\n",
        None,
    );
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("the filesystem state has no setting `foo`; it is ignored")
            && said.contains("infra.yaml:1:48"),
        "{said}"
    );
}

#[test]
fn what_a_state_lacks_is_found_before_a_plugin_is_asked_to_prepare_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = "modules: [{name: st, type: iac.state, config: {backend: s3, bucket: b}}]\n";
    fs::write(folder.path().join("infra.yaml"), config).unwrap();
    for command in [&["infra", "bootstrap"][..], &["infra", "plan"], &["up"]] {
        let run = Run::new(folder.path(), command).output().expect_code(2);
        assert!(run.stderr().contains("state/project"), "{}", run.stderr());
    }
}

#[test]
fn a_type_that_an_installed_plugin_has_is_known() {
    let config = "\
modules:
  - {name: cloud, type: iac.provider, config: {provider: files}}
  - {name: a, type: infra.access_key, config: {provider: cloud}}
  - {name: b, type: infra.databse, config: {provider: cloud}}
";
    let types = r#", "resourceTypes": ["infra.access_key"]"#;
    for (manifest, warned) in [
        (Some(types), &["infra.databse"][..]),
        (Some(""), &["infra.access_key", "infra.databse"]),
        (None, &["infra.access_key", "infra.databse"]),
    ] {
        let (code, said) = validate(config, manifest);
        assert_eq!(code, 0, "{said}");
        for kind in ["infra.access_key", "infra.databse"] {
            assert_eq!(
                said.contains(&format!("`{kind}` is not a well-known resource type")),
                warned.contains(&kind),
                "{kind}: {said}"
            );
        }
    }
}
