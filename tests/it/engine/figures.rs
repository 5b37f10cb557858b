//! Figures of the engine that no clock is needed for: how close a schedule comes to the best, and
//! how many bytes an action writes. Those that need one are in `benches/engine.rs`.

#![expect(
    clippy::print_stdout,
    reason = "figures are worth showing with --nocapture"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate::clock::Clock as _;
use tidegate::disk::{Disk, DiskResult, EntryKind, FileLock};
use tidegate::random::{Random as _, SeededRandom};

use super::world::{Act, World, all_well};
use crate::state::disks::MemoryDisk;

fn as_float(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap())
}

/// A graph with a time for each node.
struct Graph {
    below: Vec<Vec<usize>>,
    takes: Vec<u64>,
}

impl Graph {
    fn random(seed: u64) -> Self {
        let random = SeededRandom::new(seed);
        let draw = |most: usize| {
            let mut bytes = [0_u8; 4];
            random.fill(&mut bytes);
            usize::try_from(u32::from_le_bytes(bytes)).unwrap() % most
        };
        let size = 10 + draw(50);
        let most_below = 1 + draw(4);
        let below = (0..size)
            .map(|node| {
                let mut below: Vec<usize> = (0..draw(most_below + 1))
                    .filter(|_| node > 0)
                    .map(|_| draw(node))
                    .collect();
                below.sort_unstable();
                below.dedup();
                below
            })
            .collect();
        let takes = (0..size).map(|_| 10 + draw(990) as u64).collect();
        Self { below, takes }
    }

    /// What is left to do from the start of each node to the end of the longest chain through it.
    fn tails(&self) -> Vec<u64> {
        let mut tails = self.takes.clone();
        for node in (0..self.below.len()).rev() {
            for &below in &self.below[node] {
                tails[below] = tails[below].max(self.takes[below] + tails[node]);
            }
        }
        tails
    }

    /// Milliseconds that no list schedule exceeds.
    fn bound(&self, at_once: usize) -> f64 {
        let work: u64 = self.takes.iter().sum();
        let longest = self.tails().into_iter().max().unwrap();
        let at_once = f64::from(u32::try_from(at_once).unwrap());
        let (work, longest) = (as_float(work), as_float(longest));
        work / at_once + (1.0 - 1.0 / at_once) * longest
    }

    /// How long a list scheduler takes that knows every time and prefers the longest tail.
    fn list_schedule(&self, at_once: usize) -> u64 {
        let tails = self.tails();
        let size = self.below.len();
        let mut ends: BTreeMap<usize, u64> = BTreeMap::new();
        let mut done = vec![false; size];
        let mut now = 0;
        while done.iter().any(|done| !done) {
            let mut ready: Vec<usize> = (0..size)
                .filter(|node| !done[*node] && !ends.contains_key(node))
                .filter(|node| self.below[*node].iter().all(|below| done[*below]))
                .collect();
            ready.sort_by_key(|node| std::cmp::Reverse(tails[*node]));
            for node in ready.into_iter().take(at_once - ends.len()) {
                ends.insert(node, now + self.takes[node]);
            }
            now = ends.values().copied().min().unwrap();
            ends.retain(|node, end| {
                done[*node] |= *end == now;
                *end > now
            });
        }
        now
    }
}

/// Nothing that may run waits while there is room: that alone keeps a schedule within Graham's bound
/// for list scheduling, the work shared out plus what of the longest chain cannot be shared. Beside
/// it, the distance from a scheduler that is told how long everything takes, which ours cannot be.
#[test]
fn random_graphs_come_close_to_the_list_scheduling_bound() {
    let mut ratios = Vec::new();
    for seed in 1..=50 {
        let graph = Graph::random(seed);
        let at_once = usize::try_from(1 + seed % 10).unwrap();
        let name = |node: usize| format!("r{node:03}");
        let modules: Vec<(String, String)> = graph
            .below
            .iter()
            .enumerate()
            .map(|(node, below)| {
                let below: Vec<String> = below.iter().map(|below| name(*below)).collect();
                (name(node), format!("depends_on: [{}]", below.join(", ")))
            })
            .collect();
        let modules: Vec<(&str, &str)> = modules
            .iter()
            .map(|(name, config)| (name.as_str(), config.as_str()))
            .collect();
        let mut world = World::on(Arc::new(MemoryDisk::default()), &modules);
        world.parallelism = at_once;
        for (node, takes) in graph.takes.iter().enumerate() {
            let takes = Duration::from_millis(*takes);
            world.cloud.act("create", &name(node), Act::Take(takes));
        }
        let started = world.clock.monotonic();
        assert!(all_well(&world.apply()));
        let took = world.clock.monotonic() - started;
        let bound = graph.bound(at_once);
        assert!(
            took.as_secs_f64() * 1_000.0 <= bound * 1.10,
            "seed {seed}: {took:?}, the bound is {bound} ms"
        );
        let told = Duration::from_millis(graph.list_schedule(at_once));
        ratios.push((took.as_secs_f64() / told.as_secs_f64(), seed));
    }
    ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
    let all: f64 = ratios.iter().map(|(ratio, _)| ratio).sum();
    let mean = all / 50.0;
    let worst = ratios.last().unwrap();
    println!("of a scheduler that knows all times: mean {mean:.3}, worst {worst:?}");
    assert!(mean <= 1.05 && worst.0 <= 1.20, "{ratios:?}");
}

/// Counts what is written. Flushes cost nothing here.
#[derive(Debug, Default)]
struct Scales {
    disk: MemoryDisk,
    bytes: AtomicU64,
    /// Bytes of record files alone.
    records: AtomicU64,
}

impl Scales {
    fn weigh(&self, path: &Path, bytes: &[u8]) {
        let weight = bytes.len() as u64;
        self.bytes.fetch_add(weight, Ordering::Relaxed);
        if path.to_string_lossy().contains("/records/") {
            self.records.fetch_add(weight, Ordering::Relaxed);
        }
    }

    fn read_out(&self) -> (u64, u64) {
        (
            self.bytes.swap(0, Ordering::Relaxed),
            self.records.swap(0, Ordering::Relaxed),
        )
    }
}

impl Disk for Scales {
    fn entry(&self, path: &Path) -> DiskResult<Option<EntryKind>> {
        self.disk.entry(path)
    }
    fn read(&self, path: &Path, limit_bytes: u64) -> DiskResult<Vec<u8>> {
        self.disk.read(path, limit_bytes)
    }
    fn list(&self, directory: &Path) -> DiskResult<Vec<String>> {
        self.disk.list(directory)
    }
    fn create_directories(&self, directory: &Path, mode: u32) -> DiskResult<()> {
        self.disk.create_directories(directory, mode)
    }
    fn create_new(&self, path: &Path, bytes: &[u8], mode: u32) -> DiskResult<()> {
        self.weigh(path, bytes);
        self.disk.create_new(path, bytes, mode)
    }
    fn append(&self, path: &Path, bytes: &[u8], mode: u32, _: bool) -> DiskResult<()> {
        self.weigh(path, bytes);
        self.disk.append(path, bytes, mode, false)
    }
    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.disk.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.disk.link(from, to)
    }
    fn sync_directory(&self, _: &Path) -> DiskResult<()> {
        Ok(())
    }
    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.disk.remove_file(path)
    }
    fn remove_tree(&self, directory: &Path) -> DiskResult<()> {
        self.disk.remove_tree(directory)
    }
    fn remove_if_empty(&self, directory: &Path) -> DiskResult<()> {
        self.disk.remove_if_empty(directory)
    }
    fn try_lock(&self, path: &Path) -> DiskResult<Option<Box<dyn FileLock>>> {
        self.disk.try_lock(path)
    }
    fn canonical(&self, path: &Path) -> DiskResult<PathBuf> {
        self.disk.canonical(path)
    }
}

/// Bytes an action writes, and bytes of its record, among `size` creates and as many updates.
fn bytes_of_an_action(size: usize) -> [(u64, u64); 2] {
    let names: Vec<String> = (0..size).map(|number| format!("r{number:06}")).collect();
    let scales = Arc::new(Scales::default());
    let mut world = World::on(Arc::clone(&scales) as Arc<dyn Disk>, &[]);
    let mut weigh = |config: &str| {
        let modules: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), config)).collect();
        world.declare(&modules);
        scales.read_out();
        let (report, _) = world
            .try_apply(|_| {
                scales.read_out();
            })
            .unwrap();
        assert!(all_well(&report) && report.actions.len() == size);
        let (all, records) = scales.read_out();
        (all / size as u64, records / size as u64)
    };
    [weigh("port: 80"), weigh("port: 81")]
}

/// What an action writes beside its record: intent, count and outcome in the journal. The record
/// that an update replaces is kept without being written again, and the head is left alone.
/// `TIDEGATE_FIGURE_RESOURCES=100000` weighs that many.
#[test]
fn an_action_writes_as_much_among_many_resources_as_among_few() {
    const REST: u64 = 512;
    let many = std::env::var("TIDEGATE_FIGURE_RESOURCES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000);
    let few = bytes_of_an_action(10);
    let many = bytes_of_an_action(many);
    println!("bytes of an action and of its record: {few:?} among 10, {many:?} among many");
    for (few, many) in few.iter().zip(&many) {
        for (all, record) in [few, many] {
            assert!(*record > 0 && *all <= record + REST, "{few:?} {many:?}");
        }
        // Lock and journal ends are shared by all; numbers grow by a few digits.
        assert!(many.0.abs_diff(few.0) <= 200, "{few:?} {many:?}");
    }
}
