//! Circles in a graph, found without recursion, so that a long chain cannot exhaust the stack.

use crate::config::source::Mark;

/// One dependency.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    /// Whom it waits for.
    pub(super) to: usize,
    /// Where that is written.
    pub(super) at: Mark,
}

/// One circle.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cycle {
    /// Each waits for the next, and the last for the first.
    pub(super) members: Vec<usize>,
    /// Where the dependency that closes it is written.
    pub(super) closed_at: Mark,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    New,
    Open,
    Done,
}

/// Circles reported per run.
const CYCLES_MAX: usize = 100;

/// One circle for every dependency that leads back to where the search came from; at least one
/// for every group that waits for itself.
pub(super) fn find_cycles(graph: &[Vec<Edge>]) -> Vec<Cycle> {
    let mut visits = vec![Visit::New; graph.len()];
    let mut cycles: Vec<Cycle> = Vec::new();
    for start in 0..graph.len() {
        if visits[start] != Visit::New {
            continue;
        }
        visits[start] = Visit::Open;
        let mut trail: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((node, next)) = trail.last_mut() {
            let Some(edge) = graph[*node].get(*next).copied() else {
                visits[*node] = Visit::Done;
                trail.pop();
                continue;
            };
            *next += 1;
            match visits[edge.to] {
                Visit::New => {
                    visits[edge.to] = Visit::Open;
                    trail.push((edge.to, 0));
                }
                Visit::Open => {
                    let members: Vec<usize> = trail
                        .iter()
                        .map(|(node, _)| *node)
                        .skip_while(|node| *node != edge.to)
                        .collect();
                    if cycles.len() >= CYCLES_MAX {
                        return cycles;
                    }
                    if !cycles.iter().any(|cycle| cycle.members == members) {
                        cycles.push(Cycle {
                            members,
                            closed_at: edge.at,
                        });
                    }
                }
                Visit::Done => {}
            }
        }
    }
    cycles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(edges: &[&[usize]]) -> Vec<Vec<usize>> {
        let graph: Vec<Vec<Edge>> = edges
            .iter()
            .map(|targets| {
                targets
                    .iter()
                    .map(|&to| Edge {
                        to,
                        at: Mark::default(),
                    })
                    .collect()
            })
            .collect();
        find_cycles(&graph)
            .into_iter()
            .map(|cycle| cycle.members)
            .collect()
    }

    #[test]
    fn circles_are_found_once() {
        assert_eq!(members(&[&[], &[0], &[0, 1]]), Vec::<Vec<usize>>::new());
        assert_eq!(members(&[&[0]]), [vec![0]]);
        assert_eq!(members(&[&[1, 1], &[2], &[0]]), [vec![0, 1, 2]]);
        assert_eq!(members(&[&[1], &[0], &[3], &[2]]), [vec![0, 1], vec![2, 3]]);
    }

    #[test]
    fn a_very_long_chain_is_walked() {
        let graph: Vec<Vec<usize>> = (1..=200_000).map(|to| vec![to % 200_000]).collect();
        let edges: Vec<&[usize]> = graph.iter().map(Vec::as_slice).collect();
        assert_eq!(members(&edges).len(), 1);
    }
}
