//! Any bytes as a safetensors file of a small folder whose other files are in order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipe::model::{Bytes, Model, ModelFile};

const CONFIG: &[u8] =
    br#"{"model_type": "llama", "hidden_act": "silu", "hidden_size": 4, "intermediate_size": 4,
    "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 2, "max_position_embeddings": 8,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": true}"#;

fuzz_target!(|data: &[u8]| {
    let files = [
        ModelFile::new("config.json", Bytes::new(CONFIG)),
        ModelFile::new("model.safetensors", Bytes::new(data.to_vec())),
    ];
    let Ok(model) = Model::open(&files) else { return };
    let weights = model.weights().expect("an opened model has all its tensors");
    assert_eq!(weights.embed.data.len() % 8, 0);
    let _ = model.describe();
});
