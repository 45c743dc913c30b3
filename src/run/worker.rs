//! One step on a worker: lease, look once more, run, record. A panic of an op is a failed step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pipe_store::{Lease, Output, Record, Recorded, StoreError};

use super::{Event, Stage, StepError, Task};
use crate::ops::{self, Done, Job, OpError, World};

/// How often a step that another process computes is looked at.
const LEASE_POLL: Duration = Duration::from_millis(20);

/// The least time between two beats of a step: enough for eyes, and kind to logs.
const BEAT: Duration = Duration::from_millis(50);

pub struct Worked {
    pub outputs: Vec<Output>,
    /// What was recorded before, if it is not what came out now.
    pub recorded: Option<Vec<Output>>,
    /// Another process had done it meanwhile.
    pub hit: bool,
}

pub fn work(task: &Task, check: bool, stage: &Stage<'_>) -> Result<Worked, StepError> {
    let Task { job, text, forced, .. } = task;
    let Stage { store, device, fetch, partial, cancel, tell, now_ms, .. } = *stage;
    // A step that runs to be compared computes everything itself.
    let prefixes = (stage.prefixes && !check && !*forced).then_some(now_ms);
    let world = &World { store, device, fetch, partial, cancel, prefixes };
    let _lease = lease(job, world)?;
    if !*forced && let Some(record) = world.store.record(&job.key).map_err(OpError::from)? {
        return Ok(Worked { outputs: record.outputs, recorded: None, hit: true });
    }
    let attempt = || -> Result<Done, StepError> {
        let last = Mutex::new(None::<Instant>);
        let progress = |progress| {
            let mut last = last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if last.is_none_or(|at| at.elapsed() >= BEAT) {
                *last = Some(Instant::now());
                tell(Event::StepProgress { step: job.step.clone(), progress });
            }
        };
        match catch_unwind(AssertUnwindSafe(|| ops::execute(job, world, &progress))) {
            Ok(done) => Ok(done?),
            Err(panic) => Err(StepError::Panic(panic_text(&*panic))),
        }
    };
    let done = attempt()?;
    let mut recorded = record(job, text, &done, world, now_ms)?;
    if check && recorded.is_none() {
        let again = attempt()?;
        if again.outputs != done.outputs {
            recorded = record(job, text, &again, world, now_ms)?;
            return Ok(Worked { outputs: again.outputs, recorded, hit: false });
        }
    }
    Ok(Worked { outputs: done.outputs, recorded, hit: false })
}

fn lease(job: &Job, world: &World<'_>) -> Result<Lease, StepError> {
    loop {
        if let Some(lease) = world.store.try_lease(&job.key).map_err(OpError::from)? {
            return Ok(lease);
        }
        if world.cancel.load(Ordering::Relaxed) {
            return Err(OpError::Cancelled.into());
        }
        std::thread::sleep(LEASE_POLL);
    }
}

/// Put the record; gives back what stood there before when it says something else.
fn record(
    job: &Job,
    text: &str,
    done: &Done,
    world: &World<'_>,
    now_ms: u64,
) -> Result<Option<Vec<Output>>, StepError> {
    let put = || -> Result<Recorded, StoreError> {
        let log = match done.log.is_empty() {
            true => None,
            false => Some(world.store.put(done.log.as_bytes())?),
        };
        let record = Record {
            step: job.step.clone(),
            preimage: text.to_owned(),
            outputs: done.outputs.clone(),
            log,
            facts: serde_json::Value::Object(done.facts.clone()).to_string(),
            created_ms: now_ms,
        };
        world.store.put_record(&job.key, &record)
    };
    match put().map_err(OpError::from)? {
        Recorded::New | Recorded::Same => Ok(None),
        Recorded::Disagrees { first } => Ok(Some(first.outputs)),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
