//! From a recipe's path to a pipeline, or all its mistakes on stderr.

use std::io::Write;
use std::path::Path;

use super::error::{CliError, Exit};
use super::out::Out;
use crate::pipeline::{self, Pipeline};
use crate::recipe;

/// Read, parse and compile a recipe. Every mistake is shown; the error counts them.
pub fn load(path: &Path, out: Out) -> Result<Pipeline, CliError> {
    let recipe = recipe::load(path)
        .map_err(|e| CliError::new(Exit::Recipe, e).hint("name a recipe, such as pipelines/tiny.toml"))?;
    pipeline::compile(&recipe).map_err(|mistakes| {
        let mut stderr = std::io::stderr().lock();
        let _ = match out.json {
            true => mistakes.iter().try_for_each(|m| {
                writeln!(stderr, "{}", serde_json::to_string(m).expect("BUG: a diagnostic is plain data"))
            }),
            false => {
                stderr.write_all(recipe::render(&mistakes, &recipe.text, out.stderr_is_rich()).as_bytes())
            }
        };
        let s = if mistakes.len() == 1 { "" } else { "s" };
        CliError::new(Exit::Recipe, format!("{}: {} mistake{s}", path.display(), mistakes.len()))
    })
}
