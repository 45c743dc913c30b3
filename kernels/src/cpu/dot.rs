//! Products of integers: `out[r][n] = Σ over blocks of float(Σ q·x)·(scale of x · scale of q)`, in chunks of 8
//! blocks, each output alone in its lane. Generic over integers. Knows panels, no matrix names.

use super::arith::{Arith, Lanes};
use super::linear::{CHUNK, PANEL};
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
    /// Unsigned 8-bit weights of 4 inputs and 16 outputs.
    type Weights: Copy;
    /// Sums of 16 outputs, exact in 32 bits.
    type Sums: Copy;

    /// Are 16-bit activations kept as 32 high and then 32 low bytes, both signed, `256·h + l`, and 8-bit ones as
    /// 32 bytes? Otherwise all are 16-bit words.
    const SPLIT: bool;
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

    /// The most panels a product with this many rows takes at once; of 1, 2, 3 and 6.
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
    /// Room for [`wide_bytes`], this call's alone.
    pub wide: *mut u8,
}

/// Bytes of scratch a product of `blocks` blocks needs.
pub(crate) fn wide_bytes(blocks: usize) -> usize {
    6 * blocks * WIDE
}

/// The part of a product that one register tile takes.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub x: Quants,
    pub first_row: usize,
    /// Integers of the first panel, and bytes to the next.
    pub w: *const u8,
    pub w_pitch: usize,
    /// Scales of the first panel, and bytes to the next.
    pub scales: *const u8,
    /// Minimums, or null.
    pub minimums: *const u8,
    pub panel: usize,
    pub offset: i32,
    pub out: *mut f32,
    pub out_pitch: usize,
    /// What a full tile fetches meanwhile, so many lines a block.
    pub ahead: *const u8,
    pub ahead_lines: usize,
}

/// How far ahead of its reading, in bytes of each panel, a tile of few rows fetches.
const AHEAD: usize = 2048;

/// An `R` × `P·16` tile over all of k. `NARROW`: weights are halves of bytes. `A16`: activations have 16 bits.
///
/// # Safety
/// The CPU has `I`'s instructions. The rows and panels named in `t` are readable, its output is this thread's.
#[inline(always)]
pub(crate) unsafe fn tile<I: Ints, const HALVES: bool, const A16: bool, const R: usize, const P: usize>(
    t: &Tile,
) {
    // SAFETY: the function's contract; offsets stay inside blocks, rows and panels.
    unsafe {
        let bytes = if HALVES { NARROW } else { WIDE };
        let size = t.x.blocks * bytes;
        // Bytes of 4 activations, and where the low ones are.
        let (step, low) = if I::SPLIT { (GROUP, BLOCK) } else { (2 * GROUP, 0) };
        let two_bytes = I::SPLIT && A16;
        let zero = I::Floats::splat(0.0);
        let rows: [usize; R] = std::array::from_fn(|r| t.first_row + r);
        let mut ahead = t.ahead;
        for chunk in (0..t.x.blocks).step_by(CHUNK_BLOCKS) {
            let mut chunk_sums = [[zero; P]; R];
            for b in chunk..t.x.blocks.min(chunk + CHUNK_BLOCKS) {
                let w = t.w.add(b * bytes);
                let x: [*const u8; R] =
                    std::array::from_fn(|r| t.x.slots(rows[r]).add(b * SLOT).cast_const());
                let plus: [i32; R] = std::array::from_fn(|r| -t.offset * *t.x.sums(rows[r]).add(b));
                let mut sums = [[I::start(0); P]; R];
                for r in 0..R {
                    let start = if two_bytes && R > FEW { 0 } else { plus[r] };
                    sums[r] = [I::start(start); P];
                }
                if R <= FEW {
                    // Every weight once: high and low bytes side by side.
                    let mut high = [[I::start(0); P]; R];
                    let over = b * bytes + AHEAD;
                    let over = if over < size { over } else { over - size + P * t.panel };
                    for i in 0..LINE / 16 {
                        for p in 0..P {
                            let lines = if HALVES { 1 } else { 2 };
                            for line in 0..lines {
                                let at = t.w.wrapping_add(p * t.w_pitch + over + (i * lines + line) * 64);
                                I::Floats::fetch_far(at);
                            }
                            let at = w.add(p * t.w_pitch + i * LINE);
                            let (one, two) = match HALVES {
                                true => I::nibbles(at),
                                false => (I::load(at), I::load(at.add(4 * LINE))),
                            };
                            for r in 0..R {
                                let (x, y) = (x[r].add(i * step), x[r].add((i + 4) * step));
                                if two_bytes {
                                    high[r][p] = I::dot(I::dot(high[r][p], one, x), two, y);
                                }
                                let (x, y) = if two_bytes { (x.add(low), y.add(low)) } else { (x, y) };
                                sums[r][p] = I::dot(I::dot(sums[r][p], one, x), two, y);
                            }
                        }
                    }
                    if two_bytes {
                        for r in 0..R {
                            for p in 0..P {
                                sums[r][p] = I::join(high[r][p], sums[r][p]);
                            }
                        }
                    }
                } else {
                    for _ in 0..t.ahead_lines {
                        I::Floats::fetch_far(ahead);
                        ahead = ahead.wrapping_add(64);
                    }
                    groups::<I, R, P>(&mut sums, w, t.w_pitch, &x, step);
                    if two_bytes {
                        for r in 0..R {
                            for p in 0..P {
                                sums[r][p] = I::join(sums[r][p], I::start(plus[r]));
                            }
                        }
                        let x: [*const u8; R] = std::array::from_fn(|r| x[r].add(low));
                        groups::<I, R, P>(&mut sums, w, t.w_pitch, &x, step);
                    }
                }
                let scale: [f32; R] = std::array::from_fn(|r| *t.x.scales(rows[r]).add(b));
                for p in 0..P {
                    let scales = I::Floats::load_f16(t.scales.add(p * t.panel + b * SCALES).cast());
                    for r in 0..R {
                        let both = I::Floats::splat(scale[r]).mul(scales);
                        chunk_sums[r][p] = I::floats(sums[r][p]).fma(both, chunk_sums[r][p]);
                    }
                }
                if !t.minimums.is_null() {
                    for p in 0..P {
                        let m = I::Floats::load_f16(t.minimums.add(p * t.panel + b * SCALES).cast());
                        for r in 0..R {
                            let share = I::Floats::splat(*t.x.shares(rows[r]).add(b));
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

/// Adds a block's products, one group of 4 inputs after the other.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn groups<I: Ints, const R: usize, const P: usize>(
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
            for r in 0..R {
                for p in 0..P {
                    sums[r][p] = I::dot(sums[r][p], weights[p], x[r].add(g * step));
                }
            }
        }
    }
}

/// The whole product, panels outside. With more than [`FEW`] rows 4-bit weights are widened first, some panels at
/// a time, once for all rows.
///
/// # Safety
/// The CPU has `I`'s instructions; the regions [`Dot`] describes are valid, its output and scratch are this
/// thread's alone.
#[inline(always)]
pub(crate) unsafe fn product<I: Ints>(a: &Dot) {
    let most = I::panels(a.rows.min(I::ROWS));
    let blocks = a.x.blocks;
    let narrow = a.format != Format::Q8;
    let widened = narrow && a.rows > FEW;
    let integers = blocks * if narrow { NARROW } else { WIDE };
    let mut p = 0;
    while p < a.panels {
        let np = [6, 3, 2, 1].into_iter().find(|&n| n <= most && n <= a.panels - p).unwrap_or(1);
        let first = a.w.wrapping_add(p * a.panel);
        let mut ahead = first.wrapping_add(np * a.panel);
        let tiles = (a.rows / I::ROWS).max(1);
        let lines = (np * a.panel).div_ceil(64 * tiles * blocks);
        let mut r = 0;
        // SAFETY: tiles partition the product's rows and panels. What is fetched ahead need not be valid.
        unsafe {
            if widened {
                for i in 0..np {
                    widen(first.add(i * a.panel), a.wide.add(i * blocks * WIDE), blocks);
                }
            }
            while r < a.rows {
                let nr = super::linear::rows_at_once(a.rows - r, I::ROWS);
                let t = Tile {
                    x: a.x,
                    first_row: r,
                    w: if widened { a.wide } else { first },
                    w_pitch: if widened { blocks * WIDE } else { a.panel },
                    scales: first.add(integers),
                    minimums: match a.format {
                        Format::Q4Min => first.add(integers + blocks * SCALES),
                        _ => std::ptr::null(),
                    },
                    panel: a.panel,
                    offset: a.format.offset(),
                    out: a.out.add(r * a.out_pitch + p * PANEL),
                    out_pitch: a.out_pitch,
                    ahead,
                    ahead_lines: lines,
                };
                I::tile(Shape { rows: nr, panels: np, narrow: narrow && !widened, bits: a.bits }, &t);
                ahead = ahead.wrapping_add(lines * blocks * 64);
                r += nr;
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
        match ($shape.rows, $shape.panels, $shape.narrow, a16) {
            // SAFETY: the caller's promise.
            $(($fr, $fp, true, true) => unsafe { tile::<$ints, true, true, $fr, $fp>($t) },
            ($fr, $fp, true, false) => unsafe { tile::<$ints, true, false, $fr, $fp>($t) },
            ($fr, $fp, false, true) => unsafe { tile::<$ints, false, true, $fr, $fp>($t) },
            ($fr, $fp, false, false) => unsafe { tile::<$ints, false, false, $fr, $fp>($t) },)*
            $(($mr, $mp, false, true) => unsafe { tile::<$ints, false, true, $mr, $mp>($t) },
            ($mr, $mp, false, false) => unsafe { tile::<$ints, false, false, $mr, $mp>($t) },)*
            _ => unreachable!("no tile of {:?}", $shape),
        }
    }};
}
pub(crate) use tiles;
