//! GitHub Actions secrets, of a repository or of one of its environments.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use super::{LastWritten, Put, Sink, SinkError, SinkTools, refuse_empty};
use crate::github::{Access, Client, NameError, Scope, SecretName};
use crate::report::{Event, Report, Reporter};
use crate::secret::{Secret, seal};

/// One scope's secrets, written with one token.
pub(super) struct GithubSecret {
    scope: Scope,
    token_env: Option<String>,
    github: Arc<Access>,
    reporter: Arc<dyn Reporter>,
    /// What stood there when it was first asked; `None` when that may not be looked at.
    listed: OnceCell<Option<BTreeMap<String, OffsetDateTime>>>,
}

impl std::fmt::Debug for GithubSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GithubSecret({})", self.scope)
    }
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
            reporter: Arc::clone(&tools.reporter),
            listed: OnceCell::new(),
        })
    }

    /// One listing tells of every secret of the scope.
    async fn list(&self) -> Option<BTreeMap<String, OffsetDateTime>> {
        let listed = match self.client() {
            Ok(client) => client.secrets(&self.scope).await.map_err(SinkError::from),
            Err(error) => Err(error),
        };
        listed
            .map_err(|error| {
                let report = Report::warning(
                    "sink/unlisted",
                    format!(
                        "the secrets of {} cannot be listed: one that was removed or replaced there is not noticed",
                        self.scope
                    ),
                )
                .because(error.message)
                .fix("let the token read secrets, too (writing them includes it)");
                self.reporter.say(Event::Problem(Box::new(report)));
            })
            .ok()
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

    async fn last_written(&self, name: &str) -> LastWritten {
        let (Ok(name), Some(listed)) = (legal(name), self.listed.get_or_init(|| self.list()).await)
        else {
            return LastWritten::Untold;
        };
        listed
            .get(&name.stored())
            .map_or(LastWritten::Never, |at| LastWritten::At(*at))
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
