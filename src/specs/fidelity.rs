//! How near one version of a model is to another: the divergence of what they predict at each position, and
//! how often they agree on the likeliest token. Sums run in order and with our own exp and ln, so the figures are
//! the same bits on every machine. Knows no file and no terminal.

use std::sync::atomic::{AtomicBool, Ordering};

use pipe_kernels::math::double;
use pipe_kernels::{ComputeError, Engine, KvCache, Logits, PackedModel, Slice, Want};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Tokens a pass takes: each gives a vocabulary of floats, for each model.
const CHUNK: usize = 64;

/// How a model's predictions differ from the reference's over a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// Mean over the positions of KL(reference ‖ model), in nats.
    pub mean_kl: f64,
    /// The largest of them.
    pub max_kl: f64,
    /// Percent of the positions at which both find the same token likeliest.
    pub top1_agreement: f64,
    pub positions: u64,
}

/// Two rows of logits that cannot be compared. Never a figure: a NaN must not pass for agreement.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RowError {
    #[error("rows of {reference} and {other} logits")]
    Lengths { reference: usize, other: usize },
    #[error("a row without logits")]
    Empty,
    #[error("logit {token} of the {side} is {value}")]
    NotFinite { side: &'static str, token: usize, value: f32 },
}

/// A text that could not be walked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FidelityError {
    #[error("cancelled")]
    Cancelled,
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error("{spec} at position {position} of window {window}: {source}")]
    Row { spec: &'static str, window: usize, position: usize, source: RowError },
    #[error("the text has no tokens")]
    NoTokens,
}

/// Two models to compare, by their places in the list of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub reference: usize,
    pub other: usize,
}

/// What one position says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// KL(reference ‖ other) in nats; never negative.
    pub kl: f64,
    /// Is the likeliest token the same?
    pub agree: bool,
}

/// Walks every window with every model, and compares the pairs at each position. `beat` is told how many
/// positions are done.
pub fn walk(
    engine: &Engine,
    models: &[&PackedModel<'_>],
    pairs: &[Pair],
    windows: &[Vec<u32>],
    cancel: &AtomicBool,
    beat: &dyn Fn(usize),
) -> Result<Vec<Fidelity>, FidelityError> {
    let mut tallies = vec![Tally::default(); pairs.len()];
    let mut logits: Vec<Logits> = models.iter().map(|_| Logits::new()).collect();
    let mut done = 0;
    for (window, tokens) in windows.iter().enumerate() {
        let mut caches: Vec<KvCache> = models.iter().map(|m| KvCache::new(&m.geometry)).collect();
        for (at, chunk) in tokens.chunks(CHUNK).enumerate() {
            for ((model, cache), logits) in models.iter().zip(&mut caches).zip(&mut logits) {
                if cancel.load(Ordering::Relaxed) {
                    return Err(FidelityError::Cancelled);
                }
                engine.forward(model, &mut [Slice { cache, tokens: chunk, want: Want::All }], logits)?;
            }
            for (pair, tally) in pairs.iter().zip(&mut tallies) {
                let row = |i: usize| {
                    compare(logits[pair.reference].row(i), logits[pair.other].row(i)).map_err(|source| {
                        let (spec, position) = (models[pair.other].spec.id(), at * CHUNK + i);
                        FidelityError::Row { spec, window, position, source }
                    })
                };
                let rows: Vec<_> = (0..chunk.len()).into_par_iter().map(row).collect();
                rows.into_iter().try_for_each(|row| row.map(|row| tally.add(row)))?;
            }
            done += chunk.len();
            beat(done);
        }
    }
    tallies.into_iter().map(|tally| tally.finish().ok_or(FidelityError::NoTokens)).collect()
}

#[derive(Clone, Default)]
struct Tally {
    sum: f64,
    max: f64,
    agreeing: u64,
    positions: u64,
}

impl Tally {
    fn add(&mut self, row: Compared) {
        self.sum += row.kl;
        self.max = if row.kl > self.max { row.kl } else { self.max };
        self.agreeing += u64::from(row.agree);
        self.positions += 1;
    }

    fn finish(&self) -> Option<Fidelity> {
        let positions = self.positions as f64;
        (self.positions > 0).then(|| Fidelity {
            mean_kl: self.sum / positions,
            max_kl: self.max,
            top1_agreement: 100.0 * self.agreeing as f64 / positions,
            positions: self.positions,
        })
    }
}

/// One row of logits as a distribution.
struct Softmax {
    /// Index of the largest logit; the lower one wins a tie.
    top: usize,
    ln_sum: f64,
    p: Vec<f64>,
}

impl Softmax {
    fn of(logits: &[f32], side: &'static str) -> Result<Self, RowError> {
        if let Some(token) = logits.iter().position(|l| !l.is_finite()) {
            return Err(RowError::NotFinite { side, token, value: logits[token] });
        }
        let top = (1..logits.len()).fold(0, |top, i| if logits[i] > logits[top] { i } else { top });
        let max = f64::from(*logits.get(top).ok_or(RowError::Empty)?);
        let mut p: Vec<f64> = logits.iter().map(|&l| double::exp(f64::from(l) - max)).collect();
        let sum = p.iter().fold(0.0, |sum, e| sum + e);
        p.iter_mut().for_each(|e| *e /= sum);
        Ok(Softmax { top, ln_sum: max + double::ln(sum), p })
    }
}

/// KL(reference ‖ other) and whether the likeliest token is the same.
pub fn compare(reference: &[f32], other: &[f32]) -> Result<Compared, RowError> {
    if reference.len() != other.len() {
        return Err(RowError::Lengths { reference: reference.len(), other: other.len() });
    }
    let p = Softmax::of(reference, "reference")?;
    let q = Softmax::of(other, "other")?;
    let shift = p.ln_sum - q.ln_sum;
    let pairs = reference.iter().zip(other).zip(p.p.iter().zip(&q.p));
    let kl =
        pairs.fold(0.0, |sum, ((&a, &b), (&p, &q))| sum + term(p, q, (f64::from(a) - f64::from(b)) - shift));
    Ok(Compared { kl, agree: p.top == q.top })
}

/// One token's share of the divergence, `p·d − p + q` with `d = ln p − ln q`: none is negative, and since all p and
/// all q sum to 1 they add up to Σ p·d. Adding the p·d themselves would lose a small divergence in their
/// cancellation: they are of the order of d, their sum of d².
fn term(p: f64, q: f64, d: f64) -> f64 {
    if d.abs() >= 0.02 {
        return (q - p) + p * d;
    }
    // q = p·exp(−d), so the term is p·(exp(−d) − 1 + d): its series, whose next part is below 2^-52 of it.
    let mut series = 1.0;
    for n in (3..=8).rev() {
        series = 1.0 - d / f64::from(n) * series;
    }
    p * (d * d / 2.0) * series
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_divergences() {
        // (1/2, 1/2) against (3/4, 1/4): ln(4/3)/2.
        let half = compare(&[0.0, 0.0], &[3.0f32.ln(), 0.0]).unwrap();
        assert!((half.kl - 0.143_841_036).abs() < 1e-8, "{half:?}");
        assert!(half.agree, "of equals the lower index is first");
        assert!(!compare(&[0.0, 0.0], &[0.0, 1.0]).unwrap().agree);
        // All on one token against all on another, 200 nats apart.
        let far = compare(&[200.0, 0.0], &[0.0, 200.0]).unwrap();
        assert!((far.kl - 200.0).abs() < 1e-9 && !far.agree, "{far:?}");
        // So far apart that exp underflows on both sides.
        let farther = compare(&[3e38, 0.0], &[-3e38, 0.0]).unwrap();
        assert!(farther.kl > 1e38 && farther.kl.is_finite(), "{farther:?}");
    }

    #[test]
    fn a_tiny_divergence_keeps_its_digits() {
        // (1/2, 1/2) against logits 2^-30 apart: d = ±2^-31, so KL = 2^-63 to first order.
        let kl = compare(&[0.0, 0.0], &[f32::from_bits(0x3080_0000), 0.0]).unwrap().kl;
        assert!((kl / 2f64.powi(-63) - 1.0).abs() < 1e-6, "{kl:e}");
    }

    #[test]
    fn what_is_not_a_number_is_an_error() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (a, b, side) in [([0.0, bad], [0.0, 1.0], "reference"), ([0.0, 1.0], [0.0, bad], "other")] {
                match compare(&a, &b) {
                    Err(RowError::NotFinite { side: found, token: 1, .. }) => assert_eq!(found, side),
                    other => panic!("{bad} in the {side} gave {other:?}"),
                }
            }
        }
        assert_eq!(compare(&[], &[]), Err(RowError::Empty));
        assert_eq!(compare(&[1.0], &[1.0, 2.0]), Err(RowError::Lengths { reference: 1, other: 2 }));
    }

    proptest! {
        #[test]
        fn equal_rows_do_not_diverge_at_all(row in prop::collection::vec(-1e4f32..1e4, 1..300)) {
            let same = compare(&row, &row).unwrap();
            prop_assert_eq!((same.kl.to_bits(), same.agree), (0, true));
        }

        #[test]
        fn no_divergence_is_negative_and_it_is_the_formula(
            rows in prop::collection::vec((-20f32..20.0, -20f32..20.0), 1..300),
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = rows.into_iter().unzip();
            let kl = compare(&a, &b).unwrap().kl;
            let ln_p = |x: &[f32]| {
                let sum: f64 = x.iter().map(|&l| f64::from(l).exp()).sum();
                x.iter().map(|&l| f64::from(l) - sum.ln()).collect::<Vec<_>>()
            };
            let plain: f64 = ln_p(&a).iter().zip(ln_p(&b)).map(|(p, q)| p.exp() * (p - q)).sum();
            prop_assert!(kl >= 0.0 && (kl - plain).abs() < 1e-9, "{} {}", kl, plain);
        }

        #[test]
        fn small_steps_give_small_divergences_without_a_jump(d in -0.04f64..0.04) {
            // At the border of the series both ways agree.
            let q = 0.5 * (-d).exp();
            let plain = (q - 0.5) + 0.5 * d;
            prop_assert!((term(0.5, q, d) - plain).abs() < 1e-15);
        }
    }
}
