//! One step: intent, effect, record, outcome.

use std::cell::Cell;
use std::sync::Arc;

use super::call::{Look, is_said, repeated, within};
use super::pace::Pace;
use super::{Ended, Executor, Failure};
use crate::apply::presence::{Place, Presence, is_shared, locator};
use crate::apply::survey::{sort_outputs, spec};
use crate::apply::{deposed, sizing};
use crate::clock::rfc3339;
use crate::plan::{Action, Step, StepKind};
use crate::provider::{Driver, DriverError, ErrorClass, Operation};
use crate::random::hex_of;
use crate::report::{Event, Outcome, Report};
use crate::resource::{
    ActionKind, Address, Observed, Output, Outputs, PublicMap, Recorded, Spec, config_hash,
};
use crate::state::record::{Applied, from_observed};
use crate::state::{Entry, StoreError};

impl Executor<'_, '_> {
    /// Runs one step to its end, and looks for the causes when it failed.
    pub(super) async fn step(&self, step: &Step) -> Ended {
        let action = &self.actions[&step.address];
        let driver = match self
            .engine
            .driver(&action.address, &action.provider, &action.kind)
        {
            Ok(driver) => driver,
            Err(problem) => return Err(Box::new(Failure::plain(problem.message))),
        };
        let pace = &self.lanes[&action.provider];
        let ended = match step.kind {
            StepKind::Delete => {
                let deleted = self.delete(action, driver, pace).await;
                deleted.map_err(|failure| failure.of_step(action, step))
            }
            StepKind::Create => self.create(action, driver, pace).await,
            StepKind::Update => self.update(action, driver, pace).await,
        };
        match ended {
            Err(mut failure)
                if failure
                    .class
                    .is_some_and(|class| class != ErrorClass::Unimplemented) =>
            {
                let prior = self.priors.borrow().get(&action.address).cloned();
                let prior = prior.unwrap_or_else(|| by_name(action));
                failure.evidence = self
                    .evidence
                    .gather(self.engine, driver, &prior, &failure.message)
                    .await;
                Err(failure)
            }
            ended => ended,
        }
    }

    fn operation(&self) -> Operation {
        Operation {
            id: format!(
                "{}-{}",
                self.lease.holder.run_id,
                hex_of::<8>(self.engine.random.as_ref())
            ),
            environment: self.engine.config.environment.clone(),
        }
    }

    async fn intend(
        &self,
        operation: &Operation,
        action: &Action,
        kind: ActionKind,
        config: &PublicMap,
        before: Option<&str>,
    ) -> Ended {
        let entry = Entry::Intent {
            operation: operation.id.clone(),
            address: action.address.clone(),
            kind: action.kind.clone(),
            provider: action.provider.as_str().to_owned(),
            action: kind,
            config_hash: config_hash(config),
            at: rfc3339(self.engine.clock.now()),
            before: before.unwrap_or_default().to_owned(),
        };
        self.write(entry).await
    }

    async fn outcome(&self, operation: &Operation, outcome: Outcome) -> Ended {
        let entry = Entry::Outcome {
            operation: operation.id.clone(),
            outcome: outcome.word().to_owned(),
        };
        self.write(entry).await
    }

    /// After the record, its outcome. One that was only kept aside has its outcome kept beside it,
    /// and counts as not saved: nothing may stand on it yet.
    async fn saved(
        &self,
        result: Result<(), StoreError>,
        operation: &Operation,
        outcome: Outcome,
    ) -> Ended {
        match result {
            Ok(()) => self.outcome(operation, outcome).await,
            Err(error) => {
                if matches!(error, StoreError::Kept { .. }) {
                    // Kept as well, or an intent without outcome, which the next run settles.
                    drop(self.outcome(operation, outcome).await);
                }
                Err(Box::new(Failure::store(&error)))
            }
        }
    }

    async fn write(&self, entry: Entry) -> Ended {
        self.journal
            .append(entry)
            .await
            .map_err(|error: Arc<StoreError>| Box::new(Failure::store(&error)))
    }

    /// The resource as the driver wants it, everything known.
    fn desired(&self, address: &Address) -> Result<Spec, Box<Failure>> {
        let resource = self
            .resources
            .get(address)
            .ok_or_else(|| Failure::plain("it is no longer in the config"))?;
        let mut desired = spec(self.engine, resource, &self.values.borrow())
            .map_err(|problem| Failure::plain(problem.message))?;
        sizing::merge_known(self.engine, &mut desired, &self.sizes);
        let unknown: Vec<&str> = desired
            .config
            .iter()
            .filter(|(_, value)| !value.is_known())
            .map(|(key, _)| key.as_str())
            .collect();
        if unknown.is_empty() {
            Ok(desired)
        } else {
            Err(Box::new(Failure::plain(format!(
                "{} is still not known, although everything it waits for is done",
                unknown.join(", ")
            ))))
        }
    }

    fn prior(&self, address: &Address) -> Result<Recorded, Box<Failure>> {
        Ok(self
            .priors
            .borrow()
            .get(address)
            .cloned()
            .ok_or_else(|| Failure::plain("nothing is recorded about it"))?)
    }

    /// A record of another tool may hold a name where the id belongs: worth a word, no more.
    fn warn_of_odd_id(&self, driver: &dyn Driver, prior: &Recorded) {
        let format = driver.id_format();
        if !prior.provider_id.is_empty() && !format.accepts(&prior.provider_id) {
            self.say(Event::Problem(Box::new(
                Report::warning(
                    "apply/odd-id",
                    format!(
                        "the recorded id of `{}` is not {}; it is used as it is",
                        prior.address,
                        format.words()
                    ),
                )
                .fix("an update that succeeds puts the right one on record"),
            )));
        }
    }

    async fn delete(&self, action: &Action, driver: &dyn Driver, pace: &Pace) -> Ended {
        let address = &action.address;
        let prior = if action.create_before_destroy {
            let old = self.deposed.borrow().get(address).cloned();
            old.ok_or_else(|| Failure::plain("there is no old one to delete"))?
        } else {
            self.prior(address)?
        };
        self.warn_of_odd_id(driver, &prior);
        let operation = self.operation();
        self.intend(
            &operation,
            action,
            ActionKind::Delete,
            &PublicMap::new(),
            None,
        )
        .await?;
        // One try whose outcome nobody knows leaves the whole unknown, however clear the next
        // refusal is; and "failed for now" does not say that nothing was done before it failed.
        let is_unclear = Cell::new(false);
        let look = async |error: &DriverError| {
            is_unclear.set(true);
            if error.class == ErrorClass::Transient {
                // Deleting what is gone succeeds, so it may be asked for twice.
                return Look::NotYet;
            }
            match within(self.engine, driver.read(&prior)).await {
                Ok(_) => Look::NotYet,
                Err(read) if read.class == ErrorClass::NotFound => Look::Happened(()),
                Err(_) => Look::Unclear(error.clone()),
            }
        };
        let deleted = repeated(
            self.engine,
            pace,
            &self.hold,
            || driver.delete(&operation, &prior),
            look,
        )
        .await;
        match deleted {
            Ok(()) => {}
            Err(error) if error.class == ErrorClass::NotFound => {}
            Err(error) => {
                if !is_unclear.get() {
                    self.outcome(&operation, Outcome::DeleteFailed).await?;
                }
                return Err(Failure::driver(&error, Outcome::DeleteFailed));
            }
        }
        self.room.answered(address).await;
        if action.create_before_destroy {
            // The record is the new one's.
            deposed::forget(self.engine, self.lease, address)
                .await
                .map_err(|error| Box::new(Failure::store(&error)))?;
            return self.outcome(&operation, Outcome::Success).await;
        }
        let deleted = self.engine.store.delete(self.lease, address).await;
        self.saved(deleted.map(drop), &operation, Outcome::Success)
            .await?;
        self.priors.borrow_mut().remove(address);
        self.values.borrow_mut().remove(address);
        Ok(())
    }

    async fn create(&self, action: &Action, driver: &dyn Driver, pace: &Pace) -> Ended {
        let address = &action.address;
        if !action.create_before_destroy {
            return self.create_one(action, driver, pace).await;
        }
        let store = |error: StoreError| Box::new(Failure::store(&error));
        let old = self.prior(address)?;
        if let Some(record) = self.records.get(address) {
            deposed::remember(self.engine, self.lease, record)
                .await
                .map_err(store)?;
        }
        self.deposed.borrow_mut().insert(address.clone(), old);
        let ended = self.create_one(action, driver, pace).await;
        if let Err(failure) = &ended
            && !failure.store
            && !failure.left_over
        {
            deposed::forget(self.engine, self.lease, address)
                .await
                .map_err(store)?;
        }
        ended
    }

    async fn create_one(&self, action: &Action, driver: &dyn Driver, pace: &Pace) -> Ended {
        let desired = self.desired(&action.address)?;
        let operation = self.operation();
        // The old one of a pair goes by the same name.
        let old = self
            .deposed
            .borrow()
            .get(&action.address)
            .map(|old| old.provider_id.clone());
        let place = self.place(action, driver, &desired);
        let before = if driver.finds_by_name() {
            None
        } else {
            let before = place.before(self.engine).await;
            before.filter(|id| Some(id) != old.as_ref())
        };
        self.intend(
            &operation,
            action,
            ActionKind::Create,
            &desired.public_config,
            before.as_deref(),
        )
        .await?;
        let adopts = self
            .resources
            .get(&action.address)
            .is_some_and(|resource| resource.adopt_existing || is_shared(&action.kind))
            && driver.can_adopt(&action.kind);
        let look = async |error: &DriverError| {
            self.after_create(&place, old.as_deref(), before.as_deref(), adopts, error)
                .await
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
        old: Option<&str>,
        before: Option<&str>,
        adopts: bool,
        error: &DriverError,
    ) -> Look<Observed> {
        let others: Vec<&str> = old.into_iter().chain(before).collect();
        let unclear = |why: &str| {
            let message = format!(
                "{}; whether it was made cannot be told: {why}",
                error.message
            );
            Look::Unclear(DriverError::new(ErrorClass::Unknown, message))
        };
        match place.look(self.engine, &others).await {
            Ok(Presence::There(found)) if is_said(error) => {
                Look::Unclear(error.clone().with_partial(*found))
            }
            Ok(Presence::There(found)) => Look::Happened(*found),
            Ok(Presence::Absent) => Look::NotYet,
            Ok(Presence::Other(id)) if Some(id.as_str()) == old => Look::NotYet,
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
            Ok(found) if !found.provider_id.is_empty() => found,
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
            Ok(observed) => self.record(operation, driver, desired, observed, "").await,
            Err(error) => self.broken(operation, driver, desired, error).await,
        }
    }

    async fn update(&self, action: &Action, driver: &dyn Driver, pace: &Pace) -> Ended {
        let address = &action.address;
        let prior = self.prior(address)?;
        let desired = self.desired(address)?;
        let diff = within(self.engine, driver.diff(&prior, &desired))
            .await
            .map_err(|error| Failure::driver(&error, Outcome::Error))?;
        let must = !action.reason.is_empty()
            || self
                .records
                .get(address)
                .is_some_and(|record| record.status == "error");
        if diff.needs_replace || diff.changes.iter().any(|change| change.force_new) {
            return Err(Box::new(Failure::plain(
                "now that every value is known it must be replaced, which the plan did not say; run the command again to see and approve that",
            )));
        }
        if !must && !diff.needs_update && diff.changes.is_empty() {
            // What it waited for turned out to be what it had: nothing to do.
            self.values
                .borrow_mut()
                .set_final(address, &prior.provider_id, &prior.outputs);
            return Ok(());
        }
        self.warn_of_odd_id(driver, &prior);
        let operation = self.operation();
        self.intend(
            &operation,
            action,
            ActionKind::Update,
            &desired.public_config,
            None,
        )
        .await?;
        let updated = repeated(
            self.engine,
            pace,
            &self.hold,
            || driver.update(&operation, &prior, &desired),
            unclear_when_unknown,
        )
        .await;
        match updated {
            Ok(observed) => {
                if let Some(wrong) = odd_answer(driver, &observed) {
                    let error = DriverError::new(ErrorClass::Invalid, wrong);
                    return self
                        .unchanged(&operation, driver, &prior, desired, error)
                        .await;
                }
                self.room.answered(address).await;
                self.record(&operation, driver, &desired, observed, "")
                    .await
            }
            Err(error) if error.partial.is_none() && error.class != ErrorClass::NotFound => {
                self.unchanged(&operation, driver, &prior, desired, error)
                    .await
            }
            Err(mut error) => {
                if error.class == ErrorClass::NotFound {
                    error.message.push_str(
                        "; it is gone: `tidegate infra refresh --prune` forgets it, and the next apply makes it anew",
                    );
                }
                self.broken(&operation, driver, &desired, error).await
            }
        }
    }

    /// Books a failed update: what was there before is still there as far as we know.
    async fn unchanged(
        &self,
        operation: &Operation,
        driver: &dyn Driver,
        prior: &Recorded,
        desired: Spec,
        mut error: DriverError,
    ) -> Ended {
        error.partial = Some(Box::new(Observed {
            provider_id: prior.provider_id.clone(),
            outputs: prior.outputs.clone(),
            status: prior.status.clone(),
            private: prior.private.clone(),
        }));
        let keeping = Spec {
            public_config: prior.config.clone(),
            ..desired
        };
        self.broken(operation, driver, &keeping, error).await
    }

    /// Books a failed create or update: what exists in spite of it is recorded as tainted; an
    /// outcome nobody knows leaves the intent open for the next run.
    async fn broken(
        &self,
        operation: &Operation,
        driver: &dyn Driver,
        desired: &Spec,
        error: DriverError,
    ) -> Ended {
        let failure = Failure::driver(&error, Outcome::Error);
        match error.partial {
            // Without an id there is nothing to record; the next run looks it up by name.
            Some(partial) if partial.provider_id.is_empty() => {}
            Some(partial) => {
                self.record(operation, driver, desired, *partial, &error.message)
                    .await?;
            }
            None if error.class == ErrorClass::Unknown && !error.answered => {}
            None => {
                self.outcome(operation, Outcome::Error).await?;
                return Err(failure);
            }
        }
        Err(failure.with_rest())
    }

    /// Books what a create answered. An answer that cannot be right is not recorded, and what this
    /// very call made is removed again.
    async fn made(
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
        let Some(wrong) = odd_answer(driver, &observed) else {
            self.room.answered(&desired.address).await;
            return self.record(operation, driver, desired, observed, "").await;
        };
        let made = Recorded {
            provider_id: observed.provider_id,
            outputs: observed.outputs,
            status: observed.status,
            private: observed.private,
            ..Recorded::by_name(desired.address.clone(), desired.kind.clone())
        };
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

    /// Makes a result durable: the record, then its outcome; then dependents may know it.
    /// A non-empty `taint` marks the record as incomplete.
    async fn record(
        &self,
        operation: &Operation,
        driver: &dyn Driver,
        desired: &Spec,
        observed: Observed,
        taint: &str,
    ) -> Ended {
        let engine = self.engine;
        let address = &desired.address;
        let resource = self.resources[address];
        let observed = Observed {
            outputs: sort_outputs(engine, resource, driver, observed.outputs),
            ..observed
        };
        let record = from_observed(
            &Applied {
                environment: &engine.config.environment,
                provider: engine.providers[&resource.provider].name(),
                provider_ref: resource.provider.as_str(),
                spec: desired,
                observed: &observed,
                source: "apply",
                protected: resource.protected,
                error: &engine.masker.mask(taint),
                prior: self.records.get(address),
            },
            &engine.keyring,
            engine.random.as_ref(),
        );
        let put = engine.store.put(self.lease, &record).await;
        if let Err(StoreError::TooLarge(why)) = &put
            && let Some((name, bytes)) = largest(&observed.outputs)
        {
            // The id is what must not be lost: without it nobody finds the resource again.
            let mut less = observed;
            less.outputs.remove(&name);
            let mut taint = taint.to_owned();
            if !taint.is_empty() {
                taint.push_str("; ");
            }
            taint.push_str(&format!(
                "its output `{name}` ({bytes} bytes) is too large for the state and is left out ({why})"
            ));
            Box::pin(self.record(operation, driver, desired, less, &taint)).await?;
            return Err(Box::new(Failure::plain(taint)).with_rest());
        }
        let recorded = Recorded {
            address: address.clone(),
            kind: desired.kind.clone(),
            provider_id: observed.provider_id,
            config: desired.public_config.clone(),
            outputs: observed.outputs,
            status: observed.status,
            private: observed.private,
            dependencies: desired.dependencies.clone(),
        };
        let outcome = if taint.is_empty() {
            Outcome::Success
        } else {
            Outcome::Error
        };
        self.saved(put.map(drop), operation, outcome).await?;
        if taint.is_empty() {
            self.values
                .borrow_mut()
                .set_final(address, &recorded.provider_id, &recorded.outputs);
        }
        self.priors.borrow_mut().insert(address.clone(), recorded);
        Ok(())
    }
}

fn by_name(action: &Action) -> Recorded {
    Recorded::by_name(action.address.clone(), action.kind.clone())
}

/// An update that may have happened is left for the next run to look at; one that did not may be
/// asked for again.
async fn unclear_when_unknown(error: &DriverError) -> Look<Observed> {
    if error.class == ErrorClass::Unknown {
        Look::Unclear(error.clone())
    } else {
        Look::NotYet
    }
}

/// The output that takes most of a record, and its size.
fn largest(outputs: &Outputs) -> Option<(String, usize)> {
    outputs
        .iter()
        .map(|(name, output)| match output {
            Output::Public(value) => (name, value.to_string().len()),
            Output::Sensitive(secret) => (name, secret.len_bytes()),
        })
        .max_by_key(|(_, bytes)| *bytes)
        .map(|(name, bytes)| (name.clone(), bytes))
}

/// What is wrong with an answer, as a sentence.
fn odd_answer(driver: &dyn Driver, observed: &Observed) -> Option<String> {
    let format = driver.id_format();
    (!format.accepts(&observed.provider_id)).then(|| {
        format!(
            "the provider answered with an id that is not {}",
            format.words()
        )
    })
}
