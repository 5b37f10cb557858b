//! Every write, as one transaction: lock the environment's row, prove the lease, change, count.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Transaction};

use super::{Failure, Postgres};
use crate::resource::Address;
use crate::state::journal::open_intents;
use crate::state::own::{KeepsakeFile, Key, key_check};
use crate::state::{Expected, Head, Holder, Lease, Record, Snapshot, StoreError, name};

/// Ends what would hold the row's lock for ever: a statement that hangs, and a client that was
/// stopped in mid-transaction.
const LIMITS: &str = "SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '15s'; \
                      SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// A parameter and its type. Statements are never prepared under a name: with a pooler, the next
/// transaction may meet another server process.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// What is to be changed under a lease.
pub(super) enum Change<'a> {
    Put {
        record: &'a Record,
        expected: Option<&'a Expected>,
    },
    Delete(&'a Address),
    Append {
        /// Tells a repetition from a new group.
        batch: String,
        lines: String,
    },
    Clear,
    PutKeepsake {
        key: &'a str,
        content: Vec<u8>,
    },
    DeleteKeepsake(&'a str),
    Renew,
    Unlock,
    Remove,
    Load {
        snapshot: &'a Snapshot,
        key: Option<&'a [u8; 32]>,
    },
}

/// The environment's row, locked.
pub(super) struct Standing {
    pub(super) lineage: String,
    pub(super) serial: u64,
    pub(super) fence: u64,
    pub(super) holder: Option<Holder>,
    pub(super) lease_ms: u64,
    /// Time since the last renewal, by the server's clock.
    pub(super) age_ms: u64,
    pub(super) key_check: String,
    pub(super) key: Option<Key>,
}

impl Standing {
    pub(super) fn head(&self) -> Head {
        Head {
            lineage: self.lineage.clone(),
            serial: self.serial,
            fence: self.fence,
        }
    }

    pub(super) fn read(row: &Row, environment: &str) -> Result<Self, StoreError> {
        let corrupt = |what: &str, reason: String| StoreError::Corrupt {
            what: format!("{what} of environment `{environment}`"),
            reason,
        };
        let number = |index: usize| u64::try_from(row.get::<_, i64>(index)).unwrap_or(0);
        let holder = match row.get::<_, Option<String>>(3) {
            None => None,
            Some(text) => Some(
                serde_json::from_str(&text)
                    .map_err(|error| corrupt("the lock", error.to_string()))?,
            ),
        };
        let key = match row.get::<_, Option<Vec<u8>>>(7) {
            None => None,
            Some(bytes) => Some(Key::new(bytes.try_into().map_err(|_| {
                corrupt("the state key", "it is not 32 bytes long".to_owned())
            })?)),
        };
        Ok(Self {
            lineage: row.get(0),
            serial: number(1),
            fence: number(2),
            holder,
            lease_ms: number(4),
            age_ms: number(5),
            key_check: row.get(6),
            key,
        })
    }
}

pub(super) fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Postgres {
    pub(super) fn failed(&self, error: &tokio_postgres::Error) -> Failure {
        self.server.failed(error)
    }

    /// The columns of [`Standing`].
    pub(super) fn standing_query(&self, end: &str) -> String {
        format!(
            "SELECT lineage, serial, fence, holder, lease_ms, \
             (extract(epoch FROM clock_timestamp() - renewed_at) * 1000)::bigint, \
             key_check, state_key FROM {}.environments \
             WHERE project = $1 AND environment = $2{end}",
            self.schema
        )
    }

    pub(super) fn place(&self) -> [Parameter<'_>; 2] {
        [(&self.project, Type::TEXT), (&self.environment, Type::TEXT)]
    }

    /// Begins a transaction that cannot last for ever.
    pub(super) async fn begin<'c>(
        &self,
        client: &'c mut Client,
    ) -> Result<Transaction<'c>, Failure> {
        let transaction = client
            .transaction()
            .await
            .map_err(|error| self.failed(&error))?;
        transaction
            .batch_execute(LIMITS)
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(transaction)
    }

    /// Locks the environment's row until the transaction ends.
    pub(super) async fn stand(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<Option<Standing>, Failure> {
        self.standing_in(transaction, " FOR UPDATE").await
    }

    /// Reads the environment's row, and locks nothing.
    pub(super) async fn look(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<Option<Standing>, Failure> {
        self.standing_in(transaction, "").await
    }

    async fn standing_in(
        &self,
        transaction: &Transaction<'_>,
        end: &str,
    ) -> Result<Option<Standing>, Failure> {
        let row = transaction
            .query_typed_opt(&self.standing_query(end), &self.place())
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(match row {
            Some(row) => Some(Standing::read(&row, &self.environment)?),
            None => None,
        })
    }

    /// Runs one statement; `$1` and `$2` are project and environment.
    pub(super) async fn run(
        &self,
        transaction: &Transaction<'_>,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<u64, Failure> {
        let mut all: Vec<Parameter<'_>> = self.place().into();
        all.extend(
            parameters
                .iter()
                .map(|(value, kind)| (*value, kind.clone())),
        );
        transaction
            .execute_typed(&statement.replace('@', &self.schema), &all)
            .await
            .map_err(|error| self.failed(&error))
    }

    /// One try at a change. `tried` remembers the bytes of an earlier try whose answer was lost.
    pub(super) async fn attempt(
        &self,
        client: &mut Client,
        lease: &Lease,
        change: &Change<'_>,
        tried: &mut Option<Vec<u8>>,
    ) -> Result<u64, Failure> {
        let transaction = self.begin(client).await?;
        let lost = |current| StoreError::LostLock {
            environment: self.environment.clone(),
            ours: lease.fence,
            current,
        };
        let standing = self.stand(&transaction).await?.ok_or_else(|| lost(0))?;
        let is_ours = standing.fence == lease.fence
            && standing
                .holder
                .as_ref()
                .is_some_and(|holder| holder.run_id == lease.holder.run_id);
        if !is_ours {
            return Err(lost(standing.fence).into());
        }
        let serial = self
            .perform(&transaction, lease, &standing, change, tried)
            .await?;
        transaction
            .commit()
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(serial)
    }

    async fn perform(
        &self,
        transaction: &Transaction<'_>,
        lease: &Lease,
        standing: &Standing,
        change: &Change<'_>,
        tried: &mut Option<Vec<u8>>,
    ) -> Result<u64, Failure> {
        match change {
            Change::Put { record, expected } => {
                return self
                    .put_in(transaction, standing, record, *expected, tried)
                    .await;
            }
            Change::Delete(address) => return self.delete_in(transaction, standing, address).await,
            Change::Append { batch, lines } => {
                self.run(
                    transaction,
                    "INSERT INTO @.journal (project, environment, batch, lines) \
                     VALUES ($1, $2, $3, $4) ON CONFLICT (batch) DO NOTHING",
                    &[(batch, Type::TEXT), (&lines.as_bytes(), Type::BYTEA)],
                )
                .await?;
            }
            Change::Clear => {
                self.run(transaction, CLEAR_JOURNAL, &[]).await?;
            }
            Change::PutKeepsake { key, content } => {
                self.put_keepsake_in(transaction, key, content).await?;
            }
            Change::DeleteKeepsake(key) => {
                self.run(
                    transaction,
                    "DELETE FROM @.keepsakes \
                     WHERE project = $1 AND environment = $2 AND name = $3",
                    &[(&name::encode(key), Type::TEXT)],
                )
                .await?;
            }
            Change::Renew => {
                self.run(
                    transaction,
                    "UPDATE @.environments SET renewed_at = clock_timestamp() \
                     WHERE project = $1 AND environment = $2",
                    &[],
                )
                .await?;
            }
            Change::Unlock => {
                self.run(transaction, FREE_LOCK, &[]).await?;
            }
            Change::Remove => self.remove_in(transaction).await?,
            Change::Load { snapshot, key } => {
                self.load_in(transaction, lease, snapshot).await?;
                if let Some(key) = key {
                    self.write_key(transaction, key).await?;
                }
            }
        }
        Ok(standing.serial)
    }

    async fn existing(
        &self,
        transaction: &Transaction<'_>,
        address: &Address,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let mut parameters: Vec<Parameter<'_>> = self.place().into();
        let encoded = name::encode(address.as_str());
        parameters.push((&encoded, Type::TEXT));
        let row = transaction
            .query_typed_opt(
                &format!(
                    "SELECT content FROM {}.records \
                     WHERE project = $1 AND environment = $2 AND name = $3",
                    self.schema
                ),
                &parameters,
            )
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(row.map(|row| row.get(0)))
    }

    async fn put_in(
        &self,
        transaction: &Transaction<'_>,
        standing: &Standing,
        record: &Record,
        expected: Option<&Expected>,
        tried: &mut Option<Vec<u8>>,
    ) -> Result<u64, Failure> {
        let address = &record.resource_id;
        let bytes = self.existing(transaction, address).await?;
        if bytes.is_some() && bytes == *tried {
            // Our own earlier try, whose answer did not arrive.
            return Ok(standing.serial);
        }
        let existing = match &bytes {
            Some(bytes) => Some(self.read_record(bytes, address)?),
            None => None,
        };
        if let Some(expected) = expected {
            expected.check(address, existing.as_ref(), Some(&standing.head()))?;
        }
        let next = record.succeed(
            existing.as_ref(),
            &self.environment,
            &self.now(),
            standing.serial + 1,
        );
        let content = self.codec.encode(&next)?;
        *tried = Some(content.clone());
        let encoded = name::encode(address.as_str());
        if let Some(bytes) = &bytes {
            self.keep_previous(transaction, &encoded, bytes).await?;
        }
        self.write_record(transaction, &encoded, &content).await?;
        self.count(transaction, standing).await
    }

    async fn delete_in(
        &self,
        transaction: &Transaction<'_>,
        standing: &Standing,
        address: &Address,
    ) -> Result<u64, Failure> {
        let Some(bytes) = self.existing(transaction, address).await? else {
            return Ok(standing.serial);
        };
        let encoded = name::encode(address.as_str());
        self.keep_previous(transaction, &encoded, &bytes).await?;
        self.run(
            transaction,
            "DELETE FROM @.records WHERE project = $1 AND environment = $2 AND name = $3",
            &[(&encoded, Type::TEXT)],
        )
        .await?;
        self.count(transaction, standing).await
    }

    async fn write_record(
        &self,
        transaction: &Transaction<'_>,
        encoded: &String,
        content: &Vec<u8>,
    ) -> Result<(), Failure> {
        self.run(
            transaction,
            "INSERT INTO @.records (project, environment, name, content) \
             VALUES ($1, $2, $3, $4) \
             ON CONFLICT (project, environment, name) DO UPDATE SET content = excluded.content",
            &[(encoded, Type::TEXT), (content, Type::BYTEA)],
        )
        .await
        .map(drop)
    }

    async fn keep_previous(
        &self,
        transaction: &Transaction<'_>,
        encoded: &String,
        content: &Vec<u8>,
    ) -> Result<(), Failure> {
        self.run(
            transaction,
            "INSERT INTO @.previous (project, environment, name, content) \
             VALUES ($1, $2, $3, $4) \
             ON CONFLICT (project, environment, name) DO UPDATE SET content = excluded.content",
            &[(encoded, Type::TEXT), (content, Type::BYTEA)],
        )
        .await
        .map(drop)
    }

    async fn put_keepsake_in(
        &self,
        transaction: &Transaction<'_>,
        key: &str,
        content: &Vec<u8>,
    ) -> Result<(), Failure> {
        self.run(
            transaction,
            "INSERT INTO @.keepsakes (project, environment, name, key, content) \
             VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (project, environment, name) DO UPDATE SET content = excluded.content",
            &[
                (&name::encode(key), Type::TEXT),
                (&key.as_bytes(), Type::BYTEA),
                (content, Type::BYTEA),
            ],
        )
        .await
        .map(drop)
    }

    /// One more accepted change.
    async fn count(
        &self,
        transaction: &Transaction<'_>,
        standing: &Standing,
    ) -> Result<u64, Failure> {
        let serial = standing.serial + 1;
        self.run(
            transaction,
            "UPDATE @.environments SET serial = $3 WHERE project = $1 AND environment = $2",
            &[(&whole(serial), Type::INT8)],
        )
        .await?;
        Ok(serial)
    }

    async fn remove_in(&self, transaction: &Transaction<'_>) -> Result<(), Failure> {
        let records: i64 = transaction
            .query_typed_one(
                &format!(
                    "SELECT count(*) FROM {}.records WHERE project = $1 AND environment = $2",
                    self.schema
                ),
                &self.place(),
            )
            .await
            .map_err(|error| self.failed(&error))?
            .get(0);
        let rows = transaction
            .query_typed(&self.journal_query(), &self.place())
            .await
            .map_err(|error| self.failed(&error))?;
        let intents = open_intents(&self.read_lines(&rows)?).len();
        if records > 0 || intents > 0 {
            return Err(Failure::Store(StoreError::Storage(format!(
                "cannot remove the state of environment `{}`: {records} records remain, and \
                 {intents} intents have no known outcome",
                self.environment
            ))));
        }
        for table in ["journal", "keepsakes", "previous", "environments"] {
            self.run(
                transaction,
                &format!("DELETE FROM @.{table} WHERE project = $1 AND environment = $2"),
                &[],
            )
            .await?;
        }
        Ok(())
    }

    async fn load_in(
        &self,
        transaction: &Transaction<'_>,
        lease: &Lease,
        snapshot: &Snapshot,
    ) -> Result<(), Failure> {
        self.run(
            transaction,
            "INSERT INTO @.previous SELECT project, environment, name, content FROM @.records \
             WHERE project = $1 AND environment = $2 \
             ON CONFLICT (project, environment, name) DO UPDATE SET content = excluded.content",
            &[],
        )
        .await?;
        for table in ["records", "keepsakes", "journal"] {
            self.run(
                transaction,
                &format!("DELETE FROM @.{table} WHERE project = $1 AND environment = $2"),
                &[],
            )
            .await?;
        }
        for record in &snapshot.records {
            let encoded = name::encode(record.resource_id.as_str());
            let content = self.codec.encode(record)?;
            self.write_record(transaction, &encoded, &content).await?;
        }
        for (key, keepsake) in &snapshot.keepsakes {
            let content = KeepsakeFile::new(key, keepsake).encode()?;
            self.put_keepsake_in(transaction, key, &content).await?;
        }
        if !snapshot.journal.is_empty() {
            let lines = super::lines(lease.fence, &snapshot.journal)?;
            let batch = self.batch();
            self.run(
                transaction,
                "INSERT INTO @.journal (project, environment, batch, lines) \
                 VALUES ($1, $2, $3, $4)",
                &[(&batch, Type::TEXT), (&lines.as_bytes(), Type::BYTEA)],
            )
            .await?;
        }
        self.run(
            transaction,
            "UPDATE @.environments SET lineage = $3, serial = $4 \
             WHERE project = $1 AND environment = $2",
            &[
                (&snapshot.lineage, Type::TEXT),
                (&whole(snapshot.serial), Type::INT8),
            ],
        )
        .await
        .map(drop)
    }

    /// Notes which key this state is sealed with, and keeps it unless it was given from outside.
    pub(super) async fn write_key(
        &self,
        transaction: &Transaction<'_>,
        key: &[u8; 32],
    ) -> Result<(), Failure> {
        let kept: Option<&[u8]> = match self.key {
            Some(_) => None,
            None => Some(key),
        };
        self.run(
            transaction,
            "UPDATE @.environments SET key_check = $3, state_key = $4 \
             WHERE project = $1 AND environment = $2",
            &[(&key_check(key), Type::TEXT), (&kept, Type::BYTEA)],
        )
        .await
        .map(drop)
    }

    /// How many values would be lost with the key.
    pub(super) async fn sealed_in(&self, transaction: &Transaction<'_>) -> Result<usize, Failure> {
        let query = async |table: &str, column: &str| {
            transaction
                .query_typed(
                    &format!(
                        "SELECT {column}, content FROM {}.{table} \
                         WHERE project = $1 AND environment = $2",
                        self.schema
                    ),
                    &self.place(),
                )
                .await
                .map_err(|error| self.failed(&error))
        };
        let mut count = 0;
        for row in query("records", "name").await? {
            let record = self.read_row(&row)?;
            count +=
                record.tidegate.sealed.len() + usize::from(!record.tidegate.private.is_empty());
        }
        for row in query("keepsakes", "key").await? {
            let key = String::from_utf8_lossy(row.get(0)).into_owned();
            count += usize::from(KeepsakeFile::decode(row.get(1), &key)?.sealed.is_some());
        }
        Ok(count)
    }
}

pub(super) const FREE_LOCK: &str =
    "UPDATE @.environments SET holder = NULL, lease_ms = 0 WHERE project = $1 AND environment = $2";
const CLEAR_JOURNAL: &str = "DELETE FROM @.journal WHERE project = $1 AND environment = $2";
