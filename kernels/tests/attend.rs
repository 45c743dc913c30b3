//! The attention weights computed again are those the context was made of, to the bit.

mod common;

use std::collections::HashMap;
use std::sync::Mutex;

use common::{geometry, prompt, weights};
use pipe_kernels::{
    Block, Engine, Implementation, KvCache, Logits, Slice, Spec, Tap, Want, attended, attention_weights,
};

/// R1 as docs/NUMERICS.md has it.
fn r1(a: &[f32], b: impl Fn(usize) -> f32) -> f32 {
    let mut total = 0.0;
    for (chunk, a) in a.chunks(256).enumerate() {
        let sum = a.iter().enumerate().fold(0.0f32, |sum, (i, a)| a.mul_add(b(chunk * 256 + i), sum));
        total = if chunk == 0 { sum } else { total + sum };
    }
    total
}

#[test]
fn the_context_follows_from_the_weights() {
    // Over two pages of the cache, and with more elements to a head than R1 has in a chunk.
    let long = pipe_kernels::Geometry { heads: 2, kv_heads: 1, head_dim: 260, context: 20, ..geometry() };
    for (g, count, spec) in [(geometry(), 530, Spec::F32), (long, 18, Spec::F32), (geometry(), 40, Spec::Q8)]
    {
        let packed = weights(3, &g).packed_for(spec);
        let model = packed.model();
        let engine = Engine::new(2, Implementation::detect()).unwrap();
        let mut cache = KvCache::new(&g);
        let rows: Mutex<HashMap<(Block, usize), Vec<f32>>> = Mutex::default();
        for tokens in prompt(7, count, &g).chunks(37) {
            let tap = Tap {
                wants: &|b| matches!(b, Block::Qkv { .. } | Block::Rope { .. } | Block::Attention { .. }),
                see: &|output| {
                    for (place, row) in output.rows() {
                        rows.lock().unwrap().insert((output.block, place.position), row.to_vec());
                    }
                },
            };
            let mut batch = [Slice { cache: &mut cache, tokens, want: Want::None }];
            engine.observed(&model, &mut batch, &mut Logits::new(), Some(tap)).unwrap();
        }
        let rows = rows.into_inner().unwrap();
        let (dim, group) = (g.head_dim, g.heads / g.kv_heads);
        for layer in 0..g.layers as u32 {
            for position in (0..count).filter(|p| p % 41 == 0 || [15, 16, 255, 256, 257].contains(p)) {
                let q = &rows[&(Block::Rope { layer }, position)][..g.heads * dim];
                let found = attended(&cache, layer as usize, q, position);
                let context: Vec<u32> = (0..g.heads * dim)
                    .map(|i| {
                        let (head, d) = (i / dim, i % dim);
                        let at = (g.heads + g.kv_heads + head / group) * dim + d;
                        let p = &found.p[head * (position + 1)..(head + 1) * (position + 1)];
                        let sum = r1(p, |t| rows[&(Block::Qkv { layer }, t)][at]);
                        (sum / found.denominators[head]).to_bits()
                    })
                    .collect();
                let expected = &rows[&(Block::Attention { layer }, position)];
                assert!(context == common::bits(expected), "{spec:?}, layer {layer}, position {position}");
                let weights = attention_weights(&cache, layer as usize, q, position);
                let divided = found.p.iter().enumerate();
                let divided = divided.map(|(i, p)| p / found.denominators[i / (position + 1)]);
                assert!(divided.map(f32::to_bits).eq(weights.iter().map(|w| w.to_bits())));
            }
        }
    }
}
