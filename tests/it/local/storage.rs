use super::*;

const STORAGE: &str = "infra.storage";

#[tokio::test]
async fn a_storage_lives_and_leaves_nothing() {
    let lab = Lab::new();
    let provider = lab.provider();
    let spec = lab.spec(STORAGE, "uploads", Map::new());
    let driver = driver(&provider, &spec);
    assert_eq!(
        class(driver.read(&by_name(&spec)).await),
        ErrorClass::NotFound
    );
    let made = driver.create(&operation(), &spec).await.unwrap();
    let path = lab.root().join("uploads");
    assert!(path.is_dir());
    assert_eq!(public(&made.outputs, "path"), path.to_string_lossy());
    assert_eq!(
        public(&made.outputs, "url"),
        format!("file://{}", path.display())
    );
    assert_eq!(public(&made.outputs, "name"), "uploads");
    assert_eq!(
        class(driver.create(&operation(), &spec).await),
        ErrorClass::AlreadyExists
    );
    let prior = record(&spec, made);
    let diff = driver.diff(&prior, &spec).await.unwrap();
    assert!(!diff.needs_update && !diff.needs_replace && diff.changes.is_empty());
    assert_eq!(
        driver.read(&by_name(&spec)).await.unwrap().provider_id,
        prior.provider_id
    );
    std::fs::write(path.join("file"), "kept").unwrap();
    driver.update(&operation(), &prior, &spec).await.unwrap();
    assert!(path.join("file").exists());
    driver.delete(&operation(), &prior).await.unwrap();
    driver.delete(&operation(), &prior).await.unwrap();
    lab.expect_nothing_left();
}

#[tokio::test]
async fn names_are_data() {
    let lab = Lab::new();
    let provider = lab.provider();
    let long = "x".repeat(200);
    let longer = format!("{long}y");
    let names = [
        "../../etc",
        "a/b",
        "a_b",
        "a%2Fb",
        ".",
        "..",
        ".new.uploads",
        "with space",
        "ümlaut",
        &long,
        &longer,
        "line\nbreak",
        "'; rm -rf /",
    ];
    let mut priors = Vec::new();
    for name in names {
        let spec = lab.spec(STORAGE, name, Map::new());
        let made = driver(&provider, &spec)
            .create(&operation(), &spec)
            .await
            .unwrap();
        let path = PathBuf::from(public(&made.outputs, "path"));
        assert_eq!(path.parent(), Some(&*lab.root()), "{name}");
        assert!(
            path.canonicalize().unwrap().starts_with(lab.root()),
            "{name}"
        );
        priors.push(record(&spec, made));
    }
    let paths: BTreeSet<_> = priors.iter().map(|prior| &prior.provider_id).collect();
    assert_eq!(
        paths.len(),
        names.len(),
        "each name has a folder of its own"
    );
    assert_eq!(
        std::fs::read_dir(lab.path()).unwrap().count(),
        1,
        "nothing outside the root"
    );
    for prior in &priors {
        let driver = provider.driver(&prior.kind).unwrap();
        driver.delete(&operation(), prior).await.unwrap();
    }
    lab.expect_nothing_left();
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    let lab = Lab::new();
    let provider = lab.provider();
    let outside = lab.path().join("outside");
    std::fs::create_dir_all(outside.join("inside")).unwrap();
    std::fs::create_dir_all(lab.root().join("plain")).unwrap();
    std::fs::write(lab.root().join("plain/file"), "precious").unwrap();
    std::fs::write(lab.root().join("file"), "precious").unwrap();
    std::os::unix::fs::symlink(&outside, lab.root().join("link")).unwrap();
    for name in ["plain", "file", "link"] {
        let spec = lab.spec(STORAGE, name, Map::new());
        let driver = driver(&provider, &spec);
        assert_eq!(
            class(driver.create(&operation(), &spec).await),
            ErrorClass::Conflict,
            "{name}"
        );
        assert_eq!(
            class(driver.read(&by_name(&spec)).await),
            ErrorClass::Conflict,
            "{name}"
        );
        assert_eq!(
            class(driver.delete(&operation(), &by_name(&spec)).await),
            ErrorClass::Conflict
        );
    }
    assert!(lab.root().join("plain/file").exists() && lab.root().join("file").exists());
    // A link *inside* a storage goes, what it points to stays.
    let spec = lab.spec(STORAGE, "uploads", Map::new());
    let made = driver(&provider, &spec)
        .create(&operation(), &spec)
        .await
        .unwrap();
    std::os::unix::fs::symlink(&outside, lab.root().join("uploads/link")).unwrap();
    driver(&provider, &spec)
        .delete(&operation(), &record(&spec, made))
        .await
        .unwrap();
    assert!(outside.join("inside").exists() && !lab.root().join("uploads").exists());
    // Neither another kind's nor another environment's.
    driver(&provider, &spec)
        .create(&operation(), &spec)
        .await
        .unwrap();
    let database = lab.spec("infra.database", "uploads", Map::new());
    assert_eq!(
        class(
            driver(&provider, &database)
                .create(&operation(), &database)
                .await
        ),
        ErrorClass::Conflict
    );
    let other = lab.provider_of("prod");
    assert_eq!(
        class(driver(&other, &spec).create(&operation(), &spec).await),
        ErrorClass::Conflict
    );
    assert_eq!(
        class(
            driver(&other, &spec)
                .delete(&operation(), &by_name(&spec))
                .await
        ),
        ErrorClass::Conflict
    );
}

#[tokio::test]
async fn a_folder_follows_its_root_or_is_found_at_the_old_one() {
    let mut lab = Lab::new();
    let spec = lab.spec(STORAGE, "uploads", Map::new());
    let provider = lab.provider();
    let made = driver(&provider, &spec)
        .create(&operation(), &spec)
        .await
        .unwrap();
    let prior = record(&spec, made);
    lab.config["root"] = "./elsewhere".into();
    let moved = lab.provider();
    let driver = driver(&moved, &spec);
    let diff = driver.diff(&prior, &spec).await.unwrap();
    assert!(
        diff.needs_replace,
        "another root is another place: {:?}",
        diff.changes
    );
    // The whole root was moved along: nothing to replace, only outputs to refresh.
    std::fs::rename(lab.root(), lab.path().join("elsewhere")).unwrap();
    let diff = driver.diff(&prior, &spec).await.unwrap();
    assert!(
        diff.needs_update && !diff.needs_replace,
        "{:?}",
        diff.changes
    );
    let prior_after = record(
        &spec,
        driver.update(&operation(), &prior, &spec).await.unwrap(),
    );
    assert!(
        driver
            .diff(&prior_after, &spec)
            .await
            .unwrap()
            .changes
            .is_empty()
    );
    std::fs::rename(lab.path().join("elsewhere"), lab.root()).unwrap();
    // Deleting under the new root finds the old place.
    driver.delete(&operation(), &prior).await.unwrap();
    lab.expect_nothing_left();
    assert!(!lab.path().join("elsewhere").exists());
}

#[tokio::test]
async fn leftovers_of_a_crash_are_cleared() {
    let lab = Lab::new();
    let provider = lab.provider();
    let spec = lab.spec(STORAGE, "uploads", Map::new());
    let driver = driver(&provider, &spec);
    for name in [".new.uploads", ".old.uploads"] {
        std::fs::create_dir_all(lab.root().join(name).join("half")).unwrap();
    }
    assert_eq!(
        class(driver.read(&by_name(&spec)).await),
        ErrorClass::NotFound
    );
    let made = driver.create(&operation(), &spec).await.unwrap();
    assert!(!lab.root().join("uploads/half").exists());
    driver
        .delete(&operation(), &record(&spec, made))
        .await
        .unwrap();
    lab.expect_nothing_left();
}

#[tokio::test]
async fn a_removed_storage_is_made_again() {
    let lab = Lab::new();
    let provider = lab.provider();
    let spec = lab.spec(STORAGE, "uploads", Map::new());
    let driver = driver(&provider, &spec);
    let prior = record(&spec, driver.create(&operation(), &spec).await.unwrap());
    std::fs::remove_dir_all(lab.root()).unwrap();
    assert_eq!(class(driver.read(&prior).await), ErrorClass::NotFound);
    let diff = driver.diff(&prior, &spec).await.unwrap();
    assert!(diff.needs_update && diff.changes[0].path == "status");
    driver.update(&operation(), &prior, &spec).await.unwrap();
    assert!(lab.root().join("uploads").is_dir());
}

#[test]
fn unknown_settings_are_reported_with_the_nearest_name() {
    let lab = Lab::new();
    let provider = lab.provider();
    for (kind, config, expected) in [
        (
            STORAGE,
            serde_json::json!({"region": "x", "size": "m", "protected": true}),
            vec![],
        ),
        (
            STORAGE,
            serde_json::json!({"acl": "x"}),
            vec![("acl", "it has none of its own")],
        ),
        (
            "infra.database",
            serde_json::json!({"engin": "pg"}),
            vec![("engin", "did you mean `engine`?")],
        ),
        (
            "infra.database",
            serde_json::json!({"engine": "postgress"}),
            vec![("engine", "did you mean `postgres`?")],
        ),
        (
            "infra.database",
            serde_json::json!({"engine": "mongo"}),
            vec![("engine", "use `sqlite` or `postgres`")],
        ),
        (
            "infra.database",
            serde_json::json!({"engine": 3}),
            vec![("engine", "it must be text, not a number")],
        ),
        (
            "infra.database",
            serde_json::json!({"engine": "pg"}),
            vec![("engine", "needs a server")],
        ),
        (
            "infra.container_service",
            serde_json::json!({"command": "./x"}),
            vec![("command", "no shell")],
        ),
        (
            "infra.container_service",
            serde_json::json!({"image": "x", "command": ["x"]}),
            vec![("image", "not an image")],
        ),
    ] {
        let spec = lab.spec(kind, "x", map(config.clone()));
        let problems = driver(&provider, &spec).check(&spec);
        assert_eq!(problems.len(), expected.len(), "{config}: {problems:?}");
        for ((path, sentence), (expected_path, words)) in problems.iter().zip(expected) {
            assert_eq!(path, expected_path);
            assert!(sentence.contains(words), "{sentence}");
        }
    }
}
