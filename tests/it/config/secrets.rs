//! Declared secrets and the stores they come from.

use super::*;

#[test]
fn stores_are_chosen() {
    let store = |text: &str, environment: Option<&str>| {
        let mut case = case(text);
        case.environment = environment.map(str::to_owned);
        let config = case.config();
        let name = config.entries[0].store.clone();
        let provider = config.secret_stores[&name].provider.clone();
        (name, provider)
    };
    let own = |name: &str, provider: &str| (name.to_owned(), provider.to_owned());
    assert_eq!(
        store("secrets: {entries: [{name: A}]}", None),
        own("env", "env")
    );
    assert_eq!(
        store(
            "secrets: {provider: github-actions, entries: [{name: A}]}",
            None
        ),
        own("default", "github")
    );
    let named = "
secretStores: {one: {provider: vault}, two: {provider: aws-secrets-manager}}
environments: {dev: {secretsStoreOverride: two}, prod: {}}
secrets: {defaultStore: one, entries: [{name: A}], generate: [{key: K, type: random_hex}]}
";
    assert_eq!(store(named, None), own("one", "vault"));
    assert_eq!(store(named, Some("dev")), own("two", "aws"));
    assert_eq!(
        store(&named.replace("{name: A}", "{name: A, store: file}"), None),
        own("file", "file")
    );
    // Named stores alone: whatever names no store uses the default one.
    assert_eq!(
        case(named).config().secret_stores["default"].provider,
        "vault"
    );
}

#[test]
fn mistakes_of_secrets() {
    for (text, expected) in [
        (
            "secrets: {entries: [{name: A, store: nope}]}",
            vec!["config/unknown-store"],
        ),
        (
            "secrets: {defaultStore: nope}",
            vec!["config/unknown-store"],
        ),
        ("secrets: {provider: gcp}", vec!["config/bad-value"]),
        ("secrets: {config: {repo: a}}", vec!["config/missing-key"]),
        (
            "secrets: {provider: env}\nsecretStores: {default: {provider: env}}",
            vec!["config/duplicate-name"],
        ),
        (
            "secrets: {entries: [{name: A}, {name: A}]}",
            vec!["config/duplicate-name"],
        ),
        (
            "secrets: {entries: [{name: A}], generate: [{key: A, type: random_hex}]}",
            vec!["config/duplicate-name"],
        ),
        (
            "secrets: {generate: [{key: A, type: random_hx}]}",
            vec!["config/bad-value"],
        ),
        (
            "secrets: {generate: [{key: A, type: provider_credential}]}",
            vec!["config/missing-key", "config/missing-key"],
        ),
        (
            "secrets: {generate: [{key: A, type: provider_credential, source: spaces, name: n}]}",
            vec!["config/bad-value"],
        ),
        (
            "secrets: {generate: [{key: A, type: provider_credential, source: do.x, name: n, length: 3}]}",
            vec!["config/misplaced-key"],
        ),
        (
            "secrets: {generate: [{key: A, type: random_hex, name: n}]}",
            vec!["config/misplaced-key"],
        ),
        (
            "secrets: {generate: [{key: A, type: provider_credential, source: do.x, name: n}, {key: A_secret_key, type: random_hex}]}",
            vec!["config/duplicate-name"],
        ),
        (
            "secrets: {generate: [{key: A, type: random_hex, length: 0}]}",
            vec!["config/bad-value"],
        ),
        (
            "secrets: {generate: [{key: A, type: random_hex, source: a.b}]}",
            vec!["config/misplaced-key"],
        ),
        (
            "secrets: {generate: [{key: A, type: infra_output}]}",
            vec!["config/missing-key"],
        ),
        (
            "secrets: {generate: [{key: A, type: infra_output, source: nope.uri}]}",
            vec!["config/unknown-module"],
        ),
        (
            "secrets: {generate: [{key: A, type: infra_output, source: nodot}]}",
            vec!["config/bad-value"],
        ),
        (
            "secrets: {generate: [{key: '', type: random_hex}]}",
            vec!["config/bad-name"],
        ),
        (
            "secretStores: {a: {config: {x: 1}}}",
            vec!["config/missing-key"],
        ),
        (
            "secretStores: {a: {provider: env, config: {prefix: '${S}'}}}\nsecrets: {entries: [{name: S}]}",
            vec!["config/secret-too-early"],
        ),
    ] {
        assert_eq!(codes(&case(text)), expected, "{text}");
    }
}

#[test]
fn generated_secrets_are_read() {
    let config = modules(
        "  - {name: db, type: infra.database, config: {provider: cloud, name: prod-db}}
secrets:
  generate:
    - {key: A, type: random_hex, length: 16}
    - {key: B, type: random_base64}
    - {key: C, type: infra_output, source: db.uri, sinks: [{type: github_env, name: C}]}
",
    )
    .config();
    let sources: Vec<_> = config
        .generate
        .iter()
        .map(|item| item.source.clone())
        .collect();
    assert_eq!(sources[0], GenerateSource::RandomHex { length: 16 });
    assert_eq!(sources[1], GenerateSource::RandomBase64 { length: 32 });
    assert!(
        matches!(&sources[2], GenerateSource::InfraOutput { address, field }
        if address.as_str() == "prod-db" && field == "uri")
    );
    assert_eq!(config.generate[2].sinks.len(), 1);
}

/// Everything that a problem shows, excerpt and all.
fn shown(reports: &[Report]) -> String {
    reports
        .iter()
        .map(|report| format!("{report:?}\n"))
        .collect()
}

#[test]
fn a_written_out_secret_with_a_dollar_is_not_repeated() {
    for (config, code) in [
        (
            "env_vars_secret: {A: 'x$SuperSecretTail'}",
            "config/bare-variable",
        ),
        (
            "env_vars: {PASSWORD: 'x$SuperSecretTail'}",
            "config/bare-variable",
        ),
        (
            "env_vars_secret: {A: 'x${SuperSecretTail'}",
            "config/bad-expression",
        ),
        (
            "env_vars: {PASSWORD: 'x${SuperSecretTail'}",
            "config/bad-expression",
        ),
        (
            "env_vars_secret: {A: 'x${Super-SecretTail}'}",
            "config/bad-expression",
        ),
        (
            "env_vars_secret: {A: 'x${.SuperSecretTail}'}",
            "config/bad-expression",
        ),
    ] {
        let case = modules(&format!(
            "  - {{name: a, type: infra.container_service, config: {{provider: cloud, {config}}}}}\n"
        ));
        let reports = match case.load() {
            Ok(loaded) => loaded.warnings,
            Err(errors) => errors,
        };
        assert_eq!(reports[0].code, code, "{config}");
        assert!(
            reports[0].message.contains("modules.a.config.env_vars"),
            "{}",
            reports[0].message
        );
        let shown = shown(&reports);
        for part in ["Super", "Secret", "Tail"] {
            assert!(!shown.contains(part), "{config}: {shown}");
        }
        assert!(
            shown.contains("***"),
            "the rest of the line is shown: {shown}"
        );
    }
    // Where no secret stands, the text itself helps most.
    let plain = modules(
        "  - {name: a, type: infra.container_service, config: {provider: cloud, x: '${SuperTail'}}\n",
    );
    assert!(shown(&plain.load().unwrap_err()).contains("`${SuperTail`"));
}

#[test]
fn a_file_that_is_refused_early_shows_no_secret() {
    let service = |rest: &str| {
        format!(
            "modules:\n  - {{name: s, type: infra.container_service, config: {{provider: cloud}}, {rest}}}\n"
        )
    };
    for text in [
        // A mistake of the shape, on the same line.
        service("typ: x, config2: {env_vars_secret: {A: 'SuperSecretTail'}}"),
        service("typ: x, environments: {dev: {config: {env_vars: {API_TOKEN: 'SuperSecretTail'}}}}"),
        // The key of the map is misspelt.
        service("typ: x, config2: {env_var_secret: {A: 'SuperSecretTail'}}"),
        service("typ: x, config2: {password: 0123456789}"),
        // No YAML: a brace too few, a quote too many.
        "modules:\n  - {name: s, config: {env_vars_secret: {A: \"SuperSecretTail\"}\n".to_owned(),
        "modules:\n  - name: s\n    config:\n      env_vars_secret:\n        A: \"x\"SuperSecretTail\"\n"
            .to_owned(),
        "modules:\n  - name: s\n    config: {env_vars_secret: {\nA: \"x\"SuperSecretTail\" }}\n".to_owned(),
        // A gate.
        "pipelines: {p: {steps: [{name: g, type: deploy_verify, config: {url: 'http://a', timeout: never, headers: {X-Api-Key: 'SuperSecretTail'}}}]}}\n"
            .to_owned(),
        // A mistake that is found while the text is still being read.
        "x-a: {password: SuperSecretTail, b: !Ref c}\n".to_owned(),
        "x-a: {password: SuperSecretTail, b: 1, b: 2}\n".to_owned(),
    ] {
        let errors = case(&text).load().unwrap_err();
        let shown = shown(&errors);
        for secret in ["SuperSecretTail", "0123456789"] {
            assert!(!shown.contains(secret), "{text}\n{shown}");
        }
    }
    // Places and everything that is no secret stay.
    let errors = case(service("config2: {password: 'SuperSecretTail'}"))
        .load()
        .unwrap_err();
    let span = errors[0].at.as_ref().unwrap();
    assert!(
        span.excerpt.contains("config2: {password: ***}"),
        "{}",
        span.excerpt
    );
}

#[test]
fn a_secret_of_a_refused_file_is_known_to_the_masker() {
    let case = case(
        "modules: [{nam: x}]\nx-a: {password: SuperSecretTail, env_vars_secret: {A: OtherSecretTail}}\n",
    );
    let masked = case.with(|path, environment, files, variables, masker| {
        config::load(path, environment, files, variables, masker).unwrap_err();
        masker.mask("a SuperSecretTail b OtherSecretTail")
    });
    assert_eq!(masked, "a *** b ***");
}

#[test]
fn a_file_that_is_no_config_is_not_quoted() {
    for bytes in [
        &b"GH_TOKEN=ghp_0123456789\0A=1\0"[..],
        b"machine a.test login x passwd ghp_0123456789\n",
        b"- ghp_0123456789\n",
        b"GH=ghp_0123456789\xff\n",
    ] {
        let errors = case("imports: [other]\n")
            .file("other", bytes)
            .load()
            .unwrap_err();
        assert_eq!(errors[0].at.as_ref().unwrap().path, Path::new("other"));
        assert!(!shown(&errors).contains("ghp_"), "{}", shown(&errors));
    }
}
