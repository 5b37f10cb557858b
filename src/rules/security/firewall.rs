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

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for item in &subject.items {
        if !item.is("infra.firewall") {
            continue;
        }
        for (at, rule) in items(item.config.get("inbound_rules")).iter().enumerate() {
            let mut open = false;
            for key in ["sources", "source_addresses", "cidr", "source"] {
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
                        "`{}`: `inbound_rules[{at}]` opens port {ports} to the whole internet",
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
    use super::super::super::Severity::Fail;
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
            "{ports: \"443,22\", sources: [\"0.0.0.0/0\"]}",
            &[(Fail, "port 443,22")],
        );
    }
}
