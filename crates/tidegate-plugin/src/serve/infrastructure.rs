//! The services that every plugin carries beside its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, future, stream};
use tonic::{Request, Response, Status, Streaming};

use super::core::Core;
use crate::launch::grpc_broker_server::GrpcBroker;
use crate::launch::grpc_controller_server::GrpcController;
use crate::launch::grpc_stdio_server::GrpcStdio;
use crate::launch::{ConnInfo, Empty, StdioData};
use crate::plugin::plugin_service_server::PluginService;
use crate::plugin::{
    self, ContractDescriptor, ContractKind, ContractMode, ContractRegistry, Manifest,
};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Ready once the host has asked for the end.
pub(super) fn ended(core: &Core) -> impl Future<Output = ()> + Send + use<> {
    let mut ending = core.ending.subscribe();
    async move {
        drop(ending.wait_for(|ending| *ending).await);
    }
}

#[tonic::async_trait]
impl GrpcController for Core {
    async fn shutdown(&self, _request: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.ending.send_replace(true);
        Ok(Response::new(Empty {}))
    }
}

#[tonic::async_trait]
impl GrpcStdio for Core {
    type StreamStdioStream = Answers<StdioData>;

    async fn stream_stdio(
        &self,
        _request: Request<()>,
    ) -> Result<Response<Self::StreamStdioStream>, Status> {
        let reader = (Arc::clone(&self.stdio), self.ending.subscribe());
        let printed = stream::unfold(reader, |(stdio, mut ending)| async move {
            let piece = tokio::select! {
                biased;
                piece = stdio.next() => Some(piece),
                // What was printed before the end has gone out: the other arm is asked first.
                _ = ending.wait_for(|ending| *ending) => None,
            };
            piece.map(|piece| (Ok(piece), (stdio, ending)))
        });
        Ok(Response::new(Box::pin(printed)))
    }
}

#[tonic::async_trait]
impl GrpcBroker for Core {
    type StartStreamStream = Answers<ConnInfo>;

    /// Hosts open the stream as a matter of course. We never ask for a connection, so it stays
    /// silent until either side ends it.
    async fn start_stream(
        &self,
        request: Request<Streaming<ConnInfo>>,
    ) -> Result<Response<Self::StartStreamStream>, Status> {
        let mut offers = request.into_inner();
        let silence = async move { while let Some(Ok(_)) = offers.next().await {} };
        let end = future::select(Box::pin(silence), Box::pin(ended(self)));
        let nothing = stream::once(end).filter_map(|_| future::ready(None));
        Ok(Response::new(Box::pin(nothing)))
    }
}

/// RPCs of plugins that bring modules, steps and triggers, which this kit does not make.
macro_rules! unserved {
    ($($name:ident($request:ty) -> $response:ty;)*) => {$(
        fn $name<'life0, 'async_trait>(
            &'life0 self,
            _request: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(future::ready(Err(Status::unimplemented(concat!(
                "infrastructure plugins have no ",
                stringify!($name)
            )))))
        }
    )*};
}

#[tonic::async_trait]
impl PluginService for Core {
    async fn get_manifest(&self, _request: Request<()>) -> Result<Response<Manifest>, Status> {
        let about = &self.declared.about;
        Ok(Response::new(Manifest {
            name: about.name.clone(),
            version: about.version.clone(),
            author: about.author.clone(),
            description: about.description.clone(),
            config_mutable: false,
            sample_category: String::new(),
        }))
    }

    async fn get_contract_registry(
        &self,
        _request: Request<()>,
    ) -> Result<Response<ContractRegistry>, Status> {
        let contracts = self
            .declared
            .services
            .iter()
            .map(|service| ContractDescriptor {
                kind: ContractKind::Service.into(),
                mode: ContractMode::StrictProto.into(),
                service_name: (*service).to_owned(),
                ..ContractDescriptor::default()
            })
            .collect();
        Ok(Response::new(ContractRegistry {
            contracts,
            file_descriptor_set: None,
        }))
    }

    unserved! {
        get_module_types(()) -> plugin::TypeList;
        get_step_types(()) -> plugin::TypeList;
        get_trigger_types(()) -> plugin::TypeList;
        get_module_schemas(()) -> plugin::ModuleSchemaList;
        create_module(plugin::CreateModuleRequest) -> plugin::HandleResponse;
        init_module(plugin::HandleRequest) -> plugin::ErrorResponse;
        start_module(plugin::HandleRequest) -> plugin::ErrorResponse;
        stop_module(plugin::HandleRequest) -> plugin::ErrorResponse;
        destroy_module(plugin::HandleRequest) -> plugin::ErrorResponse;
        create_step(plugin::CreateStepRequest) -> plugin::HandleResponse;
        execute_step(plugin::ExecuteStepRequest) -> plugin::ExecuteStepResponse;
        destroy_step(plugin::HandleRequest) -> plugin::ErrorResponse;
        invoke_service(plugin::InvokeServiceRequest) -> plugin::InvokeServiceResponse;
        deliver_message(plugin::DeliverMessageRequest) -> plugin::DeliverMessageResponse;
        get_config_fragment(()) -> plugin::ConfigFragmentResponse;
        get_asset(plugin::GetAssetRequest) -> plugin::GetAssetResponse;
        configure_callback(plugin::ConfigureCallbackRequest) -> plugin::ErrorResponse;
        create_trigger(plugin::CreateTriggerRequest) -> plugin::HandleResponse;
    }
}
