//! Passes in which parts of the model do nothing of their own: what they give is replaced by its mean over the
//! transcript. What changes then was caused by them. Knows no ranking.

use pipe_kernels::{Block, Edit, KvCache, Logits, Place, Slice, Want};

use super::record::Record;
use super::{Component, InsideError, Look};
use crate::features::token::kl;

/// Rows of a pass, over all its variants.
const ROWS: usize = 512;
/// Variants in a pass: each has keys and values of its own.
const VARIANTS: usize = 8;

/// What is ablated.
#[derive(Clone, Debug, PartialEq)]
pub struct Off {
    /// By [`Component::index`].
    components: Vec<bool>,
    /// What is embedded, by position.
    tokens: Vec<Instead>,
}

/// What stands where a token stood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instead {
    /// The token itself.
    Itself,
    Other(u32),
    /// The mean of the window's embeddings.
    Mean,
}

pub struct Ablator<'a> {
    look: &'a Look<'a>,
    record: &'a Record,
    contexts: Vec<Vec<f32>>,
    hidden: Vec<Vec<f32>>,
    embedding: Vec<f32>,
    /// Logits at the targets with nothing ablated.
    whole: Vec<Vec<f32>>,
}

impl<'a> Ablator<'a> {
    pub fn new(look: &'a Look<'a>, record: &'a Record) -> Result<Self, InsideError> {
        let mut ablator = Ablator {
            look,
            record,
            contexts: record.layers.iter().map(|layer| layer.context.mean()).collect(),
            hidden: record.layers.iter().map(|layer| layer.hidden.mean()).collect(),
            embedding: record.embed.mean(),
            whole: Vec::new(),
        };
        let all = ablator.logits(&[ablator.nothing()])?;
        ablator.whole = all.into_iter().flatten().collect();
        Ok(ablator)
    }

    pub fn record(&self) -> &Record {
        self.record
    }

    pub fn faithful(&self) -> f64 {
        self.look.options.faithful
    }

    pub fn nothing(&self) -> Off {
        let g = &self.record.g;
        Off {
            components: vec![false; g.layers * (g.heads + 1)],
            tokens: vec![Instead::Itself; self.record.end()],
        }
    }

    /// These components.
    pub fn components(&self, which: &[Component]) -> Off {
        let mut off = self.nothing();
        which.iter().for_each(|c| off.components[c.index(&self.record.g)] = true);
        off
    }

    /// All components but these.
    pub fn all_but(&self, which: &[Component]) -> Off {
        let mut off = self.components(which);
        off.components.iter_mut().for_each(|off| *off = !*off);
        off
    }

    /// The tokens at these positions.
    pub fn tokens(&self, which: std::ops::Range<usize>, instead: Instead) -> Off {
        let mut off = self.nothing();
        off.tokens[which].fill(instead);
        off
    }

    /// KL(p ‖ p with that ablated) of each variant, mean over the targets, in nats.
    pub fn kl(&self, variants: &[Off]) -> Result<Vec<f64>, InsideError> {
        let mean = |rows: Vec<Vec<f32>>| {
            let mut sum = 0.0;
            for (p, q) in self.whole.iter().zip(&rows) {
                sum += kl(p, q)?;
            }
            Ok::<f64, InsideError>(sum / self.whole.len().max(1) as f64)
        };
        let length = self.record.targets().end.max(1);
        let most = (ROWS / length).clamp(1, VARIANTS);
        let mut all = Vec::with_capacity(variants.len());
        for some in variants.chunks(most) {
            for rows in self.logits(some)? {
                all.push(mean(rows)?);
            }
        }
        Ok(all)
    }

    /// Logits at the targets, variant by variant.
    fn logits(&self, variants: &[Off]) -> Result<Vec<Vec<Vec<f32>>>, InsideError> {
        let g = &self.record.g;
        let targets = self.record.targets();
        let any = |f: &dyn Fn(&Off) -> bool| variants.iter().any(f);
        let heads = |layer: usize| {
            let first = Component::Head { layer, head: 0 }.index(g);
            first..first + g.heads
        };
        let ffn = |layer: usize| Component::Ffn { layer }.index(g);
        let wants = |block| match block {
            Block::Embed => any(&|off| off.tokens.iter().any(|token| *token != Instead::Itself)),
            Block::Attention { layer } => any(&|off| off.components[heads(layer as usize)].contains(&true)),
            Block::SwiGlu { layer } => any(&|off| off.components[ffn(layer as usize)]),
            _ => false,
        };
        let change = |block, place: Place, row: &mut [f32]| {
            let off = &variants[place.sequence];
            match block {
                Block::Embed => match off.tokens[place.position] {
                    Instead::Itself => {}
                    Instead::Other(token) => self.look.model.embed.row(token as usize, row),
                    Instead::Mean => row.copy_from_slice(&self.embedding),
                },
                Block::Attention { layer } => {
                    let layer = layer as usize;
                    for (head, _) in off.components[heads(layer)].iter().enumerate().filter(|(_, off)| **off)
                    {
                        let range = head * g.head_dim..(head + 1) * g.head_dim;
                        row[range.clone()].copy_from_slice(&self.contexts[layer][range]);
                    }
                }
                Block::SwiGlu { layer } if off.components[ffn(layer as usize)] => {
                    row.copy_from_slice(&self.hidden[layer as usize]);
                }
                _ => {}
            }
        };
        let mut caches: Vec<KvCache> = variants.iter().map(|_| KvCache::new(g)).collect();
        let mut logits = Logits::new();
        for (tokens, want) in
            [(&self.record.fed[..targets.start], Want::None), (&self.record.fed[targets.clone()], Want::All)]
        {
            let mut batch: Vec<Slice<'_>> =
                caches.iter_mut().map(|cache| Slice { cache, tokens, want }).collect();
            let edit = Edit { wants: &wants, change: &change };
            self.look.engine.edited(self.look.model, &mut batch, &mut logits, None, Some(edit))?;
            self.look.passed(tokens.len() * variants.len())?;
        }
        let rows: Vec<Vec<f32>> = logits.rows().map(<[f32]>::to_vec).collect();
        Ok(rows.chunks(targets.len()).map(<[Vec<f32>]>::to_vec).collect())
    }
}
