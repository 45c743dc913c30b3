//! Integers by VNNI: 64 products of an unsigned and a signed byte in one AVX-512 instruction.

use std::arch::x86_64::*;

use super::avx512::Avx512;
use super::dot::{FEW, Ints, Shape, Tile, tile, tiles};
use crate::matrix::BLOCK;
use crate::spec::Activations;

pub(crate) struct Vnni;

impl Ints for Vnni {
    type Floats = Avx512;
    type Weights = __m512i;
    type Sums = __m512i;
    const SPLIT: bool = true;
    // By three panels: 12 sums in integers, 12 in floats and the weights fit the registers.
    const ROWS: usize = 4;

    // SAFETY of every block below: the caller's promise.
    #[inline(always)]
    unsafe fn start(plus: i32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(plus) }
    }
    #[inline(always)]
    unsafe fn load(p: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> (__m512i, __m512i) {
        // SAFETY: see above.
        unsafe {
            let (both, mask) = (Self::load(p), _mm512_set1_epi8(15));
            (_mm512_and_si512(both, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask))
        }
    }
    #[inline(always)]
    unsafe fn dot(sums: __m512i, w: __m512i, x: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_dpbusd_epi32(sums, w, _mm512_set1_epi32(x.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn join(high: __m512i, low: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_add_epi32(_mm512_slli_epi32::<8>(high), low) }
    }
    #[inline(always)]
    unsafe fn floats(sums: __m512i) -> Avx512 {
        // SAFETY: see above.
        Avx512(unsafe { _mm512_cvtepi32_ps(sums) })
    }
    #[inline(always)]
    unsafe fn store(one: Avx512, two: Avx512, bits: Activations, slot: *mut u8) -> i32 {
        // SAFETY: see above.
        unsafe {
            let (one, two) = (_mm512_cvtps_epi32(one.0), _mm512_cvtps_epi32(two.0));
            let words = _mm512_castsi256_si512(_mm512_cvtepi32_epi16(one));
            let words = _mm512_inserti64x4::<1>(words, _mm512_cvtepi32_epi16(two));
            let low = _mm512_cvtepi16_epi8(words);
            if bits == Activations::A8 {
                _mm256_storeu_si256(slot.cast(), low);
            } else {
                // The low byte has a sign, so the high one is what is left of q − l.
                let high = _mm512_srai_epi16::<8>(_mm512_add_epi16(words, _mm512_set1_epi16(128)));
                _mm256_storeu_si256(slot.cast(), _mm512_cvtepi16_epi8(high));
                _mm256_storeu_si256(slot.add(BLOCK).cast(), low);
            }
            _mm512_reduce_add_epi32(_mm512_add_epi32(one, two))
        }
    }

    #[inline(always)]
    fn panels(rows: usize) -> usize {
        // With few rows many streams keep memory busy.
        if rows <= FEW { 6 } else { 3 }
    }

    #[inline(always)]
    unsafe fn tile(shape: Shape, t: &Tile) {
        const { assert!(FEW == 2) };
        tiles!(Self, t, shape, few: [(1, 1) (1, 2) (1, 3) (1, 6) (2, 1) (2, 2) (2, 3) (2, 6)],
               many: [(3, 1) (3, 2) (3, 3) (4, 1) (4, 2) (4, 3)]);
    }
}
