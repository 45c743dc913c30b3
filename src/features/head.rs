//! Features of one head at one position t: its attention weights `p[0..=t]`, which sum to 1 up to rounding, and the
//! tokens of the transcript. None of them normalises: they are what the weights are. All are 0 for no weights.

use pipe_kernels::math::double;

/// Shannon entropy, `−Σ p ln p` over `p > 0`, in nats: 0 for all weight on one position, ln(t + 1) for equal
/// weights.
///
/// Source: Shannon 1948; for attention, Clark and others 2019 (arXiv 1906.04341).
pub fn entropy(p: &[f32]) -> f64 {
    p.iter().map(|&p| f64::from(p)).fold(0.0, |sum, p| if p > 0.0 { sum - p * double::ln(p) } else { sum })
}

/// Rényi entropy of order 2, `−ln Σ p²`, in nats; never above [`entropy`] for weights that sum to 1. exp of it is the
/// number of positions that are attended to.
///
/// Source: Rényi 1961, "On measures of entropy and information".
pub fn renyi2(p: &[f32]) -> f64 {
    let sum = p.iter().map(|&p| f64::from(p)).fold(0.0, |sum, p| sum + p * p);
    // −ln 1 is −0, and a sum rounded to above 1 would be below it.
    if sum > 0.0 && sum < 1.0 { -double::ln(sum) } else { 0.0 }
}

/// Weight on the first position, `p[0]`: the attention sink.
///
/// Source: Xiao and others 2023, "Efficient streaming language models with attention sinks" (arXiv 2309.17453).
pub fn sink_mass(p: &[f32]) -> f64 {
    p.first().copied().map_or(0.0, f64::from)
}

/// Weight on the position before, `p[t − 1]`; 0 at the first position.
///
/// Source: the previous-token heads of Elhage and others 2021, "A mathematical framework for transformer circuits".
pub fn previous_token(p: &[f32]) -> f64 {
    p.len().checked_sub(2).map_or(0.0, |before| f64::from(p[before]))
}

/// Weight on earlier positions that hold the token of position t: `Σ p[s]` over `s < t` with `token[s] = token[t]`.
///
/// Source: the duplicate-token heads of Wang and others 2022 (arXiv 2211.00593).
///
/// # Panics
/// If there are fewer tokens than weights.
pub fn duplicate_token(p: &[f32], tokens: &[u32]) -> f64 {
    let Some(t) = p.len().checked_sub(1) else { return 0.0 };
    mass(&p[..t], |s| tokens[s] == tokens[t])
}

/// Weight on positions right after an earlier occurrence of the token of position t: `Σ p[s]` over `1 ≤ s ≤ t` with
/// `token[s − 1] = token[t]`. Position t itself counts where the token before it is the same.
///
/// Source: the prefix-matching score of Olsson and others 2022, "In-context learning and induction heads"
/// (arXiv 2209.11895).
///
/// # Panics
/// If there are fewer tokens than weights.
pub fn induction(p: &[f32], tokens: &[u32]) -> f64 {
    let Some(t) = p.len().checked_sub(1) else { return 0.0 };
    mass(p, |s| s > 0 && tokens[s - 1] == tokens[t])
}

fn mass(p: &[f32], on: impl Fn(usize) -> bool) -> f64 {
    p.iter().enumerate().fold(0.0, |sum, (s, &p)| if on(s) { sum + f64::from(p) } else { sum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropies_of_one_and_of_equals() {
        let equal = [0.25f32; 4];
        assert!((entropy(&equal) - 4f64.ln()).abs() < 1e-12);
        assert!((renyi2(&equal) - 4f64.ln()).abs() < 1e-12);
        for one in [&[1.0f32][..], &[0.0, 1.0], &[]] {
            assert_eq!((entropy(one).to_bits(), renyi2(one).to_bits()), (0, 0));
        }
        let skewed = [0.5, 0.25, 0.25];
        assert!((renyi2(&skewed) + 0.375f64.ln()).abs() < 1e-12);
        assert!(renyi2(&skewed) < entropy(&skewed));
    }

    #[test]
    fn masses_follow_the_tokens() {
        let p = [0.5, 0.125, 0.0625, 0.25, 0.0625];
        let tokens = [7, 8, 9, 8, 8];
        assert_eq!(sink_mass(&p), 0.5);
        assert_eq!(previous_token(&p), 0.25);
        assert_eq!(duplicate_token(&p, &tokens), 0.125 + 0.25);
        // After the 8 at 1 and the 8 at 3.
        assert_eq!(induction(&p, &tokens), 0.0625 + 0.0625);
        assert_eq!(duplicate_token(&p[..3], &tokens), 0.0);
        assert_eq!(induction(&p[..3], &tokens), 0.0);
    }

    #[test]
    fn the_first_position_looks_at_itself_only() {
        let (p, tokens) = ([1.0], [3]);
        assert_eq!((sink_mass(&p), previous_token(&p)), (1.0, 0.0));
        assert_eq!((duplicate_token(&p, &tokens), induction(&p, &tokens)), (0.0, 0.0));
        assert_eq!((sink_mass(&[]), previous_token(&[])), (0.0, 0.0));
        assert_eq!((duplicate_token(&[], &[]), induction(&[], &[])), (0.0, 0.0));
    }
}
