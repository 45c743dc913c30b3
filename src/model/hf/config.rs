//! config.json: the numbers of a Llama model, and everything in it that would change the arithmetic.

use pipe_kernels::Geometry;
use serde_json::Value as Json;

use super::{CONFIG, ModelError, Result, field_error, json};
use crate::model::llama::Claimed;

/// The parsed file; fields are read when asked for.
#[derive(Debug)]
pub struct Config {
    pub json: Json,
}

fn wrong(field: &str, message: impl Into<String>) -> ModelError {
    field_error(CONFIG, field, message.into())
}

impl Config {
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let json: Json = json(CONFIG, bytes)?;
        if !json.is_object() {
            return Err(ModelError::Json { file: CONFIG.into(), message: "expected an object".into() });
        }
        Ok(Config { json })
    }

    /// The geometry as stated; defaults are those of transformers' LlamaConfig where it documents one.
    pub fn geometry(&self) -> Result<Geometry> {
        self.refuse_unknown_arithmetic()?;
        let need = |key: &str| self.uint(key)?.ok_or_else(|| wrong(key, "missing"));
        let heads = need("num_attention_heads")?;
        let claimed = Claimed {
            layers: need("num_hidden_layers")?,
            width: need("hidden_size")?,
            heads,
            kv_heads: self.uint("num_key_value_heads")?.unwrap_or(heads),
            head_dim: self.uint("head_dim")?,
            ffn: need("intermediate_size")?,
            vocab: need("vocab_size")?,
            context: need("max_position_embeddings")?,
            rope_base: self.rope_base()?,
            norm_eps: self.float("rms_norm_eps")?.ok_or_else(|| wrong("rms_norm_eps", "missing"))?,
            tied: self.boolean("tie_word_embeddings")?.unwrap_or(false),
        };
        claimed.check().map_err(|bad| wrong(key_of(bad.name), bad.why))
    }

    fn rope_base(&self) -> Result<f64> {
        let nested = self.present("rope_parameters").and_then(|p| p.get("rope_theta")).and_then(Json::as_f64);
        Ok(self.float("rope_theta")?.or(nested).unwrap_or(10000.0))
    }

    fn refuse_unknown_arithmetic(&self) -> Result<()> {
        let family = self.present("model_type").and_then(Json::as_str);
        match family {
            Some("llama" | "mistral") => {}
            Some(other) => {
                return Err(wrong(
                    "model_type",
                    format!("\"{other}\" cannot be computed; llama and mistral can"),
                ));
            }
            None => return Err(wrong("model_type", "missing")),
        }
        if let Some(all) = self.present("architectures") {
            let known = ["LlamaForCausalLM", "MistralForCausalLM"];
            let fits = all
                .as_array()
                .is_some_and(|a| a.iter().any(|n| n.as_str().is_some_and(|n| known.contains(&n))));
            if !fits {
                return Err(wrong("architectures", format!("{all} holds none of {}", known.join(", "))));
            }
        }
        match self.present("hidden_act").map(Json::as_str) {
            Some(Some("silu")) => {}
            Some(_) => return Err(wrong("hidden_act", "only \"silu\" is supported")),
            None => return Err(wrong("hidden_act", "missing")),
        }
        for key in ["attention_bias", "mlp_bias", "rope_interleaved"] {
            if self.boolean(key)?.unwrap_or(false) {
                return Err(wrong(key, "true is not supported"));
            }
        }
        for key in ["sliding_window", "quantization_config"] {
            if self.present(key).is_some() {
                return Err(wrong(key, "not supported; only null is"));
            }
        }
        if self.float("partial_rotary_factor")?.is_some_and(|f| f != 1.0) {
            return Err(wrong("partial_rotary_factor", "only 1 is supported"));
        }
        for key in ["rope_scaling", "rope_parameters"] {
            let Some(rope) = self.present(key) else { continue };
            let kind = rope.get("rope_type").or_else(|| rope.get("type"));
            if kind.and_then(Json::as_str) != Some("default") {
                return Err(wrong(
                    key,
                    "rope scaling is not supported; only null or the type \"default\" is",
                ));
            }
        }
        Ok(())
    }

    /// The value, when it is there and not null.
    fn present(&self, key: &str) -> Option<&Json> {
        self.json.get(key).filter(|v| !v.is_null())
    }

    fn uint(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        value.as_u64().map(Some).ok_or_else(|| wrong(key, format!("{value} is no whole number")))
    }

    fn float(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| wrong(key, format!("{value} is no number")))
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| wrong(key, format!("{value} is neither true nor false")))
    }
}

/// The field behind a dimension.
fn key_of(dimension: &str) -> &'static str {
    match dimension {
        "layers" => "num_hidden_layers",
        "width" => "hidden_size",
        "heads" => "num_attention_heads",
        "kv_heads" => "num_key_value_heads",
        "head_dim" => "head_dim",
        "ffn" => "intermediate_size",
        "vocab" => "vocab_size",
        "context" => "max_position_embeddings",
        "rope_base" => "rope_theta",
        _ => "rms_norm_eps",
    }
}
