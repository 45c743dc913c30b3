//! What can be wrong with a model's files. Every error names the file and the field or tensor in it.

use thiserror::Error;

use super::chat::ChatError;
use super::gguf::GgufError;
use super::tokenizer::TokenizerError;

#[derive(Debug, Error)]
pub enum ModelError {
    #[error("no model here: {0}")]
    NoModel(String),
    #[error("{file}: {source}")]
    Gguf {
        file: String,
        #[source]
        source: GgufError,
    },
    #[error("the model is a folder without {0}; add the file")]
    NoFile(String),
    #[error("{file}: no valid JSON: {message}")]
    Json { file: String, message: String },
    /// A field of a JSON file says what cannot be computed or cannot be.
    #[error("{file}: `{field}`: {message}")]
    Field { file: String, field: String, message: String },
    #[error("{file}: no valid safetensors file: {message}")]
    Safetensors { file: String, message: String },
    #[error("{file}: tensor `{tensor}`: {message}")]
    Tensor { file: String, tensor: String, message: String },
    #[error("{file}: {source}")]
    Tokenizer {
        file: String,
        #[source]
        source: TokenizerError,
    },
    #[error(transparent)]
    Chat(#[from] ChatError),
}
