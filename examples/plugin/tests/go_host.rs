//! The launch library of existing hosts, driving the built plugin.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a plugin is a program of its own"
)]

use std::path::Path;
use std::process::Command;

/// S1, S2, S3, S4, S7, S8, S10, S12, S14 and S17, as that library sees them.
#[test]
fn s17_the_go_launch_library_drives_it() {
    drive(&[]);
}

/// The library makes a P-521 certificate, sends it in the environment and takes ours from the
/// handshake line.
#[test]
fn s17_the_go_launch_library_drives_it_over_mutual_tls() {
    drive(&[("AUTO_MTLS", "1")]);
}

fn drive(variables: &[(&str, &str)]) {
    if Command::new("go").arg("version").output().is_err() {
        eprintln!(
            "SKIPPED: `go` is not installed, so the launch library of existing hosts was not tried"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/go-host");
    let host = folder.path().join("go-host");
    let built = Command::new("go")
        .args(["build", "-o"])
        .args([&host])
        .arg(".")
        .current_dir(source)
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let descriptors = folder.path().join("descriptors.bin");
    std::fs::write(&descriptors, tidegate_plugin::FILE_DESCRIPTOR_SET).unwrap();
    let config = serde_json::json!({ "directory": folder.path().join("files") });
    let ran = Command::new(host)
        .envs(variables.iter().copied())
        .arg(env!("CARGO_BIN_EXE_tidegate-plugin-files"))
        .arg(descriptors)
        .args([
            config.to_string().as_str(),
            "infra.file",
            r#"{"content":"hello"}"#,
        ])
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let steps = "handshake\nhealth\nregistry\ncapabilities\ninitialize\ncreate\nread\ndelete\nnot found\nshutdown\n";
    assert_eq!(String::from_utf8_lossy(&ran.stdout), steps);
}
