//! The `postgres` engine: a role and a database on a server that the provider config names.
//!
//! Everything is found by name and owned by mark. The name follows from environment and resource
//! name; role and database carry a comment that says so. What bears the name without the comment
//! is left alone.
//!
//! Order of making: role with its comment (one transaction), database, grants, comment on the
//! database. A crash after any of them leaves something that `read` finds and `update` completes;
//! only the last comment makes it whole. A password that was lost with the crash is made anew.
//!
//! The server gets the password as a SCRAM verifier, so its logs never hold it.

mod server;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use server::KEYS;
pub(crate) use server::Server;

use super::SharedRandom;
use super::check;
use super::storage::gone;
use crate::config::Shape;
use crate::postgres::Session;
use crate::provider::{DriverError, DriverResult, ErrorClass, Health};
use crate::random::{encode_hex, hex_of};
use crate::resource::{Address, FieldChange, Observed, Output, Outputs, Recorded, Spec};
use crate::secret::{Masker, Secret};

/// The settings of `postgres`, for whoever reads a config before anything is opened.
pub(super) fn keys() -> crate::config::Keys {
    let mut all = check::keys(KEYS);
    let texts = ["database", "host", "password", "sslrootcert", "user"];
    check::shapes(&mut all, &texts, &Shape::Text);
    check::shapes(&mut all, &["port"], &Shape::Port);
    check::shapes(
        &mut all,
        &["sslmode"],
        &check::one_of(crate::postgres::PROTECTIONS),
    );
    all
}

/// Databases on a server.
#[derive(Debug)]
pub(super) struct Postgres {
    server: Server,
    environment: String,
    random: SharedRandom,
    masker: Masker,
}

/// What stands on the server under a resource's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    role: bool,
    database: bool,
    /// The database's own comment is there: every step was done.
    whole: bool,
}

/// Looks for an earlier run's session that is about to leave, each a tenth of a second after the other.
const LEAVING_TRIES: u32 = 100;
/// Ends every other session of ours that bears a resource's name, and counts them.
const END_OTHERS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
     WHERE application_name = $1 AND usename = current_user AND pid <> pg_backend_pid()";

impl Postgres {
    pub(super) fn new(
        server: Server,
        environment: &str,
        random: SharedRandom,
        masker: Masker,
    ) -> Self {
        Self {
            server,
            environment: environment.to_owned(),
            random,
            masker,
        }
    }

    pub(super) async fn create(&self, desired: &Spec) -> DriverResult<Observed> {
        let session = self.enter(&desired.address).await?;
        let standing = self.look(&session, &desired.address).await?;
        if standing.whole && standing.role {
            return Err(DriverError::new(
                ErrorClass::AlreadyExists,
                format!(
                    "`{}` exists already: the database `{}` at `{}`",
                    desired.address,
                    self.name(&desired.address),
                    self.server.place()
                ),
            ));
        }
        let password = self.generate(&desired.address);
        self.establish(&session, &desired.address, standing, &password)
            .await
    }

    pub(super) async fn read(&self, prior: &Recorded) -> DriverResult<Observed> {
        let session = self.server.connect().await?;
        let standing = self.look(&session, &prior.address).await?;
        if !standing.role && !standing.database {
            return Err(gone(prior));
        }
        let password = recorded_password(prior);
        let whole = standing.whole && standing.role && password.is_some();
        Ok(self.observed(
            &prior.address,
            password,
            if whole { "ready" } else { "incomplete" },
        ))
    }

    pub(super) async fn update(&self, prior: &Recorded) -> DriverResult<Observed> {
        let session = self.enter(&prior.address).await?;
        let standing = self.look(&session, &prior.address).await?;
        if !standing.role && !standing.database {
            self.refuse_moved(prior)?;
        }
        let password = recorded_password(prior).unwrap_or_else(|| self.generate(&prior.address));
        self.establish(&session, &prior.address, standing, &password)
            .await
    }

    pub(super) async fn delete(&self, prior: &Recorded) -> DriverResult<()> {
        let session = self.enter(&prior.address).await?;
        let standing = self.look(&session, &prior.address).await?;
        if !standing.role && !standing.database {
            return self.refuse_moved(prior);
        }
        let name = quote_name(&self.name(&prior.address));
        if standing.database {
            let version = self.version(&session).await?;
            if version >= 130_000 {
                self.run(
                    &session,
                    &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
                )
                .await?;
            } else {
                self.run(
                    &session,
                    &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"),
                )
                .await?;
                session
                    .client
                    .execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
                        &[&self.name(&prior.address)],
                    )
                    .await
                    .map_err(|error| self.server.failed(&error))?;
                self.run(&session, &format!("DROP DATABASE IF EXISTS {name}"))
                    .await?;
            }
        }
        self.run(&session, &format!("DROP ROLE IF EXISTS {name}"))
            .await
    }

    pub(super) async fn health(&self, prior: &Recorded) -> DriverResult<Health> {
        let session = self.server.connect().await?;
        let standing = self.look(&session, &prior.address).await?;
        let healthy = standing.whole && standing.role;
        Ok(Health {
            healthy,
            message: if healthy { "ready" } else { "incomplete" }.to_owned(),
        })
    }

    /// Differences that the record shows, and if it shows none, those that the server does: a role
    /// or a database that somebody dropped.
    pub(super) async fn differences(&self, prior: &Recorded) -> DriverResult<Vec<FieldChange>> {
        let mut changes = self.changes(prior);
        if changes.is_empty() {
            let session = self.server.connect().await?;
            let standing = self.look(&session, &prior.address).await?;
            if !(standing.role && standing.whole) {
                let is_gone = !standing.role && !standing.database;
                changes.push(FieldChange {
                    path: "status".to_owned(),
                    old: if is_gone { "gone" } else { "incomplete" }.into(),
                    new: "ready".into(),
                    force_new: false,
                });
            }
        }
        Ok(changes)
    }

    /// Differences that the record alone shows; no connection is made.
    fn changes(&self, prior: &Recorded) -> Vec<FieldChange> {
        let mut changes = Vec::new();
        let mut change = |path: &str, old: serde_json::Value, new: serde_json::Value| {
            if old != new {
                changes.push(FieldChange {
                    path: path.to_owned(),
                    old,
                    new,
                    force_new: false,
                });
            }
        };
        if recorded_password(prior).is_none() || prior.status == "incomplete" {
            change("status", "incomplete".into(), "ready".into());
        }
        for (field, now) in [
            ("host", serde_json::Value::from(self.server.host.as_str())),
            ("port", self.server.port.into()),
        ] {
            if let Some(Output::Public(recorded)) = prior.outputs.get(field) {
                change(field, recorded.clone(), now);
            }
        }
        changes
    }

    /// The name of role and database: readable, within PostgreSQL's 63 bytes, and unique by a hash
    /// of environment and resource name.
    fn name(&self, address: &Address) -> String {
        database_name(&self.environment, address)
    }

    /// The comment that marks role and database as this resource's. ASCII, so that it fits into
    /// any server encoding.
    fn mark(&self, address: &Address) -> String {
        format!(
            "tidegate environment={} resource={} id={}",
            self.environment.escape_default(),
            address.as_str().escape_default(),
            identity_hash(&self.environment, address)
        )
    }

    /// Connects to change one resource, alone: the server may still be busy with what a killed run
    /// asked for, which no look shows until it is done. Only who holds the lock of the state comes
    /// here, so whoever else bears the name is such a run.
    async fn enter(&self, address: &Address) -> DriverResult<Session> {
        let session = self.server.connect().await?;
        let name = self.name(address);
        self.run(
            &session,
            &format!("SET application_name = {}", quote_text(&name)),
        )
        .await?;
        for _ in 0..LEAVING_TRIES {
            let others: i64 = session
                .client
                .query_one(END_OTHERS, &[&name])
                .await
                .map_err(|error| self.server.failed(&error))?
                .get(0);
            if others == 0 {
                return Ok(session);
            }
            self.run(&session, "SELECT pg_sleep(0.1)").await?;
        }
        Err(DriverError::new(
            ErrorClass::Transient,
            format!(
                "`{address}`: the server at `{}` is still busy with what an earlier run asked for",
                self.server.place()
            ),
        ))
    }

    async fn look(&self, session: &Session, address: &Address) -> DriverResult<Standing> {
        let name = self.name(address);
        let mark = self.mark(address);
        let failed = |error| self.server.failed(&error);
        let role: Option<Option<String>> = session
            .client
            .query_opt(
                "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1",
                &[&name],
            )
            .await
            .map_err(failed)?
            .map(|row| row.get(0));
        if role
            .as_ref()
            .is_some_and(|comment| comment.as_deref() != Some(&*mark))
        {
            return Err(self.foreign(address, "role", &name));
        }
        let database: Option<(Option<String>, String)> = session
            .client
            .query_opt(
                "SELECT shobj_description(oid, 'pg_database'), pg_get_userbyid(datdba)::text \
                 FROM pg_database WHERE datname = $1",
                &[&name],
            )
            .await
            .map_err(failed)?
            .map(|row| (row.get(0), row.get(1)));
        let whole = match &database {
            None => false,
            Some((Some(comment), _)) if *comment == mark => true,
            // Made, but the run ended before it was marked; its owner bears our mark.
            Some((None, owner)) if role.is_some() && *owner == name => false,
            Some(_) => return Err(self.foreign(address, "database", &name)),
        };
        Ok(Standing {
            role: role.is_some(),
            database: database.is_some(),
            whole,
        })
    }

    fn foreign(&self, address: &Address, what: &str, name: &str) -> DriverError {
        DriverError::new(
            ErrorClass::Conflict,
            format!(
                "`{address}`: the {what} `{name}` at `{}` was not made by Tidegate for this \
                 resource, so it is left alone; rename or drop it, or rename the resource",
                self.server.place()
            ),
        )
    }

    /// Does whatever is missing, in order; doing it twice changes nothing.
    async fn establish(
        &self,
        session: &Session,
        address: &Address,
        standing: Standing,
        password: &Secret,
    ) -> DriverResult<Observed> {
        let name = quote_name(&self.name(address));
        let mark = quote_text(&self.mark(address));
        let verifier = postgres_protocol::password::scram_sha_256(password.expose().as_bytes());
        // Only a superuser may say NOSUPERUSER to a role that exists, though it changes nothing.
        let role = if standing.role {
            format!("ALTER ROLE {name} LOGIN")
        } else {
            format!("CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE")
        };
        // A batch of several statements is one transaction.
        self.run(
            session,
            &format!(
                "{role} PASSWORD {}; COMMENT ON ROLE {name} IS {mark}",
                quote_text(&verifier)
            ),
        )
        .await?;
        let observed = |status| self.observed(address, Some(password.clone()), status);
        self.establish_database(session, &name, &mark, standing)
            .await
            .map_err(|error| error.with_partial(observed("incomplete")))?;
        Ok(observed("ready"))
    }

    async fn establish_database(
        &self,
        session: &Session,
        name: &str,
        mark: &str,
        standing: Standing,
    ) -> DriverResult<()> {
        // Only a member of the owning role, or a superuser, may give a database to it.
        let superuser: bool = session
            .client
            .query_one(
                "SELECT rolsuper FROM pg_roles WHERE rolname = current_user",
                &[],
            )
            .await
            .map_err(|error| self.server.failed(&error))?
            .get(0);
        if !superuser {
            self.run(session, &format!("GRANT {name} TO CURRENT_USER"))
                .await?;
        }
        if standing.database {
            self.run(session, &format!("ALTER DATABASE {name} OWNER TO {name}"))
                .await?;
        } else {
            self.run(
                session,
                &format!("CREATE DATABASE {name} OWNER {name} TEMPLATE template0 ENCODING 'UTF8'"),
            )
            .await?;
        }
        self.run(
            session,
            &format!(
                "REVOKE ALL ON DATABASE {name} FROM PUBLIC; \
                 GRANT ALL ON DATABASE {name} TO {name}; \
                 COMMENT ON DATABASE {name} IS {mark}"
            ),
        )
        .await
    }

    async fn run(&self, session: &Session, statements: &str) -> DriverResult<()> {
        session
            .client
            .batch_execute(statements)
            .await
            .map_err(|error| self.server.failed(&error))
    }

    async fn version(&self, session: &Session) -> DriverResult<u32> {
        let text: String = session
            .client
            .query_one("SHOW server_version_num", &[])
            .await
            .map_err(|error| self.server.failed(&error))?
            .get(0);
        Ok(text.parse().unwrap_or(0))
    }

    /// "Gone" is only believed of the server the record names.
    fn refuse_moved(&self, prior: &Recorded) -> DriverResult<()> {
        let moved: Vec<String> = self
            .changes(prior)
            .into_iter()
            .filter(|change| change.path != "status")
            .map(|change| format!("{} was {}", change.path, change.old))
            .collect();
        if moved.is_empty() {
            return Ok(());
        }
        Err(DriverError::new(
            ErrorClass::Invalid,
            format!(
                "`{}` is not at `{}`, where the provider's config points now ({}); point `postgres` \
                 back to the server it was made on",
                prior.address,
                self.server.place(),
                moved.join(", ")
            ),
        ))
    }

    fn generate(&self, address: &Address) -> Secret {
        self.masker
            .admit(&format!("{address}.password"), hex_of::<24>(&*self.random))
    }

    fn observed(&self, address: &Address, password: Option<Secret>, status: &str) -> Observed {
        let name = self.name(address);
        let mut outputs = Outputs::from([
            ("engine".to_owned(), Output::Public("postgres".into())),
            (
                "host".to_owned(),
                Output::Public(self.server.host.as_str().into()),
            ),
            ("port".to_owned(), Output::Public(self.server.port.into())),
            ("database".to_owned(), Output::Public(name.as_str().into())),
            ("user".to_owned(), Output::Public(name.as_str().into())),
        ]);
        if let Some(password) = password {
            let url = connection_url(&self.server, &name, &password);
            let url = self
                .masker
                .admit(&format!("{address}.connection_url"), String::clone(&url));
            outputs.insert("connection_url".to_owned(), Output::Sensitive(url));
            outputs.insert("password".to_owned(), Output::Sensitive(password));
        }
        Observed {
            provider_id: name,
            outputs,
            status: status.to_owned(),
            private: crate::resource::Private::default(),
        }
    }
}

fn recorded_password(prior: &Recorded) -> Option<Secret> {
    match prior.outputs.get("password") {
        Some(Output::Sensitive(secret)) if !secret.is_empty() => Some(secret.clone()),
        _ => None,
    }
}

fn connection_url(server: &Server, name: &str, password: &Secret) -> Zeroizing<String> {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let secret = Zeroizing::new(encode(password.expose()));
    let mode = server.protection.word();
    Zeroizing::new(if server.is_socket() {
        format!(
            "postgresql://{name}:{}@/{name}?host={}&port={}",
            *secret,
            encode(&server.host),
            server.port
        )
    } else if server.host.contains(':') {
        format!(
            "postgresql://{name}:{}@[{}]:{}/{name}?sslmode={mode}",
            *secret, server.host, server.port
        )
    } else {
        format!(
            "postgresql://{name}:{}@{}:{}/{name}?sslmode={mode}",
            *secret, server.host, server.port
        )
    })
}

fn identity_hash(environment: &str, address: &Address) -> String {
    let mut hash = Sha256::new();
    hash.update((environment.len() as u64).to_le_bytes());
    hash.update(environment.as_bytes());
    hash.update(address.as_str().as_bytes());
    encode_hex(&hash.finalize()[..12])
}

// `pg_…` is reserved for PostgreSQL's own roles, whatever the environment is called: hence `tg_`.
fn database_name(environment: &str, address: &Address) -> String {
    let readable: String = format!("tg_{environment}_{address}")
        .chars()
        .take(38)
        .map(|letter| match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9' | '_') => letter,
            _ => '_',
        })
        .collect();
    format!("{readable}_{}", identity_hash(environment, address))
}

/// An identifier in SQL text.
fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string in SQL text, whatever `standard_conforming_strings` says.
fn quote_text(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_keep_apart() {
        let name =
            |environment: &str, resource: &str| database_name(environment, &Address::new(resource));
        assert!(name("dev", "orders-db").starts_with("tg_dev_orders_db_"));
        for (a, b) in [
            (("dev", "a/b"), ("dev", "a_b")),
            (("dev", "A"), ("dev", "a")),
            (("dev", "x_y"), ("dev_x", "y")),
            (("dev", "\"; DROP DATABASE x; --"), ("dev", "drop")),
        ] {
            assert_ne!(name(a.0, a.1), name(b.0, b.1));
        }
        let long = name(&"e".repeat(300), &"ü".repeat(300));
        assert!(long.len() <= 63, "{} bytes", long.len());
        assert!(
            long.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        );
    }

    #[test]
    fn sql_text_cannot_be_left() {
        assert_eq!(quote_name("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_text("a'b\\"), "E'a''b\\\\'");
    }
}
