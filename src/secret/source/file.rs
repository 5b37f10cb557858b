//! A folder as a store: one private file per key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::{SecretStore, unsupported};
use crate::clock::Clock;
use crate::disk::{DiskError, DiskExt as _, EntryKind, FileLock, SharedDisk, folder_turn};
use crate::report::{Exit, Report};
use crate::secret::{Masker, Secret};

/// The largest secret read from a file, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The longest file name Linux and macOS take, in bytes.
const FILE_NAME_MAX: usize = 255;

/// A directory (mode 0700) with one file per key (mode 0600).
#[derive(Debug)]
pub(super) struct FileStore {
    pub(super) name: String,
    pub(super) shown: String,
    pub(super) directory: PathBuf,
    pub(super) disk: SharedDisk,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) masker: Masker,
}

impl FileStore {
    fn path(&self, key: &str) -> Result<PathBuf, Report> {
        let file = file_name(key);
        if file.is_empty() || file.len() > FILE_NAME_MAX {
            return Err(Report::error(
                "secret/store-key",
                format!(
                    "{} cannot hold the key `{}`: it is {}",
                    self.place(),
                    key.escape_debug()
                        .to_string()
                        .chars()
                        .take(100)
                        .collect::<String>(),
                    if file.is_empty() {
                        "empty"
                    } else {
                        "too long for a file name"
                    }
                ),
            )
            .exit(Exit::Usage)
            .fix("choose another key"));
        }
        Ok(self.directory.join(file))
    }

    /// Two runs may write to one store, and sweep up after a third.
    async fn turn(&self, key: &str) -> Result<Option<Box<dyn FileLock>>, Report> {
        folder_turn(&*self.disk, &*self.clock, &self.directory)
            .await
            .map_err(|error| self.failed(key, &error))
    }

    /// A run killed while writing left the value in a temporary file, which only who holds the folder can
    /// tell from one at work. Best effort: a leftover is as private as the value itself.
    fn sweep(&self, path: &Path, turn: Option<&dyn FileLock>) {
        if turn.is_some() {
            drop(self.disk.sweep_temporaries(path));
        }
    }

    fn failed(&self, key: &str, error: &DiskError) -> Report {
        Report::error(
            "secret/store-file",
            format!("{} failed for `{}`", self.place(), key.escape_debug()),
        )
        .caused_by(error)
        .fix("check the folder's owner, its permissions and the space left")
    }
}

/// The file name of a key: letters, digits, `_`, `-` and inner dots stand for themselves, every
/// other byte is `%XX`. Different keys have different names, none of them is `.`, `..`, hidden,
/// or a path.
fn file_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for (index, byte) in key.bytes().enumerate() {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'_' | b'-')
            || (byte == b'.' && index > 0)
        {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    name
}

/// One line end at the end of the file belongs to the editor that made it, not to the value.
fn without_line_end(text: &str) -> &str {
    match text.strip_suffix('\n') {
        Some(text) => text.strip_suffix('\r').unwrap_or(text),
        None => text,
    }
}

/// The bytes that [`without_line_end`] turns back into `value`.
fn with_line_end(value: &str) -> Zeroizing<String> {
    let end = if value.ends_with('\n') { "\n" } else { "" };
    Zeroizing::new(format!("{value}{end}"))
}

#[async_trait]
impl SecretStore for FileStore {
    fn place(&self) -> String {
        format!("store `{}` (file {})", self.name, self.shown)
    }

    fn place_of(&self, key: &str) -> Option<String> {
        let path = self.path(key).ok()?;
        Some(format!("the file `{}`", path.display()))
    }

    async fn get(&self, key: &str) -> Result<Option<Secret>, Report> {
        let path = self.path(key)?;
        let bytes = match self.disk.read(&path, FILE_BYTES_MAX) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(self.failed(key, &error)),
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| {
            Report::error(
                "secret/store-file",
                format!("{}: the value of `{key}` is not UTF-8 text", self.place()),
            )
            .fix("store it base64-encoded")
        })?;
        Ok(Some(
            self.masker.admit(key, without_line_end(text).to_owned()),
        ))
    }

    async fn exists(&self, key: &str) -> Result<bool, Report> {
        // Not whether a file could be read: an unreadable value must not be generated anew.
        self.disk
            .entry(&self.path(key)?)
            .map(|entry| entry.is_some())
            .map_err(|error| self.failed(key, &error))
    }

    async fn set(&self, key: &str, value: &Secret) -> Result<(), Report> {
        let path = self.path(key)?;
        if self
            .disk
            .entry(&path)
            .is_ok_and(|entry| entry == Some(EntryKind::Directory))
        {
            return Err(unsupported(
                &self.place(),
                &format!(
                    "has a directory where the value of `{}` belongs",
                    key.escape_debug()
                ),
            )
            .fix("remove it"));
        }
        self.disk
            .create_directories(&self.directory, 0o700)
            .map_err(|error| self.failed(key, &error))?;
        let turn = self.turn(key).await?;
        self.disk
            .write_atomic(&path, with_line_end(value.expose()).as_bytes(), 0o600)
            .map_err(|error| self.failed(key, &error))?;
        self.sweep(&path, turn.as_deref());
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<(), Report> {
        let path = self.path(key)?;
        let turn = self.turn(key).await?;
        self.sweep(&path, turn.as_deref());
        self.disk
            .remove_file(&path)
            .and_then(|()| self.disk.remove_if_empty(&self.directory))
            .map_err(|error| self.failed(key, &error))
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests look at the folder from outside"
)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;
    use crate::disk::SystemDisk;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn file_store(directory: &Path) -> FileStore {
        FileStore {
            name: "kept".to_owned(),
            shown: "secrets".to_owned(),
            directory: directory.join("secrets"),
            disk: Arc::new(SystemDisk),
            clock: Arc::new(crate::clock::SystemClock::new()),
            masker: Masker::default(),
        }
    }

    #[test]
    fn the_file_store_keeps_values_private_and_exact() {
        let directory = tempfile::tempdir().unwrap();
        let store = file_store(directory.path());
        run(async {
            assert!(store.get("a").await.unwrap().is_none());
            for value in [
                "x",
                "x\n",
                "x\n\n",
                "x\r\n",
                "x\r",
                "\n",
                "two\nlines",
                "  x  ",
            ] {
                store
                    .set("a", &Masker::default().admit("a", value.to_owned()))
                    .await
                    .unwrap();
                let back = store.get("a").await.unwrap().unwrap();
                assert_eq!(back.expose(), value);
            }
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            let folder = directory.path().join("secrets");
            assert_eq!((mode(&folder), mode(&folder.join("a"))), (0o700, 0o600));
            std::fs::write(folder.join(".a.1.2.tmp"), "left by a killed run").unwrap();
            store.remove("a").await.unwrap();
            store.remove("a").await.unwrap();
            assert!(!folder.exists(), "the last key takes its folder along");
        });
    }

    #[test]
    fn files_made_by_hand_are_read_without_their_line_end() {
        let directory = tempfile::tempdir().unwrap();
        let store = file_store(directory.path());
        std::fs::create_dir(directory.path().join("secrets")).unwrap();
        for (content, expected) in [("x\n", "x"), ("x\r\n", "x"), ("x\n\n", "x\n"), ("x", "x")] {
            std::fs::write(directory.path().join("secrets/k"), content).unwrap();
            let value = run(store.get("k")).unwrap().unwrap();
            assert_eq!(value.expose(), expected, "{content:?}");
        }
    }

    #[test]
    fn no_key_leaves_the_folder() {
        let directory = tempfile::tempdir().unwrap();
        let store = file_store(directory.path());
        let value = Masker::default().admit("a", "x".to_owned());
        for key in [
            "../../etc/passwd",
            "..",
            ".",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "\0",
            ".hidden",
        ] {
            run(store.set(key, &value)).unwrap();
            assert!(run(store.exists(key)).unwrap());
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(
            std::fs::read_dir(directory.path().join("secrets"))
                .unwrap()
                .count(),
            8
        );
        for key in [String::new(), "k".repeat(256)] {
            assert_eq!(
                run(store.set(&key, &value)).unwrap_err().code,
                "secret/store-key"
            );
        }
    }

    #[test]
    fn an_unreadable_value_is_an_error_and_not_absent() {
        let directory = tempfile::tempdir().unwrap();
        let store = file_store(directory.path());
        std::fs::create_dir_all(directory.path().join("secrets/k")).unwrap();
        std::fs::write(directory.path().join("secrets/b"), [0xff, 0xfe]).unwrap();
        for key in ["k", "b"] {
            assert!(run(store.get(key)).is_err(), "{key}");
            assert!(run(store.exists(key)).unwrap(), "{key}");
        }
    }

    proptest! {
        #[test]
        fn file_names_are_injective_and_safe(keys in prop::collection::btree_set("\\PC{1,6}|[.%/a2F]{1,6}", 2..30)) {
            let names: BTreeSet<String> = keys.iter().map(|key| file_name(key)).collect();
            prop_assert_eq!(names.len(), keys.len());
            for name in names {
                prop_assert!(!name.starts_with('.') && !name.contains(['/', '\0']) && name.is_ascii());
            }
        }

        #[test]
        fn values_survive_the_line_end_rule(value in "[a\\n\\r]{0,5}") {
            let stored = with_line_end(&value);
            prop_assert_eq!(without_line_end(&stored), value.as_str());
        }
    }
}
