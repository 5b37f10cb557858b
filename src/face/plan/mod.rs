//! A plan as text: one row per resource that changes, old → new per field below it.

pub mod markdown;

use std::fmt::Write as _;

use super::Style;
use super::line::action_tone;
use crate::plan::Plan;
use crate::plan::file::sensitive;
use crate::report::text::{Limits, one_line};
use crate::resource::{ActionKind, FieldChange};
use crate::secret::Masker;

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
/// to differ. Secrets are hidden before anything is cut: half of one is known to nobody.
pub fn values(
    old: &serde_json::Value,
    new: &serde_json::Value,
    masker: &Masker,
) -> (String, String) {
    let spelled = |value| {
        let mut text = String::new();
        spell(&mut text, &masker.mask_json(value), true);
        masker.mask(&text)
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
pub fn change(change: &FieldChange, masker: &Masker) -> String {
    let path = one_line(&masker.mask(&change.path), Limits::FIELD);
    let forced = if change.force_new {
        "  forces replacement"
    } else {
        ""
    };
    match sensitive(change) {
        Some(what) => format!("{path}: (sensitive) {what}{forced}"),
        None => {
            let (old, new) = values(&change.old, &change.new, masker);
            format!("{path}: {old} → {new}{forced}")
        }
    }
}

/// The whole plan.
pub fn render(plan: &Plan, style: Style, masker: &Masker) -> String {
    let field = |text: &str| one_line(&masker.mask(text), Limits::FIELD);
    let mut text = String::new();
    let changed: Vec<_> = plan
        .actions
        .iter()
        .filter(|action| action.action != ActionKind::NoOp)
        .collect();
    let width = changed
        .iter()
        .map(|action| field(action.address.as_str()).chars().count())
        .max()
        .unwrap_or(0);
    for action in &changed {
        let verb = format!("{} {:<7}", action.action.symbol(), action.action.word());
        let verb = style.paint(action_tone(action.action), &verb);
        let name = field(action.address.as_str());
        let pad = " ".repeat(width.saturating_sub(name.chars().count()));
        let note = if action.reason.is_empty() {
            String::new()
        } else {
            format!("  ({})", field(&action.reason))
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
                field(action.kind.as_str()),
            ),
        );
        for difference in action.changes.iter().take(FIELDS) {
            line(
                &mut text,
                format_args!("        {}", change(difference, masker)),
            );
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
        let masker = Masker::default();
        let (old, new) = values(&long("one"), &long("two"), &masker);
        assert_eq!(old, format!("…{}one\"", "x".repeat(15)));
        assert_eq!(new, format!("…{}two\"", "x".repeat(15)));
        let (old, new) = values(&serde_json::json!(1), &long(""), &masker);
        assert_eq!(old, "1");
        assert_eq!(new, format!("\"{}…", "x".repeat(59)));
    }

    #[test]
    fn a_long_secret_is_hidden_before_it_is_cut() {
        let masker = Masker::default();
        let secret: String = (100..180).map(|n| format!("{}k", n * 7)).collect();
        masker.admit("s", secret.clone());
        for (old, new) in [
            (json!("before"), json!(format!("x {secret} y"))),
            (json!(["a", "b"]), json!(["a", secret])),
            (json!({&secret: 1}), json!({"k": {"deep": secret}})),
            (
                json!(format!("{secret}.one")),
                json!(format!("{secret}.two")),
            ),
        ] {
            let change = FieldChange {
                path: format!("a.{secret}"),
                old,
                new,
                force_new: false,
            };
            let mut one = action(&secret, ActionKind::Update, vec![change]);
            one.reason.clone_from(&secret);
            let plan = Plan::assemble("dev", vec![one]).unwrap();
            let table = render(&plan, Style::PLAIN, &masker);
            let page = markdown::page(&plan, "infra.yaml", &masker);
            for text in [table, page] {
                assert!(text.contains("***"), "{text}");
                for start in 0..secret.len() - 8 {
                    assert!(!text.contains(&secret[start..start + 8]), "{text}");
                }
            }
        }
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
            render(&plan, Style::PLAIN, &Masker::default()),
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
            render(&plan, Style::PLAIN, &Masker::default()),
            "No changes. Infrastructure is up-to-date.\n"
        );
    }
}
