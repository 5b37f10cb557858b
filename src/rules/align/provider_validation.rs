//! What a provider says about the plan before it runs.

use super::super::{Findings, Rule, Severity, Subject};
use crate::resource::Address;

pub(super) const RULE: Rule = Rule {
    id: "R-A10",
    name: "provider_validation",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for remark in &subject.remarks {
        let severity = if remark.is_error {
            Severity::Fail
        } else {
            Severity::Warn
        };
        let address = remark.resource.as_deref().map(Address::new);
        let item = address.as_ref().and_then(|address| subject.item(address));
        let place = match (&remark.resource, &remark.field) {
            (Some(resource), Some(field)) => format!("`{resource}`: `{field}`: "),
            (Some(resource), None) => format!("`{resource}`: "),
            (None, Some(field)) => format!("`{field}`: "),
            (None, None) => String::new(),
        };
        out.add(
            severity,
            item,
            format!("{place}the provider says: {}", remark.message),
            "correct what the provider objects to",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Remark;
    use super::super::super::testing::{expect, module, subject};
    use super::*;

    #[test]
    fn remarks_are_passed_on() {
        let mut subject = subject(&module("db", "infra.database", "engine: pg"));
        subject.remarks = vec![
            Remark {
                is_error: true,
                resource: Some("db".to_owned()),
                field: Some("vpc".to_owned()),
                message: "no such network".to_owned(),
            },
            Remark {
                is_error: false,
                resource: None,
                field: None,
                message: "region is full".to_owned(),
            },
        ];
        expect(
            RULE,
            &subject,
            &[
                (
                    Severity::Fail,
                    "`db`: `vpc`: the provider says: no such network",
                ),
                (Severity::Warn, "region is full"),
            ],
        );
    }
}
