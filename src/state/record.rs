//! One resource as the store keeps it: upstream's record fields, and ours beside them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::resource::{Address, PublicMap};

/// The newest record format this version writes.
pub const FORMAT: u64 = 1;

/// A stored record. Field names up to `error` are upstream's (`state.md` section 2); what upstream
/// does not know is kept under `tidegate`, and fields we do not know are kept as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The resource's address.
    pub resource_id: Address,
    /// Its kind.
    pub resource_type: String,
    /// Provider type, such as `local`.
    pub provider: String,
    /// Provider module name.
    #[serde(default)]
    pub provider_ref: String,
    /// The provider's own id.
    #[serde(default)]
    pub provider_id: String,
    /// Canonical config hash.
    #[serde(default)]
    pub config_hash: String,
    /// `active`, or `error` for a resource that exists but whose last action failed (tainted).
    pub status: String,
    /// Applied config, public form.
    #[serde(default)]
    pub config: PublicMap,
    /// Outputs; sensitive ones as `secret_ref://<KEY>`.
    #[serde(default)]
    pub outputs: PublicMap,
    /// Names this resource waited for.
    #[serde(default)]
    pub dependencies: Vec<Address>,
    /// RFC 3339, set once.
    pub created_at: String,
    /// RFC 3339, set at every write.
    pub updated_at: String,
    /// The last error, when `status` is `error`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// What upstream does not know.
    #[serde(default)]
    pub tidegate: Extension,
    /// Fields written by someone else; kept untouched.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// Our part of a record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Extension {
    /// Record format; 0 for records upstream wrote.
    #[serde(default)]
    pub format: u64,
    /// Environment the record belongs to.
    #[serde(default)]
    pub environment: String,
    /// `apply`, `adoption`, or empty for upstream's records.
    #[serde(default)]
    pub applied_config_source: String,
    /// True when replace and delete need an explicit override.
    #[serde(default)]
    pub protected: bool,
    /// Free text from the provider, such as `running`.
    #[serde(default)]
    pub provider_status: String,
    /// Sensitive outputs by output name.
    #[serde(default)]
    pub sealed: BTreeMap<String, SealedOutput>,
    /// The provider's private blob, sealed; empty for none.
    #[serde(default)]
    pub private: String,
    /// Number of writes of this record.
    #[serde(default)]
    pub version: u64,
    /// Fields a newer version wrote.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// A sensitive output: fingerprint for change detection, value sealed for its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedOutput {
    /// Keyed fingerprint.
    pub fingerprint: String,
    /// Sealed value.
    pub sealed: String,
}
