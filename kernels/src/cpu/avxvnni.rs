//! Integers by AVX-VNNI: 32 products of an unsigned and a signed byte in one AVX2 instruction.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::dot::{FEW, Ints, Shape, Tile, tile, tiles};
use super::madd::Madd;
use crate::matrix::BLOCK;
use crate::spec::Activations;

pub(crate) struct AvxVnni;

/// 8 outputs a register.
type Two = [__m256i; 2];

impl Ints for AvxVnni {
    type Floats = Avx2;
    type Weights = Two;
    type Sums = Two;
    const SPLIT: bool = true;
    const ROWS: usize = 3;

    // SAFETY of every block below: the caller's promise.
    #[inline(always)]
    unsafe fn start(plus: i32) -> Two {
        // SAFETY: see above.
        unsafe { [_mm256_set1_epi32(plus); 2] }
    }
    #[inline(always)]
    unsafe fn load(p: *const u8) -> Two {
        // SAFETY: see above.
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> (Two, Two) {
        // SAFETY: see above.
        unsafe {
            let (both, mask) = (Self::load(p), _mm256_set1_epi8(15));
            let low = [_mm256_and_si256(both[0], mask), _mm256_and_si256(both[1], mask)];
            let high = [_mm256_srli_epi16::<4>(both[0]), _mm256_srli_epi16::<4>(both[1])];
            (low, [_mm256_and_si256(high[0], mask), _mm256_and_si256(high[1], mask)])
        }
    }
    #[inline(always)]
    unsafe fn dot(s: Two, w: Two, x: *const u8) -> Two {
        // SAFETY: see above.
        unsafe {
            let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
            [_mm256_dpbusd_avx_epi32(s[0], w[0], x), _mm256_dpbusd_avx_epi32(s[1], w[1], x)]
        }
    }
    #[inline(always)]
    unsafe fn join(high: Two, low: Two) -> Two {
        // SAFETY: see above.
        unsafe {
            [
                _mm256_add_epi32(_mm256_slli_epi32::<8>(high[0]), low[0]),
                _mm256_add_epi32(_mm256_slli_epi32::<8>(high[1]), low[1]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn floats(s: Two) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(_mm256_cvtepi32_ps(s[0]), _mm256_cvtepi32_ps(s[1])) }
    }
    #[inline(always)]
    unsafe fn store(one: Avx2, two: Avx2, bits: Activations, slot: *mut u8) -> i32 {
        let mut words = [0i16; BLOCK];
        // SAFETY: see above; the array holds a block of words.
        let sum = unsafe { Madd::store(one, two, bits, words.as_mut_ptr().cast()) };
        // SAFETY: a slot holds 64 bytes.
        let slot = unsafe { std::slice::from_raw_parts_mut(slot, 2 * BLOCK) };
        for (i, q) in words.into_iter().enumerate() {
            if bits == Activations::A8 {
                slot[i] = q as u8;
            } else {
                // The low byte has a sign, so the high one is what is left of q − l.
                slot[i] = ((q + 128) >> 8) as u8;
                slot[BLOCK + i] = q as u8;
            }
        }
        sum
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
