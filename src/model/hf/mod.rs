//! A Hugging Face folder: config.json, safetensors in one file or in shards, tokenizer.json and what stands
//! beside them. Knows the folder's conventions; `shards` knows where a tensor lies, `config` what is refused.

mod config;
mod shards;
mod tokenizer_json;

use std::collections::HashSet;

use pipe_kernels::Geometry;
use pipe_kernels::weights::{ModelWeights, RowOrder, TensorView};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::llama::{Part, Slot, assemble, slots};
use super::tokenizer::{Cut, Merges, Vocabulary};
use super::{Bytes, ModelError, ModelFile, Specials, stored};
use config::Config;
use shards::Shards;
use tokenizer_json::TokenizerJson;

type Result<T> = std::result::Result<T, ModelError>;

pub const CONFIG: &str = "config.json";
pub const TOKENIZER: &str = "tokenizer.json";
const GENERATION: &str = "generation_config.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
const LM_HEAD: &str = "lm_head.weight";

/// A slot's tensor name in the files.
pub fn tensor_name(slot: Slot) -> String {
    let (layer, part) = match slot {
        Slot::Embed => return "model.embed_tokens.weight".into(),
        Slot::FinalNorm => return "model.norm.weight".into(),
        Slot::LmHead => return LM_HEAD.into(),
        Slot::Layer(layer, part) => (layer, part),
    };
    let part = match part {
        Part::AttnNorm => "input_layernorm",
        Part::Q => "self_attn.q_proj",
        Part::K => "self_attn.k_proj",
        Part::V => "self_attn.v_proj",
        Part::O => "self_attn.o_proj",
        Part::FfnNorm => "post_attention_layernorm",
        Part::Gate => "mlp.gate_proj",
        Part::Up => "mlp.up_proj",
        Part::Down => "mlp.down_proj",
    };
    format!("model.layers.{layer}.{part}.weight")
}

/// A folder whose configuration and tensor headers have been read.
#[derive(Debug)]
pub struct Folder {
    config: Config,
    generation: Option<Json>,
    tokenizer_config: Option<Json>,
    template: Option<Bytes>,
    tokenizer: Option<Bytes>,
    shards: Shards,
}

impl Folder {
    pub fn open(files: &[ModelFile]) -> Result<Self> {
        let find = |name: &str| files.iter().find(|f| f.name == name).map(|f| &f.bytes);
        let config = find(CONFIG).ok_or_else(|| ModelError::NoFile(CONFIG.into()))?;
        let optional = |name: &str| find(name).map(|bytes| json(name, bytes)).transpose();
        Ok(Folder {
            config: Config::parse(config)?,
            generation: optional(GENERATION)?,
            tokenizer_config: optional(TOKENIZER_CONFIG)?,
            template: find(CHAT_TEMPLATE).cloned(),
            tokenizer: find(TOKENIZER).cloned(),
            shards: Shards::open(files)?,
        })
    }

    /// The geometry, with all tensors and their shapes checked against it.
    pub fn geometry(&self) -> Result<Geometry> {
        let g = self.config.geometry()?;
        let mut known = HashSet::new();
        for slot in slots(&g) {
            self.slot(slot, &g)?;
            known.insert(tensor_name(slot));
        }
        for (name, file) in self.shards.names() {
            // A tied head may be written out; the inverse frequencies are computed anew from the base.
            let derived = (g.tied && name == LM_HEAD) || name.ends_with("rotary_emb.inv_freq");
            if !known.contains(name) && !derived {
                let message =
                    "no part of a Llama model as known here; leaving it out would change the answers";
                return Err(tensor_error(file, name, message.into()));
            }
        }
        Ok(g)
    }

    /// Views of all tensors. Rows of q and k stand in rotate-half order.
    pub fn weights(&self, g: &Geometry) -> Result<ModelWeights<'_>> {
        assemble(g, |slot| self.slot(slot, g))
    }

    fn slot(&self, slot: Slot, g: &Geometry) -> Result<TensorView<'_>> {
        let name = tensor_name(slot);
        let tensor = self.shards.get(&name)?;
        let expected = slot.shape(g);
        let found: Vec<u64> = tensor.shape.iter().map(|d| *d as u64).collect();
        let fits = if slot.is_norm() { found[..] == expected[1..] } else { found == expected };
        if !fits {
            let message =
                format!("has shape {found:?}, but the config asks for {expected:?} (rows, columns)");
            return Err(tensor_error(tensor.file, &name, message));
        }
        let [rows, cols] = expected.map(|n| n as usize);
        let order = if slot.is_rotary() { RowOrder::HalvesToPairs } else { RowOrder::AsStored };
        debug_assert_eq!(
            stored::byte_len(tensor.ty, expected[0], expected[1]),
            Some(tensor.data.len() as u64)
        );
        Ok(TensorView { ty: tensor.ty, rows, cols, order, data: tensor.data })
    }

    /// The ids the folder names. generation_config.json goes before config.json, as in transformers.
    pub fn specials(&self, vocab: usize) -> Result<Specials> {
        let ids = |key: &str| -> Result<Vec<u32>> {
            let generation = self.generation.as_ref().map(|json| (GENERATION, json));
            for (file, json) in generation.into_iter().chain([(CONFIG, &self.config.json)]) {
                match json.get(key) {
                    None | Some(Json::Null) => {}
                    Some(value) => return token_ids(file, key, value, vocab),
                }
            }
            Ok(Vec::new())
        };
        let stop = ids("eos_token_id")?;
        let add_bos =
            self.tokenizer_config.as_ref().and_then(|c| c.get("add_bos_token")).and_then(Json::as_bool);
        Ok(Specials {
            bos: ids("bos_token_id")?.first().copied(),
            eos: stop.first().copied(),
            unk: None,
            pad: ids("pad_token_id")?.first().copied(),
            add_bos: add_bos.unwrap_or(false),
            stop: Specials::sorted(stop),
        })
    }

    /// The text of a special token, as tokenizer_config.json states it.
    pub fn special_text(&self, key: &str) -> Option<&str> {
        let value = self.tokenizer_config.as_ref()?.get(key)?;
        value.as_str().or_else(|| value.get("content")?.as_str())
    }

    /// chat_template.jinja, else the one in tokenizer_config.json (of several, the one named "default").
    pub fn chat_template(&self) -> Result<Option<String>> {
        if let Some(bytes) = &self.template {
            let text = std::str::from_utf8(bytes)
                .map_err(|e| field_error(CHAT_TEMPLATE, "text", format!("is not UTF-8: {e}")))?;
            return Ok(Some(text.to_owned()));
        }
        match self.tokenizer_config.as_ref().and_then(|c| c.get("chat_template")) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone())),
            Some(Json::Array(all)) => {
                let default = all.iter().find(|t| t.get("name").and_then(Json::as_str) == Some("default"));
                Ok(default.and_then(|t| t.get("template")?.as_str()).map(str::to_owned))
            }
            Some(_) => Err(field_error(TOKENIZER_CONFIG, "chat_template", "must be a text or a list".into())),
        }
    }

    pub fn vocabulary(&self, vocab: usize) -> Result<Vocabulary> {
        self.tokenizer_json()?.vocabulary(vocab)
    }

    pub fn tokenizer(&self, vocab: usize) -> Result<(Vocabulary, Merges, Cut)> {
        let json = self.tokenizer_json()?;
        let vocabulary = json.vocabulary(vocab)?;
        let cut = json.cut()?;
        Ok((vocabulary, json.merges()?, cut))
    }

    fn tokenizer_json(&self) -> Result<TokenizerJson> {
        let bytes = self.tokenizer.as_ref().ok_or_else(|| ModelError::NoFile(TOKENIZER.into()))?;
        TokenizerJson::parse(bytes)
    }

    /// The name the configuration gives the model.
    pub fn name(&self) -> Option<String> {
        self.config
            .json
            .get("_name_or_path")
            .and_then(Json::as_str)
            .filter(|n| !n.is_empty())
            .map(str::to_owned)
    }
}

/// One id or a list of ids, each inside the vocabulary.
fn token_ids(file: &str, key: &str, value: &Json, vocab: usize) -> Result<Vec<u32>> {
    let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let id = |v: &Json| v.as_u64().filter(|id| *id < vocab as u64).map(|id| id as u32);
    let wrong = |v: &Json| field_error(file, key, format!("{v} is no token of a vocabulary of {vocab}"));
    values.iter().map(|v| id(v).ok_or_else(|| wrong(v))).collect()
}

fn json<T: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| ModelError::Json { file: file.into(), message: e.to_string() })
}

fn field_error(file: &str, field: &str, message: String) -> ModelError {
    ModelError::Field { file: file.into(), field: field.into(), message }
}

fn tensor_error(file: &str, tensor: &str, message: String) -> ModelError {
    ModelError::Tensor { file: file.into(), tensor: tensor.into(), message }
}
