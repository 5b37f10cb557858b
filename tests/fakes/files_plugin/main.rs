//! A provider plugin on our own SDK that can do everything a plugin can do, the way the Go peer
//! (`tests/peers/go-provider`) does it: the same tests run against both.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test double stands outside the seams it helps to test"
)]

mod abilities;
mod shelves;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_plugin::{
    About, BootstrappedState, DetectDrift, Diagnostic, Diff, DiscoverRequirements, Drift,
    DriftVerdict, Driver, Enumerate, Error, Finalize, Found, Health, Hints, JobState, JobStatus,
    Kind, ListRegions, LogChunk, LogKind, LogRequest, LogStream, Map, MapRequirements, Observed,
    Owned, Owner, Ownership, Plan, Plugin, Provider, ReadLogs, Recorded, Region, Remark,
    RepairMigration, Result, RevokeCredential, RunJobs, Severity, Sizing, Spec, StateBackend,
    StateRecord, StateStore, Unfinished, Validate, async_trait, iac, matches,
};

use shelves::Shelves;

const KINDS: [&str; 5] = [
    "infra.container_service",
    "infra.database",
    "infra.spaces_key",
    "infra.storage",
    "infra.vpc",
];
const DATABASE: &str = "infra.database";
/// A credential, which only ours has: files in the folder (`mint.fails`, `mint.dies`, `mint.halves`,
/// `revoke.fails`) say what goes wrong with it.
const CREDENTIAL: &str = "infra.spaces_key";

fn main() -> ExitCode {
    Plugin::new(Files::default()).state_backend(Shelves).serve()
}

/// The folder, and a driver for each kind.
struct Files {
    root: PathBuf,
    region: String,
    drivers: Vec<FileDriver>,
}

/// Drives one kind; every resource is a file.
struct FileDriver {
    kind: &'static str,
    root: PathBuf,
}

/// What a file holds.
#[derive(Deserialize, Serialize)]
struct Resource {
    id: String,
    name: String,
    kind: String,
    config: Map,
    #[serde(default)]
    owner: String,
    version: u64,
}

impl Default for Files {
    fn default() -> Self {
        let driver = |kind| FileDriver {
            kind,
            root: PathBuf::new(),
        };
        Self {
            root: PathBuf::new(),
            region: String::new(),
            drivers: KINDS.map(driver).into(),
        }
    }
}

fn word<'a>(map: &'a Map, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn path(root: &Path, kind: &str, name: &str) -> PathBuf {
    root.join(format!("{kind}__{name}.json"))
}

fn load(root: &Path, prior: &Recorded) -> Result<Resource> {
    let absent = || Error::not_found(&prior.name);
    let text = fs::read(path(root, &prior.kind, &prior.name)).map_err(|_| absent())?;
    let found: Resource =
        serde_json::from_slice(&text).map_err(|error| Error::other(error.to_string()))?;
    if prior.provider_id.is_empty() || prior.provider_id == found.id {
        Ok(found)
    } else {
        Err(absent())
    }
}

fn store(root: &Path, resource: &Resource) -> Result<()> {
    let text = json!(resource).to_string();
    Ok(fs::write(path(root, &resource.kind, &resource.name), text)?)
}

/// Everything there is, in the order of names.
fn all(root: &Path) -> Result<Vec<Resource>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.contains("__") && name.ends_with(".json") {
            names.push(name);
        }
    }
    names.sort();
    names
        .iter()
        .map(|name| {
            serde_json::from_slice(&fs::read(root.join(name))?)
                .map_err(|error| Error::other(error.to_string()))
        })
        .collect()
}

fn recorded(resource: &Resource) -> Recorded {
    Recorded {
        name: resource.name.clone(),
        kind: resource.kind.clone(),
        provider_id: resource.id.clone(),
    }
}

fn observed(resource: &Resource) -> Observed {
    let config = |key: &str| resource.config.get(key).cloned().unwrap_or_default();
    let mut seen = Observed::new(&resource.id)
        .output("id_number", 5.0)
        .output("region", config("region"))
        .output("size", config("size"))
        .output("live_url", format!("http://{}.test", resource.name))
        .output("version", resource.version)
        .status("running");
    if resource.kind == DATABASE {
        let id = &resource.id;
        seen = seen
            .secret("password", format!("pw-{id}-of-{}", resource.name))
            .output("admin_note", format!("only for the administrator of {id}"));
    }
    if resource.kind == CREDENTIAL {
        let id = &resource.id;
        seen = seen
            .secret("access_key", format!("ak-{id}"))
            .secret("secret_key", format!("sk-{id}-of-{}", resource.name))
            .output("created_at", word(&resource.config, "made_at"));
    }
    if let Some(count) = config("answer_bytes").as_u64() {
        let blob = "x".repeat(usize::try_from(count).unwrap_or(0));
        seen = seen.output("blob", blob);
    }
    if config("odd_secret") == true {
        seen = seen.secret("odd", "").output("odd", 42);
    }
    seen
}

#[async_trait]
impl Provider for Files {
    fn about(&self) -> About {
        About::new("workflow-plugin-files", "1.2.3", "tests", "files")
            .provider("files")
            .requires_secret("FILES_TOKEN", "whose files they are")
    }

    fn kinds(&self) -> Vec<Kind> {
        KINDS.map(|kind| Kind::new(kind).scales()).into()
    }

    fn driver(&self, kind: &str) -> Option<&dyn Driver> {
        let found = self.drivers.iter().find(|driver| driver.kind == kind)?;
        Some(found)
    }

    async fn initialize(&mut self, config: Map) -> Result<()> {
        let root = word(&config, "root");
        if root.is_empty() {
            return Err(Error::invalid("the config needs `root`"));
        }
        self.root = root.into();
        self.region = word(&config, "region").to_owned();
        for driver in &mut self.drivers {
            driver.root = self.root.clone();
        }
        fs::create_dir_all(&self.root)?;
        eprintln!("initialised in {}", self.root.display());
        // For the test that looks at what a plugin gets to see.
        let mut seen = format!(
            "args={:?}\ncwd={}\nconfig={}\n",
            std::env::args().collect::<Vec<_>>(),
            std::env::current_dir()?.display(),
            Value::Object(config),
        );
        for (name, value) in std::env::vars() {
            seen += &format!("{name}={value}\n");
        }
        Ok(fs::write(self.root.join("seen.txt"), seen)?)
    }

    async fn sizing(&self, _kind: &str, size: &str, hints: &Hints) -> Result<Option<Sizing>> {
        let slugs = [
            ("xs", "tiny"),
            ("s", "small"),
            ("m", "medium"),
            ("l", "large"),
            ("xl", "huge"),
        ];
        let slug = slugs.iter().find(|(word, _)| *word == size);
        let config = Map::from_iter([
            ("cpu".to_owned(), 2.0.into()),
            ("hint".to_owned(), hints.cpu.clone().into()),
        ]);
        Ok(slug.map(|(_, slug)| Sizing {
            instance_type: (*slug).to_owned(),
            config,
        }))
    }

    async fn import(&self, kind: &str, provider_id: &str) -> Result<Observed> {
        let found = all(&self.root)?
            .into_iter()
            .find(|resource| resource.kind == kind && resource.id == provider_id);
        let found = found.ok_or_else(|| Error::not_found(provider_id))?;
        Ok(observed(&found))
    }

    async fn bootstrap_state(&self, settings: Map) -> Result<Option<BootstrappedState>> {
        let bucket = word(&settings, "bucket");
        if bucket.is_empty() {
            return Err(Error::invalid("`bucket` is missing"));
        }
        fs::create_dir_all(self.root.join("buckets").join(bucket))?;
        let asked = Value::Object(settings.clone()).to_string();
        fs::write(self.root.join("bootstrapped.json"), asked)?;
        Ok(Some(BootstrappedState {
            bucket: bucket.to_owned(),
            region: self.region.clone(),
            endpoint: "http://store.test".to_owned(),
            variables: BTreeMap::from([("STORE_KEY".to_owned(), format!("key-of-{bucket}"))]),
        }))
    }

    fn enumerate(&self) -> Option<&dyn Enumerate> {
        Some(self)
    }
    fn detect_drift(&self) -> Option<&dyn DetectDrift> {
        Some(self)
    }
    fn revoke_credential(&self) -> Option<&dyn RevokeCredential> {
        Some(self)
    }
    fn list_regions(&self) -> Option<&dyn ListRegions> {
        Some(self)
    }
    fn ownership(&self) -> Option<&dyn Ownership> {
        Some(self)
    }
    fn finalize(&self) -> Option<&dyn Finalize> {
        Some(self)
    }
    fn validate(&self) -> Option<&dyn Validate> {
        Some(self)
    }
    fn read_logs(&self) -> Option<&dyn ReadLogs> {
        Some(self)
    }
    fn run_jobs(&self) -> Option<&dyn RunJobs> {
        Some(self)
    }
    fn repair_migration(&self) -> Option<&dyn RepairMigration> {
        Some(self)
    }
    fn discover_requirements(&self) -> Option<&dyn DiscoverRequirements> {
        Some(self)
    }
    fn map_requirements(&self) -> Option<&dyn MapRequirements> {
        Some(self)
    }
}

#[async_trait]
impl Driver for FileDriver {
    async fn create(&self, desired: &Spec) -> Result<Observed> {
        let config = &desired.config;
        let said = word(config, "fail_with");
        if !said.is_empty() {
            // The words of a class come from the class; what is left is the sentence.
            let class = tidegate_plugin::ErrorClass::ALL
                .into_iter()
                .find_map(|class| {
                    let rest = said.strip_prefix(class.words()?)?;
                    Some((class, rest.trim_start_matches(": ").to_owned()))
                });
            let (class, rest) =
                class.unwrap_or((tidegate_plugin::ErrorClass::Other, said.to_owned()));
            return Err(Error::new(class, rest));
        }
        if let Some(count) = config.get("print_bytes").and_then(Value::as_u64) {
            println!(
                "{}",
                "printed ".repeat(usize::try_from(count / 8).unwrap_or(0))
            );
        }
        let prior = Recorded {
            name: desired.name.clone(),
            kind: desired.kind.clone(),
            provider_id: String::new(),
        };
        if load(&self.root, &prior).is_ok() {
            return Err(Error::already_exists(&desired.name));
        }
        let is_credential = prior.kind == CREDENTIAL;
        if is_credential && self.root.join("mint.fails").exists() {
            return Err(Error::new(
                tidegate_plugin::ErrorClass::Forbidden,
                "no more credentials for you",
            ));
        }
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let mut config = config.clone();
        if is_credential {
            let at = format!("2026-01-05T08:00:{:02}Z", all(&self.root)?.len());
            config.insert("made_at".to_owned(), at.into());
        }
        let made = Resource {
            id: format!("file-{}", since.as_nanos()),
            name: prior.name,
            kind: prior.kind,
            config,
            owner: String::new(),
            version: 1,
        };
        store(&self.root, &made)?;
        if is_credential && self.root.join("mint.dies").exists() {
            std::process::exit(3);
        }
        let mut seen = observed(&made);
        if is_credential && self.root.join("mint.halves").exists() {
            seen.outputs.remove("secret_key");
            seen.sensitive.remove("secret_key");
        }
        Ok(seen)
    }

    async fn read(&self, prior: &Recorded) -> Result<Observed> {
        load(&self.root, prior).map(|found| observed(&found))
    }

    async fn update(&self, prior: &Recorded, desired: &Spec) -> Result<Observed> {
        let mut found = load(&self.root, prior)?;
        found.config = desired.config.clone();
        found.version += 1;
        store(&self.root, &found)?;
        Ok(observed(&found))
    }

    async fn delete(&self, prior: &Recorded) -> Result<()> {
        let found = load(&self.root, prior)?;
        Ok(fs::remove_file(path(&self.root, &found.kind, &found.name))?)
    }

    async fn diff(&self, desired: &Spec, current: &Observed) -> Result<Diff> {
        let of = |map: &Map, key: &str| map.get(key).cloned().unwrap_or_default();
        let password = word(&current.outputs, "password");
        if !password.is_empty() && !password.starts_with("secret_ref://") {
            return Err(Error::other("a password came back in the clear"));
        }
        let (old, new) = (&current.outputs, &desired.config);
        Ok(Diff::none()
            .compare_fixed("region", of(old, "region"), of(new, "region"))
            .compare("size", of(old, "size"), of(new, "size")))
    }

    async fn health(&self, prior: &Recorded) -> Result<Health> {
        Ok(match load(&self.root, prior) {
            Ok(found) => Health {
                healthy: true,
                message: format!("the file of {} is there", found.name),
            },
            Err(error) => Health {
                healthy: false,
                message: error.message().to_owned(),
            },
        })
    }

    async fn scale(&self, prior: &Recorded, replicas: u32) -> Result<Observed> {
        let mut found = load(&self.root, prior)?;
        found
            .config
            .insert("instance_count".to_owned(), replicas.into());
        found.version += 1;
        store(&self.root, &found)?;
        Ok(observed(&found))
    }

    fn sensitive_keys(&self) -> Vec<String> {
        let words: &[&str] = match self.kind {
            DATABASE => &["password", "admin_note"],
            CREDENTIAL => &["access_key", "secret_key"],
            _ => &[],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    async fn troubleshoot(&self, _prior: &Recorded, failure: &str) -> Result<Vec<Diagnostic>> {
        if self.kind == "infra.vpc" {
            return Err(Error::unimplemented("not for networks"));
        }
        // 2026-01-05T08:00:00Z
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_600_000);
        Ok(vec![Diagnostic {
            id: "deploy-7".to_owned(),
            phase: "build".to_owned(),
            cause: format!("it saw: {failure}"),
            at: Some(at),
            detail: "line one\nline two".to_owned(),
        }])
    }
}
