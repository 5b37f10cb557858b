//! The official toolkit as the judge of our escaping: what `@actions/core` writes, we write, byte
//! for byte.

use std::path::Path;
use std::process::Command;

use tidegate::actions::command::{self, Annotation};
use tidegate::actions::file;
use tidegate::random::SeededRandom;
use tidegate::report::Severity;

use crate::harness;

/// Texts with everything that needs escaping, and much that must not be.
const TEXTS: [&str; 9] = [
    "plain",
    "100%",
    "a:b,c;d]e",
    "line one\nline two\r\nthree\rfour",
    "%0A is not a line break, %25 neither",
    "::error::x",
    " blanks around ",
    "naïve 名前 🔑",
    "tab\tand \"quotes\" 'too' \\ back",
];

/// What the script prints for one text.
#[derive(Debug, serde::Deserialize)]
struct Official {
    mask: String,
    group: String,
    debug: String,
    error: String,
    warning: String,
    notice: String,
    entry: String,
    delimiter: String,
}

#[test]
fn commands_and_entries_are_those_of_the_official_toolkit() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = root.join(".lab/core/node_modules/@actions/core");
    if !package.exists() {
        return harness::skip_without(
            "@actions/core (npm install --prefix .lab/core @actions/core)",
        );
    }
    let output = Command::new("node")
        .arg(root.join("tests/peers/actions-core/oracle.mjs"))
        .arg(&package)
        .arg(serde_json::to_string(&TEXTS).unwrap())
        .env_remove("GITHUB_OUTPUT")
        .output();
    let Ok(output) = output else {
        return harness::skip_without("node");
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let official: Vec<Official> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(official.len(), TEXTS.len());
    for (text, theirs) in TEXTS.into_iter().zip(official) {
        let annotate = |severity| {
            let annotation = Annotation {
                title: text,
                file: text,
                line: 3,
                end_line: 4,
                column: 5,
                end_column: 6,
                message: text,
            };
            format!("{}\n", command::annotate(severity, &annotation).as_str())
        };
        let line = |command: command::Command| format!("{}\n", command.as_str());
        assert_eq!(line(command::add_mask(text)), theirs.mask);
        assert_eq!(line(command::group(text)), theirs.group);
        assert_eq!(line(command::debug(text)), theirs.debug);
        assert_eq!(annotate(Severity::Error), theirs.error);
        assert_eq!(annotate(Severity::Warning), theirs.warning);
        assert_eq!(annotate(Severity::Notice), theirs.notice);
        let entry = file::entry("NAME", text, &SeededRandom::new(3)).unwrap();
        let ours = entry
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("NAME<<"))
            .unwrap();
        assert_eq!(
            entry.replace(ours, "DELIMITER"),
            theirs.entry.replace(&theirs.delimiter, "DELIMITER")
        );
    }
}
