//! What a provider may do beyond driving resources: a trait each. A provider that has the ability
//! implements the trait and says so in the method of [`Provider`](crate::Provider) of that name; the
//! service behind it is then advertised, and else it is not there at all.

use std::collections::BTreeMap;
use std::pin::Pin;

use async_trait::async_trait;
use futures_util::Stream;

use crate::{
    Drift, Found, JobStatus, LogChunk, LogRequest, Map, Owned, Owner, Plan, Recorded, Region,
    Remark, Result, Spec, Unfinished, iac,
};

/// Finds live resources.
#[async_trait]
pub trait Enumerate: Send + Sync {
    /// Every live resource of a kind.
    async fn all(&self, kind: &str) -> Result<Vec<Found>>;
    /// Every live resource with a tag, of any kind.
    async fn by_tag(&self, tag: &str) -> Result<Vec<Recorded>>;
}

/// Compares what was recorded with what is live.
#[async_trait]
pub trait DetectDrift: Send + Sync {
    /// One verdict for each of `recorded`. `desired` holds specs by resource name; a resource
    /// without one is only looked for.
    async fn drift(
        &self,
        recorded: &[Recorded],
        desired: &BTreeMap<String, Spec>,
    ) -> Result<Vec<Drift>>;
}

/// Takes credentials back.
#[async_trait]
pub trait RevokeCredential: Send + Sync {
    /// Ends a credential that `source` made. One that is gone already is a success.
    async fn revoke(&self, source: &str, credential: &str) -> Result<()>;
}

/// Knows its regions.
#[async_trait]
pub trait ListRegions: Send + Sync {
    /// Where resources can be; the environment may be empty.
    async fn regions(&self, environment: &str) -> Result<Vec<Region>>;
}

/// Marks resources as somebody's.
#[async_trait]
pub trait Ownership: Send + Sync {
    /// Whose it is.
    async fn owner(&self, prior: &Recorded) -> Result<Owner>;
    /// Makes it somebody's. Doing so twice is a success.
    async fn set_owner(&self, prior: &Recorded, owner: &str) -> Result<()>;
    /// Everything that is somebody's. An empty owner means the provider's own; an empty kind, all.
    async fn owned(&self, owner: &str, kind: &str) -> Result<Vec<Owned>>;
}

/// Has something to finish after all actions of a plan.
#[async_trait]
pub trait Finalize: Send + Sync {
    /// Finishes, and answers what could not be. `Err` only when finishing itself did not run.
    async fn finish(&self, plan: &str) -> Result<Vec<Unfinished>>;
}

/// Looks at plans before they are applied.
#[async_trait]
pub trait Validate: Send + Sync {
    /// What there is to say about the plan.
    async fn remarks(&self, plan: &Plan) -> Result<Vec<Remark>>;
}

/// A stream of log pieces. Its end is the end of the log.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<LogChunk>> + Send>>;

/// Reads the logs of resources.
#[async_trait]
pub trait ReadLogs: Send + Sync {
    /// The log that was asked for. Dropped when nobody reads any more.
    async fn logs(&self, request: LogRequest) -> Result<LogStream>;
}

/// Runs one-off jobs. Secret environment values are references that the provider resolves.
#[async_trait]
pub trait RunJobs: Send + Sync {
    /// Starts a job. The handle must carry an id.
    async fn run(&self, job: iac::JobSpec) -> Result<iac::JobHandle>;
    /// How it is doing.
    async fn status(&self, job: &iac::JobHandle) -> Result<JobStatus>;
    /// What it printed.
    async fn logs(&self, job: iac::JobHandle) -> Result<LogStream>;
}

/// Repairs migrations that stopped half-way.
#[async_trait]
pub trait RepairMigration: Send + Sync {
    /// Repairs, if the order's confirmation is right.
    async fn repair(
        &self,
        order: iac::MigrationRepairRequest,
    ) -> Result<iac::MigrationRepairResult>;
}

/// Knows what an application needs.
#[async_trait]
pub trait DiscoverRequirements: Send + Sync {
    /// The needs of the application; `module` is the config of the plugin's own module.
    async fn discover(
        &self,
        context: iac::RequirementContext,
        module: Map,
    ) -> Result<Vec<iac::IaCRequirement>>;
}

/// Turns needs into modules.
#[async_trait]
pub trait MapRequirements: Send + Sync {
    /// Modules for the needs. Secrets appear as placeholders only.
    async fn modules(
        &self,
        request: iac::MapRequirementsRequest,
    ) -> Result<iac::MapRequirementsResponse>;
}
