//! Runs a plan through drivers: parallel where the graph allows, journaled, fenced, stoppable.
//!
//! Promises: an effect is asked for only after its intent is durable; a dependent starts only after
//! the result it needs is durable; a failed action skips what needs it and nothing else; a run that
//! lost its lock writes nothing more.

pub mod checked;
pub mod credential;
pub mod deposed;
pub mod drift;
pub mod execute;
mod hold;
pub mod outcome;
pub mod ownership;
mod presence;
pub mod recover;
pub mod refresh;
pub mod remarks;
pub mod saved;
pub mod sealing;
pub mod secrets;
mod shared;
pub mod single;
pub mod sinks;
pub mod sizing;
pub mod survey;
pub mod teardown;
pub mod values;
mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::provider::ability::Evidence;
use crate::provider::{Driver, ErrorClass, Provider};
use crate::random::Random;
use crate::report::{Outcome, Report, Reporter};
use crate::resource::{ActionKind, Address, Kind, ProviderId, Recorded};
use crate::secret::{Keyring, Masker};
use crate::state::Store;

/// Configured providers by module name.
pub type Providers = BTreeMap<ProviderId, Arc<dyn Provider>>;

/// Between two looks at what may still be on its way to a provider.
const WAITS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(5),
    Duration::from_secs(7),
];

/// What every part of a run needs.
pub struct Engine<'a> {
    /// The resolved config.
    pub config: &'a Config,
    /// Where state lives.
    pub store: Arc<dyn Store>,
    /// Who owns real resources.
    pub providers: &'a Providers,
    /// Fingerprints and seals.
    pub keyring: Keyring,
    /// Must know every secret first.
    pub masker: Masker,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Where events go.
    pub reporter: &'a dyn Reporter,
    /// The wish to stop.
    pub cancel: Cancel,
    /// How many actions may run at once.
    pub parallelism: usize,
    /// How long one call to a provider may take.
    pub call_timeout: Duration,
}

impl Engine<'_> {
    /// The driver for a resource, or a problem that says what is missing.
    pub fn driver(
        &self,
        address: &Address,
        provider: &ProviderId,
        kind: &Kind,
    ) -> Result<&dyn Driver, Report> {
        let Some(owner) = self.providers.get(provider) else {
            if let Some(declared) = self.config.providers.get(provider)
                && let Some(name) = declared.unset().first()
            {
                let who = format!("the provider `{provider}`, which `{address}` belongs to,");
                return Err(config::unset_variable(name, &who).at(declared.at.clone()));
            }
            return Err(Report::error(
                "provider/not-declared",
                format!("`{address}` belongs to the provider module `{provider}`, which this config does not declare"),
            )
            .fix(format!(
                "declare an `iac.provider` module named `{provider}` again, then run the command once more"
            )));
        };
        owner.driver(kind).ok_or_else(|| {
            Report::error(
                "provider/unsupported-type",
                format!(
                    "provider `{provider}` ({}) has no resources of type `{kind}`, which `{address}` asks for",
                    owner.name()
                ),
            )
            .fix(format!(
                "use one of {}, or another provider",
                owner
                    .kinds()
                    .iter()
                    .map(|kind| format!("`{kind}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ))
        })
    }
}

/// How one planned action ended.
#[derive(Clone, Debug)]
pub struct ActionResult {
    /// The resource.
    pub address: Address,
    /// Its kind.
    pub kind: Kind,
    /// Its provider module.
    pub provider: ProviderId,
    /// What was planned.
    pub action: ActionKind,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
    /// The error or the reason for skipping; empty on success.
    pub message: String,
    /// The driver's error class, when a driver failed.
    pub class: Option<ErrorClass>,
    /// What the driver found out about the failure. Untrusted text.
    pub evidence: Vec<Evidence>,
    /// What exists now, when it was made or changed.
    pub made: Option<Recorded>,
    /// It failed, and something of it was done: of a replacement the old one is deleted, or the new one is
    /// made; or all of it, and only the state could not take it.
    pub is_half_done: bool,
}

/// How a whole apply ended.
#[derive(Clone, Debug, Default)]
pub struct ApplyReport {
    /// One entry per planned action that was not a no-op, in plan order.
    pub actions: Vec<ActionResult>,
    /// A signal stopped the run.
    pub interrupted: bool,
    /// The lock was taken over by somebody else.
    pub lost_lock: bool,
    /// The state could not be written, so nothing more was started.
    pub store_failed: bool,
}

impl ApplyReport {
    /// True when every action succeeded.
    pub fn is_success(&self) -> bool {
        !self.interrupted
            && !self.lost_lock
            && !self.store_failed
            && self
                .actions
                .iter()
                .all(|action| action.outcome == Outcome::Success)
    }

    /// True when at least one action changed something, be it half of a replacement.
    pub fn changed(&self) -> bool {
        self.actions
            .iter()
            .any(|action| action.outcome == Outcome::Success || action.is_half_done)
    }

    /// How many failed, in whatever way.
    pub fn failed(&self) -> usize {
        self.actions
            .iter()
            .filter(|action| action.outcome.is_failure())
            .count()
    }

    /// How many ended this way.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.actions
            .iter()
            .filter(|action| action.outcome == outcome)
            .count()
    }

    /// The stable JSON shape (`docs/json.md`).
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Array(
            self.actions
                .iter()
                .map(|action| {
                    json!({
                        "resource": action.address,
                        "type": action.kind,
                        "provider": action.provider,
                        "action": action.action.word(),
                        "status": action.outcome.word(),
                        "elapsed_ms": u64::try_from(action.elapsed.as_millis()).unwrap_or(u64::MAX),
                        "error": if action.message.is_empty() { serde_json::Value::Null } else { json!(action.message) },
                        "error_class": action.class.map(ErrorClass::word),
                        "evidence": action.evidence,
                    })
                })
                .collect(),
        )
    }
}
