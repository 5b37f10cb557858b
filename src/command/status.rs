//! `infra status`: every recorded resource, and what its provider says about it now.

use futures_util::StreamExt as _;
use serde_json::json;

use super::{CommandResult, Desk};
use crate::apply::checked;
use crate::apply::survey::owner_of;
use crate::cli::StatusArgs;
use crate::face::table;
use crate::report::{Exit, Report, Reporter as _};
use crate::resource::{Address, Kind};

/// Resources asked at once.
const AT_ONCE: usize = 10;

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &StatusArgs) -> CommandResult {
    let config = desk.load(&arguments.config)?;
    let opened = desk.open(&config).await?;
    let engine = opened.engine(desk, &config, AT_ONCE, false).await?;
    let records = engine.store.list().await.map_err(Report::from)?;
    let engine = &engine;
    let looked_at = &checked::times(engine).await?;
    let mut rows: Vec<(String, String, String, String, bool)> = futures_util::stream::iter(records)
        .map(|record| async move {
            let owner = owner_of(engine, &record);
            let kind = Kind::new(record.resource_type.clone());
            let (status, detail, known) = match crate::state::record::to_recorded(
                &record,
                &engine.config.environment,
                &engine.keyring,
                &engine.masker,
            ) {
                Err(error) => ("unknown".to_owned(), error.to_string(), false),
                Ok(prior) => match engine.driver(&prior.address, &owner, &kind) {
                    Err(problem) => ("unknown".to_owned(), problem.message, false),
                    Ok(driver) => match driver.health(&prior).await {
                        Ok(health) if health.healthy => {
                            ("healthy".to_owned(), health.message, true)
                        }
                        Ok(health) => ("unhealthy".to_owned(), health.message, true),
                        Err(error) => (error.class.word().to_owned(), error.message, false),
                    },
                },
            };
            let status = if record.status == "error" && status == "healthy" {
                "incomplete".to_owned()
            } else {
                status
            };
            (
                record.resource_id.to_string(),
                record.resource_type,
                status,
                detail,
                known,
            )
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    rows.sort();
    let holder = engine.store.holder().await.map_err(Report::from)?;
    let unknown: Vec<&str> = rows
        .iter()
        .filter(|row| !row.4)
        .map(|row| row.0.as_str())
        .collect();
    let exit = if unknown.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    };
    desk.emit(&json!({
            "command": "infra status",
            "config": config.path,
            "environment": config.environment,
            "exit_code": exit as u8,
            "failed": exit != Exit::Done,
            "resources": rows.iter().map(|(name, kind, status, detail, _)| json!({
                "resource": name, "type": kind, "status": status, "detail": detail,
                "last_drift_check": looked_at.get(&Address::new(name.clone())),
            })).collect::<Vec<_>>(),
            "lock": holder.as_ref().map(|(holder, _)| holder),
    }));
    if !desk.global.json {
        if rows.is_empty() {
            desk.ui
                .note("No resources are recorded for this environment.".to_owned());
        } else {
            let cells: Vec<Vec<String>> = rows
                .iter()
                .map(|(name, kind, status, detail, _)| {
                    vec![name.clone(), kind.clone(), status.clone(), detail.clone()]
                })
                .collect();
            desk.ui.data(&table::render(
                &["NAME", "TYPE", "STATUS", "DETAIL"],
                &cells,
            ));
        }
        if let Some((holder, _)) = holder {
            desk.ui.note(format!(
                "Locked by {} since {} (`tidegate {}`).",
                holder.who, holder.since, holder.command
            ));
        }
    }
    opened.close().await;
    if unknown.is_empty() || desk.global.json {
        Ok(exit)
    } else {
        Err(Report::error(
            "status/unknown",
            format!("could not look at {}", unknown.join(", ")),
        )
        .into())
    }
}
