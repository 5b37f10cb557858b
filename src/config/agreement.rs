//! Do the schema that editors use and the loader agree? Every place of a document that uses every
//! key is changed in every way that could matter, and both must give the same verdict on each.

use std::path::Path;

use serde_json::{Value, json};

use super::decode::Decode as _;
use super::files::Files;
use super::keys::Rules;
use super::problems::Problems;
use super::schema::{Document, schema};
use super::yaml;
use crate::secret::Masker;

const REFERENCE: &str = include_str!("../../docs/config.md");
const EVERYTHING: &str = include_str!("../../tests/fixtures/config/good/everything.yaml");

/// The loader's whole verdict, of everybody who reads a config. Imports are empty, variables are set.
fn check_accepts(text: &str) -> bool {
    let variables = text
        .split("${")
        .skip(1)
        .filter_map(|rest| rest.split([':', '}']).next())
        .map(|name| (name.to_owned(), "value".to_owned()))
        .collect();
    let files = Files {
        read: &|path| {
            Ok(match path.to_str() {
                Some("infra.yaml") => text.as_bytes().to_vec(),
                _ => b"modules: []".to_vec(),
            })
        },
        canonical: &|path| Ok(path.to_path_buf()),
    };
    let rules = Rules::of_keys(&|_, _| None);
    let path = Path::new("infra.yaml");
    super::check(path, None, files, &variables, &Masker::default(), rules).is_ok()
}

/// The loader's verdict on the shape alone: names, references and the like are not shape.
fn loader_accepts(text: &str) -> bool {
    let mut problems = Problems::default();
    let source = problems
        .sources
        .add(Path::new("infra.yaml"), text.to_owned());
    if let Some(root) = yaml::read(source, &mut problems) {
        Document::decode(root, "the config", &mut problems);
    }
    !problems.has_errors()
}

fn everything() -> Value {
    serde_yaml::from_str(EVERYTHING).unwrap()
}

/// Every place in a document, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(value, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (position, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{position}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn schema_and_loader_agree_on_every_change_of_every_place() {
    let schema = jsonschema::draft202012::new(&schema()).unwrap();
    let document = everything();
    assert!(schema.is_valid(&document), "the document itself");
    assert!(loader_accepts(EVERYTHING));
    let mut pointers = Vec::new();
    places(&document, "", &mut pointers);
    assert!(pointers.len() > 200, "the document uses every key");

    let mut changed: Vec<(String, Value)> = Vec::new();
    for pointer in pointers
        .iter()
        .filter(|pointer| !pointer.is_empty() && !pointer.starts_with("/x-"))
    {
        for (what, value) in [
            ("null", Value::Null),
            ("true", json!(true)),
            ("7", json!(7)),
            ("-1", json!(-1)),
            ("1.5", json!(1.5)),
            ("text", json!("zzz")),
            ("[]", json!([])),
            ("{zzz: 7}", json!({ "zzz": 7 })),
        ] {
            let mut copy = document.clone();
            *copy.pointer_mut(pointer).unwrap() = value;
            changed.push((format!("{pointer} := {what}"), copy));
        }
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/").replace("~0", "~");
        let mut copy = document.clone();
        if let Some(map) = copy.pointer_mut(parent).unwrap().as_object_mut() {
            map.remove(&key);
            changed.push((format!("{pointer} removed"), copy));
        }
        let mut copy = document.clone();
        if let Some(map) = copy.pointer_mut(pointer).unwrap().as_object_mut() {
            map.insert("zzz".to_owned(), json!({ "a": 1 }));
            changed.push((format!("{pointer}/zzz added"), copy));
        }
    }
    let mut verdicts = [0_usize; 2];
    for (what, value) in &changed {
        let text = value.to_string();
        let accepted = schema.is_valid(value);
        verdicts[usize::from(accepted)] += 1;
        // The schema knows shapes, and more. What it does not take for more, the loader does not take.
        match (accepted, loader_accepts(&text)) {
            (true, true) | (false, false) => {}
            (true, false) => panic!("the loader refuses the shape of {what}"),
            (false, true) => assert!(
                !check_accepts(&text),
                "the loader takes {what}, and the schema does not: {:?}",
                schema
                    .iter_errors(value)
                    .map(|error| error.to_string())
                    .collect::<Vec<_>>()
            ),
        }
    }
    assert!(
        verdicts.iter().all(|&count| count > 500),
        "both verdicts occur often: {verdicts:?}"
    );
}

#[test]
fn the_schema_names_its_draft_and_explains_every_key() {
    let schema = schema();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    let shapes = schema["$defs"].as_object().unwrap();
    let mut keys = 0;
    for (name, shape) in shapes.iter().chain([(&"the config".to_owned(), &schema)]) {
        for (key, value) in shape["properties"].as_object().into_iter().flatten() {
            keys += 1;
            assert!(value.get("description").is_some(), "{name}.{key}");
            assert!(
                EVERYTHING.contains(&format!("{key}:")),
                "the document does not use {name}.{key}"
            );
            assert!(
                REFERENCE.contains(&format!("`{key}`"))
                    || REFERENCE.contains(&format!(".{key}`"))
                    || REFERENCE.contains(&format!("`{key}[]")),
                "docs/config.md does not explain {name}.{key}"
            );
        }
    }
    assert!(keys > 80, "{keys}");
}
