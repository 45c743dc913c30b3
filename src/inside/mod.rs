//! What happened inside a model while it answered: features of its blocks, what each layer would have said, what
//! each component did for the answer and what the answer would be without it, checks of all of it, and what is
//! unusual. From the weights and the transcript alone, in passes over it: by the numeric contract they give the bits
//! that the answer was made of. Knows no store, no step and no terminal. docs/INTROSPECTION.md defines each number.

mod ablate;
mod attention;
mod attribution;
mod checks;
mod component;
mod explain;
mod layers;
mod lens;
mod record;
mod relevance;
mod types;
mod unusual;

use pipe_kernels::math::double;
use pipe_kernels::sampler::SampleError;
use pipe_kernels::{ComputeError, Engine, Geometry, PackedModel, Sampler};

pub use component::Component;
pub use types::*;
pub use unusual::against;

use ablate::Ablator;
use record::Record;

/// What is introspected, and how much of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Most positions whose inside is described: the last so many of a transcript.
    pub window: usize,
    /// Layers whose lens looks at the whole vocabulary.
    pub full_lens: Vec<usize>,
    /// Most answer tokens that attribution and ablations look at: the first so many.
    pub targets: usize,
    /// Ablate, that is, find causes and explanations? By far the most work.
    pub causes: bool,
    /// KL in nats up to which an explanation counts as giving the same answer.
    pub faithful: f64,
}

/// A transcript to look into.
#[derive(Clone, Copy, Debug)]
pub struct Transcript<'a> {
    pub id: &'a str,
    pub prompt: &'a [u32],
    pub answer: &'a [u32],
}

impl Transcript<'_> {
    /// The tokens that go through the model: all but an answer's last, whose successor nobody asks for.
    fn fed(&self) -> Vec<u32> {
        let mut all = [self.prompt, self.answer].concat();
        all.truncate(self.prompt.len() + self.answer.len().saturating_sub(1));
        all
    }

    /// The token at a position of the whole transcript.
    fn token(&self, position: usize) -> Option<u32> {
        match self.prompt.get(position) {
            Some(token) => Some(*token),
            None => self.answer.get(position - self.prompt.len()).copied(),
        }
    }
}

/// What looks into it, and with what.
pub struct Look<'a> {
    pub engine: &'a Engine,
    pub model: &'a PackedModel<'a>,
    pub sampler: &'a Sampler,
    pub options: &'a Options,
    /// Bytes of a token, for people.
    pub piece: &'a (dyn Fn(u32) -> String + Sync),
    /// Told after each pass how many tokens it took; says whether to go on.
    pub progress: &'a (dyn Fn(u64) -> bool + Sync),
}

impl Look<'_> {
    /// A pass of so many tokens is done.
    fn passed(&self, tokens: usize) -> Result<(), InsideError> {
        if (self.progress)(tokens as u64) { Ok(()) } else { Err(InsideError::Cancelled) }
    }
}

/// Why one cannot look inside.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error(transparent)]
    Sample(#[from] SampleError),
    #[error(transparent)]
    Row(#[from] crate::specs::RowError),
    #[error("cancelled")]
    Cancelled,
    #[error("prompt {0} has no tokens; there is nothing inside")]
    Empty(String),
}

/// At most so many tokens go through the model to look into a transcript.
pub fn tokens_at_most(g: &Geometry, transcript: &Transcript<'_>, options: &Options) -> u64 {
    let fed = transcript.fed().len() as u64;
    let components = Component::all(g).len() as u64;
    // Each component alone, each prompt token replaced by up to three, two bisections, and a few by themselves.
    let bisections = 2 * u64::from(components.ilog2() + 2);
    let passes = match options.causes {
        true => components + 3 * transcript.prompt.len() as u64 + bisections + 5,
        false => 0,
    };
    fed * (1 + passes) + 1
}

/// Everything that can be said of one prompt.
pub fn look(look: &Look<'_>, transcript: &Transcript<'_>) -> Result<Inside, InsideError> {
    if transcript.prompt.is_empty() {
        return Err(InsideError::Empty(transcript.id.to_owned()));
    }
    let mut record = Record::make(look, transcript)?;
    let checks = checks::checks(look, &mut record)?;
    let lens = lens::lens(look, &record)?;
    let attribution = attribution::attribute(look, &record);
    let (mut relevance, mut beauty) = (None, None);
    if look.options.causes {
        let ablator = Ablator::new(look, &record)?;
        let found = relevance::relevance(&ablator, &attribution)?;
        beauty = Some(explain::beauty(&ablator, &attribution, &found, &lens, record.targets())?);
        relevance = Some(found);
    }
    let tokens = record.tokens(look, transcript);
    let mut inside = Inside {
        id: transcript.id.to_owned(),
        prompt_tokens: transcript.prompt.len(),
        width: record.g.width,
        window: Window { start: record.start, end: record.end() },
        prompt_perplexity: perplexity(&tokens, false),
        answer_perplexity: perplexity(&tokens, true),
        tokens,
        layers: layers::layers(&record),
        heads: attention::heads(&record),
        attention: attention::maps(&record, &attribution, relevance.as_ref()),
        lens,
        attribution,
        relevance,
        beauty,
        deciding: Vec::new(),
        unusual: Vec::new(),
        checks,
    };
    inside.deciding = lens::deciding(&inside.lens);
    inside.unusual = unusual::alone(&inside);
    Ok(inside)
}

/// exp of the mean −ln p of the tokens whose prediction is known.
fn perplexity(tokens: &[Token], generated: bool) -> Option<f64> {
    let known = tokens.iter().filter(|token| token.generated == generated).filter_map(|t| t.prediction);
    let (count, sum) = known.fold((0usize, 0.0), |(n, sum), p| (n + 1, sum - p.log_probability));
    (count > 0).then(|| double::exp(sum / count as f64))
}

#[cfg(test)]
mod tests;
