//! What follows an apply: a plugin that has something to finish is told once, and what it could not
//! finish fails the apply.

use std::process::Stdio;

use serde_json::{Value as Json, json};

use super::*;
use crate::harness::Run;

const CONFIG: &str = "\
modules:
  - {name: state, type: iac.state, config: {backend: filesystem, directory: ./state}}
  - {name: cloud, type: iac.provider, config: {provider: bad}}
  - {name: web, type: infra.vpc, config: {provider: cloud}}
";
const FINISH: &str = "IaCProviderFinalizer/FinalizeApply";

/// A project whose provider is the hostile plugin.
pub(super) struct Project(pub(super) tempfile::TempDir);

impl Project {
    pub(super) fn new(mode: &Json) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bad = install(
            &folder.path().join("data/plugins"),
            "bad",
            Path::new(env!("CARGO_BIN_EXE_hostile-plugin")),
        );
        let mut all = json!({"serve": true, "notes_calls": true});
        for (key, value) in mode.as_object().unwrap() {
            all[key] = value.clone();
        }
        fs::write(bad.join("mode.json"), all.to_string()).unwrap();
        fs::write(folder.path().join("infra.yaml"), CONFIG).unwrap();
        Self(folder)
    }

    pub(super) fn apply(&self) -> Run {
        self.run(&["infra", "apply", "--yes"])
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Run {
        Run::new(self.0.path(), arguments)
    }

    /// How often the plugin was asked for this.
    pub(super) fn asked(&self, call: &str) -> usize {
        let calls = self.0.path().join("data/plugins/bad/calls.txt");
        fs::read_to_string(calls)
            .unwrap_or_default()
            .lines()
            .filter(|line| *line == call)
            .count()
    }
}

#[test]
fn h28_a_plugin_is_told_once_that_all_actions_ended() {
    let finishes = "IaCProviderFinalizer";
    // An action fails: told all the same.
    let refuses = json!({
        "serves": finishes, "refuse_on": "ResourceDriver/Create", "text": "iac: forbidden: no",
    });
    let project = Project::new(&refuses);
    let failed = project.apply().output();
    assert_ne!(failed.code(), 0, "{}", failed.stderr());
    assert_eq!(project.asked("ResourceDriver/Create"), 1);
    assert_eq!(project.asked(FINISH), 1);

    // It does not say that it has something to finish.
    let project = Project::new(&json!({}));
    project.apply().output().expect_code(0);
    assert_eq!(project.asked(FINISH), 0);

    // Cancelled in the middle of an action.
    let hangs = json!({"serves": finishes, "hang_on": "ResourceDriver/Create"});
    let project = Project::new(&hangs);
    let mut command = project.apply().into_command();
    let mut run = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    harness::wait_for("the create", || project.asked("ResourceDriver/Create") == 1);
    let pid = rustix::process::Pid::from_raw(run.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert_eq!(project.asked(FINISH), 0);
}

#[test]
fn h28_an_empty_plan_is_finished_too() {
    for executable in [go::executable(), Some(go::own_executable())] {
        let Some(executable) = executable else {
            harness::skip_without("go");
            continue;
        };
        let folder = tempfile::tempdir().unwrap();
        install(&folder.path().join("data/plugins"), "files", executable);
        let root = folder.path().join("root");
        let config = CONFIG.replace(
            "provider: bad",
            &format!("provider: files, region: here1, root: {}", root.display()),
        );
        let config = config.replace("provider: cloud}", "provider: cloud, region: here1}");
        fs::write(folder.path().join("infra.yaml"), config).unwrap();
        for told in 1..=2 {
            let applied = Run::new(folder.path(), &["infra", "apply", "--yes"])
                .output()
                .expect_code(0);
            let lines = fs::read_to_string(root.join("finalized.txt")).unwrap();
            assert_eq!(lines.lines().count(), told, "{}", applied.stderr());
        }
    }
}

#[test]
fn h29_what_could_not_be_finished_fails_the_apply_and_is_named() {
    let project = Project::new(&json!({
        "serves": "IaCProviderFinalizer", "unfinished": "the firewall is closed",
    }));
    // What was applied is applied.
    let failed = project.apply().output().expect_code(6);
    for expected in ["deferred_update", "`db`", "the firewall is closed"] {
        assert!(failed.stderr().contains(expected), "{}", failed.stderr());
    }
    // The call itself fails: then only its status counts.
    let project = Project::new(&json!({
        "serves": "IaCProviderFinalizer", "refuse_on": FINISH, "text": "iac: forbidden: not today",
        "unfinished": "never shown",
    }));
    let failed = project.apply().output().expect_code(6);
    let said = failed.stderr();
    assert!(
        said.contains("not today") && !said.contains("never shown"),
        "{said}"
    );
}

/// Whose a resource is, at a provider that keeps it: nobody changes or deletes what is somebody else's.
#[test]
fn what_is_somebody_elses_is_neither_changed_nor_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = folder.path().join("data/plugins");
    install(&plugins, "files", go::own_executable());
    let root = folder.path().join("root");
    let write = |size: &str| {
        let config = CONFIG.replace(
            "provider: bad",
            &format!("provider: files, region: here1, root: {}", root.display()),
        );
        let web = format!("provider: cloud, region: here1, size: {size}}}");
        let config = config.replace("provider: cloud}", &web);
        fs::write(folder.path().join("infra.yaml"), config).unwrap();
    };
    let run = |arguments: &[&str], owner: &str| {
        let run = Run::new(folder.path(), arguments);
        match owner {
            "" => run.output(),
            owner => run.env("WORKFLOW_RESOURCE_OWNER", owner).output(),
        }
    };
    let web = || -> Json {
        let text = fs::read(root.join("infra.vpc__web.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    write("s");
    // Nobody in particular: as it was before there were owners.
    run(&["up"], "").expect_code(0);
    assert_eq!(web()["owner"], "");
    // What is nobody's becomes ours before it is changed.
    write("m");
    run(&["up", "--owner", "team-a"], "").expect_code(0);
    assert_eq!(
        (&web()["owner"], &web()["config"]["size"]),
        (&json!("team-a"), &json!("m"))
    );

    write("l");
    for (arguments, owner) in [
        (&["up", "--yes"][..], ""),
        (&["up", "--yes"], "team-b"),
        (&["up", "--yes", "--owner", "team-b"], "team-a"),
        (&["infra", "apply", "--yes"], "team-b"),
        (&["infra", "destroy", "--yes"], "team-b"),
    ] {
        let refused = run(arguments, owner).expect_code(1);
        assert!(
            refused.stderr().contains("apply/owned"),
            "{}",
            refused.stderr()
        );
        assert!(
            refused.stderr().contains("`team-a`"),
            "{}",
            refused.stderr()
        );
        assert_eq!(web()["config"]["size"], "m");
    }
    run(&["up", "--force-owner"], "").expect_code(2);
    run(&["up", "--force-owner"], "team-b").expect_code(0);
    assert_eq!(
        (&web()["owner"], &web()["config"]["size"]),
        (&json!("team-b"), &json!("l"))
    );

    run(&["infra", "destroy", "--yes"], "team-b").expect_code(0);
    // What is made is ours from the start.
    run(&["up"], "team-b").expect_code(0);
    assert_eq!(web()["owner"], "team-b");
}
