//! What every test needs: the built binary in a fresh folder with a cleared environment.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The built binary.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tidegate"))
}

/// Puts an executable somewhere else. A link, so that nobody waits for copies of the same twenty
/// megabytes, and nobody finds one still open for writing; what stands there already goes first,
/// because copying over a link would empty the original.
pub(crate) fn place(executable: &Path, target: &Path) {
    drop(std::fs::remove_file(target));
    if std::fs::hard_link(executable, target).is_err() {
        std::fs::copy(executable, target).unwrap();
    }
}

/// A run of the binary: started in `directory`, environment cleared but for PATH and HOME.
pub(crate) struct Run {
    command: Command,
}

impl Run {
    /// `tidegate <arguments>` in `directory`.
    pub(crate) fn new(directory: &Path, arguments: &[&str]) -> Self {
        Self::of(&binary(), directory, arguments)
    }

    /// The same of another copy of the binary.
    pub(crate) fn of(program: &Path, directory: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", std::env::var_os("HOME").unwrap_or_default())
            .env("NO_COLOR", "1")
            .env("COLUMNS", "100");
        for name in ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        Self { command }
    }

    /// Adds a variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs to the end.
    #[must_use]
    pub(crate) fn output(mut self) -> Finished {
        let output = self.command.output().expect("the binary starts");
        Finished { output }
    }

    /// The prepared command, for tests that need the child itself.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }
}

/// A finished run.
pub(crate) struct Finished {
    output: Output,
}

impl Finished {
    /// Exit code; -1 when a signal ended it.
    pub(crate) fn code(&self) -> i32 {
        self.output.status.code().unwrap_or(-1)
    }

    /// Standard output as text.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// Standard error as text.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Asserts the exit code, showing both streams when it differs.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            code,
            "exit code\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout(),
            self.stderr()
        );
        self
    }
}

/// True in CI, where a missing tool fails a test instead of skipping it.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// Says loudly that a test is skipped for want of `tool`; in CI it fails instead.
#[track_caller]
#[expect(clippy::print_stderr, reason = "a skipped test must be heard")]
pub(crate) fn skip_without(tool: &str) {
    assert!(
        !in_ci(),
        "`{tool}` is missing, and in CI nothing is skipped"
    );
    eprintln!("\n!!! SKIPPED: this test needs `{tool}`, which is not installed\n");
}

/// A tool in the lab folder (`.lab/v/bin`, …) that `.ci/run` fills, or on PATH.
pub(crate) fn lab_tool(relative: &str) -> Option<PathBuf> {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(".lab")
        .join(relative);
    if lab.exists() {
        return Some(lab);
    }
    let name = Path::new(relative).file_name()?;
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
}

/// The quickstart as it stands in the repository.
pub(crate) fn quickstart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart")
}

/// Copies a folder; what a run may have left in it (`.tidegate`, `.env`, `target`) is not copied.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if [".tidegate", ".env", "target"]
            .iter()
            .any(|skipped| name == *skipped)
        {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to.join(name));
        } else {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

/// The quickstart's service, built once for all tests.
pub(crate) fn service_binary() -> &'static Path {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("quickstart-service");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--release", "--manifest-path"])
            .arg(quickstart().join("service/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .status()
            .expect("cargo starts");
        assert!(status.success(), "the quickstart's service builds");
        std::fs::read_dir(target.join("release"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                path.is_file() && path.extension().is_none() && !path.ends_with(".cargo-lock")
            })
            .expect("a built executable")
    })
}

/// Waits up to ten seconds for something to become true.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..200 {
        if is_true() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("waited ten seconds for {what}");
}
