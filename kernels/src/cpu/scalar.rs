//! The specs as plain loops that read like the numeric contract: the oracle every other implementation is
//! compared with, bit for bit. Slow, and meant to be obvious.

use super::Kernels;
use super::arith::fma;
use super::attention::{Attend, PAGE};
use super::dot::{CHUNK_BLOCKS, Dot};
use super::linear::{CHUNK, Linear, PANEL};
use super::quants::Quants;
use super::{floats, quants};
use crate::math::single;
use crate::matrix::{BLOCK, Format, Matrix};
use crate::spec::Activations;

/// R1: the sum over i of `a(i)·b(i)` in chunks of 256, each accumulated from +0 by fma in increasing index;
/// the first chunk's sum starts the total, each later one is added to it.
pub(crate) fn r1(n: usize, a: impl Fn(usize) -> f32, b: impl Fn(usize) -> f32) -> f32 {
    let mut total = 0.0;
    for start in (0..n).step_by(CHUNK) {
        let mut sum = 0.0;
        for i in start..n.min(start + CHUNK) {
            sum = fma(a(i), b(i), sum);
        }
        total = if start == 0 { sum } else { total + sum };
    }
    total
}

/// R2's end: halves are added, 8, 4, 2, 1.
fn halves(mut a: [f32; 16]) -> f32 {
    for h in [8, 4, 2, 1] {
        for l in 0..h {
            a[l] += a[l + h];
        }
    }
    a[0]
}

/// R2 of x·x.
fn r2_squares(x: &[f32]) -> f32 {
    let mut a = [0.0; 16];
    for (i, &v) in x.iter().enumerate() {
        a[i % 16] = fma(v, v, a[i % 16]);
    }
    halves(a)
}

/// R2 of x.
fn r2_sum(x: &[f32]) -> f32 {
    let mut a = [0.0; 16];
    for (i, &v) in x.iter().enumerate() {
        a[i % 16] += v;
    }
    halves(a)
}

/// `s = 1 / sqrt(sum / n + eps)`; `y = (x · s) · g`.
pub(crate) fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    let s = 1.0 / (r2_squares(x) / x.len() as f32 + eps).sqrt();
    for ((y, &x), &g) in out.iter_mut().zip(x).zip(gain) {
        *y = (x * s) * g;
    }
}

/// Each pair (a, b) turned by (c, s): `fma(a, c, −(b·s))`, `fma(a, s, b·c)`.
pub(crate) fn rope(x: &[f32], table: &[f32], out: &mut [f32]) {
    for ((x, cs), y) in x.chunks_exact(2).zip(table.chunks_exact(2)).zip(out.chunks_exact_mut(2)) {
        let (a, b, c, s) = (x[0], x[1], cs[0], cs[1]);
        y[0] = fma(a, c, -(b * s));
        y[1] = fma(a, s, b * c);
    }
}

/// One `+` per element.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// silu(gate) times up; panels of 16 of gate and of up alternate.
pub(crate) fn swiglu(gate_up: &[f32], out: &mut [f32]) {
    for (i, y) in out.iter_mut().enumerate() {
        let gate = i / PANEL * 2 * PANEL + i % PANEL;
        *y = single::silu(gate_up[gate]) * gate_up[gate + PANEL];
    }
}

/// exp(x − max).
fn exp_minus(x: &[f32], max: f32, out: &mut [f32]) {
    for (y, &x) in out.iter_mut().zip(x) {
        *y = single::exp(x - max);
    }
}

/// Scores, scaled, to exp(score − max), max by compare in index order. Returns the denominator, R2.
pub(crate) fn softmax(scores: &mut [f32], scale: f32) -> f32 {
    let mut max = f32::NEG_INFINITY;
    for s in scores.iter_mut() {
        *s *= scale;
        if *s > max {
            max = *s;
        }
    }
    for s in scores.iter_mut() {
        *s = single::exp(*s - max);
    }
    r2_sum(scores)
}

fn all_finite(x: &[f32]) -> bool {
    x.iter().all(|v| v.is_finite())
}

/// Every output by R1 over k, weights from panels.
///
/// # Safety
/// As [`Linear`] says.
unsafe fn linear(a: &Linear) {
    for r in 0..a.rows {
        for n in 0..a.panels * PANEL {
            // SAFETY: row, panel and k stay inside the regions of `a`.
            unsafe {
                let x = a.x.add(r * a.x_pitch);
                let bytes = if a.format == Format::F32 { 4 } else { 2 };
                let w = a.w.add(n / PANEL * a.panel + n % PANEL * bytes);
                let weight = |i: usize| floats::one(a.format, w.add(i * PANEL * bytes));
                *a.out.add(r * a.out_pitch + n) = r1(a.k, |i| *x.add(i), weight);
            }
        }
    }
}

/// score = R1 over head_dim, scaled; softmax over the row's own positions; context = R1 of p·v over them,
/// then one division per element.
///
/// # Safety
/// As [`Attend`] says.
unsafe fn attend(a: &Attend<'_>) {
    for m in 0..a.rows() {
        // SAFETY: positions stay below the row's length, which the pages cover; the rest is the contract.
        unsafe {
            let q = a.q.add(m * a.q_pitch);
            let key = |t: usize, d: usize| {
                *a.pages[t / PAGE].add(a.keys + t % PAGE / PANEL * a.head_dim * PANEL + d * PANEL + t % PANEL)
            };
            let value = |t: usize, d: usize| {
                *a.pages[t / PAGE].add(a.values + d / PANEL * PAGE * PANEL + t % PAGE * PANEL + d % PANEL)
            };
            let p = std::slice::from_raw_parts_mut(a.scores.add(m * a.scores_pitch), a.len(m));
            for (t, score) in p.iter_mut().enumerate() {
                *score = r1(a.head_dim, |d| *q.add(d), |d| key(t, d));
            }
            let denominator = softmax(p, a.scale);
            for d in 0..a.head_dim {
                *a.out_of(m).add(d) = r1(p.len(), |t| p[t], |t| value(t, d)) / denominator;
            }
        }
    }
}

/// A row in blocks of 32: `sx = max|x| / most`, `q = round(clamp(x · (1/sx)))`, half to even. A tiny block is all
/// zeros with the scale 0; one that holds a NaN or an infinity has the scale NaN.
pub(crate) fn quantise_block(x: &[f32], bits: Activations, q: &mut [i16; BLOCK]) -> f32 {
    q.fill(0);
    if !all_finite(x) {
        return f32::NAN;
    }
    let most = x.iter().fold(0.0, |most, x| if x.abs() > most { x.abs() } else { most });
    if most < quants::TINY {
        return 0.0;
    }
    let limit = bits.most();
    let scale = most / limit;
    let inverse = 1.0 / scale;
    for (q, &x) in q.iter_mut().zip(x) {
        let v = x * inverse;
        let v = if v > limit { limit } else { v };
        let v = if v < -limit { -limit } else { v };
        *q = v.round_ties_even() as i16;
    }
    scale
}

/// Scalar words in every slot.
///
/// # Safety
/// `out` has room for the row.
unsafe fn quantise(x: &[f32], bits: Activations, out: Quants) {
    for b in 0..out.blocks {
        let mut q = [0i16; BLOCK];
        let end = x.len().min((b + 1) * BLOCK);
        let scale = quantise_block(&x[b * BLOCK..end], bits, &mut q);
        // SAFETY: a slot holds 32 words.
        unsafe {
            out.slots(0).add(b * quants::SLOT).cast::<[i16; BLOCK]>().write_unaligned(q);
            out.note(0, b, scale, q.iter().map(|&q| i32::from(q)).sum());
        }
    }
}

/// Chunks of 8 blocks, as R1 does it: each from +0 by `acc = fma(float(Σ w·q), sx · sw, acc)`, with a minimum
/// followed by `acc = fma(float(Σ q) · sx, m, acc)`; the first chunk's sum starts the total, each later one is
/// added to it. `block` gives Σ w·q, sw and m of an output's block; `x` gives sx and Σ q.
pub(crate) fn dot_r1(
    blocks: usize,
    block: impl Fn(usize) -> (i32, f32, Option<f32>),
    x: impl Fn(usize) -> (f32, i32),
) -> f32 {
    let mut total = 0.0;
    for start in (0..blocks).step_by(CHUNK_BLOCKS) {
        let mut acc = 0.0;
        for b in start..blocks.min(start + CHUNK_BLOCKS) {
            let ((sum, sw, m), (sx, q)) = (block(b), x(b));
            acc = fma(sum as f32, sx * sw, acc);
            if let Some(m) = m {
                acc = fma(q as f32 * sx, m, acc);
            }
        }
        total = if start == 0 { acc } else { total + acc };
    }
    total
}

/// Every output by [`dot_r1`], weights from panels.
///
/// # Safety
/// As [`Dot`] says.
unsafe fn dot(a: &Dot) {
    // SAFETY: the panels are readable.
    let data = unsafe { std::slice::from_raw_parts(a.w, a.panel * a.panels) };
    let w = Matrix { format: a.format, k: a.x.blocks * BLOCK, data };
    for r in 0..a.rows {
        // SAFETY: the row was quantised by `quantise`.
        let q =
            |b: usize| unsafe { a.x.slots(r).add(b * quants::SLOT).cast::<[i16; BLOCK]>().read_unaligned() };
        for n in 0..a.panels * PANEL {
            let block = |b: usize| {
                let sum = (0..BLOCK).map(|i| w.integer(n, b * BLOCK + i) * i32::from(q(b)[i])).sum();
                let (sw, m) = w.scale(n, b);
                (sum, sw, (a.format == Format::Q4Min).then_some(m))
            };
            // SAFETY: as above; row and column stay inside the output.
            unsafe {
                let x = |b: usize| (*a.x.scales(r).add(b), *a.x.sums(r).add(b));
                *a.out.add(r * a.out_pitch + n) = dot_r1(a.x.blocks, block, x);
            }
        }
    }
}

pub(crate) static KERNELS: Kernels =
    Kernels { linear, dot, quantise, attend, rms_norm, rope, add, swiglu, exp_minus, softmax, all_finite };
