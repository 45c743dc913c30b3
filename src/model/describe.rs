//! A model in numbers and names, for people. Plain data; nothing is computed from it.

use std::collections::BTreeMap;

use pipe_kernels::Geometry;
use serde::Serialize;

use super::llama::slots;
use super::{Model, Source, gguf, stored};

/// What `show` prints about a model.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// "GGUF v3" or "Hugging Face folder".
    pub format: String,
    /// The model's own name, when it says one.
    pub name: Option<String>,
    pub geometry: Geometry,
    /// Number of weights; a shared embedding table counts once.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// Bytes per stored type.
    pub types: BTreeMap<String, u64>,
    /// The pre-tokenizer's name, when the file has one.
    pub pre_tokenizer: Option<String>,
    pub bos: Option<u32>,
    pub add_bos: bool,
    pub stop: Vec<u32>,
    pub chat_template: bool,
    /// In the order of the computation.
    pub tensors: Vec<TensorDescription>,
}

#[derive(Clone, Debug, Serialize)]
pub struct TensorDescription {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: String,
    pub rows: usize,
    pub cols: usize,
    pub bytes: usize,
}

impl Model {
    pub fn describe(&self) -> super::Result<Description> {
        let weights = self.weights()?;
        let mut views = vec![weights.embed];
        for l in &weights.layers {
            views.extend([l.attn_norm, l.q, l.k, l.v, l.o, l.ffn_norm, l.gate, l.up, l.down]);
        }
        views.push(weights.final_norm);
        views.extend(weights.lm_head);

        let (format, name, pre_tokenizer) = match &self.source {
            Source::Gguf { file, gguf } => {
                let text =
                    |key| gguf.string(key).map_err(|e| super::in_gguf(file, e)).map(|s| s.map(str::to_owned));
                let format = format!("GGUF v{}", gguf.header.version);
                (format, text("general.name")?, text("tokenizer.ggml.pre")?)
            }
            Source::Folder(folder) => ("Hugging Face folder".into(), folder.name(), None),
        };
        let tensor_name = match &self.source {
            Source::Gguf { .. } => gguf::tensor_name,
            Source::Folder(_) => super::hf::tensor_name,
        };
        let tensors = slots(&self.geometry).zip(&views).map(|(slot, view)| TensorDescription {
            name: tensor_name(slot),
            ty: stored::name(view.ty).into(),
            rows: view.rows,
            cols: view.cols,
            bytes: view.data.len(),
        });
        let mut types = BTreeMap::new();
        for view in &views {
            *types.entry(stored::name(view.ty).to_owned()).or_default() += view.data.len() as u64;
        }
        Ok(Description {
            format,
            name,
            geometry: self.geometry,
            parameters: views.iter().map(|v| (v.rows * v.cols) as u64).sum(),
            tensor_bytes: views.iter().map(|v| v.data.len() as u64).sum(),
            types,
            pre_tokenizer,
            bos: self.specials.bos,
            add_bos: self.specials.add_bos,
            stop: self.specials.stop.clone(),
            chat_template: self.chat_template()?.is_some(),
            tensors: tensors.collect(),
        })
    }
}
