//! `infra import`, `infra import-all`: takes live resources into the state as they are. What is
//! recorded is that they were adopted, not that anybody applied a config to them: the next plan
//! compares them with the config, and drift checks only that they exist.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::cleanup::{cannot_list, not_listed};
use super::infra::{count, settle, unlock};
use super::open::Opened;
use super::{CommandResult, Desk, Problems};
use crate::apply::Engine;
use crate::apply::survey::{declared as declared_as, owner_of, sort_outputs};
use crate::apply::teardown::{is_same_provider, of_others};
use crate::cli::infra::{ImportAllArgs, ImportArgs};
use crate::config::{Config, Resource};
use crate::face::table;
use crate::provider::ability::{Ability, Found};
use crate::provider::hide::holds_credential;
use crate::provider::{Driver, DriverError, ErrorClass};
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::resource::{
    Address, Kind, Map, Observed, Output, Outputs, ProviderId, PublicMap, Recorded, Spec,
};
use crate::state::name::encode;
use crate::state::record::{Applied, from_observed};
use crate::state::{Lease, Record};

/// Outputs in which a provider may say what the resource was made with.
const CONFIG_OUTPUTS: [&str; 3] = ["config", "applied_config", "appliedConfig"];

/// Runs `infra import`.
pub async fn one(desk: &Desk, arguments: &ImportArgs) -> CommandResult {
    let config = desk.load(&arguments.config)?;
    let resource = declared(&config, &arguments.name)?;
    let opened = desk.open(&config).await?;
    let lease = match opened
        .lock(desk, "infra import", arguments.lock_timeout)
        .await
    {
        Ok(lease) => lease,
        Err(problems) => {
            opened.close().await;
            return Err(problems);
        }
    };
    let result = import(desk, arguments, &config, resource, &opened, &lease).await;
    let result = unlock(desk, &opened, &lease, result).await;
    opened.close().await;
    result
}

/// The resource of that name: the resolved one, or the one in the file.
fn declared<'a>(config: &'a Config, name: &str) -> Result<&'a Resource, Problems> {
    let by_address = config
        .resources
        .iter()
        .find(|resource| resource.address.as_str() == name);
    let by_base = config
        .resources
        .iter()
        .find(|resource| resource.base_name == name);
    by_address.or(by_base).ok_or_else(|| {
        Report::error(
            "import/unknown-name",
            format!("this config has no resource `{name}` in this environment"),
        )
        .fix(format!(
            "declare it first; there are {}",
            config
                .resources
                .iter()
                .map(|resource| format!("`{}`", resource.address))
                .collect::<Vec<_>>()
                .join(", ")
        ))
        .exit(Exit::Usage)
        .into()
    })
}

async fn import(
    desk: &Desk,
    arguments: &ImportArgs,
    config: &Config,
    resource: &Resource,
    opened: &Opened,
    lease: &Lease,
) -> CommandResult {
    let engine = opened.engine(desk, config, 1, true).await?;
    settle(desk, &engine, lease).await?;
    let existing = engine
        .store
        .get(&resource.address)
        .await
        .map_err(Report::from)?;
    if existing.is_some() && !arguments.force {
        return Err(Report::error(
            "import/recorded",
            format!(
                "`{}` is recorded already; nothing was changed",
                resource.address
            ),
        )
        .at(resource.at.clone())
        .fix("if the record is wrong, pass `--force`: a copy of it is kept")
        .exit(Exit::Usage)
        .into());
    }
    let driver = engine
        .driver(&resource.address, &resource.provider, &resource.kind)
        .map_err(|problem| problem.at(resource.at.clone()).exit(Exit::Usage))?;
    let observed = look(&engine, resource, driver, arguments.id.as_deref()).await?;
    if let Some(taken) = taken(&engine, resource, &observed.provider_id).await? {
        return Err(taken.at(resource.at.clone()).into());
    }
    let backup = match &existing {
        Some(record) => Some(back_up(desk, &engine, record).await?),
        None => None,
    };
    let record = record_of(&engine, resource, driver, observed, existing.as_ref());
    engine
        .store
        .put(lease, &record)
        .await
        .map_err(Report::from)?;
    desk.ui.say(Event::Result {
        text: format!(
            "Imported `{}` ({}) id={} provider={}, as it is. The next plan compares it with the config.\n",
            record.resource_id, record.resource_type, record.provider_id, record.provider_ref
        ),
    });
    if let Some(backup) = &backup {
        desk.ui
            .note(format!("The record it replaced is kept in {backup}."));
    }
    desk.emit(&json!({
        "command": "infra import",
        "config": config.path,
        "environment": config.environment,
        "exit_code": 0,
        "changed": true,
        "failed": false,
        "resource": {
            "resource": record.resource_id,
            "type": record.resource_type,
            "provider": record.provider_ref,
            "provider_id": record.provider_id,
            "source": record.tidegate.applied_config_source,
            "replaced": existing.is_some(),
        },
        "backup": backup,
    }));
    Ok(Exit::Done)
}

async fn look(
    engine: &Engine<'_>,
    resource: &Resource,
    driver: &dyn Driver,
    id: Option<&str>,
) -> Result<Observed, Problems> {
    let by_name = Recorded::by_name(resource.address.clone(), resource.kind.clone());
    let provider = &engine.providers[&resource.provider];
    let answer = match id {
        Some(id) => {
            let by_id = Recorded {
                provider_id: id.to_owned(),
                ..by_name
            };
            let imported = if provider.abilities().contains(&Ability::Import) {
                Some(provider.import(&resource.address, &resource.kind, id).await)
            } else {
                None
            };
            match imported {
                // Plugins say that they can, and some cannot: then the id is enough to read it.
                None => driver.read(&by_id).await,
                Some(Err(error)) if error.class == ErrorClass::Unimplemented => {
                    driver.read(&by_id).await
                }
                Some(answer) => answer,
            }
        }
        None if driver.can_adopt(&resource.kind) => driver.read(&by_name).await,
        None => Err(DriverError::new(
            ErrorClass::Unimplemented,
            "this provider cannot look it up by name",
        )),
    };
    engine.cancel.go_on()?;
    let mut observed = answer.map_err(|error| {
        let report = match error.class {
            ErrorClass::NotFound => Report::error(
                "import/not-found",
                format!("there is no such {} to import", resource.kind),
            )
            .fix("check `--id`, or let `infra apply` make it"),
            ErrorClass::Unimplemented if id.is_none() => Report::error(
                "import/needs-id",
                format!("`{}` cannot be found by its name", resource.address),
            )
            .fix("pass the provider's id of it: `--id ID`")
            .exit(Exit::Usage),
            _ => Report::error(
                "provider/failed",
                format!(
                    "provider `{}` could not look for `{}`",
                    resource.provider, resource.address
                ),
            )
            .fix("nothing was changed; remove the cause, then run the command again"),
        };
        report.at(resource.at.clone()).because(format!(
            "{} ({})",
            error.message,
            error.class.word()
        ))
    })?;
    if observed.provider_id.is_empty() {
        id.unwrap_or_default().clone_into(&mut observed.provider_id);
    }
    if observed.provider_id.is_empty() {
        return Err(Report::error(
            "import/no-id",
            format!(
                "the provider knows `{}` but tells no id of it; nothing was recorded",
                resource.address
            ),
        )
        .at(resource.at.clone())
        .fix("pass its id: `--id ID`")
        .into());
    }
    Ok(observed)
}

/// Why a live resource cannot be recorded once more: two records of one would change, and delete, each
/// other's.
async fn taken(
    engine: &Engine<'_>,
    resource: &Resource,
    id: &str,
) -> Result<Option<Report>, Problems> {
    let is_it = |record: &Record| {
        record.provider_id == id && record.resource_type == resource.kind.as_str()
    };
    let refused = |message: String| {
        Report::error("import/taken", message)
            .because(format!("its provider calls it `{id}`; nothing was changed"))
            .exit(Exit::Usage)
    };
    let own = engine.store.list().await.map_err(Report::from)?;
    let other = own.iter().find(|record| {
        record.resource_id != resource.address
            && owner_of(engine, record) == resource.provider
            && is_it(record)
    });
    if let Some(other) = other {
        let name = &other.resource_id;
        return Ok(Some(
            refused(format!("it is recorded already, as `{name}`")).fix(format!(
                "if that is its old name: `tidegate state mv {name} {}`",
                resource.address
            )),
        ));
    }
    for environment in engine.store.environments().await.map_err(Report::from)? {
        if environment == engine.store.environment() {
            continue;
        }
        let Some(store) = engine.store.beside(&environment).map_err(Report::from)? else {
            continue;
        };
        let others = store.list().await.map_err(Report::from)?;
        // The same module name means the same account there.
        let is_its = |record: &Record| {
            is_it(record)
                && (record.provider_ref.is_empty()
                    || record.provider_ref == resource.provider.as_str())
        };
        if let Some(other) = others.iter().find(|record| is_its(record)) {
            let name = &other.resource_id;
            return Ok(Some(
                refused(format!(
                    "it belongs to environment `{environment}`, where it is recorded as `{name}`"
                ))
                .fix(format!(
                    "if it is to be this environment's: `tidegate state rm {name} --env {environment}` first"
                )),
            ));
        }
    }
    Ok(None)
}

fn record_of(
    engine: &Engine<'_>,
    resource: &Resource,
    driver: &dyn Driver,
    observed: Observed,
    existing: Option<&Record>,
) -> Record {
    let (config, outputs) = split_config(engine, driver, observed.outputs);
    let observed = Observed {
        outputs: sort_outputs(engine, resource, driver, outputs),
        ..observed
    };
    let spec = Spec {
        address: resource.address.clone(),
        kind: resource.kind.clone(),
        config: Map::new(),
        public_config: config,
        dependencies: resource.depends_on.clone(),
    };
    adopt(
        engine,
        &resource.provider,
        &spec,
        &observed,
        resource.protected,
        existing,
    )
}

fn adopt(
    engine: &Engine<'_>,
    provider: &ProviderId,
    spec: &Spec,
    observed: &Observed,
    protected: bool,
    prior: Option<&Record>,
) -> Record {
    from_observed(
        &Applied {
            environment: &engine.config.environment,
            provider: engine.providers[provider].name(),
            provider_ref: provider.as_str(),
            spec,
            observed,
            source: "adoption",
            protected,
            adopted: true,
            error: "",
            prior,
        },
        &engine.keyring,
        engine.random.as_ref(),
    )
}

/// The config a provider says the resource was made with, taken out of the outputs. Only one that
/// anybody may see: a secret in it could not be told from other text.
fn split_config(
    engine: &Engine<'_>,
    driver: &dyn Driver,
    mut outputs: Outputs,
) -> (PublicMap, Outputs) {
    let promises = |name: &str| driver.is_sensitive(name) == Some(true);
    for name in CONFIG_OUTPUTS {
        // A record's config is not sealed.
        let is_config =
            |value: &Json| value.is_object() && !holds_credential(value, &promises, &engine.masker);
        if let Some(Output::Public(value)) = outputs.get(name)
            && is_config(value)
            && let Some(Output::Public(Json::Object(config))) = outputs.remove(name)
        {
            return (config, outputs);
        }
    }
    (PublicMap::new(), outputs)
}

/// Keeps a copy of a record, sealed parts sealed. Answers where.
async fn back_up(desk: &Desk, engine: &Engine<'_>, record: &Record) -> Result<String, Problems> {
    let serial = engine
        .store
        .head()
        .await
        .map_err(Report::from)?
        .map_or(0, |head| head.serial);
    let what = format!(
        "record-{}-serial-{serial}",
        encode(record.resource_id.as_str())
    );
    let bytes = record.document().map_err(Report::from)?;
    let file = desk
        .keep_copy(engine.config, &what, &bytes)
        .map_err(|error| {
            Report::error(
                "import/no-backup",
                "the record that would be replaced cannot be copied; nothing was changed",
            )
            .because(error.to_string())
            .fix("make that folder writable, then run the command again")
        })?;
    Ok(file.display().to_string())
}

/// What becomes of one listed resource.
enum Fate {
    Imported(Address),
    WouldImport(Address),
    Recorded(Address),
    /// Another environment has it, or is making it.
    Elsewhere(String),
    Undeclared,
    Failed(String),
}

impl Fate {
    fn word(&self) -> &'static str {
        match self {
            Self::Imported(_) => "imported",
            Self::WouldImport(_) => "would-import",
            Self::Recorded(_) => "recorded",
            Self::Elsewhere(_) => "elsewhere",
            Self::Undeclared => "undeclared",
            Self::Failed(_) => "failed",
        }
    }

    fn address(&self) -> Option<&Address> {
        match self {
            Self::Imported(address) | Self::WouldImport(address) | Self::Recorded(address) => {
                Some(address)
            }
            Self::Elsewhere(_) | Self::Undeclared | Self::Failed(_) => None,
        }
    }

    fn error(&self) -> Option<&str> {
        match self {
            Self::Failed(why) => Some(why),
            Self::Elsewhere(environment) => Some(environment),
            _ => None,
        }
    }
}

/// Runs `infra import-all`.
pub async fn all(desk: &Desk, arguments: &ImportAllArgs) -> CommandResult {
    let config = desk.load(&arguments.config)?;
    let opened = desk.open(&config).await?;
    let result = all_opened(desk, arguments, &config, &opened).await;
    opened.close().await;
    result
}

async fn all_opened(
    desk: &Desk,
    arguments: &ImportAllArgs,
    config: &Config,
    opened: &Opened,
) -> CommandResult {
    if arguments.dry_run {
        return import_all(desk, arguments, config, opened, None).await;
    }
    let lease = opened
        .lock(desk, "infra import-all", arguments.lock_timeout)
        .await?;
    let result = import_all(desk, arguments, config, opened, Some(&lease)).await;
    unlock(desk, opened, &lease, result).await
}

async fn import_all(
    desk: &Desk,
    arguments: &ImportAllArgs,
    config: &Config,
    opened: &Opened,
    lease: Option<&Lease>,
) -> CommandResult {
    let engine = opened.engine(desk, config, 1, lease.is_some()).await?;
    if let Some(lease) = lease {
        settle(desk, &engine, lease).await?;
    }
    let kind = Kind::new(arguments.kind.clone());
    let able = super::cleanup::chosen(&engine, Some(&arguments.provider), &kind)?;
    let Some((id, provider)) = able.into_iter().next() else {
        return Err(cannot_list(&[]).into());
    };
    let found = provider
        .enumerate(&kind)
        .await
        .map_err(|error| not_listed(id, &kind, &error))?;
    let records = engine.store.list().await.map_err(Report::from)?;
    let others = of_others(&engine).await.map_err(Report::from)?;
    let mut taken: BTreeSet<Address> = records
        .iter()
        .map(|record| record.resource_id.clone())
        .collect();
    let mut rows = Vec::new();
    for one in found {
        let (name, provider_id) = (one.name.clone(), one.provider_id.clone());
        let recorded = records.iter().find(|record| {
            is_same_provider(&engine, &owner_of(&engine, record), id)
                && record.resource_type == kind.as_str()
                && record.provider_id == provider_id
        });
        let elsewhere = others.whose(&kind, &provider_id, &Address::new(name.clone()));
        let fate = match (recorded, elsewhere) {
            (Some(record), _) => Fate::Recorded(record.resource_id.clone()),
            (None, Some(environment)) => Fate::Elsewhere(format!(
                "on record in environment `{environment}`, or being made there, and left alone"
            )),
            (None, None) => take(&engine, arguments, id, one, lease, &mut taken).await,
        };
        rows.push((name, provider_id, fate));
    }
    Ok(tell_all(desk, config, &rows, arguments.dry_run))
}

/// One listed resource. Its failure is its own.
async fn take(
    engine: &Engine<'_>,
    arguments: &ImportAllArgs,
    id: &ProviderId,
    found: Found,
    lease: Option<&Lease>,
    taken: &mut BTreeSet<Address>,
) -> Fate {
    let resource = engine.config.resources.iter().find(|resource| {
        resource.provider == *id
            && resource.kind == found.kind
            && resource.address.as_str() == found.name
    });
    let address = match resource {
        Some(resource) => resource.address.clone(),
        None if arguments.undeclared => Address::new(format!("{}/{}", found.kind, found.name)),
        None => return Fate::Undeclared,
    };
    if !taken.insert(address.clone()) {
        return Fate::Failed(format!("`{address}` is recorded with another id"));
    }
    let driver = match engine.driver(&address, id, &found.kind) {
        Ok(driver) => driver,
        Err(problem) => return Fate::Failed(problem.message),
    };
    let prior = Recorded {
        provider_id: found.provider_id.clone(),
        ..Recorded::by_name(Address::new(found.name), found.kind.clone())
    };
    let mut observed = match driver.read(&prior).await {
        Ok(observed) => observed,
        Err(error) => return Fate::Failed(format!("{} ({})", error.message, error.class.word())),
    };
    if observed.provider_id.is_empty() {
        observed.provider_id = found.provider_id;
    }
    if observed.provider_id.is_empty() {
        return Fate::Failed("the provider tells no id of it".to_owned());
    }
    let Some(lease) = lease else {
        return Fate::WouldImport(address);
    };
    let record = match resource {
        Some(resource) => record_of(engine, resource, driver, observed, None),
        None => {
            let (config, outputs) = split_config(engine, driver, observed.outputs);
            let observed = Observed {
                outputs: crate::apply::sealing::live_outputs(
                    engine,
                    declared_as(engine, &address),
                    driver,
                    &prior,
                    outputs,
                ),
                ..observed
            };
            let spec = Spec {
                address: address.clone(),
                kind: found.kind,
                config: Map::new(),
                public_config: config,
                dependencies: BTreeSet::new(),
            };
            // Nobody asked for it by name, so nothing may delete it without naming it.
            adopt(engine, id, &spec, &observed, true, None)
        }
    };
    match engine.store.put(lease, &record).await {
        Ok(_) => Fate::Imported(address),
        Err(error) => Fate::Failed(error.to_string()),
    }
}

fn tell_all(desk: &Desk, config: &Config, rows: &[(String, String, Fate)], dry_run: bool) -> Exit {
    let number = |word: &str| rows.iter().filter(|row| row.2.word() == word).count();
    let exit = match (number("failed"), number("imported")) {
        (0, _) => Exit::Done,
        (_, 0) => Exit::Failed,
        _ => Exit::Partial,
    };
    desk.emit(&json!({
        "command": "infra import-all",
        "config": config.path,
        "environment": config.environment,
        "dry_run": dry_run,
        "exit_code": exit as u8,
        "changed": number("imported") > 0,
        "failed": exit != Exit::Done,
        "resources": rows.iter().map(|(name, provider_id, fate)| json!({
            "name": name,
            "provider_id": provider_id,
            "status": fate.word(),
            "resource": fate.address(),
            "error": fate.error(),
        })).collect::<Vec<_>>(),
    }));
    if !desk.global.json {
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|(name, provider_id, fate)| {
                vec![
                    name.clone(),
                    provider_id.clone(),
                    fate.word().to_owned(),
                    fate.address().map(ToString::to_string).unwrap_or_default(),
                    fate.error().unwrap_or_default().to_owned(),
                ]
            })
            .collect();
        desk.ui.data(&table::render(
            &["NAME", "ID", "STATUS", "RESOURCE", "DETAIL"],
            &cells,
        ));
        if number("undeclared") > 0 {
            desk.ui.note(format!(
                "{} not in the config: declare them, or pass `--undeclared` to record them as protected.",
                count(number("undeclared"), "resource")
            ));
        }
        desk.ui.say(Event::Result {
            text: format!(
                "{} {}, {} recorded before, {} failed.\n",
                if dry_run { "Would import" } else { "Imported" },
                number("imported") + number("would-import"),
                number("recorded"),
                number("failed")
            ),
        });
    }
    exit
}
