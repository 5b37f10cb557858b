//! Every service of the contract, answered by a Go plugin on the launch library existing plugins
//! are built on, and by one of the same behaviour on our own SDK.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt as _;
use std::process::Command;
use std::sync::OnceLock;

use tidegate::provider::ErrorClass;
use tidegate::provider::ability::{
    Ability, DriftClass, Hints, Job, JobHandle, JobState, LogKind, LogWish, MigrationRepair,
    Proposal, ProposedStep, RemarkSeverity, Requirement,
};
use tidegate::provider::plugin::REQUEST_BYTES_MAX;
use tidegate::resource::{ActionKind, Output, Reference};

use super::*;

/// The Go plugin, built once; `None` without Go.
pub(super) fn executable() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            harness::lab_tool("go/bin/go").map(|go| {
                let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/go-provider");
                let build = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-provider");
                harness::copy_tree(&sources, &build);
                fs::write(
                    build.join("descriptors.bin"),
                    tidegate_plugin::FILE_DESCRIPTOR_SET,
                )
                .unwrap();
                let status = Command::new(go)
                    .args(["build", "-o", "files", "."])
                    .current_dir(&build)
                    .status()
                    .expect("go starts");
                assert!(status.success(), "the Go plugin builds");
                build.join("files")
            })
        })
        .as_deref()
}

/// The plugin on our SDK.
pub(super) fn own_executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_files-plugin"))
}

/// A lab with the Go plugin, open; `None` without Go.
async fn files() -> Option<(Lab, Plugin)> {
    let Some(executable) = executable() else {
        harness::skip_without("go");
        return None;
    };
    Some(opened(executable).await)
}

/// Both plugins, open: in Go, if there is Go, and in Rust.
async fn peers() -> Vec<(Lab, Plugin)> {
    let mut all: Vec<(Lab, Plugin)> = files().await.into_iter().collect();
    all.push(opened(own_executable()).await);
    all
}

async fn opened(executable: &Path) -> (Lab, Plugin) {
    open_files(Lab::new("files", executable)).await
}

async fn open_files(mut lab: Lab) -> (Lab, Plugin) {
    lab.variables.push((
        "FILES_TOKEN".to_owned(),
        "token-of-the-files-4711".to_owned(),
    ));
    lab.variables
        .push(("GITHUB_TOKEN".to_owned(), "ghp_never".to_owned()));
    for name in ["PLUGIN_CLIENT_CERT", "PLUGIN_MULTIPLEX_GRPC"] {
        lab.variables.push((name.to_owned(), "leaked".to_owned()));
    }
    let settings = Map::from([
        (
            "root".to_owned(),
            text(&lab.folder.path().join("root").display().to_string()),
        ),
        ("region".to_owned(), text("here1")),
    ]);
    let plugin = lab
        .open("files", settings)
        .await
        .unwrap_or_else(|problem| panic!("{problem:?}"));
    (lab, plugin)
}

#[tokio::test]
async fn h1_h2_h3_h4_h21_the_go_plugin_sees_what_it_may_and_nothing_else() {
    let Some((lab, plugin)) = files().await else {
        return;
    };
    let seen = fs::read_to_string(lab.folder.path().join("root/seen.txt")).unwrap();
    let folder = lab.plugins().join("files");
    let mut names: Vec<&str> = Vec::new();
    for line in seen.lines().skip(3) {
        let name = line.split('=').next().unwrap_or_default();
        // The certificate has lines of its own.
        let is_name = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
        if line.contains('=') && name.bytes().all(is_name) {
            names.push(name);
        }
    }
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "FILES_TOKEN",
            "HOME",
            "PATH",
            "PLUGIN_CLIENT_CERT",
            "PLUGIN_MAX_PORT",
            "PLUGIN_MIN_PORT",
            "PLUGIN_PROTOCOL_VERSIONS",
            "PLUGIN_UNIX_SOCKET_DIR",
            "TIDEGATE_PLUGIN_HOST",
            "WORKFLOW_PLUGIN",
        ]
    );
    assert!(!seen.contains("leaked"), "{seen}");
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(
        lines[0],
        format!("args=[{:?}]", folder.join("files").display().to_string())
    );
    assert_eq!(lines[1], format!("cwd={}", folder.display()));
    assert!(lines[2].contains("provider:files"), "{}", lines[2]);
    // Its `Capabilities` refuses to answer before `Initialize`; it did answer.
    assert_eq!((plugin.name(), plugin.version()), ("files", "1.2.3"));
    assert_eq!(plugin.kinds().len(), 4);
    plugin.close().await;
    lab.expect_nothing_left();
}

#[tokio::test]
async fn h10_h26_a_resource_from_nothing_to_nothing() {
    for (lab, plugin) in peers().await {
        let database = driver(&plugin, "infra.database");
        let spec = lab.spec(
            "infra.database",
            "db",
            &[("size", text("s")), ("region", text("here1"))],
        );
        let by_name = Recorded::by_name(spec.address.clone(), spec.kind.clone());
        assert_eq!(
            database.read(&by_name).await.unwrap_err().class,
            ErrorClass::NotFound
        );

        let made = database.create(&operation(), &spec).await.unwrap();
        assert!(matches!(made.outputs["password"], Output::Sensitive(_)));
        // `false` in the map has no effect, and Go's 5.0 is 5.
        assert!(matches!(&made.outputs["region"], Output::Public(value) if value == "here1"));
        assert!(
            matches!(&made.outputs["id_number"], Output::Public(value) if *value == serde_json::json!(5))
        );
        assert_eq!(database.is_sensitive("admin_note"), Some(true));
        assert_eq!(database.is_sensitive("region"), Some(false));
        assert_eq!(database.is_sensitive("password"), Some(true));
        assert_eq!(
            database
                .create(&operation(), &spec)
                .await
                .unwrap_err()
                .class,
            ErrorClass::AlreadyExists
        );

        let prior = recorded(&spec, made);
        let same = database.diff(&prior, &spec).await.unwrap();
        assert!(!same.needs_update && !same.needs_replace && same.changes.is_empty());
        let larger = lab.spec(
            "infra.database",
            "db",
            &[("size", text("l")), ("region", text("here1"))],
        );
        let diff = database.diff(&prior, &larger).await.unwrap();
        assert!(diff.needs_update && !diff.needs_replace);
        assert_eq!(
            (diff.changes[0].path.as_str(), &diff.changes[0].new),
            ("size", &serde_json::json!("l"))
        );
        let moved = lab.spec(
            "infra.database",
            "db",
            &[("size", text("s")), ("region", text("there1"))],
        );
        assert!(database.diff(&prior, &moved).await.unwrap().needs_replace);

        let changed = database
            .update(&operation(), &prior, &larger)
            .await
            .unwrap();
        assert_eq!(changed.provider_id, prior.provider_id);
        assert!(database.health(&prior).await.unwrap().healthy);
        // Another id is another resource.
        let other = Recorded {
            provider_id: "file-0".to_owned(),
            ..prior.clone()
        };
        assert_eq!(
            database.read(&other).await.unwrap_err().class,
            ErrorClass::NotFound
        );
        database.delete(&operation(), &prior).await.unwrap();
        database
            .delete(&operation(), &prior)
            .await
            .expect("gone is what was wanted");
        assert!(!database.health(&prior).await.unwrap().healthy);
        plugin.close().await;
    }
}

/// Values that are known only after apply never go over the wire; their change is planned anyway.
#[tokio::test]
async fn unknown_values_and_rotated_secrets_are_planned_as_changes() {
    for (lab, plugin) in peers().await {
        let service = driver(&plugin, "infra.container_service");
        let secret = |text: &str| {
            Value::Map(Map::from([(
                "KEY".to_owned(),
                Value::Secret(lab.masker.admit("KEY", text.to_owned())),
            )]))
        };
        let spec = |secrets: Value| {
            lab.spec(
                "infra.container_service",
                "web",
                &[("env_vars_secret", secrets)],
            )
        };
        let first = spec(secret("first-secret-value"));
        let prior = recorded(&first, service.create(&operation(), &first).await.unwrap());
        assert!(
            service
                .diff(&prior, &first)
                .await
                .unwrap()
                .changes
                .is_empty()
        );

        let rotated = service
            .diff(&prior, &spec(secret("second-secret-value")))
            .await
            .unwrap();
        assert!(rotated.needs_update);
        assert_eq!(rotated.changes[0].path, "env_vars_secret.KEY");

        let waiting = spec(Value::Map(Map::from([(
            "KEY".to_owned(),
            Value::Unknown(Reference {
                address: Address::new("db"),
                field: "password".to_owned(),
            }),
        )])));
        let diff = service.diff(&prior, &waiting).await.unwrap();
        assert!(diff.needs_update);
        assert!(
            diff.changes[0].new.get("$unknown").is_some(),
            "{:?}",
            diff.changes
        );
        let error = service
            .update(&operation(), &prior, &waiting)
            .await
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::Invalid);
        plugin.close().await;
    }
}

#[tokio::test]
async fn an_output_sealed_to_be_on_the_safe_side_is_compared_as_it_is() {
    for (lab, plugin) in peers().await {
        let database = driver(&plugin, "infra.database");
        let spec = lab.spec("infra.database", "db", &[("region", text("here1"))]);
        let mut observed = database.create(&operation(), &spec).await.unwrap();
        // As when nobody could say which outputs are secret: everything was sealed.
        for (name, output) in &mut observed.outputs {
            if let Output::Public(serde_json::Value::String(value)) = output {
                *output = Output::Sensitive(lab.masker.admit(name, value.clone()));
            }
        }
        let prior = recorded(&spec, observed);
        let diff = database.diff(&prior, &spec).await.unwrap();
        assert!(!diff.needs_update && !diff.needs_replace, "{diff:?}");
        assert!(diff.changes.is_empty(), "{diff:?}");
        plugin.close().await;
    }
}

#[tokio::test]
async fn h11_h12_output_is_drained_while_a_call_runs() {
    for (lab, plugin) in peers().await {
        let spec = lab.spec("infra.vpc", "loud", &[("print_bytes", number(200 * 1024))]);
        driver(&plugin, "infra.vpc")
            .create(&operation(), &spec)
            .await
            .unwrap();
        plugin.close().await;
        let said = lab.said();
        // Logged by the plugin before its output was redirected, and not by a debugger.
        assert!(
            said.iter().any(|line| line.contains("initialised in")),
            "{said:?}"
        );
        assert!(
            said.iter().all(|line| !line.contains("plugin address")),
            "{said:?}"
        );
    }
}

#[tokio::test]
async fn h14_h15_large_answers_are_taken_and_large_requests_refused() {
    for (lab, plugin) in peers().await {
        let vpc = driver(&plugin, "infra.vpc");
        let spec = lab.spec("infra.vpc", "big", &[("answer_bytes", number(9_000_000))]);
        let made = vpc.create(&operation(), &spec).await.unwrap();
        assert!(
            matches!(&made.outputs["blob"], Output::Public(blob) if blob.as_str().unwrap().len() == 9_000_000)
        );
        // What is on record does not stand in the way of a comparison, however large it is.
        let prior = recorded(&spec, made);
        let same = vpc.diff(&prior, &spec).await.unwrap();
        assert!(!same.needs_update && !same.needs_replace, "{same:?}");
        let grown = lab.spec(
            "infra.vpc",
            "big",
            &[("answer_bytes", number(9_000_000)), ("size", text("xl"))],
        );
        assert!(vpc.diff(&prior, &grown).await.unwrap().needs_update);
        assert!(lab.said().contains(&"plugin/outputs-left-out".to_owned()));
        let heavy = lab.spec(
            "infra.vpc",
            "heavy",
            &[("note", text(&"x".repeat(REQUEST_BYTES_MAX)))],
        );
        let error = vpc.create(&operation(), &heavy).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Invalid);
        assert!(error.message.contains("at most 4194304"), "{error}");
        plugin.close().await;
    }
}

#[tokio::test]
async fn h31_a_sensitive_output_that_is_no_text_fails_and_is_not_lost() {
    let Some((lab, plugin)) = files().await else {
        return;
    };
    let spec = lab.spec("infra.vpc", "odd", &[("odd_secret", Value::Bool(true))]);
    let error = driver(&plugin, "infra.vpc")
        .create(&operation(), &spec)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Invalid);
    assert!(error.message.contains("`odd`"), "{error}");
    assert!(!error.partial.unwrap().provider_id.is_empty());
    plugin.close().await;
}

#[tokio::test]
async fn plain_go_errors_keep_their_words() {
    for (lab, plugin) in peers().await {
        let vpc = driver(&plugin, "infra.vpc");
        for (said, class) in [
            ("iac: rate limited: slow down", ErrorClass::Throttled),
            ("iac: unauthorized", ErrorClass::Denied),
            ("iac: validation error: no such size", ErrorClass::Invalid),
            ("the disk is full", ErrorClass::Unknown),
        ] {
            let spec = lab.spec("infra.vpc", "fails", &[("fail_with", text(said))]);
            let error = vpc.create(&operation(), &spec).await.unwrap_err();
            assert_eq!((error.class, error.message.as_str()), (class, said));
        }
        plugin.close().await;
    }
}

/// Go cuts long headers into small frames; with percent signs this text is three times as long.
#[tokio::test]
async fn a_very_long_error_is_one_calls_error_and_no_others() {
    for (lab, plugin) in peers().await {
        let vpc = driver(&plugin, "infra.vpc");
        let said = format!("iac: forbidden: {}", "\u{fc}".repeat(150_000));
        let long = lab.spec("infra.vpc", "fails", &[("fail_with", text(&said))]);
        let well = lab.spec("infra.vpc", "beside", &[]);
        let doing = operation();
        let (long, well) = tokio::join!(vpc.create(&doing, &long), vpc.create(&doing, &well));
        let error = long.unwrap_err();
        assert_eq!(error.class, ErrorClass::Denied);
        assert!(
            error.message.starts_with("iac: forbidden: \u{fc}\u{fc}"),
            "{error}"
        );
        well.unwrap();
        plugin.close().await;
    }
}

/// Go servers may ask for a new connection now and then: what runs on the old one ends there.
#[tokio::test]
async fn a_connection_that_has_grown_old_is_made_anew() {
    let Some(executable) = executable() else {
        return harness::skip_without("go");
    };
    let lab = Lab::new("files", executable);
    fs::write(lab.plugins().join("files/max-age"), "20ms").unwrap();
    let (lab, plugin) = open_files(lab).await;
    let vpc = driver(&plugin, "infra.vpc");
    let mut made = Vec::new();
    for number in 0..40 {
        let spec = lab.spec("infra.vpc", &format!("vpc-{number}"), &[]);
        let mut answer = vpc.create(&operation(), &spec).await;
        // A call that crossed the server's wish on its way was not begun.
        if let Err(error) = &answer {
            assert_eq!(error.class, ErrorClass::Transient, "{error}");
            answer = vpc.create(&operation(), &spec).await;
        }
        made.push(answer.unwrap().provider_id);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(made.len(), 40);
    plugin.close().await;
}

#[tokio::test]
async fn an_echoed_secret_stays_one() {
    for (lab, plugin) in peers().await {
        let secret = Value::Secret(lab.masker.admit("size", "a-secret-size".to_owned()));
        let spec = lab.spec("infra.vpc", "echo", &[("size", secret)]);
        let made = driver(&plugin, "infra.vpc")
            .create(&operation(), &spec)
            .await
            .unwrap();
        assert!(matches!(made.outputs["size"], Output::Sensitive(_)));
        plugin.close().await;
    }
}

/// Everything beyond single resources.
#[tokio::test]
async fn every_optional_service_answers() {
    for (lab, plugin) in peers().await {
        assert!(plugin.abilities().len() >= 14, "{:?}", plugin.abilities());
        let kind = Kind::new("infra.vpc");
        let vpc = driver(&plugin, "infra.vpc");
        let spec = lab.spec(
            "infra.vpc",
            "net",
            &[("size", text("s")), ("tag", text("mine"))],
        );
        let prior = recorded(&spec, vpc.create(&operation(), &spec).await.unwrap());
        let one = std::slice::from_ref(&prior);

        let hints = Hints {
            cpu: Some("0.5".to_owned()),
            ..Hints::default()
        };
        let sizing = plugin.sizing(&kind, "m", &hints).await.unwrap();
        assert_eq!(sizing.instance_type, "medium");
        assert_eq!(
            (&sizing.specs["cpu"], &sizing.specs["hint"]),
            (&2.into(), &"0.5".into())
        );

        let imported = plugin
            .import(&spec.address, &kind, &prior.provider_id)
            .await
            .unwrap();
        assert_eq!(imported.provider_id, prior.provider_id);
        let missing = plugin
            .import(&spec.address, &kind, "nothing")
            .await
            .unwrap_err();
        assert_eq!(missing.class, ErrorClass::NotFound);

        assert_eq!(plugin.enumerate(&kind).await.unwrap()[0].name, "net");
        assert_eq!(
            plugin.enumerate_by_tag("mine").await.unwrap()[0].provider_id,
            prior.provider_id
        );
        assert!(plugin.enumerate_by_tag("yours").await.unwrap().is_empty());

        assert_eq!(
            plugin.drift(one, &BTreeMap::new()).await.unwrap()[0].class,
            DriftClass::InSync
        );
        let changed = lab.spec("infra.vpc", "net", &[("size", text("xl"))]);
        let desired = BTreeMap::from([(changed.address.clone(), changed)]);
        let drift = plugin.drift(one, &desired).await.unwrap();
        assert_eq!(
            (drift[0].class, drift[0].fields[0].as_str()),
            (DriftClass::Config, "size")
        );
        assert_eq!(drift[0].actual["size"], "s");

        plugin.revoke_credential("files.keys", "old").await.unwrap();
        plugin
            .revoke_credential("files.keys", "gone")
            .await
            .expect("gone is what was wanted");
        let regions = plugin.regions("dev").await.unwrap();
        assert_eq!(
            regions.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(),
            ["here1", "there1"]
        );

        assert_eq!(plugin.owner(&prior).await.unwrap().owner, "");
        plugin.set_owner(&prior, "team-a").await.unwrap();
        assert_eq!(plugin.owned("team-a", None).await.unwrap()[0].name, "net");

        // What could not be finished is told; a call that fails is an error.
        assert!(plugin.finalize("plan-1").await.unwrap().is_empty());
        assert_eq!(
            plugin.finalize("plan-with-failures").await.unwrap()[0].error,
            "the firewall is closed"
        );
        let denied = plugin.finalize("plan-that-breaks").await.unwrap_err();
        assert_eq!(denied.class, ErrorClass::Denied);

        let remarks = plugin
            .validate(&Proposal {
                id: "plan-1".to_owned(),
                created_at: String::new(),
                desired_hash: String::new(),
                steps: vec![ProposedStep {
                    action: ActionKind::Create,
                    desired: lab.spec("infra.vpc", "net", &[("size", text("absurd"))]),
                    current: None,
                    changes: Vec::new(),
                }],
            })
            .await
            .unwrap();
        assert_eq!(
            (remarks[0].severity, remarks[0].field.as_deref()),
            (RemarkSeverity::Error, Some("size"))
        );
        assert_eq!(
            (remarks[1].severity, &remarks[1].resource),
            (RemarkSeverity::Warning, &None)
        );

        let told = driver(&plugin, "infra.database")
            .troubleshoot(&prior, "it broke")
            .await
            .unwrap();
        assert_eq!(
            (told[0].at.as_str(), told[0].cause.as_str()),
            ("2026-01-05T08:00:00Z", "it saw: it broke")
        );
        assert_eq!(
            vpc.troubleshoot(&prior, "x").await.unwrap_err().class,
            ErrorClass::Unimplemented
        );
        vpc.scale(&prior, 3).await.unwrap();
        assert_eq!(
            vpc.scale(&prior, u32::MAX).await.unwrap_err().class,
            ErrorClass::Invalid
        );

        let order = MigrationRepair {
            forced_version: "7".to_owned(),
            ..MigrationRepair::default()
        };
        // Either is a no; our SDK says it for its authors.
        match plugin.repair_migration(&order).await {
            Ok(answer) => assert_eq!(answer.status, "approval_required"),
            Err(error) => assert_eq!(error.class, ErrorClass::Invalid),
        }
        let meant = MigrationRepair {
            confirmation: "FORCE_MIGRATION_METADATA".to_owned(),
            ..order
        };
        assert_eq!(
            plugin.repair_migration(&meant).await.unwrap().applied,
            ["7"]
        );

        let made = plugin
            .bootstrap_state(&Map::from([("bucket".to_owned(), text("states"))]))
            .await
            .unwrap();
        assert_eq!(
            (made.bucket.as_str(), made.region.as_str()),
            ("states", "here1")
        );
        assert_eq!(
            plugin.bootstrap_state(&Map::new()).await.unwrap_err().class,
            ErrorClass::Invalid
        );

        let need = |key: &str, kind: &str| Requirement {
            key: key.to_owned(),
            kind: kind.to_owned(),
            ..Requirement::default()
        };
        let derived = plugin
            .derive(
                "kubernetes",
                "dev",
                &[need("orders", "database"), need("traces", "observability")],
            )
            .await
            .unwrap();
        assert_eq!(
            (derived.accepted, derived.rejected[0].code.as_str()),
            (vec!["orders".to_owned()], "no_such_thing")
        );
        assert_eq!(
            (
                derived.modules[0].name.as_str(),
                &derived.modules[0].satisfies
            ),
            ("orders-db", &vec!["orders".to_owned()])
        );
        assert_eq!(
            derived.notes[0].message,
            "runtime REQUIREMENT_RUNTIME_KUBERNETES"
        );
        assert!(plugin.abilities().contains(&Ability::Requirements));
        plugin.close().await;
        lab.expect_nothing_left();
    }
}

#[tokio::test]
async fn h40_logs_end_when_the_plugin_says_so() {
    for (lab, plugin) in peers().await {
        let prior = Recorded::by_name(Address::new("web"), Kind::new("infra.container_service"));
        let mut text = Vec::new();
        let wish = LogWish {
            kind: LogKind::Build,
            tail: Some(20),
            ..LogWish::default()
        };
        let reading = async {
            let mut take = |piece: &[u8]| text.extend_from_slice(piece);
            plugin.logs(&prior, &wish, &mut take).await
        };
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .expect("it ends")
            .unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "log of web (LOG_CAPTURE_TYPE_BUILD)\ntail=20 follow=false\n"
        );
        plugin.close().await;
        lab.expect_nothing_left();
    }
}

#[tokio::test]
async fn a_job_is_run_watched_and_read() {
    for (lab, plugin) in peers().await {
        let job = Job {
            name: "migrate".to_owned(),
            command: "true".to_owned(),
            variables: BTreeMap::from([("STEP".to_owned(), "1".to_owned())]),
            secret_variables: BTreeMap::from([("KEY".to_owned(), "ref://key".to_owned())]),
            ..Job::default()
        };
        let handle = plugin.run_job(&job).await.unwrap();
        assert_eq!(
            plugin.job_status(&handle).await.unwrap().state,
            JobState::Succeeded
        );
        let mut text = Vec::new();
        let mut take = |piece: &[u8]| text.extend_from_slice(piece);
        plugin.job_logs(&handle, &mut take).await.unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "ran true with map[STEP:1] and map[KEY:ref://key]\n"
        );
        let failing = plugin
            .run_job(&Job {
                command: "false".to_owned(),
                ..job
            })
            .await
            .unwrap();
        let status = plugin.job_status(&failing).await.unwrap();
        assert_eq!((status.state, status.exit_code), (JobState::Failed, 3));
        assert_eq!(
            plugin
                .job_status(&JobHandle::default())
                .await
                .unwrap_err()
                .class,
            ErrorClass::NotFound
        );
        // An answer without an id: nobody knows whether it runs.
        let nameless = plugin.run_job(&Job::default()).await.unwrap_err();
        assert_eq!(nameless.class, ErrorClass::Unknown);
        plugin.close().await;
        lab.expect_nothing_left();
    }
}

/// Mutual TLS for the Go plugin, with a certificate of the curve and the kind that Go's library
/// makes, and the kernel's word for ours: what speaks to the plugin is its host, and nobody else is
/// answered, not even another process of the same user.
#[tokio::test]
async fn s15_a_plugin_answers_its_own_host_and_nobody_else() {
    for (lab, plugin) in peers().await {
        let pids = processes(&lab.plugins().display().to_string());
        let pid = pids[0].split(' ').next().unwrap();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(environment.contains("PLUGIN_CLIENT_CERT=-----BEGIN CERTIFICATE-----"));
        let folder = environment
            .split('\0')
            .find_map(|line| line.strip_prefix("PLUGIN_UNIX_SOCKET_DIR="))
            .unwrap();
        let socket = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .find(|entry| entry.file_type().unwrap().is_socket())
            .unwrap()
            .path();
        let Some(answer) = plaintext(&socket).await else {
            harness::skip_without("python3");
            return;
        };
        // An HTTP/2 server would begin with its settings, a frame of type 4.
        assert_ne!(answer.get(6..8), Some("04"), "{answer:?}");
        // And its host is served as before.
        assert!(!plugin.regions("dev").await.unwrap().is_empty());
        plugin.close().await;
        lab.expect_nothing_left();
    }
}

/// What a server says, in hex, to another process that speaks HTTP/2 in the clear; `None` without
/// Python.
async fn plaintext(socket: &Path) -> Option<String> {
    const STRANGER: &str = r#"
import socket, sys
stranger = socket.socket(socket.AF_UNIX)
stranger.settimeout(5)
stranger.connect(sys.argv[1])
answer = b""
try:
    stranger.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    while len(answer) < 10 and (piece := stranger.recv(64)):
        answer += piece
except OSError:
    pass
print(answer.hex())
"#;
    let said = tokio::process::Command::new("python3")
        .args(["-c", STRANGER])
        .arg(socket)
        .output()
        .await
        .ok()?;
    assert!(said.status.success(), "{said:?}");
    Some(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}
