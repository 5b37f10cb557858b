//! Records as the other tool of this format keeps them: one JSON file each, in a folder or copied
//! from a bucket. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Record, StoreError, StoreResult};

/// What a folder or a bucket's prefix holds.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// The records, sorted by name.
    pub records: Vec<Record>,
    /// Names of lock files: somebody may be writing, or died while doing so.
    pub locks: Vec<String>,
}

/// Both name mappings of the other tool: one replaces more characters than the other.
fn file_names(name: &str) -> [String; 2] {
    let replace = |characters: &[char]| format!("{}.json", name.replace(characters, "_"));
    [replace(&['/', '\\', ':', '*']), replace(&['/', '\\'])]
}

/// Reads files by name. Whatever ends in `.json` and is no record is an error that names it; only
/// `metadata.json` may be something else.
///
/// # Errors
/// [`StoreError::Corrupt`] for the first file that cannot be read as a record of its name.
pub fn read(files: &BTreeMap<String, Vec<u8>>) -> StoreResult<Found> {
    let mut found = Found::default();
    for (file, bytes) in files {
        let corrupt = |reason: String| StoreError::Corrupt {
            what: format!("record file `{file}`"),
            reason,
        };
        if file.ends_with(".lock") || file.ends_with(".lock.json") && !is_record(bytes) {
            found.locks.push(file.clone());
            continue;
        }
        if !file.ends_with(".json") || (file == "metadata.json" && !is_record(bytes)) {
            continue;
        }
        let record = Record::decode(bytes, &format!("record file `{file}`"))?;
        if record.resource_id.as_str().is_empty() {
            return Err(corrupt("it names no resource".to_owned()));
        }
        if !file_names(record.resource_id.as_str()).contains(file) {
            return Err(corrupt(format!(
                "it is the record of `{}`; two names of theirs may share one file, and one of \
                 them was lost",
                record.resource_id
            )));
        }
        if record.tidegate.format > 0 {
            return Err(corrupt("it is a record of ours, not theirs".to_owned()));
        }
        found.records.push(record);
    }
    found
        .records
        .sort_by(|left, right| left.resource_id.cmp(&right.resource_id));
    Ok(found)
}

fn is_record(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok_and(|value| value.get("resource_id").is_some())
}

/// The members of a record that the other tool knows, and nothing else. Sensitive outputs stay
/// placeholders.
pub fn public_form(record: &Record) -> Value {
    let mut members = Map::new();
    let mut text = |key: &str, value: &str, optional: bool| {
        if !optional || !value.is_empty() {
            members.insert(key.to_owned(), json!(value));
        }
    };
    text("resource_id", record.resource_id.as_str(), false);
    text("resource_type", &record.resource_type, false);
    text("provider", &record.provider, false);
    text("provider_ref", &record.provider_ref, true);
    text("provider_id", &record.provider_id, true);
    text("config_hash", &record.config_hash, true);
    text("status", &record.status, false);
    text("created_at", &record.created_at, false);
    text("updated_at", &record.updated_at, false);
    text("error", &record.error, true);
    members.insert("config".to_owned(), json!(record.config));
    members.insert("outputs".to_owned(), json!(record.outputs));
    if !record.dependencies.is_empty() {
        members.insert("dependencies".to_owned(), json!(record.dependencies));
    }
    Value::Object(members)
}

/// The files of these records, by name.
///
/// # Errors
/// [`StoreError::Invalid`] when two names would share one file, which the other tool cannot keep.
pub fn write(records: &[Record]) -> StoreResult<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for record in records {
        let name = record.resource_id.as_str();
        let [file, _] = file_names(name);
        if file == "metadata.json" || file.ends_with(".lock.json") {
            return Err(StoreError::Invalid(format!(
                "the other tool never lists a resource named `{name}`; rename it first \
                 (`tidegate state mv`)"
            )));
        }
        if let Some(other) = owners.insert(file.clone(), name) {
            return Err(StoreError::Invalid(format!(
                "`{other}` and `{name}` would share the file `{file}`; rename one first \
                 (`tidegate state mv`)"
            )));
        }
        let text = serde_json::to_string_pretty(&public_form(record))
            .map_err(|error| StoreError::Storage(format!("cannot write `{file}`: {error}")))?;
        files.insert(file, text.into_bytes());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theirs(name: &str) -> Vec<u8> {
        serde_json::to_vec_pretty(&json!({
            "resource_id": name, "resource_type": "infra.database", "provider": "digitalocean",
            "provider_ref": "do-main", "provider_id": "1111-2222", "config_hash": "762d",
            "status": "active", "config": {"num_nodes": 1},
            "outputs": {"host": "db.example.test", "uri": "secret_ref://KEY"},
            "dependencies": ["core-net"],
            "created_at": "2024-01-02T03:04:05Z", "updated_at": "2024-01-02T03:04:05Z",
        }))
        .unwrap()
    }

    #[test]
    fn their_files_come_back_as_they_were() {
        let files: BTreeMap<String, Vec<u8>> = [
            ("orders-db.json".to_owned(), theirs("orders-db")),
            ("a_b.json".to_owned(), theirs("a/b")),
            (
                "metadata.json".to_owned(),
                br#"{"generator_metadata": {}}"#.to_vec(),
            ),
            (
                "orders-db.lock".to_owned(),
                b"2024-01-02T03:04:05Z".to_vec(),
            ),
            ("readme.txt".to_owned(), b"x".to_vec()),
        ]
        .into();
        let found = read(&files).unwrap();
        assert_eq!(found.locks, ["orders-db.lock"]);
        assert_eq!(found.records.len(), 2);
        let again = write(&found.records).unwrap();
        assert_eq!(again.len(), 2);
        for (file, bytes) in again {
            let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
            assert_eq!(value(&bytes), value(&files[&file]), "{file}");
        }
    }

    #[test]
    fn what_they_would_skip_or_mix_up_is_named() {
        for (file, bytes) in [
            ("broken.json", b"{".to_vec()),
            ("other.json", theirs("orders-db")),
            ("list.json", b"[]".to_vec()),
        ] {
            let error = read(&[(file.to_owned(), bytes)].into()).unwrap_err();
            assert!(error.to_string().contains(file), "{error}");
        }
        // They never list a resource of this name; its file is there all the same.
        let found = read(&[("metadata.json".to_owned(), theirs("metadata"))].into()).unwrap();
        assert_eq!(found.records.len(), 1);
        assert!(write(&found.records).is_err());
        let two = ["a/b", "a_b"].map(|name| Record::decode(&theirs(name), "it").unwrap());
        let error = write(&two).unwrap_err().to_string();
        assert!(error.contains("`a/b` and `a_b`"), "{error}");
    }
}
