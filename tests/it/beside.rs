//! The commands beside plan, apply and destroy, through the real binary and the `local` provider.

mod bootstrap;
mod cleanup;
mod credential;
mod documents;
mod drift;
mod expect;
mod import;
mod rules;
mod shared;
mod teardown;
mod trust;

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Finished, Run};

/// Two folders and a database; `db` writes a secret nowhere, `files` stands on nothing.
pub(crate) const MODULES: &str = "\
modules:
  - name: here
    type: iac.provider
    config: {provider: local, root: ./resources}
  - name: state
    type: iac.state
    config: {backend: filesystem, directory: ./state}
  - name: files
    type: infra.storage
    config: {provider: here}
  - name: logs
    type: infra.storage
    config: {provider: here, depends_on: [files]}
  - name: db
    type: infra.database
    config: {provider: here, engine: sqlite}
environments:
  dev: {}
";

/// A folder with a config; every run is for `dev` unless it says otherwise.
struct Project {
    folder: TempDir,
}

impl Project {
    fn new(config: &str) -> Self {
        let project = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        project.write("infra.yaml", config);
        project
    }

    /// With a plugin (`tests/fakes/files_plugin.rs`) whose folder is `cloud`, written `./cloud`.
    fn with_plugin(config: &str) -> Self {
        let project = Self::new(config);
        let folder = project.path("data/plugins/files");
        std::fs::create_dir_all(&folder).unwrap();
        crate::harness::place(
            Path::new(env!("CARGO_BIN_EXE_files-plugin")),
            &folder.join("files"),
        );
        let manifest = serde_json::json!({
            "name": "workflow-plugin-files", "version": "1.2.3",
            "author": "tests", "description": "files",
            "capabilities": {"iacProvider": {"name": "files", "computePlanVersion": "v2"}},
        });
        project.write("data/plugins/files/plugin.json", &manifest.to_string());
        let root = project.path("cloud").display().to_string();
        project.write("infra.yaml", &config.replace("./cloud", &root));
        project
    }

    /// With everything applied.
    fn applied(config: &str) -> Self {
        let project = Self::new(config);
        project.run("infra apply --yes").expect_code(0);
        project
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn start(&self, line: &str) -> Run {
        let arguments: Vec<&str> = line.split(' ').collect();
        Run::new(self.folder.path(), &arguments)
    }

    /// `tidegate <line> --env dev`
    fn run(&self, line: &str) -> Finished {
        self.start(&format!("{line} --env dev")).output()
    }

    /// The command's document, after checking its exit code.
    #[track_caller]
    fn json(&self, line: &str, code: i32) -> Value {
        let finished = self.run(&format!("{line} --json")).expect_code(code);
        serde_json::from_str(&finished.stdout())
            .unwrap_or_else(|error| panic!("{error}\n{}", finished.stdout()))
    }

    /// Names that the state records.
    fn recorded(&self) -> Vec<String> {
        self.json("infra status", 0)["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["resource"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Record files and their bytes.
    fn records(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        collect(&self.path("state"), &mut files);
        files.retain(|(path, _)| path.to_string_lossy().contains("/records/"));
        files.sort();
        files
    }

    /// Takes a folder of a resource away.
    fn vanish(&self, name: &str) {
        std::fs::remove_dir_all(self.path("resources").join(name)).unwrap();
    }

    /// Puts something in the way, so that the resource cannot be looked at.
    fn block(&self, name: &str) {
        self.vanish(name);
        std::fs::write(self.path("resources").join(name), "not a folder").unwrap();
    }
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
}

/// The entry of one resource in a list of a document.
#[track_caller]
fn entry<'a>(document: &'a Value, list: &str, name: &str) -> &'a Value {
    document[list]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["resource"] == name)
        .unwrap_or_else(|| panic!("no `{name}` in {document:#}"))
}

/// The code of the only problem of a run that stopped early.
#[track_caller]
fn code_of(document: &Value) -> &str {
    document["problems"][0]["code"].as_str().unwrap()
}
