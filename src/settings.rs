//! The one look at the process environment. Everything else is handed this snapshot.
//!
//! Precedence: flag, then environment, then config file, then default. Approval and
//! `--show-sensitive` exist only as flags: no variable may stand in for a person.

use std::path::PathBuf;

use crate::variables::Variables;

/// State key override: 64 hex digits. Wins over the key file of the state folder.
pub const STATE_KEY: &str = "TIDEGATE_STATE_KEY";
/// An age identity that opens the key file of the state, when that is an age file.
pub const AGE_IDENTITY: &str = "TIDEGATE_AGE_IDENTITY";
/// Second key of `infra prune`, beside `--confirm`: must be `1`. Alone it approves nothing.
pub const CONFIRM_PRUNE: &str = "WFCTL_CONFIRM_PRUNE";
/// Where `infra rotate-and-prune` writes down what it made; `~/.wfctl` without it.
pub const ROTATION_FOLDER: &str = "WFCTL_STATE_DIR";
/// Inputs of the composite action, as `tidegate action` reads them.
pub const INPUT_COMMAND: &str = "TIDEGATE_INPUT_COMMAND";
/// See [`INPUT_COMMAND`].
pub const INPUT_CONFIG: &str = "TIDEGATE_INPUT_CONFIG";
/// See [`INPUT_COMMAND`].
pub const INPUT_ENV: &str = "TIDEGATE_INPUT_ENV";
/// See [`INPUT_COMMAND`].
pub const INPUT_ARGS: &str = "TIDEGATE_INPUT_ARGS";

/// What the process was started with, apart from its arguments.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Environment variables at start.
    pub variables: Variables,
    /// Width of the terminal in columns.
    pub width: usize,
    /// stdout is a terminal.
    pub stdout_is_terminal: bool,
    /// stdout is a regular file.
    pub stdout_is_file: bool,
    /// stderr is a terminal.
    pub stderr_is_terminal: bool,
    /// stdin is a terminal, so a person can answer.
    pub stdin_is_terminal: bool,
    /// Our own executable, for the supervisor of local services.
    pub executable: PathBuf,
}

impl Settings {
    /// Reads everything once.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    pub fn from_process() -> Self {
        use std::io::IsTerminal as _;
        let mut unreadable = Vec::new();
        let variables: Variables = std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                match value.into_string() {
                    Ok(value) => Some((name, value)),
                    Err(_) => {
                        unreadable.push(name);
                        None
                    }
                }
            })
            .collect();
        let variables = variables.with_unreadable(unreadable);
        let width = variables
            .get("COLUMNS")
            .and_then(|columns| columns.parse().ok())
            .or_else(|| {
                rustix::termios::tcgetwinsize(std::io::stderr())
                    .ok()
                    .map(|size| usize::from(size.ws_col))
            })
            .filter(|columns| *columns >= 20)
            .unwrap_or(100);
        Self {
            variables,
            width,
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stdout_is_file: rustix::fs::fstat(std::io::stdout())
                .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file()),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            stdin_is_terminal: std::io::stdin().is_terminal(),
            executable: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("tidegate")),
        }
    }

    /// True when colour is wanted on a stream that is (or is not) a terminal.
    pub fn colour(&self, choice: crate::cli::ColorChoice, is_terminal: bool) -> bool {
        match choice {
            crate::cli::ColorChoice::Always => true,
            crate::cli::ColorChoice::Never => false,
            crate::cli::ColorChoice::Auto => {
                is_terminal
                    && self.variables.non_empty("NO_COLOR").is_none()
                    && self.variables.get("TERM") != Some("dumb")
            }
        }
    }
}
