//! `plugin install --check`, `--global`, and plugins that no lock pins.

use super::*;

#[test]
fn check_fails_until_exactly_the_locked_plugins_are_installed_and_changes_nothing() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    let check = ["plugin", "install", "--check", "--json"];
    let missing = world.run(&check).output().expect_code(1);
    let document = json(&missing);
    assert_eq!(document["command"], "plugin install");
    assert_eq!(document["plugins"][0]["status"], "not-installed");
    assert_eq!(document["problems"][0]["code"], "package/not-verified");
    assert!(!world.path().join("data").exists(), "nothing is written");

    world.ok(&["plugin", "install"]);
    assert_eq!(json(&world.ok(&check))["changed"], false);

    // One byte more.
    let executable = world.installed("demo").join("demo");
    let mut bytes = fs::read(&executable).unwrap();
    bytes.push(b'\n');
    fs::write(&executable, &bytes).unwrap();
    world.run(&check).output().expect_code(1);
    assert_eq!(fs::read(&executable).unwrap(), bytes, "nothing is repaired");
    world.ok(&["plugin", "install"]);
    world.ok(&check);

    // A lock that pins more than the manifest wants is not agreed with.
    let manifest = world.read("wfctl.yaml");
    world.write("wfctl.yaml", "version: 1\nplugins: []\n");
    let stale = world.run(&check).output().expect_code(2);
    assert!(
        stale.stderr().contains("package/stale-lock"),
        "{}",
        stale.stderr()
    );
    world.write("wfctl.yaml", &manifest);
}

#[test]
fn global_is_the_users_own_folder() {
    let world = World::with_demo("v1.0.0");
    world.add_demo("v1.0.0");
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let installed = world
        .run(&["plugin", "install", "-g"])
        .env("XDG_DATA_HOME", &data.display().to_string())
        .output()
        .expect_code(0);
    let folder = data.join("tidegate/plugins");
    assert!(folder.join("demo/demo").exists());
    assert!(!world.installed("demo").exists());
    let hint = format!("WFCTL_PLUGIN_DIR={}", folder.display());
    assert!(installed.stderr().contains(&hint), "{}", installed.stderr());
    // The variable is how a project uses it; without it, `list` says that nothing is here.
    let with = world
        .run(&["plugin", "list", "--json"])
        .env("WFCTL_PLUGIN_DIR", &folder.display().to_string())
        .output()
        .expect_code(0);
    assert_eq!(json(&with)["plugins"][0]["status"], "ok");
    let without = world.ok(&["plugin", "list", "--json"]);
    assert_eq!(json(&without)["plugins"][0]["status"], "not-installed");
    // By default it is below the home.
    world
        .run(&["plugin", "install", "--global"])
        .env("HOME", &home.path().display().to_string())
        .env("XDG_DATA_HOME", "")
        .output()
        .expect_code(0);
    assert!(
        home.path()
            .join(".local/share/tidegate/plugins/demo/demo")
            .exists()
    );
    let nowhere = world
        .run(&["plugin", "list", "-g"])
        .env("HOME", "")
        .env("XDG_DATA_HOME", "")
        .output()
        .expect_code(2);
    assert!(
        nowhere.stderr().contains("package/no-home"),
        "{}",
        nowhere.stderr()
    );
    world
        .run(&["plugin", "install", "-g", "--plugin-dir", "x"])
        .output()
        .expect_code(2);
}

#[test]
fn an_archive_by_its_address_needs_its_digest() {
    let world = World::with_demo("v1.0.0");
    let url = format!("{}{}", world.server.url(), download_path("v1.0.0"));
    let bytes = plugin("demo", "v1.0.0", &binary("v1.0.0", &this_platform()));
    let right = digest(&bytes);
    // Nothing is taken on trust.
    world
        .run(&["plugin", "install", "--url", &url])
        .output()
        .expect_code(2);
    let wrong = world
        .run(&[
            "plugin",
            "install",
            "--url",
            &url,
            "--sha256",
            &"0".repeat(64),
        ])
        .output()
        .expect_code(1);
    let said = wrong.stderr();
    assert!(
        said.contains("package/digest-mismatch") && said.contains(&right),
        "{said}"
    );
    assert!(!world.installed("demo").exists());
    for bad in [
        ["--url", "http://example.net/a.tar.gz"],
        ["--url", "nowhere"],
    ] {
        let refused = world
            .run(&[&["plugin", "install"], &bad[..], &["--sha256", &right]].concat())
            .output()
            .expect_code(2);
        assert!(
            refused.stderr().contains("package/bad-source"),
            "{}",
            refused.stderr()
        );
    }
    let other = [
        "plugin", "install", "other", "--url", &url, "--sha256", &right,
    ];
    let refused = world.run(&other).output().expect_code(1);
    assert!(
        refused.stderr().contains("package/bad-descriptor"),
        "{}",
        refused.stderr()
    );

    let installed = world.ok(&[
        "plugin", "install", "demo", "--url", &url, "--sha256", &right, "--json",
    ]);
    let document = json(&installed);
    assert_eq!(document["plugins"][0]["folder"], "demo");
    assert_eq!(document["plugins"][0]["version"], "1.0.0");
    assert_eq!(
        fs::read(world.installed("demo").join("demo")).unwrap(),
        binary("v1.0.0", &this_platform())
    );
    assert!(
        !world.path().join(".wfctl-lock.yaml").exists(),
        "nothing is pinned"
    );
}

#[test]
fn what_was_built_here_is_installed_from_a_folder_or_an_archive() {
    let world = World::new();
    let built = world.path().join("built");
    fs::create_dir_all(built.join("schemas")).unwrap();
    fs::write(built.join("plugin.json"), descriptor("demo", "v2.0.0")).unwrap();
    fs::write(built.join("demo"), b"#!/bin/sh\n").unwrap();
    fs::write(built.join("schemas/a.json"), b"{}").unwrap();
    world.ok(&["plugin", "install", "--local", "built"]);
    assert_eq!(
        tree(&world.installed("demo")),
        [
            (".package-files".to_owned(), 0o644),
            ("demo".to_owned(), 0o755),
            ("plugin.json".to_owned(), 0o644),
            ("schemas/a.json".to_owned(), 0o644),
        ]
    );
    // What the plugin made in its folder is not part of what was built, and stays.
    fs::create_dir(world.installed("demo/out")).unwrap();
    fs::write(world.installed("demo/out/hello"), "mine").unwrap();
    world.ok(&["plugin", "install", "--local", "built"]);
    assert_eq!(
        fs::read(world.installed("demo/out/hello")).unwrap(),
        b"mine"
    );
    let archive = plugin("demo", "v2.1.0", b"#!/bin/sh\nexit 1\n");
    fs::write(world.path().join("demo.tar.gz"), archive).unwrap();
    world.ok(&["plugin", "install", "--local", "demo.tar.gz"]);
    let listed = json(&world.ok(&["plugin", "list", "--json"]));
    assert_eq!(listed["plugins"][0]["installed"]["version"], "2.1.0");
    assert_eq!(listed["plugins"][0]["status"], "extra");

    // A link may lead anywhere.
    std::os::unix::fs::symlink("/etc/passwd", built.join("users")).unwrap();
    let is_refused_for = |why: &str| {
        let refused = world
            .run(&["plugin", "install", "--local", "built"])
            .output()
            .expect_code(2);
        assert!(refused.stderr().contains(why), "{}", refused.stderr());
    };
    is_refused_for("package/bad-source");
    fs::remove_file(built.join("users")).unwrap();
    fs::remove_file(built.join("plugin.json")).unwrap();
    is_refused_for("plugin.json");
}
