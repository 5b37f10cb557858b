//! `IaCStateBackend`: records.

use std::sync::{Arc, PoisonError};

use tonic::{Request, Response, Status};

use super::core::{Core, required};
use crate::iac;
use crate::iac::ia_c_state_backend_server::IaCStateBackend;
use crate::noun::map_from;
use crate::{Before, Error, StateBackend, StateStore, convention};

impl Core {
    fn backend(&self) -> Result<&dyn StateBackend, Error> {
        self.backend
            .as_deref()
            .ok_or_else(|| Error::unimplemented("this plugin keeps no state"))
    }

    /// The store that was configured last.
    fn store(&self) -> Result<Arc<dyn StateStore>, Error> {
        self.store
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or_else(|| Error::not_ready("no state backend has been configured"))
    }
}

#[tonic::async_trait]
impl IaCStateBackend for Core {
    async fn configure(
        &self,
        request: Request<iac::ConfigureRequest>,
    ) -> Result<Response<iac::ConfigureResponse>, Status> {
        let backend = self.backend()?;
        let iac::ConfigureRequest {
            backend_name,
            config_json,
        } = request.into_inner();
        if !self.declared.backends.contains(&backend_name) {
            return Err(Error::invalid(format!(
                "there is no state backend {backend_name:?} here, only {}",
                self.declared.backends.join(", ")
            ))
            .into());
        }
        let settings = map_from(&config_json, "config_json")?;
        let opened = backend.configure(&backend_name, settings).await?;
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = Some(opened.into());
        Ok(Response::new(iac::ConfigureResponse {}))
    }

    async fn get_state(
        &self,
        request: Request<iac::GetStateRequest>,
    ) -> Result<Response<iac::GetStateResponse>, Status> {
        let store = self.store()?;
        let id = &request.get_ref().resource_id;
        let state = if id == convention::PROBE && store.compares() {
            Some(iac::IaCState {
                resource_id: id.clone(),
                status: convention::COMPARES.to_owned(),
                ..iac::IaCState::default()
            })
        } else {
            store.get(id).await?
        };
        Ok(Response::new(iac::GetStateResponse {
            exists: state.is_some(),
            state,
        }))
    }

    async fn save_state(
        &self,
        request: Request<iac::SaveStateRequest>,
    ) -> Result<Response<iac::SaveStateResponse>, Status> {
        let store = self.store()?;
        let mut record = required(request.into_inner().state, "state")?;
        if record.resource_id.is_empty() {
            return Err(Error::invalid("the record has no id").into());
        }
        if record.resource_type == convention::OBJECT && store.compares() {
            let before = std::mem::take(&mut record.config_hash);
            if before == convention::NOTHING {
                store.save_if(record, Before::Nothing).await?;
                return Ok(Response::new(iac::SaveStateResponse {}));
            }
            if let Some(version) = before.strip_prefix(convention::VERSION) {
                let before = Before::Version(version.to_owned());
                store.save_if(record, before).await?;
                return Ok(Response::new(iac::SaveStateResponse {}));
            }
        }
        store.save(record).await?;
        Ok(Response::new(iac::SaveStateResponse {}))
    }

    async fn list_states(
        &self,
        request: Request<iac::ListStatesRequest>,
    ) -> Result<Response<iac::ListStatesResponse>, Status> {
        let states = self.store()?.list(&request.get_ref().filter).await?;
        Ok(Response::new(iac::ListStatesResponse { states }))
    }

    async fn delete_state(
        &self,
        request: Request<iac::DeleteStateRequest>,
    ) -> Result<Response<iac::DeleteStateResponse>, Status> {
        self.store()?.delete(&request.get_ref().resource_id).await?;
        Ok(Response::new(iac::DeleteStateResponse {}))
    }

    async fn lock(
        &self,
        request: Request<iac::LockRequest>,
    ) -> Result<Response<iac::LockResponse>, Status> {
        self.store()?.lock(&request.get_ref().resource_id).await?;
        Ok(Response::new(iac::LockResponse {}))
    }

    async fn unlock(
        &self,
        request: Request<iac::UnlockRequest>,
    ) -> Result<Response<iac::UnlockResponse>, Status> {
        self.store()?.unlock(&request.get_ref().resource_id).await?;
        Ok(Response::new(iac::UnlockResponse {}))
    }

    async fn list_backend_names(
        &self,
        _request: Request<iac::ListBackendNamesRequest>,
    ) -> Result<Response<iac::ListBackendNamesResponse>, Status> {
        Ok(Response::new(iac::ListBackendNamesResponse {
            backend_names: self.declared.backends.clone(),
        }))
    }
}
