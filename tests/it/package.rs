//! Packages, from `plugin add` to what stands in the plugin folder, against a release server of our
//! own on loopback. `corpus` holds the archive reader against hostile archives and against Python.

mod corpus;
mod direct;
mod faults;
mod registry;
mod server;
mod tarball;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tidegate::package::lockfile::Lock;
use tidegate::package::name::this_platform;

use crate::harness::{Finished, Run};
use server::{Server, digest};
use tarball::{Tar, descriptor, noise, plugin};

const REPOSITORY: &str = "acme/wf-demo";
const SOURCE: &str = "github.com/acme/wf-demo";
const TOKEN: &str = "ghp_a-token-that-nobody-else-may-see-0123456789";

/// A project folder, a cache, and a release server.
struct World {
    folder: TempDir,
    cache: TempDir,
    server: Server,
}

impl World {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            cache: tempfile::tempdir().unwrap(),
            server: Server::start(),
        }
    }

    /// With one release of `demo`, published for three platforms.
    fn with_demo(version: &str) -> Self {
        let world = Self::new();
        world.publish(version);
        world
    }

    fn publish(&self, version: &str) {
        self.server.release(REPOSITORY, version, &archives(version));
    }

    fn run(&self, arguments: &[&str]) -> Run {
        Run::new(self.path(), arguments)
            .env("GITHUB_API_URL", &self.server.url())
            .env("XDG_CACHE_HOME", &self.cache.path().display().to_string())
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> Finished {
        self.run(arguments).output().expect_code(0)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn installed(&self, name: &str) -> PathBuf {
        self.path().join("data/plugins").join(name)
    }

    fn lock(&self) -> Lock {
        Lock::parse(Path::new("lock"), &self.read(".wfctl-lock.yaml")).unwrap()
    }

    fn add_demo(&self, version: &str) {
        self.ok(&[
            "plugin",
            "add",
            &format!("demo@{version}"),
            "--source",
            SOURCE,
        ]);
    }

    /// Where the cache keeps an archive.
    fn cached(&self, sha256: &str) -> PathBuf {
        self.cache
            .path()
            .join("tidegate/packages/sha256")
            .join(sha256)
    }

    fn clear_cache(&self) {
        fs::remove_dir_all(self.cache.path().join("tidegate")).unwrap();
    }
}

fn binary(version: &str, platform: &str) -> Vec<u8> {
    let mut bytes = format!("#!/bin/sh\necho {version} {platform}\n").into_bytes();
    bytes.extend(noise(version.len() as u64 + 17, 60_000));
    bytes
}

fn file_name(version: &str, platform: &str) -> String {
    format!(
        "workflow-plugin-demo_{}_{}.tar.gz",
        version.trim_start_matches('v'),
        platform.replace('-', "_")
    )
}

fn archives(version: &str) -> Vec<(String, Vec<u8>)> {
    ["linux-amd64", "linux-arm64", "darwin-arm64"]
        .into_iter()
        .map(|platform| {
            (
                file_name(version, platform),
                plugin("demo", version, &binary(version, platform)),
            )
        })
        .collect()
}

fn download_path(version: &str) -> String {
    format!(
        "/download/{REPOSITORY}/{version}/{}",
        file_name(version, &this_platform())
    )
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout())
        .unwrap_or_else(|error| panic!("{error}\n{}\n{}", finished.stdout(), finished.stderr()))
}

/// Everything below a folder, with modes, sorted.
fn tree(folder: &Path) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777;
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else {
                all.push((name, mode));
            }
        }
    }
    all.sort();
    all
}

#[test]
fn add_lock_install_list_verify() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    assert_eq!(
        world.read("wfctl.yaml"),
        "version: 1\nplugins:\n  - name: demo\n    version: v1.0.0\n    source: github.com/acme/wf-demo\n"
    );
    let lock = world.lock();
    let platforms = &lock.plugins["demo"].platforms;
    assert_eq!(platforms.len(), 3, "every published platform is locked");
    for (platform, artifact) in platforms {
        let archive = plugin("demo", "v1.0.0", &binary("v1.0.0", platform));
        assert_eq!(artifact.sha256, digest(&archive), "{platform}");
        assert_eq!(
            artifact.binary_sha256.as_deref(),
            Some(digest(&binary("v1.0.0", platform)).as_str())
        );
    }
    let (manifest, locked) = (world.read("wfctl.yaml"), world.read(".wfctl-lock.yaml"));

    world.ok(&["plugin", "install"]);
    let mut expected = vec![
        (".package-files".to_owned(), 0o644),
        ("README.md".to_owned(), 0o644),
        ("demo".to_owned(), 0o755),
        ("plugin.json".to_owned(), 0o644),
    ];
    expected.sort();
    assert_eq!(tree(&world.installed("demo")), expected);
    assert_eq!(
        fs::read(world.installed("demo").join("demo")).unwrap(),
        binary("v1.0.0", &this_platform())
    );
    let listed = json(&world.ok(&["plugin", "list", "--json"]));
    assert_eq!(listed["plugins"][0]["status"], "ok");
    assert_eq!(listed["plugins"][0]["installed"]["version"], "v1.0.0");
    let text = world.ok(&["plugin", "list"]).stdout();
    assert!(text.contains("demo") && text.contains("ok"), "{text}");
    world.ok(&["plugin", "verify"]);
    world.ok(&["plugin", "info", "workflow-plugin-demo"]);

    // Again: nothing to do, nothing asked.
    world.server.forget();
    let again = json(&world.ok(&["plugin", "ci", "--json"]));
    assert_eq!(again["plugins"][0]["status"], "unchanged");
    assert_eq!(again["changed"], false);
    assert!(world.server.seen().is_empty());
    assert_eq!(world.read("wfctl.yaml"), manifest);
    assert_eq!(world.read(".wfctl-lock.yaml"), locked);

    // And gone.
    world.ok(&["plugin", "remove", "demo"]);
    assert!(!world.installed("demo").exists());
    assert!(world.lock().plugins.is_empty());
    assert_eq!(world.read("wfctl.yaml"), "version: 1\nplugins:\n");
}

#[test]
fn one_changed_byte_is_a_hard_failure_that_names_both_digests() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    let good = world.server.file(&download_path("v1.0.0"));
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    world.server.put(&download_path("v1.0.0"), bad.clone());
    world.clear_cache();
    let before = world.read(".wfctl-lock.yaml");
    let finished = world.run(&["plugin", "install"]).output().expect_code(1);
    for part in ["package/digest-mismatch", &digest(&good), &digest(&bad)] {
        assert!(
            finished.stderr().contains(part),
            "{part}\n{}",
            finished.stderr()
        );
    }
    assert!(!world.installed("demo").exists());
    assert_eq!(world.read(".wfctl-lock.yaml"), before);
    // The good bytes are good again, and the bad ones were not kept.
    world.server.put(&download_path("v1.0.0"), good);
    world.ok(&["plugin", "install"]);

    // The same, when a good plugin is already there: it stays.
    world.publish("v1.1.0");
    world.ok(&["plugin", "update", "demo@v1.1.0"]);
    world.server.put(&download_path("v1.1.0"), bad);
    world.clear_cache();
    world.run(&["plugin", "install"]).output().expect_code(1);
    assert_eq!(
        fs::read(world.installed("demo").join("demo")).unwrap(),
        binary("v1.0.0", &this_platform())
    );
}

#[test]
fn the_cache_is_not_trusted() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    let sha256 = world.lock().plugins["demo"].platforms[&this_platform()]
        .sha256
        .clone();
    let path = world.cached(&sha256);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    world.server.forget();
    world.ok(&["plugin", "install"]);
    assert_eq!(world.server.seen_for(".tar.gz").len(), 1, "fetched again");
    assert_eq!(digest(&fs::read(&path).unwrap()), sha256);
    // Now it is good, and nobody is asked.
    fs::remove_dir_all(world.path().join("data")).unwrap();
    world.server.forget();
    world.ok(&["plugin", "install"]);
    assert!(world.server.seen().is_empty());
}

#[test]
fn what_is_installed_is_hashed_again() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    world.ok(&["plugin", "install"]);
    for (file, part) in [("demo", "executable"), ("plugin.json", "plugin.json")] {
        let path = world.installed("demo").join(file);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let finished = world.run(&["plugin", "verify"]).output().expect_code(1);
        assert!(finished.stderr().contains("package/not-verified"));
        assert!(
            finished
                .stderr()
                .contains(&format!("{part}, found:  sha256 {}", digest(&bytes))),
            "{}",
            finished.stderr()
        );
        let repaired = json(&world.ok(&["plugin", "install", "--json"]));
        assert_eq!(repaired["plugins"][0]["status"], "installed");
        world.ok(&["plugin", "verify"]);
    }
    // Whatever else came with it runs, or is read, with the same rights.
    let list = ".package-files";
    for file in ["README.md", list] {
        let path = world.installed("demo").join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, [&bytes[..], b"curl evil\n"].concat()).unwrap();
        let finished = world.run(&["plugin", "verify"]).output().expect_code(1);
        assert!(
            finished.stderr().contains(&format!("changed: {file}")),
            "{}",
            finished.stderr()
        );
        world
            .run(&["plugin", "install", "--check"])
            .output()
            .expect_code(1);
        let repaired = json(&world.ok(&["plugin", "install", "--json"]));
        assert_eq!(repaired["plugins"][0]["status"], "installed");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    // Gone is changed, too; and a link is not what was installed.
    let readme = world.installed("demo/README.md");
    fs::rename(&readme, world.path().join("README.md")).unwrap();
    world.run(&["plugin", "verify"]).output().expect_code(1);
    std::os::unix::fs::symlink(world.path().join("README.md"), &readme).unwrap();
    world.run(&["plugin", "verify"]).output().expect_code(1);
    world.ok(&["plugin", "install"]);
    // What the plugin itself keeps in its folder is its own, and stays.
    fs::create_dir(world.installed("demo/out")).unwrap();
    fs::write(world.installed("demo/out/hello"), "mine").unwrap();
    world.ok(&["plugin", "verify"]);
    fs::write(&readme, "changed").unwrap();
    world.ok(&["plugin", "install"]);
    assert_eq!(
        fs::read(world.installed("demo/out/hello")).unwrap(),
        b"mine"
    );
    // What could be run is told, whoever put it there.
    fs::write(world.installed("demo/out/hook"), "#!/bin/sh\n").unwrap();
    fs::write(world.installed("demo/libevil.so.1"), "x").unwrap();
    let told = world.ok(&["plugin", "verify"]).stderr();
    assert!(
        told.contains("package/added-files") && told.contains("libevil.so.1, out/hook"),
        "{told}"
    );
    // Something nobody asked for.
    world.ok(&["plugin", "ci"]);
    fs::create_dir(world.installed("other")).unwrap();
    world.run(&["plugin", "verify"]).output().expect_code(1);
    let refused = world.run(&["plugin", "ci"]).output().expect_code(1);
    assert!(
        refused.stderr().contains("no lock pins it"),
        "{}",
        refused.stderr()
    );
}

/// A credential that stands where none belongs is refused, and not shown for it.
#[test]
fn a_credential_in_the_manifest_is_refused_and_not_repeated() {
    let world = World::new();
    for line in [
        "source: \"https://user:hunter2-pass@example.net/x\"",
        "source: github.com/acme/x\n    auth: {env: RELEASES_TOKEN, token: ghp_hunter2-pass}",
        "source: github.com/acme/x\n    auth: {env: \"ghp hunter2-pass\"}",
    ] {
        world.write(
            "wfctl.yaml",
            &format!("version: 1\nplugins:\n  - name: demo\n    version: v1.0.0\n    {line}\n"),
        );
        let refused = world.run(&["plugin", "lock"]).output().expect_code(2);
        assert!(
            !refused.stderr().contains("hunter2-pass"),
            "{}",
            refused.stderr()
        );
        assert!(
            refused.stderr().contains("wfctl.yaml:"),
            "{}",
            refused.stderr()
        );
    }
}

/// Locks that do not know of all files yet are good for what they know, and it is said what that is.
#[test]
fn an_older_lock_guards_less_and_says_so() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    world.ok(&["plugin", "install"]);
    let older: String = world
        .read(".wfctl-lock.yaml")
        .lines()
        .filter(|line| !line.contains("files_sha256") && !line.contains("lockfile_sha256"))
        .map(|line| format!("{line}\n"))
        .collect();
    world.write(".wfctl-lock.yaml", &older);
    fs::write(world.installed("demo/README.md"), "changed").unwrap();
    let verified = world.ok(&["plugin", "verify"]);
    assert!(
        verified
            .stderr()
            .contains("Of demo the lock pins the executable and plugin.json only"),
        "{}",
        verified.stderr()
    );
    world.ok(&["plugin", "lock"]);
    world.run(&["plugin", "verify"]).output().expect_code(1);
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    world.clear_cache();
    let whole = world.server.file(&download_path("v1.0.0")).len();
    let file = file_name("v1.0.0", &this_platform());
    // Once in the middle, once at the start of the rest; then it lets everything through.
    world
        .server
        .cut(&file, vec![Some(whole / 2), Some(1000), None]);
    world.server.forget();
    world.ok(&["plugin", "install"]);
    let ranges: Vec<Option<String>> = world
        .server
        .seen_for(&file)
        .iter()
        .map(|seen| {
            assert_eq!(
                seen.headers.contains_key("range"),
                seen.headers.contains_key("if-range")
            );
            seen.headers.get("range").cloned()
        })
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some(format!("bytes={}-", whole / 2)),
            Some(format!("bytes={}-", whole / 2 + 1000)),
        ]
    );
    world.ok(&["plugin", "verify"]);
}

#[test]
fn a_later_run_goes_on_too_and_the_digest_of_all_bytes_decides() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    world.clear_cache();
    let file = file_name("v1.0.0", &this_platform());
    world.server.cut(&file, vec![Some(20_000), Some(0)]);
    let finished = world.run(&["plugin", "install"]).output().expect_code(1);
    assert!(
        finished.stderr().contains("package/unreachable"),
        "{}",
        finished.stderr()
    );
    world.server.cut(&file, vec![None]);
    // Somebody changes a byte of what is there already.
    let partial = world
        .cache
        .path()
        .join("tidegate/packages/partial")
        .join(format!(
            "{}.part",
            world.lock().plugins["demo"].platforms[&this_platform()].sha256
        ));
    let mut bytes = fs::read(&partial).unwrap();
    assert_eq!(bytes.len(), 20_000);
    bytes[10] ^= 1;
    fs::write(&partial, bytes).unwrap();
    world.server.forget();
    world.ok(&["plugin", "install"]);
    let seen = world.server.seen_for(&file);
    assert_eq!(seen[0].headers["range"], "bytes=20000-");
    assert!(!seen[1].headers.contains_key("range"), "started over");
    world.ok(&["plugin", "verify"]);
}

#[test]
fn a_private_release_is_fetched_by_asset_and_the_token_goes_nowhere_else() {
    let world = World::with_demo("v1.0.0");
    let storage = Server::start();
    world.server.guard("/repos/", &format!("Bearer {TOKEN}"));
    // What anybody could fetch is not there; assets redirect to signed addresses elsewhere.
    for (number, (file, bytes)) in archives("v1.0.0").into_iter().enumerate() {
        world
            .server
            .put(&format!("/download/{REPOSITORY}/v1.0.0/{file}"), Vec::new());
        let signed = format!("/signed/{number}");
        storage.put(&signed, bytes);
        world.server.redirect(
            &format!("/repos/{REPOSITORY}/releases/assets/{}", 1000 + number),
            format!("{}{signed}", storage.url()),
        );
    }
    let run = |arguments: &[&str]| {
        world
            .run(arguments)
            .env("RELEASES_TOKEN", TOKEN)
            .env("GH_TOKEN", "wrong-token-of-gh-which-loses-the-order")
            .env("GITHUB_TOKEN", "wrong-token-of-github-which-loses-too")
            .output()
    };
    let added = run(&["plugin", "add", "demo@v1.0.0", "--source", SOURCE]).expect_code(0);
    world.clear_cache();
    let installed = run(&["plugin", "install"]).expect_code(0);
    world.ok(&["plugin", "verify"]);
    assert!(storage.seen().len() >= 4);
    for seen in storage.seen() {
        assert!(!seen.headers.contains_key("authorization"), "{}", seen.path);
        assert!(!format!("{:?}", seen.headers).contains(TOKEN));
    }
    for seen in world.server.seen() {
        let token = seen.headers.get("authorization").map(String::as_str);
        assert_eq!(
            token,
            Some(format!("Bearer {TOKEN}").as_str()),
            "{}",
            seen.path
        );
    }
    for text in [
        added.stdout(),
        added.stderr(),
        installed.stdout(),
        installed.stderr(),
        world.read(".wfctl-lock.yaml"),
        world.read("wfctl.yaml"),
    ] {
        assert!(
            !text.contains(TOKEN) && !text.contains("/signed/"),
            "{text}"
        );
    }

    // Without the token it looks as if it were not there, and the message says what may be missing.
    let finished = world.run(&["plugin", "lock"]).output().expect_code(2);
    assert!(
        finished.stderr().contains("RELEASES_TOKEN"),
        "{}",
        finished.stderr()
    );
}

#[test]
fn auth_env_is_for_the_folder_it_stands_beside() {
    let world = World::new();
    let mut sums = String::new();
    for (file, bytes) in archives("v1.0.0") {
        sums.push_str(&format!("{}  {file}\n", digest(&bytes)));
        world.server.put(&format!("/private/v1.0.0/{file}"), bytes);
    }
    world
        .server
        .put("/private/v1.0.0/checksums.txt", sums.into_bytes());
    world.server.guard("/private/", &format!("Bearer {TOKEN}"));
    let source = format!("{}/private/{{version}}", world.server.url());
    let add = [
        "plugin",
        "add",
        "demo@v1.0.0",
        "--source",
        &source,
        "--auth-env",
        "MY_TOKEN",
    ];
    let finished = world.run(&add).output().expect_code(2);
    assert!(
        finished.stderr().contains("`MY_TOKEN` is not set"),
        "{}",
        finished.stderr()
    );
    assert!(
        !world.path().join("wfctl.yaml").exists(),
        "nothing is written on failure"
    );
    // The general variables are GitHub's, and no folder's.
    let general = ["plugin", "add", "demo@v1.0.0", "--source", &source];
    world
        .run(&general)
        .env("GITHUB_TOKEN", TOKEN)
        .output()
        .expect_code(1);
    assert!(
        world
            .server
            .seen()
            .iter()
            .all(|seen| !seen.headers.contains_key("authorization"))
    );
    world
        .run(&add)
        .env("MY_TOKEN", TOKEN)
        .output()
        .expect_code(0);
    world.clear_cache();
    world
        .run(&["plugin", "install"])
        .env("MY_TOKEN", TOKEN)
        .output()
        .expect_code(0);
    world.ok(&["plugin", "verify"]);
}

#[test]
fn a_signature_nobody_can_verify_is_refused_not_skipped() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    let manifest = world.read("wfctl.yaml");
    world.write(
        "wfctl.yaml",
        &format!("{manifest}    verify:\n      identity: release@acme.example\n"),
    );
    for command in ["lock", "install", "ci"] {
        let finished = world.run(&["plugin", command]).output().expect_code(2);
        let said = finished.stderr();
        for words in [
            "package/identity",
            "release@acme.example",
            "gh attestation verify FILE --repo acme/wf-demo",
            "take `verify` out and run `tidegate plugin lock`",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
    assert!(!world.installed("demo").exists());
}

#[test]
fn an_install_comes_from_the_lock_or_not_at_all() {
    let world = World::with_demo("v1.0.0");
    world.write("wfctl.yaml", "version: 1\nplugins: []\n");
    let refused = |code: &str, arguments: &[&str]| {
        let finished = world.run(arguments).output();
        assert_ne!(finished.code(), 0);
        assert!(
            finished.stderr().contains(code),
            "{code}\n{}",
            finished.stderr()
        );
    };
    refused("package/no-lock", &["plugin", "install"]);
    world.ok(&["plugin", "lock"]);
    world.ok(&["plugin", "ci"]);
    world.add_demo("v1.0.0");
    let (manifest, lock) = (world.read("wfctl.yaml"), world.read(".wfctl-lock.yaml"));
    // Another version in the manifest.
    world.write("wfctl.yaml", &manifest.replace("v1.0.0", "v1.0.1"));
    refused("package/not-locked", &["plugin", "install"]);
    // Another source.
    world.write("wfctl.yaml", &manifest.replace("wf-demo", "wf-other"));
    refused("package/stale-lock", &["plugin", "install"]);
    // Locked, and no longer wanted.
    world.write("wfctl.yaml", "version: 1\nplugins: []\n");
    world.ok(&["plugin", "install"]);
    refused("package/stale-lock", &["plugin", "ci"]);
    world.write("wfctl.yaml", &manifest);
    // Edited by hand.
    world.write(
        ".wfctl-lock.yaml",
        &lock.replace("linux-amd64:", "linux-riscv64:"),
    );
    refused("package/lock-checksum", &["plugin", "install"]);
    // By another tool, for other platforms only.
    let digest = "ab".repeat(32);
    let foreign = |platforms: &str| {
        format!(
            "version: 1\nplugins:\n  demo:\n    version: v1.0.0\n    source: {SOURCE}\n{platforms}"
        )
    };
    world.write(".wfctl-lock.yaml", &foreign(""));
    refused("package/not-locked", &["plugin", "install"]);
    world.write(
        ".wfctl-lock.yaml",
        &foreign(&format!(
            "    platforms:\n      plan9-mips: {{url: \"https://example.net/x\", sha256: \"{digest}\"}}\n"
        )),
    );
    refused("package/no-platform", &["plugin", "install"]);
    world.write(".wfctl-lock.yaml", "version: 2\n");
    refused("package/bad-lock", &["plugin", "install"]);
    refused("package/bad-lock", &["plugin", "list"]);
    // `plugin lock` is the remedy for all of it.
    world.ok(&["plugin", "lock"]);
    world.ok(&["plugin", "ci"]);
    // A lock made for the same pins again is the same file.
    let before = world.read(".wfctl-lock.yaml");
    let again = json(&world.ok(&["plugin", "lock", "--json"]));
    assert_eq!(again["changed"], false);
    assert_eq!(world.read(".wfctl-lock.yaml"), before);
}

#[test]
fn a_release_that_cannot_be_trusted_is_not_locked() {
    let one = |change: &dyn Fn(&World), code: &str| {
        let world = World::with_demo("v1.0.0");
        change(&world);
        let finished = world
            .run(&["plugin", "add", "demo@v1.0.0", "--source", SOURCE])
            .output();
        assert_ne!(finished.code(), 0);
        assert!(
            finished.stderr().contains(code),
            "{code}\n{}",
            finished.stderr()
        );
        assert!(!world.path().join("wfctl.yaml").exists());
        assert!(!world.path().join(".wfctl-lock.yaml").exists());
    };
    let sums = format!("/download/{REPOSITORY}/v1.0.0/checksums.txt");
    // The list and GitHub's own digests differ.
    one(
        &|world| {
            let text = String::from_utf8(world.server.file(&sums)).unwrap();
            let other = digest(b"other");
            let changed: String = text
                .lines()
                .map(|line| format!("{other}{}\n", &line[64..]))
                .collect();
            world.server.put(&sums, changed.into_bytes());
        },
        "package/digest-mismatch",
    );
    // The list leaves an archive out.
    one(
        &|world| {
            let text = String::from_utf8(world.server.file(&sums)).unwrap();
            let first = text.lines().next().unwrap().to_owned();
            world.server.put(&sums, first.into_bytes());
        },
        "package/no-checksums",
    );
    // The archive of a platform that is not ours was changed.
    one(
        &|world| {
            let path = format!(
                "/download/{REPOSITORY}/v1.0.0/{}",
                file_name("v1.0.0", "darwin-arm64")
            );
            let mut bytes = world.server.file(&path);
            bytes[50] ^= 1;
            world.server.put(&path, bytes);
        },
        "package/digest-mismatch",
    );
    let repack = |tar: Tar| {
        move |world: &World| {
            let archive = (file_name("v1.0.0", &this_platform()), tar.clone().gzip());
            world.server.release(REPOSITORY, "v1.0.0", &[archive]);
        }
    };
    let described = |text: String| {
        Tar::default()
            .file("plugin.json", text.as_bytes(), 0o644)
            .file("demo", b"x", 0o755)
    };
    let good = String::from_utf8(descriptor("demo", "v1.0.0")).unwrap();
    one(
        &repack(described(good.replace("0.60.0", "99.0.0"))),
        "package/needs-newer-engine",
    );
    one(
        &repack(described(good.replace("-demo", "-other"))),
        "package/bad-descriptor",
    );
    one(
        &repack(described(good.replace("1.0.0", "1.0.1"))),
        "package/bad-descriptor",
    );
    one(
        &repack(Tar::default().file("demo", b"x", 0o755)),
        "package/bad-descriptor",
    );
    one(
        &repack(Tar::default().file("plugin.json", good.as_bytes(), 0o644)),
        "package/no-binary",
    );
    one(
        &repack(described(good.clone()).file("../evil", b"x", 0o755)),
        "package/bad-archive",
    );
    one(
        &repack(
            Tar::default()
                .file("plugin.json", good.as_bytes(), 0o644)
                .file("workflow-plugin-demo", b"x", 0o755)
                .file("demo/x", b"x", 0o755),
        ),
        "package/bad-archive",
    );
    one(
        &|world| {
            world.server.release(
                REPOSITORY,
                "v1.0.0",
                &[("source.tar.gz".to_owned(), vec![1])],
            )
        },
        "package/no-archives",
    );
    one(
        &|world| {
            let mut all = archives("v1.0.0");
            let twin = (format!("other_{}", all[0].0), all[0].1.clone());
            all.push(twin);
            world.server.release(REPOSITORY, "v1.0.0", &all);
        },
        "package/ambiguous-asset",
    );
    one(
        &|world| {
            let path = download_path("v1.0.0");
            world
                .server
                .redirect(&path, "http://example.net/x".to_owned());
        },
        "package/insecure-redirect",
    );
    one(
        &|world| {
            let path = download_path("v1.0.0");
            world.server.redirect(&path, path.clone());
        },
        "package/too-many-redirects",
    );
}

#[test]
fn an_older_engine_is_told_before_anything_is_installed() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    let finished = world
        .run(&["plugin", "install"])
        .env("WFCTL_ENGINE_VERSION", "0.59.0")
        .output()
        .expect_code(1);
    assert!(
        finished.stderr().contains("package/needs-newer-engine"),
        "{}",
        finished.stderr()
    );
    assert!(!world.installed("demo").exists());
    world.ok(&["plugin", "install", "--engine-version", "0.60.0"]);
}

#[test]
fn update_moves_the_pin_and_nothing_else() {
    let world = World::with_demo("v1.0.0");
    world.write("wfctl.yaml", "# ours\nversion: 1\nplugins:\n  # the demo\n  - name: demo\n    version: \"v1.0.0\" # pinned\n    source: github.com/acme/wf-demo\n");
    world.ok(&["plugin", "lock"]);
    let before = world.read("wfctl.yaml");
    world.publish("v1.2.0");
    world.ok(&["plugin", "update", "--all"]);
    assert_eq!(world.read("wfctl.yaml"), before.replace("v1.0.0", "v1.2.0"));
    assert_eq!(world.lock().plugins["demo"].version, "v1.2.0");
    world.ok(&["plugin", "install"]);
    world.ok(&["plugin", "update", "demo@v1.0.0"]);
    assert_eq!(world.read("wfctl.yaml"), before);
    let stale = json(&world.ok(&["plugin", "list", "--json"]));
    assert_eq!(stale["plugins"][0]["status"], "changed");
    world.ok(&["plugin", "install"]);
    world.ok(&["plugin", "verify"]);

    // A release that changes under its version is locked anew only with a warning.
    let mut changed = archives("v1.0.0");
    changed[0].1 = plugin("demo", "v1.0.0", b"other");
    changed[1].1 = changed[0].1.clone();
    world.server.release(REPOSITORY, "v1.0.0", &changed);
    let finished = world.ok(&["plugin", "lock"]);
    assert!(
        finished.stderr().contains("package/digest-changed"),
        "{}",
        finished.stderr()
    );
    for arguments in [
        ["plugin", "update", "demo@latest"],
        ["plugin", "update", "demo@^1.0.0"],
        ["plugin", "add", "demo"],
        ["plugin", "add", "demo@v1.0.0"],
        ["plugin", "remove", "other"],
    ] {
        world.run(&arguments).output().expect_code(2);
    }
}

#[test]
fn a_mirror_stands_in_for_the_network() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    let sha256 = world.lock().plugins["demo"].platforms[&this_platform()]
        .sha256
        .clone();
    let archive = fs::read(world.cached(&sha256)).unwrap();
    let mirror = tempfile::tempdir().unwrap();
    let mirrored = |arguments: &[&str]| {
        world
            .run(arguments)
            .env(
                "TIDEGATE_PLUGIN_MIRROR",
                &mirror.path().display().to_string(),
            )
            .output()
    };
    world.clear_cache();
    world.server.forget();
    let finished = mirrored(&["plugin", "install"]).expect_code(1);
    assert!(
        finished.stderr().contains("package/not-in-mirror"),
        "{}",
        finished.stderr()
    );
    let file = file_name("v1.0.0", &this_platform());
    for place in [file.clone(), format!("demo/v1.0.0/{file}"), sha256.clone()] {
        let path = mirror.path().join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bad = archive.clone();
        bad[99] ^= 1;
        fs::write(&path, bad).unwrap();
        let finished = mirrored(&["plugin", "install"]).expect_code(1);
        assert!(
            finished.stderr().contains("package/digest-mismatch"),
            "{}",
            finished.stderr()
        );
        fs::write(&path, &archive).unwrap();
        mirrored(&["plugin", "ci"]).expect_code(0);
        mirrored(&["plugin", "verify"]).expect_code(0);
        fs::remove_dir_all(world.path().join("data")).unwrap();
        fs::remove_file(&path).unwrap();
    }
    assert!(world.server.seen().is_empty(), "the network was asked");
    mirrored(&["plugin", "lock"]).expect_code(2);
}

#[test]
fn two_installs_at_once_both_end_well() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    world.clear_cache();
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = world.run(&["plugin", "install"]).into_command();
            command
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    world.ok(&["plugin", "verify"]);
    assert_eq!(
        world
            .server
            .seen_for(&file_name("v1.0.0", &this_platform()))
            .len(),
        2,
        "once for the lock, once for all installs"
    );
    let left: Vec<String> = fs::read_dir(world.path().join("data/plugins"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(".staging"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_link_in_the_way_is_neither_followed_nor_replaced() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir_all(world.path().join("data/plugins")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), world.installed("demo")).unwrap();
    let finished = world.run(&["plugin", "install"]).output().expect_code(1);
    assert!(
        finished.stderr().contains("package/in-the-way"),
        "{}",
        finished.stderr()
    );
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    world.run(&["plugin", "verify"]).output().expect_code(1);
}

#[test]
fn migrate_plugins_keeps_comments_and_order() {
    let world = World::with_demo("v1.0.0");
    let config = "\
# our infrastructure
requires: # other tools read this
  plugins:
    # the demo
    - name: demo # short
      version: v1.0.0 # pinned
      source: github.com/acme/wf-demo
    - name: unpinned

modules: [] # none yet
";
    world.write("infra.yaml", config);
    world.ok(&["migrate", "plugins"]);
    assert_eq!(world.read("infra.yaml"), config);
    assert!(
        world
            .read("wfctl.yaml")
            .contains("source: github.com/acme/wf-demo")
    );
    assert_eq!(world.lock().plugins.len(), 1);
    let (manifest, lock) = (world.read("wfctl.yaml"), world.read(".wfctl-lock.yaml"));
    world.ok(&["migrate", "plugins", "--write"]);
    assert_eq!(
        world.read("infra.yaml"),
        "\
# our infrastructure
requires: # other tools read this
  plugins:
    # the demo
    - name: demo # short
    - name: unpinned

modules: [] # none yet
"
    );
    let again = json(&world.ok(&["migrate", "plugins", "--write", "--json"]));
    assert_eq!(again["changed"], false);
    assert_eq!(world.read("wfctl.yaml"), manifest);
    assert_eq!(world.read(".wfctl-lock.yaml"), lock);

    // A check that the manifest cannot carry is not dropped.
    world.write(
        "infra.yaml",
        "requires:\n  plugins:\n    - {name: other, version: v1.0.0, source: github.com/acme/x, verify: {signature: required}}\n",
    );
    let finished = world.run(&["migrate", "plugins"]).output().expect_code(2);
    assert!(
        finished.stderr().contains("package/cannot-migrate"),
        "{}",
        finished.stderr()
    );
    assert_eq!(world.read("wfctl.yaml"), manifest);
}

/// What the config asks for beyond the manifest is decided by somebody, and never dropped.
#[test]
fn migrate_plugins_drops_nothing_that_the_manifest_does_not_say() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    let manifest = world.read("wfctl.yaml");
    for (more, told) in [
        ("version: v1.1.0", "its version is"),
        (
            "verify: {signature: required}",
            "its `verify` is `signature`",
        ),
        ("verify: {identity: us}", "its `verify.identity` is `us`"),
        ("source: github.com/other/demo", "its source is"),
        ("auth: {env: MY_TOKEN}", "its `auth.env` is `MY_TOKEN`"),
    ] {
        let config = format!("requires:\n  plugins:\n    - {{name: demo, {more}}}\n");
        world.write("infra.yaml", &config);
        let finished = world
            .run(&["migrate", "plugins", "--write"])
            .output()
            .expect_code(2);
        assert!(finished.stderr().contains(told), "{}", finished.stderr());
        assert_eq!(world.read("infra.yaml"), config);
        assert_eq!(world.read("wfctl.yaml"), manifest);
    }
    // What it says as well goes, aloud.
    world.write(
        "infra.yaml",
        "requires:\n  plugins:\n    - name: demo\n      version: v1.0.0\n",
    );
    let finished = world.ok(&["migrate", "plugins", "--write"]);
    assert!(
        finished.stderr().contains("already"),
        "{}",
        finished.stderr()
    );
    assert_eq!(
        world.read("infra.yaml"),
        "requires:\n  plugins:\n    - name: demo\n"
    );
}

/// A file of the project that is a link stays one, and nobody gets to read what only its owner could.
#[test]
fn project_files_keep_their_links_and_modes() {
    use std::os::unix::fs::symlink;
    let world = World::with_demo("v1.0.0");
    world.write(
        "infra.yaml",
        "requires:\n  plugins:\n    - name: demo\n      version: v1.0.0\n",
    );
    world.add_demo("v1.0.0");
    let project = world.path();
    let names = ["infra.yaml", "wfctl.yaml", ".wfctl-lock.yaml"];
    for (name, mode) in names.iter().zip([0o600, 0o640, 0o600]) {
        let real = project.join(format!("real-{name}"));
        fs::rename(project.join(name), &real).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(mode)).unwrap();
        symlink(&real, project.join(name)).unwrap();
    }
    let before = names.map(|name| world.read(name));
    world.ok(&["migrate", "plugins", "--write"]);
    world.ok(&["plugin", "remove", "demo"]);
    for ((name, mode), before) in names.iter().zip([0o600, 0o640, 0o600]).zip(before) {
        let real = project.join(format!("real-{name}"));
        assert!(
            fs::symlink_metadata(project.join(name))
                .unwrap()
                .is_symlink(),
            "{name}"
        );
        let found = fs::metadata(&real).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
        assert_ne!(fs::read_to_string(&real).unwrap(), before, "{name}");
    }
}

/// A plugin runs in its folder, and what it kept there may be what it made for somebody.
#[test]
fn what_a_plugin_kept_outlives_it() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    world.ok(&["plugin", "install"]);
    let folder = world.installed("demo");
    fs::create_dir_all(folder.join("out")).unwrap();
    fs::write(folder.join("out/hello"), "precious").unwrap();
    let removed = world.ok(&["plugin", "remove", "demo"]);
    assert!(removed.stderr().contains("out"), "{}", removed.stderr());
    let left: Vec<String> = tree(&folder).into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["out/hello"]);
    // It is no plugin any more, and nothing is in the way of the next one.
    world.add_demo("v1.0.0");
    world.ok(&["plugin", "install"]);
    world.ok(&["plugin", "verify"]);
    assert_eq!(
        fs::read_to_string(folder.join("out/hello")).unwrap(),
        "precious"
    );
}

/// Every `plugin` command prints the document that `docs/json.md` describes.
#[test]
fn every_plugin_command_prints_one_document() {
    let world = World::with_demo("v1.0.0");
    world.write("infra.yaml", "requires: {plugins: []}\nmodules: []\n");
    for line in [
        "plugin add demo@v1.0.0 --source github.com/acme/wf-demo",
        "plugin lock",
        "plugin update demo@v1.0.0",
        "plugin install",
        "plugin ci",
        "plugin list",
        "plugin info demo",
        "plugin verify",
        "migrate plugins",
        "plugin remove demo",
    ] {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.push("--json");
        let document = json(&world.ok(&arguments));
        let fields: Vec<&String> = document.as_object().unwrap().keys().collect();
        assert_eq!(
            fields,
            [
                "changed",
                "command",
                "exit_code",
                "failed",
                "lock_file",
                "manifest",
                "plugin_dir",
                "plugins",
                "problems"
            ],
            "{line}"
        );
        assert!(
            line.starts_with(document["command"].as_str().unwrap()),
            "{line}"
        );
    }
}
