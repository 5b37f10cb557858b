//! Everything a provider may do beyond driving resources, as far as it says that it can.
//!
//! Each scenario runs only where its service is advertised, and with a resource that is there.

use std::collections::{BTreeMap, BTreeSet};

use tonic::{Code, Status};

use super::life::Stage;
use super::process::{PACKAGE, origin, registered};
use super::work::{discover, jobs, logs, map_requirements, repair};
use super::{Book, ensure, said};
use crate::Error;
use crate::iac::ia_c_provider_credential_revoker_client::IaCProviderCredentialRevokerClient;
use crate::iac::ia_c_provider_drift_config_detector_client::IaCProviderDriftConfigDetectorClient;
use crate::iac::ia_c_provider_drift_detector_client::IaCProviderDriftDetectorClient;
use crate::iac::ia_c_provider_enumerator_client::IaCProviderEnumeratorClient;
use crate::iac::ia_c_provider_finalizer_client::IaCProviderFinalizerClient;
use crate::iac::ia_c_provider_ownership_client::IaCProviderOwnershipClient;
use crate::iac::ia_c_provider_region_lister_client::IaCProviderRegionListerClient;
use crate::iac::ia_c_provider_required_client::IaCProviderRequiredClient;
use crate::iac::ia_c_provider_validator_client::IaCProviderValidatorClient;
use crate::iac::{self, ResourceOutput};
use crate::noun::map_from;

/// A name that nobody gives to anything.
pub(super) const NOBODY: &str = "conformance-nobody";

/// A client of one service over the stage's connection.
macro_rules! client {
    ($stage:expr, $client:ident) => {
        $client::with_origin($stage.channel.clone(), origin()).max_decoding_message_size(usize::MAX)
    };
}
pub(super) use client;

/// Runs the scenarios of every advertised service.
pub(super) async fn scenarios(stage: &Stage<'_>, made: &ResourceOutput, book: &mut Book) {
    let served = match registered(&stage.channel).await {
        Ok(names) => names,
        Err(why) => {
            book.check("the registry answers", async { Err(why) }).await;
            return;
        }
    };
    let serves = |service: &str| served.contains(&format!("{PACKAGE}{service}"));
    macro_rules! when {
        ($service:literal, $name:literal, $scenario:ident) => {
            if serves($service) {
                let name = format!("{}: {}", stage.sample.kind, $name);
                book.check(name, $scenario(stage, made)).await;
            }
        };
    }
    when!("IaCProviderRequired", "its status is told", status);
    when!(
        "IaCProviderRequired",
        "sizes resolve, or cannot be resolved",
        sizing
    );
    when!(
        "IaCProviderRequired",
        "import finds it by its id, and nothing by another",
        import
    );
    when!(
        "IaCProviderRequired",
        "bootstrapping the state twice is once",
        bootstrap
    );
    when!("IaCProviderEnumerator", "enumerating finds it", enumerate);
    when!(
        "IaCProviderDriftDetector",
        "drift tells what is there from what is gone",
        drift
    );
    when!(
        "IaCProviderDriftConfigDetector",
        "drift of a config is seen",
        drift_config
    );
    when!(
        "IaCProviderCredentialRevoker",
        "a credential is revoked twice as once",
        revoke
    );
    when!(
        "IaCProviderRegionLister",
        "there is a region, and none is there twice",
        regions
    );
    when!(
        "IaCProviderOwnership",
        "an owner is set, found, and taken back",
        ownership
    );
    when!(
        "IaCProviderFinalizer",
        "finishing twice is no failure",
        finalize
    );
    when!("IaCProviderValidator", "a plan is remarked upon", validate);
    when!("IaCProviderLogCapture", "a log ends", logs);
    when!(
        "IaCProviderRunner",
        "a job runs to its end, and nobody's is not found",
        jobs
    );
    when!(
        "IaCProviderMigrationRepairer",
        "nothing is repaired without a confirmation",
        repair
    );
    when!(
        "IaCProviderRequirementMapper",
        "every need is taken or refused",
        map_requirements
    );
    when!(
        "IaCRequirementDiscovery",
        "needs have keys of their own",
        discover
    );
}

/// An answer, or that this cannot be done.
fn or_cannot<T>(answer: Result<T, Status>, what: &str) -> Result<Option<T>, String> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(said(what)(status)),
    }
}

/// A failure with a reason, and not that the service is missing: it is advertised.
pub(super) fn refused<T>(answer: Result<T, Status>, what: &str) -> Result<(), String> {
    match answer {
        Ok(_) => Err(format!("{what} was done")),
        Err(status) => ensure(
            status.code() != Code::Unimplemented && !status.message().is_empty(),
            || said(what)(status),
        ),
    }
}

pub(super) fn distinct<'a>(
    what: &str,
    names: impl Iterator<Item = &'a String>,
) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        ensure(seen.insert(name), || {
            format!("{what} {name:?} is there twice")
        })?;
    }
    Ok(())
}

async fn status(stage: &Stage<'_>, made: &ResourceOutput) -> Result<(), String> {
    let request = iac::StatusRequest {
        refs: vec![stage.reference(&made.provider_id)],
    };
    let rows = client!(stage, IaCProviderRequiredClient)
        .status(request)
        .await
        .map_err(said("Status"))?
        .into_inner()
        .statuses;
    let [row] = rows.as_slice() else {
        return Err(format!("one was asked about, {} are told", rows.len()));
    };
    ensure(row.provider_id == made.provider_id, || {
        format!("its id is {:?}", row.provider_id)
    })?;
    ensure(!row.status.is_empty(), || "its status is empty".to_owned())
}

async fn sizing(stage: &Stage<'_>, _: &ResourceOutput) -> Result<(), String> {
    let request = iac::ResolveSizingRequest {
        resource_type: stage.sample.kind.clone(),
        size: "m".to_owned(),
        hints: Some(iac::ResourceHints {
            cpu: "1".to_owned(),
            ..iac::ResourceHints::default()
        }),
    };
    let answer = client!(stage, IaCProviderRequiredClient)
        .resolve_sizing(request)
        .await;
    let Some(answer) = or_cannot(answer, "ResolveSizing")? else {
        return Ok(());
    };
    if let Some(sizing) = answer.into_inner().sizing {
        ensure(!sizing.instance_type.is_empty(), || {
            "the size has no instance type".to_owned()
        })?;
        map_from(&sizing.specs_json, "specs_json").map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn import(stage: &Stage<'_>, made: &ResourceOutput) -> Result<(), String> {
    let request = |provider_id: &str| iac::ImportRequest {
        provider_id: provider_id.to_owned(),
        resource_type: stage.sample.kind.clone(),
    };
    let mut provider = client!(stage, IaCProviderRequiredClient);
    let answer = provider.import(request(&made.provider_id)).await;
    let Some(answer) = or_cannot(answer, "Import")? else {
        return Ok(());
    };
    let state = answer.into_inner().state.ok_or("the answer has no state")?;
    ensure(state.provider_id == made.provider_id, || {
        format!("its id is {:?}", state.provider_id)
    })?;
    map_from(&state.outputs_json, "outputs_json").map_err(|error| error.to_string())?;
    match provider.import(request(NOBODY)).await {
        Ok(_) => Err("what is not there was imported".to_owned()),
        Err(status) => ensure(Error::from_status(&status).is_not_found(), || {
            said("Import")(status)
        }),
    }
}

async fn bootstrap(stage: &Stage<'_>, _: &ResourceOutput) -> Result<(), String> {
    let Some(settings) = &stage.conformance.bootstrap else {
        return Ok(());
    };
    let mut provider = client!(stage, IaCProviderRequiredClient);
    let mut made = Vec::new();
    for _ in 0..2 {
        let request = iac::BootstrapStateBackendRequest {
            config_json: settings.to_string().into_bytes(),
        };
        let answer = provider
            .bootstrap_state_backend(request)
            .await
            .map_err(said("BootstrapStateBackend"))?;
        made.push(answer.into_inner().result.ok_or("it made nothing")?);
    }
    ensure(!made[0].bucket.is_empty(), || {
        "it names no bucket".to_owned()
    })?;
    ensure(made[0] == made[1], || {
        "the second time it made something else".to_owned()
    })
}

async fn enumerate(stage: &Stage<'_>, made: &ResourceOutput) -> Result<(), String> {
    let mut enumerator = client!(stage, IaCProviderEnumeratorClient);
    let request = iac::EnumerateAllRequest {
        resource_type: stage.sample.kind.clone(),
    };
    let found = enumerator
        .enumerate_all(request)
        .await
        .map_err(said("EnumerateAll"))?
        .into_inner()
        .outputs;
    let mine = found
        .iter()
        .filter(|output| output.provider_id == made.provider_id)
        .count();
    ensure(mine == 1, || format!("it is there {mine} times"))?;
    for output in &found {
        ensure(output.r#type == stage.sample.kind, || {
            format!("it also lists a {:?}", output.r#type)
        })?;
        map_from(&output.outputs_json, "outputs_json").map_err(|error| error.to_string())?;
    }
    let request = iac::EnumerateByTagRequest {
        tag: NOBODY.to_owned(),
    };
    let tagged = enumerator
        .enumerate_by_tag(request)
        .await
        .map_err(said("EnumerateByTag"))?
        .into_inner()
        .refs;
    ensure(tagged.is_empty(), || {
        format!("{} resources have a tag nobody gave", tagged.len())
    })
}

/// One verdict for each of what was asked about, under its name.
fn verdicts(
    found: Vec<iac::DriftResult>,
    asked: &[iac::ResourceRef],
) -> Result<Vec<iac::DriftClass>, String> {
    let names: Vec<&str> = found.iter().map(|verdict| verdict.name.as_str()).collect();
    let wanted: Vec<&str> = asked.iter().map(|one| one.name.as_str()).collect();
    ensure(names == wanted, || {
        format!("asked about {wanted:?}, it tells of {names:?}")
    })?;
    Ok(found.iter().map(iac::DriftResult::class).collect())
}

async fn drift(stage: &Stage<'_>, made: &ResourceOutput) -> Result<(), String> {
    let gone = iac::ResourceRef {
        name: NOBODY.to_owned(),
        r#type: stage.sample.kind.clone(),
        provider_id: NOBODY.to_owned(),
    };
    let refs = vec![stage.reference(&made.provider_id), gone];
    let request = iac::DetectDriftRequest { refs: refs.clone() };
    let found = client!(stage, IaCProviderDriftDetectorClient)
        .detect_drift(request)
        .await
        .map_err(said("DetectDrift"))?
        .into_inner()
        .drifts;
    let classes = verdicts(found, &refs)?;
    ensure(
        classes == [iac::DriftClass::InSync, iac::DriftClass::Ghost],
        || format!("of what is there and what is gone it says {classes:?}"),
    )
}

async fn drift_config(stage: &Stage<'_>, made: &ResourceOutput) -> Result<(), String> {
    let refs = vec![stage.reference(&made.provider_id)];
    let mut detector = client!(stage, IaCProviderDriftConfigDetectorClient);
    let mut wishes = vec![(&stage.sample.config, iac::DriftClass::InSync)];
    wishes.extend(
        stage
            .sample
            .changed
            .as_ref()
            .map(|changed| (changed, iac::DriftClass::Config)),
    );
    for (config, expected) in wishes {
        let specs = BTreeMap::from([(stage.sample.name.clone(), stage.spec(config))]);
        let request = iac::DetectDriftConfigRequest {
            refs: refs.clone(),
            specs,
        };
        let found = detector
            .detect_drift_config(request)
            .await
            .map_err(said("DetectDriftConfig"))?
            .into_inner()
            .drifts;
        let fields = found.first().map_or(0, |verdict| verdict.fields.len());
        let classes = verdicts(found, &refs)?;
        ensure(classes == [expected], || {
            format!("of {config} it says {classes:?}")
        })?;
        ensure(
            (expected == iac::DriftClass::Config) == (fields > 0),
            || format!("{expected:?}, and {fields} fields are named"),
        )?;
    }
    Ok(())
}

async fn revoke(stage: &Stage<'_>, _: &ResourceOutput) -> Result<(), String> {
    let mut revoker = client!(stage, IaCProviderCredentialRevokerClient);
    let mut answers = Vec::new();
    for _ in 0..2 {
        let request = iac::RevokeProviderCredentialRequest {
            source: "conformance".to_owned(),
            credential_id: NOBODY.to_owned(),
        };
        // A source that it does not know it may refuse, with a reason.
        let answer = revoker.revoke_provider_credential(request).await;
        if answer.is_err() {
            refused(answer, "RevokeProviderCredential")?;
            answers.push(false);
        } else {
            answers.push(true);
        }
    }
    ensure(answers[0] == answers[1], || {
        "the second time the answer is another".to_owned()
    })
}

async fn regions(stage: &Stage<'_>, _: &ResourceOutput) -> Result<(), String> {
    let request = iac::ListRegionsRequest {
        env_name: String::new(),
    };
    let regions = client!(stage, IaCProviderRegionListerClient)
        .list_regions(request)
        .await
        .map_err(said("ListRegions"))?
        .into_inner()
        .regions;
    // Hosts leave blank names out.
    let named: Vec<&String> = regions
        .iter()
        .map(|region| &region.name)
        .filter(|name| !name.trim().is_empty())
        .collect();
    ensure(!named.is_empty(), || "there is none".to_owned())?;
    distinct("the region", named.into_iter())
}

async fn ownership(stage: &Stage<'_>, made: &ResourceOutput) -> Result<(), String> {
    let reference = || Some(stage.reference(&made.provider_id));
    let mut owners = client!(stage, IaCProviderOwnershipClient);
    let before = owners
        .get_owner(iac::GetOwnerRequest { r#ref: reference() })
        .await
        .map_err(said("GetOwner"))?
        .into_inner()
        .owner;
    // Twice: it must be idempotent.
    for owner in [NOBODY, NOBODY, &before] {
        let request = iac::SetOwnerRequest {
            r#ref: reference(),
            owner: owner.to_owned(),
        };
        owners.set_owner(request).await.map_err(said("SetOwner"))?;
        let now = owners
            .get_owner(iac::GetOwnerRequest { r#ref: reference() })
            .await
            .map_err(said("GetOwner"))?
            .into_inner()
            .owner;
        ensure(now == owner, || {
            format!("it was given to {owner:?} and is {now:?}'s")
        })?;
        let request = iac::ListOwnersRequest {
            owner: NOBODY.to_owned(),
            resource_type: stage.sample.kind.clone(),
        };
        let owned = owners
            .list_owners(request)
            .await
            .map_err(said("ListOwners"))?
            .into_inner()
            .resources;
        let expected = usize::from(owner == NOBODY);
        ensure(owned.len() == expected, || {
            format!("{} are {NOBODY}'s, not {expected}", owned.len())
        })?;
    }
    Ok(())
}

async fn finalize(stage: &Stage<'_>, _: &ResourceOutput) -> Result<(), String> {
    for _ in 0..2 {
        let request = iac::FinalizeApplyRequest {
            plan_id: "conformance".to_owned(),
        };
        let errors = client!(stage, IaCProviderFinalizerClient)
            .finalize_apply(request)
            .await
            .map_err(said("FinalizeApply"))?
            .into_inner()
            .errors;
        if let Some(error) = errors.first() {
            return Err(format!(
                "nothing was left to finish, and {}/{} is said to have failed: {}",
                error.resource, error.action, error.error
            ));
        }
    }
    Ok(())
}

async fn validate(stage: &Stage<'_>, _: &ResourceOutput) -> Result<(), String> {
    let request = iac::ValidatePlanRequest {
        plan: Some(iac::IaCPlan {
            id: "conformance".to_owned(),
            actions: vec![iac::PlanAction {
                action: "create".to_owned(),
                resource: Some(stage.spec(&stage.sample.config)),
                ..iac::PlanAction::default()
            }],
            ..iac::IaCPlan::default()
        }),
    };
    let remarks = client!(stage, IaCProviderValidatorClient)
        .validate_plan(request)
        .await
        .map_err(said("ValidatePlan"))?
        .into_inner()
        .diagnostics;
    for remark in &remarks {
        ensure(!remark.message.trim().is_empty(), || {
            "a remark says nothing".to_owned()
        })?;
        ensure(
            remark.resource.is_empty() || remark.resource == stage.sample.name,
            || {
                format!(
                    "it remarks on {:?}, which is not in the plan",
                    remark.resource
                )
            },
        )?;
        ensure(
            remark.severity() != iac::PlanDiagnosticSeverity::PlanDiagnosticError,
            || format!("it refuses the sample: {}", remark.message),
        )?;
    }
    Ok(())
}
