//! What a config says once it is resolved for one environment: the values every other room works
//! from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::report::{Report, Span};
use crate::resource::{Address, Kind, Map, ProviderId, Value};

/// A whole config, resolved for one environment. Everything below works from this one value.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file, as the user named it.
    pub path: PathBuf,
    /// The file's directory: relative paths inside the config start here.
    pub directory: PathBuf,
    /// The environment; `default` when none was asked for.
    pub environment: String,
    /// Resources, in file order.
    pub resources: Vec<Resource>,
    /// Providers by module name.
    pub providers: BTreeMap<ProviderId, ProviderDeclaration>,
    /// The state backend, or `None` when no `iac.state` module is declared.
    pub state: Option<StateDeclaration>,
    /// Generated secrets, in file order.
    pub generate: Vec<Generate>,
    /// Credentials that providers make, in file order; [`Config::generate`] holds their halves.
    pub credentials: Vec<Credential>,
    /// Declared secrets that come from a store.
    pub entries: Vec<Entry>,
    /// Secret stores by name; `secrets.provider` appears as `default`.
    pub secret_stores: BTreeMap<String, SecretStore>,
    /// `deploy_verify` steps, in file order.
    pub gates: Vec<Gate>,
    /// SHA-256 of the text of the file and its imports, hex.
    pub digest: String,
    /// Names of the environment variables it asks for (`${NAME}`), set or not.
    pub variables: BTreeSet<String>,
    /// Every environment it declares, sorted.
    pub environments: Vec<String>,
    /// The error for an environment that nobody declares (any more), for whoever finds nothing of it
    /// on record either. Only where a config was read for [`super::Needs::RECORDS`] or
    /// [`super::Needs::DESTROY`].
    pub unknown_environment: Option<Box<Report>>,
}

impl ProviderDeclaration {
    /// The variables it needs that are not set: none, unless only records are looked at.
    pub fn unset(&self) -> BTreeSet<String> {
        unset(&self.config)
    }
}

impl SecretStore {
    /// The variables it needs that are not set: none, unless only records are looked at.
    pub fn unset(&self) -> BTreeSet<String> {
        unset(&self.config)
    }
}

fn unset(map: &Map) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for value in map.values() {
        value.unset(&mut |name| {
            names.insert(name.to_owned());
        });
    }
    names
}

impl Config {
    /// A resource by its base name or its resolved one. What the config does not declare may still be
    /// on record.
    pub fn address_of(&self, name: &str) -> Address {
        self.resources
            .iter()
            .find(|resource| resource.base_name == name)
            .map_or_else(|| Address::new(name), |resource| resource.address.clone())
    }
}

/// One `infra.*` module.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The name in the file.
    pub base_name: String,
    /// The environment-resolved name: the identity.
    pub address: Address,
    /// The module's type.
    pub kind: Kind,
    /// The provider module.
    pub provider: ProviderId,
    /// Resolved config: variables filled in, references to other modules as templates under
    /// resolved names. The engine's own keys (`provider`, `iac_provider`, `name`, `depends_on`,
    /// `adopt_existing`) are taken out.
    pub config: Map,
    /// Explicit `depends_on` / `dependsOn` plus every referenced module, resolved names.
    pub depends_on: BTreeSet<Address>,
    /// Replace and delete need an explicit override.
    pub protected: bool,
    /// Take over a live resource of that name instead of failing.
    pub adopt_existing: bool,
    /// `size`, when it is one of the five abstract tiers (`xs`, `s`, `m`, `l`, `xl`); any other
    /// text stays in `config`, for the provider.
    pub size: Option<String>,
    /// `hints`: what to take instead of the tier's own processors, memory and storage.
    pub hints: SizeHints,
    /// `lifecycle: {create_before_destroy: true}`: a replace makes the new one first.
    pub create_before_destroy: bool,
    /// Declared outputs by field.
    pub outputs: BTreeMap<String, OutputDeclaration>,
    /// Where the module stands.
    pub at: Span,
}

/// `hints` of a resource, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SizeHints {
    /// Processors.
    pub cpu: Option<String>,
    /// Memory.
    pub memory: Option<String>,
    /// Storage.
    pub storage: Option<String>,
}

/// One declared output.
#[derive(Clone, Debug)]
pub struct OutputDeclaration {
    /// Masked everywhere when true; always plain when false.
    pub sensitive: bool,
    /// Shown in listings.
    pub description: String,
    /// Where the value is written.
    pub sinks: Vec<SinkDeclaration>,
    /// Where the declaration stands.
    pub at: Span,
}

/// One declared sink.
#[derive(Clone, Debug)]
pub struct SinkDeclaration {
    /// The name written there.
    pub name: String,
    /// The destination.
    pub target: SinkTarget,
    /// What a failed write means for the run.
    pub on_failure: OnFailure,
    /// Where the declaration stands.
    pub at: Span,
}

/// Where a sink writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SinkTarget {
    /// A GitHub Actions secret of a repository, or of one of its environments.
    GithubSecret {
        /// `owner/name`.
        repo: String,
        /// Deployment environment.
        environment: Option<String>,
        /// Variable holding the token; `GH_TOKEN`, then `GITHUB_TOKEN` when absent.
        token_env: Option<String>,
    },
    /// The file named by `$GITHUB_ENV`.
    GithubEnv,
    /// A dotenv file, mode 0600.
    Dotenv {
        /// Path; relative to the config's directory.
        path: PathBuf,
    },
}

/// What a failed sink write means for the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Report it; the run goes on and ends as "applied in part".
    #[default]
    Warn,
    /// Report it; the gate is not tried and the run fails.
    Fail,
}

/// One `iac.provider` module.
#[derive(Clone, Debug)]
pub struct ProviderDeclaration {
    /// Provider type, such as `local`.
    pub provider: String,
    /// Everything else in its config, for the provider.
    pub config: Map,
    /// Where the module stands.
    pub at: Span,
}

/// The `iac.state` module.
#[derive(Clone, Debug)]
pub struct StateDeclaration {
    /// `filesystem`, …
    pub backend: String,
    /// Its other keys.
    pub config: Map,
    /// True when the config says that state may vanish with the runner (`ephemeral: true`).
    pub ephemeral: bool,
    /// Where the module stands.
    pub at: Span,
}

/// One `secrets.generate` item.
#[derive(Clone, Debug)]
pub struct Generate {
    /// Name of the secret.
    pub key: String,
    /// How the value is made.
    pub source: GenerateSource,
    /// Named store it is also written to.
    pub store: Option<String>,
    /// Sinks it is also written to.
    pub sinks: Vec<SinkDeclaration>,
    /// Where the item stands.
    pub at: Span,
}

/// How a generated secret is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenerateSource {
    /// Random bytes as hex: 2×`length` characters.
    RandomHex {
        /// Bytes.
        length: usize,
    },
    /// Random bytes as standard base64.
    RandomBase64 {
        /// Bytes.
        length: usize,
    },
    /// Characters from `[A-Za-z0-9]`.
    RandomAlphanumeric {
        /// Characters.
        length: usize,
    },
    /// A copy of a resource's output, made after apply.
    InfraOutput {
        /// The resource, resolved name.
        address: Address,
        /// The output.
        field: String,
    },
    /// Half of a credential that a provider makes.
    ProviderCredential {
        /// The [`Credential::key`].
        credential: String,
        /// Which half.
        half: Half,
    },
}

/// One of the two values of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Says which credential it is.
    AccessKey,
    /// Proves it.
    SecretKey,
}

impl Half {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::AccessKey, Self::SecretKey];

    /// The output of the provider that holds it; `_` and this word end the secret's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::AccessKey => "access_key",
            Self::SecretKey => "secret_key",
        }
    }

    /// The name of this half of the credential `key`.
    pub fn of(self, key: &str) -> String {
        format!("{key}_{}", self.word())
    }
}

/// One `secrets.generate` item of type `provider_credential`.
#[derive(Clone, Debug)]
pub struct Credential {
    /// What the names of its two secrets begin with.
    pub key: String,
    /// Who makes it and what, as written: `digitalocean.spaces`.
    pub source: String,
    /// What the provider calls it.
    pub name: String,
    /// Further settings for whoever makes it.
    pub config: Map,
    /// Where the item stands.
    pub at: Span,
}

/// One `secrets.entries` item.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name of the secret.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The store it comes from: a name in [`Config::secret_stores`].
    pub store: String,
    /// Where the item stands.
    pub at: Span,
}

/// A secret store.
#[derive(Clone, Debug)]
pub struct SecretStore {
    /// `github`, `env`, `file`, …
    pub provider: String,
    /// Its options.
    pub config: Map,
    /// Where it is declared.
    pub at: Option<Span>,
}

/// One `deploy_verify` step.
#[derive(Clone, Debug)]
pub struct Gate {
    /// `<pipeline>/<step>`.
    pub name: String,
    /// What must answer.
    pub targets: Vec<Target>,
    /// For all targets together.
    pub timeout: Duration,
    /// Between two looks at one target.
    pub retry_interval: Duration,
    /// Looks after the first.
    pub max_retries: u32,
    /// Where the step stands.
    pub at: Span,
}

/// One target of a gate. Text fields may hold references to fresh outputs.
#[derive(Clone, Debug)]
pub struct Target {
    /// What to ask.
    pub url: Value,
    /// Status that counts as good.
    pub expect_status: u16,
    /// Text the body must hold.
    pub expect_body_contains: Option<Value>,
    /// HTTP method.
    pub method: String,
    /// Request headers.
    pub headers: BTreeMap<String, Value>,
    /// Request body.
    pub body: Option<Value>,
    /// Check the server's certificate.
    pub tls_verify: bool,
    /// Looks in a row that must pass.
    pub consecutive: u32,
    /// Where the target stands.
    pub at: Span,
}
