//! Integers by what all of AArch64 has: products of 16-bit words, added to 32 bits. 8-bit activations are words too.

use std::arch::aarch64::*;

use super::dot::{FEW, Ints, Shape, Tile, tile, tiles};
use super::neon::Neon;
use crate::spec::Activations;

pub(crate) struct NeonWords;

/// Each of 4 inputs' weights as words: outputs 0 to 7 and 8 to 15.
type Words = [[uint16x8_t; 2]; 4];
/// 4 outputs a register.
type Sums = [int32x4_t; 4];

/// 16 bytes of each of 4 inputs to words.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn words(bytes: [uint8x16_t; 4]) -> Words {
    // SAFETY: the caller's promise.
    bytes.map(|b| unsafe { [vmovl_u8(vget_low_u8(b)), vmovl_high_u8(b)] })
}

/// The bytes of 4 inputs, each with its 16 outputs, from where they stand side by side for each output.
///
/// # Safety
/// The CPU has NEON; 64 bytes are readable.
#[inline(always)]
unsafe fn inputs(p: *const u8) -> [uint8x16_t; 4] {
    // SAFETY: the caller's promise.
    let uint8x16x4_t(a, b, c, d) = unsafe { vld4q_u8(p) };
    [a, b, c, d]
}

impl Ints for NeonWords {
    type Floats = Neon;
    type Weights = Words;
    type Sums = Sums;
    const SPLIT: bool = false;
    // Of 32 registers the sums take 12, the weights 8, and products, which the compiler adds up before they join
    // the sums, 12.
    const ROWS: usize = 3;

    // SAFETY of every block below: the caller's promise.
    #[inline(always)]
    unsafe fn start(plus: i32) -> Sums {
        // SAFETY: see above.
        unsafe { [vdupq_n_s32(plus); 4] }
    }
    #[inline(always)]
    unsafe fn load(p: *const u8) -> Words {
        // SAFETY: see above.
        unsafe { words(inputs(p)) }
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> (Words, Words) {
        // SAFETY: see above.
        unsafe {
            let both = inputs(p);
            let low = both.map(|b| vandq_u8(b, vdupq_n_u8(15)));
            (words(low), words(both.map(|b| vshrq_n_u8::<4>(b))))
        }
    }
    #[inline(always)]
    unsafe fn dot(sums: Sums, w: Words, x: *const u8) -> Sums {
        // SAFETY: see above.
        unsafe {
            let x = vld1_s16(x.cast());
            let mut sums = sums;
            macro_rules! add {
                ($($input:literal)*) => { $(
                    // Eight bits without a sign are the same word with one.
                    let [a, b] = w[$input].map(|w| vreinterpretq_s16_u16(w));
                    sums[0] = vmlal_lane_s16::<$input>(sums[0], vget_low_s16(a), x);
                    sums[1] = vmlal_high_lane_s16::<$input>(sums[1], a, x);
                    sums[2] = vmlal_lane_s16::<$input>(sums[2], vget_low_s16(b), x);
                    sums[3] = vmlal_high_lane_s16::<$input>(sums[3], b, x);
                )* };
            }
            add!(0 1 2 3);
            sums
        }
    }
    #[inline(always)]
    unsafe fn join(_high: Sums, low: Sums) -> Sums {
        // Words are whole: nothing is split, nothing joined.
        low
    }
    #[inline(always)]
    unsafe fn floats(sums: Sums) -> Neon {
        // SAFETY: see above.
        Neon(sums.map(|s| unsafe { vcvtq_f32_s32(s) }))
    }
    #[inline(always)]
    unsafe fn store(one: Neon, two: Neon, _bits: Activations, slot: *mut u8) -> i32 {
        // SAFETY: see above.
        unsafe {
            let (words, sum) = rounded(one, two);
            for (i, eight) in words.into_iter().enumerate() {
                vst1q_s16(slot.cast::<i16>().add(8 * i), eight);
            }
            sum
        }
    }

    #[inline(always)]
    fn panels(rows: usize) -> usize {
        if rows == 1 { 2 } else { 1 }
    }

    #[inline(always)]
    unsafe fn tile(shape: Shape, t: &Tile) {
        const { assert!(FEW == 2) };
        tiles!(Self, t, shape, few: [(1, 1) (1, 2) (2, 1)], many: [(3, 1)]);
    }
}

/// 32 floats, half to even, as words, and their sum.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
pub(super) unsafe fn rounded(one: Neon, two: Neon) -> ([int16x8_t; 4], i32) {
    // SAFETY: the caller's promise.
    unsafe {
        let ([a, b, c, d], [e, f, g, h]) =
            (one.0.map(|v| vcvtnq_s32_f32(v)), two.0.map(|v| vcvtnq_s32_f32(v)));
        let pairs = [(a, b), (c, d), (e, f), (g, h)];
        let words = pairs.map(|(low, high)| vcombine_s16(vmovn_s32(low), vmovn_s32(high)));
        let [a, b, c, d] = pairs.map(|(low, high)| vaddq_s32(low, high));
        (words, vaddvq_s32(vaddq_s32(vaddq_s32(a, b), vaddq_s32(c, d))))
    }
}
