//! A resolved config as anyone may see it. Secrets appear as `(secret)`, never as their value.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map as Object, Value as Json, json};

use super::resolved::{
    Config, Entry, Gate, Generate, GenerateSource, OnFailure, OutputDeclaration, Resource,
    SinkDeclaration, SinkTarget, Target,
};
use crate::resource::{Map, Value};

/// What stands for a secret.
const HIDDEN: &str = "(secret)";

/// The config as JSON: the answer of `config resolve --json`.
pub fn to_public_json(config: &Config) -> Json {
    json!({
        "config": config.path.display().to_string(),
        "environment": config.environment,
        "digest": config.digest,
        "state": config.state.as_ref().map(|state| json!({
            "backend": state.backend,
            "ephemeral": state.ephemeral,
            "config": map(&state.config),
        })),
        "providers": config.providers.iter().map(|(id, provider)| {
            (id.as_str().to_owned(), json!({
                "provider": provider.provider,
                "config": map(&provider.config),
            }))
        }).collect::<Object<_, _>>(),
        "resources": config.resources.iter().map(resource).collect::<Vec<_>>(),
        "secret_stores": config.secret_stores.iter().map(|(name, store)| {
            (name.clone(), json!({
                "provider": store.provider,
                "config": map(&store.config),
            }))
        }).collect::<Object<_, _>>(),
        "secrets": {
            "generate": config.generate.iter().map(generate).collect::<Vec<_>>(),
            "credentials": config.credentials.iter().map(|item| json!({
                "key": item.key,
                "source": item.source,
                "name": item.name,
                "config": map(&item.config),
            })).collect::<Vec<_>>(),
            "entries": config.entries.iter().map(entry).collect::<Vec<_>>(),
        },
        "gates": config.gates.iter().map(gate).collect::<Vec<_>>(),
    })
}

/// The config as YAML, for people: the same document as [`to_public_json`].
pub fn to_public_yaml(config: &Config) -> String {
    // A JSON value has no form that YAML lacks, so this cannot fail; JSON is YAML if it ever does.
    let json = to_public_json(config);
    serde_yaml::to_string(&json).unwrap_or_else(|_| json.to_string())
}

fn resource(resource: &Resource) -> Json {
    json!({
        "name": resource.address.as_str(),
        "base_name": resource.base_name,
        "type": resource.kind.as_str(),
        "provider": resource.provider.as_str(),
        "protected": resource.protected,
        "adopt_existing": resource.adopt_existing,
        "size": resource.size,
        "hints": {
            "cpu": resource.hints.cpu,
            "memory": resource.hints.memory,
            "storage": resource.hints.storage,
        },
        "create_before_destroy": resource.create_before_destroy,
        "depends_on": resource.depends_on.iter().map(|address| address.as_str()).collect::<Vec<_>>(),
        "config": map(&resource.config),
        "outputs": outputs(&resource.outputs),
    })
}

fn outputs(outputs: &BTreeMap<String, OutputDeclaration>) -> Json {
    outputs
        .iter()
        .map(|(name, output)| {
            let value = json!({
                "sensitive": output.sensitive,
                "description": output.description,
                "sinks": output.sinks.iter().map(sink).collect::<Vec<_>>(),
            });
            (name.clone(), value)
        })
        .collect::<Object<_, _>>()
        .into()
}

fn sink(sink: &SinkDeclaration) -> Json {
    let mut fields = match &sink.target {
        SinkTarget::GithubSecret {
            repo,
            environment,
            token_env,
        } => json!({
            "type": "github_secret",
            "repo": repo,
            "environment": environment,
            "token_env": token_env,
        }),
        SinkTarget::GithubEnv => json!({ "type": "github_env" }),
        SinkTarget::Dotenv { path } => json!({
            "type": "dotenv",
            "path": path.display().to_string(),
        }),
    };
    fields["name"] = json!(sink.name);
    fields["on_failure"] = json!(match sink.on_failure {
        OnFailure::Warn => "warn",
        OnFailure::Fail => "fail",
    });
    fields
}

fn generate(generate: &Generate) -> Json {
    let mut fields = match &generate.source {
        GenerateSource::RandomHex { length } => json!({ "type": "random_hex", "length": length }),
        GenerateSource::RandomBase64 { length } => {
            json!({ "type": "random_base64", "length": length })
        }
        GenerateSource::RandomAlphanumeric { length } => {
            json!({ "type": "random_alphanumeric", "length": length })
        }
        GenerateSource::InfraOutput { address, field } => json!({
            "type": "infra_output",
            "source": format!("{address}.{field}"),
        }),
        GenerateSource::ProviderCredential { credential, .. } => json!({
            "type": "provider_credential",
            "credential": credential,
        }),
    };
    fields["key"] = json!(generate.key);
    fields["store"] = json!(generate.store);
    fields["sinks"] = generate.sinks.iter().map(sink).collect();
    fields
}

fn entry(entry: &Entry) -> Json {
    json!({
        "name": entry.name,
        "description": entry.description,
        "store": entry.store,
    })
}

fn gate(gate: &Gate) -> Json {
    json!({
        "name": gate.name,
        "timeout_seconds": seconds(gate.timeout),
        "retry_interval_seconds": seconds(gate.retry_interval),
        "max_retries": gate.max_retries,
        "targets": gate.targets.iter().map(target).collect::<Vec<_>>(),
    })
}

fn target(target: &Target) -> Json {
    json!({
        "url": value(&target.url),
        "expect_status": target.expect_status,
        "expect_body_contains": target.expect_body_contains.as_ref().map(value),
        "method": target.method,
        "headers": map(&target.headers),
        "body": target.body.as_ref().map(value),
        "tls_verify": target.tls_verify,
        "consecutive": target.consecutive,
    })
}

fn seconds(duration: Duration) -> Json {
    if duration.subsec_nanos() == 0 {
        json!(duration.as_secs())
    } else {
        json!(duration.as_secs_f64())
    }
}

fn map(values: &Map) -> Json {
    values
        .iter()
        .map(|(key, item)| (key.clone(), value(item)))
        .collect::<Object<_, _>>()
        .into()
}

fn value(item: &Value) -> Json {
    match item {
        Value::Null => Json::Null,
        Value::Bool(flag) => json!(flag),
        Value::Number(number) => Json::Number(number.clone()),
        Value::String(text) => json!(text),
        Value::Secret(_) => json!(HIDDEN),
        Value::Template(template) => json!(template.to_string()),
        Value::Unknown(reference) => json!(reference.to_string()),
        Value::List(items) => items.iter().map(value).collect(),
        Value::Map(values) => map(values),
    }
}
