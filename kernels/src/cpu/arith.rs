//! The allowed operations of the numeric contract, over one f32 or sixteen lanes. Every formula written
//! against [`Arith`] is one operation sequence with one result per lane, whichever type computes it.
//! Knows no block.

/// `+ − × ÷ fma`, compare, select and exact integer steps over one or many f32.
///
/// Holding a value of a SIMD type is the proof that the CPU has its instructions: the only ways to make one
/// from nothing ([`Lanes::splat`], [`Lanes::load`]) are unsafe and ask for them. So these methods are safe.
pub(crate) trait Arith: Copy {
    type Mask: Copy;

    /// `c` in every lane.
    fn like(self, c: f32) -> Self;
    fn add(self, o: Self) -> Self;
    fn sub(self, o: Self) -> Self;
    fn mul(self, o: Self) -> Self;
    fn div(self, o: Self) -> Self;
    /// `self·b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// The sign flipped, nothing else.
    fn neg(self) -> Self;
    /// `self < o`; false for NaN.
    fn lt(self, o: Self) -> Self::Mask;
    /// `a` where the mask holds, else `b`.
    fn select(m: Self::Mask, a: Self, b: Self) -> Self;

    /// `floor` where `self < floor`, else `self`, NaN with it.
    #[inline(always)]
    fn at_least(self, floor: Self) -> Self {
        Self::select(self.lt(floor), floor, self)
    }
    /// `ceiling` where `ceiling < self`, else `self`, NaN with it.
    #[inline(always)]
    fn at_most(self, ceiling: Self) -> Self {
        Self::select(ceiling.lt(self), ceiling, self)
    }
    /// `self · 2^n`, rounded once, for a whole n with `|n| ≤ 252` and `1/2 ≤ |self| < 4`; NaN stays NaN.
    ///
    /// Where there is no instruction for it, by two powers of two: the first product is exact.
    fn times_pow2(self, n: Self) -> Self;
}

/// Sixteen f32 lanes, however many registers that takes.
pub(crate) trait Lanes: Arith {
    /// # Safety
    /// The CPU has this type's instructions.
    unsafe fn splat(c: f32) -> Self;
    /// # Safety
    /// The CPU has this type's instructions; 16 floats are readable at `p` (any alignment).
    unsafe fn load(p: *const f32) -> Self;
    /// 16 f16, widened exactly.
    /// # Safety
    /// The CPU has this type's instructions; 32 bytes are readable at `p` (any alignment).
    unsafe fn load_f16(p: *const u16) -> Self;
    /// 16 bf16, widened exactly.
    /// # Safety
    /// As [`Lanes::load_f16`].
    unsafe fn load_bf16(p: *const u16) -> Self;
    /// # Safety
    /// 16 floats are writable at `p` (any alignment).
    unsafe fn store(self, p: *mut f32);
    /// Lanes `0..n`.
    fn first(self, n: usize) -> Self::Mask;
    /// Does the mask hold in every lane?
    fn holds(m: Self::Mask) -> bool;
    /// The largest lane. None is NaN, and which of +0 and −0 it is may differ.
    fn largest(self) -> f32;
    /// Lanes 0,0,2,2,4,4…
    fn dup_even(self) -> Self;
    /// Lanes 1,1,3,3,5,5…
    fn dup_odd(self) -> Self;
    /// Lanes 1,0,3,2…
    fn swap_pairs(self) -> Self;
    /// The sign of lanes 0,2,4… flipped.
    fn neg_even(self) -> Self;

    /// Asks for the cache line at `p`, which need not be valid, in the first-level cache.
    /// # Safety
    /// The CPU has this type's instructions.
    unsafe fn fetch_near(p: *const u8);
    /// [`Lanes::fetch_near`] for the second-level cache.
    /// # Safety
    /// The CPU has this type's instructions.
    unsafe fn fetch_far(p: *const u8);

    /// How many panels a product takes at once with this many rows of activations.
    fn panels(rows: usize) -> usize;
    /// Most rows one register tile holds.
    const ROWS: usize;
    /// The register tile of `rows` × `panels`; see [`super::linear::tile`].
    /// # Safety
    /// As [`super::linear::tile`]; `rows ≤ ROWS`, `panels ≤ Self::panels(rows)`.
    unsafe fn tile<W: super::floats::Weights>(rows: usize, panels: usize, t: &super::linear::Tile);
}

/// `a·b + c` rounded once, from f64 operations only: software `fmaf` is wrong in several C libraries.
///
/// The product of two f32 is exact in f64. The sum is rounded to odd (its exact error tells whether the last
/// bit must be made odd), and rounding an odd-rounded 53-bit sum to 24 bits is rounding once
/// (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
#[inline]
pub(crate) fn fma_exact(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    let sum = product + c;
    // TwoSum: the exact error of the addition.
    let t = sum - product;
    let error = (product - (sum - t)) + (c - t);
    if error == 0.0 || !sum.is_finite() || sum.to_bits() & 1 == 1 {
        return sum as f32;
    }
    let away = (error > 0.0) == (sum > 0.0);
    let bits = if away { sum.to_bits() + 1 } else { sum.to_bits() - 1 };
    f64::from_bits(bits) as f32
}

/// `a·b + c` rounded once: the instruction where the target has it at compile time, else [`fma_exact`].
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        a.mul_add(b, c)
    } else {
        fma_exact(a, b, c)
    }
}

impl Arith for f32 {
    type Mask = bool;

    #[inline(always)]
    fn like(self, c: f32) -> Self {
        c
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        self + o
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        self - o
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        self * o
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        self / o
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        fma(self, b, c)
    }
    #[inline(always)]
    fn neg(self) -> Self {
        -self
    }
    #[inline(always)]
    fn lt(self, o: Self) -> bool {
        self < o
    }
    #[inline(always)]
    fn select(m: bool, a: Self, b: Self) -> Self {
        if m { a } else { b }
    }
    #[inline(always)]
    fn times_pow2(self, n: Self) -> Self {
        let pow2 = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
        let n = n as i32;
        self * pow2(n >> 1) * pow2(n - (n >> 1))
    }
}
