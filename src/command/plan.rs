//! `infra plan`: what would happen. Takes no lock, changes nothing.

use serde_json::json;

use super::{CommandResult, Desk};
use crate::apply::{recover, secrets, survey::survey};
use crate::cli::PlanArgs;
use crate::face;
use crate::report::{Event, Exit, Report, Reporter as _};

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &PlanArgs) -> CommandResult {
    let config = desk.load(&arguments.config)?;
    let opened = desk.open(&config).await?;
    let engine = opened
        .engine(desk, &config, usize::from(arguments.parallelism), false)
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
    let values = secrets::known(&engine, &opened.secret_stores).await?;
    let survey = survey(&engine, values).await?;
    let exit = if arguments.detailed_exitcode && !survey.plan.is_empty() {
        Exit::Changes
    } else {
        Exit::Done
    };
    desk.emit(&json!({
            "command": "infra plan",
            "config": config.path,
            "environment": config.environment,
            "exit_code": exit as u8,
            "changed": !survey.plan.is_empty(),
            "failed": false,
            "plan": survey.plan.to_json(),
    }));
    if !desk.global.json {
        desk.ui.data(&format!(
            "Infrastructure Plan — {} (environment {})\n\n{}",
            config.path.display(),
            config.environment,
            face::plan::render(&survey.plan, desk.data_style())
        ));
    }
    opened.close().await;
    Ok(exit)
}
