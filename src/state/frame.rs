//! How stored bytes prove that they are whole. There are two frames, and which one it is shows in
//! the bytes: JSON, for documents, heads and locks and for all state of old; and CBOR, for records
//! and keepsakes. Pure.
//!
//! In both the checksum stands at a fixed distance from the end and covers bytes, not values: every
//! truncation and every flipped bit is seen, white space and the final line end included. A JSON
//! frame is still plain JSON for every reader that ignores members it does not know, and a CBOR
//! frame is one CBOR item.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::random::encode_hex;

use super::cbor::{Reader, Writer};

/// The version of the CBOR frame. The JSON frame counts as the first.
pub(crate) const VERSION: u64 = 2;

/// "This is CBOR" (RFC 8949, 3.4.6).
const SELF_DESCRIBED: u64 = 55_799;
const NAME: &str = "tidegate";
/// How every CBOR frame starts, of whatever version: the tag, an array of five, the name.
const START: &[u8] = b"\xd9\xd9\xf7\x85\x68tidegate";
/// The checksum is the last item, these first bytes of the SHA-256 of everything before the item.
const CHECKSUM_BYTES: usize = 16;
/// What announces a byte string of that length.
const BEFORE_CHECKSUM: u8 = 0x50;

/// What is in a CBOR frame. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A record.
    Record = 1,
    /// A record as a whole sealed.
    Sealed = 2,
    /// A keepsake.
    Keepsake = 3,
}

/// Why a CBOR frame was not opened.
#[derive(Debug, PartialEq)]
pub(crate) enum Refused {
    /// It is not whole; a reason in words.
    Damaged(String),
    /// It is whole, and of this later version.
    Newer(u64),
}

/// A CBOR frame around what `content` writes, which must be one item.
pub(crate) fn wrap(kind: Kind, content: impl FnOnce(&mut Writer)) -> Vec<u8> {
    wrap_version(VERSION, kind as u64, content)
}

fn wrap_version(version: u64, kind: u64, content: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.tag(SELF_DESCRIBED);
    writer.array(5);
    writer.text(NAME);
    writer.number(version);
    writer.number(kind);
    content(&mut writer);
    let checksum = Sha256::digest(&writer.bytes);
    writer.bytes(&checksum[..CHECKSUM_BYTES]);
    writer.bytes
}

/// Is this a CBOR frame, or what is left of one?
pub(crate) fn is_wrapped(bytes: &[u8]) -> bool {
    bytes.starts_with(START)
}

/// The kind and the content of a CBOR frame. That the content is understood is left to the caller.
pub(crate) fn open_wrapped(bytes: &[u8]) -> Result<(Kind, Reader<'_>), Refused> {
    let damaged = |reason: &str| Refused::Damaged(reason.to_owned());
    let end = bytes
        .len()
        .checked_sub(CHECKSUM_BYTES + 1)
        .filter(|end| *end > START.len())
        .ok_or_else(|| damaged("it is cut short"))?;
    let (body, checksum) = bytes.split_at(end);
    if checksum[0] != BEFORE_CHECKSUM || Sha256::digest(body)[..CHECKSUM_BYTES] != checksum[1..] {
        return Err(damaged(
            "its checksum does not match: it was cut short, damaged, or edited by something else",
        ));
    }
    let body = body
        .strip_prefix(START)
        .ok_or_else(|| damaged("it does not start like a stored record"))?;
    let mut reader = Reader::new(body);
    let version = reader.number().map_err(damaged)?;
    if version > VERSION {
        return Err(Refused::Newer(version));
    }
    let kind = match reader.number().map_err(damaged)? {
        1 => Kind::Record,
        2 => Kind::Sealed,
        3 => Kind::Keepsake,
        _ => return Err(damaged("it holds something unknown")),
    };
    Ok((kind, reader))
}

/// Stored bytes for a storage that keeps text only.
pub(crate) fn to_text(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// What [`to_text`] was given, or JSON of old as it is. Nothing else passes for either: base64 has
/// no braces.
pub(crate) fn from_text(text: &str) -> Result<Cow<'_, [u8]>, String> {
    if text.starts_with('{') {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    match STANDARD_NO_PAD.decode(text) {
        Ok(bytes) if is_wrapped(&bytes) => Ok(Cow::Owned(bytes)),
        _ => Err("it is neither a stored record in base64 nor JSON".to_owned()),
    }
}

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
        _ if error.line() == 1 && error.column() <= 1 => {
            "its first byte is neither that of a checked file nor of JSON: it is damaged".to_owned()
        }
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

    fn wrapped() -> Vec<u8> {
        wrap(Kind::Keepsake, |writer| {
            writer.value(&json!({"a": [1, "x"]}))
        })
    }

    #[test]
    fn what_is_wrapped_is_one_cbor_item_and_opens() {
        let bytes = wrapped();
        assert!(is_wrapped(&bytes));
        let (kind, mut reader) = open_wrapped(&bytes).unwrap();
        assert_eq!(kind, Kind::Keepsake);
        assert_eq!(reader.value(), Ok(json!({"a": [1, "x"]})));
        assert!(reader.is_at_end());
        let mut all = Reader::new(&bytes);
        assert_eq!(all.tag(), Ok(SELF_DESCRIBED));
        assert_eq!(all.array(), Ok(5));
        assert_eq!(all.text(), Ok(NAME));
        assert_eq!(all.number(), Ok(VERSION));
        assert_eq!(all.number(), Ok(3));
        all.value().unwrap();
        assert_eq!(all.bytes().unwrap().len(), CHECKSUM_BYTES);
        assert!(all.is_at_end());
    }

    #[test]
    fn no_cut_and_no_flipped_bit_of_what_is_wrapped_goes_unseen() {
        let whole = wrapped();
        let text = to_text(&whole);
        assert_eq!(*from_text(&text).unwrap(), whole);
        // As a reader sees it who takes either frame.
        let seen = |bytes: &[u8]| match open_wrapped(bytes) {
            _ if !is_wrapped(bytes) => open(bytes).is_err(),
            Err(Refused::Damaged(_)) => true,
            Ok(_) | Err(Refused::Newer(_)) => false,
        };
        let seen_in_text = |text: &[u8]| {
            std::str::from_utf8(text)
                .ok()
                .and_then(|text| from_text(text).ok())
                .is_none_or(|bytes| seen(&bytes))
        };
        for length in 0..whole.len() {
            assert!(seen(&whole[..length]), "cut to {length}");
        }
        for length in 0..text.len() {
            assert!(seen_in_text(&text.as_bytes()[..length]), "cut to {length}");
        }
        for bit in 0..8 {
            for position in 0..whole.len() {
                let mut flipped = whole.clone();
                flipped[position] ^= 1 << bit;
                assert!(seen(&flipped), "byte {position}, bit {bit}");
            }
            for position in 0..text.len() {
                let mut flipped = text.clone().into_bytes();
                flipped[position] ^= 1 << bit;
                assert!(seen_in_text(&flipped), "character {position}, bit {bit}");
            }
        }
        let mut longer = whole;
        longer.push(0);
        assert!(seen(&longer));
    }

    #[test]
    fn a_later_version_is_told_apart_from_damage() {
        let bytes = wrap_version(VERSION + 1, 1, |writer| writer.bytes(b"who knows"));
        assert_eq!(
            open_wrapped(&bytes).unwrap_err(),
            Refused::Newer(VERSION + 1)
        );
        let unknown = wrap_version(VERSION, 77, |writer| writer.number(0));
        assert!(matches!(open_wrapped(&unknown), Err(Refused::Damaged(_))));
    }

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
