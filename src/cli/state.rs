//! `state …`: looking at state and changing it by hand.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

/// `state …`, also as `infra state …`
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// List the recorded resources
    List(ListArgs),
    /// Show one record; sensitive values stay hidden
    Show {
        /// The resource
        name: String,
    },
    /// Forget resources; they stay in the world, and the next apply does not know them
    Rm(RmArgs),
    /// Rename a record, after its resource was renamed in the config
    Mv(MvArgs),
    /// Write the whole environment as one JSON document; what is sealed stays sealed
    Pull {
        /// Write to this file (mode 0600) instead of stdout
        #[arg(long, short = 'o', value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Replace the whole environment by a document that `pull` wrote
    ///
    /// Refused for another lineage, and for a document older than the state, unless --force is given.
    Push(PushArgs),
    /// Keep a copy of the environment in a file
    Backup {
        /// Write to this file instead of .tidegate/backups
        #[arg(long, short = 'o', value_name = "FILE")]
        output: Option<PathBuf>,
        /// Also write the state key, in the clear, to FILE.key (mode 0600)
        ///
        /// For when the store itself may be lost: sealed values open with that key alone.
        #[arg(long)]
        with_key: bool,
    },
    /// Go back to a copy that `backup` (or any changing command) kept
    Restore(RestoreArgs),
    /// Say what became of a resource that a run was cut off while making
    ///
    /// For a provider that can neither find such resources by name nor list them: then nobody but you can
    /// know.
    Settle(SettleArgs),
    /// Free the lock of a run that cannot give it back
    Unlock(UnlockArgs),
    /// Move the environment into another store, or take over records of the other tool
    Migrate(MigrateArgs),
    /// Read everything there is, open every seal, and say what is wrong
    Verify,
    /// Remove everything recorded for this environment; the resources themselves stay
    Wipe(WipeArgs),
    /// Write the records in another tool's form; sensitive values stay placeholders
    Export(ExportArgs),
    /// Take records over from another tool's document
    Import(ImportArgs),
}

impl StateCommand {
    /// The command as JSON documents and locks name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::List(_) => "state list",
            Self::Show { .. } => "state show",
            Self::Rm(_) => "state rm",
            Self::Mv(_) => "state mv",
            Self::Pull { .. } => "state pull",
            Self::Push(_) => "state push",
            Self::Backup { .. } => "state backup",
            Self::Restore(_) => "state restore",
            Self::Settle(_) => "state settle",
            Self::Unlock(_) => "state unlock",
            Self::Migrate(_) => "state migrate",
            Self::Verify => "state verify",
            Self::Wipe(_) => "state wipe",
            Self::Export(_) => "state export",
            Self::Import(_) => "state import",
        }
    }
}

/// How a change of state is approved, and how long it waits for its turn.
#[derive(Clone, Debug, Default, Args)]
pub struct ChangeArgs {
    /// Approve without asking
    #[arg(
        long,
        short = 'y',
        visible_alias = "approve",
        visible_alias = "auto-approve",
        overrides_with = "yes"
    )]
    pub yes: bool,
    /// How long to wait for the state lock, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::duration)]
    pub lock_timeout: Duration,
}

/// `state list`
#[derive(Clone, Debug, Default, Args)]
pub struct ListArgs {
    /// Only records of which this is true; may be repeated (keys: provider, resource_type, status)
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Only what comes after this name
    #[arg(long, value_name = "NAME")]
    pub after: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

/// `state rm`
#[derive(Clone, Debug, Default, Args)]
pub struct RmArgs {
    /// The resources
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Also what is damaged: everything that cannot be read has to be named, and is dropped
    #[arg(long)]
    pub force: bool,
    /// Approval and waiting
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `state mv`
#[derive(Clone, Debug, Default, Args)]
pub struct MvArgs {
    /// The name it has
    pub from: String,
    /// The name it gets
    pub to: String,
    /// Approval and waiting
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `state push`
#[derive(Clone, Debug, Default, Args)]
pub struct PushArgs {
    /// The document
    pub file: PathBuf,
    /// Even if it is of another lineage, or older
    #[arg(long)]
    pub force: bool,
    /// Approval and waiting
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `state restore`
#[derive(Clone, Debug, Default, Args)]
pub struct RestoreArgs {
    /// The copy
    pub file: PathBuf,
    /// The key the copy is sealed with, when it is not the store's (default: FILE.key, if it is there)
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Approval and waiting
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `state wipe`
#[derive(Clone, Debug, Default, Args)]
pub struct WipeArgs {
    /// Even if something in it cannot be read
    #[arg(long)]
    pub force: bool,
    /// Approval and waiting
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `state settle`
#[derive(Clone, Debug, Default, Args)]
pub struct SettleArgs {
    /// The resource
    pub name: String,
    /// It was made, and this is its id at the provider
    #[arg(
        long,
        value_name = "ID",
        conflicts_with = "absent",
        required_unless_present = "absent"
    )]
    pub id: Option<String>,
    /// It was not made
    #[arg(long)]
    pub absent: bool,
    /// Approval and waiting
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `state unlock`
#[derive(Clone, Debug, Default, Args)]
pub struct UnlockArgs {
    /// Id of the run that holds the lock, as `state list` and every refusal tell it
    #[arg(required_unless_present = "if_mine", value_name = "RUN-ID")]
    pub run_id: Option<String>,
    /// Only if this very workflow run and attempt holds it; for a step with `if: always()`
    #[arg(long, conflicts_with = "run_id")]
    pub if_mine: bool,
}

/// `state migrate`
#[derive(Clone, Debug, Default, Args)]
pub struct MigrateArgs {
    /// Where to: a config whose `iac.state` names the store, `filesystem` or `filesystem=FOLDER`
    #[arg(long, value_name = "STORE", required_unless_present = "from")]
    pub to: Option<String>,
    /// Where from, when it is not the store of this config
    #[arg(long, value_name = "WHAT", conflicts_with = "to")]
    pub from: Option<Origin>,
    /// With --from upstream: the folder of their records, or of the objects of their bucket
    #[arg(
        long,
        value_name = "FOLDER",
        requires = "from",
        conflicts_with = "source_variable"
    )]
    pub source: Option<PathBuf>,
    /// With --from upstream: the variable that holds the connection string of their database
    #[arg(long, value_name = "VARIABLE", requires = "from")]
    pub source_variable: Option<String>,
    /// Even if the target holds something already
    #[arg(long)]
    pub force: bool,
    /// Keep the key inside the target in the clear, although it is kept outside the store now
    #[arg(long)]
    pub key_in_store: bool,
    /// Approval and waiting
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Whose records are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Origin {
    /// The other tool's: JSON files, objects, or a database table
    Upstream,
}

/// `state export`
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// The form
    #[arg(long, short = 'f', value_name = "FORM", default_value = "tfstate")]
    pub format: ExportFormat,
    /// The file (tfstate; default: stdout) or the folder (upstream) to write
    #[arg(long, short = 'o', value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// With --format upstream: write into the database whose connection string this variable holds
    #[arg(long, value_name = "VARIABLE", conflicts_with = "output")]
    pub target_variable: Option<String>,
}

/// What can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A Terraform state document, version 4
    Tfstate,
    /// One JSON file a record, as the other tool of this format keeps them
    Upstream,
}

/// `state import`
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// The form
    #[arg(long, value_name = "FORM", default_value = "tfstate")]
    pub from: ImportFormat,
    /// The document
    pub file: PathBuf,
    /// Approval and waiting
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// What can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    /// A Terraform state document, version 4
    Tfstate,
}
