//! Our own functions: operation sequences of the allowed operations, so that no libm has a say in the bits.
//! `single` is f32 over any lanes (exp, silu); `double` is f64 (exp, ln, sin, cos) for tables and scores.
//!
//! Largest errors, found by the exhaustive sweep over all 2^32 inputs (`examples/sweep.rs`):
//!
//! | function | ulp | at | checksum of all results |
//! |---|---|---|---|
//! | exp | 1.0103 | −5.8778844 | 7a0bac9e38e95994 |
//! | silu | 2.4031 | −16.68377 | 2d3015915255067e |
//!
//! The same with fma from the instruction and with the portable one. Below −88.72 silu is −0 by definition, since
//! exp(−g) is infinite there; the true value is under 2.7e-37. Of f64's functions only a sample was compared with
//! the C library: they lie within 2 ulp of it.

pub mod double;
pub(crate) mod single;
#[cfg(test)]
mod tests;

/// Largest error of [`exp`] in ulp.
pub const EXP_ULP: f64 = 1.0104;
/// Largest error of [`silu`] in ulp.
pub const SILU_ULP: f64 = 2.4032;

/// `exp(x)` of spec f32@1.
pub fn exp(x: f32) -> f32 {
    single::exp(x)
}

/// `silu(g) = g / (1 + exp(−g))` of spec f32@1.
pub fn silu(g: f32) -> f32 {
    single::silu(g)
}
