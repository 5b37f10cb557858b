//! The contract, against the built plugin.

#![allow(
    clippy::disallowed_methods,
    reason = "a plugin is a program of its own"
)]

use std::process::Command;

use serde_json::{Value, json};
use tidegate_plugin::conformance::{Conformance, Sample};

const PLUGIN: &str = env!("CARGO_BIN_EXE_tidegate-plugin-files");

#[test]
fn conforms() {
    let folder = tempfile::tempdir().unwrap();
    Conformance::of(PLUGIN)
        .config(json!({ "directory": folder.path() }))
        .sample(
            Sample::new("infra.file", "greeting", json!({ "content": "hello" }))
                .changed(json!({ "content": "good evening" })),
        )
        .run()
        .assert();
}

#[test]
fn plugin_json_is_what_the_code_says() {
    let printed = Command::new(PLUGIN).arg("--manifest").output().unwrap();
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let committed: Value = serde_json::from_str(include_str!("../plugin.json")).unwrap();
    assert_eq!(
        printed, committed,
        "write it anew: cargo run -- --manifest > plugin.json"
    );
}
