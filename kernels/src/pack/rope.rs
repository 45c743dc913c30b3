//! The rope tables: cos and sin of every pair's angle at every position, in f64, rounded to f32 once.

use crate::geometry::Geometry;
use crate::math::double;

/// Frequencies of the pairs: `exp(−(2i/head_dim) · ln base)`.
pub(crate) fn frequencies(g: &Geometry) -> Vec<f64> {
    let ln_base = double::ln(g.rope_base);
    (0..g.head_dim / 2).map(|i| double::exp(-((2 * i) as f64 / g.head_dim as f64 * ln_base))).collect()
}

/// The row of position `position`: cos, sin of `position · frequency` for each pair. A product beyond the range
/// of the reduction cannot occur: frequencies are at most 1 and positions below 2^20.
pub(crate) fn row(frequencies: &[f64], position: usize, out: &mut Vec<f32>) {
    for f in frequencies {
        let (sin, cos) = double::sin_cos(position as f64 * f);
        out.extend([cos as f32, sin as f32]);
    }
}
