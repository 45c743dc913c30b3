//! What an observer of a forward pass sees: the output rows of each block, after it is done.

use crate::block::Block;

/// The position a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the slice in the batch.
    pub sequence: usize,
    /// Position of the token in its sequence, from 0.
    pub position: usize,
}

/// The output of one block for the rows of one pass. A long batch is computed in several passes: an observer
/// sees each block once per pass, with other rows. `final_norm` and `lm_head` give only the rows wanted.
pub struct BlockOutput<'a> {
    pub block: Block,
    pub(crate) places: &'a [Place],
    pub(crate) data: &'a [f32],
    pub(crate) pitch: usize,
    pub(crate) width: usize,
}

impl<'a> BlockOutput<'a> {
    /// Elements per row, [`Block::width`].
    pub fn width(&self) -> usize {
        self.width
    }

    /// Each row with its place, slice by slice in order of position.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (Place, &'a [f32])> + use<'a> {
        let (data, pitch, width) = (self.data, self.pitch, self.width);
        let row = move |(i, &place): (usize, &Place)| (place, &data[i * pitch..i * pitch + width]);
        self.places.iter().enumerate().map(row)
    }
}

/// An observer, called after each block on one thread while the others wait. It can change nothing.
pub type Tap<'t> = dyn FnMut(BlockOutput<'_>) + Send + 't;
