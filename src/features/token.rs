//! Features of what a model predicts at a position: its logits as a distribution over the vocabulary.

use pipe_kernels::math::double;
use pipe_kernels::sampler::{SampleError, log_softmax};
use serde::{Deserialize, Serialize};

use crate::specs::{RowError, compare};

/// How a distribution sees one token, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// `ln p(token)`, in nats: what `log_likelihood.json` says of the same logits, to the bit.
    pub log_probability: f64,
    /// `p(token)`, exp of that.
    pub probability: f64,
    /// Place of the token, from 1 for the likeliest; of equal logits the lower index stands first.
    pub rank: usize,
    /// Shannon entropy `−Σ p ln p` over the vocabulary, in nats.
    pub entropy: f64,
    /// Probability of the likeliest token less that of the second; of a vocabulary of one, 1.
    pub margin: f64,
    /// How many of the likeliest tokens it takes for a mass of at least [`TOP_P`]: the size of the nucleus of
    /// Holtzman and others 2019 (arXiv 1904.09751).
    pub top_p_size: usize,
    /// Index of the likeliest token.
    pub top: u32,
}

/// The mass whose tokens [`Distribution::top_p_size`] counts.
pub const TOP_P: f64 = 0.9;

/// What logits say of a token. No logits, a logit that is not finite and a token that is not there are errors.
pub fn distribution(logits: &[f32], token: u32) -> Result<Distribution, SampleError> {
    let ln_p = log_softmax(logits)?;
    let log_probability =
        *ln_p.get(token as usize).ok_or(SampleError::Token { token, vocab: logits.len() })?;
    let p: Vec<f64> = ln_p.iter().map(|&l| double::exp(l)).collect();
    let entropy = p.iter().zip(&ln_p).fold(0.0, |sum, (&p, &l)| if p > 0.0 { sum - p * l } else { sum });
    let own = logits[token as usize];
    let before = |&(i, l): &(usize, f32)| l > own || (l == own && i < token as usize);
    let rank = 1 + logits.iter().copied().enumerate().filter(before).count();
    let (top, second) = best_two(logits);
    let margin = p[top] - second.map_or(0.0, |second| p[second]);
    let probability = p[token as usize];
    let top_p_size = prefix(p, TOP_P);
    Ok(Distribution { log_probability, probability, rank, entropy, margin, top_p_size, top: top as u32 })
}

/// The places of the largest logit and the next, equal ones by lower index.
fn best_two(logits: &[f32]) -> (usize, Option<usize>) {
    let (mut first, mut second) = (0, None);
    for (i, &l) in logits.iter().enumerate().skip(1) {
        if l > logits[first] {
            (first, second) = (i, Some(first));
        } else if second.is_none_or(|second: usize| l > logits[second]) {
            second = Some(i);
        }
    }
    (first, second)
}

/// How many of the largest have at least this sum, added from the largest on; all, if rounding keeps it below.
fn prefix(mut p: Vec<f64>, mass: f64) -> usize {
    // Most distributions end within the first few: sort those, and more only when they are not enough.
    let (mut sum, mut start, mut step) = (0.0, 0, 64);
    while start < p.len() {
        let rest = &mut p[start..];
        let take = step.min(rest.len());
        if take < rest.len() {
            rest.select_nth_unstable_by(take, |a, b| b.total_cmp(a));
        }
        rest[..take].sort_unstable_by(|a, b| b.total_cmp(a));
        for (i, p) in rest[..take].iter().enumerate() {
            sum += p;
            if sum >= mass {
                return start + i + 1;
            }
        }
        start += take;
        step *= 8;
    }
    p.len()
}

/// Kullback–Leibler divergence KL(p ‖ q) of the distributions of two rows of logits, in nats: never negative, and
/// exactly 0 for equal bits. Rows of two lengths, none, or with a logit that is not finite are errors.
///
/// Source: Kullback & Leibler 1951. Summed as `p·d − p + q` with `d = ln p − ln q`, which keeps small ones exact.
pub fn kl(p: &[f32], q: &[f32]) -> Result<f64, RowError> {
    compare(p, q).map(|compared| compared.kl)
}

/// [`kl`] of the two distributions conditioned on these tokens: each softmax is over them alone. It needs the logits
/// of no other token. It is at most [`kl`] divided by the share of p that these tokens have.
///
/// # Panics
/// If an index is outside a row.
pub fn kl_restricted(p: &[f32], q: &[f32], indices: &[u32]) -> Result<f64, RowError> {
    let pick = |row: &[f32]| -> Vec<f32> { indices.iter().map(|&i| row[i as usize]).collect() };
    kl(&pick(p), &pick(q))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_known_distribution() {
        // Probabilities 1/8, 1/2, 1/4, 1/8.
        let ln2 = std::f32::consts::LN_2;
        let logits = [-3.0 * ln2, -ln2, -2.0 * ln2, -3.0 * ln2];
        let d = distribution(&logits, 2).unwrap();
        assert!((d.log_probability + 2.0 * 2f64.ln()).abs() < 1e-6, "{d:?}");
        assert!((d.probability - 0.25).abs() < 1e-7 && (d.margin - 0.25).abs() < 1e-7, "{d:?}");
        assert!((d.entropy - 1.75 * 2f64.ln()).abs() < 1e-6, "{d:?}");
        assert_eq!((d.rank, d.top, d.top_p_size), (2, 1, 4));
        assert_eq!(distribution(&logits, 3).unwrap().rank, 4, "of equals the lower index is first");
        assert_eq!(distribution(&logits, 0).unwrap().rank, 3);
        let one = distribution(&[5.0], 0).unwrap();
        assert_eq!((one.probability, one.margin, one.entropy, one.top_p_size), (1.0, 1.0, 0.0, 1));
    }

    #[test]
    fn errors_instead_of_numbers() {
        assert_eq!(distribution(&[], 0), Err(SampleError::Empty));
        assert_eq!(distribution(&[0.0], 1), Err(SampleError::Token { token: 1, vocab: 1 }));
        assert!(matches!(distribution(&[0.0, f32::NAN], 0), Err(SampleError::NotFinite { token: 1, .. })));
        assert!(kl(&[0.0], &[0.0, 1.0]).is_err());
    }

    #[test]
    fn restricted_to_the_tokens_that_matter() {
        let (p, q) = ([1.0, 2.0, 3.0, -9.0], [1.5, 2.0, 2.5, 9.0]);
        let both = kl_restricted(&p, &q, &[0, 2]).unwrap();
        assert_eq!(both.to_bits(), kl(&[1.0, 3.0], &[1.5, 2.5]).unwrap().to_bits());
        assert_eq!(kl_restricted(&p, &q, &[1]).unwrap(), 0.0);
    }

    proptest! {
        #[test]
        fn the_nucleus_is_that_of_a_whole_sort(
            p in prop::collection::vec(0f64..1.0, 1..2000), mass in 0f64..40.0,
        ) {
            let mut sorted = p.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let mut sum = 0.0;
            let plain = sorted.iter().position(|p| { sum += p; sum >= mass }).map_or(p.len(), |i| i + 1);
            prop_assert_eq!(prefix(p, mass), plain);
        }

        #[test]
        fn equal_bits_do_not_diverge(row in prop::collection::vec(-50f32..50.0, 1..200)) {
            prop_assert_eq!(kl(&row, &row).unwrap().to_bits(), 0);
        }
    }
}
