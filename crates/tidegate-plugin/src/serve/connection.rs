//! Connections, and which service a request goes to.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::body::Body;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{self, HealthServer};
use tonic_health::server::{HealthReporter, HealthService};
use tower_service::Service;

use super::body::LengthFirst;
use super::core::Core;
use super::launch::Admission;
use super::listen::Listener;
use crate::{iac, launch, plugin};

/// How long calls that still run may take once the host has asked for the end. A host kills after
/// two seconds.
const GRACE: Duration = Duration::from_millis(500);
/// How long a peer may take over the handshake of TLS.
const ADMISSION: Duration = Duration::from_secs(10);
/// A state record of a megabyte goes through without waiting for anybody's permission.
const WINDOW: u32 = 8 << 20;
/// As much as a Go server takes.
const HEADER_BYTES_MAX: u32 = 16 << 20;
const FRAME: u32 = 1 << 20;
const SEND_BUFFER: usize = 4 << 20;
/// The largest message the launch library of existing hosts sends.
const MESSAGE: usize = i32::MAX as usize;

/// Takes connections until the host asks for the end, or is gone.
pub(crate) async fn accept(core: Arc<Core>, listener: Listener, admission: Admission) {
    let admission = Arc::new(admission);
    let health = HealthReporter::new();
    health
        .set_service_status("plugin", ServingStatus::Serving)
        .await;
    let router = Router {
        core: Arc::clone(&core),
        health: HealthServer::new(HealthService::from_health_reporter(health)),
    };
    let mut ending = core.ending.subscribe();
    let mut connections = JoinSet::new();
    let mut orphaned = std::pin::pin!(orphaned());
    loop {
        tokio::select! {
            _ = ending.wait_for(|ending| *ending) => break,
            () = &mut orphaned => {
                core.ending.send_replace(true);
                break;
            }
            Some(_) = connections.join_next() => {}
            accepted = next(&listener) => match accepted {
                Ok((stream, peer)) => {
                    let (admission, router) = (Arc::clone(&admission), router.clone());
                    let ending = core.ending.subscribe();
                    connections.spawn(async move {
                        if let Some(stream) = admit(stream, peer, &admission).await {
                            converse(stream, router, ending).await;
                        }
                    });
                }
                // Out of file descriptors, most likely: some will come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    // Whoever has not ended by now is cut off when the runtime goes.
    drop(tokio::time::timeout(GRACE, all_ended).await);
}

type Connection = Pin<Box<dyn ReadWrite>>;

trait ReadWrite: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> ReadWrite for T {}

/// The next connection, and the process at its other end where the kernel knows.
async fn next(listener: &Listener) -> std::io::Result<(Connection, Option<u32>)> {
    Ok(match listener {
        #[cfg(unix)]
        Listener::Socket { listener, .. } => {
            let stream = listener.accept().await?.0;
            let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
            let peer = peer.and_then(|peer| u32::try_from(peer).ok());
            // A smaller one does as well, only slower.
            let _larger = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
            (Box::pin(stream), peer)
        }
        Listener::Port(listener) => {
            let stream = listener.accept().await?.0;
            stream.set_nodelay(true)?;
            (Box::pin(stream), None)
        }
    })
}

/// Lets a peer in, which is only the host that launched us if it told us how to know it. Whoever
/// else it was learns it from the alert, or from the end, and nobody else has to hear of it.
async fn admit(stream: Connection, peer: Option<u32>, admission: &Admission) -> Option<Connection> {
    match admission {
        Admission::Anybody => Some(stream),
        Admission::Process(host) => (peer == Some(*host)).then_some(stream),
        Admission::Certificate { acceptor, .. } => {
            let admitted = tokio::time::timeout(ADMISSION, acceptor.accept(stream)).await;
            Some(Box::pin(admitted.ok()?.ok()?))
        }
    }
}

async fn converse(stream: Connection, router: Router, mut ending: watch::Receiver<bool>) {
    let mut builder = http2::Builder::new(Tasks);
    builder
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADER_BYTES_MAX)
        // Nobody at the other end of a socket asks when it was.
        .auto_date_header(false);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), router));
    tokio::select! {
        // A peer that hangs up in the middle of a sentence is no business of ours.
        _ = &mut connection => return,
        _ = ending.wait_for(|ending| *ending) => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}

/// Runs hyper's tasks.
#[derive(Clone, Copy)]
struct Tasks;

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        tokio::spawn(task);
    }
}

/// Ready when the process that launched us is gone: nobody will ever ask for anything again, and
/// nobody else would end us.
async fn orphaned() {
    #[cfg(unix)]
    {
        let host = rustix::process::getppid();
        while rustix::process::getppid() == host {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    #[cfg(not(unix))]
    std::future::pending::<()>().await;
}

#[derive(Clone)]
struct Router {
    core: Arc<Core>,
    health: HealthServer<HealthService>,
}

impl hyper::service::Service<Request<Incoming>> for Router {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let router = self.clone();
        Box::pin(async move {
            let answer = AssertUnwindSafe(router.route(request)).catch_unwind().await;
            // The panic's text is on stderr already. The plugin lives on: other calls are running.
            Ok(answer.unwrap_or_else(|_| {
                Status::internal("the plugin panicked; its stderr says where").into_http()
            }))
        })
    }
}

macro_rules! answer {
    ($core:expr, $request:expr, $server:path) => {{
        let mut server = <$server>::from_arc($core).max_decoding_message_size(MESSAGE);
        let Ok(response) = server.call($request).await;
        response
    }};
}

impl Router {
    /// The service is the first part of the path. `:authority` is not looked at: hosts of different
    /// makes send different ones.
    async fn route(self, request: Request<Incoming>) -> Response<Body> {
        use iac::{
            ia_c_provider_credential_revoker_server as credential_revoker,
            ia_c_provider_drift_config_detector_server as drift_config_detector,
            ia_c_provider_drift_detector_server as drift_detector,
            ia_c_provider_enumerator_server as enumerator,
            ia_c_provider_finalizer_server as finalizer,
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
        use launch::{
            grpc_broker_server as broker, grpc_controller_server as controller,
            grpc_stdio_server as stdio,
        };
        use plugin::plugin_service_server as plugin_service;

        let core = self.core;
        let request = request.map(LengthFirst::new);
        let path = request.uri().path();
        let service = path
            .strip_prefix('/')
            .and_then(|path| path.split('/').next())
            .unwrap_or_default();
        match service {
            health_server::SERVICE_NAME => {
                let mut server = self.health;
                let Ok(response) = server.call(request).await;
                response
            }
            broker::SERVICE_NAME => answer!(core, request, broker::GrpcBrokerServer<Core>),
            controller::SERVICE_NAME => {
                answer!(core, request, controller::GrpcControllerServer<Core>)
            }
            stdio::SERVICE_NAME => answer!(core, request, stdio::GrpcStdioServer<Core>),
            plugin_service::SERVICE_NAME => {
                answer!(core, request, plugin_service::PluginServiceServer<Core>)
            }
            absent if !core.serves(absent) => {
                Status::unimplemented(format!("unknown service {absent}")).into_http()
            }
            required::SERVICE_NAME => {
                answer!(core, request, required::IaCProviderRequiredServer<Core>)
            }
            resource_driver::SERVICE_NAME => {
                answer!(core, request, resource_driver::ResourceDriverServer<Core>)
            }
            state_backend::SERVICE_NAME => {
                answer!(core, request, state_backend::IaCStateBackendServer<Core>)
            }
            enumerator::SERVICE_NAME => {
                answer!(core, request, enumerator::IaCProviderEnumeratorServer<Core>)
            }
            drift_detector::SERVICE_NAME => {
                answer!(
                    core,
                    request,
                    drift_detector::IaCProviderDriftDetectorServer<Core>
                )
            }
            drift_config_detector::SERVICE_NAME => {
                answer!(
                    core,
                    request,
                    drift_config_detector::IaCProviderDriftConfigDetectorServer<Core>
                )
            }
            credential_revoker::SERVICE_NAME => {
                answer!(
                    core,
                    request,
                    credential_revoker::IaCProviderCredentialRevokerServer<Core>
                )
            }
            region_lister::SERVICE_NAME => {
                answer!(
                    core,
                    request,
                    region_lister::IaCProviderRegionListerServer<Core>
                )
            }
            ownership::SERVICE_NAME => {
                answer!(core, request, ownership::IaCProviderOwnershipServer<Core>)
            }
            finalizer::SERVICE_NAME => {
                answer!(core, request, finalizer::IaCProviderFinalizerServer<Core>)
            }
            validator::SERVICE_NAME => {
                answer!(core, request, validator::IaCProviderValidatorServer<Core>)
            }
            log_capture::SERVICE_NAME => answer!(
                core,
                request,
                log_capture::IaCProviderLogCaptureServer<Core>
            ),
            runner::SERVICE_NAME => answer!(core, request, runner::IaCProviderRunnerServer<Core>),
            migration_repairer::SERVICE_NAME => {
                answer!(
                    core,
                    request,
                    migration_repairer::IaCProviderMigrationRepairerServer<Core>
                )
            }
            requirement_discovery::SERVICE_NAME => {
                answer!(
                    core,
                    request,
                    requirement_discovery::IaCRequirementDiscoveryServer<Core>
                )
            }
            requirement_mapper::SERVICE_NAME => {
                answer!(
                    core,
                    request,
                    requirement_mapper::IaCProviderRequirementMapperServer<Core>
                )
            }
            unknown => Status::unimplemented(format!("unknown service {unknown}")).into_http(),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_process_that_launched_it_is_let_in() {
        let own = std::process::id();
        for (host, is_let_in) in [(own, true), (own + 1, false)] {
            let folder = std::env::temp_dir();
            let place = super::super::listen::Place::Socket {
                directory: folder,
                group: None,
            };
            let listener = Listener::bind(&place).unwrap();
            let _client = tokio::net::UnixStream::connect(listener.address()).await;
            let (stream, peer) = next(&listener).await.unwrap();
            let admitted = admit(stream, peer, &Admission::Process(host)).await;
            assert_eq!(admitted.is_some(), is_let_in, "{host}");
        }
    }
}
