//! Whose a resource is, at providers that keep owners: what is somebody else's is neither changed nor
//! deleted, and what we make or change becomes ours.

use futures_util::StreamExt as _;

use super::survey::Survey;
use super::teardown::Target;
use super::{ApplyReport, Engine, hold};
use crate::plan::Action;
use crate::provider::ability::Ability;
use crate::provider::{DriverError, DriverResult, ErrorClass, Provider};
use crate::report::{Outcome, Report};
use crate::resource::{ActionKind, Kind, ProviderId, Recorded};
use crate::state::Lease;

/// On whose behalf a run works.
#[derive(Clone, Debug, Default)]
pub struct Owner {
    /// Who; empty for nobody in particular.
    pub name: String,
    /// What is somebody else's is taken all the same.
    pub force: bool,
}

/// Something that is there already and becomes ours before it is changed.
pub type Claim = (ProviderId, Recorded);

/// The provider that keeps the owner of such a resource, if any does. Zones belong to whoever owns the
/// domain.
fn keeper<'e>(engine: &'e Engine<'_>, id: &ProviderId, kind: &Kind) -> Option<&'e dyn Provider> {
    let provider = engine.providers.get(id)?;
    let keeps = provider.abilities().contains(&Ability::Ownership);
    (keeps && !super::presence::is_shared(kind)).then_some(provider.as_ref())
}

/// Looks whose everything is that the plan changes or deletes. Answers what is nobody's yet and is to
/// be claimed before it is changed.
///
/// # Errors
/// One report for each resource that is somebody else's, or of which that cannot be told.
pub async fn check(
    engine: &Engine<'_>,
    survey: &Survey,
    owner: &Owner,
) -> Result<Vec<Claim>, Vec<Report>> {
    let there = survey.plan.actions.iter().filter_map(|action| {
        let is_touched = !matches!(action.action, ActionKind::NoOp | ActionKind::Create);
        let prior = survey
            .priors
            .get(&action.address)
            .filter(|prior| is_touched && !prior.provider_id.is_empty())?;
        let keeper = keeper(engine, &action.provider, &action.kind)?;
        Some((action, prior, keeper))
    });
    let looks: Vec<Result<Option<Claim>, Report>> = futures_util::stream::iter(there)
        .map(|(action, prior, keeper)| look(keeper, action, prior, owner))
        .buffered(engine.parallelism.max(1))
        .collect()
        .await;
    engine.cancel.go_on().map_err(|problem| vec![problem])?;
    let (mut claims, mut problems) = (Vec::new(), Vec::new());
    for looked in looks {
        match looked {
            Ok(claim) => claims.extend(claim),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(claims)
    } else {
        Err(problems)
    }
}

async fn look(
    keeper: &dyn Provider,
    action: &Action,
    prior: &Recorded,
    owner: &Owner,
) -> Result<Option<Claim>, Report> {
    let verb = match action.action {
        ActionKind::Delete => "deleted",
        ActionKind::Replace => "replaced",
        ActionKind::Update | ActionKind::Create | ActionKind::NoOp => "changed",
    };
    let is_ours = permit(keeper, prior, owner, verb).await?;
    // A replaced one is claimed as what it will be; a deleted one needs no owner.
    let becomes_ours = action.action == ActionKind::Update && !owner.name.is_empty() && !is_ours;
    Ok(becomes_ours.then(|| (action.provider.clone(), prior.clone())))
}

/// Whose it is, empty for nobody's; `None` where nobody keeps that: it is gone, or the service is not
/// there after all.
async fn whose(keeper: &dyn Provider, prior: &Recorded) -> DriverResult<Option<String>> {
    match keeper.owner(prior).await {
        Ok(said) => Ok(Some(said.owner)),
        Err(error)
            if matches!(
                error.class,
                ErrorClass::NotFound | ErrorClass::Unimplemented
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn is_somebody_elses(said: &str, owner: &Owner) -> bool {
    !said.is_empty() && said != owner.name && !owner.force
}

/// Whether it is ours already.
///
/// # Errors
/// When it is somebody else's, or when that cannot be told.
async fn permit(
    keeper: &dyn Provider,
    prior: &Recorded,
    owner: &Owner,
    verb: &str,
) -> Result<bool, Report> {
    let address = &prior.address;
    let said = match whose(keeper, prior).await {
        Ok(Some(said)) => said,
        // There is nothing to be claimed either.
        Ok(None) => return Ok(true),
        Err(error) => {
            return Err(Report::error(
                "apply/owner-unknown",
                format!("whose `{address}` is cannot be told, so it is not touched"),
            )
            .because(told(&error))
            .fix("nothing was changed; remove the cause, then run the command again"));
        }
    };
    if is_somebody_elses(&said, owner) {
        return Err(Report::error(
            "apply/owned",
            format!("`{address}` belongs to `{said}` and is not {verb}"),
        )
        .because(if owner.name.is_empty() {
            "this run works for nobody in particular".to_owned()
        } else {
            format!("this run works for `{}`", owner.name)
        })
        .fix(format!(
            "if that is you: `--owner {said}`, or WORKFLOW_RESOURCE_OWNER"
        ))
        .fix("to take it over: `--owner` with your own name, and `--force-owner`"));
    }
    Ok(said == owner.name)
}

/// For one recorded resource that is about to be changed outside of a plan: it is ours, or nobody's and
/// becomes ours.
///
/// # Errors
/// When it is somebody else's, or that cannot be told, or it could not be claimed.
pub(super) async fn admit(
    engine: &Engine<'_>,
    lease: &Lease,
    id: &ProviderId,
    prior: &Recorded,
    owner: &Owner,
    verb: &str,
) -> Result<(), Report> {
    let Some(keeper) = keeper(engine, id, &prior.kind) else {
        return Ok(());
    };
    let is_ours = permit(keeper, prior, owner, verb).await?;
    if is_ours || owner.name.is_empty() {
        return Ok(());
    }
    claim_one(engine, lease, id, prior, owner).await
}

/// Of live resources that are about to be deleted without a plan: those that may go, and those that stay,
/// each with one clause that says why.
pub async fn sort(
    engine: &Engine<'_>,
    targets: Vec<Target>,
    owner: &Owner,
) -> (Vec<Target>, Vec<(Target, String)>) {
    let looked: Vec<(Target, Option<String>)> = futures_util::stream::iter(targets)
        .map(|target| async move {
            let why = objection(engine, &target, owner).await;
            (target, why)
        })
        .buffered(engine.parallelism.max(1))
        .collect()
        .await;
    let (mut go, mut stay) = (Vec::new(), Vec::new());
    for (target, why) in looked {
        match why {
            None => go.push(target),
            Some(why) => stay.push((target, why)),
        }
    }
    (go, stay)
}

async fn objection(engine: &Engine<'_>, target: &Target, owner: &Owner) -> Option<String> {
    let keeper = keeper(engine, &target.provider, &target.kind)?;
    match whose(keeper, &target.prior).await {
        Ok(said) => said
            .filter(|said| is_somebody_elses(said, owner))
            .map(|said| format!("it belongs to `{said}`")),
        Err(error) => Some(format!("whose it is cannot be told: {}", told(&error))),
    }
}

fn told(error: &DriverError) -> String {
    format!("{} ({})", error.message, error.class.word())
}

/// Makes what is there ours, before it is changed.
///
/// # Errors
/// The first that could not be claimed: nothing of the plan was begun.
pub async fn claim(
    engine: &Engine<'_>,
    lease: &Lease,
    claims: &[Claim],
    owner: &Owner,
) -> Result<(), Report> {
    for (id, prior) in claims {
        engine.cancel.go_on()?;
        claim_one(engine, lease, id, prior, owner).await?;
    }
    Ok(())
}

/// Makes ours what this run has made. It is there and on record by now, so a failure is only told.
pub async fn claim_made(
    engine: &Engine<'_>,
    lease: &Lease,
    report: &ApplyReport,
    owner: &Owner,
) -> Vec<Report> {
    let mut problems = Vec::new();
    if owner.name.is_empty() || report.lost_lock {
        return problems;
    }
    for action in &report.actions {
        let is_new = matches!(action.action, ActionKind::Create | ActionKind::Replace);
        if let Some(made) = &action.made
            && is_new
            && action.outcome == Outcome::Success
            && let Err(mut problem) = claim_one(engine, lease, &action.provider, made, owner).await
        {
            problem.severity = crate::report::Severity::Warning;
            problems.push(problem);
        }
    }
    problems
}

async fn claim_one(
    engine: &Engine<'_>,
    lease: &Lease,
    id: &ProviderId,
    resource: &Recorded,
    owner: &Owner,
) -> Result<(), Report> {
    let Some(keeper) = keeper(engine, id, &resource.kind) else {
        return Ok(());
    };
    let failed = |why: String| {
        Report::error(
            "apply/not-claimed",
            format!(
                "`{}` could not be marked as belonging to `{}`",
                resource.address, owner.name
            ),
        )
        .because(why)
        .fix("remove the cause; it is marked when it is changed the next time")
    };
    hold::prove(engine, lease)
        .await
        .map_err(|error| failed(error.to_string()))?;
    match keeper.set_owner(resource, &owner.name).await {
        Ok(()) => Ok(()),
        Err(error) if error.class == ErrorClass::Unimplemented => Ok(()),
        Err(error) => Err(failed(told(&error))),
    }
}
