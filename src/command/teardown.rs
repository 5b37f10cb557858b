//! `infra teardown`: removes what the config describes by asking the providers, not the state, and
//! then the state. For an environment whose state is lost, partial or damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::infra::{approve, count};
use super::open::Opened;
use super::up::protected_problem;
use super::{CommandResult, Desk, Problems};
use crate::apply::ownership::{self, Owner};
use crate::apply::sinks::{SinkResult, remove_all};
use crate::apply::teardown::{
    Discovered, Removed, Target, add_orphans, discover, listers, plan_of, remove, tagged,
};
use crate::apply::{Engine, recover, secrets};
use crate::cli::infra::TeardownArgs;
use crate::config::Config;
use crate::face::table;
use crate::plan::Plan;
use crate::report::{Event, Exit, Outcome, Report, Reporter as _, SinkOutcome};
use crate::resource::Address;
use crate::secret::Keyring;
use crate::state::{Lease, Record, StoreError};

/// What the state says, as far as it can be read.
struct Remembered {
    records: BTreeMap<Address, Record>,
    objects: usize,
    /// Why it cannot be read; empty when it can.
    damage: String,
}

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &TeardownArgs) -> CommandResult {
    if desk.global.env.is_none() {
        return Err(missing("--env", "which environment is torn down").into());
    }
    if desk.global.config.is_none() && arguments.config.file.is_none() {
        return Err(missing("--config", "what the environment consists of").into());
    }
    let owner = desk.owner(&arguments.owner)?;
    let config = desk.load(&arguments.config)?;
    let opened = desk.open(&config).await?;
    let result = opened_run(desk, arguments, &owner, &config, &opened).await;
    opened.close().await;
    result
}

fn missing(flag: &str, what: &str) -> Report {
    Report::error(
        "cli/must-be-named",
        format!("`infra teardown` needs `{flag}`: {what} is never guessed"),
    )
    .fix("write `tidegate infra teardown -c infra.yaml --env NAME --dry-run`")
    .exit(Exit::Usage)
}

async fn opened_run(
    desk: &Desk,
    arguments: &TeardownArgs,
    owner: &Owner,
    config: &Config,
    opened: &Opened,
) -> CommandResult {
    if arguments.dry_run {
        let remembered = remember(opened).await;
        let engine = engine(desk, arguments, config, opened).await;
        let discovered = find(desk, arguments, owner, &engine, &remembered).await;
        let targets = targets(&discovered);
        let plan = plan_of(&config.environment, &targets)?;
        preview(desk, opened, &discovered, &plan, &remembered);
        let exit = if failures(&discovered) > 0 {
            Exit::Failed
        } else {
            Exit::Done
        };
        desk.emit(
            &Story {
                config,
                opened,
                discovered: &discovered,
                removed: &Removed::default(),
                remembered: &remembered,
                left: &left_over(&remembered, &discovered),
                sinks: &[],
                wiped: false,
                dry_run: true,
                exit,
            }
            .to_json(),
        );
        if !desk.global.json {
            desk.ui.note("Dry run: nothing was changed.".to_owned());
        }
        return Ok(exit);
    }
    let lease = match opened
        .lock(desk, "infra teardown", arguments.run.lock_timeout)
        .await
    {
        Ok(lease) => Some(lease),
        Err(problems) if is_about_damage(&problems) => {
            for mut problem in problems.0 {
                problem.severity = crate::report::Severity::Warning;
                desk.ui.say(Event::Problem(Box::new(problem)));
            }
            desk.ui.note(
                "The state cannot be locked, so it will not be wiped; resources are looked up by name."
                    .to_owned(),
            );
            None
        }
        Err(problems) => return Err(problems),
    };
    let (result, wiped) = match go(desk, arguments, owner, config, opened, lease.as_ref()).await {
        Ok((exit, wiped)) => (Ok(exit), wiped),
        Err(problems) => (Err(problems), false),
    };
    match lease {
        // A wiped state took its lock with it.
        Some(lease) if !wiped => super::infra::unlock(desk, opened, &lease, result).await,
        _ => result,
    }
}

/// A state that is damaged must not stand in the way; one that is in use must.
fn is_about_damage(problems: &Problems) -> bool {
    problems
        .0
        .iter()
        .all(|report| matches!(report.code, "state/corrupt" | "state/newer"))
}

/// An engine that works without a readable state key: nothing sealed is needed here.
async fn engine<'a>(
    desk: &'a Desk,
    arguments: &TeardownArgs,
    config: &'a Config,
    opened: &'a Opened,
) -> Engine<'a> {
    let parallelism = usize::from(arguments.run.parallelism);
    let call_timeout = arguments.run.action_timeout;
    if let Ok(mut engine) = opened.engine(desk, config, parallelism, false).await {
        engine.call_timeout = call_timeout;
        return engine;
    }
    let mut key = zeroize::Zeroizing::new([0_u8; 32]);
    desk.random.fill(&mut *key);
    Engine {
        config,
        store: Arc::clone(&opened.store),
        providers: &opened.providers,
        keyring: Keyring::new(&key),
        masker: desk.masker.clone(),
        clock: Arc::clone(&desk.clock),
        random: Arc::clone(&desk.random),
        reporter: &desk.ui,
        cancel: desk.cancel.clone(),
        parallelism,
        call_timeout,
    }
}

async fn remember(opened: &Opened) -> Remembered {
    let mut damage = Vec::new();
    let mut note = |error: StoreError| damage.push(error.to_string());
    let records = opened.store.list().await.unwrap_or_else(|error| {
        note(error);
        Vec::new()
    });
    let keepsakes = opened.store.keepsakes().await.unwrap_or_else(|error| {
        note(error);
        Vec::new()
    });
    Remembered {
        objects: records.len() + keepsakes.len(),
        records: records
            .into_iter()
            .map(|record| (record.resource_id.clone(), record))
            .collect(),
        damage: damage.join("; "),
    }
}

async fn find(
    desk: &Desk,
    arguments: &TeardownArgs,
    owner: &Owner,
    engine: &Engine<'_>,
    remembered: &Remembered,
) -> Vec<Discovered> {
    let mut discovered = discover(engine, &remembered.records).await;
    if arguments.include_orphans {
        for provider in listers(engine).1 {
            desk.ui.note(format!(
                "Provider `{provider}` cannot list by tag: orphans there are not found."
            ));
        }
        let tag = arguments
            .orphan_tag
            .clone()
            .unwrap_or_else(|| format!("env:{}", engine.config.environment));
        let found = tagged(engine, &tag).await;
        add_orphans(engine, &mut discovered, found, &remembered.records);
    }
    spare(engine, discovered, owner).await
}

/// What somebody else owns is not torn down, and stands in the way of the state's end like everything
/// that could not be looked up.
async fn spare(engine: &Engine<'_>, discovered: Vec<Discovered>, owner: &Owner) -> Vec<Discovered> {
    let (_, stays) = ownership::sort(engine, targets(&discovered), owner).await;
    let why: BTreeMap<Address, String> = stays
        .into_iter()
        .map(|(target, why)| (target.address, why))
        .collect();
    discovered
        .into_iter()
        .map(|one| match &one {
            Discovered::There(target) => match why.get(&target.address) {
                Some(why) => Discovered::Failed {
                    address: target.prior.address.clone(),
                    kind: target.kind.clone(),
                    message: format!("{why}, so it is not touched"),
                },
                None => one,
            },
            Discovered::Missing { .. } | Discovered::Failed { .. } => one,
        })
        .collect()
}

fn targets(discovered: &[Discovered]) -> Vec<Target> {
    discovered
        .iter()
        .filter_map(|one| match one {
            Discovered::There(target) => Some((**target).clone()),
            Discovered::Missing { .. } | Discovered::Failed { .. } => None,
        })
        .collect()
}

fn failures(discovered: &[Discovered]) -> usize {
    discovered
        .iter()
        .filter(|one| matches!(one, Discovered::Failed { .. }))
        .count()
}

/// Records that neither the config nor a tag led to: wiping them would lose what they are about.
fn left_over(remembered: &Remembered, discovered: &[Discovered]) -> Vec<Address> {
    let met: BTreeSet<&Address> = discovered
        .iter()
        .map(|one| match one {
            Discovered::There(target) => &target.prior.address,
            Discovered::Missing { address, .. } | Discovered::Failed { address, .. } => address,
        })
        .collect();
    remembered
        .records
        .keys()
        .filter(|address| !met.contains(address))
        .cloned()
        .collect()
}

fn preview(
    desk: &Desk,
    opened: &Opened,
    discovered: &[Discovered],
    plan: &Plan,
    remembered: &Remembered,
) {
    let mut rows = Vec::new();
    for action in &plan.actions {
        let Some(target) = discovered.iter().find_map(|one| match one {
            Discovered::There(target) if target.address == action.address => Some(target),
            _ => None,
        }) else {
            continue;
        };
        let mut marks = String::new();
        if target.orphan {
            marks.push_str(" [orphan]");
        }
        if target.protected {
            marks.push_str(" [protected]");
        }
        rows.push(vec![
            target.kind.to_string(),
            target.address.to_string(),
            format!("({})", target.prior.provider_id),
            format!("→ DESTROY{marks}"),
        ]);
    }
    let left = left_over(remembered, discovered);
    rows.push(vec![
        "state".to_owned(),
        opened.store.location(),
        String::new(),
        if left.is_empty() {
            format!("→ WIPE ({})", count(remembered.objects, "object"))
        } else {
            "→ KEEP".to_owned()
        },
    ]);
    let mut text = table::render(&[], &rows);
    for one in discovered {
        match one {
            Discovered::There(_) => {}
            Discovered::Missing { address, .. } => {
                text.push_str(&format!("{address}: not found — skipping\n"));
            }
            Discovered::Failed {
                address, message, ..
            } => text.push_str(&format!("{address}: could not be looked up: {message}\n")),
        }
    }
    for address in &left {
        text.push_str(&format!(
            "{address}: recorded, but not in this config — its record is kept; `tidegate infra destroy` removes both\n"
        ));
    }
    if !remembered.damage.is_empty() {
        text.push_str(&format!(
            "The state cannot be read in full ({}).\n",
            remembered.damage
        ));
    }
    text.push_str(&format!(
        "\nTeardown: {} to destroy, {} not found, {} could not be looked up.\n",
        plan.actions.len(),
        discovered
            .iter()
            .filter(|one| matches!(one, Discovered::Missing { .. }))
            .count(),
        failures(discovered),
    ));
    desk.ui.say(Event::Section {
        title: format!("Teardown ({})", plan.environment),
    });
    desk.ui.say(Event::Block { text });
}

/// Settles what runs that were cut off left open; what cannot be settled is answered. A state that cannot
/// be read has nothing to settle.
async fn settle(desk: &Desk, engine: &Engine<'_>, lease: &Lease) -> Vec<Report> {
    if !matches!(recover::is_needed(engine).await, Ok(true)) {
        return Vec::new();
    }
    match recover::recover(engine, lease).await {
        Ok(settled) => {
            for settled in &settled {
                desk.ui.note(format!(
                    "An earlier run was cut off at `{}`: {}.",
                    settled.address, settled.finding
                ));
            }
            recover::unproven(&settled)
        }
        Err(problem) => vec![problem],
    }
}

/// Answers the exit code and whether the state is gone.
async fn go(
    desk: &Desk,
    arguments: &TeardownArgs,
    owner: &Owner,
    config: &Config,
    opened: &Opened,
    lease: Option<&Lease>,
) -> Result<(Exit, bool), Problems> {
    let engine = engine(desk, arguments, config, opened).await;
    // What a run that was cut off may have made becomes a record, or keeps the state.
    let mut unsettled = match lease {
        Some(lease) => settle(desk, &engine, lease).await,
        None => Vec::new(),
    };
    let remembered = remember(opened).await;
    let discovered = find(desk, arguments, owner, &engine, &remembered).await;
    let targets = targets(&discovered);
    let plan = plan_of(&config.environment, &targets)?;
    preview(desk, opened, &discovered, &plan, &remembered);
    let allowed: BTreeSet<String> = arguments.approval.allow_replace.iter().cloned().collect();
    let blocked = plan.blocked(&allowed);
    if !blocked.is_empty() {
        return Err(protected_problem(&blocked).into());
    }
    approve(
        desk,
        arguments.approval.yes,
        &format!(
            "Destroy {} of environment `{}` and wipe its state? Only `yes` is taken as a yes: ",
            count(targets.len(), "resource"),
            config.environment
        ),
        "the teardown",
    )
    .await?;
    if let Some(lease) = lease {
        engine.store.renew(lease).await.map_err(Report::from)?;
    }
    let removed = remove(&engine, lease, &plan, &targets).await;
    let left = left_over(&remembered, &discovered);
    let all_gone = removed.is_success()
        && failures(&discovered) == 0
        && !removed.interrupted
        && unsettled.is_empty();
    let mut sinks = Vec::new();
    let mut wiped = false;
    let mut problems = Vec::new();
    problems.append(&mut unsettled);
    if all_gone
        && left.is_empty()
        && let Some(lease) = lease
    {
        sinks = remove_all(&engine, lease, &opened.sinks).await;
        let (stored, left) = secrets::remove_generated(&engine, lease, &opened.secret_stores).await;
        problems.extend(left);
        sinks.extend(stored);
        let sinks_left = sinks.iter().any(|sink| sink.outcome == SinkOutcome::Failed);
        if problems.is_empty() && !sinks_left {
            match engine.store.wipe_damaged(lease.clone()).await {
                Ok(()) => wiped = true,
                Err(error) => problems.push(Report::from(error)),
            }
        }
    }
    let is_done = all_gone && wiped;
    let exit = if removed.lost_lock {
        Exit::Locked
    } else if removed.interrupted {
        Exit::Interrupted
    } else if is_done {
        Exit::Done
    } else {
        Exit::Failed
    };
    for problem in problems {
        desk.ui.say(Event::Problem(Box::new(problem)));
    }
    let skipped = removed.count(Outcome::Skipped)
        + discovered
            .iter()
            .filter(|one| matches!(one, Discovered::Missing { .. }))
            .count();
    let errors = removed.count(Outcome::DeleteFailed) + failures(&discovered);
    desk.ui.say(Event::Result {
        text: format!(
            "Teardown: {} discovered, {} destroyed, {skipped} skipped, {errors} failed; state {}.\n",
            targets.len(),
            removed.count(Outcome::Success),
            if wiped { "wiped" } else { "kept" }
        ),
    });
    if !is_done && exit == Exit::Failed {
        desk.ui.note(match () {
            () if lease.is_none() => format!(
                "The state at {} is damaged and was not wiped; remove it by hand (docs/state.md, \"Repair\").",
                opened.store.location()
            ),
            () if !left.is_empty() => format!(
                "Records of resources that this config does not hold were kept: {}. `tidegate infra destroy` removes them.",
                left.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            ),
            () => "Run the command again to go on.".to_owned(),
        });
    }
    desk.emit(
        &Story {
            config,
            opened,
            discovered: &discovered,
            removed: &removed,
            remembered: &remembered,
            left: &left,
            sinks: &sinks,
            wiped,
            dry_run: false,
            exit,
        }
        .to_json(),
    );
    Ok((exit, wiped))
}

/// Everything that happened, for the JSON document.
struct Story<'a> {
    config: &'a Config,
    opened: &'a Opened,
    discovered: &'a [Discovered],
    removed: &'a Removed,
    remembered: &'a Remembered,
    left: &'a [Address],
    sinks: &'a [SinkResult],
    wiped: bool,
    dry_run: bool,
    exit: Exit,
}

impl Story<'_> {
    fn to_json(&self) -> Json {
        let destroyed = self.removed.count(Outcome::Success);
        let missing = self
            .discovered
            .iter()
            .filter(|one| matches!(one, Discovered::Missing { .. }))
            .count();
        json!({
            "command": "infra teardown",
            "config": self.config.path,
            "environment": self.config.environment,
            "dry_run": self.dry_run,
            "exit_code": self.exit as u8,
            "changed": destroyed > 0 || self.wiped,
            "failed": self.exit != Exit::Done,
            "summary": {
                "discovered": self.discovered.iter().filter(|one| matches!(one, Discovered::There(_))).count(),
                "destroyed": destroyed,
                "skipped": missing + self.removed.count(Outcome::Skipped),
                "errors": failures(self.discovered) + self.removed.count(Outcome::DeleteFailed),
            },
            "resources": self.discovered.iter().map(|one| self.resource(one)).collect::<Vec<_>>(),
            "state": {
                "location": self.opened.store.location(),
                "objects": self.remembered.objects,
                "damage": if self.remembered.damage.is_empty() { Json::Null } else { json!(self.remembered.damage) },
                "wiped": self.wiped,
                "left": self.left,
            },
            "sinks": self.sinks.iter().map(SinkResult::to_json).collect::<Vec<_>>(),
        })
    }

    fn resource(&self, one: &Discovered) -> Json {
        match one {
            Discovered::There(target) => {
                let removal = self.removed.of(&target.address);
                json!({
                    "resource": target.address,
                    "type": target.kind,
                    "provider": target.provider,
                    "provider_id": target.prior.provider_id,
                    "orphan": target.orphan,
                    "protected": target.protected,
                    "status": match removal.map(|removal| removal.outcome) {
                        None => "found",
                        Some(Outcome::Success) => "destroyed",
                        Some(outcome) => outcome.word(),
                    },
                    "error": removal.map(|removal| &removal.message).filter(|message| !message.is_empty()),
                })
            }
            Discovered::Missing { address, kind } => json!({
                "resource": address, "type": kind, "status": "not-found", "error": null,
            }),
            Discovered::Failed {
                address,
                kind,
                message,
            } => json!({
                "resource": address, "type": kind, "status": "could-not-check", "error": message,
            }),
        }
    }
}
