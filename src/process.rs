//! Child processes, passed in: the only place that starts, finds or signals one.
//!
//! A process is named by [`Identity`] (number *and* start time), because numbers are used again.
//! Everything here reads Linux's `/proc`; the `local` provider's services are a Linux feature.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock};

use rustix::process::{Pid, PidfdFlags, Signal as RawSignal, WaitOptions};
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// A process that cannot be taken for another one: its number, and the boot and tick it began at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process number.
    pub pid: u32,
    /// Boot id and start tick, opaque.
    pub start: String,
}

/// One row of the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who it is.
    pub identity: Identity,
    /// Process number of the parent.
    pub parent: u32,
    /// Process group.
    pub group: u32,
    /// Session.
    pub session: u32,
    /// True when it has ended and only waits to be reaped.
    pub ended: bool,
}

/// What to tell a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Please end.
    Terminate,
    /// End now.
    Kill,
}

impl Signal {
    fn raw(self) -> RawSignal {
        match self {
            Self::Terminate => RawSignal::TERM,
            Self::Kill => RawSignal::KILL,
        }
    }
}

/// A value in a child's environment.
#[derive(Clone, Debug)]
pub enum Variable {
    /// Anyone may see it.
    Public(String),
    /// Only the child may see it.
    Secret(Secret),
}

/// What to start. The child's environment is exactly `environment`; nothing is inherited.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program: a path, or a name looked up on the child's `PATH`.
    pub program: PathBuf,
    /// Its arguments. Every user of the machine can read them: never a secret.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: BTreeMap<String, Variable>,
    /// Its working directory.
    pub directory: PathBuf,
}

/// A process operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} `{}`: {source}", program.display())]
pub struct ProcessError {
    /// What was tried, as a verb phrase.
    pub operation: &'static str,
    /// The program.
    pub program: PathBuf,
    /// The operating system's answer.
    pub source: io::Error,
}

/// The only source of processes in the program.
pub trait Processes: Send + Sync + fmt::Debug {
    /// Starts a process that outlives us: standard output and error go nowhere, `input` is what it
    /// reads on standard input. Returns once all of `input` is handed over.
    fn spawn_detached(&self, launch: &Launch, input: &[u8]) -> Result<Identity, ProcessError>;
    /// Starts a child in a process group of its own, which dies with us, its output piped to us.
    /// Needs the shim: `launch` is run through [`run_shim`] of our own executable.
    fn spawn_supervised(&self, launch: &Launch) -> Result<tokio::process::Child, ProcessError>;
    /// All processes of this machine that we may see.
    fn table(&self) -> Vec<Entry>;
    /// The row of one process number.
    fn entry(&self, pid: u32) -> Option<Entry>;
    /// Becomes readable when this child of ours has ended, which leaves it to be reaped: its number
    /// stays its own. `None` where nobody says so and one has to look.
    fn watch(&self, pid: u32) -> Option<OwnedFd> {
        let _ = pid;
        None
    }
    /// Signals exactly this process; false when it is gone.
    fn signal(&self, who: &Identity, signal: Signal) -> bool;
    /// Signals a whole process group; false when it is gone.
    fn signal_group(&self, group: u32, signal: Signal) -> bool;
    /// Reaps an ended child of ours that nobody waits for.
    fn reap(&self, pid: u32);
    /// Our own process number.
    fn own_pid(&self) -> u32;

    /// This process as a later run on this machine can recognise it; empty where nobody can.
    fn own_mark(&self) -> String {
        String::new()
    }
    /// True when the process of this mark is certain to have ended: it ran here, on this start of
    /// the machine and in our own process namespace, and no process is what it was. Whatever
    /// cannot be proven is false.
    fn is_certainly_gone(&self, mark: &str) -> bool {
        let _ = mark;
        false
    }

    /// True when the process of this mark runs or ran where `is_certainly_gone` can tell: one that is
    /// not gone then lives.
    fn is_neighbour(&self, mark: &str) -> bool {
        let _ = mark;
        false
    }

    /// True when this very process still runs.
    fn is_alive(&self, who: &Identity) -> bool {
        self.entry(who.pid)
            .is_some_and(|entry| entry.identity == *who && !entry.ended)
    }
}

/// The machine's processes.
#[derive(Debug)]
pub struct SystemProcesses {
    /// The program whose [`RUN_COMMAND`] ties a supervised child to us.
    shim: PathBuf,
    /// Detached children, kept so that an ended one does not stay behind as a zombie of ours.
    detached: Mutex<Vec<std::process::Child>>,
}

impl Default for SystemProcesses {
    fn default() -> Self {
        // Our executable, even after the file was replaced or removed.
        Self::with_shim(PathBuf::from("/proc/self/exe"))
    }
}

/// The word in front of a supervised command line: `tidegate __run <parent> -- <command…>`.
pub const RUN_COMMAND: &str = "__run";

/// Exit code of the shim when the command cannot be started (the shell's number for it).
const NOT_STARTED: u8 = 127;

#[expect(
    clippy::disallowed_methods,
    reason = "this module is the one owner of the machine's processes and of /proc"
)]
mod system {
    use std::io::Write as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn prepare(program: &PathBuf, launch: &Launch) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&launch.directory).env_clear();
        for (name, value) in &launch.environment {
            match value {
                Variable::Public(text) => command.env(name, text),
                Variable::Secret(secret) => command.env(name, secret.expose()),
            };
        }
        command
    }

    fn failed(operation: &'static str, launch: &Launch) -> impl FnOnce(io::Error) -> ProcessError {
        let program = launch.program.clone();
        move |source| ProcessError {
            operation,
            program,
            source,
        }
    }

    impl Processes for SystemProcesses {
        fn spawn_detached(&self, launch: &Launch, input: &[u8]) -> Result<Identity, ProcessError> {
            let mut command = prepare(&launch.program, launch);
            command
                .args(&launch.arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut child = command.spawn().map_err(failed("start", launch))?;
            let pid = child.id();
            let written = match child.stdin.take() {
                Some(mut pipe) => pipe.write_all(input),
                None => Ok(()),
            };
            let entry = self.entry(pid);
            self.children().push(child);
            written.map_err(failed("hand its orders to", launch))?;
            entry.map(|entry| entry.identity).ok_or_else(|| {
                failed("find the process of", launch)(io::ErrorKind::NotFound.into())
            })
        }

        fn spawn_supervised(&self, launch: &Launch) -> Result<tokio::process::Child, ProcessError> {
            let mut command = prepare(&self.shim, launch);
            command
                .arg0("tidegate")
                .arg(RUN_COMMAND)
                .arg(self.own_pid().to_string())
                .arg("--")
                .arg(&launch.program)
                .args(&launch.arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0);
            tokio::process::Command::from(command)
                .kill_on_drop(true)
                .spawn()
                .map_err(failed("start", launch))
        }

        fn table(&self) -> Vec<Entry> {
            let Ok(listing) = std::fs::read_dir("/proc") else {
                return Vec::new();
            };
            let boot = boot_id();
            listing
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .filter_map(|pid| read_entry(pid, boot))
                .collect()
        }

        fn entry(&self, pid: u32) -> Option<Entry> {
            self.children()
                .retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
            read_entry(pid, boot_id())
        }

        fn watch(&self, pid: u32) -> Option<OwnedFd> {
            rustix::process::pidfd_open(raw_pid(pid)?, PidfdFlags::NONBLOCK).ok()
        }

        fn signal(&self, who: &Identity, signal: Signal) -> bool {
            // The handle is taken first and the identity checked after, so that the signal cannot
            // reach a process that got the same number in between.
            let Some(pid) = raw_pid(who.pid) else {
                return false;
            };
            let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
                return false;
            };
            self.is_alive(who) && rustix::process::pidfd_send_signal(&handle, signal.raw()).is_ok()
        }

        fn signal_group(&self, group: u32, signal: Signal) -> bool {
            raw_pid(group).is_some_and(|group| {
                rustix::process::kill_process_group(group, signal.raw()).is_ok()
            })
        }

        fn reap(&self, pid: u32) {
            if let Some(pid) = raw_pid(pid) {
                // Not ours or not ended yet: nothing to reap, and nothing to do about it.
                let _reaped = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }

        fn own_pid(&self) -> u32 {
            std::process::id()
        }

        fn own_mark(&self) -> String {
            let own = self.own_pid();
            read_entry(own, boot_id())
                .and_then(|entry| Mark::new(&namespace()?, own, &entry.identity.start))
                .map(|mark| mark.to_string())
                .unwrap_or_default()
        }

        fn is_certainly_gone(&self, mark: &str) -> bool {
            let Some(wanted) = Mark::parse(mark).filter(|_| self.is_neighbour(mark)) else {
                return false;
            };
            let boot = boot_id();
            let Some(pid) = raw_pid(wanted.pid) else {
                return false;
            };
            // A process of somebody else may be hidden from `/proc`, but not from this question.
            match rustix::process::test_kill_process(pid) {
                Err(rustix::io::Errno::SRCH) => true,
                _ => read_entry(wanted.pid, boot)
                    .is_some_and(|entry| entry.ended || entry.identity.start != wanted.start),
            }
        }

        fn is_neighbour(&self, mark: &str) -> bool {
            Mark::parse(mark).is_some_and(|wanted| {
                namespace().is_some_and(|namespace| wanted.was_here(&namespace, boot_id()))
            })
        }
    }

    /// Where process numbers mean what ours mean: the machine's name, and its process namespace.
    fn namespace() -> Option<String> {
        let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
        let host = rustix::system::uname();
        let host = host.nodename().to_str().ok()?;
        Some(format!("{host} {}", link.to_str()?))
    }

    /// `PATH`-searching `exec` of the rest of a [`RUN_COMMAND`] line, after making sure that this
    /// process dies with the supervisor that started it.
    pub(super) fn exec(arguments: &[OsString]) -> ExitCode {
        let [parent, separator, program, rest @ ..] = arguments else {
            return ExitCode::from(NOT_STARTED);
        };
        let parent = parent.to_str().and_then(|text| text.parse::<u32>().ok());
        if separator != "--" || parent.is_none() {
            return ExitCode::from(NOT_STARTED);
        }
        let bound = rustix::process::set_parent_process_death_signal(Some(RawSignal::KILL));
        let current = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get() as u32);
        if bound.is_err() || current != parent {
            // The supervisor died before the bond was made.
            return ExitCode::from(NOT_STARTED);
        }
        let error = Command::new(program).args(rest).exec();
        // This standard error is the service's log.
        drop(writeln!(
            io::stderr(),
            "tidegate: cannot start `{}`: {error}",
            program.to_string_lossy()
        ));
        ExitCode::from(NOT_STARTED)
    }

    pub(super) fn ignores_hangup() -> bool {
        const HANGUP: u64 = 1; // Signal 1 is bit 0: proc_pid_status(5).

        std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
            status
                .lines()
                .find_map(|line| line.strip_prefix("SigIgn:"))
                .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
                .is_some_and(|mask| mask & HANGUP != 0)
        })
    }

    /// The same as long as we live.
    fn boot_id() -> &'static str {
        static BOOT: OnceLock<String> = OnceLock::new();
        BOOT.get_or_init(|| {
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map(|text| text.trim().to_owned())
                .unwrap_or_default()
        })
    }

    fn read_entry(pid: u32, boot: &str) -> Option<Entry> {
        parse_stat(
            pid,
            boot,
            &String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/stat")).ok()?),
        )
    }
}

impl SystemProcesses {
    /// Processes whose supervised children are started through another build of ours: for a
    /// program that is not `tidegate` itself and uses the library.
    pub fn with_shim(shim: PathBuf) -> Self {
        Self {
            shim,
            detached: Mutex::default(),
        }
    }

    fn children(&self) -> std::sync::MutexGuard<'_, Vec<std::process::Child>> {
        self.detached
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn raw_pid(pid: u32) -> Option<Pid> {
    // 0 and 1 are "my own group" and init: never meant.
    i32::try_from(pid)
        .ok()
        .filter(|pid| *pid > 1)
        .and_then(Pid::from_raw)
}

/// What [`Processes::own_mark`] says, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    /// Machine name and process namespace.
    namespace: String,
    pid: u32,
    /// Boot id and start tick.
    start: String,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace,
            pid,
            start,
        } = self;
        write!(f, "{start} {pid} {namespace}")
    }
}

impl Mark {
    fn new(namespace: &str, pid: u32, start: &str) -> Option<Self> {
        // Without a boot id nobody could tell one start of the machine from another.
        let is_known = !start.starts_with('/') && !start.contains(' ');
        is_known.then(|| Self {
            namespace: namespace.to_owned(),
            pid,
            start: start.to_owned(),
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (start, rest) = text.split_once(' ')?;
        let (pid, namespace) = rest.split_once(' ')?;
        Self::new(namespace, pid.parse().ok()?, start)
    }

    /// Did it run where `namespace` is, on the start of the machine `boot`?
    fn was_here(&self, namespace: &str, boot: &str) -> bool {
        self.namespace == namespace
            && !boot.is_empty()
            && self
                .start
                .rsplit_once('/')
                .is_some_and(|(its, _)| its == boot)
    }
}

/// One line of `/proc/<pid>/stat`. The program's name stands in parentheses and may hold anything,
/// so fields are counted from the last closing one.
fn parse_stat(pid: u32, boot: &str, line: &str) -> Option<Entry> {
    let rest = line.rsplit_once(')')?.1;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Entry {
        identity: Identity {
            pid,
            start: format!("{boot}/{}", fields.get(19)?),
        },
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        ended: matches!(*fields.first()?, "Z" | "X" | "x"),
    })
}

/// True for a process that was started with SIGHUP ignored, as `nohup` does it.
#[must_use]
pub fn ignores_hangup() -> bool {
    system::ignores_hangup()
}

/// Makes this process the leader of a session of its own (no terminal, no signals meant for the
/// one who started it), the parent of orphans below it, and closed to debuggers of the same user.
pub fn detach() -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// The body of `tidegate __run <parent> -- <command…>`; returns only when the command cannot be
/// started.
pub fn run_shim(arguments: &[OsString]) -> ExitCode {
    system::exec(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_from_its_last_parenthesis() {
        let line = "42 (a) b (c)) S 7 42 40 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1";
        let entry = parse_stat(42, "boot", line).unwrap();
        assert_eq!(entry.parent, 7);
        assert_eq!(entry.group, 42);
        assert_eq!(entry.session, 40);
        assert_eq!(entry.identity.start, "boot/12345");
        assert!(!entry.ended);
        assert!(
            parse_stat(
                42,
                "boot",
                "42 (x) Z 1 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 9 1"
            )
            .unwrap()
            .ended
        );
        assert_eq!(parse_stat(42, "boot", "42 (x"), None);
        assert_eq!(parse_stat(42, "boot", "42 (x) S 1"), None);
    }

    #[test]
    fn only_what_is_certain_counts_as_gone() {
        let processes = SystemProcesses::default();
        let own = processes.own_mark();
        assert!(!own.is_empty() && !processes.is_certainly_gone(&own));
        let mark = Mark::parse(&own).unwrap();
        assert_eq!(mark.to_string(), own);
        let (boot, tick) = mark.start.rsplit_once('/').unwrap();
        let with = |namespace: &str, pid: u32, start: &str| {
            let mark = Mark::new(namespace, pid, start).map(|mark| mark.to_string());
            processes.is_certainly_gone(&mark.unwrap_or_default())
        };
        let namespace = &mark.namespace;
        // Our number with another start tick: whoever had it has ended.
        assert!(with(namespace, mark.pid, &format!("{boot}/{tick}0")));
        // A number nobody can have.
        assert!(with(namespace, 0x3fff_ffff, &mark.start));
        // Elsewhere, before a restart, or in another container, nothing is certain.
        assert!(!with("other pid:[1]", 0x3fff_ffff, &mark.start));
        assert!(!with(namespace, 0x3fff_ffff, "another-boot/1"));
        assert!(!with(namespace, 0x3fff_ffff, "/1"));
        for nonsense in ["", "a", "a b", "a b c", "a 0 c"] {
            assert!(!processes.is_certainly_gone(nonsense), "{nonsense}");
        }
    }

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let processes = SystemProcesses::default();
        let me = processes.entry(processes.own_pid()).unwrap().identity;
        assert!(processes.is_alive(&me));
        let other = Identity {
            start: "another boot/1".to_owned(),
            ..me.clone()
        };
        assert!(!processes.is_alive(&other));
        assert!(
            !processes.signal(&other, Signal::Kill),
            "a stranger is never signalled"
        );
        assert!(processes.table().iter().any(|entry| entry.identity == me));
        assert!(!processes.signal_group(0, Signal::Kill));
        assert!(!processes.signal_group(1, Signal::Kill));
    }
}
