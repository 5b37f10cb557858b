//! `infra apply`: plan, approve, apply, write sinks. Unlike `up` it asks before any change and
//! does not hold the gate.

use super::up::{Way, go};
use super::{CommandResult, Desk};
use crate::cli::ApplyArgs;

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &ApplyArgs) -> CommandResult {
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
        },
    )
    .await
}
