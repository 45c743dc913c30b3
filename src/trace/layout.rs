//! Which blocks a trace covers and which of their rows it keeps, by its level and the model's shape.

use pipe_kernels::{Block, BlockGraph, Geometry, Half};

use crate::recipe::op::TraceLevel;

/// The blocks a trace covers, in the schedule's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    pub level: TraceLevel,
    pub blocks: Vec<Block>,
    /// Elements of each block's row.
    widths: Vec<usize>,
    /// Which of `blocks` are kept.
    kept: Vec<usize>,
    /// How many of `blocks` stand before the first layer's, and how many each layer has.
    before: usize,
    of_layer: usize,
}

impl Layout {
    pub fn new(level: TraceLevel, geometry: &Geometry) -> Self {
        let graph = BlockGraph::new(geometry);
        let blocks: Vec<Block> = graph.schedule().iter().copied().filter(|&b| covers(level, b)).collect();
        Layout {
            level,
            widths: blocks.iter().map(|block| block.width(geometry)).collect(),
            kept: (0..blocks.len()).filter(|&slot| keeps(level, blocks[slot])).collect(),
            before: blocks.iter().take_while(|block| block.layer().is_none()).count(),
            of_layer: blocks.iter().filter(|block| block.layer() == Some(0)).count(),
            blocks,
        }
    }

    /// Where the block stands in `blocks`. Asked for every block of every pass.
    pub fn slot(&self, block: Block) -> Option<usize> {
        let (start, count) = match block.layer() {
            Some(layer) => (self.before + layer as usize * self.of_layer, self.of_layer),
            None => (0, self.before),
        };
        let blocks = self.blocks.get(start..start + count)?;
        Some(start + blocks.iter().position(|&b| b == block)?)
    }

    /// The blocks whose rows are kept, each with its slot and its elements per row.
    pub fn kept(&self) -> impl ExactSizeIterator<Item = (usize, Block, usize)> {
        self.kept.iter().map(|&slot| (slot, self.blocks[slot], self.widths[slot]))
    }

    /// Elements of a row of the block at `slot`.
    pub fn width(&self, slot: usize) -> usize {
        self.widths[slot]
    }

    /// Bytes kept of each position.
    pub fn kept_bytes(&self) -> usize {
        self.kept().map(|(_, _, width)| width * 4).sum()
    }
}

/// The residual stream: what enters the first layer, and what each layer leaves.
fn is_stream(block: Block) -> bool {
    matches!(block, Block::Embed | Block::Residual { half: Half::Ffn, .. })
}

/// Is the block's output hashed? `final_norm` and `lm_head` never are: they exist only where logits are wanted.
fn covers(level: TraceLevel, block: Block) -> bool {
    match level {
        TraceLevel::Digests => is_stream(block),
        _ => !matches!(block, Block::FinalNorm | Block::LmHead | Block::Sample),
    }
}

/// Are the rows themselves kept?
pub(super) fn keeps(level: TraceLevel, block: Block) -> bool {
    match level {
        TraceLevel::Digests | TraceLevel::Blocks => false,
        TraceLevel::Layers => is_stream(block),
        TraceLevel::Full => covers(level, block),
    }
}
