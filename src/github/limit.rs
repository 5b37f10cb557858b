//! When to wait and when to try again: pure decisions over headers, counts and times.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::random::Random;

/// Tries of one request against transport errors and 5xx answers, the first one included.
pub(super) const TRIES: u32 = 3;

/// The longest all waits for rate limits of one request may take together.
pub(super) const LIMIT_WAIT_MAX: Duration = Duration::from_secs(300);

/// How often one request waits for a rate limit at most.
pub(super) const LIMIT_WAITS: u32 = 10;

/// GitHub's documented minimum when it names no time.
const LIMIT_WAIT_UNNAMED: Duration = Duration::from_secs(60);

const BACKOFF_BASE: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(8);

/// The pause before try `failures` + 1: anywhere between nothing and an exponentially growing
/// ceiling ("full jitter"), so that many clients failing together do not return together.
pub(super) fn backoff(random: &dyn Random, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let ceiling = BACKOFF_BASE.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    let share = u128::from(u64::from_le_bytes(bytes));
    let nanoseconds = (ceiling.as_nanos() * share) >> 64;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// For how long a refusal asks us to stay away; `None` when it is no rate limit. A 403 alone says
/// nothing (it may be a missing permission): headers decide, then GitHub's documented wording.
pub(super) fn rate_limit(
    status: StatusCode,
    headers: &HeaderMap,
    message: &str,
    now: OffsetDateTime,
    waits_before: u32,
) -> Option<Duration> {
    if status != StatusCode::FORBIDDEN && status != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    if let Some(wait) = retry_after(headers, now) {
        return Some(wait.max(Duration::from_secs(1)));
    }
    if text(headers, "x-ratelimit-remaining") == Some("0")
        && let Some(reset) = text(headers, "x-ratelimit-reset")
            .and_then(|text| text.parse::<i64>().ok())
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
    {
        // One second more: the header has no fractions.
        let wait = positive(reset - servers_now(headers, now)) + Duration::from_secs(1);
        return Some(wait);
    }
    let named = message.to_ascii_lowercase().contains("rate limit");
    (status == StatusCode::TOO_MANY_REQUESTS || named)
        .then(|| LIMIT_WAIT_UNNAMED.saturating_mul(1 << waits_before.min(8)))
}

/// `Retry-After`, in seconds or as a date.
pub(super) fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let value = text(headers, "retry-after")?;
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    Some(positive(date(value)? - servers_now(headers, now)))
}

/// The server's own clock when it says it, so that a skewed clock of ours does not matter.
pub(super) fn servers_now(headers: &HeaderMap, ours: OffsetDateTime) -> OffsetDateTime {
    text(headers, "date").and_then(date).unwrap_or(ours)
}

fn date(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc2822).ok()
}

fn positive(duration: time::Duration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The pace of writes: a bucket of 30 that gains 2 a second, so no 60 seconds see more than 150
/// writes. GitHub's own limit comes to 180 (900 points a minute, 5 a write).
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    tokens: f64,
    filled_at: Duration,
}

impl Bucket {
    const SIZE: f64 = 30.0;
    const PER_SECOND: f64 = 2.0;

    /// Takes one write out of the bucket; answers how long to wait before sending it.
    pub(super) fn take(&mut self, now: Duration) -> Duration {
        let elapsed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + elapsed * Self::PER_SECOND).min(Self::SIZE) - 1.0;
        if self.tokens >= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-self.tokens / Self::PER_SECOND)
        }
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            tokens: Self::SIZE,
            filled_at: Duration::ZERO,
        }
    }
}

/// Retries of the whole process: ten at first, and one more for every ten requests that succeed,
/// so that a failing server is not buried under our retries.
#[derive(Clone, Debug)]
pub(super) struct RetryBudget {
    tenths: u32,
}

impl RetryBudget {
    const TENTHS_MAX: u32 = 100;

    pub(super) fn succeeded(&mut self) {
        self.tenths = (self.tenths + 1).min(Self::TENTHS_MAX);
    }

    /// Takes one retry out of the budget, if there is one.
    pub(super) fn take(&mut self) -> bool {
        match self.tenths.checked_sub(10) {
            Some(rest) => {
                self.tenths = rest;
                true
            }
            None => false,
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            tenths: Self::TENTHS_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use time::macros::datetime;

    use super::*;
    use crate::random::SeededRandom;

    const NOW: OffsetDateTime = datetime!(2026-11-21 10:00:00 UTC);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn rate_limits_are_told_from_missing_permissions() {
        let reset = (NOW + Duration::from_secs(40)).unix_timestamp().to_string();
        let secondary = "You have exceeded a secondary rate limit";
        for (status, pairs, message, waits, expected) in [
            (
                403,
                vec![],
                "Resource not accessible by integration",
                0,
                None,
            ),
            (
                403,
                vec![("x-ratelimit-remaining", "4999")],
                "Forbidden",
                0,
                None,
            ),
            (403, vec![("retry-after", "7")], "", 0, Some(7)),
            (429, vec![("retry-after", "0")], "", 0, Some(1)),
            (
                429,
                vec![("retry-after", "Sat, 21 Nov 2026 10:00:09 GMT")],
                "",
                0,
                Some(9),
            ),
            // A date in the past, and a date judged by the server's clock rather than ours.
            (
                429,
                vec![("retry-after", "Sat, 21 Nov 2020 10:00:09 GMT")],
                "",
                0,
                Some(1),
            ),
            (
                429,
                vec![
                    ("date", "Sat, 21 Nov 2026 11:00:00 GMT"),
                    ("retry-after", "Sat, 21 Nov 2026 11:00:05 GMT"),
                ],
                "",
                0,
                Some(5),
            ),
            (
                403,
                vec![
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", &reset),
                ],
                "",
                0,
                Some(41),
            ),
            (403, vec![], secondary, 0, Some(60)),
            (403, vec![], secondary, 1, Some(120)),
            (429, vec![("retry-after", "soon")], "", 2, Some(240)),
            (500, vec![("retry-after", "7")], "", 0, None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                rate_limit(status, &headers(&pairs), message, NOW, waits),
                expected.map(Duration::from_secs),
                "{status} {pairs:?} {message}"
            );
        }
    }

    #[test]
    fn backoff_grows_to_its_ceiling_and_fills_the_whole_range() {
        let random = SeededRandom::new(4);
        for (failures, ceiling_ms) in [(1, 500), (2, 1_000), (3, 2_000), (9, 8_000)] {
            let waits: Vec<u128> = (0..2_000)
                .map(|_| backoff(&random, failures).as_millis())
                .collect();
            let (low, high) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(*high <= ceiling_ms && *high > ceiling_ms * 98 / 100);
            assert!(*low < ceiling_ms / 50);
            // Uniform: the mean of 2,000 draws lies within 5 % of the middle.
            let mean = waits.iter().sum::<u128>() / 2_000;
            assert!(mean.abs_diff(ceiling_ms / 2) < ceiling_ms / 20, "{mean}");
        }
    }

    #[test]
    fn no_minute_sees_more_than_150_writes() {
        let mut bucket = Bucket::default();
        let mut now = Duration::from_secs(1_000);
        let mut sent = Vec::new();
        for _ in 0..1_000 {
            now += bucket.take(now);
            sent.push(now);
        }
        for (index, start) in sent.iter().enumerate() {
            let within = sent[index..]
                .iter()
                .take_while(|at| **at < *start + Duration::from_secs(60))
                .count();
            assert!(within <= 150, "{within} writes within a minute");
        }
        let whole = sent[999] - sent[0];
        assert!(whole >= Duration::from_secs(480) && whole <= Duration::from_secs(490));
    }

    #[test]
    fn retries_add_at_most_a_tenth_when_half_of_all_requests_fail() {
        let random = SeededRandom::new(5);
        let mut budget = RetryBudget::default();
        let (mut requests, mut retries) = (0_u32, 0_u32);
        for _ in 0..10_000 {
            for failures in 1..=TRIES {
                requests += 1;
                let mut coin = [0];
                random.fill(&mut coin);
                if coin[0] & 1 == 0 {
                    budget.succeeded();
                    break;
                }
                if failures == TRIES || !budget.take() {
                    break;
                }
                retries += 1;
            }
        }
        assert!(retries <= requests / 10 + 10, "{retries} of {requests}");
        assert!(
            retries > 100,
            "retries are not simply switched off: {retries}"
        );
    }
}
