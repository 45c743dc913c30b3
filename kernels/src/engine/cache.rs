//! Keys and values of one sequence, in pages of 256 positions laid out as panels. Grows page by page; nothing
//! is ever moved. Knows no token.

use crate::buffer::Buffer;
use crate::cpu::attention::PAGE;
use crate::cpu::linear::PANEL;
use crate::error::ComputeError;
use crate::geometry::Geometry;

/// What a sequence's tokens so far left behind for those to come.
///
/// Per page, layer and key/value head: keys as panels over positions `[pos/16][head_dim][16]`, values as panels
/// over the head's elements `[d/16][pos][16]`, both what the product kernel reads. f32.
pub struct KvCache {
    geometry: Geometry,
    pages: Vec<Buffer>,
    len: usize,
}

impl KvCache {
    /// An empty cache for models of this geometry.
    pub fn new(geometry: &Geometry) -> Self {
        Self { geometry: *geometry, pages: Vec::new(), len: 0 }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all but the first `len` tokens; the memory stays.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Bytes of address space held; what is not yet written costs no memory.
    pub fn bytes(&self) -> usize {
        self.pages.len() * page_floats(&self.geometry) * 4
    }

    pub(crate) fn fits(&self, geometry: &Geometry) -> bool {
        self.geometry == *geometry
    }

    /// Pages for `len` tokens.
    pub(crate) fn reserve(&mut self, len: usize) -> Result<(), ComputeError> {
        while self.pages.len() * PAGE < len {
            self.pages.push(Buffer::zeroed(page_floats(&self.geometry))?);
        }
        Ok(())
    }

    pub(crate) fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    pub(crate) fn pages(&self) -> impl Iterator<Item = *mut f32> {
        self.pages.iter().map(Buffer::pointer)
    }
}

/// Floats of one page.
fn page_floats(g: &Geometry) -> usize {
    g.layers * g.kv_heads * head_floats(g)
}

/// Floats of one head's keys and values in a page.
fn head_floats(g: &Geometry) -> usize {
    PAGE * (g.head_dim + g.head_dim.next_multiple_of(PANEL))
}

/// Where in a page the keys of a layer's head begin.
pub(crate) fn keys_at(g: &Geometry, layer: usize, head: usize) -> usize {
    (layer * g.kv_heads + head) * head_floats(g)
}

/// Where in a page the values of a layer's head begin.
pub(crate) fn values_at(g: &Geometry, layer: usize, head: usize) -> usize {
    keys_at(g, layer, head) + PAGE * g.head_dim
}
