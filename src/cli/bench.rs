//! `pipe bench`: how fast this machine runs a model: prefill and decode, in tokens per second.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use memmap2::Mmap;
use pipe_kernels::{PackedModel, Spec};

use super::Context;
use super::error::{CliError, Exit};
use super::model::{self, LoadArgs};
use crate::measure::{Bench, rate};
use crate::model::Model;
use crate::recipe::op::TraceLevel;

/// Measure prefill and decode of a model on this machine
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe bench model.gguf --threads 1\n  pipe bench model.gguf --prompt 512 --gen 64 --reps 5 --json\n  pipe bench model.gguf --spec q8\n  pipe bench model.gguf --trace blocks   # and what a trace costs"
)]
pub struct Args {
    /// A GGUF file or a Hugging Face folder
    model: PathBuf,
    /// The arithmetic
    #[arg(long, default_value = "f32", value_parser = model::spec)]
    spec: Spec,
    /// Measure once more with this level of trace, in turns: what hashing and keeping cost
    #[arg(long, value_parser = levels())]
    trace: Option<TraceLevel>,
    #[command(flatten)]
    load: LoadArgs,
}

/// The names as values that clap knows, so that it completes them and suggests the nearest.
fn levels() -> impl TypedValueParser<Value = TraceLevel> {
    PossibleValuesParser::new(TraceLevel::ALL.map(TraceLevel::name))
        .try_map(|name| TraceLevel::from_name(&name).ok_or("no such level"))
}

/// Tokens per second.
struct Rates {
    prefill: f64,
    decode: f64,
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
    // Else the system writes it to the disk while we measure, and takes a core for that.
    packed.sync_data().map_err(|e| fail(&e))?;
    // SAFETY: the file has no name, so nobody else can reach it.
    let packed = unsafe { Mmap::map(&packed) }.map_err(|e| fail(&e))?;
    let packed = PackedModel::open(&packed, args.spec).map_err(|e| fail(&e))?;
    let device = args.load.device.device();
    let engine = device.engine().map_err(|e| fail(&e))?;

    let (prompt, generate) = (args.load.prompt as usize, args.load.r#gen as usize);
    let bench = Bench { engine, packed: &packed, prompt, generate };
    let kinds: Vec<Option<TraceLevel>> = [None].into_iter().chain(args.trace.map(Some)).collect();
    // In turns, so that a slow moment of the machine hits all alike; the first round warms up.
    let mut times = vec![(Vec::new(), Vec::new()); kinds.len()];
    for round in 0..=args.load.reps {
        for (&kind, (prefill, decode)) in kinds.iter().zip(&mut times) {
            let took =
                (bench.prefill(kind).map_err(|e| fail(&e))?, bench.decode(kind).map_err(|e| fail(&e))?);
            if round > 0 {
                prefill.push(took.0);
                decode.push(took.1);
            }
        }
    }
    let rates = times.into_iter().map(|(prefill, decode)| Rates {
        prefill: rate(prompt, prefill).unwrap_or_default(),
        decode: rate(generate, decode).unwrap_or_default(),
    });
    let found: Vec<(Option<TraceLevel>, Rates)> = kinds.iter().copied().zip(rates).collect();
    if context.out.json {
        let mut value = serde_json::json!({
            "spec": args.spec.id(), "implementation": device.implementation.to_string(),
            "threads": device.threads, "prompt": prompt, "gen": generate,
        });
        for (kind, rates) in &found {
            let into = match kind {
                None => &mut value,
                Some(level) => {
                    value["traced"] = serde_json::json!({ "level": level.name() });
                    &mut value["traced"]
                }
            };
            into["prefill_tokens_per_s"] = rates.prefill.into();
            into["decode_tokens_per_s"] = rates.decode.into();
        }
        context.out.value(&value)?;
        return Ok(Exit::Ok);
    }
    for (kind, rates) in &found {
        let with = kind.map_or_else(String::new, |level| format!(", trace {}", level.name()));
        let on = format!("{}, {}, {} threads{with}", args.spec, device.implementation, device.threads);
        context.out.line(format!("prefill {prompt:>4} tokens  {:8.1} tokens/s  ({on})", rates.prefill))?;
        context.out.line(format!("decode  {generate:>4} tokens  {:8.1} tokens/s  ({on})", rates.decode))?;
    }
    Ok(Exit::Ok)
}
