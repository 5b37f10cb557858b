//! `migrations repair-dirty`: a database migration that stopped half-way is set to a version that a
//! person names, by a job of the provider.

use serde_json::json;

use super::infra::unlock;
use super::logs::{Printer, failed};
use super::open::Opened;
use super::{CommandResult, Desk, problem_json};
use crate::apply::execute::sentence;
use crate::apply::single;
use crate::cli::ConfigArgs;
use crate::cli::provider::RepairArgs;
use crate::config::Config;
use crate::provider::Provider;
use crate::provider::ability::{Ability, MigrationRepair, MigrationRepaired};
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::resource::ProviderId;
use crate::state::Lease;

/// What a person types to show that the metadata of a database is to be overwritten.
const CONFIRMATION: &str = "FORCE_MIGRATION_METADATA";

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &RepairArgs) -> CommandResult {
    if arguments.confirm_force != CONFIRMATION {
        return Err(Report::error(
            "migrations/not-confirmed",
            "a repair overwrites what a database says about its own migrations; nothing was asked for",
        )
        .fix(format!(
            "look at the database first, then add `--confirm-force {CONFIRMATION}`"
        ))
        .exit(Exit::Usage)
        .into());
    }
    let config = desk.load(&ConfigArgs::default())?;
    let opened = desk.open(&config).await?;
    let result = opened_run(desk, arguments, &config, &opened).await;
    opened.close().await;
    result
}

async fn opened_run(
    desk: &Desk,
    arguments: &RepairArgs,
    config: &Config,
    opened: &Opened,
) -> CommandResult {
    let (id, provider) = repairer(config, opened, arguments)?;
    let lease = opened
        .lock(desk, "migrations repair-dirty", arguments.lock_timeout)
        .await?;
    let result = locked(desk, arguments, config, opened, (id, provider), &lease).await;
    unlock(desk, opened, &lease, result).await
}

/// The provider that is named, else that of the database, else the only one that repairs migrations.
fn repairer<'o>(
    config: &Config,
    opened: &'o Opened,
    arguments: &RepairArgs,
) -> Result<(&'o ProviderId, &'o dyn Provider), Report> {
    let database = config.address_of(&arguments.database);
    let of_database = config
        .resources
        .iter()
        .find(|resource| resource.address == database)
        .map(|resource| resource.provider.as_str());
    let named = arguments.provider.as_deref();
    let able: Vec<_> = opened
        .providers
        .iter()
        .filter(|(_, provider)| provider.abilities().contains(&Ability::RepairMigration))
        .filter(|(id, _)| named.is_none_or(|named| id.as_str() == named))
        .collect();
    let one = match able.as_slice() {
        [one] => Some(*one),
        several => several
            .iter()
            .find(|(id, _)| Some(id.as_str()) == of_database)
            .copied(),
    };
    if let Some((id, provider)) = one {
        return Ok((id, provider.as_ref()));
    }
    let message = match (able.is_empty(), named) {
        (true, Some(named)) => format!("the provider `{named}` does not repair migrations"),
        (true, None) => "no provider of this environment repairs migrations".to_owned(),
        (false, _) => "several providers repair migrations, and none is named".to_owned(),
    };
    Err(Report::error("migrations/no-provider", message)
        .fix("name the module of one that does with `--provider`")
        .exit(Exit::Usage))
}

async fn locked(
    desk: &Desk,
    arguments: &RepairArgs,
    config: &Config,
    opened: &Opened,
    (id, provider): (&ProviderId, &dyn Provider),
    lease: &Lease,
) -> CommandResult {
    let engine = opened.engine(desk, config, 1, true).await?;
    let order = MigrationRepair {
        application: config.address_of(&arguments.app).to_string(),
        database: config.address_of(&arguments.database).to_string(),
        image: arguments.job_image.clone(),
        source: arguments.source_dir.clone(),
        dirty_version: arguments.expected_dirty_version.clone(),
        forced_version: arguments.force_version.clone(),
        then_up: arguments.then_up,
        up_if_clean: arguments.up_if_clean,
        confirmation: arguments.confirm_force.clone(),
        variables: arguments.variable.iter().cloned().collect(),
        timeout: arguments.timeout,
    };
    let repaired = single::repair(&engine, lease, provider, &order)
        .await?
        .map_err(|error| {
            failed(
                &format!("repair the migrations of `{}`", order.database),
                &error,
            )
            .fix("look at the database before you try again: it may have been done all the same")
        })?;
    let mut printer = Printer::new(desk);
    printer.take(repaired.logs.as_bytes());
    let log = printer.finish();
    let problem = unlike_success(&repaired, &order);
    let exit = problem.as_ref().map_or(Exit::Done, |problem| problem.exit);
    desk.emit(&json!({
        "command": "migrations repair-dirty",
        "config": config.path,
        "environment": config.environment,
        "exit_code": exit as u8,
        "failed": exit != Exit::Done,
        "provider": id,
        "application": order.application,
        "database": order.database,
        "status": repaired.status,
        "job": repaired.job,
        "applied": repaired.applied,
        "log": log,
        "evidence": repaired.evidence,
        "problems": problem.iter().map(problem_json).collect::<Vec<_>>(),
    }));
    match problem {
        None => desk.ui.say(Event::Result {
            text: format!(
                "`{}` stands at version {}{}.\n",
                order.database,
                order.forced_version,
                match repaired.applied.as_slice() {
                    [] => String::new(),
                    applied => format!("; applied: {}", applied.join(", ")),
                }
            ),
        }),
        Some(problem) => desk.ui.say(Event::Problem(Box::new(problem))),
    }
    Ok(exit)
}

/// What is to be said of every end but a good one. The words are the contract's.
fn unlike_success(repaired: &MigrationRepaired, order: &MigrationRepair) -> Option<Report> {
    let database = &order.database;
    let report = match repaired.status.as_str() {
        "succeeded" => return None,
        "approval_required" => Report::error(
            "migrations/approval-required",
            format!("the provider wants another approval before it repairs `{database}`"),
        )
        .fix("give it there, then run the command again"),
        "unsupported" => Report::error(
            "migrations/unsupported",
            format!("the provider cannot repair the migrations of `{database}`"),
        )
        .fix("repair them by hand, with the tool that made them")
        .exit(Exit::Usage),
        other => Report::error(
            "migrations/not-repaired",
            format!("the migrations of `{database}` were not repaired ({other:?})"),
        )
        .fix("read what the job said, and look at the database before you try again"),
    };
    let causes = repaired.evidence.iter().map(sentence);
    Some(causes.fold(report, Report::because))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_for_success_is_one() {
        let order = MigrationRepair::default();
        for (status, code) in [
            ("failed", Some("migrations/not-repaired")),
            ("approval_required", Some("migrations/approval-required")),
            ("unsupported", Some("migrations/unsupported")),
            ("Succeeded", Some("migrations/not-repaired")),
            ("", Some("migrations/not-repaired")),
            ("succeeded", None),
        ] {
            let repaired = MigrationRepaired {
                status: status.to_owned(),
                ..MigrationRepaired::default()
            };
            let said = unlike_success(&repaired, &order);
            assert_eq!(said.map(|report| report.code), code, "{status}");
        }
    }
}
