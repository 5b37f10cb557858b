//! `infra job run|status|logs`: one-off jobs at a provider that runs some.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::logs::{Printer, failed};
use super::{CommandResult, Desk, problem_json};
use crate::apply::Providers;
use crate::cli::ConfigArgs;
use crate::cli::provider::{JobArgs, JobCommand, JobRunArgs};
use crate::provider::ability::{Ability, Job, JobHandle, JobState, JobStatus};
use crate::provider::{DriverError, DriverResult, ErrorClass, Provider};
use crate::report::{Event, Exit, Report, Reporter as _, Severity};

/// Between two looks at a running job.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The same after several that failed.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// So many looks may fail in a row: about three minutes.
const LOOKS_MAX: u32 = 10;
/// The same where no answer came at all.
const LOOKS_UNANSWERED_MAX: u32 = 3;

/// Runs the command.
pub async fn run(desk: &Desk, command: &JobCommand) -> CommandResult {
    let config = desk.load(&ConfigArgs::default())?;
    let opened = desk.open(&config).await?;
    let result = match command {
        JobCommand::Run(arguments) => start(desk, &opened.providers, arguments).await,
        JobCommand::Status(arguments) => status(desk, &opened.providers, arguments).await,
        JobCommand::Logs(arguments) => logs(desk, &opened.providers, arguments).await,
    };
    opened.close().await;
    let ended = result?;
    let exit = match (&ended.problem, &ended.status) {
        (Some(problem), _) => problem.exit,
        (None, Some(status)) if matches!(status.state, JobState::Failed | JobState::Cancelled) => {
            Exit::Failed
        }
        (None, _) => Exit::Done,
    };
    let next: Vec<String> = ended
        .problem
        .iter()
        .map(|_| ask_again(command, &ended.job))
        .collect();
    desk.emit(&json!({
        "command": command.name(),
        "config": config.path,
        "environment": config.environment,
        "exit_code": exit as u8,
        "failed": exit != Exit::Done,
        "job": ended.job,
        "state": ended.status.as_ref().map(|status| status.state.word()),
        "job_exit_code": ended.status.as_ref().map(|status| status.exit_code),
        "message": ended.status.as_ref().map(|status| &status.message),
        "log": ended.log,
        "problems": ended.problem.iter().chain(&ended.warning).map(problem_json).collect::<Vec<_>>(),
        "next": next,
    }));
    if let Some(warning) = ended.warning {
        desk.ui.say(Event::Problem(Box::new(warning)));
    }
    if let Some(mut problem) = ended.problem {
        // Without the whole handle nobody can ask for the job again.
        if !desk.global.json {
            desk.ui.data(&format!("{}\n", json!(ended.job)));
        }
        problem.fix = next
            .iter()
            .map(|next| format!("do not start it twice: `{next}` tells how it is doing"))
            .collect();
        desk.ui.say(Event::Problem(Box::new(problem)));
    }
    Ok(exit)
}

/// The command that asks for the job again, ready to be pasted into a shell.
fn ask_again(command: &JobCommand, job: &JobHandle) -> String {
    let word = |text: &str| {
        shlex::try_quote(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
    };
    let provider = match command {
        JobCommand::Run(arguments) => &arguments.provider,
        JobCommand::Status(arguments) | JobCommand::Logs(arguments) => &arguments.provider,
    };
    let mut next = format!(
        "tidegate infra job status {}",
        word(&json!(job).to_string())
    );
    if let Some(provider) = provider {
        next.push_str(&format!(" --provider {}", word(provider)));
    }
    next
}

/// What is known about a job at the end of a command.
struct Ended {
    job: JobHandle,
    status: Option<JobStatus>,
    log: String,
    /// Why no more is known; the job may go on.
    problem: Option<Report>,
    /// What else did not go as it should.
    warning: Option<Report>,
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
    let job = provider.run_job(&order).await.map_err(|error| {
        let report = failed(&format!("run the job `{}`", arguments.name), &error);
        if error.class == ErrorClass::Unknown && !error.answered {
            report.fix("it may run all the same: look at the provider before you start it again")
        } else {
            report
        }
    })?;
    if arguments.detach {
        if !desk.global.json {
            desk.ui.data(&format!("{}\n", json!(job)));
        }
        return Ok(Ended {
            job,
            status: None,
            log: String::new(),
            problem: None,
            warning: None,
        });
    }
    let status = match watch(desk, provider.as_ref(), &job).await {
        Ok(status) => status,
        Err(problem) => {
            return Ok(Ended {
                job,
                status: None,
                log: String::new(),
                problem: Some(problem),
                warning: None,
            });
        }
    };
    // How it ended is known by now, whatever becomes of its log.
    let (log, warning) = match print_log(desk, provider.as_ref(), &job).await {
        Ok(log) => (log, None),
        Err(error) if error.class == ErrorClass::Unimplemented => (String::new(), None),
        Err(error) => (String::new(), Some(no_log(&job, &error))),
    };
    say(desk, &status);
    Ok(Ended {
        job,
        status: Some(status),
        log,
        problem: None,
        warning: warning.map(|mut report| {
            report.severity = Severity::Warning;
            report
        }),
    })
}

/// Looks at a job until it has ended. A look that fails is repeated for a while: it changes nothing,
/// and the job goes on without it.
async fn watch(desk: &Desk, provider: &dyn Provider, job: &JobHandle) -> Result<JobStatus, Report> {
    let mut failures = 0;
    let mut pause = LOOK_EVERY;
    loop {
        match provider.job_status(job).await {
            Ok(status) if status.state.is_final() => return Ok(status),
            Ok(_) => {
                failures = 0;
                pause = LOOK_EVERY;
            }
            Err(error) => {
                failures += 1;
                let tries = match error.class {
                    ErrorClass::Throttled | ErrorClass::Transient => LOOKS_MAX,
                    ErrorClass::Unknown if error.answered => LOOKS_MAX,
                    // A plugin that is gone stays gone, and one that does not answer took its time.
                    ErrorClass::Unknown => LOOKS_UNANSWERED_MAX,
                    _ => 1,
                };
                if failures >= tries {
                    let what = format!("tell how the job `{}` is doing", job.id);
                    return Err(Report {
                        code: "provider/job-out-of-sight",
                        ..failed(&what, &error)
                    });
                }
                desk.ui.note(format!(
                    "The job could not be looked at, trying again: {} ({}).",
                    error.message,
                    error.class.word()
                ));
                pause = error.retry_after.unwrap_or(pause).min(LOOK_AT_LEAST_EVERY);
            }
        }
        tokio::select! {
            () = desk.clock.sleep(pause) => {}
            () = desk.cancel.cancelled() => {
                return Err(Report::error(
                    "provider/job-left-running",
                    format!("stopped waiting; the job `{}` goes on", job.id),
                )
                .exit(Exit::Interrupted));
            }
        }
        if failures > 0 {
            pause = (pause * 2).min(LOOK_AT_LEAST_EVERY);
        }
    }
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
        problem: None,
        warning: None,
    })
}

async fn logs(desk: &Desk, providers: &Providers, arguments: &JobArgs) -> Result<Ended, Report> {
    let provider = runner(providers, arguments.provider.as_deref())?;
    let job = handle(&arguments.job);
    let log = print_log(desk, provider.as_ref(), &job)
        .await
        .map_err(|error| no_log(&job, &error))?;
    Ok(Ended {
        job,
        status: None,
        log,
        problem: None,
        warning: None,
    })
}

async fn print_log(desk: &Desk, provider: &dyn Provider, job: &JobHandle) -> DriverResult<String> {
    let mut printer = Printer::new(desk);
    let mut take = |piece: &[u8]| printer.take(piece);
    let ended = provider.job_logs(job, &mut take).await;
    let log = printer.finish();
    ended.map(|()| log)
}

fn no_log(job: &JobHandle, error: &DriverError) -> Report {
    failed(&format!("hand out the log of the job `{}`", job.id), error)
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
