//! From the provider modules of a config to open providers: which are built in, where plugins are.

use std::sync::Arc;

use futures_util::future::join_all;

use super::Desk;
use crate::apply::Providers;
use crate::config::{Config, ProviderDeclaration};
use crate::provider::Provider;
use crate::provider::local::{Local, LocalTools};
use crate::provider::plugin::{self, Deadlines, Plugin};
use crate::report::Report;
use crate::resource::ProviderId;

impl Desk {
    /// Opens every provider of a config, plugins all at once. Problems are collected; the providers
    /// that did open are still there, and end when they are dropped.
    pub(super) async fn open_providers(
        &self,
        config: &Config,
        problems: &mut Vec<Report>,
    ) -> Providers {
        // One that lacks a variable is missed by whoever asks for it (see `Engine::driver`).
        let complete = config
            .providers
            .iter()
            .filter(|(_, declared)| declared.unset().is_empty());
        let opening = complete.map(|(id, declared)| async move {
            let opened = self.open_provider(config, id, declared).await;
            (id, declared, opened)
        });
        let mut providers = Providers::new();
        for (id, declared, opened) in join_all(opening).await {
            match opened {
                Ok(provider) => {
                    providers.insert(id.clone(), provider);
                }
                Err(problem) => problems.push(problem.at_maybe(Some(declared.at.clone()))),
            }
        }
        providers
    }

    async fn open_provider(
        &self,
        config: &Config,
        id: &ProviderId,
        declared: &ProviderDeclaration,
    ) -> Result<Arc<dyn Provider>, Report> {
        let settings = self.known_map(&declared.config, &format!("provider `{id}`"))?;
        if declared.provider == "local" {
            let tools = LocalTools {
                disk: Arc::clone(&self.disk),
                clock: Arc::clone(&self.clock),
                random: Arc::clone(&self.random),
                processes: Arc::clone(&self.processes),
                masker: self.masker.clone(),
                executable: self.settings.executable.clone(),
                variables: self.settings.variables.clone(),
                environment: config.environment.clone(),
            };
            return Ok(Arc::new(Local::open(&settings, &config.directory, tools)?));
        }
        let folder = plugin::folder(self.global.plugin_dir.as_deref(), &self.settings.variables);
        let plugin = Plugin::open(
            &declared.provider,
            &settings,
            &folder,
            &config.directory,
            self.plugin_tools(),
        )
        .await?;
        Ok(Arc::new(plugin))
    }

    /// What a plugin host works with.
    pub(super) fn plugin_tools(&self) -> plugin::Tools {
        plugin::Tools {
            disk: Arc::clone(&self.disk),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            processes: Arc::clone(&self.processes),
            masker: self.masker.clone(),
            reporter: Arc::new(self.ui.clone()),
            variables: self.settings.variables.clone(),
            deadlines: Deadlines::default(),
            cancel: self.cancel.clone(),
        }
    }
}
