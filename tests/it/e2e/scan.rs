//! Looks for secrets where they must not be: in logs, in files, in the arguments and environments
//! of programs.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::project::Known;
use crate::main_job::files;

/// A program somebody started.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Program {
    pub(super) pid: u32,
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<String>,
}

impl Program {
    /// True for the step's own processes: the shell that becomes Tidegate, the tools it uses on
    /// the way, and Tidegate itself.
    pub(super) fn is_the_step(&self) -> bool {
        let launcher = ["bash", "env", "sed"];
        self.path
            .file_name()
            .is_some_and(|name| launcher.iter().any(|tool| name == *tool))
            || self.arguments.last().is_some_and(|last| last == "action")
    }

    /// True when its environment has this entry.
    pub(super) fn has(&self, entry: &str) -> bool {
        self.environment.iter().any(|have| have == entry)
    }
}

/// Where a secret was found, and which.
pub(super) type Leaks = Vec<String>;

fn found_in(place: &str, text: &str, known: &Known) -> Option<String> {
    let form = known
        .forms
        .iter()
        .position(|form| text.contains(form.as_str()))?;
    Some(format!("{place} holds {} in form {form}", known.name))
}

/// Secrets in a text.
pub(super) fn in_text(place: &str, text: &str, secrets: &[Known]) -> Leaks {
    secrets
        .iter()
        .filter_map(|known| found_in(place, text, known))
        .collect()
}

/// Secrets in the files below a folder, but for those declared to hold them.
pub(super) fn in_files(folder: &Path, declared: &[&Path], secrets: &[Known]) -> Leaks {
    let mut leaks = Leaks::new();
    for file in files(folder) {
        let path = folder.join(&file);
        if declared.contains(&path.as_path()) {
            continue;
        }
        let name = file.to_string_lossy();
        // A name is read by as many eyes as a content.
        leaks.extend(in_text(&format!("the name {name}"), &name, secrets));
        if let Ok(bytes) = fs::read(&path) {
            leaks.extend(in_text(&name, &String::from_utf8_lossy(&bytes), secrets));
        }
    }
    leaks
}

/// Secrets in arguments, which nobody may have, and in environments, which only some may have.
pub(super) fn in_programs(
    programs: &[Program],
    may_know: impl Fn(&Program) -> bool,
    secrets: &[Known],
) -> Leaks {
    let mut leaks = Leaks::new();
    for program in programs {
        let name = program.path.display();
        for argument in &program.arguments {
            leaks.extend(in_text(
                &format!("an argument of {name}"),
                argument,
                secrets,
            ));
        }
        if may_know(program) {
            continue;
        }
        for entry in &program.environment {
            let place = format!("the environment of {name}");
            leaks.extend(in_text(&place, entry, secrets));
        }
    }
    leaks
}

/// The processes that are, or become, the program at `path`.
pub(super) fn processes_of(programs: &[Program], path: &Path) -> HashSet<u32> {
    programs
        .iter()
        .filter(|program| program.path == path)
        .map(|program| program.pid)
        .collect()
}

/// Looks at every process of the machine, again and again, until asked what it saw.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<HashSet<Program>>,
}

impl Watch {
    pub(super) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = HashSet::new();
            while !stopped.load(Ordering::SeqCst) {
                seen.extend(running());
                std::thread::sleep(Duration::from_millis(10));
            }
            seen
        });
        Self { stop, thread }
    }

    /// All that was seen.
    pub(super) fn finish(self) -> Vec<Program> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap().into_iter().collect()
    }
}

/// Every process that can be read right now.
pub(super) fn running() -> Vec<Program> {
    let strings = |path: &Path| -> Option<Vec<String>> {
        let bytes = fs::read(path).ok()?;
        Some(
            String::from_utf8_lossy(&bytes)
                .split_terminator('\0')
                .map(str::to_owned)
                .collect(),
        )
    };
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|process| {
            let folder = process.path();
            Some(Program {
                pid: process.file_name().to_str()?.parse().ok()?,
                path: fs::read_link(folder.join("exe")).ok()?,
                arguments: strings(&folder.join("cmdline"))?,
                environment: strings(&folder.join("environ")).unwrap_or_default(),
            })
        })
        .collect()
}

/// The programs in a record of `strace -f -v -s <much> -e trace=execve`.
pub(super) fn traced(record: &str) -> Vec<Program> {
    record
        .lines()
        .filter_map(|line| {
            let (pid, mut rest) = line.split_once(" execve(")?;
            let path = literal(&mut rest)?;
            let arguments = literals(&mut rest)?;
            let environment = literals(&mut rest)?;
            Some(Program {
                pid: pid.trim().parse().ok()?,
                path: path.into(),
                arguments,
                environment,
            })
        })
        .collect()
}

/// The next `[…]` of C string literals.
fn literals(rest: &mut &str) -> Option<Vec<String>> {
    *rest = rest.split_once('[')?.1;
    let mut all = Vec::new();
    while !rest.starts_with(']') {
        all.push(literal(rest)?);
        *rest = rest.strip_prefix(", ").unwrap_or(rest);
    }
    Some(all)
}

/// The next C string literal, without its quotes and escapes.
fn literal(rest: &mut &str) -> Option<String> {
    let bytes = rest.strip_prefix('"')?.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => break,
            b'\\' => {
                at += 1;
                match bytes.get(at)? {
                    b'n' => out.push(b'\n'),
                    b't' => out.push(b'\t'),
                    b'r' => out.push(b'\r'),
                    b'v' => out.push(0x0b),
                    b'f' => out.push(0x0c),
                    b'0'..=b'7' => {
                        let mut value = 0_u8;
                        let mut digits = 0;
                        while let Some(digit @ b'0'..=b'7') = bytes.get(at).filter(|_| digits < 3) {
                            value = value.wrapping_mul(8).wrapping_add(digit - b'0');
                            at += 1;
                            digits += 1;
                        }
                        out.push(value);
                        continue;
                    }
                    other => out.push(*other),
                }
            }
            other => out.push(*other),
        }
        at += 1;
    }
    *rest = &rest[at + 2..];
    Some(String::from_utf8_lossy(&out).into_owned())
}

#[test]
fn a_trace_is_read_as_it_was_written() {
    let record = "12 execve(\"/bin/sh\", [\"sh\", \"-c\", \"a\\\"]\\n\\303\\274\"], [\"A=1, 2\", \"B=\"]) = 0\n\
                  12 +++ exited with 0 +++\n";
    assert_eq!(
        traced(record),
        [Program {
            pid: 12,
            path: "/bin/sh".into(),
            arguments: vec!["sh".into(), "-c".into(), "a\"]\nü".into()],
            environment: vec!["A=1, 2".into(), "B=".into()],
        }]
    );
}
