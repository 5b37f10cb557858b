//! The two traits an author implements.

use async_trait::async_trait;

use crate::ability::{
    DetectDrift, DiscoverRequirements, Enumerate, Finalize, ListRegions, MapRequirements,
    Ownership, ReadLogs, RepairMigration, RevokeCredential, RunJobs, Validate,
};
use crate::{
    About, BootstrappedState, Diagnostic, Diff, Error, Health, Hints, Kind, Map, Observed,
    Recorded, Result, Sizing, Spec,
};

/// A provider of resources.
///
/// `about`, `kinds` and the ability methods are asked once, before `initialize`: they say what the
/// plugin *is*, not what its config makes of it. Every other call comes after a successful
/// `initialize`, and then runs concurrently with every other.
///
/// A call whose host has gone away is dropped at its next `await`.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Who this is; see [`about!`](crate::about).
    fn about(&self) -> About;
    /// The kinds of resources it drives.
    fn kinds(&self) -> Vec<Kind>;
    /// The driver of a kind.
    fn driver(&self, kind: &str) -> Option<&dyn Driver>;
    /// Takes the provider's config. Called again, it takes the new one.
    async fn initialize(&mut self, config: Map) -> Result<()>;

    /// What an abstract size (`xs` to `xl`) and hints mean for a kind. `None`: nothing special.
    async fn sizing(&self, _kind: &str, _size: &str, _hints: &Hints) -> Result<Option<Sizing>> {
        Err(lacks("resolve sizes"))
    }
    /// The resource with that id. By default the driver reads it.
    async fn import(&self, kind: &str, provider_id: &str) -> Result<Observed> {
        let driver = self
            .driver(kind)
            .ok_or_else(|| Error::invalid(format!("no driver for {kind}")))?;
        driver
            .read(&Recorded {
                name: String::new(),
                kind: kind.to_owned(),
                provider_id: provider_id.to_owned(),
            })
            .await
    }
    /// Makes what a state backend needs (a bucket, say) unless it is there. `None`: this provider
    /// manages no backend.
    async fn bootstrap_state(&self, _settings: Map) -> Result<Option<BootstrappedState>> {
        Ok(None)
    }

    /// Finds live resources.
    fn enumerate(&self) -> Option<&dyn Enumerate> {
        None
    }
    /// Compares what was recorded with what is live.
    fn detect_drift(&self) -> Option<&dyn DetectDrift> {
        None
    }
    /// Takes credentials back.
    fn revoke_credential(&self) -> Option<&dyn RevokeCredential> {
        None
    }
    /// Knows its regions.
    fn list_regions(&self) -> Option<&dyn ListRegions> {
        None
    }
    /// Marks resources as somebody's.
    fn ownership(&self) -> Option<&dyn Ownership> {
        None
    }
    /// Has something to finish after all actions of a plan.
    fn finalize(&self) -> Option<&dyn Finalize> {
        None
    }
    /// Looks at plans before they are applied.
    fn validate(&self) -> Option<&dyn Validate> {
        None
    }
    /// Reads the logs of resources.
    fn read_logs(&self) -> Option<&dyn ReadLogs> {
        None
    }
    /// Runs one-off jobs.
    fn run_jobs(&self) -> Option<&dyn RunJobs> {
        None
    }
    /// Repairs migrations that stopped half-way.
    fn repair_migration(&self) -> Option<&dyn RepairMigration> {
        None
    }
    /// Knows what an application needs.
    fn discover_requirements(&self) -> Option<&dyn DiscoverRequirements> {
        None
    }
    /// Turns needs into modules.
    fn map_requirements(&self) -> Option<&dyn MapRequirements> {
        None
    }
}

/// Drives resources of one or more kinds.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// Makes the resource. One of that name that exists is [`Error::already_exists`].
    async fn create(&self, desired: &Spec) -> Result<Observed>;
    /// Looks at it; one that is gone is [`Error::not_found`]. An empty `provider_id` means: look it
    /// up by name.
    async fn read(&self, prior: &Recorded) -> Result<Observed>;
    /// Changes it in place.
    async fn update(&self, prior: &Recorded, desired: &Spec) -> Result<Observed>;
    /// Removes it. One that is gone already is a success.
    async fn delete(&self, prior: &Recorded) -> Result<()>;
    /// What an update would change. `current` is what the last create, update or read answered;
    /// sensitive outputs in it are placeholders. Nothing is touched.
    async fn diff(&self, desired: &Spec, current: &Observed) -> Result<Diff>;

    /// How it is doing. By default: healthy when it can be read.
    async fn health(&self, prior: &Recorded) -> Result<Health> {
        match self.read(prior).await {
            Ok(_) => Ok(Health {
                healthy: true,
                message: "it is there".to_owned(),
            }),
            Err(error) if error.is_not_found() => Ok(Health {
                healthy: false,
                message: error.message().to_owned(),
            }),
            Err(error) => Err(error),
        }
    }
    /// Changes the number of running instances.
    async fn scale(&self, _prior: &Recorded, _replicas: u32) -> Result<Observed> {
        Err(lacks("scale"))
    }
    /// Outputs to mask when a resource is shown.
    fn sensitive_keys(&self) -> Vec<String> {
        Vec::new()
    }
    /// Looks for the causes of a failure that a host just saw; newest first.
    async fn troubleshoot(&self, _prior: &Recorded, _failure: &str) -> Result<Vec<Diagnostic>> {
        Err(lacks("explain failures"))
    }
}

pub(crate) fn lacks(what: &str) -> Error {
    Error::unimplemented(format!("this plugin cannot {what}"))
}
