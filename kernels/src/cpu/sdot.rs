//! Integers by SDOT: 16 products of signed bytes in one NEON instruction.

use std::arch::aarch64::*;
use std::arch::asm;
use std::array;

use super::dot::{FEW, Ints, Shape, Tile, tile, tiles};
use super::neon::Neon;
use super::neon_words::rounded;
use crate::matrix::BLOCK;
use crate::spec::Activations;

pub(crate) struct Sdot;

/// 4 outputs a register.
type Bytes = [int8x16_t; 4];
type Sums = [int32x4_t; 4];

/// 64 bytes.
///
/// # Safety
/// The CPU has NEON; the bytes are readable.
#[inline(always)]
unsafe fn bytes(p: *const u8) -> [uint8x16_t; 4] {
    // SAFETY: the caller's promise.
    array::from_fn(|i| unsafe { vld1q_u8(p.add(16 * i)) })
}

/// `sum` and the products of each lane's 4 bytes with the 4 of `x`; no stable Rust has a name for it.
///
/// # Safety
/// The CPU has SDOT.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot(sum: int32x4_t, w: int8x16_t, x: f32) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[0]", sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
             options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

impl Ints for Sdot {
    type Floats = Neon;
    type Weights = Bytes;
    type Sums = Sums;
    const SPLIT: bool = true;
    // Both its operands have signs: a stored weight with its highest bit flipped, which takes off 128.
    const LESS: i32 = 128;
    // Of 32 registers the sums take 24 and the weights 4.
    const ROWS: usize = 6;

    // SAFETY of every block below: the caller's promise.
    #[inline(always)]
    unsafe fn start(plus: i32) -> Sums {
        // SAFETY: see above.
        unsafe { [vdupq_n_s32(plus); 4] }
    }
    #[inline(always)]
    unsafe fn load(p: *const u8) -> Bytes {
        // SAFETY: see above.
        unsafe { bytes(p).map(|b| vreinterpretq_s8_u8(veorq_u8(b, vdupq_n_u8(128)))) }
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> (Bytes, Bytes) {
        // SAFETY: see above.
        unsafe {
            let both = bytes(p);
            let low = both.map(|b| vreinterpretq_s8_u8(vandq_u8(b, vdupq_n_u8(15))));
            (low, both.map(|b| vreinterpretq_s8_u8(vshrq_n_u8::<4>(b))))
        }
    }
    #[inline(always)]
    unsafe fn dot(sums: Sums, w: Bytes, x: *const u8) -> Sums {
        // SAFETY: see above.
        unsafe {
            // Four bytes in the register of a float, which no arithmetic sees.
            let x = x.cast::<f32>().read_unaligned();
            [sdot(sums[0], w[0], x), sdot(sums[1], w[1], x), sdot(sums[2], w[2], x), sdot(sums[3], w[3], x)]
        }
    }
    #[inline(always)]
    unsafe fn join(high: Sums, low: Sums) -> Sums {
        // SAFETY: see above.
        array::from_fn(|i| unsafe { vaddq_s32(vshlq_n_s32::<8>(high[i]), low[i]) })
    }
    #[inline(always)]
    unsafe fn floats(sums: Sums) -> Neon {
        // SAFETY: see above.
        Neon(sums.map(|s| unsafe { vcvtq_f32_s32(s) }))
    }
    #[inline(always)]
    unsafe fn store(one: Neon, two: Neon, bits: Activations, slot: *mut u8) -> i32 {
        // SAFETY: see above.
        unsafe {
            let (words, sum) = rounded(one, two);
            for (i, eight) in words.into_iter().enumerate() {
                let low = vreinterpret_u8_s8(vmovn_s16(eight));
                if bits == Activations::A8 {
                    vst1_u8(slot.add(8 * i), low);
                } else {
                    // The low byte has a sign, so the high one is what is left of q − l: q / 256, rounded.
                    vst1_u8(slot.add(8 * i), vreinterpret_u8_s8(vrshrn_n_s16::<8>(eight)));
                    vst1_u8(slot.add(BLOCK + 8 * i), low);
                }
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
        tiles!(Self, t, shape, few: [(1, 1) (1, 2) (2, 1)], many: [(3, 1) (4, 1) (5, 1) (6, 1)]);
    }
}
