//! The nouns authors work with, and what they are on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, Result, iac};

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
        }
    }

    /// Sets the tier.
    #[must_use]
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tier = tier;
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

// === the wire ===

/// A `*_json` object field. Empty and `null` are an empty map.
pub(crate) fn map_from(bytes: &[u8], field: &str) -> Result<Map> {
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(mut map)) => {
            map.values_mut().for_each(whole_numbers);
            Ok(map)
        }
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(Error::invalid(format!("{field} is not a JSON object"))),
        // Where, but not what: the text may hold a credential.
        Err(error) => Err(Error::invalid(format!(
            "{field} is not JSON (line {}, column {})",
            error.line(),
            error.column()
        ))),
    }
}

/// Hosts that know one kind of number only may send 5 as 5.0.
fn whole_numbers(value: &mut Value) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                && float.fract() == 0.0
                && float.abs() < EXACT
            {
                #[allow(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
                let whole = float as i64;
                *number = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

pub(crate) fn map_to(map: &Map) -> Vec<u8> {
    if map.is_empty() {
        return Vec::new();
    }
    serde_json::to_vec(map).unwrap_or_default()
}

fn value_from(bytes: &[u8]) -> Result<Value> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|_| Error::invalid("a changed value is not JSON"))
}

fn value_to(value: &Value) -> Vec<u8> {
    if value.is_null() {
        return Vec::new();
    }
    serde_json::to_vec(value).unwrap_or_default()
}

impl From<iac::ResourceHints> for Hints {
    fn from(wire: iac::ResourceHints) -> Self {
        Self {
            cpu: wire.cpu,
            memory: wire.memory,
            storage: wire.storage,
        }
    }
}

impl TryFrom<iac::ResourceSpec> for Spec {
    type Error = Error;
    fn try_from(wire: iac::ResourceSpec) -> Result<Self> {
        Ok(Self {
            config: map_from(&wire.config_json, "config_json")?,
            name: wire.name,
            kind: wire.r#type,
            size: wire.size,
            hints: wire.hints.map(Into::into).unwrap_or_default(),
            depends_on: wire.depends_on,
        })
    }
}

impl From<&Spec> for iac::ResourceSpec {
    fn from(spec: &Spec) -> Self {
        let Hints {
            cpu,
            memory,
            storage,
        } = spec.hints.clone();
        Self {
            name: spec.name.clone(),
            r#type: spec.kind.clone(),
            config_json: map_to(&spec.config),
            size: spec.size.clone(),
            hints: (spec.hints != Hints::default()).then_some(iac::ResourceHints {
                cpu,
                memory,
                storage,
            }),
            depends_on: spec.depends_on.clone(),
        }
    }
}

impl From<iac::ResourceRef> for Recorded {
    fn from(wire: iac::ResourceRef) -> Self {
        Self {
            name: wire.name,
            kind: wire.r#type,
            provider_id: wire.provider_id,
        }
    }
}

impl From<Recorded> for iac::ResourceRef {
    fn from(recorded: Recorded) -> Self {
        Self {
            name: recorded.name,
            r#type: recorded.kind,
            provider_id: recorded.provider_id,
        }
    }
}

impl TryFrom<iac::ResourceOutput> for Observed {
    type Error = Error;
    fn try_from(wire: iac::ResourceOutput) -> Result<Self> {
        Ok(Self {
            outputs: map_from(&wire.outputs_json, "outputs_json")?,
            provider_id: wire.provider_id,
            sensitive: wire
                .sensitive
                .into_iter()
                .filter_map(|(key, is)| is.then_some(key))
                .collect(),
            status: wire.status,
        })
    }
}

impl Observed {
    /// The wire form. A host refuses a secret that is not text after it has made the resource, so it
    /// is refused here, where the author sees it.
    pub(crate) fn into_wire(self, name: &str, kind: &str) -> Result<iac::ResourceOutput> {
        if let Some(key) = self.sensitive.iter().find(|key| {
            self.outputs
                .get(*key)
                .is_some_and(|value| !value.is_string())
        }) {
            return Err(Error::other(format!(
                "the sensitive output {key} of {name} is not text"
            )));
        }
        Ok(iac::ResourceOutput {
            name: name.to_owned(),
            r#type: kind.to_owned(),
            provider_id: self.provider_id,
            outputs_json: map_to(&self.outputs),
            sensitive: self.sensitive.into_iter().map(|key| (key, true)).collect(),
            status: self.status,
        })
    }
}

impl TryFrom<iac::FieldChange> for FieldChange {
    type Error = Error;
    fn try_from(wire: iac::FieldChange) -> Result<Self> {
        Ok(Self {
            old: value_from(&wire.old_json)?,
            new: value_from(&wire.new_json)?,
            path: wire.path,
            force_new: wire.force_new,
        })
    }
}

impl From<&FieldChange> for iac::FieldChange {
    fn from(change: &FieldChange) -> Self {
        Self {
            path: change.path.clone(),
            old_json: value_to(&change.old),
            new_json: value_to(&change.new),
            force_new: change.force_new,
        }
    }
}

impl From<Diff> for iac::DiffResult {
    fn from(diff: Diff) -> Self {
        let needs_replace = diff.needs_replace();
        Self {
            needs_update: !diff.is_empty() && !needs_replace,
            needs_replace,
            changes: diff.changes.iter().map(Into::into).collect(),
        }
    }
}

impl From<Diagnostic> for iac::Diagnostic {
    fn from(diagnostic: Diagnostic) -> Self {
        Self {
            id: diagnostic.id,
            phase: diagnostic.phase,
            cause: diagnostic.cause,
            at: diagnostic.at.map(Into::into),
            detail: diagnostic.detail,
        }
    }
}

impl From<Drift> for iac::DriftResult {
    fn from(drift: Drift) -> Self {
        let class = match drift.verdict {
            DriftVerdict::InSync => iac::DriftClass::InSync,
            DriftVerdict::Ghost => iac::DriftClass::Ghost,
            DriftVerdict::Changed => iac::DriftClass::Config,
            DriftVerdict::Unknown => iac::DriftClass::Unknown,
        };
        let fields: BTreeSet<&String> = drift.expected.keys().chain(drift.actual.keys()).collect();
        Self {
            drifted: matches!(drift.verdict, DriftVerdict::Ghost | DriftVerdict::Changed),
            class: class.into(),
            fields: fields.into_iter().cloned().collect(),
            expected_json: map_to(&drift.expected),
            actual_json: map_to(&drift.actual),
            name: drift.name,
            r#type: drift.kind,
        }
    }
}

impl From<Owned> for iac::OwnedResource {
    fn from(owned: Owned) -> Self {
        Self {
            r#ref: Some(owned.resource.into()),
            owner: owned.owner.owner,
            source: owned.owner.source,
        }
    }
}

impl From<Unfinished> for iac::ActionError {
    fn from(unfinished: Unfinished) -> Self {
        Self {
            resource: unfinished.resource,
            action: unfinished.action,
            error: unfinished.error,
        }
    }
}

impl From<Remark> for iac::PlanDiagnostic {
    fn from(remark: Remark) -> Self {
        let severity = match remark.severity {
            Severity::Info => iac::PlanDiagnosticSeverity::PlanDiagnosticInfo,
            Severity::Warning => iac::PlanDiagnosticSeverity::PlanDiagnosticWarning,
            Severity::Error => iac::PlanDiagnosticSeverity::PlanDiagnosticError,
        };
        Self {
            severity: severity.into(),
            resource: remark.resource,
            field: remark.field,
            message: remark.message,
        }
    }
}

impl Action {
    /// Its word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Delete => "delete",
        }
    }

    fn from_word(word: &str) -> Result<Self> {
        [Self::Create, Self::Update, Self::Replace, Self::Delete]
            .into_iter()
            .find(|action| action.word() == word)
            .ok_or_else(|| Error::invalid(format!("a plan has no action {word:?}")))
    }
}

impl TryFrom<iac::IaCPlan> for Plan {
    type Error = Error;
    fn try_from(wire: iac::IaCPlan) -> Result<Self> {
        let actions = wire
            .actions
            .into_iter()
            .map(|action| {
                Ok(PlannedAction {
                    action: Action::from_word(&action.action)?,
                    desired: action.resource.unwrap_or_default().try_into()?,
                    prior: action.current.map(|state| Recorded {
                        name: state.name,
                        kind: state.r#type,
                        provider_id: state.provider_id,
                    }),
                    changes: action
                        .changes
                        .into_iter()
                        .map(TryInto::try_into)
                        .collect::<Result<_>>()?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            id: wire.id,
            actions,
        })
    }
}

impl From<iac::CaptureLogsRequest> for LogRequest {
    fn from(wire: iac::CaptureLogsRequest) -> Self {
        let log = match wire.log_type() {
            iac::LogCaptureType::Build => LogKind::Build,
            iac::LogCaptureType::Deploy => LogKind::Deploy,
            iac::LogCaptureType::RunRestarted => LogKind::RunRestarted,
            iac::LogCaptureType::Run | iac::LogCaptureType::Unspecified => LogKind::Run,
        };
        Self {
            log,
            resource: Recorded {
                name: wire.resource_name,
                kind: wire.resource_type,
                provider_id: wire.provider_id,
            },
            component: wire.component_name,
            tail_lines: u32::try_from(wire.tail_lines).unwrap_or(0),
            follow_seconds: wire
                .follow
                .then_some(u64::try_from(wire.duration_seconds).unwrap_or(0)),
            deployment_id: wire.deployment_id,
        }
    }
}

impl From<JobState> for iac::JobState {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Pending => Self::Pending,
            JobState::Running => Self::Running,
            JobState::Succeeded => Self::Succeeded,
            JobState::Failed => Self::Failed,
            JobState::Cancelled => Self::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_objects_are_read_by_the_contracts_rule() {
        assert!(map_from(b"", "x").unwrap().is_empty());
        assert!(map_from(b"null", "x").unwrap().is_empty());
        assert!(map_from(b"{}", "x").unwrap().is_empty());
        for wrong in [&b"[]"[..], b"5", b"\"text\"", b"{", b"\xff"] {
            assert_eq!(
                map_from(wrong, "x").unwrap_err().class(),
                crate::ErrorClass::Invalid
            );
        }
        let map = map_from(
            br#"{"port":8080.0,"deep":[{"n":1e3}],"ratio":0.5,"large":1e300}"#,
            "x",
        )
        .unwrap();
        assert_eq!(
            Value::Object(map),
            serde_json::json!({"port": 8080, "deep": [{"n": 1000}], "ratio": 0.5, "large": 1e300})
        );
    }

    #[test]
    fn an_error_about_a_config_does_not_quote_it() {
        let error = map_from(br#"{"token":"hunter2" oops}"#, "config_json").unwrap_err();
        assert!(!error.message().contains("hunter2"), "{error}");
        assert!(error.message().contains("column"), "{error}");
    }

    #[test]
    fn a_change_that_forces_a_new_resource_is_a_replace_and_no_update() {
        let wire =
            iac::DiffResult::from(Diff::none().compare("a", 1, 2).compare_fixed("b", "x", "y"));
        assert!(wire.needs_replace && !wire.needs_update);
        let wire =
            iac::DiffResult::from(Diff::none().compare("a", 1, 2).compare_fixed("b", "x", "x"));
        assert!(!wire.needs_replace && wire.needs_update);
        let wire = iac::DiffResult::from(Diff::none().compare("a", 1, 1));
        assert!(!wire.needs_replace && !wire.needs_update && wire.changes.is_empty());
    }

    #[test]
    fn a_sensitive_output_that_is_not_text_is_refused() {
        let mut observed = Observed::new("id").secret("token", "t");
        assert!(observed.clone().into_wire("web", "k").is_ok());
        observed.outputs.insert("token".to_owned(), 5.into());
        let error = observed.into_wire("web", "k").unwrap_err();
        assert!(error.message().contains("token"), "{error}");
    }
}
