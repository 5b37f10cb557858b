//! The nouns as they travel, both ways.

use serde_json::Value;

use super::*;
use crate::{Error, Result, iac};

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
