//! The provider: slow, flaky, throttled, dishonest, forgetful. It never decides anything itself;
//! what happens is drawn in [`super::truth`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tidegate::clock::Clock as _;
use tidegate::provider::identity::IdFormat;
use tidegate::provider::{
    Driver, DriverError, DriverResult, ErrorClass, Health, Operation, Provider, config_changes,
};
use tidegate::resource::{Address, Diff, Kind, Observed, Output, Outputs, Private, Recorded, Spec};

use super::defects::Defect;
use super::lock;
use super::time::{Actor, VirtualClock};
use super::truth::{Answer, CANARY, Shared, Wish};

/// The cloud as one run reaches it.
#[derive(Debug)]
pub(super) struct Cloud {
    pub(super) truth: Shared,
    pub(super) clock: Arc<VirtualClock>,
    pub(super) actor: Arc<Actor>,
    pub(super) new_one_first: bool,
    pub(super) uuids: bool,
    pub(super) limit: Option<usize>,
}

/// Nothing more happens to a dead run.
pub(super) async fn never<T>() -> T {
    std::future::pending().await
}

fn observed(name: &str, id: &str) -> Observed {
    Observed {
        provider_id: id.to_owned(),
        outputs: Outputs::from([(
            "url".to_owned(),
            Output::Public(json!(format!("x://{name}/{id}"))),
        )]),
        status: "running".to_owned(),
        private: Private::default(),
    }
}

fn error(class: ErrorClass) -> DriverError {
    // A provider that repeats what it was given, secrets included.
    DriverError::new(class, format!("simulated {} with {CANARY}", class.word()))
}

/// A request under way. Given up, it may still have been sent.
struct Ticket<'a> {
    truth: &'a Shared,
    actor: &'a Actor,
    number: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut truth = lock(self.truth);
        truth.abandoned(self.number);
        // A run that was asked to stop gives its lock back: what it gave up comes now or never.
        let cancelled = &self.actor.cancelled;
        if !self.actor.is_dead() && cancelled.load(std::sync::atomic::Ordering::SeqCst) {
            truth.hurry(self.number);
        }
    }
}

impl Cloud {
    /// One step; a run that is killed here takes no other.
    async fn enter(&self, what: &str) {
        if !self.actor.is_dead() {
            let now = self.clock.monotonic();
            lock(&self.truth).step(&self.actor, now, what);
        }
        if self.actor.is_dead() {
            never::<()>().await;
        }
    }

    async fn step(&self, what: &str) {
        self.enter(what).await;
        // A run that is put to sleep does so here, and not half a call later.
        if lock(&self.actor.asleep_until).is_some() {
            yield_once().await;
        }
    }

    async fn sleep(&self, long: Duration) {
        if !long.is_zero() {
            self.clock.sleep(long).await;
        }
    }

    async fn ask(
        &self,
        verb: &str,
        operation: &Operation,
        address: &Address,
        dependencies: &BTreeSet<Address>,
        wish: Wish,
    ) -> DriverResult<Observed> {
        let name = address.as_str();
        // A run that is paused here has sent its request already: what it is about to do cannot be
        // told from what it does.
        self.enter(&format!("{verb} {name}")).await;
        let operation = if lock(&self.truth).has(Defect::OneOperationForAll) {
            "the-only-operation"
        } else {
            operation.id.as_str()
        };
        let is_delete = matches!(wish, Wish::Delete { .. });
        let is_create = matches!(wish, Wish::Create { .. });
        let (mut course, number) = {
            let now = self.clock.monotonic();
            let mut truth = lock(&self.truth);
            if !truth.has(Defect::OneOperationForAll) {
                truth.arrives(&self.actor, operation, address, dependencies, is_delete);
            }
            if self
                .actor
                .cancelled
                .load(std::sync::atomic::Ordering::SeqCst)
                && truth.has(Defect::DeafToSignals)
            {
                truth.violated(format!("{name}: a change was begun after the wish to stop"));
            }
            let mut course = truth.course(now, is_create);
            if course.answer == Answer::Lie && is_delete {
                course.answer = Answer::Honest;
            }
            if course.answer == Answer::OddId && !self.uuids {
                course.answer = Answer::Honest;
            }
            if course.answer == Answer::Lie {
                course.happens = false;
                truth.lost.insert(address.clone());
                if let Wish::Update { id, .. } = &wish
                    && let Some(object) = truth.objects.get_mut(id)
                {
                    object.lied = true;
                }
            }
            let number = course
                .happens
                .then(|| truth.submit(now + course.before, operation, wish.clone()));
            truth.settle(now);
            (course, number)
        };
        let ticket = number.map(|number| Ticket {
            truth: &self.truth,
            actor: &self.actor,
            number,
        });
        self.sleep(course.before).await;
        let result = {
            let mut truth = lock(&self.truth);
            truth.settle(self.clock.monotonic());
            number.and_then(|number| truth.result(number))
        };
        self.sleep(course.after).await;
        drop(ticket);
        if lock(&self.truth).has(Defect::FailureTakenForSuccess)
            && matches!(
                course.answer,
                Answer::Fail(ErrorClass::Denied | ErrorClass::Invalid)
            )
        {
            course.answer = Answer::Lie;
        }
        if course.answer == Answer::Never {
            never::<()>().await;
        }
        self.step(&format!("{verb} {name} answers")).await;
        if let Some(Err(class)) = result {
            return Err(error(class));
        }
        let id = match (&result, &wish) {
            (Some(Ok(id)), _) => id.clone(),
            (_, Wish::Update { id, .. } | Wish::Delete { id, .. }) => id.clone(),
            (_, Wish::Create { .. }) => lock(&self.truth).dice.uuid(),
        };
        match course.answer {
            Answer::Honest | Answer::Lie | Answer::Never => Ok(observed(name, &id)),
            Answer::Fail(class) => Err(error(class)),
            Answer::Throttle(retry_after) => Err(DriverError {
                retry_after,
                ..error(ErrorClass::Throttled)
            }),
            Answer::Half => Err(error(ErrorClass::Invalid).with_partial(observed(name, &id))),
            Answer::OddId => Ok(observed(name, name)),
            Answer::EmptyId => Ok(observed(name, "")),
            Answer::HalfWithoutId => {
                Err(error(ErrorClass::Invalid).with_partial(observed(name, "")))
            }
        }
    }
}

pub(super) async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[async_trait]
impl Driver for Cloud {
    async fn create(&self, operation: &Operation, desired: &Spec) -> DriverResult<Observed> {
        let wish = Wish::Create {
            name: desired.address.to_string(),
            config: desired.public_config.clone(),
        };
        self.ask(
            "create",
            operation,
            &desired.address,
            &desired.dependencies,
            wish,
        )
        .await
    }

    async fn read(&self, prior: &Recorded) -> DriverResult<Observed> {
        let name = prior.address.as_str();
        self.step(&format!("read {name}")).await;
        let course = lock(&self.truth).reading(self.clock.monotonic());
        self.sleep(course.after).await;
        if course.answer == Answer::Never {
            never::<()>().await;
        }
        if let Answer::Fail(class) = course.answer {
            return Err(error(class));
        }
        let mut truth = lock(&self.truth);
        truth.settle(self.clock.monotonic());
        if prior.provider_id.is_empty() && truth.has(Defect::RepeatsBlindly) {
            return Err(error(ErrorClass::NotFound));
        }
        let found = if prior.provider_id.is_empty() || prior.provider_id == name {
            truth.named(name).map(|(id, _)| id.clone())
        } else {
            truth
                .objects
                .contains_key(&prior.provider_id)
                .then(|| prior.provider_id.clone())
        };
        match found {
            Some(id) => Ok(observed(name, &id)),
            None => Err(error(ErrorClass::NotFound)),
        }
    }

    async fn update(
        &self,
        operation: &Operation,
        prior: &Recorded,
        desired: &Spec,
    ) -> DriverResult<Observed> {
        let wish = Wish::Update {
            id: prior.provider_id.clone(),
            config: desired.public_config.clone(),
        };
        self.ask(
            "update",
            operation,
            &desired.address,
            &desired.dependencies,
            wish,
        )
        .await
    }

    async fn delete(&self, operation: &Operation, prior: &Recorded) -> DriverResult<()> {
        let wish = Wish::Delete {
            name: prior.address.to_string(),
            id: prior.provider_id.clone(),
        };
        self.ask("delete", operation, &prior.address, &BTreeSet::new(), wish)
            .await
            .map(drop)
    }

    async fn diff(&self, prior: &Recorded, desired: &Spec) -> DriverResult<Diff> {
        let mut changes = config_changes(&prior.config, &desired.public_config);
        for change in &mut changes {
            change.force_new = change.path == "region" && !change.old.is_null();
        }
        Ok(Diff {
            needs_update: !changes.is_empty(),
            needs_replace: false,
            changes,
        })
    }

    async fn health(&self, _: &Recorded) -> DriverResult<Health> {
        Err(error(ErrorClass::Unimplemented))
    }
    fn is_sensitive(&self, _: &str) -> Option<bool> {
        Some(false)
    }
    fn check(&self, _: &Spec) -> Vec<(String, String)> {
        Vec::new()
    }
    fn can_create_before_destroy(&self) -> bool {
        self.new_one_first
    }
    fn id_format(&self) -> IdFormat {
        if self.uuids {
            IdFormat::Uuid
        } else {
            IdFormat::Unknown
        }
    }
}

/// A provider that is one such driver.
#[derive(Clone, Debug)]
pub(super) struct Sky(pub(super) Arc<Cloud>);

#[async_trait]
impl Provider for Sky {
    fn name(&self) -> &str {
        "simulated"
    }
    fn version(&self) -> &str {
        "1.0.0"
    }
    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::new("infra.storage")]
    }
    fn driver(&self, _: &Kind) -> Option<&dyn Driver> {
        Some(self.0.as_ref())
    }
    fn is_local(&self) -> bool {
        false
    }
    fn parallelism(&self) -> Option<usize> {
        self.0.limit
    }
    async fn close(&self) {}
}
