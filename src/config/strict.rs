//! What the JSON Schema says beyond shapes: the limits, patterns and conditions that the loader holds
//! values to. Whatever the loader takes, the schema takes; `agreement.rs` holds the two together.
//!
//! A text in which `${…}` may stand is let through as soon as one does: what it becomes is not known
//! to an editor.

use serde_json::{Map, Value, json};

use super::resolve::OWN_TYPES;
use super::resolve::gates::{CONNECTION_HEADERS, DURATION_MAX};
use super::resolve::secrets::{ITEM_KEYS, LENGTH_MAX};
use crate::variables::{CODE, CODE_PREFIXES, RUNNER_PREFIXES};

/// Control characters, inside brackets.
const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";
/// Anywhere in a text: something is filled in.
const FILLED: &str = r"\$\{";
/// The name of a variable.
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
/// What a gate's step says of the gate.
const GATE: &str = "GateStep/config";
/// Keys of a single target, written right in its step.
const TARGET_KEYS: [&str; 7] = [
    "url",
    "expect_status",
    "expect_body_contains",
    "method",
    "headers",
    "body",
    "tls_verify",
];

/// Adds everything to a schema made from the shapes.
pub(super) fn tighten(schema: &mut Value) {
    bound_numbers(schema);
    let Some(shapes) = schema.get_mut("$defs").and_then(Value::as_object_mut) else {
        return;
    };
    module(shapes);
    sink(shapes);
    secrets(shapes);
    gate(shapes);
    set(
        shapes,
        "OutputShape",
        None,
        json!({
            "if": { "properties": { "sinks": { "type": "array", "minItems": 1 } }, "required": ["sinks"] },
            "then": { "properties": { "sensitive": { "const": true } }, "required": ["sensitive"] },
        }),
    );
}

fn module(shapes: &mut Map<String, Value>) {
    let name = format!(r"^(?![\s\S]*\$\{{)(?=[\s\S]*\S)[^{CONTROL}]*$");
    set(shapes, "Module", Some("name"), json!({ "pattern": name }));
    set(
        shapes,
        "Module",
        Some("outputs"),
        json!({ "propertyNames": { "pattern": name } }),
    );
    set(
        shapes,
        "Module",
        Some("type"),
        json!({ "pattern": r"^(?!iac\.)|^iac\.(provider|state)$" }),
    );
    let text = json!({ "type": ["string", "null"] });
    let flag = json!({ "type": ["boolean", "null"] });
    let called = format!(r"^$|{FILLED}|^(?=[\s\S]*\S)[^{CONTROL}]*$");
    let quantity = json!({ "type": ["string", "number", "null"] });
    let of_type = |kind: Value, then: Value| {
        json!({
            "if": { "properties": { "type": kind }, "required": ["type"] },
            "then": then,
        })
    };
    let config =
        |properties: Value| json!({ "properties": { "config": { "properties": properties } } });
    let made = json!({ "type": ["array", "null"], "items": { "$ref": "#/$defs/GenerateShape" } });
    let conditions = json!([
        of_type(
            json!({ "enum": OWN_TYPES }),
            json!({ "properties": { "outputs": { "maxProperties": 0 } } }),
        ),
        of_type(
            json!({ "pattern": r"^infra\.[\s\S]" }),
            config(json!({
                "name": { "type": ["string", "null"], "pattern": called },
                "provider": text,
                "iac_provider": text,
                "depends_on": { "type": ["array", "null"], "items": { "type": "string" } },
                "adopt_existing": flag,
                "protected": flag,
                "hints": {
                    "type": ["object", "null"],
                    "properties": { "cpu": quantity, "memory": quantity, "storage": quantity },
                    "additionalProperties": false,
                },
                "lifecycle": {
                    "type": ["object", "null"],
                    "properties": { "create_before_destroy": flag },
                    "additionalProperties": false,
                },
            })),
        ),
        of_type(
            json!({ "const": "iac.provider" }),
            config(json!({ "provider": text })),
        ),
        {
            // An environment may say what is left out here.
            "if": {
                "properties": {
                    "type": { "const": "iac.provider" },
                    "environments": { "type": "null" },
                },
                "required": ["type"],
            },
            "then": {
                "properties": {
                    "config": {
                        "type": "object",
                        "properties": { "provider": { "type": "string" } },
                        "required": ["provider"],
                    },
                },
                "required": ["config"],
            },
        },
        of_type(
            json!({ "const": "iac.state" }),
            config(json!({ "backend": text, "ephemeral": flag })),
        ),
        of_type(
            json!({ "enum": ["secrets.generate", "secrets.requires"] }),
            json!({ "properties": { "config": { "propertyNames": { "enum": ITEM_KEYS } } } }),
        ),
        of_type(
            json!({ "const": "secrets.generate" }),
            config(ITEM_KEYS.iter().map(|key| ((*key).to_owned(), made.clone())).collect()),
        ),
    ]);
    set(shapes, "Module", None, json!({ "allOf": conditions }));
}

fn sink(shapes: &mut Map<String, Value>) {
    let nothing = json!({ "type": "null" });
    let filled = |pattern: &str| json!({ "pattern": format!("{FILLED}|{pattern}") });
    set(shapes, "Sink", Some("name"), filled(VARIABLE));
    set(
        shapes,
        "Sink",
        Some("repo"),
        filled(
            r"^(?!-)[A-Za-z0-9_-]{1,39}/(?!\.{1,2}$)(?![\s\S]*\.[Gg][Ii][Tt]$)[A-Za-z0-9._-]{1,100}$",
        ),
    );
    set(
        shapes,
        "Sink",
        Some("environment"),
        filled(&format!(r"^(?=[\s\S]*\S)[^{CONTROL}]*$")),
    );
    set(
        shapes,
        "Sink",
        Some("token_env"),
        json!({ "pattern": VARIABLE }),
    );
    set(
        shapes,
        "Sink",
        Some("path"),
        filled(&format!(r"^(?!\.\.(/|$))(?![\s\S]*/$)[^{CONTROL}]+$")),
    );
    let any_case = |word: &str| -> String {
        word.chars()
            .map(|letter| match letter.is_ascii_alphabetic() {
                true => format!("[{letter}{}]", letter.to_ascii_lowercase()),
                false => letter.to_string(),
            })
            .collect()
    };
    let each = |words: &[&str]| -> String {
        words
            .iter()
            .map(|word| any_case(word))
            .collect::<Vec<_>>()
            .join("|")
    };
    let free = format!(
        "{FILLED}|^(?!({}|{})$)(?!{}|{})",
        each(CODE),
        any_case("CI"),
        each(CODE_PREFIXES),
        each(RUNNER_PREFIXES)
    );
    let of_type = |kind: &str, then: Value| {
        json!({
            "if": { "properties": { "type": { "const": kind } }, "required": ["type"] },
            "then": then,
        })
    };
    let conditions = json!([
        of_type(
            "github_secret",
            json!({
                "properties": {
                    "repo": { "type": "string" },
                    "path": nothing,
                    "name": filled(&format!("^(?!{}_)", any_case("GITHUB"))),
                },
                "required": ["repo"],
            }),
        ),
        of_type(
            "github_env",
            json!({
                "properties": {
                    "repo": nothing, "environment": nothing, "token_env": nothing, "path": nothing,
                    "name": { "pattern": free },
                },
            }),
        ),
        of_type(
            "dotenv",
            json!({
                "properties": { "repo": nothing, "environment": nothing, "token_env": nothing },
            }),
        ),
    ]);
    set(shapes, "Sink", None, json!({ "allOf": conditions }));
}

fn secrets(shapes: &mut Map<String, Value>) {
    let name = format!(r"^(?=[\s\S]*\S)[^${{}}{CONTROL}]*$");
    set(
        shapes,
        "GenerateShape",
        Some("key"),
        json!({ "pattern": name }),
    );
    set(
        shapes,
        "EntryShape",
        Some("name"),
        json!({ "pattern": name }),
    );
    set(
        shapes,
        "GenerateShape",
        Some("length"),
        json!({ "minimum": 1, "maximum": LENGTH_MAX }),
    );
    let nothing = json!({ "type": "null" });
    let of_type = |kind: Value, then: Value| {
        json!({
            "if": { "properties": { "type": kind }, "required": ["type"] },
            "then": then,
        })
    };
    let conditions = json!([
        of_type(
            json!({ "enum": ["random_hex", "random_base64", "random_alphanumeric"] }),
            json!({ "properties": { "source": nothing, "name": nothing, "config": nothing } }),
        ),
        of_type(
            json!({ "const": "infra_output" }),
            json!({
                "properties": {
                    "source": { "type": "string", "pattern": r"^[\s\S]+\.[\s\S]+$" },
                    "length": nothing, "name": nothing, "config": nothing,
                },
                "required": ["source"],
            }),
        ),
        of_type(
            json!({ "const": "provider_credential" }),
            json!({
                "properties": {
                    "source": { "type": "string", "pattern": r"^[^.]+\.[\s\S]+$" },
                    "name": { "type": "string", "pattern": r"\S" },
                    "length": nothing,
                },
                "required": ["source", "name"],
            }),
        ),
    ]);
    set(
        shapes,
        "GenerateShape",
        None,
        json!({ "allOf": conditions }),
    );
    set(
        shapes,
        "Secrets",
        None,
        json!({
            "if": { "properties": { "config": { "type": "object" } }, "required": ["config"] },
            "then": { "properties": { "provider": { "type": "string" } }, "required": ["provider"] },
        }),
    );
}

fn gate(shapes: &mut Map<String, Value>) {
    set(
        shapes,
        "GateStep",
        Some("name"),
        json!({ "pattern": format!(r"^(?=[\s\S]*\S)[^{CONTROL}]*$") }),
    );
    let hours_max = DURATION_MAX.as_secs() / 3600;
    let duration = json!({
        "exclusiveMinimum": 0,
        "maximum": DURATION_MAX.as_secs(),
        // Not nothing at all, and no more hours than there may be.
        "pattern": format!(
            r"^(?=[^1-9]*[1-9])(?!\s*0*({})(\.[0-9]*)?h)\s*(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|ms|s|m|h))+\s*$",
            more_than(hours_max)
        ),
    });
    for key in ["timeout", "retry_interval"] {
        set(shapes, GATE, Some(key), duration.clone());
    }
    let owned = CONNECTION_HEADERS
        .iter()
        .map(|name| {
            name.chars()
                .map(|letter| match letter.is_ascii_alphabetic() {
                    true => format!("[{letter}{}]", letter.to_ascii_uppercase()),
                    false => letter.to_string(),
                })
                .collect::<String>()
        })
        .collect::<Vec<_>>()
        .join("|");
    for shape in [GATE, "TargetShape"] {
        set(
            shapes,
            shape,
            Some("url"),
            json!({ "pattern": format!(r"{FILLED}|^https?://[^ {CONTROL}]+$") }),
        );
        set(
            shapes,
            shape,
            Some("expect_status"),
            json!({ "minimum": 200, "maximum": 599 }),
        );
        set(shapes, shape, Some("consecutive"), json!({ "minimum": 1 }));
        set(
            shapes,
            shape,
            Some("expect_body_contains"),
            json!({ "minLength": 1 }),
        );
        set(
            shapes,
            shape,
            Some("headers"),
            json!({
                "propertyNames": { "pattern": format!(r"^(?!({owned})$)[A-Za-z0-9!#$%&'*+.^_`|~-]+$") },
                "additionalProperties": { "type": "string", "pattern": r"^[^\u0000\n\r]*$" },
            }),
        );
        set(
            shapes,
            shape,
            None,
            json!({
                "if": { "properties": { "method": { "const": "HEAD" } }, "required": ["method"] },
                "then": { "properties": { "expect_body_contains": { "type": "null" } } },
            }),
        );
    }
    let absent: Map<String, Value> = TARGET_KEYS
        .iter()
        .map(|key| ((*key).to_owned(), json!({ "type": "null" })))
        .collect();
    let mut several = absent;
    several.insert(
        "targets".to_owned(),
        json!({ "type": "array", "minItems": 1 }),
    );
    set(
        shapes,
        GATE,
        None,
        json!({
            "anyOf": [
                { "properties": several, "required": ["targets"] },
                {
                    "properties": { "url": { "type": "string" }, "targets": { "type": "null" } },
                    "required": ["url"],
                },
            ],
        }),
    );
}

/// A pattern for whole numbers of two digits and more that are larger than one of two digits.
fn more_than(number: u64) -> String {
    let (tens, ones) = (number / 10, number % 10);
    format!("{tens}[{}-9]|[{}-9][0-9]|[0-9]{{3,}}", ones + 1, tens + 1)
}

/// Numbers that the loader keeps in 32 bits.
fn bound_numbers(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("format").is_some_and(|format| format == "uint32") {
                map.insert("maximum".to_owned(), json!(u32::MAX));
            }
            map.values_mut().for_each(bound_numbers);
        }
        Value::Array(items) => items.iter_mut().for_each(bound_numbers),
        _ => {}
    }
}

/// Adds keywords to a shape, or to one of its keys. What is there already stays in force.
fn set(shapes: &mut Map<String, Value>, shape: &str, key: Option<&str>, keywords: Value) {
    // A shape that stands in one place only is written out there.
    let shape = match shape.split_once('/') {
        None => shapes.get_mut(shape),
        Some((owner, place)) => shapes
            .get_mut(owner)
            .and_then(|owner| owner.get_mut("properties")?.get_mut(place)),
    };
    let place = match key {
        Some(key) => shape.and_then(|shape| shape.get_mut("properties")?.get_mut(key)),
        None => shape,
    };
    let (Some(Value::Object(place)), Value::Object(mut keywords)) = (place, keywords) else {
        debug_assert!(false, "the shape is there");
        return;
    };
    if key.is_none() {
        // Conditions of a whole shape are kept apart: two of them may use the same keyword.
        let mut all = match place.remove("allOf") {
            Some(Value::Array(all)) => all,
            _ => Vec::new(),
        };
        match keywords.remove("allOf") {
            Some(Value::Array(more)) => all.extend(more),
            _ => all.push(Value::Object(keywords)),
        }
        place.insert("allOf".to_owned(), Value::Array(all));
        return;
    }
    place.extend(keywords);
}
