//! What is known while a run goes on: outputs of other resources and declared secrets. Fills in
//! templates; says which ones must wait.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::resource::{Address, Lookup, Output, Outputs, PublicMap, Reference, Resolver, Value};
use crate::secret::{Masker, Secret};
use crate::state::Records;

/// A resource's outputs, as far as they are known.
#[derive(Clone, Debug)]
enum Known {
    /// It will be made or replaced: nothing of it is known yet.
    Pending,
    /// It will be changed in place: only these fields keep their value.
    Keeping(Box<(Seen, BTreeSet<String>)>),
    /// It is as it is.
    Final(Box<Seen>),
    /// It is as its record says, which has nothing sealed in it: the one at this position. Most
    /// resources of a plan are, so nothing of the record is copied.
    Recorded(u32),
}

/// What a resource gave.
#[derive(Clone, Debug)]
struct Seen {
    provider_id: String,
    outputs: Outputs,
}

/// A declared secret.
#[derive(Clone, Debug)]
pub enum Declared {
    /// In hand.
    Known(Secret),
    /// Will be generated (or fetched) before the first action.
    Pending,
    /// A copy of an output.
    Output(Reference),
}

/// Why a value cannot be filled in.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// The resource has no such output.
    #[error("`{reference}`: `{}` has no output `{}`; it has {has}", reference.address, reference.field)]
    NoSuchOutput {
        /// What was asked for.
        reference: Reference,
        /// What there is, as a list for people.
        has: String,
    },
    /// The resource has it, and another program keeps its value.
    #[error("`{reference}`: the output `{}` of `{}` is not known here: the state it was imported from kept it elsewhere", reference.field, reference.address)]
    KeptElsewhere {
        /// What was asked for.
        reference: Reference,
    },
    /// The resource does not exist in this environment.
    #[error("`{reference}`: there is no resource `{}` in this environment", reference.address)]
    NoSuchResource {
        /// What was asked for.
        reference: Reference,
    },
    /// The variable is not set.
    #[error("the variable `{name}` is not set")]
    Unset {
        /// Its name.
        name: String,
    },
    /// The secret is not declared.
    #[error("the secret `{key}` is not declared under `secrets`")]
    NoSuchSecret {
        /// Its name.
        key: String,
    },
}

/// Everything known so far. Grows while resources are made.
#[derive(Clone, Debug)]
pub struct Values {
    resources: HashMap<Address, Known>,
    records: Arc<Records>,
    declared: BTreeMap<String, Declared>,
    elsewhere: BTreeSet<(Address, String)>,
    masker: Masker,
}

impl Values {
    /// Nothing known yet but the declared secrets.
    pub fn new(declared: BTreeMap<String, Declared>, masker: Masker) -> Self {
        Self {
            resources: HashMap::new(),
            records: Arc::default(),
            declared,
            elsewhere: BTreeSet::new(),
            masker,
        }
    }

    /// Outputs of the resource that are recorded without their value.
    pub fn set_elsewhere<'a>(
        &mut self,
        address: &Address,
        names: impl IntoIterator<Item = &'a str>,
    ) {
        for name in names {
            self.elsewhere.insert((address.clone(), name.to_owned()));
        }
    }

    /// True when the output is recorded without its value, and nobody has told it since.
    pub fn is_elsewhere(&self, address: &Address, field: &str) -> bool {
        self.output(address, field).is_none()
            && self
                .elsewhere
                .contains(&(address.clone(), field.to_owned()))
    }

    fn explain(&self, error: ValueError) -> ValueError {
        match error {
            ValueError::NoSuchOutput { reference, .. }
                if self.is_elsewhere(&reference.address, &reference.field) =>
            {
                ValueError::KeptElsewhere { reference }
            }
            other => other,
        }
    }

    /// The resource will be made anew.
    pub fn set_pending(&mut self, address: &Address) {
        self.resources.insert(address.clone(), Known::Pending);
    }

    /// The resource will be changed in place, keeping the named outputs (and its id).
    pub fn set_keeping(
        &mut self,
        address: &Address,
        provider_id: &str,
        outputs: &Outputs,
        kept: &[&str],
    ) {
        let seen = Seen {
            provider_id: provider_id.to_owned(),
            outputs: outputs.clone(),
        };
        let kept = kept.iter().map(|name| (*name).to_owned()).collect();
        let known = Known::Keeping(Box::new((seen, kept)));
        self.resources.insert(address.clone(), known);
    }

    /// The resource is as it is.
    pub fn set_final(&mut self, address: &Address, provider_id: &str, outputs: &Outputs) {
        let seen = Seen {
            provider_id: provider_id.to_owned(),
            outputs: outputs.clone(),
        };
        let known = Known::Final(Box::new(seen));
        self.resources.insert(address.clone(), known);
    }

    /// From here on [`Values::set_recorded`] speaks of these records; so many names will be known.
    pub(super) fn remember(&mut self, records: Arc<Records>, names: usize) {
        // What was known by other records stays so.
        for known in self.resources.values_mut() {
            if let Known::Recorded(position) = known
                && let Some(record) = self.records.at(*position)
            {
                let outputs = record.outputs.clone().into_iter();
                *known = Known::Final(Box::new(Seen {
                    provider_id: record.provider_id.clone(),
                    outputs: outputs
                        .map(|(name, value)| (name, Output::Public(value)))
                        .collect(),
                }));
            }
        }
        self.records = records;
        self.resources.reserve(names);
    }

    /// The resource is as the record at this position says, all of whose outputs anyone may see.
    pub(super) fn set_recorded(&mut self, address: &Address, position: u32) {
        self.resources
            .insert(address.clone(), Known::Recorded(position));
    }

    /// The resource is gone.
    pub fn remove(&mut self, address: &Address) {
        self.resources.remove(address);
    }

    /// A declared secret is in hand now.
    pub fn set_declared(&mut self, key: &str, declared: Declared) {
        self.declared.insert(key.to_owned(), declared);
    }

    /// Declared secrets by key.
    pub fn declared_secrets(&self) -> &BTreeMap<String, Declared> {
        &self.declared
    }

    /// True when something is known about the resource, be it that it waits.
    pub fn is_known(&self, address: &Address) -> bool {
        self.resources.contains_key(address)
    }

    /// The resource's output names, when they are final.
    pub fn output_names(&self, address: &Address) -> Option<Vec<&str>> {
        match self.resources.get(address)? {
            Known::Final(seen) => Some(seen.outputs.keys().map(String::as_str).collect()),
            Known::Recorded(position) => {
                let outputs = &self.records.at(*position)?.outputs;
                Some(outputs.keys().map(String::as_str).collect())
            }
            Known::Pending | Known::Keeping(_) => None,
        }
    }

    /// One output, when it is final.
    pub fn output(&self, address: &Address, field: &str) -> Option<Cow<'_, Output>> {
        match self.resources.get(address)? {
            Known::Final(seen) => seen.outputs.get(field).map(Cow::Borrowed),
            Known::Recorded(position) => {
                let value = self.records.at(*position)?.outputs.get(field)?;
                Some(Cow::Owned(Output::Public(value.clone())))
            }
            Known::Pending | Known::Keeping(_) => None,
        }
    }
}

impl Seen {
    fn find(&self, reference: &Reference) -> Result<Lookup, ValueError> {
        if is_id(reference, &self.provider_id) {
            return Ok(Lookup::Known(Value::String(self.provider_id.clone())));
        }
        match self.outputs.get(&reference.field) {
            Some(Output::Public(value)) => Ok(Lookup::Known(Value::from(value.clone()))),
            Some(Output::Sensitive(secret)) => Ok(Lookup::Known(Value::Secret(secret.clone()))),
            None => Err(nothing(reference, self.outputs.keys().map(String::as_str))),
        }
    }
}

fn find_recorded(
    reference: &Reference,
    provider_id: &str,
    outputs: &PublicMap,
) -> Result<Lookup, ValueError> {
    if is_id(reference, provider_id) {
        return Ok(Lookup::Known(Value::String(provider_id.to_owned())));
    }
    match outputs.get(&reference.field) {
        Some(value) => Ok(Lookup::Known(Value::from(value.clone()))),
        None => Err(nothing(reference, outputs.keys().map(String::as_str))),
    }
}

/// `id` is the provider's id, whatever outputs there are.
fn is_id(reference: &Reference, provider_id: &str) -> bool {
    reference.field == "id" && !provider_id.is_empty()
}

/// Of a resource with outputs of these names, none of which is the one asked for.
fn nothing<'a>(reference: &Reference, names: impl Iterator<Item = &'a str>) -> ValueError {
    let mut has: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if has.is_empty() {
        has.push("none".to_owned());
    }
    ValueError::NoSuchOutput {
        reference: reference.clone(),
        has: has.join(", "),
    }
}

/// What [`Values`] knows, and of resources that are about to be changed in place what they were
/// until now: most of it stays.
pub(super) struct UntilNow<'v>(pub(super) &'v Values);

impl Resolver for UntilNow<'_> {
    type Error = ValueError;

    fn declared(&self, key: &str) -> Result<Lookup, ValueError> {
        self.0.declared(key)
    }

    fn reference(&self, reference: &Reference) -> Result<Lookup, ValueError> {
        match self.0.resources.get(&reference.address) {
            // An output that it never had may come with the change.
            Some(Known::Keeping(known)) => Ok(known.0.find(reference).unwrap_or(Lookup::Unknown)),
            _ => self.0.reference(reference),
        }
    }

    fn unset(&self, name: &str) -> ValueError {
        self.0.unset(name)
    }

    fn admit(&self, joined: String) -> Secret {
        self.0.admit(joined)
    }
}

impl Resolver for Values {
    type Error = ValueError;

    fn declared(&self, key: &str) -> Result<Lookup, ValueError> {
        match self.declared.get(key) {
            Some(Declared::Known(secret)) => Ok(Lookup::Known(Value::Secret(secret.clone()))),
            Some(Declared::Pending) => Ok(Lookup::Unknown),
            // Whatever the output's own sensitivity, a declared secret is a secret.
            Some(Declared::Output(reference)) => Ok(match self.reference(reference)? {
                Lookup::Known(Value::String(text)) => {
                    Lookup::Known(Value::Secret(self.masker.admit(key, text)))
                }
                other => other,
            }),
            None => Err(ValueError::NoSuchSecret {
                key: key.to_owned(),
            }),
        }
    }

    fn unset(&self, name: &str) -> ValueError {
        let name = name.to_owned();
        ValueError::Unset { name }
    }

    fn reference(&self, reference: &Reference) -> Result<Lookup, ValueError> {
        let missing = || ValueError::NoSuchResource {
            reference: reference.clone(),
        };
        match self.resources.get(&reference.address).ok_or_else(missing)? {
            Known::Pending => Ok(Lookup::Unknown),
            Known::Keeping(known) => {
                let (seen, kept) = &**known;
                let is_kept =
                    kept.contains(&reference.field) || is_id(reference, &seen.provider_id);
                if is_kept {
                    seen.find(reference).map_err(|error| self.explain(error))
                } else {
                    Ok(Lookup::Unknown)
                }
            }
            Known::Final(seen) => seen.find(reference).map_err(|error| self.explain(error)),
            Known::Recorded(position) => {
                let record = self.records.at(*position).ok_or_else(missing)?;
                find_recorded(reference, &record.provider_id, &record.outputs)
            }
        }
    }

    fn admit(&self, joined: String) -> Secret {
        // Each of them has been told about; what one of them is by itself, this is too.
        self.masker.suspect("a value made of secrets", joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Part, Template};

    fn reference(name: &str, field: &str) -> Reference {
        Reference {
            address: Address::new(name),
            field: field.to_owned(),
        }
    }

    fn values() -> Values {
        let masker = Masker::default();
        let outputs = Outputs::from([
            ("port".to_owned(), Output::Public(5432.into())),
            ("host".to_owned(), Output::Public("db.test".into())),
            (
                "password".to_owned(),
                Output::Sensitive(masker.admit("db.password", "correct-horse".into())),
            ),
        ]);
        let mut values = Values::new(
            BTreeMap::from([
                (
                    "KEY".to_owned(),
                    Declared::Known(masker.admit("KEY", "battery-staple".into())),
                ),
                ("LATER".to_owned(), Declared::Pending),
                ("COPY".to_owned(), Declared::Output(reference("db", "host"))),
            ]),
            masker,
        );
        values.set_final(&Address::new("db"), "id-1", &outputs);
        values.set_keeping(&Address::new("cache"), "id-2", &outputs, &["host"]);
        values.set_pending(&Address::new("web"));
        values
    }

    fn check(parts: Vec<Part>) -> String {
        let template = Value::Template(Template {
            parts,
            secret: false,
        });
        match template.resolve(&values()) {
            Ok(Value::Secret(secret)) => format!("secret of {}", secret.len_bytes()),
            Ok(Value::Template(template)) => format!("waits: {template}"),
            Ok(Value::Unknown(reference)) => format!("unknown: {reference}"),
            Ok(value) => format!("{value:?}"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn whole_references_keep_their_type_and_joined_ones_become_text() {
        let port = || Part::Reference(reference("db", "port"));
        let literal = |text: &str| Part::Literal(text.to_owned());
        assert_eq!(check(vec![port()]), "Number(Number(5432))");
        assert_eq!(check(vec![literal(":"), port()]), "String(\":5432\")");
        assert_eq!(
            check(vec![Part::Reference(reference("db", "id"))]),
            "String(\"id-1\")"
        );
    }

    #[test]
    fn a_secret_piece_makes_the_whole_a_secret() {
        let parts = vec![
            Part::Literal("pw=".into()),
            Part::Reference(reference("db", "password")),
        ];
        assert_eq!(check(parts), "secret of 16");
        assert_eq!(check(vec![Part::Declared("KEY".into())]), "secret of 14");
        assert_eq!(check(vec![Part::Declared("COPY".into())]), "secret of 7");
    }

    #[test]
    fn what_is_not_known_yet_waits() {
        assert_eq!(
            check(vec![Part::Reference(reference("web", "live_url"))]),
            "unknown: ${web.live_url}"
        );
        assert_eq!(
            check(vec![Part::Declared("LATER".into())]),
            "waits: ${LATER}"
        );
        assert_eq!(
            check(vec![Part::Reference(reference("cache", "port"))]),
            "unknown: ${cache.port}"
        );
        assert_eq!(
            check(vec![Part::Reference(reference("cache", "host"))]),
            "String(\"db.test\")"
        );
    }

    #[test]
    fn a_wrong_output_is_an_error_that_lists_the_right_ones() {
        assert_eq!(
            check(vec![Part::Reference(reference("db", "pot"))]),
            "error: `${db.pot}`: `db` has no output `pot`; it has `host`, `password`, `port`"
        );
    }

    #[test]
    fn the_id_is_the_providers_whatever_outputs_there_are() {
        let mut values = Values::new(BTreeMap::new(), Masker::default());
        let address = Address::new("a");
        let outputs = Outputs::from([(
            "id".to_owned(),
            Output::Public(serde_json::json!("another")),
        )]);
        let id = |values: &Values| match values.reference(&reference("a", "id")) {
            Ok(Lookup::Known(Value::String(id))) => id,
            other => panic!("{other:?}"),
        };
        values.set_final(&address, "real-1", &outputs);
        assert_eq!(id(&values), "real-1");
        values.set_keeping(&address, "real-1", &outputs, &[]);
        assert_eq!(id(&values), "real-1");
    }

    #[test]
    fn until_now_is_what_a_resource_was_before_it_changes_in_place() {
        let mut values = Values::new(BTreeMap::new(), Masker::default());
        let address = Address::new("a");
        let outputs =
            Outputs::from([("url".to_owned(), Output::Public(serde_json::json!("x://a")))]);
        values.set_keeping(&address, "real-1", &outputs, &[]);
        let told = |field| UntilNow(&values).reference(&reference("a", field));
        assert!(matches!(
            values.reference(&reference("a", "url")),
            Ok(Lookup::Unknown)
        ));
        assert!(matches!(told("url"), Ok(Lookup::Known(Value::String(url))) if url == "x://a"));
        assert!(matches!(told("new"), Ok(Lookup::Unknown)));
        values.set_pending(&address);
        let told = UntilNow(&values).reference(&reference("a", "url"));
        assert!(matches!(told, Ok(Lookup::Unknown)));
    }
}
