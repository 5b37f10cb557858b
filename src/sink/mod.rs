//! Where secrets go. A sink takes plaintext from memory and puts it into its store; nothing of it
//! is written anywhere else.

mod dotenv;
mod github_env;
mod github_secret;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use time::OffsetDateTime;

use crate::clock::Clock;
use crate::config::SinkTarget;
use crate::disk::SharedDisk;
use crate::github::{self, GithubError};
use crate::random::Random;
use crate::report::{Report, Reporter};
use crate::secret::Secret;
use crate::variables::Variables;

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The value was written.
    Written,
    /// The destination already holds it.
    Unchanged,
}

/// Whose value stands at a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// None of that name.
    Nothing,
    /// The value that this state wrote.
    Ours,
    /// Somebody else's.
    Foreign,
    /// The destination does not give values back.
    Untold,
}

/// What a destination that gives no values back says of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastWritten {
    /// It does not say, or may not be asked.
    Untold,
    /// There is none of that name.
    Never,
    /// Then, by our clock, give or take a minute.
    At(OffsetDateTime),
}

/// Recognises the values that this state wrote.
pub type IsOurs<'a> = &'a (dyn Fn(&str) -> bool + Send + Sync);

/// A failed write or check. Names the destination and the reason, never the value.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SinkError {
    /// One sentence.
    pub message: String,
    /// What the reader can do.
    pub fix: Vec<String>,
}

impl SinkError {
    /// An error with one sentence and one remedy.
    pub fn new(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            fix: vec![fix.into()],
        }
    }
}

impl From<GithubError> for SinkError {
    fn from(error: GithubError) -> Self {
        let mut message = error.to_string();
        if let GithubError::Refused(refusal) = &error {
            for cause in refusal.because() {
                message.push_str("; ");
                message.push_str(&cause);
            }
        }
        Self {
            message,
            fix: error.fix(),
        }
    }
}

impl From<Report> for SinkError {
    fn from(report: Report) -> Self {
        let mut message = report.message;
        for cause in report.because {
            message.push_str(": ");
            message.push_str(&cause);
        }
        Self {
            message,
            fix: report.fix,
        }
    }
}

/// One destination, ready to be written to.
#[async_trait]
pub trait Sink: Send + Sync + fmt::Debug {
    /// `<type>` and place, such as `dotenv .env` or `github_secret acme/shop (environment prod)`.
    fn destination(&self) -> String;
    /// True when a value written by an earlier run is still there in this one; false for
    /// destinations that start empty in every job (`github_env`).
    fn remembers(&self) -> bool;
    /// Fails early, before any resource is touched: permissions, names, sizes, paths.
    async fn check(&self, names: &[&str]) -> Result<(), SinkError>;
    /// Removes what a killed run may have left half-written beside the destination. Called once
    /// before a run writes or removes anything.
    fn clean_up(&self) {}
    /// Whose value stands there, where the destination gives values back.
    async fn standing(&self, _name: &str, _is_ours: IsOurs<'_>) -> Result<Standing, SinkError> {
        Ok(Standing::Untold)
    }
    /// When the value that stands there was written, where the destination tells no more than that. What
    /// keeps it from telling is said once, by the sink.
    async fn last_written(&self, _name: &str) -> LastWritten {
        LastWritten::Untold
    }
    /// Writes one value. Idempotent.
    async fn put(&self, name: &str, value: &Secret) -> Result<Put, SinkError>;
    /// Removes one value, as destroy does; absent is success. Sinks that cannot remove say so.
    async fn remove(&self, name: &str) -> Result<(), SinkError>;
}

/// What sinks are built from.
#[derive(Clone)]
pub struct SinkTools {
    /// Files.
    pub disk: SharedDisk,
    /// Waits for another run that writes to the same file.
    pub clock: Arc<dyn Clock>,
    /// Delimiters and ephemeral keys.
    pub random: Arc<dyn Random>,
    /// The environment at start: `GITHUB_ENV`.
    pub variables: Arc<Variables>,
    /// GitHub, for all sinks of the process together.
    pub github: Arc<github::Access>,
    /// Where warnings go.
    pub reporter: Arc<dyn Reporter>,
    /// Relative paths in the config start here.
    pub config_directory: PathBuf,
}

impl fmt::Debug for SinkTools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SinkTools")
    }
}

/// Makes the sink a config asks for. Looks at the config's own words only; whether the
/// destination can be written is what [`Sink::check`] finds out.
pub fn open(target: &SinkTarget, tools: &SinkTools) -> Result<Arc<dyn Sink>, Report> {
    Ok(match target {
        SinkTarget::GithubSecret {
            repo,
            environment,
            token_env,
        } => Arc::new(github_secret::GithubSecret::open(
            repo,
            environment.as_deref(),
            token_env.clone(),
            tools,
        )?),
        SinkTarget::GithubEnv => Arc::new(github_env::GithubEnv::open(tools)),
        SinkTarget::Dotenv { path } => Arc::new(dotenv::Dotenv::open(path, tools)),
    })
}

/// The refusal every sink gives to a value of zero bytes: readers cannot tell it from no value.
fn refuse_empty(name: &str, value: &Secret) -> Result<(), SinkError> {
    if value.is_empty() {
        return Err(SinkError::new(
            format!("secret `{name}` cannot be written: the value is empty"),
            "give it a value, or take the sink out of the config",
        ));
    }
    Ok(())
}
