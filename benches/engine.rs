//! Figures of the whole engine against an in-process provider, on the clock of the wall.
//!
//! ```sh
//! cargo bench --bench engine -- plan 10000       # a plan with nothing to do, and its memory
//! cargo bench --bench engine -- apply            # how close to the ideal independent actions come
//! cargo bench --bench engine -- overhead 1000    # what one action costs beside its call
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark stops at the first surprise, and says what it saw"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::json;
use tempfile::TempDir;
use tidegate::apply::survey::{Survey, survey};
use tidegate::apply::values::Values;
use tidegate::apply::{Engine, Providers, execute};
use tidegate::cancel;
use tidegate::clock::{Clock, SystemClock};
use tidegate::config::{Config, ProviderDeclaration, Resource, SizeHints};
use tidegate::disk::SystemDisk;
use tidegate::provider::{
    Driver, DriverError, DriverResult, ErrorClass, Health, Operation, Provider, config_changes,
};
use tidegate::random::{Random, SeededRandom};
use tidegate::report::{Event, Reporter, Span};
use tidegate::resource::{
    Address, Diff, Kind, Observed, Output, Outputs, Part, Private, ProviderId, Recorded, Reference,
    Spec, Template, Value,
};
use tidegate::secret::{Keyring, Masker};
use tidegate::state::{Entry, Filesystem, Head, Holder, Keepsake, Lease, Memory, Record, Store};
use tidegate::state::{StoreResult, memory};
use zeroize::Zeroizing;

/// A provider that takes its time, and nothing else.
#[derive(Debug)]
struct Cloud {
    pace: Duration,
}

#[async_trait]
impl Driver for Cloud {
    async fn create(&self, _: &Operation, desired: &Spec) -> DriverResult<Observed> {
        if !self.pace.is_zero() {
            // The timers of the runtime come up to two milliseconds late, which is not the engine's doing.
            let pace = self.pace;
            let slept = tokio::task::spawn_blocking(move || std::thread::sleep(pace));
            slept.await.unwrap();
        }
        Ok(Observed {
            provider_id: format!("id-{}", desired.address),
            outputs: Outputs::from([
                (
                    "url".to_owned(),
                    Output::Public(json!(format!("x://{}", desired.address))),
                ),
                ("port".to_owned(), Output::Public(json!(5432))),
            ]),
            status: "running".to_owned(),
            private: Private::default(),
        })
    }
    async fn read(&self, _: &Recorded) -> DriverResult<Observed> {
        Err(DriverError::new(ErrorClass::NotFound, "it is not there"))
    }
    async fn update(&self, _: &Operation, _: &Recorded, _: &Spec) -> DriverResult<Observed> {
        Err(DriverError::new(ErrorClass::Invalid, "nothing is updated"))
    }
    async fn delete(&self, _: &Operation, _: &Recorded) -> DriverResult<()> {
        Ok(())
    }
    async fn diff(&self, prior: &Recorded, desired: &Spec) -> DriverResult<Diff> {
        let changes = config_changes(&prior.config, &desired.public_config);
        Ok(Diff {
            needs_update: !changes.is_empty(),
            needs_replace: false,
            changes,
        })
    }
    async fn health(&self, _: &Recorded) -> DriverResult<Health> {
        Err(DriverError::new(ErrorClass::Unimplemented, "nobody asks"))
    }
    fn is_sensitive(&self, _: &str) -> Option<bool> {
        Some(false)
    }
    fn check(&self, _: &Spec) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// The provider as the engine opens it.
#[derive(Debug)]
struct Sky(Cloud);

#[async_trait]
impl Provider for Sky {
    fn name(&self) -> &str {
        "bench"
    }
    fn version(&self) -> &str {
        "1.0.0"
    }
    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::new("infra.storage")]
    }
    fn driver(&self, _: &Kind) -> Option<&dyn Driver> {
        Some(&self.0)
    }
    fn is_local(&self) -> bool {
        true
    }
    async fn close(&self) {}
}

/// A store whose records are in hand: what is measured is the engine, not the reading of files.
#[derive(Debug)]
struct InHand {
    rest: Memory,
    records: std::sync::Mutex<Vec<Record>>,
}

#[async_trait]
impl Store for InHand {
    fn location(&self) -> String {
        self.rest.location()
    }
    fn environment(&self) -> &str {
        self.rest.environment()
    }
    async fn head(&self) -> StoreResult<Option<Head>> {
        self.rest.head().await
    }
    async fn list(&self) -> StoreResult<Vec<Record>> {
        Ok(std::mem::take(&mut *self.records.lock().unwrap()))
    }
    async fn get(&self, address: &Address) -> StoreResult<Option<Record>> {
        self.rest.get(address).await
    }
    async fn put(&self, lease: &Lease, record: &Record) -> StoreResult<u64> {
        self.rest.put(lease, record).await
    }
    async fn delete(&self, lease: &Lease, address: &Address) -> StoreResult<u64> {
        self.rest.delete(lease, address).await
    }
    async fn lock(&self, holder: &Holder, wait: Duration) -> StoreResult<Lease> {
        self.rest.lock(holder, wait).await
    }
    async fn renew(&self, lease: &Lease) -> StoreResult<()> {
        self.rest.renew(lease).await
    }
    async fn unlock(&self, lease: &Lease) -> StoreResult<()> {
        self.rest.unlock(lease).await
    }
    async fn holder(&self) -> StoreResult<Option<(Holder, Duration)>> {
        self.rest.holder().await
    }
    async fn journal_append(&self, lease: &Lease, entries: &[Entry]) -> StoreResult<()> {
        self.rest.journal_append(lease, entries).await
    }
    async fn journal_read(&self) -> StoreResult<Vec<Entry>> {
        self.rest.journal_read().await
    }
    async fn journal_clear(&self, lease: &Lease) -> StoreResult<()> {
        self.rest.journal_clear(lease).await
    }
    async fn keepsake(&self, key: &str) -> StoreResult<Option<Keepsake>> {
        self.rest.keepsake(key).await
    }
    async fn put_keepsake(&self, lease: &Lease, key: &str, value: &Keepsake) -> StoreResult<()> {
        self.rest.put_keepsake(lease, key, value).await
    }
    async fn keepsakes(&self) -> StoreResult<Vec<String>> {
        self.rest.keepsakes().await
    }
    async fn delete_keepsake(&self, lease: &Lease, key: &str) -> StoreResult<()> {
        self.rest.delete_keepsake(lease, key).await
    }
    async fn key(&self, create: bool) -> StoreResult<Option<Zeroizing<[u8; 32]>>> {
        self.rest.key(create).await
    }
    async fn remove_empty(&self, lease: Lease) -> StoreResult<()> {
        self.rest.remove_empty(lease).await
    }
}

#[derive(Debug)]
struct Deaf;

impl Reporter for Deaf {
    fn say(&self, _: Event) {}
}

fn name(n: u32) -> Address {
    // Scattered, as names in a config are.
    Address::new(format!("resource-{:08x}", n.wrapping_mul(2_654_435_761)))
}

/// `size` resources of six settings each; with `edges` each refers to one and waits for another.
fn config(size: u32, edges: bool) -> Config {
    let at = Span {
        path: PathBuf::from("infra.yaml"),
        line: 1,
        column: 1,
        width: 1,
        excerpt: String::new(),
    };
    let resources = (0..size)
        .map(|n| {
            let mut config = BTreeMap::from([
                ("region".to_owned(), Value::String("fra1".to_owned())),
                ("image".to_owned(), Value::String(format!("app:{n}"))),
                ("replicas".to_owned(), Value::Number((n % 7).into())),
                ("public".to_owned(), Value::Bool(n % 2 == 0)),
                (
                    "tags".to_owned(),
                    Value::List(vec![Value::String("a".into()), Value::String("b".into())]),
                ),
            ]);
            let mut depends_on = BTreeSet::new();
            if edges && n >= 10 {
                let parts = vec![Part::Reference(Reference {
                    address: name(n - 10),
                    field: "url".to_owned(),
                })];
                let secret = false;
                config.insert(
                    "parent".to_owned(),
                    Value::Template(Template { parts, secret }),
                );
                depends_on.insert(name(n / 2));
            }
            Resource {
                base_name: name(n).to_string(),
                address: name(n),
                kind: Kind::new("infra.storage"),
                provider: ProviderId::new("cloud"),
                config,
                depends_on,
                protected: false,
                adopt_existing: false,
                size: None,
                hints: SizeHints::default(),
                create_before_destroy: false,
                outputs: BTreeMap::new(),
                at: at.clone(),
            }
        })
        .collect();
    let declared = ProviderDeclaration {
        provider: "bench".to_owned(),
        config: BTreeMap::new(),
        at,
    };
    Config {
        path: PathBuf::from("infra.yaml"),
        directory: PathBuf::from("."),
        environment: "dev".to_owned(),
        resources,
        providers: BTreeMap::from([(ProviderId::new("cloud"), declared)]),
        state: None,
        generate: Vec::new(),
        credentials: Vec::new(),
        entries: Vec::new(),
        secret_stores: BTreeMap::new(),
        gates: Vec::new(),
        digest: String::new(),
        variables: BTreeSet::new(),
        environments: Vec::new(),
        unknown_environment: None,
    }
}

/// Everything a run needs but its store.
struct Bench {
    config: Config,
    providers: Providers,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    _canceller: cancel::Canceller,
    cancel: cancel::Cancel,
}

impl Bench {
    fn new(size: u32, edges: bool, pace: Duration) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let cloud: Arc<dyn Provider> = Arc::new(Sky(Cloud { pace }));
        let (canceller, cancel) = cancel::pair();
        Self {
            config: config(size, edges),
            providers: Providers::from([(ProviderId::new("cloud"), cloud)]),
            clock,
            random: Arc::new(SeededRandom::new(1)),
            _canceller: canceller,
            cancel,
        }
    }

    fn memory(&self) -> Memory {
        Memory::open(
            memory::Shared::default(),
            "dev",
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )
        .unwrap()
    }

    async fn lock(store: &dyn Store) -> Lease {
        let holder = Holder {
            run_id: "20260101000000-0123456789abcdef".to_owned(),
            who: "bench@here".to_owned(),
            process_id: 1,
            command: "bench".to_owned(),
            run_url: None,
            job: String::new(),
            since: String::new(),
            mark: String::new(),
        };
        store.lock(&holder, Duration::ZERO).await.unwrap()
    }

    async fn engine(&self, store: &Arc<dyn Store>, parallelism: usize) -> Engine<'_> {
        let key = store.key(true).await.unwrap().unwrap();
        Engine {
            config: &self.config,
            store: Arc::clone(store),
            providers: &self.providers,
            keyring: Keyring::new(&key),
            masker: Masker::default(),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            reporter: &Deaf,
            cancel: self.cancel.clone(),
            parallelism,
            call_timeout: execute::CALL_TIMEOUT,
        }
    }
}

async fn look(engine: &Engine<'_>) -> Survey {
    let values = Values::new(BTreeMap::new(), engine.masker.clone());
    survey(engine, values).await.unwrap()
}

/// A count of memory of this process in MB, as Linux keeps it.
fn memory_mb(count: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(count));
    let digits: String = line
        .unwrap_or_default()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse::<f64>().unwrap_or(0.0) / 1024.0
}

/// A plan with nothing to do, in a process that has done nothing else: what made the records leaves
/// its traces in memory.
async fn plan(size: u32) {
    let bench = Bench::new(size, true, Duration::ZERO);
    let store: Arc<dyn Store> = Arc::new(bench.memory());
    let lease = Bench::lock(store.as_ref()).await;
    let engine = bench.engine(&store, 10).await;
    let found = look(&engine).await;
    let (report, _) = execute::execute(&engine, &lease, found).await;
    assert!(report.is_success());
    let mut file = Vec::new();
    for record in store.list().await.unwrap() {
        let bytes = record.encode().unwrap();
        file.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        file.extend(bytes);
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("records");
    std::fs::write(&path, file).unwrap();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["plan-of", &size.to_string()])
        .arg(&path)
        .status();
    assert!(status.unwrap().success());
}

/// The records in a file of [`plan`].
fn read_records(path: &str) -> Vec<Record> {
    let file = std::fs::read(path).unwrap();
    let mut records = Vec::new();
    let mut rest = file.as_slice();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
        let (bytes, after) = after.split_at(length);
        records.push(Record::decode(bytes, "a record").unwrap());
        rest = after;
    }
    records
}

async fn plan_of(size: u32, path: &str) {
    let bench = Bench::new(size, true, Duration::ZERO);
    let before_records = memory_mb("VmRSS:");
    let in_hand = Arc::new(InHand {
        rest: bench.memory(),
        records: std::sync::Mutex::new(read_records(path)),
    });
    let before_plan = memory_mb("VmRSS:");
    let store: Arc<dyn Store> = Arc::clone(&in_hand) as _;
    Bench::lock(store.as_ref()).await;
    let engine = bench.engine(&store, 10).await;
    let mut best = Duration::MAX;
    let mut first = None;
    for _ in 0..7 {
        let started = Instant::now();
        let found = look(&engine).await;
        let took = started.elapsed();
        best = best.min(took);
        first.get_or_insert((took, memory_mb("VmHWM:")));
        assert!(found.plan.is_empty());
        assert_eq!(found.plan.actions.len(), usize::try_from(size).unwrap());
        let Survey {
            records, values, ..
        } = found;
        drop(values);
        *in_hand.records.lock().unwrap() = Arc::into_inner(records).unwrap().into();
    }
    let (took_first, peak) = first.unwrap();
    println!(
        "plan, nothing to do: {size} resources in {:.4} s at best of 7, {:.4} s the first time; peak {peak:.0} MB: config and program {before_records:.0}, records {:.0}, the plan {:.0}",
        best.as_secs_f64(),
        took_first.as_secs_f64(),
        before_plan - before_records,
        peak - before_plan,
    );
}

/// One apply of independent resources; answers how long it took.
async fn apply(size: u32, parallelism: usize, pace: Duration) -> Duration {
    let bench = Bench::new(size, false, pace);
    let directory = TempDir::new_in(".").unwrap();
    let store: Arc<dyn Store> = Arc::new(
        Filesystem::open(
            directory.path().join("state"),
            "dev",
            Arc::new(SystemDisk),
            Arc::clone(&bench.clock),
            Arc::clone(&bench.random),
        )
        .unwrap(),
    );
    let lease = Bench::lock(store.as_ref()).await;
    let engine = bench.engine(&store, parallelism).await;
    let found = look(&engine).await;
    let started = Instant::now();
    let (report, _) = execute::execute(&engine, &lease, found).await;
    let took = started.elapsed();
    assert!(report.is_success());
    took
}

async fn applies() {
    const PACE: Duration = Duration::from_millis(50);
    for size in [100_u32, 1_000] {
        for parallelism in [1_u32, 10, 32] {
            let took = apply(size, usize::try_from(parallelism).unwrap(), PACE).await;
            let ideal = PACE * size.div_ceil(parallelism);
            let most = ideal.mul_f64(1.05) + Duration::from_millis(20);
            println!(
                "apply: {size} of 50 ms at parallelism {parallelism}: {:.3} s, ideal {:.3} s, ratio {:.3}, {}",
                took.as_secs_f64(),
                ideal.as_secs_f64(),
                took.as_secs_f64() / ideal.as_secs_f64(),
                if took <= most { "met" } else { "MISSED" }
            );
        }
    }
}

async fn overhead(size: u32) {
    for parallelism in [1, 10, 32] {
        let took = apply(size, parallelism, Duration::ZERO).await;
        println!(
            "overhead: {size} actions at parallelism {parallelism}: {:.3} ms each",
            took.as_secs_f64() * 1000.0 / f64::from(size)
        );
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let number = |default| {
        arguments
            .get(1)
            .map_or(default, |text| text.parse().unwrap())
    };
    match arguments.first().map_or("all", String::as_str) {
        "plan" => plan(number(10_000)).await,
        "plan-of" => plan_of(number(0), &arguments[2]).await,
        "apply" => applies().await,
        "overhead" => overhead(number(1_000)).await,
        _ => {
            plan(10_000).await;
            overhead(1_000).await;
        }
    }
}
