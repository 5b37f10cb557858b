//! The engine in a world made of faults: production planner, executor, recovery and state store in
//! one thread on a virtual clock, against a provider and a line to the store that do everything
//! wrong that can go wrong. One seed is one life: configs, schedules, faults and crash points.
//! The invariants (`docs/simulation.md`) are checked after every single effect.
//!
//! `TIDEGATE_SIM_SECONDS=60 cargo test --test it sim::` runs longer, `TIDEGATE_SIM_SEEDS=1000000`
//! runs that many, and `TIDEGATE_SEED=17` lives one life again and tells it step by step.

#![expect(
    clippy::print_stdout,
    reason = "what was seen is worth showing with --nocapture"
)]

mod cloud;
mod defects;
mod dice;
mod life;
mod storage;
mod time;
mod truth;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use defects::Defect;
use life::live;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Lives of an ordinary test run, and how many it takes until everything was seen.
const SEEDS: u64 = 400;
const SEEDS_FOR_ALL: u64 = 5_000;

/// Every kind of fault, and every branch of recovery: a world in which one of them never happens
/// proves nothing about it.
const MUST_HAPPEN: &[&str] = &[
    "fate: a resource vanishes",
    "fate: a second run at the same time",
    "fate: asked to stop",
    "fate: paused for longer than its lease",
    "fate: somebody loses patience",
    "fate: somebody loses patience and kills it",
    "fate: the process is killed",
    "fate: the provider is out of order",
    "fate: the wall clock jumps",
    "fault: answer lost, done",
    "fault: flaky",
    "fault: half done",
    "fault: half done, no id",
    "fault: lies about success",
    "fault: no answer",
    "fault: no id",
    "fault: nobody knows, not done",
    "fault: odd id",
    "fault: out of order",
    "fault: read fails",
    "fault: refused",
    "fault: slow",
    "fault: throttled",
    "outcome: compensated",
    "outcome: compensation-failed",
    "outcome: delete-failed",
    "outcome: error",
    "outcome: skipped",
    "outcome: success",
    "recovery: a lapsed lock is taken over",
    "recovery: it is still there",
    "recovery: it was deleted",
    "recovery: it was deleted and forgotten",
    "recovery: it was made and recorded",
    "recovery: it was made but not recorded; it is recorded now and will be completed",
    "recovery: it was not made",
    "recovery: its change may be incomplete; it will be applied again",
    "recovery: its new one was made but not recorded; it is recorded now and will be completed",
    "recovery: its old one goes when nothing stands on it any more",
    "recovery: no new one is there; the old one stays",
    "recovery: nothing is recorded about it",
    "run: lost its lock",
    "run: stopped",
    "run: the state could not be written",
    "store: a lock was not given back",
    "store: a record is unreadable",
    "store: is slow",
    "store: never answers",
    "store: refuses",
    "store: writes, and says that it could not",
];

fn fail(seed: u64, broken: &str) -> ! {
    let told = live(seed, None, true);
    let from = told.log.len().saturating_sub(120);
    panic!(
        "seed {seed}: {broken}\n{}\n\nreplay it: TIDEGATE_SEED={seed} cargo test --test it sim:: -- --nocapture",
        told.log[from..].join("\n")
    );
}

#[test]
fn whatever_goes_wrong_nothing_is_lost_and_nothing_is_doubled() {
    live_many();
}

/// As many lives as the variables say; `benches/simulation.rs` calls it too.
pub(crate) fn live_many() {
    if let Some(seed) = number("TIDEGATE_SEED") {
        let told = live(seed, None, true);
        println!("{}", told.log.join("\n"));
        assert_eq!(told.broken, None, "seed {seed}");
        return;
    }
    let started = Instant::now();
    let seconds = number("TIDEGATE_SIM_SECONDS").map(Duration::from_secs);
    let seeds = number("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("TIDEGATE_SIM_FIRST").unwrap_or(1);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut lived = 0;
    while seconds.map_or(lived < seeds, |most| started.elapsed() < most) {
        let seed = first + lived;
        let told = live(seed, None, false);
        if let Some(broken) = told.broken {
            fail(seed, &broken);
        }
        for (what, count) in told.counts {
            *counts.entry(what).or_default() += count;
        }
        lived += 1;
    }
    let took = started.elapsed();
    println!(
        "{lived} lives in {took:.1?}, {:.0} a second",
        f64::from(u32::try_from(lived).unwrap_or(u32::MAX)) / took.as_secs_f64()
    );
    for (what, count) in &counts {
        println!("{count:>9}  {what}");
    }
    let unseen: Vec<&&str> = MUST_HAPPEN
        .iter()
        .filter(|what| !counts.contains_key(**what))
        .collect();
    assert!(
        lived < SEEDS_FOR_ALL || unseen.is_empty(),
        "in {lived} lives these never happened: {unseen:?}"
    );
}

#[test]
fn a_life_is_the_same_whenever_it_is_lived() {
    for seed in 1..=50 {
        let (one, other) = (live(seed, None, false), live(seed, None, false));
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_eq!(one.counts, other.counts, "seed {seed}");
    }
}

#[test]
fn every_planted_defect_is_caught() {
    let mut missed = Vec::new();
    for defect in Defect::ALL {
        let caught = (1..=SEEDS_FOR_ALL).find_map(|seed| {
            let told = live(seed, Some(defect), false);
            told.broken.map(|broken| (seed, broken))
        });
        match caught {
            Some((seed, broken)) => println!("{defect:?}: seed {seed}: {broken}"),
            None => missed.push(defect),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
    assert!(Defect::ALL.len() >= 15);
}
