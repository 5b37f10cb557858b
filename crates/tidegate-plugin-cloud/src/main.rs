//! State in object stores: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.
//!
//! A program of its own, so that no cloud library is in the core. What it promises hosts is the
//! plugin contract's; to hosts that ask, it also compares before it writes, in one request.

#![allow(
    clippy::disallowed_methods,
    reason = "a plugin is a program of its own, with an environment and an error stream of its own"
)]

mod layout;
mod objects;
mod record;
mod settings;

use std::process::ExitCode;

use tidegate_plugin::{About, Map, Plugin, Result, StateBackend, StateStore, async_trait};

use objects::Objects;
use settings::BACKENDS;

/// Variables that hold credentials.
const SECRETS: [(&str, &str); 10] = [
    ("AWS_ACCESS_KEY_ID", "S3: access key"),
    ("AWS_SECRET_ACCESS_KEY", "S3: secret key"),
    ("AWS_SESSION_TOKEN", "S3: session token"),
    (
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "S3: token for the credentials of a container",
    ),
    ("DO_SPACES_ACCESS_KEY", "Spaces: access key"),
    ("DO_SPACES_SECRET_KEY", "Spaces: secret key"),
    (
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GCS: key of a service account, as JSON",
    ),
    ("AZURE_STORAGE_ACCOUNT_KEY", "Azure: account key"),
    ("AZURE_STORAGE_SAS_KEY", "Azure: shared access signature"),
    ("AZURE_CLIENT_SECRET", "Azure: secret of an application"),
];

/// Variables that say where and as whom, and are no secrets.
const SETTINGS: [&str; 20] = [
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_CLIENT_ID",
    "AZURE_TENANT_ID",
    "AZURE_AUTHORITY_HOST",
    "AZURE_FEDERATED_TOKEN_FILE",
    "IDENTITY_ENDPOINT",
    "MSI_ENDPOINT",
];

struct Cloud;

#[async_trait]
impl StateBackend for Cloud {
    fn names(&self) -> Vec<String> {
        BACKENDS.map(str::to_owned).to_vec()
    }

    async fn configure(&self, name: &str, settings: Map) -> Result<Box<dyn StateStore>> {
        let opened = settings::open(name, &settings)?;
        Ok(Box::new(Objects::new(opened)))
    }
}

fn about() -> About {
    let about = About::new(
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_AUTHORS"),
        env!("CARGO_PKG_DESCRIPTION"),
    )
    .published(env!("CARGO_PKG_LICENSE"), env!("CARGO_PKG_REPOSITORY"));
    let about = SECRETS.into_iter().fold(about, |about, (name, words)| {
        about.requires_secret(name, words)
    });
    SETTINGS.into_iter().fold(about, About::reads_setting)
}

fn main() -> ExitCode {
    // Fails only when there is one already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    Plugin::state_only(about(), Cloud).serve()
}
