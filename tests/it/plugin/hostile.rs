//! Whatever a plugin does, it ends in a named error within its deadline, and nothing stays behind.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value as Json, json};
use tidegate::provider::ErrorClass;
use tidegate::provider::ability::Ability;

use super::*;

fn hostile(mode: &Json) -> Lab {
    let lab = Lab::new("bad", Path::new(env!("CARGO_BIN_EXE_hostile-plugin")));
    lab.mode(mode);
    lab
}

impl Lab {
    fn mode(&self, mode: &Json) {
        fs::write(self.plugins().join("bad/mode.json"), mode.to_string()).unwrap();
    }

    fn manifest(&self, change: impl FnOnce(&mut Json)) {
        let path = self.plugins().join("bad/plugin.json");
        let mut manifest: Json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut manifest);
        fs::write(path, manifest.to_string()).unwrap();
    }

    async fn bad(&self) -> Result<Plugin, Report> {
        self.open("bad", Map::new()).await
    }

    /// The plugin is refused with this code, and is gone.
    #[track_caller]
    fn refused(self, opened: Result<Plugin, Report>, code: &str) -> Report {
        let problem = opened.expect_err("such a plugin cannot be used");
        assert_eq!(problem.code, code, "{problem:?}");
        assert!(
            !problem.fix.is_empty() || !problem.because.is_empty(),
            "{problem:?}"
        );
        self.expect_nothing_left();
        problem
    }
}

/// What is printed first, and what comes of it: the transcripts of every failure of the handshake.
#[tokio::test]
async fn h6_h7_every_wrong_handshake_has_its_own_error_and_kills() {
    let certificate = "A".repeat(600);
    for (line, code) in [
        (
            "\n1|1|unix|/s|grpc||true\n",
            "plugin/handshake-unrecognised",
        ),
        (
            "starting up\n1|1|unix|/s|grpc\n",
            "plugin/handshake-unrecognised",
        ),
        ("1|1|unix\n", "plugin/handshake-unrecognised"),
        ("x|1|unix|/s|grpc\n", "plugin/handshake-core-parse"),
        ("2|1|unix|/s|grpc\n", "plugin/handshake-core-mismatch"),
        ("1|x|unix|/s|grpc\n", "plugin/handshake-app-parse"),
        ("1|2|unix|/s|grpc\n", "plugin/handshake-app-mismatch"),
        ("1|1|pipe|/s|grpc\n", "plugin/handshake-network"),
        ("1|1|tcp|localhost|grpc\n", "plugin/handshake-address"),
        ("1|1|unix|/s|netrpc\n", "plugin/handshake-protocol"),
        (
            &format!("1|1|unix|/s|grpc|{certificate}|true\n"),
            "plugin/handshake-certificate",
        ),
        // The line is right and nobody is there.
        (
            "1|1|unix|/nowhere/at-all|grpc||true\n",
            "plugin/unreachable",
        ),
        ("1|1|tcp|127.0.0.1:1|grpc\n", "plugin/unreachable"),
    ] {
        let lab = hostile(&json!({"line": line}));
        let opened = lab.bad().await;
        lab.refused(opened, code);
    }
}

/// A debug line before the handshake is the commonest mistake there is, and may hold anything.
#[tokio::test]
async fn a_first_line_is_cut_after_its_secrets_are_hidden() {
    for before in [101, 962] {
        let line = format!("{}tok-SECRET-abc123xyz\n", "x".repeat(before));
        let lab = hostile(&json!({"line": line}));
        lab.masker.admit("token", "tok-SECRET-abc123xyz".to_owned());
        let opened = lab.bad().await;
        let problem = lab.refused(opened, "plugin/handshake-unrecognised");
        let text = format!("{problem:?}");
        assert!(!text.contains("tok-"), "{text}");
        assert!(text.contains("xxx"), "{text}");
    }
}

/// What a plugin says about itself is nothing against what the kernel says about its socket.
#[tokio::test]
async fn a_socket_of_another_process_is_not_the_plugins() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ours");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (address, why) in [
        (format!("unix|{}", socket.display()), "another process"),
        ("tcp|127.0.0.1:1".to_owned(), "a port does not say"),
    ] {
        let lab = hostile(&json!({"line": format!("1|1|{address}|grpc|by-process\n")}));
        let opened = lab.bad().await;
        let problem = lab.refused(opened, "plugin/unreachable");
        assert!(problem.because[0].contains(why), "{problem:?}");
    }
}

#[tokio::test]
async fn h8_silence_ends_at_the_deadline_and_kills() {
    let mut lab = hostile(&json!({}));
    lab.deadlines.handshake = Duration::from_millis(300);
    let started = Instant::now();
    let opened = lab.bad().await;
    assert!(started.elapsed() < Duration::from_secs(5));
    lab.refused(opened, "plugin/handshake-timeout");
}

#[tokio::test]
async fn a_plugin_that_ends_at_once_is_quoted() {
    let lab = hostile(&json!({"exit": 3, "stderr": "licence expired"}));
    let opened = lab.bad().await;
    let problem = lab.refused(opened, "plugin/exited");
    assert!(problem.message.contains("exit status: 3"), "{problem:?}");
    assert!(
        problem
            .because
            .iter()
            .any(|why| why.contains("licence expired")),
        "{problem:?}"
    );
}

#[tokio::test]
async fn ten_megabytes_without_a_line_end_are_refused_early() {
    let lab = hostile(&json!({"print_bytes": 10 * 1024 * 1024}));
    let opened = lab.bad().await;
    lab.refused(opened, "plugin/handshake-unrecognised");
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused() {
    let lab = hostile(&json!({"not_utf8": true}));
    let opened = lab.bad().await;
    lab.refused(opened, "plugin/handshake-unrecognised");
}

#[tokio::test]
async fn a_second_handshake_is_only_text() {
    let lab = hostile(&json!({"serve": true, "handshake_twice": true}));
    let plugin = lab.bad().await.unwrap();
    plugin.close().await;
    lab.expect_nothing_left();
}

/// GetManifest may be missing or empty; anything else wrong with it stops the load.
#[tokio::test]
async fn h17_the_manifest_on_disk_stands_in_for_a_missing_one() {
    for (said, expected) in [
        (json!(null), "1.0.0"),
        (json!("empty"), "1.0.0"),
        (json!("7.7.7"), "7.7.7"),
    ] {
        let lab = hostile(&json!({"serve": true, "manifest": said}));
        let plugin = lab.bad().await.unwrap();
        assert_eq!(plugin.version(), expected);
        plugin.close().await;
        lab.expect_nothing_left();
    }
    let lab = hostile(&json!({"serve": true, "manifest": "internal"}));
    let opened = lab.bad().await;
    lab.refused(opened, "plugin/get-manifest");
}

#[tokio::test]
async fn h18_h19_h20_the_registry_decides_what_is_served() {
    for (registry, code) in [
        ("unimplemented", "plugin/not-a-provider"),
        ("internal", "plugin/registry"),
        ("module", "plugin/not-a-provider"),
        ("no-driver", "plugin/no-driver"),
    ] {
        let lab = hostile(&json!({"serve": true, "registry": registry}));
        let opened = lab.bad().await;
        lab.refused(opened, code);
    }
    // The names of other packages beside them are nobody's business.
    let lab = hostile(&json!({"serve": true}));
    let plugin = lab.bad().await.unwrap();
    plugin.close().await;
}

#[tokio::test]
async fn h22_only_v2_is_driven() {
    for version in ["", "v1", "V2", "v2.0"] {
        let lab = hostile(&json!({"serve": true, "plan_version": version}));
        let opened = lab.bad().await;
        let problem = lab.refused(opened, "plugin/plan-version");
        assert!(problem.message.contains("`bad`"), "{problem:?}");
        assert!(problem.fix[0].contains("newer release"), "{problem:?}");
    }
}

#[tokio::test]
async fn h23_canonical_keys_are_the_plugins_or_the_default_ones() {
    let lab = hostile(&json!({"serve": true}));
    let plugin = lab.bad().await.unwrap();
    assert_eq!(plugin.canonical_keys().len(), 32);
    plugin.close().await;
    let lab = hostile(&json!({"serve": true, "canonical_keys": ["name", "flavour"]}));
    let plugin = lab.bad().await.unwrap();
    assert_eq!(plugin.canonical_keys(), ["name", "flavour"]);
    plugin.close().await;
    let lab = hostile(&json!({"serve": true, "canonical_keys": ["name", ""]}));
    let opened = lab.bad().await;
    lab.refused(opened, "plugin/canonical-keys");
}

#[tokio::test]
async fn h24_h25_a_service_that_is_not_there_is_never_called() {
    // It would hang if it were.
    let lab = hostile(&json!({"serve": true, "hang_on": "IaCProviderRegionLister/ListRegions"}));
    let plugin = lab.bad().await.unwrap();
    assert!(!plugin.abilities().contains(&Ability::Regions));
    let error = plugin.regions("dev").await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unimplemented);
    plugin.close().await;
    // Advertised, and yet not there: the same kind of error.
    let lab = hostile(&json!({"serve": true, "serves": "IaCProviderRegionLister"}));
    let plugin = lab.bad().await.unwrap();
    assert!(plugin.abilities().contains(&Ability::Regions));
    let error = plugin.regions("dev").await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unimplemented);
    plugin.close().await;
    lab.expect_nothing_left();
}

#[tokio::test]
async fn every_question_of_loading_has_a_deadline_and_a_name() {
    for (call, code) in [
        ("PluginService/GetManifest", "plugin/get-manifest"),
        ("PluginService/GetContractRegistry", "plugin/registry"),
        ("IaCProviderRequired/Initialize", "plugin/initialize"),
        ("IaCProviderRequired/Capabilities", "plugin/capabilities"),
    ] {
        for how in ["hang_on", "die_on", "garbage_on", "huge_on"] {
            let mut lab = hostile(&json!({"serve": true, how: call}));
            if how == "hang_on" {
                lab.deadlines.setup = Duration::from_secs(3);
                lab.deadlines.initialize = Duration::from_secs(3);
            }
            let opened = lab.bad().await;
            lab.refused(opened, code);
        }
    }
}

/// The answer to `create` in every wrong way, and what the engine is told.
#[tokio::test]
async fn wrong_answers_to_create_are_named() {
    for (mode, class, words) in [
        (
            json!({"die_on": "ResourceDriver/Create"}),
            ErrorClass::Unknown,
            "ended, or hung up",
        ),
        (
            json!({"hang_on": "ResourceDriver/Create"}),
            ErrorClass::Unknown,
            "did not answer within",
        ),
        (
            json!({"huge_on": "ResourceDriver/Create"}),
            ErrorClass::Unknown,
            "larger than",
        ),
        (
            json!({"garbage_on": "ResourceDriver/Create"}),
            ErrorClass::Unknown,
            "",
        ),
        (
            json!({"answers_name": "another"}),
            ErrorClass::Unknown,
            "name `another` instead of `web`",
        ),
        (
            json!({"answers_type": "infra.dns"}),
            ErrorClass::Unknown,
            "type `infra.dns`",
        ),
        (
            json!({"answers_id": ""}),
            ErrorClass::Unknown,
            "without the provider's id",
        ),
        (
            json!({"answers_outputs": "[1]"}),
            ErrorClass::Invalid,
            "must be a JSON object",
        ),
        (
            json!({"answers_outputs": "{broken"}),
            ErrorClass::Invalid,
            "outputs",
        ),
        (
            json!({"refuse_on": "ResourceDriver/Create", "code": 5, "text": "unknown resource type"}),
            ErrorClass::Invalid,
            "unknown resource type",
        ),
        (
            json!({"refuse_on": "ResourceDriver/Create", "code": 2, "text": "iac: rate limited"}),
            ErrorClass::Throttled,
            "rate limited",
        ),
    ] {
        let mut all = mode.clone();
        all["serve"] = json!(true);
        let mut lab = hostile(&all);
        if mode.get("hang_on").is_some() {
            lab.deadlines.effect = Duration::from_secs(2);
        }
        let plugin = lab.bad().await.unwrap();
        let spec = lab.spec("infra.vpc", "web", &[]);
        let error = driver(&plugin, "infra.vpc")
            .create(&operation(), &spec)
            .await
            .unwrap_err();
        assert_eq!(error.class, class, "{mode}: {error}");
        assert!(error.message.contains(words), "{mode}: {error}");
        assert!(
            error.message.len() < 5000,
            "{mode}: {}",
            error.message.len()
        );
        plugin.close().await;
        lab.expect_nothing_left();
    }
}

#[tokio::test]
async fn only_the_first_of_two_answers_counts() {
    let lab = hostile(&json!({"serve": true, "twice_on": "ResourceDriver/Create"}));
    let plugin = lab.bad().await.unwrap();
    let spec = lab.spec("infra.vpc", "web", &[]);
    let made = driver(&plugin, "infra.vpc")
        .create(&operation(), &spec)
        .await;
    assert_eq!(made.unwrap().provider_id, "id-1");
    plugin.close().await;
    lab.expect_nothing_left();
}

#[tokio::test]
async fn h9_a_flood_on_stderr_neither_blocks_nor_drowns() {
    let lab = hostile(&json!({"serve": true, "flood_on": "IaCProviderRequired/Initialize"}));
    let plugin = lab.bad().await.unwrap();
    plugin.close().await;
    let bytes: usize = lab.said().iter().map(String::len).sum();
    assert!(bytes < 300_000, "{bytes} bytes were shown");
    lab.expect_nothing_left();
}

#[tokio::test]
async fn h36_a_plugin_that_ignores_shutdown_is_killed_with_its_children() {
    let lab = hostile(&json!({"serve": true, "ignores_shutdown": true, "fork": true}));
    let plugin = lab.bad().await.unwrap();
    assert_eq!(processes(&lab.plugins().display().to_string()).len(), 2);
    let started = Instant::now();
    plugin.close().await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    lab.expect_nothing_left();
}

#[tokio::test]
async fn a_child_that_keeps_the_pipe_open_keeps_nobody_waiting() {
    // The plugin itself ends; only its child still holds the pipes.
    let mut lab = hostile(&json!({"exit": 1, "fork": true}));
    lab.deadlines.handshake = Duration::from_secs(30);
    let started = Instant::now();
    let opened = lab.bad().await;
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    lab.refused(opened, "plugin/exited");
}

#[tokio::test]
async fn a_dropped_plugin_is_gone_and_so_is_its_folder() {
    let lab = hostile(&json!({"serve": true}));
    let plugin = lab.bad().await.unwrap();
    let pids = processes(&lab.plugins().display().to_string());
    let pid = pids[0].split(' ').next().unwrap();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let folder = environment
        .split('\0')
        .find_map(|line| line.strip_prefix("PLUGIN_UNIX_SOCKET_DIR="))
        .unwrap()
        .to_owned();
    let mode = fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(plugin);
    lab.expect_nothing_left();
    assert!(!Path::new(&folder).exists());
}

#[tokio::test]
async fn what_the_manifest_says_is_checked_before_anything_starts() {
    let refusal = |key: &'static str, value: Json, code: &'static str| async move {
        // It would leave a mark if it were started.
        let lab = hostile(&json!({"exit": 3}));
        lab.manifest(|manifest| {
            let at = manifest.pointer_mut(key).expect("a place");
            *at = value;
        });
        let opened = lab.bad().await;
        lab.refused(opened, code);
    };
    refusal(
        "/capabilities/iacProvider/computePlanVersion",
        json!("v1"),
        "plugin/plan-version",
    )
    .await;
    // A manifest that breaks its schema is no reason to say that there is no plugin, nor to take another
    // one that comes after it.
    let lab = hostile(&json!({"exit": 3}));
    let other = install(
        &lab.plugins(),
        "worse",
        Path::new(env!("CARGO_BIN_EXE_hostile-plugin")),
    );
    let manifest = fs::read_to_string(lab.plugins().join("bad/plugin.json")).unwrap();
    fs::write(other.join("plugin.json"), manifest).unwrap();
    lab.manifest(|manifest| manifest["iacProvider"] = json!({"resourceReplacer": "yes"}));
    let opened = lab.bad().await;
    let problem = lab.refused(opened, "plugin/manifest");
    assert!(problem.message.contains("`bad`"), "{problem:?}");
    assert!(
        problem.because[0].contains("resourceReplacer"),
        "{problem:?}"
    );
    for (minimum, code) in [
        ("99.0.0", "plugin/engine-too-old"),
        // What is no version is passed over; this one is started, and ends.
        ("many", "plugin/exited"),
    ] {
        let lab = hostile(&json!({"exit": 3}));
        lab.manifest(|manifest| manifest["minEngineVersion"] = json!(minimum));
        let opened = lab.bad().await;
        lab.refused(opened, code);
    }
}

#[tokio::test]
async fn a_manifest_that_says_no_plan_version_is_warned_about() {
    let lab = hostile(&json!({"serve": true}));
    lab.manifest(|manifest| {
        manifest["capabilities"]["iacProvider"]
            .as_object_mut()
            .unwrap()
            .remove("computePlanVersion");
    });
    let plugin = lab.bad().await.unwrap();
    plugin.close().await;
    assert!(
        lab.said()
            .contains(&"plugin/plan-version-unsaid".to_owned())
    );
}

#[tokio::test]
async fn what_is_missing_is_said_with_what_is_there() {
    let lab = hostile(&json!({}));
    let problem = lab.open("cloud", Map::new()).await.unwrap_err();
    assert_eq!(problem.code, "plugin/not-found");
    assert!(
        problem.because[0].contains("`bad` (provider bad)"),
        "{problem:?}"
    );
    fs::remove_file(lab.plugins().join("bad/bad")).unwrap();
    assert_eq!(lab.bad().await.unwrap_err().code, "plugin/no-executable");
    fs::remove_dir_all(lab.plugins()).unwrap();
    let problem = lab.bad().await.unwrap_err();
    assert_eq!(problem.code, "plugin/not-found");
    assert!(
        problem.because[0].contains("there is no plugin"),
        "{problem:?}"
    );

    let digest = "0".repeat(64);
    fs::write(
        lab.folder.path().join(".wfctl-lock.yaml"),
        format!("version: 1\nplugins: {{bad: {{version: v1.0.0, sha256: \"{digest}\"}}}}"),
    )
    .unwrap();
    let problem = lab.bad().await.unwrap_err();
    assert!(
        problem
            .because
            .iter()
            .any(|why| why.ends_with("locked: bad"))
            && problem.fix[0].contains("tidegate plugin install"),
        "{problem:?}"
    );
}

#[tokio::test]
async fn h37_a_linked_plugin_folder_is_left_out_and_said_so() {
    let lab = hostile(&json!({"serve": true}));
    let elsewhere = lab.folder.path().join("elsewhere");
    fs::rename(lab.plugins().join("bad"), &elsewhere).unwrap();
    symlink(&elsewhere, lab.plugins().join("bad")).unwrap();
    let opened = lab.bad().await;
    let problem = lab.refused(opened, "plugin/not-found");
    assert!(
        problem.because.iter().any(|why| why.contains("a link")),
        "{problem:?}"
    );
}

#[tokio::test]
async fn h38_a_locked_digest_is_held_at_launch() {
    use sha2::Digest as _;
    let binary = fs::read(env!("CARGO_BIN_EXE_hostile-plugin")).unwrap();
    let digest: String = sha2::Sha256::digest(&binary)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let other = "0".repeat(64);
    let platform = tidegate::package::name::this_platform();
    for (file, text, code) in [
        (
            ".wfctl-lock.yaml",
            format!("version: 1\nplugins:\n  bad:\n    version: v1.0.0\n    sha256: {digest}\n"),
            None,
        ),
        (
            ".wfctl-lock.yaml",
            format!("version: 1\nplugins: {{bad: {{version: v1.0.0, sha256: \"{other}\"}}}}"),
            Some("plugin/digest-mismatch"),
        ),
        // The manifest's name counts as well, and this platform's entry wins.
        (
            ".wfctl-lock.yaml",
            format!(
                "version: 1\nplugins: {{workflow-plugin-bad: {{version: v1.0.0, sha256: \"{other}\", platforms: {{{platform}: {{url: \"https://example.net/a\", sha256: \"{other}\", binary_sha256: \"{digest}\"}}}}}}}}"
            ),
            None,
        ),
        (
            ".wfctl-lock.yaml",
            "plugins: [".to_owned(),
            Some("plugin/lock-unreadable"),
        ),
        // Not of a version that we know, a digest that is none: nobody knows what it trusts.
        (
            ".wfctl-lock.yaml",
            format!("version: 2\nplugins: {{bad: {{sha256: {digest}}}}}"),
            Some("plugin/lock-unreadable"),
        ),
        (
            ".wfctl-lock.yaml",
            "version: 1\nplugins: {other: {version: v1.0.0, sha256: x}}".to_owned(),
            Some("plugin/lock-unreadable"),
        ),
        (
            ".wfctl-lock.yaml",
            format!("version: 1\nplugins: {{other: {{version: v1.0.0, sha256: \"{other}\"}}}}"),
            None,
        ),
        (
            ".wfctl.yaml",
            format!("plugins: {{bad: {{sha256: {digest}}}}}"),
            None,
        ),
        (
            ".wfctl.yaml",
            format!("plugins: {{bad: {{sha256: \"{other}\"}}}}"),
            Some("plugin/digest-mismatch"),
        ),
        (
            ".wfctl.yaml",
            "\0".to_owned(),
            Some("plugin/lock-unreadable"),
        ),
    ] {
        let lab = hostile(&json!({"serve": true}));
        fs::write(lab.folder.path().join(file), &text).unwrap();
        let opened = lab.bad().await;
        match code {
            Some(code) => {
                lab.refused(opened, code);
            }
            None => {
                opened
                    .unwrap_or_else(|problem| panic!("{text}: {problem:?}"))
                    .close()
                    .await
            }
        }
    }
}

/// What runs of a script is its interpreter: the script is what is locked, and what is compared.
#[tokio::test]
async fn h38_a_script_can_be_locked_too() {
    use sha2::Digest as _;
    let lab = hostile(&json!({"serve": true}));
    let path = lab.plugins().join("bad/bad");
    let script = format!("#!/bin/sh\nexec {}\n", env!("CARGO_BIN_EXE_hostile-plugin"));
    fs::remove_file(&path).unwrap();
    fs::write(&path, &script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let digest: String = sha2::Sha256::digest(&script)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let lock = format!("version: 1\nplugins: {{bad: {{version: v1.0.0, sha256: \"{digest}\"}}}}\n");
    fs::write(lab.folder.path().join(".wfctl-lock.yaml"), lock).unwrap();
    lab.bad().await.unwrap().close().await;
    fs::write(&path, script + "# changed\n").unwrap();
    let opened = lab.bad().await;
    lab.refused(opened, "plugin/digest-mismatch");
}

/// A lock that leads nowhere is there all the same: nobody knows what it trusts.
#[tokio::test]
async fn h38_a_lock_that_is_a_dangling_link_stops_everything() {
    let lab = hostile(&json!({"serve": true}));
    symlink(
        "/nowhere/at-all",
        lab.folder.path().join(".wfctl-lock.yaml"),
    )
    .unwrap();
    let opened = lab.bad().await;
    lab.refused(opened, "plugin/lock-unreadable");
}

#[tokio::test]
async fn an_executable_for_another_machine_is_said_to_be_one() {
    let lab = hostile(&json!({"serve": true}));
    let path = lab.plugins().join("bad/bad");
    let mut bytes = fs::read(&path).unwrap();
    // An arm, wherever this runs.
    bytes.splice(18..20, 0x28_u16.to_le_bytes());
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let problem = lab.bad().await.unwrap_err();
    assert!(
        problem
            .because
            .iter()
            .any(|why| why.contains("built for arm, and this machine is")),
        "{problem:?}"
    );
}

#[tokio::test]
async fn h39_two_of_one_plugin_run_side_by_side() {
    let lab = hostile(&json!({"serve": true}));
    let (one, other) = tokio::join!(lab.bad(), lab.bad());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(processes(&lab.plugins().display().to_string()).len(), 2);
    tokio::join!(one.close(), other.close());
    lab.expect_nothing_left();
}

/// It serves HTTP/2, its own services, and nothing of what a plugin carries beside them.
#[tokio::test]
async fn h13_a_plugin_without_stdio_broker_health_and_reflection_works() {
    for mode in [
        json!({"serve": true, "notes_calls": true}),
        json!({"serve": true, "notes_calls": true, "no_controller": true}),
    ] {
        let lab = hostile(&mode);
        let plugin = lab.bad().await.unwrap();
        let spec = lab.spec("infra.vpc", "web", &[]);
        let made = driver(&plugin, "infra.vpc")
            .create(&operation(), &spec)
            .await
            .unwrap();
        assert_eq!(made.provider_id, "id-1");
        // Without a controller there is nobody to ask for the end, and it ends all the same.
        plugin.close().await;
        lab.expect_nothing_left();
        let calls = fs::read_to_string(lab.plugins().join("bad/calls.txt")).unwrap();
        assert!(calls.contains("GRPCStdio/StreamStdio"), "{calls}");
    }
}

/// Ten minutes pass at once: whoever pings on a timer would have to do it now.
#[tokio::test]
async fn h16_ten_idle_minutes_pass_without_a_ping() {
    let lab = hostile(&json!({"serve": true}));
    let plugin = lab.bad().await.unwrap();
    let frames = lab.plugins().join("bad/frames.txt");
    let seen = |frame: &str| {
        let text = fs::read_to_string(&frames).unwrap_or_default();
        text.lines().filter(|line| *line == frame).count()
    };
    // Loading has called it, so frames are seen for what they are.
    assert!(seen("HEADERS") > 0);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(600)).await;
    tokio::time::resume();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(seen("PING"), 0);
    let spec = lab.spec("infra.vpc", "web", &[]);
    let made = driver(&plugin, "infra.vpc")
        .create(&operation(), &spec)
        .await;
    assert!(made.is_ok(), "{made:?}");
    plugin.close().await;
    lab.expect_nothing_left();
}

#[tokio::test]
async fn a_plugin_that_ends_when_it_is_offered_tls_is_asked_without() {
    let lab = hostile(&json!({"serve": true, "exit_when_offered_tls": true}));
    let plugin = lab.bad().await.unwrap();
    assert!(lab.said().iter().any(|line| line.contains("no TLS here")));
    plugin.close().await;
    lab.expect_nothing_left();
}

/// One certificate in the handshake, another on the socket.
#[tokio::test]
async fn whoever_answers_must_hold_the_certificate_of_the_handshake() {
    let lab = hostile(&json!({"serve": true, "impostor": true}));
    let opened = lab.bad().await;
    let problem = lab.refused(opened, "plugin/unreachable");
    assert!(
        problem.because[0].contains("mutual TLS"),
        "{:?}",
        problem.because
    );
}
