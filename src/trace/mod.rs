//! The trace of an inference: a digest of what each block gave at each position, on request the rows themselves;
//! and the check of a whole answer in one pass. Knows no store's record and no step. docs/TRACE.md defines it all.

mod collect;
pub mod digest;
mod header;
mod layout;
mod many;
mod read;
mod spool;
#[cfg(test)]
mod tests;

pub mod verify;
mod write;

pub use collect::{Collector, Part};
pub(crate) use header::Header;
pub use layout::Layout;
pub use read::{Trace, TraceError, TracedPrompt};
pub(crate) use spool::Records;
pub use spool::Spool;
pub use write::{Written, write};

/// Format and version, as the file's metadata holds it.
pub const FORMAT: &str = "pipe/trace@1";
