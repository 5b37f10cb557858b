use std::process::{Command, Stdio};

use tokio_postgres::NoTls;

use super::cluster::{ADMINISTRATOR_PASSWORD, Cluster};
use super::*;

const DATABASE: &str = "infra.database";
fn spec(lab: &Lab, name: &str) -> Spec {
    lab.spec(DATABASE, name, map(serde_json::json!({"engine": "pg"})))
}

#[tokio::test]
async fn a_postgres_database_lives_and_leaves_nothing() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let lab = cluster.lab();
    let provider = lab.provider();
    let spec = spec(&lab, "orders-db");
    let driver = driver(&provider, &spec);
    assert_eq!(
        class(driver.read(&by_name(&spec)).await),
        ErrorClass::NotFound
    );
    let made = driver.create(&operation(), &spec).await.unwrap();
    let user = public(&made.outputs, "user");
    let password = sensitive(&made.outputs, "password");
    assert_eq!(public(&made.outputs, "host"), "127.0.0.1");
    assert_eq!(public(&made.outputs, "port"), cluster.port.to_string());
    assert_eq!(public(&made.outputs, "database"), user);
    let url = sensitive(&made.outputs, "connection_url");
    let (client, connection) = tokio_postgres::connect(url.expose(), NoTls).await.unwrap();
    let mut traffic = tokio::task::JoinSet::new();
    traffic.spawn(async move { drop(connection.await) });
    client
        .batch_execute("CREATE TABLE t (x int); INSERT INTO t VALUES (42); CREATE SCHEMA s; CREATE TABLE s.u (y int)")
        .await
        .unwrap();
    let encoding: String = client
        .query_one("SHOW server_encoding", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(encoding, "UTF8");

    assert_eq!(
        class(driver.create(&operation(), &spec).await),
        ErrorClass::AlreadyExists
    );
    let prior = record(&spec, made);
    assert!(driver.diff(&prior, &spec).await.unwrap().changes.is_empty());
    let read = driver.read(&prior).await.unwrap();
    assert_eq!(read.status, "ready");
    assert_eq!(
        sensitive(&read.outputs, "password").expose(),
        password.expose()
    );
    assert!(driver.health(&prior).await.unwrap().healthy);
    let updated = driver.update(&operation(), &prior, &spec).await.unwrap();
    assert_eq!(
        sensitive(&updated.outputs, "password").expose(),
        password.expose(),
        "kept"
    );

    // A plan sees what was dropped behind our back, and an apply makes it again.
    let admin = cluster.admin().await;
    drop(client);
    for statements in [
        &["DROP DATABASE {} WITH (FORCE)"][..],
        &["DROP DATABASE {} WITH (FORCE)", "DROP ROLE {}"],
    ] {
        for statement in statements {
            let statement = statement.replace("{}", &user);
            admin.client.batch_execute(&statement).await.unwrap();
        }
        let diff = driver.diff(&prior, &spec).await.unwrap();
        assert!(diff.needs_update && diff.changes[0].path == "status");
        let again = driver.update(&operation(), &prior, &spec).await.unwrap();
        assert_eq!(again.status, "ready");
        assert!(driver.diff(&prior, &spec).await.unwrap().changes.is_empty());
    }
    let (client, connection) = tokio_postgres::connect(url.expose(), NoTls).await.unwrap();
    traffic.spawn(async move { drop(connection.await) });

    // The password never reached the server in a statement.
    let log = std::fs::read_to_string(&cluster.log).unwrap();
    assert!(
        log.contains("CREATE ROLE") && log.contains("SCRAM-SHA-256$"),
        "{log}"
    );
    assert!(!log.contains(password.expose()));
    assert!(!log.contains(ADMINISTRATOR_PASSWORD));

    // A connection is open on it (`client`), and it goes all the same.
    driver.delete(&operation(), &prior).await.unwrap();
    assert!(client.simple_query("SELECT 1").await.is_err());
    driver.delete(&operation(), &prior).await.unwrap();
    assert_eq!(cluster.standing().await, (vec![], vec![]));
    lab.expect_nothing_left();
}

#[tokio::test]
async fn databases_do_not_see_each_other_and_names_are_data() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let lab = cluster.lab();
    let provider = lab.provider();
    let production = lab.provider_of("prod");
    let long = "x".repeat(200);
    let names = [
        "a/b",
        "a_b",
        "A_B",
        "\"; DROP ROLE admin; --",
        "o'neil\\",
        "ü",
        &long,
    ];
    let mut made = Vec::new();
    for name in names {
        for provider in [&provider, &production] {
            let spec = spec(&lab, name);
            let observed = driver(provider, &spec)
                .create(&operation(), &spec)
                .await
                .unwrap();
            made.push((provider, record(&spec, observed)));
        }
    }
    let (roles, databases) = cluster.standing().await;
    assert_eq!((roles.len(), databases.len()), (14, 14));
    let password = sensitive(&made[0].1.outputs, "password");
    let (mine, other) = (
        public(&made[0].1.outputs, "user"),
        public(&made[1].1.outputs, "user"),
    );
    cluster
        .connect(&mine, password.expose(), &mine)
        .await
        .unwrap();
    let refused = cluster
        .connect(&mine, password.expose(), &other)
        .await
        .err()
        .unwrap();
    assert!(refused.contains("permission denied"), "{refused}");
    for (provider, prior) in &made {
        provider
            .driver(&prior.kind)
            .unwrap()
            .delete(&operation(), prior)
            .await
            .unwrap();
    }
    assert_eq!(cluster.standing().await, (vec![], vec![]));
}

#[tokio::test]
async fn every_crash_point_is_found_by_name_and_completed() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let lab = cluster.lab();
    let provider = lab.provider();
    let spec = spec(&lab, "orders-db");
    let driver = driver(&provider, &spec);
    let name = driver
        .create(&operation(), &spec)
        .await
        .unwrap()
        .provider_id;
    let admin = cluster.admin().await;
    // Each takes a whole database back to what a crash after that step leaves.
    let undo = [
        ("nothing but the record", ""),
        (
            "before the database's comment",
            "COMMENT ON DATABASE {} IS NULL",
        ),
        (
            "before the grants",
            "COMMENT ON DATABASE {} IS NULL; GRANT CONNECT ON DATABASE {} TO PUBLIC",
        ),
        ("before the database", "DROP DATABASE {} WITH (FORCE)"),
        (
            "between the two drops of a delete",
            "DROP DATABASE {} WITH (FORCE)",
        ),
        (
            "without the role",
            "ALTER DATABASE {} OWNER TO admin; DROP ROLE {}",
        ),
    ];
    for (point, statements) in undo {
        for statement in statements
            .split("; ")
            .filter(|statement| !statement.is_empty())
        {
            admin
                .client
                .batch_execute(&statement.replace("{}", &name))
                .await
                .unwrap();
        }
        let found = driver.read(&by_name(&spec)).await.unwrap();
        assert_eq!(
            found.status, "incomplete",
            "{point}: the password was lost at least"
        );
        assert!(!found.outputs.contains_key("password"));
        let prior = record(&spec, found);
        let diff = driver.diff(&prior, &spec).await.unwrap();
        assert!(diff.needs_update && !diff.needs_replace, "{point}");
        let whole = driver.update(&operation(), &prior, &spec).await.unwrap();
        assert_eq!(whole.status, "ready");
        let password = sensitive(&whole.outputs, "password");
        let peer = cluster
            .connect(&name, password.expose(), &name)
            .await
            .unwrap();
        peer.client
            .batch_execute("CREATE TABLE t (x int); DROP TABLE t")
            .await
            .unwrap();
        let public: bool = admin
            .client
            .query_one(
                "SELECT has_database_privilege('pg_monitor', $1::text, 'CONNECT')",
                &[&name],
            )
            .await
            .unwrap()
            .get(0);
        assert!(!public, "{point}: nobody else may connect");
        let prior = record(&spec, whole);
        assert!(
            driver.diff(&prior, &spec).await.unwrap().changes.is_empty(),
            "{point}"
        );
    }
    // Create itself completes what it finds half made.
    admin
        .client
        .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
        .await
        .unwrap();
    driver.create(&operation(), &spec).await.unwrap();
    // And delete ends what it finds half deleted.
    admin
        .client
        .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
        .await
        .unwrap();
    driver.delete(&operation(), &by_name(&spec)).await.unwrap();
    assert_eq!(cluster.standing().await, (vec![], vec![]));
}

#[tokio::test]
async fn what_bears_the_name_without_the_mark_is_left_alone() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let lab = cluster.lab();
    let provider = lab.provider();
    let spec = spec(&lab, "orders-db");
    let driver = driver(&provider, &spec);
    let prior = record(&spec, driver.create(&operation(), &spec).await.unwrap());
    let name = prior.provider_id.clone();
    let admin = cluster.admin().await;
    for statement in [
        format!("COMMENT ON DATABASE {name} IS 'somebody else''s'"),
        format!("COMMENT ON DATABASE {name} IS NULL; ALTER DATABASE {name} OWNER TO admin"),
        format!("COMMENT ON ROLE {name} IS NULL"),
    ] {
        admin.client.batch_execute(&statement).await.unwrap();
        assert_eq!(
            class(driver.create(&operation(), &spec).await),
            ErrorClass::Conflict,
            "{statement}"
        );
        assert_eq!(class(driver.read(&prior).await), ErrorClass::Conflict);
        assert_eq!(
            class(driver.update(&operation(), &prior, &spec).await),
            ErrorClass::Conflict
        );
        assert_eq!(
            class(driver.delete(&operation(), &prior).await),
            ErrorClass::Conflict
        );
    }
    assert_eq!(cluster.standing().await.1, [name]);
}

#[tokio::test]
async fn a_socket_folder_and_a_lesser_administrator_will_do() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let admin = cluster.admin().await;
    admin
        .client
        .batch_execute("CREATE ROLE maker LOGIN CREATEDB CREATEROLE PASSWORD 'maker'; CREATE ROLE weak LOGIN PASSWORD 'weak'")
        .await
        .unwrap();
    let mut lab = cluster.lab();
    let folder = cluster.folder.path().to_string_lossy().into_owned();
    lab.config["postgres"] = cluster.config(&folder);
    lab.config["postgres"]["user"] = "maker".into();
    lab.config["postgres"]["password"] = "maker".into();
    let provider = lab.provider();
    let spec = spec(&lab, "orders-db");
    let made = driver(&provider, &spec)
        .create(&operation(), &spec)
        .await
        .unwrap();
    assert_eq!(public(&made.outputs, "host"), folder);
    let url = sensitive(&made.outputs, "connection_url");
    let (client, connection) = tokio_postgres::connect(url.expose(), NoTls).await.unwrap();
    let mut traffic = tokio::task::JoinSet::new();
    traffic.spawn(async move { drop(connection.await) });
    client
        .batch_execute("CREATE TABLE t (x int)")
        .await
        .unwrap();
    let prior = record(&spec, made);
    // The same server under another name is found, and its outputs are refreshed.
    lab.config["postgres"]["host"] = "localhost".into();
    let provider = lab.provider();
    let diff = driver(&provider, &spec).diff(&prior, &spec).await.unwrap();
    assert!(diff.needs_update && diff.changes.len() == 1 && diff.changes[0].path == "host");
    let prior = record(
        &spec,
        driver(&provider, &spec)
            .update(&operation(), &prior, &spec)
            .await
            .unwrap(),
    );
    driver(&provider, &spec)
        .delete(&operation(), &prior)
        .await
        .unwrap();
    assert_eq!(cluster.standing().await, (vec![], vec![]));
    // Too few rights, wrong password, no server: each a class of its own, none with a secret.
    for (key, value, expected) in [
        ("user", serde_json::json!("weak"), ErrorClass::Denied),
        (
            "password",
            serde_json::json!("not-the-password"),
            ErrorClass::Denied,
        ),
        ("port", serde_json::json!(1), ErrorClass::Transient),
    ] {
        let mut lab = cluster.lab();
        lab.config["postgres"][key] = value;
        if key == "user" {
            lab.config["postgres"]["password"] = "weak".into();
        }
        let provider = lab.provider();
        let error = driver(&provider, &spec)
            .create(&operation(), &spec)
            .await
            .unwrap_err();
        assert_eq!(error.class, expected, "{error}");
        assert!(error.message.contains("127.0.0.1"), "{error}");
        assert!(
            !error.message.contains(ADMINISTRATOR_PASSWORD) && !error.message.contains("not-the"),
            "{error}"
        );
        assert!(error.partial.is_none());
    }
}

#[tokio::test]
async fn a_database_on_another_server_is_not_believed_gone() {
    let (Some(first), Some(second)) = (Cluster::start(), Cluster::start()) else {
        return;
    };
    let mut lab = first.lab();
    let spec = spec(&lab, "orders-db");
    let provider = lab.provider();
    let prior = record(
        &spec,
        driver(&provider, &spec)
            .create(&operation(), &spec)
            .await
            .unwrap(),
    );
    lab.config["postgres"] = second.config("127.0.0.1");
    let provider = lab.provider();
    let driver = driver(&provider, &spec);
    assert_eq!(
        class(driver.delete(&operation(), &prior).await),
        ErrorClass::Invalid
    );
    let error = driver
        .update(&operation(), &prior, &spec)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Invalid);
    assert!(error.message.contains(&first.port.to_string()), "{error}");
    assert_eq!(second.standing().await, (vec![], vec![]));
}

#[tokio::test]
async fn tls_is_used_as_the_mode_says() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let certificates = cluster.folder.path().join("data");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args([
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(certificates.join("server.key"))
        .arg("-out")
        .arg(certificates.join("server.crt"))
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        harness::skip_without("openssl");
        return;
    }
    if rustix::process::geteuid().is_root() {
        let owned = Command::new("chown")
            .arg("postgres")
            .args([
                certificates.join("server.key"),
                certificates.join("server.crt"),
            ])
            .status();
        assert!(owned.unwrap().success());
    }
    let attempt = async |host: &str, mode: &str, root: Option<&Path>| {
        let mut lab = cluster.lab();
        lab.config["postgres"] = cluster.config(host);
        lab.config["postgres"]["sslmode"] = mode.into();
        if let Some(root) = root {
            lab.config["postgres"]["sslrootcert"] = root.to_string_lossy().into();
        }
        let provider = lab.provider();
        let spec = spec(&lab, "orders-db");
        driver(&provider, &spec)
            .read(&by_name(&spec))
            .await
            .unwrap_err()
    };
    // Not found means: connected, asked, nothing there.
    assert_eq!(
        attempt("localhost", "disable", None).await.class,
        ErrorClass::NotFound
    );
    assert_eq!(
        attempt("localhost", "prefer", None).await.class,
        ErrorClass::NotFound
    );
    let error = attempt("localhost", "require", None).await;
    assert!(error.message.contains("does not support TLS"), "{error}");
    let admin = cluster.admin().await;
    admin
        .client
        .batch_execute("ALTER SYSTEM SET ssl = on")
        .await
        .unwrap();
    admin
        .client
        .batch_execute("ALTER SYSTEM SET log_connections = on")
        .await
        .unwrap();
    admin
        .client
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
    let mut tries = 0;
    while attempt("localhost", "require", None).await.class != ErrorClass::NotFound {
        tries += 1;
        assert!(tries < 50, "the server offers TLS");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(
        attempt("localhost", "prefer", None).await.class,
        ErrorClass::NotFound
    );
    let root = certificates.join("server.crt");
    assert_eq!(
        attempt("localhost", "verify-full", Some(&root)).await.class,
        ErrorClass::NotFound
    );
    let log = std::fs::read_to_string(&cluster.log).unwrap();
    assert!(log.contains("SSL enabled (protocol=TLSv1.3"), "{log}");
    // Signed by nobody we know, or for another name: no.
    for error in [
        attempt("localhost", "verify-full", None).await,
        attempt("127.0.0.1", "verify-full", Some(&root)).await,
    ] {
        assert!(
            error.message.to_lowercase().contains("certificate"),
            "{error}"
        );
    }
}

/// A killed run's session may live on in the server for a while; what it is in the middle of shows to
/// nobody until it is done.
#[tokio::test]
async fn what_a_killed_run_is_still_doing_is_ended_first() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let lab = cluster.lab();
    let provider = lab.provider();
    let spec = spec(&lab, "orders-db");
    let driver = driver(&provider, &spec);
    let made = driver.create(&operation(), &spec).await.unwrap();
    let name = made.provider_id;
    driver.delete(&operation(), &by_name(&spec)).await.unwrap();
    let dead = cluster.admin().await;
    dead.client
        .batch_execute(&format!(
            "SET application_name = '{name}'; BEGIN; CREATE ROLE {name}"
        ))
        .await
        .unwrap();
    let made = driver.create(&operation(), &spec).await.unwrap();
    assert_eq!((made.provider_id, made.status.as_str()), (name, "ready"));
    assert!(dead.client.batch_execute("COMMIT").await.is_err());
    driver.delete(&operation(), &by_name(&spec)).await.unwrap();
    assert_eq!(cluster.standing().await, (vec![], vec![]));
}
