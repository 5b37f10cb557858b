//! What became of recorded resources behind our back. Looks and compares; writes nothing.
//!
//! A provider that finds drift itself is asked. Otherwise the resource is read, the driver compares
//! what it read with the config that was applied, and recorded outputs are compared with live ones.
//! A record whose config we did not apply (it was adopted, or another program wrote it) says
//! nothing about what the resource should be: of it only existence is checked.

mod applied;
mod asked;
mod compare;

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use serde_json::{Value as Json, json};

pub(super) use compare::holds_marker;
pub use compare::{output_fields, public, same};

use super::Engine;
use super::execute::asked;
use super::sealing::live_outputs;
use super::survey::{by_address, owner_of};
use super::values::Values;
use crate::config::Resource;
use crate::provider::ErrorClass;
use crate::provider::ability::Ability;
use crate::report::{Report, Span};
use crate::resource::{Address, Kind, Observed, ProviderId, Recorded};
use crate::state::Record;
use crate::state::record::{publish, to_recorded};

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
    fn of(engine: &Engine<'_>, record: &Record, resource: Option<&Resource>) -> Self {
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

/// What every look needs.
struct Look<'l, 'e> {
    engine: &'l Engine<'e>,
    values: &'l Values,
    declared: BTreeMap<&'e Address, &'e Resource>,
}

struct Case {
    finding: Finding,
    prior: Recorded,
    record: Record,
}

/// Looks at every record.
///
/// # Errors
/// Only when the state cannot be read. Everything else is a finding of its own.
pub async fn look(engine: &Engine<'_>, values: &Values) -> Result<Vec<Finding>, Report> {
    let records = engine.store.list().await.map_err(Report::from)?;
    publish(&engine.masker, &records);
    let declared = by_address(engine);
    let mut findings = Vec::new();
    let mut cases = Vec::new();
    for record in records {
        let finding = Finding::of(engine, &record, declared.get(&record.resource_id).copied());
        match to_recorded(
            &record,
            &engine.config.environment,
            &engine.keyring,
            &engine.masker,
        ) {
            Ok(mut prior) => {
                // What would be sealed today is no difference to what is there, and is not shown.
                if let Ok(driver) = engine.driver(&prior.address, &finding.provider, &prior.kind) {
                    let declared = declared.get(&prior.address).copied();
                    let outputs = prior.outputs.clone();
                    prior.outputs = live_outputs(engine, declared, driver, &prior, outputs);
                }
                cases.push(Case {
                    finding,
                    prior,
                    record,
                });
            }
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
    let look = &Look {
        engine,
        values: &values,
        declared,
    };
    let mut looks: Vec<Finding> = futures_util::stream::iter(looked_at)
        .map(|case| async move { look_at(look, case).await })
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
        findings.extend(asked::ask(look, &provider, cases).await);
    }
    engine.cancel.go_on()?;
    findings.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(findings)
}

/// One resource, through its driver.
async fn look_at(look: &Look<'_, '_>, case: Case) -> Finding {
    let engine = look.engine;
    let Case {
        mut finding,
        prior,
        record,
    } = case;
    let driver = match engine.driver(&finding.address, &finding.provider, &finding.kind) {
        Ok(driver) => driver,
        Err(problem) => return finding.unchecked(problem.message),
    };
    let live = match asked(engine, || driver.read(&prior)).await {
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
        outputs: live_outputs(
            engine,
            look.declared.get(&prior.address).copied(),
            driver,
            &prior,
            live.outputs,
        ),
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
    match applied::applied(look, &record) {
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
            match asked(engine, || driver.diff(&now, &applied)).await {
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
