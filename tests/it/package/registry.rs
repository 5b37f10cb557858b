//! Plugins that name no source: registries on loopback.

use serde_json::json;

use super::*;

const PLAIN: &str = "/registry/plugins/demo/manifest.json";

impl World {
    /// With a release, and a registry in a web folder that lists its archives.
    fn with_registry(version: &str) -> Self {
        let world = Self::with_demo(version);
        world.registries(&format!(
            "{{name: ours, type: static, url: '{}/registry/'}}",
            world.server.url()
        ));
        world.list(PLAIN, &world.manifest(version));
        world
    }

    fn registries(&self, items: &str) {
        self.write(
            ".wfctl.yaml",
            &format!("other: {{x: 1}}\nregistries: [{items}]\n"),
        );
    }

    fn list(&self, path: &str, manifest: &serde_json::Value) {
        self.server.put(path, manifest.to_string().into_bytes());
    }

    fn manifest(&self, version: &str) -> serde_json::Value {
        let downloads: Vec<serde_json::Value> = archives(version)
            .into_iter()
            .map(|(file, bytes)| {
                let words: Vec<&str> = file.trim_end_matches(".tar.gz").rsplit('_').collect();
                json!({
                    "os": words[1], "arch": words[0], "sha256": digest(&bytes),
                    "url": format!("{}/download/{REPOSITORY}/{version}/{file}", self.server.url()),
                })
            })
            .collect();
        json!({
            "name": "workflow-plugin-demo", "version": version.trim_start_matches('v'),
            "author": "a", "description": "for tests", "status": "verified",
            "repository": format!("https://{SOURCE}"), "downloads": downloads,
        })
    }
}

#[test]
fn a_name_is_enough_when_a_registry_lists_it() {
    let world = World::with_registry("v1.2.0");
    let info = world.ok(&["plugin", "info", "demo", "--json"]);
    let info: Value = serde_json::from_str(&info.stdout()).unwrap();
    assert_eq!(info["plugins"][0]["status"], "available");
    assert_eq!(info["plugins"][0]["registry"]["version"], "1.2.0");

    let added = world.ok(&["plugin", "add", "demo"]);
    assert!(added.stderr().contains("`ours`"), "{}", added.stderr());
    let manifest = world.read("wfctl.yaml");
    assert!(
        manifest.contains("version: 1.2.0") && !manifest.contains("source"),
        "{manifest}"
    );
    let lock = world.lock();
    assert_eq!(
        lock.plugins["demo"].platforms.len(),
        3,
        "all, not only ours"
    );
    for artifact in lock.plugins["demo"].platforms.values() {
        assert!(artifact.binary_sha256.is_some());
    }
    // GitHub was not asked for a release: the registry's digests were enough, and were compared.
    assert!(world.server.seen_for("tags/1.2.0").is_empty());

    // An install reads the lock alone.
    world.server.forget();
    fs::remove_file(world.path().join(".wfctl.yaml")).unwrap();
    world.clear_cache();
    world.ok(&["plugin", "install"]);
    assert!(world.installed("demo/demo").exists());
    assert!(world.server.seen_for("manifest.json").is_empty());

    // The registry moves on; an update without a version goes along.
    world.publish("v1.3.0");
    world.registries(&format!(
        "{{name: ours, type: static, url: '{}/registry'}}",
        world.server.url()
    ));
    world.list(PLAIN, &world.manifest("v1.3.0"));
    world.ok(&["plugin", "update", "demo"]);
    assert_eq!(world.lock().plugins["demo"].version, "1.3.0");
    // A version it no longer lists comes from the releases it names.
    world.ok(&["plugin", "update", "demo@1.2.0"]);
    assert_eq!(world.lock().plugins["demo"].version, "1.2.0");
}

#[test]
fn a_registry_is_held_to_its_digests() {
    let world = World::with_registry("v1.2.0");
    let mut manifest = world.manifest("v1.2.0");
    manifest["downloads"][2]["sha256"] = "ab".repeat(32).into();
    world.list(PLAIN, &manifest);
    let refused = world.run(&["plugin", "add", "demo"]).output();
    assert!(
        refused.stderr().contains("package/digest-mismatch"),
        "{}",
        refused.stderr()
    );
    assert!(!world.path().join("wfctl.yaml").exists());

    // A digest that is in the cache already says nothing of what stands behind another address.
    manifest["downloads"][2]["sha256"] = manifest["downloads"][0]["sha256"].clone();
    world.list(PLAIN, &manifest);
    let refused = world.run(&["plugin", "add", "demo"]).output();
    assert!(
        refused.stderr().contains("package/digest-mismatch"),
        "{}",
        refused.stderr()
    );

    // Without a digest the releases decide, and without releases nobody does.
    manifest["downloads"][2]["sha256"] = "".into();
    world.list(PLAIN, &manifest);
    world.ok(&["plugin", "add", "demo@v1.2.0"]);
    assert_eq!(world.server.seen_for("tags/v1.2.0").len(), 1);
    world.ok(&["plugin", "remove", "demo"]);
    manifest["repository"] = "".into();
    world.list(PLAIN, &manifest);
    let refused = world.run(&["plugin", "add", "demo"]).output();
    assert!(
        refused.stderr().contains("package/no-checksums"),
        "{}",
        refused.stderr()
    );

    // A manifest of another plugin, larger than any, or no manifest.
    for (bytes, code) in [
        (
            b"{\"name\": \"other\", \"version\": \"1.2.0\"}".to_vec(),
            "package/bad-answer",
        ),
        (b"<html>".to_vec(), "package/bad-answer"),
        (vec![b' '; 9 << 20], "package/too-large"),
    ] {
        world.server.put(PLAIN, bytes);
        let refused = world.run(&["plugin", "add", "demo"]).output();
        assert!(refused.stderr().contains(code), "{}", refused.stderr());
    }
}

#[test]
fn the_first_registry_that_knows_a_plugin_decides() {
    let world = World::with_registry("v1.2.0");
    let github = "/repos/acme/plugins/contents/plugins";
    let query = "manifest.json?ref=main";
    let items = |first: &str| {
        format!(
            "{{name: ours, type: static, url: '{0}/registry', priority: 10}}, {{name: far, {first}, priority: 1}}",
            world.server.url()
        )
    };
    world.registries(&items("owner: acme, repo: plugins"));
    // The one asked first does not know it, under either name; nor is a token there to show.
    world.ok(&["plugin", "info", "workflow-plugin-demo"]);
    let asked: Vec<String> = world
        .server
        .seen_for("")
        .into_iter()
        .map(|seen| seen.path)
        .collect();
    assert_eq!(
        asked,
        [
            format!("{github}/workflow-plugin-demo/{query}"),
            format!("{github}/demo/{query}"),
            "/registry/plugins/workflow-plugin-demo/manifest.json".to_owned(),
            PLAIN.to_owned(),
        ]
    );

    // Now it knows it, and says that it is private: the source is written down, for installs.
    let mut manifest = world.manifest("v1.2.0");
    manifest["private"] = true.into();
    world.list(&format!("{github}/demo/{query}"), &manifest);
    world.server.forget();
    let run = world
        .run(&["plugin", "add", "demo@v1.2.0"])
        .env("GITHUB_TOKEN", TOKEN)
        .output()
        .expect_code(0);
    assert!(!run.stderr().contains(TOKEN));
    assert!(
        world
            .read("wfctl.yaml")
            .contains(&format!("source: {SOURCE}"))
    );
    let asked = &world.server.seen_for(query)[0];
    assert_eq!(asked.headers["authorization"], format!("Bearer {TOKEN}"));

    // One that cannot be asked does not leave the decision to the next.
    world.ok(&["plugin", "remove", "demo"]);
    world.registries(&items(
        "type: static, url: 'http://127.0.0.1:1/x', token: '${R_TOKEN}'",
    ));
    let refused = world.run(&["plugin", "add", "demo"]).output();
    assert!(
        refused.stderr().contains("package/no-token") && refused.stderr().contains("R_TOKEN"),
        "{}",
        refused.stderr()
    );
    world.registries(&items(&format!(
        "type: static, url: '{}/closed', token: '${{R_TOKEN}}'",
        world.server.url()
    )));
    world.server.redirect(
        "/closed/plugins/demo/manifest.json",
        "http://localhost.test:1/".to_owned(),
    );
    let refused = world
        .run(&["plugin", "add", "demo"])
        .env("R_TOKEN", TOKEN)
        .output();
    assert!(
        refused.stderr().contains("package/insecure-redirect"),
        "{}",
        refused.stderr()
    );
    assert!(!world.path().join("data/plugins/demo").exists());

    // Nobody knows it, or nobody is configured.
    fs::remove_file(world.path().join(".wfctl.yaml")).unwrap();
    let refused = world
        .run(&["plugin", "add", "demo@v1.2.0"])
        .env("HOME", &world.path().display().to_string())
        .output()
        .expect_code(2);
    assert!(
        refused.stderr().contains("package/no-source"),
        "{}",
        refused.stderr()
    );
}

#[test]
fn registries_are_added_listed_and_taken_out() {
    let world = World::with_registry("v1.2.0");
    let home = tempfile::tempdir().unwrap();
    let place = home.path().display().to_string();
    let run = |arguments: &[&str], code: i32| {
        let all = [&["plugin-registry"], arguments, &["--json"]].concat();
        let finished = world.run(&all).env("HOME", &place).output();
        json(&finished.expect_code(code))
    };
    fs::remove_file(world.path().join(".wfctl.yaml")).unwrap();
    assert_eq!(run(&["list"], 0)["registries"], json!([]));
    let url = format!("{}/registry", world.server.url());
    let added = run(&["add", "ours", "--type", "static", "--url", &url], 0);
    let file = home.path().join(".config/wfctl/config.yaml");
    assert_eq!(added["file"], file.display().to_string());
    assert_eq!(added["registries"][0]["priority"], 10);
    let twice = run(&["add", "ours", "--type", "static", "--url", &url], 2);
    assert_eq!(twice["problems"][0]["code"], "package/registry-exists");

    // A plugin without a source is found there.
    world
        .run(&["plugin", "add", "demo"])
        .env("HOME", &place)
        .output()
        .expect_code(0);

    // The project's own counts alone, and what else stands in its file stays.
    world.write(".wfctl.yaml", "# ours\nother: {x: 1}\n");
    let near = [
        "add",
        "near",
        "--owner",
        "acme",
        "--repo",
        "plugins",
        "--project",
    ];
    run(&near, 0);
    assert_eq!(run(&["list"], 0)["registries"][0]["name"], "near");
    let text = world.read(".wfctl.yaml");
    assert!(
        text.starts_with("# ours\nother: {x: 1}\nregistries:\n") && text.contains("branch: main"),
        "{text}"
    );
    let bad = run(
        &["add", "worse", "--owner", "a b", "--repo", "c", "--project"],
        2,
    );
    assert_eq!(bad["problems"][0]["code"], "package/bad-registries");
    assert_eq!(world.read(".wfctl.yaml"), text, "nothing was changed");
    run(&["remove", "near", "--project"], 0);
    let listed = run(&["list"], 0);
    assert_eq!(listed["registries"][0]["name"], "ours");
    run(&["remove", "ours"], 0);
    let gone = run(&["remove", "ours"], 2);
    assert_eq!(gone["problems"][0]["code"], "package/no-registry");
}
