//! Changing a block's output on its way: what an ablation does. The only door by which a caller changes bits.

use crate::block::Block;
use crate::engine::Place;

/// An intervention: rows of some blocks are changed after they are computed, before any other block reads them.
///
/// Only the blocks of [`Edit::allows`] can be changed: the embedding, the heads' contexts, the hidden layer of the
/// feed-forward network and the residual stream. A tap sees the rows as they are afterwards. Where nothing is
/// changed the bits are those of a pass without an edit.
#[derive(Clone, Copy)]
pub struct Edit<'e> {
    /// Which blocks it is to be handed; no other costs anything.
    pub wants: &'e (dyn Fn(Block) -> bool + Sync),
    /// Called on every thread of the engine for each row of such a block, each row once: [`Block::width`] floats.
    pub change: &'e (dyn Fn(Block, Place, &mut [f32]) + Sync),
}

impl Edit<'_> {
    /// Can the output of this block be changed? The others are finished piece by piece together with the block
    /// that reads them.
    pub fn allows(block: Block) -> bool {
        matches!(
            block,
            Block::Embed | Block::Attention { .. } | Block::SwiGlu { .. } | Block::Residual { .. }
        )
    }
}
