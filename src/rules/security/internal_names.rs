//! Public names do not tell what is inside.

use super::super::{Findings, Rule, Subject, items, network::is_private};

pub(super) const RULE: Rule = Rule {
    id: "R3",
    name: "internal_names",
    check,
};

/// Labels that name something inside.
const INSIDE: [&str; 10] = [
    "internal",
    "intranet",
    "private",
    "admin",
    "db",
    "database",
    "redis",
    "vault",
    "grafana",
    "prometheus",
];

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for item in &subject.items {
        if item.is("infra.dns") {
            for (at, record) in items(item.config.get("records")).iter().enumerate() {
                let text = |key: &str| {
                    record
                        .get(key)
                        .and_then(|value| value.as_str())
                        .unwrap_or_default()
                };
                if is_private(text("data")) {
                    out.fail(
                        item,
                        format!(
                            "`{}`: `records[{at}]` points at a private address",
                            item.address
                        ),
                        "keep it in the network's own name server",
                    );
                } else if let Some(label) = inside(text("name")) {
                    out.warn(
                        item,
                        format!(
                            "`{}`: `records[{at}]` publishes the name `{label}`",
                            item.address
                        ),
                        "choose a name that tells nothing, or keep it inside",
                    );
                }
            }
        }
        for (at, domain) in items(item.config.get("domains")).iter().enumerate() {
            let name = domain
                .as_str()
                .or_else(|| domain.get("name").and_then(|name| name.as_str()))
                .unwrap_or_default();
            // The first label alone: the rest is the zone's name.
            if let Some(label) = inside(name.split('.').next().unwrap_or_default()) {
                out.warn(
                    item,
                    format!(
                        "`{}`: `domains[{at}]` publishes the name `{label}`",
                        item.address
                    ),
                    "choose a name that tells nothing, or keep it inside",
                );
            }
        }
    }
}

fn inside(name: &str) -> Option<&str> {
    name.split(['.', '-'])
        .find(|label| INSIDE.iter().any(|word| label.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity::{Fail, Warn};
    use super::super::super::testing::{expect, module, subject};
    use super::*;

    #[test]
    fn names_tell_nothing() {
        let check = |record: &str, expected: &[(super::super::super::Severity, &str)]| {
            let config = format!("domain: example.com, records: [{record}]");
            expect(
                RULE,
                &subject(&module("zone", "infra.dns", &config)),
                expected,
            );
        };
        check("{type: A, name: www, data: 8.8.8.8}", &[]);
        check(
            "{type: A, name: www, data: 10.0.0.1}",
            &[(Fail, "private address")],
        );
        check(
            "{type: A, name: admin-panel, data: 8.8.8.8}",
            &[(Warn, "`admin`")],
        );
        check("{type: A, name: dbx, data: 8.8.8.8}", &[]);
        let service = subject(&module(
            "web",
            "infra.container_service",
            "domains: [{name: vault.example.com}]",
        ));
        expect(RULE, &service, &[(Warn, "`vault`")]);
    }
}
