//! The composite action: what its linters say, what reaches the binary, what a cancel does, how
//! the binary is fetched, and that `act` can run the whole of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness;

/// The commit that `tests/action/inputs.yml` names in place of a release.
const RELEASE: &str = "1111111111111111111111111111111111111111";

// === Linters ===

#[test]
fn the_action_and_the_workflows_pass_the_linters() {
    let Some(linters) = Linters::find() else {
        return;
    };
    let workflows: Vec<PathBuf> = [".github/workflows", "tests/action"]
        .into_iter()
        .flat_map(|folder| yaml_files(&root().join(folder)))
        .collect();
    assert!(workflows.len() >= 4, "{workflows:?}");

    linters
        .zizmor(&[root().join("action.yml"), root().join(".github")])
        .expect_success();
    linters.zizmor(&workflows).expect_success();
    linters
        .schema("vendor.github-actions", &[root().join("action.yml")])
        .expect_success();
    linters
        .schema("vendor.github-workflows", &workflows)
        .expect_success();
    linters
        .schema(
            "vendor.dependabot",
            &[root().join(".github/dependabot.yml")],
        )
        .expect_success();
    linters.actionlint(&workflows).expect_success();
    linters
        .shellcheck(&[root().join("action/launch.sh"), root().join(".ci/run")])
        .expect_success();
    linters
        .shellcheck(&shell_scripts(&root().join("benches")))
        .expect_success();
}

/// Without this a linter that looks at nothing would pass for one that is content.
#[test]
fn the_linters_find_planted_faults() {
    let Some(linters) = Linters::find() else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let action = folder.path().join("action.yml");
    let good = fs::read_to_string(root().join("action.yml")).unwrap();

    let injected = good.replace("set -eu\n", "set -eu\n        echo ${{ inputs.args }}\n");
    assert_ne!(good, injected);
    fs::write(&action, &injected).unwrap();
    let found = linters.zizmor(std::slice::from_ref(&action));
    assert!(found.text.contains("template-injection"), "{}", found.text);
    assert!((11..=14).contains(&found.code), "{}", found.code);

    fs::write(&action, good.replace("      shell: bash\n", "")).unwrap();
    let found = linters.schema("vendor.github-actions", std::slice::from_ref(&action));
    assert_eq!(found.code, 1, "{}", found.text);

    let workflow = folder.path().join("workflow.yml");
    fs::write(
        &workflow,
        "on: push\njobs:\n  one:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo $HOME/$1 ${{ nothing.here }}\n",
    )
    .unwrap();
    let found = linters.actionlint(std::slice::from_ref(&workflow));
    assert!(found.text.contains("[expression]"), "{}", found.text);
    assert!(found.text.contains("[shellcheck]"), "{}", found.text);
}

#[test]
fn no_expression_occurs_inside_a_script() {
    let mut files = vec![root().join("action.yml")];
    for folder in [".github/workflows", "tests/action"] {
        files.extend(yaml_files(&root().join(folder)));
    }
    for file in files {
        for script in scripts(&document(&file)) {
            assert!(
                !script.contains("${{"),
                "{} evaluates an expression inside a script:\n{script}",
                file.display()
            );
        }
    }
}

#[test]
fn every_input_and_output_is_documented() {
    let action = document(&root().join("action.yml"));
    let guide = fs::read_to_string(root().join("docs/github-actions.md")).unwrap();
    for part in ["inputs", "outputs"] {
        for name in action[part].as_object().unwrap().keys() {
            assert!(
                guide.contains(&format!("| `{name}` |")),
                "docs/github-actions.md does not tell about {part}.{name}"
            );
        }
    }
}

// === What reaches the binary ===

#[test]
fn hostile_inputs_reach_the_binary_as_data() {
    let hostile = [
        "\"; echo pwned; \"",
        "$(touch pwned)",
        "`touch pwned`",
        "two\nlines\n",
        "${{ github.token }}",
        "%0A::error::no",
        "'; touch pwned #",
        "-n",
        "\\",
        "\u{1F30A} ünïcode",
    ];
    for value in hostile {
        let step = Step::new();
        let finished = step
            .run(&[
                ("command", value),
                ("config", value),
                ("env", value),
                ("args", value),
                ("binary", &step.stub()),
            ])
            .expect_code(0);
        let seen = step.seen();
        assert_eq!(seen.arguments, ["action"]);
        for name in ["COMMAND", "CONFIG", "ENV", "ARGS"] {
            assert_eq!(seen.variables[&format!("TIDEGATE_INPUT_{name}")], value);
        }
        assert_eq!(finished.text, "", "the launcher has nothing to say");
        assert!(!step.workspace().join("pwned").exists(), "{value:?} ran");
    }
}

#[test]
fn defaults_are_passed_on() {
    let step = Step::new();
    step.run(&[("binary", &step.stub())]).expect_code(0);
    let seen = step.seen();
    assert_eq!(seen.variables["TIDEGATE_INPUT_COMMAND"], "up");
    for name in ["CONFIG", "ENV", "ARGS"] {
        assert_eq!(seen.variables[&format!("TIDEGATE_INPUT_{name}")], "");
    }
}

#[test]
fn planted_startup_files_and_shell_options_do_nothing() {
    let step = Step::new();
    let planted = step.folder.path().join("planted.sh");
    fs::write(&planted, "touch planted-ran\n").unwrap();
    let planted = planted.display().to_string();
    step.run_with(
        &[("binary", &step.stub())],
        &[
            ("BASH_ENV", &planted),
            ("ENV", &planted),
            ("SHELLOPTS", "xtrace:noexec"),
            ("BASHOPTS", "extdebug"),
            ("PS4", "$(touch planted-ran)"),
            ("CDPATH", "/"),
        ],
    )
    .expect_code(0);
    assert!(!step.workspace().join("planted-ran").exists());

    let seen = step.seen();
    for gone in [
        "BASH_ENV",
        "ENV",
        "SHELLOPTS",
        "BASHOPTS",
        "CDPATH",
        "LD_PRELOAD",
        "LD_AUDIT",
        "POSIXLY_CORRECT",
        "TIDEGATE_ACTION_BINARY",
        "TIDEGATE_ACTION_VERSION",
        "TIDEGATE_ACTION_REPOSITORY",
    ] {
        assert!(
            !seen.variables.contains_key(gone),
            "{gone} reaches the binary"
        );
    }
}

/// POSIX mode alone would already keep `BASH_ENV` out, so the test above cannot see that it is
/// emptied as well; the shell that a binary without our care starts would read it.
#[test]
fn the_step_empties_what_an_earlier_step_can_plant() {
    let action = document(&root().join("action.yml"));
    let env = &action["runs"]["steps"][0]["env"];
    for name in [
        "BASH_ENV",
        "ENV",
        "CDPATH",
        "SHELLOPTS",
        "BASHOPTS",
        "LD_PRELOAD",
        "LD_AUDIT",
    ] {
        assert_eq!(env[name].as_str(), Some(""), "{name}");
    }
    assert_eq!(env["POSIXLY_CORRECT"].as_str(), Some("1"));
}

/// The same planted file does run when the step does not disarm it: the test above can fail.
#[test]
fn a_planted_startup_file_would_run_in_an_ordinary_step() {
    let step = Step::new();
    let planted = step.folder.path().join("planted.sh");
    fs::write(&planted, "touch planted-ran\n").unwrap();
    let mut command = step.bash("true\n");
    command.env("BASH_ENV", &planted);
    Finished::of(command.output().unwrap()).expect_code(0);
    assert!(step.workspace().join("planted-ran").exists());
}

#[test]
fn exported_functions_stop_the_run_before_anything_else() {
    for name in ["set", "exec", "unset", "printf", "curl"] {
        let step = Step::new();
        let finished = step.run_with(
            &[("binary", &step.stub())],
            &[(&format!("BASH_FUNC_{name}%%"), "() { touch planted-ran; }")],
        );
        assert_ne!(finished.code, 0, "{name}: {}", finished.text);
        assert!(
            !step.workspace().join("planted-ran").exists(),
            "{name} was taken over"
        );
        assert!(!step.ran(), "{name}: the binary was started");
    }
}

#[test]
fn a_relative_binary_is_looked_for_in_the_workspace() {
    let step = Step::new();
    fs::copy(step.stub(), step.workspace().join("here")).unwrap();
    step.run(&[("binary", "here")]).expect_code(0);
    assert_eq!(step.seen().arguments, ["action"]);
}

#[test]
fn a_missing_binary_is_named() {
    let step = Step::new();
    let finished = step.run(&[("binary", "not/there")]).expect_code(2);
    let expected = format!(
        "::error title=Tidegate::the input 'binary' names {}/not/there, which is not an executable file on this runner\n",
        step.workspace().display()
    );
    assert_eq!(finished.text, expected);
}

#[test]
fn an_error_cannot_carry_a_second_workflow_command() {
    let step = Step::new();
    let finished = step
        .run(&[("binary", "no\r\n::add-mask::%x")])
        .expect_code(2);
    assert_eq!(finished.text.lines().count(), 1, "{}", finished.text);
    assert!(
        finished.text.contains("no%0D%0A::add-mask::%25x"),
        "{}",
        finished.text
    );
}

#[test]
fn the_exit_code_of_the_binary_is_the_exit_code_of_the_step() {
    for code in [0, 1, 2, 3, 4, 5, 6, 70, 130] {
        let step = Step::new();
        step.run_with(
            &[("binary", &step.stub())],
            &[("STUB_EXIT", &code.to_string())],
        )
        .expect_code(code);
    }
}

// === Signals ===

/// The runner signals the process it started and no other. With `exec` all the way that process
/// *is* the binary, so it can finish cleanly and choose its own exit code.
#[test]
fn the_binary_hears_the_cancel_signal() {
    let step = Step::new();
    let stub = step.script(
        "waiting",
        "trap 'echo heard >> heard; exit 130' INT\necho $$ > pid.new; mv pid.new pid\n\
         while :; do sleep 0.05; done\n",
    );
    let mut child = step
        .command(&[("binary", &stub)], &[])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = step.workspace().join("pid");
    wait_until("the stub runs", || pid.exists());
    assert_eq!(
        fs::read_to_string(&pid).unwrap().trim(),
        child.id().to_string(),
        "the binary runs in the process the runner started"
    );
    interrupt(&child);
    assert_eq!(wait(&mut child), Some(130));
    assert!(step.workspace().join("heard").exists());
}

#[test]
fn a_cancel_ends_a_download_at_once() {
    let Some(server) = ReleaseServer::start() else {
        return;
    };
    let step = Step::new();
    step.list(&server.release("slow", b"never sent"));
    let mut child = server
        .command(&step, "example/slow", &[])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the request arrives", || !server.requests().is_empty());
    let start = Instant::now();
    interrupt(&child);
    assert_eq!(wait(&mut child), Some(130));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(!step.ran());
}

// === Fetching the binary ===

#[test]
fn without_a_release_the_action_says_what_to_do() {
    let step = Step::new();
    step.list("");
    let finished = step.run(&[]).expect_code(2);
    for hint in [
        "lists no released binary",
        "pass 'binary'",
        "'version: source'",
    ] {
        assert!(finished.text.contains(hint), "{}", finished.text);
    }
    let finished = step.run(&[("version", "9.9.9")]).expect_code(2);
    assert!(
        finished
            .text
            .contains("has no checksum for tidegate-9.9.9-linux-x64"),
        "{}",
        finished.text
    );
}

#[test]
fn a_version_is_not_a_path() {
    let step = Step::new();
    for version in ["../../..", "1.0.0/../..", ".*", "1.0.0\nx", "-x"] {
        let finished = step.run(&[("version", version)]).expect_code(2);
        assert!(
            finished.text.contains("has no checksum"),
            "{}",
            finished.text
        );
        assert!(!step.ran());
    }
}

#[test]
fn an_unknown_platform_is_named() {
    let step = Step::new();
    let finished = step
        .run_with(&[], &[("RUNNER_OS", "Windows"), ("RUNNER_ARCH", "X64")])
        .expect_code(2);
    assert!(
        finished
            .text
            .contains("no released binary for Windows on X64"),
        "{}",
        finished.text
    );
}

#[test]
fn a_release_is_verified_cached_and_verified_again() {
    let Some(server) = ReleaseServer::start() else {
        return;
    };
    let step = Step::new();
    step.list(&server.release("good", &fs::read(step.stub()).unwrap()));

    server.run(&step, "example/good").expect_code(0);
    assert_eq!(step.seen().arguments, ["action"]);
    let asset = "/example/good/releases/download/v1.2.3/tidegate-1.2.3-linux-x64";
    assert_eq!(server.requests(), [asset]);
    let cached = step.folder.path().join("tools/tidegate/1.2.3/x64/tidegate");
    assert!(cached.exists());
    assert!(cached.parent().unwrap().with_extension("complete").exists());

    step.forget();
    server.run(&step, "example/good").expect_code(0);
    assert!(step.ran());
    assert_eq!(server.requests().len(), 1, "the cache was used");

    step.forget();
    fs::write(
        &cached,
        "#!/bin/sh\ntouch \"$GITHUB_WORKSPACE/tampered-ran\"\n",
    )
    .unwrap();
    server.run(&step, "example/good").expect_code(0);
    assert!(step.ran());
    assert!(!step.workspace().join("tampered-ran").exists());
    assert_eq!(
        server.requests().len(),
        2,
        "a tampered cache is fetched anew"
    );
}

#[test]
fn a_release_brings_the_plugin_that_stands_beside_it() {
    let Some(server) = ReleaseServer::start() else {
        return;
    };
    let step = Step::new();
    let stub = format!(
        "{}cat \"${{0%/*}}/tidegate-plugin-cloud\" >\"$GITHUB_WORKSPACE/beside\"\n",
        fs::read_to_string(step.stub())
            .unwrap()
            .replace("exit ", ": ")
    );
    let plugin = "tidegate-plugin-cloud-1.2.3-linux-x64";
    let listed = server.release("pair", stub.as_bytes());
    step.list(&format!("{listed}{}  {plugin}\n", sha256(b"the plugin")));
    server.put_file("example/pair", plugin, b"the plugin");
    for requests in [2, 2] {
        server.run(&step, "example/pair").expect_code(0);
        let beside = step.workspace().join("beside");
        assert_eq!(fs::read(&beside).unwrap(), b"the plugin");
        fs::remove_file(beside).unwrap();
        assert_eq!(server.requests().len(), requests, "then from the cache");
    }
    // One byte of the plugin, in the cache and at the source: nothing is started.
    step.forget();
    let cached = "tools/tidegate/1.2.3/x64/tidegate-plugin-cloud";
    fs::write(step.folder.path().join(cached), b"the plugim").unwrap();
    server.put_file("example/pair", plugin, b"the plugim");
    let finished = server.run(&step, "example/pair").expect_code(1);
    let expected = format!("{plugin}, as fetched, is not what action/checksums.txt promises");
    assert!(finished.text.contains(&expected), "{}", finished.text);
    assert!(!step.ran());
}

#[test]
fn a_release_that_is_not_what_was_promised_is_never_run() {
    let Some(server) = ReleaseServer::start() else {
        return;
    };
    let step = Step::new();
    step.list(&server.release("swapped", b"what the commit promises"));
    server.put(
        "example/swapped",
        b"#!/bin/sh\ntouch \"$GITHUB_WORKSPACE/swapped-ran\"\n",
    );
    let finished = server.run(&step, "example/swapped").expect_code(1);
    assert!(
        finished
            .text
            .contains("is not what action/checksums.txt promises; it was not run"),
        "{}",
        finished.text
    );
    assert!(!step.workspace().join("swapped-ran").exists());
    assert!(!step.folder.path().join("tools/tidegate").exists());
    let left: Vec<PathBuf> = walk(&step.folder.path().join("temp"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_release_that_is_missing_or_not_https_is_an_error() {
    let Some(server) = ReleaseServer::start() else {
        return;
    };
    let step = Step::new();
    step.list(&server.release("good", b"x"));
    let finished = server.run(&step, "example/absent").expect_code(1);
    assert!(
        finished.text.contains(
            "fetching tidegate-1.2.3-linux-x64 from the releases of example/absent failed"
        ),
        "{}",
        finished.text
    );
    // Later steps decide by the outputs, whatever failed.
    let outputs = fs::read_to_string(step.record().join("output")).unwrap();
    assert_eq!(outputs, "changed=false\nfailed=true\n");
    let before = server.requests().len();
    let plain = server.address.replace("https://", "http://");
    let output = server
        .command(&step, "example/good", &[("GITHUB_SERVER_URL", &plain)])
        .output()
        .unwrap();
    Finished::of(output).expect_code(1);
    assert_eq!(server.requests().len(), before);
    assert!(!step.ran());
}

#[test]
fn a_vendored_binary_needs_no_network_and_is_verified_too() {
    let step = Step::new();
    let stub = fs::read(step.stub()).unwrap();
    step.list(&format!("{}  tidegate-1.2.3-linux-x64\n", sha256(&stub)));
    let vendor = step.action().join("action/vendor");
    fs::create_dir(&vendor).unwrap();
    fs::write(vendor.join("tidegate-1.2.3-linux-x64"), &stub).unwrap();
    step.run(&[]).expect_code(0);
    assert!(step.ran());

    step.forget();
    fs::write(vendor.join("tidegate-1.2.3-linux-x64"), "#!/bin/sh\ntrue\n").unwrap();
    let finished = step.run(&[]).expect_code(1);
    assert!(finished.text.contains("action/vendor"), "{}", finished.text);
}

#[test]
fn building_from_source_is_a_choice_that_names_what_it_lacks() {
    let step = Step::new();
    let finished = step.run(&[("version", "source")]).expect_code(2);
    assert!(
        finished.text.contains("needs the source beside action.yml"),
        "{}",
        finished.text
    );
    fs::write(step.action().join("Cargo.toml"), "").unwrap();
    let tools = step.folder.path().join("bin");
    fs::create_dir(&tools).unwrap();
    let path = format!("{}:/usr/bin:/bin", tools.display());
    let cargo = format!(
        "printf '%s\\n' \"$@\" > cargo-arguments\nmkdir -p \"$CARGO_TARGET_DIR/release\"\n\
         cp '{}' \"$CARGO_TARGET_DIR/release/tidegate\"\n",
        step.stub()
    );
    fs::rename(step.script("cargo", &cargo), tools.join("cargo")).unwrap();
    step.run_with(&[("version", "source")], &[("PATH", &path)])
        .expect_code(0);
    assert_eq!(step.seen().arguments, ["action"]);
    let arguments = fs::read_to_string(step.workspace().join("cargo-arguments")).unwrap();
    assert!(
        arguments.starts_with("build\n--release\n--locked\n"),
        "{arguments}"
    );
    // A config with `backend: s3` works as it does with a release.
    assert!(
        arguments.ends_with("--bin\ntidegate\n--bin\ntidegate-plugin-cloud\n"),
        "{arguments}"
    );
}

// === act ===

#[test]
fn act_runs_the_action_by_path_and_by_repository() {
    let Some(act) = lab("v/bin/act") else { return };
    let job = ActJob::new(act, "inputs.yml");
    let planted = job.folder.path().join("planted.sh");
    fs::write(
        &planted,
        format!("touch '{}'\n", job.record().join("planted-ran").display()),
    )
    .unwrap();
    let stub = job.folder.path().join("stub");
    executable(&stub, &recording_stub(&job.record()));
    job.run(&[
        ("STUB", &stub.display().to_string()),
        ("PLANTED", &planted.display().to_string()),
    ])
    .expect_code(0);

    assert_eq!(
        fs::read_to_string(job.record().join("outputs")).unwrap(),
        "{\"stub\":\"two\\nlines\"}\ntrue\nfalse\n"
    );
    let mut seen = Vec::new();
    for entry in walk(&job.record()) {
        if entry.extension().is_some_and(|kind| kind == "seen") {
            seen.push(Seen::read(&entry));
        }
    }
    seen.sort_by_key(|seen| seen.variables["TIDEGATE_INPUT_COMMAND"].clone());
    let [by_path, by_repository] = seen.as_slice() else {
        panic!("the stub ran {} times", seen.len());
    };
    assert_eq!(by_path.arguments, ["action"]);
    assert_eq!(by_path.variables["TIDEGATE_INPUT_COMMAND"], "infra plan");
    assert_eq!(
        by_path.variables["TIDEGATE_INPUT_CONFIG"],
        "a folder/$(touch pwned-config)/infra.yaml"
    );
    assert_eq!(
        by_path.variables["TIDEGATE_INPUT_ENV"],
        "\"; touch pwned-env; \""
    );
    assert_eq!(
        by_path.variables["TIDEGATE_INPUT_ARGS"],
        "--module 'web api' \"`touch pwned-args`\"\n${HOME} %25 ::error::no\n"
    );
    assert_eq!(by_path.variables["GH_TOKEN"], "token-of-the-calling-step");
    assert_eq!(
        by_repository.variables["TIDEGATE_INPUT_ARGS"],
        "by-repository"
    );
    let planted_or_run: Vec<PathBuf> = walk(job.folder.path())
        .into_iter()
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("pwned") || name == "planted-ran"
        })
        .collect();
    assert!(planted_or_run.is_empty(), "{planted_or_run:?}");
}

/// The promise of the quickstart, kept inside a workflow: from nothing to a verified deploy, no
/// changes the second time, nothing left after destroy.
#[test]
fn quickstart_under_act() {
    let quickstart = root().join("examples/quickstart");
    if !quickstart.join("infra.yaml").exists() {
        harness::skip_without("examples/quickstart/infra.yaml");
        return;
    }
    let Some(act) = lab("v/bin/act") else { return };
    let job = ActJob::new(act, "quickstart.yml");
    let here = job.repository().join("examples/quickstart");
    copy_sources(&quickstart, &here);
    let given: Vec<PathBuf> = relative_files(&here);
    let finished = job
        .run(&[("TIDEGATE", &harness::binary().display().to_string())])
        .expect_code(0);

    let record = |name: &str| fs::read_to_string(job.record().join(name)).unwrap();
    assert_eq!(
        record("words"),
        "changed=true failed=false\nchanged=false failed=false\nchanged=true failed=false\n",
        "{}",
        finished.text
    );
    let first: Value = serde_json::from_str(&record("first.json")).unwrap();
    assert!(
        first["actions"]
            .as_array()
            .is_some_and(|all| all.len() >= 4),
        "at least four resources: {first:#}"
    );
    for part in ["actions", "sinks", "gate"] {
        assert!(!first[part].is_null(), "no `{part}` in {first:#}");
    }
    let second: Value = serde_json::from_str(&record("second.json")).unwrap();
    assert_eq!(
        second["actions"].as_array().map(Vec::len),
        Some(0),
        "{second:#}"
    );

    // Nothing is left but what was checked out and what the toolchain made of the service's source.
    let left: Vec<PathBuf> = record("left")
        .lines()
        .map(|line| PathBuf::from(line.trim_start_matches("examples/quickstart/")))
        .filter(|path| !path.components().any(|part| part.as_os_str() == "target"))
        .filter(|path| !given.contains(path))
        .collect();
    assert!(left.is_empty(), "destroy left {left:?}");
}

// === A step, run the way the runner runs it ===

/// One call of the action: its own copy of the action's files, a workspace, a stub for a binary.
pub(crate) struct Step {
    folder: TempDir,
}

impl Step {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["workspace", "temp", "tools", "record"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let step = Self { folder };
        copy_action(&step.action());
        executable(
            &step.folder.path().join("stub"),
            &recording_stub(&step.record()),
        );
        step
    }

    fn action(&self) -> PathBuf {
        self.folder.path().join("action-checkout")
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.folder.path().join("workspace")
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.folder.path().join("record")
    }

    fn stub(&self) -> String {
        self.folder.path().join("stub").display().to_string()
    }

    /// An executable shell script of the given text.
    fn script(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        executable(&path, &format!("#!/bin/sh\n{text}"));
        path.display().to_string()
    }

    /// Replaces the list of checksums.
    fn list(&self, text: &str) {
        fs::write(self.action().join("action/checksums.txt"), text).unwrap();
    }

    /// `bash` as the runner starts it for `shell: bash`, in the workspace, on a script of its own.
    fn bash(&self, script: &str) -> Command {
        let file = self.folder.path().join("step.sh");
        fs::write(&file, script).unwrap();
        let mut command = Command::new("bash");
        command
            .args(["--noprofile", "--norc", "-e", "-o", "pipefail"])
            .arg(file)
            .current_dir(self.workspace())
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path())
            .env("CI", "true")
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_ACTION_PATH", self.action())
            .env("GITHUB_SERVER_URL", "https://127.0.0.1:1")
            .env("GITHUB_WORKSPACE", self.workspace())
            .env("GITHUB_OUTPUT", self.record().join("output"))
            .env("RUNNER_OS", "Linux")
            .env("RUNNER_ARCH", "X64")
            .env("RUNNER_TEMP", self.folder.path().join("temp"))
            .env("RUNNER_TOOL_CACHE", self.folder.path().join("tools"));
        command
    }

    /// The action's one step with these inputs. `job` is what earlier steps left in the
    /// environment; the step's own `env` wins over it, as it does on the runner.
    pub(crate) fn command(&self, inputs: &[(&str, &str)], job: &[(&str, &str)]) -> Command {
        let action = document(&root().join("action.yml"));
        let steps = action["runs"]["steps"].as_array().unwrap();
        assert_eq!(
            steps.len(),
            1,
            "one step, so that one process hears a cancel"
        );
        let mut command = self.bash(steps[0]["run"].as_str().unwrap());
        command.envs(job.iter().copied());
        for (name, value) in steps[0]["env"].as_object().unwrap() {
            let value = value.as_str().unwrap();
            let expression = value
                .strip_prefix("${{ ")
                .and_then(|rest| rest.strip_suffix(" }}"));
            let value = match expression {
                None => value.to_owned(),
                Some("github.action_repository") => job
                    .iter()
                    .find(|(name, _)| *name == "TEST_ACTION_REPOSITORY")
                    .map_or_else(String::new, |(_, value)| (*value).to_owned()),
                Some(expression) => {
                    let input = expression.strip_prefix("inputs.").unwrap();
                    let declared = &action["inputs"][input];
                    assert!(declared.is_object(), "{input} is not an input");
                    inputs.iter().find(|(name, _)| *name == input).map_or_else(
                        || declared["default"].as_str().unwrap_or_default().to_owned(),
                        |(_, value)| (*value).to_owned(),
                    )
                }
            };
            command.env(name, value);
        }
        command
    }

    fn run(&self, inputs: &[(&str, &str)]) -> Finished {
        self.run_with(inputs, &[])
    }

    pub(crate) fn run_with(&self, inputs: &[(&str, &str)], job: &[(&str, &str)]) -> Finished {
        Finished::of(self.command(inputs, job).output().unwrap())
    }

    /// True when the stub was started.
    fn ran(&self) -> bool {
        !walk(&self.record())
            .iter()
            .all(|path| path.extension().is_none_or(|kind| kind != "seen"))
    }

    /// Forgets earlier runs of the stub.
    fn forget(&self) {
        fs::remove_dir_all(self.record()).unwrap();
        fs::create_dir(self.record()).unwrap();
    }

    fn seen(&self) -> Seen {
        let files: Vec<PathBuf> = walk(&self.record())
            .into_iter()
            .filter(|path| path.extension().is_some_and(|kind| kind == "seen"))
            .collect();
        let [file] = files.as_slice() else {
            panic!("the stub ran {} times", files.len());
        };
        Seen::read(file)
    }
}

/// A binary that writes down its arguments and its environment, and the outputs a run has.
fn recording_stub(record: &Path) -> String {
    format!(
        "#!/bin/sh\n\
         {{ printf '%s\\0' \"$#\" \"$@\"; env -0; }} > '{}'/$$.seen\n\
         [ -z \"${{GITHUB_OUTPUT-}}\" ] || printf 'changed=true\\nfailed=false\\nsummary-json=%s\\n' \
         '{{\"stub\":\"two\\nlines\"}}' >> \"$GITHUB_OUTPUT\"\n\
         exit \"${{STUB_EXIT:-0}}\"\n",
        record.display()
    )
}

/// What the stub was given.
struct Seen {
    arguments: Vec<String>,
    variables: BTreeMap<String, String>,
}

impl Seen {
    fn read(file: &Path) -> Self {
        let text = String::from_utf8(fs::read(file).unwrap()).unwrap();
        let mut words = text.split_terminator('\0');
        let count: usize = words.next().unwrap().parse().unwrap();
        let arguments = words.by_ref().take(count).map(str::to_owned).collect();
        let variables = words
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self {
            arguments,
            variables,
        }
    }
}

/// A finished process, both streams together.
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl Finished {
    fn of(output: Output) -> Self {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Self {
            code: output.status.code().unwrap_or(-1),
            text,
        }
    }

    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code\n{}", self.text);
        self
    }

    #[track_caller]
    fn expect_success(self) {
        assert_eq!(self.code, 0, "exit code\n{}", self.text);
    }
}

// === A server of releases ===

/// A loopback HTTPS server with a certificate authority of its own, which curl is told to trust.
struct ReleaseServer {
    folder: TempDir,
    process: Child,
    address: String,
}

impl ReleaseServer {
    fn start() -> Option<Self> {
        for tool in ["curl", "openssl"] {
            if harness::lab_tool(tool).is_none() {
                harness::skip_without(tool);
                return None;
            }
        }
        let python = lab("v/bin/python")?;
        let folder = TempDir::new().unwrap();
        make_certificates(folder.path());
        let mut process = Command::new(python)
            .args(["-c", SERVER])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = format!("https://127.0.0.1:{}", line.trim());
        Some(Self {
            folder,
            process,
            address,
        })
    }

    /// Publishes `content` as version 1.2.3 of `example/<name>` and returns the line that lists it.
    fn release(&self, name: &str, content: &[u8]) -> String {
        self.put(&format!("example/{name}"), content);
        format!("{}  tidegate-1.2.3-linux-x64\n", sha256(content))
    }

    fn put(&self, repository: &str, content: &[u8]) {
        self.put_file(repository, "tidegate-1.2.3-linux-x64", content);
    }

    fn put_file(&self, repository: &str, file: &str, content: &[u8]) {
        let folder = self
            .folder
            .path()
            .join("www")
            .join(repository)
            .join("releases/download/v1.2.3");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), content).unwrap();
    }

    /// Paths asked for so far.
    fn requests(&self) -> Vec<String> {
        fs::read_to_string(self.folder.path().join("requests"))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn command(&self, step: &Step, repository: &str, job: &[(&str, &str)]) -> Command {
        let authority = self.folder.path().join("ca.pem").display().to_string();
        let mut variables = vec![
            ("GITHUB_SERVER_URL", self.address.as_str()),
            ("TEST_ACTION_REPOSITORY", repository),
            ("CURL_CA_BUNDLE", authority.as_str()),
        ];
        variables.extend_from_slice(job);
        step.command(&[], &variables)
    }

    fn run(&self, step: &Step, repository: &str) -> Finished {
        Finished::of(self.command(step, repository, &[]).output().unwrap())
    }
}

impl Drop for ReleaseServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

const SERVER: &str = r#"
import http.server, os, ssl, time
here = os.getcwd()
class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments):
        super().__init__(*arguments, directory=os.path.join(here, "www"))
    def do_GET(self):
        with open(os.path.join(here, "requests"), "a") as log:
            log.write(self.path + "\n")
        if "/slow/" in self.path:
            time.sleep(30)
        super().do_GET()
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("leaf.pem", "leaf.key")
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// `ca.pem` and a leaf for 127.0.0.1 signed by it.
fn make_certificates(folder: &Path) {
    fs::write(folder.join("leaf.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    fs::create_dir(folder.join("www")).unwrap();
    for arguments in [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=127.0.0.1 -keyout leaf.key -out leaf.csr",
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile leaf.ext -out leaf.pem",
    ] {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder)
            .output()
            .unwrap();
        Finished::of(output).expect_success();
    }
}

// === A workflow under act ===

/// A repository with the action, one workflow and room for what a test adds.
pub(crate) struct ActJob {
    act: PathBuf,
    pub(crate) folder: TempDir,
}

impl ActJob {
    pub(crate) fn new(act: PathBuf, workflow: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let job = Self { act, folder };
        fs::create_dir(job.record()).unwrap();
        copy_action(&job.repository());
        let workflows = job.repository().join(".github/workflows");
        fs::create_dir_all(&workflows).unwrap();
        fs::copy(
            root().join("tests/action").join(workflow),
            workflows.join(workflow),
        )
        .unwrap();
        job
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.folder.path().join("record")
    }

    fn run(&self, variables: &[(&str, &str)]) -> Finished {
        Finished::of(self.command(variables).output().unwrap())
    }

    /// `act` on the one workflow, with variables every step sees.
    pub(crate) fn command(&self, variables: &[(&str, &str)]) -> Command {
        // act asks git for the commit it stands on, loudly when there is none.
        for arguments in [
            "init --quiet --initial-branch=main",
            "-c user.name=test -c user.email=test@localhost commit --quiet --allow-empty --message=start",
        ] {
            let output = Command::new("git")
                .args(arguments.split(' '))
                .current_dir(self.repository())
                .output()
                .unwrap();
            Finished::of(output).expect_success();
        }
        let mut command = Command::new(&self.act);
        command
            .args(["push", "--no-cache-server"])
            .args(["-P", "ubuntu-latest=-self-hosted"])
            .arg("--local-repository")
            .arg(format!(
                "tidegate/tidegate@{RELEASE}={}",
                self.repository().display()
            ))
            .arg("--env")
            .arg(format!("RECORD={}", self.record().display()))
            .current_dir(self.repository())
            .stdin(Stdio::null())
            .env_clear()
            .env("XDG_CACHE_HOME", self.folder.path().join("cache"))
            .env("XDG_CONFIG_HOME", self.folder.path().join("settings"));
        for name in [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "RUSTUP_HOME",
            "RUSTUP_TOOLCHAIN",
        ] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        for (name, value) in variables {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        command
    }
}

// === Linters, and small things ===

struct Linters {
    folder: PathBuf,
}

impl Linters {
    fn find() -> Option<Self> {
        for tool in ["check-jsonschema", "actionlint", "shellcheck"] {
            lab(&format!("v/bin/{tool}"))?;
        }
        let folder = lab("v/bin/zizmor")?.parent()?.to_owned();
        Some(Self { folder })
    }

    fn run(&self, tool: &str, arguments: &[&str], files: &[PathBuf]) -> Finished {
        assert!(!files.is_empty(), "{tool} has nothing to look at");
        let output = Command::new(self.folder.join(tool))
            .args(arguments)
            .args(files)
            .current_dir(root())
            // actionlint finds shellcheck here.
            .env(
                "PATH",
                std::env::join_paths(
                    std::iter::once(self.folder.clone())
                        .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
                )
                .unwrap(),
            )
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Finished::of(output)
    }

    fn zizmor(&self, files: &[PathBuf]) -> Finished {
        self.run(
            "zizmor",
            &["--offline", "--strict-collection", "--persona", "auditor"],
            files,
        )
    }

    fn schema(&self, schema: &str, files: &[PathBuf]) -> Finished {
        self.run("check-jsonschema", &["--builtin-schema", schema], files)
    }

    fn actionlint(&self, files: &[PathBuf]) -> Finished {
        self.run("actionlint", &["-no-color"], files)
    }

    fn shellcheck(&self, files: &[PathBuf]) -> Finished {
        self.run(
            "shellcheck",
            &["--color=never", "--external-sources"],
            files,
        )
    }
}

/// A tool of the lab; says so and is nothing when it is missing.
pub(crate) fn lab(relative: &str) -> Option<PathBuf> {
    let found = harness::lab_tool(relative);
    if found.is_none() {
        harness::skip_without(relative);
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap();
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Every `run:` text anywhere in a document.
fn scripts(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value) {
                ("run", Value::String(script)) => vec![script.as_str()],
                _ => scripts(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(scripts).collect(),
        _ => Vec::new(),
    }
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    with_extension(folder, &["yml", "yaml"])
}

fn shell_scripts(folder: &Path) -> Vec<PathBuf> {
    with_extension(folder, &["sh"])
}

fn with_extension(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    walk(folder)
        .into_iter()
        .filter(|path| {
            path.extension()
                .is_some_and(|kind| extensions.iter().any(|wanted| kind == *wanted))
        })
        .collect()
}

/// All files below a folder, sorted; none when it does not exist.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn relative_files(folder: &Path) -> Vec<PathBuf> {
    walk(folder)
        .iter()
        .map(|path| path.strip_prefix(folder).unwrap().to_owned())
        .collect()
}

/// The files GitHub would put on the runner for `uses:`.
fn copy_action(to: &Path) {
    fs::create_dir_all(to.join("action")).unwrap();
    for file in ["action.yml", "action/launch.sh", "action/checksums.txt"] {
        fs::copy(root().join(file), to.join(file)).unwrap();
    }
}

/// A folder of the repository without what earlier runs and builds left in it.
fn copy_sources(from: &Path, to: &Path) {
    for file in relative_files(from) {
        let made = file.components().any(|part| {
            [".tidegate", "target", ".env"]
                .iter()
                .any(|name| part.as_os_str() == *name)
        });
        if !made {
            fs::create_dir_all(to.join(&file).parent().unwrap()).unwrap();
            fs::copy(from.join(&file), to.join(&file)).unwrap();
        }
    }
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let mut text = String::new();
    for byte in sha2::Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

pub(crate) fn interrupt(child: &Child) {
    let status = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "waited too long until {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The exit code once the process has ended.
pub(crate) fn wait(child: &mut Child) -> Option<i32> {
    let mut status = None;
    wait_until("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}
