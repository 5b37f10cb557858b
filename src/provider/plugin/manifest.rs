//! `plugin.json`: what a plugin says about itself before it runs. Checked before anything starts.

use serde_json::{Map, Value};

/// Longest manifest that is read.
pub const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A checked `plugin.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The plugin's name; the folder it stands in may have a shorter one.
    pub name: String,
    /// `X.Y.Z`, without a leading `v`.
    pub version: String,
    /// What `provider:` of an `iac.provider` module names.
    pub provider: Option<String>,
    /// What it says about how plans are driven; `None` when it says nothing.
    pub plan_version: Option<String>,
    /// The oldest engine it works with.
    pub engine_version_min: Option<String>,
    /// Variables it needs whose values are secret.
    pub secrets: Vec<String>,
    /// Variables it needs whose values are not.
    pub settings: Vec<String>,
    /// State backends it says it serves, sorted.
    pub state_backends: Vec<String>,
}

/// Why a manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ManifestError(pub String);

fn refuse<T>(why: impl Into<String>) -> Result<T, ManifestError> {
    Err(ManifestError(why.into()))
}

/// A member by its name; authors' spelling of capitals is forgiven, as Go's decoder does.
fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object
        .get(name)
        .or_else(|| {
            object
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        })
        .filter(|value| !value.is_null())
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, ManifestError> {
    match member(object, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => refuse(format!("`{name}` must be text")),
    }
}

fn required<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, ManifestError> {
    match text(object, name)? {
        Some(text) if !text.is_empty() => Ok(text),
        _ => refuse(format!("`{name}` is missing")),
    }
}

fn object<'a>(
    parent: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a Map<String, Value>>, ManifestError> {
    match member(parent, name) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => refuse(format!("`{name}` must be an object")),
    }
}

/// The names in a list of `{name, …}`.
fn names(parent: &Map<String, Value>, list: &str) -> Result<Vec<String>, ManifestError> {
    match member(parent, list) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| match item {
                Value::Object(item) => required(item, "name").map(str::to_owned),
                _ => refuse(format!("every item of `{list}` must be an object")),
            })
            .collect(),
        Some(_) => refuse(format!("`{list}` must be a list")),
    }
}

fn words(parent: &Map<String, Value>, list: &str) -> Result<Vec<String>, ManifestError> {
    match member(parent, list) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| match item {
                Value::String(text) => Ok(text.clone()),
                _ => refuse(format!("every item of `{list}` must be text")),
            })
            .collect(),
        Some(_) => refuse(format!("`{list}` must be a list")),
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.ends_with(|last: char| last.is_ascii_lowercase() || last.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Three whole numbers, after an optional `v`.
pub(super) fn version_numbers(version: &str) -> Option<[u64; 3]> {
    let mut parts = version.strip_prefix('v').unwrap_or(version).split('.');
    let mut next = || -> Option<u64> {
        let part = parts.next()?;
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse().ok()).flatten()
    };
    let numbers = [next()?, next()?, next()?];
    parts.next().is_none().then_some(numbers)
}

impl Manifest {
    /// Reads and checks the text of a `plugin.json`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let root: Map<String, Value> = match serde_json::from_slice(bytes) {
            Ok(Value::Object(root)) => root,
            Ok(_) => return refuse("it is not a JSON object"),
            Err(error) => return refuse(format!("it is not JSON: {error}")),
        };
        let name = required(&root, "name")?;
        if !is_name(name) {
            return refuse(
                "`name` must be lower-case letters, digits and hyphens, beginning with a letter",
            );
        }
        let version = required(&root, "version")?;
        if version_numbers(version).is_none() {
            return refuse("`version` must be three numbers such as `1.4.2`, without a suffix");
        }
        required(&root, "author")?;
        required(&root, "description")?;
        let nothing = Map::new();
        let capabilities = match member(&root, "capabilities") {
            None | Some(Value::Array(_)) => &nothing,
            Some(Value::Object(capabilities)) => capabilities,
            Some(_) => return refuse("`capabilities` must be an object or a list"),
        };
        let nested = object(capabilities, "iacProvider")?;
        let outer = object(&root, "iacProvider")?;
        let mut plan_version = None;
        for provider in [outer, nested].into_iter().flatten() {
            let said = text(provider, "computePlanVersion")?.filter(|said| !said.is_empty());
            if let (Some(one), Some(other)) = (&plan_version, said)
                && one != other
            {
                return refuse(
                    "`computePlanVersion` is declared twice, and the two are not the same",
                );
            }
            match said {
                None => {}
                Some(said @ ("v1" | "v2")) => plan_version = Some(said.to_owned()),
                Some(_) => return refuse("`computePlanVersion` must be `v1` or `v2`"),
            }
            match member(provider, "resourceReplacer") {
                None | Some(Value::Bool(_)) => {}
                Some(_) => return refuse("`resourceReplacer` must be true or false"),
            }
        }
        let provider = match nested {
            Some(nested) => text(nested, "name")?.filter(|name| !name.is_empty()),
            None => None,
        };
        let mut state_backends = words(&root, "iacStateBackends")?;
        state_backends.extend(words(capabilities, "iacStateBackends")?);
        state_backends.sort();
        state_backends.dedup();
        Ok(Self {
            name: name.to_owned(),
            version: version.strip_prefix('v').unwrap_or(version).to_owned(),
            provider: provider.map(str::to_owned),
            plan_version,
            engine_version_min: text(&root, "minEngineVersion")?
                .filter(|version| !version.is_empty())
                .map(str::to_owned),
            secrets: names(&root, "required_secrets")?,
            settings: names(&root, "required_config")?,
            state_backends,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Value {
        json!({
            "name": "workflow-plugin-cloud", "version": "1.2.3", "author": "a", "description": "d",
            "capabilities": {"iacProvider": {"name": "cloud", "computePlanVersion": "v2"}},
        })
    }

    fn with(change: Value) -> Result<Manifest, ManifestError> {
        let mut all = base();
        for (key, value) in change.as_object().unwrap() {
            all[key] = value.clone();
        }
        Manifest::parse(all.to_string().as_bytes())
    }

    #[test]
    fn a_manifest_of_an_existing_plugin_is_read() {
        let manifest = with(json!({
            "version": "v1.2.3", "minEngineVersion": "0.80.0", "unknown": [1],
            "required_secrets": [{"name": "CLOUD_TOKEN", "sensitive": true}],
            "required_config": [{"name": "CLOUD_REGION"}],
            "iacStateBackends": ["s3"],
            "iacProvider": {"computePlanVersion": "v2", "resourceReplacer": true},
        }))
        .unwrap();
        assert_eq!(
            (manifest.version.as_str(), manifest.provider.as_deref()),
            ("1.2.3", Some("cloud"))
        );
        assert_eq!(manifest.plan_version.as_deref(), Some("v2"));
        assert_eq!((manifest.secrets.len(), manifest.settings.len()), (1, 1));
        assert_eq!(manifest.state_backends, ["s3"]);
    }

    #[test]
    fn every_rule_of_the_schema_refuses() {
        for (change, expected) in [
            (json!({"name": "Cloud"}), "`name` must be"),
            (json!({"name": "cloud-"}), "`name` must be"),
            (json!({"name": ""}), "`name` is missing"),
            (json!({"version": "1.2"}), "three numbers"),
            (json!({"version": "1.2.3-rc1"}), "three numbers"),
            (json!({"version": "1.2.+3"}), "three numbers"),
            (json!({"author": ""}), "`author` is missing"),
            (json!({"description": null}), "`description` is missing"),
            (json!({"capabilities": "all"}), "`capabilities` must be"),
            (
                json!({"iacProvider": {"computePlanVersion": "v3"}}),
                "must be `v1` or `v2`",
            ),
            (
                json!({"iacProvider": {"computePlanVersion": 2}}),
                "must be text",
            ),
            (
                json!({"iacProvider": {"computePlanVersion": "v1"}}),
                "declared twice",
            ),
            (
                json!({"iacProvider": {"resourceReplacer": "yes"}}),
                "`resourceReplacer` must be",
            ),
            (json!({"required_secrets": ["X"]}), "must be an object"),
        ] {
            let error = with(change.clone()).unwrap_err();
            assert!(error.0.contains(expected), "{change}: {error}");
        }
        assert!(Manifest::parse(b"[]").is_err() && Manifest::parse(b"{").is_err());
        // The list form of `capabilities` can name no provider.
        assert_eq!(with(json!({"capabilities": []})).unwrap().provider, None);
    }
}
