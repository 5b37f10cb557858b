//! Finds live resources without asking the state, and removes them: dependents first, as many at
//! once as the run allows. What `teardown`, `cleanup` and `prune` stand on.

mod remove;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;

pub use self::remove::{Removal, Removed, plan_of, remove};
use super::execute::within;
pub use super::presence::{Others, of_others};
use super::presence::{Place, Presence, is_shared, locator};
use super::sealing::live_outputs;
use super::survey::{declared, dependencies, holder_of, owner_of};
use super::values::Declared;
use super::{Engine, deposed};
use crate::config::{GenerateSource, Resource};
use crate::provider::ability::{Ability, Found};
use crate::provider::{Driver, DriverError, ErrorClass, Provider};
use crate::report::Event;
use crate::resource::{
    ActionKind, Address, Kind, Observed, Output, ProviderId, Recorded, Reference,
};
use crate::state::journal::{Before, open_intents};
use crate::state::record::to_recorded;
use crate::state::{Entry, Record, Records};

/// A live resource that is to go.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name in this run: its own, or `<type>/<name>` where two bear the same.
    pub address: Address,
    /// Its kind.
    pub kind: Kind,
    /// Its provider module.
    pub provider: ProviderId,
    /// As the provider knows it.
    pub prior: Recorded,
    /// What goes after it.
    pub depends_on: BTreeSet<Address>,
    /// What the config says beyond that. What is on record is true of what is there, and the config may
    /// never have been applied: it is heeded where records leave room.
    pub declared_depends_on: BTreeSet<Address>,
    /// Needs to be named to be removed.
    pub protected: bool,
    /// Not in the config; found by its tag.
    pub orphan: bool,
    /// When it was made, as the listing says it; empty when it does not.
    pub created_at: String,
    /// A further name of it, for credentials: the access key. Compared, never shown.
    pub access_key: String,
}

/// What a look at one name found.
#[derive(Clone, Debug)]
pub enum Discovered {
    /// It is there.
    There(Box<Target>),
    /// It is not.
    Missing {
        /// The resource.
        address: Address,
        /// Its kind.
        kind: Kind,
    },
    /// It could not be told.
    Failed {
        /// The resource, or the provider module that could not be listed.
        address: Address,
        /// Its kind; empty for a listing.
        kind: Kind,
        /// Why. May be text from a provider.
        message: String,
    },
}

/// Looks up every resource of the config: by the id that its record tells, where there is one, and
/// otherwise by its name.
pub async fn discover(engine: &Engine<'_>, records: &BTreeMap<Address, Record>) -> Vec<Discovered> {
    let declared = declared_copies(engine);
    // A state that cannot be read is what a teardown is there for: then nothing is known of dead runs.
    let journal = engine.store.journal_read().await.unwrap_or_default();
    let cut: BTreeMap<&Address, &Before> = open_intents(&journal)
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Intent {
                address,
                action: ActionKind::Create,
                before,
                ..
            } => Some((address, before)),
            _ => None,
        })
        .collect();
    let mut found: Vec<(usize, Discovered)> =
        futures_util::stream::iter(engine.config.resources.iter().enumerate())
            .map(|(at, resource)| {
                let declared = &declared;
                let cut = cut.get(&resource.address).copied();
                async move {
                    let record = records.get(&resource.address);
                    let one = discover_one(engine, resource, record, declared, cut).await;
                    (at, one)
                }
            })
            .buffer_unordered(engine.parallelism.max(1))
            .collect()
            .await;
    found.sort_by_key(|(at, _)| *at);
    let mut found: Vec<Discovered> = found
        .into_iter()
        .map(|(_, discovered)| discovered)
        .collect();
    add_old(engine, &mut found).await;
    found
}

/// Adds the old ones of replacements that were cut off. What stood on the new one may stand on the old
/// one still, so it goes before both.
async fn add_old(engine: &Engine<'_>, found: &mut Vec<Discovered>) {
    let waiting = match deposed::waiting(engine).await {
        Ok(waiting) => waiting,
        Err(error) => {
            found.push(Discovered::Failed {
                address: Address::new("(old ones)"),
                kind: Kind::new(""),
                message: error.to_string(),
            });
            return;
        }
    };
    for deposed::Old { record: old, .. } in waiting {
        let address = Address::new(format!("{} (old, {})", old.resource_id, old.provider_id));
        for one in &mut *found {
            if let Discovered::There(target) = one
                && target.depends_on.contains(&old.resource_id)
            {
                target.depends_on.insert(address.clone());
            }
        }
        let one = discover_old(engine, &old, &address).await;
        found.push(one);
    }
}

async fn discover_old(engine: &Engine<'_>, old: &Record, address: &Address) -> Discovered {
    let kind = Kind::new(old.resource_type.clone());
    let provider = owner_of(engine, old);
    let failed = |message: String| Discovered::Failed {
        address: address.clone(),
        kind: kind.clone(),
        message,
    };
    let driver = match engine.driver(&old.resource_id, &provider, &kind) {
        Ok(driver) => driver,
        Err(problem) => return failed(problem.message),
    };
    let environment = &engine.config.environment;
    let prior = match to_recorded(old, environment, &engine.keyring, &engine.masker) {
        Ok(prior) => prior,
        Err(error) => return failed(error.to_string()),
    };
    match within(engine, driver.read(&prior)).await {
        Ok(observed) => Discovered::There(Box::new(Target {
            address: address.clone(),
            kind,
            provider,
            prior: seen(engine, driver, prior, observed),
            depends_on: old.dependencies.iter().cloned().collect(),
            declared_depends_on: BTreeSet::new(),
            // Its end was approved when its new one was.
            protected: false,
            orphan: false,
            created_at: String::new(),
            access_key: String::new(),
        })),
        Err(error) if error.class == ErrorClass::NotFound => Discovered::Missing {
            address: address.clone(),
            kind,
        },
        Err(error) => failed(said(&error)),
    }
}

/// Declared secrets that are copies of outputs: they make dependencies too.
pub fn declared_copies(engine: &Engine<'_>) -> BTreeMap<String, Declared> {
    engine
        .config
        .generate
        .iter()
        .filter_map(|item| match &item.source {
            GenerateSource::InfraOutput { address, field } => Some((
                item.key.clone(),
                Declared::Output(Reference {
                    address: address.clone(),
                    field: field.clone(),
                }),
            )),
            GenerateSource::RandomHex { .. }
            | GenerateSource::RandomBase64 { .. }
            | GenerateSource::RandomAlphanumeric { .. }
            | GenerateSource::ProviderCredential { .. } => None,
        })
        .collect()
}

async fn discover_one(
    engine: &Engine<'_>,
    resource: &Resource,
    record: Option<&Record>,
    declared: &BTreeMap<String, Declared>,
    cut: Option<&Before>,
) -> Discovered {
    // What is on record was made as the record says: the config may have moved on, to another type or
    // to another account, where the same id is somebody else's.
    let (kind, provider) = match record.filter(|record| !record.provider_id.is_empty()) {
        Some(record) => (
            Kind::new(record.resource_type.clone()),
            holder_of(engine, record, &resource.provider),
        ),
        None => (resource.kind.clone(), resource.provider.clone()),
    };
    let failed = |message: String| Discovered::Failed {
        address: resource.address.clone(),
        kind: kind.clone(),
        message,
    };
    let missing = Discovered::Missing {
        address: resource.address.clone(),
        kind: kind.clone(),
    };
    let driver = match engine.driver(&resource.address, &provider, &kind) {
        Ok(driver) => driver,
        Err(problem) => return failed(problem.message),
    };
    let remembered = record.and_then(|record| {
        to_recorded(
            record,
            &engine.config.environment,
            &engine.keyring,
            &engine.masker,
        )
        .ok()
    });
    let there = |prior: Recorded, observed: Observed| {
        Discovered::There(Box::new(Target {
            address: resource.address.clone(),
            kind: kind.clone(),
            provider: provider.clone(),
            prior: seen(engine, driver, prior, observed),
            depends_on: match record {
                Some(record) => record.dependencies.iter().cloned().collect(),
                None => dependencies(resource, declared),
            },
            declared_depends_on: dependencies(resource, declared),
            // Without a record nobody knows whether a zone was made here or found.
            protected: resource.protected
                || record.map_or(is_shared(&kind), |record| record.tidegate.protected),
            orphan: false,
            created_at: String::new(),
            access_key: String::new(),
        }))
    };
    // Its id is what is ours for certain. Names need not be unique: another environment, or somebody
    // else, may have something that is called the same.
    let is_recorded = remembered
        .as_ref()
        .is_some_and(|prior| !prior.provider_id.is_empty());
    if let Some(prior) = remembered.filter(|_| is_recorded) {
        match within(engine, driver.read(&prior)).await {
            Ok(observed) => return there(prior, observed),
            Err(error) if error.class == ErrorClass::NotFound => {}
            Err(error) => return failed(said(&error)),
        }
    }
    if !driver.can_adopt(&kind) {
        if is_recorded {
            return missing;
        }
        return failed(
            "this provider cannot look it up by name, and no record tells its id".to_owned(),
        );
    }
    let none = Records::default();
    let place = Place {
        owner: &provider,
        driver,
        address: &resource.address,
        kind: &kind,
        locator: locator(&resource.address, &kind, Some(&resource.config)),
        records: &none,
    };
    match place.look(engine, cut.unwrap_or(&Before::default())).await {
        Ok(Presence::There(found)) if is_recorded && !driver.finds_by_name() => failed(format!(
            "what was recorded is gone; something else of that name is there, `{}`, and is not touched",
            found.provider_id
        )),
        Ok(Presence::There(found)) => {
            let prior = Recorded::by_name(resource.address.clone(), kind.clone());
            there(prior, *found)
        }
        Ok(Presence::Other(id)) => failed(format!(
            "what is there under its name, `{id}`, is on record in another environment, and is not touched"
        )),
        Ok(Presence::Unseen | Presence::Blind | Presence::Doubtful(_)) if cut.is_some() => {
            failed(format!(
                "an earlier run was cut off while making it, and whether it was made cannot be told; look there, then `tidegate state settle {} --id ID` or `… --absent`",
                resource.address
            ))
        }
        Ok(Presence::Doubtful(id)) => failed(format!(
            "what is there under its name, `{id}`, may be what a run of another environment is making, and is not touched"
        )),
        Ok(_) => missing,
        // Its id says that it is gone; that names cannot be asked for changes nothing.
        Err(_) if is_recorded => missing,
        Err(error) => failed(said(&error)),
    }
}

fn said(error: &DriverError) -> String {
    format!("{} ({})", error.message, error.class.word())
}

fn seen(engine: &Engine<'_>, driver: &dyn Driver, prior: Recorded, observed: Observed) -> Recorded {
    let outputs = live_outputs(
        engine,
        declared(engine, &prior.address),
        driver,
        &prior,
        observed.outputs,
    );
    Recorded {
        provider_id: observed.provider_id,
        outputs,
        status: observed.status,
        private: if observed.private.is_empty() {
            prior.private.clone()
        } else {
            observed.private
        },
        ..prior
    }
}

/// A listed resource as a target.
pub fn target_of(engine: &Engine<'_>, provider: &ProviderId, found: Found) -> Target {
    let prior = Recorded {
        provider_id: found.provider_id,
        ..Recorded::by_name(Address::new(found.name), found.kind.clone())
    };
    // Before outputs are sorted into public and sensitive: most drivers do not know these two.
    let text = |name: &str| match found.observed.as_ref()?.outputs.get(name) {
        Some(Output::Public(serde_json::Value::String(text))) => Some(text.clone()),
        _ => None,
    };
    let created_at = text("created_at").unwrap_or_default();
    let access_key = text("access_key").unwrap_or_default();
    let prior = match (
        found.observed,
        engine.driver(&prior.address, provider, &found.kind),
    ) {
        (Some(observed), Ok(driver)) => seen(engine, driver, prior, observed),
        _ => prior,
    };
    Target {
        address: prior.address.clone(),
        kind: found.kind,
        provider: provider.clone(),
        prior,
        depends_on: BTreeSet::new(),
        declared_depends_on: BTreeSet::new(),
        protected: false,
        orphan: true,
        created_at,
        access_key,
    }
}

/// Providers that can list, and the module names of those that cannot.
pub fn listers<'a>(
    engine: &Engine<'a>,
) -> (Vec<(&'a ProviderId, &'a dyn Provider)>, Vec<&'a ProviderId>) {
    let (can, cannot): (Vec<_>, Vec<_>) = engine
        .providers
        .iter()
        .partition(|(_, provider)| provider.abilities().contains(&Ability::Enumerate));
    (
        can.into_iter()
            .map(|(id, provider)| (id, provider.as_ref()))
            .collect(),
        cannot.into_iter().map(|(id, _)| id).collect(),
    )
}

/// Everything with a tag, at every provider that can list by tag.
pub async fn tagged(engine: &Engine<'_>, tag: &str) -> Vec<Discovered> {
    let mut all = Vec::new();
    let others = match of_others(engine).await {
        Ok(others) => others,
        Err(error) => {
            return vec![Discovered::Failed {
                address: Address::new(tag),
                kind: Kind::new(""),
                message: format!(
                    "nothing with this tag is touched, because what other environments have on record cannot be read: {error}"
                ),
            }];
        }
    };
    for (id, provider) in listers(engine).0 {
        match provider.enumerate_by_tag(tag).await {
            Ok(found) => {
                for one in found {
                    let target = target_of(engine, id, one);
                    if let Some(environment) = is_of_others(&others, &target) {
                        engine.reporter.say(Event::Note {
                            text: format!(
                                "`{}` ({}) stays: it is on record in environment `{environment}`, or is being made there.",
                                target.address, target.prior.provider_id
                            ),
                        });
                    } else {
                        all.push(Discovered::There(Box::new(target)));
                    }
                }
            }
            Err(error) => all.push(Discovered::Failed {
                address: Address::new(id.as_str()),
                kind: Kind::new(""),
                message: format!("it could not be listed: {}", said(&error)),
            }),
        }
    }
    all
}

/// The other environment that has a listed resource, or may be making it.
pub fn is_of_others<'o>(others: &'o Others, target: &Target) -> Option<&'o str> {
    others.whose(
        &target.kind,
        &target.prior.provider_id,
        &target.prior.address,
    )
}

/// Adds what a tag found and the config does not hold. Records tell what an orphan stood on, and
/// whether it is protected.
pub fn add_orphans(
    engine: &Engine<'_>,
    discovered: &mut Vec<Discovered>,
    tagged: Vec<Discovered>,
    records: &BTreeMap<Address, Record>,
) {
    let known: BTreeSet<(ProviderId, Kind, String)> = discovered
        .iter()
        .filter_map(|one| match one {
            Discovered::There(target) => Some((
                target.provider.clone(),
                target.kind.clone(),
                target.prior.provider_id.clone(),
            )),
            Discovered::Missing { .. } | Discovered::Failed { .. } => None,
        })
        .collect();
    let mut names: BTreeSet<Address> = engine
        .config
        .resources
        .iter()
        .map(|resource| resource.address.clone())
        .collect();
    for one in tagged {
        let Discovered::There(mut target) = one else {
            discovered.push(one);
            continue;
        };
        let identity = (
            target.provider.clone(),
            target.kind.clone(),
            target.prior.provider_id.clone(),
        );
        let is_declared = engine.config.resources.iter().any(|resource| {
            resource.provider == target.provider
                && resource.kind == target.kind
                && resource.address == target.prior.address
        });
        if known.contains(&identity) || is_declared {
            continue;
        }
        // Two provider modules may be of one account, and list the same.
        let is_met = discovered.iter().any(|one| {
            matches!(one, Discovered::There(known) if known.kind == target.kind
                && known.prior.provider_id == target.prior.provider_id
                && is_same_provider(engine, &known.provider, &target.provider))
        });
        if is_met {
            continue;
        }
        if let Some(record) = records.get(&target.prior.address)
            && owner_of(engine, record) == target.provider
        {
            target.depends_on = record.dependencies.iter().cloned().collect();
            target.protected = record.tidegate.protected;
        }
        if !names.insert(target.address.clone()) {
            target.address = Address::new(format!("{}/{}", target.kind, target.address));
            names.insert(target.address.clone());
        }
        discovered.push(Discovered::There(target));
    }
}

/// Whether two provider modules are of one type: then they may be of one account.
pub fn is_same_provider(engine: &Engine<'_>, one: &ProviderId, other: &ProviderId) -> bool {
    let of = |id: &ProviderId| engine.config.providers.get(id).map(|it| &it.provider);
    one == other || (of(one).is_some() && of(one) == of(other))
}
