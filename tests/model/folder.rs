//! A Hugging Face folder gives the model that the GGUF file gives: same weights, same ids, same prompt.

use pipe::model::{Bytes, Model, ModelFile};
use pipe_kernels::weights::TensorView;
use serde_json::json;

use crate::support::{FolderParts, Parts, dense};

/// Every weight's bits, in the order of the computation.
fn bits(model: &Model) -> Vec<u32> {
    let w = model.weights().unwrap();
    let mut views: Vec<TensorView<'_>> = vec![w.embed, w.final_norm];
    for l in &w.layers {
        views.extend([l.attn_norm, l.q, l.k, l.v, l.o, l.ffn_norm, l.gate, l.up, l.down]);
    }
    views.extend(w.lm_head);
    views.iter().flat_map(|v| dense(v)).map(f32::to_bits).collect()
}

#[test]
fn same_model_as_the_gguf() {
    let gguf = Parts::toy().open().unwrap();
    let folder = FolderParts::toy().open().unwrap();
    assert_eq!(gguf.geometry(), folder.geometry());
    assert!(bits(&gguf) == bits(&folder));

    let (a, b) = (gguf.tokenizer().unwrap(), folder.tokenizer().unwrap());
    for text in ["", "The 1234 things that were said\n\n", "<|im_start|>user\nnaïve 東京<|im_end|>", "  \t x"]
    {
        assert_eq!(a.encode(text).unwrap(), b.encode(text).unwrap(), "{text:?}");
    }
    let chat = [json!({"role": "user", "content": "hello"})];
    let prompt = |m: &Model| m.chat_template().unwrap().unwrap().render(&chat).unwrap();
    assert_eq!(prompt(&gguf), prompt(&folder));
    assert_eq!(prompt(&gguf), "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
}

#[test]
fn shards_are_one_model() {
    let parts = FolderParts::toy();
    let in_first = |name: &str| name < "model.layers.1";
    let shard = |name: &str| if in_first(name) { "a-1.safetensors" } else { "a-2.safetensors" };
    let map: serde_json::Map<_, _> = parts.tensors.keys().map(|n| (n.clone(), json!(shard(n)))).collect();
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    let mut files = parts.side_files();
    files.push(ModelFile::new("model.safetensors.index.json", Bytes::new(index.into_bytes())));
    files.push(ModelFile::new("a-1.safetensors", Bytes::new(parts.weights(in_first))));
    files.push(ModelFile::new("a-2.safetensors", Bytes::new(parts.weights(|n| !in_first(n)))));
    assert!(bits(&Model::open(&files).unwrap()) == bits(&parts.open().unwrap()));

    files.pop();
    let error = Model::open(&files).unwrap_err().to_string();
    assert_eq!(error, "the model is a folder without a-2.safetensors; add the file");
}

#[test]
fn a_head_of_its_own_is_used_and_a_tied_copy_is_not() {
    let mut parts = FolderParts::toy();
    let mut head = parts.tensors["model.embed_tokens.weight"].clone();
    head.1[0] = 42.0;
    parts.tensors.insert("lm_head.weight".into(), head);
    assert!(parts.open().unwrap().weights().unwrap().lm_head.is_none());
    parts.config("tie_word_embeddings", json!(false));
    let model = parts.open().unwrap();
    assert!(!model.geometry().tied);
    assert_eq!(dense(&model.weights().unwrap().lm_head.unwrap())[0], 42.0);
}

#[test]
fn generation_config_names_the_stop_tokens() {
    let mut parts = FolderParts::toy();
    assert_eq!(parts.open().unwrap().stop_ids(), [0, 2]);
    parts.json.remove("generation_config.json");
    assert_eq!(parts.open().unwrap().stop_ids(), [2]);
}

#[test]
fn the_jinja_file_goes_before_the_one_in_the_config() {
    let parts = FolderParts::toy();
    let mut files = parts.files();
    files.push(ModelFile::new("chat_template.jinja", Bytes::new(b"{{ bos_token }}!".to_vec())));
    let template = Model::open(&files).unwrap().chat_template().unwrap().unwrap();
    assert_eq!(template.render(&[json!({})]).unwrap(), "<|im_start|>!");
}

#[test]
fn half_precision_is_read_as_it_is() {
    let mut parts = FolderParts::toy();
    let (shape, values) = parts.tensors.remove("model.norm.weight").unwrap();
    let rest = parts.weights(|_| true);
    let bf16: Vec<u8> = values.iter().flat_map(|v| v.to_bits().to_le_bytes()[2..].to_vec()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, shape, &bf16).unwrap();
    let norm = safetensors::serialize([("model.norm.weight", view)], None).unwrap();
    let mut map: serde_json::Map<_, _> =
        parts.tensors.keys().map(|n| (n.clone(), json!("rest.safetensors"))).collect();
    map.insert("model.norm.weight".into(), json!("norm.safetensors"));
    let mut files = parts.side_files();
    let index = json!({ "weight_map": map }).to_string();
    files.push(ModelFile::new("model.safetensors.index.json", Bytes::new(index.into_bytes())));
    files.push(ModelFile::new("rest.safetensors", Bytes::new(rest)));
    files.push(ModelFile::new("norm.safetensors", Bytes::new(norm)));
    let model = Model::open(&files).unwrap();
    assert_eq!(dense(&model.weights().unwrap().final_norm), values);
}

#[test]
fn a_folder_and_a_file_of_the_same_weights_run_to_the_same_bits() {
    let space = tempfile::tempdir().unwrap();
    let path = |name: &str| space.path().join(name);
    std::fs::write(path("toy.gguf"), Parts::toy().bytes()).unwrap();
    std::fs::create_dir(path("toy")).unwrap();
    for file in FolderParts::toy().files() {
        std::fs::write(path("toy").join(&file.name), &*file.bytes).unwrap();
    }
    let run = |model: &str| {
        let recipe = format!(
            "[pipeline]\nname = \"toy\"\n[steps.model]\nop = \"file\"\npath = \"{model}\"\n\
             [steps.prompt]\nop = \"tokenize\"\nmodel = \"model\"\nprompt = \"What is 17?\"\n\
             [steps.answer]\nop = \"infer\"\nmodel = \"model\"\ntokens = \"prompt\"\nmax_tokens = 16\nlogits = true\n"
        );
        std::fs::write(path("recipe.toml"), recipe).unwrap();
        let pipe = |args: &[&str]| {
            let out = std::process::Command::new(env!("CARGO_BIN_EXE_pipe"))
                .args(args)
                .env("PIPE_STORE", path("store"))
                .current_dir(space.path())
                .output()
                .unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            out.stdout
        };
        pipe(&["run", "recipe.toml"]);
        ["answer/answers.json", "answer/logits.safetensors"].map(|o| pipe(&["show", "--output", o]))
    };
    assert_eq!(run("toy.gguf"), run("toy"));
}
