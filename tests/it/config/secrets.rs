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
