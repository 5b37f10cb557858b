//! Credentials that a provider makes (`secrets.generate`, type `provider_credential`): made by the
//! driver of their type, kept sealed beside the records, handed to their stores from memory.
//!
//! Promises: the old one ends only after the new one is kept, stored and, where resources or sinks
//! use it, handed to them; a new one that cannot be stored ends at once and the old one stays; what
//! was asked for is remembered before it is asked for, so a run that is killed leaves none behind.

mod account;
mod ending;

use std::collections::BTreeSet;

use super::Engine;
use super::hold::prove;
use super::secrets::{SecretStores, remove_stored, write};
use super::values::{Declared, Values};
use crate::clock::rfc3339;
use crate::config::{Config, Credential, GenerateSource, Half};
use crate::provider::{Driver, DriverError, ErrorClass, Operation, Provider};
use crate::random::hex_of;
use crate::report::{Event, Exit, Report};
use crate::resource::{
    Address, Kind, Observed, Output, Part, ProviderId, Recorded, Spec, Value, public_map,
};
use crate::secret::Secret;
use crate::state::Lease;
use account::{Account, Asked, Made, load, open, place, save};
pub(super) use account::{KEEPSAKE, kept};
pub use account::{Label, Standing, in_use, standing};
pub(super) use ending::end_all;
use ending::not_revoked;
pub use ending::{end, retire};

/// The provider module and the resource type behind a source such as `digitalocean.spaces`.
pub fn maker<'a>(
    engine: &Engine<'a>,
    item: &Credential,
) -> Result<(&'a ProviderId, &'a dyn Provider, Kind), Report> {
    let unknown = |why: String| {
        Report::error(
            "credential/unknown-source",
            format!(
                "no provider of this config makes the credential `{}`",
                item.key
            ),
        )
        .at(item.at.clone())
        .because(why)
        .fix("write `source: MODULE.what` with a declared `iac.provider` module that makes such credentials")
        .exit(Exit::Usage)
    };
    let (who, what) = item.source.split_once('.').unwrap_or((&item.source, ""));
    let mut named = Vec::new();
    for (id, provider) in engine.providers {
        let declared = engine.config.providers.get(id);
        if id.as_str() == who {
            named = vec![(id, provider)];
            break;
        }
        if declared.is_some_and(|declared| declared.provider == who) {
            named.push((id, provider));
        }
    }
    let (id, provider) = match named.as_slice() {
        [one] => *one,
        [] => return Err(unknown(format!("none is called or of type `{who}`"))),
        _ => {
            return Err(unknown(format!(
                "several are of type `{who}`; name the module"
            )));
        }
    };
    let kinds = provider.kinds();
    let candidates = [
        what.to_owned(),
        format!("infra.{what}_key"),
        format!("infra.{what}"),
    ];
    candidates
        .iter()
        .map(|word| Kind::new(word.clone()))
        .find(|kind| kinds.contains(kind))
        .map(|kind| (id, provider.as_ref(), kind))
        .ok_or_else(|| {
            unknown(format!(
                "`{id}` has none of the resource types `{}`",
                candidates.join("`, `")
            ))
        })
}

/// True when resources or sinks hold the credential: they get the new one with an apply, and until
/// then the old one must work.
pub fn is_used(config: &Config, key: &str) -> bool {
    let sinks = config.generate.iter().any(|item| {
        matches!(&item.source, GenerateSource::ProviderCredential { credential, .. } if credential == key)
            && !item.sinks.is_empty()
    });
    let names = Half::BOTH.map(|half| half.of(key));
    sinks
        || config.resources.iter().any(|resource| {
            resource
                .config
                .values()
                .any(|value| mentions(value, &names))
        })
}

fn mentions(value: &Value, names: &[String]) -> bool {
    match value {
        Value::Template(template) => template
            .parts
            .iter()
            .any(|part| matches!(part, Part::Declared(name) if names.contains(name))),
        Value::List(items) => items.iter().any(|item| mentions(item, names)),
        Value::Map(map) => map.values().any(|item| mentions(item, names)),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Secret(_)
        | Value::Unknown(_) => false,
    }
}

/// Makes a new one in place of the one in use, and puts it into its store. The old one is left to
/// [`retire`].
pub async fn rotate(
    engine: &Engine<'_>,
    lease: &Lease,
    item: &Credential,
    values: &mut Values,
    stores: &SecretStores,
) -> Result<(), Report> {
    ensure(engine, lease, item, true, values, stores)
        .await
        .map(drop)
}

/// Settles what a dead run left of this credential, makes a new one if `wanted`, and puts it into
/// its store. True when one was made. Whatever fails, the one that was in use still is.
pub(super) async fn ensure(
    engine: &Engine<'_>,
    lease: &Lease,
    item: &Credential,
    wanted: bool,
    values: &mut Values,
    stores: &SecretStores,
) -> Result<bool, Report> {
    let mut account = load(engine, &item.key).await?;
    if account.asked.is_some() {
        settle(engine, lease, item, &mut account).await?;
    }
    let mut made = false;
    if wanted && account.fresh.is_none() {
        make(engine, lease, item, &mut account).await?;
        made = true;
    }
    if account.fresh.is_some() {
        keep(engine, lease, item, &mut account, values, stores).await?;
        made = true;
    }
    Ok(made)
}

/// A run was cut off between asking and writing down the answer. What it made is ours, nobody has
/// its secret any more, and so it goes. What may be somebody else's stays, and is said.
async fn settle(
    engine: &Engine<'_>,
    lease: &Lease,
    item: &Credential,
    account: &mut Account,
) -> Result<(), Report> {
    let Some(asked) = account.asked.take() else {
        return Ok(());
    };
    let mut label = asked.label.clone();
    let driver = engine.driver(
        &Address::new(label.name.clone()),
        &label.provider,
        &label.kind,
    )?;
    match look(driver, &label.name, &label.kind).await {
        Ok(Some(found)) if asked.made(&found) => {
            label.provider_id = found.provider_id;
            engine.reporter.note(format!(
                "An earlier run was cut off while the credential `{}` was made: it is revoked, since nobody holds its secret.",
                item.key
            ));
            if let Err(why) = end(engine, lease, &label).await {
                say(engine, not_revoked(&item.key, &label, &why));
                account.retiring.push(label);
            }
        }
        Ok(Some(_)) => say(
            engine,
            Report::warning(
                "credential/unsettled",
                format!(
                    "an earlier run was cut off while it asked for the credential `{}`, and one of that name is there",
                    label.name
                ),
            )
            .because("when it was made does not show that it is ours, so it is left alone")
            .fix("if nobody uses it, remove it at the provider"),
        ),
        Ok(None) => {}
        Err(error) if cannot_look(&error) => say(
            engine,
            Report::warning(
                "credential/unsettled",
                format!(
                    "an earlier run was cut off while it asked for the credential `{}`",
                    label.name
                ),
            )
            .because("the provider cannot be asked whether it was made")
            .fix("look for it at the provider and remove it; nobody holds its secret"),
        ),
        Err(error) => {
            return Err(Report::error(
                "credential/unsettled",
                format!(
                    "an earlier run was cut off while it asked for the credential `{}`, and whether it was made cannot be looked up",
                    label.name
                ),
            )
            .at(item.at.clone())
            .because(said(&error))
            .fix("remove the cause, then run the command again"));
        }
    }
    save(engine, lease, &item.key, account)
        .await
        .map_err(Report::from)
}

/// The credential of that name, if there is one.
async fn look(
    driver: &dyn Driver,
    name: &str,
    kind: &Kind,
) -> Result<Option<Observed>, DriverError> {
    if !driver.can_adopt(kind) {
        return Err(DriverError::new(
            ErrorClass::Unimplemented,
            "it cannot look up by name",
        ));
    }
    let by_name = Recorded::by_name(Address::new(name), kind.clone());
    match driver.read(&by_name).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.class == ErrorClass::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn cannot_look(error: &DriverError) -> bool {
    matches!(error.class, ErrorClass::Unimplemented | ErrorClass::Invalid)
}

/// Asks for a new one. On return it is kept, and not stored yet.
async fn make(
    engine: &Engine<'_>,
    lease: &Lease,
    item: &Credential,
    account: &mut Account,
) -> Result<(), Report> {
    let (provider, _, kind) = maker(engine, item)?;
    let driver = engine.driver(&Address::new(item.name.clone()), provider, &kind)?;
    let fresh_name = || format!("{}-{}", item.name, hex_of::<4>(engine.random.as_ref()));
    let name = match look(driver, &item.name, &kind).await {
        Ok(None) => item.name.clone(),
        Ok(Some(found)) if is_ours(account, &found.provider_id) => fresh_name(),
        Ok(Some(_)) => {
            return Err(Report::error(
                "credential/exists",
                format!(
                    "provider `{provider}` has a credential `{}` that this state knows nothing of",
                    item.name
                ),
            )
            .at(item.at.clone())
            .because("the secret of a credential is shown once, when it is made, so it cannot be taken over")
            .fix("choose another `name`, or remove that credential at the provider if nobody uses it"));
        }
        Err(error) if cannot_look(&error) => fresh_name(),
        Err(error) => return Err(not_made(item, account, &error)),
    };
    let asked = Label {
        provider: provider.clone(),
        kind: kind.clone(),
        source: item.source.clone(),
        name: name.clone(),
        provider_id: String::new(),
    };
    account.asked = Some(Asked {
        label: asked.clone(),
        at: rfc3339(engine.clock.now()),
        by_chance: asked.name != item.name,
    });
    save(engine, lease, &item.key, account)
        .await
        .map_err(Report::from)?;
    let mut config = item.config.clone();
    config.insert("name".to_owned(), Value::String(name.clone()));
    let spec = Spec {
        address: Address::new(name),
        kind,
        public_config: public_map(&config, &engine.keyring),
        config,
        dependencies: BTreeSet::new(),
    };
    prove(engine, lease).await.map_err(Report::from)?;
    let observed = match driver.create(&operation(engine, lease), &spec).await {
        Ok(observed) => observed,
        Err(error) => {
            let report = not_made(item, account, &error);
            if let Some(partial) = error.partial {
                let half_made = Label {
                    provider_id: partial.provider_id,
                    ..asked
                };
                give_up(engine, lease, item, account, half_made).await;
            } else if !matches!(error.class, ErrorClass::Unknown | ErrorClass::Transient) {
                account.asked = None;
                save(engine, lease, &item.key, account)
                    .await
                    .map_err(Report::from)?;
            }
            return Err(report);
        }
    };
    let label = Label {
        provider_id: observed.provider_id,
        ..asked
    };
    let halves = Half::BOTH.map(|half| {
        text_of(engine, item, observed.outputs.get(half.word()), half).map(|secret| {
            engine.keyring.seal(
                engine.random.as_ref(),
                &place(engine, &half.of(&item.key)),
                &secret,
            )
        })
    });
    let [Some(access_key), Some(secret_key)] = halves else {
        give_up(engine, lease, item, account, label).await;
        return Err(Report::error(
            "credential/not-made",
            format!(
                "what provider `{provider}` made for `{}` has not both an `access_key` and a `secret_key`",
                item.key
            ),
        )
        .at(item.at.clone())
        .because("it was revoked again; what was in use before still is"));
    };
    let created_at = match observed.outputs.get("created_at") {
        Some(Output::Public(serde_json::Value::String(text))) => text.clone(),
        _ => rfc3339(engine.clock.now()),
    };
    account.asked = None;
    account.fresh = Some(Made {
        label: label.clone(),
        created_at,
        access_key,
        secret_key,
    });
    if let Err(error) = save(engine, lease, &item.key, account).await {
        account.fresh = None;
        give_up(engine, lease, item, account, label).await;
        return Err(Report::from(error));
    }
    Ok(())
}

fn is_ours(account: &Account, id: &str) -> bool {
    account
        .current
        .iter()
        .map(|made| &made.label)
        .chain(&account.retiring)
        .any(|label| label.provider_id == id)
}

/// A half, known to the masker.
fn text_of(
    engine: &Engine<'_>,
    item: &Credential,
    output: Option<&Output>,
    half: Half,
) -> Option<Secret> {
    let secret = match output? {
        Output::Sensitive(secret) => secret.clone(),
        Output::Public(serde_json::Value::String(text)) => {
            engine.masker.admit(&half.of(&item.key), text.clone())
        }
        Output::Public(_) => return None,
    };
    (!secret.is_empty()).then_some(secret)
}

/// Revokes one that cannot be used, and remembers it where that fails too.
async fn give_up(
    engine: &Engine<'_>,
    lease: &Lease,
    item: &Credential,
    account: &mut Account,
    label: Label,
) {
    account.asked = None;
    if let Err(why) = end(engine, lease, &label).await {
        say(engine, not_revoked(&item.key, &label, &why));
        account.retiring.push(label);
    }
    if let Err(error) = save(engine, lease, &item.key, account).await {
        say(engine, Report::from(error));
    }
}

/// Puts the fresh one into its store and into use.
async fn keep(
    engine: &Engine<'_>,
    lease: &Lease,
    item: &Credential,
    account: &mut Account,
    values: &mut Values,
    stores: &SecretStores,
) -> Result<(), Report> {
    let Some(fresh) = account.fresh.take() else {
        return Ok(());
    };
    let mut halves = Vec::new();
    for half in Half::BOTH {
        halves.push((half.of(&item.key), open(engine, &item.key, &fresh, half)?));
    }
    let store = store_of(engine, &item.key);
    if let Some(store) = store {
        let mut tried = Vec::new();
        for (name, secret) in &halves {
            tried.push(name.as_str());
            if let Err(problem) = write(engine, lease, stores, store, name, secret).await {
                let report = Report::error(
                    "credential/not-stored",
                    format!(
                        "the new credential `{}` could not be put into the store `{store}`",
                        item.key
                    ),
                )
                .at(item.at.clone())
                .because(problem.message)
                .because(if account.current.is_some() {
                    "the new one was revoked; the old one stays where it is and works"
                } else {
                    "it was revoked again"
                })
                .fix("remove the cause, then run the command again");
                take_back(engine, lease, item, account, stores, (store, &tried)).await;
                for half in Half::BOTH {
                    let before = account
                        .current
                        .as_ref()
                        .map(|made| open(engine, &item.key, made, half));
                    values.set_declared(
                        &half.of(&item.key),
                        match before {
                            Some(Ok(secret)) => Declared::Known(secret),
                            _ => Declared::Pending,
                        },
                    );
                }
                give_up(engine, lease, item, account, fresh.label).await;
                return Err(report);
            }
        }
    }
    if let Some(old) = account.current.take() {
        account.retiring.push(old.label);
    }
    account.current = Some(fresh);
    save(engine, lease, &item.key, account)
        .await
        .map_err(Report::from)?;
    for (name, secret) in halves {
        values.set_declared(&name, Declared::Known(secret));
    }
    Ok(())
}

fn store_of<'a>(engine: &Engine<'a>, key: &str) -> Option<&'a str> {
    engine.config.generate.iter().find_map(|item| {
        matches!(&item.source, GenerateSource::ProviderCredential { credential, .. } if credential == key)
            .then(|| item.store.as_deref())
            .flatten()
    })
}

/// Puts the old halves back where the new ones were tried, so that no store holds half of each.
async fn take_back(
    engine: &Engine<'_>,
    lease: &Lease,
    item: &Credential,
    account: &Account,
    stores: &SecretStores,
    (store, tried): (&str, &[&str]),
) {
    for half in Half::BOTH {
        let name = half.of(&item.key);
        if !tried.contains(&name.as_str()) {
            continue;
        }
        let put_back = async {
            let Some(old) = &account.current else {
                let removed = remove_stored(engine, lease, stores, store, &name).await;
                return removed.map(drop);
            };
            // What the store holds after a failed write is not known, whatever we remember.
            let mark = format!("store/{store}/{name}");
            engine
                .store
                .delete_keepsake(lease, &mark)
                .await
                .map_err(Report::from)?;
            let old = open(engine, &item.key, old, half)?;
            let written = write(engine, lease, stores, store, &name, &old).await;
            written.map(drop)
        };
        if let Err(problem) = put_back.await {
            say(
                engine,
                Report::warning(
                    "credential/not-put-back",
                    format!("what the store `{store}` holds as `{name}` is not known"),
                )
                .because(problem.message)
                .fix("the next run puts it right; run it when the store works again"),
            );
        }
    }
}

fn operation(engine: &Engine<'_>, lease: &Lease) -> Operation {
    Operation {
        id: format!(
            "{}-{}",
            lease.holder.run_id,
            hex_of::<8>(engine.random.as_ref())
        ),
        environment: engine.config.environment.clone(),
    }
}

fn said(error: &DriverError) -> String {
    format!("{} ({})", error.message, error.class.word())
}

fn say(engine: &Engine<'_>, report: Report) {
    engine.reporter.say(Event::Problem(Box::new(report)));
}

fn not_made(item: &Credential, account: &Account, error: &DriverError) -> Report {
    Report::error(
        "credential/not-made",
        format!("the credential `{}` could not be made", item.key),
    )
    .at(item.at.clone())
    .because(said(error))
    .because(if account.current.is_some() {
        "the one in use was not touched and works as before"
    } else {
        "nothing was stored"
    })
    .fix("remove the cause, then run the command again")
}
