//! A credential comes from a provider that the config declares.

use super::super::{Findings, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "R-S3",
    name: "credential_source",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for one in &subject.credentials {
        let (who, _) = one.source.split_once('.').unwrap_or((&one.source, ""));
        let by_type = subject.providers.iter().filter(|(_, kind)| kind == who);
        let message = match (
            subject.providers.iter().any(|(module, _)| module == who),
            by_type.count(),
        ) {
            (true, _) | (false, 1) => continue,
            (false, 0) => format!(
                "`{}` comes from `{}`, and no provider of this config is called or of type `{who}`",
                one.key, one.source
            ),
            (false, _) => format!(
                "`{}` comes from `{}`, and several providers of this config are of type `{who}`",
                one.key, one.source
            ),
        };
        out.fail_at(
            &one.at,
            message,
            "write `source: MODULE.what` with the name of an `iac.provider` module",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity;
    use super::super::super::testing::{expect, subject};
    use super::*;

    #[test]
    fn the_source_is_a_declared_provider() {
        // `cloud` is a module of type `digitalocean`.
        let from = |more: &str, source: &str| {
            subject(&format!(
                "{more}secrets:\n  generate:\n    - {{key: A, type: provider_credential, source: {source}, name: n}}\n"
            ))
        };
        expect(RULE, &from("", "digitalocean.spaces"), &[]);
        expect(RULE, &from("", "cloud.spaces"), &[]);
        expect(
            RULE,
            &from("", "aws.keys"),
            &[(Severity::Fail, "no provider of this config")],
        );
        let second = "  - {name: other, type: iac.provider, config: {provider: digitalocean}}\n";
        expect(
            RULE,
            &from(second, "digitalocean.spaces"),
            &[(Severity::Fail, "several providers")],
        );
        expect(RULE, &from(second, "other.spaces"), &[]);
    }
}
