//! One pass: every thread walks the block graph's schedule over the same rows, each doing its share of a block,
//! with a barrier where a block reads what other threads wrote. Knows what is shared, not what is computed.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::edit::Edit;
use super::plan::Plan;
use super::show::gathered;
use super::tap::Tap;
use super::team::{Barrier, Team, share};
use super::{Logits, not_finite};
use crate::block::Block;
use crate::buffer::Buffer;
use crate::cpu::linear::PANEL;
use crate::cpu::{Kernels, dot, quants};
use crate::error::ComputeError;
use crate::geometry::Geometry;
use crate::pack::PackedModel;
use crate::spec::Activations;

/// With at most so many rows every thread computes a norm for itself, which is cheaper than a barrier.
pub(super) const REDUNDANT: usize = 2;

/// Rows of floats in working memory.
#[derive(Clone, Copy)]
pub(super) struct Plane {
    pub at: *mut f32,
    pub pitch: usize,
}

impl Plane {
    /// Floats `range` of row `r`, to read.
    ///
    /// # Safety
    /// They lie within the plane, and no thread writes them before the next barrier.
    pub unsafe fn row<'a>(self, r: usize, range: Range<usize>) -> &'a [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.at.add(r * self.pitch + range.start), range.len()) }
    }

    /// Floats `range` of row `r`, to write.
    ///
    /// # Safety
    /// They lie within the plane, and no other thread touches them before the next barrier.
    pub unsafe fn row_mut<'a>(self, r: usize, range: Range<usize>) -> &'a mut [f32] {
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
    integers: Buffer,
    tapped: Buffer,
    claims: Vec<Claim>,
}

/// How many items of its share of a block a thread, or one that helps it, has taken. A cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Claim(AtomicUsize);

impl Scratch {
    pub fn new(threads: usize) -> Self {
        let buffer = Buffer::empty;
        let (shared, attention, integers, tapped) = (buffer(), buffer(), buffer(), buffer());
        Self { threads, shared, attention, integers, tapped, claims: Vec::new() }
    }
}

/// A value that no block may give: where it was noticed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fault {
    /// Where the block stands in the schedule.
    pub index: usize,
    pub row: usize,
    pub element: usize,
    pub nan: bool,
}

impl Fault {
    pub fn to_error(self, plan: &Plan, schedule: &[Block]) -> ComputeError {
        let block = schedule[self.index];
        let places = if block == Block::LmHead { &plan.wanted_places } else { &plan.places };
        not_finite(block, places[self.row], self.element, if self.nan { f32::NAN } else { f32::INFINITY })
    }
}

pub(super) struct Pass<'a> {
    pub model: &'a PackedModel<'a>,
    pub g: Geometry,
    pub kernels: &'static Kernels,
    schedule: &'a [Block],
    pub plan: &'a Plan,
    pub threads: usize,
    pub rows: usize,
    /// The residual stream.
    pub stream: Plane,
    pub normed: Plane,
    pub qkv: Plane,
    /// Rotated queries `[kv head][row][head of the group][head_dim]`.
    pub q: *mut f32,
    pub context: Plane,
    /// What o_proj and down add to the stream.
    pub delta: Plane,
    pub gate_up: Plane,
    pub hidden: Plane,
    /// Rows of the next product's input in the spec's integers, and bytes from one to the next.
    pub quants: *mut u8,
    pub quants_pitch: usize,
    /// Each thread's room to widen 4-bit weights, in bytes.
    pub wide: *mut u8,
    pub wide_pitch: usize,
    pub logits: Plane,
    /// Scores, sums and totals of each thread, and a rotated key.
    pub attention: *mut f32,
    pub attention_floats: usize,
    pub scores_pitch: usize,
    pub tapped: &'a mut Buffer,
    /// `threads` of them for each block of the schedule.
    claims: &'a [Claim],
    pub barrier: Barrier,
    pub fault: Mutex<Option<Fault>>,
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
        let [stream, normed, qkv, q, context, delta, gate_up, hidden] = planes.map(|(start, pitch)| {
            // SAFETY: every start lies within the `at` floats just reserved.
            Plane { at: unsafe { base.add(start) }, pitch }
        });

        let longest = plan.segments.iter().map(|s| s.position + s.rows).max().unwrap_or(0);
        let scores_pitch = pitch(longest);
        let dim = g.head_dim.next_multiple_of(PANEL);
        let attention_floats = plan.item_rows * (scores_pitch + 2 * dim) + dim;
        let attention = scratch.attention.ensure(threads * attention_floats)?;
        let (quants_pitch, wide_pitch) = match model.spec.activations() {
            Activations::F32 => (0, 0),
            _ => {
                let k = g.width.max(heads).max(g.ffn);
                (quants::row_bytes(k), dot::WIDE_BYTES)
            }
        };
        let rows_bytes = rows.max(threads * REDUNDANT) * quants_pitch;
        let integers = scratch.integers.ensure((rows_bytes + threads * wide_pitch).div_ceil(4))?.cast::<u8>();
        scratch.claims.resize_with(schedule.len() * threads, Claim::default);
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
            quants: integers,
            quants_pitch,
            // SAFETY: behind the rows, in the memory just reserved.
            wide: unsafe { integers.add(rows_bytes) },
            wide_pitch,
            logits: Plane { at: logits.next(), pitch: logits.pitch() },
            attention,
            attention_floats,
            scores_pitch,
            tapped: &mut scratch.tapped,
            claims: &scratch.claims,
            barrier: Barrier::new(threads),
            fault: Mutex::new(None),
        })
    }

    /// Computes all blocks, hands the edit and then shows the tap those they want. Returns the first bad value
    /// that was noticed.
    pub fn run(
        &mut self,
        team: &Team,
        tap: Option<Tap<'_>>,
        edit: Option<Edit<'_>>,
    ) -> Result<Option<Fault>, ComputeError> {
        let shown: Vec<bool> =
            tap.map_or_else(Vec::new, |tap| self.schedule.iter().map(|&block| (tap.wants)(block)).collect());
        let gathers = |(&block, &shown): (&Block, &bool)| shown && gathered(block);
        if self.schedule.iter().zip(&shown).any(gathers) {
            self.tapped.ensure(self.rows * self.tapped_pitch())?;
        }
        for claim in self.claims {
            claim.0.store(0, Ordering::Relaxed);
        }
        let wanted = self.plan.wanted.len();
        let this = &*self;
        team.run(&|t| {
            let _guard = this.barrier.guard();
            for (index, &block) in this.schedule.iter().enumerate() {
                // SAFETY: all threads walk the same schedule, with a barrier wherever `sync_after` asks.
                unsafe { this.compute(t, index, block) };
                let last = block == Block::LmHead && shown.get(index) == Some(&true);
                if sync_after(block, this.rows, wanted) || last {
                    this.barrier.wait();
                }
                if let Some(edit) = edit.filter(|edit| Edit::allows(block) && (edit.wants)(block)) {
                    // SAFETY: every thread has finished the block (a block that allows edits is one that all wait
                    // for), and none reads it before the barrier below.
                    unsafe { this.edit(t, block, edit) };
                    this.barrier.wait();
                }
                let Some(tap) = tap else { continue };
                for index in finished(index, block).filter(|&i| shown[i]) {
                    // SAFETY: every thread has finished the block, and none overwrites what it gave before a
                    // barrier that this one has yet to reach: see the test below.
                    unsafe { this.show(t, this.schedule[index], tap) };
                }
            }
        });
        Ok(self.fault.lock().unwrap_or_else(PoisonError::into_inner).take())
    }

    /// The items of a block that thread `t` is to do, of `n`: first its own share in order, then what the
    /// others have not got to, so that a thread that lost its core holds nobody up for long.
    pub fn claim(&self, index: usize, t: usize, n: usize) -> impl Iterator<Item = usize> {
        let claims = &self.claims[index * self.threads..(index + 1) * self.threads];
        (0..self.threads).flat_map(move |i| {
            let whose = (t + i) % self.threads;
            let own = share(n, whose, self.threads);
            std::iter::from_fn(move || {
                let next = own.start + claims[whose].0.fetch_add(1, Ordering::Relaxed);
                (next < own.end).then_some(next)
            })
        })
    }
}

/// Must all threads have finished this block before any goes on? Not where the next block is done by the same
/// threads for the same columns, piece by piece (see `work`), or by each thread for itself.
fn sync_after(block: Block, rows: usize, wanted: usize) -> bool {
    match block {
        Block::RmsNorm { .. } => rows > REDUNDANT,
        Block::FinalNorm => wanted > REDUNDANT,
        Block::OProj { .. } | Block::GateUp { .. } | Block::Down { .. } => false,
        Block::Embed | Block::Qkv { .. } | Block::Rope { .. } | Block::Attention { .. } => true,
        Block::Residual { .. } | Block::SwiGlu { .. } => true,
        // The region ends here.
        Block::LmHead | Block::Sample => false,
    }
}

/// The blocks, as places in the schedule, that all threads have finished when they are past the one at `index`.
fn finished(index: usize, block: Block) -> Range<usize> {
    match block {
        Block::OProj { .. } | Block::GateUp { .. } | Block::Down { .. } => index..index,
        Block::Residual { .. } | Block::SwiGlu { .. } => index - 1..index + 1,
        _ => index..index + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Half;
    use crate::graph::BlockGraph;

    /// The plane a block writes, and how many blocks before its turn in the schedule it does so.
    fn writes(block: Block) -> Option<(&'static str, usize)> {
        Some(match block {
            Block::Embed => ("stream", 0),
            Block::Residual { .. } => ("stream", 1),
            Block::RmsNorm { .. } | Block::FinalNorm => ("normed", 0),
            Block::Qkv { .. } => ("qkv", 0),
            Block::Rope { .. } => ("q", 0),
            Block::Attention { .. } => ("context", 0),
            Block::OProj { .. } | Block::Down { .. } => ("delta", 0),
            Block::GateUp { .. } => ("gate_up", 0),
            Block::SwiGlu { .. } => ("hidden", 1),
            Block::LmHead => ("logits", 0),
            Block::Sample => return None,
        })
    }

    /// A tap looks at a block's output without a barrier of its own: between its look and the next write to
    /// the same memory stands a barrier that the looking thread has to come to.
    #[test]
    fn nothing_is_overwritten_while_a_tap_may_look_at_it() {
        let g = Geometry {
            layers: 3,
            width: 8,
            heads: 2,
            kv_heads: 1,
            head_dim: 4,
            ffn: 8,
            vocab: 10,
            context: 16,
            rope_base: 1e4,
            norm_eps: 1e-5,
            tied: true,
        };
        let graph = BlockGraph::new(&g);
        let schedule = graph.schedule();
        let mut looks = 0;
        for (rows, wanted) in [(1, 0), (1, 1), (2, 2), (3, 1), (100, 100)] {
            for (index, &block) in schedule.iter().enumerate() {
                let sync = |i: usize| sync_after(schedule[i], rows, wanted);
                for shown in finished(index, block) {
                    let Some((plane, _)) = writes(schedule[shown]) else { continue };
                    looks += 1;
                    // Whoever looks comes after all who wrote, or looks at its own copy.
                    let own = plane == "normed" && !sync(index);
                    assert!(own || sync(index) || schedule[shown] == Block::LmHead, "{block}");
                    let next = (index + 1..schedule.len()).find(|&i| match writes(schedule[i]) {
                        Some((other, _)) => other == plane,
                        None => false,
                    });
                    let Some(next) = next else { continue };
                    let next = next - writes(schedule[next]).map_or(0, |(_, before)| before);
                    assert!(
                        (index + 1..next).any(sync),
                        "{} is overwritten by {}",
                        schedule[shown],
                        schedule[next]
                    );
                }
            }
        }
        // Every block but the last is shown once.
        assert_eq!(looks, 5 * (schedule.len() - 1));
        // And a block that an edit may change is one that all wait for, so that it is whole.
        for &block in schedule.iter().filter(|&&block| Edit::allows(block)) {
            assert!(sync_after(block, 1, 0), "{block}");
        }
        assert_eq!(finished(6, Block::Residual { layer: 0, half: Half::Attention }), 5..7);
    }
}
