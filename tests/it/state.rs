//! The state room: the contract every store keeps, and what each of them survives.

mod archive;
mod claims;
mod cloud;
mod cloud_faults;
mod commands;
mod contention;
mod contract;
mod damage;
pub(crate) mod disks;
mod faults;
mod fixtures;
mod gcs;
mod http;
mod kept;
mod lock;
mod mend;
mod names;
mod pooler;
mod postgres;
mod ring;
mod served;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tidegate::clock::{Clock, ManualClock, SystemClock};
use tidegate::disk::{Disk, SystemDisk};
use tidegate::random::{SeededRandom, SystemRandom};
use tidegate::resource::Address;
use tidegate::state::{Filesystem, Holder, Record, Store};
use time::OffsetDateTime;

/// Runs one future to its end.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

fn manual_clock() -> ManualClock {
    ManualClock::new(OffsetDateTime::from_unix_timestamp(1_700_000_000).expect("a valid time"))
}

fn address(name: &str) -> Address {
    Address::new(name)
}

pub(crate) fn holder(run_id: &str) -> Holder {
    Holder {
        run_id: run_id.to_owned(),
        who: "ann@build-3".to_owned(),
        process_id: std::process::id(),
        command: "up".to_owned(),
        run_url: Some(format!("https://forge.test/runs/{run_id}")),
        job: String::new(),
        since: "2024-01-02T03:04:05Z".to_owned(),
        mark: String::new(),
    }
}

/// A record whose content is told by `mark`.
fn record(name: &str, mark: &str) -> Record {
    let text = json!({
        "resource_id": name,
        "resource_type": "infra.storage",
        "provider": "local",
        "provider_ref": "here",
        "provider_id": format!("id-{mark}"),
        "config_hash": "00",
        "status": "active",
        "config": {"mark": mark, "size": 0.1},
        "outputs": {"path": format!("/srv/{mark}")},
        "dependencies": ["net"],
        "created_at": "",
        "updated_at": "",
    });
    serde_json::from_value(text).expect("a record")
}

fn mark(record: &Record) -> &str {
    let mark = record.config["mark"].as_str().expect("a mark");
    // A mixture of two versions would disagree with itself.
    assert_eq!(record.provider_id, format!("id-{mark}"));
    assert_eq!(record.outputs["path"], json!(format!("/srv/{mark}")));
    mark
}

/// The directory store on the machine's disk and clock.
pub(crate) fn system_store(root: &Path, environment: &str) -> Filesystem {
    Filesystem::open(
        root.to_path_buf(),
        environment,
        Arc::new(SystemDisk),
        Arc::new(SystemClock::new()),
        Arc::new(SystemRandom),
    )
    .expect("the store opens")
}

fn store_on(
    disk: Arc<dyn Disk>,
    root: &Path,
    environment: &str,
    clock: &ManualClock,
) -> Filesystem {
    static SEED: AtomicU64 = AtomicU64::new(0);
    let random = SeededRandom::new(SEED.fetch_add(1, Ordering::Relaxed));
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    Filesystem::open(
        root.to_path_buf(),
        environment,
        disk,
        clock,
        Arc::new(random),
    )
    .expect("the store opens")
}

const NO_WAIT: Duration = Duration::ZERO;
