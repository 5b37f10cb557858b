//! `infra apply`: plan, approve, apply, write sinks. Unlike `up` it asks before any change and
//! does not hold the gate.

use super::up::{Way, go};
use super::{CommandResult, Desk};
use crate::cli::ApplyArgs;
use crate::cli::engine::RefreshFirstArgs;
use crate::report::{Exit, Report, Reporter as _};

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &ApplyArgs) -> CommandResult {
    understand(desk, &arguments.first)?;
    go(
        desk,
        &Way {
            command: "infra apply",
            config: &arguments.config,
            approval: &arguments.approval,
            run: &arguments.run,
            owner: &arguments.owner,
            dry_run: arguments.dry_run,
            gate: false,
            automatic: false,
            include: &arguments.scope.include,
            format: arguments.format,
            plan: arguments.outcome.plan.as_deref(),
            report: arguments.outcome.report.as_deref(),
            refresh: arguments.first.refresh,
            refresh_outputs: arguments.first.refresh_outputs,
        },
    )
    .await
}

/// Flags that workflows bring from another tool: what holds anyway is said, and what does not is
/// refused with the way there is.
fn understand(desk: &Desk, first: &RefreshFirstArgs) -> Result<(), Report> {
    if first.allow_protected_prune {
        return Err(Report::error(
            "cli/foreign-flag",
            "`--allow-protected-prune` would allow every protected resource at once",
        )
        .because("here each is allowed by its name")
        .fix("name them: `--refresh --allow-replace NAME,NAME`")
        .exit(Exit::Usage));
    }
    for (is_given, flag, why) in [
        (
            first.wait,
            "--wait",
            "an apply always waits for what it makes",
        ),
        (
            first.skip_refresh,
            "--skip-refresh",
            "nothing is refreshed unless `--refresh` or `--refresh-outputs` says so",
        ),
        (
            first.skip_bootstrap,
            "--skip-bootstrap",
            "an apply makes secrets that do not exist yet, and has no other bootstrap; \
             `tidegate infra bootstrap` does that alone",
        ),
    ] {
        if is_given {
            desk.ui.note(format!("`{flag}` changes nothing: {why}."));
        }
    }
    Ok(())
}
