//! Between our values and the wire's JSON bytes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map as Object, Number, Value as Json, json};
use tidegate_plugin::iac;

use super::Tools;
use crate::provider::hide::PLACEHOLDER;
use crate::provider::{DriverError, DriverResult, ErrorClass};
use crate::resource::{
    Address, Kind, Map, Observed, Output, Outputs, Private, PublicMap, Recorded, Spec, Value,
};

/// The member of the bytes kept with a resource that names the outputs its plugin flagged.
const FLAGGED: &str = "flagged";
/// Whole numbers beyond this are not exact in a 64-bit float, which is what Go reads.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A config on its way to a plugin. Paths of what is not known yet are collected and left out.
pub(super) fn config_json(config: &Map, unknown: &mut Vec<String>) -> Vec<u8> {
    object_bytes(&plain_map(config, "", unknown))
}

/// JSON as existing hosts write it: sorted keys, and the characters Go escapes escaped. Each of
/// those can only stand inside a string, so replacing them in the text is enough.
pub(super) fn object_bytes(object: &Object<String, Json>) -> Vec<u8> {
    let text = Json::Object(object.clone()).to_string();
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
        .into_bytes()
}

fn plain_map(map: &Map, prefix: &str, unknown: &mut Vec<String>) -> Object<String, Json> {
    map.iter()
        .filter_map(|(key, value)| {
            let path = if prefix.is_empty() {
                key.clone()
            } else {
                format!("{prefix}.{key}")
            };
            Some((key.clone(), plain(value, &path, unknown)?))
        })
        .collect()
}

/// The value as the plugin may see it; `None` when it is not known. A list with an unknown item is
/// unknown as a whole, because leaving an item out would move its neighbours.
fn plain(value: &Value, path: &str, unknown: &mut Vec<String>) -> Option<Json> {
    Some(match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::Bool(*flag),
        Value::Number(number) => Json::Number(number.clone()),
        Value::String(text) => Json::String(text.clone()),
        // A plugin is trusted with the secrets of its own resources: it has to set them.
        Value::Secret(secret) => Json::String(secret.expose().to_owned()),
        Value::Template(_) | Value::Unknown(_) => {
            unknown.push(path.to_owned());
            return None;
        }
        Value::List(items) if !items.iter().all(Value::is_known) => {
            unknown.push(path.to_owned());
            return None;
        }
        Value::List(items) => Json::Array(
            items
                .iter()
                .filter_map(|item| plain(item, path, unknown))
                .collect(),
        ),
        Value::Map(map) => Json::Object(plain_map(map, path, unknown)),
    })
}

/// The JSON object in a `*_json` field; nothing, `null` and `{}` are the same: no members.
pub(super) fn object(bytes: &[u8], what: &str) -> DriverResult<PublicMap> {
    let wrong = |why: String| {
        DriverError::new(
            ErrorClass::Invalid,
            format!("the plugin's {what} is wrong: {why}"),
        )
    };
    match json(bytes).map_err(wrong)? {
        Json::Null => Ok(PublicMap::new()),
        Json::Object(object) => Ok(object),
        _ => Err(wrong("it must be a JSON object".to_owned())),
    }
}

/// Any JSON value; nothing is null.
pub(super) fn json(bytes: &[u8]) -> Result<Json, String> {
    if bytes.is_empty() {
        return Ok(Json::Null);
    }
    // The parser's message names a place and never quotes the text.
    let mut value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    whole_numbers(&mut value);
    Ok(value)
}

/// `5.0` is 5: Go knows one kind of number, and writes it one way or the other.
fn whole_numbers(value: &mut Json) {
    match value {
        Json::Number(number) => {
            if let Some(float) = number.as_f64()
                && number.is_f64()
                && float.fract() == 0.0
                && float.abs() <= EXACT_MAX
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "whole and within the exact range"
                )]
                let whole = float as i64;
                *number = Number::from(whole);
            }
        }
        Json::Array(items) => items.iter_mut().for_each(whole_numbers),
        Json::Object(members) => members.values_mut().for_each(whole_numbers),
        Json::Null | Json::Bool(_) | Json::String(_) => {}
    }
}

/// A desired resource as plugins take it.
pub(super) fn spec(desired: &Spec, unknown: &mut Vec<String>) -> iac::ResourceSpec {
    let hint = |name: &str| match desired.config.get("hints") {
        Some(Value::Map(hints)) => match hints.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        },
        _ => String::new(),
    };
    let hints = iac::ResourceHints {
        cpu: hint("cpu"),
        memory: hint("memory"),
        storage: hint("storage"),
    };
    // They have a field of their own; a driver that refuses keys it does not know would refuse these.
    let mut config = desired.config.clone();
    config.remove("hints");
    iac::ResourceSpec {
        name: desired.address.to_string(),
        r#type: desired.kind.to_string(),
        config_json: config_json(&config, unknown),
        size: match desired.config.get("size") {
            Some(Value::String(size)) => size.clone(),
            _ => String::new(),
        },
        hints: (hints != iac::ResourceHints::default()).then_some(hints),
        depends_on: desired
            .dependencies
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

/// A pointer to what is recorded.
pub(super) fn reference(prior: &Recorded) -> iac::ResourceRef {
    iac::ResourceRef {
        name: prior.address.to_string(),
        r#type: prior.kind.to_string(),
        provider_id: prior.provider_id.clone(),
    }
}

/// What is recorded, as `Diff` takes it. Outputs that are secret by their name, by the driver's word or
/// by the flag they came with are placeholders, as its own host makes them. One that was only sealed to be on the safe side is
/// said as it is: the plugin made it, and compares it with the config.
pub(super) fn recorded_output(
    prior: &Recorded,
    is_sensitive: impl Fn(&str) -> bool,
) -> iac::ResourceOutput {
    let flagged = flagged(&prior.private);
    let outputs: PublicMap = prior
        .outputs
        .iter()
        .map(|(name, output)| {
            let value = match output {
                Output::Public(value) => value.clone(),
                Output::Sensitive(_) if is_sensitive(name) || flagged.contains(name) => {
                    Json::String(format!("{PLACEHOLDER}{}_{name}", prior.address))
                }
                Output::Sensitive(secret) => unsealed(secret.expose()),
            };
            (name.clone(), value)
        })
        .collect();
    iac::ResourceOutput {
        name: prior.address.to_string(),
        r#type: prior.kind.to_string(),
        provider_id: prior.provider_id.clone(),
        outputs_json: object_bytes(&outputs),
        ..iac::ResourceOutput::default()
    }
}

/// What is kept with a resource of a plugin: which outputs it flagged as sensitive. Another one may be
/// sealed too, without the plugin knowing of it.
fn kept(flagged: BTreeSet<String>) -> Private {
    if flagged.is_empty() {
        return Private::default();
    }
    Private::new(json!({ FLAGGED: flagged }).to_string().into_bytes())
}

pub(super) fn flagged(private: &Private) -> BTreeSet<String> {
    // Nothing is kept, or by an older version: then names and the driver's word decide alone.
    serde_json::from_slice::<BTreeMap<String, BTreeSet<String>>>(private.as_bytes())
        .ok()
        .and_then(|mut kept| kept.remove(FLAGGED))
        .unwrap_or_default()
}

/// What is flagged now, and what was before: many plugins tell a secret once, and its flag with it.
pub(super) fn still_flagged(now: &Private, before: &Private) -> Private {
    let mut all = flagged(before);
    all.append(&mut flagged(now));
    kept(all)
}

/// Lists and maps are sealed as their JSON text.
fn unsealed(text: &str) -> Json {
    match serde_json::from_str(text) {
        Ok(value @ (Json::Array(_) | Json::Object(_))) => value,
        _ => Json::String(text.to_owned()),
    }
}

/// Says that an answer is about something else than what was asked about.
pub(super) fn another(what: &str, said: &str, asked: &str, tools: &Tools) -> DriverError {
    DriverError::new(
        ErrorClass::Unknown,
        format!(
            "the plugin answered about another resource: {what} `{}` instead of `{asked}`; nothing is recorded, so look at the provider for what it did",
            tools.excerpt(said)
        ),
    )
}

/// What a plugin says about one resource. Anything else than the resource that was asked for is
/// refused: a record of the wrong one would make the next run change, or delete, somebody else's.
pub(super) fn observed(
    output: Option<iac::ResourceOutput>,
    address: &Address,
    kind: &Kind,
    tools: &Tools,
) -> DriverResult<Observed> {
    let Some(output) = output else {
        return Err(DriverError::new(
            ErrorClass::Unknown,
            "the plugin answered without saying what there is now",
        ));
    };
    for (what, said, asked) in [
        ("name", &output.name, address.as_str()),
        ("type", &output.r#type, kind.as_str()),
    ] {
        if !said.is_empty() && said != asked {
            return Err(another(what, said, asked, tools));
        }
    }
    let (secrets, others): (Vec<_>, Vec<_>) = object(&output.outputs_json, "outputs")?
        .into_iter()
        .partition(|(name, _)| output.sensitive.get(name).copied().unwrap_or(false));
    let mut outputs = Outputs::new();
    let mut wrong = None;
    let mut marked = BTreeSet::new();
    let mut admit = |name: String, value: Json| {
        let text = match value {
            Json::String(text) => text,
            other => other.to_string(),
        };
        let secret = tools.masker.admit(&format!("{address}.{name}"), text);
        outputs.insert(name, Output::Sensitive(secret));
    };
    for (name, value) in secrets {
        marked.insert(name.clone());
        if !value.is_string() {
            wrong.get_or_insert_with(|| name.clone());
        }
        admit(name, value);
    }
    // An echo of a secret, of one we handed over or of one told beside it, is that secret, whatever the
    // plugin calls it.
    let (echoes, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|(_, value)| match value {
            Json::String(text) => tools.masker.is_sensitive(text),
            value => tools.masker.is_sensitive(&value.to_string()),
        });
    for (name, value) in echoes {
        admit(name, value);
    }
    let others = others.into_iter();
    outputs.extend(others.map(|(name, value)| (name, Output::Public(value))));
    let observed = Observed {
        provider_id: output.provider_id,
        outputs,
        status: output.status,
        private: kept(marked),
    };
    match wrong {
        None => Ok(observed),
        Some(name) => {
            let error = DriverError::new(
                ErrorClass::Invalid,
                format!("the plugin marks the output `{name}` as sensitive, and it is not text"),
            );
            Err(if observed.provider_id.is_empty() {
                error
            } else {
                error.with_partial(observed)
            })
        }
    }
}

/// RFC 3339; empty for none.
pub(super) fn time_text(at: Option<&prost_types::Timestamp>) -> String {
    at.and_then(|at| time::OffsetDateTime::from_unix_timestamp(at.seconds).ok())
        .map(crate::clock::rfc3339)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h30_nothing_and_null_are_no_members_and_a_list_is_an_error() {
        for bytes in [&b""[..], b"null", b"{}"] {
            assert_eq!(object(bytes, "outputs").unwrap(), PublicMap::new());
        }
        for bytes in [&b"[]"[..], b"5", b"\"x\"", b"{"] {
            let error = object(bytes, "outputs").unwrap_err();
            assert_eq!(error.class, ErrorClass::Invalid);
        }
    }

    #[test]
    fn whole_floats_become_whole_numbers() {
        let value = json(br#"{"a": 5.0, "b": [1e3, 1.5], "c": 9007199254740993, "d": 1e300}"#);
        assert_eq!(
            value.unwrap(),
            json!({"a": 5, "b": [1000, 1.5], "c": 9_007_199_254_740_993_u64, "d": 1e300})
        );
    }

    #[test]
    fn json_is_written_as_go_writes_it() {
        let object = json!({"b": "<a & b>", "a": 1});
        let bytes = object_bytes(object.as_object().unwrap());
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            r#"{"a":1,"b":"\u003ca \u0026 b\u003e"}"#
        );
    }

    #[test]
    fn what_was_flagged_is_a_placeholder_and_what_was_only_sealed_is_not() {
        let secret = |text: &str| {
            let masker = crate::secret::Masker::default();
            Output::Sensitive(masker.admit("x", text.to_owned()))
        };
        let mut prior = Recorded::by_name(Address::new("db"), Kind::new("infra.database"));
        prior.outputs = Outputs::from([
            ("admin_phrase".to_owned(), secret("hunter-2-hunter")),
            ("echo".to_owned(), secret("from the config")),
        ]);
        let said = |prior: &Recorded| {
            let output = recorded_output(prior, |_| false);
            String::from_utf8(output.outputs_json).unwrap()
        };
        assert!(said(&prior).contains("hunter-2-hunter"));
        prior.private = kept(BTreeSet::from(["admin_phrase".to_owned()]));
        assert_eq!(
            said(&prior),
            r#"{"admin_phrase":"secret_ref://db_admin_phrase","echo":"from the config"}"#
        );
        prior.private = Private::new(vec![0, 159]);
        assert!(said(&prior).contains("hunter-2-hunter"));
    }

    #[test]
    fn what_is_not_known_is_left_out_and_named() {
        let unknown = Value::Unknown(crate::resource::Reference {
            address: Address::new("db"),
            field: "host".to_owned(),
        });
        let config = Map::from([
            ("size".to_owned(), Value::String("m".to_owned())),
            (
                "env_vars".to_owned(),
                Value::Map(Map::from([
                    ("HOST".to_owned(), unknown.clone()),
                    ("ROLE".to_owned(), Value::String("api".to_owned())),
                ])),
            ),
            ("list".to_owned(), Value::List(vec![Value::Null, unknown])),
        ]);
        let mut paths = Vec::new();
        let bytes = config_json(&config, &mut paths);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            r#"{"env_vars":{"ROLE":"api"},"size":"m"}"#
        );
        assert_eq!(paths, ["env_vars.HOST", "list"]);
    }

    #[test]
    fn a_size_is_said_in_its_field_and_in_the_config_and_hints_in_theirs() {
        let hints = Map::from([("memory".to_owned(), Value::String("8Gi".to_owned()))]);
        let desired = Spec {
            address: Address::new("db"),
            kind: Kind::new("infra.database"),
            config: Map::from([
                ("hints".to_owned(), Value::Map(hints)),
                (
                    "instance_type".to_owned(),
                    Value::String("m-type".to_owned()),
                ),
                ("size".to_owned(), Value::String("m".to_owned())),
            ]),
            public_config: PublicMap::new(),
            dependencies: std::collections::BTreeSet::new(),
        };
        let said = spec(&desired, &mut Vec::new());
        assert_eq!(said.size, "m");
        assert_eq!(said.hints.unwrap().memory, "8Gi");
        assert_eq!(
            said.config_json,
            br#"{"instance_type":"m-type","size":"m"}"#
        );
    }
}
