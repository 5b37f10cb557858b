//! Address ranges do not grow.

use std::net::IpAddr;

use serde_json::Value as Json;

use super::super::{
    Findings, Rule, Severity, Subject,
    network::{holds, range},
};

pub(super) const RULE: Rule = Rule {
    id: "R7",
    name: "cidr_widening",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for change in &subject.plan {
        for field in &change.changes {
            let (mut old, mut new) = (Vec::new(), Vec::new());
            ranges(&field.old, &mut old);
            ranges(&field.new, &mut new);
            if old.is_empty() && new.is_empty() {
                continue;
            }
            let covered = |inner: (IpAddr, u8)| old.iter().any(|outer| holds(*outer, inner));
            if new.iter().any(|range| !covered(*range)) {
                out.planned(
                    subject,
                    Severity::Fail,
                    change,
                    format!(
                        "`{}`: `{}` lets in addresses it did not before",
                        change.address, field.path
                    ),
                    "if this is meant, apply it by itself after a look",
                );
            } else if subject.limits.strict_cidr {
                out.planned(
                    subject,
                    Severity::Fail,
                    change,
                    format!(
                        "`{}`: `{}` changes an address range",
                        change.address, field.path
                    ),
                    "with `--strict-cidr` every such change is looked at",
                );
            }
        }
    }
}

/// Every text in a value that is written as a range.
fn ranges(value: &Json, all: &mut Vec<(IpAddr, u8)>) {
    match value {
        Json::String(text) if text.contains('/') => all.extend(range(text.trim())),
        Json::Array(list) => list.iter().for_each(|one| ranges(one, all)),
        Json::Object(map) => map.values().for_each(|one| ranges(one, all)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{change, expect, field, module, subject};
    use super::*;
    use crate::resource::ActionKind;

    #[test]
    fn ranges_do_not_grow() {
        let check = |old: &str, new: &str, strict: bool, expected: &[(Severity, &str)]| {
            let mut subject = subject(&module("fw", "infra.firewall", "tags: [a]"));
            subject.limits.strict_cidr = strict;
            subject.plan = vec![change("fw", ActionKind::Update)];
            subject.plan[0].changes = vec![field(
                "inbound_rules",
                serde_json::json!([{"sources": [old]}]),
                serde_json::json!([{"sources": [new]}]),
            )];
            expect(RULE, &subject, expected);
        };
        check(
            "10.0.0.0/16",
            "10.0.0.0/8",
            false,
            &[(Severity::Fail, "did not before")],
        );
        check(
            "10.0.0.0/16",
            "11.0.0.0/16",
            false,
            &[(Severity::Fail, "did not before")],
        );
        check("10.0.0.0/8", "10.0.0.0/16", false, &[]);
        check(
            "10.0.0.0/8",
            "10.0.0.0/16",
            true,
            &[(Severity::Fail, "changes an address range")],
        );
    }
}
