//! The names of the exact definitions of arithmetic. What they mean is in docs/numerics; who computes them, in `cpu`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One exact definition of every block's arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Spec {
    /// Accuracy, the judge: weights and activations in f32.
    #[serde(rename = "f32@1")]
    F32,
}

impl Spec {
    pub const ALL: [Spec; 1] = [Spec::F32];

    /// Short name, as a recipe writes it.
    pub fn name(self) -> &'static str {
        match self {
            Spec::F32 => "f32",
        }
    }

    /// Name and version, as a key holds it.
    pub fn id(self) -> &'static str {
        match self {
            Spec::F32 => "f32@1",
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Spec {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Spec::ALL.into_iter().find(|spec| spec.name() == s || spec.id() == s).ok_or(())
    }
}
