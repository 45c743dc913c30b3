//! Whole files that say something which cannot be computed: refused by name, never ignored.

use pipe::model::write::{Meta, Tensor};
use pipe_kernels::weights::TensorType;
use serde_json::{Value, json};

use crate::support::{FolderParts, Parts};

/// The error of opening, or of building the tokenizer.
fn gguf_error(change: impl FnOnce(&mut Parts)) -> String {
    let mut parts = Parts::toy();
    change(&mut parts);
    match parts.open() {
        Err(error) => error.to_string(),
        Ok(model) => model.tokenizer().unwrap_err().to_string(),
    }
}

#[test]
fn metadata_of_another_model() {
    let cases: Vec<(&str, Option<Meta>, &str)> = vec![
        (
            "general.architecture",
            Some("gemma".into()),
            "the architecture is \"gemma\"; only \"llama\" can be computed",
        ),
        ("general.architecture", None, "missing"),
        ("llama.block_count", None, "missing"),
        ("llama.block_count", Some(Meta::U32(0)), "must not be 0"),
        ("llama.block_count", Some(Meta::U32(u32::MAX)), "4294967295 is more than the limit of 4096"),
        (
            "llama.block_count",
            Some(Meta::F32(3.0)),
            "expected a whole number, not negative, found the number 3",
        ),
        (
            "llama.attention.head_count_kv",
            Some(Meta::U32(3)),
            "4 heads cannot share 3 key/value heads evenly",
        ),
        ("llama.attention.head_count", Some(Meta::U32(0)), "must not be 0"),
        ("llama.attention.head_count_kv", Some(Meta::U32(0)), "must not be 0"),
        ("llama.attention.key_length", Some(Meta::U32(15)), "must be even for rotary pairs, not 15"),
        (
            "llama.rope.dimension_count",
            Some(Meta::U32(8)),
            "is 8, but a head has 16 elements; they must be equal",
        ),
        (
            "llama.attention.value_length",
            Some(Meta::U32(8)),
            "is 8, but a head has 16 elements; they must be equal",
        ),
        ("llama.rope.freq_base", Some(Meta::F32(f32::NAN)), "must be a positive number, not NaN"),
        ("llama.attention.layer_norm_rms_epsilon", Some(Meta::F32(0.0)), "must lie between 0 and 1, not 0"),
        ("llama.context_length", Some(Meta::U32(u32::MAX)), "4294967295 is more than the limit of 16777216"),
        ("llama.rope.scaling.factor", Some(Meta::F32(2.0)), "linear rope scaling is not supported"),
        ("llama.rope.scaling.type", Some("yarn".into()), "yarn rope scaling is not supported"),
        ("llama.expert_count", Some(Meta::U32(8)), "a mixture of experts is not supported"),
        ("split.count", Some(Meta::U32(2)), "a model split over several GGUF files is not supported"),
        ("llama.logit_scale", Some(Meta::F32(8.0)), "would change the arithmetic and is not supported"),
        ("llama.vocab_size", Some(Meta::U32(7)), "has 7 tokens, but `token_embd.weight` has 320 rows"),
        ("tokenizer.ggml.eos_token_id", Some(Meta::U32(320)), "token 320 is outside the vocabulary of 320"),
        (
            "tokenizer.ggml.model",
            Some("llama".into()),
            "SentencePiece vocabularies (\"llama\") are not supported; byte-level BPE (\"gpt2\") is",
        ),
        (
            "tokenizer.ggml.merges",
            Some(Meta::Strings(vec!["ab".into()])),
            "is no pair of tokens with a space between",
        ),
        ("tokenizer.ggml.token_type", Some(Meta::I32s(vec![1])), "has 1 entries for 320 tokens"),
    ];
    for (key, value, expected) in cases {
        let error = gguf_error(|parts| match value {
            Some(value) => parts.set(key, value),
            None => parts.remove(key),
        });
        assert!(error.starts_with("toy.gguf: "), "{error}");
        assert!(error.contains(&format!("metadata `{key}`")) && error.ends_with(expected), "{key}: {error}");
    }
}

#[test]
fn rope_scaling_that_scales_nothing_is_fine() {
    let mut parts = Parts::toy();
    parts.set("llama.rope.scaling.factor", Meta::F32(1.0));
    assert!(parts.open().is_ok());
    parts.set("llama.rope.scaling.type", "none".into());
    parts.set("llama.rope.scaling.factor", Meta::F32(4.0));
    assert!(parts.open().is_ok());
}

#[test]
fn an_unknown_pre_tokenizer_names_the_known_ones() {
    let error = gguf_error(|parts| parts.set("tokenizer.ggml.pre", "poro".into()));
    assert!(
        error.contains("unknown pre-tokenizer \"poro\"; known: default, gpt-2,") && error.contains("smollm")
    );
}

#[test]
fn vocabularies_that_contradict_themselves() {
    let edit = |key: &'static str, change: fn(&mut Vec<String>)| {
        gguf_error(|parts| {
            let mut items = parts.strings(key);
            change(&mut items);
            parts.set(key, Meta::Strings(items));
        })
    };
    let twice = edit("tokenizer.ggml.tokens", |t| t[300] = t[5].clone());
    assert!(twice.contains("tokens 5 and 300 are both"), "{twice}");
    let short = edit("tokenizer.ggml.tokens", |t| t.truncate(319));
    assert!(short.contains("has 319 tokens, but `token_embd.weight` has 320 rows"), "{short}");
    // The join is longer than any token: the library alone would panic.
    let merge = edit("tokenizer.ggml.merges", |m| m.push("<|endoftext|> <|im_start|>".into()));
    assert!(merge.contains("merge 61 (\"<|endoftext|>\", \"<|im_start|>\") has no token for"), "{merge}");
}

/// A change, a tensor to add, and what the error says.
type Case = (fn(&mut Parts), Option<Tensor>, &'static str);

#[test]
fn tensors_of_another_model() {
    let norm =
        |name: &str| Tensor { name: name.into(), ty: TensorType::F32, dims: vec![64], data: vec![0; 256] };
    let cases: [Case; 7] = [
        (|_| {}, Some(norm("rope_freqs.weight")), "rotary frequencies scaled per dimension"),
        (|_| {}, Some(norm("blk.0.attn_q.bias")), "biases are not supported"),
        (|_| {}, Some(norm("blk.3.attn_norm.weight")), "no part of a Llama model as known here"),
        (|p| p.tensors.retain(|t| t.name != "blk.1.attn_v.weight"), None, "tensor `blk.1.attn_v.weight`"),
        (
            |p| p.tensor("blk.0.attn_q.weight").dims = vec![128, 32],
            None,
            "has shape [32, 128] (rows, columns), expected [64, 64]",
        ),
        (
            |p| p.tensor("output_norm.weight").dims = vec![32, 2],
            None,
            "has shape [2, 32] (rows, columns), expected [1, 64]",
        ),
        (
            |p| {
                let norm = p.tensor("output_norm.weight");
                (norm.ty, norm.data) = (TensorType::Q8_0, vec![0; 68]);
            },
            None,
            "a norm stored as Q8_0 cannot be read",
        ),
    ];
    for (change, extra, expected) in cases {
        let error = gguf_error(|parts| {
            change(parts);
            parts.tensors.extend(extra);
        });
        assert!(error.contains(expected), "expected {expected:?} in: {error}");
    }
}

#[test]
fn configs_of_another_model() {
    let cases: [(&str, Value, &str); 20] = [
        ("model_type", json!("gemma"), "\"gemma\" cannot be computed; llama and mistral can"),
        ("model_type", Value::Null, "missing"),
        ("architectures", json!(["LlamaForSequenceClassification"]), "holds none of LlamaForCausalLM"),
        ("hidden_act", json!("gelu"), "only \"silu\" is supported"),
        ("attention_bias", json!(true), "true is not supported"),
        ("mlp_bias", json!(true), "true is not supported"),
        ("mlp_bias", json!("no"), "\"no\" is neither true nor false"),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0}), "rope scaling is not supported"),
        ("rope_parameters", json!({"rope_type": "yarn", "rope_theta": 1.0}), "rope scaling is not supported"),
        ("sliding_window", json!(4096), "not supported; only null is"),
        ("quantization_config", json!({}), "not supported; only null is"),
        ("partial_rotary_factor", json!(0.5), "only 1 is supported"),
        ("hidden_size", Value::Null, "missing"),
        ("hidden_size", json!(-64), "-64 is no whole number"),
        ("hidden_size", json!(u64::MAX), "18446744073709551615 is more than the limit"),
        ("num_hidden_layers", json!(0), "must not be 0"),
        ("num_key_value_heads", json!(3), "4 heads cannot share 3 key/value heads evenly"),
        ("head_dim", json!(7), "must be even for rotary pairs, not 7"),
        ("rms_norm_eps", json!(1e-60), "must lie between 0 and 1"),
        ("rope_theta", json!(-1), "must be a positive number, not -1"),
    ];
    for (key, value, expected) in cases {
        let mut parts = FolderParts::toy();
        parts.config(key, value);
        let error = parts.open().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("config.json: `{key}`: ")) && error.contains(expected),
            "{key}: {error}"
        );
    }
}

#[test]
fn mistral_without_a_window_is_a_llama() {
    let mut parts = FolderParts::toy();
    parts.config("model_type", json!("mistral"));
    parts.config("architectures", json!(["MistralForCausalLM"]));
    parts.config("sliding_window", Value::Null);
    assert!(parts.open().is_ok());
}
