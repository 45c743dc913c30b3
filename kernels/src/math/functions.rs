//! The list of our functions: how each is run, what it ought to be, and what the sweep found of it.

use super::double::{self, SIN_COS_LIMIT};
use super::reference::{Reference, Truth};
use super::sweep::{Function, Known, Summary, Width};
use crate::cpu::Kernels;
use crate::cpu::linear::PANEL;

/// Below this exp(−x) is infinite in f32, so that sigmoid and silu are zero by definition.
const FAR_BELOW: f32 = -88.722_83;

/// Every function.
pub const FUNCTIONS: [Function; 7] = [
    Function {
        name: "exp",
        width: Width::Single,
        run: |x| f64::from(super::exp(x)),
        truth: Reference::exp,
        row: Some(exp_row),
        known: Known {
            all: Summary { checksum: 0xfb80_ba2f_1207_7d9b, ulp: 1.0104, not_nearest: 17_240_865 },
            spread: 0x377e_5e00_a5f5_a5a4,
        },
    },
    Function {
        name: "sigmoid",
        width: Width::Single,
        run: |x| f64::from(super::sigmoid(x)),
        truth: |r, x| match x {
            x if x.is_nan() => Truth::exactly(f64::NAN),
            x if x < FAR_BELOW => Truth::exactly(0.0),
            x => r.over_one_plus_exp(1.0, x),
        },
        row: None,
        known: Known {
            all: Summary { checksum: 0xb580_c94c_44d2_25ba, ulp: 2.4808, not_nearest: 168_361_455 },
            spread: 0xb9ab_3267_dd3e_245a,
        },
    },
    Function {
        name: "silu",
        width: Width::Single,
        run: |x| f64::from(super::silu(x)),
        truth: |r, x| match x {
            // −∞ over ∞.
            x if x.is_nan() || x == f32::NEG_INFINITY => Truth::exactly(f64::NAN),
            x if x < FAR_BELOW => Truth::exactly(-0.0),
            f32::INFINITY => Truth::exactly(f64::INFINITY),
            x => r.over_one_plus_exp(x, x),
        },
        row: Some(silu_row),
        known: Known {
            all: Summary { checksum: 0x2bd5_4f54_9fc3_d652, ulp: 2.4031, not_nearest: 173_135_103 },
            spread: 0xf3b0_020a_f8a1_5f6f,
        },
    },
    Function {
        name: "exp_f64",
        width: Width::Double,
        run: |x| double::exp(x.into()),
        truth: Reference::exp,
        row: None,
        known: Known {
            all: Summary { checksum: 0x11ca_d986_f4ff_9d36, ulp: 0.9073, not_nearest: 0 },
            spread: 0x52d3_9e0d_6144_5b7c,
        },
    },
    Function {
        name: "ln_f64",
        width: Width::Double,
        run: |x| double::ln(x.into()),
        truth: Reference::ln,
        row: None,
        known: Known {
            all: Summary { checksum: 0x31e3_0894_014a_cc04, ulp: 0.7413, not_nearest: 5 },
            spread: 0x3114_07b3_1308_8633,
        },
    },
    Function {
        name: "sin_f64",
        width: Width::Double,
        run: |x| double::sin_cos(x.into()).0,
        truth: |r, x| within_limit(r, x).0,
        row: None,
        known: Known {
            all: Summary { checksum: 0x0078_9509_b0b3_5141, ulp: 0.7924, not_nearest: 2 },
            spread: 0x5e77_85dd_8c3c_b6e1,
        },
    },
    Function {
        name: "cos_f64",
        width: Width::Double,
        run: |x| double::sin_cos(x.into()).1,
        truth: |r, x| within_limit(r, x).1,
        row: None,
        known: Known {
            all: Summary { checksum: 0xd6ea_12ff_a4fb_c1fe, ulp: 0.7926, not_nearest: 0 },
            spread: 0x8014_fff0_981d_c73b,
        },
    },
];

fn within_limit(r: &Reference, x: f32) -> (Truth, Truth) {
    // False for NaN.
    if f64::from(x.abs()) <= SIN_COS_LIMIT {
        r.sin_cos(x)
    } else {
        (Truth::exactly(f64::NAN), Truth::exactly(f64::NAN))
    }
}

/// exp over a row: `exp(x − 0)`.
fn exp_row(kernels: &Kernels, x: &[f32], y: &mut [f32]) {
    // SAFETY: the table came from `Implementation::kernels`; the slices have one length.
    unsafe { (kernels.exp_minus)(x, 0.0, y) }
}

/// silu over a row: `silu(x)·1`.
fn silu_row(kernels: &Kernels, x: &[f32], y: &mut [f32]) {
    let gate_up: Vec<f32> = x.chunks_exact(PANEL).flat_map(|x| [x, &[1.0; PANEL]].concat()).collect();
    // SAFETY: as above; blocks of inputs are whole panels.
    unsafe { (kernels.swiglu)(&gate_up, y) }
}
