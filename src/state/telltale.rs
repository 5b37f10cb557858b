//! What gives a secret away that nobody declared: the name it stands under, or what its text looks like.
//! For records that another program wrote, which knew nothing of declarations. Pure.

use serde_json::Value;

use crate::config::is_sensitive_name;

/// Does a value hold a secret, at any depth? `name` is what it stands under.
pub fn holds_secret(name: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => false,
        Value::Number(_) => is_sensitive_name(name),
        Value::String(text) => is_secret_text(name, text),
        Value::Array(items) => items.iter().any(|item| holds_secret(name, item)),
        Value::Object(map) if map.contains_key("$secret") => false,
        Value::Object(map) => map.iter().any(|(key, value)| {
            holds_secret(key, value)
                || key == "value" && named(map).is_some_and(|name| holds_secret(name, value))
        }),
    }
}

/// The name in `{name: …, value: …}`, as variables of containers are written.
pub fn named(map: &serde_json::Map<String, Value>) -> Option<&str> {
    ["name", "key"]
        .iter()
        .find_map(|key| map.get(*key)?.as_str())
}

/// Is a text under that name a secret, or does it hold one?
pub fn is_secret_text(name: &str, text: &str) -> bool {
    if text.is_empty() || text.starts_with(super::record::PLACEHOLDER_PREFIX) {
        return false;
    }
    is_sensitive_name(name)
        || text.contains("PRIVATE KEY-----")
        || has_password_in_url(text)
        || text.lines().any(assigns_secret)
}

/// `scheme://user:password@host`, anywhere in the text.
fn has_password_in_url(text: &str) -> bool {
    text.match_indices("://").any(|(at, separator)| {
        let has_scheme = text[..at]
            .bytes()
            .next_back()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = &text[at + separator.len()..];
        let end = rest.find(|character: char| {
            character.is_whitespace() || matches!(character, '/' | '?' | '#' | '"' | '\'')
        });
        let authority = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let password = authority
            .rsplit_once('@')
            .and_then(|(user, _)| user.split_once(':'))
            .map(|(_, password)| password);
        has_scheme && password.is_some_and(|password| !password.is_empty())
    })
}

/// A line of a longer text that gives a sensitive name a value: `token: x`, `export DB_PASSWORD=x`,
/// `"client_secret": "x"`.
fn assigns_secret(line: &str) -> bool {
    let Some((before, after)) = line.split_once([':', '=']) else {
        return false;
    };
    let quotes = ['"', '\'', ' ', '\t', ','];
    let name = before
        .trim_matches(quotes)
        .rsplit([' ', '"', '\'', '{', ','])
        .next()
        .unwrap_or_default();
    let value = after.trim_matches(quotes);
    !value.is_empty()
        && !matches!(
            value,
            "|" | ">" | "null" | "~" | "true" | "false" | "{" | "["
        )
        && !name.is_empty()
        && is_sensitive_name(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_known_by_its_name_or_by_its_looks() {
        let hidden = [
            (
                "uri",
                json!("postgres://doadmin:hunter2@db.test:25060/db?sslmode=require"),
            ),
            ("text", json!("first\nsee amqps://u:p@q.test/ for more")),
            ("users", json!([{"name": "app", "password": "hunter2"}])),
            ("conn", json!({"credentials": {"token": "hunter2"}})),
            (
                "kubeconfig",
                json!("users:\n- name: me\n  user:\n    token: hunter2\n"),
            ),
            ("env", json!([{"name": "DB_PASSWORD", "value": "hunter2"}])),
            ("user_data", json!("#!/bin/sh\nexport API_TOKEN=hunter2\n")),
            ("file", json!("-----BEGIN EC PRIVATE KEY-----\nx\n")),
            ("json", json!("{\"client_secret\": \"hunter2\"}")),
            ("password", json!(12345)),
        ];
        for (name, value) in hidden {
            assert!(holds_secret(name, &value), "{name}: {value}");
        }
        let open = [
            ("host", json!("db.test")),
            ("uri", json!("https://shop.test/login?next=a:b@c")),
            ("uri", json!("postgres://app@db.test/db")),
            ("registry", json!("registry.test:5000/shop@sha256:aa")),
            ("password", json!("secret_ref://orders_db__password")),
            ("password", json!({"$secret": "f"})),
            ("password", json!("")),
            ("note", json!("the password is kept elsewhere")),
            ("users", json!([{"name": "app", "password": null}])),
            ("env", json!([{"name": "PORT", "value": "8080"}])),
            ("port", json!(25060)),
        ];
        for (name, value) in open {
            assert!(!holds_secret(name, &value), "{name}: {value}");
        }
    }
}
