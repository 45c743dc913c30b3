//! What prompts begin with is computed once: across prompts, runs and stores of one machine, with the same bits.

use crate::space::{Space, bundle};

/// Prompts that share more than two pieces of 64 tokens, and one that shares nothing.
fn prompts() -> String {
    let shared: Vec<u32> = (0..150).map(|i| 5 + i * 7 % 200).collect();
    let mut lines = String::new();
    for (name, tail) in [("a", vec![9, 8, 7]), ("b", vec![30, 31]), ("c", vec![9, 8])] {
        let ids = [shared.clone(), tail].concat();
        lines += &serde_json::json!({ "id": name, "ids": ids }).to_string();
        lines.push('\n');
    }
    lines += &serde_json::json!({ "id": "d", "ids": [3, 4, 5] }).to_string();
    lines.push('\n');
    lines
}

const RECIPE: &str = r#"
[pipeline]
name = "prefix"
[steps.model]
op = "file"
path = "tiny.gguf"
[steps.prompts]
op = "file"
path = "prompts.jsonl"
[steps.tokens]
op = "tokenize"
model = "model"
prompts = "prompts"
[steps.answer]
op = "infer"
model = "model"
tokens = "tokens"
spec = "q8"
max_tokens = 6
stop = false
logits = true
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("prompts.jsonl", &prompts());
    space.write("prefix.toml", RECIPE);
    space
}

fn reused(space: &Space) -> u64 {
    let shown: serde_json::Value = serde_json::from_str(&space.pipe(&["show", "--json"]).ok()).unwrap();
    shown["facts"]["answer"]["reused_prompt_tokens"].as_u64().unwrap()
}

#[test]
fn a_shared_prefix_is_computed_once_and_changes_no_bit() {
    let (alone, shared) = (space(), space());
    let expected = bundle(&alone.pipe(&["run", "prefix.toml", "--no-prefixes", "--threads", "1"]).ok());
    // Within one step: b and c begin as a does. 2 pieces of 64 tokens each.
    assert_eq!(bundle(&shared.pipe(&["run", "prefix.toml"]).ok()), expected);
    assert_eq!(reused(&shared), 2 * 2 * 64);
    // In another run with another end: all three find theirs in the store.
    shared.edit("prefix.toml", "max_tokens = 6", "max_tokens = 7");
    alone.edit("prefix.toml", "max_tokens = 6", "max_tokens = 7");
    let expected = bundle(&alone.pipe(&["run", "prefix.toml", "--no-prefixes"]).ok());
    assert_eq!(bundle(&shared.pipe(&["run", "prefix.toml"]).ok()), expected);
    assert_eq!(reused(&shared), 3 * 2 * 64);
    // What was taken from the store is what one pass over everything gives.
    shared.pipe(&["verify"]).ok();
    // Another spec has other prefixes.
    shared.edit("prefix.toml", "q8", "q8a8");
    shared.pipe(&["run", "prefix.toml"]).ok();
    assert_eq!(reused(&shared), 2 * 2 * 64);
    shared.pipe(&["verify"]).ok();
}

#[test]
fn a_checked_run_takes_nothing_from_the_store() {
    let space = space();
    space.pipe(&["run", "prefix.toml"]).ok();
    space.edit("prefix.toml", "max_tokens = 6", "max_tokens = 5");
    space.pipe(&["run", "prefix.toml", "--check"]).ok();
    assert_eq!(reused(&space), 2 * 2 * 64, "what the prompts of one step share is all there is");
}
