//! Any text in place of a config and of a file it imports: understood or refused with a place, the
//! same way each time, whatever the environment.
#![no_main]

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use tidegate::config::{self, Document, Files};
use tidegate::secret::Masker;
use tidegate::variables::Variables;

fuzz_target!(|input: (&str, &str, Option<&str>)| {
    let (text, imported, environment) = input;
    let read = |path: &Path| match path.to_str() {
        Some("infra.yaml") => Ok(text.as_bytes().to_vec()),
        Some(other) if other.ends_with("other.yaml") => Ok(imported.as_bytes().to_vec()),
        _ => Err("there is no such file".to_owned()),
    };
    let canonical = |path: &Path| -> Result<PathBuf, String> { Ok(path.to_owned()) };
    let files = Files {
        read: &read,
        canonical: &canonical,
    };
    let path = Path::new("infra.yaml");
    let variables: Variables = [("TOKEN".to_owned(), "value-of-the-token".to_owned())]
        .into_iter()
        .collect();
    let masker = Masker::default();
    let load = || match config::load(path, environment, files, &variables, &masker) {
        Ok(loaded) => Ok(loaded.config),
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in &problems {
                assert!(!problem.message.is_empty());
                assert!(!format!("{problem:?}").contains("value-of-the-token"));
            }
            Err(problems)
        }
    };
    let once = format!("{:?}", load());
    assert_eq!(once, format!("{:?}", load()));
    drop(config::sketches(path, environment, files));
    if let Ok(document) = Document::parse(path, text) {
        within(&document.root, text.len());
    }
    drop(config::from_yaml::<serde_json::Value>(text));
});

/// Every place is one of the text.
fn within(tree: &config::Tree, end: usize) {
    assert!(tree.start <= tree.end && tree.end <= end);
    for field in tree.fields() {
        within(&field.value, end);
    }
}
