//! One plugin process, from its start to the certainty that it is gone.
//!
//! Promises: it dies with us (even when we are killed), its output never blocks it, its sockets lie
//! in a folder nobody else can enter and which goes with it, and every failure ends in a kill of
//! its whole process group.

use std::collections::BTreeSet;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_plugin::tls::Identity;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::process::{Child, ChildStdout};
use tokio::task::JoinSet;

use super::Tools;
use super::environment::{Offer, environment};
use super::find::Found;
use super::form;
use super::handshake::{self, Greeting, HandshakeError, LINE_BYTES_MAX};
use super::lock;
use super::relay::{Relay, drain};
use crate::disk::{Disk, EntryKind};
use crate::process::{Launch, Processes, Signal};
use crate::random::hex_of;
use crate::report::Report;
use crate::resource::Value;

/// First part of the name of every socket folder.
const FOLDER_PREFIX: &str = "tidegate-plugin-";
/// Says, in a socket folder, which host it is of.
const HOST_FILE: &str = "host";
const HOST_BYTES_MAX: u64 = 4096;
/// A socket's whole path has to fit into 107 bytes: our folder's name has up to 41 of them, and a plugin of
/// ours adds 27 at most.
const FOLDER_PARENT_BYTES_MAX: usize = 38;
/// The code of a plugin that ended before it was ready.
pub(super) const EXITED: &str = "plugin/exited";
/// Between two looks whether a process has ended, where nobody says so.
const STEP: Duration = Duration::from_millis(2);
/// How long the last words of a plugin that broke are waited for.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A running plugin.
#[derive(Debug)]
pub(super) struct Running {
    name: String,
    child: Child,
    pid: u32,
    /// Says that it has ended, where the system does.
    end: Option<AsyncFd<OwnedFd>>,
    _folder: SocketFolder,
    tools: Tools,
    relay: Arc<Relay>,
    /// Readers of its output; they end with it.
    readers: JoinSet<()>,
    is_gone: bool,
}

/// A folder only we can enter, removed when this value goes.
#[derive(Debug)]
struct SocketFolder {
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        // Nobody is left to hear about a failure; the next run sweeps.
        drop(self.disk.remove_tree(&self.path));
    }
}

impl SocketFolder {
    fn make(tools: &Tools) -> Result<Self, Report> {
        let temporary = tools
            .variables
            .non_empty("TMPDIR")
            .filter(|path| path.starts_with('/') && path.len() <= FOLDER_PARENT_BYTES_MAX)
            .unwrap_or("/tmp");
        let parent = Path::new(temporary);
        sweep(tools.disk.as_ref(), tools.processes.as_ref(), parent);
        let path = parent.join(format!(
            "{FOLDER_PREFIX}{}-{}",
            tools.processes.own_pid(),
            hex_of::<8>(tools.random.as_ref())
        ));
        tools
            .disk
            .create_directories(&path, 0o700)
            .and_then(|()| {
                let mark = tools.processes.own_mark();
                let file = path.join(HOST_FILE);
                tools.disk.append(&file, mark.as_bytes(), 0o600, false)
            })
            .map_err(|error| {
                Report::error(
                    "plugin/start",
                    "no folder for a plugin's socket can be made",
                )
                .caused_by(&error)
                .fix("set TMPDIR to a folder that can be written")
            })?;
        Ok(Self {
            path,
            disk: Arc::clone(&tools.disk),
        })
    }
}

/// Removes the socket folders of hosts that were killed; once in a run is enough. A number alone says
/// nothing about a host that runs elsewhere, such as in another container with the same folder.
fn sweep(disk: &dyn Disk, processes: &dyn Processes, parent: &Path) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if !swept.insert(parent.to_path_buf()) {
        return;
    }
    drop(swept);
    // Best effort: somebody else's folder, or a name that is not text, is none of our business.
    for name in disk.list(parent).unwrap_or_default() {
        let host = name
            .strip_prefix(FOLDER_PREFIX)
            .and_then(|rest| rest.split_once('-'))
            .and_then(|(pid, _)| pid.parse().ok());
        let Some(host) = host else { continue };
        let path = parent.join(&name);
        if !matches!(disk.entry(&path), Ok(Some(EntryKind::Directory))) {
            continue;
        }
        match disk.read(&path.join(HOST_FILE), HOST_BYTES_MAX) {
            Ok(mark) => {
                if processes.is_certainly_gone(&String::from_utf8_lossy(&mark)) {
                    drop(disk.remove_tree(&path));
                }
            }
            // Killed before it could say who it is: there is nothing in there.
            Err(error) if error.is_not_found() && processes.entry(host).is_none() => {
                drop(disk.remove_if_empty(&path));
            }
            Err(_) => {}
        }
    }
}

impl Running {
    /// Starts a plugin and reads its handshake. With an identity it is offered TLS.
    pub(super) async fn start(
        plugin: &Found,
        base: &Path,
        declared: Option<&Value>,
        identity: Option<&Identity>,
        tools: &Tools,
    ) -> Result<(Self, Greeting), Report> {
        let executable = plugin.executable();
        if let Ok(Some(EntryKind::Directory) | None) = tools.disk.entry(&executable) {
            return Err(Report::error(
                "plugin/no-executable",
                format!("plugin `{}` has no executable", plugin.name),
            )
            .because(format!("`{}` is not a file", executable.display()))
            .fix("install the plugin again"));
        }
        let pins = lock::pins(tools.disk.as_ref(), base, plugin)?;
        lock::check(tools.disk.as_ref(), &pins, &plugin.name, &executable)?;
        lock::check_files(tools.disk.as_ref(), &pins, plugin)?;
        form::check(tools.disk.as_ref(), &plugin.name, &executable)?;
        let folder = SocketFolder::make(tools)?;
        let environment = environment(
            &tools.variables,
            &plugin.manifest,
            declared,
            &folder.path,
            identity.map(|identity| Offer {
                certificate: identity.pem(),
                host: tools.processes.own_pid(),
            }),
            &tools.masker,
        )?;
        let launch = Launch {
            program: executable.clone(),
            arguments: Vec::new(),
            environment,
            directory: plugin.directory.clone(),
        };
        let not_started = |why: &dyn std::error::Error| {
            Report::error(
                "plugin/start",
                format!("plugin `{}` cannot be started", plugin.name),
            )
            .caused_by(why)
        };
        let mut child = tools
            .processes
            .spawn_supervised(&launch)
            .map_err(|error| not_started(&error))?;
        let (Some(stdout), Some(stderr), Some(pid)) =
            (child.stdout.take(), child.stderr.take(), child.id())
        else {
            return Err(not_started(&std::io::Error::other("it has no pipes")));
        };
        let relay = Relay::new(&plugin.name, Arc::clone(&tools.reporter));
        let mut readers = JoinSet::new();
        readers.spawn(drain(stderr, Vec::new(), Arc::clone(&relay)));
        let mut running = Self {
            name: plugin.name.clone(),
            child,
            pid,
            end: tools.processes.watch(pid).and_then(watched),
            _folder: folder,
            tools: tools.clone(),
            relay,
            readers,
            is_gone: false,
        };
        // From here on, dropping `running` kills.
        let greeting = running.handshake(stdout, identity.is_some()).await?;
        // What was compared is a file; what counts is what runs. Between the two somebody may have
        // put another file there, so the running image is compared as well.
        let image = if lock::is_script(tools.disk.as_ref(), &pins, &executable) {
            // What runs is its interpreter; the script itself is compared once more.
            executable.clone()
        } else {
            PathBuf::from(format!("/proc/{pid}/exe"))
        };
        lock::check(tools.disk.as_ref(), &pins, &plugin.name, &image)?;
        Ok((running, greeting))
    }

    /// Its process number.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Where this process's output goes.
    pub(super) fn relay(&self) -> &Arc<Relay> {
        &self.relay
    }

    /// Runs a reader for as long as the process lives.
    pub(super) fn read(&mut self, reader: impl Future<Output = ()> + Send + 'static) {
        self.readers.spawn(reader);
    }

    async fn handshake(
        &mut self,
        mut stdout: ChildStdout,
        is_tls_offered: bool,
    ) -> Result<Greeting, Report> {
        let limit = self.tools.deadlines.handshake;
        let line = tokio::select! {
            biased;
            line = first_line(&mut stdout) => line,
            // A child of its own may hold the pipe open: that it ended has to be seen by itself.
            _ended = self.wait_until_ended(limit) => {
                if self.wait_until_ended(Duration::ZERO).await {
                    FirstLine::Closed
                } else {
                    let report = Report::error(
                        "plugin/handshake-timeout",
                        format!(
                            "plugin `{}` did not say where it listens within {} s",
                            self.name,
                            limit.as_secs()
                        ),
                    );
                    return Err(self.explained(report).await);
                }
            }
        };
        match line {
            FirstLine::Line(line, rest) => match handshake::parse(&line, is_tls_offered) {
                Ok(greeting) => {
                    let relay = Arc::clone(&self.relay);
                    self.readers.spawn(drain(stdout, rest, relay));
                    Ok(greeting)
                }
                Err(error) => Err(self.refused(&error).await),
            },
            FirstLine::TooLong => {
                let error = HandshakeError::Unrecognised(format!(
                    "it is longer than {LINE_BYTES_MAX} bytes"
                ));
                Err(self.refused(&error).await)
            }
            FirstLine::Closed => {
                let ended = self.wait_until_ended(LAST_WORDS).await;
                // While its number is still its own: what it started goes with it.
                self.kill();
                let status = match ended {
                    true => self.child.try_wait().ok().flatten(),
                    false => None,
                };
                let report = match status {
                    Some(status) => {
                        self.is_gone = true;
                        Report::error(
                            EXITED,
                            format!(
                                "plugin `{}` ended before it was ready ({status})",
                                self.name
                            ),
                        )
                    }
                    None => Report::error(
                        "plugin/handshake-unrecognised",
                        format!(
                            "plugin `{}` closed its output before it was ready",
                            self.name
                        ),
                    ),
                };
                Err(self.explained(report).await)
            }
        }
    }

    async fn refused(&mut self, error: &HandshakeError) -> Report {
        let report = Report::error(
            error.code(),
            format!(
                "plugin `{}` cannot be used: {}",
                self.name,
                self.tools.excerpt(&error.to_string())
            ),
        );
        self.explained(report).await
    }

    /// Adds what the plugin said last, and where it stands.
    async fn explained(&mut self, report: Report) -> Report {
        self.tools.clock.sleep(LAST_WORDS).await;
        let mut report = report.because(format!(
            "it was started as `{}`",
            self.child_path().display()
        ));
        for line in self.relay.tail() {
            report = report.because(format!("it said: {}", self.tools.excerpt(&line)));
        }
        // It runs well here, and speaks another version of what we speak.
        if report.code.ends_with("-mismatch") {
            return report
                .fix("install a release of the plugin for this host, or another tidegate");
        }
        report
            .fix("start it by hand: a plugin says on standard error that it is meant for a host")
            .fix("install a build of it for this machine")
    }

    fn child_path(&self) -> PathBuf {
        self.tools
            .disk
            .canonical(&PathBuf::from(format!("/proc/{}/cwd", self.pid)))
            .map(|directory| directory.join(&self.name))
            .unwrap_or_else(|_| PathBuf::from(&self.name))
    }

    /// True when it ended within the time. It is not reaped yet, so its number is still its own.
    async fn wait_until_ended(&self, limit: Duration) -> bool {
        let clock = &self.tools.clock;
        if let Some(end) = &self.end {
            let told = tokio::select! {
                biased;
                told = end.readable() => told.is_ok(),
                () = clock.sleep(limit) => false,
            };
            // It may have ended this moment, and nobody has heard of it yet.
            return told || self.has_ended();
        }
        let deadline = clock.monotonic() + limit;
        loop {
            if self.has_ended() {
                return true;
            }
            if clock.monotonic() >= deadline {
                return false;
            }
            clock.sleep(STEP).await;
        }
    }

    fn has_ended(&self) -> bool {
        let entry = self.tools.processes.entry(self.pid);
        entry.is_none_or(|entry| entry.ended)
    }

    /// Asks it to end through `ask`, gives it time, then ends it and everything it started.
    pub(super) async fn stop(mut self, ask: impl Future<Output = ()>) {
        let limit = self.tools.deadlines.stop;
        let clock = Arc::clone(&self.tools.clock);
        // Whatever comes back, a broken connection too, means the same: it was told.
        let told = async {
            tokio::select! {
                () = ask => {}
                () = clock.sleep(limit) => {}
            }
            self.wait_until_ended(limit).await
        };
        let _ended = told.await;
        self.kill();
        if self.wait_until_ended(limit).await {
            drop(self.child.wait().await);
            self.is_gone = true;
        }
        // A child of its own may hold the pipes for ever; it was killed with the group, but it may
        // also have left the group, and we do not wait for it.
        self.readers.abort_all();
    }

    fn kill(&self) {
        if !self.is_gone {
            self.tools.processes.signal_group(self.pid, Signal::Kill);
        }
    }
}

#[expect(
    deprecated,
    reason = "it trusts a descriptor to stay what it is, and an owned one does"
)]
fn watched(handle: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(handle, Interest::READABLE).ok()
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

enum FirstLine {
    /// The line without its end, and what was read beyond it.
    Line(Vec<u8>, Vec<u8>),
    TooLong,
    Closed,
}

async fn first_line(stdout: &mut ChildStdout) -> FirstLine {
    let mut read = Vec::new();
    let mut chunk = vec![0_u8; 4096];
    loop {
        match stdout.read(&mut chunk).await {
            Ok(0) | Err(_) if read.is_empty() => return FirstLine::Closed,
            // Without its end it may be half a line.
            Ok(0) | Err(_) => return FirstLine::Line(read, Vec::new()),
            Ok(count) => {
                let before = read.len();
                read.extend_from_slice(&chunk[..count]);
                let end = chunk[..count].iter().position(|byte| *byte == b'\n');
                if let Some(end) = end {
                    let rest = read.split_off(before + end + 1);
                    read.pop();
                    return FirstLine::Line(read, rest);
                }
                if read.len() > LINE_BYTES_MAX {
                    return FirstLine::TooLong;
                }
            }
        }
    }
}
