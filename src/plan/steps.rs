//! A plan as steps with edges: what may run now, and what must never run after a failure.
//!
//! A replace is two steps, because between them other resources may have to go (their delete comes
//! before ours) or wait (their create comes after ours).

use std::collections::{BTreeMap, BTreeSet};

use super::Plan;
use crate::resource::{ActionKind, Address};

/// What one step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepKind {
    /// Remove the resource (a delete, or the first half of a replace).
    Delete,
    /// Make it (a create, or the second half of a replace).
    Create,
    /// Change it in place.
    Update,
}

/// One effect on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step {
    /// The resource.
    pub address: Address,
    /// What is done to it.
    pub kind: StepKind,
}

/// All steps of a plan and who waits for whom. Hand out with [`Steps::take_ready`], report back
/// with [`Steps::done`] or [`Steps::failed`].
#[derive(Clone, Debug)]
pub struct Steps {
    waiting: BTreeMap<Step, usize>,
    dependents: BTreeMap<Step, BTreeSet<Step>>,
    ready: BTreeSet<Step>,
}

impl Steps {
    /// The steps of `plan`.
    pub fn of(plan: &Plan) -> Self {
        let mut steps: BTreeSet<Step> = BTreeSet::new();
        let step = |address: &Address, kind| Step {
            address: address.clone(),
            kind,
        };
        for action in &plan.actions {
            let kinds: &[StepKind] = match action.action {
                ActionKind::Create => &[StepKind::Create],
                ActionKind::Update => &[StepKind::Update],
                ActionKind::Replace => &[StepKind::Delete, StepKind::Create],
                ActionKind::Delete => &[StepKind::Delete],
                ActionKind::NoOp => &[],
            };
            steps.extend(kinds.iter().map(|&kind| step(&action.address, kind)));
        }
        let purely_deleted: BTreeSet<&Address> = plan
            .actions
            .iter()
            .filter(|action| action.action == ActionKind::Delete)
            .map(|action| &action.address)
            .collect();

        // (earlier, later)
        let mut edges: BTreeSet<(Step, Step)> = BTreeSet::new();
        let mut soft: BTreeSet<(Step, Step)> = BTreeSet::new();
        let forward = |address: &Address| {
            [StepKind::Create, StepKind::Update]
                .map(|kind| step(address, kind))
                .into_iter()
                .find(|candidate| steps.contains(candidate))
        };
        for action in &plan.actions {
            let delete = step(&action.address, StepKind::Delete);
            if let Some(own) = forward(&action.address) {
                for dependency in &action.depends_on {
                    if let Some(earlier) = forward(dependency) {
                        edges.insert((earlier, own.clone()));
                    }
                }
                if own.kind == StepKind::Create && steps.contains(&delete) {
                    edges.insert((delete.clone(), own.clone()));
                }
            }
            // What used to stand on `dependency` goes (or moves away) before it does.
            for dependency in &action.recorded_depends_on {
                let later = step(dependency, StepKind::Delete);
                if !steps.contains(&later) {
                    continue;
                }
                if steps.contains(&delete) {
                    edges.insert((delete.clone(), later));
                } else if purely_deleted.contains(dependency)
                    && let Some(own) = forward(&action.address)
                {
                    soft.insert((own, later));
                }
            }
        }
        // A dependent's update before the delete of what it used to need is a courtesy; where it
        // would close a circle (possible only with old records) the courtesy is dropped.
        let all: BTreeSet<(Step, Step)> = edges.union(&soft).cloned().collect();
        let chosen = if is_acyclic(&steps, &all) { all } else { edges };

        let mut waiting: BTreeMap<Step, usize> =
            steps.iter().map(|step| (step.clone(), 0)).collect();
        let mut dependents: BTreeMap<Step, BTreeSet<Step>> = BTreeMap::new();
        for (earlier, later) in chosen {
            if let Some(count) = waiting.get_mut(&later) {
                *count += 1;
            }
            dependents.entry(earlier).or_default().insert(later);
        }
        let ready = waiting
            .iter()
            .filter(|(_, count)| **count == 0)
            .map(|(step, _)| step.clone())
            .collect();
        Self {
            waiting,
            dependents,
            ready,
        }
    }

    /// Number of steps not yet reported back.
    pub fn remaining(&self) -> usize {
        self.waiting.len()
    }

    /// A step that may run now.
    pub fn take_ready(&mut self) -> Option<Step> {
        self.ready.pop_first()
    }

    /// The step is done; those that waited only for it become ready.
    pub fn done(&mut self, step: &Step) {
        self.waiting.remove(step);
        for dependent in self.dependents.remove(step).unwrap_or_default() {
            if let Some(count) = self.waiting.get_mut(&dependent) {
                *count -= 1;
                if *count == 0 {
                    self.ready.insert(dependent);
                }
            }
        }
    }

    /// The step failed; everything that needs it, directly or not, is taken out and returned,
    /// sorted. Nothing else is touched.
    pub fn failed(&mut self, step: &Step) -> Vec<Step> {
        self.waiting.remove(step);
        let mut skipped = BTreeSet::new();
        let mut pending: Vec<Step> = self
            .dependents
            .remove(step)
            .unwrap_or_default()
            .into_iter()
            .collect();
        while let Some(next) = pending.pop() {
            if self.waiting.remove(&next).is_some() {
                pending.extend(self.dependents.remove(&next).unwrap_or_default());
                skipped.insert(next);
            }
        }
        skipped.into_iter().collect()
    }

    /// Takes out and returns every step not handed out yet, as a stopped run does.
    pub fn abandon(&mut self, running: &BTreeSet<Step>) -> Vec<Step> {
        self.ready.clear();
        let left: Vec<Step> = self
            .waiting
            .keys()
            .filter(|step| !running.contains(*step))
            .cloned()
            .collect();
        self.waiting.retain(|step, _| running.contains(step));
        left
    }
}

fn is_acyclic(steps: &BTreeSet<Step>, edges: &BTreeSet<(Step, Step)>) -> bool {
    let mut waiting: BTreeMap<&Step, usize> = steps.iter().map(|step| (step, 0)).collect();
    let mut dependents: BTreeMap<&Step, Vec<&Step>> = BTreeMap::new();
    for (earlier, later) in edges {
        if let Some(count) = waiting.get_mut(later) {
            *count += 1;
        }
        dependents.entry(earlier).or_default().push(later);
    }
    let mut ready: Vec<&Step> = waiting
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(step, _)| *step)
        .collect();
    let mut seen = 0;
    while let Some(step) = ready.pop() {
        seen += 1;
        for &dependent in dependents.get(step).map_or(&[][..], Vec::as_slice) {
            if let Some(count) = waiting.get_mut(dependent) {
                *count -= 1;
                if *count == 0 {
                    ready.push(dependent);
                }
            }
        }
    }
    seen == steps.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Action;
    use crate::resource::{Kind, ProviderId};

    fn action(name: &str, kind: ActionKind, desired: &[&str], recorded: &[&str]) -> Action {
        Action {
            address: Address::new(name),
            kind: Kind::new("infra.storage"),
            provider: ProviderId::new("local"),
            action: kind,
            changes: Vec::new(),
            reason: String::new(),
            depends_on: desired.iter().copied().map(Address::new).collect(),
            recorded_depends_on: recorded.iter().copied().map(Address::new).collect(),
            protected: false,
            create_before_destroy: false,
        }
    }

    fn steps(actions: Vec<Action>) -> Steps {
        Steps::of(&Plan::assemble("dev", actions).unwrap())
    }

    fn waves(mut steps: Steps) -> Vec<String> {
        let mut waves = Vec::new();
        while steps.remaining() > 0 {
            let mut wave = Vec::new();
            while let Some(step) = steps.take_ready() {
                wave.push(step);
            }
            assert!(!wave.is_empty(), "no step is ready, yet some remain");
            waves.push(
                wave.iter()
                    .map(|step| format!("{:?} {}", step.kind, step.address).to_lowercase())
                    .collect::<Vec<_>>()
                    .join(", "),
            );
            for step in wave {
                steps.done(&step);
            }
        }
        waves
    }

    #[test]
    fn creates_run_in_dependency_waves() {
        let steps = steps(vec![
            action("web", ActionKind::Create, &["api", "db"], &[]),
            action("api", ActionKind::Create, &["db"], &[]),
            action("db", ActionKind::Create, &[], &[]),
            action("bucket", ActionKind::Create, &[], &[]),
        ]);
        assert_eq!(
            waves(steps),
            ["create bucket, create db", "create api", "create web"]
        );
    }

    #[test]
    fn a_replaced_pair_goes_down_dependent_first_and_comes_up_parent_first() {
        let steps = steps(vec![
            action("db", ActionKind::Replace, &[], &[]),
            action("web", ActionKind::Replace, &["db"], &["db"]),
        ]);
        assert_eq!(
            waves(steps),
            ["delete web", "delete db", "create db", "create web"]
        );
    }

    #[test]
    fn an_updated_dependent_waits_for_the_new_parent() {
        let steps = steps(vec![
            action("db", ActionKind::Replace, &[], &[]),
            action("web", ActionKind::Update, &["db"], &["db"]),
        ]);
        assert_eq!(waves(steps), ["delete db", "create db", "update web"]);
    }

    #[test]
    fn what_moves_away_moves_before_the_old_parent_goes() {
        let steps = steps(vec![
            action("old-db", ActionKind::Delete, &[], &[]),
            action("new-db", ActionKind::Create, &[], &[]),
            action("web", ActionKind::Update, &["new-db"], &["old-db"]),
        ]);
        assert_eq!(
            waves(steps),
            ["create new-db", "update web", "delete old-db"]
        );
    }

    #[test]
    fn courtesy_edges_never_close_a_circle() {
        let steps = steps(vec![
            action("z", ActionKind::Replace, &[], &[]),
            action("w", ActionKind::Delete, &[], &["z"]),
            action("y", ActionKind::Update, &["z"], &["z"]),
            action("v", ActionKind::Update, &["y"], &["w"]),
        ]);
        assert_eq!(
            waves(steps),
            ["delete w", "delete z", "create z", "update y", "update v"]
        );
    }

    #[test]
    fn a_failure_skips_its_dependents_and_nothing_else() {
        let mut steps = steps(vec![
            action("db", ActionKind::Create, &[], &[]),
            action("api", ActionKind::Create, &["db"], &[]),
            action("web", ActionKind::Create, &["api"], &[]),
            action("bucket", ActionKind::Create, &[], &[]),
            action("cdn", ActionKind::Create, &["bucket"], &[]),
        ]);
        let mut first = Vec::new();
        while let Some(step) = steps.take_ready() {
            first.push(step);
        }
        let (db, bucket) = (
            first
                .iter()
                .find(|step| step.address.as_str() == "db")
                .unwrap()
                .clone(),
            first
                .iter()
                .find(|step| step.address.as_str() == "bucket")
                .unwrap()
                .clone(),
        );
        let skipped: Vec<String> = steps
            .failed(&db)
            .iter()
            .map(|step| step.address.to_string())
            .collect();
        assert_eq!(skipped, ["api", "web"]);
        steps.done(&bucket);
        assert_eq!(steps.take_ready().unwrap().address.as_str(), "cdn");
    }
}
