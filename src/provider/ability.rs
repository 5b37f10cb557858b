//! What a provider may be able to do beyond driving single resources. Absence is an answer: a
//! provider without an ability says [`super::ErrorClass::Unimplemented`], and nobody guesses.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::resource::{Address, Kind, Observed, PublicMap};

/// An optional ability of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ability {
    /// Turns an abstract size into an instance type.
    Sizing,
    /// Takes over a resource by its provider id.
    Import,
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
