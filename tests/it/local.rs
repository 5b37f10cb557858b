//! The embedded `local` provider, driven through the library on the real machine: real files,
//! real processes, real SQLite, and PostgreSQL when it is installed.

pub(crate) mod cluster;
mod database;
mod kill;
mod postgres;
mod service;
mod storage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tidegate::clock::SystemClock;
use tidegate::disk::SystemDisk;
use tidegate::process::{Identity, Processes as _, Signal, SystemProcesses};
use tidegate::provider::local::{Local, LocalTools};
use tidegate::provider::{Driver, ErrorClass, Operation, Provider as _};
use tidegate::random::SystemRandom;
use tidegate::resource::{Address, Kind, Map, Observed, Output, Recorded, Spec, Value, public_map};
use tidegate::secret::{Keyring, Masker, Secret};
use tidegate::variables::Variables;

use crate::harness;

/// A fresh folder with an open provider; on drop, whatever still runs for it is killed.
struct Lab {
    folder: tempfile::TempDir,
    masker: Masker,
    keyring: Keyring,
    config: serde_json::Value,
    variables: Vec<(String, String)>,
}

impl Lab {
    fn new() -> Self {
        let names = ["PATH", "HOME"];
        Self {
            folder: tempfile::tempdir().unwrap(),
            masker: Masker::default(),
            keyring: Keyring::new(&[7; 32]),
            config: serde_json::json!({"provider": "local", "root": "./root"}),
            variables: names
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
                .collect(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    fn provider(&self) -> Local {
        self.provider_of("dev")
    }

    fn provider_of(&self, environment: &str) -> Local {
        open(
            &self.config,
            self.folder.path(),
            environment,
            &self.masker,
            &self.variables,
        )
        .unwrap()
    }

    fn secret(&self, text: &str) -> Value {
        Value::Secret(self.masker.admit("test", text.to_owned()))
    }

    fn spec(&self, kind: &str, name: &str, config: Map) -> Spec {
        Spec {
            address: Address::new(name),
            kind: Kind::new(kind),
            public_config: public_map(&config, &self.keyring),
            config,
            dependencies: BTreeSet::new(),
        }
    }

    /// Processes that have this lab's folder on their command line.
    fn processes(&self) -> Vec<(Identity, String)> {
        let needle = self.path().to_string_lossy().into_owned();
        SystemProcesses::default()
            .table()
            .into_iter()
            .filter(|entry| !entry.ended)
            .filter_map(|entry| {
                let line = std::fs::read(format!("/proc/{}/cmdline", entry.identity.pid)).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                line.contains(&needle).then_some((entry.identity, line))
            })
            .collect()
    }

    #[track_caller]
    fn expect_nothing_left(&self) {
        assert_eq!(self.processes(), [], "processes left");
        assert!(
            !self.root().exists(),
            "files left: {:?}",
            files_below(&self.root())
        );
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (identity, _) in self.processes() {
            SystemProcesses::default().signal(&identity, Signal::Kill);
        }
    }
}

#[allow(clippy::result_large_err, reason = "the library's own signature")]
fn open(
    config: &serde_json::Value,
    base: &Path,
    environment: &str,
    masker: &Masker,
    variables: &[(String, String)],
) -> Result<Local, tidegate::report::Report> {
    Local::open(
        &map(config.clone()),
        base,
        LocalTools {
            disk: Arc::new(SystemDisk),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
            processes: Arc::new(SystemProcesses::default()),
            masker: masker.clone(),
            executable: harness::binary(),
            variables: variables.iter().cloned().collect::<Variables>(),
            environment: environment.to_owned(),
        },
    )
}

fn map(config: serde_json::Value) -> Map {
    match Value::from(config) {
        Value::Map(map) => map,
        other => panic!("a map, not {other:?}"),
    }
}

fn operation() -> Operation {
    Operation {
        id: "operation-1".to_owned(),
        environment: "dev".to_owned(),
    }
}

/// What the engine would keep of an observed resource.
fn record(spec: &Spec, observed: Observed) -> Recorded {
    Recorded {
        address: spec.address.clone(),
        kind: spec.kind.clone(),
        provider_id: observed.provider_id,
        config: spec.public_config.clone(),
        outputs: observed.outputs,
        status: observed.status,
        private: observed.private,
        dependencies: BTreeSet::new(),
    }
}

fn by_name(spec: &Spec) -> Recorded {
    Recorded::by_name(spec.address.clone(), spec.kind.clone())
}

fn driver<'a>(provider: &'a Local, spec: &Spec) -> &'a dyn Driver {
    provider.driver(&spec.kind).expect("a driver")
}

#[track_caller]
fn public(outputs: &tidegate::resource::Outputs, name: &str) -> String {
    match outputs.get(name) {
        Some(Output::Public(serde_json::Value::String(text))) => text.clone(),
        Some(Output::Public(other)) => other.to_string(),
        other => panic!("`{name}` is {other:?}"),
    }
}

#[track_caller]
fn sensitive(outputs: &tidegate::resource::Outputs, name: &str) -> Secret {
    match outputs.get(name) {
        Some(Output::Sensitive(secret)) => secret.clone(),
        other => panic!("`{name}` is {other:?}"),
    }
}

#[track_caller]
fn class<T: std::fmt::Debug>(result: tidegate::provider::DriverResult<T>) -> ErrorClass {
    result.expect_err("an error").class
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
            files.push(entry.path());
        }
    }
    files
}

/// A small HTTP service, compiled once: needs only the Rust toolchain.
fn test_service() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("local-service");
            std::fs::create_dir_all(&folder).unwrap();
            let program = folder.join("service");
            // Tests of several runs may build at once: build aside, then rename.
            let aside = folder.join(format!("service.{}", std::process::id()));
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/local/echo.rs.txt");
            let built = std::process::Command::new("rustc")
                .args(["--edition=2021", "--crate-name=echo", "-o"])
                .arg(&aside)
                .arg(&source)
                .status()
                .expect("rustc starts");
            assert!(built.success(), "the test service compiles");
            std::fs::rename(&aside, &program).unwrap();
            program
        })
        .clone()
}

#[test]
fn a_wrong_provider_config_is_reported_as_a_whole() {
    let lab = Lab::new();
    let open = |config: serde_json::Value| {
        open(&config, lab.folder.path(), "dev", &lab.masker, &[])
            .map(|_| ())
            .map_err(|report| report.because.join("\n"))
    };
    assert_eq!(open(serde_json::json!({"root": "x"})), Ok(()));
    assert_eq!(
        open(serde_json::json!({})),
        Err("`root`: it is missing".to_owned())
    );
    let all = open(serde_json::json!({
        "rooot": "x",
        "root": 7,
        "postgres": {"hots": "h", "port": 0, "sslmode": "requrie", "password": 7, "sslrootcert": "none.pem"},
    }))
    .unwrap_err();
    for expected in [
        "`rooot`: `iac.provider` has no setting `rooot` on the `local` provider; did you mean `root`?",
        "`root`: it must be text, not a number",
        "`postgres.hots`: ",
        "did you mean `host`?",
        "`postgres.port`: ",
        "`postgres.sslmode`: there is no mode of that name; did you mean `require`?",
        "`postgres.password`: it must be text, not a number",
        "`postgres.sslrootcert`: cannot read",
    ] {
        assert!(all.contains(expected), "{expected}\n--- in\n{all}");
    }
    // Nothing is touched by opening.
    assert!(!lab.root().exists());
}
