//! Records of other tools: taken over, and written back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;

use super::change::no_key;
use super::{Room, on_disk, told};
use crate::cli::{ExportArgs, ExportFormat, ImportArgs, ImportFormat, MigrateArgs};
use crate::command::{CommandResult, Problems};
use crate::disk::{DiskExt as _, EntryKind};
use crate::face::count as plural;
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::state::edit::{Seals, seal_foreign};
use crate::state::postgres::Server;
use crate::state::postgres::upstream as database;
use crate::state::record::RECORD_BYTES_MAX;
use crate::state::tfstate::Imported;
use crate::state::{Lease, Record, StoreError, tfstate, upstream};

/// A record whose own tool calls nothing sensitive.
fn undeclared(record: Record) -> Imported {
    Imported {
        record,
        sensitive: BTreeSet::new(),
    }
}

/// What is wrong with a document of another tool is nothing that our own store could repair.
fn told_of_theirs(error: StoreError) -> Problems {
    match error {
        StoreError::Corrupt { .. } => Report::error("state/foreign-document", error.to_string())
            .because("nothing was taken over, and the state is as it was")
            .fix("correct it with the tool that wrote it, then run this again")
            .into(),
        error => told(error),
    }
}

impl Room<'_> {
    /// `migrate --from upstream`.
    pub(super) async fn adopt(&self, arguments: &MigrateArgs) -> CommandResult {
        let (records, origin) = match (&arguments.source, &arguments.source_variable) {
            (Some(folder), _) => (self.their_files(folder)?, folder.display().to_string()),
            (None, Some(variable)) => {
                let server = self.server_of(variable)?;
                let records = database::read(&server).await.map_err(told)?;
                (records, format!("the database in {variable}"))
            }
            (None, None) => {
                return Err(Report::error(
                    "state/no-source",
                    "`--from upstream` needs a place to read from",
                )
                .fix("`--source FOLDER` for files and objects, `--source-variable NAME` for their database")
                .exit(Exit::Usage)
                .into());
            }
        };
        let count = records.len();
        let records = records.into_iter().map(undeclared).collect();
        let serial = self
            .locked(&arguments.change, async |lease| {
                self.take_in(
                    lease,
                    records,
                    &arguments.change,
                    arguments.force,
                    "Take over",
                )
                .await
            })
            .await?;
        self.emit(
            Exit::Done,
            json!({
                "changed": count > 0,
                "digest": null,
                "from": origin,
                "records": count,
                "serial": serial,
                "to": self.store.location(),
            }),
        );
        self.note(format!(
            "Took over {} from {origin}, which is left as it was.",
            plural(count, "record")
        ));
        Ok(Exit::Done)
    }

    fn their_files(&self, folder: &Path) -> Result<Vec<Record>, Problems> {
        let disk = self.desk.disk.as_ref();
        let mut files = BTreeMap::new();
        let mut folders = Vec::new();
        for file in disk.list(folder).map_err(on_disk)? {
            let path = folder.join(&file);
            match disk.entry(&path).map_err(on_disk)? {
                Some(EntryKind::File { .. }) => {
                    files.insert(file, disk.read(&path, RECORD_BYTES_MAX).map_err(on_disk)?);
                }
                Some(EntryKind::Directory) => folders.push(format!("`{}`", path.display())),
                _ => {}
            }
        }
        let found = upstream::read(&files).map_err(told_of_theirs)?;
        if found.records.is_empty() {
            let mut nothing = Report::error(
                "state/no-source",
                format!("there is no record in `{}`", folder.display()),
            )
            .exit(Exit::Usage);
            if !folders.is_empty() {
                nothing = nothing
                    .because(format!("it holds folders: {}", folders.join(", ")))
                    .fix("name the one with the records; in a copied bucket that is its prefix, such as `iac-state`");
            }
            return Err(nothing
                .fix("check `--source`: it is the folder whose `.json` files are the records")
                .into());
        }
        for lock in &found.locks {
            self.desk.ui.say(Event::Problem(Box::new(
                Report::warning(
                    "state/foreign-lock",
                    format!("there is a lock of theirs, `{lock}`: somebody may be writing"),
                )
                .fix("make sure that the other tool does not run any more"),
            )));
        }
        Ok(found.records)
    }

    fn server_of(&self, variable: &str) -> Result<Server, Problems> {
        let text = self
            .desk
            .settings
            .variables
            .non_empty(variable)
            .ok_or_else(|| {
                Report::error(
                    "state/connection",
                    format!("the variable `{variable}` is not set"),
                )
                .exit(Exit::Usage)
            })?;
        let masker = &self.desk.masker;
        let text = masker.admit(variable, text.to_owned());
        Server::from_connection_string(
            &text,
            None,
            &self.config.directory,
            self.desk.disk.as_ref(),
            masker,
        )
        .map_err(told)
    }

    /// Puts foreign records into the state, all or none, with nothing secret left in the clear.
    async fn take_in(
        &self,
        lease: &Lease,
        records: Vec<Imported>,
        change: &crate::cli::ChangeArgs,
        force: bool,
        title: &str,
    ) -> Result<u64, Problems> {
        let keyring = self.keyring(true).await?.ok_or_else(no_key)?;
        let before = self.need_snapshot().await?;
        let environment = &self.config.environment;
        let seals = Seals {
            keyring: &keyring,
            masker: &self.desk.masker,
            random: self.desk.random.as_ref(),
        };
        let mut after = before.clone();
        let mut lines = Vec::new();
        let mut taken = Vec::new();
        for imported in records {
            let Imported {
                mut record,
                mut sensitive,
            } = imported;
            let address = record.resource_id.clone();
            let existing = before
                .records
                .iter()
                .find(|existing| existing.resource_id == address);
            let mut remarks = String::new();
            match existing {
                Some(existing) => {
                    taken.push(address.to_string());
                    record = tfstate::rejoin(record, existing);
                }
                None => {
                    record.tidegate = crate::state::record::Extension {
                        version: before.serial,
                        ..crate::state::record::Extension::default()
                    }
                }
            }
            record.tidegate.environment.clone_from(environment);
            record.tidegate.version += 1;
            sensitive.extend(self.declared_sensitive(&record));
            let found = seal_foreign(&mut record, environment, &sensitive, seals);
            if found.outputs + found.config > 0 {
                remarks = format!(
                    ", {} values were in the clear and are not any more",
                    found.outputs + found.config
                );
            }
            let unknown = tfstate::unknown_outputs(&record);
            if !unknown.is_empty() {
                remarks = format!(
                    "{remarks}, {} kept elsewhere until the next refresh",
                    unknown.join(", ")
                );
            }
            let sign = if existing.is_some() { '~' } else { '+' };
            lines.push(format!(
                "{sign} `{address}` ({}){remarks}",
                record.resource_type
            ));
            after.records.retain(|other| other.resource_id != address);
            after.records.push(record);
        }
        if !taken.is_empty() && !force {
            return Err(Report::error(
                "state/not-empty",
                format!("recorded here already: {}", taken.join(", ")),
            )
            .fix("forget them first (`tidegate state rm`), or pass `--force` where it is offered")
            .exit(Exit::Usage)
            .into());
        }
        if lines.is_empty() {
            self.note("There is nothing to take over.");
            return Ok(before.serial);
        }
        self.approve(change, title, &lines).await?;
        self.keep_copy(&before)?;
        self.replace(lease, &before, after).await
    }

    /// The outputs that the config calls sensitive.
    fn declared_sensitive(&self, record: &Record) -> Vec<String> {
        let resources = self.config.resources.iter();
        resources
            .filter(|resource| resource.address == record.resource_id)
            .flat_map(|resource| &resource.outputs)
            .filter(|(_, output)| output.sensitive)
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(super) async fn import(&self, arguments: &ImportArgs) -> CommandResult {
        let bytes = self.read_document(&arguments.file)?;
        let what = format!("`{}`", arguments.file.display());
        let tfstate::Document { records, deposed } = match arguments.from {
            ImportFormat::Tfstate => {
                tfstate::import(&bytes, &what, &self.now()).map_err(told_of_theirs)?
            }
        };
        for (name, id) in deposed {
            let warning = Report::warning(
                "state/foreign-deposed",
                format!(
                    "the old `{name}` (`{id}`), which waits to be deleted there, is not taken over"
                ),
            )
            .fix("delete it with the tool that wrote the document, or at the provider");
            self.desk.ui.say(Event::Problem(Box::new(warning)));
        }
        let count = records.len();
        let serial = self
            .locked(&arguments.change, async |lease| {
                // An export of ours that comes back meets its own records.
                self.take_in(lease, records, &arguments.change, true, "Import")
                    .await
            })
            .await?;
        self.emit(
            Exit::Done,
            json!({ "changed": count > 0, "records": count, "serial": serial }),
        );
        self.note(format!("Imported {} from {what}.", plural(count, "record")));
        Ok(Exit::Done)
    }

    /// What lies there already would be taken for part of this export by whoever reads it: a resource
    /// that was forgotten here would be back.
    fn refuse_others(&self, others: &[String], place: &str) -> Result<(), Problems> {
        if others.is_empty() {
            return Ok(());
        }
        Err(Report::error(
            "state/not-empty",
            format!("{place} has records of other names: {}", others.join(", ")),
        )
        .because("whoever reads it would take them for part of this export; nothing was written")
        .fix("remove what an earlier export left there, or name another place")
        .exit(Exit::Usage)
        .into())
    }

    pub(super) async fn export(&self, arguments: &ExportArgs) -> CommandResult {
        let snapshot = self.need_snapshot().await?;
        let mut place = arguments
            .output
            .as_ref()
            .map(|path| path.display().to_string());
        match arguments.format {
            ExportFormat::Tfstate => {
                let mut text =
                    serde_json::to_string_pretty(&tfstate::export(&snapshot)).unwrap_or_default();
                text.push('\n');
                match &arguments.output {
                    Some(path) => self.write_document(path, text.as_bytes())?,
                    None if !self.desk.global.json => self.desk.ui.data(&text),
                    None => {}
                }
            }
            ExportFormat::Upstream => match (&arguments.output, &arguments.target_variable) {
                (Some(folder), _) => {
                    let disk = self.desk.disk.as_ref();
                    let files = upstream::write(&snapshot.records).map_err(told)?;
                    disk.create_directories(folder, 0o750).map_err(on_disk)?;
                    let mut others = disk.list(folder).map_err(on_disk)?;
                    others.retain(|file| file.ends_with(".json") && !files.contains_key(file));
                    self.refuse_others(&others, &format!("`{}`", folder.display()))?;
                    for (file, bytes) in files {
                        disk.write_atomic(&folder.join(file), &bytes, 0o600)
                            .map_err(on_disk)?;
                    }
                }
                (None, Some(variable)) => {
                    let server = self.server_of(variable)?;
                    let others = database::write(&server, &snapshot.records)
                        .await
                        .map_err(told)?;
                    self.refuse_others(
                        &others,
                        &format!("the table `iac_resources` at `{}`", server.place()),
                    )?;
                    place = Some(format!("the database in {variable}"));
                }
                (None, None) => {
                    return Err(Report::error(
                        "state/no-source",
                        "`--format upstream` needs a place to write to",
                    )
                    .fix("`-o FOLDER` for files, `--target-variable NAME` for their database")
                    .exit(Exit::Usage)
                    .into());
                }
            },
        }
        self.emit(
            Exit::Done,
            json!({
                "output": place,
                "records": snapshot.records.len(),
                "serial": snapshot.serial,
            }),
        );
        if let Some(place) = place {
            self.note(format!(
                "Wrote {} to {place}; sensitive values are placeholders there.",
                plural(snapshot.records.len(), "record")
            ));
        }
        Ok(Exit::Done)
    }
}
