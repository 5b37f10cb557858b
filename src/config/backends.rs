//! The settings of the state backends that come with Tidegate, in every spelling that is taken: a
//! setting that is nearly one of them is a slip, and a state that is looked for in another place than
//! last time is an empty one.

/// What every backend may be told.
const COMMON: [&str; 5] = [
    "backend",
    "encrypt",
    "ephemeral",
    "identity_file",
    "key_file",
];

/// What every store in a bucket may be told. The last ones are other tools' words, and no slips.
const OF_BUCKETS: [&str; 6] = [
    "prefix",
    "project",
    "project_id",
    "env",
    "environment",
    "directory",
];

const S3: [&str; 12] = [
    "bucket",
    "region",
    "endpoint",
    "path_style",
    "accessKey",
    "access_key",
    "access_key_id",
    "secretKey",
    "secret_key",
    "secret_access_key",
    "sessionToken",
    "session_token",
];

const GCS: [&str; 7] = [
    "bucket",
    "endpoint",
    "service_account_key",
    "serviceAccountKey",
    "credentials_file",
    "credentialsFile",
    "anonymous",
];

const AZURE: [&str; 9] = [
    "container",
    "bucket",
    "account",
    "account_name",
    "storage_account",
    "account_key",
    "accountKey",
    "access_key",
    "endpoint",
];

const POSTGRES: [&str; 5] = [
    "dsn",
    "connection_string",
    "project",
    "schema",
    "sslrootcert",
];

/// Words for the folder of a filesystem state that are not its own, and far from it in letters.
const FOLDERS: [&str; 4] = ["path", "dir", "folder", "root"];

/// All settings of a backend that comes with Tidegate; `None` of any other.
pub fn settings_of(backend: &str) -> Option<Vec<&'static str>> {
    let own: &[&[&str]] = match backend {
        "filesystem" => &[&["directory"]],
        "memory" => &[],
        "postgres" => &[&POSTGRES],
        "s3" | "spaces" => &[&OF_BUCKETS, &S3],
        "gcs" => &[&OF_BUCKETS, &GCS],
        "azure_blob" => &[&OF_BUCKETS, &AZURE],
        _ => return None,
    };
    let own = own.iter().copied().flatten();
    Some(own.chain(&COMMON).copied().collect())
}

/// The setting that another word stands for.
pub(super) fn meant_by(backend: &str, setting: &str) -> Option<&'static str> {
    (backend == "filesystem" && FOLDERS.contains(&setting)).then_some("directory")
}
