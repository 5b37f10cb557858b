//! The name of a sensitive output in a secret store (`secret_ref://<KEY>`): upstream's rule,
//! exactly, so that records stay readable in both directions. Pure.

use sha2::{Digest, Sha256};

/// Longest key in characters, all of them ASCII.
const KEY_CHARACTERS_MAX: usize = 100;
const HASH_CHARACTERS: usize = 32;

/// The prefix of a placeholder in a record's outputs.
pub const PLACEHOLDER_PREFIX: &str = "secret_ref://";

/// The key of one output: both names made harmless, then a hash of the exact pair, so that two
/// pairs never share a key.
pub fn secret_key(resource: &str, output: &str) -> String {
    let mut resource_part = sanitise(resource);
    let mut output_part = sanitise(output);
    let mut hash = Sha256::new();
    hash.update(resource.as_bytes());
    hash.update([0]);
    hash.update(output.as_bytes());
    let hash = crate::random::encode_hex(&hash.finalize()[..HASH_CHARACTERS / 2]).to_uppercase();
    // GitHub refuses secrets whose names start with its own prefix.
    let reserved = format!("{resource_part}__{output_part}")
        .to_ascii_uppercase()
        .starts_with("GITHUB_");
    let prefix = if reserved { "WF_" } else { "" };

    let budget = KEY_CHARACTERS_MAX - prefix.len() - "__".len() - "_".len() - HASH_CHARACTERS;
    let half = budget / 2;
    let resource_share = half.max(budget.saturating_sub(output_part.len()));
    resource_part.truncate(resource_share);
    output_part.truncate(budget - resource_part.len());
    format!("{prefix}{resource_part}__{output_part}_{hash}")
}

fn sanitise(part: &str) -> String {
    let mut out = String::with_capacity(part.len() + 1);
    if part.is_empty() {
        return "SECRET".to_owned();
    }
    for character in part.chars() {
        if out.is_empty() && character.is_ascii_digit() {
            out.push('_');
        }
        out.push(if character.is_ascii_alphanumeric() {
            character
        } else {
            '_'
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_upstreams() {
        let cases = [
            (
                ("orders-db", "uri"),
                "orders_db__uri_8E0895E9581076B1E476E72751A513BD",
            ),
            (
                ("github-runner", "token"),
                "WF_github_runner__token_5640EF2BA1364AAF52D44265FB4BE02E",
            ),
        ];
        for ((resource, output), expected) in cases {
            assert_eq!(secret_key(resource, output), expected);
        }
    }

    #[test]
    fn parts_are_made_harmless() {
        for (part, expected) in [
            ("", "SECRET"),
            ("1st", "_1st"),
            ("größe", "gr__e"),
            ("a.b/c", "a_b_c"),
            ("_x", "_x"),
        ] {
            assert_eq!(sanitise(part), expected, "{part:?}");
        }
    }

    #[test]
    fn length_is_shared_and_never_exceeded() {
        let long = "r".repeat(300);
        for (resource, output) in [
            (long.as_str(), "uri"),
            ("db", long.as_str()),
            (long.as_str(), long.as_str()),
            ("github_", long.as_str()),
        ] {
            assert_eq!(
                secret_key(resource, output).len(),
                100,
                "{resource} {output}"
            );
        }
        assert!(secret_key(&long, "uri").contains("r__uri_"));
        assert_ne!(secret_key("a/b", "c"), secret_key("a_b", "c"));
        assert_ne!(secret_key("a", "b\0c"), secret_key("a_b", "c"));
    }
}
