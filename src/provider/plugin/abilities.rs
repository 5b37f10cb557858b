//! What a plugin can do beyond single resources: every optional service of the contract. One that
//! is not in the plugin's registry is never called.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use tidegate_plugin::iac;
use tidegate_plugin::iac::ia_c_provider_credential_revoker_client::IaCProviderCredentialRevokerClient;
use tidegate_plugin::iac::ia_c_provider_enumerator_client::IaCProviderEnumeratorClient;
use tidegate_plugin::iac::ia_c_provider_finalizer_client::IaCProviderFinalizerClient;
use tidegate_plugin::iac::ia_c_provider_log_capture_client::IaCProviderLogCaptureClient;
use tidegate_plugin::iac::ia_c_provider_migration_repairer_client::IaCProviderMigrationRepairerClient;
use tidegate_plugin::iac::ia_c_provider_ownership_client::IaCProviderOwnershipClient;
use tidegate_plugin::iac::ia_c_provider_region_lister_client::IaCProviderRegionListerClient;
use tidegate_plugin::iac::ia_c_provider_required_client::IaCProviderRequiredClient;
use tidegate_plugin::iac::ia_c_provider_requirement_mapper_client::IaCProviderRequirementMapperClient;
use tidegate_plugin::iac::ia_c_provider_runner_client::IaCProviderRunnerClient;
use tidegate_plugin::iac::ia_c_provider_validator_client::IaCProviderValidatorClient;
use tidegate_plugin::iac::ia_c_requirement_discovery_client::IaCRequirementDiscoveryClient;

use super::connection::{ANSWER_BYTES_MAX, Limit, unary};
use super::convert::{self, observed, reference};
use super::driver::evidence;
use super::services::{FOLLOW_SPARE, SERVICES, drift_requests, handle};
use super::{Plugin, derived, imports, needs, proposal, words};
use crate::provider::ability::{
    Ability, Advice, Application, BootstrappedState, Derivation, DerivedModule, Drift,
    FinalizeFailure, Found, Hints, Job, JobHandle, JobState, JobStatus, LogKind, LogTaker, LogWish,
    MigrationRepair, MigrationRepaired, Owned, Proposal, Region, Rejection, Remark, RemarkSeverity,
    Requirement, Sizing,
};
use crate::provider::{Driver, DriverError, DriverResult, ErrorClass, Provider, lacks};
use crate::resource::{Address, Kind, Map, Observed, Recorded, Spec};

#[async_trait]
impl Provider for Plugin {
    fn name(&self) -> &str {
        &self.provider
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn kinds(&self) -> Vec<Kind> {
        self.drivers.keys().cloned().collect()
    }

    fn driver(&self, kind: &Kind) -> Option<&dyn Driver> {
        self.drivers.get(kind).map(|driver| driver as &dyn Driver)
    }

    fn is_local(&self) -> bool {
        false
    }

    async fn close(&self) {
        if let Some(running) = self.running.lock().await.take() {
            running.stop(self.connection.shut_down()).await;
        }
    }

    fn abilities(&self) -> BTreeSet<Ability> {
        let mut abilities: BTreeSet<Ability> = SERVICES
            .iter()
            .filter(|(service, _)| self.serves(service))
            .map(|(_, ability)| *ability)
            .collect();
        abilities.insert(Ability::Import);
        abilities.insert(Ability::Status);
        abilities.insert(Ability::BootstrapState);
        abilities
    }

    fn parallelism(&self) -> Option<usize> {
        self.parallelism
    }

    async fn sizing(&self, kind: &Kind, size: &str, hints: &Hints) -> DriverResult<Sizing> {
        let text = |hint: &Option<String>| hint.clone().unwrap_or_default();
        let request = iac::ResolveSizingRequest {
            resource_type: kind.to_string(),
            size: size.to_owned(),
            hints: (*hints != Hints::default()).then(|| iac::ResourceHints {
                cpu: text(&hints.cpu),
                memory: text(&hints.memory),
                storage: text(&hints.storage),
            }),
        };
        let answer = unary!(
            self.connection,
            IaCProviderRequiredClient.resolve_sizing(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        match answer.sizing {
            None => Err(lacks(Ability::Sizing.words())),
            Some(sizing) => Ok(Sizing {
                instance_type: sizing.instance_type,
                specs: convert::object(&sizing.specs_json, "sizing")?,
            }),
        }
    }

    async fn import(
        &self,
        address: &Address,
        kind: &Kind,
        provider_id: &str,
    ) -> DriverResult<Observed> {
        let request = iac::ImportRequest {
            provider_id: provider_id.to_owned(),
            resource_type: kind.to_string(),
        };
        let answer = unary!(
            self.connection,
            IaCProviderRequiredClient.import(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        let Some(state) = answer.state else {
            return Err(DriverError::new(
                ErrorClass::NotFound,
                format!("the plugin knows no resource with the id `{provider_id}`"),
            ));
        };
        // The provider calls it by its own name, so only the type can be compared.
        let output = iac::ResourceOutput {
            r#type: state.r#type,
            provider_id: if state.provider_id.is_empty() {
                provider_id.to_owned()
            } else {
                state.provider_id
            },
            outputs_json: state.outputs_json,
            ..iac::ResourceOutput::default()
        };
        let imported = observed(Some(output), address, kind, self.connection.tools())?;
        Ok(imports::with_flags(
            self.drivers.get(kind),
            address,
            kind,
            imported,
            self.connection.tools(),
        )
        .await)
    }

    async fn enumerate(&self, kind: &Kind) -> DriverResult<Vec<Found>> {
        self.needs(Ability::Enumerate)?;
        let request = iac::EnumerateAllRequest {
            resource_type: kind.to_string(),
        };
        let answer = unary!(
            self.connection,
            IaCProviderEnumeratorClient.enumerate_all(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        answer
            .outputs
            .into_iter()
            .map(|output| {
                let name = output.name.clone();
                let kind = if output.r#type.is_empty() {
                    kind.clone()
                } else {
                    Kind::new(output.r#type.clone())
                };
                let provider_id = output.provider_id.clone();
                let address = Address::new(name.clone());
                let seen = observed(Some(output), &address, &kind, self.connection.tools())?;
                Ok(Found {
                    name,
                    kind,
                    provider_id,
                    observed: Some(seen),
                })
            })
            .collect()
    }

    async fn enumerate_by_tag(&self, tag: &str) -> DriverResult<Vec<Found>> {
        self.needs(Ability::Enumerate)?;
        let request = iac::EnumerateByTagRequest {
            tag: tag.to_owned(),
        };
        let answer = unary!(
            self.connection,
            IaCProviderEnumeratorClient.enumerate_by_tag(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        Ok(answer
            .refs
            .into_iter()
            .map(|found| Found {
                name: found.name,
                kind: Kind::new(found.r#type),
                provider_id: found.provider_id,
                observed: None,
            })
            .collect())
    }

    async fn status(&self, prior: &Recorded) -> DriverResult<String> {
        let request = iac::StatusRequest {
            refs: vec![reference(prior)],
        };
        let answer = unary!(
            self.connection,
            IaCProviderRequiredClient.status(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        // Some answer under a name of their own.
        let row = answer.statuses.into_iter().find(|row| {
            row.name == prior.address.as_str()
                || (!row.provider_id.is_empty() && row.provider_id == prior.provider_id)
        });
        let row = row.ok_or_else(|| {
            DriverError::new(ErrorClass::Unknown, "the plugin gave no answer about it")
        })?;
        Ok(self.said(&row.status))
    }

    /// As many requests as it takes to keep each below what plugins accept.
    async fn drift(
        &self,
        recorded: &[Recorded],
        desired: &BTreeMap<Address, Spec>,
    ) -> DriverResult<Vec<Drift>> {
        self.needs(Ability::Drift)?;
        let mut drifts = Vec::new();
        for request in drift_requests(recorded, desired) {
            drifts.extend(self.detect(request).await?);
        }
        self.verdicts(recorded, drifts)
    }

    async fn validate(&self, plan: &Proposal) -> DriverResult<Vec<Remark>> {
        self.needs(Ability::Validate)?;
        let request = iac::ValidatePlanRequest {
            plan: Some(proposal::plan(plan)),
        };
        let answer = unary!(
            self.connection,
            IaCProviderValidatorClient.validate_plan(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        let some = |text: String| (!text.is_empty()).then_some(text);
        Ok(answer
            .diagnostics
            .into_iter()
            .map(|said| Remark {
                severity: match iac::PlanDiagnosticSeverity::try_from(said.severity) {
                    Ok(iac::PlanDiagnosticSeverity::PlanDiagnosticError) => RemarkSeverity::Error,
                    Ok(iac::PlanDiagnosticSeverity::PlanDiagnosticWarning) => {
                        RemarkSeverity::Warning
                    }
                    Ok(iac::PlanDiagnosticSeverity::PlanDiagnosticInfo) | Err(_) => {
                        RemarkSeverity::Info
                    }
                },
                message: self.said(&said.message),
                resource: some(said.resource),
                field: some(said.field),
            })
            .collect())
    }

    async fn finalize(&self, plan: &str) -> DriverResult<Vec<FinalizeFailure>> {
        self.needs(Ability::Finalize)?;
        let request = iac::FinalizeApplyRequest {
            plan_id: plan.to_owned(),
        };
        let answer = unary!(
            self.connection,
            IaCProviderFinalizerClient.finalize_apply(request),
            self.effect()
        )
        .await
        .map_err(self.failed())?;
        Ok(answer
            .errors
            .into_iter()
            .map(|failure| FinalizeFailure {
                error: self.said(&failure.error),
                resource: failure.resource,
                action: failure.action,
            })
            .collect())
    }

    async fn owner(&self, prior: &Recorded) -> DriverResult<Owned> {
        self.needs(Ability::Ownership)?;
        let request = iac::GetOwnerRequest {
            r#ref: Some(reference(prior)),
        };
        let answer = unary!(
            self.connection,
            IaCProviderOwnershipClient.get_owner(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        Ok(Owned {
            name: prior.address.to_string(),
            kind: prior.kind.to_string(),
            provider_id: prior.provider_id.clone(),
            owner: answer.owner,
            source: answer.source,
        })
    }

    async fn set_owner(&self, prior: &Recorded, owner: &str) -> DriverResult<()> {
        self.needs(Ability::Ownership)?;
        let request = iac::SetOwnerRequest {
            r#ref: Some(reference(prior)),
            owner: owner.to_owned(),
        };
        unary!(
            self.connection,
            IaCProviderOwnershipClient.set_owner(request),
            self.effect()
        )
        .await
        .map(|_| ())
        .map_err(self.failed())
    }

    async fn owned(&self, owner: &str, kind: Option<&Kind>) -> DriverResult<Vec<Owned>> {
        self.needs(Ability::Ownership)?;
        let request = iac::ListOwnersRequest {
            owner: owner.to_owned(),
            resource_type: kind.map(ToString::to_string).unwrap_or_default(),
        };
        let answer = unary!(
            self.connection,
            IaCProviderOwnershipClient.list_owners(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        Ok(answer
            .resources
            .into_iter()
            .map(|owned| {
                let found = owned.r#ref.unwrap_or_default();
                Owned {
                    name: found.name,
                    kind: found.r#type,
                    provider_id: found.provider_id,
                    owner: owned.owner,
                    source: owned.source,
                }
            })
            .collect())
    }

    async fn bootstrap_state(&self, settings: &Map) -> DriverResult<BootstrappedState> {
        let mut unknown = Vec::new();
        let request = iac::BootstrapStateBackendRequest {
            config_json: convert::config_json(settings, &mut unknown),
        };
        let answer = unary!(
            self.connection,
            IaCProviderRequiredClient.bootstrap_state_backend(request),
            self.effect()
        )
        .await
        .map_err(self.failed())?;
        let made = answer
            .result
            .ok_or_else(|| lacks(Ability::BootstrapState.words()))?;
        Ok(BootstrappedState {
            bucket: made.bucket,
            region: made.region,
            endpoint: made.endpoint,
            variables: made.env_vars,
        })
    }

    async fn revoke_credential(&self, source: &str, credential: &str) -> DriverResult<()> {
        self.needs(Ability::RevokeCredential)?;
        let request = iac::RevokeProviderCredentialRequest {
            source: source.to_owned(),
            credential_id: credential.to_owned(),
        };
        let revoked = unary!(
            self.connection,
            IaCProviderCredentialRevokerClient.revoke_provider_credential(request),
            self.effect()
        )
        .await
        .map_err(self.failed());
        match revoked {
            Ok(_) => Ok(()),
            // Gone is what was wanted.
            Err(error) if error.class == ErrorClass::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn regions(&self, environment: &str) -> DriverResult<Vec<Region>> {
        self.needs(Ability::Regions)?;
        let request = iac::ListRegionsRequest {
            env_name: environment.to_owned(),
        };
        let answer = unary!(
            self.connection,
            IaCProviderRegionListerClient.list_regions(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        Ok(answer
            .regions
            .into_iter()
            .filter(|region| !region.name.trim().is_empty())
            .map(|region| Region {
                name: region.name,
                display_name: region.display_name,
            })
            .collect())
    }

    async fn logs(&self, prior: &Recorded, wish: &LogWish, take: LogTaker<'_>) -> DriverResult<()> {
        self.needs(Ability::Logs)?;
        let kind = match wish.kind {
            LogKind::Run => iac::LogCaptureType::Run,
            LogKind::RunRestarted => iac::LogCaptureType::RunRestarted,
            LogKind::Build => iac::LogCaptureType::Build,
            LogKind::Deploy => iac::LogCaptureType::Deploy,
        };
        let request = iac::CaptureLogsRequest {
            resource_name: prior.address.to_string(),
            resource_type: prior.kind.to_string(),
            provider_id: prior.provider_id.clone(),
            component_name: wish.component.clone(),
            log_type: kind as i32,
            tail_lines: wish
                .tail
                .map_or(0, |lines| i32::try_from(lines).unwrap_or(i32::MAX)),
            follow: wish.follow.is_some(),
            duration_seconds: wish
                .follow
                .map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX)),
            deployment_id: wish.deployment.clone(),
        };
        let limit = wish
            .follow
            .map_or(self.look(), |time| Limit::look(time + FOLLOW_SPARE));
        let mut client = IaCProviderLogCaptureClient::new(self.connection.wire().await)
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        self.take_logs(
            async move { client.capture_logs(request).await },
            limit,
            take,
        )
        .await
    }

    async fn run_job(&self, job: &Job) -> DriverResult<JobHandle> {
        self.needs(Ability::Jobs)?;
        let request = iac::JobSpec {
            name: job.name.clone(),
            kind: job.kind.clone(),
            image: job.image.clone(),
            run_command: job.command.clone(),
            env_vars: job.variables.clone(),
            env_vars_secret: job.secret_variables.clone(),
            ..iac::JobSpec::default()
        };
        let answer = unary!(
            self.connection,
            IaCProviderRunnerClient.run_job(request),
            self.effect()
        )
        .await
        .map_err(self.failed())?;
        if answer.id.trim().is_empty() {
            return Err(DriverError::new(
                ErrorClass::Unknown,
                "the plugin answered without an id of the job; it may or may not run",
            ));
        }
        Ok(JobHandle {
            id: answer.id,
            name: answer.name,
            provider: answer.provider,
            metadata: answer.metadata,
        })
    }

    async fn job_status(&self, job: &JobHandle) -> DriverResult<JobStatus> {
        self.needs(Ability::Jobs)?;
        let answer = unary!(
            self.connection,
            IaCProviderRunnerClient.job_status(handle(job)),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        use iac::JobState as Wire;
        Ok(JobStatus {
            state: match Wire::try_from(answer.state) {
                Ok(Wire::Pending) => JobState::Pending,
                Ok(Wire::Running) => JobState::Running,
                Ok(Wire::Succeeded) => JobState::Succeeded,
                Ok(Wire::Failed) => JobState::Failed,
                Ok(Wire::Cancelled) => JobState::Cancelled,
                Ok(Wire::Unspecified) | Err(_) => JobState::Unknown,
            },
            exit_code: answer.exit_code,
            message: self.said(&answer.message),
        })
    }

    async fn job_logs(&self, job: &JobHandle, take: LogTaker<'_>) -> DriverResult<()> {
        self.needs(Ability::Jobs)?;
        let mut client = IaCProviderRunnerClient::new(self.connection.wire().await)
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        let request = handle(job);
        self.take_logs(
            async move { client.job_logs(request).await },
            self.effect(),
            take,
        )
        .await
    }

    async fn discover(&self, application: &Application) -> DriverResult<Vec<Requirement>> {
        self.needs(Ability::Discovery)?;
        let answer = unary!(
            self.connection,
            IaCRequirementDiscoveryClient.discover_requirements(needs::question(application)),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        needs::discovered(answer, &self.provider, &self.connection.tools().masker)
    }

    async fn derive(
        &self,
        runtime: &str,
        environment: &str,
        requirements: &[Requirement],
    ) -> DriverResult<Derivation> {
        self.needs(Ability::Requirements)?;
        let request = iac::MapRequirementsRequest {
            provider: self.provider.clone(),
            runtime: words::runtime(runtime)? as i32,
            environment: environment.to_owned(),
            requirements: requirements
                .iter()
                .map(words::requirement)
                .collect::<DriverResult<_>>()?,
        };
        let answer = unary!(
            self.connection,
            IaCProviderRequirementMapperClient.map_requirements(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        let masker = &self.connection.tools().masker;
        let modules = answer
            .modules
            .into_iter()
            .map(|module| {
                let config = convert::object(&module.config_json, "derived config")?;
                // It is meant for a file that is shared: never with a secret in it.
                let config_text = serde_json::Value::Object(config.clone()).to_string();
                if let Some(why) = derived::refusal(&config, masker) {
                    return Err(DriverError::new(
                        ErrorClass::Invalid,
                        format!(
                            "the module `{}` that the plugin suggests is refused: {}",
                            self.said(&module.name),
                            self.said(&why)
                        ),
                    ));
                }
                let texts = [&config_text, &module.name, &module.r#type];
                let keys = module.depends_on.iter().chain(&module.satisfies);
                if texts
                    .into_iter()
                    .chain(keys)
                    .any(|text| masker.is_sensitive(text))
                {
                    return Err(DriverError::new(
                        ErrorClass::Invalid,
                        format!(
                            "the plugin put a secret into the module `{}`",
                            self.said(&module.name)
                        ),
                    ));
                }
                Ok(DerivedModule {
                    name: module.name,
                    kind: module.r#type,
                    satisfies: if module.satisfies.is_empty() {
                        answer.accepted_keys.clone()
                    } else {
                        module.satisfies
                    },
                    config,
                    depends_on: module.depends_on,
                })
            })
            .collect::<DriverResult<_>>()?;
        Ok(Derivation {
            accepted: answer.accepted_keys,
            rejected: answer
                .rejected
                .into_iter()
                .map(|no| Rejection {
                    message: self.said(&no.message),
                    key: no.key,
                    code: no.code,
                })
                .collect(),
            modules,
            notes: answer
                .notes
                .into_iter()
                .map(|note| Advice {
                    message: self.said(&note.message),
                    key: note.key,
                    interactive: note.interactive,
                })
                .collect(),
        })
    }

    async fn repair_migration(&self, order: &MigrationRepair) -> DriverResult<MigrationRepaired> {
        self.needs(Ability::RepairMigration)?;
        let request = iac::RepairDirtyMigrationRequest {
            request: Some(iac::MigrationRepairRequest {
                app_resource_name: order.application.clone(),
                database_resource_name: order.database.clone(),
                job_image: order.image.clone(),
                source_dir: order.source.clone(),
                expected_dirty_version: order.dirty_version.clone(),
                force_version: order.forced_version.clone(),
                then_up: order.then_up,
                up_if_clean: order.up_if_clean,
                confirm_force: order.confirmation.clone(),
                env: order.variables.clone(),
                timeout_seconds: order
                    .timeout
                    .map_or(0, |time| i32::try_from(time.as_secs()).unwrap_or(i32::MAX)),
            }),
        };
        let answer = unary!(
            self.connection,
            IaCProviderMigrationRepairerClient.repair_dirty_migration(request),
            self.effect()
        )
        .await
        .map_err(self.failed())?;
        let result = answer.result.ok_or_else(|| {
            DriverError::new(
                ErrorClass::Unknown,
                "the plugin answered without saying how the repair ended",
            )
        })?;
        Ok(MigrationRepaired {
            evidence: result
                .diagnostics
                .iter()
                .map(|said| evidence(said, self.connection.tools()))
                .collect(),
            job: result.provider_job_id,
            status: result.status,
            applied: result.applied,
            logs: result.logs,
        })
    }
}
