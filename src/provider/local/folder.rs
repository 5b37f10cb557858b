//! Folders of resources: one per resource under the provider's root, each with a marker that says
//! who made it. What bears no marker of ours is never written to and never removed.
//!
//! Names are data. `orders-db` is the folder `orders-db`; everything that could mean something to
//! a file system is percent-encoded, so two names never share a folder and none leaves the root.
//!
//! A folder appears and disappears by one rename: filled as `.new.<name>`, removed as
//! `.old.<name>`. Whatever a crash leaves under those names, the next call clears.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::clock::{Clock, rfc3339};
use crate::disk::{Disk, DiskError, DiskExt as _, EntryKind, SharedDisk};
use crate::provider::{DriverError, DriverResult, ErrorClass};
use crate::random::encode_hex;
use crate::resource::{Address, Kind, Private, Recorded};

/// The marker's file name.
pub(super) const MARKER: &str = ".tidegate-resource.json";

const MARKER_BYTES_MAX: u64 = 64 * 1024;
const NAME_BYTES_MAX: usize = 180;

/// Mode of every directory made here.
pub(super) const DIRECTORY_MODE: u32 = 0o700;
/// Mode of every file made here.
pub(super) const FILE_MODE: u32 = 0o600;

/// Who made a folder, for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    format: u32,
    kind: Kind,
    name: Address,
    environment: String,
    /// RFC 3339; empty in folders of older versions.
    #[serde(default)]
    made_at: String,
}

/// A folder that bears our marker.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) kind: Kind,
    pub(super) name: Address,
    /// RFC 3339; empty when the marker does not say.
    pub(super) made_at: String,
}

/// What we ask the engine to keep with a folder's resource.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The root the folder was made under.
    #[serde(default)]
    pub(super) root: PathBuf,
}

/// Where a recorded resource is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Located {
    /// Its folder.
    pub(super) path: PathBuf,
    /// True when it lies under an earlier root, not under the one configured now.
    pub(super) elsewhere: bool,
}

/// All folders of one environment under one root.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    disk: SharedDisk,
    root: PathBuf,
    environment: String,
    clock: Arc<dyn Clock>,
}

impl Folders {
    pub(super) fn new(
        disk: SharedDisk,
        root: PathBuf,
        environment: String,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            disk,
            root,
            environment,
            clock,
        }
    }

    /// The environment whose folders these are.
    pub(super) fn environment(&self) -> &str {
        &self.environment
    }

    /// Every folder of this environment, sorted by name. What bears no marker, or another
    /// environment's, is passed over.
    pub(super) fn made(&self) -> DriverResult<Vec<Made>> {
        let root = Address::new(self.root.to_string_lossy());
        let failed = |error| disk_failed(&root, &error);
        let names = match self.disk.list(&self.root) {
            Ok(names) => names,
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut all = Vec::new();
        for name in names.iter().filter(|name| !name.starts_with('.')) {
            let path = self.root.join(name).join(MARKER);
            match self.disk.entry(&path) {
                Ok(Some(EntryKind::File { .. })) => {}
                // A plain file lies where a folder would.
                Ok(_) => continue,
                Err(error) if error.source.kind() == std::io::ErrorKind::NotADirectory => continue,
                Err(error) => return Err(failed(error)),
            }
            let bytes = self.disk.read(&path, MARKER_BYTES_MAX).map_err(failed)?;
            if let Ok(marker) = serde_json::from_slice::<Marker>(&bytes)
                && marker.environment == self.environment
                && encode_name(marker.name.as_str()) == *name
            {
                all.push(Made {
                    kind: marker.kind,
                    name: marker.name,
                    made_at: marker.made_at,
                });
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// The folder of a name, whether it exists or not.
    pub(super) fn path(&self, address: &Address) -> PathBuf {
        self.root.join(encode_name(address.as_str()))
    }

    /// The private blob that lets a later call find the folder after `root` was changed.
    pub(super) fn kept(&self) -> Private {
        Private::new(
            serde_json::to_vec(&Kept {
                root: self.root.clone(),
            })
            .unwrap_or_default(),
        )
    }

    /// The folder of a name, if it exists and is ours.
    fn find(&self, address: &Address, kind: &Kind) -> DriverResult<Option<PathBuf>> {
        self.find_in(&encode_name(address.as_str()), address, kind)
    }

    /// The folder of that name below the root, if it exists and is ours.
    fn find_in(
        &self,
        folder: &str,
        address: &Address,
        kind: &Kind,
    ) -> DriverResult<Option<PathBuf>> {
        let path = self.root.join(folder);
        let failed = |error| disk_failed(address, &error);
        match self.disk.entry(&path).map_err(failed)? {
            None => return Ok(None),
            Some(EntryKind::Directory) => {}
            Some(EntryKind::File { .. } | EntryKind::Other) => {
                return Err(self.foreign(address, &path, "is not a directory"));
            }
        }
        let marker_path = path.join(MARKER);
        match self.disk.entry(&marker_path).map_err(failed)? {
            Some(EntryKind::File { .. }) => {}
            _ => return Err(self.foreign(address, &path, "was not made by Tidegate")),
        }
        let bytes = self
            .disk
            .read(&marker_path, MARKER_BYTES_MAX)
            .map_err(failed)?;
        let Ok(marker) = serde_json::from_slice::<Marker>(&bytes) else {
            return Err(self.foreign(address, &path, "has a marker that cannot be read"));
        };
        if encode_name(marker.name.as_str()) != folder || marker.kind != *kind {
            let owner = format!("belongs to the {} `{}`", marker.kind, marker.name);
            return Err(self.foreign(address, &path, &owner));
        }
        if marker.environment != self.environment {
            let owner = format!("belongs to the environment `{}`", marker.environment);
            return Err(self.foreign(address, &path, &owner));
        }
        Ok(Some(path))
    }

    /// The name of a recorded resource's folder: its id says it, whatever its record is called since,
    /// and only without one its own name does.
    fn folder_of(&self, prior: &Recorded) -> String {
        let id = Path::new(&prior.provider_id);
        let kept: Option<Kept> = serde_json::from_slice(prior.private.as_bytes()).ok();
        let kept = kept.map(|kept| kept.root).filter(|root| root.is_absolute());
        let below = |root: &Path| match id.strip_prefix(root).ok()?.components().next()? {
            Component::Normal(name) => name.to_str().filter(|name| !name.starts_with('.')),
            _ => None,
        };
        below(&self.root)
            .or_else(|| below(&kept?))
            .map_or_else(|| encode_name(prior.address.as_str()), str::to_owned)
    }

    /// The folder of a recorded resource: under the root of now, else under the root it was made.
    pub(super) fn locate(&self, prior: &Recorded) -> DriverResult<Option<Located>> {
        let folder = self.folder_of(prior);
        if let Some(path) = self.find_in(&folder, &prior.address, &prior.kind)? {
            return Ok(Some(Located {
                path,
                elsewhere: false,
            }));
        }
        let Some(earlier) = self.earlier(prior) else {
            return Ok(None);
        };
        Ok(earlier
            .find_in(&folder, &prior.address, &prior.kind)?
            .map(|path| Located {
                path,
                elsewhere: true,
            }))
    }

    fn earlier(&self, prior: &Recorded) -> Option<Self> {
        let kept: Kept = serde_json::from_slice(prior.private.as_bytes()).ok()?;
        (kept.root.is_absolute() && kept.root != self.root).then(|| Self {
            root: kept.root,
            ..self.clone()
        })
    }

    /// Makes the folder of a name: `fill` sees it under a temporary name and may put files there;
    /// the whole appears at once.
    pub(super) fn create(
        &self,
        address: &Address,
        kind: &Kind,
        fill: impl FnOnce(&Path) -> DriverResult<()>,
    ) -> DriverResult<PathBuf> {
        if let Some(path) = self.find(address, kind)? {
            return Err(DriverError::new(
                ErrorClass::AlreadyExists,
                format!("`{address}` exists already at `{}`", path.display()),
            ));
        }
        let failed = |error| disk_failed(address, &error);
        let path = self.path(address);
        let staged = self
            .root
            .join(format!(".new.{}", encode_name(address.as_str())));
        self.disk.remove_tree(&staged).map_err(failed)?;
        self.disk
            .create_directories(&staged, DIRECTORY_MODE)
            .map_err(failed)?;
        let marker = Marker {
            format: 1,
            kind: kind.clone(),
            name: address.clone(),
            environment: self.environment.clone(),
            made_at: rfc3339(self.clock.now()),
        };
        let text = serde_json::to_vec_pretty(&marker).unwrap_or_default();
        let made = self
            .disk
            .create_new(&staged.join(MARKER), &text, FILE_MODE)
            .map_err(failed)
            .and_then(|()| fill(&staged))
            .and_then(|()| self.disk.rename(&staged, &path).map_err(failed))
            .and_then(|()| self.disk.sync_directory(&self.root).map_err(failed));
        if let Err(error) = made {
            // The first error matters more; the next create clears what is left.
            drop(self.disk.remove_tree(&staged));
            drop(self.disk.remove_if_empty(&self.root));
            return Err(error);
        }
        Ok(path)
    }

    /// Removes the folder of a recorded resource wherever it lies, what crashes left of it, and
    /// the root when nothing else is in it. Nothing there is success.
    pub(super) fn remove(&self, prior: &Recorded) -> DriverResult<()> {
        let folder = self.folder_of(prior);
        let earlier = self.earlier(prior);
        for folders in std::iter::once(self).chain(earlier.as_ref()) {
            folders.remove_here(&folder, &prior.address, &prior.kind)?;
        }
        Ok(())
    }

    fn remove_here(&self, encoded: &str, address: &Address, kind: &Kind) -> DriverResult<()> {
        let failed = |error| disk_failed(address, &error);
        let doomed = self.root.join(format!(".old.{encoded}"));
        self.disk.remove_tree(&doomed).map_err(failed)?;
        if let Some(path) = self.find_in(encoded, address, kind)? {
            self.disk.rename(&path, &doomed).map_err(failed)?;
            self.disk.sync_directory(&self.root).map_err(failed)?;
            self.disk.remove_tree(&doomed).map_err(failed)?;
        }
        let staged = self.root.join(format!(".new.{encoded}"));
        self.disk.remove_tree(&staged).map_err(failed)?;
        self.disk.remove_if_empty(&self.root).map_err(failed)
    }

    /// Replaces a file inside a folder of ours in one step.
    pub(super) fn write(&self, address: &Address, path: &Path, bytes: &[u8]) -> DriverResult<()> {
        self.disk
            .write_atomic(path, bytes, FILE_MODE)
            .map_err(|error| disk_failed(address, &error))
    }

    fn foreign(&self, address: &Address, path: &Path, what: &str) -> DriverError {
        DriverError::new(
            ErrorClass::Conflict,
            format!(
                "`{address}`: `{}` {what}, so it is left alone; move it away, or set another `root` \
                 for the provider",
                path.display()
            ),
        )
    }
}

/// A file operation's failure as a driver's.
pub(super) fn disk_failed(address: &Address, error: &DiskError) -> DriverError {
    use std::io::ErrorKind;
    let (class, next) = match error.source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => (
            ErrorClass::Denied,
            "give this user the right to write there, or set another `root` for the provider",
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            (ErrorClass::Conflict, "free some space, then run again")
        }
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => (
            ErrorClass::Invalid,
            "check the provider's `root`, then run again",
        ),
        _ => (ErrorClass::Unknown, "look at that path, then run again"),
    };
    DriverError::new(class, format!("`{address}`: {error}; {next}"))
}

/// A name as one path component. Letters, digits, `-`, `_` and inner dots stay; every other byte
/// becomes `%XX`. No two names give the same component. A long name keeps its beginning and ends
/// in its hash, behind `%long-`, which no short name can start with.
pub(super) fn encode_name(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(char::from(byte)),
            b'.' if at > 0 => encoded.push('.'),
            _ => {
                encoded.push('%');
                encoded.push_str(&encode_hex(&[byte]).to_ascii_uppercase());
            }
        }
    }
    if encoded.is_empty() {
        return "%empty".to_owned();
    }
    if encoded.len() > NAME_BYTES_MAX {
        let hash = encode_hex(&Sha256::digest(name.as_bytes()));
        return format!("%long-{}-{hash}", &encoded[..80]);
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn names_are_one_component_each() {
        for (name, expected) in [
            ("orders-db", "orders-db"),
            ("Orders_DB.v2", "Orders_DB.v2"),
            ("../../etc", "%2E.%2F..%2Fetc"),
            (".", "%2E"),
            ("..", "%2E."),
            ("a/b", "a%2Fb"),
            ("a_b", "a_b"),
            ("a%2Fb", "a%252Fb"),
            ("", "%empty"),
            ("\0\n", "%00%0A"),
            ("ü", "%C3%BC"),
        ] {
            assert_eq!(encode_name(name), expected, "{name:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn encoding_is_injective_and_stays_inside(names in proptest::collection::vec(".{0,300}", 2..20)) {
            let mut seen: BTreeMap<String, String> = BTreeMap::new();
            for name in names {
                let encoded = encode_name(&name);
                assert!(encoded.len() <= 255 - ".new.".len());
                assert!(!encoded.starts_with('.') && !encoded.contains(['/', '\0']));
                if let Some(other) = seen.insert(encoded.clone(), name.clone()) {
                    assert_eq!(other, name, "{encoded}");
                }
            }
        }
    }

    #[test]
    fn long_names_keep_apart_by_hash() {
        let (a, b) = ("x".repeat(200), format!("{}y", "x".repeat(199)));
        assert_ne!(encode_name(&a), encode_name(&b));
        assert!(encode_name(&a).starts_with("%long-xxx"));
    }
}
