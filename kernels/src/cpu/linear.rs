//! R1 over panels: `out[r][n] = Σ_k x[r][k]·w[n][k]` in chunks of [`CHUNK`], each output alone in its lane.
//! Generic over lanes and over how the weights are kept. Knows panels, no matrix names.

use super::arith::Lanes;
use super::floats::{Bf16, F16, F32, Weights};
use crate::matrix::Format;

/// Elements of a reduction that are accumulated before the sum joins the total (NUMERICS R1).
pub const CHUNK: usize = 256;
/// Outputs of a panel, which are the lanes of a vector.
pub const PANEL: usize = 16;

/// One product: `rows` rows of `x` times some adjacent panels of `k` elements.
#[derive(Clone, Copy)]
pub(crate) struct Linear {
    pub x: *const f32,
    /// Floats from one row of `x` to the next.
    pub x_pitch: usize,
    pub rows: usize,
    /// The first panel, in a format of floats.
    pub w: *const u8,
    pub format: Format,
    /// Bytes from one panel to the next; at least those of `k·16` weights.
    pub panel: usize,
    pub k: usize,
    pub panels: usize,
    /// Column 0 of the first panel in row 0 of the output; whole panels are written.
    pub out: *mut f32,
    pub out_pitch: usize,
}

/// The part of a product that one register tile takes through one chunk.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub x: *const f32,
    pub x_pitch: usize,
    pub w: *const u8,
    pub panel: usize,
    /// Elements of k, at most a chunk.
    pub len: usize,
    pub out: *mut f32,
    pub out_pitch: usize,
    /// Is this the chunk that starts the total?
    pub first: bool,
    /// What a full tile fetches meanwhile: with each element of k the line at `ahead`, which moves by
    /// `ahead_step` bytes.
    pub ahead: *const u8,
    pub ahead_step: usize,
    /// What lower tiles fetch, which are bound by memory: each panel some lines ahead; the last lines before
    /// the end of k are followed by the first ones of the next group of panels.
    pub last: bool,
}

/// How many elements of k lower tiles fetch ahead.
const AHEAD: usize = 24;
/// How many elements of k full tiles, which find their weights in the second-level cache, fetch ahead of it.
const NEAR: usize = 8;

/// Accumulates an `R` × `P·16` tile over one chunk in registers, then stores or adds it.
///
/// # Safety
/// The CPU has `L`'s instructions. `x` is readable for `R` rows of `len`, `w` for `P` panels of `len·16` weights,
/// `out` is this thread's alone for `R` rows of `P·16`.
#[inline(always)]
pub(crate) unsafe fn tile<L: Lanes, W: Weights, const R: usize, const P: usize>(t: &Tile) {
    // SAFETY: as the function's contract; every offset below stays inside the regions it names.
    unsafe {
        let zero = L::splat(0.0);
        let mut acc = [[zero; P]; R];
        let mut w = t.w;
        let mut x = t.x;
        let line = PANEL * W::BYTES;
        let mut ahead = if R == L::ROWS { t.ahead } else { t.w.wrapping_add(AHEAD * line) };
        let turn = if t.last { t.len.saturating_sub(AHEAD) } else { t.len };
        for i in 0..t.len {
            if R == L::ROWS {
                L::fetch_far(ahead);
                ahead = ahead.wrapping_add(t.ahead_step);
                for p in 0..P {
                    L::fetch_near(w.wrapping_add(p * t.panel + NEAR * line));
                }
            } else {
                if i == turn {
                    ahead = ahead.wrapping_add((P - 1) * t.panel);
                }
                for p in 0..P {
                    L::fetch_far(ahead.wrapping_add(p * t.panel));
                }
                ahead = ahead.wrapping_add(line);
            }
            let mut weights = [zero; P];
            for (p, weight) in weights.iter_mut().enumerate() {
                *weight = W::load::<L>(w.add(p * t.panel));
            }
            for (r, row) in acc.iter_mut().enumerate() {
                let a = L::splat(*x.add(r * t.x_pitch));
                for (sum, &weight) in row.iter_mut().zip(&weights) {
                    *sum = a.fma(weight, *sum);
                }
            }
            w = w.add(line);
            x = x.add(1);
        }
        for (r, row) in acc.iter().enumerate() {
            for (p, &sum) in row.iter().enumerate() {
                let out = t.out.add(r * t.out_pitch + p * PANEL);
                let total = if t.first { sum } else { L::load(out).add(sum) };
                total.store(out);
            }
        }
    }
}

/// The whole product. Panels outside, so that weights stream through once while activations stay cached. While
/// full tiles compute, the next panels' weights are fetched bit by bit.
///
/// # Safety
/// The CPU has `L`'s instructions; the regions [`Linear`] describes are valid, and the output is this
/// thread's alone.
#[inline(always)]
pub(crate) unsafe fn linear<L: Lanes>(a: &Linear) {
    // SAFETY: the caller's promise.
    unsafe {
        match a.format {
            Format::F16 => product::<L, F16>(a),
            Format::Bf16 => product::<L, Bf16>(a),
            _ => product::<L, F32>(a),
        }
    }
}

/// # Safety
/// As [`linear`]; the weights are `W`.
#[inline(always)]
unsafe fn product<L: Lanes, W: Weights>(a: &Linear) {
    let most = L::panels(a.rows.min(L::ROWS));
    let mut p = 0;
    while p < a.panels {
        let np = most.min(a.panels - p);
        // The next group stands right behind this one, as large as this one and read once per row tile.
        let mut ahead = a.w.wrapping_add((p + np) * a.panel);
        let share = (np * a.panel).div_ceil((a.rows / L::ROWS).max(1) * a.k);
        let mut r = 0;
        while r < a.rows {
            let nr = rows_at_once(a.rows - r, L::ROWS);
            let mut k = 0;
            while k < a.k {
                let len = CHUNK.min(a.k - k);
                // SAFETY: tiles partition the product's rows, panels and k; each stays inside the regions of
                // `a`. What is fetched ahead need not be valid.
                unsafe {
                    let t = Tile {
                        x: a.x.add(r * a.x_pitch + k),
                        x_pitch: a.x_pitch,
                        w: a.w.add(p * a.panel + k * PANEL * W::BYTES),
                        panel: a.panel,
                        len,
                        out: a.out.add(r * a.out_pitch + p * PANEL),
                        out_pitch: a.out_pitch,
                        first: k == 0,
                        ahead,
                        ahead_step: share,
                        last: k + len == a.k,
                    };
                    if nr == L::ROWS && k == 0 {
                        fetch_out::<L>(t.out, t.out_pitch, nr, np);
                    }
                    L::tile::<W>(nr, np, &t);
                }
                ahead = ahead.wrapping_add(share * len);
                k += len;
            }
            r += nr;
        }
        p += np;
    }
}

/// Fetches a tile's outputs, which come from memory when they are many.
///
/// # Safety
/// The CPU has `L`'s instructions.
#[inline(always)]
pub(super) unsafe fn fetch_out<L: Lanes>(out: *mut f32, out_pitch: usize, rows: usize, panels: usize) {
    for r in 0..rows {
        for p in 0..panels {
            // SAFETY: the caller's promise.
            unsafe { L::fetch_near(out.wrapping_add(r * out_pitch + p * PANEL).cast()) };
        }
    }
}

/// How many of the remaining rows the next tile takes: full tiles, and the last two of similar height, since
/// a tile of one row costs nearly as much as one of four.
#[inline(always)]
pub(crate) fn rows_at_once(left: usize, most: usize) -> usize {
    if left >= 2 * most || left == most {
        most
    } else if left > most {
        left.div_ceil(2)
    } else {
        left
    }
}
