//! Everything at once: many mistakes, every key, every file.

use super::*;

#[test]
fn ten_mistakes_are_ten_reports_at_their_places() {
    let case = case(fixture("ten-mistakes.yaml"));
    insta::assert_snapshot!(case.errors(), @r#"
    infra.yaml:4:10: config/unknown-key: environment has no key `regoin` (did you mean `region`?)
    infra.yaml:13:16: config/wrong-type: `protected` must be true or false, and here is text (expected true or false)
    infra.yaml:14:24: config/unknown-provider: there is no provider module `clowd` (did you mean `cloud`?)
    infra.yaml:20:40: config/unset-variable: the variable `IMAGE_TAG` is not set; `modules.shop.config.image` needs it (not set)
    infra.yaml:21:20: config/unknown-module: `shop` depends on `order-db`, and no module has that name (did you mean `orders-db`?)
    infra.yaml:23:7: config/duplicate-key: the key `port` stands here twice
    infra.yaml:27:13: config/sink-needs-sensitive: the output `live_url` of `shop` has sinks and is not `sensitive: true`
    infra.yaml:38:27: config/cycle: resources wait for each other: worker -> queue -> worker (this closes the circle)
    infra.yaml:40:11: config/duplicate-name: the module `shop` is declared twice (declared again here)
    infra.yaml:51:19: config/bad-value: `method` cannot be `FETCH`
    "#);
    let reports = case.load().unwrap_err();
    assert_eq!(reports.len(), 10);
    for report in &reports {
        let span = report.at.as_ref().unwrap();
        let covered: String = span
            .excerpt
            .chars()
            .skip(span.column as usize - 1)
            .take(span.width as usize)
            .collect();
        assert_eq!(covered.chars().count(), span.width as usize, "{report:?}");
        assert!(!covered.trim().is_empty(), "{report:?}");
        assert!(
            !report.fix.is_empty() || !report.label.is_empty(),
            "{report:?}"
        );
    }
    let mut codes: Vec<_> = reports.iter().map(|report| report.code).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), 10, "ten different kinds");
}

#[test]
fn the_document_that_uses_every_key_loads_in_each_of_its_environments() {
    let text = fixture("good/everything.yaml");
    for environment in ["dev", "staging", "prod"] {
        let config = case(&text).environment(environment).config();
        assert_eq!(config.environment, environment);
        assert_eq!(config.gates.len(), 2);
        assert_eq!(config.generate.len(), 5);
        assert_eq!(config.entries.len(), 3);
    }
    let text = String::from_utf8(text).unwrap();
    // `preview` leaves the database out, and others still refer to it.
    assert_eq!(
        codes(&case(&text).environment("preview")),
        ["config/absent-module"]
    );
}

#[test]
fn every_problem_of_every_file_is_reported() {
    let case = case("imports: [a.yaml, b.yaml]\nmodulez: []\n")
        .file("a.yaml", "modules: 7\n")
        .file("b.yaml", "infra: {auto_bootstrap: 3}\n");
    insta::assert_snapshot!(case.errors(), @r#"
    infra.yaml:2:1: config/unknown-key: the config has no key `modulez` (did you mean `modules`?)
    a.yaml:1:10: config/wrong-type: `modules` must be a list, and here is a number (expected a list)
    b.yaml:1:25: config/wrong-type: `auto_bootstrap` must be true or false, and here is a number (expected true or false)
    "#);
}

#[test]
fn check_says_what_environments_share_once() {
    let case = case(
        "environments: {dev: {}, prod: {}}\n\
         modules:\n\
         - {name: cloud, type: iac.provider, config: {provider: local}}\n\
         - {name: a, type: infra.storage, config: {provider: cloud, x: '${NOT_SET}'},\n\
         \x20  environments: {prod: {config: {y: '${b.id}'}}}}\n",
    );
    let reports = case.check().unwrap_err();
    insta::assert_snapshot!(plain(&reports), @r#"
    infra.yaml:4:64: config/unset-variable: the variable `NOT_SET` is not set; `modules.a.config.x` needs it (not set)
    infra.yaml:5:41: config/unknown-module: `modules.a.config.y` refers to `b`, and no module has that name (no such module)
    "#);
    let good = Case {
        variables: Vec::new(),
        ..Case::default()
    }
    .file("infra.yaml", fixture("good/everything.yaml"));
    assert_eq!(
        plain(&good.check().unwrap_err()).lines().count(),
        1,
        "preview"
    );
}
