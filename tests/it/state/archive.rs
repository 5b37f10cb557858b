//! A release archive, unpacked into an empty folder, is all that `backend: s3` needs.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::cloud::Moto;
use crate::harness::{self, Run};

/// What the archive holds, as the release workflow packs it.
const PROGRAMS: [&str; 2] = ["tidegate", "tidegate-plugin-cloud"];

#[test]
fn the_release_packs_both_executables_into_one_archive() {
    let workflow = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows/release.yml");
    let text = fs::read_to_string(workflow).unwrap();
    let packs = format!(
        "tar -czf \"dist/$name.tar.gz\" -C \"target/$TARGET/release\" {}",
        PROGRAMS.join(" ")
    );
    assert!(text.contains(&packs), "{packs}");
    for program in PROGRAMS {
        let builds = format!("build --package {program} --bin {program}\n");
        assert!(text.contains(&builds), "{builds}");
    }
}

#[test]
fn what_the_core_knows_of_its_plugin_is_what_the_plugin_says() {
    let built = harness::binary().with_file_name(PROGRAMS[1]);
    if !built.exists() {
        harness::skip_without(PROGRAMS[1]);
        return;
    }
    let said = Command::new(built).arg("--manifest").output().unwrap();
    let known = include_str!("../../../crates/tidegate-plugin-cloud/plugin.json");
    assert_eq!(
        String::from_utf8(said.stdout).unwrap().trim_end(),
        known.trim_end(),
        "write it anew: tidegate-plugin-cloud --manifest > crates/tidegate-plugin-cloud/plugin.json"
    );
}

#[test]
fn the_unpacked_archive_keeps_state_in_s3_with_nothing_else_installed() {
    let Some(moto) = Moto::start() else { return };
    let release = harness::binary().parent().unwrap().to_owned();
    if !release.join(PROGRAMS[1]).exists() {
        harness::skip_without(PROGRAMS[1]);
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let archive = folder.path().join("tidegate.tar.gz");
    let unpacked = folder.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    for (folder, arguments) in [
        (
            &release,
            vec!["-cf", archive.to_str().unwrap(), PROGRAMS[0], PROGRAMS[1]],
        ),
        (&unpacked, vec!["-xf", archive.to_str().unwrap()]),
    ] {
        let done = Command::new("tar")
            .arg("-C")
            .arg(folder)
            .args(arguments)
            .status()
            .unwrap();
        assert!(done.success());
    }
    fs::remove_file(&archive).unwrap();
    fs::write(
        unpacked.join("infra.yaml"),
        format!(
            "modules:\n  - {{name: state, type: iac.state, config: {{backend: s3, project: shop, \
             bucket: bucket, region: us-east-1, endpoint: \"{}\"}}}}\n  - {{name: here, type: \
             iac.provider, config: {{provider: local, root: ./resources}}}}\n  - {{name: uploads, \
             type: infra.storage, config: {{provider: here}}}}\n",
            moto.endpoint
        ),
    )
    .unwrap();
    let run = |arguments: &[&str]| {
        Run::of(&unpacked.join(PROGRAMS[0]), &unpacked, arguments)
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "test-0123456789")
            .output()
            .expect_code(0)
            .stderr()
    };
    let first = run(&["up", "-y"]);
    assert!(first.contains("1 to create"), "{first}");
    assert!(!moto.keys().is_empty());
    run(&["infra", "plan", "--detailed-exitcode"]);
    run(&["infra", "destroy", "-y"]);
    assert_eq!(moto.keys(), Vec::<String>::new());
}
