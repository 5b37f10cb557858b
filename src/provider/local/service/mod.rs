//! `infra.container_service`: a command kept running by a supervisor of its own.
//!
//! The truth about a service is its folder: the lock says whether a supervisor lives, the status
//! file says what it does and for which revision of the config. A run that was killed at any moment
//! leaves either nothing or a folder that the next run reads, takes over or clears.

mod log;
mod probe;
mod settings;
mod status;
mod supervisor;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

pub use supervisor::supervise;

use self::log::{LOG, LOG_BYTES_MAX, tail};
use self::probe::probe;
use self::settings::{Settings, inherited, recorded_health_path, revision};
pub(super) use self::settings::{faults, keys};
use self::status::{LOCK, Order, State, Status, TOKEN, is_newest};
use self::supervisor::{GRACE, START_LINE};
use super::SharedRandom;
use super::check::Problems;
use super::folder::{Folders, disk_failed};
use super::storage::{gone, place_changes, verdict};
use crate::clock::Clock;
use crate::disk::{EntryKind, FileLock};
use crate::process::{Identity, Launch, Processes, Signal, Variable};
use crate::provider::{
    Driver, DriverError, DriverResult, ErrorClass, Health, Operation, config_changes,
};
use crate::random::hex_of;
use crate::resource::{Address, Diff, FieldChange, Observed, Output, Outputs, Recorded, Spec};
use crate::secret::Masker;
use crate::variables::Variables;

/// The word in front of a supervisor's folder: `tidegate __supervise <folder>`.
pub const SUPERVISE_COMMAND: &str = "__supervise";

/// Every output there is; none is a secret.
pub(super) const OUTPUTS: &[&str] = &["live_url", "log_path", "name", "port", "revision"];

const START_WAIT: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(20);
const PROBE_WAIT: Duration = Duration::from_secs(5);

/// The driver.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) folders: Folders,
    /// The config's directory.
    pub(super) base: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: SharedRandom,
    pub(super) processes: Arc<dyn Processes>,
    /// Our own executable, which is the supervisor too.
    pub(super) executable: PathBuf,
    pub(super) variables: Variables,
    /// Hides what other resources' secrets a service printed.
    pub(super) masker: Masker,
    /// Ports given out by this process: a service may not have bound its own yet.
    pub(super) ports: Mutex<BTreeSet<u16>>,
}

/// What a look at a folder shows.
struct Seen {
    status: Option<Status>,
    /// The supervisor lives.
    supervised: bool,
    /// Its order stands. False when a run that was to stop it was itself cut off.
    wanted: bool,
}

impl Seen {
    fn word(&self) -> &'static str {
        match &self.status {
            Some(status) if self.supervised && self.wanted => status.state.word(),
            Some(_) if self.supervised => "stopping",
            _ => State::Stopped.word(),
        }
    }

    /// True when there is nothing to repair: a start is under way, or one end was a single slip.
    fn is_up(&self) -> bool {
        self.supervised
            && self.wanted
            && self.status.as_ref().is_some_and(|status| {
                matches!(
                    status.state,
                    State::Starting | State::Running | State::Restarting
                )
            })
    }
}

impl Service {
    fn look(&self, address: &Address, folder: &Path) -> DriverResult<Seen> {
        let disk = self.folders.disk();
        let status = Status::read(disk, folder).map_err(|error| disk_failed(address, &error))?;
        let supervised = status
            .as_ref()
            .is_some_and(|status| self.processes.is_alive(&status.supervisor));
        let wanted = match &status {
            Some(status) => is_newest(disk, folder, &status.token)
                .map_err(|error| disk_failed(address, &error))?,
            None => false,
        };
        Ok(Seen {
            status,
            supervised,
            wanted,
        })
    }

    /// Ends supervisor, service and whatever a dead supervisor left, and returns holding the lock.
    async fn stop(&self, address: &Address, folder: &Path) -> DriverResult<Box<dyn FileLock>> {
        let disk = self.folders.disk();
        disk.remove_file(&folder.join(TOKEN))
            .map_err(|error| disk_failed(address, &error))?;
        let deadline = self.clock.monotonic() + GRACE + Duration::from_secs(5);
        let mut told = None;
        let lock = loop {
            // A supervisor that is starting holds the lock before it has a status.
            let status =
                Status::read(disk, folder).map_err(|error| disk_failed(address, &error))?;
            let supervisor = status.map(|status| status.supervisor);
            let late = self.clock.monotonic() >= deadline;
            if let Some(supervisor) = supervisor
                && (late || told.as_ref() != Some(&supervisor))
            {
                let signal = if late {
                    Signal::Kill
                } else {
                    Signal::Terminate
                };
                self.processes.signal(&supervisor, signal);
                told = Some(supervisor);
            }
            let free = disk
                .try_lock(&folder.join(LOCK))
                .map_err(|error| disk_failed(address, &error))?;
            if let Some(lock) = free {
                break lock;
            }
            if self.clock.monotonic() >= deadline + Duration::from_secs(2) {
                return Err(DriverError::new(
                    ErrorClass::Conflict,
                    format!(
                        "`{address}`: another process holds `{}` and does not end; end it, then \
                         run again",
                        folder.join(LOCK).display()
                    ),
                ));
            }
            self.clock.sleep(STEP).await;
        };
        let status = Status::read(disk, folder).map_err(|error| disk_failed(address, &error))?;
        if let Some(status) = status {
            let patience = self.clock.monotonic() + Duration::from_secs(1);
            let limit = patience + Duration::from_secs(2);
            loop {
                let now = self.clock.monotonic();
                let signal = if now >= patience {
                    Signal::Kill
                } else {
                    Signal::Terminate
                };
                if !status.end_leftovers(&*self.processes, signal) || now >= limit {
                    break;
                }
                self.clock.sleep(STEP).await;
            }
        }
        Ok(lock)
    }

    /// Starts a supervisor in a folder where none is, and waits until the service has settled.
    async fn start(
        &self,
        address: &Address,
        folder: &Path,
        settings: &Settings,
        port: u16,
        revision: &str,
        token: &str,
    ) -> DriverResult<()> {
        let order = self.order(settings, port, revision, token);
        // Room for everything: a vector that grows leaves copies of secrets behind.
        let size: usize = settings
            .secret_environment
            .values()
            .map(|s| s.len_bytes())
            .sum();
        let mut input = Zeroizing::new(Vec::with_capacity(size * 6 + 256 * 1024));
        serde_json::to_writer(&mut *input, &order).map_err(|error| {
            DriverError::new(ErrorClass::Invalid, format!("`{address}`: {error}"))
        })?;
        let launch = Launch {
            program: self.executable.clone(),
            arguments: vec![SUPERVISE_COMMAND.into(), folder.into()],
            environment: inherited(&self.variables)
                .into_iter()
                .map(|(name, value)| (name, Variable::Public(value)))
                .collect(),
            directory: PathBuf::from("/"),
        };
        let supervisor = self
            .processes
            .spawn_detached(&launch, &input)
            .map_err(|error| {
                DriverError::new(
                    ErrorClass::Unknown,
                    format!("`{address}`: its supervisor does not start: {error}; run again"),
                )
            })?;
        let settled = self.settled(address, folder, settings, &supervisor).await;
        if settled.is_err() {
            // Told directly: it may not have been able to leave a status.
            self.processes.signal(&supervisor, Signal::Terminate);
        }
        settled
    }

    /// Waits until the service of this very supervisor has settled, or has not.
    async fn settled(
        &self,
        address: &Address,
        folder: &Path,
        settings: &Settings,
        supervisor: &Identity,
    ) -> DriverResult<()> {
        let deadline = self.clock.monotonic() + START_WAIT;
        loop {
            let status = Status::read(self.folders.disk(), folder)
                .map_err(|error| disk_failed(address, &error))?
                .filter(|status| status.supervisor == *supervisor);
            match status {
                Some(status) if status.state == State::Running => return Ok(()),
                Some(status) if status.state != State::Starting => {
                    return Err(self.failed_start(address, folder, settings, &status.last_end));
                }
                _ if self.clock.monotonic() >= deadline => {
                    return Err(DriverError::new(
                        ErrorClass::Transient,
                        format!(
                            "`{address}`: the service did not start within {} s; run again",
                            START_WAIT.as_secs()
                        ),
                    ));
                }
                _ if !self.processes.is_alive(supervisor) => {
                    return Err(DriverError::new(
                        ErrorClass::Conflict,
                        format!(
                            "`{address}`: its supervisor gave way at once; another one may hold \
                             `{}`; run again",
                            folder.join(LOCK).display()
                        ),
                    ));
                }
                _ => self.clock.sleep(STEP).await,
            }
        }
    }

    fn order<'a>(
        &self,
        settings: &'a Settings,
        port: u16,
        revision: &str,
        token: &str,
    ) -> Order<&'a str> {
        let mut environment = inherited(&self.variables);
        environment.insert("PORT".to_owned(), port.to_string());
        environment.insert("TIDEGATE_REVISION".to_owned(), revision.to_owned());
        environment.extend(settings.environment.clone());
        for name in settings.secret_environment.keys() {
            environment.remove(name);
        }
        Order {
            command: settings.command.clone(),
            environment,
            secret_environment: settings
                .secret_environment
                .iter()
                .map(|(name, secret)| (name.clone(), secret.expose()))
                .collect(),
            directory: settings.directory.clone(),
            port,
            revision: revision.to_owned(),
            token: token.to_owned(),
        }
    }

    fn failed_start(
        &self,
        address: &Address,
        folder: &Path,
        settings: &Settings,
        end: &str,
    ) -> DriverError {
        let log = self
            .folders
            .disk()
            .read(&folder.join(LOG), LOG_BYTES_MAX * 2)
            .unwrap_or_default();
        let lines = tail(&self.masker, &log, START_LINE);
        let said = if lines.is_empty() {
            " and wrote nothing".to_owned()
        } else {
            format!("; its last lines:{lines}")
        };
        DriverError::new(
            ErrorClass::Invalid,
            format!(
                "`{address}`: the command `{}` does not stay up: {end} (a service keeps running in \
                 the foreground){said}\n  the whole log: {}",
                settings.command.first().map_or("", String::as_str),
                folder.join(LOG).display()
            ),
        )
    }

    /// The port for a start: the one the config fixes, else the one of before, else a free one.
    fn port(
        &self,
        address: &Address,
        fixed: Option<u16>,
        before: Option<u16>,
    ) -> DriverResult<u16> {
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        let mut given = self
            .ports
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(port) = fixed {
            if !free(port) {
                return Err(DriverError::new(
                    ErrorClass::Conflict,
                    format!(
                        "`{address}`: port {port} of 127.0.0.1 is in use by another process; end \
                         it, or set `http_port: 0` for any free port"
                    ),
                ));
            }
            given.insert(port);
            return Ok(port);
        }
        if let Some(port) = before.filter(|port| free(*port)) {
            given.insert(port);
            return Ok(port);
        }
        for _ in 0..100 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .and_then(|listener| listener.local_addr())
                .map(|address| address.port());
            match port {
                Ok(port) if given.insert(port) => return Ok(port),
                Ok(_) => {}
                Err(error) => {
                    return Err(DriverError::new(
                        ErrorClass::Transient,
                        format!("`{address}`: no free port on 127.0.0.1: {error}"),
                    ));
                }
            }
        }
        Err(DriverError::new(
            ErrorClass::Transient,
            format!("`{address}`: no free port on 127.0.0.1; try again later"),
        ))
    }

    /// Stops what runs in a folder of ours and starts what is desired.
    async fn restart(
        &self,
        desired: &Spec,
        folder: &Path,
        before: Option<u16>,
    ) -> DriverResult<Observed> {
        let address = &desired.address;
        let (settings, revision) = self.settings(desired)?;
        let lock = self.stop(address, folder).await?;
        let port = self.port(address, settings.port, before);
        // From here on no supervisor but the one that knows this token may run in the folder: one
        // that an interrupted apply started, and that is only now getting to the lock, gives way.
        let token = hex_of::<16>(&*self.random);
        self.folders
            .write(address, &folder.join(TOKEN), token.as_bytes())?;
        drop(lock);
        let partial = |port| self.observed(address, folder, "failed", port, &revision);
        let port = match port {
            Ok(port) => port,
            Err(error) => return Err(error.with_partial(partial(before.unwrap_or(0)))),
        };
        let started = self
            .start(address, folder, &settings, port, &revision, &token)
            .await;
        if let Err(error) = started {
            // What does not stay up is not left crashing in the background.
            let stopped = self.stop(address, folder).await;
            drop(stopped);
            return Err(error.with_partial(partial(port)));
        }
        Ok(self.observed(address, folder, "running", port, &revision))
    }

    fn settings(&self, desired: &Spec) -> DriverResult<(Settings, String)> {
        let mut problems = Problems::new();
        let settings = settings::read(&desired.config, &self.base, &mut problems);
        let disk = self.folders.disk();
        let place = disk.canonical(&settings.directory);
        if !place.is_ok_and(|place| matches!(disk.entry(&place), Ok(Some(EntryKind::Directory)))) {
            problems.push((
                "working_directory".to_owned(),
                format!("there is no folder `{}`", settings.directory.display()),
            ));
        }
        let revision = revision(&desired.public_config);
        match (problems.first(), revision) {
            (None, Some(revision)) => Ok((settings, revision)),
            (Some((path, sentence)), _) => Err(DriverError::new(
                ErrorClass::Invalid,
                format!("`{}`: `{path}`: {sentence}", desired.address),
            )),
            (None, None) => Err(DriverError::new(
                ErrorClass::Invalid,
                format!(
                    "`{}`: a value of its config is not known yet",
                    desired.address
                ),
            )),
        }
    }

    fn observed(
        &self,
        address: &Address,
        folder: &Path,
        status: &str,
        port: u16,
        revision: &str,
    ) -> Observed {
        let public = |text: String| Output::Public(text.into());
        let log = folder.join(LOG).to_string_lossy().into_owned();
        Observed {
            provider_id: folder.to_string_lossy().into_owned(),
            outputs: Outputs::from([
                (
                    "live_url".to_owned(),
                    public(format!("http://127.0.0.1:{port}")),
                ),
                ("log_path".to_owned(), public(log)),
                ("name".to_owned(), public(address.as_str().to_owned())),
                ("port".to_owned(), Output::Public(port.into())),
                ("revision".to_owned(), public(revision.to_owned())),
            ]),
            status: status.to_owned(),
            private: self.folders.kept(),
        }
    }
}

/// The port on record.
fn recorded_port(prior: &Recorded) -> Option<u16> {
    match prior.outputs.get("port") {
        Some(Output::Public(port)) => port.as_u64().and_then(|port| u16::try_from(port).ok()),
        _ => None,
    }
    .filter(|port| *port > 0)
}

#[async_trait]
impl Driver for Service {
    async fn create(&self, _operation: &Operation, desired: &Spec) -> DriverResult<Observed> {
        // Nothing is made for a config that cannot work.
        let (settings, _) = self.settings(desired)?;
        if let Some(port) = settings.port {
            self.port(&desired.address, Some(port), None)?;
        }
        let folder = self
            .folders
            .create(&desired.address, &desired.kind, |_| Ok(()))?;
        self.restart(desired, &folder, None).await
    }

    async fn read(&self, prior: &Recorded) -> DriverResult<Observed> {
        let found = self.folders.locate(prior)?.ok_or_else(|| gone(prior))?;
        let seen = self.look(&prior.address, &found.path)?;
        let (port, revision) = match &seen.status {
            Some(status) => (status.port, status.revision.clone()),
            None => (recorded_port(prior).unwrap_or(0), String::new()),
        };
        Ok(self.observed(&prior.address, &found.path, seen.word(), port, &revision))
    }

    async fn update(
        &self,
        operation: &Operation,
        prior: &Recorded,
        desired: &Spec,
    ) -> DriverResult<Observed> {
        let Some(found) = self.folders.locate(prior)? else {
            return self.create(operation, desired).await;
        };
        let status = Status::read(self.folders.disk(), &found.path)
            .map_err(|error| disk_failed(&prior.address, &error))?;
        let before = recorded_port(prior).or(status.map(|status| status.port));
        self.restart(desired, &found.path, before).await
    }

    async fn delete(&self, _operation: &Operation, prior: &Recorded) -> DriverResult<()> {
        if let Some(found) = self.folders.locate(prior)? {
            let lock = self.stop(&prior.address, &found.path).await?;
            self.folders.remove(prior)?;
            drop(lock);
        }
        self.folders.remove(prior)
    }

    async fn diff(&self, prior: &Recorded, desired: &Spec) -> DriverResult<Diff> {
        let mut changes = config_changes(&prior.config, &desired.public_config);
        let located = self.folders.locate(prior)?;
        changes.extend(place_changes(
            prior,
            located.as_ref(),
            &self.folders.path(&prior.address),
        ));
        if let Some(found) = located {
            let seen = self.look(&prior.address, &found.path)?;
            let mut change = |path: &str, old: &str, new: &str| {
                changes.push(FieldChange {
                    path: path.to_owned(),
                    old: old.into(),
                    new: new.into(),
                    force_new: false,
                });
            };
            if !seen.is_up() {
                change("status", seen.word(), State::Running.word());
            } else if let (Some(status), Some(wanted)) =
                (&seen.status, revision(&desired.public_config))
                && status.revision != wanted
            {
                change("revision", &status.revision, &wanted);
            }
        }
        Ok(verdict(changes))
    }

    async fn health(&self, prior: &Recorded) -> DriverResult<Health> {
        let found = self.folders.locate(prior)?.ok_or_else(|| gone(prior))?;
        let seen = self.look(&prior.address, &found.path)?;
        if !seen.is_up() {
            return Ok(Health {
                healthy: false,
                message: seen.word().to_owned(),
            });
        }
        let port = seen.status.map_or(0, |status| status.port);
        let path = recorded_health_path(&prior.config);
        Ok(tokio::select! {
            health = probe(port, path) => health,
            () = self.clock.sleep(PROBE_WAIT) => Health {
                healthy: false,
                message: format!("no answer within {} s", PROBE_WAIT.as_secs()),
            },
        })
    }

    fn is_sensitive(&self, output: &str) -> Option<bool> {
        OUTPUTS.contains(&output).then_some(false)
    }

    fn check(&self, desired: &Spec) -> Problems {
        let mut problems = Problems::new();
        settings::read(&desired.config, &self.base, &mut problems);
        problems
    }
}
