//! A module that a plugin suggests is meant for a file that is shared, and filled in by our environment:
//! it holds no secret, and asks for none that no plugin may see.

use serde_json::Value as Json;

use super::driver::promises_secret;
use super::environment;
use crate::provider::hide::is_private_key;
use crate::resource::PublicMap;
use crate::secret::Masker;

/// Why the config of a suggested module is refused: a clause without its value.
pub(super) fn refusal(config: &PublicMap, masker: &Masker) -> Option<String> {
    config
        .iter()
        .find_map(|(name, value)| look(name, value, promises_secret(name), masker))
}

fn look(path: &str, value: &Json, promises: bool, masker: &Masker) -> Option<String> {
    match value {
        Json::String(text) => {
            if let Some(variable) = variables(text).find(|name| environment::is_never_given(name)) {
                return Some(format!(
                    "`{path}` reads the variable `{variable}`, which no plugin may see"
                ));
            }
            let is_literal = !text.is_empty() && !text.contains("${");
            let is_key = is_private_key(text);
            let is_secret = (promises && is_literal)
                || is_key
                || (is_literal && masker.holds_password(text))
                || masker.is_sensitive(text);
            is_secret.then(|| {
                format!("`{path}` holds a secret in plain text, not a variable or a secret's name")
            })
        }
        Json::Array(items) => items
            .iter()
            .find_map(|item| look(path, item, promises, masker)),
        Json::Object(members) => members.iter().find_map(|(name, value)| {
            let promises = promises || promises_secret(name);
            look(&format!("{path}.{name}"), value, promises, masker)
        }),
        Json::Null | Json::Bool(_) | Json::Number(_) => None,
    }
}

/// The names in every `${NAME}` and `${NAME:-default}`.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).map(|rest| {
        let end = rest
            .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .unwrap_or(rest.len());
        &rest[..end]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_shared_file_must_not_hold_is_refused_and_never_repeated() {
        let masker = Masker::default();
        let why = |config: Json| refusal(config.as_object().expect("an object"), &masker);
        for (config, secret) in [
            (json!({"password": "hunter2-plain"}), "hunter2-plain"),
            (json!({"db": {"API_KEY": "AKIA123"}}), "AKIA123"),
            (json!({"users": [{"secret": ["x-y-z"]}]}), "x-y-z"),
            (json!({"secret_values": {"A": "x-y-z"}}), "x-y-z"),
            (json!({"url": "postgres://u:p4ssw0rd@h/db"}), "p4ssw0rd"),
            (
                json!({"pem": "-----BEGIN RSA PRIVATE KEY-----\nQUJD"}),
                "QUJD",
            ),
        ] {
            let why = why(config.clone()).unwrap_or_default();
            assert!(!why.is_empty() && !why.contains(secret), "{config}: {why}");
        }
        for variable in [
            "GITHUB_TOKEN",
            "gh_token",
            "ACTIONS_RUNTIME_TOKEN",
            "RUNNER_TEMP",
        ] {
            for text in [
                format!("${{{variable}}}"),
                format!("a ${{{variable}:-b}} c"),
            ] {
                let why = why(json!({"note": text})).unwrap_or_default();
                assert!(why.contains(variable), "{why}");
            }
        }
        for config in [
            json!({"password": "${DATABASE_PASSWORD}", "token": "", "port": 5432}),
            json!({"url": "https://h/db", "engine": "pg", "note": "${net.host}"}),
            json!({"env_vars_secret": {"PASSWORD": "${db.password}"}}),
        ] {
            assert_eq!(why(config.clone()), None, "{config}");
        }
    }
}
