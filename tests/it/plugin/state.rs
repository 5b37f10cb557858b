//! State backends of plugins: what must hold before one may keep our state.

use serde_json::{Value as Json, json};
use tidegate::provider::plugin::{Places, StateBackend};

use super::*;

/// A hostile plugin whose manifest lists `declared`.
fn lab(declared: &[&str], mode: &Json) -> Lab {
    let lab = Lab::new("bad", Path::new(env!("CARGO_BIN_EXE_hostile-plugin")));
    let folder = lab.plugins().join("bad");
    let mut all = json!({"serve": true, "serves": "IaCStateBackend", "notes_calls": true});
    for (key, value) in mode.as_object().unwrap() {
        all[key] = value.clone();
    }
    fs::write(folder.join("mode.json"), all.to_string()).unwrap();
    let path = folder.join("plugin.json");
    let mut manifest: Json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["iacStateBackends"] = json!(declared);
    fs::write(path, manifest.to_string()).unwrap();
    lab
}

async fn open(lab: &Lab, backend: &str) -> Result<StateBackend, Report> {
    tokio::time::timeout(
        TEST_LIMIT,
        StateBackend::open(
            backend,
            &Map::new(),
            Places {
                folders: &[&lab.plugins()],
                beside: None,
            },
            lab.folder.path(),
            lab.tools(),
        ),
    )
    .await
    .expect("opening ends, one way or the other")
}

#[tokio::test]
async fn h32_names_that_are_built_in_are_nobodys_else() {
    for reserved in ["memory", "filesystem", "postgres"] {
        let mode = json!({"backends": ["shelf", reserved], "configures": true});
        let lab = lab(&["shelf"], &mode);
        let problem = open(&lab, "shelf").await.unwrap_err();
        assert_eq!(problem.code, "plugin/backend-reserved", "{problem:?}");
        assert!(problem.message.contains(reserved), "{problem:?}");
        lab.expect_nothing_left();
    }
}

#[tokio::test]
async fn h33_manifest_registry_and_answer_must_agree() {
    // Declared, and the service is not there.
    let absent = lab(&["shelf"], &json!({"serves": "IaCProviderRegionLister"}));
    let problem = open(&absent, "shelf").await.unwrap_err();
    assert_eq!(problem.code, "plugin/backend-mismatch");
    assert!(problem.because[0].contains("registry"), "{problem:?}");
    absent.expect_nothing_left();
    // Other names than declared; order and repetition do not matter.
    for (names, fits) in [
        (json!(["shelf", "other"]), true),
        (json!(["other", "shelf", "other"]), true),
        (json!(["shelf"]), false),
        (json!(["shelf", "other", "third"]), false),
        (json!([]), false),
    ] {
        let mode = json!({"backends": names, "configures": true});
        let lab = lab(&["other", "shelf"], &mode);
        match open(&lab, "shelf").await {
            Ok(backend) => {
                assert!(fits, "{names}");
                drop(backend);
            }
            Err(problem) => {
                assert!(!fits, "{names}: {problem:?}");
                assert_eq!(problem.code, "plugin/backend-mismatch");
            }
        }
        lab.expect_nothing_left();
    }
}

#[tokio::test]
async fn h34_configure_comes_first_and_its_lack_is_an_old_plugin() {
    let lab = lab(&["shelf"], &json!({"backends": ["shelf"]}));
    let problem = open(&lab, "shelf").await.unwrap_err();
    assert_eq!(problem.code, "plugin/backend-too-old", "{problem:?}");
    lab.expect_nothing_left();

    let lab = self::lab(
        &["shelf"],
        &json!({"backends": ["shelf"], "configures": true}),
    );
    let backend = open(&lab, "shelf").await.unwrap();
    // Before it was configured it would have refused.
    assert!(backend.get("web").await.unwrap().is_none());
    drop(backend);
    let calls = fs::read_to_string(lab.plugins().join("bad/calls.txt")).unwrap();
    let of_state: Vec<&str> = calls
        .lines()
        .filter(|call| call.starts_with("IaCStateBackend/"))
        .collect();
    assert_eq!(
        of_state[..2],
        [
            "IaCStateBackend/ListBackendNames",
            "IaCStateBackend/Configure"
        ],
        "{calls}"
    );
    // The state process is never initialised as a provider.
    assert!(!calls.contains("Initialize"), "{calls}");
    lab.expect_nothing_left();
}

#[tokio::test]
async fn h35_a_record_that_is_not_there_is_no_error() {
    for (executable, is_own) in [
        (go::executable(), false),
        (Some(go::own_executable()), true),
    ] {
        let Some(executable) = executable else {
            harness::skip_without("go");
            continue;
        };
        let lab = Lab::new("files", executable);
        let path = lab.plugins().join("files/plugin.json");
        let mut manifest: Json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        manifest["iacStateBackends"] = json!(["files"]);
        fs::write(path, manifest.to_string()).unwrap();
        let shelf = lab.folder.path().join("shelf").display().to_string();
        let settings = Map::from([("folder".to_owned(), text(&shelf))]);
        let backend = StateBackend::open(
            "files",
            &settings,
            Places {
                folders: &[&lab.plugins()],
                beside: None,
            },
            lab.folder.path(),
            lab.tools(),
        )
        .await
        .unwrap_or_else(|problem| panic!("{problem:?}"));
        assert!(backend.get("web").await.unwrap().is_none());
        let record = tidegate_plugin::iac::IaCState {
            resource_id: "web".to_owned(),
            status: "active".to_owned(),
            outputs_json: "{\"a\": 1}".into(),
            ..tidegate_plugin::iac::IaCState::default()
        };
        backend.save(record.clone()).await.unwrap();
        assert_eq!(backend.get("web").await.unwrap(), Some(record));
        if !is_own {
            // As a writer leaves it that is killed in the middle.
            for entry in fs::read_dir(&shelf).unwrap() {
                fs::write(entry.unwrap().path(), "").unwrap();
            }
            let damaged = backend.get("web").await.unwrap_err();
            assert!(damaged.is_damaged && !damaged.is_absent, "{damaged:?}");
        }
        backend.delete("web").await.unwrap();
        assert!(backend.get("web").await.unwrap().is_none());
        assert!(backend.delete("web").await.unwrap_err().is_absent);
        drop(backend);
        lab.expect_nothing_left();
    }
}
