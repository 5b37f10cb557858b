//! The plan is of a size, and of a kind, that somebody can have meant.

use super::super::{Findings, Rule, Severity, Subject};
use crate::resource::ActionKind;

pub(super) const RULE: Rule = Rule {
    id: "R-A7",
    name: "plan_sanity",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for change in &subject.plan {
        if change.protected && change.action == ActionKind::Delete {
            out.planned(
                subject,
                Severity::Fail,
                change,
                format!("`{}` is protected and would be deleted", change.address),
                "put it back into the config, or pass `--allow-replace` to the apply",
            );
        }
    }
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
            "look whether this is the right environment and state; then raise `--max-changes`",
        );
    }
    let deletes = |action: ActionKind| action == ActionKind::Delete;
    if subject.plan.len() > 1 && subject.plan.iter().all(|change| deletes(change.action)) {
        out.add(
            Severity::Warn,
            None,
            "the plan does nothing but delete".to_owned(),
            "look whether modules were lost from the config",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{change, expect, module, subject};
    use super::*;

    #[test]
    fn plans_are_sane() {
        let mut subject = subject(&module("db", "infra.database", "engine: pg"));
        expect(RULE, &subject, &[]);
        subject.plan = vec![change("db", ActionKind::Delete)];
        expect(RULE, &subject, &[]);
        subject.plan[0].protected = true;
        expect(RULE, &subject, &[(Severity::Fail, "`db` is protected")]);
        subject.plan = (0..4)
            .map(|at| change(&format!("r{at}"), ActionKind::Create))
            .collect();
        expect(
            RULE,
            &subject,
            &[(Severity::Fail, "4 changes, more than 3")],
        );
        subject.plan = vec![
            change("a", ActionKind::Delete),
            change("b", ActionKind::Delete),
        ];
        expect(RULE, &subject, &[(Severity::Warn, "nothing but delete")]);
    }
}
