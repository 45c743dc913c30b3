//! What each thread does for each block of a pass. Shares are of outputs, never of a sum.

use std::ops::Range;
use std::sync::PoisonError;

use super::cache::{keys_at, values_at};
use super::pass::{Fault, Pass, Plane, REDUNDANT};
use super::plan::Item;
use super::team::share;
use crate::block::{Block, Half};
use crate::cpu::attention::{Attend, PAGE};
use crate::cpu::dot::Dot;
use crate::cpu::linear::{Linear, PANEL};
use crate::cpu::quants::Quants;
use crate::matrix::Matrix;
use crate::pack::PackedLayer;
use crate::spec::Activations;

impl<'a> Pass<'a> {
    /// This thread's share of a block.
    ///
    /// # Safety
    /// Every thread of the pass computes the same blocks in the same order, with the barriers `sync_after`
    /// asks for.
    pub unsafe fn compute(&self, t: usize, index: usize, block: Block) {
        let layer = |i: u32| -> &PackedLayer<'a> { &self.model.layers[i as usize] };
        let rows = self.rows;
        // SAFETY: the caller's promise.
        unsafe {
            match block {
                Block::Embed => self.embed(t),
                Block::RmsNorm { layer: i, half: Half::Attention } => self.norm(t, layer(i).attn_norm, None),
                Block::RmsNorm { layer: i, half: Half::Ffn } => self.norm(t, layer(i).ffn_norm, None),
                Block::Qkv { layer: i } => {
                    let x = self.normed_of(t, rows);
                    self.linear(t, index, x, rows, layer(i).qkv, self.qkv, |_| ());
                }
                Block::Rope { layer } => self.rope(t, index, layer as usize),
                Block::Attention { layer } => self.attention(t, index, layer as usize),
                Block::OProj { layer: i } => {
                    let add = |columns| self.residual(index + 1, columns);
                    self.quantise_all(t, self.context, layer(i).o_proj.k);
                    self.linear(t, index, self.context, rows, layer(i).o_proj, self.delta, add);
                }
                Block::GateUp { layer: i } => {
                    let x = self.normed_of(t, rows);
                    self.linear(t, index, x, rows, layer(i).gate_up, self.gate_up, |columns| {
                        self.swiglu(columns)
                    });
                }
                Block::Down { layer: i } => {
                    let add = |columns| self.residual(index + 1, columns);
                    self.quantise_all(t, self.hidden, layer(i).down.k);
                    self.linear(t, index, self.hidden, rows, layer(i).down, self.delta, add);
                }
                // Done piece by piece with the product before it, while its output is in the cache.
                Block::SwiGlu { .. } | Block::Residual { .. } => {}
                Block::FinalNorm => self.norm(t, self.model.final_norm, Some(&self.plan.wanted)),
                Block::LmHead => self.lm_head(t, index),
                // Chosen by the caller from the logits.
                Block::Sample => {}
            }
        }
    }

    unsafe fn embed(&self, t: usize) {
        let width = self.g.width;
        for r in share(self.rows, t, self.threads) {
            let token = self.plan.tokens[r] as usize;
            // SAFETY: rows are shared out; the token is below the vocabulary's size.
            let out = unsafe { self.stream.row_mut(r, 0..width) };
            self.model.embed.row(token, out);
        }
    }

    /// Where thread `t` finds `rows` normed rows: its own copy when there are few.
    pub fn normed_of(&self, t: usize, rows: usize) -> Plane {
        let offset = if rows <= REDUNDANT { t * REDUNDANT * self.normed.pitch } else { 0 };
        // SAFETY: the plane has room for REDUNDANT rows per thread.
        Plane { at: unsafe { self.normed.at.add(offset) }, ..self.normed }
    }

    /// Normed rows of the stream: all of them, or the listed ones.
    unsafe fn norm(&self, t: usize, gain: &[f32], only: Option<&[usize]>) {
        let width = self.g.width;
        let rows = only.map_or(self.rows, <[usize]>::len);
        let own = if rows <= REDUNDANT { 0..rows } else { share(rows, t, self.threads) };
        for r in own {
            let from = only.map_or(r, |only| only[r]);
            // SAFETY: rows are shared out, or the copy is this thread's own.
            unsafe {
                let x = self.stream.row(from, 0..width);
                let out = self.normed_of(t, rows).row_mut(r, 0..width);
                (self.kernels.rms_norm)(x, gain, self.g.norm_eps, out);
                self.quantise(t, rows, r, out);
            }
        }
    }

    /// Where thread `t` finds `rows` quantised rows of `k` activations, as [`Pass::normed_of`].
    fn quants_of(&self, t: usize, rows: usize, k: usize) -> Quants {
        let offset = if rows <= REDUNDANT { t * REDUNDANT * self.quants_pitch } else { 0 };
        // SAFETY: as in `normed_of`.
        let at = unsafe { self.quants.add(offset) };
        Quants { at, pitch: self.quants_pitch, blocks: k.div_ceil(crate::matrix::BLOCK) }
    }

    /// Row `r` of the next product's input in the spec's integers, if it has any.
    ///
    /// # Safety
    /// The row is this thread's, in its copy or in the shared one.
    unsafe fn quantise(&self, t: usize, rows: usize, r: usize, x: &[f32]) {
        let bits = self.model.spec.activations();
        if bits != Activations::F32 {
            let all = self.quants_of(t, rows, x.len());
            // SAFETY: the caller's promise; the plane has room for every row of every product.
            unsafe {
                let row = Quants { at: all.slots(r), ..all };
                (self.kernels.quantise)(x, bits, row);
            }
        }
    }

    /// All rows of `x`, `k` wide, in the spec's integers: shared out and awaited, or each thread for itself.
    ///
    /// # Safety
    /// `x` is complete, and no thread still reads the rows quantised before.
    unsafe fn quantise_all(&self, t: usize, x: Plane, k: usize) {
        if self.model.spec.activations() == Activations::F32 {
            return;
        }
        let few = self.rows <= REDUNDANT;
        for r in if few { 0..self.rows } else { share(self.rows, t, self.threads) } {
            // SAFETY: the caller's promise; rows are shared out, or the copy is this thread's own.
            unsafe { self.quantise(t, self.rows, r, x.row(r, 0..k)) };
        }
        if !few {
            self.barrier.wait();
        }
    }

    /// A product, some panels at a time, each followed by `then` for the columns it made: the block that comes
    /// next in the schedule, and finds nothing left to do there.
    #[allow(clippy::too_many_arguments)] // a product is just that: what, by what, to where, and who
    unsafe fn linear(
        &self,
        t: usize,
        index: usize,
        x: Plane,
        rows: usize,
        w: Matrix<'_>,
        out: Plane,
        then: impl Fn(Range<usize>),
    ) {
        let (panels, panel) = (w.panels(), w.panel_bytes());
        let unit = unit(panels, self.threads);
        for item in self.claim(index, t, panels.div_ceil(unit)) {
            let own = item * unit..panels.min((item + 1) * unit);
            // SAFETY: items are taken once; every row of the output has room for whole panels.
            unsafe {
                let first = w.data[own.start * panel..].as_ptr();
                let to = out.at.add(own.start * PANEL);
                match self.model.spec.activations() {
                    Activations::F32 => (self.kernels.linear)(&Linear {
                        x: x.at,
                        x_pitch: x.pitch,
                        rows,
                        w: first,
                        format: w.format,
                        panel,
                        k: w.k,
                        panels: own.len(),
                        out: to,
                        out_pitch: out.pitch,
                    }),
                    bits => (self.kernels.dot)(&Dot {
                        x: self.quants_of(t, rows, w.k),
                        bits,
                        rows,
                        w: first,
                        format: w.format,
                        panel,
                        panels: own.len(),
                        out: to,
                        out_pitch: out.pitch,
                        wide: self.wide.add(t * self.wide_pitch),
                    }),
                }
            }
            then(own.start * PANEL..own.end * PANEL);
        }
    }

    /// Rotates queries and keys of this thread's rows; keys and values go to the pages.
    unsafe fn rope(&self, t: usize, index: usize, layer: usize) {
        let g = &self.g;
        let (dim, group) = (g.head_dim, g.heads / g.kv_heads);
        // SAFETY: rows are shared out, and with them positions of the pages; the key buffer is this thread's.
        unsafe {
            let key = std::slice::from_raw_parts_mut(self.attention.add(t * self.attention_floats), dim);
            for segment in &self.plan.segments {
                let pages = &self.plan.pages[segment.pages.clone()];
                for i in intersect(share(self.rows, t, self.threads), segment.row, segment.rows) {
                    let (r, position) = (segment.row + i, segment.position + i);
                    let table = &self.model.rope[position * dim..(position + 1) * dim];
                    let x = |head: usize| self.qkv.row(r, head * dim..(head + 1) * dim);
                    for head in 0..g.kv_heads {
                        let q = self.q.add((head * self.rows + r) * group * dim);
                        for j in 0..group {
                            let out = std::slice::from_raw_parts_mut(q.add(j * dim), dim);
                            (self.kernels.rope)(x(head * group + j), table, out);
                        }
                        let q = std::slice::from_raw_parts(q, group * dim);
                        self.check(index, r, head * group * dim, q);
                        (self.kernels.rope)(x(g.heads + head), table, key);
                        self.check(index, r, (g.heads + head) * dim, key);
                        let (page, slot) = (pages[position / PAGE], position % PAGE);
                        let keys =
                            page.add(keys_at(g, layer, head) + slot / PANEL * dim * PANEL + slot % PANEL);
                        for (d, &k) in key.iter().enumerate() {
                            *keys.add(d * PANEL) = k;
                        }
                        let values = page.add(values_at(g, layer, head) + slot * PANEL);
                        for (d, v) in x(g.heads + g.kv_heads + head).chunks(PANEL).enumerate() {
                            let out = std::slice::from_raw_parts_mut(values.add(d * PAGE * PANEL), v.len());
                            out.copy_from_slice(v);
                        }
                    }
                }
            }
        }
    }

    unsafe fn attention(&self, t: usize, index: usize, layer: usize) {
        let g = &self.g;
        let (dim, group) = (g.head_dim, g.heads / g.kv_heads);
        let rows = self.plan.item_rows;
        let padded = dim.next_multiple_of(PANEL);
        for item in self.claim(index, t, self.plan.items()) {
            let Some(item) = self.plan.item(item, g) else { return };
            let Item { segment, kv_head, first_head, heads, start, positions } = item;
            let row = segment.row + start;
            // SAFETY: items are disjoint in (row, head); scratch is this thread's; pages cover every position.
            unsafe {
                let scratch = self.attention.add(t * self.attention_floats);
                let sums = scratch.add(rows * self.scores_pitch);
                (self.kernels.attend)(&Attend {
                    q: self.q.add(((kv_head * self.rows + row) * group + first_head) * dim),
                    q_pitch: if heads == group { dim } else { group * dim },
                    positions,
                    heads,
                    first_len: segment.position + start + 1,
                    pages: &self.plan.pages[segment.pages.clone()],
                    keys: keys_at(g, layer, kv_head),
                    values: values_at(g, layer, kv_head),
                    head_dim: dim,
                    scale: 1.0 / (dim as f32).sqrt(),
                    scores: scratch,
                    scores_pitch: self.scores_pitch,
                    sums,
                    totals: sums.add(rows * padded),
                    out: self.context.at.add(row * self.context.pitch + (kv_head * group + first_head) * dim),
                    out_pitch: self.context.pitch,
                });
            }
        }
    }

    /// Adds some columns of the last product to the stream. `index` is the residual block's.
    fn residual(&self, index: usize, columns: Range<usize>) {
        let columns = columns.start..columns.end.min(self.g.width);
        for r in 0..self.rows {
            // SAFETY: the columns were just made by this thread and are given to it alone.
            unsafe {
                let x = self.stream.row_mut(r, columns.clone());
                (self.kernels.add)(x, self.delta.row(r, columns.clone()));
                self.check(index, r, columns.start, x);
            }
        }
    }

    /// Columns of gate_up to half as many of hidden.
    fn swiglu(&self, columns: Range<usize>) {
        for r in 0..self.rows {
            // SAFETY: the columns were just made by this thread and are given to it alone; they are whole pairs
            // of panels.
            unsafe {
                let hidden = self.hidden.row_mut(r, columns.start / 2..columns.end / 2);
                (self.kernels.swiglu)(self.gate_up.row(r, columns.clone()), hidden);
            }
        }
    }

    unsafe fn lm_head(&self, t: usize, index: usize) {
        let rows = self.plan.wanted.len();
        let check = |columns: Range<usize>| {
            let columns = columns.start..columns.end.min(self.g.vocab);
            for r in 0..rows {
                // SAFETY: this thread has just written these columns.
                unsafe { self.check(index, r, columns.start, self.logits.row(r, columns.clone())) };
            }
        };
        if rows > 0 {
            // SAFETY: as the caller promises; the logits have these rows.
            unsafe {
                self.linear(t, index, self.normed_of(t, rows), rows, self.model.lm_head, self.logits, check)
            };
        }
    }

    /// Notes the first value of these that is NaN or infinite. Together the checks after rope, residuals and
    /// lm_head miss nothing: any other block's bad value makes one of these bad.
    unsafe fn check(&self, index: usize, row: usize, first: usize, values: &[f32]) {
        // SAFETY: the pass was given kernels this CPU has.
        if unsafe { (self.kernels.all_finite)(values) } {
            return;
        }
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            let found = Fault { index, row, element: first + i, nan: values[i].is_nan() };
            let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
            *fault = Some(fault.map_or(found, |f| f.min(found)));
        }
    }
}

/// Which of a segment's `rows` rows, from pass row `first` on, lie in `own`; counted within the segment.
pub(super) fn intersect(own: Range<usize>, first: usize, rows: usize) -> Range<usize> {
    let clamp = |r: usize| r.clamp(first, first + rows) - first;
    clamp(own.start)..clamp(own.end)
}

/// Panels per item of a product: all for a thread that is alone, else few, so that one that falls behind, or has
/// something else to do, can be helped. Even, since gate and up come in pairs; best a multiple of six, which every
/// implementation's groups of panels divide.
fn unit(panels: usize, threads: usize) -> usize {
    match panels / (threads * 4) {
        _ if threads == 1 => panels.max(1),
        0..3 => 2,
        3..12 => 6,
        _ => 12,
    }
}
