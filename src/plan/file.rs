//! A plan as a file: made now, applied later, by somebody who saw it. Pure: bytes in, bytes out.
//!
//! The members that upstream's plan files have keep their names and meaning; what it does not know
//! stands under `tidegate`. The text is canonical (members sorted, no blanks) and carries a tag that
//! only the holder of the state key can make, so a file that was edited by hand is seen. There is no
//! secret in it: values that are one stand there as keyed fingerprints, and a known secret inside
//! any other text is masked before it is written.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Action;
use crate::random::encode_hex;
use crate::resource::{
    ActionKind, Address, FieldChange, Kind, ProviderId, PublicMap, Spec, config_hash,
};
use crate::secret::{Keyring, Masker};

/// The newest `schema_version` this version reads. 1: every value is known; 2: some are known only
/// after apply.
pub const SCHEMA_MAX: u64 = 2;
/// The newest form of our own part.
pub const FORMAT: u64 = 1;
/// Largest plan file read.
pub const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What the tag of a plan file is for.
const PURPOSE: &str = "plan file";

/// What a plan was made from. All of it must still be so when it is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The environment.
    pub environment: String,
    /// Digest of the config and its imports.
    pub config: String,
    /// Lineage of the state.
    pub lineage: String,
    /// Serial of the state.
    pub serial: u64,
    /// Digest of the lockfile beside the config; `None` without one.
    pub lockfile: Option<String>,
    /// Each provider module: its type and version.
    pub providers: BTreeMap<String, String>,
    /// Each variable the config asks for and that is set: the keyed fingerprint of its value.
    pub inputs: BTreeMap<String, String>,
}

impl Binding {
    /// What is not as it was, as sentences, sorted. Never a value.
    pub fn moved(&self, now: &Self) -> Vec<String> {
        let mut moved = Vec::new();
        if self.config != now.config {
            moved.push("config: the text of the file or of an import has changed".to_owned());
        }
        if self.environment != now.environment {
            moved.push(format!(
                "environment: the plan is for `{}`, this run is for `{}`",
                self.environment, now.environment
            ));
        }
        for name in union(&self.inputs, &now.inputs) {
            let shown = |inputs: &BTreeMap<String, String>| {
                inputs.get(name).map_or_else(
                    || "(unset)".to_owned(),
                    |print| print.chars().take(8).collect(),
                )
            };
            if self.inputs.get(name) != now.inputs.get(name) {
                moved.push(format!(
                    "input `{name}`: another value (fingerprint {} then, {} now)",
                    shown(&self.inputs),
                    shown(&now.inputs)
                ));
            }
        }
        match (&self.lockfile, &now.lockfile) {
            (then, now) if then == now => {}
            (None, Some(_)) => moved.push("lockfile: there was none, now there is one".to_owned()),
            (Some(_), None) => moved.push("lockfile: it is gone".to_owned()),
            _ => moved.push("lockfile: its content has changed".to_owned()),
        }
        for name in union(&self.providers, &now.providers) {
            let shown = |providers: &BTreeMap<String, String>| {
                providers
                    .get(name)
                    .map_or_else(|| "not declared".to_owned(), Clone::clone)
            };
            if self.providers.get(name) != now.providers.get(name) {
                moved.push(format!(
                    "provider `{name}`: {} then, {} now",
                    shown(&self.providers),
                    shown(&now.providers)
                ));
            }
        }
        if self.lineage != now.lineage {
            moved.push("state: another one than the plan was made from".to_owned());
        } else if self.serial != now.serial {
            moved.push(format!(
                "state: changed since (serial {} then, {} now)",
                self.serial, now.serial
            ));
        }
        moved.sort_unstable();
        moved
    }
}

fn union<'a>(
    one: &'a BTreeMap<String, String>,
    other: &'a BTreeMap<String, String>,
) -> BTreeSet<&'a String> {
    one.keys().chain(other.keys()).collect()
}

/// One action with what a reader of the file wants beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedAction {
    /// The action.
    pub action: Action,
    /// The desired config, public form; empty for a delete.
    pub config: PublicMap,
    /// The record it starts from, public form.
    pub current: Option<PublicMap>,
}

/// A plan as saved.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedPlan {
    /// Unique; a plan is applied once.
    pub id: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; not applied later than this.
    pub expires_at: String,
    /// Hash of everything desired, see [`desired_hash`].
    pub desired_hash: String,
    /// The names of `--include`, sorted; empty for everything.
    pub include: Vec<String>,
    /// What it was made from.
    pub binding: Binding,
    /// Its actions, without those that do nothing.
    pub actions: Vec<SavedAction>,
}

/// Why a file is no plan we can apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Not JSON, or JSON that is no plan.
    #[error("it is no plan: {0}")]
    NotAPlan(String),
    /// A newer version wrote it.
    #[error("it has version {found} of the plan format; this version reads up to {known}")]
    Newer {
        /// Version found.
        found: u64,
        /// Newest version known.
        known: u64,
    },
    /// Nothing in it says what it was made from.
    #[error("it does not say what it was made from, so nobody can tell whether it still fits")]
    Unbound,
    /// Its tag is not the one of its content.
    #[error("it was changed after it was written, or belongs to another state")]
    Altered,
}

/// SHA-256 (hex) over everything desired: name, type, config, dependencies. Given sorted by name. The
/// members and their order are upstream's.
///
/// # Errors
/// The first one among what is given.
pub fn desired_hash<E>(desired: impl IntoIterator<Item = Result<Spec, E>>) -> Result<String, E> {
    let mut hash = Sha256::new();
    hash.update(b"[");
    for (index, spec) in desired.into_iter().enumerate() {
        let spec = spec?;
        let line = json!([
            ["name", spec.address],
            ["type", spec.kind],
            ["config", config_hash(&spec.public_config)],
            ["depends_on", spec.dependencies],
        ]);
        if index > 0 {
            hash.update(b",");
        }
        hash.update(line.to_string().as_bytes());
    }
    hash.update(b"]");
    Ok(encode_hex(&hash.finalize()))
}

#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(default)]
    schema_version: u64,
    id: String,
    created_at: String,
    plan_hash: String,
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    input_snapshot: BTreeMap<String, String>,
    generator_metadata: Generator,
    actions: Vec<Line>,
    tidegate: Extension,
}

#[derive(Serialize, Deserialize)]
struct Generator {
    tidegate_version: String,
    #[serde(default)]
    plugins: Vec<PublicMap>,
}

#[derive(Serialize, Deserialize)]
struct Extension {
    format: u64,
    environment: String,
    config_digest: String,
    state_lineage: String,
    state_serial: u64,
    lockfile_digest: Option<String>,
    providers: BTreeMap<String, String>,
    expires_at: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    action: ActionKind,
    resource: Resource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<PublicMap>,
    #[serde(default)]
    changes: Vec<Change>,
    #[serde(default)]
    resolved_config_hash: String,
    provider: ProviderId,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    protected: bool,
    #[serde(default)]
    create_before_destroy: bool,
    #[serde(default)]
    recorded_depends_on: BTreeSet<Address>,
}

#[derive(Serialize, Deserialize)]
struct Resource {
    name: Address,
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    config: PublicMap,
    #[serde(default)]
    depends_on: BTreeSet<Address>,
}

#[derive(Serialize, Deserialize)]
struct Change {
    path: String,
    old: Value,
    new: Value,
    force_new: bool,
    /// What became of a sensitive value; absent for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sensitive: Option<String>,
}

impl SavedPlan {
    /// The bytes of the file.
    ///
    /// # Errors
    /// When a known secret would be in it all the same: in a name, where it cannot be masked.
    pub fn encode(&self, keyring: &Keyring, masker: &Masker) -> Result<Vec<u8>, String> {
        let document = serde_json::to_value(self.document(masker))
            .map_err(|error| format!("the plan cannot be put into JSON: {error}"))?;
        let text = canonical(&document);
        let tag = keyring.authenticate(PURPOSE, text.as_bytes());
        let mut document = document;
        if let Some(Value::Object(ours)) = document.get_mut("tidegate") {
            ours.insert("authentication".to_owned(), Value::String(tag));
        }
        let mut text = canonical(&document);
        if masker.is_sensitive(&text) {
            return Err(
                "a resource or a field of it is called like a secret, which a file would tell"
                    .to_owned(),
            );
        }
        text.push('\n');
        Ok(text.into_bytes())
    }

    fn document(&self, masker: &Masker) -> Document {
        let waits = self
            .actions
            .iter()
            .any(|saved| saved.config.values().any(holds_unknown));
        Document {
            schema_version: if waits { 2 } else { 1 },
            id: self.id.clone(),
            created_at: self.created_at.clone(),
            plan_hash: self.desired_hash.clone(),
            include: self.include.clone(),
            input_snapshot: self.binding.inputs.clone(),
            generator_metadata: Generator {
                tidegate_version: env!("CARGO_PKG_VERSION").to_owned(),
                plugins: self
                    .binding
                    .providers
                    .values()
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .map(|provider| {
                        let (name, version) =
                            provider.split_once(' ').unwrap_or((provider.as_str(), ""));
                        PublicMap::from_iter([
                            ("name".to_owned(), Value::from(name)),
                            ("version".to_owned(), Value::from(version)),
                        ])
                    })
                    .collect(),
            },
            actions: self
                .actions
                .iter()
                .map(|saved| line(saved, masker))
                .collect(),
            tidegate: Extension {
                format: FORMAT,
                environment: self.binding.environment.clone(),
                config_digest: self.binding.config.clone(),
                state_lineage: self.binding.lineage.clone(),
                state_serial: self.binding.serial,
                lockfile_digest: self.binding.lockfile.clone(),
                providers: self.binding.providers.clone(),
                expires_at: self.expires_at.clone(),
            },
        }
    }
}

/// Actions as a file shows them, for comparing what was saved with what would be done now.
pub fn lines(actions: &[SavedAction], masker: &Masker) -> BTreeMap<Address, (ActionKind, String)> {
    actions
        .iter()
        .map(|saved| {
            let text = serde_json::to_value(line(saved, masker))
                .map(|value| canonical(&value))
                .unwrap_or_default();
            (saved.action.address.clone(), (saved.action.action, text))
        })
        .collect()
}

/// How two sets of [`lines`] differ, as sentences, sorted.
pub fn differences(
    saved: &BTreeMap<Address, (ActionKind, String)>,
    now: &BTreeMap<Address, (ActionKind, String)>,
) -> Vec<String> {
    let addresses: BTreeSet<&Address> = saved.keys().chain(now.keys()).collect();
    addresses
        .into_iter()
        .filter_map(|address| {
            let verb = |found: Option<&(ActionKind, String)>| {
                found.map_or("nothing", |(action, _)| action.word())
            };
            let (then, now) = (saved.get(address), now.get(address));
            if then == now {
                return None;
            }
            let (before, after) = (verb(then), verb(now));
            Some(if before == after {
                format!("resource `{address}`: {after}, but not with the changes of the plan")
            } else {
                format!("resource `{address}`: the plan says {before}, now it would be {after}")
            })
        })
        .collect()
}

fn line(saved: &SavedAction, masker: &Masker) -> Line {
    let action = &saved.action;
    let masked = |map: &PublicMap| match mask(&Value::Object(map.clone()), masker) {
        Value::Object(map) => map,
        _ => PublicMap::new(),
    };
    Line {
        action: action.action,
        resource: Resource {
            name: action.address.clone(),
            kind: action.kind.clone(),
            config: masked(&saved.config),
            depends_on: action.depends_on.clone(),
        },
        current: saved.current.as_ref().map(masked),
        changes: action
            .changes
            .iter()
            .map(|change| Change {
                path: change.path.clone(),
                old: mask(&change.old, masker),
                new: mask(&change.new, masker),
                force_new: change.force_new,
                sensitive: sensitive(change).map(str::to_owned),
            })
            .collect(),
        resolved_config_hash: config_hash(&saved.config),
        provider: action.provider.clone(),
        reason: masker.mask(&action.reason),
        protected: action.protected,
        create_before_destroy: action.create_before_destroy,
        recorded_depends_on: action.recorded_depends_on.clone(),
    }
}

/// What becomes of a sensitive value, told by its keyed fingerprints; `None` when the change is not
/// about one.
pub fn sensitive(change: &FieldChange) -> Option<&'static str> {
    let print = |value: &Value| -> Option<Value> {
        value
            .as_object()
            .filter(|map| map.len() == 1)
            .and_then(|map| map.get("$secret").cloned())
    };
    match (print(&change.old), print(&change.new)) {
        (None, None) => None,
        (Some(_), None) if change.new.is_null() => Some("removed"),
        (Some(old), Some(new)) if old == new => Some("unchanged"),
        (None, Some(_)) if change.old.is_null() => Some("first set"),
        _ => Some("rotated"),
    }
}

fn holds_unknown(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(holds_unknown),
        Value::Object(map) => {
            (map.len() == 1 && map.contains_key("$unknown")) || map.values().any(holds_unknown)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// The value with every known secret in its texts masked.
pub fn mask(value: &Value, masker: &Masker) -> Value {
    match value {
        Value::String(text) => Value::String(masker.mask(text)),
        Value::Array(items) => items.iter().map(|item| mask(item, masker)).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, item)| (key.clone(), mask(item, masker)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Compact JSON with sorted members, whatever map serde_json was built with.
fn canonical(value: &Value) -> String {
    fn write(out: &mut String, value: &Value) {
        match value {
            Value::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write(out, item);
                }
                out.push(']');
            }
            Value::Object(map) => {
                let mut members: Vec<(&String, &Value)> = map.iter().collect();
                members.sort_unstable_by_key(|(key, _)| key.as_bytes());
                out.push('{');
                for (index, (key, item)) in members.into_iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    out.push_str(&Value::String(key.clone()).to_string());
                    out.push(':');
                    write(out, item);
                }
                out.push('}');
            }
            other => out.push_str(&other.to_string()),
        }
    }
    let mut out = String::new();
    write(&mut out, value);
    out
}

/// A plan file whose content has not been believed yet.
#[derive(Debug)]
pub struct Unverified {
    plan: SavedPlan,
    text: String,
    tag: String,
}

impl Unverified {
    /// Reads a file. Nothing about it is believed before [`Unverified::verify`].
    ///
    /// # Errors
    /// [`FileError`] for anything that is not a whole plan of a version we know.
    pub fn decode(bytes: &[u8]) -> Result<Self, FileError> {
        let not_a_plan = |error: serde_json::Error| FileError::NotAPlan(error.to_string());
        let mut value: Value = serde_json::from_slice(bytes).map_err(not_a_plan)?;
        let number = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap_or(0);
        let schema = number(value.get("schema_version"));
        if schema > SCHEMA_MAX {
            return Err(FileError::Newer {
                found: schema,
                known: SCHEMA_MAX,
            });
        }
        if !value.get("actions").is_some_and(Value::is_array) {
            return Err(FileError::NotAPlan("it has no list of actions".to_owned()));
        }
        let Some(Value::Object(ours)) = value.get_mut("tidegate") else {
            return Err(FileError::Unbound);
        };
        let format = number(ours.get("format"));
        if format > FORMAT {
            return Err(FileError::Newer {
                found: format,
                known: FORMAT,
            });
        }
        let Some(Value::String(tag)) = ours.remove("authentication") else {
            return Err(FileError::Unbound);
        };
        if value
            .get("plan_hash")
            .and_then(Value::as_str)
            .is_none_or(str::is_empty)
        {
            return Err(FileError::Unbound);
        }
        let text = canonical(&value);
        let document: Document = serde_json::from_value(value).map_err(not_a_plan)?;
        Ok(Self {
            plan: document.into(),
            text,
            tag,
        })
    }

    /// What it claims to have been made from: good for saying what moved, for nothing else.
    pub fn claims(&self) -> &SavedPlan {
        &self.plan
    }

    /// The plan, when nobody but the holder of the state key can have written it.
    ///
    /// # Errors
    /// [`FileError::Altered`] when the tag does not fit.
    pub fn verify(self, keyring: &Keyring) -> Result<SavedPlan, FileError> {
        let expected = keyring.authenticate(PURPOSE, self.text.as_bytes());
        // Compared as digests, so that the time taken tells nothing.
        if Sha256::digest(expected.as_bytes()) == Sha256::digest(self.tag.as_bytes()) {
            Ok(self.plan)
        } else {
            Err(FileError::Altered)
        }
    }
}

impl From<Document> for SavedPlan {
    fn from(document: Document) -> Self {
        Self {
            id: document.id,
            created_at: document.created_at,
            expires_at: document.tidegate.expires_at,
            desired_hash: document.plan_hash,
            include: document.include,
            binding: Binding {
                environment: document.tidegate.environment,
                config: document.tidegate.config_digest,
                lineage: document.tidegate.state_lineage,
                serial: document.tidegate.state_serial,
                lockfile: document.tidegate.lockfile_digest,
                providers: document.tidegate.providers,
                inputs: document.input_snapshot,
            },
            actions: document
                .actions
                .into_iter()
                .map(|line| SavedAction {
                    action: Action {
                        address: line.resource.name,
                        kind: line.resource.kind,
                        provider: line.provider,
                        action: line.action,
                        changes: line
                            .changes
                            .into_iter()
                            .map(|change| FieldChange {
                                path: change.path,
                                old: change.old,
                                new: change.new,
                                force_new: change.force_new,
                            })
                            .collect(),
                        reason: line.reason,
                        depends_on: line.resource.depends_on,
                        recorded_depends_on: line.recorded_depends_on,
                        protected: line.protected,
                        create_before_destroy: line.create_before_destroy,
                    },
                    config: line.resource.config,
                    current: line.current,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
