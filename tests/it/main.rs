//! The single integration binary: linked once, modules named after rooms.
#![allow(
    clippy::disallowed_methods,
    reason = "tests stand outside the seams they test"
)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test stops at the first surprise"
)]

mod action;
mod beside;
mod cancel;
mod config;
mod e2e;
mod engine;
mod github;
mod harness;
mod json;
mod kill;
mod local;
mod main_job;
mod mask;
mod package;
mod plan;
mod plugin;
mod runner;
mod scenarios;
mod sim;
mod sink;
mod state;
mod tidy;
mod verify;
