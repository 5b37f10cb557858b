//! Backups and encryption are not taken away.

use serde_json::Value as Json;

use super::super::{Findings, Rule, Severity, Subject};

pub(super) const RULE: Rule = Rule {
    id: "R6",
    name: "regression",
    check,
};

/// Words in a path that promise safety.
const SAFETY: [&str; 6] = [
    "backup",
    "encrypt",
    "retention",
    "deletion_protection",
    "versioning",
    "tls",
];

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for change in &subject.plan {
        for field in &change.changes {
            let path = field.path.to_ascii_lowercase();
            if SAFETY.iter().any(|word| path.contains(word)) && is_weaker(&field.old, &field.new) {
                out.planned(
                    subject,
                    Severity::Fail,
                    change,
                    format!("`{}`: the plan weakens `{}`", change.address, field.path),
                    "put it back; data that is lost has no second plan",
                );
            }
        }
    }
}

/// Switched off, taken away, or less of it.
fn is_weaker(old: &Json, new: &Json) -> bool {
    let is_off = |value: &Json| {
        matches!(value, Json::Null | Json::Bool(false))
            || value.as_f64() == Some(0.0)
            || value
                .as_str()
                .is_some_and(|text| matches!(text, "" | "none" | "off" | "disabled" | "false"))
    };
    match (old.as_f64(), new.as_f64()) {
        (Some(old), Some(new)) => new < old,
        _ => !is_off(old) && is_off(new),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{change, expect, field, module, subject};
    use super::*;
    use crate::resource::ActionKind;

    #[test]
    fn safety_is_not_taken_away() {
        for (path, old, new, weaker) in [
            ("enable_backups", Json::from(true), Json::from(false), true),
            ("enable_backups", false.into(), true.into(), false),
            ("backup.retention_days", 30.into(), 7.into(), true),
            ("backup.retention_days", 7.into(), 30.into(), false),
            ("encryption", "aes".into(), Json::Null, true),
            ("encryption", "aes".into(), "none".into(), true),
            ("size", 3.into(), 1.into(), false),
        ] {
            let mut subject = subject(&module("db", "infra.database", "engine: pg"));
            subject.plan = vec![change("db", ActionKind::Replace)];
            subject.plan[0].changes = vec![field(path, old, new)];
            let expected: &[(Severity, &str)] = if weaker {
                &[(Severity::Fail, "weakens")]
            } else {
                &[]
            };
            expect(RULE, &subject, expected);
        }
    }
}
