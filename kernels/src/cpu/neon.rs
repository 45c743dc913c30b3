//! Sixteen lanes in four NEON registers.

use std::arch::aarch64::*;
use std::arch::asm;
use std::array;

use super::arith::{Arith, Lanes};
use super::floats::Weights;
use super::linear::{Tile, tile};

/// The first four lanes first.
#[derive(Clone, Copy)]
pub(crate) struct Neon(pub(super) [float32x4_t; 4]);

/// The same for each of the four registers.
macro_rules! each {
    (|$i:ident| $value:expr) => {
        // SAFETY: values of this type exist, so the CPU has NEON (see `Arith`).
        array::from_fn(|$i| unsafe { $value })
    };
}

/// Four f16 to f32, exactly: an instruction that all of AArch64 has, though no stable Rust a name for it.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn widen_f16(halves: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("fcvtl {wide:v}.4s, {halves:v}.4h", wide = lateout(vreg) wide, halves = in(vreg) halves,
             options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

// SAFETY of every block below: a value of this type exists, so the CPU has NEON (see `Arith`).
impl Arith for Neon {
    type Mask = [uint32x4_t; 4];

    #[inline(always)]
    fn like(self, c: f32) -> Self {
        // SAFETY: see above.
        Self([unsafe { vdupq_n_f32(c) }; 4])
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        Self(each!(|i| vaddq_f32(self.0[i], o.0[i])))
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        Self(each!(|i| vsubq_f32(self.0[i], o.0[i])))
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        Self(each!(|i| vmulq_f32(self.0[i], o.0[i])))
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        Self(each!(|i| vdivq_f32(self.0[i], o.0[i])))
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Self(each!(|i| vfmaq_f32(c.0[i], self.0[i], b.0[i])))
    }
    #[inline(always)]
    fn neg(self) -> Self {
        Self(each!(|i| vnegq_f32(self.0[i])))
    }
    #[inline(always)]
    fn lt(self, o: Self) -> Self::Mask {
        each!(|i| vcltq_f32(self.0[i], o.0[i]))
    }
    #[inline(always)]
    fn select(m: Self::Mask, a: Self, b: Self) -> Self {
        Self(each!(|i| vbslq_f32(m[i], a.0[i], b.0[i])))
    }
    #[inline(always)]
    fn times_pow2(self, n: Self) -> Self {
        Self(each!(|i| {
            let n = vcvtq_s32_f32(n.0[i]);
            let half = vshrq_n_s32::<1>(n);
            vmulq_f32(vmulq_f32(self.0[i], pow2(half)), pow2(vsubq_s32(n, half)))
        }))
    }
}

/// `2^n` for `-126 ≤ n ≤ 127`.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn pow2(n: int32x4_t) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127)))) }
}

impl Lanes for Neon {
    // Of 32 registers, six rows of one panel take 24 and its weights 4.
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(c: f32) -> Self {
        // SAFETY: the caller's promise.
        Self([unsafe { vdupq_n_f32(c) }; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(each!(|i| vld1q_f32(p.add(4 * i))))
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        Self(each!(|i| widen_f16(vld1_u16(p.add(4 * i)))))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        Self(each!(|i| vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p.add(4 * i))))))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        for (i, four) in self.0.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { vst1q_f32(p.add(4 * i), four) };
        }
    }
    #[inline(always)]
    fn first(self, n: usize) -> Self::Mask {
        let lanes: [u32; 16] = array::from_fn(|l| l as u32);
        // SAFETY: see above.
        let n = unsafe { vdupq_n_u32(n.min(16) as u32) };
        // The array holds the 16 numbers that are read.
        each!(|i| vcltq_u32(vld1q_u32(lanes.as_ptr().add(4 * i)), n))
    }
    #[inline(always)]
    fn holds(m: Self::Mask) -> bool {
        // SAFETY: see above.
        unsafe { vminvq_u32(vandq_u32(vandq_u32(m[0], m[1]), vandq_u32(m[2], m[3]))) == u32::MAX }
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        let [a, b, c, d] = self.0;
        // SAFETY: see above.
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(a, b), vmaxq_f32(c, d))) }
    }
    #[inline(always)]
    fn dup_even(self) -> Self {
        Self(each!(|i| vtrn1q_f32(self.0[i], self.0[i])))
    }
    #[inline(always)]
    fn dup_odd(self) -> Self {
        Self(each!(|i| vtrn2q_f32(self.0[i], self.0[i])))
    }
    #[inline(always)]
    fn swap_pairs(self) -> Self {
        Self(each!(|i| vrev64q_f32(self.0[i])))
    }
    #[inline(always)]
    fn neg_even(self) -> Self {
        Self(each!(|i| vtrn1q_f32(vnegq_f32(self.0[i]), vrev64q_f32(self.0[i]))))
    }

    #[inline(always)]
    unsafe fn fetch_near(p: *const u8) {
        // SAFETY: a hint; any address will do, and nothing is read that the program could see.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) p, options(nomem, nostack, preserves_flags)) };
    }
    #[inline(always)]
    unsafe fn fetch_far(p: *const u8) {
        // SAFETY: as above.
        unsafe { asm!("prfm pldl2keep, [{}]", in(reg) p, options(nomem, nostack, preserves_flags)) };
    }

    #[inline(always)]
    fn panels(rows: usize) -> usize {
        // What fits the registers, weights and accumulators, without spilling.
        match rows {
            0 | 1 => 3,
            2 => 2,
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
            (1, 2) (2, 2)
            (1, 3)
        }
    }
}
