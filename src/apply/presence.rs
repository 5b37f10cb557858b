//! Whether something of a name is at its provider: asked for when nobody knows what became of a
//! create. To miss it makes a second one, and to take somebody else's for it gives that away, so it
//! is said how sure the answer is.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::execute::within;
use super::{Engine, deposed};
use crate::provider::ability::{Ability, Found};
use crate::provider::{Driver, DriverError, ErrorClass};
use crate::random::Random;
use crate::resource::{ActionKind, Address, Kind, Map, Observed, ProviderId, Recorded, Value};
use crate::state::journal::{Before, open_intents};
use crate::state::{Entry, Record, Records, Store, StoreError, StoreResult};

/// What is there under a name.
pub(super) enum Presence {
    /// This, and it is none of those that are known to be something else.
    There(Box<Observed>),
    /// Nothing but what was there before, or is another environment's, under this id.
    Other(String),
    /// Something with this id, of which nobody knows whether it was there before.
    Doubtful(String),
    /// Nothing, for certain.
    Absent,
    /// Nothing was found by its name; whether its provider finds things so is not known.
    Unseen,
    /// Nothing can be said: its provider does not find by name what is certainly there.
    Blind,
}

/// Kinds that are known by their domain, not by the name of their module.
const BY_DOMAIN: [&str; 2] = ["infra.dns", "infra.dns_delegation"];

/// True for kinds that are taken over when they are there already: a zone is made by whoever registers
/// the domain.
pub(super) fn is_shared(kind: &Kind) -> bool {
    BY_DOMAIN.contains(&kind.as_str())
}

/// What finds a resource of which no id is recorded: its name; for a zone what its config calls it.
pub(super) fn locator(address: &Address, kind: &Kind, config: Option<&Map>) -> Recorded {
    let mut locator = Recorded::by_name(address.clone(), kind.clone());
    if let Some(config) = config.filter(|_| is_shared(kind)) {
        let said = ["provider_id", "domain"]
            .into_iter()
            .find_map(|key| match config.get(key) {
                Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
                _ => None,
            });
        locator.provider_id = said.unwrap_or_default();
    }
    locator
}

/// What the other environments of this state have, or may be making right now.
#[derive(Debug, Default)]
pub struct Others {
    /// What is on record: type and id, and where.
    recorded: HashMap<(String, String), String>,
    /// What a run there, going on or cut off, began to make: type and name, and where.
    begun: HashMap<(String, String), String>,
}

impl Others {
    /// The environment whose this is, or may be.
    pub fn whose(&self, kind: &Kind, id: &str, name: &Address) -> Option<&str> {
        self.has_recorded(kind, id)
            .or_else(|| self.has_begun(kind, name))
    }

    pub(super) fn has_recorded(&self, kind: &Kind, id: &str) -> Option<&str> {
        let key = (kind.as_str().to_owned(), id.to_owned());
        self.recorded.get(&key).map(String::as_str)
    }

    fn has_begun(&self, kind: &Kind, name: &Address) -> Option<&str> {
        let key = (kind.as_str().to_owned(), name.as_str().to_owned());
        self.begun.get(&key).map(String::as_str)
    }

    async fn add(
        &mut self,
        environment: &str,
        store: &dyn Store,
        random: &dyn Random,
    ) -> StoreResult<()> {
        for record in store.list().await? {
            let key = (record.resource_type, record.provider_id);
            self.recorded.insert(key, environment.to_owned());
        }
        // What waits there to be deleted once nothing stands on it any more is theirs still.
        for old in deposed::all_in(store, random).await? {
            let key = (old.resource_type, old.provider_id);
            self.recorded.insert(key, environment.to_owned());
        }
        let journal = store.journal_read().await?;
        for intent in open_intents(&journal) {
            if let Entry::Intent {
                address,
                kind,
                action: ActionKind::Create | ActionKind::Replace,
                ..
            } = intent
            {
                let key = (kind.as_str().to_owned(), address.as_str().to_owned());
                self.begun.insert(key, environment.to_owned());
            }
        }
        Ok(())
    }
}

/// What is wrong there cannot be put right from here, and need not be wrong: its key may be another one.
fn in_another(environment: &str, error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { what, reason } => StoreError::Invalid(format!(
            "what environment `{environment}` has on record cannot be told, so nothing is taken that \
             may be its: {what} cannot be read: {reason}. If it is encrypted with another key than \
             this environment, that is no damage, and one key for both is needed here; otherwise \
             `tidegate state verify --env {environment}` says what is wrong"
        )),
        error => error,
    }
}

/// What the other environments of this state have.
///
/// # Errors
/// When one of them cannot be read: then nobody knows what is theirs.
pub async fn of_others(engine: &Engine<'_>) -> StoreResult<Others> {
    let mut others = Others::default();
    for environment in engine.store.environments().await? {
        if environment == engine.store.environment() {
            continue;
        }
        if let Some(store) = engine.store.beside(&environment)? {
            let added = others
                .add(&environment, store.as_ref(), engine.random.as_ref())
                .await;
            added.map_err(|error| in_another(&environment, error))?;
        }
    }
    Ok(others)
}

/// The other environment whose it is, or may be, for what is about to be taken over: zones are, by
/// every environment that declares them.
pub(in crate::apply) async fn owned_elsewhere(
    engine: &Engine<'_>,
    kind: &Kind,
    id: &str,
    name: &Address,
) -> StoreResult<Option<String>> {
    if is_shared(kind) {
        return Ok(None);
    }
    let others = of_others(engine).await?;
    Ok(others.whose(kind, id, name).map(str::to_owned))
}

/// The other environment that has the same of a kind that several may have.
///
/// # Errors
/// When one of them cannot be read.
pub(in crate::apply) async fn shared_with(
    engine: &Engine<'_>,
    kind: &Kind,
    id: &str,
) -> StoreResult<Option<String>> {
    if !is_shared(kind) || id.is_empty() {
        return Ok(None);
    }
    let others = of_others(engine).await?;
    Ok(others.has_recorded(kind, id).map(str::to_owned))
}

/// Why what was found is not taken over.
pub(super) fn on_record(id: &str, environment: Option<&str>) -> String {
    format!(
        "what goes by its name, `{id}`, is on record in environment `{}`, or is being made there, and is not touched",
        environment.unwrap_or_default()
    )
}

/// Where a look-up happens.
pub(super) struct Place<'p> {
    pub(super) owner: &'p ProviderId,
    pub(super) driver: &'p dyn Driver,
    pub(super) address: &'p Address,
    pub(super) kind: &'p Kind,
    /// What finds it, from [`locator`].
    pub(super) locator: Recorded,
    /// What is on record: whether a neighbour that is certainly there is found by its name shows what
    /// not being found is worth.
    pub(super) records: &'p Records,
}

/// Looks before a create that may fail for a moment. What is not answered then is asked once more by
/// the next run; nothing has happened yet.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// What a provider lists; `None` when it has no list, or none is needed.
type Listed = Option<Result<Vec<Found>, DriverError>>;

/// What providers listed before anything of a kind was made: each is asked once in a run, because what
/// is made after that is known by its id.
#[derive(Debug, Default)]
pub(super) struct Lists(RefCell<BTreeMap<(ProviderId, Kind), Asked>>);

/// The answer, when there is one; whoever comes meanwhile waits for it.
type Asked = Rc<OnceCell<Listed>>;

/// What a list holds under one name.
#[derive(Default)]
struct Picked {
    /// Ids of what has that name.
    ours: Vec<String>,
    /// Something has no name at all.
    has_nameless: bool,
}

/// A failure that says nothing about what was asked.
fn is_for_now(error: &DriverError) -> bool {
    match error.class {
        ErrorClass::Transient | ErrorClass::Throttled => true,
        ErrorClass::Unknown => !error.answered,
        _ => false,
    }
}

impl<'p> Place<'p> {
    /// Another resource of the provider, of the same kind if there is one: who finds one kind by its
    /// name will find others.
    fn sibling(&self) -> Option<&'p Record> {
        let of_provider = || {
            self.records.iter().filter(|record| {
                record.resource_id != *self.address
                    && record.provider_ref == self.owner.as_str()
                    && !record.provider_id.is_empty()
            })
        };
        of_provider()
            .find(|record| record.resource_type == self.kind.as_str())
            .or_else(|| {
                of_provider().find(|record| !is_shared(&record.resource_type.clone().into()))
            })
    }

    fn named(&self, address: &Address) -> Recorded {
        Recorded::by_name(address.clone(), self.kind.clone())
    }

    /// What is there under the name before anything is made.
    ///
    /// # Errors
    /// When the provider is out of reach, or asks to slow down: what came of a create after that could
    /// not be told from what was there before.
    pub(super) async fn before(
        &self,
        engine: &Engine<'_>,
        lists: &Lists,
    ) -> Result<Before, DriverError> {
        let mut before = Before::default();
        let mut looks = 1;
        loop {
            match within(engine, self.driver.read(&self.locator)).await {
                Ok(found) => before.ids.extend(Some(found.provider_id)),
                Err(error) if error.class == ErrorClass::NotFound => {}
                Err(error) if is_for_now(&error) && looks < LOOKS => {
                    looks += 1;
                    engine.clock.sleep(BETWEEN_LOOKS).await;
                    continue;
                }
                Err(error) if is_for_now(&error) => {
                    return Err(DriverError {
                        message: format!(
                            "nothing was asked for, because it cannot be seen what is there by that name already: {}",
                            error.message
                        ),
                        ..error
                    });
                }
                // Whoever does not find things by name says so in its own words, always.
                Err(_) => {}
            }
            break;
        }
        let key = (self.owner.clone(), self.kind.clone());
        let list = Rc::clone(lists.0.borrow_mut().entry(key).or_default());
        match list.get_or_init(|| self.list(engine)).await {
            None => {}
            Some(Ok(all)) => before.ids.extend(self.pick(all).ours),
            Some(Err(_)) => before.is_unsure = true,
        }
        before.ids.retain(|id| !id.is_empty());
        before.ids.sort();
        before.ids.dedup();
        Ok(before)
    }

    /// Looks. What has one of the ids in `others` is something else, and so may be whatever else is
    /// there when they are not all.
    ///
    /// # Errors
    /// When the provider cannot say.
    pub(super) async fn look(
        &self,
        engine: &Engine<'_>,
        others: &Before,
    ) -> Result<Presence, DriverError> {
        let mut other = None;
        let mut failure = None;
        match within(engine, self.driver.read(&self.locator)).await {
            Ok(found) if others.ids.contains(&found.provider_id) => {
                other = Some(found.provider_id);
            }
            // Without an id it is no answer, but for a driver whose word on names is good.
            Ok(found) if !found.provider_id.is_empty() || self.driver.finds_by_name() => {
                return self.ours(engine, found, false).await;
            }
            Ok(_) => {}
            Err(error) if error.class == ErrorClass::NotFound => {}
            Err(error) => failure = Some(error),
        }
        if let Some(Ok(all)) = self.list(engine).await {
            let list = self.pick(&all);
            let new = list.ours.into_iter().find(|id| !others.ids.contains(id));
            if let Some(id) = new {
                let prior = Recorded {
                    provider_id: id,
                    ..self.named(self.address)
                };
                let found = within(engine, self.driver.read(&prior)).await?;
                return self.ours(engine, found, others.is_unsure).await;
            }
            if list.has_nameless {
                return Ok(Presence::Blind);
            }
            return Ok(other.map_or(Presence::Absent, Presence::Other));
        }
        if let Some(error) = failure {
            return Err(error);
        }
        if let Some(id) = other {
            return Ok(Presence::Other(id));
        }
        if self.driver.finds_by_name() {
            return Ok(Presence::Absent);
        }
        Ok(self.worth(engine).await)
    }

    /// What was found, unless it is another environment's: names need not be unique.
    async fn ours(
        &self,
        engine: &Engine<'_>,
        found: Observed,
        mut is_doubtful: bool,
    ) -> Result<Presence, DriverError> {
        if !self.driver.finds_by_name() {
            let others = of_others(engine).await.map_err(|error| {
                let why = format!("whether it is another environment's cannot be told: {error}");
                DriverError::new(ErrorClass::Unknown, why)
            })?;
            if others.has_recorded(self.kind, &found.provider_id).is_some() {
                return Ok(Presence::Other(found.provider_id));
            }
            // Theirs or ours: nobody knows yet.
            is_doubtful |= others.has_begun(self.kind, self.address).is_some();
        }
        if is_doubtful {
            return Ok(Presence::Doubtful(found.provider_id));
        }
        Ok(Presence::There(Box::new(found)))
    }

    /// The provider's own list of everything of the kind.
    async fn list(&self, engine: &Engine<'_>) -> Listed {
        if self.driver.finds_by_name() {
            return None;
        }
        let provider = engine.providers.get(self.owner)?;
        if !provider.abilities().contains(&Ability::Enumerate) {
            return None;
        }
        match within(engine, provider.enumerate(self.kind)).await {
            Err(error) if error.class == ErrorClass::Unimplemented => None,
            all => Some(all),
        }
    }

    /// What a list holds under this name.
    fn pick(&self, all: &[Found]) -> Picked {
        let mut picked = Picked::default();
        for one in all {
            if one.kind != *self.kind || one.provider_id.is_empty() {
                continue;
            }
            if one.name == self.address.as_str() {
                picked.ours.push(one.provider_id.clone());
            } else if one.name.is_empty() {
                // Unless it is known which one that is, it may be this one.
                let is_known = self
                    .records
                    .iter()
                    .any(|record| record.provider_id == one.provider_id);
                picked.has_nameless |= !is_known;
            }
        }
        picked
    }

    /// What it is worth that nothing was found by name.
    async fn worth(&self, engine: &Engine<'_>) -> Presence {
        if !self.locator.provider_id.is_empty() {
            // It was asked for by an id, so to speak.
            return Presence::Absent;
        }
        let Some(sibling) = self.sibling() else {
            return Presence::Unseen;
        };
        let kind = Kind::new(sibling.resource_type.clone());
        let sibling_driver = match engine.driver(&sibling.resource_id, self.owner, &kind) {
            Ok(driver) => driver,
            Err(_) => return Presence::Unseen,
        };
        let named = Recorded::by_name(sibling.resource_id.clone(), kind);
        match within(engine, sibling_driver.read(&named)).await {
            Ok(found) if found.provider_id == sibling.provider_id => Presence::Absent,
            Err(error) if error.class == ErrorClass::NotFound => Presence::Blind,
            _ => Presence::Unseen,
        }
    }
}
