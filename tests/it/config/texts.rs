//! Texts, variables and what is secret.

use super::*;

/// One resource with this `config`, as public JSON.
#[track_caller]
fn config_of(case: Case) -> serde_json::Value {
    public(&case.config(), "/resources/0/config")
}

fn storage(config: &str) -> Case {
    modules(&format!(
        "  - {{name: a, type: infra.storage, config: {{provider: cloud, {config}}}}}\n  - {{name: db, type: infra.database, config: {{provider: cloud}}}}\n"
    ))
}

#[test]
fn dollars() {
    for (written, expected) in [
        ("'${A}'", "1"),
        ("'x-${A}-${B:-two}-y'", "x-1-two-y"),
        ("'${A:-other}'", "1"),
        ("'${EMPTY}'", ""),
        ("'${EMPTY:-full}'", "full"),
        ("'${NONE:-}'", ""),
        ("'$${A}'", "${A}"),
        ("'$$${A}'", "$$1"),
        ("'costs 5$'", "costs 5$"),
        ("'$HOME'", "$HOME"),
        ("'$$HOME'", "$$HOME"),
        ("'${db.uri}'", "${db.uri}"),
        ("'a ${db.uri} b ${A}'", "a ${db.uri} b 1"),
    ] {
        let case = storage(&format!("x: {written}"))
            .set("A", "1")
            .set("EMPTY", "");
        assert_eq!(config_of(case)["x"], expected, "{written}");
    }
    for (written, code) in [
        ("'${NONE}'", "config/unset-variable"),
        ("'${}'", "config/bad-expression"),
        ("'${.x}'", "config/bad-expression"),
        ("'${x.}'", "config/bad-expression"),
        ("'${db}'", "config/unset-variable"),
        ("'${a-b}'", "config/bad-expression"),
        ("'${A:?no}'", "config/bad-expression"),
        ("'${A'", "config/bad-expression"),
        ("'${nope.id}'", "config/unknown-module"),
        ("'${cloud.id}'", "config/not-a-resource"),
    ] {
        assert_eq!(
            codes(&storage(&format!("x: {written}"))),
            [code],
            "{written}"
        );
    }
}

#[test]
fn an_unset_variable_names_itself_and_its_key_and_its_place() {
    let case = storage("deep: {list: [a, 'x ${NOT_THERE} y']}");
    insta::assert_snapshot!(case.errors(), @r#"infra.yaml:3:82: config/unset-variable: the variable `NOT_THERE` is not set; `modules.a.config.deep.list[1]` needs it (not set)"#);
    let report = case.load().unwrap_err().remove(0);
    assert_eq!(report.at.unwrap().width, 12);
}

#[test]
fn a_bare_dollar_name_is_said_once() {
    let case = storage("x: 'echo $HOME $USER', y: '$HOME'").set("HOME", "/root");
    insta::assert_snapshot!(case.warnings(), @r#"infra.yaml:3:71: config/bare-variable: `$HOME` is kept as it is, not replaced by a variable"#);
    assert_eq!(config_of(case)["x"], "echo $HOME $USER");
}

#[test]
fn a_whole_reference_stays_one_part() {
    let config = storage("x: '${db.port}', y: 'p${db.port}'").config();
    let parts = |key: &str| match &config.resources[0].config[key] {
        Value::Template(template) => template.parts.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((parts("x"), parts("y")), (1, 2));
}

#[test]
fn what_is_secret_is_a_secret() {
    let shown = config_of(
        storage(
            "plain: '${PLACE}', by_name: '${DB_PASSWORD}', api_key: '${REGION}', password: hunter2, \
             joined: 'x ${DB_PASSWORD}', credentials: {user: '${REGION}'}, token_env: GH_TOKEN, \
             env_vars: {URL: '${db.uri}', API_TOKEN: '${REGION}'}, \
             env_vars_secret: {A: text, B: 1234, C: true, D: 'u:half-pw@${db.host}', E: ''}",
        )
        .set("PLACE", "fra1")
        .set("REGION", "fra1")
        .set("DB_PASSWORD", "pa55w0rd"),
    );
    insta::assert_snapshot!(pretty(&shown), @r#"
    {
      "api_key": "(secret)",
      "by_name": "(secret)",
      "credentials": {
        "user": "(secret)"
      },
      "env_vars": {
        "API_TOKEN": "(secret)",
        "URL": "${db.uri}"
      },
      "env_vars_secret": {
        "A": "(secret)",
        "B": "(secret)",
        "C": "(secret)",
        "D": "(secret)${db.host}",
        "E": ""
      },
      "joined": "(secret)",
      "password": "(secret)",
      "plain": "fra1",
      "token_env": "GH_TOKEN"
    }
    "#);
    assert!(!shown.to_string().contains("half-pw"));
}

#[test]
fn a_variable_that_is_a_secret_somewhere_is_one_everywhere() {
    let shown = config_of(
        storage(
            "url: 'https://x/?q=${WORD}', word: ['${WORD}', '${OTHER}'], same: my-word, \
             mixed: 'a ${WORD} ${db.uri}', engine: written-out, \
             later: {env_vars: {B: 'x written-out y'}, env_vars_secret: {A: '${WORD}', B: written-out}}",
        )
        .set("WORD", "my-word")
        .set("OTHER", "other-word"),
    );
    insta::assert_snapshot!(pretty(&shown), @r#"
    {
      "engine": "written-out",
      "later": {
        "env_vars": {
          "B": "(secret)"
        },
        "env_vars_secret": {
          "A": "(secret)",
          "B": "(secret)"
        }
      },
      "mixed": "(secret)${db.uri}",
      "same": "(secret)",
      "url": "(secret)",
      "word": [
        "(secret)",
        "other-word"
      ]
    }
    "#);
}

#[test]
fn declared_secrets_stay_names_even_when_a_variable_has_that_name() {
    // T9: what is fetched during the run is not what the plan sees.
    let text = "
secrets:
  generate: [{key: SESSION, type: random_hex}]
  entries: [{name: SMTP}]
modules:
  - {name: cloud, type: iac.provider, config: {provider: local, key: '${SMTP}'}}
  - {name: more, type: secrets.generate, config: {generate: [{key: odd-name.x, type: random_base64}]}}
  - name: a
    type: infra.storage
    config: {provider: cloud, env_vars_secret: {S: '${SESSION}', M: 'x${SMTP}'}, o: '${odd-name.x}'}
";
    let config = case(text).set("SMTP", "from-outside").config();
    let parts = |value: &Value| match value {
        Value::Template(template) => template
            .parts
            .iter()
            .map(|part| match part {
                Part::Declared(name) => name.clone(),
                Part::Unset(name) => format!("unset {name}"),
                Part::Literal(text) => format!("'{text}'"),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let secrets = match &config.resources[0].config["env_vars_secret"] {
        Value::Map(map) => map,
        other => panic!("{other:?}"),
    };
    assert_eq!(parts(&secrets["S"]), ["SESSION"]);
    assert_eq!(parts(&secrets["M"]), ["'x'", "SMTP"]);
    assert_eq!(parts(&config.resources[0].config["o"]), ["odd-name.x"]);
    assert!(matches!(
        config.providers.values().next().unwrap().config["key"],
        Value::Template(_)
    ));
}

#[test]
fn references_work_outside_environment_variables() {
    // T10: upstream empties them.
    let config = storage("x: {y: ['${db.uri}']}").config();
    assert_eq!(public(&config, "/resources/0/config/x/y/0"), "${db.uri}");
    assert_eq!(config.resources[0].depends_on.len(), 1);
}

#[test]
fn no_secret_value_is_in_any_report_or_debug_text() {
    let case = storage("x: '${DB_PASSWORD} ${NONE}', depends_on: ['${DB_PASSWORD}']")
        .set("DB_PASSWORD", "pa55w0rd-1234");
    let reports = case.load().unwrap_err();
    assert!(!format!("{reports:?}").contains("pa55w0rd"), "{reports:?}");
    let text = "  - name: a\n    type: infra.storage\n    config:\n      provider: cloud\n      x: 'a ${DB_PASSWORD}'\n      password: pa55w0rd-1234\n";
    let config = modules(text).set("DB_PASSWORD", "pa55w0rd-1234").config();
    assert!(!format!("{config:?}").contains("pa55w0rd"));
    assert!(!config::to_public_yaml(&config).contains("pa55w0rd"));
    assert!(config::to_public_yaml(&config).contains("(secret)"));
}
