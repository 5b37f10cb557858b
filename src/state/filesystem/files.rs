//! The files themselves: how one is found, read, replaced, kept and removed.
//!
//! Records and keepsakes are in `<name>.cbor`. Until format 2 they were JSON, in `<name>.json`: such
//! a file is read where there is no newer one, and goes when its successor stands.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::disk::DiskExt as _;
use crate::resource::Address;
use crate::state::{StoreError, StoreResult, frame, name};

use super::{
    DIRECTORY_MODE, FILE_MODE, Filesystem, PREVIOUS, RECORD_BYTES_MAX, SMALL_BYTES_MAX, parse_own,
    storage,
};

const SUFFIX: &str = ".cbor";
const SUFFIX_OF_OLD: &str = ".json";

/// Where one record or keepsake is.
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// Where it was in format 1.
    pub(super) of_old: PathBuf,
}

/// A file's name without what tells its format; `None` for one that is not ours.
pub(super) fn stem(file: &str) -> Option<&str> {
    file.strip_suffix(SUFFIX)
        .or_else(|| file.strip_suffix(SUFFIX_OF_OLD))
}

/// The name or key that a file's name tells; of very long ones, the file's own.
pub(super) fn told(file: &str) -> String {
    stem(file)
        .and_then(name::decode)
        .unwrap_or_else(|| file.to_owned())
}

impl Filesystem {
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    pub(super) fn place(&self, folder: &str, key: &str) -> Place {
        self.place_of(folder, &name::encode(key))
    }

    /// By an encoded name.
    pub(super) fn place_of(&self, folder: &str, stem: &str) -> Place {
        let folder = self.directory.join(folder);
        Place {
            path: folder.join(format!("{stem}{SUFFIX}")),
            of_old: folder.join(format!("{stem}{SUFFIX_OF_OLD}")),
        }
    }

    pub(super) fn record_place(&self, address: &Address) -> Place {
        self.place(super::RECORDS, address.as_str())
    }

    /// A file's bytes; `None` when it does not exist.
    pub(super) fn read(&self, path: &Path, limit_bytes: u64) -> StoreResult<Option<Vec<u8>>> {
        match self.disk.read(path, limit_bytes) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(storage(error)),
        }
    }

    /// What is stored at a place, and the path it was found at.
    pub(super) fn read_at<'p>(
        &self,
        place: &'p Place,
        limit_bytes: u64,
    ) -> StoreResult<Option<(Vec<u8>, &'p Path)>> {
        // The new one once more: a writer may have moved it while we looked.
        for path in [&place.path, &place.of_old, &place.path] {
            if let Some(bytes) = self.read(path, limit_bytes)? {
                return Ok(Some((bytes, path)));
            }
        }
        Ok(None)
    }

    /// The names in one of our folders, leftovers of dead writers aside; empty when it does not
    /// exist. Of a file in both formats, only the newer one.
    pub(super) fn names(&self, folder: &str) -> StoreResult<Vec<String>> {
        let directory = self.path(folder);
        let mut names = match self.disk.list(&directory) {
            Ok(names) => names,
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Err(storage(error)),
        };
        // Our names never start with a dot; temporary files, and what file managers drop into
        // folders, do.
        names.retain(|name| !name.starts_with('.'));
        let is_overtaken = |name: &String| {
            name.strip_suffix(SUFFIX_OF_OLD)
                .is_some_and(|stem| names.binary_search(&format!("{stem}{SUFFIX}")).is_ok())
        };
        let overtaken: Vec<bool> = names.iter().map(is_overtaken).collect();
        let mut overtaken = overtaken.into_iter();
        names.retain(|_| overtaken.next() != Some(true));
        Ok(names)
    }

    /// Makes one of our folders, durably, unless it is there.
    pub(super) fn make_folder(&self, folder: &Path) -> StoreResult<()> {
        if folder != self.directory && self.disk.entry(folder).map_err(storage)?.is_none() {
            self.disk
                .create_directories(folder, DIRECTORY_MODE)
                .and_then(|()| self.disk.sync_directory(&self.directory))
                .map_err(storage)?;
        }
        Ok(())
    }

    /// Writes a file of a folder that may not exist yet.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> StoreResult<()> {
        if let Some(folder) = path.parent() {
            self.make_folder(folder)?;
        }
        self.disk
            .write_atomic(path, bytes, FILE_MODE)
            .map_err(storage)
    }

    /// Writes what is stored at a place.
    pub(super) fn write_at(&self, place: &Place, bytes: &[u8]) -> StoreResult<()> {
        self.write(&place.path, bytes)?;
        // Nobody looks at it any more; if it comes back with a power cut, neither.
        self.disk.remove_file(&place.of_old).map_err(storage)
    }

    /// Removes what is stored at a place.
    pub(super) fn remove_at(&self, place: &Place) -> StoreResult<()> {
        // The older one first, so that it never comes to light.
        for path in [&place.of_old, &place.path] {
            self.disk.remove_file(path).map_err(storage)?;
        }
        match place.path.parent() {
            Some(folder) => self.sync_if_there(folder),
            None => Ok(()),
        }
    }

    fn sync_if_there(&self, folder: &Path) -> StoreResult<()> {
        match self.disk.sync_directory(folder) {
            Err(error) if !error.is_not_found() => Err(storage(error)),
            _ => Ok(()),
        }
    }

    /// Keeps the record in `path` as the previous one, which costs no copy.
    pub(super) fn keep_previous(&self, path: &Path) -> StoreResult<()> {
        let Some(kept) = self.place_in_previous(path)? else {
            return Ok(());
        };
        self.disk
            .keep_as(path, &kept, RECORD_BYTES_MAX, FILE_MODE)
            .map_err(storage)
    }

    /// Makes the record at a place the previous one: it is gone from there. One that is not there
    /// is none.
    pub(super) fn retire(&self, place: &Place) -> StoreResult<()> {
        let is_there = self.disk.entry(&place.path).map_err(storage)?.is_some();
        let path = if is_there {
            // The older one first, so that it never comes to light.
            self.disk.remove_file(&place.of_old).map_err(storage)?;
            &place.path
        } else {
            &place.of_old
        };
        let (Some(folder), Some(kept)) = (path.parent(), self.place_in_previous(path)?) else {
            return Ok(());
        };
        match self.disk.rename(path, &kept) {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other.map_err(storage)?,
        }
        // Kept by a second name already, by a write that was cut off, it would still be there: two
        // names of one file are left as they are by a rename from one to the other.
        self.disk
            .remove_file(path)
            .and_then(|()| self.disk.sync_directory(&self.path(PREVIOUS)))
            .and_then(|()| self.disk.sync_directory(folder))
            .map_err(storage)
    }

    /// Where a record's file is kept once it is not the newest, with no other version there.
    fn place_in_previous(&self, path: &Path) -> StoreResult<Option<PathBuf>> {
        let Some(file) = path.file_name().and_then(|file| file.to_str()) else {
            return Ok(None);
        };
        let folder = self.path(PREVIOUS);
        self.make_folder(&folder)?;
        if let Some(stem) = file.strip_suffix(SUFFIX) {
            let older = folder.join(format!("{stem}{SUFFIX_OF_OLD}"));
            self.disk.remove_file(&older).map_err(storage)?;
        }
        Ok(Some(folder.join(file)))
    }

    pub(super) fn write_own<T: Serialize>(&self, path: &Path, value: &T) -> StoreResult<()> {
        let bytes = frame::close(value).map_err(|reason| {
            StoreError::Storage(format!("cannot write `{}`: {reason}", path.display()))
        })?;
        self.write(path, &bytes)
    }

    /// Reads one of our own small files and refuses newer formats.
    pub(super) fn read_own<T: serde::de::DeserializeOwned>(
        &self,
        path: &Path,
        what: &str,
    ) -> StoreResult<Option<T>> {
        match self.read(path, SMALL_BYTES_MAX)? {
            Some(bytes) => {
                parse_own(&bytes, &format_args!("{what} (`{}`)", path.display())).map(Some)
            }
            None => Ok(None),
        }
    }
}
