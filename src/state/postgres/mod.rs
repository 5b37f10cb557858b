//! State in a PostgreSQL database: rows keyed by project and environment. `schema.sql` holds the
//! tables.
//!
//! Promises: every change is one transaction that locks the environment's row, proves the lease
//! (fence and run) and only then writes; a take-over moves the fence in the same row. Whether a
//! lease has lapsed is told by the server's clock alone. Nothing belongs to a session, so a pooler
//! that gives every transaction another one changes nothing. A change whose answer was lost is
//! tried again, and recognises itself.

mod change;
mod connection;
mod schema;
mod store;
pub mod upstream;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::clock::{Clock, rfc3339};
use crate::postgres::Session;
use crate::random::{Random, hex_of};
use crate::resource::Address;

use super::codec::Codec;
use super::journal::{self, Entry};
use super::lease::{Neighbours, Process, Renewal, Verdict, Watched};
use super::own::{Key, key_check};
use super::{Each, Holder, Lease, Record, Store, StoreError, StoreResult, name};
use change::{Change, FREE_LOCK, Parameter, Standing, whole};
use connection::Failure;
pub use connection::Server;
pub use schema::VERSION as SCHEMA_VERSION;
use schema::{Schema, is_plain_name};

/// Schema of the tables when nothing else is said.
pub const DEFAULT_SCHEMA: &str = "tidegate";

const LOCK_POLL: Duration = Duration::from_millis(100);
/// How often one change is tried when the connection breaks under it.
const ATTEMPTS: u32 = 4;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(200);
/// How long one answer is waited for: longer than any statement may take.
const ANSWER_WAIT: Duration = Duration::from_secs(75);
/// The same for a whole state, record by record.
const LOAD_WAIT: Duration = Duration::from_secs(15 * 60);
/// Longest project or environment name in bytes; an index entry has to hold both.
const NAME_BYTES_MAX: usize = 512;

/// The state of one environment, in a database.
pub struct Postgres {
    server: Server,
    schema: String,
    project: String,
    environment: String,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    renewal: Renewal,
    neighbours: Neighbours,
    key: Option<Key>,
    codec: Codec,
    session: Mutex<Option<Session>>,
    /// The tables stand and have this version's form.
    is_ready: AtomicBool,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("server", &self.server)
            .field("project", &self.project)
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}

impl Postgres {
    /// The state of `environment` of `project`. Nothing is sent before the first call, and nothing
    /// is made in the database before the first [`Store::lock`].
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for names that cannot be kept.
    pub fn open(
        server: Server,
        schema: &str,
        project: &str,
        environment: &str,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> StoreResult<Self> {
        if !is_plain_name(schema) {
            return Err(StoreError::Invalid(
                "the schema of the state store must be a plain name: lower-case letters, digits \
                 and `_`, not starting with `pg_`"
                    .to_owned(),
            ));
        }
        for (what, text) in [("project", project), ("environment", environment)] {
            if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains('\0') {
                return Err(StoreError::Invalid(format!(
                    "the state store needs {what} names of 1 to {NAME_BYTES_MAX} bytes, without \
                     NUL"
                )));
            }
        }
        Ok(Self {
            server,
            schema: schema.to_owned(),
            project: project.to_owned(),
            environment: environment.to_owned(),
            codec: Codec::plain(environment, Arc::clone(&random)),
            clock,
            random,
            renewal: Renewal::DEFAULT,
            neighbours: Neighbours::default(),
            key: None,
            session: Mutex::new(None),
            is_ready: AtomicBool::new(false),
        })
    }

    fn now(&self) -> String {
        rfc3339(self.clock.now())
    }

    fn batch(&self) -> String {
        hex_of::<16>(&*self.random)
    }

    /// The one connection of this handle, made when it is needed and made anew when it broke.
    async fn session(&self) -> Result<MutexGuard<'_, Option<Session>>, Failure> {
        let mut session = self.session.lock().await;
        if session
            .as_ref()
            .is_none_or(|session| session.client.is_closed())
        {
            *session = Some(self.server.connect().await?);
        }
        Ok(session)
    }

    /// Do the tables stand? They are made if `create`.
    async fn ready(&self, client: &mut Client, create: bool) -> Result<bool, Failure> {
        if self.is_ready.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let failed = |error: &tokio_postgres::Error| self.failed(error);
        let schema = Schema {
            name: &self.schema,
            failed: &failed,
        };
        let mut version = schema.version(client).await?;
        if version < SCHEMA_VERSION && create {
            schema.migrate(client).await?;
            version = SCHEMA_VERSION;
        }
        if version > 0 && version < SCHEMA_VERSION {
            return Err(Failure::Store(StoreError::Storage(format!(
                "the database schema `{}` has version {version}, this program needs \
                 {SCHEMA_VERSION}; any command that writes brings it there",
                self.schema
            ))));
        }
        let stands = version == SCHEMA_VERSION;
        if stands {
            schema.refuse_policies(client).await?;
        }
        self.is_ready.store(stands, Ordering::Relaxed);
        Ok(stands)
    }

    /// Tries again what broke with its connection; the last answer counts.
    async fn pause(&self, attempt: u32, why: String) -> StoreResult<()> {
        *self.session.lock().await = None;
        if attempt + 1 >= ATTEMPTS {
            return Err(StoreError::Storage(why));
        }
        self.clock.sleep(ATTEMPT_PAUSE * (attempt + 1)).await;
        Ok(())
    }

    async fn change(&self, lease: &Lease, change: Change<'_>) -> StoreResult<u64> {
        let mut tried = None;
        let mut attempt = 0;
        loop {
            let result = match self.session().await {
                Ok(mut session) => match session.as_mut() {
                    Some(session) => {
                        let patience = match change {
                            Change::Load { .. } => LOAD_WAIT,
                            _ => ANSWER_WAIT,
                        };
                        let attempt = self.attempt(&mut session.client, lease, &change, &mut tried);
                        self.server.within(patience, attempt).await
                    }
                    None => Err(Failure::Lost("there is no connection".to_owned())),
                },
                Err(failure) => Err(failure),
            };
            match result {
                Ok(serial) => return Ok(serial),
                // The whole environment went, or we gave the lock back, in a try whose answer was
                // lost.
                Err(Failure::Store(StoreError::LostLock { .. }))
                    if attempt > 0 && matches!(change, Change::Remove | Change::Unlock) =>
                {
                    return Ok(0);
                }
                Err(Failure::Store(error)) => return Err(error),
                Err(Failure::Lost(why)) => self.pause(attempt, why).await?,
            }
            attempt += 1;
        }
    }

    /// Rows of one read; none when the tables do not stand.
    async fn rows(&self, statement: &str, more: &[Parameter<'_>]) -> StoreResult<Vec<Row>> {
        let mut parameters: Vec<Parameter<'_>> = self.place().into();
        parameters.extend(more.iter().map(|(value, kind)| (*value, kind.clone())));
        self.rows_of(statement, &parameters).await
    }

    async fn rows_of(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> StoreResult<Vec<Row>> {
        let mut attempt = 0;
        loop {
            let rows = self.try_rows(statement, parameters);
            match self.server.within(ANSWER_WAIT, rows).await {
                Ok(rows) => return Ok(rows),
                Err(Failure::Store(error)) => return Err(error),
                Err(Failure::Lost(why)) => self.pause(attempt, why).await?,
            }
            attempt += 1;
        }
    }

    async fn try_rows(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Failure> {
        let mut session = self.session().await?;
        let Some(session) = session.as_mut() else {
            return Err(Failure::Lost("there is no connection".to_owned()));
        };
        if !self.ready(&mut session.client, false).await? {
            return Ok(Vec::new());
        }
        session
            .client
            .query_typed(statement, parameters)
            .await
            .map_err(|error| self.failed(&error))
    }

    async fn standing(&self) -> StoreResult<Option<Standing>> {
        let rows = self.rows(&self.standing_query(""), &[]).await?;
        rows.first()
            .map(|row| Standing::read(row, &self.environment))
            .transpose()
    }

    /// A record must be where it says it belongs.
    fn read_record(&self, bytes: &[u8], address: &Address) -> StoreResult<Record> {
        let what = format!("record `{address}` (in {})", self.location());
        let record = self.codec.decode(bytes, &what)?;
        self.check_record(record, what, |found| found == address)
    }

    /// Every record and keepsake, each for itself.
    async fn each_row(&self) -> StoreResult<Each> {
        let mut each = Each::default();
        for row in self.rows(&self.records_query(), &[]).await? {
            let encoded: &str = row.get(0);
            let told = name::decode(encoded).unwrap_or_else(|| encoded.to_owned());
            each.records.push((told, self.read_row(&row)));
        }
        for key in self.keepsakes().await? {
            if let Some(keepsake) = self.keepsake(&key).await.transpose() {
                each.keepsakes.push((key, keepsake));
            }
        }
        Ok(each)
    }

    fn records_query(&self) -> String {
        format!(
            "SELECT name, content FROM {}.records WHERE project = $1 AND environment = $2",
            self.schema
        )
    }

    /// A row of `name, content`.
    fn read_row(&self, row: &Row) -> StoreResult<Record> {
        let encoded: &str = row.get(0);
        let shown = name::decode(encoded).unwrap_or_else(|| encoded.to_owned());
        let what = format!("record `{shown}` (in {})", self.location());
        let record = self.codec.decode(row.get(1), &what)?;
        self.check_record(record, what, |found| {
            name::encode(found.as_str()) == encoded
        })
    }

    fn check_record(
        &self,
        record: Record,
        what: String,
        is_expected: impl Fn(&Address) -> bool,
    ) -> StoreResult<Record> {
        let environment = &record.tidegate.environment;
        let reason = if !is_expected(&record.resource_id) {
            format!("it is the record of `{}`", record.resource_id)
        } else if !environment.is_empty() && *environment != self.environment {
            format!("it belongs to environment `{environment}`")
        } else {
            return Ok(record);
        };
        Err(StoreError::Corrupt { what, reason })
    }

    fn journal_query(&self) -> String {
        format!(
            "SELECT lines FROM {}.journal WHERE project = $1 AND environment = $2 \
             ORDER BY position",
            self.schema
        )
    }

    fn read_lines(&self, rows: &[Row]) -> StoreResult<Vec<Entry>> {
        let bytes: Vec<u8> = rows
            .iter()
            .flat_map(|row| row.get::<_, Vec<u8>>(0))
            .collect();
        let corrupt = |reason: String| StoreError::Corrupt {
            what: format!("the journal (in {})", self.location()),
            reason,
        };
        let journal = journal::parse(&bytes).map_err(corrupt)?;
        if journal.torn_bytes > 0 {
            // A transaction leaves nothing torn.
            return Err(corrupt("its last line is cut off".to_owned()));
        }
        Ok(journal.entries)
    }

    /// May the lock be taken? By the server's clock alone, or because its holder is certain to have
    /// ended on this machine.
    fn verdict(&self, standing: &Standing) -> Verdict {
        let holder = standing.holder.as_ref();
        Watched {
            unchanged_for: Duration::from_millis(standing.age_ms),
            lease: Duration::from_millis(standing.lease_ms),
            process: holder.map_or(Process::Elsewhere, |holder| self.neighbours.judge(holder)),
        }
        .verdict()
    }

    /// One look at the lock, and the lock itself when it is free.
    async fn try_lock(
        &self,
        holder: &Holder,
        text: &String,
        was_tried: bool,
    ) -> Result<Result<Lease, (Holder, Duration)>, Failure> {
        let mut session = self.session().await?;
        let Some(session) = session.as_mut() else {
            return Err(Failure::Lost("there is no connection".to_owned()));
        };
        self.ready(&mut session.client, true).await?;
        // A look that locks nothing: who waits must not stand in line with the holder's own writes.
        let row = session
            .client
            .query_typed_opt(&self.standing_query(""), &self.place())
            .await
            .map_err(|error| self.failed(&error))?;
        if let Some(row) = row {
            let standing = Standing::read(&row, &self.environment)?;
            if let (Verdict::Wait(left), Some(other)) = (self.verdict(&standing), standing.holder)
                && other != *holder
            {
                return Ok(Err((other, left)));
            }
        }
        let transaction = self.begin(&mut session.client).await?;
        let standing = match self.stand(&transaction).await? {
            Some(standing) => standing,
            None => {
                let lineage = hex_of::<16>(&*self.random);
                self.run(
                    &transaction,
                    "INSERT INTO @.environments (project, environment, lineage) \
                     VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                    &[(&lineage, Type::TEXT)],
                )
                .await?;
                self.stand(&transaction)
                    .await?
                    .ok_or_else(|| Failure::Lost("the environment was removed".to_owned()))?
            }
        };
        let verdict = self.verdict(&standing);
        let taken_over = match (standing.holder, verdict) {
            (Some(other), _) if was_tried && other == *holder => {
                // Our own earlier try, whose answer did not arrive.
                return Ok(Ok(Lease {
                    fence: standing.fence,
                    holder: other,
                    taken_over: None,
                }));
            }
            (Some(other), Verdict::Wait(left)) => return Ok(Err((other, left))),
            (other, _) => other.map(Box::new),
        };
        let fence = standing.fence + 1;
        let lease_ms = u64::try_from(self.renewal.lease.as_millis()).unwrap_or(u64::MAX);
        self.run(
            &transaction,
            "UPDATE @.environments SET fence = $3, holder = $4, lease_ms = $5, \
             renewed_at = clock_timestamp() WHERE project = $1 AND environment = $2",
            &[
                (&whole(fence), Type::INT8),
                (text, Type::TEXT),
                (&whole(lease_ms), Type::INT8),
            ],
        )
        .await?;
        transaction
            .commit()
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(Ok(Lease {
            fence,
            holder: holder.clone(),
            taken_over,
        }))
    }

    async fn try_key(&self, create: bool) -> Result<Option<Key>, Failure> {
        let mut session = self.session().await?;
        let Some(session) = session.as_mut() else {
            return Err(Failure::Lost("there is no connection".to_owned()));
        };
        if !self.ready(&mut session.client, create).await? {
            return Ok(self.key.clone());
        }
        let transaction = self.begin(&mut session.client).await?;
        // Who only reads locks nothing, and may be somebody who must not write.
        let mut standing = if create {
            self.stand(&transaction).await?
        } else {
            self.look(&transaction).await?
        };
        if standing.is_none() && create {
            let lineage = hex_of::<16>(&*self.random);
            self.run(
                &transaction,
                "INSERT INTO @.environments (project, environment, lineage) \
                 VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                &[(&lineage, Type::TEXT)],
            )
            .await?;
            standing = self.stand(&transaction).await?;
        }
        let Some(standing) = standing else {
            return Ok(self.key.clone());
        };
        let known = self.key.as_ref().or(standing.key.as_ref()).cloned();
        let fits = known.as_ref().is_some_and(|key| {
            standing.key_check.is_empty() || standing.key_check == key_check(key)
        });
        if !fits && self.sealed_in(&transaction).await? > 0 {
            return Err(Failure::Store(StoreError::Corrupt {
                what: format!("the state key (of {})", self.location()),
                reason: match known {
                    Some(_) => "it is not the key that this state was sealed with".to_owned(),
                    None => "it is not in the database, but stored values are sealed with it; \
                             set TIDEGATE_STATE_KEY"
                        .to_owned(),
                },
            }));
        }
        if !create {
            return Ok(known);
        }
        let key = known.unwrap_or_else(|| {
            let mut key = Key::default();
            self.random.fill(&mut *key);
            key
        });
        if standing.key_check != key_check(&key) || standing.key.is_some() == self.key.is_some() {
            self.write_key(&transaction, &key).await?;
        }
        transaction
            .commit()
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(Some(key))
    }

    async fn try_free(&self, run_id: &str) -> Result<Option<Holder>, Failure> {
        let mut session = self.session().await?;
        let Some(session) = session.as_mut() else {
            return Err(Failure::Lost("there is no connection".to_owned()));
        };
        if !self.ready(&mut session.client, false).await? {
            return Ok(None);
        }
        let transaction = self.begin(&mut session.client).await?;
        let Some(standing) = self.stand(&transaction).await? else {
            return Ok(None);
        };
        let Some(holder) = standing.holder else {
            return Ok(None);
        };
        if holder.run_id != run_id {
            return Err(Failure::Store(StoreError::Locked {
                environment: self.environment.clone(),
                holder: Box::new(holder),
                expires_in: Duration::from_millis(
                    standing.lease_ms.saturating_sub(standing.age_ms),
                ),
            }));
        }
        self.run(&transaction, FREE_LOCK, &[]).await?;
        transaction
            .commit()
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(Some(holder))
    }
}

/// Journal lines, each with its checksum.
fn lines(fence: u64, entries: &[Entry]) -> StoreResult<String> {
    let mut text = String::new();
    for entry in entries {
        journal::write_line(&mut text, fence, entry)
            .map_err(|error| StoreError::Storage(format!("cannot write the journal: {error}")))?;
    }
    Ok(text)
}

super::terms::adjustable!(Postgres, neighbours);
