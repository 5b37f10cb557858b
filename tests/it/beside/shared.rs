//! What more than one environment, or somebody besides Tidegate, has a hand in: sinks, stores and
//! records that came from elsewhere.

use std::fs;
use std::process::Stdio;

use tempfile::TempDir;

use crate::action::{interrupt, wait};
use crate::github::fake::{Fake, Options, Scripted};
use crate::harness::{Finished, Run, wait_for};
use crate::main_job::dotenv;

const CONFIG: &str = "\
modules:
  - {name: here, type: iac.provider, config: {provider: local, root: \"./resources-${WORKFLOW_ENV}\"}}
  - {name: state, type: iac.state, config: {backend: filesystem, directory: ./state}}
  - name: db
    type: infra.database
    config: {provider: here, engine: sqlite}
    outputs: {connection_url: {sensitive: true, sinks: [@SINK@]}}
environments: {dev: {}, prod: {}}
secretStores: {vault: {provider: file, config: {path: ./vault}}}
secrets:
  generate:
    - {key: SESSION, type: random_hex, store: vault}
";

struct Project {
    folder: TempDir,
    github: Fake,
}

impl Project {
    fn new(sink: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = CONFIG.replace("@SINK@", sink);
        fs::write(folder.path().join("infra.yaml"), config).unwrap();
        let github = Fake::start(Options::default());
        Self { folder, github }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    fn env_file(&self) -> std::path::PathBuf {
        self.folder.path().join(".env")
    }

    #[track_caller]
    fn run(&self, line: &str, code: i32) -> Finished {
        let arguments: Vec<&str> = line.split(' ').collect();
        Run::new(self.folder.path(), &arguments)
            .env("GITHUB_API_URL", self.github.url())
            .env("GH_TOKEN", "github_pat_11TESTTOKEN_for_the_fake")
            .output()
            .expect_code(code)
    }
}

#[test]
fn a_shared_dotenv_file_keeps_what_another_environment_wrote() {
    let project = Project::new("{type: dotenv, name: URL}");
    let file = project.env_file();
    project.run("up --env dev --yes", 0);
    let second = project.run("up --env prod --yes", 0).stderr();
    assert!(
        second.contains("sink/shared") && second.contains("`dev`"),
        "{second}"
    );
    let prods = dotenv(&file, "URL");
    assert!(prods.contains("resources-prod"), "{prods}");
    let destroyed = project.run("infra destroy --env dev --yes", 0);
    let said = destroyed.stdout() + &destroyed.stderr();
    assert!(said.contains("so it stays"), "{said}");
    assert_eq!(dotenv(&file, "URL"), prods);

    // Somebody's own line is replaced aloud, and not taken away.
    fs::write(&file, "URL=mine\n").unwrap();
    let replaced = project.run("up --env prod --yes", 0).stderr();
    assert!(replaced.contains("sink/replaced"), "{replaced}");
    assert_eq!(dotenv(&file, "URL"), prods);
    let again = project.run("up --env prod --yes", 0).stderr();
    assert!(!again.contains("sink/"), "{again}");
    fs::write(&file, "URL=mine\n").unwrap();
    project.run("infra destroy --env prod --yes", 0);
    assert_eq!(fs::read_to_string(&file).unwrap(), "URL=mine\n");
}

#[test]
fn a_shared_github_secret_goes_with_the_last_environment_that_wrote_it() {
    let project =
        Project::new("{type: github_secret, name: URL, repo: acme/shop, token_env: GH_TOKEN}");
    let stored = || project.github.secret("acme/shop", "URL");
    project.run("up --env dev --yes", 0);
    let devs = stored();
    let second = project.run("up --env prod --yes", 0).stderr();
    assert!(second.contains("sink/shared"), "{second}");
    assert_ne!(stored(), devs);
    // Each run says whose value it is from then on.
    project.run("up --env dev --yes", 0);
    assert_eq!(stored(), devs);
    project.run("infra destroy --env dev --yes", 0);
    assert_eq!(project.github.requests("DELETE"), 0);
    assert!(stored().is_some());
    project.run("infra destroy --env prod --yes", 0);
    assert_eq!(stored(), None);
}

#[test]
fn a_store_gets_a_lost_secret_back_and_keeps_somebody_elses() {
    let project = Project::new("{type: dotenv, name: URL}");
    project.run("up --env dev --yes", 0);
    let file = project.folder.path().join("vault/SESSION");
    let made = project.read("vault/SESSION");
    fs::remove_file(&file).unwrap();
    let repaired = project.run("up --env dev --yes", 0).stderr();
    assert!(repaired.contains("written there again"), "{repaired}");
    assert_eq!(project.read("vault/SESSION"), made);
    fs::write(&file, "somebody-elses-value").unwrap();
    let other = project.run("up --env dev --yes", 0).stderr();
    assert!(other.contains("secret/store-differs"), "{other}");
    project.run("infra destroy --env dev --yes", 0);
    assert_eq!(project.read("vault/SESSION"), "somebody-elses-value");
}

#[test]
fn records_whose_secrets_another_program_keeps_block_nothing() {
    let project = Project::new("{type: dotenv, name: URL}");
    project.run("up --env dev --yes", 0);
    project.run("state export --env dev -o there.json", 0);
    project.run("state wipe --env dev --yes", 0);
    project.run("state import there.json --env dev --yes", 0);
    for line in ["infra plan --env dev", "state verify --env dev"] {
        project.run(line, 0);
    }
    // Only what needs the value fails, and says what brings it.
    let config = project.read("infra.yaml");
    let reader = "  - name: reader
    type: infra.container_service
    config: {provider: here, command: [sleep, \"60\"], env_vars_secret: {URL: \"${db.connection_url}\"}}
environments:";
    let path = project.folder.path().join("infra.yaml");
    fs::write(&path, config.replace("environments:", reader)).unwrap();
    let refused = project.run("infra plan --env dev", 2).stderr();
    assert!(
        refused.contains("tidegate infra refresh-outputs"),
        "{refused}"
    );
    fs::write(&path, config).unwrap();
    project.run("infra refresh-outputs --env dev", 0);
    project.run("up --env dev --yes", 0);
    assert!(dotenv(&project.env_file(), "URL").contains("resources-dev"));
    project.run("infra destroy --env dev --yes", 0);
}

#[test]
fn a_pipe_as_a_config_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from(0o600)).unwrap();
    let refused = Run::new(folder.path(), &["config", "validate", "-c", "pipe"])
        .output()
        .expect_code(2);
    assert!(
        refused.stderr().contains("it is a pipe"),
        "{}",
        refused.stderr()
    );
}

#[test]
fn output_that_cannot_be_written_says_why() {
    let project = Project::new("{type: dotenv, name: URL}");
    let mut command = Run::new(project.folder.path(), &["config", "schema"]).into_command();
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let ended = command.stdout(full).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        said.contains("cli/output") && said.contains("No space left"),
        "{said}"
    );
}

#[test]
fn a_step_whose_inputs_make_no_command_says_so_to_the_steps_after_it() {
    let project = Project::new("{type: dotenv, name: URL}");
    let run = |command: &str, outputs: &str| {
        Run::new(project.folder.path(), &["action"])
            .env("GITHUB_ACTIONS", "true")
            .env(
                "GITHUB_OUTPUT",
                &project.folder.path().join(outputs).display().to_string(),
            )
            .env("TIDEGATE_INPUT_COMMAND", command)
            .output()
    };
    for command in ["infra plan; id", "up 'open", "action", "up --no-such-flag"] {
        fs::write(project.folder.path().join("outputs"), "").unwrap();
        let refused = run(command, "outputs").expect_code(2);
        let said = refused.stdout() + &refused.stderr();
        assert!(said.contains("::error"), "{command}: {said}");
        let outputs = project.read("outputs");
        let failed = outputs
            .lines()
            .skip_while(|line| !line.starts_with("failed"))
            .nth(1);
        assert_eq!(failed, Some("true"), "{command}: {outputs}");
    }
    // What later steps decide by is not there: that is no success.
    run("config validate", "outputs").expect_code(0);
    run("config validate", "no/such/folder").expect_code(1);
}

/// A sink that waits hears the first signal, and what it did not write the next run does.
#[test]
fn a_sink_that_waits_for_a_rate_limit_is_stopped() {
    let github = Fake::start(Options::default());
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("infra.yaml"),
        "modules:
  - {name: here, type: iac.provider, config: {provider: local, root: ./resources}}
secrets:
  generate:
    - {key: SESSION, type: random_hex, sinks: [{type: github_secret, name: SESSION, repo: acme/shop}]}
",
    )
    .unwrap();
    let up = |arguments: &[&str]| {
        Run::new(folder.path(), arguments)
            .env("GITHUB_API_URL", github.url())
            .env("GH_TOKEN", "github_pat_11TESTTOKEN_for_the_fake")
    };
    github.script([
        Scripted::message("PUT", 429, "You have exceeded a secondary rate limit")
            .header("retry-after", "120"),
    ]);
    let mut child = up(&["up"])
        .into_command()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the write is refused", || {
        github.seen().iter().any(|seen| seen.status == 429)
    });
    interrupt(&child);
    assert_eq!(wait(&mut child), Some(130));
    let writes = |status: u16| {
        let seen = github.seen();
        seen.iter()
            .filter(|seen| seen.method == "PUT" && seen.status == status)
            .count()
    };
    assert_eq!((writes(429), writes(201)), (1, 0));
    let next = up(&["up", "--json"]).output().expect_code(0);
    assert!(next.stdout().contains("\"written\""), "{}", next.stdout());
    assert_eq!(writes(201), 1);
    // What a destroy takes away is said before and after.
    let preview = up(&["infra", "destroy", "--dry-run"])
        .output()
        .expect_code(0);
    let line = "Removes `SESSION` from github_secret acme/shop.";
    assert!(preview.stderr().contains(line), "{}", preview.stderr());
}

/// Environments have locks of their own; what they write to one file is nobody's to lose.
#[test]
fn runs_that_write_one_dotenv_file_at_the_same_time_lose_nothing() {
    const RUNS: usize = 4;
    const KEYS: usize = 8;
    let folder = tempfile::tempdir().unwrap();
    for run in 0..RUNS {
        let keys: String = (0..KEYS)
            .map(|key| {
                format!(
                    "    - {{key: R{run}_K{key}, type: random_hex, sinks: [{{type: dotenv, name: R{run}_K{key}}}]}}\n"
                )
            })
            .collect();
        let config = format!(
            "modules:\n  - {{name: here, type: iac.provider, config: {{provider: local, root: ./r{run}}}}}\n  \
             - {{name: state, type: iac.state, config: {{backend: filesystem, directory: ./s{run}}}}}\n\
             secrets:\n  generate:\n{keys}"
        );
        fs::write(folder.path().join(format!("c{run}.yaml")), config).unwrap();
    }
    // What a killed run left goes, what a living one is about to rename does not.
    fs::write(folder.path().join("..env.1.0.tmp"), "OLD='secret'\n").unwrap();
    for _ in 0..3 {
        drop(fs::remove_file(folder.path().join(".env")));
        let children: Vec<_> = (0..RUNS)
            .map(|run| {
                let config = format!("c{run}.yaml");
                Run::new(folder.path(), &["up", "--yes", "-c", &config])
                    .into_command()
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{said}");
        }
        let text = fs::read_to_string(folder.path().join(".env")).unwrap();
        assert_eq!(text.lines().count(), RUNS * KEYS, "{text}");
    }
    let mut left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    left.sort();
    assert_eq!(left, [".env"]);
}

const TO_GITHUB: &str = "\
modules:
  - {name: here, type: iac.provider, config: {provider: local, root: ./resources}}
  - {name: state, type: iac.state, config: {backend: filesystem, directory: ./state}}
environments: {dev: {}}
secrets:
  generate:
    - {key: A, type: random_hex, sinks: [{type: github_secret, name: A, repo: acme/shop}]}
    - {key: B, type: random_hex, sinks: [{type: github_secret, name: B, repo: acme/shop}]}
";

#[test]
fn a_github_secret_that_was_removed_or_replaced_by_hand_is_written_again() {
    let mut project = Project::new("{type: dotenv, name: URL}");
    project.github = Fake::start(Options {
        secrets_max: 1_000,
        ..Options::default()
    });
    fs::write(project.folder.path().join("infra.yaml"), TO_GITHUB).unwrap();
    project.run("up --env dev --yes", 0);
    let (a, b) = ("A", "B");
    let stored = |project: &Project, name| project.github.secret("acme/shop", name).unwrap();
    let (first_a, first_b) = (stored(&project, a), stored(&project, b));
    for index in 0..250 {
        let name = format!("AAA_{index}");
        project.github.seed("acme/shop", &name, b"somebody's");
    }

    // Nothing happened: looked at once, in as many pages as it takes, and nothing is written.
    let lists = |project: &Project| {
        let seen = project.github.seen();
        let lists = seen.iter().filter(|seen| seen.path.contains("per_page"));
        lists.count()
    };
    let before = (project.github.requests("PUT"), lists(&project));
    let quiet = project.run("up --env dev --yes", 0).stderr();
    assert!(!quiet.contains("sink/"), "{quiet}");
    assert_eq!(project.github.requests("PUT"), before.0);
    assert_eq!(lists(&project), before.1 + 3);

    project.github.forget("acme/shop", a);
    let gone = project.run("up --env dev --yes", 0).stderr();
    assert!(gone.contains("sink/gone") && gone.contains("`A`"), "{gone}");
    assert_eq!(stored(&project, a), first_a);

    project.github.seed("acme/shop", b, b"somebody else's");
    project.github.touch("acme/shop", b, "2099-01-01T00:00:00Z");
    let replaced = project.run("up --env dev --yes", 0).stderr();
    assert!(
        replaced.contains("sink/replaced") && replaced.contains("`B`"),
        "{replaced}"
    );
    assert_eq!(stored(&project, b), first_b);
    let quiet = project.run("up --env dev --yes", 0).stderr();
    assert!(!quiet.contains("sink/"), "{quiet}");

    // A token that may not list: said once, and what was written counts as there.
    let writes = project.github.requests("PUT");
    assert!(writes > 0);
    project.github = Fake::start(Options {
        may_list: false,
        ..Options::default()
    });
    let denied = project.run("up --env dev --yes", 0).stderr();
    assert_eq!(denied.matches("sink/unlisted").count(), 1, "{denied}");
    assert_eq!(project.github.requests("PUT"), 0);
}
