//! The run loop: walks a pipeline, asks the store, hands jobs to workers, tells what happened.
//! Knows no op's inside and no terminal.

mod event;
mod facts;
mod state;
mod worker;

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use petgraph::Direction;
use petgraph::graph::NodeIndex;
use pipe_store::{Digest, Output, Store, StoreError};
use serde::{Deserialize, Serialize};

pub use event::Event;
pub use facts::{Facts, Git};
use state::{State, States};

use crate::ops::{Device, Job, OpError};
use crate::pipeline::Pipeline;
use crate::plan::{self, Looked, PlanError, Why};

/// How to run. Nothing here can change a result.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Steps that may run at once; at least 1.
    pub jobs: usize,
    /// Go on with steps that do not need a failed one.
    pub keep_going: bool,
    /// Run these steps although they are recorded.
    pub force: Vec<String>,
    /// Run every step that runs a second time and compare.
    pub check: bool,
}

/// The finished story.
#[derive(Debug)]
pub struct Run {
    pub id: String,
    pub started_ms: u64,
    pub wall_ms: u64,
    /// One per step, in the pipeline's order.
    pub steps: Vec<StepRun>,
}

/// What became of one step.
#[derive(Debug)]
pub struct StepRun {
    pub node: NodeIndex,
    pub name: String,
    /// None when the step's inputs never came to be.
    pub key: Option<Digest>,
    pub outputs: Vec<Output>,
    pub outcome: Outcome,
    pub wall_ms: u64,
}

#[derive(Debug)]
pub enum Outcome {
    Hit,
    Ran,
    /// Ran, and gave other bytes than the record says. The record stays; the run is not ok.
    Disagreed,
    Failed(StepError),
    /// Not run, since another step failed or the user said stop.
    Skipped {
        because: String,
    },
}

/// A failed step's reason.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error(transparent)]
    Op(#[from] OpError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("BUG: the step panicked: {0}")]
    Panic(String),
}

/// The short form of a run that the store keeps for `log`, `show` and `explain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunBody {
    pub recipe: Option<String>,
    pub ok: bool,
    pub wall_ms: u64,
    pub facts: Facts,
    pub bundle: Option<String>,
    #[serde(default)]
    pub step_count: usize,
    /// Steps that were hits.
    #[serde(default)]
    pub hits: usize,
    /// Every step, but for the hits of a run that has a bundle: the bundle tells all there is to them, and a
    /// run of ten thousand hits should not cost ten thousand entries.
    pub steps: Vec<StepBody>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepBody {
    pub name: String,
    pub op: String,
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub wall_ms: u64,
}

impl Outcome {
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Hit => "hit",
            Outcome::Ran => "ran",
            Outcome::Disagreed => "disagreed",
            Outcome::Failed(_) => "failed",
            Outcome::Skipped { .. } => "skipped",
        }
    }
}

impl Run {
    /// Did every step come to its outputs?
    pub fn ok(&self) -> bool {
        self.steps.iter().all(|s| matches!(s.outcome, Outcome::Hit | Outcome::Ran))
    }

    pub fn count(&self, name: &str) -> usize {
        self.steps.iter().filter(|s| s.outcome.name() == name).count()
    }
}

/// What a worker sends back.
struct Finished {
    node: NodeIndex,
    result: Result<worker::Worked, StepError>,
    wall_ms: u64,
}

/// What a run needs of the world.
pub struct Stage<'a> {
    pub store: &'a Store,
    pub device: &'a Device,
    pub fetch: &'a crate::ops::fetch::FetchEnv,
    pub partial: &'a std::path::Path,
    pub cancel: &'a AtomicBool,
    /// Called for every beat, from any thread.
    pub tell: &'a (dyn Fn(Event) + Sync),
    pub now_ms: u64,
    /// May steps reuse computed prefixes of prompts, and keep them?
    pub prefixes: bool,
}

/// Run a pipeline to its end. A failed step is data in the run; an error means the run itself could not go on.
pub fn run(pipeline: &Pipeline, options: &Options, id: String, stage: &Stage<'_>) -> Result<Run, PlanError> {
    let started = Instant::now();
    let force: BTreeSet<_> = plan::named(pipeline, &options.force)?.into_iter().collect();
    let tell = stage.tell;
    tell(Event::RunStarted {
        run: id.clone(),
        pipeline: pipeline.name.clone(),
        steps: pipeline.graph.node_count(),
    });
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.jobs.max(1))
        .thread_name(|i| format!("step-{i}"))
        .build()
        .expect("BUG: a pool of some threads can be made");
    let mut states = States::new(pipeline);
    pool.in_place_scope(|scope| -> Result<(), PlanError> {
        let (sender, receiver) = mpsc::channel::<Finished>();
        let hand_out = |task: Task| {
            let sender = sender.clone();
            let check = options.check;
            scope.spawn(move |_| {
                let began = Instant::now();
                let result = worker::work(&task, check, stage);
                let wall_ms = began.elapsed().as_millis() as u64;
                // The loop may have gone on an error of the store; then nobody listens.
                let _ = sender.send(Finished { node: task.node, result, wall_ms });
            });
        };
        let mut stopping = false;
        // Steps that were looked up and must run.
        let mut queue = VecDeque::new();
        loop {
            let cancelled = stage.cancel.load(Ordering::Relaxed);
            while !stopping && !cancelled {
                let wave = states.take_ready();
                if wave.is_empty() {
                    break;
                }
                let looked = plan::look_up(pipeline, &wave, |n| states.outputs(n), stage.store)?;
                for (node, looked) in wave.into_iter().zip(looked) {
                    let forced = force.contains(&node) || states.is_remaking(node);
                    match looked {
                        Ok(Looked { key, record: Some(record), .. }) if !forced => {
                            let (step, outputs) = (pipeline.graph[node].name.clone(), record.outputs);
                            tell(Event::StepHit { step, key, outputs: outputs.clone() });
                            states.set(node, State::Done { key, outputs, outcome: Outcome::Hit, wall_ms: 0 });
                        }
                        Ok(looked) => queue.push_back(Task::new(looked, forced, pipeline)),
                        Err(PlanError::Store(e)) => return Err(e.into()),
                        Err(e) => {
                            stopping |= !options.keep_going;
                            fail(&mut states, pipeline, node, e.into(), 0, tell);
                        }
                    }
                }
            }
            while !stopping && !cancelled && states.running() < options.jobs.max(1) {
                let Some(task) = queue.pop_front() else { break };
                let reason = match task.forced {
                    true => Why::Forced,
                    false => plan::why_miss(stage.store, &task.job.step, &task.text)?,
                };
                let (step, op) = (task.job.step.clone(), task.job.op.name());
                tell(Event::StepStarted { step, op, key: task.job.key, reason });
                states.set(task.node, State::Running { key: task.job.key });
                hand_out(task);
            }
            if states.running() == 0 {
                return Ok(());
            }
            let Finished { node, result, wall_ms } = receiver.recv().expect("BUG: this loop holds a sender");
            match result {
                Ok(worked) => {
                    stopping |= worked.recorded.is_some() && !options.keep_going;
                    finish(&mut states, pipeline, node, worked, wall_ms, tell);
                }
                Err(error) => {
                    if cancelled || !remake(&mut states, pipeline, node, &error, tell) {
                        stopping |= !options.keep_going;
                        fail(&mut states, pipeline, node, error, wall_ms, tell);
                    }
                }
            }
        }
    })?;
    let cancelled = stage.cancel.load(Ordering::Relaxed);
    let steps = states.into_steps(pipeline, cancelled);
    for step in &steps {
        if let Outcome::Skipped { because } = &step.outcome {
            tell(Event::StepSkipped { step: step.name.clone(), because: because.clone() });
        }
    }
    Ok(Run { id, started_ms: stage.now_ms, wall_ms: started.elapsed().as_millis() as u64, steps })
}

/// A worker came back with outputs.
fn finish(
    states: &mut States,
    pipeline: &Pipeline,
    node: NodeIndex,
    worked: worker::Worked,
    wall_ms: u64,
    tell: &(dyn Fn(Event) + Sync),
) {
    let step = pipeline.graph[node].name.clone();
    let key = states.key(node).expect("BUG: a running step has a key");
    let worker::Worked { outputs, recorded, hit } = worked;
    if let Some(recorded) = recorded {
        tell(Event::StepDisagrees { step, key, recorded, now: outputs.clone() });
        let outcome = Outcome::Disagreed;
        return states.set(node, State::Failed { key: Some(key), outputs, outcome, wall_ms });
    }
    let outcome = if hit { Outcome::Hit } else { Outcome::Ran };
    tell(match hit {
        true => Event::StepHit { step, key, outputs: outputs.clone() },
        false => Event::StepFinished { step, key, outputs: outputs.clone(), wall_ms },
    });
    states.set(node, State::Done { key, outputs, outcome, wall_ms });
}

fn fail(
    states: &mut States,
    pipeline: &Pipeline,
    node: NodeIndex,
    error: StepError,
    wall_ms: u64,
    tell: &(dyn Fn(Event) + Sync),
) {
    tell(Event::StepFailed { step: pipeline.graph[node].name.clone(), error: error.to_string() });
    let key = states.key(node);
    states.set(node, State::Failed { key, outputs: vec![], outcome: Outcome::Failed(error), wall_ms });
}

/// A step failed since the bytes of an input are gone or damaged: its producer runs again, and must come to
/// the same digest. False if the failure is another, or running the producer cannot help.
fn remake(
    states: &mut States,
    pipeline: &Pipeline,
    waiter: NodeIndex,
    error: &StepError,
    tell: &(dyn Fn(Event) + Sync),
) -> bool {
    let StepError::Op(OpError::Store(StoreError::Missing { digest } | StoreError::Damaged { digest, .. })) =
        error
    else {
        return false;
    };
    let made = |n: &NodeIndex| {
        states.outputs(*n).is_some_and(|outputs| outputs.iter().any(|o| o.artifact.digest == *digest))
    };
    let producer = pipeline.graph.neighbors_directed(waiter, Direction::Incoming).find(made);
    let Some(producer) = producer.filter(|&producer| states.remake(producer, waiter)) else { return false };
    tell(Event::StepRemade {
        step: pipeline.graph[producer].name.clone(),
        needed_by: pipeline.graph[waiter].name.clone(),
        digest: *digest,
    });
    true
}

/// What a worker is handed.
struct Task {
    node: NodeIndex,
    job: Job,
    /// The text of the key, for the record.
    text: String,
    /// Run it even if it is recorded.
    forced: bool,
}

impl Task {
    fn new(looked: Looked, forced: bool, pipeline: &Pipeline) -> Self {
        let text = looked.text(pipeline);
        let step = &pipeline.graph[looked.node];
        let job =
            Job { step: step.name.clone(), op: step.op.clone(), key: looked.key, inputs: looked.inputs };
        Task { node: looked.node, job, text, forced }
    }
}

/// Keep a run in the store, so that `log`, `show` and `explain` find it and gc keeps what it made.
pub fn keep(
    run: &Run,
    pipeline: &Pipeline,
    recipe: Option<String>,
    facts: Facts,
    bundle: Option<(cid::Cid, Digest)>,
    store: &Store,
) -> Result<RunBody, StoreError> {
    let body = RunBody {
        recipe,
        ok: run.ok(),
        wall_ms: run.wall_ms,
        facts,
        bundle: bundle.as_ref().map(|(cid, _)| cid.to_string()),
        step_count: run.steps.len(),
        hits: run.count("hit"),
        steps: run
            .steps
            .iter()
            .filter(|s| bundle.is_none() || !matches!(s.outcome, Outcome::Hit))
            .map(|s| StepBody {
                name: s.name.clone(),
                op: pipeline.graph[s.node].op.name().into(),
                outcome: s.outcome.name().into(),
                key: s.key,
                error: match &s.outcome {
                    Outcome::Failed(e) => Some(e.to_string()),
                    Outcome::Skipped { because } => Some(because.clone()),
                    _ => None,
                },
                wall_ms: s.wall_ms,
            })
            .collect(),
    };
    store.put_run(&pipe_store::RunEntry {
        id: run.id.clone(),
        pipeline: pipeline.name.clone(),
        bundle: bundle.map(|(_, digest)| digest),
        started_ms: run.started_ms,
        body: serde_json::to_string(&body).expect("BUG: a run is plain data"),
        keys: run.steps.iter().filter_map(|s| s.key).collect(),
        objects: bundle.map(|(_, digest)| digest).into_iter().collect(),
    })?;
    Ok(body)
}
