//! `infra job run|status|logs`: one-off jobs at a provider that runs some.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::logs::{Printer, failed};
use super::{CommandResult, Desk};
use crate::apply::Providers;
use crate::cli::ConfigArgs;
use crate::cli::provider::{JobArgs, JobCommand, JobRunArgs};
use crate::provider::Provider;
use crate::provider::ability::{Ability, Job, JobHandle, JobState, JobStatus};
use crate::report::{Exit, Report, Reporter as _};

/// Between two looks at a running job.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Runs the command.
pub async fn run(desk: &Desk, command: &JobCommand) -> CommandResult {
    let config = desk.load(&ConfigArgs::default())?;
    let opened = desk.open(&config).await?;
    let (name, result) = match command {
        JobCommand::Run(arguments) => (
            "infra job run",
            start(desk, &opened.providers, arguments).await,
        ),
        JobCommand::Status(arguments) => (
            "infra job status",
            status(desk, &opened.providers, arguments).await,
        ),
        JobCommand::Logs(arguments) => (
            "infra job logs",
            logs(desk, &opened.providers, arguments).await,
        ),
    };
    opened.close().await;
    let ended = result?;
    let exit = match &ended.status {
        Some(status) if matches!(status.state, JobState::Failed | JobState::Cancelled) => {
            Exit::Failed
        }
        _ => Exit::Done,
    };
    desk.emit(&json!({
        "command": name,
        "config": config.path,
        "environment": config.environment,
        "exit_code": exit as u8,
        "failed": exit != Exit::Done,
        "job": ended.job,
        "state": ended.status.as_ref().map(|status| status.state.word()),
        "job_exit_code": ended.status.as_ref().map(|status| status.exit_code),
        "message": ended.status.as_ref().map(|status| &status.message),
        "log": ended.log,
    }));
    Ok(exit)
}

/// What is known about a job at the end of a command.
struct Ended {
    job: JobHandle,
    status: Option<JobStatus>,
    log: String,
}

/// The provider that is named, or the only one that runs jobs.
fn runner<'a>(
    providers: &'a Providers,
    named: Option<&str>,
) -> Result<&'a Arc<dyn Provider>, Report> {
    let mut able = providers
        .iter()
        .filter(|(id, _)| named.is_none_or(|named| id.as_str() == named))
        .filter(|(_, provider)| provider.abilities().contains(&Ability::Jobs))
        .map(|(_, provider)| provider);
    match (able.next(), able.next()) {
        (Some(provider), None) => Ok(provider),
        (None, _) => Err(Report::error(
            "provider/no-jobs",
            match named {
                Some(named) => format!("the provider `{named}` does not run jobs"),
                None => "no provider of this environment runs jobs".to_owned(),
            },
        )
        .fix("use a provider plugin that serves jobs")
        .exit(Exit::Usage)),
        (Some(_), Some(_)) => Err(Report::error(
            "provider/no-jobs",
            "several providers run jobs, and none is named",
        )
        .fix("name one with --provider")
        .exit(Exit::Usage)),
    }
}

async fn start(
    desk: &Desk,
    providers: &Providers,
    arguments: &JobRunArgs,
) -> Result<Ended, Report> {
    let provider = runner(providers, arguments.provider.as_deref())?;
    let order = Job {
        name: arguments.name.clone(),
        kind: arguments.kind.clone(),
        image: arguments.image.clone(),
        command: arguments.command.clone(),
        variables: arguments.variable.iter().cloned().collect(),
        secret_variables: arguments.secret.iter().cloned().collect(),
    };
    let job = provider
        .run_job(&order)
        .await
        .map_err(|error| failed(&format!("run the job `{}`", arguments.name), &error))?;
    if arguments.detach {
        if !desk.global.json {
            desk.ui.data(&format!("{}\n", json!(job)));
        }
        return Ok(Ended {
            job,
            status: None,
            log: String::new(),
        });
    }
    let status = loop {
        let status = provider
            .job_status(&job)
            .await
            .map_err(|error| failed(&format!("tell how the job `{}` is doing", job.id), &error))?;
        if status.state.is_final() {
            break status;
        }
        tokio::select! {
            () = desk.clock.sleep(LOOK_EVERY) => {}
            () = desk.cancel.cancelled() => {
                return Err(Report::error(
                    "provider/job-left-running",
                    format!("stopped waiting; the job `{}` goes on", job.id),
                )
                .fix(format!("`tidegate infra job status '{}'` tells how it is doing", json!(job)))
                .exit(Exit::Interrupted));
            }
        }
    };
    let log = print_log(desk, provider.as_ref(), &job).await?;
    say(desk, &status);
    Ok(Ended {
        job,
        status: Some(status),
        log,
    })
}

async fn status(desk: &Desk, providers: &Providers, arguments: &JobArgs) -> Result<Ended, Report> {
    let provider = runner(providers, arguments.provider.as_deref())?;
    let job = handle(&arguments.job);
    let status = provider
        .job_status(&job)
        .await
        .map_err(|error| failed(&format!("tell how the job `{}` is doing", job.id), &error))?;
    say(desk, &status);
    Ok(Ended {
        job,
        status: Some(status),
        log: String::new(),
    })
}

async fn logs(desk: &Desk, providers: &Providers, arguments: &JobArgs) -> Result<Ended, Report> {
    let provider = runner(providers, arguments.provider.as_deref())?;
    let job = handle(&arguments.job);
    let log = print_log(desk, provider.as_ref(), &job).await?;
    Ok(Ended {
        job,
        status: None,
        log,
    })
}

async fn print_log(
    desk: &Desk,
    provider: &dyn Provider,
    job: &JobHandle,
) -> Result<String, Report> {
    let mut printer = Printer::new(desk);
    let mut take = |piece: &[u8]| printer.take(piece);
    let ended = provider.job_logs(job, &mut take).await;
    let log = printer.finish();
    ended.map_err(|error| failed(&format!("hand out the log of the job `{}`", job.id), &error))?;
    Ok(log)
}

fn say(desk: &Desk, status: &JobStatus) {
    let mut text = format!("Job {}", status.state.word());
    if status.exit_code != 0 {
        text.push_str(&format!(", exit code {}", status.exit_code));
    }
    if !status.message.is_empty() {
        text.push_str(&format!(": {}", status.message));
    }
    desk.ui.note(text);
}

/// An id, or the handle that was printed.
fn handle(text: &str) -> JobHandle {
    serde_json::from_str(text).unwrap_or_else(|_| JobHandle {
        id: text.to_owned(),
        ..JobHandle::default()
    })
}
