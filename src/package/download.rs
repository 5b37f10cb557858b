//! Bytes from servers. A token goes to the one server it was set for and to nobody a redirect names;
//! a download that was cut off goes on where it stopped; and whatever way the bytes came, only the
//! digest of all of them decides.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED,
    LOCATION, RANGE,
};
use http::{Method, StatusCode};

use super::archive::ARCHIVE_BYTES_MAX;
use super::cache::{Cache, Origin, digest_of};
use super::{blocking, disk_failed};
use crate::clock::Clock;
use crate::disk::{Disk, FileLock};
use crate::http::{BodyLimit, Failure, Http, RedactedUrl, Request, Streamed, sensitive_header};
use crate::report::{Exit, Report, Reporter};
use crate::secret::Secret;

/// Redirects followed in one request.
const REDIRECTS_MAX: usize = 5;
/// Tries of one download. Each goes on where the one before stopped.
const ATTEMPTS_MAX: u32 = 5;
/// For one try of an archive, from connecting to its last byte.
const ARCHIVE_BUDGET: Duration = Duration::from_secs(30 * 60);
/// The longest silence inside an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// For one small answer.
const SMALL_BUDGET: Duration = Duration::from_secs(60);
/// Largest small answer.
const SMALL_BYTES_MAX: usize = 8 << 20;
/// Bytes collected before they are written.
const WRITE_BYTES: usize = 1 << 20;
/// Between two lines about a download that goes on.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at a lock another process holds, and how often it is looked at.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
const LOCK_LOOKS_MAX: u32 = 6_000;
/// Looks before people hear that somebody is waited for.
const LOCK_LOOKS_QUIET: u32 = 10;

/// A token, and the only server that may see it.
pub struct Credential {
    variable: String,
    header: HeaderValue,
    server: RedactedUrl,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Credential({} for {})",
            self.variable,
            self.server.host()
        )
    }
}

impl Credential {
    /// A token from the variable of this name, for this server.
    pub fn new(variable: &str, token: &Secret, server: RedactedUrl) -> Result<Self, Report> {
        let header = sensitive_header(&format!("Bearer {}", token.expose())).ok_or_else(|| {
            Report::error(
                "package/bad-token",
                format!("the value of `{variable}` cannot be a token: it holds a line break or another character that no HTTP header can carry"),
            )
            .fix("set it again without the line break at its end")
            .exit(Exit::Usage)
        })?;
        Ok(Self {
            variable: variable.to_owned(),
            header,
            server,
        })
    }
}

/// Why a request has no answer to work with.
enum Trouble {
    /// It may go better in a moment.
    Passing(String),
    /// It will not.
    Final(Report),
}

/// What to fetch.
#[derive(Debug)]
pub struct Want<'a> {
    /// What it is, for messages: `digitalocean v1.4.2 for linux-amd64`.
    pub what: &'a str,
    /// Where it is.
    pub url: &'a str,
    /// Asks the API for the bytes of an asset instead of a description of it.
    pub is_asset: bool,
    /// The digest it must have.
    pub sha256: &'a str,
    /// Its server is asked, whatever the cache holds.
    pub is_asked_for: bool,
    /// The token, when there is one.
    pub credential: Option<&'a Credential>,
}

/// Fetches things.
pub struct Fetcher {
    /// The one HTTP client.
    pub http: Http,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Who hears about progress.
    pub reporter: Arc<dyn Reporter>,
    /// Where archives are kept.
    pub cache: Cache,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl Fetcher {
    /// A small answer, whole. `None` for 404.
    pub async fn small(
        &self,
        url: &RedactedUrl,
        accept: &'static str,
        credential: Option<&Credential>,
    ) -> Result<Option<Vec<u8>>, Report> {
        let mut last = String::new();
        for attempt in 0..ATTEMPTS_MAX {
            self.pause(attempt).await;
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            match self.small_once(url, headers, credential).await {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Final(report)) => return Err(report),
                Err(Trouble::Passing(why)) => last = why,
            }
        }
        Err(unreachable(&url.to_string(), &last))
    }

    async fn small_once(
        &self,
        url: &RedactedUrl,
        headers: HeaderMap,
        credential: Option<&Credential>,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let mut answer = self.open(url, headers, credential, SMALL_BUDGET).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if answer.status != StatusCode::OK {
            return Err(refused(url, answer.status, &answer.headers, credential));
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk(PATIENCE).await.map_err(passing)? {
            if body.len() + piece.len() > SMALL_BYTES_MAX {
                return Err(Trouble::Final(too_large(url, SMALL_BYTES_MAX as u64)));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Some(body))
    }

    /// An archive with the digest it must have: from the cache, else from its server. It is in the
    /// cache afterwards.
    pub async fn archive(&self, want: &Want<'_>) -> Result<Vec<u8>, Report> {
        let key = want.sha256.to_owned();
        let take = || {
            let (disk, cache, key) = (Arc::clone(&self.disk), self.cache.clone(), key.clone());
            blocking(move || {
                cache
                    .take(&*disk, &key)
                    .map_err(|error| disk_failed(&error))
            })
        };
        if !want.is_asked_for
            && let Some(bytes) = take().await?
        {
            return Ok(bytes);
        }
        let _fetching = self
            .turn(
                &self.cache.fetch_lock(&key),
                "another process is fetching the same archive",
            )
            .await?;
        // Whoever held the turn before may have fetched it.
        if !want.is_asked_for
            && let Some(bytes) = take().await?
        {
            return Ok(bytes);
        }
        let (bytes, was_resumed) = self.transfer(want).await?;
        let found = self.compare(&key, bytes).await?;
        let (found, bytes) = match found {
            Ok(bytes) => return Ok(bytes),
            Err(found) if was_resumed => {
                self.reporter.note(format!(
                    "{}: what was left of an earlier download does not fit; starting over",
                    want.what
                ));
                (found, self.transfer(want).await?.0)
            }
            Err(found) => return Err(mismatch(want, &found)),
        };
        drop(found);
        self.compare(&key, bytes)
            .await?
            .map_err(|found| mismatch(want, &found))
    }

    /// Hashes what came. Right: it moves into the cache. Wrong: it is dropped, and its digest told.
    async fn compare(&self, key: &str, bytes: Vec<u8>) -> Result<Result<Vec<u8>, String>, Report> {
        let (disk, cache, key) = (Arc::clone(&self.disk), self.cache.clone(), key.to_owned());
        blocking(move || {
            let found = digest_of(&bytes);
            let is_right = found == key;
            if is_right {
                cache.keep(&*disk, &key)
            } else {
                cache.drop_partial(&*disk, &key)
            }
            .map_err(|error| disk_failed(&error))?;
            Ok(if is_right { Ok(bytes) } else { Err(found) })
        })
        .await
    }

    /// Waits for an advisory lock, ten minutes at most.
    pub async fn turn(&self, path: &Path, why: &str) -> Result<Box<dyn FileLock>, Report> {
        for look in 0..LOCK_LOOKS_MAX {
            if let Some(lock) = self
                .disk
                .try_lock(path)
                .map_err(|error| disk_failed(&error))?
            {
                return Ok(lock);
            }
            if look == LOCK_LOOKS_QUIET {
                self.reporter.note(format!("Waiting: {why}."));
            }
            self.clock.sleep(LOCK_PAUSE).await;
        }
        Err(Report::error("package/busy", why.to_owned())
            .fix("run it again when the other one has ended")
            .exit(Exit::Locked))
    }

    /// All bytes of an archive, and whether some were there before.
    async fn transfer(&self, want: &Want<'_>) -> Result<(Vec<u8>, bool), Report> {
        let mut last = String::new();
        let mut was_resumed = false;
        for attempt in 0..ATTEMPTS_MAX {
            self.pause(attempt).await;
            match self.transfer_once(want, &mut was_resumed).await {
                Ok(()) => {
                    let (disk, path) = (Arc::clone(&self.disk), self.cache.partial(want.sha256));
                    let bytes = blocking(move || {
                        disk.read(&path, ARCHIVE_BYTES_MAX)
                            .map_err(|error| disk_failed(&error))
                    })
                    .await?;
                    return Ok((bytes, was_resumed));
                }
                Err(Trouble::Final(report)) => return Err(report),
                Err(Trouble::Passing(why)) => last = why,
            }
        }
        Err(unreachable(want.what, &last).fix("run it again: it goes on where it stopped"))
    }

    async fn transfer_once(&self, want: &Want<'_>, was_resumed: &mut bool) -> Result<(), Trouble> {
        let disk = &*self.disk;
        let failed = |error: crate::disk::DiskError| Trouble::Final(disk_failed(&error));
        let key = want.sha256;
        let url = RedactedUrl::parse(want.url)
            .map_err(|problem| Trouble::Passing(problem.to_string()))?;
        let (have, origin) = self.cache.resume(disk, key, want.url).map_err(failed)?;
        let mut headers = HeaderMap::new();
        if want.is_asset {
            headers.insert(ACCEPT, HeaderValue::from_static("application/octet-stream"));
        }
        if let Some(origin) = &origin
            && let Ok(validator) = HeaderValue::from_str(&origin.validator)
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={have}-"))
        {
            headers.insert(RANGE, range);
            headers.insert(IF_RANGE, validator);
        }
        let mut answer = self
            .open(&url, headers, want.credential, ARCHIVE_BUDGET)
            .await?;
        let mut received = match answer.status {
            StatusCode::PARTIAL_CONTENT if origin.is_some() => {
                let start = answer
                    .headers
                    .get(CONTENT_RANGE)
                    .and_then(|value| value.to_str().ok())
                    .and_then(|value| value.strip_prefix("bytes "))
                    .and_then(|value| value.split('-').next())
                    .and_then(|start| start.parse::<u64>().ok());
                if start != Some(have) {
                    self.cache.drop_partial(disk, key).map_err(failed)?;
                    return Err(Trouble::Passing(
                        "the server answered with another part than was asked for".to_owned(),
                    ));
                }
                *was_resumed = true;
                self.reporter
                    .note(format!("{}: going on after {}", want.what, mebibytes(have)));
                have
            }
            StatusCode::OK => {
                *was_resumed = false;
                let origin = Origin {
                    url: want.url.to_owned(),
                    validator: validator(&answer.headers),
                };
                self.cache.begin(disk, key, &origin).map_err(failed)?;
                0
            }
            StatusCode::RANGE_NOT_SATISFIABLE if origin.is_some() => {
                self.cache.drop_partial(disk, key).map_err(failed)?;
                return Err(Trouble::Passing(
                    "the server has no such part of the archive".to_owned(),
                ));
            }
            status => return Err(refused(&url, status, &answer.headers, want.credential)),
        };
        let partial = self.cache.partial(key);
        let mut waiting: Vec<u8> = Vec::with_capacity(WRITE_BYTES);
        let mut said = self.clock.monotonic();
        let ended = loop {
            let piece = match answer.chunk(PATIENCE).await {
                Ok(Some(piece)) => piece,
                Ok(None) => break Ok(()),
                // What came before the cut is kept for the next try.
                Err(failure) => break Err(passing(failure)),
            };
            received += piece.len() as u64;
            if received > ARCHIVE_BYTES_MAX {
                self.cache.drop_partial(disk, key).map_err(failed)?;
                return Err(Trouble::Final(too_large(&url, ARCHIVE_BYTES_MAX)));
            }
            waiting.extend_from_slice(&piece);
            if waiting.len() >= WRITE_BYTES {
                disk.append(&partial, &waiting, 0o600, false)
                    .map_err(failed)?;
                waiting.clear();
            }
            let now = self.clock.monotonic();
            if now.saturating_sub(said) >= PROGRESS_EVERY {
                said = now;
                self.reporter
                    .note(format!("{}: {} so far", want.what, mebibytes(received)));
            }
        };
        disk.append(&partial, &waiting, 0o600, false)
            .map_err(failed)?;
        ended
    }

    /// The head of an answer, after redirects.
    async fn open(
        &self,
        url: &RedactedUrl,
        headers: HeaderMap,
        credential: Option<&Credential>,
        budget: Duration,
    ) -> Result<Streamed, Trouble> {
        let mut url = url.clone();
        // Once a redirect has led elsewhere, the token is out of the game for good.
        let mut credential = credential;
        for _ in 0..=REDIRECTS_MAX {
            credential = credential.filter(|token| token.server.is_same_server(&url));
            let mut headers = headers.clone();
            if let Some(token) = credential {
                headers.insert(AUTHORIZATION, token.header.clone());
            }
            let answer = self
                .http
                .open(Request {
                    method: Method::GET,
                    url: url.clone(),
                    headers,
                    body: None,
                    tls_verify: true,
                    budget,
                    limit: BodyLimit::default(),
                })
                .await
                .map_err(passing)?;
            if !answer.status.is_redirection() || answer.status == StatusCode::NOT_MODIFIED {
                return Ok(answer);
            }
            let next = answer
                .headers
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .and_then(|location| url.join(location))
                .ok_or_else(|| Trouble::Passing(format!("{url} redirects to no usable address")))?;
            let stays_here = next.is_loopback() && url.is_loopback();
            if !next.is_encrypted() && !stays_here {
                return Err(Trouble::Final(
                    Report::error(
                        "package/insecure-redirect",
                        format!("{url} redirects to {next}, which is not encrypted"),
                    )
                    .fix("use a source that serves its archives by https"),
                ));
            }
            url = next;
        }
        Err(Trouble::Final(Report::error(
            "package/too-many-redirects",
            format!("more than {REDIRECTS_MAX} redirects, last to {url}"),
        )))
    }

    async fn pause(&self, attempt: u32) {
        if attempt > 0 {
            let wait = Duration::from_millis(250) * 2_u32.pow(attempt - 1);
            self.clock.sleep(wait).await;
        }
    }
}

/// What a later request can ask the rest by: a strong `ETag`, else the time of the last change.
fn validator(headers: &HeaderMap) -> String {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    text(ETAG)
        .filter(|etag| !etag.starts_with("W/"))
        .or_else(|| text(LAST_MODIFIED))
        .unwrap_or_default()
        .to_owned()
}

fn passing(failure: Failure) -> Trouble {
    match failure {
        Failure::Certificate { .. } | Failure::Client { .. } => {
            Trouble::Final(Report::error("package/unreachable", failure.to_string()))
        }
        failure => Trouble::Passing(failure.to_string()),
    }
}

fn refused(
    url: &RedactedUrl,
    status: StatusCode,
    headers: &HeaderMap,
    credential: Option<&Credential>,
) -> Trouble {
    let is_used_up = headers
        .get("x-ratelimit-remaining")
        .is_some_and(|left| left.as_bytes() == b"0");
    if is_used_up && (status == StatusCode::FORBIDDEN || status == StatusCode::TOO_MANY_REQUESTS) {
        let report = Report::error(
            "package/refused",
            format!("{url} answers no more: its rate limit is used up"),
        )
        .fix("run it again when the limit is renewed, at most an hour from now");
        return Trouble::Final(match credential {
            None => report.fix(
                "set `RELEASES_TOKEN`: who names a token may ask far more often than who names none",
            ),
            Some(_) => report,
        });
    }
    let is_asked_to_wait = status == StatusCode::FORBIDDEN && headers.contains_key("retry-after");
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || is_asked_to_wait {
        return Trouble::Passing(format!("{url} answered {}", status.as_u16()));
    }
    let report = Report::error(
        "package/refused",
        format!("{url} answered {}", status.as_u16()),
    );
    Trouble::Final(match (status.as_u16(), credential) {
        (401 | 403 | 404, Some(token)) => report.fix(format!(
            "check that the token in `{}` may read this repository's releases",
            token.variable
        )),
        (401 | 403 | 404, None) => report.fix(
            "if the repository is private, set `RELEASES_TOKEN`, or name a variable in `auth.env`",
        ),
        _ => report,
    })
}

fn unreachable(what: &str, why: &str) -> Report {
    Report::error(
        "package/unreachable",
        format!("could not fetch {what} in {ATTEMPTS_MAX} tries"),
    )
    .because(why.to_owned())
}

fn too_large(url: &RedactedUrl, limit: u64) -> Report {
    Report::error(
        "package/too-large",
        format!("{url} is larger than {} MiB", limit >> 20),
    )
}

/// The failure this whole room is about.
fn mismatch(want: &Want<'_>, found: &str) -> Report {
    digest_mismatch(want.what, want.sha256, found)
}

/// Bytes that are not what the lock says.
pub fn digest_mismatch(what: &str, expected: &str, found: &str) -> Report {
    Report::error(
        "package/digest-mismatch",
        format!("{what} is not what was locked; nothing was installed"),
    )
    .because(format!("locked: sha256 {expected}"))
    .because(format!("found:  sha256 {found}"))
    .fix("do not work around this: find out who changed the archive, and when")
    .fix("if the change was meant, review it and lock anew: `tidegate plugin lock`")
}

/// `12.3 MiB`.
pub fn mebibytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a runner that many share, this is the usual failure, and no fault of any token.
    #[test]
    fn a_rate_limit_is_called_one() {
        let url = RedactedUrl::parse("https://api.github.com/repos/o/r/releases").unwrap();
        let refused_with = |status: u16, name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            refused(&url, StatusCode::from_u16(status).unwrap(), &headers, None)
        };
        for status in [403, 429] {
            let Trouble::Final(report) = refused_with(status, "x-ratelimit-remaining", "0") else {
                panic!("{status} is waited for");
            };
            let fixes = report.fix.join(" ");
            assert!(report.message.contains("rate limit"), "{}", report.message);
            assert!(fixes.contains("RELEASES_TOKEN"), "{fixes}");
        }
        assert!(matches!(
            refused_with(403, "retry-after", "1"),
            Trouble::Passing(_)
        ));
        let Trouble::Final(report) = refused_with(403, "x-ratelimit-remaining", "41") else {
            panic!("a refusal is waited for");
        };
        assert!(!report.message.contains("rate limit"), "{}", report.message);
    }
}
