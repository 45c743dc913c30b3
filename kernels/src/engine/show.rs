//! What a tap is shown: each block's output as rows, gathered where the kernels keep it in another order.

use super::cache::keys_at;
use super::pass::{Pass, Plane};
use super::tap::{BlockOutput, Place, Tap};
use crate::block::Block;
use crate::cpu::attention::PAGE;
use crate::cpu::linear::PANEL;

impl Pass<'_> {
    /// Hands a finished block's output to the tap.
    ///
    /// # Safety
    /// No other thread writes while this runs.
    pub unsafe fn show(&self, block: Block, tap: &mut Tap<'_>) {
        let wanted = matches!(block, Block::FinalNorm | Block::LmHead);
        let places: &[Place] = if wanted { &self.plan.wanted_places } else { &self.plan.places };
        let width = block.width(&self.g);
        // SAFETY: rows of working memory and pages, all written before the barrier the caller passed.
        let plane = unsafe {
            match block {
                Block::Embed | Block::Residual { .. } => self.stream,
                Block::RmsNorm { .. } | Block::FinalNorm => self.normed_of(0, places.len()),
                Block::Qkv { .. } => self.qkv,
                Block::Rope { layer } => self.gather_rope(layer as usize, width),
                Block::Attention { .. } => self.context,
                Block::OProj { .. } | Block::Down { .. } => self.delta,
                Block::GateUp { .. } => self.gather_gate_up(width),
                Block::SwiGlu { .. } => self.hidden,
                Block::LmHead => self.logits,
                Block::Sample => return,
            }
        };
        let floats = places.len().saturating_sub(1) * plane.pitch + width;
        if !places.is_empty() {
            // SAFETY: as above; the rows end after the last one's `width` floats.
            let data = unsafe { std::slice::from_raw_parts(plane.at, floats) };
            tap(BlockOutput { block, places, data, pitch: plane.pitch, width });
        }
    }

    /// Rotated queries in head order, then rotated keys, as rows.
    unsafe fn gather_rope(&self, layer: usize, width: usize) -> Plane {
        let g = &self.g;
        let (dim, group) = (g.head_dim, g.heads / g.kv_heads);
        let out = Plane { at: self.tapped.pointer(), pitch: width };
        for segment in &self.plan.segments {
            for i in 0..segment.rows {
                let (r, position) = (segment.row + i, segment.position + i);
                let page = self.plan.pages[segment.pages.clone()][position / PAGE];
                for head in 0..g.kv_heads {
                    // SAFETY: inside the queries, the page and the tap's memory.
                    unsafe {
                        let q = self.q.add((head * self.rows + r) * group * dim);
                        let to = out.row_mut(r, head * group * dim..(head + 1) * group * dim);
                        to.copy_from_slice(std::slice::from_raw_parts(q, group * dim));
                        let slot = position % PAGE;
                        let keys =
                            page.add(keys_at(g, layer, head) + slot / PANEL * dim * PANEL + slot % PANEL);
                        for d in 0..dim {
                            out.row_mut(r, (g.heads + head) * dim + d..width)[0] = *keys.add(d * PANEL);
                        }
                    }
                }
            }
        }
        out
    }

    /// Gate, then up, as rows.
    unsafe fn gather_gate_up(&self, width: usize) -> Plane {
        let out = Plane { at: self.tapped.pointer(), pitch: width };
        let ffn = self.g.ffn;
        for r in 0..self.rows {
            // SAFETY: inside the product's row and the tap's memory.
            unsafe {
                let from = self.gate_up.row(r, 0..2 * ffn.next_multiple_of(PANEL));
                let to = out.row_mut(r, 0..width);
                for i in 0..ffn {
                    let at = i / PANEL * 2 * PANEL + i % PANEL;
                    to[i] = from[at];
                    to[ffn + i] = from[at + PANEL];
                }
            }
        }
        out
    }
}
