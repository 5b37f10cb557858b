//! What a provider says about values that it saw and we did not: whatever a name in them promises to be
//! a secret, and whatever is one, is left out before anybody sees it.

use serde_json::Value as Json;

use crate::secret::Masker;

/// Stands where a secret stood.
const HIDDEN: &str = "(sensitive)";

/// The value at `path` as it may be shown. `is_sensitive` judges one name.
pub(crate) fn shown(
    path: &str,
    value: Json,
    is_sensitive: &dyn Fn(&str) -> bool,
    masker: &Masker,
) -> Json {
    let promises = path
        .split(['.', '[', ']'])
        .any(|name| !name.is_empty() && is_sensitive(name));
    if promises && !value.is_null() {
        return Json::String(HIDDEN.to_owned());
    }
    within(value, is_sensitive, masker)
}

fn within(value: Json, is_sensitive: &dyn Fn(&str) -> bool, masker: &Masker) -> Json {
    match value {
        Json::String(text) if masker.is_sensitive(&text) || masker.holds_password(&text) => {
            Json::String(HIDDEN.to_owned())
        }
        Json::Number(number) if masker.is_sensitive(&number.to_string()) => {
            Json::String(HIDDEN.to_owned())
        }
        Json::Array(items) => Json::Array(
            items
                .into_iter()
                .map(|item| within(item, is_sensitive, masker))
                .collect(),
        ),
        Json::Object(members) => Json::Object(
            members
                .into_iter()
                .map(|(name, value)| {
                    let value = shown(&name, value, is_sensitive, masker);
                    (name, value)
                })
                .collect(),
        ),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_values_that_promise_a_secret_are_hidden_at_any_depth() {
        let masker = Masker::default();
        masker.admit("x", "known-secret".to_owned());
        let is_sensitive = |name: &str| ["password", "api_key"].contains(&name);
        let show = |path: &str, value| shown(path, value, &is_sensitive, &masker);
        for (path, value) in [
            ("password", json!("new")),
            ("users[0].password", json!(["a"])),
            ("settings.api_key", json!({"a": 1})),
            ("url", json!("postgres://u:hunter22@h/db")),
            ("text", json!("a known-secret b")),
        ] {
            assert_eq!(show(path, value), json!(HIDDEN), "{path}");
        }
        assert_eq!(
            show(
                "users",
                json!([{"name": "a", "password": "b"}, "known-secret", null, 5])
            ),
            json!([{"name": "a", "password": HIDDEN}, HIDDEN, null, 5])
        );
        assert_eq!(show("password", json!(null)), json!(null));
        assert_eq!(show("url", json!("https://h/db")), json!("https://h/db"));
    }
}
