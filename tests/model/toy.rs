//! The toy model in the repository: made by the example, small, and what it says it is.

use pipe::model::Model;
use pipe_kernels::weights::TensorType;
use pipe_kernels::{PackedModel, Spec, Width, oracle, pack};

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
    pack(&model.weights().unwrap(), &model.geometry(), Width::F32.into(), &mut out).unwrap();
    out
}

/// The bits of what a packed model makes of a few tokens.
fn logits(packed: &[u8]) -> Vec<u32> {
    let words: Vec<u64> =
        packed.chunks(8).map(|c| c.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b))).collect();
    // SAFETY: the words hold at least so many bytes, on a boundary that floats can have.
    let bytes = unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), packed.len()) };
    let model = PackedModel::open(bytes, Spec::F32).unwrap();
    let rows = oracle::logits(&model, &[5, 300, 7]).unwrap();
    rows.iter().flatten().map(|x| x.to_bits()).collect()
}

#[test]
fn k_quants_run_as_the_f32_numbers_they_stand_for() {
    let wide = Parts::wide();
    let model = wide.open().unwrap();
    let types: Vec<String> = model.describe().unwrap().types.into_keys().collect();
    assert_eq!(types, ["F32", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"]);
    assert!(packed(&model) == packed(&in_f32(wide).open().unwrap()));

    // The toy has 16-bit floats, which stay 16 bits wide: other bytes, the same numbers.
    let tiny = Parts::toy();
    let narrow = logits(&packed(&tiny.open().unwrap()));
    assert!(narrow == logits(&packed(&in_f32(tiny).open().unwrap())));
}
