//! `state migrate --to`: one environment from this store into another, proven by digest.

use std::cell::Cell;
use std::path::PathBuf;

use serde_json::json;

use super::{Room, or_stopped, told};
use crate::cli::{ConfigArgs, MigrateArgs};
use crate::command::{CommandResult, Problems};
use crate::config::Config;
use crate::face::count;
use crate::report::{Exit, Report};
use crate::state::{Lease, Snapshot, Store, lease};

/// A migration under way.
struct Ways<'a> {
    /// The store it goes to, with the config that says so.
    target: &'a Room<'a>,
    /// The lease of the store it comes from.
    source: &'a Lease,
    /// The target's.
    lease: &'a Lease,
    /// The serial of what is in the target, once it is there.
    arrived: &'a Cell<Option<u64>>,
}

impl Room<'_> {
    pub(super) async fn migrate(&self, arguments: &MigrateArgs) -> CommandResult {
        match &arguments.to {
            Some(to) => self.migrate_to(arguments, to).await,
            None => self.adopt(arguments).await,
        }
    }

    async fn migrate_to(&self, arguments: &MigrateArgs, to: &str) -> CommandResult {
        let room = self.target(to).await?;
        let target = &room.store;
        self.refuse_open_key(arguments, &room.config, target.as_ref())?;
        let change = &arguments.change;
        // Before a lock makes a state of it. What a run could not save counts: the lock saves it.
        if self.store.head().await.map_err(told)?.is_none()
            && self.store.aside().await.map_err(told)?.is_none()
        {
            return Err(self.nothing().await?);
        }
        // The serial that has arrived, once it has.
        let arrived = Cell::new(None);
        let moved = self
            .locked(change, async |source| {
                let snapshot = self.need_content().await?;
                self.refuse_itself(source, target.as_ref()).await?;
                let lease = self
                    .desk
                    .lock_store(target.as_ref(), self.command, change.lock_timeout)
                    .await?;
                let ways = Ways {
                    target: &room,
                    source,
                    lease: &lease,
                    arrived: &arrived,
                };
                let clock = self.desk.clock.as_ref();
                let work = or_stopped(self.desk, self.carry(arguments, ways, &snapshot));
                let held = lease::keep(target.as_ref(), &lease, clock, work).await;
                let result = held.map_err(told).and_then(|done| done);
                let unlocked = self.give_back(target.as_ref(), &lease).await;
                let digest = result?;
                unlocked?;
                Ok((digest, snapshot))
            })
            .await;
        let (digest, snapshot) = moved.map_err(|problems| match arrived.get() {
            Some(serial) => self.half_moved(problems, target.as_ref(), serial),
            None => problems,
        })?;
        self.emit(
            Exit::Done,
            json!({
                "changed": true,
                "digest": digest,
                "from": self.store.location(),
                "records": snapshot.records.len(),
                "serial": snapshot.serial,
                "to": target.location(),
            }),
        );
        self.note(format!(
            "{} and {} are in {} now, digest {digest}. Change `iac.state` in \
             the config; what is in {} is left as it was, and `tidegate state wipe` removes it.",
            count(snapshot.records.len(), "record"),
            count(snapshot.keepsakes.len(), "kept value"),
            target.location(),
            self.store.location()
        ));
        Ok(Exit::Done)
    }

    /// Two names may mean one store. It is one if our own lock is there as well.
    async fn refuse_itself(&self, source: &Lease, target: &dyn Store) -> Result<(), Problems> {
        match target.holder().await.map_err(told)? {
            Some((holder, _)) if holder.run_id == source.holder.run_id => Err(Report::error(
                "state/same-store",
                format!("{} is where the state is already", target.location()),
            )
            .exit(Exit::Usage)
            .into()),
            _ => Ok(()),
        }
    }

    /// A key that is kept outside this store is not laid open in another one.
    fn refuse_open_key(
        &self,
        arguments: &MigrateArgs,
        config: &Config,
        target: &dyn Store,
    ) -> Result<(), Problems> {
        let is_outside = self.desk.has_outside_key(&self.config)?;
        if arguments.key_in_store || !is_outside || self.desk.has_outside_key(config)? {
            return Ok(());
        }
        Err(Report::error(
            "state/open-key",
            format!("the state key would be laid open in {}", target.location()),
        )
        .because("it is kept outside the store now, and the target has no key from outside")
        .fix("give the target's `iac.state` a `key_file` (and `encrypt: true`, to keep its records encrypted)")
        .fix("or set TIDEGATE_STATE_KEY, which is then the key of both")
        .fix("to keep the key in the target all the same, pass `--key-in-store`")
        .exit(Exit::Usage)
        .into())
    }

    /// Something went wrong after the target had become the state.
    fn half_moved(&self, mut problems: Problems, target: &dyn Store, serial: u64) -> Problems {
        if let Some(first) = problems.0.first_mut() {
            first.because.push(format!(
                "the copy in {} is complete as of serial {serial}; {} is as it was, or has gone on",
                target.location(),
                self.store.location()
            ));
            first.fix.push(
                "look at both (`tidegate state list`), then migrate again with `--force`, or wipe \
                 the one that is not to be used"
                    .to_owned(),
            );
        }
        problems
    }

    /// Answers the digest that both stores agree on.
    async fn carry(
        &self,
        arguments: &MigrateArgs,
        ways: Ways<'_>,
        snapshot: &Snapshot,
    ) -> Result<String, Problems> {
        let Ways {
            target: room,
            lease,
            ..
        } = ways;
        let target = room.store.as_ref();
        let standing = target.snapshot().await.map_err(told)?;
        let holds = standing.as_ref().map_or(0, |standing| {
            standing.records.len() + standing.keepsakes.len()
        });
        let digest = snapshot.digest().map_err(told)?;
        if holds > 0 && !arguments.force {
            return Err(Report::error(
                "state/not-empty",
                format!(
                    "{} holds {} already",
                    target.location(),
                    count(holds, "document")
                ),
            )
            .fix("pass `--force` to replace them (a copy is kept), or name another store")
            .exit(Exit::Usage)
            .into());
        }
        let lines = [
            format!("  from {}", self.store.location()),
            format!("  to   {}", target.location()),
            format!(
                "  {}, {}, serial {}, digest {digest}",
                count(snapshot.records.len(), "record"),
                count(snapshot.keepsakes.len(), "kept value"),
                snapshot.serial
            ),
        ];
        self.approve(&arguments.change, "Migrate", &lines).await?;
        if let Some(standing) = standing.filter(|_| holds > 0) {
            // Where its own `state restore` looks for it, with the key that goes.
            let copy = room.keep_copy(&standing)?;
            if standing.sealed_values() > 0 {
                room.keep_key_of(&copy).await?;
            }
        }
        let key = self.store.key(false).await.map_err(told)?;
        // From here on the target is a state; what it is a copy of must still be ours.
        self.store.renew(ways.source).await.map_err(told)?;
        let loaded = target.load(lease, snapshot, key.as_deref()).await;
        loaded.map_err(told)?;
        ways.arrived.set(Some(snapshot.serial));
        let arrived = match target.snapshot().await.map_err(told)? {
            Some(arrived) => arrived.digest().map_err(told)?,
            None => "nothing".to_owned(),
        };
        if arrived != digest {
            return Err(Report::error(
                "state/migrate",
                format!(
                    "what arrived in {} is not what was sent: digest {arrived}, not {digest}",
                    target.location()
                ),
            )
            .because("the state in its old place is as it was")
            .into());
        }
        Ok(digest)
    }

    /// The store that `--to` means, and the config that says where its key is.
    async fn target(&self, to: &str) -> Result<Room<'_>, Problems> {
        let room = |store, config| Room {
            desk: self.desk,
            command: self.command,
            config,
            store,
        };
        let (word, folder) = to.split_once('=').unwrap_or((to, ""));
        if word == "filesystem" {
            let root = (!folder.is_empty()).then(|| PathBuf::from(folder));
            let store = self.desk.open_folder(&self.config, root)?;
            return Ok(room(store, self.config.clone()));
        }
        let arguments = ConfigArgs {
            file: Some(PathBuf::from(to)),
        };
        let config = self.desk.load_other(&arguments)?;
        let store = self.desk.open_store(&config, None).await?;
        Ok(room(store, config))
    }
}
