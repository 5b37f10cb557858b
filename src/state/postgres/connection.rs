//! The server a connection string names. The string is a secret: no message ever holds a part of
//! it but hosts, ports and the database's name.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::disk::Disk;
use crate::postgres::{
    CERTIFICATE_BYTES_MAX, Protection, Session, causes, client_config, connect, parse_certificates,
};
use crate::secret::{Masker, Secret};
use crate::state::{StoreError, StoreResult};

const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long a server that took the connection may take to greet.
const GREETING_WAIT: Duration = Duration::from_secs(10);
/// A connection whose other end went away without a word is noticed after this.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A server, a database on it, and who we are there.
#[derive(Clone)]
pub struct Server {
    config: Config,
    protection: Protection,
    tls: Option<Arc<ClientConfig>>,
    place: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.place)
    }
}

/// Why a change was not made.
pub(super) enum Failure {
    /// The connection is gone, or the server asks us to try again. What was under way may or may
    /// not have been done.
    Lost(String),
    /// The answer is no.
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Server {
    /// Understands `postgres://user:password@host/database?sslmode=…` and
    /// `host=… user=… password=…`. `certificates` names a PEM file of roots; it wins over
    /// `sslrootcert` in the string, and paths are relative to `base`.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], without a word of the string itself.
    pub fn from_connection_string(
        text: &Secret,
        certificates: Option<&str>,
        base: &Path,
        disk: &dyn Disk,
        masker: &Masker,
    ) -> StoreResult<Self> {
        let invalid =
            |why: &str| StoreError::Invalid(format!("the PostgreSQL connection string {why}"));
        let parts = Parts::split(text.expose());
        let mut config: Config = parts
            .rest
            .parse()
            // The parser's words may quote the string.
            .map_err(|_| invalid("is not understood (it is not shown here, it may be a secret)"))?;
        if let Some(password) = config.get_password() {
            let password = std::str::from_utf8(password)
                .map_err(|_| invalid("holds a password that is not UTF-8"))?
                .to_owned();
            drop(masker.admit("password of the state's database", password));
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(invalid("names no host"));
        }
        if config.get_options().is_some() {
            return Err(invalid(
                "sets `options`, which poolers do not pass on; leave them out",
            ));
        }
        let protection = match parts.sslmode.as_deref() {
            None => Protection::Prefer,
            // Never weaker than what was asked for.
            Some("allow") => Protection::Prefer,
            Some("verify-ca") => Protection::VerifyFull,
            Some(word) => Protection::parse(word).ok_or_else(|| {
                invalid("has an `sslmode` that is none of disable, prefer, require, verify-full")
            })?,
        };
        let roots = match certificates.or(parts.sslrootcert.as_deref()) {
            None => None,
            Some(path) => {
                let path = base.join(path);
                let bytes = disk
                    .read(&path, CERTIFICATE_BYTES_MAX)
                    .map_err(|error| StoreError::Invalid(error.to_string()))?;
                Some(parse_certificates(&bytes).ok_or_else(|| {
                    StoreError::Invalid(format!("`{}` holds no PEM certificate", path.display()))
                })?)
            }
        };
        let only_sockets = config
            .get_hosts()
            .iter()
            .all(|host| matches!(host, Host::Unix(_)));
        let tls = if protection == Protection::Disable || only_sockets {
            None
        } else {
            let tls = client_config(protection, roots)
                .map_err(|error| StoreError::Invalid(format!("TLS cannot be set up: {error}")))?;
            Some(Arc::new(tls))
        };
        let place = place(&config);
        config
            .application_name("tidegate")
            .keepalives_idle(SILENCE_MAX / 2)
            .tcp_user_timeout(SILENCE_MAX);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_WAIT);
        }
        Ok(Self {
            config,
            protection,
            tls,
            place,
        })
    }

    /// Host, port and database, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    pub(super) async fn connect(&self) -> Result<Session, Failure> {
        let hosts = u32::try_from(self.config.get_hosts().len()).unwrap_or(u32::MAX);
        let greeted = async {
            connect(self.config.clone(), self.protection, self.tls.as_deref())
                .await
                .map_err(|error| self.failed(&error))
        };
        let patience = CONNECT_WAIT.saturating_mul(hosts.max(1));
        self.within(patience.saturating_add(GREETING_WAIT), greeted)
            .await
    }

    /// Waits for an answer, but not for ever: a server or pooler that is stopped takes connections and
    /// acknowledges what it is sent, and no other limit notices.
    pub(super) async fn within<T>(
        &self,
        patience: Duration,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(patience, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Lost(format!(
                "PostgreSQL at `{}` takes connections and did not answer for {} s",
                self.place,
                patience.as_secs()
            ))),
        }
    }

    /// What a failed connection or statement means.
    pub(super) fn failed(&self, error: &tokio_postgres::Error) -> Failure {
        let place = &self.place;
        let Some(answer) = error.as_db_error() else {
            return Failure::Lost(format!(
                "no usable connection to PostgreSQL at `{place}`: {}",
                causes(error)
            ));
        };
        let code = answer.code().code();
        let text = format!(
            "PostgreSQL at `{place}` refused: {} (SQLSTATE {code})",
            answer.message()
        );
        match code {
            // Shutting down, too many connections, a lock that took too long, a deadlock, or a
            // transaction that was ended because we were stopped in the middle of it.
            "53300" | "55P03" | "40001" | "40P01" | "25P03" => Failure::Lost(text),
            code if code.starts_with("57P") || code.starts_with("08") => Failure::Lost(text),
            _ => Failure::Store(StoreError::Storage(text)),
        }
    }
}

fn place(config: &Config) -> String {
    let ports = config.get_ports();
    let mut hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    if hosts.is_empty() {
        hosts = config
            .get_hostaddrs()
            .iter()
            .map(ToString::to_string)
            .collect();
    }
    let hosts: Vec<String> = hosts
        .iter()
        .enumerate()
        .map(|(index, host)| {
            let port = ports.get(index).or(ports.first()).unwrap_or(&5432);
            format!("{host}:{port}")
        })
        .collect();
    match config.get_dbname() {
        Some(database) => format!("{}/{database}", hosts.join(",")),
        None => hosts.join(","),
    }
}

/// A connection string without the settings that the library does not know as PostgreSQL does.
#[derive(Debug, Default, PartialEq)]
struct Parts {
    rest: String,
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

impl Parts {
    fn split(text: &str) -> Self {
        let mut parts = Self::default();
        let is_url = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme));
        if is_url {
            let (front, query) = text.split_once('?').unwrap_or((text, ""));
            let kept: Vec<&str> = query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .filter(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    let value = percent_encoding::percent_decode_str(value)
                        .decode_utf8_lossy()
                        .into_owned();
                    !parts.take(key, value)
                })
                .collect();
            parts.rest = if kept.is_empty() {
                front.to_owned()
            } else {
                format!("{front}?{}", kept.join("&"))
            };
        } else {
            let mut kept = Vec::new();
            for word in words(text) {
                let (key, value) = word.split_once('=').unwrap_or((word, ""));
                let value = value.trim().trim_matches('\'').to_owned();
                if !parts.take(key.trim(), value) {
                    kept.push(word);
                }
            }
            parts.rest = kept.join(" ");
        }
        parts
    }

    fn take(&mut self, key: &str, value: String) -> bool {
        match key {
            "sslmode" => self.sslmode = Some(value),
            "sslrootcert" => self.sslrootcert = Some(value),
            _ => return false,
        }
        true
    }
}

/// `key=value` words; quotes and backslashes keep spaces inside a value, and spaces may stand
/// around `=`.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut quoted, mut escaped, mut after_sign) = (None, false, false, false);
    for (index, character) in text.char_indices() {
        if start.is_none() && !character.is_whitespace() {
            start = Some(index);
        }
        if escaped {
            escaped = false;
            continue;
        }
        match character {
            '\\' => escaped = true,
            '\'' => quoted = !quoted,
            '=' if !quoted => after_sign = true,
            _ if character.is_whitespace() && !quoted => {
                let next = text[index..].trim_start();
                let in_the_middle = next.starts_with('=')
                    || (after_sign && text[..index].trim_end().ends_with('='));
                if let Some(from) = start
                    && !in_the_middle
                {
                    words.push(text[from..index].trim_end());
                    start = None;
                    after_sign = false;
                }
            }
            _ => {}
        }
    }
    if let Some(from) = start {
        words.push(text[from..].trim_end());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SystemDisk;

    fn server(text: &str) -> StoreResult<Server> {
        let masker = Masker::default();
        let text = masker.admit("test", text.to_owned());
        Server::from_connection_string(&text, None, Path::new("/"), &SystemDisk, &masker)
    }

    #[test]
    fn both_forms_are_understood() {
        for (text, place, protection) in [
            (
                "postgres://ann:pw@db.test:6432/state?sslmode=require&connect_timeout=3",
                "db.test:6432/state",
                Protection::Require,
            ),
            ("postgresql://db.test", "db.test:5432", Protection::Prefer),
            (
                "host=db.test port = 7 password='a b' sslmode=disable dbname=x",
                "db.test:7/x",
                Protection::Disable,
            ),
            (
                "host=/run/pg dbname=x sslmode='prefer'",
                "/run/pg:5432/x",
                Protection::Prefer,
            ),
        ] {
            let server = server(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((server.place(), server.protection), (place, protection));
        }
    }

    #[test]
    fn no_message_holds_a_word_of_the_string() {
        for text in [
            "postgres://ann:hunter2@db.test:notaport/x",
            "host=db.test pass hunter2",
            "hunter2",
            "host=db.test hunter2=1",
            "postgres://ann:hunter2@db.test/x?sslmode=hunter2",
            "password=hunter2",
            "host=db.test password=hunter2 options='-c x'",
        ] {
            let error = server(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let server = server("postgres://ann:hunter2@db.test/x").unwrap();
        assert!(!format!("{server:?}").contains("hunter2"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_connections_and_says_nothing_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let masker = Masker::default();
        let text = format!("postgres://a:b@127.0.0.1:{port}/c?sslmode=disable");
        let text = masker.admit("test", text);
        let server =
            Server::from_connection_string(&text, None, Path::new("/"), &SystemDisk, &masker)
                .unwrap();
        let Err(Failure::Lost(why)) = server.connect().await else {
            panic!("it greeted");
        };
        assert!(why.contains("did not answer"), "{why}");
    }
}
