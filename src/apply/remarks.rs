//! What providers think of a plan before it runs, and what they finish after it.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::drift::holds_marker;
use super::survey::{Survey, by_address};
use super::{ApplyReport, Engine};
use crate::clock::rfc3339;
use crate::config::Resource;
use crate::plan::Action;
use crate::plan::file::desired_hash;
use crate::provider::ErrorClass;
use crate::provider::ability::{
    Ability, Proposal, ProposedStep, Remark, RemarkSeverity, Remembered,
};
use crate::report::{Exit, Report};
use crate::resource::{ActionKind, Address, Output, ProviderId, PublicMap, Recorded, Spec, Value};
use crate::state::Record;

/// Longest remark kept, in characters; the text comes from outside.
const REMARK_CHARACTERS: usize = 2_000;
/// Remarks kept of one provider.
const REMARKS: usize = 200;

/// Asks every provider that can validate what it thinks of its part of the plan.
///
/// # Errors
/// When what is desired cannot be told any more.
pub async fn ask(
    engine: &Engine<'_>,
    survey: &Survey,
) -> Result<Vec<(ProviderId, Remark)>, Report> {
    let mut remarks = Vec::new();
    for (id, provider) in engine.providers {
        if !provider.abilities().contains(&Ability::Validate) {
            continue;
        }
        let proposal = proposal(engine, survey, id)?;
        if proposal.steps.is_empty() {
            continue;
        }
        let mut found = match provider.validate(&proposal).await {
            Ok(found) => found,
            // It said it could and cannot: no opinion, as upstream takes it.
            Err(error) if error.class == ErrorClass::Unimplemented => continue,
            // No findings then, as upstream takes it: its opinion is not needed to go on.
            Err(error) => vec![Remark {
                severity: RemarkSeverity::Warning,
                resource: None,
                field: None,
                message: format!(
                    "it could not look at the plan, so it has no findings: {} ({})",
                    error.message,
                    error.class.word()
                ),
            }],
        };
        found.truncate(REMARKS);
        for mut remark in found {
            remark.message = engine.masker.excerpt(&remark.message, REMARK_CHARACTERS);
            remarks.push((id.clone(), remark));
        }
    }
    remarks.sort_by_key(|(_, remark)| std::cmp::Reverse(remark.severity));
    Ok(remarks)
}

/// Asks them, and lets those that object refuse the plan.
///
/// # Errors
/// Every remark of severity error, at its resource.
pub(super) async fn validate(engine: &Engine<'_>, survey: &mut Survey) -> Result<(), Vec<Report>> {
    let remarks = ask(engine, survey).await.map_err(|problem| vec![problem])?;
    let (errors, remarks): (Vec<_>, Vec<_>) = remarks
        .into_iter()
        .partition(|(_, remark)| remark.severity == RemarkSeverity::Error);
    survey.remarks = remarks;
    if errors.is_empty() {
        return Ok(());
    }
    let resources = by_address(engine);
    Err(errors
        .iter()
        .map(|(id, remark)| refusal(id, remark, &resources))
        .collect())
}

/// The part of the plan that is about the resources of one provider.
fn proposal(engine: &Engine<'_>, survey: &Survey, id: &ProviderId) -> Result<Proposal, Report> {
    let steps: Vec<ProposedStep> = survey
        .plan
        .actions
        .iter()
        .filter(|action| action.provider == *id && action.action != ActionKind::NoOp)
        .map(|action| {
            let record = survey.records.get(&action.address);
            let prior = survey.priors.get(&action.address);
            ProposedStep {
                action: action.action,
                desired: survey
                    .desired
                    .get(&action.address)
                    .cloned()
                    .unwrap_or_else(|| applied(action, record)),
                current: match (record, prior) {
                    (Some(record), _) => Some(remembered(record)),
                    (None, prior) => prior.map(found),
                },
                changes: action.changes.clone(),
            }
        })
        .collect();
    Ok(Proposal {
        id: survey.id.clone(),
        created_at: rfc3339(engine.clock.now()),
        // Over everything desired: as much work as all there is, so only for those who are asked.
        desired_hash: if steps.is_empty() {
            String::new()
        } else {
            desired_hash(survey.desired_of_all(engine))?
        },
        steps,
    })
}

/// What is to go, as it was applied. Its secrets are nobody's business any more.
fn applied(action: &Action, record: Option<&Record>) -> Spec {
    Spec {
        address: action.address.clone(),
        kind: action.kind.clone(),
        config: record
            .map(|record| &record.config)
            .into_iter()
            .flatten()
            .filter(|(_, value)| !holds_marker(value))
            .map(|(key, value)| (key.clone(), Value::from(value.clone())))
            .collect(),
        public_config: PublicMap::new(),
        dependencies: action.recorded_depends_on.clone(),
    }
}

fn remembered(record: &Record) -> Remembered {
    Remembered {
        provider: record.provider.clone(),
        provider_ref: record.provider_ref.clone(),
        provider_id: record.provider_id.clone(),
        config_hash: record.config_hash.clone(),
        config: record.config.clone(),
        config_source: record.tidegate.applied_config_source.clone(),
        // Sensitive ones are references in a record already.
        outputs: record.outputs.clone(),
        dependencies: record.dependencies.clone(),
        created_at: record.created_at.clone(),
        updated_at: record.updated_at.clone(),
    }
}

/// What was found and is to be taken over.
fn found(prior: &Recorded) -> Remembered {
    Remembered {
        provider_id: prior.provider_id.clone(),
        outputs: prior
            .outputs
            .iter()
            .map(|(name, output)| {
                let value = match output {
                    Output::Public(value) => value.clone(),
                    Output::Sensitive(_) => {
                        Json::String(format!("secret_ref://{}_{name}", prior.address))
                    }
                };
                (name.clone(), value)
            })
            .collect(),
        ..Remembered::default()
    }
}

fn refusal(id: &ProviderId, remark: &Remark, resources: &BTreeMap<&Address, &Resource>) -> Report {
    let place = remark
        .resource
        .as_deref()
        .and_then(|name| resources.get(&Address::new(name)).copied())
        .map(|resource| resource.at.clone());
    Report::error(
        "plan/refused",
        format!("provider `{id}` refuses the plan: {}", sentence(remark)),
    )
    .at_maybe(place)
    .fix("correct the config as it says; nothing was changed")
    .exit(Exit::Usage)
}

/// A remark in one line: what it is about, and what it says.
pub fn sentence(remark: &Remark) -> String {
    match (&remark.resource, &remark.field) {
        (Some(resource), Some(field)) => format!("`{resource}`, `{field}`: {}", remark.message),
        (Some(resource), None) => format!("`{resource}`: {}", remark.message),
        (None, Some(field)) => format!("`{field}`: {}", remark.message),
        (None, None) => remark.message.clone(),
    }
}

/// Tells every provider that wants to know that all actions have ended; answers what could not be
/// finished. Each is told once, whatever became of the actions; nobody is told of a run that was cut
/// off, because its actions have not ended.
pub async fn finalize(engine: &Engine<'_>, plan: &str, report: &ApplyReport) -> Vec<Report> {
    let mut problems = Vec::new();
    if report.interrupted || report.lost_lock || report.store_failed {
        return problems;
    }
    // What was done before it is done.
    let exit = if report.changed() {
        Exit::Partial
    } else {
        Exit::Failed
    };
    for (id, provider) in engine.providers {
        if !provider.abilities().contains(&Ability::Finalize) {
            continue;
        }
        match provider.finalize(plan).await {
            Ok(failures) => problems.extend(failures.into_iter().map(|failure| {
                Report::error(
                    "apply/not-finalized",
                    format!(
                        "provider `{id}` could not finish {} of `{}`",
                        failure.action, failure.resource
                    ),
                )
                .because(failure.error)
                .fix("run the same command again")
                .exit(exit)
            })),
            Err(error) if error.class == ErrorClass::Unimplemented => {}
            Err(error) => problems.push(
                Report::error(
                    "apply/not-finalized",
                    format!("provider `{id}` could not finish the apply"),
                )
                .because(format!("{} ({})", error.message, error.class.word()))
                .fix("run the same command again")
                .exit(exit),
            ),
        }
    }
    problems
}
