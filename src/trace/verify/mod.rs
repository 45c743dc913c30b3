//! The check of whole transcripts: prompt and answer go through the model together, in a few passes, and every
//! digest, kept row and chosen token is compared with what was claimed. Knows no store and no step.

mod difference;
mod look;

use std::collections::VecDeque;

use pipe_kernels::sampler::SampleError;
use pipe_kernels::{
    BlockOutput, ComputeError, Engine, KvCache, Logits, PackedModel, Sampler, Slice, Tap, Want,
};
use pipe_store::{Digest, StoreError};

pub use difference::{Difference, What};
use look::{Look, Stage};

use super::{Layout, Part, Trace};
use crate::probe::Collector;

/// Prompts in the engine at once.
const ACTIVE_MAX: usize = 16;
/// Tokens of one pass, over all prompts.
const ROWS_MAX: usize = 512;
/// Bytes of logits of one pass.
const LOGITS_MAX: usize = 16 << 20;

/// What is claimed of one prompt.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub id: &'a str,
    pub prompt: &'a [u32],
    pub generated: &'a [u32],
    /// How many of these tokens went through the model: all, or all but the last.
    pub computed: usize,
    pub root: Digest,
    /// Logits of the last prompt position, f32 little-endian.
    pub logits: Option<&'a [u8]>,
    /// Log-likelihood of every prompt token after the first, f64 little-endian.
    pub log_likelihood: Option<&'a [u8]>,
}

impl Claim<'_> {
    fn len(&self) -> usize {
        self.prompt.len() + self.generated.len()
    }

    pub(crate) fn token(&self, position: usize) -> Option<u32> {
        match self.prompt.get(position) {
            Some(token) => Some(*token),
            None => self.generated.get(position - self.prompt.len()).copied(),
        }
    }

    /// The first position whose logits say something about a claim.
    fn first_logits(&self) -> usize {
        match (self.log_likelihood, self.generated.is_empty() && self.logits.is_none()) {
            (Some(_), _) => 0,
            (None, false) => self.prompt.len().saturating_sub(1),
            (None, true) => usize::MAX,
        }
    }
}

/// By what transcripts are checked.
#[derive(Clone, Copy)]
pub struct Check<'a> {
    pub engine: &'a Engine,
    pub model: &'a PackedModel<'a>,
    pub sampler: &'a Sampler,
    pub trace: &'a Trace<'a>,
    /// Told how many tokens of how many are done.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

/// What was checked, and what differs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verified {
    /// Chosen.
    pub prompts: usize,
    /// Positions computed again.
    pub positions: usize,
    /// Digests of rows.
    pub digests: usize,
    /// Generated tokens.
    pub tokens: usize,
    /// The first difference of each prompt that has one, in the order of the prompts.
    pub differences: Vec<Difference>,
}

/// The check itself could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error("the sampling rule: {0}")]
    Sampler(#[from] SampleError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A prompt in the engine.
struct Active<'a> {
    index: usize,
    tokens: Vec<u32>,
    cache: KvCache,
    claim: &'a Claim<'a>,
}

/// Checks every claim about prompts against the trace, the model and the rule. A machine that cannot compute is
/// an error; whatever is not as claimed is a difference.
pub fn verify(check: &Check<'_>, claims: &[Claim<'_>]) -> Result<Verified, VerifyError> {
    verify_probed(check, claims, &|_| true, &mut Collector::none())
}

/// [`verify`] of the chosen prompts, with probes that see what is computed again. They have seen all of these prompts
/// where nothing differs.
pub fn verify_probed(
    check: &Check<'_>,
    claims: &[Claim<'_>],
    chosen: &dyn Fn(usize) -> bool,
    probes: &mut Collector,
) -> Result<Verified, VerifyError> {
    check.sampler.check()?;
    let layout = Layout::new(check.trace.level, &check.model.geometry);
    if let Some(difference) = of_the_file(check, &layout, claims) {
        let differences = vec![difference];
        return Ok(Verified { differences, ..Verified::default() });
    }
    let look = Look::new(check, &layout, claims);
    let mut verified = Verified::default();
    let mut waiting: VecDeque<Active<'_>> = VecDeque::new();
    for (index, claim) in claims.iter().enumerate().filter(|(index, _)| chosen(*index)) {
        verified.prompts += 1;
        verified.tokens += claim.generated.len();
        let tokens = feed(check, &look, index, claim);
        if !tokens.is_empty() {
            waiting.push_back(Active { index, tokens, cache: KvCache::new(&check.model.geometry), claim });
        }
    }
    let total = waiting.iter().map(|a| a.tokens.len()).sum();
    let mut active = Vec::new();
    let mut logits = Logits::new();
    loop {
        // Later positions cannot hold a prompt's first difference.
        active
            .retain(|a: &Active<'_>| a.cache.len() < a.tokens.len() && !look.differs(a.index, a.cache.len()));
        active.extend(waiting.drain(..waiting.len().min(ACTIVE_MAX - active.len())));
        if active.is_empty() {
            break;
        }
        verified.positions += pass(check, &look, &mut active, &mut logits, probes)?;
        (check.progress)(verified.positions, total);
    }
    verified.digests = verified.positions * layout.blocks.len();
    verified.differences = look.finish()?;
    Ok(verified)
}

/// Does the trace speak about this model and these prompts at all?
fn of_the_file(check: &Check<'_>, layout: &Layout, claims: &[Claim<'_>]) -> Option<Difference> {
    let (trace, spec) = (check.trace, check.model.spec.id());
    let what = if trace.spec != spec {
        What::file("spec", spec, &trace.spec)
    } else if trace.blocks != layout.blocks {
        let different = layout.blocks.iter().zip(&trace.blocks).position(|(a, b)| a != b);
        let at = different.unwrap_or(layout.blocks.len().min(trace.blocks.len()));
        let name = |blocks: &[pipe_kernels::Block]| blocks.get(at).map_or("none".into(), ToString::to_string);
        What::file("blocks", &name(&layout.blocks), &name(&trace.blocks))
    } else if trace.prompts.len() != claims.len() {
        What::file("prompts", &claims.len().to_string(), &trace.prompts.len().to_string())
    } else {
        return None;
    };
    let id = claims.first().map_or_else(String::new, |claim| claim.id.to_owned());
    Some(Difference { prompt: 0, id, position: 0, token: None, what })
}

/// The tokens that can be computed again. What is seen to be wrong without computing is noted.
fn feed(check: &Check<'_>, look: &Look<'_>, index: usize, claim: &Claim<'_>) -> Vec<u32> {
    let (geometry, traced) = (&check.model.geometry, &check.trace.prompts[index]);
    let claimed: Vec<u32> = claim.prompt.iter().chain(claim.generated).copied().collect();
    let both = claimed.iter().zip(&traced.tokens);
    let same = both.take_while(|(a, b)| a == b).count();
    if same < claimed.len().max(traced.tokens.len()) {
        let (expected, found) = (claimed.get(same).copied(), traced.tokens.get(same).copied());
        look.note(index, same, Stage::Token, What::Token { expected, found });
    } else if traced.computed != claim.computed {
        let (expected, found) = (claim.computed, traced.computed);
        look.note(index, expected.min(found), Stage::Token, What::Computed { expected, found });
    }
    if claim.prompt.is_empty() {
        let (field, expected, found) = ("prompt_tokens", "at least 1".into(), "0".into());
        look.note(index, 0, Stage::Sample, What::Answer { field, expected, found });
    }
    let known = claimed.iter().take_while(|&&token| (token as usize) < geometry.vocab).count();
    if let Some(&found) = claimed.get(known) {
        look.note(index, known, Stage::Token, What::Vocabulary { found, vocab: geometry.vocab });
    }
    let bytes = [
        ("logits", claim.logits, geometry.vocab * 4),
        ("log_likelihood", claim.log_likelihood, claim.prompt.len().saturating_sub(1) * 8),
    ];
    for (of, bytes, expected) in bytes {
        if let Some(found) = bytes.map(<[u8]>::len).filter(|found| *found != expected) {
            look.note(index, 0, Stage::Token, What::Length { of, expected, found });
        }
    }
    if claimed.len() > geometry.context {
        let (expected, found) = (geometry.context, claimed.len());
        look.note(index, expected, Stage::Sample, What::Context { expected, found });
    }
    let computed = claim.computed.min(traced.computed).min(known).min(geometry.context);
    claimed[..computed].to_vec()
}

/// One call of the engine: a piece of each active prompt, as much as one pass and the logits have room for.
/// Returns how many tokens were computed.
fn pass(
    check: &Check<'_>,
    look: &Look<'_>,
    active: &mut [Active<'_>],
    logits: &mut Logits,
    probes: &mut Collector,
) -> Result<usize, VerifyError> {
    let mut rows = ROWS_MAX.min(probes.most_rows());
    let mut wanted = (LOGITS_MAX / (check.model.geometry.vocab * 4)).max(1);
    let (mut batch, mut prompts, mut parts, mut count) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for a in active.iter_mut() {
        let start = a.cache.len();
        let rest = a.tokens.len() - start;
        let first = a.claim.first_logits().min(probes.plan().first_logits(a.claim.prompt.len()));
        let (take, want) = match first.saturating_sub(start) {
            0 => (rest.min(rows).min(wanted), Want::All),
            before => (rest.min(rows).min(before), Want::None),
        };
        if take > 0 {
            rows -= take;
            wanted -= if want == Want::All { take } else { 0 };
            count += take;
            prompts.push(a.index);
            parts.push(Part { prompt: a.index, start, count: take });
            batch.push(Slice { cache: &mut a.cache, tokens: &a.tokens[start..start + take], want });
        }
    }
    let see = |output: BlockOutput<'_>| look.see(&prompts, &output);
    let tap = Tap { wants: &|block| look.wants(block), see: &see };
    let forward = |tap: Tap<'_>| Ok(check.engine.observed(check.model, &mut batch, logits, Some(tap))?);
    match probes.observe(&parts, tap, forward) {
        Ok(()) => {
            active.iter().try_for_each(|a| probes.attend(a.index, a.tokens.iter().copied(), &a.cache))?;
            Ok(count)
        }
        // A claim never holds such a value. The others' tokens come again, without this one.
        Err(VerifyError::Compute(ComputeError::NotFinite { block, sequence, position, element, what })) => {
            let index = prompts[sequence];
            look.note(index, position, look.stage(block), What::NotFinite { block, element, what });
            let bad = active.iter_mut().filter(|a| a.index == index);
            bad.for_each(|a| a.tokens.truncate(a.cache.len()));
            Ok(0)
        }
        Err(e) => Err(e),
    }
}
