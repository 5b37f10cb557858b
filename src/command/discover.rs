//! What an application needs, asked of the providers that know: the part of `infra derive` that no file on
//! disk can answer.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::Problems;
use crate::apply::Providers;
use crate::config::{Config, Sketch, is_sensitive_name};
use crate::disk::Disk;
use crate::provider::ability::{Ability, Application, ModuleName, Requirement};
use crate::provider::plugin::find::Found;
use crate::provider::plugin::needs;
use crate::report::Report;
use crate::resource::{Map, ProviderId, PublicMap, Value};

/// The provider modules whose plugins say in their `plugin.json` that they discover needs. Nobody else is
/// started for it.
pub(super) fn who(config: &Config, plugins: &[Found]) -> BTreeSet<ProviderId> {
    config
        .providers
        .iter()
        .filter(|(_, declared)| {
            plugins.iter().any(|plugin| {
                plugin.manifest.provider.as_deref() == Some(declared.provider.as_str())
                    && needs::are_discovered(plugin)
            })
        })
        .map(|(id, _)| id.clone())
        .collect()
}

/// Everything that the open providers say the application needs.
pub(super) async fn ask(
    application: &str,
    config: &Config,
    sketches: &[Sketch],
    plugins: &[Found],
    providers: &Providers,
) -> Result<Vec<Requirement>, Problems> {
    let mut all = Vec::new();
    for (id, provider) in providers {
        if !provider.abilities().contains(&Ability::Discovery) {
            continue;
        }
        let settings = config
            .providers
            .get(id)
            .map(|declared| open_part(&declared.config))
            .unwrap_or_default();
        let application = Application {
            name: application.to_owned(),
            environment: config.environment.clone(),
            modules: sketches
                .iter()
                .map(|sketch| ModuleName {
                    name: sketch.name.clone(),
                    kind: sketch.kind.clone(),
                    satisfies: sketch.satisfies.clone(),
                })
                .collect(),
            plugins: plugins.iter().map(|plugin| plugin.name.clone()).collect(),
            settings,
        };
        let needs = provider.discover(&application).await.map_err(|error| {
            Report::error(
                "provider/failed",
                format!("provider `{id}` could not say what the application needs"),
            )
            .because(format!("{} ({})", error.message, error.class.word()))
            .fix("nothing was changed; remove the cause, then run the command again")
        })?;
        all.extend(needs);
    }
    Ok(all)
}

/// What the application is called: the project of its state, else the folder of its config.
pub(super) fn name(disk: &dyn Disk, config: &Config) -> String {
    let project = config
        .state
        .as_ref()
        .and_then(|state| state.config.get("project")?.as_str());
    let folder = || {
        // With a dot: beside us it is an empty path.
        let folder = disk.canonical(&config.directory.join(".")).ok()?;
        Some(folder.file_name()?.to_string_lossy().into_owned())
    };
    project
        .map(str::to_owned)
        .or_else(folder)
        .unwrap_or_default()
}

/// What a module says in the open: plain values that do not stand under a name that promises a secret.
fn open_part(settings: &Map) -> PublicMap {
    settings
        .iter()
        .filter(|(key, _)| !is_sensitive_name(key))
        .filter_map(|(key, value)| Some((key.clone(), plain(value)?)))
        .collect()
}

fn plain(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::Bool(*flag),
        Value::Number(number) => Json::Number(number.clone()),
        Value::String(text) => Json::String(text.clone()),
        Value::List(items) => Json::Array(items.iter().filter_map(plain).collect()),
        Value::Map(map) => Json::Object(open_part(map)),
        Value::Secret(_) | Value::Template(_) | Value::Unknown(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_stands_in_the_open_is_told() {
        let masker = crate::secret::Masker::default();
        let settings = Map::from([
            ("region".to_owned(), Value::String("nyc3".to_owned())),
            ("api_token".to_owned(), Value::String("tok-123".to_owned())),
            (
                "account".to_owned(),
                Value::Secret(masker.admit("account", "s3cr3t-value".to_owned())),
            ),
            (
                "nested".to_owned(),
                Value::Map(Map::from([
                    ("password".to_owned(), Value::String("p".to_owned())),
                    ("size".to_owned(), Value::String("s".to_owned())),
                ])),
            ),
        ]);
        assert_eq!(
            Json::Object(open_part(&settings)),
            json!({"region": "nyc3", "nested": {"size": "s"}})
        );
    }
}
