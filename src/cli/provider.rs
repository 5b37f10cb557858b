//! Arguments of the commands that ask a provider for something of its own: regions, logs, jobs, scaling,
//! repairs of migrations.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{ConfigArgs, OwnerArgs};

/// `infra regions`
#[derive(Clone, Debug, Default, Args)]
pub struct RegionsArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `infra logs`
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// The resource (resolved name)
    #[arg(value_name = "RESOURCE")]
    pub resource: String,
    /// Which log
    #[arg(long, value_name = "KIND", default_value = "run")]
    pub kind: LogChoice,
    /// How many of the last lines [default: the provider's]
    #[arg(long, value_name = "N")]
    pub tail: Option<u32>,
    /// Go on for this long, such as 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = super::duration)]
    pub follow: Option<Duration>,
    /// Part of the resource
    #[arg(long, value_name = "NAME", default_value = "")]
    pub component: String,
    /// Deployment [default: the current one]
    #[arg(long, value_name = "ID", default_value = "")]
    pub deployment: String,
}

/// Which log of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogChoice {
    /// Of the running thing
    #[default]
    Run,
    /// Of the run before the last restart
    RunRestarted,
    /// Of its build
    Build,
    /// Of its deployment
    Deploy,
}

/// `infra job …`
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Run a one-off job and wait for its end
    Run(JobRunArgs),
    /// Show how a job is doing
    Status(JobArgs),
    /// Print what a job said
    Logs(JobArgs),
}

impl JobCommand {
    /// The command's name in documents.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "infra job run",
            Self::Status(_) => "infra job status",
            Self::Logs(_) => "infra job logs",
        }
    }
}

/// `infra job run`
#[derive(Clone, Debug, Args)]
pub struct JobRunArgs {
    /// Name of the job
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Provider module that runs it [default: the only one that can]
    #[arg(long, value_name = "MODULE")]
    pub provider: Option<String>,
    /// Image it runs
    #[arg(long, value_name = "IMAGE", default_value = "")]
    pub image: String,
    /// Its command line
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub command: String,
    /// Its kind, a word of the provider
    #[arg(long, value_name = "KIND", default_value = "")]
    pub kind: String,
    /// A variable of its environment; never a secret, other users can see arguments
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub variable: Vec<(String, String)>,
    /// A variable whose value the provider takes from a secret of its own
    #[arg(long, value_name = "NAME=REFERENCE", value_parser = pair)]
    pub secret: Vec<(String, String)>,
    /// Print the job's handle and do not wait
    #[arg(long)]
    pub detach: bool,
}

/// `infra job status`, `infra job logs`
#[derive(Clone, Debug, Args)]
pub struct JobArgs {
    /// The job: its id, or the handle that `infra job run --detach` printed
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Provider module that runs it [default: the only one that can]
    #[arg(long, value_name = "MODULE")]
    pub provider: Option<String>,
}

/// `infra scale`
#[derive(Clone, Debug, Args)]
pub struct ScaleArgs {
    /// The resource (base or resolved name)
    #[arg(value_name = "RESOURCE")]
    pub resource: String,
    /// How many instances are to run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=i64::from(i32::MAX)))]
    pub replicas: u32,
    /// On whose behalf
    #[command(flatten)]
    pub owner: OwnerArgs,
    /// How long to wait for the state lock, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::duration)]
    pub lock_timeout: Duration,
}

/// `migrations …`
#[derive(Debug, Subcommand)]
pub enum MigrationsCommand {
    /// Set the version of a database whose last migration stopped half-way
    ///
    /// A job of the provider does it; nobody else may change the environment meanwhile.
    RepairDirty(RepairArgs),
}

/// `migrations repair-dirty`
#[derive(Clone, Debug, Args)]
pub struct RepairArgs {
    /// The application whose migrations they are (base or resolved name)
    #[arg(long, value_name = "RESOURCE")]
    pub app: String,
    /// The database (base or resolved name)
    #[arg(long, value_name = "RESOURCE")]
    pub database: String,
    /// Image that can run the migrations
    #[arg(long, value_name = "IMAGE")]
    pub job_image: String,
    /// Where the migrations lie inside it
    #[arg(long, value_name = "FOLDER")]
    pub source_dir: String,
    /// The version that is expected to be half done; any other, and nothing is changed
    #[arg(long, value_name = "VERSION")]
    pub expected_dirty_version: String,
    /// The version to set
    #[arg(long, value_name = "VERSION")]
    pub force_version: String,
    /// Migrate on after that
    #[arg(long, conflicts_with = "up_if_clean")]
    pub then_up: bool,
    /// Migrate on when nothing is half done
    #[arg(long)]
    pub up_if_clean: bool,
    /// FORCE_MIGRATION_METADATA: that what the database says about itself is to be overwritten
    #[arg(
        long,
        value_name = "WORDS",
        default_value = "",
        hide_default_value = true
    )]
    pub confirm_force: String,
    /// A variable of the job's environment; never a secret, other users can see arguments
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub variable: Vec<(String, String)>,
    /// How long the job may take [default: the provider's]
    #[arg(long, value_name = "TIME", value_parser = super::some_time)]
    pub timeout: Option<Duration>,
    /// Provider module that runs it [default: that of the database]
    #[arg(long, value_name = "MODULE")]
    pub provider: Option<String>,
    /// How long to wait for the state lock, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::duration)]
    pub lock_timeout: Duration,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if crate::variables::is_variable_name(name) => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("write it like NAME=value".to_owned()),
    }
}
