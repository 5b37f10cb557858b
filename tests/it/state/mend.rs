//! Getting back what was damaged, removed or moved: backups, their keys, and what can be read.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::commands::{CONFIG, Lab};

fn flip(lab: &Lab, name: &str) {
    let path = lab.path(&format!(".tidegate/state/dev/records/{name}.cbor"));
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

/// The files in the folder of copies that end so, oldest first.
fn copies(lab: &Lab, end: &str) -> Vec<PathBuf> {
    let folder = lab.path(".tidegate/backups/dev");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    paths.retain(|path| path.to_string_lossy().ends_with(end));
    paths.sort();
    paths
}

#[test]
fn a_damaged_state_is_named_in_full_and_recovered_in_every_way() {
    let lab = Lab::applied();
    lab.run("state backup --env dev -o copy.json")
        .expect_code(0);
    let whole = lab.json("state pull --env dev");
    flip(&lab, "db");
    flip(&lab, "files");
    let found = lab.run("state verify --env dev").expect_code(1);
    for name in ["db.cbor", "files.cbor", "state restore", "--force"] {
        assert!(found.stderr().contains(name), "{name}: {}", found.stderr());
    }
    for line in ["state rm db", "state push copy.json", "state wipe"] {
        let refused = lab.run(&format!("{line} --env dev --yes")).expect_code(1);
        let text = refused.stderr();
        assert!(text.contains("state/corrupt"), "{line}: {text}");
    }
    // A backup replaces everything.
    lab.run("state restore copy.json --env dev --yes")
        .expect_code(0);
    lab.run("state verify --env dev").expect_code(0);
    assert_eq!(lab.json("state pull --env dev")["digest"], whole["digest"]);
    flip(&lab, "db");
    lab.run("state push copy.json --force --env dev --yes")
        .expect_code(0);
    lab.run("state verify --env dev").expect_code(0);
    lab.run("infra plan --env dev --detailed-exitcode")
        .expect_code(0);
    // Without one, what is damaged is dropped by name, and nothing that was not named.
    flip(&lab, "db");
    flip(&lab, "files");
    let refused = lab
        .run("state rm db --force --env dev --yes")
        .expect_code(2);
    assert!(refused.stderr().contains("`files`"), "{}", refused.stderr());
    lab.run("state restore copy.json --env dev --yes")
        .expect_code(0);
    flip(&lab, "db");
    lab.run("state rm db --force --env dev --yes")
        .expect_code(0);
    assert_eq!(lab.names("dev"), ["files"]);
    lab.run("state verify --env dev").expect_code(0);
    flip(&lab, "files");
    lab.run("state wipe --force --env dev --yes").expect_code(0);
    assert_eq!(lab.names("dev"), Vec::<String>::new());
}

#[test]
fn a_wiped_state_comes_back_with_its_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::applied();
    let key = std::fs::read(lab.path(".tidegate/state/dev/key")).unwrap();
    lab.run("state backup --env dev -o plain.json")
        .expect_code(0);
    assert!(!lab.path("plain.json.key").exists());
    lab.run("state backup --with-key --env dev -o both.json")
        .expect_code(0);
    assert_eq!(std::fs::read(lab.path("both.json.key")).unwrap(), key);
    lab.run("state wipe --env dev --yes").expect_code(0);
    let (copy, beside) = (
        copies(&lab, ".json").remove(0),
        copies(&lab, ".key").remove(0),
    );
    assert_eq!(std::fs::read(&beside).unwrap(), key);
    let mode = std::fs::metadata(&beside).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let restore = format!("state restore {} --env dev --yes", copy.display());
    lab.run(&restore).expect_code(0);
    lab.run("state verify --env dev").expect_code(0);
    lab.run("infra plan --env dev --detailed-exitcode")
        .expect_code(0);

    // The copy without its key, into a state that has begun anew with another one.
    lab.run("state wipe --env dev --yes").expect_code(0);
    std::fs::remove_dir_all(lab.path(".tidegate/resources")).unwrap();
    lab.run("infra apply --env dev --yes").expect_code(0);
    let restore = "state restore plain.json --env dev --yes";
    let refused = lab.run(restore).expect_code(1);
    assert!(
        refused.stderr().contains("state/other-key"),
        "{}",
        refused.stderr()
    );
    lab.prepared(&format!("{restore} --key-file both.json.key"))
        .env("TIDEGATE_STATE_KEY", &"7".repeat(64))
        .output()
        .expect_code(1);
    lab.run("state verify --env dev").expect_code(0);
    lab.run(&format!("{restore} --key-file both.json.key"))
        .expect_code(0);
    lab.run("state verify --env dev").expect_code(0);
    // What was replaced was sealed with a key of its own, which is kept as well.
    let keys = copies(&lab, ".key");
    assert!(keys.iter().any(|path| std::fs::read(path).unwrap() != key));
}

#[test]
fn a_key_that_is_kept_outside_is_not_laid_open() {
    let lab = Lab::new();
    let with = |state: &str| {
        CONFIG.replace(
            "modules:\n",
            &format!("modules:\n  - name: state\n    type: iac.state\n    config: {{{state}}}\n"),
        )
    };
    let source = "backend: filesystem, directory: ./one, encrypt: true, key_file: state.key";
    std::fs::write(lab.path("infra.yaml"), with(source)).unwrap();
    std::fs::write(lab.path("state.key"), "5a".repeat(32)).unwrap();
    lab.run("infra apply --env dev --yes").expect_code(0);
    lab.run("state backup --with-key --env dev -o copy.json")
        .expect_code(0);
    assert!(!lab.path("copy.json.key").exists());
    // A folder is kept as the store it comes from.
    lab.run("state migrate --to filesystem=two --env dev --yes")
        .expect_code(0);
    assert!(!lab.path("two/dev/key").exists());
    let bytes = std::fs::read(lab.path("two/dev/records/db.cbor")).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("infra.database"));
    // Another store has to have the key from outside, too, or be told to keep it.
    let open = with("backend: filesystem, directory: ./three");
    std::fs::write(lab.path("open.yaml"), open).unwrap();
    let migrate = "state migrate --to open.yaml --env dev --yes";
    let refused = lab.run(migrate).expect_code(2);
    assert!(
        refused.stderr().contains("state/open-key"),
        "{}",
        refused.stderr()
    );
    assert!(!lab.path("three").exists());
    lab.run(&format!("{migrate} --key-in-store")).expect_code(0);
    let key = std::fs::read_to_string(lab.path("three/dev/key")).unwrap();
    assert_eq!(key.trim(), "5a".repeat(32));
    lab.run("state verify -c open.yaml --env dev")
        .expect_code(0);
}

/// A store that does not answer holds nobody who wants to stop.
#[test]
fn a_wait_for_the_store_ends_with_a_signal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lab = Lab::new();
    let config = CONFIG.replace(
        "modules:\n",
        &format!(
            "modules:\n  - name: state\n    type: iac.state\n    config: {{backend: postgres, \
             project: shop, dsn: \"postgres://a:b@127.0.0.1:{}/c?sslmode=disable\"}}\n",
            listener.local_addr().unwrap().port()
        ),
    );
    std::fs::write(lab.path("infra.yaml"), config).unwrap();
    for line in ["state list", "state verify", "state rm db --yes"] {
        let mut command = lab.prepared(&format!("{line} --env dev")).into_command();
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Connected, and never answered.
        let (_stream, _) = listener.accept().unwrap();
        let signal = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap();
        assert!(signal.success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "{line}");
    }
}
