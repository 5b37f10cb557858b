//! Commands that change nothing: list, show, verify, pull, backup.

use std::path::Path;

use serde_json::{Value, json};

use super::{Room, told};
use crate::cli::ListArgs;
use crate::command::{CommandResult, environments};
use crate::config::is_sensitive_name;
use crate::face::{count, table};
use crate::report::{Exit, Report};
use crate::resource::Address;
use crate::state::journal::open_intents;
use crate::state::record::to_recorded;
use crate::state::telltale::{is_secret_text, named};
use crate::state::{Filter, Head, Page, Record, Salvage, Snapshot, StoreError};

impl Room<'_> {
    pub(super) async fn list(&self, arguments: &ListArgs) -> CommandResult {
        let mut parts = Vec::new();
        for part in &arguments.filter {
            parts.push(part.split_once('=').ok_or_else(|| {
                told(StoreError::Invalid(format!(
                    "`--filter {part}` is not of the form KEY=VALUE"
                )))
            })?);
        }
        let filter = Filter::parse(parts).map_err(told)?;
        let page = Page {
            after: arguments.after.as_deref().map(Address::new),
            limit: arguments.limit.map(|limit| limit as usize),
        };
        let listing = self.store.find(&filter, &page).await.map_err(told)?;
        let environments = self.store.environments().await.map_err(told)?;
        let holder = self.store.holder().await.map_err(told)?;
        self.emit(
            Exit::Done,
            json!({
                "environments": environments,
                "lock": holder.as_ref().map(|(holder, _)| holder),
                "next": listing.next,
                "resources": listing.records.iter().map(|record| json!({
                    "resource": record.resource_id,
                    "type": record.resource_type,
                    "provider": record.provider,
                    "provider_id": record.provider_id,
                    "status": record.status,
                    "version": record.tidegate.version,
                    "updated_at": record.updated_at,
                })).collect::<Vec<_>>(),
            }),
        );
        if self.desk.global.json {
            return Ok(Exit::Done);
        }
        if listing.records.is_empty() {
            self.note("No resources are recorded for this environment, or none match.");
        } else {
            let rows: Vec<Vec<String>> = listing
                .records
                .iter()
                .map(|record| {
                    vec![
                        record.resource_id.to_string(),
                        record.resource_type.clone(),
                        record.provider.clone(),
                        record.provider_id.clone(),
                        record.status.clone(),
                    ]
                })
                .collect();
            let headers = ["NAME", "TYPE", "PROVIDER", "PROVIDER ID", "STATUS"];
            self.desk.ui.data(&table::render(&headers, &rows));
        }
        if let Some(next) = listing.next {
            self.note(format!("There are more: go on with `--after {next}`."));
        }
        if let Some((holder, expires_in)) = holder {
            self.note(format!(
                "Locked by {} since {} (`tidegate {}`, run {}{}); the lease lasts {} s more.",
                holder.who,
                holder.since,
                holder.command,
                holder.run_id,
                holder
                    .run_url
                    .map(|url| format!(", {url}"))
                    .unwrap_or_default(),
                expires_in.as_secs()
            ));
        }
        Ok(Exit::Done)
    }

    pub(super) async fn show(&self, name: &str) -> CommandResult {
        let address = Address::new(name);
        let record = self.need_record(&address).await?;
        let shown = shown(&record);
        self.emit(Exit::Done, json!({ "record": shown }));
        if !self.desk.global.json {
            let text = serde_json::to_string_pretty(&shown).unwrap_or_default();
            self.desk.ui.data(&format!("{text}\n"));
        }
        Ok(Exit::Done)
    }

    pub(super) async fn need_record(
        &self,
        address: &Address,
    ) -> Result<Record, crate::command::Problems> {
        match self.store.get(address).await.map_err(told)? {
            Some(record) => Ok(record),
            None => Err(Report::error(
                "state/no-record",
                format!("no resource `{address}` is recorded"),
            )
            .fix("`tidegate state list` shows what is")
            .exit(Exit::Usage)
            .into()),
        }
    }

    /// Reads everything, and goes on after each problem as far as that makes sense.
    pub(super) async fn verify(&self) -> CommandResult {
        let mut problems: Vec<Report> = Vec::new();
        let mut keep = |error: StoreError| problems.push(Report::from(error));
        let head = self.store.head().await.unwrap_or_else(|error| {
            keep(error);
            None
        });
        let salvaged = match &head {
            Some(_) => Salvage::of(self.store.as_ref()).await,
            None => Ok(None),
        };
        let (snapshot, damage) = match salvaged {
            Ok(Some(salvage)) => (Some(salvage.snapshot), salvage.damage),
            Ok(None) => (None, Vec::new()),
            Err(error) => {
                keep(error);
                (None, Vec::new())
            }
        };
        damage.into_iter().for_each(|damage| keep(damage.error));
        let snapshot = snapshot.unwrap_or_else(|| {
            let head = head.clone().unwrap_or_else(|| Head {
                lineage: String::new(),
                serial: 0,
                fence: 0,
            });
            Snapshot::nothing(&self.config.environment, &head)
        });
        let aside = self.store.aside().await.unwrap_or_else(|error| {
            keep(error);
            None
        });
        let (records, keepsakes) = (&snapshot.records, &snapshot.keepsakes);
        match self.keyring(false).await {
            Ok(Some(keyring)) => {
                for record in records {
                    let opened = to_recorded(
                        record,
                        &self.config.environment,
                        &keyring,
                        &self.desk.masker,
                    );
                    if let Err(error) = opened {
                        problems.push(error.into());
                    }
                }
                for (key, keepsake) in keepsakes {
                    let here = keepsake_place(&self.config.environment, key);
                    let is_shut = keepsake
                        .sealed
                        .as_ref()
                        .is_some_and(|sealed| keyring.open_bytes(&here, sealed).is_err());
                    if is_shut {
                        problems.push(Report::error(
                            "state/sealed",
                            format!("the kept value `{key}` does not open"),
                        ));
                    }
                }
            }
            Ok(None) => {}
            Err(found) => problems.extend(found.0),
        }
        let open = open_intents(&snapshot.journal).len();
        let exit = if problems.is_empty() {
            Exit::Done
        } else {
            Exit::Failed
        };
        self.emit(
            exit,
            json!({
                "keepsakes": keepsakes.len(),
                "lineage": head.as_ref().map(|head| &head.lineage),
                "open_intents": open,
                "problems": problems.iter().map(crate::command::problem_json).collect::<Vec<_>>(),
                "records": records.len(),
                "serial": head.as_ref().map(|head| head.serial),
            }),
        );
        if open > 0 {
            self.note(format!(
                "{open} intents have no known outcome: a run was cut off. The next apply settles \
                 them."
            ));
        }
        if let Some((path, outcomes)) = aside {
            self.note(format!(
                "{} of an earlier run wait in {}, and open.",
                count(outcomes, "outcome"),
                path.display()
            ));
        }
        let others = if snapshot.holds_nothing() && problems.is_empty() {
            self.other_environments().await?
        } else {
            Vec::new()
        };
        if !others.is_empty() {
            self.note(format!(
                "Nothing is recorded for environment `{}`; this store has {}.",
                self.config.environment,
                environments::listed(&others)
            ));
        }
        if problems.is_empty() {
            self.note(format!(
                "{}: {}, {}, all whole.",
                self.store.location(),
                count(records.len(), "record"),
                count(keepsakes.len(), "kept value")
            ));
            return Ok(exit);
        }
        if self.desk.global.json {
            return Ok(exit);
        }
        Err(problems.into())
    }

    pub(super) async fn pull(&self, output: Option<&Path>) -> CommandResult {
        let snapshot = self.need_snapshot().await?;
        let bytes = snapshot.encode().map_err(told)?;
        if let Some(path) = output {
            self.write_document(path, &bytes)?;
            self.note(format!(
                "Wrote serial {} with {} to {}.",
                snapshot.serial,
                count(snapshot.records.len(), "record"),
                path.display()
            ));
        } else if !self.desk.global.json {
            self.desk.ui.data(&String::from_utf8_lossy(&bytes));
        }
        self.emit(
            Exit::Done,
            json!({
                "digest": snapshot.digest().map_err(told)?,
                "lineage": snapshot.lineage,
                "output": output,
                "records": snapshot.records.len(),
                "serial": snapshot.serial,
            }),
        );
        Ok(Exit::Done)
    }

    pub(super) async fn backup(&self, output: Option<&Path>, with_key: bool) -> CommandResult {
        let snapshot = self.need_content().await?;
        let path = match output {
            Some(path) => {
                self.write_document(path, &snapshot.encode().map_err(told)?)?;
                path.to_owned()
            }
            None => self.keep_copy(&snapshot)?,
        };
        let key = if with_key {
            self.keep_key_of(&path).await?
        } else {
            None
        };
        self.emit(
            Exit::Done,
            json!({
                "digest": snapshot.digest().map_err(told)?,
                "key": key,
                "lineage": snapshot.lineage,
                "output": path,
                "records": snapshot.records.len(),
                "serial": snapshot.serial,
            }),
        );
        Ok(Exit::Done)
    }
}

/// Where `apply` sealed it.
fn keepsake_place(environment: &str, key: &str) -> String {
    format!("{environment}/{key}")
}

/// A record for eyes: sealed parts are named, not shown, and what another program may have left
/// in the clear is hidden by its name.
fn shown(record: &Record) -> Value {
    let mut value = crate::state::upstream::public_form(record);
    for part in ["config", "outputs"] {
        if let Some(value) = value.get_mut(part) {
            hide("", value);
        }
    }
    let extension = &record.tidegate;
    if let Some(object) = value.as_object_mut() {
        object.insert(
            "tidegate".to_owned(),
            json!({
                "format": extension.format,
                "environment": extension.environment,
                "applied_config_source": extension.applied_config_source,
                "protected": extension.protected,
                "provider_status": extension.provider_status,
                "sealed": extension.sealed.keys().collect::<Vec<_>>(),
                "has_private": !extension.private.is_empty(),
                "version": extension.version,
            }),
        );
    }
    value
}

fn hide(name: &str, value: &mut Value) {
    match value {
        Value::Object(map) if !map.contains_key("$secret") => {
            let beside = named(map).unwrap_or_default().to_owned();
            for (name, value) in map {
                let name = if name == "value" && is_sensitive_name(&beside) {
                    &beside
                } else {
                    name
                };
                hide(name, value);
            }
        }
        Value::Array(items) => {
            for item in items {
                hide(name, item);
            }
        }
        Value::String(text) if is_secret_text(name, text) => *value = json!("***MASKED***"),
        Value::Number(_) if is_sensitive_name(name) => *value = json!("***MASKED***"),
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
