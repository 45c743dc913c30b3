//! Every implementation against the scalar oracle, bit for bit, over shapes that cross every edge.

use proptest::prelude::*;

use super::arith::{fma, fma_exact};
use super::attention::{Attend, PAGE};
use super::linear::{Linear, PANEL};
use super::scalar::KERNELS as ORACLE;
use super::{Implementation, Kernels};
use crate::matrix::Format;

/// A reproducible stream of floats that visits what arithmetic finds hard.
struct Floats(u64);

impl Floats {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Mostly about ±1; at `hard` also zeros of both signs, subnormals and huge values.
    fn next(&mut self, hard: bool) -> f32 {
        let w = self.word();
        let sign = (w as u32 & 1) << 31;
        let mantissa = (w >> 8) as u32 & 0x007f_ffff;
        let exponent = match w >> 56 {
            kind if !hard || kind >= 64 => 120 + (w >> 40 & 15) as u32 % 10,
            0..16 => return f32::from_bits(sign),
            16..32 => 0,
            32..48 => 1 + (w >> 40 & 15) as u32,
            _ => 180 + (w >> 40 & 7) as u32,
        };
        f32::from_bits(sign | exponent << 23 | mantissa)
    }

    fn vec(&mut self, n: usize, hard: bool) -> Vec<f32> {
        (0..n).map(|_| self.next(hard)).collect()
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    // Which NaN it is differs between machines and is never looked at.
    x.iter().map(|v| if v.is_nan() { u32::MAX } else { v.to_bits() }).collect()
}

/// The others beside the oracle.
fn others() -> impl Iterator<Item = (Implementation, &'static Kernels)> {
    Implementation::available().skip(1).filter_map(|i| Some((i, i.kernels()?)))
}

fn product(kernels: &Kernels, x: &[f32], w: &[f32], rows: usize, k: usize, panels: usize) -> Vec<f32> {
    let pitch = panels * PANEL + 3;
    let mut out = vec![7.0; rows * pitch];
    let a = Linear {
        x: x.as_ptr(),
        x_pitch: k + 5,
        rows,
        w: w.as_ptr().cast(),
        format: Format::F32,
        panel: k * PANEL * 4,
        k,
        panels,
        out: out.as_mut_ptr(),
        out_pitch: pitch,
    };
    // SAFETY: the slices were made for this shape.
    unsafe { (kernels.linear)(&a) };
    out
}

fn products_agree(seed: u64, rows: usize, k: usize, panels: usize, hard: bool) {
    let mut floats = Floats(seed);
    let x = floats.vec(rows * (k + 5), hard);
    let w = floats.vec(panels * k * PANEL, hard);
    let expected = product(&ORACLE, &x, &w, rows, k, panels);
    for (name, kernels) in others() {
        let found = product(kernels, &x, &w, rows, k, panels);
        assert_eq!(bits(&found), bits(&expected), "{name}, {rows} × {k} × {panels} panels, seed {seed}");
    }
}

#[test]
fn products_agree_over_the_edges_of_chunks_and_panels() {
    for k in [1, 2, 255, 256, 257, 511, 512, 576, 4096, 4100] {
        for panels in [0, 1, 2, 3, 4, 5, 9] {
            for rows in [0, 1, 2, 7, 8, 9, 17] {
                if rows * k * panels < 200_000 {
                    products_agree((k * 100 + panels * 10 + rows) as u64, rows, k, panels, k % 2 == 0);
                }
            }
        }
    }
}

#[test]
fn products_agree_over_every_height() {
    for rows in 1..=40 {
        products_agree(rows as u64, rows, 300, 7, rows % 2 == 0);
    }
}

/// All 65,536 of them, one row times panels of one input.
#[test]
fn weights_of_16_bits_are_widened_exactly() {
    let w: Vec<u16> = (0..=u16::MAX).collect();
    for (format, exact) in [
        (Format::F16, (|w| half::f16::from_bits(w).to_f32()) as fn(u16) -> f32),
        (Format::Bf16, |w| half::bf16::from_bits(w).to_f32()),
    ] {
        // The sum starts at +0, which −0 leaves as it is.
        let expected: Vec<f32> = w.iter().map(|&w| exact(w) + 0.0).collect();
        for (name, kernels) in Implementation::available().filter_map(|i| Some((i, i.kernels()?))) {
            let mut out = vec![7.0f32; w.len()];
            let a = Linear {
                x: &1.0,
                x_pitch: 1,
                rows: 1,
                w: w.as_ptr().cast(),
                format,
                panel: PANEL * 2,
                k: 1,
                panels: w.len() / PANEL,
                out: out.as_mut_ptr(),
                out_pitch: w.len(),
            };
            // SAFETY: the vectors have the sizes the product names.
            unsafe { (kernels.linear)(&a) };
            assert!(bits(&out) == bits(&expected), "{name}, {format:?}");
        }
    }
}

#[test]
fn an_empty_sum_is_plus_zero() {
    // k = 0 does not occur in a model; the attention of a page without common positions relies on it.
    for (_, kernels) in others().chain([(Implementation::Scalar, &ORACLE)]) {
        let mut out = [1.0f32; PANEL];
        let a = Linear {
            x: out.as_ptr(),
            x_pitch: 0,
            rows: 1,
            w: out.as_ptr().cast(),
            format: Format::F32,
            panel: 0,
            k: 0,
            panels: 0,
            out: out.as_mut_ptr(),
            out_pitch: PANEL,
        };
        // SAFETY: nothing is read or written.
        unsafe { (kernels.linear)(&a) };
        assert_eq!(out, [1.0; PANEL]);
    }
}

/// All row kernels on one input; every output in one vector.
fn row_kernels(kernels: &Kernels, x: &[f32], y: &[f32]) -> Vec<f32> {
    let n = x.len();
    let mut all = Vec::new();
    let mut out = vec![0.0; n];
    // SAFETY: slices of one length; rope's even, swiglu's whole panels.
    unsafe {
        (kernels.rms_norm)(x, y, 1e-5, &mut out);
        all.extend_from_slice(&out);
        let even = n & !1;
        (kernels.rope)(&x[..even], &y[..even], &mut out[..even]);
        all.extend_from_slice(&out[..even]);
        out.copy_from_slice(x);
        (kernels.add)(&mut out, y);
        all.extend_from_slice(&out);
        let pairs = n / (2 * PANEL);
        (kernels.swiglu)(&x[..pairs * 2 * PANEL], &mut out[..pairs * PANEL]);
        all.extend_from_slice(&out[..pairs * PANEL]);
        (kernels.exp_minus)(x, 0.75, &mut out);
        all.extend_from_slice(&out);
        out.copy_from_slice(x);
        all.push((kernels.softmax)(&mut out, 0.125));
        all.extend_from_slice(&out);
        all.push(f32::from((kernels.all_finite)(x)));
    }
    all
}

fn rows_agree(seed: u64, n: usize, hard: bool, poison: Option<f32>) {
    let mut floats = Floats(seed);
    let (mut x, y) = (floats.vec(n, hard), floats.vec(n, hard));
    if let (Some(p), true) = (poison, n > 0) {
        x[seed as usize % n] = p;
    }
    let expected = row_kernels(&ORACLE, &x, &y);
    for (name, kernels) in others() {
        assert_eq!(bits(&row_kernels(kernels, &x, &y)), bits(&expected), "{name}, {n} elements, seed {seed}");
    }
}

/// Attention over random pages; the output of all rows.
fn attention(
    kernels: &Kernels,
    seed: u64,
    positions: usize,
    heads: usize,
    first_len: usize,
    dim: usize,
) -> Vec<f32> {
    let mut floats = Floats(seed);
    let rows = positions * heads;
    let longest = first_len + positions - 1;
    let padded = dim.next_multiple_of(PANEL);
    let floats_per_page = PAGE * (dim + padded) + 11;
    let mut pages: Vec<Vec<f32>> =
        (0..longest.div_ceil(PAGE)).map(|_| floats.vec(floats_per_page, false)).collect();
    let pages: Vec<*mut f32> = pages.iter_mut().map(|p| p.as_mut_ptr()).collect();
    let q = floats.vec(rows * dim, false);
    let scores_pitch = longest.next_multiple_of(PANEL) + PANEL;
    let mut scores = vec![0.0; rows * scores_pitch];
    let (mut sums, mut totals) = (vec![0.0; rows * padded], vec![0.0; rows * padded]);
    let mut out = vec![0.0; positions * (heads * dim + 1)];
    let a = Attend {
        q: q.as_ptr(),
        q_pitch: dim,
        positions,
        heads,
        first_len,
        pages: &pages,
        keys: 11,
        values: 11 + PAGE * dim,
        head_dim: dim,
        scale: 1.0 / (dim as f32).sqrt(),
        scores: scores.as_mut_ptr(),
        scores_pitch,
        sums: sums.as_mut_ptr(),
        totals: totals.as_mut_ptr(),
        out: out.as_mut_ptr(),
        out_pitch: heads * dim + 1,
    };
    // SAFETY: the vectors were made for this shape.
    unsafe { (kernels.attend)(&a) };
    out
}

fn attention_agrees(seed: u64, positions: usize, heads: usize, first_len: usize, dim: usize) {
    let expected = attention(&ORACLE, seed, positions, heads, first_len, dim);
    assert!(expected.iter().all(|v| v.is_finite()));
    for (name, kernels) in others() {
        let found = attention(kernels, seed, positions, heads, first_len, dim);
        let shape = format!("{positions} positions × {heads} heads from {first_len} on, {dim} wide");
        assert_eq!(bits(&found), bits(&expected), "{name}, {shape}");
    }
}

#[test]
fn attention_agrees_over_the_edges_of_pages() {
    for first_len in [1, 2, 15, 16, 17, 250, 255, 256, 257, 511, 513] {
        for (positions, heads) in [(1, 1), (1, 3), (3, 1), (8, 3), (24, 1)] {
            attention_agrees(first_len as u64, positions, heads, first_len, 16);
        }
    }
    for dim in [2, 8, 20, 64, 272] {
        attention_agrees(dim as u64, 5, 2, 254, dim);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn products_agree_at_random(seed: u64, rows in 1usize..40, k in 1usize..700, panels in 1usize..9, hard: bool) {
        products_agree(seed, rows, k, panels, hard);
    }

    #[test]
    fn rows_agree_at_random(seed: u64, n in 1usize..700, hard: bool) {
        rows_agree(seed, n, hard, None);
    }

    #[test]
    fn a_bad_value_shows_in_every_implementation(seed: u64, n in 1usize..100, kind in 0usize..3) {
        rows_agree(seed, n, false, Some([f32::NAN, f32::INFINITY, f32::NEG_INFINITY][kind]));
    }

    #[test]
    fn attention_agrees_at_random(
        seed: u64, positions in 1usize..20, heads in 1usize..4, first_len in 1usize..600, dim in 1usize..40,
    ) {
        attention_agrees(seed, positions, heads, first_len, 2 * dim);
    }
}

/// The portable fma beside the instruction, which is one rounding by IEEE's definition.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[test]
fn the_portable_fma_is_the_instruction() {
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "fma"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
    fn instruction(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    #[cfg(target_arch = "x86_64")]
    if !is_x86_feature_detected!("fma") {
        return;
    }
    let mut floats = Floats(1);
    let check = |a: f32, b: f32, c: f32| {
        // SAFETY: the feature is there.
        let expected = unsafe { instruction(a, b, c) };
        let found = [fma_exact(a, b, c), fma(a, b, c)];
        assert!(found.iter().all(|f| bits(&[*f]) == bits(&[expected])), "fma({a:e}, {b:e}, {c:e})");
    };
    for i in 0..2_000_000 {
        let (a, b) = (floats.next(true), floats.next(true));
        // A third of the addends nearly cancel the product or lie at half an ulp of it.
        let c = match i % 3 {
            0 => floats.next(true),
            1 => -(a * b),
            _ => a * b * f32::from_bits(0x3380_0000 + (floats.word() as u32 & 3)),
        };
        check(a, b, c);
    }
    let any = |f: &mut Floats| f32::from_bits(f.word() as u32);
    for _ in 0..2_000_000 {
        check(any(&mut floats), any(&mut floats), any(&mut floats));
    }
}

#[test]
fn a_name_gives_its_implementation_back() {
    for implementation in Implementation::ALL {
        assert_eq!(implementation.name().parse::<Implementation>().ok(), Some(implementation));
    }
    assert!("sse9".parse::<Implementation>().is_err());
    assert!(Implementation::available().any(|i| i == Implementation::detect()));
}

/// Where it is not, the tests over all implementations that a machine has would compare nothing.
#[cfg(target_arch = "aarch64")]
#[test]
fn aarch64_has_neon() {
    assert_eq!(
        Implementation::available().collect::<Vec<_>>(),
        [Implementation::Scalar, Implementation::Neon]
    );
    assert_eq!(Implementation::detect(), Implementation::Neon);
}
