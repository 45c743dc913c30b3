//! How the next token is chosen from the logits. Draws depend on the seed and the position, on nothing else.

mod philox;
mod score;

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
        if let Some(token) = logits.iter().position(|l| !l.is_finite()) {
            return Err(SampleError::NotFinite { token, value: logits[token] });
        }
        match *self {
            Sampler::Greedy => Ok(argmax(logits) as u32),
            Sampler::Draw { temperature, top_k, top_p, seed } => {
                let quotients: Vec<f32> = logits.iter().map(|l| l / temperature).collect();
                if let Some(token) = quotients.iter().position(|l| !l.is_finite()) {
                    return Err(SampleError::NotFinite { token, value: quotients[token] });
                }
                let order = ordered(&quotients, top_k);
                Ok(draw(&quotients, &order, top_p, seed, position))
            }
        }
    }
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

/// Token indices by value, largest first, equal ones by lower index; the first `most` of them.
fn ordered(values: &[f32], most: Option<u32>) -> Vec<u32> {
    let mut keys: Vec<u64> =
        values.iter().enumerate().map(|(i, &v)| u64::from(falling(v)) << 32 | i as u64).collect();
    let most = most.map_or(keys.len(), |k| (k as usize).min(keys.len()));
    if most < keys.len() {
        keys.select_nth_unstable(most);
        keys.truncate(most);
    }
    keys.sort_unstable();
    keys.into_iter().map(|key| key as u32).collect()
}

/// An integer that falls as the (finite) float rises; −0 and +0 give the same.
fn falling(v: f32) -> u32 {
    let bits = (v + 0.0).to_bits();
    let rising = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !rising
}

fn draw(quotients: &[f32], order: &[u32], top_p: Option<f32>, seed: u64, position: u64) -> u32 {
    let largest = quotients[order[0] as usize];
    let sorted: Vec<f32> = order.iter().map(|&i| quotients[i as usize]).collect();
    let mut sum = 0.0f64;
    let sums: Vec<f64> = score::exp_minus(&sorted, largest)
        .into_iter()
        .map(|weight| {
            sum += f64::from(weight);
            sum
        })
        .collect();
    let kept = match top_p {
        // The last sum is the total, and p at most 1, so one is found.
        Some(p) => sums.iter().position(|&s| s >= f64::from(p) * sum).map_or(sums.len(), |i| i + 1),
        None => sums.len(),
    };
    let word =
        philox4x32([position as u32, (position >> 32) as u32, 0, 0], [seed as u32, (seed >> 32) as u32])[0];
    let u = f64::from(word >> 8) / 16_777_216.0;
    let target = u * sums[kept - 1];
    // u < 1 leaves the target below the prefix's sum.
    let chosen = sums[..kept].iter().position(|&s| s > target).unwrap_or(kept - 1);
    order[chosen]
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
    fn order_is_by_value_then_index() {
        let v = [0.0, 5.0, -0.0, -3.0, 5.0, 1e-40, -1e-40];
        assert_eq!(ordered(&v, None), [1, 4, 5, 0, 2, 6, 3]);
        assert_eq!(ordered(&v, Some(4)), [1, 4, 5, 0]);
        assert_eq!(ordered(&v, Some(100)).len(), 7);
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
