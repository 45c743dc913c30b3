//! Weights as a file stores them: typed views of borrowed bytes, and the exact definition of what each
//! stored type means in f32. Knows no file format and no panel layout.

use serde::{Deserialize, Serialize};

/// How a tensor's elements are stored. Block types follow ggml's definitions; [`crate::dequant`] has each one's
/// formula.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(non_camel_case_types)]
pub enum TensorType {
    F32,
    F16,
    BF16,
    /// 32 weights: f16 scale, 32 × i8. `w = d·q`.
    Q8_0,
    /// 32 weights: f16 scale, 16 bytes of nibbles. `w = d·(q − 8)`.
    Q4_0,
    /// 32 weights: f16 scale, f16 minimum, 16 bytes of nibbles. `w = d·q + m`.
    Q4_1,
    /// 32 weights: f16 scale, 4 bytes of fifth bits, 16 bytes of nibbles. `w = d·(q − 16)`.
    Q5_0,
    /// 32 weights: f16 scale, f16 minimum, 4 bytes of fifth bits, 16 bytes of nibbles. `w = d·q + m`.
    Q5_1,
    /// 256 weights in groups of 32: 4 bits each, 6-bit scales and minimums. `w = (d·sc)·q − dmin·m`.
    Q4_K,
    /// Q4_K with 5 bits each.
    Q5_K,
    /// 256 weights in groups of 16: 6 bits each, 8-bit scales. `w = (d·sc)·(q − 32)`.
    Q6_K,
}

/// In which order the rows of a q or k projection stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// Rows are outputs, in order; a rotary pair is (2i, 2i+1) within a head (GGUF's llama).
    AsStored,
    /// A rotary pair is (i, i + head_dim/2) within a head (Hugging Face); packing brings it to (2i, 2i+1).
    HalvesToPairs,
}

/// A matrix of `rows` outputs by `cols` inputs (k), row-major, borrowed from a mapped file. A vector has one row.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    pub ty: TensorType,
    pub rows: usize,
    pub cols: usize,
    pub order: RowOrder,
    pub data: &'a [u8],
}

/// The tensors of one layer.
#[derive(Clone, Debug)]
pub struct LayerWeights<'a> {
    pub attn_norm: TensorView<'a>,
    pub q: TensorView<'a>,
    pub k: TensorView<'a>,
    pub v: TensorView<'a>,
    pub o: TensorView<'a>,
    pub ffn_norm: TensorView<'a>,
    pub gate: TensorView<'a>,
    pub up: TensorView<'a>,
    pub down: TensorView<'a>,
}

/// All tensors of a model.
#[derive(Clone, Debug)]
pub struct ModelWeights<'a> {
    pub embed: TensorView<'a>,
    pub layers: Vec<LayerWeights<'a>>,
    pub final_norm: TensorView<'a>,
    /// None when the embedding table serves as lm_head.
    pub lm_head: Option<TensorView<'a>>,
}
