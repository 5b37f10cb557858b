//! A provider on paper: it compares what is desired with what is recorded, and can do nothing else.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use crate::provider::{
    Driver, DriverError, DriverResult, ErrorClass, Health, Operation, Provider, config_changes,
};
use crate::resource::{Diff, Kind, Observed, Recorded, Spec};

/// A provider of any type, for every kind.
#[derive(Debug)]
pub(super) struct Paper {
    pub(super) name: String,
    /// By resource type, config paths that cannot be changed in place.
    pub(super) replace_on: BTreeMap<String, BTreeSet<String>>,
}

fn nothing<T>() -> DriverResult<T> {
    Err(DriverError::new(
        ErrorClass::NotFound,
        "nothing is real in a test of the config",
    ))
}

#[async_trait]
impl Driver for Paper {
    async fn create(&self, _: &Operation, _: &Spec) -> DriverResult<Observed> {
        nothing()
    }

    async fn read(&self, _: &Recorded) -> DriverResult<Observed> {
        nothing()
    }

    async fn update(&self, _: &Operation, _: &Recorded, _: &Spec) -> DriverResult<Observed> {
        nothing()
    }

    async fn delete(&self, _: &Operation, _: &Recorded) -> DriverResult<()> {
        nothing()
    }

    async fn diff(&self, prior: &Recorded, desired: &Spec) -> DriverResult<Diff> {
        let mut changes = config_changes(&prior.config, &desired.public_config);
        if let Some(paths) = self.replace_on.get(desired.kind.as_str()) {
            for change in &mut changes {
                change.force_new = paths.contains(&change.path);
            }
        }
        let needs_replace = changes.iter().any(|change| change.force_new);
        Ok(Diff {
            needs_update: !changes.is_empty() && !needs_replace,
            needs_replace,
            changes,
        })
    }

    async fn health(&self, _: &Recorded) -> DriverResult<Health> {
        nothing()
    }

    fn is_sensitive(&self, _: &str) -> Option<bool> {
        Some(false)
    }

    fn check(&self, _: &Spec) -> Vec<(String, String)> {
        Vec::new()
    }
}

#[async_trait]
impl Provider for Paper {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    fn kinds(&self) -> Vec<Kind> {
        Vec::new()
    }

    fn driver(&self, _: &Kind) -> Option<&dyn Driver> {
        Some(self)
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn close(&self) {}
}
