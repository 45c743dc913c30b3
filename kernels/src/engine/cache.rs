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

    /// Bytes of a piece: the keys and values of [`PIECE`] positions, as they lie in a page.
    pub fn piece_bytes(geometry: &Geometry) -> usize {
        geometry.layers * geometry.kv_heads * head_floats(geometry) / PAGE * PIECE * 4
    }

    /// The keys and values of positions `start..start + PIECE`, for another cache to go on from. None unless
    /// `start` is a multiple of [`PIECE`] and all of them are held.
    pub fn piece(&self, start: usize) -> Option<Vec<u8>> {
        if !start.is_multiple_of(PIECE) || start + PIECE > self.len {
            return None;
        }
        let mut bytes = Vec::with_capacity(Self::piece_bytes(&self.geometry));
        let page = self.pages[start / PAGE].as_slice();
        for range in piece_ranges(&self.geometry, start % PAGE) {
            bytes.extend(page[range].iter().flat_map(|x| x.to_le_bytes()));
        }
        Some(bytes)
    }

    /// Appends a piece that a cache of the same model and the same tokens gave. False, and nothing changed, when
    /// it has another size or the cache does not end where a piece begins.
    pub fn append(&mut self, piece: &[u8]) -> Result<bool, ComputeError> {
        if !self.len.is_multiple_of(PIECE)
            || piece.len() != Self::piece_bytes(&self.geometry)
            || self.len + PIECE > self.geometry.context
        {
            return Ok(false);
        }
        self.reserve(self.len + PIECE)?;
        let mut words = piece.chunks_exact(4);
        let page = self.pages[self.len / PAGE].as_mut_slice();
        for range in piece_ranges(&self.geometry, self.len % PAGE) {
            for (x, word) in page[range].iter_mut().zip(&mut words) {
                *x = f32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            }
        }
        self.len += PIECE;
        Ok(true)
    }

    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The rotated keys of a head at positions `16·panel` to `16·panel + 15`, `[head_dim][16]`. Lanes of positions
    /// that are not held mean nothing.
    pub(crate) fn keys(&self, layer: usize, head: usize, panel: usize) -> &[f32] {
        let (g, position) = (&self.geometry, panel * PANEL);
        let start = keys_at(g, layer, head) + position % PAGE * g.head_dim;
        &self.pages[position / PAGE].as_slice()[start..start + PANEL * g.head_dim]
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

/// Positions of a piece of a cache.
pub const PIECE: usize = 64;

/// Where in a page the floats of a piece that begins at `slot` lie: for each layer and head its keys, then its
/// values panel by panel.
fn piece_ranges(g: &Geometry, slot: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let g = *g;
    let heads = (0..g.layers).flat_map(move |layer| (0..g.kv_heads).map(move |head| (layer, head)));
    heads.flat_map(move |(layer, head)| {
        let keys = keys_at(&g, layer, head) + slot * g.head_dim;
        let panels = (0..g.head_dim.div_ceil(PANEL)).map(move |d| {
            let values = values_at(&g, layer, head) + (d * PAGE + slot) * PANEL;
            values..values + PIECE * PANEL
        });
        std::iter::once(keys..keys + PIECE * g.head_dim).chain(panels)
    })
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
