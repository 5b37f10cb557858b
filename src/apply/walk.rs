//! Visits every resource, dependencies first, and asks its driver what it thinks.
//!
//! Positions, not names: with a hundred thousand resources, comparing names is what takes the time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::OnceCell;

use super::Engine;
use super::execute::asked;
use super::presence::{Others, is_shared, locator, of_others, on_record};
use super::sizing;
use super::survey::{holder_name, open, sort_outputs, spec, spec_until_now};
use super::values::Values;
use crate::config::Resource;
use crate::plan::{Action, Decision, Scope, Waits, classify};
use crate::provider::ability::{Remark, Sizing};
use crate::provider::{Driver, ErrorClass, at_path, config_changes};
use crate::report::{Exit, Report, Span};
use crate::resource::{
    ActionKind, Address, Diff, FieldChange, Kind, ProviderId, Recorded, Spec, Value,
};
use crate::state::{Record, Records};

/// What is known before the first visit.
pub(super) struct Looked<'a> {
    /// Sorted by address; a position means the same everywhere here.
    pub(super) resources: &'a [&'a Resource],
    /// What each one waits for.
    pub(super) waits: Waits,
    pub(super) records: &'a Records,
    pub(super) remembered: Vec<Remembered>,
    /// What has to be written again, changed or not.
    pub(super) resealed: &'a BTreeSet<Address>,
    pub(super) scope: &'a Scope,
}

/// How a resource is remembered; its record is at that position.
#[derive(Clone, Copy)]
pub(super) enum Remembered {
    Nothing,
    /// Nothing in the record is secret: it is opened for the visit.
    Open(u32),
    /// It is opened already.
    Opened(u32),
}

impl Remembered {
    fn record(self, records: &Records) -> Option<&Record> {
        match self {
            Self::Nothing => None,
            Self::Open(position) | Self::Opened(position) => records.at(position),
        }
    }
}

/// What one visit found out.
struct Visit {
    /// Without its dependencies, which are those of `desired` and of `prior`.
    action: Action,
    prior: Option<Recorded>,
    desired: Spec,
    size: Option<Sizing>,
    unread: Vec<(ProviderId, Remark, Span)>,
}

/// What the walk over all resources gathers.
#[derive(Default)]
pub(super) struct Gathered {
    /// By position; nothing where the scope ends, or where there is a problem.
    pub(super) actions: Vec<Option<Action>>,
    pub(super) desired: BTreeMap<Address, Spec>,
    pub(super) sizes: BTreeMap<Address, Sizing>,
    pub(super) unread: Vec<(ProviderId, Remark, Span)>,
    /// Not changed, but recorded with other dependencies or another protection than the config says.
    pub(super) restated: Vec<Address>,
    pub(super) problems: Vec<Report>,
}

/// Visits resources as soon as everything they wait for was visited. `priors` are those that are
/// opened already; afterwards, those that are needed when the plan is carried out.
pub(super) async fn walk(
    engine: &Engine<'_>,
    looked: Looked<'_>,
    priors: &mut BTreeMap<Address, Recorded>,
    values: &mut Values,
) -> Gathered {
    let Looked {
        resources,
        mut waits,
        records,
        remembered,
        resealed,
        scope,
    } = looked;
    let mut ready = waits.ready();
    let others = &OnceCell::new();
    let mut running = FuturesUnordered::new();
    let mut gathered = Gathered::default();
    gathered.actions.resize_with(resources.len(), || None);
    loop {
        while running.len() < engine.parallelism {
            let Some(Reverse(position)) = ready.pop() else {
                break;
            };
            let resource = resources[position as usize];
            let address = &resource.address;
            let remembered = remembered[position as usize];
            if !scope.includes(address) {
                // Left alone: what is known of it is what is on record.
                match (remembered, priors.get(address)) {
                    (Remembered::Open(position), _) => values.set_recorded(address, position),
                    (_, Some(prior)) => {
                        values.set_final(address, &prior.provider_id, &prior.outputs);
                    }
                    (_, None) => values.set_pending(address),
                }
                waits.release(position, &mut ready);
                continue;
            }
            let record = remembered.record(records);
            let marks = record.map_or((false, false), |record| {
                (record.status == "error", record.tidegate.protected)
            });
            let prior = match (remembered, record) {
                (Remembered::Open(_), Some(record)) => open(engine, record).map(Some),
                (Remembered::Opened(_), _) => Ok(priors.remove(address)),
                _ => Ok(None),
            };
            let desired = spec(engine, resource, values).and_then(|desired| {
                let until_now = match record {
                    Some(_) => spec_until_now(engine, resource, values, &desired)?,
                    None => None,
                };
                let moved = match record {
                    Some(record) => moved(engine, resource, record)?,
                    None => None,
                };
                Ok((Desired { desired, until_now }, moved))
            });
            running.push(async move {
                let visit = match (desired, prior) {
                    (Ok((desired, moved)), Ok(prior)) => {
                        visit(
                            engine,
                            (resource, records, others),
                            prior,
                            marks,
                            desired,
                            moved,
                        )
                        .await
                    }
                    (Err(problem), _) => Err(vec![problem]),
                    (_, Err(error)) => Err(vec![error.into()]),
                };
                (position, visit)
            });
        }
        let Some((position, visit)) = running.next().await else {
            break;
        };
        let resource = resources[position as usize];
        let address = &resource.address;
        match visit {
            Ok(visit) => {
                publish(
                    engine,
                    resource,
                    remembered[position as usize],
                    &visit,
                    values,
                );
                let Visit {
                    mut action,
                    prior,
                    desired,
                    size,
                    unread,
                } = visit;
                gathered.unread.extend(unread);
                if let Some(size) = size {
                    gathered.sizes.insert(address.clone(), size);
                }
                // Of most resources the names are all: what is not going to change is not kept.
                let changes = action.action != ActionKind::NoOp;
                let is_restated = !changes
                    && remembered[position as usize]
                        .record(records)
                        .is_some_and(|record| {
                            record.tidegate.protected != resource.protected
                                || !desired.dependencies.iter().eq(&record.dependencies)
                        });
                if is_restated {
                    gathered.restated.push(address.clone());
                }
                match prior {
                    Some(prior) if changes || is_restated || resealed.contains(address) => {
                        action.recorded_depends_on.clone_from(&prior.dependencies);
                        priors.insert(address.clone(), prior);
                    }
                    Some(prior) => action.recorded_depends_on = prior.dependencies,
                    None => {}
                }
                if changes {
                    action.depends_on.clone_from(&desired.dependencies);
                    gathered.desired.insert(address.clone(), desired);
                } else {
                    action.depends_on = desired.dependencies;
                }
                gathered.actions[position as usize] = Some(action);
            }
            Err(found) => {
                gathered.problems.extend(found);
                // Dependents are still looked at, so that their own problems show in this run.
                values.set_pending(address);
            }
        }
        waits.release(position, &mut ready);
    }
    gathered
}

/// Tells dependents what they may know about this resource.
fn publish(
    engine: &Engine<'_>,
    resource: &Resource,
    remembered: Remembered,
    visit: &Visit,
    values: &mut Values,
) {
    let address = &resource.address;
    match (visit.action.action, &visit.prior, remembered) {
        (ActionKind::NoOp, _, Remembered::Open(position)) => {
            values.set_recorded(address, position);
        }
        (ActionKind::NoOp, Some(prior), _) => {
            values.set_final(address, &prior.provider_id, &prior.outputs);
        }
        (ActionKind::Update, Some(prior), _) => {
            let kept = engine
                .driver(address, &resource.provider, &resource.kind)
                .map_or(&[][..], Driver::outputs_kept_by_update);
            values.set_keeping(address, &prior.provider_id, &prior.outputs, kept);
        }
        _ => values.set_pending(address),
    }
}

/// What a resource is to be.
struct Desired {
    desired: Spec,
    /// The same, should its dependencies that are changed in place stay as they are.
    until_now: Option<Spec>,
}

/// A resource that cannot stay what it is, whatever its config says.
struct Moved {
    reason: String,
    changes: Vec<FieldChange>,
}

/// Whether what is on record is of another type, or belongs to another provider module, than what the
/// config declares under that name. No driver knows both ends of that: the one goes, the other comes.
///
/// # Errors
/// When the one that has to delete it is not declared.
fn moved(
    engine: &Engine<'_>,
    resource: &Resource,
    record: &Record,
) -> Result<Option<Moved>, Report> {
    let owner = holder_name(engine, record, &resource.provider);
    let is_other_kind = record.resource_type != resource.kind.as_str();
    // Nearly all stay what they are.
    if !is_other_kind && owner == resource.provider.as_str() {
        return Ok(None);
    }
    let mut moved = Moved {
        reason: String::new(),
        changes: Vec::new(),
    };
    let mut say = |path: &str, old: &str, new: &str, reason: String| {
        moved.changes.push(FieldChange {
            path: path.to_owned(),
            old: old.into(),
            new: new.into(),
            force_new: true,
        });
        if !moved.reason.is_empty() {
            moved.reason.push_str("; ");
        }
        moved.reason.push_str(&reason);
    };
    if is_other_kind {
        say(
            "type",
            &record.resource_type,
            resource.kind.as_str(),
            "a resource of another type is another resource".to_owned(),
        );
    }
    if owner != resource.provider.as_str() {
        let new = resource.provider.as_str();
        say(
            "provider",
            owner,
            new,
            format!("it moves from provider `{owner}` to `{new}`"),
        );
    }
    let kind = Kind::new(&record.resource_type);
    engine
        .driver(&resource.address, &ProviderId::new(owner), &kind)
        .map_err(|problem| problem.at(resource.at.clone()).exit(Exit::Usage))?;
    Ok(Some(moved))
}

async fn visit(
    engine: &Engine<'_>,
    (resource, records, others): (&Resource, &Records, &OnceCell<Others>),
    prior: Option<Recorded>,
    (tainted, recorded_protected): (bool, bool),
    desired: Desired,
    moved: Option<Moved>,
) -> Result<Visit, Vec<Report>> {
    let Desired {
        mut desired,
        mut until_now,
    } = desired;
    let driver = engine
        .driver(&resource.address, &resource.provider, &resource.kind)
        .map_err(|problem| vec![problem.at(resource.at.clone()).exit(Exit::Usage)])?;
    let size = sizing::resolve(engine, resource)
        .await
        .map_err(|problem| vec![problem])?;
    if let Some(size) = &size {
        for spec in std::iter::once(&mut desired).chain(&mut until_now) {
            sizing::merge(engine, spec, size);
        }
    }
    let refused: Vec<Report> = driver
        .check(&desired)
        .into_iter()
        .map(|(path, sentence)| {
            Report::error(
                "provider/invalid-config",
                format!("`{}`: {path}: {sentence}", resource.address),
            )
            .fix(format!("correct `{path}` under this module's `config`"))
            .at(resource.at.clone())
            .exit(Exit::Usage)
        })
        .collect();
    if !refused.is_empty() {
        return Err(refused);
    }
    let mut reason = String::new();
    let prior = match prior {
        Some(prior) => Some(prior),
        None if resource.adopt_existing || is_shared(&resource.kind) => {
            let by_name = locator(&resource.address, &resource.kind, Some(&desired.config));
            match asked(engine, || driver.read(&by_name)).await {
                Ok(observed) => {
                    let id = &observed.provider_id;
                    // Read once for all that are to be adopted.
                    let others = others.get_or_try_init(|| of_others(engine)).await;
                    let others = others.map_err(|error| vec![Report::from(error)])?;
                    let other = others.whose(&resource.kind, id, &resource.address);
                    if let Some(other) = other.filter(|_| !is_shared(&resource.kind)) {
                        let why = on_record(id, Some(other));
                        return Err(vec![cannot_adopt(resource, &why).fix(
                            "give it another name in this environment, or drop `adopt_existing`",
                        )]);
                    }
                    let ours = records.iter().find(|record| {
                        record.provider_id == *id
                            && record.resource_type == resource.kind.as_str()
                            && !is_shared(&resource.kind)
                    });
                    if let Some(ours) = ours {
                        let why = format!(
                            "what goes by its name, `{id}`, is on record as `{}`",
                            ours.resource_id
                        );
                        return Err(vec![cannot_adopt(resource, &why).fix(format!(
                            "if that is its old name: `tidegate state mv {} {}`",
                            ours.resource_id, resource.address
                        ))]);
                    }
                    reason = "adopts the existing resource of that name".to_owned();
                    Some(Recorded {
                        provider_id: observed.provider_id,
                        outputs: sort_outputs(engine, resource, driver, observed.outputs),
                        status: observed.status,
                        private: observed.private,
                        ..by_name
                    })
                }
                Err(error) if error.class == ErrorClass::NotFound => None,
                // The create that follows says the same, if there is anything to it.
                Err(_) if !resource.adopt_existing => None,
                Err(error) => return Err(vec![driver_problem(resource, "look for", &error)]),
            }
        }
        None => None,
    };
    let is_moved = moved.is_some();
    let is_adopted = !reason.is_empty();
    let decision = match (&prior, moved) {
        (None, _) => Decision::Unrecorded,
        (Some(_), Some(moved)) => {
            reason = moved.reason;
            Decision::Compared(Diff {
                needs_replace: true,
                needs_update: false,
                changes: moved.changes,
            })
        }
        (Some(prior), None) => {
            let compared = until_now.as_ref().unwrap_or(&desired);
            let mut diff = asked(engine, || driver.diff(prior, compared)).await;
            if diff.is_err() && !compared.config.values().all(Value::is_known) {
                // It may insist on a setting that is not known yet: what it was will do.
                let filled = as_recorded(prior, compared);
                diff = asked(engine, || driver.diff(prior, &filled)).await;
            }
            let mut diff: Diff =
                diff.map_err(|error| vec![driver_problem(resource, "compare", &error)])?;
            show_unknown(prior, &desired, &mut diff);
            if tainted || !reason.is_empty() {
                Decision::Tainted(diff)
            } else {
                Decision::Compared(diff)
            }
        }
    };
    let (action, changes, why) = classify(decision);
    if action == ActionKind::Replace
        && is_adopted
        && let Some(prior) = &prior
    {
        return Err(vec![
            cannot_adopt(
                resource,
                &format!(
                    "`{}` is there, and {why}: to take it over would be to delete it",
                    prior.provider_id
                ),
            )
            .fix("set in the config what is there, or remove the resource"),
        ]);
    }
    Ok(Visit {
        action: Action {
            address: resource.address.clone(),
            kind: resource.kind.clone(),
            provider: resource.provider.clone(),
            action,
            changes,
            reason: if reason.is_empty() { why } else { reason },
            depends_on: BTreeSet::new(),
            recorded_depends_on: BTreeSet::new(),
            protected: resource.protected || recorded_protected,
            create_before_destroy: action == ActionKind::Replace
                && !is_moved
                && resource.create_before_destroy
                && driver.can_create_before_destroy(),
        },
        prior,
        desired,
        unread: sizing::ignored(engine, resource, size.is_some())
            .into_iter()
            .chain(sizing::not_at_once(engine, resource))
            .map(|remark| (resource.provider.clone(), remark, resource.at.clone()))
            .collect(),
        size,
    })
}

/// What is desired, with what is on record where nothing is known yet. Secrets are not on record.
fn as_recorded(prior: &Recorded, desired: &Spec) -> Spec {
    let mut filled = desired.clone();
    for (key, value) in &mut filled.config {
        if value.is_known() {
            continue;
        }
        if let Some(recorded) = prior.config.get(key)
            && !holds_marker(recorded)
        {
            *value = Value::from(recorded.clone());
            filled.public_config.insert(key.clone(), recorded.clone());
        }
    }
    filled
}

fn holds_marker(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Object(map) => {
            map.contains_key("$secret")
                || map.contains_key("$unknown")
                || map.values().any(holds_marker)
        }
        serde_json::Value::Array(items) => items.iter().any(holds_marker),
        _ => false,
    }
}

/// Adds the differences that come of values known only after apply, and says of those a driver found
/// beside them that they are not known. A driver may have nothing to say about a value that nobody
/// knows yet; what it is decides whether anything has to be done, and until then something may have to.
fn show_unknown(prior: &Recorded, desired: &Spec, diff: &mut Diff) {
    if desired.config.values().all(Value::is_known) {
        return;
    }
    let is_within = |path: &str, whole: &str| {
        path.strip_prefix(whole)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    for unknown in unknown_changes(prior, desired) {
        let mut is_told = false;
        for change in &mut diff.changes {
            if is_within(&change.path, &unknown.path) {
                is_told = true;
                change.new = unknown.new.clone();
            } else if is_within(&unknown.path, &change.path)
                && let Some(whole) = at_path(&desired.public_config, &change.path)
            {
                is_told = true;
                change.new = whole.clone();
            }
        }
        if !is_told {
            diff.changes.push(unknown);
            diff.needs_update |= !diff.needs_replace;
        }
    }
    diff.changes.sort_by(|one, other| one.path.cmp(&other.path));
}

/// The differences that come of values known only after apply.
fn unknown_changes(prior: &Recorded, desired: &Spec) -> Vec<FieldChange> {
    fn is_unknown(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Object(map) => {
                (map.len() == 1 && map.contains_key("$unknown")) || map.values().any(is_unknown)
            }
            serde_json::Value::Array(items) => items.iter().any(is_unknown),
            _ => false,
        }
    }
    config_changes(&prior.config, &desired.public_config)
        .into_iter()
        .filter(|change| is_unknown(&change.new))
        .collect()
}

fn cannot_adopt(resource: &Resource, why: &str) -> Report {
    Report::error(
        "plan/elsewhere",
        format!("`{}` cannot be adopted", resource.address),
    )
    .at(resource.at.clone())
    .because(why)
    .exit(Exit::Usage)
}

fn driver_problem(resource: &Resource, verb: &str, error: &crate::provider::DriverError) -> Report {
    Report::error(
        "provider/failed",
        format!(
            "provider `{}` could not {verb} `{}`",
            resource.provider, resource.address
        ),
    )
    .at(resource.at.clone())
    .because(format!("{} ({})", error.message, error.class.word()))
    .fix(if error.class == ErrorClass::NotFound {
        "it is gone at its provider: `tidegate infra refresh --prune` forgets it, and the next apply makes it anew"
    } else {
        "nothing was changed; remove the cause, then run the command again"
    })
}
