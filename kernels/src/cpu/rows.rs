//! The elementwise blocks and the norm over one row, generic over lanes. A row's last few elements go through
//! the same lanes from a padded copy; padding never reaches a sum.

use super::arith::Lanes;
use super::linear::PANEL;
use crate::math::single;

/// Up to 16 floats of `x` from `i` on; the lanes beyond the end hold zero.
///
/// # Safety
/// The CPU has `L`'s instructions.
#[inline(always)]
pub(super) unsafe fn read<L: Lanes>(x: &[f32], i: usize) -> L {
    let rest = x.get(i..).unwrap_or(&[]);
    if rest.len() >= PANEL {
        // SAFETY: 16 floats are left.
        return unsafe { L::load(rest.as_ptr()) };
    }
    let mut padded = [0.0; PANEL];
    padded[..rest.len()].copy_from_slice(rest);
    // SAFETY: the copy holds 16 floats.
    unsafe { L::load(padded.as_ptr()) }
}

/// The counterpart of [`read`]: lanes beyond the end are dropped.
#[inline(always)]
fn write<L: Lanes>(v: L, x: &mut [f32], i: usize) {
    let rest = &mut x[i..];
    if rest.len() >= PANEL {
        // SAFETY: 16 floats are left.
        return unsafe { v.store(rest.as_mut_ptr()) };
    }
    let lanes = array(v);
    let n = rest.len();
    rest.copy_from_slice(&lanes[..n]);
}

#[inline(always)]
fn array<L: Lanes>(v: L) -> [f32; PANEL] {
    let mut lanes = [0.0; PANEL];
    // SAFETY: the array holds 16 floats.
    unsafe { v.store(lanes.as_mut_ptr()) };
    lanes
}

/// The end of R2: halves are added, 8, 4, 2, 1.
#[inline(always)]
fn fold(mut a: [f32; PANEL]) -> f32 {
    let mut half = PANEL / 2;
    while half > 0 {
        for l in 0..half {
            a[l] += a[l + half];
        }
        half /= 2;
    }
    a[0]
}

/// `out = (x · s) · gain` with `s = 1 / sqrt(R2(x·x) / n + eps)`.
///
/// # Safety
/// As [`read`]; the three slices have one length.
#[inline(always)]
pub(crate) unsafe fn rms_norm<L: Lanes>(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        let n = x.len();
        let mut acc = L::splat(0.0);
        for i in (0..n).step_by(PANEL) {
            let v = read::<L>(x, i);
            acc = L::select(acc.first(n - i), v.fma(v, acc), acc);
        }
        let s = L::splat(1.0 / (fold(array(acc)) / n as f32 + eps).sqrt());
        for i in (0..n).step_by(PANEL) {
            write(read::<L>(x, i).mul(s).mul(read(gain, i)), out, i);
        }
    }
}

/// `out = rotate(x)`: each pair (a, b) by its (cos, sin): `fma(a, c, −(b·s))`, `fma(a, s, b·c)`.
///
/// # Safety
/// As [`read`]; the three slices have one even length.
#[inline(always)]
pub(crate) unsafe fn rope<L: Lanes>(x: &[f32], table: &[f32], out: &mut [f32]) {
    for i in (0..x.len()).step_by(PANEL) {
        // SAFETY: the caller's promise.
        let (v, cs) = unsafe { (read::<L>(x, i), read::<L>(table, i)) };
        // Lanes (a, a), (b, b), (c, s), (−s, c); b·(−s) is −(b·s) exactly.
        let turned = v.dup_odd().mul(cs.swap_pairs().neg_even());
        write(v.dup_even().fma(cs, turned), out, i);
    }
}

/// `x = x + y`.
///
/// # Safety
/// As [`read`]; the slices have one length.
#[inline(always)]
pub(crate) unsafe fn add<L: Lanes>(x: &mut [f32], y: &[f32]) {
    for i in (0..x.len()).step_by(PANEL) {
        // SAFETY: the caller's promise.
        let sum = unsafe { read::<L>(x, i).add(read(y, i)) };
        write(sum, x, i);
    }
}

/// `out = silu(gate) · up`; `gate_up` alternates 16 of gate with 16 of up.
///
/// # Safety
/// The CPU has `L`'s instructions; `out` is a multiple of 16 and half as long as `gate_up`.
#[inline(always)]
pub(crate) unsafe fn swiglu<L: Lanes>(gate_up: &[f32], out: &mut [f32]) {
    for (pair, out) in gate_up.chunks_exact(2 * PANEL).zip(out.chunks_exact_mut(PANEL)) {
        // SAFETY: each chunk holds the 16 or 32 floats read and written here.
        unsafe {
            let (gate, up) = (L::load(pair.as_ptr()), L::load(pair.as_ptr().add(PANEL)));
            single::silu(gate).mul(up).store(out.as_mut_ptr());
        }
    }
}

/// `out = exp(x − max)`.
///
/// # Safety
/// As [`read`]; the slices have one length.
#[inline(always)]
pub(crate) unsafe fn exp_minus<L: Lanes>(x: &[f32], max: f32, out: &mut [f32]) {
    for i in (0..x.len()).step_by(PANEL) {
        // SAFETY: the caller's promise.
        let v = unsafe { single::exp(read::<L>(x, i).sub(L::splat(max))) };
        write(v, out, i);
    }
}

/// Scores to weights, in place: `s = score·scale`, `p = exp(s − max s)`. Returns R2 of p, the denominator.
///
/// The max starts at −∞ and goes by compare: which of +0 and −0 it is changes no weight.
///
/// # Safety
/// As [`read`].
#[inline(always)]
pub(crate) unsafe fn softmax<L: Lanes>(x: &mut [f32], scale: f32) -> f32 {
    // SAFETY: the caller's promise; chunks hold 16 floats.
    unsafe {
        let scale = L::splat(scale);
        let whole = x.len() - x.len() % PANEL;
        let rest = x.len() - whole;
        let mut most = L::splat(f32::NEG_INFINITY);
        for chunk in x[..whole].chunks_exact(PANEL) {
            most = most.at_least(L::load(chunk.as_ptr()).mul(scale));
        }
        let larger = most.at_least(read::<L>(x, whole).mul(scale));
        most = L::select(most.first(rest), larger, most);
        let mut max = f32::NEG_INFINITY;
        for v in array(most) {
            if v > max {
                max = v;
            }
        }
        let max = L::splat(max);
        let mut acc = L::splat(0.0);
        for chunk in x[..whole].chunks_exact_mut(PANEL) {
            let p = single::exp(L::load(chunk.as_ptr()).mul(scale).sub(max));
            p.store(chunk.as_mut_ptr());
            acc = acc.add(p);
        }
        if rest > 0 {
            let p = single::exp(read::<L>(x, whole).mul(scale).sub(max));
            write(p, x, whole);
            acc = L::select(acc.first(rest), acc.add(p), acc);
        }
        fold(array(acc))
    }
}

/// Is every element neither NaN nor infinite?
///
/// # Safety
/// As [`read`].
#[inline(always)]
pub(crate) unsafe fn all_finite<L: Lanes>(x: &[f32]) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        // v − v is 0 for finite v and NaN for the rest, and NaN stays in a sum.
        let mut acc = L::splat(0.0);
        for i in (0..x.len()).step_by(PANEL) {
            let v = read::<L>(x, i);
            acc = acc.add(v.sub(v));
        }
        array(acc).iter().all(|v| *v == 0.0)
    }
}

/// `out = x / d` for the context of one head.
///
/// # Safety
/// As [`read`]; the slices have one length.
#[inline(always)]
pub(crate) unsafe fn divide<L: Lanes>(x: &[f32], d: f32, out: &mut [f32]) {
    for i in (0..x.len()).step_by(PANEL) {
        // SAFETY: the caller's promise.
        let v = unsafe { read::<L>(x, i).div(L::splat(d)) };
        write(v, out, i);
    }
}
