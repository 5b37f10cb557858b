//! The nouns authors work with.

mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, Result};
pub(crate) use wire::{map_from, map_to};

/// A JSON object, keys sorted.
pub type Map = serde_json::Map<String, Value>;

/// A resource type the provider drives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name in configs, such as `infra.database`.
    pub name: String,
    /// Where it stands in a system.
    pub tier: Tier,
    /// Whether its driver implements `scale`.
    pub can_scale: bool,
    /// Whether two live resources of one name do not collide.
    pub can_create_before_destroy: bool,
}

/// Where a resource stands in a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// What everything stands on.
    Infrastructure = 1,
    /// What several applications share.
    Shared = 2,
    /// Part of one application.
    Application = 3,
}

impl Kind {
    /// A kind of the infrastructure tier that does not scale.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            tier: Tier::Infrastructure,
            can_scale: false,
            can_create_before_destroy: false,
        }
    }

    /// Sets the tier.
    #[must_use]
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tier = tier;
        self
    }

    /// Says that two live resources of one name do not collide: `create` makes a second one beside an
    /// old one, and every call with an id means the one of that id. A host may then replace without
    /// a gap (`lifecycle: {create_before_destroy: true}`).
    #[must_use]
    pub fn creates_before_destroy(mut self) -> Self {
        self.can_create_before_destroy = true;
        self
    }

    /// Says that its driver implements `scale`.
    #[must_use]
    pub fn scales(mut self) -> Self {
        self.can_scale = true;
        self
    }
}

/// A resource as it should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    /// Its name, unique in a plan.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its config, with everything filled in.
    pub config: Map,
    /// `xs` to `xl`, a slug of the provider, or empty.
    pub size: String,
    /// What it should have, beyond the size.
    pub hints: Hints,
    /// Names of resources it depends on.
    pub depends_on: Vec<String>,
}

impl Spec {
    /// The config as a type of yours; what does not fit is [`Error::invalid`].
    pub fn config_as<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(Value::Object(self.config.clone()))
            .map_err(|error| Error::invalid(format!("{}: {error}", self.name)))
    }
}

/// Free-text quantities (`2 vCPU`, `4Gi`); empty means no wish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Processor.
    pub cpu: String,
    /// Memory.
    pub memory: String,
    /// Storage.
    pub storage: String,
}

/// A resource that a host remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The provider's id for it; empty means: find it by name.
    pub provider_id: String,
}

/// A resource as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The provider's id for it.
    pub provider_id: String,
    /// What there is to know about it; other resources may refer to these.
    pub outputs: Map,
    /// Which outputs are secret. A host keeps those out of its records.
    pub sensitive: BTreeSet<String>,
    /// A word on how it is (`running`).
    pub status: String,
}

impl Observed {
    /// A resource with that id and no outputs yet.
    pub fn new(provider_id: impl Into<String>) -> Self {
        Self {
            provider_id: provider_id.into(),
            ..Self::default()
        }
    }

    /// Adds an output.
    #[must_use]
    pub fn output(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.outputs.insert(key.into(), value.into());
        self
    }

    /// Adds a secret output; secrets are always text.
    #[must_use]
    pub fn secret(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into();
        self.sensitive.insert(key.clone());
        self.outputs.insert(key, Value::String(value.into()));
        self
    }

    /// Sets the status.
    #[must_use]
    pub fn status(mut self, word: impl Into<String>) -> Self {
        self.status = word.into();
        self
    }
}

/// What an update would change; nothing in it means that all is as desired.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diff {
    /// Every difference.
    pub changes: Vec<FieldChange>,
}

/// One difference.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldChange {
    /// Dotted path.
    pub path: String,
    /// What it is.
    pub old: Value,
    /// What it should be.
    pub new: Value,
    /// True when only a new resource can have it.
    pub force_new: bool,
}

impl Diff {
    /// No difference.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a change in place, if the two differ.
    #[must_use]
    pub fn compare(
        self,
        path: impl Into<String>,
        old: impl Into<Value>,
        new: impl Into<Value>,
    ) -> Self {
        self.add(path.into(), old.into(), new.into(), false)
    }

    /// Adds a change that only a new resource can have, if the two differ.
    #[must_use]
    pub fn compare_fixed(
        self,
        path: impl Into<String>,
        old: impl Into<Value>,
        new: impl Into<Value>,
    ) -> Self {
        self.add(path.into(), old.into(), new.into(), true)
    }

    fn add(mut self, path: String, old: Value, new: Value, force_new: bool) -> Self {
        if old != new {
            self.changes.push(FieldChange {
                path,
                old,
                new,
                force_new,
            });
        }
        self
    }

    /// True when only a new resource can have the changes.
    pub fn needs_replace(&self) -> bool {
        self.changes.iter().any(|change| change.force_new)
    }

    /// True when nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// How a resource is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// True when it works.
    pub healthy: bool,
    /// A sentence, shown while a host waits.
    pub message: String,
}

/// Something that happened to a resource and may explain a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostic {
    /// The provider's id for the event.
    pub id: String,
    /// In which phase.
    pub phase: String,
    /// The cause, in a sentence.
    pub cause: String,
    /// When.
    pub at: Option<SystemTime>,
    /// Everything else there is to say.
    pub detail: String,
}

/// What an abstract size means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sizing {
    /// The provider's slug.
    pub instance_type: String,
    /// Config keys to set.
    pub config: Map,
}

/// What a state backend needs, and now has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootstrappedState {
    /// Bucket or container.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// Where it is reached.
    pub endpoint: String,
    /// Environment variables for whoever uses it.
    pub variables: BTreeMap<String, String>,
}

/// A live resource that was found rather than asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// How it is.
    pub observed: Observed,
}

/// Whether a resource is what its record says.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The verdict.
    pub verdict: DriftVerdict,
    /// What was expected, of the fields that drifted.
    pub expected: Map,
    /// What is, of the same fields.
    pub actual: Map,
}

/// A verdict on drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriftVerdict {
    /// It is what it should be.
    InSync,
    /// It is gone.
    Ghost,
    /// It is something else.
    Changed,
    /// Could not be told.
    Unknown,
}

/// A region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// What a config says.
    pub name: String,
    /// What people say; may be empty.
    pub label: String,
}

/// Whose something is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Who; empty means nobody.
    pub owner: String,
    /// How it is known, such as `tag:managed-by`.
    pub source: String,
}

/// A resource and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// The resource.
    pub resource: Recorded,
    /// Whose.
    pub owner: Owner,
}

/// What could not be finished after an apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// The resource, or its kind.
    pub resource: String,
    /// What was to be done.
    pub action: String,
    /// Why it failed.
    pub error: String,
}

/// A plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Its id.
    pub id: String,
    /// What it does, in order.
    pub actions: Vec<PlannedAction>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedAction {
    /// What is done.
    pub action: Action,
    /// The resource as it should be.
    pub desired: Spec,
    /// The resource as it is remembered; absent for a create.
    pub prior: Option<Recorded>,
    /// What differs.
    pub changes: Vec<FieldChange>,
}

/// What a plan does to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Make it.
    Create,
    /// Change it in place.
    Update,
    /// Remove it and make a new one.
    Replace,
    /// Remove it.
    Delete,
}

/// Something to say about a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// How much it matters.
    pub severity: Severity,
    /// The resource; empty means the whole plan.
    pub resource: String,
    /// The field; empty means the whole resource.
    pub field: String,
    /// A sentence.
    pub message: String,
}

/// How much a remark matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Probably wrong.
    Warning,
    /// Cannot work.
    Error,
}

/// Which log to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// The resource.
    pub resource: Recorded,
    /// A part of it; may be empty.
    pub component: String,
    /// Which of its logs.
    pub log: LogKind,
    /// How many lines of the past; 0 leaves it to the provider.
    pub tail_lines: u32,
    /// How long to follow it, in seconds; `None`: do not.
    pub follow_seconds: Option<u64>,
    /// One deployment only; may be empty.
    pub deployment_id: String,
}

/// Which of a resource's logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// How it was built.
    Build,
    /// How it was deployed.
    Deploy,
    /// What it prints.
    Run,
    /// What it printed before its last restart.
    RunRestarted,
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    /// Text, ready to print.
    pub data: Bytes,
    /// Where it is from, such as `live`; may be empty.
    pub source: String,
}

/// How a job is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobStatus {
    /// Its state.
    pub state: JobState,
    /// Its exit code, once it has one.
    pub exit_code: i32,
    /// A sentence; may be empty.
    pub message: String,
}

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Not started yet.
    Pending,
    /// Running.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Ended early.
    Cancelled,
}
