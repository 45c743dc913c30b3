//! How the next token is chosen from the logits. Draws depend on the seed and the position, on nothing else.

mod draw;
mod philox;
mod score;

use draw::Draw;
use serde::{Deserialize, Serialize};

pub use philox::philox4x32;
pub use score::{log_softmax, log_softmax_at};

/// A sampling rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Sampler {
    /// argmax; the lower index wins a tie.
    Greedy,
    /// Divide by the temperature, keep the `top_k` largest, keep the smallest prefix of mass ≥ `top_p`, draw.
    Draw { temperature: f32, top_k: Option<u32>, top_p: Option<f32>, seed: u64 },
}

/// A rule that is none, or logits nothing can be chosen from.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SampleError {
    #[error("temperature is {0}; it must be a finite number above 0 (greedy choice is its own kind)")]
    Temperature(f32),
    #[error("top_k is 0; it must be at least 1")]
    TopK,
    #[error("top_p is {0}; it must lie above 0 and at most at 1")]
    TopP(f32),
    #[error("there are no logits to choose from")]
    Empty,
    #[error("the logit of token {token} is {value}")]
    NotFinite { token: usize, value: f32 },
    #[error("token {token} is not below the vocabulary's size, {vocab}")]
    Token { token: u32, vocab: usize },
}

impl Sampler {
    /// Rejects rules out of range.
    pub fn check(&self) -> Result<(), SampleError> {
        match *self {
            Sampler::Greedy => Ok(()),
            Sampler::Draw { temperature, top_k, top_p, .. } => {
                if !(temperature.is_finite() && temperature > 0.0) {
                    return Err(SampleError::Temperature(temperature));
                }
                if top_k == Some(0) {
                    return Err(SampleError::TopK);
                }
                match top_p {
                    Some(p) if !(p > 0.0 && p <= 1.0) => Err(SampleError::TopP(p)),
                    _ => Ok(()),
                }
            }
        }
    }

    /// The token for `position`, the position in the sequence that it will take.
    ///
    /// Draw, exactly:
    /// 1. each logit is divided by the temperature (one f32 division);
    /// 2. tokens are ordered by that quotient, largest first, equal ones (±0 are equal) by lower index;
    /// 3. the first `top_k` stay;
    /// 4. each has the weight `exp(quotient − first quotient)`, f32@1's exp, widened to f64;
    /// 5. weights are added up in that order in f64; with `top_p`, the shortest prefix whose sum is at least
    ///    `top_p · total` (one f64 product) stays;
    /// 6. `u` is the top 24 bits of the first word of Philox4x32-10 with key = seed and counter = (position, 0),
    ///    as a fraction of 2^24; the first token whose running sum exceeds `u · (the prefix's sum)` is chosen.
    pub fn choose(&self, logits: &[f32], position: u64) -> Result<u32, SampleError> {
        self.check()?;
        if logits.is_empty() {
            return Err(SampleError::Empty);
        }
        finite(logits)?;
        match *self {
            Sampler::Greedy => Ok(argmax(logits) as u32),
            Sampler::Draw { temperature, top_k, top_p, seed } => {
                let quotients: Vec<f32> = logits.iter().map(|l| l / temperature).collect();
                finite(&quotients)?;
                let counter = [position as u32, (position >> 32) as u32, 0, 0];
                let word = philox4x32(counter, [seed as u32, (seed >> 32) as u32])[0];
                let u = f64::from(word >> 8) / 16_777_216.0;
                Ok(Draw { quotients: &quotients, top_k, top_p, u }.token())
            }
        }
    }
}

fn finite(values: &[f32]) -> Result<(), SampleError> {
    // Without a way out of the loop it goes many at a time, and all of them are finite.
    if values.iter().fold(true, |all, v| all & v.is_finite()) {
        return Ok(());
    }
    let token = values.iter().position(|v| !v.is_finite()).unwrap_or_default();
    Err(SampleError::NotFinite { token, value: values[token] })
}

/// Index of the largest; the lower index wins a tie. 0 for an empty slice.
pub(crate) fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, &l) in logits.iter().enumerate() {
        if l > logits[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(temperature: f32, top_k: Option<u32>, top_p: Option<f32>, seed: u64) -> Sampler {
        Sampler::Draw { temperature, top_k, top_p, seed }
    }

    #[test]
    fn greedy_takes_the_lower_index_of_equals() {
        assert_eq!(Sampler::Greedy.choose(&[-1.0, 3.0, 3.0, 2.0], 0), Ok(1));
        assert_eq!(Sampler::Greedy.choose(&[-0.0, 0.0], 0), Ok(0));
        assert_eq!(Sampler::Greedy.choose(&[0.0, -0.0], 0), Ok(0));
    }

    #[test]
    fn one_candidate_is_always_drawn() {
        let logits = [0.1, 0.9, 0.9, 0.3];
        for position in 0..100 {
            assert_eq!(rule(2.0, Some(1), None, 7).choose(&logits, position), Ok(1));
            assert_eq!(rule(2.0, None, Some(1e-6), 7).choose(&logits, position), Ok(1));
        }
    }

    #[test]
    fn top_p_keeps_the_smallest_sufficient_prefix() {
        // Probabilities 1/2, 1/4, 1/8, 1/8.
        let ln2 = std::f32::consts::LN_2;
        let logits = [-2.0 * ln2, -ln2, -3.0 * ln2, -3.0 * ln2];
        let drawn = |p| -> std::collections::BTreeSet<u32> {
            (0..500).map(|i| rule(1.0, None, Some(p), 1).choose(&logits, i).unwrap()).collect()
        };
        assert_eq!(drawn(0.49).into_iter().collect::<Vec<_>>(), [1]);
        assert_eq!(drawn(0.7).into_iter().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(drawn(1.0).len(), 4);
    }

    #[test]
    fn draws_follow_the_weights_and_the_seed() {
        let logits = [0.0, std::f32::consts::LN_2, -50.0];
        let draws = |seed| -> Vec<u32> {
            (0..3000).map(|i| rule(1.0, None, None, seed).choose(&logits, i).unwrap()).collect()
        };
        let ones = draws(3).iter().filter(|&&t| t == 1).count();
        assert!((1900..2100).contains(&ones), "{ones} of 3000 where two thirds were due");
        assert_eq!(draws(3), draws(3));
        assert_ne!(draws(3), draws(4));
    }

    #[test]
    fn rules_and_logits_out_of_range_are_errors() {
        for t in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(matches!(rule(t, None, None, 0).choose(&[1.0], 0), Err(SampleError::Temperature(_))));
        }
        assert_eq!(rule(1.0, Some(0), None, 0).check(), Err(SampleError::TopK));
        for p in [0.0, 1.5, f32::NAN] {
            assert!(matches!(rule(1.0, None, Some(p), 0).check(), Err(SampleError::TopP(_))));
        }
        assert_eq!(Sampler::Greedy.choose(&[], 0), Err(SampleError::Empty));
        assert!(matches!(
            Sampler::Greedy.choose(&[0.0, f32::NAN], 0),
            Err(SampleError::NotFinite { token: 1, .. })
        ));
        // A quotient that overflows.
        assert!(matches!(
            rule(1e-30, None, None, 0).choose(&[1e30, 0.0], 0),
            Err(SampleError::NotFinite { .. })
        ));
    }
}
