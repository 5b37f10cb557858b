//! One resource: create, update, replace or leave?

use crate::resource::{ActionKind, Diff, FieldChange};

/// What is known about one desired resource when it is classified.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Nothing on record.
    Unrecorded,
    /// On record, and the driver compared.
    Compared(Diff),
    /// On record as tainted: its last action failed half-way, so it is worked on again even when
    /// nothing differs. The driver's update finishes what is missing.
    Tainted(Diff),
}

/// The action, its changes and a reason (empty when the changes speak for themselves).
pub fn classify(decision: Decision) -> (ActionKind, Vec<FieldChange>, String) {
    match decision {
        Decision::Unrecorded => (ActionKind::Create, Vec::new(), String::new()),
        Decision::Tainted(diff) => {
            let (action, changes, reason) = classify(Decision::Compared(diff));
            match action {
                ActionKind::Replace => (action, changes, reason),
                _ => (
                    ActionKind::Update,
                    changes,
                    "its last action failed half-way".to_owned(),
                ),
            }
        }
        Decision::Compared(diff) => {
            let forced: Vec<&str> = diff
                .changes
                .iter()
                .filter(|change| change.force_new)
                .map(|change| change.path.as_str())
                .collect();
            if diff.needs_replace || !forced.is_empty() {
                let reason = if forced.is_empty() {
                    "the provider cannot change it in place".to_owned()
                } else {
                    format!("{} cannot be changed in place", forced.join(", "))
                };
                (ActionKind::Replace, diff.changes, reason)
            } else if diff.needs_update {
                (ActionKind::Update, diff.changes, String::new())
            } else {
                (ActionKind::NoOp, Vec::new(), String::new())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str, force_new: bool) -> FieldChange {
        FieldChange {
            path: path.to_owned(),
            old: 1.into(),
            new: 2.into(),
            force_new,
        }
    }

    fn diff(needs_update: bool, needs_replace: bool, changes: Vec<FieldChange>) -> Diff {
        Diff {
            needs_update,
            needs_replace,
            changes,
        }
    }

    #[test]
    fn every_situation_has_one_action() {
        let cases = [
            (Decision::Unrecorded, ActionKind::Create),
            (
                Decision::Compared(diff(false, false, vec![])),
                ActionKind::NoOp,
            ),
            (
                Decision::Compared(diff(true, false, vec![change("size", false)])),
                ActionKind::Update,
            ),
            (
                Decision::Compared(diff(false, true, vec![change("region", false)])),
                ActionKind::Replace,
            ),
            (
                Decision::Compared(diff(true, false, vec![change("region", true)])),
                ActionKind::Replace,
            ),
            (
                Decision::Tainted(diff(false, false, vec![])),
                ActionKind::Update,
            ),
            (
                Decision::Tainted(diff(true, true, vec![])),
                ActionKind::Replace,
            ),
        ];
        for (decision, expected) in cases {
            let shown = format!("{decision:?}");
            assert_eq!(classify(decision).0, expected, "{shown}");
        }
    }

    #[test]
    fn a_replace_names_the_fields_that_force_it() {
        let (_, _, reason) = classify(Decision::Compared(diff(
            true,
            false,
            vec![change("engine", true), change("size", false)],
        )));
        assert_eq!(reason, "engine cannot be changed in place");
    }
}
