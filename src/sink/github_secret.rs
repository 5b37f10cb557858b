//! GitHub Actions secrets, of a repository or of one of its environments.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Put, Sink, SinkError, SinkTools, refuse_empty};
use crate::github::{Access, Client, NameError, Scope, SecretName};
use crate::report::Report;
use crate::secret::{Secret, seal};

/// One scope's secrets, written with one token.
#[derive(Debug)]
pub(super) struct GithubSecret {
    scope: Scope,
    token_env: Option<String>,
    github: Arc<Access>,
}

impl GithubSecret {
    /// Checks the words of the config; the token is looked for when it is first needed, so that
    /// plans can be made without one.
    pub(super) fn open(
        repo: &str,
        environment: Option<&str>,
        token_env: Option<String>,
        tools: &SinkTools,
    ) -> Result<Self, Report> {
        Ok(Self {
            scope: Scope::parse(repo, environment).map_err(|error| Report::from(&error))?,
            token_env,
            github: Arc::clone(&tools.github),
        })
    }

    fn client(&self) -> Result<Arc<Client>, SinkError> {
        Ok(self.github.client(self.token_env.as_deref())?)
    }
}

fn legal(name: &str) -> Result<SecretName, SinkError> {
    SecretName::parse(name).map_err(|error: NameError| Report::from(&error).into())
}

#[async_trait]
impl Sink for GithubSecret {
    fn destination(&self) -> String {
        format!("github_secret {}", self.scope)
    }

    fn remembers(&self) -> bool {
        true
    }

    async fn check(&self, names: &[&str]) -> Result<(), SinkError> {
        for name in names {
            legal(name)?;
        }
        self.client()?.recipient_key(&self.scope).await?;
        Ok(())
    }

    async fn put(&self, name: &str, value: &Secret) -> Result<Put, SinkError> {
        let name = legal(name)?;
        refuse_empty(name.as_str(), value)?;
        // Before the network: a value that cannot be sent costs no request.
        seal::check(value).map_err(|error| crate::github::GithubError::Seal {
            name: name.as_str().to_owned(),
            error,
        })?;
        self.client()?
            .put_secret(&self.scope, &name, |key| {
                seal::seal(self.github.random(), key, value)
            })
            .await?;
        // GitHub never tells whether the value differs from the old one; remembering that is the
        // engine's part.
        Ok(Put::Written)
    }

    async fn remove(&self, name: &str) -> Result<(), SinkError> {
        let name = legal(name)?;
        Ok(self.client()?.delete_secret(&self.scope, &name).await?)
    }
}
