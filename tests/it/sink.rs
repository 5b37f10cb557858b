//! Sinks: one contract for all, then what is particular to each.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tidegate::config::SinkTarget;
use tidegate::disk::SystemDisk;
use tidegate::random::SystemRandom;
use tidegate::report::{Event, Reporter};
use tidegate::secret::{Masker, Secret};
use tidegate::sink::{self, Put, Sink, SinkTools};

use crate::github::World;
use crate::github::fake::Options;
use crate::harness;

/// Keeps the codes of the problems it is told about, and the values a test notes beside them.
#[derive(Default)]
struct Codes(Mutex<Vec<&'static str>>, Mutex<Vec<String>>);

impl Reporter for Codes {
    fn say(&self, event: Event) {
        if let Event::Problem(report) = event {
            self.0.lock().unwrap().push(report.code);
        }
    }
}

struct Bench {
    folder: tempfile::TempDir,
    world: World,
    reporter: Arc<Codes>,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            world: World::new(Options::default()),
            reporter: Arc::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tools(&self, variables: &[(&str, &str)]) -> SinkTools {
        SinkTools {
            disk: Arc::new(SystemDisk),
            clock: Arc::new(tidegate::clock::SystemClock::new()),
            random: Arc::new(SystemRandom),
            variables: Arc::new(
                variables
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            ),
            github: Arc::clone(&self.world.access),
            reporter: Arc::clone(&self.reporter) as Arc<dyn Reporter>,
            config_directory: self.folder.path().to_path_buf(),
        }
    }

    fn dotenv(&self, path: &str) -> Arc<dyn Sink> {
        let target = SinkTarget::Dotenv { path: path.into() };
        sink::open(&target, &self.tools(&[])).unwrap()
    }

    fn github_env(&self) -> (Arc<dyn Sink>, PathBuf) {
        let file = self.path("github_env");
        std::fs::write(&file, "").unwrap();
        let tools = self.tools(&[("GITHUB_ENV", file.to_str().unwrap())]);
        (sink::open(&SinkTarget::GithubEnv, &tools).unwrap(), file)
    }

    /// The values that were written with a warning.
    fn warned(&self) -> Vec<String> {
        self.reporter.1.lock().unwrap().clone()
    }

    fn github_secret(&self, environment: Option<&str>) -> Arc<dyn Sink> {
        let target = SinkTarget::GithubSecret {
            repo: "acme/shop".to_owned(),
            environment: environment.map(str::to_owned),
            token_env: None,
        };
        sink::open(&target, &self.tools(&[])).unwrap()
    }
}

fn secret(value: &str) -> Secret {
    Masker::default().admit("test", value.to_owned())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn every_sink_keeps_the_contract() {
    let bench = Bench::new();
    let sinks = [
        bench.dotenv(".env"),
        bench.github_env().0,
        bench.github_secret(None),
        bench.github_secret(Some("prod/eu")),
    ];
    for sink in sinks {
        let place = sink.destination();
        sink.check(&["KEY", "OTHER_KEY"]).await.expect(&place);
        sink.check(&["KEY"]).await.expect(&place);
        assert!(sink.check(&["KEY", "no-good"]).await.is_err(), "{place}");

        // Idempotent, and removing is too.
        for _ in 0..2 {
            sink.put("KEY", &secret("a value\nin two lines"))
                .await
                .expect(&place);
        }
        for _ in 0..2 {
            sink.remove("KEY").await.expect(&place);
        }

        // Errors name the secret and never show it.
        let hidden = "hunter2-hunter2\0";
        for (name, value) in [
            ("EMPTY", ""),
            ("no-good", hidden),
            ("1A", hidden),
            ("", hidden),
        ] {
            let error = sink.put(name, &secret(value)).await.unwrap_err();
            assert!(
                error.message.contains(&format!("`{name}`")),
                "{place}: {error}"
            );
            assert!(!error.message.contains("hunter2"), "{place}: {error}");
            assert!(!error.fix.is_empty(), "{place}: {error}");
        }
        assert!(!format!("{sink:?}").contains("value"), "{sink:?}");
    }
}

// ---- github_secret ---------------------------------------------------------------------------

#[tokio::test]
async fn github_secret_checks_before_it_writes() {
    let bench = Bench::new();
    let sink = bench.github_secret(Some("prod"));
    assert_eq!(
        sink.destination(),
        "github_secret acme/shop (environment prod)"
    );
    assert!(sink.remembers());
    sink.check(&["A", "B"]).await.unwrap();
    assert!(sink.check(&["A", "GITHUB_X"]).await.is_err());
    for name in ["A", "B"] {
        assert_eq!(sink.put(name, &secret("v")).await.unwrap(), Put::Written);
    }
    // The check's key serves the writes: N + 1 in all.
    assert_eq!(bench.world.fake.seen().len(), 3);
    assert_eq!(
        bench.world.fake.secret("acme/shop#prod", "B").unwrap(),
        b"v"
    );
    sink.remove("A").await.unwrap();
    assert_eq!(bench.world.fake.count("acme/shop#prod"), 1);
}

#[tokio::test]
async fn github_secret_refuses_48_kb_and_one_byte_without_a_request() {
    let bench = Bench::new();
    let sink = bench.github_secret(None);
    let error = sink
        .put("BIG", &secret(&"x".repeat(49_153)))
        .await
        .unwrap_err();
    assert_eq!(
        error.message,
        "secret `BIG` cannot be sent: the value is 49153 bytes long, and GitHub takes at most 49152 (48 KB)"
    );
    assert_eq!(bench.world.fake.seen().len(), 0);
}

#[test]
fn github_secret_refuses_a_repository_that_is_none() {
    let bench = Bench::new();
    let target = SinkTarget::GithubSecret {
        repo: "https://github.com/acme/shop".to_owned(),
        environment: None,
        token_env: None,
    };
    let report = sink::open(&target, &bench.tools(&[])).unwrap_err();
    assert_eq!(report.code, "github/bad-repository");
}

#[tokio::test]
async fn github_secret_without_a_token_opens_but_does_not_pass_its_check() {
    let bench = Bench::new();
    let target = SinkTarget::GithubSecret {
        repo: "acme/shop".to_owned(),
        environment: None,
        token_env: Some("DEPLOY_TOKEN".to_owned()),
    };
    let sink = sink::open(&target, &bench.tools(&[])).unwrap();
    let error = sink.check(&["A"]).await.unwrap_err();
    assert_eq!(error.message, "no GitHub token: `DEPLOY_TOKEN` is not set");
    assert!(
        error
            .fix
            .iter()
            .any(|fix| fix.contains("can never write secrets"))
    );
}

// ---- github_env ------------------------------------------------------------------------------

#[tokio::test]
async fn github_env_appends_one_heredoc_per_value() {
    let bench = Bench::new();
    let (sink, file) = bench.github_env();
    std::fs::write(&file, "EARLIER=1\n").unwrap();
    assert!(!sink.remembers());
    sink.check(&["DATABASE_URL"]).await.unwrap();
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "EARLIER=1\n",
        "a check writes nothing"
    );
    sink.put("DATABASE_URL", &secret("a\nPATH=/evil"))
        .await
        .unwrap();
    sink.put("OTHER", &secret("b")).await.unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let delimiter = lines[1].strip_prefix("DATABASE_URL<<").unwrap();
    assert!(delimiter.len() >= 32 + "tidegate_".len());
    assert_eq!(
        lines[..5],
        ["EARLIER=1", lines[1], "a", "PATH=/evil", delimiter]
    );
    let other = lines[5].strip_prefix("OTHER<<").unwrap();
    assert_ne!(other, delimiter, "a fresh delimiter for each value");
    assert_eq!(lines[6..], ["b", other]);
    assert!(text.ends_with('\n'));
}

#[tokio::test]
async fn github_env_refuses_what_would_run_code_and_what_no_environment_holds() {
    let bench = Bench::new();
    let (sink, file) = bench.github_env();
    for name in [
        "PATH",
        "NODE_OPTIONS",
        "LD_PRELOAD",
        "BASH_ENV",
        "GITHUB_TOKEN",
        "RUNNER_X",
        "CI",
    ] {
        assert!(sink.check(&[name]).await.is_err(), "{name}");
        assert!(sink.put(name, &secret("v")).await.is_err(), "{name}");
    }
    assert!(sink.put("A", &secret("zero\0byte")).await.is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
}

#[tokio::test]
async fn github_env_warns_above_what_linux_starts_a_process_with() {
    let bench = Bench::new();
    let (sink, _) = bench.github_env();
    // `A=`, the value and the closing zero byte: exactly at the limit, then one more.
    sink.put("A", &secret(&"x".repeat(128 * 1024 - 3)))
        .await
        .unwrap();
    assert!(bench.reporter.0.lock().unwrap().is_empty());
    sink.put("A", &secret(&"x".repeat(128 * 1024 - 2)))
        .await
        .unwrap();
    assert_eq!(
        *bench.reporter.0.lock().unwrap(),
        ["sink/variable-too-long"]
    );
}

/// The limit itself, asked of the kernel.
#[test]
fn linux_starts_a_process_with_one_byte_less_and_not_with_one_more() {
    let starts = |length: usize| {
        Command::new("/bin/true")
            .env_clear()
            .env("A", "x".repeat(length))
            .status()
            .is_ok()
    };
    assert!(starts(128 * 1024 - 3));
    assert!(!starts(128 * 1024 - 2));
}

#[tokio::test]
async fn github_env_outside_actions_says_so() {
    let bench = Bench::new();
    for variables in [&[][..], &[("GITHUB_ENV", "")]] {
        let sink = sink::open(&SinkTarget::GithubEnv, &bench.tools(variables)).unwrap();
        for error in [
            sink.check(&["A"]).await.unwrap_err(),
            sink.put("A", &secret("v")).await.unwrap_err(),
        ] {
            assert!(
                error.message.contains("not a step of a GitHub Actions job"),
                "{error}"
            );
        }
    }
    let lost = bench.path("missing/folder/file");
    let tools = bench.tools(&[("GITHUB_ENV", lost.to_str().unwrap())]);
    let sink = sink::open(&SinkTarget::GithubEnv, &tools).unwrap();
    assert!(sink.check(&["A"]).await.is_err());
}

// ---- dotenv ----------------------------------------------------------------------------------

#[tokio::test]
async fn dotenv_touches_its_own_keys_only() {
    let bench = Bench::new();
    let file = bench.path(".env");
    let mine = "# made by hand\nexport PORT=8080   # the port\n\nNAME = \"x y\"\r\n";
    std::fs::write(&file, mine).unwrap();
    let sink = bench.dotenv(".env");
    sink.check(&["DATABASE_URL"]).await.unwrap();
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        mine,
        "a check writes nothing"
    );
    assert_eq!(
        sink.put("DATABASE_URL", &secret("one")).await.unwrap(),
        Put::Written
    );
    assert_eq!(
        sink.put("DATABASE_URL", &secret("one")).await.unwrap(),
        Put::Unchanged
    );
    assert_eq!(
        sink.put("DATABASE_URL", &secret("two")).await.unwrap(),
        Put::Written
    );
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        format!("{mine}DATABASE_URL='two'\n")
    );
    assert_eq!(mode(&file), 0o600);
    sink.remove("DATABASE_URL").await.unwrap();
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        mine,
        "what was not ours stays"
    );
    let names: Vec<_> = std::fs::read_dir(bench.folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "no temporary file is left");
}

#[tokio::test]
async fn dotenv_makes_a_private_file_and_takes_it_away_again() {
    let bench = Bench::new();
    let file = bench.path(".env");
    let sink = bench.dotenv(".env");
    sink.check(&["A"]).await.unwrap();
    assert!(!file.exists(), "a check makes no file");
    sink.remove("A").await.unwrap();
    sink.put("A", &secret("1")).await.unwrap();
    sink.put("B", &secret("2")).await.unwrap();
    assert_eq!(mode(&file), 0o600);
    sink.remove("A").await.unwrap();
    assert!(file.exists());
    sink.remove("B").await.unwrap();
    assert!(!file.exists());
    assert_eq!(std::fs::read_dir(bench.folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn dotenv_sweeps_up_after_a_run_that_was_killed() {
    let bench = Bench::new();
    for leftover in ["..env.1.2.tmp", "..env.77.0.tmp"] {
        std::fs::write(bench.path(leftover), "A='secret'\n").unwrap();
    }
    for kept in ["..env.x.tmp", "..env.tmp", ".env.1.tmp"] {
        std::fs::write(bench.path(kept), "somebody else's").unwrap();
    }
    let sink = bench.dotenv(".env");
    sink.check(&["A"]).await.unwrap();
    let mut names: Vec<_> = std::fs::read_dir(bench.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["..env.tmp", "..env.x.tmp", ".env.1.tmp"]);
}

#[tokio::test]
async fn dotenv_writes_through_no_link_and_into_no_missing_folder() {
    let bench = Bench::new();
    let target = bench.path("target");
    std::fs::write(&target, "KEEP=1\n").unwrap();
    std::os::unix::fs::symlink(&target, bench.path("link")).unwrap();
    std::os::unix::fs::symlink(bench.path("nowhere"), bench.path("dangling")).unwrap();
    std::fs::create_dir(bench.path("folder")).unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), bench.path("out")).unwrap();
    for path in ["link", "dangling", "folder", "missing/.env", "out/.env", ""] {
        let sink = bench.dotenv(path);
        assert!(sink.check(&["A"]).await.is_err(), "{path}");
        assert!(sink.put("A", &secret("v")).await.is_err(), "{path}");
    }
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "KEEP=1\n");
    assert!(!bench.path("nowhere").exists());
    assert!(!outside.path().join(".env").exists());
}

#[tokio::test]
async fn dotenv_warns_when_only_a_shell_reads_the_value() {
    let bench = Bench::new();
    let sink = bench.dotenv(".env");
    sink.put("A", &secret("it's $5 \"off\"")).await.unwrap();
    assert_eq!(
        *bench.reporter.0.lock().unwrap(),
        ["sink/dotenv-shell-only"]
    );
}

/// What `set -a; . FILE` makes of `K0`, `K1`, …
fn sourced(shell: &str, file: &Path, count: usize) -> Vec<Vec<u8>> {
    let output = Command::new(shell)
        .args(["-c", "set -a; . \"$0\"; exec env -0"])
        .arg(file)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    (0..count)
        .map(|index| {
            let start = format!("K{index}=");
            output
                .stdout
                .split(|byte| *byte == 0)
                .find_map(|entry| entry.strip_prefix(start.as_bytes()))
                .unwrap_or_else(|| panic!("K{index} is not set"))
                .to_vec()
        })
        .collect()
}

/// Pieces that some reader gives a meaning to.
fn hostile() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            prop::sample::select(vec![
                "'",
                "\"",
                "`",
                "\\",
                "\\\\",
                "\\n",
                "\\'",
                "$",
                "$HOME",
                "${HOME}",
                "$(id)",
                "#",
                " #",
                "=",
                "\n",
                "\r",
                "\r\n",
                "!",
                "&",
                ";",
                "~",
                "*",
                "K1=evil",
                "\nK0=evil\n",
                "'\nK0='evil",
                "export ",
                "\t",
                "é",
                "\u{2028}",
                "%",
                "{",
                "}",
                "[",
                "^",
            ])
            .prop_map(str::to_owned),
            "[ -~]{1,6}",
        ],
        1..10,
    )
    .prop_map(|pieces| pieces.concat())
}

fn written(values: &[String]) -> (Bench, PathBuf) {
    let bench = Bench::new();
    let file = bench.path(".env");
    std::fs::write(&file, "# mine\nOTHER='stays'\n").unwrap();
    let sink = bench.dotenv(".env");
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(async {
            for (index, value) in values.iter().enumerate() {
                let before = bench.reporter.0.lock().unwrap().len();
                sink.put(&format!("K{index}"), &secret(value))
                    .await
                    .unwrap();
                if bench.reporter.0.lock().unwrap().len() > before {
                    bench.reporter.1.lock().unwrap().push(value.clone());
                }
            }
        });
    (bench, file)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_shell_reads_every_value_exactly(values in prop::collection::vec(hostile(), 1..8)) {
        let (_bench, file) = written(&values);
        let expected: Vec<Vec<u8>> = values.iter().map(|value| value.clone().into_bytes()).collect();
        prop_assert_eq!(sourced("/bin/sh", &file, values.len()), expected.clone());
        if Path::new("/bin/bash").exists() {
            prop_assert_eq!(sourced("/bin/bash", &file, values.len()), expected);
        }
    }
}

/// Runs a dotenv library over many files at once; answers `{K0: …}` per file.
fn library(
    command: &mut Command,
    files: &[PathBuf],
) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let output = command.args(files).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Every value that is written without a warning is read alike by a library.
fn library_reads_what_was_not_warned_about(mut command: Command) {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = prop::collection::vec(hostile(), 1..6);
    let mut benches = Vec::new();
    for _ in 0..100 {
        let mut values = strategy.new_tree(&mut runner).unwrap().current();
        // What a library misreads may hide its neighbours too: such values stand in no file here.
        let warned = written(&values).0.warned();
        values.retain(|value| !warned.contains(value));
        if !values.is_empty() {
            let (bench, file) = written(&values);
            assert!(bench.warned().is_empty());
            benches.push((bench, file, values));
        }
    }
    assert!(
        benches.len() > 50,
        "most values are portable: {}",
        benches.len()
    );
    let files: Vec<PathBuf> = benches.iter().map(|(_, file, _)| file.clone()).collect();
    for ((_, file, values), found) in benches.iter().zip(library(&mut command, &files)) {
        assert_eq!(found["OTHER"], "stays");
        for (index, value) in values.iter().enumerate() {
            assert_eq!(
                found[&format!("K{index}")],
                value.as_str(),
                "{}",
                std::fs::read_to_string(file).unwrap()
            );
        }
    }
}

#[test]
fn python_dotenv_reads_what_was_not_warned_about() {
    let Some(python) = harness::lab_tool("v/bin/python").filter(|python| {
        Command::new(python)
            .args(["-c", "import dotenv"])
            .output()
            .is_ok_and(|output| output.status.success())
    }) else {
        return harness::skip_without("python-dotenv in .lab/v");
    };
    let mut command = Command::new(python);
    command.args([
        "-c",
        "import json,sys,dotenv\nfor path in sys.argv[1:]: print(json.dumps(dict(dotenv.dotenv_values(path))))",
    ]);
    library_reads_what_was_not_warned_about(command);
}

#[test]
fn node_dotenv_reads_what_was_not_warned_about() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join(".lab/dotenv/node_modules/dotenv");
    let (Some(node), true) = (harness::lab_tool("bin/node"), package.exists()) else {
        return harness::skip_without("node and npm dotenv in .lab/dotenv");
    };
    let mut command = Command::new(node);
    command
        .arg("-e")
        .arg(
            "const d=require(process.argv[1]),fs=require('fs');\
             for(const p of process.argv.slice(2))console.log(JSON.stringify(d.parse(fs.readFileSync(p))))",
        )
        .arg(package);
    library_reads_what_was_not_warned_about(command);
}
