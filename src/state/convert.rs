//! Between a stored [`Record`] and the [`Recorded`] value drivers get: sensitive parts are sealed
//! on the way in and opened on the way out. Pure but for randomness, which is passed in.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::random::Random;
use crate::report::Report;
use crate::resource::{
    Address, Kind, Observed, Output, Outputs, Private, PublicMap, Recorded, Spec, config_hash,
};
use crate::secret::{Keyring, Masker, Secret};

use super::record::{Extension, Record, SealedOutput};
use super::secret_key::{PLACEHOLDER_PREFIX, secret_key};

/// A record that cannot be turned into something a driver may see.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A sealed part does not open.
    #[error("{part} of resource `{address}` cannot be opened: {source}")]
    Sealed {
        /// The resource.
        address: Address,
        /// Which part: ``output `password` ``, `the provider's private data`.
        part: String,
        /// Why.
        source: crate::secret::keyring::SealedValueError,
    },
    /// Placeholder and sealed value do not belong together.
    #[error("output `{output}` of resource `{address}` has a sealed value but not its placeholder")]
    Mismatch {
        /// The resource.
        address: Address,
        /// The output.
        output: String,
    },
}

impl From<RecordError> for Report {
    fn from(error: RecordError) -> Self {
        let report = Self::error("state/sealed", error.to_string());
        match error {
            RecordError::Sealed { .. } => report
                .fix("use the state key this state was written with (TIDEGATE_STATE_KEY, or the file `key` beside the records)")
                .fix("if the record was edited or moved, restore it from `previous/`"),
            RecordError::Mismatch { .. } => report.fix("restore the record from `previous/`"),
        }
    }
}

/// The place a sealed value belongs to: it opens there and nowhere else. Parts are joined with
/// `/`; a `/` or `%` inside a part is escaped, so that two places never look alike.
pub fn place(environment: &str, address: &Address, parts: &[&str]) -> String {
    [environment, address.as_str()]
        .iter()
        .chain(parts)
        .map(|part| part.replace('%', "%25").replace('/', "%2f"))
        .collect::<Vec<_>>()
        .join("/")
}

fn output_place(environment: &str, address: &Address, output: &str) -> String {
    place(environment, address, &["output", output])
}

fn private_place(environment: &str, address: &Address) -> String {
    place(environment, address, &["private"])
}

/// What was just applied: all that a new record is made of.
#[derive(Clone, Copy, Debug)]
pub struct Applied<'a> {
    /// Environment of the run.
    pub environment: &'a str,
    /// Provider type, such as `local`.
    pub provider: &'a str,
    /// Provider module name.
    pub provider_ref: &'a str,
    /// What was asked for.
    pub spec: &'a Spec,
    /// What the provider answered.
    pub observed: &'a Observed,
    /// `apply` or `adoption`.
    pub source: &'a str,
    /// Replace and delete need an explicit override.
    pub protected: bool,
    /// It was there before, and was taken over.
    pub adopted: bool,
    /// What went wrong, for a resource that exists in spite of an error; it is recorded as
    /// tainted. Empty on success.
    pub error: &'a str,
    /// The record this one replaces. Sealed values that did not change are taken over as they
    /// are, so that an unchanged resource keeps an unchanged record.
    pub prior: Option<&'a Record>,
}

/// The record of what was applied. Times, version and format are the store's to set.
pub fn from_observed(applied: &Applied<'_>, keyring: &Keyring, random: &dyn Random) -> Record {
    let spec = applied.spec;
    let mut record = Record {
        resource_id: spec.address.clone(),
        resource_type: spec.kind.as_str().to_owned(),
        provider: applied.provider.to_owned(),
        provider_ref: applied.provider_ref.to_owned(),
        provider_id: String::new(),
        config_hash: config_hash(&spec.public_config),
        status: if applied.error.is_empty() {
            "active".to_owned()
        } else {
            "error".to_owned()
        },
        config: spec.public_config.clone(),
        outputs: PublicMap::new(),
        dependencies: spec.dependencies.iter().cloned().collect(),
        created_at: String::new(),
        updated_at: String::new(),
        error: applied.error.to_owned(),
        tidegate: Extension {
            environment: applied.environment.to_owned(),
            applied_config_source: applied.source.to_owned(),
            protected: applied.protected,
            adopted: applied.adopted,
            ..Extension::default()
        },
        unknown: std::collections::BTreeMap::new(),
    };
    if let Some(prior) = applied.prior {
        record.created_at.clone_from(&prior.created_at);
        record.updated_at.clone_from(&prior.updated_at);
        record.unknown.clone_from(&prior.unknown);
        record.tidegate.unknown.clone_from(&prior.tidegate.unknown);
        record.tidegate.version = prior.tidegate.version;
        record.tidegate.sealed.clone_from(&prior.tidegate.sealed);
        record.tidegate.private.clone_from(&prior.tidegate.private);
    }
    observe(
        &mut record,
        applied.environment,
        applied.observed,
        keyring,
        random,
    );
    record
}

/// Puts what a provider reports now into a record, and leaves the rest of it alone: a refresh.
pub fn observe(
    record: &mut Record,
    environment: &str,
    observed: &Observed,
    keyring: &Keyring,
    random: &dyn Random,
) {
    let address = record.resource_id.clone();
    record.provider_id.clone_from(&observed.provider_id);
    record.tidegate.provider_status.clone_from(&observed.status);
    // Says that placeholders in `outputs` are ours, with sealed values beside them.
    record.tidegate.format = super::record::FORMAT;

    let before = std::mem::take(&mut record.tidegate.sealed);
    record.outputs = PublicMap::new();
    for (name, output) in &observed.outputs {
        let shown = match output {
            Output::Public(value) => value.clone(),
            Output::Sensitive(secret) => {
                let fingerprint = keyring.fingerprint(secret);
                let here = output_place(environment, &address, name);
                // Equal fingerprints alone do not prove that the old text opens here.
                let kept = before.get(name).filter(|old| {
                    old.fingerprint == fingerprint && keyring.open_bytes(&here, &old.sealed).is_ok()
                });
                let sealed = kept.cloned().unwrap_or_else(|| SealedOutput {
                    sealed: keyring.seal(random, &here, secret),
                    fingerprint,
                });
                record.tidegate.sealed.insert(name.clone(), sealed);
                placeholder(&address, name).into()
            }
        };
        record.outputs.insert(name.clone(), shown);
    }

    let here = private_place(environment, &address);
    if observed.private.is_empty() {
        record.tidegate.private.clear();
    } else if !keyring
        .open_bytes(&here, &record.tidegate.private)
        .is_ok_and(|old| *old == observed.private.as_bytes())
    {
        record.tidegate.private = keyring.seal_bytes(random, &here, observed.private.as_bytes());
    }
}

fn placeholder(address: &Address, output: &str) -> String {
    format!(
        "{PLACEHOLDER_PREFIX}{}",
        secret_key(address.as_str(), output)
    )
}

/// In a record of ours such text is a plain output that merely looks like a placeholder.
fn is_elsewhere(record: &Record, value: &serde_json::Value) -> bool {
    record.tidegate.format == 0
        && value
            .as_str()
            .is_some_and(|text| text.starts_with(PLACEHOLDER_PREFIX))
}

/// The outputs whose values another program put into a secret store of its own. They are not known
/// here until a refresh has read them from the provider.
pub fn kept_elsewhere(record: &Record) -> impl Iterator<Item = &str> {
    record
        .outputs
        .iter()
        .filter(|(name, value)| {
            !record.tidegate.sealed.contains_key(name.as_str()) && is_elsewhere(record, value)
        })
        .map(|(name, _)| name.as_str())
}

/// What records are shown by is public, whatever is sealed in them: to be said before any of them is
/// opened.
pub fn publish<'r>(masker: &Masker, records: impl IntoIterator<Item = &'r Record>) {
    for record in records {
        masker.publish("the name of a resource", [record.resource_id.as_str()]);
        masker.publish("a type of resource", [record.resource_type.as_str()]);
        masker.publish(
            "the name of a provider",
            [record.provider.as_str(), record.provider_ref.as_str()],
        );
    }
}

/// The error of a record that was made from what a run which was cut off had left. Which of its outputs are
/// secret nobody knew then: all of its texts are sealed until an update tells.
pub const CUT_OFF: &str = "an earlier run was cut off while making it";

/// The record as drivers see it, sealed parts opened and known to the masker.
///
/// # Errors
/// Names the resource and the part that does not open. Nothing is ever passed on as a placeholder:
/// outputs that are [kept elsewhere](kept_elsewhere) are left out.
pub fn to_recorded(
    record: &Record,
    environment: &str,
    keyring: &Keyring,
    masker: &Masker,
) -> Result<Recorded, RecordError> {
    let address = &record.resource_id;
    publish(masker, [record]);
    let mut outputs = Outputs::new();
    for (name, value) in &record.outputs {
        let output = match record.tidegate.sealed.get(name) {
            Some(sealed) => {
                if value.as_str() != Some(placeholder(address, name).as_str()) {
                    return Err(RecordError::Mismatch {
                        address: address.clone(),
                        output: name.clone(),
                    });
                }
                let place = output_place(environment, address, name);
                let opened = keyring.open_with(&place, &sealed.sealed, |text| {
                    if record.error == CUT_OFF {
                        masker.conceal(text)
                    } else {
                        masker.suspect(&place, text)
                    }
                });
                let secret = opened.map_err(|source| RecordError::Sealed {
                    address: address.clone(),
                    part: format!("output `{name}`"),
                    source,
                })?;
                know_parts(&secret, &record.config, keyring, masker, name);
                Output::Sensitive(secret)
            }
            None if is_elsewhere(record, value) => continue,
            None => Output::Public(value.clone()),
        };
        outputs.insert(name.clone(), output);
    }
    if let Some(orphan) = record
        .tidegate
        .sealed
        .keys()
        .find(|name| !record.outputs.contains_key(name.as_str()))
    {
        return Err(RecordError::Mismatch {
            address: address.clone(),
            output: orphan.clone(),
        });
    }
    let private = if record.tidegate.private.is_empty() {
        Private::default()
    } else {
        let bytes = keyring
            .open_bytes(
                &private_place(environment, address),
                &record.tidegate.private,
            )
            .map_err(|source| RecordError::Sealed {
                address: address.clone(),
                part: "the provider's private data".to_owned(),
                source,
            })?;
        Private::new(bytes.to_vec())
    };
    Ok(Recorded {
        address: address.clone(),
        kind: Kind::new(&record.resource_type),
        provider_id: record.provider_id.clone(),
        config: record.config.clone(),
        outputs,
        status: record.tidegate.provider_status.clone(),
        private,
        dependencies: record.dependencies.iter().cloned().collect(),
    })
}

/// A list or map that is sealed as a whole may repeat secrets of the config one by one. Those that were
/// replaced since are known by nothing else, and may still be good.
fn know_parts(sealed: &Secret, config: &PublicMap, keyring: &Keyring, masker: &Masker, name: &str) {
    if !sealed.expose().starts_with(['{', '[']) || !config.values().any(names_secret) {
        return;
    }
    let Ok(whole) = serde_json::from_str::<Value>(sealed.expose()) else {
        return;
    };
    let mut fingerprints = BTreeSet::new();
    config.values().for_each(|value| {
        each_fingerprint(value, &mut |one| {
            fingerprints.insert(one.to_owned());
        })
    });
    each_text(&whole, &mut |text| {
        if fingerprints.contains(&keyring.fingerprint_text(text)) {
            masker.admit(name, text.to_owned());
        }
    });
}

fn names_secret(value: &Value) -> bool {
    let mut names = false;
    each_fingerprint(value, &mut |_| names = true);
    names
}

fn each_fingerprint(value: &Value, take: &mut dyn FnMut(&str)) {
    match value {
        Value::Object(map) => match map.get("$secret") {
            Some(Value::String(fingerprint)) => take(fingerprint),
            _ => map.values().for_each(|value| each_fingerprint(value, take)),
        },
        Value::Array(items) => items.iter().for_each(|item| each_fingerprint(item, take)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn each_text(value: &Value, take: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => take(text),
        Value::Object(map) => map.values().for_each(|value| each_text(value, take)),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, take)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::random::SeededRandom;
    use crate::resource::Map;

    struct World {
        keyring: Keyring,
        masker: Masker,
        random: SeededRandom,
    }

    impl World {
        fn new() -> Self {
            Self {
                keyring: Keyring::new(&[7; 32]),
                masker: Masker::default(),
                random: SeededRandom::new(1),
            }
        }

        fn observed(&self, password: &str) -> Observed {
            let secret = self.masker.admit("test", password.to_owned());
            Observed {
                provider_id: "id-1".to_owned(),
                outputs: [
                    ("host".to_owned(), Output::Public(json!("db.example.test"))),
                    ("port".to_owned(), Output::Public(json!(5432))),
                    (
                        "looks".to_owned(),
                        Output::Public(json!("secret_ref://like-one")),
                    ),
                    ("password".to_owned(), Output::Sensitive(secret)),
                ]
                .into(),
                status: "running".to_owned(),
                private: Private::new(vec![0, 159, 146, 150]),
            }
        }

        fn record(&self, observed: &Observed, prior: Option<&Record>) -> Record {
            let mut public_config = PublicMap::new();
            public_config.insert("size".to_owned(), json!("m"));
            let spec = Spec {
                address: Address::new("orders-db"),
                kind: Kind::new("infra.database"),
                config: Map::new(),
                public_config,
                dependencies: BTreeSet::from([Address::new("net")]),
            };
            let applied = Applied {
                environment: "dev",
                provider: "local",
                provider_ref: "here",
                spec: &spec,
                observed,
                source: "apply",
                protected: true,
                adopted: false,
                error: "",
                prior,
            };
            from_observed(&applied, &self.keyring, &self.random)
        }
    }

    const CANARY: &str = "canary-hunter2-canary";

    #[test]
    fn what_goes_in_comes_out_and_no_plaintext_is_in_between() {
        let world = World::new();
        let record = world.record(&world.observed(CANARY), None);
        let text = String::from_utf8(record.document().unwrap()).unwrap();
        assert!(!text.contains(CANARY), "{text}");
        assert_eq!(
            record.outputs["password"],
            json!(format!(
                "secret_ref://{}",
                secret_key("orders-db", "password")
            ))
        );
        let decoded = Record::decode(text.as_bytes(), "test").unwrap();
        assert_eq!(decoded, record);
        let recorded = to_recorded(&decoded, "dev", &world.keyring, &world.masker).unwrap();
        assert_eq!(recorded.provider_id, "id-1");
        assert_eq!(recorded.status, "running");
        assert_eq!(recorded.private.as_bytes(), [0, 159, 146, 150]);
        assert_eq!(recorded.dependencies, BTreeSet::from([Address::new("net")]));
        assert!(matches!(&recorded.outputs["password"],
            Output::Sensitive(secret) if secret.expose() == CANARY));
        assert!(matches!(&recorded.outputs["looks"], Output::Public(_)));
        assert_eq!(recorded.outputs.len(), 4);
    }

    #[test]
    fn sealed_values_open_only_where_they_belong() {
        let world = World::new();
        let record = world.record(&world.observed(CANARY), None);
        let open = |record: &Record, environment: &str, key: u8| {
            to_recorded(
                record,
                environment,
                &Keyring::new(&[key; 32]),
                &world.masker,
            )
            .map(drop)
            .map_err(|error| error.to_string())
        };
        assert_eq!(open(&record, "dev", 7), Ok(()));
        for (name, broken) in [
            ("other environment", open(&record, "prod", 7)),
            ("other key", open(&record, "dev", 8)),
            ("other resource", {
                let mut moved = record.clone();
                moved.resource_id = Address::new("users-db");
                moved.outputs["password"] = placeholder(&moved.resource_id, "password").into();
                open(&moved, "dev", 7)
            }),
            ("placeholder replaced", {
                let mut edited = record.clone();
                edited.outputs["password"] = json!("plain");
                open(&edited, "dev", 7)
            }),
            ("placeholder gone", {
                let mut edited = record.clone();
                edited.outputs.remove("password");
                open(&edited, "dev", 7)
            }),
        ] {
            let message = broken.expect_err(name);
            assert!(message.contains("-db`"), "{name}: {message}");
            assert!(!message.contains(CANARY), "{name}: {message}");
        }
        let mut upstream = record;
        upstream.tidegate = Extension::default();
        // What another program keeps is not known here, which blocks nothing.
        let known = to_recorded(&upstream, "dev", &world.keyring, &world.masker).unwrap();
        assert!(!known.outputs.contains_key("password") && known.outputs.contains_key("host"));
        let elsewhere: Vec<&str> = kept_elsewhere(&upstream).collect();
        assert_eq!(elsewhere, ["looks", "password"]);
    }

    #[test]
    fn unchanged_secrets_keep_their_sealed_text_and_changed_ones_do_not() {
        let world = World::new();
        let first = world.record(&world.observed(CANARY), None);
        let same = world.record(&world.observed(CANARY), Some(&first));
        assert_eq!(same, first);
        let changed = world.record(&world.observed("another-secret-value"), Some(&first));
        assert_ne!(
            changed.tidegate.sealed["password"].fingerprint,
            first.tidegate.sealed["password"].fingerprint
        );
        assert_eq!(changed.tidegate.private, first.tidegate.private);
        // A sealed text copied in from another place is not trusted for its fingerprint.
        let mut forged = first.clone();
        if let Some(sealed) = forged.tidegate.sealed.get_mut("password") {
            sealed.sealed = world.keyring.seal_bytes(&world.random, "elsewhere", b"x");
        }
        let healed = world.record(&world.observed(CANARY), Some(&forged));
        assert!(to_recorded(&healed, "dev", &world.keyring, &world.masker).is_ok());
    }

    #[test]
    fn places_never_look_alike() {
        let place_of = |environment: &str, address: &str, output: &str| {
            output_place(environment, &Address::new(address), output)
        };
        assert_eq!(
            place_of("dev", "orders-db", "password"),
            "dev/orders-db/output/password"
        );
        assert_ne!(place_of("a/b", "c", "d"), place_of("a", "b/c", "d"));
        assert_ne!(place_of("a%2fb", "c", "d"), place_of("a/b", "c", "d"));
    }

    #[test]
    fn what_a_sealed_map_repeats_of_the_config_is_known_by_itself() {
        let masker = Masker::default();
        let keyring = Keyring::new(&[7; 32]);
        let old = masker.admit("token", "tok-OLD-secret-11".to_owned());
        let config = json!({"t": {"$secret": keyring.fingerprint(&old)}, "n": 1});
        let Value::Object(config) = config else {
            panic!("a map")
        };
        let fresh = Masker::default();
        let sealed = fresh.admit(
            "cfg",
            json!({"greeting": "hello", "x": [{"t": "tok-OLD-secret-11"}]}).to_string(),
        );
        know_parts(&sealed, &config, &keyring, &fresh, "cfg");
        assert!(fresh.is_sensitive("tok-OLD-secret-11"));
        assert!(!fresh.is_sensitive("hello"));
    }
}
