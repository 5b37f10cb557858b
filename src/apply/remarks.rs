//! What providers think of a plan before it runs, and what they finish after it.

use super::survey::Resources;
use super::{ApplyReport, Engine};
use crate::config::Resource;
use crate::plan::Scope;
use crate::provider::ErrorClass;
use crate::provider::ability::{Ability, Remark, RemarkSeverity};
use crate::report::{Exit, Report};
use crate::resource::{Address, ProviderId, Spec};

/// Longest remark kept, in characters; the text comes from outside.
const REMARK_CHARACTERS: usize = 2_000;
/// Remarks kept of one provider.
const REMARKS: usize = 200;

/// Asks every provider that can validate. Remarks that are errors refuse the plan.
///
/// # Errors
/// Every remark of severity error, at its resource.
pub(super) async fn validate(
    engine: &Engine<'_>,
    resources: &Resources<'_>,
    scope: &Scope,
    desired: impl Fn(&Resource) -> Result<Spec, Report>,
) -> Result<Vec<(ProviderId, Remark)>, Vec<Report>> {
    let mut remarks = Vec::new();
    let mut problems = Vec::new();
    for (id, provider) in engine.providers {
        if !provider.abilities().contains(&Ability::Validate) {
            continue;
        }
        let own = resources
            .0
            .iter()
            .filter(|it| it.provider == *id && scope.includes(&it.address))
            .map(|resource| desired(resource))
            .collect::<Result<Vec<Spec>, Report>>()
            .map_err(|problem| vec![problem])?;
        let mut found = match provider.validate(&own).await {
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
            if remark.message.chars().count() > REMARK_CHARACTERS {
                remark.message = remark.message.chars().take(REMARK_CHARACTERS).collect();
            }
            if remark.severity == RemarkSeverity::Error {
                problems.push(refusal(id, &remark, resources));
            } else {
                remarks.push((id.clone(), remark));
            }
        }
    }
    remarks.sort_by_key(|(_, remark)| std::cmp::Reverse(remark.severity));
    if problems.is_empty() {
        Ok(remarks)
    } else {
        Err(problems)
    }
}

fn refusal(id: &ProviderId, remark: &Remark, resources: &Resources<'_>) -> Report {
    let place = remark
        .resource
        .as_deref()
        .and_then(|name| resources.get(&Address::new(name)))
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
