//! `tidegate __supervise <folder>`: keeps one service running, alone in its session, until it is
//! told to stop, its folder is taken away, or the machine goes down.
//!
//! Promises: at most one supervisor per folder (a lock held for life); the service dies with it;
//! secrets arrive through standard input and leave only in the service's own environment; nothing
//! the service writes reaches the log before the secrets are taken out.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Child;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use zeroize::Zeroizing;

use super::log::LogFile;
use super::status::{LOCK, Order, State, Status, is_newest};
use crate::clock::{Clock, rfc3339};
use crate::disk::{Disk, DiskExt as _, FileLock};
use crate::process::{Identity, Launch, Processes, Signal, Variable};
use crate::provider::local::folder::{FILE_MODE, MARKER};
use crate::secret::Masker;
use crate::secret::mask::Filter;

/// How long a service must live to count as started.
pub(super) const SETTLE: Duration = Duration::from_millis(300);
/// How long a service may take to end when asked to.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// Exit code when another supervisor holds the folder, or is meant to.
const BUSY: u8 = 5;

const LOCK_WAIT: Duration = Duration::from_secs(2);
const ORDER_BYTES_MAX: u64 = 16 * 1024 * 1024;
const DELAY_MIN: Duration = Duration::from_millis(200);
const DELAY_MAX: Duration = Duration::from_secs(30);
/// A service that lived this long starts afresh with the shortest delay.
const HEALTHY: Duration = Duration::from_secs(30);
/// Ends in a row after which a service counts as crashing.
const CRASHING: u32 = 3;
const WATCH: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(50);

/// The line in the log before the output of each start.
pub(super) const START_LINE: &str = "=== tidegate: service started\n";

/// The entry point of the supervisor process. `arguments` are those after `__supervise`.
pub fn supervise(
    arguments: &[OsString],
    disk: &dyn Disk,
    clock: &dyn Clock,
    processes: &dyn Processes,
    masker: &Masker,
) -> ExitCode {
    let [folder] = arguments else {
        return ExitCode::from(2);
    };
    if crate::process::detach().is_err() {
        return ExitCode::FAILURE;
    }
    let Some(order) = read_order(masker) else {
        return ExitCode::FAILURE;
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return ExitCode::FAILURE;
    };
    let folder = PathBuf::from(folder);
    runtime.block_on(async {
        let Some(lock) = take_lock(disk, clock, &folder, &order.token).await else {
            return ExitCode::from(BUSY);
        };
        let (Ok(terminate), Some(me)) = (
            signal(SignalKind::terminate()),
            processes.entry(processes.own_pid()),
        ) else {
            return ExitCode::FAILURE;
        };
        Supervisor {
            log: LogFile::open(disk, &folder),
            masker,
            disk,
            clock,
            processes,
            folder,
            me: me.identity,
            order,
            terminate,
            stopping: false,
            restarts: 0,
            last_end: String::new(),
            lock,
        }
        .run()
        .await;
        ExitCode::SUCCESS
    })
}

/// The order, its secrets known to the masker.
struct Orders {
    launch: Launch,
    revision: String,
    port: u16,
    token: String,
}

/// The whole order or nothing: whoever sent it may have died half-way.
fn read_order(masker: &Masker) -> Option<Orders> {
    let mut bytes = Zeroizing::new(Vec::new());
    std::io::stdin()
        .take(ORDER_BYTES_MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    let order: Order<String> = serde_json::from_slice(&bytes).ok()?;
    let (program, arguments) = order.command.split_first()?;
    let mut environment: std::collections::BTreeMap<String, Variable> = order
        .environment
        .into_iter()
        .map(|(name, value)| (name, Variable::Public(value)))
        .collect();
    for (name, value) in order.secret_environment {
        let secret = masker.admit(&name, value);
        environment.insert(name, Variable::Secret(secret));
    }
    Some(Orders {
        launch: Launch {
            program: program.into(),
            arguments: arguments.iter().map(OsString::from).collect(),
            environment,
            directory: order.directory,
        },
        revision: order.revision,
        port: order.port,
        token: order.token,
    })
}

/// Takes the folder's lock, unless it is held or a newer order was given meanwhile. Whoever merely
/// looks whether the lock is free holds it for a moment, hence the patience.
async fn take_lock(
    disk: &dyn Disk,
    clock: &dyn Clock,
    folder: &Path,
    token: &str,
) -> Option<Box<dyn FileLock>> {
    // A folder without a marker is not a service's (any more).
    let is_meant = || {
        matches!(disk.entry(&folder.join(MARKER)), Ok(Some(_)))
            && matches!(is_newest(disk, folder, token), Ok(true))
    };
    let deadline = clock.monotonic() + LOCK_WAIT;
    while is_meant() {
        match disk.try_lock(&folder.join(LOCK)) {
            // Asked again under the lock, where nobody can give another order.
            Ok(Some(lock)) => return is_meant().then_some(lock),
            Ok(None) if clock.monotonic() < deadline => clock.sleep(STEP).await,
            Ok(None) | Err(_) => return None,
        }
    }
    None
}

struct Supervisor<'a> {
    disk: &'a dyn Disk,
    clock: &'a dyn Clock,
    processes: &'a dyn Processes,
    folder: PathBuf,
    me: Identity,
    order: Orders,
    /// Knows the secrets the service was given.
    masker: &'a Masker,
    log: LogFile,
    terminate: SignalStream,
    stopping: bool,
    restarts: u64,
    last_end: String,
    /// Ours as long as the folder is.
    lock: Box<dyn FileLock>,
}

impl Supervisor<'_> {
    async fn run(mut self) {
        let mut failures = 0_u32;
        while !self.stopping {
            let started = self.clock.monotonic();
            self.append(START_LINE.as_bytes());
            match self.processes.spawn_supervised(&self.order.launch) {
                Ok(child) => {
                    let ended = self.watch(child).await;
                    let lived = self.clock.monotonic().saturating_sub(started);
                    self.last_end = format!("{ended} after {} ms", lived.as_millis());
                    if lived >= HEALTHY {
                        failures = 0;
                    }
                }
                Err(error) => {
                    self.append(format!("tidegate: {error}\n").as_bytes());
                    self.last_end = "it could not be started".to_owned();
                }
            }
            if self.stopping {
                break;
            }
            failures = failures.saturating_add(1);
            self.say(
                if failures >= CRASHING {
                    State::Crashing
                } else {
                    State::Restarting
                },
                None,
            );
            self.pause(delay(failures)).await;
            self.restarts += 1;
        }
        self.say(State::Stopped, None);
    }

    /// Stays with one run of the service until its first process has ended and its group is gone.
    async fn watch(&mut self, mut child: Child) -> String {
        let leader = child.id().unwrap_or(0);
        let identity = self.processes.entry(leader).map(|entry| entry.identity);
        self.say(State::Starting, identity.clone());
        let started = self.clock.monotonic();
        let mut output = [
            Stream::new(child.stdout.take().map(Pipe::Out), self.masker),
            Stream::new(child.stderr.take().map(Pipe::Err), self.masker),
        ];
        let mut settled = false;
        let mut kill_at: Option<Duration> = None;
        let mut tick = self.clock.sleep(SETTLE);
        let ended: std::io::Result<ExitStatus> = loop {
            let [out, err] = &mut output;
            tokio::select! {
                ended = child.wait() => break ended,
                () = out.read() => self.append_lines(out),
                () = err.read() => self.append_lines(err),
                _ = self.terminate.recv(), if !self.stopping => self.stopping = true,
                () = &mut tick => {
                    for stream in [out, err] {
                        let beginning = stream.beginning();
                        self.append(&beginning);
                    }
                    let now = self.clock.monotonic();
                    if !settled && kill_at.is_none() && now.saturating_sub(started) >= SETTLE {
                        settled = true;
                        self.say(State::Running, identity.clone());
                    }
                    if !self.is_wanted() {
                        self.stopping = true;
                    }
                    self.reap_orphans(leader);
                    if kill_at.is_some_and(|at| now >= at) {
                        self.processes.signal_group(leader, Signal::Kill);
                    }
                    tick = self.clock.sleep(if self.stopping { STEP } else { WATCH });
                }
            }
            if self.stopping && kill_at.is_none() {
                self.processes.signal_group(leader, Signal::Terminate);
                kill_at = Some(self.clock.monotonic() + GRACE);
                tick = self.clock.sleep(STEP);
            }
        };
        self.end_group(leader, kill_at).await;
        for stream in &mut output {
            stream.drain(self.clock).await;
            stream.finish();
            let taken = std::mem::take(&mut stream.filtered);
            self.append(&taken);
        }
        match ended {
            Ok(status) => format!("it ended with {status}"),
            Err(error) => format!("it was lost: {error}"),
        }
    }

    /// The first process is gone; what it started goes too, so that nothing keeps its port.
    async fn end_group(&mut self, leader: u32, kill_at: Option<Duration>) {
        let deadline = kill_at.unwrap_or_else(|| self.clock.monotonic() + Duration::from_secs(1));
        let group = |entry: &crate::process::Entry| {
            entry.group == leader && entry.session == self.me.pid && !entry.ended
        };
        self.processes_matching(group, |supervisor| {
            supervisor.processes.signal_group(leader, Signal::Terminate);
        });
        for _ in 0..200 {
            self.reap_orphans(leader);
            let late = self.clock.monotonic() >= deadline;
            let any = self.processes_matching(group, |supervisor| {
                if late {
                    supervisor.processes.signal_group(leader, Signal::Kill);
                }
            });
            if !any {
                break;
            }
            self.clock.sleep(STEP).await;
        }
        // Whatever left the group (a daemon) became our child when its parent ended.
        let me = self.me.pid;
        for _ in 0..40 {
            let orphans: Vec<Identity> = self
                .processes
                .table()
                .into_iter()
                .filter(|entry| entry.parent == me)
                .map(|entry| entry.identity)
                .collect();
            if orphans.is_empty() {
                break;
            }
            for orphan in &orphans {
                self.processes.signal(orphan, Signal::Kill);
                self.processes.reap(orphan.pid);
            }
            self.clock.sleep(STEP / 2).await;
        }
    }

    fn processes_matching(
        &self,
        matching: impl Fn(&crate::process::Entry) -> bool,
        act: impl FnOnce(&Self),
    ) -> bool {
        let any = self.processes.table().iter().any(matching);
        if any {
            act(self);
        }
        any
    }

    fn reap_orphans(&self, leader: u32) {
        for entry in self.processes.table() {
            if entry.ended && entry.parent == self.me.pid && entry.identity.pid != leader {
                self.processes.reap(entry.identity.pid);
            }
        }
    }

    /// Waits before the next start; a request to stop, or a folder taken away, ends the wait.
    async fn pause(&mut self, delay: Duration) {
        let deadline = self.clock.monotonic() + delay;
        while !self.stopping {
            let left = deadline.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                _ = self.terminate.recv() => self.stopping = true,
                () = self.clock.sleep(left.min(WATCH)) => self.stopping = !self.is_wanted(),
            }
        }
    }

    /// False once our order was withdrawn, or the folder removed under us (when nobody could ever
    /// stop us again). An unreadable disk is no reason to stop.
    fn is_wanted(&self) -> bool {
        !matches!(
            is_newest(self.disk, &self.folder, &self.order.token),
            Ok(false)
        )
    }

    fn say(&self, state: State, service: Option<Identity>) {
        // A folder of that name may be there again, with a supervisor of its own.
        if !self.lock.is_in_place() {
            return;
        }
        let status = Status {
            format: 1,
            state,
            supervisor: self.me.clone(),
            service,
            revision: self.order.revision.clone(),
            token: self.order.token.clone(),
            port: self.order.port,
            restarts: self.restarts,
            since: rfc3339(self.clock.now()),
            last_end: self.last_end.clone(),
        };
        if let Ok(text) = serde_json::to_vec_pretty(&status) {
            // A full disk must not stop the service; whoever waits for the status sees none.
            drop(
                self.disk
                    .write_atomic(&Status::path(&self.folder), &text, FILE_MODE),
            );
        }
    }

    fn append_lines(&mut self, stream: &mut Stream) {
        let lines = stream.lines();
        self.append(&lines);
    }

    fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || !self.lock.is_in_place() {
            return;
        }
        // A full disk loses log lines; it must not stop the service.
        drop(self.log.append(self.disk, bytes));
    }
}

/// How long to wait before start number `failures` + 1.
fn delay(failures: u32) -> Duration {
    DELAY_MIN
        .saturating_mul(
            1_u32
                .checked_shl(failures.saturating_sub(1))
                .unwrap_or(u32::MAX),
        )
        .min(DELAY_MAX)
}

/// Where the last whole line ends.
fn end_of_lines(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|byte| *byte == b'\n');
    last.map_or(0, |at| at + 1)
}

enum Pipe {
    Out(tokio::process::ChildStdout),
    Err(tokio::process::ChildStderr),
}

/// One output of the service on its way to the log.
struct Stream {
    pipe: Option<Pipe>,
    filter: Filter,
    buffer: Box<[u8; 16 * 1024]>,
    filtered: Vec<u8>,
    /// What is in `filtered` was there at the last look already.
    is_quiet: bool,
}

impl Stream {
    fn new(pipe: Option<Pipe>, masker: &Masker) -> Self {
        Self {
            pipe,
            filter: masker.filter(),
            buffer: Box::new([0; 16 * 1024]),
            filtered: Vec::new(),
            is_quiet: false,
        }
    }

    /// Reads once and filters. Never returns on a pipe that is closed.
    async fn read(&mut self) {
        let read = match &mut self.pipe {
            Some(Pipe::Out(pipe)) => pipe.read(&mut self.buffer[..]).await,
            Some(Pipe::Err(pipe)) => pipe.read(&mut self.buffer[..]).await,
            None => std::future::pending().await,
        };
        match read {
            Ok(bytes) if bytes > 0 => self.take(bytes),
            Ok(_) | Err(_) => self.pipe = None,
        }
    }

    /// Filters so many bytes of the buffer. A line is a message: its end does not wait for the next.
    fn take(&mut self, bytes: usize) {
        let read = &self.buffer[..bytes];
        let (lines, rest) = read.split_at(end_of_lines(read));
        if !lines.is_empty() {
            self.filter.push(lines, &mut self.filtered);
            self.filter.end_message(&mut self.filtered);
        }
        self.filter.push(rest, &mut self.filtered);
    }

    /// The whole lines, so that those of the other output do not end up in the middle of one. What is
    /// too long for a line goes as far as it came.
    fn lines(&mut self) -> Vec<u8> {
        const BYTES_MAX: usize = 64 * 1024;
        let until = match self.filtered.len() {
            length if length > BYTES_MAX => length,
            _ => end_of_lines(&self.filtered),
        };
        let rest = self.filtered.split_off(until);
        self.is_quiet = false;
        std::mem::replace(&mut self.filtered, rest)
    }

    /// The beginning of a line, such as a prompt, when nothing has come after it since the last look.
    fn beginning(&mut self) -> Vec<u8> {
        if std::mem::replace(&mut self.is_quiet, true) {
            std::mem::take(&mut self.filtered)
        } else {
            Vec::new()
        }
    }

    /// Takes what is still in the pipe, but does not wait for someone who kept it open.
    async fn drain(&mut self, clock: &dyn Clock) {
        const BYTES_MAX: usize = 1024 * 1024;
        while self.pipe.is_some() && self.filtered.len() < BYTES_MAX {
            tokio::select! {
                biased;
                () = self.read() => {}
                () = clock.sleep(STEP) => return,
            }
        }
    }

    fn finish(&mut self) {
        self.filter.finish(&mut self.filtered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The letters and the line end that a secret could begin with are not kept for the next line.
    #[test]
    fn lines_of_two_outputs_stay_whole_beside_a_secret() {
        let masker = Masker::default();
        let _secret = masker.admit("test", "danger-zone-4711".to_owned());
        let mut stream = Stream::new(None, &masker);
        let mut said = |text: &str| {
            stream.buffer[..text.len()].copy_from_slice(text.as_bytes());
            stream.take(text.len());
            String::from_utf8(stream.lines()).unwrap()
        };
        assert_eq!(said("all is fine and dan\n"), "all is fine and dan\n");
        assert_eq!(said("no route to d\nhalf a "), "no route to d\n");
        assert_eq!(said("line\nkey=danger-zo"), "half a line\n");
        assert_eq!(said("ne-4711\nready> "), "key=***\n");
        assert!(stream.beginning().is_empty(), "more may come");
        assert_eq!(stream.beginning(), b"ready> ");
        assert!(stream.beginning().is_empty());
    }

    #[test]
    fn delays_double_up_to_half_a_minute() {
        let seconds: Vec<f32> = [1, 2, 3, 8, 9, 40, u32::MAX]
            .map(|failures| delay(failures).as_secs_f32())
            .into();
        assert_eq!(seconds, [0.2, 0.4, 0.8, 25.6, 30.0, 30.0, 30.0]);
    }
}
