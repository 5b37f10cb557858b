//! The process environment as a store that can only be read.

use std::sync::Arc;

use async_trait::async_trait;

use super::{SecretStore, unsupported};
use crate::report::Report;
use crate::secret::{Masker, Secret};
use crate::variables::Variables;

/// Environment variables: `prefix` + key in upper case with `.` as `_`.
#[derive(Debug)]
pub(super) struct EnvironmentStore {
    pub(super) name: String,
    pub(super) prefix: String,
    pub(super) variables: Arc<Variables>,
    pub(super) masker: Masker,
}

impl EnvironmentStore {
    fn variable(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
            .to_uppercase()
            .replace('.', "_")
    }

    fn read_only(&self) -> Report {
        unsupported(
            &self.place(),
            "cannot be written: a process's environment ends with the process",
        )
        .fix("use a `file` or `github` store for generated secrets")
    }
}

#[async_trait]
impl SecretStore for EnvironmentStore {
    fn place(&self) -> String {
        format!("store `{}` (env)", self.name)
    }

    fn place_of(&self, key: &str) -> Option<String> {
        Some(format!("the variable `{}`", self.variable(key)))
    }

    async fn get(&self, key: &str) -> Result<Option<Secret>, Report> {
        let variable = self.variable(key);
        // An empty variable is how Actions passes a secret that does not exist.
        Ok(self
            .variables
            .non_empty(&variable)
            .map(|value| self.masker.admit(key, value.to_owned())))
    }

    async fn exists(&self, key: &str) -> Result<bool, Report> {
        Ok(self.variables.non_empty(&self.variable(key)).is_some())
    }

    async fn set(&self, _key: &str, _value: &Secret) -> Result<(), Report> {
        Err(self.read_only())
    }

    async fn remove(&self, _key: &str) -> Result<(), Report> {
        Err(self.read_only())
    }
}
