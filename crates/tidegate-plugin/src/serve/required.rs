//! `IaCProviderRequired`: what every provider answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tonic::{Request, Response, Status};

use super::core::{Core, Ready, driver};
use crate::iac::ia_c_provider_required_server::IaCProviderRequired;
use crate::iac::{self, IaCCapabilityDeclaration, PlanAction};
use crate::noun::{map_from, map_to};
use crate::{Action, Error, Observed, Recorded, Spec, convention};

#[tonic::async_trait]
impl IaCProviderRequired for Core {
    async fn initialize(
        &self,
        request: Request<iac::InitializeRequest>,
    ) -> Result<Response<iac::InitializeResponse>, Status> {
        let config = map_from(&request.into_inner().config_json, "config_json")?;
        let Some(provider) = &self.provider else {
            return Err(Error::unimplemented("this plugin provides no resources").into());
        };
        let mut provider = provider.write().await;
        // After a failure it is in no state to be used, whatever it was before.
        self.initialized.store(false, Ordering::Release);
        provider.initialize(config).await?;
        self.initialized.store(true, Ordering::Release);
        Ok(Response::new(iac::InitializeResponse {}))
    }

    async fn name(
        &self,
        _request: Request<iac::NameRequest>,
    ) -> Result<Response<iac::NameResponse>, Status> {
        Ok(Response::new(iac::NameResponse {
            name: self.declared.about.provider.clone(),
        }))
    }

    async fn version(
        &self,
        _request: Request<iac::VersionRequest>,
    ) -> Result<Response<iac::VersionResponse>, Status> {
        Ok(Response::new(iac::VersionResponse {
            version: self.declared.about.version.clone(),
        }))
    }

    async fn capabilities(
        &self,
        _request: Request<iac::CapabilitiesRequest>,
    ) -> Result<Response<iac::CapabilitiesResponse>, Status> {
        let capabilities = self
            .declared
            .kinds
            .iter()
            .map(|kind| {
                let mut operations = vec!["create", "read", "update", "delete"];
                if kind.can_scale {
                    operations.push("scale");
                }
                if kind.can_create_before_destroy {
                    operations.push(convention::CREATE_BEFORE_DESTROY);
                }
                IaCCapabilityDeclaration {
                    resource_type: kind.name.clone(),
                    tier: kind.tier as i32,
                    operations: operations.into_iter().map(str::to_owned).collect(),
                }
            })
            .collect();
        Ok(Response::new(iac::CapabilitiesResponse {
            capabilities,
            canonical_keys: self.declared.about.canonical_keys.clone(),
            compute_plan_version: "v2".to_owned(),
        }))
    }

    /// Hosts plan for themselves. For those that ask, this is what they would come to: a resource
    /// that is not recorded is created, one that differs is changed, one no longer desired is
    /// deleted, and the last recorded goes first.
    async fn plan(
        &self,
        request: Request<iac::PlanRequest>,
    ) -> Result<Response<iac::PlanResponse>, Status> {
        let provider = self.ready().await?;
        let iac::PlanRequest { desired, current } = request.into_inner();
        let names: BTreeSet<String> = desired.iter().map(|spec| spec.name.clone()).collect();
        let mut recorded: BTreeMap<&str, &iac::ResourceState> = current
            .iter()
            .map(|state| (state.name.as_str(), state))
            .collect();
        let mut actions = Vec::new();
        for wire in desired {
            let state = recorded.remove(wire.name.as_str());
            if let Some(action) = plan_one(&provider, wire, state).await? {
                actions.push(action);
            }
        }
        for state in current
            .iter()
            .rev()
            .filter(|state| !names.contains(&state.name))
        {
            actions.push(PlanAction {
                action: Action::Delete.word().to_owned(),
                resource: Some(iac::ResourceSpec {
                    name: state.name.clone(),
                    r#type: state.r#type.clone(),
                    ..iac::ResourceSpec::default()
                }),
                current: Some(state.clone()),
                ..PlanAction::default()
            });
        }
        let now = SystemTime::now();
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Response::new(iac::PlanResponse {
            plan: Some(iac::IaCPlan {
                id: format!("plan-{}", since.as_nanos()),
                actions,
                created_at: Some(now.into()),
                ..iac::IaCPlan::default()
            }),
        }))
    }

    async fn destroy(
        &self,
        request: Request<iac::DestroyRequest>,
    ) -> Result<Response<iac::DestroyResponse>, Status> {
        let provider = self.ready().await?;
        let mut result = iac::DestroyResult::default();
        for wire in request.into_inner().refs {
            let prior = Recorded::from(wire);
            let deleted = match driver(&provider, &prior.kind) {
                Ok(driver) => gone(driver.delete(&prior).await),
                Err(error) => Err(error),
            };
            match deleted {
                Ok(()) => result.destroyed.push(prior.name),
                Err(error) => result.errors.push(iac::ActionError {
                    resource: prior.name,
                    action: Action::Delete.word().to_owned(),
                    error: error.to_string(),
                }),
            }
        }
        Ok(Response::new(iac::DestroyResponse {
            result: Some(result),
        }))
    }

    async fn status(
        &self,
        request: Request<iac::StatusRequest>,
    ) -> Result<Response<iac::StatusResponse>, Status> {
        let provider = self.ready().await?;
        let refs = request.into_inner().refs;
        let mut statuses = Vec::new();
        if refs.is_empty() {
            let all = provider
                .enumerate()
                .ok_or_else(|| Error::unimplemented("this plugin cannot list what exists"))?;
            for kind in &self.declared.kinds {
                for found in all.all(&kind.name).await? {
                    statuses.push(row(found.name, found.kind, found.observed));
                }
            }
        }
        for wire in refs {
            let prior = Recorded::from(wire);
            match driver(&provider, &prior.kind)?.read(&prior).await {
                Ok(observed) => statuses.push(row(prior.name, prior.kind, observed)),
                // Not there is a status too.
                Err(error) if error.is_not_found() => {
                    statuses.push(row(
                        prior.name,
                        prior.kind,
                        Observed::new(prior.provider_id),
                    ));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Response::new(iac::StatusResponse { statuses }))
    }

    async fn import(
        &self,
        request: Request<iac::ImportRequest>,
    ) -> Result<Response<iac::ImportResponse>, Status> {
        let provider = self.ready().await?;
        let iac::ImportRequest {
            provider_id,
            resource_type,
        } = request.into_inner();
        driver(&provider, &resource_type)?;
        let observed = provider.import(&resource_type, &provider_id).await?;
        let now = Some(SystemTime::now().into());
        let state = iac::ResourceState {
            r#type: resource_type,
            provider: self.declared.about.provider.clone(),
            provider_id: if observed.provider_id.is_empty() {
                provider_id
            } else {
                observed.provider_id
            },
            applied_config_source: "adoption".to_owned(),
            outputs_json: map_to(&without(observed.outputs, &observed.sensitive)),
            created_at: now,
            updated_at: now,
            ..iac::ResourceState::default()
        };
        Ok(Response::new(iac::ImportResponse { state: Some(state) }))
    }

    async fn resolve_sizing(
        &self,
        request: Request<iac::ResolveSizingRequest>,
    ) -> Result<Response<iac::ResolveSizingResponse>, Status> {
        let provider = self.ready().await?;
        let iac::ResolveSizingRequest {
            resource_type,
            size,
            hints,
        } = request.into_inner();
        let hints = hints.map(Into::into).unwrap_or_default();
        let sizing = provider.sizing(&resource_type, &size, &hints).await?;
        Ok(Response::new(iac::ResolveSizingResponse {
            sizing: sizing.map(|sizing| iac::ProviderSizing {
                instance_type: sizing.instance_type,
                specs_json: map_to(&sizing.config),
            }),
        }))
    }

    async fn bootstrap_state_backend(
        &self,
        request: Request<iac::BootstrapStateBackendRequest>,
    ) -> Result<Response<iac::BootstrapStateBackendResponse>, Status> {
        let settings = map_from(&request.into_inner().config_json, "config_json")?;
        let made = self.ready().await?.bootstrap_state(settings).await?;
        Ok(Response::new(iac::BootstrapStateBackendResponse {
            result: made.map(|made| iac::BootstrapResult {
                bucket: made.bucket,
                region: made.region,
                endpoint: made.endpoint,
                env_vars: made.variables,
            }),
        }))
    }
}

/// A delete of something gone has done its work, whatever the driver says about it.
pub(super) fn gone(deleted: crate::Result<()>) -> crate::Result<()> {
    match deleted {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

fn row(name: String, kind: String, observed: Observed) -> iac::ResourceStatus {
    let outputs_json = map_to(&without(observed.outputs, &observed.sensitive));
    let status = if observed.status.is_empty() {
        "unknown".to_owned()
    } else {
        observed.status
    };
    iac::ResourceStatus {
        name,
        r#type: kind,
        provider_id: observed.provider_id,
        status,
        outputs_json,
    }
}

/// These answers have no place to mark a secret, so secrets stay out of them.
fn without(mut outputs: crate::Map, sensitive: &BTreeSet<String>) -> crate::Map {
    outputs.retain(|key, _| !sensitive.contains(key));
    outputs
}

async fn plan_one(
    provider: &Ready<'_>,
    wire: iac::ResourceSpec,
    state: Option<&iac::ResourceState>,
) -> Result<Option<PlanAction>, Status> {
    let Some(state) = state else {
        return Ok(Some(PlanAction {
            action: Action::Create.word().to_owned(),
            resource: Some(wire),
            ..PlanAction::default()
        }));
    };
    let desired = Spec::try_from(wire.clone())?;
    let current = Observed {
        provider_id: state.provider_id.clone(),
        outputs: map_from(&state.outputs_json, "outputs_json")?,
        ..Observed::default()
    };
    let diff = driver(provider, &desired.kind)?
        .diff(&desired, &current)
        .await?;
    if diff.is_empty() {
        return Ok(None);
    }
    let action = if diff.needs_replace() {
        Action::Replace
    } else {
        Action::Update
    };
    Ok(Some(PlanAction {
        action: action.word().to_owned(),
        resource: Some(wire),
        current: Some(state.clone()),
        changes: diff.changes.iter().map(Into::into).collect(),
        ..PlanAction::default()
    }))
}
