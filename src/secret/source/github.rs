//! GitHub Actions secrets as a store that can only be written.

use std::sync::Arc;

use async_trait::async_trait;

use super::{SecretStore, unsupported};
use crate::github::{self, GithubError, Scope, SecretName};
use crate::report::Report;
use crate::secret::{Secret, seal};

/// GitHub Actions secrets: can be written and listed, never read back.
#[derive(Debug)]
pub(super) struct GithubStore {
    pub(super) name: String,
    pub(super) scope: Scope,
    pub(super) token_env: Option<String>,
    pub(super) github: Arc<github::Access>,
}

impl GithubStore {
    fn client(&self) -> Result<Arc<github::Client>, Report> {
        self.github.client(self.token_env.as_deref())
    }

    fn failed(&self, error: &GithubError) -> Report {
        let mut report = error.report();
        report.message = format!("{}: {}", self.place(), report.message);
        report
    }
}

fn secret_name(key: &str) -> Result<SecretName, Report> {
    SecretName::parse(key).map_err(|error| Report::from(&error))
}

#[async_trait]
impl SecretStore for GithubStore {
    fn place(&self) -> String {
        format!("store `{}` (github {})", self.name, self.scope)
    }

    async fn get(&self, key: &str) -> Result<Option<Secret>, Report> {
        Err(unsupported(
            &self.place(),
            &format!(
                "cannot answer `{}`: GitHub never gives a secret back",
                key.escape_debug()
            ),
        )
        .fix("pass it to the step with `env:` and read it from an `env` store"))
    }

    async fn exists(&self, key: &str) -> Result<bool, Report> {
        let name = secret_name(key)?;
        self.client()?
            .secret_exists(&self.scope, &name)
            .await
            .map_err(|error| self.failed(&error))
    }

    async fn set(&self, key: &str, value: &Secret) -> Result<(), Report> {
        let name = secret_name(key)?;
        // Before the network: a value that cannot be sent costs no request.
        seal::check(value).map_err(|error| {
            self.failed(&GithubError::Seal {
                name: key.to_owned(),
                error,
            })
        })?;
        self.client()?
            .put_secret(&self.scope, &name, |recipient| {
                seal::seal(self.github.random(), recipient, value)
            })
            .await
            .map(drop)
            .map_err(|error| self.failed(&error))
    }

    async fn remove(&self, key: &str) -> Result<(), Report> {
        let name = secret_name(key)?;
        self.client()?
            .delete_secret(&self.scope, &name)
            .await
            .map_err(|error| self.failed(&error))
    }
}
