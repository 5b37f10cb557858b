//! From the config of a state module to an open bucket.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::{ClientOptions, ObjectStore, RetryConfig, StaticCredentialProvider};
use serde_json::Value;
use tidegate_plugin::{Error, Map, Result};

use crate::layout::{DEFAULT_PREFIX, Layout};

/// The names a config may use.
pub(crate) const BACKENDS: [&str; 4] = ["s3", "spaces", "gcs", "azure_blob"];

/// Keys that are the host's business.
const OF_HOSTS: [&str; 8] = [
    "backend",
    "encrypt",
    "key_file",
    "project",
    "ephemeral",
    "env",
    "environment",
    "directory",
];

/// A bucket and the place in it.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) layout: Layout,
}

/// Settings, with a memory of what was asked for.
struct Settings<'a> {
    backend: &'a str,
    all: &'a Map,
    known: Vec<&'static str>,
}

impl Settings<'_> {
    /// The first of several spellings that is there.
    fn text(&mut self, spellings: &[&'static str]) -> Result<Option<String>> {
        self.known.extend_from_slice(spellings);
        for key in spellings {
            match self.all.get(*key) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) if text.is_empty() => {}
                Some(Value::String(text)) => return Ok(Some(text.clone())),
                Some(_) => return Err(Error::invalid(format!("`{key}` must be text"))),
            }
        }
        Ok(None)
    }

    fn required(&mut self, spellings: &[&'static str]) -> Result<String> {
        let backend = self.backend.to_owned();
        self.text(spellings)?.ok_or_else(|| {
            Error::invalid(format!(
                "`backend: {backend}` needs `{}`",
                spellings.first().copied().unwrap_or_default()
            ))
        })
    }

    fn truth(&mut self, key: &'static str) -> Result<Option<bool>> {
        self.known.push(key);
        match self.all.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(Error::invalid(format!("`{key}` must be true or false"))),
        }
    }

    /// A config may be shared with another tool: unknown keys are said, not refused.
    fn say_unknown(&self) {
        for key in self.all.keys() {
            if !self.known.contains(&key.as_str()) && !OF_HOSTS.contains(&key.as_str()) {
                let backend = self.backend;
                // Nobody is left to tell when stderr is closed.
                drop(writeln!(
                    std::io::stderr(),
                    "the {backend} state has no setting `{key}`; it is ignored"
                ));
            }
        }
    }
}

fn retries() -> RetryConfig {
    RetryConfig {
        max_retries: 8,
        retry_timeout: Duration::from_secs(45),
        ..RetryConfig::default()
    }
}

fn refused(error: &object_store::Error) -> Error {
    Error::invalid(error.to_string())
}

/// Opens the bucket. Nothing is sent yet.
pub(crate) fn open(backend: &str, all: &Map) -> Result<Opened> {
    let mut settings = Settings {
        backend,
        all,
        known: Vec::new(),
    };
    let prefix = settings.text(&["prefix"])?;
    let layout = Layout::new(prefix.as_deref().unwrap_or(DEFAULT_PREFIX))?;
    let store = match backend {
        "s3" => s3(&mut settings, AmazonS3Builder::from_env(), None)?,
        "spaces" => spaces(&mut settings)?,
        "gcs" => gcs(&mut settings)?,
        "azure_blob" => azure(&mut settings)?,
        other => {
            return Err(Error::invalid(format!(
                "there is no backend {other:?} here"
            )));
        }
    };
    settings.say_unknown();
    Ok(Opened { store, layout })
}

/// Plain HTTP only where the config itself says so, by the scheme of its endpoint.
fn client(endpoint: Option<&str>) -> ClientOptions {
    let is_plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    ClientOptions::new()
        .with_allow_http(is_plain)
        .with_timeout(Duration::from_secs(60))
        .with_connect_timeout(Duration::from_secs(10))
}

fn s3(
    settings: &mut Settings<'_>,
    mut builder: AmazonS3Builder,
    default_endpoint: Option<String>,
) -> Result<Arc<dyn ObjectStore>> {
    builder = builder.with_bucket_name(settings.required(&["bucket"])?);
    if let Some(region) = settings.text(&["region"])? {
        builder = builder.with_region(region);
    }
    let endpoint = settings.text(&["endpoint"])?.or(default_endpoint);
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(is_path_style) = settings.truth("path_style")? {
        builder = builder.with_virtual_hosted_style_request(!is_path_style);
    }
    let access = settings.text(&["accessKey", "access_key", "access_key_id"])?;
    let secret = settings.text(&["secretKey", "secret_key", "secret_access_key"])?;
    match (access, secret) {
        (Some(access), Some(secret)) => {
            builder = builder
                .with_access_key_id(access)
                .with_secret_access_key(secret);
        }
        (None, None) => {}
        _ => {
            return Err(Error::invalid(
                "`accessKey` and `secretKey` come together or not at all",
            ));
        }
    }
    if let Some(token) = settings.text(&["sessionToken", "session_token"])? {
        builder = builder.with_token(token);
    }
    // The scheme of an endpoint from the environment counts as well: whoever set it meant it.
    let from_environment = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let endpoint = endpoint.or(from_environment);
    let store = builder
        .with_client_options(client(endpoint.as_deref()))
        .with_retry(retries())
        .build()
        .map_err(|error| refused(&error))?;
    Ok(Arc::new(store))
}

fn spaces(settings: &mut Settings<'_>) -> Result<Arc<dyn ObjectStore>> {
    let region = settings.required(&["region"])?;
    let mut builder = AmazonS3Builder::new();
    let variable = |name| {
        std::env::var(name)
            .ok()
            .filter(|value: &String| !value.is_empty())
    };
    if let (Some(access), Some(secret)) = (
        variable("DO_SPACES_ACCESS_KEY"),
        variable("DO_SPACES_SECRET_KEY"),
    ) {
        builder = builder
            .with_access_key_id(access)
            .with_secret_access_key(secret);
    }
    s3(
        settings,
        builder,
        Some(format!("https://{region}.digitaloceanspaces.com")),
    )
}

fn gcs(settings: &mut Settings<'_>) -> Result<Arc<dyn ObjectStore>> {
    let mut builder =
        GoogleCloudStorageBuilder::from_env().with_bucket_name(settings.required(&["bucket"])?);
    if let Some(key) = settings.text(&["service_account_key", "serviceAccountKey"])? {
        builder = builder.with_service_account_key(key);
    }
    if let Some(path) = settings.text(&["credentials_file", "credentialsFile"])? {
        builder = builder.with_application_credentials(path);
    }
    let endpoint = settings.text(&["endpoint"])?;
    if let Some(endpoint) = &endpoint {
        builder = builder.with_base_url(endpoint);
    }
    // For servers on this machine that know no credentials.
    if settings.truth("anonymous")?.unwrap_or(false) {
        let nobody = GcpCredential {
            bearer: String::new(),
        };
        // Writes ask for credentials even when nothing is signed with them.
        builder = builder
            .with_skip_signature(true)
            .with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
    }
    let store = builder
        .with_client_options(client(endpoint.as_deref()))
        .with_retry(retries())
        .build()
        .map_err(|error| refused(&error))?;
    Ok(Arc::new(store))
}

fn azure(settings: &mut Settings<'_>) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(settings.required(&["container", "bucket"])?);
    if let Some(account) = settings.text(&["account", "account_name", "storage_account"])? {
        builder = builder.with_account(account);
    }
    if let Some(key) = settings.text(&["account_key", "accountKey", "access_key"])? {
        builder = builder.with_access_key(key);
    }
    let endpoint = settings.text(&["endpoint"])?;
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let store = builder
        .with_client_options(client(endpoint.as_deref()))
        .with_retry(retries())
        .build()
        .map_err(|error| refused(&error))?;
    Ok(Arc::new(store))
}
