//! Attention of some query rows over paged keys and values, generic over lanes, with the product's own tile.
//! Knows pages, not layers or sequences.

use super::arith::Lanes;
use super::linear::{CHUNK, Linear, PANEL, linear};
use super::rows;
use crate::matrix::Format;

/// Positions of a page of keys and values: one chunk of R1 over positions.
pub const PAGE: usize = CHUNK;

/// Query rows that share keys and values. Row m belongs to position `m / heads` and head `m % heads`, and
/// sees `first_len + m / heads` positions. Scratch is this call's alone.
#[derive(Clone, Copy)]
pub(crate) struct Attend<'a> {
    pub q: *const f32,
    pub q_pitch: usize,
    /// Number of query positions, and of query heads at each.
    pub positions: usize,
    pub heads: usize,
    pub first_len: usize,
    /// Bases of the pages, 256 positions each, in order.
    pub pages: &'a [*mut f32],
    /// Where in a page this head's keys and values begin.
    pub keys: usize,
    pub values: usize,
    pub head_dim: usize,
    pub scale: f32,
    /// Scores: `positions·heads` rows of at least the longest length rounded up to 16.
    pub scores: *mut f32,
    pub scores_pitch: usize,
    /// Sums of one chunk, and totals: `positions·heads` rows of head_dim rounded up to 16 each.
    pub sums: *mut f32,
    pub totals: *mut f32,
    /// Output of head 0 at position 0; heads stand head_dim apart.
    pub out: *mut f32,
    pub out_pitch: usize,
}

impl Attend<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.positions * self.heads
    }

    /// Positions that row `m` sees.
    pub(crate) fn len(&self, m: usize) -> usize {
        self.first_len + m / self.heads
    }
}

/// score = R1(q·k)·scale; p = exp(score − max); context = R1(p·v) over the row's own positions; each element
/// divided by R2(p).
///
/// # Safety
/// The CPU has `L`'s instructions; the regions [`Attend`] describes are valid; scratch and output are this
/// thread's alone.
#[inline(always)]
pub(crate) unsafe fn attend<L: Lanes>(a: &Attend<'_>) {
    let rows_m = a.rows();
    let dim = a.head_dim.next_multiple_of(PANEL);
    if rows_m == 0 {
        return;
    }
    let longest = a.len(rows_m - 1);
    // SAFETY: page indices stay below ceil(longest / PAGE), rows below `rows_m`; the rest is the contract.
    unsafe {
        for (page, base) in a.pages[..longest.div_ceil(PAGE)].iter().enumerate() {
            linear::<L>(&Linear {
                x: a.q,
                x_pitch: a.q_pitch,
                rows: rows_m,
                w: base.add(a.keys).cast(),
                format: Format::F32,
                panel: a.head_dim * PANEL * 4,
                k: a.head_dim,
                panels: PAGE.min(longest - page * PAGE).div_ceil(PANEL),
                out: a.scores.add(page * PAGE),
                out_pitch: a.scores_pitch,
            });
        }
        for (page, base) in a.pages[..longest.div_ceil(PAGE)].iter().enumerate() {
            let start = page * PAGE;
            let values = base.add(a.values);
            // The first row that sees anything of this page; lengths never fall from row to row.
            let first = (0..rows_m).find(|&m| a.len(m) > start).unwrap_or(rows_m);
            if page == 0 {
                for m in 0..rows_m {
                    let scores = std::slice::from_raw_parts_mut(a.scores.add(m * a.scores_pitch), a.len(m));
                    // The denominator waits in the output, where the quotients will go.
                    *a.out_of(m) = rows::softmax::<L>(scores, a.scale);
                }
            }
            let common = PAGE.min(a.len(first) - start);
            linear::<L>(&Linear {
                x: a.scores.add(first * a.scores_pitch + start),
                x_pitch: a.scores_pitch,
                rows: rows_m - first,
                w: values.cast(),
                format: Format::F32,
                panel: PAGE * PANEL * 4,
                k: common,
                panels: dim / PANEL,
                out: a.sums.add(first * dim),
                out_pitch: dim,
            });
            for m in first..rows_m {
                let own = PAGE.min(a.len(m) - start);
                let scores = a.scores.add(m * a.scores_pitch + start);
                for d in (0..dim).step_by(PANEL) {
                    // Each row goes on alone where the others have ended.
                    let mut sum = L::load(a.sums.add(m * dim + d));
                    for i in common..own {
                        let v = L::load(values.add(d * PAGE + i * PANEL));
                        sum = L::splat(*scores.add(i)).fma(v, sum);
                    }
                    let total = a.totals.add(m * dim + d);
                    if page > 0 {
                        sum = L::load(total).add(sum);
                    }
                    sum.store(total);
                }
            }
        }
        for m in 0..rows_m {
            let total = std::slice::from_raw_parts(a.totals.add(m * dim), a.head_dim);
            let denominator = *a.out_of(m);
            let out = std::slice::from_raw_parts_mut(a.out_of(m), a.head_dim);
            rows::divide::<L>(total, denominator, out);
        }
    }
}

impl Attend<'_> {
    /// Where row m's context goes.
    ///
    /// # Safety
    /// `m < rows()`.
    #[inline(always)]
    pub(crate) unsafe fn out_of(&self, m: usize) -> *mut f32 {
        // SAFETY: the output covers every row, by the contract of `Attend`.
        unsafe { self.out.add(m / self.heads * self.out_pitch + m % self.heads * self.head_dim) }
    }
}
