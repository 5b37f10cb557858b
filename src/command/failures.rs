//! What went wrong in a run, as problems at the lines of the config they belong to. At a terminal
//! the run's own lines say it; inside GitHub Actions those are folded away, and these become
//! annotations.

use super::up::Story;
use crate::apply::execute::sentence;
use crate::config::{OnFailure, SinkDeclaration};
use crate::report::{Exit, Report, Severity, SinkOutcome};
use crate::verify::Evidence;

/// One problem for each action, sink and gate target that failed.
pub fn reports(story: &Story<'_>) -> Vec<Report> {
    let mut all: Vec<Report> = actions(story).collect();
    all.extend(sinks(story));
    all.extend(targets(story));
    all
}

fn actions<'a>(story: &'a Story<'_>) -> impl Iterator<Item = Report> + 'a {
    story
        .apply
        .actions
        .iter()
        .filter(|result| result.outcome.is_failure())
        .map(|result| {
            let resource = story
                .config
                .resources
                .iter()
                .find(|resource| resource.address == result.address);
            let mut report = Report::error(
                "apply/failed",
                format!(
                    "{} of `{}` failed: {}",
                    result.action.word(),
                    result.address,
                    result.message
                ),
            )
            .at_maybe(resource.map(|resource| resource.at.clone()));
            report.because = result.evidence.iter().map(sentence).collect();
            report
        })
}

fn sinks<'a>(story: &'a Story<'_>) -> impl Iterator<Item = Report> + 'a {
    story
        .sinks
        .iter()
        .filter(|result| result.outcome == SinkOutcome::Failed)
        .filter(|result| {
            result.on_failure == OnFailure::Fail || !story.warned.contains(&result.destination)
        })
        .map(|result| {
            let mut report = Report::error(
                "sink/failed",
                format!(
                    "`{}` was not written to {}: {}",
                    result.name, result.destination, result.message
                ),
            )
            .at_maybe(declaration(story, &result.name).map(|sink| sink.at.clone()));
            if result.on_failure == OnFailure::Warn {
                report.severity = Severity::Warning;
            }
            report
        })
}

/// The first sink of that name: two of one name differ in their destination only.
fn declaration<'a>(story: &'a Story<'_>, name: &str) -> Option<&'a SinkDeclaration> {
    let of_outputs = story
        .config
        .resources
        .iter()
        .flat_map(|resource| resource.outputs.values().flat_map(|output| &output.sinks));
    let of_secrets = story.config.generate.iter().flat_map(|item| &item.sinks);
    of_outputs.chain(of_secrets).find(|sink| sink.name == name)
}

fn targets<'a>(story: &'a Story<'_>) -> impl Iterator<Item = Report> + 'a {
    let is_stopped = story.exit == Exit::Interrupted;
    story.gates.iter().flatten().flat_map(move |gate| {
        let is_closed = !gate.is_open() && !is_stopped;
        let declared = story.config.gates.iter().find(|one| one.name == gate.name);
        gate.targets
            .iter()
            .enumerate()
            .filter(move |(_, target)| is_closed && !target.passed)
            .map(move |(index, target)| {
                let last = target.last.as_ref();
                let why = last.map_or("it was never looked at", |last| last.message.as_str());
                let report = Report::error(
                    "verify/gate-closed",
                    format!(
                        "the gate `{}` stayed closed: {}: {why}",
                        gate.name, target.target
                    ),
                );
                match last.and_then(Evidence::excerpt) {
                    Some(excerpt) => report.because(format!("it answered: {excerpt}")),
                    None => report,
                }
                .at_maybe(
                    declared
                        .and_then(|gate| gate.targets.get(index))
                        .map(|target| target.at.clone()),
                )
            })
    })
}
