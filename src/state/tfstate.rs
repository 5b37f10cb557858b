//! The version 4 state document of Terraform and OpenTofu: written for those who read it, and read
//! back. What the document has no place for travels in the attribute `tidegate`. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::record::PLACEHOLDER_PREFIX;
use super::{Record, Snapshot, StoreError, StoreResult};
use crate::resource::Address;

const VERSION: u64 = 4;
/// The attribute that makes our own exports come back.
const OURS: &str = "tidegate";
/// `status` of a record that has to be looked after: the next plan replaces or repairs it.
const TAINTED: &str = "error";
const REGISTRY: &str = "registry.terraform.io/workflow/";

/// A lineage of ours in the usual form of one of theirs.
fn as_uuid(lineage: &str) -> String {
    match lineage.len() {
        32 if lineage.is_ascii() => format!(
            "{}-{}-{}-{}-{}",
            &lineage[..8],
            &lineage[8..12],
            &lineage[12..16],
            &lineage[16..20],
            &lineage[20..]
        ),
        _ => lineage.to_owned(),
    }
}

/// The document. Sensitive outputs stay placeholders; nothing is unsealed.
pub fn export(snapshot: &Snapshot) -> Value {
    let resources: Vec<Value> = snapshot
        .records
        .iter()
        .map(|record| {
            let kind = record.resource_type.replace('.', "_");
            let mut attributes = Map::new();
            for (name, value) in &record.outputs {
                attributes.insert(name.clone(), value.clone());
            }
            // After the outputs: one that is called `id` is in our own attribute.
            attributes.insert("id".to_owned(), json!(record.provider_id));
            attributes.insert("name".to_owned(), json!(record.resource_id));
            attributes.insert("provider".to_owned(), json!(record.provider));
            attributes.insert(OURS.to_owned(), super::upstream::public_form(record));
            json!({
                "mode": "managed",
                "type": kind,
                "name": record.resource_id,
                "provider": format!("provider[\"{REGISTRY}{kind}\"]"),
                "instances": [{
                    "schema_version": 0,
                    "attributes": attributes,
                    "sensitive_attributes": [],
                    "dependencies": record.dependencies,
                }],
            })
        })
        .collect();
    json!({
        "version": VERSION,
        "terraform_version": "1.0.0",
        "serial": snapshot.serial,
        "lineage": as_uuid(&snapshot.lineage),
        "outputs": {},
        "resources": resources,
    })
}

#[derive(Deserialize)]
struct Written {
    version: u64,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    /// `module.network`; empty for those of the root.
    #[serde(default)]
    module: String,
    #[serde(default)]
    mode: String,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    provider: String,
    #[serde(default)]
    instances: Vec<Instance>,
}

#[derive(Deserialize)]
struct Instance {
    #[serde(default)]
    index_key: Option<Value>,
    /// `tainted`, when something went wrong while it was made.
    #[serde(default)]
    status: String,
    /// The key of an old one that its successor has outlived.
    #[serde(default)]
    deposed: String,
    #[serde(default)]
    attributes: Map<String, Value>,
    /// Paths to the attributes that they call sensitive.
    #[serde(default)]
    sensitive_attributes: Vec<Value>,
    #[serde(default)]
    dependencies: Vec<String>,
}

impl Instance {
    fn text(&self, attribute: &str) -> &str {
        let value = self.attributes.get(attribute);
        value.and_then(Value::as_str).unwrap_or_default()
    }

    /// The name of its record, when that of the resource is `name`.
    fn named(&self, name: &str) -> String {
        match &self.index_key {
            None | Some(Value::Null) => name.to_owned(),
            Some(Value::String(key)) => format!("{name}[\"{key}\"]"),
            Some(key) => format!("{name}[{key}]"),
        }
    }
}

/// A record of such a document.
#[derive(Debug)]
pub struct Imported {
    /// The record, with every value as it stands there.
    pub record: Record,
    /// The outputs that the document calls sensitive.
    pub sensitive: BTreeSet<String>,
}

/// What is in such a document.
#[derive(Debug, Default)]
pub struct Document {
    /// The records, sorted by name.
    pub records: Vec<Imported>,
    /// Old ones that wait to be deleted there, by the name of the one in their place and their id. A
    /// state of ours has no place for them.
    pub deposed: Vec<(String, String)>,
}

/// The attributes that hold what a document calls sensitive. A path is a list of steps, of which the
/// first names the attribute; some writers leave the list out.
fn sensitive(paths: &[Value]) -> BTreeSet<String> {
    let attribute = |path: &Value| {
        let first = path.as_array().map_or(Some(path), |steps| steps.first())?;
        let name = first.get("value").unwrap_or(first);
        name.as_str().map(str::to_owned)
    };
    paths.iter().filter_map(attribute).collect()
}

/// The records in such a document, one for each instance, under their configured names: those that
/// occur twice have their type, and their module, in front. `now` is the time of records that know
/// none.
///
/// # Errors
/// [`StoreError::Corrupt`] for anything that is not such a document, or holds one name twice.
pub fn import(bytes: &[u8], what: &str, now: &str) -> StoreResult<Document> {
    let corrupt = |reason: String| StoreError::Corrupt {
        what: what.to_owned(),
        reason,
    };
    let document: Written = serde_json::from_slice(&exact_numbers(bytes))
        .map_err(|error| corrupt(error.to_string()))?;
    if document.version != VERSION {
        return Err(corrupt(format!(
            "it has version {}; version {VERSION} can be imported",
            document.version
        )));
    }
    let managed: Vec<&Resource> = document
        .resources
        .iter()
        .filter(|resource| resource.mode == "managed")
        .collect();
    let mut found = Document::default();
    let mut named = Named::default();
    let mut theirs: Vec<(&Resource, Imported)> = Vec::new();
    for resource in &managed {
        let name = unambiguous(resource, &managed);
        for instance in &resource.instances {
            if !instance.deposed.is_empty() {
                let id = instance.text("id").to_owned();
                found.deposed.push((instance.named(&name), id));
                continue;
            }
            let ours = instance.attributes.get(OURS);
            let record: Record = match ours {
                Some(ours) => serde_json::from_value(ours.clone()),
                None => foreign(resource, &name, instance, now),
            }
            .map_err(|error| corrupt(format!("`{}`: {error}", resource.name)))?;
            named.note(resource, &record.resource_id);
            let one = Imported {
                record,
                sensitive: sensitive(&instance.sensitive_attributes),
            };
            match ours {
                Some(_) => found.records.push(one),
                None => theirs.push((resource, one)),
            }
        }
    }
    for (resource, mut one) in theirs {
        one.record.dependencies = named.resolved(resource, &one.record);
        found.records.push(one);
    }
    let records = &mut found.records;
    records.sort_by(|left, right| left.record.resource_id.cmp(&right.record.resource_id));
    let mut pairs = records.windows(2);
    match pairs.find(|pair| pair[0].record.resource_id == pair[1].record.resource_id) {
        Some(twice) => Err(corrupt(format!(
            "it holds `{}` twice; rename one of them there",
            twice[0].record.resource_id
        ))),
        None => Ok(found),
    }
}

/// What the document calls a resource, whichever instance of its module it is in, and the records that
/// came of it.
#[derive(Default)]
struct Named<'a>(BTreeMap<String, Vec<(&'a str, Address)>>);

impl<'a> Named<'a> {
    fn note(&mut self, resource: &'a Resource, record: &Address) {
        let address = match without_keys(&resource.module) {
            module if module.is_empty() => format!("{}.{}", resource.kind, resource.name),
            module => format!("{module}.{}.{}", resource.kind, resource.name),
        };
        let records = self.0.entry(address).or_default();
        records.push((&resource.module, record.clone()));
    }

    /// The records that one of `resource` stands on. Those of its own instance of a module are meant
    /// where there are any. What the document only reads is no record.
    fn resolved(&self, resource: &Resource, record: &Record) -> Vec<Address> {
        let mut names = BTreeSet::new();
        for dependency in &record.dependencies {
            let all = self
                .0
                .get(dependency.as_str())
                .map_or(&[][..], Vec::as_slice);
            let beside = |(module, _): &&(&str, Address)| *module == resource.module;
            let is_beside = all.iter().any(|one| beside(&one));
            let meant = all.iter().filter(|one| !is_beside || beside(one));
            names.extend(meant.map(|(_, address)| address.clone()));
        }
        names.remove(&record.resource_id);
        names.into_iter().collect()
    }
}

/// The address of a module without those of its instances: `module.net["a"]` is of `module.net`.
fn without_keys(module: &str) -> String {
    let mut text = String::new();
    let (mut is_quoted, mut is_escaped, mut is_key) = (false, false, false);
    for character in module.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' if is_key => is_quoted = !is_quoted,
            '[' if !is_quoted => is_key = true,
            ']' if !is_quoted => is_key = false,
            _ if !is_key => text.push(character),
            _ => {}
        }
    }
    text
}

/// The document with every whole number that no number of ours can hold written as text: it must not
/// come out rounded.
fn exact_numbers(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut text: Option<Vec<u8>> = None;
    let (mut at, mut copied, mut is_text) = (0, 0, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if is_text => at += 1,
            b'"' => is_text = !is_text,
            b'-' | b'0'..=b'9' if !is_text => {
                let is_part =
                    |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let rest = bytes.get(at..).unwrap_or_default();
                let length = rest.iter().take_while(|byte| is_part(byte)).count();
                let number = rest.get(..length).unwrap_or_default();
                if is_too_large(number) {
                    let text = text.get_or_insert_default();
                    text.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
                    text.push(b'"');
                    text.extend_from_slice(number);
                    text.push(b'"');
                    copied = at + length;
                }
                at += length - 1;
            }
            _ => {}
        }
        at += 1;
    }
    match text {
        None => Cow::Borrowed(bytes),
        Some(mut text) => {
            text.extend_from_slice(bytes.get(copied..).unwrap_or_default());
            Cow::Owned(text)
        }
    }
}

fn is_too_large(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    let Ok(text) = std::str::from_utf8(number) else {
        return false;
    };
    digits.iter().all(u8::is_ascii_digit)
        && text.parse::<i64>().is_err()
        && text.parse::<u64>().is_err()
}

/// The configured name; with what tells it apart where that is not the only one.
fn unambiguous(resource: &Resource, all: &[&Resource]) -> String {
    let is_same = |other: &&&Resource| other.name == resource.name;
    let twins: Vec<&&Resource> = all.iter().filter(is_same).collect();
    if twins.len() < 2 {
        return resource.name.clone();
    }
    let typed = format!("{}.{}", resource.kind, resource.name);
    let modules = twins.iter().filter(|other| other.kind == resource.kind);
    match modules.count() {
        0 | 1 => typed,
        _ if resource.module.is_empty() => typed,
        _ => format!("{}.{typed}", resource.module),
    }
}

fn foreign(
    resource: &Resource,
    name: &str,
    instance: &Instance,
    now: &str,
) -> Result<Record, serde_json::Error> {
    // Only the first `_` stood for a dot: `infra_container_service` is `infra.container_service`.
    let kind = match resource.kind.strip_prefix("infra_") {
        Some(rest) => format!("infra.{rest}"),
        None => resource.kind.clone(),
    };
    // `provider["registry.terraform.io/hashicorp/aws"].west` → `aws`: what an alias is set to is said
    // by the module that declares it, and has no name here.
    let provider = match instance.text("provider") {
        "" => {
            let (source, _alias) = resource
                .provider
                .split_once("\"]")
                .unwrap_or((&resource.provider, ""));
            source.rsplit('/').next().unwrap_or_default()
        }
        named => named,
    };
    let status = if instance.status == "tainted" {
        TAINTED
    } else {
        "active"
    };
    let outputs: Map<String, Value> = instance
        .attributes
        .iter()
        .filter(|(key, _)| !["id", "name", "provider"].contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    serde_json::from_value(json!({
        "resource_id": instance.named(name),
        "resource_type": kind,
        "provider": provider,
        "provider_id": instance.text("id"),
        "status": status,
        "error": if status == TAINTED { "tainted in the state it was imported from" } else { "" },
        "config": {},
        "outputs": outputs,
        "dependencies": instance.dependencies,
        "created_at": now,
        "updated_at": now,
    }))
}

/// Takes what an export could not hold from the record that is there: sealed values whose
/// placeholders came back unchanged, the provider's private data, the count of writes.
pub fn rejoin(mut record: Record, existing: &Record) -> Record {
    let sealed = existing.tidegate.sealed.iter().filter(|(name, _)| {
        record.outputs.get(name.as_str()) == existing.outputs.get(name.as_str())
    });
    let sealed = sealed.map(|(name, value)| (name.clone(), value.clone()));
    let sealed = sealed.collect();
    record.tidegate = existing.tidegate.clone();
    record.tidegate.sealed = sealed;
    record.unknown.clone_from(&existing.unknown);
    record
}

/// Outputs of which only the placeholder is known.
pub fn unknown_outputs(record: &Record) -> Vec<String> {
    record
        .outputs
        .iter()
        .filter(|(name, value)| {
            !record.tidegate.sealed.contains_key(name.as_str())
                && value
                    .as_str()
                    .is_some_and(|text| text.starts_with(PLACEHOLDER_PREFIX))
        })
        .map(|(name, _)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        serde_json::from_value(json!({
            "tidegate_state": 1, "environment": "dev", "serial": 7,
            "lineage": "00112233445566778899aabbccddeeff",
            "records": [{
                "resource_id": "web", "resource_type": "infra.container_service",
                "provider": "local", "provider_ref": "here", "provider_id": "cloud-7",
                "config_hash": "abc", "status": "active", "config": {"size": [1, {"a": null}]},
                "outputs": {"id": "an output named id", "url": "http://web.test",
                            "token": "secret_ref://WEB__TOKEN"},
                "dependencies": ["net"],
                "created_at": "2024-01-02T03:04:05Z", "updated_at": "2024-01-02T03:04:06Z",
                "tidegate": {"format": 1, "environment": "dev", "version": 2, "private": "BBBB",
                             "sealed": {"token": {"fingerprint": "f", "sealed": "AAAA"}}},
            }],
        }))
        .unwrap()
    }

    #[test]
    fn our_own_export_comes_back_whole() {
        let document = export(&snapshot());
        assert_eq!(document["serial"], json!(7));
        assert_eq!(
            document["lineage"],
            json!("00112233-4455-6677-8899-aabbccddeeff")
        );
        let text = document.to_string();
        assert!(!text.contains("AAAA") && !text.contains("BBBB"), "{text}");
        let records = import(text.as_bytes(), "it", "now").unwrap().records;
        let original = &snapshot().records[0];
        assert_eq!(records.len(), 1);
        let record = &records[0].record;
        assert_eq!(unknown_outputs(record), ["token"]);
        assert_eq!(&rejoin(record.clone(), original), original);
    }

    #[test]
    fn what_has_one_name_in_a_document_is_told_apart() {
        let resource = |module: &str, kind: &str, name: &str| {
            json!({"module": module, "mode": "managed", "type": kind, "name": name,
                   "instances": [{"attributes": {"id": "1"}}]})
        };
        let document = |resources: Value| json!({"version": 4, "resources": resources}).to_string();
        let text = document(json!([
            resource("", "aws_vpc", "main"),
            resource("", "aws_subnet", "main"),
            resource("module.network", "aws_subnet", "main"),
            resource("", "aws_vpc", "alone"),
        ]));
        let imported = import(text.as_bytes(), "it", "now").unwrap().records;
        let names: Vec<&str> = imported
            .iter()
            .map(|one| one.record.resource_id.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "alone",
                "aws_subnet.main",
                "aws_vpc.main",
                "module.network.aws_subnet.main"
            ]
        );
        let text = document(json!([resource("", "a", "x"), resource("", "a", "x")]));
        let error = import(text.as_bytes(), "it", "now").unwrap_err();
        assert!(error.to_string().contains("`a.x` twice"), "{error}");
    }

    #[test]
    fn a_foreign_document_is_keyed_by_configured_names() {
        let document = json!({
            "version": 4, "serial": 1, "lineage": "x", "outputs": {},
            "resources": [
                {"mode": "data", "type": "x", "name": "skipped", "instances": [{}]},
                {"mode": "managed", "type": "infra_container_service", "name": "web",
                 "provider": "provider[\"registry.terraform.io/workflow/do\"]",
                 "instances": [{"attributes": {"id": "cloud-1", "url": "u", "login": "x"},
                                "sensitive_attributes": [
                                    [{"type": "get_attr", "value": "login"}],
                                    [{"type": "get_attr", "value": "users"},
                                     {"type": "index", "value": {"value": 0, "type": "number"}}]],
                                "dependencies": ["infra_vpc.net"]}]},
                {"mode": "managed", "type": "aws_subnet", "name": "sub",
                 "provider": "provider[\"registry.terraform.io/hashicorp/aws\"]",
                 "instances": [{"index_key": 0, "attributes": {"id": "s0"}},
                               {"index_key": "b", "attributes": {"id": "s1"}}]},
            ],
        });
        let records = import(document.to_string().as_bytes(), "it", "now")
            .unwrap()
            .records;
        let seen: Vec<(&str, &str, &str, &str)> = records
            .iter()
            .map(|Imported { record, .. }| {
                (
                    record.resource_id.as_str(),
                    record.resource_type.as_str(),
                    record.provider.as_str(),
                    record.provider_id.as_str(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("sub[\"b\"]", "aws_subnet", "aws", "s1"),
                ("sub[0]", "aws_subnet", "aws", "s0"),
                ("web", "infra.container_service", "do", "cloud-1"),
            ]
        );
        assert!(records[0].sensitive.is_empty());
        let expected = BTreeSet::from(["login".to_owned(), "users".to_owned()]);
        assert_eq!(records[2].sensitive, expected);
        for bad in ["{}", "[]", r#"{"version": 3}"#, "x"] {
            assert!(import(bad.as_bytes(), "it", "now").is_err(), "{bad}");
        }
    }

    /// What any state of theirs holds after a while.
    #[test]
    fn a_document_that_was_in_use_is_taken_over_with_its_scars() {
        let aws = "provider[\"registry.terraform.io/hashicorp/aws\"].west";
        let one = |module: &str, kind: &str, name: &str, instances: Value| {
            json!({"module": module, "mode": "managed", "type": kind, "name": name,
                   "provider": aws, "instances": instances})
        };
        let document = json!({"version": 4, "resources": [
            one("", "aws_vpc", "main", json!([
                {"status": "tainted", "attributes": {"id": "vpc-2", "big": 1}},
                {"deposed": "a1b2c3d4", "attributes": {"id": "vpc-1"}},
            ])),
            one("", "aws_subnet", "sub", json!([
                {"index_key": 0, "attributes": {"id": "s0"},
                 "dependencies": ["aws_vpc.main", "data.aws_ami.it", "aws_subnet.sub"]},
            ])),
            one("module.net[\"a.b]\"]", "aws_eip", "ip", json!([{"attributes": {"id": "ip-a"}}])),
            one("module.net[\"c\"]", "aws_eip", "ip", json!([{"attributes": {"id": "ip-c"}}])),
            one("module.net[\"c\"]", "aws_nat", "nat", json!([
                {"attributes": {"id": "n"}, "dependencies": ["module.net.aws_eip.ip"]},
            ])),
            one("", "aws_lb", "lb", json!([
                {"attributes": {"id": "l"}, "dependencies": ["module.net.aws_eip.ip"]},
            ])),
        ]});
        let text = document
            .to_string()
            .replace("\"big\":1", "\"big\":18446744073709551616");
        let found = import(text.as_bytes(), "it", "now").unwrap();
        assert_eq!(found.deposed, [("main".to_owned(), "vpc-1".to_owned())]);
        let record = |name: &str| {
            let mut records = found.records.iter().map(|one| &one.record);
            records
                .find(|record| record.resource_id.as_str() == name)
                .unwrap()
        };
        let stands_on = |name: &str| {
            let names = record(name).dependencies.iter();
            names
                .map(|name| name.as_str().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(stands_on("sub[0]"), ["main"]);
        let own = "module.net[\"c\"].aws_eip.ip";
        assert_eq!(stands_on("nat"), [own]);
        assert_eq!(stands_on("lb"), ["module.net[\"a.b]\"].aws_eip.ip", own]);
        let main = record("main");
        assert_eq!((&*main.provider, &*main.status), ("aws", TAINTED));
        assert_eq!(main.outputs["big"], json!("18446744073709551616"));
        assert_eq!(record("lb").status, "active");
    }

    #[test]
    fn only_whole_numbers_beyond_reach_become_text() {
        for (before, after) in [
            ("[1, -9223372036854775808]", None),
            (
                "[18446744073709551615, 1.5, 1e30, \"18446744073709551616\"]",
                None,
            ),
            (
                "{\"a\\\"\": 99999999999999999999}",
                Some("{\"a\\\"\": \"99999999999999999999\"}"),
            ),
            (
                "[-9223372036854775809,2]",
                Some("[\"-9223372036854775809\",2]"),
            ),
            ("99999999999999999999", Some("\"99999999999999999999\"")),
            ("\"\\", None),
        ] {
            let exact = exact_numbers(before.as_bytes());
            assert_eq!(exact, after.unwrap_or(before).as_bytes(), "{before}");
        }
    }
}
