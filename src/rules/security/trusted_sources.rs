//! A database says who may connect.

use super::super::{Findings, Rule, Subject, is_blank, is_hidden, items, network::is_everywhere};

pub(super) const RULE: Rule = Rule {
    id: "R2",
    name: "trusted_sources",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for item in &subject.items {
        // A local database is a file, or lies on a server that is not ours to open.
        if !item.is("infra.database") || item.provider == "local" {
            continue;
        }
        let sources = item.config.get("trusted_sources");
        if sources.is_some_and(is_hidden) {
            continue;
        }
        if is_blank(sources) {
            out.fail(
                item,
                format!(
                    "`{}` has no `trusted_sources`: anybody with a password may connect",
                    item.address
                ),
                "list the services, networks or addresses that may connect",
            );
            continue;
        }
        let opens = items(sources).iter().any(|source| {
            source
                .as_str()
                .or_else(|| source.get("value").and_then(|value| value.as_str()))
                .is_some_and(is_everywhere)
        });
        if opens {
            out.fail(
                item,
                format!(
                    "`{}`: `trusted_sources` holds the whole internet",
                    item.address
                ),
                "list only what needs to connect",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity::Fail;
    use super::super::super::testing::{expect, module, subject};
    use super::*;

    #[test]
    fn databases_name_their_clients() {
        let database = |config: &str| subject(&module("db", "infra.database", config));
        expect(
            RULE,
            &database("trusted_sources: [{type: app, value: web}]"),
            &[],
        );
        expect(
            RULE,
            &database("engine: pg"),
            &[(Fail, "no `trusted_sources`")],
        );
        expect(
            RULE,
            &database("trusted_sources: []"),
            &[(Fail, "no `trusted_sources`")],
        );
        expect(
            RULE,
            &database("trusted_sources: [{type: ip_addr, value: \"0.0.0.0/0\"}]"),
            &[(Fail, "whole internet")],
        );
        let mut local = database("engine: sqlite");
        local.items[0].provider = "local".to_owned();
        expect(RULE, &local, &[]);
    }
}
