//! The toy model in the repository: made by the example, small, and what it says it is.

use pipe::model::Model;
use pipe_kernels::weights::TensorType;
use pipe_kernels::{Spec, pack};

use crate::make_toy;
use crate::support::{Parts, dense, open};

#[test]
fn the_committed_file_is_what_the_example_makes() {
    let committed: &[u8] = include_bytes!("../../pipelines/tiny.gguf");
    assert!(committed == make_toy::toy(), "run: cargo run --example make_toy -- pipelines/tiny.gguf");
    assert!(committed.len() < 200_000);
}

#[test]
fn it_is_a_llama_with_every_type_of_small_blocks() {
    let shown = open(make_toy::toy()).unwrap().describe().unwrap();
    let g = shown.geometry;
    assert_eq!(
        (g.layers, g.width, g.heads, g.kv_heads, g.head_dim, g.ffn, g.vocab),
        (3, 64, 4, 2, 16, 128, 320)
    );
    assert_eq!((g.context, g.rope_base, g.norm_eps, g.tied), (256, 10000.0, 1e-5, true));
    assert_eq!(shown.types.keys().collect::<Vec<_>>(), ["BF16", "F16", "F32", "Q4_0", "Q4_1", "Q8_0"]);
    assert_eq!((shown.format.as_str(), shown.name.as_deref(), shown.stop), ("GGUF v3", Some("toy"), vec![2]));
    assert!(shown.chat_template);
    assert_eq!(shown.tensors[1].name, "blk.0.attn_norm.weight");
}

/// The weights in f32, as the plainest reading has them, in a file of their own.
fn in_f32(mut parts: Parts) -> Parts {
    let model = parts.open().unwrap();
    let header = model.describe().unwrap();
    let w = model.weights().unwrap();
    let mut views = vec![w.embed];
    for l in &w.layers {
        views.extend([l.attn_norm, l.q, l.k, l.v, l.o, l.ffn_norm, l.gate, l.up, l.down]);
    }
    views.push(w.final_norm);
    assert_eq!(views.len(), header.tensors.len());
    for (tensor, view) in parts.tensors.iter_mut().zip(views) {
        assert_eq!(tensor.ty, view.ty, "{}", tensor.name);
        (tensor.ty, tensor.data) =
            (TensorType::F32, dense(&view).iter().flat_map(|w| w.to_le_bytes()).collect());
    }
    parts
}

fn packed(model: &Model) -> Vec<u8> {
    let mut out = Vec::new();
    pack(&model.weights().unwrap(), &model.geometry(), Spec::F32, &mut out).unwrap();
    out
}

#[test]
fn k_quants_run_as_the_f32_numbers_they_stand_for() {
    let wide = Parts::wide();
    let model = wide.open().unwrap();
    let types: Vec<String> = model.describe().unwrap().types.into_keys().collect();
    assert_eq!(types, ["F32", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"]);
    assert!(packed(&model) == packed(&in_f32(wide).open().unwrap()));

    let tiny = Parts::toy();
    assert!(packed(&tiny.open().unwrap()) == packed(&in_f32(tiny).open().unwrap()));
}
