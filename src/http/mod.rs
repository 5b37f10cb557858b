//! The one HTTP client: one request, one answer, every wait bounded, on one TLS stack.
//!
//! What it promises: no redirect is followed, no cookie is kept, no connection is used twice (so
//! every request resolves the name and meets whoever listens *now*), an answer that was cut off
//! is a [`Failure`] and never a short body, and nothing is read without limit.
//!
//! Deliberately absent: retries (the caller decides those from the [`Failure`]), decompression
//! (none is asked for), and any way to print a URL with its credentials.

mod failure;
mod proxy;
mod redact;
mod stream;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::http::header::{HeaderMap, HeaderValue};
use ::http::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::variables::Variables;

pub use failure::Failure;
pub use proxy::ProxyProblem;
pub use redact::{RedactedUrl, UrlProblem};
pub use stream::Streamed;

use failure::DnsFailure;

/// What we call ourselves.
pub const USER_AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// How long making one connection (name, TCP, TLS) may take, at most.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One request.
#[derive(Debug)]
pub struct Request {
    /// Verb.
    pub method: Method,
    /// Where to.
    pub url: RedactedUrl,
    /// Headers; mark secret values with [`HeaderValue::set_sensitive`].
    pub headers: HeaderMap,
    /// Body; none is sent when absent.
    pub body: Option<Vec<u8>>,
    /// Check the server's certificate.
    pub tls_verify: bool,
    /// For everything: name, connection, request, whole answer.
    pub budget: Duration,
    /// How much of the answer's body to keep and to read.
    pub limit: BodyLimit,
}

/// Bounds on an answer's body, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimit {
    /// The first this many are kept.
    pub keep: usize,
    /// Reading goes on up to this many, to see that the answer arrives whole.
    pub read: u64,
}

impl Default for BodyLimit {
    /// Keeps 1 MiB, reads 16 MiB.
    fn default() -> Self {
        Self {
            keep: 1 << 20,
            read: 16 << 20,
        }
    }
}

/// One answer, of any status.
#[derive(Debug)]
pub struct Response {
    /// The status of the first (and only) answer.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The start of its body, at most [`BodyLimit::keep`] bytes.
    pub body: Vec<u8>,
    /// Bytes of body that arrived.
    pub body_bytes: u64,
    /// True when the end of the body was seen; false when reading stopped at
    /// [`BodyLimit::read`].
    pub is_whole: bool,
}

impl Response {
    /// True when the body is longer than what was kept of it.
    pub fn is_cut(&self) -> bool {
        self.body_bytes > self.body.len() as u64
    }
}

/// Which certificates count.
#[derive(Clone, Debug)]
enum Roots {
    /// The machine's own, or those of `SSL_CERT_FILE` / `SSL_CERT_DIR`.
    Platform,
    /// Exactly these.
    Only(Vec<reqwest::Certificate>),
}

/// The client. Cheap to make: TLS roots are loaded by the first request that needs them.
pub struct Http {
    roots: Roots,
    proxies: proxy::Proxies,
    plain: OnceLock<reqwest::Client>,
    verified: OnceLock<reqwest::Client>,
    unverified: OnceLock<reqwest::Client>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// `http://` straight to the server: no certificate will be met, so none is loaded.
    Plain,
    Verified,
    Unverified,
}

impl Http {
    /// A client that trusts what the machine trusts and takes its proxies from `variables`
    /// (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, upper or lower case).
    pub fn new(variables: &Variables) -> Result<Self, ProxyProblem> {
        Ok(Self::with(
            Roots::Platform,
            proxy::Proxies::from_variables(variables)?,
        ))
    }

    /// A client that goes through no proxy and trusts exactly the certificates in `pem`.
    pub fn trusting_only(pem: &[u8]) -> Result<Self, Failure> {
        let roots =
            reqwest::Certificate::from_pem_bundle(pem).map_err(|error| Failure::Client {
                reason: error.to_string(),
            })?;
        Ok(Self::with(Roots::Only(roots), proxy::Proxies::none()))
    }

    fn with(roots: Roots, proxies: proxy::Proxies) -> Self {
        Self {
            roots,
            proxies,
            plain: OnceLock::new(),
            verified: OnceLock::new(),
            unverified: OnceLock::new(),
        }
    }

    /// Sends one request and reads the whole answer, within the request's budget.
    pub async fn send(&self, request: Request) -> Result<Response, Failure> {
        let (limit, budget) = (request.limit, request.budget);
        let deadline = Instant::now() + budget;
        let answer = self.exchange(request, deadline).await?;
        read(answer, limit, deadline, budget).await
    }

    /// Sends one request, up to the head of its answer.
    async fn exchange(
        &self,
        request: Request,
        deadline: Instant,
    ) -> Result<reqwest::Response, Failure> {
        let Request {
            method,
            url,
            headers,
            body,
            tls_verify,
            budget,
            limit: _,
        } = request;
        let started = Instant::now();
        let trust = match (url.is_encrypted(), tls_verify) {
            (false, _) if !self.proxies.applies_to(url.as_url()) => Trust::Plain,
            (_, true) => Trust::Verified,
            (_, false) => Trust::Unverified,
        };
        let host = url.host().to_owned();
        let proxy = self.proxies.place_for(url.as_url());
        let mut builder = self
            .client(trust)?
            .request(method, url.into_url())
            .headers(headers);
        if let Some(body) = body {
            builder = builder.body(body);
        }
        let request = builder.build().map_err(|error| Failure::Client {
            reason: error.without_url().to_string(),
        })?;
        match timeout_at(deadline, self.client(trust)?.execute(request)).await {
            Err(_) => Err(Failure::NoAnswer { within: budget }),
            Ok(Err(error)) => {
                Err(failure::before_answer(&error, &host, started.elapsed()).through(proxy))
            }
            Ok(Ok(answer)) => Ok(answer),
        }
    }

    fn client(&self, trust: Trust) -> Result<&reqwest::Client, Failure> {
        let slot = match trust {
            Trust::Plain => &self.plain,
            Trust::Verified => &self.verified,
            Trust::Unverified => &self.unverified,
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = self.build(trust)?;
        Ok(slot.get_or_init(|| client))
    }

    fn build(&self, trust: Trust) -> Result<reqwest::Client, Failure> {
        // Whoever was first (another room, a test) installed the same provider: there is one.
        drop(rustls::crypto::ring::default_provider().install_default());
        #[expect(
            clippy::disallowed_methods,
            reason = "this room is the one owner of the HTTP client"
        )]
        let builder = reqwest::Client::builder();
        let builder = self
            .proxies
            .install(builder)
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(0)
            .dns_resolver(Arc::new(Names));
        let builder = match (trust, &self.roots) {
            (Trust::Plain, _) => builder.tls_certs_only([]),
            (Trust::Unverified, _) => builder.tls_danger_accept_invalid_certs(true),
            (Trust::Verified, Roots::Only(roots)) => builder.tls_certs_only(roots.clone()),
            (Trust::Verified, Roots::Platform) => builder,
        };
        builder.build().map_err(|error| Failure::Client {
            reason: failure::chain(&error),
        })
    }
}

async fn read(
    mut answer: reqwest::Response,
    limit: BodyLimit,
    deadline: Instant,
    budget: Duration,
) -> Result<Response, Failure> {
    let status = answer.status();
    let headers = std::mem::take(answer.headers_mut());
    let mut body = Vec::new();
    let mut body_bytes: u64 = 0;
    let is_whole = loop {
        match timeout_at(deadline, answer.chunk()).await {
            Err(_) => {
                return Err(Failure::AnswerUnfinished {
                    status: status.as_u16(),
                    received_bytes: body_bytes,
                    within: budget,
                });
            }
            Ok(Err(error)) => {
                return Err(failure::inside_answer(&error, status.as_u16(), body_bytes));
            }
            Ok(Ok(None)) => break true,
            Ok(Ok(Some(chunk))) => {
                body_bytes += chunk.len() as u64;
                let room = limit.keep - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if body_bytes > limit.read {
                    break false;
                }
            }
        }
    };
    Ok(Response {
        status,
        headers,
        body,
        body_bytes,
        is_whole,
    })
}

/// A header value from text that must not show up in debug output.
pub fn sensitive_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The system's resolver, with an error type of our own so that "no such name" can be told from
/// "nobody listens" by type.
struct Names;

impl reqwest::dns::Resolve for Names {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0))
                .await
                .map_err(|source| DnsFailure { source })?
                .collect();
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}
