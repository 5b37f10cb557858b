//! A plan on its way to a plugin that looks at plans.

use serde_json::Value as Json;
use tidegate_plugin::iac;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::convert::{self, object_bytes};
use crate::provider::ability::{Proposal, ProposedStep, Remembered};
use crate::resource::{ActionKind, Address, FieldChange, Kind, PublicMap, Value, config_hash};

/// Plans in which something is known only after apply have a number of their own.
const ALL_IS_KNOWN: i32 = 1;
const SOME_IS_UNKNOWN: i32 = 2;

/// The plan as plugins take it. A provider that knows its settings refuses a config with holes, so what is
/// known only after apply is told as it is on record; a resource of which that says nothing either is
/// left out.
pub(super) fn plan(plan: &Proposal) -> iac::IaCPlan {
    let values = || {
        plan.steps
            .iter()
            .flat_map(|step| step.desired.config.values())
    };
    iac::IaCPlan {
        id: plan.id.clone(),
        actions: plan.steps.iter().filter_map(action).collect(),
        created_at: timestamp(&plan.created_at),
        desired_hash: plan.desired_hash.clone(),
        schema_version: if values().all(Value::is_known) {
            ALL_IS_KNOWN
        } else {
            SOME_IS_UNKNOWN
        },
        ..iac::IaCPlan::default()
    }
}

fn action(step: &ProposedStep) -> Option<iac::PlanAction> {
    let (address, kind) = (&step.desired.address, &step.desired.kind);
    let is_delete = step.action == ActionKind::Delete;
    let mut unknown = Vec::new();
    let mut resource = convert::spec(&step.desired, &mut unknown);
    if !unknown.is_empty() {
        let recorded = &step.current.as_ref()?.config;
        let mut config = convert::object(&resource.config_json, "config").ok()?;
        for path in &unknown {
            fill(&mut config, recorded, path)?;
        }
        resource.config_json = object_bytes(&config);
    }
    Some(iac::PlanAction {
        action: step.action.word().to_owned(),
        resource: Some(resource),
        current: step
            .current
            .as_ref()
            .map(|current| state(address, kind, current)),
        changes: step
            .changes
            .iter()
            .map(|changed| change(address, changed))
            .collect(),
        // Of what goes, nothing is resolved any more.
        resolved_config_hash: if is_delete {
            String::new()
        } else {
            config_hash(&step.desired.public_config)
        },
    })
}

/// Puts the value that is on record at a path into a config.
fn fill(config: &mut PublicMap, recorded: &PublicMap, path: &str) -> Option<()> {
    let Some((first, rest)) = path.split_once('.') else {
        let value = recorded.get(path).filter(|value| !has_marker(value))?;
        config.insert(path.to_owned(), value.clone());
        return Some(());
    };
    let recorded = recorded.get(first)?.as_object()?;
    let inner = config
        .entry(first)
        .or_insert_with(|| Json::Object(PublicMap::new()));
    fill(inner.as_object_mut()?, recorded, rest)
}

fn has_marker(value: &Json) -> bool {
    match value {
        Json::Object(map) => {
            map.contains_key("$secret")
                || map.contains_key("$unknown")
                || map.values().any(has_marker)
        }
        Json::Array(items) => items.iter().any(has_marker),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => false,
    }
}

fn state(address: &Address, kind: &Kind, current: &Remembered) -> iac::ResourceState {
    iac::ResourceState {
        id: address.to_string(),
        name: address.to_string(),
        r#type: kind.to_string(),
        provider: current.provider.clone(),
        provider_ref: current.provider_ref.clone(),
        provider_id: current.provider_id.clone(),
        config_hash: current.config_hash.clone(),
        applied_config_json: object_bytes(&without_markers(address, &current.config)),
        applied_config_source: current.config_source.clone(),
        outputs_json: object_bytes(&current.outputs),
        dependencies: current
            .dependencies
            .iter()
            .map(ToString::to_string)
            .collect(),
        created_at: timestamp(&current.created_at),
        updated_at: timestamp(&current.updated_at),
        last_drift_check: None,
    }
}

fn change(address: &Address, change: &FieldChange) -> iac::FieldChange {
    let bytes = |value: &Json| {
        let value = without_marker(address, &change.path, value);
        value.to_string().into_bytes()
    };
    iac::FieldChange {
        path: change.path.clone(),
        old_json: bytes(&change.old),
        new_json: bytes(&change.new),
        force_new: change.force_new,
    }
}

fn without_markers(address: &Address, config: &PublicMap) -> PublicMap {
    config
        .iter()
        .map(|(key, value)| (key.clone(), without_marker(address, key, value)))
        .collect()
}

/// Our own signs in public values, as other hosts write them: a secret is a placeholder, and what is not
/// known yet is nothing.
fn without_marker(address: &Address, path: &str, value: &Json) -> Json {
    match value {
        Json::Object(map) if map.len() == 1 && map.contains_key("$secret") => {
            Json::String(format!("secret_ref://{address}_{path}"))
        }
        Json::Object(map) if map.len() == 1 && map.contains_key("$unknown") => Json::Null,
        Json::Object(map) => Json::Object(
            map.iter()
                .map(|(key, value)| {
                    let path = format!("{path}.{key}");
                    (key.clone(), without_marker(address, &path, value))
                })
                .collect(),
        ),
        Json::Array(items) => Json::Array(
            items
                .iter()
                .map(|item| without_marker(address, path, item))
                .collect(),
        ),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => value.clone(),
    }
}

fn timestamp(text: &str) -> Option<prost_types::Timestamp> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(prost_types::Timestamp {
        seconds: at.unix_timestamp(),
        nanos: 0,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::resource::{Map, Reference, Spec};

    fn step(action: ActionKind, config: Map, current: Option<Remembered>) -> ProposedStep {
        ProposedStep {
            action,
            desired: Spec {
                address: Address::new("db"),
                kind: Kind::new("infra.database"),
                config,
                public_config: PublicMap::from_iter([("n".to_owned(), json!(2))]),
                dependencies: BTreeSet::new(),
            },
            current,
            changes: vec![FieldChange {
                path: "password".to_owned(),
                old: json!({"$secret": "abc"}),
                new: json!({"$unknown": "net.id"}),
                force_new: true,
            }],
        }
    }

    fn proposal(steps: Vec<ProposedStep>) -> Proposal {
        Proposal {
            id: "plan-1".to_owned(),
            created_at: "2026-01-05T08:00:00Z".to_owned(),
            desired_hash: "cc".to_owned(),
            steps,
        }
    }

    #[test]
    fn a_plugin_sees_the_plan_and_none_of_our_signs() {
        let current = Remembered {
            provider_id: "db-1".to_owned(),
            config:
                json!({"n": 1, "password": {"$secret": "abc"}, "in": {"key": {"$secret": "x"}}})
                    .as_object()
                    .cloned()
                    .unwrap_or_default(),
            created_at: "2026-01-04T08:00:00Z".to_owned(),
            ..Remembered::default()
        };
        let said = plan(&proposal(vec![step(
            ActionKind::Replace,
            Map::new(),
            Some(current),
        )]));
        assert_eq!((said.id.as_str(), said.schema_version), ("plan-1", 1));
        assert_eq!(said.created_at.map(|at| at.seconds), Some(1_767_600_000));
        let action = &said.actions[0];
        assert_eq!(action.action, "replace");
        assert!(!action.resolved_config_hash.is_empty());
        let current = action.current.as_ref().expect("what is on record");
        assert_eq!(current.provider_id, "db-1");
        assert_eq!(
            String::from_utf8_lossy(&current.applied_config_json),
            r#"{"in":{"key":"secret_ref://db_in.key"},"n":1,"password":"secret_ref://db_password"}"#
        );
        assert_eq!(action.changes[0].old_json, br#""secret_ref://db_password""#);
        assert_eq!(action.changes[0].new_json, b"null");
        assert!(action.changes[0].force_new);
    }

    #[test]
    fn no_plugin_sees_a_config_with_holes() {
        let unknown = Value::Unknown(Reference {
            address: Address::new("net"),
            field: "id".to_owned(),
        });
        let inner = Map::from([("network".to_owned(), unknown)]);
        let config = Map::from([("in".to_owned(), Value::Map(inner))]);
        let of = |recorded: Option<Json>| {
            let current = recorded.map(|config| Remembered {
                config: config.as_object().cloned().unwrap_or_default(),
                ..Remembered::default()
            });
            let action = ActionKind::Update;
            plan(&proposal(vec![step(action, config.clone(), current)]))
        };
        let said = of(Some(json!({"in": {"network": "net-1", "more": 1}})));
        assert_eq!(said.schema_version, 2);
        let resource = said.actions[0].resource.as_ref().expect("what is wanted");
        assert_eq!(resource.config_json, br#"{"in":{"network":"net-1"}}"#);
        for recorded in [
            None,
            Some(json!({})),
            Some(json!({"in": 1})),
            Some(json!({"in": {"network": {"$secret": "abc"}}})),
        ] {
            assert_eq!(of(recorded).actions.len(), 0);
        }
    }
}
