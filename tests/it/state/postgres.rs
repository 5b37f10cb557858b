//! The state in a real PostgreSQL server: the contract, what only a server can do to us, and what
//! it gets to see.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::clock::{Clock, ManualClock, SystemClock};
use tidegate::disk::SystemDisk;
use tidegate::random::SystemRandom;
use tidegate::secret::Masker;
use tidegate::state::postgres::Server;
use tidegate::state::{Postgres, Record, Renewal, Store, StoreError, name};

use super::contract::{Bench, store_contract};
use super::{NO_WAIT, address, holder, manual_clock, mark, record, run};
use crate::local::cluster::{ADMINISTRATOR_PASSWORD, Cluster, Peer};

/// One server for all tests that run at the same time; it ends with the last of them.
fn shared_cluster() -> Option<Arc<Cluster>> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = shared.upgrade() {
        return Some(cluster);
    }
    let cluster = Arc::new(Cluster::start()?);
    *shared = Arc::downgrade(&cluster);
    Some(cluster)
}

fn unique_schema() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("state_{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The server in key-value form, as the administrator.
pub(super) fn server_at(host: &str, port: u16) -> Server {
    let masker = Masker::default();
    let password = ADMINISTRATOR_PASSWORD.replace('\'', "\\'");
    let text = format!(
        "host={host} port={port} user=admin password='{password}' dbname=postgres sslmode=disable"
    );
    let text = masker.admit("test", text);
    Server::from_connection_string(&text, None, std::path::Path::new("/"), &SystemDisk, &masker)
        .expect("a connection string")
}

fn store(server: Server, schema: &str, environment: &str, clock: Arc<dyn Clock>) -> Postgres {
    Postgres::open(
        server,
        schema,
        "shop",
        environment,
        clock,
        Arc::new(SystemRandom),
    )
    .expect("the store opens")
}

pub(super) fn system_store(server: Server, schema: &str) -> Postgres {
    store(server, schema, "dev", Arc::new(SystemClock::new()))
}

/// A schema of its own on the shared server.
struct Database {
    cluster: Arc<Cluster>,
    schema: String,
    clock: ManualClock,
}

/// Its time passes for the server too: all leases grow older by as much.
#[derive(Debug)]
struct ServerClock {
    manual: ManualClock,
    port: u16,
    schema: String,
    admin: tokio::sync::Mutex<Option<Peer>>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peer")
    }
}

#[async_trait]
impl Clock for ServerClock {
    fn now(&self) -> time::OffsetDateTime {
        self.manual.now()
    }

    fn monotonic(&self) -> Duration {
        self.manual.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        self.manual.sleep(duration).await;
        let mut admin = self.admin.lock().await;
        if admin.is_none() {
            *admin = Some(Cluster::admin_at(self.port).await);
        }
        let shift = format!(
            "UPDATE {}.environments SET renewed_at = renewed_at - interval '{} milliseconds'",
            self.schema,
            duration.as_millis()
        );
        // Before the tables stand there is nothing that could grow older.
        drop(admin.as_ref().unwrap().client.batch_execute(&shift).await);
    }
}

impl Database {
    fn new() -> Option<Self> {
        Some(Self {
            cluster: shared_cluster()?,
            schema: unique_schema(),
            clock: manual_clock(),
        })
    }

    fn server_clock(&self) -> ServerClock {
        ServerClock {
            manual: self.clock.clone(),
            port: self.cluster.port,
            schema: self.schema.clone(),
            admin: tokio::sync::Mutex::new(None),
        }
    }

    fn server(&self) -> Server {
        server_at("127.0.0.1", self.cluster.port)
    }

    /// One statement by hand; answers the first column of the first row.
    fn by_hand(&self, statement: &str) -> Option<String> {
        let (port, statement) = (self.cluster.port, statement.replace('@', &self.schema));
        // Called from within a runtime, which must not be entered twice.
        std::thread::spawn(move || {
            run(async {
                let admin = Cluster::admin_at(port).await;
                let rows = admin.client.query(&statement, &[]).await.unwrap();
                rows.first().and_then(|row| row.get(0))
            })
        })
        .join()
        .unwrap()
    }
}

impl Bench for Database {
    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    fn open(&self, environment: &str) -> Arc<dyn Store> {
        let clock = Arc::new(self.server_clock());
        Arc::new(store(self.server(), &self.schema, environment, clock))
    }

    fn open_elsewhere(&self, environment: &str) -> Arc<dyn Store> {
        self.open(environment)
    }

    fn damage(&self, environment: &str, record: &str) {
        self.by_hand(&format!(
            "UPDATE @.records SET content = substring(content for length(content) / 2) \
             WHERE environment = '{environment}' AND name = '{}' RETURNING name",
            name::encode(record)
        ))
        .expect("a row");
    }

    fn replace(&self, environment: &str, record: &Record) {
        use sha2::Digest as _;
        let text = serde_json::to_string_pretty(record).unwrap();
        let body = text.strip_suffix("\n}").unwrap();
        let sum = tidegate::random::encode_hex(&sha2::Sha256::digest(body.as_bytes()));
        let text = format!("{body},\n  \"tidegate_checksum\": \"{sum}\"\n}}\n");
        self.by_hand(&format!(
            "UPDATE @.records SET content = decode('{}', 'hex') \
             WHERE environment = '{environment}' AND name = '{}' RETURNING name",
            tidegate::random::encode_hex(text.as_bytes()),
            name::encode(record.resource_id.as_str())
        ))
        .expect("a row");
    }

    fn is_gone(&self) -> bool {
        let stands = self.by_hand("SELECT to_regclass('@.environments')::text");
        stands.is_none()
            || self
                .by_hand("SELECT environment FROM @.environments")
                .is_none()
    }

    fn questions(&self) -> u64 {
        let log = std::fs::read_to_string(&self.cluster.log).unwrap();
        let ours = log.lines().filter(|line| line.contains(&self.schema));
        ours.count() as u64
    }

    async fn pass(&self, time: Duration) {
        self.server_clock().sleep(time).await;
    }
}

store_contract!(Database::new());

#[test]
fn projects_of_one_database_share_nothing() {
    let Some(bench) = Database::new() else { return };
    run(async {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let open = |project: &str| {
            Postgres::open(
                bench.server(),
                &bench.schema,
                project,
                "dev",
                Arc::clone(&clock),
                Arc::new(SystemRandom),
            )
            .unwrap()
        };
        let (shop, blog) = (open("shop"), open("blog"));
        let lease = shop.lock(&holder("r1"), NO_WAIT).await.unwrap();
        let other = blog.lock(&holder("r2"), NO_WAIT).await.unwrap();
        shop.put(&lease, &record("a", "shop")).await.unwrap();
        assert_eq!(blog.list().await.unwrap(), []);
        blog.put(&other, &record("a", "blog")).await.unwrap();
        shop.wipe(lease).await.unwrap();
        assert_eq!(
            mark(&blog.get(&address("a")).await.unwrap().unwrap()),
            "blog"
        );
        assert_eq!(shop.environments().await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn many_handles_make_the_tables_once() {
    let Some(bench) = Database::new() else { return };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let bench = &bench;
            scope.spawn(move || {
                let store = system_store(bench.server(), &bench.schema);
                let me = holder(&format!("r{thread}"));
                let lease = run(store.lock(&me, Duration::from_secs(60)));
                // A handle lives in the runtime that made its connection.
                drop(lease.unwrap());
                let store = system_store(bench.server(), &bench.schema);
                run(store.force_unlock(&me.run_id)).unwrap();
            });
        }
    });
    let version = bench.by_hand("SELECT version::text FROM @.schema_version");
    let known = tidegate::state::postgres::SCHEMA_VERSION.to_string();
    assert_eq!(version, Some(known));
}

#[test]
fn tables_of_a_newer_version_are_left_alone() {
    let Some(bench) = Database::new() else { return };
    run(async {
        let store = system_store(bench.server(), &bench.schema);
        store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        bench.by_hand("UPDATE @.schema_version SET version = 99 RETURNING version::text");
        let store = system_store(bench.server(), &bench.schema);
        for error in [
            store.list().await.map(drop).unwrap_err(),
            store
                .lock(&holder("r2"), NO_WAIT)
                .await
                .map(drop)
                .unwrap_err(),
        ] {
            assert!(
                matches!(error, StoreError::Newer { found: 99, .. }),
                "{error:?}"
            );
        }
    });
}

/// Every statement of ours is cut off in turn, by ending the server process that runs it; what was
/// acknowledged stays, and what was not is done by the next try, once.
#[test]
fn a_connection_ended_at_any_statement_loses_and_doubles_nothing() {
    let Some(bench) = Database::new() else { return };
    run(async {
        let store = Arc::new(system_store(bench.server(), &bench.schema));
        let admin = Cluster::admin_at(bench.cluster.port).await;
        let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE pid <> pg_backend_pid() AND application_name = 'tidegate' \
             AND query LIKE '%{}.%'",
            bench.schema
        );
        let mut expected = store.head().await.unwrap().unwrap().serial;
        for round in 0..60_u32 {
            let next = record("a", &round.to_string());
            let write = store.put(&lease, &next);
            let kill = async {
                for _ in 0..round * 3 {
                    tokio::task::yield_now().await;
                }
                admin.client.batch_execute(&end).await.unwrap();
            };
            let (serial, ()) = futures_util::future::join(write, kill).await;
            expected += 1;
            assert_eq!(serial.unwrap(), expected, "round {round}");
            let now = store.get(&address("a")).await.unwrap().unwrap();
            assert_eq!(mark(&now), round.to_string());
            assert_eq!(now.tidegate.version, u64::from(round) + 1);
        }
        store.unlock(&lease).await.unwrap();
    });
}

/// A row that a policy hides is there all the same, and must not count as absent.
#[test]
fn rows_that_a_policy_hides_are_not_absent() {
    let Some(bench) = Database::new() else { return };
    run(async {
        let owner = system_store(bench.server(), &bench.schema);
        let lease = owner.lock(&holder("r1"), NO_WAIT).await.unwrap();
        owner.put(&lease, &record("a", "x")).await.unwrap();
        let admin = Cluster::admin_at(bench.cluster.port).await;
        let (role, schema) = (format!("reader_of_{}", bench.schema), &bench.schema);
        let grant = format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'p4ssw0rd-of-a-reader'; \
             GRANT USAGE ON SCHEMA {schema} TO {role}; \
             GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}"
        );
        admin.client.batch_execute(&grant).await.unwrap();
        let reader = || {
            let masker = Masker::default();
            let port = bench.cluster.port;
            let text = format!(
                "host=127.0.0.1 port={port} user={role} password=p4ssw0rd-of-a-reader \
                 dbname=postgres sslmode=disable"
            );
            let text = masker.admit("test", text);
            let here = std::path::Path::new("/");
            let server =
                Server::from_connection_string(&text, None, here, &SystemDisk, &masker).unwrap();
            system_store(server, schema)
        };
        assert_eq!(reader().list().await.unwrap().len(), 1);
        let hide = format!("ALTER TABLE {schema}.records ENABLE ROW LEVEL SECURITY");
        admin.client.batch_execute(&hide).await.unwrap();
        for answer in [
            reader().list().await.map(drop),
            reader().head().await.map(drop),
            reader().lock(&holder("r2"), NO_WAIT).await.map(drop),
        ] {
            let Err(StoreError::Invalid(why)) = answer else {
                panic!("{answer:?}");
            };
            assert!(why.contains("row level security"), "{why}");
        }
        // Whom it does not bind sees everything.
        assert_eq!(owner.list().await.unwrap().len(), 1);
    });
}

#[test]
fn what_the_server_logs_holds_no_key_and_no_password() {
    let Some(bench) = Database::new() else { return };
    run(async {
        let store = system_store(bench.server(), &bench.schema).with_key([0xab; 32]);
        let lease = store.lock(&holder("r1"), NO_WAIT).await.unwrap();
        store.key(true).await.unwrap();
        store.put(&lease, &record("a", "x")).await.unwrap();
        let log = std::fs::read_to_string(&bench.cluster.log).unwrap();
        for secret in [ADMINISTRATOR_PASSWORD, &"ab".repeat(32)] {
            assert!(!log.contains(secret));
        }
        // Nothing is prepared under a name: with a pooler it would meet somebody else's.
        let named = log
            .lines()
            .filter(|line| line.contains(&bench.schema) && line.contains("execute"))
            .find(|line| !line.contains("execute <unnamed>"));
        assert_eq!(named, None);
        let kept = bench.by_hand("SELECT state_key::text FROM @.environments");
        assert_eq!(kept, None, "a key that is given is not kept");
    });
}

#[test]
fn encrypted_records_are_unreadable_in_the_database() {
    let Some(bench) = Database::new() else { return };
    run(async {
        let open = || system_store(bench.server(), &bench.schema);
        let sealed = open().with_encryption(&[7; 32]);
        let lease = sealed.lock(&holder("r1"), NO_WAIT).await.unwrap();
        let mut first = record("a", "canary");
        first.tidegate.version = 0;
        sealed.put(&lease, &first).await.unwrap();
        let bytes = bench
            .by_hand("SELECT encode(content, 'escape') FROM @.records")
            .unwrap();
        assert!(!bytes.contains("canary"), "{bytes}");
        assert_eq!(
            mark(&sealed.get(&address("a")).await.unwrap().unwrap()),
            "canary"
        );
        let error = open().get(&address("a")).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    });
}

#[test]
fn a_server_that_is_not_there_is_said_without_the_connection_string() {
    run(async {
        let masker = Masker::default();
        let text = masker.admit(
            "test",
            "postgres://ann:hunter2canary@127.0.0.1:1/x?connect_timeout=2".to_owned(),
        );
        let server = Server::from_connection_string(
            &text,
            None,
            std::path::Path::new("/"),
            &SystemDisk,
            &masker,
        )
        .unwrap();
        let store = store(server, "tidegate", "dev", Arc::new(manual_clock()));
        let error = store.list().await.unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:1"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    });
}

/// How long a lease lasts is the server's to judge, in real time too.
#[test]
fn a_lease_lapses_by_the_servers_clock() {
    let Some(bench) = Database::new() else { return };
    run(async {
        let short = Renewal {
            interval: Duration::from_millis(100),
            lease: Duration::from_millis(300),
        };
        let one = system_store(bench.server(), &bench.schema).with_renewal(short);
        // Its own clock is a day ahead, and stands still.
        let ahead = manual_clock();
        ahead.set_wall(ahead.now() + time::Duration::DAY);
        let two = store(bench.server(), &bench.schema, "dev", Arc::new(ahead));
        let stale = one.lock(&holder("r1"), NO_WAIT).await.unwrap();
        assert!(two.lock(&holder("r2"), NO_WAIT).await.is_err());
        SystemClock::new()
            .sleep(short.lease + tidegate::state::lease::MARGIN)
            .await;
        let lease = two.lock(&holder("r2"), NO_WAIT).await.unwrap();
        assert_eq!(lease.taken_over.as_deref(), Some(&holder("r1")));
        let late = one.put(&stale, &record("a", "late")).await;
        assert!(matches!(late, Err(StoreError::LostLock { .. })), "{late:?}");
    });
}

/// Who may only read, reads: nobody is locked, and nothing but SELECT is needed.
#[test]
fn a_role_that_may_only_read_reads() {
    let Some(bench) = Database::new() else { return };
    run(async {
        let writer = bench.open("dev");
        let lease = writer.lock(&holder("r1"), NO_WAIT).await.unwrap();
        writer.key(true).await.unwrap();
        let mut sealed = record("a", "one");
        sealed.tidegate.private = "AAAA".to_owned();
        writer.put(&lease, &sealed).await.unwrap();
        let role = format!("reader_of_{}", bench.schema);
        for statement in [
            format!("CREATE ROLE {role} LOGIN PASSWORD 'reads-only'"),
            format!("GRANT USAGE ON SCHEMA @ TO {role}"),
            format!("GRANT SELECT ON ALL TABLES IN SCHEMA @ TO {role}"),
        ] {
            bench.by_hand(&statement);
        }
        let masker = Masker::default();
        let text = format!(
            "host=127.0.0.1 port={} user={role} password=reads-only dbname=postgres sslmode=disable",
            bench.cluster.port
        );
        let text = masker.admit("test", text);
        let root = std::path::Path::new("/");
        let server =
            Server::from_connection_string(&text, None, root, &SystemDisk, &masker).unwrap();
        let clock = Arc::new(bench.server_clock());
        let reader = store(server, &bench.schema, "dev", clock);
        let snapshot = reader.snapshot().await.unwrap().unwrap();
        assert_eq!(snapshot.records.len(), 1);
        assert!(!snapshot.key_check.is_empty());
        assert!(reader.key(false).await.unwrap().is_some());
        assert!(reader.put(&lease, &sealed).await.is_err());
    });
}
