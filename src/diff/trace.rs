//! Two traces of inferences: the first place, by position and block, at which the insides part.

use pipe_store::Digest;
use safetensors::Dtype;
use serde::Serialize;

use super::numbers::{self, Numbers};
use crate::trace::Trace;

/// Two traces.
#[derive(Clone, Debug, Serialize)]
pub struct TraceDiff {
    /// Of the two, where they are not one.
    pub spec: Option<[String; 2]>,
    pub level: Option<[&'static str; 2]>,
    /// Prompts of each side.
    pub prompts: [usize; 2],
    /// Prompts that both have and that differ.
    pub differing: Vec<TracedDiff>,
}

/// A prompt's transcript.
#[derive(Clone, Debug, Serialize)]
pub struct TracedDiff {
    /// The prompt's number.
    pub prompt: usize,
    /// The lowest position that differs.
    pub position: usize,
    /// The tokens there.
    pub tokens: [Option<u32>; 2],
    /// The earliest block whose output differs there. None: the token itself, or what follows it, differs.
    pub block: Option<String>,
    pub digests: Option<[Digest; 2]>,
    /// That block's row, if both traces keep it.
    pub row: Option<Numbers>,
    /// Rows with other digests, of those that both have.
    pub rows_differing: usize,
    pub rows: usize,
    /// Among the blocks kept by both, the one whose rows are farthest apart, with where.
    pub farthest: Option<(String, Numbers)>,
}

pub fn diff(a: &[u8], b: &[u8]) -> Result<TraceDiff, String> {
    let open = |bytes| Trace::open(bytes).map_err(|e| e.to_string());
    let (a, b) = (open(a)?, open(b)?);
    // Blocks that both cover, in the order of the schedule, with their slots.
    let slots: Vec<(String, [usize; 2])> = a
        .blocks
        .iter()
        .enumerate()
        .filter_map(|(at, block)| {
            let other = b.blocks.iter().position(|other| other == block)?;
            Some((block.to_string(), [at, other]))
        })
        .collect();
    let shared = a.prompts.len().min(b.prompts.len());
    let differing = (0..shared).filter_map(|prompt| traced(prompt, [&a, &b], &slots)).collect();
    Ok(TraceDiff {
        spec: (a.spec != b.spec).then(|| [a.spec.clone(), b.spec.clone()]),
        level: (a.level != b.level).then(|| [a.level.name(), b.level.name()]),
        prompts: [a.prompts.len(), b.prompts.len()],
        differing,
    })
}

fn traced(prompt: usize, [a, b]: [&Trace<'_>; 2], slots: &[(String, [usize; 2])]) -> Option<TracedDiff> {
    let (a, b) = (&a.prompts[prompt], &b.prompts[prompt]);
    let computed = a.computed.min(b.computed);
    let tokens = |position: usize| [a.tokens.get(position).copied(), b.tokens.get(position).copied()];
    let differs = |position: usize, [x, y]: [usize; 2]| a.digest(position, x) != b.digest(position, y);
    let length = a.tokens.len().max(b.tokens.len());
    let at_token = (0..length).find(|&p| tokens(p)[0] != tokens(p)[1]);
    let before = at_token.map_or(computed, |at| at.min(computed));
    let at_row =
        (0..before).find_map(|p| slots.iter().find(|(_, slot)| differs(p, *slot)).map(|slot| (p, slot)));
    // Where tokens differ, so does everything that follows from them: the token is what to name.
    let (position, slot) = match (at_row, at_token) {
        (Some((position, slot)), _) => (position, Some(slot)),
        (None, Some(position)) => (position, None),
        (None, None) if a.computed != b.computed => (computed, None),
        (None, None) => return None,
    };
    let digests = slot.and_then(|(_, [x, y])| Some([a.digest(position, *x)?, b.digest(position, *y)?]));
    let row = slot.and_then(|(_, [x, y])| {
        let (a, b) = (a.row(position, *x)?, b.row(position, *y)?);
        (a.len() == b.len()).then(|| numbers::compare(Dtype::F32, &[a.len() / 4], a, b))
    });
    let rows_differing =
        (0..computed).map(|p| slots.iter().filter(|(_, slot)| differs(p, *slot)).count()).sum();
    let kept = slots.iter().filter_map(|(name, [x, y])| {
        let rows = |of: &crate::trace::TracedPrompt<'_>, slot| {
            (0..computed).map(|p| of.row(p, slot)).collect::<Option<Vec<_>>>().map(|rows| rows.concat())
        };
        let (a, b) = (rows(a, *x)?, rows(b, *y)?);
        let comparable = a.len() == b.len() && computed > 0 && !a.is_empty();
        let numbers = || numbers::compare(Dtype::F32, &[computed, a.len() / 4 / computed], &a, &b);
        comparable.then(numbers).filter(|n| n.differing > 0).map(|n| (name.clone(), n))
    });
    let farthest = kept.reduce(|far, next| if next.1.max_abs > far.1.max_abs { next } else { far });
    Some(TracedDiff {
        prompt,
        position,
        tokens: tokens(position),
        block: slot.map(|(name, _)| name.clone()),
        digests,
        row,
        rows_differing,
        rows: computed * slots.len(),
        farthest,
    })
}
