//! The canonical hash of a config: equal configs hash alike in every version and in upstream.

use serde_json::{Number, Value};
use sha2::{Digest, Sha256};

use super::PublicMap;
use crate::random::encode_hex;

/// SHA-256 (lower hex) of the canonical form of a config; the empty string for an empty config.
///
/// The canonical form is upstream's: a JSON array of `{"K":key,"V":value}`, one for each top-level
/// key in byte order, as Go's encoder writes it.
pub fn config_hash(config: &PublicMap) -> String {
    if config.is_empty() {
        return String::new();
    }
    encode_hex(&Sha256::digest(canonical(config).as_bytes()))
}

fn canonical(config: &PublicMap) -> String {
    let mut out = String::from("[");
    for (index, (key, value)) in sorted(config).into_iter().enumerate() {
        out.push_str(if index == 0 { "{\"K\":" } else { ",{\"K\":" });
        write_string(&mut out, key);
        out.push_str(",\"V\":");
        write_value(&mut out, value);
        out.push('}');
    }
    out.push(']');
    out
}

/// Byte order whatever map serde_json was built with.
fn sorted(map: &PublicMap) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = map.iter().collect();
    members.sort_unstable_by_key(|(key, _)| key.as_bytes());
    members
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (index, (key, item)) in sorted(map).into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(out, key);
                out.push(':');
                write_value(out, item);
            }
            out.push('}');
        }
    }
}

/// Go's `encoding/json`: integers as they are; floats in the shortest form that reads back equal,
/// with an exponent only below 1e-6 and from 1e21 on.
fn write_number(out: &mut String, number: &Number) {
    let float = match number.as_f64() {
        Some(float) if number.is_f64() => float,
        _ => {
            out.push_str(&number.to_string());
            return;
        }
    };
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        // Rust writes `1e21` and `1e-7`, Go `1e+21` and `1e-7`.
        let text = format!("{float:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => {
                out.push_str(digits);
                out.push_str("e+");
                out.push_str(exponent);
            }
            _ => out.push_str(&text),
        }
    } else {
        out.push_str(&format!("{float}"));
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> PublicMap {
        match value {
            Value::Object(map) => map,
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn published_vectors_hold() {
        let cases = [
            (
                json!({"num_nodes": 1, "region": "nyc3", "size_slug": "db-s-1vcpu-1gb"}),
                "762dfa0519180779e7e6c1c6c7e35776e5e07d0eff11bd98b7eec4cc2d62b8a3",
            ),
            (
                json!({"note": "a<b & c", "tags": {"z": 1, "a": [true, null]}}),
                "3ebff4393b180c3fed813a4d7e2b7d70e234ec51c97e1fb1bcd39f77e1ccdc70",
            ),
            (json!({}), ""),
        ];
        for (config, expected) in cases {
            assert_eq!(config_hash(&map(config)), expected);
        }
    }

    /// Each expected text was printed by `encoding/json` of Go 1.26.
    #[test]
    fn values_are_written_as_go_writes_them() {
        let cases: [(Value, &str); 27] = [
            (json!(1.0), "1"),
            (json!(-1.0), "-1"),
            (json!(0.0), "0"),
            (json!(-0.0), "-0"),
            (json!(0.1), "0.1"),
            (json!(1.5e300), "1.5e+300"),
            (json!(1e20), "100000000000000000000"),
            (json!(1e21), "1e+21"),
            (json!(-1e21), "-1e+21"),
            (
                json!(123_456_789_012_345_680_000_000.0),
                "1.2345678901234569e+23",
            ),
            (
                json!(999_999_999_999_999_900_000.0),
                "999999999999999900000",
            ),
            (json!(1e-6), "0.000001"),
            (json!(9.99e-7), "9.99e-7"),
            (json!(1e-7), "1e-7"),
            (json!(1.25e-10), "1.25e-10"),
            (json!(5e-324), "5e-324"),
            (json!(f64::MAX), "1.7976931348623157e+308"),
            (json!(9_007_199_254_740_993_u64), "9007199254740993"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!(i64::MIN), "-9223372036854775808"),
            (json!("<>&"), "\"\\u003c\\u003e\\u0026\""),
            (json!("\u{2028}\u{2029}"), "\"\\u2028\\u2029\""),
            (
                json!("\0\u{1}\u{1f}\u{7f}"),
                "\"\\u0000\\u0001\\u001f\u{7f}\"",
            ),
            (
                json!("\u{8}\u{c}\n\r\t\"\\/"),
                "\"\\b\\f\\n\\r\\t\\\"\\\\/\"",
            ),
            (json!("größe 🦀"), "\"größe 🦀\""),
            (
                json!({"b": 1, "a": {"d": [], "c": {}}, "B": null}),
                "{\"B\":null,\"a\":{\"c\":{},\"d\":[]},\"b\":1}",
            ),
            (json!([true, false, null]), "[true,false,null]"),
        ];
        for (value, expected) in cases {
            let mut out = String::new();
            write_value(&mut out, &value);
            assert_eq!(out, expected, "{value}");
        }
    }

    #[test]
    fn keys_are_sorted_by_bytes() {
        let config = map(json!({"b": 1, "B": 2, "é": 3, "a&b": 4}));
        assert_eq!(
            canonical(&config),
            "[{\"K\":\"B\",\"V\":2},{\"K\":\"a\\u0026b\",\"V\":4},{\"K\":\"b\",\"V\":1},{\"K\":\"é\",\"V\":3}]"
        );
    }
}
