//! The desk: one verb a file, each of the shape load, decide, run, report. The only place that
//! picks concrete stores, providers, sinks and faces.

pub mod action;
pub mod align;
pub mod apply;
pub mod bootstrap;
pub mod cleanup;
pub mod config;
mod copies;
pub mod derive;
pub mod destroy;
mod discover;
pub mod drift;
mod environments;
pub mod expect;
pub mod failures;
pub mod import;
pub mod infra;
pub mod job;
pub mod logs;
pub mod migrate;
mod named;
pub mod open;
pub mod outputs;
pub mod owners;
pub mod plan;
pub mod plugin;
pub mod providers;
pub mod refresh;
pub mod regions;
pub mod repair;
pub mod rotate;
pub mod scale;
mod served;
pub mod shelf;
pub mod signals;
pub mod start;
pub mod state;
mod state_key;
pub mod status;
pub mod stores;
pub mod summary;
pub mod teardown;
pub mod up;
pub mod verify;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use crate::cancel::{Cancel, stopped};
use crate::cli::plugin::MigrateCommand;
use crate::cli::provider::MigrationsCommand;
use crate::cli::{Cli, Command, ConfigCommand, DeployCommand, GlobalArgs, InfraCommand};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::process::Processes;
use crate::random::Random;
use crate::report::{Event, Exit, Report, Reporter as _, Severity};
use crate::secret::Masker;
use crate::settings::Settings;
use crate::ui::Ui;

pub use start::start;

/// What every command works with.
pub struct Desk {
    /// What the process was started with.
    pub settings: Settings,
    /// Flags every command takes.
    pub global: GlobalArgs,
    /// The only writer.
    pub ui: Ui,
    /// Knows every secret.
    pub masker: Masker,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Child processes.
    pub processes: Arc<dyn Processes>,
    /// The wish to stop.
    pub cancel: Cancel,
    document: Mutex<Option<serde_json::Value>>,
}

impl Desk {
    /// The command's one JSON document: printed with `--json`, kept for the step outputs.
    pub fn emit(&self, document: &serde_json::Value) {
        if self.global.json {
            self.ui.json(document);
        }
        *self.document.lock().unwrap_or_else(PoisonError::into_inner) = Some(document.clone());
    }

    /// The document, once the command made one.
    pub fn document(&self) -> Option<serde_json::Value> {
        self.document
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Problems that end a command. The worst decides the exit code.
#[derive(Debug)]
pub struct Problems(pub Vec<Report>);

impl From<Report> for Problems {
    fn from(report: Report) -> Self {
        Self(vec![report])
    }
}

impl From<Vec<Report>> for Problems {
    fn from(reports: Vec<Report>) -> Self {
        Self(reports)
    }
}

impl Problems {
    /// The exit code: that of the first error.
    pub fn exit(&self) -> Exit {
        self.0
            .iter()
            .find(|report| report.severity == Severity::Error)
            .map_or(Exit::Failed, |report| report.exit)
    }
}

/// What a command answers.
pub type CommandResult = Result<Exit, Problems>;

/// Runs one command to its exit code. Problems are shown once, here.
pub async fn run(desk: &Desk, cli: &Cli) -> Exit {
    let (name, result) = match &cli.command {
        Command::Up(arguments) => ("up", up::run(desk, arguments).await),
        Command::Config(ConfigCommand::Validate(arguments)) => {
            ("config validate", config::validate(desk, arguments))
        }
        Command::Config(ConfigCommand::Resolve(arguments)) => {
            ("config resolve", config::resolve(desk, arguments))
        }
        Command::Config(ConfigCommand::Schema) => ("config schema", config::schema(desk)),
        Command::State(command) | Command::Infra(InfraCommand::State(command)) => {
            (command.name(), state::run(desk, command).await)
        }
        Command::Infra(InfraCommand::Plan(arguments)) => {
            ("infra plan", plan::run(desk, arguments).await)
        }
        Command::Infra(InfraCommand::Apply(arguments)) => {
            ("infra apply", apply::run(desk, arguments).await)
        }
        Command::Infra(InfraCommand::Destroy(arguments)) => {
            ("infra destroy", destroy::run(desk, arguments).await)
        }
        Command::Infra(InfraCommand::Outputs(arguments)) => {
            ("infra outputs", outputs::run(desk, arguments).await)
        }
        Command::Infra(InfraCommand::Status(arguments)) => {
            ("infra status", status::run(desk, arguments).await)
        }
        Command::Infra(InfraCommand::Beside(command)) => infra::run(desk, command).await,
        Command::Infra(InfraCommand::Regions(arguments)) => {
            ("infra regions", regions::run(desk, arguments).await)
        }
        Command::Infra(InfraCommand::Logs(arguments)) => {
            ("infra logs", logs::run(desk, arguments).await)
        }
        Command::Infra(InfraCommand::Scale(arguments)) => {
            ("infra scale", scale::run(desk, arguments).await)
        }
        Command::Migrations(MigrationsCommand::RepairDirty(arguments)) => (
            "migrations repair-dirty",
            repair::run(desk, arguments).await,
        ),
        Command::Infra(InfraCommand::Job(command)) => {
            (command.name(), job::run(desk, command).await)
        }
        Command::Deploy(DeployCommand::Verify(arguments)) => {
            ("deploy verify", verify::run(desk, arguments).await)
        }
        Command::Plugin(command) => plugin::run(desk, command).await,
        Command::PluginRegistry(command) => plugin::registry::run(desk, command),
        Command::Migrate(MigrateCommand::Plugins(arguments)) => {
            ("migrate plugins", migrate::plugins(desk, arguments).await)
        }
        Command::Version => ("version", version(desk)),
        // Both are answered before a desk exists.
        Command::Completions { .. } | Command::Action => ("", Ok(Exit::Done)),
    };
    match result {
        // What could not be looked at was not waited for.
        Ok(Exit::Failed | Exit::Unchecked) if desk.cancel.is_cancelled() => Exit::Interrupted,
        Ok(exit) => exit,
        Err(mut problems) => {
            if desk.cancel.is_cancelled() && problems.exit() != Exit::Interrupted {
                // Whatever went wrong after it may well have gone wrong because of it.
                problems.0.insert(0, stopped());
            }
            let exit = problems.exit();
            desk.emit(&json!({
                    "command": name,
                    "exit_code": exit as u8,
                    "failed": true,
                    "problems": problems.0.iter().map(problem_json).collect::<Vec<_>>(),
            }));
            for report in problems.0 {
                desk.ui.say(Event::Problem(Box::new(report)));
            }
            exit
        }
    }
}

/// A problem in the stable JSON shape (`docs/json.md`).
pub fn problem_json(report: &Report) -> serde_json::Value {
    json!({
        "code": report.code,
        "severity": match report.severity {
            Severity::Notice => "notice",
            Severity::Warning => "warning",
            Severity::Error => "error",
        },
        "message": report.message,
        "at": report.at.as_ref().map(|span| json!({
            "file": span.path,
            "line": span.line,
            "column": span.column,
        })),
        "hint": report.label,
        "because": report.because,
        "fix": report.fix,
    })
}

fn version(desk: &Desk) -> CommandResult {
    desk.emit(&json!({ "name": "tidegate", "version": env!("CARGO_PKG_VERSION") }));
    if !desk.global.json {
        desk.ui.data(&version_line());
    }
    Ok(Exit::Done)
}

/// What `tidegate version` prints.
pub fn version_line() -> String {
    format!("tidegate {}\n", env!("CARGO_PKG_VERSION"))
}
