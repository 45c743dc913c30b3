//! Products of integers: `out[r][n] = Σ over blocks of float(Σ q·x)·(scale of x · scale of q)`, in chunks of 8
//! blocks, each output alone in its lane. Generic over integers. Knows panels, no matrix names.

#![allow(clippy::needless_range_loop)] // r and p name rows and panels of several arrays at once

use std::hint::black_box;

use super::arith::{Arith, Lanes};
use super::linear::{CHUNK, PANEL, fetch_out};
use super::quants::{Quants, SLOT};
use crate::matrix::{BLOCK, Format, NARROW, SCALES, WIDE};
use crate::spec::Activations;

/// Blocks of a chunk of R1.
pub(crate) const CHUNK_BLOCKS: usize = CHUNK / BLOCK;
/// Inputs whose weights stand side by side for each output.
pub(crate) const GROUP: usize = 4;
/// Bytes of a group's weights of 16 outputs.
const LINE: usize = GROUP * PANEL;
/// With so many rows or fewer a product is bound by memory: each weight is read once, 4-bit ones as they are.
pub(crate) const FEW: usize = 2;

/// What an implementation does with integers, 16 outputs at a time.
///
/// # Safety
/// Of every function: the CPU has the instructions, and what is pointed at is readable or writable.
pub(crate) trait Ints {
    type Floats: Lanes;
    /// 8-bit weights of 4 inputs and 16 outputs.
    type Weights: Copy;
    /// Sums of 16 outputs, exact in 32 bits.
    type Sums: Copy;

    /// Are 16-bit activations kept as 32 high and then 32 low bytes, both signed, `256·h + l`, and 8-bit ones as
    /// 32 bytes? Otherwise all are 16-bit words.
    const SPLIT: bool;
    /// What `load`, though not `nibbles`, takes off each stored weight to make it signed.
    const LESS: i32 = 0;
    /// Most rows one register tile holds.
    const ROWS: usize;

    /// Sums that start at `plus`.
    unsafe fn start(plus: i32) -> Self::Sums;
    unsafe fn load(p: *const u8) -> Self::Weights;
    /// The low and the high halves of 64 bytes.
    unsafe fn nibbles(p: *const u8) -> (Self::Weights, Self::Weights);
    /// Adds the products with 4 activations.
    unsafe fn dot(sums: Self::Sums, w: Self::Weights, x: *const u8) -> Self::Sums;
    /// `256·high + low`.
    unsafe fn join(high: Self::Sums, low: Self::Sums) -> Self::Sums;
    /// Each output's sum in f32, rounded half to even.
    unsafe fn floats(sums: Self::Sums) -> Self::Floats;
    /// Rounds 32 activations, already clamped, half to even, and stores them as a block; their sum.
    unsafe fn store(one: Self::Floats, two: Self::Floats, bits: Activations, slot: *mut u8) -> i32;

    /// The most panels a tile takes of a product with this many rows; of 1, 2, 3 and 6, and with more than [`FEW`]
    /// rows one that divides 3, or 3.
    fn panels(rows: usize) -> usize;
    /// [`tile`] of this shape.
    unsafe fn tile(shape: Shape, t: &Tile);
}

/// Which monomorph of [`tile`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub rows: usize,
    pub panels: usize,
    pub narrow: bool,
    pub bits: Activations,
}

/// One product: `rows` rows of quantised activations times some adjacent panels of blocks.
#[derive(Clone, Copy)]
pub(crate) struct Dot {
    pub x: Quants,
    pub bits: Activations,
    pub rows: usize,
    /// The first panel.
    pub w: *const u8,
    pub format: Format,
    /// Bytes from one panel to the next.
    pub panel: usize,
    pub panels: usize,
    /// Column 0 of the first panel in row 0 of the output; whole panels are written.
    pub out: *mut f32,
    pub out_pitch: usize,
    /// Room for [`WIDE_BYTES`], this call's alone.
    pub wide: *mut u8,
}

/// Bytes of scratch a product needs.
pub(crate) const WIDE_BYTES: usize = MANY_PANELS * MANY_BLOCKS * WIDE;
/// Of so many panels so many blocks, whole chunks, are multiplied with all rows before the next: few enough that
/// their weights, 72 KiB, stay in the second-level cache, and enough that a tile is worth its start.
const MANY_PANELS: usize = 3;
const MANY_BLOCKS: usize = 6 * CHUNK_BLOCKS;

/// The part of a product that one register tile takes.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub x: Quants,
    pub first_row: usize,
    /// Blocks `from..to`; whole chunks, but for the last.
    pub from: usize,
    pub to: usize,
    /// Integers of block `from` of the first panel, and bytes to the next panel's.
    pub w: *const u8,
    pub w_pitch: usize,
    /// Scales of the first panel, and bytes to the next.
    pub scales: *const u8,
    /// Minimums, if the format has them.
    pub minimums: *const u8,
    pub least: bool,
    pub panel: usize,
    pub offset: i32,
    pub out: *mut f32,
    pub out_pitch: usize,
    /// What a full tile fetches meanwhile, so many lines a block.
    pub ahead: *const u8,
    pub ahead_lines: usize,
}

/// How far ahead of its reading, in bytes of each panel, a tile of few rows fetches. Twice, since a CPU drops a
/// fetch when too many are under way; one that got through costs little the second time.
const AHEAD: [usize; 2] = [2048, 1024];

/// An `R` × `P·16` tile over some chunks. `HALVES`: weights are halves of bytes. `A16`: activations have 16 bits.
///
/// # Safety
/// The CPU has `I`'s instructions. The rows and panels named in `t` are readable, its output is this thread's.
#[inline(always)]
pub(crate) unsafe fn tile<I: Ints, const HALVES: bool, const A16: bool, const R: usize, const P: usize>(
    t: &Tile,
) {
    // SAFETY: the function's contract; offsets stay inside blocks, rows and panels.
    unsafe {
        if R > FEW && t.from == 0 {
            fetch_out::<I::Floats>(t.out, t.out_pitch, R, P);
        }
        let mut ahead = t.ahead;
        for chunk in (t.from..t.to).step_by(CHUNK_BLOCKS) {
            let mut chunk_sums = [[I::Floats::splat(0.0); P]; R];
            for b in chunk..t.to.min(chunk + CHUNK_BLOCKS) {
                let sums = if R <= FEW {
                    once::<I, HALVES, A16, R, P>(t, b)
                } else {
                    for _ in 0..t.ahead_lines {
                        I::Floats::fetch_far(ahead);
                        ahead = ahead.wrapping_add(64);
                    }
                    by_group::<I, A16, R, P>(t, b)
                };
                for p in 0..P {
                    let scales = t.scales.add(p * t.panel + b * SCALES);
                    // A line of them serves two blocks. They stand apart from the weights, in short stretches that
                    // no CPU sees coming: those of the next group of panels.
                    if R <= FEW && b % 2 == 0 {
                        I::Floats::fetch_far(scales.wrapping_add(P * t.panel));
                    }
                    let scales = I::Floats::load_f16(scales.cast());
                    for r in 0..R {
                        let scale = I::Floats::splat(*t.x.scales(t.first_row + r).add(b));
                        chunk_sums[r][p] = I::floats(sums[r][p]).fma(scale.mul(scales), chunk_sums[r][p]);
                    }
                }
                if t.least {
                    for p in 0..P {
                        let minimums = t.minimums.add(p * t.panel + b * SCALES);
                        if R <= FEW && b % 2 == 0 {
                            I::Floats::fetch_far(minimums.wrapping_add(P * t.panel));
                        }
                        let m = I::Floats::load_f16(minimums.cast());
                        for r in 0..R {
                            let share = I::Floats::splat(*t.x.shares(t.first_row + r).add(b));
                            chunk_sums[r][p] = share.fma(m, chunk_sums[r][p]);
                        }
                    }
                }
            }
            for r in 0..R {
                for p in 0..P {
                    let out = t.out.add(r * t.out_pitch + p * PANEL);
                    let sum = chunk_sums[r][p];
                    let total = if chunk == 0 { sum } else { I::Floats::load(out).add(sum) };
                    total.store(out);
                }
            }
        }
    }
}

/// Bytes of a group's activations, and where in a slot the low bytes of split ones begin.
#[inline(always)]
fn places<I: Ints>() -> (usize, usize) {
    if I::SPLIT { (GROUP, BLOCK) } else { (2 * GROUP, 0) }
}

/// What the sums of block `b` start at, so that the `offset` of its weights falls out.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn starts<const R: usize>(t: &Tile, b: usize, offset: i32) -> [i32; R] {
    // SAFETY: the caller's promise.
    std::array::from_fn(|r| -offset * unsafe { *t.x.sums(t.first_row + r).add(b) })
}

/// The sums of block `b`, every weight read once: high and low bytes of activations side by side. Fetches the
/// weights to come.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn once<I: Ints, const HALVES: bool, const A16: bool, const R: usize, const P: usize>(
    t: &Tile,
    b: usize,
) -> [[I::Sums; P]; R] {
    // SAFETY: the caller's promise.
    unsafe {
        let bytes = if HALVES { NARROW } else { WIDE };
        let (step, low) = places::<I>();
        let split = I::SPLIT && A16;
        let starts = starts::<R>(t, b, if HALVES { t.offset } else { t.offset - I::LESS });
        let mut sums = [[I::start(0); P]; R];
        for r in 0..R {
            sums[r] = [I::start(starts[r]); P];
        }
        let mut high = [[I::start(0); P]; R];
        // Behind the last block come those of the next group of panels.
        let size = t.x.blocks * bytes;
        let overs = AHEAD.map(|ahead| {
            let over = (b - t.from) * bytes + ahead;
            if over < size { over } else { over - size + P * t.panel }
        });
        let lines = bytes / NARROW;
        // A loop that stays one: unrolled, fetches would be moved together, and bursts of them are dropped.
        for i in 0..black_box(NARROW / LINE) {
            for p in 0..P {
                for line in 0..lines {
                    for over in overs {
                        I::Floats::fetch_far(
                            t.w.wrapping_add(p * t.w_pitch + over + (i * lines + line) * 64),
                        );
                    }
                }
                let at = t.w.add((b - t.from) * bytes + p * t.w_pitch + i * LINE);
                let (one, two) = if HALVES { I::nibbles(at) } else { (I::load(at), I::load(at.add(NARROW))) };
                for r in 0..R {
                    let slot = t.x.slots(t.first_row + r).add(b * SLOT);
                    let (x, y) = (slot.add(i * step), slot.add((i + NARROW / LINE) * step));
                    if split {
                        high[r][p] = I::dot(I::dot(high[r][p], one, x), two, y);
                        sums[r][p] = I::dot(I::dot(sums[r][p], one, x.add(low)), two, y.add(low));
                    } else {
                        sums[r][p] = I::dot(I::dot(sums[r][p], one, x), two, y);
                    }
                }
            }
        }
        if split {
            for r in 0..R {
                for p in 0..P {
                    sums[r][p] = I::join(high[r][p], sums[r][p]);
                }
            }
        }
        sums
    }
}

/// The sums of block `b` of wide weights, group by group; of split activations first all high bytes, then, in the
/// same registers, the low ones.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn by_group<I: Ints, const A16: bool, const R: usize, const P: usize>(
    t: &Tile,
    b: usize,
) -> [[I::Sums; P]; R] {
    // SAFETY: the caller's promise.
    unsafe {
        let (step, low) = places::<I>();
        let split = I::SPLIT && A16;
        let w = t.w.add((b - t.from) * WIDE);
        let x: [*const u8; R] =
            std::array::from_fn(|r| t.x.slots(t.first_row + r).add(b * SLOT).cast_const());
        let starts = starts::<R>(t, b, t.offset - I::LESS);
        let mut sums = [[I::start(0); P]; R];
        for r in 0..R {
            sums[r] = [I::start(if split { 0 } else { starts[r] }); P];
        }
        for x in x {
            I::Floats::fetch_near(x.wrapping_add(SLOT));
        }
        groups::<I, true, R, P>(&mut sums, w, t.w_pitch, &x, step);
        if split {
            for r in 0..R {
                for p in 0..P {
                    sums[r][p] = I::join(sums[r][p], I::start(starts[r]));
                }
            }
            let x: [*const u8; R] = std::array::from_fn(|r| x[r].add(low));
            groups::<I, false, R, P>(&mut sums, w, t.w_pitch, &x, step);
        }
        sums
    }
}

/// Adds a block's products, one group of 4 inputs after the other. `FETCH`: and fetches the weights of the block
/// after it; those of a tile, read again for every few rows, do not all fit the first-level cache.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn groups<I: Ints, const FETCH: bool, const R: usize, const P: usize>(
    sums: &mut [[I::Sums; P]; R],
    w: *const u8,
    w_pitch: usize,
    x: &[*const u8; R],
    step: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for g in 0..BLOCK / GROUP {
            let mut weights = [I::load(w.add(g * LINE)); P];
            for (p, weight) in weights.iter_mut().enumerate().skip(1) {
                *weight = I::load(w.add(p * w_pitch + g * LINE));
            }
            if FETCH {
                for p in 0..P {
                    I::Floats::fetch_near(w.wrapping_add(p * w_pitch + WIDE + g * LINE));
                }
            }
            for r in 0..R {
                for p in 0..P {
                    sums[r][p] = I::dot(sums[r][p], weights[p], x[r].add(g * step));
                }
            }
        }
    }
}

/// The whole product, panels outside. With more than [`FEW`] rows some chunks of k after the others, so that the
/// weights of some panels stay near for all rows; 4-bit ones are widened once.
///
/// # Safety
/// The CPU has `I`'s instructions; the regions [`Dot`] describes are valid, its output and scratch are this
/// thread's alone.
#[inline(always)]
pub(crate) unsafe fn product<I: Ints>(a: &Dot) {
    let blocks = a.x.blocks;
    let few = a.rows <= FEW;
    let narrow = a.format != Format::Q8;
    let bytes = if narrow { NARROW } else { WIDE };
    let step = if few { blocks } else { MANY_BLOCKS };
    let most = if few { I::panels(a.rows) } else { MANY_PANELS };
    let mut p = 0;
    while p < a.panels {
        let np = [6, 3, 2, 1].into_iter().find(|&n| n <= most && n <= a.panels - p).unwrap_or(1);
        let first = a.w.wrapping_add(p * a.panel);
        let mut ahead = first.wrapping_add(np * a.panel);
        let tiles = (a.rows / I::ROWS).max(1);
        let lines = (np * a.panel).div_ceil(64 * tiles * blocks);
        let scales = first.wrapping_add(blocks * bytes);
        let minimums = match a.format {
            Format::Q4Min => scales.wrapping_add(blocks * SCALES),
            _ => std::ptr::null(),
        };
        for from in (0..blocks).step_by(step) {
            let to = blocks.min(from + step);
            let (mut w, mut w_pitch) = (first.wrapping_add(from * bytes), a.panel);
            // SAFETY: tiles partition the product's rows, panels and blocks. What is fetched ahead need not be
            // valid.
            unsafe {
                if narrow && !few {
                    for i in 0..np {
                        widen(w.add(i * a.panel), a.wide.add(i * MANY_BLOCKS * WIDE), to - from);
                    }
                    (w, w_pitch) = (a.wide, MANY_BLOCKS * WIDE);
                }
                let mut r = 0;
                while r < a.rows {
                    let rows = super::linear::rows_at_once(a.rows - r, I::ROWS);
                    let wide = np.min(I::panels(a.rows));
                    for i in (0..np).step_by(wide) {
                        let t = Tile {
                            x: a.x,
                            first_row: r,
                            from,
                            to,
                            w: w.add(i * w_pitch),
                            w_pitch,
                            scales: scales.add(i * a.panel),
                            minimums: minimums.wrapping_add(i * a.panel),
                            least: a.format == Format::Q4Min,
                            panel: a.panel,
                            offset: a.format.offset(),
                            out: a.out.add(r * a.out_pitch + (p + i) * PANEL),
                            out_pitch: a.out_pitch,
                            ahead,
                            ahead_lines: if i == 0 { lines } else { 0 },
                        };
                        I::tile(Shape { rows, panels: wide, narrow: narrow && few, bits: a.bits }, &t);
                    }
                    ahead = ahead.wrapping_add(lines * (to - from) * 64);
                    r += rows;
                }
            }
        }
        p += np;
    }
}

/// A panel's 4-bit integers to bytes.
///
/// # Safety
/// `from` is readable for `blocks` narrow blocks, `to` writable for as many wide ones.
#[inline(always)]
unsafe fn widen(from: *const u8, to: *mut u8, blocks: usize) {
    // SAFETY: the caller's promise.
    let (from, to) = unsafe {
        (std::slice::from_raw_parts(from, blocks * NARROW), std::slice::from_raw_parts_mut(to, blocks * WIDE))
    };
    for (from, to) in from.chunks_exact(NARROW).zip(to.chunks_exact_mut(WIDE)) {
        let (low, high) = to.split_at_mut(NARROW);
        for ((low, high), b) in low.iter_mut().zip(high).zip(from) {
            *low = b & 15;
            *high = b >> 4;
        }
    }
}

/// A function that picks the monomorph of [`tile`] for a shape, among the listed ones.
macro_rules! tiles {
    ($ints:ty, $t:expr, $shape:expr, few: [$(($fr:literal, $fp:literal))*], many: [$(($mr:literal, $mp:literal))*]) => {{
        let a16 = $shape.bits == Activations::A16;
        // SAFETY: the caller's promise.
        unsafe {
            match ($shape.rows, $shape.panels, $shape.narrow, a16) {
                $(($fr, $fp, true, true) => tile::<$ints, true, true, $fr, $fp>($t),
                ($fr, $fp, true, false) => tile::<$ints, true, false, $fr, $fp>($t),
                ($fr, $fp, false, true) => tile::<$ints, false, true, $fr, $fp>($t),
                ($fr, $fp, false, false) => tile::<$ints, false, false, $fr, $fp>($t),)*
                $(($mr, $mp, false, true) => tile::<$ints, false, true, $mr, $mp>($t),
                ($mr, $mp, false, false) => tile::<$ints, false, false, $mr, $mp>($t),)*
                _ => unreachable!("no tile of {:?}", $shape),
            }
        }
    }};
}
pub(crate) use tiles;
