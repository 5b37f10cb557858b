//! `infra regions`: where each provider can put resources.

use serde_json::json;

use super::{CommandResult, Desk};
use crate::cli::provider::RegionsArgs;
use crate::face::table;
use crate::provider::ability::Ability;
use crate::report::{Exit, Report, Reporter as _};

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &RegionsArgs) -> CommandResult {
    let config = desk.load(&arguments.config)?;
    let opened = desk.open(&config).await?;
    let mut rows = Vec::new();
    let mut problems = Vec::new();
    for (id, provider) in &opened.providers {
        if !provider.abilities().contains(&Ability::Regions) {
            continue;
        }
        match provider.regions(&config.environment).await {
            Ok(regions) => rows.extend(
                regions
                    .into_iter()
                    .map(|region| (id.to_string(), region.name, region.display_name)),
            ),
            Err(error) => problems.push(
                Report::error(
                    "provider/failed",
                    format!("provider `{id}` could not list its regions"),
                )
                .because(format!("{} ({})", error.message, error.class.word())),
            ),
        }
    }
    opened.close().await;
    if !problems.is_empty() {
        return Err(problems.into());
    }
    desk.emit(&json!({
        "command": "infra regions",
        "config": config.path,
        "environment": config.environment,
        "exit_code": Exit::Done as u8,
        "failed": false,
        "regions": rows.iter().map(|(provider, name, display_name)| json!({
            "provider": provider, "name": name, "display_name": display_name,
        })).collect::<Vec<_>>(),
    }));
    if !desk.global.json {
        if rows.is_empty() {
            desk.ui
                .note("No provider of this environment has regions.".to_owned());
        } else {
            let cells: Vec<Vec<String>> = rows
                .into_iter()
                .map(|(provider, name, display_name)| vec![provider, name, display_name])
                .collect();
            desk.ui
                .data(&table::render(&["PROVIDER", "REGION", "NAME"], &cells));
        }
    }
    Ok(Exit::Done)
}
