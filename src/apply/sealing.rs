//! Which outputs are sealed: one rule, for whatever a provider answers and for what is on record.
//!
//! What the config declares under `outputs:` decides. Of the rest is sealed: what its driver flagged or
//! knows to be a secret, what nobody knows anything of, what holds a credential at any depth, and what is
//! sealed on record. Then, when all of these are known, whatever repeats a secret.

use serde_json::Value as Json;

use super::Engine;
use crate::config::Resource;
use crate::provider::Driver;
use crate::provider::hide::holds_credential;
use crate::resource::{Address, Output, Outputs, Recorded};
use crate::secret::Masker;

/// Decides for every output whether it may be shown. Without a driver nobody knows more than the config.
pub fn sort_outputs<'d>(
    engine: &Engine<'_>,
    resource: &Resource,
    driver: impl Into<Option<&'d dyn Driver>>,
    outputs: Outputs,
) -> Outputs {
    let rule = Rule {
        masker: &engine.masker,
        resource: Some(resource),
        driver: driver.into(),
        recorded: None,
    };
    rule.sort(&resource.address, outputs)
}

/// The same for what is there now of something on record, which the config may not declare (any more).
/// What is recorded as sensitive stays so, unless the config says that it is not: what made it so may be
/// known to nobody any more.
pub fn live_outputs(
    engine: &Engine<'_>,
    declared: Option<&Resource>,
    driver: &dyn Driver,
    prior: &Recorded,
    outputs: Outputs,
) -> Outputs {
    let rule = Rule {
        masker: &engine.masker,
        resource: declared,
        driver: Some(driver),
        recorded: Some(&prior.outputs),
    };
    rule.sort(&prior.address, outputs)
}

/// The same after a run that was cut off: what was secret to it may be known to nobody any more, its config
/// and its variables may be others now. Open is what the config calls so, and what is no text.
pub(super) fn concealed(
    engine: &Engine<'_>,
    declared: Option<&Resource>,
    outputs: Outputs,
) -> Outputs {
    let is_declared_open = |name: &str| {
        declared
            .and_then(|resource| resource.outputs.get(name))
            .is_some_and(|output| !output.sensitive)
    };
    outputs
        .into_iter()
        .map(|(name, output)| {
            let output = match output {
                Output::Public(value) if !is_plain(&value) && !is_declared_open(&name) => {
                    Output::Sensitive(engine.masker.conceal(text(value)))
                }
                output => output,
            };
            (name, output)
        })
        .collect()
}

/// True when the config and the driver let anybody see a value that is in the clear.
pub(super) fn is_open(
    masker: &Masker,
    resource: &Resource,
    driver: &dyn Driver,
    name: &str,
    value: &Json,
) -> bool {
    let rule = Rule {
        masker,
        resource: Some(resource),
        driver: Some(driver),
        recorded: None,
    };
    rule.judge(name, Some(value)) != Verdict::Sealed
}

struct Rule<'r> {
    masker: &'r Masker,
    resource: Option<&'r Resource>,
    driver: Option<&'r dyn Driver>,
    recorded: Option<&'r Outputs>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nobody may see it.
    Sealed,
    /// Anybody may, unless it repeats a secret.
    Open,
    /// Anybody may, says the config.
    Declared,
}

impl Rule<'_> {
    /// Of a value that came in the clear, or of one that came sealed.
    fn judge(&self, name: &str, value: Option<&Json>) -> Verdict {
        let declared = self.resource.map(|resource| resource.outputs.get(name));
        if let Some(Some(declared)) = declared {
            return if declared.sensitive {
                Verdict::Sealed
            } else {
                Verdict::Declared
            };
        }
        let recorded = self.recorded.and_then(|recorded| recorded.get(name));
        let (Some(value), None | Some(Output::Public(_))) = (value, recorded) else {
            return Verdict::Sealed;
        };
        // What nobody declares is what it was.
        let was_open = self.resource.is_none() && recorded.is_some();
        let known = self.driver.and_then(|driver| driver.is_sensitive(name));
        let is_open = was_open || known.map_or_else(|| is_plain(value), |secret| !secret);
        let promises = |name: &str| {
            self.driver
                .is_some_and(|driver| driver.is_sensitive(name) == Some(true))
        };
        if is_open && !holds_credential(value, &promises, self.masker) {
            Verdict::Open
        } else {
            Verdict::Sealed
        }
    }

    /// True when the config or the driver says that it is a secret; else it is only not known to be none.
    fn is_called_secret(&self, name: &str) -> bool {
        let declared = self
            .resource
            .and_then(|resource| resource.outputs.get(name));
        declared.is_some_and(|declared| declared.sensitive)
            || self.driver.and_then(|driver| driver.is_sensitive(name)) == Some(true)
    }

    fn sort(&self, address: &Address, outputs: Outputs) -> Outputs {
        let admit = |name: &str, value: Json| {
            let label = format!("{address}.{name}");
            Output::Sensitive(if self.is_called_secret(name) {
                self.masker.admit(&label, text(value))
            } else {
                self.masker.suspect(&label, text(value))
            })
        };
        // Whatever is a secret by itself is known before the others are asked whether they repeat one.
        let judged: Vec<(String, Output, Verdict)> = outputs
            .into_iter()
            .map(|(name, output)| {
                let value = match &output {
                    Output::Public(value) => Some(value),
                    Output::Sensitive(_) => None,
                };
                let verdict = self.judge(&name, value);
                let output = match (output, verdict) {
                    (Output::Public(value), Verdict::Sealed) => admit(&name, value),
                    (Output::Sensitive(secret), Verdict::Declared) => {
                        Output::Public(Json::String(secret.expose().to_owned()))
                    }
                    (output, _) => output,
                };
                (name, output, verdict)
            })
            .collect();
        judged
            .into_iter()
            .map(|(name, output, verdict)| match output {
                Output::Public(value) if verdict == Verdict::Open && self.repeats(&value) => {
                    let output = admit(&name, value);
                    (name, output)
                }
                output => (name, output),
            })
            .collect()
    }

    fn repeats(&self, value: &Json) -> bool {
        match value {
            Json::Null | Json::Bool(_) => false,
            Json::String(text) => self.masker.is_sensitive(text),
            other => self.masker.is_sensitive(&other.to_string()),
        }
    }
}

/// A number or a flag that nobody calls secret would lose its type for nothing.
fn is_plain(value: &Json) -> bool {
    value.is_number() || value.is_boolean() || value.is_null()
}

/// Lists and maps are sealed as their JSON text.
fn text(value: Json) -> String {
    match value {
        Json::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Which of these are sealed when neither a config nor a driver has anything to say, but that each
    /// was public before.
    fn sealed(masker: &Masker, outputs: &[(&str, Output)]) -> Vec<String> {
        let outputs: Outputs = outputs
            .iter()
            .map(|(name, output)| ((*name).to_owned(), output.clone()))
            .collect();
        let recorded = outputs
            .keys()
            .map(|name| (name.clone(), Output::Public(Json::Null)))
            .collect();
        let rule = Rule {
            masker,
            resource: None,
            driver: None,
            recorded: Some(&recorded),
        };
        let address = Address::new("db");
        // A flag is more than what was.
        let flagged: Vec<String> = outputs
            .iter()
            .filter(|(_, output)| matches!(output, Output::Sensitive(_)))
            .map(|(name, _)| name.clone())
            .collect();
        let sorted = rule.sort(&address, outputs);
        for name in &flagged {
            assert!(matches!(sorted[name], Output::Sensitive(_)), "{name}");
        }
        sorted
            .into_iter()
            .filter(|(name, output)| {
                matches!(output, Output::Sensitive(_)) && !flagged.contains(name)
            })
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn what_repeats_a_secret_is_sealed_whatever_its_name_sorts_before() {
        let masker = Masker::default();
        let phrase = || Output::Sensitive(masker.admit("phrase", "hunter-9-zzQQ".to_owned()));
        let url = || Output::Public(json!("pg:app:hunter-9-zzQQ@host/db"));
        let found = sealed(
            &masker,
            &[
                ("database_url", url()),
                ("host", Output::Public(json!("host"))),
                ("list", Output::Public(json!([{"at": "hunter-9-zzQQ"}]))),
                ("phrase", phrase()),
                ("z_url", url()),
            ],
        );
        assert_eq!(found, ["database_url", "list", "z_url"]);
    }

    #[test]
    fn a_credential_inside_seals_the_whole() {
        let masker = Masker::default();
        let found = sealed(
            &masker,
            &[
                (
                    "link",
                    Output::Public(json!("pg://user:hunter-5-url@host/db")),
                ),
                (
                    "nested",
                    Output::Public(json!({"uris": ["pg://u:hunter-7-nested@h"]})),
                ),
                (
                    "pem",
                    Output::Public(json!("-----BEGIN PRIVATE KEY-----\nMIIE\n")),
                ),
                ("port", Output::Public(json!(5432))),
                ("site", Output::Public(json!("https://host/db"))),
            ],
        );
        assert_eq!(found, ["link", "nested", "pem"]);
    }

    #[test]
    fn what_stands_beside_a_secret_in_a_map_is_none() {
        let masker = Masker::default();
        masker.admit("token", "tok-93jfkw0Zq81".to_owned());
        let settings = json!({"ref": "thin-12346-abcdef", "tok": "Bearer tok-93jfkw0Zq81"});
        let found = sealed(
            &masker,
            &[
                ("cfg", Output::Public(settings)),
                (
                    "url",
                    Output::Public(json!("http://a.example/thin-12346-abcdef")),
                ),
            ],
        );
        assert_eq!(found, ["cfg"]);
        assert!(!masker.is_sensitive("thin-12346-abcdef"));
    }
}
