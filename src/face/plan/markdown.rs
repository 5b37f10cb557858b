//! A plan as Markdown: fits a comment on a pull request, what can lose data first, details folded.

use crate::actions::Summary;
use crate::actions::summary::{Piece, Section};
use crate::plan::{Action, Plan};
use crate::resource::ActionKind;
use crate::secret::Masker;

use super::{change, sentence};

/// Largest page in bytes, and so in characters; GitHub refuses comments above 65,536 characters.
pub const PAGE_BYTES_MAX: usize = 59_900;
/// Rows of one table: kept or cut together.
const ROWS: usize = 25;

/// The whole page.
pub fn page(plan: &Plan, config: &str, masker: &Masker) -> String {
    let mut page = Summary::new(masker);
    let section = page.section(&format!(
        "Infrastructure Plan — {config} (environment {})",
        plan.environment
    ));
    section.paragraph(&[Piece::Text(&sentence(plan))]);
    warn_of_losses(section, plan);
    let risky = sorted_by_risk(plan);
    if !risky.is_empty() {
        let section = page.section("");
        rows(section, &risky);
        if risky.iter().any(|action| !action.changes.is_empty()) {
            details(page.section("Changes"), &risky, masker);
        }
    }
    page.render_within(PAGE_BYTES_MAX)
}

/// What can lose data, by name, before anything that may be cut.
fn warn_of_losses(section: &mut Section, plan: &Plan) {
    let losses: Vec<String> = plan
        .destructive()
        .map(|action| format!("{} {}", action.action.word(), action.address))
        .collect();
    if losses.is_empty() {
        return;
    }
    let shown = losses.len().min(20);
    let more = losses.len() - shown;
    let mut text = losses[..shown].join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    section.paragraph(&[Piece::Strong("This can lose data: "), Piece::Text(&text)]);
}

/// Every action that does something: deletes and replaces first, then updates, then creates; in
/// plan order within each.
pub fn sorted_by_risk(plan: &Plan) -> Vec<&Action> {
    let mut actions: Vec<&Action> = plan
        .actions
        .iter()
        .filter(|action| action.action != ActionKind::NoOp)
        .collect();
    actions.sort_by_key(|action| match action.action {
        ActionKind::Delete => 0,
        ActionKind::Replace => 1,
        ActionKind::Update => 2,
        ActionKind::Create => 3,
        ActionKind::NoOp => 4,
    });
    actions
}

fn rows(section: &mut Section, actions: &[&Action]) {
    for chunk in actions.chunks(ROWS) {
        let notes: Vec<(String, String)> = chunk
            .iter()
            .map(|action| {
                let shield = if action.protected && action.action.is_destructive() {
                    "protected; "
                } else {
                    ""
                };
                let note = format!("{shield}{}", action.reason);
                (
                    format!("{} {}", action.action.symbol(), action.action.word()),
                    note.trim_end_matches("; ").to_owned(),
                )
            })
            .collect();
        let cells: Vec<Vec<Vec<Piece<'_>>>> = chunk
            .iter()
            .zip(&notes)
            .map(|(action, (verb, note))| {
                vec![
                    vec![Piece::Text(verb)],
                    vec![Piece::Code(action.address.as_str())],
                    vec![Piece::Code(action.kind.as_str())],
                    vec![Piece::Text(note)],
                ]
            })
            .collect();
        section.table(&["action", "resource", "type", "why"], &cells);
    }
}

/// Old and new of every field, folded, one fold a resource.
pub fn details(section: &mut Section, actions: &[&Action], masker: &Masker) {
    for action in actions.iter().filter(|action| !action.changes.is_empty()) {
        let changes = action.changes.iter();
        let text: Vec<String> = changes.map(|one| change(one, masker)).collect();
        section.details(
            &[
                Piece::Text(&format!("{} ", action.action.word())),
                Piece::Code(action.address.as_str()),
                Piece::Text(&format!(
                    " ({})",
                    crate::face::count(action.changes.len(), "field")
                )),
            ],
            "text",
            &text.join("\n"),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::resource::{Address, FieldChange, Kind, ProviderId};

    fn action(name: &str, kind: ActionKind, value: &str) -> Action {
        Action {
            address: Address::new(name),
            kind: Kind::new("infra.database"),
            provider: ProviderId::new("cloud"),
            action: kind,
            changes: vec![FieldChange {
                path: "field".to_owned(),
                old: json!("before"),
                new: json!(value),
                force_new: false,
            }],
            reason: String::new(),
            depends_on: BTreeSet::new(),
            recorded_depends_on: BTreeSet::new(),
            protected: true,
            create_before_destroy: false,
        }
    }

    #[test]
    fn losses_come_first_and_hostile_text_stays_text() {
        let hostile = "</details><img src=x> ``` @team |";
        let plan = Plan::assemble(
            "dev",
            vec![
                action("a-new", ActionKind::Create, "x"),
                action("b-changed", ActionKind::Update, hostile),
                action("c-gone", ActionKind::Delete, "x"),
                action("d-anew", ActionKind::Replace, "x"),
            ],
        )
        .unwrap();
        let text = page(&plan, "infra.yaml", &Masker::default());
        let position = |name: &str| text.find(&format!("| `{name}` |")).unwrap();
        assert!(position("c-gone") < position("d-anew"));
        assert!(position("d-anew") < position("b-changed"));
        assert!(position("b-changed") < position("a-new"));
        assert!(text.contains("protected"));
        assert!(text.contains("field: &quot;before") || text.contains("field: \"before\""));
        assert_eq!(
            text.matches("<details>").count(),
            text.matches("\n\n</details>").count()
        );
        assert!(!text.contains("| @team"));
    }

    #[test]
    fn a_secret_in_any_field_is_masked() {
        let masker = Masker::default();
        masker.admit("s", "correct-horse-battery".to_owned());
        let plan = Plan::assemble(
            "dev",
            vec![action(
                "db",
                ActionKind::Update,
                "x correct-horse-battery y",
            )],
        )
        .unwrap();
        let text = page(&plan, "infra.yaml", &masker);
        assert!(text.contains("x *** y"), "{text}");
        assert!(!text.contains("horse"));
    }

    #[test]
    fn a_huge_plan_is_cut_and_says_so() {
        let mut actions: Vec<Action> = (0..5_000)
            .map(|n| action(&format!("r{n:05}"), ActionKind::Create, &"x".repeat(200)))
            .collect();
        actions.push(action("zz-gone", ActionKind::Delete, "x"));
        let plan = Plan::assemble("dev", actions).unwrap();
        let text = page(&plan, "infra.yaml", &Masker::default());
        assert!(text.chars().count() < 60_000);
        assert!(text.contains("| `zz-gone` |"), "what loses data is kept");
        assert!(text.contains("Cut to stay below"), "{}", &text[..500]);
    }
}
