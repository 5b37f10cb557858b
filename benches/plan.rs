//! The pure planner: decisions in, an ordered plan and its steps out. 10,000 and 100,000 resources,
//! nothing to do and everything to do, in layers and in one chain.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]

use std::collections::BTreeSet;
use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use tidegate::plan::{Action, Decision, Plan, Steps, classify};
use tidegate::resource::{ActionKind, Address, Diff, Kind, ProviderId};

/// `size` decisions; each waits for the ones `stands_on` answers.
fn decisions(size: u32, decision: &Decision, stands_on: impl Fn(u32) -> Vec<u32>) -> Vec<Action> {
    (0..size)
        .map(|n| {
            let (action, changes, reason) = classify(decision.clone());
            let depends_on: BTreeSet<Address> = stands_on(n).into_iter().map(name).collect();
            Action {
                address: name(n),
                kind: Kind::new("infra.storage"),
                provider: ProviderId::new("cloud"),
                action,
                changes,
                reason,
                recorded_depends_on: if action == ActionKind::Create {
                    BTreeSet::new()
                } else {
                    depends_on.clone()
                },
                depends_on,
                protected: false,
                create_before_destroy: false,
            }
        })
        .collect()
}

fn name(n: u32) -> Address {
    // Scattered, as names in a config are.
    Address::new(format!("resource-{:08x}", n.wrapping_mul(2_654_435_761)))
}

fn planner(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(10);
    let nothing = Decision::Compared(Diff::default());
    for size in [1_000_u32, 10_000, 100_000] {
        let layers = |n: u32| if n < 10 { vec![] } else { vec![n - 10, n / 2] };
        let chain = |n: u32| n.checked_sub(1).into_iter().collect();
        let cases = [
            ("nothing to do", decisions(size, &nothing, layers)),
            (
                "all to create",
                decisions(size, &Decision::Unrecorded, layers),
            ),
            ("one chain", decisions(size, &Decision::Unrecorded, chain)),
        ];
        for (label, actions) in cases {
            group.bench_function(BenchmarkId::new(label, size), |bencher| {
                bencher.iter_batched(
                    || actions.clone(),
                    |actions| {
                        let plan = Plan::assemble("dev", actions).unwrap();
                        let steps = Steps::of(&plan);
                        black_box((plan.summary(), steps.remaining()))
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, planner);
criterion_main!(benches);
