//! Looks at everything once: config, records, drivers' opinions. Ends in a plan.
//!
//! Resources are visited dependencies first, because what happens to a parent decides what its
//! dependents may know; drivers are asked concurrently wherever the graph allows.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::remarks::validate;
use super::sizing;
use super::values::{Declared, ValueError, Values};
use super::walk::{Gathered, Looked, walk};
use crate::config::Resource;
use crate::plan::scope::UnknownNames;
use crate::plan::{Action, Plan, Scope, Waits};
use crate::provider::Driver;
use crate::provider::ability::{Remark, Sizing};
use crate::report::{Exit, Report, Span};
use crate::resource::{
    ActionKind, Address, Kind, Output, Outputs, ProviderId, Recorded, Spec, Value, public_map,
    resolve_map,
};
use crate::state::Record;
use crate::state::record::kept_elsewhere;

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
    /// Sizes and hints that no provider reads, each with its place in the config.
    pub unread: Vec<(ProviderId, Remark, Span)>,
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
    let dependencies = dependencies(resource, values.declared_secrets());
    spec_after(engine, resource, values, dependencies)
}

/// The same, when what it waits for is known already.
pub(super) fn spec_after(
    engine: &Engine<'_>,
    resource: &Resource,
    values: &Values,
    dependencies: BTreeSet<Address>,
) -> Result<Spec, Report> {
    let config =
        resolve_map(&resource.config, values).map_err(|error| value_problem(resource, &error))?;
    Ok(Spec {
        address: resource.address.clone(),
        kind: resource.kind.clone(),
        public_config: public_map(&config, &engine.keyring),
        config,
        dependencies,
    })
}

fn value_problem(resource: &Resource, error: &ValueError) -> Report {
    Report::error(
        "config/reference",
        format!("`{}` cannot be resolved: {error}", resource.address),
    )
    .at(resource.at.clone())
    .fix(match error {
        ValueError::KeptElsewhere { .. } => REFRESH,
        ValueError::NoSuchOutput { .. }
        | ValueError::NoSuchResource { .. }
        | ValueError::NoSuchSecret { .. } => "correct the reference, or declare what it names",
    })
    .exit(Exit::Usage)
}

/// What brings values here that another program keeps.
pub(super) const REFRESH: &str =
    "run `tidegate infra refresh-outputs`, which reads it from the provider";

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
    let mut opened = Vec::with_capacity(stored.len());
    let mut resealed = BTreeSet::new();
    for record in &stored {
        let address = &record.resource_id;
        match crate::state::record::to_recorded(
            record,
            &engine.config.environment,
            &engine.keyring,
            &engine.masker,
        ) {
            Ok(mut prior) => {
                if let Some(resource) = resources.get(address)
                    && let Ok(driver) = engine.driver(address, &resource.provider, &resource.kind)
                {
                    let before = sensitive_names(&prior.outputs);
                    prior.outputs = sort_outputs(engine, resource, driver, prior.outputs);
                    if before != sensitive_names(&prior.outputs) {
                        resealed.insert(address.clone());
                    }
                }
                values.set_elsewhere(address, kept_elsewhere(record));
                opened.push((address.clone(), prior));
            }
            Err(error) => problems.push(error.into()),
        }
    }
    let mut priors: BTreeMap<Address, Recorded> = opened.into_iter().collect();
    let records: BTreeMap<Address, Record> = stored
        .into_iter()
        .map(|record| (record.resource_id.clone(), record))
        .collect();

    let edges: Vec<BTreeSet<Address>> = resources
        .values()
        .map(|resource| dependencies(resource, values.declared_secrets()))
        .collect();
    let nodes: Vec<(&Address, &BTreeSet<Address>)> =
        resources.keys().copied().zip(&edges).collect();
    let waits = Waits::of(&nodes);
    if let Err(cycle) = waits.clone().order(&nodes) {
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

    let looked = Looked {
        resources: resources.values().copied().collect(),
        edges,
        waits,
        records: &records,
        scope: &scope,
    };
    let Gathered {
        mut actions,
        desired,
        sizes,
        mut problems,
    } = walk(engine, looked, &mut priors, &mut values).await;
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
    let unread = resources
        .values()
        .filter(|resource| scope.includes(&resource.address))
        .filter_map(|resource| {
            let remark = sizing::ignored(engine, resource)?;
            Some((resource.provider.clone(), remark, resource.at.clone()))
        })
        .collect();
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
        unread,
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

fn sensitive_names(outputs: &Outputs) -> Vec<String> {
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
