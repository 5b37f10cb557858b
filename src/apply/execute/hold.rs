//! The lock, as sure as it can be. A process may be stopped for minutes between any two of its
//! instructions; when it goes on, another run may long have taken over. Writes to the state are
//! fenced, calls to a provider cannot be, so before each of them the age of the lease is looked at.

use std::cell::Cell;
use std::time::Duration;

use crate::clock::Clock;
use crate::provider::{DriverError, ErrorClass};
use crate::state::{Lease, Renewal, Store, StoreResult};

/// Renewals in a row that may each take too long to be worth anything.
const TRIES: u32 = 3;

/// A lease and the time since which it is known to be ours.
pub(in crate::apply) struct Hold<'a> {
    store: &'a dyn Store,
    lease: &'a Lease,
    clock: &'a dyn Clock,
    /// When the last renewal that succeeded was asked for.
    proven: Cell<Option<Duration>>,
    /// One renewal is enough for all who wait for it.
    turn: tokio::sync::Mutex<()>,
}

impl<'a> Hold<'a> {
    pub(in crate::apply) fn new(
        store: &'a dyn Store,
        lease: &'a Lease,
        clock: &'a dyn Clock,
    ) -> Self {
        Self {
            store,
            lease,
            clock,
            proven: Cell::new(None),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Proves the lock and extends it.
    pub(in crate::apply) async fn renew(&self) -> StoreResult<()> {
        let asked = self.clock.monotonic();
        self.store.renew(self.lease).await?;
        self.proven.set(Some(asked));
        Ok(())
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
    pub(in crate::apply) async fn is_sure(&self) -> Result<(), DriverError> {
        if self.is_fresh() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        for _ in 0..TRIES {
            if self.is_fresh() {
                return Ok(());
            }
            self.renew().await.map_err(|error| {
                DriverError::new(
                    ErrorClass::Conflict,
                    format!("nothing was asked for, because the lock is not sure: {error}"),
                )
            })?;
        }
        if self.is_fresh() {
            return Ok(());
        }
        Err(DriverError::new(
            ErrorClass::Conflict,
            "nothing was asked for: each renewal of the lock takes longer than it is good for",
        ))
    }
}
