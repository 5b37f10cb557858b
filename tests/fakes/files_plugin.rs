//! A provider plugin on our own SDK that can do everything a plugin can do, the way the Go peer
//! (`tests/peers/go-provider`) does it: the same tests run against both.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test double stands outside the seams it helps to test"
)]

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

#[async_trait]
impl Enumerate for Files {
    async fn all(&self, kind: &str) -> Result<Vec<Found>> {
        let found = all(&self.root)?;
        let wanted = found.iter().filter(|resource| resource.kind == kind);
        Ok(wanted
            .map(|resource| Found {
                name: resource.name.clone(),
                kind: resource.kind.clone(),
                observed: observed(resource),
            })
            .collect())
    }

    async fn by_tag(&self, tag: &str) -> Result<Vec<Recorded>> {
        let found = all(&self.root)?;
        let tagged = found
            .iter()
            .filter(|resource| word(&resource.config, "tag") == tag);
        Ok(tagged.map(recorded).collect())
    }
}

#[async_trait]
impl DetectDrift for Files {
    async fn drift(
        &self,
        prior: &[Recorded],
        desired: &BTreeMap<String, Spec>,
    ) -> Result<Vec<Drift>> {
        let size = |config: &Map| config.get("size").cloned().unwrap_or_default();
        let only = |size: Value| Map::from_iter([("size".to_owned(), size)]);
        let verdict = |prior: &Recorded| {
            let mut drift = Drift {
                name: prior.name.clone(),
                kind: prior.kind.clone(),
                verdict: DriftVerdict::InSync,
                expected: Map::new(),
                actual: Map::new(),
            };
            match (load(&self.root, prior), desired.get(&prior.name)) {
                (Err(_), _) => drift.verdict = DriftVerdict::Ghost,
                (Ok(found), Some(spec)) if size(&found.config) != size(&spec.config) => {
                    drift.verdict = DriftVerdict::Changed;
                    drift.expected = only(size(&spec.config));
                    drift.actual = only(size(&found.config));
                }
                (Ok(_), _) => {}
            }
            drift
        };
        Ok(prior.iter().map(verdict).collect())
    }
}

#[async_trait]
impl RevokeCredential for Files {
    async fn revoke(&self, source: &str, credential: &str) -> Result<()> {
        if credential == "gone" {
            return Err(Error::not_found("gone"));
        }
        if self.root.join("revoke.fails").exists() {
            return Err(Error::other("not today"));
        }
        // What a store holds at this moment, for the test of the order.
        let watched = fs::read_to_string(self.root.join("watch")).unwrap_or_default();
        let held = fs::read_to_string(watched).unwrap_or_default();
        let line = format!("{source} {credential} {held}");
        let path_of_log = self.root.join("revoked.txt");
        let before = fs::read_to_string(&path_of_log).unwrap_or_default();
        fs::write(path_of_log, format!("{before}{}\n", line.trim_end()))?;
        let gone = all(&self.root)?
            .into_iter()
            .find(|resource| resource.kind == CREDENTIAL && resource.id == credential);
        if let Some(gone) = gone {
            fs::remove_file(path(&self.root, &gone.kind, &gone.name))?;
        }
        Ok(())
    }
}

#[async_trait]
impl ListRegions for Files {
    async fn regions(&self, _environment: &str) -> Result<Vec<Region>> {
        let region = |name: &str, label: &str| Region {
            name: name.to_owned(),
            label: label.to_owned(),
        };
        Ok(vec![
            region("here1", "Here"),
            region("  ", ""),
            region("there1", ""),
        ])
    }
}

#[async_trait]
impl Ownership for Files {
    async fn owner(&self, prior: &Recorded) -> Result<Owner> {
        load(&self.root, prior).map(|found| owner(&found))
    }

    async fn set_owner(&self, prior: &Recorded, owner: &str) -> Result<()> {
        let mut found = load(&self.root, prior)?;
        found.owner = owner.to_owned();
        store(&self.root, &found)
    }

    async fn owned(&self, whose: &str, kind: &str) -> Result<Vec<Owned>> {
        let found = all(&self.root)?;
        let theirs = found.iter().filter(|resource| {
            resource.owner == whose && (kind.is_empty() || resource.kind == kind)
        });
        Ok(theirs
            .map(|resource| Owned {
                resource: recorded(resource),
                owner: owner(resource),
            })
            .collect())
    }
}

fn owner(resource: &Resource) -> Owner {
    Owner {
        owner: resource.owner.clone(),
        source: "file".to_owned(),
    }
}

#[async_trait]
impl Finalize for Files {
    async fn finish(&self, plan: &str) -> Result<Vec<Unfinished>> {
        let mut told = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.root.join("finalized.txt"))?;
        writeln!(told, "{plan}")?;
        match plan {
            "plan-with-failures" => Ok(vec![Unfinished {
                resource: "db".to_owned(),
                action: "deferred_update".to_owned(),
                error: "the firewall is closed".to_owned(),
            }]),
            "plan-that-breaks" => Err(Error::forbidden("no firewall for you")),
            _ => Ok(Vec::new()),
        }
    }
}

#[async_trait]
impl Validate for Files {
    async fn remarks(&self, plan: &Plan) -> Result<Vec<Remark>> {
        let absurd = plan
            .actions
            .iter()
            .filter(|action| word(&action.desired.config, "size") == "absurd");
        let mut remarks: Vec<Remark> = absurd
            .map(|action| Remark {
                severity: Severity::Error,
                resource: action.desired.name.clone(),
                field: "size".to_owned(),
                message: "nobody has that size".to_owned(),
            })
            .collect();
        remarks.push(Remark {
            severity: Severity::Warning,
            resource: String::new(),
            field: String::new(),
            message: "files are not for production".to_owned(),
        });
        Ok(remarks)
    }
}

fn log(lines: impl IntoIterator<Item = String>) -> LogStream {
    let pieces: Vec<Result<LogChunk>> = lines
        .into_iter()
        .map(|line| {
            Ok(LogChunk {
                data: line.into_bytes().into(),
                source: "historic".to_owned(),
            })
        })
        .collect();
    Box::pin(futures_util::stream::iter(pieces))
}

#[async_trait]
impl ReadLogs for Files {
    async fn logs(&self, request: LogRequest) -> Result<LogStream> {
        let kind = match request.log {
            LogKind::Build => "BUILD",
            LogKind::Deploy => "DEPLOY",
            LogKind::Run => "RUN",
            LogKind::RunRestarted => "RUN_RESTARTED",
        };
        Ok(log([
            format!(
                "log of {} (LOG_CAPTURE_TYPE_{kind})\n",
                request.resource.name
            ),
            format!(
                "tail={} follow={}\n",
                request.tail_lines,
                request.follow_seconds.is_some()
            ),
        ]))
    }
}

/// A map as Go prints it.
fn printed(map: &BTreeMap<String, String>) -> String {
    let items: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{key}:{value}"))
        .collect();
    format!("map[{}]", items.join(" "))
}

#[async_trait]
impl RunJobs for Files {
    async fn run(&self, job: iac::JobSpec) -> Result<iac::JobHandle> {
        if job.name.is_empty() {
            return Ok(iac::JobHandle::default());
        }
        let line = format!(
            "ran {} with {} and {}",
            job.run_command,
            printed(&job.env_vars),
            printed(&job.env_vars_secret)
        );
        Ok(iac::JobHandle {
            id: "job-1".to_owned(),
            name: job.name,
            provider: "files".to_owned(),
            metadata: BTreeMap::from([("log".to_owned(), line)]),
        })
    }

    async fn status(&self, job: &iac::JobHandle) -> Result<JobStatus> {
        let line = job.metadata.get("log");
        let line = line.ok_or_else(|| Error::not_found(format!("job {}", job.id)))?;
        Ok(if line.starts_with("ran false") {
            JobStatus {
                state: JobState::Failed,
                exit_code: 3,
                message: "it failed".to_owned(),
            }
        } else {
            JobStatus {
                state: JobState::Succeeded,
                exit_code: 0,
                message: "done".to_owned(),
            }
        })
    }

    async fn logs(&self, job: iac::JobHandle) -> Result<LogStream> {
        Ok(log(job.metadata.get("log").map(|line| format!("{line}\n"))))
    }
}

#[async_trait]
impl RepairMigration for Files {
    /// The confirmation was checked before we are asked.
    async fn repair(
        &self,
        order: iac::MigrationRepairRequest,
    ) -> Result<iac::MigrationRepairResult> {
        Ok(iac::MigrationRepairResult {
            provider_job_id: "job-9".to_owned(),
            status: "succeeded".to_owned(),
            applied: vec![order.force_version],
            logs: "forced".to_owned(),
            ..iac::MigrationRepairResult::default()
        })
    }
}

#[async_trait]
impl DiscoverRequirements for Files {
    async fn discover(
        &self,
        context: iac::RequirementContext,
        _module: Map,
    ) -> Result<Vec<iac::IaCRequirement>> {
        Ok(vec![iac::IaCRequirement {
            key: format!("{}-files", context.application),
            kind: iac::RequirementKind::Storage.into(),
            ..iac::IaCRequirement::default()
        }])
    }
}

#[async_trait]
impl MapRequirements for Files {
    async fn modules(
        &self,
        request: iac::MapRequirementsRequest,
    ) -> Result<iac::MapRequirementsResponse> {
        let mut answer = iac::MapRequirementsResponse::default();
        for need in &request.requirements {
            let key = need.key.clone();
            if need.kind() != iac::RequirementKind::Database {
                answer.rejected.push(iac::RequirementDiagnostic {
                    key,
                    code: "no_such_thing".to_owned(),
                    message: "files cannot do that".to_owned(),
                });
                continue;
            }
            let config = json!({
                "provider": request.provider, "password": "${DATABASE_PASSWORD}",
            });
            answer.modules.push(iac::DerivedModuleSpec {
                name: format!("{key}-db"),
                r#type: DATABASE.to_owned(),
                config_json: config.to_string().into_bytes(),
                ..iac::DerivedModuleSpec::default()
            });
            answer.accepted_keys.push(key);
        }
        answer.notes.push(iac::RequirementNote {
            message: format!("runtime {}", request.runtime().as_str_name()),
            ..iac::RequirementNote::default()
        });
        Ok(answer)
    }
}

/// State in a folder: a file for each record.
struct Shelves;

struct Shelf(PathBuf);

impl Shelf {
    fn path(&self, id: &str, end: &str) -> PathBuf {
        self.0
            .join(format!("{}{end}", id.replace(['/', '\\'], "_")))
    }
}

#[async_trait]
impl StateBackend for Shelves {
    fn names(&self) -> Vec<String> {
        vec!["files".to_owned()]
    }

    async fn configure(&self, _name: &str, settings: Map) -> Result<Box<dyn StateStore>> {
        let folder = word(&settings, "folder");
        if folder.is_empty() {
            return Err(Error::invalid("backend `files` needs a `folder`"));
        }
        fs::create_dir_all(folder)?;
        Ok(Box::new(Shelf(folder.into())))
    }
}

fn decoded(path: &Path) -> Result<Option<StateRecord>> {
    match fs::read(path) {
        Ok(bytes) => prost::Message::decode(bytes.as_slice())
            .map(Some)
            .map_err(|error| Error::other(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[async_trait]
impl StateStore for Shelf {
    async fn get(&self, id: &str) -> Result<Option<StateRecord>> {
        decoded(&self.path(id, ".record"))
    }

    async fn save(&self, record: StateRecord) -> Result<()> {
        let path = self.path(&record.resource_id, ".record");
        Ok(fs::write(path, prost::Message::encode_to_vec(&record))?)
    }

    async fn list(&self, filter: &BTreeMap<String, String>) -> Result<Vec<StateRecord>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "record") {
                found.extend(decoded(&path)?.filter(|record| matches(record, filter)));
            }
        }
        Ok(found)
    }

    async fn delete(&self, id: &str) -> Result<()> {
        fs::remove_file(self.path(id, ".record"))
            .map_err(|_| Error::not_found(format!("no record {id}")))
    }

    async fn lock(&self, id: &str) -> Result<()> {
        fs::File::create_new(self.path(id, ".lock"))
            .map(drop)
            .map_err(|_| Error::conflict(format!("{id} is held")))
    }

    async fn unlock(&self, id: &str) -> Result<()> {
        Ok(fs::remove_file(self.path(id, ".lock"))?)
    }
}
