//! `infra plan`: what would happen. Changes nothing; with `-o` it makes the state if there is none,
//! because a saved plan is bound to one.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::open::Opened;
use super::up::protected_problem;
use super::{CommandResult, Desk, Problems, environments, infra};
use crate::apply::sizing::NEW_ONE_FIRST;
use crate::apply::survey::{Survey, survey_within};
use crate::apply::{Engine, recover, remarks, saved, secrets};
use crate::cli::PlanArgs;
use crate::cli::engine::{PlanFormat, SaveArgs};
use crate::config::Config;
use crate::face;
use crate::plan::file::SavedPlan;
use crate::provider::ability::RemarkSeverity;
use crate::report::{Event, Exit, Report, Reporter as _, Severity};

/// How long a saved plan may be applied, unless somebody says otherwise.
pub const VALID_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// The file beside the config that pins plugins.
pub const LOCKFILE: &str = ".wfctl-lock.yaml";
/// Largest lockfile read.
const LOCKFILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Nobody but the owner reads a plan.
const PLAN_MODE: u32 = 0o600;

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &PlanArgs) -> CommandResult {
    let result = loaded(desk, arguments).await;
    if !arguments.detailed_exitcode {
        return result;
    }
    // With this flag 2 means changes, so a mistake in the config must not.
    result.map_err(|mut problems| {
        for report in &mut problems.0 {
            if report.exit == Exit::Usage {
                report.exit = Exit::Failed;
            }
        }
        problems
    })
}

async fn loaded(desk: &Desk, arguments: &PlanArgs) -> CommandResult {
    let config = desk.load(&arguments.config)?;
    let opened = desk.open(&config).await?;
    let result = planned(desk, arguments, &config, &opened).await;
    opened.close().await;
    result
}

async fn planned(
    desk: &Desk,
    arguments: &PlanArgs,
    config: &Config,
    opened: &Opened,
) -> CommandResult {
    if arguments.save.output.is_some() {
        make_state(desk, opened).await?;
    }
    let engine = opened
        .engine(desk, config, usize::from(arguments.parallelism), false)
        .await?;
    if recover::is_needed(&engine).await? {
        desk.ui.say(Event::Problem(Box::new(
            Report::warning(
                "apply/unfinished",
                "an earlier run was cut off; what it left open is settled by the next `up`, `apply` or `destroy`",
            )
            .fix("until then this plan may be wrong about the resources it was working on"),
        )));
    }
    let binding = saved::binding(
        &engine,
        &desk.settings.variables,
        lockfile(desk, config)?.as_deref(),
    )
    .await?;
    let values = secrets::known(&engine, &opened.secret_stores).await?;
    let survey = survey_within(&engine, values, &arguments.scope.include).await?;
    say_remarks(desk, &survey);
    environments::warn_of_renamed(desk, &engine, &survey).await?;
    let has_waiting = infra::say_waiting(desk, &engine).await?;
    let nobody = BTreeSet::new();
    let blocked = survey.plan.blocked(&nobody);
    if !blocked.is_empty() {
        let mut report = protected_problem(&blocked);
        report.severity = Severity::Warning;
        report.exit = Exit::Done;
        desk.ui.say(Event::Problem(Box::new(report)));
    }
    let saved = match &arguments.save.output {
        Some(path) => Some(save(desk, &engine, &survey, binding, path, &arguments.save).await?),
        None => None,
    };
    let exit = if arguments.detailed_exitcode && (has_waiting || !survey.plan.is_empty()) {
        Exit::PLANNED_CHANGES
    } else {
        Exit::Done
    };
    show(desk, arguments, config, &survey, saved.as_ref(), exit);
    Ok(exit)
}

/// A plan can only be bound to a state that is there. Making one takes the lock for a moment.
async fn make_state(desk: &Desk, opened: &Opened) -> Result<(), Problems> {
    let is_there = opened.store.head().await.map_err(Report::from)?.is_some()
        && opened
            .store
            .key(false)
            .await
            .map_err(Report::from)?
            .is_some();
    if is_there {
        return Ok(());
    }
    let lease = opened.lock(desk, "infra plan", Duration::ZERO).await?;
    let made = opened.store.key(true).await.map(drop);
    opened.store.unlock(&lease).await.map_err(Report::from)?;
    made.map_err(|error| Report::from(error).into())
}

/// The lockfile's content; `None` when there is none.
pub fn lockfile(desk: &Desk, config: &Config) -> Result<Option<Vec<u8>>, Problems> {
    let path = config.directory.join(LOCKFILE);
    match desk.disk.read(&path, LOCKFILE_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(Report::error(
            "plan/lockfile",
            format!("the lockfile cannot be read: {error}"),
        )
        .fix("make it readable: a plan is bound to its content")
        .exit(Exit::Usage)
        .into()),
    }
}

async fn save(
    desk: &Desk,
    engine: &Engine<'_>,
    survey: &Survey,
    binding: crate::plan::file::Binding,
    path: &Path,
    arguments: &SaveArgs,
) -> Result<SavedPlan, Problems> {
    let plan = saved::save(
        engine,
        survey,
        binding.clone(),
        arguments.valid_for.unwrap_or(VALID_FOR),
    )?;
    // A plan made while somebody else was applying would be refused anyway: say so now.
    let now = engine.store.head().await.map_err(Report::from)?;
    if now.is_none_or(|now| now.serial != binding.serial || now.lineage != binding.lineage) {
        return Err(Report::error(
            "plan/moved",
            "the state was changed by another run while this plan was made",
        )
        .fix("run the command again")
        .exit(Exit::Locked)
        .into());
    }
    let unsaved = |why: String| {
        Report::error(
            "plan/unsaved",
            format!("the plan cannot be saved to `{}`", path.display()),
        )
        .because(why)
        .fix("name a file in a folder that exists and can be written")
    };
    let bytes = plan
        .encode(&engine.keyring, &engine.masker)
        .map_err(&unsaved)?;
    desk.write_named(path, &bytes, PLAN_MODE).map_err(unsaved)?;
    Ok(plan)
}

/// Shows what providers think of a plan, and what none of them will read.
pub fn say_remarks(desk: &Desk, survey: &Survey) {
    for (_, remark, at) in &survey.unread {
        let (code, fix) = if remark.field.as_deref() == Some(NEW_ONE_FIRST) {
            (
                "plan/deletes-first",
                "take it out; where the old one must not be lost, keep it from being replaced with `protected: true`",
            )
        } else {
            (
                "plan/size-ignored",
                "write the provider's own setting in its place, or take it out",
            )
        };
        desk.ui.say(Event::Problem(Box::new(
            Report::warning(code, remarks::sentence(remark))
                .at(at.clone())
                .fix(fix),
        )));
    }
    for (id, remark) in &survey.remarks {
        let text = format!("provider `{id}`: {}", remarks::sentence(remark));
        match remark.severity {
            RemarkSeverity::Info => desk.ui.note(text),
            RemarkSeverity::Warning | RemarkSeverity::Error => {
                desk.ui.say(Event::Problem(Box::new(Report::warning(
                    "plan/remark",
                    text,
                ))));
            }
        }
    }
}

/// Remarks in the stable JSON shape.
pub fn remarks_json(survey: &Survey) -> Json {
    let unread = survey.unread.iter().map(|(id, remark, _)| (id, remark));
    unread
        .chain(survey.remarks.iter().map(|(id, remark)| (id, remark)))
        .map(|(id, remark)| {
            json!({
                "provider": id,
                "severity": remark.severity,
                "resource": remark.resource,
                "field": remark.field,
                "message": remark.message,
            })
        })
        .collect()
}

fn show(
    desk: &Desk,
    arguments: &PlanArgs,
    config: &Config,
    survey: &Survey,
    saved: Option<&SavedPlan>,
    exit: Exit,
) {
    let document = json!({
        "command": "infra plan",
        "config": config.path,
        "environment": config.environment,
        "exit_code": exit as u8,
        "changed": !survey.plan.is_empty(),
        "failed": false,
        "plan": survey.plan.to_json(),
        "include": survey.scope.names(),
        "remarks": remarks_json(survey),
        "saved": saved.map(|plan| json!({
            "id": plan.id,
            "file": arguments.save.output,
            "expires_at": plan.expires_at,
        })),
    });
    desk.emit(&document);
    if desk.global.json {
        return;
    }
    match arguments.format {
        PlanFormat::Json => desk.ui.json(&document),
        PlanFormat::Markdown => desk.ui.data(&face::plan::markdown::page(
            &survey.plan,
            &config.path.display().to_string(),
            &desk.masker,
        )),
        PlanFormat::Table => desk.ui.data(&format!(
            "Infrastructure Plan — {} (environment {})\n\n{}",
            config.path.display(),
            config.environment,
            face::plan::render(&survey.plan, desk.data_style(), &desk.masker)
        )),
    }
    if let (Some(plan), Some(path)) = (saved, &arguments.save.output) {
        desk.ui.note(format!(
            "Saved the plan to {}; it can be applied once, until {}.",
            path.display(),
            plan.expires_at
        ));
    }
}
