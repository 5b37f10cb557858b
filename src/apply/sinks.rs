//! Writes every declared sink once its value is known: straight from memory, one destination at a
//! time, remembering by keyed fingerprint what is already there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::hold::{GivenUp, attended};
use super::secrets::{output_of, value_of};
use super::shared::{Claim, Others, Sharing, claim};
use super::survey::REFRESH;
use super::values::Values;
use super::{ApplyReport, Engine};
use crate::clock::rfc3339;
use crate::config::{
    Config, Generate, GenerateSource, OnFailure, Resource, SinkDeclaration, SinkTarget,
};
use crate::plan::Scope;
use crate::report::{Event, Outcome, Report, SinkOutcome};
use crate::resource::{ActionKind, Address};
use crate::secret::Secret;
use crate::sink::{LastWritten, Put, Sink, Standing};
use crate::state::{Keepsake, Lease};

/// Opened sinks by what the config asked for.
pub type Sinks = BTreeMap<SinkTarget, Arc<dyn Sink>>;

/// How one sink write ended.
#[derive(Clone, Debug)]
pub struct SinkResult {
    /// Where.
    pub destination: String,
    /// The name written there.
    pub name: String,
    /// How it ended.
    pub outcome: SinkOutcome,
    /// The error; empty otherwise.
    pub message: String,
    /// What a failure means for the run.
    pub on_failure: OnFailure,
    /// False for destinations that start empty in every job: writing them is no change.
    pub remembered: bool,
}

impl SinkResult {
    /// The stable JSON shape (`docs/json.md`).
    pub fn to_json(&self) -> serde_json::Value {
        json!({
            "destination": self.destination,
            "name": self.name,
            "status": self.outcome.word(),
            "error": if self.message.is_empty() { serde_json::Value::Null } else { json!(self.message) },
            "on_failure": match self.on_failure { OnFailure::Warn => "warn", OnFailure::Fail => "fail" },
        })
    }
}

/// Why there is no value for a sink.
enum Missing {
    /// What it comes from was not made, which has been reported already.
    NotMade,
    /// The resource is there and has no such output; a sentence.
    NoOutput(String),
}

impl Missing {
    fn why(values: &Values, resource: &Resource, field: &str) -> Self {
        if values.is_elsewhere(&resource.address, field) {
            return Self::NoOutput(format!(
                "the output `{field}` of `{}` is not known here, because the state it was imported \
                 from kept it elsewhere; {REFRESH}",
                resource.address
            ));
        }
        match values.output_names(&resource.address) {
            None => Self::NotMade,
            Some(names) => Self::NoOutput(format!(
                "`{}` has no output `{field}`; it has {}",
                resource.address,
                names
                    .iter()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            )),
        }
    }
}

/// A sink and what belongs there.
struct Wanted<'a> {
    sink: &'a SinkDeclaration,
    value: Result<Secret, Missing>,
    /// The resource that does not have this value yet.
    behind: Option<&'a Address>,
}

/// Every declared sink with its value, in config order.
fn declared<'a>(
    engine: &Engine<'a>,
    values: &Values,
    scope: &Scope,
    behind: &BTreeMap<String, &'a Address>,
) -> Vec<Wanted<'a>> {
    let config = engine.config;
    let chosen = config
        .resources
        .iter()
        .filter(|resource| scope.includes(&resource.address));
    let outputs = chosen.flat_map(|resource| {
        resource.outputs.iter().flat_map(move |(field, output)| {
            output.sinks.iter().map(move |sink| {
                let value = output_of(engine, values, &resource.address, field)
                    .ok_or_else(|| Missing::why(values, resource, field));
                let behind = None;
                Wanted {
                    sink,
                    value,
                    behind,
                }
            })
        })
    });
    let generated = config.generate.iter().filter(|item| is_within(item, scope));
    let generated = generated.flat_map(|item| {
        // What is copied from an output is as it is at its resource, whoever uses it.
        let is_ours = !matches!(item.source, GenerateSource::InfraOutput { .. });
        let behind = behind.get(&item.key).copied().filter(|_| is_ours);
        item.sinks.iter().map(move |sink| {
            let value = value_of(values, &item.key).ok_or(Missing::NotMade);
            Wanted {
                sink,
                value,
                behind,
            }
        })
    });
    outputs.chain(generated).collect()
}

/// A copy of an output belongs to its resource; a generated secret belongs to everybody.
pub(super) fn is_within(item: &Generate, scope: &Scope) -> bool {
    match &item.source {
        GenerateSource::InfraOutput { address, .. } => scope.includes(address),
        GenerateSource::RandomHex { .. }
        | GenerateSource::RandomBase64 { .. }
        | GenerateSource::RandomAlphanumeric { .. }
        | GenerateSource::ProviderCredential { .. } => true,
    }
}

/// What became of a value that an earlier run wrote, as its destination tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// Somebody removed it.
    Gone,
    /// Somebody wrote another one over it.
    Replaced,
}

impl Loss {
    /// Clocks, and the time between a write and the note of it, differ by less.
    const SLACK: Duration = Duration::from_secs(60);

    fn since(before: &Keepsake, there: LastWritten) -> Option<Self> {
        match there {
            LastWritten::Untold => None,
            LastWritten::Never => Some(Self::Gone),
            LastWritten::At(at) => OffsetDateTime::parse(&before.written_at, &Rfc3339)
                .is_ok_and(|ours| at > ours + Self::SLACK)
                .then_some(Self::Replaced),
        }
    }
}

fn keepsake_key(destination: &str, name: &str) -> String {
    format!("sink/{destination}/{name}")
}

/// True when asking the destination is cheap and safe, so that memory is not trusted instead.
fn looks_itself(target: &SinkTarget) -> bool {
    match target {
        SinkTarget::Dotenv { .. } | SinkTarget::GithubEnv => true,
        SinkTarget::GithubSecret { .. } => false,
    }
}

/// Secrets of our own making that a resource still has as they were, because its change in this
/// apply did not come to its end; by key, with one such resource. Who is outside must not get a
/// value that nothing inside takes yet.
fn behind<'a>(engine: &Engine<'a>, report: &ApplyReport) -> BTreeMap<String, &'a Address> {
    let mut behind = BTreeMap::new();
    let left = report.actions.iter().filter(|action| {
        matches!(action.action, ActionKind::Update | ActionKind::Replace)
            && action.outcome != Outcome::Success
            && action.made.is_none()
    });
    for action in left {
        let resource = engine
            .config
            .resources
            .iter()
            .find(|resource| resource.address == action.address);
        for value in resource
            .iter()
            .flat_map(|resource| resource.config.values())
        {
            value.declared(&mut |key| {
                if let Some(resource) = resource {
                    behind.insert(key.to_owned(), &resource.address);
                }
            });
        }
    }
    behind
}

/// Writes everything in scope that is known. A failed write stops nothing else.
pub async fn write_all(
    engine: &Engine<'_>,
    lease: &Lease,
    values: &Values,
    sinks: &Sinks,
    scope: &Scope,
    report: &ApplyReport,
) -> Vec<SinkResult> {
    for sink in sinks.values() {
        sink.clean_up();
    }
    let behind = behind(engine, report);
    let declared = declared(engine, values, scope, &behind);
    if !declared.is_empty() {
        engine.reporter.say(Event::Section {
            title: "Sinks".to_owned(),
        });
    }
    let mut results = Vec::new();
    let remembers = sinks.values().any(|sink| sink.remembers());
    let others = if remembers && !declared.is_empty() {
        Others::ask(engine).await
    } else {
        Others::default()
    };
    let mut sharing = Sharing::default();
    for wanted in declared {
        let result = write_one(engine, lease, sinks, wanted, (&others, &mut sharing)).await;
        say(engine, &result);
        results.push(result);
    }
    sharing.say(engine);
    results
}

pub(super) fn say(engine: &Engine<'_>, result: &SinkResult) {
    engine.reporter.say(Event::SinkFinished {
        destination: result.destination.clone(),
        name: result.name.clone(),
        outcome: result.outcome,
        message: result.message.clone(),
    });
}

async fn write_one(
    engine: &Engine<'_>,
    lease: &Lease,
    sinks: &Sinks,
    wanted: Wanted<'_>,
    (others, sharing): (&Others, &mut Sharing),
) -> SinkResult {
    let Wanted {
        sink: declaration,
        value,
        behind,
    } = wanted;
    let Some(target) = sinks.get(&declaration.target) else {
        return SinkResult {
            destination: format!("{:?}", declaration.target),
            name: declaration.name.clone(),
            outcome: SinkOutcome::Failed,
            message: "the sink was not opened".to_owned(),
            on_failure: declaration.on_failure,
            remembered: false,
        };
    };
    let mut result = SinkResult {
        destination: target.destination(),
        name: declaration.name.clone(),
        outcome: SinkOutcome::Skipped,
        message: String::new(),
        on_failure: declaration.on_failure,
        remembered: target.remembers(),
    };
    let value = match value {
        Ok(value) => value,
        Err(Missing::NotMade) => {
            "its value is not known, because its resource was not made"
                .clone_into(&mut result.message);
            return result;
        }
        Err(Missing::NoOutput(why)) => {
            result.outcome = SinkOutcome::Failed;
            result.message = why;
            return result;
        }
    };
    if engine.cancel.is_cancelled() {
        "the run was stopped".clone_into(&mut result.message);
        return result;
    }
    let key = keepsake_key(&result.destination, &declaration.name);
    let fingerprint = engine.keyring.fingerprint(&value);
    let before = match engine.store.keepsake(&key).await {
        Ok(before) => before,
        Err(error) => {
            result.outcome = SinkOutcome::Failed;
            result.message = error.to_string();
            return result;
        }
    };
    let writers = others.of(&key);
    if !writers.is_empty() {
        sharing.shares(&result.destination, &declaration.name, &writers);
    }
    let known = before.as_ref().is_some_and(|before| {
        before.fingerprint == fingerprint && !others.wrote_since(&key, before)
    });
    let mut loss = None;
    if let Some(before) = before.as_ref().filter(|_| known)
        && target.remembers()
        && !looks_itself(&declaration.target)
    {
        let asked = target.last_written(&declaration.name);
        loss = match attended(engine, lease, asked).await {
            Ok(there) => Loss::since(before, there),
            Err(GivenUp::Stopped) => {
                "the run was stopped".clone_into(&mut result.message);
                return result;
            }
            Err(GivenUp::Lost(error)) => {
                result.outcome = SinkOutcome::Failed;
                result.message = error.to_string();
                return result;
            }
        };
        if loss.is_none() {
            result.outcome = SinkOutcome::Unchanged;
            return result;
        }
    }
    if let Some(address) = behind.filter(|_| !known) {
        result.message = format!(
            "`{address}`, which uses it, was not updated; the next run writes it when it is"
        );
        return result;
    }
    let is_ours = |value: &str| {
        let there = engine.keyring.fingerprint_text(value);
        there == fingerprint || before.as_ref().is_some_and(|old| old.fingerprint == there)
    };
    let work = async {
        // What cannot be looked at cannot be written either, which says so itself.
        let standing = target.standing(&declaration.name, &is_ours).await;
        let put = target.put(&declaration.name, &value).await;
        (standing, put)
    };
    let (standing, put) = match attended(engine, lease, work).await {
        Ok(done) => done,
        Err(GivenUp::Stopped) => {
            "the run was stopped while it was being written; the next run writes it"
                .clone_into(&mut result.message);
            return result;
        }
        Err(GivenUp::Lost(error)) => {
            result.outcome = SinkOutcome::Failed;
            result.message = error.to_string();
            return result;
        }
    };
    match put {
        Ok(put) => {
            let is_replaced =
                matches!(standing, Ok(Standing::Foreign)) || loss == Some(Loss::Replaced);
            if put == Put::Written && writers.is_empty() && is_replaced {
                sharing.replaces(&result.destination, &declaration.name);
            }
            if loss == Some(Loss::Gone) {
                sharing.puts_back(&result.destination, &declaration.name);
            }
            result.outcome = match put {
                Put::Written => SinkOutcome::Written,
                Put::Unchanged => SinkOutcome::Unchanged,
            };
            if (!known || loss.is_some()) && target.remembers() {
                let keepsake = Keepsake {
                    fingerprint,
                    sealed: None,
                    written_at: rfc3339(engine.clock.now()),
                };
                if let Err(error) = engine.store.put_keepsake(lease, &key, &keepsake).await {
                    // The value is where it belongs; only the memory of it is missing, which
                    // costs one more write next time.
                    result.message = format!("written, but not remembered: {error}");
                }
            }
        }
        Err(error) => {
            result.outcome = SinkOutcome::Failed;
            result.message = error.to_string();
            if let Some(fix) = error.fix.first() {
                result.message = format!("{}; {fix}", result.message);
            }
        }
    }
    result
}

fn declarations(config: &Config) -> impl Iterator<Item = &SinkDeclaration> {
    config
        .resources
        .iter()
        .flat_map(|resource| resource.outputs.values().flat_map(|output| &output.sinks))
        .chain(config.generate.iter().flat_map(|item| &item.sinks))
}

async fn remove(
    engine: &Engine<'_>,
    lease: &Lease,
    others: &Others,
    target: &dyn Sink,
    (name, on_failure): (&str, OnFailure),
) -> SinkResult {
    let destination = target.destination();
    let key = keepsake_key(&destination, name);
    let removed = match claim(engine, others, target, name, &key).await {
        Claim::Ours => match attended(engine, lease, target.remove(name)).await {
            Ok(removed) => removed
                .map(|()| (SinkOutcome::Removed, String::new()))
                .map_err(|error| error.to_string()),
            Err(GivenUp::Stopped) => Err("the run was stopped while it was removed".to_owned()),
            Err(GivenUp::Lost(error)) => Err(error.to_string()),
        },
        Claim::Stays(why) => Ok((SinkOutcome::Skipped, why)),
        Claim::Unclear(why) => Err(why),
    };
    let (outcome, message) = match removed {
        Ok(done) => match engine.store.delete_keepsake(lease, &key).await {
            Ok(()) => done,
            Err(error) => (SinkOutcome::Failed, Report::from(error).message),
        },
        Err(why) => (SinkOutcome::Failed, why),
    };
    SinkResult {
        destination,
        name: name.to_owned(),
        outcome,
        message,
        on_failure,
        remembered: true,
    }
}

/// After an apply of everything: takes back what earlier runs wrote and this config declares no
/// more, as when a resource left the config. Where no sink of this config leads to its destination
/// any more it is left there, which is said once, with what to do about it.
pub async fn revoke_forgotten(
    engine: &Engine<'_>,
    lease: &Lease,
    sinks: &Sinks,
) -> Vec<SinkResult> {
    let declared: BTreeSet<String> = declarations(engine.config)
        .filter_map(|declaration| {
            let target = sinks.get(&declaration.target)?;
            Some(keepsake_key(&target.destination(), &declaration.name))
        })
        .collect();
    let keys = match engine.store.keepsakes().await {
        Ok(keys) => keys,
        Err(error) => {
            engine.reporter.note(format!(
                "What earlier runs wrote to sinks cannot be looked up: {error}. The next apply looks again."
            ));
            return Vec::new();
        }
    };
    let mut results = Vec::new();
    let mut others = None;
    for key in keys {
        let Some((destination, name)) = key
            .strip_prefix("sink/")
            .filter(|_| !declared.contains(&key))
            .and_then(|rest| rest.rsplit_once('/'))
        else {
            continue;
        };
        let target = sinks
            .values()
            .find(|target| target.destination() == destination);
        let result = match target {
            Some(target) => {
                let asked = match others.take() {
                    Some(asked) => asked,
                    None => Others::ask(engine).await,
                };
                let what = (name, OnFailure::Warn);
                let result = remove(engine, lease, &asked, target.as_ref(), what).await;
                others = Some(asked);
                result
            }
            None => SinkResult {
                destination: destination.to_owned(),
                name: name.to_owned(),
                outcome: SinkOutcome::Skipped,
                message: match engine.store.delete_keepsake(lease, &key).await {
                    Ok(()) => left_there(destination, name),
                    Err(error) => Report::from(error).message,
                },
                on_failure: OnFailure::Warn,
                remembered: true,
            },
        };
        say(engine, &result);
        results.push(result);
    }
    results
}

/// Why a value stays where nothing of the config leads any more, and how to remove it.
fn left_there(destination: &str, name: &str) -> String {
    let by_hand = destination.strip_prefix("github_secret ").map_or_else(
        || format!("take `{name}` out of it"),
        |place| match place.split_once(" (environment ") {
            Some((repo, rest)) => format!(
                "run `gh secret delete {name} --repo {repo} --env {}`",
                rest.strip_suffix(')').unwrap_or(rest)
            ),
            None => format!("run `gh secret delete {name} --repo {place}`"),
        },
    );
    format!(
        "an earlier config wrote this and no sink leads there any more, so it is still there; {by_hand}"
    )
}

/// What [`remove_all`] would take out again: destination and name of everything declared that an earlier
/// run wrote.
pub async fn written(engine: &Engine<'_>, sinks: &Sinks) -> Vec<(String, String)> {
    let mut written = Vec::new();
    for declaration in declarations(engine.config) {
        let Some(target) = sinks.get(&declaration.target) else {
            continue;
        };
        let destination = target.destination();
        let key = keepsake_key(&destination, &declaration.name);
        if matches!(engine.store.keepsake(&key).await, Ok(Some(_))) {
            written.push((destination, declaration.name.clone()));
        }
    }
    written.sort();
    written.dedup();
    written
}

/// After destroy: takes every declared value out of its destination again.
pub async fn remove_all(engine: &Engine<'_>, lease: &Lease, sinks: &Sinks) -> Vec<SinkResult> {
    for sink in sinks.values() {
        sink.clean_up();
    }
    let declarations = declarations(engine.config);
    let others = Others::ask(engine).await;
    let mut results = Vec::new();
    let mut handled = BTreeSet::new();
    for declaration in declarations {
        let Some(target) = sinks.get(&declaration.target) else {
            continue;
        };
        let key = keepsake_key(&target.destination(), &declaration.name);
        // Only what an earlier run wrote is removed; somebody else's value of that name stays.
        let written = matches!(engine.store.keepsake(&key).await, Ok(Some(_)));
        handled.insert(key.clone());
        if !written {
            continue;
        }
        let what = (declaration.name.as_str(), declaration.on_failure);
        let result = remove(engine, lease, &others, target.as_ref(), what).await;
        say(engine, &result);
        results.push(result);
    }
    let keys = match engine.store.keepsakes().await {
        Ok(keys) => keys,
        Err(error) => {
            engine.reporter.note(format!(
                "What earlier configs wrote to sinks cannot be looked up: {error}. It is left there."
            ));
            Vec::new()
        }
    };
    for key in keys {
        if let Some(rest) = key.strip_prefix("sink/")
            && !handled.contains(&key)
        {
            let mut message = rest.rsplit_once('/').map_or_else(
                || "an earlier config wrote this, so it is left there".to_owned(),
                |(destination, name)| left_there(destination, name),
            );
            if let Err(error) = engine.store.delete_keepsake(lease, &key).await {
                message = Report::from(error).message;
            }
            results.push(SinkResult {
                destination: rest.to_owned(),
                name: String::new(),
                outcome: SinkOutcome::Skipped,
                message,
                on_failure: OnFailure::Warn,
                remembered: true,
            });
        }
    }
    for result in &results {
        if !result.message.is_empty() {
            say(engine, result);
        }
    }
    results
}
