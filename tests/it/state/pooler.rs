//! Through PgBouncer in transaction mode: every transaction may meet another server process.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidegate::state::Store;

use super::{NO_WAIT, address, holder, mark, postgres, record, run};
use crate::harness;
use crate::local::cluster::{ADMINISTRATOR_PASSWORD, Cluster};

struct Pooler {
    child: Child,
    port: u16,
    // Held for its drop.
    _folder: tempfile::TempDir,
}

impl Pooler {
    fn start(cluster: &Cluster) -> Option<Self> {
        let Some(program) = harness::lab_tool("usr/sbin/pgbouncer") else {
            harness::skip_without("pgbouncer");
            return None;
        };
        let folder = tempfile::Builder::new()
            .prefix("pgb")
            .tempdir_in("/tmp")
            .unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let users = folder.path().join("users");
        std::fs::write(&users, format!("\"admin\" \"{ADMINISTRATOR_PASSWORD}\"\n")).unwrap();
        let settings = folder.path().join("pgbouncer.ini");
        std::fs::write(
            &settings,
            format!(
                "[databases]\npostgres = host=127.0.0.1 port={}\n[pgbouncer]\n\
                 listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
                 default_pool_size = 3\nserver_round_robin = 1\nmax_client_conn = 100\n",
                cluster.port,
                users.display()
            ),
        )
        .unwrap();
        for path in [&users, &settings] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(&program);
            command
        } else {
            Command::new(&program)
        };
        // Debian's packages, unpacked beside each other, bring its libraries.
        let libraries = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(".lab/usr/lib")
            .join(format!("{}-linux-gnu", std::env::consts::ARCH));
        let child = command
            .arg(&settings)
            .env("LD_LIBRARY_PATH", libraries)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        harness::wait_for("the pooler", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(Self {
            child,
            port,
            _folder: folder,
        })
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        // `runuser` hands a polite signal on.
        if rustix::process::kill_process(id, rustix::process::Signal::TERM).is_err() {
            return;
        }
        drop(self.child.wait());
    }
}

#[test]
fn locks_and_writes_work_through_a_transaction_pooler() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let Some(pooler) = Pooler::start(&cluster) else {
        return;
    };
    run(async {
        let open =
            || postgres::system_store(postgres::server_at("127.0.0.1", pooler.port), "pooled");
        let stores: Vec<_> = (0..8).map(|_| open()).collect();
        let rounds = stores.iter().enumerate().map(|(index, store)| async move {
            for round in 0..10 {
                let me = holder(&format!("r{index}-{round}"));
                let lease = store.lock(&me, Duration::from_secs(120)).await.unwrap();
                let count = match store.get(&address("count")).await.unwrap() {
                    Some(record) => mark(&record).parse::<u64>().unwrap(),
                    None => 0,
                };
                let next = record("count", &(count + 1).to_string());
                store.put(&lease, &next).await.unwrap();
                store.renew(&lease).await.unwrap();
                store.unlock(&lease).await.unwrap();
            }
        });
        futures_util::future::join_all(rounds).await;
        let last = open().get(&address("count")).await.unwrap().unwrap();
        assert_eq!((mark(&last), last.tidegate.version), ("80", 80));
        // Several server processes took part, or this would have shown nothing.
        let admin = Cluster::admin_at(cluster.port).await;
        let processes: i64 = admin
            .client
            .query_one(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tidegate'",
                &[],
            )
            .await
            .unwrap()
            .get(0);
        assert!(processes > 1, "{processes}");
        let lease = open().lock(&holder("last"), NO_WAIT).await.unwrap();
        assert_eq!(open().wipe(lease).await.unwrap(), [address("count")]);
    });
}
