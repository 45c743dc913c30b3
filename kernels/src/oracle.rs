//! The whole model as the numeric contract writes it down: one position after the other, no cache pages, no
//! tiles, no threads. What every engine is compared with, bit for bit. Slow: some seconds a token on a real model.

use crate::cpu::scalar::{r1, rms_norm, rope, softmax};
use crate::geometry::Geometry;
use crate::math;
use crate::pack::{PackedModel, Panels};

/// The logits at every position of `tokens`, each below the vocabulary's size, at most the context in number.
/// None when a token or the length is out of range.
pub fn logits(model: &PackedModel<'_>, tokens: &[u32]) -> Option<Vec<Vec<f32>>> {
    let g = &model.geometry;
    if tokens.len() > g.context || tokens.iter().any(|&t| t as usize >= g.vocab) {
        return None;
    }
    // Keys and values: [layer][position], all heads of a position in one row.
    let mut keys: Vec<Vec<Vec<f32>>> = vec![Vec::new(); g.layers];
    let mut values = keys.clone();
    let mut all = Vec::with_capacity(tokens.len());
    for (position, &token) in tokens.iter().enumerate() {
        let mut x = embed(model, token as usize);
        for (i, layer) in model.layers.iter().enumerate() {
            let qkv =
                linear(&normed(&x, layer.attn_norm, g), layer.qkv, (g.heads + 2 * g.kv_heads) * g.head_dim);
            let (q, kv) = qkv.split_at(g.heads * g.head_dim);
            let (k, v) = kv.split_at(g.kv_heads * g.head_dim);
            keys[i].push(rotated(k, model, position));
            values[i].push(v.to_vec());
            let context = attention(g, &rotated(q, model, position), &keys[i], &values[i]);
            residual(&mut x, &linear(&context, layer.o_proj, g.width));

            let y = normed(&x, layer.ffn_norm, g);
            let gate_up = |n: usize, up: usize| (n / 16 * 2 + up) * 16 + n % 16;
            let factor = |n: usize| r1(g.width, |k| y[k], |k| layer.gate_up.at(n, k));
            let hidden: Vec<f32> =
                (0..g.ffn).map(|n| math::silu(factor(gate_up(n, 0))) * factor(gate_up(n, 1))).collect();
            residual(&mut x, &linear(&hidden, layer.down, g.width));
        }
        all.push(linear(&normed(&x, model.final_norm, g), model.lm_head, g.vocab));
    }
    Some(all)
}

fn embed(model: &PackedModel<'_>, token: usize) -> Vec<f32> {
    let width = model.geometry.width;
    match model.embed {
        Some(table) => table[token * width..(token + 1) * width].to_vec(),
        None => (0..width).map(|k| model.lm_head.at(token, k)).collect(),
    }
}

fn normed(x: &[f32], gain: &[f32], g: &Geometry) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    rms_norm(x, gain, g.norm_eps, &mut y);
    y
}

fn linear(x: &[f32], w: Panels<'_>, outputs: usize) -> Vec<f32> {
    (0..outputs).map(|n| r1(w.k, |k| x[k], |k| w.at(n, k))).collect()
}

fn rotated(heads: &[f32], model: &PackedModel<'_>, position: usize) -> Vec<f32> {
    let dim = model.geometry.head_dim;
    let table = &model.rope[position * dim..(position + 1) * dim];
    let mut y = vec![0.0; heads.len()];
    for (x, y) in heads.chunks(dim).zip(y.chunks_mut(dim)) {
        rope(x, table, y);
    }
    y
}

fn attention(g: &Geometry, q: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>]) -> Vec<f32> {
    let dim = g.head_dim;
    let mut context = Vec::with_capacity(q.len());
    for (head, q) in q.chunks(dim).enumerate() {
        let at = head / (g.heads / g.kv_heads) * dim;
        let mut p: Vec<f32> = keys.iter().map(|k| r1(dim, |d| q[d], |d| k[at + d])).collect();
        let denominator = softmax(&mut p, 1.0 / (dim as f32).sqrt());
        context.extend((0..dim).map(|d| r1(p.len(), |t| p[t], |t| values[t][at + d]) / denominator));
    }
    context
}

fn residual(x: &mut [f32], y: &[f32]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
