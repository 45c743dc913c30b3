//! Features of each layer: sizes, outliers and directions of its rows over the window. Knows no head.

use rayon::prelude::*;

use super::record::Record;
use super::{Layer, Stat};
use crate::features::row;

/// Positions whose effective rank is taken: it costs the cube of their number.
const RANK_WINDOW: usize = 64;
/// A hidden unit is dead below this share of the layer's RMS, at every position.
const DEAD: f64 = 1e-3;

impl Stat {
    /// Mean and standard deviation of these values, in their order.
    pub fn of(values: &[f64]) -> Stat {
        let n = values.len().max(1) as f64;
        let mean = values.iter().fold(0.0, |sum, x| sum + x) / n;
        let variance = values.iter().fold(0.0, |sum, x| sum + (x - mean) * (x - mean)) / n;
        Stat { mean, std: variance.sqrt() }
    }
}

pub fn layers(record: &Record) -> Vec<Layer> {
    (0..record.layers.len()).into_par_iter().map(|layer| of(record, layer)).collect()
}

fn of(record: &Record, layer: usize) -> Layer {
    let (before, rows) = (record.before(layer), &record.layers[layer]);
    let each = |f: &dyn Fn(usize) -> f64| -> Vec<f64> { record.window().map(f).collect() };
    let rms_at = each(&|p| row::rms(rows.stream.at(p)));
    let recent = record.end().saturating_sub(RANK_WINDOW).max(record.start);
    let window: Vec<&[f32]> = (recent..record.end()).map(|p| rows.stream.at(p)).collect();
    Layer {
        layer,
        rms: Stat::of(&rms_at),
        outlier_ratio: Stat::of(&each(&|p| row::outlier_ratio(rows.stream.at(p)))),
        kurtosis: Stat::of(&each(&|p| row::kurtosis(rows.stream.at(p)))),
        attention_rms: Stat::of(&each(&|p| row::rms(rows.o_proj.at(p)))),
        ffn_rms: Stat::of(&each(&|p| row::rms(rows.down.at(p)))),
        cosine: Stat::of(&each(&|p| row::cosine(before.at(p), rows.stream.at(p)))),
        gate_sparsity: Stat::of(&rows.gate_sparsity),
        gate_l0: Stat::of(&rows.gate_l0),
        effective_rank: row::effective_rank(&window),
        dead_units: dead(record, layer),
        rms_at,
    }
}

fn dead(record: &Record, layer: usize) -> usize {
    let hidden = &record.layers[layer].hidden;
    let mut squares = 0.0;
    let mut largest = vec![0.0f32; record.g.ffn];
    for p in record.window() {
        let rms = row::rms(hidden.at(p));
        squares += rms * rms;
        for (largest, x) in largest.iter_mut().zip(hidden.at(p)) {
            *largest = largest.max(x.abs());
        }
    }
    let rms = (squares / record.window().len() as f64).sqrt();
    largest.iter().filter(|&&x| f64::from(x) <= DEAD * rms).count()
}
