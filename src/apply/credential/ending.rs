//! The end of credentials: those that were replaced, those that cannot be used, and all of them
//! when an environment goes.

use super::account::{Label, load, save};
use super::{look, operation, said};
use crate::apply::Engine;
use crate::apply::hold::prove;
use crate::provider::ErrorClass;
use crate::provider::ability::Ability;
use crate::report::Report;
use crate::resource::{Address, Recorded};
use crate::state::Lease;

/// Revokes what was replaced, of these credentials. What cannot be revoked is said and tried again
/// by the next run: the new one is in place, so it is no failure.
pub async fn retire(
    engine: &Engine<'_>,
    lease: &Lease,
    which: impl Fn(&str) -> bool,
) -> Vec<Report> {
    let mut problems = Vec::new();
    for item in &engine.config.credentials {
        if !which(&item.key) {
            continue;
        }
        let retired = async {
            let mut account = load(engine, &item.key).await?;
            if account.retiring.is_empty() {
                return Ok(());
            }
            for label in std::mem::take(&mut account.retiring) {
                if let Err(why) = end(engine, lease, &label).await {
                    problems.push(not_revoked(&item.key, &label, &why));
                    account.retiring.push(label);
                }
            }
            save(engine, lease, &item.key, &account)
                .await
                .map_err(Report::from)
        };
        if let Err(problem) = retired.await {
            problems.push(problem);
        }
    }
    problems
}

/// After destroy: revokes everything a keepsake tells of. Answers what could not be.
pub(in crate::apply) async fn end_all(
    engine: &Engine<'_>,
    lease: &Lease,
    key: &str,
) -> Result<(), Vec<Report>> {
    let mut account = load(engine, key).await.map_err(|problem| vec![problem])?;
    if let Some(asked) = account.asked.take() {
        let mut label = asked.label.clone();
        let driver = engine
            .driver(
                &Address::new(label.name.clone()),
                &label.provider,
                &label.kind,
            )
            .map_err(|problem| vec![problem])?;
        match look(driver, &label.name, &label.kind).await {
            Ok(Some(found)) if asked.made(&found) => {
                label.provider_id = found.provider_id;
                account.retiring.push(label);
            }
            // Somebody else's, by now or all along.
            Ok(_) => {}
            Err(error) => return Err(vec![not_revoked(key, &label, &said(&error))]),
        }
    }
    let made = [account.current.take(), account.fresh.take()];
    account
        .retiring
        .extend(made.into_iter().flatten().map(|made| made.label));
    let mut problems = Vec::new();
    for label in std::mem::take(&mut account.retiring) {
        if let Err(why) = end(engine, lease, &label).await {
            problems.push(not_revoked(key, &label, &why));
            account.retiring.push(label);
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    if let Err(error) = save(engine, lease, key, &account).await {
        problems.push(Report::from(error));
    }
    Err(problems)
}

/// Ends one, through the provider's own way to revoke where it has one. Gone already is success.
pub async fn end(engine: &Engine<'_>, lease: &Lease, label: &Label) -> Result<(), String> {
    let Some(provider) = engine.providers.get(&label.provider) else {
        return Err(format!(
            "this config declares no provider module `{}`",
            label.provider
        ));
    };
    prove(engine, lease)
        .await
        .map_err(|error| format!("nothing was asked for, because the lock is not sure: {error}"))?;
    let ended = if provider.abilities().contains(&Ability::RevokeCredential) {
        provider
            .revoke_credential(&label.source, &label.provider_id)
            .await
    } else {
        let Some(driver) = provider.driver(&label.kind) else {
            return Err(format!("`{}` has no type `{}`", label.provider, label.kind));
        };
        let mut prior = Recorded::by_name(Address::new(label.name.clone()), label.kind.clone());
        prior.provider_id.clone_from(&label.provider_id);
        driver.delete(&operation(engine, lease), &prior).await
    };
    match ended {
        Ok(()) => Ok(()),
        Err(error) if error.class == ErrorClass::NotFound => Ok(()),
        Err(error) => Err(said(&error)),
    }
}

pub(super) fn not_revoked(key: &str, label: &Label, why: &str) -> Report {
    Report::warning(
        "credential/not-revoked",
        format!(
            "the credential `{}` of the secret `{key}` could not be revoked and still works",
            label.name
        ),
    )
    .because(why.to_owned())
    .fix("the next run tries again; or remove it at the provider")
}
