//! `ResourceDriver`: the life of one resource.

use tonic::{Request, Response, Status};

use super::core::{Core, driver, required};
use super::required::gone;
use crate::iac::resource_driver_server::ResourceDriver;
use crate::iac::{self, ResourceOutput};
use crate::{Error, Observed, Recorded, Spec};

/// A spec or ref whose own type is empty is of the type that the request names.
fn of_kind(kind: &mut String, resource_type: &str) {
    if kind.is_empty() {
        resource_type.clone_into(kind);
    }
}

fn spec(wire: Option<iac::ResourceSpec>, resource_type: &str) -> Result<Spec, Status> {
    let mut spec = Spec::try_from(required(wire, "spec")?)?;
    of_kind(&mut spec.kind, resource_type);
    Ok(spec)
}

fn recorded(wire: Option<iac::ResourceRef>, resource_type: &str) -> Result<Recorded, Status> {
    let mut prior = Recorded::from(required(wire, "ref")?);
    of_kind(&mut prior.kind, resource_type);
    Ok(prior)
}

fn output(observed: Observed, name: &str, kind: &str) -> Result<Option<ResourceOutput>, Status> {
    Ok(Some(observed.into_wire(name, kind)?))
}

#[tonic::async_trait]
impl ResourceDriver for Core {
    async fn create(
        &self,
        request: Request<iac::ResourceCreateRequest>,
    ) -> Result<Response<iac::ResourceCreateResponse>, Status> {
        let provider = self.ready().await?;
        let request = request.into_inner();
        let driver = driver(&provider, &request.resource_type)?;
        let desired = spec(request.spec, &request.resource_type)?;
        let made = driver.create(&desired).await?;
        Ok(Response::new(iac::ResourceCreateResponse {
            output: output(made, &desired.name, &desired.kind)?,
        }))
    }

    async fn read(
        &self,
        request: Request<iac::ResourceReadRequest>,
    ) -> Result<Response<iac::ResourceReadResponse>, Status> {
        let provider = self.ready().await?;
        let request = request.into_inner();
        let driver = driver(&provider, &request.resource_type)?;
        let prior = recorded(request.r#ref, &request.resource_type)?;
        let live = driver.read(&prior).await?;
        Ok(Response::new(iac::ResourceReadResponse {
            output: output(live, &prior.name, &prior.kind)?,
        }))
    }

    async fn update(
        &self,
        request: Request<iac::ResourceUpdateRequest>,
    ) -> Result<Response<iac::ResourceUpdateResponse>, Status> {
        let provider = self.ready().await?;
        let request = request.into_inner();
        let driver = driver(&provider, &request.resource_type)?;
        let prior = recorded(request.r#ref, &request.resource_type)?;
        let desired = spec(request.spec, &request.resource_type)?;
        let changed = driver.update(&prior, &desired).await?;
        Ok(Response::new(iac::ResourceUpdateResponse {
            output: output(changed, &desired.name, &desired.kind)?,
        }))
    }

    async fn delete(
        &self,
        request: Request<iac::ResourceDeleteRequest>,
    ) -> Result<Response<iac::ResourceDeleteResponse>, Status> {
        let provider = self.ready().await?;
        let request = request.into_inner();
        let driver = driver(&provider, &request.resource_type)?;
        let prior = recorded(request.r#ref, &request.resource_type)?;
        gone(driver.delete(&prior).await)?;
        Ok(Response::new(iac::ResourceDeleteResponse {}))
    }

    async fn diff(
        &self,
        request: Request<iac::ResourceDiffRequest>,
    ) -> Result<Response<iac::ResourceDiffResponse>, Status> {
        let provider = self.ready().await?;
        let request = request.into_inner();
        let driver = driver(&provider, &request.resource_type)?;
        let desired = spec(request.desired, &request.resource_type)?;
        let current = Observed::try_from(required(request.current, "current")?)?;
        let diff = driver.diff(&desired, &current).await?;
        Ok(Response::new(iac::ResourceDiffResponse {
            result: Some(diff.into()),
        }))
    }

    async fn scale(
        &self,
        request: Request<iac::ResourceScaleRequest>,
    ) -> Result<Response<iac::ResourceScaleResponse>, Status> {
        let provider = self.ready().await?;
        let request = request.into_inner();
        let driver = driver(&provider, &request.resource_type)?;
        let prior = recorded(request.r#ref, &request.resource_type)?;
        let replicas = u32::try_from(request.replicas)
            .map_err(|_| Error::invalid(format!("{} instances cannot be", request.replicas)))?;
        let scaled = driver.scale(&prior, replicas).await?;
        Ok(Response::new(iac::ResourceScaleResponse {
            output: output(scaled, &prior.name, &prior.kind)?,
        }))
    }

    async fn health_check(
        &self,
        request: Request<iac::ResourceHealthCheckRequest>,
    ) -> Result<Response<iac::ResourceHealthCheckResponse>, Status> {
        let provider = self.ready().await?;
        let request = request.into_inner();
        let driver = driver(&provider, &request.resource_type)?;
        let prior = recorded(request.r#ref, &request.resource_type)?;
        let health = driver.health(&prior).await?;
        Ok(Response::new(iac::ResourceHealthCheckResponse {
            result: Some(iac::HealthResult {
                healthy: health.healthy,
                message: health.message,
            }),
        }))
    }

    async fn sensitive_keys(
        &self,
        request: Request<iac::SensitiveKeysRequest>,
    ) -> Result<Response<iac::SensitiveKeysResponse>, Status> {
        let provider = self.any().await?;
        let keys = driver(&provider, &request.into_inner().resource_type)?.sensitive_keys();
        Ok(Response::new(iac::SensitiveKeysResponse { keys }))
    }

    async fn troubleshoot(
        &self,
        request: Request<iac::TroubleshootRequest>,
    ) -> Result<Response<iac::TroubleshootResponse>, Status> {
        let provider = self.ready().await?;
        let request = request.into_inner();
        let driver = driver(&provider, &request.resource_type)?;
        let prior = recorded(request.r#ref, &request.resource_type)?;
        let causes = driver.troubleshoot(&prior, &request.failure_msg).await?;
        Ok(Response::new(iac::TroubleshootResponse {
            diagnostics: causes.into_iter().map(Into::into).collect(),
        }))
    }
}
