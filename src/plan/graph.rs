//! Dependency order. Iterative, linear in nodes and edges, deterministic.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use crate::resource::Address;

/// Resources that wait for each other; the path starts and ends with the same one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resources wait for each other: {}", path.iter().map(Address::as_str).collect::<Vec<_>>().join(" -> "))]
pub struct CycleError {
    /// The cycle, first resource repeated at the end.
    pub path: Vec<Address>,
}

/// Dependencies first; among resources that could go next, by name. Dependencies that are not
/// nodes are ignored (they have nothing to wait for).
pub fn order<'a>(
    nodes: impl IntoIterator<Item = (&'a Address, &'a BTreeSet<Address>)>,
) -> Result<Vec<Address>, CycleError> {
    let mut nodes: Vec<(&Address, &BTreeSet<Address>)> = nodes.into_iter().collect();
    nodes.sort_unstable_by_key(|(address, _)| *address);
    nodes.dedup_by_key(|(address, _)| *address);
    let positions = Waits::of(&nodes).order(&nodes)?;
    Ok(positions
        .into_iter()
        .map(|position| nodes[position as usize].0.clone())
        .collect())
}

/// Who waits for whom, by position: names are compared once, when this is made.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    /// How many each one waits for.
    count: Vec<u32>,
    /// Where those that wait for each one start in `dependents`; one more than there are nodes.
    starts: Vec<u32>,
    /// Who waits, sorted by whom they wait for and then by position.
    dependents: Vec<u32>,
}

impl Waits {
    /// Of nodes that are sorted by name, each name once.
    pub fn of(nodes: &[(&Address, &BTreeSet<Address>)]) -> Self {
        let names = nodes.iter().map(|(address, _)| *address);
        Self::between(names, |position, needs| {
            nodes[position].1.iter().for_each(needs);
        })
    }

    /// Of so many names, each one once; `each` hands over the names that the one at a position waits
    /// for. A name that is handed over twice counts twice, which changes nothing.
    pub fn between<'a>(
        names: impl ExactSizeIterator<Item = &'a Address>,
        mut each: impl FnMut(usize, &mut dyn FnMut(&Address)),
    ) -> Self {
        let total = names.len();
        let mut positions: HashMap<&Address, u32> = HashMap::with_capacity(total);
        for (position, address) in (0_u32..).zip(names) {
            positions.insert(address, position);
        }
        let mut count: Vec<u32> = vec![0; total];
        let mut starts: Vec<u32> = vec![0; total + 1];
        let mut edges: Vec<(u32, u32)> = Vec::new();
        for (position, own) in (0_u32..).zip(&mut count) {
            each(position as usize, &mut |needed| {
                if let Some(&needed) = positions.get(needed) {
                    *own += 1;
                    starts[needed as usize + 1] += 1;
                    edges.push((needed, position));
                }
            });
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut next = starts.clone();
        let mut dependents = vec![0; edges.len()];
        for (needed, position) in edges {
            let place = &mut next[needed as usize];
            dependents[*place as usize] = position;
            *place += 1;
        }
        Self {
            count,
            starts,
            dependents,
        }
    }

    /// Those that wait for nobody. The first by name comes out first.
    pub fn ready(&self) -> BinaryHeap<Reverse<u32>> {
        (0_u32..)
            .zip(&self.count)
            .filter(|(_, count)| **count == 0)
            .map(|(position, _)| Reverse(position))
            .collect()
    }

    /// This one is done; those that waited only for it become ready. Once for each.
    pub fn release(&mut self, position: u32, ready: &mut BinaryHeap<Reverse<u32>>) {
        let mut count = std::mem::take(&mut self.count);
        self.settle(&mut count, position, ready);
        self.count = count;
    }

    fn settle(&self, count: &mut [u32], position: u32, ready: &mut BinaryHeap<Reverse<u32>>) {
        let position = position as usize;
        let (start, end) = (self.starts[position], self.starts[position + 1]);
        for &dependent in &self.dependents[start as usize..end as usize] {
            let count = &mut count[dependent as usize];
            *count -= 1;
            if *count == 0 {
                ready.push(Reverse(dependent));
            }
        }
    }

    /// Positions, dependencies first; among those that could go next, the first by name. `None` when
    /// some wait for each other.
    pub fn positions(&self) -> Option<Vec<u32>> {
        let ordered = self.as_far_as_it_goes();
        (ordered.len() == self.count.len()).then_some(ordered)
    }

    /// Without those that wait for each other, and what waits for them.
    fn as_far_as_it_goes(&self) -> Vec<u32> {
        let mut count = self.count.clone();
        let mut ready = self.ready();
        let mut ordered = Vec::with_capacity(count.len());
        while let Some(Reverse(position)) = ready.pop() {
            ordered.push(position);
            self.settle(&mut count, position, &mut ready);
        }
        ordered
    }

    /// [`Waits::positions`] of those nodes that this was made of.
    ///
    /// # Errors
    /// When some wait for each other.
    pub fn order(&self, nodes: &[(&Address, &BTreeSet<Address>)]) -> Result<Vec<u32>, CycleError> {
        let ordered = self.as_far_as_it_goes();
        if ordered.len() == nodes.len() {
            return Ok(ordered);
        }
        let done: BTreeSet<&Address> = ordered
            .iter()
            .map(|position| nodes[*position as usize].0)
            .collect();
        Err(find_cycle(&nodes.iter().copied().collect(), &done))
    }
}

/// Walks from a stuck node along stuck dependencies until one repeats. Every stuck node has a
/// stuck dependency, so the walk always closes.
fn find_cycle(
    nodes: &BTreeMap<&Address, &BTreeSet<Address>>,
    done: &BTreeSet<&Address>,
) -> CycleError {
    let stuck = |address: &Address| nodes.contains_key(address) && !done.contains(address);
    let mut path: Vec<Address> = Vec::new();
    let mut position: BTreeMap<Address, usize> = BTreeMap::new();
    let mut next = nodes
        .keys()
        .find(|address| stuck(address))
        .map(|&a| a.clone());
    while let Some(address) = next {
        if let Some(&start) = position.get(&address) {
            path.push(address);
            return CycleError {
                path: path.split_off(start),
            };
        }
        position.insert(address.clone(), path.len());
        path.push(address.clone());
        next = nodes
            .get(&address)
            .and_then(|dependencies| dependencies.iter().find(|dependency| stuck(dependency)))
            .cloned();
    }
    CycleError { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edges: &[(&str, &[&str])]) -> Result<String, String> {
        let nodes: Vec<(Address, BTreeSet<Address>)> = edges
            .iter()
            .map(|(name, dependencies)| {
                (
                    Address::new(*name),
                    dependencies.iter().copied().map(Address::new).collect(),
                )
            })
            .collect();
        order(
            nodes
                .iter()
                .map(|(address, dependencies)| (address, dependencies)),
        )
        .map(|order| {
            order
                .iter()
                .map(Address::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn orders() {
        assert_eq!(check(&[]), Ok(String::new()));
        assert_eq!(check(&[("b", &[]), ("a", &[])]), Ok("a b".into()));
        assert_eq!(
            check(&[("a", &["b"]), ("b", &["c"]), ("c", &[])]),
            Ok("c b a".into())
        );
        assert_eq!(check(&[("a", &["gone"])]), Ok("a".into()));
        assert_eq!(
            check(&[("d", &["b", "c"]), ("b", &["a"]), ("c", &["a"]), ("a", &[])]),
            Ok("a b c d".into())
        );
    }

    #[test]
    fn cycles_show_their_path() {
        let said = "resources wait for each other: ";
        assert_eq!(check(&[("a", &["a"])]), Err(format!("{said}a -> a")));
        assert_eq!(
            check(&[("x", &[]), ("a", &["b"]), ("b", &["c", "x"]), ("c", &["a"])]),
            Err(format!("{said}a -> b -> c -> a"))
        );
        // The walk starts outside the cycle but reports only the cycle.
        assert_eq!(
            check(&[("a", &["m"]), ("m", &["n"]), ("n", &["m"])]),
            Err(format!("{said}m -> n -> m"))
        );
    }

    #[test]
    fn a_chain_of_one_hundred_thousand_fits() {
        let nodes: Vec<(Address, BTreeSet<Address>)> = (0..100_000)
            .map(|n: u32| {
                let next = (n > 0).then(|| Address::new(format!("r{:06}", n - 1)));
                (Address::new(format!("r{n:06}")), next.into_iter().collect())
            })
            .collect();
        let ordered = order(nodes.iter().rev().map(|(a, d)| (a, d))).unwrap();
        assert_eq!(ordered.len(), 100_000);
        assert_eq!(ordered[0].as_str(), "r000000");
    }
}
