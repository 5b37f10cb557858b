//! The whole internet reaches web ports only.

use serde_json::Value as Json;

use super::super::{Findings, Rule, Subject, items, network::is_everywhere};

pub(super) const RULE: Rule = Rule {
    id: "R1",
    name: "firewall",
    check,
};

/// Ports that are there to be reached.
const WEB: [&str; 2] = ["80", "443"];

/// Where a firewall's rules stand: as its type has it, and as other clouds call them.
const LISTS: [&str; 4] = ["inbound_rules", "ingress", "ingress_rules", "rules"];

/// Where a rule names who may come in.
const SOURCES: [&str; 8] = [
    "sources",
    "source_addresses",
    "source_ranges",
    "source",
    "cidr",
    "cidr_blocks",
    "ipv6_cidr_blocks",
    "cidr_ipv4",
];

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for item in &subject.items {
        if !item.is("infra.firewall") {
            continue;
        }
        let written = LISTS.iter().find_map(|list| {
            let rules = items(item.config.get(*list));
            (!rules.is_empty()).then_some((*list, rules))
        });
        let Some((list, rules)) = written else {
            if LISTS.iter().any(|list| item.config.contains_key(*list)) {
                continue;
            }
            out.warn(
                item,
                format!(
                    "`{}` has no `{}`: what it lets in was not looked at",
                    item.address, LISTS[0]
                ),
                "list them there, or write `inbound_rules: []` if nothing may come in",
            );
            continue;
        };
        for (at, rule) in rules.iter().enumerate() {
            let mut open = false;
            for key in SOURCES {
                everywhere(rule.get(key), &mut open);
            }
            if !open {
                continue;
            }
            let ports = match rule.get("ports").or_else(|| rule.get("port")) {
                Some(Json::String(text)) => text.clone(),
                Some(Json::Number(number)) => number.to_string(),
                _ => "all".to_owned(),
            };
            if !ports.split(',').all(|port| WEB.contains(&port.trim())) {
                out.fail(
                    item,
                    format!(
                        "`{}`: `{list}[{at}]` opens port {ports} to the whole internet",
                        item.address
                    ),
                    "name the addresses that may come in",
                );
            }
        }
    }
}

fn everywhere(value: Option<&Json>, open: &mut bool) {
    match value {
        Some(Json::String(text)) => *open |= is_everywhere(text),
        Some(Json::Array(list)) => list.iter().for_each(|one| everywhere(Some(one), open)),
        Some(Json::Object(map)) => map.values().for_each(|one| everywhere(Some(one), open)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity::{Fail, Warn};
    use super::super::super::testing::{expect, module, subject};
    use super::*;

    #[test]
    fn only_web_ports_are_open_to_everybody() {
        let check = |rule: &str, expected: &[(super::super::super::Severity, &str)]| {
            let config = format!("inbound_rules: [{rule}]");
            expect(
                RULE,
                &subject(&module("fw", "infra.firewall", &config)),
                expected,
            );
        };
        check("{ports: \"443\", sources: [\"0.0.0.0/0\", \"::/0\"]}", &[]);
        check("{ports: \"22\", sources: [\"10.0.0.0/8\"]}", &[]);
        check(
            "{ports: \"22\", sources: [\"0.0.0.0/0\"]}",
            &[(Fail, "port 22")],
        );
        check(
            "{ports: 5432, sources: {addresses: [\"::/0\"]}}",
            &[(Fail, "port 5432")],
        );
        check("{sources: [\"0.0.0.0/0\"]}", &[(Fail, "port all")]);
        check(
            "{ports: \"22\", sources: [\"0.0.0.0/1\", \"128.0.0.0/1\"]}",
            &[(Fail, "port 22")],
        );
        check(
            "{ports: \"443,22\", sources: [\"0.0.0.0/0\"]}",
            &[(Fail, "port 443,22")],
        );
        let ingress = "ingress: [{port: 22, cidr_blocks: [any]}]";
        expect(
            RULE,
            &subject(&module("fw", "infra.firewall", ingress)),
            &[(Fail, "`ingress[0]` opens port 22")],
        );
        expect(
            RULE,
            &subject(&module("fw", "infra.firewall", "tags: [web]")),
            &[(Warn, "not looked at")],
        );
        expect(
            RULE,
            &subject(&module("fw", "infra.firewall", "inbound_rules: []")),
            &[],
        );
    }
}
