//! Commands that change the state of one environment in its place.

use std::path::Path;

use serde_json::json;

use super::{Room, on_disk, or_stopped, told};
use crate::actions;
use crate::apply::deposed;
use crate::cli::{ChangeArgs, MvArgs, PushArgs, RestoreArgs, RmArgs, UnlockArgs, WipeArgs};
use crate::command::copies::key_beside;
use crate::command::state_key::Key;
use crate::command::{CommandResult, Problems};
use crate::face::count;
use crate::report::{Exit, Report};
use crate::resource::Address;
use crate::secret::Keyring;
use crate::state::edit::{Seals, rename};
use crate::state::journal::open_intents;
use crate::state::{Damage, Entry, Keepsake, Lease, Snapshot, StoreError, is_key_of, lease};

/// Kept values of this kind are the only memory of something that is still to be deleted.
const DEPOSED: &str = "deposed/";

/// A document that becomes the state.
pub(super) struct Back<'a> {
    pub(super) file: &'a Path,
    /// The key it is sealed with, when it is not the store's.
    key_file: Option<&'a Path>,
    force: bool,
    pub(super) title: &'static str,
}

/// What is to be forgotten of a damaged state.
struct Gone<'a> {
    addresses: &'a [Address],
    before: Snapshot,
    damage: Vec<Damage>,
}

/// What a run was cut off in is looked up by its name and its record: neither may go before that.
fn refuse_unsettled(before: &Snapshot, addresses: &[Address]) -> Result<(), Problems> {
    let unsettled = open_intents(&before.journal)
        .into_iter()
        .find_map(|intent| match intent {
            Entry::Intent { address, .. } if addresses.contains(address) => Some(address),
            _ => None,
        });
    let Some(address) = unsettled else {
        return Ok(());
    };
    Err(Report::error(
        "state/unsettled",
        format!("a run was cut off while it worked on `{address}`, and nobody has looked yet what came of it"),
    )
    .because("that is looked up by this name and this record")
    .fix("let the next `tidegate up` or `tidegate infra refresh --prune` settle it first")
    .fix(format!("or say what came of it: `tidegate state settle {address} --id ID` or `… --absent`"))
    .exit(Exit::Usage)
    .into())
}

impl Room<'_> {
    pub(super) async fn rm(&self, arguments: &RmArgs) -> CommandResult {
        let mut addresses: Vec<Address> = arguments.names.iter().map(Address::new).collect();
        addresses.sort();
        addresses.dedup();
        let serial = self
            .locked(&arguments.change, async |lease| {
                let (before, damage) = self.before(arguments.force).await?;
                if !damage.is_empty() {
                    let gone = Gone {
                        addresses: &addresses,
                        before,
                        damage,
                    };
                    return self.drop_damaged(lease, &arguments.change, gone).await;
                }
                let mut lines = Vec::new();
                for address in &addresses {
                    let record = self.need_record(address).await?;
                    lines.push(format!(
                        "- forget `{address}` ({}, {}); it stays in the world",
                        record.resource_type, record.provider_id
                    ));
                }
                refuse_unsettled(&before, &addresses)?;
                self.approve(&arguments.change, "Forget", &lines).await?;
                self.keep_copy(&before)?;
                let mut serial = before.serial;
                for address in &addresses {
                    self.disown(lease, address).await?;
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

    /// What is forgotten stays in the world, also when a replacement of it was cut off.
    async fn disown(&self, lease: &Lease, address: &Address) -> Result<(), Problems> {
        let kept = format!("{DEPOSED}{address}");
        if self.store.keepsake(&kept).await.map_err(told)?.is_none() {
            return Ok(());
        }
        let record = self.need_record(address).await?;
        let keyring = self.keyring(false).await?.ok_or_else(no_key)?;
        let room = deposed::Sealed {
            store: self.store.as_ref(),
            keyring: &keyring,
            random: self.desk.random.as_ref(),
            now: self.now(),
        };
        deposed::disown(&room, lease, &record).await.map_err(told)
    }

    /// Forgets records of a state that cannot be read as a whole. What is damaged goes with them, so
    /// it has to be named.
    async fn drop_damaged(
        &self,
        lease: &Lease,
        change: &ChangeArgs,
        gone: Gone<'_>,
    ) -> Result<u64, Problems> {
        let Gone {
            addresses,
            before,
            damage,
        } = gone;
        let is_named = |name: &str| addresses.iter().any(|address| address.as_str() == name);
        let is_damaged = |address: &Address| {
            let name = Some(address.as_str());
            damage.iter().any(|damage| damage.name.as_deref() == name)
        };
        let others: Vec<String> = damage
            .iter()
            .filter_map(|damage| damage.name.as_deref())
            .filter(|name| !is_named(name))
            .map(|name| format!("`{name}`"))
            .collect();
        if !others.is_empty() {
            return Err(Report::error(
                "state/damaged",
                format!("these cannot be read either: {}", others.join(", ")),
            )
            .because("the state is written anew from what can be read, which would lose them")
            .fix("name them too, or put a backup in its place (`tidegate state restore FILE`)")
            .exit(Exit::Usage)
            .into());
        }
        let mut lines = Vec::new();
        for address in addresses {
            let record = before
                .records
                .iter()
                .find(|record| record.resource_id == *address);
            match record {
                Some(record) => lines.push(format!(
                    "- forget `{address}` ({}, {}); it stays in the world",
                    record.resource_type, record.provider_id
                )),
                None if is_damaged(address) => {
                    lines.push(format!("- drop `{address}`, which cannot be read"));
                }
                // What is missing has no name any more.
                None if damage.iter().any(|damage| damage.name.is_none()) => {
                    lines.push(format!("- go on without `{address}`"));
                }
                None => drop(self.need_record(address).await?),
            }
        }
        for damage in damage.iter().filter(|damage| damage.name.is_none()) {
            lines.push(format!("- go on although {}", damage.error));
        }
        self.approve(change, "Forget", &lines).await?;
        self.keep_copy(&before)?;
        let mut after = before.clone();
        after
            .records
            .retain(|record| !is_named(record.resource_id.as_str()));
        after.keepsakes.retain(|key, _| !is_named(key));
        self.replace(lease, &before, after).await
    }

    pub(super) async fn mv(&self, arguments: &MvArgs) -> CommandResult {
        let (from, to) = (Address::new(&arguments.from), Address::new(&arguments.to));
        if !is_name(&arguments.to) {
            return Err(Report::error(
                "state/name",
                format!("{:?} cannot be the name of a resource", arguments.to),
            )
            .fix("take a text without control characters and `${`, as a config has it")
            .exit(Exit::Usage)
            .into());
        }
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
                if record.provider == "local"
                    && record.outputs.get("engine") == Some(&json!("postgres"))
                {
                    return Err(Report::error(
                        "state/name",
                        format!("`{from}` cannot be given another name"),
                    )
                    .because(
                        "it is a database on a server, which the local provider finds by the name \
                         of its module",
                    )
                    .fix("keep the module's name")
                    .exit(Exit::Usage)
                    .into());
                }
                refuse_unsettled(&before, &[from.clone(), to.clone()])?;
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
                    if record.resource_id == to {
                        // Of whatever had this name before, it is none.
                        record.tidegate.version = before.serial;
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
        self.store.load(lease, &after, None).await.map_err(told)?;
        Ok(after.serial)
    }

    pub(super) async fn push(&self, arguments: &PushArgs) -> CommandResult {
        let back = Back {
            file: &arguments.file,
            key_file: None,
            force: arguments.force,
            title: "Push",
        };
        self.put_back(back, &arguments.change).await
    }

    pub(super) async fn restore(&self, arguments: &RestoreArgs) -> CommandResult {
        // Going back is the point; that the copy is older is no reason to refuse it.
        let back = Back {
            file: &arguments.file,
            key_file: arguments.key_file.as_deref(),
            force: true,
            title: "Restore",
        };
        self.put_back(back, &arguments.change).await
    }

    async fn put_back(&self, back: Back<'_>, change: &ChangeArgs) -> CommandResult {
        let Back { file, force, .. } = back;
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
        if force && let Some(error) = self.store.beheaded().await.map_err(told)? {
            return self.put_over_damage(&incoming, &back, change, &error).await;
        }
        let serial = self
            .locked(change, async |lease| {
                let (before, damage) = self.before(force).await?;
                let is_fresh = before.serial == 0 && before.records.is_empty() && damage.is_empty();
                if !is_fresh && !force {
                    refuse_strangers(&incoming, &before, &what)?;
                }
                let key = self.key_of(&incoming, &back).await?;
                let mut after = incoming.clone();
                if !is_fresh {
                    // Always forward: a plan that was made from what is there now is stale.
                    after.serial = after.serial.max(before.serial) + 1;
                    if force {
                        after.lineage.clone_from(&before.lineage);
                    }
                }
                let mut lines = difference(&before, &incoming);
                lines.extend(
                    self.keep_unsettled(&before, &mut after, key.as_ref())
                        .await?,
                );
                let lost = damage.iter().filter_map(|damage| damage.name.as_deref());
                lines.extend(lost.map(|name| format!("~ `{name}`, which cannot be read")));
                self.approve(change, back.title, &lines).await?;
                if !is_fresh {
                    let copy = self.keep_copy(&before)?;
                    if key.is_some() && before.sealed_values() > 0 {
                        self.keep_key_if_any(&copy).await?;
                    }
                }
                let loaded = self.store.load(lease, &after, key.as_deref()).await;
                loaded.map_err(told)?;
                Ok(after.serial)
            })
            .await?;
        self.say_put_back(&incoming, serial, &what)
    }

    pub(super) fn say_put_back(
        &self,
        incoming: &Snapshot,
        serial: u64,
        what: &str,
    ) -> CommandResult {
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

    /// What is sealed in a document must open here. Answers the key that has to come along for that;
    /// `None` when the store has it.
    pub(super) async fn key_of(
        &self,
        incoming: &Snapshot,
        back: &Back<'_>,
    ) -> Result<Option<Key>, Problems> {
        if incoming.sealed_values() == 0 {
            return Ok(None);
        }
        let beside = key_beside(back.file);
        let file = match back.key_file {
            Some(file) => Some(file),
            None => self
                .desk
                .disk
                .entry(&beside)
                .map_err(on_disk)?
                .map(|_| beside.as_path()),
        };
        match (self.store.key(false).await, file) {
            (Ok(Some(key)), _) if is_key_of(incoming, &key) => return Ok(None),
            // One that is lost is what the file is for.
            (Ok(_) | Err(StoreError::Corrupt { .. }), _) if file.is_some() => {}
            // A damaged state does not tell its own key; one from outside is known all the same.
            (Err(StoreError::Corrupt { .. }), None) => {
                let declared = self.desk.declared(&self.config)?;
                let outside = self.desk.state_key(&self.config, &declared)?;
                if outside.is_some_and(|key| is_key_of(incoming, &key)) {
                    return Ok(None);
                }
            }
            (Ok(_) | Err(StoreError::Corrupt { .. }), _) => {}
            (Err(error), _) => return Err(told(error)),
        }
        let other = Report::error(
            "state/other-key",
            "values in this document are sealed with a key that this store does not have",
        );
        let Some(file) = file else {
            return Err(other
                .fix("set TIDEGATE_STATE_KEY to the key it was sealed with, or name a `--key-file`")
                .fix("between two stores, `tidegate state migrate` takes the key along")
                .into());
        };
        let declared = self.desk.declared(&self.config)?;
        let key = self.desk.key_in(&self.config, &declared, file)?;
        if !is_key_of(incoming, &key) {
            return Err(other
                .because(format!("the one in `{}` is another one", file.display()))
                .into());
        }
        if self.desk.has_outside_key(&self.config)? {
            return Err(other
                .because("the key of this store is kept outside it")
                .fix(format!(
                    "set TIDEGATE_STATE_KEY to the one in `{}`, or make it the `key_file`",
                    file.display()
                ))
                .into());
        }
        Ok(Some(key))
    }

    /// The key of what goes, beside its copy. One that is lost is what a restore may be for.
    async fn keep_key_if_any(&self, copy: &Path) -> Result<(), Problems> {
        match self.store.key(false).await {
            Err(error @ StoreError::Corrupt { .. }) => {
                self.note(format!("No key is kept beside that copy: {error}."));
                Ok(())
            }
            _ => self.keep_key_of(copy).await.map(drop),
        }
    }

    /// What no document of an earlier time can know goes along with it: what a run that was cut off may
    /// have done, and old ones that wait to be deleted. Says so, line by line. `key` is the one that
    /// comes along, if one does.
    async fn keep_unsettled(
        &self,
        before: &Snapshot,
        after: &mut Snapshot,
        key: Option<&Key>,
    ) -> Result<Vec<String>, Problems> {
        let mut lines = Vec::new();
        for intent in open_intents(&before.journal) {
            if after.journal.contains(intent) {
                continue;
            }
            after.journal.push(intent.clone());
            lines.extend(said(intent).map(|what| {
                format!("= stays: the intent to {what}, of a run that was cut off; nobody knows what came of it")
            }));
        }
        for (name, keepsake) in &before.keepsakes {
            let Some(address) = name.strip_prefix(DEPOSED) else {
                continue;
            };
            if after.keepsakes.get(name) == Some(keepsake) {
                continue;
            }
            let kept = match key {
                None => Some(keepsake.clone()),
                Some(key) => self.sealed_anew(name, keepsake, key).await?,
            };
            let Some(kept) = kept else {
                lines.push(format!(
                    "- the old `{address}` is forgotten: what is known of it does not open any more"
                ));
                continue;
            };
            after.keepsakes.insert(name.clone(), kept);
            lines.push(format!(
                "= stays: the old `{address}`, which waits to be deleted"
            ));
        }
        Ok(lines)
    }

    /// A kept value under another key; `None` when it does not open with ours.
    async fn sealed_anew(
        &self,
        name: &str,
        keepsake: &Keepsake,
        key: &Key,
    ) -> Result<Option<Keepsake>, Problems> {
        let own = match self.store.key(false).await {
            Ok(Some(own)) => Keyring::new(&own),
            Ok(None) | Err(StoreError::Corrupt { .. }) => return Ok(None),
            Err(error) => return Err(told(error)),
        };
        let place = format!("{}/{name}", self.config.environment);
        let plain = keepsake
            .sealed
            .as_deref()
            .and_then(|sealed| own.open_bytes(&place, sealed).ok());
        Ok(plain.map(|plain| Keepsake {
            sealed: Some(Keyring::new(key).seal_bytes(self.desk.random.as_ref(), &place, &plain)),
            ..keepsake.clone()
        }))
    }

    pub(super) async fn wipe(&self, arguments: &WipeArgs) -> CommandResult {
        let change = &arguments.change;
        if arguments.force
            && let Some(error) = self.store.beheaded().await.map_err(told)?
        {
            return self.wipe_beheaded(change, &error).await;
        }
        match self.store.head().await {
            Ok(None) => {
                self.emit(Exit::Done, json!({ "changed": false, "removed": [] }));
                self.note("Nothing is recorded for this environment.");
                return Ok(Exit::Done);
            }
            Ok(Some(_)) => {}
            // A head that is gone is made anew under the lock.
            Err(StoreError::Corrupt { .. }) if arguments.force => {}
            Err(error) => return Err(told(error)),
        }
        let lease = self
            .desk
            .lock_store(self.store.as_ref(), self.command, change.lock_timeout)
            .await?;
        let store = self.store.as_ref();
        let clock = self.desk.clock.as_ref();
        let ready = or_stopped(self.desk, self.before_wipe(arguments));
        let held = lease::keep(store, &lease, clock, ready).await;
        let (before, damage) = match held.map_err(told).and_then(|ready| ready) {
            Ok(ready) => ready,
            Err(problems) => {
                self.give_back(store, &lease).await?;
                return Err(problems);
            }
        };
        let removed = if damage.is_empty() {
            self.store.wipe(lease).await.map_err(told)?
        } else {
            self.store.wipe_damaged(lease).await.map_err(told)?;
            let records = before.records.into_iter();
            records.map(|record| record.resource_id).collect()
        };
        self.emit(Exit::Done, json!({ "changed": true, "removed": removed }));
        self.note(format!(
            "Removed the state of environment `{}`: {}.",
            self.config.environment,
            count(removed.len(), "record")
        ));
        Ok(Exit::Done)
    }

    async fn before_wipe(&self, arguments: &WipeArgs) -> Result<(Snapshot, Vec<Damage>), Problems> {
        let (snapshot, damage) = self.before(arguments.force).await?;
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
        lines.extend(open_intents(&snapshot.journal).into_iter().filter_map(said).map(
            |what| {
                format!("- among them the intent to {what}, of a run that was cut off: what it may have made, nobody will know of")
            },
        ));
        let old = snapshot.keepsakes.keys();
        lines.extend(old.filter_map(|key| key.strip_prefix(DEPOSED)).map(
            |address| format!("- among them the old `{address}`, which waits to be deleted; it stays in the world"),
        ));
        lines.extend(
            damage
                .iter()
                .map(|damage| format!("- what is damaged: {}", damage.error)),
        );
        self.approve(&arguments.change, "Wipe the state", &lines)
            .await?;
        let copy = self.keep_copy(&snapshot)?;
        if snapshot.sealed_values() > 0 {
            let kept = self.keep_key_of(&copy).await;
            // One that is lost cannot be kept, and is no reason to keep the rest.
            if !arguments.force {
                kept?;
            }
        }
        Ok((snapshot, damage))
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

    /// The holder's run id when the holder is this job of this workflow run and attempt, and may be dead.
    async fn own_lock(&self) -> Result<Option<String>, Problems> {
        let context = actions::Context::from_variables(&self.desk.settings.variables);
        let ours = context
            .as_ref()
            .and_then(|context| Some((context.run_url()?, context.own_job())));
        let (run, job) = ours.ok_or_else(|| {
            Report::error(
                "state/not-in-actions",
                "`--if-mine` compares workflow runs, and this is none",
            )
            .fix("outside GitHub Actions, name the run: `tidegate state unlock RUN-ID`")
            .exit(Exit::Usage)
        })?;
        let Some((holder, _)) = self.store.holder().await.map_err(told)? else {
            self.note("The state is not locked.");
            return Ok(None);
        };
        let processes = &self.desk.processes;
        let whose = if holder.run_url.as_deref() != Some(run.as_str()) {
            "another run"
        // Older programs did not tell the job.
        } else if !holder.job.is_empty() && holder.job != job {
            "another job of this run"
        } else if processes.is_neighbour(&holder.mark) && !processes.is_certainly_gone(&holder.mark)
        {
            "a process that still runs on this machine"
        } else {
            return Ok(Some(holder.run_id));
        };
        let more = [Some(holder.job), holder.run_url];
        let more: String = more
            .into_iter()
            .flatten()
            .filter(|text| !text.is_empty())
            .map(|text| format!(", {text}"))
            .collect();
        self.note(format!(
            "The lock is that of {whose} ({}{more}); it is left alone.",
            holder.who
        ));
        Ok(None)
    }
}

/// A name that a config could give.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains("${") && !name.chars().any(char::is_control)
}

pub(super) fn no_key() -> Problems {
    Report::error("state/sealed", "this store has no state key")
        .fix("set TIDEGATE_STATE_KEY")
        .into()
}

/// What an intent is about.
fn said(intent: &Entry) -> Option<String> {
    match intent {
        Entry::Intent {
            address, action, ..
        } => Some(format!("{} `{address}`", action.word())),
        _ => None,
    }
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
        // Kept values do not count in the serial: a saved plan lives on when they change.
        let is_lost = |key: &str, kept: &Keepsake| incoming.keepsakes.get(key) != Some(kept);
        let lost: Vec<String> = before
            .keepsakes
            .iter()
            .filter(|(key, kept)| is_lost(key, kept))
            .map(|(key, _)| format!("`{key}`"))
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        format!(
            "{what} does not have these kept values, or others in their place: {}",
            lost.join(", ")
        )
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
