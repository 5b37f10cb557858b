//! States whose head cannot be read: they can be neither read nor locked, only replaced or removed.

use serde_json::json;

use super::change::Back;
use super::{Room, or_stopped, told};
use crate::cli::ChangeArgs;
use crate::command::CommandResult;
use crate::random::hex_of;
use crate::report::Exit;
use crate::state::{Head, Snapshot, StoreError};

impl Room<'_> {
    /// A document becomes the state of an environment whose head cannot be read: nobody can tell what
    /// was there, nor take its lock.
    pub(super) async fn put_over_damage(
        &self,
        incoming: &Snapshot,
        back: &Back<'_>,
        change: &ChangeArgs,
        error: &StoreError,
    ) -> CommandResult {
        let key = self.key_of(incoming, back).await?;
        let mut after = incoming.clone();
        after.serial += 1;
        let mut lines = beheaded(error);
        lines.extend(
            incoming
                .records
                .iter()
                .map(|record| format!("+ `{}`", record.resource_id)),
        );
        let loaded = async {
            self.approve(change, back.title, &lines).await?;
            let key = key.as_deref();
            let loaded = self.store.load_over_damage(&after, key).await;
            loaded.map_err(told)
        };
        or_stopped(self.desk, loaded).await?;
        self.say_put_back(
            incoming,
            after.serial,
            &format!("`{}`", back.file.display()),
        )
    }

    /// Removes an environment whose head cannot be read. An empty state takes its place first, which
    /// can be locked, and then goes with all that lies beside it.
    pub(super) async fn wipe_beheaded(
        &self,
        change: &ChangeArgs,
        error: &StoreError,
    ) -> CommandResult {
        let head = Head {
            lineage: hex_of::<16>(self.desk.random.as_ref()),
            serial: 0,
            fence: 0,
        };
        let nothing = Snapshot::nothing(&self.config.environment, &head);
        let emptied = async {
            let mut lines = beheaded(error);
            lines.push("- its key, its kept values, and whatever else is there".to_owned());
            self.approve(change, "Wipe the state", &lines).await?;
            let loaded = self.store.load_over_damage(&nothing, None).await;
            loaded.map_err(told)
        };
        or_stopped(self.desk, emptied).await?;
        let lease = self
            .desk
            .lock_store(self.store.as_ref(), self.command, change.lock_timeout)
            .await?;
        self.store.wipe_damaged(lease).await.map_err(told)?;
        self.emit(Exit::Done, json!({ "changed": true, "removed": [] }));
        self.note(format!(
            "Removed the state of environment `{}`, of which nothing could be read.",
            self.config.environment
        ));
        Ok(Exit::Done)
    }
}

/// What is lost with a head that cannot be read.
fn beheaded(error: &StoreError) -> Vec<String> {
    vec![
        format!("- go on although {error}"),
        "- all that was recorded there, which nobody can read any more; it stays in the world"
            .to_owned(),
    ]
}
