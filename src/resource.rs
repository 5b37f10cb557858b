//! The nouns everything else speaks in: what a resource is called, what it should be, what a
//! provider says it is. Pure values: no I/O, no clock.

mod hash;
mod value;

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::secret::Secret;

pub use hash::config_hash;
pub use value::{Lookup, Map, Part, Reference, Resolver, Template, Value, public_map, resolve_map};

/// JSON object with sorted keys: the public (secret-free) form of configs and outputs.
pub type PublicMap = serde_json::Map<String, serde_json::Value>;

/// A resource's identity in one environment: the environment-resolved name. It is data and never
/// a path; every store encodes it injectively.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(from = "String")]
pub struct Address(Arc<str>);

impl Address {
    /// An address from a resolved name.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(name.as_ref().into())
    }

    /// The resolved name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names are written once and stand in many places: a copy of one is a count, not a text.
macro_rules! named {
    ($name:ident) => {
        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

named!(Address);
named!(Kind);
named!(ProviderId);

impl Borrow<str> for Address {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ProviderId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A resource type such as `infra.database`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(from = "String")]
pub struct Kind(Arc<str>);

impl Kind {
    /// A kind from its dotted name.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(name.as_ref().into())
    }

    /// The dotted name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The module name of an `iac.provider`, such as `cloud`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(from = "String")]
pub struct ProviderId(Arc<str>);

impl ProviderId {
    /// A provider id from its module name.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(name.as_ref().into())
    }

    /// The module name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bytes a provider asks the engine to keep with a resource and give back untouched. Sealed in
/// every store; never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Private(Vec<u8>);

impl Private {
    /// Wraps a provider's bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The provider's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True when the provider keeps nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Private({} bytes)", self.0.len())
    }
}

/// What the config wants one resource to be, with every value known and secrets in hand:
/// the argument of a driver call.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Resolved name.
    pub address: Address,
    /// Resource type.
    pub kind: Kind,
    /// Resolved config; secrets are [`Value::Secret`], nothing is a template or unknown.
    pub config: Map,
    /// The same config with each secret replaced by its keyed fingerprint: comparable with
    /// [`Recorded::config`], safe to store and to show.
    pub public_config: PublicMap,
    /// Names this resource waits for (explicit and by reference).
    pub dependencies: BTreeSet<Address>,
}

/// One output of a resource.
#[derive(Clone, Debug)]
pub enum Output {
    /// A value anyone may see.
    Public(serde_json::Value),
    /// A value that must never be shown. Non-string values are carried as their JSON text.
    Sensitive(Secret),
}

/// Outputs by name.
pub type Outputs = BTreeMap<String, Output>;

/// What is told now over what was told before, which may not be told again: some values (a boot script, a
/// first password) are told once, when the resource is made.
pub fn merged(before: &Outputs, now: Outputs) -> Outputs {
    let mut merged = before.clone();
    merged.extend(now);
    merged
}

/// What a provider reports about a resource right now.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The provider's own id; never empty for an existing resource.
    pub provider_id: String,
    /// Outputs; those the driver marks sensitive already are [`Output::Sensitive`].
    pub outputs: Outputs,
    /// Free text such as `running`.
    pub status: String,
    /// Bytes to keep and give back.
    pub private: Private,
}

/// What state remembers about a resource, sealed parts opened: the `prior` of every driver call.
/// An id alone is not enough for a provider, so drivers always get the whole record.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Resolved name.
    pub address: Address,
    /// Resource type.
    pub kind: Kind,
    /// The provider's own id. Empty when only the name is known (adoption, a create whose answer
    /// was lost): the driver then looks the resource up by name.
    pub provider_id: String,
    /// Config as last applied, secrets replaced by keyed fingerprints.
    pub config: PublicMap,
    /// Outputs as last seen.
    pub outputs: Outputs,
    /// Free text such as `running`.
    pub status: String,
    /// The provider's bytes.
    pub private: Private,
    /// Names this resource waited for.
    pub dependencies: BTreeSet<Address>,
}

impl Recorded {
    /// A stand-in for a resource known by name alone.
    pub fn by_name(address: Address, kind: Kind) -> Self {
        Self {
            address,
            kind,
            provider_id: String::new(),
            config: PublicMap::new(),
            outputs: Outputs::new(),
            status: String::new(),
            private: Private::default(),
            dependencies: BTreeSet::new(),
        }
    }
}

/// One difference between what is recorded and what is desired. Values are public forms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldChange {
    /// Dotted path into the config, list positions in brackets: `env_vars.PORT`, `records[0].ttl`.
    pub path: String,
    /// Value on record; null when absent.
    pub old: serde_json::Value,
    /// Desired value; null when absent, `{"$unknown": …}` when known only after apply.
    pub new: serde_json::Value,
    /// True when the change cannot be made in place.
    pub force_new: bool,
}

/// A driver's verdict on record against desired.
#[derive(Clone, Debug, Default)]
pub struct Diff {
    /// The change can be made in place.
    pub needs_update: bool,
    /// The resource must be replaced. Any change with `force_new` forces it too.
    pub needs_replace: bool,
    /// Every difference, sorted by path.
    pub changes: Vec<FieldChange>,
}

/// What a plan does to one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionKind {
    /// Make it.
    Create,
    /// Change it in place.
    Update,
    /// Delete it, then make it anew.
    Replace,
    /// Delete it.
    Delete,
    /// Leave it.
    NoOp,
}

impl ActionKind {
    /// The word used in plans, JSON and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::NoOp => "no-op",
        }
    }

    /// The symbol in front of a plan row.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Create => "+",
            Self::Update => "~",
            Self::Replace => "±",
            Self::Delete => "-",
            Self::NoOp => " ",
        }
    }

    /// True for the actions that can lose data and therefore need approval.
    pub fn is_destructive(self) -> bool {
        matches!(self, Self::Replace | Self::Delete)
    }
}
