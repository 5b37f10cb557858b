//! Abilities, on the wire.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, future, stream};
use tonic::{Request, Response, Status};

use super::core::{Core, required};
use super::infrastructure::ended;
use crate::ability::LogStream;
use crate::iac::{
    self, ia_c_provider_credential_revoker_server::IaCProviderCredentialRevoker,
    ia_c_provider_drift_config_detector_server::IaCProviderDriftConfigDetector,
    ia_c_provider_drift_detector_server::IaCProviderDriftDetector,
    ia_c_provider_enumerator_server::IaCProviderEnumerator,
    ia_c_provider_finalizer_server::IaCProviderFinalizer,
    ia_c_provider_log_capture_server::IaCProviderLogCapture,
    ia_c_provider_migration_repairer_server::IaCProviderMigrationRepairer,
    ia_c_provider_ownership_server::IaCProviderOwnership,
    ia_c_provider_region_lister_server::IaCProviderRegionLister,
    ia_c_provider_requirement_mapper_server::IaCProviderRequirementMapper,
    ia_c_provider_runner_server::IaCProviderRunner,
    ia_c_provider_validator_server::IaCProviderValidator,
    ia_c_requirement_discovery_server::IaCRequirementDiscovery,
};
use crate::noun::map_from;
use crate::provider::lacks;
use crate::{Error, Plan, Recorded, Spec};

type Answer<T> = Result<Response<T>, Status>;

/// The ability behind a service, which is served only where the ability is.
macro_rules! ability {
    ($provider:ident . $name:ident) => {
        $provider.$name().ok_or_else(|| lacks(stringify!($name)))?
    };
}

#[tonic::async_trait]
impl IaCProviderEnumerator for Core {
    async fn enumerate_all(
        &self,
        request: Request<iac::EnumerateAllRequest>,
    ) -> Answer<iac::EnumerateAllResponse> {
        let provider = self.ready().await?;
        let found = ability!(provider.enumerate)
            .all(&request.get_ref().resource_type)
            .await?;
        let outputs = found
            .into_iter()
            .map(|found| found.observed.into_wire(&found.name, &found.kind))
            .collect::<crate::Result<_>>()?;
        Ok(Response::new(iac::EnumerateAllResponse { outputs }))
    }

    async fn enumerate_by_tag(
        &self,
        request: Request<iac::EnumerateByTagRequest>,
    ) -> Answer<iac::EnumerateByTagResponse> {
        let provider = self.ready().await?;
        let found = ability!(provider.enumerate)
            .by_tag(&request.get_ref().tag)
            .await?;
        Ok(Response::new(iac::EnumerateByTagResponse {
            refs: found.into_iter().map(Into::into).collect(),
        }))
    }
}

impl Core {
    async fn drifts(
        &self,
        refs: Vec<iac::ResourceRef>,
        specs: BTreeMap<String, iac::ResourceSpec>,
    ) -> Result<Vec<iac::DriftResult>, Status> {
        let provider = self.ready().await?;
        let recorded: Vec<Recorded> = refs.into_iter().map(Into::into).collect();
        let desired = specs
            .into_iter()
            .map(|(name, spec)| Ok((name, Spec::try_from(spec)?)))
            .collect::<crate::Result<BTreeMap<_, _>>>()?;
        let drifts = ability!(provider.detect_drift)
            .drift(&recorded, &desired)
            .await?;
        Ok(drifts.into_iter().map(Into::into).collect())
    }
}

#[tonic::async_trait]
impl IaCProviderDriftDetector for Core {
    async fn detect_drift(
        &self,
        request: Request<iac::DetectDriftRequest>,
    ) -> Answer<iac::DetectDriftResponse> {
        let drifts = self
            .drifts(request.into_inner().refs, BTreeMap::new())
            .await?;
        Ok(Response::new(iac::DetectDriftResponse { drifts }))
    }

    async fn detect_drift_with_specs(
        &self,
        request: Request<iac::DetectDriftWithSpecsRequest>,
    ) -> Answer<iac::DetectDriftWithSpecsResponse> {
        let iac::DetectDriftWithSpecsRequest { refs, specs } = request.into_inner();
        let drifts = self.drifts(refs, specs).await?;
        Ok(Response::new(iac::DetectDriftWithSpecsResponse { drifts }))
    }
}

#[tonic::async_trait]
impl IaCProviderDriftConfigDetector for Core {
    async fn detect_drift_config(
        &self,
        request: Request<iac::DetectDriftConfigRequest>,
    ) -> Answer<iac::DetectDriftConfigResponse> {
        let iac::DetectDriftConfigRequest { refs, specs } = request.into_inner();
        let drifts = self.drifts(refs, specs).await?;
        Ok(Response::new(iac::DetectDriftConfigResponse { drifts }))
    }
}

#[tonic::async_trait]
impl IaCProviderCredentialRevoker for Core {
    async fn revoke_provider_credential(
        &self,
        request: Request<iac::RevokeProviderCredentialRequest>,
    ) -> Answer<iac::RevokeProviderCredentialResponse> {
        let provider = self.ready().await?;
        let iac::RevokeProviderCredentialRequest {
            source,
            credential_id,
        } = request.into_inner();
        super::required::gone(
            ability!(provider.revoke_credential)
                .revoke(&source, &credential_id)
                .await,
        )?;
        Ok(Response::new(iac::RevokeProviderCredentialResponse {}))
    }
}

#[tonic::async_trait]
impl IaCProviderRegionLister for Core {
    async fn list_regions(
        &self,
        request: Request<iac::ListRegionsRequest>,
    ) -> Answer<iac::ListRegionsResponse> {
        let provider = self.ready().await?;
        let regions = ability!(provider.list_regions)
            .regions(&request.get_ref().env_name)
            .await?;
        let regions = regions
            .into_iter()
            .map(|region| iac::ProviderRegion {
                name: region.name,
                display_name: region.label,
            })
            .collect();
        Ok(Response::new(iac::ListRegionsResponse { regions }))
    }
}

#[tonic::async_trait]
impl IaCProviderOwnership for Core {
    async fn get_owner(
        &self,
        request: Request<iac::GetOwnerRequest>,
    ) -> Answer<iac::GetOwnerResponse> {
        let provider = self.ready().await?;
        let prior = required(request.into_inner().r#ref, "ref")?.into();
        let owner = ability!(provider.ownership).owner(&prior).await?;
        Ok(Response::new(iac::GetOwnerResponse {
            owner: owner.owner,
            source: owner.source,
        }))
    }

    async fn set_owner(
        &self,
        request: Request<iac::SetOwnerRequest>,
    ) -> Answer<iac::SetOwnerResponse> {
        let provider = self.ready().await?;
        let iac::SetOwnerRequest { r#ref, owner } = request.into_inner();
        let prior = required(r#ref, "ref")?.into();
        ability!(provider.ownership)
            .set_owner(&prior, &owner)
            .await?;
        Ok(Response::new(iac::SetOwnerResponse {}))
    }

    async fn list_owners(
        &self,
        request: Request<iac::ListOwnersRequest>,
    ) -> Answer<iac::ListOwnersResponse> {
        let provider = self.ready().await?;
        let iac::ListOwnersRequest {
            owner,
            resource_type,
        } = request.into_inner();
        let owned = ability!(provider.ownership)
            .owned(&owner, &resource_type)
            .await?;
        Ok(Response::new(iac::ListOwnersResponse {
            resources: owned.into_iter().map(Into::into).collect(),
        }))
    }
}

#[tonic::async_trait]
impl IaCProviderFinalizer for Core {
    async fn finalize_apply(
        &self,
        request: Request<iac::FinalizeApplyRequest>,
    ) -> Answer<iac::FinalizeApplyResponse> {
        let provider = self.ready().await?;
        let unfinished = ability!(provider.finalize)
            .finish(&request.get_ref().plan_id)
            .await?;
        Ok(Response::new(iac::FinalizeApplyResponse {
            errors: unfinished.into_iter().map(Into::into).collect(),
        }))
    }
}

#[tonic::async_trait]
impl IaCProviderValidator for Core {
    async fn validate_plan(
        &self,
        request: Request<iac::ValidatePlanRequest>,
    ) -> Answer<iac::ValidatePlanResponse> {
        let provider = self.ready().await?;
        let plan = Plan::try_from(required(request.into_inner().plan, "plan")?)?;
        let remarks = ability!(provider.validate).remarks(&plan).await?;
        Ok(Response::new(iac::ValidatePlanResponse {
            diagnostics: remarks.into_iter().map(Into::into).collect(),
        }))
    }
}

type WireLogs =
    std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<iac::LogChunk, Status>> + Send>>;

impl Core {
    /// The log with its end marked. Readers stop at the mark; some never look for the stream's end.
    fn log(&self, log: LogStream) -> WireLogs {
        let pieces = log.map(|piece| match piece {
            Ok(piece) => Ok(iac::LogChunk {
                data: piece.data,
                source: piece.source,
                eof: false,
            }),
            Err(error) => Err(error.into()),
        });
        let end = stream::once(future::ready(Ok(iac::LogChunk {
            eof: true,
            ..iac::LogChunk::default()
        })));
        let mut failed = false;
        let until_failure = pieces.chain(end).take_while(move |piece| {
            let go_on = !failed;
            failed |= piece.is_err();
            future::ready(go_on)
        });
        Box::pin(until_failure.take_until(Box::pin(ended(self))))
    }
}

#[tonic::async_trait]
impl IaCProviderLogCapture for Core {
    type CaptureLogsStream = WireLogs;

    async fn capture_logs(
        &self,
        request: Request<iac::CaptureLogsRequest>,
    ) -> Answer<Self::CaptureLogsStream> {
        let provider = self.ready().await?;
        let log = ability!(provider.read_logs)
            .logs(request.into_inner().into())
            .await?;
        Ok(Response::new(self.log(log)))
    }
}

#[tonic::async_trait]
impl IaCProviderRunner for Core {
    async fn run_job(&self, request: Request<iac::JobSpec>) -> Answer<iac::JobHandle> {
        let provider = self.ready().await?;
        let job = ability!(provider.run_jobs)
            .run(request.into_inner())
            .await?;
        if job.id.trim().is_empty() {
            return Err(Error::other("the job was started, and has no id to find it by").into());
        }
        Ok(Response::new(job))
    }

    async fn job_status(&self, request: Request<iac::JobHandle>) -> Answer<iac::JobStatusReply> {
        let provider = self.ready().await?;
        let handle = request.into_inner();
        let status = ability!(provider.run_jobs).status(&handle).await?;
        Ok(Response::new(iac::JobStatusReply {
            handle: Some(handle),
            state: iac::JobState::from(status.state).into(),
            exit_code: status.exit_code,
            message: status.message,
        }))
    }

    type JobLogsStream = WireLogs;

    async fn job_logs(&self, request: Request<iac::JobHandle>) -> Answer<Self::JobLogsStream> {
        let provider = self.ready().await?;
        let log = ability!(provider.run_jobs)
            .logs(request.into_inner())
            .await?;
        Ok(Response::new(self.log(log)))
    }
}

#[tonic::async_trait]
impl IaCProviderMigrationRepairer for Core {
    async fn repair_dirty_migration(
        &self,
        request: Request<iac::RepairDirtyMigrationRequest>,
    ) -> Answer<iac::RepairDirtyMigrationResponse> {
        const CONFIRMATION: &str = "FORCE_MIGRATION_METADATA";
        let provider = self.ready().await?;
        let order = required(request.into_inner().request, "request")?;
        if order.confirm_force != CONFIRMATION {
            return Err(
                Error::invalid(format!("a repair is confirmed with {CONFIRMATION}")).into(),
            );
        }
        let result = ability!(provider.repair_migration).repair(order).await?;
        Ok(Response::new(iac::RepairDirtyMigrationResponse {
            result: Some(result),
        }))
    }
}

#[tonic::async_trait]
impl IaCRequirementDiscovery for Core {
    async fn discover_requirements(
        &self,
        request: Request<iac::DiscoverRequirementsRequest>,
    ) -> Answer<iac::DiscoverRequirementsResponse> {
        let provider = self.ready().await?;
        let iac::DiscoverRequirementsRequest {
            context,
            module_config_json,
        } = request.into_inner();
        let module = map_from(&module_config_json, "module_config_json")?;
        let requirements = ability!(provider.discover_requirements)
            .discover(context.unwrap_or_default(), module)
            .await?;
        Ok(Response::new(iac::DiscoverRequirementsResponse {
            requirements,
        }))
    }
}

#[tonic::async_trait]
impl IaCProviderRequirementMapper for Core {
    async fn map_requirements(
        &self,
        request: Request<iac::MapRequirementsRequest>,
    ) -> Answer<iac::MapRequirementsResponse> {
        let provider = self.ready().await?;
        let mapped = ability!(provider.map_requirements)
            .modules(request.into_inner())
            .await?;
        Ok(Response::new(mapped))
    }
}
