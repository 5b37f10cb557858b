//! How long a store is waited for. One that hangs answers nothing, not even that it is down; but the
//! lease runs out all the same, and then what is under way must go where it lasts.

use std::time::Duration;

use super::{PATIENCE, Rescuing};
use crate::state::{Renewal, StoreError, StoreResult};

/// What a single call may take at least, however old the lease is: a process that was stopped for a
/// while still hears that the store has gone on without it.
const AT_LEAST: Duration = Duration::from_secs(20);

impl Rescuing {
    /// The lease was good when this was asked for.
    pub(super) fn proven_at(&self, asked: Duration) {
        self.known().proven = Some(asked);
    }

    /// A call under the lease, or about one object. It may take as long as the lease lasts.
    pub(super) async fn within<T>(
        &self,
        call: impl Future<Output = StoreResult<T>>,
    ) -> StoreResult<T> {
        self.unless(call, async {
            tokio::select! {
                biased;
                why = self.stopped() => why,
                why = self.lapsed() => why,
            }
        })
        .await
    }

    /// A call about everything there is, which takes as long as it takes, unless somebody wants to
    /// stop.
    pub(super) async fn at_length<T>(
        &self,
        call: impl Future<Output = StoreResult<T>>,
    ) -> StoreResult<T> {
        self.unless(call, self.stopped()).await
    }

    /// A store that kept silent once is not asked any more: each further call would wait as long.
    async fn unless<T>(
        &self,
        call: impl Future<Output = StoreResult<T>>,
        over: impl Future<Output = &'static str>,
    ) -> StoreResult<T> {
        let silent = self.known().silent;
        if let Some(why) = silent {
            return Err(StoreError::Storage(why.to_owned()));
        }
        tokio::select! {
            biased;
            answer = call => answer,
            why = over => {
                self.known().silent = Some(why);
                Err(StoreError::Storage(why.to_owned()))
            }
        }
    }

    /// Returns a while after the wish to stop.
    async fn stopped(&self) -> &'static str {
        self.tools.cancel.cancelled().await;
        self.tools.clock.sleep(PATIENCE).await;
        "the run was stopped, and the store does not answer"
    }

    /// Returns when the lease is over, unless it is renewed meanwhile.
    async fn lapsed(&self) -> &'static str {
        let clock = self.tools.clock.as_ref();
        let at_least = clock.monotonic() + AT_LEAST;
        loop {
            let proven = self.known().proven;
            let Some(proven) = proven else {
                // Nothing is held yet, or not any more: the store's own patience has to do.
                return std::future::pending().await;
            };
            let end = at_least.max(proven + Renewal::DEFAULT.lease);
            let left = end.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return "the store has not answered for as long as the lock lasts";
            }
            clock.sleep(left).await;
        }
    }
}
