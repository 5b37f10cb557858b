//! Nothing is handed to a service that was never filled in.

use super::super::{Findings, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "R-A4",
    name: "unresolved",
    check,
};

/// Words people leave where a value should be.
const PLACEHOLDERS: [&str; 6] = ["changeme", "change-me", "change_me", "todo", "fixme", "xxx"];

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for item in &subject.items {
        for (path, map) in item.env_vars() {
            for (name, value) in map {
                let Some(text) = value.as_str() else {
                    continue;
                };
                let folded = text.trim_matches(['<', '>', ' ']).to_ascii_lowercase();
                if text.contains("${") {
                    out.fail(
                        item,
                        format!("`{}`: `{path}.{name}` still holds `${{…}}`", item.address),
                        "set the variable, or correct the reference",
                    );
                } else if PLACEHOLDERS.contains(&folded.as_str()) {
                    out.fail(
                        item,
                        format!("`{}`: `{path}.{name}` holds a placeholder", item.address),
                        "fill in the value",
                    );
                } else if text.is_empty() {
                    out.warn(
                        item,
                        format!("`{}`: `{path}.{name}` is empty", item.address),
                        "fill in the value, or remove the variable",
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity::{Fail, Warn};
    use super::super::super::testing::{expect, module, subject};
    use super::*;

    #[test]
    fn values_are_filled_in() {
        let mut subject = subject(&module(
            "web",
            "infra.container_service",
            "env_vars: {A: fine, B: \"\", C: <changeme>, D: later}",
        ));
        expect(
            RULE,
            &subject,
            &[
                (Warn, "`env_vars.B` is empty"),
                (Fail, "`env_vars.C` holds a placeholder"),
            ],
        );
        // The config refuses such text, unless it is escaped on purpose.
        if let Some(serde_json::Value::Object(map)) = subject.items[0].config.get_mut("env_vars") {
            map.clear();
            map.insert("D".to_owned(), "x ${LATER}".into());
        }
        expect(RULE, &subject, &[(Fail, "`env_vars.D` still holds")]);
    }
}
