//! Activations of a product of integers: rows in blocks of 32 with a scale each, and how a row of floats becomes
//! one. Generic over the implementation's integers. Knows no weights.

use super::arith::{Arith, Lanes};
use super::dot::Ints;
use super::linear::PANEL;
use super::rows;
use crate::matrix::BLOCK;
use crate::spec::Activations;

/// Bytes of a block's integers.
pub(crate) const SLOT: usize = 64;
/// Below this a block is all zeros: 2^-100.
pub(crate) const TINY: f32 = f32::from_bits((127 - 100) << 23);

impl Activations {
    /// The largest integer an activation becomes. In 16 bits it is the largest sum `256·h + l` of two signed
    /// bytes with both its signs.
    pub(crate) fn most(self) -> f32 {
        if self == Activations::A8 { 127.0 } else { 32639.0 }
    }
}

/// Rows of quantised activations, all of one length. Of a row first each block's integers, in 64 bytes, as the
/// implementation wants them (see [`Ints::SPLIT`]), then f32 scales, i32 sums of the integers, and f32
/// `float(sum)·scale`, one of each for a block.
#[derive(Clone, Copy)]
pub(crate) struct Quants {
    pub at: *mut u8,
    /// Bytes from one row to the next.
    pub pitch: usize,
    pub blocks: usize,
}

/// Bytes of a row of `k` activations: whole cache lines, an odd number of them.
pub(crate) fn row_bytes(k: usize) -> usize {
    ((k.div_ceil(BLOCK) * (SLOT + 12)).div_ceil(64) | 1) * 64
}

impl Quants {
    /// # Safety
    /// Of all of these: the row lies within the memory the rows were made in.
    #[inline(always)]
    pub(crate) unsafe fn slots(&self, row: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.at.add(row * self.pitch) }
    }
    /// # Safety
    /// See [`Quants::slots`].
    #[inline(always)]
    pub(crate) unsafe fn scales(&self, row: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.slots(row).add(self.blocks * SLOT).cast() }
    }
    /// # Safety
    /// See [`Quants::slots`].
    #[inline(always)]
    pub(crate) unsafe fn sums(&self, row: usize) -> *mut i32 {
        // SAFETY: the caller's promise.
        unsafe { self.slots(row).add(self.blocks * (SLOT + 4)).cast() }
    }
    /// # Safety
    /// See [`Quants::slots`].
    #[inline(always)]
    pub(crate) unsafe fn shares(&self, row: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.slots(row).add(self.blocks * (SLOT + 8)).cast() }
    }

    /// Notes a block's scale and the sum of its integers.
    ///
    /// # Safety
    /// See [`Quants::slots`]; `b` is below the number of blocks.
    #[inline(always)]
    pub(crate) unsafe fn note(&self, row: usize, b: usize, scale: f32, sum: i32) {
        // SAFETY: the caller's promise.
        unsafe {
            *self.scales(row).add(b) = scale;
            *self.sums(row).add(b) = sum;
            *self.shares(row).add(b) = sum as f32 * scale;
        }
    }
}

/// Scale and its inverse for a block whose largest magnitude is `most`; None where all is to be zero.
#[inline(always)]
pub(crate) fn scale_of(most: f32, bits: Activations) -> Option<(f32, f32)> {
    if most < TINY {
        return None;
    }
    let scale = most / bits.most();
    Some((scale, 1.0 / scale))
}

/// |v|, lane by lane; NaN stays NaN.
#[inline(always)]
fn magnitude<L: Lanes>(v: L) -> L {
    L::select(v.lt(v.like(0.0)), v.neg(), v)
}

#[inline(always)]
fn larger<L: Lanes>(a: L, b: L) -> L {
    L::select(a.lt(b), b, a)
}

/// v · inverse, within ±limit.
#[inline(always)]
fn scaled<L: Lanes>(v: L, inverse: L, limit: L) -> L {
    let v = v.mul(inverse);
    let v = L::select(limit.lt(v), limit, v);
    L::select(v.lt(limit.neg()), limit.neg(), v)
}

/// A row of floats to row 0 of `out`. A block with a NaN or an infinity gets the scale NaN, so that what is
/// computed from it is NaN and noticed.
///
/// # Safety
/// The CPU has `I`'s instructions; `out` has room for the row.
#[inline(always)]
pub(crate) unsafe fn quantise<I: Ints>(x: &[f32], bits: Activations, out: Quants) {
    // SAFETY: the caller's promise; blocks and lanes stay inside `x` and the row.
    unsafe {
        let zero = I::Floats::splat(0.0);
        let (limit, infinity) = (I::Floats::splat(bits.most()), I::Floats::splat(f32::INFINITY));
        for b in 0..out.blocks {
            let one = rows::read::<I::Floats>(x, b * BLOCK);
            let two = rows::read::<I::Floats>(x, b * BLOCK + PANEL);
            let slot = out.slots(0).add(b * SLOT);
            let (m, n) = (magnitude(one), magnitude(two));
            let scale = if I::Floats::holds(m.lt(infinity)) && I::Floats::holds(n.lt(infinity)) {
                scale_of(larger(m, n).largest(), bits)
            } else {
                Some((f32::NAN, f32::NAN))
            };
            match scale {
                Some((scale, inverse)) if scale > 0.0 => {
                    let inverse = I::Floats::splat(inverse);
                    let (one, two) = (scaled(one, inverse, limit), scaled(two, inverse, limit));
                    let sum = I::store(one, two, bits, slot);
                    out.note(0, b, scale, sum);
                }
                scale => {
                    I::store(zero, zero, bits, slot);
                    out.note(0, b, scale.map_or(0.0, |(scale, _)| scale), 0);
                }
            }
        }
    }
}
