//! The tables, and how they come into being. One transaction brings a database from any version
//! to this one's; a version from the future is left alone.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use super::Failure;
use crate::state::StoreError;

/// Every step, oldest first. A step is never edited once it was released; `@` stands for the
/// schema.
const STEPS: &[&str] = &[include_str!("schema.sql")];

/// The version this program brings tables to.
pub const VERSION: usize = STEPS.len();

/// Two processes never migrate at once. The lock ends with its transaction, so a pooler between us
/// and the server changes nothing about it. The number is `tidegate` in ASCII.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8388351763240150117)";

/// The tables of a schema of which this user may not see every row.
const POLICIES: &str = "SELECT coalesce(string_agg(c.relname::text, ', ' ORDER BY c.relname), '') \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = $1 AND c.relkind = 'r' AND row_security_active(c.oid)";

/// A name that needs no quotes, so that it can stand in a statement as it is.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && name.len() <= 63
        && !name.starts_with("pg_")
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

pub(super) struct Schema<'a> {
    pub(super) name: &'a str,
    pub(super) failed: &'a (dyn Fn(&tokio_postgres::Error) -> Failure + Sync),
}

impl Schema<'_> {
    /// The version that stands in the database; 0 for none.
    pub(super) async fn version(&self, client: &Client) -> Result<usize, Failure> {
        let table = format!("{}.schema_version", self.name);
        let stands: bool = client
            .query_typed_one(
                "SELECT to_regclass($1::text) IS NOT NULL",
                &[(&table, Type::TEXT)],
            )
            .await
            .map_err(|error| (self.failed)(&error))?
            .get(0);
        if !stands {
            return Ok(0);
        }
        let rows = client
            .query_typed(&format!("SELECT version FROM {table}"), &[])
            .await
            .map_err(|error| (self.failed)(&error))?;
        self.check(rows.first().map_or(0, |row| row.get(0)))
    }

    /// Rows that a policy hides would count as absent.
    pub(super) async fn refuse_policies(&self, client: &Client) -> Result<(), Failure> {
        let row = client
            .query_typed_one(POLICIES, &[(&self.name, Type::TEXT)])
            .await
            .map_err(|error| (self.failed)(&error))?;
        let tables: String = row.get(0);
        if tables.is_empty() {
            return Ok(());
        }
        Err(Failure::Store(StoreError::Invalid(format!(
            "row level security hides what is in the database schema `{}` from this user ({tables}); \
             take it off these tables, or let the user bypass it",
            self.name
        ))))
    }

    fn check(&self, found: i32) -> Result<usize, Failure> {
        let version = usize::try_from(found).unwrap_or(usize::MAX);
        if version > VERSION {
            return Err(Failure::Store(StoreError::Newer {
                what: format!("the database schema `{}`", self.name),
                found: version as u64,
                known: VERSION as u64,
            }));
        }
        Ok(version)
    }

    /// Brings the tables to [`VERSION`], all or nothing.
    pub(super) async fn migrate(&self, client: &mut Client) -> Result<(), Failure> {
        let failed = self.failed;
        let transaction = client.transaction().await.map_err(|error| failed(&error))?;
        self.migrate_in(&transaction).await?;
        transaction.commit().await.map_err(|error| failed(&error))
    }

    async fn migrate_in(&self, transaction: &Transaction<'_>) -> Result<(), Failure> {
        let failed = self.failed;
        let name = self.name;
        let run = async |statement: String| {
            transaction
                .batch_execute(&statement)
                .await
                .map_err(|error| failed(&error))
        };
        run(LOCK.to_owned()).await?;
        // Not `IF NOT EXISTS`: that needs the right to create schemas even where one stands.
        let stands: bool = transaction
            .query_typed_one(
                "SELECT to_regnamespace($1::text) IS NOT NULL",
                &[(&name, Type::TEXT)],
            )
            .await
            .map_err(|error| failed(&error))?
            .get(0);
        if !stands {
            run(format!("CREATE SCHEMA {name}")).await?;
        }
        run(format!(
            "CREATE TABLE IF NOT EXISTS {name}.schema_version (\
                 only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one), \
                 version integer NOT NULL); \
             INSERT INTO {name}.schema_version (version) VALUES (0) ON CONFLICT DO NOTHING"
        ))
        .await?;
        let row = transaction
            .query_typed_one(
                &format!("SELECT version FROM {name}.schema_version FOR UPDATE"),
                &[],
            )
            .await
            .map_err(|error| failed(&error))?;
        let from = self.check(row.get(0))?;
        for step in &STEPS[from..] {
            run(step.replace('@', name)).await?;
        }
        run(format!(
            "UPDATE {name}.schema_version SET version = {VERSION}"
        ))
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_stand_in_statements() {
        for good in ["tidegate", "_x", "team_7"] {
            assert!(is_plain_name(good), "{good}");
        }
        for bad in ["", "7x", "a-b", "A", "a;b", "a\"", "pg_x", "ü", "a b"] {
            assert!(!is_plain_name(bad), "{bad}");
        }
        assert!(!is_plain_name(&"x".repeat(64)));
    }
}
