//! The door to whoever owns real resources. The engine knows only the two traits here; the
//! embedded `local` provider and plugins stand behind the same ones.

pub mod ability;
pub(crate) mod hide;
pub mod identity;
pub mod local;
pub mod plugin;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::resource::{Address, Diff, FieldChange, Kind, Map, Observed, PublicMap, Recorded, Spec};
use ability::{
    Ability, Application, BootstrappedState, Derivation, Drift, Evidence, FinalizeFailure, Found,
    Hints, Job, JobHandle, JobStatus, LogTaker, LogWish, MigrationRepair, MigrationRepaired, Owned,
    Proposal, Region, Remark, Requirement, Sizing,
};
use identity::IdFormat;

/// What kind of failure a driver saw. Decisions (retry, adopt, stop) are made from this alone,
/// never from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The resource does not exist.
    NotFound,
    /// A resource of that name exists already.
    AlreadyExists,
    /// Something else changed or holds it; retrying as is will not help.
    Conflict,
    /// Not allowed (missing or insufficient credentials).
    Denied,
    /// Asked to slow down.
    Throttled,
    /// Failed for now; the same call may succeed later.
    Transient,
    /// The request itself is wrong.
    Invalid,
    /// This provider cannot do that.
    Unimplemented,
    /// The outcome is not known: it may or may not have happened.
    Unknown,
}

impl ErrorClass {
    /// The word used in JSON and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::Invalid => "invalid",
            Self::Unimplemented => "unimplemented",
            Self::Unknown => "unknown",
        }
    }
}

/// A driver's failure. The message is for people; it may come from outside and is filtered on the
/// way out.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct DriverError {
    /// What kind of failure.
    pub class: ErrorClass,
    /// One sentence, no secrets.
    pub message: String,
    /// How long the provider asked us to wait.
    pub retry_after: Option<Duration>,
    /// What exists in spite of the error (a create that failed half-way). It is recorded.
    pub partial: Option<Box<Observed>>,
    /// The provider itself said this, so it is not asked the same again in the hope of another
    /// answer. False when no answer came, or one that could not be understood.
    pub answered: bool,
}

impl DriverError {
    /// An error of the given class.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            retry_after: None,
            partial: None,
            answered: false,
        }
    }

    /// Adds what exists in spite of the error.
    #[must_use]
    pub fn with_partial(mut self, partial: Observed) -> Self {
        self.partial = Some(Box::new(partial));
        self
    }
}

/// Result of a driver call.
pub type DriverResult<T> = Result<T, DriverError>;

/// How a resource is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// True when it works.
    pub healthy: bool,
    /// What it says.
    pub message: String,
}

/// Identifies one effect. The same operation id is used when an effect is retried or resolved
/// after a crash, so a driver can recognise its own earlier attempt.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Unique per action and run; stable across retries.
    pub id: String,
    /// Environment the run is for; drivers may tag with it.
    pub environment: String,
}

/// Handles one or more resource kinds. Every call may run concurrently with every other.
///
/// Contract: `create` of a name that exists answers [`ErrorClass::AlreadyExists`]; `read` of
/// something gone answers [`ErrorClass::NotFound`]; `read` with an empty `provider_id` looks up by
/// name; `delete` of something gone succeeds.
#[async_trait]
pub trait Driver: Send + Sync + fmt::Debug {
    /// Makes the resource.
    async fn create(&self, operation: &Operation, desired: &Spec) -> DriverResult<Observed>;
    /// Looks at the resource.
    async fn read(&self, prior: &Recorded) -> DriverResult<Observed>;
    /// Changes it in place.
    async fn update(
        &self,
        operation: &Operation,
        prior: &Recorded,
        desired: &Spec,
    ) -> DriverResult<Observed>;
    /// Removes it.
    async fn delete(&self, operation: &Operation, prior: &Recorded) -> DriverResult<()>;
    /// Compares record and desired. Pure as far as the resource goes. `desired.config` may hold
    /// unknown values here (and only here).
    async fn diff(&self, prior: &Recorded, desired: &Spec) -> DriverResult<Diff>;
    /// How it is doing.
    async fn health(&self, prior: &Recorded) -> DriverResult<Health>;
    /// What the driver knows about an output: `Some(true)` always sensitive, `Some(false)` known to
    /// be harmless. `None` for an output it knows nothing of, which then counts as sensitive unless
    /// the config declares it.
    fn is_sensitive(&self, output: &str) -> Option<bool>;
    /// True for an output of this resource that the driver itself marked as a secret when it told it.
    fn is_flagged(&self, _prior: &Recorded, _output: &str) -> bool {
        false
    }
    /// Output names whose value an update in place never changes, so that dependents of an updated
    /// resource need not be planned as "known after apply".
    fn outputs_kept_by_update(&self) -> &'static [&'static str] {
        &[]
    }
    /// Checks a config before any effect; every problem as (dotted path, sentence).
    fn check(&self, desired: &Spec) -> Vec<(String, String)>;
    /// Whether `create` may be told of a live resource of that name and then take it over: the
    /// driver can `read` by name alone and `update` what it found.
    fn can_adopt(&self, _kind: &Kind) -> bool {
        true
    }
    /// Whether [`ErrorClass::NotFound`] of a look-up by name proves that nothing of that name is
    /// there. It does not where some kinds are found by id alone.
    fn finds_by_name(&self) -> bool {
        true
    }
    /// Whether the old one may stay until the new one is there (`lifecycle: create_before_destroy`):
    /// two live resources of one address do not collide.
    fn can_create_before_destroy(&self) -> bool {
        false
    }
    /// What this driver's ids look like.
    fn id_format(&self) -> IdFormat {
        IdFormat::Unknown
    }
    /// Looks for the causes of a failure that was just seen. Best effort, on a budget.
    async fn troubleshoot(&self, _prior: &Recorded, _failure: &str) -> DriverResult<Vec<Evidence>> {
        Err(lacks("explain failures"))
    }
    /// Changes the number of running instances.
    async fn scale(&self, _prior: &Recorded, _replicas: u32) -> DriverResult<Observed> {
        Err(lacks("scale"))
    }
}

fn lacks(what: &str) -> DriverError {
    DriverError::new(
        ErrorClass::Unimplemented,
        format!("the provider cannot {what}"),
    )
}

/// A configured provider.
#[async_trait]
pub trait Provider: Send + Sync + fmt::Debug {
    /// The provider type, such as `local`.
    fn name(&self) -> &str;
    /// Its version.
    fn version(&self) -> &str;
    /// The kinds it handles, sorted.
    fn kinds(&self) -> Vec<Kind>;
    /// The driver for a kind.
    fn driver(&self, kind: &Kind) -> Option<&dyn Driver>;
    /// True when its resources live on this very machine and vanish with it, so that a vanishing
    /// state is no loss.
    fn is_local(&self) -> bool;
    /// Ends the provider; called once.
    async fn close(&self);

    /// What it can do beyond driving single resources. The methods below that belong to an ability
    /// not in here are never called.
    fn abilities(&self) -> BTreeSet<Ability> {
        BTreeSet::new()
    }
    /// How many of its actions may run at once, when it wants fewer than the run allows.
    fn parallelism(&self) -> Option<usize> {
        None
    }
    /// [`Ability::Sizing`]: what `size` and `hints` mean for a kind. Pure.
    async fn sizing(&self, _kind: &Kind, _size: &str, _hints: &Hints) -> DriverResult<Sizing> {
        Err(lacks(Ability::Sizing.words()))
    }
    /// [`Ability::Import`]: the resource with that id, as it is now.
    async fn import(
        &self,
        _address: &Address,
        _kind: &Kind,
        _provider_id: &str,
    ) -> DriverResult<Observed> {
        Err(lacks(Ability::Import.words()))
    }
    /// [`Ability::Status`]: the provider's own word for how it is, such as `running`. Untrusted text.
    async fn status(&self, _prior: &Recorded) -> DriverResult<String> {
        Err(lacks(Ability::Status.words()))
    }
    /// [`Ability::Enumerate`]: every live resource of a kind.
    async fn enumerate(&self, _kind: &Kind) -> DriverResult<Vec<Found>> {
        Err(lacks(Ability::Enumerate.words()))
    }
    /// [`Ability::Enumerate`]: every live resource with a tag, of any kind.
    async fn enumerate_by_tag(&self, _tag: &str) -> DriverResult<Vec<Found>> {
        Err(lacks(Ability::Enumerate.words()))
    }
    /// [`Ability::Drift`]: the provider's own verdicts. `desired` holds the specs of those whose
    /// config is ours; the others are only looked for.
    async fn drift(
        &self,
        _recorded: &[Recorded],
        _desired: &BTreeMap<Address, Spec>,
    ) -> DriverResult<Vec<Drift>> {
        Err(lacks(Ability::Drift.words()))
    }
    /// [`Ability::Validate`]: remarks about what is about to be done.
    async fn validate(&self, _plan: &Proposal) -> DriverResult<Vec<Remark>> {
        Err(lacks(Ability::Validate.words()))
    }
    /// [`Ability::Finalize`]: every action of the plan has ended. Answers what could not be finished.
    async fn finalize(&self, _plan: &str) -> DriverResult<Vec<FinalizeFailure>> {
        Err(lacks(Ability::Finalize.words()))
    }
    /// [`Ability::Ownership`]: whose a resource is.
    async fn owner(&self, _prior: &Recorded) -> DriverResult<Owned> {
        Err(lacks(Ability::Ownership.words()))
    }
    /// [`Ability::Ownership`]: makes a resource somebody's.
    async fn set_owner(&self, _prior: &Recorded, _owner: &str) -> DriverResult<()> {
        Err(lacks(Ability::Ownership.words()))
    }
    /// [`Ability::Ownership`]: everything that is somebody's, of one kind or of all.
    async fn owned(&self, _owner: &str, _kind: Option<&Kind>) -> DriverResult<Vec<Owned>> {
        Err(lacks(Ability::Ownership.words()))
    }
    /// [`Ability::BootstrapState`]: makes what a state backend needs, from the settings of the
    /// `iac.state` module.
    async fn bootstrap_state(&self, _settings: &Map) -> DriverResult<BootstrappedState> {
        Err(lacks(Ability::BootstrapState.words()))
    }
    /// [`Ability::RevokeCredential`]: ends a credential that `source` made.
    async fn revoke_credential(&self, _source: &str, _credential: &str) -> DriverResult<()> {
        Err(lacks(Ability::RevokeCredential.words()))
    }
    /// [`Ability::Regions`]: where it can put resources.
    async fn regions(&self, _environment: &str) -> DriverResult<Vec<Region>> {
        Err(lacks(Ability::Regions.words()))
    }
    /// [`Ability::Logs`]: hands the log of a resource to `take`, piece by piece, until it ends.
    async fn logs(
        &self,
        _prior: &Recorded,
        _wish: &LogWish,
        _take: LogTaker<'_>,
    ) -> DriverResult<()> {
        Err(lacks(Ability::Logs.words()))
    }
    /// [`Ability::Jobs`]: starts a job.
    async fn run_job(&self, _job: &Job) -> DriverResult<JobHandle> {
        Err(lacks(Ability::Jobs.words()))
    }
    /// [`Ability::Jobs`]: how a job is doing.
    async fn job_status(&self, _job: &JobHandle) -> DriverResult<JobStatus> {
        Err(lacks(Ability::Jobs.words()))
    }
    /// [`Ability::Jobs`]: hands the log of a job to `take` until it ends.
    async fn job_logs(&self, _job: &JobHandle, _take: LogTaker<'_>) -> DriverResult<()> {
        Err(lacks(Ability::Jobs.words()))
    }
    /// [`Ability::Discovery`]: what an application needs, from what there is of it.
    async fn discover(&self, _application: &Application) -> DriverResult<Vec<Requirement>> {
        Err(lacks(Ability::Discovery.words()))
    }
    /// [`Ability::Requirements`]: which modules would meet an application's requirements on a
    /// runtime (`kubernetes`, …; empty for any).
    async fn derive(
        &self,
        _runtime: &str,
        _environment: &str,
        _requirements: &[Requirement],
    ) -> DriverResult<Derivation> {
        Err(lacks(Ability::Requirements.words()))
    }
    /// [`Ability::RepairMigration`]: repairs a migration that stopped half-way.
    async fn repair_migration(&self, _order: &MigrationRepair) -> DriverResult<MigrationRepaired> {
        Err(lacks(Ability::RepairMigration.words()))
    }
}

/// What stands at a dotted path of a public config.
pub fn at_path<'a>(config: &'a PublicMap, path: &str) -> Option<&'a serde_json::Value> {
    let mut keys = path.split('.');
    let mut value = config.get(keys.next()?)?;
    for key in keys {
        value = value.get(key)?;
    }
    Some(value)
}

/// Every difference between two public configs, sorted by path: the comparison a driver without
/// special knowledge uses. Nested maps are compared key by key, lists as a whole.
pub fn config_changes(recorded: &PublicMap, desired: &PublicMap) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    if recorded == desired {
        return changes;
    }
    let mut pending = vec![(String::new(), recorded, desired)];
    while let Some((prefix, old, new)) = pending.pop() {
        // A path is put together only for what differs: most of what is compared is equal.
        let path = |key: &str| {
            if prefix.is_empty() {
                key.to_owned()
            } else {
                format!("{prefix}.{key}")
            }
        };
        let added = new.iter().filter(|(key, _)| !old.contains_key(*key));
        let pairs = old
            .iter()
            .map(|(key, value)| (key, Some(value), new.get(key)))
            .chain(added.map(|(key, value)| (key, None, Some(value))));
        for (key, old, new) in pairs {
            match (old, new) {
                (old, new) if old == new => {}
                (Some(serde_json::Value::Object(old)), Some(serde_json::Value::Object(new)))
                    if !is_marker(old) && !is_marker(new) =>
                {
                    pending.push((path(key), old, new));
                }
                (old, new) => changes.push(FieldChange {
                    path: path(key),
                    old: old.cloned().unwrap_or_default(),
                    new: new.cloned().unwrap_or_default(),
                    force_new: false,
                }),
            }
        }
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    changes
}

fn is_marker(map: &PublicMap) -> bool {
    map.len() == 1 && (map.contains_key("$secret") || map.contains_key("$unknown"))
}
