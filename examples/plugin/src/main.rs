//! A provider of text files: one folder, one kind of resource, nothing else.

#![allow(
    clippy::disallowed_methods,
    reason = "a plugin is a program of its own, with files of its own"
)]

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use serde::Deserialize;
use tidegate_plugin::{
    About, Diff, Driver, Enumerate, Error, Found, Kind, Map, Observed, Provider, Recorded, Result,
    Spec, async_trait,
};

const FILE: &str = "infra.file";

/// The folder, once the host has said which.
#[derive(Default)]
struct Files {
    directory: PathBuf,
}

/// What a config says about a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    content: String,
}

#[async_trait]
impl Provider for Files {
    fn about(&self) -> About {
        tidegate_plugin::about!("files").requires_key("directory")
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::new(FILE)]
    }

    fn driver(&self, kind: &str) -> Option<&dyn Driver> {
        (kind == FILE).then_some(self)
    }

    async fn initialize(&mut self, config: Map) -> Result<()> {
        let directory = config.get("directory").and_then(|value| value.as_str());
        self.directory = directory
            .ok_or_else(|| Error::invalid("`directory` is missing"))?
            .into();
        Ok(fs::create_dir_all(&self.directory)?)
    }

    fn enumerate(&self) -> Option<&dyn Enumerate> {
        Some(self)
    }
}

#[async_trait]
impl Driver for Files {
    async fn create(&self, desired: &Spec) -> Result<Observed> {
        let file: File = desired.config_as()?;
        let mut new = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(self.path(&desired.name)?)
            .map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => Error::already_exists(&desired.name),
                _ => error.into(),
            })?;
        new.write_all(file.content.as_bytes())?;
        self.look(&desired.name)
    }

    async fn read(&self, prior: &Recorded) -> Result<Observed> {
        self.look(name_of(prior))
    }

    async fn update(&self, prior: &Recorded, desired: &Spec) -> Result<Observed> {
        let file: File = desired.config_as()?;
        let before = self.look(name_of(prior))?;
        // Whole or not at all: readers never see half a file.
        let new = self.directory.join(format!(".{}.new", before.provider_id));
        fs::write(&new, file.content)?;
        fs::rename(&new, self.path(&before.provider_id)?)?;
        self.look(&before.provider_id)
    }

    async fn delete(&self, prior: &Recorded) -> Result<()> {
        match fs::remove_file(self.path(name_of(prior))?) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn diff(&self, desired: &Spec, current: &Observed) -> Result<Diff> {
        let file: File = desired.config_as()?;
        let content = current.outputs.get("content").cloned().unwrap_or_default();
        Ok(Diff::none().compare("content", content, file.content))
    }
}

#[async_trait]
impl Enumerate for Files {
    async fn all(&self, _kind: &str) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let Ok(name) = entry?.file_name().into_string() else {
                continue;
            };
            if !name.starts_with('.') {
                let observed = self.look(&name)?;
                found.push(Found {
                    name,
                    kind: FILE.to_owned(),
                    observed,
                });
            }
        }
        Ok(found)
    }

    async fn by_tag(&self, _tag: &str) -> Result<Vec<Recorded>> {
        Ok(Vec::new()) // Files carry no tags.
    }
}

/// The id of a file is its name.
fn name_of(prior: &Recorded) -> &str {
    if prior.provider_id.is_empty() {
        &prior.name
    } else {
        &prior.provider_id
    }
}

impl Files {
    /// A name comes from a config and must not lead out of the folder.
    fn path(&self, name: &str) -> Result<PathBuf> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return Err(Error::invalid(format!("{name:?} is no name for a file")));
        }
        Ok(self.directory.join(name))
    }

    fn look(&self, name: &str) -> Result<Observed> {
        let path = self.path(name)?;
        let content = fs::read_to_string(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::not_found(format!("no file {name}")),
            _ => error.into(),
        })?;
        Ok(Observed::new(name)
            .output("content", content)
            .output("path", path.to_string_lossy())
            .status("running"))
    }
}

fn main() -> std::process::ExitCode {
    tidegate_plugin::serve(Files::default())
}
