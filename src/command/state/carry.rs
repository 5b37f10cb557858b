//! `state migrate --to`: one environment from this store into another, proven by digest.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::{Room, told};
use crate::cli::{ConfigArgs, MigrateArgs};
use crate::command::{CommandResult, Problems};
use crate::config::Config;
use crate::face::count;
use crate::report::{Exit, Report};
use crate::state::{Lease, Snapshot, Store};

impl Room<'_> {
    pub(super) async fn migrate(&self, arguments: &MigrateArgs) -> CommandResult {
        match &arguments.to {
            Some(to) => self.migrate_to(arguments, to).await,
            None => self.adopt(arguments).await,
        }
    }

    async fn migrate_to(&self, arguments: &MigrateArgs, to: &str) -> CommandResult {
        let target = self.target(to).await?;
        if target.location() == self.store.location() {
            return Err(Report::error(
                "state/same-store",
                format!("{} is where the state is already", target.location()),
            )
            .exit(Exit::Usage)
            .into());
        }
        let change = &arguments.change;
        let (digest, snapshot) = self
            .locked(change, async |_| {
                let snapshot = self.need_snapshot().await?;
                let lease = self
                    .desk
                    .lock_store(target.as_ref(), self.command, change.lock_timeout)
                    .await?;
                let result = self
                    .carry(arguments, target.as_ref(), &lease, &snapshot)
                    .await;
                let unlocked = target.unlock(&lease).await;
                let digest = result?;
                unlocked.map_err(told)?;
                Ok((digest, snapshot))
            })
            .await?;
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

    /// Answers the digest that both stores agree on.
    async fn carry(
        &self,
        arguments: &MigrateArgs,
        target: &dyn Store,
        lease: &Lease,
        snapshot: &Snapshot,
    ) -> Result<String, Problems> {
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
            self.keep_copy(&standing)?;
            // Without what was sealed there, the key that comes along is the only one.
            let nothing = Snapshot {
                records: Vec::new(),
                keepsakes: std::collections::BTreeMap::new(),
                journal: Vec::new(),
                ..standing
            };
            target.load(lease, &nothing).await.map_err(told)?;
        }
        if let Some(key) = self.store.key(false).await.map_err(told)? {
            target.keep_key(lease, &key).await.map_err(told)?;
        }
        target.load(lease, snapshot).await.map_err(told)?;
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

    /// The store that `--to` means.
    async fn target(&self, to: &str) -> Result<Arc<dyn Store>, Problems> {
        let (word, folder) = to.split_once('=').unwrap_or((to, ""));
        if word == "filesystem" {
            let config = Config {
                state: None,
                ..self.config.clone()
            };
            let root = (!folder.is_empty()).then(|| PathBuf::from(folder));
            return Ok(self.desk.open_folder(&config, root)?);
        }
        let arguments = ConfigArgs {
            file: Some(PathBuf::from(to)),
        };
        let config = self.desk.load_other(&arguments)?;
        Ok(self.desk.open_store(&config, None).await?)
    }
}
