//! What passes between an apply and a service's supervisor: the order (through a pipe, it holds
//! secrets) and the status file (never any).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, DiskResult};
use crate::process::{Identity, Processes, Signal};

/// Held by a supervisor for as long as it lives.
pub(super) const LOCK: &str = "supervisor.lock";
/// Holds the token of the newest order; absent once the service is to stop. Not a secret: it only
/// tells orders apart. It is changed *before* a supervisor is signalled, so that a run killed
/// between the two leaves no service that looks well and is about to end.
pub(super) const TOKEN: &str = "supervisor.token";
const TOKEN_BYTES_MAX: u64 = 256;
const STATUS: &str = "status.json";
const STATUS_BYTES_MAX: u64 = 64 * 1024;

/// True when the order with this token is the folder's newest and was not withdrawn.
pub(super) fn is_newest(disk: &dyn Disk, folder: &Path, token: &str) -> DiskResult<bool> {
    match disk.read(&folder.join(TOKEN), TOKEN_BYTES_MAX) {
        Ok(newest) => Ok(newest == token.as_bytes()),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a supervisor is told to run. Its JSON is only ever written into the supervisor's standard
/// input.
#[derive(Serialize, Deserialize)]
pub(super) struct Order<Text> {
    /// Program and arguments.
    pub(super) command: Vec<String>,
    /// Plain variables of the service.
    pub(super) environment: BTreeMap<String, String>,
    /// Variables nobody else may see.
    pub(super) secret_environment: BTreeMap<String, Text>,
    /// Working directory.
    pub(super) directory: PathBuf,
    /// The port it was given.
    pub(super) port: u16,
    /// Which config this is.
    pub(super) revision: String,
    /// Must equal the folder's [`TOKEN`] file, or the order is stale.
    pub(super) token: String,
}

/// What a supervisor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// The service was started a moment ago.
    Starting,
    /// The service runs.
    Running,
    /// The service ended; it will be started again.
    Restarting,
    /// The service ends again and again; it will be started again.
    Crashing,
    /// The service was stopped on request.
    Stopped,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Crashing => "crashing",
            Self::Stopped => "stopped",
        }
    }
}

/// The status file, replaced as a whole at every change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Status {
    pub(super) format: u32,
    pub(super) state: State,
    pub(super) supervisor: Identity,
    /// The service's first process; it leads a process group of the supervisor's session.
    #[serde(default)]
    pub(super) service: Option<Identity>,
    pub(super) revision: String,
    /// The token of the order it follows.
    pub(super) token: String,
    pub(super) port: u16,
    /// Starts after the first.
    pub(super) restarts: u64,
    /// RFC 3339 time of this change.
    pub(super) since: String,
    /// How the service ended last; empty when it never did.
    #[serde(default)]
    pub(super) last_end: String,
}

impl Status {
    /// The status a supervisor left in a folder; `None` when there is none (yet), or when what is
    /// there is not one.
    pub(super) fn read(disk: &dyn Disk, folder: &Path) -> DiskResult<Option<Self>> {
        match disk.read(&folder.join(STATUS), STATUS_BYTES_MAX) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn path(folder: &Path) -> PathBuf {
        folder.join(STATUS)
    }

    /// Ends whatever a dead supervisor left running; true when there was something. Only processes
    /// of the recorded session and group count, and only of the boot that was recorded.
    pub(super) fn end_leftovers(&self, processes: &dyn Processes, signal: Signal) -> bool {
        let Some(service) = &self.service else {
            return false;
        };
        let boot = |identity: &Identity| {
            identity
                .start
                .split_once('/')
                .map(|(boot, tick)| (boot.to_owned(), tick.parse::<u64>().unwrap_or(0)))
        };
        let Some((recorded_boot, recorded_tick)) = boot(service) else {
            return false;
        };
        let left = processes.table().into_iter().any(|entry| {
            !entry.ended
                && entry.group == service.pid
                && entry.session == self.supervisor.pid
                && boot(&entry.identity)
                    .is_some_and(|(boot, tick)| boot == recorded_boot && tick >= recorded_tick)
        });
        left && processes.signal_group(service.pid, signal)
    }
}
