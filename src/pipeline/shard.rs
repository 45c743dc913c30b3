//! A part of a pipeline for one of several machines: which steps fall to it depends on names and edges only.

use std::fmt;
use std::str::FromStr;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::Pipeline;

/// The `index`-th of `count` parts, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, count)) if index >= 1 && index <= count => Ok(Shard { index, count }),
            _ => Err("expected I/N with I from 1 to N, such as 2/3".into()),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl Shard {
    /// This part: what falls to it, what that needs, and what needs nothing else.
    ///
    /// Where the pipeline is widest, its steps are dealt out in the order of their names, and so are the ends of
    /// branches that do not pass there. A step behind them that needs several parts belongs to none: it is left to
    /// the run that joins them.
    pub fn of(self, pipeline: &Pipeline) -> Pipeline {
        let mine = self.dealt(pipeline);
        let mut kept = vec![false; pipeline.graph.node_count()];
        for node in mine {
            keep_with_needs(pipeline, node, &mut kept);
        }
        // In order, so that what a step needs is decided before it.
        let dealt_out = behind_the_widest(pipeline);
        for &node in &pipeline.order {
            let mut needs = pipeline.graph.neighbors_directed(node, Direction::Incoming).peekable();
            let follows = dealt_out[node.index()] && needs.peek().is_some();
            kept[node.index()] |= follows && needs.all(|need| kept[need.index()]);
        }
        part(pipeline, &kept)
    }

    fn dealt(self, pipeline: &Pipeline) -> Vec<NodeIndex> {
        let level = widest(pipeline);
        let mut related = vec![false; pipeline.graph.node_count()];
        for &node in &level {
            keep_with_needs(pipeline, node, &mut related);
        }
        let behind = behind_the_widest(pipeline);
        let is_end = |node: &NodeIndex| pipeline.graph.neighbors(*node).next().is_none();
        // Nodes are numbered by name.
        let ends = pipeline.graph.node_indices().filter(is_end);
        let ends = ends.filter(|node| !related[node.index()] && !behind[node.index()]);
        let all = level.iter().copied().chain(ends);
        all.enumerate().filter(|(at, _)| at % self.count + 1 == self.index).map(|(_, node)| node).collect()
    }
}

/// Steps by how many stand before them at most; the level with the most, the last of equals.
fn widest(pipeline: &Pipeline) -> Vec<NodeIndex> {
    let mut depth = vec![0; pipeline.graph.node_count()];
    for &node in &pipeline.order {
        let needs = pipeline.graph.neighbors_directed(node, Direction::Incoming);
        depth[node.index()] = needs.map(|need| depth[need.index()] + 1).max().unwrap_or(0);
    }
    let mut levels: Vec<Vec<NodeIndex>> = vec![Vec::new(); depth.iter().max().map_or(0, |d| d + 1)];
    pipeline.graph.node_indices().for_each(|node| levels[depth[node.index()]].push(node));
    levels.into_iter().max_by_key(Vec::len).unwrap_or_default()
}

/// Does a step need, however far back, one of the widest level?
fn behind_the_widest(pipeline: &Pipeline) -> Vec<bool> {
    let mut at_or_behind = vec![false; pipeline.graph.node_count()];
    let level = widest(pipeline);
    level.iter().for_each(|node| at_or_behind[node.index()] = true);
    for &node in &pipeline.order {
        let mut needs = pipeline.graph.neighbors_directed(node, Direction::Incoming);
        at_or_behind[node.index()] |= needs.any(|need| at_or_behind[need.index()]);
    }
    level.iter().for_each(|node| at_or_behind[node.index()] = false);
    at_or_behind
}

fn keep_with_needs(pipeline: &Pipeline, node: NodeIndex, kept: &mut [bool]) {
    let mut waiting = vec![node];
    while let Some(node) = waiting.pop() {
        if !std::mem::replace(&mut kept[node.index()], true) {
            waiting.extend(pipeline.graph.neighbors_directed(node, Direction::Incoming));
        }
    }
}

/// The kept steps as a pipeline of their own. Whoever is kept has all it needs.
fn part(pipeline: &Pipeline, kept: &[bool]) -> Pipeline {
    let mut graph = DiGraph::new();
    let mut number = vec![None; kept.len()];
    for node in pipeline.graph.node_indices().filter(|node| kept[node.index()]) {
        number[node.index()] = Some(graph.add_node(pipeline.graph[node].clone()));
    }
    for edge in pipeline.graph.edge_references() {
        let ends = (number[edge.source().index()], number[edge.target().index()]);
        if let (Some(source), Some(target)) = ends {
            graph.add_edge(source, target, edge.weight().clone());
        }
    }
    let order = pipeline.order.iter().filter_map(|node| number[node.index()]).collect();
    Pipeline { name: pipeline.name.clone(), graph, order }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Link, Step, op::LocalFile, op::Op, order};

    /// Steps by one letter, edges as pairs of letters.
    fn pipeline(names: &str, edges: &[&str]) -> Pipeline {
        let mut graph = DiGraph::new();
        let op = || Op::File(LocalFile { path: "x".into() });
        let names: Vec<char> = names.chars().collect();
        for name in &names {
            graph.add_node(Step { name: name.to_string(), op: op() });
        }
        let at = |name| names.iter().position(|n| *n == name).unwrap();
        let ends = |edge: &&str| (at(edge.chars().next().unwrap()), at(edge.chars().last().unwrap()));
        let edges: Vec<_> = edges.iter().map(ends).collect();
        for (from, to) in &edges {
            let link = Link { port: "x".into(), output: None };
            graph.add_edge(NodeIndex::new(*from), NodeIndex::new(*to), link);
        }
        let order = order::order(names.len(), &edges).into_iter().map(NodeIndex::new).collect();
        Pipeline { name: "p".into(), graph, order }
    }

    fn shards(pipeline: &Pipeline, count: usize) -> Vec<String> {
        let part = |index| {
            let part = Shard { index, count }.of(pipeline);
            part.order.iter().map(|node| part.graph[*node].name.as_str()).collect()
        };
        (1..=count).map(part).collect()
    }

    #[test]
    fn the_widest_level_is_dealt_out() {
        // a feeds b, c, d; those feed e, f, g; h needs all of these; i needs e alone; x and y stand apart.
        let edges = ["ab", "ac", "ad", "be", "cf", "dg", "eh", "fh", "gh", "ei"];
        let p = pipeline("abcdefghixy", &[&edges[..], &["xy"]].concat());
        // Depth 1 has b, c, d, y; depth 2 has e, f, g, h's needs, i at 3: the widest is depth 1.
        assert_eq!(shards(&p, 1), ["abcdefghixy"]);
        assert_eq!(shards(&p, 2), ["abdegi", "acfxy"]);
        assert_eq!(shards(&p, 4), ["abei", "acf", "adg", "xy"]);
        // More parts than steps to deal: some have nothing.
        assert_eq!(shards(&p, 6)[4..], ["", ""]);
    }

    #[test]
    fn every_step_that_needs_one_part_is_in_one() {
        let p = pipeline("abcdez", &["ab", "ac", "bd", "cd", "de"]);
        // z stands apart; d needs both, so d and e are left to the run that joins.
        assert_eq!(shards(&p, 2), ["abz", "ac"]);
        // A chain cannot be divided.
        let chain = pipeline("abc", &["ab", "bc"]);
        assert_eq!(shards(&chain, 2), ["abc", ""]);
        assert_eq!(shards(&pipeline("", &[]), 2), ["", ""]);
    }

    #[test]
    fn what_is_no_shard_is_refused() {
        for bad in ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
        assert_eq!("2/3".parse::<Shard>().unwrap().to_string(), "2/3");
    }
}
