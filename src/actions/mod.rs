//! The GitHub runner's protocol: workflow commands, annotations, file commands, job summaries,
//! and the facts a job knows about itself. Builders only: what they return is written by
//! [`crate::ui`] or through a [`crate::disk::Disk`], and nobody else may build a command.

pub mod annotation;
pub mod command;
pub mod context;
pub mod file;
pub mod summary;

pub use context::Context;
pub use summary::Summary;
