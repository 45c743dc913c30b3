//! The toy model in pieces that a test may change, as a GGUF file and as a Hugging Face folder, and the
//! plainest possible reading of its weights.

use std::collections::BTreeMap;

use pipe::model::write::{Meta, Tensor, gguf};
use pipe::model::{Bytes, Model, ModelError, ModelFile};
use pipe_kernels::weights::{RowOrder, TensorType, TensorView};
use safetensors::tensor::{Dtype, TensorView as Dense};
use serde_json::{Value, json};

use crate::make_toy;

pub const HEAD_DIM: usize = 16;

/// What the toy GGUF is made of.
#[derive(Clone)]
pub struct Parts {
    pub meta: Vec<(String, Meta)>,
    pub tensors: Vec<Tensor>,
}

impl Parts {
    pub fn toy() -> Self {
        let (meta, tensors) = make_toy::parts(&make_toy::TINY);
        Parts { meta, tensors }
    }

    /// The toy with the types whose blocks are 256 weights.
    pub fn wide() -> Self {
        let (meta, tensors) = make_toy::parts(&make_toy::WIDE);
        Parts { meta, tensors }
    }

    pub fn set(&mut self, key: &str, value: Meta) {
        match self.meta.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => self.meta.push((key.into(), value)),
        }
    }

    pub fn remove(&mut self, key: &str) {
        self.meta.retain(|(k, _)| k != key);
    }

    pub fn get(&self, key: &str) -> &Meta {
        &self.meta.iter().find(|(k, _)| k == key).unwrap().1
    }

    pub fn strings(&self, key: &str) -> Vec<String> {
        let Meta::Strings(items) = self.get(key) else { panic!("{key} is no array of strings") };
        items.clone()
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        gguf(&self.meta, &self.tensors)
    }

    pub fn open(&self) -> Result<Model, ModelError> {
        open(self.bytes())
    }
}

pub fn open(bytes: Vec<u8>) -> Result<Model, ModelError> {
    Model::open(&[ModelFile::new("toy.gguf", Bytes::new(bytes))])
}

/// Everything a user of a model may ask, in one go; returns the first error's text.
pub fn exercise(files: &[ModelFile]) -> Result<(), String> {
    let text = |e: ModelError| e.to_string();
    let model = Model::open(files).map_err(text)?;
    model.weights().map_err(text)?;
    model.describe().map_err(text)?;
    let tokenizer = model.tokenizer().map_err(text)?;
    let ids = tokenizer.encode("<|im_start|>The 12 things\n").map_err(|e| e.to_string())?;
    model.detokenizer().map_err(text)?.decode(&ids, false).map_err(|e| e.to_string())?;
    if let Some(template) = model.chat_template().map_err(text)? {
        template.render(&[json!({"role": "user", "content": "hello"})]).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn f16(bits: [u8; 2]) -> f32 {
    let bits = u16::from_le_bytes(bits);
    let (sign, exponent, mantissa) = (bits >> 15, (bits >> 10) & 31, f32::from(bits & 1023));
    let magnitude = match exponent {
        0 => mantissa / 1024.0 * 2f32.powi(-14),
        e => (1.0 + mantissa / 1024.0) * 2f32.powi(i32::from(e) - 15),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

/// The weights of a block of any type, in ggml's order: low nibbles first, then high ones.
fn block(ty: TensorType, b: &[u8]) -> Vec<f32> {
    let nibbles = |q: &[u8]| -> Vec<f32> {
        q.iter().map(|b| f32::from(b & 15)).chain(q.iter().map(|b| f32::from(b >> 4))).collect()
    };
    let fives = |bits: &[u8], q: &[u8]| -> Vec<f32> {
        let fifth = |i: usize| f32::from(bits[i / 8] >> (i % 8) & 1);
        nibbles(q).iter().enumerate().map(|(i, four)| four + 16.0 * fifth(i)).collect()
    };
    let (d, m) = (|| f16([b[0], b[1]]), || f16([b[2], b[3]]));
    match ty {
        TensorType::F32 => vec![f32::from_le_bytes([b[0], b[1], b[2], b[3]])],
        TensorType::F16 => vec![d()],
        TensorType::BF16 => vec![f32::from_le_bytes([0, 0, b[0], b[1]])],
        TensorType::Q8_0 => b[2..].iter().map(|q| d() * f32::from(*q as i8)).collect(),
        TensorType::Q4_0 => nibbles(&b[2..]).iter().map(|q| d() * (q - 8.0)).collect(),
        TensorType::Q4_1 => nibbles(&b[4..]).iter().map(|q| d() * q + m()).collect(),
        TensorType::Q5_0 => fives(&b[2..6], &b[6..]).iter().map(|q| d() * (q - 16.0)).collect(),
        TensorType::Q5_1 => fives(&b[4..8], &b[8..]).iter().map(|q| d() * q + m()).collect(),
        TensorType::Q4_K | TensorType::Q5_K => (0..256).map(|i| q45_k(ty, b, i)).collect(),
        TensorType::Q6_K => (0..256).map(|i| q6_k(b, i)).collect(),
    }
}

/// Weight i of a Q4_K or Q5_K block.
fn q45_k(ty: TensorType, b: &[u8], i: usize) -> f32 {
    let (d, dmin, s) = (f16([b[0], b[1]]), f16([b[2], b[3]]), &b[4..16]);
    let (sc, m) = match i / 32 {
        g @ 0..4 => (s[g] % 64, s[g + 4] % 64),
        g => (s[g + 4] % 16 + s[g - 4] / 64 * 16, s[g + 4] / 16 + s[g] / 64 * 16),
    };
    let (fifths, nibbles) =
        if ty == TensorType::Q5_K { b[16..].split_at(32) } else { (&[0; 32][..], &b[16..]) };
    let byte = nibbles[i / 64 * 32 + i % 32];
    let four = if i % 64 < 32 { byte % 16 } else { byte / 16 };
    let q = four + (fifths[i % 32] >> (i / 32)) % 2 * 16;
    d * f32::from(sc) * f32::from(q) - dmin * f32::from(m)
}

/// Weight i of a Q6_K block.
fn q6_k(b: &[u8], i: usize) -> f32 {
    let (half, place) = (i / 128, i % 128);
    let byte = b[half * 64 + place % 64];
    let four = if place < 64 { byte % 16 } else { byte / 16 };
    let upper = b[128 + half * 32 + place % 32] >> (2 * (place / 32)) & 3;
    let sc = b[192 + i / 16] as i8;
    f16([b[208], b[209]]) * f32::from(sc) * (f32::from(four + upper * 16) - 32.0)
}

/// All weights in f32, rotary rows in pairs.
pub fn dense(view: &TensorView<'_>) -> Vec<f32> {
    let (_, bytes) = view.ty.unit();
    let flat: Vec<f32> = view.data.chunks(bytes).flat_map(|b| block(view.ty, b)).collect();
    assert_eq!(flat.len(), view.rows * view.cols);
    match view.order {
        RowOrder::AsStored => flat,
        RowOrder::HalvesToPairs => permute(&flat, view.cols, |pair, half| pair + half * (HEAD_DIM / 2)),
    }
}

/// Row 2·pair + half of each head comes from its row `from(pair, half)`.
fn permute(flat: &[f32], cols: usize, from: impl Fn(usize, usize) -> usize) -> Vec<f32> {
    let head = HEAD_DIM * cols;
    let row = |h: &[f32], r: usize| h[r * cols..(r + 1) * cols].to_vec();
    flat.chunks(head)
        .flat_map(|h| (0..HEAD_DIM).flat_map(|r| row(h, from(r / 2, r % 2))).collect::<Vec<_>>())
        .collect()
}

/// From pairs back to Hugging Face's halves: row i of a head is row 2i, row i + half is row 2i + 1.
fn to_halves(flat: &[f32], cols: usize) -> Vec<f32> {
    let half = HEAD_DIM / 2;
    permute(flat, cols, |pair, odd| {
        let r = 2 * pair + odd;
        if r < half { 2 * r } else { 2 * (r - half) + 1 }
    })
}

/// The toy as a Hugging Face folder, in pieces.
#[derive(Clone)]
pub struct FolderParts {
    /// config.json and the other JSON files.
    pub json: BTreeMap<String, Value>,
    /// f32 tensors: name, shape, values.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl FolderParts {
    pub fn toy() -> Self {
        let parts = Parts::toy();
        let model = parts.open().unwrap();
        let g = model.geometry();
        let w = model.weights().unwrap();
        let mut tensors = BTreeMap::new();
        let mut put = |name: String, view: &TensorView<'_>| {
            let flat = dense(view);
            let rotary = name.contains("q_proj") || name.contains("k_proj");
            let flat = if rotary { to_halves(&flat, view.cols) } else { flat };
            let shape = if view.rows == 1 { vec![view.cols] } else { vec![view.rows, view.cols] };
            tensors.insert(name, (shape, flat));
        };
        put("model.embed_tokens.weight".into(), &w.embed);
        put("model.norm.weight".into(), &w.final_norm);
        for (i, l) in w.layers.iter().enumerate() {
            let name = |part: &str| format!("model.layers.{i}.{part}.weight");
            put(name("input_layernorm"), &l.attn_norm);
            put(name("self_attn.q_proj"), &l.q);
            put(name("self_attn.k_proj"), &l.k);
            put(name("self_attn.v_proj"), &l.v);
            put(name("self_attn.o_proj"), &l.o);
            put(name("post_attention_layernorm"), &l.ffn_norm);
            put(name("mlp.gate_proj"), &l.gate);
            put(name("mlp.up_proj"), &l.up);
            put(name("mlp.down_proj"), &l.down);
        }
        let Meta::String(template) = parts.get("tokenizer.chat_template") else { panic!("no template") };
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": g.width, "intermediate_size": g.ffn, "num_hidden_layers": g.layers,
            "num_attention_heads": g.heads, "num_key_value_heads": g.kv_heads, "vocab_size": g.vocab,
            "max_position_embeddings": g.context, "rope_theta": g.rope_base, "rms_norm_eps": 1e-5,
            "tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false, "rope_scaling": null,
            "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
        });
        let json = [
            ("config.json", config),
            ("generation_config.json", json!({"eos_token_id": [2, 0], "bos_token_id": 1})),
            ("tokenizer_config.json", json!({"bos_token": "<|im_start|>", "chat_template": template})),
            ("tokenizer.json", tokenizer_json(&parts)),
        ];
        FolderParts { json: json.map(|(name, value)| (name.to_owned(), value)).into(), tensors }
    }

    pub fn config(&mut self, key: &str, value: Value) {
        self.json.get_mut("config.json").unwrap()[key] = value;
    }

    /// The bytes of a safetensors file with the tensors whose names pass.
    pub fn weights(&self, keep: impl Fn(&str) -> bool) -> Vec<u8> {
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let all: Vec<_> =
            self.tensors.iter().filter(|(n, _)| keep(n)).map(|(n, (s, v))| (n, s, bytes(v))).collect();
        let views = all.iter().map(|(n, s, b)| (n.as_str(), Dense::new(Dtype::F32, s.to_vec(), b).unwrap()));
        safetensors::serialize(views, None).unwrap()
    }

    /// The JSON files; weights are added by the caller.
    pub fn side_files(&self) -> Vec<ModelFile> {
        let file = |(name, value): (&String, &Value)| {
            ModelFile::new(name, Bytes::new(value.to_string().into_bytes()))
        };
        self.json.iter().map(file).collect()
    }

    /// All files, the weights in one.
    pub fn files(&self) -> Vec<ModelFile> {
        let mut files = self.side_files();
        files.push(ModelFile::new("model.safetensors", Bytes::new(self.weights(|_| true))));
        files
    }

    pub fn open(&self) -> Result<Model, ModelError> {
        Model::open(&self.files())
    }
}

fn tokenizer_json(parts: &Parts) -> Value {
    let tokens = parts.strings("tokenizer.ggml.tokens");
    let added: Vec<Value> = (0..3)
        .map(|id| json!({"id": id, "content": tokens[id], "special": true, "normalized": false}))
        .collect();
    let vocab: serde_json::Map<_, _> =
        tokens.iter().enumerate().skip(3).map(|(id, t)| (t.clone(), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": {"max_length": 2}, "padding": null, "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": parts.strings("tokenizer.ggml.merges")},
    })
}
