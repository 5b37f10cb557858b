//! A dotenv file: mode 0600, replaced in one step, with everybody else's lines left as they are.

mod format;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::{IsOurs, Put, Sink, SinkError, SinkTools, Standing, refuse_empty};
use crate::disk::{DiskError, DiskExt as _, EntryKind, SharedDisk};
use crate::report::{Event, Report, Reporter};
use crate::secret::Secret;
use crate::variables::is_variable_name;
use format::{File, Readers};

const MODE: u32 = 0o600;

/// A dotenv file larger than this is somebody's mistake.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// One dotenv file.
pub(super) struct Dotenv {
    /// As the config says it, for messages.
    shown: PathBuf,
    path: PathBuf,
    /// The config's folder.
    home: PathBuf,
    disk: SharedDisk,
    reporter: Arc<dyn Reporter>,
    /// Reading, changing and replacing is one step for everyone in this process.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Dotenv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dotenv({})", self.path.display())
    }
}

impl Dotenv {
    pub(super) fn open(path: &Path, tools: &SinkTools) -> Self {
        Self {
            shown: path.to_path_buf(),
            path: tools.config_directory.join(path),
            home: match tools.config_directory.as_os_str().is_empty() {
                true => PathBuf::from("."),
                false => tools.config_directory.clone(),
            },
            disk: Arc::clone(&tools.disk),
            reporter: Arc::clone(&tools.reporter),
            turn: Mutex::new(()),
        }
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        }
    }

    /// The file as it stands; `None` when there is none. A link is refused: the secret would land
    /// wherever it points, and replacing the link would cut it.
    fn read(&self) -> Result<Option<File>, SinkError> {
        let wrong = |what: &str| {
            Err(SinkError::new(
                format!("`{}` {what}", self.shown.display()),
                "name a plain file in the sink's `path`, or remove what stands there",
            ))
        };
        if self.leaves()? {
            return wrong("leads out of the config's folder, through a link");
        }
        match self.disk.entry(&self.path).map_err(failed)? {
            None => Ok(None),
            Some(EntryKind::File { .. }) => {
                let bytes = self.disk.read(&self.path, BYTES_MAX).map_err(failed)?;
                Ok(Some(File::parse(Zeroizing::new(bytes))))
            }
            Some(EntryKind::Directory) => wrong("is a directory"),
            Some(EntryKind::Other) => {
                wrong("is a link, pipe or device; Tidegate does not write through those")
            }
        }
    }

    /// Whether a relative path ends outside the config's folder after all: a link on the way may point
    /// anywhere.
    fn leaves(&self) -> Result<bool, SinkError> {
        if self.shown.is_absolute() {
            return Ok(false);
        }
        let home = self.disk.canonical(&self.home).map_err(failed)?;
        let place = self.disk.canonical(self.directory()).map_err(failed)?;
        Ok(!place.starts_with(home))
    }

    fn replace(&self, file: &File) -> Result<(), SinkError> {
        self.disk
            .write_atomic(&self.path, &file.bytes(), MODE)
            .map_err(failed)
    }

    /// A run killed while replacing the file left its values in a temporary one. Best effort: what
    /// cannot be swept stops nothing.
    fn sweep(&self) {
        drop(self.disk.sweep_temporaries(&self.path));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(error: DiskError) -> SinkError {
    SinkError::new(
        error.to_string(),
        "check the folder: it must exist, be writable, and have space left",
    )
}

fn legal(name: &str) -> Result<(), SinkError> {
    if is_variable_name(name) {
        return Ok(());
    }
    Err(SinkError::new(
        format!(
            "`{}` cannot be the name of a variable in a dotenv file",
            name.escape_debug()
        ),
        "use letters, digits and `_`, not starting with a digit",
    ))
}

#[async_trait]
impl Sink for Dotenv {
    fn destination(&self) -> String {
        format!("dotenv {}", self.shown.display())
    }

    fn remembers(&self) -> bool {
        true
    }

    async fn check(&self, names: &[&str]) -> Result<(), SinkError> {
        for name in names {
            legal(name)?;
        }
        if self.path.file_name().is_none() {
            return Err(SinkError::new(
                format!("`{}` names no file", self.shown.display()),
                "give the sink's `path` a file name, such as `.env`",
            ));
        }
        let _turn = self.lock();
        self.read()?;
        self.sweep();
        // Replacing takes the right to make a file beside it; find out with an empty one. Its name
        // is always the same, so that one left by a killed run goes with the next check.
        let mut probe = self.path.clone().into_os_string();
        probe.push(".tidegate-check");
        let probe = PathBuf::from(probe);
        self.disk.remove_file(&probe).map_err(failed)?;
        self.disk.create_new(&probe, b"", MODE).map_err(failed)?;
        self.disk.remove_file(&probe).map_err(failed)
    }

    fn clean_up(&self) {
        let _turn = self.lock();
        self.sweep();
    }

    async fn standing(&self, name: &str, is_ours: IsOurs<'_>) -> Result<Standing, SinkError> {
        let _turn = self.lock();
        let values = self.read()?.unwrap_or_default().values(name);
        // The last one is the one that readers obey.
        Ok(match values.last() {
            None => Standing::Nothing,
            Some(Some(value)) if is_ours(value) => Standing::Ours,
            Some(_) => Standing::Foreign,
        })
    }

    async fn put(&self, name: &str, value: &Secret) -> Result<Put, SinkError> {
        legal(name)?;
        refuse_empty(name, value)?;
        if value.expose().contains('\0') {
            return Err(SinkError::new(
                format!("secret `{name}` cannot stand in a dotenv file: it holds a zero byte"),
                "encode it (base64) before it becomes a secret",
            ));
        }
        let (line, readers) = format::entry(name, value.expose());
        if readers == Readers::ShellOnly {
            self.reporter.say(Event::Problem(Box::new(
                Report::warning(
                    "sink/dotenv-shell-only",
                    format!(
                        "`{name}` in `{}` holds characters that dotenv libraries read in different \
                         ways; it is quoted for a shell",
                        self.shown.display()
                    ),
                )
                .fix("read the file with `set -a; . FILE`, or use a value without such characters"),
            )));
        }
        let _turn = self.lock();
        let mut file = self.read()?.unwrap_or_default();
        if !file.set(name, &line) {
            return Ok(Put::Unchanged);
        }
        self.replace(&file)?;
        Ok(Put::Written)
    }

    async fn remove(&self, name: &str) -> Result<(), SinkError> {
        legal(name)?;
        let _turn = self.lock();
        self.sweep();
        let Some(mut file) = self.read()? else {
            return Ok(());
        };
        if !file.remove(name) {
            return Ok(());
        }
        if file.is_blank() {
            self.disk.remove_file(&self.path).map_err(failed)?;
            return self.disk.sync_directory(self.directory()).map_err(failed);
        }
        self.replace(&file)
    }
}
