//! Packing: a model's weights in the layout the kernels read, as one safetensors file that is mapped afterwards.
//! The same bytes whatever the source's row order, threads or machine. Knows no store.

pub mod layout;
mod open;
pub(crate) mod rope;
mod write;

pub use open::{PackedLayer, PackedModel};
pub use write::{Packing, pack, packed_len};

use crate::geometry::Geometry;

/// A model that cannot be packed, or bytes that are no packed model.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("{what}: {geometry:?}")]
    Geometry { what: &'static str, geometry: Box<Geometry> },
    #[error("tensor {tensor} is {rows} × {cols}; the geometry asks for {want_rows} × {want_cols}")]
    Shape { tensor: String, rows: usize, cols: usize, want_rows: usize, want_cols: usize },
    #[error("tensor {tensor} has {found} bytes; its type and shape make {expected}")]
    Length { tensor: String, found: usize, expected: String },
    #[error("the model has {found} layers; the geometry says {expected}")]
    Layers { found: usize, expected: usize },
    #[error("a {0} lm_head does not go with the geometry's `tied`")]
    Tied(&'static str),
    #[error(
        "weight {col} of row {row} of tensor {tensor} is NaN, infinite or beyond what 16 bits scale; the file is damaged"
    )]
    NotFinite { tensor: String, row: usize, col: usize },
    #[error("the packed model could not be written")]
    Write(#[from] std::io::Error),
    #[error("not a packed model: {0}; pack it again")]
    Header(String),
    #[error("packed with {field} {found}, this build reads {expected}; pack it again")]
    Version { field: &'static str, found: String, expected: String },
    #[error("tensor {tensor} of the packed model {problem}; pack it again")]
    Tensor { tensor: String, problem: String },
    #[error(
        "the packed model's bytes do not start on a 4-byte boundary; map the file, or copy it into aligned memory"
    )]
    Alignment,
}
