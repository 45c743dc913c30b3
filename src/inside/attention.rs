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
    let all: Vec<(usize, usize)> =
        (0..record.g.layers).flat_map(|l| (0..record.g.heads).map(move |h| (l, h))).collect();
    all.into_par_iter().map(|(layer, head)| of(record, layer, head)).collect()
}

fn of(record: &Record, layer: usize, head: usize) -> Head {
    let tokens = &record.fed;
    let mut values: [Vec<f64>; 6] = std::array::from_fn(|_| Vec::new());
    // The first position has nothing to choose from.
    for position in record.window().filter(|&p| p > 0) {
        let p = record.weights(layer, head, position);
        let features = [
            head::entropy(&p),
            head::renyi2(&p),
            head::sink_mass(&p),
            head::previous_token(&p),
            head::duplicate_token(&p, tokens),
            head::induction(&p, tokens),
        ];
        values.iter_mut().zip(features).for_each(|(values, x)| values.push(x));
    }
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
        let rows = (start..record.end()).map(|p| record.weights(layer, head, p)).collect();
        AttentionMap { layer, head, start, rows }
    };
    heads.take(MAPS).map(map).collect()
}
