//! The exhaustive sweep: exp and silu of spec f32@1 over all 2^32 inputs, each against f64, with the largest
//! error in ulp and one number that changes if any result does. Minutes. Documented in `math`.
//!
//!     cargo run --release -p pipe-kernels --example sweep

#![allow(clippy::print_stdout)]

use rayon::prelude::*;

use pipe_kernels::math;

/// Largest error in ulp, where it was, and a checksum of all results.
#[derive(Clone, Copy, Default)]
struct Found {
    ulp: f64,
    at: f32,
    sum: u64,
}

/// The error of `y` in units of the last place of the true value; subnormals count in theirs.
fn ulps(y: f32, truth: f64) -> f64 {
    if f64::from(y) == truth || (truth as f32).is_infinite() && y.is_infinite() {
        return 0.0;
    }
    if !y.is_finite() {
        return f64::INFINITY;
    }
    let exponent = (truth.abs().max(f64::from(f32::MIN_POSITIVE)).to_bits() >> 52) as i32 - 1023;
    (f64::from(y) - truth).abs() / 2f64.powi(exponent - 23)
}

fn sweep(f: fn(f32) -> f32, truth: fn(f64) -> f64) -> Found {
    let part = |high: u32| {
        let mut found = Found::default();
        for low in 0..1u32 << 16 {
            let bits = high << 16 | low;
            let x = f32::from_bits(bits);
            let y = f(x);
            if x.is_nan() {
                assert!(y.is_nan(), "NaN {bits:#x} gave {y}");
                continue;
            }
            found.sum = found.sum.wrapping_add(u64::from(y.to_bits()).wrapping_mul(u64::from(bits) | 1));
            if y.is_nan() {
                continue;
            }
            let error = ulps(y, truth(f64::from(x)));
            if error > found.ulp {
                (found.ulp, found.at) = (error, x);
            }
        }
        found
    };
    let join = |a: Found, b: Found| {
        let worse = if b.ulp > a.ulp { b } else { a };
        Found { sum: a.sum.wrapping_add(b.sum), ..worse }
    };
    (0..1u32 << 16).into_par_iter().map(part).reduce(Found::default, join)
}

fn main() {
    // Below −88.72 exp(−g) is infinite and silu −0 by definition; the true value is under 2.7e-37.
    let silu = |x: f64| if x < f64::from(-88.722_83_f32) { -0.0 } else { x / (1.0 + (-x).exp()) };
    for (name, found) in [("exp", sweep(math::exp, f64::exp)), ("silu", sweep(math::silu, silu))] {
        println!("{name}: at most {:.4} ulp, at {:e}; checksum {:016x}", found.ulp, found.at, found.sum);
    }
}
