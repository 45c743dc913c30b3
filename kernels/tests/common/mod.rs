//! A seeded random model of any shape, as packed bytes, and ways to run it.

#![allow(dead_code)] // each test file uses its part

use pipe_kernels::weights::{LayerWeights, ModelWeights, RowOrder, TensorType, TensorView};
use pipe_kernels::*;

/// A shape with remainders everywhere: widths no multiple of a panel, three query heads to a key head.
pub fn geometry() -> Geometry {
    Geometry {
        layers: 2,
        width: 36,
        heads: 6,
        kv_heads: 2,
        head_dim: 6,
        ffn: 52,
        vocab: 83,
        context: 700,
        rope_base: 1e4,
        norm_eps: 1e-5,
        tied: true,
    }
}

/// The weights' bytes, tensor by tensor; norms in f32, all others in `ty`.
pub struct Owned {
    pub geometry: Geometry,
    pub ty: TensorType,
    pub tensors: Vec<Vec<u8>>,
}

/// A shape that the block types can store.
pub fn blocky() -> Geometry {
    Geometry { width: 64, heads: 4, kv_heads: 2, head_dim: 16, ffn: 288, vocab: 51, ..geometry() }
}

/// Random f32 weights about ±1/√cols.
pub fn weights(seed: u64, g: &Geometry) -> Owned {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let mut tensor = |rows: usize, cols: usize, offset: f32| -> Vec<u8> {
        let scale = 1.7 / (cols as f32).sqrt();
        (0..rows * cols).flat_map(|_| (next() * scale + offset).to_le_bytes()).collect()
    };
    let (heads, kv) = (g.heads * g.head_dim, g.kv_heads * g.head_dim);
    let mut tensors =
        vec![tensor(g.vocab, g.width, 0.0), tensor(1, g.width, 1.0), tensor(g.vocab, g.width, 0.0)];
    for _ in 0..g.layers {
        for (rows, cols, offset) in layer_shapes(g, heads, kv) {
            tensors.push(tensor(rows, cols, offset));
        }
    }
    Owned { geometry: *g, ty: TensorType::F32, tensors }
}

/// The same shapes stored as `ty`: the floats narrowed, or blocks of random integers with scales of their size.
pub fn weights_as(seed: u64, g: &Geometry, ty: TensorType) -> Owned {
    let mut owned = weights(seed, g);
    let norm = |i: usize| i == 1 || i > 2 && [0, 5].contains(&((i - 3) % 9));
    for (i, tensor) in owned.tensors.iter_mut().enumerate().filter(|(i, _)| !norm(*i)) {
        let floats: Vec<f32> = tensor.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let half = |x: f32| half::f16::from_f32(x).to_le_bytes();
        *tensor = match ty {
            TensorType::F32 => continue,
            TensorType::F16 => floats.iter().flat_map(|&x| half(x)).collect(),
            TensorType::BF16 => floats.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect(),
            _ => floats
                .chunks(32)
                .flat_map(|block| {
                    let bytes = ty.row_bytes(32).unwrap();
                    let steps = if ty == TensorType::Q8_0 { 100.0 } else { 8.0 };
                    let mut out: Vec<u8> = block.iter().map(|x| (x.to_bits() >> 9) as u8).collect();
                    out.truncate(bytes);
                    out.resize(bytes, 0x5a);
                    out[..2].copy_from_slice(&half(block[0].abs() / steps + 0.001));
                    if ty == TensorType::Q4_1 {
                        out[2..4].copy_from_slice(&half(-block[0].abs()));
                    }
                    out
                })
                .collect(),
        };
        assert_eq!(tensor.len(), owned_bytes(g, i, ty));
    }
    owned.ty = ty;
    owned
}

fn owned_bytes(g: &Geometry, i: usize, ty: TensorType) -> usize {
    let (heads, kv) = (g.heads * g.head_dim, g.kv_heads * g.head_dim);
    let (rows, cols) = match i {
        0 | 2 => (g.vocab, g.width),
        _ => {
            let (rows, cols, _) = layer_shapes(g, heads, kv)[(i - 3) % 9];
            (rows, cols)
        }
    };
    ty.row_bytes(cols).unwrap() * rows
}

fn layer_shapes(g: &Geometry, heads: usize, kv: usize) -> [(usize, usize, f32); 9] {
    [
        (1, g.width, 1.0),
        (heads, g.width, 0.0),
        (kv, g.width, 0.0),
        (kv, g.width, 0.0),
        (g.width, heads, 0.0),
        (1, g.width, 1.0),
        (g.ffn, g.width, 0.0),
        (g.ffn, g.width, 0.0),
        (g.width, g.ffn, 0.0),
    ]
}

impl Owned {
    pub fn view(&self) -> ModelWeights<'_> {
        let g = &self.geometry;
        let (heads, kv) = (g.heads * g.head_dim, g.kv_heads * g.head_dim);
        let view = |i: usize, rows, cols| TensorView {
            ty: if rows == 1 { TensorType::F32 } else { self.ty },
            rows,
            cols,
            order: RowOrder::AsStored,
            data: &self.tensors[i],
        };
        let layers = (0..g.layers).map(|l| {
            let shapes = layer_shapes(g, heads, kv);
            let at = |i: usize| view(3 + l * 9 + i, shapes[i].0, shapes[i].1);
            LayerWeights {
                attn_norm: at(0),
                q: at(1),
                k: at(2),
                v: at(3),
                o: at(4),
                ffn_norm: at(5),
                gate: at(6),
                up: at(7),
                down: at(8),
            }
        });
        ModelWeights {
            embed: view(0, g.vocab, g.width),
            layers: layers.collect(),
            final_norm: view(1, 1, g.width),
            lm_head: (!g.tied).then(|| view(2, g.vocab, g.width)),
        }
    }

    pub fn packed(&self) -> Packed {
        self.packed_for(Spec::F32)
    }

    pub fn packed_for(&self, spec: Spec) -> Packed {
        self.packed_as(spec, spec.width().into())
    }

    pub fn packed_as(&self, spec: Spec, packing: Packing) -> Packed {
        let mut bytes = Vec::new();
        pack(&self.view(), &self.geometry, packing, &mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, pack::packed_len(&self.view(), &self.geometry, packing).unwrap());
        Packed::new(&bytes, spec)
    }
}

/// Packed bytes on the boundary a mapping would give them.
pub struct Packed {
    words: Vec<u64>,
    len: usize,
    spec: Spec,
}

impl Packed {
    pub fn new(bytes: &[u8], spec: Spec) -> Self {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_ne_bytes(eight);
        }
        Self { words, len: bytes.len(), spec }
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the words hold at least `len` bytes.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.len) }
    }

    pub fn model(&self) -> PackedModel<'_> {
        PackedModel::open(self.bytes(), self.spec).unwrap()
    }
}

/// Some tokens for a prompt.
pub fn prompt(seed: u64, len: usize, g: &Geometry) -> Vec<u32> {
    (0..len as u64).map(|i| ((seed * 31 + i * i * 7 + i * 13 + 5) % g.vocab as u64) as u32).collect()
}

/// The bits of every position's logits, the prompt given in pieces of `chunk` tokens.
pub fn all_logits(engine: &Engine, model: &PackedModel<'_>, tokens: &[u32], chunk: usize) -> Vec<Vec<u32>> {
    let mut cache = KvCache::new(&model.geometry);
    let mut logits = Logits::new();
    let mut all = Vec::new();
    for tokens in tokens.chunks(chunk) {
        let mut batch = [Slice { cache: &mut cache, tokens, want: Want::All }];
        engine.forward(model, &mut batch, &mut logits).unwrap();
        assert_eq!(logits.len(), tokens.len());
        all.extend(logits.rows().map(bits));
    }
    all
}

pub fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|v| v.to_bits()).collect()
}
