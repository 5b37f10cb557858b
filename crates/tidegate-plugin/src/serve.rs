//! From `main` to the end of the process.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this runs in the author's process, outside the seams of the host"
)]

mod body;
mod connection;
mod core;
mod driver;
mod infrastructure;
mod launch;
mod listen;
mod optional;
mod required;
mod state;
mod stdio;

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use self::core::Core;
use crate::{About, Provider, StateBackend};
use launch::Launch;

/// Serves a provider until the host ends the plugin: the whole of a plugin's `main`.
///
/// Print nothing to stdout before: a host takes the first line for the handshake. Afterwards what is
/// printed goes to the host as log text, and so does stderr from the start.
pub fn serve(provider: impl Provider) -> ExitCode {
    Plugin::new(provider).serve()
}

/// A plugin made of more than one provider, or of none.
pub struct Plugin {
    about: About,
    provider: Option<Box<dyn Provider>>,
    backend: Option<Box<dyn StateBackend>>,
}

impl Plugin {
    /// A plugin that provides resources.
    pub fn new(provider: impl Provider) -> Self {
        Self {
            about: provider.about(),
            provider: Some(Box::new(provider)),
            backend: None,
        }
    }

    /// A plugin that keeps state and provides nothing else.
    pub fn state_only(about: About, backend: impl StateBackend) -> Self {
        Self {
            about,
            provider: None,
            backend: Some(Box::new(backend)),
        }
    }

    /// Adds state backends.
    #[must_use]
    pub fn state_backend(mut self, backend: impl StateBackend) -> Self {
        self.backend = Some(Box::new(backend));
        self
    }

    /// The content of the plugin's `plugin.json`, or everything that is wrong with it.
    ///
    /// A plugin's executable prints the same when its only argument is `--manifest` (hosts pass no
    /// arguments).
    pub fn manifest(self) -> Result<Value, Vec<String>> {
        Core::new(self.about, self.provider, self.backend).map(|core| core.declared.manifest())
    }

    /// Serves until the host ends the plugin.
    pub fn serve(self) -> ExitCode {
        let name = self.about.name.clone();
        let mut arguments = std::env::args_os().skip(1);
        let ended = match (arguments.next(), arguments.next()) {
            (Some(only), None) if only == "--manifest" => self.print_manifest(),
            _ => launch::run(
                self.about,
                self.provider,
                self.backend,
                Launch::from_environment(),
            ),
        };
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                // Nobody is left to tell when stderr is closed.
                drop(writeln!(std::io::stderr(), "{name}: {problem}"));
                ExitCode::FAILURE
            }
        }
    }

    fn print_manifest(self) -> Result<(), String> {
        let manifest = self.manifest().map_err(|problems| problems.join("\n"))?;
        writeln!(std::io::stdout(), "{manifest:#}").map_err(|error| error.to_string())
    }
}
