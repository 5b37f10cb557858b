//! Where secrets go. A sink takes plaintext from memory and puts it into its store; nothing of it
//! is written anywhere else.

use std::fmt;

use async_trait::async_trait;

use crate::secret::Secret;

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The value was written.
    Written,
    /// The destination already holds it.
    Unchanged,
}

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
    /// Writes one value. Idempotent.
    async fn put(&self, name: &str, value: &Secret) -> Result<Put, SinkError>;
    /// Removes one value, as destroy does; absent is success. Sinks that cannot remove say so.
    async fn remove(&self, name: &str) -> Result<(), SinkError>;
}
