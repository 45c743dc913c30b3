//! LLM inference as a reproducible pipeline. Modules stand in flow order; each uses only those above it.

pub mod bundle;
pub mod cache;
pub mod checksum;
pub mod cli;
pub mod diff;
pub mod features;
pub mod inside;
pub mod key;
pub mod lineage;
pub(crate) mod markup;
pub mod measure;
pub mod model;
pub mod ops;
pub mod pipeline;
pub mod plan;
pub mod probe;
pub mod publish;
pub mod recipe;
pub mod report;
pub mod run;
pub mod score;
pub mod specs;
pub mod trace;
