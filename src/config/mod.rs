//! The config file, resolved once for one environment into [`Config`]. Pure: text comes in through
//! functions, variables through a snapshot, and what goes out is values or a list of every
//! problem found.
//!
//! The way of a file: `yaml` turns text into a tree that knows its places; `schema` says what the
//! tree may look like, once, for reader and JSON Schema alike; `files` lays imports over each
//! other; `resolve` chooses modules and fills in values for one environment.

#[cfg(test)]
mod agreement;
pub mod backends;
mod decode;
mod document;
mod expression;
mod files;
mod hide;
mod keys;
mod loose;
mod problems;
mod public;
mod resolve;
mod resolved;
mod scalar;
mod schema;
mod source;
mod strict;
mod yaml;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use problems::Problems;

use crate::report::{Exit, Report, Span};
use crate::resource::{Part, Reference, Template, Value};
use crate::secret::Masker;
use crate::variables::Variables;

pub use document::{Document, Field, Tree, TreeKind};
pub use files::{FILE_BYTES_MAX, Files};
pub use keys::{Fault, KeyRules, Keys, OutputRules, Rules, Shape};
pub use loose::from_yaml;
pub use public::{to_public_json, to_public_yaml};
pub use resolve::DEFAULT_ENVIRONMENT as NO_ENVIRONMENT;
pub use resolve::gates::CONNECTION_HEADERS;
pub(crate) use resolve::sensitive::is_sensitive as is_sensitive_name;
pub use resolved::*;
pub use schema::schema;

/// Where a config is looked for when none is named, in this order.
pub const DEFAULT_PATHS: [&str; 2] = ["infra.yaml", "config/infra.yaml"];

/// The variable that always holds the environment's name.
const ENVIRONMENT_VARIABLE: &str = "WORKFLOW_ENV";

/// What a config is read for. What is not needed may be missing: whoever only looks at what is on
/// record has no use for the application's own variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Every value of every resource, provider and store.
    values: bool,
    /// A declared environment.
    environment: bool,
    /// Sinks and secrets.
    secrets: bool,
    /// Gates.
    gates: bool,
}

impl Needs {
    /// Everything: what is there is to become what the config says.
    pub const EVERYTHING: Self = Self {
        values: true,
        environment: true,
        secrets: true,
        gates: true,
    };

    /// The state and the providers: what is on record is looked at.
    pub const RECORDS: Self = Self {
        values: false,
        environment: false,
        secrets: false,
        gates: false,
    };

    /// Also the secrets that it was made with, as far as they are at hand: what is on record is compared
    /// with what is there.
    pub const LOOK: Self = Self {
        environment: true,
        secrets: true,
        ..Self::RECORDS
    };

    /// Also what was handed on: what is on record goes.
    pub const DESTROY: Self = Self {
        secrets: true,
        ..Self::RECORDS
    };

    /// Also the gates, and the secrets they may ask with.
    pub const VERIFY: Self = Self {
        values: false,
        ..Self::EVERYTHING
    };
}

/// The problem of a variable that is needed after all and not set.
pub fn unset_variable(name: &str, who: &str) -> Report {
    let fix = if name == ENVIRONMENT_VARIABLE {
        "name the environment: `--env NAME`".to_owned()
    } else {
        format!("set `{name}`, or give a default: `${{{name}:-value}}`")
    };
    Report::error(
        "config/unset-variable",
        format!("the variable `{name}` is not set; {who} needs it"),
    )
    .label("not set")
    .fix(fix)
    .exit(Exit::Usage)
}

/// A resolved config and what its author should know.
#[derive(Debug)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// Warnings, in file order.
    pub warnings: Vec<Report>,
    /// Warnings about types, in file order.
    pub unfamiliar: Vec<Unfamiliar>,
}

/// A warning about a type that is close to a well-known one. Whoever knows it after all drops it.
#[derive(Debug)]
pub struct Unfamiliar {
    /// The type.
    pub kind: String,
    /// The warning.
    pub report: Report,
}

/// A config that was checked and found good.
#[derive(Debug)]
pub struct Checked {
    /// The environments it was checked for, sorted; empty when it declares none.
    pub environments: Vec<String>,
    /// Every `infra.*` module present in at least one of them, by name in the file.
    pub resources: usize,
    /// Warnings, in file order, each once.
    pub warnings: Vec<Report>,
    /// Warnings about types, in file order, each once.
    pub unfamiliar: Vec<Unfamiliar>,
}

/// Reads a config and resolves it for one environment (`None`: as written, without any
/// environment's changes). On failure: every problem of the file and its imports, in file order.
pub fn load(
    path: &Path,
    environment: Option<&str>,
    files: Files<'_>,
    variables: &Variables,
    masker: &Masker,
) -> Result<Loaded, Vec<Report>> {
    load_for(
        Needs::EVERYTHING,
        &|_, _| None,
        path,
        environment,
        files,
        variables,
        masker,
    )
}

/// The same, for whoever needs less, and with `outputs` to hold references to.
pub fn load_for(
    needs: Needs,
    outputs: OutputRules<'_>,
    path: &Path,
    environment: Option<&str>,
    files: Files<'_>,
    variables: &Variables,
    masker: &Masker,
) -> Result<Loaded, Vec<Report>> {
    let mut problems = Problems::default();
    let merged = files::read_digested(path, files, &mut problems);
    let unknown = environment
        .and_then(|environment| resolve::unknown_environment(&merged, environment, &problems));
    if let Some(unknown) = &unknown
        && needs.environment
    {
        // What follows from a wrong environment is not the file's fault.
        return Err(unknown_refused(unknown.clone(), &merged, problems, masker));
    }
    let mut config = resolve::resolve(
        path,
        &merged,
        environment,
        variables,
        masker,
        resolve::Scope::For(needs, outputs),
        &mut problems,
    );
    config.unknown_environment = unknown.map(Box::new);
    if problems.has_errors() {
        problems.admit_written_out(masker);
    }
    let unfamiliar = problems.take_unfamiliar();
    let (errors, warnings) = problems.finish();
    if errors.is_empty() {
        Ok(Loaded {
            config,
            warnings,
            unfamiliar,
        })
    } else {
        Err(errors)
    }
}

/// The problems of a file that is not looked at further.
fn refused(mut problems: Problems, masker: &Masker) -> Vec<Report> {
    problems.admit_written_out(masker);
    problems.finish().0
}

/// The same, for an environment that nobody declares. Of a file that could not be read far enough to
/// know, its own problems say enough.
fn unknown_refused(
    unknown: Report,
    merged: &files::Merged,
    mut problems: Problems,
    masker: &Masker,
) -> Vec<Report> {
    if !problems.has_errors() || !resolve::environments(merged).is_empty() {
        problems.unplaced(unknown);
    }
    refused(problems, masker)
}

/// A module of any type, as far as it can be told without resolving it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    /// Its name in the file.
    pub name: String,
    /// Its type; anything, not only what Tidegate acts on.
    pub kind: String,
    /// Keys of the requirements it says it meets.
    pub satisfies: Vec<String>,
}

/// The modules of a file and its imports that are there in an environment, in file order. What is
/// wrong with the file is for [`load`] to say.
pub fn sketches(path: &Path, environment: Option<&str>, files: Files<'_>) -> Vec<Sketch> {
    let merged = files::read(path, files, &mut Problems::default());
    let mut sketches = Vec::new();
    for module in merged.modules {
        let left_out = environment
            .and_then(|environment| module.environments.as_ref()?.get(environment))
            .is_some_and(|changes| changes.0.is_none());
        if let (Some(name), Some(kind), false) = (module.name, module.kind, left_out) {
            let keys = module.satisfies.unwrap_or_default();
            sketches.push(Sketch {
                name: name.value,
                kind: kind.value,
                satisfies: keys.into_iter().map(|key| key.value).collect(),
            });
        }
    }
    sketches
}

/// A list of maps as YAML, to stand in a config; `None` when it cannot be written.
pub fn list_to_yaml<T: serde::Serialize>(items: &[T]) -> Option<String> {
    serde_yaml::to_string(&items).ok()
}

/// Reads a config and checks it for one environment, or, with `None`, for every environment it
/// knows. A problem that several environments share is reported once. `rules` say what
/// the rooms that will read it have against it.
pub fn check(
    path: &Path,
    environment: Option<&str>,
    files: Files<'_>,
    variables: &Variables,
    masker: &Masker,
    rules: Rules<'_>,
) -> Result<Checked, Vec<Report>> {
    let mut problems = Problems::default();
    let merged = files::read(path, files, &mut problems);
    let environments = match environment {
        Some(environment) => {
            if let Some(unknown) = resolve::unknown_environment(&merged, environment, &problems) {
                return Err(unknown_refused(unknown, &merged, problems, masker));
            }
            vec![environment.to_owned()]
        }
        None => resolve::environments(&merged),
    };
    let mut names = HashSet::new();
    let mut resolve_for = |environment: Option<&str>, problems: &mut Problems| {
        let config = resolve::resolve(
            path,
            &merged,
            environment,
            variables,
            masker,
            resolve::Scope::Check(rules),
            problems,
        );
        names.extend(
            config
                .resources
                .into_iter()
                .map(|resource| resource.base_name),
        );
    };
    if environments.is_empty() {
        resolve_for(None, &mut problems);
    }
    for environment in &environments {
        let before = problems.count();
        resolve_for(Some(environment), &mut problems);
        problems.forget_repeats(before);
    }
    if problems.has_errors() {
        problems.admit_written_out(masker);
    }
    let unfamiliar = problems.take_unfamiliar();
    let (errors, warnings) = problems.finish();
    if errors.is_empty() {
        Ok(Checked {
            environments,
            resources: names.len(),
            warnings,
            unfamiliar,
        })
    } else {
        Err(errors)
    }
}

/// The config to use: the one named, else the first of [`DEFAULT_PATHS`] that exists.
pub fn discover(
    explicit: Option<&Path>,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<PathBuf, Report> {
    if let Some(path) = explicit {
        return Ok(path.to_path_buf());
    }
    DEFAULT_PATHS
        .iter()
        .map(Path::new)
        .find(|path| exists(path))
        .map(Path::to_path_buf)
        .ok_or_else(|| {
            Report::error("config/not-found", "there is no config here")
                .because(format!(
                    "neither `{}` exists",
                    DEFAULT_PATHS.join("` nor `")
                ))
                .fix("name it: `--config FILE`")
                .exit(Exit::Usage)
        })
}

/// A length of time as configs and flags write it: `250ms`, `30s`, `5m`, `1h30m`; a bare number
/// means seconds.
pub fn duration(text: &str) -> Option<Duration> {
    resolve::gates::parse_duration(text).or_else(|| {
        text.trim()
            .parse()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    })
}

/// A place that is no file: a flag of the command line.
pub fn flag_span(flag: &str) -> Span {
    Span {
        path: PathBuf::from(flag),
        line: 1,
        column: 1,
        width: 1,
        excerpt: String::new(),
    }
}

/// A text from the command line with the references of a config in it, such as
/// `${web.live_url}/healthz`. Base names and resolved names both work.
pub fn template(text: &str, config: &Config) -> Result<Value, Report> {
    let mut parts = Vec::new();
    for piece in expression::pieces(text).pieces {
        parts.push(match piece {
            expression::Piece::Literal(text) => Part::Literal(text.to_owned()),
            expression::Piece::Other { inner, raw } => {
                let found = config
                    .resources
                    .iter()
                    .flat_map(|resource| {
                        [resource.base_name.as_str(), resource.address.as_str()]
                            .map(|name| (name, &resource.address))
                    })
                    .filter_map(|(name, address)| {
                        let field = inner.strip_prefix(name)?.strip_prefix('.')?;
                        (!field.is_empty()).then(|| (name.len(), address.clone(), field.to_owned()))
                    })
                    .max_by_key(|(length, ..)| *length);
                let Some((_, address, field)) = found else {
                    return Err(wrong_reference(raw));
                };
                Part::Reference(Reference { address, field })
            }
            expression::Piece::Variable { raw, .. } | expression::Piece::Unclosed { raw } => {
                return Err(wrong_reference(raw));
            }
        });
    }
    Ok(Value::Template(Template {
        parts,
        secret: false,
    }))
}

fn wrong_reference(raw: &str) -> Report {
    Report::error(
        "config/reference",
        format!("`{raw}` is no output of a resource of this config"),
    )
    .fix("write it as ${module.field}; let the shell fill in variables")
    .exit(Exit::Usage)
}
