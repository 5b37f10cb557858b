//! A plan as steps with edges: what may run now, and what must never run after a failure.
//!
//! A replace is two steps, because between them other resources may have to go (their delete comes
//! before ours) or wait (their create comes after ours).

use std::collections::{BTreeSet, HashMap};

use super::{Action, Plan};
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
    /// Sorted; everything below is by position in here.
    steps: Vec<Step>,
    waits_for: Vec<u32>,
    dependents: Vec<Vec<u32>>,
    /// Steps in the longest chain that starts with each.
    heights: Vec<u32>,
    ready: BTreeSet<u32>,
    gone: Vec<bool>,
    left: usize,
}

/// Where the steps of one action stand.
#[derive(Clone, Copy, Default)]
struct Slots {
    delete: Option<u32>,
    /// The create or the update.
    forward: Option<u32>,
    is_pure_delete: bool,
    new_one_first: bool,
}

impl Steps {
    /// The steps of `plan`.
    pub fn of(plan: &Plan) -> Self {
        let (steps, edges) = laid_out(&plan.actions);
        let wiring = edges.wired(steps.len());
        let ready = (0_u32..)
            .zip(&wiring.waits_for)
            .filter(|(_, count)| **count == 0)
            .map(|(position, _)| position)
            .collect();
        Self {
            left: steps.len(),
            gone: vec![false; steps.len()],
            steps,
            heights: wiring.heights(),
            waits_for: wiring.waits_for,
            dependents: wiring.dependents,
            ready,
        }
    }

    /// How many steps the longest chain that starts with this one has. Where not everything fits at
    /// once, long chains go first: what they hold up could otherwise be all that is left at the end.
    pub fn height(&self, step: &Step) -> u32 {
        self.steps
            .binary_search(step)
            .ok()
            .map_or(0, |position| self.heights[position])
    }

    /// Number of steps not yet reported back.
    pub fn remaining(&self) -> usize {
        self.left
    }

    /// A step that may run now.
    pub fn take_ready(&mut self) -> Option<Step> {
        let position = self.ready.pop_first()?;
        self.steps.get(position as usize).cloned()
    }

    /// True when a step of this resource has not been reported back yet.
    pub fn has_more(&self, address: &Address) -> bool {
        let first = self.steps.partition_point(|step| step.address < *address);
        self.steps[first..]
            .iter()
            .zip(&self.gone[first..])
            .take_while(|(step, _)| step.address == *address)
            .any(|(_, gone)| !gone)
    }

    /// The step is done; those that waited only for it become ready.
    pub fn done(&mut self, step: &Step) {
        let Some(position) = self.remove(step) else {
            return;
        };
        for dependent in std::mem::take(&mut self.dependents[position]) {
            let count = &mut self.waits_for[dependent as usize];
            *count = count.saturating_sub(1);
            if *count == 0 && !self.gone[dependent as usize] {
                self.ready.insert(dependent);
            }
        }
    }

    /// The step failed; everything that needs it, directly or not, is taken out and returned,
    /// sorted. Nothing else is touched.
    pub fn failed(&mut self, step: &Step) -> Vec<Step> {
        let Some(position) = self.remove(step) else {
            return Vec::new();
        };
        let mut skipped = BTreeSet::new();
        let mut pending = std::mem::take(&mut self.dependents[position]);
        while let Some(next) = pending.pop() {
            let next = next as usize;
            if !self.gone[next] {
                self.gone[next] = true;
                self.left -= 1;
                pending.extend(std::mem::take(&mut self.dependents[next]));
                skipped.insert(self.steps[next].clone());
            }
        }
        skipped.into_iter().collect()
    }

    /// Takes out and returns every step not handed out yet, as a stopped run does.
    pub fn abandon(&mut self, running: &BTreeSet<Step>) -> Vec<Step> {
        self.ready.clear();
        let mut left = Vec::new();
        for (step, gone) in self.steps.iter().zip(&mut self.gone) {
            if !*gone && !running.contains(step) {
                *gone = true;
                self.left -= 1;
                left.push(step.clone());
            }
        }
        left
    }

    /// Its position, when it was still there.
    fn remove(&mut self, step: &Step) -> Option<usize> {
        let position = self.steps.binary_search(step).ok()?;
        if std::mem::replace(&mut self.gone[position], true) {
            return None;
        }
        self.left -= 1;
        Some(position)
    }
}

/// Which steps have to wait for which: (earlier, later), by position.
#[derive(Default)]
struct Edges {
    /// What the config needs.
    hard: Vec<(u32, u32)>,
    /// Deletes, in the order that records ask for.
    recorded: Vec<(u32, u32)>,
    /// A dependent's update before the delete of what it used to need.
    soft: Vec<(u32, u32)>,
    /// Deletes, in the order that the config asks for: nobody has carried that out yet.
    wished: Vec<(u32, u32)>,
    /// Keeping an old one until what its new one needs is there: nothing goes that could not come again.
    careful: Vec<(u32, u32)>,
}

impl Edges {
    /// The wiring that can run and heeds most. Where a courtesy would close a circle it is dropped, and
    /// so is what records say of those in a circle: records may hold anything, and what nobody can
    /// delete would be there for ever.
    fn wired(&self, nodes: usize) -> Wiring {
        let wishes: [&[&[(u32, u32)]]; 4] = [
            &[&self.recorded, &self.soft, &self.careful, &self.wished],
            &[&self.recorded, &self.soft, &self.careful],
            &[&self.recorded, &self.soft],
            &[&self.recorded],
        ];
        let with = |wishes: &[&[(u32, u32)]]| {
            let all = std::iter::once(self.hard.as_slice()).chain(wishes.iter().copied());
            Wiring::new(nodes, all.flatten().copied().collect())
        };
        if let Some(wiring) = wishes.into_iter().map(with).find(Wiring::is_acyclic) {
            return wiring;
        }
        let stuck = with(&[&self.recorded]).stuck();
        let kept: Vec<(u32, u32)> = self
            .recorded
            .iter()
            .filter(|(earlier, later)| !(stuck.contains(earlier) && stuck.contains(later)))
            .copied()
            .collect();
        with(&[&kept])
    }
}

/// The resources whose new one cannot come first: what has to happen in between waits for their old one
/// to go.
pub(super) fn stuck_pairs(actions: &[Action]) -> BTreeSet<Address> {
    let (steps, edges) = laid_out(actions);
    let mut all = edges.hard;
    all.extend(edges.recorded);
    let stuck = Wiring::new(steps.len(), all).stuck();
    let stuck: BTreeSet<&Address> = stuck
        .iter()
        .map(|position| &steps[*position as usize].address)
        .collect();
    actions
        .iter()
        .filter(|action| action.create_before_destroy && stuck.contains(&action.address))
        .map(|action| action.address.clone())
        .collect()
}

/// The steps of actions, sorted, and what they wait for.
fn laid_out(actions: &[Action]) -> (Vec<Step>, Edges) {
    let mut steps: Vec<Step> = Vec::new();
    for action in actions {
        let kinds: &[StepKind] = match action.action {
            ActionKind::Create => &[StepKind::Create],
            ActionKind::Update => &[StepKind::Update],
            ActionKind::Replace => &[StepKind::Delete, StepKind::Create],
            ActionKind::Delete => &[StepKind::Delete],
            ActionKind::NoOp => &[],
        };
        steps.extend(kinds.iter().map(|&kind| Step {
            address: action.address.clone(),
            kind,
        }));
    }
    steps.sort_unstable();
    steps.dedup();

    let mut slots: HashMap<&Address, Slots> = HashMap::with_capacity(actions.len());
    for (position, step) in (0_u32..).zip(&steps) {
        let slot = slots.entry(&step.address).or_default();
        match step.kind {
            StepKind::Delete => slot.delete = Some(position),
            StepKind::Create | StepKind::Update => slot.forward = Some(position),
        }
    }
    for action in actions {
        if let Some(slot) = slots.get_mut(&action.address) {
            slot.is_pure_delete = action.action == ActionKind::Delete;
            slot.new_one_first = action.create_before_destroy;
        }
    }

    let mut edges = Edges::default();
    let none = Slots::default();
    for action in actions {
        let own = slots.get(&action.address).copied().unwrap_or(none);
        if let Some(forward) = own.forward {
            let needed = action.depends_on.iter().filter_map(|name| slots.get(name));
            edges.hard.extend(
                needed
                    .filter_map(|slot| slot.forward)
                    .map(|earlier| (earlier, forward)),
            );
            if let Some(delete) = own.delete {
                edges.hard.push(if own.new_one_first {
                    (forward, delete)
                } else {
                    (delete, forward)
                });
                if !own.new_one_first {
                    edges.careful.extend(
                        action
                            .depends_on
                            .iter()
                            .filter_map(|name| slots.get(name))
                            .filter(|slot| slot.delete.is_none())
                            .filter_map(|slot| slot.forward)
                            .map(|earlier| (earlier, delete)),
                    );
                }
            }
        }
        if let (Some(delete), true) = (own.delete, own.is_pure_delete) {
            let below = action.depends_on.iter().filter_map(|name| slots.get(name));
            edges.wished.extend(
                below
                    .filter(|slot| slot.is_pure_delete)
                    .filter_map(|slot| slot.delete)
                    .map(|later| (delete, later)),
            );
        }
        // What used to stand on `below` goes (or moves away) before it does.
        for below in action
            .recorded_depends_on
            .iter()
            .filter_map(|name| slots.get(name))
        {
            let Some(later) = below.delete else { continue };
            if let Some(delete) = own.delete {
                edges.recorded.push((delete, later));
            }
            if let Some(forward) = own.forward
                && (below.new_one_first || (own.delete.is_none() && below.is_pure_delete))
            {
                edges.soft.push((forward, later));
            }
        }
    }
    (steps, edges)
}

/// Edges, sorted out by where they start.
struct Wiring {
    waits_for: Vec<u32>,
    dependents: Vec<Vec<u32>>,
}

impl Wiring {
    fn new(nodes: usize, mut edges: Vec<(u32, u32)>) -> Self {
        edges.sort_unstable();
        edges.dedup();
        let mut waits_for = vec![0; nodes];
        let mut dependents = vec![Vec::new(); nodes];
        for (earlier, later) in edges {
            waits_for[later as usize] += 1;
            dependents[earlier as usize].push(later);
        }
        Self {
            waits_for,
            dependents,
        }
    }

    fn is_acyclic(&self) -> bool {
        self.order().len() == self.waits_for.len()
    }

    /// Positions, earlier ones first; those in a circle, and what waits for them, are left out.
    fn order(&self) -> Vec<u32> {
        let mut waits_for = self.waits_for.clone();
        let mut order: Vec<u32> = (0_u32..)
            .zip(&waits_for)
            .filter(|(_, count)| **count == 0)
            .map(|(position, _)| position)
            .collect();
        let mut next = 0;
        while let Some(&position) = order.get(next) {
            next += 1;
            for &dependent in &self.dependents[position as usize] {
                let count = &mut waits_for[dependent as usize];
                *count -= 1;
                if *count == 0 {
                    order.push(dependent);
                }
            }
        }
        order
    }

    /// Those in a circle, and what waits for them.
    fn stuck(&self) -> BTreeSet<u32> {
        let free: BTreeSet<u32> = self.order().into_iter().collect();
        let all = 0..u32::try_from(self.waits_for.len()).unwrap_or(u32::MAX);
        all.filter(|position| !free.contains(position)).collect()
    }

    fn heights(&self) -> Vec<u32> {
        let mut heights = vec![1; self.waits_for.len()];
        for position in self.order().into_iter().rev() {
            let above = self.dependents[position as usize]
                .iter()
                .map(|dependent| heights[*dependent as usize])
                .max();
            heights[position as usize] = 1 + above.unwrap_or(0);
        }
        heights
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_new_one_comes_first_and_the_old_one_goes_when_nobody_stands_on_it() {
        let mut db = action("db", ActionKind::Replace, &[], &[]);
        db.create_before_destroy = true;
        let web = action("web", ActionKind::Update, &["db"], &["db"]);
        assert_eq!(
            waves(steps(vec![db, web])),
            ["create db", "update web", "delete db"]
        );
    }

    #[test]
    fn a_new_one_first_gives_way_where_it_would_close_a_circle() {
        let net = action("net", ActionKind::Replace, &[], &[]);
        let mut db = action("db", ActionKind::Replace, &["net"], &["net"]);
        db.create_before_destroy = true;
        let mut web = action("web", ActionKind::Replace, &["db"], &["db"]);
        web.create_before_destroy = true;
        assert_eq!(
            waves(steps(vec![net, db, web])),
            [
                "delete web",
                "delete db",
                "delete net",
                "create net",
                "create db",
                "create web"
            ]
        );
    }

    /// Each stands on the one before it.
    fn chain(length: usize) -> Steps {
        let name = |number: usize| format!("r{number:06}");
        let actions = (0..length)
            .map(|number| {
                let below: Vec<String> = number.checked_sub(1).map(name).into_iter().collect();
                let below: Vec<&str> = below.iter().map(String::as_str).collect();
                action(&name(number), ActionKind::Create, &below, &[])
            })
            .collect();
        steps(actions)
    }

    #[test]
    fn a_chain_of_one_hundred_thousand_fits() {
        const LENGTH: usize = 100_000;
        let mut steps = chain(LENGTH);
        let first = steps.take_ready().unwrap();
        assert_eq!(steps.height(&first), 100_000);
        let skipped = steps.clone().failed(&first);
        assert_eq!(skipped.len(), LENGTH - 1);
        let mut next = Some(first);
        let mut done = 0;
        while let Some(step) = next {
            steps.done(&step);
            done += 1;
            next = steps.take_ready();
        }
        assert_eq!((done, steps.remaining()), (LENGTH, 0));
    }

    #[test]
    fn a_step_is_as_high_as_what_it_holds_up() {
        let steps = steps(vec![
            action("web", ActionKind::Create, &["api", "db"], &[]),
            action("api", ActionKind::Create, &["db"], &[]),
            action("db", ActionKind::Create, &[], &[]),
            action("bucket", ActionKind::Create, &[], &[]),
        ]);
        let height = |name: &str| {
            steps.height(&Step {
                address: Address::new(name),
                kind: StepKind::Create,
            })
        };
        assert_eq!(
            ["db", "api", "web", "bucket", "nothing"].map(height),
            [3, 2, 1, 1, 0]
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
