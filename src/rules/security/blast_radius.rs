//! A plan changes what one person can look at.

use std::collections::BTreeSet;

use super::super::{Findings, Rule, Severity, Subject};
use crate::resource::ActionKind;

pub(super) const RULE: Rule = Rule {
    id: "R10",
    name: "blast_radius",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    let limit = subject.limits.max_changes;
    if subject.plan.len() > limit {
        out.add(
            Severity::Fail,
            None,
            format!(
                "the plan makes {} {}, more than {limit}",
                subject.plan.len(),
                if subject.plan.len() == 1 {
                    "change"
                } else {
                    "changes"
                }
            ),
            "apply it in parts, or raise `--max-changes` after a look",
        );
    }
    let kinds = |action: ActionKind| -> BTreeSet<&str> {
        subject
            .plan
            .iter()
            .filter(|change| change.action == action)
            .map(|change| change.kind.as_str())
            .collect()
    };
    for kind in kinds(ActionKind::Create).intersection(&kinds(ActionKind::Delete)) {
        out.add(
            Severity::Warn,
            None,
            format!("the plan deletes and creates resources of type `{kind}`: a rename loses what the old one held"),
            "if it is a rename, move the record instead",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{change, expect, module, subject};
    use super::*;

    #[test]
    fn plans_stay_small_and_do_not_rename() {
        let mut subject = subject(&module("db", "infra.database", "engine: pg"));
        subject.plan = (0..3)
            .map(|at| change(&format!("r{at}"), ActionKind::Update))
            .collect();
        expect(RULE, &subject, &[]);
        subject.plan.push(change("r4", ActionKind::Update));
        expect(
            RULE,
            &subject,
            &[(Severity::Fail, "4 changes, more than 3")],
        );
        subject.plan = vec![
            change("old", ActionKind::Delete),
            change("new", ActionKind::Create),
        ];
        expect(RULE, &subject, &[(Severity::Warn, "`infra.database`")]);
    }
}
