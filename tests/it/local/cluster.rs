//! A PostgreSQL server of our own, for as long as a test lasts.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use tokio_postgres::NoTls;

use super::*;

pub(crate) const ADMINISTRATOR_PASSWORD: &str = "admin pass'word/ü";

/// A throw-away cluster from Debian's packages, as an ordinary user, without fsync.
pub(crate) struct Cluster {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) log: PathBuf,
    options: String,
}

fn programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop()
}

/// PostgreSQL refuses to run as root.
fn as_user(program: &Path) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

impl Cluster {
    pub(crate) fn start() -> Option<Self> {
        Self::with_connections(40)
    }

    /// One that takes this many connections at once.
    pub(crate) fn with_connections(connections: u32) -> Option<Self> {
        let Some(bin) = programs() else {
            harness::skip_without("postgresql");
            return None;
        };
        let folder = tempfile::Builder::new()
            .prefix("pg")
            .tempdir_in("/tmp")
            .unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let data = folder.path().join("data");
        let password = folder.path().join("password");
        std::fs::write(&password, ADMINISTRATOR_PASSWORD).unwrap();
        let run = |command: &mut Command| {
            let output = command.current_dir("/").output().expect("it starts");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        run(as_user(&bin.join("initdb"))
            .arg("-D")
            .arg(&data)
            .args([
                "-U",
                "admin",
                "-A",
                "scram-sha-256",
                "-E",
                "UTF8",
                "--no-sync",
                "--pwfile",
            ])
            .arg(&password));
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let log = folder.path().join("log");
        // Every statement is logged: what reaches the log is part of what is tested.
        let options = format!(
            "-F -k {} -h 127.0.0.1 -p {port} -c log_statement=all \
             -c max_connections={connections} \
             -c shared_buffers=16MB",
            folder.path().display()
        );
        run(as_user(&bin.join("pg_ctl"))
            .args(["-w", "-s", "-t", "60", "start", "-D"])
            .arg(&data)
            .arg("-l")
            .arg(&log)
            .arg("-o")
            .arg(&options)
            .stdout(Stdio::null()));
        Some(Self {
            folder,
            port,
            log,
            options,
        })
    }

    /// Ends the server as a crash of its machine would; [`Cluster::restart`] brings it back.
    pub(crate) fn crash(&self) {
        self.control(&["-m", "immediate", "stop"]);
    }

    /// Starts it again, on the same port and with what it had.
    pub(crate) fn restart(&self) {
        let log = self.log.display().to_string();
        self.control(&["-t", "60", "-l", &log, "-o", &self.options, "start"]);
    }

    fn control(&self, arguments: &[&str]) {
        let bin = programs().expect("it was started");
        let output = as_user(&bin.join("pg_ctl"))
            .args(["-w", "-s", "-D"])
            .arg(self.folder.path().join("data"))
            .args(arguments)
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("it starts");
        assert!(output.success(), "{arguments:?}");
    }

    pub(super) fn config(&self, host: &str) -> serde_json::Value {
        serde_json::json!({
            "host": host, "port": self.port, "user": "admin",
            "password": ADMINISTRATOR_PASSWORD, "database": "postgres",
        })
    }

    pub(super) fn lab(&self) -> Lab {
        let mut lab = Lab::new();
        lab.config["postgres"] = self.config("127.0.0.1");
        lab
    }

    pub(super) async fn connect(
        &self,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<Peer, String> {
        Self::connect_at(self.port, user, password, database).await
    }

    /// The administrator of the server at `port`.
    pub(crate) async fn admin_at(port: u16) -> Peer {
        Self::connect_at(port, "admin", ADMINISTRATOR_PASSWORD, "postgres")
            .await
            .unwrap()
    }

    async fn connect_at(
        port: u16,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<Peer, String> {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(port)
            .user(user)
            .password(password)
            .dbname(database);
        let (client, connection) = config.connect(NoTls).await.map_err(|error| {
            error
                .as_db_error()
                .map_or(error.to_string(), |answer| answer.message().to_owned())
        })?;
        let mut traffic = tokio::task::JoinSet::new();
        traffic.spawn(async move { drop(connection.await) });
        Ok(Peer {
            client,
            _traffic: traffic,
        })
    }

    pub(crate) async fn admin(&self) -> Peer {
        self.connect("admin", ADMINISTRATOR_PASSWORD, "postgres")
            .await
            .unwrap()
    }

    /// Roles and databases that are not PostgreSQL's own or the administrator's.
    pub(crate) async fn standing(&self) -> (Vec<String>, Vec<String>) {
        let admin = self.admin().await;
        let list = async |query: &str| {
            admin
                .client
                .query(query, &[])
                .await
                .unwrap()
                .iter()
                .map(|row| row.get(0))
                .collect()
        };
        (
            list("SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'tg\\_%' ORDER BY 1").await,
            list("SELECT datname::text FROM pg_database WHERE datname LIKE 'tg\\_%' ORDER BY 1")
                .await,
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let bin = programs().unwrap();
        let stopped = as_user(&bin.join("pg_ctl"))
            .args(["-m", "immediate", "-s", "-w", "stop", "-D"])
            .arg(self.folder.path().join("data"))
            .current_dir("/")
            .status();
        drop(stopped);
    }
}

pub(crate) struct Peer {
    pub(crate) client: tokio_postgres::Client,
    _traffic: tokio::task::JoinSet<()>,
}
