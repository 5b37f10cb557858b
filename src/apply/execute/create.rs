//! A create: what is there before, the call, and what became of it.

use std::time::Duration;

use super::call::{Look, is_said, repeated, within};
use super::pace::Pace;
use super::step::{odd_answer, unclear_when_unknown};
use super::{Ended, Executor, Failure};
use crate::apply::WAITS;
use crate::apply::deposed;
use crate::apply::presence::{Place, Presence, is_shared, locator, on_record, owned_elsewhere};
use crate::plan::Action;
use crate::provider::{Driver, DriverError, ErrorClass, Operation};
use crate::report::Outcome;
use crate::resource::{ActionKind, Address, Observed, Recorded, Spec};
use crate::state::journal::Before;

/// Waits after a failure in the provider's own words.
const FOR_AN_ANSWER: usize = 2;

impl Executor<'_, '_> {
    pub(super) async fn create(&self, action: &Action, driver: &dyn Driver, pace: &Pace) -> Ended {
        let address = &action.address;
        let operation = self.operation();
        if !action.create_before_destroy {
            return self.create_one(action, driver, pace, operation).await;
        }
        let store = |error| Box::new(Failure::store(&error));
        let old = self.prior(address)?;
        if let Some(record) = self.records.get(address) {
            deposed::remember(self.engine, self.lease, record, &operation)
                .await
                .map_err(store)?;
        }
        let old_id = old.provider_id.clone();
        self.deposed.borrow_mut().insert(address.clone(), old);
        let ended = self.create_one(action, driver, pace, operation).await;
        if let Err(failure) = &ended
            && !failure.store
            && !failure.left_over
        {
            deposed::forget(self.engine, self.lease, address, &old_id)
                .await
                .map_err(store)?;
        }
        ended
    }

    async fn create_one(
        &self,
        action: &Action,
        driver: &dyn Driver,
        pace: &Pace,
        operation: Operation,
    ) -> Ended {
        let desired = self.desired(&action.address)?;
        // Old ones go by the same name: the one of this pair, and those that earlier runs left waiting.
        let olds = self.old_ids(&action.address).await?;
        let place = self.place(action, driver, &desired);
        let mut others = if driver.finds_by_name() {
            Before::default()
        } else {
            let before = place.before(self.engine, &self.lists).await;
            before.map_err(|error| Failure::driver(&error, Outcome::Error))?
        };
        others.ids.retain(|id| !olds.contains(id));
        self.intend(
            &operation,
            action,
            ActionKind::Create,
            &desired.public_config,
            others.clone(),
        )
        .await?;
        others.ids.extend(olds.clone());
        let adopts = self
            .resources
            .get(&action.address)
            .is_some_and(|resource| resource.adopt_existing || is_shared(&action.kind))
            && driver.can_adopt(&action.kind);
        let look = async |error: &DriverError| {
            let mut waits = self.waits_after(&place, error).iter();
            loop {
                let look = self
                    .after_create(&place, &desired, &olds, &others, adopts, error)
                    .await;
                let Some(wait) = waits.next().filter(|_| matches!(look, Look::NotYet)) else {
                    return look;
                };
                tokio::select! {
                    biased;
                    () = self.engine.cancel.cancelled() => {
                        let why = "the run was stopped before it was known whether it was made";
                        return Look::Unclear(DriverError::new(
                            ErrorClass::Unknown,
                            format!("{}; {why}", error.message),
                        ));
                    }
                    () = self.engine.clock.sleep(*wait) => {}
                }
            }
        };
        let created = repeated(
            self.engine,
            pace,
            &self.hold,
            || driver.create(&operation, &desired),
            look,
        )
        .await;
        let error = match created {
            Ok(observed) => {
                return self.made(&operation, driver, &desired, observed).await;
            }
            Err(error) => error,
        };
        if error.class != ErrorClass::AlreadyExists {
            return self.broken(&operation, driver, &desired, error).await;
        }
        if adopts {
            return self
                .adopt(&operation, driver, pace, &desired, &place.locator, &error)
                .await;
        }
        let fix = if driver.can_adopt(&action.kind) {
            format!(
                "set `adopt_existing: true` on `{}` to take it over, or remove it first",
                action.address
            )
        } else {
            "its provider cannot take it over: remove it, or give this resource another name"
                .to_owned()
        };
        let error = DriverError {
            message: format!("{}; {fix}", error.message),
            ..error
        };
        self.broken(&operation, driver, &desired, error).await
    }

    /// The ids of everything that is remembered as an old one of this resource.
    async fn old_ids(&self, address: &Address) -> Result<Vec<String>, Box<Failure>> {
        let store = |error| Box::new(Failure::store(&error));
        let waiting = self.waiting.get_or_try_init(|| deposed::all(self.engine));
        let is_waiting = waiting.await.map_err(store)?.contains(address);
        if !is_waiting && !self.deposed.borrow().contains_key(address) {
            return Ok(Vec::new());
        }
        let olds = deposed::of(self.engine, address).await.map_err(store)?;
        Ok(olds.into_iter().map(|old| old.record.provider_id).collect())
    }

    /// How long what is not there yet may still show: a request that was cut off may be on its way, and
    /// lists of clouds lag behind.
    fn waits_after(&self, place: &Place<'_>, error: &DriverError) -> &'static [Duration] {
        let provider = self.engine.providers.get(place.owner);
        if provider.is_some_and(|provider| provider.is_local()) {
            return &[];
        }
        match error.class {
            ErrorClass::Unknown if !error.answered => &WAITS,
            ErrorClass::Transient => &WAITS[..FOR_AN_ANSWER],
            _ => &[],
        }
    }

    fn place<'p>(
        &'p self,
        action: &'p Action,
        driver: &'p dyn Driver,
        desired: &Spec,
    ) -> Place<'p> {
        Place {
            owner: &action.provider,
            driver,
            address: &action.address,
            kind: &action.kind,
            locator: locator(&action.address, &action.kind, Some(&desired.config)),
            records: &self.records,
        }
    }

    /// What became of a create that was not answered, or with an error that says nothing: a create is
    /// never repeated blindly, and what somebody else made under that name is not ours.
    async fn after_create(
        &self,
        place: &Place<'_>,
        desired: &Spec,
        olds: &[String],
        others: &Before,
        adopts: bool,
        error: &DriverError,
    ) -> Look<Observed> {
        let unclear = |why: &str| {
            let message = format!(
                "{}; whether it was made cannot be told: {why}",
                error.message
            );
            Look::Unclear(DriverError::new(ErrorClass::Unknown, message))
        };
        match place.look(self.engine, others).await {
            Ok(Presence::There(found)) if is_said(error) => {
                Look::Unclear(error.clone().with_partial(*found))
            }
            Ok(Presence::There(found)) => {
                if let Some(why) = self.is_incomplete(place, desired, &found).await {
                    let message = format!("{}; it was made, but {why}", error.message);
                    let error = DriverError::new(error.class, message);
                    return Look::Unclear(error.with_partial(*found));
                }
                Look::Happened(*found)
            }
            Ok(Presence::Doubtful(id)) => unclear(&format!(
                "something of that name, `{id}`, is there, and may have been there before; look there"
            )),
            Ok(Presence::Absent) => Look::NotYet,
            Ok(Presence::Other(id)) if olds.contains(&id) => Look::NotYet,
            Ok(Presence::Other(id)) if adopts => Look::Unclear(DriverError::new(
                ErrorClass::AlreadyExists,
                format!(
                    "{}; something of that name, `{id}`, was there before",
                    error.message
                ),
            )),
            Ok(Presence::Other(id)) => Look::Unclear(DriverError {
                answered: error.answered,
                ..DriverError::new(
                    if is_said(error) {
                        ErrorClass::AlreadyExists
                    } else {
                        ErrorClass::Unknown
                    },
                    format!(
                        "{}; something of that name, `{id}`, was there before this run or is another environment's, and is not touched",
                        error.message
                    ),
                )
            }),
            Ok(Presence::Unseen | Presence::Blind) => unclear(
                "it is not found by its name, and its provider may find such resources by id only; look there",
            ),
            Err(read) => unclear(&format!("{} ({})", read.message, read.class.word())),
        }
    }

    /// Why what was found after a create that broke off cannot count as made.
    async fn is_incomplete(
        &self,
        place: &Place<'_>,
        desired: &Spec,
        found: &Observed,
    ) -> Option<String> {
        // As if the record were written: what it says is what is desired, and what the driver can see
        // beyond that is compared.
        let prior = Recorded {
            provider_id: found.provider_id.clone(),
            config: desired.public_config.clone(),
            outputs: found.outputs.clone(),
            status: found.status.clone(),
            private: found.private.clone(),
            dependencies: desired.dependencies.clone(),
            ..place.locator.clone()
        };
        match within(self.engine, place.driver.diff(&prior, desired)).await {
            Ok(diff) if diff.needs_update || diff.needs_replace => {
                Some("not as it is to be".to_owned())
            }
            Ok(_) => None,
            Err(error) => Some(format!(
                "whether it is as it is to be cannot be told: {}",
                error.message
            )),
        }
    }

    /// Takes over what is there under that name. It was there before this run, so nothing of what
    /// may go wrong from here on removes it.
    async fn adopt(
        &self,
        operation: &Operation,
        driver: &dyn Driver,
        pace: &Pace,
        desired: &Spec,
        by_name: &Recorded,
        conflict: &DriverError,
    ) -> Ended {
        let found = match within(self.engine, driver.read(by_name)).await {
            Ok(found) if !found.provider_id.is_empty() => {
                match owned_elsewhere(
                    self.engine,
                    &desired.kind,
                    &found.provider_id,
                    &desired.address,
                )
                .await
                {
                    Ok(None) => found,
                    told => {
                        let why = told.map_or_else(
                            |error| {
                                format!(
                                    "whether it is another environment's cannot be told: {error}"
                                )
                            },
                            |environment| on_record(&found.provider_id, environment.as_deref()),
                        );
                        let error = DriverError::new(
                            ErrorClass::AlreadyExists,
                            format!("{}; {why}", conflict.message),
                        );
                        return self.broken(operation, driver, desired, error).await;
                    }
                }
            }
            Ok(_) => {
                let error = DriverError::new(
                    ErrorClass::AlreadyExists,
                    format!("{}; looked up by name it has no id", conflict.message),
                );
                return self.broken(operation, driver, desired, error).await;
            }
            Err(read) => {
                let error = DriverError::new(
                    ErrorClass::AlreadyExists,
                    format!(
                        "{}; and it cannot be looked up by name: {} ({})",
                        conflict.message,
                        read.message,
                        read.class.word()
                    ),
                );
                return self.broken(operation, driver, desired, error).await;
            }
        };
        let prior = Recorded {
            provider_id: found.provider_id,
            outputs: found.outputs,
            status: found.status,
            private: found.private,
            ..by_name.clone()
        };
        let updated = repeated(
            self.engine,
            pace,
            &self.hold,
            || driver.update(operation, &prior, desired),
            unclear_when_unknown,
        )
        .await;
        match updated {
            Ok(observed) => {
                self.record_as(operation, driver, desired, observed, ("", true))
                    .await
            }
            Err(error) => self.broken(operation, driver, desired, error).await,
        }
    }

    /// Books what a create answered. An answer that cannot be right is not recorded, and what this
    /// very call made is removed again.
    pub(super) async fn made(
        &self,
        operation: &Operation,
        driver: &dyn Driver,
        desired: &Spec,
        observed: Observed,
    ) -> Ended {
        if observed.provider_id.is_empty() {
            // The intent stays open: what was made can only be found by its name.
            return Err(Box::new(Failure::plain(
                "the provider answered without an id; nothing was recorded, and the next run looks the resource up by name",
            ))
            .with_rest());
        }
        if let Some(other) = self.whose(desired, &observed.provider_id) {
            // Nobody knows which of the two it is about, so nothing is done to either.
            return Err(Box::new(Failure::plain(format!(
                "the provider answered with the id of `{other}`, `{}`; nothing was recorded: look there, then `tidegate state settle {} --id ID`",
                observed.provider_id, desired.address
            )))
            .with_rest());
        }
        // Before anything is waited for: the other one may be on its way.
        let provider = &self.resources[&desired.address].provider;
        self.ids.note(
            provider,
            &desired.kind,
            &observed.provider_id,
            &desired.address,
        );
        let Some(wrong) = odd_answer(driver, &observed) else {
            self.room.answered(&desired.address).await;
            return self
                .record_as(operation, driver, desired, observed, ("", false))
                .await;
        };
        let made = Recorded {
            provider_id: observed.provider_id,
            outputs: observed.outputs,
            status: observed.status,
            private: observed.private,
            ..Recorded::by_name(desired.address.clone(), desired.kind.clone())
        };
        // The answer may have come while the process was stopped: another run may have found what was made
        // and recorded it by now, and then it is not ours to remove.
        if let Err(error) = self.hold.is_sure().await {
            let failure = Failure::store(&error);
            return Err(Box::new(Failure {
                message: format!(
                    "{wrong}; what was made was not removed, because the lock is not sure: {error}; the next run looks it up by name"
                ),
                ..failure
            })
            .with_rest());
        }
        match within(self.engine, driver.delete(operation, &made)).await {
            Err(error) if error.class != ErrorClass::NotFound => Err(Box::new(Failure {
                outcome: Outcome::CompensationFailed,
                left_over: true,
                ..Failure::plain(format!(
                    "{wrong}; and what was made could not be removed: {} ({})",
                    error.message,
                    error.class.word()
                ))
            })),
            _ => {
                self.outcome(operation, Outcome::Compensated).await?;
                Err(Box::new(Failure {
                    outcome: Outcome::Compensated,
                    ..Failure::plain(format!("{wrong}; what was made is removed again"))
                }))
            }
        }
    }

    /// The other resource of the same provider and type that has this id. Zones may be declared twice.
    pub(super) fn whose(&self, desired: &Spec, id: &str) -> Option<Address> {
        if is_shared(&desired.kind) {
            return None;
        }
        let provider = &self.resources[&desired.address].provider;
        self.ids
            .of(provider, &desired.kind, id)
            .filter(|other| *other != desired.address)
    }
}
