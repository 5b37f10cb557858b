//! No secret is written out in the config.

use super::super::{Finding, Findings, Rule, Severity, Subject, network::holds_password, texts};

pub(super) const RULE: Rule = Rule {
    id: "R4",
    name: "literal_secrets",
    check,
};

/// Beginnings of credentials that are known by their shape, and how long they are at least.
const SHAPES: [(&str, usize); 9] = [
    ("ghp_", 20),
    ("gho_", 20),
    ("ghs_", 20),
    ("github_pat_", 20),
    ("AKIA", 20),
    ("xoxb-", 20),
    ("sk_live_", 20),
    ("dop_v1_", 20),
    ("glpat-", 20),
];

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for at in &subject.literals {
        out.all.push(Finding {
            rule: out.rule.to_owned(),
            severity: Severity::Fail,
            resource: None,
            message: "a secret is written out in the config".to_owned(),
            fix: "take it out, change it where it is used, and hand it in as `${VARIABLE}`"
                .to_owned(),
            at: Some(at.clone()),
        });
    }
    for item in &subject.items {
        texts(&item.config, &mut |path, text| {
            let is_known = SHAPES
                .iter()
                .any(|(start, least)| text.starts_with(start) && text.len() >= *least)
                || (text.contains("-----BEGIN ") && text.contains("PRIVATE KEY"));
            if is_known || holds_password(text) {
                out.fail(
                    item,
                    format!(
                        "`{}`: `{path}` looks like a credential that is written out",
                        item.address
                    ),
                    "take it out, change it where it is used, and hand it in as `${VARIABLE}`",
                );
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{expect, found, module, subject};
    use super::*;

    #[test]
    fn credentials_are_known_by_their_shape_and_never_repeated() {
        let token = format!("{}{}", "ghp_", "a1b2c3d4e5f6a1b2c3d4e5f6");
        for text in [token.as_str(), "redis://user:hunter2hunter2@cache:6379"] {
            let subject = subject(&module(
                "web",
                "infra.container_service",
                &format!("env_vars: {{HELLO: \"{text}\"}}"),
            ));
            expect(RULE, &subject, &[(Severity::Fail, "`env_vars.HELLO`")]);
            assert!(!format!("{:?}", found(RULE, &subject)).contains(text));
        }
        let fine = subject(&module(
            "web",
            "infra.container_service",
            "env_vars: {HELLO: \"redis://cache:6379\", MODE: ghp_}",
        ));
        expect(RULE, &fine, &[]);
    }

    #[test]
    fn lines_with_known_secrets_are_findings() {
        let mut subject = subject(&module("db", "infra.database", "engine: pg"));
        subject.literals = vec![subject.items[0].at.clone()];
        expect(RULE, &subject, &[(Severity::Fail, "written out")]);
    }
}
