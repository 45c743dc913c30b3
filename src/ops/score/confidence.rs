//! How sure the model was of the tokens it chose, and how far from f32@1 it was: the answers go through the model once
//! more, in one pass, which gives the bits they were chosen by.

use pipe_kernels::math::double;
use pipe_kernels::{Engine, KvCache, Logits, PackedModel, Slice, Spec, Want};
use serde_json::{Value, json};

use crate::features::token::{distribution, kl};
use crate::key::Inputs;
use crate::ops::{Answers, OpError, Progress, Tokens, Unit, World};

/// Tokens a pass takes when only the cache is filled, and when each gives a vocabulary of floats.
const FILL: usize = 512;
const WANTED: usize = 64;

/// For each prompt with an answer: means over the answer's tokens of their probability and of the margin of the
/// likeliest over the second; with the port `packed_f32` also of KL(f32 ‖ spec), and exp(−KL) as fidelity.
pub fn measure(
    answers: &Answers,
    tokens: &Tokens,
    inputs: &Inputs,
    world: &World<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<Option<Value>>, OpError> {
    let spec = Spec::ALL.into_iter().find(|spec| spec.id() == answers.spec);
    let spec = spec.ok_or_else(|| OpError::input("answers.json", format!("spec `{}`", answers.spec)))?;
    let packed = world.open_one(inputs, "packed")?;
    let packed = PackedModel::open(&packed, spec)?;
    let f32 = match inputs.contains_key("packed_f32") {
        true => Some(world.open_one(inputs, "packed_f32")?),
        false => None,
    };
    let f32 = f32.as_ref().map(|bytes| PackedModel::open(bytes, Spec::F32)).transpose()?;
    let engine = world.device.engine()?;
    let both = || tokens.prompts.iter().zip(&answers.answers);
    let total = both().map(|(p, a)| (p.tokens.len() + a.tokens.len()) as u64).sum();
    let mut done = 0;
    let mut found = Vec::with_capacity(answers.answers.len());
    for (prompt, answer) in both() {
        world.check_cancelled()?;
        let mut sums = Sums::default();
        if !answer.tokens.is_empty() {
            let mut walks = vec![Walk::new(engine, &packed)];
            walks.extend(f32.as_ref().map(|model| Walk::new(engine, model)));
            let known = &prompt.tokens[..prompt.tokens.len().saturating_sub(1)];
            walks.iter_mut().try_for_each(|walk| walk.fill(known))?;
            // Each token but the last is read, each but the first of these is predicted.
            let rest: Vec<u32> = prompt
                .tokens
                .iter()
                .copied()
                .skip(known.len())
                .chain(answer.tokens.iter().copied())
                .collect();
            for (at, chunk) in rest[..rest.len() - 1].chunks(WANTED).enumerate() {
                walks.iter_mut().try_for_each(|walk| walk.take(chunk, Want::All))?;
                for i in 0..chunk.len() {
                    sums.add(&walks, i, rest[at * WANTED + i + 1])
                        .map_err(|e| OpError::input(format!("answer {}", answer.id), e))?;
                }
            }
        }
        found.push(sums.finish());
        done += (prompt.tokens.len() + answer.tokens.len()) as u64;
        progress(Progress { done, total: Some(total), unit: Unit::Tokens });
    }
    Ok(found)
}

/// One model on its way through one transcript.
struct Walk<'a> {
    engine: &'a Engine,
    model: &'a PackedModel<'a>,
    cache: KvCache,
    logits: Logits,
}

impl<'a> Walk<'a> {
    fn new(engine: &'a Engine, model: &'a PackedModel<'a>) -> Self {
        Walk { engine, model, cache: KvCache::new(&model.geometry), logits: Logits::new() }
    }

    fn fill(&mut self, tokens: &[u32]) -> Result<(), OpError> {
        tokens.chunks(FILL).try_for_each(|chunk| self.take(chunk, Want::None))
    }

    fn take(&mut self, tokens: &[u32], want: Want) -> Result<(), OpError> {
        let slice = Slice { cache: &mut self.cache, tokens, want };
        Ok(self.engine.forward(self.model, &mut [slice], &mut self.logits)?)
    }
}

#[derive(Default)]
struct Sums {
    tokens: u64,
    probability: f64,
    margin: f64,
    kl: Option<f64>,
}

impl Sums {
    /// Row i of the walks predicts the token; the second walk, if there is one, is f32's.
    fn add(&mut self, walks: &[Walk<'_>], i: usize, token: u32) -> Result<(), String> {
        let own = walks[0].logits.row(i);
        let seen = distribution(own, token).map_err(|e| e.to_string())?;
        self.tokens += 1;
        self.probability += seen.probability;
        self.margin += seen.margin;
        if let Some(f32) = walks.get(1) {
            let kl = kl(f32.logits.row(i), own).map_err(|e| e.to_string())?;
            self.kl = Some(self.kl.unwrap_or(0.0) + kl);
        }
        Ok(())
    }

    fn finish(&self) -> Option<Value> {
        let n = self.tokens as f64;
        // Keys in order: how a library keeps them must not show.
        let mut map = serde_json::Map::new();
        if let Some(kl) = self.kl {
            map.insert("fidelity_to_f32".into(), json!(double::exp(-kl / n)));
            map.insert("mean_kl_to_f32".into(), json!(kl / n));
        }
        map.insert("mean_margin".into(), json!(self.margin / n));
        map.insert("mean_probability".into(), json!(self.probability / n));
        map.insert("tokens".into(), json!(self.tokens));
        (self.tokens > 0).then_some(Value::Object(map))
    }
}
