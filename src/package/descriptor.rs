//! `plugin.json`: what a plugin says about itself. The one reader of it, for whoever installs a
//! plugin and for whoever is about to start one; checked whole, by both.

use serde_json::{Map, Value};

use super::name;
use crate::config::Keys;

/// The release of the engine whose plugin contract `proto/` is; compared with `minEngineVersion` by whoever
/// installs a plugin and by whoever starts one, unless `--engine-version` or `WFCTL_ENGINE_VERSION` says otherwise.
pub const ENGINE_VERSION: &str = "0.86.0";

/// Largest `plugin.json`.
pub const BYTES_MAX: u64 = 4 << 20;

/// Longest text of a plugin repeated in a message.
const SHOWN_MAX: usize = 80;

/// A checked `plugin.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The plugin's name, long or short; the folder it stands in may have a shorter one.
    pub name: String,
    /// `X.Y.Z`, without a leading `v`; `0.0.0` means that it is set when the plugin is built.
    pub version: String,
    /// One line about it.
    pub description: String,
    /// The oldest engine it works with, as it is written.
    pub min_engine_version: Option<String>,
    /// What `provider:` of an `iac.provider` module names.
    pub provider: Option<String>,
    /// What it says about how plans are driven; `None` when it says nothing.
    pub plan_version: Option<String>,
    /// Variables it needs whose values are secret.
    pub secrets: Vec<String>,
    /// Variables it needs whose values are not.
    pub settings: Vec<String>,
    /// Services of the contract it says it serves, by their full names, sorted.
    pub services: Vec<String>,
    /// State backends it says it serves, sorted.
    pub state_backends: Vec<String>,
    /// Types of resource it says it has.
    pub resource_types: Vec<String>,
    /// The settings its provider module takes, when it says so: `configSchema`.
    pub config_keys: Option<Keys>,
    /// What modules of its types need, as it is written: `moduleInfraRequirementsV2`.
    pub requirements: Map<String, Value>,
}

/// Why a `plugin.json` that can be read is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescriptorError {
    /// It says something else than the lock.
    Wrong(String),
    /// It needs a newer engine.
    NeedsEngine(String),
}

fn refuse<T>(why: impl Into<String>) -> Result<T, String> {
    Err(why.into())
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

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match member(object, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => refuse(format!("`{name}` must be text")),
    }
}

fn required<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    match text(object, name)? {
        Some(text) if !text.is_empty() => Ok(text),
        _ => refuse(format!("`{name}` is missing")),
    }
}

fn object<'a>(
    parent: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a Map<String, Value>>, String> {
    match member(parent, name) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => refuse(format!("`{name}` must be an object")),
    }
}

/// The names in a list of `{name, …}`.
fn names(parent: &Map<String, Value>, list: &str) -> Result<Vec<String>, String> {
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

fn words(parent: &Map<String, Value>, list: &str) -> Result<Vec<String>, String> {
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

/// The part of a JSON Schema that says which settings there are. What cannot be read says nothing:
/// it is about other people's configs, not about the plugin.
fn config_keys(schema: &Value) -> Option<Keys> {
    let schema = schema.as_object()?;
    let properties = schema.get("properties")?.as_object()?;
    let required = match schema.get("required") {
        Some(Value::Array(names)) => names.as_slice(),
        _ => &[],
    };
    Some(Keys {
        allowed: properties.keys().cloned().collect(),
        is_open: schema.get("additionalProperties") != Some(&Value::Bool(false)),
        required: required
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect(),
        ..Keys::default()
    })
}

/// The three numbers of a version that has nothing else.
fn plain_version(text: &str) -> Option<[u32; 3]> {
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_plain.then(|| name::version_numbers(text)).flatten()
}

/// Each names a plugin and how new it must be.
fn dependencies(root: &Map<String, Value>) -> Result<(), String> {
    let Some(Value::Array(dependencies)) = member(root, "dependencies") else {
        return Ok(());
    };
    for dependency in dependencies {
        let has = |key: &str| {
            dependency
                .as_object()
                .and_then(|fields| member(fields, key))
                .and_then(Value::as_str)
                .is_some_and(|text| !text.is_empty())
        };
        let is_bounded = ["constraint", "minVersion", "maxVersion"]
            .map(has)
            .contains(&true);
        if !has("name") || !is_bounded {
            return refuse("an entry of `dependencies` has no name or no constraint");
        }
    }
    Ok(())
}

impl Descriptor {
    /// Reads and checks one by itself.
    ///
    /// # Errors
    /// The first thing wrong with it, one clause.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() as u64 > BYTES_MAX {
            return refuse(format!("it is larger than {} MiB", BYTES_MAX >> 20));
        }
        let root: Map<String, Value> = match serde_json::from_slice(bytes) {
            Ok(Value::Object(root)) => root,
            Ok(_) => return refuse("it is not a JSON object"),
            Err(error) => return refuse(format!("it is not JSON: {error}")),
        };
        let name = required(&root, "name")?;
        if !name::is_name(name) {
            return refuse(
                "`name` must be lower-case letters, digits and hyphens, beginning with a letter",
            );
        }
        let version = required(&root, "version")?;
        let version = version.strip_prefix('v').unwrap_or(version);
        if plain_version(version).is_none() {
            return refuse("`version` must be three numbers such as `1.4.2`, without a suffix");
        }
        required(&root, "author")?;
        let description = required(&root, "description")?;
        let tier = text(&root, "tier")?.unwrap_or_default();
        if !["", "core", "community", "premium"].contains(&tier) {
            return refuse(format!("`tier` is {}, which is no tier", shown(tier)));
        }
        dependencies(&root)?;
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
        let everywhere = |list: &str| -> Result<Vec<String>, String> {
            let mut all = words(&root, list)?;
            all.extend(words(capabilities, list)?);
            all.sort();
            all.dedup();
            Ok(all)
        };
        let state_backends = everywhere("iacStateBackends")?;
        let services = everywhere("iacServices")?;
        Ok(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            description: description.to_owned(),
            min_engine_version: text(&root, "minEngineVersion")?
                .filter(|version| !version.is_empty())
                .map(str::to_owned),
            provider: provider.map(str::to_owned),
            plan_version,
            secrets: names(&root, "required_secrets")?,
            settings: names(&root, "required_config")?,
            services,
            state_backends,
            resource_types: [nested, Some(capabilities), Some(&root)]
                .into_iter()
                .flatten()
                .filter_map(|part| member(part, "resourceTypes")?.as_array())
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            config_keys: nested.and_then(|nested| config_keys(nested.get("configSchema")?)),
            requirements: object(&root, "moduleInfraRequirementsV2")?
                .cloned()
                .unwrap_or_default(),
        })
    }

    /// Checks it against what the lock says it is, and against the engine.
    pub fn check(&self, name: &str, version: &str, engine: &str) -> Result<(), DescriptorError> {
        if name::folder(&self.name) != name::folder(name) {
            return Err(DescriptorError::Wrong(format!(
                "it describes the plugin {}, not `{name}`",
                shown(&self.name)
            )));
        }
        let is_set_later = name::version_numbers(&self.version) == Some([0, 0, 0]);
        if !is_set_later && name::version_numbers(&self.version) != name::version_numbers(version) {
            return Err(DescriptorError::Wrong(format!(
                "it describes version {}, not `{version}`",
                shown(&self.version)
            )));
        }
        // A malformed demand is no demand, as for every other host.
        if let Some(needed) = &self.min_engine_version
            && let Some(least) = name::version_numbers(needed)
            && name::version_numbers(engine).is_some_and(|have| have < least)
        {
            return Err(DescriptorError::NeedsEngine(shown(needed)));
        }
        Ok(())
    }
}

/// A plugin's own text, cut and quoted.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_MAX).collect();
    format!("{cut:?}")
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

    fn changed(change: Value) -> Result<Descriptor, String> {
        let mut all = base();
        for (key, value) in change.as_object().unwrap() {
            all[key] = value.clone();
        }
        Descriptor::parse(all.to_string().as_bytes())
    }

    #[test]
    fn a_manifest_of_an_existing_plugin_is_read() {
        let manifest = changed(json!({
            "version": "v1.2.3", "minEngineVersion": "0.80.0", "unknown": [1],
            "required_secrets": [{"name": "CLOUD_TOKEN", "sensitive": true}],
            "required_config": [{"name": "CLOUD_REGION"}],
            "iacStateBackends": ["s3"],
            "iacProvider": {"computePlanVersion": "v2", "resourceReplacer": true},
            "capabilities": {"iacProvider": {"name": "cloud", "configSchema": {
                "type": "object", "properties": {"region": {}, "token": {}},
                "required": ["region"], "additionalProperties": false,
            }}},
        }))
        .unwrap();
        let keys = manifest.config_keys.as_ref().unwrap();
        assert_eq!((keys.allowed.len(), keys.is_open), (2, false));
        assert_eq!(keys.required, ["region"]);
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
            (json!({"tier": "gold"}), "`tier` is"),
            (json!({"tier": 1}), "`tier` must be text"),
            (json!({"dependencies": [{"name": "x"}]}), "`dependencies`"),
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
            let error = changed(change.clone()).unwrap_err();
            assert!(error.contains(expected), "{change}: {error}");
        }
        assert!(Descriptor::parse(b"[]").is_err() && Descriptor::parse(b"{").is_err());
        // The list form of `capabilities` can name no provider.
        assert_eq!(changed(json!({"capabilities": []})).unwrap().provider, None);
    }

    fn with(change: &str) -> Result<Descriptor, String> {
        let text = r#"{"name":"demo","version":"1.2.3","author":"a","description":"d","x":1}"#;
        Descriptor::parse(text.replace("\"x\":1", change).as_bytes())
    }

    #[test]
    fn what_is_accepted_and_what_is_not() {
        assert!(with("\"x\":1").is_ok());
        assert!(with(r#""minEngineVersion":"0.60.0""#).is_ok());
        assert!(with(r#""capabilities":[]"#).is_ok());
        for change in [
            r#""tier":"gold""#,
            r#""capabilities":"x""#,
            r#""tier":1"#,
            r#""dependencies":[{"name":"x"}]"#,
        ] {
            assert!(with(change).is_err(), "{change}");
        }
        for text in [
            "",
            "[]",
            r#"{"version":"1.2.3","author":"a","description":"d"}"#,
            r#"{"name":"Demo","version":"1.2.3","author":"a","description":"d"}"#,
            r#"{"name":"demo","version":"1.2.3-rc.1","author":"a","description":"d"}"#,
            r#"{"name":"demo","version":"1.2","author":"a","description":"d"}"#,
            r#"{"name":"demo","version":"1.2.3","author":"","description":"d"}"#,
        ] {
            assert!(Descriptor::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn it_must_be_the_plugin_that_was_asked_for() {
        let plugin = with(r#""minEngineVersion":"0.60.0""#).unwrap();
        let check = |name, version, engine| plugin.check(name, version, engine);
        assert_eq!(check("demo", "v1.2.3", "0.60.0"), Ok(()));
        assert_eq!(check("workflow-plugin-demo", "1.2.3", "1.0.0"), Ok(()));
        assert!(check("other", "1.2.3", "1.0.0").is_err());
        assert!(check("demo", "1.2.4", "1.0.0").is_err());
        assert_eq!(
            check("demo", "1.2.3", "0.59.9"),
            Err(DescriptorError::NeedsEngine("\"0.60.0\"".to_owned()))
        );
    }
}
