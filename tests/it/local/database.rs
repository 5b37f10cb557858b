use super::*;

const DATABASE: &str = "infra.database";

#[tokio::test]
async fn a_sqlite_database_lives_and_leaves_nothing() {
    let lab = Lab::new();
    let provider = lab.provider();
    let spec = lab.spec(
        DATABASE,
        "orders-db",
        map(serde_json::json!({"engine": "sqlite"})),
    );
    let driver = driver(&provider, &spec);
    assert_eq!(
        class(driver.read(&by_name(&spec)).await),
        ErrorClass::NotFound
    );
    let made = driver.create(&operation(), &spec).await.unwrap();
    let path = public(&made.outputs, "path");
    assert_eq!(public(&made.outputs, "engine"), "sqlite");
    assert_eq!(
        public(&made.outputs, "connection_url"),
        format!("sqlite://{path}")
    );
    assert!(
        std::fs::read(&path)
            .unwrap()
            .starts_with(b"SQLite format 3\0")
    );
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (42)")
        .unwrap();
    drop(connection);
    assert_eq!(
        class(driver.create(&operation(), &spec).await),
        ErrorClass::AlreadyExists
    );
    let prior = record(&spec, made);
    assert!(driver.diff(&prior, &spec).await.unwrap().changes.is_empty());
    assert!(driver.health(&prior).await.unwrap().healthy);
    let updated = driver.update(&operation(), &prior, &spec).await.unwrap();
    let count: i64 = rusqlite::Connection::open(public(&updated.outputs, "path"))
        .unwrap()
        .query_row("SELECT x FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 42, "an update keeps the data");
    driver.delete(&operation(), &by_name(&spec)).await.unwrap();
    driver.delete(&operation(), &prior).await.unwrap();
    lab.expect_nothing_left();
}

#[tokio::test]
async fn another_engine_is_another_database() {
    let mut lab = Lab::new();
    lab.config["postgres"] = serde_json::json!({"host": "127.0.0.1", "port": 1});
    let provider = lab.provider();
    let spec = lab.spec(DATABASE, "orders-db", Map::new());
    let driver = driver(&provider, &spec);
    let prior = record(&spec, driver.create(&operation(), &spec).await.unwrap());
    let spelled = lab.spec(
        DATABASE,
        "orders-db",
        map(serde_json::json!({"engine": "sqlite"})),
    );
    let diff = driver.diff(&prior, &spelled).await.unwrap();
    assert!(
        diff.needs_update && !diff.needs_replace,
        "the default, spelled out"
    );
    let other = lab.spec(
        DATABASE,
        "orders-db",
        map(serde_json::json!({"engine": "pg"})),
    );
    let diff = driver.diff(&prior, &other).await.unwrap();
    assert!(diff.needs_replace && !diff.needs_update);
    assert_eq!(diff.changes.len(), 1);
    assert_eq!(diff.changes[0].old, "sqlite");
    assert_eq!(diff.changes[0].new, "pg");
    assert_eq!(
        class(driver.update(&operation(), &prior, &other).await),
        ErrorClass::Invalid
    );
}

#[tokio::test]
async fn a_damaged_database_is_said_and_a_lost_one_made_again() {
    let lab = Lab::new();
    let provider = lab.provider();
    let spec = lab.spec(DATABASE, "orders-db", Map::new());
    let driver = driver(&provider, &spec);
    let prior = record(&spec, driver.create(&operation(), &spec).await.unwrap());
    let path = public(&prior.outputs, "path");
    std::fs::write(&path, "this is not a database at all, not even nearly").unwrap();
    let error = driver.health(&prior).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Invalid);
    assert!(
        error.message.contains("orders-db") && error.message.contains(&path),
        "{error}"
    );
    std::fs::remove_file(&path).unwrap();
    assert!(!driver.health(&prior).await.unwrap().healthy);
    assert_eq!(driver.read(&prior).await.unwrap().status, "gone");
    let diff = driver.diff(&prior, &spec).await.unwrap();
    assert!(diff.needs_update && diff.changes[0].path == "status");
    driver.update(&operation(), &prior, &spec).await.unwrap();
    assert!(driver.diff(&prior, &spec).await.unwrap().changes.is_empty());
    assert!(driver.health(&prior).await.unwrap().healthy);
}
