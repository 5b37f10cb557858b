//! What a provider says about values that it saw and we did not: whatever a name in them promises to be
//! a secret, and whatever is one, is left out before anybody sees it.

use serde_json::Value as Json;

use super::Driver;
use crate::resource::{Output, PublicMap, Recorded};
use crate::secret::Masker;

/// Stands where a secret stood.
const HIDDEN: &str = "(sensitive)";
/// How a placeholder for a secret begins, which a driver was given in its stead.
pub(crate) const PLACEHOLDER: &str = "secret_ref://";
/// Every PEM block with a private key begins like this, and says so.
const PEM: &str = "-----BEGIN";

/// True for text with a private key in it.
pub(crate) fn is_private_key(text: &str) -> bool {
    text.contains(PEM) && text.contains("PRIVATE KEY")
}

/// True when there is a credential anywhere in a value: behind a name that `promises` one, in a
/// connection URL, or as a private key. A flag or nothing at all is none.
pub(crate) fn holds_credential(
    value: &Json,
    promises: &dyn Fn(&str) -> bool,
    masker: &Masker,
) -> bool {
    match value {
        Json::String(text) => masker.holds_password(text) || is_private_key(text),
        Json::Array(items) => items
            .iter()
            .any(|item| holds_credential(item, promises, masker)),
        Json::Object(members) => members.iter().any(|(name, inner)| {
            (!is_nothing(inner) && promises(name)) || holds_credential(inner, promises, masker)
        }),
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}

fn is_nothing(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(_) => true,
        Json::Number(_) => false,
        Json::String(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Object(members) => members.is_empty(),
    }
}

/// What must not be shown of what is said about one resource.
pub(crate) struct Hidden<'h> {
    /// Who says it.
    pub driver: Option<&'h dyn Driver>,
    /// What is on record.
    pub prior: &'h Recorded,
    /// What is desired, in public form, where it is known.
    pub desired: Option<&'h PublicMap>,
    /// Knows every secret.
    pub masker: &'h Masker,
}

impl Hidden<'_> {
    /// The value at `path` as it may be shown.
    pub(crate) fn shown(&self, path: &str, value: Json) -> Json {
        let names = || {
            path.split(['.', '[', ']', '/', '"', '\''])
                .filter(|name| !name.is_empty())
        };
        if value.is_null() || !names().any(|name| self.hides(name)) {
            return self.within(value);
        }
        if let Some(name) = names().find(|name| self.is_output(name)) {
            self.admit(name, value);
        }
        Json::String(HIDDEN.to_owned())
    }

    fn hides(&self, name: &str) -> bool {
        let promises = self
            .driver
            .is_some_and(|driver| driver.is_sensitive(name) == Some(true));
        promises || self.is_output(name)
    }

    /// True for the name of an output that is a secret: by the flag it came with, or sealed on record. An
    /// output that was sealed because nobody knew better may be an echo of a plain setting, and what our
    /// own config has in the clear needs no hiding.
    fn is_output(&self, name: &str) -> bool {
        if self
            .driver
            .is_some_and(|driver| driver.is_flagged(self.prior, name))
        {
            return true;
        }
        let is_plain = |config: &PublicMap| {
            config
                .get(name)
                .is_some_and(|value| value.get("$secret").is_none())
        };
        matches!(self.prior.outputs.get(name), Some(Output::Sensitive(_)))
            && !is_plain(&self.prior.config)
            && !self.desired.is_some_and(is_plain)
    }

    /// The live value of a secret is one, too: from now on it is hidden wherever it stands.
    fn admit(&self, name: &str, value: Json) {
        match value {
            Json::String(text) if !text.starts_with(PLACEHOLDER) => {
                let label = format!("{}.{name}", self.prior.address);
                drop(self.masker.suspect(&label, text));
            }
            Json::Array(items) => items.into_iter().for_each(|item| self.admit(name, item)),
            Json::Object(members) => members
                .into_iter()
                .for_each(|(_, inner)| self.admit(name, inner)),
            Json::String(_) | Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }

    fn within(&self, value: Json) -> Json {
        match value {
            Json::String(text)
                if self.masker.is_sensitive(&text)
                    || self.masker.holds_password(&text)
                    || is_private_key(&text) =>
            {
                Json::String(HIDDEN.to_owned())
            }
            Json::Number(number) if self.masker.is_sensitive(&number.to_string()) => {
                Json::String(HIDDEN.to_owned())
            }
            Json::Array(items) => items.into_iter().map(|item| self.within(item)).collect(),
            Json::Object(members) => members
                .into_iter()
                .map(|(name, value)| {
                    let value = self.shown(&name, value);
                    (name, value)
                })
                .collect(),
            value => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use serde_json::json;

    use super::*;
    use crate::provider::{DriverResult, Health, Operation};
    use crate::resource::{Address, Diff, Kind, Observed, Spec};

    /// Knows two names, and flagged a third.
    #[derive(Debug)]
    struct Knowing;

    #[async_trait]
    impl Driver for Knowing {
        async fn create(&self, _: &Operation, _: &Spec) -> DriverResult<Observed> {
            unreachable!()
        }
        async fn read(&self, _: &Recorded) -> DriverResult<Observed> {
            unreachable!()
        }
        async fn update(&self, _: &Operation, _: &Recorded, _: &Spec) -> DriverResult<Observed> {
            unreachable!()
        }
        async fn delete(&self, _: &Operation, _: &Recorded) -> DriverResult<()> {
            unreachable!()
        }
        async fn diff(&self, _: &Recorded, _: &Spec) -> DriverResult<Diff> {
            unreachable!()
        }
        async fn health(&self, _: &Recorded) -> DriverResult<Health> {
            unreachable!()
        }
        fn is_sensitive(&self, output: &str) -> Option<bool> {
            Some(["password", "api_key"].contains(&output))
        }
        fn is_flagged(&self, _: &Recorded, output: &str) -> bool {
            output == "admin_phrase"
        }
        fn check(&self, _: &Spec) -> Vec<(String, String)> {
            Vec::new()
        }
    }

    fn on_record(masker: &Masker) -> Recorded {
        let mut prior = Recorded::by_name(Address::new("db"), Kind::new("infra.database"));
        for name in ["made_up", "size"] {
            let secret = masker.admit(name, format!("recorded-{name}"));
            let output = Output::Sensitive(secret);
            prior.outputs.insert(name.to_owned(), output);
        }
        prior.config.insert("size".to_owned(), "m".into());
        prior
    }

    #[test]
    fn names_and_values_that_promise_a_secret_are_hidden_at_any_depth() {
        let masker = Masker::default();
        masker.admit("x", "known-secret".to_owned());
        let prior = on_record(&masker);
        let hidden = Hidden {
            driver: Some(&Knowing),
            prior: &prior,
            desired: None,
            masker: &masker,
        };
        for (path, value) in [
            ("password", json!("new")),
            ("users[0].password", json!(["a"])),
            ("settings.api_key", json!({"a": 1})),
            ("url", json!("postgres://u:hunter22@h/db")),
            ("text", json!("a known-secret b")),
            ("admin_phrase", json!("LIVE-one")),
            ("outputs.admin_phrase", json!("LIVE-two")),
            ("admin_phrase[0]", json!("LIVE-three")),
            ("outputs[\"admin_phrase\"]", json!(["LIVE-four"])),
            ("/outputs/made_up", json!("LIVE-five")),
        ] {
            assert_eq!(hidden.shown(path, value), json!(HIDDEN), "{path}");
        }
        assert_eq!(
            hidden.shown(
                "users",
                json!([
                    {"name": "a", "password": "b", "x": {"admin_phrase": "LIVE-six"}},
                    "known-secret", null, 5
                ])
            ),
            json!([{"name": "a", "password": HIDDEN, "x": {"admin_phrase": HIDDEN}}, HIDDEN, null, 5])
        );
        assert_eq!(hidden.shown("password", json!(null)), json!(null));
        assert_eq!(
            hidden.shown("url", json!("https://h/db")),
            json!("https://h/db")
        );
        // What our own config says aloud is no secret, although its echo was sealed.
        assert_eq!(hidden.shown("size", json!("l")), json!("l"));
    }

    #[test]
    fn the_live_value_of_a_secret_is_a_secret_from_then_on() {
        let masker = Masker::default();
        let prior = on_record(&masker);
        let hidden = Hidden {
            driver: Some(&Knowing),
            prior: &prior,
            desired: None,
            masker: &masker,
        };
        hidden.shown("admin_phrase", json!({"now": ["LIVE-phrase-1"]}));
        hidden.shown("made_up", json!("secret_ref://db_made_up"));
        assert_eq!(masker.mask("is LIVE-phrase-1"), "is ***");
        assert_eq!(
            masker.mask("secret_ref://db_made_up"),
            "secret_ref://db_made_up"
        );
    }

    #[test]
    fn a_credential_is_found_however_deep_it_is() {
        let masker = Masker::default();
        let promises = |name: &str| name == "password";
        for (value, holds) in [
            (json!({"connection": {"password": "hunter-7"}}), true),
            (json!([{"name": "u", "password": 123_456}]), true),
            (json!({"a": ["pg://u:hunter-7@h"]}), true),
            (json!("-----BEGIN RSA PRIVATE KEY-----"), true),
            (json!({"password": null, "host": "h"}), false),
            (json!({"password": "", "is": {"password": false}}), false),
            (json!("-----BEGIN CERTIFICATE-----"), false),
            (json!(5), false),
        ] {
            assert_eq!(
                holds_credential(&value, &promises, &masker),
                holds,
                "{value}"
            );
        }
    }
}
