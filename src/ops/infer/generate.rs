//! The loop that feeds the engine: prompts in, tokens out, several at once. A prompt's result does not depend
//! on its neighbours, nor on how it is cut: the numeric contract says so and tests prove it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pipe_kernels::sampler::{SampleError, log_softmax_at};
use pipe_kernels::{Engine, KvCache, Logits, PackedModel, Slice, Want};
use pipe_store::Digest;
use serde_json::{Map, Value};

use super::prefix::{Fate, Prefixes};
use super::stop::{Ending, Watch};
use super::{Observers, StoppedBy};
use crate::model::Model;
use crate::ops::{OpError, Progress, TokenizedPrompt, Unit, World};
use crate::probe;
use crate::recipe::op::Infer;
use crate::trace::{Collector, Part};

/// Prompts in the engine at once.
const ACTIVE_MAX: usize = 16;
/// Prompt tokens fed in one pass, over all prompts: bounds the activations.
const CHUNK: usize = 512;
/// The same where every position's logits are wanted, which take a vocabulary of floats each.
const CHUNK_ALL: usize = 64;

/// What became of one prompt.
pub struct Generated {
    pub tokens: Vec<u32>,
    pub stopped_by: StoppedBy,
    /// Of the last prompt position; empty unless asked for.
    pub logits: Vec<f32>,
    /// ln p of each prompt token after the first, in nats; empty unless asked for.
    pub log_likelihood: Vec<f64>,
}

/// How fast it went: facts, never part of a result.
pub struct Rates {
    prompt_tokens: u64,
    /// Prompt tokens that were computed before, in this step or another.
    reused_tokens: u64,
    prompt_time: Duration,
    generated_tokens: u64,
    generate_time: Duration,
    threads: usize,
    implementation: String,
}

/// One prompt in the engine.
struct Active<'a> {
    index: usize,
    prompt: &'a [u32],
    cache: KvCache,
    /// Prompt tokens fed so far.
    fed: usize,
    watch: Watch<'a>,
    made: Generated,
    ended: bool,
}

#[allow(clippy::too_many_arguments)] // what it computes, by what, and for whom
pub fn generate(
    op: &Infer,
    prompts: &[TokenizedPrompt],
    weights: &Digest,
    packed: &PackedModel<'_>,
    model: &Model,
    observers: &mut Observers<'_>,
    world: &World<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(Vec<Generated>, Rates), OpError> {
    let engine = world.device.engine()?;
    let detokenizer = model.detokenizer()?;
    let mut run = Generation {
        op,
        engine,
        packed,
        ending: Ending::new(op, model, &detokenizer),
        context: packed.geometry.context,
        logits: Logits::default(),
        prefixes: Prefixes::new(op, weights, prompts, observers.probes.plan(), world),
        collector: &mut *observers.trace,
        probes: &mut *observers.probes,
        rates: Rates {
            prompt_tokens: 0,
            reused_tokens: 0,
            prompt_time: Duration::ZERO,
            generated_tokens: 0,
            generate_time: Duration::ZERO,
            threads: world.device.threads,
            implementation: world.device.implementation.to_string(),
        },
    };
    let total: u64 = prompts.iter().map(|p| p.tokens.len() as u64 + u64::from(op.max_tokens)).sum();
    let mut waiting: VecDeque<_> = prompts.iter().enumerate().collect();
    let mut active: Vec<Active<'_>> = Vec::new();
    let mut done: Vec<Option<Generated>> = prompts.iter().map(|_| None).collect();
    while !(waiting.is_empty() && active.is_empty()) {
        world.check_cancelled()?;
        // One that waits for a prefix that another is computing lets those behind it go first.
        let mut at = 0;
        while active.len() < ACTIVE_MAX && at < waiting.len() {
            let (index, prompt) = waiting[at];
            match run.admit(index, prompt)? {
                Some(admitted) => {
                    active.push(admitted);
                    waiting.remove(at);
                }
                None => at += 1,
            }
        }
        run.pass(&mut active)?;
        for ended in active.extract_if(.., |a| a.ended) {
            done[ended.index] = Some(ended.made);
        }
        let beats = run.rates.prompt_tokens + run.rates.reused_tokens + run.rates.generated_tokens;
        progress(Progress { done: beats, total: Some(total), unit: Unit::Tokens });
    }
    let done = done.into_iter().map(|d| d.expect("BUG: every prompt ends")).collect();
    Ok((done, run.rates))
}

struct Generation<'a> {
    op: &'a Infer,
    engine: &'a Engine,
    packed: &'a PackedModel<'a>,
    ending: Ending<'a>,
    context: usize,
    logits: Logits,
    collector: &'a mut Collector,
    probes: &'a mut probe::Collector,
    prefixes: Prefixes<'a>,
    rates: Rates,
}

impl<'a> Generation<'a> {
    /// A prompt with as much of it as was computed before; None while another computes what it begins with.
    fn admit(&mut self, index: usize, prompt: &'a TokenizedPrompt) -> Result<Option<Active<'a>>, OpError> {
        let length = prompt.tokens.len();
        if length > self.context {
            return Err(OpError::input(
                format!("prompt {}", prompt.id),
                format!("it has {length} tokens; the model's context holds {}", self.context),
            ));
        }
        let mut cache = KvCache::new(&self.packed.geometry);
        if self.prefixes.fill(index, &mut cache, self.collector)? == Fate::Wait {
            return Ok(None);
        }
        let fed = cache.len();
        self.rates.reused_tokens += fed as u64;
        Ok(Some(Active {
            index,
            prompt: &prompt.tokens,
            cache,
            fed,
            watch: self.ending.watch(),
            made: Generated {
                tokens: Vec::new(),
                stopped_by: StoppedBy::MaxTokens,
                logits: Vec::new(),
                log_likelihood: Vec::new(),
            },
            ended: false,
        }))
    }

    /// One forward pass: a piece of the prompt, or the last token, of each active prompt.
    fn pass(&mut self, active: &mut [Active<'a>]) -> Result<(), OpError> {
        let began = Instant::now();
        let everywhere = self.op.log_likelihood || self.probes.plan().all_logits();
        let room = if everywhere { CHUNK_ALL } else { CHUNK };
        let mut room = room.min(self.collector.most_rows()).min(self.probes.most_rows());
        let mut batch = Vec::with_capacity(active.len());
        let mut members = Vec::with_capacity(active.len());
        let mut parts = Vec::with_capacity(active.len());
        let (mut prompt_tokens, mut generated) = (0, 0);
        for (member, a) in active.iter_mut().enumerate() {
            let rest = &a.prompt[a.fed..];
            let (tokens, want) = match (rest.is_empty(), a.made.tokens.last()) {
                (true, Some(last)) => {
                    generated += 1;
                    (std::slice::from_ref(last), Want::Last)
                }
                _ => {
                    let take = rest.len().min(room);
                    room -= take;
                    prompt_tokens += take as u64;
                    let whole = take == rest.len();
                    let want = match (everywhere, whole) {
                        (true, _) => Want::All,
                        (false, true) => Want::Last,
                        (false, false) => Want::None,
                    };
                    (&rest[..take], want)
                }
            };
            if !tokens.is_empty() {
                members.push((member, tokens.len(), want));
                parts.push(Part { prompt: a.index, start: a.cache.len(), count: tokens.len() });
                batch.push(Slice { cache: &mut a.cache, tokens, want });
            }
        }
        let (engine, packed, logits) = (self.engine, self.packed, &mut self.logits);
        let probes = &mut *self.probes;
        self.collector.observe(&parts, |tap| -> Result<(), OpError> {
            probes.observe(&parts, tap, |tap| Ok(engine.observed(packed, &mut batch, logits, Some(tap))?))
        })?;
        for a in active.iter() {
            let tokens = a.prompt.iter().chain(&a.made.tokens).copied();
            self.probes.attend(a.index, tokens, &a.cache)?;
        }
        let mut row = 0;
        for (member, count, want) in members {
            let rows = match want {
                Want::None => 0,
                Want::Last => 1,
                Want::All => count,
            };
            self.take(&mut active[member], count, row..row + rows)?;
            row += rows;
        }
        for a in active.iter() {
            self.prefixes.keep(a.index, &a.cache, self.collector)?;
        }
        self.rates.add(prompt_tokens, generated, began.elapsed());
        Ok(())
    }

    /// What a pass gave for one prompt: likelihoods of its tokens, and, after its last, the next token.
    fn take(&self, a: &mut Active<'a>, count: usize, rows: std::ops::Range<usize>) -> Result<(), OpError> {
        let from = a.fed;
        let decoding = from == a.prompt.len();
        if !decoding {
            a.fed += count;
            if self.op.log_likelihood {
                // Row i holds what the model thinks comes after token from + i.
                for (row, next) in rows.clone().zip(a.prompt.iter().skip(from + 1)) {
                    a.made.log_likelihood.push(log_softmax_at(self.logits.row(row), *next).map_err(rule)?);
                }
            }
            if a.fed < a.prompt.len() {
                return Ok(());
            }
            if self.op.logits {
                a.made.logits = self.logits.row(rows.end - 1).to_vec();
            }
        }
        self.choose(a, rows.end - 1)
    }

    /// Choose the next token, and see whether the answer ends.
    fn choose(&self, a: &mut Active<'a>, row: usize) -> Result<(), OpError> {
        let position = a.prompt.len() + a.made.tokens.len();
        let mut stopped = self.ending.before(position, a.made.tokens.len());
        if stopped.is_none() {
            let token = self.op.sampler.choose(self.logits.row(row), position as u64).map_err(rule)?;
            a.made.tokens.push(token);
            let ends = self.ending.after(&mut a.watch, token, a.made.tokens.len());
            stopped = ends.map_err(|e| OpError::input("vocabulary", e))?;
        }
        if let Some(reason) = stopped {
            a.ended = true;
            a.made.stopped_by = reason;
        }
        Ok(())
    }
}

fn rule(e: SampleError) -> OpError {
    OpError::input("sampler", e)
}

impl Rates {
    /// A pass that feeds prompts and generates counts for both, by tokens.
    fn add(&mut self, prompt: u64, generated: u64, took: Duration) {
        self.prompt_tokens += prompt;
        self.generated_tokens += generated;
        let share = prompt as f64 / (prompt + generated).max(1) as f64;
        self.prompt_time += took.mul_f64(share);
        self.generate_time += took.mul_f64(1.0 - share);
    }

    pub fn facts(&self) -> Map<String, Value> {
        let per_second = |tokens: u64, time: Duration| {
            let rate = tokens as f64 / time.as_secs_f64();
            if rate.is_finite() { Value::from(rate) } else { Value::Null }
        };
        Map::from_iter([
            ("prompt_tokens".into(), self.prompt_tokens.into()),
            ("reused_prompt_tokens".into(), self.reused_tokens.into()),
            ("prompt_tokens_per_s".into(), per_second(self.prompt_tokens, self.prompt_time)),
            ("generated_tokens".into(), self.generated_tokens.into()),
            ("generated_tokens_per_s".into(), per_second(self.generated_tokens, self.generate_time)),
            ("threads".into(), self.threads.into()),
            ("implementation".into(), self.implementation.clone().into()),
        ])
    }
}
