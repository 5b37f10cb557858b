#![doc = include_str!("../ARCHITECTURE.md")]

pub mod cancel;
pub mod clock;
pub mod disk;
pub mod process;
pub mod random;
pub mod variables;

pub mod report;
pub mod resource;
pub mod secret;

pub mod config;
pub mod plan;
pub mod rules;

pub mod actions;
pub mod github;
pub mod http;
pub mod package;
mod postgres;
pub mod provider;
pub mod sink;
pub mod state;
pub mod verify;

pub mod apply;

pub mod cli;
pub mod command;
pub mod face;
pub mod settings;
pub mod ui;
