//! Values as configs carry them: JSON, plus secrets, plus references that are not known yet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Number;

use super::{Address, PublicMap};
use crate::secret::{Keyring, Secret};

/// Values by key, sorted.
pub type Map = BTreeMap<String, Value>;

/// A config value. No `==`: it may hold a secret. Compare public forms instead.
#[derive(Clone, Debug)]
pub enum Value {
    /// JSON null.
    Null,
    /// JSON boolean.
    Bool(bool),
    /// JSON number; keeps integer and float apart.
    Number(Number),
    /// Text anyone may see.
    String(String),
    /// Text nobody may see.
    Secret(Secret),
    /// Text with references still to be filled in. A template that is exactly one reference keeps
    /// the referenced value's type.
    Template(Template),
    /// A value that exists only after apply; the reference says where it will come from.
    Unknown(Reference),
    /// JSON array.
    List(Vec<Value>),
    /// JSON object.
    Map(Map),
}

/// `${module.field}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The referenced resource, resolved name.
    pub address: Address,
    /// Output name; `id` is the provider's id, even where an output has that name.
    pub field: String,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${{{}.{}}}", self.address, self.field)
    }
}

/// One piece of a template.
#[derive(Clone, Debug)]
pub enum Part {
    /// Plain text.
    Literal(String),
    /// Text from a variable that counts as secret.
    Secret(Secret),
    /// A declared secret (`secrets.generate`, `secrets.entries`) by key, fetched during the run.
    Declared(String),
    /// A variable that is not set, by name. Only whoever looks at what is on record gets to see one,
    /// and whoever needs its value after all gets an error.
    Unset(String),
    /// An output of another resource.
    Reference(Reference),
}

/// Text made of pieces, at least one of which is not known when the config is resolved.
#[derive(Clone, Debug)]
pub struct Template {
    /// The pieces, in order.
    pub parts: Vec<Part>,
    /// True when the whole must be treated as secret whatever its pieces are (it stands under
    /// `env_vars_secret`, for example).
    pub secret: bool,
}

/// The answer to "what is this piece?".
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Known: a complete value.
    Known(Value),
    /// Exists only after apply.
    Unknown,
}

/// Fills in templates. `declared` answers declared secrets, `reference` answers outputs.
pub trait Resolver {
    /// The error type of a failed lookup.
    type Error;
    /// A declared secret by key.
    fn declared(&self, key: &str) -> Result<Lookup, Self::Error>;
    /// Another resource's output.
    fn reference(&self, reference: &Reference) -> Result<Lookup, Self::Error>;
    /// Says that a variable is not set.
    fn unset(&self, name: &str) -> Self::Error;
    /// Makes joined text that contains a secret a secret of its own.
    fn admit(&self, joined: String) -> Secret;
}

impl Value {
    /// The text of a plain string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// This value with every template filled in as far as `resolver` knows. Nothing is changed in
    /// place and there is no partial answer on error.
    pub fn resolve<R: Resolver>(&self, resolver: &R) -> Result<Self, R::Error> {
        Ok(match self {
            Self::Template(template) => template.resolve(resolver)?,
            Self::List(items) => Self::List(
                items
                    .iter()
                    .map(|item| item.resolve(resolver))
                    .collect::<Result<_, _>>()?,
            ),
            Self::Map(map) => Self::Map(resolve_map(map, resolver)?),
            Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::String(_)
            | Self::Secret(_)
            | Self::Unknown(_) => self.clone(),
        })
    }

    /// Calls `visit` for every declared secret in this value.
    pub fn declared(&self, visit: &mut impl FnMut(&str)) {
        self.parts(&mut |part| {
            if let Part::Declared(key) = part {
                visit(key);
            }
        });
    }

    /// Calls `visit` for every variable that is needed here and not set.
    pub fn unset(&self, visit: &mut impl FnMut(&str)) {
        self.parts(&mut |part| {
            if let Part::Unset(name) = part {
                visit(name);
            }
        });
    }

    fn parts(&self, visit: &mut impl FnMut(&Part)) {
        match self {
            Self::Template(template) => template.parts.iter().for_each(visit),
            Self::List(items) => items.iter().for_each(|item| item.parts(visit)),
            Self::Map(map) => map.values().for_each(|item| item.parts(visit)),
            Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::String(_)
            | Self::Secret(_)
            | Self::Unknown(_) => {}
        }
    }

    /// Calls `visit` for every reference in this value.
    pub fn references(&self, visit: &mut impl FnMut(&Reference)) {
        match self {
            Self::Template(template) => {
                for part in &template.parts {
                    if let Part::Reference(reference) = part {
                        visit(reference);
                    }
                }
            }
            Self::Unknown(reference) => visit(reference),
            Self::List(items) => items.iter().for_each(|item| item.references(visit)),
            Self::Map(map) => map.values().for_each(|item| item.references(visit)),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Secret(_) => {}
        }
    }

    /// The public form: secrets become `{"$secret": "<keyed fingerprint>"}`, values known only
    /// after apply become `{"$unknown": "${module.field}"}`.
    pub fn public(&self, keyring: &Keyring) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(flag) => serde_json::Value::Bool(*flag),
            Self::Number(number) => serde_json::Value::Number(number.clone()),
            Self::String(text) => serde_json::Value::String(text.clone()),
            Self::Secret(secret) => secret_marker(&keyring.fingerprint(secret)),
            Self::Template(template) => unknown_marker(&template.to_string()),
            Self::Unknown(reference) => unknown_marker(&reference.to_string()),
            Self::List(items) => {
                serde_json::Value::Array(items.iter().map(|item| item.public(keyring)).collect())
            }
            Self::Map(map) => serde_json::Value::Object(public_map(map, keyring)),
        }
    }

    /// True when nothing inside is a template or unknown.
    pub fn is_known(&self) -> bool {
        match self {
            Self::Template(_) | Self::Unknown(_) => false,
            Self::List(items) => items.iter().all(Self::is_known),
            Self::Map(map) => map.values().all(Self::is_known),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Secret(_) => {
                true
            }
        }
    }
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(flag) => Self::Bool(flag),
            serde_json::Value::Number(number) => Self::Number(number),
            serde_json::Value::String(text) => Self::String(text),
            serde_json::Value::Array(items) => {
                Self::List(items.into_iter().map(Self::from).collect())
            }
            serde_json::Value::Object(map) => Self::Map(
                map.into_iter()
                    .map(|(key, value)| (key, Self::from(value)))
                    .collect(),
            ),
        }
    }
}

/// `{"$secret": fingerprint}`.
pub(super) fn secret_marker(fingerprint: &str) -> serde_json::Value {
    serde_json::json!({ "$secret": fingerprint })
}

/// `{"$unknown": reference}`.
pub(super) fn unknown_marker(reference: &str) -> serde_json::Value {
    serde_json::json!({ "$unknown": reference })
}

/// The public form of a whole map.
pub fn public_map(map: &Map, keyring: &Keyring) -> PublicMap {
    let mut public = PublicMap::new();
    for (key, value) in map {
        public.insert(key.clone(), value.public(keyring));
    }
    public
}

/// A map with every template filled in as far as `resolver` knows.
pub fn resolve_map<R: Resolver>(map: &Map, resolver: &R) -> Result<Map, R::Error> {
    let mut resolved = Map::new();
    for (key, value) in map {
        resolved.insert(key.clone(), value.resolve(resolver)?);
    }
    Ok(resolved)
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                // Text around a secret may be part of it: a user name, half a password.
                Part::Literal(_) if self.secret => f.write_str("(secret)")?,
                Part::Literal(text) => f.write_str(text)?,
                Part::Secret(_) => f.write_str("(secret)")?,
                Part::Declared(name) | Part::Unset(name) => write!(f, "${{{name}}}")?,
                Part::Reference(reference) => write!(f, "{reference}")?,
            }
        }
        Ok(())
    }
}

impl Template {
    /// The references in this template.
    pub fn references(&self) -> BTreeSet<&Reference> {
        self.parts
            .iter()
            .filter_map(|part| match part {
                Part::Reference(reference) => Some(reference),
                Part::Literal(_) | Part::Secret(_) | Part::Declared(_) | Part::Unset(_) => None,
            })
            .collect()
    }

    fn resolve<R: Resolver>(&self, resolver: &R) -> Result<Value, R::Error> {
        if let [part] = self.parts.as_slice() {
            let whole = match part {
                Part::Literal(text) => Value::String(text.clone()),
                Part::Secret(secret) => Value::Secret(secret.clone()),
                Part::Declared(key) => match resolver.declared(key)? {
                    Lookup::Known(value) => value,
                    Lookup::Unknown => Value::Template(self.clone()),
                },
                Part::Unset(name) => return Err(resolver.unset(name)),
                Part::Reference(reference) => match resolver.reference(reference)? {
                    Lookup::Known(value) => value,
                    Lookup::Unknown => Value::Unknown(reference.clone()),
                },
            };
            return Ok(match (whole, self.secret) {
                (Value::String(text), true) => Value::Secret(resolver.admit(text)),
                (Value::Number(number), true) => Value::Secret(resolver.admit(number.to_string())),
                (whole, _) => whole,
            });
        }
        let mut joined = zeroize::Zeroizing::new(String::new());
        let mut secret = self.secret;
        for part in &self.parts {
            let value = match part {
                Part::Literal(text) => {
                    joined.push_str(text);
                    continue;
                }
                Part::Secret(value) => Value::Secret(value.clone()),
                Part::Declared(key) => match resolver.declared(key)? {
                    Lookup::Known(value) => value,
                    Lookup::Unknown => return Ok(Value::Template(self.clone())),
                },
                Part::Unset(name) => return Err(resolver.unset(name)),
                Part::Reference(reference) => match resolver.reference(reference)? {
                    Lookup::Known(value) => value,
                    Lookup::Unknown => return Ok(Value::Template(self.clone())),
                },
            };
            match value {
                Value::String(text) => joined.push_str(&text),
                Value::Secret(value) => {
                    secret = true;
                    joined.push_str(value.expose());
                }
                Value::Number(number) => joined.push_str(&number.to_string()),
                Value::Bool(flag) => joined.push_str(if flag { "true" } else { "false" }),
                Value::Null => {}
                other @ (Value::List(_) | Value::Map(_)) => {
                    joined.push_str(&plain_json(&other).to_string());
                }
                Value::Template(_) | Value::Unknown(_) => {
                    return Ok(Value::Template(self.clone()));
                }
            }
        }
        Ok(if secret {
            Value::Secret(resolver.admit(std::mem::take(&mut *joined)))
        } else {
            Value::String(std::mem::take(&mut *joined))
        })
    }
}

/// JSON of a value from recorded outputs, which never holds secrets inside lists or maps.
fn plain_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null | Value::Secret(_) | Value::Template(_) | Value::Unknown(_) => {
            serde_json::Value::Null
        }
        Value::Bool(flag) => serde_json::Value::Bool(*flag),
        Value::Number(number) => serde_json::Value::Number(number.clone()),
        Value::String(text) => serde_json::Value::String(text.clone()),
        Value::List(items) => serde_json::Value::Array(items.iter().map(plain_json).collect()),
        Value::Map(map) => serde_json::Value::Object(
            map.iter()
                .map(|(key, value)| (key.clone(), plain_json(value)))
                .collect(),
        ),
    }
}
