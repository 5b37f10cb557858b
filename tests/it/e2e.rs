//! The GitHub half, end to end, with the real binary: secrets reach the sinks they were declared
//! for, as the exact bytes, and nothing else ever holds them. Once as the runner starts the step,
//! with every program traced, and once under `act`.

mod cancel;
mod failures;
mod named;
mod project;
mod records;
mod scan;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::action::{ActJob, lab};
use crate::harness;
use crate::main_job::{files, json, processes};
use crate::runner::model::{self, Runner};
use project::{Known, Made, TOKEN, World, given, service};
use scan::{Leaks, Watch, in_files, in_programs, in_text, processes_of};

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A job that waits half-way for the test. A test that fails lets it go on to its end, where it
/// takes down what it made.
struct Waiting {
    child: Child,
    go_on: PathBuf,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            fs::write(&self.go_on, "").ok();
            self.child.wait().ok();
        }
    }
}

/// Waits for a file; a child that ends before it appears has failed.
fn wait_for_file(file: &Path, child: &mut Child, log: &dyn Fn() -> String) {
    let start = Instant::now();
    while !file.exists() {
        let ended = child.try_wait().unwrap();
        assert!(
            ended.is_none() && start.elapsed() < PATIENCE,
            "{} never came ({ended:?})\n{}",
            file.display(),
            log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait_for_end(child: &mut Child, log: &dyn Fn() -> String) -> i32 {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        if start.elapsed() > PATIENCE {
            child.kill().ok();
            panic!("it does not end\n{}", log());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Each place a secret could be in, with a leak planted in it, makes the scan report it.
fn expect_the_scan_to_find_planted_leaks(folder: &Path, made: &Made) {
    use base64::Engine as _;
    let secret = made.value("SESSION_KEY");
    let encoded = base64::engine::general_purpose::STANDARD.encode(secret);
    let file = folder.join("planted.log");
    fs::write(&file, format!("debug: {encoded}\n")).unwrap();
    let leaks = in_files(folder, &[], &made.values);
    assert!(
        leaks.iter().any(|leak| leak.starts_with("planted.log")),
        "{leaks:?}"
    );
    fs::remove_file(&file).unwrap();

    let leaks = in_text(
        "the log",
        &format!("key={}\n", secret.to_uppercase()),
        &made.values,
    );
    assert_eq!(leaks.len(), 1, "{leaks:?}");

    for (arguments, environment, place) in [
        (secret, "", "an argument of"),
        ("", secret, "the environment of"),
    ] {
        let watch = Watch::start();
        let mut planted = Command::new("sh")
            .args(["-c", "sleep 0.3; :", "sh", arguments])
            .env("PLANTED", environment)
            .spawn()
            .unwrap();
        planted.wait().unwrap();
        let leaks = in_programs(&watch.finish(), |_| false, &made.values);
        assert!(
            leaks.iter().any(|leak| leak.starts_with(place)),
            "{place}: {leaks:?}"
        );
    }
}

/// A step's output as the runner reads it: no secret before its mask, no command that was not
/// meant, every group closed.
fn expect_a_clean_step(output: &[u8], secrets: &[Known]) -> Runner {
    let runner = Runner::read(output);
    for name in runner.names() {
        assert!(
            [
                "add-mask", "group", "endgroup", "error", "warning", "notice"
            ]
            .contains(&name),
            "the command {name} was not meant"
        );
    }
    assert_eq!(runner.failures, Vec::<String>::new());
    assert_eq!(runner.overflowing(), Vec::<&String>::new());
    assert!(!runner.is_stopped());
    let mut depth = 0;
    for command in &runner.commands {
        match command.name.as_str() {
            "group" => depth += 1,
            "endgroup" => depth -= 1,
            _ => {}
        }
        assert!((0..=1).contains(&depth), "groups do not nest");
    }
    assert_eq!(depth, 0, "every group is closed");
    // Whatever the runner hides, our own bytes hold a secret in mask commands only.
    let ordinary: String = model::lines(output)
        .into_iter()
        .filter(|line| !line.starts_with("::add-mask::"))
        .map(|line| line + "\n")
        .collect();
    assert_eq!(in_text("the log", &ordinary, secrets), Leaks::new());
    runner
}

/// The step of the action as the runner starts it, and the end of the job, in one traced shell.
/// The last program leaks on purpose.
const JOB: &str = r#"
set -u
step() {
  export GITHUB_OUTPUT="$RECORD/$1.output" GITHUB_STEP_SUMMARY="$RECORD/$1.md" GITHUB_ENV="$RECORD/$1.env"
  : > "$GITHUB_OUTPUT"; : > "$GITHUB_STEP_SUMMARY"; : > "$GITHUB_ENV"
  TIDEGATE_INPUT_COMMAND=$2 TIDEGATE_INPUT_ARGS=$3 TIDEGATE_INPUT_ENV=ci \
    bash -c 'exec "$TIDEGATE" action' > "$RECORD/$1.log" 2>&1
  echo $? > "$RECORD/$1.code"
}
step first up ''
step second up ''
touch "$RECORD/standing"
for _ in $(seq 600); do
  if [ -e "$RECORD/seen" ]; then break; fi
  sleep 0.1
done
step destroy 'infra destroy' --yes
PLANTED="$(cat "$RECORD/planted")" /bin/sh -c : marker
/bin/sh -c : "$(cat "$RECORD/planted")"
"#;

#[test]
fn secrets_reach_their_sinks_and_nothing_else() {
    if harness::lab_tool("bin/strace").is_none() {
        return harness::skip_without("strace");
    }
    let Some(world) = World::start() else { return };
    let folder = TempDir::new().unwrap();
    let project = folder.path().join("project");
    let record = folder.path().join("record");
    fs::create_dir(&record).unwrap();
    fs::create_dir(folder.path().join("temp")).unwrap();
    world.write_project(&project);
    let before = files(&project);
    let trace = folder.path().join("trace");
    let mut shell = Command::new("strace")
        .args([
            "-f",
            "-v",
            "-s",
            "1000000",
            "-e",
            "trace=execve",
            "-e",
            "signal=none",
            "-o",
        ])
        .arg(&trace)
        .args(["bash", "--noprofile", "--norc", "-c", JOB])
        .current_dir(&project)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", folder.path())
        .env("TIDEGATE", harness::binary())
        .env("RECORD", &record)
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_WORKSPACE", &project)
        .env("GITHUB_API_URL", world.github.url())
        .env("RUNNER_ENVIRONMENT", "self-hosted")
        .env("RUNNER_TEMP", folder.path().join("temp"))
        .env("GH_TOKEN", TOKEN)
        .env("POSTGRES_PASSWORD", &given()[1].value)
        .stdin(Stdio::null())
        .spawn()
        .map(|child| Waiting {
            child,
            go_on: record.join("seen"),
        })
        .unwrap();
    let read = |name: &str| fs::read_to_string(record.join(name)).unwrap_or_default();
    let log = || read("first.log") + &read("second.log") + &read("destroy.log");
    wait_for_file(&record.join("standing"), &mut shell.child, &log);

    assert_eq!(read("first.code"), "0\n", "{}", log());
    let made = world.expect_delivered(&project);
    let secrets: Vec<Known> = made.values.iter().chain(&given()).cloned().collect();
    let sinks = [
        project.join(".env"),
        record.join("first.env"),
        record.join("second.env"),
    ];
    let sinks: Vec<&Path> = sinks.iter().map(PathBuf::as_path).collect();
    // The log holds secrets in mask commands and nowhere else, which is looked at below; the trace
    // holds every environment.
    let logs = [
        record.join("first.log"),
        record.join("second.log"),
        trace.clone(),
    ];
    let allowed: Vec<&Path> = sinks
        .iter()
        .copied()
        .chain(logs.iter().map(PathBuf::as_path))
        .collect();
    assert_eq!(in_files(folder.path(), &allowed, &secrets), Leaks::new());
    expect_the_scan_to_find_planted_leaks(&project, &made);

    // What runs now: the service has its secrets, and not those of the step that started it.
    let standing = scan::running();
    let services: Vec<_> = standing
        .iter()
        .filter(|one| {
            one.path == service() && one.has(&format!("SESSION_KEY={}", made.value("SESSION_KEY")))
        })
        .collect();
    assert_eq!(services.len(), 1, "the service was given its key");
    assert!(services[0].has(&format!("DATABASE_URL={}", made.value("DATABASE_URL"))));

    fs::write(record.join("planted"), made.value("SESSION_KEY")).unwrap();
    fs::write(record.join("seen"), "").unwrap();
    assert_eq!(wait_for_end(&mut shell.child, &log), 0, "{}", log());
    assert_eq!(read("destroy.code"), "0\n", "{}", log());
    assert_eq!(read("second.code"), "0\n", "{}", log());

    for step in ["first", "second", "destroy"] {
        let output = fs::read(record.join(format!("{step}.log"))).unwrap();
        let runner = expect_a_clean_step(&output, &secrets);
        assert!(runner.annotations.is_empty(), "{:?}", runner.annotations);
        let page = read(&format!("{step}.md"));
        assert!(page.len() < model::SUMMARY_BYTES_MAX);
        assert_eq!(in_text("the summary", &page, &secrets), Leaks::new());
        let outputs = model::entries(&read(&format!("{step}.output"))).unwrap();
        let names: Vec<&str> = outputs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["changed", "failed", "summary-json"]);
        assert_eq!(outputs[0].1, (step != "second").to_string());
        assert_eq!(outputs[1].1, "false");
        let summary: Value = json(&outputs[2].1);
        assert_eq!(summary["exit_code"], 0);
    }
    // The later steps of the job get the same bytes.
    for step in ["first", "second"] {
        let mut variables = model::entries(&read(&format!("{step}.env"))).unwrap();
        variables.sort();
        let expected = ["DATABASE_PASSWORD", "SESSION_KEY"]
            .map(|name| (name.to_owned(), made.value(name).to_owned()));
        assert_eq!(variables, expected);
    }

    let programs = scan::traced(&fs::read_to_string(&trace).unwrap());
    let marker = programs
        .iter()
        .position(|program| {
            program
                .arguments
                .last()
                .is_some_and(|last| last == "marker")
        })
        .expect("the last but one program");
    let (run, planted) = programs.split_at(marker);
    let services = processes_of(run, &service());
    assert_eq!(services.len(), 1, "the service is started once");
    assert_eq!(
        in_programs(run, |program| services.contains(&program.pid), &made.values),
        Leaks::new()
    );
    // The step, and the shell that stands for the runner, were handed these; nobody they start is.
    let shell_words = ["seq", "sleep", "cat", "touch"];
    let is_the_job = |program: &scan::Program| {
        program.is_the_step()
            || program
                .path
                .file_name()
                .is_some_and(|name| shell_words.iter().any(|word| name == *word))
    };
    assert_eq!(in_programs(run, is_the_job, &given()), Leaks::new());
    let leaks = in_programs(planted, |_| false, &made.values);
    assert!(
        leaks
            .iter()
            .any(|leak| leak.starts_with("the environment of")),
        "{leaks:?}"
    );
    assert!(
        leaks.iter().any(|leak| leak.starts_with("an argument of")),
        "{leaks:?}"
    );

    assert_eq!(files(&project), before, "destroy leaves nothing");
    assert_eq!(processes(&project.to_string_lossy()), Vec::<String>::new());
    world.expect_gone();
}

#[test]
fn secrets_reach_their_sinks_under_act() {
    let Some(act) = lab("v/bin/act") else { return };
    let Some(world) = World::start() else { return };
    let job = ActJob::new(act, "secrets.yml");
    world.write_project(&job.repository().join("project"));
    let handed_over = job.folder.path().join("handed-over");
    fs::write(
        &handed_over,
        format!(
            "SINK_TOKEN={TOKEN}\nPOSTGRES_PASSWORD=\"{}\"\n",
            given()[1].value
        ),
    )
    .unwrap();
    let output = job.folder.path().join("log");
    let watch = Watch::start();
    let mut act = job
        .command(&[
            ("TIDEGATE", &harness::binary().display().to_string()),
            ("GITHUB_API_URL", world.github.url()),
        ])
        .arg("--json")
        .arg("--secret-file")
        .arg(&handed_over)
        .stdout(fs::File::create(&output).unwrap())
        .stderr(fs::File::create(job.folder.path().join("errors")).unwrap())
        .spawn()
        .map(|child| Waiting {
            child,
            go_on: job.record().join("seen"),
        })
        .unwrap();
    let log = || messages(&fs::read_to_string(&output).unwrap());
    wait_for_file(&job.record().join("standing"), &mut act.child, &log);
    let read = |name: &str| fs::read_to_string(job.record().join(name)).unwrap();

    let places = read("places");
    let [workspace, temp, variables] = places.lines().collect::<Vec<_>>()[..] else {
        panic!("{places}");
    };
    let project = Path::new(workspace).join("project");
    let made = world.expect_delivered(&project);
    let secrets: Vec<Known> = made.values.iter().chain(&given()).cloned().collect();
    for (name, file) in [
        ("SESSION_KEY", "session-key.sha256"),
        ("DATABASE_PASSWORD", "database-password.sha256"),
    ] {
        let expected = crate::action::sha256(made.value(name).as_bytes());
        assert_eq!(read(file).trim(), expected, "{name} in the next step");
    }
    let sink = project.join(".env");
    for folder in [Path::new(workspace), Path::new(temp), &job.record()] {
        let leaks = in_files(folder, &[&sink, Path::new(variables)], &secrets);
        assert_eq!(leaks, Leaks::new(), "below {}", folder.display());
    }

    fs::write(job.record().join("seen"), "").unwrap();
    assert_eq!(wait_for_end(&mut act.child, &log), 0, "{}", log());
    let programs = watch.finish();
    let services = processes_of(&programs, &service());
    assert!(!services.is_empty());
    let may_know = |program: &scan::Program| {
        services.contains(&program.pid)
            || program.has("READS_THE_SINK=1")
            || program.has("TIDEGATE_INPUT_COMMAND=infra destroy")
    };
    assert_eq!(in_programs(&programs, may_know, &made.values), Leaks::new());
    assert_eq!(
        in_programs(&programs, scan::Program::is_the_step, &given()),
        Leaks::new()
    );

    expect_the_scan_to_find_planted_leaks(job.folder.path(), &made);

    // act masks less than the runner does; what it printed of ours is clean without any masking.
    let ordinary: String = log()
        .lines()
        .filter(|line| !line.contains("::add-mask::"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(ordinary.contains("deployed"), "{ordinary}");
    assert_eq!(in_text("the log", &ordinary, &secrets), Leaks::new());
    for name in ["up.json", "destroy.json"] {
        let summary = json(&read(name));
        assert_eq!(summary["failed"], false, "{summary:#}");
        assert_eq!(summary["changed"], true);
        assert_eq!(in_text(name, &read(name), &secrets), Leaks::new());
    }
    assert_eq!(read("left"), "project/infra.yaml\n");
    assert_eq!(processes(workspace), Vec::<String>::new());
    world.expect_gone();
}

/// What act shows: the `msg` of each line. Its other fields repeat commands unmasked.
fn messages(log: &str) -> String {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| Some(format!("{}\n", line["msg"].as_str()?.trim_end())))
        .collect()
}
