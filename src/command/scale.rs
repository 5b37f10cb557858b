//! `infra scale`: sets how many instances of a recorded resource run, now. What the config says about it
//! is left alone, and the next plan compares with that.

use serde_json::json;

use super::infra::{settle, unlock};
use super::open::Opened;
use super::{CommandResult, Desk};
use crate::apply::ownership::Owner;
use crate::apply::single;
use crate::cli::ConfigArgs;
use crate::cli::provider::ScaleArgs;
use crate::config::Config;
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::state::Lease;

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &ScaleArgs) -> CommandResult {
    let owner = desk.owner(&arguments.owner)?;
    let config = desk.load(&ConfigArgs::default())?;
    let opened = desk.open(&config).await?;
    let result = opened_run(desk, arguments, &owner, &config, &opened).await;
    opened.close().await;
    result
}

async fn opened_run(
    desk: &Desk,
    arguments: &ScaleArgs,
    owner: &Owner,
    config: &Config,
    opened: &Opened,
) -> CommandResult {
    let lease = opened
        .lock(desk, "infra scale", arguments.lock_timeout)
        .await?;
    let result = locked(desk, arguments, owner, config, opened, &lease).await;
    unlock(desk, opened, &lease, result).await
}

async fn locked(
    desk: &Desk,
    arguments: &ScaleArgs,
    owner: &Owner,
    config: &Config,
    opened: &Opened,
    lease: &Lease,
) -> CommandResult {
    let engine = opened.engine(desk, config, 1, true).await?;
    settle(desk, &engine, lease).await?;
    let address = config.address_of(&arguments.resource);
    let record = engine.store.get(&address).await.map_err(Report::from)?;
    let Some(record) = record else {
        return Err(Report::error(
            "outputs/unknown-module",
            format!("no resource `{}` is recorded", arguments.resource),
        )
        .fix("`tidegate infra status` lists those that are")
        .exit(Exit::Usage)
        .into());
    };
    let scaled = single::scale(&engine, lease, record, arguments.replicas, owner).await?;
    let fields = scaled.to_json();
    desk.emit(&json!({
        "command": "infra scale",
        "config": config.path,
        "environment": config.environment,
        "exit_code": Exit::Done as u8,
        "failed": false,
        "changed": true,
        "resource": scaled.address,
        "type": scaled.kind,
        "replicas": arguments.replicas,
        "changes": fields["changes"],
    }));
    desk.ui.say(Event::Result {
        text: format!(
            "Scaled `{}` ({}) to {}. The config is left as it is: the next apply goes by that.\n",
            scaled.address, scaled.kind, arguments.replicas
        ),
    });
    Ok(Exit::Done)
}
