//! One request, done right: headers, size and time limits, redirects, retries, rate limits.

use std::fmt;
use std::sync::PoisonError;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::error::{GithubError, Refusal, shown};
use super::limit::{self, Bucket};
use super::name::Scope;
use super::{Shared, Token};
use crate::report::{Event, Exit, Report};
use crate::secret::seal::RecipientKey;

const API_VERSION: HeaderName = HeaderName::from_static("x-github-api-version");

/// Redirects followed in one request.
const REDIRECTS_MAX: usize = 5;

/// Limits of a single exchange.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For connecting alone.
    pub connect_timeout: Duration,
    /// For one exchange, from connecting to the last byte of the answer.
    pub request_timeout: Duration,
    /// The largest answer read, in bytes.
    pub answer_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            answer_bytes_max: 1024 * 1024,
        }
    }
}

/// The address of the REST API, checked.
#[derive(Clone, Debug)]
pub(super) struct BaseUrl(Url);

impl BaseUrl {
    /// An `https` URL, or an `http` one on this machine (tests, proxies): a token must not cross
    /// a network in the clear. No user, query or fragment.
    pub(super) fn parse(text: &str) -> Result<Self, Report> {
        let wrong = |why: &str| {
            Report::error(
                "github/bad-api-url",
                format!("`GITHUB_API_URL` cannot be used: {why}"),
            )
            .exit(Exit::Usage)
            .fix(
                "use `https://api.github.com`, `https://HOST/api/v3` (Enterprise Server) or \
                 `https://api.SUBDOMAIN.ghe.com` (data residency)",
            )
        };
        let url = Url::parse(text).map_err(|_| wrong("it is not a URL"))?;
        let host = url.host_str().ok_or_else(|| wrong("it names no host"))?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(host) => {}
            "http" => {
                return Err(wrong(
                    "plain `http` would send the token in the clear; it is allowed on loopback only",
                ));
            }
            _ => return Err(wrong("it is neither `https` nor `http`")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it holds a user or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has a query or fragment"));
        }
        Ok(Self(url))
    }

    /// The URL of an API path (already percent-encoded, starting with `/`).
    fn join(&self, path: &str) -> Result<Url, url_error::NotAUrl> {
        let base = self.0.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}{path}")).map_err(|_| url_error::NotAUrl)
    }

    fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }
}

mod url_error {
    /// Base and path did not make a URL.
    #[derive(Debug)]
    pub(super) struct NotAUrl;
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// A client for one token. Shares pace and retry budget with every other of its [`super::Access`].
pub struct Client {
    http: reqwest::Client,
    base: BaseUrl,
    token_variable: String,
    authorization: HeaderValue,
    pub(super) shared: Shared,
    pub(super) keys: Mutex<std::collections::BTreeMap<Scope, RecipientKey>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("github::Client")
            .field("base", &self.base.0.as_str())
            .field("token", &self.token_variable)
            .finish_non_exhaustive()
    }
}

/// What is asked of GitHub.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// An API path, or a whole URL that GitHub handed out (pagination).
    pub(super) path: &'a str,
    pub(super) body: Option<Vec<u8>>,
    /// Whose secrets it is about, for error texts.
    pub(super) scope: &'a Scope,
}

impl Request<'_> {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// A 2xx answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Where it finally came from, after redirects.
    pub(super) url: Url,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    message: String,
}

impl Client {
    pub(super) fn new(base: BaseUrl, token: Token, shared: Shared) -> Result<Self, Report> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.value.expose()))
            .map_err(|_| {
                Report::error(
                    "github/bad-token",
                    format!(
                        "the value of `{}` cannot be a token: it holds a line break or another \
                         character that no HTTP header can carry",
                        token.variable
                    ),
                )
                .exit(Exit::Usage)
                .fix("set it again without the line break at its end")
            })?;
        authorization.set_sensitive(true);
        let http = transport(&base, &shared.settings).map_err(|error| {
            Report::error("github/no-transport", "cannot set up HTTPS for GitHub").caused_by(&error)
        })?;
        Ok(Self {
            http,
            base,
            token_variable: token.variable,
            authorization,
            shared,
            keys: Mutex::default(),
        })
    }

    /// Sends a request until it has an answer, a refusal, or no tries left. `turn` is the bucket
    /// of writes, held by whoever may write now; reads pass `None`.
    pub(super) async fn send(
        &self,
        request: Request<'_>,
        mut turn: Option<&mut Bucket>,
    ) -> Result<Answer, GithubError> {
        let clock = &self.shared.clock;
        let mut failures = 0;
        let mut waits = 0;
        let mut waited = Duration::ZERO;
        loop {
            if let Some(bucket) = turn.as_deref_mut() {
                let wait = bucket.take(clock.monotonic());
                if !wait.is_zero() {
                    clock.sleep(wait).await;
                }
            }
            let failed = match self.exchange(&request).await? {
                Ok(answer) if answer.status.is_success() => {
                    self.retries(super::RetryBudget::succeeded);
                    return Ok(answer);
                }
                Ok(answer) if answer.status.is_server_error() => {
                    let pause = limit::retry_after(&answer.headers, clock.now());
                    (self.answer_error(&request, &answer, failures + 1), pause)
                }
                Ok(answer) => {
                    let message = self.message_of(&answer.body);
                    let Some(wait) = limit::rate_limit(
                        answer.status,
                        &answer.headers,
                        &message,
                        clock.now(),
                        waits,
                    ) else {
                        return Err(self.refused(&request, &answer, message));
                    };
                    waits += 1;
                    waited = waited.saturating_add(wait);
                    if waited > limit::LIMIT_WAIT_MAX || waits > limit::LIMIT_WAITS {
                        return Err(GithubError::Limited {
                            request: request.name(),
                            wait,
                        });
                    }
                    clock.sleep(wait).await;
                    continue;
                }
                Err(reason) => {
                    let error = GithubError::Unreachable {
                        request: request.name(),
                        tries: failures + 1,
                        reason,
                    };
                    (error, None)
                }
            };
            let (error, pause) = failed;
            failures += 1;
            let pause = pause.unwrap_or_default();
            waited = waited.saturating_add(pause);
            // Every request here is idempotent, so trying again is always safe.
            if failures >= limit::TRIES
                || waited > limit::LIMIT_WAIT_MAX
                || !self.retries(super::RetryBudget::take)
            {
                return Err(error);
            }
            let backoff = limit::backoff(&*self.shared.random, failures);
            clock.sleep(backoff.max(pause)).await;
        }
    }

    fn retries<T>(&self, with: impl FnOnce(&mut super::RetryBudget) -> T) -> T {
        with(
            &mut self
                .shared
                .retries
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// One exchange, redirects included. The outer error is final, the inner one (no answer) may
    /// be tried again.
    async fn exchange(&self, request: &Request<'_>) -> Result<Result<Answer, String>, GithubError> {
        let unusable = |reason: &str| GithubError::Answer {
            request: request.name(),
            reason: reason.to_owned(),
        };
        let mut url = if request.path.starts_with('/') {
            self.base
                .join(request.path)
                .map_err(|_| unusable("the path makes no URL"))?
        } else {
            Url::parse(request.path).map_err(|_| unusable("it names a page that is no URL"))?
        };
        for _ in 0..=REDIRECTS_MAX {
            // Before the token is attached, whoever named the address.
            if !same_server(&url, &self.base.0) {
                return Err(GithubError::Redirected {
                    request: request.name(),
                    to: shown(&url.origin().ascii_serialization()),
                });
            }
            let answer = match self.once(request, url).await {
                Ok(answer) => answer,
                Err(Failure::Transport(reason)) => return Ok(Err(reason)),
                Err(Failure::TooLarge) => {
                    return Err(unusable(&format!(
                        "it is larger than {} bytes",
                        self.shared.settings.answer_bytes_max
                    )));
                }
            };
            if !matches!(answer.status.as_u16(), 301 | 302 | 307 | 308) {
                return Ok(Ok(answer));
            }
            let location = answer
                .headers
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .ok_or_else(|| unusable("it redirects to nowhere"))?;
            url = answer
                .url
                .join(location)
                .map_err(|_| unusable("it redirects to something that is no URL"))?;
        }
        Err(unusable("it redirects in circles"))
    }

    async fn once(&self, request: &Request<'_>, url: Url) -> Result<Answer, Failure> {
        let mut builder = self
            .http
            .request(request.method.clone(), url.clone())
            .header(AUTHORIZATION, self.authorization.clone())
            .header(ACCEPT, "application/vnd.github+json")
            .header(API_VERSION, "2022-11-28");
        if let Some(body) = &request.body {
            builder = builder
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
        }
        let mut response = builder.send().await.map_err(Failure::transport)?;
        let status = response.status();
        let headers = response.headers().clone();
        self.say_end(request, &headers);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(Failure::transport)? {
            if body.len() + chunk.len() > self.shared.settings.answer_bytes_max {
                if status.is_success() {
                    return Err(Failure::TooLarge);
                }
                // The start of an error page is enough to say what it was.
                break;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status,
            headers,
            body,
            url,
        })
    }

    /// `Deprecation` (RFC 9745) and `Sunset` (RFC 8594) announce that a call will stop working. Said
    /// once for each request.
    fn say_end(&self, request: &Request<'_>, headers: &HeaderMap) {
        let header = |name: &str| {
            headers
                .get(name)
                .map(|value| self.shown(&String::from_utf8_lossy(value.as_bytes())))
        };
        let (deprecation, sunset) = (header("deprecation"), header("sunset"));
        let (Some(reporter), true) = (
            &self.shared.reporter,
            deprecation.is_some() || sunset.is_some(),
        ) else {
            return;
        };
        let is_new = self
            .shared
            .ends_said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(request.name());
        if is_new {
            let mut report = Report::warning(
                "github/deprecated",
                format!("GitHub announces the end of `{}`", request.name()),
            )
            .fix("update Tidegate before that day");
            if let Some(sunset) = sunset {
                report = report.because(format!("it ends at {sunset}"));
            }
            if let Some(deprecation) = deprecation {
                report = report.because(format!("it counts as deprecated: {deprecation}"));
            }
            reporter.say(Event::Problem(Box::new(report)));
        }
    }

    /// Text of the server as an error may show it. What is hidden is hidden before it is cut.
    fn shown(&self, text: &str) -> String {
        shown(&self.shared.masker.mask(text))
    }

    /// The `message` of an error answer, made fit to show; empty when the body is something else
    /// (a proxy's HTML page says nothing that the status does not).
    fn message_of(&self, body: &[u8]) -> String {
        serde_json::from_slice::<Message>(body)
            .map(|message| self.shown(&message.message))
            .unwrap_or_default()
    }

    fn answer_error(&self, request: &Request<'_>, answer: &Answer, tries: u32) -> GithubError {
        GithubError::Broken {
            request: request.name(),
            status: answer.status.as_u16(),
            tries,
            message: self.message_of(&answer.body),
        }
    }

    fn refused(&self, request: &Request<'_>, answer: &Answer, message: String) -> GithubError {
        let header = |name: &str| {
            answer
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(|text| self.shown(text))
                .filter(|text| !text.is_empty())
        };
        GithubError::Refused(Box::new(Refusal {
            request: request.name(),
            status: answer.status.as_u16(),
            message,
            accepted: header("x-accepted-github-permissions")
                .or_else(|| header("x-accepted-oauth-scopes")),
            sso: header("x-github-sso"),
            request_id: header("x-github-request-id"),
            needs: request.scope.permission(),
            token_variable: self.token_variable.clone(),
            environment: request.scope.environment().map(str::to_owned),
        }))
    }
}

/// Why one exchange gave no answer.
enum Failure {
    Transport(String),
    TooLarge,
}

impl Failure {
    /// The whole chain of causes: the outermost one only says that sending failed.
    fn transport(error: reqwest::Error) -> Self {
        let mut text = Vec::new();
        let error = error.without_url();
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            text.push(error.to_string());
            cause = error.source();
        }
        text.dedup();
        Self::Transport(shown(&text.join(": ")))
    }
}

fn same_server(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// The HTTP client. Redirects are off (followed above, with the token in mind), and so are the
/// library's own retries: there is one retry layer.
#[expect(
    clippy::disallowed_methods,
    reason = "GitHub's rules for redirects and sizes are this room's own; the TLS stack is shared"
)]
fn transport(base: &BaseUrl, settings: &Settings) -> Result<reqwest::Client, reqwest::Error> {
    // The first room that needs TLS names the provider; for the others it is already there.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(settings.connect_timeout)
        .timeout(settings.request_timeout);
    if base.is_plain() {
        // Loopback: no proxy would reach it, and no certificate is looked at.
        builder = builder.no_proxy().tls_certs_only([]);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_urls_are_https_or_loopback() {
        for good in [
            "https://api.github.com",
            "https://api.github.com/",
            "https://ghe.example/api/v3",
            "https://ghe.example:8443/api/v3/",
            "http://127.0.0.1:4010",
            "http://localhost:1",
            "http://[::1]:1/api/v3",
        ] {
            assert!(BaseUrl::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", "not a URL"),
            ("api.github.com", "not a URL"),
            ("ftp://api.github.com", "neither"),
            ("file:///etc/passwd", "no host"),
            ("http://api.github.com", "in the clear"),
            ("http://127.0.0.1.evil.example", "in the clear"),
            ("http://localhost.evil.example", "in the clear"),
            ("https://user@api.github.com", "user"),
            ("https://api.github.com?x=1", "query"),
            ("https://api.github.com#x", "fragment"),
        ] {
            let report = BaseUrl::parse(bad).unwrap_err();
            assert!(report.message.contains(why), "{bad}: {}", report.message);
        }
    }

    #[test]
    fn paths_are_joined_below_the_base_whole() {
        for (base, expected) in [
            (
                "https://api.github.com",
                "https://api.github.com/repos/o/r/e/a%2Fb",
            ),
            ("https://h/api/v3/", "https://h/api/v3/repos/o/r/e/a%2Fb"),
            // A base that happens to start like the path.
            ("https://h/r", "https://h/r/repos/o/r/e/a%2Fb"),
        ] {
            let url = BaseUrl::parse(base)
                .unwrap()
                .join("/repos/o/r/e/a%2Fb")
                .unwrap();
            assert_eq!(url.as_str(), expected);
        }
    }

    #[test]
    fn another_scheme_host_or_port_is_another_server() {
        let base = Url::parse("https://api.github.com").unwrap();
        for (url, same) in [
            ("https://api.github.com:443/x", true),
            ("https://api.github.com:8443/x", false),
            ("http://api.github.com:443/x", false),
            ("https://github.com/x", false),
            ("https://api.github.com.evil.example/x", false),
        ] {
            assert_eq!(same_server(&Url::parse(url).unwrap(), &base), same, "{url}");
        }
    }
}
