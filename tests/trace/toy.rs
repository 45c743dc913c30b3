//! The toy model, packed, with ways to damage it; and answers drawn from it with the library's parts.

use std::sync::LazyLock;

use pipe::model::{Bytes, Model, ModelFile};
use pipe::recipe::op::TraceLevel;
use pipe::trace::verify::{self, Check, Claim, Verified};
use pipe::trace::{Collector, Layout, Part, Spool, Trace};
use pipe_kernels::{
    Engine, Implementation, KvCache, Logits, PackedModel, Sampler, Slice, Spec, Tap, Want, Width, pack,
};
use pipe_store::{Digest, Store, StoreError};
use safetensors::SafeTensors;

pub static PACKED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let bytes = include_bytes!("../../pipelines/tiny.gguf");
    let model = Model::open(&[ModelFile::new("tiny.gguf", Bytes::new(bytes.to_vec()))]).unwrap();
    let mut packed = Vec::new();
    pack(&model.weights().unwrap(), &model.geometry(), Width::F32.into(), &mut packed).unwrap();
    packed
});

/// The toy as it is.
pub fn model() -> PackedModel<'static> {
    PackedModel::open(&PACKED, Spec::F32).unwrap()
}

pub fn engine(threads: usize) -> Engine {
    Engine::new(threads, Implementation::detect()).unwrap()
}

/// Some tokens of the toy's vocabulary.
pub fn tokens(seed: u32, count: u32) -> Vec<u32> {
    (0..count).map(|i| (seed * 97 + i * i * 7 + i * 13 + 3) % 320).collect()
}

/// How answers are drawn.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub level: TraceLevel,
    pub sampler: Sampler,
    /// Prompt tokens a pass.
    pub chunk: usize,
    pub max_tokens: usize,
}

impl Default for How {
    fn default() -> Self {
        How { level: TraceLevel::Blocks, sampler: Sampler::Greedy, chunk: 16, max_tokens: 12 }
    }
}

/// What a step would leave.
#[derive(Clone)]
pub struct Run {
    pub prompts: Vec<Vec<u32>>,
    pub answers: Vec<Vec<u32>>,
    pub trace: Vec<u8>,
    pub roots: Vec<Digest>,
    /// Of the last prompt position.
    pub logits: Vec<Vec<u8>>,
}

/// Draws answers to prompts, all of them side by side, from the model that `model_at` gives for each pass, told
/// the longest position it begins with.
pub fn run<'m>(
    engine: &Engine,
    model_at: &dyn Fn(usize) -> PackedModel<'m>,
    prompts: &[Vec<u32>],
    how: How,
) -> Run {
    let geometry = model_at(0).geometry;
    let layout = Layout::new(how.level, &geometry);
    let (store, record) = (Store::memory(), layout.kept_bytes());
    let spool = (record > 0).then(|| Spool::new(Some(store.stage().unwrap()), record));
    let mut collector = Collector::new(layout, prompts.len(), spool);
    let mut all: Vec<Vec<u32>> = prompts.to_vec();
    let mut caches: Vec<KvCache> = prompts.iter().map(|_| KvCache::new(&geometry)).collect();
    let mut logits = Logits::new();
    let mut kept: Vec<Vec<u8>> = vec![Vec::new(); prompts.len()];
    loop {
        let (mut parts, mut batch) = (Vec::new(), Vec::new());
        for (prompt, (tokens, cache)) in all.iter().zip(&mut caches).enumerate() {
            let start = cache.len();
            let given = prompts[prompt].len();
            let done = tokens.len() == given + how.max_tokens && start >= given && start + 1 >= tokens.len();
            let tokens = &tokens[start..(start + how.chunk).min(tokens.len())];
            if !done && !tokens.is_empty() {
                parts.push(Part { prompt, start, count: tokens.len() });
                batch.push(Slice { cache, tokens, want: Want::Last });
            }
        }
        let Some(longest) = parts.iter().map(|part| part.start).max() else { break };
        let model = model_at(longest);
        let forward = |tap: Tap<'_>| -> Result<(), StoreError> {
            engine.observed(&model, &mut batch, &mut logits, Some(tap)).unwrap();
            Ok(())
        };
        collector.observe(&parts, forward).unwrap();
        for (row, part) in parts.iter().enumerate() {
            let (tokens, end) = (&mut all[part.prompt], part.start + part.count);
            if end == prompts[part.prompt].len() {
                kept[part.prompt] = logits.row(row).iter().flat_map(|x| x.to_le_bytes()).collect();
            }
            if end == tokens.len() && end < prompts[part.prompt].len() + how.max_tokens {
                tokens.push(how.sampler.choose(logits.row(row), end as u64).unwrap());
            }
        }
    }
    let roots = all.iter().enumerate().map(|(i, tokens)| collector.root(i, tokens.iter().copied())).collect();
    let mut trace = Vec::new();
    collector.write(&mut trace, "f32@1", &all).unwrap();
    let answers = all.iter().zip(prompts).map(|(all, prompt)| all[prompt.len()..].to_vec()).collect();
    Run { prompts: prompts.to_vec(), answers, trace, roots, logits: kept }
}

impl Run {
    /// What is claimed, as `pipe verify` would read it from the artifacts.
    pub fn claims(&self) -> Vec<Claim<'_>> {
        let claim = |i: usize| Claim {
            id: "a prompt",
            prompt: &self.prompts[i],
            generated: &self.answers[i],
            computed: self.prompts[i].len() + self.answers[i].len().saturating_sub(1),
            root: self.roots[i],
            logits: Some(&self.logits[i]),
            log_likelihood: None,
        };
        (0..self.prompts.len()).map(claim).collect()
    }

    /// Checks it with a model that is assumed to be right.
    pub fn verify(&self, engine: &Engine, model: &PackedModel<'_>, sampler: &Sampler) -> Verified {
        let trace = Trace::open(&self.trace).unwrap();
        let check = Check { engine, model, sampler, trace: &trace, progress: &|_, _| () };
        verify::verify(&check, &self.claims()).unwrap()
    }

    /// Where in the trace's bytes the digest of a row begins.
    pub fn digest_at(&self, prompt: usize, position: usize, slot: usize) -> usize {
        let file = SafeTensors::deserialize(&self.trace).unwrap();
        let tensor = file.tensor(&format!("{prompt}/digests")).unwrap();
        let [_, blocks, 32] = tensor.shape()[..] else { panic!() };
        let start = tensor.data().as_ptr() as usize - self.trace.as_ptr() as usize;
        start + (position * blocks + slot) * 32
    }
}
