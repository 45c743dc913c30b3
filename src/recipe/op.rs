//! What a step asks for: a closed enum of plain data. Does no I/O, knows no cache and no graph.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use pipe_kernels::{Sampler, Spec, Width};
use pipe_store::Digest;
use serde::{Deserialize, Serialize};

use crate::probe::Probe;
pub use crate::score::{Bootstrap, Matching};

/// What a step does, with its parameters. Inputs are edges of the graph, not fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    Fetch(Fetch),
    File(LocalFile),
    Tokenize(Tokenize),
    Pack(Pack),
    Infer(Infer),
    Score(Score),
    Introspect(Introspect),
    Checksum(Checksum),
}

impl Op {
    /// The name a recipe uses.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Fetch(_) => "fetch",
            Op::File(_) => "file",
            Op::Tokenize(_) => "tokenize",
            Op::Pack(_) => "pack",
            Op::Infer(_) => "infer",
            Op::Score(_) => "score",
            Op::Introspect(_) => "introspect",
            Op::Checksum(_) => "checksum",
        }
    }
}

/// Bytes from outside whose hash is known beforehand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fetch {
    /// One entry named "file", or several (a Hugging Face folder) under their own names.
    pub files: Vec<FetchFile>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FetchFile {
    pub name: String,
    /// Tried in order; any may answer, the hash decides.
    pub from: Vec<Source>,
    pub expect: Expected,
}

/// Where bytes may come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// `file:PATH`; relative paths are resolved against the recipe's folder by the parser.
    File(PathBuf),
    /// `http://…` or `https://…`
    Http(String),
    /// `hf:OWNER/REPO@REV/PATH`
    Hf { repo: String, revision: String, path: String },
    /// `pypi:NAME==VERSION/path/inside/wheel`
    Pypi { name: String, version: String, path: String },
}

impl fmt::Display for Source {
    /// As a recipe writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => write!(f, "file:{}", path.display()),
            Source::Http(url) => f.write_str(url),
            Source::Hf { repo, revision, path } => write!(f, "hf:{repo}@{revision}/{path}"),
            Source::Pypi { name, version, path } => write!(f, "pypi:{name}=={version}/{path}"),
        }
    }
}

/// The hash a fetched file must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    #[serde(with = "hex32")]
    Sha256([u8; 32]),
    Blake3(Digest),
}

/// A file or folder on this machine; its contents enter the key, its path does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalFile {
    /// Absolute, or relative to the current directory (the parser joins the recipe's folder).
    pub path: PathBuf,
}

/// Text to token ids. Ports: `model`; `prompts` when the prompts come from a JSONL artifact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tokenize {
    pub prompts: Prompts,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompts {
    /// Rendered with the model's chat template, generation prompt added.
    Chat(Vec<Message>),
    /// Raw text; special tokens are parsed, none is added.
    Text(String),
    /// Token ids as they are.
    Ids(Vec<u32>),
    /// One prompt a line from the `prompts` port: `{"id"?, "prompt" | "messages" | "text" | "ids"}`.
    Jsonl,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    pub content: String,
}

/// Weights rearranged for the kernels. Port: `model`. Added by the compiler in front of `infer`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pack {
    pub width: Width,
    /// Quantise to this width first, and pack what comes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<Width>,
}

/// Prompts to answers. Ports: `model` (vocabulary), `packed` (weights), `tokens`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Infer {
    pub spec: Spec,
    /// Under f32: compute with the weights that this narrower width has, to see what a narrower spec adds to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Width>,
    pub max_tokens: u32,
    pub sampler: Sampler,
    /// Stop at the model's end-of-turn tokens?
    pub stop_at_eos: bool,
    /// Further texts at which an answer ends; the text itself is cut off.
    pub stop: Vec<String>,
    /// Keep the logits of the last prompt position.
    pub logits: bool,
    /// Keep the log-likelihood of every prompt token after the first.
    pub log_likelihood: bool,
    /// How much of the inside is hashed and kept.
    pub trace: TraceLevel,
    /// What else is kept of the inside, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub probes: BTreeMap<String, Probe>,
}

/// Scores of an `infer` step. Ports: `answers`, `tokens`; `likelihood` when it keeps log-likelihoods; `packed` when it
/// generates, and `packed_f32` to compare with f32; `references` and `introspection` when the recipe names them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The infer step's name, as the scores carry it.
    pub of: String,
    /// References of every prompt, where no file has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Vec<String>>,
    pub matching: Matching,
    pub bootstrap: Bootstrap,
    /// Also compute the answers' tokens with f32@1, and the divergence from it.
    pub kl_to_f32: bool,
}

/// A look inside an `infer` step. Ports: `answer` (all that it left), `tokens`, `model`, `packed`; `baseline` when the
/// recipe names one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Introspect {
    /// What was inferred; the compiler puts it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infer: Option<Infer>,
    /// Positions that are described, the last of a transcript.
    pub window: u32,
    /// Layers whose lens looks at the whole vocabulary.
    pub lens: Vec<u32>,
    /// Tokens of an answer whose causes are looked for.
    pub targets: u32,
    /// Prompts whose causes are looked for: the first so many.
    pub causes: u32,
    /// KL in nats up to which an explanation gives the same answer.
    pub faithful: f32,
}

/// One digest of an inference and of all that is known of its inside. Ports: `answer` (all that the `infer` step left),
/// and for each step of it `introspection.STEP` or `scores.STEP`. Added by the compiler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checksum {
    /// The infer step's name.
    pub of: String,
}

/// How much of the inside of an inference is hashed and kept. Each level contains the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceLevel {
    /// Digests of the residual stream after each layer.
    #[default]
    Digests,
    /// Digests of every block's output.
    Blocks,
    /// And the residual stream itself.
    Layers,
    /// And every block's output.
    Full,
}

impl TraceLevel {
    pub const ALL: [TraceLevel; 4] =
        [TraceLevel::Digests, TraceLevel::Blocks, TraceLevel::Layers, TraceLevel::Full];

    /// The name a recipe uses.
    pub fn name(self) -> &'static str {
        match self {
            TraceLevel::Digests => "digests",
            TraceLevel::Blocks => "blocks",
            TraceLevel::Layers => "layers",
            TraceLevel::Full => "full",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        TraceLevel::ALL.into_iter().find(|level| level.name() == name)
    }
}

mod hex32 {
    //! 32 bytes as 64 hex digits.
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&pipe_store::hex(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(d)?;
        pipe_store::unhex32(&text).ok_or_else(|| D::Error::custom("expected 64 hex digits"))
    }
}
