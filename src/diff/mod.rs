//! What differs between two results or recipes, where it begins, and what merely follows from it. Reads bytes from
//! stores; knows no terminal and no network.

mod condition;
mod detail;
mod numbers;
mod page;
mod report;
mod score;
mod side;
mod structure;
mod tensors;
mod text;
mod trace;

use pipe_store::{Digest, StoreError};
use serde::Serialize;

pub use condition::{Condition, ConditionError, Judged, judge};
pub use detail::{Detail, JsonDiff};
pub use numbers::Numbers;
pub use page::page;
pub use report::render;
pub use score::{ScoreChange, Scores};
pub use side::{Kind, Side};
pub use structure::causal_order;
pub use tensors::{TensorDiff, TensorsDiff};
pub use text::{AnswerDiff, Distributions, PromptDiff, Token};
pub use trace::{TraceDiff, TracedDiff};

use crate::key::Change;
use crate::ops::{Device, OpError};

/// What differs.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    pub a: Named,
    pub b: Named,
    pub same: bool,
    /// Where it begins, in causal order.
    pub first: Option<First>,
    /// Of the pipeline itself: its name.
    pub pipeline: Vec<Change>,
    /// How many steps were compared.
    pub compared: usize,
    /// Steps that differ, in causal order.
    pub steps: Vec<StepDiff>,
    /// Every score of the whole that both have, changed or not.
    pub scores: Vec<ScoreChange>,
    /// The bundles have other bytes, and yet none of what is compared here differs.
    pub unexplained: bool,
}

/// A side, by name.
#[derive(Clone, Debug, Serialize)]
pub struct Named {
    pub name: String,
    pub kind: Kind,
    pub cid: Option<String>,
}

/// The first difference in causal order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct First {
    /// None: the pipeline itself.
    pub step: Option<String>,
    pub what: String,
}

/// On which sides a step or an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    Both,
    OnlyA,
    OnlyB,
}

/// Why a step differs by itself, not by what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The recipe says something else.
    Fields,
    /// Only one recipe has the step.
    Presence,
    /// The local file it names has other contents.
    Contents,
    /// The same recipe and inputs have another key: another version of what the op does.
    Version,
    /// One key, other bytes: the step is not deterministic, or one of the two is not what it says.
    OtherBytes,
}

/// A step that differs.
#[derive(Clone, Debug, Serialize)]
pub struct StepDiff {
    pub step: String,
    pub op: String,
    pub on: On,
    /// Empty: it merely follows.
    pub causes: Vec<Cause>,
    /// Recipe fields that differ.
    pub fields: Vec<Change>,
    /// The steps from whose causes this follows.
    pub follows: Vec<String>,
    pub inputs: Vec<InputDiff>,
    /// Outputs that differ.
    pub outputs: Vec<OutputDiff>,
    /// Were the outputs compared? Not those of a recipe.
    pub outputs_known: bool,
}

/// An input with other contents.
#[derive(Clone, Debug, Serialize)]
pub struct InputDiff {
    pub port: String,
    pub name: String,
    pub a: Option<Digest>,
    pub b: Option<Digest>,
}

/// An output with other contents.
#[derive(Clone, Debug, Serialize)]
pub struct OutputDiff {
    pub name: String,
    pub a: Option<Digest>,
    pub b: Option<Digest>,
    /// None where only one side has it.
    pub detail: Option<Detail>,
}

/// The comparison itself could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{step}/{output} of {side}: {message}")]
    Unreadable { step: String, output: String, side: String, message: String },
    #[error("the distribution where the texts of step `{step}` part: {source}")]
    Distribution { step: String, source: Box<OpError> },
}

/// Compares two sides. `device` computes the distributions where two answers part.
pub fn diff(a: &Side, b: &Side, device: &Device) -> Result<Diff, DiffError> {
    let named = |side: &Side| Named { name: side.name.clone(), kind: side.kind, cid: side.cid.clone() };
    let pipeline: Vec<Change> = structure::pipeline_fields(a, b);
    let (compared, mut steps) = structure::steps(a, b);
    let scores = score::whole(a, b)?;
    for step in &mut steps {
        for output in &mut step.outputs {
            if let (Some(x), Some(y)) = (output.a, output.b) {
                output.detail = Some(detail::detail(&step.step, &output.name, [&x, &y], [a, b], device)?);
            }
        }
    }
    let first = structure::first(&pipeline, &steps);
    let found = !pipeline.is_empty() || !steps.is_empty();
    let unexplained = !found && a.cid.is_some() && b.cid.is_some() && a.cid != b.cid;
    let same = !found && !unexplained;
    Ok(Diff { a: named(a), b: named(b), same, first, pipeline, compared, steps, scores, unexplained })
}
