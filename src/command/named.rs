//! Files that a person names on the command line: `-o FILE`, `--report FILE`. What stands there may
//! be an earlier one of ours, a device, or a slip of the fingers.

use std::path::Path;

use super::Desk;
use crate::config;
use crate::disk::{DiskExt as _, EntryKind};
use crate::report::{Exit, Report};

/// Larger files are none of ours.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;

impl Desk {
    /// Refuses to write a JSON document over a file that is something else: the config, a part of a
    /// state, anything that is no JSON document.
    ///
    /// # Errors
    /// Says what stands there.
    pub(super) fn may_replace(&self, path: &Path) -> Result<(), Report> {
        let Some(what) = self.in_the_way(path) else {
            return Ok(());
        };
        Err(Report::error(
            "cli/output-file",
            format!("`{}` is {what}, and is not replaced", path.display()),
        )
        .fix("name another file, or remove this one first")
        .exit(Exit::Usage))
    }

    fn in_the_way(&self, path: &Path) -> Option<&'static str> {
        let place = self.disk.canonical(path).ok()?;
        if let Ok(Some(EntryKind::Directory)) = self.disk.entry(&place) {
            return Some("a folder");
        }
        let Ok(Some(EntryKind::File { bytes })) = self.disk.entry(&place) else {
            return None;
        };
        let exists = |path: &Path| matches!(self.disk.entry(path), Ok(Some(_)));
        let config = config::discover(self.global.config.as_deref(), &exists).ok();
        if config.and_then(|config| self.disk.canonical(&config).ok()) == Some(place.clone()) {
            return Some("the config");
        }
        let folder = place.parent()?;
        if exists(&folder.join("head.json")) {
            return Some("a part of a state");
        }
        if bytes == 0 {
            return None;
        }
        let text = self.disk.read(&place, BYTES_MAX).unwrap_or_default();
        let is_document = text.trim_ascii_start().starts_with(b"{");
        (!is_document).then_some("something else than a document of Tidegate's")
    }

    /// Writes such a file: through links, and to a device as it stands.
    ///
    /// # Errors
    /// What [`Desk::may_replace`] refuses, and what cannot be written, in words.
    pub(super) fn write_named(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
        self.may_replace(path).map_err(|problem| problem.message)?;
        self.disk
            .write_named(path, bytes, mode)
            .map_err(|error| error.to_string())
    }
}
