//! What an observer of a forward pass sees: the output rows of the blocks it wants, after each is done.

use crate::block::Block;

/// The position a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Index of the slice in the batch.
    pub sequence: usize,
    /// Position of the token in its sequence, from 0.
    pub position: usize,
}

/// An observer. It can change nothing, and must not call the engine it observes.
#[derive(Clone, Copy)]
pub struct Tap<'t> {
    /// Which blocks it is to be shown; no other costs anything.
    pub wants: &'t (dyn Fn(Block) -> bool + Sync),
    /// Called on every thread of the engine, each with its own share of a block's rows; together they are shown
    /// each row once. One thread sees the blocks in the schedule's order; two may be some blocks apart.
    pub see: &'t (dyn Fn(BlockOutput<'_>) + Sync),
}

/// Some rows of one block's output. A long batch is computed in several passes: an observer sees each block in
/// every pass, with other rows. `final_norm` and `lm_head` give only the rows wanted.
#[derive(Clone, Copy)]
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

    /// [`BlockOutput::rows`] as bytes, each float little-endian: as they lie in memory, since no packed model
    /// opens on a machine of the other kind.
    pub fn bytes(&self) -> impl ExactSizeIterator<Item = (Place, &'a [u8])> + use<'a> {
        self.rows().map(|(place, row)| {
            // SAFETY: the same memory; bytes have no alignment and no invalid value.
            (place, unsafe { std::slice::from_raw_parts(row.as_ptr().cast::<u8>(), size_of_val(row)) })
        })
    }
}
