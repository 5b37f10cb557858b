//! `infra align`, `infra security-check` and `infra audit-secrets`: rules over the config and its
//! plan. Look, never touch.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::infra::count;
use super::open::Opened;
use super::{CommandResult, Desk, Problems};
use crate::apply::survey::{look_within, survey};
use crate::apply::{remarks, secrets};
use crate::cli::ConfigArgs;
use crate::cli::infra::{AlignArgs, AuditSecretsArgs, SecurityArgs};
use crate::config::{self, Config};
use crate::plan::Plan;
use crate::provider::ability::{self, RemarkSeverity};
use crate::report::text::{Limits as Cut, one_line};
use crate::report::{Event, Exit, Report, Reporter as _, Span};
use crate::resource::ActionKind;
use crate::rules::{
    self, Change, CustomRule, Finding, Limits, Remark, Rule, Severity, Subject, parse_custom,
    read_plan,
};
use crate::secret::Keyring;
use crate::secret::keyring::KEY_BYTES;

/// Largest plan file or rule file.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What distinguishes the two commands.
struct Check<'a> {
    command: &'static str,
    config: &'a ConfigArgs,
    plan: Option<&'a Path>,
    strict: bool,
    limits: Limits,
    rules: &'static [Rule],
    custom: Vec<CustomRule>,
    /// Whether providers are asked for remarks.
    asks: bool,
}

/// Runs `infra align`.
pub async fn align(desk: &Desk, arguments: &AlignArgs) -> CommandResult {
    run(
        desk,
        Check {
            command: "infra align",
            config: &arguments.config,
            plan: arguments.plan.as_deref(),
            strict: arguments.strict,
            limits: Limits {
                max_changes: arguments.max_changes,
                strict_health: arguments.strict_health,
                strict_cidr: false,
            },
            rules: rules::align(),
            custom: Vec::new(),
            asks: true,
        },
    )
    .await
}

/// Runs `infra security-check`.
pub async fn security(desk: &Desk, arguments: &SecurityArgs) -> CommandResult {
    let custom = match &arguments.rules {
        Some(folder) => custom_rules(desk, folder)?,
        None => Vec::new(),
    };
    run(
        desk,
        Check {
            command: "infra security-check",
            config: &arguments.config,
            plan: arguments.plan.as_deref(),
            strict: arguments.strict,
            limits: Limits {
                max_changes: arguments.max_changes,
                strict_health: false,
                strict_cidr: arguments.strict_cidr,
            },
            rules: rules::security(),
            custom,
            asks: false,
        },
    )
    .await
}

async fn run(desk: &Desk, check: Check<'_>) -> CommandResult {
    let config = desk.load(check.config)?;
    let planned = match check.plan {
        Some(path) => Some(plan_file(desk, path)?),
        None => None,
    };
    let opened = desk.open(&config).await?;
    let result = checked(desk, &check, &config, &opened, planned).await;
    opened.close().await;
    result
}

async fn checked(
    desk: &Desk,
    check: &Check<'_>,
    config: &Config,
    opened: &Opened,
    planned: Option<Vec<Change>>,
) -> CommandResult {
    let engine = opened.engine(desk, config, 10, false).await?;
    let mut subject = Subject::of(config, &engine.keyring, check.limits);
    subject.literals = literals(desk, config);
    let values = secrets::known(&engine, &opened.secret_stores).await?;
    // Whoever is asked is asked about what would be done now, also where another plan is checked.
    let survey = match (&planned, check.asks) {
        (Some(_), false) => None,
        (_, true) => Some(look_within(&engine, values, &[]).await?),
        (None, false) => Some(survey(&engine, values).await?),
    };
    if let Some(survey) = survey.as_ref().filter(|_| check.asks) {
        let said = remarks::ask(&engine, survey).await?;
        desk.cancel.go_on()?;
        subject.remarks = said
            .into_iter()
            .filter_map(|(_, said)| remark(said))
            .collect();
    }
    subject.plan = match planned {
        Some(planned) => planned,
        None => survey.map_or_else(Vec::new, |survey| changes(&survey.plan)),
    };
    let findings = rules::check(check.rules, &check.custom, &subject);
    let rules: Vec<&str> = check
        .rules
        .iter()
        .map(|rule| rule.id)
        .chain(check.custom.iter().map(|rule| rule.id.as_str()))
        .collect();
    Ok(tell(
        desk,
        config,
        check.command,
        &rules,
        check.strict,
        &findings,
    ))
}

/// Runs `infra audit-secrets`: the config alone, so nothing is opened and nothing is asked.
pub fn audit_secrets(desk: &Desk, arguments: &AuditSecretsArgs) -> CommandResult {
    let config = desk.load(&arguments.config)?;
    let limits = Limits {
        max_changes: 0,
        strict_health: false,
        strict_cidr: false,
    };
    // No rule here looks at a value, so any key will do to tell secrets apart.
    let subject = Subject::of(&config, &Keyring::new(&[0; KEY_BYTES]), limits);
    let findings = rules::check(rules::secrets(), &[], &subject);
    let ids: Vec<&str> = rules::secrets().iter().map(|rule| rule.id).collect();
    Ok(tell(
        desk,
        &config,
        "infra audit-secrets",
        &ids,
        false,
        &findings,
    ))
}

/// Says what was found, for people and as the document.
fn tell(
    desk: &Desk,
    config: &Config,
    command: &str,
    rules: &[&str],
    strict: bool,
    findings: &[Finding],
) -> Exit {
    let number = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let (fails, warns) = (number(Severity::Fail), number(Severity::Warn));
    let exit = if fails > 0 || (strict && warns > 0) {
        Exit::Failed
    } else {
        Exit::Done
    };
    desk.emit(&json!({
        "command": command,
        "config": config.path,
        "environment": config.environment,
        "exit_code": exit as u8,
        "failed": exit != Exit::Done,
        "rules": rules,
        "findings": findings.iter().map(|finding| json!({
            "rule": finding.rule,
            "severity": finding.severity.word(),
            "resource": finding.resource,
            "message": finding.message,
            "fix": finding.fix,
            "at": finding.at.as_ref().map(|span| json!({
                "file": span.path, "line": span.line, "column": span.column,
            })),
        })).collect::<Vec<_>>(),
    }));
    for finding in findings {
        desk.ui
            .say(Event::Problem(Box::new(problem(finding, strict))));
    }
    desk.ui.say(Event::Result {
        text: format!(
            "{command}: {} checked, {fails} failed, {}.\n",
            count(rules.len(), "rule"),
            count(warns, "warning"),
        ),
    });
    exit
}

fn problem(finding: &Finding, strict: bool) -> Report {
    let message = format!(
        "{}: {}",
        finding.rule,
        one_line(&finding.message, Cut::FIELD)
    );
    let report = if finding.severity == Severity::Fail || strict {
        Report::error("rules/finding", message)
    } else {
        Report::warning("rules/finding", message)
    };
    let report = if finding.fix.is_empty() {
        report
    } else {
        report.fix(finding.fix.clone())
    };
    report.at_maybe(finding.at.clone())
}

fn changes(plan: &Plan) -> Vec<Change> {
    plan.actions
        .iter()
        .filter(|action| action.action != ActionKind::NoOp)
        .map(|action| Change {
            address: action.address.clone(),
            kind: action.kind.clone(),
            action: action.action,
            protected: action.protected,
            changes: action.changes.clone(),
        })
        .collect()
}

/// What a provider that looked at the plan says, for the rules.
fn remark(said: ability::Remark) -> Option<Remark> {
    (said.severity != RemarkSeverity::Info).then(|| Remark {
        is_error: said.severity == RemarkSeverity::Error,
        resource: said.resource,
        field: said.field,
        message: said.message,
    })
}

fn plan_file(desk: &Desk, path: &Path) -> Result<Vec<Change>, Problems> {
    let unreadable = |why: String| {
        Report::error(
            "rules/plan",
            format!("the plan `{}` cannot be read", path.display()),
        )
        .because(why)
        .fix("write one with `tidegate infra plan --json`, or leave `--plan` out")
        .exit(Exit::Usage)
    };
    let bytes = desk
        .disk
        .read(path, FILE_BYTES_MAX)
        .map_err(|error| unreadable(error.source.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8".to_owned()))?;
    read_plan(&text).map_err(|why| unreadable(why).into())
}

/// Every rule in a folder; every malformed one is a problem.
fn custom_rules(desk: &Desk, folder: &Path) -> Result<Vec<CustomRule>, Problems> {
    let malformed = |path: &Path, why: String| {
        Report::error(
            "rules/malformed",
            format!("the rule `{}` is not understood", path.display()),
        )
        .because(why)
        .fix("see docs/rules.md, section \"Rules of your own\"")
        .exit(Exit::Usage)
    };
    let mut names = desk
        .disk
        .list(folder)
        .map_err(|error| malformed(folder, error.source.to_string()))?;
    names.retain(|name| name.ends_with(".yaml") || name.ends_with(".yml"));
    names.sort();
    let (mut all, mut problems) = (Vec::<CustomRule>::new(), Vec::new());
    for name in names {
        let path = folder.join(name);
        let rule = desk
            .disk
            .read(&path, FILE_BYTES_MAX)
            .map_err(|error| error.source.to_string())
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()))
            .and_then(|text| config::from_yaml(&text))
            .and_then(parse_custom);
        match rule {
            Ok(rule) if all.iter().any(|known| known.id == rule.id) => {
                problems.push(malformed(&path, format!("`{}` is taken", rule.id)));
            }
            Ok(rule) => all.push(rule),
            Err(why) => problems.push(malformed(&path, why)),
        }
    }
    if problems.is_empty() && all.is_empty() {
        problems.push(malformed(folder, "it holds no `.yaml` file".to_owned()));
    }
    if problems.is_empty() {
        Ok(all)
    } else {
        Err(problems.into())
    }
}

/// Lines of the config files that hold a secret in plain text: every secret is known by now, so a
/// line that the masker would change holds one.
fn literals(desk: &Desk, config: &Config) -> Vec<Span> {
    let paths: BTreeSet<PathBuf> = config
        .resources
        .iter()
        .map(|resource| resource.at.path.clone())
        .chain([config.path.clone()])
        .collect();
    let mut all = Vec::new();
    for path in paths {
        let Ok(bytes) = desk.disk.read(&path, config::FILE_BYTES_MAX) else {
            continue;
        };
        for (at, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
            let masked = desk.masker.mask(line);
            if masked != line {
                all.push(Span {
                    path: path.clone(),
                    line: u32::try_from(at + 1).unwrap_or(u32::MAX),
                    column: 1,
                    width: 1,
                    excerpt: masked.chars().take(200).collect(),
                });
            }
        }
    }
    all
}
