//! The config that a record was applied with, its secrets in hand again.

use serde_json::Value as Json;

use super::Look;
use crate::apply::survey::spec;
use crate::resource::{Kind, Map, PublicMap, Spec, Value};
use crate::secret::Keyring;
use crate::state::Record;

/// The config a record was applied with, as a driver wants it.
pub(super) fn applied(look: &Look<'_, '_>, record: &Record) -> Option<Spec> {
    let desired = look
        .declared
        .get(&record.resource_id)
        .and_then(|resource| spec(look.engine, resource, look.values).ok());
    let config = reopen(
        &record.config,
        desired.as_ref().map(|spec| &spec.config),
        &look.engine.keyring,
    )?;
    Some(Spec {
        address: record.resource_id.clone(),
        kind: Kind::new(record.resource_type.clone()),
        config,
        public_config: record.config.clone(),
        dependencies: record.dependencies.iter().cloned().collect(),
    })
}

/// A recorded config with its secrets in hand again: each is taken from the config of now, at the
/// same place, if its fingerprint still fits. `None` when one does not.
fn reopen(recorded: &PublicMap, desired: Option<&Map>, keyring: &Keyring) -> Option<Map> {
    recorded
        .iter()
        .map(|(key, value)| {
            let now = desired.and_then(|desired| desired.get(key));
            Some((key.clone(), reopen_value(value, now, keyring)?))
        })
        .collect()
}

fn reopen_value(recorded: &Json, desired: Option<&Value>, keyring: &Keyring) -> Option<Value> {
    match recorded {
        Json::Object(map) if map.len() == 1 && map.contains_key("$secret") => desired
            .filter(|value| matches!(value, Value::Secret(_)) && value.public(keyring) == *recorded)
            .cloned(),
        Json::Object(map) => {
            let desired = match desired {
                Some(Value::Map(desired)) => Some(desired),
                _ => None,
            };
            reopen(map, desired, keyring).map(Value::Map)
        }
        Json::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, item)| {
                let now = match desired {
                    Some(Value::List(desired)) => desired.get(at),
                    _ => None,
                };
                reopen_value(item, now, keyring)
            })
            .collect::<Option<Vec<_>>>()
            .map(Value::List),
        plain => Some(Value::from(plain.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Masker;

    fn keyring() -> Keyring {
        Keyring::new(&[7; 32])
    }

    #[test]
    fn an_applied_config_is_reopened_only_with_the_same_secrets() {
        let keyring = keyring();
        let held = |text: &str| {
            Map::from([
                ("engine".to_owned(), Value::String("postgres".into())),
                (
                    "env".to_owned(),
                    Value::Map(Map::from([(
                        "KEY".to_owned(),
                        Value::Secret(Masker::default().admit("test", text.to_owned())),
                    )])),
                ),
            ])
        };
        let recorded = crate::resource::public_map(&held("correct-horse"), &keyring);
        let again = reopen(&recorded, Some(&held("correct-horse")), &keyring).unwrap();
        assert_eq!(crate::resource::public_map(&again, &keyring), recorded);
        assert!(reopen(&recorded, Some(&held("battery-staple")), &keyring).is_none());
        assert!(reopen(&recorded, None, &keyring).is_none());
    }
}
