//! One table for mistakes of names, types, providers and circles.

use super::environments::SHOP;
use super::*;

#[track_caller]
fn check(case: Case, expected: &str) {
    assert_eq!(case.errors(), expected);
}

#[test]
fn mistakes_of_environments() {
    check(
        case(SHOP).environment("pord"),
        "config/unknown-environment: there is no environment `pord`",
    );
    let report = case(SHOP).environment("prd").load().unwrap_err().remove(0);
    assert_eq!(
        report.fix,
        [
            "did you mean `prod`?",
            "known environments: dev, preview, prod"
        ]
    );
    assert_eq!(
        codes(&modules("").environment("dev")),
        ["config/unknown-environment"]
    );
}

#[test]
fn mistakes_of_names() {
    let storage = |name: &str, config: &str| {
        format!("  - {{name: {name}, type: infra.storage, config: {{provider: cloud{config}}}}}\n")
    };
    for (text, expected) in [
        (storage("''", ""), vec!["config/bad-name"]),
        (storage("'  '", ""), vec!["config/bad-name"]),
        (storage("\"a\\nb\"", ""), vec!["config/bad-name"]),
        (storage("'a${B}'", ""), vec!["config/bad-name"]),
        (storage("a", ", name: \"x\\ty\""), vec!["config/bad-name"]),
        (storage("a", ", name: 7"), vec!["config/wrong-type"]),
        (
            storage("a", "") + &storage("a", ""),
            vec!["config/duplicate-name"],
        ),
        (
            storage("a", "") + &storage("b", ", name: a"),
            vec!["config/duplicate-name"],
        ),
        (storage("cloud", ""), vec!["config/duplicate-name"]),
        (
            storage("a", ", name: b")
                + &storage("b", ", name: c")
                + &storage("d", ", x: '${b.id}'"),
            vec!["config/ambiguous-name"],
        ),
    ] {
        assert_eq!(codes(&modules(&text)), expected, "{text}");
    }
    let clash = modules(&(storage("a", "") + &storage("b", ", name: a")))
        .load()
        .unwrap_err();
    assert_eq!(
        clash[0].message,
        "`a` and `b` are both called `a` in this environment"
    );
    assert_eq!(clash[0].because, ["`a` is at infra.yaml:3:12"]);
}

/// What is found once is not looked for again: names are compared for as long as that helps somebody.
#[test]
fn one_misspelt_provider_is_told_as_well_to_the_last_module_as_to_the_first() {
    let providers: String = (0..700)
        .map(|n| {
            format!("  - {{name: other{n}, type: iac.provider, config: {{provider: local}}}}\n")
        })
        .collect();
    let resources: String = (0..400)
        .map(|n| format!("  - {{name: a{n}, type: infra.storage, config: {{provider: cluod}}}}\n"))
        .collect();
    let problems = modules(&(providers + &resources)).load().unwrap_err();
    assert_eq!(problems.len(), 400);
    for problem in [&problems[0], &problems[399]] {
        assert_eq!(problem.code, "config/unknown-provider");
        let label = &problem.at.as_ref().unwrap();
        assert!(!label.excerpt.is_empty());
        let text = format!("{problem:?}");
        assert!(text.contains("did you mean `cloud`?"), "{text}");
    }
    assert_ne!(problems[0].at, problems[399].at);
}

#[test]
fn a_path_that_is_not_text_is_refused_before_anything_is_read() {
    use std::os::unix::ffi::OsStrExt as _;
    let path = Path::new(std::ffi::OsStr::from_bytes(b"caf\xe9.yaml"));
    let problems = Case::default()
        .with(|_, environment, files, variables, masker| {
            config::load(path, environment, files, variables, masker)
        })
        .unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].code, "config/path");
    assert_eq!(problems[0].exit, Exit::Usage);
}

#[test]
fn mistakes_of_providers_and_types() {
    for (text, expected) in [
        (
            "  - {name: a, type: infra.storage}\n",
            vec!["config/no-provider"],
        ),
        (
            "  - {name: a, type: infra.storage, config: {provider: cluod}}\n",
            vec!["config/unknown-provider"],
        ),
        (
            "  - {name: a, type: infra.storage, config: {provider: [x]}}\n",
            vec!["config/wrong-type"],
        ),
        (
            "  - {name: a, type: infra.storage, config: {provider: a}}\n",
            vec!["config/unknown-provider"],
        ),
        (
            "  - {name: a, type: infar.storage, config: {provider: cloud}}\n",
            vec!["config/bad-value"],
        ),
        (
            "  - {name: a, type: iac.stat, config: {}}\n",
            vec!["config/bad-value"],
        ),
        (
            "  - {name: a, type: iac.other, config: {}}\n",
            vec!["config/bad-value"],
        ),
        (
            "  - {name: a, type: iac.provider}\n",
            vec!["config/missing-key"],
        ),
        (
            "  - {name: a, type: iac.provider, config: {provider: local, x: '${b.id}'}}\n",
            vec!["config/reference-out-of-place"],
        ),
        (
            "  - {name: a, type: iac.state, config: {backend: filesytem}}\n",
            vec!["config/bad-value"],
        ),
        (
            "  - {name: a, type: iac.state, config: {directry: x}}\n",
            vec!["config/unknown-key"],
        ),
        (
            "  - {name: a, type: iac.state, config: {ephemeral: maybe}}\n",
            vec!["config/wrong-type"],
        ),
        (
            "  - {name: a, type: iac.state}\n  - {name: b, type: iac.state}\n",
            vec!["config/several-states"],
        ),
        (
            "  - {name: a, type: infra.storage, config: {provider: cloud}}\n  - {name: b, type: platform.kubernetes}\n",
            vec!["config/mixed-generations"],
        ),
        (
            "  - {name: a, type: iac.provider, config: {provider: local}, outputs: {x: {}}}\n",
            vec!["config/misplaced-key"],
        ),
        (
            "  - {name: a, type: infra.storage, config: {provider: cloud, depends_on: b}}\n",
            vec!["config/wrong-type"],
        ),
        (
            "  - {name: a, type: infra.storage, config: {provider: cloud, adopt_existing: yes}}\n",
            vec!["config/wrong-type"],
        ),
        (
            "  - {name: a, type: infra.storage, config: {provider: cloud, mode: 0644}}\n",
            vec!["config/ambiguous-number"],
        ),
        (
            "  - {nmae: a, type: infra.storage}\n",
            vec!["config/unknown-key"],
        ),
        ("  - {type: infra.storage}\n", vec!["config/missing-key"]),
        (
            "  - {name: , type: infra.storage}\n",
            vec!["config/missing-value"],
        ),
        ("  - [a]\n", vec!["config/wrong-type"]),
    ] {
        assert_eq!(codes(&modules(text)), expected, "{text}");
    }
}

#[test]
fn a_state_of_another_environment_is_no_second_state() {
    let text = "
  - {name: a, type: iac.state, environments: {prod: null}}
  - {name: b, type: iac.state, config: {backend: memory}, environments: {dev: null}}
environments: {dev: {}, prod: {}}
";
    for (environment, backend) in [("dev", "filesystem"), ("prod", "memory")] {
        let state = modules(text)
            .environment(environment)
            .config()
            .state
            .unwrap();
        assert_eq!(state.backend, backend);
    }
    assert_eq!(codes(&modules(text)), ["config/several-states"]);
}

#[test]
fn circles_show_their_path() {
    let text = "
  - {name: a, type: infra.storage, config: {provider: cloud, x: '${b.id}'}}
  - {name: b, type: infra.storage, dependsOn: [c], config: {provider: cloud}}
  - {name: c, type: infra.storage, config: {provider: cloud, depends_on: [a]}}
  - {name: d, type: infra.storage, config: {provider: cloud, x: '${d.id}'}}
";
    insta::assert_snapshot!(modules(text).errors(), @r#"
    infra.yaml:6:75: config/cycle: resources wait for each other: a -> b -> c -> a (this closes the circle)
    infra.yaml:7:66: config/cycle: resources wait for each other: d -> d (this closes the circle)
    "#);
}
