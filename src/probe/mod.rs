//! Probes: samples of what chosen blocks give at chosen positions, taken while the engine computes, and numbers
//! computed from whole rows. A probe changes no bit of what it looks at. docs/PROBES.md defines it all.
//! Knows no recipe text and no step.

mod collect;
mod compare;
mod draw;
mod pick;
mod plan;
mod select;
mod spec;
mod write;

pub use collect::Collector;
pub use compare::Mismatch;
pub use plan::{Plan, PlanError};
pub use select::{Part, Selector, SelectorError, Source, names};
pub use spec::{Elements, Feature, Layers, Probe, Tokens};

/// Format and version, as the file's metadata holds it.
pub const FORMAT: &str = "pipe/probes@1";
