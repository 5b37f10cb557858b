//! The lock, as sure as it can be. A process may be stopped for minutes between any two of its
//! instructions; when it goes on, another run may long have taken over. Writes to the state are
//! fenced, calls to a provider cannot be, so before each of them the age of the lease is looked at.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use super::Engine;
use super::execute::{GRACE, RENEW_EVERY};
use crate::clock::Clock;
use crate::state::{Lease, Renewal, Store, StoreError, StoreResult};

/// Renewals in a row that may each take too long to be worth anything.
const TRIES: u32 = 3;

/// A lease and the time since which it is known to be ours.
pub(super) struct Hold<'a> {
    store: &'a dyn Store,
    lease: &'a Lease,
    clock: &'a dyn Clock,
    /// When the last renewal that succeeded was asked for.
    proven: Cell<Option<Duration>>,
    /// Since when it has been looked after here: it was ours then.
    begun: Duration,
    /// One renewal is enough for all who wait for it.
    turn: tokio::sync::Mutex<()>,
}

impl<'a> Hold<'a> {
    pub(super) fn new(store: &'a dyn Store, lease: &'a Lease, clock: &'a dyn Clock) -> Self {
        Self {
            store,
            lease,
            clock,
            proven: Cell::new(None),
            begun: clock.monotonic(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Proves the lock and extends it.
    pub(super) async fn renew(&self) -> StoreResult<()> {
        let asked = self.clock.monotonic();
        self.store.renew(self.lease).await?;
        self.proven.set(Some(asked));
        Ok(())
    }

    /// Nobody has heard from us for a whole lease: whoever waits for the lock may have it by now.
    pub(super) fn is_over(&self) -> bool {
        let proven = self.proven.get().unwrap_or(self.begun);
        self.clock.monotonic().saturating_sub(proven) >= Renewal::DEFAULT.lease
    }

    /// Half a lease: what is asked for now has the other half to be done in.
    fn is_fresh(&self) -> bool {
        self.proven.get().is_some_and(|proven| {
            self.clock.monotonic().saturating_sub(proven) < Renewal::DEFAULT.lease / 2
        })
    }

    /// Returns when the lock is sure to be ours for a while yet.
    ///
    /// # Errors
    /// When it is not: then nothing may be asked for.
    pub(super) async fn is_sure(&self) -> StoreResult<()> {
        if self.is_fresh() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        for _ in 0..TRIES {
            if self.is_fresh() {
                return Ok(());
            }
            self.renew().await?;
        }
        if self.is_fresh() {
            return Ok(());
        }
        Err(StoreError::Storage(
            "each renewal of the lock takes longer than it is good for".to_owned(),
        ))
    }
}

/// Why something was given up before it came to its end.
#[derive(Debug)]
pub(super) enum GivenUp {
    /// The run was stopped, and it did not end within the grace.
    Stopped,
    /// The lock is not ours any more.
    Lost(StoreError),
}

/// Waits for what may take minutes, with the lock renewed all the while. The first wish to stop leaves
/// it as long as a running action.
pub(super) async fn attended<T>(
    engine: &Engine<'_>,
    lease: &Lease,
    work: impl Future<Output = T>,
) -> Result<T, GivenUp> {
    let mut work = pin!(work);
    let stopped = async {
        engine.cancel.cancelled().await;
        engine.clock.sleep(GRACE).await;
    };
    let mut stopped = pin!(stopped);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            () = &mut stopped => return Err(GivenUp::Stopped),
            () = engine.clock.sleep(RENEW_EVERY) => {
                // After any other failure another try comes, and what is written proves the lock itself.
                if let Err(error @ StoreError::LostLock { .. }) = engine.store.renew(lease).await {
                    return Err(GivenUp::Lost(error));
                }
            }
        }
    }
}

/// The same for a single call, of those who hold no lock all the time: before a plan is made, and
/// after it was carried out.
///
/// # Errors
/// When the lock is not sure: then nothing may be asked for.
pub(super) async fn prove(engine: &Engine<'_>, lease: &Lease) -> StoreResult<()> {
    Hold::new(engine.store.as_ref(), lease, engine.clock.as_ref())
        .is_sure()
        .await
}
