//! What can be wrong with a GGUF file. Every error names the field or tensor and the byte it stands at.

use thiserror::Error;

use super::header::TENSOR_TYPES;
use crate::model::stored;

/// A malformed or unsupported GGUF file.
#[derive(Debug, Error)]
#[error("{field} (at byte {at}): {kind}")]
pub struct GgufError {
    /// What was being read: a metadata key, a tensor, a part of the header.
    pub field: String,
    /// Offset of it from the start of the file.
    pub at: u64,
    pub kind: GgufErrorKind,
}

#[derive(Debug, Error)]
pub enum GgufErrorKind {
    #[error("not a GGUF file: it starts with {0:02x?} instead of \"GGUF\"")]
    Magic(Vec<u8>),
    #[error("GGUF version {0} is not supported; versions 2 and 3 are")]
    Version(u32),
    #[error("the file is big-endian; convert it to a little-endian one")]
    BigEndian,
    #[error("the file ends early: {need} bytes needed, {left} left; download it again")]
    Truncated { need: u64, left: u64 },
    #[error("a count of {count} cannot be true: at most {limit} fit or make sense here")]
    Count { count: u64, limit: u64 },
    #[error("the text is not UTF-8")]
    Utf8,
    #[error("type number {0} is no GGUF value type")]
    ValueType(u32),
    #[error("arrays of arrays are not supported")]
    NestedArray,
    #[error("a bool must be 0 or 1, not {0}")]
    Bool(u8),
    #[error("stands twice; first at byte {first}")]
    Duplicate { first: u64 },
    #[error("must be a power of two between 8 and 65536, not {0}")]
    Alignment(u64),
    #[error("a tensor has 1 to 4 dimensions, not {0}")]
    Rank(u32),
    #[error("dimensions {0:?} are empty or overflow")]
    Dimensions(Vec<u64>),
    #[error("stored as {0}, which cannot be read; {types} can", types = readable())]
    TensorType(String),
    #[error("a row of {cols} weights is no whole number of {ty} blocks of {block}")]
    Block { cols: u64, ty: &'static str, block: usize },
    #[error("offset {offset} is no multiple of the alignment {alignment}")]
    Misaligned { offset: u64, alignment: u64 },
    #[error("its {bytes} bytes at offset {offset} reach beyond the tensor data of {data} bytes")]
    Outside { offset: u64, bytes: u64, data: u64 },
    #[error("its bytes overlap those of `{other}`")]
    Overlap { other: String },
    #[error("missing")]
    Missing,
    #[error("expected {expected}, found {found}")]
    Type { expected: &'static str, found: String },
    #[error("{0}")]
    Unsupported(String),
    #[error("has shape {found:?} (rows, columns), expected {expected:?}")]
    Shape { found: Vec<u64>, expected: [u64; 2] },
}

/// The types that can be read, in words.
fn readable() -> String {
    TENSOR_TYPES.map(|(_, ty)| stored::name(ty)).join(", ")
}

impl GgufErrorKind {
    pub(super) fn at(self, field: impl ToString, at: u64) -> GgufError {
        GgufError { field: field.to_string(), at, kind: self }
    }
}
