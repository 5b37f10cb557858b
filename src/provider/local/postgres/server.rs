//! The PostgreSQL server a provider config names, and one connection to it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio_postgres::Config;

use crate::disk::Disk;
use crate::postgres::{
    CERTIFICATE_BYTES_MAX, PROTECTIONS, Protection, Session, causes, client_config, connect,
    parse_certificates,
};
use crate::provider::local::check::{Problems, nearest, noun, unknown_keys};
use crate::provider::{DriverError, ErrorClass};
use crate::resource::{Map, Value};
use crate::secret::{Masker, Secret};

/// The settings of `postgres`.
pub(in crate::provider::local) const KEYS: &[&str] = &[
    "database",
    "host",
    "password",
    "port",
    "sslmode",
    "sslrootcert",
    "user",
];

const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long a server that took the connection may take to greet.
const GREETING_WAIT: Duration = Duration::from_secs(10);

/// A server and the administrator we are on it.
#[derive(Clone)]
pub(crate) struct Server {
    /// Host name, address, or the directory of a Unix socket.
    pub(super) host: String,
    pub(super) port: u16,
    user: String,
    password: Option<Secret>,
    database: String,
    pub(super) protection: Protection,
    tls: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({}:{})", self.host, self.port)
    }
}

impl Server {
    /// Reads the provider's `postgres:` map. Problems have paths under `postgres`.
    pub(crate) fn from_config(
        config: &Value,
        base: &Path,
        disk: &dyn Disk,
        masker: &Masker,
        problems: &mut Problems,
    ) -> Option<Self> {
        let Value::Map(config) = config else {
            problems.push((
                "postgres".to_owned(),
                format!("it must be a map, not {}", noun(config)),
            ));
            return None;
        };
        let mut found = Problems::new();
        unknown_keys(config, "`postgres`", KEYS, &mut found);
        let text = |key: &str, found: &mut Problems| match config.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(other) => {
                let problem = match other {
                    Value::String(_) => "it is empty".to_owned(),
                    Value::Secret(_) => {
                        "it ends up in a public output, so it cannot be a secret".to_owned()
                    }
                    other => format!("it must be text, not {}", noun(other)),
                };
                found.push((key.to_owned(), problem));
                None
            }
        };
        let host = text("host", &mut found).unwrap_or_else(|| "127.0.0.1".to_owned());
        let user = text("user", &mut found).unwrap_or_else(|| "postgres".to_owned());
        let database = text("database", &mut found).unwrap_or_else(|| "postgres".to_owned());
        let password = match config.get("password") {
            None | Some(Value::Null) => None,
            Some(Value::Secret(secret)) => Some(secret.clone()),
            Some(Value::String(text)) => Some(masker.admit("postgres.password", text.clone())),
            Some(other) => {
                found.push((
                    "password".to_owned(),
                    format!("it must be text, not {}", noun(other)),
                ));
                None
            }
        };
        let port = port(config, &mut found);
        let protection = match text("sslmode", &mut found) {
            None => Protection::Prefer,
            Some(word) => Protection::parse(&word).unwrap_or_else(|| {
                found.push((
                    "sslmode".to_owned(),
                    match nearest(&word, PROTECTIONS) {
                        Some(name) => {
                            format!("there is no mode of that name; did you mean `{name}`?")
                        }
                        None => format!("it must be one of {}", PROTECTIONS.join(", ")),
                    },
                ));
                Protection::Prefer
            }),
        };
        let socket = host.starts_with('/');
        let certificates = text("sslrootcert", &mut found)
            .map(|path| base.join(path))
            .and_then(|path| read_certificates(disk, &path, &mut found));
        let tls = if socket || protection == Protection::Disable {
            None
        } else {
            match client_config(protection, certificates) {
                Ok(tls) => Some(Arc::new(tls)),
                Err(error) => {
                    found.push((
                        "sslmode".to_owned(),
                        format!("TLS cannot be set up: {error}"),
                    ));
                    None
                }
            }
        };
        let complete = found.is_empty();
        problems.extend(
            found
                .into_iter()
                .map(|(key, sentence)| (format!("postgres.{key}"), sentence)),
        );
        complete.then_some(Self {
            host,
            port,
            user,
            password,
            database,
            protection,
            tls,
        })
    }

    /// The server as messages name it.
    pub(super) fn place(&self) -> String {
        if self.is_socket() {
            format!("{}/.s.PGSQL.{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// True when the host is the directory of a Unix socket.
    pub(super) fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Connects as the administrator.
    pub(super) async fn connect(&self) -> Result<Session, DriverError> {
        let mut config = Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .dbname(&self.database)
            .application_name("tidegate")
            .options("-c statement_timeout=60s -c lock_timeout=30s -c client_min_messages=warning")
            .connect_timeout(CONNECT_WAIT);
        if let Some(password) = &self.password {
            config.password(password.expose());
        }
        let greeted = connect(config, self.protection, self.tls.as_deref());
        match tokio::time::timeout(CONNECT_WAIT + GREETING_WAIT, greeted).await {
            Ok(greeted) => greeted.map_err(|error| self.failed(&error)),
            Err(_) => Err(DriverError::new(
                ErrorClass::Transient,
                format!(
                    "PostgreSQL at `{}` takes connections and did not answer for {} s; check that \
                     `postgres:` in the provider's config names a PostgreSQL server that runs",
                    self.place(),
                    (CONNECT_WAIT + GREETING_WAIT).as_secs()
                ),
            )),
        }
    }

    /// What a failed connection or statement means.
    pub(super) fn failed(&self, error: &tokio_postgres::Error) -> DriverError {
        let place = self.place();
        let Some(answer) = error.as_db_error() else {
            let causes = causes(error);
            return DriverError::new(
                ErrorClass::Transient,
                format!(
                    "no usable connection to PostgreSQL at `{place}`: {causes}; check that the \
                     server runs and that `postgres:` in the provider's config names it"
                ),
            );
        };
        let code = answer.code().code();
        let (class, next) = match code {
            code if code.starts_with("28") => (
                ErrorClass::Denied,
                "check `postgres.user` and `postgres.password` in the provider's config",
            ),
            "42501" => (
                ErrorClass::Denied,
                "the user in `postgres.user` needs CREATEDB and CREATEROLE",
            ),
            "42P04" | "42710" => (ErrorClass::AlreadyExists, "run again to take it over"),
            "55006" | "2BP01" => (ErrorClass::Conflict, "end what uses it, then run again"),
            "53300" | "57P03" | "55P03" | "40001" | "40P01" => {
                (ErrorClass::Transient, "try again later")
            }
            code if code.starts_with("57P") || code.starts_with("08") => (
                ErrorClass::Unknown,
                "run again: what was done is found by name",
            ),
            _ => (ErrorClass::Invalid, "see the server's log for more"),
        };
        DriverError::new(
            class,
            format!(
                "PostgreSQL at `{place}` refused: {} (SQLSTATE {code}); {next}",
                answer.message()
            ),
        )
    }
}

fn port(config: &Map, found: &mut Problems) -> u16 {
    let port = match config.get("port") {
        None | Some(Value::Null) => return 5432,
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) => None,
    };
    match port.map(u16::try_from) {
        Some(Ok(port)) if port > 0 => port,
        _ => {
            found.push((
                "port".to_owned(),
                "it must be a number from 1 to 65535".to_owned(),
            ));
            5432
        }
    }
}

fn read_certificates(
    disk: &dyn Disk,
    path: &Path,
    found: &mut Problems,
) -> Option<Vec<CertificateDer<'static>>> {
    let problem = |sentence: String| ("sslrootcert".to_owned(), sentence);
    let bytes = match disk.read(path, CERTIFICATE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            found.push(problem(error.to_string()));
            return None;
        }
    };
    let certificates = parse_certificates(&bytes);
    if certificates.is_none() {
        found.push(problem(format!(
            "`{}` holds no PEM certificate",
            path.display()
        )));
    }
    certificates
}
