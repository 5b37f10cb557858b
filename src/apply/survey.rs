//! Looks at everything once: config, records, drivers' opinions. Ends in a plan.
//!
//! Resources are visited dependencies first, because what happens to a parent decides what its
//! dependents may know; drivers are asked concurrently wherever the graph allows.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::Engine;
use super::remarks::validate;
use super::sizing;
use super::values::{Declared, ValueError, Values};
use crate::config::Resource;
use crate::plan::scope::UnknownNames;
use crate::plan::{Action, Decision, Plan, Scope, classify, order};
use crate::provider::ability::{Remark, Sizing};
use crate::provider::{Driver, ErrorClass, config_changes};
use crate::report::{Exit, Report};
use crate::resource::{
    ActionKind, Address, Diff, FieldChange, Kind, Output, Outputs, ProviderId, Recorded, Spec,
    Value, public_map, resolve_map,
};
use crate::state::Record;

/// What the look found.
#[derive(Debug)]
pub struct Survey {
    /// What to do.
    pub plan: Plan,
    /// What is remembered (or was found by adoption), sealed parts opened.
    pub priors: BTreeMap<Address, Recorded>,
    /// The records themselves.
    pub records: BTreeMap<Address, Record>,
    /// Records whose outputs must be written again because their declared sensitivity changed.
    pub resealed: BTreeSet<Address>,
    /// What is known before anything runs.
    pub values: Values,
    /// What every resource in scope should be, as far as it is known now.
    pub desired: BTreeMap<Address, Spec>,
    /// What abstract sizes came to; the run uses these and asks nobody again.
    pub sizes: BTreeMap<Address, Sizing>,
    /// What the plan is about.
    pub scope: Scope,
    /// What providers think of it.
    pub remarks: Vec<(ProviderId, Remark)>,
}

/// Config's resources by address.
pub fn by_address<'a>(engine: &Engine<'a>) -> BTreeMap<&'a Address, &'a Resource> {
    engine
        .config
        .resources
        .iter()
        .map(|resource| (&resource.address, resource))
        .collect()
}

/// Every name a resource waits for: explicit, by reference, and through declared secrets that are
/// copies of outputs.
pub fn dependencies(
    resource: &Resource,
    declared: &BTreeMap<String, Declared>,
) -> BTreeSet<Address> {
    let mut all = resource.depends_on.clone();
    for value in resource.config.values() {
        value.references(&mut |reference| {
            all.insert(reference.address.clone());
        });
        declared_keys(value, &mut |key| {
            if let Some(Declared::Output(reference)) = declared.get(key) {
                all.insert(reference.address.clone());
            }
        });
    }
    all.remove(&resource.address);
    all
}

fn declared_keys(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::Template(template) => {
            for part in &template.parts {
                if let crate::resource::Part::Declared(key) = part {
                    visit(key);
                }
            }
        }
        Value::List(items) => items.iter().for_each(|item| declared_keys(item, visit)),
        Value::Map(map) => map.values().for_each(|item| declared_keys(item, visit)),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Secret(_)
        | Value::Unknown(_) => {}
    }
}

/// A resource as drivers want it, as far as `values` knows.
pub fn spec(engine: &Engine<'_>, resource: &Resource, values: &Values) -> Result<Spec, Report> {
    let config =
        resolve_map(&resource.config, values).map_err(|error| value_problem(resource, &error))?;
    Ok(Spec {
        address: resource.address.clone(),
        kind: resource.kind.clone(),
        public_config: public_map(&config, &engine.keyring),
        config,
        dependencies: dependencies(resource, values.declared_secrets()),
    })
}

fn value_problem(resource: &Resource, error: &ValueError) -> Report {
    Report::error(
        "config/reference",
        format!("`{}` cannot be resolved: {error}", resource.address),
    )
    .at(resource.at.clone())
    .fix("correct the reference, or declare what it names")
    .exit(Exit::Usage)
}

/// Decides for every output whether it may be shown: what the config declares wins, then what the
/// driver knows, and anything left over is sensitive.
pub fn sort_outputs(
    engine: &Engine<'_>,
    resource: &Resource,
    driver: &dyn Driver,
    outputs: Outputs,
) -> Outputs {
    outputs
        .into_iter()
        .map(|(name, output)| {
            let sensitive = resource.outputs.get(&name).map_or_else(
                || {
                    matches!(output, Output::Sensitive(_))
                        || driver.is_sensitive(&name).unwrap_or(true)
                },
                |declared| declared.sensitive,
            );
            let output = match (output, sensitive) {
                (Output::Public(value), true) => {
                    let text = match value {
                        serde_json::Value::String(text) => text,
                        other => other.to_string(),
                    };
                    Output::Sensitive(
                        engine
                            .masker
                            .admit(&format!("{}.{name}", resource.address), text),
                    )
                }
                (Output::Sensitive(secret), false) => {
                    // The config says, by name, that this output is no secret.
                    Output::Public(serde_json::Value::String(secret.expose().to_owned()))
                }
                (output, _) => output,
            };
            (name, output)
        })
        .collect()
}

/// What one visit found out.
struct Visit {
    action: Action,
    prior: Option<Recorded>,
    desired: Spec,
    size: Option<Sizing>,
}

/// What the walk over all resources gathers.
#[derive(Default)]
struct Gathered {
    actions: Vec<Action>,
    desired: BTreeMap<Address, Spec>,
    sizes: BTreeMap<Address, Sizing>,
    problems: Vec<Report>,
}

/// Looks at everything and plans.
///
/// # Errors
/// Every problem found, not only the first: missing providers, configs a driver refuses,
/// references that lead nowhere, drivers that fail to answer.
pub async fn survey(engine: &Engine<'_>, values: Values) -> Result<Survey, Vec<Report>> {
    survey_within(engine, values, &[]).await
}

/// The same, for the named resources only (all, when no name is given).
///
/// # Errors
/// As [`survey`]; also for names that mean nothing, and for a choice that leaves out what the
/// chosen ones need.
pub async fn survey_within(
    engine: &Engine<'_>,
    mut values: Values,
    include: &[String],
) -> Result<Survey, Vec<Report>> {
    let resources = by_address(engine);
    let stored = engine
        .store
        .list()
        .await
        .map_err(|error| vec![Report::from(error)])?;
    let mut problems = Vec::new();
    let mut records = BTreeMap::new();
    let mut priors: BTreeMap<Address, Recorded> = BTreeMap::new();
    let mut resealed = BTreeSet::new();
    for record in stored {
        let address = record.resource_id.clone();
        match crate::state::record::to_recorded(
            &record,
            &engine.config.environment,
            &engine.keyring,
            &engine.masker,
        ) {
            Ok(mut prior) => {
                if let Some(resource) = resources.get(&address)
                    && let Ok(driver) = engine.driver(&address, &resource.provider, &resource.kind)
                {
                    let before = sensitive_names(&prior.outputs);
                    prior.outputs = sort_outputs(engine, resource, driver, prior.outputs);
                    if before != sensitive_names(&prior.outputs) {
                        resealed.insert(address.clone());
                    }
                }
                priors.insert(address.clone(), prior);
            }
            Err(error) => problems.push(error.into()),
        }
        records.insert(address, record);
    }

    let edges: BTreeMap<&Address, BTreeSet<Address>> = resources
        .iter()
        .map(|(address, resource)| (*address, dependencies(resource, values.declared_secrets())))
        .collect();
    if let Err(cycle) = order(edges.iter().map(|(address, all)| (*address, all))) {
        problems.push(cycle_problem(&resources, &cycle));
    }
    let known = resources
        .values()
        .map(|resource| (&resource.address, resource.base_name.as_str()))
        .chain(records.keys().map(|address| (address, address.as_str())));
    let scope = match Scope::of(include, known) {
        Ok(scope) => scope,
        Err(unknown) => {
            problems.push(unknown_names(&unknown));
            Scope::everything()
        }
    };
    if !problems.is_empty() {
        return Err(problems);
    }

    let gathered = walk(
        engine,
        &resources,
        &edges,
        &records,
        &scope,
        &mut priors,
        &mut values,
    )
    .await;
    let Gathered {
        mut actions,
        desired,
        sizes,
        mut problems,
    } = gathered;
    for (address, record) in &records {
        if resources.contains_key(address) || !scope.includes(address) {
            continue;
        }
        let action = delete_action(engine, record);
        if let Err(problem) = engine.driver(address, &action.provider, &action.kind) {
            problems.push(problem.exit(Exit::Usage));
        }
        actions.push(action);
    }
    let recorded = records
        .iter()
        .map(|(address, record)| (address, record.dependencies.as_slice()));
    let missing = scope.missing(&actions, recorded);
    if !missing.is_empty() {
        problems.push(incomplete_choice(missing));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let remarks = validate(engine, &resources, &desired).await?;
    let plan = Plan::assemble(&engine.config.environment, actions)
        .map_err(|cycle| vec![cycle_problem(&resources, &cycle)])?;
    Ok(Survey {
        plan,
        priors,
        records,
        resealed,
        values,
        desired,
        sizes,
        scope,
        remarks,
    })
}

fn unknown_names(unknown: &UnknownNames) -> Report {
    Report::error("plan/include-unknown", unknown.to_string())
        .because("`--include` takes names of resources of this environment, declared or recorded")
        .fix("correct the names, or leave `--include` out")
        .exit(Exit::Usage)
}

fn incomplete_choice(missing: Vec<String>) -> Report {
    let mut report = Report::error(
        "plan/include-needs",
        "`--include` leaves out what the chosen resources need",
    );
    report.because = missing;
    report
        .fix("name those as well, or leave `--include` out")
        .exit(Exit::Usage)
}

fn cycle_problem(
    resources: &BTreeMap<&Address, &Resource>,
    cycle: &crate::plan::CycleError,
) -> Report {
    Report::error("config/cycle", cycle.to_string())
        .at_maybe(
            cycle
                .path
                .first()
                .and_then(|address| resources.get(address))
                .map(|resource| resource.at.clone()),
        )
        .fix("remove one of these dependencies or references")
        .exit(Exit::Usage)
}

fn sensitive_names(outputs: &Outputs) -> BTreeSet<String> {
    outputs
        .iter()
        .filter(|(_, output)| matches!(output, Output::Sensitive(_)))
        .map(|(name, _)| name.clone())
        .collect()
}

/// The provider module a record belongs to: the one it names, or (records of older versions) the
/// only declared one of its type.
pub fn owner_of(engine: &Engine<'_>, record: &Record) -> ProviderId {
    let named = ProviderId::new(record.provider_ref.clone());
    if !record.provider_ref.is_empty() {
        return named;
    }
    let mut same_type = engine
        .config
        .providers
        .iter()
        .filter(|(_, declared)| declared.provider == record.provider);
    match (same_type.next(), same_type.next()) {
        (Some((id, _)), None) => id.clone(),
        _ => ProviderId::new(record.provider.clone()),
    }
}

/// The delete of a resource the config no longer holds.
pub fn delete_action(engine: &Engine<'_>, record: &Record) -> Action {
    Action {
        address: record.resource_id.clone(),
        kind: Kind::new(record.resource_type.clone()),
        provider: owner_of(engine, record),
        action: ActionKind::Delete,
        changes: Vec::new(),
        reason: "no longer in the config".to_owned(),
        depends_on: BTreeSet::new(),
        recorded_depends_on: record.dependencies.iter().cloned().collect(),
        protected: record.tidegate.protected,
        create_before_destroy: false,
    }
}

/// Visits resources as soon as everything they wait for was visited.
async fn walk(
    engine: &Engine<'_>,
    resources: &BTreeMap<&Address, &Resource>,
    edges: &BTreeMap<&Address, BTreeSet<Address>>,
    records: &BTreeMap<Address, Record>,
    scope: &Scope,
    priors: &mut BTreeMap<Address, Recorded>,
    values: &mut Values,
) -> Gathered {
    let mut waiting: BTreeMap<&Address, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<&Address, Vec<&Address>> = BTreeMap::new();
    let mut ready: BTreeSet<&Address> = BTreeSet::new();
    for (address, all) in edges {
        let known: Vec<&Address> = all
            .iter()
            .filter_map(|dependency| edges.get_key_value(dependency).map(|(known, _)| *known))
            .collect();
        for dependency in &known {
            dependents.entry(dependency).or_default().push(address);
        }
        if known.is_empty() {
            ready.insert(address);
        }
        waiting.insert(address, known.len());
    }
    let mut running = FuturesUnordered::new();
    let mut gathered = Gathered::default();
    loop {
        while running.len() < engine.parallelism {
            let Some(address) = ready.pop_first() else {
                break;
            };
            let resource = resources[address];
            if !scope.includes(address) {
                // Left alone: what is known of it is what is on record.
                match priors.get(address) {
                    Some(prior) => values.set_final(address, &prior.provider_id, &prior.outputs),
                    None => values.set_pending(address),
                }
                release(address, &dependents, &mut waiting, &mut ready);
                continue;
            }
            let prior = priors.get(address).cloned();
            let marks = records.get(address).map_or((false, false), |record| {
                (record.status == "error", record.tidegate.protected)
            });
            let desired = spec(engine, resource, values);
            running.push(async move {
                let visit = match desired {
                    Ok(desired) => visit(engine, resource, prior, marks, desired).await,
                    Err(problem) => Err(vec![problem]),
                };
                (resource, visit)
            });
        }
        let Some((resource, visit)) = running.next().await else {
            break;
        };
        let address = &resource.address;
        match visit {
            Ok(visit) => {
                publish(engine, resource, &visit, values);
                if let Some(prior) = visit.prior {
                    priors.insert(address.clone(), prior);
                }
                if let Some(size) = visit.size {
                    gathered.sizes.insert(address.clone(), size);
                }
                gathered.desired.insert(address.clone(), visit.desired);
                gathered.actions.push(visit.action);
            }
            Err(found) => {
                gathered.problems.extend(found);
                // Dependents are still looked at, so that their own problems show in this run.
                values.set_pending(address);
            }
        }
        release(address, &dependents, &mut waiting, &mut ready);
    }
    gathered
}

/// Whoever waited only for this one may be looked at now.
fn release<'a>(
    address: &Address,
    dependents: &BTreeMap<&'a Address, Vec<&'a Address>>,
    waiting: &mut BTreeMap<&'a Address, usize>,
    ready: &mut BTreeSet<&'a Address>,
) {
    for &dependent in dependents.get(address).map_or(&[][..], Vec::as_slice) {
        if let Some(count) = waiting.get_mut(dependent) {
            *count -= 1;
            if *count == 0 {
                ready.insert(dependent);
            }
        }
    }
}

/// Tells dependents what they may know about this resource.
fn publish(engine: &Engine<'_>, resource: &Resource, visit: &Visit, values: &mut Values) {
    let address = &resource.address;
    match (visit.action.action, &visit.prior) {
        (ActionKind::NoOp, Some(prior)) => {
            values.set_final(address, &prior.provider_id, &prior.outputs);
        }
        (ActionKind::Update, Some(prior)) => {
            let kept = engine
                .driver(address, &resource.provider, &resource.kind)
                .map_or(&[][..], Driver::outputs_kept_by_update);
            values.set_keeping(address, &prior.provider_id, &prior.outputs, kept);
        }
        _ => values.set_pending(address),
    }
}

async fn visit(
    engine: &Engine<'_>,
    resource: &Resource,
    prior: Option<Recorded>,
    (tainted, recorded_protected): (bool, bool),
    mut desired: Spec,
) -> Result<Visit, Vec<Report>> {
    let driver = engine
        .driver(&resource.address, &resource.provider, &resource.kind)
        .map_err(|problem| vec![problem.at(resource.at.clone()).exit(Exit::Usage)])?;
    let size = sizing::resolve(engine, resource)
        .await
        .map_err(|problem| vec![problem])?;
    if let Some(size) = &size {
        sizing::merge(engine, &mut desired, size);
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
        None if resource.adopt_existing => {
            let by_name = Recorded::by_name(resource.address.clone(), resource.kind.clone());
            match driver.read(&by_name).await {
                Ok(observed) => {
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
                Err(error) => return Err(vec![driver_problem(resource, "look for", &error)]),
            }
        }
        None => None,
    };
    let decision = match &prior {
        None => Decision::Unrecorded,
        Some(prior) => {
            let diff: Diff = driver
                .diff(prior, &desired)
                .await
                .map_err(|error| vec![driver_problem(resource, "compare", &error)])?;
            if tainted || !reason.is_empty() {
                Decision::Tainted(diff)
            } else {
                Decision::Compared(diff)
            }
        }
    };
    let (mut action, mut changes, why) = classify(decision);
    if action == ActionKind::NoOp
        && let Some(prior) = &prior
    {
        // A driver may have nothing to say about a value that nobody knows yet. What it is decides
        // whether anything has to be done; until then something may have to.
        changes = unknown_changes(prior, &desired);
        if !changes.is_empty() {
            action = ActionKind::Update;
        }
    }
    let recorded_depends_on = prior
        .as_ref()
        .map(|prior| prior.dependencies.clone())
        .unwrap_or_default();
    Ok(Visit {
        action: Action {
            address: resource.address.clone(),
            kind: resource.kind.clone(),
            provider: resource.provider.clone(),
            action,
            changes,
            reason: if reason.is_empty() { why } else { reason },
            depends_on: desired.dependencies.clone(),
            recorded_depends_on,
            protected: resource.protected || recorded_protected,
            create_before_destroy: action == ActionKind::Replace
                && resource.create_before_destroy
                && driver.can_create_before_destroy(),
        },
        prior,
        desired,
        size,
    })
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
    if desired.config.values().all(Value::is_known) {
        return Vec::new();
    }
    config_changes(&prior.config, &desired.public_config)
        .into_iter()
        .filter(|change| is_unknown(&change.new))
        .collect()
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
    .fix("nothing was changed; remove the cause, then run the command again")
}
