//! Integers by AVX2: pairs of 16-bit products, 16 in one instruction. 8-bit activations are words too: the
//! instruction for bytes saturates.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::dot::{FEW, Ints, Shape, Tile, tile, tiles};
use crate::spec::Activations;

pub(crate) struct Madd;

/// Weights of 4 inputs as words: 4 outputs a register. Sums: two parts for each output.
type Four = [__m256i; 4];

impl Ints for Madd {
    type Floats = Avx2;
    type Weights = Four;
    type Sums = Four;
    const SPLIT: bool = false;
    const ROWS: usize = 2;

    // SAFETY of every block below: the caller's promise.
    #[inline(always)]
    unsafe fn start(plus: i32) -> Four {
        // SAFETY: see above.
        unsafe { [_mm256_set1_epi64x(i64::from(plus as u32)); 4] }
    }
    #[inline(always)]
    unsafe fn load(p: *const u8) -> Four {
        // SAFETY: see above.
        unsafe {
            [
                _mm256_cvtepu8_epi16(_mm_loadu_si128(p.cast())),
                _mm256_cvtepu8_epi16(_mm_loadu_si128(p.add(16).cast())),
                _mm256_cvtepu8_epi16(_mm_loadu_si128(p.add(32).cast())),
                _mm256_cvtepu8_epi16(_mm_loadu_si128(p.add(48).cast())),
            ]
        }
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> (Four, Four) {
        // SAFETY: see above.
        unsafe {
            let (both, mask) = (Self::load(p), _mm256_set1_epi16(15));
            let (mut low, mut high) = (both, both);
            for i in 0..4 {
                low[i] = _mm256_and_si256(both[i], mask);
                high[i] = _mm256_srli_epi16::<4>(both[i]);
            }
            (low, high)
        }
    }
    #[inline(always)]
    unsafe fn dot(sums: Four, w: Four, x: *const u8) -> Four {
        // SAFETY: see above.
        unsafe {
            let x = _mm256_set1_epi64x(x.cast::<i64>().read_unaligned());
            let mut sums = sums;
            for i in 0..4 {
                sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(w[i], x));
            }
            sums
        }
    }
    #[inline(always)]
    unsafe fn join(_high: Four, low: Four) -> Four {
        // Words are whole: nothing is split, nothing joined.
        low
    }
    #[inline(always)]
    unsafe fn floats(s: Four) -> Avx2 {
        // SAFETY: see above.
        unsafe {
            // Outputs 0 1 4 5 2 3 6 7 after the addition of parts.
            let low = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(s[0], s[1]));
            let high = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(s[2], s[3]));
            Avx2(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn store(one: Avx2, two: Avx2, _bits: Activations, slot: *mut u8) -> i32 {
        // SAFETY: see above.
        unsafe {
            let (a, b) = (_mm256_cvtps_epi32(one.0), _mm256_cvtps_epi32(one.1));
            let (c, d) = (_mm256_cvtps_epi32(two.0), _mm256_cvtps_epi32(two.1));
            // Packing works within halves of a register; the permutation puts the order right.
            let first = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
            let second = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(c, d));
            _mm256_storeu_si256(slot.cast(), first);
            _mm256_storeu_si256(slot.add(32).cast(), second);
            let sum = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
            let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b01_00_11_10>(sum));
            _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32::<0b10_11_00_01>(sum)))
        }
    }

    #[inline(always)]
    fn panels(rows: usize) -> usize {
        if rows == 1 { 2 } else { 1 }
    }

    #[inline(always)]
    unsafe fn tile(shape: Shape, t: &Tile) {
        const { assert!(FEW == 2) };
        tiles!(Self, t, shape, few: [(1, 1) (1, 2) (2, 1)], many: []);
    }
}
