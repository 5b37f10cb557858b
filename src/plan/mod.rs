//! Desired against remembered: what to do, to what, in which order. Pure values in, pure values
//! out. The runner in [`crate::apply`] asks drivers for their diffs and feeds them in.
//!
//! Deliberately absent: I/O, clocks, async, recursion (a chain of 100,000 must not overflow).

pub mod classify;
pub mod file;
pub mod graph;
pub mod scope;
pub mod steps;

use std::collections::{BTreeSet, HashSet};

use serde_json::json;

use crate::resource::{ActionKind, Address, FieldChange, Kind, ProviderId};

pub use classify::{Decision, classify};
pub use graph::{CycleError, Waits, order};
pub use scope::Scope;
use steps::stuck_pairs;
pub use steps::{Step, StepKind, Steps};

/// What is to be done, in an order that respects every dependency.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The environment.
    pub environment: String,
    /// One entry per resource that is desired or remembered, dependencies first, deletes last.
    pub actions: Vec<Action>,
}

/// What is to be done to one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// The resource.
    pub address: Address,
    /// Its kind.
    pub kind: Kind,
    /// The provider module that owns it.
    pub provider: ProviderId,
    /// What is done.
    pub action: ActionKind,
    /// Every difference, in public form.
    pub changes: Vec<FieldChange>,
    /// Why, when the action needs a reason beyond its changes.
    pub reason: String,
    /// Desired dependencies (empty for deletes).
    pub depends_on: BTreeSet<Address>,
    /// Dependencies on record (empty for creates).
    pub recorded_depends_on: BTreeSet<Address>,
    /// Replace and delete need an explicit override.
    pub protected: bool,
    /// A replace makes the new one before the old one goes.
    pub create_before_destroy: bool,
}

/// How many of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Resources to make.
    pub create: usize,
    /// Resources to change in place.
    pub update: usize,
    /// Resources to replace.
    pub replace: usize,
    /// Resources to delete.
    pub delete: usize,
    /// Resources left alone.
    pub no_op: usize,
}

impl Plan {
    /// Puts decisions in order: desired resources dependencies first, then deletes, dependents
    /// first. The answer depends only on the set of decisions, never on their order.
    pub fn assemble(environment: &str, decisions: Vec<Action>) -> Result<Self, CycleError> {
        let mut decisions = decisions;
        decisions.sort_by(|one, other| one.address.cmp(&other.address));
        let mut unique: Vec<Action> = Vec::with_capacity(decisions.len());
        for action in decisions {
            match unique.last_mut() {
                Some(last) if last.address == action.address => *last = action,
                _ => unique.push(action),
            }
        }
        let (kept, deleted): (Vec<Action>, Vec<Action>) = unique
            .into_iter()
            .partition(|action| action.action != ActionKind::Delete);
        let kept_order = positions(&kept, |action| &action.depends_on)?;
        Ok(Self::ordered(
            environment,
            arranged(kept, &kept_order),
            deleted,
        ))
    }

    /// The same of decisions whose order is known, each resource once: `kept`, dependencies first as
    /// [`Waits::positions`] tells; and `deleted`, by name.
    pub fn ordered(environment: &str, kept: Vec<Action>, deleted: Vec<Action>) -> Self {
        // Records may hold anything, cycles too; deleting must still be possible, so a cycle
        // among records falls back to name order instead of failing.
        let mut deleted_order = positions(&deleted, |action| &action.recorded_depends_on)
            .unwrap_or_else(|_| (0_u32..).zip(&deleted).map(|(at, _)| at).collect());
        deleted_order.reverse();
        let mut actions = kept;
        actions.extend(arranged(deleted, &deleted_order));
        Self {
            environment: environment.to_owned(),
            actions: without_impossible_order(actions),
        }
    }

    /// How many of each.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for action in &self.actions {
            match action.action {
                ActionKind::Create => summary.create += 1,
                ActionKind::Update => summary.update += 1,
                ActionKind::Replace => summary.replace += 1,
                ActionKind::Delete => summary.delete += 1,
                ActionKind::NoOp => summary.no_op += 1,
            }
        }
        summary
    }

    /// True when nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.actions
            .iter()
            .all(|action| action.action == ActionKind::NoOp)
    }

    /// The actions that can lose data.
    pub fn destructive(&self) -> impl Iterator<Item = &Action> {
        self.actions
            .iter()
            .filter(|action| action.action.is_destructive())
    }

    /// Destructive actions on protected resources that no override allows.
    pub fn blocked<'a>(&'a self, allowed: &'a BTreeSet<String>) -> Vec<&'a Action> {
        self.destructive()
            .filter(|action| action.protected && !allowed.contains(action.address.as_str()))
            .collect()
    }

    /// The stable JSON shape (`docs/json.md`). Public forms only: no secret can be in it.
    pub fn to_json(&self) -> serde_json::Value {
        let summary = self.summary();
        json!({
            "environment": self.environment,
            "summary": {
                "create": summary.create,
                "update": summary.update,
                "replace": summary.replace,
                "delete": summary.delete,
                "no_op": summary.no_op,
            },
            "actions": self.actions.iter().map(|action| json!({
                "resource": action.address,
                "type": action.kind,
                "provider": action.provider,
                "action": action.action.word(),
                "reason": action.reason,
                "protected": action.protected,
                "create_before_destroy": action.create_before_destroy,
                "depends_on": action.depends_on,
                "changes": action.changes,
            })).collect::<Vec<_>>(),
        })
    }
}

/// Positions of sorted actions, dependencies first.
fn positions(
    actions: &[Action],
    depends_on: impl Fn(&Action) -> &BTreeSet<Address>,
) -> Result<Vec<u32>, CycleError> {
    let nodes: Vec<(&Address, &BTreeSet<Address>)> = actions
        .iter()
        .map(|action| (&action.address, depends_on(action)))
        .collect();
    Waits::of(&nodes).order(&nodes)
}

/// The actions in that order of their positions.
fn arranged(actions: Vec<Action>, order: &[u32]) -> Vec<Action> {
    taken(actions.into_iter().map(Some).collect(), order)
}

/// The same where some positions may be empty.
pub(crate) fn taken(mut places: Vec<Option<Action>>, order: &[u32]) -> Vec<Action> {
    order
        .iter()
        .filter_map(|position| places[*position as usize].take())
        .collect()
}

/// A new one cannot come first where what it stands on must go before: the old one stands on that
/// too, so it has to go even earlier. There, and in whatever stands on it in turn, the usual order is
/// kept.
fn without_impossible_order(mut actions: Vec<Action>) -> Vec<Action> {
    if !actions.iter().any(|action| action.create_before_destroy) {
        return actions;
    }
    loop {
        let stuck = stuck_pairs(&actions);
        let old_first: HashSet<Address> = actions
            .iter()
            .filter(|action| action.action == ActionKind::Replace && !action.create_before_destroy)
            .map(|action| action.address.clone())
            .collect();
        let mut changed = false;
        for action in &mut actions {
            let mut below = action.depends_on.iter().chain(&action.recorded_depends_on);
            let is_impossible =
                stuck.contains(&action.address) || below.any(|name| old_first.contains(name));
            if action.create_before_destroy && is_impossible {
                action.create_before_destroy = false;
                changed = true;
            }
        }
        if !changed {
            return actions;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(name: &str, action: ActionKind, depends_on: &[&str]) -> Action {
        let dependencies: BTreeSet<Address> =
            depends_on.iter().copied().map(Address::new).collect();
        Action {
            address: Address::new(name),
            kind: Kind::new("infra.storage"),
            provider: ProviderId::new("local"),
            action,
            changes: Vec::new(),
            reason: String::new(),
            depends_on: if action == ActionKind::Delete {
                BTreeSet::new()
            } else {
                dependencies.clone()
            },
            recorded_depends_on: if action == ActionKind::Create {
                BTreeSet::new()
            } else {
                dependencies
            },
            protected: name.starts_with("protected"),
            create_before_destroy: false,
        }
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.actions
            .iter()
            .map(|action| action.address.as_str())
            .collect()
    }

    #[test]
    fn dependencies_come_first_and_deletes_last_dependents_first() {
        let decisions = vec![
            action("old-network", ActionKind::Delete, &[]),
            action("old-web", ActionKind::Delete, &["old-network"]),
            action("web", ActionKind::Create, &["db"]),
            action("db", ActionKind::NoOp, &[]),
        ];
        let plan = Plan::assemble("dev", decisions).unwrap();
        assert_eq!(names(&plan), ["db", "web", "old-web", "old-network"]);
    }

    #[test]
    fn the_order_of_decisions_changes_nothing() {
        let mut decisions = vec![
            action("a", ActionKind::Create, &["c"]),
            action("b", ActionKind::Create, &[]),
            action("c", ActionKind::Create, &["b"]),
            action("d", ActionKind::Delete, &[]),
        ];
        let first = Plan::assemble("dev", decisions.clone()).unwrap();
        decisions.reverse();
        let second = Plan::assemble("dev", decisions).unwrap();
        assert_eq!(first.to_json(), second.to_json());
    }

    #[test]
    fn an_order_that_is_known_is_the_one_that_would_be_found() {
        let kept = vec![
            action("a", ActionKind::Create, &["c", "gone"]),
            action("b", ActionKind::NoOp, &[]),
            action("c", ActionKind::Update, &["e"]),
            action("d", ActionKind::Replace, &["b"]),
            action("e", ActionKind::NoOp, &[]),
        ];
        let deleted = vec![
            action("x", ActionKind::Delete, &["y"]),
            action("y", ActionKind::Delete, &[]),
        ];
        let nodes: Vec<_> = kept
            .iter()
            .map(|it| (&it.address, &it.depends_on))
            .collect();
        let order = Waits::of(&nodes).positions().unwrap();
        let sorted = arranged(kept.clone(), &order);
        let known = Plan::ordered("dev", sorted, deleted.clone());
        let found = Plan::assemble("dev", [deleted, kept].concat()).unwrap();
        assert_eq!(names(&known), ["b", "d", "e", "c", "a", "x", "y"]);
        assert_eq!(known.actions, found.actions);
    }

    #[test]
    fn a_cycle_among_records_does_not_stop_their_deletion() {
        let decisions = vec![
            action("a", ActionKind::Delete, &["b"]),
            action("b", ActionKind::Delete, &["a"]),
        ];
        let plan = Plan::assemble("dev", decisions).unwrap();
        assert_eq!(carried_out(&plan), ["a Delete", "b Delete"]);
    }

    /// The steps in an order in which they can run.
    fn carried_out(plan: &Plan) -> Vec<String> {
        let mut steps = Steps::of(plan);
        let mut done = Vec::new();
        while let Some(step) = steps.take_ready() {
            done.push(format!("{} {:?}", step.address, step.kind));
            steps.done(&step);
        }
        assert_eq!(steps.remaining(), 0, "{done:?}");
        done
    }

    #[test]
    fn a_new_one_does_not_come_first_where_something_that_goes_holds_it_up() {
        let mut a = action("a", ActionKind::Replace, &["m"]);
        a.create_before_destroy = true;
        a.recorded_depends_on = BTreeSet::from([Address::new("x")]);
        let decisions = vec![
            a,
            action("x", ActionKind::Delete, &["y"]),
            action("m", ActionKind::Update, &["y"]),
            action("y", ActionKind::Replace, &[]),
        ];
        let plan = Plan::assemble("dev", decisions).unwrap();
        assert_eq!(
            carried_out(&plan),
            [
                "a Delete", "x Delete", "y Delete", "y Create", "m Update", "a Create"
            ]
        );
    }

    #[test]
    fn protected_resources_block_unless_named() {
        let plan = Plan::assemble(
            "dev",
            vec![
                action("protected-db", ActionKind::Replace, &[]),
                action("protected-net", ActionKind::Delete, &[]),
                action("protected-web", ActionKind::Update, &[]),
                action("web", ActionKind::Delete, &[]),
            ],
        )
        .unwrap();
        let blocked = |allowed: &[&str]| {
            let allowed = allowed.iter().map(|name| (*name).to_owned()).collect();
            plan.blocked(&allowed)
                .iter()
                .map(|action| action.address.as_str().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(blocked(&[]), ["protected-db", "protected-net"]);
        assert_eq!(blocked(&["protected-db", "web"]), ["protected-net"]);
    }
}
