//! Outputs as they are recorded beside outputs as they are.

use serde_json::Value as Json;

use super::Field;
use crate::provider::config_changes;
use crate::resource::{Output, Outputs, PublicMap, Value};
use crate::secret::Keyring;

pub(in crate::apply) fn holds_marker(value: &Json) -> bool {
    match value {
        Json::Object(map) => map.contains_key("$secret") || map.values().any(holds_marker),
        Json::Array(items) => items.iter().any(holds_marker),
        _ => false,
    }
}

/// An output in public form.
pub fn public(output: &Output, keyring: &Keyring) -> Json {
    match output {
        Output::Public(value) => value.clone(),
        Output::Sensitive(secret) => Value::Secret(secret.clone()).public(keyring),
    }
}

/// The same text, of which one is held for a secret and the other is not: what it is has not changed.
fn is_sealed_alone(one: &Output, other: &Output, keyring: &Keyring) -> bool {
    match (one, other) {
        (Output::Public(value), Output::Sensitive(secret))
        | (Output::Sensitive(secret), Output::Public(value)) => {
            let fingerprint = match value {
                Json::String(text) => keyring.fingerprint_text(text),
                value => keyring.fingerprint_text(&value.to_string()),
            };
            keyring.fingerprint(secret) == fingerprint
        }
        _ => false,
    }
}

/// Every recorded output whose live value differs. What a live answer lacks is no difference: some
/// values are told once, when the resource is made. What it has beyond the record is none either.
pub fn output_fields(recorded: &Outputs, live: &Outputs, keyring: &Keyring) -> Vec<Field> {
    let shared = |from: &Outputs| -> PublicMap {
        from.iter()
            .filter(|(name, _)| match (recorded.get(*name), live.get(*name)) {
                (Some(recorded), Some(live)) => !is_sealed_alone(recorded, live, keyring),
                _ => false,
            })
            .map(|(name, output)| (name.clone(), public(output, keyring)))
            .collect()
    };
    config_changes(&shared(recorded), &shared(live))
        .into_iter()
        .filter(|change| !same(&change.old, &change.new))
        .map(|change| Field {
            path: format!("outputs.{}", change.path),
            expected: change.old,
            actual: change.new,
        })
        .collect()
}

/// Equal as a person sees it: a number that came back as `5.0` is still 5.
pub fn same(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(left), Json::Number(right)) => {
            left == right || left.as_f64() == right.as_f64()
        }
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| same(a, b))
        }
        (Json::Object(left), Json::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, a)| right.get(key).is_some_and(|b| same(a, b)))
        }
        (left, right) => left == right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Masker;

    fn keyring() -> Keyring {
        Keyring::new(&[7; 32])
    }

    fn secret(text: &str) -> Output {
        Output::Sensitive(Masker::default().admit("test", text.to_owned()))
    }

    fn outputs(pairs: &[(&str, Output)]) -> Outputs {
        pairs
            .iter()
            .map(|(name, output)| ((*name).to_owned(), output.clone()))
            .collect()
    }

    #[test]
    fn outputs_differ_where_both_sides_have_a_value() {
        let public = |value: Json| Output::Public(value);
        let recorded = outputs(&[
            ("host", public("a".into())),
            ("port", public(5432.into())),
            ("boot_script", public("once".into())),
            ("password", secret("correct-horse")),
        ]);
        let live = outputs(&[
            ("host", public("b".into())),
            ("port", public(5432.0.into())),
            ("region", public("new".into())),
            ("password", secret("correct-horse")),
        ]);
        let fields = output_fields(&recorded, &live, &keyring());
        assert_eq!(
            fields,
            [Field {
                path: "outputs.host".into(),
                expected: "a".into(),
                actual: "b".into()
            }]
        );
    }

    #[test]
    fn a_changed_secret_shows_as_two_fingerprints() {
        let fields = output_fields(
            &outputs(&[("password", secret("correct-horse"))]),
            &outputs(&[("password", secret("battery-staple"))]),
            &keyring(),
        );
        let text = format!("{fields:?}");
        assert_eq!(fields.len(), 1);
        assert!(fields[0].expected.get("$secret").is_some(), "{text}");
        assert!(
            !text.contains("horse") && !text.contains("staple"),
            "{text}"
        );
    }

    #[test]
    fn that_a_text_is_held_for_a_secret_now_is_no_drift() {
        let open = outputs(&[("url", Output::Public(Json::from("http://a/b")))]);
        let sealed = outputs(&[("url", secret("http://a/b"))]);
        assert!(output_fields(&open, &sealed, &keyring()).is_empty());
        assert!(output_fields(&sealed, &open, &keyring()).is_empty());
        let other = outputs(&[("url", secret("http://a/c"))]);
        assert_eq!(output_fields(&open, &other, &keyring()).len(), 1);
    }
}
