//! The rule that turns looks into wait, pass or give up. Pure: no clock, no network, no chance;
//! the runner brings those as arguments.
//!
//! Waiting starts quick and slows down: 100 ms, doubling up to the configured interval, so that a
//! service that comes up is seen fast. The quick looks are extra. What `max_retries` and
//! `retry_interval` buy is *time*, `max_retries × retry_interval` of waiting after failed looks,
//! exactly what they buy without quick looks; otherwise three retries ten seconds apart would be
//! used up in the first second.

use std::time::Duration;

/// The first wait after a failed look.
pub const QUICK_START: Duration = Duration::from_millis(100);

/// The shortest interval; anything below counts as this.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// How long one look may take at first.
pub const FIRST_LOOK_LIMIT: Duration = Duration::from_secs(10);

/// How long one look may take at most, reached by doubling after each look that ran out of time:
/// a hanging start is noticed early, a service that is merely slow is seen in the end.
pub const LONGEST_LOOK_LIMIT: Duration = Duration::from_secs(60);

/// What must hold for one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Looks in a row that must pass; 0 counts as 1.
    pub consecutive: u32,
    /// Retries, see the module's text for what they buy.
    pub max_retries: u32,
    /// The longest wait between two looks.
    pub retry_interval: Duration,
}

/// How one look went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// As expected.
    Passed,
    /// Not as expected.
    Failed,
    /// Not as expected, because it ran out of its time.
    TimedOut,
    /// Not as expected, and it never will be.
    Hopeless,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The target is good.
    Pass,
    /// Look again after this long.
    Wait(Duration),
    /// The retries are used up.
    GiveUp,
}

/// The fold of one target's looks.
#[derive(Clone, Debug)]
pub struct Fold {
    rules: Rules,
    passes_in_a_row: u32,
    next_wait: Duration,
    /// Waiting that the retries still pay for.
    allowance: Duration,
    look_limit: Duration,
}

impl Fold {
    /// Nothing seen yet.
    pub fn new(rules: Rules) -> Self {
        let rules = Rules {
            consecutive: rules.consecutive.max(1),
            retry_interval: rules.retry_interval.max(SHORTEST_INTERVAL),
            ..rules
        };
        Self {
            rules,
            passes_in_a_row: 0,
            next_wait: QUICK_START.min(rules.retry_interval),
            allowance: rules.retry_interval.saturating_mul(rules.max_retries),
            look_limit: FIRST_LOOK_LIMIT,
        }
    }

    /// How long the next look may take.
    pub fn look_limit(&self) -> Duration {
        self.look_limit
    }

    /// Passes in a row so far, and how many are needed.
    pub fn passes(&self) -> (u32, u32) {
        (self.passes_in_a_row, self.rules.consecutive)
    }

    /// A target that had passed must be confirmed again by one look.
    pub fn reopen(&mut self) {
        self.passes_in_a_row = self.rules.consecutive - 1;
    }

    /// Takes in one look. `jitter` shortens the wait by up to a fifth (255), so that targets which
    /// failed together are not looked at together for ever.
    pub fn observe(&mut self, look: Look, jitter: u8) -> Decision {
        match look {
            Look::Passed => {
                self.passes_in_a_row += 1;
                return if self.passes_in_a_row >= self.rules.consecutive {
                    Decision::Pass
                } else {
                    // Confirmations are spread over whole intervals: three passes within half a
                    // second say little more than one.
                    Decision::Wait(self.rules.retry_interval)
                };
            }
            Look::Hopeless => return Decision::GiveUp,
            Look::TimedOut => self.look_limit = (self.look_limit * 2).min(LONGEST_LOOK_LIMIT),
            Look::Failed => {}
        }
        self.passes_in_a_row = 0;
        if self.allowance.is_zero() {
            return Decision::GiveUp;
        }
        let full = self.next_wait;
        let shortened = full - full * u32::from(jitter) / (5 * 255);
        // A rest too short to be worth a look of its own is waited out now.
        let wait = if self.allowance.saturating_sub(shortened) < full / 10 {
            self.allowance
        } else {
            shortened
        };
        self.allowance -= wait;
        self.next_wait = (full * 2).min(self.rules.retry_interval);
        Decision::Wait(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(consecutive: u32, max_retries: u32, retry_interval: Duration) -> Rules {
        Rules {
            consecutive,
            max_retries,
            retry_interval,
        }
    }

    /// Feeds looks (`+` passed, `-` failed, `t` timed out, `!` hopeless) until the gate decides.
    /// Answers the deciding look's number from 1 and the decision; `None` when it still waits.
    fn decide(rules: Rules, looks: &str) -> Option<(usize, Decision)> {
        let mut fold = Fold::new(rules);
        for (number, look) in looks.chars().enumerate() {
            let look = match look {
                '+' => Look::Passed,
                '-' => Look::Failed,
                't' => Look::TimedOut,
                _ => Look::Hopeless,
            };
            match fold.observe(look, 0) {
                Decision::Wait(_) => {}
                decision => return Some((number + 1, decision)),
            }
        }
        None
    }

    #[test]
    fn looks_fold_into_decisions() {
        use Decision::{GiveUp, Pass};
        for (consecutive, max_retries, looks, expected) in [
            (1, 30, "+", Some((1, Pass))),
            (0, 30, "+", Some((1, Pass))),
            (1, 30, "-+", Some((2, Pass))),
            (1, 30, "t-+", Some((3, Pass))),
            (2, 30, "+", None),
            (2, 30, "++", Some((2, Pass))),
            (2, 30, "+-+", None),
            (2, 30, "+-++", Some((4, Pass))),
            (3, 30, "+-+-+-++-", None),
            (3, 30, "++-+++", Some((6, Pass))),
            (3, 0, "+++", Some((3, Pass))),
            (1, 0, "-", Some((1, GiveUp))),
            (1, 0, "t", Some((1, GiveUp))),
            (3, 0, "++-", Some((3, GiveUp))),
            (1, 30, "!", Some((1, GiveUp))),
            (2, 30, "+!", Some((2, GiveUp))),
        ] {
            assert_eq!(
                decide(rules(consecutive, max_retries, SECOND), looks),
                expected,
                "{consecutive} in a row, {max_retries} retries, {looks}"
            );
        }
    }

    /// Waits after failed looks only, to the end.
    fn waits(rules: Rules, jitter: u8) -> Vec<Duration> {
        let mut fold = Fold::new(rules);
        let mut waits = Vec::new();
        while let Decision::Wait(wait) = fold.observe(Look::Failed, jitter) {
            waits.push(wait);
            assert!(waits.len() < 10_000, "the gate never gives up");
        }
        waits
    }

    #[test]
    fn waiting_starts_quick_and_doubles_up_to_the_interval() {
        let waits = waits(rules(1, 30, SECOND * 10), 0);
        let first: Vec<u128> = waits.iter().take(9).map(Duration::as_millis).collect();
        assert_eq!(
            first,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        assert!(waits.iter().all(|wait| *wait <= SECOND * 11));
    }

    #[test]
    fn retries_buy_the_time_they_name_whatever_the_jitter() {
        for max_retries in [1, 2, 3, 7, 30, 500] {
            for milliseconds in [10, 15, 99, 100, 101, 350, 1_000, 10_000] {
                for jitter in [0, 1, 127, 255] {
                    let interval = Duration::from_millis(milliseconds);
                    let waits = waits(rules(1, max_retries, interval), jitter);
                    let total: Duration = waits.iter().sum();
                    assert_eq!(
                        total,
                        interval * max_retries,
                        "{max_retries} × {interval:?}"
                    );
                    assert!(waits.len() >= max_retries as usize);
                    assert!(waits.iter().all(|wait| *wait <= interval * 11 / 10));
                }
            }
        }
    }

    #[test]
    fn an_interval_of_nothing_still_looks_again() {
        assert_eq!(waits(rules(1, 3, Duration::ZERO), 0).len(), 3);
    }

    #[test]
    fn a_look_that_ran_out_of_time_gets_more_next_time() {
        let mut fold = Fold::new(rules(1, 30, SECOND));
        let mut limits = Vec::new();
        for look in [
            Look::TimedOut,
            Look::Failed,
            Look::TimedOut,
            Look::TimedOut,
            Look::TimedOut,
        ] {
            limits.push(fold.look_limit().as_secs());
            fold.observe(look, 0);
        }
        limits.push(fold.look_limit().as_secs());
        assert_eq!(limits, [10, 20, 20, 40, 60, 60]);
    }

    #[test]
    fn a_reopened_target_needs_one_more_pass() {
        let mut fold = Fold::new(rules(3, 30, SECOND));
        for _ in 0..3 {
            fold.observe(Look::Passed, 0);
        }
        fold.reopen();
        assert_eq!(fold.observe(Look::Passed, 0), Decision::Pass);
        fold.reopen();
        assert_ne!(fold.observe(Look::Failed, 0), Decision::Pass);
        assert_ne!(
            fold.observe(Look::Passed, 0),
            Decision::Pass,
            "all three again"
        );
    }

    proptest::proptest! {
        /// The model: a target passes at the first look that ends `consecutive` passes in a row,
        /// unless the retries ran out before. No sequence of flapping passes any other way.
        #[test]
        fn flapping_never_passes_without_enough_passes_in_a_row(
            looks in proptest::collection::vec(proptest::bool::ANY, 0..200),
            consecutive in 1_u32..6,
        ) {
            let text: String = looks.iter().map(|passed| if *passed { '+' } else { '-' }).collect();
            let model = looks
                .windows(consecutive as usize)
                .position(|window| window.iter().all(|passed| *passed))
                .map(|start| (start + consecutive as usize, Decision::Pass));
            // Enough retries for every look here.
            proptest::prop_assert_eq!(decide(rules(consecutive, 10_000, SECOND), &text), model);
        }
    }
}
