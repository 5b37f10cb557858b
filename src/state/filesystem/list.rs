//! Every record of a folder. With many of them this is the slowest thing a plan does, so large
//! folders are read by several threads.

use std::fmt;
use std::thread;

use crate::state::record::corrupt;
use crate::state::{Record, StoreError, StoreResult, name};

use super::files::{stem, told};
use super::{Filesystem, RECORD_BYTES_MAX, RECORDS, storage};

/// Records read before others get a turn: files are read without waiting, and whoever wants to stop
/// us is heard in between.
const READ_AT_ONCE: usize = 16 * 1024;
/// As many are not worth a second thread.
const FEW: usize = 1024;
/// More threads than this only wait for the same directory.
const THREADS_MAX: usize = 8;

impl Filesystem {
    pub(super) async fn list_records(&self) -> StoreResult<Vec<Record>> {
        let files = self.names(RECORDS)?;
        let mut records = Vec::with_capacity(files.len());
        for files in files.chunks(READ_AT_ONCE) {
            self.read_files(files, &mut records)?;
            tokio::task::yield_now().await;
        }
        records.sort_unstable_by(|one: &Record, two| one.resource_id.cmp(&two.resource_id));
        Ok(records)
    }

    /// Every record for itself, by the name that its file's name tells.
    pub(super) fn each_record(&self) -> StoreResult<Vec<(String, StoreResult<Record>)>> {
        let mut records = Vec::new();
        for file in self.names(RECORDS)? {
            let record = match stem(&file) {
                Some(_) => self.listed_anew(&file).transpose(),
                None => Some(Err(self.misnamed(&file))),
            };
            records.extend(record.map(|record| (told(&file), record)));
        }
        Ok(records)
    }

    fn read_files(&self, files: &[String], records: &mut Vec<Record>) -> StoreResult<()> {
        if files.len() <= FEW {
            return self.read_part(files, records);
        }
        let threads = thread::available_parallelism().map_or(1, |count| count.get());
        let part = files.len().div_ceil(threads.min(THREADS_MAX));
        thread::scope(|scope| {
            let readers: Vec<_> = files
                .chunks(part)
                .map(|files| {
                    scope.spawn(|| {
                        let mut records = Vec::with_capacity(files.len());
                        self.read_part(files, &mut records).map(|()| records)
                    })
                })
                .collect();
            for reader in readers {
                let read = reader.join().map_err(|_| {
                    StoreError::Storage("a thread that read records has stopped".to_owned())
                })?;
                records.append(&mut read?);
            }
            Ok(())
        })
    }

    fn read_part(&self, files: &[String], records: &mut Vec<Record>) -> StoreResult<()> {
        let folder = self.directory.join(RECORDS);
        let mut outcome = Ok(());
        self.disk
            .read_each(&folder, files, RECORD_BYTES_MAX, &mut |file, read| {
                let listed = match read {
                    _ if stem(file).is_none() => Err(self.misnamed(file)),
                    Ok(bytes) => self.listed(file, bytes).map(Some),
                    Err(error) if error.is_not_found() => self.listed_anew(file),
                    Err(error) => Err(storage(error)),
                };
                match listed {
                    Ok(record) => records.extend(record),
                    Err(error) => outcome = Err(error),
                }
                outcome.is_ok()
            });
        outcome
    }

    fn misnamed(&self, file: &str) -> StoreError {
        corrupt(
            &RecordFile { store: self, file },
            "it is not named like a record",
        )
    }

    /// A file that is gone since the folder was listed: removed, or written anew in the newer format.
    fn listed_anew(&self, file: &str) -> StoreResult<Option<Record>> {
        let Some(stem) = stem(file) else {
            return Ok(None);
        };
        match self.read_at(&self.place_of(RECORDS, stem), RECORD_BYTES_MAX)? {
            Some((bytes, _)) => self.listed(file, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// The record in a file of that name.
    fn listed(&self, file: &str, bytes: &[u8]) -> StoreResult<Record> {
        let what = RecordFile { store: self, file };
        let Some(stem) = stem(file) else {
            return Err(self.misnamed(file));
        };
        let record = self.check_record(self.codec.decode(bytes, &what)?, &what, None)?;
        let name = record.resource_id.as_str();
        if !name::is_encoding(stem, name) {
            let reason = format!(
                "it is the record of `{name}`, whose file has the name `{}`",
                name::encode(name)
            );
            return Err(corrupt(&what, reason));
        }
        Ok(record)
    }
}

/// What a file is called when something is wrong with it.
struct RecordFile<'a> {
    store: &'a Filesystem,
    file: &'a str,
}

impl fmt::Display for RecordFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.store.directory.join(RECORDS).join(self.file);
        write!(f, "record file `{}`", path.display())
    }
}
