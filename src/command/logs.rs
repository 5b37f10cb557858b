//! `infra logs`: the log of one recorded resource, as its provider hands it out.

use serde_json::json;

use super::{CommandResult, Desk, problem_json};
use crate::apply::survey::owner_of;
use crate::cli::ConfigArgs;
use crate::cli::provider::{LogChoice, LogsArgs};
use crate::config::Needs;
use crate::provider::DriverError;
use crate::provider::ability::{LogKind, LogWish};
use crate::report::text::{Limits, neutralise};
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::resource::Output;
use crate::ui::Ui;

/// How much of a log a JSON document holds.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Ends a log that is longer.
const CUT: &str =
    "(the log goes on: a document holds 16 MiB; without `--json` all of it is printed)\n";

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &LogsArgs) -> CommandResult {
    let config = desk.load_for(Needs::RECORDS, &ConfigArgs::default())?;
    let opened = desk.open(&config).await?;
    opened.knows_environment(desk, &config).await?;
    let result = read(desk, arguments, &config, &opened).await;
    opened.close().await;
    let (log, problem) = result?;
    let exit = problem.as_ref().map_or(Exit::Done, |problem| problem.exit);
    desk.emit(&json!({
        "command": "infra logs",
        "config": config.path,
        "environment": config.environment,
        "exit_code": exit as u8,
        "failed": problem.is_some(),
        "resource": arguments.resource,
        "log": log,
        "problems": problem.iter().map(problem_json).collect::<Vec<_>>(),
    }));
    if let Some(problem) = problem {
        desk.ui.say(Event::Problem(Box::new(problem)));
    }
    Ok(exit)
}

async fn read(
    desk: &Desk,
    arguments: &LogsArgs,
    config: &crate::config::Config,
    opened: &super::open::Opened,
) -> Result<(String, Option<Report>), Report> {
    let engine =
        opened
            .engine(desk, config, 1, false)
            .await
            .map_err(|problems| {
                problems.0.into_iter().next().unwrap_or_else(|| {
                    Report::error("provider/failed", "the state cannot be opened")
                })
            })?;
    let records = engine.store.list().await.map_err(Report::from)?;
    let record = records
        .iter()
        .find(|record| record.resource_id.as_str() == arguments.resource)
        .ok_or_else(|| {
            Report::error(
                "outputs/unknown-module",
                format!("no resource `{}` is recorded", arguments.resource),
            )
            .fix("`tidegate infra status` lists those that are")
            .exit(Exit::Usage)
        })?;
    let prior = crate::state::record::to_recorded(
        record,
        &config.environment,
        &engine.keyring,
        &engine.masker,
    )
    .map_err(Report::from)?;
    let owner = owner_of(&engine, record);
    let provider = opened.providers.get(&owner).ok_or_else(|| {
        Report::error(
            "provider/not-declared",
            format!(
                "the provider `{owner}` of `{}` is not in the config",
                prior.address
            ),
        )
        .fix("put the provider module back")
        .exit(Exit::Usage)
    })?;
    let wish = LogWish {
        kind: match arguments.kind {
            LogChoice::Run => LogKind::Run,
            LogChoice::RunRestarted => LogKind::RunRestarted,
            LogChoice::Build => LogKind::Build,
            LogChoice::Deploy => LogKind::Deploy,
        },
        component: arguments.component.clone(),
        deployment: arguments.deployment.clone(),
        tail: arguments.tail,
        follow: arguments.follow,
    };
    let mut printer = Printer::new(desk);
    let mut take = |piece: &[u8]| printer.take(piece);
    let ended = provider.logs(&prior, &wish, &mut take).await;
    let log = printer.finish();
    // What came before it broke off is kept.
    let problem = ended.err().map(|error| {
        let problem = failed(&format!("hand out the log of `{}`", prior.address), &error);
        match prior.outputs.get("log_path") {
            Some(Output::Public(serde_json::Value::String(path))) if log.is_empty() => {
                problem.fix(format!("read it yourself: `tail -f {path}`"))
            }
            _ => problem,
        }
    });
    Ok((log, problem))
}

/// A provider's refusal as a report.
pub(super) fn failed(what: &str, error: &DriverError) -> Report {
    Report::error("provider/failed", format!("the provider could not {what}")).because(format!(
        "{} ({})",
        error.message,
        error.class.word()
    ))
}

/// Prints a log line by line as it comes, made harmless; with `--json` keeps it instead.
pub(super) struct Printer {
    ui: Option<Ui>,
    pending: Vec<u8>,
    kept: String,
    is_cut: bool,
}

impl Printer {
    pub(super) fn new(desk: &Desk) -> Self {
        Self {
            ui: (!desk.global.json).then(|| desk.ui.clone()),
            pending: Vec::new(),
            kept: String::new(),
            is_cut: false,
        }
    }

    pub(super) fn take(&mut self, piece: &[u8]) {
        self.pending.extend_from_slice(piece);
        // Whole lines only: half a secret is one that no filter knows.
        if let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.pending.split_off(end + 1);
            let lines = std::mem::replace(&mut self.pending, rest);
            self.print(&lines);
        }
    }

    fn print(&mut self, lines: &[u8]) {
        let text = String::from_utf8_lossy(lines);
        match &self.ui {
            Some(ui) => {
                let mut text = neutralise(&text, Limits::OWN);
                if !text.ends_with('\n') {
                    text.push('\n');
                }
                ui.data(&text);
            }
            None if self.is_cut => {}
            None if self.kept.len() + text.len() <= DOCUMENT_BYTES_MAX => self.kept.push_str(&text),
            // From here on nothing is kept, so that there is no hole in what is.
            None => {
                self.is_cut = true;
                self.kept.push_str(CUT);
            }
        }
    }

    /// What is left without an end of line; answers what was kept.
    pub(super) fn finish(mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        if !rest.is_empty() {
            self.print(&rest);
        }
        self.kept
    }
}
