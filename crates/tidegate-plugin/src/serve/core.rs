//! What all services of one plugin share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{RwLock, RwLockReadGuard, watch};
use tonic::Status;

use super::stdio::Stdio;
use crate::iac;
use crate::manifest::Declared;
use crate::{About, Driver, Error, Provider, StateBackend, StateStore};

/// The provider as its handlers see it: nobody is initialising it meanwhile.
pub(crate) type Ready<'a> = RwLockReadGuard<'a, Box<dyn Provider>>;

pub(crate) struct Core {
    pub(crate) declared: Declared,
    pub(crate) provider: Option<RwLock<Box<dyn Provider>>>,
    pub(crate) initialized: AtomicBool,
    pub(crate) backend: Option<Box<dyn StateBackend>>,
    /// The store opened last. A clone of it outlives a replacement, so that running calls end where
    /// they began.
    pub(crate) store: std::sync::RwLock<Option<Arc<dyn StateStore>>>,
    pub(crate) stdio: Arc<Stdio>,
    /// True once the host has asked for the end.
    pub(crate) ending: watch::Sender<bool>,
}

impl Core {
    /// Asks everything that is asked once; answers what is wrong with the answers.
    pub(crate) fn new(
        about: About,
        provider: Option<Box<dyn Provider>>,
        backend: Option<Box<dyn StateBackend>>,
    ) -> Result<Self, Vec<String>> {
        let kinds = provider
            .as_ref()
            .map(|provider| provider.kinds())
            .unwrap_or_default();
        let backends = backend
            .as_ref()
            .map(|backend| backend.names())
            .unwrap_or_default();
        let mut problems: Vec<String> = Vec::new();
        if let Some(provider) = &provider {
            for kind in kinds
                .iter()
                .filter(|kind| provider.driver(&kind.name).is_none())
            {
                problems.push(format!("the kind {:?} has no driver", kind.name));
            }
        }
        if backend.is_some() && backends.is_empty() {
            problems.push("the state backend has no names".to_owned());
        }
        let declared = Declared {
            services: served(provider.as_deref(), backend.as_deref()),
            has_provider: provider.is_some(),
            about,
            kinds,
            backends,
        };
        problems.extend(declared.problems());
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            declared,
            provider: provider.map(RwLock::new),
            initialized: AtomicBool::new(false),
            backend,
            store: std::sync::RwLock::new(None),
            stdio: Arc::default(),
            ending: watch::Sender::new(false),
        })
    }

    /// The provider, once it has its config.
    pub(crate) async fn ready(&self) -> Result<Ready<'_>, Error> {
        let provider = self.any().await?;
        if !self.initialized.load(Ordering::Acquire) {
            return Err(Error::not_ready("the provider has not been initialised"));
        }
        Ok(provider)
    }

    /// The provider, with or without a config.
    pub(crate) async fn any(&self) -> Result<Ready<'_>, Error> {
        match &self.provider {
            Some(provider) => Ok(provider.read().await),
            None => Err(Error::unimplemented("this plugin provides no resources")),
        }
    }

    pub(crate) fn serves(&self, service: &str) -> bool {
        self.declared.services.contains(&service)
    }
}

/// The driver for a kind. A kind nobody knows is a wrong request, and never "the resource is not
/// there": a host that read it so would make the resource again.
pub(crate) fn driver<'a>(provider: &'a Ready<'_>, kind: &str) -> Result<&'a dyn Driver, Error> {
    if kind.is_empty() {
        return Err(Error::invalid("the request names no resource type"));
    }
    provider
        .driver(kind)
        .ok_or_else(|| Error::invalid(format!("this plugin has no resource type {kind:?}")))
}

/// A part of a request that must be there.
pub(crate) fn required<T>(part: Option<T>, name: &str) -> Result<T, Status> {
    part.ok_or_else(|| Error::invalid(format!("the request has no {name}")).into())
}

/// Names of the services that are served, sorted.
fn served(
    provider: Option<&dyn Provider>,
    backend: Option<&dyn StateBackend>,
) -> Vec<&'static str> {
    use iac::{
        ia_c_provider_credential_revoker_server as credential_revoker,
        ia_c_provider_drift_config_detector_server as drift_config_detector,
        ia_c_provider_drift_detector_server as drift_detector,
        ia_c_provider_enumerator_server as enumerator, ia_c_provider_finalizer_server as finalizer,
        ia_c_provider_log_capture_server as log_capture,
        ia_c_provider_migration_repairer_server as migration_repairer,
        ia_c_provider_ownership_server as ownership,
        ia_c_provider_region_lister_server as region_lister,
        ia_c_provider_required_server as required,
        ia_c_provider_requirement_mapper_server as requirement_mapper,
        ia_c_provider_runner_server as runner, ia_c_provider_validator_server as validator,
        ia_c_requirement_discovery_server as requirement_discovery,
        ia_c_state_backend_server as state_backend, resource_driver_server as resource_driver,
    };
    let mut names = Vec::new();
    if let Some(provider) = provider {
        names.extend([required::SERVICE_NAME, resource_driver::SERVICE_NAME]);
        let drifts = provider.detect_drift().is_some();
        for (has, name) in [
            (provider.enumerate().is_some(), enumerator::SERVICE_NAME),
            (drifts, drift_detector::SERVICE_NAME),
            (drifts, drift_config_detector::SERVICE_NAME),
            (
                provider.revoke_credential().is_some(),
                credential_revoker::SERVICE_NAME,
            ),
            (
                provider.list_regions().is_some(),
                region_lister::SERVICE_NAME,
            ),
            (provider.ownership().is_some(), ownership::SERVICE_NAME),
            (provider.finalize().is_some(), finalizer::SERVICE_NAME),
            (provider.validate().is_some(), validator::SERVICE_NAME),
            (provider.read_logs().is_some(), log_capture::SERVICE_NAME),
            (provider.run_jobs().is_some(), runner::SERVICE_NAME),
            (
                provider.repair_migration().is_some(),
                migration_repairer::SERVICE_NAME,
            ),
            (
                provider.discover_requirements().is_some(),
                requirement_discovery::SERVICE_NAME,
            ),
            (
                provider.map_requirements().is_some(),
                requirement_mapper::SERVICE_NAME,
            ),
        ] {
            if has {
                names.push(name);
            }
        }
    }
    if backend.is_some() {
        names.push(state_backend::SERVICE_NAME);
    }
    names.sort_unstable();
    names
}
