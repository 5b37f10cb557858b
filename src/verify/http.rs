//! Looks at an HTTP target. A look passes only when a whole answer arrived, its status is the
//! expected one and the expected text is in its body.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION,
};
use ::http::{HeaderName, Method, StatusCode};
use async_trait::async_trait;

use super::Extent;
use super::gate::Look;
use super::probe::{Observation, Probe};
use super::target::{Target, Text};
use crate::config::CONNECTION_HEADERS;
use crate::http::{BodyLimit, Failure, Http, RedactedUrl, Request, Response, sensitive_header};
use crate::report::{Exit, Report};

/// Characters of an expected text that a message quotes.
const QUOTED_CHARACTERS: usize = 80;

/// What to do about a certificate.
const CERTIFICATE_FIX: &str = "renew or replace it, name its authority in `SSL_CERT_FILE`, or say \
                               `tls_verify: false` for this target";

/// An HTTP target, checked and ready to be asked.
pub struct HttpProbe {
    http: Arc<Http>,
    label: String,
    /// True when the whole address is a secret.
    is_address_secret: bool,
    url: RedactedUrl,
    method: Method,
    headers: HeaderMap,
    body: Option<Text>,
    tls_verify: bool,
    limit: BodyLimit,
    expect: Expectation,
}

/// What a good answer looks like.
struct Expectation {
    status: StatusCode,
    body_contains: Option<Text>,
}

impl fmt::Debug for HttpProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpProbe")
            .field("label", &self.label)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// What a target is asked with, once it is known to be right.
struct Question {
    url: RedactedUrl,
    method: Method,
    headers: HeaderMap,
    status: StatusCode,
}

impl Question {
    /// Checks a target; every problem with it, not only the first.
    fn of(target: &Target) -> Result<Self, Vec<Report>> {
        let mut problems = Vec::new();
        let mut wrong = |code, what: String, fix: &str| {
            problems.push(
                Report::error(code, format!("target `{}`: {what}", target.label))
                    .fix(fix)
                    .exit(Exit::Usage),
            );
        };
        let url = RedactedUrl::parse(target.url.expose())
            .map_err(|problem| {
                wrong(
                    "verify/bad-url",
                    problem.to_string(),
                    "give the whole address, such as `https://shop.example/healthz`",
                );
            })
            .ok();
        let method = Method::from_bytes(target.method.as_bytes())
            .ok()
            .filter(|method| *method != Method::CONNECT);
        if method.is_none() {
            wrong(
                "verify/bad-method",
                format!("`{}` is not a method that can be asked", target.method),
                "use GET, HEAD or POST",
            );
        }
        let status = StatusCode::from_u16(target.expect_status)
            .ok()
            .filter(|status| (200..600).contains(&status.as_u16()));
        if status.is_none() {
            wrong(
                "verify/bad-status",
                format!("no answer ends with status {}", target.expect_status),
                "expect a status from 200 to 599",
            );
        }
        if let Some(expected) = &target.expect_body_contains {
            if expected.expose().is_empty() {
                wrong(
                    "verify/empty-expectation",
                    "the expected text is empty, and every body contains that".to_owned(),
                    "name the text, or leave `expect_body_contains` out",
                );
            }
            if method == Some(Method::HEAD) {
                wrong(
                    "verify/body-of-head",
                    "the answer to HEAD has no body that could contain the expected text"
                        .to_owned(),
                    "use GET, or leave `expect_body_contains` out",
                );
            }
        }
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        for (name, value) in &target.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .ok()
                .filter(|name| !CONNECTION_HEADERS.contains(&name.as_str()));
            match (parsed, sensitive_header(value.expose())) {
                (Some(name), Some(value)) => {
                    headers.insert(name, value);
                }
                (None, _) => wrong(
                    "verify/bad-header",
                    format!("`{name}` is not a header that can be set"),
                    "check the spelling; the connection's own headers are set by Tidegate",
                ),
                (Some(_), None) => wrong(
                    "verify/bad-header",
                    format!("the value of header `{name}` has characters a header cannot carry"),
                    "remove line breaks and control characters from the value",
                ),
            }
        }
        match (url, method, status) {
            (Some(url), Some(method), Some(status)) if problems.is_empty() => Ok(Self {
                url,
                method,
                headers,
                status,
            }),
            _ => Err(problems),
        }
    }
}

/// What is wrong with a target, as far as that can be told without asking it.
pub(super) fn check(target: &Target) -> Vec<Report> {
    Question::of(target).err().unwrap_or_default()
}

impl HttpProbe {
    /// Checks a target; every problem with it, not only the first.
    pub fn new(http: Arc<Http>, target: &Target) -> Result<Self, Vec<Report>> {
        let Question {
            url,
            method,
            headers,
            status,
        } = Question::of(target)?;
        Ok(Self {
            http,
            label: target.label.clone(),
            is_address_secret: target.url.is_secret(),
            url,
            method,
            headers,
            body: target.body.clone(),
            tls_verify: target.tls_verify,
            limit: BodyLimit::default(),
            expect: Expectation {
                status,
                body_contains: target.expect_body_contains.clone(),
            },
        })
    }
}

#[async_trait]
impl Probe for HttpProbe {
    fn label(&self) -> &str {
        &self.label
    }

    fn address(&self) -> String {
        if self.is_address_secret {
            "(sensitive)".to_owned()
        } else {
            self.url.to_string()
        }
    }

    async fn observe(&self, budget: Duration) -> Observation {
        let answer = self
            .http
            .send(Request {
                method: self.method.clone(),
                url: self.url.clone(),
                headers: self.headers.clone(),
                body: self.body.as_ref().map(|body| body.expose().into()),
                tls_verify: self.tls_verify,
                budget,
                limit: self.limit,
            })
            .await;
        match answer {
            Ok(response) => self.judge(&response),
            Err(failure) => no_answer(&failure),
        }
    }
}

impl HttpProbe {
    /// The verdict on a whole answer.
    fn judge(&self, response: &Response) -> Observation {
        let status = response.status;
        let fail = |cause, message: String, expected: String, seen: String| Observation {
            look: Look::Failed,
            cause,
            message,
            expected,
            seen,
            status: Some(status.as_u16()),
            body: evidence(&response.body),
            extent: extent(response),
        };
        // A stated length is an end, too, though it is too far away to be waited for.
        if !response.is_whole && !response.headers.contains_key(CONTENT_LENGTH) {
            return fail(
                "unfinished",
                format!(
                    "it answered {}, and the answer had not ended after {} of body",
                    in_words(status),
                    mebibytes(self.limit.read)
                ),
                "an answer that ends".to_owned(),
                format!("{} bytes of body, and more to come", response.body_bytes),
            );
        }
        if status != self.expect.status {
            let mut message = format!(
                "it answered {}, expected {}",
                in_words(status),
                self.expect.status.as_u16()
            );
            if status.is_redirection()
                && let Some(location) = self.location(response)
            {
                message.push_str(&format!(
                    "; redirects (here to {location}) are not followed, name the final address"
                ));
            }
            return fail(
                "status",
                message,
                format!("status {}", self.expect.status.as_u16()),
                format!("status {}", status.as_u16()),
            );
        }
        let Some(expected) = &self.expect.body_contains else {
            return passed(response);
        };
        let quoted = quote(expected);
        if let Some(encoding) = encoding(&response.headers) {
            return fail(
                "encoding",
                format!(
                    "the body is encoded as `{encoding}`, which was not asked for, so {quoted} cannot be looked for"
                ),
                format!("a plain body that contains {quoted}"),
                format!("a body encoded as `{encoding}`"),
            );
        }
        if memchr::memmem::find(&response.body, expected.expose().as_bytes()).is_some() {
            return passed(response);
        }
        let place = if response.is_cut() {
            format!(
                "the first {} of the body do",
                mebibytes(response.body.len() as u64)
            )
        } else if response.body.is_empty() {
            "the body is empty and does".to_owned()
        } else {
            "the body does".to_owned()
        };
        fail(
            "body",
            format!(
                "it answered {}, but {place} not contain {quoted}",
                in_words(status)
            ),
            format!("a body that contains {quoted}"),
            format!("{} bytes of body without it", response.body_bytes),
        )
    }

    fn location(&self, response: &Response) -> Option<RedactedUrl> {
        self.url
            .join(response.headers.get(LOCATION)?.to_str().ok()?)
    }
}

fn passed(response: &Response) -> Observation {
    Observation {
        look: Look::Passed,
        cause: "ok",
        message: format!("it answered {}", in_words(response.status)),
        expected: String::new(),
        seen: String::new(),
        status: Some(response.status.as_u16()),
        body: evidence(&response.body),
        extent: extent(response),
    }
}

fn no_answer(failure: &Failure) -> Observation {
    let look = match failure {
        Failure::Client { .. } => Look::Hopeless,
        _ if failure.is_timeout() => Look::TimedOut,
        _ => Look::Failed,
    };
    Observation {
        look,
        cause: failure.word(),
        message: match failure {
            Failure::Certificate { .. } => format!("{failure}; {CERTIFICATE_FIX}"),
            _ => failure.to_string(),
        },
        expected: String::new(),
        seen: String::new(),
        status: failure.status(),
        body: None,
        extent: Extent::Whole,
    }
}

/// The encoding of a body that is not plain.
fn encoding(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .map(|value| {
            String::from_utf8_lossy(value.as_bytes())
                .trim()
                .to_lowercase()
        })
        .find(|value| !value.is_empty() && value != "identity")
        .map(|value| value.chars().take(QUOTED_CHARACTERS).collect())
}

/// `503 Service Unavailable`; the standard's words, not the server's.
fn in_words(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

fn mebibytes(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{bytes} bytes")
    }
}

fn quote(text: &Text) -> String {
    match text {
        Text::Secret(_) => "the expected text (sensitive)".to_owned(),
        Text::Plain(text) if text.chars().count() <= QUOTED_CHARACTERS => format!("`{text}`"),
        Text::Plain(text) => {
            let start: String = text.chars().take(QUOTED_CHARACTERS).collect();
            format!("`{start}…`")
        }
    }
}

/// True for all that there is.
fn extent(response: &Response) -> Extent {
    if response.is_cut() || !response.is_whole {
        Extent::Beginning
    } else {
        Extent::Whole
    }
}

/// What was kept of a body, as text; it is cut to size by whoever hides secrets in it first. Bytes that are not UTF-8 appear as `\xNN`, so nothing is lost.
fn evidence(body: &[u8]) -> Option<String> {
    if body.is_empty() {
        return None;
    }
    let mut text = String::new();
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02X}"));
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_text_are_spelled_out() {
        assert_eq!(evidence(b""), None);
        assert_eq!(evidence(b"ok").as_deref(), Some("ok"));
        assert_eq!(
            evidence(b"a\xFFb\xC3\xA9\x00").as_deref(),
            Some("a\\xFFb\u{e9}\0")
        );
    }

    #[test]
    fn an_encoding_other_than_identity_is_noticed() {
        for (value, expected) in [
            ("gzip", Some("gzip")),
            (" BR ", Some("br")),
            ("identity", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, HeaderValue::from_str(value).unwrap());
            assert_eq!(encoding(&headers).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn a_long_expected_text_is_cut_and_a_secret_one_is_not_quoted() {
        assert_eq!(
            quote(&Text::Plain("é".repeat(80))),
            format!("`{}`", "é".repeat(80))
        );
        assert_eq!(
            quote(&Text::Plain("é".repeat(81))),
            format!("`{}…`", "é".repeat(80))
        );
        let secret = crate::secret::Masker::default().admit("t", "hunter2".to_owned());
        assert!(!quote(&Text::Secret(secret)).contains("hunter2"));
    }
}
