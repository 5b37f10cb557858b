//! The whole way through the real binary with a Go plugin: up, up again, destroy; and nothing of
//! the job's secrets in what it says, keeps, or hands to the plugin.

use super::*;
use crate::harness::Run;
use crate::main_job::{files, forms};

const CONFIG: &str = r#"
modules:
  - name: state
    type: iac.state
    config: {backend: filesystem, directory: ./state}
  - name: cloud
    type: iac.provider
    config: {provider: files, root: @ROOT@, region: here1, api_token: "${FILES_TOKEN}"}
  - name: db
    type: infra.database
    config: {provider: cloud, size: small, region: here1}
    outputs:
      password: {sensitive: true, sinks: [{type: dotenv, name: DB_PASSWORD}]}
  - name: net
    type: infra.vpc
    config: {provider: cloud, size: s, region: @REGION@}
  - name: web
    type: infra.container_service
    config:
      provider: cloud
      size: m
      env_vars: {NET: "${net.live_url}"}
      env_vars_secret: {PASSWORD: "${db.password}"}
environments:
  dev: {}
"#;

const TOKEN: &str = "files_pat_9dK2mQx7Lr0vB4tN";
const RUNNER_TOKEN: &str = "ghs_8sH3kPz5Wc1yD6uM0qE2";

struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    fn new() -> Option<Self> {
        let Some(executable) = go::executable() else {
            harness::skip_without("go");
            return None;
        };
        let project = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        install(
            &project.folder.path().join("data/plugins"),
            "files",
            executable,
        );
        project.region("here1");
        Some(project)
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn region(&self, region: &str) {
        let text = CONFIG
            .replace("@ROOT@", &self.root().display().to_string())
            .replace("@REGION@", region);
        fs::write(self.folder.path().join("infra.yaml"), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> harness::Finished {
        Run::new(self.folder.path(), arguments)
            .env("FILES_TOKEN", TOKEN)
            .env("GITHUB_TOKEN", RUNNER_TOKEN)
            .env("ACTIONS_RUNTIME_TOKEN", RUNNER_TOKEN)
            .output()
    }

    fn made(&self) -> usize {
        files(&self.root())
            .iter()
            .filter(|path| path.to_string_lossy().starts_with("infra."))
            .count()
    }
}

#[test]
fn h27_up_again_replaced_and_away_with_a_go_plugin() {
    let Some(project) = Project::new() else {
        return;
    };
    let up = project.run(&["up", "--env", "dev", "--yes"]).expect_code(0);
    assert_eq!(project.made(), 3, "{}", up.stderr());
    let password = crate::main_job::dotenv(&project.folder.path().join(".env"), "DB_PASSWORD");
    assert!(password.starts_with("pw-file-"), "{password}");
    // The service got the database's password: the plugin is trusted with what it has to set.
    let web = fs::read_to_string(project.root().join("infra.container_service__web.json")).unwrap();
    assert!(
        web.contains(&password) && web.contains("http://net.test"),
        "{web}"
    );

    let again = project.run(&["up", "--env", "dev"]).expect_code(0);
    assert!(again.stderr().contains("No changes"), "{}", again.stderr());

    // What happened is nobody else's business: neither the log nor the state holds a secret.
    let mut places: Vec<(String, Vec<u8>)> = vec![
        (
            "up".to_owned(),
            [up.stdout(), up.stderr()].concat().into_bytes(),
        ),
        (
            "again".to_owned(),
            [again.stdout(), again.stderr()].concat().into_bytes(),
        ),
    ];
    let state = project.folder.path().join("state");
    for path in files(&state) {
        places.push((
            path.display().to_string(),
            fs::read(state.join(&path)).unwrap(),
        ));
    }
    for secret in [&password, TOKEN, RUNNER_TOKEN] {
        for form in forms(secret) {
            for (place, bytes) in &places {
                let text = String::from_utf8_lossy(bytes);
                assert!(!text.contains(&form), "{place} holds a secret");
            }
        }
    }
    let seen = fs::read_to_string(project.root().join("seen.txt")).unwrap();
    assert!(
        seen.contains(TOKEN) && !seen.contains(RUNNER_TOKEN),
        "{seen}"
    );

    let outputs = project
        .run(&["infra", "outputs", "--env", "dev"])
        .expect_code(0);
    assert!(
        outputs.stdout().contains("net.live_url: http://net.test"),
        "{}",
        outputs.stdout()
    );
    assert!(
        outputs.stdout().contains("db.admin_note: ***MASKED***"),
        "{}",
        outputs.stdout()
    );

    asks_of_its_own(&project);

    // A new region is a replacement: the old one goes, a new one with another id comes.
    let before = fs::read_to_string(project.root().join("infra.vpc__net.json")).unwrap();
    project.region("there1");
    let moved = project
        .run(&["infra", "apply", "--env", "dev", "--yes"])
        .expect_code(0);
    assert!(moved.stderr().contains("replace"), "{}", moved.stderr());
    let after = fs::read_to_string(project.root().join("infra.vpc__net.json")).unwrap();
    let id = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["id"].clone();
    assert_ne!(id(&before), id(&after));
    let done = fs::read_to_string(project.root().join("done.txt")).unwrap();
    let old = format!("delete net {}", id(&before).as_str().unwrap());
    let last: Vec<&str> = done.lines().rev().take(2).collect();
    assert_eq!(last, ["create net ", old.as_str()], "{done}");

    project
        .run(&["infra", "destroy", "--env", "dev", "--yes"])
        .expect_code(0);
    assert_eq!(project.made(), 0);
    let needle = project.folder.path().display().to_string();
    harness::wait_for("the plugins to be gone", || processes(&needle).is_empty());
}

/// Regions, logs and jobs, as a person asks for them.
fn asks_of_its_own(project: &Project) {
    let json = |arguments: &[&str], code: i32| {
        let finished = project.run(&[arguments, &["--env", "dev", "--json"]].concat());
        crate::main_job::json(&finished.expect_code(code).stdout())
    };
    let regions = json(&["infra", "regions"], 0);
    assert_eq!(regions["regions"][1]["name"], "there1");
    let log = json(
        &["infra", "logs", "web", "--kind", "build", "--tail", "7"],
        0,
    );
    let expected = "log of web (LOG_CAPTURE_TYPE_BUILD)\ntail=7 follow=false\n";
    assert_eq!(log["log"], expected);
    let plain = project
        .run(&["infra", "logs", "web", "--env", "dev"])
        .expect_code(0);
    assert!(
        plain.stdout().starts_with("log of web ("),
        "{}",
        plain.stdout()
    );
    json(&["infra", "logs", "nobody"], 2);

    let run = json(
        &[
            "infra",
            "job",
            "run",
            "migrate",
            "--command",
            "true",
            "--variable",
            "A=1",
        ],
        0,
    );
    assert_eq!(
        (&run["state"], &run["log"]),
        (
            &"succeeded".into(),
            &"ran true with map[A:1] and map[]\n".into()
        )
    );
    let handle = run["job"].to_string();
    assert_eq!(
        json(&["infra", "job", "status", &handle], 0)["state"],
        "succeeded"
    );
    assert_eq!(
        json(&["infra", "job", "logs", &handle], 0)["log"],
        run["log"]
    );
    let failed = json(&["infra", "job", "run", "migrate", "--command", "false"], 1);
    assert_eq!(
        (&failed["state"], &failed["job_exit_code"]),
        (&"failed".into(), &3.into())
    );
}

/// A host that is killed takes its plugin with it.
#[test]
fn a_plugin_does_not_outlive_a_killed_host() {
    let folder = tempfile::tempdir().unwrap();
    let bad = install(
        &folder.path().join("plugins"),
        "bad",
        Path::new(env!("CARGO_BIN_EXE_hostile-plugin")),
    );
    let mode = r#"{"serve": true, "hang_on": "IaCProviderRequired/Initialize"}"#;
    fs::write(bad.join("mode.json"), mode).unwrap();
    let config = "modules: [{name: c, type: iac.provider, config: {provider: bad}}]\n";
    fs::write(folder.path().join("infra.yaml"), config).unwrap();
    let mut command =
        Run::new(folder.path(), &["infra", "plan", "--plugin-dir", "plugins"]).into_command();
    let mut host = command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let needle = bad.canonicalize().unwrap().display().to_string();
    harness::wait_for("the plugin to start", || {
        processes(&needle)
            .iter()
            .any(|line| line.contains("/bad/bad"))
    });
    host.kill().unwrap();
    host.wait().unwrap();
    harness::wait_for("the plugin to be gone", || processes(&needle).is_empty());
}

/// What a plugin prints is text: no runner takes it for a command.
#[test]
fn commands_printed_by_a_plugin_are_not_executed() {
    let folder = tempfile::tempdir().unwrap();
    let bad = install(
        &folder.path().join("plugins"),
        "bad",
        Path::new(env!("CARGO_BIN_EXE_hostile-plugin")),
    );
    let said = "::add-mask::the\n::error::planted\n##[error]planted\n\u{1b}[2Jgone";
    let mode = serde_json::json!({"exit": 1, "stderr": said});
    fs::write(bad.join("mode.json"), mode.to_string()).unwrap();
    let config = "modules: [{name: c, type: iac.provider, config: {provider: bad}}]\n";
    fs::write(folder.path().join("infra.yaml"), config).unwrap();
    let run = Run::new(folder.path(), &["infra", "plan", "--plugin-dir", "plugins"])
        .env("GITHUB_ACTIONS", "true")
        .output()
        .expect_code(1);
    let all = [run.stdout(), run.stderr()].concat();
    assert!(all.contains("planted"), "it is shown: {all}");
    assert!(!all.contains('\u{1b}'), "{all:?}");
    for line in all.lines() {
        let line = line.trim_start();
        assert!(
            !line.starts_with("::add-mask::the") && !line.starts_with("::error::planted"),
            "{line}"
        );
        assert!(!line.contains("##[error]planted"), "{line}");
    }
}
