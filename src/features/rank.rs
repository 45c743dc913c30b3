//! Features of a list of scores: how alike two orders are, how unequal one list is.

/// Spearman's rank correlation, in [−1, 1]: Pearson's correlation of the ranks, equal values sharing the mean of
/// theirs. 0 for fewer than two values, and when all values of a side are equal: neither has an order.
///
/// Source: Spearman 1904, with average ranks for ties.
///
/// # Panics
/// If the lists have different lengths.
pub fn rank_correlation(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "a correlation is between lists of one length");
    let (a, b) = (ranks(a), ranks(b));
    // The mean of all ranks is this exactly, ties or not; ranks are multiples of 1/2, so the sums are exact too.
    let mean = (a.len() as f64 + 1.0) / 2.0;
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(&b) {
        ab += (a - mean) * (b - mean);
        aa += (a - mean) * (a - mean);
        bb += (b - mean) * (b - mean);
    }
    if aa == 0.0 || bb == 0.0 { 0.0 } else { ab / (aa * bb).sqrt() }
}

/// Ranks from 1, smallest first; equal values (±0 are) share the mean of theirs.
fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&i, &j| (x[i] + 0.0).total_cmp(&(x[j] + 0.0)));
    let mut ranks = vec![0.0; x.len()];
    let mut start = 0;
    while start < order.len() {
        let equal = order[start..].iter().take_while(|&&i| x[i] == x[order[start]]).count().max(1);
        let mean = (2 * start + equal + 1) as f64 / 2.0;
        for &i in &order[start..start + equal] {
            ranks[i] = mean;
        }
        start += equal;
    }
    ranks
}

/// Gini coefficient of the magnitudes, in [0, 1): 0 when all are equal, near 1 when one has everything:
/// `Σ (2i − n − 1) x_i / (n Σ x)` with x sorted, i from 1. 0 for an empty or all-zero list.
///
/// Source: Gini 1912; as a measure of sparsity, Hurley & Rickard 2009 (arXiv 0811.4706).
pub fn gini(x: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = x.iter().map(|x| x.abs()).collect();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let sum = sorted.iter().fold(0.0, |sum, x| sum + x);
    if sum == 0.0 {
        return 0.0;
    }
    let weighted = sorted.iter().enumerate().fold(0.0, |w, (i, x)| w + (2.0 * i as f64 + 1.0 - n) * x);
    weighted / (n * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders() {
        assert_eq!(rank_correlation(&[1.0, 5.0, 2.0], &[10.0, 12.0, 11.0]), 1.0);
        assert_eq!(rank_correlation(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), -1.0);
        // Average ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
        let tied = rank_correlation(&[0.0, 1.0, 1.0, 2.0], &[1.0, 2.0, 3.0, 4.0]);
        assert!((tied - 4.5 / (4.5f64 * 5.0).sqrt()).abs() < 1e-12, "{tied}");
        assert_eq!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
        assert_eq!(rank_correlation(&[-0.0, 0.0], &[1.0, 2.0]), 0.0);
        assert_eq!(rank_correlation(&[], &[]), 0.0);
    }

    #[test]
    fn inequality() {
        assert_eq!(gini(&[2.0, 2.0, -2.0]), 0.0);
        assert_eq!(gini(&[0.0, 0.0, 0.0, 8.0]), 0.75);
        assert_eq!((gini(&[]), gini(&[0.0])), (0.0, 0.0));
    }
}
