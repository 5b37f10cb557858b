//! The GitHub client against a GitHub that opens its boxes. `peers` holds both against other
//! people's judges.

#[path = "../fakes/github.rs"]
#[allow(dead_code, reason = "the executable uses what tests do not")]
pub(crate) mod fake;
mod peers;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidegate::clock::{Clock as _, ManualClock};
use tidegate::disk::SystemDisk;
use tidegate::github::{Access, Client, GithubError, Scope, SecretName, Settings, Written};
use tidegate::random::SystemRandom;
use tidegate::report::{Event, Reporter};
use tidegate::resource::Value;
use tidegate::secret::seal::{self, SealError};
use tidegate::secret::source::{self, StoreTools};
use tidegate::secret::{Masker, Secret};
use time::macros::datetime;

use fake::{Fake, Options, Scripted};

const TOKEN: &str = "github_pat_11TESTTOKEN_for_the_fake";

/// A fake GitHub and a client that talks to it, on a clock that sleeps at once.
pub(crate) struct World {
    pub(crate) fake: Fake,
    pub(crate) clock: ManualClock,
    pub(crate) access: Arc<Access>,
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        Self::with_settings(options, Settings::default())
    }

    fn with_settings(options: Options, settings: Settings) -> Self {
        let clock = ManualClock::new(datetime!(2026-11-21 10:00:00 UTC));
        let fake = Fake::start(options);
        let access = access(fake.url(), clock.clone(), settings);
        Self {
            fake,
            clock,
            access,
        }
    }

    /// A fake whose rate limiter runs on the client's own clock.
    fn paced(mut options: Options) -> Self {
        let clock = ManualClock::new(datetime!(2026-11-21 10:00:00 UTC));
        let time = clock.clone();
        options.pace = Some(Arc::new(move || time.monotonic()));
        let fake = Fake::start(options);
        let access = access(fake.url(), clock.clone(), Settings::default());
        Self {
            fake,
            clock,
            access,
        }
    }

    fn client(&self) -> Arc<Client> {
        self.access.client(None).expect("the token is set")
    }

    async fn put(&self, scope: &Scope, name: &str, value: &str) -> Result<Written, GithubError> {
        put(&self.client(), scope, name, value).await
    }
}

fn access(url: &str, clock: ManualClock, settings: Settings) -> Arc<Access> {
    Arc::new(plain_access(url, clock, settings))
}

fn plain_access(url: &str, clock: ManualClock, settings: Settings) -> Access {
    let variables = [("GITHUB_API_URL", url), ("GH_TOKEN", TOKEN)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Access::with_settings(
        Arc::new(variables.into_iter().collect()),
        Masker::default(),
        Arc::new(clock),
        Arc::new(SystemRandom),
        settings,
    )
}

async fn put(
    client: &Client,
    scope: &Scope,
    name: &str,
    value: &str,
) -> Result<Written, GithubError> {
    let secret = secret(value);
    client
        .put_secret(scope, &SecretName::parse(name).unwrap(), |key| {
            seal::seal(&SystemRandom, key, &secret)
        })
        .await
}

fn secret(value: &str) -> Secret {
    Masker::default().admit("test", value.to_owned())
}

fn repository() -> Scope {
    Scope::parse("acme/shop", None).unwrap()
}

fn environment(name: &str) -> Scope {
    Scope::parse("acme/shop", Some(name)).unwrap()
}

fn refused(error: &GithubError) -> &tidegate::github::Refusal {
    match error {
        GithubError::Refused(refusal) => refusal,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn n_secrets_take_n_plus_one_requests_per_scope() {
    let world = World::new(Options::default());
    for (scope, id) in [
        (repository(), "acme/shop"),
        (environment("prod/eu"), "acme/shop#prod/eu"),
    ] {
        let before = world.fake.seen().len();
        for index in 0..25 {
            let value = format!("value {index} of {id} with ümläuts\nand lines");
            let written = world.put(&scope, &format!("KEY_{index}"), &value).await;
            assert_eq!(written.unwrap(), Written::Created);
            assert_eq!(
                world.fake.secret(id, &format!("key_{index}")).unwrap(),
                value.as_bytes()
            );
        }
        assert_eq!(world.fake.seen().len() - before, 25 + 1);
    }
    assert!(
        world
            .fake
            .seen()
            .iter()
            .all(|seen| seen.method == "GET" || seen.decrypted)
    );
}

#[tokio::test]
async fn requests_carry_githubs_headers_and_exactly_two_fields() {
    let world = World::new(Options::default());
    world.put(&environment("prod/eu"), "A", "v").await.unwrap();
    for seen in world.fake.seen() {
        assert!(
            seen.path
                .starts_with("/repos/acme/shop/environments/prod%2Feu/secrets/")
        );
        assert_eq!(seen.headers["accept"], "application/vnd.github+json");
        assert_eq!(seen.headers["x-github-api-version"], "2022-11-28");
        assert!(seen.headers["user-agent"].starts_with("tidegate/"));
        assert_eq!(seen.headers["authorization"], format!("Bearer {TOKEN}"));
        if seen.method == "PUT" {
            let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
            let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["encrypted_value", "key_id"]);
        }
    }
}

#[tokio::test]
async fn no_byte_on_the_wire_holds_a_plaintext() {
    let world = World::new(Options::default());
    let value = "Kp7-never-on-the-wire-Zq9";
    world.put(&repository(), "A", value).await.unwrap();
    let raw = world.fake.raw();
    // The scan sees what is there: the token is.
    assert!(memchr::memmem::find(&raw, TOKEN.as_bytes()).is_some());
    let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![value.to_owned(), hex.to_uppercase(), hex];
    for start in 0..3 {
        // Whatever stands before it, these characters of its base64 would be there.
        forms.push(STANDARD.encode(&value.as_bytes()[start..start + 18]));
    }
    forms.push(value.chars().rev().collect());
    for form in forms {
        assert!(
            memchr::memmem::find(&raw, form.as_bytes()).is_none(),
            "{form}"
        );
    }
    assert_eq!(
        world.fake.secret("acme/shop", "A").unwrap(),
        value.as_bytes()
    );
}

#[tokio::test]
async fn created_and_updated_are_both_success_with_any_body() {
    for empty_created_body in [false, true] {
        let world = World::new(Options {
            empty_created_body,
            ..Options::default()
        });
        let scope = repository();
        assert_eq!(world.put(&scope, "A", "1").await.unwrap(), Written::Created);
        assert_eq!(world.put(&scope, "a", "2").await.unwrap(), Written::Updated);
        world.fake.script([Scripted {
            method: "PUT",
            status: 201,
            body: "<html>not JSON".to_owned(),
            ..Scripted::default()
        }]);
        assert_eq!(world.put(&scope, "A", "3").await.unwrap(), Written::Created);
    }
}

#[tokio::test]
async fn a_key_that_rotates_after_every_kth_write_loses_nothing() {
    for every in 1..=10 {
        let world = World::new(Options {
            rotate_every: Some(every),
            ..Options::default()
        });
        let scope = repository();
        let client = world.client();
        // All at once: the order is theirs, the result is not.
        let writes = (0..20).map(|index| {
            let (client, scope) = (&client, &scope);
            async move { put(client, scope, &format!("K{index}"), &format!("v{index}")).await }
        });
        for written in futures_util::future::join_all(writes).await {
            assert_eq!(written.unwrap(), Written::Created, "k = {every}");
        }
        for index in 0..20 {
            assert_eq!(
                world
                    .fake
                    .secret("acme/shop", &format!("K{index}"))
                    .unwrap(),
                format!("v{index}").into_bytes()
            );
        }
        // One refused write and one more key for each rotation that somebody ran into.
        let rotations = 19 / every;
        assert_eq!(world.fake.requests("PUT"), 20 + rotations, "k = {every}");
        assert_eq!(world.fake.requests("GET"), 1 + rotations, "k = {every}");
    }
}

#[tokio::test]
async fn a_second_422_is_fatal() {
    let world = World::new(Options::default());
    let message = "Bad request - validation failed due to an improperly encrypted secret";
    world.fake.script([
        Scripted::message("PUT", 422, message),
        Scripted::message("PUT", 422, message),
    ]);
    let error = world.put(&repository(), "A", "v").await.unwrap_err();
    assert_eq!(refused(&error).status, 422);
    assert!(error.to_string().contains(message));
    assert_eq!(
        (world.fake.requests("PUT"), world.fake.requests("GET")),
        (2, 2)
    );
}

#[tokio::test]
async fn refusals_name_what_is_missing() {
    let denied = Options {
        token: Some(TOKEN.to_owned()),
        may_write_secrets: false,
        may_write_environments: false,
        repositories: Some(vec!["acme/shop".to_owned()]),
        environments: Some(vec!["prod".to_owned()]),
        ..Options::default()
    };
    let world = World::new(denied.clone());
    for (scope, status, needles) in [
        (repository(), 403, &["Secrets: write", "secrets=write"]),
        (
            environment("prod"),
            403,
            &["Environments: write", "environments=write"],
        ),
        (
            environment("prdo"),
            404,
            &["environment `prdo` exists", "Environments: write"],
        ),
        (
            Scope::parse("acme/other", None).unwrap(),
            404,
            &["repository's name", "Secrets: write"],
        ),
    ] {
        let error = world.put(&scope, "A", "v").await.unwrap_err();
        assert_eq!(refused(&error).status, status, "{scope}");
        let report = error.report();
        let text = format!("{} {:?} {:?}", report.message, report.because, report.fix);
        for needle in needles {
            assert!(text.contains(needle), "{needle}: {text}");
        }
        assert!(text.contains("can never write secrets"), "{text}");
        assert!(text.contains("`GH_TOKEN`"), "{text}");
        assert!(!text.contains(TOKEN), "{text}");
    }
    let world = World::new(Options {
        token: Some("another".to_owned()),
        ..denied
    });
    let error = world.put(&repository(), "A", "v").await.unwrap_err();
    assert_eq!(
        (error.code(), world.fake.seen().len()),
        ("github/unauthorized", 1)
    );
    assert!(error.fix()[0].contains("`GH_TOKEN` is wrong, expired or revoked"));
}

#[derive(Default)]
struct Heard(std::sync::Mutex<Vec<String>>);

impl Reporter for Heard {
    fn say(&self, event: Event) {
        if let Event::Problem(report) = event {
            let said = format!("{} {} {:?}", report.code, report.message, report.because);
            self.0.lock().unwrap().push(said);
        }
    }
}

#[tokio::test]
async fn the_announced_end_of_a_call_is_said_once_for_each_call() {
    let fake = Fake::start(Options::default());
    let clock = ManualClock::new(datetime!(2026-11-21 10:00:00 UTC));
    let heard = Arc::new(Heard::default());
    let access = plain_access(fake.url(), clock, Settings::default())
        .reporting_to(Arc::clone(&heard) as Arc<dyn Reporter>);
    let ending = || Scripted {
        after_effect: true,
        ..Scripted::message("PUT", 204, "")
            .header("Deprecation", "@1688169599")
            .header("Sunset", "Sun, 30 Jun 2027 23:59:59 GMT")
    };
    fake.script([ending(), ending()]);
    let client = access.client(None).unwrap();
    for value in ["first-value", "second-value"] {
        put(&client, &repository(), "A", value).await.unwrap();
    }
    let heard = heard.0.lock().unwrap();
    assert_eq!(heard.len(), 1, "{heard:?}");
    for needle in [
        "github/deprecated",
        "PUT /repos/",
        "30 Jun 2027",
        "@1688169599",
    ] {
        assert!(heard[0].contains(needle), "{needle}: {heard:?}");
    }
}

#[tokio::test]
async fn a_conflict_is_reported_and_not_repeated() {
    let world = World::new(Options::default());
    let hostile = format!("::error::boom\r\n\u{1b}[31m{}", "x".repeat(2_000));
    world.fake.script([Scripted::message("PUT", 409, &hostile)]);
    let error = world.put(&repository(), "A", "v").await.unwrap_err();
    assert_eq!(refused(&error).status, 409);
    assert_eq!(world.fake.requests("PUT"), 1);
    let text = error.to_string();
    assert!(
        text.contains("boom") && text.chars().count() < 400,
        "{text}"
    );
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[tokio::test]
async fn rate_limits_are_waited_out() {
    let secondary = "You have exceeded a secondary rate limit. Please wait a few minutes.";
    let world = World::new(Options::default());
    let reset = (world.clock.now() + Duration::from_secs(100)).unix_timestamp();
    for (index, (answer, seconds)) in [
        (
            Scripted::message("PUT", 403, "").header("Retry-After", "17"),
            17,
        ),
        (
            Scripted::message("PUT", 429, "").header("Retry-After", "3"),
            3,
        ),
        (
            Scripted::message("PUT", 403, "API rate limit exceeded")
                .header("x-ratelimit-remaining", "0")
                .header("x-ratelimit-reset", reset.to_string()),
            // The two before took 20 of the 100 seconds; one more because the header is rounded.
            81,
        ),
        (Scripted::message("PUT", 403, secondary), 60),
        (Scripted::message("GET", 429, ""), 60),
    ]
    .into_iter()
    .enumerate()
    {
        let before = world.clock.monotonic();
        let scope = environment(&index.to_string());
        world.fake.script([answer]);
        assert_eq!(world.put(&scope, "A", "v").await.unwrap(), Written::Created);
        let waited = world.clock.monotonic() - before;
        assert_eq!(waited.as_secs(), seconds);
    }
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_an_error_that_says_how_long() {
    let world = World::new(Options::default());
    world
        .fake
        .script([Scripted::message("PUT", 403, "").header("Retry-After", "1800")]);
    let error = world.put(&repository(), "A", "v").await.unwrap_err();
    assert_eq!(error.code(), "github/rate-limit");
    assert!(error.fix()[0].contains("30 min;"), "{:?}", error.fix());
    assert_eq!(world.clock.monotonic(), Duration::ZERO, "nobody waited");

    // Many short waits are bounded too.
    world
        .fake
        .script((0..50).map(|_| Scripted::message("PUT", 429, "").header("Retry-After", "1")));
    let error = world.put(&repository(), "A", "v").await.unwrap_err();
    assert_eq!(error.code(), "github/rate-limit");
    assert!(world.fake.requests("PUT") <= 12);
}

#[tokio::test]
async fn broken_answers_and_broken_connections_are_tried_three_times() {
    for (status, code) in [
        (500, "github/broken"),
        (502, "github/broken"),
        (503, "github/broken"),
        (0, "github/unreachable"),
    ] {
        let world = World::new(Options::default());
        let answer = Scripted {
            method: "PUT",
            status,
            ..Scripted::default()
        };
        world.fake.script([answer.clone(), answer.clone()]);
        let scope = repository();
        assert_eq!(
            world.put(&scope, "A", "v").await.unwrap(),
            Written::Created,
            "{status}"
        );
        assert_eq!(world.fake.requests("PUT"), 3, "{status}");

        world.fake.script([answer.clone(), answer.clone(), answer]);
        let error = world.put(&scope, "B", "v").await.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.to_string().contains("tried 3 times"), "{error}");
        assert_eq!(world.fake.requests("PUT"), 6, "{status}");
    }
}

#[tokio::test]
async fn a_write_that_was_heard_but_not_confirmed_ends_as_written() {
    let world = World::new(Options::default());
    world.fake.script([Scripted {
        method: "PUT",
        status: 0,
        after_effect: true,
        ..Scripted::default()
    }]);
    // The second try finds it there.
    let written = world.put(&repository(), "A", "v").await.unwrap();
    assert_eq!(written, Written::Updated);
    assert_eq!(world.fake.secret("acme/shop", "A").unwrap(), b"v");
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_given_up() {
    let settings = Settings {
        request_timeout: Duration::from_millis(80),
        ..Settings::default()
    };
    let world = World::with_settings(Options::default(), settings);
    world.client().recipient_key(&repository()).await.unwrap();
    world.fake.script((0..3).map(|_| Scripted {
        method: "PUT",
        status: 204,
        delay: Duration::from_millis(400),
        ..Scripted::default()
    }));
    let error = world.put(&repository(), "A", "v").await.unwrap_err();
    assert_eq!(error.code(), "github/unreachable");
    assert!(!error.to_string().contains(TOKEN));
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let world = World::new(Options::default());
    world.fake.script([Scripted {
        method: "GET",
        status: 200,
        body: " ".repeat(2 * 1024 * 1024),
        ..Scripted::default()
    }]);
    let error = world
        .client()
        .recipient_key(&repository())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("larger than 1048576 bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn answers_that_make_no_sense_are_errors_without_their_text() {
    let world = World::new(Options::default());
    for body in [
        "",
        "{",
        "[]",
        "\"s3cr3t-looking\"",
        "{\"key_id\":1,\"key\":true}",
    ] {
        world.fake.script([Scripted {
            method: "GET",
            status: 200,
            body: body.to_owned(),
            ..Scripted::default()
        }]);
        let error = world
            .client()
            .recipient_key(&repository())
            .await
            .unwrap_err();
        assert_eq!(error.code(), "github/answer", "{body}");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    }
}

#[tokio::test]
async fn redirects_stay_on_the_server() {
    let world = World::new(Options::default());
    let other = Fake::start(Options::default());
    let moved = "/repos/acme/shop-renamed/actions/secrets";
    for status in [301, 302, 307] {
        world.fake.script([
            Scripted::message("GET", status, "Moved")
                .header("Location", format!("{moved}/public-key")),
            Scripted::message("PUT", status, "Moved").header("Location", format!("{moved}/A")),
        ]);
        world.access.client(None).unwrap();
        let scope = Scope::parse(&format!("acme/shop{status}"), None).unwrap();
        world.put(&scope, "A", "v").await.unwrap();
        assert_eq!(world.fake.secret("acme/shop-renamed", "A").unwrap(), b"v");
    }
    let elsewhere = [
        other.url().to_owned(),
        world.fake.url().replace("http:", "https:"),
        world.fake.url().replace("127.0.0.1", "localhost"),
    ];
    for base in elsewhere {
        world
            .fake
            .script([Scripted::message("PUT", 307, "").header("Location", format!("{base}/x"))]);
        let error = world.put(&repository(), "A", "v").await.unwrap_err();
        assert_eq!(error.code(), "github/redirect", "{base}");
    }
    assert_eq!(
        other.seen().len(),
        0,
        "the token never left for the other server"
    );
    world.fake.script(
        (0..9).map(|_| Scripted::message("PUT", 302, "").header("Location", format!("{moved}/A"))),
    );
    let error = world.put(&repository(), "A", "v").await.unwrap_err();
    assert!(error.to_string().contains("in circles"), "{error}");
}

#[tokio::test]
async fn listing_misses_none_of_a_thousand() {
    let world = World::new(Options::default());
    for index in 0..1_000 {
        world
            .fake
            .seed("acme/shop", &format!("KEY_{index:04}"), b"x");
    }
    let client = world.client();
    let names = client.secrets(&repository()).await.unwrap();
    assert_eq!(names.len(), 1_000);
    assert_eq!(world.fake.seen().len(), 10);
    for (name, there) in [("key_0999", true), ("KEY_1000", false)] {
        let name = SecretName::parse(name).unwrap();
        assert_eq!(
            client.secret_exists(&repository(), &name).await.unwrap(),
            there
        );
    }
}

#[tokio::test]
async fn hostile_links_end_the_listing_with_an_error() {
    let world = World::new(Options::default());
    let other = Fake::start(Options::default());
    let page = |link: String| {
        Scripted {
            method: "GET",
            status: 200,
            body: r#"{"total_count":1,"secrets":[]}"#.to_owned(),
            ..Scripted::default()
        }
        .header("Link", format!("<{link}>; rel=\"next\""))
    };
    let own = "/repos/acme/shop/actions/secrets";
    for (pages, needle) in [
        (vec![page(format!("{own}?per_page=100"))], "already read"),
        (
            vec![
                page(format!("{own}?page=2")),
                page(format!("{own}?page=3")),
                page(format!("{own}?page=2")),
            ],
            "already read",
        ),
        (vec![page(format!("{}/x", other.url()))], "another server"),
        (
            (0..200)
                .map(|number| page(format!("{own}?page={number}x")))
                .collect(),
            "does not end",
        ),
    ] {
        world.fake.script(pages);
        let error = world.client().secrets(&repository()).await.unwrap_err();
        assert!(error.to_string().contains(needle), "{error}");
    }
    assert_eq!(other.seen().len(), 0);
}

#[tokio::test]
async fn a_thousand_writes_meet_no_limit_and_never_overlap() {
    let world = World::paced(Options {
        secrets_max: 1_000,
        ..Options::default()
    });
    let (client, scope) = (world.client(), repository());
    // One box for all: here it is the pace that counts.
    let key = client.recipient_key(&scope).await.unwrap();
    let sealed = seal::seal(&SystemRandom, &key, &secret("v")).unwrap();
    let writes = (0..1_000).map(|index| {
        let (client, scope, sealed) = (&client, &scope, &sealed);
        async move {
            let name = SecretName::parse(&format!("K{index}")).unwrap();
            client
                .put_secret(scope, &name, |_| Ok(sealed.clone()))
                .await
        }
    });
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
    assert_eq!(world.fake.seen().len(), 1_001);
    assert!(world.fake.seen().iter().all(|seen| seen.status < 400));
    assert_eq!(world.fake.count("acme/shop"), 1_000);
    assert_eq!(world.fake.writes_in_flight_max(), 1);
    // 30 at once, the rest at two a second.
    assert_eq!(world.clock.monotonic().as_secs(), 485);
}

#[tokio::test]
async fn values_of_no_bytes_or_too_many_are_refused_by_name() {
    let world = World::new(Options::default());
    let limit = "x".repeat(49_152);
    world.put(&repository(), "BIG", &limit).await.unwrap();
    assert_eq!(world.fake.secret("acme/shop", "BIG").unwrap().len(), 49_152);
    for (value, expected) in [
        (String::new(), SealError::Empty),
        (format!("{limit}x"), SealError::TooLong(49_153)),
    ] {
        let error = world.put(&repository(), "BIG", &value).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, GithubError::Seal { error, .. } if error == expected));
        assert!(text.contains("`BIG`"), "{text}");
    }
    assert_eq!(world.fake.requests("PUT"), 1);
}

#[tokio::test]
async fn keys_that_everybody_could_open_boxes_for_are_refused() {
    let world = World::new(Options::default());
    let mut one = [0; 32];
    one[0] = 1;
    for (place, key) in [("a", [0; 32]), ("b", one)] {
        let scope = environment(place);
        world
            .fake
            .set_public_key(&format!("acme/shop#{place}"), key);
        let error = world.put(&scope, "A", "v").await.unwrap_err();
        assert_eq!(error.code(), "github/public-key", "{error}");
        assert!(error.to_string().contains("low order"), "{error}");
    }
    // The example key of GitHub's own API description: 33 bytes.
    world.fake.script([Scripted {
        method: "GET",
        status: 200,
        body: r#"{"key_id":"012345678912345678","key":"2Sg8iYjAxxmI2LvUXpJjkYrMxURPc8r+dB7TJyvv1234"}"#
            .to_owned(),
        ..Scripted::default()
    }]);
    let error = world.put(&repository(), "A", "v").await.unwrap_err();
    assert!(error.to_string().contains("33 bytes"), "{error}");
    assert_eq!(world.fake.requests("PUT"), 0);
}

#[tokio::test]
async fn removing_what_is_not_there_is_success_only_when_that_is_certain() {
    let world = World::new(Options {
        repositories: Some(vec!["acme/shop".to_owned()]),
        ..Options::default()
    });
    let (client, name) = (world.client(), SecretName::parse("A").unwrap());
    world.put(&repository(), "A", "v").await.unwrap();
    client.delete_secret(&repository(), &name).await.unwrap();
    assert_eq!(world.fake.count("acme/shop"), 0);
    client.delete_secret(&repository(), &name).await.unwrap();
    let hidden = Scope::parse("acme/hidden", None).unwrap();
    let error = client.delete_secret(&hidden, &name).await.unwrap_err();
    assert_eq!(error.code(), "github/not-found");
}

#[tokio::test]
async fn a_github_store_writes_and_finds_beyond_the_first_page() {
    let world = World::new(Options {
        secrets_max: 1_000,
        ..Options::default()
    });
    for index in 0..150 {
        world
            .fake
            .seed("acme/shop#prod", &format!("KEY_{index:03}"), b"x");
    }
    let folder = tempfile::tempdir().unwrap();
    let tools = StoreTools {
        disk: Arc::new(SystemDisk),
        clock: Arc::new(tidegate::clock::SystemClock::new()),
        variables: Arc::default(),
        masker: Masker::default(),
        github: Arc::clone(&world.access),
        config_directory: folder.path().to_path_buf(),
    };
    let text = |text: &str| Value::String(text.to_owned());
    let declared = tidegate::config::SecretStore {
        provider: "github".to_owned(),
        config: [
            ("repo", "acme/shop"),
            ("environment", "prod"),
            ("token_env", "GH_TOKEN"),
        ]
        .map(|(key, value)| (key.to_owned(), text(value)))
        .into(),
        at: None,
    };
    let store = source::open("ci", &declared, &tools).unwrap();
    assert!(store.exists("key_149").await.unwrap());
    assert!(!store.exists("NEW").await.unwrap());
    for value in ["one", "two"] {
        store.set("NEW", &secret(value)).await.unwrap();
        assert_eq!(
            world.fake.secret("acme/shop#prod", "NEW").unwrap(),
            value.as_bytes()
        );
    }
    assert!(store.exists("NEW").await.unwrap());
    for _ in 0..2 {
        store.remove("NEW").await.unwrap();
    }
    assert!(!store.exists("NEW").await.unwrap());
    for (value, code) in [("", "github/secret-size"), ("x", "github/bad-secret-name")] {
        let key = if value.is_empty() { "NEW" } else { "GITHUB_X" };
        assert_eq!(store.set(key, &secret(value)).await.unwrap_err().code, code);
    }
    assert_eq!(
        store.get("NEW").await.unwrap_err().code,
        "secret/store-unsupported"
    );
}

#[test]
fn the_fake_runs_as_a_program_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("requests.log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_fake-github"))
        .args([
            "--until-stdin-closes",
            "--token",
            TOKEN,
            "--rotate-every",
            "1",
            "--log",
        ])
        .arg(&log)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut url)
        .unwrap();
    let clock = ManualClock::new(datetime!(2026-11-21 10:00:00 UTC));
    let access = access(url.trim(), clock, Settings::default());
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let client = access.client(None).unwrap();
            for _ in 0..2 {
                put(&client, &environment("prod/eu"), "A", "v")
                    .await
                    .unwrap();
            }
        });
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let path = "/repos/acme/shop/environments/prod%2Feu/secrets";
    assert_eq!(
        std::fs::read_to_string(log).unwrap(),
        format!(
            "GET {path}/public-key 200 -\nPUT {path}/A 201 decrypted\nPUT {path}/A 422 -\n\
             GET {path}/public-key 200 -\nPUT {path}/A 204 decrypted\n"
        )
    );
}
