//! One pass over a transcript with everything written down: the rows that features, checks and attributions are
//! made from. Knows what is kept, not what it is for.

use std::sync::{Mutex, PoisonError};

use pipe_kernels::{
    Block, BlockOutput, Geometry, Half, KvCache, Logits, PackedModel, Slice, Tap, Want, attention_weights,
    math, oracle,
};

use super::{InsideError, Look, Token, Transcript};
use crate::features::row::{l0, sparsity};
use crate::features::token::{Distribution, distribution};

/// How many of the likeliest next tokens are kept of each position.
pub const LIKELIEST: usize = 64;
/// Positions of a pass whose logits are all wanted, a vocabulary of floats each.
const CHUNK: usize = 64;
/// A gate's unit counts as open above this share of the row's RMS.
pub const GATE_RATIO: f64 = 0.1;

/// Rows of one width, for consecutive positions.
#[derive(Clone, Debug)]
pub struct Rows {
    first: usize,
    width: usize,
    data: Vec<f32>,
}

impl Rows {
    fn new(first: usize, end: usize, width: usize) -> Self {
        Rows { first, width, data: vec![0.0; (end - first) * width] }
    }

    pub fn at(&self, position: usize) -> &[f32] {
        let start = (position - self.first) * self.width;
        &self.data[start..start + self.width]
    }

    pub fn at_mut(&mut self, position: usize) -> &mut [f32] {
        let start = (position - self.first) * self.width;
        &mut self.data[start..start + self.width]
    }

    /// Mean over the positions, each element summed in f64 in order of position.
    pub fn mean(&self) -> Vec<f32> {
        let rows = (self.data.len() / self.width).max(1) as f64;
        let sum = |i: usize| self.data.chunks_exact(self.width).fold(0.0, |sum, row| sum + f64::from(row[i]));
        (0..self.width).map(|i| (sum(i) / rows) as f32).collect()
    }
}

/// What a layer gave.
#[derive(Clone, Debug)]
pub struct LayerRows {
    /// Rotated queries, in the window; rotated keys and values from position 0 on.
    pub q: Rows,
    pub k: Rows,
    pub v: Rows,
    pub context: Rows,
    pub o_proj: Rows,
    /// The stream between the halves, and after the layer.
    pub middle: Rows,
    pub hidden: Rows,
    pub down: Rows,
    pub stream: Rows,
    /// Of silu(gate), for each position of the window.
    pub gate_sparsity: Vec<f64>,
    pub gate_l0: Vec<f64>,
}

/// What the model makes of a position.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// How it sees the token that comes next, if one does.
    pub next: Option<Distribution>,
    /// The likeliest tokens, likeliest first, and their logits.
    pub likeliest: Vec<u32>,
    pub logits: Vec<f32>,
}

/// The token an answer has at a position, and the one that the rule chooses there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub position: usize,
    pub chosen: u32,
    pub found: u32,
}

pub struct Record {
    pub g: Geometry,
    /// The tokens that went through the model.
    pub fed: Vec<u32>,
    /// First position of the window, which ends with `fed`.
    pub start: usize,
    pub prompt: usize,
    pub embed: Rows,
    pub layers: Vec<LayerRows>,
    /// For each position of the window.
    pub predictions: Vec<Prediction>,
    pub choices: Vec<Choice>,
    /// What the sequence left behind.
    pub cache: KvCache,
    targets: std::ops::Range<usize>,
}

impl Record {
    /// Sends the transcript through the model.
    pub fn make(look: &Look<'_>, transcript: &Transcript<'_>) -> Result<Self, InsideError> {
        let g = look.model.geometry;
        let fed = transcript.fed();
        let (end, prompt) = (fed.len(), transcript.prompt.len());
        let start = end.saturating_sub(look.options.window.max(1));
        let layer = |_| LayerRows {
            q: Rows::new(start, end, g.heads * g.head_dim),
            k: Rows::new(0, end, g.kv_heads * g.head_dim),
            v: Rows::new(0, end, g.kv_heads * g.head_dim),
            context: Rows::new(start, end, g.heads * g.head_dim),
            o_proj: Rows::new(start, end, g.width),
            middle: Rows::new(start, end, g.width),
            hidden: Rows::new(start, end, g.ffn),
            down: Rows::new(start, end, g.width),
            stream: Rows::new(start, end, g.width),
            gate_sparsity: vec![0.0; end - start],
            gate_l0: vec![0.0; end - start],
        };
        let first_target = (prompt - 1).max(start);
        let mut record = Record {
            g,
            start,
            prompt,
            embed: Rows::new(start, end, g.width),
            layers: (0..g.layers).map(layer).collect(),
            predictions: Vec::with_capacity(end - start),
            choices: Vec::new(),
            cache: KvCache::new(&g),
            targets: first_target..end.min(first_target + look.options.targets.max(1)),
            fed,
        };
        record.pass(look, transcript)?;
        Ok(record)
    }

    fn pass(&mut self, look: &Look<'_>, transcript: &Transcript<'_>) -> Result<(), InsideError> {
        let mut cache = KvCache::new(&self.g);
        let mut logits = Logits::new();
        let fed = std::mem::take(&mut self.fed);
        let (before, within) = fed.split_at(self.start);
        let chunks = before.chunks(512).map(|c| (c, Want::None));
        let chunks = chunks.chain(within.chunks(CHUNK).map(|c| (c, Want::All)));
        for (tokens, want) in chunks {
            let first = cache.len();
            let this = Mutex::new(&mut *self);
            let see = |output: BlockOutput<'_>| {
                this.lock().unwrap_or_else(PoisonError::into_inner).see(&output);
            };
            let slice = Slice { cache: &mut cache, tokens, want };
            let tap = Tap { wants: &wanted, see: &see };
            look.engine.observed(look.model, &mut [slice], &mut logits, Some(tap))?;
            for (i, row) in logits.rows().enumerate() {
                self.predict(look, transcript, first + i, row)?;
            }
            look.passed(tokens.len())?;
        }
        self.fed = fed;
        self.cache = cache;
        Ok(())
    }

    /// Takes some rows of a block.
    fn see(&mut self, output: &BlockOutput<'_>) {
        let (heads, kv) = (self.g.heads * self.g.head_dim, self.g.kv_heads * self.g.head_dim);
        for (place, row) in output.rows() {
            let p = place.position;
            let inside = p >= self.start;
            match output.block {
                Block::Qkv { layer } => {
                    self.layers[layer as usize].v.at_mut(p).copy_from_slice(&row[heads + kv..])
                }
                Block::Rope { layer } => {
                    let layer = &mut self.layers[layer as usize];
                    layer.k.at_mut(p).copy_from_slice(&row[heads..]);
                    if inside {
                        layer.q.at_mut(p).copy_from_slice(&row[..heads]);
                    }
                }
                _ if !inside => {}
                Block::Embed => self.embed.at_mut(p).copy_from_slice(row),
                Block::GateUp { layer } => {
                    let gate: Vec<f32> = row[..self.g.ffn].iter().map(|&x| math::silu(x)).collect();
                    let layer = &mut self.layers[layer as usize];
                    layer.gate_sparsity[p - self.start] = sparsity(&gate, GATE_RATIO);
                    layer.gate_l0[p - self.start] = l0(&gate, GATE_RATIO) as f64;
                }
                block => {
                    let Some(layer) = block.layer() else { continue };
                    let layer = &mut self.layers[layer as usize];
                    let rows = match block {
                        Block::Attention { .. } => &mut layer.context,
                        Block::OProj { .. } => &mut layer.o_proj,
                        Block::Residual { half: Half::Attention, .. } => &mut layer.middle,
                        Block::SwiGlu { .. } => &mut layer.hidden,
                        Block::Down { .. } => &mut layer.down,
                        _ => &mut layer.stream,
                    };
                    rows.at_mut(p).copy_from_slice(row);
                }
            }
        }
    }

    fn predict(
        &mut self,
        look: &Look<'_>,
        transcript: &Transcript<'_>,
        position: usize,
        logits: &[f32],
    ) -> Result<(), InsideError> {
        let next = transcript.token(position + 1);
        if let Some(found) = next.filter(|_| position + 1 >= self.prompt) {
            let chosen = look.sampler.choose(logits, position as u64 + 1)?;
            self.choices.push(Choice { position: position + 1, chosen, found });
        }
        let next = next.map(|token| distribution(logits, token)).transpose()?;
        let likeliest = likeliest(logits);
        let kept = likeliest.iter().map(|&token| logits[token as usize]).collect();
        self.predictions.push(Prediction { next, likeliest, logits: kept });
        Ok(())
    }

    /// One past the last position.
    pub fn end(&self) -> usize {
        self.fed.len()
    }

    pub fn window(&self) -> std::ops::Range<usize> {
        self.start..self.end()
    }

    pub fn prediction(&self, position: usize) -> &Prediction {
        &self.predictions[position - self.start]
    }

    /// The positions whose next tokens are the answer's: causes are looked for there.
    pub fn targets(&self) -> std::ops::Range<usize> {
        self.targets.clone()
    }

    /// The stream that enters a layer.
    pub fn before(&self, layer: usize) -> &Rows {
        layer.checked_sub(1).map_or(&self.embed, |before| &self.layers[before].stream)
    }

    /// The stream that the head sees.
    pub fn last(&self) -> &Rows {
        self.before(self.layers.len())
    }

    /// What the heads of a layer pay to the positions from 0 to `position`, `[heads][position + 1]`.
    pub fn weights(&self, layer: usize, position: usize) -> Vec<f32> {
        attention_weights(&self.cache, layer, self.layers[layer].q.at(position), position)
    }

    /// A head's rotated query at a position, and the rotated keys up to there.
    pub fn query(
        &self,
        layer: usize,
        head: usize,
        position: usize,
    ) -> (&[f32], impl Iterator<Item = &[f32]>) {
        let (dim, rows) = (self.g.head_dim, &self.layers[layer]);
        let at = head / (self.g.heads / self.g.kv_heads) * dim;
        let q = &rows.q.at(position)[head * dim..(head + 1) * dim];
        (q, (0..=position).map(move |p| &rows.k.at(p)[at..at + dim]))
    }

    /// The transcript for people.
    pub fn tokens(&self, look: &Look<'_>, transcript: &Transcript<'_>) -> Vec<Token> {
        let ids = transcript.prompt.iter().chain(transcript.answer);
        let token = |(position, &id): (usize, &u32)| {
            let before = position.checked_sub(1).filter(|p| self.window().contains(p));
            Token {
                id,
                text: (look.piece)(id),
                generated: position >= self.prompt,
                prediction: before.and_then(|p| self.prediction(p).next),
            }
        };
        ids.enumerate().map(token).collect()
    }
}

fn wanted(block: Block) -> bool {
    !matches!(block, Block::RmsNorm { .. } | Block::FinalNorm | Block::LmHead | Block::Sample)
}

/// The tokens with the largest logits, largest first, equal ones by lower index.
fn likeliest(logits: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if order.len() > LIKELIEST {
        order.select_nth_unstable_by(LIKELIEST, by);
        order.truncate(LIKELIEST);
    }
    order.sort_unstable_by(by);
    order
}

/// What [`oracle::logits_of`] gives for a position's likeliest tokens from a row of the stream.
pub fn logits_from(model: &PackedModel<'_>, stream: &[f32], tokens: &[u32]) -> Vec<f32> {
    let tokens: Vec<usize> = tokens.iter().map(|&t| t as usize).collect();
    oracle::logits_of(model, stream, &tokens)
}
