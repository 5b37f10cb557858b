//! Write a provider plugin: implement [`Provider`] and [`Driver`], call [`serve`].
//!
//! ```no_run
//! # use tidegate_plugin::{About, Driver, Kind, Provider, Result, Map};
//! # struct Files;
//! # #[tidegate_plugin::async_trait]
//! # impl Provider for Files {
//! #     fn about(&self) -> About { tidegate_plugin::about!("files") }
//! #     fn kinds(&self) -> Vec<Kind> { vec![] }
//! #     fn driver(&self, _: &str) -> Option<&dyn Driver> { None }
//! #     async fn initialize(&mut self, _: Map) -> Result<()> { Ok(()) }
//! # }
//! fn main() -> std::process::ExitCode {
//!     tidegate_plugin::serve(Files)
//! }
//! ```
//!
//! The rest is done here: the launch handshake, health, the services every plugin carries, an
//! orderly end, and the mapping of errors that hosts recognise. What a provider can do beyond the
//! two traits it says through the optional methods of [`Provider`]; only what it says is advertised.
//!
//! Without the default feature `serve` the crate holds the wire only ([`iac`], [`plugin`],
//! [`launch`]), for hosts; the feature `tls` adds the TLS that both sides may speak. `proto/contract.tsv` lists every service, message, field number and
//! type of it, and a test compares that list with what was compiled.

mod client;
mod codec;
pub mod convention;
mod error;
pub mod memory;
pub mod retry;
#[cfg(feature = "tls")]
pub mod tls;
mod wire;

pub use error::{Error, ErrorClass, Result};
pub use wire::{FILE_DESCRIPTOR_SET, iac, launch, plugin};

#[cfg(feature = "serve")]
mod ability;
#[cfg(feature = "serve")]
mod about;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "serve")]
mod manifest;
#[cfg(feature = "serve")]
mod noun;
#[cfg(feature = "serve")]
mod provider;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "serve")]
mod state;

#[cfg(feature = "serve")]
pub use self::{
    ability::{
        DetectDrift, DiscoverRequirements, Enumerate, Finalize, ListRegions, LogStream,
        MapRequirements, Ownership, ReadLogs, RepairMigration, RevokeCredential, RunJobs, Validate,
    },
    about::{About, RequiredSecret},
    noun::{
        Action, BootstrappedState, Diagnostic, Diff, Drift, DriftVerdict, FieldChange, Found,
        Health, Hints, JobState, JobStatus, Kind, LogChunk, LogKind, LogRequest, Map, Observed,
        Owned, Owner, Plan, PlannedAction, Recorded, Region, Remark, Severity, Sizing, Spec, Tier,
        Unfinished,
    },
    provider::{Driver, Provider},
    serve::{Plugin, serve},
    state::{Before, StateBackend, StateRecord, StateStore, matches},
};
#[cfg(feature = "serve")]
pub use async_trait::async_trait;
#[cfg(feature = "serve")]
pub use bytes::Bytes;
