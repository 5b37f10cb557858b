//! A credential's name at its provider is its own.

use super::super::{Findings, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "R-S2",
    name: "credential_name",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for (at, one) in subject.credentials.iter().enumerate() {
        let first = subject.credentials[..at]
            .iter()
            .find(|other| other.name == one.name && other.source == one.source);
        if let Some(first) = first {
            out.fail_at(
                &one.at,
                format!(
                    "`{}` and `{}` are both called `{}` at `{}`: only one of them can be made",
                    first.key, one.key, one.name, one.source
                ),
                "give each a `name` of its own, or keep one of the two entries",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity;
    use super::super::super::testing::{expect, subject};
    use super::*;

    #[test]
    fn two_credentials_do_not_share_a_name() {
        let two = |source: &str, name: &str| {
            subject(&format!(
                "secrets:\n  generate:\n    - {{key: A, type: provider_credential, source: digitalocean.spaces, name: shop}}\n    - {{key: B, type: provider_credential, source: {source}, name: {name}}}\n"
            ))
        };
        expect(RULE, &two("digitalocean.spaces", "shop-2"), &[]);
        expect(RULE, &two("digitalocean.tokens", "shop"), &[]);
        expect(
            RULE,
            &two("digitalocean.spaces", "shop"),
            &[(Severity::Fail, "`A` and `B`")],
        );
    }
}
