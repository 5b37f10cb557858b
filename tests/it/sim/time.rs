//! Time that passes only when everybody waits, and runs that are driven, put to sleep and killed
//! one step at a time, in one thread.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::cancel::Canceller;
use tidegate::clock::Clock;
use time::OffsetDateTime;

use super::lock;

#[derive(Debug, Default)]
struct Inner {
    now: Duration,
    number: u64,
    /// Who waits, by the end of the wait.
    sleepers: BTreeMap<(Duration, u64), Waker>,
    /// Seconds by which the wall clock is wrong.
    off_by: i64,
}

/// The clock all runs of one life share.
#[derive(Debug, Default)]
pub(super) struct VirtualClock(Mutex<Inner>);

impl VirtualClock {
    fn next(&self) -> Option<Duration> {
        let inner = lock(&self.0);
        inner.sleepers.keys().next().map(|(at, _)| *at)
    }

    /// Lets time pass up to `to`, and wakes whoever waited for that.
    fn advance(&self, to: Duration) {
        let woken = {
            let mut inner = lock(&self.0);
            inner.now = inner.now.max(to);
            let now = inner.now;
            let later = inner.sleepers.split_off(&(now, u64::MAX));
            std::mem::replace(&mut inner.sleepers, later)
        };
        for waker in woken.into_values() {
            waker.wake();
        }
    }

    /// Somebody sets the wall clock.
    pub(super) fn set_wrong(&self, seconds: i64) {
        lock(&self.0).off_by = seconds;
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> OffsetDateTime {
        let inner = lock(&self.0);
        OffsetDateTime::UNIX_EPOCH
            + Duration::from_secs(1_700_000_000)
            + inner.now
            + time::Duration::seconds(inner.off_by)
    }

    fn monotonic(&self) -> Duration {
        lock(&self.0).now
    }

    async fn sleep(&self, duration: Duration) {
        let (end, number) = {
            let mut inner = lock(&self.0);
            inner.number += 1;
            (inner.now.saturating_add(duration), inner.number)
        };
        let mut alarm = Alarm {
            clock: self,
            key: (end, number),
            set: false,
        };
        std::future::poll_fn(|context| {
            let mut inner = lock(&self.0);
            if inner.now >= end {
                alarm.set = false;
                return Poll::Ready(());
            }
            inner
                .sleepers
                .insert((end, number), context.waker().clone());
            alarm.set = true;
            Poll::Pending
        })
        .await;
    }
}

/// A sleep that is given up wakes nobody.
struct Alarm<'a> {
    clock: &'a VirtualClock,
    key: (Duration, u64),
    set: bool,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if self.set {
            lock(&self.clock.0).sleepers.remove(&self.key);
        }
    }
}

/// One run of the program, as the machine it runs on sees it.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) run_id: String,
    /// Killed: nothing of it runs any more.
    pub(super) dead: AtomicBool,
    /// Stopped and continued later (a laptop's lid, a runner that is starved).
    pub(super) asleep_until: Mutex<Option<Duration>>,
    pub(super) canceller: Canceller,
    pub(super) cancelled: AtomicBool,
}

impl Actor {
    pub(super) fn new(run_id: String, canceller: Canceller) -> Arc<Self> {
        Arc::new(Self {
            run_id,
            dead: AtomicBool::new(false),
            asleep_until: Mutex::new(None),
            canceller,
            cancelled: AtomicBool::new(false),
        })
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.canceller.cancel();
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub(super) struct Task<'a, T> {
    pub(super) actor: Arc<Actor>,
    pub(super) future: Pin<Box<dyn Future<Output = T> + 'a>>,
}

/// How a run ended.
pub(super) enum End<T> {
    /// By itself.
    Answer(T),
    /// Killed.
    Killed,
}

/// Longest time, on the virtual clock, that all runs together may take.
const LONGEST: Duration = Duration::from_secs(14 * 24 * 3600);

/// Drives runs to their ends. `passed` is told whenever time has passed. A run that waits for
/// something that never comes is asked to stop, and killed when that does not help.
///
/// # Errors
/// When they never end.
pub(super) fn drive<T>(
    clock: &VirtualClock,
    tasks: Vec<Task<'_, T>>,
    mut passed: impl FnMut(Duration),
) -> Result<(Vec<End<T>>, u32), String> {
    let started = clock.monotonic();
    let mut ends: Vec<Option<End<T>>> = tasks.iter().map(|_| None).collect();
    let flags: Vec<Arc<Flag>> = tasks
        .iter()
        .map(|_| Arc::new(Flag(AtomicBool::new(true))))
        .collect();
    let mut tasks: Vec<Option<Task<'_, T>>> = tasks.into_iter().map(Some).collect();
    let mut nudges = 0;
    let mut patience = Duration::from_secs(24 * 3600);
    loop {
        let mut progress = false;
        for (place, slot) in tasks.iter_mut().enumerate() {
            let Some(task) = slot else { continue };
            let now = clock.monotonic();
            let mut asleep = lock(&task.actor.asleep_until);
            if asleep.is_some_and(|until| until > now) {
                continue;
            }
            if asleep.take().is_some() {
                flags[place].0.store(true, Ordering::SeqCst);
            }
            drop(asleep);
            if !flags[place].0.swap(false, Ordering::SeqCst) {
                continue;
            }
            progress = true;
            let waker = Waker::from(Arc::clone(&flags[place]));
            let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
            let end = match polled {
                _ if task.actor.is_dead() => Some(End::Killed),
                Poll::Ready(answer) => Some(End::Answer(answer)),
                Poll::Pending => None,
            };
            if end.is_some() {
                ends[place] = end;
                *slot = None;
            }
        }
        if tasks.iter().all(Option::is_none) {
            return Ok((ends.into_iter().flatten().collect(), nudges));
        }
        if progress {
            continue;
        }
        let wake_up = tasks
            .iter()
            .flatten()
            .filter_map(|task| *lock(&task.actor.asleep_until))
            .min();
        let next = [clock.next(), wake_up].into_iter().flatten().min();
        let lasted = clock.monotonic().saturating_sub(started);
        match next {
            // Whoever waits for an answer renews its lock for ever; a person would not wait.
            Some(next) if lasted < patience => {
                clock.advance(next);
                passed(next);
            }
            _ => {
                nudges += 1;
                patience = lasted + Duration::from_secs(3600);
                for task in tasks.iter().flatten() {
                    if nudges == 1 {
                        task.actor.cancel();
                    } else {
                        task.actor.dead.store(true, Ordering::SeqCst);
                    }
                }
                for flag in &flags {
                    flag.0.store(true, Ordering::SeqCst);
                }
                let later = clock.monotonic() + Duration::from_secs(60);
                clock.advance(later);
                passed(later);
            }
        }
        if lasted > LONGEST || nudges > 100 {
            return Err("I12: the runs never end".to_owned());
        }
    }
}
