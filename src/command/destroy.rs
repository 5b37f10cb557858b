//! `infra destroy`: everything recorded for one environment goes, dependents first; then what was
//! written to sinks, then the state itself. Can be run again after any failure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::open::Opened;
use super::up::{ask, protected_problem};
use super::{CommandResult, Desk, Problems, infra, summary};
use crate::apply::execute::execute;
use crate::apply::sinks::{SinkResult, remove_all, written};
use crate::apply::survey::{Survey, by_address, delete_action, dependencies};
use crate::apply::teardown::declared_copies;
use crate::apply::{ApplyReport, Engine, credential, ownership, recover, remarks, saved, secrets};
use crate::cli::DestroyArgs;
use crate::config::{Config, Needs};
use crate::face;
use crate::plan::{Plan, Scope};
use crate::report::{Event, Exit, Outcome, Report, Reporter as _, SinkOutcome};
use crate::state::{Lease, StoreError};

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &DestroyArgs) -> CommandResult {
    let config = desk.load_for(Needs::DESTROY, &arguments.config)?;
    let opened = desk.open(&config).await?;
    let result = match opened.knows_environment(desk, &config).await {
        Ok(()) => opened_run(desk, arguments, &config, &opened).await,
        Err(problems) => Err(problems),
    };
    opened.close().await;
    result
}

async fn opened_run(
    desk: &Desk,
    arguments: &DestroyArgs,
    config: &Config,
    opened: &Opened,
) -> CommandResult {
    let problem = |error: StoreError| Problems::from(Report::from(error));
    let parallelism = usize::from(arguments.run.parallelism);
    let is_empty = opened.store.head().await.map_err(problem)?.is_none();
    if arguments.dry_run || is_empty {
        let engine = opened.engine(desk, config, parallelism, false).await?;
        let survey = survey(&engine).await?;
        let written = taken_out(&engine, opened).await?;
        preview(
            desk,
            &survey.plan,
            &credential::in_use(&engine).await?,
            &written,
        );
        if !arguments.dry_run && opened.store.has_remains().await.map_err(problem)? {
            let lease = opened
                .lock(desk, "infra destroy", arguments.run.lock_timeout)
                .await?;
            opened.store.remove_empty(lease).await.map_err(problem)?;
        }
        desk.emit(&document(
            config,
            &survey.plan,
            &json!([]),
            &[],
            Exit::Done,
            arguments.dry_run,
        ));
        return Ok(Exit::Done);
    }
    let lease = opened
        .lock(desk, "infra destroy", arguments.run.lock_timeout)
        .await?;
    let (result, gone) = match under_lock(desk, arguments, config, opened, &lease).await {
        Ok((exit, gone)) => (Ok(exit), gone),
        Err(problems) => (Err(problems), false),
    };
    let ended = if gone {
        opened.store.remove_empty(lease).await
    } else {
        opened.store.unlock(&lease).await
    };
    if let Err(error) = ended {
        desk.ui.say(Event::Problem(Box::new(Report::from(error))));
        return result.map(|_| Exit::Failed);
    }
    result
}

/// Destination and name of everything that goes from places outside the state.
async fn taken_out(
    engine: &Engine<'_>,
    opened: &Opened,
) -> Result<Vec<(String, String)>, Problems> {
    let mut all = written(engine, &opened.sinks).await;
    let stored = secrets::stored(engine).await?;
    all.extend(
        stored
            .into_iter()
            .map(|(store, name)| (secrets::store_place(&store), name)),
    );
    Ok(all)
}

fn preview(
    desk: &Desk,
    plan: &Plan,
    credentials: &[(String, credential::Label)],
    written: &[(String, String)],
) {
    desk.ui.say(Event::Section {
        title: format!("Destroy ({})", plan.environment),
    });
    desk.ui.say(Event::Block {
        text: if plan.is_empty() {
            "No resources tracked in state — nothing to destroy.\n".to_owned()
        } else {
            face::plan::render(plan, desk.ui.style(), &desk.masker)
        },
    });
    for (key, label) in credentials {
        desk.ui.note(format!(
            "Revokes the credential `{}` of the secret `{key}`.",
            label.name
        ));
    }
    for (destination, name) in written {
        desk.ui
            .note(format!("Removes `{name}` from {destination}."));
    }
}

/// Every record as a delete.
async fn survey(engine: &Engine<'_>) -> Result<Survey, Problems> {
    let resources = by_address(engine);
    let copies = declared_copies(engine);
    let mut priors = BTreeMap::new();
    let mut records = Vec::new();
    let mut actions = Vec::new();
    let mut problems = Vec::new();
    let stored = engine.store.list().await.map_err(Report::from)?;
    crate::state::record::publish(&engine.masker, &stored);
    for record in stored {
        let address = record.resource_id.clone();
        match crate::state::record::to_recorded(
            &record,
            &engine.config.environment,
            &engine.keyring,
            &engine.masker,
        ) {
            Ok(prior) => {
                priors.insert(address.clone(), prior);
            }
            Err(error) => problems.push(error.into()),
        }
        let mut action = delete_action(engine, &record);
        action.reason = String::new();
        // What the config says now counts as well, although no run has put it on record yet.
        if let Some(resource) = resources.get(&address) {
            action.protected |= resource.protected;
            action.depends_on = dependencies(resource, &copies);
        }
        if let Err(problem) = engine.driver(&address, &action.provider, &action.kind) {
            problems.push(problem.exit(Exit::Usage));
        }
        actions.push(action);
        records.push(record);
    }
    if !problems.is_empty() {
        return Err(problems.into());
    }
    let plan = Plan::assemble(&engine.config.environment, actions)
        .map_err(|cycle| Report::error("state/cycle", cycle.to_string()))?;
    Ok(Survey {
        id: saved::plan_id(engine),
        plan,
        priors,
        records: std::sync::Arc::new(records.into()),
        resealed: BTreeSet::new(),
        values: crate::apply::values::Values::new(BTreeMap::new(), engine.masker.clone()),
        desired: BTreeMap::new(),
        sizes: BTreeMap::new(),
        scope: Scope::everything(),
        remarks: Vec::new(),
        unread: Vec::new(),
    })
}

/// Answers the exit code and whether nothing is left, so that the state itself can go.
async fn under_lock(
    desk: &Desk,
    arguments: &DestroyArgs,
    config: &Config,
    opened: &Opened,
    lease: &Lease,
) -> Result<(Exit, bool), Problems> {
    let mut engine = opened
        .engine(desk, config, usize::from(arguments.run.parallelism), true)
        .await?;
    engine.call_timeout = arguments.run.action_timeout;
    let settled = recover::recover(&engine, lease).await?;
    for settled in &settled {
        desk.ui.note(format!(
            "An earlier run was cut off at `{}`: {}.",
            settled.address, settled.finding
        ));
    }
    let survey = survey(&engine).await?;
    let owner = desk.owner(&arguments.owner)?;
    let credentials = credential::in_use(&engine).await?;
    let written = taken_out(&engine, opened).await?;
    preview(desk, &survey.plan, &credentials, &written);
    let has_waiting = infra::say_waiting(desk, &engine).await?;
    let (plan, plan_id) = (survey.plan.clone(), survey.id.clone());
    let allowed: BTreeSet<String> = arguments.approval.allow_replace.iter().cloned().collect();
    let blocked = plan.blocked(&allowed);
    if !blocked.is_empty() {
        return Err(protected_problem(&blocked).into());
    }
    // What goes needs no owner any more, so there is nothing to claim.
    ownership::check(&engine, &survey, &owner).await?;
    let has_something =
        has_waiting || !(plan.is_empty() && credentials.is_empty() && written.is_empty());
    if has_something && !arguments.approval.yes {
        ask(
            desk,
            &format!(
                "Destroy {} of environment `{}`? Only `yes` is taken as a yes: ",
                what_goes(plan.summary().delete, credentials.len(), written.len()),
                config.environment
            ),
            "the destroy",
        )
        .await?;
    }
    let (report, _) = execute(&engine, lease, survey).await;
    let mut sinks = Vec::new();
    let mut exit = Exit::Done;
    let unfinished = remarks::finalize(&engine, &plan_id, &report).await;
    let mut unproven = recover::unproven(&settled);
    unproven.extend(infra::let_old_go(desk, &engine, lease, &Scope::everything(), &report).await?);
    for problem in unfinished.iter().chain(&unproven) {
        desk.ui.say(Event::Problem(Box::new(problem.clone())));
    }
    if report.lost_lock {
        exit = Exit::Locked;
    } else if report.interrupted {
        exit = Exit::Interrupted;
    } else if !report.is_success() {
        exit = if report.changed() {
            Exit::Partial
        } else {
            Exit::Failed
        };
    } else {
        sinks = remove_all(&engine, lease, &opened.sinks).await;
        if sinks.iter().any(|sink| sink.outcome == SinkOutcome::Failed) {
            exit = Exit::Partial;
        }
        let (stored, left) = secrets::remove_generated(&engine, lease, &opened.secret_stores).await;
        sinks.extend(stored);
        if !(left.is_empty() && unfinished.is_empty() && unproven.is_empty()) {
            exit = Exit::Partial;
        }
        for problem in left {
            desk.ui.say(Event::Problem(Box::new(problem)));
        }
        if exit == Exit::Done {
            engine
                .store
                .journal_clear(lease)
                .await
                .map_err(Report::from)?;
        }
    }
    let gone = exit == Exit::Done;
    let verdict = verdict(&report, exit, &config.environment);
    desk.ui.say(Event::Result {
        text: format!("{verdict}\n"),
    });
    summary::destroyed(desk, &verdict, &plan, &report, &sinks, exit);
    desk.emit(&document(
        config,
        &plan,
        &report.to_json(),
        &sinks,
        exit,
        false,
    ));
    Ok((exit, gone))
}

/// Counted in words, for the question.
fn what_goes(resources: usize, credentials: usize, values: usize) -> String {
    let mut all = face::count(resources, "resource");
    if credentials > 0 {
        all.push_str(&format!(" and {}", face::count(credentials, "credential")));
    }
    if values > 0 {
        all.push_str(&format!(
            ", and remove {} from sinks and secret stores,",
            face::count(values, "value")
        ));
    }
    all
}

fn verdict(report: &ApplyReport, exit: Exit, environment: &str) -> String {
    let destroyed = report.count(Outcome::Success);
    let resources = face::count(destroyed, "resource");
    let left = match report.actions.len() - destroyed {
        _ if exit == Exit::Done => {
            return format!(
                "Destroyed {resources}; nothing of environment `{environment}` is left."
            );
        }
        0 => "not all of the rest could be removed".to_owned(),
        1 => "1 is still there".to_owned(),
        left => format!("{left} are still there"),
    };
    format!("Destroyed {resources}; {left}. Run the command again to go on.")
}

fn document(
    config: &Config,
    plan: &Plan,
    actions: &serde_json::Value,
    sinks: &[SinkResult],
    exit: Exit,
    dry_run: bool,
) -> serde_json::Value {
    json!({
        "command": "infra destroy",
        "config": config.path,
        "environment": config.environment,
        "dry_run": dry_run,
        "exit_code": exit as u8,
        "changed": actions.as_array().is_some_and(|actions| actions.iter().any(|action| action["status"] == "success")),
        "failed": exit != Exit::Done,
        "plan": plan.to_json(),
        "actions": actions,
        "sinks": sinks.iter().map(SinkResult::to_json).collect::<Vec<_>>(),
    })
}
