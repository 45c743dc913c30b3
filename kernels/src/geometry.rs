//! The shape of a model: the numbers that fix every block's size. Knows no file format.

use serde::{Deserialize, Serialize};

/// The dimensions and constants of a Llama-family model.
///
/// Tensor shapes below are `[rows (outputs), cols (k, inputs)]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// Number of transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; `heads` is a multiple of it (grouped-query attention).
    pub kv_heads: usize,
    /// Elements per head; even.
    pub head_dim: usize,
    /// Hidden width of the feed-forward block.
    pub ffn: usize,
    /// Rows of the embedding table.
    pub vocab: usize,
    /// Longest context in tokens; the rope tables have this many rows.
    pub context: usize,
    /// Base of the rotary frequencies.
    pub rope_base: f64,
    /// Epsilon of every rms_norm.
    pub norm_eps: f32,
    /// Does lm_head share the embedding table?
    pub tied: bool,
}
