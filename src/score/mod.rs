//! Scores of an inference: fitness, beauty, relevance, each with its parts; what `scores.json` holds, and how fitness
//! is computed. Knows no store, no engine and no terminal.
//!
//! Metrics that have a name in EleutherAI's lm-evaluation-harness (0.4.13) are computed as it does, from
//! log-likelihoods of our own. All add up in order and use our own exp and ln.

mod aggregate;
mod document;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use aggregate::{Bootstrap, Metrics, fitness_of_all};
pub use document::{Content, Document, Measured, fitness};
pub use text::{Matching, contains, exact_match, is_space, words};

/// The artifact `scores.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The infer step.
    pub of: String,
    pub spec: String,
    /// Over all prompts.
    pub scores: Three,
    pub prompts: Vec<PromptScores>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptScores {
    /// Of the prompt; of the question, if its choices are prompts of their own.
    pub id: String,
    pub scores: Three,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Three {
    /// Accuracy: how right the answer is.
    pub fitness: Score,
    /// Interpretability: how little of the model explains the answer.
    pub beauty: Score,
    /// Importance: how much what was looked at matters.
    pub relevance: Score,
}

/// A number in [0, 1], or why there is none, with what it is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub value: Option<f64>,
    pub parts: Parts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// By name. What each is stands in the README.
pub type Parts = BTreeMap<String, Value>;

impl Score {
    pub fn none(reason: impl Into<String>) -> Self {
        Score { reason: Some(reason.into()), ..Score::default() }
    }
}

/// Mean of the values that are there; none if there are none.
pub fn mean_value<'a>(scores: impl IntoIterator<Item = &'a Score>) -> Option<f64> {
    let values: Vec<f64> = scores.into_iter().filter_map(|score| score.value).collect();
    (!values.is_empty()).then(|| aggregate::mean(&values))
}
