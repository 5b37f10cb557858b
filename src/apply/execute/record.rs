//! What a call brought, made durable.

use super::{Ended, Executor, Failure};
use crate::apply::deposed;
use crate::apply::sealing::{live_outputs, sort_outputs};
use crate::provider::{Driver, Operation};
use crate::report::Outcome;
use crate::resource::{Address, Observed, Output, Outputs, Recorded, Spec};
use crate::state::StoreError;
use crate::state::record::{Applied, CUT_OFF, from_observed};

impl Executor<'_, '_> {
    /// Makes a result durable: the record, then its outcome; then dependents may know it.
    /// A non-empty `taint` marks the record as incomplete.
    pub(super) async fn record(
        &self,
        operation: &Operation,
        driver: &dyn Driver,
        desired: &Spec,
        observed: Observed,
        taint: &str,
    ) -> Ended {
        // What was found there and is not on record yet was not made by us.
        let address = &desired.address;
        let is_adopted = match self.records.get(address) {
            Some(record) => record.tidegate.adopted,
            None => self.priors.borrow().contains_key(address),
        };
        self.record_as(operation, driver, desired, observed, (taint, is_adopted))
            .await
    }

    fn was_cut_off(&self, address: &Address) -> bool {
        self.records
            .get(address)
            .is_some_and(|record| record.error == CUT_OFF)
    }

    /// The same, of something of which it is known whether it was there before.
    pub(super) async fn record_as(
        &self,
        operation: &Operation,
        driver: &dyn Driver,
        desired: &Spec,
        observed: Observed,
        (taint, is_adopted): (&str, bool),
    ) -> Ended {
        let engine = self.engine;
        let address = &desired.address;
        let resource = self.resources[address];
        let outputs = observed.outputs;
        let observed = Observed {
            outputs: match self.priors.borrow().get(address) {
                // What is sealed because a run was cut off is judged anew.
                Some(prior) if !self.was_cut_off(address) => {
                    live_outputs(engine, Some(resource), driver, prior, outputs)
                }
                _ => sort_outputs(engine, resource, driver, outputs),
            },
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
                adopted: is_adopted,
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
            let less = self.record_as(operation, driver, desired, less, (&taint, is_adopted));
            Box::pin(less).await?;
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
        if let Err(error @ StoreError::LostLock { .. }) = &put {
            // Nobody else knows it.
            let id = &recorded.provider_id;
            let mut failure = Failure::store(error);
            failure.done = true;
            failure.message =
                format!("it is there, with the id `{id}`, and is not recorded: {error}");
            return Err(Box::new(failure).with_rest());
        }
        if put.is_ok() && self.deposed.borrow().contains_key(address) {
            // Before the outcome: a run that is killed in between finds the intent open, and marks it then.
            deposed::replaced(engine, self.lease, address, operation)
                .await
                .map_err(|error| {
                    let mut failure = Failure::store(&error);
                    failure.done = true;
                    Box::new(failure).with_rest()
                })?;
        }
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
