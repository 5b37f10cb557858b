//! A registry forgets old images.

use super::super::{Findings, Rule, Subject, is_blank};

pub(super) const RULE: Rule = Rule {
    id: "R9",
    name: "registry_retention",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for item in &subject.items {
        if item.is("infra.registry")
            && ["retention", "garbage_collection"]
                .iter()
                .all(|key| is_blank(item.config.get(*key)))
        {
            out.warn(
                item,
                format!(
                    "`{}` keeps every image for ever, old holes too",
                    item.address
                ),
                "add `retention: {keep_latest: 20, untagged_ttl: 168h}`",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity::Warn;
    use super::super::super::testing::{expect, module, subject};
    use super::*;

    #[test]
    fn registries_have_a_retention() {
        let registry = |config: &str| subject(&module("images", "infra.registry", config));
        expect(RULE, &registry("retention: {keep_latest: 5}"), &[]);
        expect(RULE, &registry("tier: starter"), &[(Warn, "for ever")]);
    }
}
