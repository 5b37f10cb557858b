//! What a provider does beside resources: logs, jobs, repairs, and what an application needs.

use std::time::Duration;

use tonic::Streaming;

use super::ability::{NOBODY, client, distinct, refused};
use super::life::Stage;
use super::process::origin;
use super::{ensure, said};
use crate::iac::ia_c_provider_log_capture_client::IaCProviderLogCaptureClient;
use crate::iac::ia_c_provider_migration_repairer_client::IaCProviderMigrationRepairerClient;
use crate::iac::ia_c_provider_requirement_mapper_client::IaCProviderRequirementMapperClient;
use crate::iac::ia_c_provider_runner_client::IaCProviderRunnerClient;
use crate::iac::ia_c_requirement_discovery_client::IaCRequirementDiscoveryClient;
use crate::iac::{self, ResourceOutput};
use crate::noun::map_from;

/// How long a job or a log may take to end.
const ENOUGH: Duration = Duration::from_secs(20);

/// Reads a log as hosts do: to its end, or to the piece that says it is the last.
async fn read_log(mut log: Streaming<iac::LogChunk>) -> Result<(), String> {
    let reading = async {
        while let Some(piece) = log.message().await.map_err(said("the log"))? {
            if piece.eof {
                break;
            }
        }
        Ok(())
    };
    tokio::time::timeout(ENOUGH, reading)
        .await
        .map_err(|_| format!("it has no end within {} s", ENOUGH.as_secs()))?
}

pub(super) async fn logs(stage: &Stage<'_>, made: &ResourceOutput) -> Result<(), String> {
    let request = iac::CaptureLogsRequest {
        resource_name: stage.sample.name.clone(),
        resource_type: stage.sample.kind.clone(),
        provider_id: made.provider_id.clone(),
        log_type: iac::LogCaptureType::Run.into(),
        tail_lines: 10,
        ..iac::CaptureLogsRequest::default()
    };
    let log = client!(stage, IaCProviderLogCaptureClient)
        .capture_logs(request)
        .await
        .map_err(said("CaptureLogs"))?;
    read_log(log.into_inner()).await
}

pub(super) async fn jobs(stage: &Stage<'_>, _: &ResourceOutput) -> Result<(), String> {
    let mut runner = client!(stage, IaCProviderRunnerClient);
    let nobodys = iac::JobHandle {
        id: NOBODY.to_owned(),
        ..iac::JobHandle::default()
    };
    refused(runner.job_status(nobodys).await, "JobStatus of no job")?;
    let Some(command) = &stage.conformance.job else {
        return Ok(());
    };
    let job = iac::JobSpec {
        name: "conformance".to_owned(),
        run_command: command.clone(),
        ..iac::JobSpec::default()
    };
    let handle = runner
        .run_job(job)
        .await
        .map_err(said("RunJob"))?
        .into_inner();
    ensure(!handle.id.trim().is_empty(), || {
        "the job has no id".to_owned()
    })?;
    let waiting = async {
        loop {
            let state = runner
                .job_status(handle.clone())
                .await
                .map_err(said("JobStatus"))?
                .into_inner()
                .state();
            match state {
                iac::JobState::Succeeded => return Ok(()),
                iac::JobState::Pending | iac::JobState::Running => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => return Err(format!("the job ended as {other:?}")),
            }
        }
    };
    tokio::time::timeout(ENOUGH, waiting)
        .await
        .map_err(|_| format!("the job has no end within {} s", ENOUGH.as_secs()))??;
    let log = runner.job_logs(handle).await.map_err(said("JobLogs"))?;
    read_log(log.into_inner()).await
}

pub(super) async fn repair(stage: &Stage<'_>, _: &ResourceOutput) -> Result<(), String> {
    let request = iac::RepairDirtyMigrationRequest {
        request: Some(iac::MigrationRepairRequest {
            app_resource_name: stage.sample.name.clone(),
            database_resource_name: stage.sample.name.clone(),
            job_image: "conformance".to_owned(),
            source_dir: "migrations".to_owned(),
            expected_dirty_version: "1".to_owned(),
            force_version: "1".to_owned(),
            ..iac::MigrationRepairRequest::default()
        }),
    };
    let answer = client!(stage, IaCProviderMigrationRepairerClient)
        .repair_dirty_migration(request)
        .await;
    match answer {
        Err(_) => refused(answer, "RepairDirtyMigration"),
        Ok(answer) => {
            let result = answer
                .into_inner()
                .result
                .ok_or("the answer has no result")?;
            ensure(
                result.status != "succeeded" && result.applied.is_empty(),
                || format!("it says {:?}", result.status),
            )
        }
    }
}

pub(super) async fn map_requirements(stage: &Stage<'_>, _: &ResourceOutput) -> Result<(), String> {
    let kinds = [
        iac::RequirementKind::Observability,
        iac::RequirementKind::WebApi,
        iac::RequirementKind::MessageBroker,
        iac::RequirementKind::Database,
        iac::RequirementKind::Cache,
        iac::RequirementKind::Storage,
    ];
    let needs: Vec<iac::IaCRequirement> = kinds
        .iter()
        .map(|kind| iac::IaCRequirement {
            key: format!("conformance-{}", *kind as i32),
            kind: (*kind).into(),
            ..iac::IaCRequirement::default()
        })
        .collect();
    let request = iac::MapRequirementsRequest {
        provider: "conformance".to_owned(),
        runtime: iac::RequirementRuntime::Kubernetes.into(),
        environment: "dev".to_owned(),
        requirements: needs.clone(),
    };
    let answer = client!(stage, IaCProviderRequirementMapperClient)
        .map_requirements(request)
        .await
        .map_err(said("MapRequirements"))?
        .into_inner();
    for need in &needs {
        let taken = answer.accepted_keys.contains(&need.key);
        let refused = answer.rejected.iter().any(|no| no.key == need.key);
        ensure(taken != refused, || {
            format!("{} is both taken and refused, or neither", need.key)
        })?;
    }
    for no in &answer.rejected {
        ensure(!no.code.is_empty() && !no.message.is_empty(), || {
            format!("{} is refused without a reason", no.key)
        })?;
    }
    distinct(
        "the module",
        answer.modules.iter().map(|module| &module.name),
    )?;
    for module in &answer.modules {
        map_from(&module.config_json, "config_json").map_err(|error| error.to_string())?;
        let stray = module
            .satisfies
            .iter()
            .find(|key| !answer.accepted_keys.contains(key));
        ensure(stray.is_none() && !module.r#type.is_empty(), || {
            format!("the module {:?} is for {stray:?}", module.name)
        })?;
    }
    Ok(())
}

pub(super) async fn discover(stage: &Stage<'_>, _: &ResourceOutput) -> Result<(), String> {
    let request = iac::DiscoverRequirementsRequest {
        context: Some(iac::RequirementContext {
            application: "conformance".to_owned(),
            environment: "dev".to_owned(),
            ..iac::RequirementContext::default()
        }),
        module_config_json: Vec::new(),
    };
    let needs = client!(stage, IaCRequirementDiscoveryClient)
        .discover_requirements(request)
        .await
        .map_err(said("DiscoverRequirements"))?
        .into_inner()
        .requirements;
    for need in &needs {
        ensure(!need.key.is_empty(), || "a need has no key".to_owned())?;
        ensure(need.kind() != iac::RequirementKind::Unspecified, || {
            format!("{} is of no kind", need.key)
        })?;
    }
    distinct("the need", needs.iter().map(|need| &need.key))
}
