//! A plan from its JSON: a plan file, the document of `infra plan --json`, or another tool's plan
//! with the same words.

use serde_json::Value as Json;

use super::Change;
use crate::resource::{ActionKind, Address, FieldChange, Kind};

/// The actions of a plan, no-ops left out.
///
/// # Errors
/// One sentence that says what is not understood. Nothing is skipped in silence.
pub fn read(text: &str) -> Result<Vec<Change>, String> {
    let document: Json =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let actions = document
        .get("actions")
        .filter(|actions| is_plan(actions))
        .or_else(|| document.get("plan").and_then(|plan| plan.get("actions")))
        .and_then(Json::as_array)
        .ok_or("it has no list `actions`, nor a `plan` with one")?;
    let mut changes = Vec::new();
    for (at, action) in actions.iter().enumerate() {
        if let Some(change) = one(action).map_err(|why| format!("action {}: {why}", at + 1))? {
            changes.push(change);
        }
    }
    Ok(changes)
}

/// The document of an apply has `actions` too: results, which carry a status.
fn is_plan(actions: &Json) -> bool {
    actions
        .as_array()
        .is_some_and(|actions| actions.iter().all(|action| action.get("status").is_none()))
}

fn one(action: &Json) -> Result<Option<Change>, String> {
    let word = action
        .get("action")
        .and_then(Json::as_str)
        .ok_or("it has no `action`")?;
    let kind = match word {
        "create" => ActionKind::Create,
        "update" => ActionKind::Update,
        "replace" => ActionKind::Replace,
        "delete" => ActionKind::Delete,
        "no-op" => return Ok(None),
        other => return Err(format!("`{other}` is no action known here")),
    };
    // Ours is a name; upstream's is the whole spec.
    let resource = action.get("resource").ok_or("it has no `resource`")?;
    let name = resource
        .as_str()
        .or_else(|| resource.get("name").and_then(Json::as_str))
        .ok_or("its `resource` has no name")?;
    let kind_name = action
        .get("type")
        .or_else(|| resource.get("type"))
        .and_then(Json::as_str)
        .unwrap_or_default();
    let protected = [
        action.get("protected"),
        resource.pointer("/config/protected"),
        action.pointer("/current/applied_config/protected"),
    ]
    .into_iter()
    .flatten()
    .any(|flag| flag.as_bool() == Some(true));
    let changes = super::items(action.get("changes"))
        .iter()
        .map(|change| FieldChange {
            path: change
                .get("path")
                .and_then(Json::as_str)
                .unwrap_or_default()
                .to_owned(),
            old: change.get("old").cloned().unwrap_or_default(),
            new: change.get("new").cloned().unwrap_or_default(),
            force_new: change.get("force_new").and_then(Json::as_bool) == Some(true),
        })
        .collect();
    Ok(Some(Change {
        address: Address::new(name),
        kind: Kind::new(kind_name),
        action: kind,
        protected,
        changes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_plans_and_upstreams_are_read() {
        let ours = r#"{"command": "infra plan", "plan": {"actions": [
            {"resource": "db", "type": "infra.database", "action": "replace", "protected": true,
             "changes": [{"path": "engine", "old": "a", "new": "b", "force_new": true}]},
            {"resource": "web", "type": "infra.container_service", "action": "no-op", "changes": []}]}}"#;
        let theirs = r#"{"id": "plan-1", "actions": [{"action": "delete",
            "resource": {"name": "db", "type": "infra.database", "config": {"protected": true}}}]}"#;
        for (text, action) in [(ours, ActionKind::Replace), (theirs, ActionKind::Delete)] {
            let changes = read(text).unwrap();
            assert_eq!(changes.len(), 1);
            assert_eq!(changes[0].address.as_str(), "db");
            assert_eq!(changes[0].kind.as_str(), "infra.database");
            assert_eq!(changes[0].action, action);
            assert!(changes[0].protected);
        }
    }

    #[test]
    fn what_is_not_understood_is_never_an_empty_plan() {
        for (text, piece) in [
            ("", "no JSON"),
            ("{}", "no list"),
            (r#"{"actions": [{"resource": "a"}]}"#, "action 1"),
            (
                r#"{"actions": [{"resource": "a", "action": "explode"}]}"#,
                "`explode`",
            ),
            (
                r#"{"actions": [{"action": "create", "resource": {}}]}"#,
                "no name",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(piece), "{error}");
        }
    }
}
