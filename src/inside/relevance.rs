//! What the answer rests on: the effect of every component and every prompt token, measured by ablating it.

use super::ablate::Ablator;
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
    let variants: Vec<_> = (0..prompt).map(|p| ablator.tokens(p..p + 1)).collect();
    let tokens = ablator.kl(&variants)?;
    let rest = ablator.kl(&[ablator.tokens(0..prompt), ablator.nothing()])?;
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
