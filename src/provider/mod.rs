//! The door to whoever owns real resources. The engine knows only the two traits here; the
//! embedded `local` provider and (later) plugins stand behind the same ones.

pub mod local;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::resource::{Diff, FieldChange, Kind, Observed, PublicMap, Recorded, Spec};

/// What kind of failure a driver saw. Decisions (retry, adopt, stop) are made from this alone,
/// never from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The resource does not exist.
    NotFound,
    /// A resource of that name exists already.
    AlreadyExists,
    /// Something else changed or holds it; retrying as is will not help.
    Conflict,
    /// Not allowed (missing or insufficient credentials).
    Denied,
    /// Asked to slow down.
    Throttled,
    /// Failed for now; the same call may succeed later.
    Transient,
    /// The request itself is wrong.
    Invalid,
    /// This provider cannot do that.
    Unimplemented,
    /// The outcome is not known: it may or may not have happened.
    Unknown,
}

impl ErrorClass {
    /// The word used in JSON and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::Invalid => "invalid",
            Self::Unimplemented => "unimplemented",
            Self::Unknown => "unknown",
        }
    }
}

/// A driver's failure. The message is for people; it may come from outside and is filtered on the
/// way out.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct DriverError {
    /// What kind of failure.
    pub class: ErrorClass,
    /// One sentence, no secrets.
    pub message: String,
    /// How long the provider asked us to wait.
    pub retry_after: Option<Duration>,
    /// What exists in spite of the error (a create that failed half-way). It is recorded.
    pub partial: Option<Box<Observed>>,
}

impl DriverError {
    /// An error of the given class.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            retry_after: None,
            partial: None,
        }
    }

    /// Adds what exists in spite of the error.
    #[must_use]
    pub fn with_partial(mut self, partial: Observed) -> Self {
        self.partial = Some(Box::new(partial));
        self
    }
}

/// Result of a driver call.
pub type DriverResult<T> = Result<T, DriverError>;

/// How a resource is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// True when it works.
    pub healthy: bool,
    /// What it says.
    pub message: String,
}

/// Identifies one effect. The same operation id is used when an effect is retried or resolved
/// after a crash, so a driver can recognise its own earlier attempt.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Unique per action and run; stable across retries.
    pub id: String,
    /// Environment the run is for; drivers may tag with it.
    pub environment: String,
}

/// Handles one or more resource kinds. Every call may run concurrently with every other.
///
/// Contract: `create` of a name that exists answers [`ErrorClass::AlreadyExists`]; `read` of
/// something gone answers [`ErrorClass::NotFound`]; `read` with an empty `provider_id` looks up by
/// name; `delete` of something gone succeeds.
#[async_trait]
pub trait Driver: Send + Sync + fmt::Debug {
    /// Makes the resource.
    async fn create(&self, operation: &Operation, desired: &Spec) -> DriverResult<Observed>;
    /// Looks at the resource.
    async fn read(&self, prior: &Recorded) -> DriverResult<Observed>;
    /// Changes it in place.
    async fn update(
        &self,
        operation: &Operation,
        prior: &Recorded,
        desired: &Spec,
    ) -> DriverResult<Observed>;
    /// Removes it.
    async fn delete(&self, operation: &Operation, prior: &Recorded) -> DriverResult<()>;
    /// Compares record and desired. Pure as far as the resource goes. `desired.config` may hold
    /// unknown values here (and only here).
    async fn diff(&self, prior: &Recorded, desired: &Spec) -> DriverResult<Diff>;
    /// How it is doing.
    async fn health(&self, prior: &Recorded) -> DriverResult<Health>;
    /// Output names that are always sensitive.
    fn sensitive_outputs(&self) -> &'static [&'static str];
    /// Output names that are known not to be sensitive. Any other undeclared output counts as
    /// sensitive.
    fn public_outputs(&self) -> &'static [&'static str];
    /// Output names whose value an update in place never changes, so that dependents of an updated
    /// resource need not be planned as "known after apply".
    fn outputs_kept_by_update(&self) -> &'static [&'static str] {
        &[]
    }
    /// Checks a config before any effect; every problem as (dotted path, sentence).
    fn check(&self, desired: &Spec) -> Vec<(String, String)>;
}

/// A configured provider.
#[async_trait]
pub trait Provider: Send + Sync + fmt::Debug {
    /// The provider type, such as `local`.
    fn name(&self) -> &str;
    /// Its version.
    fn version(&self) -> &str;
    /// The kinds it handles, sorted.
    fn kinds(&self) -> Vec<Kind>;
    /// The driver for a kind.
    fn driver(&self, kind: &Kind) -> Option<&dyn Driver>;
    /// True when its resources live on this very machine and vanish with it, so that a vanishing
    /// state is no loss.
    fn is_local(&self) -> bool;
    /// Ends the provider; called once.
    async fn close(&self);
}

/// Every difference between two public configs, sorted by path: the comparison a driver without
/// special knowledge uses. Nested maps are compared key by key, lists as a whole.
pub fn config_changes(recorded: &PublicMap, desired: &PublicMap) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    let mut pending = vec![(String::new(), recorded, desired)];
    while let Some((prefix, old, new)) = pending.pop() {
        let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let path = if prefix.is_empty() {
                key.clone()
            } else {
                format!("{prefix}.{key}")
            };
            match (old.get(key), new.get(key)) {
                (Some(serde_json::Value::Object(old)), Some(serde_json::Value::Object(new)))
                    if !is_marker(old) && !is_marker(new) =>
                {
                    pending.push((path, old, new));
                }
                (old, new) if old != new => changes.push(FieldChange {
                    path,
                    old: old.cloned().unwrap_or_default(),
                    new: new.cloned().unwrap_or_default(),
                    force_new: false,
                }),
                _ => {}
            }
        }
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    changes
}

fn is_marker(map: &PublicMap) -> bool {
    map.len() == 1 && (map.contains_key("$secret") || map.contains_key("$unknown"))
}
