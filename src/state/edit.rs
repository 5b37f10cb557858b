//! Changes of records by hand: another name, values that should have been sealed all along. Pure
//! but for randomness, which is passed in.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::config::is_sensitive_name;
use crate::random::Random;
use crate::resource::{Address, config_hash};
use crate::secret::{Keyring, Masker, Secret};

use super::telltale::{holds_secret, is_secret_text, named};

use super::record::{PLACEHOLDER_PREFIX, Record, RecordError, SealedOutput, place, secret_key};

/// What sealing needs.
#[derive(Clone, Copy)]
pub struct Seals<'a> {
    /// The environment's keys.
    pub keyring: &'a Keyring,
    /// Learns every plaintext first.
    pub masker: &'a Masker,
    /// For nonces.
    pub random: &'a dyn Random,
}

fn placeholder(address: &Address, output: &str) -> Value {
    format!(
        "{PLACEHOLDER_PREFIX}{}",
        secret_key(address.as_str(), output)
    )
    .into()
}

fn seal_output(
    record: &mut Record,
    environment: &str,
    name: &str,
    secret: &Secret,
    with: Seals<'_>,
) {
    let address = record.resource_id.clone();
    let here = place(environment, &address, &["output", name]);
    record
        .outputs
        .insert(name.to_owned(), placeholder(&address, name));
    record.tidegate.sealed.insert(
        name.to_owned(),
        SealedOutput {
            fingerprint: with.keyring.fingerprint(secret),
            sealed: with.keyring.seal(with.random, &here, secret),
        },
    );
}

/// The same record under another address. What is sealed is opened at the old place and sealed at
/// the new one.
///
/// # Errors
/// Names the part that does not open.
pub fn rename(
    record: &Record,
    environment: &str,
    to: &Address,
    with: Seals<'_>,
) -> Result<Record, RecordError> {
    let from = &record.resource_id;
    let unsealed = |part: String, source| RecordError::Sealed {
        address: from.clone(),
        part,
        source,
    };
    let mut renamed = record.clone();
    renamed.resource_id = to.clone();
    renamed.tidegate.sealed.clear();
    for (name, old) in &record.tidegate.sealed {
        let there = place(environment, from, &["output", name]);
        let secret = with
            .keyring
            .open(with.masker, &there, &old.sealed)
            .map_err(|source| unsealed(format!("output `{name}`"), source))?;
        seal_output(&mut renamed, environment, name, &secret, with);
    }
    if !record.tidegate.private.is_empty() {
        let there = place(environment, from, &["private"]);
        let bytes = with
            .keyring
            .open_bytes(&there, &record.tidegate.private)
            .map_err(|source| unsealed("the provider's private data".to_owned(), source))?;
        renamed.tidegate.private =
            with.keyring
                .seal_bytes(with.random, &place(environment, to, &["private"]), &bytes);
    }
    Ok(renamed)
}

/// How many values [`seal_foreign`] found in the clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Outputs that are sealed now.
    pub outputs: usize,
    /// Config values of which only a fingerprint is left.
    pub config: usize,
}

/// Takes plaintext out of a record that another program wrote: outputs that are `declared` sensitive,
/// or hold a secret by name or looks at any depth, are sealed as a whole; config values of that kind
/// become fingerprints.
pub fn seal_foreign(
    record: &mut Record,
    environment: &str,
    declared: &BTreeSet<String>,
    with: Seals<'_>,
) -> Found {
    let mut found = Found::default();
    let open: Vec<(String, String)> = record
        .outputs
        .iter()
        .filter(|(name, value)| {
            (declared.contains(name.as_str()) || holds_secret(name, value))
                && !record.tidegate.sealed.contains_key(name.as_str())
                && value
                    .as_str()
                    .is_none_or(|text| !text.starts_with(PLACEHOLDER_PREFIX))
        })
        .filter_map(|(name, value)| Some((name.clone(), plain(value)?)))
        .collect();
    for (name, text) in open {
        let secret = with.masker.admit(&name, text);
        seal_output(record, environment, &name, &secret, with);
        found.outputs += 1;
    }
    for (name, value) in &mut record.config {
        found.config += hide(name, value, with);
    }
    if found.config > 0 && !record.config_hash.is_empty() {
        record.config_hash = config_hash(&record.config);
    }
    found
}

fn hide(name: &str, value: &mut Value, with: Seals<'_>) -> usize {
    if value.get("$secret").is_some() {
        // A fingerprint is what is left of one, under whatever name.
        return 0;
    }
    let is_secret = match value {
        Value::String(text) => is_secret_text(name, text),
        _ => is_sensitive_name(name),
    };
    if is_secret {
        let Some(text) = plain(value) else {
            return 0;
        };
        let secret = with.masker.admit(name, text);
        *value = serde_json::json!({ "$secret": with.keyring.fingerprint(&secret) });
        return 1;
    }
    match value {
        Value::Object(map) => {
            // `{name: DB_PASSWORD, value: …}`: the value has the name that stands beside it.
            let beside = named(map).unwrap_or_default().to_owned();
            map.iter_mut()
                .map(|(name, value)| match name.as_str() {
                    "value" if is_sensitive_name(&beside) => hide(&beside, value, with),
                    _ => hide(name, value, with),
                })
                .sum()
        }
        Value::Array(items) => items.iter_mut().map(|item| hide(name, item, with)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// The text of a value that may be a secret; flags, nothing, and what was hidden before are none.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Bool(_) => None,
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        Value::Object(map) if map.contains_key("$secret") => None,
        Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::random::SeededRandom;
    use crate::resource::Output;
    use crate::state::record::to_recorded;

    const CANARY: &str = "canary-hunter2-canary";

    #[test]
    fn a_foreign_record_keeps_no_plaintext_and_can_be_renamed() {
        let (keyring, masker, random) = (
            Keyring::new(&[7; 32]),
            Masker::default(),
            SeededRandom::new(1),
        );
        let with = Seals {
            keyring: &keyring,
            masker: &masker,
            random: &random,
        };
        let mut record: Record = serde_json::from_value(json!({
            "resource_id": "orders-db", "resource_type": "infra.database", "provider": "local",
            "status": "active", "created_at": "", "updated_at": "", "config_hash": "x",
            "config": {
                "size": "m", "users": [{"password": CANARY, "password_length": 20}],
                "env": [{"name": "PORT", "value": "8080"}, {"name": "PASSWORD", "value": CANARY}],
                "dsn": format!("postgres://app:{CANARY}@db.test/app"),
                "user_data": format!("#!/bin/sh\nexport DB_PASSWORD={CANARY}\n"),
            },
            "outputs": {
                "password": CANARY, "host": "db.test", "login": CANARY,
                "uri": format!("postgres://app:{CANARY}@db.test/app"),
                "users": [{"name": "app", "password": CANARY}],
                "kubeconfig": format!("users:\n- user:\n    token: {CANARY}\n"),
            },
        }))
        .unwrap();
        let declared = BTreeSet::from(["login".to_owned()]);
        let found = seal_foreign(&mut record, "dev", &declared, with);
        assert_eq!(
            found,
            Found {
                outputs: 5,
                config: 4
            }
        );
        assert_eq!(record.config["users"][0]["password_length"], json!(20));
        let again = seal_foreign(&mut record, "dev", &declared, with);
        assert_eq!(again, Found::default());
        assert_eq!(record.outputs["host"], json!("db.test"));
        assert_eq!(record.config["env"][0]["value"], json!("8080"));
        let text = String::from_utf8(record.document().unwrap()).unwrap();
        assert!(!text.contains(CANARY), "{text}");

        let renamed = rename(&record, "dev", &Address::new("shop-db"), with).unwrap();
        for record in [&record, &renamed] {
            let opened = to_recorded(record, "dev", &keyring, &masker).unwrap();
            assert!(matches!(&opened.outputs["password"],
                Output::Sensitive(secret) if secret.expose() == CANARY));
        }
        assert_ne!(renamed.outputs["password"], record.outputs["password"]);
        // The old seal does not open under the new name.
        let mut forged = renamed.clone();
        forged.tidegate.sealed = record.tidegate.sealed.clone();
        assert!(to_recorded(&forged, "dev", &keyring, &masker).is_err());
    }
}
