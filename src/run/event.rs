//! The beats of a run, as data. Who shows them, and how, is the command line's affair.

use pipe_store::{Digest, Output};
use serde::Serialize;

use crate::ops::Progress;
use crate::plan::Why;

/// Something happened. Serialised, it is one line of `--json`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    RunStarted {
        run: String,
        pipeline: String,
        steps: usize,
    },
    StepHit {
        step: String,
        key: Digest,
        outputs: Vec<Output>,
    },
    StepStarted {
        step: String,
        op: &'static str,
        key: Digest,
        reason: Why,
    },
    StepProgress {
        step: String,
        #[serde(flatten)]
        progress: Progress,
    },
    StepFinished {
        step: String,
        key: Digest,
        outputs: Vec<Output>,
        wall_ms: u64,
    },
    /// The same key gave other bytes than are recorded: the step is not deterministic, or a machine is broken.
    StepDisagrees {
        step: String,
        key: Digest,
        recorded: Vec<Output>,
        now: Vec<Output>,
    },
    /// A recorded step runs again because bytes that another step needs are gone or damaged.
    StepRemade {
        step: String,
        needed_by: String,
        digest: Digest,
    },
    StepFailed {
        step: String,
        error: String,
    },
    StepSkipped {
        step: String,
        because: String,
    },
    RunFinished {
        run: String,
        ok: bool,
        bundle: Option<String>,
        hits: usize,
        ran: usize,
        wall_ms: u64,
    },
}
