//! The `infer` op: prompts to answers, many at once. How they are batched, chunked and threaded changes no bit.

mod generate;
mod likelihood;
mod stop;

use serde::{Deserialize, Serialize};

use pipe_kernels::PackedModel;
use pipe_store::Output;

use super::{Done, OpError, Progress, Tokens, World, json};
use crate::key::Inputs;
use crate::recipe::op::Infer;
use generate::Generated;

/// The artifact with the answers; JSON of [`Answers`].
pub const ANSWERS: &str = "answers.json";
/// Logits of each prompt's last position: safetensors, one tensor `logits`, f32 [prompts, vocabulary]; and JSON,
/// each number in the fewest digits that give back its bits.
const LOGITS: &str = "logits.safetensors";
const LOGITS_JSON: &str = "logits.json";
/// Log-likelihoods of the prompts' tokens: JSON, and safetensors with one f64 tensor a prompt.
const LIKELIHOOD_JSON: &str = "log_likelihood.json";
const LIKELIHOOD: &str = "log_likelihood.safetensors";

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
    let packed = PackedModel::open(&packed, op.spec)?;
    let model = world.open_model(inputs)?;
    let (generated, rates) = generate::generate(op, &tokens.prompts, &packed, &model, world, progress)?;

    let mut done = Done { facts: rates.facts(), ..Done::default() };
    let answers = answers(op, &tokens, &generated, &model)?;
    done.outputs.push(world.put(ANSWERS, json::MEDIA_TYPE, &json::write(&answers))?);
    if op.logits {
        done.outputs.push(logits(&generated, world)?);
        let prompts = tokens.prompts.iter().zip(&generated);
        let prompts = prompts.map(|(prompt, made)| LogitsOf { id: &prompt.id, logits: &made.logits });
        let text = AllLogits { prompts: prompts.collect() };
        done.outputs.push(world.put(LOGITS_JSON, json::MEDIA_TYPE, &json::write(&text))?);
    }
    if op.log_likelihood {
        let (text, tensors) = likelihood::artifacts(&tokens.prompts, &generated);
        done.outputs.push(world.put(LIKELIHOOD_JSON, json::MEDIA_TYPE, &json::write(&text))?);
        done.outputs.push(world.put(LIKELIHOOD, SAFETENSORS, &tensors)?);
    }
    Ok(done)
}

fn answers(
    op: &Infer,
    tokens: &Tokens,
    generated: &[Generated],
    model: &crate::model::Model,
) -> Result<Answers, OpError> {
    let detokenizer = model.detokenizer()?;
    let answers = tokens.prompts.iter().zip(generated).map(|(prompt, made)| {
        let bytes = stop::cut(&detokenizer, &made.tokens, &op.stop)
            .map_err(|e| OpError::input(format!("answer {}", prompt.id), e))?;
        Ok(Answer {
            id: prompt.id.clone(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
            tokens: made.tokens.clone(),
            prompt_tokens: prompt.tokens.len(),
            stopped_by: made.stopped_by,
        })
    });
    Ok(Answers { spec: op.spec.id().into(), answers: answers.collect::<Result<_, OpError>>()? })
}

fn logits(generated: &[Generated], world: &World<'_>) -> Result<Output, OpError> {
    let vocab = generated.first().map_or(0, |g| g.logits.len());
    let bytes: Vec<u8> = generated.iter().flat_map(|g| &g.logits).flat_map(|x| x.to_le_bytes()).collect();
    let shape = vec![generated.len(), vocab];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes)
        .expect("BUG: the shape is made from the data");
    let file = safetensors::serialize([("logits", view)], None).expect("BUG: one tensor can be written");
    world.put(LOGITS, SAFETENSORS, &file)
}
