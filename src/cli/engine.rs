//! Flags of planning and applying.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// Which resources.
#[derive(Clone, Debug, Default, Args)]
pub struct ScopeArgs {
    /// Only these resources, by name; everything else is left alone
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub include: Vec<String>,
}

/// How a plan is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// Rows for a terminal
    #[default]
    Table,
    /// A page for a pull request's comment, below its size limit
    Markdown,
    /// The same as --json
    Json,
}

/// Saving a plan.
#[derive(Clone, Debug, Default, Args)]
pub struct SaveArgs {
    /// Also save the plan, for `infra apply --plan`
    #[arg(long, short = 'o', value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// How long the saved plan may be applied [default: 24h]
    #[arg(long, value_name = "TIME", requires = "output", value_parser = super::validity)]
    pub valid_for: Option<Duration>,
}

/// Applying a saved plan, and saying what came of it.
#[derive(Clone, Debug, Default, Args)]
pub struct OutcomeArgs {
    /// Apply this saved plan, exactly; it is its own approval
    #[arg(long, value_name = "FILE", conflicts_with_all = ["include", "dry_run"])]
    pub plan: Option<PathBuf>,

    /// Also save how every action ended, as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// What is done to the records first, and flags of other tools' `apply`.
#[derive(Clone, Debug, Default, Args)]
pub struct RefreshFirstArgs {
    /// First forget the records of what its provider does not know any more
    #[arg(long, conflicts_with_all = ["plan", "dry_run"])]
    pub refresh: bool,

    /// First read every output again
    #[arg(long, conflicts_with_all = ["plan", "dry_run"])]
    pub refresh_outputs: bool,

    /// Of another tool: an apply always waits
    #[arg(long, hide = true)]
    pub wait: bool,

    /// Of another tool: nothing is refreshed unless a flag says so
    #[arg(long, hide = true, conflicts_with_all = ["refresh", "refresh_outputs"])]
    pub skip_refresh: bool,

    /// Of another tool: an apply has no bootstrap of its own
    #[arg(long, hide = true)]
    pub skip_bootstrap: bool,

    /// Of another tool: protected resources are allowed by name
    #[arg(long, hide = true)]
    pub allow_protected_prune: bool,
}
