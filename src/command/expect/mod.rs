//! `infra test`: what a config should come to, said in files and checked without any provider, store
//! or variable of this machine. The planner is the real one.

mod paper;
mod shelf;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use self::paper::Paper;
use self::shelf::Shelf;
use super::infra::count;
use super::{CommandResult, Desk, Problems};
use crate::apply::execute::CALL_TIMEOUT;
use crate::apply::survey::{Survey, spec, survey};
use crate::apply::values::{Declared, Values};
use crate::apply::{Engine, Providers};
use crate::cli::infra::TestArgs;
use crate::config::{self, Config, GenerateSource};
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::resource::{Address, PublicMap, Reference};
use crate::secret::Keyring;
use crate::state::Record;
use crate::variables::Variables;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The config, relative to this file.
    config: String,
    cases: Vec<Case>,
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    env: Option<String>,
    /// The only variables there are.
    #[serde(default)]
    variables: BTreeMap<String, String>,
    /// What is recorded, by resolved name.
    #[serde(default)]
    given: BTreeMap<String, Given>,
    /// By resource type, config paths that cannot be changed in place.
    #[serde(default)]
    replace_on: BTreeMap<String, BTreeSet<String>>,
    expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    #[serde(rename = "type")]
    kind: String,
    /// The provider module; that of the module of the same name when left out.
    #[serde(default)]
    provider: Option<String>,
    #[serde(default)]
    config: PublicMap,
    #[serde(default)]
    outputs: PublicMap,
    #[serde(default)]
    depends_on: Vec<Address>,
    #[serde(default)]
    protected: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    /// Every action of the plan that is not `no-op`; `no-op` may be named too.
    #[serde(default)]
    actions: Option<BTreeMap<String, String>>,
    /// Resource → dotted path → value.
    #[serde(default)]
    values: BTreeMap<String, BTreeMap<String, Json>>,
    /// Codes of every problem.
    #[serde(default)]
    errors: BTreeSet<String>,
}

/// How a case ended.
struct Outcome {
    file: String,
    name: String,
    /// What was not as expected; empty when all was.
    failures: Vec<String>,
}

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &TestArgs) -> CommandResult {
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for path in &arguments.files {
        match read(desk, path) {
            Ok(file) => files.push((path, file)),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems.into());
    }
    let mut outcomes = Vec::new();
    for (path, file) in &files {
        for case in &file.cases {
            let config = path.parent().unwrap_or(Path::new("")).join(&file.config);
            outcomes.push(Outcome {
                file: path.display().to_string(),
                name: case.name.clone(),
                failures: check(desk, &config, case).await,
            });
        }
    }
    let failed = outcomes
        .iter()
        .filter(|outcome| !outcome.failures.is_empty())
        .count();
    let exit = if failed == 0 {
        Exit::Done
    } else {
        Exit::Failed
    };
    desk.emit(&json!({
        "command": "infra test",
        "exit_code": exit as u8,
        "failed": failed > 0,
        "cases": outcomes.iter().map(|outcome| json!({
            "file": outcome.file,
            "name": outcome.name,
            "passed": outcome.failures.is_empty(),
            "failures": outcome.failures,
        })).collect::<Vec<_>>(),
    }));
    let mut text = String::new();
    for outcome in &outcomes {
        let word = if outcome.failures.is_empty() {
            "pass"
        } else {
            "FAIL"
        };
        text.push_str(&format!("{word}  {}: {}\n", outcome.file, outcome.name));
        for failure in &outcome.failures {
            text.push_str(&format!("      {failure}\n"));
        }
    }
    if !desk.global.json {
        desk.ui.data(&text);
    }
    desk.ui.say(Event::Result {
        text: format!("{}, {failed} failed.\n", count(outcomes.len(), "case")),
    });
    Ok(exit)
}

fn read(desk: &Desk, path: &Path) -> Result<File, Report> {
    desk.disk
        .read(path, config::FILE_BYTES_MAX)
        .map_err(|error| error.source.to_string())
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()))
        .and_then(|text| config::from_yaml::<File>(&text))
        .and_then(|file| {
            if file.cases.is_empty() {
                Err("it holds no case".to_owned())
            } else {
                Ok(file)
            }
        })
        .map_err(|why| {
            Report::error(
                "test/malformed",
                format!("the test file `{}` is not understood", path.display()),
            )
            .because(why)
            .fix("docs/testing.md shows every key")
            .exit(Exit::Usage)
        })
}

async fn check(desk: &Desk, path: &Path, case: &Case) -> Vec<String> {
    let variables: Variables = case.variables.clone().into_iter().collect();
    let outcome = match desk.with_files(|files| {
        config::load(path, case.env.as_deref(), files, &variables, &desk.masker)
    }) {
        Ok(loaded) => plan(desk, &loaded.config, case).await,
        Err(problems) => Err(problems.into()),
    };
    let mut failures = Vec::new();
    let (codes, told): (BTreeSet<String>, Vec<String>) = match &outcome {
        Ok(_) => (BTreeSet::new(), Vec::new()),
        Err(Problems(problems)) => problems
            .iter()
            .map(|problem| {
                (
                    problem.code.to_owned(),
                    format!("{}: {}", problem.code, problem.message),
                )
            })
            .unzip(),
    };
    if codes != case.expect.errors {
        failures.push(format!(
            "expected the errors {}, found {}",
            list(&case.expect.errors),
            list(&codes)
        ));
        failures.extend(told);
    }
    if let Ok((actions, values)) = outcome {
        if let Some(expected) = &case.expect.actions {
            compare_actions(expected, &actions, &mut failures);
        }
        compare_values(&case.expect.values, &values, &mut failures);
    }
    failures
}

fn list(codes: &BTreeSet<String>) -> String {
    if codes.is_empty() {
        "none".to_owned()
    } else {
        codes.iter().cloned().collect::<Vec<_>>().join(", ")
    }
}

type Planned = (BTreeMap<String, String>, BTreeMap<String, Json>);

/// Actions by name, and every resource's config as far as it is known.
async fn plan(desk: &Desk, config: &Config, case: &Case) -> Result<Planned, Problems> {
    let providers: Providers = config
        .providers
        .iter()
        .map(|(id, declared)| {
            let paper = Paper {
                name: declared.provider.clone(),
                replace_on: case.replace_on.clone(),
            };
            (
                id.clone(),
                Arc::new(paper) as Arc<dyn crate::provider::Provider>,
            )
        })
        .collect();
    let engine = Engine {
        config,
        store: Arc::new(Shelf {
            environment: config.environment.clone(),
            records: records(config, case)?,
        }),
        providers: &providers,
        keyring: Keyring::new(&[0; 32]),
        masker: desk.masker.clone(),
        clock: Arc::clone(&desk.clock),
        random: Arc::clone(&desk.random),
        reporter: &desk.ui,
        cancel: desk.cancel.clone(),
        parallelism: 1,
        call_timeout: CALL_TIMEOUT,
    };
    let survey: Survey =
        survey(&engine, Values::new(declared(config), desk.masker.clone())).await?;
    let actions = survey
        .plan
        .actions
        .iter()
        .map(|action| (action.address.to_string(), action.action.word().to_owned()))
        .collect();
    let mut values = BTreeMap::new();
    for resource in &config.resources {
        let spec = spec(&engine, resource, &survey.values)?;
        values.insert(
            resource.address.to_string(),
            Json::Object(spec.public_config),
        );
    }
    Ok((actions, values))
}

/// Declared secrets wait: nothing is fetched and nothing is made.
fn declared(config: &Config) -> BTreeMap<String, Declared> {
    config
        .generate
        .iter()
        .map(|item| {
            let declared = match &item.source {
                GenerateSource::InfraOutput { address, field } => Declared::Output(Reference {
                    address: address.clone(),
                    field: field.clone(),
                }),
                _ => Declared::Pending,
            };
            (item.key.clone(), declared)
        })
        .chain(
            config
                .entries
                .iter()
                .map(|entry| (entry.name.clone(), Declared::Pending)),
        )
        .collect()
}

fn records(config: &Config, case: &Case) -> Result<Vec<Record>, Problems> {
    case.given
        .iter()
        .map(|(name, given)| {
            let module = given.provider.clone().or_else(|| {
                config
                    .resources
                    .iter()
                    .find(|resource| resource.address.as_str() == name)
                    .map(|resource| resource.provider.to_string())
                    .or_else(|| config.providers.keys().next().map(ToString::to_string))
            });
            let mut applied = given.config.clone();
            if given.protected {
                // As the config's own flag is: providers see it too.
                applied
                    .entry("protected")
                    .or_insert(serde_json::Value::Bool(true));
            }
            serde_json::from_value(json!({
                "resource_id": name,
                "resource_type": given.kind,
                "provider": "",
                "provider_ref": module,
                "provider_id": format!("given-{name}"),
                "status": "active",
                "config": applied,
                "outputs": given.outputs,
                "dependencies": given.depends_on,
                "created_at": "",
                "updated_at": "",
                "tidegate": {
                    "format": crate::state::record::FORMAT,
                    "environment": config.environment,
                    "applied_config_source": "apply",
                    "protected": given.protected,
                },
            }))
            .map_err(|error| {
                Report::error(
                    "test/given",
                    format!("case `{}`: `{name}` cannot be a record", case.name),
                )
                .because(error.to_string())
                .exit(Exit::Usage)
                .into()
            })
        })
        .collect()
}

fn compare_actions(
    expected: &BTreeMap<String, String>,
    found: &BTreeMap<String, String>,
    failures: &mut Vec<String>,
) {
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    for name in names {
        let wanted = expected.get(name).map_or("no-op", String::as_str);
        match found.get(name).map(String::as_str) {
            Some(word) if word == wanted => {}
            Some(word) => {
                failures.push(format!("`{name}`: expected {wanted}, the plan says {word}"))
            }
            None => failures.push(format!(
                "`{name}`: expected {wanted}, but there is no such resource"
            )),
        }
    }
}

fn compare_values(
    expected: &BTreeMap<String, BTreeMap<String, Json>>,
    found: &BTreeMap<String, Json>,
    failures: &mut Vec<String>,
) {
    for (name, fields) in expected {
        let Some(config) = found.get(name) else {
            failures.push(format!("`{name}`: there is no such resource"));
            continue;
        };
        for (path, wanted) in fields {
            let value = path
                .split('.')
                .try_fold(config, |value, part| value.get(part))
                .map_or(Json::Null, shown);
            if !crate::apply::drift::same(&value, wanted) {
                failures.push(format!(
                    "`{name}`: {path}: expected {wanted}, found {value}"
                ));
            }
        }
    }
}

/// What stands for values that are hidden.
fn shown(value: &Json) -> Json {
    match value.as_object() {
        Some(map) if map.contains_key("$secret") => "(secret)".into(),
        Some(map) if map.contains_key("$unknown") => "(known after apply)".into(),
        _ => value.clone(),
    }
}
