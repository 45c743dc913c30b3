//! Transformer blocks whose bits do not depend on the machine: specs, blocks, implementations.
//! Knows no step, no store, no file format.

pub mod attend;
pub mod block;
mod buffer;
pub mod cpu;
pub mod dequant;
pub mod engine;
pub mod error;
pub mod geometry;
pub mod graph;
pub mod math;
pub mod matrix;
pub mod oracle;
pub mod pack;
mod quant;
pub mod sampler;
pub mod selftest;
pub mod spec;
pub mod weights;

pub use attend::{Attended, attended, attention_weights};
pub use block::{Block, Half};
pub use cpu::Implementation;
pub use engine::{BlockOutput, Edit, Engine, KvCache, Logits, PIECE, Place, Slice, Tap, Want};
pub use error::ComputeError;
pub use geometry::Geometry;
pub use graph::BlockGraph;
pub use pack::{PackError, PackedModel, Packing, pack};
pub use sampler::Sampler;
pub use spec::{Spec, Width};
