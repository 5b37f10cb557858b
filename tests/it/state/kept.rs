//! The store is down at the moment of saving: what was done goes to a sealed file, and the next run
//! saves it before it plans anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::cloud::{Moto, install};
use super::http::Message;
use super::wire::{Fault, Proxy, Tripwire};
use crate::harness::{self, Run};
use crate::local::cluster::{ADMINISTRATOR_PASSWORD, Cluster};

const MODULES: &str = "
  - {name: here, type: iac.provider, config: {provider: local, root: ./resources}}
  - {name: uploads, type: infra.storage, config: {provider: here}}
  - {name: more, type: infra.storage, config: {provider: here}}
  - {name: after, type: infra.storage, config: {provider: here}, dependsOn: [uploads]}
";

struct Shop {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Shop {
    fn new(state: &str, variables: Vec<(&'static str, String)>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config =
            format!("modules:\n  - {{name: state, type: iac.state, config: {{{state}}}}}{MODULES}");
        fs::write(folder.path().join("infra.yaml"), config).unwrap();
        Self { folder, variables }
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.variables
            .iter()
            .fold(Run::new(self.folder.path(), arguments), |run, variable| {
                run.env(variable.0, &variable.1)
            })
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join(".tidegate/recovery/infra.default")
    }

    fn resources(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        walk(&self.folder.path().join("resources"), &mut all);
        all.sort();
        all
    }

    /// The run that lost its store, then the next one, when the store is back.
    fn is_saved_by_the_next_run(&self, come_back: impl FnOnce()) {
        let first = self.run(&["up", "-y"]).output();
        let text = first.stderr();
        assert!(matches!(first.code(), 4 | 6), "{}: {text}", first.code());
        let kept = self.kept();
        for expected in [
            "state/kept-aside",
            "recovery/infra.default",
            "run `tidegate up`",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        let bytes = fs::read(&kept).expect("the recovery file");
        let is_in = |needle: &str| String::from_utf8_lossy(&bytes).contains(needle);
        assert!(!is_in("uploads") && !is_in("more") && !bytes.is_empty());
        let made = self.resources();
        assert!(!made.is_empty(), "nothing was made before the store went");
        // Who only looks is told, and changes nothing.
        come_back();
        let look = self.run(&["up", "--dry-run"]).output();
        assert!(
            look.stderr().contains("could not save"),
            "{}",
            look.stderr()
        );
        assert_eq!(fs::read(&kept).unwrap(), bytes);

        let second = self.run(&["up", "-y", "--json"]).output().expect_code(0);
        let text = second.stderr();
        assert!(text.contains("that an earlier run had kept"), "{text}");
        assert!(!kept.exists() && !kept.parent().unwrap().exists());
        let document: Value = serde_json::from_str(&second.stdout()).expect("JSON");
        let created: Vec<&str> = document["actions"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|action| action["action"] == "create")
            .map(|action| action["resource"].as_str().unwrap())
            .collect();
        assert!(created.contains(&"after"), "{document}");
        for path in &made {
            assert!(path.exists(), "{} is gone", path.display());
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(!created.contains(&name.as_str()), "{name} was made twice");
        }
        let third = self.run(&["up", "-y"]).output().expect_code(0);
        assert!(third.stderr().contains("No changes"), "{}", third.stderr());
        self.run(&["infra", "destroy", "-y"])
            .output()
            .expect_code(0);
    }
}

/// Folders below the root of the local provider.
fn walk(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            all.push(entry.path());
            walk(&entry.path(), all);
        }
    }
}

#[test]
fn a_database_that_crashes_under_a_run_loses_nothing() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let cluster = Arc::new(cluster);
    let crashing = Arc::clone(&cluster);
    let wire = Tripwire::start(cluster.port, ".records (project", move || crashing.crash());
    let password = percent_encoding::utf8_percent_encode(
        ADMINISTRATOR_PASSWORD,
        percent_encoding::NON_ALPHANUMERIC,
    );
    let dsn = format!(
        "postgres://admin:{password}@127.0.0.1:{}/postgres?sslmode=disable",
        wire.port
    );
    let shop = Shop::new(
        "backend: postgres, dsn: \"${STATE_DATABASE_URL}\", project: shop",
        vec![("STATE_DATABASE_URL", dsn)],
    );
    shop.is_saved_by_the_next_run(|| cluster.restart());
}

/// A shop with its state in a bucket behind `proxy`; the folder holds its plugin.
fn in_bucket(proxy: &Proxy) -> Option<(Shop, tempfile::TempDir)> {
    let built = harness::binary().with_file_name("tidegate-plugin-cloud");
    if !built.exists() {
        harness::skip_without("tidegate-plugin-cloud");
        return None;
    }
    let plugins = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    install(&built, plugins.path());
    let state = format!(
        "backend: s3, project: shop, bucket: bucket, region: us-east-1, endpoint: \"{}\"",
        proxy.endpoint
    );
    let variables = vec![
        ("TIDEGATE_PLUGIN_DIR", plugins.path().display().to_string()),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test-0123456789".to_owned()),
    ];
    Some((Shop::new(&state, variables), plugins))
}

fn saves_a_record(request: &Message) -> bool {
    request.method() == "PUT" && request.target().contains("/record/")
}

#[test]
fn a_bucket_that_goes_away_under_a_run_loses_nothing() {
    let Some(moto) = Moto::start() else { return };
    let proxy = Proxy::start(&moto.endpoint);
    let Some((shop, _plugins)) = in_bucket(&proxy) else {
        return;
    };
    let is_down = Arc::new(AtomicBool::new(false));
    let gone = Arc::clone(&is_down);
    let was_down = AtomicBool::new(false);
    proxy.judge(move |request| {
        if saves_a_record(request) && !was_down.swap(true, Ordering::SeqCst) {
            gone.store(true, Ordering::SeqCst);
        }
        if gone.load(Ordering::SeqCst) {
            Fault::CutBefore
        } else {
            Fault::Nothing
        }
    });
    shop.is_saved_by_the_next_run(|| is_down.store(false, Ordering::SeqCst));
    assert_eq!(moto.keys(), Vec::<String>::new());
}

/// Nobody waits for the lease of a run that is known to be dead, and what it had under way comes
/// too late.
#[test]
fn the_lock_of_a_run_that_was_killed_here_is_taken_at_once() {
    let Some(moto) = Moto::start() else { return };
    let proxy = Proxy::start(&moto.endpoint);
    let Some((shop, _plugins)) = in_bucket(&proxy) else {
        return;
    };
    let is_saving = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_saving);
    proxy.judge(move |request| {
        if saves_a_record(request) {
            seen.store(true, Ordering::SeqCst);
            Fault::Late(Duration::from_secs(8))
        } else {
            Fault::Nothing
        }
    });
    let mut command = shop.run(&["up", "-y"]).into_command();
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut killed = command.spawn().expect("it starts");
    for _ in 0..6000 {
        if is_saving.load(Ordering::SeqCst) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(is_saving.load(Ordering::SeqCst), "it saves nothing");
    killed.kill().unwrap();
    killed.wait().unwrap();
    proxy.judge(|_| Fault::Nothing);
    // It does not wait (`--lock-timeout` is zero), and is not refused either.
    let next = shop.run(&["up", "-y"]).output().expect_code(0);
    assert!(
        next.stderr().contains("Took over the lock"),
        "{}",
        next.stderr()
    );
    let last = shop.run(&["up", "-y"]).output().expect_code(0);
    assert!(last.stderr().contains("No changes"), "{}", last.stderr());
    // The late writes of the dead run have been refused by now, or will be.
    std::thread::sleep(Duration::from_secs(8));
    let last = shop.run(&["up", "-y"]).output().expect_code(0);
    assert!(last.stderr().contains("No changes"), "{}", last.stderr());
    shop.run(&["infra", "destroy", "-y"])
        .output()
        .expect_code(0);
}
