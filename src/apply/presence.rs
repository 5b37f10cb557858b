//! Whether something of a name is at its provider: asked for when nobody knows what became of a
//! create. To miss it makes a second one, and to take somebody else's for it gives that away, so it
//! is said how sure the answer is.

use super::Engine;
use super::execute::within;
use crate::provider::ability::Ability;
use crate::provider::{Driver, DriverError, ErrorClass};
use crate::resource::{Address, Kind, Map, Observed, ProviderId, Recorded, Value};
use crate::state::{Record, Records, StoreResult};

/// What is there under a name.
pub(super) enum Presence {
    /// This, and it is none of those that are known to be something else.
    There(Box<Observed>),
    /// Nothing but what was there before, or is another environment's, under this id.
    Other(String),
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

impl<'p> Place<'p> {
    /// Another resource of the same kind and provider.
    fn sibling(&self) -> Option<&'p Record> {
        self.records.iter().find(|record| {
            record.resource_id != *self.address
                && record.resource_type == self.kind.as_str()
                && record.provider_ref == self.owner.as_str()
                && !record.provider_id.is_empty()
        })
    }

    fn named(&self, address: &Address) -> Recorded {
        Recorded::by_name(address.clone(), self.kind.clone())
    }

    /// The id of what is there under the name before anything is made.
    pub(super) async fn before(&self, engine: &Engine<'_>) -> Option<String> {
        let found = within(engine, self.driver.read(&self.locator)).await;
        found
            .ok()
            .map(|found| found.provider_id)
            .filter(|id| !id.is_empty())
    }

    /// Looks. What has one of the ids in `others` is something else.
    ///
    /// # Errors
    /// When the provider cannot say.
    pub(super) async fn look(
        &self,
        engine: &Engine<'_>,
        others: &[&str],
    ) -> Result<Presence, DriverError> {
        let mut other = None;
        let mut failure = None;
        match within(engine, self.driver.read(&self.locator)).await {
            Ok(found) if others.contains(&found.provider_id.as_str()) => {
                other = Some(found.provider_id);
            }
            // Without an id it is no answer, but for a driver whose word on names is good.
            Ok(found) if !found.provider_id.is_empty() || self.driver.finds_by_name() => {
                return self.ours(engine, found).await;
            }
            Ok(_) => {}
            Err(error) if error.class == ErrorClass::NotFound => {}
            Err(error) => failure = Some(error),
        }
        if !self.driver.finds_by_name()
            && let Some(listed) = self.listed(engine, others).await
        {
            return match listed? {
                Some(found) => self.ours(engine, found).await,
                None => Ok(other.map_or(Presence::Absent, Presence::Other)),
            };
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
    async fn ours(&self, engine: &Engine<'_>, found: Observed) -> Result<Presence, DriverError> {
        if !self.driver.finds_by_name() {
            let elsewhere = self.is_elsewhere(engine, &found.provider_id).await;
            let elsewhere = elsewhere.map_err(|error| {
                let why = format!("whether it is another environment's cannot be told: {error}");
                DriverError::new(ErrorClass::Unknown, why)
            })?;
            if elsewhere {
                return Ok(Presence::Other(found.provider_id));
            }
        }
        Ok(Presence::There(Box::new(found)))
    }

    /// True when another environment of this state has it on record.
    async fn is_elsewhere(&self, engine: &Engine<'_>, id: &str) -> StoreResult<bool> {
        for environment in engine.store.environments().await? {
            if environment == engine.store.environment() {
                continue;
            }
            if let Some(store) = engine.store.beside(&environment)?
                && store.list().await?.iter().any(|record| {
                    record.provider_id == id && record.resource_type == self.kind.as_str()
                })
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the provider's own list of everything says; `None` when there is none to be had.
    async fn listed(
        &self,
        engine: &Engine<'_>,
        others: &[&str],
    ) -> Option<Result<Option<Observed>, DriverError>> {
        let provider = engine.providers.get(self.owner)?;
        if !provider.abilities().contains(&Ability::Enumerate) {
            return None;
        }
        let all = within(engine, provider.enumerate(self.kind)).await.ok()?;
        let found = all.into_iter().find(|one| {
            one.name == self.address.as_str()
                && one.kind == *self.kind
                && !one.provider_id.is_empty()
                && !others.contains(&one.provider_id.as_str())
        });
        let Some(found) = found else {
            return Some(Ok(None));
        };
        let prior = Recorded {
            provider_id: found.provider_id,
            ..self.named(self.address)
        };
        Some(within(engine, self.driver.read(&prior)).await.map(Some))
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
        match within(engine, self.driver.read(&self.named(&sibling.resource_id))).await {
            Ok(found) if found.provider_id == sibling.provider_id => Presence::Absent,
            Err(error) if error.class == ErrorClass::NotFound => Presence::Blind,
            _ => Presence::Unseen,
        }
    }
}
