//! Plugin packages: `wfctl.yaml` says which, `.wfctl-lock.yaml` says exactly which bytes, and an
//! installation is those bytes or nothing.
//!
//! What it promises: a lock pins every published platform; a digest that does not fit is a hard
//! failure; an install never writes manifest or lock; a token reaches only the server it is for; a
//! run that is killed leaves the old plugin or the new one. Deliberately absent: ranges, "latest",
//! signatures that are taken on trust, any archive but `tar.gz`, and a registry nobody configured.

pub mod archive;
pub mod cache;
pub mod descriptor;
pub mod direct;
pub mod download;
pub mod edit;
pub mod install;
pub mod lockfile;
pub mod lookup;
pub mod manifest;
pub mod name;
pub mod parts;
mod pax;
pub mod registry;
pub mod resolve;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::disk::{Disk, DiskError, EntryKind};
use crate::github;
use crate::http::RedactedUrl;
use crate::report::{Event, Exit, Report};
use crate::secret::Masker;
use crate::variables::Variables;
use archive::ARCHIVE_BYTES_MAX;
use cache::digest_of;
use download::{Credential, Fetcher, Want, digest_mismatch, mebibytes};
use install::{Identity, Installed, Package};
use lockfile::{Artifact, Lock, Locked};
use manifest::{Manifest, Wanted};
use name::Source;
use resolve::{Published, Resolver};

/// Names the plugin folder; `--plugin-dir` wins.
pub const PLUGIN_DIR_VARIABLE: &str = "WFCTL_PLUGIN_DIR";
/// Names the engine version plugins are checked against; `--engine-version` wins.
pub const ENGINE_VARIABLE: &str = "WFCTL_ENGINE_VERSION";
/// Names a folder of archives that stands in for the network; `--mirror` wins.
pub const MIRROR_VARIABLE: &str = "TIDEGATE_PLUGIN_MIRROR";
/// Variables looked at for a token, in this order, when a plugin names none.
pub const TOKEN_VARIABLES: [&str; 3] = ["RELEASES_TOKEN", "GH_TOKEN", "GITHUB_TOKEN"];

/// Archives unpacked at once; each may hold [`archive::UNPACKED_BYTES_MAX`] in memory.
const UNPACKED_AT_ONCE: usize = 2;

/// What packages are worked on with.
#[derive(Debug)]
pub struct Workshop {
    /// Fetches.
    pub fetcher: Fetcher,
    /// The environment.
    pub variables: Arc<Variables>,
    /// Knows every token.
    pub masker: Masker,
    /// The engine version plugins must fit.
    pub engine: String,
    /// Archives fetched at once.
    pub jobs: usize,
    /// A folder that stands in for the network.
    pub mirror: Option<PathBuf>,
}

/// How one plugin's installation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// New bytes stand there.
    Installed,
    /// The locked bytes stood there already.
    Unchanged,
}

impl Workshop {
    /// Pins every plugin of a manifest: asks its source, fetches the archive of every platform,
    /// compares it with what the source published, and looks inside. Plugins of `before` that the
    /// manifest still wants in the same version keep their pins unless `fresh` holds for them.
    pub async fn lock(
        &self,
        manifest: &Manifest,
        before: Option<&Lock>,
        fresh: &(dyn Fn(&str) -> bool + Sync),
        generated_at: String,
    ) -> Result<Lock, Vec<Report>> {
        let mut plugins = BTreeMap::new();
        let mut problems = Vec::new();
        for plugin in &manifest.plugins {
            let source = plugin
                .source
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            let kept = before
                .and_then(|lock| lock.plugins.get(&plugin.name))
                .filter(|locked| {
                    !fresh(&plugin.name)
                        && locked.version == plugin.version
                        && locked.source == source
                        && !locked.platforms.is_empty()
                });
            if let Some(identity) = &plugin.identity {
                problems.push(install::identity_refused(plugin, identity));
                continue;
            }
            if let Some(locked) = kept {
                plugins.insert(plugin.name.clone(), locked.clone());
                continue;
            }
            match self.pin(plugin).await {
                Ok(platforms) => {
                    plugins.insert(
                        plugin.name.clone(),
                        Locked {
                            version: plugin.version.clone(),
                            source,
                            platforms,
                            sha256: None,
                        },
                    );
                }
                Err(report) => problems.push(report),
            }
        }
        if problems.is_empty() {
            Ok(Lock {
                generated_at,
                manifest_sha256: Some(manifest.digest()),
                plugins,
            })
        } else {
            Err(problems)
        }
    }

    /// The version of the newest release of a plugin's source.
    pub async fn newest(&self, plugin: &Wanted) -> Result<String, Report> {
        if plugin.source.is_none() {
            return Ok(self.entry_of(plugin).await?.version);
        }
        let api = github::api_base(&self.variables)?;
        let credential = self.credential(plugin, &api)?;
        Resolver {
            fetcher: &self.fetcher,
            api: &api,
        }
        .newest(plugin, credential.as_ref())
        .await
    }

    async fn pin(&self, plugin: &Wanted) -> Result<BTreeMap<String, Artifact>, Report> {
        if self.mirror.is_some() {
            return Err(Report::error(
                "package/mirror-cannot-lock",
                "a mirror holds archives, not what their source published about them",
            )
            .fix("lock where the source can be reached; install from the mirror anywhere")
            .exit(Exit::Usage));
        }
        let api = github::api_base(&self.variables)?;
        let credential = self.credential(plugin, &api)?;
        let resolver = Resolver {
            fetcher: &self.fetcher,
            api: &api,
        };
        let published = match &plugin.source {
            Some(_) => resolver.published(plugin, credential.as_ref()).await?,
            None => self.listed(plugin, &resolver).await?,
        };
        // Two that are said to be the same archive are each fetched: one of them may be a slip.
        let is_said_twice: Vec<bool> = published
            .iter()
            .map(|one| {
                published
                    .iter()
                    .any(|other| other.sha256 == one.sha256 && other.url != one.url)
            })
            .collect();
        stream::iter(published.into_iter().zip(is_said_twice))
            .map(|(one, is_said_twice)| {
                self.pin_one(plugin, one, is_said_twice, credential.as_ref())
            })
            .buffer_unordered(self.jobs.clamp(1, UNPACKED_AT_ONCE))
            .try_collect()
            .await
    }

    async fn pin_one(
        &self,
        plugin: &Wanted,
        published: Published,
        is_said_twice: bool,
        credential: Option<&Credential>,
    ) -> Result<(String, Artifact), Report> {
        let what = format!(
            "`{}` {} for {}",
            plugin.name, plugin.version, published.platform
        );
        let bytes = self
            .fetcher
            .archive(&Want {
                what: &what,
                url: published.asset_url.as_deref().unwrap_or(&published.url),
                is_asset: published.asset_url.is_some(),
                sha256: &published.sha256,
                is_asked_for: is_said_twice,
                credential,
            })
            .await?;
        let (name, version) = (plugin.name.clone(), plugin.version.clone());
        let (platform, engine) = (published.platform, self.engine.clone());
        let package = blocking(move || {
            Package::open(
                &bytes,
                &Identity {
                    name: &name,
                    version: &version,
                    platform,
                    engine: &engine,
                },
            )
        })
        .await?;
        self.fetcher.reporter.note(format!("{what}: locked"));
        Ok((
            published.platform.to_owned(),
            Artifact {
                url: published.url,
                sha256: published.sha256,
                binary_sha256: Some(package.binary_sha256),
                manifest_sha256: Some(package.manifest_sha256),
                files_sha256: Some(package.files_sha256),
            },
        ))
    }

    /// Installs the locked plugins named (all, when none is), each whole or not at all. Goes on
    /// after a failure; every one is reported.
    pub async fn install(
        &self,
        manifest: &Manifest,
        lock: &Lock,
        only: Option<&str>,
        plugin_dir: &Path,
    ) -> Result<Vec<(String, Result<Change, Report>)>, Report> {
        let disk = &*self.fetcher.disk;
        disk.create_directories(plugin_dir, 0o755)
            .map_err(|error| disk_failed(&error))?;
        let _turn = self
            .fetcher
            .turn(
                &plugin_dir.join(".install.lock"),
                "another process is installing into the same folder",
            )
            .await?;
        self.swept(plugin_dir)?;
        let wanted: Vec<&Wanted> = manifest
            .plugins
            .iter()
            .filter(|plugin| {
                only.is_none_or(|only| name::folder(only) == name::folder(&plugin.name))
            })
            .collect();
        let unpacking = tokio::sync::Semaphore::new(UNPACKED_AT_ONCE);
        let mut done: Vec<(String, Result<Change, Report>)> = stream::iter(wanted)
            .map(|plugin| async {
                let result = self.install_one(plugin, lock, plugin_dir, &unpacking).await;
                (plugin.name.clone(), result)
            })
            .buffer_unordered(self.jobs.max(1))
            .collect()
            .await;
        done.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(done)
    }

    async fn install_one(
        &self,
        plugin: &Wanted,
        lock: &Lock,
        plugin_dir: &Path,
        unpacking: &tokio::sync::Semaphore,
    ) -> Result<Change, Report> {
        let (locked, artifact) = pinned(plugin, lock)?;
        let disk = Arc::clone(&self.fetcher.disk);
        let folder = name::folder(&plugin.name).to_owned();
        let directory = plugin_dir.to_path_buf();
        let expected = artifact.clone();
        let is_there = blocking({
            let (disk, directory) = (Arc::clone(&disk), directory.clone());
            move || {
                let installed = Installed::look(&*disk, &directory, &folder)?;
                Ok(installed.is_some_and(|installed| installed.is_locked(&expected)))
            }
        })
        .await?;
        if is_there {
            return Ok(Change::Unchanged);
        }
        let platform = name::this_platform();
        let what = format!("`{}` {} for {platform}", plugin.name, locked.version);
        let bytes = match &self.mirror {
            Some(mirror) => {
                self.take_from_mirror(mirror, plugin, artifact, &what)
                    .await?
            }
            None => {
                self.fetch_from_source(plugin, locked, artifact, &what)
                    .await?
            }
        };
        let _one_of_few = unpacking.acquire().await;
        let size = bytes.len() as u64;
        let (name, version) = (plugin.name.clone(), locked.version.clone());
        let (engine, artifact) = (self.engine.clone(), artifact.clone());
        blocking(move || {
            let asked = Identity {
                name: &name,
                version: &version,
                platform: &platform,
                engine: &engine,
            };
            let package = Package::open(&bytes, &asked)?;
            drop(bytes);
            package.compare(&artifact, &asked)?;
            package.install(&*disk, &directory, &platform)
        })
        .await?;
        self.fetcher
            .reporter
            .note(format!("{what}: installed ({})", mebibytes(size)));
        Ok(Change::Installed)
    }

    async fn fetch_from_source(
        &self,
        plugin: &Wanted,
        locked: &Locked,
        artifact: &Artifact,
        what: &str,
    ) -> Result<Vec<u8>, Report> {
        // Before anything that asks for a token: what is in the cache needs none.
        let (disk, cache, key) = (
            Arc::clone(&self.fetcher.disk),
            self.fetcher.cache.clone(),
            artifact.sha256.clone(),
        );
        let cached = blocking(move || {
            cache
                .take(&*disk, &key)
                .map_err(|error| disk_failed(&error))
        })
        .await?;
        if let Some(bytes) = cached {
            return Ok(bytes);
        }
        let api = github::api_base(&self.variables)?;
        let credential = self.credential(plugin, &api)?;
        let asset_url = match (&plugin.source, &credential) {
            (Some(Source::Github { owner, repository }), Some(credential)) => {
                Resolver {
                    fetcher: &self.fetcher,
                    api: &api,
                }
                .asset_of(
                    owner,
                    repository,
                    &locked.version,
                    &artifact.url,
                    credential,
                )
                .await?
            }
            _ => None,
        };
        self.fetcher.reporter.note(format!("{what}: fetching"));
        self.fetcher
            .archive(&Want {
                what,
                url: asset_url.as_deref().unwrap_or(&artifact.url),
                is_asset: asset_url.is_some(),
                sha256: &artifact.sha256,
                is_asked_for: false,
                credential: credential.as_ref(),
            })
            .await
    }

    /// `<mirror>/<sha256>`, `<mirror>/<plugin>/<version>/<file>` or `<mirror>/<file>`: the first
    /// that is there, and its digest decides.
    async fn take_from_mirror(
        &self,
        mirror: &Path,
        plugin: &Wanted,
        artifact: &Artifact,
        what: &str,
    ) -> Result<Vec<u8>, Report> {
        let file = RedactedUrl::parse(&artifact.url)
            .map(|url| url.file_name().to_owned())
            .unwrap_or_default();
        let mut places = vec![mirror.join(&artifact.sha256)];
        if !file.is_empty() && file != ".." {
            places.push(mirror.join(&plugin.name).join(&plugin.version).join(&file));
            places.push(mirror.join(&file));
        }
        let (disk, what, expected) = (
            Arc::clone(&self.fetcher.disk),
            what.to_owned(),
            artifact.sha256.clone(),
        );
        blocking(move || {
            for place in &places {
                if let Ok(Some(EntryKind::File { .. })) = disk.entry(place) {
                    let bytes = disk
                        .read(place, ARCHIVE_BYTES_MAX)
                        .map_err(|error| disk_failed(&error))?;
                    let found = digest_of(&bytes);
                    if found != expected {
                        return Err(digest_mismatch(&what, &expected, &found)
                            .because(format!("in the mirror: `{}`", place.display())));
                    }
                    return Ok(bytes);
                }
            }
            let looked: Vec<String> = places
                .iter()
                .map(|place| format!("`{}`", place.display()))
                .collect();
            Err(
                Report::error("package/not-in-mirror", format!("the mirror has no {what}"))
                    .because(format!("looked for {}", looked.join(", ")))
                    .fix("copy the archive there, under one of these names"),
            )
        })
        .await
    }

    /// The token for a plugin's source, and the server it belongs to. A variable the manifest names
    /// must be set; the general ones are for GitHub only.
    fn credential(&self, plugin: &Wanted, api: &str) -> Result<Option<Credential>, Report> {
        let server = match &plugin.source {
            Some(Source::Github { .. }) => api,
            Some(Source::Folder(url)) => url.as_str(),
            None => return Ok(None),
        };
        let variable = match (&plugin.auth_env, &plugin.source) {
            (Some(named), _) => {
                if self.variables.non_empty(named).is_none() {
                    return Err(Report::error(
                        "package/no-token",
                        format!("`{}` needs a token, and `{named}` is not set", plugin.name),
                    )
                    .at_maybe(plugin.at.clone())
                    .fix(format!("set `{named}`; in a workflow: `env: {{ {named}: ${{{{ secrets.{named} }}}} }}`"))
                    .exit(Exit::Usage));
                }
                named.as_str()
            }
            (None, Some(Source::Github { .. })) => {
                let set = TOKEN_VARIABLES
                    .into_iter()
                    .find(|name| self.variables.non_empty(name).is_some());
                match set {
                    Some(name) => name,
                    None => return Ok(None),
                }
            }
            (None, _) => return Ok(None),
        };
        self.token_for(variable, server).map(Some)
    }

    /// Removes what killed installs left, and says what had to stay.
    fn swept(&self, plugin_dir: &Path) -> Result<(), Report> {
        let kept =
            install::sweep(&*self.fetcher.disk, plugin_dir).map_err(|error| disk_failed(&error))?;
        for warning in kept {
            self.fetcher.reporter.say(Event::Problem(Box::new(warning)));
        }
        Ok(())
    }

    /// The token in a variable, for one server.
    fn token_for(&self, variable: &str, server: &str) -> Result<Credential, Report> {
        let server = RedactedUrl::parse(server).map_err(|problem| {
            Report::error("package/bad-answer", "the source cannot be asked")
                .because(problem.to_string())
        })?;
        let value = self.variables.get(variable).unwrap_or_default();
        let token = self.masker.admit(variable, value.to_owned());
        Credential::new(variable, &token, server)
    }
}

/// The user's own plugin folder, for all projects.
pub fn global_folder(variables: &Variables) -> Result<PathBuf, Report> {
    let data = variables
        .non_empty("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            let home = variables.non_empty("HOME")?;
            Some(Path::new(home).join(".local/share"))
        });
    match data {
        Some(data) if data.is_absolute() => Ok(data.join("tidegate").join("plugins")),
        _ => Err(Report::error(
            "package/no-home",
            "nobody says where the user's own plugin folder is",
        )
        .because("neither `XDG_DATA_HOME` nor `HOME` is an absolute path")
        .fix("name a folder with --plugin-dir")
        .exit(Exit::Usage)),
    }
}

/// The pin of a plugin for this machine. What the manifest asks for and the lock does not say is an
/// error here, never something to look up.
pub fn pinned<'l>(plugin: &Wanted, lock: &'l Lock) -> Result<(&'l Locked, &'l Artifact), Report> {
    if let Some(identity) = &plugin.identity {
        return Err(install::identity_refused(plugin, identity));
    }
    let not_locked = |why: String| {
        Report::error("package/not-locked", why)
            .at_maybe(plugin.at.clone())
            .fix("lock it, and commit the lock: `tidegate plugin lock`")
            .exit(Exit::Usage)
    };
    let (_, locked) = lock
        .get(&plugin.name)
        .ok_or_else(|| not_locked(format!("`{}` is not in the lock", plugin.name)))?;
    if locked.version != plugin.version {
        return Err(not_locked(format!(
            "`{}` is locked as {}, and the manifest says {}",
            plugin.name, locked.version, plugin.version
        )));
    }
    if locked.platforms.is_empty() {
        return Err(not_locked(format!(
            "`{}` is locked without a digest",
            plugin.name
        )));
    }
    let platform = name::this_platform();
    let artifact = locked.platforms.get(&platform).ok_or_else(|| {
        let has: Vec<&str> = locked.platforms.keys().map(String::as_str).collect();
        Report::error(
            "package/no-platform",
            format!(
                "`{}` {} is not published for {platform}",
                plugin.name, locked.version
            ),
        )
        .because(format!("locked platforms: {}", has.join(", ")))
        .at_maybe(plugin.at.clone())
    })?;
    Ok((locked, artifact))
}

/// Runs work that keeps a thread busy beside the others.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Report> + Send + 'static,
) -> Result<T, Report> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Report::error(
                "package/stopped",
                "the run ended in the middle of the work",
            )),
        },
    }
}

/// A failed file operation as a problem.
pub fn disk_failed(error: &DiskError) -> Report {
    Report::error("package/disk", error.to_string())
        .fix("check that there is room, and that you may write there; then run it again")
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a `String` cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Reads a file that must be text.
pub fn read_text(disk: &dyn Disk, path: &Path) -> Result<Option<String>, Report> {
    match disk.read(path, manifest::FILE_BYTES_MAX) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| {
            Report::error(
                "package/not-utf8",
                format!("`{}` is not UTF-8", path.display()),
            )
            .exit(Exit::Usage)
        }),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(disk_failed(&error)),
    }
}
