//! The files a package put into its folder, and what else stands there.
//!
//! The list of them stands in the folder itself ([`LIST_FILE`]) and the lock holds its digest: a file
//! that was changed contradicts the list, and a list that was changed contradicts the lock. What is
//! not on the list is the plugin's own, because a plugin runs in its folder: it stays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::archive::{self, Contents};
use super::cache::digest_of;
use super::install::DESCRIPTOR_FILE;
use super::{disk_failed, name};
use crate::disk::{Disk, DiskResult, EntryKind};
use crate::report::Report;

/// The list, in every folder that was installed.
pub const LIST_FILE: &str = ".package-files";
/// Largest list that is read.
const LIST_BYTES_MAX: u64 = 16 << 20;
/// How programs begin: ELF, scripts, Mach-O, PE.
const BEGINNINGS: [&[u8]; 5] = [
    b"\x7fELF",
    b"#!",
    b"\xcf\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe",
    b"MZ",
];
/// As much of a file as shows how it begins.
const HEAD_BYTES: usize = 4;
/// A plugin's cache may be large; this many of its files are looked at.
const LOOKED_AT_MAX: usize = 20_000;
/// Between digest and path, as `sha256sum` writes it.
const GAP: &str = "  ";

/// The list of these files.
pub(super) fn list(files: &Contents) -> String {
    files
        .iter()
        .map(|(path, file)| format!("{}{GAP}{path}\n", digest_of(&file.bytes)))
        .collect()
}

/// Digests by path; a line that is none of ours makes all of it none.
fn parse(text: &str) -> Option<BTreeMap<String, String>> {
    text.lines()
        .map(|line| {
            let (digest, path) = line.split_once(GAP)?;
            let is_inside = path
                .split('/')
                .all(|part| !part.is_empty() && part != "." && part != "..");
            (name::is_digest(digest) && is_inside).then(|| (path.to_owned(), digest.to_owned()))
        })
        .collect()
}

/// What became of the files of a package.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The digest of the list; `None` when there is no list: then nobody knows what belongs here.
    pub list_sha256: Option<String>,
    /// Files on the list that are not there, or not as they were.
    pub changed: Vec<String>,
}

impl Parts {
    /// Looks at every file of the list. `known` are digests that are at hand already.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn look(
        disk: &dyn Disk,
        directory: &Path,
        known: &[(&str, Option<&str>)],
    ) -> Result<Self, Report> {
        let failed = |error| disk_failed(&error);
        let Some(text) = read_list(disk, directory).map_err(failed)? else {
            return Ok(Self::default());
        };
        let mut changed = Vec::new();
        match parse(&text) {
            None => changed.push(LIST_FILE.to_owned()),
            Some(files) => {
                for (path, digest) in files {
                    let at_hand = known.iter().find(|(known, _)| *known == path);
                    let found = match at_hand {
                        Some((_, found)) => found.map(str::to_owned),
                        None => digest_at(disk, directory, &path).map_err(failed)?,
                    };
                    if found.as_deref() != Some(digest.as_str()) {
                        changed.push(path);
                    }
                }
            }
        }
        Ok(Self {
            list_sha256: Some(digest_of(text.as_bytes())),
            changed,
        })
    }

    /// True when these are the files of that list, every one as it was.
    pub fn are(&self, list_sha256: &str) -> bool {
        self.changed.is_empty() && self.list_sha256.as_deref() == Some(list_sha256)
    }
}

fn read_list(disk: &dyn Disk, directory: &Path) -> DiskResult<Option<String>> {
    let path = directory.join(LIST_FILE);
    match disk.entry(&path)? {
        // What is no text is no list of ours, and its digest shows that.
        Some(EntryKind::File { .. }) => disk
            .read(&path, LIST_BYTES_MAX)
            .map(|bytes| Some(String::from_utf8_lossy(&bytes).into_owned())),
        Some(EntryKind::Directory | EntryKind::Other) | None => Ok(None),
    }
}

/// Links are not followed, in no part of the path: what is behind one is not what was installed.
fn digest_at(disk: &dyn Disk, directory: &Path, path: &str) -> DiskResult<Option<String>> {
    let mut at = directory.to_path_buf();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        at.push(part);
        let is_right = match disk.entry(&at)? {
            Some(EntryKind::Directory) => parts.peek().is_some(),
            Some(EntryKind::File { .. }) => parts.peek().is_none(),
            Some(EntryKind::Other) | None => false,
        };
        if !is_right {
            return Ok(None);
        }
    }
    let bytes = disk.read(&at, archive::UNPACKED_BYTES_MAX)?;
    Ok(Some(digest_of(&bytes)))
}

/// What stands in `old` and no package put there, by path; a folder that holds nothing else as a whole.
/// An installation without a list tells it by that of `new`.
pub(super) fn own(disk: &dyn Disk, old: &Path, new: &Path) -> DiskResult<Vec<String>> {
    let list = match read_list(disk, old)? {
        None => read_list(disk, new)?,
        list => list,
    };
    let mut listed: BTreeSet<String> = list
        .and_then(|text| parse(&text))
        .unwrap_or_default()
        .into_keys()
        .collect();
    listed.insert(LIST_FILE.to_owned());
    listed.insert(DESCRIPTOR_FILE.to_owned());
    let mut own = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in disk.list(&old.join(&folder))? {
            let path = if folder.is_empty() {
                entry
            } else {
                format!("{folder}/{entry}")
            };
            let below = format!("{path}/");
            // What leads elsewhere is the plugin's own as a whole: what is behind it is not in here.
            let is_folder = disk.entry(&old.join(&path))? == Some(EntryKind::Directory);
            if is_folder && listed.iter().any(|listed| listed.starts_with(&below)) {
                folders.push(path);
            } else if is_folder || !listed.contains(&path) {
                own.push(path);
            }
        }
    }
    own.sort();
    Ok(own)
}

/// Takes away what a package put into a folder, its descriptor first: without that it is no plugin any
/// more. Answers what stays because it is the plugin's own. `None`, and nothing is done, when there is
/// nothing of the kind, or nobody knows what it is: then the folder goes as a whole.
pub(super) fn remove_listed(disk: &dyn Disk, directory: &Path) -> DiskResult<Option<Vec<String>>> {
    let Some(listed) = read_list(disk, directory)?.and_then(|text| parse(&text)) else {
        return Ok(None);
    };
    let own = own(disk, directory, directory)?;
    if own.is_empty() {
        return Ok(None);
    }
    let is_own = |path: &str| {
        let mut own = own.iter();
        own.any(|own| {
            path.strip_prefix(own.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        })
    };
    disk.remove_file(&directory.join(DESCRIPTOR_FILE))?;
    let mut folders = BTreeSet::new();
    // What a link leads to is not in here.
    for path in listed.keys().filter(|path| !is_own(path)) {
        disk.remove_file(&directory.join(path))?;
        folders.extend(Path::new(path).ancestors().skip(1).map(Path::to_path_buf));
    }
    disk.remove_file(&directory.join(LIST_FILE))?;
    // The deepest first, and the plugin's folder itself last.
    for folder in folders.iter().rev() {
        disk.remove_if_empty(&directory.join(folder))?;
    }
    Ok(Some(own))
}

/// Moves what is the plugin's own from an old installation into its new one. Done twice, it is done once.
pub(super) fn carry_over(disk: &dyn Disk, old: &Path, new: &Path) -> DiskResult<()> {
    for path in own(disk, old, new)? {
        let to = place_for(disk, new, &path)?;
        if let Some(folder) = to.parent() {
            disk.create_directories(folder, 0o755)?;
        }
        disk.rename(&old.join(&path), &to)?;
    }
    disk.sync_directory(new)
}

/// Where something goes that stood at `path`: there, unless the package has something of that name now, or
/// a file where a folder of its path was. Then beside it, under the first name that is taken with `.before`
/// behind it: neither takes the other's place.
fn place_for(disk: &dyn Disk, new: &Path, path: &str) -> DiskResult<PathBuf> {
    let mut to = new.to_path_buf();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        let stands_in_the_way = match disk.entry(&to.join(part))? {
            None => false,
            Some(EntryKind::Directory) => is_last,
            Some(EntryKind::File { .. } | EntryKind::Other) => true,
        };
        if !stands_in_the_way {
            to.push(part);
            continue;
        }
        // A leftover of an earlier time may have that name, too.
        let mut name = format!("{part}.before");
        loop {
            let is_free = match disk.entry(&to.join(&name))? {
                None => true,
                Some(EntryKind::Directory) => !is_last,
                Some(EntryKind::File { .. } | EntryKind::Other) => false,
            };
            if is_free {
                break;
            }
            name.push_str(".before");
        }
        to.push(name);
    }
    Ok(to)
}

/// Files that no package brought and that could be run all the same, by path, in order: programs,
/// libraries, and whatever begins like one. A plugin may have put them there itself, so they are only
/// told.
///
/// # Errors
/// When the folder cannot be read.
pub fn programs_beside(disk: &dyn Disk, directory: &Path) -> Result<Vec<String>, Report> {
    let failed = |error| disk_failed(&error);
    if read_list(disk, directory).map_err(failed)?.is_none() {
        return Ok(Vec::new());
    }
    let mut programs = Vec::new();
    let mut pending = own(disk, directory, directory).map_err(failed)?;
    let mut looked_at = 0_usize;
    while let Some(path) = pending.pop() {
        looked_at += 1;
        if looked_at > LOOKED_AT_MAX {
            break;
        }
        let place = directory.join(&path);
        match disk.entry(&place).map_err(failed)? {
            Some(EntryKind::Directory) => {
                let names = disk.list(&place).map_err(failed)?;
                pending.extend(names.into_iter().map(|name| format!("{path}/{name}")));
            }
            Some(EntryKind::File { .. }) => {
                let head = disk.head(&place, HEAD_BYTES).map_err(failed)?;
                if is_program(&path, &head) {
                    programs.push(path);
                }
            }
            // A link is as good as what it leads to.
            Some(EntryKind::Other) => programs.push(path),
            None => {}
        }
    }
    programs.sort();
    Ok(programs)
}

fn is_program(path: &str, head: &[u8]) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_library = name.ends_with(".so") || name.contains(".so.") || name.ends_with(".dylib");
    is_library || name == DESCRIPTOR_FILE || BEGINNINGS.iter().any(|magic| head.starts_with(magic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_what_is_inside_and_nothing_else() {
        let digest = "ab".repeat(32);
        let line = |path: &str| format!("{digest}{GAP}{path}\n");
        let files = parse(&(line("a") + &line("lib/b c.sh"))).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["a", "lib/b c.sh"]);
        for wrong in ["../x", "/etc/passwd", "a//b", "a/./b", ""] {
            assert_eq!(parse(&line(wrong)), None, "{wrong}");
        }
        assert_eq!(parse("zz  a\n"), None);
    }
}
