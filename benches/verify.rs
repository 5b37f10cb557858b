//! How long a gate takes for 1, 10, 100 and 1,000 healthy targets, beside `curl -Z` asking the same
//! addresses. Whole processes are timed, start to end, alternately, and medians compared:
//!
//! ```console
//! $ cargo bench --bench verify
//! ```
//!
//! The same executable plays all parts: without a part it is the stopwatch.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a stopwatch stands outside the seams it measures"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::clock::SystemClock;
use tidegate::http::Http;
use tidegate::random::SystemRandom;
use tidegate::report::{Event, Reporter};
use tidegate::variables::Variables;
use tidegate::verify::{self, Gate, Target, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const ROUNDS: usize = 15;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["server"] => block_on(serve()),
        ["gate", port, count] => block_on(hold(port.parse().unwrap(), count.parse().unwrap())),
        _ => compare(),
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future);
}

/// Answers every request with `ok`, keeping connections open as long as the client wants.
async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            continue;
        };
        connections.spawn(async move {
            let mut buffer = [0_u8; 4096];
            let mut filled = 0;
            while let Ok(count @ 1..) = stream.read(&mut buffer[filled..]).await {
                filled += count;
                if buffer[..filled].ends_with(b"\r\n\r\n") {
                    filled = 0;
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

struct Silent;

impl Reporter for Silent {
    fn say(&self, _: Event) {}
}

fn url(port: u16, number: usize) -> String {
    format!("http://127.0.0.1:{port}/{number}")
}

async fn hold(port: u16, count: usize) {
    let gate = Gate {
        name: "bench".to_owned(),
        targets: (0..count)
            .map(|number| Target {
                expect_body_contains: Some("ok".into()),
                ..Target::new(&url(port, number))
            })
            .collect(),
        timeout: Duration::from_secs(60),
        retry_interval: Duration::from_secs(1),
        max_retries: 0,
        verbose: false,
    };
    let http = Arc::new(Http::new(&Variables::default()).unwrap());
    let probes = verify::probes(&http, &gate).unwrap();
    let world = World {
        clock: &SystemClock::new(),
        random: &SystemRandom,
        reporter: &Silent,
        hide: &|text, _| text.to_owned(),
    };
    let report = verify::run(&gate, &probes, &world, std::future::pending()).await;
    assert!(report.is_open(), "{report:?}");
}

fn timed(command: &mut Command) -> Duration {
    let started = Instant::now();
    let status = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    let took = started.elapsed();
    assert!(status.success());
    took
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1_000.0
}

fn compare() {
    let this = std::env::current_exe().unwrap();
    let mut server = Command::new(&this)
        .arg("server")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port: u16 = line.trim().parse().unwrap();
    println!("targets   gate ms   curl -Z ms   ratio   (medians of {ROUNDS})");
    for count in [1, 10, 100, 1_000] {
        let mut list = tempfile::NamedTempFile::new().unwrap();
        for number in 0..count {
            writeln!(list, "url = {}\noutput = /dev/null", url(port, number)).unwrap();
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(timed(Command::new(&this).args([
                "gate",
                &port.to_string(),
                &count.to_string(),
            ])));
            theirs.push(timed(
                Command::new("curl")
                    .args(["--silent", "--fail", "--parallel", "--config"])
                    .arg(list.path()),
            ));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!(
            "{count:>7}   {ours:>7.1}   {theirs:>10.1}   {:>5.2}",
            ours / theirs
        );
    }
    server.kill().unwrap();
    server.wait().unwrap();
}
