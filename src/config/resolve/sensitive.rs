//! Which names promise a secret. Used for variables (`${DB_PASSWORD}`), for config keys
//! (`token: …`) and for request headers (`Authorization: …`).

/// Anywhere in a name, once case, `_`, `-` and `.` are gone.
const ANYWHERE: [&str; 19] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "privatekey",
    "accesskey",
    "secretkey",
    "apikey",
    "signingkey",
    "encryptionkey",
    "connectionstring",
    "connectionurl",
    "connectionuri",
    "databaseurl",
    "databaseuri",
    "authorization",
    "webhookurl",
];

/// Only as a whole word of a name.
const WORDS: [&str; 4] = ["pwd", "dsn", "cookie", "auth"];

/// A name that ends so talks *about* a secret: where it is, what it is called, how long it lasts.
const ABOUT: [&str; 12] = [
    "env", "name", "path", "file", "ref", "length", "ttl", "type", "size", "policy", "enabled",
    "count",
];

/// Sub-maps whose every value is a secret.
pub(in crate::config) const SECRET_MAPS: [&str; 2] = ["env_vars_secret", "secret_env_vars"];

/// For each letter, those that come second in a term that begins with it.
const BEGINNINGS: [u32; 26] = {
    let mut beginnings = [0; 26];
    let mut at = 0;
    while at < ANYWHERE.len() + WORDS.len() {
        let term = if at < ANYWHERE.len() {
            ANYWHERE[at]
        } else {
            WORDS[at - ANYWHERE.len()]
        };
        let (first, second) = (term.as_bytes()[0], term.as_bytes()[1]);
        beginnings[(first - b'a') as usize] |= 1 << (second - b'a');
        at += 1;
    }
    beginnings
};

/// Longer names are not worth a way of their own.
const NAME_BYTES: usize = 64;

/// True when a term stands in the name once case and all but letters and digits are gone. Asked of
/// every key of a large file, nearly always in vain: what is ASCII is told without a copy.
fn holds_term(name: &str) -> bool {
    let terms = || ANYWHERE.iter().chain(&WORDS);
    if !name.is_ascii() || name.len() > NAME_BYTES {
        let folded: String = name
            .chars()
            .filter(|character| character.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect();
        return terms().any(|term| folded.contains(term));
    }
    let mut folded = [0; NAME_BYTES];
    let mut length = 0;
    for byte in name.bytes().filter(u8::is_ascii_alphanumeric) {
        folded[length] = byte.to_ascii_lowercase();
        length += 1;
    }
    let folded = &folded[..length];
    folded.windows(2).enumerate().any(|(start, pair)| {
        pair.iter().all(u8::is_ascii_lowercase)
            && BEGINNINGS[usize::from(pair[0] - b'a')] >> (pair[1] - b'a') & 1 == 1
            && terms().any(|term| folded[start..].starts_with(term.as_bytes()))
    })
}

/// True when the value behind `name` should be treated as a secret.
pub(crate) fn is_sensitive(name: &str) -> bool {
    // Nearly every key of a large file is answered here, before words are told apart.
    if !holds_term(name) {
        return false;
    }
    let words = words(name);
    if words
        .last()
        .is_some_and(|last| ABOUT.contains(&last.as_str()))
    {
        return false;
    }
    let joined = words.concat();
    ANYWHERE.iter().any(|term| joined.contains(term))
        || words.iter().any(|word| WORDS.contains(&word.as_str()))
}

/// True when even text written out under `name` should be treated as a secret: the name ends in a
/// term that leaves no doubt.
pub(in crate::config) fn is_sensitive_literal(name: &str) -> bool {
    let words = words(name);
    let joined = words.concat();
    ANYWHERE
        .iter()
        .any(|term| joined.ends_with(term) || joined.ends_with(&format!("{term}s")))
        || words
            .last()
            .is_some_and(|last| matches!(last.as_str(), "pwd" | "dsn" | "cookie"))
}

/// `dbPassword`, `db-password` and `DB_PASSWORD` are all `db`, `password`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower_before = false;
    for character in name.chars() {
        if !character.is_alphanumeric() {
            words.push(String::new());
            lower_before = false;
            continue;
        }
        if character.is_uppercase() && lower_before {
            words.push(String::new());
        }
        lower_before = character.is_lowercase() || character.is_numeric();
        if let Some(word) = words.last_mut() {
            word.extend(character.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_promise_a_secret() {
        for (name, sensitive, literal) in [
            ("DB_PASSWORD", true, true),
            ("PGPASSWORD", true, true),
            ("dbPassword", true, true),
            ("GITHUB_TOKEN", true, true),
            ("spaces_secret_key", true, true),
            ("accessKey", true, true),
            ("access-key", true, true),
            ("AWS_SECRET_ACCESS_KEY", true, true),
            ("dsn", true, true),
            ("connection_string", true, true),
            ("DATABASE_URL", true, true),
            ("credentials", true, true),
            ("Authorization", true, true),
            ("PASSWORD_RESET_URL", true, false),
            ("token_env", false, false),
            ("secret_name", false, false),
            ("password_policy", false, false),
            ("region", false, false),
            ("author", false, false),
            ("IMAGE_TAG", false, false),
            ("sort_key", false, false),
            ("", false, false),
        ] {
            assert_eq!(is_sensitive(name), sensitive, "{name}");
            assert_eq!(is_sensitive_literal(name), literal, "{name} written out");
        }
    }

    #[test]
    fn a_term_is_found_wherever_it_stands_and_however_it_is_written() {
        for term in ANYWHERE.iter().chain(&WORDS) {
            let (half, rest) = term.split_at(2);
            for name in [
                (*term).to_owned(),
                term.to_uppercase(),
                format!("1{term}"),
                format!("p_{half}-{}9", rest.to_uppercase()),
                format!("{}{term}", "x".repeat(NAME_BYTES - term.len())),
                format!("{}{term}", "x".repeat(NAME_BYTES)),
                format!("größe_{term}"),
            ] {
                assert!(holds_term(&name), "{name}");
            }
            let mut cut = (*term).to_owned();
            cut.pop();
            // Some terms are the beginning of others.
            let is_whole = ANYWHERE.iter().chain(&WORDS).any(|term| cut.contains(term));
            assert_eq!(holds_term(&cut), is_whole, "{cut}");
        }
        for name in ["", "p", "provider", "module", "größe", "9a", "{}"] {
            assert!(!holds_term(name), "{name}");
        }
    }
}
