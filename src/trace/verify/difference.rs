//! What is not as claimed: where it is, and in what.

use pipe_kernels::Block;
use pipe_kernels::error::NotFinite;
use pipe_store::Digest;

/// The first difference of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The prompt's number, and its id.
    pub prompt: usize,
    pub id: String,
    pub position: usize,
    /// The transcript's token there, if it has one.
    pub token: Option<u32>,
    pub what: What,
}

/// What differs at a position. `found` is what was claimed, `expected` what the model says.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The trace is about another model or other prompts.
    File { of: &'static str, expected: String, found: String },
    /// The rule chooses another token from the logits than stands in the answer.
    Sample { expected: u32, found: u32 },
    /// The trace names another token than the transcript.
    Token { expected: Option<u32>, found: Option<u32> },
    /// The model has no such token.
    Vocabulary { found: u32, vocab: usize },
    /// The transcript is longer than the model's context.
    Context { expected: usize, found: usize },
    /// The trace has rows for so many positions.
    Computed { expected: usize, found: usize },
    /// The digest of a block's row.
    Row { block: Block, expected: Digest, found: Option<Digest> },
    /// A row that is kept, from this element on; its digest is right.
    Kept { block: Block, element: usize, expected: f32, found: Option<f32> },
    /// The model gives no number here.
    NotFinite { block: Block, element: usize, what: NotFinite },
    /// A kept logit of the last prompt position.
    Logit { token: usize, expected: f32, found: f32 },
    /// The log-likelihood of the token here.
    LogLikelihood { expected: f64, found: f64 },
    /// What a probe took: a tensor of its artifact, without the prompt's number.
    Probe { tensor: String, element: usize, expected: String, found: String },
    /// Bytes of an artifact's values.
    Length { of: &'static str, expected: usize, found: usize },
    /// The root in the answer. Everything below it is right.
    Root { expected: Digest, found: Digest },
    /// An artifact that cannot be read, or has other bytes although all its numbers are right.
    Artifact { name: &'static str, expected: String, found: String },
    /// Another field of the answer.
    Answer { field: &'static str, expected: String, found: String },
}

impl What {
    pub(super) fn file(of: &'static str, expected: &str, found: &str) -> Self {
        What::File { of, expected: expected.into(), found: found.into() }
    }

    /// The block whose output differs: as in the trace, or `sample` for the choice of a token. What is no
    /// block's has a name of its own: `token`, `log_likelihood`, `root`, `trace`, a field of the answer or an artifact.
    pub fn name(&self) -> String {
        match self {
            What::File { .. } | What::Computed { .. } => "trace".into(),
            What::Sample { .. } => Block::Sample.to_string(),
            What::Token { .. } | What::Vocabulary { .. } | What::Context { .. } => "token".into(),
            What::Row { block, .. } | What::Kept { block, .. } | What::NotFinite { block, .. } => {
                block.to_string()
            }
            What::Logit { .. } => Block::LmHead.to_string(),
            What::LogLikelihood { .. } => "log_likelihood".into(),
            What::Length { of, .. } => (*of).into(),
            What::Probe { tensor, .. } => tensor.clone(),
            What::Root { .. } => "root".into(),
            What::Artifact { name, .. } => (*name).into(),
            What::Answer { field, .. } => (*field).into(),
        }
    }

    /// What the model, the rule or the transcript says.
    pub fn expected(&self) -> String {
        match self {
            What::File { of, expected, .. } => format!("{of}: {expected}"),
            What::Sample { expected, .. } => format!("token {expected}"),
            What::Token { expected, .. } => token(*expected),
            What::Vocabulary { vocab, .. } => format!("a token below {vocab}"),
            What::Context { expected, .. } => format!("at most {expected} tokens"),
            What::Computed { expected, .. } => format!("{expected} positions with rows"),
            What::Row { expected, .. } => expected.to_string(),
            What::Kept { element, expected, .. } => format!("element {element}: {expected}"),
            What::NotFinite { element, what, .. } => format!("element {element}: {what}"),
            What::Logit { token, expected, .. } => format!("logit of token {token}: {expected}"),
            What::LogLikelihood { expected, .. } => expected.to_string(),
            What::Probe { element, expected, .. } => format!("element {element}: {expected}"),
            What::Length { expected, .. } => format!("{expected} bytes"),
            What::Root { expected, .. } => expected.to_string(),
            What::Artifact { expected, .. } | What::Answer { expected, .. } => expected.clone(),
        }
    }

    /// What was claimed.
    pub fn found(&self) -> String {
        match self {
            What::File { of, found, .. } => format!("{of}: {found}"),
            What::Sample { found, .. } | What::Vocabulary { found, .. } => format!("token {found}"),
            What::Token { found, .. } => token(*found),
            What::Context { found, .. } => format!("{found} tokens"),
            What::Computed { found, .. } => format!("{found} positions with rows"),
            What::Row { found, .. } => found.map_or_else(|| "none".into(), |digest| digest.to_string()),
            What::Kept { found, .. } => found.map_or_else(|| "none".into(), |value| value.to_string()),
            What::NotFinite { .. } => "a finite number".into(),
            What::Logit { found, .. } => found.to_string(),
            What::LogLikelihood { found, .. } => found.to_string(),
            What::Probe { found, .. } => found.clone(),
            What::Length { found, .. } => format!("{found} bytes"),
            What::Root { found, .. } => found.to_string(),
            What::Artifact { found, .. } | What::Answer { found, .. } => found.clone(),
        }
    }
}

fn token(token: Option<u32>) -> String {
    token.map_or_else(|| "no token".into(), |token| format!("token {token}"))
}
