//! The toy model in the repository: made by the example, small, and what it says it is.

use crate::make_toy;
use crate::support::open;

#[test]
fn the_committed_file_is_what_the_example_makes() {
    let committed: &[u8] = include_bytes!("../../pipelines/tiny.gguf");
    assert!(committed == make_toy::toy(), "run: cargo run --example make_toy -- pipelines/tiny.gguf");
    assert!(committed.len() < 200_000);
}

#[test]
fn it_is_a_llama_with_every_readable_type() {
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
