//! Throughput of the output filter with 1,000 live secrets in all their encodings.
//!
//! `cargo bench --bench filter` prints bytes per second of *processor* time (a busy machine must
//! not change the figure), built as releases are. The goal is 400 MB/s on one core over log-like
//! text. `aho_corasick` is the design that lost, over the same number of patterns.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a measurement stands outside the seams it measures"
)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate::random::{Random as _, SeededRandom, hex_of};
use tidegate::secret::Masker;

const SECRETS: usize = 1_000;
const TEXT_BYTES: usize = 8 << 20;

/// Secrets of the shapes people have: tokens, passwords with punctuation, connection URLs.
fn secrets(random: &SeededRandom) -> Vec<String> {
    (0..SECRETS)
        .map(|index| match index % 4 {
            0 => format!("ghp_{}", hex_of::<18>(random)),
            1 => format!("p@{}/&\"{}", hex_of::<4>(random), hex_of::<4>(random)),
            2 => format!(
                "postgres://app:{}@db-{index}:5432/app",
                hex_of::<12>(random)
            ),
            _ => hex_of::<20>(random),
        })
        .collect()
}

/// Text like a long provider log: words, numbers, digests, JSON, now and then a secret.
fn log(random: &SeededRandom, secrets: &[String], one_secret_in_lines: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(TEXT_BYTES + 256);
    let mut line = 0_usize;
    while text.len() < TEXT_BYTES {
        line += 1;
        let mut noise = [0_u8; 2];
        random.fill(&mut noise);
        let tail = match line % one_secret_in_lines {
            0 => secrets[line % secrets.len()].clone(),
            _ => format!("digest sha256:{}", hex_of::<16>(random)),
        };
        text.extend_from_slice(
            format!(
                "2026-01-02T03:04:05.{:03}Z INFO provider{{name=\"cloud\"}}: resource web-{} is \
                 {{\"status\": \"ready\", \"url\": \"https://app.example/{}\"}} {tail}\n",
                noise[0], line, noise[1]
            )
            .as_bytes(),
        );
    }
    text
}

/// Processor time of this thread so far.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let first = text.split(' ').next().unwrap_or_default();
    Duration::from_nanos(first.parse().expect("nanoseconds"))
}

/// Runs `work` so many times and says what it cost.
fn cost(times: u64, mut work: impl FnMut()) -> Duration {
    let before = processor_time();
    for _ in 0..times {
        work();
    }
    processor_time() - before
}

fn filter(criterion: &mut Criterion) {
    let random = SeededRandom::new(7);
    let secrets = secrets(&random);
    let masker = Masker::default();
    for (index, secret) in secrets.iter().enumerate() {
        masker.admit(&format!("secret {index}"), secret.clone());
    }
    eprintln!(
        "{SECRETS} secrets, {} patterns ({:.1} each)",
        masker.pattern_count(),
        masker.pattern_count() as f64 / SECRETS as f64
    );
    let mut group = criterion.benchmark_group("filter");
    group.sample_size(20);
    for (name, every) in [
        ("clean_log", usize::MAX),
        ("a_secret_in_every_100_lines", 100),
    ] {
        let text = log(&random, &secrets, every);
        group.throughput(Throughput::Bytes(text.len() as u64));
        for (chunks, bytes) in [("64KiB_chunks", 64 << 10), ("lines", 0)] {
            group.bench_function(format!("{name}/{chunks}"), |bencher| {
                let mut out = Vec::with_capacity(text.len() * 2);
                bencher.iter_custom(|times| {
                    cost(times, || {
                        out.clear();
                        let mut filter = masker.filter();
                        if bytes == 0 {
                            for line in text.split_inclusive(|byte| *byte == b'\n') {
                                filter.push(line, &mut out);
                                filter.end_message(&mut out);
                            }
                        } else {
                            for chunk in text.chunks(bytes) {
                                filter.push(chunk, &mut out);
                            }
                        }
                        filter.finish(&mut out);
                        black_box(out.len());
                    })
                });
            });
        }
    }
    // The design that lost, with as many patterns of the same kind (random hex is the kindest
    // case for it: few states are ever visited).
    let patterns: Vec<String> = (0..masker.pattern_count())
        .map(|_| hex_of::<18>(&random))
        .collect();
    let text = log(&random, &secrets, usize::MAX);
    group.throughput(Throughput::Bytes(text.len() as u64));
    let automaton = aho_corasick::AhoCorasick::builder()
        .match_kind(aho_corasick::MatchKind::LeftmostLongest)
        .build(&patterns)
        .expect("the patterns are small");
    eprintln!("aho_corasick: {} MiB", automaton.memory_usage() >> 20);
    group.bench_function("aho_corasick", |bencher| {
        bencher.iter_custom(|times| {
            cost(times, || {
                black_box(automaton.find_iter(&text).count());
            })
        });
    });
    group.finish();
    let mut group = criterion.benchmark_group("masker");
    // Far shorter than the grain of processor time, so by the wall clock.
    group.bench_function("admit_one_more_secret", |bencher| {
        bencher.iter(|| black_box(masker.admit("more", hex_of::<20>(&random))));
    });
    group.finish();
}

criterion_group!(benches, filter);
criterion_main!(benches);
