//! Commands that change the state of one environment in its place.

use std::path::Path;

use serde_json::json;

use super::{Room, told};
use crate::actions;
use crate::cli::{ChangeArgs, MvArgs, PushArgs, RestoreArgs, RmArgs, UnlockArgs};
use crate::command::{CommandResult, Problems};
use crate::face::count;
use crate::report::{Exit, Report};
use crate::resource::Address;
use crate::state::edit::{Seals, rename};
use crate::state::{Lease, Snapshot, is_key_of};

impl Room<'_> {
    pub(super) async fn rm(&self, arguments: &RmArgs) -> CommandResult {
        let mut addresses: Vec<Address> = arguments.names.iter().map(Address::new).collect();
        addresses.sort();
        addresses.dedup();
        let serial = self
            .locked(&arguments.change, async |lease| {
                let mut lines = Vec::new();
                for address in &addresses {
                    let record = self.need_record(address).await?;
                    lines.push(format!(
                        "- forget `{address}` ({}, {}); it stays in the world",
                        record.resource_type, record.provider_id
                    ));
                }
                self.approve(&arguments.change, "Forget", &lines).await?;
                let snapshot = self.need_snapshot().await?;
                self.keep_copy(&snapshot)?;
                let mut serial = snapshot.serial;
                for address in &addresses {
                    serial = self.store.delete(lease, address).await.map_err(told)?;
                }
                Ok(serial)
            })
            .await?;
        self.emit(
            Exit::Done,
            json!({ "changed": true, "removed": addresses, "serial": serial }),
        );
        self.note(format!("Forgot {}.", count(addresses.len(), "record")));
        Ok(Exit::Done)
    }

    pub(super) async fn mv(&self, arguments: &MvArgs) -> CommandResult {
        let (from, to) = (Address::new(&arguments.from), Address::new(&arguments.to));
        let serial = self
            .locked(&arguments.change, async |lease| {
                let before = self.need_snapshot().await?;
                let record = self.need_record(&from).await?;
                if from == to || self.store.get(&to).await.map_err(told)?.is_some() {
                    return Err(Report::error(
                        "state/exists",
                        format!("`{to}` is recorded already"),
                    )
                    .fix("forget it first (`tidegate state rm`), or take another name")
                    .exit(Exit::Usage)
                    .into());
                }
                let lines = [format!("~ `{from}` becomes `{to}` in the records")];
                self.approve(&arguments.change, "Rename", &lines).await?;
                self.keep_copy(&before)?;
                let keyring = self.keyring(true).await?.ok_or_else(no_key)?;
                let seals = Seals {
                    keyring: &keyring,
                    masker: &self.desk.masker,
                    random: self.desk.random.as_ref(),
                };
                let renamed = rename(&record, &self.config.environment, &to, seals)
                    .map_err(|error| Problems::from(Report::from(error)))?;
                let mut after = before.clone();
                for record in &mut after.records {
                    if record.resource_id == from {
                        record.clone_from(&renamed);
                    } else if record.dependencies.contains(&from) {
                        for name in &mut record.dependencies {
                            if *name == from {
                                name.clone_from(&to);
                            }
                        }
                    } else {
                        continue;
                    }
                    record.tidegate.version += 1;
                    record.updated_at = self.now();
                }
                self.replace(lease, &before, after).await
            })
            .await?;
        self.emit(
            Exit::Done,
            json!({ "changed": true, "from": from, "serial": serial, "to": to }),
        );
        self.note(format!("`{from}` is recorded as `{to}` now."));
        Ok(Exit::Done)
    }

    /// Loads a changed state as the next serial of the same lineage.
    pub(super) async fn replace(
        &self,
        lease: &Lease,
        before: &Snapshot,
        mut after: Snapshot,
    ) -> Result<u64, Problems> {
        after
            .records
            .sort_by(|left, right| left.resource_id.cmp(&right.resource_id));
        after.lineage.clone_from(&before.lineage);
        after.serial = before.serial + 1;
        self.store.load(lease, &after).await.map_err(told)?;
        Ok(after.serial)
    }

    pub(super) async fn push(&self, arguments: &PushArgs) -> CommandResult {
        self.put_back(&arguments.file, arguments.force, &arguments.change, "Push")
            .await
    }

    pub(super) async fn restore(&self, arguments: &RestoreArgs) -> CommandResult {
        // Going back is the point; that the copy is older is no reason to refuse it.
        self.put_back(&arguments.file, true, &arguments.change, "Restore")
            .await
    }

    async fn put_back(
        &self,
        file: &Path,
        force: bool,
        change: &ChangeArgs,
        title: &str,
    ) -> CommandResult {
        let what = format!("`{}`", file.display());
        let incoming = Snapshot::decode(&self.read_document(file)?, &what).map_err(told)?;
        if incoming.environment != self.config.environment {
            return Err(Report::error(
                "state/other-environment",
                format!(
                    "{what} is the state of environment `{}`, not of `{}`",
                    incoming.environment, self.config.environment
                ),
            )
            .exit(Exit::Usage)
            .into());
        }
        let serial = self
            .locked(change, async |lease| {
                let before = self.need_snapshot().await?;
                let is_fresh = before.serial == 0 && before.records.is_empty();
                if !is_fresh && !force {
                    refuse_strangers(&incoming, &before, &what)?;
                }
                self.check_key(&incoming).await?;
                let lines = difference(&before, &incoming);
                self.approve(change, title, &lines).await?;
                if !is_fresh {
                    self.keep_copy(&before)?;
                }
                let mut after = incoming.clone();
                if is_fresh {
                    self.store.load(lease, &after).await.map_err(told)?;
                    return Ok(after.serial);
                }
                // Always forward: a plan that was made from what is there now is stale.
                after.serial = after.serial.max(before.serial) + 1;
                if force {
                    after.lineage.clone_from(&before.lineage);
                }
                self.store.load(lease, &after).await.map_err(told)?;
                Ok(after.serial)
            })
            .await?;
        self.emit(
            Exit::Done,
            json!({
                "changed": true,
                "digest": incoming.digest().map_err(told)?,
                "records": incoming.records.len(),
                "serial": serial,
            }),
        );
        self.note(format!(
            "The state is that of {what} now: {}.",
            count(incoming.records.len(), "record")
        ));
        Ok(Exit::Done)
    }

    /// What is sealed in a document must open here.
    pub(super) async fn check_key(&self, incoming: &Snapshot) -> Result<(), Problems> {
        if incoming.sealed_values() == 0 {
            return Ok(());
        }
        let fits = match self.store.key(false).await.map_err(told)? {
            Some(key) => is_key_of(incoming, &key),
            None => false,
        };
        if fits {
            return Ok(());
        }
        Err(Report::error(
            "state/other-key",
            "values in this document are sealed with a key that this store does not have",
        )
        .fix("set TIDEGATE_STATE_KEY to the key it was sealed with")
        .fix("between two stores, `tidegate state migrate` takes the key along")
        .into())
    }

    pub(super) async fn wipe(&self, change: &ChangeArgs) -> CommandResult {
        if self.store.head().await.map_err(told)?.is_none() {
            self.emit(Exit::Done, json!({ "changed": false, "removed": [] }));
            self.note("Nothing is recorded for this environment.");
            return Ok(Exit::Done);
        }
        let lease = self
            .desk
            .lock_store(self.store.as_ref(), self.command, change.lock_timeout)
            .await?;
        let ready = self.before_wipe(change).await;
        if let Err(problems) = ready {
            self.store.unlock(&lease).await.map_err(told)?;
            return Err(problems);
        }
        let removed = self.store.wipe(lease).await.map_err(told)?;
        self.emit(Exit::Done, json!({ "changed": true, "removed": removed }));
        self.note(format!(
            "Removed the state of environment `{}`: {}.",
            self.config.environment,
            count(removed.len(), "record")
        ));
        Ok(Exit::Done)
    }

    async fn before_wipe(&self, change: &ChangeArgs) -> Result<(), Problems> {
        let snapshot = self.need_snapshot().await?;
        let mut lines: Vec<String> = snapshot
            .records
            .iter()
            .map(|record| {
                format!(
                    "- forget `{}` ({}); it stays in the world",
                    record.resource_id, record.resource_type
                )
            })
            .collect();
        lines.push(format!(
            "- {} kept values, {} journal entries, and the state key if it is kept in the store",
            snapshot.keepsakes.len(),
            snapshot.journal.len()
        ));
        self.approve(change, "Wipe the state", &lines).await?;
        self.keep_copy(&snapshot)?;
        Ok(())
    }

    pub(super) async fn unlock(&self, arguments: &UnlockArgs) -> CommandResult {
        let run_id = match &arguments.run_id {
            Some(run_id) => run_id.clone(),
            None => match self.own_lock().await? {
                Some(run_id) => run_id,
                None => {
                    self.emit(Exit::Done, json!({ "changed": false, "holder": null }));
                    return Ok(Exit::Done);
                }
            },
        };
        let freed = self.store.force_unlock(&run_id).await.map_err(told)?;
        self.emit(
            Exit::Done,
            json!({ "changed": freed.is_some(), "holder": freed }),
        );
        match freed {
            Some(holder) => self.note(format!(
                "Freed the lock that {} held since {} (`tidegate {}`, run {}). If that run still \
                 lives, it can write nothing more.",
                holder.who, holder.since, holder.command, holder.run_id
            )),
            None => self.note("The state is not locked."),
        }
        Ok(Exit::Done)
    }

    /// The holder's run id when the holder is this workflow run and attempt.
    async fn own_lock(&self) -> Result<Option<String>, Problems> {
        let ours = actions::Context::from_variables(&self.desk.settings.variables)
            .and_then(|context| context.run_url())
            .ok_or_else(|| {
                Report::error(
                    "state/not-in-actions",
                    "`--if-mine` compares workflow runs, and this is none",
                )
                .fix("outside GitHub Actions, name the run: `tidegate state unlock RUN-ID`")
                .exit(Exit::Usage)
            })?;
        match self.store.holder().await.map_err(told)? {
            None => {
                self.note("The state is not locked.");
                Ok(None)
            }
            Some((holder, _)) if holder.run_url.as_deref() == Some(ours.as_str()) => {
                Ok(Some(holder.run_id))
            }
            Some((holder, _)) => {
                self.note(format!(
                    "The lock is that of another run ({}{}); it is left alone.",
                    holder.who,
                    holder
                        .run_url
                        .map(|url| format!(", {url}"))
                        .unwrap_or_default()
                ));
                Ok(None)
            }
        }
    }
}

pub(super) fn no_key() -> Problems {
    Report::error("state/sealed", "this store has no state key")
        .fix("set TIDEGATE_STATE_KEY")
        .into()
}

fn refuse_strangers(incoming: &Snapshot, before: &Snapshot, what: &str) -> Result<(), Problems> {
    let why = if incoming.lineage != before.lineage {
        format!(
            "{what} is of lineage {}, the state is of {}",
            incoming.lineage, before.lineage
        )
    } else if incoming.serial < before.serial {
        format!(
            "{what} has serial {}, the state has gone on to {}",
            incoming.serial, before.serial
        )
    } else {
        return Ok(());
    };
    Err(Report::error("state/conflict", why)
        .fix("pull again and make the change anew, or pass `--force` to lose what came since")
        .exit(Exit::Locked)
        .into())
}

/// What a document changes, record by record.
fn difference(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let find = |snapshot: &Snapshot, address: &Address| {
        snapshot
            .records
            .iter()
            .find(|record| record.resource_id == *address)
            .cloned()
    };
    let mut lines = Vec::new();
    for record in &after.records {
        match find(before, &record.resource_id) {
            None => lines.push(format!("+ `{}`", record.resource_id)),
            Some(old) if old != *record => lines.push(format!(
                "~ `{}` (version {} → {})",
                record.resource_id, old.tidegate.version, record.tidegate.version
            )),
            Some(_) => {}
        }
    }
    for record in &before.records {
        if find(after, &record.resource_id).is_none() {
            lines.push(format!("- `{}`", record.resource_id));
        }
    }
    if before.keepsakes != after.keepsakes {
        lines.push("~ kept values".to_owned());
    }
    if before.journal != after.journal {
        lines.push("~ the journal".to_owned());
    }
    if lines.is_empty() {
        lines.push("Nothing changes.".to_owned());
    }
    lines
}
