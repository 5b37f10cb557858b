//! `state …`: one environment's state, looked at and changed by hand. Every change happens under
//! the lock, is shown and approved first when it can lose something, and leaves a copy of what was
//! there before.

mod carry;
mod change;
mod foreign;
mod look;
mod settle;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::up::ask;
use super::{CommandResult, Desk, Problems};
use crate::cli::{ChangeArgs, ConfigArgs, StateCommand};
use crate::clock::rfc3339;
use crate::config::Config;
use crate::disk::{DiskError, DiskExt as _};
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::secret::Keyring;
use crate::state::{Lease, Snapshot, Store, StoreError, name};

/// Folder of copies, beside the config.
const BACKUPS: &str = ".tidegate/backups";
/// Largest document read.
const DOCUMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Runs one of the commands.
pub async fn run(desk: &Desk, command: &StateCommand) -> CommandResult {
    let room = Room::open(desk, command.name()).await?;
    match command {
        StateCommand::List(arguments) => room.list(arguments).await,
        StateCommand::Show { name } => room.show(name).await,
        StateCommand::Verify => room.verify().await,
        StateCommand::Pull { output } => room.pull(output.as_deref()).await,
        StateCommand::Backup { output } => room.backup(output.as_deref()).await,
        StateCommand::Rm(arguments) => room.rm(arguments).await,
        StateCommand::Mv(arguments) => room.mv(arguments).await,
        StateCommand::Push(arguments) => room.push(arguments).await,
        StateCommand::Restore(arguments) => room.restore(arguments).await,
        StateCommand::Wipe(arguments) => room.wipe(arguments).await,
        StateCommand::Settle(arguments) => room.settle(arguments).await,
        StateCommand::Unlock(arguments) => room.unlock(arguments).await,
        StateCommand::Migrate(arguments) => room.migrate(arguments).await,
        StateCommand::Export(arguments) => room.export(arguments).await,
        StateCommand::Import(arguments) => room.import(arguments).await,
    }
}

/// One environment's state, open.
struct Room<'a> {
    desk: &'a Desk,
    command: &'static str,
    config: Config,
    store: Arc<dyn Store>,
}

fn told(error: StoreError) -> Problems {
    Report::from(error).into()
}

fn on_disk(error: DiskError) -> Problems {
    Report::error("state/file", error.to_string()).into()
}

impl<'a> Room<'a> {
    async fn open(desk: &'a Desk, command: &'static str) -> Result<Self, Problems> {
        let config = desk.load(&ConfigArgs::default())?;
        let store = desk.open_store(&config, None).await?;
        Ok(Self {
            desk,
            command,
            config,
            store,
        })
    }

    /// The fields every document of this family has, and the command's own.
    fn emit(&self, exit: Exit, own: Value) {
        let mut document = json!({
            "command": self.command,
            "config": self.config.path,
            "environment": self.config.environment,
            "exit_code": exit as u8,
            "failed": exit != Exit::Done,
        });
        if let (Some(document), Value::Object(own)) = (document.as_object_mut(), own) {
            document.extend(own);
        }
        self.desk.emit(&document);
    }

    fn note(&self, text: impl Into<String>) {
        self.desk.ui.note(text.into());
    }

    /// Everything, or an error when there is nothing.
    async fn need_snapshot(&self) -> Result<Snapshot, Problems> {
        self.store.snapshot().await.map_err(told)?.ok_or_else(|| {
            Report::error(
                "state/empty",
                format!("nothing is recorded in {}", self.store.location()),
            )
            .fix("check `--env` and `--config`")
            .exit(Exit::Usage)
            .into()
        })
    }

    /// Runs a change under the lock, and gives the lock back whatever came of it.
    async fn locked<T>(
        &self,
        change: &ChangeArgs,
        work: impl AsyncFnOnce(&Lease) -> Result<T, Problems>,
    ) -> Result<T, Problems> {
        let lease = self
            .desk
            .lock_store(self.store.as_ref(), self.command, change.lock_timeout)
            .await?;
        let result = work(&lease).await;
        let unlocked = self.store.unlock(&lease).await;
        let value = result?;
        unlocked.map_err(told)?;
        Ok(value)
    }

    /// Shows what is about to happen and waits for a yes.
    async fn approve(
        &self,
        change: &ChangeArgs,
        title: &str,
        lines: &[String],
    ) -> Result<(), Problems> {
        let desk = self.desk;
        desk.ui.say(Event::Section {
            title: format!("{title} ({})", self.config.environment),
        });
        desk.ui.say(Event::Block {
            text: lines.iter().map(|line| format!("{line}\n")).collect(),
        });
        if change.yes {
            return Ok(());
        }
        ask(desk, "Type `yes` to go on: ", "this change of the state").await?;
        Ok(())
    }

    /// Keeps a copy of what is there, before it is changed. Says where.
    fn keep_copy(&self, snapshot: &Snapshot) -> Result<PathBuf, Problems> {
        let at = rfc3339(self.desk.clock.now()).replace(['-', ':'], "");
        let folder = self
            .config
            .directory
            .join(BACKUPS)
            .join(name::encode(&self.config.environment));
        let disk = self.desk.disk.as_ref();
        disk.create_directories(&folder, 0o700).map_err(on_disk)?;
        let ignore = self.config.directory.join(BACKUPS).join(".gitignore");
        if disk.entry(&ignore).map_err(on_disk)?.is_none() {
            disk.write_atomic(&ignore, b"*\n", 0o600).map_err(on_disk)?;
        }
        // A second copy within the same second and of the same serial is the same copy.
        let path = folder.join(format!("{at}-serial-{}.json", snapshot.serial));
        self.write_document(&path, &snapshot.encode().map_err(told)?)?;
        self.note(format!(
            "A copy of the state as it was is in {}; `tidegate state restore` takes it back.",
            path.display()
        ));
        Ok(path)
    }

    fn write_document(&self, path: &Path, bytes: &[u8]) -> Result<(), Problems> {
        self.desk
            .disk
            .write_atomic(path, bytes, 0o600)
            .map_err(on_disk)
    }

    fn read_document(&self, path: &Path) -> Result<Vec<u8>, Problems> {
        self.desk
            .disk
            .read(path, DOCUMENT_BYTES_MAX)
            .map_err(on_disk)
    }

    /// The environment's keys; made when there are none and `create`.
    async fn keyring(&self, create: bool) -> Result<Option<Keyring>, Problems> {
        let key = self.store.key(create).await.map_err(told)?;
        Ok(key.map(|key| Keyring::new(&key)))
    }

    fn now(&self) -> String {
        rfc3339(self.desk.clock.now())
    }
}
