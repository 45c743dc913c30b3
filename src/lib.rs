//! LLM inference as a reproducible pipeline. Modules stand in flow order; each uses only those above it.

pub mod bundle;
pub mod cli;
pub mod key;
pub mod measure;
pub mod model;
pub mod ops;
pub mod pipeline;
pub mod plan;
pub mod publish;
pub mod recipe;
pub mod run;
pub mod specs;
pub mod trace;
