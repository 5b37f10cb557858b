//! The commands beside plan, apply and destroy: what may be typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ApprovalArgs, ConfigArgs, OwnerArgs, RunArgs};

/// `infra …` beside plan, apply, destroy, outputs and status.
#[derive(Debug, Subcommand)]
pub enum BesideCommand {
    /// Say what was changed behind our back; changes nothing
    ///
    /// Exit code 3 when something is gone or not as applied, 7 when something could not be checked.
    Drift(DriftArgs),
    /// Find records of resources that are gone; with --prune, forget them
    Refresh(RefreshArgs),
    /// Read live outputs into the records
    RefreshOutputs(RefreshOutputsArgs),
    /// Record a live resource that the config declares, as it is
    Import(ImportArgs),
    /// Record every live resource of a type that the config declares
    ImportAll(ImportAllArgs),
    /// Remove what the config describes without asking the state, then wipe the state
    ///
    /// For an environment whose state is lost, partial or damaged. Resources are looked up by name
    /// at their providers. Needs --env and --config.
    Teardown(TeardownArgs),
    /// Delete everything with a tag; a preview unless --fix
    Cleanup(CleanupArgs),
    /// Delete old resources of a type that are not in use (two keys, then a question)
    Prune(PruneArgs),
    /// List what belongs to an owner
    Owners(OwnersArgs),
    /// List every live resource of a type
    AuditKeys(AuditKeysArgs),
    /// Look for mistakes in the credentials the config wants to be made (rules R-S1 to R-S3)
    AuditSecrets(AuditSecretsArgs),
    /// Make a credential anew, then revoke older ones (two keys, then a question)
    RotateAndPrune(RotateArgs),
    /// Make what must exist before the first apply: the state's store and generated secrets
    Bootstrap(BootstrapArgs),
    /// Look for parts of config and plan that contradict each other (rules R-A1 to R-A10)
    Align(AlignArgs),
    /// Look for what config and plan open and should not (rules R1 to R10, and your own)
    SecurityCheck(SecurityArgs),
    /// Check what a config comes to against expectations in files; no provider, no state
    Test(TestArgs),
    /// Add the modules that what is in the config needs to run; a preview unless --write
    ///
    /// What a module needs is said by the plugin of its type; which modules would meet that, by a
    /// provider. Modules that already meet a need list its key under `satisfies`.
    Derive(DeriveArgs),
}

/// `infra derive`
#[derive(Clone, Debug, Default, Args)]
pub struct DeriveArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The provider module to ask; needed when several could answer
    #[arg(long, value_name = "MODULE")]
    pub provider: Option<String>,
    /// What the application will run on [default: any]
    #[arg(long, value_name = "RUNTIME", value_parser = [
        "kubernetes", "ecs", "cloud-run", "azure-container-apps", "digitalocean-app-platform",
    ])]
    pub runtime: Option<String>,
    /// Put the modules into the config, instead of only showing them
    #[arg(long)]
    pub write: bool,
    /// Show the modules and stop; what happens without --write
    #[arg(long, conflicts_with = "write")]
    pub dry_run: bool,
    /// Ask nobody: advice that needs a person's decision stops --write
    #[arg(long)]
    pub non_interactive: bool,
    /// How the modules are shown
    #[arg(long, value_name = "FORMAT", default_value = "yaml", value_parser = ["yaml"])]
    pub format: String,
}

/// `infra drift`
#[derive(Clone, Debug, Default, Args)]
pub struct DriftArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How many resources may be looked at at once
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub parallelism: u16,
}

/// `infra refresh`
#[derive(Clone, Debug, Default, Args)]
pub struct RefreshArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Approval
    #[command(flatten)]
    pub approval: ApprovalArgs,
    /// Behaviour
    #[command(flatten)]
    pub run: RunArgs,
    /// Forget the records of resources that are gone
    #[arg(long)]
    pub prune: bool,
}

/// `infra refresh-outputs`
#[derive(Clone, Debug, Default, Args)]
pub struct RefreshOutputsArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How many resources may be read at once
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// How long to wait for the state lock, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::duration)]
    pub lock_timeout: std::time::Duration,
    /// Show what would be written and stop
    #[arg(long)]
    pub dry_run: bool,
}

/// `infra import`
#[derive(Clone, Debug, Default, Args)]
pub struct ImportArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The resource, as the config names it (base or resolved name)
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// The provider's id of it; without, it is looked up by name
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Replace an existing record; a copy of it is kept
    #[arg(long)]
    pub force: bool,
    /// How long to wait for the state lock, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::duration)]
    pub lock_timeout: std::time::Duration,
}

/// `infra import-all`
#[derive(Clone, Debug, Default, Args)]
pub struct ImportAllArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The provider module to list from
    #[arg(long, value_name = "MODULE")]
    pub provider: String,
    /// The resource type to list
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: String,
    /// Also record what the config does not declare, as protected, under `<type>/<name>`
    #[arg(long)]
    pub undeclared: bool,
    /// Show what would be recorded and stop
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait for the state lock, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::duration)]
    pub lock_timeout: std::time::Duration,
}

/// `infra teardown`
#[derive(Clone, Debug, Default, Args)]
pub struct TeardownArgs {
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
    /// Also what bears this environment's tag and is not in the config
    #[arg(long)]
    pub include_orphans: bool,
    /// The tag that tells this environment's resources [default: env:<environment>]
    #[arg(long, value_name = "TAG", requires = "include_orphans")]
    pub orphan_tag: Option<String>,
}

/// `infra cleanup`
#[derive(Clone, Debug, Default, Args)]
pub struct CleanupArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Approval
    #[command(flatten)]
    pub approval: ApprovalArgs,
    /// On whose behalf
    #[command(flatten)]
    pub owner: OwnerArgs,
    /// The tag
    #[arg(long, value_name = "TAG")]
    pub tag: String,
    /// Really delete; without, this is a preview
    #[arg(long)]
    pub fix: bool,
    /// Preview only (the default)
    #[arg(long, conflicts_with = "fix")]
    pub dry_run: bool,
    /// How long to wait for the state lock, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::duration)]
    pub lock_timeout: std::time::Duration,
}

/// `infra prune`
#[derive(Clone, Debug, Default, Args)]
pub struct PruneArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// On whose behalf
    #[command(flatten)]
    pub owner: OwnerArgs,
    /// The provider module to list from; all of them without
    #[arg(long, value_name = "MODULE")]
    pub provider: Option<String>,
    /// The resource type to prune
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: String,
    /// Only what was made before this RFC 3339 time
    #[arg(
        long,
        value_name = "TIME",
        required_unless_present = "recovery_from_last_rotation",
        default_value = "",
        hide_default_value = true
    )]
    pub created_before: String,
    /// The one that is in use, by provider id, access key or name: it stays, and it must exist
    #[arg(
        long,
        value_name = "IDS",
        value_delimiter = ',',
        required_unless_present = "recovery_from_last_rotation",
        visible_alias = "exclude-access-key"
    )]
    pub exclude: Vec<String>,
    /// Take both from what the last `infra rotate-and-prune` wrote down
    #[arg(long)]
    pub recovery_from_last_rotation: bool,
    /// Names that stay; `*` stands for anything
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    pub preserve_names: Vec<String>,
    /// First key; the second is the variable WFCTL_CONFIRM_PRUNE=1
    #[arg(long)]
    pub confirm: bool,
    /// After both keys, do not ask
    #[arg(long, short = 'y', visible_alias = "non-interactive")]
    pub yes: bool,
    /// How long to wait for the state lock, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::duration)]
    pub lock_timeout: std::time::Duration,
}

/// `infra owners`
#[derive(Clone, Debug, Default, Args)]
pub struct OwnersArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Whose resources
    #[arg(long, value_name = "OWNER")]
    pub owner: String,
    /// Only this resource type
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
}

/// `infra audit-keys`
#[derive(Clone, Debug, Default, Args)]
pub struct AuditKeysArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The resource type to list, such as infra.access_key
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: String,
}

/// `infra audit-secrets`
#[derive(Clone, Debug, Default, Args)]
pub struct AuditSecretsArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `infra rotate-and-prune`
#[derive(Clone, Debug, Default, Args)]
pub struct RotateArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// On whose behalf
    #[command(flatten)]
    pub owner: OwnerArgs,
    /// The credential, by its `name` or its `key` in the config
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Its resource type, to be sure; refused when it is another
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Also delete these, by provider id or name: each must be listed, of the same type, and unused
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub also: Vec<String>,
    /// Delete before the new one is made, for accounts that are full; what is in use still stays
    #[arg(long)]
    pub prune_first: bool,
    /// First key; the second is the variable WFCTL_CONFIRM_PRUNE=1
    #[arg(long)]
    pub confirm: bool,
    /// After both keys, do not ask
    #[arg(long, short = 'y', visible_alias = "non-interactive")]
    pub yes: bool,
    /// How long to wait for the state lock, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::duration)]
    pub lock_timeout: std::time::Duration,
}

/// `infra bootstrap`
#[derive(Clone, Debug, Default, Args)]
pub struct BootstrapArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Make these generated secrets anew
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    pub force_rotate: Vec<String>,
    /// How long to wait for the state lock, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::duration)]
    pub lock_timeout: std::time::Duration,
}

/// `infra align`
#[derive(Clone, Debug, Default, Args)]
pub struct AlignArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Look at this plan instead of making one
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Warnings fail too
    #[arg(long)]
    pub strict: bool,
    /// A missing health check fails
    #[arg(long)]
    pub strict_health: bool,
    /// More changes than this fail
    #[arg(long, value_name = "N", default_value = "50")]
    pub max_changes: usize,
}

/// `infra security-check`
#[derive(Clone, Debug, Default, Args)]
pub struct SecurityArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Look at this plan instead of making one
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Warnings fail too
    #[arg(long)]
    pub strict: bool,
    /// Every change of an address range fails, not only a wider one
    #[arg(long)]
    pub strict_cidr: bool,
    /// More changes than this fail
    #[arg(long, value_name = "N", default_value = "20")]
    pub max_changes: usize,
    /// Folder of further rules, one YAML file each
    #[arg(long, value_name = "DIR")]
    pub rules: Option<PathBuf>,
}

/// `infra test`
#[derive(Clone, Debug, Default, Args)]
pub struct TestArgs {
    /// Files of cases
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}
