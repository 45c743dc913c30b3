//! Our functions over a spread of inputs, and at their edges. Everything is swept by `examples/sweep.rs`.

use super::sweep::{FUNCTIONS, Inputs};
use super::*;
use crate::cpu::Implementation;

/// Any change of any result here is a new version of the spec.
#[test]
fn functions_keep_their_bits_and_their_error() {
    for function in &FUNCTIONS {
        let found = function.judge(Inputs::Spread);
        let (now, all) = (found.summary, function.known.all);
        assert_eq!(now.checksum, function.known.spread, "{}: {:#x}", function.name, now.checksum);
        assert!(now.ulp <= all.ulp, "{}: {} ulp at {:e}", function.name, now.ulp, found.at);
        assert!(now.not_nearest <= all.not_nearest, "{}", function.name);
    }
}

#[test]
fn every_implementation_gives_those_bits() {
    for implementation in Implementation::available() {
        let mut vectorised = Vec::new();
        for function in &FUNCTIONS {
            let Some(checksum) = function.checksum_of(implementation, Inputs::Spread) else { continue };
            assert_eq!(checksum, function.known.spread, "{}, {implementation}", function.name);
            vectorised.push(function.name);
        }
        assert_eq!(vectorised, ["exp", "silu"], "{implementation}");
    }
}

#[test]
fn the_pages_print_what_the_sweep_found() {
    for function in &FUNCTIONS {
        let all = function.known.all;
        let row =
            format!("| {} | {:.4} | {} | {:016x} |", function.name, all.ulp, all.not_nearest, all.checksum);
        for page in [include_str!("../../../docs/NUMERICS.md"), include_str!("mod.rs")] {
            assert!(page.contains(&row), "missing:\n{row}");
        }
    }
}

#[test]
fn single_functions_at_their_edges() {
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
    assert_eq!((sigmoid(0.0), sigmoid(-0.0), sigmoid(f32::INFINITY)), (0.5, 0.5, 1.0));
    // exp(−x) is infinite from there on.
    assert_eq!(sigmoid(-88.722_84).to_bits(), 0);
    assert!(sigmoid(-88.722_83) > 0.0);
    assert_eq!(sigmoid(f32::NEG_INFINITY).to_bits(), 0);
    assert_eq!(silu(-0.0).to_bits(), (-0.0f32).to_bits());
    assert_eq!(silu(-88.722_84).to_bits(), (-0.0f32).to_bits());
    assert!(exp(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan() && silu(f32::NAN).is_nan());
}

/// The sweep takes f32; these are mostly none.
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
