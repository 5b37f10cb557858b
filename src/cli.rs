//! The command line: what may be typed, and its help. No behaviour.

pub mod engine;
pub mod infra;
pub mod plugin;
pub mod provider;
mod state;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use engine::{OutcomeArgs, PlanFormat, RefreshFirstArgs, SaveArgs, ScopeArgs};
pub use state::*;

/// Takes infra.yaml from nothing to a verified deploy, and never lets a secret out on the way.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    disable_help_subcommand = true,
    infer_long_args = false,
    max_term_width = 100,
    after_help = "Start with: tidegate up -c infra.yaml --env dev\nExit codes: docs/exit-codes.md"
)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,

    /// What every command takes, before or after its name
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Flags every command takes.
#[derive(Clone, Debug, Default, Args)]
pub struct GlobalArgs {
    /// Print one JSON document on stdout (shapes: docs/json.md)
    #[arg(long, global = true)]
    pub json: bool,

    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,

    /// Say only what went wrong
    #[arg(long, short = 'q', global = true)]
    pub quiet: bool,

    /// Config file [default: infra.yaml, then config/infra.yaml]
    #[arg(
        long,
        short = 'c',
        global = true,
        value_name = "FILE",
        overrides_with = "config"
    )]
    pub config: Option<PathBuf>,

    /// Environment to resolve the config for
    #[arg(long, global = true, value_name = "NAME", overrides_with = "env")]
    pub env: Option<String>,

    /// Folder of provider plugins [default: TIDEGATE_PLUGIN_DIR, WFCTL_PLUGIN_DIR, or ./data/plugins]
    #[arg(
        long,
        global = true,
        value_name = "FOLDER",
        overrides_with = "plugin_dir"
    )]
    pub plugin_dir: Option<PathBuf>,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Plan, apply, write sinks, hold the gate: the whole way in one command
    ///
    /// Needs no approval while the plan only creates and updates. A plan that deletes or replaces
    /// anything is shown and refused, unless approved by --yes or by typing `yes` at a terminal.
    Up(UpArgs),
    /// Look at the config
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Work with infrastructure
    #[command(subcommand)]
    Infra(InfraCommand),
    /// Work with a deploy
    #[command(subcommand)]
    Deploy(DeployCommand),
    /// Pin, lock, install and check provider plugins
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Say where plugins that name no source are looked for
    #[command(subcommand)]
    PluginRegistry(plugin::RegistryCommand),
    /// Move old forms of the config to new ones
    #[command(subcommand)]
    Migrate(plugin::MigrateCommand),
    /// Work with the migrations of a database, at a provider that can
    #[command(subcommand)]
    Migrations(provider::MigrationsCommand),
    /// Look at the state of an environment, and change it by hand
    #[command(subcommand)]
    State(StateCommand),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Run the command the composite action asks for (reads TIDEGATE_INPUT_* variables)
    #[command(hide = true)]
    Action,
}

/// The config file as a plain argument.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// Config file, the same as --config
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Approval of what can lose data. Only a flag or a person approves, never a variable.
#[derive(Clone, Debug, Default, Args)]
pub struct ApprovalArgs {
    /// Approve without asking
    #[arg(
        long,
        short = 'y',
        visible_alias = "approve",
        visible_alias = "auto-approve",
        overrides_with = "yes"
    )]
    pub yes: bool,

    /// Allow replace and delete of these protected resources, by name
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub allow_replace: Vec<String>,
}

/// On whose behalf a run works, at providers that keep owners.
#[derive(Clone, Debug, Default, Args)]
pub struct OwnerArgs {
    /// Whose the resources become; what is somebody else's is not touched [default:
    /// WORKFLOW_RESOURCE_OWNER]
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,

    /// Take over what is somebody else's
    #[arg(long)]
    pub force_owner: bool,
}

/// How a run behaves.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// How many actions may run at once
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub parallelism: u16,

    /// How long to wait for the state lock, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub lock_timeout: Duration,

    /// How long one call to a provider may take
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = some_time)]
    pub action_timeout: Duration,
}

/// `up`.
#[derive(Clone, Debug, Default, Args)]
pub struct UpArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Approval
    #[command(flatten)]
    pub approval: ApprovalArgs,
    /// Behaviour
    #[command(flatten)]
    pub run: RunArgs,
    /// On whose behalf
    #[command(flatten)]
    pub owner: OwnerArgs,
    /// Show the plan and stop; nothing is changed
    #[arg(long)]
    pub dry_run: bool,
    /// Do not hold the deploy gate at the end
    #[arg(long)]
    pub skip_gate: bool,
}

/// `config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the config and report every problem in it
    ///
    /// Without --env, every declared environment is checked.
    Validate(ConfigArgs),
    /// Show the config as resolved for one environment; secrets stay hidden
    Resolve(ConfigArgs),
    /// Print the JSON Schema (draft 2020-12) that editors use
    Schema,
}

/// `infra …`
#[derive(Debug, Subcommand)]
pub enum InfraCommand {
    /// Show what apply would do
    Plan(PlanArgs),
    /// Make the infrastructure what the config says, and write sinks
    Apply(ApplyArgs),
    /// Remove everything recorded for this environment
    Destroy(DestroyArgs),
    /// Show outputs; sensitive ones stay hidden
    Outputs(OutputsArgs),
    /// Show every recorded resource and how it is doing
    Status(StatusArgs),
    /// Everything beside these
    #[command(flatten)]
    Beside(infra::BesideCommand),
    /// List the regions of every provider that has some
    Regions(provider::RegionsArgs),
    /// Print the log of a resource
    Logs(provider::LogsArgs),
    /// Set how many instances of a resource run, now; the config is left as it is
    Scale(provider::ScaleArgs),
    /// Run one-off jobs at a provider
    #[command(subcommand)]
    Job(provider::JobCommand),
    /// Look at the state of an environment, and change it by hand
    #[command(subcommand)]
    State(StateCommand),
}

/// `infra plan`
#[derive(Clone, Debug, Default, Args)]
pub struct PlanArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How many comparisons may run at once
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub parallelism: u16,
    /// Exit with 0 for no changes, 2 for changes, 1 for any error
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// How the plan is shown
    #[arg(long, short = 'f', value_name = "FORM", default_value = "table")]
    pub format: PlanFormat,
    /// Which resources
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Saving
    #[command(flatten)]
    pub save: SaveArgs,
}

/// `infra apply`
#[derive(Clone, Debug, Default, Args)]
pub struct ApplyArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Approval
    #[command(flatten)]
    pub approval: ApprovalArgs,
    /// Behaviour
    #[command(flatten)]
    pub run: RunArgs,
    /// On whose behalf
    #[command(flatten)]
    pub owner: OwnerArgs,
    /// Show the plan and stop; nothing is changed
    #[arg(long)]
    pub dry_run: bool,
    /// How the plan of a dry run is shown
    #[arg(
        long,
        short = 'f',
        value_name = "FORM",
        default_value = "table",
        requires = "dry_run"
    )]
    pub format: PlanFormat,
    /// Which resources
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// A saved plan, a report
    #[command(flatten)]
    pub outcome: OutcomeArgs,
    /// What comes first
    #[command(flatten)]
    pub first: RefreshFirstArgs,
}

/// `infra destroy`
#[derive(Clone, Debug, Default, Args)]
pub struct DestroyArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Approval
    #[command(flatten)]
    pub approval: ApprovalArgs,
    /// Behaviour
    #[command(flatten)]
    pub run: RunArgs,
    /// On whose behalf
    #[command(flatten)]
    pub owner: OwnerArgs,
    /// Show what would be removed and stop
    #[arg(long)]
    pub dry_run: bool,
}

/// `infra outputs`
#[derive(Clone, Debug, Default, Args)]
pub struct OutputsArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only this resource (base or resolved name)
    #[arg(long, short = 'm', value_name = "NAME")]
    pub module: Option<String>,
    /// Only this output, its bare value
    #[arg(long, value_name = "FIELD", requires = "module")]
    pub output: Option<String>,
    /// Form of the listing
    #[arg(long, short = 'f', value_name = "FORM", default_value = "value")]
    pub format: OutputsFormat,
    /// Show sensitive values in the clear (never possible by a variable)
    #[arg(long, short = 'S')]
    pub show_sensitive: bool,
}

/// Form of the outputs listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputsFormat {
    /// `module.field: value`
    #[default]
    Value,
    /// `MODULE_FIELD='value'`
    Env,
    /// A JSON object
    Json,
}

/// `infra status`
#[derive(Clone, Debug, Default, Args)]
pub struct StatusArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `deploy …`
#[derive(Debug, Subcommand)]
pub enum DeployCommand {
    /// Hold until the new version really answers, or fail with evidence
    ///
    /// With --url, one target from flags. Without, every deploy_verify step of the config.
    Verify(VerifyArgs),
}

/// `deploy verify`
#[derive(Clone, Debug, Default, Args)]
pub struct VerifyArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Target; may hold references such as ${web.live_url}
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Status that counts as good
    #[arg(long, value_name = "CODE", default_value = "200", requires = "url")]
    pub expect_status: u16,
    /// Text the body must hold
    #[arg(long, value_name = "TEXT", requires = "url")]
    pub expect_body_contains: Option<String>,
    /// For all targets together [default: 5m, or what the config says]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Between two looks at one target [default: 10s, or what the config says]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub retry_interval: Option<Duration>,
    /// Looks after the first [default: 30, or what the config says]
    #[arg(long, value_name = "N")]
    pub max_retries: Option<u32>,
    /// Show every look, not only changes
    #[arg(long)]
    pub verbose: bool,
}

/// A duration in which something can be done.
fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than nothing".to_owned()),
        some => Ok(some),
    }
}

/// How long a saved plan may be applied. What was true a year ago says nothing about today.
fn validity(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);
    match some_time(text)? {
        validity if validity > LONGEST => Err("at most a year (8784h)".to_owned()),
        validity => Ok(validity),
    }
}

/// `90`, `250ms`, `30s`, `5m`, `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    crate::config::duration(text).ok_or_else(|| "write it like 250ms, 30s, 5m or 1h30m".to_owned())
}
