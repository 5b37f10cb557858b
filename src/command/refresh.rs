//! `infra refresh`: which records are of resources that are gone, and forgetting them on request.
//! `infra refresh-outputs`: live outputs into the records.

use std::collections::BTreeSet;

use serde_json::json;

use super::infra::{count, remember_look, settle, unlock, warn_if_unfinished};
use super::open::Opened;
use super::up::{ask, protected_problem};
use super::{CommandResult, Desk, Problems};
use crate::apply::refresh::{Fate, Refreshed, read_all};
use crate::apply::survey::delete_action;
use crate::apply::{Engine, checked};
use crate::cli::ApprovalArgs;
use crate::cli::infra::{RefreshArgs, RefreshOutputsArgs};
use crate::config::Config;
use crate::face::{self, table};
use crate::plan::Action;
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::resource::Address;
use crate::state::Lease;

/// Runs `infra refresh`.
pub async fn records(desk: &Desk, arguments: &RefreshArgs) -> CommandResult {
    let config = desk.load(&arguments.config)?;
    let opened = desk.open(&config).await?;
    let result = records_opened(desk, arguments, &config, &opened).await;
    opened.close().await;
    result
}

async fn records_opened(
    desk: &Desk,
    arguments: &RefreshArgs,
    config: &Config,
    opened: &Opened,
) -> CommandResult {
    let parallelism = usize::from(arguments.run.parallelism);
    let is_empty = opened.store.head().await.map_err(Report::from)?.is_none();
    if !arguments.prune || is_empty {
        let engine = opened.engine(desk, config, parallelism, false).await?;
        warn_if_unfinished(desk, &engine).await?;
        let looked = read_all(&engine).await?;
        show_records(desk, &looked);
        remember_look(desk, opened, &engine, "infra refresh", &seen(&looked)).await;
        let exit = if failed(&looked).is_empty() {
            Exit::Done
        } else {
            Exit::Unchecked
        };
        if exit == Exit::Done && looked.iter().any(|one| one.fate == Fate::Ghost) {
            desk.ui.note(
                "Nothing was changed. `--prune` forgets the records of what is gone.".to_owned(),
            );
        }
        desk.emit(&records_document(
            config,
            &looked,
            &[],
            exit,
            !arguments.prune,
        ));
        return Ok(exit);
    }
    let lease = opened
        .lock(desk, "infra refresh", arguments.run.lock_timeout)
        .await?;
    let result = prune(desk, arguments, config, opened, &lease).await;
    unlock(desk, opened, &lease, result).await
}

async fn prune(
    desk: &Desk,
    arguments: &RefreshArgs,
    config: &Config,
    opened: &Opened,
    lease: &Lease,
) -> CommandResult {
    let mut engine = opened
        .engine(desk, config, usize::from(arguments.run.parallelism), true)
        .await?;
    engine.call_timeout = arguments.run.action_timeout;
    settle(desk, &engine, lease).await?;
    let (looked, pruned) = forget_gone(desk, &engine, lease, &arguments.approval).await?;
    desk.ui.say(Event::Result {
        text: format!("Forgot {}.\n", count(pruned.len(), "record")),
    });
    desk.emit(&records_document(
        config,
        &looked,
        &pruned,
        Exit::Done,
        false,
    ));
    Ok(Exit::Done)
}

/// Forgets the records of what its provider does not know any more, approved like every loss.
pub(super) async fn forget_gone(
    desk: &Desk,
    engine: &Engine<'_>,
    lease: &Lease,
    approval: &ApprovalArgs,
) -> Result<(Vec<Refreshed>, Vec<Address>), Problems> {
    let looked = read_all(engine).await?;
    show_records(desk, &looked);
    let unread = failed(&looked);
    if !unread.is_empty() {
        // What cannot be read may well be there: nothing at all is forgotten on such a day.
        let mut report = Report::error(
            "refresh/unchecked",
            format!(
                "{} could not be looked at, so nothing was forgotten",
                count(unread.len(), "resource")
            ),
        )
        .fix("remove the cause, then run the command again")
        .exit(Exit::Unchecked);
        for (address, why) in unread {
            report = report.because(format!("`{address}`: {why}"));
        }
        return Err(report.into());
    }
    let ghosts: BTreeSet<&Address> = looked
        .iter()
        .filter(|one| one.fate == Fate::Ghost)
        .map(|one| &one.address)
        .collect();
    let doomed = doomed(engine, &ghosts).await?;
    let allowed: BTreeSet<&str> = approval.allow_replace.iter().map(String::as_str).collect();
    let blocked: Vec<&Action> = doomed
        .iter()
        .filter(|action| action.protected && !allowed.contains(action.address.as_str()))
        .collect();
    if !blocked.is_empty() {
        return Err(protected_problem(&blocked).into());
    }
    if !doomed.is_empty() && !approval.yes {
        ask(
            desk,
            &format!(
                "Forget {} of environment `{}`? Only `yes` is taken as a yes: ",
                count(doomed.len(), "record"),
                engine.config.environment
            ),
            "the prune",
        )
        .await?;
    }
    let mut pruned = Vec::new();
    // Reading and asking may have taken long.
    engine.store.renew(lease).await.map_err(Report::from)?;
    for action in &doomed {
        // Said before it happens, so that the log holds it even if the next line never comes.
        desk.ui.note(format!(
            "Forgetting `{}` ({}): the provider does not know it any more.",
            action.address, action.kind
        ));
        engine
            .store
            .delete(lease, &action.address)
            .await
            .map_err(Report::from)?;
        pruned.push(action.address.clone());
    }
    checked::remember(engine, lease, &seen(&looked)).await?;
    Ok((looked, pruned))
}

/// The records to forget, as deletes: what the protected gate looks at. A resource is protected
/// when its record or its module says so.
async fn doomed(engine: &Engine<'_>, ghosts: &BTreeSet<&Address>) -> Result<Vec<Action>, Problems> {
    Ok(engine
        .store
        .list()
        .await
        .map_err(Report::from)?
        .iter()
        .filter(|record| ghosts.contains(&record.resource_id))
        .map(|record| {
            let mut action = delete_action(engine, record);
            action.protected |= engine
                .config
                .resources
                .iter()
                .any(|resource| resource.address == record.resource_id && resource.protected);
            action
        })
        .collect())
}

/// The resources that could be looked at.
fn seen(looked: &[Refreshed]) -> BTreeSet<Address> {
    looked
        .iter()
        .filter(|one| !matches!(one.fate, Fate::Failed(_)))
        .map(|one| one.address.clone())
        .collect()
}

fn failed(looked: &[Refreshed]) -> Vec<(&Address, &str)> {
    looked
        .iter()
        .filter_map(|one| match &one.fate {
            Fate::Failed(why) => Some((&one.address, why.as_str())),
            Fate::Changed | Fate::Unchanged | Fate::Ghost => None,
        })
        .collect()
}

/// What `infra refresh` calls it: it asks for existence only.
fn presence(fate: &Fate) -> &'static str {
    match fate {
        Fate::Changed | Fate::Unchanged => "present",
        Fate::Ghost => "ghost",
        Fate::Failed(_) => "could-not-check",
    }
}

fn show_records(desk: &Desk, looked: &[Refreshed]) {
    if desk.global.json {
        return;
    }
    if looked.is_empty() {
        desk.ui
            .note("No resources are recorded for this environment.".to_owned());
        return;
    }
    let rows: Vec<Vec<String>> = looked
        .iter()
        .map(|one| {
            vec![
                one.address.to_string(),
                one.kind.to_string(),
                presence(&one.fate).to_owned(),
                match &one.fate {
                    Fate::Failed(why) => why.clone(),
                    Fate::Changed | Fate::Unchanged | Fate::Ghost => String::new(),
                },
            ]
        })
        .collect();
    desk.ui
        .data(&table::render(&["NAME", "TYPE", "STATUS", "DETAIL"], &rows));
}

fn records_document(
    config: &Config,
    looked: &[Refreshed],
    pruned: &[Address],
    exit: Exit,
    dry_run: bool,
) -> serde_json::Value {
    json!({
        "command": "infra refresh",
        "config": config.path,
        "environment": config.environment,
        "dry_run": dry_run,
        "exit_code": exit as u8,
        "failed": exit != Exit::Done,
        "changed": !pruned.is_empty(),
        "resources": looked.iter().map(|one| json!({
            "resource": one.address,
            "type": one.kind,
            "status": presence(&one.fate),
            "error": match &one.fate {
                Fate::Failed(why) => Some(why),
                Fate::Changed | Fate::Unchanged | Fate::Ghost => None,
            },
        })).collect::<Vec<_>>(),
        "pruned": pruned,
    })
}

/// Runs `infra refresh-outputs`.
pub async fn outputs(desk: &Desk, arguments: &RefreshOutputsArgs) -> CommandResult {
    let config = desk.load(&arguments.config)?;
    let opened = desk.open(&config).await?;
    let result = outputs_opened(desk, arguments, &config, &opened).await;
    opened.close().await;
    result
}

async fn outputs_opened(
    desk: &Desk,
    arguments: &RefreshOutputsArgs,
    config: &Config,
    opened: &Opened,
) -> CommandResult {
    let is_empty = opened.store.head().await.map_err(Report::from)?.is_none();
    if arguments.dry_run || is_empty {
        let engine = opened
            .engine(desk, config, usize::from(arguments.concurrency), false)
            .await?;
        warn_if_unfinished(desk, &engine).await?;
        let looked = read_all(&engine).await?;
        refuse_partial(&looked)?;
        return Ok(tell_outputs(desk, config, &looked, arguments.dry_run));
    }
    let lease = opened
        .lock(desk, "infra refresh-outputs", arguments.lock_timeout)
        .await?;
    let result = write_outputs(desk, arguments, config, opened, &lease).await;
    unlock(desk, opened, &lease, result).await
}

async fn write_outputs(
    desk: &Desk,
    arguments: &RefreshOutputsArgs,
    config: &Config,
    opened: &Opened,
    lease: &Lease,
) -> CommandResult {
    let engine = opened
        .engine(desk, config, usize::from(arguments.concurrency), true)
        .await?;
    settle(desk, &engine, lease).await?;
    let looked = renew_outputs(&engine, lease).await?;
    Ok(tell_outputs(desk, config, &looked, false))
}

/// Reads every output again and records it.
pub(super) async fn renew_outputs(
    engine: &Engine<'_>,
    lease: &Lease,
) -> Result<Vec<Refreshed>, Problems> {
    let looked = read_all(engine).await?;
    refuse_partial(&looked)?;
    // Reading may have taken long; a lock that was lost meanwhile is found before the first write.
    engine.store.renew(lease).await.map_err(Report::from)?;
    for record in looked.iter().filter_map(Refreshed::to_write) {
        engine
            .store
            .put(lease, record)
            .await
            .map_err(Report::from)?;
    }
    Ok(looked)
}

/// One failed read, and nothing is written.
fn refuse_partial(looked: &[Refreshed]) -> Result<(), Problems> {
    let unread = failed(looked);
    if unread.is_empty() {
        return Ok(());
    }
    let mut report = Report::error(
        "refresh/failed",
        format!(
            "{} could not be read, so no record was changed",
            count(unread.len(), "resource")
        ),
    )
    .fix("remove the cause, then run the command again");
    for (address, why) in unread {
        report = report.because(format!("`{address}`: {why}"));
    }
    Err(report.into())
}

fn tell_outputs(desk: &Desk, config: &Config, looked: &[Refreshed], dry_run: bool) -> Exit {
    let changed: Vec<&Refreshed> = looked
        .iter()
        .filter(|one| one.fate == Fate::Changed)
        .collect();
    desk.emit(&json!({
        "command": "infra refresh-outputs",
        "config": config.path,
        "environment": config.environment,
        "dry_run": dry_run,
        "exit_code": Exit::Done as u8,
        "failed": false,
        "changed": !changed.is_empty() && !dry_run,
        "resources": looked.iter().map(Refreshed::to_json).collect::<Vec<_>>(),
    }));
    if desk.global.json {
        return Exit::Done;
    }
    let mut text = String::new();
    for one in &changed {
        text.push_str(&format!("{} ({})\n", one.address, one.kind));
        for field in &one.fields {
            let (old, new) = face::plan::values(&field.expected, &field.actual, &desk.masker);
            text.push_str(&format!("    {}: {old} → {new}\n", field.path));
        }
    }
    desk.ui.data(&text);
    for ghost in looked.iter().filter(|one| one.fate == Fate::Ghost) {
        desk.ui.note(format!(
            "`{}` is gone; its record was left alone (see `tidegate infra refresh`).",
            ghost.address
        ));
    }
    desk.ui.say(Event::Result {
        text: format!(
            "{} {} of {}.\n",
            if dry_run {
                "Would refresh"
            } else {
                "Refreshed"
            },
            count(changed.len(), "record"),
            looked.len()
        ),
    });
    Exit::Done
}
