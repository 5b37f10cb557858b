//! The config room, through its public door: files in, resolved config or every problem out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use proptest::prelude::*;
use tidegate::config::{
    self, Checked, Config, FILE_BYTES_MAX, Files, GenerateSource, Loaded, OnFailure, SinkTarget,
};
use tidegate::report::{Exit, Report, Severity};
use tidegate::resource::{Part, Value};
use tidegate::secret::Masker;
use tidegate::variables::Variables;

/// A few files in memory, variables, and an environment.
#[derive(Default)]
struct Case {
    files: BTreeMap<PathBuf, Vec<u8>>,
    variables: Vec<(String, String)>,
    environment: Option<String>,
}

fn case(text: impl AsRef<[u8]>) -> Case {
    Case::default().file("infra.yaml", text)
}

/// A config with a provider, and these modules.
fn modules(text: &str) -> Case {
    case(format!(
        "modules:\n  - {{name: cloud, type: iac.provider, config: {{provider: local}}}}\n{text}"
    ))
}

impl Case {
    fn file(mut self, path: &str, text: impl AsRef<[u8]>) -> Self {
        self.files.insert(path.into(), text.as_ref().to_vec());
        self
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn environment(mut self, name: &str) -> Self {
        self.environment = Some(name.to_owned());
        self
    }

    fn with<T>(
        &self,
        run: impl FnOnce(&Path, Option<&str>, Files<'_>, &Variables, &Masker) -> T,
    ) -> T {
        let read = |path: &Path| {
            self.files
                .get(path)
                .cloned()
                .ok_or_else(|| "No such file or directory".to_owned())
        };
        let canonical = |path: &Path| {
            self.files
                .contains_key(path)
                .then(|| path.to_path_buf())
                .ok_or_else(|| "No such file or directory".to_owned())
        };
        let files = Files {
            read: &read,
            canonical: &canonical,
        };
        let variables: Variables = self.variables.iter().cloned().collect();
        run(
            Path::new("infra.yaml"),
            self.environment.as_deref(),
            files,
            &variables,
            &Masker::default(),
        )
    }

    fn load(&self) -> Result<Loaded, Vec<Report>> {
        self.with(config::load)
    }

    fn check(&self) -> Result<Checked, Vec<Report>> {
        self.with(config::check)
    }

    #[track_caller]
    fn config(&self) -> Config {
        match self.load() {
            Ok(loaded) => loaded.config,
            Err(reports) => panic!("unexpected problems:\n{}", plain(&reports)),
        }
    }

    #[track_caller]
    fn errors(&self) -> String {
        match self.load() {
            Ok(_) => panic!("this should not load"),
            Err(reports) => {
                for report in &reports {
                    assert_eq!(report.severity, Severity::Error, "{report:?}");
                    assert_eq!(report.exit, Exit::Usage, "{report:?}");
                }
                plain(&reports)
            }
        }
    }

    #[track_caller]
    fn warnings(&self) -> String {
        plain(
            &self
                .load()
                .map_err(|reports| plain(&reports))
                .unwrap()
                .warnings,
        )
    }
}

/// `file:line:column: code: message (label)`, one a line.
fn plain(reports: &[Report]) -> String {
    reports
        .iter()
        .map(|report| {
            let place = report
                .at
                .as_ref()
                .map_or_else(String::new, |span| format!("{span}: "));
            let label = if report.label.is_empty() {
                String::new()
            } else {
                format!(" ({})", report.label)
            };
            format!("{place}{}: {}{label}", report.code, report.message)
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The codes of the errors, in order.
fn codes(case: &Case) -> Vec<&'static str> {
    case.load()
        .map(|_| Vec::new())
        .unwrap_or_else(|reports| reports.iter().map(|report| report.code).collect())
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/config")
            .join(name),
    )
    .unwrap()
}

fn resolved_names(config: &Config) -> Vec<&str> {
    config
        .resources
        .iter()
        .map(|resource| resource.address.as_str())
        .collect()
}

fn public(config: &Config, pointer: &str) -> serde_json::Value {
    config::to_public_json(config)
        .pointer(pointer)
        .unwrap_or_else(|| panic!("{pointer} in {}", config::to_public_json(config)))
        .clone()
}

fn pretty(json: &serde_json::Value) -> String {
    serde_json::to_string_pretty(json).unwrap()
}

// ---- everything at once ----

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

// ---- environments ----

const SHOP: &str = "
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

// ---- one table for mistakes ----

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

// ---- texts, variables, secrets ----

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
            "plain: '${REGION}', by_name: '${DB_PASSWORD}', api_key: '${REGION}', password: hunter2, \
             joined: 'x ${DB_PASSWORD}', credentials: {user: '${REGION}'}, token_env: GH_TOKEN, \
             env_vars: {URL: '${db.uri}', API_TOKEN: '${REGION}'}, \
             env_vars_secret: {A: text, B: 1234, C: true, D: 'u:half-pw@${db.host}', E: ''}",
        )
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

// ---- outputs and sinks ----

fn sinks(text: &str) -> Case {
    modules(&format!(
        "  - name: a\n    type: infra.storage\n    config: {{provider: cloud}}\n    outputs:\n      uri: {{sensitive: true, sinks: {text}}}\n"
    ))
}

#[test]
fn sinks_are_read() {
    let config = sinks(
        "[{type: github_secret, name: A, repo: '${GITHUB_REPOSITORY}', environment: prod, token_env: MY, on_failure: fail}, \
         {type: github_env, name: A}, {type: dotenv, name: A}, {type: dotenv, name: A, path: /tmp/x.env}]",
    )
    .set("GITHUB_REPOSITORY", "acme/shop")
    .config();
    let sinks = &config.resources[0].outputs["uri"].sinks;
    assert_eq!(
        sinks
            .iter()
            .map(|sink| sink.target.clone())
            .collect::<Vec<_>>(),
        [
            SinkTarget::GithubSecret {
                repo: "acme/shop".into(),
                environment: Some("prod".into()),
                token_env: Some("MY".into())
            },
            SinkTarget::GithubEnv,
            SinkTarget::Dotenv {
                path: ".env".into()
            },
            SinkTarget::Dotenv {
                path: "/tmp/x.env".into()
            },
        ]
    );
    assert_eq!(sinks[0].on_failure, OnFailure::Fail);
    assert_eq!(sinks[1].on_failure, OnFailure::Warn);
}

#[test]
fn mistakes_of_sinks() {
    for (text, expected) in [
        (
            "[{type: github_secret, name: A}]",
            vec!["config/missing-key"],
        ),
        (
            "[{type: github_secret, name: A, repo: acme}]",
            vec!["config/bad-value"],
        ),
        (
            "[{type: github_secret, name: A, repo: 'https://github.com/acme/shop'}]",
            vec!["config/bad-value"],
        ),
        (
            "[{type: github_secret, name: GITHUB_A, repo: acme/shop}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_secret, name: A-B, repo: acme/shop}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_secret, name: A, repo: acme/shop, token_env: 'ghp 12'}]",
            vec!["config/bad-value"],
        ),
        (
            "[{type: github_secret, name: A, repo: acme/shop, path: x}]",
            vec!["config/misplaced-key"],
        ),
        (
            "[{type: github_env, name: NODE_OPTIONS}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_env, name: Path}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_env, name: RUNNER_X}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_env, name: \"A\\nB\"}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_env, name: 1A}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_env, name: A, repo: acme/shop}]",
            vec!["config/misplaced-key"],
        ),
        (
            "[{type: dotenv, name: A, path: ../.env}]",
            vec!["config/bad-path"],
        ),
        (
            "[{type: dotenv, name: A, path: a/../../x}]",
            vec!["config/bad-path"],
        ),
        (
            "[{type: dotenv, name: A, path: ''}]",
            vec!["config/bad-path"],
        ),
        (
            "[{type: dotenv, name: A}, {type: dotenv, name: A, path: ./.env}]",
            vec!["config/duplicate-sink"],
        ),
        ("[{type: gitub_env, name: A}]", vec!["config/bad-value"]),
        ("[{type: github_env}]", vec!["config/missing-key"]),
        (
            "[{type: github_env, name: A, on_failure: ignore}]",
            vec!["config/bad-value"],
        ),
        (
            "[{type: github_secret, name: A, repo: '${MY_TOKEN}'}]",
            vec!["config/secret-out-of-place"],
        ),
    ] {
        assert_eq!(
            codes(&sinks(text).set("MY_TOKEN", "s3cr3t-value")),
            expected,
            "{text}"
        );
    }
    let open = |output: &str| {
        modules(&format!(
            "  - {{name: a, type: infra.storage, config: {{provider: cloud}}, outputs: {output}}}\n"
        ))
    };
    let sink = "sinks: [{type: github_env, name: A}]";
    for (output, expected) in [
        (
            format!("{{uri: {{{sink}}}}}"),
            vec!["config/sink-needs-sensitive"],
        ),
        (
            format!("{{uri: {{sensitive: false, {sink}}}}}"),
            vec!["config/sink-needs-sensitive"],
        ),
        (format!("{{uri: {{sensitive: true, {sink}}}}}"), vec![]),
        ("{\"a\\nb\": {}}".to_owned(), vec!["config/bad-name"]),
        ("{uri: {sinks: []}}".to_owned(), vec![]),
        (
            "{uri: {sensetive: true}}".to_owned(),
            vec!["config/unknown-key"],
        ),
    ] {
        assert_eq!(codes(&open(&output)), expected, "{output}");
    }
    assert!(open("{uri: }").config().resources[0].outputs["uri"].sensitive);
}

// ---- secrets and stores ----

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
            vec!["config/bad-value"],
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

// ---- gates ----

fn gate(config: &str) -> Case {
    modules(&format!(
        "  - {{name: web, type: infra.container_service, config: {{provider: cloud, name: prod-web}}}}\npipelines: {{p: {{steps: [{{name: s, type: deploy_verify, config: {config}}}]}}}}\n"
    ))
}

#[test]
fn gates_are_read() {
    let config = gate("{url: 'http://127.0.0.1/'}").config();
    insta::assert_snapshot!(pretty(&public(&config, "/gates/0")), @r#"
    {
      "max_retries": 30,
      "name": "p/s",
      "retry_interval_seconds": 10,
      "targets": [
        {
          "body": null,
          "consecutive": 1,
          "expect_body_contains": null,
          "expect_status": 200,
          "headers": {},
          "method": "GET",
          "tls_verify": true,
          "url": "http://127.0.0.1/"
        }
      ],
      "timeout_seconds": 300
    }
    "#);
    let config = gate(
        "{targets: [{url: '${web.live_url}/h', headers: {Authorization: 'Bearer ${KEY}'}, consecutive: 2}, {url: 'https://${HOST}'}], timeout: 1h30m, retry_interval: 0.25, max_retries: 3, consecutive: 4}",
    )
    .set("KEY", "k3y-value")
    .set("HOST", "example.net")
    .config();
    insta::assert_snapshot!(pretty(&public(&config, "/gates/0")), @r#"
    {
      "max_retries": 3,
      "name": "p/s",
      "retry_interval_seconds": 0.25,
      "targets": [
        {
          "body": null,
          "consecutive": 2,
          "expect_body_contains": null,
          "expect_status": 200,
          "headers": {
            "Authorization": "(secret)"
          },
          "method": "GET",
          "tls_verify": true,
          "url": "${prod-web.live_url}/h"
        },
        {
          "body": null,
          "consecutive": 4,
          "expect_body_contains": null,
          "expect_status": 200,
          "headers": {},
          "method": "GET",
          "tls_verify": true,
          "url": "https://example.net"
        }
      ],
      "timeout_seconds": 5400
    }
    "#);
}

#[test]
fn mistakes_of_gates() {
    let url = "url: 'http://127.0.0.1/'";
    for (config, expected) in [
        ("{}".to_owned(), vec!["config/missing-key"]),
        ("{targets: []}".to_owned(), vec!["config/missing-key"]),
        ("{targets: [{}]}".to_owned(), vec!["config/missing-key"]),
        (
            format!("{{{url}, targets: [{{{url}}}]}}"),
            vec!["config/misplaced-key"],
        ),
        ("{url: 'ftp://x'}".to_owned(), vec!["config/bad-value"]),
        ("{url: '/health'}".to_owned(), vec!["config/bad-value"]),
        (
            "{url: '${wbe.live_url}'}".to_owned(),
            vec!["config/unknown-module"],
        ),
        (format!("{{{url}, timeout: 5}}"), vec![]),
        (
            format!("{{{url}, timeout: 5 minutes}}"),
            vec!["config/bad-value"],
        ),
        (format!("{{{url}, timeout: 0s}}"), vec!["config/bad-value"]),
        (format!("{{{url}, timeout: 25h}}"), vec!["config/bad-value"]),
        (
            format!("{{{url}, retry_interval: -1}}"),
            vec!["config/bad-value"],
        ),
        (
            format!("{{{url}, timeout: true}}"),
            vec!["config/wrong-type"],
        ),
        (
            format!("{{{url}, expect_status: 99}}"),
            vec!["config/bad-value"],
        ),
        (
            format!("{{{url}, expect_status: '200'}}"),
            vec!["config/wrong-type"],
        ),
        (format!("{{{url}, method: get}}"), vec!["config/bad-value"]),
        (
            format!("{{{url}, headers: {{'a b': c}}}}"),
            vec!["config/bad-name"],
        ),
        (
            format!("{{{url}, headers: {{a: \"b\\r\\nc\"}}}}"),
            vec!["config/bad-value"],
        ),
        (
            format!("{{{url}, consecutive: 0}}"),
            vec!["config/bad-value"],
        ),
        (
            format!("{{{url}, expect_code: 200}}"),
            vec!["config/unknown-key"],
        ),
    ] {
        assert_eq!(codes(&gate(&config)), expected, "{config}");
    }
}

// ---- imports ----

#[test]
fn imports_are_laid_under_the_file() {
    let case = case(
        "imports: [parts/a.yaml, ./parts/../parts/b.yaml]\nmodules:\n- {name: one, type: infra.storage, config: {provider: cloud, from: top}}\n",
    )
    .file(
        "parts/a.yaml",
        "imports: [b.yaml]\nmodules:\n- {name: one, type: infra.storage, config: {provider: cloud, from: a}}\n- {name: two, type: infra.storage, config: {provider: cloud, from: a}}\n",
    )
    .file(
        "parts/b.yaml",
        "modules:\n- {name: cloud, type: iac.provider, config: {provider: local}}\nsecrets: {generate: [{key: K, type: random_hex}]}\ninfra: {auto_bootstrap: false}\nrequires: {}\n",
    );
    let config = case.config();
    assert_eq!(resolved_names(&config), ["one", "two"]);
    assert_eq!(public(&config, "/resources/0/config/from"), "top");
    assert_eq!(config.generate.len(), 1, "a diamond is read once");
    insta::assert_snapshot!(case.warnings(), @r#"parts/a.yaml:3:10: config/dropped-module: this module `one` is not used: another file declares it too"#);
    assert_eq!(config.digest.len(), 64);
}

#[test]
fn the_digest_covers_imports() {
    let with = |text: &str| {
        case("imports: [a.yaml]\n")
            .file("a.yaml", text)
            .config()
            .digest
    };
    assert_eq!(with("modules: []"), with("modules: []"));
    assert_ne!(with("modules: []"), with("modules: [] "));
}

#[test]
fn mistakes_of_imports() {
    insta::assert_snapshot!(
        case("imports: [a.yaml]\n").file("a.yaml", "imports: [b/c.yaml]\n").file("b/c.yaml", "imports: [../infra.yaml]\n").errors(),
        @r#"b/c.yaml:1:11: config/import-cycle: imports go in a circle: infra.yaml -> a.yaml -> b/c.yaml -> infra.yaml"#
    );
    let missing = case("imports: [nope.yaml]\n");
    insta::assert_snapshot!(missing.errors(), @r#"infra.yaml:1:11: config/unreadable-import: `infra.yaml` imports `nope.yaml`, which cannot be read"#);
    assert_eq!(
        missing.load().unwrap_err()[0].because,
        ["No such file or directory"]
    );
    insta::assert_snapshot!(Case::default().errors(), @r#"config/unreadable: the config `infra.yaml` cannot be read"#);
    assert_eq!(codes(&case("imports: ['']\n")), ["config/bad-value"]);
}

#[test]
fn real_files_with_link_loops_give_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("infra.yaml"), "imports: [loop.yaml, same.yaml]\n").unwrap();
    std::os::unix::fs::symlink(at("loop2.yaml"), at("loop.yaml")).unwrap();
    std::os::unix::fs::symlink(at("loop.yaml"), at("loop2.yaml")).unwrap();
    std::os::unix::fs::symlink(at("infra.yaml"), at("same.yaml")).unwrap();
    let read = |path: &Path| std::fs::read(path).map_err(|error| error.to_string());
    let canonical = |path: &Path| std::fs::canonicalize(path).map_err(|error| error.to_string());
    let reports = config::load(
        &at("infra.yaml"),
        None,
        Files {
            read: &read,
            canonical: &canonical,
        },
        &Variables::default(),
        &Masker::default(),
    )
    .unwrap_err();
    let codes: Vec<_> = reports.iter().map(|report| report.code).collect();
    assert_eq!(codes, ["config/unreadable-import", "config/import-cycle"]);
    assert!(
        reports[0].because[0].contains("symbolic links"),
        "{reports:?}"
    );
}

// ---- bad bytes ----

#[test]
fn bad_bytes_are_clean_errors() {
    for (bytes, expected) in [
        (b"".to_vec(), "config/empty: `infra.yaml` has no content"),
        (
            b"# only a comment\n".to_vec(),
            "config/empty: `infra.yaml` has no content",
        ),
        (
            b"---\n...\n".to_vec(),
            "config/empty: `infra.yaml` has no content",
        ),
        (
            b"a: b\nx: \xff\n".to_vec(),
            "infra.yaml:2:4: config/not-utf8",
        ),
        (b"\xff\xfea\0".to_vec(), "config/not-utf8"),
        (
            b"modules:\n\t- name: a\n".to_vec(),
            "infra.yaml:2:1: config/tab",
        ),
        (
            b"modules:\n  - name: a\n\ttype: b\n".to_vec(),
            "infra.yaml:3:1: config/tab",
        ),
        (
            b"modules: [\n  a\0b]\n".to_vec(),
            "infra.yaml:2:4: config/bad-character",
        ),
        (b"modules: [a\n".to_vec(), "config/syntax"),
        (b"modules: 'a\n".to_vec(), "config/syntax"),
        (b"a: b: c\n".to_vec(), "config/syntax"),
        (
            b"- a\n".to_vec(),
            "infra.yaml:1:1: config/wrong-type: `the config` must be a map",
        ),
        (b"just text\n".to_vec(), "config/wrong-type"),
        (
            b"modules: []\n---\nmodules: []\n".to_vec(),
            "infra.yaml:2:1: config/several-documents",
        ),
        (b"modules: !Ref x\n".to_vec(), "config/unsupported-tag"),
        (b"modules: *nope\n".to_vec(), "config/syntax"),
        (b"x-a: &a [*a]\n".to_vec(), "config/endless-alias"),
        (b"[a]: b\n".to_vec(), "config/bad-key"),
        (b"? \n: b\n".to_vec(), "config/bad-key"),
        (b"<<: 7\n".to_vec(), "config/wrong-type"),
    ] {
        let errors = case(&bytes).errors();
        assert!(
            errors.contains(expected),
            "{:?}: {errors}",
            String::from_utf8_lossy(&bytes)
        );
    }
    case(b"\xef\xbb\xbfmodules: []\r\n").config();
    case(b"8080: x\n").errors();
}

#[test]
fn a_byte_order_mark_does_not_shift_places() {
    insta::assert_snapshot!(case("\u{feff}é: 1\nmodulez: []\n").errors(), @r#"
    infra.yaml:1:1: config/unknown-key: the config has no key `é` (unknown key)
    infra.yaml:2:1: config/unknown-key: the config has no key `modulez` (did you mean `modules`?)
    "#);
}

#[test]
fn nesting_has_a_limit() {
    for text in [
        format!("x-a: {}", "[".repeat(5_000)),
        format!("x-a: {}1{}", "[".repeat(100), "]".repeat(100)),
        format!("x-a: {}", "{a: ".repeat(5_000)),
        format!(
            "x-a:\n{}",
            (1..300)
                .map(|n| format!("{}a:\n", " ".repeat(n)))
                .collect::<String>()
        ),
        format!("x-a:\n  {}x", "- ".repeat(5_000)),
    ] {
        let errors = case(&text).errors();
        assert!(errors.contains("config/too-deep"), "{errors}");
    }
    case(format!("x-a: {}1{}", "[".repeat(50), "]".repeat(50))).config();
}

#[test]
fn a_large_honest_file_loads_and_a_small_dishonest_one_does_not() {
    let bomb = fixture("alias-bomb.yaml");
    assert!(bomb.len() < 400);
    let begun = Instant::now();
    let errors = case(&bomb).errors();
    assert!(errors.contains("config/alias-bomb"), "{errors}");
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());

    // Text that is copied counts as well as values.
    let wide = format!(
        "x-a: &a {}\nx-b: [{}]\n",
        "y".repeat(1 << 18),
        "*a,".repeat(2_000)
    );
    assert!(case(wide).errors().contains("config/alias-bomb"));

    let honest = generated(10_000);
    assert!(honest.len() > 2_500_000, "{}", honest.len());
    assert_eq!(case(&honest).config().resources.len(), 10_000);

    let dense = format!("x-a: [{}]", "1,".repeat(400_000));
    assert!(case(dense).errors().contains("config/too-many-values"));
}

#[test]
fn a_file_that_is_too_large_is_refused_by_name_of_the_limit() {
    let large = vec![b'#'; usize::try_from(FILE_BYTES_MAX).unwrap() + 1];
    let reports = case(large).load().unwrap_err();
    assert_eq!(reports[0].code, "config/unreadable");
    assert!(reports[0].because[0].contains("16 MiB"), "{reports:?}");
}

#[test]
fn many_mistakes_do_not_take_the_square_of_the_time() {
    let text = generated(2_000).replace("depends_on: [m", "depends_on: [n");
    let begun = Instant::now();
    let reports = case(text).load().unwrap_err();
    assert!(reports.len() >= 1_999);
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

/// A config of `count` resources, about 300 bytes each.
fn generated(count: usize) -> String {
    let mut text = String::from(
        "modules:\n  - name: cloud\n    type: iac.provider\n    config: {provider: local, root: ./.local}\n",
    );
    for number in 0..count {
        let before = number.saturating_sub(1);
        text.push_str(&format!(
            "  - name: m{number}\n    type: infra.container_service\n    config:\n      provider: cloud\n      image: registry.example.net/team/service-{number}:1.4.2\n      size: s\n      depends_on: [m{before}]\n      http_port: {}\n      env_vars:\n        LOG_LEVEL: info\n        UPSTREAM: \"${{m{before}.live_url}}/api\"\n",
            8000 + number % 1000
        ));
    }
    text.replace("depends_on: [m0]\n      http_port: 8000\n      env_vars:\n        LOG_LEVEL: info\n        UPSTREAM: \"${m0.live_url}/api\"", "depends_on: []\n      http_port: 8000\n      env_vars:\n        LOG_LEVEL: info\n        UPSTREAM: none")
}

// ---- warnings ----

#[test]
fn what_is_not_acted_on_is_said_once() {
    let case = modules(
        "  - {name: a, type: http.server}
  - {name: b, type: http.server}
  - {name: c, type: infra.databse, config: {provider: cloud}}
workflows: {}
mesh: {}
requires: {}
ci: {}
plugins: {}
x-mine: 7
pipelines: {p: {steps: [{name: x, type: step.shell}, {name: y, type: step.shell}]}}
",
    );
    insta::assert_snapshot!(case.warnings(), @r#"
    infra.yaml:3:21: config/ignored-module: Tidegate does not act on modules of type `http.server`
    infra.yaml:5:21: config/unknown-kind: `infra.databse` is not a well-known resource type (did you mean `infra.database`?)
    infra.yaml:6:1: config/ignored-section: Tidegate does not act on `workflows`
    infra.yaml:7:1: config/ignored-section: Tidegate does not act on `mesh`
    infra.yaml:12:25: config/ignored-step: Tidegate does not act on steps of type `step.shell`
    "#);
}

// ---- finding the file, showing the result ----

#[test]
fn the_config_is_found() {
    let found = |explicit: Option<&str>, there: &[&str]| {
        config::discover(explicit.map(Path::new), &|path| {
            there.iter().any(|name| Path::new(name) == path)
        })
    };
    assert_eq!(found(Some("x.yaml"), &[]).unwrap(), Path::new("x.yaml"));
    assert_eq!(
        found(None, &["infra.yaml", "config/infra.yaml"]).unwrap(),
        Path::new("infra.yaml")
    );
    assert_eq!(
        found(None, &["config/infra.yaml"]).unwrap(),
        Path::new("config/infra.yaml")
    );
    let report = found(None, &["app.yaml"]).unwrap_err();
    assert_eq!(
        (report.code, report.exit),
        ("config/not-found", Exit::Usage)
    );
}

#[test]
fn the_public_yaml_says_what_the_public_json_says() {
    let config = case(fixture("good/everything.yaml"))
        .environment("prod")
        .config();
    let yaml = config::to_public_yaml(&config);
    let read: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
    assert_eq!(read, config::to_public_json(&config));
}

// ---- properties ----

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        drop(case(text).load());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(case(bytes).load());
    }

    #[test]
    fn yaml_like_text_never_panics(text in "([ \\-\\[\\]{}:,&*#'\"a-c\n${}.|>!?~0-9\t]|modules|name|type|config){0,120}") {
        drop(case(text).load());
    }

    /// Cutting and splicing the document that uses every key: no panic, and every place is real.
    #[test]
    fn damaged_documents_never_panic(cut in 0_usize..5_000, length in 0_usize..60, put in "[ \\n:{}\\[\\]'\"$&*a]{0,6}") {
        let mut text = String::from_utf8(fixture("good/everything.yaml")).unwrap();
        let start = cut.min(text.len());
        let end = (start + length).min(text.len());
        if text.is_char_boundary(start) && text.is_char_boundary(end) {
            text.replace_range(start..end, &put);
        }
        let lines = text.lines().count() as u32;
        let case = case(&text).environment("prod");
        if let Err(reports) = case.load() {
            prop_assert!(!reports.is_empty());
            for report in reports {
                if let Some(span) = report.at {
                    prop_assert!(span.line >= 1 && span.line <= lines.max(1) + 1);
                    prop_assert!(span.column >= 1 && span.width >= 1);
                    prop_assert!(span.column as usize <= span.excerpt.chars().count() + 1);
                }
            }
        }
    }
}
