//! Orders and cycles of a graph given as numbered nodes and edges. Knows no step.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

/// The topological order in which the lowest free number always comes next: it depends on the numbering
/// only. Edges go from producer to consumer. Nodes on or behind a cycle are left out.
pub fn order(nodes: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    // Consumers of each node, packed one after the other.
    let mut first = vec![0; nodes + 1];
    let mut waits = vec![0; nodes];
    for (from, to) in edges {
        first[from + 1] += 1;
        waits[*to] += 1;
    }
    for node in 0..nodes {
        first[node + 1] += first[node];
    }
    let mut next = first.clone();
    let mut consumers = vec![0; edges.len()];
    for (from, to) in edges {
        consumers[next[*from]] = *to;
        next[*from] += 1;
    }
    let mut free: BinaryHeap<Reverse<usize>> = (0..nodes).filter(|n| waits[*n] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes);
    while let Some(Reverse(node)) = free.pop() {
        order.push(node);
        for consumer in &consumers[first[node]..first[node + 1]] {
            waits[*consumer] -= 1;
            if waits[*consumer] == 0 {
                free.push(Reverse(*consumer));
            }
        }
    }
    order
}

/// One shortest cycle through the lowest node of every knot, as nodes in the order of the edges;
/// a node that points to itself is a cycle of one.
pub fn cycles(nodes: usize, edges: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut graph: DiGraph<(), ()> = DiGraph::with_capacity(nodes, edges.len());
    for _ in 0..nodes {
        graph.add_node(());
    }
    for (from, to) in edges {
        graph.add_edge(NodeIndex::new(*from), NodeIndex::new(*to), ());
    }
    let mut cycles: Vec<Vec<usize>> = kosaraju_scc(&graph)
        .into_iter()
        .filter_map(|knot| {
            let lowest = knot.iter().copied().min()?;
            let looped = graph.contains_edge(lowest, lowest);
            (knot.len() > 1 || looped).then(|| shortest(&graph, &knot, lowest))
        })
        .collect();
    cycles.sort();
    cycles
}

/// Breadth first from `start` back to it, inside its knot.
fn shortest(graph: &DiGraph<(), ()>, knot: &[NodeIndex], start: NodeIndex) -> Vec<usize> {
    let inside: HashSet<NodeIndex> = knot.iter().copied().collect();
    let mut came_from = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        let mut followers: Vec<NodeIndex> = graph.neighbors(node).filter(|n| inside.contains(n)).collect();
        followers.sort();
        for follower in followers {
            if follower == start {
                let mut path = vec![node.index()];
                let mut at = node;
                while let Some(before) = came_from.get(&at) {
                    at = *before;
                    path.push(at.index());
                }
                path.reverse();
                return path;
            }
            if let Entry::Vacant(new) = came_from.entry(follower) {
                new.insert(node);
                queue.push_back(follower);
            }
        }
    }
    vec![start.index()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_comes_next() {
        assert_eq!(order(4, &[(3, 0), (0, 1)]), [2, 3, 0, 1]);
        assert_eq!(order(3, &[(0, 1), (1, 0), (1, 2)]), [0usize; 0], "behind a cycle nothing is free");
    }

    #[test]
    fn cycles_are_named_once_and_shortest() {
        assert_eq!(cycles(5, &[(0, 1), (1, 2), (2, 0), (1, 0), (3, 4)]), [vec![0, 1]]);
        assert_eq!(cycles(2, &[(1, 1)]), [vec![1]]);
        // Deep graphs must not exhaust the stack.
        let chain: Vec<(usize, usize)> = (0..100_000).map(|n| (n, (n + 1) % 100_000)).collect();
        assert_eq!(cycles(100_000, &chain)[0].len(), 100_000);
    }
}
