//! `infra status`: every recorded resource, and what its provider says about it now. Only providers that have
//! something on record are started.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use serde_json::json;

use super::{CommandResult, Desk};
use crate::apply::checked;
use crate::apply::survey::owner_of;
use crate::cli::StatusArgs;
use crate::config::Needs;
use crate::face::table;
use crate::provider::ability::Ability;
use crate::provider::{Driver, ErrorClass, Provider};
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::resource::{Address, Kind, ProviderId, Recorded};

/// Resources asked at once.
const AT_ONCE: usize = 10;
/// The word for what is recorded and not there.
const GONE: &str = "gone";
/// The kind whose health is asked for beside its status.
const SERVES_OTHERS: &str = "infra.container_service";

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &StatusArgs) -> CommandResult {
    let config = desk.load_for(Needs::RECORDS, &arguments.config)?;
    let mut opened = desk.open_records(&config).await?;
    opened.knows_environment(desk, &config).await?;
    let records = opened.store.list().await.map_err(Report::from)?;
    crate::state::record::publish(&desk.masker, &records);
    let silent = {
        let engine = opened.engine(desk, &config, AT_ONCE, false).await?;
        let owners: BTreeSet<ProviderId> = records
            .iter()
            .map(|record| owner_of(&engine, record))
            .collect();
        drop(engine);
        let mut only = config.clone();
        only.providers.retain(|id, _| owners.contains(id));
        let mut problems = Vec::new();
        opened.providers = desk.open_providers(&only, &mut problems).await;
        desk.cancel.go_on()?;
        for problem in problems {
            desk.ui.say(Event::Problem(Box::new(problem)));
        }
        only.providers
            .retain(|id, _| !opened.providers.contains_key(id));
        only.providers
    };
    let silent = &silent;
    let engine = &opened.engine(desk, &config, AT_ONCE, false).await?;
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
                // Why one with everything it needs cannot be asked was said when it was started.
                Ok(_)
                    if silent
                        .get(&owner)
                        .is_some_and(|declared| declared.unset().is_empty()) =>
                {
                    (
                        "unknown".to_owned(),
                        "its provider cannot be asked".to_owned(),
                        false,
                    )
                }
                Ok(prior) => match engine.driver(&prior.address, &owner, &kind) {
                    Err(problem) => ("unknown".to_owned(), problem.message, false),
                    Ok(driver) => match engine.providers.get(&owner) {
                        Some(provider) => look(provider.as_ref(), driver, &prior).await,
                        None => ("unknown".to_owned(), String::new(), false),
                    },
                },
            };
            let is_bad = matches!(status.as_str(), GONE | "unhealthy");
            let (status, detail) = if record.status == "error" && known && !is_bad {
                let detail = if detail.is_empty() { status } else { detail };
                ("incomplete".to_owned(), detail)
            } else {
                (status, detail)
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
    if let Err(stopped) = desk.cancel.go_on() {
        opened.close().await;
        return Err(stopped.into());
    }
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
        Exit::Unchecked
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
        .exit(Exit::Unchecked)
        .into())
    }
}

/// What the provider says of one resource: a word, more about it, and whether it could be told. A
/// provider that tells how resources are is asked that; a probe of their health is there for what
/// serves others, and where there is nothing else.
async fn look(
    provider: &dyn Provider,
    driver: &dyn Driver,
    prior: &Recorded,
) -> (String, String, bool) {
    let gone = || {
        let detail =
            "its provider does not know it any more; `tidegate infra refresh --prune` forgets it";
        (GONE.to_owned(), detail.to_owned(), true)
    };
    let mut word = None;
    if provider.abilities().contains(&Ability::Status) {
        match provider.status(prior).await {
            Ok(said) if said.is_empty() => word = Some("unknown".to_owned()),
            Ok(said) => word = Some(said),
            Err(error) if error.class == ErrorClass::NotFound => return gone(),
            Err(error) if error.class == ErrorClass::Unimplemented => {}
            Err(error) => return (error.class.word().to_owned(), error.message, false),
        }
        if let Some(word) = &word
            && prior.kind.as_str() != SERVES_OTHERS
        {
            return (word.clone(), String::new(), true);
        }
    }
    match driver.health(prior).await {
        Ok(health) if health.healthy => ("healthy".to_owned(), health.message, true),
        Ok(health) => ("unhealthy".to_owned(), health.message, true),
        Err(error) if error.class == ErrorClass::NotFound => gone(),
        Err(error) if error.class == ErrorClass::Unimplemented => (
            word.unwrap_or_else(|| "unknown".to_owned()),
            "its provider has no probe of its health".to_owned(),
            true,
        ),
        Err(error) => (
            word.unwrap_or_else(|| error.class.word().to_owned()),
            format!(
                "its health could not be told: {} ({})",
                error.message,
                error.class.word()
            ),
            false,
        ),
    }
}
