//! The end of a run, for people: a few lines at the terminal, a page in the job summary.

use std::fmt::Write as _;

use super::Desk;
use super::up::Story;
use crate::actions::Summary;
use crate::actions::summary::Piece;
use crate::apply::ApplyReport;
use crate::apply::execute::sentence;
use crate::apply::sinks::SinkResult;
use crate::face;
use crate::face::plan::markdown;
use crate::plan::Plan;
use crate::report::{Exit, Outcome, SinkOutcome};
use crate::resource::ActionKind;
use crate::verify::{Evidence, GateReport};

/// What the run came to, in one sentence.
fn verdict(story: &Story<'_>) -> String {
    let environment = &story.config.environment;
    match story.exit {
        Exit::Done if story.apply.actions.is_empty() => {
            format!("Environment {environment} is up to date.")
        }
        Exit::Done => format!("Environment {environment} is deployed."),
        Exit::GateClosed => format!(
            "Environment {environment} is applied, but the gate stayed closed: the new version does not answer as expected."
        ),
        Exit::Partial => format!("Environment {environment} is applied in part."),
        Exit::Interrupted => format!(
            "Stopped. What was done to environment {environment} is recorded; the next run goes on from here."
        ),
        Exit::Locked => {
            format!("Stopped: this run lost its lock on environment {environment}.")
        }
        Exit::Failed | Exit::Usage | Exit::Changes | Exit::Unchecked | Exit::Bug => {
            format!("Environment {environment}: failed.")
        }
    }
}

fn count(number: usize, what: &str) -> Option<String> {
    (number > 0).then(|| format!("{number} {what}"))
}

/// The closing lines.
pub fn terminal(story: &Story<'_>) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        if text.write_fmt(arguments).is_ok() {
            text.push('\n');
        }
    };
    let actions = [
        count(story.apply.count(Outcome::Success), "done"),
        count(story.apply.failed(), "failed"),
        count(story.apply.count(Outcome::Skipped), "skipped"),
    ];
    let actions: Vec<String> = actions.into_iter().flatten().collect();
    line(format_args!("{}", verdict(story)));
    line(format_args!(
        "  resources  {}",
        if actions.is_empty() {
            "no changes".to_owned()
        } else {
            actions.join(", ")
        }
    ));
    if !story.sinks.is_empty() {
        let of = |outcome| {
            story
                .sinks
                .iter()
                .filter(|sink| sink.outcome == outcome)
                .count()
        };
        let sinks = [
            count(of(SinkOutcome::Written), "written"),
            count(of(SinkOutcome::Removed), "removed"),
            count(of(SinkOutcome::Unchanged), "unchanged"),
            count(of(SinkOutcome::Failed), "failed"),
            count(of(SinkOutcome::Skipped), "skipped"),
        ];
        line(format_args!(
            "  sinks      {}",
            sinks.into_iter().flatten().collect::<Vec<_>>().join(", ")
        ));
    }
    match &story.gates {
        Some(gates) => {
            for gate in gates {
                line(format_args!(
                    "  gate       {} {} after {}",
                    gate.name,
                    if gate.is_open() {
                        "open"
                    } else {
                        gate.verdict.word()
                    },
                    face::elapsed(gate.elapsed)
                ));
            }
        }
        None if !story.gate_skipped.is_empty() => {
            line(format_args!(
                "  gate       not tried: {}",
                story.gate_skipped
            ));
        }
        None => {}
    }
    for (index, next) in story.next.iter().enumerate() {
        line(format_args!(
            "{} {next}",
            if index == 0 {
                "  next      "
            } else {
                "            "
            }
        ));
    }
    text
}

/// The page in the job summary (only inside GitHub Actions).
pub fn job(desk: &Desk, story: &Story<'_>) {
    let mut page = Summary::new(&desk.masker);
    page.section(&format!("{} {}", mark(story.exit), verdict(story)))
        .paragraph(&[Piece::Text(&face::plan::sentence(&story.plan))]);
    resources(&mut page, &story.plan, &story.apply);
    evidence(&mut page, &story.apply);
    let risky = markdown::sorted_by_risk(&story.plan);
    if risky.iter().any(|action| !action.changes.is_empty()) {
        markdown::details(page.section("Changes"), &risky, &desk.masker);
    }
    sinks(&mut page, &story.sinks);
    match &story.gates {
        Some(gates) => gate_tables(&mut page, gates),
        None if !story.gate_skipped.is_empty() => {
            page.section("Gate")
                .paragraph(&[Piece::Text("Not tried: "), Piece::Text(story.gate_skipped)]);
        }
        None => {}
    }
    if !story.problems.is_empty() {
        let items: Vec<Vec<Piece<'_>>> = story
            .problems
            .iter()
            .map(|problem| {
                vec![
                    Piece::Code(problem.code),
                    Piece::Text(" "),
                    Piece::Text(&problem.message),
                ]
            })
            .collect();
        page.section("Problems").list(&items);
    }
    if !story.next.is_empty() {
        page.section("Next").code("text", &story.next.join("\n"));
    }
    desk.ui.summary(&page.render());
}

fn sinks(page: &mut Summary, sinks: &[SinkResult]) {
    if sinks.is_empty() {
        return;
    }
    let rows: Vec<Vec<Vec<Piece<'_>>>> = sinks
        .iter()
        .map(|sink| {
            vec![
                vec![Piece::Code(&sink.destination)],
                vec![Piece::Code(&sink.name)],
                vec![Piece::Text(sink.outcome.word())],
                vec![Piece::Text(&sink.message)],
            ]
        })
        .collect();
    page.section("Sinks")
        .table(&["destination", "name", "result", "why"], &rows);
}

/// What drivers found out about failures, folded.
fn evidence(page: &mut Summary, apply: &ApplyReport) {
    let failed: Vec<_> = apply
        .actions
        .iter()
        .filter(|result| !result.evidence.is_empty())
        .collect();
    if failed.is_empty() {
        return;
    }
    let section = page.section("Causes");
    for result in failed {
        let mut text = String::new();
        for piece in &result.evidence {
            text.push_str(&sentence(piece));
            text.push('\n');
            for line in [&piece.at, &piece.detail] {
                if !line.is_empty() && *line != piece.cause {
                    text.push_str(&format!("    {line}\n"));
                }
            }
        }
        section.details(
            &[
                Piece::Text(&format!("{} ", result.action.word())),
                Piece::Code(result.address.as_str()),
            ],
            "text",
            &text,
        );
    }
}

/// The page of `infra destroy`.
pub fn destroyed(
    desk: &Desk,
    verdict: &str,
    plan: &Plan,
    report: &ApplyReport,
    removed: &[SinkResult],
    exit: Exit,
) {
    let mut page = Summary::new(&desk.masker);
    page.section(&format!("{} {verdict}", mark(exit)));
    resources(&mut page, plan, report);
    evidence(&mut page, report);
    sinks(&mut page, removed);
    desk.ui.summary(&page.render());
}

fn mark(exit: Exit) -> &'static str {
    match exit {
        Exit::Done => "✅",
        _ => "❌",
    }
}

fn resources(page: &mut Summary, plan: &Plan, apply: &ApplyReport) {
    let rows: Vec<[String; 6]> = plan
        .actions
        .iter()
        .filter(|action| action.action != ActionKind::NoOp)
        .map(|action| {
            let result = apply
                .actions
                .iter()
                .find(|result| result.address == action.address);
            [
                format!("{} {}", action.action.symbol(), action.action.word()),
                action.address.to_string(),
                action.kind.to_string(),
                result.map_or("", |result| result.outcome.word()).to_owned(),
                result.map_or_else(String::new, |result| face::elapsed(result.elapsed)),
                result.map_or_else(String::new, |result| result.message.clone()),
            ]
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    let cells: Vec<Vec<Vec<Piece<'_>>>> = rows
        .iter()
        .map(|[action, name, kind, outcome, elapsed, why]| {
            vec![
                vec![Piece::Text(action)],
                vec![Piece::Code(name)],
                vec![Piece::Code(kind)],
                vec![Piece::Text(outcome)],
                vec![Piece::Text(elapsed)],
                vec![Piece::Text(why)],
            ]
        })
        .collect();
    page.section("Resources").table(
        &["action", "resource", "type", "result", "time", "why"],
        &cells,
    );
}

/// The page of `deploy verify`.
pub fn gate(desk: &Desk, reports: &[GateReport]) {
    let mut page = Summary::new(&desk.masker);
    gate_tables(&mut page, reports);
    desk.ui.summary(&page.render());
}

fn gate_tables(page: &mut Summary, gates: &[GateReport]) {
    for gate in gates {
        let rows: Vec<[String; 4]> = gate
            .targets
            .iter()
            .map(|target| {
                [
                    target.target.clone(),
                    if target.passed {
                        "passed"
                    } else {
                        "not passed"
                    }
                    .to_owned(),
                    target.attempts.to_string(),
                    target
                        .last
                        .as_ref()
                        .map_or_else(String::new, |last| last.message.clone()),
                ]
            })
            .collect();
        let cells: Vec<Vec<Vec<Piece<'_>>>> = rows
            .iter()
            .map(|[target, result, looks, last]| {
                vec![
                    vec![Piece::Code(target)],
                    vec![Piece::Text(result)],
                    vec![Piece::Text(looks)],
                    vec![Piece::Text(last)],
                ]
            })
            .collect();
        let section = page.section(&format!("Gate {}", gate.name));
        section
            .paragraph(&[
                Piece::Strong(if gate.is_open() {
                    "open"
                } else {
                    gate.verdict.word()
                }),
                Piece::Text(" after "),
                Piece::Text(&face::elapsed(gate.elapsed)),
            ])
            .table(&["target", "result", "looks", "last failure"], &cells);
        for target in gate.targets.iter().filter(|target| !target.passed) {
            if let Some(excerpt) = target.last.as_ref().and_then(Evidence::excerpt) {
                section.details(
                    &[Piece::Code(&target.target), Piece::Text(" answered")],
                    "text",
                    &excerpt,
                );
            }
        }
    }
}
