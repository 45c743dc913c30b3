//! A switch for tests: die at the n-th write step, as kill -9 would. Off unless asked for.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts down at every step between two states on disk; aborts the process at zero.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// 0: never.
    left: AtomicU64,
}

impl Faults {
    pub(crate) fn die_at(step: u64) -> Self {
        Faults { left: AtomicU64::new(step) }
    }

    /// `_between` names the place for the reader of the code.
    pub(crate) fn point(&self, _between: &'static str) {
        if self.left.load(Ordering::Relaxed) != 0 && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    }
}
