//! What modules of an application need from whoever runs them. Of a plugin's own types that stands in its
//! `plugin.json` (`moduleInfraRequirementsV2`), which is read from disk; a plugin that discovers needs is
//! asked.

use serde_json::{Map, Value};
use tidegate_plugin::iac;

use super::find::Found;
use super::services::DISCOVERY;
use super::{convert, derived, words};
use crate::provider::ability::{Application, Requirement};
use crate::provider::{DriverError, DriverResult, ErrorClass};
use crate::report::{Exit, Report};
use crate::resource::PublicMap;
use crate::secret::Masker;

/// Longest key of a requirement.
const KEY_BYTES_MAX: usize = 253;

/// Most needs one answer may bring.
const NEEDS_MAX: usize = 1_000;

/// Whether a plugin says that it discovers needs: only then it is worth being started for that.
pub fn are_discovered(plugin: &Found) -> bool {
    plugin
        .manifest
        .services
        .iter()
        .any(|service| service.rsplit('.').next() == Some(DISCOVERY))
}

/// The question to a plugin that discovers needs.
pub(super) fn question(application: &Application) -> iac::DiscoverRequirementsRequest {
    iac::DiscoverRequirementsRequest {
        context: Some(iac::RequirementContext {
            application: application.name.clone(),
            environment: application.environment.clone(),
            modules: application
                .modules
                .iter()
                .map(|module| iac::ModuleRef {
                    name: module.name.clone(),
                    r#type: module.kind.clone(),
                    satisfies: module.satisfies.clone(),
                })
                .collect(),
            plugin_ids: application.plugins.clone(),
        }),
        module_config_json: convert::object_bytes(&application.settings),
    }
}

/// Its answer, whole or not at all. It goes on to another plugin, so it holds no secret either.
pub(super) fn discovered(
    answer: iac::DiscoverRequirementsResponse,
    plugin: &str,
    masker: &Masker,
) -> DriverResult<Vec<Requirement>> {
    let wrong = |why: String| DriverError::new(ErrorClass::Invalid, why);
    if answer.requirements.len() > NEEDS_MAX {
        return Err(wrong(format!("its needs are more than {NEEDS_MAX}")));
    }
    let mut needs: Vec<Requirement> = Vec::new();
    for said in &answer.requirements {
        let mut need = words::needed(said)?;
        if !is_key(&need.key) {
            return Err(wrong(
                "a `key` is empty, too long, or holds a control character".to_owned(),
            ));
        }
        if masker.is_sensitive(&need.key) {
            return Err(wrong("the key of a need holds a secret".to_owned()));
        }
        if let Some(why) = derived::refusal(&need.parameters, masker) {
            return Err(wrong(format!("the need `{}` is refused: {why}", need.key)));
        }
        if need.source.is_empty() {
            plugin.clone_into(&mut need.source);
        }
        needs.push(need);
    }
    Ok(needs)
}

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
    fn a_plugin_is_told_what_there_is_and_answers_in_words() {
        let asked = question(&Application {
            name: "shop".to_owned(),
            environment: "dev".to_owned(),
            modules: vec![crate::provider::ability::ModuleName {
                name: "web".to_owned(),
                kind: "shop.server".to_owned(),
                satisfies: vec!["a".to_owned()],
            }],
            plugins: vec!["cloud".to_owned()],
            settings: PublicMap::new(),
        });
        let context = asked.context.unwrap();
        assert_eq!(context.modules[0].satisfies, ["a"]);
        assert_eq!(
            (context.application.as_str(), context.plugin_ids.as_slice()),
            ("shop", ["cloud".to_owned()].as_slice())
        );
        let masker = Masker::default();
        let answer = |need: iac::IaCRequirement| iac::DiscoverRequirementsResponse {
            requirements: vec![need],
        };
        let good = iac::IaCRequirement {
            key: "orders".to_owned(),
            kind: iac::RequirementKind::MessageBroker.into(),
            runtimes: vec![iac::RequirementRuntime::CloudRun.into()],
            parameters_json: br#"{"engine":"pg"}"#.to_vec(),
            ..iac::IaCRequirement::default()
        };
        let needs = discovered(answer(good.clone()), "cloud", &masker).unwrap();
        assert_eq!(
            (needs[0].kind.as_str(), needs[0].source.as_str()),
            ("message-broker", "cloud")
        );
        assert_eq!(needs[0].runtimes, ["cloud-run"]);
        for wrong in [
            iac::IaCRequirement {
                key: String::new(),
                ..good.clone()
            },
            iac::IaCRequirement {
                kind: 99,
                ..good.clone()
            },
            iac::IaCRequirement {
                parameters_json: br#"{"password":"hunter2"}"#.to_vec(),
                ..good.clone()
            },
            iac::IaCRequirement {
                parameters_json: b"[]".to_vec(),
                ..good
            },
        ] {
            let error = discovered(answer(wrong), "cloud", &masker).unwrap_err();
            assert!(!error.message.contains("hunter2"), "{error}");
        }
    }

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
