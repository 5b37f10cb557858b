//! The other tool's table `iac_resources`, read and written as it is.

use serde_json::{Value, json};
use tokio_postgres::types::Type;

use super::connection::{Failure, Server};
use crate::state::upstream::public_form;
use crate::state::{Record, StoreError, StoreResult};

/// Theirs, word for word; made when it does not stand.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS iac_resources (\
    name TEXT PRIMARY KEY, \
    type TEXT NOT NULL DEFAULT '', \
    provider TEXT NOT NULL DEFAULT '', \
    provider_ref TEXT NOT NULL DEFAULT '', \
    provider_id TEXT NOT NULL DEFAULT '', \
    status TEXT NOT NULL DEFAULT '', \
    config_hash TEXT NOT NULL DEFAULT '', \
    applied_config JSONB NOT NULL DEFAULT '{}', \
    outputs JSONB NOT NULL DEFAULT '{}', \
    dependencies TEXT[] NOT NULL DEFAULT '{}', \
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(), \
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now())";

/// Columns that their first tables lack; their own program adds them the same way.
const MISSING: &str = "ALTER TABLE iac_resources \
    ADD COLUMN IF NOT EXISTS provider_ref TEXT NOT NULL DEFAULT '', \
    ADD COLUMN IF NOT EXISTS provider_id TEXT NOT NULL DEFAULT '', \
    ADD COLUMN IF NOT EXISTS config_hash TEXT NOT NULL DEFAULT '', \
    ADD COLUMN IF NOT EXISTS applied_config JSONB NOT NULL DEFAULT '{}', \
    ADD COLUMN IF NOT EXISTS dependencies TEXT[] NOT NULL DEFAULT '{}'";

/// Columns that older tables of theirs may lack are read as what they would default to.
const READ: &str = "SELECT coalesce(jsonb_agg(to_jsonb(r) - 'created_at' - 'updated_at' || \
    jsonb_build_object(\
      'created_at', coalesce(to_char(r.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), ''), \
      'updated_at', coalesce(to_char(r.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '')) \
    ORDER BY r.name), '[]')::text FROM iac_resources r";

const WRITE: &str = "INSERT INTO iac_resources (name, type, provider, provider_ref, provider_id, \
    status, config_hash, applied_config, outputs, dependencies, created_at, updated_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9::jsonb, $10, \
            $11::timestamptz, $12::timestamptz) \
    ON CONFLICT (name) DO UPDATE SET type = excluded.type, provider = excluded.provider, \
    provider_ref = excluded.provider_ref, provider_id = excluded.provider_id, \
    status = excluded.status, config_hash = excluded.config_hash, \
    applied_config = excluded.applied_config, outputs = excluded.outputs, \
    dependencies = excluded.dependencies, updated_at = excluded.updated_at";

const OTHERS: &str = "SELECT name FROM iac_resources WHERE NOT (name = ANY ($1)) ORDER BY name";

fn told(failure: Failure) -> StoreError {
    match failure {
        Failure::Lost(why) => StoreError::Storage(why),
        Failure::Store(error) => error,
    }
}

/// Every record of their table.
///
/// # Errors
/// The server's answer, or [`StoreError::Corrupt`] for a row that is no record.
pub async fn read(server: &Server) -> StoreResult<Vec<Record>> {
    let session = server.connect().await.map_err(told)?;
    let row = session
        .client
        .query_typed_one(READ, &[])
        .await
        .map_err(|error| told(server.failed(&error)))?;
    let corrupt = |reason: String| StoreError::Corrupt {
        what: format!("the table `iac_resources` at `{}`", server.place()),
        reason,
    };
    let rows: Vec<serde_json::Map<String, Value>> =
        serde_json::from_str(row.get(0)).map_err(|error| corrupt(error.to_string()))?;
    rows.into_iter()
        .map(|mut row| {
            for (theirs, member) in [
                ("name", "resource_id"),
                ("type", "resource_type"),
                ("applied_config", "config"),
            ] {
                if let Some(value) = row.remove(theirs) {
                    row.insert(member.to_owned(), value);
                }
            }
            let name = row.get("resource_id").cloned().unwrap_or(Value::Null);
            serde_json::from_value(Value::Object(row))
                .map_err(|error| corrupt(format!("its row {name}: {error}")))
        })
        .collect()
}

/// Writes these records into their table, all or none. Rows of other names are in the way: they are
/// answered, and nothing is written.
///
/// # Errors
/// The server's answer.
pub async fn write(server: &Server, records: &[Record]) -> StoreResult<Vec<String>> {
    let mut session = server.connect().await.map_err(told)?;
    let failed = |error: tokio_postgres::Error| told(server.failed(&error));
    let transaction = session.client.transaction().await.map_err(failed)?;
    for statement in [TABLE, MISSING] {
        transaction.batch_execute(statement).await.map_err(failed)?;
    }
    let names: Vec<&str> = records
        .iter()
        .map(|record| record.resource_id.as_str())
        .collect();
    let rows = transaction
        .query_typed(OTHERS, &[(&names, Type::TEXT_ARRAY)])
        .await
        .map_err(failed)?;
    if !rows.is_empty() {
        return Ok(rows.iter().map(|row| row.get(0)).collect());
    }
    for record in records {
        let form = public_form(record);
        let text = |key: &str| {
            form.get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let time = |text: &str| match text {
            "" => "1970-01-01T00:00:00Z".to_owned(),
            text => text.to_owned(),
        };
        let (config, outputs) = (
            json!(record.config).to_string(),
            json!(record.outputs).to_string(),
        );
        let dependencies: Vec<&str> = record
            .dependencies
            .iter()
            .map(crate::resource::Address::as_str)
            .collect();
        transaction
            .execute_typed(
                WRITE,
                &[
                    (&record.resource_id.as_str(), Type::TEXT),
                    (&text("resource_type"), Type::TEXT),
                    (&text("provider"), Type::TEXT),
                    (&text("provider_ref"), Type::TEXT),
                    (&text("provider_id"), Type::TEXT),
                    (&text("status"), Type::TEXT),
                    (&text("config_hash"), Type::TEXT),
                    (&config, Type::TEXT),
                    (&outputs, Type::TEXT),
                    (&dependencies, Type::TEXT_ARRAY),
                    (&time(&record.created_at), Type::TEXT),
                    (&time(&record.updated_at), Type::TEXT),
                ],
            )
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    Ok(Vec::new())
}
