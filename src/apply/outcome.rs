//! How a whole apply ended, as the contract's own message: so that reports of different engines can
//! be read by the same tools. One entry for each action of the plan, in its order, on every way out.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tidegate_plugin::iac::{
    ActionError, ActionResult, ActionStatus, ApplyResult, DriftEntry, ResourceOutput,
};

use super::ApplyReport;
use crate::report::{Outcome, Report};
use crate::resource::{ActionKind, Output, PublicMap, Recorded};

/// What a failure of the last step of all is filed under.
const FINALIZE: (&str, &str) = ("<plan-finalize>", "finalize");
/// What a failure before the first action is filed under.
const PREPARE: (&str, &str) = ("<run>", "prepare");
/// What stands for a sensitive value.
const HIDDEN: &str = "(sensitive)";

/// The message.
pub fn result(
    plan_id: &str,
    inputs: &BTreeMap<String, String>,
    report: &ApplyReport,
    unfinished: &[Report],
) -> ApplyResult {
    let mut errors: Vec<ActionError> = report
        .actions
        .iter()
        .filter(|action| action.outcome.is_failure())
        .map(|action| ActionError {
            resource: action.address.to_string(),
            action: action.action.word().to_owned(),
            error: action.message.clone(),
        })
        .collect();
    errors.extend(unfinished.iter().map(|problem| ActionError {
        resource: FINALIZE.0.to_owned(),
        action: FINALIZE.1.to_owned(),
        error: sentence(problem),
    }));
    ApplyResult {
        plan_id: plan_id.to_owned(),
        resources: report
            .actions
            .iter()
            .filter_map(|action| action.made.as_ref().map(resource))
            .collect(),
        errors,
        initial_input_snapshot: inputs.clone(),
        // The environment is read once, at start: it cannot move while we run.
        input_drift_report: Vec::new(),
        replace_id_map: report
            .actions
            .iter()
            .filter(|action| action.action == ActionKind::Replace)
            .filter_map(|action| {
                let made = action.made.as_ref()?;
                Some((action.address.to_string(), made.provider_id.clone()))
            })
            .collect(),
        actions: (0_u32..)
            .zip(&report.actions)
            .map(|(action_index, action)| ActionResult {
                action_index,
                status: status(action.outcome).into(),
                error: action.message.clone(),
            })
            .collect(),
    }
}

/// The message of a run that ended before its first action: nothing but why.
pub fn refused(problems: &[Report]) -> ApplyResult {
    ApplyResult {
        errors: problems
            .iter()
            .map(|problem| ActionError {
                resource: PREPARE.0.to_owned(),
                action: PREPARE.1.to_owned(),
                error: sentence(problem),
            })
            .collect(),
        ..ApplyResult::default()
    }
}

fn sentence(problem: &Report) -> String {
    std::iter::once(&problem.message)
        .chain(&problem.because)
        .cloned()
        .collect::<Vec<_>>()
        .join(": ")
}

fn status(outcome: Outcome) -> ActionStatus {
    match outcome {
        Outcome::Success => ActionStatus::Success,
        Outcome::Error => ActionStatus::Error,
        Outcome::DeleteFailed => ActionStatus::DeleteFailed,
        Outcome::Compensated => ActionStatus::Compensated,
        Outcome::CompensationFailed => ActionStatus::CompensationFailed,
        Outcome::Skipped => ActionStatus::Skipped,
    }
}

fn resource(made: &Recorded) -> ResourceOutput {
    let mut outputs = PublicMap::new();
    let mut sensitive = BTreeMap::new();
    for (name, output) in &made.outputs {
        match output {
            Output::Public(value) => {
                outputs.insert(name.clone(), value.clone());
            }
            Output::Sensitive(_) => {
                outputs.insert(name.clone(), Value::from(HIDDEN));
                sensitive.insert(name.clone(), true);
            }
        }
    }
    ResourceOutput {
        name: made.address.to_string(),
        r#type: made.kind.to_string(),
        provider_id: made.provider_id.clone(),
        outputs_json: Value::Object(outputs).to_string().into_bytes(),
        sensitive,
        status: made.status.clone(),
    }
}

/// The message as JSON, under upstream's names; enumeration values are numbers.
pub fn to_json(result: &ApplyResult) -> Value {
    json!({
        "plan_id": result.plan_id,
        "resources": result.resources.iter().map(|resource| json!({
            "name": resource.name,
            "type": resource.r#type,
            "provider_id": resource.provider_id,
            "outputs": serde_json::from_slice::<Value>(&resource.outputs_json).unwrap_or_default(),
            "sensitive": resource.sensitive,
            "status": resource.status,
        })).collect::<Vec<_>>(),
        "errors": result.errors.iter().map(|error| json!({
            "resource": error.resource,
            "action": error.action,
            "error": error.error,
        })).collect::<Vec<_>>(),
        "initial_input_snapshot": result.initial_input_snapshot,
        "input_drift_report": result.input_drift_report.iter().map(|entry| json!({
            "name": entry.name,
            "plan_fingerprint": entry.plan_fingerprint,
            "apply_fingerprint": entry.apply_fingerprint,
        })).collect::<Vec<_>>(),
        "replace_id_map": result.replace_id_map,
        "actions": result.actions.iter().map(|action| json!({
            "action_index": action.action_index,
            "status": action.status,
            "error": action.error,
        })).collect::<Vec<_>>(),
    })
}

/// Why a document is no result of this plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no result of this plan: {0}")]
pub struct NoResult(String);

/// Reads what [`to_json`] wrote, for a plan of `actions` actions.
///
/// # Errors
/// For a shape that is none, for another number of actions than the plan has, for an action that is
/// missing or told twice, and for one without an outcome.
pub fn from_json(document: &Value, actions: usize) -> Result<ApplyResult, NoResult> {
    let wrong = |what: &str| NoResult(format!("`{what}` is missing or not what it should be"));
    let list = |key: &str| -> Result<Vec<Map<String, Value>>, NoResult> {
        let items = document
            .get(key)
            .and_then(Value::as_array)
            .ok_or_else(|| wrong(key))?;
        items
            .iter()
            .map(|item| item.as_object().cloned().ok_or_else(|| wrong(key)))
            .collect()
    };
    let text = |map: &Map<String, Value>, key: &str| -> Result<String, NoResult> {
        map.get(key)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .ok_or_else(|| wrong(key))
    };
    let texts = |key: &str| -> Result<BTreeMap<String, String>, NoResult> {
        let map = document
            .get(key)
            .and_then(Value::as_object)
            .ok_or_else(|| wrong(key))?;
        map.keys()
            .map(|name| Ok((name.clone(), text(map, name)?)))
            .collect()
    };
    let mut results = Vec::new();
    for (expected, item) in list("actions")?.iter().enumerate() {
        let index = item.get("action_index").and_then(Value::as_u64);
        if index != Some(expected as u64) {
            return Err(NoResult(format!(
                "entry {expected} is not about action {expected}"
            )));
        }
        let status = item
            .get("status")
            .and_then(Value::as_i64)
            .and_then(|status| i32::try_from(status).ok())
            .and_then(|status| ActionStatus::try_from(status).ok())
            .filter(|status| *status != ActionStatus::Unspecified)
            .ok_or_else(|| NoResult(format!("action {expected} has no outcome")))?;
        results.push(ActionResult {
            action_index: u32::try_from(expected).unwrap_or(u32::MAX),
            status: status.into(),
            error: text(item, "error")?,
        });
    }
    if results.len() != actions {
        return Err(NoResult(format!(
            "the plan has {actions} actions, this has {}",
            results.len()
        )));
    }
    Ok(ApplyResult {
        plan_id: document
            .get("plan_id")
            .and_then(Value::as_str)
            .ok_or_else(|| wrong("plan_id"))?
            .to_owned(),
        resources: list("resources")?
            .iter()
            .map(|item| {
                Ok(ResourceOutput {
                    name: text(item, "name")?,
                    r#type: text(item, "type")?,
                    provider_id: text(item, "provider_id")?,
                    outputs_json: item
                        .get("outputs")
                        .filter(|outputs| outputs.is_object())
                        .ok_or_else(|| wrong("outputs"))?
                        .to_string()
                        .into_bytes(),
                    sensitive: item
                        .get("sensitive")
                        .and_then(Value::as_object)
                        .ok_or_else(|| wrong("sensitive"))?
                        .iter()
                        .map(|(name, flag)| (name.clone(), flag.as_bool().unwrap_or(true)))
                        .collect(),
                    status: text(item, "status")?,
                })
            })
            .collect::<Result<_, _>>()?,
        errors: list("errors")?
            .iter()
            .map(|item| {
                Ok(ActionError {
                    resource: text(item, "resource")?,
                    action: text(item, "action")?,
                    error: text(item, "error")?,
                })
            })
            .collect::<Result<_, _>>()?,
        initial_input_snapshot: texts("initial_input_snapshot")?,
        input_drift_report: list("input_drift_report")?
            .iter()
            .map(|item| {
                Ok(DriftEntry {
                    name: text(item, "name")?,
                    plan_fingerprint: text(item, "plan_fingerprint")?,
                    apply_fingerprint: text(item, "apply_fingerprint")?,
                })
            })
            .collect::<Result<_, _>>()?,
        replace_id_map: texts("replace_id_map")?,
        actions: results,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::resource::{Address, Kind, Outputs, ProviderId};
    use crate::secret::Masker;

    fn action(name: &str, kind: ActionKind, outcome: Outcome) -> super::super::ActionResult {
        let masker = Masker::default();
        let address = Address::new(name);
        let made = (outcome == Outcome::Success).then(|| Recorded {
            provider_id: format!("id-{name}"),
            outputs: Outputs::from([
                ("port".to_owned(), Output::Public(json!(5432))),
                (
                    "password".to_owned(),
                    Output::Sensitive(masker.admit("p", "correct-horse-battery".to_owned())),
                ),
            ]),
            ..Recorded::by_name(address.clone(), Kind::new("infra.database"))
        });
        super::super::ActionResult {
            address,
            kind: Kind::new("infra.database"),
            provider: ProviderId::new("cloud"),
            action: kind,
            outcome,
            elapsed: Duration::ZERO,
            message: if outcome == Outcome::Success {
                String::new()
            } else {
                "no".to_owned()
            },
            class: None,
            evidence: Vec::new(),
            made,
            is_half_done: false,
        }
    }

    fn sample() -> ApplyResult {
        let outcomes = [
            Outcome::Success,
            Outcome::Error,
            Outcome::DeleteFailed,
            Outcome::Compensated,
            Outcome::CompensationFailed,
            Outcome::Skipped,
        ];
        let report = ApplyReport {
            actions: outcomes
                .iter()
                .enumerate()
                .map(|(n, outcome)| action(&format!("r{n}"), ActionKind::Replace, *outcome))
                .collect(),
            ..ApplyReport::default()
        };
        let inputs = BTreeMap::from([("TIER".to_owned(), "00aa".to_owned())]);
        result(
            "plan-1",
            &inputs,
            &report,
            &[Report::error("apply/not-finalized", "late")],
        )
    }

    #[test]
    fn every_outcome_has_its_own_number_and_comes_back() {
        let sample = sample();
        let numbers: Vec<i32> = sample.actions.iter().map(|action| action.status).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
        assert_eq!(sample.errors.len(), 5, "four failures, and the last step");
        assert_eq!(sample.replace_id_map["r0"], "id-r0");
        let document = to_json(&sample);
        assert!(!document.to_string().contains("horse"));
        assert_eq!(document["resources"][0]["outputs"]["port"], 5432);
        assert_eq!(from_json(&document, 6).unwrap(), sample);
    }

    #[test]
    fn what_does_not_belong_to_the_plan_is_refused() {
        let document = to_json(&sample());
        for wrong in [5, 7, 0] {
            assert!(from_json(&document, wrong).is_err(), "{wrong} actions");
        }
        for (pointer, value) in [
            ("/actions/2/status", json!(0)),
            ("/actions/2/status", json!(7)),
            ("/actions/2/status", json!(null)),
            ("/actions/2/action_index", json!(3)),
            ("/actions", json!({})),
            ("/plan_id", json!(1)),
            ("/errors/0/error", json!(null)),
        ] {
            let mut edited = document.clone();
            *edited.pointer_mut(pointer).unwrap() = value;
            assert!(from_json(&edited, 6).is_err(), "{pointer}");
        }
    }
}
