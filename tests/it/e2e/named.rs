//! Files that people name on the command line, and files that a config names.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::Path;
use std::process::Command;

use crate::harness::{Finished, Run};

const CONFIG: &str = "\
modules:
  - {name: here, type: iac.provider, config: {provider: local, root: ./made}}
  - {name: a, type: infra.storage, config: {provider: here}}
  - {name: b, type: infra.storage, config: {provider: here}}
";

fn run(folder: &Path, arguments: &[&str]) -> Finished {
    Run::new(folder, arguments).output()
}

fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("infra.yaml"), CONFIG).unwrap();
    folder
}

#[test]
fn what_is_named_for_a_document_keeps_what_it_is() {
    let folder = project();
    let folder = folder.path();
    let plan = |file: &str| run(folder, &["infra", "plan", "-o", file]);
    plan("p.json").expect_code(0);
    // A link stays one; what it leads to is written.
    fs::write(folder.join("target.json"), "{}").unwrap();
    symlink("target.json", folder.join("link.json")).unwrap();
    plan("link.json").expect_code(0);
    assert!(folder.join("link.json").is_symlink());
    assert!(
        fs::read_to_string(folder.join("target.json"))
            .unwrap()
            .len()
            > 10
    );
    // A pipe gets the bytes and stays a pipe.
    let pipe = folder.join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let reader = Command::new("cat")
        .arg(&pipe)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    plan("pipe").expect_code(0);
    let read = reader.wait_with_output().unwrap().stdout;
    serde_json::from_slice::<serde_json::Value>(&read).unwrap();
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    // A later plan replaces an earlier one.
    plan("p.json").expect_code(0);
}

#[test]
fn a_slip_of_the_fingers_overwrites_neither_config_nor_state() {
    let folder = project();
    let folder = folder.path();
    run(folder, &["up"]).expect_code(0);
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    let head = ".tidegate/state/default/head.json";
    for file in ["infra.yaml", "notes.txt", head, "made"] {
        let before = fs::read(folder.join(file)).ok();
        for arguments in [
            &["infra", "plan", "-o", file][..],
            &["infra", "apply", "--yes", "--report", file],
            &["state", "pull", "-o", file],
            &["state", "backup", "-o", file],
        ] {
            let refused = run(folder, arguments);
            assert_ne!(refused.code(), 0, "{arguments:?}");
            assert!(
                refused.stderr().contains("is not replaced"),
                "{}",
                refused.stderr()
            );
        }
        assert_eq!(fs::read(folder.join(file)).ok(), before, "{file}");
    }
    run(folder, &["state", "verify"]).expect_code(0);
}

#[test]
fn an_import_is_a_file_on_a_disk() {
    let folder = project();
    for import in [
        "/proc/self/environ",
        "/proc/version",
        "/dev/zero",
        "/sys/kernel/notes",
    ] {
        fs::write(
            folder.path().join("infra.yaml"),
            format!("imports: [{import}]\n{CONFIG}"),
        )
        .unwrap();
        let refused = Run::new(folder.path(), &["config", "validate"])
            .env("GH_TOKEN", "ghp_verysecrettoken0123456789")
            .output();
        if !Path::new(import).exists() {
            continue;
        }
        assert_eq!(refused.code(), 2, "{import}");
        let text = refused.stderr();
        assert!(text.contains("config/unreadable-import"), "{text}");
        assert!(
            text.contains("a file on a disk") || text.contains("a device"),
            "{text}"
        );
        assert!(!text.contains("ghp_"), "{text}");
    }
}

#[test]
fn apply_forgets_what_is_gone_and_knows_the_flags_of_others() {
    let folder = project();
    let folder = folder.path();
    run(folder, &["up"]).expect_code(0);
    fs::remove_dir_all(folder.join("made/a")).unwrap();
    let done = run(
        folder,
        &[
            "infra",
            "apply",
            "--yes",
            "--refresh",
            "--refresh-outputs",
            "--wait",
        ],
    );
    let done = done.expect_code(0);
    assert!(
        done.stderr().contains("Forgetting `a`"),
        "{}",
        done.stderr()
    );
    assert!(
        done.stderr().contains("`--wait` changes nothing"),
        "{}",
        done.stderr()
    );
    assert!(folder.join("made/a").exists(), "and makes it again");
    for flag in ["--skip-refresh", "--skip-bootstrap"] {
        let done = run(folder, &["infra", "apply", "--yes", flag]).expect_code(0);
        assert!(
            done.stderr().contains(&format!("`{flag}` changes nothing")),
            "{}",
            done.stderr()
        );
    }
    let refused = run(
        folder,
        &[
            "infra",
            "apply",
            "--yes",
            "--refresh",
            "--allow-protected-prune",
        ],
    );
    let refused = refused.expect_code(2);
    assert!(
        refused.stderr().contains("--allow-replace NAME"),
        "{}",
        refused.stderr()
    );
    for arguments in [
        &["infra", "apply", "--refresh", "--dry-run"][..],
        &["infra", "apply", "--refresh", "--plan", "p.json"],
    ] {
        run(folder, arguments).expect_code(2);
    }
}

#[test]
fn a_file_of_five_thousand_mistakes_is_refused_shortly() {
    let folder = project();
    let mut config = CONFIG.to_owned();
    for number in 0..5_000 {
        config.push_str(&format!(
            "  - {{name: m{number}, type: infra.storage, config: {{provider: nowhere}}}}\n"
        ));
    }
    fs::write(folder.path().join("infra.yaml"), config).unwrap();
    let refused = run(folder.path(), &["config", "validate"]).expect_code(2);
    let text = refused.stderr();
    assert!(text.contains("and 4500 more problems"), "{}", text.len());
    assert_eq!(text.matches("error[config/unknown-provider]").count(), 500);
}

#[test]
fn a_slip_on_the_command_line_is_answered_with_what_was_meant() {
    let folder = project();
    let help = run(folder.path(), &["help", "infra", "plan"])
        .expect_code(0)
        .stdout();
    assert!(help.contains("Usage: tidegate infra plan"), "{help}");
    run(folder.path(), &["help"]).expect_code(0);
    let slip = run(folder.path(), &["up", "--evn", "dev"])
        .expect_code(2)
        .stderr();
    assert!(slip.contains("Did you mean `--env`?"), "{slip}");
    assert!(!slip.contains("-- --evn"), "{slip}");
    let dash = run(folder.path(), &["config", "validate", "-c", "-"])
        .expect_code(2)
        .stderr();
    assert!(dash.contains("cli/config-from-stdin"), "{dash}");
    let script = run(folder.path(), &["completions", "fish"])
        .expect_code(0)
        .stdout();
    assert!(
        script.contains("destroy") && !script.contains("composite action"),
        "{script}"
    );
}

#[test]
fn a_step_hands_on_the_document_of_whatever_it_ran() {
    for (pairs, code, wanted) in [
        (
            &[("TIDEGATE_INPUT_COMMAND", "version")][..],
            0,
            "\"version\"",
        ),
        (
            &[("TIDEGATE_INPUT_COMMAND", "config schema")],
            0,
            "\"$schema\"",
        ),
        (
            &[("TIDEGATE_INPUT_ARGS", "'open")],
            2,
            "the input `args` has an unfinished quote",
        ),
        // A blank command is no command: it is `up`, which finds no config here.
        (&[("TIDEGATE_INPUT_COMMAND", "  ")], 2, "\"command\":\"up\""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("output");
        fs::write(&output, "").unwrap();
        let mut step = Run::new(folder.path(), &["action"])
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_OUTPUT", output.to_str().unwrap());
        for (name, value) in pairs {
            step = step.env(name, value);
        }
        step.output().expect_code(code);
        let text = fs::read_to_string(&output).unwrap();
        assert!(text.contains(wanted), "{pairs:?}: {text}");
    }
}

#[test]
fn a_proxy_that_is_not_there_is_named_and_the_host_is_not_blamed() {
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "deploy",
        "verify",
        "--url",
        "http://shop.test/x",
        "--timeout",
        "1s",
        "--max-retries",
        "0",
    ];
    let closed = Run::new(folder.path(), &words)
        .env("HTTP_PROXY", "http://user:proxy-pass-1@127.0.0.1:1")
        .output()
        .expect_code(4);
    let said = closed.stderr() + &closed.stdout();
    assert!(said.contains("the proxy 127.0.0.1:1"), "{said}");
    assert!(!said.contains("proxy-pass-1"), "{said}");
}

#[test]
fn a_variable_that_is_no_text_is_neither_unset_nor_its_default() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().unwrap();
    for text in ["${XV:-sqlite}", "${XV}"] {
        let config = format!(
            "modules:\n  - {{name: here, type: iac.provider, config: {{provider: local, root: ./r}}}}\n  \
             - {{name: d, type: infra.database, config: {{provider: here, engine: '{text}'}}}}\n"
        );
        fs::write(folder.path().join("infra.yaml"), config).unwrap();
        let output = Run::new(folder.path(), &["config", "validate"])
            .into_command()
            .env("XV", std::ffi::OsStr::from_bytes(b"sq\xfflite"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("config/unreadable-variable"), "{said}");
        assert!(!said.contains("is not set"), "{said}");
    }
}
