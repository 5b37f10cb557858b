//! A small world for the engine: a virtual clock, a store on a disk, and a provider that does what
//! it is told, however odd.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tidegate::apply::survey::{Survey, survey_within};
use tidegate::apply::teardown::{self, Discovered, Target};
use tidegate::apply::values::Values;
use tidegate::apply::{
    ApplyReport, Engine, Providers, deposed, execute, recover, remarks, secrets,
};
use tidegate::cancel::{self, Canceller};
use tidegate::clock::{Clock, rfc3339};
use tidegate::config::{self, Config, Files};
use tidegate::disk::Disk;
use tidegate::provider::ability::{
    Ability, Evidence, FinalizeFailure, Found, Hints, Proposal, ProposedStep, Remark,
    RemarkSeverity, Sizing,
};
use tidegate::provider::identity::IdFormat;
use tidegate::provider::{
    Driver, DriverError, DriverResult, ErrorClass, Health, Operation, Provider, config_changes,
};
use tidegate::random::SeededRandom;
use tidegate::report::{Event, Outcome, Report, Reporter};
use tidegate::resource::{
    ActionKind, Address, Diff, Kind, Observed, Output, Outputs, Private, Recorded, Spec,
};
use tidegate::secret::{Keyring, Masker};
use tidegate::state::journal::Before;
use tidegate::state::lease::Renewal;
use tidegate::state::{
    Entry, Filesystem, Head, Holder, Keepsake, Lease, Record, Store, StoreError, StoreResult,
};
use tidegate::variables::Variables;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::state::disks::MemoryDisk;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// Who waits, by the end of the wait.
type Sleepers = BTreeMap<(Duration, u64), Waker>;

/// Time that passes only when everybody waits.
#[derive(Debug, Default)]
pub(super) struct VirtualClock {
    inner: Mutex<(Duration, u64, Sleepers)>,
}

impl VirtualClock {
    /// The process is stopped for as long as this.
    fn pass(&self, time: Duration) {
        lock(&self.inner).0 += time;
    }

    fn advance(&self) -> bool {
        let mut inner = lock(&self.inner);
        let Some(((at, _), waker)) = inner.2.pop_first() else {
            return false;
        };
        inner.0 = inner.0.max(at);
        drop(inner);
        waker.wake();
        true
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + self.monotonic()
    }
    fn monotonic(&self) -> Duration {
        lock(&self.inner).0
    }
    async fn sleep(&self, duration: Duration) {
        let (end, number) = {
            let mut inner = lock(&self.inner);
            inner.1 += 1;
            (inner.0.saturating_add(duration), inner.1)
        };
        std::future::poll_fn(|context| {
            let mut inner = lock(&self.inner);
            if inner.0 >= end {
                return Poll::Ready(());
            }
            inner.2.insert((end, number), context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Drives a future; time passes when it can do nothing else.
pub(super) fn run<T>(clock: &VirtualClock, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    loop {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return answer;
        }
        while !flag.0.swap(false, Ordering::SeqCst) {
            assert!(clock.advance(), "everybody waits, and nobody for time");
        }
    }
}

/// What the provider does on its next call instead of what it should.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Fails; nothing happens.
    Fail(ErrorClass),
    /// Does it, and says that it failed.
    LoseAnswer(ErrorClass),
    /// Does it, and answers with an error all the same.
    Say(ErrorClass),
    /// Answers with an error; nothing happens.
    Refuse(ErrorClass),
    /// Fails; meanwhile somebody else makes one of that name.
    Appears(&'static str, ErrorClass),
    /// Asks to be left alone.
    SlowDown(Duration),
    /// Takes this long.
    Take(Duration),
    /// Makes it, and answers with this id.
    AnswerId(&'static str),
    /// Makes it, and answers with this id; meanwhile the process is stopped until another run has its lock.
    TakenOver(&'static str),
    /// Makes half of it.
    Half,
    /// Somebody asks the run to stop while it goes on.
    Interrupt,
    /// Does it, and breaks before it answers.
    Break,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    /// (name, id) of everything that is there.
    pub(super) live: BTreeSet<(String, String)>,
    pub(super) calls: Vec<String>,
    /// What the provider was last asked to look at.
    pub(super) proposed: Vec<String>,
    acts: BTreeMap<String, VecDeque<Act>>,
    made: u64,
    pub(super) diffs: usize,
    running: usize,
    pub(super) most_running: usize,
}

/// What a look-up by name is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// It finds what is there, as everybody knows.
    Sure,
    /// It finds what is there, and nobody knows.
    Work,
    /// It finds nothing.
    Unknown,
}

/// The kind it knows at any time.
const FIRST_KIND: &str = "infra.storage";

/// The provider.
#[derive(Clone, Debug)]
pub(super) struct Cloud {
    pub(super) by_name: Names,
    /// The kind of what is declared from now on.
    pub(super) kind: &'static str,
    pub(super) inner: Arc<Mutex<Inner>>,
    clock: Arc<VirtualClock>,
    canceller: Arc<Mutex<Option<Canceller>>>,
    /// Another run took the lock over; no write of ours has noticed yet.
    pub(super) taken_over: Arc<Mutex<bool>>,
    pub(super) can_adopt: bool,
    pub(super) new_one_first: bool,
    pub(super) ids: IdFormat,
    pub(super) limit: Option<usize>,
    pub(super) abilities: BTreeSet<Ability>,
    /// What every call takes.
    pub(super) pace: Duration,
}

impl Cloud {
    /// The next call of this verb on this name does this instead; several are done in order.
    pub(super) fn act(&self, verb: &str, name: &str, act: Act) {
        lock(&self.inner)
            .acts
            .entry(format!("{verb} {name}"))
            .or_default()
            .push_back(act);
    }

    /// The calls that change something, and reads, since the last time.
    pub(super) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.inner).calls)
    }

    pub(super) fn proposed(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.inner).proposed)
    }

    pub(super) fn names(&self) -> Vec<String> {
        lock(&self.inner)
            .live
            .iter()
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(super) fn id_of(&self, name: &str) -> Option<String> {
        lock(&self.inner)
            .live
            .iter()
            .find(|(live, _)| live == name)
            .map(|(_, id)| id.clone())
    }

    /// Something that was there before anybody asked for it.
    pub(super) fn plant(&self, name: &str) {
        self.plant_as(name, &format!("old-{name}"));
    }

    /// The same, with this id.
    pub(super) fn plant_as(&self, name: &str, id: &str) {
        lock(&self.inner)
            .live
            .insert((name.to_owned(), id.to_owned()));
    }

    /// It goes behind everybody's back.
    pub(super) fn forget(&self, id: &str) {
        lock(&self.inner).live.retain(|(_, live)| live != id);
    }

    async fn call(&self, verb: &str, name: &str) -> Option<Act> {
        let act = {
            let mut inner = lock(&self.inner);
            let key = format!("{verb} {name}");
            inner.running += 1;
            inner.most_running = inner.most_running.max(inner.running);
            let act = inner.acts.get_mut(&key).and_then(VecDeque::pop_front);
            inner.calls.push(key);
            act
        };
        let take = match act {
            Some(Act::Take(duration)) => duration,
            _ => self.pace,
        };
        if !take.is_zero() {
            self.clock.sleep(take).await;
        }
        lock(&self.inner).running -= 1;
        if matches!(act, Some(Act::Interrupt))
            && let Some(canceller) = lock(&self.canceller).as_ref()
        {
            canceller.cancel();
        }
        if matches!(act, Some(Act::TakenOver(_))) {
            self.clock.pass(2 * Renewal::DEFAULT.lease);
            *lock(&self.taken_over) = true;
        }
        act
    }

    fn observed(name: &str, id: &str) -> Observed {
        Observed {
            provider_id: id.to_owned(),
            outputs: Outputs::from([
                (
                    "url".to_owned(),
                    Output::Public(json!(format!("x://{name}/{id}"))),
                ),
                ("port".to_owned(), Output::Public(json!(id.len()))),
            ]),
            status: "running".to_owned(),
            private: Private::default(),
        }
    }
}

fn error(class: ErrorClass) -> DriverError {
    DriverError::new(class, format!("scripted {}", class.word()))
}

/// An error in the provider's own words.
fn said(class: ErrorClass) -> DriverError {
    DriverError {
        answered: true,
        ..error(class)
    }
}

/// What an act means for the answer; `Err` before anything is done.
fn before(act: Option<&Act>) -> DriverResult<()> {
    match act {
        Some(Act::Fail(class)) => Err(error(*class)),
        Some(Act::Refuse(class)) => Err(said(*class)),
        Some(Act::SlowDown(wait)) => Err(DriverError {
            retry_after: Some(*wait),
            ..error(ErrorClass::Throttled)
        }),
        _ => Ok(()),
    }
}

#[async_trait]
impl Driver for Cloud {
    async fn create(&self, _: &Operation, desired: &Spec) -> DriverResult<Observed> {
        let name = desired.address.as_str();
        let act = self.call("create", name).await;
        before(act.as_ref())?;
        if let Some(Act::Appears(id, class)) = act {
            self.plant_as(name, id);
            return Err(error(class));
        }
        let mut inner = lock(&self.inner);
        if !self.new_one_first && inner.live.iter().any(|(live, _)| live == name) {
            return Err(error(ErrorClass::AlreadyExists));
        }
        inner.made += 1;
        let id = match act {
            Some(Act::AnswerId(id) | Act::TakenOver(id)) => id.to_owned(),
            _ => format!("{name}-{}", inner.made),
        };
        inner.live.insert((name.to_owned(), id.clone()));
        drop(inner);
        let observed = Self::observed(name, &id);
        match act {
            Some(Act::Break) => panic!("the driver broke"),
            Some(Act::LoseAnswer(class)) => Err(error(class)),
            Some(Act::Say(class)) => Err(said(class)),
            Some(Act::Half) => Err(error(ErrorClass::Invalid).with_partial(observed)),
            _ => Ok(observed),
        }
    }

    async fn read(&self, prior: &Recorded) -> DriverResult<Observed> {
        let name = prior.address.as_str();
        before(self.call("read", name).await.as_ref())?;
        let inner = lock(&self.inner);
        let any = prior.provider_id.is_empty() && self.by_name != Names::Unknown;
        let found = inner
            .live
            .iter()
            .rev()
            .find(|(live, id)| live == name && (any || *id == prior.provider_id));
        match found {
            Some((name, id)) => Ok(Self::observed(name, id)),
            None => Err(error(ErrorClass::NotFound)),
        }
    }

    async fn update(
        &self,
        _: &Operation,
        prior: &Recorded,
        desired: &Spec,
    ) -> DriverResult<Observed> {
        let name = prior.address.as_str();
        let act = self.call("update", name).await;
        before(act.as_ref())?;
        let text = json!(desired.public_config).to_string();
        lock(&self.inner).calls.push(format!("  with {text}"));
        match act {
            Some(Act::LoseAnswer(class)) => Err(error(class)),
            Some(Act::AnswerId(id)) => Ok(Self::observed(name, id)),
            _ => Ok(Self::observed(name, &prior.provider_id)),
        }
    }

    async fn delete(&self, _: &Operation, prior: &Recorded) -> DriverResult<()> {
        let name = prior.address.as_str();
        let act = self.call("delete", name).await;
        before(act.as_ref())?;
        lock(&self.inner)
            .live
            .remove(&(name.to_owned(), prior.provider_id.clone()));
        match act {
            Some(Act::LoseAnswer(class)) => Err(error(class)),
            _ => Ok(()),
        }
    }

    async fn diff(&self, prior: &Recorded, desired: &Spec) -> DriverResult<Diff> {
        let act = {
            let key = format!("diff {}", prior.address);
            let mut inner = lock(&self.inner);
            inner.diffs += 1;
            inner.acts.get_mut(&key).and_then(VecDeque::pop_front)
        };
        before(act.as_ref())?;
        let mut changes = config_changes(&prior.config, &desired.public_config);
        for change in &mut changes {
            change.force_new = change.path == "region";
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
    fn can_adopt(&self, _: &Kind) -> bool {
        self.can_adopt
    }
    fn finds_by_name(&self) -> bool {
        self.by_name == Names::Sure
    }
    fn can_create_before_destroy(&self) -> bool {
        self.new_one_first
    }
    fn id_format(&self) -> IdFormat {
        self.ids
    }
    async fn troubleshoot(&self, prior: &Recorded, failure: &str) -> DriverResult<Vec<Evidence>> {
        Ok(vec![Evidence {
            phase: "deploy".to_owned(),
            cause: format!("because of {} ({failure})", prior.address),
            ..Evidence::default()
        }])
    }
}

#[async_trait]
impl Provider for Cloud {
    fn name(&self) -> &str {
        "scripted"
    }
    fn version(&self) -> &str {
        "1.0.0"
    }
    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::new(self.kind), Kind::new(FIRST_KIND)]
    }
    fn driver(&self, kind: &Kind) -> Option<&dyn Driver> {
        [self.kind, FIRST_KIND]
            .contains(&kind.as_str())
            .then_some(self)
    }
    fn is_local(&self) -> bool {
        false
    }
    async fn close(&self) {}
    fn abilities(&self) -> BTreeSet<Ability> {
        self.abilities.clone()
    }
    fn parallelism(&self) -> Option<usize> {
        self.limit
    }
    async fn enumerate(&self, kind: &Kind) -> DriverResult<Vec<Found>> {
        let mut inner = lock(&self.inner);
        inner.calls.push("enumerate".to_owned());
        let found = |(name, id): &(String, String)| Found {
            name: name.clone(),
            kind: kind.clone(),
            provider_id: id.clone(),
            observed: None,
        };
        Ok(inner.live.iter().map(found).collect())
    }
    async fn sizing(&self, _: &Kind, size: &str, hints: &Hints) -> DriverResult<Sizing> {
        lock(&self.inner).calls.push(format!("size {size}"));
        let mut specs = serde_json::Map::new();
        specs.insert("memory".to_owned(), json!(hints.memory));
        Ok(Sizing {
            instance_type: format!("{size}-type"),
            specs,
        })
    }
    async fn validate(&self, plan: &Proposal) -> DriverResult<Vec<Remark>> {
        let proposed = |step: &ProposedStep| {
            let current = step.current.as_ref();
            let id = current.map_or("nothing", |current| current.provider_id.as_str());
            format!("{} {} of {id}", step.action.word(), step.desired.address)
        };
        lock(&self.inner).proposed = plan.steps.iter().map(proposed).collect();
        Ok(plan
            .steps
            .iter()
            .filter_map(|step| {
                let spec = &step.desired;
                let severity = match spec.public_config.get("remark").and_then(Value::as_str)? {
                    "error" => RemarkSeverity::Error,
                    _ => RemarkSeverity::Warning,
                };
                Some(Remark {
                    severity,
                    resource: Some(spec.address.to_string()),
                    field: None,
                    message: "not wise".to_owned(),
                })
            })
            .collect())
    }
    async fn finalize(&self, plan: &str) -> DriverResult<Vec<FinalizeFailure>> {
        let key = format!("finalize {plan}");
        let mut inner = lock(&self.inner);
        let act = inner.acts.get_mut(&key).and_then(VecDeque::pop_front);
        inner.calls.push(key);
        Ok(act
            .into_iter()
            .map(|act| FinalizeFailure {
                resource: "db".to_owned(),
                action: "replication".to_owned(),
                error: format!("{act:?}"),
            })
            .collect())
    }
}

/// A store that counts journal writes and can refuse a record.
#[derive(Debug)]
pub(super) struct Watched {
    store: Filesystem,
    pub(super) journal_writes: Mutex<Vec<usize>>,
    pub(super) refuse: Mutex<Option<String>>,
    /// As in the cloud.
    taken_over: Arc<Mutex<bool>>,
    /// Renewals that are still answered; no limit when `None`.
    pub(super) renewals: Mutex<Option<u32>>,
    pub(super) faults: Arc<Faults>,
    /// Records with an output `url` are too large.
    pub(super) takes_no_urls: Mutex<bool>,
}

/// Where one operation of a run goes wrong, counted over everything that asks.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Fault>);

#[derive(Debug, Default)]
struct Fault {
    at: Option<usize>,
    /// Done all the same; only the answer is lost.
    after: bool,
    /// Nothing works any more afterwards: the run is dead.
    dies: bool,
    asked: usize,
    dead: bool,
}

impl Faults {
    pub(super) fn set(&self, at: Option<usize>, after: bool, dies: bool) {
        *lock(&self.0) = Fault {
            at,
            after,
            dies,
            ..Fault::default()
        };
    }

    /// True when the fault was reached.
    pub(super) fn was_hit(&self) -> bool {
        let fault = lock(&self.0);
        fault.at.is_some_and(|at| fault.asked > at)
    }

    /// Does it, or not, and answers whether that can be told.
    pub(super) fn wrap<T, E>(
        &self,
        broken: impl FnOnce() -> E,
        effect: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        match self.before() {
            None => effect(),
            Some(false) => Err(broken()),
            Some(true) => effect().and_then(|_| Err(broken())),
        }
    }

    /// Nothing, or whether the effect happens before the answer is lost.
    fn before(&self) -> Option<bool> {
        let mut fault = lock(&self.0);
        if fault.dead {
            return Some(false);
        }
        fault.asked += 1;
        if fault.at.is_none_or(|at| at + 1 != fault.asked) {
            return None;
        }
        fault.dead = fault.dies;
        Some(fault.after)
    }
}

fn storage_broke() -> StoreError {
    StoreError::Storage("the disk went away".to_owned())
}

#[async_trait]
impl Store for Watched {
    fn location(&self) -> String {
        self.store.location()
    }
    fn environment(&self) -> &str {
        self.store.environment()
    }
    async fn head(&self) -> StoreResult<Option<Head>> {
        self.store.head().await
    }
    async fn list(&self) -> StoreResult<Vec<Record>> {
        self.store.list().await
    }
    async fn get(&self, address: &Address) -> StoreResult<Option<Record>> {
        self.store.get(address).await
    }
    async fn put(&self, lease: &Lease, record: &Record) -> StoreResult<u64> {
        if lock(&self.refuse).as_deref() == Some(record.resource_id.as_str()) {
            return Err(StoreError::Storage("no space left on device".to_owned()));
        }
        if *lock(&self.takes_no_urls) && record.outputs.contains_key("url") {
            return Err(StoreError::TooLarge("4 MiB at most".to_owned()));
        }
        self.store.put(lease, record).await
    }
    async fn delete(&self, lease: &Lease, address: &Address) -> StoreResult<u64> {
        self.store.delete(lease, address).await
    }
    async fn lock(&self, holder: &Holder, wait: Duration) -> StoreResult<Lease> {
        self.store.lock(holder, wait).await
    }
    async fn environments(&self) -> StoreResult<Vec<String>> {
        self.store.environments().await
    }
    fn beside(&self, environment: &str) -> StoreResult<Option<Box<dyn Store>>> {
        self.store.beside(environment)
    }
    async fn renew(&self, lease: &Lease) -> StoreResult<()> {
        if *lock(&self.taken_over) {
            return Err(StoreError::LostLock {
                environment: self.store.environment().to_owned(),
                ours: lease.fence,
                current: lease.fence + 1,
            });
        }
        let is_silent = match lock(&self.renewals).as_mut() {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        };
        if is_silent {
            std::future::pending::<()>().await;
        }
        self.store.renew(lease).await
    }
    async fn unlock(&self, lease: &Lease) -> StoreResult<()> {
        self.store.unlock(lease).await
    }
    async fn holder(&self) -> StoreResult<Option<(Holder, Duration)>> {
        self.store.holder().await
    }
    async fn journal_append(&self, lease: &Lease, entries: &[Entry]) -> StoreResult<()> {
        lock(&self.journal_writes).push(entries.len());
        self.store.journal_append(lease, entries).await
    }
    async fn journal_read(&self) -> StoreResult<Vec<Entry>> {
        self.store.journal_read().await
    }
    async fn journal_clear(&self, lease: &Lease) -> StoreResult<()> {
        self.store.journal_clear(lease).await
    }
    async fn keepsake(&self, key: &str) -> StoreResult<Option<Keepsake>> {
        self.store.keepsake(key).await
    }
    async fn put_keepsake(&self, lease: &Lease, key: &str, value: &Keepsake) -> StoreResult<()> {
        match self.faults.before() {
            None => self.store.put_keepsake(lease, key, value).await,
            Some(false) => Err(storage_broke()),
            Some(true) => {
                self.store.put_keepsake(lease, key, value).await?;
                Err(storage_broke())
            }
        }
    }
    async fn keepsakes(&self) -> StoreResult<Vec<String>> {
        self.store.keepsakes().await
    }
    async fn delete_keepsake(&self, lease: &Lease, key: &str) -> StoreResult<()> {
        match self.faults.before() {
            None => self.store.delete_keepsake(lease, key).await,
            Some(false) => Err(storage_broke()),
            Some(true) => {
                self.store.delete_keepsake(lease, key).await?;
                Err(storage_broke())
            }
        }
    }
    async fn key(&self, create: bool) -> StoreResult<Option<Zeroizing<[u8; 32]>>> {
        self.store.key(create).await
    }
    async fn remove_empty(&self, lease: Lease) -> StoreResult<()> {
        self.store.remove_empty(lease).await
    }
}

/// Hears everything.
#[derive(Debug, Default)]
pub(super) struct Ear(pub(super) Mutex<Vec<Event>>, pub(super) AtomicBool);

impl Reporter for Ear {
    fn say(&self, event: Event) {
        assert!(!self.1.load(Ordering::SeqCst), "the watcher broke");
        lock(&self.0).push(event);
    }
}

pub(super) struct World {
    pub(super) cloud: Cloud,
    pub(super) store: Arc<Watched>,
    pub(super) clock: Arc<VirtualClock>,
    pub(super) ear: Ear,
    pub(super) parallelism: usize,
    pub(super) call_timeout: Duration,
    config: String,
    random: Arc<SeededRandom>,
}

impl World {
    /// A world with these modules, `(name, config, further keys)`; all belong to `cloud`.
    pub(super) fn new(modules: &[(&str, &str)]) -> Self {
        // Not the machine's disk: its locks are seen, for a moment, by whatever other tests fork,
        // and waiting for them would take time of the virtual clock.
        Self::on(Arc::new(MemoryDisk::default()), modules)
    }

    /// The same with its state on another disk.
    pub(super) fn on(disk: Arc<dyn Disk>, modules: &[(&str, &str)]) -> Self {
        let clock = Arc::new(VirtualClock::default());
        let random = Arc::new(SeededRandom::new(1));
        let taken_over = Arc::new(Mutex::default());
        let store = Filesystem::open(
            PathBuf::from("/state"),
            "default",
            disk,
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::clone(&random) as _,
        )
        .unwrap();
        let mut world = Self {
            cloud: Cloud {
                inner: Arc::default(),
                clock: Arc::clone(&clock),
                canceller: Arc::default(),
                taken_over: Arc::clone(&taken_over),
                can_adopt: true,
                by_name: Names::Sure,
                kind: FIRST_KIND,
                new_one_first: false,
                ids: IdFormat::Unknown,
                limit: None,
                abilities: BTreeSet::new(),
                pace: Duration::ZERO,
            },
            store: Arc::new(Watched {
                store,
                journal_writes: Mutex::default(),
                refuse: Mutex::default(),
                taken_over,
                renewals: Mutex::default(),
                takes_no_urls: Mutex::default(),
                faults: Arc::default(),
            }),
            clock,
            ear: Ear::default(),
            parallelism: 10,
            call_timeout: execute::CALL_TIMEOUT,
            config: String::new(),
            random,
        };
        world.declare(modules);
        world
    }

    /// Other modules from now on.
    pub(super) fn declare(&mut self, modules: &[(&str, &str)]) {
        let kind = self.cloud.kind;
        let mut text = "modules:\n  - {name: cloud, type: iac.provider, config: {provider: local}}\n  - {name: other, type: iac.provider, config: {provider: local}}\n".to_owned();
        for (name, config) in modules {
            let provider = if config.contains("provider:") {
                ""
            } else {
                "provider: cloud, "
            };
            text.push_str(&format!(
                "  - {{name: {name}, type: {kind}, config: {{{provider}{config}}}}}\n"
            ));
        }
        self.config = text;
    }

    /// A provider module that nobody uses goes.
    pub(super) fn drop_provider(&mut self, name: &str) {
        let is_it = format!("- {{name: {name}, type: iac.provider");
        self.config = self
            .config
            .lines()
            .filter(|line| !line.contains(&is_it))
            .map(|line| format!("{line}\n"))
            .collect();
    }

    /// A provider module gets another name, and whoever used it uses that.
    pub(super) fn rename_provider(&mut self, old: &str, new: &str) {
        self.config = self
            .config
            .replace(&format!("name: {old},"), &format!("name: {new},"))
            .replace(&format!("provider: {old},"), &format!("provider: {new},"));
    }

    fn load(&self) -> Config {
        load(&self.config)
    }

    /// One run: lock, settle, plan, look at the plan, apply.
    pub(super) fn try_apply(
        &self,
        look: impl FnOnce(&Survey),
    ) -> Result<(ApplyReport, Vec<String>), Vec<Report>> {
        let (report, findings, _) = self.try_whole(look)?;
        Ok((report, findings))
    }

    /// The same, and what providers could not finish after it.
    pub(super) fn try_whole(
        &self,
        look: impl FnOnce(&Survey),
    ) -> Result<(ApplyReport, Vec<String>, Vec<Report>), Vec<Report>> {
        self.with_engine(async |engine, lease| {
            let settled = recover::recover(engine, lease)
                .await
                .map_err(|problem| vec![problem])?;
            let mut findings: Vec<String> = settled
                .into_iter()
                .map(|settled| format!("{}: {}", settled.address, settled.finding))
                .collect();
            let values = Values::new(BTreeMap::new(), engine.masker.clone());
            let survey = survey_within(engine, values, &[]).await?;
            look(&survey);
            secrets::reseal(engine, lease, &survey)
                .await
                .map_err(|problem| vec![problem])?;
            let scope = survey.scope.clone();
            let (report, _) = execute::execute(engine, lease, survey).await;
            let old = deposed::finish(engine, lease, &scope, &report)
                .await
                .map_err(|problem| vec![problem])?;
            let gone = old.gone.iter();
            findings.extend(gone.map(|(address, id)| format!("{address}: the old `{id}` is gone")));
            let mut unfinished = remarks::finalize(engine, "this", &report).await;
            unfinished.extend(old.problems);
            Ok((report, findings, unfinished))
        })
    }

    /// Another environment has this on record.
    pub(super) fn elsewhere(&self, environment: &str, name: &str, id: &str) {
        let world = Self::new(&[(name, "")]);
        assert!(all_well(&world.apply()));
        let mut record = world.records()[name].clone();
        id.clone_into(&mut record.provider_id);
        self.cloud.kind.clone_into(&mut record.resource_type);
        environment.clone_into(&mut record.tidegate.environment);
        let store = self.store.store.beside(environment).unwrap().unwrap();
        run(&self.clock, async {
            let lease = store.lock(&holder("other"), Duration::ZERO).await.unwrap();
            store.put(&lease, &record).await.unwrap();
            store.unlock(&lease).await.unwrap();
        });
    }

    /// In another environment this waits to be deleted, because something stands on it still.
    pub(super) fn waits_elsewhere(&self, environment: &str, name: &str, id: &str) {
        let mut record = self.records()[name].clone();
        id.clone_into(&mut record.provider_id);
        let operation = Operation {
            id: "theirs".to_owned(),
            environment: environment.to_owned(),
        };
        let store = self.store.store.beside(environment).unwrap().unwrap();
        self.with_engine_on(Arc::from(store), async |engine, lease| {
            let remembered = deposed::remember(engine, lease, &record, &operation).await;
            remembered.unwrap();
        });
    }

    /// A run of another environment is making something of this name.
    pub(super) fn begun_elsewhere(&self, environment: &str, name: &str) {
        let store = self.store.store.beside(environment).unwrap().unwrap();
        let intent = self.intent(ActionKind::Create, name);
        run(&self.clock, async {
            let lease = store.lock(&holder("other"), Duration::ZERO).await.unwrap();
            store.journal_append(&lease, &[intent]).await.unwrap();
        });
    }

    /// What a teardown finds, as the ids it would delete; a sentence for what it would not.
    pub(super) fn torn_down(&self) -> Vec<String> {
        self.discovered()
            .into_iter()
            .map(|one| match one {
                Discovered::There(target) => target.prior.provider_id,
                Discovered::Missing { .. } => "nothing".to_owned(),
                Discovered::Failed { message, .. } => message,
            })
            .collect()
    }

    /// Removes everything that a teardown finds.
    pub(super) fn tear_down(&self) -> Vec<Outcome> {
        let found = self.discovered();
        let targets: Vec<Target> = found
            .into_iter()
            .filter_map(|one| match one {
                Discovered::There(target) => Some(*target),
                Discovered::Missing { .. } | Discovered::Failed { .. } => None,
            })
            .collect();
        self.with_engine(async |engine, lease| {
            let plan = teardown::plan_of("default", &targets).unwrap();
            let removed = teardown::remove(engine, Some(lease), &plan, &targets).await;
            removed.removals.iter().map(|one| one.outcome).collect()
        })
    }

    pub(super) fn discovered(&self) -> Vec<Discovered> {
        self.with_engine(async |engine, _| {
            let records = engine.store.list().await.unwrap();
            let records = records
                .into_iter()
                .map(|record| (record.resource_id.clone(), record))
                .collect();
            teardown::discover(engine, &records).await
        })
    }

    /// Does something with everything open and locked.
    fn with_engine<T>(&self, work: impl AsyncFnOnce(&Engine<'_>, &Lease) -> T) -> T {
        self.with_engine_on(Arc::clone(&self.store) as _, work)
    }

    fn with_engine_on<T>(
        &self,
        store: Arc<dyn Store>,
        work: impl AsyncFnOnce(&Engine<'_>, &Lease) -> T,
    ) -> T {
        let config = self.load();
        let providers: Providers = config
            .providers
            .keys()
            .map(|id| {
                let provider: Arc<dyn Provider> = Arc::new(self.cloud.clone());
                (id.clone(), provider)
            })
            .collect();
        let (canceller, cancel) = cancel::pair();
        *lock(&self.cloud.canceller) = Some(canceller);
        run(&self.clock, async {
            let lease = store.lock(&holder("run"), Duration::ZERO).await.unwrap();
            let key = store.key(true).await.unwrap().unwrap();
            let engine = Engine {
                config: &config,
                store: Arc::clone(&store),
                providers: &providers,
                keyring: Keyring::new(&key),
                masker: Masker::default(),
                clock: Arc::clone(&self.clock) as _,
                random: Arc::clone(&self.random) as _,
                reporter: &self.ear,
                cancel,
                parallelism: self.parallelism,
                call_timeout: self.call_timeout,
            };
            let answer = work(&engine, &lease).await;
            store.unlock(&lease).await.unwrap();
            answer
        })
    }

    pub(super) fn apply(&self) -> ApplyReport {
        self.try_apply(|_| ()).unwrap().0
    }

    /// A run dies right after it asked for this.
    pub(super) fn die_in(&self, action: ActionKind, name: &str) {
        self.note(self.intent(action, name));
    }

    fn intent(&self, action: ActionKind, name: &str) -> Entry {
        Entry::Intent {
            operation: "dead".to_owned(),
            address: Address::new(name),
            kind: Kind::new(self.cloud.kind),
            provider: "cloud".to_owned(),
            action,
            config_hash: String::new(),
            at: rfc3339(self.clock.now()),
            before: Before::default(),
        }
    }

    /// The last run came to its end, and said what it does not know.
    pub(super) fn end_told(&self) {
        self.note(Entry::End {
            run_id: "run".to_owned(),
        });
    }

    /// A run dies right after it remembered what it was to replace.
    pub(super) fn remember_old(&self, name: &str) {
        let record = self.records()[name].clone();
        let operation = Operation {
            id: "dead".to_owned(),
            environment: "default".to_owned(),
        };
        self.with_engine(async |engine, lease| {
            let remembered = deposed::remember(engine, lease, &record, &operation).await;
            remembered.unwrap();
        });
    }

    /// `state rm`.
    pub(super) fn disown(&self, name: &str) {
        let record = self.records()[name].clone();
        self.with_engine(async |engine, lease| {
            let room = deposed::Sealed {
                store: engine.store.as_ref(),
                keyring: &engine.keyring,
                random: engine.random.as_ref(),
                now: String::new(),
            };
            deposed::disown(&room, lease, &record).await.unwrap();
        });
        self.forget_record(name);
    }

    /// A record is lost.
    pub(super) fn forget_record(&self, name: &str) {
        self.with_engine(async |engine, lease| {
            let name = Address::new(name);
            engine.store.delete(lease, &name).await.unwrap();
        });
    }

    fn note(&self, entry: Entry) {
        self.with_engine(async |engine, lease| {
            engine.store.journal_append(lease, &[entry]).await.unwrap();
        });
    }

    pub(super) fn records(&self) -> BTreeMap<String, Record> {
        run(&self.clock, self.store.list())
            .unwrap()
            .into_iter()
            .map(|record| (record.resource_id.to_string(), record))
            .collect()
    }
}

/// `name outcome` of every action, in order.
pub(super) fn endings(report: &ApplyReport) -> Vec<String> {
    report
        .actions
        .iter()
        .map(|action| format!("{} {}", action.address, action.outcome.word()))
        .collect()
}

/// True when every action succeeded.
pub(super) fn all_well(report: &ApplyReport) -> bool {
    report
        .actions
        .iter()
        .all(|action| action.outcome == Outcome::Success)
}

/// The one file of a project, read as the command line reads it.
pub(super) fn load(text: &str) -> Config {
    let read = |_: &Path| Ok(text.as_bytes().to_vec());
    let canonical = |path: &Path| Ok(path.to_path_buf());
    config::load(
        Path::new("infra.yaml"),
        None,
        Files {
            read: &read,
            canonical: &canonical,
        },
        &Variables::default(),
        &Masker::default(),
    )
    .unwrap()
    .config
}

fn holder(run_id: &str) -> Holder {
    Holder {
        run_id: run_id.to_owned(),
        who: "test@here".to_owned(),
        process_id: 1,
        command: "test".to_owned(),
        run_url: None,
        job: String::new(),
        since: String::new(),
        mark: String::new(),
    }
}
