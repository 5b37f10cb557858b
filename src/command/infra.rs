//! The commands beside plan, apply and destroy: which is which, and what they share.

use super::open::Opened;
use super::{CommandResult, Desk, Problems, drift, refresh};
use crate::apply::{Engine, recover};
use crate::cli::infra::BesideCommand;
use crate::report::{Event, Exit, Report, Reporter as _};
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

/// `1 resource`, `2 resources`.
pub fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}
