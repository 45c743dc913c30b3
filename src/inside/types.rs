//! What an introspection says, as plain data: JSON of `introspection.json`. Knows nothing of how it was found.

use serde::{Deserialize, Serialize};

use super::Component;
use crate::features::token::Distribution;

/// First field of the artifact; a change of its shape changes the version.
pub const FORMAT: &str = "pipe/introspection@1";

/// The artifact `introspection.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Introspection {
    pub format: String,
    /// `f32@1`
    pub spec: String,
    /// Did every check of every prompt pass?
    pub sound: bool,
    pub prompts: Vec<Inside>,
}

/// What is inside the answer to one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inside {
    pub id: String,
    pub prompt_tokens: usize,
    /// Elements of the residual stream.
    pub width: usize,
    /// The positions whose inside is described.
    pub window: Window,
    /// The whole transcript.
    pub tokens: Vec<Token>,
    /// exp of the mean −ln p of the window's tokens, of the prompt and of the answer; None where there are none.
    pub prompt_perplexity: Option<f64>,
    pub answer_perplexity: Option<f64>,
    pub layers: Vec<Layer>,
    /// Layer by layer.
    pub heads: Vec<Head>,
    /// Weights of the heads that matter most.
    pub attention: Vec<AttentionMap>,
    pub lens: Lens,
    pub attribution: Attribution,
    /// None when the recipe asks for no causes.
    pub relevance: Option<Relevance>,
    pub beauty: Option<Beauty>,
    /// The layers after which the answer's tokens are first on the lens to stay.
    pub deciding: Vec<Deciding>,
    pub unusual: Vec<Unusual>,
    pub checks: Vec<Check>,
}

/// Positions `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub start: usize,
    pub end: usize,
}

/// A token of the transcript, and what the model thought of it before it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Token {
    pub id: u32,
    pub text: String,
    /// Of the answer, rather than of the prompt?
    pub generated: bool,
    /// None for the first token, and before the window.
    pub prediction: Option<Distribution>,
}

/// Mean and standard deviation over the window's positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    pub mean: f64,
    pub std: f64,
}

/// Features of a layer's rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    pub layer: usize,
    /// Of the residual stream after the layer.
    pub rms: Stat,
    pub outlier_ratio: Stat,
    pub kurtosis: Stat,
    /// RMS of what attention and the feed-forward network add.
    pub attention_rms: Stat,
    pub ffn_rms: Stat,
    /// Cosine of the stream before and after the layer.
    pub cosine: Stat,
    /// Of silu(gate): share of units at most a tenth of their RMS, and how many are above.
    pub gate_sparsity: Stat,
    pub gate_l0: Stat,
    /// Of the stream over the window's last 64 positions.
    pub effective_rank: f64,
    /// Hidden units that stay below a thousandth of the layer's RMS at all of the window's positions.
    pub dead_units: usize,
    /// RMS of the stream at each of the window's positions.
    pub rms_at: Vec<f64>,
}

/// Features of a head's attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    pub layer: usize,
    pub head: usize,
    pub entropy: Stat,
    pub renyi2: Stat,
    pub sink: Stat,
    pub previous: Stat,
    pub duplicate: Stat,
    pub induction: Stat,
    /// What it mostly does.
    pub role: Role,
}

/// What more than half of a head's attention goes to, on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Sink,
    PreviousToken,
    DuplicateToken,
    Induction,
    Mixed,
}

/// A head's weights over a window of positions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionMap {
    pub layer: usize,
    pub head: usize,
    /// Position of the first row.
    pub start: usize,
    /// Each over the positions from 0 to its own.
    pub rows: Vec<Vec<f32>>,
}

/// The logit lens: what the final norm and head would make of the stream after each layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lens {
    /// The positions looked at.
    pub positions: Vec<usize>,
    /// The token that the model itself puts first after each of them.
    pub tokens: Vec<u32>,
    pub texts: Vec<String>,
    /// How many of the final distribution's likeliest tokens the lens compares.
    pub among: usize,
    /// Row 0 is the embedding, row n the stream after layer n − 1. All over the positions.
    pub rank: Vec<Vec<usize>>,
    /// Entropy in nats.
    pub entropy: Vec<Vec<f64>>,
    /// KL(final ‖ lens) in nats.
    pub kl: Vec<Vec<f64>>,
    /// The same over the whole vocabulary, for the rows asked for.
    pub full: Vec<FullLens>,
}

/// One row of the lens over the whole vocabulary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FullLens {
    pub layer: usize,
    pub rank: Vec<usize>,
    pub entropy: Vec<f64>,
    pub kl: Vec<f64>,
}

/// Direct logit attribution: what each part adds to logit(token) − logit(best other), mean over the targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    pub targets: Vec<Target>,
    pub embedding: f64,
    pub components: Vec<Direct>,
    /// The neurons that add or take most.
    pub neurons: Vec<Neuron>,
    /// Largest difference between the sum of all parts and the logits' own difference.
    pub residue: f64,
}

/// A token whose causes are looked for: the one after `position`, against the best other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    pub position: usize,
    pub token: u32,
    pub text: String,
    pub other: u32,
    pub other_text: String,
    /// logit(token) − logit(other)
    pub difference: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Direct {
    pub component: Component,
    pub direct: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neuron {
    pub layer: usize,
    pub neuron: usize,
    pub direct: f64,
}

/// What the answer rests on: KL(p ‖ p with the part ablated), mean over the targets, in nats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Relevance {
    /// 1 − exp(−KL with the whole prompt ablated).
    pub value: f64,
    pub prompt_kl: f64,
    pub components: Vec<Cause>,
    /// One for each prompt token.
    pub tokens: Vec<f64>,
    /// KL with nothing ablated: exactly 0, since the bits are the same.
    pub null: f64,
    /// Spearman's correlation of the causes with |direct logit attribution|.
    pub rank_correlation: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    pub component: Component,
    pub kl: f64,
}

/// How short the smallest faithful explanation is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beauty {
    /// 1 − components of the explanation ÷ all; 0 if it is not sufficient or not comprehensive.
    pub value: f64,
    pub explanation: Vec<Component>,
    pub components: usize,
    /// By which ranking it was found.
    pub ranking: Ranking,
    /// KL with all but the explanation ablated, and whether it is at most `faithful`.
    pub sufficiency: f64,
    pub sufficient: bool,
    /// KL with the explanation ablated, and whether it is more than `faithful`.
    pub comprehensiveness: f64,
    pub comprehensive: bool,
    pub faithful: f64,
    /// Mean share of the layers after which the lens has the final token first, to stay.
    pub commit_depth: f64,
    /// Gini coefficient of |direct logit attribution|.
    pub gini: f64,
    /// Mean share of the layers that do not take the lens further from the end.
    pub monotonicity: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ranking {
    /// |Direct logit attribution|.
    Direct,
    /// KL with the component alone ablated.
    Causal,
}

/// A layer that decides: so many of the looked-at positions have their final token first from it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deciding {
    /// 0 is the embedding, n the layer n − 1.
    pub row: usize,
    pub positions: usize,
}

/// Something out of the ordinary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unusual {
    pub kind: UnusualKind,
    /// Such as `layer.05` or `layer.05/head.3`.
    pub place: String,
    pub value: f64,
    /// What would be ordinary, and where that comes from.
    pub than: f64,
    pub baseline: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnusualKind {
    /// max ÷ RMS of the stream.
    Outlier,
    DeadUnits,
    /// A head that puts nearly all its weight on one position.
    CollapsedAttention,
    /// Another feature, as it is in the baseline.
    Rms,
    Entropy,
}

/// A check of the inside, with what it saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub passed: bool,
    /// How many things were compared.
    pub compared: u64,
    pub evidence: String,
}
