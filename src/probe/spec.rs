//! What a probe is to take, as plain data: part of a step's key.

use serde::{Deserialize, Serialize};

use super::select::Selector;
use crate::features::{head, row};

/// One probe of an `infer` step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    pub at: Vec<Selector>,
    /// Which positions.
    pub tokens: Tokens,
    /// Which of the selected layers.
    pub layers: Layers,
    /// Which elements of a row.
    pub elements: Elements,
    /// Numbers computed from the whole row.
    pub features: Vec<Feature>,
}

/// Which positions a probe takes, of those that go through the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokens {
    #[default]
    All,
    /// The last of the prompt, which the answer's first token is chosen from.
    Last,
    Prompt,
    Answer,
    /// Those whose number is a multiple of this.
    Every(u32),
}

impl Tokens {
    /// Is this position taken, of a transcript whose prompt has so many tokens?
    pub fn takes(self, position: usize, prompt: usize) -> bool {
        match self {
            Tokens::All => true,
            Tokens::Last => position + 1 == prompt,
            Tokens::Prompt => position < prompt,
            Tokens::Answer => position >= prompt,
            Tokens::Every(n) => position.is_multiple_of(n as usize),
        }
    }

    /// Are positions of the prompt taken before its last? Then all of it must go through the model.
    pub fn within_prompt(self) -> bool {
        !matches!(self, Tokens::Last | Tokens::Answer)
    }
}

/// Which of the layers that the selectors name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layers {
    #[default]
    All,
    /// The first of them, and every so many after it.
    Every(u32),
    /// One drawn from each of `n` equal strata.
    Stratified { n: u32, seed: u64 },
}

/// Which elements of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Elements {
    #[default]
    All,
    /// None: the features alone.
    None,
    /// `n` distinct ones, drawn once for rows of one width.
    Reservoir { n: u32, seed: u64 },
    /// The `n` of largest magnitude, row by row.
    Top { n: u32 },
    /// The first, and every so many after it.
    Stride { n: u32 },
    /// The row under a random matrix of ±1/√n with `n` outputs.
    Projection { n: u32, seed: u64 },
}

/// Elements above this times the row's RMS count for [`Feature::L0`] and [`Feature::Sparsity`].
pub const ACTIVE: f64 = 0.1;

/// A number computed from a whole row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    Rms,
    OutlierRatio,
    Kurtosis,
    L0,
    Sparsity,
    // Of attention weights alone.
    Entropy,
    Renyi2,
    SinkMass,
    PreviousToken,
    DuplicateToken,
    Induction,
}

impl Feature {
    pub const ALL: [Feature; 11] = [
        Feature::Rms,
        Feature::OutlierRatio,
        Feature::Kurtosis,
        Feature::L0,
        Feature::Sparsity,
        Feature::Entropy,
        Feature::Renyi2,
        Feature::SinkMass,
        Feature::PreviousToken,
        Feature::DuplicateToken,
        Feature::Induction,
    ];

    /// The name a recipe and the artifact use.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Rms => "rms",
            Feature::OutlierRatio => "outlier_ratio",
            Feature::Kurtosis => "kurtosis",
            Feature::L0 => "l0",
            Feature::Sparsity => "sparsity",
            Feature::Entropy => "entropy",
            Feature::Renyi2 => "renyi2",
            Feature::SinkMass => "sink_mass",
            Feature::PreviousToken => "previous_token",
            Feature::DuplicateToken => "duplicate_token",
            Feature::Induction => "induction",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Feature::ALL.into_iter().find(|feature| feature.name() == name)
    }

    /// Has it a meaning for attention weights alone?
    pub fn of_weights(self) -> bool {
        self >= Feature::Entropy
    }

    /// Of a row; of attention weights, with the transcript at least as far as they see.
    pub(super) fn of(self, x: &[f32], tokens: &[u32]) -> f64 {
        match self {
            Feature::Rms => row::rms(x),
            Feature::OutlierRatio => row::outlier_ratio(x),
            Feature::Kurtosis => row::kurtosis(x),
            Feature::L0 => row::l0(x, ACTIVE) as f64,
            Feature::Sparsity => row::sparsity(x, ACTIVE),
            Feature::Entropy => head::entropy(x),
            Feature::Renyi2 => head::renyi2(x),
            Feature::SinkMass => head::sink_mass(x),
            Feature::PreviousToken => head::previous_token(x),
            Feature::DuplicateToken => head::duplicate_token(x, tokens),
            Feature::Induction => head::induction(x, tokens),
        }
    }
}
