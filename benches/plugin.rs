//! What a plugin costs: to start, to ask, to have twenty of, and to keep. The example plugin is
//! driven through the host, mutual TLS and all, and beside it by a bare tonic client over the same
//! kind of socket, call by call in turns, and medians are compared:
//!
//! ```console
//! $ cargo build --release -p tidegate-plugin-files
//! $ cargo bench --bench plugin
//! ```

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a stopwatch stands outside the seams it measures"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tidegate::clock::SystemClock;
use tidegate::disk::SystemDisk;
use tidegate::process::SystemProcesses;
use tidegate::provider::plugin::{Deadlines, Plugin, Tools};
use tidegate::provider::{Operation, Provider as _};
use tidegate::random::SystemRandom;
use tidegate::report::{Event, Reporter};
use tidegate::resource::{Address, Kind, Map, Recorded, Spec, Value, public_map};
use tidegate::secret::{Keyring, Masker};
use tidegate::variables::Variables;
use tidegate_plugin::conformance::Conformance;
use tidegate_plugin::iac::ia_c_provider_required_client::IaCProviderRequiredClient;
use tidegate_plugin::iac::resource_driver_client::ResourceDriverClient;
use tidegate_plugin::iac::{InitializeRequest, ResourceReadRequest, ResourceRef};

const STARTS: usize = 25;
const CALLS: usize = 4000;
const MANY: usize = 20;
const ROUNDS: u32 = 10;
const KIND: &str = "infra.file";

#[derive(Debug)]
struct Silent;

impl Reporter for Silent {
    fn say(&self, _event: Event) {}
}

/// A folder with the example plugin in it.
struct Bench {
    folder: tempfile::TempDir,
    executable: PathBuf,
}

fn main() {
    let executable =
        Path::new(env!("CARGO_BIN_EXE_tidegate")).with_file_name("tidegate-plugin-files");
    assert!(
        executable.exists(),
        "build it first: cargo build --release -p tidegate-plugin-files"
    );
    let bench = Bench::new(executable);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(bench.run());
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Memory that is ours and in use, in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Time on a processor so far, ours and that of children that have ended.
fn processor() -> Duration {
    const TICKS_A_SECOND: u32 = 100;
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // From the one after the name in parentheses on, these are the 12th to 15th.
    let fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace();
    let ticks: u32 = fields
        .skip(11)
        .take(4)
        .map(|field| field.parse::<u32>().unwrap())
        .sum();
    Duration::from_secs(1) * ticks / TICKS_A_SECOND
}

impl Bench {
    fn new(executable: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join("plugins/files");
        fs::create_dir_all(&plugin).unwrap();
        fs::copy(&executable, plugin.join("files")).unwrap();
        let manifest = std::process::Command::new(&executable)
            .arg("--manifest")
            .output()
            .unwrap();
        fs::write(plugin.join("plugin.json"), manifest.stdout).unwrap();
        Self { folder, executable }
    }

    async fn open(&self) -> Plugin {
        let tools = Tools {
            disk: Arc::new(SystemDisk),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
            processes: Arc::new(SystemProcesses::with_shim(
                env!("CARGO_BIN_EXE_tidegate").into(),
            )),
            masker: Masker::default(),
            reporter: Arc::new(Silent),
            variables: Variables::default(),
            deadlines: Deadlines::default(),
            cancel: tidegate::cancel::pair().1,
        };
        let directory = self.folder.path().join("out").display().to_string();
        let settings = Map::from([("directory".to_owned(), Value::String(directory))]);
        Plugin::open(
            "files",
            &settings,
            &self.folder.path().join("plugins"),
            self.folder.path(),
            tools,
        )
        .await
        .unwrap()
    }

    async fn run(&self) {
        println!("{:<52} {:>12}", "figure", "median");
        let before = resident();
        let one = self.starts().await;
        self.calls().await;
        self.many(one).await;
        self.memory(before).await;
    }

    /// From the start to a plugin that answered everything it is asked while it is loaded; the first
    /// answered call is one of those.
    async fn starts(&self) -> Duration {
        let mut times = Vec::new();
        for _ in 0..STARTS {
            let began = Instant::now();
            let plugin = self.open().await;
            times.push(began.elapsed());
            plugin.close().await;
        }
        let time = median(times);
        println!(
            "{:<52} {:>9.1} ms",
            "spawn to loaded (handshake, TLS, six calls)",
            time.as_secs_f64() * 1e3
        );
        time
    }

    async fn calls(&self) {
        let plugin = self.open().await;
        let kind = Kind::new(KIND);
        let driver = plugin.driver(&kind).unwrap();
        let config = Map::from([("content".to_owned(), Value::String("hello".to_owned()))]);
        let spec = Spec {
            address: Address::new("greeting"),
            kind: kind.clone(),
            public_config: public_map(&config, &Keyring::new(&[7; 32])),
            config,
            dependencies: std::collections::BTreeSet::new(),
        };
        let operation = Operation {
            id: "bench".to_owned(),
            environment: "bench".to_owned(),
        };
        driver.create(&operation, &spec).await.unwrap();
        let prior = Recorded::by_name(spec.address, kind);

        let launched = Conformance::of(&self.executable).launch().await.unwrap();
        let socket = launched.socket().unwrap();
        let connector = tower::service_fn(move |_: http::Uri| {
            let socket = socket.clone();
            async move {
                tokio::net::UnixStream::connect(socket)
                    .await
                    .map(TokioIo::new)
            }
        });
        let channel = tonic::transport::Endpoint::from_static("http://unused")
            .connect_with_connector(connector)
            .await
            .unwrap();
        let directory = self.folder.path().join("out");
        IaCProviderRequiredClient::new(channel.clone())
            .initialize(InitializeRequest {
                config_json: serde_json::json!({"directory": directory})
                    .to_string()
                    .into_bytes(),
            })
            .await
            .unwrap();
        let request = || ResourceReadRequest {
            resource_type: KIND.to_owned(),
            r#ref: Some(ResourceRef {
                name: "greeting".to_owned(),
                r#type: KIND.to_owned(),
                provider_id: String::new(),
            }),
        };
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            let began = Instant::now();
            driver.read(&prior).await.unwrap();
            ours.push(began.elapsed());
            let began = Instant::now();
            ResourceDriverClient::new(channel.clone())
                .read(request())
                .await
                .unwrap();
            bare.push(began.elapsed());
        }
        let (ours, bare) = (median(ours), median(bare));
        println!(
            "{:<52} {:>9.1} us",
            "one read through the host",
            micros(ours)
        );
        println!(
            "{:<52} {:>9.1} us",
            "the same, bare tonic client, no TLS",
            micros(bare)
        );
        println!(
            "{:<52} {:>9.2} x",
            "ratio",
            ours.as_secs_f64() / bare.as_secs_f64()
        );
        plugin.close().await;
    }

    async fn many(&self, one: Duration) {
        let mut times = Vec::new();
        let before = processor();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let opened = futures_util::future::join_all((0..MANY).map(|_| self.open())).await;
            times.push(began.elapsed());
            futures_util::future::join_all(opened.iter().map(Plugin::close)).await;
        }
        let time = median(times);
        println!(
            "{:<52} {:>9.1} ms, {:.2} x one",
            format!("{MANY} at once, spawn to loaded"),
            time.as_secs_f64() * 1e3,
            time.as_secs_f64() / one.as_secs_f64()
        );
        // What one takes of processors, its end included: as many at once take at least their share.
        let each = (processor() - before).as_secs_f64() / f64::from(ROUNDS) / MANY as f64;
        let cores = std::thread::available_parallelism().unwrap().get() as f64;
        println!(
            "{:<52} {:>9.1} ms; {MANY} on {cores} cores take {:.1} ms or more",
            "processor time of one, start to end, both sides",
            each * 1e3,
            each * 1e3 * MANY as f64 / cores
        );
    }

    async fn memory(&self, before: u64) {
        let mut held = Vec::new();
        for _ in 0..MANY {
            held.push(self.open().await);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let each = resident().saturating_sub(before) as f64 / MANY as f64;
        println!(
            "{:<52} {:>9.0} KiB each",
            format!("memory of the host, {MANY} idle plugins"),
            each
        );
        futures_util::future::join_all(held.iter().map(Plugin::close)).await;
    }
}
