//! What each head attends to: features of its weights over the window, and the weights of the heads that matter.

use rayon::prelude::*;

use super::record::Record;
use super::{AttentionMap, Attribution, Component, Head, Relevance, Role, Stat};
use crate::features::head;

/// Heads whose weights are kept, and how many positions of them at most.
const MAPS: usize = 6;
const MAP_ROWS: usize = 64;
/// What takes more than this share of a head's weight, on average, is what it does.
const MOSTLY: f64 = 0.5;

pub fn heads(record: &Record) -> Vec<Head> {
    (0..record.g.layers).into_par_iter().flat_map(|layer| of_layer(record, layer)).collect()
}

/// A head's features, position by position.
type Values = [Vec<f64>; 6];

fn of_layer(record: &Record, layer: usize) -> Vec<Head> {
    let tokens = &record.fed;
    let mut all: Vec<Values> = vec![Values::default(); record.g.heads];
    // The first position has nothing to choose from.
    for position in record.window().filter(|&p| p > 0) {
        let weights = record.weights(layer, position);
        for (values, p) in all.iter_mut().zip(weights.chunks_exact(position + 1)) {
            let features = [
                head::entropy(p),
                head::renyi2(p),
                head::sink_mass(p),
                head::previous_token(p),
                head::duplicate_token(p, tokens),
                head::induction(p, tokens),
            ];
            values.iter_mut().zip(features).for_each(|(values, x)| values.push(x));
        }
    }
    all.into_iter().enumerate().map(|(head, values)| of(layer, head, values)).collect()
}

fn of(layer: usize, head: usize, values: Values) -> Head {
    let [entropy, renyi2, sink, previous, duplicate, induction] = values.map(|v| Stat::of(&v));
    let does = [
        (previous, Role::PreviousToken),
        (induction, Role::Induction),
        (duplicate, Role::DuplicateToken),
        (sink, Role::Sink),
    ];
    let role = does.iter().find(|(stat, _)| stat.mean > MOSTLY).map_or(Role::Mixed, |(_, role)| *role);
    Head { layer, head, entropy, renyi2, sink, previous, duplicate, induction, role }
}

/// Weights of the heads with the largest effect: measured where it was, else attributed.
pub fn maps(record: &Record, attribution: &Attribution, relevance: Option<&Relevance>) -> Vec<AttentionMap> {
    let mut effects: Vec<(f64, Component)> = match relevance {
        Some(relevance) => relevance.components.iter().map(|c| (c.kl, c.component)).collect(),
        None => attribution.components.iter().map(|c| (c.direct.abs(), c.component)).collect(),
    };
    effects.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let start = record.end().saturating_sub(MAP_ROWS).max(record.start);
    let heads = effects.into_iter().filter_map(|(_, component)| match component {
        Component::Head { layer, head } => Some((layer, head)),
        Component::Ffn { .. } => None,
    });
    let map = |(layer, head)| {
        let row = |p: usize| record.weights(layer, p)[head * (p + 1)..(head + 1) * (p + 1)].to_vec();
        let rows = (start..record.end()).map(row).collect();
        AttentionMap { layer, head, start, rows }
    };
    heads.take(MAPS).map(map).collect()
}
