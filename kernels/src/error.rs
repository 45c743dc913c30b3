//! What can go wrong when computing. Packing has its own errors in `pack`, sampling in `sampler`.

use crate::block::Block;
use crate::cpu::Implementation;

/// A forward pass, or an engine, that could not do its work.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ComputeError {
    #[error(
        "{block} gave a {what} at position {position} of sequence {sequence}, element {element}: \
         the weights or the prompt drive the model out of f32's range"
    )]
    NotFinite { block: Block, sequence: usize, position: usize, element: usize, what: NotFinite },
    #[error(
        "token {token} at position {position} of sequence {sequence} is not below the vocabulary's size, {vocab}"
    )]
    Token { sequence: usize, position: usize, token: u32, vocab: usize },
    #[error("sequence {sequence} would grow to {length} tokens; the model's context holds {context}")]
    Context { sequence: usize, length: usize, context: usize },
    #[error(
        "the cache of sequence {sequence} was made for a model of another shape; make it from this model's geometry"
    )]
    OtherGeometry { sequence: usize },
    #[error("{bytes} bytes of working memory could not be allocated")]
    Memory { bytes: usize },
    #[error("{0} threads were asked for; give 1 to 1024")]
    Threads(usize),
    #[error("the threads could not be started: {0}")]
    Spawn(String),
    #[error("this CPU cannot run the implementation {0}; `Implementation::available` lists those it can")]
    Unavailable(Implementation),
    #[error(transparent)]
    SelfTest(#[from] crate::selftest::SelfTestError),
}

/// Which kind of value a block may not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFinite {
    Nan,
    Infinity,
}

impl std::fmt::Display for NotFinite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nan => "NaN",
            Self::Infinity => "infinity",
        })
    }
}
