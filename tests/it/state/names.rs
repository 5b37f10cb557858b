//! Names as file names, over all of Unicode.

use std::collections::HashMap;

use proptest::prelude::*;
use tidegate::state::name::{ENCODED_BYTES_MAX, decode, encode};

/// Text that is likely to trip an encoder: separators, dots, case pairs, escapes, long runs.
fn awkward() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<char>().prop_map(String::from),
        prop::sample::select(vec![
            "/", "\\", ".", "..", "%", "%2f", "%2F", "~", "_", "-", " ", "\0", "\n", "A", "a", "É",
            "é", "e\u{301}", "K", "ſ", "con", "nul", "com1", ".lock", ".json", ".tmp",
        ])
        .prop_map(str::to_owned),
        "[a-z]{1,80}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn check_plain(encoded: &str) {
    assert!(
        !encoded.is_empty() && encoded.len() <= ENCODED_BYTES_MAX,
        "{encoded}"
    );
    assert!(
        !encoded.starts_with('.') && !encoded.ends_with('.'),
        "{encoded}"
    );
    assert!(
        encoded.bytes().all(
            |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'%' | b'~')
        ),
        "{encoded}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn encoding_is_reversible_and_plain(name in awkward()) {
        let encoded = encode(&name);
        check_plain(&encoded);
        match decode(&encoded) {
            Some(decoded) => prop_assert_eq!(decoded, name),
            None => prop_assert!(encoded.contains('~'), "{}", encoded),
        }
    }

    #[test]
    fn whatever_decodes_is_the_one_encoding_of_its_name(text in "[%~._a-z0-9A-Z-]{0,12}") {
        if let Some(name) = decode(&text) {
            prop_assert_eq!(encode(&name), text);
        }
    }

    #[test]
    fn two_names_never_share_a_file(left in awkward(), right in awkward()) {
        prop_assert_eq!(
            left == right,
            encode(&left).to_lowercase() == encode(&right).to_lowercase()
        );
    }
}

#[test]
fn neighbouring_names_do_not_collide() {
    // Every text of up to four characters from an alphabet of trouble, and each of them long.
    let alphabet: Vec<char> = "aA./%~_-é\0".chars().collect();
    let mut names = vec![String::new()];
    let mut seen: HashMap<String, String> = HashMap::new();
    for _ in 0..=4 {
        for name in &names {
            for name in [name.clone(), format!("{}{name}", "x".repeat(300))] {
                let encoded = encode(&name);
                check_plain(&encoded);
                if let Some(other) = seen.insert(encoded, name.clone()) {
                    assert_eq!(other, name);
                }
            }
        }
        names = names
            .iter()
            .flat_map(|name| {
                alphabet
                    .iter()
                    .map(move |character| format!("{name}{character}"))
            })
            .collect();
    }
    assert!(seen.len() > 20_000, "{}", seen.len());
}
