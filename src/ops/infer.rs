//! The `infer` op: prompts to answers, many at once. How they are batched, chunked and threaded changes no bit.

mod generate;
mod likelihood;
pub mod next;
mod prefix;
mod stop;
mod verify;

use std::io::BufWriter;

use serde::{Deserialize, Serialize};

use pipe_kernels::PackedModel;
use pipe_store::{Artifact, Digest, Output, Staged, StoreError};

use super::{Done, OpError, Progress, TokenizedPrompt, Tokens, World, json};
use crate::key::Inputs;
use crate::probe::{self, Plan};
use crate::recipe::op::Infer;
use crate::trace::{Collector, Layout, Spool};
use generate::Generated;
pub use verify::{Outputs, Sample, verify};

/// The artifact with the answers; JSON of [`Answers`].
pub const ANSWERS: &str = "answers.json";
/// Logits of each prompt's last position: safetensors, one tensor `logits`, f32 [prompts, vocabulary]; and JSON,
/// each number in the fewest digits that give back its bits.
const LOGITS: &str = "logits.safetensors";
const LOGITS_JSON: &str = "logits.json";
/// Log-likelihoods of the prompts' tokens: JSON, and safetensors with one f64 tensor a prompt.
const LIKELIHOOD_JSON: &str = "log_likelihood.json";
const LIKELIHOOD: &str = "log_likelihood.safetensors";

/// The trace: see docs/TRACE.md.
pub const TRACE: &str = "trace.safetensors";
/// What probes took, if there are any: see docs/PROBES.md.
pub const PROBES: &str = "probes.safetensors";

const SAFETENSORS: &str = "application/x-safetensors";

/// The artifact `answers.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    pub spec: String,
    pub answers: Vec<Answer>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub id: String,
    /// Without special tokens, cut before a stop text.
    pub text: String,
    /// As generated, the stop token included.
    pub tokens: Vec<u32>,
    pub prompt_tokens: usize,
    pub stopped_by: StoppedBy,
    /// Root of the transcript's trace.
    pub trace: Digest,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoppedBy {
    /// One of the model's end tokens.
    EndToken,
    /// One of the recipe's stop texts.
    StopText,
    MaxTokens,
    /// The model's context is full.
    Context,
}

impl StoppedBy {
    /// As `answers.json` has it.
    pub fn name(self) -> &'static str {
        match self {
            StoppedBy::EndToken => "end_token",
            StoppedBy::StopText => "stop_text",
            StoppedBy::MaxTokens => "max_tokens",
            StoppedBy::Context => "context",
        }
    }
}

/// JSON of `logits.json`.
#[derive(Serialize)]
struct AllLogits<'a> {
    prompts: Vec<LogitsOf<'a>>,
}

#[derive(Serialize)]
struct LogitsOf<'a> {
    id: &'a str,
    logits: &'a [f32],
}

pub fn run(
    op: &Infer,
    inputs: &Inputs,
    world: &World<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Done, OpError> {
    let tokens: Tokens = json::read("tokens.json", &world.open_one(inputs, "tokens")?)?;
    let packed = world.open_one(inputs, "packed")?;
    let digest = inputs.get("packed").and_then(|files| files.values().next()).map(|a| a.digest);
    let weights = digest.ok_or_else(|| OpError::input("port `packed`", "not connected"))?;
    let packed = PackedModel::open(&packed, op.spec)?;
    let model = world.open_model(inputs)?;
    let layout = Layout::new(op.trace, &packed.geometry);
    let spool = match layout.kept_bytes() {
        0 => None,
        record => Some(Spool::new(Some(world.store.stage()?), record)),
    };
    let mut collector = Collector::new(layout, tokens.prompts.len(), spool);
    let mut probes = probes(op, &tokens, &packed, world)?;
    let mut observers = Observers { trace: &mut collector, probes: &mut probes };
    let (generated, rates) =
        generate::generate(op, &tokens.prompts, &weights, &packed, &model, &mut observers, world, progress)?;

    let mut done = Done { facts: rates.facts(), ..Done::default() };
    let transcripts: Vec<Vec<u32>> = tokens
        .prompts
        .iter()
        .zip(&generated)
        .map(|(prompt, made)| [prompt.tokens.as_slice(), &made.tokens].concat())
        .collect();
    let roots = transcripts.iter().enumerate().map(|(i, all)| collector.root(i, all.iter().copied()));
    let answers = answers(op, &tokens, &generated, roots.collect(), &model)?;
    done.outputs.push(world.put(ANSWERS, json::MEDIA_TYPE, &json::write(&answers))?);
    if op.logits {
        done.outputs.push(world.put(LOGITS, SAFETENSORS, &logits(&generated))?);
        let text = logits_json(&tokens.prompts, &generated);
        done.outputs.push(world.put(LOGITS_JSON, json::MEDIA_TYPE, &text)?);
    }
    if op.log_likelihood {
        let (text, tensors) = likelihood::artifacts(&tokens.prompts, &generated);
        done.outputs.push(world.put(LIKELIHOOD_JSON, json::MEDIA_TYPE, &json::write(&text))?);
        done.outputs.push(world.put(LIKELIHOOD, SAFETENSORS, &tensors)?);
    }
    done.outputs.push(file(TRACE, world, |out| collector.write(out, op.spec.id(), &transcripts))?);
    if !op.probes.is_empty() {
        done.outputs.push(file(PROBES, world, |out| probes.write(out, op.spec.id()))?);
    }
    Ok(done)
}

/// Those who look at what the engine computes.
struct Observers<'a> {
    trace: &'a mut Collector,
    probes: &'a mut probe::Collector,
}

/// The step's probes, ready for its model and its prompts.
fn probes(
    op: &Infer,
    tokens: &Tokens,
    packed: &PackedModel<'_>,
    world: &World<'_>,
) -> Result<probe::Collector, OpError> {
    if op.probes.is_empty() {
        return Ok(probe::Collector::none());
    }
    let plan = Plan::new(&op.probes, &packed.geometry).map_err(|e| OpError::input("probes", e))?;
    let lengths = tokens.prompts.iter().map(|prompt| prompt.tokens.len()).collect();
    Ok(probe::Collector::new(plan, lengths, Some(world.store.stage()?)))
}

/// An artifact that is written as a stream.
fn file(
    name: &str,
    world: &World<'_>,
    write: impl FnOnce(&mut BufWriter<Staged>) -> std::io::Result<()>,
) -> Result<Output, OpError> {
    let staged = world.store.stage()?;
    let path = staged.path().to_owned();
    let mut out = BufWriter::new(staged);
    let io = |e| StoreError::io("write", &path, e);
    write(&mut out).map_err(io)?;
    let staged = out.into_inner().map_err(|e| io(e.into_error()))?;
    let (digest, length) = staged.commit()?;
    Ok(Output { name: name.into(), artifact: Artifact { digest, length, media_type: SAFETENSORS.into() } })
}

fn answers(
    op: &Infer,
    tokens: &Tokens,
    generated: &[Generated],
    roots: Vec<Digest>,
    model: &crate::model::Model,
) -> Result<Answers, OpError> {
    let detokenizer = model.detokenizer()?;
    let answers = tokens.prompts.iter().zip(generated).zip(roots).map(|((prompt, made), trace)| {
        let bytes = stop::cut(&detokenizer, &made.tokens, &op.stop)
            .map_err(|e| OpError::input(format!("answer {}", prompt.id), e))?;
        Ok(Answer {
            id: prompt.id.clone(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
            tokens: made.tokens.clone(),
            prompt_tokens: prompt.tokens.len(),
            stopped_by: made.stopped_by,
            trace,
        })
    });
    Ok(Answers { spec: op.spec.id().into(), answers: answers.collect::<Result<_, OpError>>()? })
}

/// How many tokens of a transcript went through the model. The one generated last did not, unless the answer ended
/// since the context was full, which is found out when the next is due.
fn computed(prompt: usize, generated: usize, stopped_by: Option<StoppedBy>) -> usize {
    let last = generated > 0 && stopped_by != Some(StoppedBy::Context);
    prompt + generated - usize::from(last)
}

fn logits_json(prompts: &[TokenizedPrompt], generated: &[Generated]) -> Vec<u8> {
    let prompts = prompts.iter().zip(generated);
    let prompts = prompts.map(|(prompt, made)| LogitsOf { id: &prompt.id, logits: &made.logits });
    json::write(&AllLogits { prompts: prompts.collect() })
}

fn logits(generated: &[Generated]) -> Vec<u8> {
    let vocab = generated.first().map_or(0, |g| g.logits.len());
    let bytes: Vec<u8> = generated.iter().flat_map(|g| &g.logits).flat_map(|x| x.to_le_bytes()).collect();
    let shape = vec![generated.len(), vocab];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes)
        .expect("BUG: the shape is made from the data");
    safetensors::serialize([("logits", view)], None).expect("BUG: one tensor can be written")
}
