//! How a state file proves that it is whole: pretty JSON whose last member is a checksum over
//! every byte before it. Still plain JSON for every reader that ignores members it does not know.
//! Pure.
//!
//! The checksum stands at a fixed distance from the end and covers bytes, not values: every
//! truncation and every flipped bit is seen, white space and the final line end included.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::random::encode_hex;

/// The checksum's member name, always the last of the file's object.
pub(crate) const CHECKSUM_MEMBER: &str = "tidegate_checksum";

const BEFORE: &str = ",\n  \"tidegate_checksum\": \"";
const AFTER: &str = "\"\n}\n";
const HEX: usize = 64;

/// What opening a file gave.
#[derive(Debug, PartialEq)]
pub(crate) enum Opened {
    /// The checksum is there and right.
    Checked(Value),
    /// There is no checksum and no trace of one: another program's file.
    Foreign(Value),
}

/// The bytes of `value` (a non-empty object) with its checksum.
pub(crate) fn close<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    let body = text
        .strip_suffix("\n}")
        .ok_or("only a non-empty object can carry a checksum")?;
    let checksum = encode_hex(&Sha256::digest(body.as_bytes()));
    Ok([body, BEFORE, &checksum, AFTER].concat().into_bytes())
}

/// Reads what [`close`] made, or a foreign JSON object. The error is a reason in words.
pub(crate) fn open(bytes: &[u8]) -> Result<Opened, String> {
    let Some((body, checksum)) = split(bytes) else {
        let value: Value = serde_json::from_slice(bytes).map_err(not_json)?;
        let object = value.as_object().ok_or("it is not a JSON object")?;
        if object.contains_key("tidegate") || object.contains_key(CHECKSUM_MEMBER) {
            return Err("its checksum is missing or damaged".to_owned());
        }
        return Ok(Opened::Foreign(value));
    };
    if encode_hex(&Sha256::digest(body)).as_bytes() != checksum {
        return Err(
            "its checksum does not match: it was damaged, or edited by something else".to_owned(),
        );
    }
    let mut value: Value = serde_json::from_slice(bytes).map_err(not_json)?;
    match value.as_object_mut() {
        Some(object) => drop(object.remove(CHECKSUM_MEMBER)),
        None => return Err("it is not a JSON object".to_owned()),
    }
    Ok(Opened::Checked(value))
}

/// Like [`open`], for files nobody else writes: the checksum must be there.
pub(crate) fn open_own(bytes: &[u8]) -> Result<Value, String> {
    match open(bytes)? {
        Opened::Checked(value) => Ok(value),
        Opened::Foreign(_) => Err("its checksum is missing".to_owned()),
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_suffix(AFTER.as_bytes())?;
    let (rest, checksum) = rest.split_at(rest.len().checked_sub(HEX)?);
    Some((rest.strip_suffix(BEFORE.as_bytes())?, checksum))
}

fn not_json(error: serde_json::Error) -> String {
    use serde_json::error::Category;
    match error.classify() {
        Category::Eof => "it is cut short".to_owned(),
        Category::Syntax | Category::Data | Category::Io => format!(
            "it is not JSON (line {}, column {})",
            error.line(),
            error.column()
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn opens_what_it_closed() {
        let value = json!({"b": [1, 2.5, null], "a": {"tidegate_checksum": "not the last"}});
        let bytes = close(&value).unwrap();
        assert_eq!(open(&bytes), Ok(Opened::Checked(value)));
        assert!(close(&json!({})).is_err());
        assert!(close(&json!([1])).is_err());
    }

    #[test]
    fn no_cut_and_no_flipped_bit_goes_unseen() {
        let value = json!({"resource_id": "x", "tidegate": {"e": 1e-7, "u": "\u{e9}\u{1}"}});
        let whole = close(&value).unwrap();
        for length in 0..whole.len() {
            assert!(open(&whole[..length]).is_err(), "cut to {length}");
        }
        for position in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[position] ^= 1 << bit;
                assert!(open(&flipped).is_err(), "byte {position}, bit {bit}");
            }
        }
    }

    #[test]
    fn foreign_objects_are_told_apart_from_damaged_ones() {
        assert!(matches!(
            open(br#"{"resource_id": "x"}"#),
            Ok(Opened::Foreign(_))
        ));
        for damaged in [
            r#"{"tidegate": {}}"#,
            r#"{"tidegate_checksum": "00"}"#,
            "[]",
            "7",
            "",
            "{",
            "\0\0\0\0",
        ] {
            assert!(open(damaged.as_bytes()).is_err(), "{damaged:?}");
        }
    }
}
