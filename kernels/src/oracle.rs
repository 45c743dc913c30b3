//! The whole model as the numeric contract writes it down: one position after the other, no cache pages, no
//! tiles, no threads. What every engine is compared with, bit for bit. Slow: some seconds a token on a real model.
//! Its parts check single rows of a pass.

use crate::cpu::scalar::{dot_r1, quantise_block, r1, rms_norm, rope, softmax};
use crate::geometry::Geometry;
use crate::math;
use crate::matrix::{BLOCK, Format, Matrix};
use crate::pack::PackedModel;
use crate::spec::{Activations, Spec};

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
            let width = (g.heads + 2 * g.kv_heads) * g.head_dim;
            let qkv = linear(model.spec, &normed(&x, layer.attn_norm, g), layer.qkv, width);
            let (q, kv) = qkv.split_at(g.heads * g.head_dim);
            let (k, v) = kv.split_at(g.kv_heads * g.head_dim);
            keys[i].push(rotated(k, model, position));
            values[i].push(v.to_vec());
            let context = attention(g, &rotated(q, model, position), &keys[i], &values[i]);
            residual(&mut x, &linear(model.spec, &context, layer.o_proj, g.width));

            let y = normed(&x, layer.ffn_norm, g);
            let at = |n: usize, up: usize| (n / 16 * 2 + up) * 16 + n % 16;
            let gate_up = linear(model.spec, &y, layer.gate_up, layer.gate_up.panels() * 16);
            let hidden: Vec<f32> =
                (0..g.ffn).map(|n| math::silu(gate_up[at(n, 0)]) * gate_up[at(n, 1)]).collect();
            residual(&mut x, &linear(model.spec, &hidden, layer.down, g.width));
        }
        all.push(linear(model.spec, &normed(&x, model.final_norm, g), model.lm_head, g.vocab));
    }
    Some(all)
}

fn embed(model: &PackedModel<'_>, token: usize) -> Vec<f32> {
    (0..model.geometry.width).map(|k| model.embed.at(token, k)).collect()
}

fn normed(x: &[f32], gain: &[f32], g: &Geometry) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    rms_norm(x, gain, g.norm_eps, &mut y);
    y
}

/// The logits of `tokens`, each below the vocabulary's size, that follow from a row of the last residual stream.
pub fn logits_of(model: &PackedModel<'_>, stream: &[f32], tokens: &[usize]) -> Vec<f32> {
    outputs(model.spec, &final_norm(model, stream), model.lm_head, tokens.iter().copied())
}

/// The final norm of a row of the residual stream.
pub fn final_norm(model: &PackedModel<'_>, stream: &[f32]) -> Vec<f32> {
    normed(stream, model.final_norm, &model.geometry)
}

/// The context of one head: of its rotated query, the rotated keys and the values up to its position.
pub fn attention_context<'k>(
    q: &[f32],
    keys: impl Iterator<Item = &'k [f32]>,
    values: &[&[f32]],
) -> Vec<f32> {
    let mut p: Vec<f32> = keys.map(|k| r1(q.len(), |d| q[d], |d| k[d])).collect();
    let denominator = softmax(&mut p, 1.0 / (q.len() as f32).sqrt());
    (0..q.len()).map(|d| r1(p.len(), |t| p[t], |t| values[t][d]) / denominator).collect()
}

fn linear(spec: Spec, x: &[f32], w: Matrix<'_>, n: usize) -> Vec<f32> {
    outputs(spec, x, w, 0..n)
}

/// Some outputs of a product.
fn outputs(spec: Spec, x: &[f32], w: Matrix<'_>, which: impl Iterator<Item = usize>) -> Vec<f32> {
    let bits = spec.activations();
    if bits == Activations::F32 {
        return which.map(|n| r1(w.k, |k| x[k], |k| w.at(n, k))).collect();
    }
    // Integers and scale of each block of x.
    let blocks: Vec<([i16; BLOCK], f32)> = x
        .chunks(BLOCK)
        .map(|x| {
            let mut q = [0; BLOCK];
            let scale = quantise_block(x, bits, &mut q);
            (q, scale)
        })
        .collect();
    let one = |n: usize| {
        let block = |b: usize| {
            let products = blocks[b].0.iter().enumerate();
            let sum = products.map(|(i, &q)| w.integer(n, b * BLOCK + i) * i32::from(q)).sum();
            let (sw, m) = w.scale(n, b);
            (sum, sw, (w.format == Format::Q4Min).then_some(m))
        };
        dot_r1(blocks.len(), block, |b| (blocks[b].1, blocks[b].0.iter().map(|&q| i32::from(q)).sum()))
    };
    which.map(one).collect()
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
        let values: Vec<&[f32]> = values.iter().map(|v| &v[at..at + dim]).collect();
        context.extend(attention_context(q, keys.iter().map(|k| &k[at..at + dim]), &values));
    }
    context
}

fn residual(x: &mut [f32], y: &[f32]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
