//! `up`: the whole way. Plan, approve, apply, write sinks, hold the gate, say what happened.
//! `infra apply` is the same way without the gate.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::open::Opened;
use super::plan::say_remarks;
use super::{
    CommandResult, Desk, Problems, environments, failures, infra, problem_json, refresh, summary,
};
use crate::apply::execute::execute;
use crate::apply::ownership::Owner;
use crate::apply::sinks::{SinkResult, revoke_forgotten, write_all};
use crate::apply::survey::{Survey, survey_within};
use crate::apply::values::Values;
use crate::apply::{
    ApplyReport, Engine, credential, outcome, ownership, recover, remarks, saved, secrets,
};
use crate::cli::engine::PlanFormat;
use crate::cli::{ApprovalArgs, ConfigArgs, OwnerArgs, RunArgs, UpArgs};
use crate::clock::rfc3339;
use crate::config::{self, Config, OnFailure};
use crate::disk::EntryKind;
use crate::face;
use crate::plan::Plan;
use crate::plan::file::{SavedPlan, Unverified, mask};
use crate::report::{Event, Exit, Report, Reporter as _, SinkOutcome};
use crate::state::{Entry, Lease};
use crate::verify::GateReport;
use tidegate_plugin::iac::ApplyResult;

/// What distinguishes `up` from `infra apply`.
pub struct Way<'a> {
    /// The command's name, for JSON and the lock.
    pub command: &'static str,
    /// Which config.
    pub config: &'a ConfigArgs,
    /// Approval.
    pub approval: &'a ApprovalArgs,
    /// Behaviour.
    pub run: &'a RunArgs,
    /// On whose behalf.
    pub owner: &'a OwnerArgs,
    /// Show the plan and stop.
    pub dry_run: bool,
    /// Hold the gate at the end.
    pub gate: bool,
    /// Creating and updating needs no approval.
    pub automatic: bool,
    /// Only these resources; all when empty.
    pub include: &'a [String],
    /// How the plan of a dry run is shown.
    pub format: PlanFormat,
    /// A saved plan to apply.
    pub plan: Option<&'a Path>,
    /// Where the report goes, beside stdout.
    pub report: Option<&'a Path>,
    /// Forget first what its provider does not know any more.
    pub refresh: bool,
    /// Read every output again first.
    pub refresh_outputs: bool,
}

/// Runs `up`.
pub async fn run(desk: &Desk, arguments: &UpArgs) -> CommandResult {
    go(
        desk,
        &Way {
            command: "up",
            config: &arguments.config,
            approval: &arguments.approval,
            run: &arguments.run,
            owner: &arguments.owner,
            dry_run: arguments.dry_run,
            gate: !arguments.skip_gate,
            automatic: true,
            include: &[],
            format: PlanFormat::Table,
            plan: None,
            report: None,
            refresh: false,
            refresh_outputs: false,
        },
    )
    .await
}

/// Everything that happened, for the JSON document and the job summary.
pub struct Story<'a> {
    /// The command.
    pub command: &'static str,
    /// The config.
    pub config: &'a Config,
    /// What was planned.
    pub plan: Plan,
    /// How its actions ended.
    pub apply: ApplyReport,
    /// The same as the contract's message.
    pub result: ApplyResult,
    /// Destinations whose early look failed and was warned of.
    pub warned: BTreeSet<String>,
    /// How the sinks were written.
    pub sinks: Vec<SinkResult>,
    /// A secret store was written before the apply.
    pub has_stored: bool,
    /// How the gates ended; `None` when they were not tried.
    pub gates: Option<Vec<GateReport>>,
    /// Why the gates were not tried.
    pub gate_skipped: &'static str,
    /// Problems worth repeating.
    pub problems: Vec<Report>,
    /// The exit code.
    pub exit: Exit,
    /// Whole run.
    pub elapsed: Duration,
    /// What to run next.
    pub next: Vec<String>,
}

impl Story<'_> {
    /// True when anything outside state was changed.
    pub fn changed(&self) -> bool {
        self.apply.changed()
            || self.has_stored
            || self.sinks.iter().any(|sink| match sink.outcome {
                SinkOutcome::Written => sink.remembered,
                SinkOutcome::Removed => true,
                SinkOutcome::Unchanged | SinkOutcome::Failed | SinkOutcome::Skipped => false,
            })
    }

    /// The stable JSON shape (`docs/json.md`).
    pub fn to_json(&self) -> Json {
        json!({
            "command": self.command,
            "config": self.config.path,
            "environment": self.config.environment,
            "exit_code": self.exit as u8,
            "changed": self.changed(),
            "failed": !matches!(self.exit, Exit::Done | Exit::Changes),
            "elapsed_ms": u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            "plan": self.plan.to_json(),
            "actions": self.apply.to_json(),
            "result": outcome::to_json(&self.result),
            "sinks": self.sinks.iter().map(SinkResult::to_json).collect::<Vec<_>>(),
            "gate": self.gates,
            "problems": self.problems.iter().map(problem_json).collect::<Vec<_>>(),
            "next": self.next,
        })
    }
}

/// The whole way, for `up` and `infra apply`.
pub async fn go(desk: &Desk, way: &Way<'_>) -> CommandResult {
    if let Some(path) = way.report {
        // Found now rather than after everything was done.
        has_folder(desk, path)?;
        desk.may_replace(path)?;
    }
    let result = gone(desk, way).await;
    let Err(mut problems) = result else {
        return result;
    };
    // Whoever waits for the report gets one on every way out.
    if let Some(path) = way.report
        && let Err(problem) = write_report(desk, &outcome::refused(&problems.0), path)
    {
        problems.0.push(problem);
    }
    Err(problems)
}

async fn gone(desk: &Desk, way: &Way<'_>) -> CommandResult {
    let started = desk.clock.monotonic();
    let owner = desk.owner(way.owner)?;
    // A plan of the future is refused before anything is opened for it.
    let saved = way.plan.map(|path| read_plan(desk, path)).transpose()?;
    let config = desk.load(way.config)?;
    let opened = desk.open(&config).await?;
    let result = locked(desk, way, &config, &opened, (saved, owner), started).await;
    opened.close().await;
    result
}

/// Reads a plan file; whether it still fits is not decided here.
fn read_plan(desk: &Desk, path: &Path) -> Result<Unverified, Problems> {
    let shown = path.display().to_string();
    let bytes = desk
        .disk
        .read(path, crate::plan::file::BYTES_MAX)
        .map_err(|error| {
            Report::error(
                "plan/unreadable",
                format!("the plan `{shown}` cannot be read"),
            )
            .because(error.to_string())
            .fix("name a file that `infra plan -o` wrote")
            .exit(Exit::Usage)
        })?;
    Unverified::decode(&bytes).map_err(|error| saved::unusable(&shown, &error).into())
}

async fn locked(
    desk: &Desk,
    way: &Way<'_>,
    config: &Config,
    opened: &Opened,
    (saved, owner): (Option<Unverified>, Owner),
    started: Duration,
) -> CommandResult {
    let parallelism = usize::from(way.run.parallelism);
    if way.dry_run {
        let engine = opened.engine(desk, config, parallelism, false).await?;
        let values = secrets::known(&engine, &opened.secret_stores).await?;
        let survey = survey_within(&engine, values, way.include).await?;
        say_remarks(desk, &survey);
        environments::warn_of_renamed(desk, &engine, &survey).await?;
        infra::say_waiting(desk, &engine).await?;
        return Ok(dry_run(desk, way, config, &survey, started));
    }
    // Everything that can be refused is refused before the first effect.
    let warned = opened.check_sinks(desk, config).await?;
    let lease = opened.lock(desk, way.command, way.run.lock_timeout).await?;
    let given = (saved, warned, owner);
    let result = under_lock(desk, way, config, opened, &lease, given, started).await;
    if let Err(error) = opened.store.unlock(&lease).await {
        desk.ui.say(Event::Problem(Box::new(Report::from(error))));
    }
    result
}

fn dry_run(
    desk: &Desk,
    way: &Way<'_>,
    config: &Config,
    survey: &Survey,
    started: Duration,
) -> Exit {
    desk.emit(&json!({
            "command": way.command,
            "config": config.path,
            "environment": config.environment,
            "dry_run": true,
            "exit_code": 0,
            "changed": false,
            "failed": false,
            "elapsed_ms": u64::try_from(desk.clock.monotonic().saturating_sub(started).as_millis()).unwrap_or(u64::MAX),
            "plan": survey.plan.to_json(),
    }));
    if !desk.global.json {
        match way.format {
            PlanFormat::Table => desk.ui.data(&face::plan::render(
                &survey.plan,
                desk.data_style(),
                &desk.masker,
            )),
            PlanFormat::Markdown => desk.ui.data(&face::plan::markdown::page(
                &survey.plan,
                &config.path.display().to_string(),
                &desk.masker,
            )),
            PlanFormat::Json => desk.ui.json(&survey.plan.to_json()),
        }
        desk.ui.note("Dry run: nothing was changed.".to_owned());
    }
    Exit::Done
}

async fn under_lock(
    desk: &Desk,
    way: &Way<'_>,
    config: &Config,
    opened: &Opened,
    lease: &Lease,
    (saved, warned, owner): (Option<Unverified>, BTreeSet<String>, Owner),
    started: Duration,
) -> CommandResult {
    let mut engine = opened
        .engine(desk, config, usize::from(way.run.parallelism), true)
        .await?;
    engine.call_timeout = way.run.action_timeout;
    let saved = match saved {
        Some(unverified) => Some(believe(desk, way, &engine, unverified).await?),
        None => None,
    };
    let settled = recover::recover(&engine, lease).await?;
    for settled in &settled {
        desk.ui.note(format!(
            "An earlier run was cut off at `{}`: {}.",
            settled.address, settled.finding
        ));
    }
    if way.refresh {
        refresh::forget_gone(desk, &engine, lease, way.approval).await?;
    }
    if way.refresh_outputs {
        refresh::renew_outputs(&engine, lease).await?;
    }
    let mut values = secrets::known(&engine, &opened.secret_stores).await?;
    let include = saved.as_ref().map_or(way.include, |plan| &plan.include);
    let mut survey = survey_within(&engine, values.clone(), include).await?;
    say_remarks(desk, &survey);
    environments::warn_of_renamed(desk, &engine, &survey).await?;
    desk.ui.say(Event::Section {
        title: format!("Plan ({})", config.environment),
    });
    desk.ui.say(Event::Block {
        text: face::plan::render(&survey.plan, desk.ui.style(), &desk.masker),
    });
    infra::say_waiting(desk, &engine).await?;
    let claims = ownership::check(&engine, &survey, &owner).await?;
    match &saved {
        // Whoever saved it saw it; protected resources still have to be named.
        Some(plan) => {
            saved::compare(&engine, &shown(way), plan, &survey)?;
            refuse_protected(way, &survey.plan)?;
            saved::consume(&engine, lease, plan).await?;
        }
        None => approve(desk, way, &survey.plan).await?,
    }
    engine.store.renew(lease).await.map_err(Report::from)?;

    let plan_id = saved
        .as_ref()
        .map_or_else(|| survey.id.clone(), |plan| plan.id.clone());
    let mut story = Story {
        command: way.command,
        config,
        plan: survey.plan.clone(),
        apply: ApplyReport::default(),
        result: ApplyResult::default(),
        warned,
        sinks: Vec::new(),
        has_stored: false,
        gates: None,
        gate_skipped: "",
        problems: Vec::new(),
        exit: Exit::Done,
        elapsed: Duration::ZERO,
        next: Vec::new(),
    };
    let generated = secrets::generate(&engine, lease, &mut values, &opened.secret_stores).await?;
    for (key, declared) in values.declared_secrets() {
        survey.values.set_declared(key, declared.clone());
    }
    for name in &generated.made {
        desk.ui.note(format!("Generated the secret `{name}`."));
    }
    if !generated.problems.is_empty() {
        // Nothing is made with a secret that is not where it belongs.
        let mut problems: Vec<Report> = generated
            .problems
            .into_iter()
            .map(|(_, problem)| problem)
            .collect();
        if let Some(first) = problems
            .first_mut()
            .filter(|_| !generated.stored.is_empty())
        {
            first.exit = Exit::Partial;
        }
        return Err(Problems(problems));
    }
    story.has_stored = !generated.stored.is_empty();
    secrets::reseal(&engine, lease, &survey).await?;
    let scope = survey.scope.clone();
    let values = if survey.plan.is_empty() {
        survey.values
    } else {
        desk.ui.say(Event::Section {
            title: "Apply".to_owned(),
        });
        journal(
            &engine,
            lease,
            Entry::Begin {
                run_id: lease.holder.run_id.clone(),
                fence: lease.fence,
                at: rfc3339(desk.clock.now()),
            },
        )
        .await?;
        ownership::claim(&engine, lease, &claims, &owner).await?;
        let (report, values) = execute(&engine, lease, survey).await;
        let unclaimed = ownership::claim_made(&engine, lease, &report, &owner).await;
        story.problems.extend(unclaimed);
        story.apply = report;
        values
    };
    story
        .problems
        .extend(recover::doubts(&engine, &settled).await);
    // Whatever goes wrong here, what was done before it is told.
    let left = infra::let_old_go(desk, &engine, lease, &scope, &story.apply).await;
    story
        .problems
        .extend(left.unwrap_or_else(|problems| problems.0));
    let unfinished = remarks::finalize(&engine, &plan_id, &story.apply).await;
    story.result = outcome::result(
        &plan_id,
        &saved::inputs(&engine, &desk.settings.variables),
        &story.apply,
        &unfinished,
    );
    story.problems.extend(unfinished);
    if !story.apply.lost_lock {
        secrets::copy_outputs(
            &engine,
            lease,
            &values,
            &opened.secret_stores,
            &scope,
            &mut story.problems,
        )
        .await;
        let sinks = &opened.sinks;
        story.sinks = write_all(&engine, lease, &values, sinks, &scope, &story.apply).await;
        if story.apply.is_success() && scope.is_everything() {
            story
                .sinks
                .extend(revoke_forgotten(&engine, lease, &opened.sinks).await);
        }
        retire(desk, &engine, lease, &story, scope.is_everything()).await;
        settle_journal(&engine, lease, &mut story).await;
    }
    hold_gate(desk, way, &engine, &values, &mut story).await;
    conclude(desk, &mut story);
    story.elapsed = desk.clock.monotonic().saturating_sub(started);
    if let Some(path) = way.report {
        save_report(desk, &mut story, path);
    }
    tell(desk, &story);
    Ok(story.exit)
}

/// Revokes credentials that were replaced, once everything that uses them has the new ones.
async fn retire(
    desk: &Desk,
    engine: &Engine<'_>,
    lease: &Lease,
    story: &Story<'_>,
    everything: bool,
) {
    let handed_on = story
        .sinks
        .iter()
        .all(|sink| !matches!(sink.outcome, SinkOutcome::Failed | SinkOutcome::Skipped));
    if !(everything && handed_on && story.apply.is_success()) {
        return;
    }
    for problem in credential::retire(engine, lease, |_| true).await {
        desk.ui.say(Event::Problem(Box::new(problem)));
    }
}

/// Saves how every action ended. A run that did well and cannot say so has not done what was asked.
fn save_report(desk: &Desk, story: &mut Story<'_>, path: &Path) {
    if let Err(problem) = write_report(desk, &story.result, path) {
        story.problems.push(problem);
        if story.exit == Exit::Done {
            story.exit = Exit::Failed;
        }
    }
}

fn has_folder(desk: &Desk, path: &Path) -> Result<(), Report> {
    let path = Path::new(".").join(path);
    let folder = path.parent().unwrap_or(Path::new("."));
    let there = desk.disk.canonical(folder);
    match there.and_then(|folder| desk.disk.entry(&folder)) {
        Ok(Some(EntryKind::Directory)) => Ok(()),
        _ => Err(Report::error(
            "apply/report-unsaved",
            format!(
                "the report cannot be saved: there is no folder `{}`",
                folder.display()
            ),
        )
        .fix("name a file in a folder that exists; nothing was done")
        .exit(Exit::Usage)),
    }
}

fn write_report(desk: &Desk, result: &ApplyResult, path: &Path) -> Result<(), Report> {
    let document = mask(&outcome::to_json(result), &desk.masker);
    desk.write_named(path, format!("{document}\n").as_bytes(), 0o600)
        .map_err(|why| {
            Report::error(
                "apply/report-unsaved",
                format!("the report cannot be saved to `{}`", path.display()),
            )
            .because(why)
            .fix("name a file in a folder that exists and can be written")
        })
}

fn shown(way: &Way<'_>) -> String {
    way.plan
        .map_or_else(String::new, |path| path.display().to_string())
}

/// Checks a saved plan against everything it is bound to.
async fn believe(
    desk: &Desk,
    way: &Way<'_>,
    engine: &Engine<'_>,
    unverified: Unverified,
) -> Result<SavedPlan, Problems> {
    let lockfile = super::plan::lockfile(desk, engine.config)?;
    let now = saved::binding(engine, &desk.settings.variables, lockfile.as_deref()).await?;
    Ok(saved::check(engine, &shown(way), unverified, &now).await?)
}

async fn journal(engine: &Engine<'_>, lease: &Lease, entry: Entry) -> Result<(), Problems> {
    engine
        .store
        .journal_append(lease, &[entry])
        .await
        .map_err(|error| Report::from(error).into())
}

/// Empties the journal when every intent has an outcome; otherwise leaves it for the next run, with
/// the word that this one came to its end and said what nobody knows.
async fn settle_journal(engine: &Engine<'_>, lease: &Lease, story: &mut Story<'_>) {
    let cleared = async {
        let entries = engine.store.journal_read().await?;
        if crate::state::journal::open_intents(&entries).is_empty() {
            if !entries.is_empty() {
                engine.store.journal_clear(lease).await?;
            }
        } else if !story.apply.interrupted {
            let run_id = lease.holder.run_id.clone();
            let end = Entry::End { run_id };
            engine.store.journal_append(lease, &[end]).await?;
        }
        Ok::<(), crate::state::StoreError>(())
    };
    if let Err(error) = cleared.await {
        story.problems.push(Report::from(error));
    }
}

/// Refuses what needs approval and has none.
async fn approve(desk: &Desk, way: &Way<'_>, plan: &Plan) -> Result<(), Problems> {
    refuse_protected(way, plan)?;
    let destructive: Vec<String> = plan
        .destructive()
        .map(|action| format!("{} `{}`", action.action.word(), action.address))
        .collect();
    let needs_approval = if way.automatic {
        !destructive.is_empty()
    } else {
        !plan.is_empty()
    };
    if !needs_approval || way.approval.yes {
        return Ok(());
    }
    let question = if destructive.is_empty() {
        "Apply these changes? Only `yes` is taken as a yes: ".to_owned()
    } else {
        format!(
            "This can lose data ({}). Go on? Only `yes` is taken as a yes: ",
            destructive.join(", ")
        )
    };
    ask(desk, &question, "the plan").await.map_err(|problem| {
        let mut problem = problem;
        if !destructive.is_empty() {
            problem = problem.because(format!("it would {}", destructive.join(", ")));
        }
        problem.into()
    })
}

/// Refuses what would replace or delete a protected resource that nobody named.
fn refuse_protected(way: &Way<'_>, plan: &Plan) -> Result<(), Problems> {
    let allowed: BTreeSet<String> = way.approval.allow_replace.iter().cloned().collect();
    let blocked = plan.blocked(&allowed);
    if blocked.is_empty() {
        Ok(())
    } else {
        Err(protected_problem(&blocked).into())
    }
}

/// Every blocker in one message, with the flag that would allow exactly these.
pub fn protected_problem(blocked: &[&crate::plan::Action]) -> Report {
    let list = blocked
        .iter()
        .map(|action| format!("`{}` ({})", action.address, action.action.word()))
        .collect::<Vec<_>>()
        .join(", ");
    let names = blocked
        .iter()
        .map(|action| action.address.as_str())
        .collect::<Vec<_>>()
        .join(",");
    Report::error(
        "plan/protected",
        format!("protected resources stand in the way: {list}"),
    )
    .fix(format!(
        "if this is meant, pass `--allow-replace {names}`; otherwise undo the change that causes it"
    ))
    .exit(Exit::Usage)
}

/// Asks at a terminal; only `yes` goes on. Without a terminal it refuses.
pub async fn ask(desk: &Desk, question: &str, what: &str) -> Result<(), Report> {
    let answer = if desk.settings.stdin_is_terminal && !desk.global.json {
        // Reading a line cannot be taken back; a signal must still end the wait.
        let (ui, question) = (desk.ui.clone(), question.to_owned());
        let reading = tokio::task::spawn_blocking(move || ui.prompt(&question));
        tokio::select! {
            biased;
            () = desk.cancel.cancelled() => {
                return Err(Report::error(
                    "approval/interrupted",
                    format!("stopped before {what} was approved; nothing was changed"),
                )
                .exit(Exit::Interrupted));
            }
            answer = reading => answer.ok().and_then(Result::ok).flatten(),
        }
    } else {
        None
    };
    match answer.as_deref().map(str::trim) {
        Some("yes") => Ok(()),
        Some(_) => Err(Report::error(
            "approval/declined",
            format!("{what} was not approved; nothing was changed"),
        )),
        None => Err(Report::error(
            "approval/needed",
            format!("{what} needs approval, and nobody is here to ask; nothing was changed"),
        )
        .fix("look at the plan above, then pass `--yes`")
        .exit(Exit::Usage)),
    }
}

async fn hold_gate(
    desk: &Desk,
    way: &Way<'_>,
    engine: &Engine<'_>,
    values: &Values,
    story: &mut Story<'_>,
) {
    if !way.gate || engine.config.gates.is_empty() {
        return;
    }
    let failed_sink = story
        .sinks
        .iter()
        .any(|sink| sink.outcome == SinkOutcome::Failed && sink.on_failure == OnFailure::Fail);
    if !story.apply.is_success() {
        story.gate_skipped = "the apply did not succeed";
    } else if failed_sink {
        story.gate_skipped = "a sink that must not fail did";
    }
    if !story.gate_skipped.is_empty() {
        desk.ui
            .note(format!("Gate not tried: {}.", story.gate_skipped));
        return;
    }
    desk.ui.say(Event::Section {
        title: "Gate".to_owned(),
    });
    match super::verify::hold(desk, &engine.config.gates, values).await {
        Ok(reports) => story.gates = Some(reports),
        Err(problems) => {
            story.gates = Some(Vec::new());
            story.problems.extend(problems);
        }
    }
}

/// Decides the exit code and what to run next.
fn conclude(desk: &Desk, story: &mut Story<'_>) {
    let place = place(story.config);
    let rerun = format!("tidegate {} {place}", story.command);
    let failed = story.apply.failed();
    let sink_failed = |policy| {
        story
            .sinks
            .iter()
            .any(|sink| sink.outcome == SinkOutcome::Failed && sink.on_failure == policy)
    };
    let gate_closed = story
        .gates
        .as_ref()
        .is_some_and(|gates| gates.iter().any(|gate| !gate.is_open()));
    story.exit = if story.apply.lost_lock {
        Exit::Locked
    } else if story.apply.store_failed && failed == 0 {
        Exit::Failed
    } else if story.apply.interrupted || desk.cancel.is_cancelled() {
        Exit::Interrupted
    } else if failed > 0 || !story.apply.is_success() {
        // Or nothing failed, and not everything was done. What was handed out is done, too.
        if story.changed() {
            Exit::Partial
        } else {
            Exit::Failed
        }
    } else if sink_failed(OnFailure::Fail) {
        Exit::Failed
    } else if gate_closed {
        Exit::GateClosed
    } else if let Some(problem) = story.problems.first() {
        match problem.exit {
            Exit::Done => Exit::Done,
            exit => exit,
        }
    } else if sink_failed(OnFailure::Warn) {
        Exit::Partial
    } else {
        Exit::Done
    };
    story.next = match story.exit {
        // After a deployment by a workflow nobody wants to be told how to take it down again.
        Exit::Done if desk.ui.is_in_actions() => {
            vec![format!("tidegate infra outputs {place}")]
        }
        Exit::Done => vec![
            format!("tidegate infra outputs {place}"),
            format!("tidegate infra destroy {place}"),
        ],
        Exit::GateClosed => vec![
            format!("tidegate infra status {place}"),
            format!("tidegate deploy verify {place}"),
        ],
        _ => vec![rerun],
    };
}

/// The flags that name this config and environment, ready to be pasted into a shell.
fn place(config: &Config) -> String {
    let path = config.path.to_string_lossy();
    let word = |text: &str| {
        shlex::try_quote(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
    };
    if config.environment == config::NO_ENVIRONMENT {
        format!("-c {}", word(&path))
    } else {
        format!("-c {} --env {}", word(&path), word(&config.environment))
    }
}

fn tell(desk: &Desk, story: &Story<'_>) {
    for problem in &story.problems {
        desk.ui.say(Event::Problem(Box::new(problem.clone())));
    }
    if desk.ui.is_in_actions() {
        for failure in failures::reports(story) {
            desk.ui.say(Event::Problem(Box::new(failure)));
        }
    } else if !desk.global.json {
        // What happened to actions and sinks, their own lines say; the last answer to a gate, only this.
        for problem in story.gates.iter().flatten().filter_map(GateReport::problem) {
            desk.ui.say(Event::Problem(Box::new(problem)));
        }
    }
    desk.ui.say(Event::Result {
        text: summary::terminal(story),
    });
    summary::job(desk, story);
    desk.emit(&story.to_json());
}
