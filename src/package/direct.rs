//! Plugins that no lock pins: one archive whose digest is given by hand, or what was built on this
//! machine. They are checked and installed as locked ones are; what a lock says of them is compared
//! when they are started.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive::{self, Contents, File};
use super::download::Want;
use super::install::{self, DESCRIPTOR_FILE, Identity, Package};
use super::{Workshop, blocking, disk_failed, name};
use crate::disk::{Disk, EntryKind};
use crate::http::RedactedUrl;
use crate::report::{Exit, Report};

/// Folders below a plugin's own.
const DEPTH_MAX: usize = 16;
/// Files of a plugin.
const FILES_MAX: usize = 4096;

/// Where such a plugin comes from.
#[derive(Clone, Debug)]
pub enum Direct {
    /// An archive of this SHA-256, at this address.
    Url {
        /// The address.
        url: String,
        /// The digest.
        sha256: String,
    },
    /// A folder with `plugin.json` and the executable, or an archive.
    Local(PathBuf),
}

/// What was installed.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Its name, as it says itself.
    pub name: String,
    /// The folder it is in.
    pub folder: String,
    /// Its version, as it says itself.
    pub version: String,
    /// SHA-256 of its executable.
    pub binary_sha256: String,
}

fn wrong(why: &str, fix: &str) -> Report {
    Report::error("package/bad-source", why)
        .fix(fix)
        .exit(Exit::Usage)
}

impl Workshop {
    /// Installs one; `named` is what it must be called, when that is known.
    pub async fn install_direct(
        &self,
        from: &Direct,
        named: Option<&str>,
        plugin_dir: &Path,
    ) -> Result<Installed, Report> {
        let contents = match from {
            Direct::Url { url, sha256 } => {
                let bytes = self.fetch_direct(url, sha256).await?;
                blocking(move || unpack(&bytes, "the archive")).await?
            }
            Direct::Local(path) => {
                let (disk, path) = (Arc::clone(&self.fetcher.disk), path.clone());
                blocking(move || read_local(&*disk, &path)).await?
            }
        };
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
        let (named, engine) = (named.map(str::to_owned), self.engine.clone());
        let (disk, plugin_dir) = (Arc::clone(&self.fetcher.disk), plugin_dir.to_path_buf());
        blocking(move || {
            let platform = name::this_platform();
            let described = install::describe(&contents)?;
            let asked = Identity {
                name: named.as_deref().unwrap_or(&described.name),
                version: &described.version,
                platform: &platform,
                engine: &engine,
            };
            let package = Package::of(contents, &asked)?;
            package.install(&*disk, &plugin_dir, &platform)?;
            Ok(Installed {
                name: package.descriptor.name,
                folder: package.folder,
                version: package.descriptor.version,
                binary_sha256: package.binary_sha256,
            })
        })
        .await
    }

    /// Without a token: nobody said whose server it is.
    async fn fetch_direct(&self, url: &str, sha256: &str) -> Result<Vec<u8>, Report> {
        if !name::is_digest(sha256) {
            return Err(wrong(
                "`--sha256` is not 64 hexadecimal digits",
                "give the digest that the author of the plugin published",
            ));
        }
        let address = RedactedUrl::parse(url)
            .map_err(|problem| problem.to_string())
            .and_then(|address| name::check_url(&address).map(|()| address))
            .map_err(|why| {
                wrong(
                    &format!("the address of `--url` cannot be used: {why}"),
                    "give the `https` address of a `tar.gz`",
                )
            })?;
        let sha256 = sha256.to_ascii_lowercase();
        self.fetcher
            .archive(&Want {
                what: &address.to_string(),
                url,
                is_asset: false,
                sha256: &sha256,
                is_asked_for: false,
                credential: None,
            })
            .await
    }
}

fn unpack(bytes: &[u8], what: &str) -> Result<Contents, Report> {
    archive::unpack(bytes).map_err(|error| {
        Report::error("package/bad-archive", format!("{what} is refused"))
            .because(error.to_string())
            .fix("make it a plain `tar.gz` of regular files")
    })
}

/// A folder as it stands, or an archive. Links are not followed: what is installed is what is here.
fn read_local(disk: &dyn Disk, path: &Path) -> Result<Contents, Report> {
    let failed = |error: crate::disk::DiskError| disk_failed(&error);
    let path = disk.canonical(path).map_err(failed)?;
    match disk.entry(&path).map_err(failed)? {
        Some(EntryKind::File { .. }) => {
            let bytes = disk
                .read(&path, archive::ARCHIVE_BYTES_MAX)
                .map_err(failed)?;
            unpack(&bytes, &format!("`{}`", path.display()))
        }
        Some(EntryKind::Directory) => {
            let is_plugin = disk.entry(&path.join(DESCRIPTOR_FILE)).map_err(failed)?;
            if is_plugin.is_none() {
                return Err(wrong(
                    &format!("`{}` has no `plugin.json`", path.display()),
                    "write it first: a plugin on the SDK prints it with `--manifest`",
                ));
            }
            let mut contents = Contents::new();
            let mut room = archive::UNPACKED_BYTES_MAX;
            read_folder(disk, &path, "", 0, &mut room, &mut contents)?;
            Ok(contents)
        }
        _ => Err(wrong(
            &format!("`{}` is neither a folder nor an archive", path.display()),
            "name the folder that holds `plugin.json` and the executable",
        )),
    }
}

fn read_folder(
    disk: &dyn Disk,
    folder: &Path,
    inside: &str,
    depth: usize,
    room: &mut u64,
    contents: &mut Contents,
) -> Result<(), Report> {
    let failed = |error: crate::disk::DiskError| disk_failed(&error);
    for entry in disk.list(folder).map_err(failed)? {
        let (path, inside) = (folder.join(&entry), format!("{inside}{entry}"));
        match disk.entry(&path).map_err(failed)? {
            Some(EntryKind::Directory) if depth < DEPTH_MAX => {
                read_folder(
                    disk,
                    &path,
                    &format!("{inside}/"),
                    depth + 1,
                    room,
                    contents,
                )?;
            }
            Some(EntryKind::File { .. }) if contents.len() < FILES_MAX => {
                let bytes = disk.read(&path, *room).map_err(failed)?;
                *room = room.saturating_sub(bytes.len() as u64);
                let file = File {
                    bytes,
                    // Which of them is the executable is decided by its name.
                    is_executable: false,
                };
                contents.insert(inside, file);
            }
            _ => {
                return Err(wrong(
                    &format!("`{}` cannot be part of a plugin", path.display()),
                    "leave only `plugin.json`, the executable and plain files in the folder",
                ));
            }
        }
    }
    Ok(())
}
