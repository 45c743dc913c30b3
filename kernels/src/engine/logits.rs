//! The logits a forward pass leaves: rows of vocab floats, in the batch's order.

use super::{Slice, Want};
use crate::buffer::Buffer;
use crate::cpu::linear::PANEL;
use crate::error::ComputeError;
use crate::geometry::Geometry;

/// Rows of logits; the memory is reused from call to call.
pub struct Logits {
    vocab: usize,
    rows: usize,
    /// Rows computed so far by the passes of one call.
    pub(super) filled: usize,
    buffer: Buffer,
}

impl Default for Logits {
    fn default() -> Self {
        Self { vocab: 0, rows: 0, filled: 0, buffer: Buffer::empty() }
    }
}

impl Logits {
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of rows: one per slice that wanted its last token's, one per token where all were wanted.
    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The logits of row `i`, one per token of the vocabulary.
    ///
    /// # Panics
    /// When there is no row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        let start = i * self.pitch();
        &self.buffer.as_slice()[start..start + self.vocab]
    }

    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        (0..self.rows).map(|i| self.row(i))
    }

    /// Floats from one row to the next. An odd number of lines: rows a power of two apart would share cache sets.
    pub(super) fn pitch(&self) -> usize {
        (self.vocab.div_ceil(PANEL) | 1) * PANEL
    }

    pub(super) fn prepare(&mut self, g: &Geometry, batch: &[Slice<'_>]) -> Result<(), ComputeError> {
        let wanted = |s: &Slice<'_>| match s.want {
            Want::None => 0,
            Want::Last => usize::from(!s.tokens.is_empty()),
            Want::All => s.tokens.len(),
        };
        let rows: usize = batch.iter().map(wanted).sum();
        (self.vocab, self.rows, self.filled) = (g.vocab, 0, 0);
        self.buffer.ensure(rows * self.pitch())?;
        Ok(())
    }

    /// All passes are done; until here there are no rows, should one fail.
    pub(super) fn finish(&mut self) {
        self.rows = self.filled;
    }

    /// Where the next pass's rows go.
    pub(super) fn next(&self) -> *mut f32 {
        // SAFETY: `filled` rows lie within the buffer.
        unsafe { self.buffer.pointer().add(self.filled * self.pitch()) }
    }
}
