//! Archives: one strict reader for gzip-compressed tar, from memory to memory.
//!
//! Two readers that disagree about an archive are how one file passes a check and another is
//! installed. So there is one reader here; it knows one dialect (plain ustar headers, as Go, GNU
//! tar and Python write them for ordinary files) and refuses whatever another reader might read
//! differently: extensions of GNU, links, devices, sparse files, numbers in base 256, bytes after the
//! end, names that differ in case only. Of PAX it takes what changes nothing but times, owners and
//! the length of a path (`pax`). Nothing here touches the disk.

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::bufread::GzDecoder;

use super::pax::Extension;

/// Largest archive, compressed.
pub const ARCHIVE_BYTES_MAX: u64 = 200 << 20;
/// Largest archive, unpacked: headers, padding and all.
pub const UNPACKED_BYTES_MAX: u64 = 200 << 20;
/// Unpacked bytes for each compressed one, at most.
pub const RATIO_MAX: u64 = 100;
/// Below this many unpacked bytes the ratio says nothing: an empty tar is 10 KiB of zeros.
const RATIO_FREE_BYTES: u64 = 1 << 20;
/// Entries in one archive.
pub const ENTRIES_MAX: usize = 4_096;
/// Folders a path may go down.
pub const DEPTH_MAX: usize = 16;

const BLOCK: usize = 512;
/// The type of an entry that extends the next one.
const EXTENSION: u8 = b'x';

/// Why an archive is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// Not gzip, or damaged.
    #[error("it is not one whole gzip stream: {0}")]
    Gzip(String),
    /// Bytes behind the gzip stream.
    #[error("{0} bytes follow the end of the gzip stream")]
    AfterGzip(usize),
    /// More than [`UNPACKED_BYTES_MAX`].
    #[error("it unpacks to more than {} MiB", UNPACKED_BYTES_MAX >> 20)]
    TooLarge,
    /// More than [`RATIO_MAX`].
    #[error("it unpacks to more than {RATIO_MAX} times its size")]
    Ratio,
    /// More than [`ENTRIES_MAX`].
    #[error("it holds more than {ENTRIES_MAX} entries")]
    TooMany,
    /// It ends inside a header, a file or the end mark.
    #[error("it ends too early: {0}")]
    Short(&'static str),
    /// Something is wrong with a header.
    #[error("entry {entry}: {why}")]
    Header {
        /// Which, from 1.
        entry: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// An entry that is neither a regular file nor a directory.
    #[error("entry {entry} is {what}; only regular files and directories are accepted")]
    Kind {
        /// Which, from 1.
        entry: usize,
        /// What it is.
        what: &'static str,
    },
    /// A name that cannot be a path below the folder.
    #[error("entry {entry} has an unacceptable name: {why}")]
    Name {
        /// Which, from 1.
        entry: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// Bytes other than zero where padding belongs.
    #[error("bytes that belong to no entry stand {0}")]
    Smuggled(&'static str),
}

/// One file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// True when its owner may execute it.
    pub is_executable: bool,
}

/// What an archive holds: files by path (`/` between folders). Folders follow from them; empty
/// ones are left out.
pub type Contents = BTreeMap<String, File>;

/// Reads a whole archive.
pub fn unpack(archive: &[u8]) -> Result<Contents, ArchiveError> {
    let tar = inflate(archive)?;
    read_tar(&tar)
}

fn inflate(archive: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let by_ratio = (archive.len() as u64).saturating_mul(RATIO_MAX);
    let limit = UNPACKED_BYTES_MAX.min(by_ratio.max(RATIO_FREE_BYTES));
    let mut decoder = GzDecoder::new(archive);
    // The last bytes of an honest archive say how large it is; a liar only wastes this guess.
    let guess = archive
        .last_chunk::<4>()
        .map_or(0, |size| u64::from(u32::from_le_bytes(*size)));
    let mut tar = Vec::with_capacity(usize::try_from(guess.min(limit)).unwrap_or(0));
    decoder
        .by_ref()
        .take(limit + 1)
        .read_to_end(&mut tar)
        .map_err(|error| ArchiveError::Gzip(error.to_string()))?;
    if tar.len() as u64 > limit {
        return Err(if limit == UNPACKED_BYTES_MAX {
            ArchiveError::TooLarge
        } else {
            ArchiveError::Ratio
        });
    }
    match decoder.into_inner().len() {
        0 => Ok(tar),
        left => Err(ArchiveError::AfterGzip(left)),
    }
}

/// Names seen so far, folded to one case: what stands there, and how it was spelled.
#[derive(Default)]
struct Names(BTreeMap<String, (String, Taken)>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    File,
    /// A directory with an entry of its own.
    Directory,
    /// A directory only because something is in it.
    Parent,
}

impl Names {
    /// Takes `path`, and every folder above it.
    fn take(&mut self, path: &str, taken: Taken) -> Result<(), &'static str> {
        for (at, _) in path.match_indices('/') {
            self.claim(&path[..at], Taken::Parent)?;
        }
        self.claim(path, taken)
    }

    fn claim(&mut self, path: &str, taken: Taken) -> Result<(), &'static str> {
        let folded = path.to_ascii_lowercase();
        let Some((spelled, there)) = self.0.get_mut(&folded) else {
            self.0.insert(folded, (path.to_owned(), taken));
            return Ok(());
        };
        if spelled != path {
            return Err("it differs from another entry in case only");
        }
        match (*there, taken) {
            (Taken::Parent | Taken::Directory, Taken::Parent) => Ok(()),
            (Taken::Parent, Taken::Directory) => {
                *there = Taken::Directory;
                Ok(())
            }
            (Taken::File, Taken::File) | (Taken::Directory, Taken::Directory) => {
                Err("it stands in the archive twice")
            }
            _ => Err("it is a file and a directory at once"),
        }
    }
}

fn read_tar(tar: &[u8]) -> Result<Contents, ArchiveError> {
    let mut contents = Contents::new();
    let mut names = Names::default();
    let mut rest = tar;
    let mut entry = 0;
    let mut extended = None;
    loop {
        let Some((block, after)) = rest.split_at_checked(BLOCK) else {
            return Err(ArchiveError::Short("there is no end mark"));
        };
        rest = after;
        if block.iter().all(|byte| *byte == 0) {
            if extended.is_some() {
                return Err(ArchiveError::Header {
                    entry,
                    why: "it extends an entry that does not follow",
                });
            }
            break;
        }
        entry += 1;
        if entry > ENTRIES_MAX {
            return Err(ArchiveError::TooMany);
        }
        let header = Header::read(block, entry)?;
        let size = usize::try_from(header.size).unwrap_or(usize::MAX);
        let padded = size.div_ceil(BLOCK).saturating_mul(BLOCK);
        let Some((data, after)) = rest.split_at_checked(padded) else {
            return Err(ArchiveError::Short("a file is cut off"));
        };
        rest = after;
        let (bytes, padding) = data.split_at(size);
        if padding.iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::Smuggled("behind a file"));
        }
        if header.is_extension {
            let read = Extension::read(bytes).map_err(|why| ArchiveError::Header { entry, why })?;
            if extended.replace(read).is_some() {
                return Err(ArchiveError::Header {
                    entry,
                    why: "it extends an extension",
                });
            }
            continue;
        }
        let wrong = |why| ArchiveError::Name { entry, why };
        let longer = extended.take().and_then(|extension| extension.path);
        let path = longer.as_deref().unwrap_or(&header.path);
        let path = clean_path(path, header.is_directory).map_err(wrong)?;
        if header.is_directory {
            if !path.is_empty() {
                names.take(&path, Taken::Directory).map_err(wrong)?;
            }
            continue;
        }
        if path.is_empty() {
            return Err(wrong("it is empty"));
        }
        names.take(&path, Taken::File).map_err(wrong)?;
        contents.insert(
            path,
            File {
                bytes: bytes.to_vec(),
                is_executable: header.mode & 0o100 != 0,
            },
        );
    }
    let Some((second, after)) = rest.split_at_checked(BLOCK) else {
        return Err(ArchiveError::Short("the end mark is half there"));
    };
    if second.iter().chain(after).any(|byte| *byte != 0) {
        return Err(ArchiveError::Smuggled("behind the end mark"));
    }
    Ok(contents)
}

struct Header {
    path: String,
    mode: u64,
    size: u64,
    is_directory: bool,
    /// What stands in it is about the next entry.
    is_extension: bool,
}

impl Header {
    fn read(block: &[u8], entry: usize) -> Result<Self, ArchiveError> {
        let wrong = |why| ArchiveError::Header { entry, why };
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    u64::from(b' ')
                } else {
                    u64::from(*byte)
                }
            })
            .sum();
        if octal(&block[148..156]) != Some(sum) {
            return Err(wrong("its checksum does not fit"));
        }
        let is_directory = match block[156] {
            b'0' | 0 | EXTENSION => false,
            b'5' => true,
            other => {
                return Err(ArchiveError::Kind {
                    entry,
                    what: kind_name(other),
                });
            }
        };
        let is_posix = &block[257..265] == b"ustar\x0000";
        let is_gnu = &block[257..265] == b"ustar  \0";
        if !is_posix && !is_gnu {
            return Err(wrong("it is not in ustar form"));
        }
        // Old GNU headers keep times and sparse maps where others keep the start of the name.
        if is_gnu && block[345..].iter().any(|byte| *byte != 0) {
            return Err(wrong("it uses GNU extensions"));
        }
        if block[500..].iter().any(|byte| *byte != 0) {
            return Err(wrong("it holds bytes behind its last field"));
        }
        let text = |range: std::ops::Range<usize>| text(&block[range]);
        if text(157..257) != Some(String::new()) {
            return Err(wrong("it names a link target"));
        }
        for device in [&block[329..337], &block[337..345]] {
            if device.iter().any(|byte| *byte != 0) && octal(device) != Some(0) {
                return Err(wrong("it names a device"));
            }
        }
        let name = text(0..100).ok_or_else(|| wrong("its name has bytes behind its end"))?;
        let prefix = text(345..500).ok_or_else(|| wrong("its name has bytes behind its end"))?;
        // Owner and time are not used; but a header that another reader cannot read is refused.
        for number in [&block[108..116], &block[116..124], &block[136..148]] {
            octal(number).ok_or_else(|| wrong("it holds a number that is not octal"))?;
        }
        let mode = octal(&block[100..108]).ok_or_else(|| wrong("its mode is not octal"))?;
        if mode & 0o7000 != 0 {
            return Err(wrong("it sets set-user-id, set-group-id or the sticky bit"));
        }
        let size = octal(&block[124..136]).ok_or_else(|| wrong("its size is not octal"))?;
        if is_directory && size != 0 {
            return Err(wrong("it is a directory with a size"));
        }
        Ok(Self {
            path: if prefix.is_empty() {
                name
            } else {
                format!("{prefix}/{name}")
            },
            mode,
            size,
            is_directory,
            is_extension: block[156] == EXTENSION,
        })
    }
}

fn kind_name(flag: u8) -> &'static str {
    match flag {
        b'1' => "a hard link",
        b'2' => "a symbolic link",
        b'3' => "a character device",
        b'4' => "a block device",
        b'6' => "a pipe",
        b'g' | b'X' => "a PAX extension of all entries",
        b'L' | b'K' => "a GNU long name",
        b'S' => "a GNU sparse file",
        b'D' | b'M' | b'N' | b'V' => "a GNU extension",
        _ => "of an unknown kind",
    }
}

/// A field that ends at the first zero byte, and holds only zeros behind it.
fn text(field: &[u8]) -> Option<String> {
    let end = memchr::memchr(0, field).unwrap_or(field.len());
    if field[end..].iter().any(|byte| *byte != 0) {
        return None;
    }
    // Only ASCII gets through `clean_path`, so what is not UTF-8 may be mangled here.
    Some(String::from_utf8_lossy(&field[..end]).into_owned())
}

/// Octal digits, then only zeros or spaces; spaces may stand before them (as some old writers do).
fn octal(field: &[u8]) -> Option<u64> {
    let start = field.iter().position(|byte| *byte != b' ')?;
    let field = &field[start..];
    let digits = field
        .iter()
        .position(|byte| !(b'0'..=b'7').contains(byte))
        .unwrap_or(field.len());
    let tail = &field[digits..];
    if digits == 0 || tail.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    field[..digits].iter().try_fold(0_u64, |sum, digit| {
        sum.checked_mul(8)?.checked_add(u64::from(digit - b'0'))
    })
}

/// A relative path of plain names. `./` in front is dropped; the slash behind a directory too.
fn clean_path(path: &str, is_directory: bool) -> Result<String, &'static str> {
    if !path
        .bytes()
        .all(|byte| byte == b' ' || byte.is_ascii_graphic())
    {
        return Err("it holds control characters or letters outside ASCII");
    }
    if path.contains(['\\', ':', '*', '?', '"', '<', '>', '|']) {
        return Err("it holds a character that some systems read as something else");
    }
    if path.starts_with('/') {
        return Err("it is an absolute path");
    }
    let mut path = path;
    while let Some(rest) = path.strip_prefix("./") {
        path = rest;
    }
    if is_directory {
        path = path.strip_suffix('/').unwrap_or(path);
        if path == "." {
            path = "";
        }
        if path.is_empty() {
            return Ok(String::new());
        }
    }
    let mut depth = 0;
    for name in path.split('/') {
        depth += 1;
        match name {
            "" => return Err("it has an empty part"),
            ".." => return Err("it leads outside with `..`"),
            "." => return Err("it has a part `.`"),
            _ => {}
        }
        if name.starts_with(' ') || name.ends_with([' ', '.']) {
            return Err("a part of it ends in a dot, or begins or ends in a space");
        }
        if is_device_name(name) {
            return Err("a part of it is the name of a device on some systems");
        }
    }
    if depth > DEPTH_MAX {
        return Err("it goes down too many folders");
    }
    Ok(path.to_owned())
}

fn is_device_name(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).to_ascii_lowercase();
    matches!(stem.as_str(), "con" | "prn" | "aux" | "nul")
        || ["com", "lpt"].iter().any(|port| {
            stem.strip_prefix(port)
                .is_some_and(|digit| matches!(digit.as_bytes(), [b'1'..=b'9']))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"644 \0\0\0\0", Some(0o644)),
            (b"  644 \0\0", Some(0o644)),
            (b"00000000", Some(0)),
            (b"\0\0\0\0\0\0\0\0", None),
            (b"        ", None),
            (b"0000648\0", None),
            (b"\x80\0\0\0\0\0\0\x01", None),
            (b"12\x003\0\0\0\0", None),
            (b"-000001\0", None),
        ] {
            assert_eq!(octal(field), expected, "{field:?}");
        }
    }

    #[test]
    fn paths() {
        for (path, expected) in [("a/b", Ok("a/b")), ("././a", Ok("a")), ("a b", Ok("a b"))] {
            assert_eq!(clean_path(path, false).as_deref(), expected, "{path}");
        }
        assert_eq!(clean_path("./", true).as_deref(), Ok(""));
        assert_eq!(clean_path("a/", true).as_deref(), Ok("a"));
        for path in [
            "/a", "//a", "..", "a/..", "a/../b", "a//b", "a/", "a/./b", "a\\b", "c:x", "a\nb",
            "a\u{e9}", "a.", "a ", " a", "nul", "COM1.txt", "./../a", "",
        ] {
            let refused = clean_path(path, false);
            assert!(refused.is_err(), "{path:?}");
        }
    }

    #[test]
    fn one_name_in_two_spellings_is_refused() {
        let mut names = Names::default();
        assert_eq!(names.take("a/b", Taken::File), Ok(()));
        assert_eq!(names.take("a", Taken::Directory), Ok(()));
        assert!(names.take("A/c", Taken::File).is_err());
        assert!(names.take("a/b", Taken::File).is_err());
        assert!(names.take("a/b/c", Taken::File).is_err());
        assert!(names.take("a", Taken::File).is_err());
        assert!(names.take("a", Taken::Directory).is_err());
        assert_eq!(names.take("a/d", Taken::File), Ok(()));
    }
}
