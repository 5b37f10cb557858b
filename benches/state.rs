//! State: a megabyte there and back over the plugin contract, a lock and a write on PostgreSQL, and
//! lists of many.
//!
//! The first is Lock, Get, Save and Unlock of one record of 1 MB, over gRPC on a unix socket between
//! two processes, with a map behind it; beside it the same calls on that map in this process. The
//! others need servers, which `benches/state.sh` starts: `TIDEGATE_BENCH_POSTGRES` is a connection
//! string, `TIDEGATE_BENCH_S3` the endpoint of a server with a bucket `bucket`. With
//! `TIDEGATE_BENCH_PLUGINS` (a plugin folder), `TIDEGATE_BENCH_BACKEND` (a name in it) and
//! `TIDEGATE_BENCH_SETTINGS` (JSON), the same cycle runs against any other plugin.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise, and has the machine to itself"
)]

#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../tests/it/state/http.rs"]
mod http;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../tests/it/state/wire.rs"]
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use criterion::Criterion;
use serde_json::json;
use tidegate::clock::SystemClock;
use tidegate::command::shelf::PluginShelf;
use tidegate::disk::SystemDisk;
use tidegate::process::{RUN_COMMAND, SystemProcesses};
use tidegate::provider::plugin::{Deadlines, Places, StateBackend, Tools};
use tidegate::random::SystemRandom;
use tidegate::report::{Event, Reporter};
use tidegate::resource::{Address, Map, Value};
use tidegate::secret::Masker;
use tidegate::state::postgres::{DEFAULT_SCHEMA, Server};
use tidegate::state::served::Served;
use tidegate::state::{Expected, Filesystem, Holder, Postgres, Record, Store};
use tidegate::variables::Variables;
use tidegate_plugin::{About, Plugin, StateRecord, StateStore, async_trait};

const ID: &str = "record";
/// What a record of 1 MB holds.
const CONTENT_BYTES: usize = 1_000_000;

/// The backend of the benchmark: a map.
#[derive(Clone, Default)]
struct InMap {
    records: Arc<Mutex<HashMap<String, StateRecord>>>,
    locked: Arc<Mutex<HashMap<String, ()>>>,
}

fn open<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl tidegate_plugin::StateBackend for InMap {
    fn names(&self) -> Vec<String> {
        vec!["map".to_owned()]
    }

    async fn configure(
        &self,
        _name: &str,
        _settings: tidegate_plugin::Map,
    ) -> tidegate_plugin::Result<Box<dyn StateStore>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl StateStore for InMap {
    async fn get(&self, id: &str) -> tidegate_plugin::Result<Option<StateRecord>> {
        Ok(open(&self.records).get(id).cloned())
    }

    async fn save(&self, record: StateRecord) -> tidegate_plugin::Result<()> {
        open(&self.records).insert(record.resource_id.clone(), record);
        Ok(())
    }

    async fn list(
        &self,
        filter: &BTreeMap<String, String>,
    ) -> tidegate_plugin::Result<Vec<StateRecord>> {
        let records = open(&self.records);
        let matching = records
            .values()
            .filter(|record| tidegate_plugin::matches(record, filter));
        Ok(matching.cloned().collect())
    }

    async fn delete(&self, id: &str) -> tidegate_plugin::Result<()> {
        open(&self.records).remove(id);
        Ok(())
    }

    async fn lock(&self, id: &str) -> tidegate_plugin::Result<()> {
        match open(&self.locked).insert(id.to_owned(), ()) {
            None => Ok(()),
            Some(()) => Err(tidegate_plugin::Error::conflict("held")),
        }
    }

    async fn unlock(&self, id: &str) -> tidegate_plugin::Result<()> {
        open(&self.locked).remove(id);
        Ok(())
    }
}

fn about() -> About {
    About::new(
        "bench-map",
        "1.0.0",
        "the benchmark",
        "Keeps state in a map.",
    )
}

struct Deaf;

impl Reporter for Deaf {
    fn say(&self, _event: Event) {}
}

async fn plugin(backend: &str, settings: &Map, folder: &Path) -> StateBackend {
    let tools = Tools {
        disk: Arc::new(SystemDisk),
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(SystemRandom),
        processes: Arc::new(SystemProcesses::with_shim(std::env::current_exe().unwrap())),
        masker: Masker::default(),
        reporter: Arc::new(Deaf),
        variables: std::env::vars().collect::<Variables>(),
        deadlines: Deadlines::default(),
        cancel: tidegate::cancel::pair().1,
    };
    let places = Places {
        folders: &[folder],
        beside: None,
    };
    StateBackend::open(backend, settings, places, folder, tools)
        .await
        .unwrap_or_else(|problem| panic!("{problem:?}"))
}

/// This executable as a plugin of that name.
fn install(plugins: &Path, name: &str, executable: &Path) {
    let folder = plugins.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(executable, folder.join(name)).unwrap();
    let manifest = Command::new(folder.join(name)).arg("--manifest").output();
    std::fs::write(folder.join("plugin.json"), manifest.unwrap().stdout).unwrap();
}

fn megabyte() -> StateRecord {
    let outputs = json!({"content": "x".repeat(CONTENT_BYTES)}).to_string();
    StateRecord {
        resource_id: ID.to_owned(),
        resource_type: "infra.database".to_owned(),
        provider: "here".to_owned(),
        status: "active".to_owned(),
        outputs_json: outputs.into_bytes().into(),
        ..StateRecord::default()
    }
}

async fn remote_cycle(backend: &StateBackend) {
    backend.lock(ID).await.unwrap();
    let record = backend.get(ID).await.unwrap().unwrap();
    assert!(record.outputs_json.len() > CONTENT_BYTES);
    backend.save(record).await.unwrap();
    backend.unlock(ID).await.unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn megabyte_cycle(criterion: &mut Criterion) {
    let plugins = tempfile::tempdir().unwrap();
    install(
        plugins.path(),
        "bench-map",
        &std::env::current_exe().unwrap(),
    );
    let runtime = runtime();
    let variable = |name: &str| std::env::var(name).ok();
    let other = variable("TIDEGATE_BENCH_PLUGINS").zip(variable("TIDEGATE_BENCH_BACKEND"));
    let backend = runtime.block_on(async {
        let backend = match &other {
            None => plugin("map", &Map::new(), plugins.path()).await,
            Some((folder, backend)) => {
                let text = variable("TIDEGATE_BENCH_SETTINGS").unwrap_or_else(|| "{}".to_owned());
                let settings: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
                let settings = settings
                    .into_iter()
                    .map(|(key, value)| (key, Value::String(value)))
                    .collect();
                plugin(backend, &settings, Path::new(folder)).await
            }
        };
        backend.save(megabyte()).await.unwrap();
        backend
    });
    let mut group = criterion.benchmark_group("state");
    group
        .sample_size(200)
        .measurement_time(Duration::from_secs(10));
    group.bench_function("1 MB cycle, two processes", |bench| {
        bench.iter_custom(|times| {
            runtime.block_on(async {
                let started = Instant::now();
                for _ in 0..times {
                    remote_cycle(&backend).await;
                }
                started.elapsed()
            })
        });
    });
    let counted = allocation_counter::measure(|| {
        runtime.block_on(async {
            for _ in 0..100 {
                remote_cycle(&backend).await;
            }
        });
    });
    println!(
        "state/1 MB cycle, two processes: {} allocations and {} bytes a cycle in the host",
        counted.count_total / 100,
        counted.bytes_total / 100
    );
    let map = InMap::default();
    open(&map.records).insert(ID.to_owned(), megabyte());
    group.bench_function("1 MB cycle, in process", |bench| {
        bench.iter(|| {
            runtime.block_on(async {
                map.lock(ID).await.unwrap();
                let record = map.get(ID).await.unwrap().unwrap();
                map.save(record).await.unwrap();
                map.unlock(ID).await.unwrap();
            });
        });
    });
    group.finish();
}

fn holder() -> Holder {
    Holder {
        run_id: "bench".to_owned(),
        who: "bench@here".to_owned(),
        process_id: std::process::id(),
        command: "up".to_owned(),
        run_url: None,
        job: String::new(),
        since: String::new(),
        mark: String::new(),
    }
}

fn record(name: &str) -> Record {
    serde_json::from_value(json!({
        "resource_id": name, "resource_type": "infra.storage", "provider": "local",
        "provider_ref": "here", "provider_id": name, "config_hash": "00", "status": "active",
        "config": {"size": 0.1, "region": "here1"}, "outputs": {"path": format!("/srv/{name}")},
        "dependencies": ["net"], "created_at": "2024-01-02T03:04:05Z",
        "updated_at": "2024-01-02T03:04:05Z",
    }))
    .unwrap()
}

fn postgres_cycle(criterion: &mut Criterion) {
    let Ok(text) = std::env::var("TIDEGATE_BENCH_POSTGRES") else {
        println!("state/postgres: not measured without TIDEGATE_BENCH_POSTGRES");
        return;
    };
    let runtime = runtime();
    let masker = Masker::default();
    let text = masker.admit("bench", text);
    let server =
        Server::from_connection_string(&text, None, Path::new("/"), &SystemDisk, &masker).unwrap();
    let clock = Arc::new(SystemClock::new());
    let store = Postgres::open(
        server,
        DEFAULT_SCHEMA,
        "bench",
        "dev",
        clock,
        Arc::new(SystemRandom),
    )
    .unwrap();
    let mut version = runtime.block_on(async {
        let lease = store.lock(&holder(), Duration::ZERO).await.unwrap();
        store.delete(&lease, &Address::new("a")).await.unwrap();
        store.put(&lease, &record("a")).await.unwrap();
        store.unlock(&lease).await.unwrap();
        1
    });
    let mut group = criterion.benchmark_group("state");
    group
        .sample_size(200)
        .measurement_time(Duration::from_secs(8));
    group.bench_function("lock and CAS on PostgreSQL", |bench| {
        bench.iter_custom(|times| {
            runtime.block_on(async {
                let mut elapsed = Duration::ZERO;
                for _ in 0..times {
                    let started = Instant::now();
                    let lease = store.lock(&holder(), Duration::ZERO).await.unwrap();
                    let expected = Expected::Version(version);
                    store.put_if(&lease, &record("a"), &expected).await.unwrap();
                    elapsed += started.elapsed();
                    version += 1;
                    store.unlock(&lease).await.unwrap();
                }
                elapsed
            })
        });
    });
    group.finish();
}

/// Fills an empty store with `count` records, all at once.
async fn fill(store: &dyn Store, count: u32) {
    let lease = store.lock(&holder(), Duration::ZERO).await.unwrap();
    store.put(&lease, &record("r-0")).await.unwrap();
    let mut snapshot = store.snapshot().await.unwrap().unwrap();
    snapshot.records = (0..count)
        .map(|index| Record {
            resource_id: Address::new(format!("r-{index}")),
            ..snapshot.records[0].clone()
        })
        .collect();
    store.load(&lease, &snapshot, None).await.unwrap();
    store.unlock(&lease).await.unwrap();
}

/// Lists `times` times; says the fastest and the median.
async fn list(what: &str, store: &dyn Store, count: usize, times: usize) {
    let mut all = Vec::new();
    for _ in 0..times {
        let started = Instant::now();
        let records = store.list().await.unwrap();
        all.push(started.elapsed());
        assert_eq!(records.len(), count);
    }
    all.sort_unstable();
    println!(
        "state/{what}: {count} records, fastest {:.3} s, median {:.3} s",
        all[0].as_secs_f64(),
        all[all.len() / 2].as_secs_f64()
    );
}

fn lists() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let filesystem = Filesystem::open(
        folder.path().join("state"),
        "dev",
        Arc::new(SystemDisk),
        Arc::new(SystemClock::new()),
        Arc::new(SystemRandom),
    )
    .unwrap();
    runtime.block_on(async {
        fill(&filesystem, 100_000).await;
        list("list of a folder", &filesystem, 100_000, 5).await;
    });
    let Ok(endpoint) = std::env::var("TIDEGATE_BENCH_S3") else {
        println!("state/list of S3: not measured without TIDEGATE_BENCH_S3");
        return;
    };
    let cloud = std::env::var("TIDEGATE_BENCH_CLOUD").unwrap();
    let proxy = wire::Proxy::start(&endpoint);
    let plugins = tempfile::tempdir().unwrap();
    install(plugins.path(), "tidegate-plugin-cloud", Path::new(&cloud));
    let text = |text: &str| Value::String(text.to_owned());
    let settings = |endpoint: &str| {
        Map::from([
            ("bucket".to_owned(), text("bucket")),
            ("region".to_owned(), text("us-east-1")),
            ("endpoint".to_owned(), text(endpoint)),
            ("accessKey".to_owned(), text("AKIAIOSFODNN7EXAMPLE")),
            ("secretKey".to_owned(), text("bench-0123456789")),
        ])
    };
    runtime.block_on(async {
        let open = async |endpoint: &str| {
            let backend = plugin("s3", &settings(endpoint), plugins.path()).await;
            let shelf = Arc::new(PluginShelf::new(backend, "the bucket".to_owned()));
            let clock = Arc::new(SystemClock::new());
            Served::open(shelf, "bench", "dev", clock, Arc::new(SystemRandom)).unwrap()
        };
        let direct = open(&endpoint).await;
        fill(&direct, 10_000).await;
        list("list of S3, no latency", &direct, 10_000, 3).await;
        proxy.judge(|_| wire::Fault::Late(Duration::from_millis(20)));
        let far = open(&proxy.endpoint).await;
        list("list of S3, 20 ms latency", &far, 10_000, 3).await;
    });
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.first().and_then(|first| first.to_str()) {
        Some(RUN_COMMAND) => return tidegate::process::run_shim(&arguments[1..]),
        Some("--manifest") => return Plugin::state_only(about(), InMap::default()).serve(),
        _ => {}
    }
    if std::env::var_os("WORKFLOW_PLUGIN").is_some() {
        return Plugin::state_only(about(), InMap::default()).serve();
    }
    let mut criterion = Criterion::default().configure_from_args();
    megabyte_cycle(&mut criterion);
    postgres_cycle(&mut criterion);
    // As with the others, a word on the command line leaves out what does not hold it.
    let word = arguments
        .iter()
        .filter_map(|argument| argument.to_str())
        .find(|argument| !argument.starts_with('-'));
    if word.is_none_or(|word| "state/list".contains(word)) {
        lists();
    }
    criterion.final_summary();
    ExitCode::SUCCESS
}
