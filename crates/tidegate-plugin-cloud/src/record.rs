//! A record as the object it is stored in: the JSON that existing backends write. Pure.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_plugin::{Error, Result, StateRecord};

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    resource_id: String,
    #[serde(default)]
    resource_type: String,
    #[serde(default)]
    provider: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    provider_ref: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    provider_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    config_hash: String,
    #[serde(default)]
    status: String,
    // Kept as it was sent, to the byte.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    outputs: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    config: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dependencies: Option<Vec<String>>,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    updated_at: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    error: String,
}

fn raw<'a>(bytes: &'a [u8], what: &str) -> Result<Option<&'a RawValue>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(bytes)
        .map(Some)
        .map_err(|error| Error::invalid(format!("{what} is not JSON: {error}")))
}

fn bytes(value: Option<&RawValue>) -> Bytes {
    value.map_or_else(Bytes::new, |value| {
        Bytes::copy_from_slice(value.get().as_bytes())
    })
}

/// The object's content.
pub(crate) fn encode(record: &StateRecord) -> Result<Vec<u8>> {
    let stored = Stored {
        resource_id: record.resource_id.clone(),
        resource_type: record.resource_type.clone(),
        provider: record.provider.clone(),
        provider_ref: record.provider_ref.clone(),
        provider_id: record.provider_id.clone(),
        config_hash: record.config_hash.clone(),
        status: record.status.clone(),
        outputs: raw(&record.outputs_json, "outputs_json")?,
        config: raw(&record.config_json, "config_json")?,
        dependencies: Some(record.dependencies.clone()).filter(|names| !names.is_empty()),
        created_at: record.created_at.clone(),
        updated_at: record.updated_at.clone(),
        error: record.error.clone(),
    };
    serde_json::to_vec(&stored).map_err(|error| Error::other(error.to_string()))
}

/// The record in an object's content. The error is a reason in words.
pub(crate) fn decode(content: &[u8]) -> std::result::Result<StateRecord, String> {
    let stored: Stored<'_> = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    Ok(StateRecord {
        outputs_json: bytes(stored.outputs),
        config_json: bytes(stored.config),
        resource_id: stored.resource_id,
        resource_type: stored.resource_type,
        provider: stored.provider,
        provider_ref: stored.provider_ref,
        provider_id: stored.provider_id,
        config_hash: stored.config_hash,
        status: stored.status,
        dependencies: stored.dependencies.unwrap_or_default(),
        created_at: stored.created_at,
        updated_at: stored.updated_at,
        error: stored.error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_comes_back_to_the_byte() {
        let record = StateRecord {
            resource_id: "a/b".to_owned(),
            resource_type: "infra.database".to_owned(),
            provider: "aws".to_owned(),
            provider_ref: "main".to_owned(),
            provider_id: "id".to_owned(),
            config_hash: "h".to_owned(),
            status: "active".to_owned(),
            outputs_json: Bytes::from_static(br#"{"b": 1.0, "a": 18446744073709551616}"#),
            config_json: Bytes::from_static(b"null"),
            dependencies: vec!["x".to_owned()],
            created_at: "2024-01-02T03:04:05Z".to_owned(),
            updated_at: "2024-01-02T03:04:06Z".to_owned(),
            error: "e".to_owned(),
        };
        let mut back = decode(&encode(&record).unwrap()).unwrap();
        // `null` is "nothing" in every reader.
        assert!(back.config_json.is_empty() || &back.config_json[..] == b"null");
        back.config_json = record.config_json.clone();
        assert_eq!(back, record);
        let empty = StateRecord {
            resource_id: "x".to_owned(),
            ..StateRecord::default()
        };
        assert_eq!(decode(&encode(&empty).unwrap()).unwrap(), empty);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for content in ["", "{", "[]", r#"{"resource_type": "x"}"#] {
            assert!(decode(content.as_bytes()).is_err(), "{content}");
        }
        let broken = StateRecord {
            outputs_json: Bytes::from_static(b"{"),
            ..StateRecord::default()
        };
        assert!(encode(&broken).is_err());
    }
}
