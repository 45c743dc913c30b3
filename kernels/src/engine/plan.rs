//! Which rows a pass computes: whose tokens, at which positions, which logits. Plain data, reused.

use super::tap::Place;
use super::{Slice, Want};
use crate::error::ComputeError;
use crate::geometry::Geometry;

/// Consecutive rows of one sequence.
pub(super) struct Segment {
    /// First row of the pass.
    pub row: usize,
    pub rows: usize,
    /// Position of the first row's token.
    pub position: usize,
    /// Its pages, in `Plan::pages`.
    pub pages: std::ops::Range<usize>,
}

/// One pass over at most a certain number of rows.
#[derive(Default)]
pub(super) struct Plan {
    pub tokens: Vec<u32>,
    pub places: Vec<Place>,
    pub segments: Vec<Segment>,
    pub pages: Vec<*mut f32>,
    /// Rows whose logits are wanted, and their places.
    pub wanted: Vec<usize>,
    pub wanted_places: Vec<Place>,
    /// Query heads that one item of attention takes at once: a whole group, or one where items are scarce.
    item_heads: usize,
    /// Query positions of an item.
    item_positions: usize,
    /// For each segment, how many items end with it.
    item_ends: Vec<usize>,
    /// Most query rows (positions × heads) of an item.
    pub item_rows: usize,
}

/// A piece of attention: some positions of one segment for heads that share keys and values.
pub(super) struct Item<'a> {
    pub segment: &'a Segment,
    pub kv_head: usize,
    /// First head, counted within the group.
    pub first_head: usize,
    pub heads: usize,
    /// First position, counted within the segment.
    pub start: usize,
    pub positions: usize,
}

/// Query rows an item aims at: full register tiles for groups of one, two, three, four and six heads.
const ITEM_ROWS: usize = 24;

// SAFETY: the page pointers belong to caches that the batch borrows for as long as a pass uses them.
unsafe impl Send for Plan {}
// SAFETY: as above; threads of a pass write disjoint parts of the pages.
unsafe impl Sync for Plan {}

/// Refuses a batch that cannot be computed, before anything is changed.
pub(super) fn check(g: &Geometry, batch: &[Slice<'_>]) -> Result<(), ComputeError> {
    for (sequence, slice) in batch.iter().enumerate() {
        if !slice.cache.fits(g) {
            return Err(ComputeError::OtherGeometry { sequence });
        }
        let length = slice.cache.len() + slice.tokens.len();
        if length > g.context {
            return Err(ComputeError::Context { sequence, length, context: g.context });
        }
        if let Some(i) = slice.tokens.iter().position(|&t| t as usize >= g.vocab) {
            let (position, token) = (slice.cache.len() + i, slice.tokens[i]);
            return Err(ComputeError::Token { sequence, position, token, vocab: g.vocab });
        }
    }
    Ok(())
}

impl Plan {
    /// Takes up to `most` rows from the batch, from token `offset` of slice `slice` on, and moves both forward.
    /// False when nothing is left.
    pub fn fill(&mut self, batch: &[Slice<'_>], slice: &mut usize, offset: &mut usize, most: usize) -> bool {
        self.tokens.clear();
        self.places.clear();
        self.segments.clear();
        self.pages.clear();
        self.wanted.clear();
        self.wanted_places.clear();
        while *slice < batch.len() && self.tokens.len() < most {
            let s = &batch[*slice];
            let take = (s.tokens.len() - *offset).min(most - self.tokens.len());
            if take > 0 {
                let row = self.tokens.len();
                let position = s.cache.len() + *offset;
                let first_page = self.pages.len();
                self.pages.extend(s.cache.pages());
                let pages = first_page..self.pages.len();
                self.segments.push(Segment { row, rows: take, position, pages });
                for i in 0..take {
                    let place = Place { sequence: *slice, position: position + i };
                    let last = *offset + i + 1 == s.tokens.len();
                    if s.want == Want::All || (s.want == Want::Last && last) {
                        self.wanted.push(row + i);
                        self.wanted_places.push(place);
                    }
                    self.places.push(place);
                }
                self.tokens.extend_from_slice(&s.tokens[*offset..*offset + take]);
                *offset += take;
            }
            if *offset == s.tokens.len() {
                *slice += 1;
                *offset = 0;
            }
        }
        !self.tokens.is_empty()
    }

    /// Cuts the attention of this pass into items for `threads` threads.
    pub fn cut(&mut self, g: &Geometry, threads: usize) {
        let group = g.heads / g.kv_heads;
        self.item_heads = group;
        self.count(g);
        if threads > 1 && self.items() < 2 * threads {
            self.item_heads = 1;
            self.count(g);
        }
    }

    fn count(&mut self, g: &Geometry) {
        self.item_positions = (ITEM_ROWS / self.item_heads).max(1);
        self.item_rows = self.item_positions * self.item_heads;
        self.item_ends.clear();
        let mut end = 0;
        for s in &self.segments {
            end += s.rows.div_ceil(self.item_positions) * (g.heads / self.item_heads);
            self.item_ends.push(end);
        }
    }

    /// Number of items.
    pub fn items(&self) -> usize {
        self.item_ends.last().copied().unwrap_or(0)
    }

    /// Item `i`, the longest of a segment first; None after the last.
    pub fn item(&self, i: usize, g: &Geometry) -> Option<Item<'_>> {
        let s = self.item_ends.partition_point(|&end| end <= i);
        let segment = self.segments.get(s)?;
        let i = i - if s == 0 { 0 } else { self.item_ends[s - 1] };
        let parts = g.heads / self.item_heads;
        let (block, part) = (segment.rows.div_ceil(self.item_positions) - 1 - i / parts, i % parts);
        let start = block * self.item_positions;
        let head = part * self.item_heads;
        let group = g.heads / g.kv_heads;
        Some(Item {
            segment,
            kv_head: head / group,
            first_head: head % group,
            heads: self.item_heads,
            start,
            positions: self.item_positions.min(segment.rows - start),
        })
    }
}
