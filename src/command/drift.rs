//! `infra drift`: what was changed behind our back. Changes nothing but the note of when it looked.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

use super::infra::{remember_look, warn_if_unfinished};
use super::open::Opened;
use super::{CommandResult, Desk};
use crate::apply::drift::{Finding, Verdict, look};
use crate::apply::secrets;
use crate::apply::values::Values;
use crate::cli::infra::DriftArgs;
use crate::config::{Config, Needs};
use crate::face;
use crate::report::text::{Limits, one_line};
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::secret::Masker;

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &DriftArgs) -> CommandResult {
    let config = desk.load_for(Needs::LOOK, &arguments.config)?;
    let opened = desk.open(&config).await?;
    let result = opened_run(desk, arguments, &config, &opened).await;
    opened.close().await;
    result
}

async fn opened_run(
    desk: &Desk,
    arguments: &DriftArgs,
    config: &Config,
    opened: &Opened,
) -> CommandResult {
    let engine = opened
        .engine(desk, config, usize::from(arguments.parallelism), false)
        .await?;
    warn_if_unfinished(desk, &engine).await?;
    let values = match secrets::known(&engine, &opened.secret_stores).await {
        Ok(values) => values,
        Err(problems) => {
            // A secret store that does not answer takes away some comparisons, not the whole look.
            for mut problem in problems {
                problem.severity = crate::report::Severity::Warning;
                desk.ui.say(Event::Problem(Box::new(problem)));
            }
            Values::new(BTreeMap::new(), desk.masker.clone())
        }
    };
    let findings = look(&engine, &values).await?;
    let looked_at = findings
        .iter()
        .filter(|finding| finding.verdict != Verdict::Unchecked)
        .map(|finding| finding.address.clone())
        .collect();
    remember_look(desk, opened, &engine, "infra drift", &looked_at).await;
    let exit = exit_of(&findings);
    desk.emit(&json!({
        "command": "infra drift",
        "config": config.path,
        "environment": config.environment,
        "exit_code": exit as u8,
        "failed": exit == Exit::Unchecked,
        "summary": {
            "in_sync": count(&findings, Verdict::InSync),
            "ghost": count(&findings, Verdict::Ghost),
            "config": count(&findings, Verdict::Config),
            "could_not_check": count(&findings, Verdict::Unchecked),
        },
        "resources": findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
    }));
    if !desk.global.json {
        desk.ui.data(&render(&findings, &desk.masker));
    }
    for finding in findings
        .iter()
        .filter(|finding| finding.verdict != Verdict::InSync)
    {
        // The table says it already; inside Actions it also belongs to a line of the config.
        if desk.ui.is_in_actions() {
            desk.ui
                .say(Event::Problem(Box::new(problem(finding, &desk.masker))));
        }
    }
    Ok(exit)
}

/// Drift that was found outweighs what could not be looked at: the document has both.
fn exit_of(findings: &[Finding]) -> Exit {
    let any = |test: &dyn Fn(Verdict) -> bool| findings.iter().any(|one| test(one.verdict));
    if any(&Verdict::is_drift) {
        Exit::Changes
    } else if any(&|verdict| verdict == Verdict::Unchecked) {
        Exit::Unchecked
    } else {
        Exit::Done
    }
}

fn count(findings: &[Finding], verdict: Verdict) -> usize {
    findings
        .iter()
        .filter(|finding| finding.verdict == verdict)
        .count()
}

fn problem(finding: &Finding, masker: &Masker) -> Report {
    let name = &finding.address;
    let report = match finding.verdict {
        Verdict::Ghost => Report::warning("drift/ghost", format!("`{name}` is gone")).fix(
            "run `tidegate infra apply` to make it again, or `tidegate infra refresh --prune` to forget it",
        ),
        Verdict::Config | Verdict::InSync => Report::warning(
            "drift/config",
            format!("`{name}` is not as it was applied"),
        )
        .fix("run `tidegate infra apply` to set it right, or change the config to match"),
        Verdict::Unchecked => {
            Report::warning("drift/unchecked", format!("`{name}` could not be checked"))
                .fix("remove the cause, then run the command again")
        }
    };
    let report = if finding.reason.is_empty() {
        report
    } else {
        report.because(finding.reason.clone())
    };
    finding
        .fields
        .iter()
        .fold(report, |report, field| {
            let (expected, found) = face::plan::values(&field.expected, &field.actual, masker);
            report.because(format!(
                "{}: expected {expected}, found {found}",
                field.path
            ))
        })
        .at_maybe(finding.at.clone())
}

fn render(findings: &[Finding], masker: &Masker) -> String {
    let shown = |text: &str| one_line(&masker.mask(text), Limits::FIELD);
    if findings.is_empty() {
        return "No resources are recorded for this environment.\n".to_owned();
    }
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        if text.write_fmt(arguments).is_ok() {
            text.push('\n');
        }
    };
    let widest = |text: &dyn Fn(&Finding) -> String| {
        const COLUMN_MAX: usize = 48;
        let widths = findings.iter().map(|finding| text(finding).chars().count());
        widths.max().unwrap_or(0).min(COLUMN_MAX)
    };
    let name_width = widest(&|finding| shown(finding.address.as_str()));
    let kind_width = widest(&|finding| shown(finding.kind.as_str()));
    for finding in findings {
        let why = if finding.reason.is_empty() {
            String::new()
        } else {
            format!("  ({})", shown(&finding.reason))
        };
        let row = format!(
            "{:<15}  {:<name_width$}  {:<kind_width$}{why}",
            finding.verdict.word().to_ascii_uppercase(),
            shown(finding.address.as_str()),
            shown(finding.kind.as_str()),
        );
        line(format_args!("{}", row.trim_end()));
        for field in &finding.fields {
            let (expected, found) = face::plan::values(&field.expected, &field.actual, masker);
            line(format_args!(
                "                 {}: expected {expected}, found {found}",
                shown(&field.path),
            ));
        }
    }
    line(format_args!(
        "\nDrift: {} in sync, {} gone, {} changed, {} could not be checked.",
        count(findings, Verdict::InSync),
        count(findings, Verdict::Ghost),
        count(findings, Verdict::Config),
        count(findings, Verdict::Unchecked),
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Address, Kind, ProviderId};

    fn finding(verdict: Verdict) -> Finding {
        Finding {
            address: Address::new("db"),
            kind: Kind::new("infra.database"),
            provider: ProviderId::new("here"),
            verdict,
            source: "apply".to_owned(),
            protected: false,
            fields: Vec::new(),
            reason: String::new(),
            at: None,
        }
    }

    #[test]
    fn each_verdict_has_its_exit_code_and_nothing_is_a_false_all_clear() {
        use Verdict::{Config, Ghost, InSync, Unchecked};
        for (verdicts, exit) in [
            (vec![], Exit::Done),
            (vec![InSync, InSync], Exit::Done),
            (vec![InSync, Ghost], Exit::Changes),
            (vec![Config], Exit::Changes),
            (vec![InSync, Unchecked], Exit::Unchecked),
            (vec![Unchecked, Config], Exit::Changes),
        ] {
            let findings: Vec<Finding> = verdicts.iter().copied().map(finding).collect();
            assert_eq!(exit_of(&findings), exit, "{verdicts:?}");
        }
    }
}
