//! One step: intent, effect, record, outcome.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use super::call::{Look, asked, repeated, within};
use super::pace::Pace;
use super::{Ended, Executor, Failure};
use crate::apply::presence::{is_shared, shared_with};
use crate::apply::survey::{WAS_THERE, holder_of, spec, was_there};
use crate::apply::{deposed, sizing};
use crate::clock::rfc3339;
use crate::plan::{Action, Step, StepKind};
use crate::provider::{Driver, DriverError, ErrorClass, Operation};
use crate::random::hex_of;
use crate::report::{Event, Outcome, Report};
use crate::resource::{
    ActionKind, Address, Kind, Observed, PublicMap, Recorded, Spec, config_hash, merged,
};
use crate::state::journal::Before;
use crate::state::{Entry, StoreError};

impl Executor<'_, '_> {
    /// Runs one step to its end, and looks for the causes when it failed.
    pub(super) async fn step(&self, step: &Step) -> Ended {
        let action = &*self.half(step);
        let driver = match self
            .engine
            .driver(&action.address, &action.provider, &action.kind)
        {
            Ok(driver) => driver,
            Err(problem) => return Err(Box::new(Failure::plain(problem.message))),
        };
        let pace = self
            .lanes
            .get(&action.provider)
            .unwrap_or(&self.lanes[&self.actions[&step.address].provider]);
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

    /// The action as this step of it sees it: the old one of a replacement may be of another type, or
    /// belong to another provider, than the new one.
    fn half(&self, step: &Step) -> Cow<'_, Action> {
        let action = &self.actions[&step.address];
        if step.kind != StepKind::Delete || action.action != ActionKind::Replace {
            return Cow::Borrowed(action);
        }
        let Some(record) = self.records.get(&step.address) else {
            return Cow::Borrowed(action);
        };
        let mut half = action.clone();
        half.kind = Kind::new(record.resource_type.clone());
        half.provider = holder_of(self.engine, record, &action.provider);
        Cow::Owned(half)
    }

    pub(super) fn operation(&self) -> Operation {
        Operation {
            id: format!(
                "{}-{}",
                self.lease.holder.run_id,
                hex_of::<8>(self.engine.random.as_ref())
            ),
            environment: self.engine.config.environment.clone(),
        }
    }

    pub(super) async fn intend(
        &self,
        operation: &Operation,
        action: &Action,
        kind: ActionKind,
        config: &PublicMap,
        before: Before,
    ) -> Ended {
        let entry = Entry::Intent {
            operation: operation.id.clone(),
            address: action.address.clone(),
            kind: action.kind.clone(),
            provider: action.provider.as_str().to_owned(),
            action: kind,
            config_hash: config_hash(config),
            at: rfc3339(self.engine.clock.now()),
            before,
        };
        self.write(entry).await
    }

    pub(super) async fn outcome(&self, operation: &Operation, outcome: Outcome) -> Ended {
        let entry = Entry::Outcome {
            operation: operation.id.clone(),
            outcome: outcome.word().to_owned(),
        };
        self.write(entry).await
    }

    /// After the record, its outcome. One that was only kept aside has its outcome kept beside it,
    /// and counts as not saved: nothing may stand on it yet.
    pub(super) async fn saved(
        &self,
        result: Result<(), StoreError>,
        operation: &Operation,
        outcome: Outcome,
    ) -> Ended {
        match result {
            Ok(()) => self.outcome(operation, outcome).await,
            Err(error) => {
                let mut failure = Box::new(Failure::store(&error));
                if matches!(error, StoreError::Kept { .. }) {
                    // Kept as well, or an intent without outcome, which the next run settles.
                    drop(self.outcome(operation, outcome).await);
                    if outcome == Outcome::Success {
                        failure.message = format!("it is done, and not in the state yet: {error}");
                        failure.done = true;
                    }
                }
                Err(failure)
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
    pub(super) fn desired(&self, address: &Address) -> Result<Spec, Box<Failure>> {
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

    pub(super) fn prior(&self, address: &Address) -> Result<Recorded, Box<Failure>> {
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
        if action.create_before_destroy && self.prior(address)?.provider_id == prior.provider_id {
            self.note(format!(
                "`{address}`: its provider changed the old one, `{}`, into the new one; there is nothing to delete.",
                prior.provider_id
            ));
            return deposed::forget(self.engine, self.lease, address, &prior.provider_id)
                .await
                .map_err(|error| Box::new(Failure::store(&error)));
        }
        if let Some(why) = self.stays(action, &prior).await? {
            self.note(format!(
                "`{address}`, `{}`, stays: {why}; only its record goes.",
                prior.provider_id
            ));
            return self.forgotten(action, &prior).await;
        }
        self.warn_of_odd_id(driver, &prior);
        let operation = self.operation();
        self.intend(
            &operation,
            action,
            ActionKind::Delete,
            &PublicMap::new(),
            // Which of the two it is about; the record is the new one's.
            Before {
                ids: action
                    .create_before_destroy
                    .then(|| prior.provider_id.clone())
                    .into_iter()
                    .collect(),
                ..Before::default()
            },
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
            deposed::forget(self.engine, self.lease, address, &prior.provider_id)
                .await
                .map_err(|error| Box::new(Failure::store(&error)))?;
            return self.outcome(&operation, Outcome::Success).await;
        }
        let deleted = self.engine.store.delete(self.lease, address).await;
        self.saved(deleted.map(drop), &operation, Outcome::Success)
            .await?;
        self.forget(action, &prior);
        Ok(())
    }

    /// Why it is not deleted, of a kind that several may have: a zone goes with the last one, and only one
    /// that was made here.
    async fn stays(
        &self,
        action: &Action,
        prior: &Recorded,
    ) -> Result<Option<String>, Box<Failure>> {
        if !is_shared(&action.kind) {
            return Ok(None);
        }
        // Of two that go at the same time the second finds the first one gone.
        self.going.borrow_mut().insert(action.address.clone());
        let going = self.going.borrow().clone();
        let mut was_made = false;
        let mut other = None;
        for record in self.records.iter() {
            if record.provider_id == prior.provider_id
                && record.resource_type == action.kind.as_str()
            {
                was_made |= !was_there(record);
                if !going.contains(&record.resource_id) {
                    other.get_or_insert(record);
                }
            }
        }
        if !was_made {
            return Ok(Some(WAS_THERE.to_owned()));
        }
        if let Some(other) = other {
            return Ok(Some(format!("it is `{}` too", other.resource_id)));
        }
        let elsewhere = shared_with(self.engine, &action.kind, &prior.provider_id).await;
        let elsewhere = elsewhere.map_err(|error| Box::new(Failure::store(&error)))?;
        Ok(elsewhere
            .map(|environment| format!("it is on record in environment `{environment}` too")))
    }

    /// Takes a record away, and nothing else.
    async fn forgotten(&self, action: &Action, prior: &Recorded) -> Ended {
        let deleted = self.engine.store.delete(self.lease, &action.address).await;
        deleted.map_err(|error| Box::new(Failure::store(&error)))?;
        self.forget(action, prior);
        Ok(())
    }

    fn forget(&self, action: &Action, prior: &Recorded) {
        self.ids
            .forget(&action.provider, &action.kind, &prior.provider_id);
        self.priors.borrow_mut().remove(&action.address);
        self.values.borrow_mut().remove(&action.address);
    }

    async fn update(&self, action: &Action, driver: &dyn Driver, pace: &Pace) -> Ended {
        let address = &action.address;
        let prior = self.prior(address)?;
        let desired = self.desired(address)?;
        if self.records.get(address).is_none() {
            // It is about to be adopted, and others may be about to adopt the same.
            if let Some(other) = self.whose(&desired, &prior.provider_id) {
                return Err(Box::new(Failure::plain(format!(
                    "what goes by its name, `{}`, is `{other}`, and is not adopted twice",
                    prior.provider_id
                ))));
            }
            self.ids
                .note(&action.provider, &action.kind, &prior.provider_id, address);
        }
        let diff = asked(self.engine, || driver.diff(&prior, &desired))
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
            Before::default(),
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
                if let Some(other) = self.whose(&desired, &observed.provider_id) {
                    // Two records of one resource: the removal of either would take it from the other.
                    let error = DriverError::new(
                        ErrorClass::Invalid,
                        format!(
                            "the provider answered with the id of `{other}`, `{}`; look there",
                            observed.provider_id
                        ),
                    );
                    return self
                        .unchanged(&operation, driver, &prior, desired, error)
                        .await;
                }
                self.room.answered(address).await;
                let observed = Observed {
                    outputs: merged(&prior.outputs, observed.outputs),
                    ..observed
                };
                self.record(&operation, driver, &desired, observed, "")
                    .await
            }
            Err(error) if error.partial.is_none() && error.class != ErrorClass::NotFound => {
                self.unchanged(&operation, driver, &prior, desired, error)
                    .await
            }
            Err(mut error) => {
                // Nobody knows which half of it is there, so it stands on both.
                let mut desired = desired;
                desired
                    .dependencies
                    .extend(prior.dependencies.iter().cloned());
                if let Some(partial) = &mut error.partial {
                    let said = std::mem::take(&mut partial.outputs);
                    partial.outputs = merged(&prior.outputs, said);
                }
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
        if self.records.get(&prior.address).is_none() {
            // It was about to be adopted, and stays what it was: somebody else's.
            self.outcome(operation, Outcome::Error).await?;
            return Err(Failure::driver(&error, Outcome::Error));
        }
        error.partial = Some(Box::new(Observed {
            provider_id: prior.provider_id.clone(),
            outputs: prior.outputs.clone(),
            status: prior.status.clone(),
            private: prior.private.clone(),
        }));
        let mut keeping = Spec {
            public_config: prior.config.clone(),
            ..desired
        };
        keeping
            .dependencies
            .extend(prior.dependencies.iter().cloned());
        self.broken(operation, driver, &keeping, error).await
    }

    /// Books a failed create or update: what exists in spite of it is recorded as tainted; an
    /// outcome nobody knows leaves the intent open for the next run.
    pub(super) async fn broken(
        &self,
        operation: &Operation,
        driver: &dyn Driver,
        desired: &Spec,
        error: DriverError,
    ) -> Ended {
        let mut failure = Failure::driver(&error, Outcome::Error);
        match error.partial {
            // Without an id there is nothing to record; the next run looks it up by name.
            Some(partial) if partial.provider_id.is_empty() => {}
            Some(partial) => {
                // What was not there before is there now, half or whole.
                failure.done = self.records.get(&desired.address).is_none();
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
}

fn by_name(action: &Action) -> Recorded {
    Recorded::by_name(action.address.clone(), action.kind.clone())
}

/// An update that may have happened is left for the next run to look at; one that did not may be
/// asked for again.
pub(super) async fn unclear_when_unknown(error: &DriverError) -> Look<Observed> {
    if error.class == ErrorClass::Unknown {
        Look::Unclear(error.clone())
    } else {
        Look::NotYet
    }
}

/// What is wrong with an answer, as a sentence.
pub(super) fn odd_answer(driver: &dyn Driver, observed: &Observed) -> Option<String> {
    let format = driver.id_format();
    (!format.accepts(&observed.provider_id)).then(|| {
        format!(
            "the provider answered with an id that is not {}",
            format.words()
        )
    })
}
