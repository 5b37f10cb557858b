//! Runs the steps of a plan: as many at once as the graph and `--parallelism` allow.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::survey::{Survey, by_address, sort_outputs, spec};
use super::values::Values;
use super::{ActionResult, ApplyReport, Engine};
use crate::clock::rfc3339;
use crate::config::Resource;
use crate::plan::{Action, Plan, Step, StepKind, Steps};
use crate::provider::{Driver, DriverError, ErrorClass, Operation};
use crate::random::hex_of;
use crate::report::{Event, Outcome};
use crate::resource::{ActionKind, Address, Observed, PublicMap, Recorded, Spec, config_hash};
use crate::state::record::{Applied, from_observed};
use crate::state::{Entry, Lease, Record, StoreError};

/// How long running actions may go on after the first signal. The runner gives 7.5 s between its
/// SIGINT and its SIGTERM (`docs/github-actions.md`).
pub const GRACE: Duration = Duration::from_secs(5);
/// Between two renewals of the lock.
pub const RENEW_EVERY: Duration = Duration::from_secs(15);
/// Longest time one driver call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Tries of one effect, the first included.
pub const TRIES: u32 = 5;
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_LONGEST: Duration = Duration::from_secs(30);

/// Why a step did not succeed.
struct Failure {
    outcome: Outcome,
    class: Option<ErrorClass>,
    message: String,
    lost_lock: bool,
}

impl Failure {
    fn plain(message: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Error,
            class: None,
            message: message.into(),
            lost_lock: false,
        }
    }

    fn store(error: &StoreError) -> Self {
        Self {
            lost_lock: matches!(error, StoreError::LostLock { .. }),
            ..Self::plain(error.to_string())
        }
    }

    fn driver(error: &DriverError, outcome: Outcome) -> Self {
        Self {
            outcome,
            class: Some(error.class),
            message: error.message.clone(),
            lost_lock: false,
        }
    }
}

/// A finished step.
struct End {
    step: Step,
    result: Result<(), Failure>,
}

struct Progress {
    started: Duration,
}

struct Executor<'a, 'e> {
    engine: &'a Engine<'e>,
    lease: &'a Lease,
    resources: BTreeMap<&'a Address, &'a Resource>,
    actions: BTreeMap<Address, Action>,
    records: BTreeMap<Address, Record>,
    priors: RefCell<BTreeMap<Address, Recorded>>,
    values: RefCell<Values>,
}

/// Runs every step of the survey's plan. Answers how each action ended and what is known now.
///
/// The lock is renewed all the while. The first wish to stop starts no new step and gives running
/// ones [`GRACE`]; a lost lock stops at once, because nothing may be written any more.
pub async fn execute(engine: &Engine<'_>, lease: &Lease, survey: Survey) -> (ApplyReport, Values) {
    let plan = survey.plan;
    let executor = Executor {
        engine,
        lease,
        resources: by_address(engine),
        actions: plan
            .actions
            .iter()
            .map(|action| (action.address.clone(), action.clone()))
            .collect(),
        records: survey.records,
        priors: RefCell::new(survey.priors),
        values: RefCell::new(survey.values),
    };
    let report = executor.run(&plan).await;
    (report, executor.values.into_inner())
}

impl Executor<'_, '_> {
    async fn run(&self, plan: &Plan) -> ApplyReport {
        let engine = self.engine;
        let mut steps = Steps::of(plan);
        let mut running = FuturesUnordered::new();
        let mut in_flight: BTreeSet<Step> = BTreeSet::new();
        let mut progress: BTreeMap<Address, Progress> = BTreeMap::new();
        let mut results: BTreeMap<Address, ActionResult> = BTreeMap::new();
        let mut report = ApplyReport::default();
        let mut stopping = false;
        let mut grace: Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(std::future::pending());
        let mut renew: Pin<Box<dyn Future<Output = ()> + '_>> =
            Box::pin(engine.clock.sleep(RENEW_EVERY));
        let cancelled = engine.cancel.cancelled();
        tokio::pin!(cancelled);

        if engine.cancel.is_cancelled() {
            stopping = true;
            report.interrupted = true;
        }
        loop {
            while !stopping && in_flight.len() < engine.parallelism {
                let Some(step) = steps.take_ready() else {
                    break;
                };
                progress.entry(step.address.clone()).or_insert_with(|| {
                    engine.reporter.say(Event::ActionStarted {
                        address: step.address.clone(),
                        action: self.actions[&step.address].action,
                    });
                    Progress {
                        started: engine.clock.monotonic(),
                    }
                });
                in_flight.insert(step.clone());
                running.push(async move {
                    let result = self.step(&step).await;
                    End { step, result }
                });
            }
            if in_flight.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                Some(end) = running.next() => {
                    in_flight.remove(&end.step);
                    report.lost_lock |= self.finish(end, &mut steps, &progress, &mut results);
                    if report.lost_lock {
                        break;
                    }
                }
                () = &mut cancelled, if !stopping => {
                    stopping = true;
                    report.interrupted = true;
                    engine.reporter.note(format!(
                        "Stopping: no new action starts; {} running may take up to {} s more.",
                        in_flight.len(),
                        GRACE.as_secs()
                    ));
                    grace = Box::pin(engine.clock.sleep(GRACE));
                }
                () = &mut grace => break,
                () = &mut renew => {
                    match engine.store.renew(self.lease).await {
                        Ok(()) => {}
                        Err(StoreError::LostLock { .. }) => {
                            report.lost_lock = true;
                            break;
                        }
                        Err(error) => engine.reporter.note(format!(
                            "The lock could not be renewed: {error}. Trying again in {} s.",
                            RENEW_EVERY.as_secs()
                        )),
                    }
                    renew = Box::pin(engine.clock.sleep(RENEW_EVERY));
                }
            }
        }
        drop(running);
        for step in &in_flight {
            self.conclude(
                &step.address,
                Outcome::Error,
                None,
                "the run was stopped while this was going on; the next run looks at what came of it",
                &progress,
                &mut results,
            );
        }
        let why = if report.lost_lock {
            "the run lost its lock"
        } else {
            "the run was stopped"
        };
        for step in steps.abandon(&in_flight) {
            self.conclude(
                &step.address,
                Outcome::Skipped,
                None,
                why,
                &progress,
                &mut results,
            );
        }
        report.actions = plan
            .actions
            .iter()
            .filter_map(|action| results.remove(&action.address))
            .collect();
        report
    }

    /// Books a finished step; answers whether the lock was found lost.
    fn finish(
        &self,
        end: End,
        steps: &mut Steps,
        progress: &BTreeMap<Address, Progress>,
        results: &mut BTreeMap<Address, ActionResult>,
    ) -> bool {
        let address = &end.step.address;
        match end.result {
            Ok(()) => {
                steps.done(&end.step);
                let half = end.step.kind == StepKind::Delete
                    && self.actions[address].action == ActionKind::Replace;
                if !half {
                    self.conclude(address, Outcome::Success, None, "", progress, results);
                }
                false
            }
            Err(failure) => {
                self.conclude(
                    address,
                    failure.outcome,
                    failure.class,
                    &failure.message,
                    progress,
                    results,
                );
                for skipped in steps.failed(&end.step) {
                    let why = format!("it needs `{address}`, which failed");
                    self.conclude(
                        &skipped.address,
                        Outcome::Skipped,
                        None,
                        &why,
                        progress,
                        results,
                    );
                }
                failure.lost_lock
            }
        }
    }

    /// Writes down how an action ended; the first ending of an address stands.
    fn conclude(
        &self,
        address: &Address,
        outcome: Outcome,
        class: Option<ErrorClass>,
        message: &str,
        progress: &BTreeMap<Address, Progress>,
        results: &mut BTreeMap<Address, ActionResult>,
    ) {
        if results.contains_key(address) {
            return;
        }
        let action = &self.actions[address];
        let elapsed = progress.get(address).map_or(Duration::ZERO, |progress| {
            self.engine
                .clock
                .monotonic()
                .saturating_sub(progress.started)
        });
        self.engine.reporter.say(Event::ActionFinished {
            address: address.clone(),
            action: action.action,
            outcome,
            elapsed,
            message: message.to_owned(),
        });
        results.insert(
            address.clone(),
            ActionResult {
                address: address.clone(),
                kind: action.kind.clone(),
                provider: action.provider.clone(),
                action: action.action,
                outcome,
                elapsed,
                message: message.to_owned(),
                class,
            },
        );
    }

    async fn step(&self, step: &Step) -> Result<(), Failure> {
        let action = &self.actions[&step.address];
        let driver = self
            .engine
            .driver(&action.address, &action.provider, &action.kind)
            .map_err(|problem| Failure::plain(problem.message))?;
        match step.kind {
            StepKind::Delete => self.delete(action, driver).await,
            StepKind::Create => self.create(action, driver).await,
            StepKind::Update => self.update(action, driver).await,
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
    ) -> Result<(), Failure> {
        let entry = Entry::Intent {
            operation: operation.id.clone(),
            address: action.address.clone(),
            kind: action.kind.clone(),
            provider: action.provider.as_str().to_owned(),
            action: kind,
            config_hash: config_hash(config),
            at: rfc3339(self.engine.clock.now()),
        };
        self.engine
            .store
            .journal_append(self.lease, &[entry])
            .await
            .map_err(|error| Failure::store(&error))
    }

    async fn outcome(&self, operation: &Operation, outcome: Outcome) -> Result<(), Failure> {
        let entry = Entry::Outcome {
            operation: operation.id.clone(),
            outcome: outcome.word().to_owned(),
        };
        self.engine
            .store
            .journal_append(self.lease, &[entry])
            .await
            .map_err(|error| Failure::store(&error))
    }

    /// The resource as the driver wants it, everything known.
    fn desired(&self, address: &Address) -> Result<Spec, Failure> {
        let resource = self
            .resources
            .get(address)
            .ok_or_else(|| Failure::plain("it is no longer in the config"))?;
        let desired = spec(self.engine, resource, &self.values.borrow())
            .map_err(|problem| Failure::plain(problem.message))?;
        let unknown: Vec<&str> = desired
            .config
            .iter()
            .filter(|(_, value)| !value.is_known())
            .map(|(key, _)| key.as_str())
            .collect();
        if unknown.is_empty() {
            Ok(desired)
        } else {
            Err(Failure::plain(format!(
                "{} is still not known, although everything it waits for is done",
                unknown.join(", ")
            )))
        }
    }

    async fn delete(&self, action: &Action, driver: &dyn Driver) -> Result<(), Failure> {
        let address = &action.address;
        let prior = self
            .priors
            .borrow()
            .get(address)
            .cloned()
            .ok_or_else(|| Failure::plain("nothing is recorded about it"))?;
        let operation = self.operation();
        self.intend(&operation, action, ActionKind::Delete, &PublicMap::new())
            .await?;
        let deleted = self
            .retrying(|| driver.delete(&operation, &prior), async || None)
            .await;
        match deleted {
            Ok(()) => {}
            Err(error) if error.class == ErrorClass::NotFound => {}
            Err(error) => {
                if error.class != ErrorClass::Unknown {
                    self.outcome(&operation, Outcome::DeleteFailed).await?;
                }
                return Err(Failure::driver(&error, Outcome::DeleteFailed));
            }
        }
        self.engine
            .store
            .delete(self.lease, address)
            .await
            .map_err(|error| Failure::store(&error))?;
        self.outcome(&operation, Outcome::Success).await?;
        self.priors.borrow_mut().remove(address);
        self.values.borrow_mut().remove(address);
        Ok(())
    }

    async fn create(&self, action: &Action, driver: &dyn Driver) -> Result<(), Failure> {
        let desired = self.desired(&action.address)?;
        let operation = self.operation();
        self.intend(
            &operation,
            action,
            ActionKind::Create,
            &desired.public_config,
        )
        .await?;
        let by_name = Recorded::by_name(action.address.clone(), action.kind.clone());
        // A create whose answer was lost is never repeated blindly: look first.
        let look = async || match driver.read(&by_name).await {
            Ok(observed) => Some(Ok(observed)),
            Err(error) if error.class == ErrorClass::NotFound => None,
            Err(_) => Some(Err(DriverError::new(
                ErrorClass::Unknown,
                "whether it was made cannot be told: the provider does not answer",
            ))),
        };
        let created = self
            .retrying(|| driver.create(&operation, &desired), look)
            .await;
        match created {
            Ok(observed) => {
                self.record(&operation, driver, &desired, observed, "")
                    .await
            }
            Err(mut error) => {
                if error.class == ErrorClass::AlreadyExists {
                    error.message = format!(
                        "{}; set `adopt_existing: true` on `{}` to take it over, or remove it first",
                        error.message, action.address
                    );
                }
                self.broken(&operation, driver, &desired, error).await
            }
        }
    }

    async fn update(&self, action: &Action, driver: &dyn Driver) -> Result<(), Failure> {
        let address = &action.address;
        let prior = self
            .priors
            .borrow()
            .get(address)
            .cloned()
            .ok_or_else(|| Failure::plain("nothing is recorded about it"))?;
        let desired = self.desired(address)?;
        let diff = driver
            .diff(&prior, &desired)
            .await
            .map_err(|error| Failure::driver(&error, Outcome::Error))?;
        let must = !action.reason.is_empty()
            || self
                .records
                .get(address)
                .is_some_and(|record| record.status == "error");
        if diff.needs_replace || diff.changes.iter().any(|change| change.force_new) {
            return Err(Failure::plain(
                "now that every value is known it must be replaced, which the plan did not say; run the command again to see and approve that",
            ));
        }
        if !must && !diff.needs_update && diff.changes.is_empty() {
            // What it waited for turned out to be what it had: nothing to do.
            self.values
                .borrow_mut()
                .set_final(address, &prior.provider_id, &prior.outputs);
            return Ok(());
        }
        let operation = self.operation();
        self.intend(
            &operation,
            action,
            ActionKind::Update,
            &desired.public_config,
        )
        .await?;
        let updated = self
            .retrying(
                || driver.update(&operation, &prior, &desired),
                async || None,
            )
            .await;
        match updated {
            Ok(observed) => {
                self.record(&operation, driver, &desired, observed, "")
                    .await
            }
            Err(mut error) => {
                // What was there before is still there as far as we know.
                if error.partial.is_none() && error.class != ErrorClass::NotFound {
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
                    return self.broken(&operation, driver, &keeping, error).await;
                }
                self.broken(&operation, driver, &desired, error).await
            }
        }
    }

    /// Books a failed create or update: what exists in spite of it is recorded as tainted; an
    /// outcome nobody knows leaves the intent open for the next run.
    async fn broken(
        &self,
        operation: &Operation,
        driver: &dyn Driver,
        desired: &Spec,
        error: DriverError,
    ) -> Result<(), Failure> {
        let failure = Failure::driver(&error, Outcome::Error);
        if let Some(partial) = error.partial {
            self.record(operation, driver, desired, *partial, &error.message)
                .await?;
        } else if error.class != ErrorClass::Unknown {
            self.outcome(operation, Outcome::Error).await?;
        }
        Err(failure)
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
    ) -> Result<(), Failure> {
        let engine = self.engine;
        let address = &desired.address;
        if observed.provider_id.is_empty() {
            return Err(Failure::plain(
                "the provider answered without an id; nothing was recorded, and the next run looks the resource up by name",
            ));
        }
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
                error: taint,
                prior: self.records.get(address),
            },
            &engine.keyring,
            engine.random.as_ref(),
        );
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
        engine
            .store
            .put(self.lease, &record)
            .await
            .map_err(|error| Failure::store(&error))?;
        let outcome = if taint.is_empty() {
            Outcome::Success
        } else {
            Outcome::Error
        };
        self.outcome(operation, outcome).await?;
        if taint.is_empty() {
            self.values
                .borrow_mut()
                .set_final(address, &recorded.provider_id, &recorded.outputs);
        }
        self.priors.borrow_mut().insert(address.clone(), recorded);
        Ok(())
    }

    /// One effect with its retries. `look` is asked before a repeat whether the effect happened
    /// after all; `None` means it did not.
    async fn retrying<T, C, F>(
        &self,
        call: C,
        look: impl AsyncFn() -> Option<Result<T, DriverError>>,
    ) -> Result<T, DriverError>
    where
        C: Fn() -> F,
        F: Future<Output = Result<T, DriverError>>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let timeout = self.engine.clock.sleep(CALL_TIMEOUT);
            let answer = tokio::select! {
                answer = call() => answer,
                () = timeout => Err(DriverError::new(
                    ErrorClass::Unknown,
                    format!("no answer within {} minutes", CALL_TIMEOUT.as_secs() / 60),
                )),
            };
            let error = match answer {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let again = matches!(
                error.class,
                ErrorClass::Throttled | ErrorClass::Transient | ErrorClass::Unknown
            ) && error.partial.is_none();
            if !again {
                return Err(error);
            }
            if let Some(found) = look().await {
                return found;
            }
            if tries >= TRIES
                || error.class == ErrorClass::Unknown
                || self.engine.cancel.is_cancelled()
            {
                return Err(error);
            }
            let wait = error.retry_after.map_or_else(
                || self.backoff(tries),
                |asked| asked.min(Duration::from_secs(120)),
            );
            self.engine.clock.sleep(wait).await;
        }
    }

    /// Exponential backoff with full jitter.
    fn backoff(&self, tries: u32) -> Duration {
        let most = BACKOFF_FIRST
            .saturating_mul(1 << tries.min(10))
            .min(BACKOFF_LONGEST);
        let mut bytes = [0_u8; 4];
        self.engine.random.fill(&mut bytes);
        most.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
    }
}
