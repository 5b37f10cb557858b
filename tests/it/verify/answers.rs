//! The promise that matters most, as a table: nothing opens the gate but the right answer, arrived
//! whole; and the right answer does so in every form HTTP allows.

use std::thread;

use super::server::Act::{self, Close, Drip, Pause, Reset};
use super::server::{CHUNKED, HANG, Server, answer, chunk, head_of, ok, raw, send};
use super::{MARKER, RIGHT, ms, once, run, target};

/// One look at a server that plays `script` must fail, for the reason `cause`.
struct Closed {
    name: &'static str,
    cause: &'static str,
    script: Vec<Act>,
    method: &'static str,
    expect_status: u16,
    expects_marker: bool,
}

fn closed(name: &'static str, cause: &'static str, script: Vec<Act>) -> Closed {
    Closed {
        name,
        cause,
        script,
        method: "GET",
        expect_status: 200,
        expects_marker: true,
    }
}

impl Closed {
    /// Does not ask for the marker, so that nothing but the status and the wholeness can fail.
    fn status_only(self) -> Self {
        Self {
            expects_marker: false,
            ..self
        }
    }

    fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    fn expecting(self, expect_status: u16) -> Self {
        Self {
            expect_status,
            ..self
        }
    }
}

fn closed_cases() -> Vec<Closed> {
    let redirect =
        |status: &str, location: &str| answer(status, &format!("Location: {location}\r\n"), RIGHT);
    let whole = head_of(RIGHT.len()) + RIGHT;
    let mut cases = vec![
        // The wrong answer.
        closed("wrong body", "body", ok("hello")),
        closed("empty body", "body", ok("")),
        closed("wrong revision", "body", ok("{\"revision\":\"4f2b\"}")),
        closed("revision as a prefix", "body", ok("\"revision\":\"4f2\"")),
        closed("other case", "body", ok("\"REVISION\":\"4F2A\"")),
        closed("other spelling", "body", ok("\"revision\": \"4f2a\"")),
        closed(
            "utf-16 body",
            "body",
            vec![
                send(&head_of(RIGHT.len() * 2)),
                Act::Send(RIGHT.encode_utf16().flat_map(u16::to_le_bytes).collect()),
                Close,
            ],
        ),
        closed(
            "marker only in a header",
            "body",
            answer("200 OK", "X-Revision: \"revision\":\"4f2a\"\r\n", "hello"),
        ),
        closed(
            "marker only in the reason",
            "body",
            raw(&format!(
                "HTTP/1.1 200 {MARKER}\r\nContent-Length: 2\r\n\r\nhi"
            )),
        ),
        closed(
            "marker only after the body's end",
            "body",
            raw(&format!("{}hello{RIGHT}", head_of(5))),
        ),
        closed(
            "marker only in a second answer",
            "body",
            raw(&format!("{}hello{whole}", head_of(5))),
        ),
        closed(
            "marker only in a chunk's extension",
            "body",
            raw(&format!("{CHUNKED}2;x={MARKER}\r\nhi\r\n0\r\n\r\n")),
        ),
        closed(
            "marker only in a trailer",
            "body",
            raw(&format!("{CHUNKED}2\r\nhi\r\n0\r\nX-R: {MARKER}\r\n\r\n")),
        ),
        closed(
            "login page with status 200",
            "body",
            ok("<form action=/login>Please sign in</form>"),
        ),
        closed(
            "captive portal",
            "body",
            ok("<html>Welcome to the airport</html>"),
        ),
        closed(
            "gzip body",
            "encoding",
            answer("200 OK", "Content-Encoding: gzip\r\n", RIGHT),
        ),
        closed(
            "gzip body, header twice",
            "encoding",
            answer(
                "200 OK",
                "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n",
                RIGHT,
            ),
        ),
        // The wrong status, with the right body.
        closed(
            "204 for 200",
            "status",
            raw("HTTP/1.1 204 No Content\r\n\r\n"),
        )
        .status_only(),
        closed("200 for 204", "status", ok(""))
            .status_only()
            .expecting(204),
        closed("201 for 200", "status", answer("201 Created", "", RIGHT)),
        closed(
            "206 for 200",
            "status",
            answer(
                "206 Partial Content",
                "Content-Range: bytes 0-32/99\r\n",
                RIGHT,
            ),
        ),
        closed(
            "304 for 200",
            "status",
            raw("HTTP/1.1 304 Not Modified\r\n\r\n"),
        )
        .status_only(),
        closed(
            "401",
            "status",
            answer("401 Unauthorized", "WWW-Authenticate: Basic\r\n", RIGHT),
        ),
        closed("404", "status", answer("404 Not Found", "", RIGHT)),
        closed(
            "429",
            "status",
            answer("429 Too Many Requests", "Retry-After: 1\r\n", RIGHT),
        ),
        closed(
            "500",
            "status",
            answer("500 Internal Server Error", "", RIGHT),
        ),
        closed("502", "status", answer("502 Bad Gateway", "", RIGHT)),
        closed(
            "503",
            "status",
            answer("503 Service Unavailable", "", RIGHT),
        ),
        closed("599", "status", answer("599 ", "", RIGHT)),
        closed(
            "status 200 in the reason",
            "status",
            answer("500 200 OK", "", RIGHT),
        ),
        closed(
            "switching protocols",
            "status",
            raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        )
        .status_only(),
        closed(
            "HEAD with 503",
            "status",
            raw("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\n"),
        )
        .status_only()
        .method("HEAD"),
        // Redirects, which would lead to the right answer.
        closed("301", "status", redirect("301 Moved Permanently", "/login")),
        closed("302", "status", redirect("302 Found", "/login")),
        closed("303", "status", redirect("303 See Other", "/login")),
        closed(
            "307",
            "status",
            redirect("307 Temporary Redirect", "/login"),
        ),
        closed(
            "308",
            "status",
            redirect("308 Permanent Redirect", "/login"),
        ),
        closed("302 to nowhere", "status", answer("302 Found", "", RIGHT)).status_only(),
        closed(
            "302 to a strange place",
            "status",
            redirect("302 Found", "http://[/"),
        )
        .status_only(),
        // No answer.
        closed("closed before an answer", "closed", vec![Close]).status_only(),
        closed("reset before an answer", "closed", vec![Reset]).status_only(),
        closed("hang before an answer", "no-answer", vec![HANG]).status_only(),
        closed("closed in the status line", "closed", raw("HTTP/1.1 200")).status_only(),
        closed(
            "reset in the status line",
            "closed",
            vec![send("HTTP/1.1 20"), Pause(ms(20)), Reset],
        )
        .status_only(),
        closed(
            "hang in the status line",
            "no-answer",
            vec![send("HTTP/1.1 200"), HANG],
        )
        .status_only(),
        closed(
            "closed in the headers",
            "closed",
            raw("HTTP/1.1 200 OK\r\nContent-Le"),
        )
        .status_only(),
        closed(
            "reset in the headers",
            "closed",
            vec![send("HTTP/1.1 200 OK\r\nA: b\r\n"), Pause(ms(20)), Reset],
        )
        .status_only(),
        closed(
            "hang in the headers",
            "no-answer",
            vec![send("HTTP/1.1 200 OK\r\nA: b\r\n"), HANG],
        )
        .status_only(),
        closed(
            "headers dripped for ever",
            "no-answer",
            vec![Drip(
                [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"A: b\r\n".repeat(500)].concat(),
                ms(10),
            )],
        )
        .status_only(),
        closed(
            "only a 100 Continue",
            "closed",
            raw("HTTP/1.1 100 Continue\r\n\r\n"),
        )
        .status_only(),
        closed(
            "only 103 Early Hints",
            "no-answer",
            vec![send("HTTP/1.1 103 Early Hints\r\n\r\n"), HANG],
        )
        .status_only(),
        // An answer that is not whole, although all that was hoped for has arrived.
        closed(
            "short by one byte",
            "cut-off",
            raw(&(head_of(RIGHT.len() + 1) + RIGHT)),
        ),
        closed(
            "short by a lot",
            "cut-off",
            raw(&(head_of(1 << 20) + RIGHT)),
        ),
        closed("short, status only", "cut-off", raw(&(head_of(99) + "x"))).status_only(),
        closed(
            "reset in the body",
            "cut-off",
            vec![send(&(head_of(99) + RIGHT)), Pause(ms(20)), Reset],
        ),
        closed(
            "reset before the body",
            "cut-off",
            vec![send(&head_of(99)), Pause(ms(20)), Reset],
        )
        .status_only(),
        closed(
            "hang in the body",
            "unfinished",
            vec![send(&(head_of(99) + RIGHT)), HANG],
        ),
        closed(
            "hang before the body",
            "unfinished",
            vec![send(&head_of(99)), HANG],
        )
        .status_only(),
        closed(
            "body dripped for ever",
            "unfinished",
            vec![
                send(&(head_of(9_999) + RIGHT)),
                Drip(b"x".repeat(500), ms(10)),
            ],
        ),
        closed(
            "chunks without an end",
            "cut-off",
            raw(&format!("{CHUNKED}{}", chunk(RIGHT))),
        ),
        closed(
            "chunk cut in the middle",
            "cut-off",
            raw(&format!("{CHUNKED}{}ff\r\nhalf", chunk(RIGHT))),
        ),
        closed(
            "chunk cut in its size",
            "cut-off",
            raw(&format!("{CHUNKED}{}f", chunk(RIGHT))),
        ),
        closed(
            "last chunk without its empty line",
            "cut-off",
            raw(&format!("{CHUNKED}{}0\r\n", chunk(RIGHT))),
        ),
        closed(
            "chunks, then a reset",
            "cut-off",
            vec![
                send(&format!("{CHUNKED}{}", chunk(RIGHT))),
                Pause(ms(20)),
                Reset,
            ],
        ),
        closed(
            "chunks, then nothing",
            "unfinished",
            vec![send(&format!("{CHUNKED}{}", chunk(RIGHT))), HANG],
        ),
        closed(
            "events without an end",
            "unfinished",
            vec![
                send(&format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {RIGHT}\n\n"
                )),
                HANG,
            ],
        ),
        closed(
            "body until a reset",
            "cut-off",
            vec![
                send(&format!("HTTP/1.1 200 OK\r\n\r\n{RIGHT}")),
                Pause(ms(20)),
                Reset,
            ],
        ),
        closed(
            "marker beyond what is kept",
            "body",
            vec![
                send(&head_of((1 << 20) + RIGHT.len())),
                Act::Send(b"x".repeat(1 << 20)),
                send(RIGHT),
                Close,
            ],
        ),
        closed(
            "marker across the edge of what is kept",
            "body",
            vec![
                send(&head_of((1 << 20) - 20 + RIGHT.len())),
                Act::Send(b"x".repeat((1 << 20) - 20)),
                send(RIGHT),
                Close,
            ],
        ),
        closed(
            "marker first, then cut beyond what is kept",
            "cut-off",
            vec![
                send(&(head_of(3 << 20) + RIGHT)),
                Act::Send(b"x".repeat(2 << 20)),
                Close,
            ],
        ),
        // Not HTTP.
        closed(
            "another protocol",
            "not-http",
            raw("220 mail.test ESMTP\r\n"),
        )
        .status_only(),
        closed("ssh", "not-http", raw("SSH-2.0-OpenSSH_9.9\r\n")).status_only(),
        closed(
            "bytes of noise",
            "not-http",
            vec![Act::Send(vec![0xFF, 0, 1, 2, 13, 10, 13, 10]), Close],
        )
        .status_only(),
        closed("a body without a head", "not-http", raw(RIGHT)),
        closed(
            "an answer in HTTP/0.9",
            "not-http",
            raw(&format!("<html>{RIGHT}</html>\r\n\r\n")),
        ),
        closed(
            "a version that does not exist",
            "not-http",
            raw(&format!(
                "HTTP/3.7 200 OK\r\nContent-Length: {}\r\n\r\n{RIGHT}",
                RIGHT.len()
            )),
        ),
        closed(
            "a status of two digits",
            "not-http",
            raw("HTTP/1.1 20 OK\r\n\r\n"),
        )
        .status_only(),
        closed(
            "a status of letters",
            "not-http",
            raw("HTTP/1.1 OK 200\r\n\r\n"),
        )
        .status_only(),
        closed(
            "a blank before the status line",
            "not-http",
            raw(&format!(" {whole}")),
        ),
        closed(
            "a header without a colon",
            "not-http",
            raw(&format!("HTTP/1.1 200 OK\r\nbroken\r\n\r\n{RIGHT}")),
        ),
        closed(
            "two different lengths",
            "not-http",
            raw(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 33\r\nContent-Length: 34\r\n\r\n{RIGHT}"
            )),
        ),
        closed(
            "a length below zero",
            "not-http",
            raw(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{RIGHT}"
            )),
        ),
        closed(
            "a length that is no number",
            "not-http",
            raw(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n{RIGHT}"
            )),
        ),
        closed(
            "a chunk size that is no number",
            "not-http",
            raw(&format!("{CHUNKED}zz\r\n{RIGHT}")),
        ),
        closed(
            "headers without end",
            "not-http",
            vec![
                send("HTTP/1.1 200 OK\r\n"),
                Act::Send(b"A: bbbbbbbbbbbbbbbbbbbb\r\n".repeat(60_000)),
                HANG,
            ],
        )
        .status_only(),
        closed(
            "TLS where none was expected",
            "not-http",
            vec![Act::Send(vec![0x15, 3, 3, 0, 2, 2, 40]), Close],
        )
        .status_only(),
    ];
    // Every tear again at every byte of a good answer: nothing short of the whole may pass.
    for end in 0..whole.len() {
        let is_in_body = end >= head_of(RIGHT.len()).len();
        let cause = if is_in_body { "cut-off" } else { "closed" };
        cases.push(closed("a good answer, cut", cause, raw(&whole[..end])));
    }
    cases
}

#[test]
fn nothing_but_the_whole_right_answer_opens_the_gate() {
    let cases = closed_cases();
    assert!(cases.len() > 120, "{}", cases.len());
    let mut wrong = Vec::new();
    // All at once, as targets of one gate each: most of the time goes into waiting.
    thread::scope(|scope| {
        let running: Vec<_> = cases
            .chunks(cases.len().div_ceil(24))
            .map(|cases| {
                scope.spawn(move || {
                    let mut wrong = Vec::new();
                    for case in cases {
                        let server = Server::start(vec![case.script.clone()]);
                        let mut target = target(&server.url());
                        case.method.clone_into(&mut target.method);
                        target.expect_status = case.expect_status;
                        if !case.expects_marker {
                            target.expect_body_contains = None;
                        }
                        let report = run(&once(target));
                        let last = report.targets[0].last.as_ref();
                        let seen = last.map_or("nothing", |last| last.cause);
                        if report.is_open() || seen != case.cause {
                            wrong.push(format!(
                                "{}: {seen}, expected {}: {report:?}",
                                case.name, case.cause
                            ));
                        }
                    }
                    wrong
                })
            })
            .collect();
        for run in running {
            wrong.extend(run.join().unwrap());
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_right_answer_opens_the_gate_in_every_form_http_allows() {
    let length = RIGHT.len();
    let cases: Vec<(&str, Vec<Act>)> = vec![
        ("with a length", ok(RIGHT)),
        (
            "in chunks",
            raw(&format!("{CHUNKED}{}0\r\n\r\n", chunk(RIGHT))),
        ),
        (
            "in two chunks, split in the marker",
            raw(&format!(
                "{CHUNKED}{}{}0\r\n\r\n",
                chunk(&RIGHT[..20]),
                chunk(&RIGHT[20..])
            )),
        ),
        (
            "in chunks with a trailer",
            raw(&format!("{CHUNKED}{}0\r\nX-Sum: 1\r\n\r\n", chunk(RIGHT))),
        ),
        (
            "until the connection closes",
            raw(&format!("HTTP/1.1 200 OK\r\n\r\n{RIGHT}")),
        ),
        (
            "in HTTP/1.0",
            raw(&format!("HTTP/1.0 200 OK\r\n\r\n{RIGHT}")),
        ),
        (
            "without a reason",
            raw(&format!(
                "HTTP/1.1 200\r\nContent-Length: {length}\r\n\r\n{RIGHT}"
            )),
        ),
        (
            "after 100 Continue",
            raw(&format!(
                "HTTP/1.1 100 Continue\r\n\r\n{}{RIGHT}",
                head_of(length)
            )),
        ),
        (
            "after 103 Early Hints",
            raw(&format!(
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}{RIGHT}",
                head_of(length)
            )),
        ),
        (
            "encoded as identity",
            answer("200 OK", "Content-Encoding: identity\r\n", RIGHT),
        ),
        ("kept alive", vec![send(&(head_of(length) + RIGHT)), HANG]),
        (
            "slow, but in time",
            vec![
                Pause(ms(300)),
                send(&head_of(length)),
                Pause(ms(200)),
                send(RIGHT),
                Close,
            ],
        ),
        (
            "byte by byte",
            vec![Drip((head_of(length) + RIGHT).into_bytes(), ms(2)), Close],
        ),
        (
            "then noise",
            raw(&format!("{}{RIGHT}\r\nnoise", head_of(length))),
        ),
        (
            "among bytes that are no text",
            vec![
                send(&head_of(length + 4)),
                Act::Send(vec![0xFF, 0xFE, 0, 0x80]),
                send(RIGHT),
                Close,
            ],
        ),
        (
            "in a body longer than what is kept",
            vec![
                send(&(head_of(length + (2 << 20)) + RIGHT)),
                Act::Send(b"x".repeat(2 << 20)),
                Close,
            ],
        ),
        (
            "in a body longer than what is read",
            vec![
                send(&(head_of(length + (20 << 20)) + RIGHT)),
                Act::Send(b"x".repeat(20 << 20)),
                Close,
            ],
        ),
    ];
    for (name, script) in cases {
        let server = Server::start(vec![script]);
        let report = run(&once(target(&server.url())));
        assert!(report.is_open(), "{name}: {report:?}");
    }
}
