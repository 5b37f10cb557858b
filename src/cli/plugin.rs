//! `plugin …` and `migrate …`: what may be typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `plugin …`
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Pin a plugin: into the manifest, and with all its digests into the lock
    Add(AddArgs),
    /// Take a plugin out of manifest, lock and plugin folder
    Remove(RemoveArgs),
    /// Move a pin to another version, and lock it
    ///
    /// Without a version, to the newest release of its source.
    Update(UpdateArgs),
    /// Pin the bytes of every plugin on every published platform
    ///
    /// Archives are fetched, compared with the digests their source publishes, and opened.
    Lock(FilesArgs),
    /// Install what the lock pins, byte for byte; never changes manifest or lock
    ///
    /// With --url or --local it installs one plugin that no lock pins.
    Install(InstallArgs),
    /// Install in CI: manifest and lock must be there and agree completely
    Ci(LockedArgs),
    /// Show manifest, lock and installed plugins side by side
    List(PlaceArgs),
    /// Show everything known about one plugin
    Info(NamedArgs),
    /// Hash installed plugins again and compare them with the lock
    Verify(VerifyPluginsArgs),
}

/// `plugin-registry …`
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Show the registries that are asked, in order
    List,
    /// Add a registry to the user's own file, or to the project's
    Add(RegistryAddArgs),
    /// Take a registry out of the user's own file, or out of the project's
    Remove(RegistryRemoveArgs),
}

/// `plugin-registry add`
#[derive(Clone, Debug, Args)]
pub struct RegistryAddArgs {
    /// What messages call it
    pub name: String,
    /// Files of a repository, or a web folder
    #[arg(long = "type", value_name = "TYPE", default_value = "github", value_parser = ["github", "static"])]
    pub kind: String,
    /// Whose repository
    #[arg(long, value_name = "OWNER", required_if_eq("kind", "github"))]
    pub owner: Option<String>,
    /// Which repository
    #[arg(long, value_name = "REPO", required_if_eq("kind", "github"))]
    pub repo: Option<String>,
    /// Which branch of it
    #[arg(long, value_name = "BRANCH", default_value = "main")]
    pub branch: String,
    /// The web folder
    #[arg(long, value_name = "URL", required_if_eq("kind", "static"), conflicts_with_all = ["owner", "repo"])]
    pub url: Option<String>,
    /// Variable that holds a token for the web folder
    #[arg(long, value_name = "VARIABLE", requires = "url")]
    pub token_env: Option<String>,
    /// Low is asked first
    #[arg(
        long,
        value_name = "N",
        default_value = "10",
        allow_negative_numbers = true
    )]
    pub priority: i64,
    /// Into `.wfctl.yaml` of this project instead of the user's own file
    #[arg(long)]
    pub project: bool,
}

/// `plugin-registry remove`
#[derive(Clone, Debug, Args)]
pub struct RegistryRemoveArgs {
    /// Its name
    pub name: String,
    /// Out of `.wfctl.yaml` of this project instead of the user's own file
    #[arg(long)]
    pub project: bool,
}

/// `migrate …`
#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// Move the pins under `requires.plugins` of the config into the manifest, and lock them
    Plugins(MigratePluginsArgs),
}

/// Manifest and lock.
#[derive(Clone, Debug, Default, Args)]
pub struct FilesArgs {
    /// The manifest
    #[arg(long, value_name = "FILE", default_value = crate::package::manifest::DEFAULT_MANIFEST)]
    pub manifest: PathBuf,
    /// The lock
    #[arg(long, value_name = "FILE", default_value = crate::package::lockfile::DEFAULT_LOCK)]
    pub lock_file: PathBuf,
    /// Archives fetched at once
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=32))]
    pub jobs: u16,
    /// Engine version that plugins must fit [default: WFCTL_ENGINE_VERSION, or this version's]
    #[arg(long, value_name = "VERSION")]
    pub engine_version: Option<String>,
}

/// Manifest, lock and plugin folder.
#[derive(Clone, Debug, Default, Args)]
pub struct PlaceArgs {
    /// Manifest and lock
    #[command(flatten)]
    pub files: FilesArgs,
    /// The plugin folder [default: TIDEGATE_PLUGIN_DIR, WFCTL_PLUGIN_DIR, or ./data/plugins]
    #[arg(long, value_name = "DIR")]
    pub plugin_dir: Option<PathBuf>,
    /// The user's own plugin folder, for all projects
    #[arg(short, long, conflicts_with = "plugin_dir")]
    pub global: bool,
}

/// `plugin add`
#[derive(Clone, Debug, Default, Args)]
pub struct AddArgs {
    /// Name and exact version
    #[arg(value_name = "NAME@VERSION")]
    pub plugin: String,
    /// Where its releases are: github.com/OWNER/REPO, or a folder's URL
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<String>,
    /// Variable that holds a token for the source
    #[arg(long, value_name = "VARIABLE")]
    pub auth_env: Option<String>,
    /// Manifest and lock
    #[command(flatten)]
    pub files: FilesArgs,
}

/// `plugin remove`
#[derive(Clone, Debug, Default, Args)]
pub struct RemoveArgs {
    /// Name
    pub name: String,
    /// Leave what is installed
    #[arg(long)]
    pub keep_installed: bool,
    /// Where
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// `plugin update`
#[derive(Clone, Debug, Default, Args)]
pub struct UpdateArgs {
    /// Name, and the exact version to move to
    #[arg(
        value_name = "NAME[@VERSION]",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub plugin: Option<String>,
    /// Every plugin, each to the newest release of its source
    #[arg(long)]
    pub all: bool,
    /// Manifest and lock
    #[command(flatten)]
    pub files: FilesArgs,
}

/// `plugin install`
#[derive(Clone, Debug, Default, Args)]
pub struct InstallArgs {
    /// Change nothing: fail unless exactly what is locked is installed
    #[arg(long)]
    pub check: bool,
    /// Install this one archive, which no lock pins
    #[arg(long, value_name = "URL", requires = "sha256", conflicts_with_all = ["check", "local", "mirror"])]
    pub url: Option<String>,
    /// SHA-256 that the archive of --url must have
    #[arg(long, value_name = "HEX", requires = "url")]
    pub sha256: Option<String>,
    /// Install what was built here: a folder with `plugin.json` and the executable, or an archive
    #[arg(long, value_name = "PATH", conflicts_with_all = ["check", "mirror"])]
    pub local: Option<PathBuf>,
    /// What is locked
    #[command(flatten)]
    pub locked: LockedArgs,
}

/// `plugin ci`, and what `plugin install` has in common with it
#[derive(Clone, Debug, Default, Args)]
pub struct LockedArgs {
    /// Only this plugin
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Take archives from this folder, never from the network [default: TIDEGATE_PLUGIN_MIRROR]
    #[arg(long, value_name = "DIR")]
    pub mirror: Option<PathBuf>,
    /// Where
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// `plugin info`
#[derive(Clone, Debug, Default, Args)]
pub struct NamedArgs {
    /// Name
    pub name: String,
    /// Where
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// `plugin verify`
#[derive(Clone, Debug, Default, Args)]
pub struct VerifyPluginsArgs {
    /// Only this plugin
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Where
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// `migrate plugins`
#[derive(Clone, Debug, Default, Args)]
pub struct MigratePluginsArgs {
    /// Which config
    #[command(flatten)]
    pub config: super::ConfigArgs,
    /// Also take the pins out of the config; comments and order stay
    #[arg(long)]
    pub write: bool,
    /// Manifest and lock
    #[command(flatten)]
    pub files: FilesArgs,
}
