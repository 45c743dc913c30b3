//! The card: what was measured of each version, as plain data.

use std::collections::BTreeMap;

use pipe_kernels::Spec;
use pipe_store::Digest;
use serde::{Deserialize, Serialize};

use super::fidelity::Fidelity;
use super::memory::Memory;
use super::pareto::{self, Point};
use crate::run::Facts;

/// Every version of a model's arithmetic, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    pub model: String,
    /// The model's files.
    pub files: BTreeMap<String, Digest>,
    pub text: TextFacts,
    pub prompt: usize,
    #[serde(rename = "gen")]
    pub generate: usize,
    pub reps: usize,
    /// Where the speeds were measured; no other figure depends on it but memory.
    pub facts: Facts,
    /// Which speed and which fidelity the front is of.
    pub by: By,
    pub against: Against,
    pub specs: Vec<Row>,
}

/// The text that fidelity was judged over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextFacts {
    pub name: String,
    pub blake3: Digest,
    /// Positions, over all windows.
    pub positions: usize,
    /// Longest window, in tokens.
    pub window: usize,
}

/// One version.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub spec: Spec,
    pub prefill_tokens_per_s: f64,
    pub decode_tokens_per_s: f64,
    /// Of the packed weights: what is kept and mapped.
    pub weights_bytes: u64,
    /// Of the weights one decoded token reads.
    pub bytes_per_token: u64,
    /// None where the system does not tell.
    pub memory: Option<Memory>,
    /// Against f32 computing with the very weights this version has: what its arithmetic adds.
    pub same_weights: Fidelity,
    /// Against f32 with the weights as the model stores them: what narrowing them costs, too.
    pub stored_weights: Fidelity,
    /// No other version is at least as good in speed, fidelity and bytes of weights, and better in one.
    pub pareto: bool,
}

/// A speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    Decode,
    Prefill,
}

/// A reference: f32 with which weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    Same,
    Stored,
}

impl By {
    pub const NAMES: [&str; 2] = ["decode", "prefill"];

    pub fn named(name: &str) -> Option<Self> {
        [By::Decode, By::Prefill].into_iter().find(|by| by.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            By::Decode => "decode",
            By::Prefill => "prefill",
        }
    }
}

impl Against {
    pub const NAMES: [&str; 2] = ["same", "stored"];

    pub fn named(name: &str) -> Option<Self> {
        [Against::Same, Against::Stored].into_iter().find(|against| against.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Against::Same => "same",
            Against::Stored => "stored",
        }
    }
}

/// Bytes in at most three digits, powers of 1000.
pub fn size(bytes: u64) -> String {
    let b = bytes as f64;
    match bytes {
        0..1_000_000 => format!("{:.0} kB", b / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", b / 1e6),
        _ => format!("{:.1} GB", b / 1e9),
    }
}

impl Row {
    pub fn speed(&self, by: By) -> f64 {
        match by {
            By::Decode => self.decode_tokens_per_s,
            By::Prefill => self.prefill_tokens_per_s,
        }
    }

    pub fn fidelity(&self, against: Against) -> &Fidelity {
        match against {
            Against::Same => &self.same_weights,
            Against::Stored => &self.stored_weights,
        }
    }

    pub fn point(&self, by: By, against: Against) -> Point {
        Point { speed: self.speed(by), kl: self.fidelity(against).mean_kl, bytes: self.weights_bytes }
    }
}

impl Card {
    /// Marks the rows on the front.
    pub fn mark(mut self) -> Self {
        let points: Vec<_> = self.specs.iter().map(|row| row.point(self.by, self.against)).collect();
        for (row, on) in self.specs.iter_mut().zip(pareto::front(&points)) {
            row.pareto = on;
        }
        self
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A card with these (spec, prefill, decode, bytes, KL on the same weights, KL against the stored ones).
    pub fn card(rows: &[(Spec, f64, f64, u64, f64, f64)]) -> Card {
        let fidelity = |mean_kl| Fidelity { mean_kl, max_kl: mean_kl, top1_agreement: 100.0, positions: 1 };
        let row = |&(spec, prefill_tokens_per_s, decode_tokens_per_s, weights_bytes, same, stored)| Row {
            spec,
            prefill_tokens_per_s,
            decode_tokens_per_s,
            weights_bytes,
            bytes_per_token: weights_bytes,
            memory: None,
            same_weights: fidelity(same),
            stored_weights: fidelity(stored),
            pareto: false,
        };
        let blake3 = Digest::of(b"text");
        Card {
            model: "toy".into(),
            files: BTreeMap::new(),
            text: TextFacts { name: "pinned".into(), blake3, positions: 1, window: 1 },
            prompt: 128,
            generate: 64,
            reps: 3,
            facts: Facts { implementation: "scalar".into(), threads: 1, ..Facts::default() },
            by: By::Decode,
            against: Against::Same,
            specs: rows.iter().map(row).collect(),
        }
        .mark()
    }

    #[test]
    fn the_front_is_of_the_speed_and_the_fidelity_asked_for() {
        let rows = [
            (Spec::F32, 9.0, 5.0, 400, 0.0, 0.0),
            (Spec::Q8, 3.0, 9.0, 100, 1e-9, 0.1),
            (Spec::Q8A8, 2.0, 9.0, 100, 1e-3, 1e-2),
        ];
        let on = |card: &Card| card.specs.iter().map(|row| row.pareto).collect::<Vec<_>>();
        let card = card(&rows);
        assert_eq!(on(&card), [true, true, false]);
        assert_eq!(on(&Card { against: Against::Stored, ..card.clone() }.mark()), [true, false, true]);
        assert_eq!(on(&Card { by: By::Prefill, against: Against::Stored, ..card }.mark()), [true; 3]);
    }

    #[test]
    fn names_go_both_ways() {
        assert!(By::NAMES.iter().all(|name| By::named(name).is_some_and(|by| by.name() == *name)));
        assert!(Against::NAMES.iter().all(|name| Against::named(name).is_some_and(|a| a.name() == *name)));
    }

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!([150_123, 142_700_000, 13_500_000_000].map(size), ["150 kB", "143 MB", "13.5 GB"]);
    }

    #[test]
    fn json_gives_back_the_card() {
        let card = card(&[(Spec::F32, 9.0, 5.0, 400, 0.0, 0.0), (Spec::Q8, 3.3, 9.1, 100, 1e-9, 0.1)]);
        let json = serde_json::to_string(&card).unwrap();
        assert!(json.contains(r#""spec":"q8@1""#) && json.contains(r#""memory":null"#), "{json}");
        assert_eq!(serde_json::from_str::<Card>(&json).unwrap(), card);
    }
}
