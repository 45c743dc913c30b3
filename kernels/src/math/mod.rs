//! Our own functions: operation sequences of the allowed operations, so that no libm has a say in the bits.
//! `single` is f32 over any lanes (exp, sigmoid, silu); `double` is f64 (exp, ln, sin, cos) for tables and scores.
//!
//! What the exhaustive sweep over all 2^32 f32 found (`examples/sweep.rs`; f64's functions over the widened inputs,
//! their error in ulp of f64), against a reference of 74 bits:
//!
//! | function | largest error, ulp | results not the nearest f32 | checksum of all results | largest error at |
//! |---|---|---|---|---|
//! | exp | 1.0104 | 17240865 | fb80ba2f12077d9b | −5.8778844 |
//! | sigmoid | 2.4808 | 168361455 | b580c94c44d225ba | −16.635704 |
//! | silu | 2.4031 | 173135103 | 2bd54f549fc3d652 | −16.68377 |
//! | exp_f64 | 0.9073 | 0 | 11cad986f4ff9d36 | −127.190544 |
//! | ln_f64 | 0.7413 | 5 | 31e30894014acc04 | 0.38529298 |
//! | sin_f64 | 0.7924 | 2 | 00789509b0b35141 | 0.8195287 |
//! | cos_f64 | 0.7926 | 0 | d6ea12ffa4fbc1fe | 14.980568 |
//!
//! The same with fma from the instruction and with the portable one, scalar and in lanes. Results of f64 are rounded
//! to f32 for the third column. Below −88.72283 exp(−x) is infinite in f32, and sigmoid is 0 and silu −0 by
//! definition; the true values are under 3e-39 and 2.7e-37. sin and cos end at [`double::SIN_COS_LIMIT`].

mod dd;
pub mod double;
mod functions;
mod reference;
pub(crate) mod single;
pub mod sweep;
#[cfg(test)]
mod tests;

/// `exp(x)` of spec f32@1.
pub fn exp(x: f32) -> f32 {
    single::exp(x)
}

/// `sigmoid(x) = 1 / (1 + exp(−x))` of spec f32@1.
pub fn sigmoid(x: f32) -> f32 {
    single::sigmoid(x)
}

/// `silu(g) = g / (1 + exp(−g))` of spec f32@1.
pub fn silu(g: f32) -> f32 {
    single::silu(g)
}
