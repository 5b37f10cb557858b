//! `infra owners`: what is somebody's. `infra audit-keys`: everything of a type. Both only list.

use serde_json::json;

use super::cleanup::{chosen, not_listed};
use super::infra::count;
use super::open::Opened;
use super::{CommandResult, Desk};
use crate::apply::credential;
use crate::apply::ownership::Owner;
use crate::cli::OwnerArgs;
use crate::cli::infra::{AuditKeysArgs, OwnersArgs};
use crate::config::Config;
use crate::face::table;
use crate::provider::ability::Ability;
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::resource::{Kind, Output};

/// Who owns what a run makes, unless `--owner` says otherwise.
const OWNER_VARIABLE: &str = "WORKFLOW_RESOURCE_OWNER";

impl Desk {
    /// On whose behalf a run works.
    ///
    /// # Errors
    /// When what is somebody else's is to be taken, and nobody says for whom.
    pub(super) fn owner(&self, arguments: &OwnerArgs) -> Result<Owner, Report> {
        let from_environment = self.settings.variables.non_empty(OWNER_VARIABLE);
        let name = arguments
            .owner
            .clone()
            .or_else(|| from_environment.map(str::to_owned))
            .map(|name| name.trim().to_owned())
            .unwrap_or_default();
        if arguments.force_owner && name.is_empty() {
            return Err(Report::error(
                "cli/force-owner",
                "`--force-owner` takes resources over, and nobody says for whom",
            )
            .fix(format!("add `--owner NAME`, or set {OWNER_VARIABLE}"))
            .exit(Exit::Usage));
        }
        Ok(Owner {
            name,
            force: arguments.force_owner,
        })
    }
}

/// Runs `infra owners`.
pub async fn run(desk: &Desk, arguments: &OwnersArgs) -> CommandResult {
    let config = desk.load(&arguments.config)?;
    let opened = desk.open(&config).await?;
    let result = owned(desk, arguments, &config, &opened).await;
    opened.close().await;
    result
}

async fn owned(
    desk: &Desk,
    arguments: &OwnersArgs,
    config: &Config,
    opened: &Opened,
) -> CommandResult {
    let kind = arguments.kind.clone().map(Kind::new);
    let able: Vec<_> = opened
        .providers
        .iter()
        .filter(|(_, provider)| provider.abilities().contains(&Ability::Ownership))
        .collect();
    if able.is_empty() {
        return Err(Report::error(
            "provider/no-owners",
            "no provider of this config keeps owners with its resources",
        )
        .fix("ask a provider that does; a plugin says so in its capabilities")
        .exit(Exit::Usage)
        .into());
    }
    let mut all = Vec::new();
    let mut failed = Vec::new();
    for (id, provider) in able {
        match provider.owned(&arguments.owner, kind.as_ref()).await {
            Ok(found) => all.extend(found.into_iter().map(|one| (id, one))),
            Err(error) => failed.push((id, error.message)),
        }
    }
    let exit = if failed.is_empty() {
        Exit::Done
    } else {
        Exit::Unchecked
    };
    desk.emit(&json!({
        "command": "infra owners",
        "config": config.path,
        "environment": config.environment,
        "exit_code": exit as u8,
        "failed": exit != Exit::Done,
        "owner": arguments.owner,
        "resources": all.iter().map(|(provider, one)| json!({
            "provider": provider,
            "name": one.name,
            "type": one.kind,
            "provider_id": one.provider_id,
            "owner": one.owner,
            "source": one.source,
        })).collect::<Vec<_>>(),
        "could_not_list": failed.iter().map(|(provider, why)| json!({
            "provider": provider, "error": why,
        })).collect::<Vec<_>>(),
    }));
    for (provider, why) in &failed {
        desk.ui.say(Event::Problem(Box::new(
            Report::warning(
                "provider/unlisted",
                format!("provider `{provider}` could not be listed"),
            )
            .because((*why).clone()),
        )));
    }
    if !desk.global.json {
        let rows: Vec<Vec<String>> = all
            .iter()
            .map(|(provider, one)| {
                vec![
                    one.name.clone(),
                    one.kind.clone(),
                    provider.to_string(),
                    one.provider_id.clone(),
                    one.source.clone(),
                ]
            })
            .collect();
        desk.ui.data(&table::render(
            &["NAME", "TYPE", "PROVIDER", "ID", "SOURCE"],
            &rows,
        ));
    }
    Ok(exit)
}

/// Runs `infra audit-keys`.
pub async fn keys(desk: &Desk, arguments: &AuditKeysArgs) -> CommandResult {
    let config = desk.load(&arguments.config)?;
    let opened = desk.open(&config).await?;
    let result = listed(desk, arguments, &config, &opened).await;
    opened.close().await;
    result
}

async fn listed(
    desk: &Desk,
    arguments: &AuditKeysArgs,
    config: &Config,
    opened: &Opened,
) -> CommandResult {
    let engine = opened.engine(desk, config, 1, false).await?;
    let kind = Kind::new(arguments.kind.clone());
    let records = engine.store.list().await.map_err(Report::from)?;
    let credentials = credential::in_use(&engine).await?;
    let mut rows = Vec::new();
    for (id, provider) in chosen(&engine, None, &kind)? {
        let found = provider
            .enumerate(&kind)
            .await
            .map_err(|error| not_listed(id, &kind, &error))?;
        for one in found {
            let made = one.observed.as_ref().and_then(|observed| {
                match observed.outputs.get("created_at") {
                    Some(Output::Public(serde_json::Value::String(text))) => Some(text.clone()),
                    _ => None,
                }
            });
            let recorded = records.iter().any(|record| {
                record.resource_type == kind.as_str() && record.provider_id == one.provider_id
            }) || credentials.iter().any(|(_, label)| {
                label.provider == *id && label.kind == kind && label.provider_id == one.provider_id
            });
            rows.push((id, one, made, recorded));
        }
    }
    desk.emit(&json!({
        "command": "infra audit-keys",
        "config": config.path,
        "environment": config.environment,
        "exit_code": 0,
        "failed": false,
        "resources": rows.iter().map(|(provider, one, made, recorded)| json!({
            "provider": provider,
            "name": one.name,
            "type": one.kind,
            "provider_id": one.provider_id,
            "created_at": made,
            "recorded": recorded,
        })).collect::<Vec<_>>(),
    }));
    if !desk.global.json {
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|(provider, one, made, recorded)| {
                vec![
                    one.name.clone(),
                    provider.to_string(),
                    one.provider_id.clone(),
                    made.clone().unwrap_or_default(),
                    if *recorded { "recorded" } else { "" }.to_owned(),
                ]
            })
            .collect();
        desk.ui.data(&table::render(
            &["NAME", "PROVIDER", "ID", "CREATED", "STATE"],
            &cells,
        ));
        desk.ui.note(format!(
            "{} of type `{kind}`.",
            count(rows.len(), "resource")
        ));
    }
    Ok(Exit::Done)
}
