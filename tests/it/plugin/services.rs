//! Services that a person asks for by a command of their own, through the real binary, at a Go plugin and
//! at one on our SDK: scaling, repairs of migrations, owners that stand in the way.

use serde_json::{Value as Json, json};

use super::*;
use crate::harness::{Finished, Run};

const CONFIG: &str = r#"modules:
  - name: cloud
    type: iac.provider
    config: {provider: files, root: @ROOT@, region: here1}
  - name: state
    type: iac.state
    config: {backend: filesystem, directory: ./state}
  - name: net
    type: infra.vpc
    config: {provider: cloud, size: s, tag: mine}
  - name: db
    type: infra.database
    config: {provider: cloud, size: s, tag: mine}
environments:
  dev: {}
"#;

const REPAIR: &str = "migrations repair-dirty --app net --database db --job-image shop:1 \
    --source-dir /migrations --expected-dirty-version 7 --force-version 6";

struct Project(tempfile::TempDir);

impl Project {
    fn new(executable: &Path) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        install(&project.path("data/plugins"), "files", executable);
        let root = project.path("root").display().to_string();
        fs::write(project.path("infra.yaml"), CONFIG.replace("@ROOT@", &root)).unwrap();
        project
    }

    fn applied(executable: &Path) -> Self {
        let project = Self::new(executable);
        project.run("infra apply --yes").expect_code(0);
        project
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.0.path().join(relative)
    }

    fn start(&self, line: &str) -> Run {
        let mut arguments: Vec<&str> = line.split_ascii_whitespace().collect();
        arguments.extend(["--env", "dev"]);
        Run::new(self.0.path(), &arguments).env("FILES_TOKEN", "files_pat_9dK2mQx7Lr0vB4tN")
    }

    fn run(&self, line: &str) -> Finished {
        self.start(line).output()
    }

    #[track_caller]
    fn json(&self, line: &str, code: i32) -> Json {
        let finished = self.run(&format!("{line} --json")).expect_code(code);
        serde_json::from_str(&finished.stdout()).unwrap()
    }

    /// What is at the provider.
    fn live(&self, kind: &str, name: &str) -> Option<Json> {
        let text = fs::read(self.path(&format!("root/{kind}__{name}.json"))).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Makes a resource somebody's, at the provider.
    fn give(&self, kind: &str, name: &str, owner: &str) {
        let mut resource = self.live(kind, name).unwrap();
        resource["owner"] = owner.into();
        let path = self.path(&format!("root/{kind}__{name}.json"));
        fs::write(path, resource.to_string()).unwrap();
    }
}

fn each(test: impl Fn(&Path)) {
    test(go::own_executable());
    match go::executable() {
        Some(executable) => test(executable),
        None => harness::skip_without("go"),
    }
}

#[test]
fn a_resource_is_scaled_and_its_record_follows() {
    each(|executable| {
        let project = Project::applied(executable);
        let document = project.json("infra scale net --replicas 3", 0);
        assert_eq!(
            (&document["resource"], &document["replicas"]),
            (&json!("net"), &json!(3))
        );
        assert_eq!(document["changes"][0]["path"], "outputs.version");
        let live = project.live("infra.vpc", "net").unwrap();
        assert_eq!(live["config"]["instance_count"], 3);
        let shown = project.json("infra outputs -m net", 0);
        assert_eq!(shown["outputs"]["net"]["version"]["value"], live["version"]);

        let unknown = project.json("infra scale nobody --replicas 1", 2);
        assert_eq!(unknown["problems"][0]["code"], "outputs/unknown-module");

        // What belongs to somebody else is theirs to scale.
        project.give("infra.vpc", "net", "team-b");
        let refused = project.json("infra scale net --replicas 9", 1);
        assert_eq!(refused["problems"][0]["code"], "apply/owned");
        assert_eq!(
            project.live("infra.vpc", "net").unwrap()["config"]["instance_count"],
            3
        );
        project.json("infra scale net --replicas 4 --owner team-b", 0);
    });
}

#[test]
fn a_dirty_migration_is_repaired_by_whoever_can_and_only_when_it_is_meant() {
    each(|executable| {
        let project = Project::applied(executable);
        let refused = project.json(REPAIR, 2);
        assert_eq!(refused["problems"][0]["code"], "migrations/not-confirmed");
        let confirmed = format!("{REPAIR} --confirm-force FORCE_MIGRATION_METADATA");
        let document = project.json(&confirmed, 0);
        assert_eq!(
            (&document["status"], &document["applied"], &document["log"]),
            (&json!("succeeded"), &json!(["6"]), &json!("forced"))
        );
        assert_eq!(
            (
                &document["provider"],
                &document["database"],
                &document["job"]
            ),
            (&json!("cloud"), &json!("db"), &json!("job-9"))
        );
        let nobody = project.json(&format!("{confirmed} --provider other"), 2);
        assert_eq!(nobody["problems"][0]["code"], "migrations/no-provider");
        let said = project.run(&confirmed).expect_code(0);
        assert!(
            said.stderr().contains("`db` stands at version 6"),
            "{}",
            said.stderr()
        );
    });
}

#[test]
fn what_somebody_else_owns_is_not_deleted_by_name_or_by_tag() {
    each(|executable| {
        let project = Project::applied(executable);
        project.give("infra.vpc", "net", "team-b");

        let cleaned = project.json("infra cleanup --tag mine --fix --yes", 0);
        assert_eq!(cleaned["kept"][0]["why"], "it belongs to `team-b`");
        assert!(project.live("infra.vpc", "net").is_some());
        assert!(project.live("infra.database", "db").is_none());

        // A teardown says that it could not do everything, and keeps the state.
        let torn = project.json("infra teardown -c infra.yaml --yes", 1);
        assert_eq!(torn["state"]["wiped"], false);
        let net = &torn["resources"][0];
        assert_eq!(net["status"], "could-not-check");
        assert!(
            net["error"].to_string().contains("belongs to `team-b`"),
            "{net}"
        );
        assert!(project.live("infra.vpc", "net").is_some());

        // Nobody forces for nobody.
        let whose = project.json("infra teardown -c infra.yaml --yes --force-owner", 2);
        assert_eq!(whose["problems"][0]["code"], "cli/force-owner");

        let torn = project.json("infra teardown -c infra.yaml --yes --owner team-b", 0);
        assert_eq!(torn["state"]["wiped"], true);
        assert!(project.live("infra.vpc", "net").is_none());
    });
}

#[test]
fn a_prune_leaves_what_somebody_else_owns() {
    let project = Project::applied(go::own_executable());
    fs::remove_dir_all(project.path("state")).unwrap();
    let config = fs::read_to_string(project.path("infra.yaml")).unwrap();
    let start = config.find("  - name: net").unwrap();
    let end = config.find("environments:").unwrap();
    let made_at = r#""made_at":"2020-01-01T00:00:00Z""#;
    for (name, id) in [
        ("old", "id-old"),
        ("theirs", "id-theirs"),
        ("live", "id-live"),
    ] {
        let text = format!(
            r#"{{"id":"{id}","name":"{name}","kind":"infra.spaces_key","config":{{{made_at}}},"version":1}}"#
        );
        fs::write(
            project.path(&format!("root/infra.spaces_key__{name}.json")),
            text,
        )
        .unwrap();
    }
    fs::write(
        project.path("infra.yaml"),
        format!("{}{}", &config[..start], &config[end..]),
    )
    .unwrap();
    project.give("infra.spaces_key", "theirs", "team-b");
    let line = "infra prune --type infra.spaces_key --created-before 2999-01-01T00:00:00Z \
        --exclude id-live --confirm --yes --json";
    let pruned = project
        .start(line)
        .env("WFCTL_CONFIRM_PRUNE", "1")
        .output()
        .expect_code(0);
    let document: Json = serde_json::from_str(&pruned.stdout()).unwrap();
    let kept = document["kept"].to_string();
    assert!(kept.contains("it belongs to `team-b`"), "{kept}");
    assert!(project.live("infra.spaces_key", "theirs").is_some());
    assert!(project.live("infra.spaces_key", "live").is_some());
    assert!(project.live("infra.spaces_key", "old").is_none());
}

#[test]
fn a_plugin_gets_none_of_the_files_that_were_open_when_we_were_started() {
    let project = Project::new(go::own_executable());
    let script = project.path("data/plugins/files/files");
    fs::remove_file(&script).unwrap();
    fs::write(&script, "#!/bin/sh\nls -l /proc/self/fd > seen.txt\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(project.path("open-secret.txt"), "hunter2").unwrap();
    let finished = std::process::Command::new("/bin/sh")
        .arg("-c")
        .arg("exec 7<open-secret.txt; exec \"$0\" infra plan --env dev")
        .arg(harness::binary())
        .current_dir(project.0.path())
        .env("FILES_TOKEN", "files_pat_9dK2mQx7Lr0vB4tN")
        .output()
        .unwrap();
    assert!(
        !finished.status.success(),
        "a plugin that says nothing is none"
    );
    let seen = fs::read_to_string(project.path("data/plugins/files/seen.txt")).unwrap();
    assert!(
        seen.contains("->") && !seen.contains("open-secret"),
        "{seen}"
    );
}

#[test]
fn what_the_kernel_does_not_start_no_shell_reads_as_commands() {
    let project = Project::new(go::own_executable());
    let executable = project.path("data/plugins/files/files");
    let mut foreign = vec![0_u8; 64];
    foreign[..6].copy_from_slice(b"\x7fELF\x02\x01");
    foreign[16] = 2;
    // A machine that nobody has.
    foreign[18] = 0xfd;
    let commands = b"\necho $FILES_TOKEN > leaked.txt\n";
    for (bytes, said) in [
        ([foreign.as_slice(), commands].concat(), "another machine"),
        (commands.to_vec(), "neither a program"),
        (Vec::new(), "is empty"),
    ] {
        fs::remove_file(&executable).unwrap();
        fs::write(&executable, bytes).unwrap();
        fs::set_permissions(&executable, fs::Permissions::from_mode(0o755)).unwrap();
        let document = project.json("infra plan", 1);
        let problem = &document["problems"][0];
        assert_eq!(problem["code"], "plugin/start", "{document}");
        assert!(problem["because"].to_string().contains(said), "{problem}");
        assert!(!project.path("data/plugins/files/leaked.txt").exists());
    }
}

#[test]
fn the_plugin_that_the_lock_names_comes_before_one_that_stands_first() {
    let project = Project::new(go::own_executable());
    let plugins = project.path("data/plugins");
    let stranger = plugins.join("aaa");
    fs::create_dir_all(&stranger).unwrap();
    let manifest = json!({
        "name": "aaa", "version": "1.0.0", "author": "tests", "description": "for tests",
        "capabilities": {"iacProvider": {"name": "files", "computePlanVersion": "v2"}},
    });
    fs::write(stranger.join("plugin.json"), manifest.to_string()).unwrap();
    fs::write(stranger.join("aaa"), "#!/bin/sh\necho ran > ran.txt\n").unwrap();
    fs::set_permissions(stranger.join("aaa"), fs::Permissions::from_mode(0o755)).unwrap();
    let lock =
        "version: 1\nplugins:\n  files:\n    version: 1.0.0\n    source: github.com/acme/files\n";
    fs::write(project.path(".wfctl-lock.yaml"), lock).unwrap();
    let planned = project.run("infra plan").expect_code(0);
    assert!(
        planned.stderr().contains("plugin/provider-twice"),
        "{}",
        planned.stderr()
    );
    assert!(!stranger.join("ran.txt").exists());

    // Where it is the only one it is started, and that no lock pins it is said.
    fs::remove_dir_all(plugins.join("files")).unwrap();
    let other = project.run("infra plan");
    assert!(
        other.stderr().contains("plugin/not-locked"),
        "{}",
        other.stderr()
    );
}

#[test]
fn records_are_shown_without_any_provider() {
    let project = Project::applied(go::own_executable());
    fs::remove_dir_all(project.path("data/plugins")).unwrap();
    let outputs = project.json("infra outputs", 0);
    assert_eq!(
        outputs["outputs"]["net"]["live_url"]["value"],
        "http://net.test"
    );
    assert_eq!(
        outputs["outputs"]["db"]["password"],
        json!({"value": "***MASKED***", "sensitive": true})
    );
    project.json("state list", 0);
    project.json("state verify", 0);
    // How things are is for the provider to say; what is recorded is listed all the same.
    let status = project.json("infra status", 7);
    assert_eq!(status["resources"].as_array().unwrap().len(), 2);
    assert_eq!(status["resources"][0]["status"], "unknown");
}
