use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use super::*;

pub(super) const SERVICE: &str = "infra.container_service";
const KEY: &str = "canary-7f3a9c51e2d84b06";

/// A config that runs the test service; the lab's folder on its command line makes it findable.
fn config(lab: &Lab, extra: serde_json::Value) -> Map {
    let mut config = map(serde_json::json!({
        "command": [test_service(), "serve", lab.path()],
        "env_vars": {"GREETING": "hello"},
        "health_check": {"http_path": "/"},
    }));
    config.insert(
        "env_vars_secret".to_owned(),
        Value::Map(Map::from([("API_KEY".to_owned(), lab.secret(KEY))])),
    );
    config.extend(map(extra));
    config
}

fn ask(url: &str, path: &str) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(url.strip_prefix("http://")?).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    // One write: a server that answers after reading half would reset the connection.
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// Waits, off the runtime's clock, until `ready` answers.
#[track_caller]
pub(super) fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(super) struct Answer {
    revision: String,
    greeting: String,
    key_length: usize,
    pid: u32,
    folder: PathBuf,
}

#[track_caller]
pub(super) fn answer(url: &str) -> Answer {
    let text = wait_for("an answer", || {
        ask(url, "/").filter(|text| !text.is_empty())
    });
    let words: Vec<&str> = text.split(' ').collect();
    Answer {
        revision: words[0].to_owned(),
        greeting: words[1].to_owned(),
        key_length: words[2].parse().unwrap(),
        pid: words[3].parse().unwrap(),
        folder: words[4].into(),
    }
}

impl Lab {
    pub(super) fn supervisors(&self) -> Vec<Identity> {
        self.processes()
            .into_iter()
            .filter(|(_, line)| line.contains(" __supervise "))
            .map(|(identity, _)| identity)
            .collect()
    }

    pub(super) fn kill(&self, pid: u32) {
        let processes = SystemProcesses::default();
        let identity = processes.entry(pid).expect("it lives").identity;
        assert!(processes.signal(&identity, Signal::Kill));
        wait_for("its end", || (!processes.is_alive(&identity)).then_some(()));
    }
}

#[tokio::test]
async fn a_service_lives_changes_and_leaves_nothing() {
    let lab = Lab::new();
    let provider = lab.provider();
    let spec = lab.spec(SERVICE, "web", config(&lab, serde_json::json!({})));
    let driver = driver(&provider, &spec);
    assert!(driver.check(&spec).is_empty(), "{:?}", driver.check(&spec));
    assert_eq!(
        class(driver.read(&by_name(&spec)).await),
        ErrorClass::NotFound
    );
    let made = driver.create(&operation(), &spec).await.unwrap();
    assert_eq!(made.status, "running");
    let url = public(&made.outputs, "live_url");
    let first = answer(&url);
    assert_eq!(first.revision, public(&made.outputs, "revision"));
    assert_eq!(
        (first.greeting.as_str(), first.key_length),
        ("hello", KEY.len())
    );
    assert_eq!(
        first.folder,
        lab.path(),
        "a service starts in the config's directory"
    );
    assert_eq!(
        class(driver.create(&operation(), &spec).await),
        ErrorClass::AlreadyExists
    );
    assert_eq!(lab.supervisors().len(), 1);

    let prior = record(&spec, made);
    let diff = driver.diff(&prior, &spec).await.unwrap();
    assert!(diff.changes.is_empty(), "{:?}", diff.changes);
    let read = driver.read(&by_name(&spec)).await.unwrap();
    assert_eq!(read.status, "running");
    for name in ["live_url", "log_path", "name", "port", "revision"] {
        assert_eq!(driver.is_sensitive(name), Some(false));
        assert_eq!(public(&read.outputs, name), public(&prior.outputs, name));
    }
    assert!(driver.health(&prior).await.unwrap().healthy);

    // Another greeting: same port, other revision, other process.
    let changed = config(&lab, serde_json::json!({"env_vars": {"GREETING": "bye"}}));
    let changed = lab.spec(SERVICE, "web", changed);
    let diff = driver.diff(&prior, &changed).await.unwrap();
    assert!(diff.needs_update && !diff.needs_replace);
    assert!(
        diff.changes
            .iter()
            .any(|change| change.path == "env_vars.GREETING")
    );
    let updated = driver.update(&operation(), &prior, &changed).await.unwrap();
    assert_eq!(
        public(&updated.outputs, "port"),
        public(&prior.outputs, "port")
    );
    let second = answer(&url);
    assert_eq!(second.greeting, "bye");
    assert_eq!(second.revision, public(&updated.outputs, "revision"));
    assert_ne!(second.revision, first.revision);
    assert_ne!(second.pid, first.pid);
    assert_eq!(lab.supervisors().len(), 1);
    let prior = record(&changed, updated);

    // Another secret of the same length changes the revision too, and only that is shown.
    let mut rotated = changed.config.clone();
    rotated.insert(
        "env_vars_secret".to_owned(),
        Value::Map(Map::from([(
            "API_KEY".to_owned(),
            lab.secret("canary-0000000000000000"),
        )])),
    );
    let rotated = lab.spec(SERVICE, "web", rotated);
    let diff = driver.diff(&prior, &rotated).await.unwrap();
    assert!(diff.needs_update);
    assert!(!format!("{diff:?}").contains("canary"));

    driver.delete(&operation(), &prior).await.unwrap();
    driver.delete(&operation(), &prior).await.unwrap();
    assert_eq!(ask(&url, "/"), None);
    lab.expect_nothing_left();
}

#[tokio::test]
async fn no_secret_shows_in_a_command_line_a_file_or_the_supervisor() {
    let mut lab = Lab::new();
    // Of its own: other tests' services run at the same time.
    const KEY: &str = "canary-of-this-test-9b27d0c4";
    lab.variables
        .push(("GITHUB_TOKEN".to_owned(), KEY.to_owned()));
    lab.variables
        .push(("RUNNER_TRACKING_ID".to_owned(), "github_1".to_owned()));
    let provider = lab.provider();
    let mut secret = config(&lab, serde_json::json!({}));
    secret.insert(
        "env_vars_secret".to_owned(),
        Value::Map(Map::from([("API_KEY".to_owned(), lab.secret(KEY))])),
    );
    let spec = lab.spec(SERVICE, "web", secret);
    let driver = driver(&provider, &spec);
    let made = driver.create(&operation(), &spec).await.unwrap();
    let url = public(&made.outputs, "live_url");
    let service = answer(&url).pid;
    let supervisor = lab.supervisors()[0].pid;
    let holds = |path: String| {
        let bytes = std::fs::read(&path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(KEY)
    };
    for entry in SystemProcesses::default().table() {
        let pid = entry.identity.pid;
        assert!(!holds(format!("/proc/{pid}/cmdline")), "argv of {pid}");
        assert_eq!(
            holds(format!("/proc/{pid}/environ")),
            pid == service,
            "environment of {pid} (service {service}, supervisor {supervisor})"
        );
    }
    let names = ask(&url, "/environment").unwrap();
    assert_eq!(names, "API_KEY GREETING HOME PATH PORT TIDEGATE_REVISION");
    let environment = std::fs::read(format!("/proc/{supervisor}/environ")).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let names: BTreeSet<&str> = environment
        .split_terminator('\0')
        .filter_map(|pair| Some(pair.split_once('=')?.0))
        .collect();
    assert_eq!(
        names,
        BTreeSet::from(["HOME", "PATH"]),
        "the supervisor's own"
    );
    // The service wrote its key to both outputs; the log has everything but the key.
    let log = public(&made.outputs, "log_path");
    let text = wait_for("both lines", || {
        let text = std::fs::read_to_string(&log).ok()?;
        (text.contains("errors know") && text.contains("greeting hello")).then_some(text)
    });
    assert!(text.contains("greeting hello secret ***\n"), "{text}");
    assert!(text.contains("errors know *** too\n"), "{text}");
    for path in files_below(&lab.root()) {
        assert!(
            !holds(path.to_string_lossy().into_owned()),
            "{}",
            path.display()
        );
    }
    driver.delete(&operation(), &by_name(&spec)).await.unwrap();
    lab.expect_nothing_left();
}

#[tokio::test]
async fn a_service_that_dies_is_started_again() {
    let lab = Lab::new();
    let provider = lab.provider();
    let spec = lab.spec(SERVICE, "web", config(&lab, serde_json::json!({})));
    let driver = driver(&provider, &spec);
    let prior = record(&spec, driver.create(&operation(), &spec).await.unwrap());
    let url = public(&prior.outputs, "live_url");
    let mut before = answer(&url).pid;
    for round in 0..2 {
        if round == 0 {
            lab.kill(before);
        } else {
            ask(&url, "/exit");
        }
        before = wait_for("a new process", || {
            let pid = ask(&url, "/")?.split(' ').nth(3)?.parse().ok()?;
            (pid != before).then_some(pid)
        });
    }
    assert_eq!(lab.supervisors().len(), 1);
    let status = wait_for("the status", || {
        let text = std::fs::read_to_string(lab.root().join("web/status.json")).ok()?;
        text.contains("\"running\"").then_some(text)
    });
    assert!(status.contains("\"restarts\": 2"), "{status}");
    assert!(status.contains("exit status: 9"), "{status}");
    assert!(driver.diff(&prior, &spec).await.unwrap().changes.is_empty());
    driver.delete(&operation(), &prior).await.unwrap();
    lab.expect_nothing_left();
}

#[tokio::test]
async fn a_dead_supervisor_takes_its_service_along_and_the_next_run_repairs() {
    let lab = Lab::new();
    let provider = lab.provider();
    let spec = lab.spec(SERVICE, "web", config(&lab, serde_json::json!({})));
    let driver = driver(&provider, &spec);
    let prior = record(&spec, driver.create(&operation(), &spec).await.unwrap());
    let url = public(&prior.outputs, "live_url");
    for both in [false, true] {
        let service = answer(&url).pid;
        if both {
            lab.kill(service);
        }
        lab.kill(lab.supervisors()[0].pid);
        wait_for("the service's end", || {
            lab.processes().is_empty().then_some(())
        });
        assert_eq!(driver.read(&prior).await.unwrap().status, "stopped");
        assert!(!driver.health(&prior).await.unwrap().healthy);
        let diff = driver.diff(&prior, &spec).await.unwrap();
        assert!(diff.needs_update && diff.changes.len() == 1);
        assert_eq!(diff.changes[0].path, "status");
        assert_eq!(
            (&diff.changes[0].old, &diff.changes[0].new),
            (&"stopped".into(), &"running".into())
        );
        let repaired = driver.update(&operation(), &prior, &spec).await.unwrap();
        assert_eq!(public(&repaired.outputs, "live_url"), url, "the port stays");
        assert!(driver.diff(&prior, &spec).await.unwrap().changes.is_empty());
        assert_eq!(lab.supervisors().len(), 1);
    }
    lab.kill(lab.supervisors()[0].pid);
    driver.delete(&operation(), &prior).await.unwrap();
    lab.expect_nothing_left();
}

#[tokio::test]
async fn what_a_dead_supervisor_could_not_take_along_is_found_and_ended() {
    let lab = Lab::new();
    let provider = lab.provider();
    // A shell in front: killing the supervisor kills the shell only, the service below it stays.
    let mut command = config(&lab, serde_json::json!({}));
    command.extend(map(serde_json::json!({
        "command": ["sh", "-c", format!("'{}' serve '{}' & wait", test_service().display(), lab.path().display())],
    })));
    let spec = lab.spec(SERVICE, "web", command);
    let driver = driver(&provider, &spec);
    let prior = record(&spec, driver.create(&operation(), &spec).await.unwrap());
    let url = public(&prior.outputs, "live_url");
    let orphan = answer(&url).pid;
    lab.kill(lab.supervisors()[0].pid);
    assert_eq!(
        answer(&url).pid,
        orphan,
        "still there: that is the case under test"
    );
    driver.update(&operation(), &prior, &spec).await.unwrap();
    assert_ne!(answer(&url).pid, orphan);
    assert_eq!(
        SystemProcesses::default()
            .entry(orphan)
            .filter(|entry| !entry.ended),
        None
    );
    lab.kill(lab.supervisors()[0].pid);
    driver.delete(&operation(), &prior).await.unwrap();
    lab.expect_nothing_left();
}

#[tokio::test]
async fn children_that_left_the_group_end_with_the_service() {
    let lab = Lab::new();
    let provider = lab.provider();
    // One child in a session of its own, one that is deaf to requests, one plain.
    let endless = "while :; do sleep 0.1; done";
    let script = format!(
        "setsid sh -c '{endless}' {0} & sh -c 'trap : TERM; {endless}' {0} & sh -c '{endless}' {0} & wait",
        lab.path().display()
    );
    let mut command = config(&lab, serde_json::json!({}));
    command.extend(map(serde_json::json!({"command": ["sh", "-c", script]})));
    let spec = lab.spec(SERVICE, "web", command);
    let driver = driver(&provider, &spec);
    let prior = record(&spec, driver.create(&operation(), &spec).await.unwrap());
    assert_eq!(lab.processes().len(), 5, "{:?}", lab.processes());
    driver.delete(&operation(), &prior).await.unwrap();
    lab.expect_nothing_left();
}

#[tokio::test]
async fn a_service_that_ignores_the_request_to_stop_is_killed() {
    let lab = Lab::new();
    let provider = lab.provider();
    let script = format!(
        "trap '' TERM; while :; do sleep 0.1; done; : {}",
        lab.path().display()
    );
    let mut command = config(&lab, serde_json::json!({}));
    command.extend(map(serde_json::json!({"command": ["sh", "-c", script]})));
    let spec = lab.spec(SERVICE, "web", command);
    let driver = driver(&provider, &spec);
    let prior = record(&spec, driver.create(&operation(), &spec).await.unwrap());
    let started = Instant::now();
    driver.delete(&operation(), &prior).await.unwrap();
    assert!(
        started.elapsed() >= Duration::from_secs(4),
        "it had its grace"
    );
    assert!(started.elapsed() < Duration::from_secs(9));
    lab.expect_nothing_left();
}

#[tokio::test]
async fn a_command_that_does_not_stay_up_is_an_error_with_its_last_words() {
    let lab = Lab::new();
    let provider = lab.provider();
    for (command, words) in [
        (
            serde_json::json!([test_service(), "fail", lab.path()]),
            "exit status: 3",
        ),
        (serde_json::json!(["true"]), "exit status: 0"),
        (
            serde_json::json!(["./does-not-exist"]),
            "cannot start `./does-not-exist`",
        ),
    ] {
        let spec = lab.spec(
            SERVICE,
            "web",
            config(&lab, serde_json::json!({"command": command})),
        );
        let driver = driver(&provider, &spec);
        let error = driver.create(&operation(), &spec).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Invalid);
        assert!(error.message.contains(words), "{error}");
        assert!(
            error.message.contains("`web`") && error.message.contains("service.log"),
            "{error}"
        );
        assert!(!error.message.contains(KEY), "{error}");
        assert!(
            error
                .message
                .lines()
                .all(|line| !line.trim_start().starts_with("::")),
            "{error}"
        );
        assert_eq!(lab.processes(), [], "nothing crashes on in the background");
        let partial = *error.partial.expect("what exists is said");
        assert_eq!(partial.status, "failed");
        driver
            .delete(&operation(), &record(&spec, partial))
            .await
            .unwrap();
        lab.expect_nothing_left();
    }
}

#[tokio::test]
async fn a_port_in_use_is_said_before_anything_is_made() {
    let lab = Lab::new();
    let provider = lab.provider();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let spec = lab.spec(
        SERVICE,
        "web",
        config(&lab, serde_json::json!({"http_port": port})),
    );
    let driver = driver(&provider, &spec);
    let error = driver.create(&operation(), &spec).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Conflict);
    assert!(error.message.contains(&port.to_string()), "{error}");
    lab.expect_nothing_left();
    drop(taken);
    let made = driver.create(&operation(), &spec).await.unwrap();
    assert_eq!(
        public(&made.outputs, "live_url"),
        format!("http://127.0.0.1:{port}")
    );
    driver
        .delete(&operation(), &record(&spec, made))
        .await
        .unwrap();
    lab.expect_nothing_left();
}

#[tokio::test]
async fn health_is_what_the_health_path_answers() {
    let lab = Lab::new();
    let provider = lab.provider();
    let spec = lab.spec(
        SERVICE,
        "web",
        config(&lab, serde_json::json!({"health_check": {"path": "/sick"}})),
    );
    let driver = driver(&provider, &spec);
    let prior = record(&spec, driver.create(&operation(), &spec).await.unwrap());
    answer(&public(&prior.outputs, "live_url"));
    let health = driver.health(&prior).await.unwrap();
    assert!(
        !health.healthy && health.message.contains("503"),
        "{health:?}"
    );
    driver.delete(&operation(), &prior).await.unwrap();
    lab.expect_nothing_left();
}

#[tokio::test]
async fn a_service_whose_folder_is_taken_away_ends() {
    let lab = Lab::new();
    let provider = lab.provider();
    let spec = lab.spec(SERVICE, "web", config(&lab, serde_json::json!({})));
    let driver = driver(&provider, &spec);
    driver.create(&operation(), &spec).await.unwrap();
    std::fs::remove_dir_all(lab.root()).unwrap();
    wait_for("the end", || lab.processes().is_empty().then_some(()));
}

#[tokio::test]
async fn a_supervisor_whose_folder_was_replaced_says_nothing_in_the_new_one() {
    let lab = Lab::new();
    let provider = lab.provider();
    let spec = lab.spec(SERVICE, "web", config(&lab, serde_json::json!({})));
    let driver = driver(&provider, &spec);
    driver.create(&operation(), &spec).await.unwrap();
    let old = lab.supervisors();
    let old = &old[0];
    // Held still, so that it notices only when the new one has long been there.
    let processes = SystemProcesses::default();
    let halt = |signal: &str| {
        let status = std::process::Command::new("kill")
            .args([signal, &old.pid.to_string()])
            .status();
        assert!(status.unwrap().success());
    };
    halt("-STOP");
    std::fs::remove_dir_all(lab.root()).unwrap();
    let made = driver.create(&operation(), &spec).await.unwrap();
    let status = lab.root().join("web/status.json");
    let before = std::fs::read_to_string(&status).unwrap();
    halt("-CONT");
    wait_for("the end of the old one", || {
        (!processes.is_alive(old)).then_some(())
    });
    let now = std::fs::read_to_string(&status).unwrap();
    assert!(!now.contains("stopped"), "{before} {now}");
    assert!(!now.contains(&format!("\"pid\": {},", old.pid)), "{now}");
    let prior = record(&spec, made);
    assert_eq!(driver.read(&prior).await.unwrap().status, "running");
    driver.delete(&operation(), &prior).await.unwrap();
    lab.expect_nothing_left();
}

/// Starts a supervisor by hand; the answer is its exit code.
fn supervise(folder: &Path, order: &[u8]) -> Option<i32> {
    let mut supervisor = std::process::Command::new(harness::binary())
        .arg("__supervise")
        .arg(folder)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    supervisor.stdin.take().unwrap().write_all(order).unwrap();
    supervisor.wait().unwrap().code()
}

#[tokio::test]
async fn two_supervisors_never_share_a_folder() {
    let lab = Lab::new();
    let provider = lab.provider();
    let spec = lab.spec(SERVICE, "web", config(&lab, serde_json::json!({})));
    let driver = driver(&provider, &spec);
    let prior = record(&spec, driver.create(&operation(), &spec).await.unwrap());
    let folder = lab.root().join("web");
    let first = lab.supervisors();
    let order = |token: &str| {
        serde_json::json!({
            "command": ["sleep", "100"], "environment": {}, "secret_environment": {},
            "directory": "/", "port": 1, "revision": "other", "token": token,
        })
        .to_string()
    };
    let token = std::fs::read_to_string(folder.join("supervisor.token")).unwrap();
    let newest = order(&token);
    assert_eq!(
        supervise(&folder, newest.as_bytes()),
        Some(5),
        "the lock is held"
    );
    assert_eq!(lab.supervisors(), first);
    assert_eq!(driver.read(&prior).await.unwrap().status, "running");
    // Half an order starts nothing: whoever sent it died.
    assert_eq!(
        supervise(&folder, &newest.as_bytes()[..newest.len() - 1]),
        Some(1)
    );
    // With the lock free, an order that is not the newest starts nothing either.
    lab.kill(first[0].pid);
    assert_eq!(
        supervise(&folder, order("stale").as_bytes()),
        Some(5),
        "the order is stale"
    );
    assert_eq!(driver.read(&prior).await.unwrap().status, "stopped");
    // Nor does any order in a folder that is no service's.
    assert_eq!(supervise(&lab.path(), newest.as_bytes()), Some(5));
    driver.delete(&operation(), &prior).await.unwrap();
    lab.expect_nothing_left();
}
