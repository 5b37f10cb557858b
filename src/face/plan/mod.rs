//! A plan as text: one row per resource that changes, old → new per field below it.

pub mod markdown;

use std::fmt::Write as _;

use super::Style;
use super::line::action_tone;
use crate::plan::Plan;
use crate::plan::file::sensitive;
use crate::report::text::{Limits, one_line};
use crate::resource::{ActionKind, FieldChange};

/// Longest value shown of one field.
const VALUE_CHARACTERS: usize = 60;
/// Fields shown per resource; more are counted.
const FIELDS: usize = 20;

/// The sentence that sums a plan up.
pub fn sentence(plan: &Plan) -> String {
    if plan.is_empty() {
        return "No changes. Infrastructure is up-to-date.".to_owned();
    }
    let summary = plan.summary();
    format!(
        "Plan: {} to create, {} to update, {} to replace, {} to destroy.",
        summary.create, summary.update, summary.replace, summary.delete
    )
}

/// Old and new value as a person reads them: JSON, markers spelled out, long text cut to where they begin
/// to differ.
pub fn values(old: &serde_json::Value, new: &serde_json::Value) -> (String, String) {
    let spelled = |value| {
        let mut text = String::new();
        spell(&mut text, value, true);
        text
    };
    let (old, new) = (spelled(old), spelled(new));
    let alike = old
        .chars()
        .zip(new.chars())
        .take_while(|(one, other)| one == other)
        .count();
    // A little of what is alike shows where it is.
    let start = match alike {
        0..VALUE_CHARACTERS => 0,
        alike => alike - VALUE_CHARACTERS / 4,
    };
    let part = |text: &str| {
        let rest: String = text.chars().skip(start).take(VALUE_CHARACTERS).collect();
        let is_cut = text.chars().count() > start + VALUE_CHARACTERS;
        let (before, after) = (
            if start > 0 { "…" } else { "" },
            if is_cut { "…" } else { "" },
        );
        format!("{before}{}{after}", one_line(&rest, Limits::FIELD))
    };
    (part(&old), part(&new))
}

/// JSON with `$secret` and `$unknown` markers in words, however deep they stand.
fn spell(out: &mut String, value: &serde_json::Value, is_whole: bool) {
    use serde_json::Value;
    match value {
        Value::Null if is_whole => out.push_str("(none)"),
        Value::Object(map) if map.len() == 1 && map.contains_key("$secret") => {
            out.push_str("(sensitive)");
        }
        Value::Object(map) if map.len() == 1 && map.contains_key("$unknown") => {
            match map.get("$unknown") {
                Some(Value::String(reference)) => {
                    out.push_str(&format!("(known after apply: {reference})"));
                }
                _ => out.push_str("(known after apply)"),
            }
        }
        Value::Object(map) => {
            out.push('{');
            for (index, (key, item)) in map.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&format!("{}:", Value::String(key.clone())));
                spell(out, item, false);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                spell(out, item, false);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// One difference in one line.
pub fn change(change: &FieldChange) -> String {
    let path = one_line(&change.path, Limits::FIELD);
    let forced = if change.force_new {
        "  forces replacement"
    } else {
        ""
    };
    match sensitive(change) {
        Some(what) => format!("{path}: (sensitive) {what}{forced}"),
        None => {
            let (old, new) = values(&change.old, &change.new);
            format!("{path}: {old} → {new}{forced}")
        }
    }
}

/// The whole plan.
pub fn render(plan: &Plan, style: Style) -> String {
    let mut text = String::new();
    let changed: Vec<_> = plan
        .actions
        .iter()
        .filter(|action| action.action != ActionKind::NoOp)
        .collect();
    let width = changed
        .iter()
        .map(|action| {
            one_line(action.address.as_str(), Limits::FIELD)
                .chars()
                .count()
        })
        .max()
        .unwrap_or(0);
    for action in &changed {
        let verb = format!("{} {:<7}", action.action.symbol(), action.action.word());
        let verb = style.paint(action_tone(action.action), &verb);
        let name = one_line(action.address.as_str(), Limits::FIELD);
        let pad = " ".repeat(width.saturating_sub(name.chars().count()));
        let note = if action.reason.is_empty() {
            String::new()
        } else {
            format!("  ({})", one_line(&action.reason, Limits::FIELD))
        };
        let shield = if action.protected && action.action.is_destructive() {
            "  [protected]"
        } else {
            ""
        };
        line(
            &mut text,
            format_args!(
                "  {verb} {name}{pad}  {}{note}{shield}",
                one_line(action.kind.as_str(), Limits::FIELD),
            ),
        );
        for difference in action.changes.iter().take(FIELDS) {
            line(&mut text, format_args!("        {}", change(difference)));
        }
        if action.changes.len() > FIELDS {
            line(
                &mut text,
                format_args!(
                    "        … and {} more fields",
                    action.changes.len() - FIELDS
                ),
            );
        }
    }
    if !changed.is_empty() {
        text.push('\n');
    }
    text.push_str(&sentence(plan));
    text.push('\n');
    text
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    if text.write_fmt(arguments).is_ok() {
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::plan::Action;
    use crate::resource::{Address, FieldChange, Kind, ProviderId};

    fn action(name: &str, kind: ActionKind, changes: Vec<FieldChange>) -> Action {
        Action {
            address: Address::new(name),
            kind: Kind::new("infra.database"),
            provider: ProviderId::new("local"),
            action: kind,
            changes,
            reason: String::new(),
            depends_on: BTreeSet::new(),
            recorded_depends_on: BTreeSet::new(),
            protected: name == "db",
            create_before_destroy: false,
        }
    }

    #[test]
    fn long_values_are_cut_to_where_they_differ() {
        let long = |end: &str| serde_json::Value::String(format!("{}{end}", "x".repeat(200)));
        let (old, new) = values(&long("one"), &long("two"));
        assert_eq!(old, format!("…{}one\"", "x".repeat(15)));
        assert_eq!(new, format!("…{}two\"", "x".repeat(15)));
        let (old, new) = values(&serde_json::json!(1), &long(""));
        assert_eq!(old, "1");
        assert_eq!(new, format!("\"{}…", "x".repeat(59)));
    }

    #[test]
    fn rows_show_old_and_new_and_hide_secrets() {
        let change = |path: &str, old, new, force_new| FieldChange {
            path: path.to_owned(),
            old,
            new,
            force_new,
        };
        let plan = Plan::assemble(
            "dev",
            vec![
                action("cache", ActionKind::NoOp, vec![]),
                action(
                    "db",
                    ActionKind::Replace,
                    vec![
                        change("engine", json!("sqlite"), json!("postgres"), true),
                        change(
                            "password",
                            json!({"$secret": "aa"}),
                            json!({"$secret": "bb"}),
                            false,
                        ),
                        change("url", json!(null), json!({"$unknown": "${web.url}"}), false),
                    ],
                ),
                action("website", ActionKind::Create, vec![]),
            ],
        )
        .unwrap();
        assert_eq!(
            render(&plan, Style::PLAIN),
            "  ± replace db       infra.database  [protected]\n\
             \x20       engine: \"sqlite\" → \"postgres\"  forces replacement\n\
             \x20       password: (sensitive) rotated\n\
             \x20       url: (none) → (known after apply: ${web.url})\n\
             \x20 + create  website  infra.database\n\
             \n\
             Plan: 1 to create, 0 to update, 1 to replace, 0 to destroy.\n"
        );
    }

    #[test]
    fn an_empty_plan_is_one_sentence() {
        let plan = Plan::assemble("dev", vec![action("a", ActionKind::NoOp, vec![])]).unwrap();
        assert_eq!(
            render(&plan, Style::PLAIN),
            "No changes. Infrastructure is up-to-date.\n"
        );
    }
}
