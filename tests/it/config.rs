//! The config room, through its public door: files in, resolved config or every problem out.

mod bytes;
mod environments;
mod gates;
mod imports;
mod keys;
mod mistakes;
mod properties;
mod secrets;
mod showing;
mod sinks;
mod snippets;
mod texts;
mod warnings;
mod whole;

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
        self.with(|path, environment, files, variables, masker| {
            // What providers take is `keys.rs`.
            let rules = config::Rules::of_keys(&|_, _| None);
            config::check(path, environment, files, variables, masker, rules)
        })
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
        let loaded = self.load().map_err(|reports| plain(&reports)).unwrap();
        let unfamiliar = loaded.unfamiliar.into_iter().map(|one| one.report);
        let mut warnings: Vec<Report> = loaded.warnings.into_iter().chain(unfamiliar).collect();
        warnings.sort_by_key(|report| report.at.as_ref().map(|at| (at.path.clone(), at.line)));
        plain(&warnings)
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
