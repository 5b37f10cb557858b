//! Answers of a plugin that are not what was hoped for: what becomes of a run, and what is said.

use serde_json::{Value as Json, json};
use tidegate::provider::ErrorClass;

use super::apply::Project;
use super::*;
use crate::harness::Finished;

fn mode(more: Json) -> Project {
    Project::new(&more)
}

fn document(ended: &Finished) -> Json {
    serde_json::from_str(&ended.stdout()).unwrap()
}

/// Its web is given this, too.
fn with(project: &Project, more: &str) {
    let path = project.0.path().join("infra.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace("{provider: cloud}", &format!("{{provider: cloud, {more}}}"));
    fs::write(path, text).unwrap();
}

#[test]
fn a_job_is_looked_at_again_and_its_handle_is_never_lost() {
    let looks = "IaCProviderRunner/JobStatus";
    let run = ["infra", "job", "run", "migrate", "--json"];
    let once = mode(json!({
        "serves": "IaCProviderRunner", "refuse_on": looks, "refuse_times": 1,
        "text": "GET 502 bad gateway",
    }));
    let said = document(&once.run(&run).output().expect_code(0));
    assert_eq!(said["state"], "succeeded");
    assert_eq!(said["log"], "migrated\n");
    assert_eq!(once.asked(looks), 2);

    let never = mode(json!({
        "serves": "IaCProviderRunner", "refuse_on": looks, "text": "iac: forbidden: no looking",
    }));
    let said = document(&never.run(&run).output().expect_code(1));
    assert_eq!(said["command"], "infra job run");
    assert_eq!(said["job"]["id"], "job-1");
    assert_eq!(said["job"]["metadata"]["owner"], "it's ours");
    assert_eq!(said["problems"][0]["code"], "provider/job-out-of-sight");
    // The next command is one that a shell takes.
    let next = said["next"][0].as_str().unwrap();
    let words = shlex::split(next).unwrap();
    assert_eq!(words[..4], ["tidegate", "infra", "job", "status"]);
    let handle: Json = serde_json::from_str(&words[4]).unwrap();
    assert_eq!(handle, said["job"]);
    let text = never.run(&run[..4]).output().expect_code(1);
    assert!(text.stdout().contains("it's ours"), "{}", text.stdout());
    assert!(text.stderr().contains("job status"), "{}", text.stderr());

    // Its end decides, not whether its log can be had.
    for (text, problems) in [
        ("iac: forbidden: no log", 1),
        ("iac: provider method unimplemented", 0),
    ] {
        let no_log = mode(json!({
            "serves": "IaCProviderRunner", "refuse_on": "IaCProviderRunner/JobLogs", "text": text,
        }));
        let said = document(&no_log.run(&run).output().expect_code(0));
        assert_eq!(
            (&said["state"], &said["failed"]),
            (&json!("succeeded"), &json!(false))
        );
        assert_eq!(
            said["problems"].as_array().unwrap().len(),
            problems,
            "{said:#}"
        );
    }

    let refused = mode(json!({
        "serves": "IaCProviderRunner", "refuse_on": "IaCProviderRunner/RunJob", "text": "no",
    }));
    let said = document(&refused.run(&run).output().expect_code(1));
    assert_eq!(said["command"], "infra job run");
}

#[test]
fn a_status_is_what_the_provider_calls_it_and_what_is_gone_is_gone() {
    let look = |more: Json| {
        let project = mode(more);
        project.apply().output().expect_code(0);
        let ended = project.run(&["infra", "status", "--json"]).output();
        let row = document(&ended)["resources"][0].clone();
        (ended.code(), row["status"].as_str().unwrap().to_owned())
    };
    // It has no probe of health, and needs none.
    assert_eq!(
        look(json!({"status": "degraded"})),
        (0, "degraded".to_owned())
    );
    assert_eq!(look(json!({})), (0, "unknown".to_owned()));
    let refusing = |text: &str| json!({"refuse_on": "IaCProviderRequired/Status", "text": text});
    let gone = refusing("iac: resource not found: web");
    assert_eq!(look(gone), (0, "gone".to_owned()));
    assert_eq!(look(refusing("GET 502")), (7, "unknown".to_owned()));
}

#[test]
fn a_size_that_cannot_be_told_is_no_wrong_size() {
    let failing = mode(json!({
        "refuse_on": "IaCProviderRequired/ResolveSizing", "text": "GET /v2/sizes: 503",
    }));
    with(&failing, "size: s");
    let ended = failing.run(&["infra", "plan"]).output().expect_code(1);
    assert!(
        ended.stderr().contains("GET /v2/sizes: 503"),
        "{}",
        ended.stderr()
    );
    assert!(
        !ended.stderr().contains("has no size"),
        "{}",
        ended.stderr()
    );

    let silent = mode(json!({"sizes": "none"}));
    with(&silent, "size: s");
    let ended = silent.run(&["infra", "plan"]).output().expect_code(0);
    assert!(
        ended.stderr().contains("plan/size-ignored"),
        "{}",
        ended.stderr()
    );
}

#[test]
fn a_validator_that_fails_has_no_findings_and_stops_nothing() {
    let project = mode(json!({
        "serves": "IaCProviderValidator", "refuse_on": "IaCProviderValidator/ValidatePlan",
        "text": "boom",
    }));
    let ended = project.apply().output().expect_code(0);
    assert!(ended.stderr().contains("boom"), "{}", ended.stderr());
    assert_eq!(project.asked("ResourceDriver/Create"), 1);
}

#[test]
fn a_drift_call_that_is_not_there_is_as_good_as_none() {
    for service in ["IaCProviderDriftConfigDetector", "IaCProviderDriftDetector"] {
        let project = mode(json!({"serves": service}));
        project.apply().output().expect_code(0);
        // So its resource is read, and is gone.
        let ended = project.run(&["infra", "drift", "--json"]).output();
        assert_eq!(
            document(&ended)["resources"][0]["class"],
            "ghost",
            "{service}"
        );
        assert_eq!(ended.code(), 3);
    }
}

#[test]
fn a_wish_for_both_at_once_that_no_plugin_has_is_said() {
    let project = mode(json!({}));
    with(&project, "lifecycle: {create_before_destroy: true}");
    let ended = project.run(&["infra", "plan"]).output().expect_code(0);
    assert!(
        ended.stderr().contains("plan/deletes-first"),
        "{}",
        ended.stderr()
    );
}

#[tokio::test]
async fn an_answer_about_the_id_on_record_may_call_it_by_another_name() {
    let lab = Lab::new("bad", Path::new(env!("CARGO_BIN_EXE_hostile-plugin")));
    let reads = json!({"serve": true, "reads": "the cloud's name"});
    fs::write(lab.plugins().join("bad/mode.json"), reads.to_string()).unwrap();
    let plugin = lab.open("bad", Map::new()).await.unwrap();
    let spec = lab.spec("infra.vpc", "web", &[]);
    let of = |id: &str| {
        let mut prior = Recorded::by_name(spec.address.clone(), spec.kind.clone());
        prior.provider_id = id.to_owned();
        prior
    };
    let driver = driver(&plugin, "infra.vpc");
    assert_eq!(driver.read(&of("id-1")).await.unwrap().provider_id, "id-1");
    for other in ["id-2", ""] {
        let error = driver.read(&of(other)).await.unwrap_err();
        assert!(error.message.contains("another resource"), "{error}");
    }
    plugin.close().await;
}

#[tokio::test]
async fn an_answer_with_another_id_than_the_one_on_record_is_about_something_else() {
    let lab = Lab::new("bad", Path::new(env!("CARGO_BIN_EXE_hostile-plugin")));
    let reads = json!({"serve": true, "reads": ""});
    fs::write(lab.plugins().join("bad/mode.json"), reads.to_string()).unwrap();
    let plugin = lab.open("bad", Map::new()).await.unwrap();
    let spec = lab.spec("infra.vpc", "web", &[]);
    let of = |id: &str, status: &str| {
        let mut prior = Recorded::by_name(spec.address.clone(), spec.kind.clone());
        prior.provider_id = id.to_owned();
        prior.status = status.to_owned();
        prior
    };
    let driver = driver(&plugin, "infra.vpc");
    for (id, status) in [("id-1", "running"), ("ID-1", "running"), ("", "")] {
        let seen = driver.read(&of(id, status)).await.unwrap();
        assert_eq!(seen.provider_id, "id-1", "{id}");
    }
    // What is only looked for may have another id than what finds it.
    assert!(driver.read(&of("example.org", "")).await.is_ok());
    let error = driver.read(&of("id-2", "running")).await.unwrap_err();
    assert!(
        error.message.contains("id `id-1` instead of `id-2`"),
        "{error}"
    );
    plugin.close().await;
}

#[tokio::test]
async fn a_socket_folder_goes_with_its_host_and_with_nobody_elses() {
    let mut lab = Lab::new("bad", Path::new(env!("CARGO_BIN_EXE_hostile-plugin")));
    fs::write(
        lab.plugins().join("bad/mode.json"),
        json!({"serve": true}).to_string(),
    )
    .unwrap();
    let sockets = tempfile::tempdir().unwrap();
    let place = sockets.path().display().to_string();
    lab.variables.push(("TMPDIR".to_owned(), place));
    // As the kernel knows us; one that started at another moment has ended, and of one in another
    // container nothing is known.
    let mark = tidegate::process::Processes::own_mark(&SystemProcesses::default());
    let (start, rest) = mark.split_once(' ').unwrap();
    for (folder, mark) in [
        ("tidegate-plugin-4194301-ended", format!("{start}0 {rest}")),
        ("tidegate-plugin-4194302-elsewhere", format!("{mark}x")),
    ] {
        let folder = sockets.path().join(folder);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("host"), mark).unwrap();
    }
    let plugin = lab.open("bad", Map::new()).await.unwrap();
    plugin.close().await;
    drop(plugin);
    let left: Vec<String> = fs::read_dir(sockets.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, ["tidegate-plugin-4194302-elsewhere"]);
}

#[test]
fn a_bucket_that_was_made_is_no_secret_and_its_key_is() {
    let folder = tempfile::tempdir().unwrap();
    install(
        &folder.path().join("data/plugins"),
        "files",
        go::own_executable(),
    );
    let root = folder.path().join("root");
    let config = format!(
        "modules:
  - {{name: state, type: iac.state, config: {{backend: spaces, bucket: shop-state, project: shop}}}}
  - {{name: cloud, type: iac.provider, config: {{provider: files, region: here1, root: {}}}}}
",
        root.display()
    );
    fs::write(folder.path().join("infra.yaml"), config).unwrap();
    // The bucket is made before the store in it is opened, which nobody serves here.
    let ended = harness::Run::new(folder.path(), &["infra", "bootstrap"]).output();
    let said = ended.stdout();
    assert!(
        said.contains("export WFCTL_STATE_BUCKET=shop-state"),
        "{said}{}",
        ended.stderr()
    );
    assert!(!format!("{said}{}", ended.stderr()).contains("key-of-"));
    assert!(
        ended.stderr().contains("`shop-state` is there"),
        "{}",
        ended.stderr()
    );
    let settings = fs::read_to_string(root.join("bootstrapped.json")).unwrap();
    let settings: Json = serde_json::from_str(&settings).unwrap();
    assert_eq!(settings["backend"], "spaces");
}

#[tokio::test]
async fn a_plugin_of_another_protocol_is_not_started_by_hand() {
    let lab = Lab::new("bad", Path::new(env!("CARGO_BIN_EXE_hostile-plugin")));
    let speaks = json!({"line": "1|7|unix|/nowhere|grpc\n"});
    fs::write(lab.plugins().join("bad/mode.json"), speaks.to_string()).unwrap();
    let report = lab.open("bad", Map::new()).await.unwrap_err();
    assert_eq!(report.code, "plugin/handshake-app-mismatch");
    let fixes = report.fix.join("; ");
    assert!(fixes.contains("release of the plugin"), "{fixes}");
    assert!(!fixes.contains("by hand"), "{fixes}");
}

/// Older plugins only know a flag, and it is believed either way.
#[test]
fn a_plugin_that_only_knows_the_older_flag_is_believed() {
    for (drifted, code, class) in [(false, 0, "in-sync"), (true, 3, "config")] {
        let project = mode(json!({"serves": "IaCProviderDriftDetector", "drifted": drifted}));
        project.apply().output().expect_code(0);
        let said = document(
            &project
                .run(&["infra", "drift", "--json"])
                .output()
                .expect_code(code),
        );
        assert_eq!(said["resources"][0]["class"], class, "{said:#}");
    }
}

/// Older plugins cannot import, and can read what has the id.
#[test]
fn an_id_is_read_where_it_cannot_be_imported() {
    let project = mode(json!({"imports": "unimplemented", "reads": "web"}));
    let arguments = ["infra", "import", "--json", "--name", "web", "--id", "id-1"];
    let said = document(&project.run(&arguments).output().expect_code(0));
    assert_eq!(said["resource"]["provider_id"], "id-1", "{said:#}");
}

/// One resource has one record: two would change, and delete, each other's.
#[test]
fn what_is_on_record_is_not_imported_under_another_name() {
    let project = mode(json!({}));
    project.apply().output().expect_code(0);
    let path = project.0.path().join("infra.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let second = "  - {name: again, type: infra.vpc, config: {provider: cloud}}\n";
    fs::write(&path, format!("{text}{second}")).unwrap();
    let import = |more: &[&str]| {
        let arguments = ["infra", "import", "--json", "--name"];
        let ended = project.run(&[&arguments, more].concat()).output();
        (ended.code(), document(&ended))
    };
    for force in [
        &["again", "--id", "id-1"][..],
        &["again", "--id", "id-1", "--force"],
    ] {
        let (code, said) = import(force);
        assert_eq!(
            (code, &said["problems"][0]["code"]),
            (2, &json!("import/taken"))
        );
        assert!(
            said["problems"][0]["fix"][0]
                .as_str()
                .unwrap()
                .contains("state mv web again")
        );
    }
    // Its own record may be made anew.
    let (code, said) = import(&["web", "--id", "id-1", "--force"]);
    assert_eq!(code, 0, "{said:#}");
    // Another environment of the same state is somebody else too.
    fs::write(
        &path,
        format!("{text}{second}environments: {{dev: {{}}}}\n"),
    )
    .unwrap();
    let (code, said) = import(&["again", "--id", "id-1", "--env", "dev"]);
    assert_eq!(
        (code, &said["problems"][0]["code"]),
        (2, &json!("import/taken"))
    );
}

/// What only the provider can know about the pace: how long to wait, how many at once, and whether an old
/// one and its new one may be there together.
#[tokio::test]
async fn a_provider_says_how_it_wants_to_be_driven() {
    let lab = Lab::new("bad", Path::new(env!("CARGO_BIN_EXE_hostile-plugin")));
    let behave = |mode: Json| {
        fs::write(lab.plugins().join("bad/mode.json"), mode.to_string()).unwrap();
    };
    behave(json!({
        "serve": true, "refuse_on": "ResourceDriver/Create", "code": 8, "text": "120 a minute",
        "retry_after": "7",
    }));
    let plugin = lab.open("bad", Map::new()).await.unwrap();
    let web = lab.spec("infra.vpc", "web", &[]);
    let vpc = driver(&plugin, "infra.vpc");
    let slower = vpc.create(&operation(), &web).await.unwrap_err();
    assert_eq!(slower.class, ErrorClass::Throttled);
    assert_eq!(slower.retry_after, Some(Duration::from_secs(7)));
    // It did not say so.
    assert!(!vpc.can_create_before_destroy());
    assert_eq!(plugin.parallelism(), None);
    plugin.close().await;

    behave(json!({"serve": true, "operations": ["create", "create_before_destroy"]}));
    let plugin = lab.open("bad", Map::new()).await.unwrap();
    assert!(driver(&plugin, "infra.vpc").can_create_before_destroy());
    plugin.close().await;
}

#[tokio::test]
async fn the_module_says_how_many_run_at_once_and_the_plugin_does_not_hear_of_it() {
    let lab = Lab::new("files", go::own_executable());
    let root = lab.folder.path().join("root");
    let settings = |parallelism: Value| {
        Map::from([
            ("root".to_owned(), text(&root.display().to_string())),
            ("parallelism".to_owned(), parallelism),
        ])
    };
    for three in [number(3), text("3")] {
        let plugin = lab.open("files", settings(three)).await.unwrap();
        assert_eq!(plugin.parallelism(), Some(3));
        plugin.close().await;
        let seen = fs::read_to_string(root.join("seen.txt")).unwrap();
        assert!(!seen.contains("parallelism"), "{seen}");
    }
    for wrong in [number(0), number(257), text("many"), Value::Bool(true)] {
        let refused = lab.open("files", settings(wrong)).await.unwrap_err();
        assert_eq!(refused.code, "plugin/parallelism");
    }
}
