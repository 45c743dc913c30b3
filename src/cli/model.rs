//! A model that a user names by its path; which spec; which load to measure it with.

use std::path::Path;

use memmap2::Mmap;
use pipe_kernels::{Geometry, Spec};

use super::error::{CliError, Exit};
use super::run::DeviceArgs;
use crate::model::{Bytes, ModelFile};
use crate::ops::local;
use crate::recipe::did_you_mean;

/// What to measure speed with.
#[derive(clap::Args)]
pub struct LoadArgs {
    /// Tokens of a prompt
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt: u32,
    /// Tokens to generate, from an empty context
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub r#gen: u32,
    /// Repetitions; the median is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub reps: u32,
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl LoadArgs {
    /// Does it fit the model? Asked before anything takes long.
    pub fn check(&self, geometry: &Geometry) -> Result<(), CliError> {
        for (flag, tokens) in [("--prompt", self.prompt), ("--gen", self.r#gen)] {
            if tokens as usize > geometry.context {
                let context = geometry.context;
                let message = format!("{flag} {tokens} is more than the model's context of {context} tokens");
                return Err(CliError::new(Exit::Usage, message));
            }
        }
        Ok(())
    }
}

/// A spec by name, or what was probably meant.
pub fn spec(name: &str) -> Result<Spec, String> {
    let known = Spec::ALL.map(Spec::name);
    name.parse().map_err(|()| match did_you_mean(name, known) {
        Some(hint) => format!("{hint} The specs are {}", known.join(", ")),
        None => format!("the specs are {}", known.join(", ")),
    })
}

/// The files of a model, mapped: one GGUF file, or a Hugging Face folder's.
pub fn open_path(path: &Path) -> Result<Vec<ModelFile>, CliError> {
    let fail = |e: &dyn std::fmt::Display| CliError::new(Exit::Step, format!("{}: {e}", path.display()));
    let entries = local::listing(path).map_err(|e| fail(&e))?;
    let map = |entry: crate::ops::fetch::Entry| {
        let file = std::fs::File::open(&entry.path).map_err(|e| fail(&e))?;
        // SAFETY: nobody else writes to a model while it is measured; a file cut short would end the program.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| fail(&e))?;
        Ok(ModelFile::new(&entry.name, Bytes::new(map)))
    };
    entries.into_iter().map(map).collect()
}
