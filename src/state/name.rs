//! Names as file names. A resource name is data, never a path: any text becomes one plain file
//! name, no two texts share one, and file systems that fold case or normalise Unicode change
//! nothing about that. Pure.

use sha2::{Digest, Sha256};

use crate::random::encode_hex;

/// Longest encoded name in bytes. Leaves room in the usual 255 for the suffix of the file and for
/// the name of a temporary file beside it.
pub const ENCODED_BYTES_MAX: usize = 200;

/// Characters of a long name's own encoding that stay readable in front of its hash.
const READABLE_BYTES: usize = 120;

/// Device names of file systems that also serve Windows; reserved there with any suffix.
const RESERVED: [&str; 4] = ["con", "prn", "aux", "nul"];

/// The file name (without suffix) of `name`: lower-case letters, digits, `-`, `_` and inner dots
/// stay, every other byte becomes `%xx`. Upper case is escaped too, so that two names that differ
/// in case stay two files everywhere. A name whose encoding is longer than [`ENCODED_BYTES_MAX`]
/// ends in `~` and a hash instead; its file must carry the full name.
pub fn encode(name: &str) -> String {
    let whole = escape(name);
    if whole.len() <= ENCODED_BYTES_MAX {
        return whole;
    }
    let mut readable = &whole[..READABLE_BYTES];
    // An escape is never cut in two.
    if let Some(start) = readable.rfind('%')
        && start + 3 > readable.len()
    {
        readable = &readable[..start];
    }
    let hash = encode_hex(&Sha256::digest(name.as_bytes())[..16]);
    format!("{readable}~{hash}")
}

/// Whether `encoded` is the file name of `name`.
pub fn is_encoding(encoded: &str, name: &str) -> bool {
    // Most names need no escape, and then nothing has to be put together to compare.
    let is_plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    let stands_for_itself = (1..=ENCODED_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_plain)
        && !is_reserved(name);
    if stands_for_itself {
        encoded == name
    } else {
        encoded == encode(name)
    }
}

fn escape(name: &str) -> String {
    if name.is_empty() {
        return "%".to_owned();
    }
    let last = name.len() - 1;
    let reserved = is_reserved(name);
    let mut out = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let plain = match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => !(reserved && index == 0),
            b'.' => index != 0 && index != last,
            _ => false,
        };
        if plain {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&encode_hex(&[byte]));
        }
    }
    out
}

fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name);
    RESERVED.contains(&stem)
        || ["com", "lpt"].iter().any(|prefix| {
            stem.strip_prefix(prefix)
                .is_some_and(|rest| matches!(rest.as_bytes(), [b'0'..=b'9']))
        })
}

/// The name a file name stands for; `None` when the full name is inside the file (long names) or
/// when no name encodes to this text.
pub fn decode(encoded: &str) -> Option<String> {
    if encoded == "%" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let (high, low) = (*rest.first()?, *rest.get(1)?);
            bytes.push(hex_digit(high)? << 4 | hex_digit(low)?);
            rest = rest.get(2..)?;
        } else {
            bytes.push(byte);
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    (encode(&name) == encoded).then_some(name)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_awkward_name_has_its_own_plain_file_name() {
        let long = "x".repeat(4096);
        let cases: [(&str, &str); 21] = [
            ("orders-db", "orders-db"),
            ("a_b", "a_b"),
            ("a/b", "a%2fb"),
            ("a:b", "a%3ab"),
            ("a\\b", "a%5cb"),
            ("a%2fb", "a%252fb"),
            ("Orders", "%4frders"),
            ("", "%"),
            ("%", "%25"),
            (".", "%2e"),
            ("..", "%2e%2e"),
            ("...", "%2e.%2e"),
            (".hidden", "%2ehidden"),
            ("x.lock", "x.lock"),
            ("trailing.", "trailing%2e"),
            ("trailing ", "trailing%20"),
            ("../../etc", "%2e.%2f..%2fetc"),
            ("nul\0byte", "nul%00byte"),
            ("con.txt", "%63on.txt"),
            ("com1", "%63om1"),
            ("größe", "gr%c3%b6%c3%9fe"),
        ];
        for (name, expected) in cases {
            assert_eq!(encode(name), expected, "{name:?}");
            assert_eq!(decode(expected).as_deref(), Some(name), "{expected:?}");
            for (other, _) in cases {
                assert_eq!(is_encoding(expected, other), name == other, "{other:?}");
            }
        }
        for name in [long.as_str(), &"é".repeat(100), &"A".repeat(68)] {
            let encoded = encode(name);
            assert!(encoded.len() <= ENCODED_BYTES_MAX, "{encoded}");
            assert!(encoded.contains('~'), "{encoded}");
            assert_eq!(decode(&encoded), None);
            assert!(is_encoding(&encoded, name) && !is_encoding(name, name));
        }
        assert_ne!(encode(&long), encode(&"x".repeat(4097)));
        assert_ne!(encode(&"é".repeat(100)), encode(&"e\u{301}".repeat(100)));
    }

    #[test]
    fn only_canonical_encodings_decode() {
        for foreign in [
            "a/b",
            "A",
            "%2F",
            "%61",
            "%",
            "%%",
            "%2",
            "%zz",
            ".x",
            "x.",
            "a b",
            "con",
            "%ff",
            "x~00112233445566778899aabbccddeeff",
            "",
        ] {
            if foreign == "%" {
                assert_eq!(decode(foreign).as_deref(), Some(""));
            } else {
                assert_eq!(decode(foreign), None, "{foreign:?}");
            }
        }
    }
}
