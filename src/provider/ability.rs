//! What a provider may be able to do beyond driving single resources. Absence is an answer: a
//! provider without an ability says [`super::ErrorClass::Unimplemented`], and nobody guesses.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::resource::{ActionKind, Address, FieldChange, Kind, Observed, PublicMap, Spec};

/// An optional ability of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ability {
    /// Turns an abstract size into an instance type.
    Sizing,
    /// Takes over a resource by its provider id.
    Import,
    /// Says in a word how a resource is.
    Status,
    /// Lists every resource of a kind, or every one with a tag.
    Enumerate,
    /// Finds drift itself, better than a read and a comparison can.
    Drift,
    /// Looks at a whole plan before it runs.
    Validate,
    /// Wants to be told when every action of a plan has ended.
    Finalize,
    /// Keeps an owner with each resource.
    Ownership,
    /// Makes the store that the state will be kept in.
    BootstrapState,
    /// Revokes a credential it once made.
    RevokeCredential,
    /// Lists its regions.
    Regions,
    /// Hands out the logs of a resource.
    Logs,
    /// Runs one-off jobs.
    Jobs,
    /// Says what an application needs.
    Discovery,
    /// Says which resources meet an application's requirements.
    Requirements,
    /// Repairs a database migration that stopped half-way.
    RepairMigration,
}

impl Ability {
    /// The words used in messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Sizing => "resolve sizes",
            Self::Import => "import resources",
            Self::Status => "tell how resources are",
            Self::Enumerate => "list resources",
            Self::Drift => "detect drift",
            Self::Validate => "validate plans",
            Self::Finalize => "finalize an apply",
            Self::Ownership => "keep owners",
            Self::BootstrapState => "make a state store",
            Self::RevokeCredential => "revoke credentials",
            Self::Regions => "list regions",
            Self::Logs => "capture logs",
            Self::Jobs => "run jobs",
            Self::Discovery => "discover requirements",
            Self::Requirements => "map requirements",
            Self::RepairMigration => "repair migrations",
        }
    }
}

/// Wishes that override an abstract size, as written in the config (`512Mi`, `0.5`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Processors.
    pub cpu: Option<String>,
    /// Memory.
    pub memory: Option<String>,
    /// Storage.
    pub storage: Option<String>,
}

/// What an abstract size means at a provider. Both parts are merged into the resource's config.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sizing {
    /// Becomes `instance_type`; empty for none.
    pub instance_type: String,
    /// Further keys of the config.
    pub specs: PublicMap,
}

/// What a run is about to do to the resources of one provider, as that provider is asked about it.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The plan's id; what is finalized after the run has the same one.
    pub id: String,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// Hash of everything desired.
    pub desired_hash: String,
    /// What is done, in order. What stays as it is is not in here.
    pub steps: Vec<ProposedStep>,
}

/// One action of a [`Proposal`].
#[derive(Clone, Debug)]
pub struct ProposedStep {
    /// What is done.
    pub action: ActionKind,
    /// What is wanted, as far as it is known by now; of what is deleted, what was applied.
    pub desired: Spec,
    /// What is on record, or was found and is taken over. `None`: there is nothing yet.
    pub current: Option<Remembered>,
    /// Every difference, in public form.
    pub changes: Vec<FieldChange>,
}

/// What is remembered of a resource, in public form.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// The provider's type.
    pub provider: String,
    /// The provider's module.
    pub provider_ref: String,
    /// The provider's own id.
    pub provider_id: String,
    /// The hash of the config that was applied; may be empty.
    pub config_hash: String,
    /// The config that was applied; secrets are markers.
    pub config: PublicMap,
    /// `apply`, or where else the config is from.
    pub config_source: String,
    /// Its outputs; sensitive ones are `secret_ref://…`.
    pub outputs: PublicMap,
    /// What it waited for.
    pub dependencies: Vec<Address>,
    /// RFC 3339; may be empty.
    pub created_at: String,
    /// RFC 3339; may be empty.
    pub updated_at: String,
}

/// A live resource that a listing found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The provider's name for it.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// The provider's own id.
    pub provider_id: String,
    /// What the listing says about it, when it says more than that it exists.
    pub observed: Option<Observed>,
}

/// What became of a resource behind our back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriftClass {
    /// As recorded.
    InSync,
    /// Recorded, but gone.
    Ghost,
    /// There, but not as configured.
    Config,
    /// The provider does not say.
    Unknown,
}

/// A provider's own verdict on drift.
#[derive(Clone, Debug)]
pub struct Drift {
    /// The resource.
    pub address: Address,
    /// What became of it.
    pub class: DriftClass,
    /// The fields that differ, dotted paths.
    pub fields: Vec<String>,
    /// Expected values.
    pub expected: PublicMap,
    /// Live values.
    pub actual: PublicMap,
}

/// How much a remark about a plan matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemarkSeverity {
    /// Good to know.
    Info,
    /// Probably not meant.
    Warning,
    /// Will not work; the plan is refused.
    Error,
}

/// A provider's remark about a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// How much it matters.
    pub severity: RemarkSeverity,
    /// The resource it is about, if about one.
    pub resource: Option<String>,
    /// The field, if about one.
    pub field: Option<String>,
    /// What is wrong. Untrusted text.
    pub message: String,
}

/// One piece of evidence about a failure, from the driver. Untrusted text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The provider's id of what it looked at, such as a deployment.
    pub id: String,
    /// When in the life of that thing, such as `build`.
    pub phase: String,
    /// The cause, one sentence.
    pub cause: String,
    /// RFC 3339 time, empty when the provider does not say.
    pub at: String,
    /// Everything else.
    pub detail: String,
}

/// A failure while finalizing an apply. Untrusted text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FinalizeFailure {
    /// The resource or driver it is about.
    pub resource: String,
    /// What was tried.
    pub action: String,
    /// What went wrong.
    pub error: String,
}

/// A resource and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owned {
    /// The provider's name for it.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The provider's own id.
    pub provider_id: String,
    /// Whose it is; empty for nobody's.
    pub owner: String,
    /// Where the provider keeps that, such as `tag`.
    pub source: String,
}

/// A region of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Region {
    /// Its id, such as `nyc3`.
    pub name: String,
    /// Its name for people.
    pub display_name: String,
}

/// What a provider made to keep state in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootstrappedState {
    /// Bucket or container.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// Its endpoint.
    pub endpoint: String,
    /// Variables later runs want. Values may be secret.
    pub variables: BTreeMap<String, String>,
}

/// Which log of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogKind {
    /// Of the running thing.
    #[default]
    Run,
    /// Of the run before the last restart.
    RunRestarted,
    /// Of its build.
    Build,
    /// Of its deployment.
    Deploy,
}

/// A wish for logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogWish {
    /// Which log.
    pub kind: LogKind,
    /// Part of the resource; empty for the whole.
    pub component: String,
    /// Deployment; empty for the current one.
    pub deployment: String,
    /// How many of the last lines; `None` for the provider's default.
    pub tail: Option<u32>,
    /// How long to follow; `None` for not at all.
    pub follow: Option<Duration>,
}

/// Takes pieces of a log as they come. Untrusted bytes; a piece need not end with a line.
pub type LogTaker<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

/// A one-off job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Its kind, a word of the provider.
    pub kind: String,
    /// The image it runs.
    pub image: String,
    /// Its command line.
    pub command: String,
    /// Its environment, public values only.
    pub variables: BTreeMap<String, String>,
    /// Names of its environment and *references* to secrets, which the provider resolves.
    pub secret_variables: BTreeMap<String, String>,
}

/// A job that was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHandle {
    /// The provider's own id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The provider's word for itself.
    pub provider: String,
    /// What the provider wants to get back with every question.
    pub metadata: BTreeMap<String, String>,
}

/// What a job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// The provider does not say.
    Unknown,
    /// Not started yet.
    Pending,
    /// Running.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Was stopped.
    Cancelled,
}

impl JobState {
    /// True when nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The word used in JSON and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How a job is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobStatus {
    /// What it is doing.
    pub state: JobState,
    /// Its exit code, once it ended.
    pub exit_code: i32,
    /// What the provider says. Untrusted text.
    pub message: String,
}

/// What a provider is told of an application that it is to know the needs of: what there is, never how
/// it is configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// The environment.
    pub environment: String,
    /// Its modules, in file order.
    pub modules: Vec<ModuleName>,
    /// The plugins that are installed for it.
    pub plugins: Vec<String>,
    /// What the provider's own module says, without secrets and without values of variables that are
    /// secret.
    pub settings: PublicMap,
}

/// One module of an [`Application`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleName {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Keys of the requirements it meets.
    pub satisfies: Vec<String>,
}

/// Something an application needs, in no provider's words. Enumerations are the lower-case words
/// of the contract (`database`, `kubernetes`, `traces`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requirement {
    /// Stable key.
    pub key: String,
    /// What sort of thing: `database`, `cache`, `web-api`, …
    pub kind: String,
    /// Who declared it.
    pub source: String,
    /// The resource type that is wanted, if one is.
    pub resource_type: String,
    /// The environment.
    pub environment: String,
    /// Runtimes it may run on; none for any.
    pub runtimes: Vec<String>,
    /// Telemetry signals it sends.
    pub signals: Vec<String>,
    /// Observability backends it works with.
    pub backends: Vec<String>,
    /// Deployment modes it works in; none for any.
    pub modes: Vec<String>,
    /// Words of single vendors.
    pub vendor_features: Vec<String>,
    /// Everything else. Never a secret.
    pub parameters: PublicMap,
}

/// A module that a provider suggests for a requirement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DerivedModule {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Keys of the requirements it meets.
    pub satisfies: Vec<String>,
    /// Its config; placeholders where secrets belong.
    pub config: PublicMap,
    /// Modules it waits for.
    pub depends_on: Vec<String>,
}

/// A requirement that a provider cannot meet. Untrusted text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// The requirement.
    pub key: String,
    /// A code of the provider.
    pub code: String,
    /// Why.
    pub message: String,
}

/// Advice on a requirement. Untrusted text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The requirement.
    pub key: String,
    /// The advice.
    pub message: String,
    /// True when a person has to decide something.
    pub interactive: bool,
}

/// How a provider would meet requirements.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Derivation {
    /// Keys that are met.
    pub accepted: Vec<String>,
    /// Those that are not, and why.
    pub rejected: Vec<Rejection>,
    /// Modules to add to the config.
    pub modules: Vec<DerivedModule>,
    /// Advice.
    pub notes: Vec<Advice>,
}

/// An order to repair a migration that stopped half-way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationRepair {
    /// The application, by name.
    pub application: String,
    /// The database, by name.
    pub database: String,
    /// The image that can run migrations.
    pub image: String,
    /// Where the migrations lie inside it.
    pub source: String,
    /// The version that is expected to be half done.
    pub dirty_version: String,
    /// The version to set.
    pub forced_version: String,
    /// Migrate on after setting it.
    pub then_up: bool,
    /// Migrate on when nothing is half done.
    pub up_if_clean: bool,
    /// The words that show that a person means it.
    pub confirmation: String,
    /// Environment of the job, public values only.
    pub variables: BTreeMap<String, String>,
    /// Limit of the job; `None` for the provider's default.
    pub timeout: Option<Duration>,
}

/// How a repair ended. Untrusted text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MigrationRepaired {
    /// The provider's id of the job.
    pub job: String,
    /// `succeeded`, `failed`, `approval_required` or `unsupported`.
    pub status: String,
    /// Migrations that were applied.
    pub applied: Vec<String>,
    /// What the job said.
    pub logs: String,
    /// What the provider saw.
    pub evidence: Vec<Evidence>,
}
