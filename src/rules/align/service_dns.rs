//! A host without a dot in an address is the name of something here.

use super::super::{Findings, Item, Rule, Subject, items, network::host};

pub(super) const RULE: Rule = Rule {
    id: "R-A3",
    name: "service_dns",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for item in &subject.items {
        for (path, map) in item.env_vars() {
            for (name, value) in map {
                let Some(host) = value.as_str().and_then(host) else {
                    continue;
                };
                if is_outside(&host) || is_known(subject, item, &host) {
                    continue;
                }
                out.fail(
                    item,
                    format!(
                        "`{}`: `{path}.{name}` points at the host `{host}`, and nothing here is called that",
                        item.address
                    ),
                    "write `${module.field}` instead of a name, or correct it",
                );
            }
        }
    }
}

fn is_outside(host: &str) -> bool {
    host == "localhost" || host.contains(['.', ':'])
}

fn is_known(subject: &Subject, item: &Item, host: &str) -> bool {
    let is_part = ["jobs", "workers", "sidecars"].iter().any(|list| {
        items(item.config.get(*list))
            .iter()
            .any(|part| part.get("name").and_then(|name| name.as_str()) == Some(host))
    });
    is_part
        || subject
            .items
            .iter()
            .any(|other| other.address.as_str().eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity::Fail;
    use super::super::super::testing::{expect, module, subject};
    use super::*;

    #[test]
    fn plain_hosts_are_resources() {
        let service = |url: &str| {
            module(
                "web",
                "infra.container_service",
                &format!("env_vars: {{API: \"{url}\"}}"),
            ) + &module("api", "infra.container_service", "image: \"a:1\"")
        };
        for url in [
            "http://api:8080",
            "http://example.test/x",
            "http://localhost:1",
            "just text",
        ] {
            expect(RULE, &subject(&service(url)), &[]);
        }
        expect(
            RULE,
            &subject(&service("http://apy:8080")),
            &[(Fail, "`env_vars.API` points at the host `apy`")],
        );
    }
}
