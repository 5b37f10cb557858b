//! `state settle`: a person says what nobody else can know, how a create ended that was cut off.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Room, told};
use crate::cli::SettleArgs;
use crate::command::{CommandResult, Problems};
use crate::report::{Exit, Report};
use crate::resource::{
    ActionKind, Address, Kind, Map, Observed, Outputs, Private, PublicMap, Spec,
};
use crate::state::journal::open_intents;
use crate::state::record::{Applied, from_observed};
use crate::state::{Entry, Record};

/// Why a record that was settled is not complete.
const CUT_OFF: &str = "an earlier run was cut off while making it";

/// What a run was cut off in.
struct Cut {
    /// `None` when it was settled already, and is settled otherwise now.
    operation: Option<String>,
    kind: Kind,
    provider: String,
}

impl Room<'_> {
    pub(super) async fn settle(&self, arguments: &SettleArgs) -> CommandResult {
        let address = Address::new(&arguments.name);
        self.locked(&arguments.change, async |lease| {
            let entries = self.store.journal_read().await.map_err(told)?;
            let cut = match cut_off(&entries, &address) {
                Some(cut) => cut,
                None => self.settled_before(&address).await?,
            };
            let line = match &arguments.id {
                Some(id) => format!("~ `{address}` was made; it is recorded with the id `{id}`"),
                None => format!("~ `{address}` was not made; the next run makes it"),
            };
            self.approve(&arguments.change, "Settle", &[line]).await?;
            if let Some(snapshot) = self.store.snapshot().await.map_err(told)? {
                self.keep_copy(&snapshot)?;
            }
            if let Some(id) = &arguments.id {
                let record = self.half_made(&address, &cut, id).await?;
                self.store.put(lease, &record).await.map_err(told)?;
            } else if cut.operation.is_none() {
                self.store.delete(lease, &address).await.map_err(told)?;
            }
            let Some(operation) = cut.operation else {
                return Ok(());
            };
            let outcome = Entry::Outcome {
                operation,
                outcome: "settled".to_owned(),
            };
            self.store
                .journal_append(lease, &[outcome])
                .await
                .map_err(told)
        })
        .await?;
        self.emit(
            Exit::Done,
            json!({ "changed": true, "id": arguments.id, "resource": address }),
        );
        self.note(match &arguments.id {
            Some(_) => format!("`{address}` is recorded; the next run completes it."),
            None => format!("`{address}` counts as not made."),
        });
        Ok(Exit::Done)
    }

    /// What was settled, and not completed yet: a wrong word can be taken back.
    async fn settled_before(&self, address: &Address) -> Result<Cut, Problems> {
        let record = self.store.get(address).await.map_err(told)?;
        record
            .filter(|record| record.status == "error" && record.error == CUT_OFF)
            .map(|record| Cut {
                operation: None,
                kind: Kind::new(record.resource_type.clone()),
                provider: record.provider_ref,
            })
            .ok_or_else(|| nothing_open(address))
    }

    /// A record that says that it is there, and that the next run has to complete it.
    async fn half_made(&self, address: &Address, cut: &Cut, id: &str) -> Result<Record, Problems> {
        let error = CUT_OFF;
        if let Some(mut record) = self.store.get(address).await.map_err(told)? {
            id.clone_into(&mut record.provider_id);
            "error".clone_into(&mut record.status);
            error.clone_into(&mut record.error);
            return Ok(record);
        }
        let keyring = self
            .keyring(true)
            .await?
            .ok_or_else(super::change::no_key)?;
        let declared = self.config.providers.iter();
        let provider = declared
            .filter(|(name, _)| name.as_str() == cut.provider)
            .map(|(_, declaration)| declaration.provider.as_str())
            .next()
            .unwrap_or_default();
        let spec = Spec {
            address: address.clone(),
            kind: cut.kind.clone(),
            config: Map::new(),
            public_config: PublicMap::new(),
            dependencies: BTreeSet::new(),
        };
        let observed = Observed {
            provider_id: id.to_owned(),
            outputs: Outputs::new(),
            status: String::new(),
            private: Private::default(),
        };
        let protected = self
            .config
            .resources
            .iter()
            .any(|resource| resource.address == *address && resource.protected);
        let applied = Applied {
            environment: &self.config.environment,
            provider,
            provider_ref: &cut.provider,
            spec: &spec,
            observed: &observed,
            source: "apply",
            protected,
            adopted: false,
            error,
            prior: None,
        };
        Ok(from_observed(&applied, &keyring, self.desk.random.as_ref()))
    }
}

/// The create of a resource that has no outcome.
fn cut_off(entries: &[Entry], address: &Address) -> Option<Cut> {
    open_intents(entries)
        .into_iter()
        .find_map(|entry| match entry {
            Entry::Intent {
                operation,
                address: of,
                kind,
                provider,
                action: ActionKind::Create | ActionKind::Replace,
                ..
            } if of == address => Some(Cut {
                operation: Some(operation.clone()),
                kind: kind.clone(),
                provider: provider.clone(),
            }),
            _ => None,
        })
}

fn nothing_open(address: &Address) -> Problems {
    Report::error(
        "state/nothing-open",
        format!("no run was cut off while making `{address}`"),
    )
    .fix("check `--env` and the name; there is nothing to settle otherwise")
    .exit(Exit::Usage)
    .into()
}
