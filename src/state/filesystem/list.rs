//! Every record of a folder. With many of them this is the slowest thing a plan does, so large
//! folders are read by several threads.

use std::thread;

use crate::state::record::corrupt;
use crate::state::{Record, StoreError, StoreResult, name};

use super::files::stem;
use super::{Filesystem, RECORD_BYTES_MAX, RECORDS};

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
        for file in files {
            records.extend(self.read_listed(file)?);
        }
        Ok(())
    }

    /// A record by the name of its file; `None` when it was removed after the folder was listed.
    fn read_listed(&self, file: &str) -> StoreResult<Option<Record>> {
        let listed = self.directory.join(RECORDS).join(file);
        let what = format_args!("record file `{}`", listed.display());
        let Some(stem) = stem(file) else {
            return Err(corrupt(&what, "it is not named like a record"));
        };
        let read = match self.read(&listed, RECORD_BYTES_MAX)? {
            Some(bytes) => Some(bytes),
            // Or written anew, in the newer format.
            None => self.read(&self.place_of(RECORDS, stem).path, RECORD_BYTES_MAX)?,
        };
        let Some(bytes) = read else {
            return Ok(None);
        };
        let record = self.check_record(self.codec.decode(&bytes, &what)?, &what, None)?;
        let expected = name::encode(record.resource_id.as_str());
        if expected != stem {
            let reason = format!(
                "it is the record of `{}`, whose file has the name `{expected}`",
                record.resource_id
            );
            return Err(corrupt(&what, reason));
        }
        Ok(Some(record))
    }
}
