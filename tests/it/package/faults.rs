//! A disk that stops working after so many operations, and a process that is killed: the plugin
//! folder holds the old plugin or the new one, whole, whenever it happens.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidegate::disk::{Disk, DiskError, DiskResult, EntryKind, FileLock, SystemDisk};
use tidegate::package::install::{Identity, Package, sweep};
use tidegate::package::name::this_platform;

use super::World;
use super::tarball::{Tar, descriptor, noise};

/// Passes `left` changing operations on, then fails every one: to the disk, that is a power cut.
#[derive(Debug)]
struct DyingDisk {
    left: AtomicUsize,
    used: AtomicUsize,
}

impl DyingDisk {
    fn new(left: usize) -> Self {
        Self {
            left: AtomicUsize::new(left),
            used: AtomicUsize::new(0),
        }
    }

    fn spend(&self, path: &Path) -> DiskResult<()> {
        self.used.fetch_add(1, Ordering::SeqCst);
        let spent = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        spent.map(drop).map_err(|_| DiskError {
            operation: "reach",
            path: path.to_path_buf(),
            source: io::Error::other("the power is gone"),
        })
    }
}

impl Disk for DyingDisk {
    fn entry(&self, path: &Path) -> DiskResult<Option<EntryKind>> {
        SystemDisk.entry(path)
    }
    fn read(&self, path: &Path, limit_bytes: u64) -> DiskResult<Vec<u8>> {
        SystemDisk.read(path, limit_bytes)
    }
    fn list(&self, directory: &Path) -> DiskResult<Vec<String>> {
        SystemDisk.list(directory)
    }
    fn create_directories(&self, directory: &Path, mode: u32) -> DiskResult<()> {
        self.spend(directory)?;
        SystemDisk.create_directories(directory, mode)
    }
    fn create_new(&self, path: &Path, bytes: &[u8], mode: u32) -> DiskResult<()> {
        if let Err(error) = self.spend(path) {
            // Half of it got through.
            drop(SystemDisk.create_new(path, &bytes[..bytes.len() / 2], mode));
            return Err(error);
        }
        SystemDisk.create_new(path, bytes, mode)
    }
    fn append(&self, path: &Path, bytes: &[u8], mode: u32, sync: bool) -> DiskResult<()> {
        self.spend(path)?;
        SystemDisk.append(path, bytes, mode, sync)
    }
    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.spend(to)?;
        SystemDisk.rename(from, to)
    }
    fn exchange(&self, a: &Path, b: &Path) -> DiskResult<()> {
        self.spend(b)?;
        SystemDisk.exchange(a, b)
    }
    fn sync_directory(&self, directory: &Path) -> DiskResult<()> {
        self.spend(directory)?;
        SystemDisk.sync_directory(directory)
    }
    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.spend(path)?;
        SystemDisk.remove_file(path)
    }
    fn remove_tree(&self, directory: &Path) -> DiskResult<()> {
        self.spend(directory)?;
        SystemDisk.remove_tree(directory)
    }
    fn remove_if_empty(&self, directory: &Path) -> DiskResult<()> {
        self.spend(directory)?;
        SystemDisk.remove_if_empty(directory)
    }
    fn try_lock(&self, path: &Path) -> DiskResult<Option<Box<dyn FileLock>>> {
        SystemDisk.try_lock(path)
    }
    fn canonical(&self, path: &Path) -> DiskResult<std::path::PathBuf> {
        SystemDisk.canonical(path)
    }
}

fn package(version: &str) -> Package {
    package_with(version, "ui/assets/a.js")
}

fn package_with(version: &str, path: &str) -> Package {
    let archive = Tar::default()
        .file("plugin.json", &descriptor("demo", version), 0o644)
        .file("demo", &noise(version.len() as u64, 5_000), 0o755)
        .file(path, version.as_bytes(), 0o644)
        .gzip();
    let platform = this_platform();
    Package::open(
        &archive,
        &Identity {
            name: "demo",
            version,
            platform: &platform,
            engine: "1.0.0",
        },
    )
    .unwrap()
}

fn snapshot(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    super::tree(folder)
        .into_iter()
        .map(|(name, _)| {
            let bytes = fs::read(folder.join(&name)).unwrap();
            (name, bytes)
        })
        .collect()
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_old_plugin_or_the_new_one() {
    let (old, new) = (package("1.0.0"), package("10.0.0"));
    let platform = this_platform();
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("demo");
    let install =
        |package: &Package, disk: &dyn Disk| package.install(disk, place.path(), &platform);
    install(&new, &SystemDisk).unwrap();
    let new_files = snapshot(&target);
    install(&old, &SystemDisk).unwrap();
    let old_files = snapshot(&target);
    assert_ne!(old_files, new_files);

    let all = DyingDisk::new(usize::MAX);
    install(&new, &all).unwrap();
    let operations = all.used.load(Ordering::SeqCst);
    assert!(operations > 8, "{operations}");
    let (mut saw_old, mut saw_new) = (0, 0);
    for left in 0..operations {
        install(&old, &SystemDisk).unwrap();
        assert!(install(&new, &DyingDisk::new(left)).is_err(), "{left}");
        let found = snapshot(&target);
        if found == old_files {
            saw_old += 1;
        } else {
            assert_eq!(found, new_files, "after {left} operations");
            saw_new += 1;
        }
        // The next install cleans up, and is not disturbed.
        sweep(&SystemDisk, place.path()).unwrap();
        install(&new, &SystemDisk).unwrap();
        assert_eq!(snapshot(&target), new_files);
        assert_eq!(SystemDisk.list(place.path()).unwrap(), ["demo"]);
    }
    assert!(saw_old > 0 && saw_new > 0, "{saw_old} {saw_new}");

    // Where nothing stood before: nothing, or all of it.
    for left in 0..operations {
        SystemDisk.remove_tree(&target).unwrap();
        drop(install(&new, &DyingDisk::new(left)));
        if target.exists() {
            assert_eq!(snapshot(&target), new_files, "after {left} operations");
        }
        sweep(&SystemDisk, place.path()).unwrap();
    }
}

#[test]
fn what_a_plugin_keeps_in_its_folder_survives_a_power_cut_at_any_operation() {
    let (old, new) = (package("1.0.0"), package("10.0.0"));
    let platform = this_platform();
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("demo");
    let install =
        |package: &Package, disk: &dyn Disk| package.install(disk, place.path(), &platform);
    let own = ["out/a/hello", "ui/mine.txt", "top.txt"];
    // With the list of what belongs to the package, and without, as older versions left it.
    for is_listed in [true, false] {
        let mut left = 0;
        loop {
            drop(SystemDisk.remove_tree(&target));
            install(&old, &SystemDisk).unwrap();
            if !is_listed {
                fs::remove_file(target.join(".package-files")).unwrap();
            }
            for path in own {
                let path = target.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "mine").unwrap();
            }
            let is_whole = install(&new, &DyingDisk::new(left)).is_ok();
            sweep(&SystemDisk, place.path()).unwrap();
            install(&new, &SystemDisk).unwrap();
            for path in own {
                let kept = fs::read_to_string(target.join(path));
                assert_eq!(
                    kept.unwrap_or_default(),
                    "mine",
                    "{path} after {left} operations"
                );
            }
            assert_eq!(SystemDisk.list(place.path()).unwrap(), ["demo"]);
            if is_whole {
                break;
            }
            left += 1;
        }
        assert!(left > 10, "{left}");
    }
}

#[test]
fn a_link_in_a_plugins_folder_moves_as_a_link_and_nothing_behind_it_moves() {
    let platform = this_platform();
    let place = tempfile::tempdir().unwrap();
    let shared = tempfile::tempdir().unwrap();
    fs::write(shared.path().join("precious.txt"), "mine").unwrap();
    let target = place.path().join("demo");
    package("1.0.0")
        .install(&SystemDisk, place.path(), &platform)
        .unwrap();
    fs::remove_dir_all(target.join("ui")).unwrap();
    std::os::unix::fs::symlink(shared.path(), target.join("ui")).unwrap();
    package("2.0.0")
        .install(&SystemDisk, place.path(), &platform)
        .unwrap();
    assert_eq!(
        fs::read_to_string(shared.path().join("precious.txt")).unwrap(),
        "mine"
    );
    assert!(target.join("ui/assets/a.js").is_file());
    assert!(target.join("ui.before").is_symlink());
}

#[test]
fn what_stands_where_a_package_has_a_file_now_moves_beside_it() {
    let platform = this_platform();
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("demo");
    package("1.0.0")
        .install(&SystemDisk, place.path(), &platform)
        .unwrap();
    fs::write(target.join("ui/assets/cache"), "mine").unwrap();
    package_with("2.0.0", "ui")
        .install(&SystemDisk, place.path(), &platform)
        .unwrap();
    assert_eq!(fs::read(target.join("ui")).unwrap(), b"2.0.0");
    assert_eq!(
        fs::read(target.join("ui.before/assets/cache")).unwrap(),
        b"mine"
    );
    assert!(sweep(&SystemDisk, place.path()).unwrap().is_empty());
    assert_eq!(SystemDisk.list(place.path()).unwrap(), ["demo"]);
}

#[test]
fn a_killed_install_leaves_the_old_plugin_or_the_new_one() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    world.ok(&["plugin", "install"]);
    let old = snapshot(&world.installed("demo"));
    world.publish("v2.0.0");
    world.ok(&["plugin", "update", "demo@v2.0.0"]);
    world.ok(&["plugin", "install"]);
    let new = snapshot(&world.installed("demo"));
    assert_ne!(old, new);
    for milliseconds in 0..25 {
        world.ok(&["plugin", "update", "demo@v1.0.0"]);
        world.ok(&["plugin", "install"]);
        world.ok(&["plugin", "update", "demo@v2.0.0"]);
        let mut child = world
            .run(&["plugin", "install"])
            .into_command()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds * 2));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = snapshot(&world.installed("demo"));
        assert!(found == old || found == new, "after {milliseconds} steps");
    }
    world.ok(&["plugin", "install"]);
    assert_eq!(snapshot(&world.installed("demo")), new);
    world.ok(&["plugin", "verify"]);
}
