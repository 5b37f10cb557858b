//! One environment on its way through every kind of store and back, by the command people use, with
//! the same digest at each stop.

use std::fs;

use serde_json::Value;

use super::cloud::{Account, Kind, Server, install};
use crate::harness::{self, Run};
use crate::local::cluster::{ADMINISTRATOR_PASSWORD, Cluster};

const MODULES: &str = "
  - {name: here, type: iac.provider, config: {provider: local, root: ./resources}}
  - {name: files, type: infra.storage, config: {provider: here}}
  - name: db
    type: infra.database
    config: {provider: here, engine: sqlite}
    dependsOn: [files]
    outputs:
      connection_url: {sensitive: true}
";

#[test]
fn a_state_goes_through_four_stores_and_comes_back() {
    let built = harness::binary().with_file_name("tidegate-plugin-cloud");
    if !built.exists() {
        harness::skip_without("tidegate-plugin-cloud");
        return;
    }
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let (Some(s3), Some(azure)) = (Server::start(Kind::S3), Server::start(Kind::Azure)) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let plugins = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    install(&built, plugins.path());
    let password = percent_encoding::utf8_percent_encode(
        ADMINISTRATOR_PASSWORD,
        percent_encoding::NON_ALPHANUMERIC,
    );
    let dsn = format!(
        "postgres://admin:{password}@127.0.0.1:{}/postgres?sslmode=disable",
        cluster.port
    );
    let write = |name: &str, state: &str| {
        let text =
            format!("modules:\n  - {{name: state, type: iac.state, config: {{{state}}}}}{MODULES}");
        fs::write(folder.path().join(name), text).unwrap();
    };
    write(
        "infra.yaml",
        "backend: filesystem, directory: ./.tidegate/state",
    );
    write(
        "s3.yaml",
        &format!(
            "backend: s3, project: shop, bucket: bucket, region: us-east-1, endpoint: \"{}\"",
            s3.endpoint
        ),
    );
    write(
        "postgres.yaml",
        "backend: postgres, project: shop, dsn: \"${STATE_DATABASE_URL}\"",
    );
    write(
        "azure.yaml",
        &format!(
            "backend: azure_blob, project: shop, container: bucket, account: {}, endpoint: \"{}\"",
            Account::AZURE_ACCOUNT,
            azure.endpoint
        ),
    );
    write("back.yaml", "backend: filesystem, directory: ./back");
    let run = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        let done = Run::new(folder.path(), &arguments)
            .env("TIDEGATE_PLUGIN_DIR", plugins.path().to_str().unwrap())
            .env("STATE_DATABASE_URL", &dsn)
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "test-0123456789")
            .env("AZURE_STORAGE_ACCOUNT_KEY", Account::AZURE_KEY)
            .output()
            .expect_code(0);
        for secret in [&*password.to_string(), Account::AZURE_KEY] {
            let all = done.stdout() + &done.stderr();
            assert!(!all.contains(secret), "{line}: a credential in {all}");
        }
        done
    };
    run("infra apply --yes");
    let stops = [
        ("infra.yaml", "s3.yaml"),
        ("s3.yaml", "postgres.yaml"),
        ("postgres.yaml", "azure.yaml"),
        ("azure.yaml", "filesystem=back"),
    ];
    let mut digests = Vec::new();
    for (from, to) in stops {
        let done = run(&format!("state migrate -c {from} --to {to} --yes --json"));
        let document: Value = serde_json::from_str(&done.stdout()).expect("JSON");
        assert_eq!(document["records"], 2, "{document}");
        digests.push(document["digest"].as_str().unwrap().to_owned());
        // Nothing is to be done there either, and every seal opens.
        let next = if to.contains('=') { "back.yaml" } else { to };
        run(&format!("infra plan -c {next} --detailed-exitcode"));
        run(&format!("state verify -c {next}"));
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    run("infra destroy -c back.yaml --yes");
}
