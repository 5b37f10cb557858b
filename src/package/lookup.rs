//! Asking registries: the part of the workshop for plugins that name no `source`.

use super::download::Credential;
use super::manifest::Wanted;
use super::name::Source;
use super::registry::{self, Entry, Place, Registry};
use super::resolve::{Published, Resolver, one_a_platform};
use super::{TOKEN_VARIABLES, Workshop};
use crate::github;
use crate::http::RedactedUrl;
use crate::report::{Event, Exit, Report};

impl Workshop {
    /// What the first registry that knows a plugin says about it; `None` when none does. One that
    /// cannot be asked ends the search.
    pub async fn find(&self, plugin: &str) -> Result<Option<Entry>, Vec<Report>> {
        let registries = registry::configured(&*self.fetcher.disk, &self.variables)?;
        let api = github::api_base(&self.variables).map_err(|report| vec![report])?;
        for registry in &registries {
            match self.ask(registry, &api, plugin).await {
                Ok(None) => {}
                Ok(entry) => return Ok(entry),
                Err(report) => return Err(vec![report]),
            }
        }
        Ok(None)
    }

    async fn ask(
        &self,
        registry: &Registry,
        api: &str,
        plugin: &str,
    ) -> Result<Option<Entry>, Report> {
        let bad = |why: String| {
            Report::error(
                "package/bad-answer",
                format!(
                    "registry `{}` does not answer usefully about `{plugin}`",
                    registry.name
                ),
            )
            .because(why)
        };
        let credential = self.registry_credential(registry, api)?;
        for name in registry::names(plugin) {
            let url = RedactedUrl::parse(&registry.manifest_url(api, name))
                .map_err(|problem| bad(problem.to_string()))?;
            let answer = self
                .fetcher
                .small(&url, registry.accept(), credential.as_ref())
                .await?;
            if let Some(bytes) = answer {
                return registry::entry(registry, plugin, &bytes)
                    .map(Some)
                    .map_err(bad);
            }
        }
        Ok(None)
    }

    /// The token for a registry: the variable it names, which must be set; for one on GitHub the
    /// first of the general ones that is.
    fn registry_credential(
        &self,
        registry: &Registry,
        api: &str,
    ) -> Result<Option<Credential>, Report> {
        let (variable, server) = match &registry.place {
            Place::Static { token: None, .. } => return Ok(None),
            Place::Static {
                url,
                token: Some(named),
            } => {
                if self.variables.non_empty(named).is_none() {
                    return Err(Report::error(
                        "package/no-token",
                        format!(
                            "registry `{}` needs a token, and `{named}` is not set",
                            registry.name
                        ),
                    )
                    .fix(format!("set `{named}`"))
                    .exit(Exit::Usage));
                }
                (named.as_str(), url.as_str())
            }
            Place::Github { .. } => {
                let set = TOKEN_VARIABLES
                    .into_iter()
                    .find(|name| self.variables.non_empty(name).is_some());
                match set {
                    Some(name) => (name, api),
                    None => return Ok(None),
                }
            }
        };
        self.token_for(variable, server).map(Some)
    }

    /// The entry of a plugin that must be in a registry.
    pub(super) async fn entry_of(&self, plugin: &Wanted) -> Result<Entry, Report> {
        let found = self.find(&plugin.name).await.map_err(|mut reports| {
            // Of a file with several mistakes, the first.
            reports.truncate(1);
            reports
                .pop()
                .unwrap_or_else(|| no_source(plugin, "no registry could be asked"))
        })?;
        let entry =
            found.ok_or_else(|| no_source(plugin, "no registry that is configured knows it"))?;
        if entry.status == "deprecated" {
            self.fetcher.reporter.say(Event::Problem(Box::new(
                Report::warning(
                    "package/deprecated",
                    format!(
                        "registry `{}` calls `{}` deprecated",
                        entry.registry, plugin.name
                    ),
                )
                .at_maybe(plugin.at.clone()),
            )));
        }
        Ok(entry)
    }

    /// Every archive of a plugin without `source`, as its registry lists them with digests; else as
    /// the release its registry names publishes them.
    pub(super) async fn listed(
        &self,
        plugin: &Wanted,
        resolver: &Resolver<'_>,
    ) -> Result<Vec<Published>, Report> {
        if plugin.auth_env.is_some() {
            return Err(no_source(
                plugin,
                "`auth.env` holds a token for a `source`, and there is none",
            ));
        }
        let entry = self.entry_of(plugin).await?;
        let source = entry.source.as_ref().map(ToString::to_string);
        if entry.is_private {
            // An install reads only the lock, and would not know whom to show the token.
            return Err(no_source(
                plugin,
                &format!(
                    "registry `{}` says that its archives are private; they are at {}",
                    entry.registry,
                    source.as_deref().unwrap_or("a place it does not name"),
                ),
            ));
        }
        let bare = |version: &str| version.trim_start_matches('v').to_owned();
        let is_same = bare(&entry.version) == bare(&plugin.version);
        match (entry.downloads, &entry.source) {
            (Some(downloads), _) if is_same => {
                let place = format!("registry `{}`", entry.registry);
                one_a_platform(plugin, &place, downloads)
            }
            (_, Some(Source::Github { .. })) => {
                let there = Wanted {
                    source: entry.source.clone(),
                    ..plugin.clone()
                };
                let credential = self.credential(&there, resolver.api)?;
                resolver.published(&there, credential.as_ref()).await
            }
            (Some(_), _) => Err(Report::error(
                "package/no-release",
                format!(
                    "registry `{}` has `{}` {}, not {}",
                    entry.registry, plugin.name, entry.version, plugin.version
                ),
            )
            .at_maybe(plugin.at.clone())
            .fix("pin the version it has, or name the `source` of the other")
            .exit(Exit::Usage)),
            (None, _) => Err(Report::error(
                "package/no-checksums",
                format!(
                    "registry `{}` lists no digest for every archive of `{}`, and no repository with releases",
                    entry.registry, plugin.name
                ),
            )
            .at_maybe(plugin.at.clone())
            .fix("ask its author to list them: what cannot be verified is not locked")),
        }
    }
}

fn no_source(plugin: &Wanted, why: &str) -> Report {
    Report::error(
        "package/no-source",
        format!("`{}` has no `source`", plugin.name),
    )
    .because(why)
    .at_maybe(plugin.at.clone())
    .fix("add `source: github.com/OWNER/REPO`, or the URL of a folder with `checksums.txt`")
    .fix("or name a registry that knows it, under `registries:` of `.wfctl.yaml`")
    .exit(Exit::Usage)
}
