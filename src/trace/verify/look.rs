//! The comparison, on the engine's threads, of what the blocks give with what was claimed.

use std::sync::{Mutex, PoisonError};

use pipe_kernels::sampler::{SampleError, log_softmax_at};
use pipe_kernels::{Block, BlockGraph, BlockOutput};

use super::{Check, Claim, Difference, VerifyError, What};
use crate::trace::{Layout, digest};

/// In which order differences at one position count: the choice of the token there came first, the blocks that
/// the token went through follow in the schedule's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Sample,
    Token,
    /// By its place in the schedule.
    Block(usize),
    Root,
}

pub struct Look<'a> {
    check: &'a Check<'a>,
    layout: &'a Layout,
    claims: &'a [Claim<'a>],
    schedule: Vec<Block>,
    noted: Mutex<Noted>,
}

struct Noted {
    /// The first difference of each prompt, so far.
    first: Vec<Option<(usize, Stage, What)>>,
    error: Option<SampleError>,
}

impl<'a> Look<'a> {
    pub fn new(check: &'a Check<'a>, layout: &'a Layout, claims: &'a [Claim<'a>]) -> Self {
        let schedule = BlockGraph::new(&check.model.geometry).schedule().to_vec();
        let noted = Noted { first: vec![None; claims.len()], error: None };
        Look { check, layout, claims, schedule, noted: Mutex::new(noted) }
    }

    pub fn wants(&self, block: Block) -> bool {
        block == Block::LmHead || self.layout.slot(block).is_some()
    }

    pub fn stage(&self, block: Block) -> Stage {
        Stage::Block(self.schedule.iter().position(|&b| b == block).unwrap_or(self.schedule.len()))
    }

    /// Keeps a difference if none of the prompt is known to come before it.
    pub fn note(&self, prompt: usize, position: usize, stage: Stage, what: What) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let first = &mut noted.first[prompt];
        if first.as_ref().is_none_or(|(p, s, _)| (position, stage) <= (*p, *s)) {
            *first = Some((position, stage, what));
        }
    }

    /// Is a difference known in the first `positions` positions?
    pub fn differs(&self, prompt: usize, positions: usize) -> bool {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.first[prompt].as_ref().is_some_and(|(position, ..)| *position < positions)
    }

    /// The tap: compares some rows of a batch whose slices belong to these prompts.
    pub fn see(&self, prompts: &[usize], output: &BlockOutput<'_>) {
        match self.layout.slot(output.block) {
            Some(slot) => self.rows(prompts, output, slot),
            None => self.logits(prompts, output),
        }
    }

    fn rows(&self, prompts: &[usize], output: &BlockOutput<'_>, slot: usize) {
        let rows: Vec<&[u8]> = output.bytes().map(|(_, bytes)| bytes).collect();
        let mut digests = Vec::with_capacity(rows.len());
        digest::rows(&rows, &mut digests);
        let block = output.block;
        let keeps = self.layout.kept().any(|(kept, ..)| kept == slot);
        for ((place, bytes), expected) in output.bytes().zip(digests) {
            let prompt = prompts[place.sequence];
            let traced = &self.check.trace.prompts[prompt];
            let found = traced.digest(place.position, slot);
            let what = if found != Some(expected) {
                What::Row { block, expected, found }
            } else if keeps && traced.row(place.position, slot) != Some(bytes) {
                kept(block, bytes, traced.row(place.position, slot).unwrap_or_default())
            } else {
                continue;
            };
            self.note(prompt, place.position, self.stage(block), what);
        }
    }

    fn logits(&self, prompts: &[usize], output: &BlockOutput<'_>) {
        for ((place, logits), (_, bytes)) in output.rows().zip(output.bytes()) {
            let prompt = prompts[place.sequence];
            let claim = &self.claims[prompt];
            // These logits say which token comes next.
            let next = place.position + 1;
            let result = if next < claim.prompt.len() {
                self.likelihood(prompt, claim, next, logits)
            } else {
                self.choice(prompt, claim, next, logits)
            };
            if let Err(e) = result {
                self.noted.lock().unwrap_or_else(PoisonError::into_inner).error = Some(e);
            }
            let Some(found) = claim.logits.filter(|found| next == claim.prompt.len() && *found != bytes)
            else {
                continue;
            };
            let words = || bytes.as_chunks().0.iter().zip(found.as_chunks().0);
            if let Some((token, (a, b))) = words().enumerate().find(|(_, (a, b))| a != b) {
                let (expected, found) = (f32::from_le_bytes(*a), f32::from_le_bytes(*b));
                let what = What::Logit { token, expected, found };
                self.note(prompt, place.position, self.stage(Block::LmHead), what);
            }
        }
    }

    fn choice(
        &self,
        prompt: usize,
        claim: &Claim<'_>,
        position: usize,
        logits: &[f32],
    ) -> Result<(), SampleError> {
        let Some(found) = claim.token(position) else { return Ok(()) };
        let expected = self.check.sampler.choose(logits, position as u64)?;
        if expected != found {
            self.note(prompt, position, Stage::Sample, What::Sample { expected, found });
        }
        Ok(())
    }

    fn likelihood(
        &self,
        prompt: usize,
        claim: &Claim<'_>,
        position: usize,
        logits: &[f32],
    ) -> Result<(), SampleError> {
        let Some(claimed) = claim.log_likelihood else { return Ok(()) };
        // A claim of another length has been noted.
        let Some(found) = claimed.as_chunks().0.get(position - 1) else { return Ok(()) };
        let (expected, found) = (log_softmax_at(logits, claim.prompt[position])?, f64::from_le_bytes(*found));
        if expected.to_bits() != found.to_bits() {
            self.note(prompt, position, Stage::Sample, What::LogLikelihood { expected, found });
        }
        Ok(())
    }

    /// The first difference of each prompt; where nothing else differs, the root is compared.
    pub fn finish(self) -> Result<Vec<Difference>, VerifyError> {
        for (prompt, claim) in self.claims.iter().enumerate() {
            // The trace's tokens and digests are the model's if nothing differs, and so is what follows.
            let expected = self.check.trace.prompts[prompt].root();
            if !self.differs(prompt, usize::MAX) && expected != claim.root {
                let last = claim.len().saturating_sub(1);
                self.note(prompt, last, Stage::Root, What::Root { expected, found: claim.root });
            }
        }
        let noted = self.noted.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(e) = noted.error {
            return Err(e.into());
        }
        let differences = noted.first.into_iter().enumerate().filter_map(|(prompt, first)| {
            let (position, _, what) = first?;
            let claim = &self.claims[prompt];
            Some(Difference { prompt, id: claim.id.into(), position, token: claim.token(position), what })
        });
        Ok(differences.collect())
    }
}

fn kept(block: Block, expected: &[u8], found: &[u8]) -> What {
    let words =
        expected.as_chunks().0.iter().enumerate().map(|(i, word)| (i, word, found.as_chunks().0.get(i)));
    let different = words.into_iter().find(|(_, expected, found)| *found != Some(*expected));
    let (element, expected, found) = match different {
        Some((i, expected, found)) => {
            (i, f32::from_le_bytes(*expected), found.map(|f| f32::from_le_bytes(*f)))
        }
        // The found row goes on where it should end.
        None => (expected.len() / 4, 0.0, None),
    };
    What::Kept { block, element, expected, found }
}
