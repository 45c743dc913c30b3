//! The names of the exact definitions of arithmetic. What they mean is in docs/NUMERICS.md; who computes them, in
//! `cpu`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::matrix::Format;
use crate::weights::TensorType;

/// One exact definition of every block's arithmetic. They differ in the products with weights; attention, norms
/// and the elementwise blocks are those of f32@1 in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Spec {
    /// Accuracy, the judge: weights and activations in f32.
    #[serde(rename = "f32@1")]
    F32,
    /// Weights in 8 bits, activations in 16.
    #[serde(rename = "q8@1")]
    Q8,
    /// Memory: weights in 4 bits, activations in 16.
    #[serde(rename = "q4@1")]
    Q4,
    /// Weights and activations in 8 bits.
    #[serde(rename = "q8a8@1")]
    Q8A8,
    /// Weights in 4 bits, activations in 8.
    #[serde(rename = "q4a8@1")]
    Q4A8,
}

/// The width a model's matrices are packed in. Specs that differ in their activations alone share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Width {
    /// As floats: 32 bits, or 16 where the file has 16.
    F32,
    Q8,
    Q4,
}

/// How a product takes its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activations {
    F32,
    /// Blocks of 32, each with a scale: 16-bit integers.
    A16,
    /// The same in 8 bits.
    A8,
}

impl Spec {
    pub const ALL: [Spec; 5] = [Spec::F32, Spec::Q8, Spec::Q4, Spec::Q8A8, Spec::Q4A8];

    /// Short name, as a recipe writes it.
    pub fn name(self) -> &'static str {
        self.id().trim_end_matches("@1")
    }

    /// Name and version, as a key holds it.
    pub fn id(self) -> &'static str {
        match self {
            Spec::F32 => "f32@1",
            Spec::Q8 => "q8@1",
            Spec::Q4 => "q4@1",
            Spec::Q8A8 => "q8a8@1",
            Spec::Q4A8 => "q4a8@1",
        }
    }

    /// What its weights are packed in.
    pub fn width(self) -> Width {
        match self {
            Spec::F32 => Width::F32,
            Spec::Q8 | Spec::Q8A8 => Width::Q8,
            Spec::Q4 | Spec::Q4A8 => Width::Q4,
        }
    }

    pub(crate) fn activations(self) -> Activations {
        match self {
            Spec::F32 => Activations::F32,
            Spec::Q8 | Spec::Q4 => Activations::A16,
            Spec::Q8A8 | Spec::Q4A8 => Activations::A8,
        }
    }
}

impl Width {
    pub const ALL: [Width; 3] = [Width::F32, Width::Q8, Width::Q4];

    pub fn name(self) -> &'static str {
        match self {
            Width::F32 => "f32",
            Width::Q8 => "q8",
            Width::Q4 => "q4",
        }
    }

    /// The format of a matrix whose parts a file stores as `types`; `head` says that it is the embedding or the
    /// lm_head.
    ///
    /// Weights that a file keeps in blocks of the wanted width go over bit by bit; others are dequantised and
    /// quantised again. Under 4 bits a matrix that its file keeps in blocks of more stays at 8: its maker had a
    /// reason; and the embedding of a model of floats gets 8 bits, since it is what 4 bits hurt most.
    pub(crate) fn format(self, types: &[TensorType], head: bool) -> Format {
        let all = |ty: TensorType| types.iter().all(|&t| t == ty);
        let floats = |t: &TensorType| matches!(t, TensorType::F32 | TensorType::F16 | TensorType::BF16);
        // Bits a weight takes, its share of scale and minimum included.
        let four = |t: &TensorType| t.row_bytes(256).is_some_and(|bytes| bytes * 8 <= 5 * 256);
        match self {
            Width::F32 if all(TensorType::F16) => Format::F16,
            Width::F32 if all(TensorType::BF16) => Format::Bf16,
            Width::F32 => Format::F32,
            Width::Q8 => Format::Q8,
            Width::Q4 if all(TensorType::Q4_0) => Format::Q4,
            Width::Q4 if head && types.iter().any(floats) => Format::Q8,
            Width::Q4 if types.iter().all(|t| floats(t) || four(t)) => Format::Q4Min,
            Width::Q4 => Format::Q8,
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Spec {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Spec::ALL.into_iter().find(|spec| spec.name() == s || spec.id() == s).ok_or(())
    }
}

impl FromStr for Width {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Width::ALL.into_iter().find(|width| width.name() == s).ok_or(())
    }
}
