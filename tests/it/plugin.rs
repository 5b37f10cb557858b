//! The plugin host against programs: a Go plugin on the launch library that existing plugins use,
//! and a hostile one that breaks every rule there is.
//!
//! Names that begin with `hNN_` or `sNN_` hold the row of that number of `docs/plugin-checklist.md`.

mod answers;
mod apply;
mod checklist;
mod derive;
mod go;
mod hostile;
mod journey;
mod sdk;
mod sealed;
mod services;
mod state;
mod stop;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::cancel::{Cancel, Canceller};
use tidegate::clock::SystemClock;
use tidegate::disk::SystemDisk;
use tidegate::process::SystemProcesses;
use tidegate::provider::plugin::{Deadlines, Plugin, Tools};
use tidegate::provider::{Driver, Operation, Provider as _};
use tidegate::random::SystemRandom;
use tidegate::report::{Event, Report, Reporter};
use tidegate::resource::{Address, Kind, Map, Observed, Recorded, Spec, Value, public_map};
use tidegate::secret::{Keyring, Masker};
use tidegate::variables::Variables;

use crate::harness;
use crate::main_job::processes;

/// The Go plugin, for tests of other rooms; `None` without Go.
pub(crate) fn go_executable() -> Option<&'static Path> {
    go::executable()
}

/// Longest any test may take; a hang is a failure, not a wait.
const TEST_LIMIT: Duration = Duration::from_secs(60);

/// Everything that was said.
#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Reporter for Said {
    fn say(&self, event: Event) {
        let text = match event {
            Event::Relayed { text, .. } => text,
            Event::Problem(report) => report.code.to_owned(),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(text);
    }
}

/// A folder with one plugin in it.
struct Lab {
    folder: tempfile::TempDir,
    masker: Masker,
    keyring: Keyring,
    said: Arc<Said>,
    variables: Vec<(String, String)>,
    deadlines: Deadlines,
    _canceller: Canceller,
    cancel: Cancel,
}

impl Lab {
    /// A plugin of this name and executable.
    fn new(name: &str, executable: &Path) -> Self {
        let (canceller, cancel) = tidegate::cancel::pair();
        let lab = Self {
            folder: tempfile::tempdir().unwrap(),
            masker: Masker::default(),
            keyring: Keyring::new(&[7; 32]),
            said: Arc::default(),
            variables: ["PATH", "HOME"]
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
                .collect(),
            deadlines: Deadlines {
                // Generous: the machine may have better things to do.
                handshake: Duration::from_secs(30),
                setup: Duration::from_secs(30),
                initialize: Duration::from_secs(30),
                look: Duration::from_secs(30),
                effect: Duration::from_secs(30),
                object: Duration::from_secs(30),
                stop: Duration::from_millis(500),
            },
            _canceller: canceller,
            cancel,
        };
        install(&lab.plugins(), name, executable);
        lab
    }

    fn plugins(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("plugins")
    }

    fn tools(&self) -> Tools {
        Tools {
            disk: Arc::new(SystemDisk),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
            processes: Arc::new(SystemProcesses::with_shim(harness::binary())),
            masker: self.masker.clone(),
            reporter: Arc::clone(&self.said) as Arc<dyn Reporter>,
            variables: self.variables.iter().cloned().collect::<Variables>(),
            deadlines: self.deadlines,
            cancel: self.cancel.clone(),
        }
    }

    async fn open(&self, provider: &str, settings: Map) -> Result<Plugin, Report> {
        tokio::time::timeout(
            TEST_LIMIT,
            Plugin::open(
                provider,
                &settings,
                &self.plugins(),
                self.folder.path(),
                self.tools(),
            ),
        )
        .await
        .expect("opening ends, one way or the other")
    }

    fn spec(&self, kind: &str, name: &str, config: &[(&str, Value)]) -> Spec {
        let config: Map = config
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        Spec {
            address: Address::new(name),
            kind: Kind::new(kind),
            public_config: public_map(&config, &self.keyring),
            config,
            dependencies: BTreeSet::new(),
        }
    }

    fn said(&self) -> Vec<String> {
        self.said.0.lock().unwrap().clone()
    }

    /// Nothing of this lab's plugins runs, and none of their socket folders is left.
    #[track_caller]
    fn expect_nothing_left(&self) {
        let needle = self.plugins().display().to_string();
        harness::wait_for("the plugin to be gone", || processes(&needle).is_empty());
    }
}

/// Puts a plugin into a plugin folder.
fn install(plugins: &Path, name: &str, executable: &Path) -> PathBuf {
    let folder = plugins.join(name);
    fs::create_dir_all(&folder).unwrap();
    crate::harness::place(executable, &folder.join(name));
    let manifest = serde_json::json!({
        "name": format!("workflow-plugin-{name}"), "version": "1.0.0",
        "author": "tests", "description": "for tests",
        "capabilities": {"iacProvider": {"name": name, "computePlanVersion": "v2"}},
        "required_secrets": [{"name": "FILES_TOKEN", "sensitive": true}],
    });
    fs::write(folder.join("plugin.json"), manifest.to_string()).unwrap();
    folder
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn number(number: u64) -> Value {
    Value::Number(number.into())
}

fn operation() -> Operation {
    Operation {
        id: "test-1".to_owned(),
        environment: "dev".to_owned(),
    }
}

fn recorded(spec: &Spec, observed: Observed) -> Recorded {
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

fn driver<'a>(plugin: &'a Plugin, kind: &str) -> &'a dyn Driver {
    plugin.driver(&Kind::new(kind)).expect("a driver")
}
