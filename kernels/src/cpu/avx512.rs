//! Sixteen lanes in one AVX-512 register.

use std::arch::x86_64::*;

use super::arith::{Arith, Lanes};
use super::floats::Weights;
use super::linear::{Tile, tile};

#[derive(Clone, Copy)]
pub(crate) struct Avx512(pub(super) __m512);

// SAFETY of every block below: a value of this type exists, so the CPU has AVX-512F (see `Arith`).
impl Arith for Avx512 {
    type Mask = __mmask16;

    #[inline(always)]
    fn like(self, c: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(c) })
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_ps(self.0, o.0) })
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_sub_ps(self.0, o.0) })
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mul_ps(self.0, o.0) })
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_div_ps(self.0, o.0) })
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let sign = _mm512_set1_epi32(i32::MIN);
            Self(_mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(self.0), sign)))
        }
    }
    #[inline(always)]
    fn lt(self, o: Self) -> __mmask16 {
        // SAFETY: see above.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, o.0) }
    }
    #[inline(always)]
    fn select(m: __mmask16, a: Self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mask_blend_ps(m, b.0, a.0) })
    }
    #[inline(always)]
    fn at_least(self, floor: Self) -> Self {
        // SAFETY: see above. `floor > self ? floor : self`.
        Self(unsafe { _mm512_max_ps(floor.0, self.0) })
    }
    #[inline(always)]
    fn at_most(self, ceiling: Self) -> Self {
        // SAFETY: see above. `ceiling < self ? ceiling : self`.
        Self(unsafe { _mm512_min_ps(ceiling.0, self.0) })
    }
    #[inline(always)]
    fn times_pow2(self, n: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }
}

impl Lanes for Avx512 {
    const ROWS: usize = 8;

    #[inline(always)]
    unsafe fn splat(c: f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_set1_ps(c) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_loadu_ps(p) })
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) })
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    fn first(self, n: usize) -> __mmask16 {
        if n >= 16 { u16::MAX } else { (1u16 << n) - 1 }
    }
    #[inline(always)]
    fn holds(m: __mmask16) -> bool {
        m == u16::MAX
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
    #[inline(always)]
    fn dup_even(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_moveldup_ps(self.0) })
    }
    #[inline(always)]
    fn dup_odd(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_movehdup_ps(self.0) })
    }
    #[inline(always)]
    fn swap_pairs(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_permute_ps::<0b10_11_00_01>(self.0) })
    }
    #[inline(always)]
    fn neg_even(self) -> Self {
        Self::select(0x5555, self.neg(), self)
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
            // Six streams keep the most memory in flight; four rows of them just fit the registers.
            0..=4 => 6,
            5 | 6 => 4,
            _ => 3,
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
            (1, 1) (2, 1) (3, 1) (4, 1) (5, 1) (6, 1) (7, 1) (8, 1)
            (1, 2) (2, 2) (3, 2) (4, 2) (5, 2) (6, 2) (7, 2) (8, 2)
            (1, 3) (2, 3) (3, 3) (4, 3) (5, 3) (6, 3) (7, 3) (8, 3)
            (1, 4) (2, 4) (3, 4) (4, 4) (5, 4) (6, 4)
            (1, 5) (2, 5) (3, 5) (4, 5)
            (1, 6) (2, 6) (3, 6) (4, 6)
        }
    }
}
