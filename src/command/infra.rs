//! The commands beside plan, apply and destroy: which is which, and what they share.

use std::collections::BTreeSet;
use std::time::Duration;

use super::open::Opened;
use super::{
    CommandResult, Desk, Problems, align, bootstrap, cleanup, derive, drift, expect, import,
    owners, refresh, rotate, teardown,
};
use crate::apply::{ApplyReport, Engine, checked, deposed, recover};
use crate::cli::infra::BesideCommand;
pub use crate::face::count;
use crate::plan::Scope;
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::resource::Address;
use crate::state::Lease;

/// Runs one of them; answers its name too.
pub async fn run(desk: &Desk, command: &BesideCommand) -> (&'static str, CommandResult) {
    match command {
        BesideCommand::Drift(arguments) => ("infra drift", drift::run(desk, arguments).await),
        BesideCommand::Refresh(arguments) => {
            ("infra refresh", refresh::records(desk, arguments).await)
        }
        BesideCommand::RefreshOutputs(arguments) => (
            "infra refresh-outputs",
            refresh::outputs(desk, arguments).await,
        ),
        BesideCommand::Import(arguments) => ("infra import", import::one(desk, arguments).await),
        BesideCommand::ImportAll(arguments) => {
            ("infra import-all", import::all(desk, arguments).await)
        }
        BesideCommand::Teardown(arguments) => {
            ("infra teardown", teardown::run(desk, arguments).await)
        }
        BesideCommand::Cleanup(arguments) => {
            ("infra cleanup", cleanup::by_tag(desk, arguments).await)
        }
        BesideCommand::Prune(arguments) => ("infra prune", cleanup::prune(desk, arguments).await),
        BesideCommand::Owners(arguments) => ("infra owners", owners::run(desk, arguments).await),
        BesideCommand::AuditKeys(arguments) => {
            ("infra audit-keys", owners::keys(desk, arguments).await)
        }
        BesideCommand::AuditSecrets(arguments) => {
            ("infra audit-secrets", align::audit_secrets(desk, arguments))
        }
        BesideCommand::RotateAndPrune(arguments) => {
            ("infra rotate-and-prune", rotate::run(desk, arguments).await)
        }
        BesideCommand::Bootstrap(arguments) => {
            ("infra bootstrap", bootstrap::run(desk, arguments).await)
        }
        BesideCommand::Align(arguments) => ("infra align", align::align(desk, arguments).await),
        BesideCommand::Test(arguments) => ("infra test", expect::run(desk, arguments).await),
        BesideCommand::Derive(arguments) => ("infra derive", derive::run(desk, arguments).await),
        BesideCommand::SecurityCheck(arguments) => (
            "infra security-check",
            align::security(desk, arguments).await,
        ),
    }
}

/// Gives the lock back, whatever happened under it. A lock that cannot be given back makes a good
/// run a failed one.
pub async fn unlock(
    desk: &Desk,
    opened: &Opened,
    lease: &Lease,
    result: CommandResult,
) -> CommandResult {
    match opened.store.unlock(lease).await {
        Ok(()) => result,
        Err(error) => {
            desk.ui.say(Event::Problem(Box::new(Report::from(error))));
            result.map(|exit| match exit {
                Exit::Done => Exit::Failed,
                exit => exit,
            })
        }
    }
}

/// Settles what a dead run left open, aloud.
pub async fn settle(desk: &Desk, engine: &Engine<'_>, lease: &Lease) -> Result<(), Problems> {
    for settled in recover::recover(engine, lease).await? {
        desk.ui.note(format!(
            "An earlier run was cut off at `{}`: {}.",
            settled.address, settled.finding
        ));
    }
    Ok(())
}

/// Says which old ones of replacements that were cut off still wait; true when there are any.
pub async fn say_waiting(desk: &Desk, engine: &Engine<'_>) -> Result<bool, Problems> {
    let waiting = deposed::waiting(engine).await.map_err(Report::from)?;
    for old in &waiting {
        let (address, id) = (&old.record.resource_id, &old.record.provider_id);
        desk.ui.note(if old.is_replaced {
            format!("The old `{address}`, `{id}`, which has a new one, goes when nothing stands on it any more.")
        } else {
            format!("`{id}` was `{address}` before a replacement that was cut off; no record is about it, and it stays.")
        });
    }
    Ok(!waiting.is_empty())
}

/// Deletes the old ones that nothing stands on any more; what could not be is answered.
pub async fn let_old_go(
    desk: &Desk,
    engine: &Engine<'_>,
    lease: &Lease,
    scope: &Scope,
    report: &ApplyReport,
) -> Result<Vec<Report>, Problems> {
    let finished = deposed::finish(engine, lease, scope, report).await?;
    for (address, id) in &finished.gone {
        desk.ui
            .note(format!("The old `{address}`, `{id}`, is deleted now."));
    }
    Ok(finished.problems)
}

/// Warns that the state is about to be settled, for commands that only look.
pub async fn warn_if_unfinished(desk: &Desk, engine: &Engine<'_>) -> Result<(), Problems> {
    if recover::is_needed(engine).await? {
        desk.ui.say(Event::Problem(Box::new(
            Report::warning(
                "apply/unfinished",
                "an earlier run was cut off; what it left open is settled by the next `up`, `apply` or `destroy`",
            )
            .fix("until then this answer may be wrong about the resources it was working on"),
        )));
    }
    Ok(())
}

/// Remembers that these resources were looked at for drift. A look is worth having without that, so
/// whatever stands in the way, somebody else's lock first of all, is only said.
pub async fn remember_look(
    desk: &Desk,
    opened: &Opened,
    engine: &Engine<'_>,
    command: &str,
    looked_at: &BTreeSet<Address>,
) {
    if looked_at.is_empty() {
        return;
    }
    let why = match engine.store.holder().await {
        Err(error) => error.to_string(),
        Ok(Some((holder, _))) => format!("the state is locked by {}", holder.who),
        Ok(None) => match opened.lock(desk, command, Duration::ZERO).await {
            Err(problems) => problems
                .0
                .first()
                .map_or_else(String::new, |problem| problem.message.clone()),
            Ok(lease) => {
                let remembered = checked::remember(engine, &lease, looked_at).await;
                match (remembered, opened.store.unlock(&lease).await) {
                    (Ok(()), Ok(())) => return,
                    (Err(problem), _) => problem.message,
                    (Ok(()), Err(error)) => error.to_string(),
                }
            }
        },
    };
    desk.ui.note(format!("This look is not remembered: {why}."));
}

/// Approval for a command that removes things: the flag, or a person who types `yes`.
pub async fn approve(desk: &Desk, yes: bool, question: &str, what: &str) -> Result<(), Problems> {
    if yes {
        return Ok(());
    }
    super::up::ask(desk, question, what)
        .await
        .map_err(|problem| {
            if problem.code == "approval/needed" {
                problem.fix("or look first: `--dry-run`").into()
            } else {
                problem.into()
            }
        })
}
