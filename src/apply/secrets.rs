//! Declared secrets during a run. Generated ones are made once and kept sealed beside the records,
//! so that a later run can hand them out again even when the store they were written to cannot be
//! read (GitHub's cannot). Entries are fetched from stores that can.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::sinks::SinkResult;
use super::survey::{Survey, by_address, dependencies};
use super::values::{Declared, Values};
use super::{Engine, checked, credential};
use crate::clock::rfc3339;
use crate::config::{GenerateSource, Half, OnFailure};
use crate::plan::Scope;
use crate::report::{Event, Exit, Report, SinkOutcome};
use crate::resource::{Lookup, Observed, Output, Reference, Resolver as _, Spec, Value};
use crate::secret::source::SecretStore;
use crate::secret::{Secret, generate as make};
use crate::state::record::{Applied, from_observed};
use crate::state::{Keepsake, Lease};

/// Opened stores by name.
pub type SecretStores = BTreeMap<String, Arc<dyn SecretStore>>;

fn keepsake_key(name: &str) -> String {
    format!("secret/{name}")
}

/// A kept value belongs to one environment and one name, and opens nowhere else.
fn place(engine: &Engine<'_>, name: &str) -> String {
    format!("{}/secret/{name}", engine.config.environment)
}

/// What is known before anything is made: kept values are opened, entries are fetched, the rest
/// waits. No effect.
pub async fn known(engine: &Engine<'_>, stores: &SecretStores) -> Result<Values, Vec<Report>> {
    let mut declared = BTreeMap::new();
    let mut problems = Vec::new();
    for item in &engine.config.generate {
        let value = match &item.source {
            GenerateSource::InfraOutput { address, field } => Declared::Output(Reference {
                address: address.clone(),
                field: field.clone(),
            }),
            GenerateSource::RandomHex { .. }
            | GenerateSource::RandomBase64 { .. }
            | GenerateSource::RandomAlphanumeric { .. }
            | GenerateSource::ProviderCredential { .. } => {
                let kept = match &item.source {
                    GenerateSource::ProviderCredential { credential, half } => {
                        credential::kept(engine, credential, *half).await
                    }
                    _ => kept(engine, &item.key).await,
                };
                match kept {
                    Ok(Some(secret)) => Declared::Known(secret),
                    Ok(None) => Declared::Pending,
                    Err(problem) => {
                        problems.push(problem.at(item.at.clone()));
                        continue;
                    }
                }
            }
        };
        declared.insert(item.key.clone(), value);
    }
    for entry in &engine.config.entries {
        let fetched = match stores.get(&entry.store) {
            Some(store) => store.get(&entry.name).await,
            None => Err(Report::error(
                "secret/unknown-store",
                format!(
                    "the secret `{}` names the store `{}`, which is not declared",
                    entry.name, entry.store
                ),
            )),
        };
        match fetched {
            Ok(Some(secret)) => {
                declared.insert(entry.name.clone(), Declared::Known(secret));
            }
            Ok(None) => problems.push(
                Report::error(
                    "secret/missing",
                    format!(
                        "the secret `{}` is not in the store `{}`",
                        entry.name, entry.store
                    ),
                )
                .at(entry.at.clone())
                .fix(
                    match stores
                        .get(&entry.store)
                        .and_then(|store| store.place_of(&entry.name))
                    {
                        Some(place) => {
                            format!("give it in {place}, or take the entry out of the config")
                        }
                        None => "put it there, or take the entry out of the config".to_owned(),
                    },
                )
                .exit(Exit::Usage),
            ),
            Err(problem) => problems.push(problem.at_maybe(Some(entry.at.clone()))),
        }
    }
    if problems.is_empty() {
        Ok(Values::new(declared, engine.masker.clone()))
    } else {
        Err(problems)
    }
}

async fn kept(engine: &Engine<'_>, name: &str) -> Result<Option<Secret>, Report> {
    let Some(keepsake) = engine
        .store
        .keepsake(&keepsake_key(name))
        .await
        .map_err(Report::from)?
    else {
        return Ok(None);
    };
    let Some(sealed) = keepsake.sealed else {
        return Ok(None);
    };
    engine
        .keyring
        .open(&engine.masker, &place(engine, name), &sealed)
        .map(Some)
        .map_err(|error| {
            Report::error(
                "state/sealed",
                format!("the kept secret `{name}` cannot be opened: {error}"),
            )
            .fix("use the state key this state was written with (TIDEGATE_STATE_KEY, or the store's key file)")
        })
}

/// What came of [`generate`].
#[derive(Debug, Default)]
pub struct Generated {
    /// Names of what was made.
    pub made: Vec<String>,
    /// Names of what was written to its store, be it made now or before.
    pub stored: Vec<String>,
    /// What could not be made or stored, by name. What was made is kept all the same, and the next
    /// run writes it to its store.
    pub problems: Vec<(String, Report)>,
}

/// Makes every generated secret that does not exist yet. It is kept (sealed, durable) before it is
/// written to its store, so a crash between the two repeats the write with the same value. A store
/// that cannot be written keeps no other from being written.
pub async fn generate(
    engine: &Engine<'_>,
    lease: &Lease,
    values: &mut Values,
    stores: &SecretStores,
) -> Result<Generated, Report> {
    let mut all = Generated::default();
    for item in &engine.config.generate {
        if !matches!(
            values.declared_secrets().get(&item.key),
            Some(Declared::Pending)
        ) {
            continue;
        }
        let random = engine.random.as_ref();
        let secret = match item.source {
            GenerateSource::RandomHex { length } => {
                make::random_hex(random, &engine.masker, &item.key, length)
            }
            GenerateSource::RandomBase64 { length } => {
                make::random_base64(random, &engine.masker, &item.key, length)
            }
            GenerateSource::RandomAlphanumeric { length } => {
                make::random_alphanumeric(random, &engine.masker, &item.key, length)
            }
            GenerateSource::InfraOutput { .. } | GenerateSource::ProviderCredential { .. } => {
                continue;
            }
        };
        let keepsake = Keepsake {
            fingerprint: engine.keyring.fingerprint(&secret),
            sealed: Some(
                engine
                    .keyring
                    .seal(random, &place(engine, &item.key), &secret),
            ),
            written_at: rfc3339(engine.clock.now()),
        };
        engine
            .store
            .put_keepsake(lease, &keepsake_key(&item.key), &keepsake)
            .await
            .map_err(Report::from)?;
        values.set_declared(&item.key, Declared::Known(secret));
        all.made.push(item.key.clone());
    }
    for item in &engine.config.credentials {
        let wanted = Half::BOTH.iter().any(|half| {
            let declared = values.declared_secrets().get(&half.of(&item.key));
            matches!(declared, Some(Declared::Pending))
        });
        match credential::ensure(engine, lease, item, wanted, values, stores).await {
            Ok(true) => all.made.push(item.key.clone()),
            Ok(false) => {}
            Err(problem) => {
                all.problems.push((item.key.clone(), problem));
                return Ok(all);
            }
        }
    }
    for item in &engine.config.generate {
        let (Some(name), Some(Declared::Known(secret))) =
            (&item.store, values.declared_secrets().get(&item.key))
        else {
            continue;
        };
        match write(engine, lease, stores, name, &item.key, secret).await {
            Ok(true) => all.stored.push(item.key.clone()),
            Ok(false) => {}
            Err(problem) => {
                let problem = problem.at_maybe(Some(item.at.clone()));
                all.problems.push((item.key.clone(), problem));
            }
        }
    }
    Ok(all)
}

/// Writes one value to a store unless that very value was written there before. True when it was
/// written now.
pub(super) async fn write(
    engine: &Engine<'_>,
    lease: &Lease,
    stores: &SecretStores,
    store: &str,
    key: &str,
    secret: &Secret,
) -> Result<bool, Report> {
    let mark = format!("store/{store}/{key}");
    let fingerprint = engine.keyring.fingerprint(secret);
    let before = engine.store.keepsake(&mark).await.map_err(Report::from)?;
    let is_written = before.is_some_and(|before| before.fingerprint == fingerprint);
    if is_written {
        // A store that can be read is looked at: what was lost there is put back. What somebody put
        // there instead is theirs.
        let there = match stores.get(store) {
            Some(target) => target.get(key).await,
            None => return Ok(false),
        };
        match there {
            Ok(None) => engine.reporter.note(format!(
                "The secret `{key}` is gone from the store `{store}`; it is written there again."
            )),
            Ok(Some(value)) if engine.keyring.fingerprint(&value) != fingerprint => {
                let warning = Report::warning(
                    "secret/store-differs",
                    format!(
                        "the store `{store}` holds another value of `{key}` than was written there"
                    ),
                )
                .because(
                    "this environment goes on with its own value, and leaves the store's alone",
                )
                .fix(format!(
                    "remove it from the store, and the next `tidegate up` writes it again; or run \
                     `tidegate infra bootstrap --force-rotate {key}` for a new one"
                ));
                engine
                    .reporter
                    .say(crate::report::Event::Problem(Box::new(warning)));
                return Ok(false);
            }
            Ok(Some(_)) | Err(_) => return Ok(false),
        }
    }
    let Some(target) = stores.get(store) else {
        return Err(Report::error(
            "secret/unknown-store",
            format!("the secret `{key}` names the store `{store}`, which is not declared"),
        ));
    };
    target.set(key, secret).await?;
    engine
        .store
        .put_keepsake(
            lease,
            &mark,
            &Keepsake {
                fingerprint,
                sealed: None,
                written_at: rfc3339(engine.clock.now()),
            },
        )
        .await
        .map_err(Report::from)?;
    Ok(true)
}

/// Takes one value out of a store, and forgets that it was there. Answers why it stays, when it does.
pub(super) async fn remove_stored(
    engine: &Engine<'_>,
    lease: &Lease,
    stores: &SecretStores,
    store: &str,
    name: &str,
) -> Result<Option<&'static str>, Report> {
    let mark = format!("store/{store}/{name}");
    let mut stays = None;
    let written = engine.store.keepsake(&mark).await.map_err(Report::from)?;
    match stores.get(store) {
        Some(target) => match target.get(name).await {
            Ok(Some(value))
                if written.is_some_and(|written| {
                    written.fingerprint != engine.keyring.fingerprint(&value)
                }) =>
            {
                stays =
                    Some("it holds another value than this environment wrote, so it stays there");
            }
            Ok(_) | Err(_) => target.remove(name).await?,
        },
        None => {
            return Err(Report::error(
                "secret/unknown-store",
                format!(
                    "the secret `{name}` was written to the store `{store}`, which this config no longer declares; it is still there"
                ),
            ));
        }
    }
    engine
        .store
        .delete_keepsake(lease, &mark)
        .await
        .map_err(Report::from)?;
    Ok(stays)
}

/// What [`remove_generated`] would take out of secret stores: store and name of all that earlier runs
/// wrote there.
///
/// # Errors
/// When the state cannot be read.
pub async fn stored(engine: &Engine<'_>) -> Result<Vec<(String, String)>, Report> {
    let keys = engine.store.keepsakes().await.map_err(Report::from)?;
    let places = keys.iter().filter_map(|key| stored_at(key));
    Ok(places
        .map(|(store, name)| (store.to_owned(), name.to_owned()))
        .collect())
}

/// Store and name, of a key that remembers a value in a store.
fn stored_at(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("store/")?.split_once('/')
}

/// A secret store, as the place something is taken out of.
pub fn store_place(store: &str) -> String {
    format!("secret store {store}")
}

/// After apply: copies outputs into stores for `infra_output` secrets. Every problem is collected;
/// the resources are made already, so one failure does not hide another.
pub async fn copy_outputs(
    engine: &Engine<'_>,
    lease: &Lease,
    values: &Values,
    stores: &SecretStores,
    scope: &Scope,
    problems: &mut Vec<Report>,
) {
    for item in &engine.config.generate {
        if !super::sinks::is_within(item, scope) {
            continue;
        }
        let (GenerateSource::InfraOutput { .. }, Some(store)) = (&item.source, &item.store) else {
            continue;
        };
        let result = match values.declared(&item.key) {
            Ok(Lookup::Known(Value::Secret(secret))) => {
                let written = write(engine, lease, stores, store, &item.key, &secret).await;
                written.map(drop)
            }
            Ok(Lookup::Known(_)) => Err(Report::error(
                "secret/not-text",
                format!(
                    "the secret `{}` copies an output that is not text",
                    item.key
                ),
            )),
            // Its resource failed or was skipped, which is said already.
            Ok(Lookup::Unknown) | Err(super::values::ValueError::NoSuchResource { .. }) => continue,
            Err(error) => Err(Report::error("config/reference", error.to_string())),
        };
        if let Err(problem) = result {
            problems.push(problem.at_maybe(Some(item.at.clone())));
        }
    }
}

/// Writes again the records of unchanged resources whose outputs changed their declared
/// sensitivity, so that state never keeps in the clear what the config now calls sensitive; and of
/// those whose provider module goes by another name now.
pub async fn reseal(engine: &Engine<'_>, lease: &Lease, survey: &Survey) -> Result<(), Report> {
    let resources = by_address(engine);
    for address in &survey.resealed {
        let (Some(resource), Some(prior), Some(record)) = (
            resources.get(address),
            survey.priors.get(address),
            survey.records.get(address),
        ) else {
            continue;
        };
        let spec = Spec {
            address: address.clone(),
            kind: prior.kind.clone(),
            config: crate::resource::Map::new(),
            public_config: prior.config.clone(),
            dependencies: if survey.scope.includes(address) {
                dependencies(resource, survey.values.declared_secrets())
            } else {
                prior.dependencies.clone()
            },
        };
        if resource.protected != record.tidegate.protected {
            engine.reporter.say(Event::Note {
                text: format!(
                    "`{address}` is {} from now on.",
                    if resource.protected {
                        "protected"
                    } else {
                        "not protected any more"
                    }
                ),
            });
        }
        let observed = Observed {
            provider_id: prior.provider_id.clone(),
            outputs: prior.outputs.clone(),
            status: prior.status.clone(),
            private: prior.private.clone(),
        };
        let again = from_observed(
            &Applied {
                environment: &engine.config.environment,
                provider: &record.provider,
                // It may have another name by now.
                provider_ref: resource.provider.as_str(),
                spec: &spec,
                observed: &observed,
                source: &record.tidegate.applied_config_source,
                protected: resource.protected,
                adopted: record.tidegate.adopted,
                error: &record.error,
                prior: Some(record),
            },
            &engine.keyring,
            engine.random.as_ref(),
        );
        engine
            .store
            .put(lease, &again)
            .await
            .map_err(Report::from)?;
    }
    Ok(())
}

/// After destroy: forgets every kept secret, and removes from stores what was written there.
/// Answers what became of each value in a store, and what went wrong.
pub async fn remove_generated(
    engine: &Engine<'_>,
    lease: &Lease,
    stores: &SecretStores,
) -> (Vec<SinkResult>, Vec<Report>) {
    let mut taken = Vec::new();
    let mut problems = Vec::new();
    let keys = match engine.store.keepsakes().await {
        Ok(keys) => keys,
        Err(error) => return (taken, vec![Report::from(error)]),
    };
    for key in keys {
        if let Some((store, name)) = stored_at(&key) {
            let (outcome, message) = match remove_stored(engine, lease, stores, store, name).await {
                Ok(None) => (SinkOutcome::Removed, String::new()),
                Ok(Some(why)) => (SinkOutcome::Skipped, why.to_owned()),
                Err(problem) => {
                    let message = problem.message.clone();
                    problems.push(problem);
                    (SinkOutcome::Failed, message)
                }
            };
            let result = SinkResult {
                destination: store_place(store),
                name: name.to_owned(),
                outcome,
                message,
                on_failure: OnFailure::Warn,
                remembered: true,
            };
            // A failure is told with what to do about it, as a problem.
            if outcome != SinkOutcome::Failed {
                super::sinks::say(engine, &result);
            }
            taken.push(result);
            continue;
        }
        if let Some(name) = key.strip_prefix(credential::KEEPSAKE) {
            if let Err(left) = credential::end_all(engine, lease, name).await {
                problems.extend(left);
                continue;
            }
        } else if !key.starts_with("secret/") && key != checked::KEEPSAKE {
            continue;
        }
        if let Err(error) = engine.store.delete_keepsake(lease, &key).await {
            problems.push(Report::from(error));
        }
    }
    (taken, problems)
}

/// One sink value: what it is called in messages, and the value if it is known.
pub(super) fn value_of(values: &Values, key: &str) -> Option<Secret> {
    match values.declared(key) {
        Ok(Lookup::Known(Value::Secret(secret))) => Some(secret),
        _ => None,
    }
}

/// The sensitive output behind a sink, as a secret; `None` when its resource is not there.
pub(super) fn output_of(
    engine: &Engine<'_>,
    values: &Values,
    address: &crate::resource::Address,
    field: &str,
) -> Option<Secret> {
    match values.output(address, field)?.into_owned() {
        Output::Sensitive(secret) => Some(secret),
        Output::Public(value) => {
            let text = match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            Some(engine.masker.admit(&format!("{address}.{field}"), text))
        }
    }
}
