//! Numbers computed from what a model's blocks give out: of a row, of a row of attention weights, of logits.
//! Pure functions on slices; knows no trace, no step and no terminal.
//!
//! All add up in f64 in the order of the index, with one accumulator from 0, and use `+ − × ÷ √` and our own exp and
//! ln only, so a feature is the same bits on every machine. Values are finite by the numeric contract: a NaN never
//! leaves a block.

pub mod head;
mod rank;
pub mod row;
mod singular;
pub mod token;

pub use rank::{gini, rank_correlation};
