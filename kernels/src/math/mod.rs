//! Our own functions: operation sequences of the allowed operations, so that no libm has a say in the bits.
//! `single` is f32 over any lanes (exp, silu); `double` is f64 (exp, ln, sin, cos) for tables and scores.
//!
//! Largest errors, found by the exhaustive sweep over all 2^32 inputs (`examples/sweep.rs`):
//! SWEEP

pub mod double;
pub(crate) mod single;
#[cfg(test)]
mod tests;

/// Largest error of [`exp`] in ulp.
pub const EXP_ULP: f64 = 1.0;
/// Largest error of [`silu`] in ulp.
pub const SILU_ULP: f64 = 3.0;

/// `exp(x)` of spec f32@1.
pub fn exp(x: f32) -> f32 {
    single::exp(x)
}

/// `silu(g) = g / (1 + exp(−g))` of spec f32@1.
pub fn silu(g: f32) -> f32 {
    single::silu(g)
}
