//! The rules of a lease: how long it lasts, how often it is renewed, and when somebody else may
//! take it. No clock is read here, ages come in; [`keep`] is given one to sleep by.

use std::sync::Arc;
use std::time::Duration;

use super::{Holder, Lease, Store, StoreError, StoreResult};
use crate::clock::Clock;
use crate::process::Processes;

/// How a lease is kept alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Time between two renewals by the holder.
    pub interval: Duration,
    /// Time after the last renewal when the lease lapses.
    pub lease: Duration,
}

/// Added to a lease by whoever waits for it to lapse, for the time a renewal may be under way.
pub const MARGIN: Duration = Duration::from_secs(2);

impl Renewal {
    /// Renewed every 15 s, lapses after 60 s: three renewals may fail before the lock is lost.
    pub const DEFAULT: Self = Self {
        interval: Duration::from_secs(15),
        lease: Duration::from_secs(60),
    };
}

impl Default for Renewal {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a watcher knows about a lock it does not hold. Wall clocks are never compared: a watcher
/// measures, on its own monotonic clock, for how long the lock has not changed.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// Time since this watcher first saw the lock in its present form.
    pub unchanged_for: Duration,
    /// The lease its holder works with.
    pub lease: Duration,
    /// What the operating system says about the holder's process.
    pub process: Process,
}

/// What is known about the holder's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// It runs on this machine, and it lives.
    Alive,
    /// It ran on this machine, and it is gone.
    Dead,
    /// It runs (or ran) on another machine, or before this one was started anew.
    Elsewhere,
}

/// Who can tell that a holder on this machine has ended, where the storage itself cannot.
#[derive(Clone, Debug, Default)]
pub struct Neighbours(Option<Arc<dyn Processes>>);

impl Neighbours {
    /// By the machine's processes.
    pub fn new(processes: Arc<dyn Processes>) -> Self {
        Self(Some(processes))
    }

    /// What is known about a holder. One that may live counts as being elsewhere: its lease decides.
    pub fn judge(&self, holder: &Holder) -> Process {
        match &self.0 {
            Some(processes) if processes.is_certainly_gone(&holder.mark) => Process::Dead,
            _ => Process::Elsewhere,
        }
    }
}

/// May the lock be taken?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes: its holder is dead, or has let the lease lapse.
    Take,
    /// Not before this much more time has passed without a renewal.
    Wait(Duration),
}

impl Watched {
    /// The decision. A living process that does not renew (stopped, or cut off from the disk)
    /// loses the lock like any other; its late writes are fenced off.
    pub fn verdict(self) -> Verdict {
        if self.process == Process::Dead {
            return Verdict::Take;
        }
        match (self.lease + MARGIN).checked_sub(self.unchanged_for) {
            Some(left) if !left.is_zero() => Verdict::Wait(left),
            _ => Verdict::Take,
        }
    }
}

/// Does `work`, and keeps the lease alive as long as it takes: also while somebody thinks about a
/// question, or a store takes its time. A renewal that fails is tried again at the next turn.
///
/// # Errors
/// [`StoreError::LostLock`] as soon as a renewal finds the lease overtaken; the work is given up then.
pub async fn keep<T>(
    store: &dyn Store,
    lease: &Lease,
    clock: &dyn Clock,
    work: impl Future<Output = T>,
) -> StoreResult<T> {
    let renewing = async {
        loop {
            clock.sleep(Renewal::DEFAULT.interval).await;
            if let Err(error @ StoreError::LostLock { .. }) = store.renew(lease).await {
                return error;
            }
        }
    };
    tokio::select! {
        biased;
        done = work => Ok(done),
        lost = renewing => Err(lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;
    use crate::state::Memory;
    use crate::state::memory::Shared;

    /// Somebody reads a question for an hour; others find the lock held all the time. Whoever frees it
    /// by force ends the work.
    #[tokio::test]
    async fn a_lease_lasts_as_long_as_the_work_under_it() {
        let clock = crate::clock::ManualClock::new(time::OffsetDateTime::UNIX_EPOCH);
        let shared = Shared::default();
        let open = || {
            let (clock, random) = (Arc::new(clock.clone()), Arc::new(SeededRandom::new(7)));
            Memory::open(shared.clone(), "dev", clock, random).unwrap()
        };
        let holder = |run_id: &str| Holder {
            run_id: run_id.to_owned(),
            who: "ann@elsewhere".to_owned(),
            process_id: 1,
            command: "state mv".to_owned(),
            run_url: None,
            job: String::new(),
            since: String::new(),
            mark: String::new(),
        };
        let (one, other) = (open(), open());
        let lease = one.lock(&holder("r1"), Duration::ZERO).await.unwrap();
        let started = clock.monotonic();
        let hour = Duration::from_secs(3600);
        let thinking = async {
            while clock.monotonic() - started < hour {
                assert!(other.lock(&holder("r2"), Duration::ZERO).await.is_err());
                tokio::task::yield_now().await;
            }
        };
        keep(&one, &lease, &clock, thinking).await.unwrap();
        other.force_unlock("r1").await.unwrap();
        other.lock(&holder("r2"), Duration::ZERO).await.unwrap();
        let lost = keep(&one, &lease, &clock, std::future::pending::<()>()).await;
        assert!(matches!(lost, Err(StoreError::LostLock { .. })), "{lost:?}");
    }

    #[test]
    fn a_lease_lapses_by_age_and_ends_with_its_process() {
        let lease = Renewal::DEFAULT.lease;
        let seconds = Duration::from_secs;
        let cases = [
            (Process::Dead, seconds(0), Verdict::Take),
            (Process::Alive, seconds(0), Verdict::Wait(seconds(62))),
            (Process::Elsewhere, seconds(61), Verdict::Wait(seconds(1))),
            (Process::Elsewhere, seconds(62), Verdict::Take),
            (Process::Alive, seconds(62), Verdict::Take),
            (Process::Alive, seconds(1000), Verdict::Take),
        ];
        for (process, unchanged_for, expected) in cases {
            let watched = Watched {
                unchanged_for,
                lease,
                process,
            };
            assert_eq!(watched.verdict(), expected, "{watched:?}");
        }
    }

    #[test]
    fn three_renewals_may_fail_before_the_lease_lapses() {
        let Renewal { interval, lease } = Renewal::DEFAULT;
        assert!(interval * 4 <= lease);
        assert!(MARGIN <= Duration::from_secs(5));
    }
}
