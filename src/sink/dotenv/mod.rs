//! A dotenv file: mode 0600, replaced in one step, with everybody else's lines left as they are.

mod format;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::{IsOurs, Put, Sink, SinkError, SinkTools, Standing, refuse_empty};
use crate::clock::Clock;
use crate::disk::{DiskError, DiskExt as _, EntryKind, FileLock, SharedDisk, folder_turn};
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
    clock: Arc<dyn Clock>,
    reporter: Arc<dyn Reporter>,
    /// Where folders have no locks, reading, changing and replacing is one step for this process at least.
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
            clock: Arc::clone(&tools.clock),
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

    /// Reading, changing and replacing the file is one step for every run on this machine: other
    /// environments, and other configs, may write to the same file now.
    async fn folder_turn(&self) -> Result<Option<Box<dyn FileLock>>, SinkError> {
        folder_turn(&*self.disk, &*self.clock, self.directory())
            .await
            .map_err(|error| {
                SinkError::new(error.to_string(), "let it finish, then run this again")
            })
    }

    /// A run killed while replacing the file left its values in a temporary one. Only who holds the
    /// folder can tell such a one from that of a run which is at work. Best effort: what cannot be
    /// swept stops nothing.
    fn sweep(&self, turn: Option<&dyn FileLock>) {
        if turn.is_some() {
            drop(self.disk.sweep_temporaries(&self.path));
        }
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
        let folder = self.folder_turn().await?;
        let _turn = self.lock();
        self.read()?;
        self.sweep(folder.as_deref());
        // Replacing takes the right to make a file beside it.
        self.disk.try_beside(&self.path, MODE).map_err(failed)
    }

    fn clean_up(&self) {
        // Whoever is at work there sweeps, or the next run does.
        let folder = self.disk.try_lock_folder(self.directory()).ok().flatten();
        let _turn = self.lock();
        self.sweep(folder.as_deref());
    }

    async fn standing(&self, name: &str, is_ours: IsOurs<'_>) -> Result<Standing, SinkError> {
        // The file is only ever replaced as a whole, so that reading it takes no turn.
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
        let _folder = self.folder_turn().await?;
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
        let folder = self.folder_turn().await?;
        let _turn = self.lock();
        self.sweep(folder.as_deref());
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
