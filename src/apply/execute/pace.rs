//! How hard one provider may be pressed: how many actions at once, how soon after "slow down", and
//! how many repeats in all.

use std::cell::Cell;
use std::time::Duration;

/// Repeats a provider may cost before it counts as broken; good answers earn some back.
const REPEATS: u32 = 50;
/// Good answers that earn one repeat.
const EARN_EVERY: u32 = 4;

/// The pace of one provider.
#[derive(Debug)]
pub(super) struct Pace {
    /// Never more than this at once.
    ceiling: u32,
    /// At once right now: halved by "slow down", grows back by one for each round of good answers.
    limit: Cell<u32>,
    /// Good answers since the limit last grew.
    good: Cell<u32>,
    /// No call before this (monotonic).
    not_before: Cell<Duration>,
    repeats: Cell<u32>,
    earned: Cell<u32>,
}

impl Pace {
    pub(super) fn new(ceiling: usize) -> Self {
        let ceiling = u32::try_from(ceiling).unwrap_or(u32::MAX).max(1);
        Self {
            ceiling,
            limit: Cell::new(ceiling),
            good: Cell::new(0),
            not_before: Cell::new(Duration::ZERO),
            repeats: Cell::new(REPEATS),
            earned: Cell::new(0),
        }
    }

    /// May one more action start beside this many?
    pub(super) fn has_room(&self, running: usize) -> bool {
        u32::try_from(running).is_ok_and(|running| running < self.limit.get())
    }

    /// How long to hold back the next call.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        self.not_before.get().saturating_sub(now)
    }

    /// It asked to slow down for this long.
    pub(super) fn slow_down(&self, now: Duration, by: Duration) {
        // Several answers to one rush are one complaint.
        if self.not_before.get() <= now {
            self.limit.set((self.limit.get() / 2).max(1));
            self.good.set(0);
        }
        self.not_before
            .set(self.not_before.get().max(now.saturating_add(by)));
    }

    /// It answered well.
    pub(super) fn well(&self) {
        let good = self.good.get() + 1;
        if good >= self.limit.get() && self.limit.get() < self.ceiling {
            self.limit.set(self.limit.get() + 1);
            self.good.set(0);
        } else {
            self.good.set(good.min(self.ceiling));
        }
        self.earned.set(self.earned.get() + 1);
        if self.earned.get() >= EARN_EVERY {
            self.earned.set(0);
            self.repeats.set((self.repeats.get() + 1).min(REPEATS));
        }
    }

    /// Takes one repeat out of the budget; false when there is none left.
    pub(super) fn take_repeat(&self) -> bool {
        let left = self.repeats.get();
        self.repeats.set(left.saturating_sub(1));
        left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_down_halves_once_and_good_answers_bring_it_back() {
        let pace = Pace::new(8);
        let second = Duration::from_secs(1);
        assert!(pace.has_room(7) && !pace.has_room(8));
        for _ in 0..8 {
            pace.slow_down(second, second);
        }
        assert!(pace.has_room(3) && !pace.has_room(4), "one complaint");
        assert_eq!(pace.wait(second), second);
        assert_eq!(pace.wait(second * 3), Duration::ZERO);
        pace.slow_down(second * 3, second);
        assert!(pace.has_room(1) && !pace.has_room(2));
        for _ in 0..200 {
            pace.well();
        }
        assert!(pace.has_room(7) && !pace.has_room(8), "never above its own");
    }

    #[test]
    fn repeats_are_a_budget() {
        let pace = Pace::new(1);
        assert_eq!((0..1_000).filter(|_| pace.take_repeat()).count(), 50);
        for _ in 0..EARN_EVERY {
            pace.well();
        }
        assert!(pace.take_repeat() && !pace.take_repeat());
    }
}
