//! Time, passed in. Nobody else reads a clock; tests move a manual one.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

/// The only source of time in the program.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall-clock time, UTC. For records people read; never for measuring or for expiry decisions
    /// between machines.
    fn now(&self) -> OffsetDateTime;
    /// Time since an arbitrary fixed point; never goes backwards.
    fn monotonic(&self) -> Duration;
    /// Returns after `duration` of this clock's time.
    async fn sleep(&self, duration: Duration);
}

/// The machine's clock.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic zero is now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this type is the one owner of the machine's clock"
    )]
    pub fn new() -> Self {
        Self {
            started: std::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this type is the one owner of the machine's clock"
    )]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this type is the one owner of the machine's clock"
    )]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock tests hold in their hand: `sleep` advances it at once.
#[derive(Debug, Clone)]
pub struct ManualClock {
    state: Arc<Mutex<(OffsetDateTime, Duration)>>,
}

impl ManualClock {
    /// A clock that reads `start` until it is moved.
    pub fn new(start: OffsetDateTime) -> Self {
        Self {
            state: Arc::new(Mutex::new((start, Duration::ZERO))),
        }
    }

    /// Moves both the wall clock and the monotonic clock forward.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        state.0 += by;
        state.1 += by;
    }

    /// Sets the wall clock alone, backwards too, as an administrator or NTP would.
    pub fn set_wall(&self, to: OffsetDateTime) {
        self.lock().0 = to;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (OffsetDateTime, Duration)> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> OffsetDateTime {
        self.lock().0
    }

    fn monotonic(&self) -> Duration {
        self.lock().1
    }

    async fn sleep(&self, duration: Duration) {
        self.advance(duration);
        tokio::task::yield_now().await;
    }
}

/// RFC 3339, UTC, whole seconds: the form state records and JSON output use.
pub fn rfc3339(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    debug_assert_eq!(text.len(), 20, "years stay within four digits");
    text
}
