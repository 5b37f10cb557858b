//! Providers that are programs of their own: existing Go plugins, unchanged, behind the same two
//! traits as everybody else.
//!
//! `find` says which program, `lock` whether it is the trusted one, `environment`
//! what it may see, `launch` starts and ends it, `handshake`, `connection` and `wire` reach it, `gates`
//! decide whether it may be used, `driver` and `abilities` speak for it.

mod abilities;
mod backend;
mod connection;
mod convert;
mod derived;
mod driver;
pub mod environment;
pub mod find;
mod fit;
mod form;
mod gates;
pub mod handshake;
mod imports;
mod launch;
pub mod lock;
pub mod needs;
mod proposal;
mod relay;
mod services;
mod wire;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate_plugin::tls::{Identity, TlsError};
use tokio::sync::Mutex;

use crate::cancel::{Cancel, stopped};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::process::Processes;
use crate::random::Random;
use crate::report::{Event, Exit, Report, Reporter};
use crate::resource::{Kind, Map, Value};
use crate::secret::Masker;
use crate::variables::Variables;
use connection::{Connection, Trust};
use driver::PluginDriver;
use handshake::Proof;
use launch::Running;

pub use backend::{BackendError, Places, StateBackend};
pub use connection::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
pub use gates::DEFAULT_CANONICAL_KEYS;

/// The setting of a provider's module that says how many of its actions run at once. It is ours: the
/// plugin does not see it.
pub const PARALLELISM_KEY: &str = "parallelism";
/// As many as `--parallelism` takes.
const PARALLELISM_MAX: u64 = 256;
/// How much of a plugin's words stands in one of our sentences.
const EXCERPT_CHARACTERS_MAX: usize = 1000;

/// How long a plugin may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From its start to the line that says where it listens.
    pub handshake: Duration,
    /// Each question while it is loaded, but for `Initialize`.
    pub setup: Duration,
    /// `Initialize`, which may log in somewhere.
    pub initialize: Duration,
    /// Each call that only looks.
    pub look: Duration,
    /// Each call that makes, changes or removes something.
    pub effect: Duration,
    /// Each call of a state backend about one object. Longer than a backend repeats its own requests,
    /// and far shorter than what a provider may take: a lock lapses meanwhile.
    pub object: Duration,
    /// To end after it was asked to.
    pub stop: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(60),
            setup: Duration::from_secs(10),
            initialize: Duration::from_secs(120),
            look: Duration::from_secs(5 * 60),
            effect: Duration::from_secs(30 * 60),
            object: Duration::from_secs(75),
            stop: Duration::from_secs(2),
        }
    }
}

/// What a plugin host works with.
#[derive(Clone)]
pub struct Tools {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Child processes.
    pub processes: Arc<dyn Processes>,
    /// Knows every secret.
    pub masker: Masker,
    /// Where a plugin's words go.
    pub reporter: Arc<dyn Reporter>,
    /// Our environment, of which a plugin sees little.
    pub variables: Variables,
    /// How long things may take.
    pub deadlines: Deadlines,
    /// The wish to stop.
    pub cancel: Cancel,
}

impl fmt::Debug for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tools")
            .field("deadlines", &self.deadlines)
            .finish_non_exhaustive()
    }
}

impl Tools {
    /// Untrusted text for a sentence of ours.
    fn excerpt(&self, text: &str) -> String {
        self.masker.excerpt(text, EXCERPT_CHARACTERS_MAX)
    }
}

/// A provider that is a running program.
#[derive(Debug)]
pub struct Plugin {
    provider: String,
    version: String,
    services: BTreeSet<String>,
    canonical_keys: Vec<String>,
    drivers: BTreeMap<Kind, PluginDriver>,
    connection: Connection,
    parallelism: Option<usize>,
    running: Mutex<Option<Running>>,
}

impl Plugin {
    /// Finds, checks, starts and initialises the plugin that serves the provider `wanted`.
    /// `settings` is the module's whole config without `provider`; `base` is the folder of the
    /// config, beside which the lock stands.
    ///
    /// # Errors
    /// Every gate has a code of its own; see `docs/providers.md`. Whatever was started is gone.
    pub async fn open(
        wanted: &str,
        settings: &Map,
        folder: &Path,
        base: &Path,
        tools: Tools,
    ) -> Result<Self, Report> {
        unless_stopped(
            &tools.cancel.clone(),
            Self::opened(wanted, settings, folder, base, tools),
        )
        .await
    }

    async fn opened(
        wanted: &str,
        settings: &Map,
        folder: &Path,
        base: &Path,
        tools: Tools,
    ) -> Result<Self, Report> {
        let (found, warnings) = find::provider(tools.disk.as_ref(), folder, base, wanted)?;
        for warning in warnings.into_iter().chain(gates::manifest(&found)?) {
            tools.reporter.say(Event::Problem(Box::new(warning)));
        }
        let mut settings = settings.clone();
        let declared = settings.remove(environment::CONFIG_KEY);
        let parallelism = settings
            .remove(PARALLELISM_KEY)
            .map(|value| at_once(&value))
            .transpose()?;
        settings.insert("provider".to_owned(), Value::String(wanted.to_owned()));
        let mut unknown = Vec::new();
        let config_json = convert::config_json(&settings, &mut unknown);
        let wishes = environment::unmet(&found.manifest, declared.as_ref(), &tools.variables);
        let explained = |problem: Report| match &wishes {
            Some(wishes) => problem.because(wishes.clone()),
            None => problem,
        };
        let (running, connection) = start(&found, base, declared.as_ref(), &tools)
            .await
            .map_err(explained)?;
        let loaded = async {
            let loaded = gates::provider(&connection, &found, config_json).await?;
            let sensitive = gates::sensitive_keys(&connection, &loaded.kinds).await?;
            Ok((loaded, sensitive))
        }
        .await;
        let (loaded, mut sensitive) = match loaded {
            Ok(loaded) => loaded,
            Err(problem) => {
                // It is not to be trusted with more time than it takes to kill it.
                drop(running);
                return Err(explained(problem));
            }
        };
        let drivers = loaded
            .kinds
            .iter()
            .map(|kind| {
                let driver = PluginDriver::new(
                    kind.clone(),
                    connection.clone(),
                    sensitive.remove(kind),
                    loaded.create_before_destroy.contains(kind),
                );
                (kind.clone(), driver)
            })
            .collect();
        Ok(Self {
            provider: wanted.to_owned(),
            version: loaded.version,
            services: loaded.services,
            canonical_keys: loaded.canonical_keys,
            drivers,
            connection,
            parallelism,
            running: Mutex::new(Some(running)),
        })
    }

    /// Config keys its resources may have.
    pub fn canonical_keys(&self) -> &[String] {
        &self.canonical_keys
    }
}

/// How many actions at once `parallelism` asks for.
fn at_once(value: &Value) -> Result<usize, Report> {
    let asked = match value {
        Value::Number(number) => number.as_u64(),
        // From a variable.
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    asked
        .filter(|count| (1..=PARALLELISM_MAX).contains(count))
        .and_then(|count| usize::try_from(count).ok())
        .ok_or_else(|| {
            Report::error(
                "plugin/parallelism",
                format!(
                    "`{PARALLELISM_KEY}` of a provider module is a number from 1 to {PARALLELISM_MAX}"
                ),
            )
            .fix("say how many of its actions may run at once, or leave it out")
            .exit(Exit::Usage)
        })
}

/// A plugin on its way up has done nothing yet: when the run is stopped, it is killed where it stands.
async fn unless_stopped<T>(
    cancel: &Cancel,
    opening: impl Future<Output = Result<T, Report>>,
) -> Result<T, Report> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(stopped()),
        opened = opening => opened,
    }
}

/// Starts a plugin and connects to it; what it prints is read from now on.
async fn start(
    found: &find::Found,
    base: &Path,
    declared: Option<&Value>,
    tools: &Tools,
) -> Result<(Running, Connection), Report> {
    let no_tls = |error: &TlsError| {
        Report::error("plugin/start", "TLS to a plugin cannot be set up").caused_by(error)
    };
    let identity = Identity::generate().map_err(|error| no_tls(&error))?;
    let (mut running, greeting) =
        match Running::start(found, base, declared, Some(&identity), tools).await {
            // A plugin that cannot speak TLS may end rather than answer in the clear. Nothing has
            // happened yet: it is asked once more, without.
            Err(problem) if problem.code == launch::EXITED => {
                Running::start(found, base, declared, None, tools).await?
            }
            started => started?,
        };
    let trust = match greeting.proof {
        Proof::Folder => Trust::Folder,
        Proof::Process => Trust::Process(running.pid()),
        Proof::Certificate(peer) => {
            Trust::Tls(identity.client(peer).map_err(|error| no_tls(&error))?)
        }
    };
    let (connection, work) = Connection::open(&found.name, greeting.endpoint, trust, tools).await?;
    running.read(work);
    let relay = Arc::clone(running.relay());
    running.read(connection.clone().relay_output(relay));
    Ok((running, connection))
}

/// The folder plugins are looked for in: the flag, then the environment, then `./data/plugins`.
pub fn folder(flag: Option<&Path>, variables: &Variables) -> PathBuf {
    flag.map(Path::to_path_buf)
        .or_else(|| {
            ["TIDEGATE_PLUGIN_DIR", "WFCTL_PLUGIN_DIR"]
                .iter()
                .find_map(|name| variables.non_empty(name))
                .map(PathBuf::from)
        })
        .unwrap_or_else(|| PathBuf::from("./data/plugins"))
}
