//! Which elements of a row are kept, and as what numbers.

use std::sync::Arc;

use super::draw;
use super::spec::Elements;

/// An element rule made ready for rows of one width.
#[derive(Clone, Debug, PartialEq)]
pub enum Pick {
    /// Nothing.
    None,
    /// Every so many, from the first on.
    Stride(usize),
    /// These, the same in every row.
    These(Arc<[u32]>),
    /// So many of largest magnitude, the lower index first among equals.
    Top(usize),
    /// Under a random matrix: its outputs, and its signs as [`draw::signs`] has them.
    Projection(usize, Arc<[u64]>),
}

impl Pick {
    /// For rows of so many elements. The attention weights of a position have as many as it sees, and come as wide
    /// as the context.
    pub fn new(elements: Elements, width: usize) -> Self {
        match elements {
            Elements::None => Pick::None,
            Elements::All => Pick::Stride(1),
            Elements::Stride { n } => Pick::Stride(n as usize),
            Elements::Reservoir { n, seed } => Pick::These(draw::reservoir(n as usize, width, seed).into()),
            Elements::Top { n } => Pick::Top((n as usize).min(width)),
            Elements::Projection { n, seed } => {
                Pick::Projection(n as usize, draw::signs(n as usize, width, seed).into())
            }
        }
    }

    /// How many numbers come of a row of so many elements.
    pub fn count(&self, width: usize) -> usize {
        match self {
            Pick::None => 0,
            Pick::Stride(n) => width.div_ceil(*n),
            Pick::These(these) => these.len(),
            Pick::Top(n) => (*n).min(width),
            Pick::Projection(n, _) => *n,
        }
    }

    /// Which elements they are, where that is the same for every row and not all.
    pub fn indices(&self, width: usize) -> Option<Vec<u32>> {
        match self {
            Pick::Stride(n) if *n > 1 => Some((0..width as u32).step_by(*n).collect()),
            Pick::These(these) => Some(these.to_vec()),
            _ => None,
        }
    }

    /// Is an index kept with every number?
    pub fn with_indices(&self) -> bool {
        matches!(self, Pick::Top(_))
    }

    /// Appends what is kept of a row: numbers, and where [`Pick::with_indices`] says so their indices.
    pub fn take(&self, row: &[f32], values: &mut Vec<f32>, indices: &mut Vec<u32>) {
        match self {
            Pick::None => {}
            Pick::Stride(n) => values.extend(row.iter().step_by(*n)),
            Pick::These(these) => values.extend(these.iter().map(|i| row[*i as usize])),
            Pick::Top(n) => {
                let top = top(row, *n);
                values.extend(top.iter().map(|i| row[*i as usize]));
                indices.extend(top);
            }
            Pick::Projection(n, signs) => values.extend((0..*n).map(|j| project(row, *n, j, signs))),
        }
    }
}

/// Indices of the `n` elements of largest magnitude, the largest first, the lower index first among equals.
fn top(row: &[f32], n: usize) -> Vec<u32> {
    let n = n.min(row.len());
    if n == 0 {
        return Vec::new();
    }
    let order = |a: &u32, b: &u32| {
        let (x, y) = (row[*a as usize].abs(), row[*b as usize].abs());
        y.total_cmp(&x).then(a.cmp(b))
    };
    let mut all: Vec<u32> = (0..row.len() as u32).collect();
    all.select_nth_unstable_by(n - 1, order);
    all.truncate(n);
    all.sort_unstable_by(order);
    all
}

/// Output `j`: Σ ±x in f64 in the order of the index, over √n, rounded once to f32.
fn project(row: &[f32], n: usize, j: usize, signs: &[u64]) -> f32 {
    let sum = row.iter().enumerate().fold(0.0, |sum, (i, &x)| {
        let bit = j * row.len() + i;
        let minus = signs[bit / 64] >> (bit % 64) & 1 == 1;
        sum + if minus { -f64::from(x) } else { f64::from(x) }
    });
    (sum / (n as f64).sqrt()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn among_equals_the_lower_index_comes_first() {
        let row = [0.0, -2.0, 1.0, 2.0, -0.0, -1.0, 2.0];
        assert_eq!(top(&row, 4), [1, 3, 6, 2]);
        assert_eq!(top(&row, 6), [1, 3, 6, 2, 5, 0]);
        assert_eq!(top(&row, 99), [1, 3, 6, 2, 5, 0, 4]);
        assert!(top(&[], 3).is_empty());
    }
}
