//! Any text as a recipe: read, compiled and reported without a panic, with every mistake in the report.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pipe::{pipeline, recipe};

fuzz_target!(|text: &str| {
    let recipe = recipe::parse("fuzz.toml", Path::new("no/such/folder"), text);
    match pipeline::compile(&recipe) {
        Ok(pipeline) => {
            assert_eq!(pipeline.order.len(), pipeline.graph.node_count());
            assert!(!pipeline.graph_dot().is_empty() && !pipeline.graph_mermaid().is_empty());
        }
        Err(found) => {
            assert!(!found.is_empty());
            let report = recipe::render(&found, text, false);
            assert!(report.matches("Error").count() >= found.len());
            assert!(!report.contains('\u{1b}'), "a recipe can steer the terminal");
        }
    }
});
