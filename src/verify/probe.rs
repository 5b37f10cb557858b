//! One look at one target.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::Extent;
use super::gate::Look;

/// Looks at one target. One attempt: no loop, no sleep, no memory of earlier looks; the runner
/// repeats.
#[async_trait]
pub trait Probe: Send + Sync + fmt::Debug {
    /// The target as the config names it, for people. Holds no secret.
    fn label(&self) -> &str;
    /// The address that is looked at, credentials hidden.
    fn address(&self) -> String;
    /// Looks once and answers within `budget`, whatever the other side does.
    async fn observe(&self, budget: Duration) -> Observation;
}

/// What one look saw. Text from the other side is in `body` alone (and, quoted, in `seen`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// How it went.
    pub look: Look,
    /// One stable word for what was seen: `ok`, `status`, `body`, `refused`, …
    pub cause: &'static str,
    /// One sentence for people, no final full stop.
    pub message: String,
    /// What should have been seen; empty when no answer came.
    pub expected: String,
    /// What was seen instead; empty when no answer came.
    pub seen: String,
    /// Status of the answer, when there was one.
    pub status: Option<u16>,
    /// Start of the answer's body, as text.
    pub body: Option<String>,
    /// How much of the body that is.
    pub extent: Extent,
}
