//! safetensors files, shards and tokenizers that are cut off or lie, and folders that lack a file.

use pipe::model::{Bytes, Model, ModelFile};
use serde_json::json;

use crate::support::{FolderParts, exercise};

fn with_weights(bytes: Vec<u8>) -> Vec<ModelFile> {
    let mut files = FolderParts::toy().side_files();
    files.push(ModelFile::new("model.safetensors", Bytes::new(bytes)));
    files
}

fn weights_error(bytes: Vec<u8>) -> String {
    Model::open(&with_weights(bytes)).unwrap_err().to_string()
}

/// A safetensors file with this header.
fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn the_undamaged_folder_is_fine() {
    exercise(&FolderParts::toy().files()).unwrap();
}

#[test]
fn cut_off_anywhere() {
    let whole = FolderParts::toy().weights(|_| true);
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    for length in
        (0..header).step_by(13).chain((header..whole.len()).step_by(40_007)).chain([whole.len() - 1])
    {
        let error = weights_error(whole[..length].to_vec());
        assert!(error.starts_with("model.safetensors: no valid safetensors file: "), "{length}: {error}");
    }
}

#[test]
fn headers_that_lie() {
    let f32s = |n: usize, begin: usize, end: usize| {
        format!(r#"{{"dtype":"F32","shape":[{n}],"data_offsets":[{begin},{end}]}}"#)
    };
    let one = f32s(1, 0, 4);
    let cases = [
        (vec![0xff; 64], "the header claims 18446744073709551615 bytes at byte 0; 56 follow"),
        (with_header("[]", &[]), "the header at byte 8"),
        (with_header("{\"a\"", &[]), "the header at byte 8"),
        (with_header(&format!(r#"{{"a":{one},"a":{one}}}"#), &[0; 4]), "tensor `a` stands twice"),
        (with_header(&format!(r#"{{"a":{}}}"#, f32s(2, 0, 4)), &[0; 4]), "no valid safetensors file"),
        (with_header(&format!(r#"{{"a":{}}}"#, f32s(1, 4, 8)), &[0; 8]), "no valid safetensors file"),
        (with_header(&format!(r#"{{"a":{}}}"#, f32s(1 << 62, 0, 4)), &[0; 4]), "no valid safetensors file"),
        (with_header(&format!(r#"{{"a":{one}}}"#), &[0; 5]), "no valid safetensors file"),
        (with_header(&format!(r#"{{"a":{one},"b":{one}}}"#), &[0; 4]), "no valid safetensors file"),
        (with_header(&format!(r#"{{"a":{one}}}"#), &[0; 4]), "tensor `model.embed_tokens.weight`: missing"),
        (with_header("{}", &[]), "tensor `model.embed_tokens.weight`: missing"),
    ];
    for (bytes, expected) in cases {
        let error = weights_error(bytes);
        assert!(error.contains(expected), "expected {expected:?} in: {error}");
    }
}

#[test]
fn tensors_that_do_not_fit() {
    let error = |change: fn(&mut FolderParts)| {
        let mut parts = FolderParts::toy();
        change(&mut parts);
        parts.open().unwrap_err().to_string()
    };
    let shape = error(|p| p.tensors.get_mut("model.norm.weight").unwrap().0 = vec![1, 64]);
    assert!(
        shape.contains("`model.norm.weight`: has shape [1, 64], but the config asks for [1, 64]"),
        "{shape}"
    );
    let extra = error(|p| {
        p.tensors.insert("model.layers.0.self_attn.q_proj.bias".into(), (vec![1], vec![0.0]));
    });
    assert!(extra.contains("`model.layers.0.self_attn.q_proj.bias`: no part of a Llama model"), "{extra}");
    let layers = error(|p| p.config("num_hidden_layers", json!(4)));
    assert!(layers.contains("`model.layers.3.input_layernorm.weight`: missing"), "{layers}");

    let whole = FolderParts::toy().weights(|_| true);
    let at = whole.windows(3).position(|w| w == b"F32").unwrap();
    let mut bytes = whole;
    bytes[at..at + 3].copy_from_slice(b"I32");
    let dtype = weights_error(bytes);
    assert!(dtype.contains("stored as I32, which cannot be read; F32, F16 and BF16 can"), "{dtype}");
}

#[test]
fn indexes_that_lie() {
    let parts = FolderParts::toy();
    let error = |map: serde_json::Value| {
        let mut files = parts.files();
        let index = json!({ "weight_map": map }).to_string();
        files.push(ModelFile::new("model.safetensors.index.json", Bytes::new(index.into_bytes())));
        Model::open(&files).unwrap_err().to_string()
    };
    let file = "model.safetensors";
    assert!(error(json!({})).contains("`weight_map`: is empty"));
    assert!(error(json!({"model.norm.weight": file})).contains("but not in the index"));
    assert!(
        error(json!({"nothing": file}))
            .contains("`nothing`: should stand in model.safetensors, but does not")
    );
    assert!(error(json!({"model.norm.weight": "../x"})).contains("without ../x"));
    assert!(error(json!(7)).contains("model.safetensors.index.json: no valid JSON"));
}

#[test]
fn folders_that_lack_a_file() {
    let files = FolderParts::toy().files();
    let without = |name: &str| {
        let left: Vec<_> = files.iter().filter(|f| f.name != name).cloned().collect();
        exercise(&left).unwrap_err()
    };
    assert_eq!(without("model.safetensors"), "the model is a folder without model.safetensors; add the file");
    assert_eq!(without("tokenizer.json"), "the model is a folder without tokenizer.json; add the file");
    assert!(without("config.json").starts_with("no model here: neither a GGUF file nor config.json among: "));
    assert_eq!(exercise(&[]).unwrap_err(), "no model here: no files");
    let page = ModelFile::new("m.gguf", Bytes::new(b"<!DOCTYPE html>".to_vec()));
    assert!(exercise(&[page]).unwrap_err().contains("not a GGUF file: it starts with [3c, 21, 44, 4f]"));
}

#[test]
fn tokenizers_that_cannot_be_used() {
    let error = |change: fn(&mut serde_json::Value)| {
        let mut parts = FolderParts::toy();
        change(parts.json.get_mut("tokenizer.json").unwrap());
        parts.open().unwrap().tokenizer().unwrap_err().to_string()
    };
    let cases = [
        (error(|t| t["model"]["type"] = json!("Unigram")), "`model.type`: only byte-level BPE is supported"),
        (
            error(|t| t["model"]["byte_fallback"] = json!(true)),
            "SentencePiece vocabularies are not supported",
        ),
        (error(|t| t["decoder"] = json!({"type": "Metaspace"})), "`decoder`: only ByteLevel is supported"),
        (
            error(|t| t["pre_tokenizer"] = json!({"type": "Metaspace"})),
            "`pre_tokenizer`: only Sequence, Split",
        ),
        (error(|t| t["normalizer"] = json!({"type": "Precompiled"})), "`normalizer`: only Sequence, NFC"),
        (
            error(|t| t["model"]["vocab"]["zzz"] = json!(320)),
            "token 320 (\"zzz\") is outside the vocabulary of 320",
        ),
        (error(|t| t["model"]["vocab"]["zzz"] = json!(70)), "token 70 is both"),
        (error(|t| t["model"]["merges"] = json!(["a z"])), "merge 0 (\"a\", \"z\") has no token for \"az\""),
        (error(|t| t["model"]["merges"] = json!(["az"])), "item 0 (\"az\") is no pair"),
        (error(|t| t["added_tokens"][0]["lstrip"] = json!(true)), "added tokens that take white space"),
        (error(|t| t["model"] = json!(null)), "tokenizer.json: no valid JSON"),
    ];
    for (error, expected) in cases {
        assert!(error.contains(expected), "expected {expected:?} in: {error}");
    }
}
