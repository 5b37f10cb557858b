//! The shape of a config file, written once: reader and JSON Schema both come from here.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::decode::{
    Decode, Idle, Lasting, Marked, Nullable, Plain, RawMap, Table, Text, shape, words,
};
use super::problems::Problems;
use super::yaml::Node;

shape! {
    /// A Tidegate config. Keys that start with `x-` are free: a place for YAML anchors.
    #[schemars(title = "Tidegate config", extend("patternProperties" = { "^x-": true }))]
    Document, "the config", extensions: true;
    required {}
    optional {
        /// Other files whose content is merged in; paths start at this file's directory.
        imports: Vec<Text> = "imports",
        /// Resources, providers and the state backend.
        modules: Vec<Module> = "modules",
        /// Environments and what applies to all of an environment's resources.
        environments: Table<Nullable<Environment>> = "environments",
        /// Secrets that are generated or come from a store.
        secrets: Secrets = "secrets",
        /// Named secret stores.
        secret_stores: Table<Store> = "secretStores",
        /// How the infrastructure half runs.
        infra: Infra = "infra",
        /// Pipelines; their `deploy_verify` steps are the deploy gate.
        pipelines: Table<Pipeline> = "pipelines",
        /// Accepted; used by other tools.
        requires: Idle = "requires",
        /// Accepted; used by other tools.
        plugins: Idle = "plugins",
        /// Accepted; used by other tools.
        ci: Idle = "ci",
        /// Accepted with a warning: Tidegate does not act on it.
        vars: Idle = "vars",
        /// Accepted with a warning: Tidegate does not act on it.
        variables: Idle = "variables",
        /// Accepted with a warning: Tidegate does not act on it.
        infrastructure: Idle = "infrastructure",
        /// Accepted with a warning: Tidegate does not act on it.
        workflows: Idle = "workflows",
        /// Accepted with a warning: Tidegate does not act on it.
        triggers: Idle = "triggers",
        /// Accepted with a warning: Tidegate does not act on it.
        services: Idle = "services",
        /// Accepted with a warning: Tidegate does not act on it.
        sidecars: Idle = "sidecars",
        /// Accepted with a warning: Tidegate does not act on it.
        mesh: Idle = "mesh",
        /// Accepted with a warning: Tidegate does not act on it.
        networking: Idle = "networking",
        /// Accepted with a warning: Tidegate does not act on it.
        security: Idle = "security",
        /// Accepted with a warning: Tidegate does not act on it.
        engine: Idle = "engine",
        /// Accepted with a warning: Tidegate does not act on it.
        platform: Idle = "platform",
    }
}

impl Document {
    /// The sections that are there and not acted on, with a place in each.
    pub(super) fn idle_sections(&self) -> Vec<(&'static str, super::source::Mark)> {
        [
            ("vars", &self.vars),
            ("variables", &self.variables),
            ("infrastructure", &self.infrastructure),
            ("workflows", &self.workflows),
            ("triggers", &self.triggers),
            ("services", &self.services),
            ("sidecars", &self.sidecars),
            ("mesh", &self.mesh),
            ("networking", &self.networking),
            ("security", &self.security),
            ("engine", &self.engine),
            ("platform", &self.platform),
        ]
        .into_iter()
        .filter_map(|(name, section)| section.as_ref().map(|section| (name, section.0)))
        .collect()
    }
}

shape! {
    /// One resource, provider, state backend or secret set.
    Module, "module";
    required {
        /// The module's name. Data, not a path: any text without control characters.
        name: Text = "name",
        /// `infra.*` for resources, `iac.provider`, `iac.state`, `secrets.generate`, …
        kind: Text = "type",
    }
    optional {
        /// Settings of this type; text in it may hold `${VAR}` and `${module.field}`.
        config: RawMap = "config",
        /// Modules this one waits for; `config.depends_on` means the same.
        depends_on: Vec<Text> = "dependsOn",
        /// Refuse to replace or delete this resource.
        protected: Marked<bool> = "protected",
        /// Keys of the requirements this module meets; `infra derive` reads them.
        satisfies: Vec<Text> = "satisfies",
        /// Accepted; used by other tools.
        branches: Idle = "branches",
        /// Changes per environment; `null` leaves the module out there.
        environments: Table<Nullable<Override>> = "environments",
        /// Outputs of this resource: their sensitivity, and where they are written.
        outputs: Table<Nullable<OutputShape>> = "outputs",
    }
}

words! {
    /// How a module is realised in an environment.
    Strategy {
        /// As a container.
        Container = "container",
        /// By a provider.
        Provision = "provision",
        /// It is there already.
        Existing = "existing",
    }
}

shape! {
    /// What differs in one environment.
    Override, "environment override";
    required {}
    optional {
        /// The provider module.
        provider: Text = "provider",
        /// Merged over the module's `config`: maps key by key, everything else replaced.
        config: RawMap = "config",
        /// Accepted; not acted on.
        strategy: Marked<Strategy> = "strategy",
        /// Accepted; not acted on.
        docker_image: Text = "dockerImage",
        /// Accepted; not acted on.
        port: Marked<u32> = "port",
        /// Accepted; not acted on.
        connection: RawMap = "connection",
    }
}

shape! {
    /// One declared output. An output that is not declared counts as sensitive, unless its provider says
    /// that it is not.
    OutputShape, "output";
    required {}
    optional {
        /// True hides the value everywhere; false shows it everywhere. Default: true.
        sensitive: Marked<bool> = "sensitive",
        /// Shown in listings.
        description: Text = "description",
        /// Where the value is written; needs `sensitive: true`.
        sinks: Vec<Sink> = "sinks",
    }
}

words! {
    /// What kind of place a sink is.
    SinkKind {
        /// A GitHub Actions secret.
        GithubSecret = "github_secret",
        /// The file named by `$GITHUB_ENV`.
        GithubEnv = "github_env",
        /// A dotenv file.
        Dotenv = "dotenv",
    }
}

words! {
    /// What a failed sink means.
    Policy {
        /// Report it and go on.
        Warn = "warn",
        /// Fail the run.
        Fail = "fail",
    }
}

shape! {
    /// One place a value is written to.
    Sink, "sink";
    required {
        /// The kind of place.
        kind: Marked<SinkKind> = "type",
        /// The name it is written under.
        name: Text = "name",
    }
    optional {
        /// `github_secret`: the repository, `owner/name`. Required there.
        repo: Text = "repo",
        /// `github_secret`: the deployment environment.
        environment: Text = "environment",
        /// `github_secret`: the variable that holds the token.
        token_env: Text = "token_env",
        /// `dotenv`: the file. Default: `.env`.
        path: Text = "path",
        /// What a failed write means. Default: `warn`.
        on_failure: Marked<Policy> = "on_failure",
    }
}

shape! {
    /// Defaults for one environment.
    Environment, "environment";
    required {}
    optional {
        /// The provider module of resources that name none.
        provider: Text = "provider",
        /// The region of resources that name none.
        region: Text = "region",
        /// Environment variables of container services that do not set them.
        env_vars: Table<Plain> = "envVars",
        /// The secret store used in this environment.
        store_override: Text = "secretsStoreOverride",
        /// Accepted; not acted on.
        secrets_provider: Idle = "secretsProvider",
        /// Accepted; not acted on.
        secrets_prefix: Idle = "secretsPrefix",
        /// Accepted; not acted on.
        approval_required: Idle = "approvalRequired",
        /// Accepted; not acted on.
        exposure: Idle = "exposure",
        /// Accepted; not acted on.
        build: Idle = "build",
    }
}

shape! {
    /// Secrets that are generated or come from a store.
    #[derive(Default)]
    Secrets, "`secrets`";
    required {}
    optional {
        /// The store used by default.
        provider: Marked<StoreKind> = "provider",
        /// Its options.
        config: RawMap = "config",
        /// The named store that entries come from.
        default_store: Text = "defaultStore",
        /// Secrets that come from a store.
        entries: Vec<EntryShape> = "entries",
        /// Accepted; not acted on.
        rotation: Idle = "rotation",
        /// Secrets that are made on the first run.
        generate: Vec<GenerateShape> = "generate",
    }
}

words! {
    /// What kind of secret store it is.
    StoreKind {
        /// GitHub Actions secrets: written, never read.
        Github = "github",
        /// The same as `github`.
        GithubActions = "github-actions",
        /// HashiCorp Vault or OpenBao.
        Vault = "vault",
        /// AWS Secrets Manager.
        Aws = "aws",
        /// The same as `aws`.
        AwsSecretsManager = "aws-secrets-manager",
        /// Environment variables.
        Env = "env",
        /// The operating system's key chain.
        Keychain = "keychain",
        /// One file per secret.
        File = "file",
    }
}

impl StoreKind {
    /// The one name other rooms know it by.
    pub(super) fn canonical(self) -> &'static str {
        match self {
            Self::Github | Self::GithubActions => "github",
            Self::Vault => "vault",
            Self::Aws | Self::AwsSecretsManager => "aws",
            Self::Env => "env",
            Self::Keychain => "keychain",
            Self::File => "file",
        }
    }
}

shape! {
    /// A secret that comes from a store.
    EntryShape, "secret";
    required {
        /// Its name; `${NAME}` stands for its value.
        name: Text = "name",
    }
    optional {
        /// What it is for.
        description: Text = "description",
        /// The store it comes from.
        store: Text = "store",
        /// Accepted; not acted on.
        rotation: Idle = "rotation",
    }
}

words! {
    /// How a secret is made.
    GenerateKind {
        /// Random bytes as hex.
        RandomHex = "random_hex",
        /// Random bytes as base64.
        RandomBase64 = "random_base64",
        /// Random letters and digits.
        RandomAlphanumeric = "random_alphanumeric",
        /// A copy of a resource's output.
        InfraOutput = "infra_output",
        /// A credential that a provider makes: two secrets, `<key>_access_key` and
        /// `<key>_secret_key`.
        ProviderCredential = "provider_credential",
    }
}

shape! {
    /// A secret that is made on the first run.
    GenerateShape, "generated secret";
    required {
        /// Its name; `${NAME}` stands for its value.
        key: Text = "key",
        /// How it is made.
        kind: Marked<GenerateKind> = "type",
    }
    optional {
        /// `random_*`: bytes (`random_alphanumeric`: characters). Default: 32.
        length: Marked<u32> = "length",
        /// `infra_output`: `module.field`; `provider_credential`: `provider.what`. Required there.
        source: Text = "source",
        /// `provider_credential`: what the provider calls it. Required there.
        name: Text = "name",
        /// `provider_credential`: further settings, such as what it may be used for.
        config: RawMap = "config",
        /// The named store it is also written to.
        store: Text = "store",
        /// Where it is also written.
        sinks: Vec<Sink> = "sinks",
    }
}

shape! {
    /// A named secret store.
    Store, "secret store";
    required {
        /// Its kind.
        provider: Marked<StoreKind> = "provider",
    }
    optional {
        /// Its options.
        config: RawMap = "config",
        /// What it is for.
        description: Text = "description",
    }
}

shape! {
    /// How the infrastructure half runs.
    Infra, "`infra`";
    required {}
    optional {
        /// Prepare what the state needs before an apply. Default: true.
        auto_bootstrap: Marked<bool> = "auto_bootstrap",
    }
}

/// A pipeline. Only its `steps` are ours; other keys are accepted.
#[derive(Clone, Debug, JsonSchema)]
pub(super) struct Pipeline {
    /// The steps, in order.
    pub(super) steps: Option<Vec<Step>>,
}

impl Decode for Pipeline {
    fn decode(node: Node, what: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = super::decode::Fields::open(node, what, "pipeline", problems)?;
        Some(Self {
            steps: fields.optional("steps", problems),
        })
    }
}

/// The types of step that are deploy gates.
pub(super) const GATE_STEPS: [&str; 2] = ["step.deploy_verify", "deploy_verify"];

/// One step of a pipeline.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A deploy gate.
    Gate(Box<GateStep>),
    /// Someone else's: its type and where that stands (without one: where the step begins).
    Other(String, super::source::Mark),
}

impl JsonSchema for Step {
    fn schema_name() -> Cow<'static, str> {
        "Step".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "if": {
                "properties": { "type": { "enum": GATE_STEPS } },
                "required": ["type"],
            },
            "then": generator.subschema_for::<GateStep>(),
        })
    }
}

impl Decode for Step {
    fn decode(node: Node, what: &str, problems: &mut Problems) -> Option<Self> {
        let named = node
            .entry("type")
            .and_then(|entry| Some((entry.value.as_text()?.to_owned(), entry.value.at)));
        let (kind, at) = named.unwrap_or_else(|| (String::new(), node.at));
        if GATE_STEPS.contains(&kind.as_str()) {
            return GateStep::decode(node, what, problems).map(|step| Self::Gate(Box::new(step)));
        }
        RawMap::decode(node, what, problems).map(|_| Self::Other(kind, at))
    }
}

shape! {
    /// A step that holds the run until the deploy answers as it should.
    GateStep, "step";
    required {
        /// The step's name.
        name: Text = "name",
        /// `step.deploy_verify` or `deploy_verify`.
        kind: Text = "type",
        /// What must answer, and how.
        config: GateShape = "config",
    }
    optional {}
}

shape! {
    /// What must answer, and how. Name several `targets`, or one `url` right here.
    GateShape, "`deploy_verify`";
    required {}
    optional {
        /// What must answer; all are asked at once.
        targets: Vec<TargetShape> = "targets",
        /// For all targets together. Default: 5m.
        timeout: Lasting = "timeout",
        /// Between two looks at one target. Default: 10s.
        retry_interval: Lasting = "retry_interval",
        /// Looks after the first. Default: 30.
        max_retries: Marked<u32> = "max_retries",
        /// The one target's address.
        url: Text = "url",
        /// Status that counts as good. Default: 200.
        expect_status: Marked<u32> = "expect_status",
        /// Text the body must hold.
        expect_body_contains: Text = "expect_body_contains",
        /// HTTP method. Default: GET.
        method: Marked<Method> = "method",
        /// Request headers.
        headers: Table<Text> = "headers",
        /// Request body.
        body: Text = "body",
        /// Check the server's certificate. Default: true.
        tls_verify: Marked<bool> = "tls_verify",
        /// Looks in a row that must pass. Default: 1.
        consecutive: Marked<u32> = "consecutive",
    }
}

words! {
    /// HTTP methods.
    Method {
        /// The default.
        Get = "GET",
        /// Headers only.
        Head = "HEAD",
        /// With a body.
        Post = "POST",
        /// With a body.
        Put = "PUT",
        /// With a body.
        Patch = "PATCH",
        /// Rarely what a gate should do.
        Delete = "DELETE",
        /// What is allowed.
        Options = "OPTIONS",
    }
}

impl Method {
    /// The word on the wire.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

shape! {
    /// One target of a gate.
    TargetShape, "target";
    required {
        /// The address; may hold `${module.field}`.
        url: Text = "url",
    }
    optional {
        /// Status that counts as good. Default: 200.
        expect_status: Marked<u32> = "expect_status",
        /// Text the body must hold.
        expect_body_contains: Text = "expect_body_contains",
        /// HTTP method. Default: GET.
        method: Marked<Method> = "method",
        /// Request headers.
        headers: Table<Text> = "headers",
        /// Request body.
        body: Text = "body",
        /// Check the server's certificate. Default: true.
        tls_verify: Marked<bool> = "tls_verify",
        /// Looks in a row that must pass. Default: that of the step.
        consecutive: Marked<u32> = "consecutive",
    }
}

/// The JSON Schema (draft 2020-12) of a config file.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::generate::SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Document>()
        .to_value();
    super::strict::tighten(&mut schema);
    schema
}
