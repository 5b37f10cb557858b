//! Saved plans in a run: what a plan is bound to, whether that still holds, and that it is applied
//! once.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Engine;
use super::survey::Survey;
use crate::clock::rfc3339;
use crate::plan::file::{
    Binding, FileError, SavedAction, SavedPlan, Unverified, desired_hash, differences, lines,
};
use crate::random::{encode_hex, hex_of};
use crate::report::{Exit, Report};
use crate::resource::{ActionKind, PublicMap};
use crate::state::{Keepsake, Lease, Record};
use crate::variables::Variables;

/// Keepsakes of applied plans: `plan/<expiry>/<id>`.
const KEEPSAKE: &str = "plan/";
/// How far a clock may lag behind the one that made the plan.
const CLOCK_SKEW: time::Duration = time::Duration::minutes(10);
/// Reasons shown; more are counted.
const REASONS: usize = 50;

/// What a plan made now is bound to. `lockfile` is the content of the file beside the config.
pub async fn binding(
    engine: &Engine<'_>,
    variables: &Variables,
    lockfile: Option<&[u8]>,
) -> Result<Binding, Report> {
    let head = engine.store.head().await.map_err(Report::from)?;
    let (lineage, serial) = head.map_or_else(Default::default, |head| (head.lineage, head.serial));
    Ok(Binding {
        environment: engine.config.environment.clone(),
        config: engine.config.digest.clone(),
        lineage,
        serial,
        lockfile: lockfile.map(|bytes| encode_hex(&Sha256::digest(bytes))),
        providers: engine
            .providers
            .iter()
            .map(|(id, provider)| {
                (
                    id.as_str().to_owned(),
                    format!("{} {}", provider.name(), provider.version()),
                )
            })
            .collect(),
        inputs: inputs(engine, variables),
    })
}

/// The keyed fingerprint of every variable the config asks for and that is set.
pub fn inputs(engine: &Engine<'_>, variables: &Variables) -> BTreeMap<String, String> {
    engine
        .config
        .variables
        .iter()
        .filter_map(|name| {
            let value = variables.get(name)?;
            Some((name.clone(), engine.keyring.fingerprint_text(value)))
        })
        .collect()
}

/// A name for a plan that nobody saved, or that is about to be.
pub fn plan_id(engine: &Engine<'_>) -> String {
    format!("plan-{}", hex_of::<16>(engine.random.as_ref()))
}

/// The survey's plan, ready to be saved.
///
/// # Errors
/// When what is desired cannot be told any more.
pub fn save(
    engine: &Engine<'_>,
    survey: &Survey,
    binding: Binding,
    valid_for: std::time::Duration,
) -> Result<SavedPlan, Report> {
    let now = engine.clock.now();
    Ok(SavedPlan {
        id: survey.id.clone(),
        created_at: rfc3339(now),
        expires_at: rfc3339(now + valid_for),
        desired_hash: desired_hash(survey.desired_of_all(engine))?,
        include: survey.scope.names(),
        binding,
        actions: actions(survey),
    })
}

fn actions(survey: &Survey) -> Vec<SavedAction> {
    survey
        .plan
        .actions
        .iter()
        .filter(|action| action.action != ActionKind::NoOp)
        .map(|action| SavedAction {
            config: survey
                .desired
                .get(&action.address)
                .map(|spec| spec.public_config.clone())
                .unwrap_or_default(),
            current: survey.records.get(&action.address).map(current),
            action: action.clone(),
        })
        .collect()
}

/// A record under the names that upstream's plan files use. Sensitive outputs are references in a
/// record already.
fn current(record: &Record) -> PublicMap {
    let value = serde_json::json!({
        "id": record.resource_id,
        "name": record.resource_id,
        "type": record.resource_type,
        "provider": record.provider,
        "provider_ref": record.provider_ref,
        "provider_id": record.provider_id,
        "config_hash": record.config_hash,
        "applied_config": record.config,
        "applied_config_source": record.tidegate.applied_config_source,
        "outputs": record.outputs,
        "dependencies": record.dependencies,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
    });
    match value {
        serde_json::Value::Object(map) => map,
        _ => PublicMap::new(),
    }
}

/// A file that cannot be applied, as a problem.
pub fn unusable(path: &str, error: &FileError) -> Report {
    let (code, fix) = match error {
        FileError::NotAPlan(_) => ("plan/unreadable", "name a file that `infra plan -o` wrote"),
        FileError::Unbound => ("plan/unbound", "make the plan anew with `infra plan -o`"),
        FileError::Newer { .. } => ("plan/newer", "use the version that wrote it"),
        FileError::Altered => (
            "plan/altered",
            "make the plan anew with `infra plan -o`; change the config, not the plan",
        ),
    };
    Report::error(
        code,
        format!("the plan `{path}` cannot be applied: {error}"),
    )
    .fix(fix)
    .exit(Exit::Usage)
}

/// Believes a file, or says everything that moved since it was made.
///
/// # Errors
/// `plan/altered`, or `plan/stale` with every reason.
pub async fn check(
    engine: &Engine<'_>,
    path: &str,
    unverified: Unverified,
    now: &Binding,
) -> Result<SavedPlan, Report> {
    let claims = unverified.claims();
    let mut reasons = claims.binding.moved(now);
    let at = engine.clock.now();
    match (parse(&claims.created_at), parse(&claims.expires_at)) {
        (Some(made), Some(expires)) => {
            if at > expires {
                reasons.push(format!("time: it expired at {}", rfc3339(expires)));
            } else if made > at + CLOCK_SKEW {
                reasons.push(format!(
                    "time: it was made at {}, which this machine's clock has not reached",
                    rfc3339(made)
                ));
            }
        }
        _ => reasons.push("time: it does not say until when it is valid".to_owned()),
    }
    if let Some(used) = engine
        .store
        .keepsake(&keepsake_key(claims))
        .await
        .map_err(Report::from)?
    {
        reasons.push(format!("use: it was applied at {}", used.written_at));
    }
    // Another state has another key, so its plans do not verify here: say which state, not "edited".
    let elsewhere = claims.binding.lineage != now.lineage;
    let verified = unverified.verify(&engine.keyring);
    match verified {
        Err(error) if !elsewhere => Err(unusable(path, &error)),
        Ok(plan) if reasons.is_empty() => Ok(plan),
        _ => Err(stale(path, reasons)),
    }
}

/// Compares what would be done now with what was saved.
///
/// # Errors
/// `plan/stale` with every resource that differs.
pub fn compare(
    engine: &Engine<'_>,
    path: &str,
    saved: &SavedPlan,
    survey: &Survey,
) -> Result<(), Report> {
    let mut reasons = differences(
        &lines(&saved.actions, &engine.masker),
        &lines(&actions(survey), &engine.masker),
    );
    if reasons.is_empty() && saved.desired_hash != desired_hash(survey.desired_of_all(engine))? {
        reasons.push("config: what is desired is not what the plan was made for".to_owned());
    }
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(stale(path, reasons))
    }
}

fn stale(path: &str, mut reasons: Vec<String>) -> Report {
    reasons.sort_unstable();
    let mut report = Report::error(
        "plan/stale",
        format!("the plan `{path}` no longer fits; nothing was changed"),
    );
    let more = reasons.len().saturating_sub(REASONS);
    reasons.truncate(REASONS);
    report.because = reasons;
    if more > 0 {
        report = report.because(format!("and {more} more"));
    }
    report
        .fix("make the plan anew with `infra plan -o`, look at it, and apply that")
        .exit(Exit::Locked)
}

/// Remembers that the plan is being applied: it never is a second time, whatever comes of it.
/// Written before the first effect.
pub async fn consume(engine: &Engine<'_>, lease: &Lease, plan: &SavedPlan) -> Result<(), Report> {
    let now = engine.clock.now();
    // A plan that has expired is refused for that; nobody needs to remember its use any longer.
    let long_ago = now - time::Duration::days(7);
    for key in engine.store.keepsakes().await.map_err(Report::from)? {
        let expired = key
            .strip_prefix(KEEPSAKE)
            .and_then(|rest| rest.split_once('/'))
            .and_then(|(expires, _)| parse(expires))
            .is_some_and(|expires| expires < long_ago);
        if expired {
            engine
                .store
                .delete_keepsake(lease, &key)
                .await
                .map_err(Report::from)?;
        }
    }
    let keepsake = Keepsake {
        fingerprint: plan.desired_hash.clone(),
        sealed: None,
        written_at: rfc3339(now),
    };
    engine
        .store
        .put_keepsake(lease, &keepsake_key(plan), &keepsake)
        .await
        .map_err(Report::from)
}

fn keepsake_key(plan: &SavedPlan) -> String {
    format!("{KEEPSAKE}{}/{}", plan.expires_at, plan.id)
}

fn parse(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}
