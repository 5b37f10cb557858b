//! The gate against real sockets. Every server here is a script over raw TCP, so that each byte,
//! pause and tear of the answer is ours; what is tested is the whole way from a resolved gate to
//! its report.

mod answers;
mod quickstart;
mod server;
mod tls;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::clock::SystemClock;
use tidegate::http::Http;
use tidegate::random::SeededRandom;
use tidegate::report::{Event, Reporter};
use tidegate::variables::Variables;
use tidegate::verify::{self, Gate, GateReport, GateVerdict, Target, World};

use server::Act::{self, Close, Drip, Reset};
use server::{HANG, Server, answer, head_of, ok, raw, send};

#[derive(Default)]
struct Heard(Mutex<Vec<Event>>);

impl Reporter for Heard {
    fn say(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A gate that looks once.
fn once(target: Target) -> Gate {
    gate(vec![target], ms(1_500), 0)
}

fn gate(targets: Vec<Target>, timeout: Duration, max_retries: u32) -> Gate {
    Gate {
        name: "deploy/test".to_owned(),
        targets,
        timeout,
        retry_interval: ms(20),
        max_retries,
        verbose: false,
    }
}

fn run(gate: &Gate) -> GateReport {
    run_with(Http::new(&Variables::default()).unwrap(), gate)
}

fn run_with(http: Http, gate: &Gate) -> GateReport {
    let probes = verify::probes(&Arc::new(http), gate).unwrap();
    let clock = SystemClock::new();
    let heard = Heard::default();
    let world = World {
        clock: &clock,
        random: &SeededRandom::new(1),
        reporter: &heard,
        hide: &|text, _| text.to_owned(),
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(verify::run(gate, &probes, &world, std::future::pending()))
}

/// What the marker of the right version looks like.
const MARKER: &str = "\"revision\":\"4f2a\"";
const RIGHT: &str = "{\"status\":\"ok\",\"revision\":\"4f2a\"}";

fn target(url: &str) -> Target {
    Target {
        expect_body_contains: Some(MARKER.into()),
        ..Target::new(url)
    }
}

#[test]
fn nothing_listens_and_no_such_name_are_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = run(&once(target(&format!("http://{free}/"))));
    let last = refused.targets[0].last.as_ref().unwrap();
    assert_eq!(last.cause, "refused");
    assert_eq!(
        last.message,
        "the connection was refused: nothing listens on that port"
    );
    let unknown = run(&once(target("http://no-such-name.invalid/")));
    let last = unknown.targets[0].last.as_ref().unwrap();
    assert_eq!(last.cause, "dns", "{last:?}");
    assert_eq!(
        last.message,
        "the name `no-such-name.invalid` does not resolve"
    );
}

#[test]
fn the_gate_opens_as_soon_as_the_right_version_answers() {
    let wrong = || ok("{\"revision\":\"old\"}");
    let down = || answer("503 Service Unavailable", "", "starting");
    for (name, scripts, looks) in [
        ("at once", vec![ok(RIGHT)], 1),
        ("after 503", vec![down(), ok(RIGHT)], 2),
        ("after 500", vec![answer("500 Oops", "", ""), ok(RIGHT)], 2),
        (
            "after the old version",
            vec![wrong(), wrong(), ok(RIGHT)],
            3,
        ),
        (
            "after a tear",
            vec![raw("HTTP/1.1 200"), vec![Reset], ok(RIGHT)],
            3,
        ),
        (
            "after a redirect",
            vec![answer("302 Found", "Location: /x\r\n", ""), ok(RIGHT)],
            2,
        ),
        (
            "after all of them",
            vec![
                down(),
                wrong(),
                vec![Close],
                raw("noise\r\n\r\n"),
                ok(RIGHT),
            ],
            5,
        ),
    ] {
        let server = Server::start(scripts);
        let report = run(&gate(vec![target(&server.url())], ms(5_000), 200));
        assert!(report.is_open(), "{name}: {report:?}");
        assert_eq!(report.targets[0].attempts, looks, "{name}");
        // Every look is a connection of its own: it must meet whoever listens now.
        assert_eq!(server.connections(), looks as usize, "{name}");
    }
}

#[test]
fn a_flapping_service_needs_its_passes_in_a_row() {
    let down = || answer("503 Service Unavailable", "", "");
    let up = || ok(RIGHT);
    for (name, consecutive, scripts, looks) in [
        ("two in a row", 2, vec![up(), up()], 2),
        ("up, down, up, up", 2, vec![up(), down(), up(), up()], 4),
        (
            "flapping, then three",
            3,
            vec![up(), up(), down(), up(), down(), up(), up(), up()],
            8,
        ),
    ] {
        let server = Server::start(scripts);
        let target = Target {
            consecutive,
            ..target(&server.url())
        };
        let report = run(&gate(vec![target], ms(5_000), 200));
        assert!(report.is_open(), "{name}: {report:?}");
        assert_eq!(report.targets[0].attempts, looks, "{name}");
    }
    let server = Server::start(
        (0..400)
            .map(|n| if n % 2 == 0 { up() } else { down() })
            .collect(),
    );
    let target = Target {
        consecutive: 2,
        ..target(&server.url())
    };
    let report = run(&gate(vec![target], ms(1_000), 200));
    assert_eq!(report.verdict, GateVerdict::TimedOut, "flapping for ever");
    assert!(server.connections() > 10);
}

#[test]
fn one_of_many_targets_down_keeps_the_gate_closed() {
    let good: Vec<Server> = (0..30).map(|_| Server::start(vec![ok(RIGHT)])).collect();
    let bad = Server::start(vec![answer("503 Service Unavailable", "", "no database")]);
    let targets = good
        .iter()
        .take(17)
        .chain([&bad])
        .chain(good.iter().skip(17))
        .map(|server| target(&server.url()))
        .collect();
    let report = run(&gate(targets, ms(800), 200));
    assert_eq!(report.verdict, GateVerdict::TimedOut);
    let closed: Vec<usize> = (0..31).filter(|n| !report.targets[*n].passed).collect();
    assert_eq!(closed, [17]);
    let last = report.targets[17].last.as_ref().unwrap();
    assert_eq!(last.status, Some(503));
    assert_eq!(last.body.as_deref(), Some("no database"));
    assert_eq!(
        last.message,
        "it answered 503 Service Unavailable, expected 200"
    );
}

#[test]
fn the_timeout_is_kept_with_many_targets_that_hang_in_every_way() {
    let hang = Server::start(vec![vec![HANG]]);
    let body = Server::start(vec![vec![send(&(head_of(99) + RIGHT)), HANG]]);
    let drip = Server::start(vec![vec![
        send(&head_of(9_999)),
        Drip(b"x".repeat(9_999), ms(10)),
    ]]);
    let wrong = Server::start(vec![ok("wrong")]);
    for (count, timeout) in [(4, ms(300)), (120, ms(1_500)), (200, ms(1_000))] {
        let servers = [&hang, &body, &drip, &wrong];
        let targets = (0..count).map(|n| target(&servers[n % 4].url())).collect();
        let report = run(&gate(targets, timeout, 1_000));
        assert_eq!(report.verdict, GateVerdict::TimedOut);
        assert!(
            report.elapsed >= timeout && report.elapsed < timeout + ms(1_000),
            "{count} targets, {timeout:?}: {:?}",
            report.elapsed
        );
    }
}

#[test]
fn what_the_target_names_is_what_is_sent() {
    let server = Server::start(vec![ok(RIGHT)]);
    let masker = tidegate::secret::Masker::default();
    let mut target = target(&format!(
        "http://ann:pw@{}/x%20y?a=1&token=t#part",
        server.address
    ));
    "POST".clone_into(&mut target.method);
    target.body = Some("{\"ping\":true}".into());
    target.headers = [
        ("X-Plain".to_owned(), "one".into()),
        (
            "Authorization-Extra".to_owned(),
            verify::Text::Secret(masker.admit("token", "s3cr3t-value".to_owned())),
        ),
        ("cache-control".to_owned(), "max-age=0".into()),
    ]
    .into();
    let report = run(&once(target));
    assert!(report.is_open(), "{report:?}");
    let requests = server.requests();
    let request = &requests[0];
    assert!(
        request.starts_with("POST /x%20y?a=1&token=t HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.ends_with("\r\n\r\n{\"ping\":true}"), "{request}");
    let lower = request.to_lowercase();
    for header in [
        "x-plain: one\r\n",
        "authorization-extra: s3cr3t-value\r\n",
        "authorization: basic yw5uonb3\r\n",
        "cache-control: max-age=0\r\n",
        "content-length: 13\r\n",
        concat!("user-agent: tidegate/", env!("CARGO_PKG_VERSION"), "\r\n"),
    ] {
        assert!(lower.contains(header), "{header:?} in {request}");
    }
    for absent in ["accept-encoding", "cookie", "referer", "#part"] {
        assert!(!lower.contains(absent), "{absent} in {request}");
    }
    // And nothing of it is shown.
    let json = serde_json::to_string(&report).unwrap();
    assert!(
        json.contains("***@") && json.contains("token=***"),
        "{json}"
    );
    for secret in ["s3cr3t", "pw@", "token=t"] {
        assert!(!json.contains(secret), "{secret} in {json}");
    }
}

#[test]
fn a_request_without_words_of_its_own_asks_for_a_fresh_answer() {
    let server = Server::start(vec![raw(
        "HTTP/1.1 200 OK\r\nContent-Length: 500\r\nSet-Cookie: a=b\r\n\r\n",
    )]);
    let mut target = Target::new(&server.url());
    "HEAD".clone_into(&mut target.method);
    let report = run(&Gate {
        targets: vec![Target {
            consecutive: 2,
            ..target
        }],
        ..gate(Vec::new(), ms(3_000), 3)
    });
    assert!(report.is_open(), "HEAD has no body to wait for: {report:?}");
    for request in server.requests() {
        let lower = request.to_lowercase();
        assert!(lower.starts_with("head /healthz"), "{request}");
        assert!(lower.contains("cache-control: no-cache\r\n"), "{request}");
        assert!(
            !lower.contains("cookie"),
            "nothing is remembered: {request}"
        );
    }
}

#[test]
fn a_redirect_says_where_it_led_without_its_secrets() {
    let server = Server::start(vec![answer(
        "302 Found",
        "Location: https://login.test/start?code=abcdef&next=home\r\n",
        "",
    )]);
    let report = run(&once(target(&server.url())));
    assert_eq!(
        report.targets[0].last.as_ref().unwrap().message,
        "it answered 302 Found, expected 200; redirects (here to \
         https://login.test/start?code=***&next=home) are not followed, name the final address"
    );
    assert_eq!(server.connections(), 1);
}

#[test]
fn an_expected_status_other_than_200_is_a_status_like_any_other() {
    for (status, line) in [
        (204, "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            302,
            "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            401,
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        ),
        (503, "HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let server = Server::start(vec![raw(line)]);
        let mut target = Target::new(&server.url());
        target.expect_status = status;
        let report = run(&once(target));
        assert!(report.is_open(), "{status}: {report:?}");
    }
}

#[test]
fn evidence_is_cut_to_size_and_keeps_strange_bytes_visible() {
    let mut body = vec![0xFF, 0x00];
    body.extend("é".repeat(1_000).into_bytes());
    let server = Server::start(vec![vec![
        send(&format!(
            "HTTP/1.1 500 Oops\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )),
        Act::Send(body),
        Close,
    ]]);
    let report = run(&once(target(&server.url())));
    let evidence = report.targets[0]
        .last
        .as_ref()
        .unwrap()
        .body
        .clone()
        .unwrap();
    assert_eq!(evidence, format!("\\xFF\0{}…", "é".repeat(295)));
    let shown = report.problem().unwrap().because;
    let line = format!("answered: \\xFF {}…", "é".repeat(295));
    assert!(
        shown.iter().any(|cause| cause.ends_with(&line)),
        "{shown:?}"
    );
}

#[test]
fn an_answer_that_goes_on_and_on_never_passes() {
    let server = Server::start(vec![vec![
        send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
        Act::Send(vec![b'x'; (16 << 20) + 4096]),
        Close,
    ]]);
    let mut target = target(&server.url());
    target.expect_body_contains = None;
    let report = run(&once(target));
    assert!(!report.is_open());
    assert_eq!(report.targets[0].last.as_ref().unwrap().cause, "unfinished");
}

#[test]
fn a_gate_that_could_never_mean_anything_is_refused() {
    let http = Arc::new(Http::new(&Variables::default()).unwrap());
    let url = "http://127.0.0.1:1/";
    let changed = |change: fn(&mut Target)| {
        let mut target = Target::new(url);
        change(&mut target);
        once(target)
    };
    for (gate, code) in [
        (gate(Vec::new(), ms(1_000), 1), "verify/no-targets"),
        (
            gate(vec![Target::new(url)], Duration::ZERO, 1),
            "verify/no-time",
        ),
        (once(Target::new("")), "verify/bad-url"),
        (once(Target::new("shop.test/healthz")), "verify/bad-url"),
        (
            once(Target::new("ftp://ann:hunter2@shop.test/")),
            "verify/bad-url",
        ),
        (
            changed(|target| target.method = "GET IT".to_owned()),
            "verify/bad-method",
        ),
        (
            changed(|target| target.method = "CONNECT".to_owned()),
            "verify/bad-method",
        ),
        (
            changed(|target| target.expect_status = 0),
            "verify/bad-status",
        ),
        (
            changed(|target| target.expect_status = 100),
            "verify/bad-status",
        ),
        (
            changed(|target| target.expect_status = 1_000),
            "verify/bad-status",
        ),
        (
            changed(|target| target.expect_body_contains = Some("".into())),
            "verify/empty-expectation",
        ),
        (
            changed(|target| {
                target.method = "HEAD".to_owned();
                target.expect_body_contains = Some("x".into());
            }),
            "verify/body-of-head",
        ),
        (
            changed(|target| drop(target.headers.insert("a b".to_owned(), "x".into()))),
            "verify/bad-header",
        ),
        (
            changed(|target| {
                drop(
                    target
                        .headers
                        .insert("Content-Length".to_owned(), "9".into()),
                )
            }),
            "verify/bad-header",
        ),
        (
            changed(|target| {
                drop(
                    target
                        .headers
                        .insert("X".to_owned(), "hunter2\r\nA: b".into()),
                )
            }),
            "verify/bad-header",
        ),
    ] {
        let problems = verify::probes(&http, &gate).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].code, code, "{problems:?}");
        assert!(!problems[0].fix.is_empty());
        assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
    }
    // Every problem of every target, in one go.
    let mut first = Target::new("");
    first.expect_status = 7;
    let problems = verify::probes(&http, &gate(vec![first, Target::new("x")], ms(1), 1));
    assert_eq!(problems.unwrap_err().len(), 3);
}

#[test]
fn a_proxy_is_used_for_the_world_and_never_for_loopback() {
    let proxy = Server::start(vec![ok(RIGHT)]);
    let server = Server::start(vec![ok("direct")]);
    let variables: Variables = [(
        "HTTP_PROXY".to_owned(),
        format!("http://user:hunter2@{}", proxy.address),
    )]
    .into_iter()
    .collect();
    let http = Http::new(&variables).unwrap();
    assert!(!format!("{http:?}").contains("hunter2"));
    let report = run_with(http, &once(target("http://shop.example.invalid/healthz")));
    assert!(report.is_open(), "{report:?}");
    assert!(
        proxy.requests()[0].starts_with("GET http://shop.example.invalid/healthz HTTP/1.1"),
        "{:?}",
        proxy.requests()
    );
    let http = Http::new(&variables).unwrap();
    let report = run_with(http, &once(Target::new(&server.url())));
    assert!(report.is_open(), "{report:?}");
    assert_eq!((proxy.connections(), server.connections()), (1, 1));
}

#[test]
fn flags_make_the_same_gate_as_a_config_would() {
    let server = Server::start(vec![ok(RIGHT)]);
    let defaults = verify::from_flags(
        &server.url(),
        verify::defaults::EXPECT_STATUS,
        Some(MARKER),
        verify::defaults::TIMEOUT,
        verify::defaults::RETRY_INTERVAL,
        verify::defaults::MAX_RETRIES,
    );
    assert_eq!(defaults.timeout, Duration::from_secs(300));
    assert_eq!(defaults.retry_interval, Duration::from_secs(10));
    assert_eq!(
        (defaults.max_retries, defaults.targets[0].expect_status),
        (30, 200)
    );
    assert!(run(&defaults).is_open());
}
