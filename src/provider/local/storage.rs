//! `infra.storage`: a directory.

use async_trait::async_trait;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::check::{Problems, unknown_keys};
use super::folder::{Folders, Located};
use crate::provider::{Driver, DriverResult, Health, Operation, config_changes};
use crate::resource::{Diff, FieldChange, Observed, Output, Outputs, Recorded, Spec};

/// Every output there is; none is a secret.
pub(super) const OUTPUTS: &[&str] = &["name", "path", "url"];

/// Characters that stay as they are in the path of a URL.
const PATH_KEEPS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// An absolute path as the path of a URL.
pub(super) fn url_path(path: &str) -> String {
    utf8_percent_encode(path, PATH_KEEPS).to_string()
}

/// The driver.
#[derive(Debug)]
pub(super) struct Storage {
    folders: Folders,
}

impl Storage {
    pub(super) fn new(folders: Folders) -> Self {
        Self { folders }
    }

    fn observed(&self, name: &str, path: &std::path::Path) -> Observed {
        let path = path.to_string_lossy();
        let public = |text: String| Output::Public(text.into());
        Observed {
            provider_id: path.clone().into_owned(),
            outputs: Outputs::from([
                ("name".to_owned(), public(name.to_owned())),
                (
                    "url".to_owned(),
                    public(format!("file://{}", url_path(&path))),
                ),
                ("path".to_owned(), public(path.into_owned())),
            ]),
            status: "ready".to_owned(),
            private: self.folders.kept(),
        }
    }
}

/// The error for a resource that is not there.
pub(super) fn gone(prior: &Recorded) -> crate::provider::DriverError {
    crate::provider::DriverError::new(
        crate::provider::ErrorClass::NotFound,
        format!("the {} `{}` does not exist", prior.kind, prior.address),
    )
}

/// Changes that come from where a folder lies rather than from the config: it went away, it lies
/// under an earlier root, or it moved together with its root.
pub(super) fn place_changes(
    prior: &Recorded,
    located: Option<&Located>,
    wanted: &std::path::Path,
) -> Vec<FieldChange> {
    let change = |path: &str, old: serde_json::Value, new: String, force_new| {
        vec![FieldChange {
            path: path.to_owned(),
            old,
            new: new.into(),
            force_new,
        }]
    };
    match located {
        None => change("status", "gone".into(), "ready".to_owned(), false),
        Some(found) if found.elsewhere => change(
            "root",
            found.path.to_string_lossy().into(),
            wanted.to_string_lossy().into_owned(),
            true,
        ),
        Some(found) => match prior
            .outputs
            .get("path")
            .or_else(|| prior.outputs.get("log_path"))
        {
            Some(Output::Public(serde_json::Value::String(recorded)))
                if !std::path::Path::new(recorded).starts_with(&found.path) =>
            {
                change(
                    "path",
                    recorded.clone().into(),
                    found.path.to_string_lossy().into_owned(),
                    false,
                )
            }
            _ => Vec::new(),
        },
    }
}

/// A verdict from its changes.
pub(super) fn verdict(mut changes: Vec<FieldChange>) -> Diff {
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    let needs_replace = changes.iter().any(|change| change.force_new);
    Diff {
        needs_update: !changes.is_empty() && !needs_replace,
        needs_replace,
        changes,
    }
}

#[async_trait]
impl Driver for Storage {
    async fn create(&self, _operation: &Operation, desired: &Spec) -> DriverResult<Observed> {
        let path = self
            .folders
            .create(&desired.address, &desired.kind, |_| Ok(()))?;
        Ok(self.observed(desired.address.as_str(), &path))
    }

    async fn read(&self, prior: &Recorded) -> DriverResult<Observed> {
        let found = self.folders.locate(prior)?.ok_or_else(|| gone(prior))?;
        Ok(self.observed(prior.address.as_str(), &found.path))
    }

    async fn update(
        &self,
        operation: &Operation,
        prior: &Recorded,
        desired: &Spec,
    ) -> DriverResult<Observed> {
        match self.folders.locate(prior)? {
            Some(found) => Ok(self.observed(prior.address.as_str(), &found.path)),
            // Somebody removed it; what was in it is lost already.
            None => self.create(operation, desired).await,
        }
    }

    async fn delete(&self, _operation: &Operation, prior: &Recorded) -> DriverResult<()> {
        self.folders.remove(prior)
    }

    async fn diff(&self, prior: &Recorded, desired: &Spec) -> DriverResult<Diff> {
        let located = self.folders.locate(prior)?;
        let mut changes = config_changes(&prior.config, &desired.public_config);
        changes.extend(place_changes(
            prior,
            located.as_ref(),
            &self.folders.path(&prior.address),
        ));
        Ok(verdict(changes))
    }

    async fn health(&self, prior: &Recorded) -> DriverResult<Health> {
        let there = self.folders.locate(prior)?.is_some();
        Ok(Health {
            healthy: there,
            message: if there { "ready" } else { "gone" }.to_owned(),
        })
    }

    fn is_sensitive(&self, output: &str) -> Option<bool> {
        OUTPUTS.contains(&output).then_some(false)
    }

    fn check(&self, desired: &Spec) -> Problems {
        let mut problems = Problems::new();
        unknown_keys(&desired.config, "`infra.storage`", &[], &mut problems);
        problems
    }
}
