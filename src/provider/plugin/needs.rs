//! What modules of a plugin's types need from whoever runs them: `moduleInfraRequirementsV2` of its
//! `plugin.json`. Read from disk; no plugin is started for it.

use serde_json::{Map, Value};

use super::find::Found;
use crate::provider::ability::Requirement;
use crate::report::{Exit, Report};
use crate::resource::PublicMap;

/// Longest key of a requirement.
const KEY_BYTES_MAX: usize = 253;

/// What one module of the type `kind` needs, in the order of the manifest.
pub fn of_kind(plugin: &Found, kind: &str) -> Result<Vec<Requirement>, Report> {
    let Some(declared) = plugin.manifest.requirements.get(kind) else {
        return Ok(Vec::new());
    };
    read(declared, &plugin.name).map_err(|why| {
        Report::error(
            "plugin/requirements",
            format!(
                "plugin `{}` says in a way nobody understands what its modules need",
                plugin.name
            ),
        )
        .because(format!(
            "`moduleInfraRequirementsV2` of its plugin.json: {why}"
        ))
        .fix("install a release of the plugin whose plugin.json is right")
        .exit(Exit::Usage)
    })
}

fn read(declared: &Value, plugin: &str) -> Result<Vec<Requirement>, String> {
    let items = match declared.get("requires") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err("`requires` must be a list".to_owned()),
    };
    let mut needs = Vec::new();
    for item in items {
        let Value::Object(item) = item else {
            return Err("every item of `requires` must be an object".to_owned());
        };
        let key = text(item, "key")?;
        if !is_key(&key) {
            return Err("a `key` is empty, too long, or holds a control character".to_owned());
        }
        let source = text(item, "source")?;
        needs.push(Requirement {
            key,
            kind: text(item, "kind")?,
            source: if source.is_empty() {
                plugin.to_owned()
            } else {
                source
            },
            resource_type: text(item, "resourceTypeHint")?,
            environment: text(item, "environment")?,
            runtimes: texts(item, "runtimes")?,
            signals: texts(item, "telemetrySignals")?,
            backends: texts(item, "observabilityBackends")?,
            modes: texts(item, "deploymentModes")?,
            vendor_features: texts(item, "vendorFeatures")?,
            parameters: match item.get("parameters") {
                None | Some(Value::Null) => PublicMap::new(),
                Some(Value::Object(parameters)) => parameters.clone(),
                Some(_) => return Err("`parameters` must be an object".to_owned()),
            },
        });
    }
    Ok(needs)
}

/// A key that can stand in a config and in a message.
fn is_key(key: &str) -> bool {
    !key.trim().is_empty() && key.len() <= KEY_BYTES_MAX && !key.chars().any(char::is_control)
}

fn text(item: &Map<String, Value>, name: &str) -> Result<String, String> {
    match item.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{name}` must be text")),
    }
}

fn texts(item: &Map<String, Value>, name: &str) -> Result<Vec<String>, String> {
    let items = match item.get(name) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(format!("`{name}` must be a list")),
    };
    let mut texts = Vec::new();
    for item in items {
        match item {
            Value::String(text) => texts.push(text.clone()),
            _ => return Err(format!("every item of `{name}` must be text")),
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requirements_are_read_whole_or_not_at_all() {
        let needs = read(
            &json!({"requires": [{
                "key": "orders", "kind": "database", "resourceTypeHint": "infra.database",
                "runtimes": ["kubernetes"], "telemetrySignals": ["traces"],
                "deploymentModes": ["agent"], "vendorFeatures": ["acme:x"],
                "parameters": {"engine": "pg"}, "later": 1,
            }]}),
            "shop",
        )
        .unwrap();
        assert_eq!((needs.len(), needs[0].source.as_str()), (1, "shop"));
        assert_eq!(needs[0].parameters["engine"], "pg");
        assert_eq!(needs[0].runtimes, ["kubernetes"]);
        assert!(read(&json!({}), "shop").unwrap().is_empty());
        for (wrong, why) in [
            (json!({"requires": {}}), "must be a list"),
            (json!({"requires": ["x"]}), "must be an object"),
            (json!({"requires": [{"kind": "database"}]}), "`key` is"),
            (json!({"requires": [{"key": "a\nb"}]}), "`key` is"),
            (json!({"requires": [{"key": 1}]}), "must be text"),
            (
                json!({"requires": [{"key": "a", "runtimes": "ecs"}]}),
                "must be a list",
            ),
            (
                json!({"requires": [{"key": "a", "runtimes": [1]}]}),
                "must be text",
            ),
            (
                json!({"requires": [{"key": "a", "parameters": []}]}),
                "must be an object",
            ),
        ] {
            let error = read(&wrong, "shop").unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
