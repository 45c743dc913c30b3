//! The `introspect` op: what an `infer` step left, looked into and checked, as `introspection.json`.

use std::sync::atomic::{AtomicU64, Ordering};

use pipe_kernels::PackedModel;

use super::{ANSWERS, Answers, Done, OpError, Progress, Tokens, Unit, World, infer, json};
use crate::inside::{self, Check, FORMAT, Inside, InsideError, Introspection, Look, Options, Transcript};
use crate::key::Inputs;
use crate::model::Detokenizer;
use crate::recipe::op::{Infer, Introspect};

/// The artifact; JSON of [`Introspection`].
pub const INTROSPECTION: &str = "introspection.json";

pub fn run(
    op: &Introspect,
    inputs: &Inputs,
    world: &World<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Done, OpError> {
    let infer = op.infer.as_ref().ok_or_else(|| OpError::input("introspect", "it is of no infer step"))?;
    let left = inputs.get("answer").ok_or_else(|| OpError::input("port `answer`", "not connected"))?;
    let answers = left.get(ANSWERS).ok_or_else(|| OpError::input(ANSWERS, "the step has no such output"))?;
    let answers: Answers = json::read(ANSWERS, &world.store.get(&answers.digest)?)?;
    let tokens: Tokens = json::read("tokens.json", &world.open_one(inputs, "tokens")?)?;
    if answers.answers.len() != tokens.prompts.len() {
        return Err(OpError::input(ANSWERS, "it is not of the same prompts as the tokens"));
    }
    let baseline: Option<Introspection> = match inputs.contains_key("baseline") {
        true => Some(json::read("baseline", &world.open_one(inputs, "baseline")?)?),
        false => None,
    };
    let one_pass = one_pass(infer, inputs, left, world, progress)?;

    let packed = world.open_one(inputs, "packed")?;
    let packed = PackedModel::open(&packed, infer.spec)?;
    let model = world.open_model(inputs)?;
    let detokenizer = model.detokenizer()?;
    let piece = |token| text(&detokenizer, token);
    let options = |prompt: usize| Options {
        window: op.window as usize,
        full_lens: op.lens.iter().map(|&layer| layer as usize).collect(),
        targets: op.targets as usize,
        causes: prompt < op.causes as usize,
        faithful: f64::from(op.faithful),
    };
    let transcripts: Vec<Transcript<'_>> = tokens
        .prompts
        .iter()
        .zip(&answers.answers)
        .map(|(prompt, answer)| Transcript { id: &prompt.id, prompt: &prompt.tokens, answer: &answer.tokens })
        .collect();
    let all = transcripts.iter().enumerate();
    let total = all.map(|(i, t)| inside::tokens_at_most(&packed.geometry, t, &options(i))).sum();
    let done = AtomicU64::new(0);
    let tell = |count| {
        let done = done.fetch_add(count, Ordering::Relaxed) + count;
        progress(Progress { done, total: Some(total), unit: Unit::Tokens });
        !world.cancel.load(Ordering::Relaxed)
    };
    // As many threads as the engine, and never at the same time.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(world.device.threads)
        .build()
        .map_err(|e| OpError::Machine { message: e.to_string() })?;
    let mut prompts = Vec::with_capacity(tokens.prompts.len());
    for (i, transcript) in transcripts.iter().enumerate() {
        world.check_cancelled()?;
        let options = options(i);
        let look = Look {
            engine: world.device.engine()?,
            model: &packed,
            sampler: &infer.sampler,
            options: &options,
            piece: &piece,
            progress: &tell,
        };
        let mut inside =
            pool.install(|| inside::look(&look, transcript)).map_err(|e| error(transcript.id, e))?;
        inside.checks.push(of_prompt(&one_pass, i));
        if let Some(usual) = baseline.as_ref().and_then(|all| same(all, &inside)) {
            inside.unusual.extend(inside::against(&inside, usual));
        }
        prompts.push(inside);
    }
    let sound = prompts.iter().flat_map(|inside| &inside.checks).all(|check| check.passed);
    let log = summary(&prompts);
    let found = Introspection { format: FORMAT.into(), spec: infer.spec.id().into(), sound, prompts };
    let output = world.put(INTROSPECTION, json::MEDIA_TYPE, &json::write(&found))?;
    Ok(Done { outputs: vec![output], log, ..Done::default() })
}

fn error(id: &str, e: InsideError) -> OpError {
    match e {
        InsideError::Compute(e) => e.into(),
        InsideError::Cancelled => OpError::Cancelled,
        e => OpError::input(format!("prompt {id}"), e),
    }
}

/// A token for people; what is not UTF-8 by itself shows as such.
fn text(detokenizer: &Detokenizer, token: u32) -> String {
    detokenizer
        .piece(token)
        .map_or_else(|_| format!("<{token}>"), |b| String::from_utf8_lossy(b).into_owned())
}

/// The baseline's inside that a prompt is compared with: that of the same id, else its first.
fn same<'a>(baseline: &'a Introspection, inside: &Inside) -> Option<&'a Inside> {
    baseline.prompts.iter().find(|usual| usual.id == inside.id).or_else(|| baseline.prompts.first())
}

/// What `pipe verify` checks, as evidence.
struct OnePass {
    compared: u64,
    /// Of each prompt that differs.
    differences: Vec<(usize, String)>,
}

fn one_pass(
    op: &Infer,
    inputs: &Inputs,
    left: &infer::Outputs,
    world: &World<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<OnePass, OpError> {
    let verified = infer::verify(op, inputs, left, &infer::Sample::All, world, progress)?;
    let told = verified.differences.iter().map(|d| {
        let what = format!(
            "position {}, {}: expected {}, found {}",
            d.position,
            d.what.name(),
            d.what.expected(),
            d.what.found()
        );
        (d.prompt, what)
    });
    Ok(OnePass { compared: (verified.digests + verified.tokens) as u64, differences: told.collect() })
}

fn of_prompt(one_pass: &OnePass, prompt: usize) -> Check {
    let difference = one_pass.differences.iter().find(|(of, _)| *of == prompt).map(|(_, what)| what.clone());
    Check {
        name: "one_pass".into(),
        passed: difference.is_none(),
        compared: one_pass.compared,
        evidence: difference.unwrap_or_else(|| {
            "every digest of the trace and every token of the step come again in one pass".into()
        }),
    }
}

fn summary(prompts: &[Inside]) -> String {
    let mut log = String::new();
    for inside in prompts {
        let failed: Vec<&str> = inside.checks.iter().filter(|c| !c.passed).map(|c| c.name.as_str()).collect();
        let checks = match failed.is_empty() {
            true => format!("{} checks passed", inside.checks.len()),
            false => format!("failed: {}", failed.join(", ")),
        };
        log += &format!("{}: {checks}, {} unusual\n", inside.id, inside.unusual.len());
    }
    log
}
