//! The smallest faithful explanation of an answer: so many components that, with all others ablated, the model
//! still says the same. Knows how to search, not how to ablate.
//!
//! Sufficiency and comprehensiveness: DeYoung and others 2020, ERASER (arXiv 1911.03429).

use std::ops::Range;

use super::ablate::Ablator;
use super::lens::shape;
use super::{Attribution, Beauty, Component, InsideError, Lens, Ranking, Relevance};
use crate::features::gini;

pub fn beauty(
    ablator: &Ablator<'_>,
    attribution: &Attribution,
    relevance: &Relevance,
    lens: &Lens,
    targets: Range<usize>,
) -> Result<Beauty, InsideError> {
    let direct: Vec<f64> = attribution.components.iter().map(|c| c.direct.abs()).collect();
    let causal: Vec<f64> = relevance.components.iter().map(|c| c.kl).collect();
    let all: Vec<Component> = relevance.components.iter().map(|c| c.component).collect();
    let mut best: Option<(Vec<Component>, Ranking)> = None;
    for (effects, ranking) in [(&direct, Ranking::Direct), (&causal, Ranking::Causal)] {
        let ranked = ranked(&all, effects);
        let found = smallest(ablator, &ranked)?;
        if best.as_ref().is_none_or(|(explanation, _)| found < explanation.len()) {
            best = Some((ranked[..found].to_vec(), ranking));
        }
    }
    let (explanation, ranking) = best.unwrap_or((all.clone(), Ranking::Direct));
    let kl = ablator.kl(&[ablator.all_but(&explanation), ablator.components(&explanation)])?;
    let (sufficient, comprehensive) = (kl[0] <= ablator.faithful(), kl[1] > ablator.faithful());
    let share = explanation.len() as f64 / all.len().max(1) as f64;
    let (commit_depth, monotonicity) = shape(lens, targets);
    Ok(Beauty {
        value: if sufficient && comprehensive { 1.0 - share } else { 0.0 },
        explanation,
        components: all.len(),
        ranking,
        sufficiency: kl[0],
        sufficient,
        comprehensiveness: kl[1],
        comprehensive,
        faithful: ablator.faithful(),
        commit_depth,
        gini: gini(&direct),
        monotonicity,
    })
}

/// Largest effect first; of equal ones the earlier component.
fn ranked(all: &[Component], effects: &[f64]) -> Vec<Component> {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|&a, &b| effects[b].total_cmp(&effects[a]).then(a.cmp(&b)));
    order.into_iter().map(|i| all[i]).collect()
}

/// How many of the first components suffice, by bisection. More need not be better, so this is a number that does
/// suffice and not always the least that does. All of them always do.
fn smallest(ablator: &Ablator<'_>, ranked: &[Component]) -> Result<usize, InsideError> {
    let suffices = |n: usize| -> Result<bool, InsideError> {
        Ok(ablator.kl(&[ablator.all_but(&ranked[..n])])?[0] <= ablator.faithful())
    };
    let (mut low, mut high) = (0, ranked.len());
    while low < high {
        let middle = low.midpoint(high);
        if suffices(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(high)
}
