//! Sixteen lanes in two AVX2 registers, with FMA3.

use std::arch::x86_64::*;

use super::arith::{Arith, Lanes};
use super::floats::Weights;
use super::linear::{Tile, tile};

#[derive(Clone, Copy)]
pub(crate) struct Avx2(pub(super) __m256, pub(super) __m256);

/// Both halves through one two-operand intrinsic.
macro_rules! both {
    ($f:ident, $a:expr, $b:expr) => {
        // SAFETY: values of this type exist, so the CPU has AVX2 (see `Arith`).
        unsafe { Self($f($a.0, $b.0), $f($a.1, $b.1)) }
    };
}

// SAFETY of every block below: a value of this type exists, so the CPU has AVX2 and FMA (see `Arith`).
impl Arith for Avx2 {
    type Mask = (__m256, __m256);

    #[inline(always)]
    fn like(self, c: f32) -> Self {
        // SAFETY: see above.
        unsafe { Self::splat(c) }
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        both!(_mm256_add_ps, self, o)
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        both!(_mm256_sub_ps, self, o)
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        both!(_mm256_mul_ps, self, o)
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        both!(_mm256_div_ps, self, o)
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }
    #[inline(always)]
    fn neg(self) -> Self {
        both!(_mm256_xor_ps, self, self.like(-0.0))
    }
    #[inline(always)]
    fn lt(self, o: Self) -> Self::Mask {
        // SAFETY: see above.
        unsafe { (_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, o.0), _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, o.1)) }
    }
    #[inline(always)]
    fn select(m: Self::Mask, a: Self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_blendv_ps(b.0, a.0, m.0), _mm256_blendv_ps(b.1, a.1, m.1)) }
    }
    #[inline(always)]
    fn at_least(self, floor: Self) -> Self {
        // SAFETY: see above. `floor > self ? floor : self`.
        unsafe { Self(_mm256_max_ps(floor.0, self.0), _mm256_max_ps(floor.1, self.1)) }
    }
    #[inline(always)]
    fn at_most(self, ceiling: Self) -> Self {
        // SAFETY: see above. `ceiling < self ? ceiling : self`.
        unsafe { Self(_mm256_min_ps(ceiling.0, self.0), _mm256_min_ps(ceiling.1, self.1)) }
    }
    #[inline(always)]
    fn times_pow2(self, n: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(times_pow2(self.0, n.0), times_pow2(self.1, n.1)) }
    }
}

/// [`Arith::times_pow2`] of one register.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn times_pow2(y: __m256, n: __m256) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let n = _mm256_cvtps_epi32(n);
        let half = _mm256_srai_epi32::<1>(n);
        let y = _mm256_mul_ps(y, pow2(half));
        _mm256_mul_ps(y, pow2(_mm256_sub_epi32(n, half)))
    }
}

/// `2^n` for `-126 ≤ n ≤ 127`.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn pow2(n: __m256i) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))) }
}

impl Lanes for Avx2 {
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(c: f32) -> Self {
        // SAFETY: the caller's promise.
        let v = unsafe { _mm256_set1_ps(c) };
        Self(v, v)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        // SAFETY: the caller's promise; AVX2 here includes F16C.
        unsafe {
            let low = _mm256_cvtph_ps(_mm_loadu_si128(p.cast()));
            Self(low, _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast())))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let low = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())));
            let high = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast())));
            Self(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(p, self.0);
            _mm256_storeu_ps(p.add(8), self.1);
        }
    }
    #[inline(always)]
    fn first(self, n: usize) -> Self::Mask {
        // SAFETY: see above.
        unsafe {
            let n = _mm256_set1_epi32(n.min(16) as i32);
            let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
            let (low, high) = (_mm256_cmpgt_epi32(n, low), _mm256_cmpgt_epi32(n, high));
            (_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }
    #[inline(always)]
    fn holds(m: Self::Mask) -> bool {
        // SAFETY: see above.
        unsafe { _mm256_movemask_ps(_mm256_and_ps(m.0, m.1)) == 0xff }
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let v = _mm256_max_ps(self.0, self.1);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    fn dup_even(self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_moveldup_ps(self.0), _mm256_moveldup_ps(self.1)) }
    }
    #[inline(always)]
    fn dup_odd(self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_movehdup_ps(self.0), _mm256_movehdup_ps(self.1)) }
    }
    #[inline(always)]
    fn swap_pairs(self) -> Self {
        // SAFETY: see above.
        unsafe {
            Self(_mm256_permute_ps::<0b10_11_00_01>(self.0), _mm256_permute_ps::<0b10_11_00_01>(self.1))
        }
    }
    #[inline(always)]
    fn neg_even(self) -> Self {
        // SAFETY: see above.
        let sign = unsafe { _mm256_setr_ps(-0.0, 0.0, -0.0, 0.0, -0.0, 0.0, -0.0, 0.0) };
        both!(_mm256_xor_ps, self, Self(sign, sign))
    }

    #[inline(always)]
    unsafe fn fetch_near(p: *const u8) {
        // SAFETY: a hint; any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn fetch_far(p: *const u8) {
        // SAFETY: a hint; any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    fn panels(rows: usize) -> usize {
        match rows {
            0 | 1 => 6,
            2 => 3,
            3 => 2,
            _ => 1,
        }
    }

    #[inline(always)]
    unsafe fn tile<W: Weights>(rows: usize, panels: usize, t: &Tile) {
        macro_rules! tiles {
            ($(($r:literal, $p:literal))*) => {
                match (rows, panels) {
                    // SAFETY: the caller's promise.
                    $(($r, $p) => unsafe { tile::<Self, W, $r, $p>(t) },)*
                    _ => unreachable!("no tile of {rows} × {panels}"),
                }
            };
        }
        tiles! {
            (1, 1) (2, 1) (3, 1) (4, 1) (5, 1) (6, 1)
            (1, 2) (2, 2) (3, 2)
            (1, 3) (2, 3)
            (1, 4) (1, 5) (1, 6)
        }
    }
}
