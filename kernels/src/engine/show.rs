//! What a tap is shown and an edit is handed: a block's output as rows, gathered where the kernels keep it in
//! another order.

use std::ops::Range;

use super::cache::keys_at;
use super::edit::Edit;
use super::pass::{Pass, Plane};
use super::tap::{BlockOutput, Place, Tap};
use super::team::share;
use super::work::intersect;
use crate::block::Block;
use crate::cpu::attention::PAGE;
use crate::cpu::linear::PANEL;

/// Is the block's output in another order than a tap is shown?
pub(super) fn gathered(block: Block) -> bool {
    matches!(block, Block::Rope { .. } | Block::GateUp { .. })
}

impl Pass<'_> {
    /// Hands thread `t`'s share of a finished block's rows to the tap.
    ///
    /// # Safety
    /// All threads have finished the block, and none overwrites its output while this runs.
    pub unsafe fn show(&self, t: usize, block: Block, tap: Tap<'_>) {
        let wanted = matches!(block, Block::FinalNorm | Block::LmHead);
        let places: &[Place] = if wanted { &self.plan.wanted_places } else { &self.plan.places };
        let own = share(places.len(), t, self.threads);
        if own.is_empty() {
            return;
        }
        let width = block.width(&self.g);
        // SAFETY: rows of working memory and pages, all written before the barrier the caller passed; what is
        // gathered goes to this thread's rows of the tap's memory.
        let plane = unsafe {
            match block {
                Block::Embed | Block::Residual { .. } => self.stream,
                Block::RmsNorm { .. } | Block::FinalNorm => self.normed_of(t, places.len()),
                Block::Qkv { .. } => self.qkv,
                Block::Rope { layer } => self.gather_rope(layer as usize, width, own.clone()),
                Block::Attention { .. } => self.context,
                Block::OProj { .. } | Block::Down { .. } => self.delta,
                Block::GateUp { .. } => self.gather_gate_up(width, own.clone()),
                Block::SwiGlu { .. } => self.hidden,
                Block::LmHead => self.logits,
                Block::Sample => return,
            }
        };
        let floats = (own.len() - 1) * plane.pitch + width;
        // SAFETY: as above; the rows end after the last one's `width` floats.
        let data = unsafe { std::slice::from_raw_parts(plane.at.add(own.start * plane.pitch), floats) };
        (tap.see)(BlockOutput { block, places: &places[own], data, pitch: plane.pitch, width });
    }

    /// Hands thread `t`'s share of a finished block's rows to the edit.
    ///
    /// # Safety
    /// All threads have finished the block, and none reads its output before the next barrier.
    pub unsafe fn edit(&self, t: usize, block: Block, edit: Edit<'_>) {
        let plane = match block {
            Block::Embed | Block::Residual { .. } => self.stream,
            Block::Attention { .. } => self.context,
            Block::SwiGlu { .. } => self.hidden,
            _ => return,
        };
        for r in share(self.rows, t, self.threads) {
            // SAFETY: rows are shared out, and nobody else touches them now.
            let row = unsafe { plane.row_mut(r, 0..block.width(&self.g)) };
            (edit.change)(block, self.plan.places[r], row);
        }
    }

    /// Floats of the tap's memory per row.
    pub fn tapped_pitch(&self) -> usize {
        let rope = (self.g.heads + self.g.kv_heads) * self.g.head_dim;
        rope.max(2 * self.g.ffn)
    }

    /// Rotated queries in head order, then rotated keys, as rows.
    unsafe fn gather_rope(&self, layer: usize, width: usize, own: Range<usize>) -> Plane {
        let g = &self.g;
        let (dim, group) = (g.head_dim, g.heads / g.kv_heads);
        let out = Plane { at: self.tapped.pointer(), pitch: self.tapped_pitch() };
        for segment in &self.plan.segments {
            for i in intersect(own.clone(), segment.row, segment.rows) {
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
    unsafe fn gather_gate_up(&self, width: usize, own: Range<usize>) -> Plane {
        let out = Plane { at: self.tapped.pointer(), pitch: self.tapped_pitch() };
        let ffn = self.g.ffn;
        for r in own {
            // SAFETY: inside the product's row and the tap's memory.
            unsafe {
                let from = self.gate_up.row(r, 0..2 * ffn.next_multiple_of(PANEL));
                let to = out.row_mut(r, 0..width);
                let (gate, up) = to.split_at_mut(ffn);
                let panels = gate.chunks_mut(PANEL).zip(up.chunks_mut(PANEL));
                for ((gate, up), from) in panels.zip(from.chunks_exact(2 * PANEL)) {
                    gate.copy_from_slice(&from[..gate.len()]);
                    up.copy_from_slice(&from[PANEL..PANEL + up.len()]);
                }
            }
        }
        out
    }
}
