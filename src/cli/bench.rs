//! `pipe bench`: how fast this machine runs a model: prefill and decode, in tokens per second.

use std::path::PathBuf;
use std::time::Duration;

use memmap2::Mmap;
use pipe_kernels::{ComputeError, PackedModel, Spec};

use super::Context;
use super::error::{CliError, Exit};
use super::model::{self, LoadArgs};
use crate::measure::{Bench, rate};
use crate::model::Model;

/// Measure prefill and decode of a model on this machine
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe bench model.gguf --threads 1\n  pipe bench model.gguf --prompt 512 --gen 64 --reps 5 --json\n  pipe bench model.gguf --spec q8"
)]
pub struct Args {
    /// A GGUF file or a Hugging Face folder
    model: PathBuf,
    /// The arithmetic
    #[arg(long, default_value = "f32", value_parser = model::spec)]
    spec: Spec,
    #[command(flatten)]
    load: LoadArgs,
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let fail =
        |e: &dyn std::fmt::Display| CliError::new(Exit::Step, format!("{}: {e}", args.model.display()));
    let model = Model::open(&model::open_path(&args.model)?).map_err(|e| fail(&e))?;
    args.load.check(&model.geometry())?;
    let mut packed = tempfile::tempfile().map_err(|e| fail(&e))?;
    let weights = model.weights().map_err(|e| fail(&e))?;
    pipe_kernels::pack(&weights, &model.geometry(), args.spec.width().into(), &mut packed)
        .map_err(|e| fail(&e))?;
    // SAFETY: the file has no name, so nobody else can reach it.
    let packed = unsafe { Mmap::map(&packed) }.map_err(|e| fail(&e))?;
    let packed = PackedModel::open(&packed, args.spec).map_err(|e| fail(&e))?;
    let device = args.load.device.device();
    let engine = device.engine().map_err(|e| fail(&e))?;

    let (prompt, generate) = (args.load.prompt as usize, args.load.r#gen as usize);
    let bench = Bench { engine, packed: &packed, prompt, generate };
    let measure = |tokens: usize, one: &dyn Fn() -> Result<Duration, ComputeError>| {
        one()?;
        let times = (0..args.load.reps).map(|_| one()).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, ComputeError>(rate(tokens, times).unwrap_or_default())
    };
    let prefill = measure(prompt, &|| bench.prefill()).map_err(|e| fail(&e))?;
    let decode = measure(generate, &|| bench.decode()).map_err(|e| fail(&e))?;
    match context.out.json {
        true => context.out.value(&serde_json::json!({
            "spec": args.spec.id(), "implementation": device.implementation.to_string(),
            "threads": device.threads, "prompt": prompt, "gen": generate,
            "prefill_tokens_per_s": prefill, "decode_tokens_per_s": decode,
        }))?,
        false => {
            let on = format!("{}, {}, {} threads", args.spec, device.implementation, device.threads);
            context.out.line(format!("prefill {prompt:>4} tokens  {prefill:8.1} tokens/s  ({on})"))?;
            context.out.line(format!("decode  {generate:>4} tokens  {decode:8.1} tokens/s  ({on})"))?;
        }
    }
    Ok(Exit::Ok)
}
