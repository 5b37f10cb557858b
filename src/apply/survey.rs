//! Looks at everything once: config, records, drivers' opinions. Ends in a plan.
//!
//! Resources are visited dependencies first, because what happens to a parent decides what its
//! dependents may know; drivers are asked concurrently wherever the graph allows.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Engine;
use super::presence::is_shared;
use super::remarks::validate;
use super::saved::plan_id;
pub use super::sealing::sort_outputs;
use super::values::{Declared, UntilNow, ValueError, Values};
use super::walk::{Gathered, Looked, Remembered, walk};
use super::{sealing, sizing};
use crate::config::Resource;
use crate::plan::scope::UnknownNames;
use crate::plan::{Action, Plan, Scope, Waits, order, taken};
use crate::provider::Driver;
use crate::provider::ability::{Remark, Sizing};
use crate::report::{Exit, Report, Span};
use crate::resource::{
    ActionKind, Address, Kind, Output, Outputs, ProviderId, Recorded, Resolver, Spec, Value,
    public_map, resolve_map,
};
use crate::state::record::{RecordError, kept_elsewhere, publish, to_recorded};
use crate::state::{Record, Records};

/// What the look found.
#[derive(Debug)]
pub struct Survey {
    /// A name for the plan.
    pub id: String,
    /// What to do.
    pub plan: Plan,
    /// What is remembered (or was found by adoption), sealed parts opened: of everything that the
    /// plan changes, and of what is in `resealed`.
    pub priors: BTreeMap<Address, Recorded>,
    /// The records themselves, all of them.
    pub records: Arc<Records>,
    /// Records whose outputs must be written again because their declared sensitivity changed.
    pub resealed: BTreeSet<Address>,
    /// What is known before anything runs.
    pub values: Values,
    /// What every resource that the plan makes or changes should be, as far as it is known now. For
    /// all of them see [`Survey::desired_of_all`].
    pub desired: BTreeMap<Address, Spec>,
    /// What abstract sizes came to; the run uses these and asks nobody again.
    pub sizes: BTreeMap<Address, Sizing>,
    /// What the plan is about.
    pub scope: Scope,
    /// What providers think of it.
    pub remarks: Vec<(ProviderId, Remark)>,
    /// What the config asks for and no provider does, each with its place there: sizes and hints that
    /// mean nothing, a new one before the old one is gone.
    pub unread: Vec<(ProviderId, Remark, Span)>,
}

impl Survey {
    /// What every resource in scope should be, as far as it is known now, by address. Made anew one
    /// by one, because most of it is needed for a moment only; the answer is the one that was
    /// planned with.
    pub fn desired_of_all(
        &self,
        engine: &Engine<'_>,
    ) -> impl Iterator<Item = Result<Spec, Report>> {
        let resources = Resources::of(engine).0.into_iter();
        resources
            .filter(|resource| self.scope.includes(&resource.address))
            .map(|resource| desired_again(engine, resource, &self.values, &self.sizes))
    }
}

/// What was desired of a resource when it was visited: what it waits for was known by then.
fn desired_again(
    engine: &Engine<'_>,
    resource: &Resource,
    values: &Values,
    sizes: &BTreeMap<Address, Sizing>,
) -> Result<Spec, Report> {
    let mut desired = spec(engine, resource, values)?;
    sizing::merge_known(engine, &mut desired, sizes);
    Ok(desired)
}

/// Config's resources, sorted by address, each address once.
pub(super) struct Resources<'a>(pub(super) Vec<&'a Resource>);

impl<'a> Resources<'a> {
    fn of(engine: &Engine<'a>) -> Self {
        let resources = &engine.config.resources;
        // Names of one project tend to start alike. What follows is compared as a number: of a
        // hundred thousand names, scattered in memory, few have to be looked at twice.
        let names = || resources.iter().map(|resource| resource.address.as_str());
        let first = names().next().unwrap_or_default();
        let alike = names().fold(first.len(), |alike, name| {
            let pairs = first.bytes().zip(name.bytes()).take(alike);
            pairs.take_while(|(one, other)| one == other).count()
        });
        let mut sorted: Vec<(u64, &Resource)> = resources
            .iter()
            .map(|resource| {
                let rest = &resource.address.as_str().as_bytes()[alike..];
                let mut start = [0; 8];
                let length = rest.len().min(start.len());
                start[..length].copy_from_slice(&rest[..length]);
                (u64::from_be_bytes(start), resource)
            })
            .collect();
        // Of one name, the last counts.
        sorted.reverse();
        sorted.sort_by(|(one, resource), (other, another)| {
            one.cmp(other)
                .then_with(|| resource.address.cmp(&another.address))
        });
        sorted.dedup_by(|(one, resource), (other, before)| {
            one == other && resource.address == before.address
        });
        Self(sorted.into_iter().map(|(_, resource)| resource).collect())
    }

    pub(super) fn get(&self, address: &Address) -> Option<&'a Resource> {
        let position = self
            .0
            .binary_search_by(|resource| resource.address.cmp(address));
        self.0.get(position.ok()?).copied()
    }
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

/// What the config says of one resource. For many, [`by_address`].
pub fn declared<'a>(engine: &Engine<'a>, address: &Address) -> Option<&'a Resource> {
    let mut all = engine.config.resources.iter();
    all.find(|resource| resource.address == *address)
}

/// Every name a resource waits for: explicit, by reference, and through declared secrets that are
/// copies of outputs.
pub fn dependencies(
    resource: &Resource,
    declared: &BTreeMap<String, Declared>,
) -> BTreeSet<Address> {
    let mut all = BTreeSet::new();
    each_dependency(resource, declared, &mut |address| {
        if !all.contains(address) {
            all.insert(address.clone());
        }
    });
    all
}

/// Hands over every name of [`dependencies`], some more than once.
fn each_dependency(
    resource: &Resource,
    declared: &BTreeMap<String, Declared>,
    take: &mut dyn FnMut(&Address),
) {
    let mut take = |address: &Address| {
        if *address != resource.address {
            take(address);
        }
    };
    resource.depends_on.iter().for_each(&mut take);
    for value in resource.config.values() {
        value.references(&mut |reference| take(&reference.address));
        value.declared(&mut |key| {
            if let Some(Declared::Output(reference)) = declared.get(key) {
                take(&reference.address);
            }
        });
    }
}

/// A resource as drivers want it, as far as `values` knows.
pub fn spec(engine: &Engine<'_>, resource: &Resource, values: &Values) -> Result<Spec, Report> {
    resolved(engine, resource, values, values)
}

/// The same with what its values would be if nothing came of the changes in place before it; `None`
/// when that tells nothing more.
pub(super) fn spec_until_now(
    engine: &Engine<'_>,
    resource: &Resource,
    values: &Values,
    desired: &Spec,
) -> Result<Option<Spec>, Report> {
    if desired.config.values().all(Value::is_known) {
        return Ok(None);
    }
    resolved(engine, resource, values, &UntilNow(values)).map(Some)
}

fn resolved(
    engine: &Engine<'_>,
    resource: &Resource,
    values: &Values,
    resolver: &impl Resolver<Error = ValueError>,
) -> Result<Spec, Report> {
    let config =
        resolve_map(&resource.config, resolver).map_err(|error| value_problem(resource, &error))?;
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
    .fix(match error {
        ValueError::KeptElsewhere { .. } => REFRESH,
        ValueError::NoSuchOutput { .. }
        | ValueError::NoSuchResource { .. }
        | ValueError::NoSuchSecret { .. }
        | ValueError::Unset { .. } => "correct the reference, or declare what it names",
    })
    .exit(Exit::Usage)
}

/// What brings values here that another program keeps.
pub(super) const REFRESH: &str =
    "run `tidegate infra refresh-outputs`, which reads it from the provider";

/// True when nothing in a record is secret or will have to be: it opens without a key, and nobody has
/// to know what is in it before others are spoken to.
fn is_open(engine: &Engine<'_>, record: &Record, resource: &Resource, driver: &dyn Driver) -> bool {
    let extension = &record.tidegate;
    extension.format > 0
        && extension.sealed.is_empty()
        && extension.private.is_empty()
        && kept_elsewhere(record).next().is_none()
        && record
            .outputs
            .iter()
            .all(|(name, value)| sealing::is_open(&engine.masker, resource, driver, name, value))
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
    values: Values,
    include: &[String],
) -> Result<Survey, Vec<Report>> {
    let mut survey = look_within(engine, values, include).await?;
    validate(engine, &mut survey).await?;
    // An opinion that was not waited for is none.
    engine.cancel.go_on().map_err(|problem| vec![problem])?;
    Ok(survey)
}

/// The same, without asking providers what they think of it.
///
/// # Errors
/// As [`survey_within`].
pub async fn look_within(
    engine: &Engine<'_>,
    mut values: Values,
    include: &[String],
) -> Result<Survey, Vec<Report>> {
    let resources = Resources::of(engine);
    let stored = engine
        .store
        .list()
        .await
        .map_err(|error| vec![Report::from(error)])?;
    publish(&engine.masker, &stored);
    let records = Arc::new(Records::from(stored));
    let mut problems = Vec::new();
    let mut priors = BTreeMap::new();
    let mut resealed = BTreeSet::new();
    let mut remembered = vec![Remembered::Nothing; resources.0.len()];
    let mut undeclared = Vec::new();
    // Both are sorted: side by side, each is looked at once.
    let mut next = 0;
    for (position, record) in (0_u32..).zip(records.iter()) {
        let address = &record.resource_id;
        let resource = loop {
            let Some(it) = resources.0.get(next) else {
                break None;
            };
            match it.address.cmp(address) {
                Ordering::Less => next += 1,
                Ordering::Equal => break Some(it),
                Ordering::Greater => break None,
            }
        };
        let driver = resource
            .and_then(|it| Some((*it, engine.driver(address, &it.provider, &it.kind).ok()?)));
        if resource.is_some() && is_renamed(engine, record) {
            resealed.insert(address.clone());
        }
        if resource.is_none() {
            undeclared.push(record);
        } else if driver.is_some_and(|(resource, driver)| is_open(engine, record, resource, driver))
        {
            remembered[next] = Remembered::Open(position);
            continue;
        } else {
            remembered[next] = Remembered::Opened(position);
        }
        match open(engine, record) {
            Ok(mut prior) => {
                if let Some((resource, driver)) = driver {
                    let before = sensitive_names(&prior.outputs);
                    prior.outputs = sort_outputs(engine, resource, driver, prior.outputs);
                    if before != sensitive_names(&prior.outputs) {
                        resealed.insert(address.clone());
                    }
                }
                values.set_elsewhere(address, kept_elsewhere(record));
                priors.insert(address.clone(), prior);
            }
            Err(error) => problems.push(error.into()),
        }
    }

    let names = resources.0.iter().map(|resource| &resource.address);
    let waits = Waits::between(names, |position, take| {
        each_dependency(resources.0[position], values.declared_secrets(), take);
    });
    let order_of_all = waits.positions();
    if order_of_all.is_none() {
        let nodes: Vec<(&Address, BTreeSet<Address>)> = resources
            .0
            .iter()
            .map(|it| (&it.address, dependencies(it, values.declared_secrets())))
            .collect();
        if let Err(cycle) = order(nodes.iter().map(|(address, needs)| (*address, needs))) {
            problems.push(cycle_problem(&resources, &cycle));
        }
    }
    let known = resources
        .0
        .iter()
        .map(|resource| (&resource.address, resource.base_name.as_str()))
        .chain(
            records
                .iter()
                .map(|record| (&record.resource_id, record.resource_id.as_str())),
        );
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

    values.remember(Arc::clone(&records), resources.0.len());
    let looked = Looked {
        resources: &resources.0,
        waits,
        records: &records,
        remembered,
        resealed: &resealed,
        scope: &scope,
    };
    let Gathered {
        actions,
        desired,
        sizes,
        mut unread,
        restated,
        mut problems,
    } = walk(engine, looked, &mut priors, &mut values).await;
    engine.cancel.go_on().map_err(|problem| vec![problem])?;
    resealed.extend(restated);
    let mut deleted = Vec::new();
    for record in undeclared {
        if !scope.includes(&record.resource_id) {
            continue;
        }
        let action = delete_action(engine, record);
        if let Err(problem) = engine.driver(&action.address, &action.provider, &action.kind) {
            problems.push(problem.exit(Exit::Usage));
        }
        deleted.push(action);
    }
    unread.sort_unstable_by(|(_, one, _), (_, other, _)| one.resource.cmp(&other.resource));
    let environment = &engine.config.environment;
    let plan = match order_of_all.filter(|_| scope.is_everything()) {
        Some(order) if problems.is_empty() => {
            Plan::ordered(environment, taken(actions, &order), deleted)
        }
        _ => {
            let mut chosen: Vec<Action> = actions.into_iter().flatten().collect();
            chosen.extend(deleted);
            let recorded = records
                .iter()
                .map(|record| (&record.resource_id, record.dependencies.as_slice()));
            let missing = scope.missing(&chosen, recorded);
            if !missing.is_empty() {
                problems.push(incomplete_choice(missing));
            }
            if !problems.is_empty() {
                return Err(problems);
            }
            Plan::assemble(environment, chosen)
                .map_err(|cycle| vec![cycle_problem(&resources, &cycle)])?
        }
    };
    Ok(Survey {
        id: plan_id(engine),
        plan,
        priors,
        records,
        resealed,
        values,
        desired,
        sizes,
        scope,
        remarks: Vec::new(),
        unread,
    })
}

/// What a record remembers, sealed parts opened.
pub(super) fn open(engine: &Engine<'_>, record: &Record) -> Result<Recorded, RecordError> {
    let environment = &engine.config.environment;
    to_recorded(record, environment, &engine.keyring, &engine.masker)
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

fn cycle_problem(resources: &Resources<'_>, cycle: &crate::plan::CycleError) -> Report {
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
    ProviderId::new(owner_name(engine, record))
}

/// The name of the one that [`owner_of`] tells. Asked for every record, so nothing is copied.
pub(super) fn owner_name<'a>(engine: &Engine<'a>, record: &'a Record) -> &'a str {
    let named = record.provider_ref.as_str();
    if engine.config.providers.contains_key(named) {
        return named;
    }
    let mut same_type = engine
        .config
        .providers
        .keys()
        .filter(|id| is_of_type(engine, id, record));
    match (same_type.next(), same_type.next()) {
        (Some(id), None) => id.as_str(),
        _ if named.is_empty() => &record.provider,
        _ => named,
    }
}

/// True when a declared provider module is of the type that a record names.
fn is_of_type(engine: &Engine<'_>, id: &ProviderId, record: &Record) -> bool {
    if record.provider.is_empty() {
        return false;
    }
    let declared = engine.config.providers.get(id);
    let opened = engine.providers.get(id);
    declared.is_some_and(|declared| declared.provider == record.provider)
        || opened.is_some_and(|provider| provider.name() == record.provider)
}

/// True when the provider module that a record names is not declared any more. Where the config still
/// declares the resource, with a provider of that type, it was renamed.
fn is_renamed(engine: &Engine<'_>, record: &Record) -> bool {
    let named = record.provider_ref.as_str();
    !named.is_empty() && !engine.config.providers.contains_key(named)
}

/// The provider module that has what is on record, where the config declares the resource with `now`:
/// that one, when it is the same under another name.
pub(super) fn holder_of(engine: &Engine<'_>, record: &Record, now: &ProviderId) -> ProviderId {
    ProviderId::new(holder_name(engine, record, now))
}

/// The name of that one.
pub(super) fn holder_name<'a>(
    engine: &Engine<'a>,
    record: &'a Record,
    now: &'a ProviderId,
) -> &'a str {
    let is_same = || record.provider.is_empty() || is_of_type(engine, now, record);
    if is_renamed(engine, record) && is_same() {
        now.as_str()
    } else {
        owner_name(engine, record)
    }
}

/// True for a zone that was taken over, and not made: it holds more than we know of, and is not ours to
/// delete.
pub fn was_there(record: &Record) -> bool {
    let is_adopted = record.tidegate.adopted || record.tidegate.applied_config_source == "adoption";
    is_adopted && is_shared(&Kind::new(record.resource_type.clone()))
}

/// Why such a zone stays.
pub(super) const WAS_THERE: &str = "it was there before it was taken over";

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
