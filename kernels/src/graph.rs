//! The block graph of a model, made from its geometry alone, and the order in which an executor walks it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::block::{Block, Half};
use crate::geometry::Geometry;

/// One node per block per layer; an edge says that a block reads what another gives out.
#[derive(Clone, Debug)]
pub struct BlockGraph {
    graph: DiGraph<Block, ()>,
    schedule: Vec<Block>,
}

impl BlockGraph {
    /// The graph of a model with `geometry.layers` layers.
    pub fn new(geometry: &Geometry) -> Self {
        let mut graph = DiGraph::new();
        let mut stream = graph.add_node(Block::Embed);
        for layer in 0..geometry.layers as u32 {
            for half in [Half::Attention, Half::Ffn] {
                let blocks: &[Block] = match half {
                    Half::Attention => &[
                        Block::Qkv { layer },
                        Block::Rope { layer },
                        Block::Attention { layer },
                        Block::OProj { layer },
                    ],
                    Half::Ffn => &[Block::GateUp { layer }, Block::SwiGlu { layer }, Block::Down { layer }],
                };
                let mut last = after(&mut graph, Block::RmsNorm { layer, half }, &[stream]);
                let mut qkv = None;
                for &block in blocks {
                    let mut inputs = vec![last];
                    // Attention takes v, which is not rotated, straight from the projection.
                    if let (Block::Attention { .. }, Some(qkv)) = (block, qkv) {
                        inputs.push(qkv);
                    }
                    last = after(&mut graph, block, &inputs);
                    if let Block::Qkv { .. } = block {
                        qkv = Some(last);
                    }
                }
                stream = after(&mut graph, Block::Residual { layer, half }, &[stream, last]);
            }
        }
        let norm = after(&mut graph, Block::FinalNorm, &[stream]);
        let head = after(&mut graph, Block::LmHead, &[norm]);
        after(&mut graph, Block::Sample, &[head]);
        let schedule = topological(&graph).into_iter().map(|n| graph[n]).collect();
        Self { graph, schedule }
    }

    pub fn graph(&self) -> &DiGraph<Block, ()> {
        &self.graph
    }

    /// Every block once, each after those it reads; of several that could come next, the one added first.
    pub fn schedule(&self) -> &[Block] {
        &self.schedule
    }
}

fn after(graph: &mut DiGraph<Block, ()>, block: Block, inputs: &[NodeIndex]) -> NodeIndex {
    let node = graph.add_node(block);
    for &input in inputs {
        graph.add_edge(input, node, ());
    }
    node
}

/// Kahn's algorithm with the lowest node index first, so that the order is a function of the graph.
fn topological(graph: &DiGraph<Block, ()>) -> Vec<NodeIndex> {
    let inputs = |n| graph.neighbors_directed(n, Direction::Incoming).count();
    let mut waits: Vec<usize> = graph.node_indices().map(inputs).collect();
    let mut ready: BinaryHeap<_> =
        graph.node_indices().filter(|n| waits[n.index()] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(graph.node_count());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for next in graph.neighbors(node) {
            waits[next.index()] -= 1;
            if waits[next.index()] == 0 {
                ready.push(Reverse(next));
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_stands_after_its_inputs_and_once() {
        let g = Geometry {
            layers: 3,
            width: 8,
            heads: 2,
            kv_heads: 1,
            head_dim: 4,
            ffn: 8,
            vocab: 10,
            context: 16,
            rope_base: 1e4,
            norm_eps: 1e-5,
            tied: true,
        };
        let graph = BlockGraph::new(&g);
        let place = |b: Block| graph.schedule().iter().position(|&s| s == b);
        assert_eq!(graph.schedule().len(), 3 * 11 + 4);
        for edge in graph.graph().edge_indices() {
            let (from, to) = graph.graph().edge_endpoints(edge).unwrap();
            assert!(place(graph.graph()[from]) < place(graph.graph()[to]));
        }
        // The order is the one data flows in.
        assert_eq!(&graph.schedule()[12..23], &Block::of_layer(1));
        assert_eq!(graph.schedule().last(), Some(&Block::Sample));
    }

    #[test]
    fn a_name_gives_its_block_back() {
        for layer in [0, 7, 29, 100] {
            for block in Block::of_layer(layer) {
                assert_eq!(block.to_string().parse(), Ok(block));
            }
        }
        assert_eq!(Block::Attention { layer: 5 }.to_string(), "layer.05/attention");
        for bad in ["", "layer.5/attention", "layer.05/embed", "layer.x/qkv", "rms_norm", "layer./qkv"] {
            assert!(bad.parse::<Block>().is_err(), "{bad}");
        }
    }
}
