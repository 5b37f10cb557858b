//! What became of recorded resources behind our back. Looks and compares; writes nothing.
//!
//! A provider that finds drift itself is asked. Otherwise the resource is read, the driver compares
//! what it read with the config that was applied, and recorded outputs are compared with live ones.
//! A record whose config we did not apply (it was adopted, or another program wrote it) says
//! nothing about what the resource should be: of it only existence is checked.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use serde_json::{Value as Json, json};

use super::Engine;
use super::survey::{by_address, keep_sealed, owner_of, sort_outputs, spec};
use super::values::Values;
use crate::provider::ability::{Ability, Drift, DriftClass};
use crate::provider::hide::shown;
use crate::provider::{Driver, ErrorClass, config_changes};
use crate::report::{Report, Span};
use crate::resource::{
    Address, Kind, Map, Observed, Output, Outputs, ProviderId, PublicMap, Recorded, Spec, Value,
};
use crate::secret::{Keyring, Masker};
use crate::state::Record;
use crate::state::record::to_recorded;

/// Records whose config is ours say so with this word (`applied_config_source`).
const OURS: &str = "apply";

/// What became of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// As recorded.
    InSync,
    /// Recorded, but gone.
    Ghost,
    /// There, but not as applied.
    Config,
    /// It could not be told.
    Unchecked,
}

impl Verdict {
    /// The word used in JSON and listings.
    pub fn word(self) -> &'static str {
        match self {
            Self::InSync => "in-sync",
            Self::Ghost => "ghost",
            Self::Config => "config",
            Self::Unchecked => "could-not-check",
        }
    }

    /// True for what is not as it was left.
    pub fn is_drift(self) -> bool {
        matches!(self, Self::Ghost | Self::Config)
    }
}

/// One field that is not as it was left. Values are public forms.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Dotted path: a config field, or `outputs.<name>`.
    pub path: String,
    /// What was applied or recorded.
    pub expected: Json,
    /// What is there.
    pub actual: Json,
}

/// The verdict on one recorded resource.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The resource.
    pub address: Address,
    /// Its kind.
    pub kind: Kind,
    /// Its provider module.
    pub provider: ProviderId,
    /// What became of it.
    pub verdict: Verdict,
    /// Where the recorded config comes from: `apply`, `adoption`, or empty for another program's.
    pub source: String,
    /// True when replace and delete need an explicit override.
    pub protected: bool,
    /// Every field that differs, sorted by path.
    pub fields: Vec<Field>,
    /// Why, when the verdict needs a reason beyond its fields. May be text from a provider.
    pub reason: String,
    /// Where the config declares it.
    pub at: Option<Span>,
}

impl Finding {
    fn of(engine: &Engine<'_>, record: &Record) -> Self {
        let resource = engine
            .config
            .resources
            .iter()
            .find(|resource| resource.address == record.resource_id);
        Self {
            address: record.resource_id.clone(),
            kind: Kind::new(record.resource_type.clone()),
            provider: owner_of(engine, record),
            verdict: Verdict::InSync,
            source: record.tidegate.applied_config_source.clone(),
            protected: record.tidegate.protected
                || resource.is_some_and(|resource| resource.protected),
            fields: Vec::new(),
            reason: String::new(),
            at: resource.map(|resource| resource.at.clone()),
        }
    }

    fn unchecked(mut self, reason: impl Into<String>) -> Self {
        self.verdict = Verdict::Unchecked;
        self.reason = reason.into();
        self
    }

    /// The stable JSON shape (`docs/json.md`).
    pub fn to_json(&self) -> Json {
        json!({
            "resource": self.address,
            "type": self.kind,
            "provider": self.provider,
            "class": self.verdict.word(),
            "source": self.source,
            "protected": self.protected,
            "fields": self.fields.iter().map(|field| json!({
                "path": field.path,
                "expected": field.expected,
                "actual": field.actual,
            })).collect::<Vec<_>>(),
            "reason": self.reason,
        })
    }
}

/// Looks at every record.
///
/// # Errors
/// Only when the state cannot be read. Everything else is a finding of its own.
pub async fn look(engine: &Engine<'_>, values: &Values) -> Result<Vec<Finding>, Report> {
    let records = engine.store.list().await.map_err(Report::from)?;
    let mut findings = Vec::new();
    let mut cases = Vec::new();
    for record in records {
        let finding = Finding::of(engine, &record);
        match to_recorded(
            &record,
            &engine.config.environment,
            &engine.keyring,
            &engine.masker,
        ) {
            Ok(prior) => cases.push(Case {
                finding,
                prior,
                record,
            }),
            Err(error) => findings.push(finding.unchecked(error.to_string())),
        }
    }
    let mut values = values.clone();
    for case in &cases {
        values.set_final(
            &case.prior.address,
            &case.prior.provider_id,
            &case.prior.outputs,
        );
    }
    let (asked, looked_at): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(|case| {
        engine
            .providers
            .get(&case.finding.provider)
            .is_some_and(|provider| provider.abilities().contains(&Ability::Drift))
    });
    let values = &values;
    let mut looks: Vec<Finding> = futures_util::stream::iter(looked_at)
        .map(|case| async move { look_at(engine, values, case).await })
        .buffer_unordered(engine.parallelism.max(1))
        .collect()
        .await;
    findings.append(&mut looks);
    let mut by_provider: BTreeMap<ProviderId, Vec<Case>> = BTreeMap::new();
    for case in asked {
        by_provider
            .entry(case.finding.provider.clone())
            .or_default()
            .push(case);
    }
    for (provider, cases) in by_provider {
        findings.extend(ask(engine, values, &provider, cases).await);
    }
    engine.cancel.go_on()?;
    findings.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(findings)
}

struct Case {
    finding: Finding,
    prior: Recorded,
    record: Record,
}

/// One resource, through its driver.
async fn look_at(engine: &Engine<'_>, values: &Values, case: Case) -> Finding {
    let Case {
        mut finding,
        prior,
        record,
    } = case;
    let driver = match engine.driver(&finding.address, &finding.provider, &finding.kind) {
        Ok(driver) => driver,
        Err(problem) => return finding.unchecked(problem.message),
    };
    let live = match driver.read(&prior).await {
        Ok(live) => live,
        Err(error) if error.class == ErrorClass::NotFound => {
            finding.verdict = Verdict::Ghost;
            finding.reason = "the provider does not know it any more".to_owned();
            return finding;
        }
        Err(error) => {
            return finding.unchecked(format!("{} ({})", error.message, error.class.word()));
        }
    };
    if let Some(reason) = existence_only(&record) {
        finding.reason = reason.to_owned();
        return finding;
    }
    let live = Observed {
        outputs: live_outputs(engine, driver, &prior, live.outputs),
        ..live
    };
    finding.fields = output_fields(&prior.outputs, &live.outputs, &engine.keyring);
    if live.provider_id != prior.provider_id && !prior.provider_id.is_empty() {
        finding.fields.push(Field {
            path: "provider_id".to_owned(),
            expected: prior.provider_id.clone().into(),
            actual: live.provider_id.clone().into(),
        });
    }
    let mut needs = false;
    match applied(engine, values, &record) {
        None => {
            "only outputs were compared: the config has changed since, and the secrets it was applied with are not at hand".clone_into(&mut finding.reason);
        }
        Some(applied) => {
            let now = Recorded {
                provider_id: live.provider_id,
                outputs: live.outputs,
                status: live.status,
                ..prior
            };
            match driver.diff(&now, &applied).await {
                Ok(diff) => {
                    needs = diff.needs_update || diff.needs_replace || !diff.changes.is_empty();
                    // A diff goes from what is there to what is wanted.
                    finding
                        .fields
                        .extend(diff.changes.into_iter().map(|change| Field {
                            path: change.path,
                            expected: change.new,
                            actual: change.old,
                        }));
                }
                Err(error) if error.class == ErrorClass::NotFound => {
                    finding.verdict = Verdict::Ghost;
                    finding.fields.clear();
                    return finding;
                }
                Err(error) => {
                    return finding.unchecked(format!(
                        "{} ({})",
                        error.message,
                        error.class.word()
                    ));
                }
            }
        }
    }
    finding.fields.sort_by(|a, b| a.path.cmp(&b.path));
    finding.fields.dedup_by(|a, b| a.path == b.path);
    if needs || !finding.fields.is_empty() {
        finding.verdict = Verdict::Config;
        if finding.fields.is_empty() {
            "the provider says that it is not as applied".clone_into(&mut finding.reason);
        }
    }
    finding
}

/// Why nothing but existence can be checked; `None` when everything can.
fn existence_only(record: &Record) -> Option<&'static str> {
    match record.tidegate.applied_config_source.as_str() {
        _ if record.status == "error" => {
            Some("its last action did not end well, so only its existence was checked")
        }
        OURS => None,
        "adoption" => Some("adopted, so only its existence was checked"),
        _ => Some("recorded by another program, so only its existence was checked"),
    }
}

/// The resources of one provider that finds drift itself.
async fn ask(
    engine: &Engine<'_>,
    values: &Values,
    provider: &ProviderId,
    cases: Vec<Case>,
) -> Vec<Finding> {
    let Some(door) = engine.providers.get(provider) else {
        return Vec::new();
    };
    let mut desired = BTreeMap::new();
    for case in &cases {
        if existence_only(&case.record).is_none()
            && let Some(spec) = applied(engine, values, &case.record)
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
                .map(|case| async move { look_at(engine, values, case).await })
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
            Some(value) => shown(
                path,
                value.clone(),
                &|name| driver.is_some_and(|driver| driver.is_sensitive(name) == Some(true)),
                &engine.masker,
            ),
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

pub(super) fn holds_marker(value: &Json) -> bool {
    match value {
        Json::Object(map) => map.contains_key("$secret") || map.values().any(holds_marker),
        Json::Array(items) => items.iter().any(holds_marker),
        _ => false,
    }
}

/// Live outputs, sorted into public and sensitive: what is recorded as sensitive stays so.
pub fn live_outputs(
    engine: &Engine<'_>,
    driver: &dyn Driver,
    prior: &Recorded,
    outputs: Outputs,
) -> Outputs {
    if let Some(resource) = by_address(engine).get(&prior.address) {
        let outputs = sort_outputs(engine, resource, driver, outputs);
        return keep_sealed(engine, Some(resource), &prior.outputs, outputs);
    }
    outputs
        .into_iter()
        .map(|(name, output)| {
            let known_public = match prior.outputs.get(&name) {
                Some(Output::Public(_)) => true,
                Some(Output::Sensitive(_)) => false,
                None => driver.is_sensitive(&name) == Some(false),
            };
            let output = match output {
                Output::Public(value) if !known_public => {
                    let text = match value {
                        Json::String(text) => text,
                        other => other.to_string(),
                    };
                    Output::Sensitive(
                        engine
                            .masker
                            .admit(&format!("{}.{name}", prior.address), text),
                    )
                }
                output => output,
            };
            (name, output)
        })
        .collect()
}

/// An output in public form.
pub fn public(output: &Output, keyring: &Keyring) -> Json {
    match output {
        Output::Public(value) => value.clone(),
        Output::Sensitive(secret) => Value::Secret(secret.clone()).public(keyring),
    }
}

/// Every recorded output whose live value differs. What a live answer lacks is no difference: some
/// values are told once, when the resource is made. What it has beyond the record is none either.
pub fn output_fields(recorded: &Outputs, live: &Outputs, keyring: &Keyring) -> Vec<Field> {
    let shared = |from: &Outputs| -> PublicMap {
        from.iter()
            .filter(|(name, _)| recorded.contains_key(*name) && live.contains_key(*name))
            .map(|(name, output)| (name.clone(), public(output, keyring)))
            .collect()
    };
    config_changes(&shared(recorded), &shared(live))
        .into_iter()
        .filter(|change| !same(&change.old, &change.new))
        .map(|change| Field {
            path: format!("outputs.{}", change.path),
            expected: change.old,
            actual: change.new,
        })
        .collect()
}

/// Equal as a person sees it: a number that came back as `5.0` is still 5.
pub fn same(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(left), Json::Number(right)) => {
            left == right || left.as_f64() == right.as_f64()
        }
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| same(a, b))
        }
        (Json::Object(left), Json::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, a)| right.get(key).is_some_and(|b| same(a, b)))
        }
        (left, right) => left == right,
    }
}

/// The config a record was applied with, as a driver wants it.
fn applied(engine: &Engine<'_>, values: &Values, record: &Record) -> Option<Spec> {
    let desired = by_address(engine)
        .get(&record.resource_id)
        .and_then(|resource| spec(engine, resource, values).ok());
    let config = reopen(
        &record.config,
        desired.as_ref().map(|spec| &spec.config),
        &engine.keyring,
    )?;
    Some(Spec {
        address: record.resource_id.clone(),
        kind: Kind::new(record.resource_type.clone()),
        config,
        public_config: record.config.clone(),
        dependencies: record.dependencies.iter().cloned().collect(),
    })
}

/// A recorded config with its secrets in hand again: each is taken from the config of now, at the
/// same place, if its fingerprint still fits. `None` when one does not.
fn reopen(recorded: &PublicMap, desired: Option<&Map>, keyring: &Keyring) -> Option<Map> {
    recorded
        .iter()
        .map(|(key, value)| {
            let now = desired.and_then(|desired| desired.get(key));
            Some((key.clone(), reopen_value(value, now, keyring)?))
        })
        .collect()
}

fn reopen_value(recorded: &Json, desired: Option<&Value>, keyring: &Keyring) -> Option<Value> {
    match recorded {
        Json::Object(map) if map.len() == 1 && map.contains_key("$secret") => desired
            .filter(|value| matches!(value, Value::Secret(_)) && value.public(keyring) == *recorded)
            .cloned(),
        Json::Object(map) => {
            let desired = match desired {
                Some(Value::Map(desired)) => Some(desired),
                _ => None,
            };
            reopen(map, desired, keyring).map(Value::Map)
        }
        Json::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, item)| {
                let now = match desired {
                    Some(Value::List(desired)) => desired.get(at),
                    _ => None,
                };
                reopen_value(item, now, keyring)
            })
            .collect::<Option<Vec<_>>>()
            .map(Value::List),
        plain => Some(Value::from(plain.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> Keyring {
        Keyring::new(&[7; 32])
    }

    fn secret(text: &str) -> Output {
        Output::Sensitive(Masker::default().admit("test", text.to_owned()))
    }

    fn outputs(pairs: &[(&str, Output)]) -> Outputs {
        pairs
            .iter()
            .map(|(name, output)| ((*name).to_owned(), output.clone()))
            .collect()
    }

    #[test]
    fn outputs_differ_where_both_sides_have_a_value() {
        let public = |value: Json| Output::Public(value);
        let recorded = outputs(&[
            ("host", public("a".into())),
            ("port", public(5432.into())),
            ("boot_script", public("once".into())),
            ("password", secret("correct-horse")),
        ]);
        let live = outputs(&[
            ("host", public("b".into())),
            ("port", public(5432.0.into())),
            ("region", public("new".into())),
            ("password", secret("correct-horse")),
        ]);
        let fields = output_fields(&recorded, &live, &keyring());
        assert_eq!(
            fields,
            [Field {
                path: "outputs.host".into(),
                expected: "a".into(),
                actual: "b".into()
            }]
        );
    }

    #[test]
    fn a_changed_secret_shows_as_two_fingerprints() {
        let fields = output_fields(
            &outputs(&[("password", secret("correct-horse"))]),
            &outputs(&[("password", secret("battery-staple"))]),
            &keyring(),
        );
        let text = format!("{fields:?}");
        assert_eq!(fields.len(), 1);
        assert!(fields[0].expected.get("$secret").is_some(), "{text}");
        assert!(
            !text.contains("horse") && !text.contains("staple"),
            "{text}"
        );
    }

    #[test]
    fn an_applied_config_is_reopened_only_with_the_same_secrets() {
        let keyring = keyring();
        let held = |text: &str| {
            Map::from([
                ("engine".to_owned(), Value::String("postgres".into())),
                (
                    "env".to_owned(),
                    Value::Map(Map::from([(
                        "KEY".to_owned(),
                        Value::Secret(Masker::default().admit("test", text.to_owned())),
                    )])),
                ),
            ])
        };
        let recorded = crate::resource::public_map(&held("correct-horse"), &keyring);
        let again = reopen(&recorded, Some(&held("correct-horse")), &keyring).unwrap();
        assert_eq!(crate::resource::public_map(&again, &keyring), recorded);
        assert!(reopen(&recorded, Some(&held("battery-staple")), &keyring).is_none());
        assert!(reopen(&recorded, None, &keyring).is_none());
    }

    #[test]
    fn fields_are_shown_only_when_they_are_known_to_be_public() {
        let mut prior = Recorded::by_name(Address::new("db"), Kind::new("infra.database"));
        prior.config = serde_json::from_value(json!({
            "size": "m", "env": {"KEY": {"$secret": "x"}}
        }))
        .unwrap();
        prior.outputs = outputs(&[
            ("host", Output::Public("a".into())),
            ("password", secret("correct-horse")),
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
