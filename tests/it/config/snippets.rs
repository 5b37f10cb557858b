//! Do the schema that editors use and the loader agree? Here on the loader's whole verdict; every change
//! of every place is held together beside the schema itself.

use super::*;

const BEYOND: &str = " (beyond a schema)";

#[test]
fn schema_and_loader_agree_on_a_collection_of_good_and_bad_configs() {
    let schema = jsonschema::draft202012::new(&config::schema()).unwrap();
    let text = String::from_utf8(fixture("snippets.txt")).unwrap();
    let mut differences = Vec::new();
    let mut verdicts = [0_usize; 2];
    for block in text.split("=== ").skip(1) {
        let (name, text) = block.split_once('\n').unwrap();
        // What is no JSON (a number that YAML versions read differently) is nothing to a schema.
        let Ok(value) = config::from_yaml::<serde_json::Value>(text) else {
            continue;
        };
        let case = case(text).file("a.yaml", "modules: []");
        let (loader, editor) = (case.check().is_ok(), schema.is_valid(&value));
        verdicts[usize::from(loader)] += 1;
        let expected = loader || name.ends_with(BEYOND);
        if editor != expected {
            let said = case.check().err().map(|errors| plain(&errors));
            differences.push(format!(
                "{name}: the loader {said:?}, the schema {:?}\n{text}",
                schema
                    .iter_errors(&value)
                    .map(|error| error.to_string())
                    .collect::<Vec<_>>()
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(verdicts.iter().all(|&count| count > 150), "{verdicts:?}");
}
