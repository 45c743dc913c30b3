//! Attention weights of one position, computed again from its rotated queries and the cache: the kernels never keep
//! them. With the operations of the numeric contract, so they are the very numbers the context was made of.

use crate::cpu::attention::PAGE;
use crate::cpu::linear::PANEL;
use crate::cpu::scalar::softmax;
use crate::engine::KvCache;

/// Elements of a chunk of R1.
const CHUNK: usize = 256;

/// What softmax leaves before the division: for each head `p = exp(score − max)` over positions 0 to t, and the
/// denominator. The context is R1 of p·v over positions, then divided by the denominator.
#[derive(Clone, Debug, PartialEq)]
pub struct Attended {
    /// `[heads][t + 1]`
    pub p: Vec<f32>,
    /// One for each head.
    pub denominators: Vec<f32>,
}

/// The attention weights of position `position` in `layer`, `[heads][position + 1]`: `p / denominator` in f32. `q` is
/// the rotated queries there, all heads in a row, as a tap is shown them in `rope`.
///
/// # Panics
/// If the cache does not hold the position, or `q` is not as long as its geometry says.
pub fn attention_weights(cache: &KvCache, layer: usize, q: &[f32], position: usize) -> Vec<f32> {
    let Attended { mut p, denominators } = attended(cache, layer, q, position);
    for (p, denominator) in p.chunks_mut(position + 1).zip(denominators) {
        p.iter_mut().for_each(|p| *p /= denominator);
    }
    p
}

/// [`attention_weights`] before the division.
///
/// # Panics
/// As [`attention_weights`] says.
pub fn attended(cache: &KvCache, layer: usize, q: &[f32], position: usize) -> Attended {
    let g = cache.geometry();
    assert!(position < cache.len() && layer < g.layers, "the cache does not hold the position");
    assert_eq!(q.len(), g.heads * g.head_dim, "one query for each head");
    let (dim, group) = (g.head_dim, g.heads / g.kv_heads);
    let scale = 1.0 / (dim as f32).sqrt();
    let mut out = Attended { p: Vec::with_capacity(g.heads * (position + 1)), denominators: Vec::new() };
    for (head, q) in q.chunks_exact(dim).enumerate() {
        let start = out.p.len();
        for first in (0..=position).step_by(PANEL) {
            let keys = cache.keys(layer, head / group, first / PANEL);
            let lanes = PANEL.min(position + 1 - first);
            out.p.extend_from_slice(&scores(q, keys)[..lanes]);
        }
        out.denominators.push(softmax(&mut out.p[start..], scale));
    }
    out
}

/// R1 of q·k for the positions of a panel of keys.
fn scores(q: &[f32], keys: &[f32]) -> [f32; PANEL] {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: this machine has both.
        return unsafe { scores_fma(q, keys) };
    }
    r1_lanes(q, keys, crate::cpu::arith::fma)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn scores_fma(q: &[f32], keys: &[f32]) -> [f32; PANEL] {
    r1_lanes(q, keys, |a, b, c| a.mul_add(b, c))
}

/// R1 in each lane by itself.
#[inline(always)]
fn r1_lanes(q: &[f32], keys: &[f32], fma: impl Fn(f32, f32, f32) -> f32) -> [f32; PANEL] {
    let mut total = [0.0; PANEL];
    for (chunk, (q, keys)) in q.chunks(CHUNK).zip(keys.chunks(CHUNK * PANEL)).enumerate() {
        let mut sum = [0.0; PANEL];
        for (&q, keys) in q.iter().zip(keys.as_chunks::<PANEL>().0) {
            for (sum, &key) in sum.iter_mut().zip(keys) {
                *sum = fma(q, key, *sum);
            }
        }
        for (total, sum) in total.iter_mut().zip(sum) {
            *total = if chunk == 0 { sum } else { *total + sum };
        }
    }
    total
}

const _: () = assert!(PAGE.is_multiple_of(PANEL), "a panel of keys lies in one page");
