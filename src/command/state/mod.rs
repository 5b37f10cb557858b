//! `state …`: one environment's state, looked at and changed by hand. Every change happens under
//! the lock, is shown and approved first when it can lose something, and leaves a copy of what was
//! there before.

mod carry;
mod change;
mod damage;
mod foreign;
mod look;
mod settle;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::copies::key_beside;
use super::up::ask;
use super::{CommandResult, Desk, Problems, environments};
use crate::cli::{ChangeArgs, ConfigArgs, StateCommand};
use crate::clock::rfc3339;
use crate::config::{Config, Needs};
use crate::disk::{DiskError, DiskExt as _};
use crate::random::encode_hex;
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::secret::Keyring;
use crate::state::{Damage, Lease, Salvage, Snapshot, Store, StoreError, lease};

/// How long a lock is given back for when we are to stop.
const PARTING: Duration = Duration::from_secs(3);
/// Largest document read.
const DOCUMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Runs one of the commands.
pub async fn run(desk: &Desk, command: &StateCommand) -> CommandResult {
    let room = &or_stopped(desk, Room::open(desk, command.name())).await?;
    match command {
        StateCommand::List(arguments) => or_stopped(desk, room.list(arguments)).await,
        StateCommand::Show { name } => or_stopped(desk, room.show(name)).await,
        StateCommand::Verify => or_stopped(desk, room.verify()).await,
        StateCommand::Pull { output } => or_stopped(desk, room.pull(output.as_deref())).await,
        StateCommand::Backup { output, with_key } => {
            or_stopped(desk, room.backup(output.as_deref(), *with_key)).await
        }
        StateCommand::Rm(arguments) => room.rm(arguments).await,
        StateCommand::Mv(arguments) => room.mv(arguments).await,
        StateCommand::Push(arguments) => room.push(arguments).await,
        StateCommand::Restore(arguments) => room.restore(arguments).await,
        StateCommand::Wipe(arguments) => room.wipe(arguments).await,
        StateCommand::Settle(arguments) => room.settle(arguments).await,
        StateCommand::Unlock(arguments) => or_stopped(desk, room.unlock(arguments)).await,
        StateCommand::Migrate(arguments) => room.migrate(arguments).await,
        StateCommand::Export(arguments) => or_stopped(desk, room.export(arguments)).await,
        StateCommand::Import(arguments) => room.import(arguments).await,
    }
}

/// Waits for something that may be given up at any moment, until somebody asks us to stop.
async fn or_stopped<T>(
    desk: &Desk,
    work: impl Future<Output = Result<T, Problems>>,
) -> Result<T, Problems> {
    tokio::select! {
        biased;
        () = desk.cancel.cancelled() => Err(told(StoreError::Cancelled)),
        done = work => done,
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
        let config = desk.load_for(Needs::RECORDS, &ConfigArgs::default())?;
        desk.warn_of_no_environment(&config);
        let store = desk.open_store(&config, None).await?;
        desk.knows_environment(&config, store.as_ref()).await?;
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
        match self.store.snapshot().await.map_err(told)? {
            Some(snapshot) => Ok(snapshot),
            None => Err(self.nothing().await?),
        }
    }

    /// The same, of a state that is worth keeping: a lock alone leaves one that holds nothing.
    async fn need_content(&self) -> Result<Snapshot, Problems> {
        let snapshot = self.need_snapshot().await?;
        if snapshot.holds_nothing() {
            return Err(self.nothing().await?);
        }
        Ok(snapshot)
    }

    /// That there is nothing, and which environments the store has instead: most often one of them was
    /// meant.
    async fn nothing(&self) -> Result<Problems, Problems> {
        let report = Report::error(
            "state/empty",
            format!(
                "nothing is recorded for environment `{}` in {}",
                self.config.environment,
                self.store.location()
            ),
        )
        .exit(Exit::Usage);
        let others = self.other_environments().await?;
        let fix = if others.is_empty() {
            "check `--env` and `--config`".to_owned()
        } else {
            format!(
                "that store has {}; name the one that is meant with `--env`",
                environments::listed(&others)
            )
        };
        Ok(report.fix(fix).into())
    }

    /// What else this store has.
    async fn other_environments(&self) -> Result<Vec<String>, Problems> {
        let mut names = self.store.environments().await.map_err(told)?;
        names.retain(|name| *name != self.config.environment);
        Ok(names)
    }

    /// The state as it stands. Of a damaged one, with `force`, what can be read of it: what cannot is
    /// named, and lost with the change that follows.
    async fn before(&self, force: bool) -> Result<(Snapshot, Vec<Damage>), Problems> {
        let error = match self.store.snapshot().await {
            Err(error @ StoreError::Corrupt { .. }) if force => error,
            Err(error) => return Err(told(error)),
            Ok(Some(snapshot)) => return Ok((snapshot, Vec::new())),
            Ok(None) => return self.need_snapshot().await.map(|it| (it, Vec::new())),
        };
        let Some(salvage) = Salvage::of(self.store.as_ref()).await.map_err(told)? else {
            return Err(told(error));
        };
        let mut named = Vec::new();
        for damage in salvage.damage {
            if let StoreError::Newer { .. } = damage.error {
                return Err(told(damage.error));
            }
            let warning = Report::warning("state/damaged", damage.error.to_string());
            self.desk.ui.say(Event::Problem(Box::new(warning)));
            named.push(damage);
        }
        Ok((salvage.snapshot, named))
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
        let held = lease::keep(
            self.store.as_ref(),
            &lease,
            self.desk.clock.as_ref(),
            // What is being written when somebody stops us is there as a whole or not at all.
            or_stopped(self.desk, work(&lease)),
        )
        .await;
        let result = held.map_err(told).and_then(|done| done);
        let unlocked = self.give_back(self.store.as_ref(), &lease).await;
        let value = result?;
        unlocked?;
        Ok(value)
    }

    /// Gives a lock back. A store that does not answer is not waited for when we are to stop: the
    /// lease lapses by itself.
    async fn give_back(&self, store: &dyn Store, lease: &Lease) -> Result<(), Problems> {
        let given_back = async { store.unlock(lease).await.map_err(told) };
        tokio::select! {
            biased;
            answer = given_back => answer,
            () = async {
                self.desk.cancel.cancelled().await;
                self.desk.clock.sleep(PARTING).await;
            } => Err(told(StoreError::Cancelled)),
        }
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
        // The lineage tells whose copy it is; it comes from the store, so it is no name of ours.
        let lineage: String = snapshot
            .lineage
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(8)
            .collect();
        let what = format!("serial-{}-{lineage}", snapshot.serial);
        let bytes = snapshot.encode().map_err(told)?;
        let path = self
            .desk
            .keep_copy(&self.config, &what, &bytes)
            .map_err(on_disk)?;
        self.note(format!(
            "A copy of the state as it was in {} is in {}; `tidegate state restore` takes it back.",
            self.store.location(),
            path.display()
        ));
        Ok(path)
    }

    /// Keeps the state key beside a copy, when it is kept in the store and nowhere else: without it
    /// nothing that is sealed in the copy ever opens again.
    async fn keep_key_of(&self, copy: &Path) -> Result<Option<PathBuf>, Problems> {
        if self.desk.has_outside_key(&self.config)? {
            return Ok(None);
        }
        let Some(key) = self.store.key(false).await.map_err(told)? else {
            return Ok(None);
        };
        let path = key_beside(copy);
        let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(encode_hex(&*key))));
        self.keep_document(&path, text.as_bytes())?;
        self.note(format!(
            "The state key is in {}, in the clear: whoever has both files reads every secret.",
            path.display()
        ));
        Ok(Some(path))
    }

    /// A file of our own choosing.
    fn keep_document(&self, path: &Path, bytes: &[u8]) -> Result<(), Problems> {
        let disk = self.desk.disk.as_ref();
        disk.write_atomic(path, bytes, 0o600).map_err(on_disk)
    }

    /// A file that somebody named.
    fn write_document(&self, path: &Path, bytes: &[u8]) -> Result<(), Problems> {
        let written = self.desk.write_named(path, bytes, 0o600);
        Ok(written.map_err(|why| Report::error("state/file", why))?)
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
