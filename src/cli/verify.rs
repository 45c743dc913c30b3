//! `pipe verify`: the answers of a run checked against the weights, each transcript in one pass.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use indicatif::ProgressBar;
use pipe_store::{Artifact, Digest, Store};
use serde_json::json;

use super::error::{CliError, Exit};
use super::ladder::{LadderArgs, Rung};
use super::run::DeviceArgs;
use super::{Context, out, progress};
use crate::bundle::{Bundle, SealedOutput, SealedStep};
use crate::key::Inputs;
use crate::ops::fetch::FetchEnv;
use crate::ops::{self, Device, Outputs, Sample, World};
use crate::pipeline::CanonicalOp;
use crate::recipe::op::Infer;
use crate::trace::verify::{Difference, Verified};

/// Check a run's answers against the weights: every token, every digest, in one pass
///
/// Prompt and answer of each `infer` step go through the model again, together, and everything the step left is
/// compared: the digests and rows of its trace, each generated token with what the sampler chooses, the text, why
/// it ended, logits and log-likelihoods. The first difference is named by prompt, position and block. The packed
/// weights must be in the store.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pipe verify                        the last run
  pipe verify bafyr4i…               a bundle or a manifest; fetched if it is not in the store
  pipe verify result.car --level integrity --trusted keys.txt
  pipe verify 0194 --level 'sample 5' --seed mine
  pipe verify 0194 --step answer --threads 1 --json

Exit codes: 0 all as recorded, 1 something differs, 4 what came in is not to be believed, 5 something it
needs is not in the store, 6 nobody has it.")]
pub struct Args {
    /// A run's id (or the start of it), the CID of a bundle or a manifest, or a CAR file [default: the last run]
    run: Option<String>,
    /// Only this step (may be given several times)
    #[arg(long, value_name = "STEP")]
    step: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    ladder: LadderArgs,
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store()?;
    let (found, sample) = match args.ladder.climb(args.run.as_deref(), &args.device, &store, context)? {
        Rung::Done(exit) => return Ok(exit),
        Rung::OnePass(found, sample) => (found, sample),
    };
    let recipe = found.run.as_ref().and_then(|(_, body)| body.recipe.as_deref()).unwrap_or("RECIPE");
    let Some(bundle) = &found.bundle else {
        return Err(CliError::new(Exit::Usage, "this run has no bundle: a step failed")
            .hint("`pipe log` lists the runs"));
    };
    let steps = chosen(bundle, &args.step)?;
    let device = args.device.device();
    let mut exit = Exit::Ok;
    let mut missing = None;
    for (name, op) in steps {
        let step = Step { name, op, bundle, sealed: &bundle.steps[name] };
        if let Some(e) = step.missing(&store, recipe)? {
            missing.get_or_insert(e);
            continue;
        }
        let began = Instant::now();
        let verified = step.verify(&sample, &store, &device, context)?;
        step.report(&verified, began.elapsed().as_millis() as u64, context)?;
        if !verified.differences.is_empty() {
            exit = Exit::Differ;
        }
    }
    match missing {
        Some(e) if exit == Exit::Ok => Err(e),
        Some(e) => {
            context.out.note(format!("not checked: {}", e.message));
            Ok(exit)
        }
        None => Ok(exit),
    }
}

/// The `infer` steps of a bundle: all, or those named.
fn chosen<'a>(bundle: &'a Bundle, names: &[String]) -> Result<Vec<(&'a str, &'a Infer)>, CliError> {
    let all = || {
        bundle.pipeline.steps.iter().filter_map(|step| match &step.op {
            CanonicalOp::Infer(op) if bundle.steps.contains_key(&step.name) => Some((step.name.as_str(), op)),
            _ => None,
        })
    };
    let known: Vec<&str> = all().map(|(name, _)| name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(CliError::new(Exit::Usage, format!("the run has no infer step `{name}`"))
            .hint(format!("its infer steps: {}", known.join(", "))));
    }
    if known.is_empty() {
        return Err(CliError::new(Exit::Usage, "the run has no infer step, so there is nothing to verify"));
    }
    Ok(all().filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name)).collect())
}

struct Step<'a> {
    name: &'a str,
    op: &'a Infer,
    bundle: &'a Bundle,
    sealed: &'a SealedStep,
}

impl Step<'_> {
    /// What the check needs and the store does not have.
    fn missing(&self, store: &Store, recipe: &str) -> Result<Option<CliError>, CliError> {
        let inputs = self.sealed.inputs.values().flat_map(BTreeMap::values);
        for digest in inputs.chain(self.sealed.outputs.values().map(|o| &o.digest)) {
            if !store.has(digest)? {
                let made = self.bundle.outputs().find(|(_, _, output)| output.digest == *digest);
                let (step, output) = made.map_or((self.name, "?"), |(step, name, _)| (step, name));
                let message = format!("step `{}`: {step}/{output} ({digest}) is not in the store", self.name);
                return Ok(Some(CliError::new(Exit::Store, message).hint(format!(
                    "`pipe run {recipe} --force {step}` makes it again; `pipe import FILE.car` brings in a bundle"
                ))));
            }
        }
        Ok(None)
    }

    fn verify(
        &self,
        sample: &Sample,
        store: &Store,
        device: &Device,
        context: &Context,
    ) -> Result<Verified, CliError> {
        let (fetch, cancel) = (FetchEnv::default(), AtomicBool::new(false));
        let partial = context.root.join("partial");
        let world =
            World { store, device, fetch: &fetch, partial: &partial, cancel: &cancel, prefixes: None };
        let bar = context.out.stderr_is_rich().then(|| progress::bar(self.name));
        let tell = |beat| bar.iter().for_each(|bar: &ProgressBar| progress::beat(bar, beat));
        let verified =
            ops::verify(self.op, &inputs(self.bundle, self.sealed), &self.outputs(), sample, &world, &tell);
        bar.iter().for_each(ProgressBar::finish_and_clear);
        verified.map_err(|e| {
            let exit = if e.is_store() { Exit::Store } else { Exit::Step };
            CliError::new(exit, format!("step `{}`: {e}", self.name))
        })
    }

    fn outputs(&self) -> Outputs {
        self.sealed.outputs.iter().map(|(name, output)| (name.clone(), artifact(output))).collect()
    }

    fn report(&self, verified: &Verified, wall_ms: u64, context: &Context) -> Result<(), CliError> {
        let first = verified.differences.first();
        if context.out.json {
            return context.out.value(&json!({
                "step": self.name,
                "ok": first.is_none(),
                "prompts": verified.prompts,
                "positions": verified.positions,
                "digests": verified.digests,
                "tokens": verified.tokens,
                "differing_prompts": verified.differences.len(),
                "difference": first.map(|d| json!({
                    "prompt": d.prompt, "id": d.id, "position": d.position, "token": d.token,
                    "block": d.what.name(), "expected": d.what.expected(), "found": d.what.found(),
                })),
                "wall_ms": wall_ms,
            }));
        }
        let name = self.name;
        let Some(first) = first else {
            let Verified { prompts, positions, digests, tokens, .. } = verified;
            let took = out::millis(wall_ms);
            let prompts = format!("{prompts} prompt{}", if *prompts == 1 { "" } else { "s" });
            return context.out.line(format!(
                "{name}: ok: {prompts}, {positions} positions, {digests} digests, {tokens} generated tokens, {took}"
            ));
        };
        let others = match verified.differences.len() {
            1 => String::new(),
            n => format!(" (and {} more prompts)", n - 1),
        };
        context.out.line(format!("{name}: differs: {}{others}", place(first)))?;
        context.out.line(format!("    expected {}", first.what.expected()))?;
        context.out.line(format!("    found    {}", first.what.found()))
    }
}

/// What a step of a bundle took.
pub fn inputs(bundle: &Bundle, sealed: &SealedStep) -> Inputs {
    let named = |digest: &Digest| {
        let made = bundle.outputs().find(|(_, _, output)| output.digest == *digest);
        let unknown = || Artifact { digest: *digest, length: 0, media_type: String::new() };
        made.map_or_else(unknown, |(_, _, output)| artifact(output))
    };
    let files = |files: &BTreeMap<String, Digest>| {
        files.iter().map(|(name, digest)| (name.clone(), named(digest))).collect()
    };
    sealed.inputs.iter().map(|(port, named)| (port.clone(), files(named))).collect()
}

fn artifact(output: &SealedOutput) -> Artifact {
    Artifact { digest: output.digest, length: output.length, media_type: output.media_type.clone() }
}

fn place(d: &Difference) -> String {
    let token = d.token.map_or_else(String::new, |token| format!(" (token {token})"));
    format!("prompt {}, position {}{token}, {}", d.id, d.position, d.what.name())
}
