//! Log-likelihoods from logits, the same bits everywhere.

use super::SampleError;
use crate::cpu::Implementation;
use crate::math::double;

/// `exp(x − max)` for each, by the fastest implementation, which gives the bits of all.
pub(super) fn exp_minus(x: &[f32], max: f32) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    if let Some(kernels) = Implementation::detect().kernels() {
        // SAFETY: the table came from `kernels()`; the slices have one length.
        unsafe { (kernels.exp_minus)(x, max, &mut out) };
    }
    out
}

/// The sum by R2 in f64.
pub(super) fn sum(x: &[f32]) -> f64 {
    let mut sums = [0.0f64; 16];
    for chunk in x.chunks(16) {
        for (sum, &e) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(e);
        }
    }
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            sums[l] += sums[l + half];
        }
    }
    sums[0]
}

/// `(max, ln Σ exp(l − max))`: max by compare, exp in f32 as f32@1 says, the sum by R2 in f64, ln in f64.
fn normaliser(logits: &[f32]) -> Result<(f64, f64), SampleError> {
    let max = logits.iter().copied().reduce(|m, l| if l > m { l } else { m }).ok_or(SampleError::Empty)?;
    let sum = sum(&exp_minus(logits, max));
    if !sum.is_finite() || max.is_infinite() {
        let token = logits.iter().position(|l| !l.is_finite()).unwrap_or(0);
        return Err(SampleError::NotFinite { token, value: logits[token] });
    }
    Ok((f64::from(max), double::ln(sum)))
}

/// Natural logarithm of the probability that softmax gives `token`: `(logit − max) − ln Σ exp(l − max)` in f64.
pub fn log_softmax_at(logits: &[f32], token: u32) -> Result<f64, SampleError> {
    let (max, ln_sum) = normaliser(logits)?;
    let logit = logits.get(token as usize).ok_or(SampleError::Token { token, vocab: logits.len() })?;
    Ok((f64::from(*logit) - max) - ln_sum)
}

/// [`log_softmax_at`] for every token.
pub fn log_softmax(logits: &[f32]) -> Result<Vec<f64>, SampleError> {
    let (max, ln_sum) = normaliser(logits)?;
    Ok(logits.iter().map(|&l| (f64::from(l) - max) - ln_sum).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_formula_and_sums_to_one() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        let all = log_softmax(&logits).unwrap();
        let total: f64 = all.iter().map(|l| l.exp()).sum();
        assert!((total - 1.0).abs() < 1e-6, "{total}");
        let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        let one = log_softmax_at(&logits, 17).unwrap();
        assert!((one - (f64::from(logits[17]) - sum.ln())).abs() < 1e-6);
        assert_eq!(one.to_bits(), all[17].to_bits());
    }

    #[test]
    fn what_has_no_probability_is_an_error() {
        assert_eq!(log_softmax_at(&[], 0), Err(SampleError::Empty));
        assert_eq!(log_softmax_at(&[1.0], 1), Err(SampleError::Token { token: 1, vocab: 1 }));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let result = log_softmax_at(&[0.0, bad], 0);
            // An impossible token is a value too, but no model of ours gives one.
            assert!(
                bad == f32::NEG_INFINITY || matches!(result, Err(SampleError::NotFinite { token: 1, .. }))
            );
        }
    }
}
