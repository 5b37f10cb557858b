//! The gate against the quickstart's own service, built and started as `up` would.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tidegate::verify::{Gate, GateVerdict, Target};

use super::{gate, ms, run};

/// A running service, ended when dropped.
struct Service {
    child: Child,
    url: String,
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn build() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/service");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("quickstart");
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--offline",
            "--locked",
            "--manifest-path",
        ])
        .arg(source.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()
        .unwrap();
    assert!(status.success());
    target.join("debug/shop")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn start(binary: &Path, port: u16, revision: &str, variables: &[(&str, &str)]) -> Service {
    let child = Command::new(binary)
        .env_clear()
        .envs(variables.iter().copied())
        .env("PORT", port.to_string())
        .env("TIDEGATE_REVISION", revision)
        .spawn()
        .unwrap();
    Service {
        child,
        url: format!("http://127.0.0.1:{port}"),
    }
}

fn health_of(service: &Service, revision: &str) -> Target {
    Target {
        expect_body_contains: Some(revision.into()),
        ..Target::new(&format!("{}/healthz", service.url))
    }
}

fn patient(targets: Vec<Target>) -> Gate {
    gate(targets, Duration::from_secs(20), 1_000)
}

#[test]
fn the_quickstart_service_is_held_until_this_revision_of_all_of_it_answers() {
    let binary = build();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (database, uploads) = (path("orders.db"), path("uploads"));
    std::fs::create_dir(&uploads).unwrap();
    std::fs::write(&database, "").unwrap();
    let api_variables = [
        ("DATABASE_PATH", database.as_str()),
        ("UPLOADS", uploads.as_str()),
        ("SESSION_KEY", "canary-session-key"),
    ];

    let api = start(&binary, free_port(), "aaaa11", &api_variables);
    let api_url = api.url.clone();
    let web_variables = [("ROLE", "web"), ("API_URL", api_url.as_str())];
    let web = start(&binary, free_port(), "bbbb22", &web_variables);
    let both = || vec![health_of(&api, "aaaa11"), health_of(&web, "bbbb22")];
    let report = run(&patient(both()));
    assert!(report.is_open(), "{report:?}");

    // The version that runs is not the one that is awaited.
    let report = run(&gate(vec![health_of(&web, "cccc33")], ms(400), 1_000));
    assert_eq!(report.verdict, GateVerdict::TimedOut);
    let last = report.targets[0].last.as_ref().unwrap();
    assert_eq!(last.cause, "body");
    assert!(last.body.as_ref().unwrap().contains("bbbb22"), "{last:?}");

    // Neither service is healthy without the database, and the key is never said.
    std::fs::remove_file(&database).unwrap();
    let report = run(&gate(both(), ms(400), 1_000));
    assert_eq!(report.verdict, GateVerdict::TimedOut);
    for target in &report.targets {
        let last = target.last.as_ref().unwrap();
        assert_eq!(last.status, Some(503), "{last:?}");
    }
    assert!(!format!("{report:?}").contains("canary"), "{report:?}");
    std::fs::write(&database, "").unwrap();

    // A new revision takes the old one's place while the gate is looking.
    let port = web.url.rsplit(':').next().unwrap().parse().unwrap();
    let awaited = health_of(&web, "cccc33");
    let began = Instant::now();
    let swap = std::thread::spawn({
        let binary = binary.clone();
        move || {
            std::thread::sleep(ms(300));
            drop(web);
            let web_variables = [("ROLE", "web"), ("API_URL", api_url.as_str())];
            start(&binary, port, "cccc33", &web_variables)
        }
    });
    let report = run(&patient(vec![awaited]));
    assert!(report.is_open(), "{report:?}");
    assert!(began.elapsed() > ms(300));
    drop(swap.join().unwrap());
}
