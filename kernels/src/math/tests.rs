//! Our functions beside f64: a quick cut of the sweep in `examples/sweep.rs`, and the edges.

use super::*;

/// The error of `y` in units of the last place of the true value; subnormals count in theirs.
fn ulps(y: f32, truth: f64) -> f64 {
    let exponent = (truth.abs().max(f64::from(f32::MIN_POSITIVE)).to_bits() >> 52) as i32 - 1023;
    (f64::from(y) - truth).abs() / 2f64.powi(exponent - 23)
}

#[test]
fn exp_and_silu_stay_within_their_error() {
    // Every 1009th float, all signs and exponents.
    for bits in (0..=u32::MAX).step_by(1009) {
        let x = f32::from_bits(bits);
        if x.is_nan() {
            assert!(exp(x).is_nan() && silu(x).is_nan());
            continue;
        }
        let truth = f64::from(x).exp();
        if truth < f64::from(f32::MAX) {
            assert!(ulps(exp(x), truth) <= EXP_ULP, "exp({x:e}) = {:e}", exp(x));
        } else {
            assert_eq!(exp(x), f32::INFINITY, "exp({x:e})");
        }
        let truth = f64::from(x) / (1.0 + (-f64::from(x)).exp());
        if x < -88.722_83 {
            // exp(−g) is infinite there, by definition.
            assert!(silu(x) == 0.0 || x.is_infinite() && silu(x).is_nan());
        } else if x.is_finite() {
            assert!(ulps(silu(x), truth) <= SILU_ULP, "silu({x:e}) = {:e}", silu(x));
        }
    }
}

/// Any change of any result here is a new version of the spec.
#[test]
fn every_bit_of_exp_and_silu_is_pinned() {
    let sum = |f: fn(f32) -> f32| {
        let add = |sum: u64, bits: u32| {
            let y = f(f32::from_bits(bits));
            let y = if y.is_nan() { 0 } else { y.to_bits() };
            sum.wrapping_add(u64::from(y).wrapping_mul(u64::from(bits) | 1))
        };
        (0..=u32::MAX).step_by(1009).fold(0, add)
    };
    assert_eq!((sum(exp), sum(silu)), (2_110_937_878_563_300_747, 15_451_173_392_006_226_337));
}

#[test]
fn exp_at_its_edges() {
    assert_eq!(exp(0.0).to_bits(), exp(-0.0).to_bits());
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(f32::INFINITY), f32::INFINITY);
    assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
    assert_eq!(exp(-104.0).to_bits(), 0);
    // The smallest subnormal, and the results around it, rounded once.
    assert_eq!(exp(-103.9).to_bits(), 1);
    assert_eq!(exp(-103.98).to_bits(), 0);
    assert_eq!(exp(88.722_83), f32::from_bits(0x7f7f_ff84));
    assert_eq!(exp(88.722_84), f32::INFINITY);
    assert_eq!(silu(-0.0).to_bits(), (-0.0f32).to_bits());
}

#[test]
fn double_functions_are_within_an_ulp_of_the_library() {
    // The library is within an ulp of the truth, so two of each other at most.
    let near = |a: f64, b: f64| a == b || (a.to_bits() as i64).abs_diff(b.to_bits() as i64) <= 2;
    for i in 0..200_000 {
        let x = f64::from(i) * 0.003_7;
        assert!(near(double::exp(-x), (-x).exp()), "exp(-{x})");
        assert!(near(double::exp(x), x.exp()), "exp({x})");
        let y = 1e-3 + f64::from(i) * 17.3;
        assert!(near(double::ln(y), y.ln()), "ln({y})");
        let z = f64::from(i) * 8.213;
        let (sin, cos) = double::sin_cos(z);
        assert!(near(sin, z.sin()) && near(cos, z.cos()), "sin_cos({z})");
        let (sin, cos) = double::sin_cos(-z);
        assert!(near(sin, (-z).sin()) && near(cos, z.cos()), "sin_cos(-{z})");
    }
    for x in [f64::MIN_POSITIVE, 5e-324, 1.0, f64::MAX, 1.0 - 1e-16, 0.707, 1.415] {
        assert!(near(double::ln(x), x.ln()), "ln({x})");
    }
    assert!(double::ln(-1.0).is_nan() && double::ln(0.0) == f64::NEG_INFINITY);
    assert!(double::sin_cos(1e9).0.is_nan());
    assert_eq!((double::exp(-800.0), double::exp(800.0), double::exp(0.0)), (0.0, f64::INFINITY, 1.0));
}
