//! Checks a built plugin against the contract, from the plugin's own tests.
//!
//! ```no_run
//! use serde_json::json;
//! use tidegate_plugin::conformance::{Conformance, Sample};
//!
//! Conformance::of(env!("CARGO_PKG_NAME")) // in a test: env!("CARGO_BIN_EXE_my-plugin")
//!     .config(json!({ "directory": "/tmp/files" }))
//!     .sample(
//!         Sample::new("infra.file", "greeting", json!({ "content": "hello" }))
//!             .changed(json!({ "content": "good evening" })),
//!     )
//!     .run()
//!     .assert();
//! ```
//!
//! The plugin is launched over the real handshake, and really makes, changes and removes the
//! samples: give it a place of its own. Any executable that speaks the contract can be checked, in
//! whatever language it is written.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "this runs in the author's tests, outside the seams of the host"
)]

mod ability;
mod launch;
mod life;
mod process;
mod store;
mod work;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

pub use launch::{Channel, Launched};

/// No scenario may take longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is checked: an executable, the config it needs, and resources it can make.
#[derive(Clone, Debug)]
pub struct Conformance {
    executable: PathBuf,
    config: Value,
    samples: Vec<Sample>,
    backends: Vec<(String, Value)>,
    environment: Vec<(String, String)>,
    bootstrap: Option<Value>,
    job: Option<String>,
}

/// A resource that can be made, changed and removed.
#[derive(Clone, Debug)]
pub struct Sample {
    kind: String,
    name: String,
    config: Value,
    changed: Option<Value>,
    names_are_unique: bool,
}

impl Sample {
    /// A resource of that kind and name with a config that works.
    pub fn new(kind: impl Into<String>, name: impl Into<String>, config: Value) -> Self {
        Self {
            kind: kind.into(),
            name: name.into(),
            config,
            changed: None,
            names_are_unique: true,
        }
    }

    /// Another config that it can be changed to in place.
    #[must_use]
    pub fn changed(mut self, config: Value) -> Self {
        self.changed = Some(config);
        self
    }

    /// Says that two resources of one name may exist, or that a create takes over what is there:
    /// then nothing is asked of a second create.
    #[must_use]
    pub fn names_may_repeat(mut self) -> Self {
        self.names_are_unique = false;
        self
    }
}

/// How every scenario ended.
#[derive(Debug)]
#[must_use = "call `assert`, or look at `failures`"]
pub struct Outcome {
    ended: Vec<(String, Result<(), String>)>,
}

impl Outcome {
    /// Panics unless every scenario passed, and names those that did not.
    #[track_caller]
    pub fn assert(self) {
        println!("{self}");
        assert!(self.failures().next().is_none(), "{self}");
    }

    /// The scenarios that failed, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ended
            .iter()
            .filter_map(|(name, ended)| Some((name.as_str(), ended.as_ref().err()?.as_str())))
    }

    /// The scenarios that passed.
    pub fn passed(&self) -> impl Iterator<Item = &str> {
        self.ended
            .iter()
            .filter(|(_, ended)| ended.is_ok())
            .map(|(name, _)| name.as_str())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, ended) in &self.ended {
            match ended {
                Ok(()) => writeln!(f, "ok      {name}")?,
                Err(why) => writeln!(f, "FAILED  {name}: {why}")?,
            }
        }
        Ok(())
    }
}

impl Conformance {
    /// Checks that executable.
    pub fn of(executable: impl Into<PathBuf>) -> Self {
        Self {
            executable: executable.into(),
            config: Value::Null,
            samples: Vec::new(),
            backends: Vec::new(),
            environment: Vec::new(),
            bootstrap: None,
            job: None,
        }
    }

    /// The provider's config.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// A resource to take through its life.
    #[must_use]
    pub fn sample(mut self, sample: Sample) -> Self {
        self.samples.push(sample);
        self
    }

    /// A state backend to keep records in, with its settings. The place must be empty.
    #[must_use]
    pub fn state_backend(mut self, name: impl Into<String>, settings: Value) -> Self {
        self.backends.push((name.into(), settings));
        self
    }

    /// Settings of a state module whose place the provider is to make; it is made twice.
    #[must_use]
    pub fn bootstraps(mut self, settings: Value) -> Self {
        self.bootstrap = Some(settings);
        self
    }

    /// A command that a job of the provider can run, and that succeeds.
    #[must_use]
    pub fn job(mut self, command: impl Into<String>) -> Self {
        self.job = Some(command.into());
        self
    }

    /// A variable in the plugin's environment.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs every scenario.
    ///
    /// # Panics
    /// When no runtime can be made.
    pub fn run(&self) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut book = Book { ended: Vec::new() };
            process::scenarios(self, &mut book).await;
            life::scenarios(self, &mut book).await;
            store::scenarios(self, &mut book).await;
            Outcome { ended: book.ended }
        })
    }

    /// Launches the plugin, for scenarios of the author's own.
    ///
    /// # Errors
    /// When it does not answer the handshake.
    pub async fn launch(&self) -> Result<Launched, String> {
        Launched::start(self).await
    }

    fn config_json(&self) -> Vec<u8> {
        if self.config.is_null() {
            return Vec::new();
        }
        self.config.to_string().into_bytes()
    }
}

/// Where the scenarios write how they ended.
struct Book {
    ended: Vec<(String, Result<(), String>)>,
}

impl Book {
    /// Runs a scenario and answers whether it passed.
    async fn check(
        &mut self,
        name: impl Into<String>,
        scenario: impl Future<Output = Result<(), String>>,
    ) -> bool {
        let ended = tokio::time::timeout(PATIENCE, scenario)
            .await
            .unwrap_or_else(|_| Err(format!("no end within {} s", PATIENCE.as_secs())));
        let passed = ended.is_ok();
        self.ended.push((name.into(), ended));
        passed
    }
}

/// A sentence when a promise is not kept.
fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// A failed call as a sentence.
fn said(what: &str) -> impl Fn(tonic::Status) -> String + '_ {
    move |status| format!("{what}: {:?} {:?}", status.code(), status.message())
}
