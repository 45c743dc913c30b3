//! Features of a row, the output of a block at one position, and of a window of rows.

use pipe_kernels::math::double;

use super::singular::singular_values;

/// Root mean square, `√(Σ x² / n)`. In the row's own units. 0 for an empty row.
///
/// Source: the denominator of RMSNorm without its epsilon (Zhang & Sennrich 2019, arXiv 1910.07467).
pub fn rms(x: &[f32]) -> f64 {
    if x.is_empty() {
        return 0.0;
    }
    (dot(x, x) / x.len() as f64).sqrt()
}

/// Largest magnitude over the RMS, `max |x| / rms(x)`; between 1 and √n. No unit. 0 for an empty or all-zero row.
///
/// Source: the outlier measure of activations, as in Dettmers and others 2022 (LLM.int8(), arXiv 2208.07339), there
/// by absolute size, here relative to the row's own RMS.
pub fn outlier_ratio(x: &[f32]) -> f64 {
    let rms = rms(x);
    if rms == 0.0 {
        return 0.0;
    }
    let max = x.iter().fold(0.0, |max: f32, x| if x.abs() > max { x.abs() } else { max });
    f64::from(max) / rms
}

/// Kurtosis, Pearson's: `m4 / m2²` with the central moments `mk = Σ (x − mean)^k / n`; 3 for a Gaussian (not the
/// excess, which is 3 less), at least 1. No unit. 0 for an empty row and one whose elements are all equal, which
/// have none.
///
/// Source: Pearson 1905; for activations with outliers, Bondarenko and others 2023 (arXiv 2306.12929).
pub fn kurtosis(x: &[f32]) -> f64 {
    // Equal elements may differ from their rounded mean, which would give a number made of rounding.
    if x.windows(2).all(|pair| pair[0] == pair[1]) {
        return 0.0;
    }
    let n = x.len() as f64;
    let mean = x.iter().fold(0.0, |sum, &x| sum + f64::from(x)) / n;
    let (mut second, mut fourth) = (0.0, 0.0);
    for &x in x {
        let square = (f64::from(x) - mean) * (f64::from(x) - mean);
        second += square;
        fourth += square * square;
    }
    (fourth / n) / ((second / n) * (second / n))
}

/// L0: how many elements are larger in magnitude than `ratio · rms(x)`. A count. 0 for an empty or all-zero row.
///
/// Source: the number of active units, as for sparse codes (Olshausen & Field 1996); a smooth gate is never exactly
/// zero, so there is a threshold, relative so that it has no unit.
pub fn l0(x: &[f32], ratio: f64) -> usize {
    let threshold = ratio * rms(x);
    x.iter().filter(|x| f64::from(x.abs()) > threshold).count()
}

/// Sparsity: the share of elements not counted by [`l0`], in [0, 1]. 1 for an empty or all-zero row.
pub fn sparsity(x: &[f32], ratio: f64) -> f64 {
    if x.is_empty() {
        return 1.0;
    }
    (x.len() - l0(x, ratio)) as f64 / x.len() as f64
}

/// Cosine of the angle between two rows, `Σ a·b / √(Σ a² · Σ b²)`, in [−1, 1] up to rounding, and 1 for equal rows. No
/// unit. 0 if either is empty or all zero.
///
/// # Panics
/// If the rows have different lengths.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "a cosine is between rows of one length");
    // Sums of squares of f32 are far from the ends of f64, so their product is too.
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}

/// `Σ a·b` in the order of the index; each product of two f32 is exact in f64.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).fold(0.0, |sum, (&a, &b)| sum + f64::from(a) * f64::from(b))
}

/// Effective rank of a window of rows: exp of the Shannon entropy of its singular values, normalised to sum 1:
/// `exp(−Σ p ln p)`, `p = σ / Σ σ`. Between 1 and the smaller side of the matrix; a count of directions. 0 for an
/// empty or all-zero window. Rows are taken as they are, not centred.
///
/// The singular values are the roots of the eigenvalues of the smaller Gram matrix, found by cyclic Jacobi rotations.
/// Those below `n · 2^-52` of the largest eigenvalue are rounding and taken as zero.
///
/// Source: Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality", EUSIPCO.
///
/// # Panics
/// If the rows have different lengths.
pub fn effective_rank(rows: &[&[f32]]) -> f64 {
    let singular = singular_values(rows);
    let sum = singular.iter().fold(0.0, |sum, s| sum + s);
    if sum == 0.0 {
        return 0.0;
    }
    let term = |entropy: f64, s: &f64| {
        let p = s / sum;
        if p > 0.0 { entropy - p * double::ln(p) } else { entropy }
    };
    double::exp(singular.iter().fold(0.0, term))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_rows() {
        assert_eq!(rms(&[3.0, -4.0]), 12.5f64.sqrt());
        assert_eq!(outlier_ratio(&[0.0, 0.0, 0.0, 2.0]), 2.0);
        // Two values in equal parts have the least kurtosis there is.
        assert_eq!(kurtosis(&[1.0, -1.0, 1.0, -1.0]), 1.0);
        // One of n: n − 2 + 1/(n − 1).
        assert!((kurtosis(&[1.0, 0.0, 0.0, 0.0, 0.0]) - 3.25).abs() < 1e-12);
        assert_eq!(l0(&[0.0, 0.1, -2.0, 1.0], 0.5), 2);
        assert_eq!(sparsity(&[0.0, 0.1, -2.0, 1.0], 0.5), 0.5);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 5.0]), 0.0);
        assert_eq!(cosine(&[1.0, -2.0], &[-2.0, 4.0]), -1.0);
    }

    #[test]
    fn nothing_and_zeros_are_defined() {
        for x in [&[][..], &[0.0; 3]] {
            assert_eq!([rms(x), outlier_ratio(x), kurtosis(x), cosine(x, x)], [0.0; 4]);
            assert_eq!((l0(x, 0.1), sparsity(x, 0.1)), (0, 1.0));
        }
        assert_eq!(kurtosis(&[0.1; 7]), 0.0);
        assert_eq!(effective_rank(&[]), 0.0);
        assert_eq!(effective_rank(&[&[0.0; 3], &[0.0; 3]]), 0.0);
    }

    #[test]
    fn effective_rank_counts_directions() {
        let near = |rows: &[&[f32]], rank: f64| {
            let found = effective_rank(rows);
            assert!((found - rank).abs() < 1e-9, "{found} is not {rank}");
        };
        near(&[&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0], &[-1.0, -2.0, -3.0]], 1.0);
        near(&[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0]], 3.0);
        // More rows than columns: the other Gram matrix.
        near(&[&[1.0, 0.0], &[0.0, 1.0], &[0.0, 0.0]], 2.0);
        // Singular values 3 and 1: exp of the entropy of (3/4, 1/4).
        let entropy = -(0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        near(&[&[2.0, 1.0], &[1.0, 2.0]], entropy.exp());
    }
}
