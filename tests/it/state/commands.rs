//! `state …` as a person or a workflow calls it: the built binary, real folders, a real database.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Finished, Run};
use crate::local::cluster::{ADMINISTRATOR_PASSWORD, Cluster};

pub(super) const CONFIG: &str = "\
modules:
  - name: here
    type: iac.provider
    config: {provider: local, root: ./.tidegate/resources}
  - name: files
    type: infra.storage
    config: {provider: here}
  - name: db
    type: infra.database
    config: {provider: here, engine: sqlite}
    dependsOn: [files]
    outputs:
      connection_url:
        sensitive: true
environments:
  dev: {}
  staging: {}
";

pub(super) struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("infra.yaml"), CONFIG).unwrap();
        Self { folder }
    }

    pub(super) fn applied() -> Self {
        let lab = Self::new();
        lab.run("infra apply --env dev --yes").expect_code(0);
        lab
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn prepared(&self, line: &str) -> Run {
        let arguments: Vec<&str> = line.split(' ').collect();
        Run::new(self.folder.path(), &arguments)
    }

    #[track_caller]
    pub(super) fn run(&self, line: &str) -> Finished {
        self.prepared(line).output()
    }

    #[track_caller]
    pub(super) fn json(&self, line: &str) -> Value {
        let done = self.run(&format!("{line} --json")).expect_code(0);
        serde_json::from_str(&done.stdout()).unwrap()
    }

    pub(super) fn names(&self, environment: &str) -> Vec<String> {
        let list = self.json(&format!("state list --env {environment}"));
        let names = list["resources"].as_array().unwrap().iter();
        names
            .map(|row| row["resource"].as_str().unwrap().to_owned())
            .collect()
    }

    fn backups(&self) -> usize {
        std::fs::read_dir(self.path(".tidegate/backups/dev")).map_or(0, Iterator::count)
    }
}

#[test]
fn records_are_listed_shown_and_belong_to_one_environment() {
    let lab = Lab::applied();
    assert_eq!(lab.names("dev"), ["db", "files"]);
    assert_eq!(lab.names("staging"), Vec::<String>::new());
    let list = lab.json("infra state list --env dev --filter resource_type=infra.storage");
    assert_eq!(list["resources"].as_array().unwrap().len(), 1);
    assert_eq!(list["environments"], json!(["dev"]));
    let page = lab.json("state list --env dev --limit 1");
    assert_eq!(page["next"], json!("db"));
    lab.run("state list --env dev --filter name=db")
        .expect_code(2);
    let shown = lab.json("state show db --env dev");
    assert_eq!(
        shown["record"]["tidegate"]["sealed"],
        json!(["connection_url"])
    );
    let text = shown.to_string();
    assert!(
        text.contains("secret_ref://") && !text.contains("sqlite:///"),
        "{text}"
    );
    lab.run("state show nothing --env dev").expect_code(2);
    lab.run("state verify --env dev").expect_code(0);
}

#[test]
fn a_change_needs_approval_and_leaves_a_copy() {
    let lab = Lab::applied();
    // Nobody is here to say yes.
    lab.run("state rm files --env dev").expect_code(2);
    assert_eq!((lab.names("dev").len(), lab.backups()), (2, 0));
    lab.run("state rm files --env dev --yes").expect_code(0);
    assert_eq!(
        (lab.names("dev"), lab.backups()),
        (vec!["db".to_owned()], 1)
    );
    let copy = std::fs::read_dir(lab.path(".tidegate/backups/dev"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    lab.run(&format!("state restore {} --env dev --yes", copy.display()))
        .expect_code(0);
    assert_eq!(lab.names("dev"), ["db", "files"]);
    // It is the copy of dev, and becomes nothing else.
    lab.run(&format!(
        "state restore {} --env staging --yes",
        copy.display()
    ))
    .expect_code(2);
    lab.run("infra plan --env dev --detailed-exitcode")
        .expect_code(0);
    lab.run("state wipe --env staging --yes").expect_code(0);
    lab.run("state wipe --env dev --yes").expect_code(0);
    assert_eq!(lab.names("dev"), Vec::<String>::new());
}

#[test]
fn a_renamed_record_is_the_renamed_resource() {
    let lab = Lab::applied();
    lab.run("state mv files archive --env dev --yes")
        .expect_code(0);
    assert_eq!(lab.names("dev"), ["archive", "db"]);
    lab.run("state mv db store --env dev --yes").expect_code(0);
    // What is sealed opens under its new name.
    lab.run("state verify --env dev").expect_code(0);
    // What it is about is where it was, with all that is in it, until it is destroyed.
    let kept = lab.path(".tidegate/resources/files/kept");
    std::fs::write(&kept, "data").unwrap();
    let renamed = CONFIG
        .replace("files", "archive")
        .replace("name: db", "name: store");
    std::fs::write(lab.path("infra.yaml"), renamed).unwrap();
    lab.run("infra apply --env dev --yes").expect_code(0);
    lab.run("infra plan --env dev --detailed-exitcode")
        .expect_code(0);
    let folders = std::fs::read_dir(lab.path(".tidegate/resources")).unwrap();
    let mut folders: Vec<_> = folders.map(|entry| entry.unwrap().file_name()).collect();
    folders.sort();
    assert_eq!(folders, ["db", "files"]);
    assert!(kept.exists());
    lab.run("state mv store archive --env dev --yes")
        .expect_code(2);
    lab.run("state mv nothing x --env dev --yes").expect_code(2);
    for unusable in ["", "a\nb", "\u{1b}[31mX", "${x}"] {
        let mv = ["state", "mv", "store", unusable, "--env", "dev", "--yes"];
        Run::new(lab.folder.path(), &mv).output().expect_code(2);
    }
    lab.run("infra destroy --env dev --yes").expect_code(0);
    assert!(!lab.path(".tidegate/resources").exists());
}

#[test]
fn a_pulled_state_can_be_pushed_and_a_stale_one_is_refused() {
    let lab = Lab::applied();
    lab.run("state pull --env dev -o one.json").expect_code(0);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(lab.path("one.json"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    lab.run("state mv files archive --env dev --yes")
        .expect_code(0);
    let stale = lab
        .run("state push one.json --env dev --yes")
        .expect_code(5);
    assert!(
        stale.stderr().contains("state/conflict"),
        "{}",
        stale.stderr()
    );
    assert_eq!(lab.names("dev"), ["archive", "db"]);
    lab.run("state push one.json --env dev --yes --force")
        .expect_code(0);
    assert_eq!(lab.names("dev"), ["db", "files"]);
    // What is kept besides records does not count in the serial, and is lost as little.
    lab.run("state pull --env dev -o two.json").expect_code(0);
    super::run(async {
        let store = super::system_store(&lab.path(".tidegate/state"), "dev");
        let lease = super::Store::lock(&store, &super::holder("r-1"), super::NO_WAIT)
            .await
            .unwrap();
        let keepsake = tidegate::state::Keepsake {
            fingerprint: "f".to_owned(),
            sealed: None,
            written_at: String::new(),
        };
        super::Store::put_keepsake(&store, &lease, "secret/LATER", &keepsake)
            .await
            .unwrap();
        super::Store::unlock(&store, &lease).await.unwrap();
    });
    let stale = lab
        .run("state push two.json --env dev --yes")
        .expect_code(5);
    assert!(
        stale.stderr().contains("`secret/LATER`"),
        "{}",
        stale.stderr()
    );
    lab.run("state push two.json --env dev --yes --force")
        .expect_code(0);
    // Another project's state, sealed with another key.
    let other = Lab::applied();
    let foreign = other.path("foreign.json");
    other
        .run(&format!("state pull --env dev -o {}", foreign.display()))
        .expect_code(0);
    let push = format!("state push {} --env dev --yes", foreign.display());
    lab.run(&push).expect_code(5);
    let forced = lab.run(&format!("{push} --force")).expect_code(1);
    assert!(
        forced.stderr().contains("state/other-key"),
        "{}",
        forced.stderr()
    );
    // A document that was edited by hand does not pass for one of ours.
    let text = std::fs::read_to_string(lab.path("one.json")).unwrap();
    std::fs::write(
        lab.path("one.json"),
        text.replace("\"serial\": ", "\"serial\": 9"),
    )
    .unwrap();
    lab.run("state push one.json --env dev --yes --force")
        .expect_code(1);
    assert_eq!(lab.names("dev"), ["db", "files"]);
}

#[test]
fn an_environment_that_has_nothing_is_neither_moved_nor_copied() {
    let lab = Lab::applied();
    for line in [
        "state migrate --to filesystem=other --env staging --yes",
        "state backup --env staging",
    ] {
        let refused = lab.run(line).expect_code(2);
        let text = refused.stderr();
        assert!(
            text.contains("state/empty") && text.contains("that store has `dev`"),
            "{text}"
        );
    }
    let looked = lab.run("state verify --env staging").expect_code(0);
    let text = looked.stderr();
    assert!(text.contains("this store has `dev`"), "{text}");
    assert!(!lab.path(".tidegate/state/staging").exists());
    assert!(!lab.path("other").exists());
    // A lock that was once taken there makes it no more than it was.
    lab.run("state rm nothing --env staging --yes")
        .expect_code(2);
    lab.run("state migrate --to filesystem=other --env staging --yes")
        .expect_code(2);
    lab.run("state migrate --to filesystem=other --env dev --yes")
        .expect_code(0);
}

#[test]
fn damage_is_found_and_named() {
    let lab = Lab::applied();
    let path = lab.path(".tidegate/state/dev/records/db.cbor");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    let found = lab.run("state verify --env dev").expect_code(1);
    assert!(found.stderr().contains("db.cbor"), "{}", found.stderr());
}

fn lock_by_hand(lab: &Lab, run_url: &str) -> super::Holder {
    let store = super::system_store(&lab.path(".tidegate/state"), "dev").with_machine("elsewhere");
    let mut holder = super::holder("r-4711");
    holder.run_url = Some(run_url.to_owned());
    super::run(super::Store::lock(&store, &holder, super::NO_WAIT)).unwrap();
    holder
}

#[test]
fn a_lock_is_freed_by_its_id_or_by_its_own_workflow_run() {
    const URL: &str = "https://forge.test/o/r/actions/runs/77/attempts/2";
    let lab = Lab::applied();
    lock_by_hand(&lab, URL);
    let refused = lab.run("state unlock r-1 --env dev").expect_code(5);
    for told in ["r-4711", "ann@build-3", URL] {
        assert!(
            refused.stderr().contains(told),
            "{told}: {}",
            refused.stderr()
        );
    }
    let list = lab.json("state list --env dev");
    assert_eq!(list["lock"]["run_id"], json!("r-4711"));
    lab.run("state unlock r-4711 --env dev").expect_code(0);
    assert_eq!(lab.json("state list --env dev")["lock"], json!(null));

    let in_run = |attempt: &str| {
        lab.prepared("state unlock --if-mine --env dev")
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_SERVER_URL", "https://forge.test")
            .env("GITHUB_REPOSITORY", "o/r")
            .env("GITHUB_RUN_ID", "77")
            .env("GITHUB_JOB", "deploy")
            .env("RUNNER_NAME", "runner-1")
            .env("GITHUB_RUN_ATTEMPT", attempt)
            .output()
            .expect_code(0)
    };
    lock_by_hand(&lab, URL);
    in_run("1");
    assert_eq!(
        lab.json("state list --env dev")["lock"]["run_id"],
        json!("r-4711")
    );
    in_run("2");
    assert_eq!(lab.json("state list --env dev")["lock"], json!(null));

    // Jobs of one run stand beside each other: each frees its own lock alone, and not while the process
    // that took it lives.
    let of_job = |job: &str, mark: String| {
        let store = super::system_store(&lab.path(".tidegate/state"), "dev").with_machine("there");
        let holder = super::Holder {
            run_url: Some(URL.to_owned()),
            job: job.to_owned(),
            mark,
            ..super::holder("r-4712")
        };
        super::run(super::Store::lock(&store, &holder, super::NO_WAIT)).unwrap();
    };
    let is_held = || !lab.json("state list --env dev")["lock"].is_null();
    of_job("deploy on runner-2", String::new());
    let other = in_run("2").stderr();
    assert!(is_held() && other.contains("another job"), "{other}");
    lab.run("state unlock r-4712 --env dev").expect_code(0);
    let processes = tidegate::process::SystemProcesses::default();
    let alive = tidegate::process::Processes::own_mark(&processes);
    of_job("deploy on runner-1", alive);
    let other = in_run("2").stderr();
    assert!(is_held() && other.contains("still runs"), "{other}");
    lab.run("state unlock r-4712 --env dev").expect_code(0);
    of_job("deploy on runner-1", String::new());
    in_run("2");
    assert!(!is_held());
    lab.run("state unlock --if-mine --env dev").expect_code(2);
    lab.run("state unlock --env dev").expect_code(2);
}

/// The name of a machine says nothing about whether a holder lives: it may have been started anew
/// since, or be another one of the same name.
#[test]
fn a_holder_before_a_restart_is_waited_for_like_any_other() {
    use std::io::{BufRead as _, BufReader};
    let lab = Lab::applied();
    let processes = tidegate::process::SystemProcesses::default();
    let mark = tidegate::process::Processes::own_mark(&processes);
    let (boot, rest) = mark.split_once('/').unwrap();
    let before = format!("{}/{rest}", "0".repeat(boot.len()));
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let holder = super::Holder {
        who: format!("ann@{host}"),
        mark: before,
        ..super::holder("r-4711")
    };
    let store = super::system_store(&lab.path(".tidegate/state"), "dev").with_machine("before");
    super::run(super::Store::lock(&store, &holder, super::NO_WAIT)).unwrap();
    let mut command = lab.prepared("state rm db --env dev --yes").into_command();
    let mut child = command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = lines
        .map_while(Result::ok)
        .find(|line| line.contains("waiting up to"));
    let signal = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    let code = child.wait().unwrap().code();
    assert!(
        said.is_some_and(|line| line.contains(&host)),
        "it ended with {code:?}"
    );
    assert!(signal.unwrap().success());
    assert_eq!(code, Some(130));
}

/// Two projects may be in two places that are called the same.
#[test]
fn a_state_is_not_moved_to_where_it_is() {
    let lab = Lab::applied();
    let name = |folder: &str| {
        let state = format!(
            "modules:\n  - name: state\n    type: iac.state\n    config: {{backend: filesystem, directory: {folder}}}\n"
        );
        CONFIG.replace("modules:\n", &state)
    };
    std::os::unix::fs::symlink(".tidegate", lab.path("linked")).unwrap();
    std::fs::write(lab.path("linked.yaml"), name("./linked/state")).unwrap();
    std::fs::write(lab.path("other.yaml"), name("./other")).unwrap();
    let refused = lab
        .run("state migrate --to linked.yaml --env dev --yes --force")
        .expect_code(2);
    assert!(
        refused.stderr().contains("state/same-store"),
        "{}",
        refused.stderr()
    );
    lab.run("state migrate --to other.yaml --env dev --yes")
        .expect_code(0);
}

#[test]
fn a_project_moves_to_a_database_and_back() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let lab = Lab::applied();
    let before = lab.json("state pull --env dev");
    let database = CONFIG.replace(
        "modules:\n",
        "modules:\n  - name: state\n    type: iac.state\n    config: {backend: postgres, \
         dsn: \"${STATE_DATABASE_URL}\", project: shop}\n",
    );
    std::fs::write(lab.path("database.yaml"), database).unwrap();
    let password = percent_encoding::utf8_percent_encode(
        ADMINISTRATOR_PASSWORD,
        percent_encoding::NON_ALPHANUMERIC,
    );
    let dsn = format!(
        "postgres://admin:{password}@127.0.0.1:{}/postgres?sslmode=disable",
        cluster.port
    );
    let run = |line: &str, code: i32| {
        let done = lab
            .prepared(line)
            .env("STATE_DATABASE_URL", &dsn)
            .output()
            .expect_code(code);
        for stream in [done.stdout(), done.stderr()] {
            assert!(!stream.contains(&*password.to_string()), "{stream}");
            assert!(!stream.contains(ADMINISTRATOR_PASSWORD), "{stream}");
        }
        done
    };
    run("state migrate --to database.yaml --env dev --yes", 0);
    run("state migrate --to database.yaml --env dev --yes", 2);
    // From here on the database is the state; nothing is to be done, and seals open.
    run(
        "infra plan -c database.yaml --env dev --detailed-exitcode",
        0,
    );
    run("state verify -c database.yaml --env dev", 0);
    run("infra apply -c database.yaml --env dev --yes", 0);
    run("state wipe --env dev --yes", 0);
    run(
        "state migrate -c database.yaml --to infra.yaml --env dev --yes",
        0,
    );
    let after = lab.json("state pull --env dev");
    assert_eq!(
        (&after["digest"], &after["lineage"]),
        (&before["digest"], &before["lineage"])
    );
    lab.run("infra plan --env dev --detailed-exitcode")
        .expect_code(0);

    // Their table: out, and into another environment as if it had always been theirs.
    run(
        "state export --format upstream --target-variable STATE_DATABASE_URL --env dev",
        0,
    );
    run(
        "state migrate --from upstream --source-variable STATE_DATABASE_URL --env staging --yes",
        0,
    );
    assert_eq!(lab.names("staging"), ["db", "files"]);
}

fn write_theirs(folder: &Path, name: &str, record: &Value) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(
        folder.join(format!("{name}.json")),
        serde_json::to_string_pretty(record).unwrap(),
    )
    .unwrap();
}

#[test]
fn their_records_are_adopted_and_written_back() {
    const CANARY: &str = "canary-hunter2-canary";
    let lab = Lab::new();
    let theirs = lab.path("iac-state");
    let record = json!({
        "resource_id": "orders-db", "resource_type": "infra.database",
        "provider": "digitalocean", "provider_ref": "do-main",
        "provider_id": "11111111-2222-3333-4444-555555555555",
        "config_hash": "762dfa0519180779e7e6c1c6c7e35776e5e07d0eff11bd98b7eec4cc2d62b8a3",
        "status": "active",
        "config": {"num_nodes": 1, "region": "nyc3"},
        "outputs": {"host": "db.example.test", "port": 25060, "uri": "secret_ref://orders_db__uri"},
        "dependencies": ["core-net"],
        "created_at": "2024-01-02T03:04:05Z", "updated_at": "2024-01-02T03:04:05Z",
    });
    write_theirs(&theirs, "orders-db", &record);
    let mut leaking = record.clone();
    leaking["resource_id"] = json!("cache");
    leaking["outputs"] = json!({"password": CANARY, "host": "c.test"});
    leaking["config"] = json!({"admin_password": CANARY});
    write_theirs(&theirs, "cache", &leaking);
    lab.run("state migrate --from upstream --source iac-state --env dev --yes")
        .expect_code(0);
    assert_eq!(lab.names("dev"), ["cache", "orders-db"]);
    lab.run("state pull --env dev -o all.json").expect_code(0);
    for file in ["all.json", ".tidegate/state/dev/records/cache.cbor"] {
        let bytes = std::fs::read(lab.path(file)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(CANARY), "{file}");
    }
    lab.run("state export --format upstream -o out --env dev")
        .expect_code(0);
    let back: Value =
        serde_json::from_slice(&std::fs::read(lab.path("out/orders-db.json")).unwrap()).unwrap();
    assert_eq!(back, record);
    // What an earlier export left there would be back with this one.
    std::fs::copy(lab.path("out/cache.json"), lab.path("out/gone.json")).unwrap();
    std::fs::remove_file(lab.path("out/cache.json")).unwrap();
    let full = lab
        .run("state export --format upstream -o out --env dev")
        .expect_code(2);
    assert!(full.stderr().contains("gone.json"), "{}", full.stderr());
    assert!(!lab.path("out/cache.json").exists());
    // A folder above them is not an empty one of theirs.
    std::fs::create_dir_all(lab.path("bucket/iac-state")).unwrap();
    let above = lab
        .run("state migrate --from upstream --source bucket --env staging --yes")
        .expect_code(2);
    assert!(above.stderr().contains("iac-state`"), "{}", above.stderr());
    // What they would have skipped without a word stops us.
    std::fs::write(theirs.join("broken.json"), "{").unwrap();
    let refused = lab
        .run("state migrate --from upstream --source iac-state --env staging --yes")
        .expect_code(1);
    assert!(
        refused.stderr().contains("broken.json"),
        "{}",
        refused.stderr()
    );
}

#[test]
fn a_terraform_document_comes_back_to_its_own_records() {
    let lab = Lab::applied();
    lab.run("state export -o out.tfstate --env dev")
        .expect_code(0);
    let text = std::fs::read_to_string(lab.path("out.tfstate")).unwrap();
    assert!(!text.contains("sqlite:///"), "{text}");
    let before = lab.json("state show db --env dev");
    lab.run("state rm files --env dev --yes").expect_code(0);
    lab.run("state import out.tfstate --env dev --yes")
        .expect_code(0);
    assert_eq!(lab.names("dev"), ["db", "files"]);
    let mut after = lab.json("state show db --env dev");
    after["record"]["tidegate"]["version"] = before["record"]["tidegate"]["version"].clone();
    assert_eq!(after, before);
    lab.run("state verify --env dev").expect_code(0);
    lab.run("infra plan --env dev --detailed-exitcode")
        .expect_code(0);
}

#[test]
fn encrypted_records_need_the_key_that_is_kept_elsewhere() {
    let lab = Lab::new();
    let encrypted = CONFIG.replace(
        "modules:\n",
        "modules:\n  - name: state\n    type: iac.state\n    config: {backend: filesystem, \
         directory: ./.tidegate/state, encrypt: true}\n",
    );
    std::fs::write(lab.path("infra.yaml"), encrypted).unwrap();
    let refused = lab.run("infra apply --env dev --yes").expect_code(2);
    assert!(
        refused.stderr().contains("state/encrypt"),
        "{}",
        refused.stderr()
    );
    let key = "7".repeat(64);
    let with_key = |line: &str| lab.prepared(line).env("TIDEGATE_STATE_KEY", &key).output();
    with_key("infra apply --env dev --yes").expect_code(0);
    let bytes = std::fs::read(lab.path(".tidegate/state/dev/records/db.cbor")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    // Whose record it is may be seen, and nothing else.
    assert!(text.contains("db") && bytes.len() > 200, "{text}");
    for word in ["sqlite", "infra.", "active", "config", "outputs"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    with_key("infra plan --env dev --detailed-exitcode").expect_code(0);
    std::fs::write(lab.path("infra.yaml"), CONFIG).unwrap();
    lab.run("state list --env dev").expect_code(1);
}

/// The key is in a file that age encrypted for somebody; whose identity it is decides.
#[test]
fn a_key_file_for_age_recipients_opens_with_an_identity() {
    const IDENTITY: &str =
        "AGE-SECRET-KEY-1TREHAXFDGEQWEALWY8P2W3CZ424FHLUN6ZPYQC0SL3VKLDC8NDZS7MMU87";
    const STRANGER: &str =
        "AGE-SECRET-KEY-10JVJKGJEQQWWU963JTKS5Y0TUAK6M9WYZ2ASGFKXE04U9Q2S3W7SJTGDNA";
    const FILE: &str = "-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBrMjFHbDErNXZFS2dnMm5F
QlY0eTgwc0J6VzFFcmUrM0JxMEZ3a2F3dXc0ClBFZlhlV0ttaTRlaG9DUjJxd1pI
RVFmTTdhSngxcDNPNEd5KzlzcTNhVEUKLT4gWDI1NTE5IFZhNkp6c3ozcUZlSlNp
UmFTdmhsekJYY1NlMXJpRjNhWHRXM2ZMS2ErWHcKMmZTTGlKczhaN3RIYUhUYXhO
bFNMSEs4WnNpVldCOU56TWNDVXl0c2hNWQotPiBgLWdyZWFzZSAmRwp0TVNjN3gr
SFRBZHlnVDlsbzFWaGVRSUQ1T3hGbUIvUXZSZWJkU05XQTJEbUhXQmExbUZ6MmlV
VURMZmJMQVhRCm10ckZpSGovcmVxakI1VQotLS0gazJOUUtrT2xiTGRzMzF1ZXo0
MTVaVG1uQ3dQTlJKMEpiS0xIU3pEZmRyWQpedG1W84t1nQ3SwAgsRKdrbEHFEVaz
o/QqCnzoB9sR0btaYewYVr6Rdwckbvkngtrp09jLV+hTlVUVZxJOHNUG8HKgeLmW
xlewtSVBI1ym62tV/ex7to4DOdudLArMTSn/
-----END AGE ENCRYPTED FILE-----
";
    let lab = Lab::new();
    let config = CONFIG.replace(
        "modules:\n",
        "modules:\n  - name: state\n    type: iac.state\n    config: {backend: filesystem, \
         directory: ./.tidegate/state, encrypt: true, key_file: state-key.age}\n",
    );
    std::fs::write(lab.path("infra.yaml"), &config).unwrap();
    std::fs::write(lab.path("state-key.age"), FILE).unwrap();
    let with = |identity: &str, line: &str| {
        lab.prepared(line)
            .env("TIDEGATE_AGE_IDENTITY", identity)
            .output()
    };
    for (finished, told) in [
        (
            lab.run("infra apply --env dev --yes"),
            "no identity was given",
        ),
        (
            with(STRANGER, "infra apply --env dev --yes"),
            "not encrypted for",
        ),
        (
            with("nobody", "infra apply --env dev --yes"),
            "no age identity",
        ),
    ] {
        let refused = finished.expect_code(2);
        let text = refused.stderr();
        assert!(
            text.contains("settings/state-key") && text.contains(told),
            "{told}: {text}"
        );
        assert!(!text.contains("AGE-SECRET-KEY-1T"), "{text}");
    }
    assert!(!lab.path(".tidegate/state/dev").exists());
    with(IDENTITY, "infra apply --env dev --yes").expect_code(0);
    assert!(!lab.path(".tidegate/state/dev/key").exists());
    // From a file it is as good; and the key in the file is the one that seals.
    let config = config.replace("state-key.age}", "state-key.age, identity_file: me.txt}");
    std::fs::write(lab.path("infra.yaml"), config).unwrap();
    std::fs::write(lab.path("me.txt"), format!("# me\n{IDENTITY}\n")).unwrap();
    lab.run("state verify --env dev").expect_code(0);
    std::fs::remove_file(lab.path("state-key.age")).unwrap();
    lab.prepared("state verify --env dev")
        .env("TIDEGATE_STATE_KEY", &"5a".repeat(32))
        .output()
        .expect_code(0);
}

#[test]
fn a_memory_state_says_that_it_forgets() {
    let lab = Lab::new();
    let memory = CONFIG.replace(
        "modules:\n",
        "modules:\n  - name: state\n    type: iac.state\n    config: {backend: memory}\n",
    );
    std::fs::write(lab.path("infra.yaml"), memory).unwrap();
    let done = lab.run("state list --env dev").expect_code(0);
    assert!(done.stderr().contains("state/forgets"), "{}", done.stderr());
    assert!(!lab.path(".tidegate").exists());
}
