//! How long a config takes from bytes to resolved values: `cargo bench --bench config`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tidegate::config::{self, Files};
use tidegate::secret::Masker;
use tidegate::variables::Variables;

/// A config of `count` resources, each waiting for the one before, about 300 bytes a piece.
fn generated(count: usize) -> Vec<u8> {
    let mut text = String::from(
        "modules:\n  - name: cloud\n    type: iac.provider\n    config: {provider: local, root: ./.local}\n",
    );
    for number in 0..count {
        let upstream = match number.checked_sub(1) {
            Some(before) => format!("\"${{m{before}.live_url}}/api\""),
            None => "none".to_owned(),
        };
        let written = write!(
            text,
            "  - name: m{number}\n    type: infra.container_service\n    config:\n      provider: cloud\n      image: registry.example.net/team/service-{number}:1.4.2\n      size: s\n      http_port: {}\n      env_vars:\n        LOG_LEVEL: info\n        UPSTREAM: {upstream}\n      env_vars_secret: {{SESSION: \"${{SESSION_KEY}}\"}}\n",
            8000 + number % 1000,
        );
        assert!(written.is_ok(), "writing to a string");
    }
    text.into_bytes()
}

fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("config::load");
    let variables: Variables = [("SESSION_KEY".to_owned(), "not-a-real-one".to_owned())]
        .into_iter()
        .collect();
    for count in [100, 10_000] {
        let text = generated(count);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.sample_size(if count > 1_000 { 20 } else { 100 });
        group.bench_function(format!("{count} modules"), |bencher| {
            let read = |_: &Path| Ok(text.clone());
            let canonical = |path: &Path| Ok(PathBuf::from(path));
            bencher.iter_batched(
                Masker::default,
                |masker| {
                    let files = Files {
                        read: &read,
                        canonical: &canonical,
                    };
                    let loaded =
                        config::load(Path::new("infra.yaml"), None, files, &variables, &masker);
                    assert!(loaded.is_ok_and(|loaded| loaded.config.resources.len() == count));
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, load);
criterion_main!(benches);
