//! exp, sigmoid and silu in f32, generic over lanes.

use crate::cpu::arith::Arith;

/// 1.5·2^23: adding it to |x| < 2^22 rounds x to an integer, half to even.
const MAGIC: f32 = 12_582_912.0;
/// ln 2 in two terms. The first has 9 significant bits, so `n·HI` is exact for every n that occurs.
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;

/// `exp(x)`.
///
/// `n = round(x·log2 e)`, `r = x − n·ln2` by Cody and Waite in two fused steps, a polynomial of degree 6 by
/// Horner, then `2^n`, where a subnormal result is rounded once.
/// `exp(±0) = 1`; above 88.7 infinity; below −103.98 zero; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<A: Arith>(x: A) -> A {
    let c = |v: f32| x.like(v);
    // Beyond these the result is already 0 or infinity; NaN passes both compares.
    let x = x.at_least(c(-104.0)).at_most(c(89.0));

    let n = x.fma(c(std::f32::consts::LOG2_E), c(MAGIC)).sub(c(MAGIC));
    let r = n.fma(c(-LN2_HI), x);
    let r = n.fma(c(-LN2_LO), r);

    // Coefficients of Cephes expf (Moshier), p(r) ≈ (exp(r) − 1 − r) / r².
    let p = c(1.987_569_1e-4);
    let p = p.fma(r, c(1.398_199_9e-3));
    let p = p.fma(r, c(8.333_452e-3));
    let p = p.fma(r, c(4.166_579_6e-2));
    let p = p.fma(r, c(1.666_666_5e-1));
    let p = p.fma(r, c(0.5));
    p.fma(r.mul(r), r).add(c(1.0)).times_pow2(n)
}

/// `sigmoid(x) = 1 / (1 + exp(−x))`.
#[inline(always)]
pub(crate) fn sigmoid<A: Arith>(x: A) -> A {
    x.like(1.0).div(x.like(1.0).add(exp(x.neg())))
}

/// `silu(g) = g / (1 + exp(−g))`.
#[inline(always)]
pub(crate) fn silu<A: Arith>(g: A) -> A {
    g.div(g.like(1.0).add(exp(g.neg())))
}
