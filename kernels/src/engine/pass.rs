//! One pass: every thread walks the block graph's schedule over the same rows, each doing its share of a block,
//! with a barrier where a block reads what other threads wrote. Shares are of outputs, never of a sum, so the
//! number of threads changes no bit.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::cache::{keys_at, values_at};
use super::plan::{Item, Plan};
use super::tap::{BlockOutput, Place, Tap};
use super::team::{Barrier, Team, share};
use super::{Logits, not_finite};
use crate::block::{Block, Half};
use crate::buffer::Buffer;
use crate::cpu::Kernels;
use crate::cpu::attention::{Attend, PAGE};
use crate::cpu::linear::{Linear, PANEL};
use crate::error::ComputeError;
use crate::geometry::Geometry;
use crate::pack::{PackedLayer, PackedModel, Panels};

/// With at most so many rows every thread computes a norm for itself, which is cheaper than a barrier.
const REDUNDANT: usize = 2;

/// Rows of floats in working memory.
#[derive(Clone, Copy)]
struct Plane {
    at: *mut f32,
    pitch: usize,
}

impl Plane {
    /// Floats `range` of row `r`, to read.
    ///
    /// # Safety
    /// They lie within the plane, and no thread writes them before the next barrier.
    unsafe fn row<'a>(self, r: usize, range: Range<usize>) -> &'a [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.at.add(r * self.pitch + range.start), range.len()) }
    }

    /// Floats `range` of row `r`, to write.
    ///
    /// # Safety
    /// They lie within the plane, and no other thread touches them before the next barrier.
    unsafe fn row_mut<'a>(self, r: usize, range: Range<usize>) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(r * self.pitch + range.start), range.len()) }
    }
}

/// Floats per row for `n` elements: whole panels, an odd number of cache lines, so that rows do not pile up in
/// the same cache sets.
fn pitch(n: usize) -> usize {
    (n.div_ceil(PANEL) | 1) * PANEL
}

/// Working memory, kept between calls.
pub(super) struct Scratch {
    threads: usize,
    shared: Buffer,
    attention: Buffer,
    tapped: Buffer,
}

impl Scratch {
    pub fn new(threads: usize) -> Self {
        Self { threads, shared: Buffer::empty(), attention: Buffer::empty(), tapped: Buffer::empty() }
    }
}

/// A value that no block may give: where it was noticed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fault {
    index: usize,
    row: usize,
    element: usize,
    nan: bool,
}

impl Fault {
    pub fn to_error(self, plan: &Plan, schedule: &[Block]) -> ComputeError {
        let block = schedule[self.index];
        let places = if block == Block::LmHead { &plan.wanted_places } else { &plan.places };
        not_finite(block, places[self.row], self.element, if self.nan { f32::NAN } else { f32::INFINITY })
    }
}

pub(super) struct Pass<'a> {
    model: &'a PackedModel<'a>,
    g: Geometry,
    kernels: &'static Kernels,
    schedule: &'a [Block],
    plan: &'a Plan,
    threads: usize,
    rows: usize,
    /// The residual stream.
    stream: Plane,
    normed: Plane,
    qkv: Plane,
    /// Rotated queries `[kv head][row][head of the group][head_dim]`.
    q: *mut f32,
    context: Plane,
    /// What o_proj and down add to the stream.
    delta: Plane,
    gate_up: Plane,
    hidden: Plane,
    logits: Plane,
    /// Scores, sums and totals of each thread, and a rotated key.
    attention: *mut f32,
    attention_floats: usize,
    scores_pitch: usize,
    tapped: &'a mut Buffer,
    barrier: Barrier,
    cursor: AtomicUsize,
    fault: Mutex<Option<Fault>>,
}

// SAFETY: the pointers are to memory the pass borrows alone; its threads write disjoint parts of it between
// barriers, as each method says.
unsafe impl Sync for Pass<'_> {}

impl<'a> Pass<'a> {
    /// Lays the planes out in working memory. `model` and `plan` have been checked against each other.
    pub fn new(
        model: &'a PackedModel<'a>,
        kernels: &'static Kernels,
        schedule: &'a [Block],
        plan: &'a Plan,
        scratch: &'a mut Scratch,
        logits: &Logits,
    ) -> Result<Self, ComputeError> {
        let g = model.geometry;
        let (rows, threads) = (plan.tokens.len(), scratch.threads);
        let layer = &model.layers[0];
        let heads = g.heads * g.head_dim;
        let mut at = 0;
        let mut plane = |rows: usize, n: usize| {
            let start = at;
            at += rows * pitch(n);
            (start, pitch(n))
        };
        let planes = [
            plane(rows, g.width),
            plane(rows.max(threads * REDUNDANT), g.width),
            plane(rows, layer.qkv.panels() * PANEL),
            plane(rows, heads),
            plane(rows, heads),
            plane(rows, g.width),
            plane(rows, layer.gate_up.panels() * PANEL),
            plane(rows, g.ffn),
        ];
        let base = scratch.shared.ensure(at)?;
        // SAFETY: every start lies within the `at` floats just reserved.
        let [stream, normed, qkv, q, context, delta, gate_up, hidden] =
            planes.map(|(start, pitch)| Plane { at: unsafe { base.add(start) }, pitch });

        let longest = plan.segments.iter().map(|s| s.position + s.rows).max().unwrap_or(0);
        let scores_pitch = pitch(longest);
        let dim = g.head_dim.next_multiple_of(PANEL);
        let attention_floats = plan.item_rows * (scores_pitch + 2 * dim) + dim;
        let attention = scratch.attention.ensure(threads * attention_floats)?;
        Ok(Self {
            model,
            g,
            kernels,
            schedule,
            plan,
            threads,
            rows,
            stream,
            normed,
            qkv,
            q: q.at,
            context,
            delta,
            gate_up,
            hidden,
            logits: Plane { at: logits.next(), pitch: logits.pitch() },
            attention,
            attention_floats,
            scores_pitch,
            tapped: &mut scratch.tapped,
            barrier: Barrier::new(threads),
            cursor: AtomicUsize::new(0),
            fault: Mutex::new(None),
        })
    }

    /// Computes all blocks, and shows each to the tap. Returns the first bad value that was noticed.
    pub fn run(&mut self, team: &Team, tap: Option<&mut Tap<'_>>) -> Result<Option<Fault>, ComputeError> {
        if tap.is_some() {
            let widest = self.g.ffn * 2;
            let rope = (self.g.heads + self.g.kv_heads) * self.g.head_dim;
            self.tapped.ensure(self.rows * widest.max(rope))?;
        }
        let tapped = tap.is_some();
        let tap = Mutex::new(tap);
        let this = &*self;
        team.run(&|t| {
            let _guard = this.barrier.guard();
            for (index, &block) in this.schedule.iter().enumerate() {
                // SAFETY: all threads walk the same schedule, with a barrier wherever `sync_after` asks.
                unsafe { this.compute(t, index, block) };
                if tapped || this.sync_after(block) {
                    this.barrier.wait();
                }
                if tapped {
                    if let (0, Some(tap)) = (t, &mut *tap.lock().unwrap_or_else(PoisonError::into_inner)) {
                        // SAFETY: the others wait at the barrier below.
                        unsafe { this.show(block, tap) };
                    }
                    this.barrier.wait();
                }
            }
        });
        Ok(self.fault.lock().unwrap_or_else(PoisonError::into_inner).take())
    }

    /// Must all threads have finished this block before any goes on? Not where the next block reads only what
    /// the same thread wrote.
    fn sync_after(&self, block: Block) -> bool {
        match block {
            Block::RmsNorm { .. } => self.rows > REDUNDANT,
            Block::FinalNorm => self.plan.wanted.len() > REDUNDANT,
            Block::OProj { .. } | Block::GateUp { .. } | Block::Down { .. } => false,
            Block::Embed | Block::Qkv { .. } | Block::Rope { .. } | Block::Attention { .. } => true,
            Block::Residual { .. } | Block::SwiGlu { .. } => true,
            // The region ends here.
            Block::LmHead | Block::Sample => false,
        }
    }

    /// This thread's share of a block.
    ///
    /// # Safety
    /// Every thread of the pass computes the same blocks in the same order, with the barriers `sync_after`
    /// asks for.
    unsafe fn compute(&self, t: usize, index: usize, block: Block) {
        let layer = |i: u32| -> &PackedLayer<'a> { &self.model.layers[i as usize] };
        let rows = self.rows;
        // SAFETY: the caller's promise.
        unsafe {
            match block {
                Block::Embed => self.embed(t),
                Block::RmsNorm { layer: i, half: Half::Attention } => self.norm(t, layer(i).attn_norm, None),
                Block::RmsNorm { layer: i, half: Half::Ffn } => self.norm(t, layer(i).ffn_norm, None),
                Block::Qkv { layer: i } => {
                    self.linear(t, 1, self.normed_of(t, rows), rows, layer(i).qkv, self.qkv)
                }
                Block::Rope { layer } => self.rope(t, index, layer as usize),
                Block::Attention { layer } => self.attention(t, layer as usize),
                Block::OProj { layer: i } => {
                    self.linear(t, 1, self.context, rows, layer(i).o_proj, self.delta)
                }
                Block::Residual { .. } => self.residual(t, index),
                Block::GateUp { layer: i } => {
                    self.linear(t, 2, self.normed_of(t, rows), rows, layer(i).gate_up, self.gate_up);
                }
                Block::SwiGlu { .. } => self.swiglu(t),
                Block::Down { layer: i } => self.linear(t, 1, self.hidden, rows, layer(i).down, self.delta),
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
            match self.model.embed {
                Some(table) => out.copy_from_slice(&table[token * width..(token + 1) * width]),
                None => {
                    let panel = &self.model.lm_head.data[token / PANEL * width * PANEL..][..width * PANEL];
                    for (x, column) in out.iter_mut().zip(panel.chunks_exact(PANEL)) {
                        *x = column[token % PANEL];
                    }
                }
            }
        }
    }

    /// Where thread `t` finds `rows` normed rows: its own copy when there are few.
    fn normed_of(&self, t: usize, rows: usize) -> Plane {
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
            }
        }
    }

    /// This thread's share of a matrix's panels, in units of `unit` panels.
    fn panels(&self, t: usize, unit: usize, w: &Panels<'_>) -> Range<usize> {
        let units = share(w.panels() / unit, t, self.threads);
        units.start * unit..units.end * unit
    }

    unsafe fn linear(&self, t: usize, unit: usize, x: Plane, rows: usize, w: Panels<'_>, out: Plane) {
        let own = self.panels(t, unit, &w);
        // SAFETY: panels are shared out; every row of the output has room for whole panels.
        unsafe {
            (self.kernels.linear)(&Linear {
                x: x.at,
                x_pitch: x.pitch,
                rows,
                w: w.data[own.start * w.k * PANEL..].as_ptr(),
                panel: w.k * PANEL,
                k: w.k,
                panels: own.len(),
                out: out.at.add(own.start * PANEL),
                out_pitch: out.pitch,
            });
        }
    }

    /// Rotates queries and keys of this thread's rows; keys and values go to the pages.
    unsafe fn rope(&self, t: usize, index: usize, layer: usize) {
        if t == 0 {
            // For the attention that follows: its last use is a barrier ago, the next one a barrier ahead.
            self.cursor.store(0, Ordering::Relaxed);
        }
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
                            self.check(index, r, (head * group + j) * dim, out);
                        }
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

    /// Takes items until none is left. Which thread takes which changes no bit.
    unsafe fn attention(&self, t: usize, layer: usize) {
        let g = &self.g;
        let (dim, group) = (g.head_dim, g.heads / g.kv_heads);
        let rows = self.plan.item_rows;
        let padded = dim.next_multiple_of(PANEL);
        while let Some(Item { segment, kv_head, first_head, heads, start, positions }) =
            self.plan.item(self.cursor.fetch_add(1, Ordering::Relaxed), g)
        {
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

    /// Adds this thread's columns of the last product to the stream.
    unsafe fn residual(&self, t: usize, index: usize) {
        let width = self.g.width;
        let panels = share(width.div_ceil(PANEL), t, self.threads);
        let own = (panels.start * PANEL).min(width)..(panels.end * PANEL).min(width);
        for r in 0..self.rows {
            // SAFETY: columns are shared out as the product's panels were.
            unsafe {
                let x = self.stream.row_mut(r, own.clone());
                (self.kernels.add)(x, self.delta.row(r, own.clone()));
                self.check(index, r, own.start, x);
            }
        }
    }

    unsafe fn swiglu(&self, t: usize) {
        let own = share(self.g.ffn.div_ceil(PANEL), t, self.threads);
        let (start, end) = (own.start * PANEL, own.end * PANEL);
        for r in 0..self.rows {
            // SAFETY: columns are shared out as the panel pairs of gate_up were.
            unsafe {
                let gate_up = self.gate_up.row(r, 2 * start..2 * end);
                (self.kernels.swiglu)(gate_up, self.hidden.row_mut(r, start..end));
            }
        }
    }

    unsafe fn lm_head(&self, t: usize, index: usize) {
        let rows = self.plan.wanted.len();
        if rows == 0 {
            return;
        }
        let head = self.model.lm_head;
        let own = self.panels(t, 1, &head);
        // SAFETY: panels are shared out.
        unsafe {
            self.linear(t, 1, self.normed_of(t, rows), rows, head, self.logits);
            let vocab = self.g.vocab;
            for r in 0..rows {
                let start = (own.start * PANEL).min(vocab);
                self.check(index, r, start, self.logits.row(r, start..(own.end * PANEL).min(vocab)));
            }
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

    /// Hands a finished block's output to the tap.
    ///
    /// # Safety
    /// No other thread writes while this runs.
    unsafe fn show(&self, block: Block, tap: &mut Tap<'_>) {
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

/// Which of a segment's `rows` rows, from pass row `first` on, lie in `own`; counted within the segment.
fn intersect(own: Range<usize>, first: usize, rows: usize) -> Range<usize> {
    let clamp = |r: usize| r.clamp(first, first + rows) - first;
    clamp(own.start)..clamp(own.end)
}
