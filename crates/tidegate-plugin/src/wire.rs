//! The wire, generated from `proto/`.

/// The provider contract: infrastructure, state, drift, logs, jobs.
#[allow(
    missing_docs,
    unused_mut,
    clippy::all,
    reason = "generated; documented in the .proto file"
)]
pub mod iac {
    tonic::include_proto!("workflow.plugin.external.iac");
}

/// The plugin contract: who a plugin is and what it serves.
#[allow(
    missing_docs,
    unused_mut,
    clippy::all,
    reason = "generated; documented in the .proto file"
)]
pub mod plugin {
    tonic::include_proto!("workflow.plugin.v1");
}

/// The launch contract: what every plugin process serves beside its own services.
#[allow(
    missing_docs,
    unused_mut,
    clippy::all,
    reason = "generated; documented in the .proto file"
)]
pub mod launch {
    tonic::include_proto!("plugin");
}

/// All contracts as an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
