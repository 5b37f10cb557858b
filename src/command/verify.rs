//! `deploy verify`: holds until what was deployed really answers. As a command of its own, and as
//! the last part of `up`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;

use super::{CommandResult, Desk, Problems};
use crate::apply::secrets;
use crate::apply::survey::{by_address, sort_outputs};
use crate::apply::values::Values;
use crate::cli::VerifyArgs;
use crate::config::{self, Needs};
use crate::http::Http;
use crate::report::{Event, Exit, Report, Reporter};
use crate::verify::{self, Gate, GateReport};

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &VerifyArgs) -> CommandResult {
    let (gates, place) = match &arguments.url {
        Some(url) if !refers(arguments) => (vec![from_flags(arguments, url)], None),
        _ => {
            let (gates, config) = declared(desk, arguments).await?;
            (gates, Some(config))
        }
    };
    desk.ui.say(Event::Section {
        title: "Gate".to_owned(),
    });
    let declared = place.as_ref().map_or(&[][..], |config| &config.gates);
    let reports = look(desk, &gates, declared).await?;
    let mut exit = Exit::Done;
    for report in &reports {
        if let Some(problem) = report.problem() {
            exit = problem.exit;
            if !desk.global.json {
                desk.ui.say(Event::Problem(Box::new(problem)));
            }
        }
    }
    if exit == Exit::Done {
        desk.ui
            .note("The gate is open: every target answered as expected.".to_owned());
    }
    desk.emit(&json!({
            "command": "deploy verify",
            "config": place.as_ref().map(|config| &config.path),
            "environment": place.as_ref().map(|config| &config.environment),
            "exit_code": exit as u8,
            "failed": exit != Exit::Done,
            "gate": reports,
    }));
    super::summary::gate(desk, &reports);
    Ok(exit)
}

/// True when a flag holds a reference, which only a config and its state can fill in.
fn refers(arguments: &VerifyArgs) -> bool {
    [&arguments.url, &arguments.expect_body_contains]
        .into_iter()
        .flatten()
        .any(|text| text.contains("${"))
}

fn from_flags(arguments: &VerifyArgs, url: &str) -> Gate {
    let mut gate = verify::from_flags(
        url,
        arguments.expect_status,
        arguments.expect_body_contains.as_deref(),
        arguments.timeout.unwrap_or(verify::defaults::TIMEOUT),
        arguments
            .retry_interval
            .unwrap_or(verify::defaults::RETRY_INTERVAL),
        arguments
            .max_retries
            .unwrap_or(verify::defaults::MAX_RETRIES),
    );
    gate.verbose = arguments.verbose;
    gate
}

/// The gates of the config (or one from flags whose URL holds references), filled in from state.
async fn declared(
    desk: &Desk,
    arguments: &VerifyArgs,
) -> Result<(Vec<Gate>, config::Config), Problems> {
    // The gates of the config are not asked when flags describe one.
    let needs = match &arguments.url {
        Some(_) => Needs::RECORDS,
        None => Needs::VERIFY,
    };
    let mut config = desk.load_for(needs, &arguments.config)?;
    if let Some(url) = &arguments.url {
        let url = config::template(url, &config)?;
        config.gates = vec![config::Gate {
            name: "deploy verify".to_owned(),
            targets: vec![config::Target {
                url,
                expect_status: arguments.expect_status,
                expect_body_contains: arguments
                    .expect_body_contains
                    .as_ref()
                    .map(|text| config::template(text, &config))
                    .transpose()?,
                method: "GET".to_owned(),
                headers: BTreeMap::new(),
                body: None,
                tls_verify: true,
                consecutive: 1,
                at: config::flag_span("--url"),
            }],
            timeout: verify::defaults::TIMEOUT,
            retry_interval: verify::defaults::RETRY_INTERVAL,
            max_retries: verify::defaults::MAX_RETRIES,
            at: config::flag_span("--url"),
        }];
    }
    if config.gates.is_empty() {
        return Err(Report::error(
            "verify/no-targets",
            format!(
                "`{}` has no `deploy_verify` step, and no --url was given",
                config.path.display()
            ),
        )
        .fix("pass `--url https://…`, or add a pipeline with a step of type `step.deploy_verify`")
        .exit(Exit::Usage)
        .into());
    }
    // A secret that no gate asks with is not fetched: it may not be there.
    let used = secrets_of(&config.gates);
    config.entries.retain(|entry| used.contains(&entry.name));
    let opened = desk.open(&config).await?;
    opened.knows_environment(desk, &config).await?;
    let engine = opened.engine(desk, &config, 1, false).await?;
    let mut values = secrets::known(&engine, &opened.secret_stores).await?;
    let resources = by_address(&engine);
    for record in engine.store.list().await.map_err(Report::from)? {
        let recorded = crate::state::record::to_recorded(
            &record,
            &config.environment,
            &engine.keyring,
            &engine.masker,
        )
        .map_err(Report::from)?;
        let outputs = match resources.get(&recorded.address) {
            Some(resource) => {
                let driver = engine.driver(&recorded.address, &resource.provider, &resource.kind);
                sort_outputs(&engine, resource, driver.ok(), recorded.outputs)
            }
            None => recorded.outputs,
        };
        values.set_final(&recorded.address, &recorded.provider_id, &outputs);
    }
    for resource in &config.resources {
        if !values.is_known(&resource.address) {
            values.set_pending(&resource.address);
        }
    }
    let gates = resolve(&config.gates, &values, |gate| {
        gate.timeout = arguments.timeout.unwrap_or(gate.timeout);
        gate.retry_interval = arguments.retry_interval.unwrap_or(gate.retry_interval);
        gate.max_retries = arguments.max_retries.unwrap_or(gate.max_retries);
        gate.verbose = arguments.verbose;
    })?;
    opened.close().await;
    Ok((gates, config))
}

/// Names of declared secrets that gates ask with.
fn secrets_of(gates: &[config::Gate]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for target in gates.iter().flat_map(|gate| &gate.targets) {
        let texts = [
            Some(&target.url),
            target.expect_body_contains.as_ref(),
            target.body.as_ref(),
        ];
        for value in texts.into_iter().flatten().chain(target.headers.values()) {
            value.declared(&mut |name| {
                names.insert(name.to_owned());
            });
        }
    }
    names
}

fn resolve(
    gates: &[config::Gate],
    values: &Values,
    adjust: impl Fn(&mut Gate),
) -> Result<Vec<Gate>, Vec<Report>> {
    let mut resolved = Vec::new();
    let mut problems = Vec::new();
    for gate in gates {
        match Gate::resolve(gate, values, ToString::to_string) {
            Ok(mut gate) => {
                adjust(&mut gate);
                resolved.push(gate);
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        Ok(resolved)
    } else {
        Err(problems)
    }
}

/// Holds the config's gates with fresh outputs: the last part of `up`.
pub async fn hold(
    desk: &Desk,
    gates: &[config::Gate],
    values: &Values,
) -> Result<Vec<GateReport>, Vec<Report>> {
    let held = match resolve(gates, values, |_| {}) {
        Ok(ready) => look(desk, &ready, gates).await,
        Err(problems) => Err(problems),
    };
    // What the config says was right before the apply; what it turned out to mean closes the gate.
    held.map_err(|problems| problems.into_iter().map(after_apply).collect())
}

/// A gate that cannot be tried after everything was made has not opened; nothing is wrong with the
/// command line, and to apply again would change nothing.
fn after_apply(mut problem: Report) -> Report {
    problem.exit = Exit::GateClosed;
    if problem.code == "verify/unknown-value" {
        problem.fix = vec![
            "correct the reference: the apply was made, and nothing of that name came of it"
                .to_owned(),
        ];
    }
    problem
}

/// One gate after another; the first that stays closed ends it.
/// What is wrong with one is said where it was declared, if it was.
async fn look(
    desk: &Desk,
    gates: &[Gate],
    declared: &[config::Gate],
) -> Result<Vec<GateReport>, Vec<Report>> {
    let http = Arc::new(Http::new(&desk.settings.variables).map_err(|problem| {
        vec![
            Report::error("http/proxy", problem.to_string())
                .fix("correct the proxy variable, or unset it")
                .exit(Exit::Usage),
        ]
    })?);
    let hide = |text: &str, extent| match extent {
        verify::Extent::Whole => desk.masker.mask(text),
        verify::Extent::Beginning => desk.masker.mask_beginning(text),
    };
    let world = verify::World {
        clock: desk.clock.as_ref(),
        random: desk.random.as_ref(),
        reporter: &desk.ui,
        hide: &hide,
    };
    let mut ready = Vec::new();
    let mut problems = Vec::new();
    for (index, gate) in gates.iter().enumerate() {
        let at = declared.get(index).map(|gate| &gate.at);
        match verify::probes(&http, gate) {
            Ok(probes) => ready.push((gate, probes)),
            Err(found) => problems.extend(
                found
                    .into_iter()
                    .map(|problem| problem.at_maybe(at.cloned())),
            ),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut reports = Vec::new();
    for (gate, probes) in ready {
        let report = verify::run(gate, &probes, &world, desk.cancel.cancelled()).await;
        let is_open = report.is_open();
        reports.push(report);
        if !is_open {
            break;
        }
    }
    Ok(reports)
}
