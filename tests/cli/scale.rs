//! A recipe of 10,000 steps: it must work and stay small in memory. How fast it is, `benches/` measures.

use std::fmt::Write;

use crate::space::{Space, bundle, events};

#[test]
fn ten_thousand_steps() {
    let space = Space::new();
    space.write("big.toml", &recipe(10_000));
    let first = bundle(&space.pipe(&["run", "big.toml"]).ok());
    let again = events(&space.pipe(&["run", "big.toml", "--json"]).ok());
    let last = again.last().unwrap();
    assert_eq!((&last["hits"], &last["ran"]), (&10_000.into(), &0.into()));
    assert_eq!(last["bundle"], first);
}

/// A model and `steps − 1` prompts of token ids, so that what is tried is the orchestration.
fn recipe(steps: usize) -> String {
    let mut text =
        "[pipeline]\nname = \"big\"\n[steps.model]\nop = \"file\"\npath = \"tiny.gguf\"\n".to_owned();
    for i in 1..steps {
        let _ = write!(
            text,
            "[steps.t{i}]\nop = \"tokenize\"\nmodel = \"model\"\nids = [{}, {}]\n",
            i % 256,
            i / 256
        );
    }
    text
}
