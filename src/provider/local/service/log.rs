//! A service's log file: what the service writes, without the secrets it was given, in two files
//! of bounded size.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskResult, EntryKind};
use crate::provider::local::folder::FILE_MODE;
use crate::secret::Masker;

/// The log of now.
pub(super) const LOG: &str = "service.log";
/// The log before it.
pub(super) const LOG_BEFORE: &str = "service.log.1";
/// Size at which a log becomes the one before.
pub(super) const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// Appends to a log of bounded size.
#[derive(Debug)]
pub(super) struct LogFile {
    folder: PathBuf,
    bytes: u64,
}

impl LogFile {
    /// The log in a service's folder, continued.
    pub(super) fn open(disk: &dyn Disk, folder: &Path) -> Self {
        let bytes = match disk.entry(&folder.join(LOG)) {
            Ok(Some(EntryKind::File { bytes })) => bytes,
            _ => 0,
        };
        Self {
            folder: folder.to_path_buf(),
            bytes,
        }
    }

    /// Appends filtered bytes.
    pub(super) fn append(&mut self, disk: &dyn Disk, bytes: &[u8]) -> DiskResult<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let path = self.folder.join(LOG);
        if self.bytes > 0 && self.bytes + bytes.len() as u64 > LOG_BYTES_MAX {
            disk.rename(&path, &self.folder.join(LOG_BEFORE))?;
            self.bytes = 0;
        }
        disk.append(&path, bytes, FILE_MODE, false)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// The last lines of a log after its last `start` line, made harmless: no control characters, each
/// line behind a bar and cut, all of it short. The supervisor knew the secrets of its own service; the
/// others are hidden here, before a cut could leave half of one.
pub(super) fn tail(masker: &Masker, log: &[u8], start: &str) -> String {
    const LINES: usize = 12;
    const CHARACTERS: usize = 160;
    let text = String::from_utf8_lossy(log);
    let since = text
        .rfind(start)
        .map_or(&*text, |at| &text[at + start.len()..]);
    let since = masker.mask(since);
    let lines: Vec<&str> = since
        .split(['\n', '\r'])
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(LINES)..]
        .iter()
        .map(|line| {
            let line: String = line
                .chars()
                .map(|letter| if letter.is_control() { ' ' } else { letter })
                .take(CHARACTERS)
                .collect();
            format!("\n  | {line}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SystemDisk;

    #[test]
    fn the_log_is_two_bounded_files() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk;
        let mut log = LogFile::open(&disk, folder.path());
        let line = vec![b'x'; 1024 * 1024];
        for _ in 0..25 {
            log.append(&disk, &line).unwrap();
        }
        let size = |name: &str| match disk.entry(&folder.path().join(name)).unwrap() {
            Some(EntryKind::File { bytes }) => bytes,
            _ => 0,
        };
        assert_eq!(size(LOG), 5 * 1024 * 1024);
        assert_eq!(size(LOG_BEFORE), LOG_BYTES_MAX);
        assert_eq!(disk.list(folder.path()).unwrap().len(), 2);
        assert_eq!(LogFile::open(&disk, folder.path()).bytes, size(LOG));
    }

    #[test]
    fn a_tail_is_harmless() {
        let log = b"old\n== start\n::add-mask::x\r##[error]y\n\x1b[31mred\n\n";
        let masker = Masker::default();
        assert_eq!(
            tail(&masker, log, "== start\n"),
            "\n  | ::add-mask::x\n  | ##[error]y\n  |  [31mred"
        );
        let long = b"x\n".repeat(1000);
        assert_eq!(tail(&masker, &long, "none").lines().count(), 13);
        // A secret of another resource, across the end of what is shown of a line.
        let secret = "hunter-2-".repeat(30);
        masker.admit("s", secret.clone());
        let log = format!("{} {secret}\n", "x".repeat(100));
        let shown = format!("\n  | {} ***", "x".repeat(100));
        assert_eq!(tail(&masker, log.as_bytes(), "none"), shown);
    }
}
