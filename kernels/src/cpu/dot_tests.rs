//! The products of integers of every implementation against the scalar oracle, bit for bit, and what quantising
//! does at its edges.

use half::f16;
use proptest::prelude::*;

use super::dot::{Dot, WIDE_BYTES};
use super::linear::PANEL;
use super::quants::{Quants, row_bytes};
use super::scalar::KERNELS as ORACLE;
use super::{Implementation, Kernels};
use crate::matrix::{BLOCK, Format};
use crate::spec::Activations;

const FORMATS: [Format; 3] = [Format::Q8, Format::Q4, Format::Q4Min];
const BITS: [Activations; 2] = [Activations::A16, Activations::A8];

fn words(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    }
}

/// Random panels: any integers, scales and minimums of both signs, some of them zero or subnormal.
fn panels(seed: u64, format: Format, k: usize, panels: usize) -> Vec<u8> {
    let mut next = words(seed);
    let size = format.panel_bytes(k);
    let mut bytes: Vec<u8> = (0..panels * size).map(|_| next() as u8).collect();
    let integers = k.div_ceil(BLOCK) * if format == Format::Q8 { 512 } else { 256 };
    for panel in bytes.chunks_exact_mut(size) {
        for half in panel[integers..].chunks_exact_mut(2) {
            let word = next();
            let value = match word % 17 {
                0 => 0,
                1 => (word >> 8) as u16 & 0x83ff,
                _ => f16::from_f32((word >> 8) as f32 / (1 << 24) as f32 - 0.5).to_bits(),
            };
            half.copy_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}

/// Rows of activations of very different sizes from block to block; with −0, zeros and subnormals.
fn rows(seed: u64, n: usize) -> Vec<f32> {
    let mut next = words(seed);
    let mut size = 1.0f32;
    let each = |i: usize| {
        if i.is_multiple_of(BLOCK) {
            size = [1.0, 1e-3, 3e7, 1e-30, 1e-42, 0.0][next() as usize % 6];
        }
        size * ((next() >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..n).map(each).collect()
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    rows: usize,
    k: usize,
    panels: usize,
    format: Format,
    bits: Activations,
}

/// Quantises and multiplies as the engine does; the output with its untouched margins.
fn product(kernels: &Kernels, x: &[f32], w: &[u8], s: Shape) -> Vec<f32> {
    let (pitch, blocks) = (row_bytes(s.k), s.k.div_ceil(BLOCK));
    let mut quants = vec![0u64; (s.rows * pitch).div_ceil(8)];
    let mut wide = vec![0u64; WIDE_BYTES / 8];
    let all = Quants { at: quants.as_mut_ptr().cast(), pitch, blocks };
    let out_pitch = s.panels * PANEL + 3;
    let mut out = vec![7.0; s.rows * out_pitch];
    // SAFETY: the vectors were made for this shape.
    unsafe {
        for (r, x) in x.chunks_exact(s.k).enumerate() {
            (kernels.quantise)(x, s.bits, Quants { at: all.slots(r), ..all });
        }
        (kernels.dot)(&Dot {
            x: all,
            bits: s.bits,
            rows: s.rows,
            w: w.as_ptr(),
            format: s.format,
            panel: s.format.panel_bytes(s.k),
            panels: s.panels,
            out: out.as_mut_ptr(),
            out_pitch,
            wide: wide.as_mut_ptr().cast(),
        });
    }
    out
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| if v.is_nan() { u32::MAX } else { v.to_bits() }).collect()
}

fn agree(seed: u64, s: Shape, poison: Option<f32>) {
    let mut x = rows(seed, s.rows * s.k);
    if let (Some(bad), false) = (poison, x.is_empty()) {
        let at = seed as usize % x.len();
        x[at] = bad;
    }
    let w = panels(seed, s.format, s.k, s.panels);
    let expected = product(&ORACLE, &x, &w, s);
    if poison.is_some() && s.panels > 0 {
        assert!(expected.iter().any(|v| v.is_nan()), "a bad activation must show: {s:?}");
    }
    for (name, kernels) in Implementation::available().filter_map(|i| Some((i, i.kernels()?))) {
        let found = product(kernels, &x, &w, s);
        assert_eq!(bits(&found), bits(&expected), "{name}, {s:?}, seed {seed}");
    }
}

#[test]
fn products_of_integers_agree_over_every_height_and_group() {
    for format in FORMATS {
        for b in BITS {
            for rows in 0..=19 {
                for panels in [0, 1, 2, 3, 4, 5, 7, 12, 13] {
                    agree(
                        rows as u64 * 31 + panels as u64,
                        Shape { rows, k: 72, panels, format, bits: b },
                        None,
                    );
                }
            }
        }
    }
}

#[test]
fn products_of_integers_agree_over_the_edges_of_blocks_and_chunks() {
    for format in FORMATS {
        for bits in BITS {
            for k in [1, 2, 31, 32, 33, 255, 256, 257, 288, 511, 512, 513, 576, 1536, 4096 + 32] {
                for rows in [1, 2, 5] {
                    agree(k as u64, Shape { rows, k, panels: 3, format, bits }, None);
                }
            }
        }
    }
}

/// The largest sums there can be: every integer at its end.
#[test]
fn no_sum_overflows() {
    for format in FORMATS {
        for bits_ in BITS {
            for (sign, byte) in [(1.0, 0xff), (-1.0, 0xff), (1.0, 0), (-1.0, 0)] {
                let s = Shape { rows: 9, k: 64, panels: 3, format, bits: bits_ };
                let x = vec![sign; s.rows * s.k];
                let mut w = panels(1, format, s.k, s.panels);
                let integers = 2 * if format == Format::Q8 { 512 } else { 256 };
                for panel in w.chunks_exact_mut(format.panel_bytes(s.k)) {
                    panel[..integers].fill(byte);
                }
                let expected = product(&ORACLE, &x, &w, s);
                for (name, kernels) in Implementation::available().filter_map(|i| Some((i, i.kernels()?))) {
                    assert_eq!(bits(&product(kernels, &x, &w, s)), bits(&expected), "{name}, {s:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn products_of_integers_agree_at_random(
        seed: u64, rows in 1usize..40, k in 1usize..700, panels in 1usize..14, format in 0usize..3, b in 0usize..2,
    ) {
        agree(seed, Shape { rows, k, panels, format: FORMATS[format], bits: BITS[b] }, None);
    }

    #[test]
    fn a_bad_activation_shows_in_every_implementation(
        seed: u64, rows in 1usize..9, k in 1usize..100, kind in 0usize..3, b in 0usize..2,
    ) {
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][kind];
        agree(seed, Shape { rows, k, panels: 2, format: Format::Q8, bits: BITS[b] }, Some(bad));
    }
}
