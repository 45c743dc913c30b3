//! A recipe compiled: a frozen DAG of steps. TOML order never matters. Knows no cache and no device.

mod canonical;
mod compile;
pub(crate) mod order;
mod picture;
mod resolve;
mod revive;
mod shard;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

pub use crate::recipe::op::{self, Op};
pub use canonical::{Canonical, CanonicalFile, CanonicalOp, CanonicalStep, Input};
pub use compile::compile;
pub use revive::ReviveError;
pub use shard::Shard;

/// A node: a name and what it asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub name: String,
    pub op: Op,
}

/// An edge, from the producer to the consumer: which port it feeds, and with which of the producer's outputs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub port: String,
    /// None takes all outputs of the producer.
    pub output: Option<String>,
}

/// The frozen graph. Nodes are numbered by name; `order` is a topological order that depends on names only.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub name: String,
    pub graph: DiGraph<Step, Link>,
    pub order: Vec<NodeIndex>,
}

impl Pipeline {
    /// The step of this name.
    pub fn find(&self, name: &str) -> Option<NodeIndex> {
        let (mut low, mut high) = (0, self.graph.node_count());
        while low < high {
            let middle = low.midpoint(high);
            match self.graph[NodeIndex::new(middle)].name.as_str().cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(NodeIndex::new(middle)),
            }
        }
        None
    }

    /// What feeds a step, sorted by port, then by the producer's name.
    pub fn inputs(&self, node: NodeIndex) -> Vec<(&Link, NodeIndex)> {
        let edges = self.graph.edges_directed(node, Direction::Incoming);
        let mut inputs: Vec<(&Link, NodeIndex)> = edges.map(|edge| (edge.weight(), edge.source())).collect();
        inputs.sort_by(|a, b| (&a.0.port, a.1, &a.0.output).cmp(&(&b.0.port, b.1, &b.0.output)));
        inputs
    }
}
