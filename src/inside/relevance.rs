//! What the answer rests on: the effect of every component and every prompt token, measured by ablating it.

use super::ablate::{Ablator, Instead, Off};
use super::lens::decayed;
use super::{Attribution, Cause, Component, InsideError, Relevance};
use crate::features::rank_correlation;

pub fn relevance(ablator: &Ablator<'_>, attribution: &Attribution) -> Result<Relevance, InsideError> {
    let record = ablator.record();
    let components = Component::all(&record.g);
    let variants: Vec<_> = components.iter().map(|&c| ablator.components(&[c])).collect();
    let effects = ablator.kl(&variants)?;
    // A token of the prompt that no target sees has no effect that could be measured.
    let prompt = record.prompt.min(record.targets().end);
    let mut tokens = Vec::with_capacity(prompt);
    let variants: Vec<Vec<Off>> = (0..prompt).map(|p| replaced(ablator, p, prompt)).collect();
    let mut effects_of_tokens = ablator.kl(&variants.concat())?.into_iter();
    for variants in &variants {
        let sum = effects_of_tokens.by_ref().take(variants.len()).fold(0.0, |sum, kl| sum + kl);
        tokens.push(sum / variants.len() as f64);
    }
    let rest = ablator.kl(&[ablator.tokens(0..prompt, Instead::Mean), ablator.nothing()])?;
    let direct: Vec<f64> = attribution.components.iter().map(|c| c.direct.abs()).collect();
    Ok(Relevance {
        value: 1.0 - decayed(rest[0]),
        prompt_kl: rest[0],
        null: rest[1],
        rank_correlation: rank_correlation(&effects, &direct),
        components: components
            .into_iter()
            .zip(effects)
            .map(|(component, kl)| Cause { component, kl })
            .collect(),
        tokens,
    })
}

/// A token of the prompt replaced by others of it: those a quarter, a half and three quarters of the prompt further on,
/// as far as they are others. The mean of embeddings is no token's, and breaks a model by itself; where a prompt is one
/// token over and over there is nothing else.
fn replaced(ablator: &Ablator<'_>, position: usize, prompt: usize) -> Vec<Off> {
    let own = ablator.record().fed[position];
    let mut others = Vec::new();
    for quarter in 1..4 {
        let start = position + (quarter * prompt).div_ceil(4);
        let other = (start..start + prompt).map(|p| ablator.record().fed[p % prompt]).find(|&t| t != own);
        others.extend(other.filter(|other| !others.contains(other)));
    }
    let alone = position..position + 1;
    match others.is_empty() {
        true => vec![ablator.tokens(alone, Instead::Mean)],
        false => others.into_iter().map(|t| ablator.tokens(alone.clone(), Instead::Other(t))).collect(),
    }
}
