//! What an environment changes, and what it does not.

use super::*;

pub(super) const SHOP: &str = "
environments: {dev: {}, prod: {region: ams3, provider: far, envVars: {LOG: info, KEEP: no}}}
modules:
  - {name: cloud, type: iac.provider, config: {provider: local}}
  - {name: far, type: iac.provider, config: {provider: local}}
  - name: db
    type: infra.database
    config: {provider: cloud, engine: sqlite, tags: [a, b], deep: {x: 1, y: {z: 2}}}
    environments:
      prod: {provider: far, config: {name: prod-db, tags: [c], deep: {y: {w: 3}, x: null}}}
      preview: null
  - name: web
    type: infra.container_service
    dependsOn: [db]
    config: {iac_provider: cloud, url: '${db.uri}', env_vars: {KEEP: mine}}
  - name: lone
    type: infra.storage
    dependsOn: [prod-db]
    environments: {prod: {}, dev: {config: {provider: cloud}}}
";

#[test]
fn an_environment_changes_what_it_says_and_nothing_else() {
    let prod = case(SHOP).environment("prod").config();
    assert_eq!(resolved_names(&prod), ["prod-db", "web", "lone"]);
    let db = &prod.resources[0];
    assert_eq!((db.base_name.as_str(), db.provider.as_str()), ("db", "far"));
    assert_eq!(
        public(&prod, "/resources/0/config"),
        serde_json::json!({
            "engine": "sqlite", "tags": ["c"], "deep": {"x": null, "y": {"z": 2, "w": 3}},
            "region": "ams3",
        })
    );
    // The environment's region, provider and variables reach the config (T19), also of a module
    // without one.
    assert_eq!(
        public(&prod, "/resources/1/config"),
        serde_json::json!({
            "region": "ams3", "url": "${prod-db.uri}",
            "env_vars": {"KEEP": "mine", "LOG": "info"},
        })
    );
    assert_eq!(prod.resources[2].provider.as_str(), "far");

    let dev = codes(&case(SHOP).environment("dev"));
    assert_eq!(
        dev,
        ["config/unknown-module"],
        "`prod-db` is no name in dev"
    );
}

#[test]
fn without_an_environment_nothing_is_overridden() {
    let text = SHOP.replace("[prod-db]", "[db]").replace(
        "type: infra.storage",
        "type: infra.storage\n    config: {provider: cloud}",
    );
    let config = case(text).config();
    assert_eq!(config.environment, "default");
    assert_eq!(resolved_names(&config), ["db", "web", "lone"]);
    assert_eq!(
        public(&config, "/resources/0/config/tags"),
        serde_json::json!(["a", "b"])
    );
}

#[test]
fn both_dependency_keys_and_references_make_edges_under_resolved_names() {
    // T1 and T2: `dependsOn`, `depends_on` and references, by base and by resolved name.
    let text = "
  - {name: a, type: infra.storage, config: {provider: cloud, name: a-1}}
  - {name: b, type: infra.storage, config: {provider: cloud, name: b-1}}
  - {name: c, type: infra.storage, config: {provider: cloud, name: c-1}}
  - name: d
    type: infra.storage
    dependsOn: [a]
    config: {provider: cloud, depends_on: [b-1, cloud], note: 'see ${c.id} and ${a-1.id}'}
";
    let config = modules(text).config();
    let edges: Vec<&str> = config.resources[3]
        .depends_on
        .iter()
        .map(|address| address.as_str())
        .collect();
    assert_eq!(edges, ["a-1", "b-1", "c-1"]);
    let note = public(&config, "/resources/3/config/note");
    assert_eq!(note, "see ${c-1.id} and ${a-1.id}");
    assert!(!config.resources[3].config.contains_key("depends_on"));
}

#[test]
fn a_name_is_lifted_in_every_environment_alike() {
    let text = "
  - {name: a, type: infra.storage, config: {provider: cloud, name: 'shop-${WORKFLOW_ENV:-base}-a'}}
environments: {dev: {}}
";
    assert_eq!(resolved_names(&modules(text).config()), ["shop-base-a"]);
    assert_eq!(
        resolved_names(&modules(text).environment("dev").config()),
        ["shop-dev-a"]
    );
}

#[test]
fn names_are_data() {
    // T22: names that a careless store would mix up are different names here.
    let config = modules(
        "  - {name: ../../etc, type: infra.storage, config: {provider: cloud}}
  - {name: a/b, type: infra.storage, config: {provider: cloud}}
  - {name: a_b, type: infra.storage, config: {provider: cloud, x: '${../../etc.id}', y: '${a.b.c.id}'}}
  - {name: a.b, type: infra.storage, config: {provider: cloud}}
  - {name: a.b.c, type: infra.storage, config: {provider: cloud}}
",
    )
    .config();
    assert_eq!(
        resolved_names(&config),
        ["../../etc", "a/b", "a_b", "a.b", "a.b.c"]
    );
    let edges: Vec<_> = config.resources[2]
        .depends_on
        .iter()
        .map(|a| a.as_str())
        .collect();
    assert_eq!(edges, ["../../etc", "a.b.c"], "the longest name wins");
}

#[test]
fn protection_and_adoption() {
    let config = modules(
        "  - {name: a, type: infra.storage, protected: true, config: {provider: cloud, adopt_existing: true}}
  - {name: b, type: infra.storage, config: {provider: cloud, protected: true}}
  - {name: c, type: infra.storage, config: {provider: cloud}}
",
    )
    .config();
    let flags: Vec<_> = config
        .resources
        .iter()
        .map(|r| {
            (
                r.protected,
                r.adopt_existing,
                r.config.contains_key("protected"),
                r.config.len(),
            )
        })
        .collect();
    assert_eq!(
        flags,
        [
            (true, true, true, 1),
            (true, false, true, 1),
            (false, false, false, 0)
        ]
    );
}
