//! `pipe bench`: how fast this machine runs a model: prefill and decode, in tokens per second.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use memmap2::Mmap;
use pipe_kernels::{Engine, KvCache, Logits, PackedModel, Slice, Spec, Want};

use super::Context;
use super::error::{CliError, Exit};
use super::run::DeviceArgs;
use crate::model::{Bytes, Model, ModelFile};
use crate::ops::local;

/// Measure prefill and decode of a model on this machine
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe bench model.gguf --threads 1\n  pipe bench model.gguf --prompt 512 --gen 64 --reps 5 --json"
)]
pub struct Args {
    /// A GGUF file or a Hugging Face folder
    model: PathBuf,
    /// Tokens of a prompt
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens to generate, from an empty context
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    r#gen: u32,
    /// Repetitions; the median is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,
    /// The arithmetic
    #[arg(long, default_value = "f32", value_parser = spec)]
    spec: Spec,
    #[command(flatten)]
    device: DeviceArgs,
}

fn spec(name: &str) -> Result<Spec, String> {
    let known = Spec::ALL.map(Spec::name).join(", ");
    name.parse().map_err(|()| format!("the specs are {known}"))
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let fail =
        |e: &dyn std::fmt::Display| CliError::new(Exit::Step, format!("{}: {e}", args.model.display()));
    let files = local::listing(&args.model)
        .map_err(|e| fail(&e))?
        .into_iter()
        .map(|entry| {
            let file = std::fs::File::open(&entry.path).map_err(|e| fail(&e))?;
            // SAFETY: nobody else writes to a model while it is measured; a file cut short would end the program.
            let map = unsafe { Mmap::map(&file) }.map_err(|e| fail(&e))?;
            Ok(ModelFile::new(&entry.name, Bytes::new(map)))
        })
        .collect::<Result<Vec<_>, CliError>>()?;
    let model = Model::open(&files).map_err(|e| fail(&e))?;
    let mut packed = tempfile::tempfile().map_err(|e| fail(&e))?;
    let weights = model.weights().map_err(|e| fail(&e))?;
    pipe_kernels::pack(&weights, &model.geometry(), args.spec.width().into(), &mut packed)
        .map_err(|e| fail(&e))?;
    // SAFETY: the file has no name, so nobody else can reach it.
    let packed = unsafe { Mmap::map(&packed) }.map_err(|e| fail(&e))?;
    let packed = PackedModel::open(&packed, args.spec).map_err(|e| fail(&e))?;
    let device = args.device.device();
    let engine = device.engine().map_err(|e| fail(&e))?;

    let bench =
        Bench { engine, packed: &packed, prompt: args.prompt as usize, generate: args.r#gen as usize };
    let measure = |one: &dyn Fn() -> Result<Duration, pipe_kernels::ComputeError>| {
        one()?;
        let mut times = (0..args.reps).map(|_| one()).collect::<Result<Vec<_>, _>>()?;
        times.sort();
        Ok::<_, pipe_kernels::ComputeError>(times[times.len() / 2].as_secs_f64())
    };
    let prefill = f64::from(args.prompt) / measure(&|| bench.prefill()).map_err(|e| fail(&e))?;
    let decode = f64::from(args.r#gen) / measure(&|| bench.decode()).map_err(|e| fail(&e))?;
    match context.out.json {
        true => context.out.value(&serde_json::json!({
            "spec": args.spec.id(), "implementation": device.implementation.to_string(),
            "threads": device.threads, "prompt": args.prompt, "gen": args.r#gen,
            "prefill_tokens_per_s": prefill, "decode_tokens_per_s": decode,
        }))?,
        false => {
            let on = format!("{}, {}, {} threads", args.spec, device.implementation, device.threads);
            context.out.line(format!("prefill {:>4} tokens  {prefill:8.1} tokens/s  ({on})", args.prompt))?;
            context.out.line(format!("decode  {:>4} tokens  {decode:8.1} tokens/s  ({on})", args.r#gen))?;
        }
    }
    Ok(Exit::Ok)
}

struct Bench<'a> {
    engine: &'a Engine,
    packed: &'a PackedModel<'a>,
    prompt: usize,
    generate: usize,
}

impl Bench<'_> {
    /// Tokens that visit all of the vocabulary.
    fn token(&self, i: usize) -> u32 {
        (i * 7919 % self.packed.geometry.vocab) as u32
    }

    fn prefill(&self) -> Result<Duration, pipe_kernels::ComputeError> {
        let tokens: Vec<u32> = (0..self.prompt).map(|i| self.token(i)).collect();
        let (mut cache, mut logits) = (KvCache::new(&self.packed.geometry), Logits::new());
        let began = Instant::now();
        let slice = Slice { cache: &mut cache, tokens: &tokens, want: Want::Last };
        self.engine.forward(self.packed, &mut [slice], &mut logits)?;
        Ok(began.elapsed())
    }

    fn decode(&self) -> Result<Duration, pipe_kernels::ComputeError> {
        let (mut cache, mut logits) = (KvCache::new(&self.packed.geometry), Logits::new());
        let began = Instant::now();
        for i in 0..self.generate {
            let token = [self.token(i)];
            let slice = Slice { cache: &mut cache, tokens: &token, want: Want::Last };
            self.engine.forward(self.packed, &mut [slice], &mut logits)?;
        }
        Ok(began.elapsed())
    }
}
