//! Reads live outputs and puts them into the records. All or nothing: one read that fails leaves
//! every record as it was.

use std::collections::{BTreeMap, HashMap};

use futures_util::StreamExt as _;
use serde_json::{Value as Json, json};

use super::Engine;
use super::drift::{Field, public, same};
use super::execute::asked;
use super::sealing::live_outputs;
use super::survey::{by_address, declared, owner_of};
use crate::config::Resource;
use crate::provider::{Driver, ErrorClass};
use crate::report::Report;
use crate::resource::{Address, Kind, Observed, Outputs, Recorded, merged};
use crate::secret::Keyring;
use crate::state::Record;
use crate::state::record::{observe, publish, to_recorded};

/// What a look at one record's resource found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Live outputs differ; the record is to be written.
    Changed,
    /// As recorded.
    Unchanged,
    /// The resource is gone; its record is left alone.
    Ghost,
    /// It could not be read.
    Failed(String),
}

impl Fate {
    /// The word used in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Ghost => "ghost",
            Self::Failed(_) => "failed",
        }
    }
}

/// One record, looked at.
#[derive(Clone, Debug)]
pub struct Refreshed {
    /// The resource.
    pub address: Address,
    /// Its kind.
    pub kind: Kind,
    /// What was found.
    pub fate: Fate,
    /// Recorded → live, sorted by path; `expected` is the recorded value.
    pub fields: Vec<Field>,
    /// The record as it is to be written.
    record: Record,
}

impl Refreshed {
    /// The record to write, when there is something to write.
    pub fn to_write(&self) -> Option<&Record> {
        (self.fate == Fate::Changed).then_some(&self.record)
    }

    /// The stable JSON shape (`docs/json.md`).
    pub fn to_json(&self) -> Json {
        json!({
            "resource": self.address,
            "type": self.kind,
            "status": self.fate.word(),
            "changes": self.fields.iter().map(|field| json!({
                "path": field.path,
                "old": field.expected,
                "new": field.actual,
            })).collect::<Vec<_>>(),
            "error": match &self.fate {
                Fate::Failed(why) => Some(why),
                Fate::Changed | Fate::Unchanged | Fate::Ghost => None,
            },
        })
    }
}

/// Reads every recorded resource, `engine.parallelism` at once, sorted by name. Writes nothing.
///
/// # Errors
/// Only when the state cannot be read.
pub async fn read_all(engine: &Engine<'_>) -> Result<Vec<Refreshed>, Report> {
    let records = engine.store.list().await.map_err(Report::from)?;
    publish(&engine.masker, &records);
    let resources = by_address(engine);
    let id_of = |record: &Record| (record.resource_type.clone(), record.provider_id.clone());
    let ids = records
        .iter()
        .map(|record| (id_of(record), record.resource_id.clone()))
        .collect();
    let mut all: Vec<Refreshed> = futures_util::stream::iter(records)
        .map(|record| read_one(engine, &resources, &ids, record))
        .buffer_unordered(engine.parallelism.max(1))
        .collect()
        .await;
    // Reads that were dropped say nothing about what they were to read.
    engine.cancel.go_on()?;
    all.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(all)
}

async fn read_one(
    engine: &Engine<'_>,
    resources: &BTreeMap<&Address, &Resource>,
    ids: &HashMap<(String, String), Address>,
    record: Record,
) -> Refreshed {
    let kind = Kind::new(record.resource_type.clone());
    let mut answer = Refreshed {
        address: record.resource_id.clone(),
        kind: kind.clone(),
        fate: Fate::Unchanged,
        fields: Vec::new(),
        record,
    };
    let environment = &engine.config.environment;
    let prior = match to_recorded(&answer.record, environment, &engine.keyring, &engine.masker) {
        Ok(prior) => prior,
        Err(error) => {
            answer.fate = Fate::Failed(error.to_string());
            return answer;
        }
    };
    let owner = owner_of(engine, &answer.record);
    let driver = match engine.driver(&answer.address, &owner, &kind) {
        Ok(driver) => driver,
        Err(problem) => {
            answer.fate = Fate::Failed(problem.message);
            return answer;
        }
    };
    let live = match asked(engine, || driver.read(&prior)).await {
        Ok(live) => live,
        Err(error) if error.class == ErrorClass::NotFound => {
            answer.fate = Fate::Ghost;
            return answer;
        }
        Err(error) => {
            answer.fate = Fate::Failed(format!("{} ({})", error.message, error.class.word()));
            return answer;
        }
    };
    let answered = (kind.as_str().to_owned(), live.provider_id.clone());
    if let Some(other) = ids
        .get(&answered)
        .filter(|_| answered.1 != prior.provider_id)
    {
        answer.fate = Fate::Failed(format!(
            "the provider answered about `{other}`, `{}`, when it was asked about `{}`",
            answered.1, prior.provider_id
        ));
        return answer;
    }
    let resource = resources.get(&prior.address).copied();
    live_over(engine, (driver, resource), prior, live, answer)
}

/// A record with what its provider answers of it now: after a look, or after an effect outside of a plan.
pub(super) fn answered(
    engine: &Engine<'_>,
    driver: &dyn Driver,
    record: Record,
    prior: Recorded,
    live: Observed,
) -> Refreshed {
    let answer = Refreshed {
        address: record.resource_id.clone(),
        kind: Kind::new(record.resource_type.clone()),
        fate: Fate::Unchanged,
        fields: Vec::new(),
        record,
    };
    let resource = declared(engine, &prior.address);
    live_over(engine, (driver, resource), prior, live, answer)
}

fn live_over(
    engine: &Engine<'_>,
    (driver, resource): (&dyn Driver, Option<&Resource>),
    prior: Recorded,
    live: Observed,
    mut answer: Refreshed,
) -> Refreshed {
    let environment = &engine.config.environment;
    let outputs = merged(
        &prior.outputs,
        live_outputs(engine, resource, driver, &prior, live.outputs),
    );
    answer.fields = changed(&prior.outputs, &outputs, &engine.keyring);
    let provider_id = if live.provider_id.is_empty() {
        prior.provider_id.clone()
    } else {
        live.provider_id
    };
    if provider_id != prior.provider_id {
        answer.fields.push(Field {
            path: "provider_id".to_owned(),
            expected: prior.provider_id.clone().into(),
            actual: provider_id.clone().into(),
        });
    }
    if answer.fields.is_empty() {
        return answer;
    }
    answer.fate = Fate::Changed;
    let merged = Observed {
        provider_id,
        outputs,
        status: live.status,
        // A read that says nothing about the provider's own bytes does not take them away.
        private: if live.private.is_empty() {
            prior.private
        } else {
            live.private
        },
    };
    observe(
        &mut answer.record,
        environment,
        &merged,
        &engine.keyring,
        engine.random.as_ref(),
    );
    answer
}

fn changed(recorded: &Outputs, merged: &Outputs, keyring: &Keyring) -> Vec<Field> {
    merged
        .iter()
        .filter_map(|(name, output)| {
            let old = recorded
                .get(name)
                .map_or(Json::Null, |output| public(output, keyring));
            let new = public(output, keyring);
            (!same(&old, &new)).then(|| Field {
                path: format!("outputs.{name}"),
                expected: old,
                actual: new,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Output;

    fn outputs(pairs: &[(&str, Json)]) -> Outputs {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Output::Public(value.clone())))
            .collect()
    }

    #[test]
    fn create_only_values_survive_and_new_ones_come_in() {
        let recorded = outputs(&[
            ("boot_script", "once".into()),
            ("host", "a".into()),
            ("port", 80.into()),
        ]);
        let merged = merged(
            &recorded,
            outputs(&[
                ("host", "b".into()),
                ("port", 80.0.into()),
                ("region", "x".into()),
            ]),
        );
        assert!(merged.contains_key("boot_script"));
        let paths: Vec<String> = changed(&recorded, &merged, &Keyring::new(&[1; 32]))
            .into_iter()
            .map(|field| field.path)
            .collect();
        assert_eq!(paths, ["outputs.host", "outputs.region"]);
    }

    #[test]
    fn the_same_answer_changes_nothing() {
        let recorded = outputs(&[("host", "a".into())]);
        let merged = merged(&recorded, recorded.clone());
        assert!(changed(&recorded, &merged, &Keyring::new(&[1; 32])).is_empty());
    }
}
