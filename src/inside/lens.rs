//! The logit lens (nostalgebraist 2020): the final norm and head on the stream after each layer.

use std::collections::BTreeMap;

use pipe_kernels::math::double;
use pipe_kernels::oracle;
use rayon::prelude::*;

use super::record::{LIKELIEST, Record, logits_from};
use super::{Deciding, FullLens, InsideError, Lens, Look};
use crate::features::token::{distribution, kl};

/// What one row of the stream says of the final token.
#[derive(Clone, Copy)]
struct Point {
    rank: usize,
    entropy: f64,
    kl: f64,
}

pub fn lens(look: &Look<'_>, record: &Record) -> Result<Lens, InsideError> {
    let positions: Vec<usize> = record.window().collect();
    let rows = 0..record.g.layers + 1;
    let points = |row: usize| -> Result<Vec<Point>, InsideError> {
        positions.iter().map(|&p| restricted(look, record, row, p)).collect()
    };
    let points = rows.into_par_iter().map(points).collect::<Result<Vec<_>, _>>()?;
    let column = |f: &dyn Fn(&Point) -> f64| -> Vec<Vec<f64>> {
        points.iter().map(|row| row.iter().map(f).collect()).collect()
    };
    let tokens: Vec<u32> = positions.iter().map(|&p| record.prediction(p).likeliest[0]).collect();
    let mut full = Vec::new();
    for &layer in look.options.full_lens.iter().filter(|&&layer| layer < record.g.layers) {
        full.push(whole(look, record, layer, &tokens)?);
    }
    Ok(Lens {
        texts: tokens.iter().map(|&token| (look.piece)(token)).collect(),
        tokens,
        among: LIKELIEST.min(record.g.vocab),
        rank: points.iter().map(|row| row.iter().map(|point| point.rank).collect()).collect(),
        entropy: column(&|point| point.entropy),
        kl: column(&|point| point.kl),
        full,
        positions,
    })
}

/// Among the final distribution's likeliest tokens. The last row gives the model's own logits, to the bit.
fn restricted(look: &Look<'_>, record: &Record, row: usize, position: usize) -> Result<Point, InsideError> {
    let end = record.prediction(position);
    let logits = logits_from(look.model, record.before(row).at(position), &end.likeliest);
    // The likeliest stands first.
    let seen = distribution(&logits, 0)?;
    Ok(Point { rank: seen.rank, entropy: seen.entropy, kl: kl(&end.logits, &logits)? })
}

/// The whole vocabulary, after a layer; products summed in 16 parts in f32, which are added in order.
fn whole(look: &Look<'_>, record: &Record, layer: usize, tokens: &[u32]) -> Result<FullLens, InsideError> {
    let normed = |rows: &super::record::Rows, p| oracle::final_norm(look.model, rows.at(p));
    let (mut rank, mut entropy, mut divergence) = (Vec::new(), Vec::new(), Vec::new());
    for (p, &token) in record.window().zip(tokens) {
        let (x, end) = (normed(&record.layers[layer].stream, p), normed(record.last(), p));
        let head = look.model.lm_head;
        let pairs: Vec<(f32, f32)> = (0..record.g.vocab)
            .into_par_iter()
            .map_init(
                || vec![0.0; record.g.width],
                |row, n| {
                    head.row(n, row);
                    (product(row, &x), product(row, &end))
                },
            )
            .collect();
        let (seen, last): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let seen_by = distribution(&seen, token)?;
        rank.push(seen_by.rank);
        entropy.push(seen_by.entropy);
        divergence.push(kl(&last, &seen)?);
    }
    Ok(FullLens { layer, rank, entropy, kl: divergence })
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().fold(0.0, |sum, x| sum + x)
}

/// The row from which on the final token is first, at a position given by its place in the lens.
pub fn committed(lens: &Lens, at: usize) -> usize {
    let first = |row: &Vec<usize>| row[at] == 1;
    lens.rank.len() - lens.rank.iter().rev().take_while(|row| first(row)).count()
}

/// How many positions each row decides, most first.
pub fn deciding(lens: &Lens) -> Vec<Deciding> {
    let mut counts = BTreeMap::new();
    for at in 0..lens.positions.len() {
        *counts.entry(committed(lens, at)).or_insert(0) += 1;
    }
    let mut all: Vec<Deciding> =
        counts.into_iter().map(|(row, positions)| Deciding { row, positions }).collect();
    all.sort_by_key(|d| (std::cmp::Reverse(d.positions), d.row));
    all
}

/// Over some positions: the mean share of layers before the final token is first to stay, and the mean share of
/// layers that do not raise KL(final ‖ lens).
pub fn shape(lens: &Lens, positions: std::ops::Range<usize>) -> (f64, f64) {
    let layers = lens.rank.len().saturating_sub(1).max(1) as f64;
    let (mut depth, mut falls, mut n) = (0.0, 0.0, 0.0);
    for (at, _) in lens.positions.iter().enumerate().filter(|(_, p)| positions.contains(p)) {
        depth += committed(lens, at).min(lens.rank.len() - 1) as f64 / layers;
        let steps = lens.kl.windows(2).filter(|pair| pair[1][at] <= pair[0][at]).count();
        falls += steps as f64 / layers;
        n += 1.0;
    }
    if n == 0.0 { (0.0, 0.0) } else { (depth / n, falls / n) }
}

/// exp(−x), for scores.
pub fn decayed(x: f64) -> f64 {
    double::exp(-x)
}
