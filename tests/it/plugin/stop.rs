//! The first signal ends every command at once, whatever a plugin is busy with: what only looks is
//! dropped, the lock is given back, and somebody says so.

use std::process::Stdio;

use serde_json::json;

use super::apply::Project;
use super::*;

const INT: rustix::process::Signal = rustix::process::Signal::INT;

impl Project {
    /// Puts a resource on record, then lets the plugin hang in one call.
    fn hanging(call: &str) -> Self {
        let project = Self::new(&json!({"reads": "web", "status": "running"}));
        project.apply().output().expect_code(0);
        project.hangs_in(call);
        project
    }

    fn hangs_in(&self, call: &str) {
        fs::remove_file(self.plugin("calls.txt")).unwrap();
        self.mode(&json!({"reads": "web", "status": "running", "hang_on": call}));
    }

    fn mode(&self, mode: &serde_json::Value) {
        let mut all = json!({"serve": true, "notes_calls": true});
        for (key, value) in mode.as_object().unwrap() {
            all[key] = value.clone();
        }
        fs::write(self.plugin("mode.json"), all.to_string()).unwrap();
    }

    fn plugin(&self, file: &str) -> PathBuf {
        self.0.path().join("data/plugins/bad").join(file)
    }

    /// Runs a command, sends one signal while the plugin is asked for `call`, and answers what was
    /// said until the end.
    #[track_caller]
    fn signalled(&self, arguments: &[&str], call: &str) -> String {
        let errors = self.0.path().join("errors.txt");
        let mut command = self.run(arguments).into_command();
        let mut run = command
            .stdout(Stdio::null())
            .stderr(fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        harness::wait_for("the call", || self.asked(call) == 1);
        let pid = rustix::process::Pid::from_raw(run.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, INT).unwrap();
        let mut ended = None;
        harness::wait_for("the end after one signal", || {
            ended = run.try_wait().unwrap();
            ended.is_some()
        });
        let said = fs::read_to_string(&errors).unwrap();
        assert_eq!(
            ended.and_then(|status| status.code()),
            Some(130),
            "{arguments:?}\n{said}"
        );
        assert!(said.contains("Signal seen"), "{arguments:?}\n{said}");
        said
    }

    /// Nobody holds the lock, so nobody has to take it over.
    #[track_caller]
    fn is_unlocked(&self) {
        self.mode(&json!({"reads": "web"}));
        let next = self.apply().output();
        assert!(
            !next.stderr().contains("Took over the lock"),
            "{}",
            next.stderr()
        );
    }
}

#[test]
fn one_signal_ends_every_command_that_waits_for_an_answer() {
    let initialize = "IaCProviderRequired/Initialize";
    let diff = "ResourceDriver/Diff";
    let read = "ResourceDriver/Read";
    let teardown = [
        "infra",
        "teardown",
        "-c",
        "infra.yaml",
        "--env",
        "default",
        "--yes",
    ];
    for (arguments, call) in [
        (&["up", "--yes"][..], initialize),
        (&["up", "--yes"], diff),
        (&["infra", "plan"], diff),
        (&["infra", "apply", "--yes"], diff),
        (&["infra", "status"], "IaCProviderRequired/Status"),
        (&["infra", "drift"], read),
        (&["infra", "refresh", "--prune", "--yes"], read),
        (&["infra", "refresh-outputs"], read),
        (&["infra", "import", "--name", "web", "--force"], read),
        (&teardown, read),
    ] {
        let project = Project::hanging(call);
        let said = project.signalled(arguments, call);
        if arguments != teardown {
            // One word on it, not one for each question that was dropped.
            assert_eq!(said.matches("error[").count(), 1, "{arguments:?}\n{said}");
            assert!(said.contains("cancel/stopped"), "{arguments:?}\n{said}");
        }
        project.is_unlocked();
    }
}

/// An effect is not cut off at once, and not waited for as long as it likes.
#[test]
fn one_signal_ends_a_teardown_in_the_middle_of_a_delete() {
    let delete = "ResourceDriver/Delete";
    let project = Project::hanging(delete);
    project.signalled(
        &[
            "infra",
            "teardown",
            "-c",
            "infra.yaml",
            "--env",
            "default",
            "--yes",
        ],
        delete,
    );
    project.is_unlocked();
}

#[test]
fn one_signal_ends_the_settling_of_a_dead_run() {
    let (create, read) = ("ResourceDriver/Create", "ResourceDriver/Read");
    let project = Project::new(&json!({"hang_on": create}));
    let mut command = project.apply().into_command();
    let mut run = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    harness::wait_for("the create", || project.asked(create) == 1);
    run.kill().unwrap();
    run.wait().unwrap();
    project.hangs_in(read);
    project.signalled(&["up", "--yes"], read);
    project.is_unlocked();
}
