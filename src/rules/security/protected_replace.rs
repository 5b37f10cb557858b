//! Nothing protected is replaced or deleted.

use super::super::{Findings, Rule, Severity, Subject};

pub(super) const RULE: Rule = Rule {
    id: "R5",
    name: "protected_replace",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for change in &subject.plan {
        if change.protected && change.action.is_destructive() {
            out.planned(
                subject,
                Severity::Fail,
                change,
                format!(
                    "`{}` is protected, and the plan would {} it",
                    change.address,
                    change.action.word()
                ),
                "undo the change that causes it",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{change, expect, module, subject};
    use super::*;
    use crate::resource::ActionKind;

    #[test]
    fn protected_resources_stand() {
        let mut subject = subject(&module("db", "infra.database", "engine: pg"));
        subject.plan = vec![
            change("db", ActionKind::Replace),
            change("db2", ActionKind::Delete),
        ];
        expect(RULE, &subject, &[]);
        for change in &mut subject.plan {
            change.protected = true;
        }
        expect(
            RULE,
            &subject,
            &[
                (Severity::Fail, "replace it"),
                (Severity::Fail, "delete it"),
            ],
        );
        subject.plan = vec![change("db", ActionKind::Update)];
        subject.plan[0].protected = true;
        expect(RULE, &subject, &[]);
    }
}
