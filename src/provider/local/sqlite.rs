//! The `sqlite` engine: a database file in a folder of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::folder::Folders;
use super::storage::{gone, url_path};
use crate::disk::EntryKind;
use crate::provider::{DriverError, DriverResult, ErrorClass, Health};
use crate::resource::{Address, Observed, Output, Outputs, Recorded, Spec};

const FILE: &str = "database.sqlite3";
const BUSY_WAIT: Duration = Duration::from_secs(5);

fn failed(address: &Address, path: &Path, error: &rusqlite::Error) -> DriverError {
    let class = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            ErrorClass::Transient
        }
        Some(rusqlite::ErrorCode::PermissionDenied | rusqlite::ErrorCode::ReadOnly) => {
            ErrorClass::Denied
        }
        Some(rusqlite::ErrorCode::DiskFull) => ErrorClass::Conflict,
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            ErrorClass::Invalid
        }
        _ => ErrorClass::Unknown,
    };
    DriverError::new(
        class,
        format!(
            "`{address}`: the database file `{}` cannot be used: {error}; restore it, or destroy \
             the resource and apply again",
            path.display()
        ),
    )
}

fn open(path: &Path, create: bool) -> rusqlite::Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    Ok(connection)
}

/// Makes the file a real database: an empty one would be zero bytes, which nobody can tell from a
/// file that was cut off.
fn initialise(path: &Path) -> rusqlite::Result<()> {
    let connection = open(path, true)?;
    connection.execute_batch("PRAGMA user_version = 1; PRAGMA user_version = 0; VACUUM;")?;
    connection.close().map_err(|(_, error)| error)
}

/// Databases as files.
#[derive(Debug)]
pub(super) struct Sqlite {
    pub(super) folders: Folders,
}

impl Sqlite {
    pub(super) fn create(&self, desired: &Spec) -> DriverResult<Observed> {
        let address = &desired.address;
        let folder = self.folders.create(address, &desired.kind, |folder| {
            let path = folder.join(FILE);
            self.folders.write(address, &path, b"")?;
            initialise(&path).map_err(|error| failed(address, &path, &error))
        })?;
        Ok(self.observed(&folder.join(FILE), "ready"))
    }

    /// The database file, and whether it stands there as a plain file.
    pub(super) fn locate(&self, prior: &Recorded) -> DriverResult<Option<(PathBuf, bool)>> {
        let Some(found) = self.folders.locate(prior)? else {
            return Ok(None);
        };
        let path = found.path.join(FILE);
        let entry = self
            .folders
            .disk()
            .entry(&path)
            .map_err(|error| super::folder::disk_failed(&prior.address, &error))?;
        Ok(Some((path, matches!(entry, Some(EntryKind::File { .. })))))
    }

    pub(super) fn read(&self, prior: &Recorded) -> DriverResult<Observed> {
        match self.locate(prior)? {
            None => Err(gone(prior)),
            Some((path, false)) => Ok(self.observed(&path, "gone")),
            Some((path, true)) => {
                open(&path, false)
                    .and_then(|connection| {
                        connection
                            .query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0))
                    })
                    .map_err(|error| failed(&prior.address, &path, &error))?;
                Ok(self.observed(&path, "ready"))
            }
        }
    }

    pub(super) fn update(&self, prior: &Recorded, desired: &Spec) -> DriverResult<Observed> {
        match self.locate(prior)? {
            None => self.create(desired),
            Some((path, false)) => {
                self.folders.write(&prior.address, &path, b"")?;
                initialise(&path).map_err(|error| failed(&prior.address, &path, &error))?;
                Ok(self.observed(&path, "ready"))
            }
            Some((_, true)) => self.read(prior),
        }
    }

    pub(super) fn health(&self, prior: &Recorded) -> DriverResult<Health> {
        let (path, there) = self.locate(prior)?.ok_or_else(|| gone(prior))?;
        if !there {
            return Ok(Health {
                healthy: false,
                message: format!("`{}` is gone", path.display()),
            });
        }
        let verdict = open(&path, false)
            .and_then(|connection| {
                connection.query_row("PRAGMA integrity_check(1)", [], |row| {
                    row.get::<_, String>(0)
                })
            })
            .map_err(|error| failed(&prior.address, &path, &error))?;
        Ok(Health {
            healthy: verdict == "ok",
            message: verdict,
        })
    }

    fn observed(&self, path: &Path, status: &str) -> Observed {
        let path = path.to_string_lossy();
        let public = |text: String| Output::Public(text.into());
        Observed {
            provider_id: path.clone().into_owned(),
            outputs: Outputs::from([
                ("engine".to_owned(), public("sqlite".to_owned())),
                (
                    "connection_url".to_owned(),
                    public(format!("sqlite://{}", url_path(&path))),
                ),
                ("path".to_owned(), public(path.into_owned())),
            ]),
            status: status.to_owned(),
            private: self.folders.kept(),
        }
    }
}
