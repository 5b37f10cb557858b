//! Getting back what was damaged, removed or moved: backups, their keys, and what can be read.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tidegate::random::SystemRandom;
use tidegate::resource::{ActionKind, Kind};
use tidegate::secret::Keyring;
use tidegate::state::{Entry, Keepsake, Store as _};

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

/// What is replaced comes back, in the place where one looks for it, with the key that opens it.
#[test]
fn what_a_migration_replaces_comes_back() {
    let (source, target) = (Lab::applied(), Lab::applied());
    let key = std::fs::read(target.path(".tidegate/state/dev/key")).unwrap();
    let digest = target.json("state pull --env dev")["digest"].clone();
    let migrate = format!(
        "state migrate --to {} --env dev --yes --force",
        target.path("infra.yaml").display()
    );
    source.run(&migrate).expect_code(0);
    target.run("state verify --env dev").expect_code(0);
    let now = std::fs::read(target.path(".tidegate/state/dev/key")).unwrap();
    assert_ne!(now, key);
    assert!(!source.path(".tidegate/backups").exists());
    let copy = copies(&target, ".json").remove(0);
    target
        .run(&format!("state restore {} --env dev --yes", copy.display()))
        .expect_code(0);
    let back = std::fs::read(target.path(".tidegate/state/dev/key")).unwrap();
    assert_eq!(back, key);
    assert_eq!(target.json("state pull --env dev")["digest"], digest);
    target.run("state verify --env dev").expect_code(0);
}

/// A key that is lost, or does not open anything any more, is put back like the rest.
#[test]
fn a_lost_key_comes_back_with_a_backup() {
    let lab = Lab::applied();
    lab.run("state backup --with-key --env dev -o both.json")
        .expect_code(0);
    let path = lab.path(".tidegate/state/dev/key");
    let key = std::fs::read(&path).unwrap();
    for damaged in [None, Some("short")] {
        match damaged {
            None => std::fs::remove_file(&path).unwrap(),
            Some(text) => std::fs::write(&path, text).unwrap(),
        }
        lab.run("state verify --env dev").expect_code(1);
        lab.run("state restore both.json --env dev --yes")
            .expect_code(0);
        assert_eq!(std::fs::read(&path).unwrap(), key);
        lab.run("state verify --env dev").expect_code(0);
    }
}

/// Without its head a state can be neither read nor locked; a backup takes its place all the same, or
/// nothing does.
#[test]
fn a_state_whose_head_is_damaged_is_replaced_or_removed() {
    let lab = Lab::applied();
    let whole = lab.json("state pull --env dev");
    lab.run("state backup --env dev -o copy.json")
        .expect_code(0);
    let head = lab.path(".tidegate/state/dev/head.json");
    let cut = || std::fs::write(&head, "{").unwrap();
    cut();
    for line in [
        "state pull --env dev",
        "state rm db --force --env dev --yes",
        "state push copy.json --env dev --yes",
        "state wipe --env dev --yes",
    ] {
        let refused = lab.run(line).expect_code(1);
        let text = refused.stderr();
        assert!(text.contains("state wipe --force"), "{line}: {text}");
    }
    let restored = lab
        .run("state restore copy.json --env dev --yes")
        .expect_code(0);
    assert!(restored.stderr().contains("nobody can read any more"));
    lab.run("state verify --env dev").expect_code(0);
    assert_eq!(lab.json("state pull --env dev")["digest"], whole["digest"]);
    lab.run("infra plan --env dev --detailed-exitcode")
        .expect_code(0);
    // What is wrong with one environment is told to those who ask for that one.
    cut();
    assert_eq!(
        lab.json("state list --env staging")["environments"],
        serde_json::json!(["dev"])
    );
    lab.run("state wipe --force --env dev --yes").expect_code(0);
    assert!(!lab.path(".tidegate/state").exists());
}

/// A head that is gone is no proof that nothing is recorded.
#[test]
fn records_without_a_head_are_not_passed_over() {
    let lab = Lab::applied();
    let head = lab.path(".tidegate/state/dev/head.json");
    std::fs::remove_file(&head).unwrap();
    for line in ["state verify --env dev", "infra destroy --env dev --yes"] {
        let refused = lab.run(line).expect_code(1);
        assert!(
            refused.stderr().contains("head.json"),
            "{}",
            refused.stderr()
        );
    }
    lab.run("infra apply --env dev --yes").expect_code(0);
    lab.run("state verify --env dev").expect_code(0);
    lab.run("infra destroy --env dev --yes").expect_code(0);
    assert!(!lab.path(".tidegate/state").exists());
}

/// A key that is given from outside does not lie beside what it opens any more.
#[test]
fn a_key_that_moves_outside_leaves_the_folder() {
    let lab = Lab::applied();
    let path = lab.path(".tidegate/state/dev/key");
    let key = std::fs::read_to_string(&path).unwrap();
    lab.prepared("infra apply --env dev --yes")
        .env("TIDEGATE_STATE_KEY", key.trim())
        .output()
        .expect_code(0);
    assert!(!path.exists());
    lab.run("state verify --env dev").expect_code(1);
    lab.prepared("state verify --env dev")
        .env("TIDEGATE_STATE_KEY", key.trim())
        .output()
        .expect_code(0);
}

/// A backup knows nothing of a run that was cut off after it was made, and loses nothing of it.
#[test]
fn what_is_unsettled_outlives_a_restore() {
    let lab = Lab::applied();
    lab.run("state backup --with-key --env dev -o one.json")
        .expect_code(0);
    let first = hex(&std::fs::read(lab.path(".tidegate/state/dev/key")).unwrap());
    let cut_off = |key: [u8; 32]| {
        super::run(async {
            let store = super::system_store(&lab.path(".tidegate/state"), "dev");
            let lease = store
                .lock(&super::holder("r-1"), super::NO_WAIT)
                .await
                .unwrap();
            let intent = Entry::Intent {
                operation: "op".to_owned(),
                address: super::address("made"),
                kind: Kind::new("infra.storage"),
                provider: "here".to_owned(),
                action: ActionKind::Create,
                config_hash: String::new(),
                at: String::new(),
                before: tidegate::state::journal::Before::default(),
            };
            store.journal_append(&lease, &[intent]).await.unwrap();
            let sealed = Keyring::new(&key).seal_bytes(&SystemRandom, "dev/deposed/db", b"[]");
            let old = Keepsake {
                fingerprint: String::new(),
                sealed: Some(sealed),
                written_at: String::new(),
            };
            store
                .put_keepsake(&lease, "deposed/db", &old)
                .await
                .unwrap();
            store.unlock(&lease).await.unwrap();
        });
    };
    let is_there = |key: [u8; 32]| {
        let pulled = lab.path("pulled.json");
        std::fs::remove_file(&pulled).ok();
        lab.run("state pull --env dev -o pulled.json")
            .expect_code(0);
        let document: serde_json::Value =
            serde_json::from_slice(&std::fs::read(pulled).unwrap()).unwrap();
        let journal = document["journal"].as_array().unwrap();
        assert!(journal.iter().any(|entry| entry["operation"] == "op"));
        let sealed = document["keepsakes"]["deposed/db"]["sealed"].as_str();
        let opened = Keyring::new(&key).open_bytes("dev/deposed/db", sealed.unwrap());
        assert_eq!(&**opened.unwrap(), b"[]");
    };
    cut_off(first);
    let restored = lab
        .run("state restore one.json --env dev --yes")
        .expect_code(0);
    let told = format!("{}{}", restored.stdout(), restored.stderr());
    for stays in ["the intent to create `made`", "the old `db`"] {
        assert!(told.contains(stays), "{stays}: {told}");
    }
    is_there(first);

    // Into a state that has begun anew with another key.
    lab.run("state wipe --env dev --yes").expect_code(0);
    std::fs::remove_dir_all(lab.path(".tidegate/resources")).unwrap();
    lab.run("infra apply --env dev --yes").expect_code(0);
    let second = hex(&std::fs::read(lab.path(".tidegate/state/dev/key")).unwrap());
    assert_ne!(first, second);
    cut_off(second);
    lab.run("state restore one.json --env dev --yes")
        .expect_code(0);
    is_there(first);
}

/// A key as its file has it.
fn hex(text: &[u8]) -> [u8; 32] {
    let text = std::str::from_utf8(text).unwrap().trim();
    let mut key = [0; 32];
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap();
    }
    key
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

/// A link to the state's folder is its owner's, and stays.
#[test]
fn a_state_folder_behind_a_link_is_emptied_and_the_link_left() {
    let lab = Lab::new();
    let config = CONFIG.replace(
        "modules:\n",
        "modules:\n  - name: state\n    type: iac.state\n    config: {backend: filesystem, directory: ./linked}\n",
    );
    std::fs::write(lab.path("infra.yaml"), config).unwrap();
    std::fs::create_dir(lab.path("real")).unwrap();
    std::os::unix::fs::symlink("real", lab.path("linked")).unwrap();
    lab.run("infra apply --env dev --yes").expect_code(0);
    lab.run("infra destroy --env dev --yes").expect_code(0);
    assert!(lab.path("linked").is_symlink());
    assert_eq!(std::fs::read_dir(lab.path("real")).unwrap().count(), 0);
}

/// What a config does not mention is deleted: two of them do not share a state unless somebody says so.
#[test]
fn a_config_beside_another_one_has_no_state_of_it() {
    let lab = Lab::applied();
    let records = lab.names("dev");
    let blog = CONFIG.replace("db", "blog").replace("files", "pages");
    std::fs::write(lab.path("blog.yaml"), &blog).unwrap();
    for line in [
        "infra plan -c blog.yaml --env dev",
        "infra destroy -c blog.yaml --env dev --yes",
        "infra apply -c blog.yaml --env dev --yes",
        "state list -c blog.yaml --env dev",
    ] {
        let refused = lab.run(line).expect_code(2);
        let text = refused.stderr();
        assert!(
            text.contains("state/other-config") && text.contains("`infra.yaml`"),
            "{line}: {text}"
        );
    }
    assert_eq!(lab.names("dev"), records);
    // Under a new name it is the same config still.
    std::fs::rename(lab.path("infra.yaml"), lab.path("shop.yaml")).unwrap();
    let renamed = lab
        .run("infra plan -c shop.yaml --env dev --detailed-exitcode")
        .expect_code(0);
    assert!(renamed.stderr().contains("made with `infra.yaml`"));
    // One that has nothing in common with what is recorded says that this state is meant.
    let meant = CONFIG.replace(
        "modules:\n",
        "modules:\n  - name: state\n    type: iac.state\n    config: {backend: filesystem, directory: ./.tidegate/state}\n",
    );
    std::fs::write(lab.path("shop.yaml"), meant).unwrap();
    lab.run("infra plan -c shop.yaml --env dev --detailed-exitcode")
        .expect_code(0);
    // Where nothing is recorded any more, anybody may begin.
    lab.run("infra destroy -c shop.yaml --env dev --yes")
        .expect_code(0);
    lab.run("infra apply -c blog.yaml --env dev --yes")
        .expect_code(0);
    assert_eq!(
        lab.json("state list -c blog.yaml --env dev")["environments"],
        serde_json::json!(["dev"])
    );
}

/// Two configs of one folder, each with a state of its own, give theirs up in the same moment.
#[test]
fn what_two_configs_wiped_comes_back_to_each() {
    let lab = Lab::new();
    let mut digests = Vec::new();
    for name in ["a", "b"] {
        let state = format!(
            "modules:\n  - {{name: state, type: iac.state, config: {{backend: filesystem, directory: ./{name}}}}}\n"
        );
        let config = CONFIG
            .replace("modules:\n", &state)
            .replace("./.tidegate/resources", &format!("./made-{name}"));
        std::fs::write(lab.path(&format!("{name}.yaml")), config).unwrap();
        lab.run(&format!("infra apply -c {name}.yaml --env dev --yes"))
            .expect_code(0);
        let pulled = lab.json(&format!("state pull -c {name}.yaml --env dev"));
        digests.push(pulled["digest"].clone());
    }
    for name in ["a", "b"] {
        lab.run(&format!("state wipe -c {name}.yaml --env dev --yes"))
            .expect_code(0);
    }
    let kept = copies(&lab, ".json");
    assert_eq!((kept.len(), copies(&lab, ".key").len()), (2, 2), "{kept:?}");
    for (name, digest) in ["a", "b"].into_iter().zip(digests) {
        let restored = kept.iter().any(|copy| {
            lab.run(&format!(
                "state restore {} -c {name}.yaml --env dev --yes",
                copy.display()
            ))
            .expect_code(0);
            lab.json(&format!("state pull -c {name}.yaml --env dev"))["digest"] == digest
        });
        assert!(restored, "{name}");
        lab.run(&format!("state verify -c {name}.yaml --env dev"))
            .expect_code(0);
    }
}
