//! Where a Llama model's numbers and tensors stand in a GGUF file, and what in a file would change the
//! arithmetic without being known here: that is refused, never ignored.

use std::collections::HashSet;

use pipe_kernels::Geometry;
use pipe_kernels::weights::{ModelWeights, TensorView};

use super::error::GgufErrorKind;
use super::{Gguf, Result};
use crate::model::llama::{BadDimension, Claimed, Part, Slot, assemble, slots};
use crate::model::stored;

const EMBED: &str = "token_embd.weight";
const LM_HEAD: &str = "output.weight";

/// A slot's tensor name in the file.
pub fn tensor_name(slot: Slot) -> String {
    let (layer, part) = match slot {
        Slot::Embed => return EMBED.into(),
        Slot::FinalNorm => return "output_norm.weight".into(),
        Slot::LmHead => return LM_HEAD.into(),
        Slot::Layer(layer, part) => (layer, part),
    };
    let part = match part {
        Part::AttnNorm => "attn_norm",
        Part::Q => "attn_q",
        Part::K => "attn_k",
        Part::V => "attn_v",
        Part::O => "attn_output",
        Part::FfnNorm => "ffn_norm",
        Part::Gate => "ffn_gate",
        Part::Up => "ffn_up",
        Part::Down => "ffn_down",
    };
    format!("blk.{layer}.{part}.weight")
}

/// The metadata key behind a dimension.
fn key_of(dimension: &str) -> &'static str {
    match dimension {
        "layers" => "llama.block_count",
        "width" => "llama.embedding_length",
        "heads" => "llama.attention.head_count",
        "kv_heads" => "llama.attention.head_count_kv",
        "head_dim" => "llama.attention.key_length",
        "ffn" => "llama.feed_forward_length",
        "context" => "llama.context_length",
        "rope_base" => "llama.rope.freq_base",
        "norm_eps" => "llama.attention.layer_norm_rms_epsilon",
        _ => "llama.vocab_size",
    }
}

impl Gguf {
    /// The geometry, with everything the file says checked against it: keys, tensors, shapes, vocabulary.
    pub fn geometry(&self) -> Result<Geometry> {
        match self.string("general.architecture")? {
            Some("llama") => {}
            Some(other) => {
                let why = format!("the architecture is \"{other}\"; only \"llama\" can be computed");
                return Err(self.unsupported("general.architecture", why));
            }
            None => return Err(self.missing("general.architecture")),
        }
        self.refuse_unknown_arithmetic()?;
        let need = |key: &str| self.uint(key)?.ok_or_else(|| self.missing(key));
        let eps_key = "llama.attention.layer_norm_rms_epsilon";
        let heads = need("llama.attention.head_count")?;
        let claimed = Claimed {
            layers: need("llama.block_count")?,
            width: need("llama.embedding_length")?,
            heads,
            kv_heads: self.uint("llama.attention.head_count_kv")?.unwrap_or(heads),
            head_dim: self.uint("llama.attention.key_length")?,
            ffn: need("llama.feed_forward_length")?,
            vocab: self.embedding_rows()?,
            context: need("llama.context_length")?,
            rope_base: self.float("llama.rope.freq_base")?.unwrap_or(10000.0),
            norm_eps: self.float(eps_key)?.ok_or_else(|| self.missing(eps_key))?,
            tied: self.header.tensor(LM_HEAD).is_none(),
        };
        let g = claimed.check().map_err(|BadDimension { name, why }| self.unsupported(key_of(name), why))?;
        self.check_head_dim(&g)?;
        self.check_vocabulary_size(&g)?;
        self.check_tensors(&g)?;
        Ok(g)
    }

    /// Views of all tensors; `g` is this file's own geometry.
    pub fn weights(&self, g: &Geometry) -> Result<ModelWeights<'_>> {
        assemble(g, |slot| self.slot(slot, g))
    }

    fn embedding_rows(&self) -> Result<u64> {
        let tensor = self.header.tensor(EMBED);
        let tensor = tensor.ok_or_else(|| GgufErrorKind::Missing.at(format_args!("tensor `{EMBED}`"), 0))?;
        let rows = tensor.shape().map(|[rows, _]| rows);
        rows.ok_or_else(|| {
            GgufErrorKind::Dimensions(tensor.dims.clone()).at(format_args!("tensor `{EMBED}`"), tensor.at)
        })
    }

    fn slot(&self, slot: Slot, g: &Geometry) -> Result<TensorView<'_>> {
        let name = tensor_name(slot);
        let field = format_args!("tensor `{name}`");
        let tensor = self.header.tensor(&name).ok_or_else(|| GgufErrorKind::Missing.at(field, 0))?;
        let expected = slot.shape(g);
        if tensor.shape() != Some(expected) {
            let found = tensor.dims.iter().rev().copied().collect();
            return Err(GgufErrorKind::Shape { found, expected }.at(field, tensor.at));
        }
        if slot.is_norm() && !stored::is_float(tensor.ty) {
            let why = format!("a norm stored as {} cannot be read; F32 is usual", stored::name(tensor.ty));
            return Err(GgufErrorKind::Unsupported(why).at(field, tensor.at));
        }
        Ok(self.view(tensor))
    }

    fn check_tensors(&self, g: &Geometry) -> Result<()> {
        let mut known = HashSet::new();
        for slot in slots(g) {
            self.slot(slot, g)?;
            known.insert(tensor_name(slot));
        }
        let unknown = self.header.tensors.iter().find(|t| !known.contains(&t.name));
        let Some(tensor) = unknown else { return Ok(()) };
        let why = match tensor.name.as_str() {
            "rope_freqs.weight" => {
                "rotary frequencies scaled per dimension (Llama 3.1 and later) are not supported"
            }
            name if name.ends_with(".bias") => "biases are not supported",
            _ => "no part of a Llama model as known here; leaving it out would change the answers",
        };
        Err(GgufErrorKind::Unsupported(why.into()).at(format_args!("tensor `{}`", tensor.name), tensor.at))
    }

    fn check_head_dim(&self, g: &Geometry) -> Result<()> {
        for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
            if let Some(dim) = self.uint(key)?
                && dim != g.head_dim as u64
            {
                let why = format!("is {dim}, but a head has {} elements; they must be equal", g.head_dim);
                return Err(self.unsupported(key, why));
            }
        }
        Ok(())
    }

    fn check_vocabulary_size(&self, g: &Geometry) -> Result<()> {
        let tokens = match self.header.entry("tokenizer.ggml.tokens").map(|e| &e.value) {
            Some(super::Value::Array { count, .. }) => Some(*count),
            _ => None,
        };
        for (key, size) in
            [("llama.vocab_size", self.uint("llama.vocab_size")?), ("tokenizer.ggml.tokens", tokens)]
        {
            if let Some(size) = size
                && size != g.vocab as u64
            {
                let why = format!("has {size} tokens, but `{EMBED}` has {} rows", g.vocab);
                return Err(self.unsupported(key, why));
            }
        }
        Ok(())
    }

    fn refuse_unknown_arithmetic(&self) -> Result<()> {
        let scaling = self.string("llama.rope.scaling.type")?.unwrap_or("linear");
        if scaling != "none" {
            let scaled = ["llama.rope.scaling.factor", "llama.rope.scale_linear"]
                .iter()
                .find_map(|key| self.float(key).map(|v| v.filter(|f| *f != 1.0).map(|_| *key)).transpose())
                .transpose()?;
            if scaling != "linear" || scaled.is_some() {
                let key = scaled.unwrap_or("llama.rope.scaling.type");
                return Err(self.unsupported(key, format!("{scaling} rope scaling is not supported")));
            }
        }
        for (key, what) in [
            ("llama.expert_count", "a mixture of experts"),
            ("llama.attention.sliding_window", "a sliding attention window"),
            ("split.count", "a model split over several GGUF files"),
        ] {
            if self.uint(key)?.is_some_and(|n| n > u64::from(key == "split.count")) {
                return Err(self.unsupported(key, format!("{what} is not supported")));
            }
        }
        for key in [
            "llama.attention.scale",
            "llama.attention.clamp_kqv",
            "llama.attention.max_alibi_bias",
            "llama.logit_scale",
            "llama.embedding_scale",
            "llama.residual_scale",
            "llama.attn_logit_softcapping",
            "llama.final_logit_softcapping",
        ] {
            if self.header.entry(key).is_some() {
                return Err(self.unsupported(key, "would change the arithmetic and is not supported"));
            }
        }
        if self.boolean("llama.attention.causal")? == Some(false) {
            return Err(self.unsupported("llama.attention.causal", "only causal attention is supported"));
        }
        if self.boolean("llama.use_parallel_residual")? == Some(true) {
            return Err(
                self.unsupported("llama.use_parallel_residual", "parallel residuals are not supported")
            );
        }
        Ok(())
    }
}
