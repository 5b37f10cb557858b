//! A record as CBOR: a map by field name, what is empty left out. Read field by field, without a
//! tree of values in between: a list of many records is mostly this. Pure.

use crate::resource::Address;

use super::cbor::{Reader, Reason, Writer};
use super::record::{Extension, Record, SealedOutput};

/// Pairs of a map whose number is not known before they are written.
#[derive(Default)]
struct Pairs {
    count: usize,
    writer: Writer,
}

impl Pairs {
    fn key(&mut self, key: &str) -> &mut Writer {
        self.count += 1;
        self.writer.text(key);
        &mut self.writer
    }

    fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.key(key).text(text);
        }
    }

    fn number(&mut self, key: &str, number: u64) {
        if number != 0 {
            self.key(key).number(number);
        }
    }

    fn end(self, out: &mut Writer) {
        out.map(self.count);
        out.bytes.extend_from_slice(&self.writer.bytes);
    }
}

/// Writes the record as one item.
pub(super) fn write(record: &Record, out: &mut Writer) {
    let mut pairs = Pairs::default();
    pairs.key("resource_id").text(record.resource_id.as_str());
    for (key, text) in [
        ("resource_type", &record.resource_type),
        ("provider", &record.provider),
        ("provider_ref", &record.provider_ref),
        ("provider_id", &record.provider_id),
        ("config_hash", &record.config_hash),
        ("status", &record.status),
        ("created_at", &record.created_at),
        ("updated_at", &record.updated_at),
        ("error", &record.error),
    ] {
        pairs.text(key, text);
    }
    for (key, object) in [("config", &record.config), ("outputs", &record.outputs)] {
        if !object.is_empty() {
            pairs.key(key).object(object);
        }
    }
    if !record.dependencies.is_empty() {
        let writer = pairs.key("dependencies");
        writer.array(record.dependencies.len());
        for address in &record.dependencies {
            writer.text(address.as_str());
        }
    }
    write_extension(&record.tidegate, pairs.key("tidegate"));
    for (key, value) in &record.unknown {
        pairs.key(key).value(value);
    }
    pairs.end(out);
}

fn write_extension(extension: &Extension, out: &mut Writer) {
    let mut pairs = Pairs::default();
    pairs.number("format", extension.format);
    pairs.text("environment", &extension.environment);
    pairs.text("applied_config_source", &extension.applied_config_source);
    if extension.adopted {
        pairs.key("adopted").flag(true);
    }
    if extension.protected {
        pairs.key("protected").flag(true);
    }
    pairs.text("provider_status", &extension.provider_status);
    if !extension.sealed.is_empty() {
        let writer = pairs.key("sealed");
        writer.map(extension.sealed.len());
        for (output, sealed) in &extension.sealed {
            writer.text(output);
            writer.map(2);
            writer.text("fingerprint");
            writer.text(&sealed.fingerprint);
            writer.text("sealed");
            writer.text(&sealed.sealed);
        }
    }
    pairs.text("private", &extension.private);
    pairs.number("version", extension.version);
    for (key, value) in &extension.unknown {
        pairs.key(key).value(value);
    }
    pairs.end(out);
}

/// Reads one record.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Record, Reason> {
    let mut record = Record {
        resource_id: Address::new(""),
        resource_type: String::new(),
        provider: String::new(),
        provider_ref: String::new(),
        provider_id: String::new(),
        config_hash: String::new(),
        status: String::new(),
        config: serde_json::Map::new(),
        outputs: serde_json::Map::new(),
        dependencies: Vec::new(),
        created_at: String::new(),
        updated_at: String::new(),
        error: String::new(),
        tidegate: Extension::default(),
        unknown: std::collections::BTreeMap::new(),
    };
    let mut is_named = false;
    for _ in 0..reader.map()? {
        let key = reader.text()?;
        let text = match key {
            "resource_id" => {
                record.resource_id = Address::new(reader.text()?);
                is_named = true;
                continue;
            }
            "resource_type" => &mut record.resource_type,
            "provider" => &mut record.provider,
            "provider_ref" => &mut record.provider_ref,
            "provider_id" => &mut record.provider_id,
            "config_hash" => &mut record.config_hash,
            "status" => &mut record.status,
            "created_at" => &mut record.created_at,
            "updated_at" => &mut record.updated_at,
            "error" => &mut record.error,
            "config" => {
                record.config = reader.object()?;
                continue;
            }
            "outputs" => {
                record.outputs = reader.object()?;
                continue;
            }
            "dependencies" => {
                for _ in 0..reader.array()? {
                    record.dependencies.push(Address::new(reader.text()?));
                }
                continue;
            }
            "tidegate" => {
                record.tidegate = read_extension(reader)?;
                continue;
            }
            key => {
                record.unknown.insert(key.to_owned(), reader.value()?);
                continue;
            }
        };
        reader.text()?.clone_into(text);
    }
    if is_named {
        Ok(record)
    } else {
        Err("it does not say whose record it is")
    }
}

fn read_extension(reader: &mut Reader<'_>) -> Result<Extension, Reason> {
    let mut extension = Extension::default();
    for _ in 0..reader.map()? {
        let key = reader.text()?;
        let text = match key {
            "environment" => &mut extension.environment,
            "applied_config_source" => &mut extension.applied_config_source,
            "provider_status" => &mut extension.provider_status,
            "private" => &mut extension.private,
            "format" => {
                extension.format = reader.number()?;
                continue;
            }
            "version" => {
                extension.version = reader.number()?;
                continue;
            }
            "adopted" => {
                extension.adopted = reader.flag()?;
                continue;
            }
            "protected" => {
                extension.protected = reader.flag()?;
                continue;
            }
            "sealed" => {
                for _ in 0..reader.map()? {
                    let output = reader.text()?.to_owned();
                    extension.sealed.insert(output, read_sealed(reader)?);
                }
                continue;
            }
            key => {
                extension.unknown.insert(key.to_owned(), reader.value()?);
                continue;
            }
        };
        reader.text()?.clone_into(text);
    }
    Ok(extension)
}

fn read_sealed(reader: &mut Reader<'_>) -> Result<SealedOutput, Reason> {
    let mut sealed = SealedOutput {
        fingerprint: String::new(),
        sealed: String::new(),
    };
    for _ in 0..reader.map()? {
        match reader.text()? {
            "fingerprint" => reader.text()?.clone_into(&mut sealed.fingerprint),
            "sealed" => reader.text()?.clone_into(&mut sealed.sealed),
            _ => return Err("it holds a sealed value with parts nobody knows"),
        }
    }
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn there_and_back(record: &Record) -> Record {
        let mut writer = Writer::default();
        write(record, &mut writer);
        let mut reader = Reader::new(&writer.bytes);
        let back = read(&mut reader).unwrap();
        assert!(reader.is_at_end());
        back
    }

    #[test]
    fn every_field_comes_back() {
        let full: Record = serde_json::from_value(json!({
            "resource_id": "a/b", "resource_type": "infra.database", "provider": "local",
            "provider_ref": "here", "provider_id": "id-1", "config_hash": "ff", "status": "error",
            "config": {"port": 5432, "deep": [{"x": null}, -1.5]},
            "outputs": {"uri": "secret_ref://A"}, "dependencies": ["net", "x"],
            "created_at": "2024-01-02T03:04:05Z", "updated_at": "2024-01-02T03:04:06Z",
            "error": "no", "theirs": {"a": [1]},
            "tidegate": {
                "format": 1, "environment": "dev", "applied_config_source": "apply",
                "adopted": true, "protected": true, "provider_status": "running", "private": "AAAA", "version": 7,
                "sealed": {"uri": {"fingerprint": "00", "sealed": "BBBB"}}, "later": [true],
            },
        }))
        .unwrap();
        // No field of the record stays at its default, so that none is forgotten here.
        let value = serde_json::to_value(&full).unwrap();
        let is_full = |value: &serde_json::Value| {
            let object = value.as_object().unwrap();
            object.values().all(|value| match value {
                serde_json::Value::String(text) => !text.is_empty(),
                serde_json::Value::Object(object) => !object.is_empty(),
                serde_json::Value::Array(values) => !values.is_empty(),
                serde_json::Value::Number(number) => number.as_u64() != Some(0),
                serde_json::Value::Bool(flag) => *flag,
                serde_json::Value::Null => false,
            })
        };
        assert!(is_full(&value) && is_full(&value["tidegate"]), "{value}");
        assert_eq!(there_and_back(&full), full);
    }

    proptest! {
        #[test]
        fn what_is_read_of_any_bytes_can_be_written(
            bytes in prop::collection::vec(any::<u8>(), 0..300)
        ) {
            if let Ok(record) = read(&mut Reader::new(&bytes)) {
                prop_assert_eq!(there_and_back(&record), record);
            }
        }

        #[test]
        fn any_texts_come_back(texts in prop::collection::vec(".{0,30}", 6), version: u64) {
            let record: Record = serde_json::from_value(json!({
                "resource_id": texts[0], "resource_type": texts[1], "provider": texts[2],
                "status": texts[3], "config": {&texts[4]: version}, "created_at": "",
                "updated_at": texts[5], "tidegate": {"version": version},
            }))
            .unwrap();
            prop_assert_eq!(there_and_back(&record), record);
        }
    }
}
