//! A project with real secrets: generated ones, and a PostgreSQL database's own, in every kind of
//! sink.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::github::fake::{Fake, Options};
use crate::harness;
use crate::local::cluster::{ADMINISTRATOR_PASSWORD, Cluster};
use crate::main_job::{dotenv, forms};

/// What the calling step hands over; nobody else may have it.
pub(super) const TOKEN: &str = "github_pat_11Q7ZK3YV0x9dFh2LmNpRs";

const CONFIG: &str = r#"
modules:
  - name: state
    type: iac.state
    config: {backend: filesystem, directory: ./.tidegate/state}
  - name: here
    type: iac.provider
    config:
      provider: local
      root: ./.tidegate/resources
      postgres:
        host: 127.0.0.1
        port: @PORT@
        user: admin
        password: ${POSTGRES_PASSWORD}
  - name: uploads
    type: infra.storage
    config: {provider: here}
    outputs:
      path: {sensitive: false}
  - name: catalogue
    type: infra.database
    config: {provider: here, engine: sqlite}
    outputs:
      path: {sensitive: false}
  - name: orders-db
    type: infra.database
    config: {provider: here, engine: postgres}
    outputs:
      password:
        sensitive: true
        sinks:
          - {type: dotenv, name: DATABASE_PASSWORD}
          - {type: github_env, name: DATABASE_PASSWORD}
          - {type: github_secret, name: DATABASE_PASSWORD, repo: acme/shop}
      connection_url:
        sensitive: true
        sinks:
          - {type: dotenv, name: DATABASE_URL}
          - {type: github_secret, name: DATABASE_URL, repo: acme/shop, environment: prod/eu}
  - name: shop-api
    type: infra.container_service
    config:
      provider: here
      command: ["@SERVICE@"]
      env_vars: {ROLE: api, DATABASE_PATH: "${catalogue.path}", UPLOADS: "${uploads.path}"}
      env_vars_secret:
        SESSION_KEY: ${SESSION_KEY}
        DATABASE_URL: ${orders-db.connection_url}
      health_check: {http_path: /healthz}
    outputs:
      live_url: {sensitive: false}
      revision: {sensitive: false}
environments:
  ci: {}
secrets:
  generate:
    - key: SESSION_KEY
      type: random_hex
      length: 32
      sinks:
        - {type: dotenv, name: SESSION_KEY}
        - {type: github_env, name: SESSION_KEY}
        - {type: github_secret, name: SESSION_KEY, repo: acme/shop}
        - {type: github_secret, name: SESSION_KEY, repo: acme/shop, environment: prod/eu}
    - key: SIGNING_KEY
      type: random_base64
      length: 48
      sinks:
        - {type: dotenv, name: SIGNING_KEY}
        - {type: github_secret, name: SIGNING_KEY, repo: acme/shop, environment: prod/eu}
pipelines:
  deploy:
    steps:
      - name: api-answers
        type: step.deploy_verify
        config:
          timeout: 30s
          retry_interval: 1s
          targets:
            - url: ${shop-api.live_url}/healthz
              expect_body_contains: ${shop-api.revision}
"#;

/// Secret by the name it has in the `.env` file, and the scopes of GitHub it goes to as well.
const SINKS: [(&str, &[&str]); 4] = [
    ("SESSION_KEY", &["acme/shop", "acme/shop#prod/eu"]),
    ("SIGNING_KEY", &["acme/shop#prod/eu"]),
    ("DATABASE_PASSWORD", &["acme/shop"]),
    ("DATABASE_URL", &["acme/shop#prod/eu"]),
];

/// Two projects share the password of their PostgreSQL; what one's job may know would be a leak of
/// the other's.
static ONE_WORLD: Mutex<()> = Mutex::new(());

/// The outside world of a project: a GitHub and a PostgreSQL, both stopped on drop.
pub(super) struct World {
    pub(super) github: Fake,
    pub(super) cluster: Cluster,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    /// Nothing without PostgreSQL, which is said.
    pub(super) fn start() -> Option<Self> {
        let alone = ONE_WORLD.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = Cluster::start()?;
        let github = Fake::start(Options {
            token: Some(TOKEN.to_owned()),
            repositories: Some(vec!["acme/shop".to_owned()]),
            environments: Some(vec!["prod/eu".to_owned()]),
            ..Options::default()
        });
        Some(Self {
            github,
            cluster,
            _alone: alone,
        })
    }

    /// Writes the project's config into a folder.
    pub(super) fn write_project(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        let config = CONFIG
            .replace("@PORT@", &self.cluster.port.to_string())
            .replace(
                "@SERVICE@",
                &harness::service_binary().display().to_string(),
            );
        fs::write(folder.join("infra.yaml"), config).unwrap();
    }

    /// Asserts that each secret reached GitHub as the same bytes the `.env` file of the project
    /// holds, and that the database takes them. Returns the made ones.
    pub(super) fn expect_delivered(&self, project: &Path) -> Made {
        let file = project.join(".env");
        let mut values = Vec::new();
        for (name, scopes) in SINKS {
            let value = dotenv(&file, name);
            assert!(value.len() >= 24, "{name} is a real value");
            for scope in scopes {
                assert_eq!(
                    self.github.secret(scope, name),
                    Some(value.clone().into_bytes()),
                    "{name} in {scope}"
                );
            }
            values.push(Known::new(name, value));
        }
        assert_eq!(self.github.count("acme/shop"), 2);
        assert_eq!(self.github.count("acme/shop#prod/eu"), 3);
        let url = values.iter().find(|known| known.name == "DATABASE_URL");
        self.expect_login(&url.unwrap().value);
        Made { values }
    }

    fn expect_login(&self, url: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let answer: i32 = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
                .await
                .expect("the connection URL in the sink opens the database");
            let mut traffic = tokio::task::JoinSet::new();
            traffic.spawn(async move { drop(connection.await) });
            client.query_one("SELECT 42", &[]).await.unwrap().get(0)
        });
        assert_eq!(answer, 42);
    }

    /// Asserts that nothing the project made stands any more.
    pub(super) fn expect_gone(&self) {
        assert_eq!(self.github.count("acme/shop"), 0);
        assert_eq!(self.github.count("acme/shop#prod/eu"), 0);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        assert_eq!(runtime.block_on(self.cluster.standing()), (vec![], vec![]));
    }
}

/// A secret the test knows.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) value: String,
    /// What a careless program could have made of it; the value itself first.
    pub(super) forms: Vec<String>,
}

impl Known {
    fn new(name: &'static str, value: String) -> Self {
        let json = serde_json::to_string(&value).unwrap();
        let percent = utf8_percent_encode(&value, NON_ALPHANUMERIC).to_string();
        let mut forms = forms(&value);
        forms.extend([
            json[1..json.len() - 1].to_owned(),
            value.replace('\'', "'\\''"),
            percent.to_lowercase(),
            percent,
        ]);
        Self { name, value, forms }
    }
}

/// The secrets a run made.
pub(super) struct Made {
    pub(super) values: Vec<Known>,
}

impl Made {
    /// The value of one.
    pub(super) fn value(&self, name: &str) -> &str {
        let known = self.values.iter().find(|known| known.name == name);
        &known.unwrap().value
    }
}

/// What the calling step hands over.
pub(super) fn given() -> Vec<Known> {
    [
        ("GH_TOKEN", TOKEN),
        ("POSTGRES_PASSWORD", ADMINISTRATOR_PASSWORD),
    ]
    .map(|(name, value)| Known::new(name, value.to_owned()))
    .into()
}

/// The one program that is given secrets.
pub(super) fn service() -> PathBuf {
    fs::canonicalize(harness::service_binary()).unwrap()
}
