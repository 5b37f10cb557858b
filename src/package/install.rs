//! From an archive's bytes to an installed plugin, in one step that everybody sees whole: the new
//! folder is written beside the old one, flushed, and then the two change places.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::archive::{self, Contents};
use super::cache::digest_of;
use super::descriptor::{Descriptor, DescriptorError};
use super::download::digest_mismatch;
use super::lockfile::Artifact;
use super::manifest::Wanted;
use super::name::Source;
use super::parts::{self, LIST_FILE, Parts};
use super::{disk_failed, name};
use crate::disk::{Disk, EntryKind};
use crate::report::{Exit, Report};

/// The file that describes a plugin.
pub const DESCRIPTOR_FILE: &str = "plugin.json";

/// How folders that are being written, or are on their way out, begin. No host takes one for a
/// plugin: it holds no executable of its own name.
const STAGING: &str = ".staging-";

/// How those begin that are to change places with an older installation, or have done so.
const REPLACING: &str = ".replacing-";

/// Largest file read back from an installation.
const INSTALLED_BYTES_MAX: u64 = archive::UNPACKED_BYTES_MAX;

/// Numbers the staging folders of this process.
static STAGINGS: AtomicU64 = AtomicU64::new(0);

/// A plugin in memory, checked and ready to be written.
#[derive(Clone, Debug)]
pub struct Package {
    /// The folder, and the name of the executable.
    pub folder: String,
    /// What it says about itself.
    pub descriptor: Descriptor,
    /// SHA-256 of the executable.
    pub binary_sha256: String,
    /// SHA-256 of `plugin.json`.
    pub manifest_sha256: String,
    /// SHA-256 of the list of all its files.
    pub files_sha256: String,
    list: String,
    files: Contents,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Identity<'a> {
    /// The name in the manifest.
    pub name: &'a str,
    /// The exact version.
    pub version: &'a str,
    /// The platform.
    pub platform: &'a str,
    /// The engine that will load it.
    pub engine: &'a str,
}

impl Identity<'_> {
    /// `digitalocean v1.4.2 for linux-amd64`.
    pub fn what(&self) -> String {
        format!("`{}` {} for {}", self.name, self.version, self.platform)
    }
}

impl Package {
    /// Unpacks an archive whose digest was compared, and checks that it holds the plugin that was
    /// asked for.
    pub fn open(bytes: &[u8], asked: &Identity<'_>) -> Result<Self, Report> {
        let contents = archive::unpack(bytes).map_err(|error| {
            Report::error(
                "package/bad-archive",
                format!("the archive of {} is refused", asked.what()),
            )
            .because(error.to_string())
            .fix("ask its author for a plain `tar.gz` of regular files")
        })?;
        Self::of(contents, asked)
    }

    /// Checks that these files are the plugin that was asked for.
    pub fn of(contents: Contents, asked: &Identity<'_>) -> Result<Self, Report> {
        let mut files = without_leading_folder(contents);
        let folder = name::folder(asked.name).to_owned();
        let descriptor_bytes = files.get(DESCRIPTOR_FILE).ok_or_else(|| {
            Report::error(
                "package/bad-descriptor",
                format!("the archive of {} has no `plugin.json`", asked.what()),
            )
        })?;
        let refused = |why: String| {
            Report::error(
                "package/bad-descriptor",
                format!("the `plugin.json` of {} is refused", asked.what()),
            )
            .because(why)
        };
        let descriptor = Descriptor::parse(&descriptor_bytes.bytes).map_err(refused)?;
        let manifest_sha256 = digest_of(&descriptor_bytes.bytes);
        descriptor
            .check(asked.name, asked.version, asked.engine)
            .map_err(|error| match error {
                DescriptorError::Wrong(why) => refused(why),
                DescriptorError::NeedsEngine(needed) => Report::error(
                    "package/needs-newer-engine",
                    format!("{} needs engine {needed} or newer", asked.what()),
                )
                .because(format!("this is engine {}", asked.engine))
                .fix("use a newer Tidegate, or pin an older version of the plugin"),
            })?;
        // Of an installation that is installed from: a new one is made.
        files.remove(LIST_FILE);
        let inside = binary_in(&files, asked)?;
        let binary = files.remove(&inside).ok_or_else(|| no_binary(asked))?;
        let binary_sha256 = digest_of(&binary.bytes);
        let target = executable(&folder, asked.platform);
        let is_taken = files.keys().any(|path| {
            let first = path.split('/').next().unwrap_or(path);
            first.eq_ignore_ascii_case(&target) || first == LIST_FILE
        });
        if is_taken {
            return Err(Report::error(
                "package/bad-archive",
                format!("the archive of {} is refused", asked.what()),
            )
            .because(format!(
                "besides its executable `{inside}` it has something else called `{target}` or `{LIST_FILE}`"
            )));
        }
        files.insert(target, binary);
        let list = parts::list(&files);
        Ok(Self {
            folder,
            descriptor,
            binary_sha256,
            manifest_sha256,
            files_sha256: digest_of(list.as_bytes()),
            list,
            files,
        })
    }

    /// Compares every file with the lock. The archive's own digest was compared
    /// before it was opened; a difference here means that the lock contradicts itself.
    pub fn compare(&self, artifact: &Artifact, asked: &Identity<'_>) -> Result<(), Report> {
        for (part, locked, found) in [
            ("executable", &artifact.binary_sha256, &self.binary_sha256),
            (
                "`plugin.json`",
                &artifact.manifest_sha256,
                &self.manifest_sha256,
            ),
            ("list of files", &artifact.files_sha256, &self.files_sha256),
        ] {
            if let Some(locked) = locked
                && locked != found
            {
                let what = format!("the {part} of {}", asked.what());
                return Err(digest_mismatch(&what, locked, found));
            }
        }
        Ok(())
    }

    /// Writes it and swaps it in. At every moment the plugin's folder holds the old plugin or the
    /// new one, whole. What the old one kept in its folder moves into the new one.
    pub fn install(
        &self,
        disk: &dyn Disk,
        plugin_dir: &Path,
        platform: &str,
    ) -> Result<(), Report> {
        self.swap_in(disk, plugin_dir, platform)
            .map_err(|error| match error {
                Stop::Disk(error) => disk_failed(&error),
                Stop::Report(report) => report,
            })
    }

    fn swap_in(&self, disk: &dyn Disk, plugin_dir: &Path, platform: &str) -> Result<(), Stop> {
        let target = plugin_dir.join(&self.folder);
        let is_there = match disk.entry(&target)? {
            None => false,
            Some(EntryKind::Directory) => true,
            Some(_) => {
                return Err(Stop::Report(
                    Report::error(
                        "package/in-the-way",
                        format!("`{}` is not a folder", target.display()),
                    )
                    .because("a link or a file stands where the plugin belongs; it is not followed and not replaced")
                    .fix("move it away"),
                ));
            }
        };
        let number = STAGINGS.fetch_add(1, Ordering::Relaxed);
        let prefix = if is_there { REPLACING } else { STAGING };
        let staging = plugin_dir.join(format!(
            "{prefix}{}-{}-{number}",
            self.folder,
            std::process::id()
        ));
        let written = self.write(disk, &staging, platform).and_then(|()| {
            if is_there {
                disk.exchange(&staging, &target)
            } else {
                disk.rename(&staging, &target)
            }
        });
        if let Err(error) = written {
            // What could not be swapped in is no use to anybody; the first error counts.
            drop(disk.remove_tree(&staging));
            if error.source.kind() == std::io::ErrorKind::Unsupported {
                return Err(Stop::Report(no_exchange(plugin_dir)));
            }
            return Err(error.into());
        }
        disk.sync_directory(plugin_dir)?;
        // After an exchange the old plugin stands here, with what it kept. Whatever stops this, the next
        // install goes on with it.
        if is_there {
            parts::carry_over(disk, &staging, &target)?;
            disk.remove_tree(&staging)?;
        }
        Ok(())
    }

    fn write(
        &self,
        disk: &dyn Disk,
        staging: &Path,
        platform: &str,
    ) -> crate::disk::DiskResult<()> {
        disk.create_directories(staging, 0o755)?;
        let target = executable(&self.folder, platform);
        // First, so that what is half written is known for what it is.
        disk.create_new(&staging.join(LIST_FILE), self.list.as_bytes(), 0o644)?;
        let mut folders = vec![staging.to_path_buf()];
        for (path, file) in &self.files {
            let mut folder = staging.to_path_buf();
            if let Some((above, _)) = path.rsplit_once('/') {
                folder.push(above);
                if !folders.contains(&folder) {
                    disk.create_directories(&folder, 0o755)?;
                    folders.push(folder);
                }
            }
            // Whatever bits the archive has, only the plugin itself may be executed.
            let mode = if *path == target { 0o755 } else { 0o644 };
            disk.create_new(&staging.join(path), &file.bytes, mode)?;
        }
        for folder in folders.iter().rev() {
            disk.sync_directory(folder)?;
        }
        Ok(())
    }
}

enum Stop {
    Disk(crate::disk::DiskError),
    Report(Report),
}

impl From<crate::disk::DiskError> for Stop {
    fn from(error: crate::disk::DiskError) -> Self {
        Self::Disk(error)
    }
}

fn no_exchange(plugin_dir: &Path) -> Report {
    Report::error(
        "package/no-exchange",
        format!(
            "the file system of `{}` cannot swap two folders in one step",
            plugin_dir.display()
        ),
    )
    .because("without that, a run that is killed could leave no plugin at all")
    .fix("put the plugin folder on another file system (`--plugin-dir`), or remove the old plugin first: `tidegate plugin remove`")
}

/// The executable's file name in an installation.
pub fn executable(folder: &str, platform: &str) -> String {
    if platform.starts_with("windows-") {
        format!("{folder}.exe")
    } else {
        folder.to_owned()
    }
}

/// What the plugin in these files says about itself.
pub fn describe(contents: &Contents) -> Result<Descriptor, Report> {
    let refused =
        |why: String| Report::error("package/bad-descriptor", "the plugin is refused").because(why);
    let inside = |path: &&String| {
        path.as_str() == DESCRIPTOR_FILE
            || path
                .split_once('/')
                .is_some_and(|(_, rest)| rest == DESCRIPTOR_FILE)
    };
    let path = contents
        .keys()
        .filter(inside)
        .min_by_key(|path| path.len())
        .ok_or_else(|| refused("it has no `plugin.json`".to_owned()))?;
    Descriptor::parse(&contents[path].bytes)
        .map_err(|why| refused(format!("its `plugin.json`: {why}")))
}

/// Takes away the one folder everything is in, unless `plugin.json` already stands outside of it.
fn without_leading_folder(contents: Contents) -> Contents {
    if contents.contains_key(DESCRIPTOR_FILE) {
        return contents;
    }
    let first = contents
        .keys()
        .next()
        .and_then(|path| path.split_once('/'))
        .map(|(first, _)| format!("{first}/"));
    match first {
        Some(first) if contents.keys().all(|path| path.starts_with(&first)) => contents
            .into_iter()
            .map(|(path, file)| (path[first.len()..].to_owned(), file))
            .collect(),
        _ => contents,
    }
}

/// Which file is the executable: by name (with or without the platform behind it), else the only
/// one at the top that may be executed.
fn binary_in(files: &Contents, asked: &Identity<'_>) -> Result<String, Report> {
    let (os, arch) = asked
        .platform
        .split_once('-')
        .unwrap_or((asked.platform, ""));
    let suffix = if os == "windows" { ".exe" } else { "" };
    for base in name::binary_names(asked.name) {
        for name in [
            format!("{base}{suffix}"),
            format!("{base}-{os}-{arch}{suffix}"),
            format!("{base}_{os}_{arch}{suffix}"),
        ] {
            if files.contains_key(&name) {
                return Ok(name);
            }
        }
    }
    let mut candidates = files
        .iter()
        .filter(|(path, file)| file.is_executable && !path.contains('/'))
        .map(|(path, _)| path);
    match (candidates.next(), candidates.next()) {
        (Some(only), None) => Ok(only.clone()),
        _ => Err(no_binary(asked)),
    }
}

fn no_binary(asked: &Identity<'_>) -> Report {
    let names: Vec<String> = name::binary_names(asked.name)
        .iter()
        .map(|name| format!("`{name}`"))
        .collect();
    Report::error(
        "package/no-binary",
        format!("the archive of {} has no executable", asked.what()),
    )
    .because(format!(
        "looked for {}, or one single executable file",
        names.join(" or ")
    ))
}

/// Removes what installs that were killed left behind. For whoever holds the plugin folder's lock.
/// Answers what is said of what had to stay: it holds what a plugin kept, and stands in nobody's way.
pub fn sweep(disk: &dyn Disk, plugin_dir: &Path) -> crate::disk::DiskResult<Vec<Report>> {
    let mut kept = Vec::new();
    for entry in disk.list(plugin_dir)? {
        let left = plugin_dir.join(&entry);
        if let Some(rest) = entry.strip_prefix(REPLACING) {
            // `<folder>-<process>-<number>`; a folder's name may hold hyphens of its own.
            let folder = rest.rsplitn(3, '-').nth(2);
            let target = plugin_dir.join(folder.unwrap_or(rest));
            if disk.entry(&target)? == Some(EntryKind::Directory)
                && let Err(error) = parts::carry_over(disk, &left, &target)
            {
                kept.push(
                    Report::warning(
                        "package/left-behind",
                        format!(
                            "what the plugin in `{}` kept could not be moved into its new installation",
                            target.display()
                        ),
                    )
                    .caused_by(&error)
                    .because(format!("it is in `{}`", left.display()))
                    .fix("move by hand what is still wanted, then remove that folder"),
                );
                continue;
            }
            disk.remove_tree(&left)?;
        } else if entry.starts_with(STAGING) {
            disk.remove_tree(&left)?;
        }
    }
    Ok(kept)
}

/// What stands in a plugin's folder.
#[derive(Clone, Debug, Default)]
pub struct Installed {
    /// Its folder's name.
    pub folder: String,
    /// SHA-256 of the executable; `None` when there is none.
    pub binary_sha256: Option<String>,
    /// SHA-256 of `plugin.json`; `None` when there is none.
    pub manifest_sha256: Option<String>,
    /// What became of all its files.
    pub parts: Parts,
    /// What it says about itself, or why that cannot be read.
    pub descriptor: Option<Result<Descriptor, String>>,
}

impl Installed {
    /// Looks at one. Links are not followed: what stands behind one is not installed.
    pub fn look(disk: &dyn Disk, plugin_dir: &Path, folder: &str) -> Result<Option<Self>, Report> {
        let directory = plugin_dir.join(folder);
        let entry = disk
            .entry(&directory)
            .map_err(|error| disk_failed(&error))?;
        if entry != Some(EntryKind::Directory) {
            return Ok(None);
        }
        let read = |path: PathBuf| match disk.entry(&path).map_err(|error| disk_failed(&error))? {
            Some(EntryKind::File { .. }) => disk
                .read(&path, INSTALLED_BYTES_MAX)
                .map(Some)
                .map_err(|error| disk_failed(&error)),
            _ => Ok(None),
        };
        let executable = executable(folder, &name::this_platform());
        let binary_sha256 = read(directory.join(&executable))?.as_deref().map(digest_of);
        let descriptor = read(directory.join(DESCRIPTOR_FILE))?;
        let manifest_sha256 = descriptor.as_deref().map(digest_of);
        let known = [
            (executable.as_str(), binary_sha256.as_deref()),
            (DESCRIPTOR_FILE, manifest_sha256.as_deref()),
        ];
        let parts = Parts::look(disk, &directory, &known)?;
        Ok(Some(Self {
            folder: folder.to_owned(),
            parts,
            binary_sha256,
            manifest_sha256,
            descriptor: descriptor.as_deref().map(Descriptor::parse),
        }))
    }

    /// True when executable, `plugin.json` and all other files are the locked ones, byte for byte. A
    /// lock that does not name the first two cannot be compared with, so nothing is like it; older
    /// ones do not name the others.
    pub fn is_locked(&self, artifact: &Artifact) -> bool {
        let same = |found: &Option<String>, locked: &Option<String>| {
            locked.is_some() && found.as_deref() == locked.as_deref()
        };
        same(&self.binary_sha256, &artifact.binary_sha256)
            && same(&self.manifest_sha256, &artifact.manifest_sha256)
            && artifact
                .files_sha256
                .as_deref()
                .is_none_or(|locked| self.parts.are(locked))
    }
}

/// The folders of a plugin folder that hold a plugin, or part of one.
pub fn folders(disk: &dyn Disk, plugin_dir: &Path) -> Result<Vec<String>, Report> {
    match disk.entry(plugin_dir) {
        Ok(None) => return Ok(Vec::new()),
        Ok(Some(_)) => {}
        Err(error) => return Err(disk_failed(&error)),
    }
    let names = disk.list(plugin_dir).map_err(|error| disk_failed(&error))?;
    Ok(names
        .into_iter()
        .filter(|name| {
            !name.starts_with('.')
                && matches!(
                    disk.entry(&plugin_dir.join(name)),
                    Ok(Some(EntryKind::Directory))
                )
        })
        .collect())
}

/// What became of a plugin that was to be taken away.
#[derive(Debug, Default)]
pub struct Uninstalled {
    /// It was there, and is no plugin any more.
    pub is_gone: bool,
    /// What it kept in its folder, and still stands there.
    pub kept: Vec<String>,
}

/// Takes a plugin away in one step. What it kept in its own folder stays.
///
/// # Errors
/// When something cannot be removed.
pub fn uninstall(disk: &dyn Disk, plugin_dir: &Path, folder: &str) -> Result<Uninstalled, Report> {
    let target = plugin_dir.join(folder);
    match disk.entry(&target).map_err(|error| disk_failed(&error))? {
        Some(EntryKind::Directory) => {}
        Some(EntryKind::File { .. } | EntryKind::Other) | None => {
            return Ok(Uninstalled::default());
        }
    }
    if let Some(kept) = parts::remove_listed(disk, &target).map_err(|error| disk_failed(&error))? {
        return Ok(Uninstalled {
            is_gone: true,
            kept,
        });
    }
    let number = STAGINGS.fetch_add(1, Ordering::Relaxed);
    let aside = plugin_dir.join(format!("{STAGING}{folder}-{}-{number}", std::process::id()));
    disk.rename(&target, &aside)
        .and_then(|()| disk.sync_directory(plugin_dir))
        .and_then(|()| disk.remove_tree(&aside))
        .map_err(|error| disk_failed(&error))?;
    Ok(Uninstalled {
        is_gone: true,
        kept: Vec::new(),
    })
}

/// Nobody can say whether the signature that is asked for was made: said instead of passed over. An
/// identity alone proves nothing: what signs, what it signs, and whose word counts for who is who
/// are not in the manifest.
pub fn identity_refused(plugin: &Wanted, identity: &str) -> Report {
    let name = &plugin.name;
    let by_hand = match &plugin.source {
        Some(Source::Github { owner, repository }) => format!(
            "verify each archive of {} yourself, such as with `gh attestation verify FILE --repo {owner}/{repository}`",
            plugin.version
        ),
        _ => format!(
            "verify each archive of {} yourself, with the tool its author signs with",
            plugin.version
        ),
    };
    Report::error(
        "package/identity",
        format!(
            "`{name}` must be signed by `{identity}`, and this version cannot verify signatures"
        ),
    )
    .at_maybe(plugin.at.clone())
    .because("what cannot be verified is refused, not skipped")
    .fix(by_hand)
    .fix("then take `verify` out and run `tidegate plugin lock`: from then on the lock holds exactly these bytes")
    .exit(Exit::Usage)
}
