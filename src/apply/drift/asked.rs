//! Providers that find drift themselves: their verdicts as ours.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use serde_json::Value as Json;

use super::applied::applied;
use super::compare::holds_marker;
use super::{Case, Field, Finding, Look, Verdict, existence_only, look_at};
use crate::apply::Engine;
use crate::provider::ability::{Drift, DriftClass};
use crate::provider::hide::Hidden;
use crate::provider::{Driver, ErrorClass};
use crate::resource::{Address, Output, ProviderId, PublicMap, Recorded, Value};
use crate::secret::{Keyring, Masker};

/// The resources of one provider that finds drift itself.
pub(super) async fn ask(
    look: &Look<'_, '_>,
    provider: &ProviderId,
    cases: Vec<Case>,
) -> Vec<Finding> {
    let engine = look.engine;
    let Some(door) = engine.providers.get(provider) else {
        return Vec::new();
    };
    let mut desired = BTreeMap::new();
    for case in &cases {
        if existence_only(&case.record).is_none()
            && let Some(spec) = applied(look, &case.record)
        {
            desired.insert(case.finding.address.clone(), spec);
        }
    }
    let recorded: Vec<Recorded> = cases.iter().map(|case| case.prior.clone()).collect();
    let mut answers: BTreeMap<Address, Drift> = match door.drift(&recorded, &desired).await {
        Ok(answers) => answers
            .into_iter()
            .map(|answer| (answer.address.clone(), answer))
            .collect(),
        // It says that it finds drift and has no call for it: its drivers can be asked all the same.
        Err(error) if error.class == ErrorClass::Unimplemented => {
            return futures_util::stream::iter(cases)
                .map(|case| async move { look_at(look, case).await })
                .buffer_unordered(engine.parallelism.max(1))
                .collect()
                .await;
        }
        Err(error) => {
            let reason = format!("{} ({})", error.message, error.class.word());
            return cases
                .into_iter()
                .map(|case| case.finding.unchecked(reason.clone()))
                .collect();
        }
    };
    cases
        .into_iter()
        .map(|case| {
            let Some(answer) = answers.remove(&case.finding.address) else {
                return case
                    .finding
                    .unchecked("the provider gave no answer about it");
            };
            let driver = door.driver(&case.finding.kind);
            judge(engine, driver, case, &answer)
        })
        .collect()
}

/// A provider's verdict as ours. What it shows is shown only where we know that it is no secret.
fn judge(engine: &Engine<'_>, driver: Option<&dyn Driver>, case: Case, answer: &Drift) -> Finding {
    let Case {
        mut finding,
        prior,
        record,
    } = case;
    match answer.class {
        DriftClass::InSync => finding.verdict = Verdict::InSync,
        DriftClass::Ghost => finding.verdict = Verdict::Ghost,
        DriftClass::Config => match existence_only(&record) {
            Some(reason) => reason.clone_into(&mut finding.reason),
            None => finding.verdict = Verdict::Config,
        },
        DriftClass::Unknown => return finding.unchecked("the provider does not say"),
    }
    if finding.verdict != Verdict::Config {
        return finding;
    }
    let paths: BTreeSet<&String> = answer
        .fields
        .iter()
        .chain(answer.expected.keys())
        .chain(answer.actual.keys())
        .collect();
    for path in paths {
        let is_secret = is_secret_field(path, &prior, driver);
        let show = |values: &PublicMap| match values.get(path) {
            None => Json::Null,
            Some(value) if is_secret => hidden(
                &engine.masker,
                &engine.keyring,
                &finding.address,
                path,
                value,
            ),
            // The live value of a plain field may hold a secret that we have never seen.
            Some(value) => Hidden {
                driver,
                prior: &prior,
                desired: None,
                masker: &engine.masker,
            }
            .shown(path, value.clone()),
        };
        let field = Field {
            path: path.clone(),
            expected: show(&answer.expected),
            actual: show(&answer.actual),
        };
        finding.fields.push(field);
    }
    finding
}

/// A field is shown when its recorded value is public, or when the driver calls it harmless.
fn is_secret_field(path: &str, prior: &Recorded, driver: Option<&dyn Driver>) -> bool {
    let name = path.strip_prefix("outputs.").unwrap_or(path);
    if let Some(output) = prior.outputs.get(name) {
        return matches!(output, Output::Sensitive(_));
    }
    match at_path(&prior.config, path) {
        Some(value) => holds_marker(value),
        None => driver.and_then(|driver| driver.is_sensitive(name)) != Some(false),
    }
}

fn hidden(masker: &Masker, keyring: &Keyring, address: &Address, path: &str, value: &Json) -> Json {
    let text = match value {
        Json::Null => return Json::Null,
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    Value::Secret(masker.admit(&format!("{address}.{path}"), text)).public(keyring)
}

fn at_path<'a>(map: &'a PublicMap, path: &str) -> Option<&'a Json> {
    let mut parts = path.split('.');
    let mut value = map.get(parts.next()?)?;
    for part in parts {
        value = value.get(part)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::{Kind, Outputs};

    #[test]
    fn fields_are_shown_only_when_they_are_known_to_be_public() {
        let mut prior = Recorded::by_name(Address::new("db"), Kind::new("infra.database"));
        prior.config = serde_json::from_value(json!({
            "size": "m", "env": {"KEY": {"$secret": "x"}}
        }))
        .unwrap();
        prior.outputs = Outputs::from([
            ("host".to_owned(), Output::Public("a".into())),
            (
                "password".to_owned(),
                Output::Sensitive(Masker::default().admit("test", "correct-horse".to_owned())),
            ),
        ]);
        for (path, is_secret) in [
            ("size", false),
            ("env", true),
            ("env.KEY", true),
            ("host", false),
            ("outputs.host", false),
            ("password", true),
            ("never_seen", true),
        ] {
            assert_eq!(is_secret_field(path, &prior, None), is_secret, "{path}");
        }
    }
}
