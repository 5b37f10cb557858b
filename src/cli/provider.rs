//! Arguments of the commands that ask a provider for something of its own: regions, logs, jobs.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::ConfigArgs;

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

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if crate::variables::is_variable_name(name) => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("write it like NAME=value".to_owned()),
    }
}
